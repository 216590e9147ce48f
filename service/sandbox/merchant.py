"""
The sample merchant: a shop that verifies every webhook it gets, and misbehaves on purpose.

The first half of this file is meant to be copied into a real shop; the second half is the demonstration. What a
receiver has to do is short:

1. take the body as bytes and verify the signature over exactly those bytes (`verify`);
2. drop what it has already done: the same `webhook-id` may come many times (`Ledger.take`);
3. drop what is older than what it knows: every event of a payment carries a `sequence` (`Ledger.take`);
4. answer 2xx only when it has kept the event. Anything else, and caisse comes again.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from aiohttp import web

from service.ids import now_ms

# --- to be copied -----------------------------------------------------------------------------------

TOLERANCE_S = 300
"""Older or newer webhooks are refused, so that a recorded one cannot be played to us next week."""


def verify(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now_s: float) -> str | None:
    """
    Check one webhook against the endpoint's secrets (several while one is being rotated).

    Returns None when it is caisse's, otherwise a word for our own log. The sender is told nothing but 401.
    This is Standard Webhooks 1.0: any library that knows it (`standardwebhooks`, `svix`) does the same.
    """
    event_id = headers.get("webhook-id", "")
    sent_at = headers.get("webhook-timestamp", "")
    if not event_id or not (sent_at.isascii() and sent_at.isdigit()) or len(sent_at) > 12:
        return "missing_header"
    if abs(now_s - int(sent_at)) > TOLERANCE_S:
        return "too_old_or_new"
    signed = f"{event_id}.{sent_at}.".encode() + body
    given = [word[3:] for word in headers.get("webhook-signature", "").split(" ") if word.startswith("v1,")]
    for secret in secrets:
        try:
            key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except (binascii.Error, ValueError):
            continue
        expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
        # compare_digest takes the same time however much is right; on bytes it takes any characters at all.
        if any(hmac.compare_digest(expected, one.encode("utf-8", "replace")) for one in given):
            return None
    return "bad_signature"


def verify_plain(headers: Mapping[str, str], body: bytes, secrets: Sequence[str]) -> str | None:
    """The plain scheme beside it: `X-Caisse-Signature: sha256=<hex>`, keyed with the secret as it is written."""
    given = headers.get("x-caisse-signature", "").encode("utf-8", "replace")
    for secret in secrets:
        expected = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        if hmac.compare_digest(expected.encode(), given):
            return None
    return "bad_signature" if given else "missing_header"


class Ledger:
    """
    What the shop knows of each payment. In a real shop these are two tables with unique keys:
    `webhooks_seen(webhook_id)` and `payments(id, sequence, status)`, written in one transaction.
    """

    LIMIT = 20_000  # of each kind, oldest forgotten first; a database would keep them all

    def __init__(self) -> None:
        self.seen: OrderedDict[str, None] = OrderedDict()
        self.payments: OrderedDict[str, tuple[int, str]] = OrderedDict()

    def knows(self, event_id: str) -> bool:
        """Whether it has got this event; of more than it can remember it believes it has."""
        return event_id in self.seen or len(self.seen) >= self.LIMIT

    def take(self, event_id: str, event: Mapping[str, Any]) -> str:
        """Take an event once: "new" when something was learned, "repeat" or "older" when there is nothing to do."""
        if event_id in self.seen:
            return "repeat"
        self.seen[event_id] = None
        payment = (event.get("data") or {}).get("payment") or {}
        if payment.get("id"):
            known, _ = self.payments.get(payment["id"], (0, ""))
            if event.get("sequence", 0) <= known:
                return "older"
            self.payments[payment["id"]] = (event["sequence"], payment.get("status", ""))
            self.payments.move_to_end(payment["id"])
        for kept in (self.seen, self.payments):
            while len(kept) > self.LIMIT:
                kept.popitem(last=False)
        return "new"


# --- the demonstration ------------------------------------------------------------------------------


@dataclass(slots=True)
class Counters:
    """What the shop has seen. Every request is either refused, failed before it was kept, or taken."""

    received: int = 0
    verified: int = 0
    refused: int = 0  # not caisse's: answered 401
    unavailable: int = 0  # 503 on purpose, nothing kept
    lost: int = 0  # kept, then the connection was reset before the answer, on purpose
    slow: int = 0  # kept, answered late, on purpose
    new: int = 0
    repeat: int = 0
    older: int = 0
    retried: int = 0  # new ones that needed more than one try
    hung: int = 0  # not answered, nothing kept, on purpose

    @property
    def on_purpose(self) -> int:
        """How often the shop misbehaved."""
        return self.unavailable + self.lost + self.slow + self.hung


@dataclass(frozen=True, slots=True)
class Receipt:
    """One webhook that came, at which try, and what the shop did to it on purpose ("" or a word of `Trouble`)."""

    at_s: float
    event_id: str
    type: str
    payment: Mapping[str, Any]
    tries: int
    trouble: str = ""


@dataclass(slots=True)
class Trouble:
    """How often the shop misbehaves, and how: half of the time it is not available at all."""

    rate: float = 0.0
    slow_s: float = 1.5
    rng: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311 - it decides what goes wrong

    def next(self) -> str:
        """What happens to this request: "" | unavailable | lost | slow | hangs."""
        if self.rng.random() >= self.rate:
            return ""
        return self.rng.choice(("unavailable", "unavailable", "lost", "slow"))


class Delays:
    """How long webhooks took from being written down to their receipt: those of the last minute, 10,000 at most."""

    WINDOW_S = 60.0

    def __init__(self) -> None:
        self._took: deque[tuple[float, float]] = deque(maxlen=10_000)  # received at, took; s

    def note(self, at_s: float, took_s: float) -> None:
        """One was received."""
        self._took.append((at_s, max(took_s, 0.0)))

    def percentiles(self, now_s: float) -> tuple[float, float] | None:
        """The p50 and the p99 in seconds, or None when nothing came in the last minute."""
        took = sorted(took_s for at_s, took_s in self._took if at_s > now_s - self.WINDOW_S)
        if not took:
            return None
        return took[(len(took) - 1) // 2], took[-(-99 * len(took) // 100) - 1]


class Shop:
    """`await shop.start()`, give caisse `shop.url`, put the endpoint's secret into `shop.secrets`."""

    PATH = "/caisse"

    def __init__(
        self,
        secrets: Sequence[str] = (),
        trouble: Trouble | None = None,
        clock_s: Callable[[], float] = lambda: now_ms() / 1000,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.secrets = list(secrets)
        self.trouble = trouble or Trouble()
        self.counters = Counters()
        self.ledger = Ledger()
        self.delays = Delays()
        self.receipts: deque[Receipt] = deque(maxlen=200)  # the newest
        self.recorded = 0  # how many there were in all
        self._tries: OrderedDict[str, int] = OrderedDict()
        self._clock_s = clock_s
        self._host, self._port = host, port
        self._letting_go = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where caisse should send the webhooks."""
        return f"http://{self._host}:{self._port}{self.PATH}"

    async def start(self) -> str:
        """Listen on loopback; port 0 takes any free one."""
        app = web.Application(client_max_size=256 * 1024)
        app.router.add_post(self.PATH, self._receive)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        self._port = self._runner.addresses[0][1]
        return self.url

    async def stop(self) -> None:
        """Stop listening; slow answers get two seconds."""
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    def let_go(self) -> None:
        """Hang no longer: those who wait are answered 503, as is whoever comes now."""
        self._letting_go.set()

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        counters = self.counters
        counters.received += 1

        # Both schemes are checked here to show both; a shop needs one of them, the first.
        wrong = verify(request.headers, body, self.secrets, self._clock_s()) or verify_plain(
            request.headers, body, self.secrets
        )
        if wrong:
            counters.refused += 1
            return web.Response(status=401)
        try:
            event = json.loads(body)
        except ValueError:
            counters.refused += 1
            return web.Response(status=400)
        counters.verified += 1

        event_id = request.headers["webhook-id"]
        tries = self._count_try(event_id)
        trouble = self.trouble.next()
        if trouble == "hangs":
            # Until caisse hangs up: then aiohttp cancels this, and `stop` does the same.
            counters.hung += 1
            await self._letting_go.wait()
        if trouble in ("unavailable", "hangs"):
            counters.unavailable += trouble == "unavailable"
            self._remember(event_id, event, tries, trouble)
            return web.Response(status=503)

        outcome = self.ledger.take(event_id, event)
        self._count(outcome, tries)
        if outcome != "repeat":
            self._remember(event_id, event, tries, trouble)
            self._time(event)
        if trouble == "lost" and request.transport is not None:
            # The shop has kept it but caisse never hears so: the next try is a repeat, and is dropped above.
            counters.lost += 1
            request.transport.abort()
        elif trouble == "slow":
            counters.slow += 1
            await asyncio.sleep(self.trouble.slow_s)
        return web.Response(status=200)

    def _count_try(self, event_id: str) -> int:
        self._tries[event_id] = self._tries.get(event_id, 0) + 1
        while len(self._tries) > Ledger.LIMIT:
            self._tries.popitem(last=False)
        return self._tries[event_id]

    def _time(self, event: Mapping[str, Any]) -> None:
        try:
            made_s = datetime.fromisoformat(str(event.get("created_at"))).timestamp()
        except ValueError:
            return
        now_s = self._clock_s()
        self.delays.note(now_s, now_s - made_s)

    def _count(self, outcome: str, tries: int) -> None:
        counters = self.counters
        if outcome == "repeat":
            counters.repeat += 1
            return
        if outcome == "older":
            counters.older += 1
        else:
            counters.new += 1
        counters.retried += tries > 1

    def _remember(self, event_id: str, event: Mapping[str, Any], tries: int, trouble: str) -> None:
        payment = (event.get("data") or {}).get("payment") or {}
        self.recorded += 1
        self.receipts.append(Receipt(self._clock_s(), event_id, event.get("type", ""), payment, tries, trouble))
