"""
The one door to the database: `write` through the one writer, `read` beside it.

This is the only place that knows SQLite from PostgreSQL, which is not built yet. Works and queries are plain functions
over a SQLAlchemy Core connection, so they cannot await, and no network call can sit inside a transaction.
"""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from service.sqlite import backup
from service.sqlite.backup import BackupFailed, Copied
from service.sqlite.connections import Deadline, create_file, open_readers
from service.sqlite.lanes import Lane, Piece
from service.sqlite.terms import (
    Busy,
    Health,
    Limits,
    ReadTimeout,
    Stats,
    StorageError,
    StorageFailed,
    StorageFull,
    UnknownOutcome,
    WorkTimeout,
)
from service.sqlite.trouble import code_of
from service.sqlite.writer import Writer

__all__ = [
    "BackupFailed",
    "Busy",
    "Copied",
    "Database",
    "Health",
    "Limits",
    "ReadTimeout",
    "Stats",
    "StorageError",
    "StorageFailed",
    "StorageFull",
    "UnknownOutcome",
    "UnsupportedDatabase",
    "WorkTimeout",
    "path_of",
]

T = TypeVar("T")


class UnsupportedDatabase(ValueError):
    """The database URL is not one that this version can open."""


def path_of(url: str) -> Path:
    """The file behind a database URL, absolute and without symbolic links. Raises UnsupportedDatabase."""
    if url.startswith(("postgresql:", "postgresql+", "postgres:")):
        raise UnsupportedDatabase("PostgreSQL is not supported yet: use sqlite:///path/to/caisse.db.")
    scheme, found, path = url.partition("sqlite:///")
    if scheme or not found or path in ("", ":memory:") or "?" in path or path.startswith("file:"):
        # The URL is not repeated: it may carry a password.
        raise UnsupportedDatabase("The database URL must be sqlite:/// and the path of a file, without options.")
    return Path(path).resolve()


