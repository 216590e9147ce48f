"""What an error says about the storage, and what follows: a full disk is waited for, a broken one ends the service."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Literal

from service.sqlite.terms import Health, Limits

log = logging.getLogger("caisse.database")

Trouble = Literal["full", "broken", "interrupted"]

_BROKEN = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY}


class Storage:
    """Whether the storage can keep what is written. May be asked and told from any thread."""

    def __init__(
        self, path: Path, limits: Limits, on_failure: Callable[[str], object], wake: Callable[[], object]
    ) -> None:
        self.health = Health(True)
        self.broken = ""  # the reason; once set it stays
        self.next_probe_s = 0.0
        self._path = path
        self._limits = limits
        self._on_failure = on_failure
        self._wake = wake
        self._breaking = threading.Lock()

    def trouble_of(self, error: BaseException) -> Trouble | None:
        """What an exception says about the storage; None when it is only about the statement."""
        match code_of(error):
            case sqlite3.SQLITE_FULL:
                return "full"
            case sqlite3.SQLITE_IOERR if _free_bytes(self._path) < self._limits.scarce_bytes:
                return "full"
            case code if code in _BROKEN:
                return "broken"
            case sqlite3.SQLITE_INTERRUPT:
                return "interrupted"
            case _:
                return None

    def hear(self, error: BaseException) -> Trouble | None:
        """The same, and what it says is taken to heart."""
        trouble = self.trouble_of(error)
        if trouble == "full":
            self._unwritable(error)
        elif trouble == "broken":
            self.fail(error)
        return trouble

    def _unwritable(self, error: BaseException) -> None:
        """The disk is full: not healthy until a write or the probe succeeds."""
        if self.health.writable:
            self.health = Health(False, f"The disk is full: {one_line(error)}")
            self.next_probe_s = monotonic() + self._limits.probe_ms / 1000
            log.error("storage.full", extra={"reason": one_line(error)})
            self._wake()  # a sleeping thread has to wake for the probe

    def fail(self, error: BaseException) -> None:
        """The storage is broken: say so everywhere, once; all further work is refused."""
        with self._breaking:
            if self.broken:
                return
            self.broken = f"The storage failed: {one_line(error)}"
        self.health = Health(False, self.broken)
        log.critical("storage.failed", extra={"reason": self.broken}, exc_info=error)
        try:
            self._on_failure(self.broken)
        except Exception:
            log.exception("storage.failure_handler_raised")

    def well(self) -> None:
        """Something was truly written: a full disk has room again."""
        if not self.health.writable:
            with self._breaking:
                if not self.broken:
                    self.health = Health(True)
                    log.info("storage.recovered")


def code_of(error: BaseException) -> int | None:
    """The primary SQLite result code behind an exception, however deep it was wrapped, or None."""
    for one in _behind(error):
        code: int | None = getattr(one, "sqlite_errorcode", None)
        if code is not None:
            return code & 0xFF
    return None


def one_line(error: BaseException) -> str:
    """The driver's own words. SQLAlchemy's text would carry the statement and its parameters into logs and /readyz."""
    for one in _behind(error):
        return f"{one} ({getattr(one, 'sqlite_errorname', type(one).__name__)})"
    return type(error).__name__


def _behind(error: BaseException | None) -> Iterator[sqlite3.Error]:
    """SQLite's errors among an exception and what led to it, outermost first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, sqlite3.Error):
            yield error
        error = getattr(error, "orig", None) or error.__cause__ or error.__context__


def _free_bytes(path: Path) -> int:
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return 1 << 62  # a disk that cannot even be asked is broken, not full
    return disk.f_bavail * disk.f_frsize
