"""Backups: whole while everything goes on, checked, never over another file, and nothing half under the final name."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from scheduler import Tick
from service import commands
from service.application import Application, build
from service.database import BackupFailed, Database
from service.errors import Refusal
from service.jobs.backup import backup, kept
from service.payments.tables import attention
from service.sqlite import backup as copying
from tests.support.clock import Clock
from tests.support.service import settings_of


@asynccontextmanager
async def filled(directory: Path, rows: int = 2_000) -> AsyncIterator[Database]:
    """A database with a table of so many rows of 1 kB."""
    db = await Database.open(f"sqlite:///{directory}/caisse.db", on_storage_failure=print)
    try:
        await db.write(lambda tx: tx.execute(text("CREATE TABLE payments (id INTEGER PRIMARY KEY, filler BLOB)")))
        await db.write(add, rows)
        yield db
    finally:
        await db.close()


def add(tx: Any, rows: int, size: int = 1_000) -> int:
    """So many rows more; the highest id."""
    counted = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})"
    tx.execute(text(f"INSERT INTO payments (filler) {counted} SELECT randomblob({size}) FROM n"))
    return int(tx.execute(text("SELECT max(id) FROM payments")).scalar_one())


def ids_in(path: Path) -> set[int]:
    """What a copy holds, read as anybody would who has only that file."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as copied:
        assert copied.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {row[0] for row in copied.execute("SELECT id FROM payments")}


def names_in(folder: Path) -> list[str]:
    """What is there, by name."""
    return sorted(path.name for path in folder.iterdir())


def test_a_backup_under_writes_holds_what_was_acknowledged_before_it(tmp_path: Path) -> None:
    """The writer goes on all the while; the copy is of one moment, and not earlier than the call."""

    async def story() -> None:
        async with filled(tmp_path, 6_000) as db:
            acknowledged: list[int] = []
            waited: list[float] = []
            copied = asyncio.Event()

            async def write() -> None:
                while not copied.is_set():
                    began = time.perf_counter()
                    acknowledged.append(await db.write(add, 1))
                    waited.append(time.perf_counter() - began)

            writing = asyncio.create_task(write())
            await asyncio.sleep(0.05)
            before, steps = acknowledged[-1], []
            made = await db.backup(
                tmp_path / "copy.db", lambda done, total: steps.append((done, total, len(acknowledged)))
            )
            after = acknowledged[-1]
            copied.set()
            await writing
            there = ids_in(tmp_path / "copy.db")
            assert set(range(1, before + 1)) <= there
            assert there == set(range(1, max(there) + 1))
            # It was not done while nobody could write, nor begun anew by each commit.
            assert after > max(there) and len(steps) < 50 and steps[-1][0] == steps[-1][1]
            assert max(waited) < 1.0
            assert made.rows == {"payments": len(there)} and made.bytes > 6_000_000

    asyncio.run(story())


def test_a_backup_is_one_private_file(tmp_path: Path) -> None:
    """Nobody else may read it, it needs no second file beside it, and the WAL is folded again afterwards."""

    async def story() -> None:
        async with filled(tmp_path) as db:
            await db.backup(tmp_path / "copy.db")
            await db.write(add, 1)
            folded = db.stats.checkpoints
            until = time.monotonic() + 20
            while db.stats.checkpoints == folded:
                assert time.monotonic() < until
                await asyncio.sleep(0.05)
        assert names_in(tmp_path) == ["caisse.db", "copy.db"]
        assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600
        assert (tmp_path / "copy.db").read_bytes()[18:20] == b"\x01\x01", "a WAL database needs its WAL"

    asyncio.run(story())


def test_a_backup_writes_over_nothing(tmp_path: Path) -> None:
    """Neither over a file nor through a link; and what is there stays."""

    async def story() -> None:
        async with filled(tmp_path, 1) as db:
            (tmp_path / "file.db").write_text("mine")
            (tmp_path / "link.db").symlink_to(tmp_path / "nowhere.db")
            for name in ("file.db", "link.db", "caisse.db"):
                with pytest.raises(BackupFailed, match="never writes over"):
                    await db.backup(tmp_path / name)
            with pytest.raises(BackupFailed, match="No such file"):
                await db.backup(tmp_path / "no" / "folder.db")
        assert (tmp_path / "file.db").read_text() == "mine"
        assert not (tmp_path / "nowhere.db").exists()

    asyncio.run(story())


