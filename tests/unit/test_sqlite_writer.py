"""The one writer: group commit, lanes, what raises, what fails, what is cancelled, and the WAL."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from service.database import (
    Busy,
    Database,
    Limits,
    StorageError,
    StorageFailed,
    StorageFull,
    UnknownOutcome,
    WorkTimeout,
)

Scenario = Callable[[Database], Coroutine[Any, Any, None]]


def error(code: int, name: str) -> sqlite3.OperationalError:
    """What the driver raises for a result code; only SQLite itself can make a real one."""
    made = sqlite3.OperationalError(f"made by a test: {name}")
    made.sqlite_errorcode, made.sqlite_errorname = code, name
    return made


class Faulty(sqlite3.Connection):
    """The writing connection, which can be told to fail a statement and writes down every one that is run on it."""

    last: Faulty
    raises: dict[str, sqlite3.Error]
    seen: list[str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        Faulty.last, self.raises, self.seen = self, {}, []
        self.set_trace_callback(self.seen.append)

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if sql in self.raises:
            raise self.raises[sql]
        return super().execute(sql, *args)


def run(tmp_path: Path, scenario: Scenario, limits: Limits | None = None, failures: list[str] | None = None) -> None:
    """Open a real file with one table, play the scenario, close."""

    async def play() -> None:
        db = await Database.open(
            f"sqlite:///{tmp_path}/caisse.db",
            on_storage_failure=[].append if failures is None else failures.append,
            limits=limits,
            connect=Faulty,
        )
        try:
            await db.write(create)
            await scenario(db)
        finally:
            await db.close()

    asyncio.run(play())


def create(tx: Connection) -> None:
    tx.execute(text("CREATE TABLE IF NOT EXISTS note (id INTEGER PRIMARY KEY, word TEXT NOT NULL)"))


def add(tx: Connection, word: str) -> None:
    tx.execute(text("INSERT INTO note (word) VALUES (:word)"), {"word": word})


def words(tx: Connection) -> list[str]:
    return [row[0] for row in tx.execute(text("SELECT word FROM note ORDER BY id"))]


def add_and_raise(tx: Connection, word: str) -> None:
    add(tx, word)
    raise LookupError(word)


class Gate:
    """A work that holds the writer until it is let go, so that others pile up behind it."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self, tx: Connection) -> None:
        self.entered.set()
        assert self.opened.wait(10)

    async def shut(self, db: Database) -> asyncio.Task[None]:
        holder = asyncio.create_task(db.write(self))
        await asyncio.to_thread(self.entered.wait, 10)
        return holder


async def until(condition: Callable[[], bool], within_s: float = 5) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110  The writer thread sets no asyncio events.
            await asyncio.sleep(0.005)


def waits(db: Database, pieces: int) -> Callable[[], bool]:
    return lambda: db.stats.waiting == pieces


def test_the_live_connection_has_what_durability_needs(tmp_path: Path) -> None:
    """WAL, FULL, foreign keys and no checkpoint of SQLite's own are in force on the connection that writes."""

    async def scenario(db: Database) -> None:
        def pragmas(tx: Connection) -> dict[str, Any]:
            names = ("journal_mode", "synchronous", "foreign_keys", "wal_autocheckpoint")
            return {name: tx.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}

        found = await db.write(pragmas)
        assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "wal_autocheckpoint": 0}

    run(tmp_path, scenario)


def test_a_connection_that_ignores_a_pragma_is_refused(tmp_path: Path) -> None:
    """When FULL is not in force after it was asked for, the database does not open."""

    class Careless(sqlite3.Connection):
        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            return super().execute("SELECT 1" if sql == "PRAGMA synchronous=2" else sql.replace("=wal", "=wal"), *args)

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            super().execute("PRAGMA synchronous=1")

    async def play() -> None:
        with pytest.raises(StorageError, match="synchronous 1, and must have 2"):
            await Database.open(f"sqlite:///{tmp_path}/caisse.db", on_storage_failure=print, connect=Careless)

    asyncio.run(play())


