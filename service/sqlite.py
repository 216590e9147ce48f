"""
The one writer: a thread that owns the only SQLite connection that writes, commits and checkpoints.

Because no other connection ever does one of the three, SQLITE_BUSY, lost updates and the WAL-reset bug (two
connections, one committing while the other checkpoints; every SQLite before 3.51.3) cannot occur. Callers reach it
through `service.database`, which also re-exports the errors below.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from time import monotonic
from types import CoroutineType
from typing import Any, Literal

from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import StaticPool

log = logging.getLogger("caisse.database")

Lane = Literal["background", "intake"]
Work = Callable[..., Any]


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


BROKEN = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY}
UNDONE = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_INTERRUPT,
}
"""After these SQLite may have rolled the transaction back by itself (https://sqlite.org/lang_transaction.html)."""

Trouble = Literal["full", "broken", "interrupted"]


def code_of(error: BaseException | None) -> int | None:
    """The primary SQLite result code behind an exception, however deep it was wrapped, or None."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, sqlite3.Error):
            code: int | None = getattr(error, "sqlite_errorcode", None)
            if code is not None:
                return code & 0xFF
        error = getattr(error, "orig", None) or error.__cause__ or error.__context__
    return None


def trouble_of(error: BaseException, path: Path, limits: Limits) -> Trouble | None:
    """What an exception says about the storage; None when it is only about the statement."""
    match code_of(error):
        case sqlite3.SQLITE_FULL:
            return "full"
        case sqlite3.SQLITE_IOERR if _free_bytes(path) < limits.scarce_bytes:
            return "full"
        case code if code in BROKEN:
            return "broken"
        case sqlite3.SQLITE_INTERRUPT:
            return "interrupted"
        case _:
            return None


def _free_bytes(path: Path) -> int:
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return 1 << 62  # a disk that cannot even be asked is broken, not full
    return disk.f_bavail * disk.f_frsize


class _Guard:
    """Mixed into the writing connection, so that `tx.commit()` inside a work raises instead of splitting the batch."""

    working = False

    def commit(self) -> None:
        if self.working:
            raise RuntimeError("A work neither commits nor rolls back: the writer does.")

    rollback = commit


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


class Writer:
    """The writer thread. Its public methods may be called from any thread, its private ones run on its own."""

    def __init__(
        self,
        path: Path,
        on_storage_failure: Callable[[str], object],
        limits: Limits,
        connect: type[sqlite3.Connection],
    ) -> None:
        self.health = Health(True)
        self._path = path
        self._wal = Path(f"{path}-wal")
        self._on_storage_failure = on_storage_failure
        self._limits = limits
        self._connect = connect
        self._stats = Stats()
        self._lanes: dict[str, deque[Piece]] = {"intake": deque(), "background": deque(), "rebuild": deque()}
        self._arrival = threading.Condition(threading.Lock())
        self._asleep = self._closing = self._leaving = False
        self._broken = ""
        self._breaking = threading.Lock()
        self._unfolded = True  # the WAL may hold something that is not in the database file yet
        self._next_checkpoint_s = self._next_probe_s = 0.0
        self._work_ends_s = float("inf")
        self._opened: Future[None] = Future()
        self._thread = threading.Thread(target=self._live, name="caisse-writer", daemon=False)

    async def start(self) -> None:
        """Start the thread and open the database. Raises StorageError when it cannot be opened as it must be."""
        self._thread.start()
        try:
            await asyncio.shield(asyncio.wrap_future(self._opened))
        except asyncio.CancelledError:
            await self.leave()
            raise

    def submit(self, piece: Piece, lane: str) -> None:
        """Put a piece in a lane. Raises Busy when that is full or the writer is closing."""
        waiting = self._lanes[lane]
        with self._arrival:
            if self._closing:
                raise Busy("The database is closing; nothing was done.")
            if len(waiting) >= self._limits.lane_pieces:
                raise Busy
            waiting.append(piece)
            if self._asleep:
                self._arrival.notify()

    def refuse_new_work(self) -> None:
        """From here on `submit` raises Busy; what waits already is still done."""
        with self._arrival:
            self._closing = True

    async def leave(self) -> None:
        """Let the thread finish what waits, empty the WAL, close the connection and end. Idempotent."""
        with self._arrival:
            self._closing = self._leaving = True
            self._arrival.notify()
        await asyncio.to_thread(self._thread.join)

    def unwritable(self, error: BaseException) -> None:
        """The disk is full: not healthy until a write or the probe succeeds."""
        if self.health.writable:
            self.health = Health(False, f"The disk is full: {_one_line(error)}")
            self._next_probe_s = monotonic() + self._limits.probe_ms / 1000
            log.error("storage.full", extra={"reason": _one_line(error)})
            with self._arrival:
                self._arrival.notify()  # a sleeping thread has to wake for the probe

    def fail(self, error: BaseException) -> None:
        """The storage is broken: say so everywhere, once, and refuse all further work."""
        with self._breaking:
            if self._broken:
                return
            self._broken = f"The storage failed: {_one_line(error)}"
        self.health = Health(False, self._broken)
        log.critical("storage.failed", extra={"reason": self._broken}, exc_info=error)
        try:
            self._on_storage_failure(self._broken)
        except Exception:
            log.exception("storage.failure_handler_raised")

    @property
    def stats(self) -> Stats:
        return replace(self._stats, waiting=sum(map(len, self._lanes.values())))

    # The thread's life.

    def _live(self) -> None:
        try:
            self._open()
        except BaseException as error:  # noqa: BLE001  It belongs to whoever opens the database.
            self._opened.set_exception(error)
            return
        self._opened.set_result(None)
        lanes = self._lanes
        while True:
            with self._arrival:
                if not any(lanes.values()):
                    if self._leaving:
                        break
                    self._asleep = True
                    self._arrival.wait(self._nap_s())
                    self._asleep = False
            idle = True
            try:
                while lanes["rebuild"]:
                    self._rebuild(lanes["rebuild"].popleft())
                if lanes["intake"] or lanes["background"]:
                    idle = False
                    self._serve()
                self._housekeeping(idle)
            except BaseException as error:  # Ours, not the work's. A dead thread would leave every caller waiting.
                log.exception("storage.writer_raised")
                self.fail(error)
        self._close()

    def _nap_s(self) -> float | None:
        """How long nothing needs doing unless something arrives; None for ever."""
        if self._broken:
            return None
        if not self.health.writable:
            return max(0.0, self._next_probe_s - monotonic())
        return max(self._limits.idle_ms / 1000, self._next_checkpoint_s - monotonic()) if self._unfolded else None

    def _open(self) -> None:
        factory: Any = type("WriterConnection", (_Guard, self._connect), {})
        try:
            raw = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, factory=factory)
        except sqlite3.Error as error:
            raise StorageError(f"The database {self._path} cannot be opened: {_one_line(error)}") from error
        try:
            wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "wal_autocheckpoint": 0}
            # Temporary tables stay in memory: a full or missing /tmp must not look like a full database.
            wanted |= {"temp_store": 2, "busy_timeout": self._limits.busy_ms}
            for name, value in wanted.items():
                raw.execute(f"PRAGMA {name}={value}").fetchall()
            for name, value in wanted.items():
                found = raw.execute(f"PRAGMA {name}").fetchone()[0]
                if found != value:
                    raise StorageError(f"The database {self._path} has {name} {found}, and must have {value}.")
            raw.set_progress_handler(lambda: monotonic() > self._work_ends_s, 10_000)
        except BaseException as error:
            raw.close()
            if isinstance(error, sqlite3.Error):
                raise StorageError(f"The database {self._path} cannot be opened: {_one_line(error)}") from error
            raise
        self._raw = raw
        # The engine gives works their Core connection; transactions are begun and ended by hand, on the raw one.
        # (Listening to the engine's events instead costs 6 of 53 µs a piece.)
        self._engine = create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool, pool_reset_on_return=None)
        self._tx = self._begun()

    def _begun(self) -> Connection:
        tx = self._engine.connect()
        tx.begin()  # only SQLAlchemy's own idea of it: a `tx.begin()` inside a work is refused
        return tx

    def _close(self) -> None:
        if not self._broken:
            self._checkpoint()
        self._tx.close()
        self._engine.dispose()
        self._raw.close()

    # One batch.

    def _arrivals(self, batch: list[Piece]) -> Iterator[Piece]:
        """Hand out what waits and what comes meanwhile: intake first, then background, of which one when both wait."""
        intake, background = self._lanes["intake"], self._lanes["background"]
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

    def _serve(self) -> None:
        """Answer one batch of what waits. A work that raises is left out, the rest runs again, it runs alone last."""
        batch: list[Piece] = []
        arrivals = self._arrivals(batch)
        self._stats.batches += 1
        raised = self._transact(arrivals, batch)
        left_out: list[Piece] = []
        while raised is not None:
            first = raised is batch[0]  # then it had the transaction to itself already
            batch.remove(raised)
            if first or isinstance(raised.error, WorkTimeout):
                self._answer([raised])
            else:
                left_out.append(raised)
            if not batch:
                break  # What has come meanwhile is the next batch.
            self._stats.reruns += 1
            if len(left_out) > self._limits.reruns:
                left_out = batch + left_out
                break
            raised = self._transact(chain(tuple(batch), arrivals), batch)
        for piece in left_out:
            if self._transact(iter((piece,)), [piece]):
                self._answer([piece])

    def _transact(self, source: Iterator[Piece], batch: list[Piece]) -> Piece | None:
        """
        Run what `source` hands out in one transaction; `batch` holds at least that, and all of it shares one fate.

        Returns None when the batch is answered, be it with success or with the failure of the transaction; or the
        piece whose work raised, with everything rolled back and nobody answered.
        """
        raw = self._raw
        try:
            if self._broken:
                raise StorageFailed
            raw.execute("BEGIN IMMEDIATE")
        except Exception as error:  # noqa: BLE001  Whatever it was, these callers must hear of it.
            deque(source, maxlen=0)  # What waited for this BEGIN cannot wait for another: it may fail for ever.
            self._undo()
            self._lose(batch, error, StorageFailed if self._broken else UnknownOutcome)
            return None
        before = raw.total_changes
        raw.working = True
        for piece in source:
            self._work_ends_s = monotonic() + piece.limit_s
            try:
                piece.value = piece.work(self._tx, *piece.args)
                if isinstance(piece.value, CoroutineType):
                    piece.value.close()
                    raise TypeError("A work is a plain function, and must not return a coroutine.")
            except BaseException as error:  # noqa: BLE001  It belongs to the caller, all of it.
                return self._raised(piece, error, batch)
            piece.error = None
            if not raw.in_transaction:
                self._undo()
                self._lose(batch, RuntimeError(f"{piece.work!r} ended the transaction."), UnknownOutcome)
                return None
        raw.working = False
        self._work_ends_s = float("inf")
        try:
            raw.execute("COMMIT")
        except Exception as error:  # noqa: BLE001  Whatever it was, these callers must hear of it.
            self._undo()
            self._lose(batch, error, UnknownOutcome)
            return None
        self._stats.commits += 1
        self._stats.pieces += len(batch)
        self._stats.largest_batch = max(self._stats.largest_batch, len(batch))
        if raw.total_changes != before:  # A commit of nothing touches no disk, and proves nothing about it.
            self._unfolded = True
            self._well()
        self._answer(batch)
        return None

    def _raised(self, piece: Piece, error: BaseException, batch: list[Piece]) -> Piece | None:
        """A work raised: roll back, and find out whether it is the work, the storage, or worse."""
        whole = self._raw.in_transaction or code_of(error) in UNDONE
        self._undo()
        trouble = trouble_of(error, self._path, self._limits)
        if trouble == "full" or trouble == "broken":
            self._lose(batch, error, StorageFailed)
            return None
        if not whole:  # It ended the transaction by itself, and its neighbours may be half kept.
            self._lose(batch, error, UnknownOutcome)
            return None
        # Our own frame leads back to the piece and so to the error: without it, nothing here waits for the collector.
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        if trouble == "interrupted":
            piece.error = WorkTimeout()
            piece.error.__cause__ = error
        elif isinstance(error, StopIteration):  # A future refuses these, and its caller would wait for ever.
            piece.error = RuntimeError("The work raised StopIteration.")
            piece.error.__cause__ = error
        else:
            piece.error = error
        return piece

    def _undo(self) -> None:
        """No transaction is open after this, or the storage is called broken; the next work gets a fresh connection."""
        self._raw.working = False
        self._work_ends_s = float("inf")
        try:
            if self._raw.in_transaction:  # SQLite itself may have rolled back already.
                self._raw.execute("ROLLBACK")
        except Exception as error:  # noqa: BLE001  A transaction that cannot be ended leaves nothing to go on with.
            self.fail(error)
        self._tx.close()
        self._tx = self._begun()

    def _lose(self, batch: list[Piece], error: Exception | BaseException, kind: type[StorageError]) -> None:
        """The transaction failed, or the storage under it did: tell everybody in it, and never run it again."""
        match trouble_of(error, self._path, self._limits):
            case "full":
                kind = StorageFull
                self.unwritable(error)
            case "broken":
                self.fail(error)
            case "interrupted" | None:
                pass
        if kind is StorageFull:
            self._stats.full += len(batch)
        elif kind is UnknownOutcome:
            self._stats.unknown += len(batch)
            log.error("database.unknown_outcome", extra={"pieces": len(batch), "reason": _one_line(error)})
        for piece in batch:
            piece.error = kind()
            piece.error.__cause__ = error
        self._answer(batch)

    def _answer(self, pieces: list[Piece]) -> None:
        """Let the callers go on, with one wake-up of each loop for all of them."""
        loops: dict[asyncio.AbstractEventLoop, list[Piece]] = {}
        for piece in pieces:
            loops.setdefault(piece.loop, []).append(piece)
        for loop, its in loops.items():
            with suppress(RuntimeError):  # The loop is closed: nobody waits any more.
                loop.call_soon_threadsafe(_release, its)

    def _rebuild(self, piece: Piece) -> None:
        """Run one piece with foreign keys off (the pragma is ignored inside a transaction), and on again after it."""
        self._raw.execute("PRAGMA foreign_keys=OFF")
        try:
            if self._transact(iter((piece,)), [piece]):
                self._answer([piece])
        finally:
            self._raw.execute("PRAGMA foreign_keys=ON")

    # Between the batches.

    def _housekeeping(self, idle: bool) -> None:
        self._stats.wal_bytes = self._measure_wal()
        if self._broken:
            return
        if not self.health.writable:
            if monotonic() >= self._next_probe_s:
                self._probe()
            return
        wanted = self._unfolded and (idle or self._stats.wal_bytes >= self._limits.checkpoint_bytes)
        if wanted and monotonic() >= self._next_checkpoint_s:
            self._checkpoint()

    def _checkpoint(self) -> None:
        """Fold the WAL into the database and empty it. With a reader in the way, try again later; it never waits."""
        try:
            # With the ordinary timeout a reader that stays open held the writer for all of it, 5 s by default.
            self._raw.execute("PRAGMA busy_timeout=0")
            busy = self._raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            self._raw.execute(f"PRAGMA busy_timeout={self._limits.busy_ms}")
        except sqlite3.Error as error:
            busy = 1
            match trouble_of(error, self._path, self._limits):
                case "full":
                    self.unwritable(error)
                case "broken":
                    self.fail(error)
                case "interrupted" | None:
                    pass
        if busy:
            self._stats.busy_checkpoints += 1
        else:
            self._stats.checkpoints += 1
            self._unfolded = False
        self._next_checkpoint_s = monotonic() + self._limits.checkpoint_retry_ms / 1000 if busy else 0.0
        self._stats.wal_bytes = self._measure_wal()

    def _measure_wal(self) -> int:
        try:
            return self._wal.stat().st_size
        except OSError:
            return 0

    def _probe(self) -> None:
        """While the disk is full: write something that truly needs room and take it away again; well if that went."""
        self._next_probe_s = monotonic() + self._limits.probe_ms / 1000
        self._checkpoint()  # The WAL may hold the very room that is missing.
        create = "CREATE TABLE IF NOT EXISTS storage_probe (filler BLOB)"
        insert = f"INSERT INTO storage_probe VALUES (zeroblob({self._limits.probe_bytes}))"  # noqa: S608  A number of ours.
        try:
            for statements in ((create, insert), ("DROP TABLE storage_probe",)):
                self._raw.execute("BEGIN IMMEDIATE")
                for statement in statements:
                    self._raw.execute(statement)
                self._raw.execute("COMMIT")
        except sqlite3.Error as error:
            self._undo()
            if trouble_of(error, self._path, self._limits) == "broken":
                self.fail(error)
        else:
            self._unfolded = True
            self._well()

    def _well(self) -> None:
        if not self.health.writable:
            with self._breaking:
                if not self._broken:
                    self.health = Health(True)
                    log.info("storage.recovered")


def _release(pieces: list[Piece]) -> None:
    """On the callers' loop: let them go on. One that was cancelled is not there any more."""
    for piece in pieces:
        if piece.future.done():
            continue
        if piece.error is None:
            piece.future.set_result(piece.value)
        else:
            piece.future.set_exception(piece.error)


def _one_line(error: BaseException) -> str:
    """The driver's own words. SQLAlchemy's text would carry the statement and its parameters into logs and /readyz."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, sqlite3.Error):
        cause = getattr(cause, "orig", None) or cause.__cause__ or cause.__context__
    if cause is None:
        return type(error).__name__
    return f"{cause} ({getattr(cause, 'sqlite_errorname', type(cause).__name__)})"
