"""Balances: days and months of a time zone, and the figures of a beneficiary and a merchant against a story by hand."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import insert

from service.errors import NotFound, Refusal
from service.escrow.payout_rows import move
from service.escrow.payouts import available
from service.escrow.states import PayoutStep
from service.ledger import balances
from service.ledger.ledger import Entry, Kind, Move, Place, bring
from service.ledger.months import a_day, begins_ms, begun, day_of, of_days, of_month
from service.merchants.tables import merchants
from service.orders.owner import Whose
from service.payments.facts import Kind as Said
from service.payments.heard import Context
from tests.property.test_orders_machine import MINE
from tests.support.escrow import Market

INSTALLATION = "Europe/Paris"
PAID = PayoutStep.SENDING, PayoutStep.SAID_PAID


def ms(text: str) -> int:
    """Of a time in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
def market() -> Iterator[Market]:
    """A market that does not pay out by itself."""
    made = Market(payout_on_release=False)
    yield made
    made.close()


def step(market: Market, payout_id: str, *steps: PayoutStep) -> None:
    """Our own steps and the provider's word."""
    for what in steps:
        row = market.payout(payout_id)
        with market.tx() as tx:
            assert move(tx, row, what, Context(market.queue, market.ids, market.clock())) is not None


def released(market: Market, price_minor: int = 5_000) -> str:
    """The payment of an order whose money was released to the seller."""
    order_id, payment_id = market.sold(price_minor)
    market.release(market.hold_of(order_id)["id"])
    return payment_id


def of_seller(market: Market) -> dict[str, Any]:
    """Their figures, those that are not 0."""
    with market.tx() as tx:
        found = balances.look_beneficiary(tx, MINE, market.seller, INSTALLATION, market.clock())
    return {name: value for name, value in found.items() if type(value) is int and value}


def of_shop(market: Market) -> dict[str, Any]:
    """The merchant's figures in its one currency, those that are not 0; they add up."""
    with market.tx() as tx:
        (found,) = balances.look_merchant(tx, MINE, INSTALLATION, market.clock())
    parts = ("available", "unallocated", "disputed", "pending", "beneficiaries", "reserved")
    assert found["at_providers"] == sum(found[name] for name in parts)
    return {name: value for name, value in found.items() if type(value) is int and value}


# --- days and months ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "day", "begins", "ends"),
    [
        ("Africa/Abidjan", "2026-11-20", "2026-11-20T00:00", "2026-11-21T00:00"),
        ("Europe/Paris", "2026-03-29", "2026-03-28T23:00", "2026-03-29T22:00"),  # 23 hours
        ("Europe/Paris", "2026-10-25", "2026-10-24T22:00", "2026-10-25T23:00"),  # 25 hours
        ("Asia/Beirut", "2026-03-29", "2026-03-28T22:00", "2026-03-29T21:00"),  # there is no midnight
        ("America/Havana", "2026-11-01", "2026-11-01T04:00", "2026-11-02T05:00"),  # midnight comes twice
        ("Pacific/Apia", "2011-12-30", "2011-12-30T10:00", "2011-12-30T10:00"),  # there was no such day
    ],
)
def test_a_day_begins_at_the_zone_s_own_midnight(zone: str, day: str, begins: str, ends: str) -> None:
    """Twenty-three hours, twenty-five, no midnight, two of them: worked out by hand."""
    span = of_days(date.fromisoformat(day), date.fromisoformat(day), ZoneInfo(zone))
    assert (span.from_ms, span.until_ms) == (ms(begins), ms(ends))


@pytest.mark.parametrize("zone", ["Europe/Paris", "Asia/Beirut", "America/Havana", "America/Asuncion", "Asia/Kolkata"])
def test_days_leave_no_gap(zone: str) -> None:
    """The moment before a day belongs to the day before, over all changes of the clock in five years."""
    there = ZoneInfo(zone)
    for number in range(date(2024, 1, 1).toordinal(), date(2029, 1, 1).toordinal()):
        day = date.fromordinal(number)
        at_ms = begins_ms(day, there)
        assert (day_of(at_ms, there), day_of(at_ms - 1, there)) == (day, date.fromordinal(number - 1))


