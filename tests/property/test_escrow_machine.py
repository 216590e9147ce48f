"""
Ledger, holds, payouts, refunds and disputes against a reference model, with a provider that loses answers, repeats,
reorders and contradicts itself, and people who do everything at the wrong moment.

After every step each hold and payout is what the model says, every account holds what the model says, the ledger is
what it would be if it were worked out afresh, nobody was paid twice, and a person sees what a person has to see.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import select

from service.escrow.tables import holds, payouts
from service.payments.facts import Kind
from service.payments.tables import attention
from service.schema import outbox_tables
from tests.support.escrow_check import a_hold_is_right, a_payout_is_right, problems, quietly, reached
from tests.support.escrow_model import (
    BACK,
    HOUR_MS,
    OPEN,
    UNDELIVERED_MS,
    Hold,
    Order,
    Payout,
)
from tests.support.escrow_sales import NOBODY_NEEDED
from tests.support.escrow_sending import Sending

MINUTES = (1, 9, 11, 60, 21 * 60, 49 * 60, 15 * 24 * 60)
LONG = settings().max_examples >= 1_000
"""`HYPOTHESIS_PROFILE=long`: then everything has to be reached."""
AFRESH = 5
"""The whole ledger is worked out afresh after so many steps, and at the end; its balances are compared after each."""


class Escrow(Sending):
    """System: a market in memory and a provider far away. Model: `escrow_model.Books`."""

    def prepare(self) -> None:
        """
        Six are sold; three holds are released, and what they have given waits to be sent; one is scheduled, one frozen.
        """
        for _ in range(6):
            self.sell("right", 2_500, timed=True)
        for order in self.held[:3]:
            assert order.hold is not None
            self.market.release(self.market.hold_of(order.id)["id"])
            self.release(order, order.hold)
            if not self.by_itself:
                id_ = self.market.pay_out(2_000)
                self.keep(id_, Payout("", "", 2_000, "beneficiary", self.payees[-1], "test"))
        for order in self.held[3:5]:
            self.is_delivered(order)
        self.say(order, order.payments[0], self.fact(Kind.DISPUTE_OPENED, "dp_0", 2_500))

    def begun(self, moods: list[str], later: list[Any]) -> None:
        """All three are sent, and come to this or that."""
        self.steps = 0
        for one, mood, stage in zip(list(self.books.payouts), moods, later, strict=True):
            self.work_on(one, False, mood)
            for sent in self.far.book.get(one.reference, []) if stage else []:
                sent.moves(stage)
                self.work_on(one, True, "")
        self.asks(self.held[0], "beneficiary", 0)

    def teardown(self) -> None:
        """The whole ledger once more."""
        if hasattr(self, "steps"):
            with self.market.tx() as tx:
                assert problems(tx, self.settlements) == []
        super().teardown()

    # --- holds

    @property
    def held(self) -> list[Order]:
        """Orders with a hold."""
        return [order for order in self.books.orders if order.hold is not None]

    @precondition(lambda self: self.books.orders)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        """The seller says that it was handed over."""
        self.is_delivered(data.draw(st.sampled_from(self.books.orders)))

    def is_delivered(self, order: Order) -> None:
        """Once it is paid."""
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
        released = [one for one in due if not one.refund_open()]
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

    def release(self, order: Order, hold: Hold, actor: str = "test") -> None:
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
            self.keep(found, Payout("", "", hold.released, "beneficiary", self.payees[-1], actor, hold))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), who=st.sampled_from(["operator", "buyer"]))
    def somebody_releases(self, data: st.DataObject, who: str) -> None:
        """A person of the merchant's, or the buyer with their own token."""
        fit = [one for one in self.held if one.hold and one.hold.unreleased]
        order = data.draw(st.sampled_from([*self.held, *fit, *fit]))
        hold = order.hold
        assert hold is not None
        code = {"frozen": "hold_frozen", "refunded": "hold_refunded"}.get(hold.state)
        if who == "buyer" and hold.state == "frozen" and hold.stands == {"buyer"}:
            code = None  # they have it after all
        if hold.unreleased and code is None and order.refund_open(but_pending=who == "operator"):
            code = "refund_open"
        hold_id = self.market.hold_of(order.id)["id"]
        done = not self.refused(
            lambda: self.market.confirm(order.id) if who == "buyer" else self.market.release(hold_id), code
        )
        if done and hold.unreleased:
            hold.buyer_objects = False
            order.follow(self.now)
            self.release(order, hold, "buyer" if who == "buyer" else "test")

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
        has = self.available(source)
        return "balance_short" if amount > has else None

    @rule(data=st.data(), source=st.sampled_from(["beneficiary", "beneficiary", "merchant"]),
          more=st.sampled_from([1, 0, -1, -1_500]), of_hold=st.booleans())  # fmt: skip
    def asks_for_a_payout(self, data: st.DataObject, source: str, more: int, of_hold: bool) -> None:
        """Above, exactly, or below what there is; of the balance or of a hold."""
        fit = [one for one in self.held if one.hold and one.hold.released]
        order = data.draw(st.sampled_from([*self.held, *fit, *fit])) if of_hold and self.held else None
        self.asks(order, source, more)

    def asks(self, order: Order | None, source: str, more: int) -> None:
        """For so much more than there is; of an order's hold, or of the balance."""
        hold = order.hold if order else None
        amount = (hold.released if hold and hold.released else self.available(source)) + more
        if amount <= 0:
            return
        hold_id = self.market.hold_of(order.id)["id"] if order else None
        made: list[str] = []

        def ask() -> None:
            made.append(self.market.pay_out(amount, source=source, hold_id=hold_id))

        if not self.refused(ask, self.objection(amount, source, hold)):
            self.keep(made[0], Payout("", "", amount, source, self.payees[-1], "test", hold))

    @precondition(lambda self: self.books.payouts)
    @rule(data=st.data(), what=st.sampled_from(["approve", "cancel", "decide", "retry"]),
          another=st.sampled_from([True, True, False]))  # fmt: skip
    def a_person_decides(self, data: st.DataObject, what: str, another: bool) -> None:
        """Approves, calls off, decides about what nobody knows, or tries again."""
        one, market = self.payout(data, FITS[what]), self.market
        steps, by = market.payouts, market.by_another() if another else market.by
        there = self.far.found(one.reference) is not None  # what comes to be seen later proves that person wrong
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
                    if one.state != "canceled" and one.first_sent_ms:
                        one.looked_after = True
                        reached["canceled after sending"] += 1
                    one.state = "canceled"
            elif what == "decide":
                outcome = "paid" if there else "failed"
                code = None if one.state == "unknown" else "not_unknown"
                if not self.refused(lambda: steps.decide(tx, one.id, outcome, "seen there", by), code):
                    one.state, one.looked_after = outcome, True
                    reached[f"decided {outcome}"] += 1
            else:
                code = "not_failed" if one.state not in BACK else "retried_already" if one.retried else None
                code = code or self.objection(one.amount, one.source, one.hold)
                if not self.refused(lambda: made.append(steps.retry(tx, one.id, by)["id"]), code):
                    one.retried = True
                    reached["retried"] += 1
        one.ended()
        if made:
            self.keep(made[0], Payout("", "", one.amount, one.source, self.payees[-1], by.actor, one.hold, one))

    # --- what always holds

    @invariant()
    def everything_is_as_it_should_be(self) -> None:
        """See the head of this file."""
        if not hasattr(self, "market"):
            return
        self.steps += 1
        with self.market.tx() as tx:
            if self.steps % AFRESH == 0:
                assert problems(tx, self.settlements) == []
            held = {row["order_id"]: dict(row) for row in tx.execute(select(holds)).mappings()}
            paid = {row["id"]: dict(row) for row in tx.execute(select(payouts)).mappings()}
            open_ = tx.execute(select(attention).where(attention.c.closed_at_ms.is_(None))).mappings()
            seen = {(row["subject"], row["reason"]) for row in open_}
            m = outbox_tables.messages.c
            looks = Counter(tx.execute(select(m.subject).where(m.id.contains(":later:"))).scalars())
        assert self.market.balances() == self.books.balances()
        assert set(held) == {order.id for order in self.held} and set(paid) == {one.id for one in self.books.payouts}
        for order in self.held:
            assert order.hold is not None
            a_hold_is_right(order.hold, held[order.id], seen)
        for one in self.books.payouts:
            a_payout_is_right(one, paid[one.id], seen, looks[one.id])
            assert self.far.paid(one.reference) <= 1, f"paid twice: {self.far.book[one.reference]}"


