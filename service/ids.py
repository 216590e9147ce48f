"""Ids that sort by time: a prefix and a ULID (48 bits of milliseconds, 80 random bits, Crockford base 32)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(a + b for a in _ALPHABET for b in _ALPHABET)

Clock = Callable[[], int]
"""Milliseconds since 1970, UTC."""


def now_ms() -> int:
    """The system's clock."""
    return time.time_ns() // 1_000_000


class _Randomness:
    """
    80 random bits at a time, fetched from the system in pages. A system call for each id lets go of the interpreter's
    lock, and under load getting it back from the writer's thread costs a hundred times the id.
    """

    def __init__(self) -> None:
        self._page, self._at = b"", 0
        self._lock = threading.Lock()

    def __call__(self) -> int:
        with self._lock:  # the event loop and the writer's thread both make ids
            if self._at >= len(self._page):
                self._page, self._at = os.urandom(10 * 256), 0
            begin, self._at = self._at, self._at + 10
            return int.from_bytes(self._page[begin : begin + 10])


class Ids:
    """`ids("cb")` gives `cb_01J…`; clock and randomness are handed in, so that a test can repeat itself."""

    def __init__(self, clock: Clock = now_ms, random_80_bits: Callable[[], int] | None = None) -> None:
        self._clock = clock
        self._random = random_80_bits or _Randomness()

    def __call__(self, prefix: str) -> str:
        number = (self._clock() << 80 | self._random()) & (1 << 130) - 1
        return f"{prefix}_" + "".join(_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10))
