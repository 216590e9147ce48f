"""Every adapter, asked for real against the sandbox, paid by the payer, with callbacks and without."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from service.payments.tables import refunds
from service.providers import CALLS
from tests.support.paying import SIX, counter

MINUTE_MS = 60_000


@pytest.mark.parametrize("silent", [False, True], ids=["callbacks", "silence"])
@pytest.mark.parametrize("provider", SIX)
def test_a_payment_is_asked_for_and_paid(tmp_path: Path, provider: str, silent: bool) -> None:
    """With callbacks at once, without any by the sweep: the same money, once, and the same words to the merchant."""

    async def run() -> None:
        async with counter(tmp_path, provider) as c:
            if silent:
                c.sandbox.trouble.on(provider, "silence")
            id_ = await c.till.app.desk.create(c.usual(provider))
            assert (await c.payment(id_)).status in ("requires_action", "pending"), await c.attempts(id_)
            await c.pay(id_)
            if silent:
                await c.go_on(3 * MINUTE_MS)
                await c.go_on(10 * MINUTE_MS)
            row = await c.payment(id_)
            assert (row.status, row.captured_minor, row.exceptions) == ("succeeded", row.amount_minor, ""), row
            assert sum(charge.captured_minor for charge in await c.charged(id_)) == row.amount_minor
            assert (row.provider, c.till.shop.types.count("payment.succeeded")) == (provider, 1)

    asyncio.run(run())


CHARGED = ("timeout_after", "reset", "error_5xx_after", "garbage_2xx")
NOT_CHARGED = ("timeout_before", "error_5xx_before", "maintenance")
TURNED_AWAY = ("rate_limited", "unauthorized", "refuse")


@pytest.mark.parametrize("provider", SIX)
def test_whatever_happens_to_the_create_caisse_believes_what_was_really_charged(tmp_path: Path, provider: str) -> None:
    """
    One story for each trouble, one after the other on a running service: charged and no answer, not charged and no
    answer, turned away. After the sweep has run its course the sandbox's books and ours agree, or the payment is
    unknown and before a person; never guessed, and never charged twice.
    """

    async def run() -> None:
        async with counter(tmp_path, provider) as c:
            c.till.app.client.limit_ms = 700
            stories: dict[str, str] = {}
            for kind in (*CHARGED, *NOT_CHARGED, *TURNED_AWAY):
                c.sandbox.trouble.on(provider, kind, times=None if kind == "refuse" else 1)
                c.till.app.circuits.ended("acc_" + provider, well=True)
                stories[kind] = await c.till.app.desk.create(c.usual(provider))
                c.sandbox.trouble.off()
                first = await c.payment(stories[kind])
                expected = "failed" if kind in TURNED_AWAY else "unknown"
                assert first.status == expected, (kind, first.status, await c.attempts(stories[kind]))
            for charge in c.sandbox.bank.of(provider):
                if charge.state == "created":
                    c.sandbox.bank.pay(charge)
            await c.settle()
            for ahead_ms in (2 * MINUTE_MS, 10 * MINUTE_MS, 60 * MINUTE_MS, 6 * 60 * MINUTE_MS):
                await c.go_on(ahead_ms)
            for kind, id_ in stories.items():
                row = await c.payment(id_)
                really = sum(charge.captured_minor for charge in await c.charged(id_))
                assert really in (0, row.amount_minor), "charged twice"
                if row.status == "unknown":
                    assert await c.reasons(id_) & {"cannot_be_asked", "still_unknown"}, kind
                else:
                    assert (row.captured_minor, row.status) == (really, "succeeded" if really else "failed"), kind

    asyncio.run(run())


@pytest.mark.parametrize("provider", SIX)
def test_whatever_happens_to_callbacks_codes_and_refunds_the_books_agree(tmp_path: Path, provider: str) -> None:
    """
    Twice, last first, an hour late, another amount, a wrong code, a refund that the bank sends back: each of them ends
    as the tables say, and with the sums that the sandbox's books have.
    """

    async def run() -> None:
        async with counter(tmp_path, provider) as c:
            desk, trouble = c.till.app.desk, c.sandbox.trouble

            async def paid(kind: str) -> Any:
                id_ = await desk.create(c.usual(provider))
                await c.pay(id_)
                await c.go_on(3 * MINUTE_MS)
                await c.go_on(65 * MINUTE_MS)
                trouble.off()
                row = await c.payment(id_)
                assert row.captured_minor == sum(charge.captured_minor for charge in await c.charged(id_)), kind
                return row

            for kind in ("duplicate", "reordered", "late"):
                trouble.on(provider, kind, "callback", delay_ms=60 * MINUTE_MS)
                row = await paid(kind)
                assert (row.status, row.exceptions, row.captured_minor) == ("succeeded", "", row.amount_minor), kind
            trouble.on(provider, "wrong_amount", minor=-1_000, times=1)
            row = await paid("wrong_amount")
            assert (row.status, row.exceptions) == ("succeeded", "under"), row
            assert await c.reasons(row.id) == {"under"}
            if CALLS[provider].refund is not None:
                row = await paid("refund")
                trouble.on(provider, "refund_fails_later", times=1)
                await c.till.app.db.write(c.till.app.refunds.create, row.id, 1_000, "broken", c.by)
                c.till.app.nudge()
                await c.settle()
                await c.go_on(10 * MINUTE_MS)
                (charge,) = await c.charged(row.id)
                (refund,) = await c.till.rows(refunds, refunds.c.payment_id == row.id)
                assert (refund.state, charge.refunds[0].state) == ("failed", "failed")
                assert (await c.payment(row.id)).refunded_minor == charge.refunded_minor == 0
                assert (await c.payment(row.id)).status == "succeeded"

    asyncio.run(run())
