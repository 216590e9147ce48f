"""A refund that is made as a payout: what the ledger has at each step, and that nobody is given the money twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, update

from service.callbacks.process import Report
from service.errors import Refusal
from service.escrow import refund_payouts
from service.escrow.pay_out import Payer
from service.escrow.payout_rows import move, one, public
from service.escrow.payouts import Payouts
from service.escrow.refund_payouts import follow, open_payout
from service.escrow.states import PayoutStep
from service.escrow.tables import payees_personal
from service.merchants.tables import audit
from service.payments.book import Book
from service.payments.facts import Kind
from service.payments.heard import Context
from service.payments.refund_rows import one as one_refund
from service.payments.refund_send import Refunder
from service.payments.refunds import Refunds
from service.payments.tables import attention, payers, payments
from service.providers import PAYOUTS
from service.providers.calls import Lost
from service.providers.payouts import PaidOut, PayoutRefused, PayoutTold
from tests.property.test_orders_machine import OURS
from tests.support.escrow import Market
from tests.support.escrow_check import problems

PAID, FAILED, RETURNED = (PayoutTold(stage, ("77",)) for stage in ("paid", "failed", "returned"))


class Bazaar(Market):
    """A market whose provider gives nothing back, and pays out to wallets as Moneroo does; one call is one method."""

    def __init__(self) -> None:
        super().__init__(payout_on_release=False)
        self.refunds = Refunds(self.queue, {}, paid_out_by=open_payout)
        self.followers = self.refunds.follow, *self.followers[1:]
        paying = {"stripe": PAYOUTS["moneroo"]}
        nobody: Any = None
        books: Any = self
        said: Any = (nobody, self.queue, books, nobody, lambda: self.registry)
        self.refunder = Refunder(*said, {}, self.ids, self.clock, open_payout)
        self.payouts = Payouts(self.queue, lambda: self.registry, paying, OURS, self.moved)
        self.payer = Payer(*said, paying, self.ids, self.clock, lambda _: "", self.moved)

    def moved(self, *of: Any) -> None:
        """As the application hands it on."""
        follow(of[0], self.refunder, *of[1:])

    def book(self, tx: Connection, now_ms: int = 0) -> Book:
        """Also what a syncer has."""
        return super().book(tx)

    def close(self, tx: Connection = None, book: Any = None, now_ms: int = 0) -> Any:  # type: ignore[assignment]
        """The book is written; without one, the database is gone."""
        if book is None:
            return super().close()
        book.flush()
        return Report()

    def wallet(self, payment_id: str, **more: str) -> None:
        """Who has paid, and how."""
        known = {"name": "Awa Koné", "payer_phone": "+2250700000001", "operator": "mtn", "country": "CI"} | more
        personal = {name: known.pop(name) for name in ("name", "payer_phone")}
        with self.tx() as tx:
            tx.execute(update(payments).where(payments.c.id == payment_id).values(known))
            tx.execute(insert(payers).values(payment_id=payment_id, **personal))

    def sold_by_wallet(self) -> tuple[str, str]:
        """An order for the seller, paid from a wallet. Returns its id and its payment's."""
        order_id, payment_id = self.sold()
        self.wallet(payment_id)
        return order_id, payment_id

    def pay_back(self, refund_id: str) -> str:
        """Somebody asks for a payout that makes this refund."""
        with self.tx() as tx:
            return str(self.payouts.refund_by_payout(tx, refund_id, self.by)["id"])

    def approve(self, payout_id: str) -> None:
        """A second person agrees."""
        with self.tx() as tx:
            self.payouts.approve(tx, payout_id, "seen", self.by_another())

    def begin(self, payout_id: str) -> Any:
        """What the outbox does before the call."""
        (entry,) = self.registry
        with self.tx() as tx:
            return self.payer._begin(tx, payout_id, entry, False)

    def send(self, payout_id: str, result: PaidOut) -> str:
        """It is sent, and this comes of it; its state."""
        todo = self.begin(payout_id)
        assert todo.send and todo.paying.purpose == "refund" and todo.paying.payee.number == "+2250700000001"
        with self.tx() as tx:
            self.payer._heard(tx, todo, result)
        return str(self.payout(payout_id)["state"])

    def told(self, payout_id: str, told: PayoutTold) -> str:
        """The provider says it later; its state."""
        with self.tx() as tx:
            self.payer._told(tx, one(tx, payout_id), told)
        return str(self.payout(payout_id)["state"])

    def is_refund(self, refund_id: str) -> tuple[str, int]:
        """Its state, and what of its payment went back in all."""
        with self.tx() as tx:
            row = one_refund(tx, refund_id)
            back = tx.execute(select(payments.c.refunded_minor).where(payments.c.id == row["payment_id"]))
            return row["state"], back.scalar_one()

    def matters(self) -> list[str]:
        """Why something is before a person."""
        with self.tx() as tx:
            open_ = select(attention.c.reason).where(attention.c.closed_at_ms.is_(None))
            return sorted(tx.execute(open_).scalars())

    def sound(self) -> dict[str, int]:
        """The balances, of a ledger that adds up."""
        with self.tx() as tx:
            assert problems(tx) == []
        return self.balances()


