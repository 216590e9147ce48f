"""The scheduler: each due time runs once, whoever looks, dies, sleeps, raises or is late."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table, event, func, insert, select
from sqlalchemy.exc import IntegrityError

from scheduler import AlreadyRunning, Job, Lost, Overview, Ran, Run, Schedule, Scheduler, Stopping, Tick, UnknownJob
from scheduler.runs import DEATHS_MAX, KEPT_RUNS, ROWS_A_PIECE, ended
from scheduler.schedule import plan
from scheduler.tables import define
from service.database import Database as Writer
from service.ids import Ids
from tests.support.clock import Clock
from tests.support.database import Database

METADATA = MetaData()
TABLES = define(METADATA)
PIECES = Table("pieces", METADATA, Column("number", Integer, nullable=False))

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
LEASE_MS = 10 * MINUTE_MS
FIVE = Schedule("*/5 * * * *", "Europe/Paris")
SUNDAYS = Schedule("0 3 * * 0", "Europe/Paris")

Does = Callable[[Tick], Awaitable[dict[str, int]]]


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


START_MS = ms("2026-06-01T09:00")  # a Monday


class House:
    """Schedulers over one fresh file, and everything a test needs to look."""

    def __init__(self, path: Path) -> None:
        self.db = Database(path)
        METADATA.create_all(self.db.engine)
        self.clock = Clock(START_MS)
        self.heard: list[Ran] = []
        self.ticks: list[Tick] = []
        self.gate = asyncio.Event()
        self._number = 0

    def ids(self, prefix: str) -> str:
        self._number += 1
        return f"{prefix}_{self._number:05}"

    def scheduler(self, *jobs: Job, process: str = "a", **more: Any) -> Scheduler:
        settings = {"quiet_ms": 0, "pause_ms": 1} | more
        return Scheduler(
            self.db, TABLES, jobs or [self.job()], self.clock, self.ids, self.heard.append, process, **settings
        )

    def job(self, does: Does | None = None, name: str = "look", schedule: Schedule = FIVE, **more: Any) -> Job:
        settings = {"catch_up_ms": 30 * DAY_MS, "limit_ms": 5_000, "lease_ms": LEASE_MS} | more
        return Job(name, schedule, does or self.looks, "Looks.", **settings)

    async def looks(self, tick: Tick) -> dict[str, int]:
        self.ticks.append(tick)
        return {"seen": 1}

    async def waits(self, tick: Tick) -> dict[str, int]:
        self.ticks.append(tick)
        await self.gate.wait()
        return {"seen": len(self.ticks)}

    async def at(self, scheduler: Scheduler, advance_ms: int = 0) -> list[Ran]:
        return await scheduler.run_due(self.clock.advance(advance_ms))

    async def begun(self, count: int = 1) -> None:
        async with asyncio.timeout(30):
            while len(self.ticks) < count:  # noqa: ASYNC110 - what is waited for begins somewhere else
                await asyncio.sleep(0.001)

    def runs(self, job: str = "look") -> list[Run]:
        scheduler = self.scheduler(self.job(name=job))
        with self.db.engine.connect() as tx:
            return scheduler.history(tx, job, 500)[::-1]

    def overview(self, scheduler: Scheduler) -> list[Overview]:
        with self.db.engine.connect() as tx:
            return scheduler.overview(tx, self.clock())


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path / "scheduler.db")
    yield house
    house.db.close()


def brief(runs: list[Run]) -> list[tuple[str, int, int]]:
    """State, minutes since the start when it was due, and what it also answers for."""
    return [(run.state, (run.due_at_ms - START_MS) // MINUTE_MS, run.missed) for run in runs]


# --- who runs what ------------------------------------------------------------------------------------


def test_two_schedulers_run_every_due_time_once(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """220 due times, two schedulers that look at the same moment, in every interleaving: 220 runs."""
    rng = Random(1)
    ran: Counter[int] = Counter()

    async def does(tick: Tick) -> dict[str, int]:
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        ran[tick.due_at_ms] += 1
        return {}

    async def late(scheduler: Scheduler, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await house.at(scheduler)

    async def story() -> None:
        a, b = (house.scheduler(house.job(does), process=name) for name in "ab")
        await house.at(a)
        for _ in range(220):
            house.clock.advance(5 * MINUTE_MS)
            await asyncio.gather(late(a, rng.randrange(6)), late(b, rng.randrange(6)))

    asyncio.run(story())
    assert ran == Counter(FIVE.between(START_MS, house.clock(), 1_000))
    assert len(ran) == 220 and len(house.heard) == 220
    assert {run.process for run in house.runs()} == {"a", "b"}
    assert caplog.records == []  # who comes second is told so, not thrown out by an index


def test_a_stale_plan_begins_nothing(house: House) -> None:
    """Planned before somebody else ran a part of it, claimed after that: the span must not be answered for twice."""
    runs, job = house.scheduler()._runs, house.job()
    first, both = (plan(FIVE, START_MS, START_MS + n * MINUTE_MS, job.catch_up_ms) for n in (5, 10))
    with house.db.engine.begin() as tx:
        runs.register(tx, frozenset({"look"}), START_MS)
        run = runs.begin(tx, job, first, ("r1", "s1"), "a", START_MS + 5 * MINUTE_MS).run
        assert run is not None
        runs.settle(tx, ended(run, "done", START_MS + 5 * MINUTE_MS, {}))
        assert runs.begin(tx, job, both, ("r2", "s2"), "b", START_MS + 10 * MINUTE_MS) == (None, ())
    assert brief(house.runs()) == [("done", 5, 0)]


@pytest.mark.parametrize("second", [{"due_at_ms": 5, "state": "done"}, {"due_at_ms": 9, "state": "running"}])
def test_the_tables_elect(house: House, second: dict[str, Any]) -> None:
    """One row for a due time, one running row for a job: the tables say so, whatever code writes them."""
    first = {"id": "r1", "job": "look", "due_at_ms": 5, "from_ms": 1, "begun_at_ms": 5, "state": "running"}
    ended_at_ms = 9 if second["state"] == "done" else None
    with house.db.engine.begin() as tx:
        house.scheduler()._runs.register(tx, frozenset({"look"}), START_MS)
        tx.execute(insert(TABLES.runs), first)
        with pytest.raises(IntegrityError, match="UNIQUE"):
            tx.execute(insert(TABLES.runs), first | second | {"id": "r2", "ended_at_ms": ended_at_ms})


def test_it_runs_over_the_one_writer(tmp_path: Path) -> None:
    """The same over the service's own database, whose writes really wait: one run each for 20 due times."""
    clock = Clock(START_MS)
    ran: list[int] = []

    async def does(tick: Tick) -> dict[str, int]:
        await tick.keep(str(tick.due_at_ms), {"seen": 1})
        ran.append(tick.due_at_ms)
        return {"seen": 2}

    async def story() -> list[Run]:
        db = await Writer.open(f"sqlite:///{tmp_path / 'writer.db'}", on_storage_failure=print)
        try:
            await db.rebuild(METADATA.create_all)
            job = Job("look", FIVE, does, "Looks.", DAY_MS)
            two = [Scheduler(db, TABLES, [job], clock, Ids(clock), process=name) for name in "ab"]
            for _ in range(21):
                await asyncio.gather(*(one.run_due(clock()) for one in two))
                clock.advance(5 * MINUTE_MS)
            return await db.read(two[0].history, "look", 50)
        finally:
            await db.close()

    runs = asyncio.run(story())
    assert ran == FIVE.between(START_MS, clock() - 1, 50) and len(ran) == 20
    assert [(run.state, run.cursor, run.counters) for run in runs[:1]] == [("done", str(ran[-1]), {"seen": 2})]


