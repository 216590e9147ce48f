"""Any schedule, any clock, two schedulers: the same due times from wherever one looks, each accounted for once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import MetaData, select

from scheduler import Job, Schedule, Scheduler, Tick
from scheduler.tables import define
from tests.support.clock import Clock
from tests.support.database import Database

METADATA = MetaData()
TABLES = define(METADATA)

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

CHANGES_MS = [
    int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000
    for text in ("2026-03-08T07:00", "2026-03-29T01:00", "2026-10-25T01:00", "2026-11-01T06:00", "2026-06-01T00:00")
]
EXPRESSIONS = [
    *("*/5 * * * *", "0 * * * *", "30 2 * * *", "0,20,40 1-3 * * *", "0 3 * * 0", "15 */2 * * *"),
    *("0 0 1 * *", "59 1 * * MON-FRI", "*/7 2 * * *", "0 0 29 2 *"),
]
ZONES = ["Europe/Paris", "America/New_York", "Africa/Douala", "UTC", "Africa/Cairo", "Australia/Lord_Howe"]


@given(
    st.builds(Schedule, st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES)),
    st.sampled_from(CHANGES_MS),
    st.lists(st.integers(-3 * HOUR_MS, 3 * HOUR_MS), min_size=2, max_size=6),
)
def test_due_times_do_not_depend_on_where_one_begins_to_look(
    schedule: Schedule, change_ms: int, offsets_ms: list[int]
) -> None:
    """The list from far before a change of the clock, cut anywhere, is the list asked for from there."""
    until_ms = change_ms + 2 * DAY_MS
    all_ms = schedule.between(change_ms - 8 * DAY_MS, until_ms, 10_000)
    assert all_ms == sorted(set(all_ms))
    for offset_ms in offsets_ms:
        at_ms = change_ms + offset_ms
        rest_ms = [due_at_ms for due_at_ms in all_ms if due_at_ms > at_ms]
        assert schedule.between(at_ms, until_ms, 10_000) == rest_ms
        if rest_ms:
            assert schedule.next_after(at_ms) == rest_ms[0]
        past_ms = [due_at_ms for due_at_ms in all_ms if due_at_ms <= at_ms]
        assert schedule.newest(change_ms - 8 * DAY_MS, at_ms) == (past_ms[-1] if past_ms else None)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["first", "second", "both", "both"]),
        st.one_of(
            st.integers(0, 12 * MINUTE_MS),
            st.sampled_from([HOUR_MS, DAY_MS, 8 * DAY_MS, -MINUTE_MS, -HOUR_MS, -2 * HOUR_MS]),  # a day at most in all
        ),
        st.integers(0, 4),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40)
@given(
    STEPS,
    st.sampled_from(["*/5 * * * *", "0 * * * *", "30 2 * * *"]),
    st.sampled_from(CHANGES_MS),
    st.sampled_from([5 * MINUTE_MS, 2 * HOUR_MS, 3 * DAY_MS]),
)
def test_every_due_time_is_accounted_for_once(
    steps: list[tuple[str, int, int]], expression: str, start_ms: int, catch_up_ms: int
) -> None:
    """Wherever the clock jumps and whoever looks: the spans of the rows leave no gap, and count every due time."""
    schedule = Schedule(expression, "Europe/Paris")
    ticks: list[tuple[int, int]] = []

    async def does(tick: Tick) -> dict[str, int]:
        for _ in range(pauses[0]):
            await asyncio.sleep(0)
        ticks.append((tick.from_ms, tick.until_ms))
        return {}

    pauses = [0]
    clock = Clock(start_ms - HOUR_MS)
    numbers = iter(range(1, 10_000))

    def ids(prefix: str) -> str:
        return f"{prefix}_{next(numbers):05}"

    with TemporaryDirectory() as folder:
        db = Database(Path(folder) / "clock.db")
        METADATA.create_all(db.engine)

        async def story() -> None:
            job = Job("look", schedule, does, "Looks.", catch_up_ms)
            two = [Scheduler(db, TABLES, [job], clock, ids, process=name, pause_ms=1) for name in ("a", "b")]
            await two[0].run_due(clock())
            for who, jump_ms, pauses[0] in steps:
                clock.advance(jump_ms)
                chosen = {"first": two[:1], "second": two[1:], "both": two}[who]
                await asyncio.gather(*(one.run_due(clock()) for one in chosen))

        asyncio.run(story())
        with db.engine.connect() as tx:
            runs = tx.execute(select(TABLES.runs).order_by(TABLES.runs.c.due_at_ms)).all()
            last_ms = tx.execute(select(TABLES.jobs.c.last_due_at_ms)).scalar_one()
        db.close()

    begun_ms = start_ms - HOUR_MS
    expected = schedule.between(begun_ms, last_ms, 100_000)
    assert [run.from_ms for run in runs] == [begun_ms, *(run.due_at_ms for run in runs)][: len(runs)]
    assert sum(run.missed + (run.state != "skipped") for run in runs) == len(expected)
    assert {run.due_at_ms for run in runs} <= set(expected)
    assert {run.state for run in runs} <= {"done", "skipped"}
    assert sorted(ticks) == [(run.from_ms, run.due_at_ms) for run in runs if run.state == "done"]


JUMPS = st.lists(
    st.one_of(
        st.integers(0, 12 * MINUTE_MS),
        st.sampled_from([HOUR_MS, DAY_MS, 3 * DAY_MS, 365 * DAY_MS, -HOUR_MS, -DAY_MS, -3 * DAY_MS, -365 * DAY_MS]),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=15)
@given(JUMPS, st.sampled_from(["0 */3 * * *", "30 2 * * *"]), st.sampled_from([5 * MINUTE_MS, 3 * DAY_MS]))
def test_no_jump_silences_a_job_or_runs_a_due_time_twice(
    jumps_ms: list[int], expression: str, catch_up_ms: int
) -> None:
    """However far and often the clock is wrong: no due time runs twice, and what has no row is run when it comes."""
    ran: list[int] = []

    async def does(tick: Tick) -> dict[str, int]:
        ran.append(tick.due_at_ms)
        return {}

    clock = Clock(CHANGES_MS[-1])
    numbers = iter(range(1, 10_000))
    with TemporaryDirectory() as folder:
        db = Database(Path(folder) / "clock.db")
        METADATA.create_all(db.engine)

        async def story() -> None:
            job = Job("look", Schedule(expression, "UTC"), does, "Looks.", catch_up_ms)
            scheduler = Scheduler(db, TABLES, [job], clock, lambda prefix: f"{prefix}_{next(numbers):05}", pause_ms=1)
            for jump_ms in jumps_ms:
                await scheduler.run_due(clock.advance(jump_ms))
                assert not scheduler._failed, "nothing stumbles over a row that is there"
            await scheduler.run_due(clock.advance(DAY_MS))  # by now it has passed what the bringing back has kept
            with db.engine.connect() as tx:
                there = set(tx.execute(select(TABLES.runs.c.due_at_ms)).scalars())
            for _ in range(4):
                clock.now_ms = job.schedule.next_after(clock())
                begun = [one.due_at_ms for one in await scheduler.run_due(clock())]
                assert begun == [clock()] * (clock() not in there)

        asyncio.run(story())
        db.close()
    assert len(ran) == len(set(ran))