def test_what_waits_is_committed_together(tmp_path: Path) -> None:
    """Sixty works that wait share one transaction, and each caller gets its own answer."""

    async def scenario(db: Database) -> None:
        gate = Gate()
        holder = await gate.shut(db)
        tasks = [asyncio.create_task(db.write(lambda tx, i: (add(tx, f"{i}"), i)[1], i)) for i in range(60)]
        await until(waits(db, 60))
        commits = db.stats.commits
        gate.opened.set()
        assert await asyncio.gather(*tasks) == list(range(60))
        await holder
        assert db.stats.commits - commits == 1
        assert db.stats.largest_batch == 61

    run(tmp_path, scenario, Limits(batch_ms=10_000))


def test_a_batch_has_at_most_its_pieces(tmp_path: Path) -> None:
    """However much waits, one transaction takes no more than the limit, and the background still gets its one piece."""

    async def scenario(db: Database) -> None:
        gate = Gate()
        holder = await gate.shut(db)
        tasks = [asyncio.create_task(db.write(add, "x", lane="intake")) for _ in range(50)]
        tasks.append(asyncio.create_task(db.write(add, "b")))
        await until(waits(db, 51))
        gate.opened.set()
        await asyncio.gather(holder, *tasks)
        assert db.stats.largest_batch == 10
        assert (await db.read(words)).index("b") < 20, "the gate was the background of the first batch"

    run(tmp_path, scenario, Limits(batch_pieces=10, batch_ms=10_000))


def test_a_lane_keeps_its_order_and_a_caller_sees_what_it_wrote(tmp_path: Path) -> None:
    """Pieces of a lane are committed in the order they came, and a read after a write finds it."""

    async def scenario(db: Database) -> None:
        await asyncio.gather(*[db.write(add, f"{i:03}") for i in range(300)])
        assert await db.read(words) == [f"{i:03}" for i in range(300)]
        for i in range(20):
            await db.write(add, f"own {i}")
            assert (await db.read(words))[-1] == f"own {i}"
            assert (await db.write(words))[-1] == f"own {i}"

    run(tmp_path, scenario)


def test_a_flood_of_background_work_does_not_starve_intake(tmp_path: Path) -> None:
    """Intake that arrives behind a full background lane goes first; the background goes on meanwhile."""

    async def scenario(db: Database) -> None:
        gate = Gate()
        holder = await gate.shut(db)
        flood = [asyncio.create_task(db.write(add, "background")) for _ in range(200)]
        intake = [asyncio.create_task(db.write(add, "intake", lane="intake")) for _ in range(20)]
        await until(waits(db, 220))
        gate.opened.set()
        await asyncio.gather(holder, *flood, *intake)
        found = await db.read(words)
        assert [i for i, word in enumerate(found) if word == "intake"][-1] < 40
        assert len(found) == 220

        # While intake never stops, each batch still takes one piece of background.
        on, hard = True, asyncio.Event()

        async def knock() -> None:
            while on:
                await db.write(add, "intake", lane="intake")
                hard.set()

        knocking = [asyncio.create_task(knock()) for _ in range(16)]
        await hard.wait()
        await asyncio.wait_for(asyncio.gather(*[db.write(add, "late") for _ in range(50)]), 10)
        on = False
        await asyncio.gather(*knocking)

    run(tmp_path, scenario)


def test_a_batch_takes_one_piece_of_background_when_both_wait(tmp_path: Path) -> None:
    """Intake never waits for more than one piece of background to run in its own transaction."""

    async def scenario(db: Database) -> None:
        gate = Gate()
        holder = await gate.shut(db)  # the one piece of background of the first batch
        tasks = [asyncio.create_task(db.write(add, "background")) for _ in range(20)]
        tasks += [asyncio.create_task(db.write(add, "intake", lane="intake")) for _ in range(3)]
        await until(waits(db, 23))
        gate.opened.set()
        await asyncio.gather(holder, *tasks)
        assert await db.read(words) == ["intake"] * 3 + ["background"] * 20
        assert db.stats.largest_batch == 20

    run(tmp_path, scenario, Limits(batch_ms=10_000))


