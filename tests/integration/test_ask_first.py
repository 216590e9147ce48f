"""CAISSE_ASK_FIRST: a signed callback about money is a hint, and counts once the provider has answered."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from service.callbacks.tables import callbacks
from service.payments.tables import payments
from tests.support.paying import counter
from tests.support.service import stripe_event, stripe_signature

STRONG = ("stripe", "paystack", "fedapay")


@pytest.mark.parametrize("provider", STRONG)
def test_money_counts_once_the_provider_has_answered(tmp_path: Path, provider: str) -> None:
    """While it does not answer the payment waits, whatever its callback says; then the answer makes it so."""

    async def run() -> None:
        async with counter(tmp_path, provider, ask_first=provider) as c:
            id_ = await c.till.app.desk.create(c.usual(provider))
            c.sandbox.trouble.on(provider, "error_5xx_before", "fetch")
            await c.pay(id_)
            assert {row.status for row in await c.till.rows(callbacks)} >= {"processed"}
            waits = await c.payment(id_)
            assert waits.status in ("pending", "requires_action")
            assert (waits.captured_minor, "payment.succeeded" in c.till.shop.types) == (0, False)
            c.sandbox.trouble.off()
            await c.go_on(60_000)
            paid = await c.payment(id_)
            assert (paid.status, paid.captured_minor) == ("succeeded", paid.amount_minor)
            assert c.till.shop.types.count("payment.succeeded") == 1

    asyncio.run(run())


def test_a_signed_lie_moves_no_money(tmp_path: Path) -> None:
    """Whoever has the secret says that a payment was made which Stripe has never heard of: it stays pending."""

    async def run() -> None:
        async with counter(tmp_path, "stripe", ask_first="stripe") as c:
            body = json.dumps(stripe_event("payment_intent.succeeded", intent="pi_nobody")).encode()
            secret = c.till.app.settings.credentials["stripe"]["webhook_secrets"][0]
            status, _ = await c.till.post(
                "/webhooks/stripe", body, {"stripe-signature": stripe_signature(body, secret)}
            )
            assert status == 200
            await c.settle()
            await c.go_on(3_600_000)
            (shown,) = await c.till.rows(payments)
            assert (shown.status, shown.captured_minor, shown.provider_reference) == ("pending", 0, "pi_nobody")

    asyncio.run(run())


def test_without_the_setting_the_signature_is_enough(tmp_path: Path) -> None:
    """The same callback is believed: nothing is asked."""

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            body = json.dumps(stripe_event("payment_intent.succeeded", intent="pi_nobody")).encode()
            secret = c.till.app.settings.credentials["stripe"]["webhook_secrets"][0]
            await c.till.post("/webhooks/stripe", body, {"stripe-signature": stripe_signature(body, secret)})
            await c.settle()
            (shown,) = await c.till.rows(payments)
            assert (shown.status, shown.captured_minor) == ("succeeded", 5_000)

    asyncio.run(run())
