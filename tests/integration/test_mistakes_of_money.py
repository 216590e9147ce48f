"""
What earlier systems got wrong with money that is held and paid out (R5, R6, R7, R14, R15): each stays a test.

R14 and R15 are also tested where orders and sessions are: `test_orders.py`, `test_sessions.py`, `test_orders_ends.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import func, select, update

from outbox.message import Message
from service.errors import Refusal
from service.escrow.payouts import ASK_ONLY
from service.escrow.tables import holds, payouts
from service.orders.expire import MAX_HOLD_MS
from service.orders.orders import EXPIRES_MS, Line
from service.payments.facts import Kind
from service.payments.tables import attention
from service.schema import outbox_tables
from tests.property.test_book_machine import ACCOUNT
from tests.property.test_orders_machine import captured
from tests.support.escrow_check import problems
from tests.support.escrow_far import Abroad, Died, at_once

HOUR_MS, MINUTE_MS = 3_600_000, 60_000


@pytest.fixture
def market() -> Iterator[Abroad]:
    """Payouts go out by themselves, to a provider that takes no keys: what is sent twice is paid twice."""
    made = Abroad("asked")
    yield made
    with made.tx() as tx:
        assert problems(tx) == []
    made.close()


def worked_on(market: Abroad, payout_id: str, mood: str = "", payload: str = "") -> str:
    """One message about a payout; the state that it leaves."""
    market.far.mood = mood
    message = Message(payout_id, "payout", ACCOUNT.id, payout_id, payload, 1, 1, 0, 0, 0)
    try:
        at_once(market.payer.act(message, None))
    except Died:
        pass
    return str(market.payout(payout_id)["state"])


def the_payout(market: Abroad) -> str:
    """The only one there is."""
    with market.tx() as tx:
        return str(tx.execute(select(payouts.c.id)).scalar_one())


def test_r5_a_late_success_makes_no_second_hold_and_is_not_paid_out(market: Abroad) -> None:
    """R5: an attempt was declared dead, the next one paid; then the first succeeds after all, before or after."""
    order_id = market.order(Line(1, description="Couture", unit_minor=5_000), beneficiary_id=market.seller)
    first = market.pay(order_id)
    market.said(first, Kind.FAILED, "declared dead")
    second = market.pay(order_id)
    market.captured(second)
    hold_id = market.hold_of(order_id)["id"]
    market.captured(first)
    market.tell((first, captured(first)), (second, captured(second)))
    with market.tx() as tx:
        assert tx.execute(select(func.count()).select_from(holds)).scalar_one() == 1
        open_ = tx.execute(select(attention.c.reason).where(attention.c.subject == order_id)).scalars().all()
    assert market.hold_of(order_id)["id"] == hold_id and "duplicate" in open_
    assert market.told().count("order.paid") == 1
    market.deliver(order_id)
    market.clock.advance(48 * HOUR_MS)
    assert market.release_due()["released"] == 1 and market.release_due()["released"] == 0
    market.captured(first)
    paid = the_payout(market)
    assert worked_on(market, paid, "paid") == "paid" and market.payout(paid)["amount_minor"] == 5_000
    assert market.balances() == {"float": 5_000, "merchant": 5_000}, "what came twice is the merchant's to give back"


@pytest.mark.parametrize("mood", ["lost_after", "dies_after", "lost_before", "dies_before", "lost_slowly"])
def test_r6_a_transfer_whose_answer_was_lost_keeps_its_reference(market: Abroad, mood: str) -> None:
    """R6: paid once under one reference, whether it had arrived or not; nobody tries it again meanwhile."""
    order_id, _ = market.sold()
    market.release(market.hold_of(order_id)["id"])
    paid = the_payout(market)
    reference = market.payout(paid)["reference"]
    assert worked_on(market, paid, mood) in ("unknown", "submitting")
    with market.tx() as tx, pytest.raises(Refusal, match="nothing to try again"):
        market.payouts.retry(tx, paid, market.by)
    for _ in range(6):
        worked_on(market, paid, "paid")
        for sent in market.far.book.get(reference, []):
            sent.moves("paid")
        market.clock.advance(5 * MINUTE_MS)
    assert market.payout(paid)["state"] == "paid"
    assert list(market.far.book) == [reference] and market.far.paid(reference) == 1
    assert market.balances() == {}


def test_r6_a_payout_that_was_tried_again_before_waits_its_grace_all_the_same(market: Abroad) -> None:
    """R6: nothing was sent at first; a day later it is sent and lost: the grace begins then, not the day before."""
    order_id, _ = market.sold()
    market.release(market.hold_of(order_id)["id"])
    paid = the_payout(market)
    assert worked_on(market, paid, "not_sent") == "queued"
    market.clock.advance(24 * HOUR_MS)
    assert worked_on(market, paid, "lost_slowly") == "unknown"
    market.clock.advance(MINUTE_MS)
    assert worked_on(market, paid) == "unknown", "the provider may not have written it down yet"
    market.clock.advance(10 * MINUTE_MS)
    assert worked_on(market, paid) == "in_transit"


def test_r6_trying_again_is_another_payout_linked_to_the_first(market: Abroad) -> None:
    """R6: only after a definite no, with a reference of its own, and once."""
    order_id, _ = market.sold()
    market.release(market.hold_of(order_id)["id"])
    first = the_payout(market)
    assert worked_on(market, first, "refused") == "failed"
    with market.tx() as tx:
        again = market.payouts.retry(tx, first, market.by)
    assert again["retry_of"] == first and again["reference"] != market.payout(first)["reference"]
    with market.tx() as tx, pytest.raises(Refusal, match="tried again"):
        market.payouts.retry(tx, first, market.by)
    assert worked_on(market, again["id"], "paid") == "paid"
    assert worked_on(market, first, "paid") == "failed" and len(market.far.book) == 1


def test_r7_the_timer_starts_at_the_delivery_and_is_right_to_the_minute(market: Abroad) -> None:
    """R7: paid long ago is nothing; a look each minute releases it in the minute in which it is due."""
    order_id, _ = market.sold()
    market.clock.advance(100 * HOUR_MS)
    market.deliver(order_id)
    delivered_at_ms = market.clock()
    market.clock.advance(30_000 + 48 * HOUR_MS - 3 * MINUTE_MS)
    looks = []
    while not (looks and looks[-1][1]):
        market.clock.advance(MINUTE_MS)
        looks.append((market.clock() - delivered_at_ms, market.release_due()["released"]))
    assert looks == [
        (48 * HOUR_MS - 90_000, 0),
        (48 * HOUR_MS - 30_000, 0),
        (48 * HOUR_MS + 30_000, 1),
    ]


def test_r14_r15_a_payment_that_is_processing_holds_its_order_and_its_stock(market: Abroad) -> None:
    """R14, R15: `processing` is not safe to cancel: no end while it may be paid; then it is paid and held."""
    product = market.product(1)
    order_id = market.order(Line(1, product), beneficiary_id=market.seller)
    payment_id = market.pay(order_id)
    market.said(payment_id, Kind.PENDING, "processing")
    market.clock.advance(EXPIRES_MS)
    for _ in range(3):
        market.expire(order_id)
        assert (market.seen(order_id)["state"], market.stock(product)) == ("expiring", 0)
        market.clock.advance(MAX_HOLD_MS // 4)
    assert "order.expired" not in market.told()
    market.captured(payment_id)
    assert (market.seen(order_id)["state"], market.hold_of(order_id)["state"]) == ("paid", "held")


def test_a_refund_that_the_bank_rejects_leaves_no_money_in_a_hold_that_is_over(market: Abroad) -> None:
    """All went back, the hold is over; then the bank rejects it: the money is held again, and can be released."""
    order_id, payment_id = market.sold()
    market.said(payment_id, Kind.REFUND_SUCCEEDED, "re_1", 5_000)
    assert market.hold_of(order_id)["state"] == "refunded"
    market.said(payment_id, Kind.REFUND_FAILED, "re_1", 5_000)
    hold = market.hold_of(order_id)
    assert (hold["state"], hold["refunded_minor"]) == ("held", 0)
    market.release(hold["id"])
    assert market.balances() == {"float": 5_000, "reserved": 5_000}


def test_a_refund_that_the_bank_rejects_while_a_dispute_is_open_is_before_a_person_again(market: Abroad) -> None:
    """Frozen, then all given back, then rejected: it is frozen again, and the item that was closed is open again."""
    order_id, payment_id = market.sold()
    market.said(payment_id, Kind.DISPUTE_OPENED, "dp_1", 5_000)
    refund_id, market.far.mood = market.refund(payment_id), "succeeded"
    at_once(market.refunder.act(Message(refund_id, "refund", ACCOUNT.id, refund_id, "", 1, 1, 0, 0, 0), None))
    assert market.hold_of(order_id)["state"] == "refunded"
    market.said(payment_id, Kind.REFUND_FAILED, f"re_{refund_id}", 5_000)
    hold = market.hold_of(order_id)
    with market.tx() as tx:
        open_ = attention.c.subject == hold["id"], attention.c.closed_at_ms.is_(None)
        seen = set(tx.execute(select(attention.c.reason).where(*open_)).scalars())
    assert (hold["state"], hold["frozen_minor"], seen) == ("frozen", 5_000, {"hold_frozen"})


@pytest.mark.parametrize("kind", [Kind.DISPUTE_OPENED, Kind.REFUND_SUCCEEDED])
def test_what_a_person_has_set_aside_is_that_and_nothing_that_comes_after_it(market: Abroad, kind: Kind) -> None:
    """A second dispute, or a second refund that is not ours, freezes a hold that was freed from the first."""
    order_id, payment_id = market.sold()
    market.deliver(order_id)
    market.said(payment_id, kind, "dp_1", 500)
    hold_id = market.hold_of(order_id)["id"]
    with market.tx() as tx:
        market.holds.unfreeze(tx, hold_id, "the bank was wrong", market.by)
    assert market.hold_of(order_id)["state"] == "release_scheduled"
    market.said(payment_id, kind, "dp_2", 700)
    assert market.hold_of(order_id)["state"] == "frozen"


def test_r6_somebody_hints_at_a_payout_that_the_provider_does_not_know(market: Abroad) -> None:
    """R6: the hint concludes nothing: its own message asks once more, and does so now, not when its day has gone by."""
    order_id, _ = market.sold()
    market.release(market.hold_of(order_id)["id"])
    paid = the_payout(market)
    assert worked_on(market, paid, "lost_before") == "unknown"
    m, day_ms = outbox_tables.messages, 24 * HOUR_MS
    own = m.c.subject == paid, m.c.payload == ""
    with market.tx() as tx:
        tx.execute(update(m).where(*own).values(due_at_ms=market.clock() + day_ms, tries=1, claim=1, settled_claim=1))
    market.clock.advance(11 * MINUTE_MS)
    assert worked_on(market, paid, payload=ASK_ONLY) == "unknown"
    with market.tx() as tx:
        assert tx.execute(select(m.c.due_at_ms).where(*own)).scalar_one() == market.clock()
    assert worked_on(market, paid) == "queued" and worked_on(market, paid, "paid") == "paid"
    assert list(market.far.book) == [market.payout(paid)["reference"]]


def test_a_payout_called_off_after_it_was_sent_is_asked_about_for_a_week(market: Abroad) -> None:
    """The provider knew nothing of it, so a person called it off; it was paid all the same: on days 1, 3, 7 we ask."""
    order_id, _ = market.sold()
    market.release(market.hold_of(order_id)["id"])
    paid = the_payout(market)
    assert worked_on(market, paid, "lost_too_slowly") == "unknown"
    market.clock.advance(11 * MINUTE_MS)
    assert worked_on(market, paid) == "queued"
    with market.tx() as tx:
        market.payouts.cancel(tx, paid, "the provider does not know it", market.by)
        due = select(outbox_tables.messages.c.due_at_ms).where(outbox_tables.messages.c.payload == ASK_ONLY)
        days = {(at_ms - market.clock()) // (24 * HOUR_MS) for at_ms in tx.execute(due).scalars()}
    assert days == {1, 3, 7} and market.balances() == {"float": 5_000, "beneficiary": 5_000}
    market.far.book[market.payout(paid)["reference"]][0].moves("paid")
    market.clock.advance(24 * HOUR_MS)
    assert worked_on(market, paid, payload=ASK_ONLY) == "paid" and market.balances() == {}
    with market.tx() as tx:
        seen = tx.execute(select(attention.c.reason).where(attention.c.subject == paid)).scalars().all()
    assert "payout_paid_after_all" in seen
