"""
Refunds: asked for, kept, and moved by what the provider says of them.

A refund is a row beside the payment's facts. What a payment has had back is computed from the facts alone (`rules.py`);
the row says who wanted it, why, and what has become of it. It is recorded, with its id as the key at the provider,
before anything is sent (`refund_send.py`), and it is never made anew: one that nobody knows the outcome of is asked
about. Providers without an API for refunds have *manual* ones, which wait for a person, or for a payout to the payer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal

from sqlalchemy import Connection, bindparam, insert, select

from outbox.message import Promise
from outbox.prepared import Lookup
from outbox.queue import Queue
from service.attention import close_attention, open_attention
from service.errors import NotFound, Refusal
from service.ids import Ids
from service.merchants.audit import REASON_CHARACTERS_MAX, By
from service.merchants.events import News, tell
from service.payments.facts import AMOUNT_MINOR_MAX, Kind
from service.payments.heard import Change, Context
from service.payments.records import AttemptRecord, PaymentRecord, Records
from service.payments.refund_match import NOTHING_WENT, REFUND_KINDS, RENAMING, Refund, match, step
from service.payments.refund_rows import FAILED, MANUAL, NOT_OURS, Row, move, of_payment, one, told_of
from service.payments.rules import Problem
from service.payments.states import RefundState, RefundStep
from service.payments.tables import attempts, facts, refunds
from service.providers.calls import LISTED_MAX, Calls

REFUND: Final = "refund"
"""The outbox's topic. One message for each refund, over its whole life."""

OF_ONE_PAYMENT_MAX: Final = LISTED_MAX
POLICY_ACTOR: Final = "policy"

Duplicates = Literal["auto", "ask"]
PaidOutBy = Callable[[Connection, str], str]
"""`paid_out_by(tx, refund_id)`: the payout by which a refund is being made; empty: none."""
Ended = Callable[[Connection, str, Context], object]
"""`ended(tx, payment_id, context)`: one of its refunds came to nothing: what went back besides is not ours."""

_TOLD_OF_REFUNDS = Lookup(
    select(attempts.c.payment_id)
    .distinct()
    .join(facts, facts.c.attempt_id == attempts.c.id)
    .where(
        attempts.c.payment_id.in_(bindparam("wanted", expanding=True)),
        facts.c.kind.in_(bindparam("kinds", sorted(REFUND_KINDS), expanding=True, literal_execute=True)),
    )
)


# --- what can go back ---------------------------------------------------------------------------------


def _rest(payment: PaymentRecord, attempt: AttemptRecord, rows: Sequence[Row]) -> tuple[int, str]:
    """
    What of an attempt's money can still go back, in minor units of the currency that it came in.

    Captured, less what was clawed back, less every refund that has not failed: what is under way may be in the
    provider's total already or not, so it is taken off besides it.
    """
    said = attempt.decide(payment.row["origin"] == "external", payment.row["ended_at_ms"])
    told = [kept.fact for kept in attempt.facts.values()]
    came_in = {fact.currency for fact in told if fact.kind is Kind.CAPTURED and fact.currency}
    currency = came_in.pop() if len(came_in) == 1 else ""
    clawed = sum(
        said.captured_minor if fact.amount_minor is None else fact.amount_minor
        for fact in told
        if fact.kind in (Kind.REVERSED, Kind.DISPUTE_LOST)
    )
    mine = [row for row in rows if row["attempt_id"] == attempt.row["id"] and row["state"] not in NOTHING_WENT]
    gone = sum(row["amount_minor"] for row in mine if row["state"] == RefundState.SUCCEEDED)
    going = sum(row["amount_minor"] for row in mine if row["state"] != RefundState.SUCCEEDED)
    rest = said.captured_minor - clawed - max(gone, said.refunded_minor) - going
    return (max(rest, 0) if currency else 0), currency


