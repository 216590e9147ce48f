"""Statements: every posting with the balance after it, and cells that no spreadsheet takes for a formula."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import update

from service.errors import NotFound, Refusal
from service.escrow.payouts import Draft
from service.escrow.states import PayoutStep
from service.escrow.tables import payees_personal
from service.ledger import statement as module
from service.ledger.ledger import Entry, Kind, Move, Place, bring
from service.ledger.months import a_day
from service.ledger.statement import Asked, cell, number, statement, written
from service.merchants.tables import merchants
from service.orders.owner import Owner, Whose
from service.payments.facts import Kind as Said
from tests.property.test_orders_machine import MINE
from tests.support.corpora import strings
from tests.support.escrow import Market
from tests.unit.test_balances import PAID, ms, released, step

HOSTILE = '=HYPERLINK("http://a.example";"x")'


@pytest.fixture
def market() -> Iterator[Market]:
    """A market that does not pay out by itself."""
    made = Market(payout_on_release=False, timezone="Europe/Paris")
    yield made
    made.close()


def told(market: Market, first: str, last: str, owner: Owner = MINE, **more: Any) -> str:
    """The CSV as it is."""
    with market.tx() as tx:
        asked = Asked(a_day("from", first), a_day("to", last), **more)
        return statement(tx, owner, asked, "Africa/Abidjan", market.clock())


def lines(text: str) -> list[list[str]]:
    """Its cells, without the header."""
    assert text.startswith("\ufeff") and text.endswith("\r\n")
    return list(csv.reader(io.StringIO(text[1:], newline=""), strict=True))[1:]


def brief(text: str) -> list[tuple[str, ...]]:
    """What, in, out and balance of each line."""
    return [(line[2], *line[5:8]) for line in lines(text)]


def test_a_seller_s_statement_over_midnight(market: Market) -> None:
    """Opening, each posting with the balance after it in the merchant's time, closing; the next day goes on from it."""
    released(market)
    market.clock.now_ms = ms("2026-11-20T22:59:59.999")
    payout_id = market.pay_out(3_000, description="November")
    step(market, payout_id, *PAID)
    market.clock.now_ms = ms("2026-11-20T23:00")
    step(market, payout_id, PayoutStep.SAID_RETURNED)
    one = told(market, "2026-11-20", "2026-11-20", beneficiary_id=market.seller)
    assert one.splitlines()[0] == (
        "\ufeffTime (Europe/Paris),Time (UTC),What,Subject,Reference,In,Out,Balance,Currency"
    )
    assert brief(one) == [
        ("Opening balance", "", "", "0"),
        ("Released from escrow", "5000", "", "5000"),
        ("Payout", "", "3000", "2000"),
        ("Closing balance", "", "", "2000"),
    ]
    hold = lines(one)[1]
    assert hold[:2] == ["2026-11-20 10:00:00", "2026-11-20T09:00:00.000Z"] and hold[3].startswith("hold_")
    assert lines(one)[2][3:5] == [payout_id, "November"] and lines(one)[0][3:5] == [market.seller, "Moussa"]
    two = told(market, "2026-11-21", "2026-11-21", beneficiary_id=market.seller, language="fr")
    assert brief(two) == [
        ("Solde d’ouverture", "", "", "2000"), ("Versement retourné", "3000", "", "5000"),
        ("Solde de clôture", "", "", "5000"),
    ]  # fmt: skip
    whole = told(market, "2026-11-01", "2026-11-21", beneficiary_id=market.seller)
    assert brief(whole)[1:-1] == [*brief(one)[1:-1], ("Payout returned", "3000", "", "5000")]


def test_a_merchant_s_statement_goes_below_zero(market: Market) -> None:
    """Captures, holds, fees, settlements; money that went back; a balance below zero is a number, not a formula."""
    payment_id = released(market)
    market.said(payment_id, Said.REFUND_SUCCEEDED, "re_1", 5_000)
    whose = MINE.merchant_id, MINE.live, "XOF"
    float_ = Place(Kind.FLOAT, "acc_stripe", *whose)
    moves = {Move(Entry.FEE, Place(Kind.FEES, MINE.merchant_id, *whose), float_): 30}
    with market.tx() as tx:
        bring(tx, {"stl_1": moves}, market.clock())
    assert brief(told(market, "2026-11-20", "2026-11-20")) == [
        ("Opening balance", "", "", "0"),
        ("Payment received", "5000", "", "5000"),
        ("Held in escrow", "", "5000", "0"),
        ("Taken back after release", "5000", "", "5000"),
        ("Refund made at the provider", "", "5000", "0"),
        ("Fee", "", "30", "-30"),
        ("Closing balance", "", "", "-30"),
    ]


def test_a_currency_has_its_own_places(market: Market) -> None:
    """Euros with two, francs with none, dinars with three, below zero too; a merchant with several says which."""
    assert [number(*of) for of in ((5, "EUR"), (-1_050, "EUR"), (5_000, "XOF"), (1, "TND"), (10**15, "XOF"))] == [
        "0.05", "-10.50", "5000", "0.001", "1000000000000000",
    ]  # fmt: skip
    market.sold()
    whose = MINE.merchant_id, MINE.live, "EUR"
    money = Place(Kind.FLOAT, "acc_stripe", *whose), Place(Kind.MERCHANT, MINE.merchant_id, *whose)
    with market.tx() as tx:
        bring(tx, {"pay_x": {Move(Entry.CAPTURE, *money): 1_205}}, market.clock())
    for currency in ("", "USD"):
        with pytest.raises(Refusal, match="currency: one of EUR, XOF"):
            told(market, "2026-11-20", "2026-11-20", currency=currency)
    assert brief(told(market, "2026-11-20", "2026-11-20", currency="EUR"))[1] == (
        "Payment received", "12.05", "", "12.05",
    )  # fmt: skip


