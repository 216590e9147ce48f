"""How orders end: by the clock, by late money, by a person's hand; provider first, and never twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select

from outbox.message import Done, Message, Retry
from service.errors import Refusal
from service.merchants.audit import By
from service.merchants.tables import audit
from service.orders import orders as order_steps
from service.orders import products as product_steps
from service.orders.expire import AFTER_START_MS, MAX_HOLD_MS, Expirer
from service.orders.orders import EXPIRES_MS, Line
from service.orders.settle import WIND_DOWN
from service.orders.stock import tallies_now
from service.payments.facts import Kind
from service.payments.tables import attempts, attention, payments, refunds
from service.schema import outbox_tables
from tests.property.test_orders_machine import MINE, Shop, fact

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


# --- the clock (R14) ----------------------------------------------------------------------------------


def test_an_order_without_a_live_attempt_expires_at_its_time(shop: Shop) -> None:
    """Not a millisecond before; its stock is free in the same transaction; told, counted and audited once."""
    product = shop.product(1)
    order_id = shop.order(Line(1, product))
    failed = shop.pay(order_id)
    shop.tell((failed, fact(Kind.FAILED, failed)))
    shop.clock.advance(EXPIRES_MS - 1)
    shop.expire(order_id)
    assert (shop.seen(order_id)["state"], shop.stock(product)) == ("awaiting_payment", 0)
    shop.clock.advance(1)
    shop.expire(order_id)
    shop.expire(order_id)
    assert (shop.seen(order_id)["state"], shop.stock(product)) == ("expired", 1)
    assert shop.told().count("order.expired") == 1
    with shop.tx() as tx:
        assert tallies_now(tx) == {"orders_expired": 1, "stock_released": 1}
        actions = tx.execute(select(audit.c.action).where(audit.c.subject == order_id)).scalars().all()
        assert "local.order.expired" in actions
        assert tx.execute(select(payments.c.ended_at_ms)).scalar() == shop.clock()


def test_r14_stock_is_not_released_before_the_provider_has_said_that_nothing_can_come(shop: Shop) -> None:
    """R14: with a live attempt it is `expiring`, the cancel is owed, and no new attempt is let in."""
    product = shop.product(1)
    order_id = shop.order(Line(1, product))
    payment_id = shop.pay(order_id)
    shop.clock.advance(EXPIRES_MS)
    shop.expire(order_id)
    assert (shop.seen(order_id)["state"], shop.stock(product)) == ("expiring", 0)
    assert owed(shop, WIND_DOWN) == [payment_id]
    with pytest.raises(Refusal) as refused:
        shop.pay(order_id)
    assert refused.value.code == "order_not_payable"
    shop.tell((payment_id, fact(Kind.CANCELED, payment_id)))
    assert (shop.seen(order_id)["state"], shop.stock(product)) == ("expired", 1)
    with shop.tx() as tx:
        rows = tx.execute(select(audit).where(audit.c.action == "local.payment.canceled")).all()
        assert [(row.subject, row.reason) for row in rows] == [(payment_id, order_id)]
        assert tallies_now(tx)["payments_canceled"] == 1


def test_r14_money_that_comes_while_it_expires_is_an_order_paid(shop: Shop) -> None:
    """expiring → paid, also out of canceling: a paid order is never expired."""
    for end in (shop.expire, shop.cancel):
        order_id = shop.order()
        payment_id = shop.pay(order_id)
        shop.clock.advance(EXPIRES_MS)
        end(order_id)
        assert shop.seen(order_id)["state"] in ("expiring", "canceling")
        shop.captured(payment_id)
        shop.clock.advance(MAX_HOLD_MS)
        shop.expire(order_id)
        assert (shop.seen(order_id)["state"], shop.seen(order_id)["exceptions"]) == ("paid", [])


def test_an_attempt_of_which_nobody_knows_holds_the_stock_for_two_hours(shop: Shop) -> None:
    """Past max_hold: expired, the stock free, `unresolved` before a person; the attempt stays what it is."""
    product = shop.product(1)
    order_id = shop.order(Line(1, product))
    payment_id = shop.pay(order_id)
    shop.clock.advance(EXPIRES_MS)
    shop.expire(order_id)
    shop.clock.advance(MAX_HOLD_MS - 1)
    shop.expire(order_id)
    assert shop.stock(product) == 0
    shop.clock.advance(1)
    shop.expire(order_id)
    seen = shop.seen(order_id)
    assert (seen["state"], seen["exceptions"], shop.stock(product)) == ("expired", ["unresolved"], 1)
    assert open_matters(shop, order_id) == {"unresolved"}
    assert shop.told()[-2:] == ["order.expired", "order.attention"]
    with shop.tx() as tx:
        assert tx.execute(select(payments.c.status).where(payments.c.id == payment_id)).scalar() == "pending"
    shop.tell((payment_id, fact(Kind.CANCELED, payment_id)))
    assert (shop.seen(order_id)["exceptions"], open_matters(shop, order_id)) == ([], set())


def test_expiry_waits_two_minutes_after_a_start(shop: Shop) -> None:
    """What came while we were down is worked on first; the look is owed again, not lost."""
    order_id = shop.order()
    shop.clock.advance(EXPIRES_MS + 5 * HOUR_MS)
    fresh = Expirer(None, None, shop.queue, shop.ids, shop.clock, shop.clock())  # type: ignore[arg-type]
    message = Message("expire:1", "expire", "", order_id, "", 1, 1, 0, 0, 0)
    with shop.tx() as tx:
        fresh.work(tx, [message])
    assert shop.seen(order_id)["state"] == "awaiting_payment"
    assert len(owed(shop, "expire")) == 2
    shop.clock.advance(AFTER_START_MS)
    with shop.tx() as tx:
        fresh.work(tx, [message])
    assert shop.seen(order_id)["state"] == "expired"


def test_wrong_money_keeps_an_order_until_it_has_gone_back(shop: Shop) -> None:
    """Too much came: nobody's clock decides about it. Given back, the order ends as it would have."""
    order_id = shop.order()
    payment_id = shop.pay(order_id)
    shop.captured(payment_id, (5_001, "XOF"))
    shop.clock.advance(EXPIRES_MS + MAX_HOLD_MS)
    shop.expire(order_id)
    assert (shop.seen(order_id)["state"], shop.seen(order_id)["exceptions"]) == ("awaiting_payment", ["over"])
    before = len(owed(shop, "expire"))
    refunded(shop, payment_id, 5_001)
    assert len(owed(shop, "expire")) == before + 1
    shop.expire(order_id)
    assert shop.seen(order_id)["state"] == "expired"


