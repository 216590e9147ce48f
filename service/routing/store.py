"""
The stored rules. Every change is checked, versioned and written down; at most 1,000 in an installation.

The merchant of a rule never changes. `listed` has them in the order in which they are looked at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from service.errors import NotFound, Refusal
from service.merchants.audit import REASON_CHARACTERS_MAX, By
from service.merchants.tables import accounts, audit, merchants
from service.routing.draft import PRIORITY_MAX, PRIORITY_STEP, RULES_MAX, Accounts, read
from service.routing.rules import CONDITIONS, Rule
from service.routing.tables import routes

_ORDER: Final = (routes.c.priority, routes.c.id)


def listed(tx: Connection, merchant_id: str | None = None) -> list[Rule]:
    """All rules, or those that one merchant's payments meet: its own and everybody's."""
    query = select(routes).order_by(*_ORDER)
    if merchant_id is not None:
        query = query.where((routes.c.merchant_id == merchant_id) | routes.c.merchant_id.is_(None))
    return [_rule(row) for row in tx.execute(query)]


def one(tx: Connection, route_id: str, reader: str | None = None, owner: str | None = None) -> Rule:
    """
    One rule; NotFound says how to list them. For a merchant, as `reader`, another's do not exist; as `owner`,
    everybody's do not either: they are the operator's to change.
    """
    row = tx.execute(select(routes).where(routes.c.id == route_id)).one_or_none()
    unread = row is not None and reader is not None and row.merchant_id not in (None, reader)
    not_owned = row is not None and owner is not None and row.merchant_id != owner
    if row is None or unread or not_owned:
        raise NotFound("route", route_id, "caisse routes list")
    return _rule(row)


def create(tx: Connection, fields: Mapping[str, Any], by: By) -> Rule:
    """Add a rule; without a priority it comes last."""
    count, last = tx.execute(select(func.count(), func.max(routes.c.priority)).select_from(routes)).one()
    _refuse_too_many(count + 1)
    after = 0 if last is None else min(last + PRIORITY_STEP, PRIORITY_MAX)
    rule = replace(_checked(tx, {"priority": after, **fields}), id=by.ids("rt"))
    tx.execute(insert(routes), [_row(rule, by)])
    by.write_down(tx, "route.added", rule.id, _brief(rule))
    return rule


def change(
    tx: Connection,
    route_id: str,
    fields: Mapping[str, Any],
    by: By,
    version: int | None = None,
    owner: str | None = None,
) -> Rule:
    """
    Change what is given. With `version`: only if it is still that one, else Refusal `changed_meanwhile`. What changes
    nothing is not written down.
    """
    before = one(tx, route_id, owner=owner)
    if version is not None and version != before.version:
        sentence = f"{route_id} was changed meanwhile: it has version {before.version} now."
        raise Refusal("changed_meanwhile", sentence)
    after = _checked(tx, fields, before)
    if after.merchant_id != before.merchant_id:
        raise Refusal("bad_merchant", "A route stays its merchant's; add another one, and delete this.")
    if after == before:
        return before
    changed = {**_values(after), "version": before.version + 1, "updated_at_ms": by.now_ms}
    tx.execute(update(routes).where(routes.c.id == route_id).values(**changed))
    by.write_down(tx, "route.changed", route_id, ", ".join(_differences(before, after)))
    return replace(after, version=before.version + 1)


def remove(tx: Connection, route_id: str, by: By, owner: str | None = None) -> Rule:
    """Delete a rule. Explanations that are stored keep their words; what they name by id is in the audit trail."""
    rule = one(tx, route_id, owner=owner)
    tx.execute(delete(routes).where(routes.c.id == route_id))
    by.write_down(tx, "route.deleted", route_id, _brief(rule))
    return rule


# --- many at once -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Diff:
    """
    A change of many rules: made by `plan_…` in a read, done by `apply` in a write, which for a thousand takes some tens
    of milliseconds. `seen` is what the plan was made on: each rule's version.
    """

    added: list[Rule] = field(default_factory=list)
    changed: list[tuple[Rule, Rule]] = field(default_factory=list)  # before, after
    removed: list[Rule] = field(default_factory=list)
    unchanged: int = 0
    seen: Mapping[str, int] = field(default_factory=dict)


def plan_order(tx: Connection, order: Sequence[Sequence[str]], owner: str | None = None) -> Diff:
    """
    Places for all rules (an `owner`'s own): groups of ids, one group sharing payments by weight. Each has to be named
    once; an order that was made before somebody added a rule is refused.
    """
    there = {rule.id: rule for rule in listed(tx) if owner is None or rule.merchant_id == owner}
    named = [route_id for group in order for route_id in group]
    if unknown := [route_id for route_id in named if route_id not in there]:
        raise NotFound("route", unknown[0], "caisse routes list")
    if len(set(named)) < len(named):
        raise Refusal("bad_order", "The order names a route twice.")
    if lacking := sorted(set(there) - set(named)):
        raise Refusal("bad_order", f"The order has to name all {len(there)} routes; it lacks {', '.join(lacking[:3])}.")
    places = [(there[route_id], place * PRIORITY_STEP) for place, group in enumerate(order) for route_id in group]
    changed = [(rule, replace(rule, priority=priority)) for rule, priority in places if rule.priority != priority]
    return Diff(changed=changed, unchanged=len(there) - len(changed), seen=_versions(tx))


def plan_set(tx: Connection, rules: Sequence[Any], by: By) -> Diff:
    """
    Another whole list. A rule with an id changes that one; one without an id that says what a rule says already is that
    rule, so setting the same file twice changes nothing. Without priorities the order of the list counts.
    """
    _refuse_too_many(len(rules))
    there = {rule.id: rule for rule in listed(tx)}
    wanted = _read_all(tx, rules, there)
    unclaimed = {route_id: there[route_id] for route_id in there.keys() - {rule.id for rule in wanted}}
    same: dict[Rule, list[str]] = {}
    for rule in sorted(unclaimed.values(), key=lambda rule: rule.id):
        same.setdefault(replace(rule, id="", version=1), []).append(rule.id)
    diff = Diff(seen=_versions(tx))
    unchanged = 0
    for rule in wanted:
        twins = [] if rule.id else same.get(rule, [])
        if twins:
            del unclaimed[twins.pop(0)]
            unchanged += 1
        elif not rule.id:
            diff.added.append(replace(rule, id=by.ids("rt")))
        elif rule == there[rule.id]:
            unchanged += 1
        else:
            diff.changed.append((there[rule.id], rule))
    diff.removed.extend(rule for rule in there.values() if rule.id in unclaimed)
    return replace(diff, unchanged=unchanged)


def apply(tx: Connection, diff: Diff, by: By) -> None:
    """
    Do what was planned, all or nothing. Refusal `changed_meanwhile`: any rule is another than the plan was made on; a
    plan that was applied is refused too, so it cannot be done twice.
    """
    if not (diff.added or diff.changed or diff.removed):
        return
    if _versions(tx) != dict(diff.seen):
        raise Refusal("changed_meanwhile", "Somebody changed the routes meanwhile; look at them and try again.")
    if diff.removed:
        tx.execute(delete(routes).where(routes.c.id == bindparam("route")), [{"route": one.id} for one in diff.removed])
    if diff.changed:
        new: dict[str, Any] = {name: bindparam(name) for name in _values(diff.changed[0][1])}
        step = update(routes).where(routes.c.id == bindparam("route")).values(
            **new, version=routes.c.version + 1, updated_at_ms=by.now_ms
        )  # fmt: skip
        tx.execute(step, [{"route": after.id, **_values(after)} for _, after in diff.changed])
    if diff.added:
        tx.execute(insert(routes), [_row(rule, by) for rule in diff.added])
    entries = [
        *(("route.deleted", rule.id, _brief(rule)) for rule in diff.removed),
        *(("route.changed", after.id, ", ".join(_differences(before, after))) for before, after in diff.changed),
        *(("route.added", rule.id, _brief(rule)) for rule in diff.added),
    ]
    # As `By.write_down`, a thousand at once: one by one they would hold the writer for most of a second.
    trail = {"at_ms": by.now_ms, "actor": by.actor}
    tx.execute(
        insert(audit),
        [
            {
                "id": by.ids("aud"),
                **trail,
                "action": action,
                "subject": route_id,
                "reason": reason[:REASON_CHARACTERS_MAX],
            }
            for action, route_id, reason in entries
        ],
    )


def _versions(tx: Connection) -> dict[str, int]:
    return {row.id: row.version for row in tx.execute(select(routes.c.id, routes.c.version))}


def draft(tx: Connection, rules: Sequence[Any]) -> list[Rule]:
    """Rules that are only tried: checked like the others, stored nowhere."""
    _refuse_too_many(len(rules))
    drafted = _read_all(tx, rules, {rule.id: rule for rule in listed(tx)})
    return [rule if rule.id else replace(rule, id=f"draft_{n:04}") for n, rule in enumerate(drafted, 1)]


def _read_all(tx: Connection, rules: Sequence[Any], there: Mapping[str, Rule]) -> list[Rule]:
    known = _accounts(tx)
    owners = set(tx.execute(select(merchants.c.id)).scalars())
    wanted: list[Rule] = []
    seen: set[str] = set()
    for number, fields in enumerate(rules, 1):
        where = f"Rule {number}"
        route_id = fields.get("id") if isinstance(fields, Mapping) else None
        if route_id is not None and (not isinstance(route_id, str) or route_id not in there):
            raise Refusal(
                "not_found", f"{where}: there is no route {str(route_id)[:60]!r}; leave the id out to add it."
            )
        if route_id in seen:
            raise Refusal("bad_route", f"{where}: {route_id} stands in the list twice.")
        if route_id is not None:
            seen.add(route_id)
        placed = {"priority": (number - 1) * PRIORITY_STEP, **fields} if isinstance(fields, Mapping) else fields
        rule = read(placed, known, None, where)
        _refuse_unknown_merchant(rule, owners, where)
        if route_id is None:
            wanted.append(rule)
            continue
        before = there[route_id]
        if rule.merchant_id != before.merchant_id:
            raise Refusal("bad_merchant", f"{where}: a route stays its merchant's; leave the id out to add another.")
        wanted.append(replace(rule, id=route_id, version=before.version))
    return wanted


# --- rows ---------------------------------------------------------------------------------------------


def _checked(tx: Connection, fields: Mapping[str, Any], before: Rule | None = None) -> Rule:
    rule = read(fields, _accounts(tx), before)
    if rule.merchant_id is not None:
        found = tx.execute(select(merchants.c.id).where(merchants.c.id == rule.merchant_id)).scalars()
        _refuse_unknown_merchant(rule, set(found), "The rule")
    return rule


def _accounts(tx: Connection) -> Accounts:
    return {row.id: row.merchant_id for row in tx.execute(select(accounts.c.id, accounts.c.merchant_id))}


def _refuse_unknown_merchant(rule: Rule, there: set[str], where: str) -> None:
    if rule.merchant_id is not None and rule.merchant_id not in there:
        sentence = f"{where}: there is no merchant {rule.merchant_id[:60]!r}; `caisse merchant list` shows them."
        raise Refusal("not_found", sentence)


def _refuse_too_many(count: int) -> None:
    if count > RULES_MAX:
        raise Refusal("too_many_routes", f"An installation has at most {RULES_MAX:,} routes.")


def _rule(row: Any) -> Rule:
    words = {name: tuple(filter(None, getattr(row, name).split(","))) for name in CONDITIONS}
    return Rule(
        id=row.id,
        providers=tuple(json.loads(row.providers)),
        priority=row.priority,
        merchant_id=row.merchant_id,
        **words,
        min_minor=row.min_minor,
        max_minor=row.max_minor,
        weight=row.weight,
        soft_decline_failover=row.soft_decline_failover,
        enabled=row.enabled,
        note=row.note,
        version=row.version,
    )


def _values(rule: Rule) -> dict[str, Any]:
    return {
        "priority": rule.priority,
        **{name: ",".join(getattr(rule, name)) for name in CONDITIONS},
        "min_minor": rule.min_minor,
        "max_minor": rule.max_minor,
        "weight": rule.weight,
        "providers": json.dumps(rule.providers),
        "soft_decline_failover": rule.soft_decline_failover,
        "enabled": rule.enabled,
        "note": rule.note,
    }


def _row(rule: Rule, by: By) -> dict[str, Any]:
    made = {"id": rule.id, "merchant_id": rule.merchant_id, "version": 1}
    return {**made, **_values(rule), "created_at_ms": by.now_ms, "updated_at_ms": by.now_ms}


def _differences(before: Rule, after: Rule) -> list[str]:
    old, new = _values(before), _values(after)
    return [f"{name}: {new[name]}" for name in new if new[name] != old[name]]


def _brief(rule: Rule) -> str:
    wants = [word for name in CONDITIONS for word in getattr(rule, name)]
    limits = {"from": rule.min_minor, "up to": rule.max_minor}
    wants += [f"{word} {amount}" for word, amount in limits.items() if amount is not None]
    return f"{' '.join(wants) or 'anything'} → {', '.join(rule.providers)}"
