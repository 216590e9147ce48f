"""Payouts as people ask for them: what there is, who lets it go, one for each hold, and what a refusal leaves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from service.errors import Refusal
from service.escrow import beneficiaries as steps
from service.escrow.beneficiaries import To
from service.escrow.payout_rows import move
from service.escrow.states import PayoutStep
from service.merchants.audit import By
from service.payments.facts import Kind
from service.payments.heard import Context
from service.payments.tables import attention
from service.providers import PAYOUTS
from service.providers.payouts import PayoutChannel
from tests.property.test_orders_machine import MINE
from tests.support.escrow import Market


@pytest.fixture
def market() -> Iterator[Market]:
    """A market that does not pay out by itself, and where 1,000 F need nobody."""
    made = Market(payout_on_release=False, approve_above={"XOF": 1_000})
    yield made
    made.close()


def released(market: Market, price_minor: int = 5_000) -> str:
    """A hold whose money is the seller's."""
    order_id, _ = market.sold(price_minor)
    hold_id: str = market.hold_of(order_id)["id"]
    market.release(hold_id)
    return hold_id


def second(market: Market) -> By:
    """Another hand."""
    return By("somebody else", market.clock(), market.ids)


def refused(market: Market, code: str, amount_minor: Any = 100, **more: Any) -> None:
    """It is, with this word, and nothing has moved."""
    before = market.balances()
    with pytest.raises(Refusal) as found:
        market.pay_out(amount_minor, **more)
    assert found.value.code == code, found.value.sentence
    assert market.balances() == before


def to_unknown(market: Market, payout_id: str) -> None:
    """It was sent, and the answer was lost."""
    for step in (PayoutStep.SENDING, PayoutStep.LOST):
        row = market.payout(payout_id)
        with market.tx() as tx:
            move(tx, row, step, Context(market.queue, market.ids, market.clock()))


def reasons(market: Market) -> set[str]:
    """Why a person is asked."""
    with market.tx() as tx:
        return {row.reason for row in tx.execute(attention.select()) if row.closed_at_ms is None}


def test_what_needs_nobody_goes_and_one_more_waits_for_a_second_person(market: Market) -> None:
    """The amount of the terms itself is free; above it, and in a currency without one, a person is asked."""
    released(market)
    assert market.payout(market.pay_out(1_000))["state"] == "queued"
    waits = market.pay_out(1_001)
    assert market.payout(waits)["state"] == "awaiting_approval" and "payout_approval" in reasons(market)
    with market.tx() as tx:
        with pytest.raises(Refusal) as own:
            market.payouts.approve(tx, waits, "mine", market.by)
        assert own.value.code == "second_person"
        approved = market.payouts.approve(tx, waits, "checked", second(market))
        assert (approved["state"], approved["approved_by"]) == ("queued", "somebody else")
        with pytest.raises(Refusal, match="does not wait"):
            market.payouts.approve(tx, waits, "again", second(market))
    assert "payout_approval" not in reasons(market)
    assert market.balances() == {"float": 5_000, "beneficiary": 2_999, "reserved": 2_001}


@pytest.mark.parametrize("amount_minor", [0, -1, 2**63, 2**53, 1.0, "5", True, None])
def test_an_amount_that_is_none_is_refused(market: Market, amount_minor: Any) -> None:
    """Also past the API's own reading: what a command or a program hands in."""
    released(market)
    refused(market, "bad_amount", amount_minor)


@pytest.mark.parametrize(
    ("amount_minor", "code", "limit"),
    [
        (100, "below_minimum", "at least 200 XOF"),
        (1_005, "above_maximum", "at most 1000 XOF"),
        (203, "not_a_step", "a multiple of 5 XOF"),
    ],
)
def test_a_provider_s_limit_is_said_as_money(amount_minor: int, code: str, limit: str) -> None:
    """Which limit it is, and of what currency: who reads it knows what to ask for."""
    channel = PayoutChannel("account", "XOF", min_minor=200, max_minor=1_000, step_minor=5)
    narrow = Market({"stripe": replace(PAYOUTS["stripe"], channels=(channel,))}, payout_on_release=False)
    released(narrow)
    with pytest.raises(Refusal) as found:
        narrow.pay_out(amount_minor)
    assert (found.value.code, found.value.sentence) == (code, f"amount: the provider pays out {limit}.")
    assert narrow.payout(narrow.pay_out(205))["state"] == "queued"
    narrow.close()


