"""
The SQL, all of it: plain functions over `tx` that begin, keep, end, list and forget runs.

A run is taken only by a row: the unique indexes of `tables.py` elect, and `fence` says whose the row still is.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, func, insert, select, text, tuple_, update

from scheduler.job import AlreadyRunning, Counters, Job, Lost, Run, State, written
from scheduler.schedule import Missed, Plan, plan
from scheduler.tables import ERROR_MAX, RUNNING, Tables

DEATHS_MAX = 3
"""A run whose process died so often is let go: it may be what kills it."""

FAR_MS = 86_400_000
"""What is known of a later time than this from now is no small correction: the clock was wrong when it was written."""

KEPT_RUNS = 50
ROWS_A_PIECE = 500
HISTORY_MAX = 500


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a job has come, and the run that is not ended, if there is one."""

    name: str
    since_ms: int
    last_due_at_ms: int
    last_done_at_ms: int | None
    paused_at_ms: int | None
    paused_by: str | None
    running: Run | None


def is_astray(one: Standing, job: Job, now_ms: int) -> bool:
    """Whether a job waits for a future in which the clock was by mistake: its last due time, or its running lease."""
    lease_until_ms = one.running.lease_until_ms if one.running is not None else 0
    return one.last_due_at_ms > now_ms + FAR_MS or lease_until_ms > now_ms + job.lease_ms + FAR_MS


class Begun(NamedTuple):
    """`run` is the caller's to run now; `ended` are runs that the world is to be told of."""

    run: Run | None = None
    ended: tuple[Run, ...] = ()


