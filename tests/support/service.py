"""A real caisse on a real port with a real shop behind it, for tests: settings in, callbacks in, webhooks out."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from sqlalchemy import Table, func, select

from service.application import Application, Jobs, build
from service.config import Settings
from service.ids import Clock, now_ms
from service.merchants import merchants as merchant_step
from service.merchants.audit import By
from service.merchants.merchants import NewMerchant
from service.schema import outbox_tables

STRIPE_SECRET = "whsec_of_the_tests"
PATIENCE_S = 60.0
"""How long tests wait for what should come at once: all is well long before, and a slow machine is not a fault."""

SECRETS = {
    "CAISSE_STRIPE_WEBHOOK_SECRETS": STRIPE_SECRET,
    "CAISSE_PAYSTACK_SECRET_KEYS": "sk_test_of_the_tests",
    "CAISSE_FEDAPAY_WEBHOOK_SECRETS": "wh_sandbox_of_the_tests",
    "CAISSE_MONETBIL_SERVICE_KEY": "monetbil-service",
    "CAISSE_MONETBIL_SERVICE_SECRETS": "monetbil-secret",
    "CAISSE_MONEROO_SECRET_KEY": "pvk_sandbox_of_the_tests",
    "CAISSE_MONEROO_WEBHOOK_SECRETS": "moneroo-secret",
    "CAISSE_EBILLING_USERNAME": "shop",
    "CAISSE_EBILLING_SHARED_KEY": "shared",
    "CAISSE_EBILLING_CALLBACK_TOKENS": "token-in-the-address",
}


def settings_of(directory: Path, **more: str) -> Settings:
    """Settings for a service in `directory` on a free port; `more` names settings without CAISSE_, in lower case."""
    environment = {"CAISSE_DATABASE_URL": f"sqlite:///{directory}/caisse.db", "CAISSE_PORT": "0"}
    environment |= {f"CAISSE_{name.upper()}": value for name, value in more.items()}
    return Settings.read(environment=environment, directory=directory)


ALL = {name.removeprefix("CAISSE_").lower(): value for name, value in SECRETS.items()}


@dataclass(slots=True)
class Shop:
    """A merchant's endpoint: keeps what it gets, answers what it is told to."""

    url: str = ""
    got: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)
    answer: Callable[[dict[str, Any]], Awaitable[int] | int] = lambda _: 200

    @property
    def events(self) -> list[dict[str, Any]]:
        """The bodies, parsed, in the order they came."""
        return [json.loads(body) for _, body in self.got]

    @property
    def types(self) -> list[str]:
        """The types of the events, in the order they came."""
        return [event["type"] for event in self.events]

    async def wait_for(self, count: int, seconds: float = PATIENCE_S) -> None:
        """Until so many webhooks have come; fails the test when they do not."""
        await eventually(lambda: len(self.got) >= count, seconds, lambda: f"{len(self.got)} of {count}: {self.types}")


async def eventually(
    is_so: Callable[[], object], seconds: float = PATIENCE_S, shown: Callable[[], str] = lambda: "it did not happen"
) -> None:
    """Wait for a condition, at most so long."""
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, shown()
        await asyncio.sleep(0.01)


@asynccontextmanager
async def open_shop() -> AsyncIterator[Shop]:
    """A shop on a free loopback port."""
    shop = Shop()

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        shop.got.append((request.headers.copy(), body))
        status = shop.answer(json.loads(body))
        return web.Response(status=status if isinstance(status, int) else await status)

    site = web.Application()
    site.router.add_post("/webhooks", take)
    runner = web.AppRunner(site, access_log=None)
    await runner.setup()
    listening = web.TCPSite(runner, "127.0.0.1", 0)
    await listening.start()
    shop.url = f"http://127.0.0.1:{runner.addresses[0][1]}/webhooks"
    try:
        yield shop
    finally:
        await runner.cleanup()