def test_a_work_that_raises_fails_alone(tmp_path: Path) -> None:
    """Its neighbours are committed exactly once, nothing of it is kept, and only its caller hears of it."""

    async def scenario(db: Database) -> None:
        gate = Gate()
        holder = await gate.shut(db)
        tasks = [asyncio.create_task(db.write(add_and_raise if i == 5 else add, f"{i}")) for i in range(10)]
        await until(waits(db, 10))
        gate.opened.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        await holder
        assert [type(answer) for answer in answers] == [type(None)] * 5 + [LookupError] + [type(None)] * 4
        assert sorted(await db.read(words)) == sorted(f"{i}" for i in range(10) if i != 5)
        assert db.stats.reruns >= 1

    run(tmp_path, scenario, Limits(batch_ms=10_000))


def test_a_work_that_raised_because_of_its_neighbour_gets_its_own_transaction(tmp_path: Path) -> None:
    """Alone, last, it may succeed: what it saw of the batch was never committed."""

    async def scenario(db: Database) -> None:
        tries: list[int] = []

        def wants_company(tx: Connection) -> int:
            tries.append(len(words(tx)))
            if len(tries) == 1:
                raise LookupError
            return len(tries)

        gate = Gate()
        holder = await gate.shut(db)
        tasks = [asyncio.create_task(db.write(add, "before")), asyncio.create_task(db.write(wants_company))]
        tasks += [asyncio.create_task(db.write(add, "after"))]
        await until(waits(db, 3))
        gate.opened.set()
        assert await asyncio.gather(*tasks) == [None, 2, None]
        await holder
        assert tries == [1, 2], "first it saw its uncommitted neighbour, then what both of them had committed"

    run(tmp_path, scenario, Limits(batch_ms=10_000))


@pytest.mark.parametrize("every", [100, 2, 1])
def test_many_that_raise_harm_nobody(tmp_path: Path, every: int) -> None:
    """With one work of a hundred, of two, or all of them raising, the others are kept once and runs stay bounded."""

    async def scenario(db: Database) -> None:
        runs = 0

        def work(tx: Connection, i: int) -> None:
            nonlocal runs
            runs += 1
            (add_and_raise if i % every == 0 else add)(tx, f"{i:03}")

        answers = await asyncio.gather(*[db.write(work, i) for i in range(400)], return_exceptions=True)
        assert [isinstance(answer, LookupError) for answer in answers] == [i % every == 0 for i in range(400)]
        assert sorted(await db.read(words)) == [f"{i:03}" for i in range(400) if i % every]
        assert runs < 400 * 8, "one run of the whole batch for each that raises would be quadratic"

    run(tmp_path, scenario, Limits(batch_ms=10_000))


def test_stop_iteration_reaches_its_caller(tmp_path: Path) -> None:
    """An exception that a future refuses to carry must not leave the caller waiting for ever."""

    async def scenario(db: Database) -> None:
        with pytest.raises(RuntimeError, match="StopIteration"):
            await asyncio.wait_for(db.write(lambda tx: next(iter(()))), 5)
        await db.write(add, "alive")

    run(tmp_path, scenario)


def test_coroutines_are_refused(tmp_path: Path) -> None:
    """A work that could await is a TypeError, also when it hides behind a lambda."""

    async def scenario(db: Database) -> None:
        async def wrong(tx: Connection) -> None: ...

        with pytest.raises(TypeError):
            await db.write(wrong)
        with pytest.raises(TypeError):
            await db.write(lambda tx: wrong(tx))  # noqa: PLW0108  Hidden on purpose.
        with pytest.raises(TypeError):
            await db.read(wrong)

    run(tmp_path, scenario)


@pytest.mark.parametrize("at", ["BEGIN IMMEDIATE", "COMMIT"])
def test_a_failing_begin_or_commit_is_unknown_and_never_run_again(tmp_path: Path, at: str) -> None:
    """All in the batch hear UnknownOutcome, no work runs twice, and the writer serves the next ones."""

    async def scenario(db: Database) -> None:
        runs: list[int] = []

        def work(tx: Connection, i: int) -> None:
            runs.append(i)
            add(tx, f"{i}")

        Faulty.last.raises[at] = error(sqlite3.SQLITE_BUSY, "SQLITE_BUSY")
        answers = await asyncio.gather(*[db.write(work, i) for i in range(10)], return_exceptions=True)
        assert {type(answer) for answer in answers} == {UnknownOutcome}
        assert len(runs) == len(set(runs))
        assert db.stats.unknown == 10
        Faulty.last.raises.clear()
        assert not Faulty.last.in_transaction
        await db.write(add, "next")
        assert await db.read(words) == ["next"]
        assert db.health.writable

    run(tmp_path, scenario)


