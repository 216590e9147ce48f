"""A running caisse in front of the sandbox's providers: real requests out, real signed callbacks in."""

from __future__ import annotations

import contextlib
import json
import random
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from service.ids import now_ms
from service.merchants.audit import By
from service.payments.tables import attempts, attention, payments
from service.payments.wish import Wish
from service.providers.calls import Customer
from service.sandbox.bank import Charge, Payer
from service.sandbox.desk import Account
from service.sandbox.teller import Sandbox
from tests.support.service import SECRETS, Till, till

SIX = ("stripe", "paystack", "fedapay", "monetbil", "moneroo", "ebilling")
KEYS = SECRETS | {
    "CAISSE_STRIPE_SECRET_KEY": "sk_test_of_the_tests",
    "CAISSE_FEDAPAY_SECRET_KEY": "sk_sandbox_of_the_tests",
}
BUYER = Customer("Awa Koné", "awa@example.com", "+2250700000000")
USUAL: Mapping[str, Mapping[str, Any]] = {
    "stripe": {"amount_minor": 5_000, "currency": "XOF", "method": "card"},
    "paystack": {
        "amount_minor": 5_000,
        "currency": "GHS",
        "country": "GH",
        "operator": "mtn",
        "payer_phone": "+233551234987",
    },
    "fedapay": {
        "amount_minor": 5_000,
        "currency": "XOF",
        "country": "BJ",
        "operator": "mtn",
        "payer_phone": "+22997808080",
    },
    "monetbil": {
        "amount_minor": 5_000,
        "currency": "XAF",
        "country": "CM",
        "operator": "mtn",
        "payer_phone": "+237670000001",
    },
    "moneroo": {
        "amount_minor": 5_000,
        "currency": "XOF",
        "country": "CI",
        "operator": "orange",
        "payer_phone": "+2250707070707",
    },
    "ebilling": {
        "amount_minor": 5_000,
        "currency": "XAF",
        "country": "GA",
        "operator": "airtel",
        "payer_phone": "+24174000001",
    },
}
"""A payment that each provider takes, by its most usual way."""


class Moving:
    """The real clock, and `ahead_ms` of it: time goes by, and can be made to."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        """Milliseconds UTC."""
        return now_ms() + self.ahead_ms


@dataclass(slots=True)
class Counter:
    """A till and the sandbox behind it. `wait_a_little` lets what is on its way arrive."""

    till: Till
    sandbox: Sandbox
    clock: Moving

    def wish(self, amount_minor: int = 5_000, currency: str = "XOF", method: Any = "mobile_money", **more: Any) -> Wish:
        """A payment of the first merchant's, in test money."""
        assert self.till.merchant is not None
        return Wish(self.till.merchant.id, False, amount_minor, currency, method, **more)

    def usual(self, provider: str, **more: Any) -> Wish:
        """What this provider takes, asked of it alone."""
        return self.wish(
            **{
                "providers": (provider,),
                "customer": BUYER,
                "return_url": "https://shop.example/back",
                **USUAL[provider],
                **more,
            }
        )

    @property
    def by(self) -> By:
        """A hand."""
        return By("test", self.till.app.clock(), self.till.app.ids)

    async def payment(self, id_: str) -> Any:
        """The payment's row."""
        return (await self.till.rows(payments, payments.c.id == id_))[0]

    async def attempts(self, id_: str) -> Sequence[Any]:
        """Its attempts, in order."""
        query = select(attempts).where(attempts.c.payment_id == id_).order_by(attempts.c.id)
        return await self.till.app.db.read(lambda tx: list(tx.execute(query).all()))

    async def charged(self, id_: str) -> list[Charge]:
        """What the sandbox has really taken for this payment, over all its attempts."""
        references = [attempt.reference for attempt in await self.attempts(id_)]
        return [charge for charge in self.sandbox.bank.charged(*references) if charge.captured_minor]

    async def reasons(self, id_: str) -> set[str]:
        """Why a person should look at it."""
        rows = await self.till.rows(attention, attention.c.subject == id_, attention.c.closed_at_ms.is_(None))
        return {row.reason for row in rows}

    async def go_on(self, ahead_ms: int) -> None:
        """So much later; whatever is due by then is done."""
        await self.till.settled()
        self.clock.ahead_ms += ahead_ms
        self.till.app.nudge()
        await self.settle()

    async def pay(self, id_: str, code: str = "123456") -> None:
        """The payer does what they are asked to do."""
        live = [attempt for attempt in await self.attempts(id_) if attempt.state == "requires_action"]
        match json.loads(live[-1].action) if live else {}:
            case {"type": "redirect", "url": url}:
                self.sandbox.visit(url, "pay")
            case {"type": "otp"}:
                await self.till.app.desk.otp(id_, code)
            case _:
                pass  # on the phone, where the sandbox's payer is asked
        await self.settle()

    async def settle(self, times: int = 3) -> None:
        """The bank settles, callbacks go out, and caisse works them off."""
        for _ in range(times):
            await self.sandbox.tick()
            await self.till.settled()


def _free_port() -> int:
    """One that nobody is given by chance between this look and the service's own: below what the system hands out."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.asynccontextmanager
async def counter(
    directory: Path, *providers: str, anybody: Payer | None = None, **settings: str
) -> AsyncIterator[Counter]:
    """With these providers (all six if none is named) configured and called at the sandbox, each at its own port."""
    names = providers or SIX
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    chosen = {k: v for k, v in KEYS.items() if any(k.startswith(f"CAISSE_{n.upper()}_") for n in names)}
    token = {"ebilling": "/" + KEYS["CAISSE_EBILLING_CALLBACK_TOKENS"]}
    accounts = [
        Account(name, _credentials(name, chosen), f"{url}/webhooks/{name}{token.get(name, '')}", live=False)
        for name in names
    ]
    clock = Moving()
    async with Sandbox(accounts, ports="each", anybody=anybody, clock=clock) as sandbox:
        bases = {f"{name}_base_url": sandbox.base_urls[name] for name in names}
        given = {k.removeprefix("CAISSE_").lower(): v for k, v in chosen.items()}
        blank = {k.removeprefix("CAISSE_").lower(): "" for k in SECRETS if k not in chosen}
        if "ebilling" in names:
            portal = f'[providers.ebilling.facts]\ntest_portal_url = "{sandbox.base_urls["ebilling"]}"\n'
            (directory / "caisse.toml").write_text(portal)
        chosen_settings: dict[str, Any] = {**blank, **given, **bases, "port": str(port), "public_url": url, **settings}
        async with till(directory, clock=clock, **chosen_settings) as running:
            yield Counter(running, sandbox, clock)


def _credentials(provider: str, chosen: dict[str, str]) -> dict[str, list[str]]:
    prefix = f"CAISSE_{provider.upper()}_"
    return {k.removeprefix(prefix).lower(): v.split(",") for k, v in chosen.items() if k.startswith(prefix)}