@dataclass(slots=True)
class Till:
    """A running service, its first merchant, the shop, and a client."""

    app: Application
    shop: Shop
    client: aiohttp.ClientSession
    merchant: NewMerchant | None = None

    @property
    def url(self) -> str:
        """Where the service listens."""
        return f"http://127.0.0.1:{self.app.port}"

    async def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """One callback; (status, body of the answer)."""
        async with self.client.post(self.url + path, data=body, headers=headers or {}) as answer:
            return answer.status, await answer.read()

    async def stripe(self, event: Mapping[str, Any] | bytes, path: str = "/webhooks/stripe") -> int:
        """A signed Stripe callback; the status of the answer."""
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        status, _ = await self.post(path, body, {"Stripe-Signature": stripe_signature(body)})
        return status

    async def create_merchant(self, name: str = "Awa", url: str | None = None, events: str = "*") -> NewMerchant:
        """A merchant with a key and an endpoint."""
        app = self.app

        def work(tx: Any) -> NewMerchant:
            by = By("test", app.clock(), app.ids)
            return merchant_step.create(tx, name, False, by, app.seal, app.revive_waiting, url, events)

        made = await app.db.write(work)
        await app.reload_registry()
        app.nudge()
        return made

    async def rows(self, table: Table, *where: Any) -> list[Any]:
        """Rows of a table, as they are committed now."""
        return await self.app.db.read(lambda tx: list(tx.execute(select(table).where(*where)).all()))

    async def count(self, table: Table, *where: Any) -> int:
        """How many rows."""
        query = select(func.count()).select_from(table).where(*where)
        return await self.app.db.read(lambda tx: int(tx.execute(query).scalar_one()))

    async def settled(self, seconds: float = PATIENCE_S) -> None:
        """Until nothing is due in the outbox (what is held or pauses is not) nor worked on, seen in one snapshot."""
        until = time.monotonic() + seconds
        messages = outbox_tables.messages
        claimed = select(func.count()).where(messages.c.state == "pending", messages.c.claim > messages.c.settled_claim)

        def look(tx: Any) -> int:
            due = sum(backlog.due for backlog in self.app.queue.backlog(tx, self.app.clock()).values())
            return due + int(tx.execute(claimed).scalar_one())

        while True:
            busy = await self.app.db.read(look)
            if not busy and not (self.app.dispatcher and any(self.app.dispatcher.in_flight.values())):
                return
            assert time.monotonic() < until, await self.app.db.read(self.app.queue.backlog, self.app.clock())
            await asyncio.sleep(0.02)


@asynccontextmanager
async def till(
    directory: Path,
    *,
    merchant: bool = True,
    events: str = "*",
    clock: Clock = now_ms,
    jobs: Jobs = lambda _: [],
    **settings: str,
) -> AsyncIterator[Till]:
    """
    A service with all six providers configured (unless `settings` say otherwise), ready to take callbacks. `jobs`: what
    its clock does; nothing, so that a full minute that strikes during a test changes nothing in it.
    """
    async with open_shop() as shop, aiohttp.ClientSession() as client:
        app = build(settings_of(directory, **(ALL | settings)), clock=clock, jobs=jobs)
        await app.start()
        running = Till(app, shop, client)
        try:
            if merchant:
                running.merchant = await running.create_merchant(url=shop.url, events=events)
            yield running
        finally:
            await app.stop()


# --- Stripe's callbacks, made here once more so that the product's own builder is not its own judge ------


def stripe_signature(body: bytes, secret: str = STRIPE_SECRET, at_s: int | None = None) -> str:
    """The Stripe-Signature header."""
    stamp = int(time.time()) if at_s is None else at_s
    digest = hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={stamp},v1={digest}"


def stripe_event(
    type_: str, id_: str = "evt_1", *, intent: str = "pi_1", amount: int = 5000, live: bool = False, **fields: Any
) -> dict[str, Any]:
    """A PaymentIntent's event in Stripe's shape."""
    status = {"payment_intent.succeeded": "succeeded", "payment_intent.processing": "processing"}.get(
        type_, "requires_payment_method"
    )
    received = amount if status == "succeeded" else 0
    created = 1_795_200_000
    return {
        "id": id_,
        "object": "event",
        "type": type_,
        "created": created,
        "livemode": live,
        "data": {
            "object": {
                "id": intent,
                "object": "payment_intent",
                "amount": amount,
                "amount_received": received,
                "currency": "xof",
                "status": status,
                "metadata": {},
                "created": created,
                "livemode": live,
            }
            | fields
        },
    }