def test_nothing_has_moved(market: Market) -> None:
    """A seller's empty statement is zeros; a merchant's needs a currency that there is, as nobody can know it."""
    assert brief(told(market, "2026-11-01", "2026-11-20", beneficiary_id=market.seller)) == [
        ("Opening balance", "", "", "0"), ("Closing balance", "", "", "0"),
    ]  # fmt: skip
    for currency in ("", "XYZ"):
        with pytest.raises(Refusal, match="nothing was posted yet"):
            told(market, "2026-11-01", "2026-11-20", currency=currency)
    assert brief(told(market, "2026-11-01", "2026-11-20", currency="EUR"))[1] == ("Closing balance", "", "", "0.00")


def test_what_cannot_be_shown_is_refused(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    """Days the wrong way round or to come, another merchant's or mode's beneficiary, too many rows: each a clear no."""
    released(market)
    with pytest.raises(Refusal, match="to: 2026-11-19 is before 2026-11-20"):
        told(market, "2026-11-20", "2026-11-19")
    with pytest.raises(Refusal, match="to: 2026-11-21 has not begun yet in Europe/Paris"):
        told(market, "2026-11-20", "2026-11-21")
    for owner in (Whose("mer_2", False), Whose(MINE.merchant_id, True)):
        with pytest.raises(NotFound):
            told(market, "2026-11-20", "2026-11-20", owner, beneficiary_id=market.seller)
    monkeypatch.setattr(module, "ROWS_MAX", 2)
    assert len(brief(told(market, "2026-11-20", "2026-11-20"))) == 4, "as many as may be"
    monkeypatch.setattr(module, "ROWS_MAX", 1)
    with pytest.raises(Refusal, match="more than 1 postings") as refused:
        told(market, "2026-11-20", "2026-11-20")
    assert refused.value.code == "too_many_rows"


def test_names_and_references_are_guarded(market: Market) -> None:
    """A seller's name, a merchant's and a payout's description that are formulas stay text in the file."""
    released(market)
    market.pay_out(100, description=HOSTILE)
    with market.tx() as tx:
        tx.execute(update(payees_personal).values(name="\uff1d1+1"))
        tx.execute(update(merchants).values(name="@SUM(A1)"))
        again = Draft(market.seller, 100, "XOF", description="\t-1")
        market.payouts.request(tx, MINE, again, market.by)
    theirs = lines(told(market, "2026-11-20", "2026-11-20", beneficiary_id=market.seller))
    assert theirs[0][4] == "'\uff1d1+1"
    assert theirs[2][4] == f"'{HOSTILE}"
    assert theirs[3][4] == "'\t'-1"
    assert lines(told(market, "2026-11-20", "2026-11-20"))[0][4] == "'@SUM(A1)"


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("", ""), ("Awa", "Awa"), ("a=b", "a=b"), ("5 - 3", "5 - 3"), ("1,5", "1,5"), ("'=1", "'=1"), ("é;è", "é;è"),
        ("=1", "'=1"), ("+1", "'+1"), ("-1", "'-1"), ("@x", "'@x"), ("  =1", "'  =1"), ("\u00a0=1", "'\u00a0=1"),
        ("\u200b=1", "'\u200b=1"), ("\ufeff=1", "'\ufeff=1"), ("\u202e=1", "'\u202e=1"), ("\x00=1", "'\x00=1"),
        ("\uff1d1", "'\uff1d1"), ("\uff0b1", "'\uff0b1"), ("\uff0d1", "'\uff0d1"), ("\uff20x", "'\uff20x"),
        ("\ufe661", "'\ufe661"), ("\u22121", "'\u22121"), ("\tA", "'\tA"), ("\rA", "'\rA"), ("\nA", "'\nA"),
        ("a;=1", "a;'=1"), ("a; @x;b", "a;' @x;b"), ("a\n=1", "a\n'=1"), ("a\t+1", "a\t'+1"), (";=1", ";'=1"),
    ],
)  # fmt: skip
def test_a_cell_is_guarded(text: str, safe: str) -> None:
    """An apostrophe before what might be a formula, also where another program would split; nothing else is touched."""
    assert cell(text) == safe


def test_hostile_strings_stay_in_their_cell() -> None:
    """Every naughty string comes back from the file whole and alone, and begins no formula however it is split."""
    for text in strings():
        if "\0" in text:  # none is stored, and Python's own reader refuses it
            continue
        file = written([["a", cell(text), "-5"]]).encode(errors="replace").decode()
        (found,) = csv.reader(io.StringIO(file.removeprefix("\ufeff"), newline=""), strict=True)
        assert (found[0], len(found), found[2]) == ("a", 3, "-5")
        assert found[1].replace("'", "") == text.encode(errors="replace").decode().replace("'", "")
        assert not re.match(r"[\s\ufeff\u200b]*[=+\-@]|[\t\r\n]", found[1])
        for piece in re.split(r"[;\t\r\n]", file.rpartition(",")[0])[1:]:
            assert not re.match(r"\s*[=+\-@]", piece), file


def test_every_entry_has_its_words() -> None:
    """A new kind of posting needs a word in both languages before it is posted."""
    assert set(module.WORDS) == set(Entry)
    assert all(all(names) for names in module.WORDS.values())
