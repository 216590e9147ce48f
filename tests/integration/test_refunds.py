"""Refunds through the running service: a provider that keeps books, callbacks that cross, and the commands."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from service.commands import attention as attention_commands
from service.commands import payments as payment_commands
from service.commands import refunds as commands
from service.errors import Refusal
from service.payments.tables import payments, refunds
from tests.support.service import Till, eventually, stripe_event, till

ROOT = Path(__file__).parents[2]


@dataclass
class Books:
    """A Stripe that keeps refunds by their key. `mute`: it does what it is asked to and says nothing of it."""

    made: dict[str, dict[str, Any]] = field(default_factory=dict)
    mute: int = 0
    status: str = "succeeded"
    refuse: str = ""
    asked: list[str] = field(default_factory=list)

    async def refund(self, request: web.Request) -> web.Response:
        """`POST /v1/refunds`."""
        self.asked.append("POST")
        if self.refuse:
            error = {"type": "invalid_request_error", "code": self.refuse, "message": "No."}
            return web.json_response({"error": error}, status=400)
        form, key = await request.post(), request.headers["idempotency-key"]
        body = {"id": f"re_{len(self.made)}", "object": "refund", "status": self.status, "currency": "xof",
                "amount": int(str(form["amount"])), "payment_intent": form["payment_intent"]}  # fmt: skip
        self.made.setdefault(key, body)
        if self.mute:
            self.mute -= 1
            return web.Response(status=502)
        return web.json_response(self.made[key])

    async def listed(self, _: web.Request) -> web.Response:
        """`GET /v1/refunds`."""
        self.asked.append("GET")
        return web.json_response({"object": "list", "data": list(self.made.values()), "has_more": False})


@asynccontextmanager
async def shop(directory: Path) -> AsyncIterator[tuple[Till, Books, str]]:
    """A service, the books, and one payment of 5,000 XOF."""
    books = Books()
    site = web.Application()
    site.router.add_post("/v1/refunds", books.refund)
    site.router.add_get("/v1/refunds", books.listed)
    runner = web.AppRunner(site, access_log=None)
    await runner.setup()
    listening = web.TCPSite(runner, "127.0.0.1", 0)
    await listening.start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with till(directory, stripe_base_url=base, stripe_secret_key="sk_test_of_the_tests") as t:
            assert await t.stripe(stripe_event("payment_intent.succeeded")) == 200
            await t.shop.wait_for(1)
            (payment,) = await t.rows(payments)
            yield t, books, payment.id
    finally:
        await runner.cleanup()


async def caisse(directory: Path, *arguments: str, status: int = 0) -> str:
    """The command line, beside the running service."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CAISSE_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service.cli", *arguments, cwd=directory, env={**clean, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == status, said.decode()
    return said.decode()


async def hurry(t: Till) -> None:
    """What waits for its next time goes now."""
    await t.settled()
    await t.app.db.write(t.app.queue.destinations.hurry, "refund", "acc_stripe", t.app.clock(), 10)
    t.app.nudge()


def test_a_refund_goes_out_and_the_merchant_hears_of_it(tmp_path: Path) -> None:
    """Asked for, sent, answered, told: the payment's sum and the refund's row are one commit."""

    async def run() -> None:
        async with shop(tmp_path) as (t, books, payment):
            made = await commands.create(t.app, payment=payment, amount=2_000, reason="trop grand")
            assert (made["status"], made["amount"]) == ("queued", 2_000)
            await t.shop.wait_for(4)
            assert sorted(t.shop.types[1:]) == ["payment.partially_refunded", "refund.created", "refund.succeeded"]
            told = next(event for event in t.shop.events if event["type"] == "refund.succeeded")
            assert told["data"]["refund"]["id"] == made["id"]
            assert list(books.made) == [made["id"]]
            (row,) = await t.rows(payments)
            assert (row.refunded_minor, row.status) == (2_000, "partially_refunded")
            shown = await payment_commands.show(t.app, payment=payment)
            assert [one["status"] for one in shown["refunds"]] == ["succeeded"]
            assert "2000 XOF to go back (cli)" in [entry["text"] for entry in shown["timeline"]]

    asyncio.run(run())


def test_a_refund_whose_answer_was_lost_is_made_once(tmp_path: Path) -> None:
    """The provider did it and said nothing: the same key brings the same refund, and its books hold one."""

    async def run() -> None:
        async with shop(tmp_path) as (t, books, payment):
            books.mute = 2
            made = await commands.create(t.app, payment=payment)
            await eventually(lambda: books.asked)
            for _ in range(3):
                await hurry(t)
            await t.shop.wait_for(4)
            assert (await commands.show(t.app, refund=made["id"]))["status"] == "succeeded"
            assert [one["amount"] for one in books.made.values()] == [5_000]
            assert (await t.rows(payments))[0].status == "refunded"
            assert "POST" in books.asked[1:]

    asyncio.run(run())


def test_of_many_at_once_no_more_is_given_than_came(tmp_path: Path) -> None:
    """Sixteen ask for 1,000 of 5,000 at the same instant: five get it, the others are told what is left."""

    async def run() -> None:
        async with shop(tmp_path) as (t, books, payment):
            wants = (commands.create(t.app, payment=payment, amount=1_000) for _ in range(16))
            came = await asyncio.gather(*wants, return_exceptions=True)
            refused = [one for one in came if isinstance(one, Refusal)]
            assert {one.code for one in refused} == {"above_the_rest"}
            assert len(came) - len(refused) == 5
            await t.settled()
            await eventually(lambda: len(books.made) == 5)
            await t.settled()
            assert (await t.rows(payments))[0].refunded_minor == 5_000

    asyncio.run(run())


def test_a_callback_that_crosses_with_the_answer_is_the_same_refund(tmp_path: Path) -> None:
    """Told by the callback, the total of the charge and the answer: one row, counted once, nothing for a person."""

    async def run() -> None:
        async with shop(tmp_path) as (t, books, payment):
            await commands.create(t.app, payment=payment, amount=2_000)
            await t.shop.wait_for(4)
            about = {"id": "re_0", "object": "refund", "amount": 2_000, "currency": "xof", "status": "succeeded",
                     "payment_intent": "pi_1", "created": 1_795_200_001}  # fmt: skip
            event = stripe_event("refund.updated", "evt_2")
            event["data"]["object"] = about
            assert await t.stripe(event) == 200
            await t.settled()
            assert [row.origin for row in await t.rows(refunds)] == ["caisse"]
            assert (await t.rows(payments))[0].refunded_minor == 2_000
            assert await attention_commands.listed(t.app) == []
            assert len(books.made) == 1

    asyncio.run(run())


def test_a_refund_at_the_dashboard_and_one_that_is_refused_need_a_person(tmp_path: Path) -> None:
    """One list: what somebody else gave back, and what the provider would not; both are settled from it."""

    async def run() -> None:
        async with shop(tmp_path) as (t, books, payment):
            event = stripe_event("refund.created", "evt_2")
            event["data"]["object"] = {
                "id": "re_77", "object": "refund", "amount": 500, "currency": "xof", "status": "succeeded",
                "payment_intent": "pi_1", "created": 1_795_200_001,
            }  # fmt: skip
            assert await t.stripe(event) == 200
            await t.settled()
            books.refuse = "charge_disputed"
            await commands.create(t.app, payment=payment, amount=1_000)
            await t.settled()
            found = await attention_commands.listed(t.app, lang="fr")
            assert [item["reason"] for item in found] == ["refund_failed", "refund_not_ours"]
            assert all("remboursement" in item["words"] for item in found)
            books.refuse = ""
            again = await attention_commands.act(t.app, item=found[0]["id"], action="refund", reason="dispute is over")
            await attention_commands.act(t.app, item=found[1]["id"], action="ignore", reason="it was the owner")
            await t.settled()
            assert await attention_commands.listed(t.app) == []
            assert (await commands.show(t.app, refund=again["refund"]["id"]))["status"] == "succeeded"
            statuses = [one["status"] for one in await commands.listed(t.app, payment=payment)]
            assert statuses == ["succeeded", "failed", "succeeded"]
            assert (await t.rows(payments))[0].refunded_minor == 1_500

    asyncio.run(run())


def test_the_commands_as_people_use_them(tmp_path: Path) -> None:
    """A table, a sentence, an exit status: what cannot be is said, and what was done is there."""

    async def run() -> None:
        async with shop(tmp_path) as (t, books, payment):
            made = json.loads(await caisse(tmp_path, "refunds", "create", payment, "--amount", "100", "--json"))
            await t.settled()
            assert [body["amount"] for body in books.made.values()] == [100]
            assert made["id"] in await caisse(tmp_path, "refunds", "list")
            too_much = await caisse(tmp_path, "refunds", "create", payment, "--amount", "5000", status=1)
            assert too_much == "caisse: amount: at most 4900 minor units of XOF can go back.\n"
            assert "It has the money." in await caisse(tmp_path, "payments", "explain", payment)
            assert "Nothing needs a person." in await caisse(tmp_path, "attention", "list")
            assert await t.post("/webhooks/stripe", b"{}") == (401, b"")
            (item,) = json.loads(await caisse(tmp_path, "attention", "list", "--lang", "fr", "--json"))
            assert item["words"].startswith("Un message est arrivé")
            assert "ignore" in await caisse(tmp_path, "attention", "act", item["id"], "ignore", "--reason", "forged")
            assert "[]" in await caisse(tmp_path, "attention", "list", "--json")
            nothing = await caisse(tmp_path, "payments", "decide", payment, "failed", "--reason", "x", status=1)
            assert "is unknown" in nothing

    asyncio.run(run())


@pytest.mark.parametrize("payment", ["pay_none", "", "'; DROP TABLE refunds; --"])
def test_what_is_not_there_is_said(tmp_path: Path, payment: str) -> None:
    """A sentence, not a fault of ours."""

    async def run() -> None:
        async with till(tmp_path, merchant=False) as t:
            calls = (
                commands.create(t.app, payment=payment),
                commands.show(t.app, refund=payment),
                payment_commands.explained(t.app, payment=payment),
                payment_commands.sync(t.app, payment=payment),
                payment_commands.decide(t.app, payment=payment, what="failed", reason="seen"),
                attention_commands.act(t.app, item=payment, action="ignore", reason="x"),
            )
            for call in calls:
                with pytest.raises(Refusal) as no:
                    await call
                assert no.value.code == "not_found"

    asyncio.run(run())
