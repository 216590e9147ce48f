"""What metrics read of the jobs' tables, so that it is right after a restart too."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, select

from service.schema import scheduler_tables

Times = Mapping[str, tuple[int | None, int | None]]
"""By job: when its last run ended, and when one last ended well (ms)."""


def last_runs(tx: Connection) -> Times:
    """A query; dry runs, and what was skipped, are none. One probe of an index for each job."""
    j, r = scheduler_tables.jobs.c, scheduler_tables.runs.c
    ended = select(r.ended_at_ms).where(r.job == j.name, r.state.in_(("done", "failed", "abandoned")), r.dry_run == 0)
    last = ended.order_by(r.due_at_ms.desc(), r.id.desc()).limit(1).scalar_subquery()
    return {row[0]: (row[1], row[2]) for row in tx.execute(select(j.name, last, j.last_done_at_ms))}