def test_a_first_start_never_runs_the_past(house: House) -> None:
    """A job is first seen now: the nine o'clock that has just struck is not its, five past is."""

    async def story() -> None:
        scheduler = house.scheduler()
        assert await house.at(scheduler) == []
        assert await house.at(scheduler, 5 * MINUTE_MS - 1) == []
        (ran,) = await house.at(scheduler, 1)
        assert (ran.state, ran.counters, ran.due_at_ms) == ("done", {"seen": 1}, START_MS + 5 * MINUTE_MS)
        assert await house.at(scheduler) == []

    asyncio.run(story())
    assert [(tick.from_ms, tick.until_ms) for tick in house.ticks] == [(START_MS, START_MS + 5 * MINUTE_MS)]


def test_a_week_of_downtime_is_one_run(house: House) -> None:
    """Every five minutes for a week is one run; the Sunday that was missed is run on Monday, once."""

    async def story() -> None:
        jobs = house.job(), house.job(name="weekly", schedule=SUNDAYS)
        await house.at(house.scheduler(*jobs))
        await house.at(house.scheduler(*jobs), 7 * DAY_MS)
        await house.at(house.scheduler(*jobs))

    asyncio.run(story())
    assert brief(house.runs()) == [("done", 7 * 24 * 60, 7 * 24 * 12 - 1)]
    (weekly,) = house.runs("weekly")
    assert (weekly.state, weekly.due_at_ms, weekly.begun_at_ms) == ("done", ms("2026-06-07T01:00"), house.clock())


