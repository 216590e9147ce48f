"""Orders against the sandbox's providers: provider first, fulfilled once, and no stock sold twice."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from service.errors import Refusal
from service.orders import links, orders, products, sessions
from service.orders.expire import MAX_HOLD_MS
from service.orders.links import LinkDraft
from service.orders.orders import EXPIRES_MS, Draft, Line
from service.orders.sessions import NewSession, Offer
from service.orders.tables import orders as order_table
from service.orders.tables import products as product_table
from service.payments.facts import Fact, Kind, Reason, Source, Told
from service.payments.tables import payments, refunds
from service.sandbox.bank import Payer
from tests.integration.test_sessions import BY_PHONE, at_the_counter, owner, shown
from tests.support.paying import BUYER, Counter

MINUTE_MS = 60_000
PRICE_MINOR = 5_000


async def product(c: Counter, stock: int) -> str:
    """Something on the shelf."""

    def work(tx: Any) -> str:
        return products.create(tx, owner(c), c.by, name="Pagne", price_minor=PRICE_MINOR, currency="XOF", stock=stock)

    return await c.till.app.db.write(work)


async def ordered(c: Counter, product_id: str, **more: Any) -> tuple[str, NewSession]:
    """One of it, and a session to pay it with."""
    app = c.till.app
    draft = Draft((Line(1, product_id),), "XOF", **more)
    order_id = await app.db.write(orders.create, app.queue, owner(c), draft, c.by)
    offer = Offer(order_id=order_id, country="CI", customer=BUYER)
    made = await app.db.write(sessions.create, app.queue, owner(c), offer, c.by)
    app.nudge()
    return order_id, made


async def seen(c: Counter, order_id: str) -> dict[str, Any]:
    """As the merchant sees it."""
    return orders.public(await c.till.app.db.read(orders.one, owner(c), order_id))


def never_lapses(c: Counter) -> None:
    """The provider's page stays open beyond the time that it was told."""
    for charge in c.sandbox.bank.of("stripe"):
        charge.expires_ms = None


async def stock(c: Counter, product_id: str) -> int | None:
    """What is free to be sold."""
    return (await c.till.rows(product_table, product_table.c.id == product_id))[0].stock  # type: ignore[no-any-return]


def test_an_order_is_fulfilled_once_whichever_signal_is_first(tmp_path: Path) -> None:
    """E3: callbacks (twice each), ten pages that verify and a sync by hand race: order.paid is told once."""

    async def story(c: Counter) -> None:
        app, shelf = c.till.app, await product(c, 8)
        c.sandbox.trouble.on("paystack", "duplicate")
        made = [await ordered(c, shelf) for _ in range(8)]
        paid = [await app.checkout.submit(session.id, **BY_PHONE) for _, session in made]
        c.clock.ahead_ms += 31_000  # old enough for verify to ask
        looks = [app.checkout.verify(session.id, session.client_secret) for _, session in made for _ in range(10)]
        asks = [app.desk.sync(id_) for id_ in paid]
        await asyncio.gather(*looks, *asks, *(c.pay(id_) for id_ in paid))
        await c.settle()
        for order_id, session in made:
            assert (await seen(c, order_id))["state"] == "paid"
            assert (await shown(c, session.id))["status"] == "paid"
        told = [event["data"]["order"]["id"] for event in c.till.shop.events if event["type"] == "order.paid"]
        assert sorted(told) == sorted(order_id for order_id, _ in made)
        assert await stock(c, shelf) == 0

    at_the_counter(tmp_path, story)


@pytest.mark.parametrize("who", ["callback", "verify", "sync", "sweep"])
def test_each_signal_alone_is_enough(tmp_path: Path, who: str) -> None:
    """Whatever is first does all of it; the others find it done."""

    async def story(c: Counter) -> None:
        app = c.till.app
        order_id, session = await ordered(c, await product(c, 1))
        if who != "callback":
            c.sandbox.trouble.on("paystack", "silence")
        payment_id = await app.checkout.submit(session.id, **BY_PHONE)
        await c.pay(payment_id)
        if who == "sweep":
            await c.go_on(MINUTE_MS)
        elif who != "callback":
            assert (await seen(c, order_id))["state"] == "awaiting_payment"
            c.clock.ahead_ms += 31_000
            if who == "verify":
                said = await app.checkout.verify(session.id, session.client_secret)
                assert (said["status"], said["order"]["state"]) == ("success", "paid")
            else:
                await app.desk.sync(payment_id)
        assert (await seen(c, order_id))["state"] == "paid"
        app.nudge()
        await c.settle()
        assert c.till.shop.types.count("order.paid") == 1

    at_the_counter(tmp_path, story)


