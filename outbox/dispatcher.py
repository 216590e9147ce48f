"""
The dispatcher: one asyncio task per topic that claims, works and settles. Here stands when; `rounds.py` has what.

If the process dies anywhere, the lease runs out and the message is claimed again; nobody has to notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from random import Random

from outbox.lane import NEVER, Lane
from outbox.ports import Database
from outbox.queue import Queue
from outbox.rounds import Rounds
from outbox.topic import Happened, Topic

__all__ = ["PAUSE_MS", "SWEEP_MS_MAX", "Dispatcher", "Happened", "Topic"]

SWEEP_MS_MAX = 30_000
PAUSE_MS = 1_000
"""After a failed write. Long enough not to hammer a full disk, short against any lease."""

_LAST_SETTLE_S = 2.0
"""What `stop` adds to its grace, so that what was just cancelled or finished is still written."""

_log = logging.getLogger("outbox")


class Dispatcher:
    """
    Pays what is owed, topic by topic. `start()` begins, `nudge()` says that something was just committed, `stop()`
    ends without losing anything; `run_once(topic)` does one round for tests and needs no real time.

    `clock` gives ms and decides what is due; `hook` hears every `Happened` on the event loop and must be quick.
    """

    def __init__(
        self,
        db: Database,
        queue: Queue,
        topics: Iterable[Topic],
        clock: Callable[[], int],
        rng: Random,
        hook: Callable[[Happened], object] = lambda _: None,
        sweep_ms: int = SWEEP_MS_MAX,
        pause_ms: int = PAUSE_MS,
    ) -> None:
        if not 0 < sweep_ms <= SWEEP_MS_MAX:
            raise ValueError(f"The sweep is at most {SWEEP_MS_MAX} ms, not {sweep_ms}.")
        self._db = db
        self._queue = queue
        self._clock = clock
        self._sweep_ms = sweep_ms
        self._pause_s = pause_ms / 1000
        self._stopping = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self._lanes: dict[str, Lane] = {}
        for topic in topics:
            if topic.policy.topic in self._lanes:
                raise ValueError(f"The topic {topic.policy.topic!r} is there twice.")
            self._lanes[topic.policy.topic] = Lane(topic)
        self._rounds = Rounds(db, queue, self._lanes.values(), clock, rng, hook, self._stopping)

    @property
    def in_flight(self) -> dict[str, int]:
        """Per topic how many messages are claimed here and not settled yet."""
        return {name: lane.in_flight for name, lane in self._lanes.items()}

    def start(self) -> None:
        """Begins, on the running event loop, with whatever is due."""
        for name, lane in self._lanes.items():
            self._loops.append(asyncio.create_task(self._run(lane), name=f"outbox:{name}"))

    def nudge(self, topic: str | None = None) -> None:
        """Something was committed for this topic, or for any: look at once. Cheap, and may be called too often."""
        for lane in self._lanes.values() if topic is None else (self._lanes[topic],):
            lane.hungry = True
            lane.wake.set()

    async def stop(self, grace_ms: int) -> None:
        """
        Claims no more, gives back what was not begun, and lets what is in flight finish and be settled for up to
        `grace_ms`. What does not finish is cancelled and left to its lease: tried again, never lost.
        """
        self._stopping.set()
        self.nudge()
        if not self._loops:
            return
        _, late = await asyncio.wait(self._loops, timeout=grace_ms / 1000)
        if late:
            for lane in self._lanes.values():
                for task in tuple(lane.running):
                    task.cancel()
            _, late = await asyncio.wait(late, timeout=_LAST_SETTLE_S)
            for loop in late:
                loop.cancel()
        done = await asyncio.gather(*self._loops, return_exceptions=True)
        self._loops.clear()
        for result in done:
            if isinstance(result, Exception):
                raise result

    async def run_once(self, topic: str) -> int:
        """One round: claim a batch that is due now, run it to the end, settle it. Returns how many were claimed."""
        lane = self._lanes[topic]
        lane.hungry = True
        count = await self._rounds.turn(lane, claim_next=True)
        while lane.working and not lane.failed:
            await self._rounds.work(lane, claim_next=False)
        if lane.running:
            await asyncio.wait(lane.running)
        if lane.finished and not lane.failed:
            await self._rounds.turn(lane, claim_next=False)
        return count

    # --- the two loops ---------------------------------------------------------------------------

    async def _run(self, lane: Lane) -> None:
        while True:
            try:
                return await (self._run_work(lane) if lane.topic.work else self._run_acts(lane))
            except Exception as error:  # noqa: BLE001 - a fault of ours must not silence a topic for ever
                self._rounds.tell("loop_raised", lane, 1, error=error)
                _log.exception("outbox.loop_raised")
                await self._pause()

    async def _run_work(self, lane: Lane) -> None:
        while not self._stopping.is_set():
            if lane.working:
                await self._rounds.work(lane, claim_next=len(lane.working) == lane.topic.policy.batch)
            elif lane.hungry:
                await self._rounds.turn(lane, claim_next=True)
            else:
                await self._rest(lane)
            if lane.failed:
                await self._pause()
        if lane.working:
            await self._rounds.give_back(lane, lane.working)
            lane.working = []

    async def _run_acts(self, lane: Lane) -> None:
        while not self._stopping.is_set() or lane.running or lane.finished:
            if lane.finished or (lane.hungry and self._rounds.room(lane)):
                # While this is written, more acts finish: they are the next batch. No delay is needed to gather them.
                await self._rounds.turn(lane, claim_next=True)
            else:
                await self._rest(lane)
            if lane.failed:
                if self._stopping.is_set() and not lane.running:
                    return  # the lease has them
                await self._pause()

    async def _rest(self, lane: Lane) -> None:
        """Until a nudge, or something finishes, or the next due time, or the sweep."""
        timeout_s: float | None = None
        if not self._stopping.is_set() and not lane.wake.is_set() and self._rounds.room(lane):
            timeout_s = await self._until_due(lane) / 1000
        try:
            async with asyncio.timeout(timeout_s):
                await lane.wake.wait()
        except TimeoutError:
            lane.hungry = True
            lane.known_due_at_ms = None
        lane.wake.clear()

    async def _until_due(self, lane: Lane) -> float:
        """How many ms this topic may sleep. Asks the database only when the due time it knew has passed."""
        now_ms = self._clock()
        self._rounds.hear(lane)
        if lane.hinted_ms <= now_ms:
            lane.hinted_ms, lane.known_due_at_ms = NEVER, None
        if lane.known_due_at_ms is None or lane.known_due_at_ms <= now_ms:
            # What waits for room is looked for when something ends; the next turn of the others is not slept through.
            after_ms = lane.looked_ms if lane.waiting and lane.running else 0
            try:
                due_at_ms = await self._db.read(self._queue.due, lane.topic.policy.topic, after_ms)
            except Exception as error:  # noqa: BLE001 - whatever it is, the sweep will look again
                self._rounds.tell("read_failed", lane, 0, error=error)
                lane.known_due_at_ms = None
                return self._sweep_ms
            lane.known_due_at_ms = NEVER if due_at_ms is None else due_at_ms
        next_ms = min(lane.known_due_at_ms, lane.hinted_ms)
        if next_ms > now_ms:
            return min(self._sweep_ms, next_ms - now_ms + 1)
        # Due, but the last claim did not take it: its destination is full from elsewhere, or it came this instant.
        return 50

    async def _pause(self) -> None:
        if self._stopping.is_set():
            await asyncio.sleep(self._pause_s)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pause_s):
                await self._stopping.wait()
