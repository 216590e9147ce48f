"""
The scheduler: begins what is due, runs it under its limit, writes down how it ended. The database elects.

If the process dies anywhere, the lease of what it ran is over some time, and the next pass of anybody takes it up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection

from scheduler.job import Counters, Job, Lost, Ran, Run, Stopping, unknown, written
from scheduler.ports import Database
from scheduler.runs import Begun, Runs, Standing, ended, is_astray
from scheduler.schedule import missed, plan
from scheduler.tables import Tables
from scheduler.tick import Tick

SWEEP_MS = 30_000
"""The longest sleep: a clock that jumped is noticed after this."""

QUIET_MS = 120_000
"""After a start, what waits for it: providers' callbacks that came meanwhile are first read, then things expire."""

PAUSE_MS = 1_000
"""After a failed write. Long enough not to hammer a full disk, short against any lease."""

Ending = Literal["done", "failed"]

_LAST_SETTLE_S = 2.0

_log = logging.getLogger("scheduler")


@dataclass(frozen=True, slots=True)
class Overview:
    """How one job stands. `last`: its newest run that was begun and has ended; `next_due_at_ms`: None while paused."""

    name: str
    sentence: str
    expression: str
    zone: str
    since_ms: int
    last_due_at_ms: int
    last_done_at_ms: int | None
    next_due_at_ms: int | None
    paused_at_ms: int | None
    paused_by: str | None
    running: Run | None
    last: Run | None


