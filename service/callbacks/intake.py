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

from outbox.queue import Queue
from service.callbacks import quarantine
from service.callbacks.take import Arrival, Kept, take
from service.database import Database, StorageError
from service.ids import Clock, Ids
from service.merchants.accounts import Entry
from service.providers import PROVIDERS
from service.providers.base import Incoming, Refused

TOGETHER_MAX = 256
"""Callbacks kept in one piece of the writer's work: about 3 ms of it."""
TEST_ON_LIVE = "test_callback_on_live_account"


@dataclass(frozen=True, slots=True)
class NotVerified:
    """The sender is told 401 and nothing else; `reason` is for us."""

    reason: str


class Intake:
    """Verifies and keeps. `accepted` is called after each commit with the queue that has work now."""

    def __init__(self, db: Database, queue: Queue, ids: Ids, clock: Clock, accepted: Callable[[str], None]) -> None:
        self._db, self._queue, self._ids, self._clock, self._accepted = db, queue, ids, clock, accepted
        self._allowance = quarantine.Allowance(clock)
        self._waiting: list[tuple[Arrival, asyncio.Future[Kept]]] = []
        self._keeping: asyncio.Task[None] | None = None

    async def receive(self, account: Entry, incoming: Incoming) -> Kept | NotVerified:
        """
        Verify with every live secret, then keep; returns after the commit. Storage errors are raised as they are:
        the caller answers 503 and the provider will try again.
        """
        received_at_ms = self._clock()
        arrival = self.check(account, incoming, received_at_ms, received_at_ms)
        if isinstance(arrival, NotVerified):
            if self._allowance.take():
                row = (self._ids("qua"), account.id, account.provider, arrival.reason, incoming, received_at_ms)
                # A full disk is no reason to tell a stranger anything else than 401.
                with contextlib.suppress(StorageError):
                    await self._db.write(quarantine.keep, *row)
            return arrival
        return await self._keep(arrival)

    def _keep(self, arrival: Arrival) -> asyncio.Future[Kept]:
        """
        Hand it to the one task that keeps: whatever comes while a commit is under way goes together into the next
        one. A sender that goes away abandons the waiting, not the keeping.
        """
        future: asyncio.Future[Kept] = asyncio.get_running_loop().create_future()
        self._waiting.append((arrival, future))
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep_all(), name="intake")
        return future

    async def _keep_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:TOGETHER_MAX], self._waiting[TOGETHER_MAX:]
                await self._keep_batch(batch)
        finally:
            self._keeping = None

    async def _keep_batch(self, batch: list[tuple[Arrival, asyncio.Future[Kept]]]) -> None:
        try:
            kept = await self._db.write(take, self._queue, [arrival for arrival, _ in batch], lane="intake")
        except Exception as error:  # noqa: BLE001 - whatever it is, the senders hear it
            if len(batch) > 1 and not isinstance(error, StorageError):
                # One of them cannot be kept: it must not cost the others anything.
                for one in batch:
                    await self._keep_batch([one])
                return
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for queue in {arrival.queue for arrival, _ in batch}:
            self._accepted(queue)
        for (_, future), one_kept in zip(batch, kept, strict=True):
            if not future.done():
                future.set_result(one_kept)

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
