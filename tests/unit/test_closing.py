"""The evening closing against a day made by hand: figures, totals, a closed day, differences, the table for a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, insert, update

from service.errors import Refusal
from service.escrow.states import PayoutStep
from service.ledger.closing import as_csv, of_day
from service.ledger.ledger import Entry, Kind, Move, Place, bring
from service.ledger.months import a_day
from service.ledger.tables import differences
from service.merchants.tables import accounts, merchants
from service.orders.owner import Owner, Whose
from service.payments.facts import Fact, Source
from service.payments.facts import Kind as Said
from tests.property.test_orders_machine import MINE
from tests.support.escrow import Market
from tests.unit.test_balances import PAID, ms, released, step

ACCOUNT = "acc_stripe"
EMPTY = dict.fromkeys(
    ("received", "fees", "refunded", "net", "paid_out", "returned", "expected", "settled", "differences",
     "open_differences", "ours", "theirs"), 0,
)  # fmt: skip


@pytest.fixture
def market() -> Iterator[Market]:
    """A market in Paris that does not pay out by itself."""
    made = Market(payout_on_release=False, timezone="Europe/Paris")
    yield made
    made.close()


def closing(market: Market, day: str | None = None, owner: Owner = MINE) -> dict[str, Any]:
    """Of a day, or of today."""
    with market.tx() as tx:
        chosen = a_day("day", day) if day is not None else None
        return of_day(tx, owner, chosen, "Africa/Abidjan", market.clock())


def figures(found: dict[str, Any]) -> dict[str, int]:
    """Those of the only line that are not 0."""
    (line,) = found["lines"]
    assert (line["provider"], line["account"], line["currency"]) == ("stripe", ACCOUNT, "XOF")
    assert found["totals"] == [{name: line[name] for name in ("currency", *EMPTY)}]
    return {name: line[name] for name in EMPTY if line[name]}


def post(
    market: Market, entry: Entry, minor: int, *, owner: Owner = MINE, currency: str = "XOF", account: str = ACCOUNT
) -> None:
    """Something that the float of an account gains (above 0) or loses, beside the stories of others."""
    whose = owner.merchant_id, owner.live, currency
    float_ = Place(Kind.FLOAT, account, *whose)
    kind = {Entry.FEE: Kind.FEES, Entry.SETTLEMENT: Kind.BANK}.get(entry, Kind.MERCHANT)
    other = Place(kind, owner.merchant_id, *whose)
    move = Move(entry, float_, other) if minor > 0 else Move(entry, other, float_)
    with market.tx() as tx:
        bring(tx, {market.ids("x"): {move: abs(minor)}}, market.clock())


def test_a_day_of_everything(market: Market) -> None:
    """Each kind of money in its own column; what is expected less what was settled is how the float has changed."""
    with_fee = market.order()
    payment_id = market.pay(with_fee)
    paid = Fact(Said.CAPTURED, "m_1", market.clock(), 5_000, None, "XOF", fee_minor=100, source=Source.CALLBACK)
    market.tell((payment_id, paid))
    others = [released(market) for _ in range(3)]
    market.said(others[0], Said.REFUND_SUCCEEDED, "re_1", 2_000)
    market.said(others[1], Said.DISPUTE_LOST, "dp_1", 1_000)
    market.said(others[2], Said.DISPUTE_OPENED, "dp_2", 500)
    post(market, Entry.REFUND, -300)
    post(market, Entry.REVERSAL, -40)
    payout_id = market.pay_out(4_000)
    step(market, payout_id, *PAID)
    step(market, market.pay_out(700), *PAID, PayoutStep.SAID_RETURNED)
    post(market, Entry.SETTLEMENT, -2_500)
    found = closing(market)
    assert figures(found) == {
        "received": 20_000, "fees": 100, "refunded": 3_340, "net": 16_560,
        "paid_out": 4_700, "returned": 700, "expected": 12_560, "settled": 2_500,
    }  # fmt: skip
    assert market.balances()["float"] == 12_560 - 2_500
    assert (found["day"], found["timezone"], found["closed"]) == ("2026-11-20", "Europe/Paris", False)


def test_a_closed_day_stays_as_it_is(market: Market) -> None:
    """What is corrected or comes back afterwards shows on the day on which it does, at midnight of the zone."""
    payment_id = released(market)
    market.clock.now_ms = ms("2026-11-20T22:59:59.999")
    payout_id = market.pay_out(1_000)
    step(market, payout_id, *PAID)
    first = closing(market)
    assert figures(first) == {"received": 5_000, "net": 5_000, "paid_out": 1_000, "expected": 4_000}
    market.clock.advance(1)
    step(market, payout_id, PayoutStep.SAID_RETURNED)
    market.said(payment_id, Said.REFUND_SUCCEEDED, "re_1", 2_000)
    assert closing(market, "2026-11-20") == first | {"closed": True}
    assert figures(closing(market)) == {"refunded": 2_000, "net": -2_000, "returned": 1_000, "expected": -1_000}


@pytest.mark.parametrize(
    ("day", "first", "last"),
    [("2026-03-29", "2026-03-28T23:00", "2026-03-29T21:59:59.999"),
     ("2026-10-25", "2026-10-24T22:00", "2026-10-25T22:59:59.999")],
)  # fmt: skip
def test_a_day_of_a_changed_clock_is_whole(market: Market, day: str, first: str, last: str) -> None:
    """Both days on which Paris changes its clocks hold their own first and last moments, and not the next ones."""
    for at_ms in (ms(first) - 1, ms(first), ms(last), ms(last) + 1):
        market.clock.now_ms = at_ms
        post(market, Entry.CAPTURE, 1 + (at_ms in (ms(first), ms(last))) * 99)
    assert figures(closing(market, day))["received"] == 200


def test_others_and_the_other_mode_are_not_counted(market: Market) -> None:
    """Another merchant's money and live money stand in their own closings."""
    released(market)
    before = closing(market)
    with market.tx() as tx:
        tx.execute(insert(merchants), {"id": "mer_2", "name": "B", "status": "active", "created_at_ms": 1})
        account(tx, "acc_2", "mer_2")
    live, other = Whose(MINE.merchant_id, True), Whose("mer_2", False)
    post(market, Entry.CAPTURE, 7, owner=live)
    post(market, Entry.CAPTURE, 9, owner=other, account="acc_2")
    differ(market, 1, owner=live)
    differ(market, 2, owner=other, account_id="acc_2")
    assert closing(market) == before
    assert figures(closing(market, None, live)) == {
        "received": 7, "net": 7, "expected": 7, "differences": 1, "open_differences": 1, "ours": 10, "theirs": 11,
    }  # fmt: skip
    (line,) = closing(market, None, other)["lines"]
    assert (line["account"], line["received"], line["differences"]) == ("acc_2", 9, 1)


