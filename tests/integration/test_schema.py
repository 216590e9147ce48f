"""What the migrations make is what the code's tables say: nobody finds out in production that a column is missing."""

from __future__ import annotations

import asyncio
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine

import service.callbacks.tables
import service.escrow.tables
import service.ledger.tables
import service.merchants.tables
import service.orders.tables
import service.payments.tables
import service.routing.tables  # noqa: F401 - the tables register themselves
from service import migrations
from service.database import Database
from service.schema import metadata


def shape(tx: Connection) -> dict[str, tuple[list[tuple[object, ...]], set[str]]]:
    """Columns and indexes of every table, as SQLite sees them."""
    tables = tx.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    found = {}
    for (name,) in tables.all():
        columns = [tuple(row)[1:] for row in tx.exec_driver_sql(f"PRAGMA table_info({name})")]
        indexes = {
            f"{row[1]}:{row[2]}:{row[4]}:{[c[2] for c in tx.exec_driver_sql(f'PRAGMA index_info({row[1]})')]}"
            for row in tx.exec_driver_sql(f"PRAGMA index_list({name})")
        }
        found[name] = (columns, indexes)
    return found


def test_the_migrated_database_is_the_one_that_the_tables_describe(tmp_path: Path) -> None:
    """Column by column and index by index, and nothing for Alembic to add."""

    async def run() -> tuple[object, list[object]]:
        db = await Database.open(f"sqlite:///{tmp_path}/a.db", on_storage_failure=lambda _: None)
        try:
            assert await migrations.migrate(db) is None
            assert await migrations.migrate(db) == migrations.head()
            found = await db.read(shape)
            missing = await db.read(lambda tx: compare_metadata(MigrationContext.configure(tx), metadata))
            return found, missing
        finally:
            await db.close()

    migrated, missing = asyncio.run(run())
    engine = create_engine(f"sqlite:///{tmp_path}/b.db")
    metadata.create_all(engine)
    with engine.connect() as tx:
        described = shape(tx)
    engine.dispose()
    assert isinstance(migrated, dict)
    migrated.pop("alembic_version")
    assert described == migrated
    assert missing == []
