"""The sandbox with one account, our own client, and somebody who takes the callbacks, for tests of a provider's API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
from aiohttp import web

from service.payments.client import Client
from service.providers.base import Incoming
from service.providers.calls import Lost, NotSent, Result, broken_create
from service.sandbox.desk import Account
from service.sandbox.teller import Sandbox
from service.sandbox.trouble import AFTER, BEFORE
from tests.support.clock import Clock


@dataclass(slots=True)
class Play:
    """A running sandbox with one account, our own client, and somebody who takes the callbacks."""

    sandbox: Sandbox
    client: Client
    clock: Clock
    callback_url: str
    base_url: str
    got: list[Incoming] = field(default_factory=list)

    async def run(self, talk: Any, broken: Callable[..., Any] = broken_create, limit_ms: int = 15_000) -> Any:
        """One of our conversations with the account's provider."""
        return await self.client.run("sandbox", self.base_url, talk, broken, limit_ms)

    async def ask(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        """A request as our adapter would not send it; the answer as JSON."""
        async with aiohttp.ClientSession() as session, session.request(method, self.base_url + path, **more) as answer:
            return answer.status, json.loads(await answer.read())


@asynccontextmanager
async def playing(account: Account) -> AsyncIterator[Play]:
    """The dashboard's address of callbacks is filled in where the account's is "?"."""
    got: list[Incoming] = []

    async def take(request: web.BaseRequest) -> web.Response:
        headers = [(name.lower(), value) for name, value in request.raw_headers]
        got.append(Incoming(request.method, headers, request.rel_url.raw_query_string.encode(), await request.read()))
        return web.Response()

    runner = web.ServerRunner(web.Server(take, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    clock, client = Clock(), Client()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/webhooks/{account.provider}"
        known = replace(account, callback_url=url if account.callback_url else "")
        async with Sandbox([known], clock=clock) as sandbox:
            yield Play(sandbox, client, clock, url, sandbox.base_urls[account.provider], got)
    finally:
        await client.close()
        await runner.cleanup()


def play(account: Account, story: Callable[[Play], Awaitable[None]]) -> None:
    """One story from beginning to end."""

    async def run() -> None:
        async with playing(account) as p:
            await story(p)

    asyncio.run(run())


BEFORE_ENDS: Mapping[str, Result] = {
    "timeout_before": Lost("timeout"),
    "error_5xx_before": Lost("provider_error"),
    "rate_limited": NotSent("rate_limited"),
    "unauthorized": NotSent("credentials", alert=True),
    "maintenance": Lost("provider_error"),
}
AFTER_ENDS: Mapping[str, Result] = {
    "timeout_after": Lost("timeout"),
    "reset": Lost("connection_lost"),
    "error_5xx_after": Lost("provider_error"),
    "garbage_2xx": Lost("unreadable"),
}
"""What a first call that takes money comes to under each trouble, whoever the provider is."""
assert (set(BEFORE_ENDS), set(AFTER_ENDS)) == (set(BEFORE), set(AFTER)), "a new kind of trouble needs its row"


def limit_ms(kind: str) -> int:
    """Nobody waits fifteen seconds for what never comes."""
    return 400 if kind.startswith("timeout") else 15_000


def times(kind: str) -> int:
    """How often a question has to go wrong: aiohttp repeats a GET by itself, once, when the connection was dropped."""
    return 2 if kind == "reset" else 1
