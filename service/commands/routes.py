"""routes list | show | add | change | remove | order | set | simulate"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, select

from service.commands.shape import by
from service.errors import NotFound, Refusal
from service.merchants.accounts import first_merchant
from service.merchants.tables import merchants
from service.payments.facts import AMOUNT_MINOR_MAX
from service.payments.tables import payments
from service.providers.calls import METHODS
from service.routing import draft as drafts
from service.routing import store
from service.routing.gateways import gateways
from service.routing.rules import Ask, Gateway, Router, Rule
from service.routing.simulate import REPLAY_MAX, SEED, Past, Replay, simulate
from service.routing.words import sentences

if TYPE_CHECKING:
    from service.application import Application

Progress = Callable[[int, int | None], None]

PIECE: Final = 100
"""Past payments looked at before others get their turn: some ten milliseconds."""
MERCHANTS_MAX: Final = 100
"""Merchants whose accounts one replay holds at a time."""


async def listed(app: Application, *, merchant: str | None = None) -> list[dict[str, Any]]:
    """Routes in the order in which they are looked at."""
    return await app.db.read(lambda tx: [_shown(rule) for rule in store.listed(tx, merchant)])


async def show(app: Application, *, route: str) -> dict[str, Any]:
    """One route."""
    return _shown(await app.db.read(store.one, route))


async def add(app: Application, *, fields: dict[str, Any], actor: str = "cli") -> dict[str, Any]:
    """Add a route; without a priority it comes last."""
    return _shown(await app.db.write(store.create, _table(fields), by(app, actor)))


async def change(
    app: Application, *, route: str, fields: dict[str, Any], version: int | None = None, actor: str = "cli"
) -> dict[str, Any]:
    """Change what is given of a route."""
    if not _table(fields):
        raise Refusal("nothing_to_change", "Say what to change.")
    return _shown(await app.db.write(store.change, route, fields, by(app, actor), version))


async def remove(app: Application, *, route: str, actor: str = "cli") -> dict[str, Any]:
    """Delete a route."""
    return _shown(await app.db.write(store.remove, route, by(app, actor)))


async def order(app: Application, *, groups: Any, actor: str = "cli") -> list[dict[str, Any]]:
    """Give all routes their places; those of one group share payments by weight."""
    if not isinstance(groups, list) or not all(
        isinstance(group, list) and all(isinstance(one, str) for one in group) for group in groups
    ):
        raise Refusal("bad_order", "The order is a list of lists of routes' ids.")
    diff = await app.db.read(store.plan_order, groups)
    await app.db.write(store.apply, diff, by(app, actor))
    return await listed(app)


async def set_all(
    app: Application, *, routes: list[dict[str, Any]], dry_run: bool = False, actor: str = "cli"
) -> dict[str, Any]:
    """Replace the whole list, all or nothing; says what changed, or with `dry_run` what would."""
    hand = by(app, actor)
    diff = await app.db.read(store.plan_set, _list(routes), hand)
    if not dry_run:
        await app.db.write(store.apply, diff, hand)
    return {
        "dry_run": dry_run,
        "added": [{**_shown(rule), "id": None if dry_run else rule.id} for rule in diff.added],
        "changed": [{"before": _shown(before), "after": _shown(after)} for before, after in diff.changed],
        "removed": [_shown(rule) for rule in diff.removed],
        "unchanged": diff.unchanged,
    }


async def simulated(
    app: Application,
    *,
    amount: int | None = None,
    currency: str = "",
    method: str = "",
    country: str = "",
    operator: str = "",
    providers: list[str] | None = None,
    merchant: str | None = None,
    live: bool | None = None,
    phone: bool = True,
    email: bool = True,
    name: bool = True,
    embedded: bool = False,
    payment: str = SEED,
    draft: list[dict[str, Any]] | None = None,
    replay: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """
    What would be chosen for a payment, and why; with `replay`, where past payments would go.

    `draft` are rules to try instead of the stored ones. `live` is, where it is not said, what the merchant has accounts
    for. `payment` is an id, for its share where rules share by weight.
    """
    if not 0 <= replay <= REPLAY_MAX:
        raise Refusal("bad_replay", f"At most {REPLAY_MAX:,} past payments are replayed.")
    if amount is None and not replay:
        raise Refusal("bad_amount", "Say the amount in minor units, or how many past payments to replay.")

    def look(tx: Connection) -> tuple[str, list[Gateway], list[Rule]]:
        whose = merchant or first_merchant(tx) or ""
        if tx.execute(select(merchants.c.id).where(merchants.c.id == whose)).scalar() is None:
            raise NotFound("merchant", whose, "caisse merchant list")
        rules = store.listed(tx) if draft is None else store.draft(tx, _list(draft))
        return whose, gateways(tx, app.registry, whose, app.circuits.opened()), rules

    whose, theirs, rules = await app.db.read(look)
    answer: dict[str, Any] = {"merchant": whose, "draft": draft is not None}
    if amount is not None:
        ask = Ask(
            amount_minor=amount,
            currency=currency,
            method=method,
            merchant_id=whose,
            live=any(one.live for one in theirs if not one.disabled) if live is None else live,
            country=country,
            operator=operator,
            providers=tuple(providers or ()),
            has_phone=phone,
            has_email=email,
            has_name=name,
            embedded=embedded,
        )
        _check(ask)
        explanation = simulate(rules, theirs, ask, seed=payment).explained()
        answer |= {"live": ask.live, "explanation": explanation, "sentences": sentences(explanation)}
    if replay:
        answer["replay"] = await _replay(app, Router(rules), replay, merchant, progress)
    return answer


async def _replay(
    app: Application, router: Router, count: int, merchant: str | None, progress: Progress | None
) -> dict[str, Any]:
    """The newest payments, a piece at a time."""
    held: dict[str, list[Gateway]] = {}
    run = Replay(router, lambda merchant_id: held[merchant_id])
    before: str | None = None
    while run.looked < count:
        rows = await app.db.read(_past, min(PIECE, count - run.looked), before, merchant)
        if not rows:
            break
        before = rows[-1].id
        lacking = {row.merchant_id for row in rows} - held.keys()
        if len(held) + len(lacking) > MERCHANTS_MAX:
            held.clear()
            lacking = {row.merchant_id for row in rows}
        for merchant_id in sorted(lacking):
            held[merchant_id] = await app.db.read(gateways, app.registry, merchant_id)
        run.add(rows)
        if progress is not None:
            progress(run.looked, count)
        await asyncio.sleep(0)
    return run.told()


def _past(tx: Connection, limit: int, before: str | None, merchant: str | None) -> list[Past]:
    c = payments.c
    query = select(
        c.id, c.merchant_id, c.live, c.amount_minor, c.currency, c.method, c.provider, c.country, c.operator
    ).order_by(c.id.desc())
    if before is not None:
        query = query.where(c.id < before)
    if merchant is not None:
        query = query.where(c.merchant_id == merchant)
    return [Past(**row) for row in tx.execute(query.limit(limit)).mappings()]


def _check(ask: Ask) -> None:
    """What an API request would be refused for."""
    amount: Any = ask.amount_minor
    if not isinstance(amount, int) or isinstance(amount, bool) or not 0 < amount <= AMOUNT_MINOR_MAX:
        sentence = f"The amount is a whole number of minor units, 1 to {AMOUNT_MINOR_MAX}."
        raise Refusal("bad_amount", sentence)
    # A rule with these conditions is read by the same rules.
    wanted = {"currency": ask.currency, "country": ask.country, "operator": ask.operator, "method": ask.method}
    fields = {"providers": ["stripe"], **{key: [value] if value else [] for key, value in wanted.items()}}
    drafts.read(fields, {}, where="The payment")
    if not ask.currency:
        raise Refusal("bad_currency", "Say the currency, such as XOF.")
    if not ask.method:
        raise Refusal("bad_method", f"Say the method: {' or '.join(METHODS)}.")
    if len(ask.providers) > drafts.PROVIDERS_MAX:
        raise Refusal("bad_providers", f"A request names at most {drafts.PROVIDERS_MAX} providers.")


def _shown(rule: Rule) -> dict[str, Any]:
    return {**drafts.shown(rule), "version": rule.version}


def _table(fields: Any) -> dict[str, Any]:
    if not isinstance(fields, dict):
        raise Refusal("bad_route", "A route is a table of fields.")
    return fields


def _list(rules: Any) -> Sequence[Any]:
    if not isinstance(rules, list):
        raise Refusal("bad_route", "Routes are a list of tables.")
    return rules
