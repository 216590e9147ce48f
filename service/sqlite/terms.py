"""What callers of the database meet: its errors, its limits, its health, its counters."""

from __future__ import annotations

import inspect
from dataclasses import dataclass


class StorageError(Exception):
    """The database cannot do what was asked."""

    def __init__(self, sentence: str | None = None) -> None:
        super().__init__(sentence or inspect.getdoc(type(self)))


class Busy(StorageError):
    """Too much is waiting for the database, or it is closing; nothing was done, try again later."""


class StorageFull(StorageError):
    """The disk is full; this was not kept, try again when there is room."""

    # Not kept for certain as long as this process lives. After a power cut the frames of a COMMIT that met the full
    # disk could in theory be found whole in the WAL; whoever tries again under the same key is right either way.


class UnknownOutcome(StorageError):
    """The transaction failed as it began or ended; whether it was kept is unknown, so ask before doing it again."""


class StorageFailed(StorageError):
    """The storage failed and the service must stop; this was not kept."""


class WorkTimeout(StorageError):
    """The work took too long inside its transaction and was interrupted; nothing of it was kept."""


class ReadTimeout(StorageError):
    """The query did not end before its deadline and was interrupted."""


@dataclass(frozen=True)
class Limits:
    """Every limit of the database, in one place."""

    lane_pieces: int = 4096  # a quarter of a second at the writer's best, measured 16,000 a second
    batch_pieces: int = 256
    batch_ms: int = 5
    reruns: int = 4  # with more raising works in a batch the rest runs one by one: 256 of them would cost 256²/2 runs
    work_ms: int = 60_000  # a work that is still inside SQLite after this is interrupted
    busy_ms: int = 250  # only a foreign process can make us wait; it holds up everybody
    checkpoint_bytes: int = 8 << 20
    """Measured once, plain sqlite3, two cores, 700-byte rows in key order: a TRUNCATE checkpoint of 4 / 8 / 16 / 64 MB
    held the writer for 8 / 16 / 27-49 / 170-190 ms, and the rate over all was no better with the larger ones (80,000
    rows a second at 4 and 8 MB, 63,000-75,000 from 32 MB up)."""
    checkpoint_retry_ms: int = 500
    idle_ms: int = 1_000  # after so long without work the WAL is emptied, however small
    probe_ms: int = 500  # `/readyz` must tell the truth within a second
    probe_bytes: int = 64 << 10
    scarce_bytes: int = 16 << 20  # an I/O error with less than this free on the disk is taken for a full disk
    readers: int = 4
    close_read_ms: int = 1_000  # a query still running so long after `close` is interrupted


@dataclass(frozen=True)
class Health:
    """Whether the last write we know of could be kept, and why not."""

    writable: bool
    reason: str = ""


@dataclass
class Stats:
    """Counters since the start, and three gauges: `waiting` pieces, `wal_bytes`, and the `largest_batch` so far."""

    commits: int = 0
    pieces: int = 0  # committed ones
    batches: int = 0
    largest_batch: int = 0
    reruns: int = 0
    unknown: int = 0  # pieces whose outcome is unknown
    full: int = 0  # pieces refused because the disk was full
    checkpoints: int = 0
    busy_checkpoints: int = 0
    wal_bytes: int = 0
    waiting: int = 0