@pytest.mark.parametrize("how", ["tx.commit()", "tx.rollback()", "with tx.begin()", "COMMIT"])
def test_a_work_that_ends_the_transaction_is_found_out(tmp_path: Path, how: str) -> None:
    """SQLAlchemy's own ways raise in the work; raw SQL fails the batch visibly. The writer goes on."""

    async def scenario(db: Database) -> None:
        def work(tx: Connection) -> None:
            add(tx, "half")
            match how:
                case "tx.commit()":
                    tx.commit()
                case "tx.rollback()":
                    tx.rollback()
                case "with tx.begin()":
                    with tx.begin():
                        pass
                case _:
                    tx.exec_driver_sql(how)

        with pytest.raises(UnknownOutcome if how == "COMMIT" else Exception) as caught:
            await db.write(work)
        await db.write(add, "next")
        assert await db.read(words) == (["half", "next"] if how == "COMMIT" else ["next"])
        assert isinstance(caught.value, UnknownOutcome) == (how == "COMMIT")

    run(tmp_path, scenario)


def test_nothing_runs_after_a_work_that_ended_the_transaction(tmp_path: Path) -> None:
    """Its neighbours behind it do not run outside a transaction: they get the next one, and are told they were kept."""

    async def scenario(db: Database) -> None:
        gate = Gate()
        holder = await gate.shut(db)
        wrong = asyncio.create_task(db.write(lambda tx: tx.exec_driver_sql("ROLLBACK").close()))
        right = asyncio.create_task(db.write(add, "right"))
        await until(waits(db, 2))
        gate.opened.set()
        answers = await asyncio.gather(holder, wrong, right, return_exceptions=True)
        assert [type(answer) for answer in answers] == [UnknownOutcome, UnknownOutcome, type(None)]
        assert await db.read(words) == ["right"]

    run(tmp_path, scenario, Limits(batch_ms=10_000))


def test_cancelled_callers_abandon_only_the_waiting(tmp_path: Path) -> None:
    """Six hundred callers cancelled around the commit: all their work is kept, once, and the thread lives."""

    async def scenario(db: Database) -> None:
        tasks = []
        for i in range(600):
            tasks.append(asyncio.create_task(db.write(add, f"{i:03}")))
            await asyncio.sleep(0)
            if i % 7 == 0:
                await asyncio.sleep(0.0005)
            if i >= 5:
                tasks[i - 5].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        cancelled = sum(isinstance(answer, asyncio.CancelledError) for answer in answers)
        assert 20 <= cancelled < 600, "the test must meet both kinds"
        await db.write(add, "last")
        assert await db.read(words) == [*(f"{i:03}" for i in range(600)), "last"]

    run(tmp_path, scenario)


def test_a_closed_loop_does_not_kill_the_writer(tmp_path: Path) -> None:
    """A loop that ended with pieces waiting is forgotten; their work is kept, and another loop can go on and close."""
    gate = Gate()

    async def first() -> Database:
        db = await Database.open(f"sqlite:///{tmp_path}/caisse.db", on_storage_failure=print)
        await db.write(create)
        holder = await gate.shut(db)
        for i in range(5):
            asyncio.create_task(db.write(add, f"{i}"))  # noqa: RUF006  They are to be forgotten.
        await until(waits(db, 5))
        holder.cancel()
        return db

    async def second() -> None:
        gate.opened.set()
        await db.write(add, "second")
        assert await db.read(words) == ["0", "1", "2", "3", "4", "second"]
        await db.close()

    db = asyncio.run(first())
    asyncio.run(second())


