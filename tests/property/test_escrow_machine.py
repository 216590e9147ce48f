"""
Ledger, holds, payouts, refunds and disputes against a reference model, with a provider that loses answers, repeats,
reorders and contradicts itself, and people who do everything at the wrong moment.

After every step each hold and payout is what the model says, every account holds what the model says, the ledger is
what it would be if it were worked out afresh, nobody was paid twice, and a person sees what a person has to see.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import select

from service.escrow.payouts import ASK_ONLY
from service.escrow.tables import holds, payouts
from service.payments.tables import attention
from service.providers.base import NotKnown
from service.providers.calls import Lost, NotSent
from service.providers.payouts import PayoutRefused, PayoutTold
from tests.support.escrow_check import problems
from tests.support.escrow_far import SENDS, SLOW_MS
from tests.support.escrow_model import (
    BACK,
    HOUR_MS,
    OPEN,
    UNDELIVERED_MS,
    Hold,
    Order,
    Payout,
)
from tests.support.escrow_sales import NOBODY_NEEDED, Sales

GRACE_MS, KEY_MS = 10 * 60_000, 20 * HOUR_MS
assert SLOW_MS < GRACE_MS
MINUTES = (1, 9, 11, 60, 21 * 60, 49 * 60, 15 * 24 * 60)
LONG = settings().max_examples >= 1_000
"""`HYPOTHESIS_PROFILE=long`: then everything has to be reached."""
reached: Counter[str] = Counter()


class Escrow(Sales):
    """System: a market in memory and a provider far away. Model: `escrow_model.Books`."""

    def prepare(self) -> None:
        """One hold is released, and a part of it on its way out."""
        order = self.held[0]
        assert order.hold is not None
        self.market.release(self.market.hold_of(order.id)["id"])
        self.release(order, order.hold)
        if not self.by_itself:
            id_ = self.market.pay_out(2_000)
            self.keep(id_, Payout("", "", 2_000, "beneficiary", self.payees[-1], "test"))

    # --- holds

    @property
    def held(self) -> list[Order]:
        """Orders with a hold."""
        return [order for order in self.books.orders if order.hold is not None]

    @precondition(lambda self: self.books.orders)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        """The seller says that it was handed over."""
        order = data.draw(st.sampled_from(self.books.orders))
        code = None if order.state in ("paid", "delivered") else "not_paid"
        if not self.refused(lambda: self.market.deliver(order.id), code) and order.state == "paid":
            order.state, order.delivered_ms = "delivered", self.now
            order.follow(self.now)

    @rule(minutes=st.sampled_from(MINUTES))
    def time_passes(self, minutes: int) -> None:
        """And the clock looks at holds."""
        self.market.clock.advance(minutes * 60_000)
        self.next()
        due = [one for one in self.held if one.hold and one.hold.state == "release_scheduled"]
        due = sorted((one for one in due if self.due(one) <= self.now), key=self.due)
        released = [one for one in due if not any(refund.open for refund in one.refunds)]
        assert self.market.release_due() == {"released": len(released), "left": len(due) - len(released)}
        for order in due:
            assert order.hold is not None
            if order in released:
                self.release(order, order.hold)
            else:
                order.hold.due_ms = self.now + HOUR_MS
        with self.market.tx() as tx:
            self.market.holds.find_undelivered(tx, self.market.by)
        for order in self.held:
            if order.hold and order.hold.state == "held" and self.now - order.hold.created_ms >= UNDELIVERED_MS:
                order.hold.undelivered = True

    def due(self, order: Order) -> int:
        """When it is."""
        assert order.hold is not None and order.hold.due_ms is not None
        return order.hold.due_ms

    def release(self, order: Order, hold: Hold) -> None:
        """The beneficiary's from now on, and on its way where the terms say so."""
        hold.release()
        reached["released"] += 1
        if self.by_itself:
            if hold.released > self.books.beneficiary():
                hold.auto_failed = True
                return
            hold_id = self.market.hold_of(order.id)["id"]
            with self.market.tx() as tx:
                found = tx.execute(select(payouts.c.id).where(payouts.c.hold_id == hold_id)).scalar_one()
            self.keep(found, Payout("", "", hold.released, "beneficiary", self.payees[-1], "escrow", hold))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), who=st.sampled_from(["operator", "buyer"]))
    def somebody_releases(self, data: st.DataObject, who: str) -> None:
        """A person of the merchant's, or the buyer with their own token."""
        order = data.draw(st.sampled_from(self.held))
        hold = order.hold
        assert hold is not None
        code = {"frozen": "hold_frozen", "refunded": "hold_refunded"}.get(hold.state)
        if who == "buyer" and hold.state == "frozen" and hold.stands == {"buyer"}:
            code = None  # they have it after all
        if hold.unreleased and code is None and any(refund.open for refund in order.refunds):
            code = "refund_open"
        hold_id = self.market.hold_of(order.id)["id"]
        done = not self.refused(
            lambda: self.market.confirm(order.id) if who == "buyer" else self.market.release(hold_id), code
        )
        if done and hold.unreleased:
            hold.buyer_objects = False
            order.follow(self.now)
            self.release(order, hold)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), frees=st.booleans())
    def somebody_objects_or_frees(self, data: st.DataObject, frees: bool) -> None:
        """The buyer says that something is wrong; or a person sets aside what stands against it."""
        order = data.draw(st.sampled_from(self.held))
        hold, market = order.hold, self.market
        assert hold is not None
        hold_id = market.hold_of(order.id)["id"]
        if frees:
            code = None if hold.state == "frozen" else "not_frozen"
            with market.tx() as tx:
                if not self.refused(lambda: market.holds.unfreeze(tx, hold_id, "seen", market.by), code):
                    hold.overruled |= {cause for one in order.payments for cause in one.causes(order.under_way(one))}
                    hold.buyer_objects = False
                    reached["unfrozen"] += 1
        else:
            code = None if hold.unreleased else f"hold_{hold.state}"
            with market.tx() as tx:
                if not self.refused(lambda: market.holds.dispute(tx, hold_id, "torn", market.by), code):
                    hold.buyer_objects = True
        order.follow(self.now)

    # --- payouts asked for

    def keep(self, payout_id: str, payout: Payout) -> None:
        """A payout that there is from now on."""
        payout.id, payout.reference = payout_id, self.market.payout(payout_id)["reference"]
        payout.state = "awaiting_approval" if payout.amount > NOBODY_NEEDED else "queued"
        self.books.payouts.append(payout)
        reached["asked for"] += 1

    def objection(self, amount: int, source: str, hold: Hold | None) -> str | None:
        """Why such a payout is refused."""
        if self.payees[-1].usable_ms > self.now + 1:
            return "payee_waits"
        if hold is not None:
            if hold.state != "released" or source != "beneficiary":
                return "hold_not_released"
            if amount > hold.released - hold.taken_back:
                return "bad_amount"
            if any(one.hold is hold and one.state not in BACK for one in self.books.payouts):
                return "hold_paid_out"
        has = self.books.beneficiary() if source == "beneficiary" else self.books.merchant_available()
        return "balance_short" if amount > has else None

    @rule(data=st.data(), source=st.sampled_from(["beneficiary", "beneficiary", "merchant"]),
          more=st.sampled_from([1, 0, -1, -400, -3_000]), of_hold=st.booleans())  # fmt: skip
    def asks_for_a_payout(self, data: st.DataObject, source: str, more: int, of_hold: bool) -> None:
        """Above, exactly, or below what there is; of the balance or of a hold."""
        order = data.draw(st.sampled_from(self.held)) if of_hold and self.held else None
        has = self.books.beneficiary() if source == "beneficiary" else self.books.merchant_available()
        amount = (order.hold.released if order and order.hold else has) + more
        if amount > 0:
            hold = order.hold if order else None
            hold_id = self.market.hold_of(order.id)["id"] if order else None
            made: list[str] = []

            def ask() -> None:
                made.append(self.market.pay_out(amount, source=source, hold_id=hold_id))

            if not self.refused(ask, self.objection(amount, source, hold)):
                self.keep(made[0], Payout("", "", amount, source, self.payees[-1], "test", hold))

    def payout(self, data: st.DataObject) -> Payout:
        """One of them, those that are open more often."""
        open_ = [one for one in self.books.payouts if one.state in OPEN]
        return data.draw(st.sampled_from([*self.books.payouts, *open_, *open_]))

    @precondition(lambda self: self.books.payouts)
    @rule(data=st.data(), what=st.sampled_from(["approve", "approve", "cancel", "decide", "retry"]),
          another=st.sampled_from([True, True, False]))  # fmt: skip
    def a_person_decides(self, data: st.DataObject, what: str, another: bool) -> None:
        """Approves, calls off, decides about what nobody knows, or tries again."""
        one, market = self.payout(data), self.market
        steps, by = market.payouts, market.by_another() if another else market.by
        there = self.far.has(one.reference)
        made: list[str] = []
        with market.tx() as tx:
            if what == "approve":
                code = None if one.state == "awaiting_approval" else "not_awaiting"
                if code is None and not another and one.actor == "test":
                    code = "second_person"
                if not self.refused(lambda: steps.approve(tx, one.id, "right", by), code):
                    one.state = "queued"
            elif what == "cancel":
                code = (
                    None if one.state in ("requested", "awaiting_approval", "queued", "canceled") else "not_cancelable"
                )
                if not self.refused(lambda: steps.cancel(tx, one.id, "no", by), code):
                    one.state = "canceled"
            elif what == "decide":
                outcome = "paid" if there else "failed"
                code = None if one.state == "unknown" else "not_unknown"
                if not self.refused(lambda: steps.decide(tx, one.id, outcome, "seen there", by), code):
                    one.state = outcome
                    reached["decided"] += 1
            else:
                code = "not_failed" if one.state not in BACK else "retried_already" if one.retried else None
                code = code or self.objection(one.amount, one.source, one.hold)
                if not self.refused(lambda: made.append(steps.retry(tx, one.id, by)["id"]), code):
                    one.retried = True
                    reached["retried"] += 1
        one.ended()
        if made:
            self.keep(made[0], Payout("", "", one.amount, one.source, self.payees[-1], by.actor, one.hold))

    # --- payouts on their way

    @precondition(lambda self: self.books.payouts)
    @rule(data=st.data(), hint=st.sampled_from([False, False, True]),
          mood=st.sampled_from([*SENDS, "unclear", "stale", "float_unclear"]))  # fmt: skip
    def a_payout_is_worked_on(self, data: st.DataObject, hint: bool, mood: str) -> None:
        """Sent, sent again, or asked about; by its message or because of a hint."""
        self.work_on(self.payout(data), hint, mood)

    def work_on(self, one: Payout, hint: bool, mood: str) -> None:
        """What is asked of the provider, and what its answers make of it."""
        self.next()
        wanted = self.calls_wanted(one, hint)
        was_sent = one.state in ("queued", "submitting", "unknown")
        self.work(self.market.payer.act, one.id, ASK_ONLY if hint else "", mood)
        calls = list(self.far.calls)
        if calls and calls[0][0] == "float":
            _, _, said = calls.pop(0)
            assert wanted[:1] == ["float"]
            enough = isinstance(said, dict) and said["XOF"] >= one.amount
            wanted = wanted[1:] if enough else []
        assert [(what, name) for what, name, _ in calls] == [(what, one.reference) for what in wanted], one
        if not hint and one.state == "submitting":
            one.state = "unknown"
        if one.state in ("unknown", "in_transit") and self.unasked(one, hint):
            one.cannot_be_asked = True
        for what, _, said in calls:
            assert was_sent or what == "ask"
            self.heard(one, what, said)

    def unasked(self, one: Payout, hint: bool) -> bool:
        """Only a person can find out about it."""
        return self.kind == "silent" or (self.kind == "named" and not one.named)

    def calls_wanted(self, one: Payout, hint: bool) -> list[str]:
        """What may be asked of the provider now, and nothing else."""
        asks = [] if self.unasked(one, hint) else ["ask"]
        if hint:
            return asks if one.state in ("unknown", "in_transit", "paid", "failed") else []
        if one.state == "queued":
            if self.kind == "silent" and self.books.float() < one.amount:
                return []
            first = [] if self.kind == "silent" else ["float"]
            return [*first, "send"] if self.sound and one.payee.usable_ms <= self.now else first
        if one.state in ("submitting", "unknown"):
            return ["send"] if self.kind == "keyed" and self.now - one.first_sent_ms < KEY_MS else asks
        return asks if one.state == "in_transit" else []

    def heard(self, one: Payout, what: str, said: Any) -> None:
        """What an answer means, by the table."""
        again = one.state != "queued"
        if what == "send" and not again:
            one.state, one.sent_ms = "submitting", self.now
            one.first_sent_ms = one.first_sent_ms or self.now
        match said:
            case PayoutTold():
                one.told(said.stage, said.fee_minor or 0)
                reached[f"{what}: {said.stage}"] += 1
            case PayoutRefused("insufficient_float") | NotSent() if not again:
                one.state = "queued"
            case PayoutRefused() if not again:
                one.state = "failed"
            case Lost() if not again:
                one.state = "unknown"
                reached["lost"] += 1
            case NotKnown() if one.state == "unknown" and not one.named and self.now - one.sent_ms >= GRACE_MS:
                one.state = "queued"
                reached["not known"] += 1
        one.ended()

    @precondition(lambda self: self.far.book)
    @rule(data=st.data(), stage=st.sampled_from(["in_transit", "paid", "paid", "failed", "returned"]),
          fee=st.sampled_from([0, 0, 15]), hint=st.booleans())  # fmt: skip
    def goes_on_there(self, data: st.DataObject, stage: Any, fee: int, hint: bool) -> None:
        """Something becomes of a payout at the provider, which may take back what it has said; and may hint at it."""
        sent = data.draw(st.sampled_from([one for among in self.far.book.values() for one in among]))
        allowed = {"in_transit": ("paid", "failed"), "otp": ("in_transit", "paid", "failed"), "failed": ("paid",),
                   "paid": ("failed", "returned")}  # fmt: skip
        if stage in allowed.get(sent.stage, ()):
            sent.moves(stage)
            sent.fee = max(sent.fee, fee)
        if hint:
            self.work_on(next(one for one in self.books.payouts if one.reference == sent.reference), True, "")

    # --- what always holds

    @invariant()
    def everything_is_as_it_should_be(self) -> None:
        """See the head of this file."""
        if not hasattr(self, "market"):
            return
        with self.market.tx() as tx:
            assert problems(tx, self.settlements) == []
            held = {row["order_id"]: dict(row) for row in tx.execute(select(holds)).mappings()}
            paid = {row["id"]: dict(row) for row in tx.execute(select(payouts)).mappings()}
            open_ = tx.execute(select(attention).where(attention.c.closed_at_ms.is_(None))).mappings()
            seen = {(row["subject"], row["reason"]) for row in open_}
        assert self.market.balances() == self.books.balances()
        assert set(held) == {order.id for order in self.held} and set(paid) == {one.id for one in self.books.payouts}
        for order in self.held:
            self.a_hold_is_right(order, held[order.id], seen)
        for one in self.books.payouts:
            self.a_payout_is_right(one, paid[one.id], seen)

    def a_hold_is_right(self, order: Order, row: dict[str, Any], seen: set[tuple[str, str]]) -> None:
        """The row, and what a person sees."""
        hold, id_ = order.hold, row["id"]
        assert hold is not None
        now = row["state"], row["held_minor"], row["released_minor"], row["refunded_minor"], row["frozen_minor"]
        right = hold.state, hold.held, hold.released, hold.refunded, hold.frozen
        assert now == right, (
            f"{id_} is {now}, the model's {right}; against {row['against']!r}, not {row['overruled']!r}"
        )
        assert (row["taken_back_minor"], row["release_at_ms"]) == (hold.taken_back, hold.due_ms), order
        assert ((id_, "hold_frozen") in seen) == (hold.state == "frozen"), order
        assert ((id_, "hold_undelivered") in seen) == hold.undelivered, order
        assert not hold.was_taken_back or (id_, "hold_taken_back") in seen
        assert not hold.auto_failed or (id_, "payout_not_possible") in seen
        reached[f"hold {hold.state}"] += 1

    def a_payout_is_right(self, one: Payout, row: dict[str, Any], seen: set[tuple[str, str]]) -> None:
        """The row, what really became of it, and what a person sees."""
        assert (row["state"], row["amount_minor"], row["fee_minor"]) == (one.state, one.amount, one.fee), one
        assert self.far.paid(one.reference) <= 1, f"paid twice: {self.far.book[one.reference]}"
        wanted = {PAYOUT_REASONS[one.state]} if one.state in PAYOUT_REASONS else set()
        wanted |= {"payout_otp"} if one.otp else set()
        wanted |= {"payout_unknown"} if one.cannot_be_asked else set()
        wanted |= {"payout_paid_after_all"} if one.paid_after_all else set()
        missing = {reason for reason in wanted if (one.id, reason) not in seen}
        assert not missing, one
        if one.state not in OPEN:
            left = {"payout_approval", "payout_unknown", "payout_otp", "payout_float_short"}
            assert not {reason for reason in left if (one.id, reason) in seen}, one
        reached[f"payout {one.state}"] += 1


PAYOUT_REASONS = {"failed": "payout_failed", "returned": "payout_returned", "awaiting_approval": "payout_approval"}
PHASES = (
    *("released", "unfrozen", "asked for", "retried", "decided", "lost", "not known"),
    *("send: paid", "ask: paid", "ask: returned", "ask: failed", "send: otp"),
    *(f"hold {state}" for state in ("held", "release_scheduled", "frozen", "released", "refunded")),
    *(f"payout {state}" for state in (*OPEN[1:], *BACK, "paid")),
)


def test_money_that_is_held_and_paid_out_is_what_the_model_says() -> None:
    """No order of sales, claims, refunds, lost answers and people loses money, or pays it twice; all was reached."""
    reached.clear()
    run_state_machine_as_test(
        Escrow,
        settings=settings(
            max_examples=settings().max_examples if LONG else 30,
            stateful_step_count=min(50, settings().stateful_step_count),
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        ),
    )
    missed = [phase for phase in (PHASES if LONG else PHASES[:3]) if not reached[phase]]
    assert not missed, f"never reached: {missed} of {dict(reached)}"