def test_wrong_money_that_comes_while_it_expires_ends_nothing_either(shop: Shop) -> None:
    """Too much, past every limit: the order keeps its stock until a person has given it back."""
    product = shop.product(1)
    order_id = shop.order(Line(1, product))
    payment_id = shop.pay(order_id)
    shop.clock.advance(EXPIRES_MS)
    shop.expire(order_id)
    shop.captured(payment_id, (5_001, "XOF"))
    shop.clock.advance(MAX_HOLD_MS)
    shop.expire(order_id)
    assert (shop.seen(order_id)["state"], shop.stock(product)) == ("expiring", 0)
    refunded(shop, payment_id, 5_001)
    assert (shop.seen(order_id)["state"], shop.stock(product)) == ("expired", 1)


@pytest.mark.parametrize("cancelable", [False, True])
@pytest.mark.parametrize("dies", [False, True])
def test_winding_down_cancels_or_asks_and_goes_on_until_it_is_dead(shop: Shop, cancelable: bool, dies: bool) -> None:
    """One try: what the provider can. Still live: again later. What has ended meanwhile is left alone."""
    payment_id = shop.pay()
    called: list[str] = []

    class Desk:
        async def cancel(self, payment_id: str, by: By) -> None:
            called.append(f"cancel {by.actor}")
            if not cancelable:
                raise Refusal("not_cancelable", "This provider cannot.")
            self._end()

        async def sync(self, payment_id: str, limit_ms: int = 15_000) -> bool:
            called.append("sync")
            self._end()
            return True

        def _end(self) -> None:
            if dies:
                shop.tell((payment_id, fact(Kind.CANCELED, payment_id)))

    class Db:
        async def read(self, query: Any, *args: Any) -> Any:
            with shop.tx() as tx:
                return query(tx, *args)

    expirer = Expirer(Db(), Desk(), shop.queue, shop.ids, shop.clock, 0)  # type: ignore[arg-type]
    message = Message(f"wind_down:{payment_id}", WIND_DOWN, "", payment_id, "", 1, 1, 0, 0, 0)
    assert asyncio.run(expirer.act(message, None)) == (Done() if dies else Retry("still_live"))
    assert called == (["cancel orders"] if cancelable else ["cancel orders", "sync"])
    if dies:
        assert asyncio.run(expirer.act(message, None)) == Done()
        assert called.count("cancel orders") == 1
    with shop.tx() as tx:
        expirer.died(tx, [message])
    assert open_matters(shop, payment_id) == {"never_ended"}


