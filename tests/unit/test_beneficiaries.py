"""Whom money goes to: where it may be sent, when a changed number counts, and who may say so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from service.errors import NotFound, Refusal
from service.escrow import beneficiaries as steps
from service.escrow.beneficiaries import CHANGED_WAITS_MS, To, check
from service.escrow.switch import change_terms
from service.escrow.terms import Terms, terms_of
from service.merchants.audit import By
from service.orders.owner import Whose
from service.payments.tables import attention
from tests.property.test_orders_machine import MINE
from tests.support.escrow import SELLER, Market

OTHER = To("account", "acct_1Other", "Moussa")
OTHERS = (Whose("mer_2", False), Whose("mer_1", True))


@pytest.fixture
def market() -> Iterator[Market]:
    """A market with one seller."""
    made = Market()
    yield made
    made.close()


def second(market: Market) -> By:
    """Another hand."""
    return By("somebody else", market.clock(), market.ids)


def waiting(market: Market) -> int:
    """How many beneficiaries are before a person."""
    with market.tx() as tx:
        rows = tx.execute(attention.select().where(attention.c.reason == steps.CHANGED)).all()
        return sum(row.closed_at_ms is None for row in rows)


def test_a_changed_payee_counts_after_a_day_and_not_a_moment_before(market: Market) -> None:
    """Who has one key cannot have tomorrow's money; after the day nobody has to do anything."""
    order_id, _ = market.sold()
    with market.tx() as tx:
        first = steps.payee_of(tx, market.seller)
        assert steps.pay_to(tx, MINE, market.seller, SELLER, market.by) == first, "the same again is nothing"
        changed = steps.pay_to(tx, MINE, market.seller, OTHER, market.by)
        assert changed["usable_at_ms"] == market.clock() + CHANGED_WAITS_MS == market.clock() + 24 * 3_600_000
        assert steps.payee(tx, first["id"])["number"] == SELLER.number, "what was paid there can still be seen"
    market.release(market.hold_of(order_id)["id"])
    assert waiting(market) == 1
    market.clock.advance(CHANGED_WAITS_MS - 1)
    with pytest.raises(Refusal, match="waits a day"):
        market.pay_out(1)
    market.clock.advance(1)
    with market.tx() as tx, pytest.raises(Refusal, match="can be paid already"):
        steps.approve_payee(tx, MINE, market.seller, changed["id"], "late", second(market))


def test_only_a_second_person_shortens_the_day(market: Market) -> None:
    """Not who changed it, not without a reason, and not the change before the last."""
    with market.tx() as tx:
        new = steps.pay_to(tx, MINE, market.seller, OTHER, market.by)["id"]
        for hand, reason, code in ((market.by, "mine", "second_person"), (second(market), " ", "no_reason")):
            with pytest.raises(Refusal) as refused:
                steps.approve_payee(tx, MINE, market.seller, new, reason, hand)
            assert refused.value.code == code
        good = steps.approve_payee(tx, MINE, market.seller, new, "I called", second(market))
        assert (good["usable_at_ms"], good["approved_by"]) == (market.clock(), "somebody else")
    assert waiting(market) == 0
    market.clock.advance(1)
    with market.tx() as tx:
        back = steps.pay_to(tx, MINE, market.seller, SELLER, second(market))
        assert back["usable_at_ms"] > market.clock(), "also the number that was there before waits"
        with pytest.raises(Refusal, match="second person"):
            steps.approve_payee(tx, MINE, market.seller, back["id"], "I again", second(market))


def test_an_approval_is_of_the_payee_that_was_looked_at(market: Market) -> None:
    """Changed again between the look and the approval: the thief's number is not what the second person has seen."""
    order_id, _ = market.sold()
    market.release(market.hold_of(order_id)["id"])
    with market.tx() as tx:
        first = steps.payee_of(tx, market.seller)
        seen = steps.pay_to(tx, MINE, market.seller, OTHER, market.by)
        newest = steps.pay_to(tx, MINE, market.seller, To("account", "acct_1Thief", "Moussa"), market.by)
        for payee_id in (seen["id"], first["id"], "pye_none", ""):
            with pytest.raises(Refusal, match="was changed again since; look at it anew") as refused:
                market.payouts.approve_payee(tx, MINE, market.seller, payee_id, "I called", second(market))
            assert refused.value.code == "payee_changed"
        assert steps.payee_of(tx, market.seller) == newest, "nothing is payable at once"
        assert steps.payee(tx, seen["id"]) == seen
    assert waiting(market) == 1
    with pytest.raises(Refusal, match="waits a day"):
        market.pay_out(1)
    with market.tx() as tx:
        market.payouts.approve_payee(tx, MINE, market.seller, newest["id"], "I called", second(market))
        assert steps.payee_of(tx, market.seller)["usable_at_ms"] == market.clock()
    assert waiting(market) == 0


