"""The tables: how far each job has come, and each of its runs."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Index, Integer, MetaData, Table, Text, text

ERROR_MAX = 500

RUNNING = "state = 'running'"
"""The condition of a partial index. A query that repeats it word by word is sure to use it."""


class Tables(NamedTuple):
    jobs: Table
    runs: Table


def define(metadata: MetaData) -> Tables:
    """
    Adds `jobs` and `job_runs` to the metadata. All times are integer ms UTC.

    Two unique indexes elect: a due time of a job has one row, whoever finds it; and a job has one running row.
    """
    jobs = Table(
        "jobs",
        metadata,
        Column("name", Text, primary_key=True),
        Column("since_ms", BigInteger, nullable=False),  # when it was first known
        # All that was due up to here was run or skipped, and never is again. At first `since_ms`; goes back only from
        # a far future, where the clock was by mistake.
        Column("last_due_at_ms", BigInteger, nullable=False),
        Column("last_done_at_ms", BigInteger),  # when a run last ended well; outlives the run's row
        Column("paused_at_ms", BigInteger),
        Column("paused_by", Text),
        CheckConstraint("name <> ''", name="job_named"),
        CheckConstraint("last_due_at_ms >= since_ms", name="job_times"),
        CheckConstraint("(paused_at_ms IS NULL) = (paused_by IS NULL)", name="job_paused"),
        sqlite_with_rowid=False,
    )
    runs = Table(
        "job_runs",
        metadata,
        Column("id", Text, primary_key=True),
        Column("job", Text, ForeignKey("jobs.name"), nullable=False),
        Column("due_at_ms", BigInteger, nullable=False),  # of a run by hand: when it was asked for
        Column("from_ms", BigInteger, nullable=False),  # it answers for what was after this, until it was due
        Column("state", Text, nullable=False),
        Column("begun_at_ms", BigInteger, nullable=False),  # the last time, if it was taken over
        Column("ended_at_ms", BigInteger),
        Column("lease_until_ms", BigInteger, nullable=False, server_default="0"),  # 0 while running: given back
        Column("fence", BigInteger, nullable=False, server_default="1"),  # never goes back
        Column("deaths", Integer, nullable=False, server_default="0"),  # how often its lease ran out
        Column("missed", Integer, nullable=False, server_default="0"),  # due times before it that it answers for too
        Column("manual", Integer, nullable=False, server_default="0"),
        Column("dry_run", Integer, nullable=False, server_default="0"),
        Column("actor", Text, nullable=False, server_default=""),  # who asked for it; '': the clock
        Column("process", Text, nullable=False, server_default=""),  # who runs it
        Column("counters", Text, nullable=False, server_default="{}"),  # JSON: what it found, by name
        Column("error", Text, nullable=False, server_default=""),
        Column("cursor", Text, nullable=False, server_default=""),  # how far a job got that cuts itself into pieces
        CheckConstraint("state IN ('running', 'done', 'failed', 'skipped', 'abandoned')", name="run_state"),
        CheckConstraint("(state = 'running') = (ended_at_ms IS NULL)", name="run_ended"),
        CheckConstraint("from_ms <= due_at_ms AND due_at_ms > 0", name="run_times"),
        CheckConstraint("fence >= 1 AND deaths >= 0 AND missed >= 0", name="run_numbers"),
        CheckConstraint("manual IN (0, 1) AND dry_run IN (0, 1)", name="run_flags"),
        CheckConstraint("manual = 1 OR dry_run = 0", name="run_dry_by_hand"),
        CheckConstraint(f"length(error) <= {ERROR_MAX}", name="run_error"),
    )
    r = runs.c
    _only_one("job_runs_due", "manual = 0", r.job, r.due_at_ms)
    _only_one("job_runs_running", RUNNING, r.job)
    Index("job_runs_history", r.job, r.due_at_ms, r.id)
    return Tables(jobs, runs)


def _only_one(name: str, where: str, *columns: Column[Any]) -> None:
    Index(name, *columns, unique=True, sqlite_where=text(where), postgresql_where=text(where))