# --- late money ---------------------------------------------------------------------------------------


def late(shop: Shop, policy: str, stock: int = 1) -> tuple[str, str, str]:
    """An order that expired, and then was paid: its id, the payment's and the product's."""
    product = shop.product(stock)
    order_id = shop.order(Line(1, product), late=policy)
    payment_id = shop.pay(order_id)
    shop.tell((payment_id, fact(Kind.FAILED, payment_id)))
    shop.clock.advance(EXPIRES_MS)
    shop.expire(order_id)
    assert shop.seen(order_id)["state"] == "expired"
    shop.clock.advance(1_000)
    return order_id, payment_id, product


def test_late_money_revives_an_order_whose_stock_can_be_had_again(shop: Shop) -> None:
    """expired → paid + late, fulfilled once, the stock taken a second time."""
    order_id, payment_id, product = late(shop, "revive")
    shop.captured(payment_id)
    shop.captured(payment_id)
    seen = shop.seen(order_id)
    assert (seen["state"], seen["exceptions"], shop.stock(product)) == ("paid", ["late"], 0)
    assert shop.told().count("order.paid") == 1


def test_late_money_for_what_was_sold_meanwhile_is_put_before_a_person(shop: Shop) -> None:
    """Unchanged + late; later a person finds another piece and revives it, with a reason."""
    order_id, payment_id, product = late(shop, "revive")
    shop.order(Line(1, product))
    shop.captured(payment_id)
    assert (shop.seen(order_id)["state"], shop.seen(order_id)["exceptions"]) == ("expired", ["late"])
    assert (shop.seen(order_id)["payment_status"], shop.told()[-1]) == ("paid", "order.attention")
    assert open_matters(shop, payment_id) | open_matters(shop, order_id) == {"late"}
    revive = (order_steps.revive, shop.queue, MINE, order_id, shop.by)
    assert code(shop, *revive, "found one") == "out_of_stock"
    assert code(shop, *revive, " ") == "reason_needed"
    with shop.tx() as tx:
        product_steps.add_stock(tx, MINE, product, shop.by, 1)
        order_steps.revive(tx, shop.queue, MINE, order_id, shop.by, "found one")
    assert (shop.seen(order_id)["state"], shop.stock(product)) == ("paid", 0)
    assert open_matters(shop, payment_id) | open_matters(shop, order_id) == set()
    assert code(shop, *revive, "again") == "not_revivable"
    assert shop.told().count("order.paid") == 1


def test_late_money_that_a_merchant_does_not_want_is_asked_about(shop: Shop) -> None:
    """`ask`, and `refund` where nothing can be promised: never fulfilled, never lost."""
    for policy in ("ask", "refund"):
        order_id, payment_id, product = late(shop, policy)
        shop.captured(payment_id)
        assert (shop.seen(order_id)["state"], shop.stock(product)) == ("expired", 1)
        assert "late" in open_matters(shop, payment_id) | open_matters(shop, order_id)
    assert "order.paid" not in shop.told()


@pytest.mark.parametrize("refuses", [False, True])
def test_late_money_is_given_back_where_that_is_the_policy(refuses: bool) -> None:
    """All of it, once; where it cannot be promised a person is asked."""
    given: list[str] = []

    def give_back(tx: Connection, payment_id: str, by: By) -> None:
        if refuses:
            raise Refusal("partial_not_possible", "No.")
        given.append(payment_id)
        attempt = tx.execute(select(attempts.c.id).where(attempts.c.payment_id == payment_id)).scalar_one()
        row = {"id": f"rf_{payment_id}", "payment_id": payment_id, "attempt_id": attempt, "origin": "caisse",
               "state": "queued", "amount_minor": 5_000, "currency": "XOF", "manual": False, "actor": by.actor,
               "created_at_ms": 1, "updated_at_ms": 1}  # fmt: skip
        tx.execute(insert(refunds), row)

    shop = Shop(give_back)
    try:
        order_id = shop.order(late="refund")
        both = [shop.pay(order_id)]
        shop.tell((both[0], fact(Kind.FAILED, both[0])))
        both.append(shop.pay(order_id))
        shop.tell((both[1], fact(Kind.FAILED, both[1])))
        shop.clock.advance(EXPIRES_MS)
        shop.expire(order_id)
        for payment_id in (*both, *both):
            # By the provider's clock it was in time: the payment has no item of its own.
            shop.captured(payment_id, at_ms=1)
        assert given == ([] if refuses else both)
        assert open_matters(shop, order_id) == {"late"}
        assert shop.seen(order_id)["state"] == "expired"
    finally:
        shop.close()


