"""What runs of jobs came to, told to metrics, logs and, when it goes wrong again and again, to a person."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import structlog
from sqlalchemy import Connection, select

from scheduler import Ran
from service.attention import close_attention, open_attention
from service.database import Database, StorageError
from service.ids import Clock, Ids
from service.metrics import Metrics
from service.payments.tables import attention
from service.schema import scheduler_tables

FAILED: Final = "job_failed"
"""Why a job is before a person; the subject is its name."""
FAILURES: Final = 3
"""So many in a row: one alone may be a full disk, or a process that was killed."""

log: Any = structlog.get_logger()


class JobWatch:
    """The scheduler's hook: hears each run that ended, after its commit. `close` waits for what it still writes."""

    def __init__(self, db: Database, metrics: Metrics, ids: Ids, clock: Clock) -> None:
        self._db, self._metrics, self._ids, self._clock = db, metrics, ids, clock
        self._judging: set[asyncio.Task[None]] = set()

    def __call__(self, ran: Ran) -> None:
        """Count it, log it, and judge the job by its last runs."""
        self._metrics.job_ran(ran.job, ran.state, (ran.ended_at_ms - ran.begun_at_ms) / 1000)
        say = log.info if ran.state == "done" else log.warning
        fields = {"job": ran.job, "run_id": ran.run_id, "state": ran.state, "counters": dict(ran.counters)}
        say("job.ran", **fields, missed=ran.missed, manual=ran.manual, dry_run=ran.dry_run, error=_shown(ran.error))
        if not ran.dry_run and ran.state != "skipped":
            task = asyncio.create_task(self._judge(ran.job), name=f"judge:{ran.job}")
            self._judging.add(task)
            task.add_done_callback(self._judging.discard)

    async def close(self) -> None:
        """Until all that was heard is judged."""
        while self._judging:
            await asyncio.wait(self._judging)

    async def _judge(self, job: str) -> None:
        try:
            if await self._db.write(self._look, job):
                self._metrics.attention(FAILED)
                log.error("attention.opened", reason=FAILED, job=job)
        except StorageError as error:  # the next run's end judges again
            log.warning("job.not_judged", job=job, reason=type(error).__name__)

    def _look(self, tx: Connection, job: str) -> bool:
        """By the rows and not by what was heard: a process that died in between has lost nothing by it."""
        r = scheduler_tables.runs.c
        ended = r.job == job, r.state.in_(["done", "failed", "abandoned"]), r.dry_run == 0
        query = select(r.state, r.error).where(*ended).order_by(r.due_at_ms.desc(), r.id.desc()).limit(FAILURES)
        last = tx.execute(query).all()
        if any(row.state == "done" for row in last):
            if last[0].state == "done":
                close_attention(tx, job, FAILED, self._clock())
            return False
        a = attention.c
        there = select(a.id).where(a.subject == job, a.reason == FAILED, a.closed_at_ms.is_(None))
        if len(last) < FAILURES or tx.execute(there).first() is not None:
            return False
        open_attention(tx, self._ids, job, FAILED, _shown(last[0].error)[:300], self._clock())
        return True


def _shown(error: str) -> str:
    """Not the statement, nor what was bound to it."""
    return error.partition("[SQL")[0].strip()