def test_what_is_outside_the_window_is_one_skipped_row(house: House) -> None:
    """An hour of catching up after a day away: one row for the 23 hours, told too, and one run for the last."""
    job = house.job(catch_up_ms=HOUR_MS)

    async def story() -> None:
        await house.at(house.scheduler(job))
        await house.at(house.scheduler(job), DAY_MS)

    asyncio.run(story())
    assert brief(house.runs()) == [("skipped", 23 * 60 - 5, 275), ("done", 24 * 60, 12)]
    assert [(ran.state, ran.missed) for ran in house.heard] == [("skipped", 275), ("done", 12)]
    assert [tick.from_ms for tick in house.ticks] == [house.runs()[0].due_at_ms]


def test_a_clock_that_goes_back_runs_nothing_twice(house: House) -> None:
    """Two hours back: silence until the clock is past what was run; then on, as if nothing had been."""

    async def story() -> None:
        scheduler = house.scheduler()
        await house.at(scheduler)
        await house.at(scheduler, 5 * MINUTE_MS)
        await house.at(scheduler, -2 * HOUR_MS)
        for _ in range(24):
            assert await house.at(scheduler, 5 * MINUTE_MS) == []
        assert len(await house.at(scheduler, 5 * MINUTE_MS)) == 1

    asyncio.run(story())
    assert brief(house.runs()) == [("done", 5, 0), ("done", 10, 0)]


def test_the_quiet_after_a_start(house: House) -> None:
    """What waits after a start is not begun for two minutes, then it is; what does not wait is begun at once."""

    async def story() -> None:
        jobs = house.job(waits_after_start=True), house.job(name="hurry")
        await house.at(house.scheduler(*jobs))
        house.clock.advance(HOUR_MS)
        scheduler = house.scheduler(*jobs, quiet_ms=2 * MINUTE_MS)
        assert [ran.job for ran in await house.at(scheduler)] == ["hurry"]
        assert await house.at(scheduler, 2 * MINUTE_MS - 1) == []
        assert [ran.job for ran in await house.at(scheduler, 1)] == ["look"]

    asyncio.run(story())


# --- runs that last, die and come back ----------------------------------------------------------------


def test_a_running_job_is_not_begun_again(house: House) -> None:
    """Its next due times wait for its end and collapse, also for another process; asking by hand is refused."""

    async def story() -> None:
        a, b = house.scheduler(house.job(house.waits)), house.scheduler(house.job(house.waits), process="b")
        await house.at(a)
        first = asyncio.create_task(house.at(a, 5 * MINUTE_MS))
        await house.begun()
        assert await house.at(a, 5 * MINUTE_MS - 1_000) == [] == await house.at(b)
        with pytest.raises(AlreadyRunning, match="'look' is running already, as run_"):
            await b.run_now("look", "ana")
        house.gate.set()
        await first
        await house.at(b, 6 * MINUTE_MS)

    asyncio.run(story())
    assert brief(house.runs()) == [("done", 5, 0), ("done", 15, 1)]