# --- a person's hand ----------------------------------------------------------------------------------


def test_a_cancel_waits_for_the_provider_and_refuses_what_holds_money(shop: Shop) -> None:
    """Provider first; again changes nothing; money has to go back before."""
    product = shop.product(1)
    order_id = shop.order(Line(1, product))
    payment_id = shop.pay(order_id)
    assert shop.cancel(order_id) == shop.cancel(order_id) == "canceling"
    assert (owed(shop, WIND_DOWN), shop.stock(product)) == ([payment_id], 0)
    shop.tell((payment_id, fact(Kind.CANCELED, payment_id)))
    assert (shop.cancel(order_id), shop.stock(product)) == ("canceled", 1)
    assert shop.told().count("order.canceled") == 1
    part = shop.order()
    shop.captured(shop.pay(part), (100, "XOF"))
    paid = shop.order()
    shop.captured(shop.pay(paid))
    for id_ in (part, paid):
        assert code(shop, order_steps.cancel, shop.queue, MINE, id_, shop.by) == "not_cancelable"


def test_a_person_may_take_too_little_or_too_much(shop: Shop) -> None:
    """revive on an order that waits: paid and fulfilled once; without money there is nothing to take."""
    for amount in (4_999, 5_001):
        order_id = shop.order()
        revive = (order_steps.revive, shop.queue, MINE, order_id, shop.by, "the payer's fees")
        assert code(shop, *revive) == "no_money"
        payment_id = shop.pay(order_id)
        shop.captured(payment_id, (amount, "XOF"))
        with shop.tx() as tx:
            order_steps.revive(tx, *revive[1:])
        assert shop.seen(order_id)["state"] == "paid"
        assert open_matters(shop, payment_id) == set()


def test_a_payment_that_named_no_order_is_attached_by_a_person(shop: Shop) -> None:
    """Right money fulfils; another order's, another currency's and a nameless reason are refused."""
    order_id, other = shop.order(), shop.order()
    payment_id = shop.pay()
    attach = (order_steps.attach, shop.queue, MINE, order_id)
    shop.captured(payment_id)
    assert code(shop, *attach, payment_id, shop.by, "") == "reason_needed"
    assert code(shop, *attach, "pay_nobody", shop.by, "x") == "not_found"
    euros = shop.pay(asked=(5_000, "EUR"))
    assert code(shop, *attach, euros, shop.by, "x") == "bad_currency"
    with shop.tx() as tx:
        order_steps.attach(tx, shop.queue, MINE, order_id, payment_id, shop.by, "said so on the phone")
        order_steps.attach(tx, shop.queue, MINE, order_id, payment_id, shop.by, "said so on the phone")
    assert (shop.seen(order_id)["state"], shop.told().count("order.paid")) == ("paid", 1)
    assert code(shop, order_steps.attach, shop.queue, MINE, other, payment_id, shop.by, "x") == "already_attached"


def test_two_payments_for_one_order_are_a_duplicate_however_right_each_looks(shop: Shop) -> None:
    """A declined one that was taken after all, beside its successor: fulfilled once, and before a person."""
    order_id = shop.order()
    first = shop.pay(order_id)
    shop.tell((first, fact(Kind.FAILED, first)))
    second = shop.pay(order_id)
    shop.captured(second)
    shop.captured(first)
    seen = shop.seen(order_id)
    assert (seen["state"], seen["exceptions"], seen["amount_paid"]) == ("paid", ["duplicate"], 10_000)
    assert open_matters(shop, order_id) == {"duplicate"}
    assert shop.told() == ["order.created", "order.paid", "order.attention"]
