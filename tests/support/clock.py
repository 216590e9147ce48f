"""A clock that a test moves by hand."""

from __future__ import annotations


class Clock:
    """Starts at a fixed instant (2026-11-20T09:00:00Z) and moves only when told."""

    def __init__(self, now_ms: int = 1_795_165_200_000) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, ms: int) -> int:
        self.now_ms += ms
        return self.now_ms
