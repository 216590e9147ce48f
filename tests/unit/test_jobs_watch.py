"""What runs of jobs came to, as metrics, logs and a person hear of it; and the timetable."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select

from outbox.queue import Queue
from scheduler import Counters, Job, Schedule, Scheduler, Tick
from service.ids import Ids
from service.jobs.jobs import jobs
from service.jobs.timetable import TIMETABLE
from service.jobs.watch import FAILED, JobWatch
from service.metrics import Metrics, measure
from service.orders.expire import AFTER_START_MS
from service.payments.tables import attention
from service.providers import PROVIDERS
from service.schema import metadata, outbox_tables, scheduler_tables
from tests.support.clock import Clock
from tests.support.database import Database

JOB = "release-escrow"
WEEK_MS = 7 * 24 * 3_600_000


class House:
    """One job that does as it is told, and who watches it."""

    def __init__(self, path: Path) -> None:
        self.db, self.clock, self.metrics = Database(path), Clock(), Metrics(PROVIDERS)
        metadata.create_all(self.db.engine)
        self.ids = Ids(self.clock)
        self.error = ""
        db: Any = self.db
        self.watch = JobWatch(db, self.metrics, self.ids, self.clock)

    async def run(self, error: str = "", dry_run: bool = False) -> None:
        """One run, to its end and what is made of it."""

        async def does(tick: Tick) -> Counters:
            if error:
                raise RuntimeError(error)
            return {"released": 3}

        self.clock.advance(60_000)
        job = Job(JOB, Schedule("* * * * *", "UTC"), does, "x", 60_000)
        scheduler = Scheduler(self.db, scheduler_tables, [job], self.clock, self.ids, self.watch)
        await scheduler.wait((await scheduler.run_now(JOB, "test", dry_run)).id)
        await self.watch.close()

    def open(self) -> list[tuple[str, str]]:
        with self.db.engine.begin() as tx:
            rows = tx.execute(select(attention).where(attention.c.closed_at_ms.is_(None), attention.c.reason == FAILED))
            return [(row.subject, row.detail) for row in rows]

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "caisse.db")
    yield made
    made.db.close()


def test_three_failures_in_a_row_are_put_before_a_person_and_a_success_takes_them_away(house: House) -> None:
    """Two are not, nor three with a success between; more than three are one matter; dry runs say nothing."""

    async def story() -> None:
        for error in ("a", "b", "", "c"):
            await house.run(error)
        await house.run("dry", dry_run=True)
        await house.run("d")
        assert house.open() == []
        await house.run("e [SQL: SELECT secret]")
        assert house.open() == [(JOB, "RuntimeError: e")]
        await house.run("f")
        await house.run(dry_run=True)
        assert len(house.open()) == 1
        assert house.value("attention_opened_total", reason=FAILED) == 1
        await house.run()
        assert house.open() == []

    asyncio.run(story())


def test_each_run_is_counted_and_a_restart_knows_when_the_last_was(house: House) -> None:
    """By job and end; the two timestamps come from the tables, so a new process has them at its first scrape."""

    async def story() -> None:
        await house.run()
        await house.run("broken")
        await house.run(dry_run=True)

    asyncio.run(story())
    assert house.value("job_runs_total", job=JOB, state="done") == 2
    assert house.value("job_runs_total", job=JOB, state="failed") == 1
    assert house.value("job_execution_seconds_count", job=JOB) == 3
    fresh = Metrics(PROVIDERS)
    with house.db.engine.begin() as tx:
        fresh.measured(measure(tx, Queue(outbox_tables), house.clock()))
    began_s = Clock()() / 1000
    assert fresh.registry.get_sample_value("job_last_success_timestamp", {"job": JOB}) == began_s + 60
    assert fresh.registry.get_sample_value("job_last_execution_timestamp", {"job": JOB}) == began_s + 120


def test_the_timetable_is_what_was_promised() -> None:
    """Names, schedules and zone are fixed; whatever lets something expire is quiet after a start."""
    app: Any = SimpleNamespace(settings=SimpleNamespace(timezone="Europe/Paris"))
    made = {job.name: job for job in jobs(app)}
    assert {name: job.schedule.expression for name, job in made.items()} == {
        "expire-stale-orders": "*/5 * * * *", "cleanup-stale-payment-intents": "0 3 * * 0",
        "release-escrow": "* * * * *", "ask-about-stuck-attempts": "*/10 * * * *", "verify-ledger": "15 4 * * *",
        "rest-failing-endpoints": "*/15 * * * *", "prune": "30 2 * * *", "reconcile": "0 5 * * *",
        "backup": "0 1 * * *",
    }  # fmt: skip
    assert {job.schedule.zone for job in made.values()} == {"Europe/Paris"}
    assert {"expire-stale-orders", "cleanup-stale-payment-intents", "release-escrow"} <= {
        name for name, job in made.items() if job.waits_after_start
    }
    assert AFTER_START_MS == 120_000
    assert made["cleanup-stale-payment-intents"].catch_up_ms < WEEK_MS, "a week is not made up for twice"
    assert list(made) == list(TIMETABLE)
    other = {job.name: job for job in jobs(app, {"prune": "0 0 * * *"}, quiet=False)}
    assert other["prune"].schedule.expression == "0 0 * * *"
    assert not any(job.waits_after_start for job in other.values())
