"""A Database for tests of outbox and scheduler: a real SQLite file, one write at a time, trouble on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection

T = TypeVar("T")


def open_engine(path: Path | str) -> Engine:
    """SQLite as the product runs it: BEGIN IMMEDIATE, WAL, foreign keys; `:memory:` for what needs no file."""
    engine = create_engine(f"sqlite:///{path}")

    @event.listens_for(engine, "connect")
    def connect(connection: DBAPIConnection, _: object) -> None:
        connection.isolation_level = None  # sqlite3 leaves BEGIN to us
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(tx: Connection) -> None:
        tx.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


class Database:
    """
    Writes run on the event loop, one after the other. `fail_before` and `fail_after` are exceptions for the next
    writes: before, nothing is committed; after, it is, and the caller is not told (an unknown outcome).
    """

    def __init__(self, path: Path | str) -> None:
        self.engine = open_engine(path)
        self.fail_before: list[Exception] = []
        self.fail_after: list[Exception] = []
        self.gate: asyncio.Event | None = None  # before a write runs
        self.gate_after: asyncio.Event | None = None  # it is committed, and the caller does not know yet
        self.writes = 0

    async def write(
        self, work: Callable[..., T], *args: Any, lane: Literal["intake", "background"] = "background"
    ) -> T:
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        if self.fail_before:
            raise self.fail_before.pop(0)
        with self.engine.begin() as tx:
            result = work(tx, *args)
        self.writes += 1
        await asyncio.sleep(0)
        if self.gate_after is not None:
            await self.gate_after.wait()
        if self.fail_after:
            raise self.fail_after.pop(0)
        return result

    async def read(self, query: Callable[..., T], *args: Any, deadline_ms: int = 5000) -> T:
        await asyncio.sleep(0)
        with self.engine.connect() as tx:
            return query(tx, *args)

    def close(self) -> None:
        self.engine.dispose()