class Database:
    """One open database. Made by `open`; all methods belong to an event loop, the attributes to anybody."""

    def __init__(self, writer: Writer, readers: Engine, path: Path, limits: Limits) -> None:
        self.path = path
        self._writer = writer
        self._readers = readers
        self._limits = limits
        self._seats = asyncio.Semaphore(limits.readers)
        self._threads = ThreadPoolExecutor(limits.readers, "caisse-reader")
        self._reading: dict[asyncio.Task[Any], Deadline] = {}
        self._copying = asyncio.Lock()
        self._closing = False

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        on_storage_failure: Callable[[str], object],
        limits: Limits | None = None,
        connect: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> Database:
        """
        Open (and create, mode 0600) the database file of a `sqlite:///path` URL.

        `on_storage_failure(reason)` is called at most once, when the storage fails for good: an I/O error that is not a
        full disk, a corrupt page. It is called on whichever thread met the failure, must not block, and should end the
        process. `connect` is for tests: the class of the writing connection, so that faults can be put under it.
        Whoever opens a database must `close` it: the writer thread keeps the process alive.

        Raises UnsupportedDatabase for any other URL, StorageError when the file cannot be opened as it must be.
        """
        path = path_of(url)
        limits = limits or Limits()
        create_file(path)
        writer = Writer(path, on_storage_failure, limits, connect)
        await writer.start()
        return cls(writer, open_readers(path, limits), path, limits)

    async def write(self, work: Callable[..., T], *args: Any, lane: Lane = "background") -> T:
        """
        Run `work(tx, *args)` inside the writer's next transaction and return what it returned, after the commit.

        `work` is a plain function. It may run more than once, so it must be repeatable and touch nothing but `tx`; it
        never commits, rolls back or opens another connection; it should stay under 10 ms, and is interrupted after
        60 s inside SQLite. What it raises comes out here, with nothing of it kept. Lane "intake" goes first; within a
        lane the order is kept. Cancelling the caller abandons the waiting, not the work.

        Raises Busy, StorageFull, StorageFailed and WorkTimeout (nothing was kept), UnknownOutcome (it may have been).
        """
        _refuse_coroutines(work)
        piece = Piece(work, args, self._limits.work_ms / 1000)
        self._writer.lanes.submit(piece, lane)
        result: T = await piece.future
        return result

    async def read(self, query: Callable[..., T], *args: Any, deadline_ms: int = 5000) -> T:
        """
        Run `query(tx, *args)` on a connection that cannot write, in one snapshot that holds all that was committed
        before the call, and return what it returned (values, not a cursor: the connection is gone by then).

        Raises ReadTimeout `deadline_ms` after the call, waiting for a connection included; the query itself is
        interrupted, as it is when the caller is cancelled. Raises Busy when the database is closing.
        """
        _refuse_coroutines(query)
        if self._closing:
            raise Busy("The database is closing; nothing was done.")
        deadline = Deadline(monotonic() + deadline_ms / 1000)
        # A task of its own, so that a cancelled caller leaves the connection to be put back in order.
        task = asyncio.create_task(self._read(deadline, query, args))
        self._reading[task] = deadline
        task.add_done_callback(self._reading.pop)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # a cancelled caller asks for neither
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            deadline.ends_s = 0.0
            raise

    async def _read(self, deadline: Deadline, query: Callable[..., T], args: tuple[Any, ...]) -> T:
        try:
            async with asyncio.timeout(deadline.ends_s - monotonic()):
                await self._seats.acquire()
        except TimeoutError:
            raise ReadTimeout from None
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, deadline, query, args)
        except Exception as error:
            if code_of(error) == sqlite3.SQLITE_READONLY:
                raise  # Not the file: `query_only` says so when a query tries to write.
            match self._writer.storage.hear(error):
                case "interrupted":
                    raise ReadTimeout from error
                case "full":  # A reader needs room too, for the index of the WAL.
                    raise StorageFull from error
                case "broken":
                    raise StorageFailed from error
                case None:
                    raise
        finally:
            self._seats.release()

    def _ask(self, deadline: Deadline, query: Callable[..., T], args: tuple[Any, ...]) -> T:
        """The whole of a read in one go: each change of threads would cost more than most queries."""
        with self._readers.connect() as connection:
            connection.info["deadline"][0] = deadline
            try:
                return query(connection, *args)
            except StopIteration as error:  # A future refuses these, and its caller would wait for ever.
                raise RuntimeError("The query raised StopIteration.") from error

    async def backup(self, to: Path, progress: Callable[[int, int], object] = lambda *_: None) -> Copied:
        """
        Copy the database to a file that is not there yet, on a thread of its own; one at a time. All that was
        committed before the call is in it. `progress` hears pages done and pages in all, on the event loop.

        Raises BackupFailed, with nothing left under the name, and Busy when the database is closing. Cancelling stops
        it.
        """
        loop = asyncio.get_running_loop()
        async with self._copying:
            if self._closing:
                raise Busy("The database is closing; nothing was done.")
            deadline = Deadline(float("inf"))
            told = lambda done, total: loop.call_soon_threadsafe(progress, done, total)  # noqa: E731
            task = asyncio.create_task(asyncio.to_thread(backup.copy, self.path, to, deadline.passed, told))
            self._reading[task] = deadline  # `close` stops it, and waits for its connection to be gone
            task.add_done_callback(self._reading.pop)
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                deadline.ends_s = 0.0
                await asyncio.wait([task])
                raise

    async def rebuild(self, work: Callable[..., T], *args: Any) -> T:
        """
        Like `write`, for migrations: alone, with foreign keys off and no limit of time.

        Afterwards, in the same transaction, every foreign key and the whole file are checked; a failed check raises
        StorageError and rolls back. It takes a full read of the database and holds up all writers meanwhile.
        """
        _refuse_coroutines(work)
        piece = Piece(_checked, (work, *args), float("inf"))
        self._writer.lanes.submit(piece, "rebuild")
        result: T = await piece.future
        return result

    async def close(self) -> None:
        """
        Refuse new work, answer what waits, end the readers (interrupted after 1 s), then the writer, which leaves an
        empty WAL. May be called twice, and from another loop than `open`.
        """
        self._closing = True
        self._writer.lanes.close()
        if reading := list(self._reading):
            await asyncio.wait(reading, timeout=self._limits.close_read_ms / 1000)
            for deadline in self._reading.values():
                deadline.ends_s = 0.0
            await asyncio.wait(reading)
        self._threads.shutdown()
        self._readers.dispose()
        await self._writer.leave()

    @property
    def health(self) -> Health:
        """Whether writes can be kept; never blocks."""
        return self._writer.storage.health

    @property
    def stats(self) -> Stats:
        """A copy of the counters; never blocks."""
        return self._writer.stats


def _refuse_coroutines(work: Callable[..., object]) -> None:
    if inspect.iscoroutinefunction(work):
        raise TypeError("A work or query is a plain function, not a coroutine function: it cannot await.")


def _checked(tx: Connection, work: Callable[..., T], *args: Any) -> T:
    result = work(tx, *args)
    orphans = tx.exec_driver_sql("PRAGMA foreign_key_check").all()
    if orphans:
        tables = ", ".join(sorted({row[0] for row in orphans}))
        raise StorageError(f"The change would leave rows without their parents in {tables}; nothing was changed.")
    found = tx.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if found != "ok":
        raise StorageError(f"The database did not pass its check ({found}); nothing was changed.")
    return result
