"""The file, and how its connections are opened: the one that writes, and those that cannot."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event

from service.sqlite.terms import Limits, ReadTimeout, StorageError
from service.sqlite.trouble import one_line


def create_file(path: Path) -> None:
    """Make the empty file, private and with its name on the disk, unless it is there. Raises StorageError."""
    try:
        # Only when it is missing: closing a second descriptor of an open database would drop SQLite's locks on it.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        return
    except OSError as error:
        raise StorageError(f"The database {path} cannot be created: {error.strerror}.") from error


# --- the one that writes ------------------------------------------------------------------------------


CACHE_KB = 16 * 1024


class _Guard:
    """Mixed into the writing connection, so that `tx.commit()` inside a work raises instead of splitting the batch."""

    working = False

    def commit(self) -> None:
        if self.working:
            raise RuntimeError("A work neither commits nor rolls back: the writer does.")

    rollback = commit


def open_writing(path: Path, connect: type[sqlite3.Connection], limits: Limits, overdue: Callable[[], bool]) -> Any:
    """
    The writing connection, durable as it must be, or StorageError. It is in `autocommit`: transactions are begun and
    ended by hand. `working` tells it that a work is running, `overdue` interrupts what that runs.
    """
    factory: Any = type("WriterConnection", (_Guard, connect), {})
    try:
        raw = sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=factory)
    except sqlite3.Error as error:
        raise StorageError(f"The database {path} cannot be opened: {one_line(error)}") from error
    try:
        wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "wal_autocheckpoint": 0}
        # Temporary tables stay in memory: a full or missing /tmp must not look like a full database.
        wanted |= {"temp_store": 2, "busy_timeout": limits.busy_ms}
        # An old copy of a row that grew would otherwise outlive the erasure of a person.
        wanted |= {"secure_delete": 1}
        # kB, negative. With SQLite's own 2 MB, indexes of a million rows were read again and again from the file.
        wanted |= {"cache_size": -CACHE_KB}
        for name, value in wanted.items():
            raw.execute(f"PRAGMA {name}={value}").fetchall()
        for name, value in wanted.items():
            found = raw.execute(f"PRAGMA {name}").fetchone()[0]
            if found != value:
                raise StorageError(f"The database {path} has {name} {found}, and must have {value}.")
        raw.set_progress_handler(overdue, 10_000)
    except BaseException as error:
        raw.close()
        if isinstance(error, sqlite3.Error):
            raise StorageError(f"The database {path} cannot be opened: {one_line(error)}") from error
        raise
    return raw


# --- those that read ----------------------------------------------------------------------------------


@dataclass
class Deadline:
    """When a read is to end. Setting it to 0 interrupts the query that is running."""

    ends_s: float = 0.0

    def passed(self) -> bool:
        return monotonic() > self.ends_s


def open_readers(path: Path, limits: Limits) -> Engine:
    """
    A pool of connections that cannot write, for threads; each query is one snapshot. A read puts its `Deadline` into
    the connection's `info["deadline"][0]`: it is interrupted by it, in the midst of a statement or between two.
    """
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"isolation_level": None, "check_same_thread": False},  # by one thread at a time, not by one
        hide_parameters=True,  # an error's text is logged, and what was bound is somebody's
        poolclass=QueuePool,
        pool_size=limits.readers,
        max_overflow=0,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        # A reader that wrote or made a checkpoint would be the second connection of the WAL-reset bug.
        for pragma in ("query_only=1", "wal_autocheckpoint=0", "temp_store=2", f"busy_timeout={limits.busy_ms}"):
            connection.execute(f"PRAGMA {pragma}").close()
        slot: list[Deadline | None] = [None]
        record.info["deadline"] = slot
        connection.set_progress_handler(lambda: slot[0] is not None and slot[0].passed(), 10_000)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")  # else every statement of a query would see its own snapshot

    @event.listens_for(engine, "before_cursor_execute")
    def check(connection: Connection, *_: object) -> None:
        # A query of many short statements never runs into the progress handler.
        deadline = connection.info["deadline"][0]
        if deadline is not None and deadline.passed():
            raise ReadTimeout

    return engine