@pytest.mark.parametrize(
    ("zone", "at", "name", "begins", "ends"),
    [
        ("Europe/Paris", "2026-03-31T21:59:59.999", "2026-03", "2026-02-28T23:00", "2026-03-31T22:00"),
        ("Europe/Paris", "2026-03-31T22:00", "2026-04", "2026-03-31T22:00", "2026-04-30T22:00"),
        ("Europe/Paris", "2026-12-31T23:00", "2027-01", "2026-12-31T23:00", "2027-01-31T23:00"),
        ("Africa/Abidjan", "2028-02-29T12:00", "2028-02", "2028-02-01T00:00", "2028-03-01T00:00"),
        ("Pacific/Auckland", "2026-11-30T11:00", "2026-12", "2026-11-30T11:00", "2026-12-31T11:00"),
    ],
)
def test_a_month_is_the_zone_s_own(zone: str, at: str, name: str, begins: str, ends: str) -> None:
    """The last moment and the first of a month, in summer and winter time, a leap year, the end of a year."""
    found, span = of_month(ms(at), ZoneInfo(zone))
    assert (found, span.from_ms, span.until_ms) == (name, ms(begins), ms(ends))


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2026-13-01", "2026-02-29", "20261120", "2026-W47-5", "2026-1-1", " 2026-11-20", "2026-11-20\n",
     "1969-12-31", "9999-12-31", "0000-00-00", "٢٠٢٦-11-20", "9" * 400, "2026-11-20T00:00"],
)  # fmt: skip
def test_what_is_no_day_is_refused(text: str) -> None:
    """Only YYYY-MM-DD, only days that there are, and none at the ends of time."""
    with pytest.raises(Refusal, match=r"^day: ") as refused:
        a_day("day", text)
    assert refused.value.code == "bad_day"


def test_a_day_to_come_is_refused() -> None:
    """It begins at its own zone's midnight, not at ours."""
    zone = ZoneInfo("Africa/Abidjan")
    begun("to", date(2026, 11, 20), ms("2026-11-20T00:00"), zone)
    with pytest.raises(Refusal, match="to: 2026-11-20 has not begun yet in Africa/Abidjan"):
        begun("to", date(2026, 11, 20), ms("2026-11-20T00:00") - 1, zone)


# --- figures ------------------------------------------------------------------------------------------


def test_a_sale_from_escrow_to_the_seller_s_wallet(market: Market) -> None:
    """The three figures at each step of one sale, and the merchant's beside them."""
    assert of_seller(market) == {}
    order_id, _ = market.sold()
    assert of_seller(market) == {"pending": 5_000}
    assert of_shop(market) == {"pending": 5_000, "at_providers": 5_000}
    market.release(market.hold_of(order_id)["id"])
    assert of_seller(market) == {"available": 5_000}
    assert of_shop(market) == {"beneficiaries": 5_000, "at_providers": 5_000}
    payout_id = market.pay_out(3_000)
    assert of_seller(market) == {"available": 2_000, "reserved": 3_000}
    step(market, payout_id, *PAID)
    assert of_seller(market) == {"available": 2_000, "paid_out": 3_000}
    assert of_shop(market) == {"beneficiaries": 2_000, "paid_out": 3_000, "at_providers": 2_000}
    step(market, payout_id, PayoutStep.SAID_RETURNED)
    assert of_seller(market) == {"available": 5_000}


def test_what_failed_or_was_called_off_was_never_paid_out(market: Market) -> None:
    """Postings back and forth of a payout that did not happen leave no trace in the month."""
    released(market)
    failed, canceled = market.pay_out(1_000), market.pay_out(500)
    step(market, failed, PayoutStep.SENDING, PayoutStep.SAID_FAILED)
    step(market, canceled, PayoutStep.CANCELED)
    assert of_seller(market) == {"available": 5_000}
    step(market, failed, PayoutStep.SAID_PAID)
    assert of_seller(market) == {"available": 4_000, "paid_out": 1_000}, "paid after all"


def test_the_month_ends_at_midnight_of_the_merchant_s_zone(market: Market) -> None:
    """The last millisecond of November in Paris counts for November, the next for December, whatever UTC says."""
    released(market)
    market.clock.now_ms = ms("2026-11-30T22:59:59.999")
    november = market.pay_out(1_000)
    step(market, november, *PAID)
    assert of_seller(market)["paid_out"] == of_shop(market)["paid_out"] == 1_000
    market.clock.advance(1)
    assert "paid_out" not in of_seller(market) and "paid_out" not in of_shop(market)
    step(market, market.pay_out(200), *PAID)
    assert of_seller(market)["paid_out"] == of_shop(market)["paid_out"] == 200
    step(market, november, PayoutStep.SAID_RETURNED)
    assert of_seller(market)["paid_out"] == -800, "what comes back counts in the month in which it comes"


def test_a_merchant_may_have_a_month_of_its_own() -> None:
    """`timezone` of the terms, where there is one, and not the installation's."""
    market = Market(payout_on_release=False, timezone="Pacific/Auckland")
    released(market)
    market.clock.now_ms = ms("2026-11-30T10:59:59.999")  # in Auckland the end of November
    step(market, market.pay_out(1_000), *PAID)
    assert of_seller(market)["paid_out"] == 1_000
    market.clock.advance(1)
    assert "paid_out" not in of_seller(market) and "paid_out" not in of_shop(market)
    market.close()


