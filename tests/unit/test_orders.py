"""Orders in memory: what is refused, how they are paid, delivered and given back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import insert, select

from service.errors import NotFound, Refusal
from service.orders import orders as order_steps
from service.orders import products as product_steps
from service.orders import rules
from service.orders.orders import EXPIRES_MS, LINES_MAX, Line
from service.orders.owner import Whose
from service.orders.rules import Money
from service.payments.facts import Kind
from service.payments.tables import attempts, attention, payments, refunds
from service.schema import outbox_tables
from tests.property.test_orders_machine import MINE, Shop, captured, fact

HOUR_MS = 3_600_000


@pytest.fixture
def shop() -> Iterator[Shop]:
    """A shop in memory."""
    made = Shop()
    yield made
    made.close()


def code(shop: Shop, step: Any, *args: Any, **more: Any) -> str:
    """The code with which a step is refused."""
    with pytest.raises(Refusal) as refused, shop.tx() as tx:
        step(tx, *args, **more)
    assert refused.value.sentence
    return refused.value.code


def open_matters(shop: Shop, subject: str) -> set[str]:
    """What a person should look at."""
    with shop.tx() as tx:
        query = select(attention.c.reason).where(attention.c.subject == subject, attention.c.closed_at_ms.is_(None))
        return set(tx.execute(query).scalars())


def owed(shop: Shop, topic: str) -> list[str]:
    """Subjects of the outbox's messages of a topic."""
    messages = outbox_tables.messages
    with shop.tx() as tx:
        return list(tx.execute(select(messages.c.subject).where(messages.c.topic == topic)).scalars())


def refunded(shop: Shop, payment_id: str, amount_minor: int, *, by_us: bool = True) -> None:
    """Money goes back; the row says by whom."""
    with shop.tx() as tx:
        attempt = tx.execute(select(attempts.c.id).where(attempts.c.payment_id == payment_id)).scalar_one()
        row = {"id": shop.ids("rf"), "payment_id": payment_id, "attempt_id": attempt,
               "origin": "caisse" if by_us else "external", "state": "pending", "amount_minor": amount_minor,
               "currency": "XOF", "manual": False, "actor": "test", "created_at_ms": 1, "updated_at_ms": 1}  # fmt: skip
        tx.execute(insert(refunds), row)
    said = replace(fact(Kind.REFUND_SUCCEEDED, payment_id, 9, amount_minor), movement=shop.ids("re"))
    shop.tell((payment_id, said))


# --- making one ---------------------------------------------------------------------------------------


def test_an_order_takes_its_stock_or_is_not_there_at_all(shop: Shop) -> None:
    """Two lines of one product count together; what is refused leaves no row and no hole in the shelf."""
    product = shop.product(3)
    order_id = shop.order(Line(1, product), Line(1, product))
    assert shop.stock(product) == 1
    assert shop.seen(order_id)["amount"] == 10_000
    draft = order_steps.Draft((Line(1, product), Line(1, product)), "XOF")
    assert code(shop, order_steps.create, shop.queue, MINE, draft, shop.by) == "out_of_stock"
    assert shop.stock(product) == 1
    with shop.tx() as tx:
        assert len(order_steps.listed(tx, MINE)) == 1
    assert shop.told() == ["order.created"]


def test_what_is_unlimited_is_neither_taken_nor_given_back(shop: Shop) -> None:
    """A product that gets a stock while an order waits is not topped up by what it never gave."""
    product = shop.product(None)
    order_id = shop.order(Line(4, product))
    with shop.tx() as tx:
        product_steps.set_stock(tx, MINE, product, shop.by, 5)
    shop.cancel(order_id)
    assert shop.stock(product) == 5


def test_a_product_keeps_its_stock_above_nothing(shop: Shop) -> None:
    """Added and taken by hand, never below none; unlimited has no number to add to."""
    product = shop.product(2)
    with shop.tx() as tx:
        assert product_steps.add_stock(tx, MINE, product, shop.by, -2) == 0
        assert product_steps.add_stock(tx, MINE, product, shop.by, 7) == 7
    assert code(shop, product_steps.add_stock, MINE, product, shop.by, -8) == "out_of_stock"
    assert code(shop, product_steps.add_stock, MINE, shop.product(None), shop.by, 1) == "bad_stock"
    with shop.tx() as tx:
        product_steps.change(tx, MINE, product, shop.by, name=" Pagne wax ", price_minor=6_000, active=False)
        seen = product_steps.public(product_steps.one(tx, MINE, product))
        assert (seen["name"], seen["price"], seen["active"]) == ("Pagne wax", 6_000, False)
        assert [row["id"] for row in product_steps.listed(tx, MINE, active=False)] == [product]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"name": " "}, "bad_name"), ({"name": "a\0"}, "bad_name"), ({"name": "x" * 201}, "bad_name"),
        ({"price_minor": 0}, "bad_price"), ({"price_minor": -1}, "bad_price"), ({"price_minor": 12.5}, "bad_price"),
        ({"price_minor": True}, "bad_price"), ({"price_minor": 2**63}, "bad_price"),
        ({"currency": "FCFA"}, "bad_currency"), ({"currency": "xof"}, "bad_currency"),
        ({"stock": -1}, "bad_stock"), ({"stock": 1.0}, "bad_stock"),
    ],
)  # fmt: skip
def test_a_bad_product_is_refused_by_name(shop: Shop, more: dict[str, Any], expected: str) -> None:
    """Amounts are integers of minor units."""
    given = {"name": "Pagne", "price_minor": 5_000, "currency": "XOF", "stock": 1} | more
    assert code(shop, product_steps.create, MINE, shop.by, **given) == expected


