"""Checkout sessions against the sandbox's providers: submitted once, paid whoever tells of it, ended last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from service.errors import NotFound, Refusal
from service.merchants.tables import audit, merchants
from service.orders import links, sessions
from service.orders.links import LinkDraft
from service.orders.owner import Whose
from service.orders.sessions import NewSession, Offer
from service.orders.tables import sessions as session_table
from service.payments.facts import Reason
from service.payments.tables import payments
from service.providers.calls import Customer
from service.sandbox.bank import Payer
from tests.support.paying import BUYER, Counter, counter

MINUTE_MS = 60_000
BY_PHONE: dict[str, Any] = {"method": "mobile_money", "operator": "mtn", "payer_phone": "+2250545000001"}


def owner(c: Counter) -> Whose:
    """The first merchant, in test money."""
    assert c.till.merchant is not None
    return Whose(c.till.merchant.id, False)


async def offered(c: Counter, **more: Any) -> NewSession:
    """A session over 5,000 F in Côte d'Ivoire."""
    offer = Offer(**{"currency": "XOF", "amount_minor": 5_000, "country": "CI", "customer": BUYER} | more)
    app = c.till.app
    made = await app.db.write(sessions.create, app.queue, owner(c), offer, c.by)
    app.nudge()
    return made


async def state(c: Counter, session_id: str) -> str:
    """The machine's state, as it is committed."""
    return str((await c.till.rows(session_table, session_table.c.id == session_id))[0].state)


async def shown(c: Counter, session_id: str) -> dict[str, Any]:
    """As the merchant sees it."""
    return sessions.public(await c.till.app.db.read(sessions.one, owner(c), session_id))


def at_the_counter(tmp_path: Path, story: Callable[[Counter], Awaitable[None]], *providers: str, **more: Any) -> None:
    """Run a story in front of these providers."""

    async def run() -> None:
        async with counter(tmp_path, *(providers or ("paystack",)), **more) as c:
            await story(c)

    asyncio.run(run())


def test_a_session_is_submitted_paid_and_told_once(tmp_path: Path) -> None:
    """open → processing → complete; the merchant hears session.completed once, after the payment's own events."""

    async def story(c: Counter) -> None:
        made = await offered(c)
        assert (await shown(c, made.id))["status"] == "pending"
        payment_id = await c.till.app.checkout.submit(made.id, **BY_PHONE)
        assert await state(c, made.id) == "processing"
        await c.pay(payment_id)
        seen = await shown(c, made.id)
        assert (seen["status"], seen["payment"], seen["tries_left"]) == ("paid", payment_id, 4)
        assert seen["paid_at"] is not None
        types = c.till.shop.types
        assert types.count("session.completed") == 1
        assert types.index("payment.pending") < types.index("session.completed")

    at_the_counter(tmp_path, story)


def test_r18_the_session_is_on_disk_before_the_provider_hears_of_it(tmp_path: Path) -> None:
    """R18: when the provider's answer is lost, the session and its payment are there, and neither is guessed at."""

    async def story(c: Counter) -> None:
        c.till.app.client.limit_ms = 300
        c.sandbox.trouble.on("paystack", "timeout_before")
        made = await offered(c)
        payment_id = await c.till.app.checkout.submit(made.id, **BY_PHONE)
        assert (await c.payment(payment_id)).status == "unknown"
        assert (await c.payment(payment_id)).session_id == made.id
        assert await state(c, made.id) == "processing"

    at_the_counter(tmp_path, story)


def test_64_submits_at_the_same_moment_begin_one_payment(tmp_path: Path) -> None:
    """Double clicks and two browsers: one prompt on the phone, 63 refused, one try spent."""

    async def story(c: Counter) -> None:
        made = await offered(c)
        submit = c.till.app.checkout.submit
        came = await asyncio.gather(*(submit(made.id, **BY_PHONE) for _ in range(64)), return_exceptions=True)
        refused = [one.code for one in came if isinstance(one, Refusal)]
        assert refused == ["prompt_open"] * 63, [one for one in came if not isinstance(one, Refusal)]
        assert await c.till.count(payments) == 1
        assert (await shown(c, made.id))["tries_left"] == 4

    at_the_counter(tmp_path, story)


