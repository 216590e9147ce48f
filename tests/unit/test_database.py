"""The door: which URLs it takes, how it opens, and what readers may and may not do."""

from __future__ import annotations

import asyncio
import itertools
import os
import stat
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from service.database import (
    Busy,
    Database,
    Limits,
    ReadTimeout,
    StorageError,
    StorageFull,
    UnknownOutcome,
    UnsupportedDatabase,
    path_of,
)

ENDLESS = text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n")
SLOW = text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000000) SELECT max(i) FROM n")


def run(
    tmp_path: Path, scenario: Callable[[Database], Coroutine[Any, Any, None]], limits: Limits | None = None
) -> None:
    async def play() -> None:
        failures: list[str] = []
        db = await Database.open(f"sqlite:///{tmp_path}/caisse.db", on_storage_failure=failures.append, limits=limits)
        try:
            await db.write(lambda tx: tx.exec_driver_sql("CREATE TABLE note (word TEXT)").close())
            await scenario(db)
        finally:
            await db.close()
        assert failures == []

    asyncio.run(play())


def add(tx: Connection, word: str) -> None:
    tx.execute(text("INSERT INTO note VALUES (:word)"), {"word": word})


def count(tx: Connection) -> int:
    return int(tx.execute(text("SELECT count(*) FROM note")).scalar_one())


