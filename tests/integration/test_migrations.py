"""Migrations: through the one writer, with foreign keys off, checked, all or nothing."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection

from service import migrations
from service.database import Database, StorageError
from service.migrations import NewerDatabase, current, head, migrate

FIRST = """
op.create_table("parent", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String(5)))
op.create_table(
    "child",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("parent_id", sa.Integer, sa.ForeignKey("parent.id", ondelete="CASCADE"), nullable=False),
)
"""
CHANGE_PARENT = """
with op.batch_alter_table("parent") as batch:
    batch.alter_column("name", type_=sa.String(50), nullable=False)
    batch.add_column(sa.Column("country", sa.String(2)))
"""
ORPHAN = 'op.execute("DELETE FROM parent WHERE id = 1")'
BREAK = (
    'op.add_column("child", sa.Column("x", sa.Integer)); op.execute("DELETE FROM parent"); raise LookupError("broken")'
)


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    folder = tmp_path / "a folder with 100% of the scripts"
    (folder / "versions").mkdir(parents=True)
    shutil.copy(migrations.SCRIPTS / "env.py", folder)
    return folder


def script(scripts: Path, number: int, name: str, body: str) -> None:
    before = repr(f"{number - 1:04}") if number > 1 else None
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    (scripts / "versions" / f"{number:04}_{name}.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision = '{number:04}'\ndown_revision = {before}\ndef upgrade():\n{lines}"
    )


def fill(tx: Connection) -> None:
    for i in (1, 2, 3):
        tx.exec_driver_sql("INSERT INTO parent (id, name) VALUES (?, 'awa')", (i,))
        tx.exec_driver_sql("INSERT INTO child (parent_id) VALUES (?), (?)", (i, i))


def dump(tx: Connection) -> list[object]:
    tables = tx.exec_driver_sql("SELECT name, sql FROM sqlite_master ORDER BY name").all()
    rows = [
        tuple(r) for name, sql in tables if sql for r in tx.exec_driver_sql(f'SELECT * FROM "{name}"') if "TABLE" in sql
    ]
    return [*map(tuple, tables), *rows]


def children(tx: Connection) -> int:
    return int(tx.exec_driver_sql("SELECT count(*) FROM child").scalar_one())


def foreign_keys(tx: Connection) -> object:
    return tx.exec_driver_sql("PRAGMA foreign_keys").scalar()


def run(tmp_path: Path, scenario: Callable[[Database], Awaitable[None]]) -> None:
    async def play() -> None:
        db = await Database.open(f"sqlite:///{tmp_path}/caisse.db", on_storage_failure=pytest.fail)
        try:
            await scenario(db)
            assert await db.write(foreign_keys) == 1
        finally:
            await db.close()

    asyncio.run(play())


def test_a_batch_change_of_a_parent_keeps_its_children(tmp_path: Path, scripts: Path) -> None:
    """Filled tables with ON DELETE CASCADE survive the copying of the parent, and the keys still hold afterwards."""

    async def scenario(db: Database) -> None:
        script(scripts, 1, "expand_begin", FIRST)
        assert await current(db) is None
        assert await migrate(db, scripts) is None
        assert await current(db) == head(scripts) == "0001"
        await db.write(fill)
        script(scripts, 2, "expand_country", CHANGE_PARENT)
        assert await migrate(db, scripts) == "0001"
        assert await current(db) == "0002"
        assert await db.read(children) == 6
        await db.write(
            lambda tx: tx.exec_driver_sql("INSERT INTO parent (id, name, country) VALUES (9, 'x', 'BJ')").close()
        )
        await db.write(lambda tx: tx.exec_driver_sql("DELETE FROM parent WHERE id = 1").close())
        assert await db.read(children) == 4, "the children still follow their own parent"

    run(tmp_path, scenario)


@pytest.mark.parametrize(("body", "expected"), [(BREAK, LookupError), (ORPHAN, StorageError)])
def test_a_failed_migration_leaves_all_as_it_was(
    tmp_path: Path, scripts: Path, body: str, expected: type[Exception]
) -> None:
    """One that raises, and one that would leave orphans, change nothing: not the step before it either."""

    async def scenario(db: Database) -> None:
        script(scripts, 1, "expand_begin", FIRST)
        await migrate(db, scripts)
        await db.write(fill)
        before = await db.read(dump)
        script(scripts, 2, "expand_country", CHANGE_PARENT)
        script(scripts, 3, "contract_wrong", body)
        with pytest.raises(expected):
            await migrate(db, scripts)
        assert await db.read(dump) == before
        assert await db.write(foreign_keys) == 1
        await db.write(lambda tx: tx.exec_driver_sql("INSERT INTO parent (id) VALUES (9)").close())

    run(tmp_path, scenario)


def test_a_newer_database_is_refused(tmp_path: Path, scripts: Path) -> None:
    """A revision that the code does not know is one sentence, and nothing is touched."""

    async def scenario(db: Database) -> None:
        script(scripts, 1, "expand_begin", FIRST)
        await migrate(db, scripts)
        await db.write(lambda tx: tx.exec_driver_sql("UPDATE alembic_version SET version_num = '0099'").close())
        before = await db.read(dump)
        with pytest.raises(NewerDatabase, match="0099") as caught:
            await migrate(db, scripts)
        assert caught.value.code == "database_newer"
        assert await db.read(dump) == before

    run(tmp_path, scenario)


def test_two_migrations_of_one_number_are_refused(scripts: Path) -> None:
    """Two branches that were merged carelessly do not leave the order to chance."""
    script(scripts, 1, "expand_begin", FIRST)
    script(scripts, 1, "expand_other", FIRST)
    with pytest.raises(ValueError, match="one number"):
        head(scripts)


def test_at_head_alembic_is_not_even_imported(tmp_path: Path, scripts: Path) -> None:
    """A start that has nothing to migrate pays for one read and no import."""
    script(scripts, 1, "expand_begin", FIRST)
    asked = f"""
import asyncio, sys
from pathlib import Path
from service.database import Database
from service.migrations import migrate
async def main():
    db = await Database.open("sqlite:///{tmp_path}/caisse.db", on_storage_failure=print)
    try:
        print(await migrate(db, Path({str(scripts)!r})), "alembic" in sys.modules)
    finally:
        await db.close()
asyncio.run(main())
"""
    answers = [
        subprocess.run([sys.executable, "-W", "error", "-c", asked], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert answers == ["None True\n", "0001 False\n"]


def test_the_real_migrations_are_one_line() -> None:
    """Each file of ours is named for what it does, and its number, revision and order agree."""
    known = migrations.revisions()
    assert known == [f"{i + 1:04}" for i in range(len(known))]
    for path in (migrations.SCRIPTS / "versions").glob("[0-9]*.py"):
        number, kind, *_ = path.stem.split("_")
        assert kind in ("expand", "contract"), path.name
        assert f'"{number}"' in path.read_text(), path.name
