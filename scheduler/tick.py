"""What a job is handed: the span of time it answers for, and how it writes down how far it is."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from scheduler.job import Counters, Run
from scheduler.ports import Database
from scheduler.runs import Runs


class Tick:
    """
    One run, as its job sees it: what happened after `from_ms` and not after `until_ms` is its to answer for.

    `cursor` and `counters` are what was last kept, by whoever ran this before: '' and {} at first. A job with much to
    do goes on from `cursor`, and calls `keep_in` in the transaction of each piece. A `dry_run` looks, counts what it
    would do, and writes nothing.
    """

    def __init__(
        self, db: Database, runs: Runs, run: Run, now_ms: int, progress: Callable[[int, int | None], object]
    ) -> None:
        self.job = run.job
        self.run_id = run.id
        self.from_ms = run.from_ms
        self.until_ms = run.due_at_ms
        self.due_at_ms = run.due_at_ms
        self.now_ms = now_ms
        self.dry_run = run.dry_run
        self.manual = run.manual
        self.cursor = run.cursor
        self.counters = run.counters
        self._db = db
        self._runs = runs
        self._fence = run.fence
        self._progress = progress

    def progress(self, done: int, total: int | None) -> None:
        """Says how far it is, for whoever watches; a `total` that is not known is None. Nothing is written."""
        self._progress(done, total)

    def keep_in(self, tx: Connection, cursor: str, counters: Counters) -> None:
        """
        Writes down how far this run is, in the transaction of the piece that got it there: both or neither.

        Raises Lost if somebody has taken over this run; let it out of the work, so that the piece is undone.
        """
        self._runs.keep(tx, self.run_id, self._fence, cursor, counters)

    async def keep(self, cursor: str, counters: Counters) -> None:
        """The same, in a transaction of its own, and remembered in `cursor` and `counters`. Raises Lost."""
        await self._db.write(self.keep_in, cursor, counters)
        self.cursor, self.counters = cursor, dict(counters)
