"""A running sandbox, our own client in front of it, and somebody who takes its callbacks."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import aiohttp
from aiohttp import web

from service.payments.client import Client
from service.payments.facts import Told
from service.providers import PROVIDERS, fedapay_calls, paystack_calls, stripe_calls
from service.providers.base import Incoming, Verified
from service.providers.calls import (
    Broken,
    Call,
    Calls,
    Customer,
    Given,
    Listing,
    Response,
    Wanted,
    broken_ask,
    broken_cancel,
    broken_create,
    broken_otp,
    broken_refund,
)
from service.sandbox.bank import Charge, Payer
from service.sandbox.desk import Account
from service.sandbox.teller import Sandbox
from tests.support.clock import Clock

CALLS: dict[str, Calls] = {
    "stripe": stripe_calls.CALLS,
    "paystack": paystack_calls.CALLS,
    "fedapay": fedapay_calls.CALLS,
}
CREDENTIALS = {
    "stripe": {"secret_key": ("sk_live_stripe",), "webhook_secrets": ("whsec_1",)},
    "paystack": {"secret_keys": ("sk_live_paystack",)},
    "fedapay": {"secret_key": ("sk_live_fedapay",), "webhook_secrets": ("wh_live_1",)},
}
RETURN_URL = "http://127.0.0.1/merci"
_WANTED = Wanted(
    reference="caisse-try-1",
    key="key-1",
    amount_minor=1500,
    currency="XOF",
    method="mobile_money",
    country="CI",
    operator="mtn",
    description="Deux sacs de riz",
    return_url=RETURN_URL,
    callback_url="",
    payer_phone="+2250700000001",
    customer=Customer("Awa Koné", "awa@shop.example"),
    live=True,
    metadata={"order": "7"},
)
WANTED = {
    "stripe": replace(_WANTED, method="card", currency="EUR", country="", operator="", payer_phone=""),
    "paystack": _WANTED,
    "fedapay": replace(_WANTED, country="BJ", payer_phone="+22997000001"),
}
PHONES = {"paystack": "0700000001", "fedapay": "22997000001"}

Talk = Generator[Call, Response, Any]


@dataclass(slots=True)
class Trial:
    """`got` are the callbacks as they came; `answers` the statuses that they are answered with, 200 by default."""

    sandbox: Sandbox
    client: Client
    clock: Clock
    got: list[tuple[str, Incoming]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)

    async def run(self, provider: str, talk: Talk, broken: Callable[[Broken, int], Any], limit_ms: int = 15_000) -> Any:
        return await self.client.run(provider, self.sandbox.base_urls[provider], talk, broken, limit_ms)

    async def create(self, provider: str, limit_ms: int = 15_000, **more: Any) -> Any:
        """Our adapter's own create."""
        wanted = replace(WANTED[provider], **more)
        channel = CALLS[provider].channel(
            wanted.method, wanted.currency, wanted.country, wanted.operator, wanted.embedded
        )
        assert channel is not None
        talk = CALLS[provider].create(wanted, channel, CREDENTIALS[provider])
        return await self.run(provider, talk, broken_create, limit_ms)

    def given(self, provider: str, *names: str, key: str = "", reference: str = "", amount_minor: int = 0) -> Given:
        wanted = WANTED[provider]
        amount = amount_minor or wanted.amount_minor
        return Given(reference or wanted.reference, names, amount, wanted.currency, key, live=True)

    async def fetch(self, provider: str, *names: str) -> Any:
        return await self.run(
            provider, CALLS[provider].fetch(self.given(provider, *names), True, CREDENTIALS[provider]), broken_ask
        )

    async def find(self, provider: str, reference: str = "", limit_ms: int = 15_000) -> Any:
        find = CALLS[provider].find
        assert find is not None
        talk = find(self.given(provider, reference=reference), True, CREDENTIALS[provider])
        return await self.run(provider, talk, broken_ask, limit_ms)

    async def otp(self, code: str, limit_ms: int = 15_000) -> Any:
        otp = CALLS["paystack"].otp
        assert otp is not None
        return await self.run(
            "paystack", otp(self.given("paystack"), code, CREDENTIALS["paystack"]), broken_otp, limit_ms
        )

    async def cancel(self, provider: str, *names: str, reference: str = "", limit_ms: int = 15_000) -> Any:
        cancel = CALLS[provider].cancel
        assert cancel is not None
        talk = cancel(self.given(provider, *names, reference=reference), CREDENTIALS[provider])
        return await self.run(provider, talk, broken_cancel, limit_ms)

    async def refund(
        self, provider: str, amount_minor: int, *names: str, key: str = "re-1", limit_ms: int = 15_000
    ) -> Any:
        refund = CALLS[provider].refund
        assert refund is not None
        talk = refund(self.given(provider, *names, key=key), amount_minor, "", CREDENTIALS[provider])
        return await self.run(provider, talk, broken_refund, limit_ms)

    async def refunds(self, provider: str, *names: str) -> Any:
        refunds = CALLS[provider].refunds
        assert refunds is not None
        return await self.run(provider, refunds(self.given(provider, *names), CREDENTIALS[provider]), broken_ask)

    async def listed(self, provider: str, cursor: str | None = None) -> Any:
        conversation = CALLS[provider].list
        assert conversation is not None
        now = self.clock.now_ms
        listing = Listing(now - 3_600_000, now + 3_600_000, cursor)
        return await self.run(provider, conversation(listing, CREDENTIALS[provider]), broken_ask)

    def charge(self) -> Charge:
        """The one charge in the books."""
        (book,) = self.sandbox.bank.books()
        found = self.sandbox.bank.find(book["provider"], book["id"])
        assert found is not None
        return found

    def told(self) -> list[Told]:
        """What the callbacks say, each with a signature that our adapter verifies."""
        found = []
        for provider, callback in self.got:
            said = PROVIDERS[provider]
            verified = said.verify(callback, CREDENTIALS[provider], self.clock.now_ms)
            assert isinstance(verified, Verified), verified
            told = said.translate(callback, self.clock.now_ms)
            assert isinstance(told, Told), told
            found.append(told)
        return found

    def kinds(self) -> list[str]:
        """The kind of the first fact of each callback."""
        return [told.facts[0].kind.value for told in self.told()]

    async def ask(self, provider: str, method: str, path: str, **more: Any) -> tuple[int, Any]:
        """A request by hand, with the right key unless `headers` say otherwise."""
        key = next(iter(CREDENTIALS[provider].values()))[0]
        more.setdefault("headers", {"Authorization": f"Bearer {key}"})
        return await fetched(method, self.sandbox.base_urls[provider] + path, **more)


