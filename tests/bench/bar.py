"""What is shown while it is measured: one line for the part, one for what is being filled."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

console = Console(stderr=True, width=None if sys.stderr.isatty() else 110)


class Bar:
    """Parts call `expect`, `step` and `filled`; it shows nothing unless it is entered, so tests just make one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._progress = Progress(
            TextColumn("{task.description:<62}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True
        )
        self._steps = self._progress.add_task(name, total=None)
        self._filling = self._progress.add_task("", total=None, visible=False)
        self._begun = False

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, _1: type[BaseException] | None, _2: BaseException | None, _3: TracebackType | None) -> None:
        self._progress.stop()

    def expect(self, steps: float) -> None:
        """How many steps there will be."""
        self._progress.update(self._steps, total=steps)

    def step(self, title: str) -> None:
        """A step begins: the one before it is done, so the first stands at nothing."""
        advance = 1 if self._begun else 0
        self._progress.update(self._steps, advance=advance, description=f"{self._name}: {title}")
        self._begun = True

    def filled(self, title: str, done: int, total: int) -> None:
        """So many rows of a database are made; the line goes away with the last."""
        self._progress.update(
            self._filling, description=f"  {title}: {done:,}", completed=done, total=total, visible=done < total
        )
