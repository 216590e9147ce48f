"""
What one message says about a payment, and what follows from it.

Whatever tells us something, a callback, an answer to our question, later a poll or an operator, ends here, inside
the caller's write transaction: the payment it speaks of is found or adopted, its facts are joined, the rules decide,
and the merchant's news is written with the rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, bindparam, insert, update

from outbox.message import Promise
from outbox.queue import Queue
from service.ids import Ids
from service.merchants.events import News, tell
from service.payments.asking import question
from service.payments.facts import Kind, Source, Told
from service.payments.heard import (
    MOVES_MONEY,
    Account,
    Change,
    Context,
    Follower,
    Heard,
    Lacks,
    Moved,
    Waits,
    names_of,
)
from service.payments.public import public
from service.payments.records import AttemptRecord, PaymentRecord, Records
from service.payments.rules import Attempt, Payment, announce, decide_payment
from service.payments.states import ATTEMPT, LIVE, State, Step, rank
from service.payments.tables import attention

AFTERWARDS = MOVES_MONEY - {Kind.CAPTURED} | {Kind.REFUNDED_TOTAL}
"""Kinds that speak of money that has moved before: alone they cannot begin a payment, they wait for it."""

_PENDING = (Step.FOUND_PENDING, State.PENDING)
_WAITING = (Step.FOUND_WAITING, State.REQUIRES_ACTION)
_LIVE_WORDS = {
    Kind.CREATED: None,
    Kind.PENDING: _PENDING,
    Kind.TRY_FAILED: _WAITING,
    Kind.REQUIRES_ACTION: _WAITING,
}
_OPEN_ATTENTION = insert(attention).prefix_with("OR IGNORE", dialect="sqlite")
_MOVED_BY_ITS_WORD = (State.SUBMITTING, State.PENDING, State.REQUIRES_ACTION, State.UNKNOWN)
_KNOWN_NOW = (
    update(attention)
    .where(
        attention.c.subject.in_(bindparam("payments", expanding=True)),
        attention.c.reason.in_(("cannot_be_asked", "still_unknown")),
        attention.c.closed_at_ms.is_(None),
    )
    .values(closed_at_ms=bindparam("now_ms"))
)
_LIVE_RANK = rank(Kind.PENDING) or 0


class Book:
    """One per transaction. `hear` in any order, then `flush` once."""

    def __init__(
        self, tx: Connection, queue: Queue, ids: Ids, now_ms: int, ours: str, followers: Sequence[Follower] = ()
    ) -> None:
        self._tx, self._queue, self._ids, self._now_ms, self._ours = tx, queue, ids, now_ms, ours
        self._followers = followers
        self._records = Records(tx)
        self._undecided = False
        self._asks: list[Promise] = []
        self._before: dict[str, Payment | None] = {}
        self._after: dict[str, Payment] = {}
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

    @contextmanager
    def undecided(self, payment_id: str) -> Iterator[None]:
        """What is done in here is one change: one attempt not sent and the next one being sent are no failure."""
        before, self._undecided = self._undecided, True
        try:
            yield
        finally:
            self._undecided = before
        self._decide(self.payment(payment_id))

    # --- payments of our own

    def begin(self, payment: dict[str, Any], attempt: dict[str, Any]) -> AttemptRecord:
        """A payment that caisse asks for, with its first attempt, about to be sent."""
        return self._sending(self._records.begin(payment | {"origin": "caisse"}, attempt))

    def another(self, payment_id: str, attempt: dict[str, Any]) -> AttemptRecord:
        """The next attempt of a payment, about to be sent."""
        return self._sending(self._records.another(self.payment(payment_id), attempt, self._now_ms))

    def _sending(self, attempt: AttemptRecord) -> AttemptRecord:
        self._records.name(attempt.row["account_id"], attempt.row["reference"], attempt)
        attempt.take(Step.SENDING, self._now_ms)
        self._decide(self._records.payment_of(attempt))
        return attempt

    def payment(self, payment_id: str) -> PaymentRecord:
        """One payment with its attempts. Raises KeyError when there is none."""
        self._records.load_payments([payment_id])
        return self._records.payments[payment_id]

    def attempt(self, payment_id: str, attempt_id: str) -> AttemptRecord:
        """One of its attempts; one that was merged away is where it went: the first."""
        attempts = self.payment(payment_id).attempts
        return next((one for one in attempts if one.row["id"] == attempt_id), attempts[0])

    def step(self, attempt: AttemptRecord, step: Step, actor: str = "", reason: str = "") -> State:
        """Decide something about an attempt. Returns the state that gives."""
        attempt.take(step, self._now_ms, actor, reason)
        self._decide(self._records.payment_of(attempt))
        return State(attempt.row["state"])

    def answered(self, attempt: AttemptRecord, told: Told) -> State:
        """
        The provider's answer about an attempt of ours, whatever names it has in it. What it says of a live attempt is
        so from now on: providers' clocks and ours need not agree, nor do they all give a time.
        """
        account_id, provider = attempt.row["account_id"], attempt.row["provider"]
        row = self._records.payment_of(attempt).row
        account = Account(account_id, provider, row["merchant_id"], bool(row["live"]))
        with self.undecided(attempt.row["payment_id"]):
            self.hear(account, told, None, to=attempt)
            live = [_LIVE_WORDS[fact.kind] for fact in told.facts if fact.kind in _LIVE_WORDS]
            words = [word for word in live if word is not None] or ([_PENDING] if live else [])
            if words and not any((rank(fact.kind) or 0) > _LIVE_RANK for fact in told.facts):
                self.found(attempt, *words[-1])
        return State(attempt.row["state"])

    def found(self, attempt: AttemptRecord, step: Step, state: State) -> None:
        """The provider says right now that the attempt is in this live state; "not yet" is no end of waiting."""
        if attempt.row["action"] is not None and state is State.PENDING:
            step, state = _WAITING
        if attempt.row["state"] in {*_MOVED_BY_ITS_WORD} - {state}:
            said = [kept.fact.at_ms for kept in attempt.facts.values() if rank(kept.fact.kind) == _LIVE_RANK]
            said += [one.at_ms for one in attempt.decisions if rank(one.step) == _LIVE_RANK]
            attempt.take(step, max([self._now_ms, *(at_ms + 1 for at_ms in said)]))
            self._decide(self._records.payment_of(attempt))

    # --- whatever is told

    def hear(
        self, account: Account, told: Told, callback_id: str | None, to: AttemptRecord | None = None
    ) -> Heard | Waits | Lacks:
        """
        Take in what one message says about one payment; adopt the payment when nobody here has started it. `to`: it is
        the answer to a question about this attempt.

        A hint proves nothing, so it joins no names and merges no payments: whoever can forge one could otherwise tie
        a payment of their own to another's reference.
        """
        records, weak = self._records, bool(told.facts) and all(fact.source is Source.HINT for fact in told.facts)
        names = names_of(told, self._ours)
        records.load(names)
        found = list(dict.fromkeys(id_ for name in names if (id_ := records.names.get((account.id, name)))))
        if to is not None:
            found = list(dict.fromkeys([to.row["id"], *found]))
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
            attempt = records.attempts[found[0]] if len(found) == 1 else self._merge(found, to)
        for name in names:
            records.name(account.id, name, attempt)
        asked_by_us = attempt.row["reference"] is not None and attempt.row["provider_reference"] is None
        if asked_by_us and not weak and told.references:
            attempt.row["provider_reference"], attempt.changed = told.references[0], True
        state, illegal = attempt.row["state"], []
        for fact in told.facts:
            new = attempt.hear(fact, callback_id, self._now_ms)
            if new and rank(fact.kind) is not None and (state, fact.kind) not in ATTEMPT:
                illegal.append(f"{state}+{fact.kind}")
        payment = records.payment_of(attempt)
        if not weak:
            self._describe(payment, told)
        self._decide(payment)
        stands = payment.view()
        if stands is not None:
            # Whoever follows looks at facts too, such as those of a refund that moves no amount yet.
            self._before.setdefault(payment.row["id"], stands)
            self._after.setdefault(payment.row["id"], stands)
        words = [word for fact in told.facts if (word := _LIVE_WORDS.get(fact.kind)) is not None]
        if callback_id is not None and not weak and attempt.row["state"] == State.UNKNOWN and words:
            self.found(attempt, *words[-1])  # a signed callback is an answer too: the provider has it after all
        if attempt.row["action"] is not None and attempt.row["state"] == State.PENDING:
            self.found(attempt, *_PENDING)
        if attempt.row["state"] == State.SUCCEEDED:
            self._contradicted(attempt, told, callback_id)
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

    def _merge(self, found: Sequence[str], to: AttemptRecord | None) -> AttemptRecord:
        """
        One message names several attempts, so they were one all along: ours stays, else the oldest. Two that we asked
        for are two, whatever a provider that uses a name twice says: a person has to look.
        """
        records = self._records

        def age(attempt: AttemptRecord) -> tuple[bool, bool, str]:
            external = records.payment_of(attempt).row["origin"] == "external"
            return attempt is not to, external, attempt.row["id"]

        first, *others = sorted((records.attempts[id_] for id_ in found), key=age)
        self.flush()
        for other in others:
            if first.row["reference"] is not None and other.row["reference"] is not None:
                self._need_attention(first.row["payment_id"], "name_used_twice", other.row["payment_id"])
                continue
            left = records.payment_of(other)
            gone = records.absorb(first, other)
            if (stood := left.view()) is not None:  # whoever follows the money has to see that it is not here any more
                self._before[left.row["id"]] = self._after[left.row["id"]] = stood
            if gone is not None:
                self._need_attention(first.row["payment_id"], "merged", gone.row["id"])
                self._tell(gone, "payment.attention")
        return first

    def _contradicted(self, attempt: AttemptRecord, told: Told, callback_id: str | None) -> None:
        """The provider says now that what succeeded did not: nothing changes, but it is asked, or a person looks."""
        ends = [fact for fact in told.facts if fact.kind in (Kind.FAILED, Kind.CANCELED, Kind.EXPIRED)]
        captures = [kept.fact for kept in attempt.facts.values() if kept.fact.kind is Kind.CAPTURED]
        if not ends or attempt.row["reference"] is None:
            return
        if any(fact.source is Source.ANSWER for fact in ends):
            self._need_attention(attempt.row["payment_id"], "provider_disagrees", ends[-1].kind)
        elif callback_id is not None and max(f.at_ms for f in ends) > max(f.at_ms for f in captures):
            self._asks.append(question(attempt.row, callback_id, self._now_ms))

    def _describe(self, payment: PaymentRecord, told: Told) -> None:
        """Names and notes that decide nothing: the first that is said stays. Our own payments have theirs already."""
        row = payment.row
        if row["origin"] != "external":
            return
        if row["reference"] is None and told.reference and not told.reference.startswith(self._ours):
            row["reference"], payment.changed = told.reference, True
        if row["metadata"] == "{}" and told.metadata:
            row["metadata"], payment.changed = json.dumps(dict(told.metadata), sort_keys=True), True

    def _decide(self, payment: PaymentRecord) -> None:
        before = payment.view()
        external = payment.row["origin"] == "external"
        decided: list[Attempt] = []
        for attempt in payment.attempts:
            said = attempt.decide(external, payment.row["ended_at_ms"])
            decided.append(said)
            now = {
                "state": said.state.value,
                "amount_minor": said.asked_minor or 0,
                "currency": said.currency or "XXX",
            }
            if any(attempt.row[name] != value for name, value in now.items()):
                attempt.row |= now | {"updated_at_ms": self._now_ms}
                attempt.changed = True
        if self._undecided:
            return
        after = decide_payment(decided)
        if after.captured_minor and after.paid_at_ms is None:
            # The provider gave no time: the first moment we knew is the best there is.
            after = replace(after, paid_at_ms=payment.row["paid_at_ms"] or self._now_ms)
        row = payment.row
        if not external:
            after = replace(after, method=after.method or row["method"])
            self._held_by(payment, decided)
        if after == before:
            return
        self._before.setdefault(row["id"], before)
        self._after[row["id"]] = after
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

    def _held_by(self, payment: PaymentRecord, decided: Sequence[Attempt]) -> None:
        """A payment is recorded under the provider that really holds it: who has the money, else who may get it."""
        row = payment.row
        both = list(zip(payment.attempts, decided, strict=True))
        paid = [attempt for attempt, said in both if said.state is State.SUCCEEDED]
        live = [attempt for attempt, said in both if said.state in LIVE]
        holder = paid[0] if paid else (live or payment.attempts)[-1]
        holds = {name: holder.row[name] for name in ("provider", "provider_reference")}
        if any(row[name] != value for name, value in holds.items()):
            row |= holds
            payment.changed = True

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

    def _is_known_now(self, change: Change) -> bool:
        """Nothing about it is unknown any more; one that is being cancelled may still be."""
        mine = self._records.payments[change.row["id"]].attempts
        was = change.before is not None and change.before.status in ("unknown", "pending")
        return was and not any(one.row["state"] in (State.UNKNOWN, State.CANCELING) for one in mine)

    def flush(self) -> None:
        """Write all changes and tell the news. Raises records.Conflict."""
        self._records.write()
        known_as = self._records.payments
        now = self._after.items()
        changes = [Change(known_as[id_].row, self._before[id_], after, known_as[id_].attempts) for id_, after in now]
        self._before, self._after = {}, {}
        if changes:
            context = Context(self._queue, self._ids, self._now_ms)
            for follower in self._followers:
                self._news += follower(self._tx, changes, context)
        known = [one.row["id"] for one in changes if one.row["origin"] == "caisse" and self._is_known_now(one)]
        if known:
            self._tx.execute(_KNOWN_NOW, {"payments": known, "now_ms": self._now_ms})
        if self._attention:
            self._tx.execute(_OPEN_ATTENTION, self._attention)
        tell(self._tx, self._queue, self._news, self._ids, self._now_ms)
        self._queue.enqueue(self._tx, self._asks, self._now_ms)
        self._news, self._attention, self._asks = [], [], []