def _came_at(attempt: AttemptRecord) -> tuple[int, str]:
    """When its money came: the provider's time, else when we were told."""
    kept = [one for one in attempt.facts.values() if one.fact.kind is Kind.CAPTURED]
    return max((one.fact.at_ms or one.told_at_ms for one in kept), default=0), attempt.row["id"]


def surplus(payment: PaymentRecord) -> int:
    """What came beyond what was asked for and is still here, in minor units."""
    row = payment.row
    more: int = row["captured_minor"] - row["refunded_minor"] - row["amount_minor"]
    return max(0, more)


def load(tx: Connection, payment_id: str) -> PaymentRecord:
    """One payment with its attempts and facts, to look at. Raises NotFound, also for one merged into another."""
    records = Records(tx)
    records.load_payments([payment_id])
    if payment_id not in records.payments:
        raise NotFound("payment", payment_id, "caisse payments list")
    return records.payments[payment_id]


def nothing_ends(tx: Connection, payment_id: str, context: Context) -> None:
    """Where nobody else looks at refunds."""


def by_none(tx: Connection, refund_id: str) -> str:
    """Where no refund is made by payout."""
    return ""


def refuse_paid_out(payout_id: str, refund_id: str) -> None:
    """Whoever ends by hand what a payout may be making would pay twice, or take back money that is gone."""
    if payout_id:
        raise Refusal(
            "payout_open", f"The refund {refund_id} is made by the payout {payout_id}; cancel or end that one."
        )


