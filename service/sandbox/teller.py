"""
The sandbox: the six providers' APIs as one local server, with their callbacks, pages and switchable trouble.

    async with Sandbox(accounts, clock=clock) as sandbox:
        sandbox.base_urls["stripe"]                 # http://127.0.0.1:PORT/stripe
        sandbox.trouble.on("stripe", "timeout_after", times=1)
        sandbox.visit(url, "pay")                   # what a payer does on a hosted page
        await sandbox.tick()                        # the bank settles, callbacks go out
        sandbox.bank.charged(reference)             # what was really charged
        sandbox.treasury.paid_out(reference)        # and really paid out

`ports="each"` (or a port for each name) gives every provider one of its own, which `refuse` can shut. `every_ms` ticks
by real time for a demonstration; without it nothing moves but by `tick()`. Everything is in memory and bounded; it
listens on loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from types import TracebackType
from typing import Final, Literal, Self
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from service.ids import Clock, now_ms
from service.payments.facts import Reason
from service.sandbox import counter, pages
from service.sandbox.api import APIS
from service.sandbox.bank import Bank, Charge, Happening, Payer
from service.sandbox.desk import Account, Api, Asked, Choice, Desk, Said, Turned
from service.sandbox.door import BODY_BYTES_MAX, Door
from service.sandbox.post import Post
from service.sandbox.treasury import Fate, Moved, Payout, Treasury
from service.sandbox.trouble import AFTER, BEFORE, Trouble

HANG_S_MAX: Final = 120.0
_LOOK_S: Final = 0.02
_GARBAGE: Final = b'{"status": tru\x00\xff<html>'
_CHOICES: Final[Mapping[str, Choice]] = {"pay": "pay", "fail": "fail", "abandon": "abandon"}
_PAGE = re.compile(r"/pay/([A-Za-z0-9_-]{1,200})")


class Sandbox:
    """See above. `luck` makes ids repeatable; without it they are new each time, as caisse remembers old ones."""

    def __init__(
        self,
        accounts: Sequence[Account],
        *,
        clock: Clock = now_ms,
        host: str = "127.0.0.1",
        port: int = 0,
        ports: Literal["one", "each"] | Mapping[str, int] = "one",
        every_ms: int | None = None,
        anybody: Payer | None = None,
        luck: random.Random | None = None,
    ) -> None:
        self.bank = Bank(clock, anybody=anybody)
        self.treasury = Treasury(clock)
        self.trouble = Trouble(tuple(APIS))
        self.post = Post(clock, self.trouble, {name: api.taken for name, api in APIS.items()})
        self.desk = Desk(
            self.bank, self.treasury, self.trouble, accounts, clock, luck or random.SystemRandom(), self.base_url
        )
        self.asked: Counter[tuple[str, str, int]] = Counter()  # (provider, operation, status; 0: no answer)
        self.hanging = 0  # how many wait for an answer that never comes
        self._every_ms = every_ms
        self._main = Door(self._handle, host, port)
        if ports == "each":
            ports = {name: port + number if port else 0 for number, name in enumerate(APIS, 1)}
        own = {} if ports == "one" else ports
        self._doors = {name: Door(self._handle, host, own[name]) for name in own}
        self._stopping = asyncio.Event()
        self._ticking = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None
        self._ticker: asyncio.Task[None] | None = None
        self.bank.heard.append(self._write_letters)
        self.bank.takes = self._amount_taken
        self.treasury.heard.append(self._write_payout_letters)
        self.treasury.fate, self.treasury.poor = self._fate, self._poor
        self.trouble.changed = self._open_and_shut

    # --- life -----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> Mapping[str, str]:
        """Listen; the base addresses."""
        for door in (self._main, *self._doors.values()):
            door.open()
        self._session = aiohttp.ClientSession(trust_env=False)
        if self._every_ms is not None:
            self._ticker = asyncio.create_task(self._tick_by_time(self._every_ms / 1000))
        return self.base_urls

    async def stop(self) -> None:
        """Stop listening; callbacks that still wait are dropped."""
        self._stopping.set()
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
        for door in (self._main, *self._doors.values()):
            await door.close()
        if self._session is not None:
            await self._session.close()

    @property
    def base_urls(self) -> Mapping[str, str]:
        """What stands where the providers' own addresses would."""
        return {name: self.base_url(name) for name in APIS}

    def base_url(self, provider: str) -> str:
        """Of one provider."""
        door = self._doors.get(provider, self._main)
        return f"http://{door.host}:{door.port}/{provider}"

    @property
    def url(self) -> str:
        """Where `/_sandbox/…` is."""
        return f"http://{self._main.host}:{self._main.port}"

    async def tick(self, times: int = 1) -> None:
        """What is due by the clock happens: payers answer, money moves, callbacks go out (each is tried once)."""
        assert self._session is not None, "started"
        async with self._ticking:
            for _ in range(times):
                self.bank.settle()
                self.treasury.settle()
                await self.post.deliver(self._session)

    async def _tick_by_time(self, every_s: float) -> None:
        while not self._stopping.is_set():
            await self.tick()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), every_s)

    # --- what payers do -------------------------------------------------------------------------------

    def visit(self, url: str, choice: Choice, reason: Reason = Reason.INSUFFICIENT_FUNDS) -> str:
        """What a payer does on a hosted page; where the browser goes then. ValueError: there is no such page."""
        path = urlsplit(url).path
        provider, _, rest = path.removeprefix("/").partition("/")
        found = _PAGE.fullmatch("/" + rest)
        charge = self.bank.find(provider, found[1]) if found else None
        if charge is None:
            raise ValueError(f"There is no page {path[:200]!r} here.")
        return self.choose(charge, choice, reason)

    def choose(self, charge: Charge, choice: Choice, reason: Reason = Reason.INSUFFICIENT_FUNDS) -> str:
        """The same for a charge in hand. On a page of a charge that has ended, nothing happens any more."""
        if choice == "pay":
            self.bank.pay(charge)
        elif choice == "fail":
            self.bank.decline(charge, reason)
        else:
            self.bank.leave(charge)
        return APIS[charge.provider].back(self.desk, charge, choice)

    # --- hooks ----------------------------------------------------------------------------------------

    def _amount_taken(self, charge: Charge) -> int:
        wrong = self.trouble.take(charge.provider, "capture", "wrong_amount")
        return max(1, charge.amount_minor + (wrong.minor if wrong else 0))

    def _write_letters(self, happening: Happening) -> None:
        charge = happening.charge
        account = self.desk.account_of(charge)
        if account is not None:
            for letter in APIS[charge.provider].letters(self.desk, happening):
                self.post.put(account, letter, charge.callback_url or account.callback_url)

    def _write_payout_letters(self, moved: Moved) -> None:
        payout = moved.payout
        account = self.desk.account_of(payout)
        if account is not None:
            for letter in APIS[payout.provider].payout_letters(self.desk, moved):
                self.post.put(account, letter, payout.callback_url or account.callback_url)

    def _fate(self, payout: Payout) -> Fate:
        fails, slow, back = (
            self.trouble.take(payout.provider, "payout", kind)
            for kind in ("payout_fails", "payout_slow", "payout_returned_later")
        )
        return Fate(fails is not None, slow.delay_ms if slow else 0, back.delay_ms if back else None)

    def _poor(self, payout: Payout) -> bool:
        return self.trouble.take(payout.provider, "payout", "insufficient_float") is not None

    def _open_and_shut(self) -> None:
        if not self._doors:
            if any(self.trouble.refuses(name) for name in APIS):
                raise ValueError('refuse needs a port for each provider: Sandbox(…, ports="each").')
            return
        for name, door in self._doors.items():
            door.shut() if self.trouble.refuses(name) else door.open()

    # --- HTTP -----------------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await _body(request)
        headers = {name.lower(): value for name, value in request.headers.items()}
        provider, _, rest = request.rel_url.raw_path.removeprefix("/").partition("/")
        asked = Asked(request.method, "/" + rest, request.rel_url.raw_query_string, headers, body or b"")
        if body is None:
            said: Said | None = Said(413, pages.plain("413", "Trop grand · Too large"))
        elif provider == "_sandbox":
            said = counter.answer(self, asked)
        elif provider not in APIS:
            said = Said(404, pages.plain("404", f"{', '.join(APIS)}, _sandbox"))
        elif page := _PAGE.fullmatch(asked.path):
            said = self._hosted(provider, page[1], asked)
        else:
            said = await self._api(APIS[provider], asked, request)
        if said is None:  # dropped
            return web.Response()
        raw, kind = said.raw()
        # Date by our clock: it is the provider's own, and adapters read it.
        date = formatdate(self.bank.clock() / 1000, usegmt=True)
        return web.Response(status=said.status, body=raw, headers={"Content-Type": kind, "Date": date, **said.headers})

    def _hosted(self, provider: str, id_: str, asked: Asked) -> Said:
        charge = self.bank.find(provider, id_)
        if charge is None:
            return Said(404, pages.plain("404", "Cette page n'existe pas · There is no such page"))
        if asked.method == "POST":
            form = asked.form() or {}
            choice = _CHOICES.get(form.get("choice", ""))
            if choice is None:
                return Said(400, pages.plain("400", "choice: pay, fail, abandon"))
            reason = form.get("reason", "")
            back = self.choose(charge, choice, Reason(reason) if reason in set(Reason) else Reason.UNKNOWN)
            if choice == "fail" and charge.live:  # the payer may try again on the same page
                return Said(200, pages.hosted(charge))
            return Said(303, b"", {"Location": back}) if back else Said(200, pages.hosted(charge))
        return Said(200, pages.hosted(charge))

    async def _api(self, api: Api, asked: Asked, request: web.BaseRequest) -> Said | None:
        """One call of a provider's API, with the trouble that is on; None: the connection was dropped."""
        for route in api.routes:
            parts = re.fullmatch(route.pattern, asked.path) if route.method == asked.method else None
            if parts:
                operation = route.operation
                break
        else:
            return self._count(api.name, "none", api.error(404, "There is no such address here."))
        asked = Asked(asked.method, asked.path, asked.query, asked.headers, asked.body, parts.groupdict())
        before = self.trouble.take(api.name, operation, *BEFORE)
        if before is not None:
            return self._count(api.name, operation, await self._instead(api, before.kind, request))
        account: Account | None = None
        try:
            account = (route.enter or api.enter)(self.desk, asked)
            said = api.replay(self.desk, account, asked) or route.handle(self.desk, account, asked)
        except Turned as turned:
            said = turned.said
        after = self.trouble.take(api.name, operation, *AFTER) if said.status < 300 else None
        told = said if after is None else await self._instead(api, after.kind, request, account, asked, said)
        if account is not None and told is said:
            api.keep(self.desk, account, asked, said)
        return self._count(api.name, operation, told)

    async def _instead(
        self,
        api: Api,
        kind: str,
        request: web.BaseRequest,
        account: Account | None = None,
        asked: Asked | None = None,
        done: Said | None = None,
    ) -> Said | None:
        """What is said in place of the answer. What was done stays kept under its key, a 500 as a 500."""
        wrong = api.error(500, "Something went wrong.")
        if account is not None and asked is not None and done is not None:
            api.keep(self.desk, account, asked, wrong if kind == "error_5xx_after" else done)
        match kind:
            case "timeout_before" | "timeout_after":
                await self._hang(request)
                return None
            case "reset":
                _drop(request)
                return None
            case "garbage_2xx":
                return Said(200, _GARBAGE, {"Content-Type": "application/json"})
            case "rate_limited":
                return api.error(429, "Too many requests.")
            case "unauthorized":
                return api.error(401, "Unauthorized.")
            case "maintenance":
                return Said(503, pages.plain("503", "Maintenance"))
            case _:
                return wrong

    async def _hang(self, request: web.BaseRequest) -> None:
        """Say nothing until the other side has gone, or we go."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + HANG_S_MAX
        self.hanging += 1
        try:
            while loop.time() < until_s and not self._stopping.is_set():
                if request.transport is None or request.transport.is_closing():
                    return
                await asyncio.sleep(_LOOK_S)
            _drop(request)
        finally:
            self.hanging -= 1

    def _count(self, provider: str, operation: str, said: Said | None) -> Said | None:
        self.asked[provider, operation, said.status if said else 0] += 1
        return said


def _drop(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()


async def _body(request: web.BaseRequest) -> bytes | None:
    """The whole body, None where it is longer than any request of ours."""
    read = b""
    async for part in request.content.iter_chunked(64 * 1024):
        read += part
        if len(read) > BODY_BYTES_MAX:
            return None
    return read