def test_a_file_that_appears_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is taken at the end, and only if it is still free."""
    checked = copying._checked

    def late(temporary: Path) -> Any:
        (tmp_path / "copy.db").write_text("quicker")
        return checked(temporary)

    monkeypatch.setattr(copying, "_checked", late)

    async def story() -> None:
        async with filled(tmp_path, 1) as db:
            with pytest.raises(BackupFailed, match="there already"):
                await db.backup(tmp_path / "copy.db")

    asyncio.run(story())
    assert (tmp_path / "copy.db").read_text() == "quicker"
    assert not list(tmp_path.glob(".caisse-backup-*"))


@pytest.mark.parametrize("name", ["LIMIT_S", "WAL_BYTES_MAX", "SPARE_BYTES"])
def test_a_backup_that_would_cost_too_much_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A copy that goes on for ever would let the WAL fill the disk; one that does not fit is not begun."""
    monkeypatch.setattr(copying, name, 1 << 60 if name == "SPARE_BYTES" else 0)

    async def story() -> None:
        async with filled(tmp_path) as db:
            with pytest.raises(BackupFailed, match=r"took too long|WAL has grown|MB free"):
                await db.backup(tmp_path / "copy.db")
            await db.write(add, 1)

    asyncio.run(story())
    assert names_in(tmp_path) == ["caisse.db"]


def test_a_copy_that_is_not_whole_is_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails its check never has the name that a person trusts."""
    real = copying._copy

    def torn(source: Path, temporary: Path, *more: Any) -> Any:
        said = real(source, temporary, *more)
        with temporary.open("r+b") as file:
            file.seek(4096)
            file.write(os.urandom(40_000))
        return said

    monkeypatch.setattr(copying, "_copy", torn)

    async def story() -> None:
        async with filled(tmp_path) as db:
            with pytest.raises(BackupFailed):
                await db.backup(tmp_path / "copy.db")

    asyncio.run(story())
    assert names_in(tmp_path) == ["caisse.db"]


def test_closing_stops_a_backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop does not wait for a copy of many gigabytes, and leaves no connection behind it."""
    monkeypatch.setattr(copying, "PAUSE_S", 0.5)

    async def story() -> None:
        async with filled(tmp_path, 12_000) as db:
            copying_ = asyncio.create_task(db.backup(tmp_path / "copy.db"))
            await asyncio.sleep(0.2)
            await db.close()
            with pytest.raises(BackupFailed, match="stopped"):
                await copying_
        assert names_in(tmp_path) == ["caisse.db"]

    asyncio.run(story())


KILLED = """
import asyncio, sys
from pathlib import Path
from service.database import Database
from service.sqlite import backup

async def main():
    db = await Database.open(f"sqlite:///{sys.argv[1]}/caisse.db", on_storage_failure=print)
    backup.PAUSE_S = 60
    await db.backup(Path(sys.argv[1]) / "copy.db", lambda *_: print("begun", flush=True))
asyncio.run(main())
"""


def test_a_kill_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    """What a killed one leaves is named as unfinished, and the next one takes it away."""

    async def fill() -> None:
        async with filled(tmp_path):
            pass

    asyncio.run(fill())
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n" or process.poll() is None
        process.send_signal(signal.SIGKILL)
    assert list(tmp_path.glob(".caisse-backup-*")), "it was killed in the midst of it"
    assert not (tmp_path / "copy.db").exists()

    async def again() -> None:
        db = await Database.open(f"sqlite:///{tmp_path}/caisse.db", on_storage_failure=print)
        await db.backup(tmp_path / "copy.db")
        await db.close()

    asyncio.run(again())
    assert len(ids_in(tmp_path / "copy.db")) == 2_000
    assert not list(tmp_path.glob(".caisse-backup-*"))


# --- the job and the command --------------------------------------------------------------------------


class NoTick:
    """As much of a tick as the job looks at."""

    def __init__(self, dry_run: bool = False) -> None:
        self.dry_run, self.progress = dry_run, lambda *_: None


