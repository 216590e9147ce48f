"""
A seller on the demonstration's market: sales whose money is held, delivered, released by the clock and paid out.

Everything goes through the API with the shop's own key, as an application's would; the buyer pays by FedaPay, and
FedaPay pays the seller. `sale` is the sale of the moment, with the seller's three balances at each step; `sales`
counts them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import aiohttp

from service.ids import now_ms
from service.sandbox.bank import Payer
from service.sandbox.figures import money
from service.sandbox.teller import Sandbox

REFERENCE = "stall-moussa"
BUYER, SELLER = "+22997000042", "+22996000043"
PRICES = (12_000, 7_500, 25_000, 4_900)
DELIVERED_AFTER_S, BETWEEN_S = 6.0, 20.0
LOOK_EVERY_S, PATIENCE_S = 1.0, 180.0
TERMS = {
    "enabled": True,
    "understood": True,
    "release_hours": 0,  # 48 in life: a demonstration is shorter
    "payout_on_release": False,  # so that one sees the money in the seller's balance first
    "approve_above": {"XOF": 1_000_000},
}


@dataclass(frozen=True, slots=True)
class Step:
    """What has just become of the sale, and the seller's balances then, in minor units of XOF."""

    at_s: float
    text: str
    available: int
    held: int
    paid_out: int


@dataclass(frozen=True, slots=True)
class Sales:
    """Since the beginning: sales that were paid for and those that went on to the seller, with their minor units."""

    sold: int = 0
    sold_minor: int = 0
    paid_out: int = 0
    paid_out_minor: int = 0


class Unexpected(Exception):
    """The service said no to something that it should have taken."""


class Stall:
    """`run` sells until it is told to stop. What goes wrong is said in a step, and the next sale is begun."""

    def __init__(self, url: str, key: str, sandbox: Sandbox) -> None:
        self._url, self._headers, self._sandbox = url, {"Authorization": f"Bearer {key}"}, sandbox
        self._numbers, self._seller = itertools.count(), ""
        self.sale: Sequence[Step] = ()
        self.sales = Sales()

    async def run(self, stop: asyncio.Event) -> None:
        """One sale after the other."""
        self._sandbox.bank.set_payer(BUYER, Payer("pays", after_ms=2_000))
        limit = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(self._url, headers=self._headers, timeout=limit) as http:
            while not stop.is_set():
                self.sale = ()
                try:
                    await self._sell(http, stop, PRICES[next(self._numbers) % len(PRICES)])
                except (Unexpected, aiohttp.ClientError, TimeoutError) as error:
                    self._add(f"the sale stopped: {str(error) or type(error).__name__}", {})
                await _wait(stop, BETWEEN_S)

    async def _sell(self, http: aiohttp.ClientSession, stop: asyncio.Event, price: int) -> None:
        seller, said = self._seller or await self._open(http), money(price, "XOF")
        line: dict[str, Any] = {"description": "Boubou brodé", "quantity": 1, "unit_amount": price}
        wish: dict[str, Any] = {"lines": [line], "currency": "XOF", "escrow": {"beneficiary": seller}}
        order = await self._ask(http, "POST", "/v1/orders", wish)
        payment: dict[str, Any] = {
            "amount": price,
            "currency": "XOF",
            "method": "mobile_money",
            "country": "BJ",
            "operator": "mtn",
            "payer_phone": BUYER,
            "customer": {"name": "Awa Koné", "email": "awa@example.com"},
            "order": order["id"],
            "providers": ["fedapay"],
        }
        await self._ask(http, "POST", "/v1/payments", payment)
        of_order = f"/v1/orders/{order['id']}"
        if not await self._until(http, stop, of_order, "state", "paid"):
            return
        done = self.sales
        self.sales = replace(done, sold=done.sold + 1, sold_minor=done.sold_minor + price)
        await self._look(http, f"paid {said}: held for the seller")
        if await _wait(stop, DELIVERED_AFTER_S):
            return
        await self._ask(http, "POST", f"{of_order}/deliver", {})
        await self._look(http, f"delivered: the clock of {said} runs")
        hold = (await self._ask(http, "GET", of_order))["escrow"]["hold"]
        if not await self._until(http, stop, f"/v1/holds/{hold}", "status", "released"):
            return
        await self._look(http, f"released by the clock: {said}")
        if await _wait(stop, DELIVERED_AFTER_S):
            return
        wish = {"beneficiary": seller, "amount": price, "currency": "XOF", "hold": hold}
        payout = await self._ask(http, "POST", "/v1/payouts", wish)
        if await self._until(http, stop, f"/v1/payouts/{payout['id']}", "status", "paid"):
            done = self.sales
            self.sales = replace(done, paid_out=done.paid_out + 1, paid_out_minor=done.paid_out_minor + price)
            await self._look(http, f"paid out to their wallet: {said}")

    async def _open(self, http: aiohttp.ClientSession) -> str:
        """The stall is opened once; a later run finds its seller again."""
        await self._ask(http, "PATCH", "/v1/escrow", TERMS)
        found = (await self._ask(http, "GET", f"/v1/beneficiaries?reference={REFERENCE}"))["data"]
        if not found:
            wallet = {"kind": "mobile_money", "number": SELLER, "name": "Moussa Diallo", "country": "BJ"}
            wish = {"currency": "XOF", "reference": REFERENCE, "payee": wallet | {"operator": "mtn"}}
            found = [await self._ask(http, "POST", "/v1/beneficiaries", wish)]
        self._seller = str(found[0]["id"])
        return self._seller

    async def _until(self, http: aiohttp.ClientSession, stop: asyncio.Event, path: str, name: str, value: str) -> bool:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + PATIENCE_S
        while not stop.is_set():
            seen = await self._ask(http, "GET", path)
            if seen[name] == value:
                return True
            if loop.time() > until_s:
                raise Unexpected(f"{path} is {seen[name]} after {PATIENCE_S:.0f} s, not {value}")
            await _wait(stop, LOOK_EVERY_S)
        return False

    async def _look(self, http: aiohttp.ClientSession, text: str) -> None:
        self._add(text, await self._ask(http, "GET", f"/v1/beneficiaries/{self._seller}/balance"))

    def _add(self, text: str, balance: dict[str, Any]) -> None:
        figures = (int(balance.get(name, 0)) for name in ("available", "pending", "paid_out"))
        self.sale = (*self.sale, Step(now_ms() / 1000, text, *figures))

    async def _ask(self, http: aiohttp.ClientSession, method: str, path: str, body: Any = None) -> Any:
        async with http.request(method, path, json=body) as answer:
            said = await answer.json()
            if answer.status >= 300:
                raise Unexpected(f"{method} {path}: {answer.status} {said.get('detail') or said.get('title', '')}")
            return said


async def _wait(stop: asyncio.Event, for_s: float) -> bool:
    """True when it was told to stop meanwhile."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), for_s)
    return stop.is_set()