FITS: dict[str, Collection[str]] = {
    "approve": ("awaiting_approval",),
    "cancel": ("awaiting_approval", "queued"),
    "decide": ("unknown",),
    "retry": BACK,
}
"""What a person has something to decide about."""
RARE, OFTEN = 3, 10
PHASES: dict[str, int] = {
    **dict.fromkeys(("released", "unfrozen", "asked for", "retried", "lost", "hint", "settled", "reversed"), OFTEN),
    **dict.fromkeys(("dispute opened", "dispute won", "dispute lost", "fee of a capture", "fee of a payout"), OFTEN),
    **dict.fromkeys((f"hold {state}" for state in ("held", "release_scheduled", "frozen", "released")), OFTEN),
    **dict.fromkeys(("hold refunded", "hold owed back", "hold came back", "refund elsewhere succeeded"), OFTEN),
    **dict.fromkeys((f"payout {state}" for state in (*OPEN[1:], *BACK, "paid")), OFTEN),
    **dict.fromkeys(("send: in_transit", "send: paid", "send: otp", "send: failed"), OFTEN),
    **dict.fromkeys(("ask: paid", "ask: failed", "ask: returned", "found after all", "paid after all"), OFTEN),
    **dict.fromkeys(("not known, asked again", "not known, sent again", "decided failed"), OFTEN),
    **dict.fromkeys(("our refund succeeded", "our refund failed", "our refund unknown"), OFTEN),
    **dict.fromkeys(("our refund succeeded, then failed", "our refund unknown, then succeeded"), RARE),
    **dict.fromkeys(("canceled after sending", "refused as a second one", "decided paid"), RARE),
}
"""What has to be reached in the long run, and how often; a state counts once for each step and row that is in it."""
ALWAYS = (
    *("released", "asked for", "lost", "hint", "hold frozen", "hold came back", "refused: hold_paid_out"),
    *(f"payout {state}" for state in ("submitting", "unknown", "in_transit", "paid", "failed", "returned")),
    *("ask: returned", "our refund succeeded", "our refund succeeded, then failed"),
)
"""What the ordinary run, which draws the same each time, reaches too."""


def test_money_that_is_held_and_paid_out_is_what_the_model_says() -> None:
    """No order of sales, claims, refunds, lost answers and people loses money, or pays it twice; all was reached."""
    reached.clear()
    with quietly():
        run_state_machine_as_test(
            Escrow,
            settings=settings(
                max_examples=1_000 if LONG else 60,
                stateful_step_count=24 if LONG else 13,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
            ),
        )
    wanted = PHASES if LONG else dict.fromkeys(ALWAYS, 1)
    missed = {phase: reached[phase] for phase, least in wanted.items() if reached[phase] < least}
    assert not missed, f"not reached often enough: {missed} of {dict(reached)}"