class Runs:
    """The rows of both tables. No method commits; each may be run again."""

    def __init__(self, tables: Tables) -> None:
        self._jobs, self._runs = tables

    # --- what stands ------------------------------------------------------------------------------

    def register(self, tx: Connection, names: frozenset[str], now_ms: int) -> tuple[Run, ...]:
        """
        Makes known the jobs that are new: nothing that was due before now is theirs to run. Returns the runs that were
        abandoned: their process died, and their job is gone from the code.
        """
        known = set(tx.execute(select(self._jobs.c.name)).scalars())
        if new := sorted(names - known):
            rows = [{"name": name, "since_ms": now_ms, "last_due_at_ms": now_ms} for name in new]
            tx.execute(insert(self._jobs), rows)
        left = [run for run in self._running(tx) if run.job not in names and run.lease_until_ms <= now_ms]
        return tuple(self._abandon(tx, run, now_ms, "Its process ended, and the job is gone.") for run in left)

    def standing(self, tx: Connection) -> dict[str, Standing]:
        """Every job that was ever known, by name."""
        running = {run.job: run for run in self._running(tx)}
        return {
            row.name: Standing(**row._mapping, running=running.get(row.name)) for row in tx.execute(select(self._jobs))
        }

    def last(self, tx: Connection, name: str, now_ms: int) -> Run | None:
        """The newest run of a job that was begun and has ended; none is a dry run, or one of a far future."""
        r = self._runs.c
        ended = select(self._runs).where(r.job == name, r.state.in_(["done", "failed", "abandoned"]), r.dry_run == 0)
        ended = ended.where(r.due_at_ms <= now_ms + FAR_MS)
        row = tx.execute(ended.order_by(r.due_at_ms.desc(), r.id.desc()).limit(1)).one_or_none()
        return None if row is None else _run(row)

    def history(self, tx: Connection, name: str, limit: int, before: str | None = None) -> list[Run]:
        """The runs of a job, newest first, at most HISTORY_MAX; `before`: only those older than this run."""
        r = self._runs.c
        listed = select(self._runs).where(r.job == name)
        if before is not None:
            listed = listed.where(
                tuple_(r.due_at_ms, r.id) < select(r.due_at_ms, r.id).where(r.id == before).scalar_subquery()
            )
        listed = listed.order_by(r.due_at_ms.desc(), r.id.desc()).limit(min(limit, HISTORY_MAX))
        return [_run(row) for row in tx.execute(listed)]

    def get(self, tx: Connection, run_id: str) -> Run | None:
        """One run."""
        row = tx.execute(select(self._runs).where(self._runs.c.id == run_id)).one_or_none()
        return None if row is None else _run(row)

    # --- beginning --------------------------------------------------------------------------------

    def bring_back(self, tx: Connection, job: Job, now_ms: int) -> bool:
        """
        Lets a job that is astray go on from now: the clock was far ahead, and is put right. False: it is not astray.

        Its lease counts as over. What has a row that may be of the real time, as late as FAR_MS from now, stays
        accounted for.
        """
        one = self._one(tx, job.name)
        if not is_astray(one, job, now_ms):
            return False
        if one.last_due_at_ms > now_ms + FAR_MS:
            seen_ms = max(now_ms, self._newest(tx, job.name, 0, now_ms + FAR_MS) or 0)
            values = {"last_due_at_ms": seen_ms, "since_ms": min(one.since_ms, seen_ms)}
            tx.execute(update(self._jobs).where(self._jobs.c.name == job.name).values(values))
        left = one.running
        if left is not None and left.lease_until_ms > now_ms + job.lease_ms + FAR_MS:
            self._fenced(tx, left.id, left.fence, {"lease_until_ms": now_ms})
        return True

    def begin(
        self, tx: Connection, job: Job, due: Plan | None, ids: tuple[str, str], process: str, now_ms: int
    ) -> Begun:
        """
        Begins what the clock says: takes up a run whose process died, or accounts for what is due and makes its row.

        Begins nothing if the job is paused or running, or if somebody else has accounted for it since it was planned.
        """
        standing = self._one(tx, job.name)
        left = standing.running
        if standing.paused_at_ms is not None or (left is not None and left.lease_until_ms > now_ms):
            return Begun()
        ended: tuple[Run, ...] = ()
        if left is not None:
            given_back = left.lease_until_ms == 0
            deaths = left.deaths + (not given_back)
            too_late = now_ms - left.due_at_ms > job.catch_up_ms + job.lease_ms
            too_early = left.due_at_ms > now_ms + FAR_MS
            if not (left.manual or too_late or too_early or deaths >= DEATHS_MAX):
                run = replace(
                    left,
                    begun_at_ms=now_ms,
                    lease_until_ms=now_ms + job.lease_ms,
                    fence=left.fence + 1,
                    deaths=deaths,
                    process=process,
                )
                self._change(tx, left, run)
                died = replace(left, state="abandoned", ended_at_ms=now_ms, error=_DIED)
                return Begun(run, () if given_back else (died,))
            ended = (self._abandon(tx, left, now_ms, _DIED),)
        if due is not None and (there_ms := self._newest(tx, job.name, due.seen_ms, due.newest_ms)) is not None:
            # It was run before the clock went far back, or while it was far ahead: that was its once.
            if not self._account(tx, job.name, due.seen_ms, there_ms):
                return Begun(None, ended)
            due = plan(job.schedule, there_ms, now_ms, job.catch_up_ms)
        if due is None or not self._account(tx, job.name, due.seen_ms, due.newest_ms):
            return Begun(None, ended)
        if due.skipped is not None:
            why = f"Missed by more than its catch-up window of {job.catch_up_ms // 1000} s."
            ended += (self._skip(tx, job.name, due.skipped, ids[1], "", why, now_ms),)
        if due.due_at_ms is None:
            return Begun(None, ended)
        run = _fresh(ids[0], job, due.due_at_ms, due.from_ms, now_ms, process, missed=due.missed)
        self._insert(tx, run)
        return Begun(run, ended)

    def begin_by_hand(
        self, tx: Connection, job: Job, run_id: str, by: str, dry_run: bool, process: str, now_ms: int
    ) -> Begun:
        """
        Begins a run that a person asked for, paused or not. Raises AlreadyRunning.

        It takes the place of a run whose process died; a dry run takes nobody's.
        """
        standing = self._one(tx, job.name)
        left = standing.running
        ended: tuple[Run, ...] = ()
        if left is not None:
            if left.lease_until_ms > now_ms:
                raise AlreadyRunning(f"The job {job.name!r} is running already, as {left.id}; it ends or is stopped.")
            if dry_run and not left.manual:
                raise AlreadyRunning(
                    f"The job {job.name!r} was interrupted, as {left.id}, and is about to be taken up."
                )
            ended = (self._abandon(tx, left, now_ms, _DIED),)
        from_ms = min(standing.last_due_at_ms, now_ms)
        run = _fresh(run_id, job, now_ms, from_ms, now_ms, process, manual=True, dry_run=dry_run, actor=by)
        self._insert(tx, run)
        return Begun(run, ended)

    # --- while it runs, and its end ---------------------------------------------------------------

    def keep(self, tx: Connection, run_id: str, fence: int, cursor: str, counters: Counters) -> None:
        """How far it is. Raises Lost if the fence does not hold any more."""
        if not self._fenced(tx, run_id, fence, {"cursor": cursor, "counters": written(counters)}):
            raise Lost(run_id)

    def settle(self, tx: Connection, run: Run) -> Run | None:
        """
        Ends a run as `run` says, and returns its row; None if it is somebody else's by now, and then nothing changes.

        The counters of a run that did not end well are those it kept. Settling it twice is settling it once.
        """
        values = {"state": run.state, "ended_at_ms": run.ended_at_ms, "error": run.error}
        if run.state == "done":
            values["counters"] = written(run.counters)
        if not self._fenced(tx, run.id, run.fence, values):
            there = self.get(tx, run.id)
            return there if there is not None and there.fence == run.fence else None
        if run.state == "done" and not run.dry_run:
            tx.execute(update(self._jobs).where(self._jobs.c.name == run.job).values(last_done_at_ms=run.ended_at_ms))
        return self.get(tx, run.id)

    def give_back(self, tx: Connection, run: Run) -> None:
        """Its process stops: whoever comes next may take it up at once, and it is no death."""
        self._fenced(tx, run.id, run.fence, {"lease_until_ms": 0})

    # --- pausing ----------------------------------------------------------------------------------

    def pause(self, tx: Connection, name: str, by: str, now_ms: int) -> bool:
        """The clock begins no more of it; what runs goes on. False: it was paused already."""
        j = self._jobs.c
        paused = update(self._jobs).where(j.name == name, j.paused_at_ms.is_(None))
        return tx.execute(paused.values(paused_at_ms=now_ms, paused_by=by)).rowcount == 1

    def resume(
        self, tx: Connection, name: str, by: str, seen_ms: int, missed: Missed | None, run_id: str, now_ms: int
    ) -> tuple[bool, tuple[Run, ...]]:
        """
        The clock begins it again, from now on: what was due meanwhile is `missed`, and becomes one skipped run.

        False: it was not paused. `seen_ms`: the last due time accounted for when `missed` was found.
        """
        j = self._jobs.c
        standing = self._one(tx, name)
        if standing.paused_at_ms is None:
            return False, ()
        tx.execute(update(self._jobs).where(j.name == name).values(paused_at_ms=None, paused_by=None))
        if missed is None or not self._account(tx, name, seen_ms, missed.due_at_ms):
            return True, ()
        return True, (self._skip(tx, name, missed, run_id, by, "It was paused.", now_ms),)

    # --- forgetting -------------------------------------------------------------------------------

    def prune(self, tx: Connection, before_ms: int) -> int:
        """
        Deletes at most ROWS_A_PIECE runs that ended before a time, but none of the last KEPT_RUNS of each job. Returns
        how many: call it again until there are none.
        """
        r = self._runs.c
        gone = 0
        for name in tx.execute(select(self._jobs.c.name)).scalars().all():
            newest = select(r.due_at_ms, r.id).where(r.job == name).order_by(r.due_at_ms.desc(), r.id.desc())
            last = tx.execute(newest.offset(KEPT_RUNS - 1).limit(1)).one_or_none()
            if last is None:
                continue
            older = select(r.id).where(
                r.job == name, tuple_(r.due_at_ms, r.id) < tuple_(last.due_at_ms, last.id), r.ended_at_ms < before_ms
            )
            old = tx.execute(older.order_by(r.due_at_ms, r.id).limit(ROWS_A_PIECE - gone)).scalars().all()
            if old:
                gone += tx.execute(delete(self._runs).where(r.id.in_(old))).rowcount
            if gone >= ROWS_A_PIECE:
                break
        return gone

    # --- rows -------------------------------------------------------------------------------------

    def _one(self, tx: Connection, name: str) -> Standing:
        row = tx.execute(select(self._jobs).where(self._jobs.c.name == name).with_for_update()).one()
        running = self._running(tx, name)
        return Standing(**row._mapping, running=running[0] if running else None)

    def _running(self, tx: Connection, name: str | None = None) -> list[Run]:
        r = self._runs.c
        found = select(self._runs).where(text(RUNNING))
        return [_run(row) for row in tx.execute(found if name is None else found.where(r.job == name))]

    def _newest(self, tx: Connection, name: str, after_ms: int, until_ms: int) -> int | None:
        """The last due time (ms) of a span that has its row: it was run, or skipped, and is not again."""
        r = self._runs.c
        span = (r.job == name, r.manual == 0, r.due_at_ms > after_ms, r.due_at_ms <= until_ms)
        return tx.execute(select(func.max(r.due_at_ms)).where(*span)).scalar()

    def _account(self, tx: Connection, name: str, seen_ms: int, newest_ms: int) -> bool:
        """Whether it is the caller who accounts for what was due since `seen_ms`: it can be done once."""
        j = self._jobs.c
        onward = update(self._jobs).where(j.name == name, j.last_due_at_ms == seen_ms)
        return tx.execute(onward.values(last_due_at_ms=newest_ms)).rowcount == 1

    def _skip(self, tx: Connection, name: str, missed: Missed, run_id: str, by: str, why: str, now_ms: int) -> Run:
        run = Run(
            id=run_id,
            job=name,
            due_at_ms=missed.due_at_ms,
            from_ms=missed.from_ms,
            state="skipped",
            begun_at_ms=now_ms,
            ended_at_ms=now_ms,
            lease_until_ms=0,
            fence=1,
            deaths=0,
            missed=missed.times,
            manual=False,
            dry_run=False,
            actor=by,
            process="",
            counters={},
            error=why,
            cursor="",
        )
        self._insert(tx, run)
        return run

    def _abandon(self, tx: Connection, run: Run, now_ms: int, why: str) -> Run:
        """Nobody takes it up. The fence rises, so that who sleeps through this settles nothing."""
        over = replace(ended(run, "abandoned", now_ms, run.counters, why), fence=run.fence + 1)
        self._change(tx, run, over)
        return over

    def _insert(self, tx: Connection, run: Run) -> None:
        tx.execute(insert(self._runs), _row(run))

    def _change(self, tx: Connection, old: Run, new: Run) -> None:
        if not self._fenced(tx, old.id, old.fence, _row(new)):
            raise Lost(old.id)

    def _fenced(self, tx: Connection, run_id: str, fence: int, values: dict[str, Any]) -> bool:
        r = self._runs.c
        mine = update(self._runs).where(r.id == run_id, r.fence == fence, r.state == "running")
        return tx.execute(mine.values(**values)).rowcount == 1


