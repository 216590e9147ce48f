"""
The rows of the payments that one transaction touches: loaded by name, changed in memory, written back once.

A batch of fifty messages costs about as many statements as one, because every kind of row is read and written
together. What the rows should say is decided elsewhere (`book.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    bindparam,
    delete,
    insert,
    literal_column,
    select,
    update,
)

from outbox.prepared import Lookup, Prepared
from service.payments.facts import Fact, Kind, Reason, Source, join
from service.payments.rules import Attempt, Decision, Payment, Problem, decide_attempt
from service.payments.states import State, Step
from service.payments.tables import aliases, attempts, decisions, facts, payments, refunds


class Conflict(Exception):
    """A payment's row was changed by somebody else since it was read."""


@dataclass(slots=True)
class FactRecord:
    """One fact of one attempt. `callback_id` is the first that told it."""

    fact: Fact
    callback_id: str | None
    told_at_ms: int
    seen_count: int = 1
    new: bool = True
    changed: bool = False


@dataclass(slots=True)
class AttemptRecord:
    """An attempt with its facts, by kind and movement, and our own decisions."""

    row: dict[str, Any]
    facts: dict[tuple[str, str], FactRecord] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)  # decisions that are not written yet
    new: bool = False
    changed: bool = False

    def decide(self, external: bool, ended_at_ms: int | None = None) -> Attempt:
        """What the rules make of its facts; an adopted payment asks for what its facts say."""
        said = [kept.fact for kept in self.facts.values()]
        asked = None if external else (self.row["amount_minor"], self.row["currency"])
        start = State.SUBMITTING if self.row["reference"] is None else State.CREATED
        return decide_attempt(said, asked=asked, decisions=self.decisions, start=start, ended_at_ms=ended_at_ms)

    def take(self, step: Step, at_ms: int, actor: str = "", reason: str = "") -> None:
        """Decide something; the same at the same time is one decision."""
        decision = Decision(step, at_ms)
        if decision not in self.decisions:
            self.decisions.append(decision)
            row = {"attempt_id": self.row["id"], "step": step.value, "at_ms": at_ms}
            self.steps.append(row | {"actor": actor, "reason": reason[:500]})

    def hear(self, fact: Fact, callback_id: str | None, now_ms: int) -> bool:
        """Take a fact in; False when it was known, then it is joined with what is kept."""
        kept = self.facts.get((fact.kind, fact.movement))
        if kept is None:
            self.facts[fact.kind, fact.movement] = FactRecord(fact, callback_id, now_ms)
            return True
        kept.seen_count += 1
        kept.fact = join(kept.fact, fact)
        kept.changed = True
        return False


@dataclass(slots=True)
class PaymentRecord:
    """A payment with its attempts, in the order they were made."""

    row: dict[str, Any]
    attempts: list[AttemptRecord]
    new: bool = False
    changed: bool = False

    def view(self) -> Payment | None:
        """What the stored row says, None before anything was ever told of it."""
        row = self.row
        if not row["sequence"]:
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


def _in(table: Table, column: ColumnElement[Any]) -> Select[Any]:
    return select(table).where(column.in_(bindparam("wanted", expanding=True)))


_ALIASES = Lookup(_in(aliases, aliases.c.reference))
_SIBLINGS = Lookup(
    select(attempts)
    .where(
        attempts.c.payment_id.in_(
            select(attempts.c.payment_id).where(attempts.c.id.in_(bindparam("wanted", expanding=True)))
        )
    )
    .order_by(attempts.c.id)
)
_PAYMENTS = Lookup(_in(payments, payments.c.id))
_ATTEMPTS_OF = Lookup(_in(attempts, attempts.c.payment_id).order_by(attempts.c.id))
_FACTS = Lookup(_in(facts, facts.c.attempt_id))
_DECISIONS = Lookup(_in(decisions, decisions.c.attempt_id))
_CHANGES = (
    "status", "exceptions", "amount_minor", "currency", "captured_minor", "refunded_minor", "fee_minor", "method",
    "reference", "provider_reference", "metadata", "failure_reason", "updated_at_ms", "paid_at_ms", "sequence",
    "merged_into", "provider",
)  # fmt: skip
_INSERT_PAYMENT = Prepared(insert(payments), payments.c.keys())
_INSERT_ATTEMPT = Prepared(insert(attempts), attempts.c.keys())
_INSERT_NAME = Prepared(insert(aliases), aliases.c.keys())
_INSERT_FACT = Prepared(insert(facts), facts.c.keys())
_UPDATE_PAYMENT = Prepared(
    update(payments)
    .where(payments.c.id == bindparam("id_"), payments.c.version == bindparam("version_"))
    .values(version=payments.c.version + literal_column("1"), **{name: bindparam(name) for name in _CHANGES})
)
_GROWS = (
    "state", "amount_minor", "currency", "updated_at_ms", "provider_reference", "action", "reason", "otp_tries",
)  # fmt: skip
_UPDATE_ATTEMPT = Prepared(
    update(attempts).where(attempts.c.id == bindparam("id_")).values({name: bindparam(name) for name in _GROWS})
)
_INSERT_DECISION = Prepared(insert(decisions), decisions.c.keys())
_FACT_KEY = ("attempt_id", "kind", "movement")
_FACT_COLUMNS = ("at_ms", "amount_minor", "asked_minor", "currency", "fee_minor", "method", "reason", "source")
_UPDATE_FACT = Prepared(
    update(facts)
    .where(
        facts.c.attempt_id == bindparam("attempt_id_"),
        facts.c.kind == bindparam("kind_"),
        facts.c.movement == bindparam("movement_"),
    )
    .values({name: bindparam(name) for name in (*_FACT_COLUMNS, "seen_count")})
)


