"""
The payments that a batch of messages touches: loaded once, changed in memory by the rules, written back once.

Whatever tells us something about a payment, a callback, an answer to our question, later a poll or an operator, ends
here, inside the caller's write transaction. A batch of fifty costs about as many statements as one, because every
kind of row is read and written together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from outbox.queue import Queue
from service.ids import Ids
from service.merchants.events import News, rfc3339, tell
from service.payments import facts as f
from service.payments.facts import Fact, Kind, Told
from service.payments.rules import Attempt, Payment, Problem, announce, decide_attempt, decide_payment
from service.payments.states import ATTEMPT, State, rank
from service.payments.tables import aliases, attempts, attention, facts, payments

OUR_PREFIX = "caisse-"
"""Our own references at providers are `caisse-<installation>-<attempt>`: two installations keep apart."""

MOVES_MONEY = frozenset(
    {
        Kind.CAPTURED,
        Kind.REVERSED,
        Kind.REFUND_PENDING,
        Kind.REFUND_SUCCEEDED,
        Kind.REFUND_FAILED,
        Kind.REFUND_CANCELED,
        Kind.DISPUTE_OPENED,
        Kind.DISPUTE_WON,
        Kind.DISPUTE_LOST,
    }
)
AFTERWARDS = MOVES_MONEY - {Kind.CAPTURED} | {Kind.REFUNDED_TOTAL}
"""Kinds that speak of money that has moved before: alone they cannot begin a payment, they wait for it."""


@dataclass(frozen=True, slots=True)
class Account:
    """The provider account that spoke. `merchant_id` is set: without a merchant nothing is heard."""

    id: str
    provider: str
    merchant_id: str
    live: bool


@dataclass(frozen=True, slots=True)
class Heard:
    """Understood, and now part of a payment. `illegal` counts facts that the table does not list for the state."""

    payment_id: str
    illegal: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Waits:
    """About a payment that is not known yet: whatever makes one of these references known revives it."""

    references: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lacks:
    """It would begin a payment, but does not say what about."""

    reason: str


@dataclass(frozen=True, slots=True)
class Moved:
    """A payment's change, for metrics and logs once it is committed."""

    payment_id: str
    provider: str
    status: str
    currency: str
    amount_minor: int
    problems: tuple[str, ...]  # new ones
    begun: bool
    status_changed: bool


@dataclass(slots=True)
class _Fact:
    fact: Fact
    callback_id: str | None
    told_at_ms: int
    seen_count: int = 1
    new: bool = True
    changed: bool = False


@dataclass(slots=True)
class _Attempt:
    row: dict[str, Any]
    facts: dict[tuple[str, str], _Fact] = field(default_factory=dict)
    new: bool = False
    changed: bool = False

    def decide(self, external: bool) -> Attempt:
        said = [kept.fact for kept in self.facts.values()]
        asked = None if external else (self.row["amount_minor"], self.row["currency"])
        return decide_attempt(said, asked=asked)


@dataclass(slots=True)
class _Payment:
    row: dict[str, Any]
    attempts: list[_Attempt]
    new: bool = False
    changed: bool = False
    version: int = 0

    def view(self) -> Payment | None:
        """What the stored row says, None before it was ever told."""
        row = self.row
        if self.new and not row["sequence"]:
            return None
        return Payment(
            status=row["status"],
            problems=frozenset(Problem(word) for word in row["exceptions"].split(",") if word),
            amount_minor=row["amount_minor"],
            currency=row["currency"],
            captured_minor=row["captured_minor"],
            refunded_minor=row["refunded_minor"],
            fee_minor=row["fee_minor"],
            method=row["method"],
            failure_reason=row["failure_reason"],
            paid_at_ms=row["paid_at_ms"],
        )


class Conflict(Exception):
    """A payment's row was changed by somebody else since it was read; the work is run again."""


def _in(table: Any, column: Any) -> Any:
    return select(table).where(column.in_(bindparam("wanted", expanding=True)))