@pytest.fixture
def bazaar(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bazaar]:
    """One, where the market's only provider is one that has no refunds."""
    monkeypatch.setattr(refund_payouts, "BY_PAYOUT", {"stripe"})
    made = Bazaar()
    yield made
    made.close()


def test_the_ledger_has_the_money_once(bazaar: Bazaar) -> None:
    """Reserved from the merchant while it is open; paid it is a refund, and the hold has shrunk by it."""
    order_id, payment_id = bazaar.sold_by_wallet()
    refund = bazaar.refund(payment_id, 2_000)
    payout = bazaar.pay_back(refund)
    assert bazaar.payout(payout)["state"] == "awaiting_approval", "whatever the merchant's terms say"
    assert bazaar.sound() == {"float": 5_000, "escrow": 5_000, "merchant": -2_000, "reserved": 2_000}
    bazaar.approve(payout)
    assert bazaar.send(payout, PayoutTold("in_transit", ("77",))) == "in_transit"
    assert bazaar.is_refund(refund) == ("queued", 0)
    assert bazaar.told(payout, PAID) == "paid"
    assert bazaar.is_refund(refund) == ("succeeded", 2_000)
    assert bazaar.sound() == {"float": 3_000, "escrow": 3_000}
    assert bazaar.hold_of(order_id)["refunded_minor"] == 2_000
    assert bazaar.matters() == []
    assert bazaar.told(payout, PAID) == "paid" and bazaar.sound() == {"float": 3_000, "escrow": 3_000}
    assert (public(bazaar.payout(payout))["refund"], bazaar.payout(payout)["beneficiary_id"]) == (refund, None)


def test_a_fee_of_the_payout_is_the_merchants(bazaar: Bazaar) -> None:
    """The refund's fact knows nothing of it, so the payout posts it."""
    _, payment_id = bazaar.sold_by_wallet()
    payout = bazaar.pay_back(bazaar.refund(payment_id))
    bazaar.approve(payout)
    bazaar.send(payout, PayoutTold("paid", ("77",), fee_minor=50))
    assert bazaar.sound() == {"float": -50, "fees": 50}


@pytest.mark.parametrize("end", ["failed", "refused", "canceled", "decided", "returned unpaid"])
def test_what_was_not_paid_leaves_the_refund_to_a_person_and_may_be_tried_again(bazaar: Bazaar, end: str) -> None:
    """The money is the merchant's again, the refund waits as before, and another payout, linked to it, pays it."""
    _, payment_id = bazaar.sold_by_wallet()
    refund = bazaar.refund(payment_id)
    first = bazaar.pay_back(refund)
    if end == "canceled":
        with bazaar.tx() as tx:
            bazaar.payouts.cancel(tx, first, "typo", bazaar.by)
    else:
        bazaar.approve(first)
        bazaar.send(first, {"failed": FAILED, "refused": PayoutRefused("bad_account"), "decided": Lost("timeout"),
                            "returned unpaid": RETURNED}[end])  # fmt: skip
    if end == "decided":
        with bazaar.tx() as tx:
            bazaar.payouts.decide(tx, first, "failed", "it is not there", bazaar.by)
    assert bazaar.is_refund(refund) == ("queued", 0)
    assert "refund_manual" in bazaar.matters()
    assert bazaar.sound() == {"float": 5_000, "escrow": 5_000}
    with bazaar.tx() as tx:
        second = bazaar.payouts.retry(tx, first, bazaar.by)
    assert (second["retry_of"], second["state"], second["refund_id"]) == (first, "awaiting_approval", refund)
    bazaar.approve(second["id"])
    bazaar.send(second["id"], PAID)
    assert bazaar.is_refund(refund) == ("succeeded", 5_000)
    assert bazaar.sound() == {}


def test_what_comes_back_makes_the_refund_fail(bazaar: Bazaar) -> None:
    """The money is here again, a person sees it, and a new refund can be paid out anew."""
    _, payment_id = bazaar.sold_by_wallet()
    refund = bazaar.refund(payment_id, 2_000)
    payout = bazaar.pay_back(refund)
    bazaar.approve(payout)
    bazaar.send(payout, PAID)
    assert bazaar.told(payout, RETURNED) == "returned"
    assert bazaar.is_refund(refund) == ("failed", 0)
    assert bazaar.matters() == ["payout_returned", "refund_failed"]
    assert bazaar.sound() == {"float": 5_000, "escrow": 5_000}
    with bazaar.tx() as tx, pytest.raises(Refusal, match="is failed"):
        bazaar.payouts.retry(tx, payout, bazaar.by)
    again = bazaar.pay_back(bazaar.refund(payment_id))
    bazaar.approve(again)
    bazaar.send(again, PAID)
    assert bazaar.sound() == {}