class Scheduler:
    """
    Runs jobs when they are due. `start()` begins, `nudge()` makes it look at once, `stop()` ends; `run_due(now_ms)`
    does one pass for tests and needs no real time.

    `clock` gives ms; `ids(prefix)` gives the ids of runs; `process` names this process in the rows of its runs. `hook`
    hears every `Ran` on the event loop, after the commit, and must be quick.
    """

    def __init__(
        self,
        db: Database,
        tables: Tables,
        jobs: Iterable[Job],
        clock: Callable[[], int],
        ids: Callable[[str], str],
        hook: Callable[[Ran], object] = lambda _: None,
        process: str = "",
        quiet_ms: int = QUIET_MS,
        pause_ms: int = PAUSE_MS,
    ) -> None:
        self._db = db
        self._runs = Runs(tables)
        self._jobs: dict[str, Job] = {}
        for job in jobs:
            if job.name in self._jobs:
                raise ValueError(f"The job {job.name!r} is there twice.")
            self._jobs[job.name] = job
        self._clock = clock
        self._ids = ids
        self._hook = hook
        self._process = process
        self._quiet_ms = quiet_ms
        self._quiet_until_ms = clock() + quiet_ms
        self._pause_s = pause_ms / 1000
        self._registered = False
        self._failed = False
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._live: dict[str, asyncio.Task[Ran | None]] = {}
        self._progress: dict[str, tuple[int, int | None]] = {}

    @property
    def progress(self) -> dict[str, tuple[int, int | None]]:
        """By run id, of what runs here: how much is done, of how much (None: not known), as its job last said."""
        return dict(self._progress)

    # --- its life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins, on the running event loop, with whatever is due."""
        self._loop = asyncio.create_task(self._run_for_ever(), name="scheduler")

    def nudge(self) -> None:
        """Look at once: something changed."""
        self._wake.set()

    async def stop(self, grace_ms: int) -> None:
        """
        Begins no more, and lets what runs end for up to `grace_ms`. What does not is cancelled and given back: the next
        process takes it up at once, from what it kept.
        """
        self._stopping.set()
        self.nudge()
        if self._loop is not None:
            _, late = await asyncio.wait([self._loop], timeout=grace_ms / 1000 + _LAST_SETTLE_S)
            for loop in late:  # the storage does not answer; what it may have begun is left to its lease
                loop.cancel()
            self._loop = None
        if live := list(self._live.values()):
            _, unended = await asyncio.wait(live, timeout=grace_ms / 1000)
            for task in unended:
                task.cancel()
            if unended:
                await asyncio.wait(unended, timeout=_LAST_SETTLE_S)

    async def run_due(self, now_ms: int) -> list[Ran]:
        """One pass: begins all that is due at a time (ms), runs it to the end. Returns the runs that ended here."""
        tasks = await self._begin_due(now_ms)
        return [ran for ran in await asyncio.gather(*tasks) if ran is not None]

    # --- what people do ---------------------------------------------------------------------------

    async def run_now(self, name: str, by: str, dry_run: bool = False) -> Run:
        """
        Begins a run by hand, also of a paused job, and returns its row; `wait(id)` returns when it has ended.

        Raises UnknownJob, AlreadyRunning, Stopping.
        """
        job = self._job(name)
        if self._stopping.is_set():
            raise Stopping("The scheduler is stopping; the job was not begun.")
        await self._register()
        now_ms = self._clock()
        await self._standing(now_ms)
        args = (job, self._ids("run"), by, dry_run, self._process, now_ms)
        begun = await self._db.write(self._runs.begin_by_hand, *args)
        self._launch(job, begun)
        assert begun.run is not None
        return begun.run

    async def wait(self, run_id: str) -> Run | None:
        """Waits for the end of a run of this process, and returns its row; None if there is none with this id."""
        if (task := self._live.get(run_id)) is not None:
            await asyncio.wait([task])
        return await self._db.read(self._runs.get, run_id)

    async def pause(self, name: str, by: str) -> bool:
        """The clock begins no more of this job; what runs goes on. False: it was paused. Raises UnknownJob."""
        self._job(name)
        await self._register()
        return await self._db.write(self._runs.pause, name, by, self._clock())

    async def resume(self, name: str, by: str) -> bool:
        """
        The clock begins it again. What was due while it was paused is skipped. False: it was not paused. Raises
        UnknownJob.
        """
        job = self._job(name)
        await self._register()
        now_ms = self._clock()
        seen_ms = (await self._standing(now_ms))[name].last_due_at_ms
        skipped = missed(job.schedule, seen_ms, now_ms)
        args = (name, by, seen_ms, skipped, self._ids("run"), now_ms)
        resumed, runs = await self._db.write(self._runs.resume, *args)
        for run in runs:
            self._tell(run)
        self.nudge()
        return resumed

    def history(self, tx: Connection, name: str, limit: int, before: str | None = None) -> list[Run]:
        """The runs of a job, newest first; `before`: only those older than the run with this id. Raises UnknownJob."""
        self._job(name)
        return self._runs.history(tx, name, limit, before)

    def overview(self, tx: Connection, now_ms: int) -> list[Overview]:
        """How every job stands, by name. One that was never registered looks as if it was now."""
        known = self._runs.standing(tx)
        found = []
        for name, job in sorted(self._jobs.items()):
            one = known.get(name)
            seen_ms = one.last_due_at_ms if one else now_ms
            paused_at_ms = one.paused_at_ms if one else None
            found.append(
                Overview(
                    name=name,
                    sentence=job.sentence,
                    expression=job.schedule.expression,
                    zone=job.schedule.zone,
                    since_ms=one.since_ms if one else now_ms,
                    last_due_at_ms=seen_ms,
                    last_done_at_ms=one.last_done_at_ms if one else None,
                    next_due_at_ms=None if paused_at_ms is not None else job.schedule.next_after(max(seen_ms, now_ms)),
                    paused_at_ms=paused_at_ms,
                    paused_by=one.paused_by if one else None,
                    running=one.running if one else None,
                    last=self._runs.last(tx, name, now_ms) if one else None,
                )
            )
        return found

    def _job(self, name: str) -> Job:
        job = self._jobs.get(name)
        if job is None:
            raise unknown(name, self._jobs)
        return job

    # --- beginning --------------------------------------------------------------------------------

    async def _register(self) -> None:
        if not self._registered:
            for run in await self._db.write(self._runs.register, frozenset(self._jobs), self._clock()):
                self._tell(run)
            self._registered = True

    async def _standing(self, now_ms: int) -> dict[str, Standing]:
        """How far each job has come; those that wait for a future that the clock has left are brought back first."""
        # Quiet is asked for once, after the start: of a clock that went back, no longer than it was.
        self._quiet_until_ms = min(self._quiet_until_ms, now_ms + self._quiet_ms)
        standing = await self._db.read(self._runs.standing)
        back = []
        for name, job in self._jobs.items():
            one = standing[name]
            lives = one.running is not None and one.running.id in self._live  # it is brought back when it has ended
            if not lives and is_astray(one, job, now_ms) and await self._db.write(self._runs.bring_back, job, now_ms):
                back.append(name)
        if not back:
            return standing
        _log.warning("scheduler.clock_went_back", extra={"jobs": back})
        return await self._db.read(self._runs.standing)

    async def _begin_due(self, now_ms: int) -> list[asyncio.Task[Ran | None]]:
        self._failed = False
        await self._register()
        standing = await self._standing(now_ms)
        tasks = []
        for name, job in self._jobs.items():
            one = standing[name]
            left = one.running
            if self._stopping.is_set() or one.paused_at_ms is not None or now_ms < self._earliest_ms(job):
                continue
            # A clock that jumped makes our own leases look over: what runs here is not dead.
            if left is not None and (left.id in self._live or left.lease_until_ms > now_ms):
                continue
            try:
                due = plan(job.schedule, one.last_due_at_ms, now_ms, job.catch_up_ms)
                if due is None and left is None:
                    continue
                ids = self._ids("run"), self._ids("run")
                begun = await self._db.write(self._runs.begin, job, due, ids, self._process, now_ms)
            except Exception:  # noqa: BLE001 - one job that cannot begin stops no other
                self._failed = True
                _log.exception("scheduler.begin_failed", extra={"job": name})
                continue
            if (task := self._launch(job, begun)) is not None:
                tasks.append(task)
        return tasks

    def _earliest_ms(self, job: Job) -> int:
        return self._quiet_until_ms if job.waits_after_start else 0

    def _launch(self, job: Job, begun: Begun) -> asyncio.Task[Ran | None] | None:
        for one in begun.ended:
            self._tell(one)
        run = begun.run
        if run is None:
            return None
        task = asyncio.create_task(self._run(job, run), name=f"scheduler:{job.name}")
        self._live[run.id] = task

        def over(_: object) -> None:
            self._live.pop(run.id, None)
            self._progress.pop(run.id, None)
            self._wake.set()  # what became due meanwhile has waited

        task.add_done_callback(over)
        return task

    # --- one run ----------------------------------------------------------------------------------

    async def _run(self, job: Job, run: Run) -> Ran | None:
        tick = Tick(self._db, self._runs, run, run.begun_at_ms, lambda *said: self._progress.update({run.id: said}))
        limit = asyncio.timeout(job.limit_ms / 1000)
        state: Ending = "done"
        error = ""
        try:
            async with limit:
                counters = await job.does(tick)
            written(counters)
        except asyncio.CancelledError:
            await self._give_back(run)
            raise
        except Lost:
            return None
        except Exception as problem:  # noqa: BLE001 - whatever a job raises fails this run and no other
            over_limit = f"It took longer than its limit of {job.limit_ms / 1000:g} s and was stopped."
            error = over_limit if limit.expired() else f"{type(problem).__name__}: {problem}"
            state, counters = "failed", {}
        return await self._settle(run, state, counters, error)

    async def _settle(self, run: Run, state: Ending, counters: Counters, error: str) -> Ran | None:
        """Writes down the end, again and again while the lease is ours; after that somebody else runs it again."""
        end = ended(run, state, self._clock(), counters, error)
        while True:
            try:
                settled = await self._db.write(self._runs.settle, end)
                return None if settled is None else self._tell(settled)
            except Exception:  # noqa: BLE001 - whatever it is, the storage may work a moment later
                _log.exception("scheduler.settle_failed", extra={"job": run.job})
            if self._stopping.is_set() or self._clock() >= run.lease_until_ms:
                return None
            await asyncio.sleep(self._pause_s)

    async def _give_back(self, run: Run) -> None:
        """A run by the clock is taken up by whoever comes next; a person whose run was stopped asks again."""
        try:
            if run.manual:
                end = ended(run, "abandoned", self._clock(), {}, "The process stopped before its end.")
                if (settled := await self._db.write(self._runs.settle, end)) is not None:
                    self._tell(settled)
            else:
                await self._db.write(self._runs.give_back, run)
        except Exception:  # noqa: BLE001 - then its lease runs out
            _log.exception("scheduler.give_back_failed", extra={"job": run.job})

    def _tell(self, run: Run) -> Ran:
        ran = Ran(
            job=run.job,
            run_id=run.id,
            due_at_ms=run.due_at_ms,
            begun_at_ms=run.begun_at_ms,
            ended_at_ms=run.ended_at_ms or run.begun_at_ms,
            state=run.state,
            counters=run.counters,
            error=run.error,
            manual=run.manual,
            dry_run=run.dry_run,
            missed=run.missed,
        )
        try:
            self._hook(ran)
        except Exception:  # noqa: BLE001 - what listens must not undo what is committed
            _log.exception("scheduler.hook_raised", extra={"job": run.job})
        return ran

    # --- the loop ---------------------------------------------------------------------------------

    async def _run_for_ever(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                await self._begin_due(self._clock())
                pause_s = self._pause_s if self._failed else self._rest_ms() / 1000
            except Exception:  # noqa: BLE001 - a fault of ours or of the storage must not silence the clock for ever
                _log.exception("scheduler.pass_failed")
                pause_s = self._pause_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()

    def _rest_ms(self) -> int:
        """Until the next due time of any job, but not longer than the sweep."""
        now_ms = self._clock()
        quiet_ms = [self._quiet_until_ms] if now_ms < self._quiet_until_ms else []
        due_ms = [job.schedule.next_after(now_ms) for job in self._jobs.values()]
        return min([now_ms + SWEEP_MS, *quiet_ms, *due_ms]) - now_ms + 1
