"""Money held for a seller: what a sale, a delivery, an objection and a refund do to the hold and to the ledger."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.errors import Refusal
from service.payments.facts import Kind
from tests.support.escrow import Market

HOUR_MS = 3_600_000


@pytest.fixture
def market() -> Iterator[Market]:
    """A market that does not pay out by itself."""
    made = Market(payout_on_release=False)
    yield made
    made.close()


def test_a_paid_order_is_held_delivered_and_released_by_the_clock(market: Market) -> None:
    """Held when it is paid, scheduled when delivered, released 48 hours later and not a moment before."""
    order_id, _ = market.sold()
    assert market.hold_of(order_id)["state"] == "held"
    assert market.balances() == {"float": 5_000, "escrow": 5_000}
    market.clock.advance(100 * HOUR_MS)
    assert market.release_due() == {"released": 0, "left": 0}, "nothing is released before it was delivered"
    market.deliver(order_id)
    market.clock.advance(48 * HOUR_MS - 1)
    assert market.release_due() == {"released": 0, "left": 0}
    market.clock.advance(1)
    assert market.release_due() == {"released": 1, "left": 0}
    hold = market.hold_of(order_id)
    assert (hold["state"], hold["released_minor"], hold["held_minor"]) == ("released", 5_000, 5_000)
    assert market.balances() == {"float": 5_000, "beneficiary": 5_000}


def test_a_dispute_freezes_and_its_end_frees(market: Market) -> None:
    """While a bank claims the money back nothing releases it; won, it goes on where it was; lost, it is gone."""
    order_id, payment_id = market.sold()
    market.deliver(order_id)
    market.said(payment_id, Kind.DISPUTE_OPENED, "dp_1", 5_000)
    hold = market.hold_of(order_id)
    assert (hold["state"], hold["frozen_minor"], hold["against"]) == ("frozen", 5_000, "dispute")
    market.clock.advance(49 * HOUR_MS)
    assert market.release_due() == {"released": 0, "left": 0}
    with pytest.raises(Refusal, match="frozen"):
        market.release(hold["id"])
    market.said(payment_id, Kind.DISPUTE_WON, "dp_1", 5_000)
    assert market.hold_of(order_id)["state"] == "release_scheduled"
    market.said(payment_id, Kind.DISPUTE_LOST, "dp_1", 5_000)
    hold = market.hold_of(order_id)
    assert (hold["state"], hold["refunded_minor"]) == ("refunded", 5_000)
    assert market.balances() == {}


def test_money_taken_back_after_the_release_is_owed_by_the_beneficiary(market: Market) -> None:
    """A refund after the release leaves the hold released and the balance below zero once it was paid out."""
    order_id, payment_id = market.sold()
    market.release(market.hold_of(order_id)["id"])
    market.said(payment_id, Kind.REFUND_SUCCEEDED, "re_1", 2_000)
    hold = market.hold_of(order_id)
    assert (hold["state"], hold["taken_back_minor"]) == ("released", 2_000)
    assert market.balances() == {"float": 3_000, "beneficiary": 3_000}


def test_a_refund_that_fails_after_all_is_held_again(market: Market) -> None:
    """What went back and came again is not lost in escrow: it is held, and released like before."""
    order_id, payment_id = market.sold()
    market.said(payment_id, Kind.REFUND_SUCCEEDED, "re_1", 5_000)
    assert market.hold_of(order_id)["state"] == "refunded"
    assert market.balances() == {}
    market.said(payment_id, Kind.REFUND_FAILED, "re_1", 5_000)
    assert market.hold_of(order_id)["state"] == "held"
    assert market.balances() == {"float": 5_000, "escrow": 5_000}
    market.release(market.hold_of(order_id)["id"])
    assert market.balances() == {"float": 5_000, "beneficiary": 5_000}


def test_late_money_is_nobodys_until_a_person_says_so(market: Market) -> None:
    """What comes for an order that is over stands aside."""
    order_id = market.order()
    payment_id = market.pay(order_id)
    market.cancel(order_id)
    market.said(payment_id, Kind.CANCELED, "x")
    market.captured(payment_id)
    assert market.seen(order_id)["state"] == "canceled"
    assert market.balances() == {"float": 5_000, "unallocated": 5_000}


def test_two_requests_over_one_balance_cannot_both_be_met(market: Market) -> None:
    """What is asked for is reserved at once."""
    order_id, _ = market.sold()
    market.release(market.hold_of(order_id)["id"])
    first = market.pay_out(4_000)
    assert market.payout(first)["state"] == "queued"
    with pytest.raises(Refusal, match="1000 XOF can be paid out"):
        market.pay_out(1_001)
    assert market.balances() == {"float": 5_000, "beneficiary": 1_000, "reserved": 4_000}
