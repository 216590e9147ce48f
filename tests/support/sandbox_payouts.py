"""A running sandbox with an account at all six providers, and our own adapters that pay out through it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
from aiohttp import web

from service.payments.client import Client
from service.providers import PAYOUTS, PROVIDERS, ebilling_payouts
from service.providers.base import AboutPayout, Incoming, Verified
from service.providers.payouts import Payee, Paying, Payouts, broken_asking, broken_payout
from service.sandbox.api.moneroo_payouts import FATES as TEST_NUMBERS
from service.sandbox.api.paystack_payouts import OTP
from service.sandbox.desk import Account
from service.sandbox.teller import Sandbox
from service.sandbox.treasury import Payout
from tests.support.clock import Clock

__all__ = ["BY_REFERENCE", "OTP", "PAYEES", "REFERENCE", "TEST_NUMBERS", "Till", "play"]

REFERENCE = "caisse-0123abcd-po-1"
BY_REFERENCE = ("stripe", "paystack", "fedapay", "ebilling")
"""Who can be asked by our reference; Moneroo only by its own name, Monetbil not at all."""
CREDENTIALS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "stripe": {"secret_key": ("sk_live_stripe",), "webhook_secrets": ("whsec_1",)},
    "paystack": {"secret_keys": ("sk_live_paystack",)},
    "fedapay": {"secret_key": ("sk_live_fedapay",), "webhook_secrets": ("wh_live_1",)},
    "monetbil": {"service_key": ("key-1",), "service_secrets": ("secret-1",)},
    "moneroo": {"secret_key": ("pvk_live_1",), "webhook_secrets": ("signing-1",)},
    "ebilling": {
        "username": ("shop",),
        "shared_key": ("shared-1",),
        "callback_tokens": ("token-1",),
        "shap_id": ("api-1",),
        "shap_secret": ("api-secret-1",),
    },
}
PAYEES: Mapping[str, Payee] = {
    "stripe": Payee("account", "EUR", number="ba_1Awa"),
    "paystack": Payee("mobile_money", "XOF", "CI", "mtn", "+2250700000001", name="Awa Koné"),
    "fedapay": Payee("mobile_money", "XOF", "BJ", "mtn", "+22997000001", name="Awa Koné"),
    "monetbil": Payee("mobile_money", "XAF", "CM", "mtn", "+237670000001", name="Awa Koné"),
    "moneroo": Payee("mobile_money", "XOF", "CI", "mtn", "+2250700000001", name="Awa Koné"),
    "ebilling": Payee("mobile_money", "XAF", "GA", "airtel", "+24177000001", name="Awa Koné"),
}
PURSES = {"fedapay": "mtn_open", "monetbil": "CM_MTNMOBILEMONEY", "ebilling": "airtelmoney"}


@dataclass(slots=True)
class Till:
    """`got` are the callbacks as they came."""

    sandbox: Sandbox
    client: Client
    clock: Clock
    url: str
    got: list[tuple[str, Incoming]] = field(default_factory=list)

    def payouts(self, provider: str) -> Payouts:
        """The paying half, with SHAP's own addresses here."""
        found = PAYOUTS[provider]
        if provider != "ebilling":
            return found
        base = self.sandbox.base_urls["ebilling"]
        facts = {**ebilling_payouts.FACTS, "shap_url": base, "test_shap_url": base}
        return replace(
            found,
            send=lambda paying, channel, known: ebilling_payouts.send(paying, channel, known, facts),
            ask=lambda paying, known: ebilling_payouts.ask(paying, known, facts),
            float_=lambda payee, live, known: ebilling_payouts.float_(payee, live, known, facts),
        )

    def paying(self, provider: str, **more: Any) -> Paying:
        """1500 to this provider's payee."""
        payee: Payee = more.pop("payee", PAYEES[provider])
        known: dict[str, Any] = {
            "reference": REFERENCE,
            "key": "key-1",
            "amount_minor": 1500,
            "currency": payee.currency,
            "callback_url": f"{self.url}/monetbil" if provider == "monetbil" else "",
            "live": True,
            "since_ms": self.clock.now_ms,
            "now_ms": self.clock.now_ms,
        }
        return Paying(payee=payee, **(known | more))

    async def send(self, provider: str, limit_ms: int = 15_000, **more: Any) -> Any:
        """Our adapter's own send."""
        paying, payouts = self.paying(provider, **more), self.payouts(provider)
        channel = payouts.channel(paying.payee)
        assert channel is not None
        return await self._run(provider, payouts.send(paying, channel, CREDENTIALS[provider]), broken_payout, limit_ms)

    async def ask(self, provider: str, **more: Any) -> Any:
        """Our adapter's own question; None where it has none."""
        ask = self.payouts(provider).ask
        if ask is None:
            return None
        return await self._run(provider, ask(self.paying(provider, **more), CREDENTIALS[provider]), broken_asking)

    async def finalize(self, provider: str, code: str, limit_ms: int = 15_000, **more: Any) -> Any:
        """The code is handed in."""
        finalize = self.payouts(provider).finalize
        assert finalize is not None
        talk = finalize(self.paying(provider, **more), code, CREDENTIALS[provider])
        return await self._run(provider, talk, broken_payout, limit_ms)

    async def float_(self, provider: str) -> Any:
        """What the provider says can be paid out; None where it cannot be asked."""
        float_ = self.payouts(provider).float_
        if float_ is None:
            return None
        return await self._run(provider, float_(PAYEES[provider], True, CREDENTIALS[provider]), broken_asking)

    async def _run(self, provider: str, talk: Any, broken: Callable[..., Any], limit_ms: int = 15_000) -> Any:
        return await self.client.run(provider, self.sandbox.base_urls[provider], talk, broken, limit_ms)

    def set_float(self, provider: str, minor: int) -> None:
        """What this provider's payee can be paid from."""
        currency, purse = PAYEES[provider].currency, PURSES.get(provider, "")
        self.sandbox.treasury.set_float(provider, currency, minor, purse=purse)

    def held(self, provider: str) -> int:
        """The same, as it is now."""
        currency, purse = PAYEES[provider].currency, PURSES.get(provider, "")
        return self.sandbox.treasury.float_minor(provider, "main", currency, purse)

    def paid(self, provider: str = "") -> list[Payout]:
        """Whoever was really paid under our reference, at one provider or all."""
        return [one for one in self.sandbox.treasury.paid_out(REFERENCE) if provider in ("", one.provider)]

    def told(self) -> list[tuple[str, ...]]:
        """Which payouts the callbacks speak of, each with a signature that our adapter verifies."""
        found = []
        for provider, callback in self.got:
            said = PROVIDERS[provider]
            assert isinstance(said.verify(callback, CREDENTIALS[provider], self.clock.now_ms), Verified)
            about = said.translate(callback, self.clock.now_ms)
            assert isinstance(about, AboutPayout), about
            found.append(about.references)
        return found

    async def fetch(self, method: str, path: str, **more: Any) -> tuple[int, str]:
        """A request by hand: status and text."""
        async with aiohttp.ClientSession() as session, session.request(method, self.sandbox.url + path, **more) as said:
            return said.status, await said.text()


@asynccontextmanager
async def till() -> AsyncIterator[Till]:
    """The clock in the test's hand."""
    clock, client = Clock(), Client()
    got: list[tuple[str, Incoming]] = []

    async def take(request: web.BaseRequest) -> web.StreamResponse:
        headers = [(name.lower(), value) for name, value in request.raw_headers]
        provider = request.path.split("/")[2]
        got.append((provider, Incoming(request.method, headers, b"", await request.read())))
        return web.Response()

    runner = web.ServerRunner(web.Server(take, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/webhooks"
    accounts = [Account(name, known, f"{url}/{name}") for name, known in CREDENTIALS.items()]
    try:
        async with Sandbox(accounts, clock=clock, luck=random.Random(1)) as sandbox:
            yield Till(sandbox, client, clock, url, got)
    finally:
        await client.close()
        await runner.cleanup()


def play(story: Callable[[Till], Awaitable[None]]) -> None:
    """One story from beginning to end."""

    async def run() -> None:
        async with till() as t:
            await story(t)

    asyncio.run(run())
