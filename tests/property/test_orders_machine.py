"""
Orders against every order of arrival: whatever comes first, and in however many batches, the same set of facts leaves
the same order, told once; and the stock that is free, held and sold is always what was put on the shelf.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import Connection, func, select

from outbox.queue import Queue
from service.errors import Refusal
from service.ids import Ids
from service.merchants.audit import By
from service.merchants.tables import events
from service.orders import orders as order_steps
from service.orders import products as product_steps
from service.orders import sessions as session_steps
from service.orders.expire import MAX_HOLD_MS, Expirer
from service.orders.follow import Follow
from service.orders.orders import Draft, Line
from service.orders.owner import Whose
from service.orders.sessions import NewSession, Offer
from service.orders.settle import GiveBack
from service.orders.states import BOUGHT
from service.orders.tables import order_lines, orders, products, sessions
from service.payments.book import Book
from service.payments.facts import Fact, Kind, Source, Told
from service.payments.heard import Context
from service.payments.tables import attempts, payments
from service.schema import outbox_tables
from tests.property.test_book_machine import ACCOUNT, engine
from tests.support.clock import Clock

MINE = Whose("mer_1", False)
OURS = "caisse-here-"
EXACT = (5_000, "XOF")


class Shop:
    """A shop in memory: its shelf, its orders and sessions, and a provider that says what it is told to say."""

    def __init__(self, give_back: GiveBack | None = None) -> None:
        self.engine = engine()
        self.clock = Clock()
        numbers = itertools.count()
        self.ids = Ids(self.clock, lambda: next(numbers))
        self.queue = Queue(outbox_tables)
        self.follow = Follow(give_back)
        self.expirer = Expirer(None, None, self.queue, self.ids, self.clock, 0)  # type: ignore[arg-type]

    def close(self) -> None:
        """The database is gone."""
        self.engine.dispose()

    @contextmanager
    def tx(self) -> Iterator[Connection]:
        """One write transaction."""
        with self.engine.begin() as tx:
            yield tx

    @property
    def by(self) -> By:
        """A hand."""
        return By("test", self.clock(), self.ids)

    def product(self, stock: int | None, price_minor: int = 5_000) -> str:
        """Something on the shelf."""
        with self.tx() as tx:
            return product_steps.create(
                tx, MINE, self.by, name="Pagne", price_minor=price_minor, currency="XOF", stock=stock
            )

    def order(self, *lines: Line, **more: Any) -> str:
        """An order; without lines, of 5,000 F for something that needs no stock."""
        with self.tx() as tx:
            chosen = lines or (Line(1, description="Couture", unit_minor=5_000),)
            return order_steps.create(tx, self.queue, MINE, Draft(chosen, "XOF", **more), self.by)

    def session(self, **more: Any) -> NewSession:
        """A session."""
        with self.tx() as tx:
            return session_steps.create(tx, self.queue, MINE, Offer(**more), self.by)

    def pay(self, order_id: str | None = None, session_id: str | None = None, asked: tuple[int, str] = EXACT) -> str:
        """A payment as the desk records it: admitted, or refused with everything."""
        with self.tx() as tx:
            now_ms, payment_id = self.clock(), self.ids("pay")
            book = self.book(tx)
            row = {"id": payment_id, "merchant_id": "mer_1", "live": False, "provider": "stripe", "order_id": order_id,
                   "amount_minor": asked[0], "currency": asked[1], "session_id": session_id,
                   "created_at_ms": now_ms}  # fmt: skip
            attempt = {"id": self.ids("try"), "account_id": ACCOUNT.id, "provider": "stripe",
                       "reference": OURS + payment_id, "amount_minor": asked[0], "currency": asked[1]}  # fmt: skip
            book.begin(row, attempt)
            book.flush()
            if session_id is not None:
                session_steps.begin(tx, Context(self.queue, self.ids, now_ms), session_id, payment_id)
            elif order_id is not None:
                order_steps.admit(tx, payment_id)
        return payment_id

    def book(self, tx: Connection) -> Book:
        """The book of payments, with orders behind it."""
        return Book(tx, self.queue, self.ids, self.clock(), OURS, (self.follow,))

    def tell(self, *said: tuple[str, Fact]) -> None:
        """What the provider says of these payments, in one transaction."""
        with self.tx() as tx:
            book = self.book(tx)
            for payment_id, fact in said:
                book.hear(ACCOUNT, Told((f"ref_{payment_id}",), (fact,), OURS + payment_id), None)
            book.flush()

    def captured(self, payment_id: str, asked: tuple[int, str] = EXACT, at_ms: int | None = None) -> None:
        """The money has come."""
        self.tell((payment_id, captured(payment_id, asked, self.clock() if at_ms is None else at_ms)))

    def cancel(self, order_id: str) -> str:
        """A person cancels."""
        with self.tx() as tx:
            return order_steps.cancel(tx, self.queue, MINE, order_id, self.by)

    def expire(self, subject: str) -> None:
        """What the outbox does when the time is up."""
        with self.tx() as tx:
            self.expirer.look(tx, subject, self.clock())

    def seen(self, order_id: str) -> dict[str, Any]:
        """The order as merchants see it."""
        with self.tx() as tx:
            return order_steps.public(order_steps.one(tx, MINE, order_id))

    def seen_session(self, session_id: str) -> dict[str, Any]:
        """The session as merchants see it."""
        with self.tx() as tx:
            return session_steps.public(session_steps.one(tx, MINE, session_id))

    def stock(self, product_id: str) -> int | None:
        """What is free to be sold."""
        with self.tx() as tx:
            return tx.execute(select(products.c.stock).where(products.c.id == product_id)).scalar()

    def told(self, prefix: str = "order.") -> list[str]:
        """The types of the events so far."""
        with self.tx() as tx:
            query = select(events.c.type).where(events.c.type.startswith(prefix)).order_by(events.c.position)
            return list(tx.execute(query).scalars())

    def bodies(self, type_: str) -> list[dict[str, Any]]:
        """The data of the events of a type."""
        with self.tx() as tx:
            found = tx.execute(select(events.c.body).where(events.c.type == type_).order_by(events.c.position))
            return [json.loads(body)["data"] for body in found.scalars()]


def captured(payment_id: str, asked: tuple[int, str] = EXACT, at_ms: int = 0, movement: str = "m") -> Fact:
    """A capture; another `movement` is other money."""
    return Fact(Kind.CAPTURED, f"{movement}_{payment_id}", at_ms, asked[0], None, asked[1], source=Source.ANSWER)


def fact(kind: Kind, payment_id: str, at_ms: int = 0, amount_minor: int | None = None) -> Fact:
    """Anything else."""
    movement = f"re_{payment_id}" if kind in (Kind.REFUND_SUCCEEDED, Kind.REFUND_PENDING) else f"m_{payment_id}"
    return Fact(kind, movement, at_ms, amount_minor, None, "XOF", source=Source.ANSWER)


def facts_of(*payment_ids: str) -> dict[str, list[tuple[str, Fact]]]:
    """Sets of facts about one order of 5,000 F and the payments that were made for it, one after the other failed."""
    first, second = payment_ids
    return {
        "paid": [(first, fact(Kind.PENDING, first, 1)), (first, captured(first, at_ms=9))],
        "declined, then paid after all": [
            (first, fact(Kind.FAILED, first, 2)), (first, fact(Kind.CANCELED, first, 3)),
            (first, captured(first, at_ms=9)),
        ],
        "two payments, both paid": [(first, captured(first, at_ms=8)), (second, captured(second, at_ms=9))],
        "the same payment paid twice": [
            (first, captured(first, at_ms=8)), (first, captured(first, at_ms=9, movement="n")),
        ],
        "too little, then the right amount": [
            (first, captured(first, (3_000, "XOF"), 7)), (first, captured(first, at_ms=8, movement="n")),
        ],
        "too little": [(first, captured(first, (4_999, "XOF"), 8)), (first, fact(Kind.PENDING, first, 1))],
        "too much": [(first, captured(first, (5_001, "XOF"), 8)), (first, fact(Kind.PENDING, first, 1))],
        "another currency": [(first, captured(first, (5_000, "EUR"), 8)), (first, fact(Kind.PENDING, first, 1))],
        "some goes back": [
            (first, captured(first, at_ms=8)), (second, captured(second, at_ms=8)),
            (second, fact(Kind.REFUND_SUCCEEDED, second, 9, 2_000)),
        ],
    }  # fmt: skip


FULFILLED = {
    "paid", "declined, then paid after all", "two payments, both paid", "the same payment paid twice",
    "too little, then the right amount", "some goes back",
}  # fmt: skip
NAMES = sorted(facts_of("a", "b"))


def cuts(items: Sequence[tuple[str, Fact]]) -> Iterator[list[Sequence[tuple[str, Fact]]]]:
    """The sequence in one batch, and one by one."""
    yield [items]
    yield [[item] for item in items]


@pytest.mark.parametrize("name", NAMES)
def test_every_order_of_arrival_leaves_the_same_order_fulfilled_once(name: str) -> None:
    """E3: every permutation of a set, in one transaction or in many, each fact also a second time."""
    ends: set[str] = set()
    for order in itertools.permutations(range(len(facts_of("a", "b")[name]))):
        for batches in (0, 1):
            shop = Shop()
            try:
                product = shop.product(10)
                order_id = shop.order(Line(1, product))
                first = shop.pay(order_id)
                shop.tell((first, fact(Kind.FAILED, first, 0)))
                second = shop.pay(order_id)
                said = facts_of(first, second)[name]
                for batch in list(cuts([said[i] for i in order]))[batches]:
                    shop.tell(*batch)
                    shop.tell(*batch)
                seen = shop.seen(order_id)
                paid = shop.told().count("order.paid")
                kept = ("state", "payment_status", "exceptions", "amount_paid")
                ends.add(json.dumps([{word: seen[word] for word in kept}, paid, shop.stock(product)]))
                assert paid == (name in FULFILLED), (name, order, batches, seen)
                assert (seen["fulfilled_at"] is not None) == (name in FULFILLED)
                assert (seen["state"] in BOUGHT) == (name in FULFILLED)
            finally:
                shop.close()
    assert len(ends) == 1, ends


def tried(what: Callable[[], str]) -> tuple[str | None, str]:
    """What it gave, or the code with which it was refused."""
    try:
        return what(), ""
    except Refusal as refused:
        return None, refused.code


class Stock(RuleBasedStateMachine):
    """
    Orders come, are paid, fail, expire, are cancelled, paid late and given back, in any order. Free + held + sold is
    what there was; nothing is ever below none; no order is fulfilled twice; none that holds its money right expires.
    """

    SHELF = 6

    @initialize()
    def begin(self) -> None:
        """A shelf with six."""
        self.shop = Shop()
        self.product = self.shop.product(self.SHELF, 1_000)
        self.orders: dict[str, int] = {}
        self.payments: dict[str, str] = {}

    def teardown(self) -> None:
        """The database is gone."""
        if hasattr(self, "shop"):
            self.shop.close()

    @rule(quantity=st.integers(1, 4), late=st.sampled_from(["ask", "revive"]))
    def buys(self, quantity: int, late: str) -> None:
        """Somebody orders; where there is too little, nothing is taken."""
        free = self.shop.stock(self.product)
        assert free is not None
        order_id, code = tried(lambda: self.shop.order(Line(quantity, self.product), Line(1, self.product), late=late))
        assert code == ("" if free >= quantity + 1 else "out_of_stock")
        if order_id is not None:
            self.orders[order_id] = (quantity + 1) * 1_000

    @rule(data=st.data())
    def tries_to_pay(self, data: st.DataObject) -> None:
        """A payment is begun, when the order takes one."""
        if self.orders:
            order_id = data.draw(st.sampled_from(sorted(self.orders)))
            payment_id, code = tried(lambda: self.shop.pay(order_id, asked=(self.orders[order_id], "XOF")))
            assert code in ("", "prompt_open", "order_not_payable", "bad_amount")
            if payment_id is not None:
                self.payments[payment_id] = order_id

    @rule(data=st.data(), kind=st.sampled_from([Kind.PENDING, Kind.FAILED, Kind.CANCELED, Kind.CAPTURED]),
          off=st.sampled_from([0, 0, 0, -1, 1]))  # fmt: skip
    def hears(self, data: st.DataObject, kind: Kind, off: int) -> None:
        """The provider says something."""
        if self.payments:
            payment_id = data.draw(st.sampled_from(sorted(self.payments)))
            amount = self.orders[self.payments[payment_id]] + off
            if kind is Kind.CAPTURED:
                self.shop.captured(payment_id, (amount, "XOF"))
            else:
                self.shop.tell((payment_id, fact(kind, payment_id, self.shop.clock())))

    @rule(data=st.data())
    def is_cancelled(self, data: st.DataObject) -> None:
        """A person cancels."""
        if self.orders:
            order_id = data.draw(st.sampled_from(sorted(self.orders)))
            _, code = tried(lambda: self.shop.cancel(order_id))
            assert code in ("", "not_cancelable")

    @rule(minutes=st.sampled_from([1, 30, 61, MAX_HOLD_MS // 60_000]))
    def time_passes(self, minutes: int) -> None:
        """And whatever is due is looked at."""
        self.shop.clock.advance(minutes * 60_000)
        for order_id in self.orders:
            self.shop.expire(order_id)

    @invariant()
    def nothing_is_lost_or_sold_twice(self) -> None:
        """The shelf adds up, and what was fulfilled is paid for."""
        if not hasattr(self, "shop"):
            return
        with self.shop.tx() as tx:
            held = int(tx.execute(select(func.coalesce(func.sum(order_lines.c.held), 0))).scalar_one())
            rows = {row.id: row for row in tx.execute(select(orders))}
            empty = select(order_lines.c.order_id).where(order_lines.c.held > 0)
            holding = set(tx.execute(empty).scalars())
        assert (self.shop.stock(self.product) or 0) + held == self.SHELF
        paid = [body["order"]["id"] for body in self.shop.bodies("order.paid")]
        assert len(paid) == len(set(paid))
        for id_, row in rows.items():
            ended = row.state in ("expired", "canceled")
            assert (id_ in holding) != ended, row.state
            assert (row.fulfilled_at_ms is not None) == (id_ in paid) == (row.state in BOUGHT)
            if row.state in BOUGHT:
                assert row.paid_minor >= row.amount_minor


TestStock = Stock.TestCase
TestStock.settings = settings(max_examples=max(10, settings().max_examples // 2))


def test_the_helper_asks_for_payments_like_the_desk_does() -> None:
    """The control: what it records is a payment of ours with one live attempt."""
    shop = Shop()
    try:
        payment_id = shop.pay()
        with shop.tx() as tx:
            row = tx.execute(select(payments).where(payments.c.id == payment_id)).one()
            attempt = tx.execute(select(attempts).where(attempts.c.payment_id == payment_id)).one()
            assert tx.execute(select(func.count()).select_from(sessions)).scalar_one() == 0
        assert (row.origin, row.status, attempt.state) == ("caisse", "pending", "submitting")
    finally:
        shop.close()