@pytest.mark.parametrize("trouble", ["error_5xx_before", "timeout_before", "rate_limited", "unauthorized"])
def test_r14_an_error_of_the_provider_ends_no_order_and_frees_no_stock(tmp_path: Path, trouble: str) -> None:
    """R14: any provider error was written as `canceled`. Here it stays `expiring` until the provider answers."""

    async def story(c: Counter) -> None:
        c.till.app.client.limit_ms = 300
        shelf = await product(c, 1)
        order_id, session = await ordered(c, shelf)
        await c.till.app.checkout.submit(session.id, method="card", return_url="https://shop.example/back")
        never_lapses(c)
        for operation in ("cancel", "fetch"):
            c.sandbox.trouble.on("stripe", trouble, operation)
        await c.go_on(EXPIRES_MS + MINUTE_MS)
        assert ((await seen(c, order_id))["state"], await stock(c, shelf)) == ("expiring", 0)
        c.sandbox.trouble.off()
        await c.go_on(5 * MINUTE_MS)
        assert ((await seen(c, order_id))["state"], await stock(c, shelf)) == ("expired", 1)
        assert c.till.shop.types.count("order.expired") == 1

    at_the_counter(tmp_path, story, "stripe")


def test_r14_a_paid_order_is_never_expired_however_silent_the_provider_was(tmp_path: Path) -> None:
    """R14: the callback was lost; the expiry asks before it does anything, and finds the money."""

    async def story(c: Counter) -> None:
        shelf = await product(c, 1)
        order_id, session = await ordered(c, shelf)
        c.sandbox.trouble.on("paystack", "silence")
        c.sandbox.trouble.on("paystack", "error_5xx_before", "fetch")
        payment_id = await c.till.app.checkout.submit(session.id, **BY_PHONE)
        await c.pay(payment_id)
        await c.go_on(EXPIRES_MS - MINUTE_MS)
        assert (await seen(c, order_id))["state"] == "awaiting_payment"
        c.sandbox.trouble.off()
        c.sandbox.trouble.on("paystack", "silence")
        await c.go_on(2 * MINUTE_MS)
        assert ((await seen(c, order_id))["state"], await stock(c, shelf)) == ("paid", 0)
        assert "order.expired" not in c.till.shop.types

    at_the_counter(tmp_path, story)


@pytest.mark.parametrize(("policy", "sold_meanwhile"), [("revive", False), ("revive", True), ("refund", False)])
def test_money_that_comes_after_the_end_is_never_lost(tmp_path: Path, policy: str, sold_meanwhile: bool) -> None:
    """An outcome that nobody knew held the stock for two hours; the payer had paid all the same."""

    async def story(c: Counter) -> None:
        shelf = await product(c, 1)
        order_id, session = await ordered(c, shelf, late=policy)
        c.till.app.client.limit_ms = 300
        c.sandbox.trouble.on("stripe", "silence")
        payment_id = await c.till.app.checkout.submit(session.id, method="card", return_url="https://shop.example/b")
        never_lapses(c)
        for operation in ("cancel", "fetch"):
            c.sandbox.trouble.on("stripe", "error_5xx_before", operation)
        await c.go_on(EXPIRES_MS + MINUTE_MS)
        await c.go_on(MAX_HOLD_MS + MINUTE_MS)
        end = await seen(c, order_id)
        assert (end["state"], end["exceptions"], await stock(c, shelf)) == ("expired", ["unresolved"], 1)
        assert "unresolved" in await c.reasons(order_id)
        if sold_meanwhile:
            await ordered(c, shelf)
        (attempt,) = await c.attempts(payment_id)
        c.sandbox.visit(json.loads(attempt.action)["url"], "pay")
        c.sandbox.trouble.off()
        await c.go_on(10 * MINUTE_MS)
        late = await seen(c, order_id)
        assert "late" in late["exceptions"] and "unresolved" not in late["exceptions"]
        fulfilled = policy == "revive" and not sold_meanwhile
        assert late["state"] == ("paid" if fulfilled else "expired")
        assert c.till.shop.types.count("order.paid") == fulfilled
        assert await stock(c, shelf) == (0 if fulfilled or sold_meanwhile else 1)
        assert "late" in await c.reasons(payment_id) | await c.reasons(order_id)
        back = await c.till.rows(refunds, refunds.c.payment_id == payment_id)
        assert [(row.amount_minor, row.state) for row in back] == ([(5_000, "succeeded")] if policy == "refund" else [])

    at_the_counter(tmp_path, story, "stripe", anybody=Payer("waits"))


