"""Jobs in a running service and beside it: the clock, the API, the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, func, select

from scheduler import Counters, Job, Schedule, Tick
from service.application import Jobs, build
from service.cli import caisse
from service.jobs.jobs import jobs as every_job
from service.merchants.tables import audit
from service.schema import metadata, scheduler_tables
from tests.support.api import another, api_of
from tests.support.service import ALL, Till, eventually, open_shop, settings_of, till

MINUTE_MS = 60_000


@asynccontextmanager
async def serving(directory: Path, jobs: Jobs) -> AsyncIterator[Till]:
    """A service with these jobs."""
    async with open_shop() as shop, aiohttp.ClientSession() as client:
        app = build(settings_of(directory, **ALL), jobs=jobs)
        await app.start()
        running = Till(app, shop, client)
        try:
            running.merchant = await running.create_merchant(url=shop.url)
            yield running
        finally:
            await app.stop()


class Slow:
    """A job that keeps how far it is, and goes on when it is told to."""

    def __init__(self) -> None:
        self.going, self.go_on, self.seen = asyncio.Event(), asyncio.Event(), list[str]()

    async def does(self, tick: Tick) -> Counters:
        """Half of it, wait, and the rest."""
        self.seen.append(tick.cursor)
        if not tick.cursor:
            await tick.keep("half", {"done": 1})
        self.going.set()
        await self.go_on.wait()
        return {"done": 2}

    def jobs(self, _: object) -> list[Job]:
        """The list of one."""
        return [Job("slow", Schedule("* * * * *", "UTC"), self.does, "Waits.", MINUTE_MS)]


def test_jobs_by_the_api(tmp_path: Path) -> None:
    """List, one, its runs; by hand, dry too, once for one key; pause and resume: each does what it says."""

    async def run() -> None:
        async with till(tmp_path, jobs=every_job) as t:
            api = await another(t, scopes=("jobs:write",))
            listed = {one["name"]: one for one in (await api("GET", "/jobs")).said["data"]}
            assert listed["expire-stale-orders"]["schedule"] == "*/5 * * * *"
            assert all(one["next_run_at"] and one["zone"] == "Europe/Paris" for one in listed.values())
            began = await api("POST", "/jobs/verify-ledger/run", {"dry_run": True}, once="a")
            assert (began.status, began.said["state"], began.said["dry_run"]) == (202, "running", True)
            assert (await api("POST", "/jobs/verify-ledger/run", {"dry_run": True}, once="a")).replayed
            await t.app.scheduler.wait(began.said["id"])
            assert (await api("GET", "/jobs/verify-ledger")).said["last_result"] is None, "a dry run is none"
            began = await api("POST", "/jobs/verify-ledger/run")
            await t.app.scheduler.wait(began.said["id"])
            page = (await api("GET", "/jobs/verify-ledger/runs", params={"limit": "1"})).said
            assert [one["id"] for one in page["data"]] == [began.said["id"]] and page["more"]
            assert page["data"][0]["counters"]["problems"] == 0
            (dry,) = (await api("GET", "/jobs/verify-ledger/runs", params={"after": page["next"]})).said["data"]
            assert dry["dry_run"] and dry["by"].startswith("api:key_")
            assert (await api("GET", "/jobs/verify-ledger")).said["last_result"] == "done"
            paused = (await api("POST", "/jobs/prune/pause")).said
            assert (paused["state"], paused["next_run_at"]) == ("paused", None)
            assert (await api("POST", "/jobs/prune/resume")).said["state"] == "waiting"
            written = [row.action for row in await t.rows(audit, audit.c.action.startswith("job."))]
            assert written == ["job.run", "job.run", "job.paused", "job.resumed"]
            async with t.client.get(t.url + "/metrics") as answer:
                assert 'job_last_success_timestamp{job="verify-ledger"}' in await answer.text()

    asyncio.run(run())


def test_a_merchant_s_ordinary_key_reaches_no_job(tmp_path: Path) -> None:
    """`*` is all that is the merchant's own: jobs are everybody's, and their scope has to be named."""

    async def run() -> None:
        async with till(tmp_path, jobs=every_job) as t:
            for method, path in (("GET", "/jobs"), ("GET", "/jobs/prune/runs"), ("POST", "/jobs/prune/run")):
                refused = await api_of(t)(method, path)
                assert (refused.status, refused.code) == (403, "missing_scope")
            reader = await another(t, scopes=("*", "jobs:read"))
            assert (await reader("GET", "/jobs")).status == 200
            assert (await reader("GET", "/payments")).status == 200
            assert (await reader("POST", "/jobs/prune/pause")).status == 403

    asyncio.run(run())


def test_what_is_not_there_or_runs_already_is_refused_in_words(tmp_path: Path) -> None:
    """404 that names the nearest, 409 while it runs, 400 for a bad body; nothing is begun by any."""

    async def run() -> None:
        slow = Slow()
        async with serving(tmp_path, slow.jobs) as t:
            api = await another(t, scopes=("jobs:write",))
            for method, path in (("GET", ""), ("GET", "/runs"), ("POST", "/run"), ("POST", "/pause")):
                gone = await api(method, f"/jobs/slo{path}")
                assert (gone.status, gone.code) == (404, "not_found")
                assert gone.said["detail"] == "There is no job 'slo'; did you mean slow."
            assert (await api("POST", "/jobs/slow/run", {"dry": 1})).status == 400
            assert await t.count(scheduler_tables.runs) == 0
            began = (await api("POST", "/jobs/slow/run")).said
            again = await api("POST", "/jobs/slow/run", once="a")
            assert (again.status, again.code) == (409, "job_already_running") and began["id"] in again.said["detail"]
            assert (await api("GET", "/jobs")).said["data"][0]["state"] == "running"
            slow.go_on.set()
            await t.app.scheduler.wait(began["id"])
            assert (await api("POST", "/jobs/slow/run", once="a")).status == 202, "the refusal took no key"

    asyncio.run(run())


def test_a_stop_gives_a_running_job_back_and_the_next_start_goes_on(tmp_path: Path) -> None:
    """The clock runs in a service alone; what a stop interrupts is taken up at once, from what it kept."""

    async def run() -> None:
        slow = Slow()
        app = build(settings_of(tmp_path), jobs=slow.jobs)
        await app.open()
        await asyncio.sleep(0)
        assert await app.db.read(lambda tx: tx.execute(select(scheduler_tables.jobs)).all()) == []
        await app.close()
        first = build(settings_of(tmp_path), jobs=slow.jobs)
        await first.start()
        due_ms = first.clock() + MINUTE_MS
        passing = asyncio.create_task(first.scheduler.run_due(due_ms))
        await slow.going.wait()
        await first.stop(grace_ms=0)
        await asyncio.gather(passing, return_exceptions=True)
        slow.go_on.set()
        second = build(settings_of(tmp_path), jobs=slow.jobs)
        await second.start()
        try:
            await eventually(lambda: len(slow.seen) == 2)
            await second.scheduler.stop(2_000)
            (row,) = await second.db.read(lambda tx: tx.execute(select(scheduler_tables.runs)).all())
            assert slow.seen == ["", "half"]
            assert (row.state, row.counters, row.deaths) == ("done", '{"done":2}', 0)
        finally:
            await second.stop()

    asyncio.run(run())


def test_every_job_runs_and_writes_nothing_when_it_is_dry(tmp_path: Path) -> None:
    """All of them, on an empty house: done, and after a dry run nothing but its own row is there."""

    async def run() -> None:
        app = build(settings_of(tmp_path, **ALL))
        await app.open()
        try:
            for dry_run in (True, False):
                for job in every_job(app):
                    before = await app.db.read(_counted)
                    began = await app.scheduler.run_now(job.name, "test", dry_run)
                    ended = await app.scheduler.wait(began.id)
                    assert ended is not None and ended.state == "done", ended
                    if dry_run:
                        assert await app.db.read(_counted) == before
        finally:
            await app.close()

    asyncio.run(run())


def _counted(tx: Connection) -> dict[str, int]:
    """How many rows each table has, but for the scheduler's own."""
    tables = [table for table in metadata.sorted_tables if table not in (*scheduler_tables,)]
    return {one.name: tx.execute(select(func.count()).select_from(one)).scalar_one() for one in tables}


def test_the_command_line_without_a_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It opens the database itself, starts no clock, waits for the end; 1 for what is unknown, with a sentence."""
    monkeypatch.chdir(tmp_path)

    def jobs(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(caisse, ["jobs", *arguments])
        return done.exit_code, done.output + (str(done.exception) if done.exception else "")

    status, said = jobs("list", "--json")
    assert status == 0
    assert [one["last_run_at"] for one in json.loads(said)] == [None] * len(json.loads(said))
    assert jobs("run", "release-escrow", "--dry-run")[0] == 0
    status, said = jobs("run", "expire-stale-orders", "--json")
    assert (status, json.loads(said)["counters"]["orders"]) == (0, 0)
    assert jobs("pause", "reconcile")[0] == 0
    status, said = jobs("list")
    assert status == 0
    assert "*/5 * * * *" in said and "paused" in said and "nothing" in said
    status, said = jobs("runs", "release-escrow")
    assert status == 0 and "cli" in said
    assert jobs("show", "release-escrow")[0] == 0
    status, said = jobs("run", "release-escrows")
    assert status == 1 and "did you mean release-escrow." in said