def test_each_refusal_names_itself_and_moves_nothing(market: Market) -> None:
    """More than there is, what cannot be sent anywhere, what is not released, who is not paid."""
    hold_id = released(market)
    held = market.hold_of(market.sold()[0])["id"]
    refused(market, "balance_short", 5_001)
    refused(market, "balance_short", 1, source="merchant")
    refused(market, "bad_source", source="bank")
    refused(market, "hold_not_released", hold_id=held)
    refused(market, "hold_not_released", hold_id=hold_id, source="merchant")
    refused(market, "not_found", hold_id="hold_none")
    refused(market, "bad_amount", 5_001, hold_id=hold_id)
    refused(market, "no_way", account_id="acc_none")
    refused(market, "bad_description", description="x" * 501)
    with market.tx() as tx:
        steps.change(tx, MINE, market.seller, market.by, active=False)
    refused(market, "beneficiary_disabled")
    with market.tx() as tx:
        market.seller = steps.create(tx, MINE, "XOF", To("mobile_money", "+22997808080", "Awa", "BJ", "mtn"), market.by)
    refused(market, "no_way")


def test_one_hold_is_paid_out_once(market: Market) -> None:
    """Of what it released and kept; again only after the first has given its money back, and tried again once."""
    released(market)  # more is in the balance than this hold brought
    order_id, payment_id = market.sold()
    hold_id = market.hold_of(order_id)["id"]
    market.release(hold_id)
    market.said(payment_id, Kind.REFUND_SUCCEEDED, "re_1", 4_500)
    refused(market, "bad_amount", 501, hold_id=hold_id)
    first = market.pay_out(500, hold_id=hold_id)
    refused(market, "hold_paid_out", 1, hold_id=hold_id)
    with market.tx() as tx:
        market.payouts.cancel(tx, first, "", market.by)
        assert market.payouts.cancel(tx, first, "", market.by)["version"] == market.payouts.cancel(
            tx, first, "", market.by
        )["version"]  # fmt: skip
        again = market.payouts.retry(tx, first, market.by)
        assert (again["retry_of"], again["hold_id"], again["reference"]) != (first, hold_id, None)
        with pytest.raises(Refusal, match=again["id"]):
            market.payouts.retry(tx, first, market.by)
        with pytest.raises(Refusal, match="nothing to try again"):
            market.payouts.retry(tx, again["id"], market.by)
    assert again["reference"] != market.payout(first)["reference"]


@pytest.mark.parametrize(("outcome", "state"), [("paid", "paid"), ("failed", "failed")])
def test_only_what_nobody_knows_is_decided_by_a_person(market: Market, outcome: str, state: str) -> None:
    """With a reason, once; paid it is gone, failed it is in the balance again; and it cannot be called off."""
    released(market)
    payout_id = market.pay_out(1_000)
    with market.tx() as tx:
        with pytest.raises(Refusal, match="nobody has to decide"):
            market.payouts.decide(tx, payout_id, outcome, "seen", market.by)
    to_unknown(market, payout_id)
    with market.tx() as tx:
        for word, reason, code in ((outcome, " ", "no_reason"), ("lost", "seen", "bad_outcome")):
            with pytest.raises(Refusal) as found:
                market.payouts.decide(tx, payout_id, word, reason, market.by)
            assert found.value.code == code
        with pytest.raises(Refusal, match="may be paid already"):
            market.payouts.cancel(tx, payout_id, "", market.by)
        assert market.payouts.decide(tx, payout_id, outcome, "seen there", market.by)["state"] == state
        with pytest.raises(Refusal, match="nobody has to decide"):
            market.payouts.decide(tx, payout_id, outcome, "again", market.by)
    gone = 1_000 if outcome == "paid" else 0
    assert market.balances() == {"float": 5_000 - gone, "beneficiary": 5_000 - gone}


def test_what_is_released_goes_by_itself_where_it_can() -> None:
    """Queued behind a payee that waits; before a person, released all the same, where it can go nowhere."""
    market = Market()
    try:
        with market.tx() as tx:
            steps.pay_to(tx, MINE, market.seller, To("account", "acct_1Other"), market.by)
        released(market)
        assert market.balances() == {"float": 5_000, "reserved": 5_000}
        order_id, _ = market.sold(700)
        with market.tx() as tx:
            steps.change(tx, MINE, market.seller, market.by, active=False)
        market.release(market.hold_of(order_id)["id"])
        assert market.hold_of(order_id)["state"] == "released"
        assert market.balances() == {"float": 5_700, "reserved": 5_000, "beneficiary": 700}
        assert "payout_not_possible" in reasons(market)
    finally:
        market.close()