def account(tx: Connection, id_: str, merchant_id: str) -> None:
    """Another account, at another provider."""
    row = {"id": id_, "provider": "fedapay", "merchant_id": merchant_id, "live": False, "origin": "stored"}
    tx.execute(insert(accounts), row | {"created_at_ms": 1})


def differ(market: Market, number: int, *, owner: Owner = MINE, **more: Any) -> None:
    """The provider's list says something else."""
    row = {
        "id": market.ids("dif"), "merchant_id": owner.merchant_id, "account_id": ACCOUNT, "live": owner.live,
        "provider": "stripe", "provider_reference": f"pi_{number}", "kind": "amount", "currency": "XOF",
        "ours_minor": 10, "theirs_minor": 10 + number, "day": "2026-11-20", "found_at_ms": market.clock(),
    }  # fmt: skip
    with market.tx() as tx:
        tx.execute(insert(differences), row | more)


def test_differences_are_of_the_day_of_their_money(market: Market) -> None:
    """Counted and summed by the day they are about, open ones apart; also where nothing else moved."""
    differ(market, 1)
    differ(market, 2, closed_at_ms=market.clock())
    differ(market, 3, day="2026-11-19")
    assert figures(closing(market)) == {"differences": 2, "open_differences": 1, "ours": 20, "theirs": 23}
    assert figures(closing(market, "2026-11-19")) == {"differences": 1, "open_differences": 1, "ours": 10, "theirs": 13}


def test_each_currency_has_its_total(market: Market) -> None:
    """Two accounts and two currencies: a line each, and francs are never added to euros."""
    with market.tx() as tx:
        account(tx, "acc_0", MINE.merchant_id)
    post(market, Entry.CAPTURE, 50, account="acc_0")
    post(market, Entry.CAPTURE, 1_205, currency="EUR")
    post(market, Entry.REFUND, -2_000, currency="EUR")
    post(market, Entry.CAPTURE, 8)
    found = closing(market)
    assert [(one["provider"], one["currency"], one["net"]) for one in found["lines"]] == [
        ("fedapay", "XOF", 50), ("stripe", "EUR", -795), ("stripe", "XOF", 8),
    ]  # fmt: skip
    assert [(one["currency"], one["net"]) for one in found["totals"]] == [("EUR", -795), ("XOF", 58)]
    with market.tx() as tx:
        tx.execute(update(merchants).values(name="=cmd|' /C calc'!A0"))
    text = as_csv([closing(market)])
    assert text.startswith("\ufeffday,timezone,merchant,name,mode,provider,account,currency,received,")
    rows = list(csv.DictReader(io.StringIO(text[1:], newline=""), strict=True))
    assert [(row["name"], row["mode"], row["currency"], row["received"], row["net"]) for row in rows] == [
        ("'=cmd|' /C calc'!A0", "test", "XOF", "50", "50"),
        ("'=cmd|' /C calc'!A0", "test", "EUR", "12.05", "-7.95"),
        ("'=cmd|' /C calc'!A0", "test", "XOF", "8", "8"),
    ]  # fmt: skip


def test_nothing_moved_and_days_to_come(market: Market) -> None:
    """An empty day has no lines and no totals; one that has not begun in the merchant's zone is refused."""
    assert closing(market) == {
        "merchant": "mer_1", "name": "Awa", "live": False, "day": "2026-11-20", "timezone": "Europe/Paris",
        "closed": False, "lines": [], "totals": [],
    }  # fmt: skip
    market.clock.now_ms = ms("2026-11-20T23:00")
    assert closing(market)["day"] == "2026-11-21", "after midnight in Paris"
    with pytest.raises(Refusal, match="day: 2026-11-22 has not begun yet in Europe/Paris") as refused:
        closing(market, "2026-11-22")
    assert refused.value.code == "bad_day"