def test_a_dead_run_is_taken_over_and_its_zombie_changes_nothing(house: House) -> None:
    """After the lease another process runs the same due time from the cursor; the first one's end is not written."""

    async def dies(tick: Tick) -> dict[str, int]:
        await tick.keep("half", {"seen": 50})
        await house.waits(tick)
        with pytest.raises(Lost):
            await tick.keep("zombie", {"seen": 666})
        return {"seen": 667}

    async def story() -> None:
        a, b = house.scheduler(house.job(dies)), house.scheduler(process="b")
        await house.at(a)
        zombie = asyncio.create_task(house.at(a, 5 * MINUTE_MS))
        await house.begun()
        assert await house.at(b, LEASE_MS - 1) == []
        (ran,) = await house.at(b, 1)
        assert (ran.state, ran.due_at_ms) == ("done", START_MS + 5 * MINUTE_MS)
        house.gate.set()
        assert await zombie == []

    asyncio.run(story())
    assert (house.ticks[1].cursor, house.ticks[1].counters) == ("half", {"seen": 50})
    (run,) = house.runs()
    assert (run.state, run.fence, run.process, run.deaths) == ("done", 2, "b", 1)
    assert (run.cursor, run.counters) == ("half", {"seen": 1})
    assert [(ran.state, ran.counters) for ran in house.heard] == [("abandoned", {"seen": 50}), ("done", {"seen": 1})]


def test_a_piece_of_a_zombie_is_undone(house: House) -> None:
    """`keep_in` stands in the transaction of the piece: with the fence gone, the piece is gone too."""

    def piece(tx: Connection, tick: Tick, number: int) -> None:
        tx.execute(insert(PIECES), {"number": number})
        tick.keep_in(tx, str(number), {"seen": number})

    async def cuts(tick: Tick) -> dict[str, int]:
        await house.db.write(piece, tick, 1)
        await house.waits(tick)
        await house.db.write(piece, tick, 2)
        return {}

    async def story() -> None:
        a, b = house.scheduler(house.job(cuts)), house.scheduler(process="b")
        await house.at(a)
        zombie = asyncio.create_task(house.at(a, 5 * MINUTE_MS))
        await house.begun()
        await house.at(b, LEASE_MS)
        house.gate.set()
        await zombie

    asyncio.run(story())
    with house.db.engine.connect() as tx:
        assert tx.execute(select(PIECES.c.number)).scalars().all() == [1]


def test_a_clock_that_leaps_does_not_bury_the_living(house: House) -> None:
    """The lease of our own run looks over after a leap of a day: it is ours, and it still ends once."""

    async def story() -> None:
        scheduler = house.scheduler(house.job(house.waits))
        await house.at(scheduler)
        first = asyncio.create_task(house.at(scheduler, 5 * MINUTE_MS))
        await house.begun()
        assert await house.at(scheduler, DAY_MS) == []
        house.gate.set()
        assert [ran.state for ran in await first] == ["done"]

    asyncio.run(story())
    assert [(run.state, run.fence) for run in house.runs()] == [("done", 1)]


def test_a_run_that_kills_its_process_is_let_go(house: House) -> None:
    """After three deaths it is abandoned for good, and the next due time has its turn."""

    async def story() -> None:
        dying = house.scheduler(house.job(house.waits))
        await house.at(dying)
        lost = []  # nobody ever settles these in time
        for number in range(DEATHS_MAX):
            lost.append(asyncio.create_task(house.at(house.scheduler(house.job(house.waits)), LEASE_MS)))
            await house.begun(number + 1)
        await house.at(house.scheduler(process="b"), LEASE_MS)
        house.gate.set()
        await asyncio.gather(*lost)

    asyncio.run(story())
    assert brief(house.runs()) == [("abandoned", 10, 1), ("done", 40, 5)]
    assert Counter(ran.state for ran in house.heard) == {"abandoned": DEATHS_MAX, "done": 1}