def test_close_answers_what_waits_and_leaves_no_wal(tmp_path: Path) -> None:
    """Everything that was taken is committed before the thread ends; what comes later is refused."""

    async def scenario(db: Database) -> None:
        gate = Gate()
        holder = await gate.shut(db)
        tasks = [asyncio.create_task(db.write(add, f"{i}")) for i in range(30)]
        await until(waits(db, 30))
        closing = asyncio.create_task(db.close())
        await asyncio.sleep(0.01)
        with pytest.raises(Busy):
            await db.write(add, "late")
        with pytest.raises(Busy):
            await db.read(words)
        gate.opened.set()
        await asyncio.gather(closing, holder, *tasks)
        await db.close()
        wal = tmp_path / "caisse.db-wal"
        assert not wal.exists() or wal.stat().st_size == 0
        with sqlite3.connect(tmp_path / "caisse.db") as raw:
            assert raw.execute("SELECT count(*) FROM note").fetchone() == (30,)
        raw.close()
        assert "PRAGMA wal_checkpoint(TRUNCATE)" in Faulty.last.seen

    run(tmp_path, scenario)


def test_a_full_lane_is_busy(tmp_path: Path) -> None:
    """The queue is bounded for each lane: one more is refused at once, and the other lane still takes work."""

    async def scenario(db: Database) -> None:
        gate = Gate()
        holder = await gate.shut(db)
        tasks = [asyncio.create_task(db.write(add, f"{i}")) for i in range(8)]
        await until(waits(db, 8))
        with pytest.raises(Busy, match="Too much is waiting"):
            await db.write(add, "one too many")
        tasks.append(asyncio.create_task(db.write(add, "intake", lane="intake")))
        await until(waits(db, 9))
        gate.opened.set()
        await asyncio.gather(holder, *tasks)
        assert len(await db.read(words)) == 9

    run(tmp_path, scenario, Limits(lane_pieces=8))


def test_a_full_disk_is_never_acknowledged_and_heals_by_itself(tmp_path: Path) -> None:
    """SQLITE_FULL of SQLite's own making: refused, unhealthy at once, and healthy again when there is room."""

    async def scenario(db: Database) -> None:
        def pages(tx: Connection, more: int) -> None:
            tx.exec_driver_sql(f"PRAGMA max_page_count={tx.exec_driver_sql('PRAGMA page_count').scalar_one() + more}")

        kept = 0
        await db.write(pages, 20)
        full = False
        while not full:
            try:
                await db.write(add, "x" * 4000)
                kept += 1
            except StorageFull:
                full = True
        assert 0 < kept < 100
        assert not db.health.writable
        assert "full" in db.health.reason
        with pytest.raises(StorageFull):
            await db.write(add, "x" * 400_000)
        await db.write(lambda tx: None)
        assert not db.health.writable, "a commit of nothing proves nothing"
        await asyncio.sleep(0.15)
        assert not db.health.writable, "three probes, and still no room"
        await db.write(pages, 6)
        await asyncio.sleep(0.15)
        assert not db.health.writable, "room for a few pages is not room to work in"
        await db.write(pages, 1000)
        await until(lambda: db.health.writable, 2)
        await db.write(add, "y")
        assert await db.read(words) == ["x" * 4000] * kept + ["y"]
        assert not Faulty.last.in_transaction
        assert (
            await db.read(lambda tx: tx.scalar(text("SELECT count(*) FROM sqlite_master WHERE name LIKE '%probe%'")))
            == 0
        )

    run(tmp_path, scenario, Limits(probe_ms=40))


def test_a_full_disk_fails_the_whole_batch_and_blames_no_work(tmp_path: Path) -> None:
    """The neighbours of the piece that met the full disk hear StorageFull too, and nothing of the batch is kept."""

    async def scenario(db: Database) -> None:
        await db.write(lambda tx: tx.exec_driver_sql("PRAGMA max_page_count=4").close())
        gate = Gate()
        holder = await gate.shut(db)
        tasks = [asyncio.create_task(db.write(add, "small" if i < 5 else "x" * 100_000)) for i in range(6)]
        await until(waits(db, 6))
        gate.opened.set()
        answers = await asyncio.gather(holder, *tasks, return_exceptions=True)
        assert [type(answer) for answer in answers[1:]] == [StorageFull] * 6
        assert await db.read(words) == []

    run(tmp_path, scenario, Limits(batch_ms=10_000, probe_ms=60_000))