def endless(tx: Connection) -> Any:
    return tx.execute(ENDLESS).scalar_one()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:s3cret@host/caisse",
        "postgres://user:s3cret@host/caisse",
        "mysql://user:s3cret@host/caisse",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///caisse.db?mode=ro",
        "sqlite:///file:caisse.db",
        "sqlite+aiosqlite:///caisse.db",
        "caisse.db",
        "",
    ],
)
def test_any_other_url_is_refused_with_one_sentence(url: str) -> None:
    """Only a file behind sqlite:/// is taken; the sentence does not repeat what may hold a password."""
    with pytest.raises(UnsupportedDatabase) as caught:
        path_of(url)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_paths_are_absolute_and_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two names of one file are one database, whatever the directory is later."""
    (tmp_path / "real.db").touch()
    (tmp_path / "link.db").symlink_to("real.db")
    monkeypatch.chdir(tmp_path)
    assert path_of("sqlite:///link.db") == path_of(f"sqlite:///{tmp_path}/real.db") == (tmp_path / "real.db").resolve()


def test_the_file_is_private(tmp_path: Path) -> None:
    """Nobody else on the machine may read the database or its WAL."""

    async def scenario(db: Database) -> None:
        for name in ("caisse.db", "caisse.db-wal"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600, name

    before = os.umask(0)
    try:
        run(tmp_path, scenario)
    finally:
        os.umask(before)


@pytest.mark.parametrize("what", ["missing directory", "directory", "no database"])
def test_what_cannot_be_opened_is_one_sentence(tmp_path: Path, what: str) -> None:
    """A StorageError names the file, and no thread or descriptor is left behind."""
    path = tmp_path / "caisse.db"
    match what:
        case "missing directory":
            path = tmp_path / "missing" / "caisse.db"
        case "directory":
            path.mkdir()
        case _:
            path.write_bytes(b"this is no database, but it is long enough to be one" * 100)

    async def play() -> None:
        with pytest.raises(StorageError, match=r"caisse\.db cannot be"):
            await Database.open(f"sqlite:///{path}", on_storage_failure=print)

    asyncio.run(play())


@pytest.mark.parametrize("kind", [StorageError, Busy, StorageFull, UnknownOutcome, ReadTimeout])
def test_the_docstring_is_the_message(kind: type[StorageError]) -> None:
    """Each error says its one sentence without being told to."""
    assert str(kind()) == kind.__doc__
    assert issubclass(kind, StorageError)


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    """A write on a reading connection is refused by SQLite, and that is no failure of the storage."""

    async def scenario(db: Database) -> None:
        with pytest.raises(OperationalError, match="readonly"):
            await db.read(add, "x")
        assert db.health.writable
        await db.write(add, "y")
        assert await db.read(count) == 1

    run(tmp_path, scenario)


def test_the_live_readers_make_no_checkpoint(tmp_path: Path) -> None:
    """Every connection of the pool, not only the first, is query_only and never checkpoints."""

    async def scenario(db: Database) -> None:
        def pragmas(tx: Connection) -> tuple[Any, ...]:
            # Long enough that no connection is free again before the last of the four has begun.
            tx.execute(SLOW)
            return tuple(tx.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("query_only", "wal_autocheckpoint"))

        assert await asyncio.gather(*[db.read(pragmas) for _ in range(4)]) == [(1, 0)] * 4

    run(tmp_path, scenario)


def test_a_read_sees_one_snapshot_with_all_before_it(tmp_path: Path) -> None:
    """Two statements of one query see the same data, though a write was committed between them."""

    async def scenario(db: Database) -> None:
        await db.write(add, "before")
        first = threading.Event()

        def slowly(tx: Connection) -> tuple[int, int]:
            one = count(tx)
            first.set()
            tx.execute(SLOW)
            return one, count(tx)

        reading = asyncio.create_task(db.read(slowly))
        while not first.is_set():  # noqa: ASYNC110  A thread sets it.
            await asyncio.sleep(0)
        await db.write(add, "between")
        assert not reading.done(), "the test must meet the read while it runs"
        assert await reading == (1, 1)
        assert await db.read(count) == 2

    run(tmp_path, scenario)


def test_a_read_ends_at_its_deadline(tmp_path: Path) -> None:
    """The running statement itself is interrupted, and its connection serves the next query."""

    async def scenario(db: Database) -> None:
        answers = await asyncio.gather(*[db.read(endless, deadline_ms=100) for _ in range(8)], return_exceptions=True)
        assert {type(answer) for answer in answers} == {ReadTimeout}, "four were interrupted, four waited in vain"
        assert await asyncio.gather(*[db.read(count) for _ in range(8)]) == [0] * 8

    run(tmp_path, scenario)


def test_many_short_statements_meet_the_deadline_too(tmp_path: Path) -> None:
    """A query that loops over statements too short to be interrupted ends all the same."""

    async def scenario(db: Database) -> None:
        def loop(tx: Connection) -> None:
            # Each another: SQLite adds up the steps of a statement that is run again, and would interrupt that one.
            for i in itertools.count():
                tx.exec_driver_sql(f"SELECT {i}").scalar()

        with pytest.raises(ReadTimeout):
            await asyncio.wait_for(db.read(loop, deadline_ms=100), 5)
        assert await db.read(count) == 0

    run(tmp_path, scenario)


def test_a_cancelled_reader_gives_its_connection_back(tmp_path: Path) -> None:
    """The query of a caller that left is interrupted at once, not at its deadline."""

    async def scenario(db: Database) -> None:
        tasks = [asyncio.create_task(db.read(endless, deadline_ms=60_000)) for _ in range(4)]
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        assert all(isinstance(e, asyncio.CancelledError) for e in await asyncio.gather(*tasks, return_exceptions=True))
        assert await db.read(count, deadline_ms=3000) == 0

    run(tmp_path, scenario)


def test_what_a_query_raises_comes_out(tmp_path: Path) -> None:
    """Its own exception, unwrapped, and the connection is clean afterwards."""

    async def scenario(db: Database) -> None:
        def wrong(tx: Connection) -> None:
            count(tx)
            raise LookupError("mine")

        for _ in range(6):
            with pytest.raises(LookupError, match="mine"):
                await db.read(wrong)
        await db.write(add, "x")
        assert await asyncio.gather(*[db.read(count) for _ in range(4)]) == [1] * 4

    run(tmp_path, scenario)


def test_close_interrupts_a_query_that_does_not_end(tmp_path: Path) -> None:
    """Closing waits its grace for readers, then ends them; the writer goes last and empties the WAL."""

    async def scenario(db: Database) -> None:
        await db.write(add, "x")
        reading = asyncio.create_task(db.read(endless, deadline_ms=60_000))
        await asyncio.sleep(0.05)
        await asyncio.wait_for(db.close(), 5)
        with pytest.raises(ReadTimeout):
            await reading
        wal = tmp_path / "caisse.db-wal"
        assert not wal.exists() or wal.stat().st_size == 0

    run(tmp_path, scenario, Limits(close_read_ms=100))
