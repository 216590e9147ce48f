"""
What one message says about a payment, and what follows from it.

Whatever tells us something, a callback, an answer to our question, later a poll or an operator, ends here, inside
the caller's write transaction: the payment it speaks of is found or adopted, its facts are joined, the rules decide,
and the merchant's news is written with the rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, insert

from outbox.queue import Queue
from service.ids import Ids
from service.merchants.events import News, rfc3339, tell
from service.payments.facts import Kind, Source, Told
from service.payments.records import AttemptRecord, PaymentRecord, Records
from service.payments.rules import Attempt, announce, decide_payment
from service.payments.states import ATTEMPT, rank
from service.payments.tables import attention

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
    newly_captured_minor: int


_OPEN_ATTENTION = insert(attention).prefix_with("OR IGNORE", dialect="sqlite")


def ours(installation: str) -> str:
    """How our own references at providers begin: two installations on one account do not take each other's."""
    return f"caisse-{installation}-"


def names_of(told: Told, ours: str) -> tuple[str, ...]:
    """Every name the payment goes by in this message: provider ids, our own reference, ids of moved money."""
    names = dict.fromkeys(told.references)
    if told.reference and told.reference.startswith(ours):
        names[told.reference] = None
    names.update(dict.fromkeys(fact.movement for fact in told.facts if fact.kind in MOVES_MONEY))
    return tuple(names)


class Book:
    """One per transaction. `hear` in any order, then `flush` once."""

    def __init__(self, tx: Connection, queue: Queue, ids: Ids, now_ms: int, ours: str) -> None:
        self._tx, self._queue, self._ids, self._now_ms, self._ours = tx, queue, ids, now_ms, ours
        self._records = Records(tx)
        self._news: list[News] = []
        self._attention: list[dict[str, Any]] = []
        self.moved: list[Moved] = []

    @property
    def known(self) -> list[tuple[str, str]]:
        """(account, name) pairs that became known by `flush`: what waits for them revives."""
        return self._records.known

    def load(self, names: Iterable[str]) -> None:
        """Fetch what is known under these names; `hear` would do it one message at a time."""
        self._records.load(names)

    def hear(self, account: Account, told: Told, callback_id: str | None) -> Heard | Waits | Lacks:
        """
        Take in what one message says about one payment; adopt the payment when nobody here has started it.

        A hint proves nothing, so it joins no names and merges no payments: whoever can forge one could otherwise tie
        a payment of their own to another's reference.
        """
        records, weak = self._records, all(fact.source is Source.HINT for fact in told.facts)
        names = names_of(told, self._ours)
        records.load(names)
        found = list(dict.fromkeys(id_ for name in names if (id_ := records.names.get((account.id, name)))))
        if not found:
            if told.reference and told.reference.startswith(self._ours):
                return Waits((told.reference,))
            if all(fact.kind in AFTERWARDS for fact in told.facts):
                return Waits(names)
            if all(fact.asked_minor is None or fact.currency is None for fact in told.facts):
                return Lacks("missing:amount_or_currency")
            attempt = self._adopt(account, told)
            names = told.references[:1] if weak else names
        elif weak:
            attempt, names = records.attempts[found[0]], ()
        else:
            attempt = records.attempts[found[0]] if len(found) == 1 else self._merge(found)
        for name in names:
            records.name(account.id, name, attempt)
        state, illegal = attempt.row["state"], []
        for fact in told.facts:
            new = attempt.hear(fact, callback_id, self._now_ms)
            if new and rank(fact.kind) is not None and (state, fact.kind) not in ATTEMPT:
                illegal.append(f"{state}+{fact.kind}")
        payment = records.payment_of(attempt)
        if not weak:
            self._describe(payment, told)
        self._decide(payment)
        return Heard(payment.row["id"], tuple(illegal))

    def _adopt(self, account: Account, told: Told) -> AttemptRecord:
        payment = {
            "id": self._ids("pay"),
            "merchant_id": account.merchant_id,
            "live": account.live,
            "provider": account.provider,
            "provider_reference": told.references[0],
            "created_at_ms": self._now_ms,
        }
        attempt = {"id": self._ids("try"), "account_id": account.id, "provider": account.provider}
        return self._records.begin(payment, attempt)

    def _merge(self, found: Sequence[str]) -> AttemptRecord:
        """One message names several attempts, so they were one all along: ours stays, else the oldest."""
        records = self._records

        def age(attempt: AttemptRecord) -> tuple[bool, str]:
            return (records.payment_of(attempt).row["origin"] == "external", attempt.row["id"])

        first, *others = sorted((records.attempts[id_] for id_ in found), key=age)
        self.flush()
        for other in others:
            gone = records.absorb(first, other)
            if gone is not None:
                self._need_attention(first.row["payment_id"], "merged", gone.row["id"])
                self._tell(gone, "payment.attention")
        return first

    def _describe(self, payment: PaymentRecord, told: Told) -> None:
        """Names and notes that decide nothing: the first that is said stays."""
        row = payment.row
        if row["reference"] is None and told.reference and not told.reference.startswith(self._ours):
            row["reference"], payment.changed = told.reference, True
        if row["metadata"] == "{}" and told.metadata:
            row["metadata"], payment.changed = json.dumps(dict(told.metadata), sort_keys=True), True

    def _decide(self, payment: PaymentRecord) -> None:
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
        if status_changed or new_problems or (before and before.captured_minor != after.captured_minor):
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
                    after.captured_minor - (before.captured_minor if before else 0),
                )
            )

    def _tell(self, payment: PaymentRecord, type_: str) -> None:
        payment.row["sequence"] += 1
        payment.changed = True
        data = {"payment": public(payment.row)}
        row = payment.row
        live = bool(row["live"])
        self._news.append(News(row["merchant_id"], type_, row["sequence"], data, payment_id=row["id"], live=live))

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

    def flush(self) -> None:
        """Write all changes and tell the news. Raises records.Conflict."""
        self._records.write()
        if self._attention:
            self._tx.execute(_OPEN_ATTENTION, self._attention)
        tell(self._tx, self._queue, self._news, self._ids, self._now_ms)
        self._news, self._attention = [], []


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
