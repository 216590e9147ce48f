"""Ids that sort by time: a prefix and a ULID (48 bits of milliseconds, 80 random bits, Crockford base 32)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(a + b for a in _ALPHABET for b in _ALPHABET)
_BY_BYTE = (_ALPHABET * 8).encode()
"""A character for each value of a byte, each for eight of them: random bytes become random characters at once."""

Clock = Callable[[], int]
"""Milliseconds since 1970, UTC."""


def now_ms() -> int:
    """The system's clock."""
    return time.time_ns() // 1_000_000


class _Randomness:
    """
    16 random characters (80 bits) at a time, fetched from the system in pages. A system call for each id lets go of the
    interpreter's lock, and under load getting it back from the writer's thread costs a hundred times the id.
    """

    def __init__(self) -> None:
        self._page, self._at = "", 0
        self._lock = threading.Lock()

    def __call__(self) -> str:
        with self._lock:  # the event loop and the writer's thread both make ids
            if self._at >= len(self._page):
                self._page, self._at = os.urandom(16 * 256).translate(_BY_BYTE).decode(), 0
            begin, self._at = self._at, self._at + 16
            return self._page[begin : begin + 16]


class Ids:
    """`ids("cb")` gives `cb_01J…`; clock and randomness are handed in, so that a test can repeat itself."""

    def __init__(self, clock: Clock = now_ms, random_80_bits: Callable[[], int] | None = None) -> None:
        self._clock = clock
        self._random: Callable[[], str] = _Randomness()
        if random_80_bits is not None:
            self._random = lambda: _written(random_80_bits(), 16)
        self._moment = -1, ""

    def __call__(self, prefix: str) -> str:
        at_ms, moment = self._moment
        now_ms = self._clock()
        if now_ms != at_ms:
            moment = _written(now_ms, 10)
            self._moment = now_ms, moment
        return f"{prefix}_{moment}{self._random()}"


def _written(number: int, characters: int) -> str:
    """A number in base 32, its lowest bits where it has too many."""
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(5 * characters - 10, -1, -10)])