def opened(directory: Path, story: Callable[[Application, Clock], Any], **settings: str) -> None:
    """Run a story with an application that nobody serves."""

    async def run() -> None:
        clock = Clock()
        app = build(settings_of(directory, **settings), clock=clock)
        await app.open()
        try:
            await story(app, clock)
        finally:
            await app.close()

    asyncio.run(run())


def tick(**more: Any) -> Tick:
    return NoTick(**more)  # type: ignore[return-value]


def test_the_job_keeps_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old ones go once a new one is there; what has another name is not ours. The matter closes with a success."""

    async def story(app: Application, clock: Clock) -> None:
        folder = tmp_path / "backups"
        assert await backup(app, tick(dry_run=True)) == {"made": 0, "there": 0}
        for _ in range(3):
            said = await backup(app, tick())
            clock.advance(86_400_000)
        (folder / "caisse-notes.db").write_text("mine")
        assert (said["made"], said["removed"], said["there"]) == (1, 1, 2)
        newest = [path.name for path in kept(folder)]
        assert [name[:16] for name in newest] == ["caisse-20261122T", "caisse-20261121T"]
        with monkeypatch.context() as full:
            full.setattr(copying, "SPARE_BYTES", 1 << 60)
            with pytest.raises(BackupFailed):
                await backup(app, tick())
        assert [path.name for path in kept(folder)] == newest, "nothing goes while no good new one is there"
        assert (folder / "caisse-notes.db").exists()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    opened(tmp_path, story, keep_backups="2")


def test_a_failure_is_put_before_a_person_until_the_next_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup that has silently not been made for a month is found on the worst day."""

    async def story(app: Application, clock: Clock) -> None:
        def matters(tx: Any) -> list[tuple[str, str, bool]]:
            rows = tx.execute(select(attention)).all()
            return [(row.subject, row.reason, row.closed_at_ms is None) for row in rows]

        with monkeypatch.context() as full:
            full.setattr(copying, "SPARE_BYTES", 1 << 60)
            with pytest.raises(BackupFailed, match="MB free"):
                await backup(app, tick())
        assert await app.db.read(matters) == [("backup", "backup_failed", True)]
        assert not list((tmp_path / "elsewhere").iterdir())
        await backup(app, tick())
        assert await app.db.read(matters) == [("backup", "backup_failed", False)]

    opened(tmp_path, story, backup_dir=str(tmp_path / "elsewhere"))


def test_the_folder_is_beside_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default everything is named relative to where the service was started."""
    monkeypatch.chdir(tmp_path)

    async def story(app: Application, _: Clock) -> None:
        assert (await backup(app, tick()))["there"] == 1

    opened(tmp_path, story, database_url="sqlite:///caisse.db")
    assert [path.name for path in kept(tmp_path / "backups")] == ["caisse-20261120T090000Z.db"]


def test_no_folder_means_no_backups(tmp_path: Path) -> None:
    """Switched off by an empty value, which for other settings means the default."""

    async def story(app: Application, _: Clock) -> None:
        assert app.settings.backup_path is None
        assert await backup(app, tick()) == {"made": 0}
        assert not (tmp_path / "backups").exists()

    opened(tmp_path, story, backup_dir="")


def test_the_command_says_what_is_not_in_it(tmp_path: Path) -> None:
    """Who restores it without the key file finds every sealed secret lost; and refusals come before the work."""

    async def story(app: Application, _: Clock) -> None:
        said = await commands.run(app, "backup", {"file": str(tmp_path / "one.db")})
        assert said["master_key"] == str(tmp_path / "caisse.db.key") and "caisse.db.key" in said["note"]
        assert said["revision"] and said["rows"]["payments"] == 0
        for file, code in (
            (str(tmp_path / "one.db"), "exists"),
            ("one.db", "bad_file"),
            (f"{tmp_path}/no/a.db", "bad_file"),
        ):
            with pytest.raises(Refusal) as no:
                await commands.run(app, "backup", {"file": file})
            assert no.value.code == code

    opened(tmp_path, story)
    key = (tmp_path / "caisse.db.key").read_bytes().strip()
    assert key not in (tmp_path / "one.db").read_bytes()