def test_nobody_ends_by_hand_what_a_payout_may_be_making(bazaar: Bazaar) -> None:
    """Done and given up are refused until the payout is over, also while nobody knows what became of it."""
    _, payment_id = bazaar.sold_by_wallet()
    refund = bazaar.refund(payment_id)
    payout = bazaar.pay_back(refund)

    def refused() -> None:
        ends = bazaar.refunder.mark_done, bazaar.refunds.give_up
        for end in ends:
            with bazaar.tx() as tx, pytest.raises(Refusal) as no:
                end(tx, refund, "I did it", bazaar.by)
            assert no.value.code == "payout_open"
        with bazaar.tx() as tx, pytest.raises(Refusal) as no:
            bazaar.payouts.refund_by_payout(tx, refund, bazaar.by)
        assert no.value.code == "payout_open"

    refused()
    bazaar.approve(payout)
    assert bazaar.send(payout, Lost("timeout")) == "unknown"
    refused()
    with bazaar.tx() as tx:
        bazaar.payouts.decide(tx, payout, "failed", "it is not there", bazaar.by)
        bazaar.refunder.mark_done(tx, refund, "from my own phone", bazaar.by)
    assert bazaar.is_refund(refund) == ("succeeded", 5_000)
    with bazaar.tx() as tx, pytest.raises(Refusal) as no:
        bazaar.payouts.refund_by_payout(tx, refund, bazaar.by)
    assert no.value.code == "not_manual"
    assert bazaar.sound() == {}


def test_a_refund_that_was_made_meanwhile_is_not_paid_out(bazaar: Bazaar) -> None:
    """The provider tells of it before the payout is sent: it cannot be approved, and one that was is called off."""
    _, payment_id = bazaar.sold_by_wallet()
    waits, approved = (bazaar.pay_back(bazaar.refund(payment_id, minor)) for minor in (2_000, 3_000))
    bazaar.approve(approved)
    for minor in (2_000, 3_000):
        bazaar.said(payment_id, Kind.REFUND_SUCCEEDED, f"re_{minor}", minor)
    with bazaar.tx() as tx, pytest.raises(Refusal) as no:
        bazaar.payouts.approve(tx, waits, "seen", bazaar.by_another())
    assert no.value.code == "refund_over"
    assert bazaar.begin(approved) is None
    assert bazaar.payout(approved)["state"] == "canceled"
    with bazaar.tx() as tx:
        bazaar.payouts.cancel(tx, waits, "", bazaar.by)
    assert bazaar.sound() == {}


def test_one_that_was_paid_after_all_is_the_refund_and_the_next_one_stops(bazaar: Bazaar) -> None:
    """Called failed, tried again, then said to be paid: the money went once, and the second payout goes nowhere."""
    _, payment_id = bazaar.sold_by_wallet()
    refund = bazaar.refund(payment_id, 2_000)
    first = bazaar.pay_back(refund)
    bazaar.approve(first)
    bazaar.send(first, FAILED)
    second = bazaar.pay_back(refund)
    bazaar.approve(second)
    assert bazaar.told(first, PAID) == "paid"
    assert bazaar.is_refund(refund) == ("succeeded", 2_000)
    assert bazaar.begin(second) is None and bazaar.payout(second)["state"] == "canceled"
    assert bazaar.sound() == {"float": 3_000, "escrow": 3_000}
    assert bazaar.told(first, RETURNED) == "returned"
    assert bazaar.is_refund(refund) == ("failed", 0)
    assert bazaar.sound() == {"float": 5_000, "escrow": 5_000}


def test_money_that_went_twice_is_seen_twice(bazaar: Bazaar) -> None:
    """Both were paid, whatever the provider had said: both are in the ledger, and a person sees the one too many."""
    _, payment_id = bazaar.sold_by_wallet()
    refund = bazaar.refund(payment_id, 1_000)
    first = bazaar.pay_back(refund)
    bazaar.approve(first)
    bazaar.send(first, FAILED)
    second = bazaar.pay_back(refund)
    bazaar.approve(second)
    bazaar.send(second, PAID)
    assert bazaar.told(first, PAID) == "paid"
    assert bazaar.is_refund(refund) == ("succeeded", 2_000)
    assert {"payout_paid_after_all", "refund_not_ours"} <= set(bazaar.matters())
    assert bazaar.sound()["float"] == 3_000