async def fetched(method: str, url: str, **more: Any) -> tuple[int, Any]:
    """Status and body, as JSON where it is; redirects are not followed but told as the body."""
    async with aiohttp.ClientSession() as session:
        async with session.request(method, url, allow_redirects=False, **more) as answer:
            text = await answer.text()
            if answer.status == 303:
                return answer.status, answer.headers["Location"]
            return answer.status, json.loads(text) if text[:1] in ("{", "[") else text


@asynccontextmanager
async def trial(ports: Literal["one", "each"] = "one", anybody: Payer | None = None) -> AsyncIterator[Trial]:
    """One account at each of three providers, live, the clock in the test's hand."""
    clock, client = Clock(), Client()
    took: list[tuple[str, Incoming]] = []
    answers: list[int] = []

    async def take(request: web.BaseRequest) -> web.StreamResponse:
        headers = [(name.lower(), value) for name, value in request.raw_headers]
        body = await request.read()
        provider = request.path.rpartition("/")[2]
        took.append((provider, Incoming(request.method, headers, request.rel_url.raw_query_string.encode(), body)))
        return web.Response(status=answers.pop(0) if answers else 200)

    runner = web.ServerRunner(web.Server(take, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/webhooks"
    accounts = [Account(name, credentials, f"{url}/{name}") for name, credentials in CREDENTIALS.items()]
    try:
        async with Sandbox(accounts, clock=clock, ports=ports, anybody=anybody, luck=random.Random(1)) as sandbox:
            yield Trial(sandbox, client, clock, took, answers)
    finally:
        await client.close()
        await runner.cleanup()