def test_a_stop_gives_back_what_does_not_end(house: House) -> None:
    """What is cancelled by a stop is taken up at once by the next process, and counts as no death."""

    async def story() -> None:
        a = house.scheduler(house.job(house.waits))
        await house.at(a)
        house.clock.advance(5 * MINUTE_MS)
        a.start()
        await house.begun()
        await a.stop(1)
        with pytest.raises(Stopping):
            await a.run_now("look", "ana")
        assert [ran.state for ran in await house.at(house.scheduler(process="b"))] == ["done"]

    asyncio.run(story())
    assert [(run.state, run.fence, run.deaths, run.process) for run in house.runs()] == [("done", 2, 0, "b")]


def test_a_stop_waits_for_what_ends(house: House) -> None:
    """Within the grace a run ends by itself and is settled; a run by hand that does not end is abandoned."""

    async def story() -> None:
        a = house.scheduler(house.job(house.waits), house.job(house.waits, "other"))
        a.start()
        run = await a.run_now("look", "ana")
        await house.begun()
        stopping = asyncio.create_task(a.stop(5_000))
        await asyncio.sleep(0.005)
        house.gate.set()
        await stopping
        ended = await a.wait(run.id)
        assert ended is not None and ended.state == "done"
        house.gate.clear()
        b = house.scheduler(house.job(house.waits))
        run = await b.run_now("look", "ana")
        await house.begun(2)
        await b.stop(1)
        ended = await b.wait(run.id)
        assert ended is not None and (ended.state, ended.error) == ("abandoned", "The process stopped before its end.")

    asyncio.run(story())


def test_a_run_has_a_limit(house: House) -> None:
    """A job that hangs is cancelled and failed with what it had kept; its next due time is run."""

    async def hangs(tick: Tick) -> dict[str, int]:
        house.ticks.append(tick)
        await house.db.write(tick.keep_in, "far", {"seen": 7})
        await house.gate.wait()
        return {}

    async def story() -> None:
        scheduler = house.scheduler(house.job(hangs, limit_ms=20))
        await house.at(scheduler)
        (ran,) = await house.at(scheduler, 5 * MINUTE_MS)
        assert (ran.state, ran.counters) == ("failed", {"seen": 7})
        assert ran.error == "It took longer than its limit of 0.02 s and was stopped."
        house.gate.set()
        assert [ran.state for ran in await house.at(scheduler, 5 * MINUTE_MS)] == ["done"]

    asyncio.run(story())


def test_a_job_that_raises_stops_no_other(house: House) -> None:
    """Its error is kept, no longer than 500 characters; the others run, and it runs again when it is due."""

    async def raises(tick: Tick) -> dict[str, int]:
        raise LookupError("x" * 600)

    async def miscounts(tick: Tick) -> dict[str, int]:
        return {"seen": 0.5}  # type: ignore[dict-item]

    async def story() -> None:
        scheduler = house.scheduler(house.job(raises, "bad"), house.job(miscounts, "odd"), house.job())
        await house.at(scheduler)
        ran = {ran.job: ran for ran in await house.at(scheduler, 5 * MINUTE_MS)}
        assert ran["bad"].error == ("LookupError: " + "x" * 600)[:500]
        assert ran["odd"].error.startswith("TypeError: A counter is a name and a whole number")
        assert [ran[name].state for name in ("bad", "odd", "look")] == ["failed", "failed", "done"]
        assert len(await house.at(scheduler, 5 * MINUTE_MS)) == 3

    asyncio.run(story())


def test_a_write_that_fails_loses_nothing(house: House) -> None:
    """The end is written again until it is kept, also when only the answer got lost; a claim that fails waits."""

    async def breaks(tick: Tick) -> dict[str, int]:
        house.db.fail_before.append(OSError("full"))
        house.db.fail_after.append(OSError("lost"))
        return {"seen": 3}

    async def story() -> None:
        scheduler = house.scheduler(house.job(breaks))
        await house.at(scheduler)
        house.db.fail_before.append(OSError("full"))
        assert await house.at(scheduler, 5 * MINUTE_MS) == []
        assert [(ran.state, ran.counters) for ran in await house.at(scheduler)] == [("done", {"seen": 3})]

    asyncio.run(story())
    assert brief(house.runs()) == [("done", 5, 0)]
    assert len(house.heard) == 1