@pytest.mark.parametrize(
    ("fault", "scarce_bytes"),
    [
        (error(sqlite3.SQLITE_FULL, "SQLITE_FULL"), 0),
        (error(sqlite3.SQLITE_IOERR_WRITE, "SQLITE_IOERR_WRITE"), 1 << 62),
    ],
)
def test_a_commit_on_a_full_disk_is_refused_and_a_good_write_heals(
    tmp_path: Path, fault: sqlite3.Error, scarce_bytes: int
) -> None:
    """FULL at COMMIT, or an I/O error while hardly anything is free: StorageFull, no failure of storage."""
    failures: list[str] = []

    async def scenario(db: Database) -> None:
        Faulty.last.raises["COMMIT"] = fault
        with pytest.raises(StorageFull):
            await db.write(add, "a")
        assert not db.health.writable
        assert not Faulty.last.in_transaction
        Faulty.last.raises.clear()
        await db.write(add, "b")
        assert db.health.writable
        assert await db.read(words) == ["b"]

    run(tmp_path, scenario, Limits(probe_ms=60_000, scarce_bytes=scarce_bytes), failures)
    assert failures == []


@pytest.mark.parametrize("name", ["SQLITE_IOERR_FSYNC", "SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_READONLY"])
def test_broken_storage_stops_the_service(tmp_path: Path, name: str) -> None:
    """Any other I/O error or a corrupt file is told once, fails the batch, and refuses all further work."""
    failures: list[str] = []

    async def scenario(db: Database) -> None:
        Faulty.last.raises["COMMIT"] = error(getattr(sqlite3, name), name)
        answers = await asyncio.gather(*[db.write(add, f"{i}") for i in range(20)], return_exceptions=True)
        assert {type(answer) for answer in answers} <= {UnknownOutcome, StorageFailed}
        assert UnknownOutcome in {type(answer) for answer in answers}
        Faulty.last.raises.clear()
        with pytest.raises(StorageFailed):
            await db.write(add, "more")
        assert not db.health.writable
        assert name in db.health.reason
        assert await db.read(words) == []

    run(tmp_path, scenario, Limits(scarce_bytes=0), failures)
    assert len(failures) == 1
    assert name in failures[0]


def test_a_corrupt_page_met_by_a_reader_stops_the_service(tmp_path: Path) -> None:
    """The readers see most of the file; what they find counts too."""
    failures: list[str] = []

    async def fill(db: Database) -> None:
        await db.write(lambda tx: [add(tx, "x" * 3000) for _ in range(50)])

    async def scenario(db: Database) -> None:
        for _ in range(2):
            with pytest.raises(StorageFailed):
                await db.read(words)
        with pytest.raises(StorageFailed):
            await db.write(add, "more")

    run(tmp_path, fill)
    with (tmp_path / "caisse.db").open("r+b") as file:
        file.seek(4096 * 20)
        file.write(b"\xff" * 4096 * 20)
    run(tmp_path, scenario, Limits(scarce_bytes=0), failures)
    assert len(failures) == 1


