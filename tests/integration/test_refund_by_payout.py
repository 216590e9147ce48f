"""Refunds made as payouts, at the sandbox's providers that give nothing back: real requests out, real callbacks in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from service.commands import attention as attention_commands
from service.commands import payments as payment_commands
from service.commands import payouts as payout_commands
from service.commands import refunds as refund_commands
from service.errors import Refusal
from service.escrow.tables import payouts
from service.merchants import keys
from service.payments.tables import payments
from service.providers import ebilling_payouts
from service.sandbox.treasury import Payout
from tests.support import paying
from tests.support.paying import USUAL, Counter, counter

AWA, BINTOU = "cli:awa", "cli:bintou"
MINUTE_MS, DAY_MS = 60_000, 24 * 3_600_000
SHAP = {"CAISSE_EBILLING_SHAP_ID": "api-1", "CAISSE_EBILLING_SHAP_SECRET": "api-secret-1"}


@dataclass(slots=True)
class Desk:
    """A counter, and what people do there."""

    c: Counter

    async def bought(self, provider: str) -> str:
        """Somebody has paid 5,000 by this provider; the payment's id."""
        id_ = await self.c.till.app.desk.create(self.c.usual(provider))
        await self.c.settle()
        await self.c.pay(id_)
        assert (await self.c.payment(id_)).status == "succeeded"
        return id_

    async def refund(self, payment: str, amount: int = 2_000) -> str:
        """So much is to go back; the refund's id."""
        made = await refund_commands.create(self.c.till.app, payment=payment, amount=amount, actor=AWA)
        assert made["manual"] and made["status"] == "queued"
        return str(made["id"])

    async def sent(self, refund: str) -> str:
        """Asked for by one, approved by another, and sent; the payout's id."""
        made = await refund_commands.pay_out(self.c.till.app, refund=refund, actor=AWA)
        assert (made["status"], made["source"], made["refund"]) == ("awaiting_approval", "refund", refund)
        with pytest.raises(Refusal, match="second person"):
            await payout_commands.approve(self.c.till.app, payout=made["id"], actor=AWA)
        await payout_commands.approve(self.c.till.app, payout=made["id"], actor=BINTOU)
        await self.c.settle()
        return str(made["id"])

    async def states(self, refund: str, payout: str) -> tuple[str, str, int]:
        """The payout's, the refund's, and what of the payment went back in all."""
        found = await refund_commands.show(self.c.till.app, refund=refund)
        (row,) = await self.c.till.rows(payments, payments.c.id == found["payment"])
        paid = await payout_commands.show(self.c.till.app, payout=payout)
        return paid["status"], found["status"], row.refunded_minor

    async def got(self, payout: str) -> list[Payout]:
        """What the provider's books say was really paid under its reference."""
        (row,) = await self.c.till.rows(payouts, payouts.c.id == payout)
        return self.c.sandbox.treasury.paid_out(row.reference)

    async def sound(self) -> None:
        """The whole ledger, recomputed."""
        check = await self.c.till.app.verifier.check(self.c.by)
        assert check.sound, check.problems


@asynccontextmanager
async def desk(directory: Path, monkeypatch: pytest.MonkeyPatch, *providers: str) -> AsyncIterator[Desk]:
    """With SHAP's own credentials, and its address at the sandbox."""
    monkeypatch.setattr(paying, "KEYS", {**paying.KEYS, **SHAP})
    async with counter(directory, *providers) as c:
        if "ebilling" in providers:
            facts = {**ebilling_payouts.FACTS, "test_shap_url": c.sandbox.base_urls["ebilling"]}
            known = c.till.app.settings.payouts
            here = replace(
                known["ebilling"],
                send=lambda paying, channel, keys: ebilling_payouts.send(paying, channel, keys, facts),
                ask=lambda paying, keys: ebilling_payouts.ask(paying, keys, facts),
                float_=lambda payee, live, keys: ebilling_payouts.float_(payee, live, keys, facts),
            )
            monkeypatch.setattr(c.till.app.payer, "_providers", {**known, "ebilling": here})
        yield Desk(c)


def test_each_of_the_three_gives_back_by_paying_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paid to the number that paid, once; the refund is made, the payment shows it, and the ledger adds up."""

    async def run() -> None:
        three = ("monetbil", "moneroo", "ebilling")
        async with desk(tmp_path, monkeypatch, *three) as d:
            for provider in three:
                payment = await d.bought(provider)
                refund = await d.refund(payment)
                payout = await d.sent(refund)
                assert await d.states(refund, payout) == ("paid", "succeeded", 2_000), provider
                (paid,) = await d.got(payout)
                assert (paid.provider, paid.paid_minor) == (provider, 2_000)
                assert USUAL[provider]["payer_phone"].removeprefix("+").endswith(paid.payee[-8:])
                assert (await d.c.payment(payment)).status == "partially_refunded"
                shown = await payment_commands.show(d.c.till.app, payment=payment)
                told = [entry["text"] for entry in shown["timeline"]]
                assert f"refund.payout by {AWA}: {payout}" in told
                assert any(text.startswith("refund.paid_out by payout") for text in told)
                if provider == "ebilling":
                    assert paid.asked["payout_type"] == "refund"
            assert await attention_commands.listed(d.c.till.app) == []
            await d.sound()

    asyncio.run(run())


def test_shap_paid_and_said_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time-out after paying is unknown, found by asking, and paid once; nobody ends the refund by hand meanwhile."""

    async def run() -> None:
        async with desk(tmp_path, monkeypatch, "ebilling") as d:
            refund = await d.refund(await d.bought("ebilling"))
            d.c.till.app.client.limit_ms = 500
            d.c.sandbox.trouble.on("ebilling", "timeout_after", "payout", times=1)
            d.c.sandbox.trouble.on("ebilling", "silence")
            payout = await d.sent(refund)
            assert await d.states(refund, payout) == ("unknown", "queued", 0)
            with pytest.raises(Refusal, match="made by the payout"):
                await refund_commands.done(d.c.till.app, refund=refund, reason="I sent it")
            await d.c.go_on(MINUTE_MS)
            assert await d.states(refund, payout) == ("paid", "succeeded", 2_000)
            assert len(await d.got(payout)) == 1
            await d.sound()

    asyncio.run(run())