FREE = Line(1, description="Couture", unit_minor=5_000)


@pytest.mark.parametrize(
    ("draft", "expected"),
    [
        ({"lines": ()}, "bad_lines"),
        ({"lines": (FREE,) * (LINES_MAX + 1)}, "bad_lines"),
        ({"lines": (Line(1, description="?"),)}, "bad_lines"),
        ({"lines": (Line(1, unit_minor=5),)}, "bad_lines"),
        ({"lines": (Line(0, description="?", unit_minor=5),)}, "bad_lines"),
        ({"lines": (Line(1, description="?", unit_minor=-5),)}, "bad_lines"),
        ({"lines": (Line(1, description="?", unit_minor=0),)}, "bad_amount"),
        ({"lines": (Line(1_000_000, description="?", unit_minor=10**15),)}, "bad_amount"),
        ({"lines": (Line(1, "prod_nobody"),)}, "bad_lines"),
        ({"amount_minor": 4_999}, "bad_amount"),
        ({"currency": "ABC"}, "bad_currency"),
        ({"late": "maybe"}, "bad_late"),
        ({"expires_at_ms": 1}, "bad_expires_at"),
        ({"reference": "x" * 501}, "bad_reference"),
        ({"metadata": {"": "x"}}, "bad_metadata"),
    ],
)  # fmt: skip
def test_a_bad_order_is_refused_by_name(shop: Shop, draft: dict[str, Any], expected: str) -> None:
    """Nothing half done: no row, no stock taken, nothing told."""
    wanted = order_steps.Draft(**{"lines": (FREE,), "currency": "XOF"} | draft)
    assert code(shop, order_steps.create, shop.queue, MINE, wanted, shop.by) == expected
    assert shop.told() == []


def test_another_merchants_order_and_the_other_mode_are_not_there(shop: Shop) -> None:
    """R10: 404, whichever step is tried."""
    order_id = shop.order()
    for other in (Whose("mer_2", False), Whose("mer_1", True)):
        with shop.tx() as tx:
            assert order_steps.listed(tx, other) == []
        steps = (order_steps.cancel, order_steps.deliver, order_steps.complete)
        assert {code(shop, step, shop.queue, other, order_id, shop.by) for step in steps} == {"not_found"}
        with pytest.raises(NotFound), shop.tx() as tx:
            order_steps.one(tx, other, order_id)


# --- paying -------------------------------------------------------------------------------------------


def test_one_live_payment_at_a_time_and_no_more_than_is_left(shop: Shop) -> None:
    """B1a over the whole order, whichever door the second attempt comes by; instalments make up the sum."""
    order_id = shop.order()
    first = shop.pay(order_id, asked=(2_000, "XOF"))
    with pytest.raises(Refusal) as refused:
        shop.pay(order_id, asked=(3_000, "XOF"))
    assert refused.value.code == "prompt_open"
    shop.captured(first, (2_000, "XOF"))
    seen = shop.seen(order_id)
    assert (seen["state"], seen["payment_status"], seen["amount_paid"]) == ("awaiting_payment", "partially_paid", 2_000)
    for asked, expected in (((3_001, "XOF"), "bad_amount"), ((3_000, "EUR"), "bad_currency")):
        with pytest.raises(Refusal) as refused:
            shop.pay(order_id, asked=asked)
        assert refused.value.code == expected
    shop.captured(shop.pay(order_id, asked=(3_000, "XOF")), (3_000, "XOF"))
    assert shop.seen(order_id)["state"] == "paid"
    with pytest.raises(Refusal) as refused:
        shop.pay(order_id, asked=(1, "XOF"))
    assert refused.value.code == "order_not_payable"


def test_an_order_takes_no_attempt_after_its_time_whether_or_not_somebody_has_looked(shop: Shop) -> None:
    """The clock counts, not the message that comes a moment later; the same for a session."""
    order_id = shop.order()
    session = shop.session(currency="XOF", amount_minor=5_000)
    shop.clock.advance(EXPIRES_MS)
    for wanted, expected in (((order_id, None), "order_not_payable"), ((None, session.id), "session_not_open")):
        with pytest.raises(Refusal) as refused:
            shop.pay(*wanted)
        assert refused.value.code == expected
    shop.expire(session.id)
    with pytest.raises(Refusal) as refused:
        shop.pay(session_id=session.id)
    assert refused.value.code == "session_not_open"
    assert shop.seen_session(session.id)["status"] == "expired"