def test_a_merchant_s_own_money(market: Market) -> None:
    """Its own sales, what stands aside, what is disputed, and a payout of its own, which is no beneficiary's."""
    order_id = market.order()
    payment_id = market.pay(order_id)
    market.captured(payment_id)
    assert of_shop(market) == {"available": 5_000, "at_providers": 5_000}
    late = market.order()
    payment_of_late = market.pay(late)
    market.cancel(late)
    market.said(payment_of_late, Said.CANCELED, "x")
    market.captured(payment_of_late)
    market.said(payment_id, Said.DISPUTE_OPENED, "dp_1", 2_000)
    assert of_shop(market) == {
        "available": 3_000, "unallocated": 5_000, "disputed": 2_000, "at_providers": 10_000,
    }  # fmt: skip
    payout_id = market.pay_out(1_000, source="merchant")
    assert of_shop(market)["reserved"] == 1_000 and of_seller(market) == {}
    step(market, payout_id, *PAID)
    assert of_shop(market)["paid_out"] == 1_000 and of_shop(market)["available"] == 2_000
    assert of_seller(market) == {}


def test_available_is_what_can_be_paid_out(market: Market) -> None:
    """The same as the payouts' own look at the balance, also after fees, settlements and clawbacks below zero."""
    payment_id = released(market)
    step(market, market.pay_out(4_000), *PAID)
    market.said(payment_id, Said.REFUND_SUCCEEDED, "re_1", 5_000)
    mine = MINE.merchant_id, MINE.live, "XOF"
    float_ = Place(Kind.FLOAT, "acc_stripe", *mine)
    moves = {
        Move(Entry.FEE, Place(Kind.FEES, MINE.merchant_id, *mine), float_): 30,
        Move(Entry.SETTLEMENT, Place(Kind.BANK, MINE.merchant_id, *mine), float_): 400,
    }
    with market.tx() as tx:
        bring(tx, {"stl_1": moves}, market.clock())
        row = {"merchant_id": MINE.merchant_id, "live": MINE.live, "currency": "XOF", "beneficiary_id": market.seller}
        theirs, ours = (available(tx, row | {"source": source}) for source in ("beneficiary", "merchant"))
    assert (theirs, of_seller(market)["available"]) == (-4_000, -4_000)
    assert (ours, of_shop(market)["available"]) == (-430, -430)


def test_others_and_the_other_mode_are_not_counted(market: Market) -> None:
    """The same money of another merchant, and of this one in live mode, changes nothing; each has its own figures."""
    released(market)
    before = of_seller(market), of_shop(market)
    with market.tx() as tx:
        tx.execute(insert(merchants), {"id": "mer_2", "name": "B", "status": "active", "created_at_ms": 1})
        for merchant_id, live in (("mer_2", False), (MINE.merchant_id, True)):
            whose = merchant_id, live, "XOF"
            float_ = Place(Kind.FLOAT, "acc_stripe" if live else "acc_2", *whose)
            reserved = Place(Kind.RESERVED, market.seller if live else merchant_id, *whose)
            escrow = Place(Kind.ESCROW, market.seller if live else "ben_2", *whose)
            moves = {Move(Entry.PAID_OUT, reserved, float_): 70, Move(Entry.HOLD, reserved, escrow): 7}
            bring(tx, {f"x_{merchant_id}": moves}, market.clock())
        (other,) = balances.look_merchant(tx, Whose("mer_2", False), INSTALLATION, market.clock())
        with pytest.raises(NotFound):
            balances.look_beneficiary(tx, Whose("mer_2", False), market.seller, INSTALLATION, market.clock())
        with pytest.raises(NotFound):
            balances.look_beneficiary(tx, Whose(MINE.merchant_id, True), market.seller, INSTALLATION, market.clock())
    assert (other["paid_out"], other["pending"], other["at_providers"]) == (70, 7, -70)
    assert (of_seller(market), of_shop(market)) == before


def test_an_empty_ledger_has_no_balances(market: Market) -> None:
    """Nothing has moved: no rows for the merchant, zeros for the beneficiary."""
    with market.tx() as tx:
        assert balances.look_merchant(tx, MINE, INSTALLATION, market.clock()) == []
        found = balances.look_beneficiary(tx, MINE, market.seller, INSTALLATION, market.clock())
    assert found == {
        "beneficiary": market.seller, "live": False, "currency": "XOF", "available": 0, "pending": 0, "paid_out": 0,
        "reserved": 0, "month": "2026-11", "timezone": "Europe/Paris",
    }  # fmt: skip