def test_a_hook_that_raises_undoes_nothing(house: House) -> None:
    """Who listens is not what is listened to."""

    def raises(ran: Ran) -> None:
        raise LookupError(ran.job)

    async def story() -> None:
        scheduler = Scheduler(house.db, TABLES, [house.job()], house.clock, house.ids, raises)
        await house.at(scheduler)
        assert [ran.state for ran in await house.at(scheduler, 5 * MINUTE_MS)] == ["done"]

    asyncio.run(story())


# --- what people do -----------------------------------------------------------------------------------


def test_runs_by_hand(house: House) -> None:
    """Twice in the same millisecond is two rows; the clock's own due times are not touched; progress is seen."""
    seen: list[dict[str, tuple[int, int]]] = []

    async def story() -> None:
        async def does(tick: Tick) -> dict[str, int]:
            tick.progress(3, 10)
            seen.append(scheduler.progress)
            return await house.looks(tick)

        scheduler = house.scheduler(house.job(does))
        await house.at(scheduler)
        house.clock.advance(5 * MINUTE_MS)
        for _ in range(2):
            run = await scheduler.run_now("look", "ana")
            assert (run.state, run.manual, run.actor) == ("running", True, "ana")
            ended = await scheduler.wait(run.id)
            assert ended is not None and ended.state == "done"
        assert seen[-1] == {run.id: (3, 10)} and scheduler.progress == {}
        assert len(await house.at(scheduler)) == 1

    asyncio.run(story())
    assert [(run.manual, run.due_at_ms) for run in house.runs()] == [
        (manual, START_MS + 5 * MINUTE_MS) for manual in (True, True, False)
    ]
    assert {(tick.from_ms, tick.until_ms) for tick in house.ticks} == {(START_MS, START_MS + 5 * MINUTE_MS)}


def test_a_dry_run_leaves_only_its_own_row(house: House) -> None:
    """Its row says so; it is no success of the job, and the due time it looked at is still run."""

    async def story() -> None:
        scheduler = house.scheduler()
        await house.at(scheduler)
        house.clock.advance(5 * MINUTE_MS)
        run = await scheduler.run_now("look", "ana", dry_run=True)
        await scheduler.wait(run.id)
        (one,) = house.overview(scheduler)
        assert (one.last, one.last_done_at_ms, one.last_due_at_ms) == (None, None, START_MS)
        assert len(await house.at(scheduler)) == 1

    asyncio.run(story())
    assert [tick.dry_run for tick in house.ticks] == [True, False]
    assert [(run.dry_run, run.state) for run in house.runs()] == [(True, "done"), (False, "done")]


def test_a_hand_takes_the_place_of_the_dead_but_a_dry_one_does_not(house: House) -> None:
    """A run whose process died is abandoned for a run by hand; a dry run must not cost it its turn."""

    async def story() -> None:
        a, b = house.scheduler(house.job(house.waits)), house.scheduler(process="b")
        await house.at(a)
        zombie = asyncio.create_task(house.at(a, 5 * MINUTE_MS))
        await house.begun()
        house.clock.advance(LEASE_MS)
        with pytest.raises(AlreadyRunning, match="was interrupted"):
            await b.run_now("look", "ana", dry_run=True)
        await b.wait((await b.run_now("look", "ana")).id)
        house.gate.set()
        await zombie

    asyncio.run(story())
    assert [(run.state, run.manual) for run in house.runs()] == [("abandoned", False), ("done", True)]


def test_an_unknown_job_is_named_with_its_neighbours(house: House) -> None:
    """A slip of the hand gets the right name, on every door."""

    async def story() -> None:
        scheduler = house.scheduler(house.job(name="expire-stale-orders"), house.job(name="prune"))
        with pytest.raises(UnknownJob, match=r"no job 'expire-orders'; did you mean expire-stale-orders\."):
            await scheduler.run_now("expire-orders", "ana")
        with pytest.raises(UnknownJob, match=r"There are: expire-stale-orders, prune\."):
            await scheduler.pause("zzz", "ana")
        with pytest.raises(UnknownJob):
            await scheduler.resume("zzz", "ana")
        with pytest.raises(UnknownJob):
            await house.db.read(scheduler.history, "zzz", 5)

    asyncio.run(story())


