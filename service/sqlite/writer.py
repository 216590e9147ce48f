"""The one writer: a thread that commits together what is waiting, and lets each caller go on once the disk has it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from time import monotonic
from types import CoroutineType

from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import StaticPool

from service.sqlite.connections import open_writing
from service.sqlite.lanes import Lanes, Piece
from service.sqlite.terms import Limits, Stats, StorageError, StorageFailed, StorageFull, UnknownOutcome, WorkTimeout
from service.sqlite.trouble import Storage, code_of, one_line
from service.sqlite.wal import Wal

log = logging.getLogger("caisse.database")

_UNDONE = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_INTERRUPT,
}
"""After these SQLite may have rolled the transaction back by itself (https://sqlite.org/lang_transaction.html)."""


class Writer:
    """The writer thread. Its public methods may be called from any thread, its private ones run on its own."""

    def __init__(
        self,
        path: Path,
        on_storage_failure: Callable[[str], object],
        limits: Limits,
        connect: type[sqlite3.Connection],
    ) -> None:
        self.lanes = Lanes(limits)
        self.storage = Storage(path, limits, on_storage_failure, self.lanes.wake)
        self._path = path
        self._limits = limits
        self._connect = connect
        self._stats = Stats()
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

    async def leave(self) -> None:
        """Let the thread finish what waits, empty the WAL, close the connection and end. Idempotent."""
        self.lanes.end()
        await asyncio.to_thread(self._thread.join)

    @property
    def stats(self) -> Stats:
        return replace(self._stats, waiting=self.lanes.waiting)

    # The thread's life.

    def _live(self) -> None:
        try:
            self._open()
        except BaseException as error:  # noqa: BLE001  It belongs to whoever opens the database.
            self._opened.set_exception(error)
            return
        self._opened.set_result(None)
        lanes = self.lanes
        while lanes.wait(self._nap_s):
            idle = True
            try:
                while lanes.rebuild:
                    self._rebuild(lanes.rebuild.popleft())
                if lanes.intake or lanes.background:
                    idle = False
                    self._serve()
                self._housekeeping(idle)
            except BaseException as error:  # Ours, not the work's. A dead thread would leave every caller waiting.
                log.exception("storage.writer_raised")
                self.storage.fail(error)
        self._close()

    def _nap_s(self) -> float | None:
        """How long nothing needs doing unless something arrives; None for ever."""
        if self.storage.broken:
            return None
        if not self.storage.health.writable:
            return max(0.0, self.storage.next_probe_s - monotonic())
        return self._wal.nap_s()

    def _open(self) -> None:
        raw = open_writing(self._path, self._connect, self._limits, lambda: monotonic() > self._work_ends_s)
        self._raw = raw
        self._wal = Wal(raw, self._path, self._limits, self._stats, self.storage)
        # The engine gives works their Core connection; transactions are begun and ended by hand, on the raw one.
        # (Listening to the engine's events instead costs 6 of 53 µs a piece.)
        self._engine = create_engine(
            "sqlite://", creator=lambda: raw, poolclass=StaticPool, pool_reset_on_return=None, hide_parameters=True
        )
        self._tx = self._begun()

    def _begun(self) -> Connection:
        tx = self._engine.connect()
        tx.begin()  # only SQLAlchemy's own idea of it: a `tx.begin()` inside a work is refused
        return tx

    def _close(self) -> None:
        if not self.storage.broken:
            self._wal.fold()
        self._tx.close()
        self._engine.dispose()
        self._raw.close()

    # One batch.

    def _serve(self) -> None:
        """Answer one batch of what waits. A work that raises is left out, the rest runs again, it runs alone last."""
        batch: list[Piece] = []
        arrivals = self.lanes.hand_out(batch)
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
            if self.storage.broken:
                raise StorageFailed
            raw.execute("BEGIN IMMEDIATE")
        except Exception as error:  # noqa: BLE001  Whatever it was, these callers must hear of it.
            deque(source, maxlen=0)  # What waited for this BEGIN cannot wait for another: it may fail for ever.
            self._undo()
            self._lose(batch, error, StorageFailed if self.storage.broken else UnknownOutcome)
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
            self._wal.unfolded = True
            self.storage.well()
        self._answer(batch)
        return None

    def _raised(self, piece: Piece, error: BaseException, batch: list[Piece]) -> Piece | None:
        """A work raised: roll back, and find out whether it is the work, the storage, or worse."""
        whole = self._raw.in_transaction or code_of(error) in _UNDONE
        self._undo()
        trouble = self.storage.trouble_of(error)
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
            self.storage.fail(error)
        self._tx.close()
        self._tx = self._begun()

    def _lose(self, batch: list[Piece], error: BaseException, kind: type[StorageError]) -> None:
        """The transaction failed, or the storage under it did: tell everybody in it, and never run it again."""
        if self.storage.hear(error) == "full":
            kind = StorageFull
        if kind is StorageFull:
            self._stats.full += len(batch)
        elif kind is UnknownOutcome:
            self._stats.unknown += len(batch)
            log.error("database.unknown_outcome", extra={"pieces": len(batch), "reason": one_line(error)})
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
        self._wal.measure()
        if self.storage.broken:
            return
        if not self.storage.health.writable:
            if monotonic() >= self.storage.next_probe_s:
                self._probe()
        elif self._wal.wants_folding(idle):
            self._wal.fold()

    def _probe(self) -> None:
        """While the disk is full: write something that truly needs room and take it away again; well if that went."""
        self.storage.next_probe_s = monotonic() + self._limits.probe_ms / 1000
        self._wal.fold()  # The WAL may hold the very room that is missing.
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
            self.storage.hear(error)
        else:
            self._wal.unfolded = True
            self.storage.well()


def _release(pieces: list[Piece]) -> None:
    """On the callers' loop: let them go on. One that was cancelled is not there any more."""
    for piece in pieces:
        if piece.future.done():
            continue
        if piece.error is None:
            piece.future.set_result(piece.value)
        else:
            piece.future.set_exception(piece.error)
