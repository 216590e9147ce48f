"""When a job is due: a cron expression in a time zone, and what of the past is still to be run. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice, takewhile
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

EXPRESSION_MAX = 200
MISSED_MAX = 5_000
"""Missed due times are counted so far and no further: a year of every minute would hold up everybody for seconds."""

_PROBE_MS = 946_684_800_000
"""2000-01-01T00:00:00Z. From here what fires at all fires within the 50 years that cronsim looks ahead."""

_HOUR_MS = 3_600_000


class BadSchedule(ValueError):
    """The schedule cannot be kept: a malformed expression, an unknown time zone, or one that never fires."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """
    A cron expression of five fields (minute, hour, day, month, weekday) in an IANA time zone. Raises BadSchedule.

    Over daylight-saving changes as Debian's cron: a fixed time that the spring skips is due right after, one that the
    autumn repeats is due once. Whatever has a `*` first in its minute or hour follows the wall clock instead: every
    real hour, the repeated one twice, the skipped one never.
    """

    expression: str
    zone: str

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise BadSchedule(f"There is no time zone {self.zone[:60]!r}; a zone is named like Europe/Paris.") from None
        shown = repr(self.expression[:60])
        fields = self.expression.split()
        if len(fields) != 5 or len(self.expression) > EXPRESSION_MAX:
            raise BadSchedule(
                f"The schedule {shown} must have five fields: minute, hour, day of month, month, day of week."
            )
        never = BadSchedule(f"The schedule {shown} never fires: no date has that day and month.")
        try:
            CronSim(self.expression, datetime.fromtimestamp(0, ZoneInfo(self.zone)))
        except (CronSimError, ValueError) as error:
            if _well_formed(fields):
                raise never from None
            raise BadSchedule(f"The schedule {shown} cannot be read: {str(error).lower()}.") from None
        if next(self._walk(_PROBE_MS), None) is None:
            raise never

    def next_after(self, at_ms: int) -> int:
        """The first due time (ms) strictly after a time (ms). Raises BadSchedule if none comes within 50 years."""
        found = next(self._walk(at_ms), None)
        if found is None:
            raise BadSchedule(f"The schedule {self.expression!r} does not fire within 50 years.")
        return found

    def between(self, after_ms: int, until_ms: int, limit: int) -> list[int]:
        """The first `limit` due times (ms) in order, later than `after_ms` and not later than `until_ms`."""
        return list(islice(self._until(after_ms, until_ms), limit))

    def newest(self, after_ms: int, until_ms: int) -> int | None:
        """The last due time (ms) later than `after_ms` and not later than `until_ms`; quick, however many there are."""
        span_ms = _HOUR_MS
        while after_ms < until_ms:
            from_ms = max(after_ms, until_ms - span_ms)
            last = deque(self._until(from_ms, until_ms), maxlen=1)
            if last or from_ms == after_ms:
                return last[0] if last else None
            span_ms *= 4
        return None

    def _until(self, after_ms: int, until_ms: int) -> Iterator[int]:
        return takewhile(lambda due_at_ms: due_at_ms <= until_ms, self._walk(after_ms))

    def _walk(self, after_ms: int) -> Iterator[int]:
        last_ms = after_ms
        for at in CronSim(self.expression, datetime.fromtimestamp(after_ms // 1000, ZoneInfo(self.zone))):
            due_at_ms = int(at.timestamp()) * 1000
            # Begun within the repeated hour, cronsim offers the first of the two once more.
            if due_at_ms > last_ms:
                last_ms = due_at_ms
                yield due_at_ms


def _well_formed(fields: list[str]) -> bool:
    """Whether each field is right by itself, so that only day and month together are not."""
    minute, hour, day, month, weekday = fields
    at = datetime.fromtimestamp(0, ZoneInfo("UTC"))
    try:
        CronSim(f"{minute} {hour} * {month} {weekday}", at)
        CronSim(f"{minute} {hour} {day} * {weekday}", at)
    except (CronSimError, ValueError):
        return False
    return True


class Missed(NamedTuple):
    """Due times that will not be run, in one: the newest of them, and how many (at most MISSED_MAX)."""

    from_ms: int
    due_at_ms: int
    times: int


class Plan(NamedTuple):
    """
    What becomes of all that is due by now. `seen_ms`: the last due time accounted for when this was planned.

    `due_at_ms` is the one to run, for the span since `from_ms`; `missed` due times before it collapse into it. None:
    nothing is to be run. `skipped` are outside the catch-up window.
    """

    seen_ms: int
    newest_ms: int
    from_ms: int
    due_at_ms: int | None
    missed: int
    skipped: Missed | None


def missed(schedule: Schedule, after_ms: int, until_ms: int) -> Missed | None:
    """All due times after one time and not after another, in one."""
    newest_ms = schedule.newest(after_ms, until_ms)
    if newest_ms is None:
        return None
    return Missed(after_ms, newest_ms, len(schedule.between(after_ms, newest_ms, MISSED_MAX)))


def plan(schedule: Schedule, seen_ms: int, now_ms: int, catch_up_ms: int) -> Plan | None:
    """What to do about what became due after `seen_ms`; None: nothing did, or the clock went back behind it."""
    newest_ms = schedule.newest(seen_ms, now_ms)
    if newest_ms is None:
        return None
    skipped = missed(schedule, seen_ms, min(now_ms - catch_up_ms - 1, newest_ms))
    from_ms = skipped.due_at_ms if skipped else seen_ms
    if from_ms == newest_ms:
        return Plan(seen_ms, newest_ms, from_ms, None, 0, skipped)
    also = len(schedule.between(from_ms, newest_ms - 1, MISSED_MAX))
    return Plan(seen_ms, newest_ms, from_ms, newest_ms, also, skipped)