_ALIASES = _in(aliases, aliases.c.reference)
_SIBLINGS = select(attempts).where(
    attempts.c.payment_id.in_(
        select(attempts.c.payment_id).where(attempts.c.id.in_(bindparam("wanted", expanding=True)))
    )
)
_PAYMENTS = _in(payments, payments.c.id)
_FACTS = _in(facts, facts.c.attempt_id)
_UPDATE_PAYMENT = (
    update(payments)
    .where(payments.c.id == bindparam("id_"), payments.c.version == bindparam("version_"))
    .values(
        {
            name: bindparam(name)
            for name in (
                "status",
                "exceptions",
                "amount_minor",
                "currency",
                "captured_minor",
                "refunded_minor",
                "fee_minor",
                "method",
                "reference",
                "provider_reference",
                "metadata",
                "failure_reason",
                "updated_at_ms",
                "paid_at_ms",
                "version",
                "sequence",
            )
        }
    )
)
_UPDATE_ATTEMPT = (
    update(attempts)
    .where(attempts.c.id == bindparam("id_"))
    .values({name: bindparam(name) for name in ("state", "amount_minor", "currency", "updated_at_ms")})
)
_FACT_COLUMNS = ("at_ms", "amount_minor", "asked_minor", "currency", "fee_minor", "method", "reason", "source")
_UPDATE_FACT = (
    update(facts)
    .where(
        facts.c.attempt_id == bindparam("attempt_"),
        facts.c.kind == bindparam("kind_"),
        facts.c.movement == bindparam("movement_"),
    )
    .values({name: bindparam(name) for name in (*_FACT_COLUMNS, "seen_count")})
)
_OPEN_ATTENTION = insert(attention).prefix_with("OR IGNORE", dialect="sqlite")


def names_of(told: Told) -> tuple[str, ...]:
    """Every name the payment goes by in this message: provider ids, our own reference, ids of moved money."""
    names = dict.fromkeys(told.references)
    if told.reference and told.reference.startswith(OUR_PREFIX):
        names[told.reference] = None
    names.update(dict.fromkeys(fact.movement for fact in told.facts if fact.kind in MOVES_MONEY))
    return tuple(names)


