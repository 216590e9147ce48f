"""A clock that was far ahead by mistake, and is put right: the scheduler goes on from now, and runs nothing twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from scheduler import AlreadyRunning
from tests.unit.test_scheduler import DAY_MS, HOUR_MS, LEASE_MS, MINUTE_MS, START_MS, SUNDAYS, TABLES, House

YEAR_MS = 365 * DAY_MS


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path / "scheduler.db")
    yield house
    house.db.close()


def due_times(house: House, job: str = "look") -> list[int]:
    """When what was run by the clock was due, in minutes since the start, in the order of the runs."""
    return [(tick.due_at_ms - START_MS) // MINUTE_MS for tick in house.ticks if not tick.manual and tick.job == job]


def warnings(caplog: pytest.LogCaptureFixture) -> list[object]:
    """What is said of a clock that went back, by the jobs that were brought back; nothing else may be said."""
    assert {record.message for record in caplog.records} <= {"scheduler.clock_went_back"}
    return [record.__dict__["jobs"] for record in caplog.records]


def test_a_year_ahead_and_back_jobs_run_at_the_next_due_time(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """One wrong hour must not silence payments for a year; what was run before it is not run again; said once."""
    jobs = house.job(), house.job(name="weekly", schedule=SUNDAYS)

    async def story() -> None:
        scheduler, other = house.scheduler(*jobs), house.scheduler(*jobs, process="b")
        await house.at(scheduler)
        await house.at(scheduler, 5 * MINUTE_MS)
        await house.at(scheduler, YEAR_MS)
        await house.at(scheduler, 10 * MINUTE_MS)
        house.clock.advance(-YEAR_MS - 9 * MINUTE_MS)  # six past, by a clock that is right again
        for _ in range(14):  # as the loop looks, until seven minutes later
            await house.at(scheduler, MINUTE_MS // 2)
            await house.at(other)
        look, weekly = house.overview(scheduler)
        assert (look.last_due_at_ms, look.next_due_at_ms) == (START_MS + 10 * MINUTE_MS, START_MS + 15 * MINUTE_MS)
        assert look.last is not None and look.last.due_at_ms == look.last_due_at_ms, "not the one of next year"
        assert weekly.next_due_at_ms == SUNDAYS.next_after(START_MS)
        await house.at(scheduler, 6 * DAY_MS)

    asyncio.run(story())
    far = YEAR_MS // MINUTE_MS
    assert due_times(house) == [5, far + 5, far + 15, 10, 13 + 6 * 24 * 60 - 3]
    assert len(due_times(house, "weekly")) == 2, "one of next year, and this Sunday's"
    assert warnings(caplog) == [["look", "weekly"]]


def test_what_was_run_in_the_far_pass_is_not_run_again_when_it_comes(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    """A year later real time gets to a due time that has its row: nothing fails there, and the next one is run."""

    async def story() -> None:
        scheduler = house.scheduler()
        await house.at(scheduler)
        await house.at(scheduler, YEAR_MS)
        await house.at(scheduler, 5 * MINUTE_MS)
        await house.at(scheduler, -YEAR_MS - 5 * MINUTE_MS)
        await house.at(scheduler, YEAR_MS - 5 * MINUTE_MS)
        for _ in range(3):
            await house.at(scheduler, 5 * MINUTE_MS)
            await house.at(scheduler)

    asyncio.run(story())
    far = YEAR_MS // MINUTE_MS
    assert due_times(house) == [far, far + 5, far - 5, far + 10]
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("back_ms", [YEAR_MS + HOUR_MS, YEAR_MS + 23 * HOUR_MS])
def test_put_back_behind_the_mistake_nothing_of_the_past_is_run_twice(house: House, back_ms: int) -> None:
    """Put right to a moment before the jump: what has been run in real time, with what it answered for, stays run."""

    async def story() -> None:
        scheduler = house.scheduler()
        await house.at(scheduler)
        await house.at(scheduler, DAY_MS)
        await house.at(scheduler, 5 * MINUTE_MS)
        await house.at(scheduler, YEAR_MS)
        await house.at(scheduler, -back_ms)
        for _ in range(back_ms % YEAR_MS // (5 * MINUTE_MS)):
            assert await house.at(scheduler, 5 * MINUTE_MS) == []
        assert len(await house.at(scheduler, 5 * MINUTE_MS)) == 1

    asyncio.run(story())
    day, far = DAY_MS // MINUTE_MS, YEAR_MS // MINUTE_MS
    assert due_times(house) == [day, day + 5, day + 5 + far, day + 10]


def test_a_clock_that_was_far_behind_runs_nothing_twice(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """A machine that wakes in 1970 looks the same; once it knows the time, what was run before stays run."""

    async def story() -> None:
        scheduler = house.scheduler()
        await house.at(scheduler)
        for _ in range(3):
            await house.at(scheduler, 5 * MINUTE_MS)
        now_ms = house.clock()
        house.clock.now_ms = 1_000_000
        await house.at(scheduler)
        await house.at(scheduler, 5 * MINUTE_MS)
        house.clock.now_ms = now_ms
        assert await house.at(scheduler) == []
        assert len(await house.at(scheduler, 5 * MINUTE_MS)) == 1

    asyncio.run(story())
    assert [due for due in due_times(house) if due > 0] == [5, 10, 15, 20]
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("door", ["pass", "hand", "paused", "dry"])
def test_a_dead_run_of_the_far_pass_holds_nobody_up(house: House, door: str) -> None:
    """Its lease is a year ahead: it is abandoned by the next pass, or for whoever asks by hand, also while paused."""

    async def story() -> None:
        dying, b = house.scheduler(house.job(house.waits)), house.scheduler(process="b")
        await house.at(dying)
        zombie = asyncio.create_task(house.at(dying, YEAR_MS))
        await house.begun()
        house.clock.advance(-YEAR_MS + MINUTE_MS)
        if door == "paused":
            await b.pause("look", "ana")
            assert await house.at(b) == []
        if door == "dry":
            with pytest.raises(AlreadyRunning, match="was interrupted"):
                await b.run_now("look", "ana", dry_run=True)
        if door in ("hand", "paused"):
            run = await b.run_now("look", "ana")
            await b.wait(run.id)
        if door == "paused":
            assert await b.resume("look", "ana")
        assert await house.at(b) == []
        assert [ran.due_at_ms for ran in await house.at(b, 4 * MINUTE_MS)] == [START_MS + 5 * MINUTE_MS]
        house.gate.set()
        assert await zombie == [], "it settles nothing"

    asyncio.run(story())
    by_clock = [run for run in house.runs() if not run.manual and run.state != "skipped"]
    assert [(run.state, run.process) for run in by_clock] == [("done", "b"), ("abandoned", "a")]
    assert all((run.ended_at_ms or 0) >= run.begun_at_ms for run in by_clock)
    assert Counter(ran.state for ran in house.heard)["abandoned"] == 1


def test_a_dead_run_of_a_due_time_of_ours_is_taken_over(house: House) -> None:
    """Due in real time, taken up while the clock was ahead, dead then: run again from what it kept, its once."""

    async def dies(tick: object) -> dict[str, int]:
        return await house.waits(tick)  # type: ignore[arg-type]

    async def story() -> None:
        first, second, third = (
            house.scheduler(house.job(does), process=p) for does, p in ((dies, "a"), (dies, "b"), (house.looks, "c"))
        )
        await house.at(first)
        lost = [asyncio.create_task(house.at(first, 5 * MINUTE_MS))]
        await house.begun()
        lost.append(asyncio.create_task(house.at(second, 20 * DAY_MS)))
        await house.begun(2)
        (ran,) = await house.at(third, -20 * DAY_MS + MINUTE_MS)
        assert (ran.state, ran.due_at_ms) == ("done", START_MS + 5 * MINUTE_MS)
        house.gate.set()
        await asyncio.gather(*lost)

    asyncio.run(story())
    (run,) = house.runs()
    assert (run.state, run.process, run.deaths, run.fence) == ("done", "c", 2, 3)


def test_a_run_that_lives_through_it_is_not_buried(house: House) -> None:
    """Begun while the clock was ahead, and still running here when it is put right: it ends; then it goes on."""

    async def story() -> None:
        scheduler = house.scheduler(house.job(house.waits))
        await house.at(scheduler)
        first = asyncio.create_task(house.at(scheduler, YEAR_MS))
        await house.begun()
        assert await house.at(scheduler, -YEAR_MS + MINUTE_MS) == []
        with pytest.raises(AlreadyRunning):
            await scheduler.run_now("look", "ana")
        house.gate.set()
        assert [ran.state for ran in await first] == ["done"]
        assert await house.at(scheduler) == []
        assert len(await house.at(scheduler, 4 * MINUTE_MS)) == 1

    asyncio.run(story())


@pytest.mark.parametrize("first", ["register", "quiet"])
def test_a_start_with_the_wrong_clock_costs_nothing_later(house: House, first: str) -> None:
    """A job first known, or quiet begun, a year ahead: both are brought back with the rest."""

    async def story() -> None:
        if first == "quiet":
            await house.at(house.scheduler())
        house.clock.advance(YEAR_MS)
        scheduler = house.scheduler(house.job(waits_after_start=True), quiet_ms=2 * MINUTE_MS)
        await house.at(scheduler)
        house.clock.advance(-YEAR_MS)
        assert await house.at(scheduler) == []
        assert len(await house.at(scheduler, 5 * MINUTE_MS)) == 1

    asyncio.run(story())
    with house.db.engine.connect() as tx:
        job = tx.execute(select(TABLES.jobs)).one()
    assert (job.since_ms, job.last_due_at_ms) == (START_MS, START_MS + 5 * MINUTE_MS)


def test_a_day_back_is_waited_for(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """A small correction is as it was: silence until the clock is past what was run, and a lease that is kept."""

    async def story() -> None:
        a, b = house.scheduler(house.job(house.waits)), house.scheduler(process="b")
        await house.at(a)
        zombie = asyncio.create_task(house.at(a, DAY_MS))
        await house.begun()
        assert await house.at(b, -DAY_MS) == []
        with pytest.raises(AlreadyRunning):
            await b.run_now("look", "ana")
        assert await house.at(b, DAY_MS + LEASE_MS - 1) == []
        assert len(await house.at(b, 1)) == 1
        house.gate.set()
        await zombie
        await house.at(b)
        last_ms = START_MS + DAY_MS + LEASE_MS
        house.clock.now_ms = last_ms - DAY_MS
        for _ in range(4):
            assert await house.at(b, DAY_MS // 4) == []
        assert len(await house.at(b, 5 * MINUTE_MS)) == 1

    asyncio.run(story())
    assert warnings(caplog) == []
