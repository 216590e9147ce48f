"""A statement that is executed very often, handed to the driver without a detour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Executable, Select
from sqlalchemy.sql.compiler import SQLCompiler


class Prepared:
    """
    A statement, compiled once for each database it meets and handed to the driver as it is.

    Executing an insert through Core works out the parameters of each row anew, which took a tenth of the interpreter's
    time at a thousand callbacks a second; and Core spends a third more on any statement than the driver's own door
    does, which is more than most of ours cost in SQLite. Values are the driver's own types already: integers, text,
    bytes, None.
    """

    def __init__(self, statement: Executable, columns: Iterable[str] | None = None) -> None:
        self._statement = statement
        self._columns = None if columns is None else list(columns)
        self._compiled: dict[str, tuple[str, tuple[str, ...]]] = {}

    def __call__(self, tx: Connection, rows: Sequence[Mapping[str, Any]]) -> int:
        """Execute it for every row, each a mapping of parameter names; returns how many rows were changed."""
        text, names = self._for(tx)
        return tx.exec_driver_sql(text, [tuple([row[name] for name in names]) for row in rows]).rowcount

    def rows(self, tx: Connection, parameters: Mapping[str, Any]) -> Sequence[Any]:
        """Execute it once; returns what it found."""
        text, names = self._for(tx)
        return tx.exec_driver_sql(text, tuple([parameters[name] for name in names])).all()

    def _for(self, tx: Connection) -> tuple[str, tuple[str, ...]]:
        found = self._compiled.get(tx.dialect.name)
        if found is None:
            compiled = self._statement.compile(dialect=tx.dialect, column_keys=self._columns)  # type: ignore[attr-defined]
            assert isinstance(compiled, SQLCompiler)
            found = self._compiled[tx.dialect.name] = compiled.string, tuple(compiled.positiontup or ())
        return found


class Lookup:
    """
    A select of the rows in which a column is one of many values, `bindparam("wanted", expanding=True)`, likewise. It is
    compiled for 1, 2, 4, 8 … values, and the last of them fills up what is left.
    """

    def __init__(self, statement: Select[Any]) -> None:
        self._statement = statement
        self._names = statement.selected_columns.keys()
        self._compiled: dict[tuple[str, int], str] = {}

    def __call__(self, tx: Connection, wanted: Sequence[str]) -> list[dict[str, Any]]:
        """Every row that is found, by its columns' names. Values are the driver's own: 0 and 1 for no and yes."""
        if not wanted:
            return []
        size = 1 << (len(wanted) - 1).bit_length()
        values = (*wanted, *[wanted[-1]] * (size - len(wanted)))
        rows = tx.exec_driver_sql(self._for(tx, size), values).all()
        return [dict(zip(self._names, row, strict=True)) for row in rows]

    def _for(self, tx: Connection, size: int) -> str:
        found = self._compiled.get((tx.dialect.name, size))
        if found is None:
            filled = self._statement.params(wanted=[""] * size)
            compiled = filled.compile(dialect=tx.dialect, compile_kwargs={"render_postcompile": True})
            found = self._compiled[tx.dialect.name, size] = compiled.string
        return found