def test_a_payment_made_for_an_order_by_the_api_is_admitted_or_refused_whole(tmp_path: Path) -> None:
    """`admit` as `begun`: nothing of a refused payment is on disk, and no provider has heard of it."""

    async def story(c: Counter) -> None:
        app, shelf = c.till.app, await product(c, 1)
        order_id, _ = await ordered(c, shelf)
        wish = c.wish(PRICE_MINOR, country="CI", operator="mtn", payer_phone="+2250545000001", customer=BUYER,
                      order_id=order_id)  # fmt: skip
        first, second = await asyncio.gather(
            app.desk.create(wish, orders.admit), app.desk.create(wish, orders.admit), return_exceptions=True
        )
        assert {type(first), type(second)} == {str, Refusal}, (first, second)
        assert await c.till.count(payments) == len(c.sandbox.bank.of("paystack")) == 1
        await c.pay(first if isinstance(first, str) else str(second))
        assert (await seen(c, order_id))["state"] == "paid"

    at_the_counter(tmp_path, story)


def test_a_links_last_piece_is_sold_once(tmp_path: Path) -> None:
    """Taken with the submit: who comes second is told so, and a failed try keeps the piece for its buyer."""

    async def story(c: Counter) -> None:
        app, shelf = c.till.app, await product(c, 1)
        link_id = await app.db.write(links.create, owner(c), LinkDraft(product_id=shelf, country="CI"), c.by)

        async def opened() -> NewSession:
            return await app.db.write(links.open_link, app.queue, link_id, app.ids, app.clock())

        first, second = await opened(), await opened()
        assert await stock(c, shelf) == 1
        buys: dict[str, Any] = {**BY_PHONE, "customer": BUYER}
        failed = await app.checkout.submit(first.id, **buys)
        assert await stock(c, shelf) == 0
        with pytest.raises(Refusal) as refused:
            await app.checkout.submit(second.id, **buys)
        assert refused.value.code == "out_of_stock"
        assert (await shown(c, second.id))["tries_left"] == 5
        await c.pay(failed)
        await c.go_on(MINUTE_MS)
        assert (await c.payment(failed)).status == "failed"
        c.sandbox.bank.anybody = Payer()
        paid = await app.checkout.submit(first.id, **buys)
        await c.pay(paid)
        done = await shown(c, first.id)
        assert (done["status"], (await seen(c, done["order"]))["state"]) == ("paid", "paid")
        assert await c.till.count(order_table) == 1

    at_the_counter(tmp_path, story, anybody=Payer("declines", Reason.INSUFFICIENT_FUNDS))


def test_a_second_prompt_is_called_off_at_the_provider_when_the_first_has_paid(tmp_path: Path) -> None:
    """Told as failed and taken all the same: the page of the second try closes before anybody pays there too."""

    async def story(c: Counter) -> None:
        app = c.till.app
        order_id, session = await ordered(c, await product(c, 1))
        pays: dict[str, Any] = {"method": "card", "return_url": "https://shop.example/b"}

        async def told(kind: Kind, payment_id: str) -> None:
            def work(tx: Any) -> Any:
                now_ms = app.clock()
                book = app.syncer.book(tx, now_ms)
                attempt = book.payment(payment_id).attempts[-1]
                amount = PRICE_MINOR if kind is Kind.CAPTURED else None
                said = Fact(kind, f"m_{payment_id}", now_ms, amount, PRICE_MINOR, "XOF", source=Source.ANSWER)
                book.answered(attempt, Told((), (said,), attempt.row["reference"]))
                return app.syncer.close(tx, book, now_ms)

            await app.db.write(work)
            app.nudge()
            await c.settle()

        first = await app.checkout.submit(session.id, **pays)
        await told(Kind.FAILED, first)
        second = await app.checkout.submit(session.id, **pays)
        await told(Kind.CAPTURED, first)
        assert (await seen(c, order_id))["state"] == "paid"
        assert (await c.payment(second)).status in ("canceled", "expired")

    at_the_counter(tmp_path, story, "stripe")
