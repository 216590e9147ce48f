"""What somebody tried in order to be paid what is not theirs, or twice; each once worked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import select

from outbox.message import Message
from service.errors import Refusal
from service.escrow import beneficiaries as steps
from service.escrow.beneficiaries import To
from service.escrow.tables import payouts
from service.payments.facts import Fact, Kind, Source
from tests.integration.test_mistakes_of_money import the_payout, worked_on
from tests.property.test_book_machine import ACCOUNT
from tests.property.test_orders_machine import MINE
from tests.support.escrow import SELLER, Market
from tests.support.escrow_far import Abroad, at_once

HOUR_MS = 3_600_000


def asked_about(market: Abroad, payout_id: str) -> str:
    """Somebody says that it has moved; the state that the provider's answer leaves."""
    at_once(market.payer.act(Message("a hint", "payout", ACCOUNT.id, payout_id, "ask", 1, 1, 0, 0, 0), None))
    return str(market.payout(payout_id)["state"])


@pytest.fixture
def market() -> Iterator[Market]:
    """A market that does not pay out by itself."""
    made = Market(payout_on_release=False)
    yield made
    made.close()


def test_a_refund_elsewhere_is_seen_once_ours_came_to_nothing(market: Market) -> None:
    """While one of ours is under way nobody knows whose refund it was; once ours is given up, it is somebody else's."""
    order_id, payment_id = market.sold()
    market.deliver(order_id)
    refund_id = market.refund(payment_id, 2_000)
    market.said(payment_id, Kind.REFUND_SUCCEEDED, "re_ext", 1_500)
    with market.tx() as tx:
        market.refunds.give_up(tx, refund_id, "not there", market.by)
    assert market.hold_of(order_id)["against"] == "refunded_elsewhere"
    market.clock.advance(49 * HOUR_MS)
    assert market.release_due() == {"released": 0, "left": 0}


def test_what_was_set_aside_was_that_sum(market: Market) -> None:
    """More wrong money in the same payment is another matter than the wrong money that a person has accepted."""
    order_id, payment_id = market.sold()

    def more(movement: str, minor: int, currency: str) -> None:
        fact = Fact(Kind.CAPTURED, movement, market.clock(), minor, None, currency, source=Source.CALLBACK)
        market.tell((payment_id, fact))

    more("ch_2", 100, "XOF")
    hold_id = market.hold_of(order_id)["id"]
    assert market.hold_of(order_id)["state"] == "frozen"
    with market.tx() as tx:
        market.holds.unfreeze(tx, hold_id, "a tip", market.by)
    assert market.hold_of(order_id)["state"] == "held"
    more("ch_3", 9_000, "EUR")
    assert market.hold_of(order_id)["state"] == "frozen"


def test_a_refund_that_is_pending_for_ever_ends_nobodys_hold(market: Market) -> None:
    """The clock waits for it; a person with a name and a reason need not."""
    order_id, payment_id = market.sold()
    market.deliver(order_id)
    market.said(payment_id, Kind.REFUND_PENDING, "re_x", 1_000)
    market.clock.advance(400 * 24 * HOUR_MS)
    assert market.release_due() == {"released": 0, "left": 1}
    market.release(market.hold_of(order_id)["id"])
    assert market.hold_of(order_id)["state"] == "released"
    market.said(payment_id, Kind.REFUND_SUCCEEDED, "re_x", 1_000)
    assert market.hold_of(order_id)["taken_back_minor"] == 1_000


def test_whoever_releases_does_not_approve_the_payout_that_follows() -> None:
    """One hand does not move money alone."""
    market = Market(approve_above={})
    try:
        order_id, _ = market.sold()
        market.release(market.hold_of(order_id)["id"])
        with market.tx() as tx:
            row = tx.execute(select(payouts)).mappings().one()
            assert (row["state"], row["actor"]) == ("awaiting_approval", market.by.actor)
            with pytest.raises(Refusal) as refused:
                market.payouts.approve(tx, row["id"], "fine", market.by)
        assert refused.value.code == "second_person"
    finally:
        market.close()


def test_a_payee_changes_ten_times_a_day_and_no_more(market: Market) -> None:
    """Each change is a row for ever."""
    with market.tx() as tx:
        for number in range(9):
            steps.pay_to(tx, MINE, market.seller, To("account", f"acct_1Other{number}", "Moussa"), market.by)
        with pytest.raises(Refusal, match="10 times"):
            steps.pay_to(tx, MINE, market.seller, To("account", "acct_1OneMore", "Moussa"), market.by)


def test_a_payout_never_goes_to_a_payee_that_is_past() -> None:
    """Who changed a seller's number, and was found out, is not paid when the day is over: the newest one is."""
    market = Abroad("keyed")
    try:
        order_id, _ = market.sold()
        with market.tx() as tx:
            steps.pay_to(tx, MINE, market.seller, To("account", "acct_1Thief", "Thief"), market.by)
        market.release(market.hold_of(order_id)["id"])
        market.clock.advance(HOUR_MS)
        with market.tx() as tx:
            right = steps.pay_to(tx, MINE, market.seller, SELLER, market.by)["id"]
        paid = the_payout(market)
        market.clock.advance(24 * HOUR_MS - 1)
        assert worked_on(market, paid, "paid") == "queued"
        market.clock.advance(2)
        assert worked_on(market, paid, "paid") == "paid"
        assert market.payout(paid)["payee_id"] == right
    finally:
        market.close()


def test_what_was_taken_back_is_not_paid_out_all_the_same() -> None:
    """The bank has taken the money of a payout that waits for approval: it waits for a person, approved or not."""
    market = Abroad("keyed", approve_above={})
    try:
        order_id, payment_id = market.sold()
        market.release(market.hold_of(order_id)["id"])
        paid = the_payout(market)
        market.said(payment_id, Kind.DISPUTE_LOST, "dp_1", 5_000)
        with market.tx() as tx:
            market.payouts.approve(tx, paid, "fine", market.by_another())
        assert worked_on(market, paid, "paid") == "queued"
        row = market.payout(paid)
        assert (row["waits_for"], row["sent_at_ms"]) == ("balance", None)
    finally:
        market.close()


def test_a_retry_is_called_off_when_the_first_was_paid_after_all() -> None:
    """A person called it failed; the provider says later that it was paid. One hold is not paid out twice."""
    market = Abroad("keyed")
    try:
        order_id, _ = market.sold()
        market.release(market.hold_of(order_id)["id"])
        first = the_payout(market)
        assert worked_on(market, first, "lost_after") == "unknown"
        with market.tx() as tx:
            market.payouts.decide(tx, first, "failed", "not in their list", market.by)
            second = market.payouts.retry(tx, first, market.by)["id"]
        for sent in market.far.book[market.payout(first)["reference"]]:
            sent.moves("paid")
        market.clock.advance(25 * HOUR_MS)
        assert asked_about(market, first) == "paid"
        assert worked_on(market, second, "paid") == "canceled"
        assert market.balances() == {}
    finally:
        market.close()
