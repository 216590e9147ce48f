"""
The dispatcher: one asyncio task per topic that claims, works and settles.

Everything it writes goes through one function, `_step`: settle what is finished and claim what is next, in one
transaction. If the process dies anywhere, the lease runs out and the message is claimed again; nobody has to notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from time import perf_counter
from typing import Any, Literal, NamedTuple, cast

from sqlalchemy import Connection

from outbox.message import Message, Outcome, Retry, Trial
from outbox.policy import Policy
from outbox.ports import Database
from outbox.queue import Claim, Queue, Settled

SWEEP_MS_MAX = 30_000
PAUSE_MS = 1_000
"""After a failed write. Long enough not to hammer a full disk, short against any lease."""

_LAST_SETTLE_S = 2.0
"""What `stop` adds to its grace, so that what was just cancelled or finished is still written."""

_NEVER = float("inf")

Work = Callable[[Connection, Sequence[Message]], Sequence[Outcome]]
Act = Callable[[Message, Any], Awaitable[Outcome]]
Load = Callable[[Connection, Sequence[Message]], Mapping[str, Any]]
Died = Callable[[Connection, Sequence[Message]], object]

_log = logging.getLogger("outbox")


@dataclass(frozen=True, slots=True)
class Topic:
    """
    How the messages of one topic are paid: by exactly one of `work` and `act`.

    `work(tx, messages)` needs only the database. It returns one outcome per message, in order, and is settled in its
    own transaction: exactly once. `await act(message, loaded)` talks to the world: at least once, under `limit_ms`;
    `load(tx, messages)` reads what it needs by message id, in the claim's transaction. `died(tx, messages)` runs in
    the transaction in which messages die.
    """

    policy: Policy
    work: Work | None = None
    act: Act | None = None
    load: Load | None = None
    died: Died | None = None

    def __post_init__(self) -> None:
        if (self.work is None) == (self.act is None):
            raise ValueError(f"The topic {self.policy.topic!r} needs either work or act.")
        if self.load is not None and self.act is None:
            raise ValueError(f"The topic {self.policy.topic!r} loads for an act it does not have.")


What = Literal[
    "claimed",
    "done",
    "retried",
    "died",
    "held",
    "given_back",
    "stale",  # settled too late: somebody else has claimed it, nothing was written
    "batch_raised",  # work raised for a batch: each of its messages is now run by itself
    "work_raised",
    "act_raised",
    "then_raised",
    "load_raised",
    "died_raised",  # they are dead all the same
    "loop_raised",  # a fault in here; it goes on after a pause
    "read_failed",  # when the next message is due is not known: the sweep will look
    "write_failed",  # the storage; nothing is lost, it goes on after a pause
]


@dataclass(frozen=True, slots=True)
class Happened:
    """
    What the dispatcher tells the world, after the commit, for metrics and logs. `duration_ms`: of the transaction.
    `oldest_due_age_ms` (claimed): how long the longest waiting one was due. `message_ids` only for what died or raised.
    """

    what: What
    topic: str
    count: int
    duration_ms: float = 0.0
    oldest_due_age_ms: int = 0
    message_ids: tuple[str, ...] = ()
    error: str = ""


class _Stale(Exception):
    """Work was done on messages that somebody else has claimed since: it must not be committed."""


@dataclass(slots=True)
class _Fault:
    """
    Who raised inside a transaction: a handler (then only its message suffers) or, if nothing is noted, the storage.
    The writer may run a step several times; only an exception that is the very one noted here is a handler's.
    """

    kind: str = ""
    error: BaseException | None = None
    ids: frozenset[str] = frozenset()

    @contextlib.contextmanager
    def of(self, kind: str, messages: Iterable[Message]) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.kind, self.error, self.ids = kind, error, frozenset(message.id for message in messages)
            raise

    def of_storage(self, error: Exception) -> bool:
        return self.error is not error


class _Stepped(NamedTuple):
    settled: list[Settled]
    claim: Claim
    loaded: Mapping[str, Any]


@dataclass(slots=True)
class _Lane:
    """What the dispatcher remembers of a topic. `finished` is settled with the next write and holds its place until."""

    topic: Topic
    hungry: bool = True  # something may be due
    known_due_at_ms: float | None = None  # the next due time we know of; None: ask the database
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    running: dict[asyncio.Task[Outcome], Message] = field(default_factory=dict)
    finished: list[tuple[Message, Outcome]] = field(default_factory=list)
    working: list[Message] = field(default_factory=list)
    settling: int = 0  # what is being written at this moment
    busy: dict[str, int] = field(default_factory=dict)  # in flight per destination
    full: set[str] = field(default_factory=set)  # destinations at their cap
    failed: bool = False  # the last write did

    @property
    def in_flight(self) -> int:
        return len(self.running) + len(self.finished) + len(self.working) + self.settling

    def occupy(self, destination: str) -> None:
        self.busy[destination] = count = self.busy.get(destination, 0) + 1
        if count >= self.topic.policy.per_destination:
            self.full.add(destination)
            self.hungry = True  # the claim may have passed over others behind this one

    def vacate(self, destination: str) -> None:
        count = self.busy.pop(destination) - 1
        if count:
            self.busy[destination] = count
        if destination in self.full:
            self.full.discard(destination)
            self.hungry = True


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
        self._rng = rng
        self._hook = hook
        self._sweep_ms = sweep_ms
        self._pause_s = pause_ms / 1000
        self._stopping = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self._lanes: dict[str, _Lane] = {}
        for topic in topics:
            if topic.policy.topic in self._lanes:
                raise ValueError(f"The topic {topic.policy.topic!r} is there twice.")
            self._lanes[topic.policy.topic] = _Lane(topic)

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
        count = await self._turn(lane, self._room(lane))
        while lane.working and not lane.failed:
            await self._work(lane, claim_next=False)
        if lane.running:
            await asyncio.wait(lane.running)
        if lane.finished and not lane.failed:
            await self._turn(lane, 0)
        return count

    # --- the two loops ---------------------------------------------------------------------------

    async def _run(self, lane: _Lane) -> None:
        while True:
            try:
                return await (self._run_work(lane) if lane.topic.work else self._run_acts(lane))
            except Exception as error:  # noqa: BLE001 - a fault of ours must not silence a topic for ever
                self._tell("loop_raised", lane, 1, error=error)
                _log.exception("outbox.loop_raised")
                await self._pause()

    async def _run_work(self, lane: _Lane) -> None:
        while not self._stopping.is_set():
            if lane.working:
                await self._work(lane, claim_next=len(lane.working) == lane.topic.policy.batch)
            elif lane.hungry:
                await self._turn(lane, self._room(lane))
            else:
                await self._rest(lane)
            if lane.failed:
                await self._pause()
        if lane.working:
            await self._give_back(lane, lane.working)
            lane.working = []

    async def _run_acts(self, lane: _Lane) -> None:
        while not self._stopping.is_set() or lane.running or lane.finished:
            room = self._room(lane)
            if lane.finished or (lane.hungry and room):
                # While this is written, more acts finish: they are the next batch. No delay is needed to gather them.
                await self._turn(lane, room)
            else:
                await self._rest(lane)
            if lane.failed:
                if self._stopping.is_set() and not lane.running:
                    return  # the lease has them
                await self._pause()

    def _room(self, lane: _Lane) -> int:
        if self._stopping.is_set():
            return 0
        policy = lane.topic.policy
        if lane.topic.work:
            return policy.batch
        return min(policy.batch, policy.in_flight - len(lane.running))

    async def _rest(self, lane: _Lane) -> None:
        """Until a nudge, or something finishes, or the next due time, or the sweep."""
        timeout_s: float | None = None
        if not self._stopping.is_set() and not lane.wake.is_set() and self._room(lane):
            timeout_s = await self._until_due(lane) / 1000
        try:
            async with asyncio.timeout(timeout_s):
                await lane.wake.wait()
        except TimeoutError:
            lane.hungry = True
            lane.known_due_at_ms = None
        lane.wake.clear()

    async def _until_due(self, lane: _Lane) -> float:
        """How many ms this topic may sleep. Asks the database only when the due time it knew has passed."""
        now_ms = self._clock()
        self._hear(lane)
        if lane.known_due_at_ms is None or lane.known_due_at_ms <= now_ms:
            lane.known_due_at_ms = _NEVER
            try:
                due_at_ms = await self._db.read(self._queue.due, lane.topic.policy.topic)
            except Exception as error:  # noqa: BLE001 - whatever it is, the sweep will look again
                self._tell("read_failed", lane, 0, error=error)
                lane.known_due_at_ms = None
                return self._sweep_ms
            # Something may have been enqueued since the reader looked, and been heard of meanwhile.
            lane.known_due_at_ms = min(lane.known_due_at_ms, _NEVER if due_at_ms is None else due_at_ms)
        if lane.known_due_at_ms > now_ms:
            return min(self._sweep_ms, lane.known_due_at_ms - now_ms + 1)
        # Due, but the last claim did not take it: it belongs to a destination that is full, or came this instant.
        return self._sweep_ms if lane.full else 50

    def _hear(self, lane: _Lane) -> None:
        """Takes over what the queue has noted as soon due."""
        hint = self._queue.soonest.pop(lane.topic.policy.topic, None)
        if hint is None:
            return
        if hint <= self._clock():
            lane.hungry = True
            lane.wake.set()
        elif lane.known_due_at_ms is not None and hint < lane.known_due_at_ms:
            lane.known_due_at_ms = hint
            lane.wake.set()

    async def _pause(self) -> None:
        if self._stopping.is_set():
            await asyncio.sleep(self._pause_s)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pause_s):
                await self._stopping.wait()

    # --- one transaction -------------------------------------------------------------------------

    def _step(
        self,
        tx: Connection,
        lane: _Lane,
        working: Sequence[Message],
        finished: Sequence[tuple[Message, Outcome]],
        limit: int,
        busy: Mapping[str, int] | None,
        without: frozenset[str],
        fault: _Fault,
    ) -> _Stepped:
        topic, policy, now_ms = lane.topic, lane.topic.policy, self._clock()
        if working and topic.work:
            with fault.of("work", working):
                finished = list(zip(working, map(_checked, topic.work(tx, working)), strict=True))
        if any(outcome.then for _, outcome in finished):
            finished = [(message, _watched(message, outcome, fault)) for message, outcome in finished]
        settled = self._queue.settle(tx, finished, policy, now_ms, self._rng) if finished else []
        if working and len(settled) < len(working):
            missing = {message.id for message in working} - {item.message.id for item in settled}
            with fault.of("stale", (message for message in working if message.id in missing)):
                raise _Stale
        claim = Claim([], [], more=False)
        if limit:
            claim = self._queue.claim(tx, policy, now_ms, limit, busy, alone=topic.work is not None)
        died = claim.died + [item.message for item in settled if item.what == "died"]
        if died and topic.died and "died" not in without:
            with fault.of("died", died):
                topic.died(tx, died)
        loaded: Mapping[str, Any] = {}
        if claim.messages and topic.load and "load" not in without:
            with fault.of("load", claim.messages):
                loaded = topic.load(tx, claim.messages)
        return _Stepped(settled, claim, loaded)

    async def _write(
        self,
        lane: _Lane,
        working: Sequence[Message],
        finished: Sequence[tuple[Message, Outcome]],
        limit: int,
        without: frozenset[str],
        fault: _Fault,
    ) -> _Stepped:
        """One step, committed, and told of."""
        begun = perf_counter()
        lane.settling = len(working) + len(finished)
        busy = None if lane.topic.work else dict(lane.busy)  # a copy: it is read in the writer's thread
        try:
            stepped = await self._db.write(self._step, lane, working, finished, limit, busy, without, fault)
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
            self._tell(what, lane, len(items), duration_ms, ids=ids, error=error)
        if stepped.claim.died:
            ids = tuple(message.id for message in stepped.claim.died)
            self._tell("died", lane, len(ids), duration_ms, ids=ids, error="unsettled")
        if finished and len(stepped.settled) < len(finished):
            self._tell("stale", lane, len(finished) - len(stepped.settled))
        claimed = stepped.claim.messages
        if claimed:
            age_ms = max(0, self._clock() - claimed[0].due_at_ms)
            self._tell("claimed", lane, len(claimed), duration_ms, age_ms=age_ms)
        if limit:
            lane.hungry = lane.hungry or stepped.claim.more
        for other in self._lanes.values():
            self._hear(other)
        return stepped

    async def _turn(self, lane: _Lane, room: int) -> int:
        """
        Settles what is finished and claims what is next, as far as there is room and reason; acts begin, work is laid
        out in `lane.working`. Returns how many were claimed.
        """
        finished, lane.finished = lane.finished, []
        for message, _ in finished:
            lane.vacate(message.destination)
        limit = room if lane.hungry else 0
        if limit:
            self._hear(lane)  # this claim is the answer to it
            lane.hungry = False
        without: frozenset[str] = frozenset()
        stepped: _Stepped | None = None
        while stepped is None:
            fault = _Fault()
            try:
                stepped = await self._write(lane, (), finished, limit, without, fault)
            except Exception as error:  # noqa: BLE001 - sorted out below: a handler's, or the storage's
                if fault.of_storage(error):
                    # The acts are done and only the writing of it failed, so it is offered again until the lease is
                    # over. If it was written after all, the fence refuses the second time.
                    self._tell("write_failed", lane, len(finished), error=error)
                    now_ms = self._clock()
                    kept = [pair for pair in finished if now_ms < pair[0].claimed_at_ms + lane.topic.policy.lease_ms]
                    for message, _ in kept:
                        lane.occupy(message.destination)
                    lane.finished = kept + lane.finished
                    lane.failed = lane.hungry = True
                    lane.known_due_at_ms = None
                    return 0
                if fault.kind == "then":
                    self._tell("then_raised", lane, 1, ids=tuple(fault.ids), error=error)
                    finished = [
                        (message, _instead(outcome, error) if message.id in fault.ids else outcome)
                        for message, outcome in finished
                    ]
                else:
                    self._tell(
                        "load_raised" if fault.kind == "load" else "died_raised",
                        lane,
                        len(fault.ids),
                        ids=tuple(fault.ids),
                        error=error,
                    )
                    without |= {fault.kind}
        claimed = stepped.claim.messages
        count = len(claimed)
        if not claimed:
            return 0
        if self._stopping.is_set():
            await self._give_back(lane, claimed)
        elif lane.topic.work:
            lane.working = claimed
        else:
            loaded = stepped.loaded
            if "load" in without:
                claimed, loaded = await self._load_apart(lane, claimed)
            for message in claimed:
                self._begin(lane, message, loaded.get(message.id))
        return count

    async def _give_back(self, lane: _Lane, messages: Sequence[Message]) -> None:
        try:
            await self._db.write(self._queue.give_back, messages)
        except Exception as error:  # noqa: BLE001 - the lease gives them back later
            self._tell("write_failed", lane, len(messages), error=error)
        else:
            self._tell("given_back", lane, len(messages))

    # --- acts ------------------------------------------------------------------------------------

    async def _load_apart(self, lane: _Lane, claimed: list[Message]) -> tuple[list[Message], dict[str, Any]]:
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
                lane.occupy(message.destination)
                lane.finished.append((message, Retry(type(error).__name__)))
                lane.wake.set()
        return fine, loaded

    def _begin(self, lane: _Lane, message: Message, loaded: Any) -> None:
        task = asyncio.create_task(self._act(lane, message, loaded))
        lane.running[task] = message
        lane.occupy(message.destination)
        task.add_done_callback(lambda task: self._end(lane, task))

    def _end(self, lane: _Lane, task: asyncio.Task[Outcome]) -> None:
        message = lane.running.pop(task)
        if task.cancelled():
            lane.vacate(message.destination)  # nobody knows what came of it: left to its lease
            lane.known_due_at_ms = None
        else:
            lane.finished.append((message, task.result()))
        lane.wake.set()

    async def _act(self, lane: _Lane, message: Message, loaded: Any) -> Outcome:
        act, limit_ms = lane.topic.act, lane.topic.policy.limit_ms
        assert act is not None
        begun = perf_counter()
        limit = asyncio.timeout(limit_ms / 1000)
        try:
            async with limit:
                return _checked(await act(message, loaded))
        except Exception as error:  # noqa: BLE001 - the edge of one item
            word = "time_limit" if limit.expired() else type(error).__name__
            if not limit.expired():
                self._tell("act_raised", lane, 1, ids=(message.id,), error=error)
            return Retry(word, trial=Trial(duration_ms=round((perf_counter() - begun) * 1000)))

    # --- work ------------------------------------------------------------------------------------

    async def _work(self, lane: _Lane, *, claim_next: bool) -> None:
        """
        Works on `lane.working` and settles it in one transaction, which may claim the next batch as well. If a batch
        raises, each message is run by itself, and the one that raises is settled as Retry.
        """
        working, lane.working = lane.working, []
        if claim_next:
            self._hear(lane)
            lane.hungry = False
        fault = _Fault()
        without: frozenset[str] = frozenset()
        while True:
            try:
                limit = self._room(lane) if claim_next else 0
                stepped = await self._write(lane, working, (), limit, without, fault)
                lane.working = stepped.claim.messages
                return
            except Exception as error:  # noqa: BLE001 - sorted out below: a handler's, or the storage's
                ids = tuple(fault.ids)
                if fault.of_storage(error):
                    self._tell("write_failed", lane, len(working), error=error)
                    now_ms = self._clock()
                    lane.working = [m for m in working if now_ms < m.claimed_at_ms + lane.topic.policy.lease_ms]
                    lane.failed = lane.hungry = True
                    lane.known_due_at_ms = None
                    return
                lane.hungry = lane.hungry or claim_next
                if fault.kind == "stale":
                    self._tell("stale", lane, len(ids))
                    lane.working = [message for message in working if message.id not in fault.ids]
                    return
                if fault.kind == "died":
                    self._tell("died_raised", lane, len(ids), ids=ids, error=error)
                    without |= {"died"}
                    continue
                if len(working) == 1:
                    self._tell("work_raised", lane, 1, ids=(working[0].id,), error=error)
                    lane.finished = [(working[0], Retry(type(error).__name__))]
                    lane.occupy(working[0].destination)
                    await self._turn(lane, 0)
                    return
                self._tell("batch_raised", lane, len(working), ids=ids, error=error)
                break
        for place, message in enumerate(working):
            lane.working = [message]
            while lane.working and not lane.failed:
                await self._work(lane, claim_next=False)
            if lane.failed:
                lane.working += working[place + 1 :]
                return

    def _tell(
        self,
        what: What,
        lane: _Lane,
        count: int,
        duration_ms: float = 0.0,
        *,
        age_ms: int = 0,
        ids: tuple[str, ...] = (),
        error: BaseException | str = "",
    ) -> None:
        words = error if isinstance(error, str) else f"{type(error).__name__}: {error}"[:300]
        try:
            self._hook(Happened(what, lane.topic.policy.topic, count, duration_ms, age_ms, ids, words))
        except Exception:  # noqa: BLE001 - whoever counts and logs must not be able to stop what is paid
            _log.exception("outbox.hook_raised")


def _checked(outcome: Outcome) -> Outcome:
    if not isinstance(cast(object, outcome), Outcome):
        raise TypeError(f"A handler returned {type(outcome).__name__}, which is no outcome.")
    return outcome


def _watched(message: Message, outcome: Outcome, fault: _Fault) -> Outcome:
    """The same outcome, whose `then` says whose it is when it raises."""
    then = outcome.then
    if then is None:
        return outcome

    def watched(tx: Connection) -> None:
        with fault.of("then", (message,)):
            then(tx)

    return replace(outcome, then=watched)


def _instead(outcome: Outcome, error: Exception) -> Retry:
    """What is settled when an outcome's `then` raised: the try is kept, what it led to is not."""
    trial = getattr(outcome, "trial", None)
    return Retry(type(error).__name__, trial=trial)
