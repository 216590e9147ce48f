"""Settlements: what they move in the ledger, once for each reference, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update

from service.errors import NotFound, Refusal
from service.escrow.payouts import PAYOUT, available
from service.escrow.tables import payouts
from service.ledger.settlements import AHEAD_MS, Settlement, all_listed, listed, public, record
from service.ledger.tables import postings
from service.merchants.tables import accounts, merchants
from service.orders.owner import Whose
from service.schema import outbox_tables
from tests.property.test_book_machine import ACCOUNT
from tests.property.test_orders_machine import MINE
from tests.support.escrow import Market

PAID = Settlement(ACCOUNT.id, 3_000, "XOF", "S-1", fee_minor=30)


@pytest.fixture(scope="module")
def market() -> Iterator[Market]:
    """A market with 5,000 F of its own."""
    made = Market()
    made.captured(made.pay())
    yield made
    made.close()


def recorded(market: Market, draft: Settlement, **more: Any) -> dict[str, Any]:
    """What comes of recording it."""
    with market.tx() as tx:
        return record(tx, draft, market.by, **more)


def test_money_at_the_bank_is_no_more_in_the_float_and_cannot_be_paid_out(market: Market) -> None:
    """Bank and fees grow by it; below zero the bank has topped the float up; the same again is nothing."""
    first = recorded(market, PAID)
    assert market.balances() == {"float": 1_970, "bank": 3_000, "fees": 30, "merchant": 5_000}
    row = {"source": "merchant", "merchant_id": "mer_1", "live": False, "currency": "XOF"}
    with market.tx() as tx:
        assert available(tx, row) == 1_970
        count = tx.execute(select(func.count()).select_from(postings)).scalar_one()
    assert recorded(market, replace(PAID, note="read twice")) == first
    with market.tx() as tx:
        assert tx.execute(select(func.count()).select_from(postings)).scalar_one() == count
    recorded(market, Settlement(ACCOUNT.id, -1_000, "XOF", "S-2"))
    assert market.balances() == {"float": 2_970, "bank": 2_000, "fees": 30, "merchant": 5_000}
    with market.tx() as tx:
        assert [public(one)["amount"] for one in listed(tx, MINE)] == [-1_000, 3_000]
        assert [one["id"] for one in all_listed(tx, account=ACCOUNT.id, before=listed(tx, MINE)[0]["id"])] == [
            first["id"]
        ]
        assert all_listed(tx, merchant="mer_2") == listed(tx, Whose("mer_1", True)) == []


def test_a_top_up_lets_go_what_waits_for_the_float(market: Market) -> None:
    """At once, and not by a schedule that may be a day long; money that goes to the bank hastens nothing."""
    payout_id = market.pay_out(10, source="merchant")
    m, p = outbox_tables.messages, payouts
    later_ms = market.clock() + 1_000_000
    tried = {"due_at_ms": later_ms, "tries": 1, "claim": 1, "settled_claim": 1}
    with market.tx() as tx:
        tx.execute(update(p).where(p.c.id == payout_id).values(waits_for="float"))
        tx.execute(update(m).where(m.c.subject == payout_id, m.c.topic == PAYOUT).values(tried))
    for amount_minor, reference, due_at_ms in ((1, "S-up", later_ms), (-1, "S-down", market.clock())):
        recorded(market, Settlement(ACCOUNT.id, amount_minor, "XOF", reference), queue=market.queue)
        with market.tx() as tx:
            due = select(m.c.due_at_ms).where(m.c.subject == payout_id, m.c.topic == PAYOUT)
            assert tx.execute(due).scalar_one() == due_at_ms


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"amount_minor": 0}, "bad_amount"),
        ({"amount_minor": 10**15 + 1}, "bad_amount"),
        ({"amount_minor": True}, "bad_amount"),
        ({"currency": "CFA"}, "bad_currency"),
        ({"fee_minor": -1}, "bad_fee"),
        ({"fee_minor": 2**63}, "bad_fee"),
        ({"reference": "  "}, "bad_reference"),
        ({"reference": "x" * 121}, "bad_reference"),
        ({"note": "a\0b"}, "bad_note"),
        ({"settled_at_ms": -1}, "bad_settled_at"),
        ({"settled_at_ms": 10**15}, "bad_settled_at"),
        ({"account_id": "acc_none"}, "not_found"),
        ({"amount_minor": 3_001}, "reference_taken"),
        ({"fee_minor": 31}, "reference_taken"),
    ],
)
def test_each_bad_field_is_refused_by_its_name(market: Market, wrong: dict[str, Any], code: str) -> None:
    """With a word for programs; the sentence names the field; nothing is posted."""
    recorded(market, PAID)
    before = market.balances()
    with pytest.raises(Refusal) as no:
        recorded(market, replace(PAID, **wrong))
    assert no.value.code == code
    assert not code.startswith("bad_") or no.value.sentence.startswith(f"{code.removeprefix('bad_')}: ")
    assert market.balances() == before


def test_a_day_that_has_begun_elsewhere_is_not_the_future(market: Market) -> None:
    """Up to a day ahead is taken: a bank's clock is not ours."""
    ahead = replace(PAID, reference="S-9", settled_at_ms=market.clock() + AHEAD_MS)
    assert recorded(market, ahead)["settled_at_ms"] == market.clock() + AHEAD_MS


def test_another_merchants_account_is_nobodys(market: Market) -> None:
    """Neither another merchant's account nor one's own of the other mode is found."""
    with market.tx() as tx:
        tx.execute(insert(merchants), {"id": "mer_2", "name": "Kofi", "status": "active", "created_at_ms": 1})
        tx.execute(insert(accounts), {"id": "acc_2", "provider": "stripe", "merchant_id": "mer_2", "live": False,
                                      "origin": "settings", "created_at_ms": 1})  # fmt: skip
    for account_id, owner in (("acc_2", MINE), (ACCOUNT.id, Whose("mer_1", True))):
        with pytest.raises(NotFound):
            recorded(market, replace(PAID, account_id=account_id, reference="S-8"), owner=owner)