def test_what_monetbil_cannot_be_asked_a_person_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that was lost is unknown, and is not sent again; who saw it at Monetbil says that it was paid."""

    async def run() -> None:
        async with desk(tmp_path, monkeypatch, "monetbil") as d:
            refund = await d.refund(await d.bought("monetbil"))
            d.c.sandbox.trouble.on("monetbil", "reset", "payout", times=1)
            payout = await d.sent(refund)
            await d.c.go_on(DAY_MS)
            assert await d.states(refund, payout) == ("unknown", "queued", 0)
            with pytest.raises(Refusal, match="made by the payout"):
                await refund_commands.give_up(d.c.till.app, refund=refund, reason="nobody knows")
            await payout_commands.decide(
                d.c.till.app, payout=payout, outcome="paid", reason="in Monetbil's list", actor=AWA
            )
            assert await d.states(refund, payout) == ("paid", "succeeded", 2_000)
            assert len(await d.got(payout)) == 1
            await d.sound()

    asyncio.run(run())


def test_one_fails_the_next_is_paid_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed leaves the refund to a person, who tries again; what comes back makes the refund fail, before a person."""

    async def run() -> None:
        async with desk(tmp_path, monkeypatch, "moneroo") as d:
            refund = await d.refund(await d.bought("moneroo"))
            d.c.sandbox.trouble.on("moneroo", "payout_fails", times=1)
            first = await d.sent(refund)
            assert await d.states(refund, first) == ("failed", "queued", 0)
            reasons = {item["reason"] for item in await attention_commands.listed(d.c.till.app)}
            assert reasons == {"refund_manual", "payout_failed"}
            d.c.sandbox.trouble.on("moneroo", "payout_returned_later", delay_ms=DAY_MS, times=1)
            second = await d.sent(refund)
            assert (await payout_commands.show(d.c.till.app, payout=second))["retry_of"] == first
            assert await d.states(refund, second) == ("paid", "succeeded", 2_000)
            await d.c.go_on(2 * DAY_MS)
            assert await d.states(refund, second) == ("returned", "failed", 0)
            reasons = {item["reason"] for item in await attention_commands.listed(d.c.till.app)}
            assert {"refund_failed", "payout_returned"} <= reasons
            await d.sound()

    asyncio.run(run())


def test_the_door_of_the_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs the scope of payouts, another key approves, and FedaPay's refunds have no such way."""

    async def run() -> None:
        async with desk(tmp_path, monkeypatch, "monetbil", "fedapay") as d:
            till = d.c.till
            assert till.merchant is not None
            merchant = till.merchant.id

            def key(*scopes: str) -> Any:
                return till.app.db.write(lambda tx: keys.create(tx, merchant, False, d.c.by, scopes=scopes).key)

            asks, approves, reads = await key("payouts:write"), await key("payouts:approve"), await key("refunds:write")

            async def post(path: str, who: str, body: Any = None) -> tuple[int, Any]:
                headers = {"Authorization": f"Bearer {who}", "Content-Type": "application/json"}
                async with till.client.post(f"{till.url}/v1{path}", headers=headers, json=body) as answer:
                    return answer.status, json.loads(await answer.read())

            refund = await d.refund(await d.bought("monetbil"))
            assert (await post(f"/refunds/{refund}/payout", reads))[0] == 403
            status, made = await post(f"/refunds/{refund}/payout", asks)
            assert (status, made["refund"], made["beneficiary"]) == (201, refund, None)
            assert (await post(f"/refunds/{refund}/payout", asks))[1]["type"] == "urn:caisse:payout_open"
            status, said = await post(f"/payouts/{made['id']}/approve", approves, {"reason": "seen"})
            assert (status, said["status"]) == (200, "queued")
            await d.c.settle()
            assert await d.states(refund, made["id"]) == ("paid", "succeeded", 2_000)
            fedapays = await d.refund(await d.bought("fedapay"))
            assert (await post(f"/refunds/{fedapays}/payout", asks))[1]["type"] == "urn:caisse:no_way"
            assert (await post("/refunds/rf_none/payout", asks))[0] == 404
            with pytest.raises(Refusal, match="--as NAME"):
                await refund_commands.pay_out(till.app, refund=fedapays, actor="cli")

    asyncio.run(run())