def test_a_bug_of_the_writer_itself_is_not_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody foresaw in the thread ends the service instead of the thread."""
    failures: list[str] = []

    async def scenario(db: Database) -> None:
        monkeypatch.setattr(db._writer, "_housekeeping", lambda idle: 1 / 0)
        with suppress(StorageFailed):  # The batch before this one may have met it already.
            await db.write(add, "a")
        await until(lambda: bool(failures))
        with pytest.raises(StorageFailed):
            await db.write(add, "b")

    run(tmp_path, scenario, failures=failures)


def test_no_update_is_lost(tmp_path: Path) -> None:
    """
    Four hundred read-then-write transactions at once count to four hundred.

    With SQLAlchemy's defaults (a deferred transaction, begun by the driver before the first write) 318 of these were
    lost, and all of them reported success.
    """

    async def scenario(db: Database) -> None:
        def count(tx: Connection) -> None:
            found = tx.execute(text("SELECT word FROM note WHERE id = 1")).scalar_one()
            tx.execute(text("UPDATE note SET word = :word WHERE id = 1"), {"word": str(int(found) + 1)})

        await db.write(add, "0")
        await asyncio.gather(*[db.write(count, lane=("intake", "background")[i % 2]) for i in range(400)])
        assert await db.read(words) == ["400"]

    run(tmp_path, scenario)


def test_every_write_transaction_begins_immediate(tmp_path: Path) -> None:
    """The trace of the writing connection knows no other BEGIN, and no change outside one."""

    async def scenario(db: Database) -> None:
        Faulty.last.seen.clear()
        await asyncio.gather(
            *[db.write(add_and_raise if i % 9 == 0 else add, f"{i}") for i in range(100)], return_exceptions=True
        )
        inside = False
        begins = 0
        for statement in Faulty.last.seen:
            word = statement.split()[0].upper()
            if word == "BEGIN":
                assert statement == "BEGIN IMMEDIATE"
                inside, begins = True, begins + 1
            elif word in ("COMMIT", "ROLLBACK"):
                inside = False
            else:
                assert inside or word == "PRAGMA", statement
        assert begins >= 10

    run(tmp_path, scenario)


def test_a_work_that_runs_too_long_is_interrupted_alone(tmp_path: Path) -> None:
    """The runaway query ends at its limit, is not tried again, and its neighbours are kept."""

    async def scenario(db: Database) -> None:
        runs = 0

        def forever(tx: Connection) -> None:
            nonlocal runs
            runs += 1
            add(tx, "half")
            endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
            tx.execute(text(f"INSERT INTO note (word) {endless}"))

        gate = Gate()
        holder = await gate.shut(db)
        tasks: list[asyncio.Task[None]] = [asyncio.create_task(db.write(add, "before"))]
        tasks += [asyncio.create_task(db.write(forever)), asyncio.create_task(db.write(add, "after"))]
        await until(waits(db, 3))
        gate.opened.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        await holder
        assert [type(answer) for answer in answers] == [type(None), WorkTimeout, type(None)]
        assert await db.read(words) == ["before", "after"]
        assert runs == 1
        assert db.health.writable

    run(tmp_path, scenario, Limits(work_ms=200, batch_ms=10_000))


def test_a_checkpoint_waits_for_no_reader(tmp_path: Path) -> None:
    """With a reader in the way the checkpoint gives up at once and is tried later; then the WAL is empty."""

    async def scenario(db: Database) -> None:
        wal = tmp_path / "caisse.db-wal"
        reader = sqlite3.connect(tmp_path / "caisse.db", isolation_level=None)
        try:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM note").fetchall()
            slowest_s = 0.0
            while db.stats.busy_checkpoints < 3:
                began_s = time.monotonic()
                await db.write(add, "x" * 20_000)
                slowest_s = max(slowest_s, time.monotonic() - began_s)
            assert db.stats.checkpoints == 0
            assert wal.stat().st_size > 100_000
            assert slowest_s < 10, "the busy timeout of this test is 10 s: whoever waited, waited for that"
        finally:
            reader.close()
        await until(lambda: db.stats.checkpoints > 0)
        assert wal.stat().st_size == 0
        assert db.stats.wal_bytes == 0

    run(tmp_path, scenario, Limits(checkpoint_bytes=100_000, checkpoint_retry_ms=50, idle_ms=100, busy_ms=10_000))


def test_the_wal_stays_small_under_load(tmp_path: Path) -> None:
    """The file is cut at the threshold while work goes on, and emptied when there is none."""

    async def scenario(db: Database) -> None:
        largest = 0
        for _ in range(40):
            await db.write(add, "x" * 50_000)
            largest = max(largest, (tmp_path / "caisse.db-wal").stat().st_size)
        assert db.stats.checkpoints >= 5
        assert largest < 500_000
        await until(lambda: db.stats.wal_bytes == 0)

    run(tmp_path, scenario, Limits(checkpoint_bytes=200_000, idle_ms=50))


def test_work_that_goes_on_makes_no_checkpoints(tmp_path: Path) -> None:
    """Below the threshold only an idle writer empties the WAL: one checkpoint a batch would cost an fsync each."""

    async def scenario(db: Database) -> None:
        for _ in range(30):
            await db.write(add, "x")
        assert db.stats.checkpoints == 0

    run(tmp_path, scenario, Limits(idle_ms=60_000))