class Book:
    """One per transaction. `hear` in any order, then `flush` once."""

    def __init__(self, tx: Connection, queue: Queue, ids: Ids, now_ms: int) -> None:
        self._tx, self._queue, self._ids, self._now_ms = tx, queue, ids, now_ms
        self._payments: dict[str, _Payment] = {}
        self._attempts: dict[str, _Attempt] = {}
        self._aliases: dict[tuple[str, str], str] = {}
        self._looked_up: set[str] = set()
        self._new_aliases: dict[tuple[str, str], str] = {}
        self._news: list[News] = []
        self._attention: list[dict[str, Any]] = []
        self.moved: list[Moved] = []
        self.known: list[tuple[str, str]] = []  # (account, name) pairs that became known: what waits for them revives

    # --- reading

    def load(self, names: Iterable[str]) -> None:
        """Fetch everything known under these names, in at most four statements."""
        wanted = sorted(set(names) - self._looked_up)
        if not wanted:
            return
        self._looked_up.update(wanted)
        found = self._tx.execute(_ALIASES, {"wanted": wanted}).all()
        self._aliases.update({(row.account_id, row.reference): row.attempt_id for row in found})
        unseen = sorted({row.attempt_id for row in found} - self._attempts.keys())
        if unseen:
            self._load_attempts(unseen)

    def _load_attempts(self, ids: Sequence[str]) -> None:
        rows = self._tx.execute(_SIBLINGS.order_by(attempts.c.id), {"wanted": ids}).mappings().all()
        fresh = [_Attempt(dict(row)) for row in rows if row["id"] not in self._attempts]
        wanted = sorted({attempt.row["payment_id"] for attempt in fresh} - self._payments.keys())
        for row in self._tx.execute(_PAYMENTS, {"wanted": wanted}).mappings():
            self._payments[row["id"]] = _Payment(dict(row), [], version=row["version"])
        for attempt in fresh:
            self._attempts[attempt.row["id"]] = attempt
            self._payments[attempt.row["payment_id"]].attempts.append(attempt)
        mine = [attempt.row["id"] for attempt in fresh]
        for said in self._tx.execute(_FACTS, {"wanted": mine}):
            kept = _Fact(_fact(said), said.callback_id, said.told_at_ms, said.seen_count, new=False)
            self._attempts[said.attempt_id].facts[said.kind, said.movement] = kept

    # --- hearing

    def hear(self, account: Account, told: Told, callback_id: str | None) -> Heard | Waits | Lacks:
        """
        Take in what one message says about one payment; adopt the payment when nobody here has started it.

        A hint proves nothing, so it joins no names and merges no payments: whoever can forge one could otherwise tie
        a payment of their own to another's reference.
        """
        weak = all(fact.source is f.Source.HINT for fact in told.facts)
        names = names_of(told)
        self.load(names)
        found = list(dict.fromkeys(self._aliases[account.id, n] for n in names if (account.id, n) in self._aliases))
        if not found:
            if told.reference and told.reference.startswith(OUR_PREFIX):
                return Waits((told.reference,))
            if all(fact.kind in AFTERWARDS for fact in told.facts):
                return Waits(names)
            asked = [fact for fact in told.facts if fact.asked_minor is not None and fact.currency is not None]
            if not asked:
                return Lacks("missing:amount_or_currency")
            attempt = self._adopt(account, told)
            # A hint names the payment it asks about and nothing else.
            names = told.references[:1] if weak else names
        elif weak:
            attempt, names = self._attempts[found[0]], ()
        else:
            attempt = self._attempts[found[0]] if len(found) == 1 else self._merge(found)
        for name in names:
            if (account.id, name) not in self._aliases:
                self._aliases[account.id, name] = self._new_aliases[account.id, name] = attempt.row["id"]
        illegal = self._add(attempt, told.facts, callback_id)
        payment = self._payments[attempt.row["payment_id"]]
        self._describe(payment, told)
        self._decide(payment)
        return Heard(payment.row["id"], illegal)

    def _adopt(self, account: Account, told: Told) -> _Attempt:
        payment_id, attempt_id = self._ids("pay"), self._ids("try")
        row = {
            "id": payment_id,
            "merchant_id": account.merchant_id,
            "origin": "external",
            "live": account.live,
            "status": "pending",
            "exceptions": "",
            "amount_minor": 0,
            "currency": "XXX",
            "captured_minor": 0,
            "refunded_minor": 0,
            "fee_minor": None,
            "provider": account.provider,
            "provider_reference": told.references[0],
            "method": None,
            "reference": None,
            "order_id": None,
            "metadata": "{}",
            "failure_reason": None,
            "created_at_ms": self._now_ms,
            "updated_at_ms": self._now_ms,
            "paid_at_ms": None,
            "version": 0,
            "sequence": 0,
            "merged_into": None,
        }
        attempt = _Attempt(
            {
                "id": attempt_id,
                "payment_id": payment_id,
                "account_id": account.id,
                "provider": account.provider,
                "state": State.SUBMITTING.value,
                "amount_minor": 0,
                "currency": "XXX",
                "created_at_ms": self._now_ms,
                "updated_at_ms": self._now_ms,
            },
            new=True,
        )
        self._payments[payment_id] = _Payment(row, [attempt], new=True)
        self._attempts[attempt_id] = attempt
        return attempt

    def _add(self, attempt: _Attempt, said: Iterable[Fact], callback_id: str | None) -> tuple[str, ...]:
        illegal: list[str] = []
        for fact in said:
            kept = attempt.facts.get((fact.kind, fact.movement))
            if kept is None:
                state = attempt.row["state"]
                if rank(fact.kind) is not None and (state, fact.kind) not in ATTEMPT:
                    illegal.append(f"{state}+{fact.kind}")
                attempt.facts[fact.kind, fact.movement] = _Fact(fact, callback_id, self._now_ms)
            else:
                kept.seen_count += 1
                kept.fact = f.join(kept.fact, fact)
                kept.changed = True
        return tuple(illegal)

    def _describe(self, payment: _Payment, told: Told) -> None:
        """Names and notes that decide nothing: the first that is said stays."""
        row = payment.row
        if row["reference"] is None and told.reference and not told.reference.startswith(OUR_PREFIX):
            row["reference"], payment.changed = told.reference, True
        if row["metadata"] == "{}" and told.metadata:
            row["metadata"], payment.changed = json.dumps(dict(told.metadata), sort_keys=True), True

    def _decide(self, payment: _Payment) -> None:
        before = payment.view()
        external = payment.row["origin"] == "external"
        decided: list[Attempt] = []
        for attempt in payment.attempts:
            said = attempt.decide(external)
            decided.append(said)
            now = {
                "state": said.state.value,
                "amount_minor": said.asked_minor or 0,
                "currency": said.currency or "XXX",
            }
            if any(attempt.row[name] != value for name, value in now.items()):
                attempt.row |= now | {"updated_at_ms": self._now_ms}
                attempt.changed = True
        after = decide_payment(decided)
        if after.captured_minor and after.paid_at_ms is None:
            # The provider gave no time: the first moment we knew is the best there is.
            after = replace(after, paid_at_ms=payment.row["paid_at_ms"] or self._now_ms)
        if after == before:
            return
        row = payment.row
        row |= {
            "status": after.status,
            "exceptions": ",".join(sorted(after.problems)),
            "amount_minor": after.amount_minor,
            "currency": after.currency,
            "captured_minor": after.captured_minor,
            "refunded_minor": after.refunded_minor,
            "fee_minor": after.fee_minor,
            "method": after.method,
            "failure_reason": after.failure_reason,
            "paid_at_ms": after.paid_at_ms,
            "updated_at_ms": self._now_ms,
        }
        payment.changed = True
        new_problems = sorted(after.problems - (before.problems if before else frozenset()))
        for problem in new_problems:
            self._need_attention(row["id"], problem)
        for type_ in announce(before, after):
            self._tell(payment, type_)
        status_changed = before is None or before.status != after.status
        if status_changed or new_problems:
            self.moved.append(
                Moved(
                    row["id"],
                    row["provider"],
                    after.status,
                    after.currency,
                    after.amount_minor,
                    tuple(new_problems),
                    before is None,
                    status_changed,
                )
            )

    def _tell(self, payment: _Payment, type_: str) -> None:
        payment.row["sequence"] += 1
        payment.changed = True
        data = {"payment": public(payment.row)}
        row = payment.row
        self._news.append(News(row["merchant_id"], type_, row["sequence"], data, payment_id=row["id"]))

    def _need_attention(self, subject: str, reason: str, detail: str = "") -> None:
        self._attention.append(
            {
                "id": self._ids("att"),
                "subject": subject,
                "reason": reason,
                "detail": detail,
                "opened_at_ms": self._now_ms,
                "closed_at_ms": None,
            }
        )

    # --- two payments found to be one

    def _merge(self, found: Sequence[str]) -> _Attempt:
        """
        One message names several attempts, so they were one all along: everything moves to the one we started
        ourselves, else to the oldest. It is rare, so it is done at once and in plain steps.
        """

        def age(attempt: _Attempt) -> tuple[bool, str]:
            return (self._payments[attempt.row["payment_id"]].row["origin"] == "external", attempt.row["id"])

        first, *others = sorted((self._attempts[id_] for id_ in found), key=age)
        kept = self._payments[first.row["payment_id"]]
        self.flush()
        for other in others:
            for key, fact in other.facts.items():
                mine = first.facts.get(key)
                if mine is None:
                    first.facts[key] = _Fact(fact.fact, fact.callback_id, fact.told_at_ms, fact.seen_count)
                else:
                    mine.fact, mine.changed = f.join(mine.fact, fact.fact), True
                    mine.seen_count += fact.seen_count
            id_ = other.row["id"]
            self._tx.execute(delete(facts).where(facts.c.attempt_id == id_))
            self._tx.execute(update(aliases).where(aliases.c.attempt_id == id_).values(attempt_id=first.row["id"]))
            self._tx.execute(delete(attempts).where(attempts.c.id == id_))
            del self._attempts[id_]
            for key, attempt_id in self._aliases.items():
                if attempt_id == id_:
                    self._aliases[key] = first.row["id"]
            gone = self._payments[other.row["payment_id"]]
            gone.attempts.remove(other)
            if gone is not kept and not gone.attempts:
                gone.row["merged_into"] = kept.row["id"]
                self._tx.execute(
                    update(payments).where(payments.c.id == gone.row["id"]).values(merged_into=kept.row["id"])
                )
                self._need_attention(kept.row["id"], "merged", gone.row["id"])
                self._tell(gone, "payment.attention")
        return first

    # --- writing

    def flush(self) -> None:
        """Write all changes and tell the news."""
        tx = self._tx
        new = [payment for payment in self._payments.values() if payment.new]
        if new:
            tx.execute(insert(payments), [payment.row | {"version": 1} for payment in new])
        born = [attempt for attempt in self._attempts.values() if attempt.new]
        if born:
            tx.execute(insert(attempts), [attempt.row for attempt in born])
        changed = [payment for payment in self._payments.values() if payment.changed and not payment.new]
        if changed:
            rows = [p.row | {"id_": p.row["id"], "version_": p.version, "version": p.version + 1} for p in changed]
            if tx.execute(_UPDATE_PAYMENT, rows).rowcount != len(rows):
                raise Conflict
        grown = [attempt for attempt in self._attempts.values() if attempt.changed and not attempt.new]
        if grown:
            tx.execute(_UPDATE_ATTEMPT, [attempt.row | {"id_": attempt.row["id"]} for attempt in grown])
        self._flush_names_and_facts()
        if self._attention:
            tx.execute(_OPEN_ATTENTION, self._attention)
        tell(tx, self._queue, self._news, self._ids, self._now_ms)
        for payment in (*new, *changed):
            payment.version += 1
            payment.row["version"] = payment.version
            payment.new = payment.changed = False
        for attempt in (*born, *grown):
            attempt.new = attempt.changed = False
        self._news, self._attention = [], []

    def _flush_names_and_facts(self) -> None:
        if self._new_aliases:
            self.known += self._new_aliases
            rows = [
                {"account_id": account, "reference": name, "attempt_id": attempt}
                for (account, name), attempt in self._new_aliases.items()
            ]
            self._tx.execute(insert(aliases).prefix_with("OR IGNORE", dialect="sqlite"), rows)
            self._new_aliases = {}
        inserts: list[dict[str, Any]] = []
        updates: list[dict[str, Any]] = []
        for attempt in self._attempts.values():
            for kept in attempt.facts.values():
                if kept.new:
                    inserts.append(
                        _fact_row(kept)
                        | {
                            "attempt_id": attempt.row["id"],
                            "kind": kept.fact.kind.value,
                            "movement": kept.fact.movement,
                            "callback_id": kept.callback_id,
                            "told_at_ms": kept.told_at_ms,
                        }
                    )
                elif kept.changed:
                    updates.append(
                        _fact_row(kept)
                        | {
                            "attempt_": attempt.row["id"],
                            "kind_": kept.fact.kind.value,
                            "movement_": kept.fact.movement,
                        }
                    )
                kept.new = kept.changed = False
        if inserts:
            self._tx.execute(insert(facts), inserts)
        if updates:
            self._tx.execute(_UPDATE_FACT, updates)