class Refunds:
    """
    Makes refunds and follows what is told of them. Holds what never changes.

    `calls`: what each provider can do. `duplicates`: what becomes of money that came twice: `auto` gives the younger
    capture back, `ask` leaves it to a person. `paid_out_by`: no person ends a refund while a payout may be making it.
    `ended`: told of one that came to nothing.
    """

    def __init__(
        self,
        queue: Queue,
        calls: Mapping[str, Calls],
        duplicates: Duplicates = "ask",
        paid_out_by: PaidOutBy = by_none,
        ended: Ended = nothing_ends,
    ) -> None:
        self._queue, self._calls, self._duplicates, self._paid_out_by = queue, calls, duplicates, paid_out_by
        self._ended = ended

    def create(
        self,
        tx: Connection,
        payment_id: str,
        amount_minor: int | None,
        reason: str,
        by: By,
        *,
        attempt_id: str | None = None,
    ) -> dict[str, Any]:
        """
        A work: record a refund and promise to send it. None: all that is left. Money that came twice goes back from
        the younger capture first, each capture by itself (`attempt_id` names one).

        Raises NotFound, and Refusal: nothing_captured, above_the_rest (says what can go back), bad_amount, bad_reason,
        partial_not_possible, too_many_refunds.
        """
        if amount_minor is not None and (isinstance(amount_minor, bool) or not isinstance(amount_minor, int)):
            raise Refusal("bad_amount", "amount: an integer of minor units (5000 XOF is 5000, 12.50 EUR is 1250).")
        if amount_minor is not None and not 0 < amount_minor <= AMOUNT_MINOR_MAX:
            raise Refusal("bad_amount", f"amount: more than 0 and at most {AMOUNT_MINOR_MAX} minor units.")
        if len(reason) > REASON_CHARACTERS_MAX or "\0" in reason:
            raise Refusal("bad_reason", f"reason: at most {REASON_CHARACTERS_MAX} characters, and no NUL.")
        payment = load(tx, payment_id)
        if not payment.row["captured_minor"]:
            raise Refusal("nothing_captured", f"The payment {payment_id} has no money that could go back.")
        rows = of_payment(tx, payment_id)
        if len(rows) >= OF_ONE_PAYMENT_MAX:
            raise Refusal("too_many_refunds", f"A payment has at most {OF_ONE_PAYMENT_MAX} refunds.")
        attempt, left, currency = _chosen(payment, rows, amount_minor, attempt_id)
        amount = left if amount_minor is None else amount_minor
        calls = self._calls.get(attempt.row["provider"])
        manual = calls is None or calls.refund is None
        if calls is not None and not manual and not calls.partial_refunds and amount != payment.row["captured_minor"]:
            raise Refusal("partial_not_possible", f"{attempt.row['provider']} gives back all of a payment or nothing.")
        row = {
            "id": by.ids("rf"),
            "payment_id": payment_id,
            "attempt_id": attempt.row["id"],
            "origin": "caisse",
            "state": step(RefundState.REQUESTED, RefundStep.CHECKED).value,
            "amount_minor": amount,
            "currency": currency,
            "manual": manual,
            "reason": reason,
            "actor": by.actor,
            "created_at_ms": by.now_ms,
            "updated_at_ms": by.now_ms,
            "version": 1,
        }
        tx.execute(insert(refunds).values(row))
        by.write_down(tx, "refund.created", row["id"], reason)
        made = one(tx, row["id"])
        if manual:
            open_attention(tx, by.ids, row["id"], MANUAL, made["provider"], by.now_ms)
        else:
            promise = Promise(f"{REFUND}:{row['id']}", REFUND, made["account_id"], row["id"])
            self._queue.enqueue(tx, [promise], by.now_ms)
        tell(tx, self._queue, [told_of(made, "refund.created")], by.ids, by.now_ms)
        return made

    def give_up(self, tx: Connection, refund_id: str, reason: str, by: By) -> dict[str, Any]:
        """
        A work: a person says that it will not be made (nothing was sent), or, of one whose outcome nobody knows, that
        it is not there at the provider. Raises NotFound, and Refusal: no_reason, not_open, payout_open.
        """
        row = one(tx, refund_id)
        refuse_paid_out(self._paid_out_by(tx, refund_id), refund_id)
        said_why(reason, "why it is given up")
        what = RefundStep.GIVEN_UP if row["state"] == RefundState.QUEUED else RefundStep.OPERATOR_FAILED
        state = step(RefundState(row["state"]), what)
        if state == row["state"]:
            raise Refusal("not_open", f"The refund {refund_id} is {row['state']}; only what waits can be given up.")
        by.write_down(tx, "refund.given_up", refund_id, reason)
        news = move(tx, row, state, by.ids, by.now_ms, failure_reason="given_up")
        close_attention(tx, refund_id, FAILED, by.now_ms)  # who says so has seen it
        tell(tx, self._queue, news, by.ids, by.now_ms)
        self._ended(tx, row["payment_id"], Context(self._queue, by.ids, by.now_ms))
        return one(tx, refund_id)

    def follow(self, tx: Connection, changes: Sequence[Change], context: Context) -> list[News]:
        """The follower: what was told of refunds moves their rows, and money that came twice goes back if it may."""
        paid = [change for change in changes if change.row["captured_minor"]]
        if not paid:
            return []
        ids = [change.row["id"] for change in paid]
        news: list[News] = []
        for payment_id in sorted(row["payment_id"] for row in _TOLD_OF_REFUNDS(tx, ids)):
            news += follow_facts(tx, payment_id, context.ids, context.now_ms)
        for change in paid:
            came_twice = Problem.DUPLICATE in change.after.problems
            known = change.before is not None and Problem.DUPLICATE in change.before.problems
            if self._duplicates == "auto" and came_twice and not known:
                too_much = surplus(load(tx, change.row["id"]))
                by = By(POLICY_ACTOR, context.now_ms, context.ids)
                if too_much:
                    self.give_back(tx, change.row["id"], too_much, "duplicate", by)
        return news

    def give_back(self, tx: Connection, payment_id: str, amount_minor: int | None, reason: str, by: By) -> bool:
        """
        What a policy wants: `create`, if it can be. False when it cannot; then the attention that is open is a
        person's. For followers: they must not undo what was told.
        """
        try:
            self.create(tx, payment_id, amount_minor, reason, by)
        except Refusal:
            return False
        return True