def test_what_was_due_while_paused_is_skipped(house: House) -> None:
    """A paused job is begun by nobody's clock, only by hand; resumed, it goes on from now, with one skipped row."""

    async def story() -> None:
        scheduler, other = house.scheduler(), house.scheduler(process="b")
        await house.at(scheduler)
        assert await scheduler.pause("look", "ana") and not await scheduler.pause("look", "ben")
        assert await house.at(scheduler, HOUR_MS) == [] == await house.at(other)
        (one,) = house.overview(scheduler)
        assert (one.paused_by, one.paused_at_ms, one.next_due_at_ms) == ("ana", START_MS, None)
        await scheduler.wait((await scheduler.run_now("look", "ana")).id)
        assert await scheduler.resume("look", "ben") and not await scheduler.resume("look", "ben")
        assert await house.at(scheduler) == []
        assert len(await house.at(scheduler, 5 * MINUTE_MS)) == 1

    asyncio.run(story())
    scheduled = [run for run in house.runs() if not run.manual]
    assert brief(scheduled) == [("skipped", 60, 12), ("done", 65, 0)]
    assert (scheduled[0].actor, scheduled[0].error) == ("ben", "It was paused.")


def test_a_pause_between_plan_and_claim_holds(house: House) -> None:
    """Paused after the scheduler has looked and before it has claimed: not begun."""

    async def story() -> None:
        scheduler = house.scheduler()
        await house.at(scheduler)
        house.clock.advance(5 * MINUTE_MS)
        house.db.gate = asyncio.Event()
        passing = asyncio.create_task(house.at(scheduler))
        for _ in range(20):
            await asyncio.sleep(0)
        with house.db.engine.begin() as tx:
            scheduler._runs.pause(tx, "look", "ana", house.clock())
        house.db.gate.set()
        assert await passing == []

    asyncio.run(story())
    assert house.runs() == []


def test_the_overview_tells_how_each_job_stands(house: House) -> None:
    """Last run and its counters or error, last success, what runs, and what is next."""

    async def fails_second(tick: Tick) -> dict[str, int]:
        if house.ticks:
            raise LookupError("second")
        return await house.looks(tick)

    async def story() -> None:
        jobs = house.job(fails_second), house.job(house.waits, "slow", SUNDAYS)
        scheduler = house.scheduler(*jobs)
        never, slow = house.overview(scheduler)
        assert (never.last, never.next_due_at_ms) == (None, START_MS + 5 * MINUTE_MS)
        await house.at(scheduler)
        await house.at(scheduler, 5 * MINUTE_MS)
        await house.at(scheduler, 5 * MINUTE_MS)
        run = await scheduler.run_now("slow", "ana")
        look, slow = house.overview(scheduler)
        assert look.last is not None and (look.last.state, look.last.error) == ("failed", "LookupError: second")
        assert look.last_done_at_ms == START_MS + 5 * MINUTE_MS
        assert (look.next_due_at_ms, look.running) == (START_MS + 15 * MINUTE_MS, None)
        assert slow.running is not None and slow.running.id == run.id
        assert (slow.expression, slow.zone, slow.sentence) == ("0 3 * * 0", "Europe/Paris", "Looks.")
        house.gate.set()
        await scheduler.wait(run.id)

    asyncio.run(story())


def test_history_is_read_page_by_page(house: House) -> None:
    """Newest first, and `before` goes on exactly where the last page ended."""

    async def story() -> None:
        scheduler = house.scheduler()
        await house.at(scheduler)
        for _ in range(5):
            await house.at(scheduler, 5 * MINUTE_MS)
        pages, before = [], None
        while page := await house.db.read(scheduler.history, "look", 2, before):
            pages.append(len(page))
            before = page[-1].id
        assert pages == [2, 2, 1]

    asyncio.run(story())