def _fact(row: Any) -> Fact:
    return Fact(
        kind=Kind(row.kind),
        movement=row.movement,
        at_ms=row.at_ms,
        amount_minor=row.amount_minor,
        asked_minor=row.asked_minor,
        currency=row.currency,
        fee_minor=row.fee_minor,
        method=row.method,
        reason=f.Reason(row.reason) if row.reason else None,
        source=f.Source(row.source),
    )


def _fact_row(kept: _Fact) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(kept.fact, name) for name in _FACT_COLUMNS}
    row["source"] = kept.fact.source.value
    row["reason"] = kept.fact.reason.value if kept.fact.reason else None
    row["seen_count"] = kept.seen_count
    return row


def public(row: Any) -> dict[str, Any]:
    """A payment as merchants see it: in events, the API and `--json`."""
    shown = {
        "id": row["id"],
        "status": row["status"],
        "exceptions": [word for word in row["exceptions"].split(",") if word],
        "origin": row["origin"],
        "live": bool(row["live"]),
        "amount": row["amount_minor"],
        "currency": row["currency"],
        "amount_captured": row["captured_minor"],
        "amount_refunded": row["refunded_minor"],
        "fee": row["fee_minor"],
        "provider": row["provider"],
        "provider_reference": row["provider_reference"],
        "method": row["method"],
        "reference": row["reference"],
        "order": row["order_id"],
        "metadata": json.loads(row["metadata"]),
        "failure_reason": row["failure_reason"],
        "created_at": rfc3339(row["created_at_ms"]),
        "updated_at": rfc3339(row["updated_at_ms"]),
        "paid_at": rfc3339(row["paid_at_ms"]),
    }
    if row["merged_into"]:
        shown["merged_into"] = row["merged_into"]
    return shown
