"""
Bring a database to the shape that this version of the code knows, or refuse one that is newer.

A migration is `versions/0001_expand_begin.py` with revision "0001"; the numbers are one straight line, and each file is
named expand (adds, the code before it still runs) or contract (takes away). Alembic runs them through the one writer,
with foreign keys off: its batch change of a parent table with them on deleted every cascading child.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from service.database import Database

SCRIPTS = Path(__file__).parent


class NewerDatabase(Exception):
    """The database was made by a newer version of caisse; install that version to open it."""

    code = "database_newer"

    def __init__(self, revision: str) -> None:
        self.sentence = (
            f"The database is at revision {revision}, newer than this version of caisse: install the newer one."
        )
        super().__init__(self.sentence)


def revisions(scripts: Path = SCRIPTS) -> list[str]:
    """The revisions that the code knows, oldest first, read from the names of the files alone."""
    found = sorted(path.name.partition("_")[0] for path in (scripts / "versions").glob("[0-9]*_*.py"))
    if len(set(found)) != len(found):
        raise ValueError(f"Two migrations have one number: {', '.join(found)}.")
    return found


def head(scripts: Path = SCRIPTS) -> str | None:
    """The newest revision that the code knows; None when there is none."""
    known = revisions(scripts)
    return known[-1] if known else None


async def current(db: Database) -> str | None:
    """The revision of the database; None for an empty one."""
    return await db.read(_current)


async def migrate(db: Database, scripts: Path = SCRIPTS) -> str | None:
    """
    Bring the database to `head` in one transaction and return the revision it had before.

    Foreign keys and file are checked before the commit; whatever goes wrong is raised and leaves all as it was. At head
    already, it costs one read. Raises NewerDatabase when the code does not know the database's revision.
    """
    known, before = revisions(scripts), await current(db)
    if before is not None and before not in known:
        raise NewerDatabase(before)
    if known and before != known[-1]:
        await db.rebuild(_upgrade, scripts)
    return before


def _current(tx: Connection) -> str | None:
    if not tx.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").scalar():
        return None
    found: Any = tx.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return None if found is None else str(found)


def _upgrade(tx: Connection, scripts: Path) -> None:
    # Imported here: Alembic and Mako take 0.1 s, which a start that finds the database at head need not spend.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = tx
    command.upgrade(config, "head")
