"""
A copy of the open database into another file: consistent, checked, and there under its name only when it is whole.

It is SQLite's own copying, page by page, inside one read transaction: the copy is the database of the moment at which
it began, and writers and readers go on. What it costs is that the WAL cannot be folded meanwhile, so that it grows by
all that is written; therefore it ends with an error when it takes too long or the WAL grows too large.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

from service.sqlite.terms import StorageError
from service.sqlite.trouble import one_line

STEP_PAGES: Final = 512
PAUSE_S: Final = 0.002
"""Between two steps, 2 MB each: the disk and the processor belong to payments."""
LIMIT_S: Final = 20 * 60
WAL_BYTES_MAX: Final = 1 << 30
SPARE_BYTES: Final = 64 << 20
"""What the disk must have left when the copy is made; the WAL may stand on the same one."""
TEMPORARY: Final = ".caisse-backup-"
"""How the names of unfinished copies begin. A killed process leaves one; the next backup to its folder removes it."""
COUNTED: Final = ("merchants", "payments", "facts", "events", "postings", "callbacks", "outbox_messages")

Progress = Callable[[int, int], object]


class BackupFailed(StorageError):
    """No backup was made; nothing is left under the name that was asked for."""


@dataclass(frozen=True, slots=True)
class Copied:
    """A backup that has passed its checks. `rows`: of a few tables, the same in both."""

    path: Path
    bytes: int
    revision: str
    rows: dict[str, int]
    seconds: float


def copy(source: Path, to: Path, overdue: Callable[[], bool], progress: Progress) -> Copied:
    """
    Copy, on a thread of its own. Everything that was acknowledged before the call is in it. `overdue` is asked between
    two steps and stops it.

    Raises BackupFailed, also when there is something under the name already: it is never written over.
    """
    began_s, to = monotonic(), to.absolute()
    temporary = to.parent / f"{TEMPORARY}{to.name}"
    try:
        if os.path.lexists(to):
            raise BackupFailed(f"{to} is there already, and a backup never writes over anything.")
        remove_leftovers(to.parent)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW, 0o600))
        try:
            before = _copy(source, temporary, lambda: overdue() or monotonic() - began_s > LIMIT_S, progress)
            after = _checked(temporary)
            if before != after:
                raise BackupFailed("The copy is not what was copied: its tables have other numbers of rows.")
            _keep(temporary, to)
        finally:
            _remove(temporary)
        revision, rows = after
        return Copied(to, to.stat().st_size, revision, rows, monotonic() - began_s)
    except sqlite3.Error as error:
        raise BackupFailed(f"The backup to {to} failed: {one_line(error)}") from error
    except OSError as error:
        raise BackupFailed(f"The backup to {to} failed: {error.strerror or type(error).__name__}.") from error


def remove_leftovers(folder: Path) -> int:
    """Remove what killed backups have left in a folder; while no other backup runs. Returns how many there were."""
    found = [path for path in folder.iterdir() if path.name.startswith(TEMPORARY)]
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def _copy(source: Path, temporary: Path, overdue: Callable[[], bool], progress: Progress) -> tuple[str, dict[str, int]]:
    """All pages; what `_looked_at` finds in what was copied."""
    wal = Path(f"{source}-wal")

    def step(_: int, left: int, total: int) -> None:
        if overdue():
            raise BackupFailed("The backup was stopped: it took too long, or the service is ending.")
        if _size(wal) > WAL_BYTES_MAX:
            raise BackupFailed(f"The backup was stopped: the WAL has grown to over {WAL_BYTES_MAX >> 20} MB meanwhile.")
        progress(total - left, total)
        sleep(PAUSE_S)

    with closing(sqlite3.connect(source, isolation_level=None)) as here, closing(sqlite3.connect(temporary)) as there:
        # It neither writes nor makes a checkpoint: that is the writer's alone.
        for pragma in ("query_only=1", "wal_autocheckpoint=0", "temp_store=2"):
            here.execute(f"PRAGMA {pragma}").close()
        # The copy's durability is its `fsync` at the end: before that nobody knows it.
        for pragma in ("journal_mode=OFF", "synchronous=OFF"):
            there.execute(f"PRAGMA {pragma}").close()
        here.execute("BEGIN")
        try:
            found = _looked_at(here)
            _room(here, temporary.parent)
            # Within the transaction every step sees the same moment. Without it each commit would begin it anew.
            here.backup(there, pages=STEP_PAGES, progress=step, sleep=PAUSE_S)
        finally:
            if here.in_transaction:
                here.execute("ROLLBACK")
        # One file that needs no second one beside it; whoever opens it as a database makes it a WAL again.
        there.execute("PRAGMA journal_mode=DELETE").close()
    return found


def _checked(temporary: Path) -> tuple[str, dict[str, int]]:
    with closing(sqlite3.connect(f"{temporary.as_uri()}?mode=ro", uri=True)) as copied:
        said = copied.execute("PRAGMA quick_check(1)").fetchone()[0]
        if said != "ok":
            raise BackupFailed(f"The copy did not pass its check: {said}")
        return _looked_at(copied)


def _looked_at(connection: sqlite3.Connection) -> tuple[str, dict[str, int]]:
    """The revision, and how many rows a few tables have."""
    there = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    first = "SELECT version_num FROM alembic_version"
    row: Any = connection.execute(first).fetchone() if "alembic_version" in there else None
    counted = {
        name: int(connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0])  # noqa: S608 - names of ours
        for name in COUNTED
        if name in there
    }
    return "" if row is None else str(row[0]), counted


def _room(here: sqlite3.Connection, folder: Path) -> None:
    pages, size = (here.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    disk = os.statvfs(folder)
    needed, free = pages * size + SPARE_BYTES, disk.f_bavail * disk.f_frsize
    if free < needed:
        raise BackupFailed(f"{folder} has {free >> 20} MB free, and a backup needs {needed >> 20} MB.")


def _keep(temporary: Path, to: Path) -> None:
    """On the disk first, then under its name, which is taken only if it is free."""
    _to_disk(temporary)
    try:
        os.link(temporary, to)
    except FileExistsError:
        raise BackupFailed(f"{to} is there already, and a backup never writes over anything.") from None
    except OSError:
        if os.path.lexists(to):
            raise BackupFailed(f"{to} is there already, and a backup never writes over anything.") from None
        temporary.rename(to)  # a file system without links
    _to_disk(to.parent)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(temporary: Path) -> None:
    for path in (temporary, Path(f"{temporary}-journal"), Path(f"{temporary}-wal"), Path(f"{temporary}-shm")):
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