def test_r15_a_session_whose_payment_is_under_way_is_not_cancelled(tmp_path: Path) -> None:
    """R15: `processing` is not safe to cancel: refused until the payment is; an open one is cancelled at once."""

    async def story(c: Counter) -> None:
        app = c.till.app
        made = await offered(c)
        payment_id = await app.checkout.submit(made.id, **BY_PHONE)
        with pytest.raises(Refusal) as refused:
            await app.db.write(sessions.cancel, app.queue, owner(c), made.id, c.by)
        assert refused.value.code == "payment_under_way"
        await c.pay(payment_id)
        assert (await shown(c, made.id))["status"] == "paid"
        other = await offered(c)
        assert await app.db.write(sessions.cancel, app.queue, owner(c), other.id, c.by) == "canceled"
        assert await app.db.write(sessions.cancel, app.queue, owner(c), other.id, c.by) == "canceled"
        assert (await shown(c, other.id))["status"] == "cancelled"
        with pytest.raises(Refusal) as closed:
            await app.checkout.submit(other.id, **BY_PHONE)
        assert closed.value.code == "session_not_open"

    at_the_counter(tmp_path, story)


def test_what_cannot_be_submitted_is_refused_before_a_provider_hears_of_it(tmp_path: Path) -> None:
    """A method that the session does not have, a session of nobody, a link that others use up, a disabled shop."""

    async def story(c: Counter) -> None:
        app = c.till.app
        card = await offered(c, methods=("card",))
        link = LinkDraft("XOF", 5_000, country="CI", max_uses=1)
        link_id = await app.db.write(links.create, owner(c), link, c.by)
        first, second = [
            await app.db.write(links.open_link, app.queue, link_id, app.ids, app.clock()) for _ in range(2)
        ]
        begun = await app.checkout.submit(first.id, **BY_PHONE, customer=BUYER)

        async def refused(session_id: str) -> str:
            with pytest.raises(Refusal) as why:
                await app.checkout.submit(session_id, **BY_PHONE, customer=BUYER)
            return why.value.code

        assert await refused(card.id) == "bad_method"
        assert await refused("ses_nobody") == "not_found"
        assert await refused(second.id) == "link_used_up"
        await app.db.write(lambda tx: tx.execute(update(merchants).values(status="disabled")) and None)
        assert await refused(second.id) == "merchant_disabled"
        assert [row.id for row in await c.till.rows(payments)] == [begun]

    at_the_counter(tmp_path, story)


def test_a_failed_try_opens_it_again_until_none_is_left(tmp_path: Path) -> None:
    """processing → open with a try less; with the last one gone it is failed for the merchant."""

    async def story(c: Counter) -> None:
        made = await offered(c, tries=2)
        for left, status in ((1, "pending"), (0, "failed")):
            payment_id = await c.till.app.checkout.submit(made.id, **BY_PHONE)
            await c.pay(payment_id)
            await c.go_on(MINUTE_MS)  # Paystack calls nobody back about a decline
            assert (await c.payment(payment_id)).status == "failed"
            seen = await shown(c, made.id)
            assert (seen["status"], seen["tries_left"]) == (status, left)
        assert seen["failure_reason"] == "insufficient_funds"
        with pytest.raises(Refusal) as refused:
            await c.till.app.checkout.submit(made.id, **BY_PHONE)
        assert refused.value.code == "session_not_open"

    at_the_counter(tmp_path, story, anybody=Payer("declines", Reason.INSUFFICIENT_FUNDS))


def test_an_open_session_expires_when_its_time_is_up(tmp_path: Path) -> None:
    """Nothing was tried: over at its time, told once, and it takes no more."""

    async def story(c: Counter) -> None:
        made = await offered(c, expires_in_ms=30 * MINUTE_MS)
        await c.go_on(29 * MINUTE_MS)
        assert await state(c, made.id) == "open"
        await c.go_on(2 * MINUTE_MS)
        assert (await shown(c, made.id))["status"] == "expired"
        assert c.till.shop.types.count("session.expired") == 1

    at_the_counter(tmp_path, story)


def test_r14_a_session_with_a_live_attempt_ends_when_the_provider_says_that_it_is_dead(tmp_path: Path) -> None:
    """R14: the provider is asked first; cancelled there, the session expires, and both stand in the audit trail."""

    async def story(c: Counter) -> None:
        made = await offered(c, expires_in_ms=30 * MINUTE_MS, methods=("card",))
        payment_id = await c.till.app.checkout.submit(made.id, method="card", return_url="https://shop.example/back")
        c.sandbox.trouble.on("stripe", "error_5xx_before", "cancel")
        c.sandbox.trouble.on("stripe", "error_5xx_before", "fetch")
        await c.go_on(31 * MINUTE_MS)
        assert await state(c, made.id) == "expiring", "an error proves nothing"
        assert (await c.payment(payment_id)).status in ("pending", "requires_action", "unknown")
        c.sandbox.trouble.off()
        await c.go_on(2 * MINUTE_MS)
        assert (await c.payment(payment_id)).status in ("canceled", "expired")
        assert (await shown(c, made.id))["status"] == "expired"
        rows = await c.till.rows(audit, audit.c.action == "local.payment.canceled")
        assert [(row.subject, row.reason) for row in rows] == [(payment_id, made.id)]

    at_the_counter(tmp_path, story, "stripe")


