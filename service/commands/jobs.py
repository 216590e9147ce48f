"""jobs list | show | runs | run | pause | resume: what the clock does, and doing it by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from scheduler import Overview, Run, SchedulerRefusal, UnknownJob
from service.commands.shape import LIMIT, bounded, by
from service.errors import Refusal
from service.merchants.events import rfc3339

if TYPE_CHECKING:
    from service.application import Application

Progress = Callable[[int, int | None], None]

LOOK_S: Final = 0.2
"""How often whoever waits for a run is told how far it is."""


async def listed(app: Application) -> list[dict[str, Any]]:
    """Every job: when it runs, what its last run came to, when it runs next."""
    return [_job(one) for one in await app.db.read(app.scheduler.overview, app.clock())]


async def show(app: Application, *, job: str) -> dict[str, Any]:
    """One job, and its last runs."""
    with _refusals():
        last = await app.db.read(app.scheduler.history, job, 10)
    found = next(one for one in await app.db.read(app.scheduler.overview, app.clock()) if one.name == job)
    return {**_job(found), "runs": [run_shown(one) for one in last]}


async def runs(app: Application, *, job: str, limit: int = LIMIT, before: str | None = None) -> list[dict[str, Any]]:
    """The runs of a job, the newest first."""
    with _refusals():
        return [run_shown(one) for one in await app.db.read(app.scheduler.history, job, bounded(limit), before or None)]


async def begin(app: Application, *, job: str, dry_run: bool = False, actor: str = "cli") -> dict[str, Any]:
    """Begin a run by hand, and do not wait for its end."""
    with _refusals():
        began = await app.scheduler.run_now(job, actor, dry_run)
    hand = by(app, actor)
    await app.db.write(hand.write_down, "job.run", job, f"{began.id}, dry" if dry_run else began.id)
    return run_shown(began)


async def run(
    app: Application, *, job: str, dry_run: bool = False, actor: str = "cli", progress: Progress | None = None
) -> dict[str, Any]:
    """Run a job now, paused or not, and wait for its end; `dry_run` changes nothing and counts what it would find."""
    id_ = (await begin(app, job=job, dry_run=dry_run, actor=actor))["id"]
    ending = asyncio.create_task(app.scheduler.wait(id_))
    while not ending.done():
        await asyncio.wait([ending], timeout=LOOK_S)
        said = app.scheduler.progress.get(id_)
        if progress is not None and said is not None:
            progress(*said)
    ended = await ending
    assert ended is not None, "it has just begun here"
    return run_shown(ended)


async def pause(app: Application, *, job: str, actor: str = "cli") -> dict[str, Any]:
    """The clock begins this job no more; what runs goes on, and people still may run it. Again changes nothing."""
    with _refusals():
        if await app.scheduler.pause(job, actor):
            await app.db.write(by(app, actor).write_down, "job.paused", job)
    return await show(app, job=job)


async def resume(app: Application, *, job: str, actor: str = "cli") -> dict[str, Any]:
    """The clock begins this job again; what was due meanwhile is skipped. Again changes nothing."""
    with _refusals():
        if await app.scheduler.resume(job, actor):
            await app.db.write(by(app, actor).write_down, "job.resumed", job)
    return await show(app, job=job)


@contextmanager
def _refusals() -> Iterator[None]:
    """The scheduler's no in the words of the doors."""
    try:
        yield
    except UnknownJob as no:
        raise Refusal("not_found", no.sentence) from None  # as whatever else is not there
    except SchedulerRefusal as no:
        raise Refusal(no.code, no.sentence) from None


def _job(one: Overview) -> dict[str, Any]:
    last = one.last
    return {
        "name": one.name,
        "sentence": one.sentence,
        "schedule": one.expression,
        "zone": one.zone,
        "state": "running" if one.running else "paused" if one.paused_at_ms is not None else "waiting",
        "last_run_at": rfc3339(last.ended_at_ms) if last else None,
        "last_result": last.state if last else None,
        "counters": dict(last.counters) if last else {},
        "error": (last.error or None) if last else None,
        "last_success_at": rfc3339(one.last_done_at_ms),
        "next_run_at": rfc3339(one.next_due_at_ms),
        "paused_at": rfc3339(one.paused_at_ms),
        "paused_by": one.paused_by,
    }


def run_shown(one: Run) -> dict[str, Any]:
    """A run for people and programs."""
    ended_ms = one.ended_at_ms
    return {
        "id": one.id,
        "job": one.job,
        "state": one.state,
        "due_at": rfc3339(one.due_at_ms),
        "began_at": rfc3339(one.begun_at_ms),
        "ended_at": rfc3339(ended_ms),
        "seconds": None if ended_ms is None else (ended_ms - one.begun_at_ms) / 1000,
        "counters": dict(one.counters),
        "error": one.error.partition("[SQL")[0].strip() or None,
        "missed": one.missed,
        "manual": one.manual,
        "dry_run": one.dry_run,
        "by": one.actor or "clock",
    }
