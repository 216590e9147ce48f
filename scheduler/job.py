"""The words: what a job is, the tick it is run for, what is told about a run, and the ways to be refused."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from scheduler.schedule import Schedule

if TYPE_CHECKING:
    from scheduler.tick import Tick

CATCH_UP_MS_MIN = 60_000
"""Less than this a due time could be taken for missed because the scheduler, which looks every 30 s, came late."""

Counters = Mapping[str, int]
"""What a run found and did, by name: `{"expired": 12, "asked": 14}`."""

State = Literal["running", "done", "failed", "skipped", "abandoned"]


@dataclass(frozen=True, slots=True)
class Job:
    """
    What is run when the clock says so. `sentence` tells people what it is for.

    `await does(tick)` finds what there is to do: it reads, writes and promises to the outbox, and opens no socket. It
    may be run again for the same tick if its process died, so each piece must be right when it comes twice. It is
    cancelled after `limit_ms`; after `lease_ms` without an end its process is taken for dead. A due time that was
    missed is run late, up to `catch_up_ms`. `waits_after_start`: not in the first quiet minutes of a process.
    """

    name: str
    schedule: Schedule
    does: Callable[[Tick], Awaitable[Counters]]
    sentence: str
    catch_up_ms: int
    limit_ms: int = 300_000
    lease_ms: int = 360_000
    waits_after_start: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,59}", self.name):
            raise ValueError(f"A job is named in lower case, like expire-stale-orders, not {self.name!r}.")
        if self.catch_up_ms < CATCH_UP_MS_MIN:
            raise ValueError(f"The job {self.name!r} must catch up for {CATCH_UP_MS_MIN} ms at least.")
        if not 0 < self.limit_ms < self.lease_ms:
            raise ValueError(f"The lease of the job {self.name!r} must outlast its limit.")


@dataclass(frozen=True, slots=True)
class Run:
    """
    One row of `job_runs`. It answers for what was after `from_ms` and not after `due_at_ms`.

    States: `running`; `done`; `failed` (raised, or over its limit); `skipped` (never begun: outside the catch-up
    window, or paused); `abandoned` (its process died or stopped, and nobody takes it up).
    """

    id: str
    job: str
    due_at_ms: int
    from_ms: int
    state: State
    begun_at_ms: int
    ended_at_ms: int | None
    lease_until_ms: int
    fence: int
    deaths: int
    missed: int
    manual: bool
    dry_run: bool
    actor: str
    process: str
    counters: Counters
    error: str
    cursor: str


@dataclass(frozen=True, slots=True)
class Ran:
    """
    What the world is told of a run that ended, after the commit, for metrics, logs and alerts.

    `abandoned` is also told of a run that is taken over, which will end once more. `missed`: due times before this
    one that it answers for too, or was skipped with.
    """

    job: str
    run_id: str
    due_at_ms: int
    begun_at_ms: int
    ended_at_ms: int
    state: State
    counters: Counters
    error: str
    manual: bool
    dry_run: bool
    missed: int


class SchedulerRefusal(Exception):
    """A clear no to a caller: a fixed word for programs, one sentence for people."""

    code = "refused"

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class UnknownJob(SchedulerRefusal):
    """There is no job with this name."""

    code = "unknown_job"


class AlreadyRunning(SchedulerRefusal):
    """The job is running, so it is not begun a second time."""

    code = "job_already_running"


class Stopping(SchedulerRefusal):
    """The scheduler is stopping and begins nothing."""

    code = "stopping"


class Lost(Exception):
    """The lease of this run is over and somebody else has it: nothing of this transaction may be kept."""


def unknown(name: str, names: Iterable[str]) -> UnknownJob:
    """The refusal, with the names that the caller may have meant."""
    listed = sorted(names)
    near = get_close_matches(name, listed, 3, 0.5)
    asked = f"; did you mean {' or '.join(near)}" if near else f". There are: {', '.join(listed)}" if listed else ""
    return UnknownJob(f"There is no job {name[:60]!r}{asked}.")


def written(counters: Mapping[Any, Any]) -> str:
    """Counters as they are kept. Raises TypeError or ValueError for what is no count."""
    for name, count in counters.items():
        if not isinstance(name, str) or type(count) is not int:
            raise TypeError(f"A counter is a name and a whole number, not {name!r}: {count!r}")
    return json.dumps(dict(counters), sort_keys=True, separators=(",", ":"))
