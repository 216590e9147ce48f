"""
A callback at the door: whose it is, whether it is genuine, and keeping it. What comes back is a value; the HTTP layer
turns it into an answer, and nothing here waits for the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from outbox.queue import Queue
from service.callbacks import quarantine
from service.callbacks.process import TEST_ON_LIVE
from service.callbacks.quarantine import UNKNOWN_TOKEN
from service.callbacks.take import Arrival, Kept, take
from service.database import Busy, Database, StorageError
from service.ids import Clock, Ids
from service.merchants.accounts import Entry, digest_of
from service.providers import PROVIDERS
from service.providers.base import Incoming, Refused
from service.seal import Seal

WAITING_MAX = 2_048
"""Callbacks that may wait for the writer: half a second of its work; more are told 503."""
TOGETHER_MAX = 256
"""Callbacks kept in one piece of the writer's work: about 3 ms of it."""


@dataclass(frozen=True, slots=True)
class NotVerified:
    """The sender is told 401 and nothing else; `reason` is for us."""

    reason: str


class Intake:
    """Verifies and keeps. `accepted` is called after each commit with the queue that has work now."""

    def __init__(
        self, db: Database, queue: Queue, seal: Seal, ids: Ids, clock: Clock, accepted: Callable[[str], None]
    ) -> None:
        self._db, self._queue, self._seal, self._ids, self._clock = db, queue, seal, ids, clock
        self._accepted = accepted
        self._allowances: dict[str, quarantine.Allowance] = {}
        self._waiting: list[tuple[Arrival, asyncio.Future[Kept]]] = []
        self._together = 0  # how many of them, from the front, the piece of work under way keeps
        self._keeping: asyncio.Task[None] | None = None

    async def receive(self, account: Entry, incoming: Incoming) -> Kept | NotVerified:
        """
        Verify with every live secret, then keep; returns after the commit. Storage errors are raised as they are:
        the caller answers 503 and the provider will try again.
        """
        received_at_ms = self._clock()
        arrival = self.check(account, incoming, received_at_ms, received_at_ms)
        if isinstance(arrival, NotVerified):
            await self._set_aside(account.id, account.provider, arrival.reason, incoming, received_at_ms)
            return arrival
        return await self._keep(arrival)

    async def refuse_token(self, provider: str, token: str, incoming: Incoming) -> None:
        """A secret token in the address that nobody has: kept under its digest, in case it is only not set yet."""
        if token:
            account_id = f"{UNKNOWN_TOKEN}{digest_of(token).hex()}"
            await self._set_aside(account_id, provider, "wrong_token", incoming, self._clock())

    async def _set_aside(
        self, account_id: str, provider: str, reason: str, incoming: Incoming, received_at_ms: int
    ) -> None:
        # Unknown tokens share one allowance: their number is the stranger's choice.
        allowance = self._allowances.setdefault(
            provider if account_id.startswith(UNKNOWN_TOKEN) else account_id, quarantine.Allowance(self._clock)
        )
        if allowance.take():
            aside = quarantine.Aside(self._ids("qua"), account_id, provider, reason, incoming, received_at_ms)
            # A full disk is no reason to tell a stranger anything else than 401.
            with contextlib.suppress(StorageError):
                await self._db.write(quarantine.keep, self._seal, aside)

    def _keep(self, arrival: Arrival) -> asyncio.Future[Kept]:
        """
        Hand it to the one task that keeps: whatever has come by the time the writer gets to it goes together into one
        commit. A sender that goes away abandons the waiting, not the keeping.
        """
        if len(self._waiting) >= WAITING_MAX:
            raise Busy("Too many callbacks wait to be kept; send it again.")
        future: asyncio.Future[Kept] = asyncio.get_running_loop().create_future()
        self._waiting.append((arrival, future))
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep_all(), name="intake")
        return future

    async def _keep_all(self) -> None:
        try:
            while self._waiting:
                await self._keep_some()
        finally:
            self._keeping = None
            for _, future in self._waiting:
                if not future.done():
                    future.set_exception(Busy("The service is ending; send it again."))
            self._waiting = []

    async def _keep_some(self, most: int = TOGETHER_MAX) -> None:
        self._together = min(most, len(self._waiting))
        kept: list[Kept] | Exception
        try:
            kept = await self._db.write(self._take, most, lane="intake")
        except Exception as error:  # noqa: BLE001 - whatever it is, the senders hear it
            if self._together > 1 and not isinstance(error, StorageError):
                # One of them cannot be kept: it must not cost the others anything.
                for _ in range(self._together):
                    await self._keep_some(1)
                return
            kept = error
        batch = self._waiting[: self._together]
        del self._waiting[: self._together]
        for at, (_, future) in enumerate(batch):
            if future.done():
                continue
            if isinstance(kept, Exception):
                future.set_exception(kept)
            else:
                future.set_result(kept[at])
        if not isinstance(kept, Exception):
            for queue in {arrival.queue for arrival, _ in batch}:
                self._accepted(queue)

    def _take(self, tx: Connection, most: int) -> list[Kept]:
        """In the writer's thread, perhaps several times, while the event loop appends to what waits."""
        arrivals = [arrival for arrival, _ in self._waiting[:most]]
        self._together = len(arrivals)
        return take(tx, self._queue, arrivals)

    def check(self, account: Entry, incoming: Incoming, at_ms: int, received_at_ms: int) -> Arrival | NotVerified:
        """Verify as of `at_ms`, and make of it what will be kept."""
        if account.missing:
            return NotVerified("half_set")
        provider = PROVIDERS[account.provider]
        verdict = provider.verify(incoming, account.credentials, at_ms)
        if isinstance(verdict, Refused):
            return NotVerified(verdict.reason)
        label = provider.identify(incoming)
        test_on_live = account.live and label.live is False
        return Arrival(
            id=self._ids("cb"),
            account_id=account.id,
            provider=account.provider,
            queue=provider.queue,
            key=label.key,
            kind=label.kind,
            method=incoming.method,
            query=incoming.query,
            body=provider.redact(incoming.body),
            sha256=hashlib.sha256(incoming.body or incoming.query).digest(),
            received_at_ms=received_at_ms,
            parked=TEST_ON_LIVE if test_on_live else "",
        )
