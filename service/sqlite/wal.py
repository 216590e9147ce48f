"""Checkpoints: folding the WAL into the database, when the writer has nothing better to do or when it grew large."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from time import monotonic

from service.sqlite.terms import Limits, Stats
from service.sqlite.trouble import Storage


class Wal:
    """The WAL of the writing connection; all of it belongs to the writer's thread."""

    def __init__(self, raw: sqlite3.Connection, path: Path, limits: Limits, stats: Stats, storage: Storage) -> None:
        self.unfolded = True  # it may hold something that is not in the database file yet
        self._raw = raw
        self._path = Path(f"{path}-wal")
        self._limits = limits
        self._stats = stats
        self._storage = storage
        self._next_fold_s = 0.0

    def nap_s(self) -> float | None:
        """How long nothing needs folding unless something is written; None for ever."""
        return max(self._limits.idle_ms / 1000, self._next_fold_s - monotonic()) if self.unfolded else None

    def wants_folding(self, idle: bool) -> bool:
        """Whether now is the moment: it is large, or nobody waits; and the last reader in the way had its time."""
        wanted = self.unfolded and (idle or self._stats.wal_bytes >= self._limits.checkpoint_bytes)
        return wanted and monotonic() >= self._next_fold_s

    def fold(self) -> None:
        """Fold the WAL into the database and empty it. With a reader in the way, try again later; it never waits."""
        try:
            # With the ordinary timeout a reader that stays open held the writer for all of it, 5 s by default.
            self._raw.execute("PRAGMA busy_timeout=0")
            try:
                busy = self._raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            finally:
                self._raw.execute(f"PRAGMA busy_timeout={self._limits.busy_ms}")
        except sqlite3.Error as error:
            busy = 1
            self._storage.hear(error)
        if busy:
            self._stats.busy_checkpoints += 1
        else:
            self._stats.checkpoints += 1
            self.unfolded = False
        self._next_fold_s = monotonic() + self._limits.checkpoint_retry_ms / 1000 if busy else 0.0
        self.measure()

    def measure(self) -> None:
        """Look how large it is."""
        try:
            self._stats.wal_bytes = self._path.stat().st_size
        except OSError:
            self._stats.wal_bytes = 0
