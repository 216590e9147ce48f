"""What the scheduler needs from whoever owns the database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeVar

T = TypeVar("T")


class Database(Protocol):
    """
    `work(tx, *args)` and `query(tx, *args)` are plain functions over a `sqlalchemy.Connection`. `write` returns after
    the commit, and may run `work` more than once, of which only the last run counts.
    """

    async def write(
        self, work: Callable[..., T], *args: Any, lane: Literal["intake", "background"] = "background"
    ) -> T: ...

    async def read(self, query: Callable[..., T], *args: Any, deadline_ms: int = 5000) -> T: ...
