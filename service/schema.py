"""
The one MetaData. Tables live with the subject that owns them; this module only lets them meet.

Times are integer milliseconds UTC, money integer minor units, ids prefixed text that sorts by time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Insert, Integer, MetaData, Text, Update
from sqlalchemy.sql.compiler import SQLCompiler

import outbox.tables

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

outbox_tables = outbox.tables.define(metadata)


def identifier(name: str = "id") -> Column[str]:
    """A primary key made by `service.ids`."""
    return Column(name, Text, primary_key=True)


def milliseconds(name: str, nullable: bool = False) -> Column[int]:
    """A point in time: integer milliseconds UTC."""
    return Column(name, BigInteger, nullable=nullable)


def counter(name: str, default: int = 0) -> Column[int]:
    """A number that only grows."""
    return Column(name, Integer, nullable=False, default=default, server_default=str(default))


class Prepared:
    """
    A statement for many rows, compiled once for each database it meets and handed to the driver as it is.

    Executing an insert through Core works out the parameters of each row anew, which took a tenth of the interpreter's
    time at a thousand callbacks a second. Values are the driver's own types already: integers, text, bytes, None.
    """

    def __init__(self, statement: Insert | Update, columns: Iterable[str] | None = None) -> None:
        self._statement = statement
        self._columns = None if columns is None else list(columns)
        self._compiled: dict[str, tuple[str, tuple[str, ...]]] = {}

    def __call__(self, tx: Connection, rows: Sequence[Mapping[str, Any]]) -> int:
        """Execute it for every row, each a mapping of parameter names; returns how many rows were changed."""
        found = self._compiled.get(tx.dialect.name)
        if found is None:
            compiled = self._statement.compile(dialect=tx.dialect, column_keys=self._columns)
            assert isinstance(compiled, SQLCompiler)
            found = self._compiled[tx.dialect.name] = compiled.string, tuple(compiled.positiontup or ())
        text, names = found
        return tx.exec_driver_sql(text, [tuple([row[name] for name in names]) for row in rows]).rowcount