def test_an_order_of_nobody_cannot_be_paid(shop: Shop) -> None:
    """A payment that names no order of its merchant's is refused with everything."""
    with pytest.raises(Refusal) as refused:
        shop.pay("ord_nobody")
    assert refused.value.code == "bad_order"
    with shop.tx() as tx:
        assert tx.execute(select(payments)).all() == []


def test_money_of_another_currency_counts_for_nothing(shop: Shop) -> None:
    """R4: 5,000 euros are not 5,000 francs, whatever else they are: unpaid, and before a person."""
    order_id = shop.order()
    payment_id = shop.pay(order_id)
    shop.captured(payment_id, (5_000, "EUR"))
    seen = shop.seen(order_id)
    assert (seen["state"], seen["amount_paid"], seen["payment_status"]) == ("awaiting_payment", 0, "unpaid")
    assert (seen["exceptions"], open_matters(shop, payment_id)) == (["mismatch"], {"mismatch"})


def test_delivery_is_recorded_once_and_only_for_what_is_paid(shop: Shop) -> None:
    """paid → delivered → completed; a second time changes nothing and tells nothing."""
    order_id = shop.order()
    assert code(shop, order_steps.deliver, shop.queue, MINE, order_id, shop.by) == "not_paid"
    shop.captured(shop.pay(order_id))
    assert code(shop, order_steps.complete, shop.queue, MINE, order_id, shop.by) == "not_delivered"
    with shop.tx() as tx:
        for step in (order_steps.deliver, order_steps.deliver, order_steps.complete, order_steps.complete):
            step(tx, shop.queue, MINE, order_id, shop.by)
    assert shop.told() == ["order.created", "order.paid", "order.delivered", "order.completed"]
    assert shop.seen(order_id)["delivered_at"] is not None
    numbers = [body["order"]["state"] for body in shop.bodies("order.paid")]
    assert numbers == ["paid"]


# --- refunds (R16) ------------------------------------------------------------------------------------


@pytest.mark.parametrize("restock", [False, True])
def test_r16_a_refund_in_part_changes_no_order_and_a_full_one_by_us_does(shop: Shop, restock: bool) -> None:
    """R16: any refund used to cancel the order. The stock comes back only if the merchant said so."""
    product = shop.product(3)
    order_id = shop.order(Line(1, product), restock=restock)
    payment_id = shop.pay(order_id)
    shop.captured(payment_id)
    refunded(shop, payment_id, 2_000)
    assert (shop.seen(order_id)["state"], shop.stock(product)) == ("paid", 2)
    assert shop.seen(order_id)["payment_status"] == "partially_paid"
    refunded(shop, payment_id, 3_000)
    assert (shop.seen(order_id)["state"], shop.stock(product)) == ("refunded", 3 if restock else 2)
    assert shop.told()[-1] == "order.refunded"
    assert open_matters(shop, order_id) == set()


def test_r16_money_that_went_back_without_us_changes_nothing_and_is_put_before_a_person(shop: Shop) -> None:
    """A refund at the provider's dashboard, or a clawback: the order stays, somebody looks."""
    for kind in (Kind.REFUND_SUCCEEDED, Kind.REVERSED):
        order_id = shop.order()
        payment_id = shop.pay(order_id)
        shop.captured(payment_id)
        if kind is Kind.REVERSED:
            shop.tell((payment_id, replace(fact(kind, payment_id, 9, 5_000), movement="cb")))
        else:
            refunded(shop, payment_id, 5_000, by_us=False)
        assert shop.seen(order_id)["state"] == "paid"
        assert open_matters(shop, order_id) == {"refunded_elsewhere"}
        assert "order.refunded" not in shop.told()


def test_money_that_was_gone_before_we_looked_buys_nothing(shop: Shop) -> None:
    """Captured and refunded in one batch: the goods stay, a person sees the payment."""
    order_id = shop.order()
    payment_id = shop.pay(order_id)
    back = replace(fact(Kind.REFUND_SUCCEEDED, payment_id, 9, 5_000), movement="re_1")
    shop.tell((payment_id, captured(payment_id, at_ms=8)), (payment_id, back))
    assert (shop.seen(order_id)["state"], shop.told()) == ("awaiting_payment", ["order.created"])


def test_the_sum_is_made_up_by_right_money_alone() -> None:
    """What is disputed, gone or of another currency pays nothing; one too many spoils nothing."""

    def money(amount: int, currency: str = "XOF", *, exact: bool = True, back: int = 0, problem: str = "") -> Money:
        problems = frozenset({problem} if problem else ())
        return Money("pay", None, amount, currency, "succeeded", problems, amount, back, exact)

    assert rules.pays(5_000, "XOF", [money(2_000), money(5_000)])
    assert rules.pays(5_000, "XOF", [money(2_000), money(2_000), money(3_000)])
    assert not rules.pays(5_000, "XOF", [money(6_000)])
    assert not rules.pays(5_000, "XOF", [money(5_000, "EUR")])
    assert not rules.pays(5_000, "XOF", [money(5_000, exact=False)])
    assert not rules.pays(5_000, "XOF", [money(5_000, back=1)])
    assert not rules.pays(5_000, "XOF", [money(5_000, problem="disputed")])
    assert rules.payment_status(5_000, 4_999) == "partially_paid"