_DIED = "Its process died or stopped before the end."


def _fresh(
    id_: str,
    job: Job,
    due_at_ms: int,
    from_ms: int,
    now_ms: int,
    process: str,
    *,
    missed: int = 0,
    manual: bool = False,
    dry_run: bool = False,
    actor: str = "",
) -> Run:
    return Run(
        id=id_,
        job=job.name,
        due_at_ms=due_at_ms,
        from_ms=from_ms,
        state="running",
        begun_at_ms=now_ms,
        ended_at_ms=None,
        lease_until_ms=now_ms + job.lease_ms,
        fence=1,
        deaths=0,
        missed=missed,
        manual=manual,
        dry_run=dry_run,
        actor=actor,
        process=process,
        counters={},
        error="",
        cursor="",
    )


def ended(run: Run, state: State, at_ms: int, counters: Counters, error: str = "") -> Run:
    """The same run at its end; a clock that went back makes it no shorter than nothing."""
    at_ms = max(at_ms, run.begun_at_ms)
    return replace(run, state=state, ended_at_ms=at_ms, counters=dict(counters), error=error[:ERROR_MAX])


def _row(run: Run) -> dict[str, Any]:
    flags = {"manual": int(run.manual), "dry_run": int(run.dry_run), "counters": written(run.counters)}
    return asdict(run) | flags


def _run(row: Any) -> Run:
    values = dict(row._mapping)
    flags = {"manual": bool(values["manual"]), "dry_run": bool(values["dry_run"])}
    return Run(**values | flags | {"counters": json.loads(values["counters"])})