def test_a_payment_that_came_while_the_session_expires_completes_it(tmp_path: Path) -> None:
    """expiring → complete: money wins over the clock."""

    async def story(c: Counter) -> None:
        made = await offered(c, expires_in_ms=30 * MINUTE_MS)
        c.sandbox.trouble.on("paystack", "silence")
        payment_id = await c.till.app.checkout.submit(made.id, **BY_PHONE)
        c.sandbox.trouble.on("paystack", "error_5xx_before", "fetch")
        await c.pay(payment_id)
        await c.go_on(31 * MINUTE_MS)
        assert await state(c, made.id) == "expiring"
        c.sandbox.trouble.off()
        await c.go_on(70 * MINUTE_MS)
        assert (await shown(c, made.id))["status"] == "paid"

    at_the_counter(tmp_path, story)


# --- verify -------------------------------------------------------------------------------------------


def test_verify_reads_the_database_and_asks_after_30_s(tmp_path: Path) -> None:
    """E2: without any callback, a look after half a minute asks the provider and goes on as if one had come."""

    async def story(c: Counter) -> None:
        app = c.till.app
        c.sandbox.trouble.on("paystack", "silence")
        made = await offered(c, locale="en")
        payment_id = await app.checkout.submit(made.id, **BY_PHONE)
        await c.pay(payment_id)
        seen = await app.checkout.verify(made.id, made.client_secret)
        assert (seen["status"], seen["state"], seen["poll_after_ms"]) == ("pending", "processing", 2_000)
        assert seen["message"].startswith("The payment is under way")
        c.clock.ahead_ms += 31_000
        seen = await app.checkout.verify(made.id, made.client_secret, "fr")
        assert (seen["status"], seen["state"], seen["poll_after_ms"]) == ("success", "paid", None)
        assert seen["message"] == "Le paiement est reçu. Merci."
        assert (await c.payment(payment_id)).status == "succeeded"

    at_the_counter(tmp_path, story)


def test_verify_is_bounded_however_long_the_provider_takes(tmp_path: Path) -> None:
    """A page waits two seconds, not fifteen; what is heard later is written all the same."""

    async def story(c: Counter) -> None:
        app = c.till.app
        made = await offered(c)
        await app.checkout.submit(made.id, **BY_PHONE)
        gate = asyncio.Event()
        asked: list[int] = []

        async def slow(_: str, limit_ms: int = 15_000) -> bool:
            asked.append(limit_ms)
            await gate.wait()
            return True

        app.desk.sync = slow  # type: ignore[method-assign]
        c.clock.ahead_ms += 31_000
        seen = await asyncio.wait_for(app.checkout.verify(made.id, made.client_secret), 20)
        assert (seen["status"], asked) == ("pending", [2_000])
        gate.set()

    at_the_counter(tmp_path, story)


def test_r18_verify_needs_the_sessions_own_secret_and_tells_nothing_personal(tmp_path: Path) -> None:
    """R18: a wrong secret, another session's and none are one and the same 404; the answer names nobody."""

    async def story(c: Counter) -> None:
        app = c.till.app
        buyer = Customer("Awa Koné", "awa@example.com", "+2250700000000")
        made, other = await offered(c, customer=buyer), await offered(c)
        await app.checkout.submit(made.id, **BY_PHONE)
        for secret in ("", "cs_wrong", other.client_secret, made.client_secret + "x", "é" * 300, "\ud800"):
            with pytest.raises(NotFound):
                await app.checkout.verify(made.id, secret)
        with pytest.raises(NotFound):
            await app.checkout.verify("ses_nobody", made.client_secret)
        told = str(await app.checkout.verify(made.id, made.client_secret))
        page = str(await app.db.read(sessions.page, made.id))
        for word in (buyer.name, buyer.email, buyer.phone, "0545000001", made.client_secret):
            assert word not in told and word not in page
        (row,) = await c.till.rows(session_table, session_table.c.id == made.id)
        assert made.client_secret.encode() not in row.secret

    at_the_counter(tmp_path, story)
