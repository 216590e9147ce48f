"""
One round of a topic, whose time the dispatcher knows: settle and claim in one transaction, begin what was claimed, and
make of what raises an outcome of its own message, so that it harms no other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from random import Random
from time import perf_counter
from typing import Any

from sqlalchemy.exc import DataError, IntegrityError, InterfaceError

from outbox.lane import Lane
from outbox.message import Message, Outcome, Retry, Trial
from outbox.ports import Database
from outbox.queue import Queue, Settled
from outbox.step import Step, Stepped, checked, instead, no_room
from outbox.topic import Happened, What

_RAISED: dict[str, What] = {"then": "then_raised", "load": "load_raised", "died": "died_raised"}

_REFUSED = (IntegrityError, DataError, InterfaceError, OverflowError, TypeError, ValueError)
"""What a driver or a table says to a value that it does not take: no fault of the storage, nor of the others."""

_log = logging.getLogger("outbox")


class Rounds:
    """`turn` is a round for acts (and claims the first batch of work), `work` one for work."""

    def __init__(
        self,
        db: Database,
        queue: Queue,
        lanes: Iterable[Lane],
        clock: Callable[[], int],
        rng: Random,
        hook: Callable[[Happened], object],
        stopping: asyncio.Event,
    ) -> None:
        self._db = db
        self._queue = queue
        self._lanes = tuple(lanes)
        self._clock = clock
        self._rng = rng
        self._hook = hook
        self._stopping = stopping

    def room(self, lane: Lane) -> int:
        """How many may be claimed now."""
        if self._stopping.is_set():
            return 0
        policy = lane.topic.policy
        if lane.topic.work:
            return policy.batch
        return min(policy.batch, policy.in_flight - len(lane.running))

    def hear(self, lane: Lane) -> None:
        """Takes over what the queue has noted as due now or soon."""
        topic = lane.topic.policy.topic
        if topic in self._queue.ready:
            self._queue.ready.discard(topic)
            lane.hungry = True
            lane.wake.set()
        hint = self._queue.soonest.pop(topic, None)
        if hint is not None:
            lane.hear(hint, self._clock())

    async def _write(self, lane: Lane, step: Step) -> Stepped:
        """One step, committed, and told of."""
        begun, begun_ms = perf_counter(), self._clock()
        lane.settling = len(step.working)
        try:
            stepped = await self._db.write(step.run, self._queue, self._clock, self._rng)
        finally:
            lane.settling = 0
        duration_ms = (perf_counter() - begun) * 1000
        lane.failed = False
        by_what: dict[What, list[Settled]] = {}
        for item in stepped.settled:
            by_what.setdefault(item.what, []).append(item)
        for what, items in by_what.items():
            ids = tuple(item.message.id for item in items) if what == "died" else ()
            error = items[0].error if what == "died" else ""
            self.tell(what, lane, len(items), duration_ms, ids=ids, error=error)
        if stepped.claim.died:
            ids = tuple(message.id for message in stepped.claim.died)
            self.tell("died", lane, len(ids), duration_ms, ids=ids, error="unsettled")
        if stepped.offered > len(stepped.settled):
            self.tell("stale", lane, stepped.offered - len(stepped.settled))
        claimed = stepped.claim.messages
        if claimed:
            age_ms = max(0, self._clock() - claimed[0].due_at_ms)
            self.tell("claimed", lane, len(claimed), duration_ms, age_ms=age_ms)
        if stepped.limit:
            lane.hungry = lane.hungry or stepped.claim.more
            if lane.waiting and not stepped.claim.waiting:
                lane.known_due_at_ms = None  # it was looked up without those that waited
            lane.waiting, lane.looked_ms = stepped.claim.waiting, begun_ms
        for other in self._lanes:
            self.hear(other)
        return stepped

    async def turn(self, lane: Lane, *, claim_next: bool) -> int:
        """
        Settles what is finished and claims what is next, as far as there is room and reason; acts begin, work is laid
        out in `lane.working`. Returns how many were claimed.
        """
        lane.hungry = lane.hungry or (lane.waiting and bool(lane.finished))
        claim_next = claim_next and lane.hungry and self.room(lane) > 0
        if claim_next:
            self.hear(lane)  # this claim is the answer to it
            lane.hungry = False
        room = partial(self.room, lane) if claim_next else no_room
        without: frozenset[str] = frozenset()
        stepped: Stepped | None = None
        while stepped is None:
            step = Step(lane.topic, finished=lane.finished, room=room, without=without)
            try:
                stepped = await self._write(lane, step)
            except Exception as error:  # noqa: BLE001 - sorted out below: a handler's, or the storage's
                fault = step.fault
                if isinstance(error, _REFUSED) and not fault.kind and lane.finished:
                    await self._settle_apart(lane, error)
                    continue
                if fault.of_storage(error):
                    # The acts are done and only the writing of it failed, so it is offered again until the lease is
                    # over. If it was written after all, the fence refuses the second time.
                    self.tell("write_failed", lane, len(lane.finished), error=error)
                    now_ms = self._clock()
                    lane.finished = [pair for pair in lane.finished if lane.leased(pair[0], now_ms)]
                    lane.lose()
                    return 0
                self.tell(_RAISED[fault.kind], lane, len(fault.ids), ids=tuple(fault.ids), error=error)
                if fault.kind == "then":
                    lane.finished = [
                        (message, instead(outcome, error) if message.id in fault.ids else outcome)
                        for message, outcome in lane.finished
                    ]
                else:
                    without |= {fault.kind}
        del lane.finished[: stepped.offered]
        claimed = stepped.claim.messages
        count = len(claimed)
        if not claimed:
            return 0
        if self._stopping.is_set():
            await self.give_back(lane, claimed)
        elif lane.topic.work:
            lane.working = claimed
        else:
            loaded = stepped.loaded
            if "load" in without:
                claimed, loaded = await self._load_apart(lane, claimed)
            for message in claimed:
                self._begin(lane, message, loaded.get(message.id))
        return count

    async def _settle_apart(self, lane: Lane, error: Exception) -> None:
        """The tables refused a value of some outcome: each by itself, and the one that is refused again as a Retry."""
        for message, outcome in lane.finished[:]:
            for what in (outcome, Retry(type(error).__name__)):
                try:
                    await self._write(lane, Step(lane.topic, finished=[(message, what)]))
                    break
                except Exception as again:  # noqa: BLE001 - the second time it is left to its lease
                    self.tell("settle_raised", lane, 1, ids=(message.id,), error=again)
            del lane.finished[0]

    async def give_back(self, lane: Lane, messages: Sequence[Message]) -> None:
        """What was claimed and not begun, when we are stopping."""
        try:
            await self._db.write(self._queue.give_back, messages)
        except Exception as error:  # noqa: BLE001 - the lease gives them back later
            self.tell("write_failed", lane, len(messages), error=error)
        else:
            self.tell("given_back", lane, len(messages))

    # --- acts ------------------------------------------------------------------------------------

    async def _load_apart(self, lane: Lane, claimed: list[Message]) -> tuple[list[Message], dict[str, Any]]:
        """Loading for all of them raised: one by one, so that only the one that cannot be loaded waits."""
        load = lane.topic.load
        assert load is not None
        fine: list[Message] = []
        loaded: dict[str, Any] = {}
        for message in claimed:
            try:
                loaded |= await self._db.write(load, [message])
                fine.append(message)
            except Exception as error:  # noqa: BLE001 - the edge of one item
                lane.finished.append((message, Retry(type(error).__name__)))
                lane.wake.set()
        return fine, loaded

    def _begin(self, lane: Lane, message: Message, loaded: Any) -> None:
        task = asyncio.create_task(self._act(lane, message, loaded))
        lane.running[task] = message
        task.add_done_callback(lambda task: self._end(lane, task))

    def _end(self, lane: Lane, task: asyncio.Task[Outcome]) -> None:
        message = lane.running.pop(task)
        if task.cancelled():
            lane.known_due_at_ms = None  # nobody knows what came of it: left to its lease
        else:
            lane.finished.append((message, task.result()))
        lane.wake.set()

    async def _act(self, lane: Lane, message: Message, loaded: Any) -> Outcome:
        act, limit_ms = lane.topic.act, lane.topic.policy.limit_ms
        assert act is not None
        begun = perf_counter()
        limit = asyncio.timeout(limit_ms / 1000)
        try:
            async with limit:
                return checked(await act(message, loaded))
        except Exception as error:  # noqa: BLE001 - the edge of one item
            word = "time_limit" if limit.expired() else type(error).__name__
            if not limit.expired():
                self.tell("act_raised", lane, 1, ids=(message.id,), error=error)
            return Retry(word, trial=Trial(duration_ms=round((perf_counter() - begun) * 1000)))

    # --- work ------------------------------------------------------------------------------------

    async def work(self, lane: Lane, *, claim_next: bool) -> None:
        """
        Works on `lane.working` and settles it in one transaction, which may claim the next batch as well. If a batch
        raises, each message is run by itself, and the one that raises is settled as Retry.
        """
        working, lane.working = lane.working, []
        if claim_next:
            self.hear(lane)
            lane.hungry = False
        room = partial(self.room, lane) if claim_next else no_room
        without: frozenset[str] = frozenset()
        while True:
            step = Step(lane.topic, working, room=room, without=without)
            try:
                lane.working = (await self._write(lane, step)).claim.messages
                return
            except Exception as error:  # noqa: BLE001 - sorted out below: a handler's, or the storage's
                fault, ids = step.fault, tuple(step.fault.ids)
                if fault.of_storage(error):
                    self.tell("write_failed", lane, len(working), error=error)
                    now_ms = self._clock()
                    lane.working = [message for message in working if lane.leased(message, now_ms)]
                    lane.lose()
                    return
                lane.hungry = lane.hungry or claim_next
                if fault.kind == "stale":
                    self.tell("stale", lane, len(ids))
                    lane.working = [message for message in working if message.id not in fault.ids]
                    return
                if fault.kind == "died":
                    self.tell("died_raised", lane, len(ids), ids=ids, error=error)
                    without |= {"died"}
                    continue
                if len(working) == 1:
                    self.tell("work_raised", lane, 1, ids=(working[0].id,), error=error)
                    lane.finished = [(working[0], Retry(type(error).__name__))]
                    await self.turn(lane, claim_next=False)
                    return
                self.tell("batch_raised", lane, len(working), ids=ids, error=error)
                break
        for place, message in enumerate(working):
            lane.working = [message]
            while lane.working and not lane.failed:
                await self.work(lane, claim_next=False)
            if lane.failed:
                lane.working += working[place + 1 :]
                return

    # --- what the world hears --------------------------------------------------------------------

    def tell(
        self,
        what: What,
        lane: Lane,
        count: int,
        duration_ms: float = 0.0,
        *,
        age_ms: int = 0,
        ids: tuple[str, ...] = (),
        error: BaseException | str = "",
    ) -> None:
        """Let the hook hear of it."""
        words = error if isinstance(error, str) else f"{type(error).__name__}: {error}"[:300]
        try:
            self._hook(Happened(what, lane.topic.policy.topic, count, duration_ms, age_ms, ids, words))
        except Exception:  # noqa: BLE001 - whoever counts and logs must not be able to stop what is paid
            _log.exception("outbox.hook_raised")