class Records:
    """Everything loaded so far in one transaction, by id and by name."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx
        self.payments: dict[str, PaymentRecord] = {}
        self.attempts: dict[str, AttemptRecord] = {}
        self.names: dict[tuple[str, str], str] = {}  # (account, name) -> attempt
        self.known: list[tuple[str, str]] = []  # names that became known: what waits for them revives
        self._looked_up: set[str] = set()
        self._new_names: dict[tuple[str, str], str] = {}

    def payment_of(self, attempt: AttemptRecord) -> PaymentRecord:
        """The payment an attempt belongs to."""
        return self.payments[attempt.row["payment_id"]]

    def load(self, names: Iterable[str]) -> None:
        """Fetch everything known under these names, in at most four statements."""
        wanted = sorted(set(names) - self._looked_up)
        if not wanted:
            return
        self._looked_up.update(wanted)
        found = _ALIASES(self._tx, wanted)
        self.names.update({(row["account_id"], row["reference"]): row["attempt_id"] for row in found})
        unseen = sorted({row["attempt_id"] for row in found} - self.attempts.keys())
        self._take_in(_SIBLINGS(self._tx, unseen))

    def load_payments(self, ids: Sequence[str]) -> None:
        """Fetch these payments with everything of theirs."""
        self._take_in(_ATTEMPTS_OF(self._tx, sorted(set(ids) - self.payments.keys())))

    def _take_in(self, rows: Sequence[dict[str, Any]]) -> None:
        fresh = [AttemptRecord(row) for row in rows if row["id"] not in self.attempts]
        wanted = sorted({attempt.row["payment_id"] for attempt in fresh} - self.payments.keys())
        for row in _PAYMENTS(self._tx, wanted):
            self.payments[row["id"]] = PaymentRecord(row, [])
        for attempt in fresh:
            self.attempts[attempt.row["id"]] = attempt
            self.payment_of(attempt).attempts.append(attempt)
        mine = [attempt.row["id"] for attempt in fresh]
        for said in _FACTS(self._tx, mine):
            kept = FactRecord(_fact(said), said["callback_id"], said["told_at_ms"], said["seen_count"], new=False)
            self.attempts[said["attempt_id"]].facts[said["kind"], said["movement"]] = kept
        ours = [attempt.row["id"] for attempt in fresh if attempt.row["reference"] is not None]
        for made in _DECISIONS(self._tx, ours):
            self.attempts[made["attempt_id"]].decisions.append(Decision(Step(made["step"]), made["at_ms"]))

    def name(self, account_id: str, name: str, attempt: AttemptRecord) -> None:
        """From now on the attempt goes by this name, unless somebody goes by it already."""
        if (account_id, name) not in self.names:
            self.names[account_id, name] = self._new_names[account_id, name] = attempt.row["id"]

    def begin(self, payment: dict[str, Any], attempt: dict[str, Any]) -> AttemptRecord:
        """A new payment with its first attempt: what is not given has the value of a payment nothing is known of."""
        blank = {"amount_minor": 0, "currency": "XXX", "updated_at_ms": payment["created_at_ms"]}
        row: dict[str, Any] = _BLANK_PAYMENT | blank | payment
        self.payments[row["id"]] = PaymentRecord(row, [], new=True)
        return self.another(self.payments[row["id"]], attempt, payment["created_at_ms"])

    def another(self, payment: PaymentRecord, attempt: dict[str, Any], now_ms: int) -> AttemptRecord:
        """A new attempt of a payment, the last of its attempts."""
        blank = {
            "payment_id": payment.row["id"],
            "state": State.SUBMITTING.value,
            "amount_minor": payment.row["amount_minor"],
            "currency": payment.row["currency"],
            "created_at_ms": now_ms,
            "updated_at_ms": now_ms,
            "otp_tries": 0,
        }
        begun = AttemptRecord(_BLANK_ATTEMPT | blank | attempt, new=True)
        payment.attempts.append(begun)
        self.attempts[begun.row["id"]] = begun
        return begun

    def absorb(self, attempt: AttemptRecord, other: AttemptRecord) -> PaymentRecord | None:
        """
        Move all facts and names of `other` to `attempt`, and its row away. Returns the payment that is left without
        an attempt by it, merged into the other's. Rare, so it is done at once; everything must be written before.
        """
        for key, said in other.facts.items():
            mine = attempt.facts.get(key)
            if mine is None:
                attempt.facts[key] = FactRecord(said.fact, said.callback_id, said.told_at_ms, said.seen_count)
            else:
                mine.fact, mine.changed = join(mine.fact, said.fact), True
                mine.seen_count += said.seen_count
        gone_id, kept_id = other.row["id"], attempt.row["id"]
        self._tx.execute(delete(facts).where(facts.c.attempt_id == gone_id))
        self._tx.execute(delete(decisions).where(decisions.c.attempt_id == gone_id))
        moved = {"attempt_id": kept_id, "payment_id": attempt.row["payment_id"]}
        self._tx.execute(update(refunds).where(refunds.c.attempt_id == gone_id).values(moved))
        self._tx.execute(update(aliases).where(aliases.c.attempt_id == gone_id).values(attempt_id=kept_id))
        self._tx.execute(delete(attempts).where(attempts.c.id == gone_id))
        del self.attempts[gone_id]
        self.names.update({name: kept_id for name, id_ in self.names.items() if id_ == gone_id})
        kept, gone = self.payment_of(attempt), self.payment_of(other)
        gone.attempts.remove(other)
        if gone is kept or gone.attempts:
            return None
        gone.row["merged_into"], gone.changed = kept.row["id"], True
        return gone

    def write(self) -> None:
        """Write all changes. Raises Conflict when a payment was changed by somebody else."""
        tx = self._tx
        new = [payment for payment in self.payments.values() if payment.new]
        if new:
            _INSERT_PAYMENT(tx, [payment.row for payment in new])
        changed = [payment for payment in self.payments.values() if payment.changed and not payment.new]
        if changed:
            rows = [p.row | {"id_": p.row["id"], "version_": p.row["version"]} for p in changed]
            if _UPDATE_PAYMENT(tx, rows) != len(rows):
                raise Conflict
            for payment in changed:
                payment.row["version"] += 1
        born = [attempt for attempt in self.attempts.values() if attempt.new]
        if born:
            _INSERT_ATTEMPT(tx, [attempt.row for attempt in born])
        grown = [attempt for attempt in self.attempts.values() if attempt.changed and not attempt.new]
        if grown:
            _UPDATE_ATTEMPT(tx, [attempt.row | {"id_": attempt.row["id"]} for attempt in grown])
        for payment in (*new, *changed):
            payment.new = payment.changed = False
        for attempt in (*born, *grown):
            attempt.new = attempt.changed = False
        self._write_names()
        self._write_facts()
        steps = [step for attempt in self.attempts.values() for step in attempt.steps]
        if steps:
            _INSERT_DECISION(tx, steps)
            for attempt in self.attempts.values():
                attempt.steps = []

    def _write_names(self) -> None:
        if self._new_names:
            self.known += self._new_names
            rows = [
                {"account_id": account, "reference": name, "attempt_id": attempt}
                for (account, name), attempt in self._new_names.items()
            ]
            _INSERT_NAME(self._tx, rows)
            self._new_names = {}

    def _write_facts(self) -> None:
        new: list[dict[str, Any]] = []
        joined: list[dict[str, Any]] = []
        for attempt in self.attempts.values():
            for kept in attempt.facts.values():
                place = (attempt.row["id"], kept.fact.kind.value, kept.fact.movement)
                if kept.new:
                    first = {"callback_id": kept.callback_id, "told_at_ms": kept.told_at_ms}
                    new.append(_fact_row(kept) | first | dict(zip(_FACT_KEY, place, strict=True)))
                elif kept.changed:
                    joined.append(_fact_row(kept) | {f"{n}_": v for n, v in zip(_FACT_KEY, place, strict=True)})
                kept.new = kept.changed = False
        if new:
            _INSERT_FACT(self._tx, new)
        if joined:
            _UPDATE_FACT(self._tx, joined)


_BLANK_PAYMENT: dict[str, Any] = dict.fromkeys(payments.c.keys()) | {
    "origin": "external",
    "status": "pending",
    "exceptions": "",
    "captured_minor": 0,
    "refunded_minor": 0,
    "metadata": "{}",
    "version": 1,
    "sequence": 0,
}
_BLANK_ATTEMPT: dict[str, Any] = dict.fromkeys(attempts.c.keys())


def _fact(row: Mapping[str, Any]) -> Fact:
    return Fact(
        kind=Kind(row["kind"]),
        movement=row["movement"],
        at_ms=row["at_ms"],
        amount_minor=row["amount_minor"],
        asked_minor=row["asked_minor"],
        currency=row["currency"],
        fee_minor=row["fee_minor"],
        method=row["method"],
        reason=Reason(row["reason"]) if row["reason"] else None,
        source=Source(row["source"]),
    )


def _fact_row(kept: FactRecord) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(kept.fact, name) for name in _FACT_COLUMNS}
    row["source"] = kept.fact.source.value
    row["reason"] = kept.fact.reason.value if kept.fact.reason else None
    row["seen_count"] = kept.seen_count
    return row