@pytest.mark.parametrize(
    ("to", "number"),
    [
        (To("bank", "bj66 bj06-1010 0100 1443 9000 0769", "Moussa", bank_code="044"), "BJ66BJ0610100100144390000769"),
        (To("mobile_money", "00229 97 80 80 80", " Moussa ", "BJ", "mtn"), "+22997808080"),
        (To("mobile_money", "01 97 80 80 80", "Moussa", "BJ", "mtn"), "+2290197808080"),
        (To("mobile_money", "64000001", "Moussa", "BJ", "moov"), "+22964000001"),
        (To("mobile_money", "66000001", "Moussa", "BJ", "mtn"), "+22966000001"),
        (To("mobile_money", "+22996000043", "Moussa", "BJ", "mtn"), "+22996000043"),
        (To("mobile_money", "077 12 34 56", "Moussa", "GA", "airtel"), "+24177123456"),
        (To("mobile_money", "+24107123456", "Moussa", "GA", "airtel"), "+24107123456"),
        (To("account", "acct_1Seller"), "acct_1Seller"),
    ],
)
def test_one_account_is_written_in_one_way(to: To, number: str) -> None:
    """However people write it: so that the same again is the same, and a provider takes it."""
    assert check(to).number == number
    assert check(check(to)) == check(to)
    assert check(to).name == to.name.strip()


def test_what_is_another_s_is_not_there(market: Market) -> None:
    """Another merchant's, and the same merchant's in the other mode, at every door."""
    with market.tx() as tx:
        theirs = steps.payee_of(tx, market.seller)["id"]
    for owner in OTHERS:
        doors: tuple[Any, ...] = (
            lambda tx, o=owner: steps.one(tx, o, market.seller),
            lambda tx, o=owner: steps.pay_to(tx, o, market.seller, OTHER, market.by),
            lambda tx, o=owner: steps.approve_payee(tx, o, market.seller, theirs, "x", market.by),
            lambda tx, o=owner: steps.change(tx, o, market.seller, market.by, active=False),
            lambda tx, o=owner: steps.link(tx, o, market.seller, market.by),
        )
        with market.tx() as tx:
            for door in doors:
                with pytest.raises(NotFound):
                    door(tx)
            assert steps.listed(tx, owner) == []


def test_a_reference_is_taken_once_and_a_link_is_replaced(market: Market) -> None:
    """In one mode of one merchant; the token before the newest opens nothing."""
    with market.tx() as tx:
        steps.create(tx, MINE, "XOF", SELLER, market.by, "moussa")
        with pytest.raises(Refusal, match="already"):
            steps.create(tx, MINE, "EUR", SELLER, market.by, "moussa")
        steps.create(tx, Whose("mer_1", True), "XOF", SELLER, market.by, "moussa")
        for _ in range(2):
            steps.create(tx, MINE, "XOF", SELLER, market.by)  # without one as many as one likes
        old, new = (steps.link(tx, MINE, market.seller, market.by) for _ in range(2))
        assert steps.of_link(tx, new)["id"] == market.seller
        for token in (old, "", "x", "\udc80"):
            with pytest.raises(NotFound):
                steps.of_link(tx, token)


def test_nothing_is_held_for_who_cannot_be_paid(market: Market) -> None:
    """Disabled, of another currency, another's, or while it is all switched off."""
    with market.tx() as tx:
        assert steps.held_for(tx, MINE, market.seller, "XOF") == market.seller
        euros = steps.create(tx, MINE, "EUR", SELLER, market.by)
        for beneficiary in (euros, "ben_none", "' OR 1=1"):
            with pytest.raises(Refusal, match="escrow: "):
                steps.held_for(tx, MINE, beneficiary, "XOF")
        steps.change(tx, MINE, market.seller, market.by, active=False)
        with pytest.raises(Refusal, match="disabled"):
            steps.held_for(tx, MINE, market.seller, "XOF")
        change_terms(tx, "mer_1", {"enabled": False}, market.by)
        with pytest.raises(Refusal, match="off"):
            steps.held_for(tx, MINE, euros, "EUR")


def test_a_merchant_who_never_read_the_notice_is_asked_once(market: Market) -> None:
    """Each merchant for themselves; nothing is written by a refusal, and what is not given stays."""
    with market.tx() as tx:
        with pytest.raises(Refusal, match="licence"):
            change_terms(tx, "mer_2", {"enabled": True, "release_hours": 5}, market.by)
        assert terms_of(tx, "mer_2") == Terms()
        change_terms(tx, "mer_2", {"enabled": True, "approve_above": {"XOF": 5}}, market.by, understood=True)
        change_terms(tx, "mer_2", {"enabled": False, "approve_above": {"EUR": 7}}, market.by)
        now = change_terms(tx, "mer_2", {"enabled": True, "approve_above": {"XOF": None}}, market.by)
        assert now == Terms(enabled=True, approve_above={"EUR": 7})
        for wrong in ({}, {"merchant_id": "mer_1"}, {"enabled": True, "understood": True}):
            with pytest.raises(Refusal, match="what to change"):
                change_terms(tx, "mer_2", wrong, market.by)


@pytest.mark.parametrize("number", ["123", "9780808", "+229019780808", "+22901978080801", "+22912345678", "+2376500"])
def test_a_number_that_nobody_has_is_no_payee(number: str) -> None:
    """A payer is only warned of it; what is paid to it is gone. Too short, too long, of no operator's old numbers."""
    with pytest.raises(Refusal) as refused:
        check(To("mobile_money", number, "Moussa", "BJ", "mtn"))
    assert refused.value.code == "bad_phone"
