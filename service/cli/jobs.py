"""`caisse jobs …`"""

from __future__ import annotations

import sys

import click

from service.cli import show
from service.cli.run import run

_JOBS = ("name", "schedule", "zone", "state", "last_run_at", "last_result", "counters", "last_success_at",
         "next_run_at")  # fmt: skip
_RUNS = ("id", "state", "due_at", "began_at", "seconds", "counters", "missed", "dry_run", "by", "error")


@click.group()
def jobs() -> None:
    """What the clock does by itself: list, show, runs, run, pause, resume."""


@jobs.command("list")
@show.as_json
def list_(json_: bool) -> None:
    """Every job: its schedule, its last run, its next."""
    show.rows(run("jobs.list"), json_, _JOBS, "There is no job.")


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
    show.rows(run("jobs.runs", job=job, limit=limit, before=before), json_, _RUNS, "It has never run.")


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
        show.rows(last, False, _RUNS, "")
