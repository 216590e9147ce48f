"""What waits for the writer: in which lane, and in which order it is handed out."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any, Literal

from service.sqlite.terms import Busy, Limits

Lane = Literal["background", "intake"]
Work = Callable[..., Any]


class Piece:
    """One work that waits for the writer, and what became of it. Made on the loop that waits."""

    __slots__ = ("args", "error", "future", "limit_s", "loop", "value", "work")

    def __init__(self, work: Work, args: tuple[Any, ...], limit_s: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.work = work
        self.args = args
        self.limit_s = limit_s
        self.value: Any = None
        self.error: BaseException | None = None


class Lanes:
    """Filled, closed and woken from any thread; waited for and emptied by the writer's alone."""

    def __init__(self, limits: Limits) -> None:
        self.intake: deque[Piece] = deque()
        self.background: deque[Piece] = deque()
        self.rebuild: deque[Piece] = deque()
        self._by_name = {"intake": self.intake, "background": self.background, "rebuild": self.rebuild}
        self._limits = limits
        self._arrival = threading.Condition(threading.Lock())
        self._asleep = self._closing = self._ending = False

    @property
    def waiting(self) -> int:
        """How many pieces."""
        return len(self.intake) + len(self.background) + len(self.rebuild)

    def submit(self, piece: Piece, lane: Lane | Literal["rebuild"]) -> None:
        """Put a piece in a lane. Raises Busy when that is full or the writer is closing."""
        waiting = self._by_name[lane]
        with self._arrival:
            if self._closing:
                raise Busy("The database is closing; nothing was done.")
            if len(waiting) >= self._limits.lane_pieces:
                raise Busy
            waiting.append(piece)
            if self._asleep:
                self._arrival.notify()

    def close(self) -> None:
        """From here on `submit` raises Busy; what waits already is still done."""
        with self._arrival:
            self._closing = True

    def end(self) -> None:
        """Close, and let `wait` say so when nothing waits any more."""
        with self._arrival:
            self._closing = self._ending = True
            self._arrival.notify()

    def wake(self) -> None:
        """Let `wait` return, whatever waits."""
        with self._arrival:
            self._arrival.notify()

    def wait(self, nap_s: Callable[[], float | None]) -> bool:
        """Until a piece waits, or `nap_s()` is over (None: for ever), or somebody wakes us. False: it is the end."""
        with self._arrival:
            if not (self.intake or self.background or self.rebuild):
                if self._ending:
                    return False
                self._asleep = True
                self._arrival.wait(nap_s())
                self._asleep = False
        return True

    def hand_out(self, batch: list[Piece]) -> Iterator[Piece]:
        """Hand out what waits and what comes meanwhile: intake first, then background, of which one when both wait."""
        intake, background = self.intake, self.background
        ends_s = monotonic() + self._limits.batch_ms / 1000
        intakes = backgrounds = 0
        while len(batch) < self._limits.batch_pieces - 1 and (not batch or monotonic() < ends_s):
            if intake:
                intakes += 1
                batch.append(intake.popleft())
            elif background and not (intakes and backgrounds):
                backgrounds += 1
                batch.append(background.popleft())
            else:
                return
            yield batch[-1]
        if background and not backgrounds:  # However much intake there is, the background goes on.
            batch.append(background.popleft())
            yield batch[-1]
