"""A shop in memory that holds money for sellers: orders, ledger, holds and payouts, with a provider that is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import insert, select

from service.escrow import beneficiaries as steps
from service.escrow.beneficiaries import To
from service.escrow.hold_rows import of_token
from service.escrow.hold_rows import one as one_hold
from service.escrow.holds import Holds
from service.escrow.payout_rows import one as one_payout
from service.escrow.payouts import Draft as PayoutDraft
from service.escrow.payouts import Payouts
from service.escrow.states import HoldStep
from service.escrow.tables import holds
from service.escrow.terms import Terms, set_terms
from service.ledger.ledger import on_its_side
from service.ledger.payments import follow as follow_ledger
from service.ledger.tables import ledger_accounts, ledger_checks
from service.merchants.accounts import Entry, Registry
from service.merchants.audit import By
from service.orders import orders as order_steps
from service.orders.follow import Follow, refund_ended
from service.payments.book import Book
from service.payments.facts import Fact, Kind, Source
from service.payments.refunds import Refunds
from service.providers import CALLS, PAYOUTS
from service.providers.payouts import Payouts as Provider
from tests.property.test_book_machine import ACCOUNT
from tests.property.test_orders_machine import MINE, OURS, Shop

SELLER = To("account", "acct_1Seller", "Moussa")
FREELY = {"XOF": 10**9}


class Market(Shop):
    """
    Stripe pays, and pays out. `available`, `held` and the rest read the ledger; `hold` and `payout` the rows.
    """

    def __init__(self, paying: Mapping[str, Provider] = PAYOUTS, **terms: Any) -> None:
        super().__init__()
        chosen: dict[str, Any] = {"enabled": True, "approve_above": FREELY} | terms
        entry = Entry(ACCOUNT.id, "stripe", "mer_1", False, "http://stripe.test", {"secret_key": ("sk_test_1",)})
        self.registry = Registry([entry])
        self.payouts = Payouts(self.queue, lambda: self.registry, paying, OURS)
        self.holds = Holds(self.queue, self.payouts.pay_out)
        self.refunds = Refunds(self.queue, CALLS, ended=refund_ended)
        self.followers = self.refunds.follow, Follow(), follow_ledger
        with self.tx() as tx:
            set_terms(tx, "mer_1", Terms(**chosen), self.by)
            self.seller = steps.create(tx, MINE, "XOF", SELLER, self.by)

    def book(self, tx: Any) -> Book:
        """The book of payments, with all that follows it."""
        return Book(tx, self.queue, self.ids, self.clock(), OURS, self.followers)

    def sold(self, price_minor: int = 5_000, **more: Any) -> tuple[str, str]:
        """An order for the seller, paid. Returns its id and its payment's."""
        line = order_steps.Line(1, description="Couture", unit_minor=price_minor)
        order_id = self.order(line, beneficiary_id=self.seller, **more)
        payment_id = self.pay(order_id, asked=(price_minor, "XOF"))
        self.captured(payment_id, (price_minor, "XOF"))
        return order_id, payment_id

    def deliver(self, order_id: str) -> None:
        """The seller has handed it over."""
        with self.tx() as tx:
            order_steps.deliver(tx, self.queue, MINE, order_id, self.by)

    def refund(self, payment_id: str, amount_minor: int | None = None) -> str:
        """A refund is asked for; nothing is sent."""
        with self.tx() as tx:
            return str(self.refunds.create(tx, payment_id, amount_minor, "wrong size", self.by)["id"])

    def said(self, payment_id: str, kind: Kind, movement: str, amount_minor: int | None = None) -> None:
        """The provider says something about money of a payment."""
        fact = Fact(kind, movement, self.clock(), amount_minor, None, "XOF", source=Source.CALLBACK)
        self.tell((payment_id, fact))

    def release(self, hold_id: str) -> None:
        """A person of the merchant's releases it."""
        with self.tx() as tx:
            self.holds.release(tx, hold_id, "the buyer called", self.by)

    def release_due(self) -> Mapping[str, int]:
        """What the clock does."""
        with self.tx() as tx:
            return self.holds.release_due(tx, self.by)

    def pay_out(self, amount_minor: int, **more: Any) -> str:
        """Somebody asks for a payout to the seller."""
        with self.tx() as tx:
            draft = PayoutDraft(self.seller, amount_minor, "XOF", **more)
            return str(self.payouts.request(tx, MINE, draft, self.by)["id"])

    def by_another(self) -> By:
        """A second person's hand."""
        return By("second", self.clock(), self.ids)

    def confirm(self, order_id: str) -> None:
        """The buyer has it, and says so with their own token."""
        with self.tx() as tx:
            token = self.holds.link(tx, self.hold_of_in(tx, order_id)["id"], self.by)
            hold = of_token(tx, order_id, token)
            self.holds.release(tx, hold["id"], "", By("buyer", self.clock(), self.ids), HoldStep.CONFIRMED)

    def checked(self, *, sound: bool) -> None:
        """The ledger was looked at."""
        with self.tx() as tx:
            now_ms = self.clock()
            row = {"id": self.ids("chk"), "begun_at_ms": now_ms, "ended_at_ms": now_ms, "sound": sound}
            tx.execute(insert(ledger_checks), row | {"looked": "{}", "problems": "[]", "actor": "test"})

    def hold_of_in(self, tx: Any, order_id: str) -> dict[str, Any]:
        """The hold of an order, in a transaction."""
        return one_hold(tx, tx.execute(select(holds.c.id).where(holds.c.order_id == order_id)).scalar_one())

    def hold_of(self, order_id: str) -> dict[str, Any]:
        """The hold of an order."""
        with self.tx() as tx:
            return self.hold_of_in(tx, order_id)

    def payout(self, payout_id: str) -> dict[str, Any]:
        """A payout's row."""
        with self.tx() as tx:
            return one_payout(tx, payout_id)

    def balances(self, currency: str = "XOF") -> dict[str, int]:
        """Every account of the ledger, by kind, summed over owners; those that are empty are left out."""
        found: dict[str, int] = {}
        with self.tx() as tx:
            for row in tx.execute(select(ledger_accounts).where(ledger_accounts.c.currency == currency)):
                now = on_its_side(row.kind, row.debits_minor, row.credits_minor)
                found[row.kind] = found.get(row.kind, 0) + now
        return {kind: minor for kind, minor in found.items() if minor}