def test_pruning_keeps_the_last_fifty(house: House) -> None:
    """Old runs go, piece by piece; fifty of each job stay however old, and what runs is never touched."""
    runs = house.scheduler()._runs
    with house.db.engine.begin() as tx:
        runs.register(tx, frozenset({"look", "rare"}), START_MS)
        row = {"from_ms": 1, "begun_at_ms": 1, "state": "done"}
        many = [row | {"id": f"l{n}", "job": "look", "due_at_ms": n, "ended_at_ms": n} for n in range(1, 701)]
        few = [row | {"id": f"r{n}", "job": "rare", "due_at_ms": n, "ended_at_ms": n} for n in range(1, 31)]
        old = {"id": "old", "job": "look", "due_at_ms": 1, "ended_at_ms": None, "state": "running", "manual": 1}
        tx.execute(insert(TABLES.runs), [*many, *few])
        tx.execute(insert(TABLES.runs), row | old)
        assert [runs.prune(tx, 640), runs.prune(tx, 640), runs.prune(tx, 640)] == [ROWS_A_PIECE, 139, 0]
        assert [runs.prune(tx, 10_000), runs.prune(tx, 10_000)] == [700 - 639 - KEPT_RUNS, 0]
        left = select(TABLES.runs.c.job, func.count()).group_by(TABLES.runs.c.job).order_by(TABLES.runs.c.job)
        assert [tuple(one) for one in tx.execute(left)] == [("look", KEPT_RUNS + 1), ("rare", 30)]


def test_what_runs_is_found_by_its_index(house: House) -> None:
    """Every pass asks what runs: with a year of runs kept, that must not read them all."""
    asked: list[tuple[str, Any]] = []
    runs = house.scheduler()._runs
    with house.db.engine.connect() as tx:
        event.listen(tx, "before_cursor_execute", lambda *said: asked.append(said[2:4]))
        runs.standing(tx)
        runs.last(tx, "look", START_MS)
        runs.history(tx, "look", 5)
        explained = [tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values).all() for sql, values in tuple(asked)]
    said = [row.detail for rows in explained for row in rows if "job_runs" in row.detail]
    assert said == [
        "SCAN job_runs USING INDEX job_runs_running",
        "SEARCH job_runs USING INDEX job_runs_history (job=? AND due_at_ms<?)",
        "SEARCH job_runs USING INDEX job_runs_history (job=?)",
    ]


def test_the_loop_wakes_for_a_nudge_and_stops(house: House) -> None:
    """Started, it runs what is due without being asked, survives a storage that fails, and ends."""

    async def story() -> None:
        scheduler = house.scheduler()
        await house.at(scheduler)
        house.db.fail_before.append(OSError("full"))
        house.clock.advance(5 * MINUTE_MS)
        scheduler.start()
        await house.begun()
        house.clock.advance(5 * MINUTE_MS)
        scheduler.nudge()
        await house.begun(2)
        await scheduler.stop(1_000)

    asyncio.run(story())
    assert brief(house.runs()) == [("done", 5, 0), ("done", 10, 0)]


def test_a_job_says_what_is_wrong_with_it(house: House) -> None:
    """A name for no command line, a lease below the limit, a window that cannot be met, one name twice."""
    for wrong in ({"name": "Look!"}, {"limit_ms": LEASE_MS}, {"catch_up_ms": 1_000}):
        with pytest.raises(ValueError):
            house.job(**wrong)
    with pytest.raises(ValueError, match="there twice"):
        house.scheduler(house.job(), house.job())


def test_a_job_that_is_gone_leaves_no_run_behind(house: House) -> None:
    """The code has no such job any more, and its process died: the next start abandons the run, and says so."""

    async def story() -> None:
        a = house.scheduler(house.job(house.waits))
        await house.at(a)
        zombie = asyncio.create_task(house.at(a, 5 * MINUTE_MS))
        await house.begun()
        await house.at(house.scheduler(house.job(name="other")), LEASE_MS)
        house.gate.set()
        await zombie

    asyncio.run(story())
    assert brief(house.runs()) == [("abandoned", 5, 0)]
    assert [ran.state for ran in house.heard] == ["abandoned"]
