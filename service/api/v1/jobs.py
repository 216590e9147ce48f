"""
`/v1/jobs`: what the clock does, and doing it by hand.

Jobs act on the whole installation, every merchant's money with it, so their scopes are in no merchant's ordinary key:
`*` does not include them, and a key has them only when an operator names them when it is made.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from service.api.v1.kit import Call, Resource
from service.api.v1.lists import PageQuery, page
from service.commands import jobs as commands

JOBS = Resource("jobs")
READ, WRITE = "jobs:read", "jobs:write"


class Job(msgspec.Struct):
    """A scheduled job; `counters` and `error` are those of its last run that ended. While paused it has no next run."""

    name: str
    sentence: str
    schedule: Annotated[str, Meta(description="A cron expression, in the time zone `zone`.")]
    zone: str
    state: Literal["waiting", "running", "paused"]
    last_run_at: str | None
    last_result: str | None
    counters: dict[str, int]
    error: str | None
    last_success_at: str | None
    next_run_at: str | None
    paused_at: str | None
    paused_by: str | None


class Jobs(msgspec.Struct):
    """All of them."""

    data: list[Job]


class JobRun(msgspec.Struct):
    """One run. `missed`: due times before its own that it answers for too; `by`: who asked for it, or `clock`."""

    id: str
    job: str
    state: Literal["running", "done", "failed", "skipped", "abandoned"]
    due_at: str
    began_at: str
    ended_at: str | None
    seconds: float | None
    counters: dict[str, int]
    error: str | None
    missed: int
    manual: bool
    dry_run: bool
    by: str


class JobRuns(msgspec.Struct):
    """A page; `next` goes into the next request's `after`."""

    data: list[JobRun]
    next: str
    more: bool


class RunsQuery(PageQuery, kw_only=True):
    """How many."""


class NewRun(msgspec.Struct, forbid_unknown_fields=True):
    """How it is run."""

    dry_run: Annotated[bool, Meta(description="Change nothing; count what it would find.")] = False


@JOBS.get("/jobs", READ, Jobs)
async def list_jobs(call: Call) -> Any:
    """Every scheduled job, with its last run and its next.

    The scope is not part of `*`: jobs act on the whole installation, so a key has it only where it was named.
    """
    return {"data": await commands.listed(call.app)}


@JOBS.get("/jobs/{job}", READ, Job)
async def get_job(call: Call, job: str) -> Any:
    """One job."""
    return _job(await commands.show(call.app, job=job))


@JOBS.get("/jobs/{job}/runs", READ, JobRuns)
async def list_job_runs(call: Call, job: str, query: RunsQuery) -> Any:
    """The runs of a job, the newest first; the last fifty are always kept."""
    await commands.show(call.app, job=job)

    def look(tx: Connection) -> dict[str, Any]:
        def fetch(before: str, limit: int) -> list[dict[str, Any]]:
            found = call.app.scheduler.history(tx, job, limit, before or None)
            return [commands.run_shown(one) for one in found]

        return page(query, fetch)

    return await call.read(look)


@JOBS.post("/jobs/{job}/run", WRITE, JobRun, status=202)
async def run_job(call: Call, job: str, body: NewRun) -> Any:
    """Begin a run now, of a paused job too; how it ends stands in the list of its runs."""
    await call.once.mark(job)
    return await commands.begin(call.app, job=job, dry_run=body.dry_run, actor=call.actor)


@JOBS.post("/jobs/{job}/pause", WRITE, Job)
async def pause_job(call: Call, job: str) -> Any:
    """Let the clock begin it no more. What runs goes on; again changes nothing."""
    await call.once.mark(job)
    return _job(await commands.pause(call.app, job=job, actor=call.actor))


@JOBS.post("/jobs/{job}/resume", WRITE, Job)
async def resume_job(call: Call, job: str) -> Any:
    """Let the clock begin it again. What was due meanwhile is skipped; again changes nothing."""
    await call.once.mark(job)
    return _job(await commands.resume(call.app, job=job, actor=call.actor))


def _job(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "runs"}
