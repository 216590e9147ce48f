"""
The circuit breaker of a destination, as values: how it has answered until now, and what the next answers make of that.

Closed: it gets what is due. Open: nothing, for 30 s after five failures in a row, or after more than 70 % of at least
ten tries of the last five minutes. Then one try at a time (half-open): a success closes, a failure opens it for twice
as long as before, 15 minutes at most. Nothing of this spends a try: what is owed only waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

FAILURES_IN_A_ROW = 5
TRIES_MIN = 10
FAILED_SHARE = 0.7
RECENT_MINUTES = 5
OPEN_MS = 30_000
OPEN_MS_MAX = 15 * 60_000
PAUSE_MS_MAX = 15 * 60_000
"""How long a Retry-After may silence a whole destination. The message it was the answer to may have to wait longer."""

SLOW_MS = 2_000
"""A try that keeps its place so long may succeed: it is no failure, but many like it would keep all places."""

MINUTE_MS = 60_000


class Ended(NamedTuple):
    """One try that ended; `after_ms` is what a Retry-After asked for, `slow`: it took `SLOW_MS` or more."""

    failed: bool
    after_ms: int = 0
    slow: bool = False


class Health(NamedTuple):
    """
    `failures` in a row, the first of them at `failing_since_ms`. `opened_ms` is how long the circuit was opened last, 0
    when it is closed. `recent` is text for the column: `minute:tries:failures` of the last minutes. `troubled` is 1
    while its last try failed or was slow: then it gets one place, of those that the troubled share.
    """

    failures: int = 0
    failing_since_ms: int | None = None
    opened_ms: int = 0
    paused_until_ms: int = 0
    recent: str = ""
    troubled: int = 0

    def after(self, ended: Iterable[Ended], now_ms: int, fine: Mapping[int, int] = MappingProxyType({})) -> Health:
        """
        The health after these tries, in the order in which they ended. `fine`: how many succeeded before them, minute
        by minute, that `recent` does not know of.
        """
        failures, since_ms, opened_ms, paused_until_ms, recent, troubled = self
        minutes = _read(recent, fine, now_ms)
        for failed, after_ms, slow in ended:
            troubled = int(failed or slow)
            minute = minutes.setdefault(now_ms // MINUTE_MS, [0, 0])
            minute[0] += 1
            if not failed:
                failures, since_ms = 0, None
                if opened_ms:
                    opened_ms = paused_until_ms = 0
                    minutes.clear()
                continue
            minute[1] += 1
            failures += 1
            if since_ms is None:
                since_ms = now_ms
            if not opened_ms:
                opens_ms = OPEN_MS if failures >= FAILURES_IN_A_ROW or _mostly_failed(minutes) else 0
            elif now_ms >= paused_until_ms:
                opens_ms = min(2 * opened_ms, OPEN_MS_MAX)
            else:
                opens_ms = 0  # it was in flight when the circuit opened, and says nothing new
            if opens_ms:
                opened_ms = opens_ms
            if pause_ms := max(opens_ms, min(after_ms, PAUSE_MS_MAX)):
                paused_until_ms = max(paused_until_ms, now_ms + pause_ms)
        return Health(failures, since_ms, opened_ms, paused_until_ms, _written(minutes), troubled)


def _mostly_failed(minutes: dict[int, list[int]]) -> bool:
    tries = sum(counts[0] for counts in minutes.values())
    return tries >= TRIES_MIN and sum(counts[1] for counts in minutes.values()) > FAILED_SHARE * tries


def _read(recent: str, fine: Mapping[int, int], now_ms: int) -> dict[int, list[int]]:
    oldest = now_ms // MINUTE_MS - RECENT_MINUTES
    minutes = {minute: [count, 0] for minute, count in fine.items() if minute > oldest}
    for word in recent.split():
        minute, tries, failures = map(int, word.split(":"))
        if minute > oldest:
            minutes[minute] = [minutes.get(minute, (0,))[0] + tries, failures]
    return minutes


def _written(minutes: dict[int, list[int]]) -> str:
    return " ".join(f"{minute}:{tries}:{failures}" for minute, (tries, failures) in minutes.items())