def test_a_refund_given_up_and_paid_after_all_is_made(bazaar: Bazaar) -> None:
    """A person believed the provider's word that it had failed; the money went, so the refund is no longer off."""
    _, payment_id = bazaar.sold_by_wallet()
    refund = bazaar.refund(payment_id, 1_000)
    payout = bazaar.pay_back(refund)
    bazaar.approve(payout)
    bazaar.send(payout, FAILED)
    with bazaar.tx() as tx:
        bazaar.refunds.give_up(tx, refund, "they came by", bazaar.by)
    bazaar.told(payout, PAID)
    assert bazaar.is_refund(refund) == ("succeeded", 1_000)
    assert bazaar.sound() == {"float": 4_000, "escrow": 4_000}


def test_whoever_asks_for_it_cannot_approve_it(bazaar: Bazaar) -> None:
    """However small it is."""
    _, payment_id = bazaar.sold_by_wallet()
    payout = bazaar.pay_back(bazaar.refund(payment_id, 100))
    with bazaar.tx() as tx, pytest.raises(Refusal) as no:
        bazaar.payouts.approve(tx, payout, "fine", bazaar.by)
    assert no.value.code == "second_person"


@pytest.mark.parametrize("lacks", ["payer_phone", "operator", "name"])
def test_a_payer_who_is_not_known_is_named_by_what_is_missing(bazaar: Bazaar, lacks: str) -> None:
    """The refund stays a person's, and nothing is kept of the attempt."""
    _, payment_id = bazaar.sold()
    bazaar.wallet(payment_id, **{lacks: ""})
    refund = bazaar.refund(payment_id)
    with pytest.raises(Refusal, match=f": {lacks} missing") as no:
        bazaar.pay_back(refund)
    assert no.value.code == "payer_unknown"
    assert bazaar.is_refund(refund) == ("queued", 0)
    with bazaar.tx() as tx:
        assert tx.execute(select(payees_personal).where(payees_personal.c.number.startswith("+"))).all() == []


def test_where_there_is_no_way_it_is_said(bazaar: Bazaar, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator that the account cannot pay out to, and a provider whose refunds are made elsewhere."""
    _, payment_id = bazaar.sold()
    bazaar.wallet(payment_id, operator="free")
    refund = bazaar.refund(payment_id)
    with pytest.raises(Refusal) as no:
        bazaar.pay_back(refund)
    assert no.value.code == "no_way"
    monkeypatch.setattr(refund_payouts, "BY_PAYOUT", {"moneroo"})
    with pytest.raises(Refusal, match="Refunds of stripe are not made by payout") as no:
        bazaar.pay_back(refund)
    assert no.value.code == "no_way"


def test_the_audit_trail_of_the_refund_tells_of_its_payouts(bazaar: Bazaar) -> None:
    """A payment's timeline shows what was written down of its refunds: asked for, failed, paid."""
    _, payment_id = bazaar.sold_by_wallet()
    refund = bazaar.refund(payment_id)
    for result in (FAILED, PAID):
        payout = bazaar.pay_back(refund)
        bazaar.approve(payout)
        bazaar.send(payout, result)
    with bazaar.tx() as tx:
        query = select(audit.c.action, audit.c.actor).where(audit.c.subject == refund).order_by(audit.c.id)
        told = [tuple(row) for row in tx.execute(query)]
    assert told == [
        ("refund.created", "test"), ("refund.payout", "test"), ("refund.payout_failed", "payout"),
        ("refund.payout", "test"), ("refund.paid_out", "payout"),
    ]  # fmt: skip


def test_a_payout_of_a_hold_that_was_paid_after_all_makes_way(bazaar: Bazaar) -> None:
    """The same of a hold, which has one payout at a time: the second keeps it, and both stand in the ledger."""
    order_id, _ = bazaar.sold()
    hold = bazaar.hold_of(order_id)["id"]
    bazaar.release(hold)
    bazaar.payouts = Payouts(bazaar.queue, lambda: bazaar.registry, PAYOUTS, OURS)
    first = bazaar.pay_out(5_000, hold_id=hold)
    context = Context(bazaar.queue, bazaar.ids, bazaar.clock())
    with bazaar.tx() as tx:
        for step in (PayoutStep.SENDING, PayoutStep.SAID_FAILED):
            move(tx, one(tx, first), step, context)
        second = bazaar.payouts.retry(tx, first, bazaar.by)["id"]
        move(tx, one(tx, first), PayoutStep.SAID_PAID, context)
    assert [(row["state"], row["hold_id"]) for row in map(bazaar.payout, (first, second))] == [
        ("paid", None), ("queued", hold),
    ]  # fmt: skip
    assert bazaar.sound() == {"beneficiary": -5_000, "reserved": 5_000}
