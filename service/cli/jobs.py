"""`caisse jobs …`"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import click

from service.cli import show
from service.cli.run import run, settings

_JOBS = ("name", "schedule", "state", "last_run", "found", "next_run")
_RUNS = ("id", "state", "began", "seconds", "found", "by")
_ERROR_MAX = 60


@click.group()
def jobs() -> None:
    """What the clock does by itself: list, show, runs, run, pause, resume."""


@jobs.command("list")
@show.as_json
def list_(json_: bool) -> None:
    """Every job: its schedule, its last run, its next."""
    line = partial(_job, settings().timezone)
    whole = ("name", "schedule", "state", "last_run", "next_run")
    show.rows(run("jobs.list"), json_, _JOBS, "There is no job.", line, whole=whole)


@jobs.command("show")
@click.argument("job")
@show.as_json
def show_(job: str, json_: bool) -> None:
    """One job, and its last runs."""
    _show(run("jobs.show", job=job), json_)


@jobs.command()
@click.argument("job")
@click.option("--before", help="Only those older than the run with this id.")
@show.limited
@show.as_json
def runs(job: str, before: str | None, limit: int, json_: bool) -> None:
    """The runs of a job, the newest first."""
    _rows(run("jobs.runs", job=job, limit=limit, before=before), json_, "It has never run.")


@jobs.command("run")
@click.argument("job")
@click.option("--dry-run", is_flag=True, help="Change nothing; count what it would find.")
@show.as_json
def run_(job: str, dry_run: bool, json_: bool) -> None:
    """Run a job now, also a paused one, and wait for its end. Exit status 1: it failed.

    Without a running service too; what it promises is then done when one runs.
    """
    ended = run("jobs.run", progress_of=job, job=job, dry_run=dry_run)
    show.fields(ended, json_)
    if ended["state"] != "done":
        click.echo(f"caisse: The job {job} did not end well: {ended['error'] or ended['state']}", err=True)
        sys.exit(1)


@jobs.command()
@click.argument("job")
@show.as_json
def pause(job: str, json_: bool) -> None:
    """Let the clock begin it no more."""
    _show(run("jobs.pause", job=job), json_)


@jobs.command()
@click.argument("job")
@show.as_json
def resume(job: str, json_: bool) -> None:
    """Let the clock begin it again; what was due meanwhile is skipped."""
    _show(run("jobs.resume", job=job), json_)


def _show(found: dict[str, object], json_: bool) -> None:
    show.fields(found, json_, leave_out=("runs",))
    last = found["runs"]
    if not json_ and isinstance(last, list) and last:
        click.echo()
        _rows(last, False, "")


def _rows(runs_: list[dict[str, Any]], json_: bool, nothing: str) -> None:
    line = partial(_run, settings().timezone)
    show.rows(runs_, json_, _RUNS, nothing, line, right=("seconds",), whole=("state", "began"))


def _job(zone: str, job: dict[str, Any]) -> dict[str, str]:
    """A job in a list; the rest is in `caisse jobs show`."""
    return {
        "name": job["name"],
        "schedule": job["schedule"],
        "state": job["state"],
        "last_run": show.when(job["last_run_at"], zone),
        "found": _found(job["last_result"], job["counters"], job["error"]),
        "next_run": show.when(job["next_run_at"], zone),
    }


def _run(zone: str, one: dict[str, Any]) -> dict[str, Any]:
    """A run in a list."""
    missed = f", {one['missed']} missed before" if one["missed"] else ""
    return {
        **one,
        "state": f"{one['state']}, dry" if one["dry_run"] else one["state"],
        "began": show.when(one["began_at"], zone),
        "found": _found(one["state"], one["counters"], one["error"]) + missed,
    }


def _found(result: str | None, counters: dict[str, int], error: str | None) -> str:
    """What a run came to, in words: 1 released; nothing; or why it failed."""
    if result is None or result == "running":
        return ""
    if result != "done":
        said = f"{result}: {error}" if error else result
        return said if len(said) <= _ERROR_MAX else f"{said[:_ERROR_MAX]}…"
    counts = (f"{count:,} {name}".replace(",", " ").replace("_", " ") for name, count in counters.items() if count)
    return ", ".join(counts) or "nothing"