def said_why(reason: str, what: str) -> None:
    """Whoever decides by hand has to say why. Raises Refusal no_reason."""
    if not reason.strip():
        raise Refusal("no_reason", f"Say {what}: a reason is kept with it.")


def _chosen(
    payment: PaymentRecord, rows: Sequence[Row], amount_minor: int | None, attempt_id: str | None
) -> tuple[AttemptRecord, int, str]:
    """The youngest capture that has enough left."""
    found = [one for one in payment.attempts if attempt_id in (None, one.row["id"])]
    if not found:
        raise NotFound("attempt", attempt_id or "", f"caisse payments show {payment.row['id']}")
    rests = [(one, *_rest(payment, one, rows)) for one in sorted(found, key=_came_at, reverse=True)]
    least = 1 if amount_minor is None else amount_minor
    chosen = next((one for one in rests if one[1] >= least), None)
    if chosen is None:
        most = max(left for _, left, _ in rests)
        at_once = " at once, for its money came in parts" if sum(left for _, left, _ in rests) > most else ""
        code = payment.row["currency"]
        raise Refusal("above_the_rest", f"amount: at most {most} minor units of {code} can go back{at_once}.")
    return chosen


# --- following ----------------------------------------------------------------------------------------


def follow_facts(tx: Connection, payment_id: str, ids: Ids, now_ms: int) -> list[News]:
    """What was told of a payment's refunds, written into their rows; one that is not ours becomes a row. Repeatable."""
    payment = load(tx, payment_id)
    rows = of_payment(tx, payment_id)
    news: list[News] = []
    for attempt in payment.attempts:
        mine = [row for row in rows if row["attempt_id"] == attempt.row["id"]]
        told = [kept.fact for kept in attempt.facts.values() if kept.fact.kind in REFUND_KINDS]
        now = match([_refund(row) for row in mine], told, attempt.row["provider"] in RENAMING)
        for row, refund in zip(mine, now, strict=False):
            news += move(
                tx, row, refund.state, ids, now_ms,
                name=refund.name, amount_minor=refund.amount_minor, failure_reason="provider",
            )  # fmt: skip
        for seen in now[len(mine) :]:
            if len(rows) < OF_ONE_PAYMENT_MAX:
                news += _keep(tx, payment, attempt, seen, ids, now_ms)
    return news


def _keep(
    tx: Connection, payment: PaymentRecord, attempt: AttemptRecord, seen: Refund, ids: Ids, now_ms: int
) -> list[News]:
    """A refund that somebody else made at the provider. It changes no order, and a person has to know of it."""
    seen = replace(seen, currency=seen.currency or attempt.row["currency"])
    row = {
        "id": ids("rf"),
        "payment_id": payment.row["id"],
        "attempt_id": attempt.row["id"],
        "origin": "external",
        "state": seen.state.value,
        "amount_minor": seen.amount_minor,
        "currency": seen.currency,
        "manual": False,
        "provider_reference": seen.name,
        "failure_reason": "provider" if seen.state in NOTHING_WENT else None,
        "actor": attempt.row["provider"],
        "created_at_ms": now_ms,
        "updated_at_ms": now_ms,
        "version": 1,
    }
    tx.execute(insert(refunds).values(row))
    if seen.state not in NOTHING_WENT:
        open_attention(tx, ids, row["id"], NOT_OURS, seen.name or "", now_ms)
    made = one(tx, row["id"])
    told = [told_of(made, "refund.created")]
    return [*told, told_of(made, "refund.succeeded")] if seen.state is RefundState.SUCCEEDED else told


def _refund(row: Row) -> Refund:
    return Refund(
        row["id"],
        RefundState(row["state"]),
        row["amount_minor"],
        made_here=row["origin"] == "caisse",
        manual=bool(row["manual"]),
        name=row["provider_reference"],
        currency=row["currency"],
    )
