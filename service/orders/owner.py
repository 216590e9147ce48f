"""Whose something is: every look by id goes through here, so that another merchant's id is nobody's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Connection, Select, Table, select

from service.errors import NotFound, Refusal

LISTED_MAX = 100
_MANY = {"beneficiary": "beneficiaries"}


class Owner(Protocol):
    """A merchant in one of its modes; an API key's `Caller` is one."""

    @property
    def merchant_id(self) -> str: ...

    @property
    def live(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Whose:
    """An owner that is no caller."""

    merchant_id: str
    live: bool


def row_of(row: Any) -> Whose:
    """The owner of a row that has both columns."""
    return Whose(row["merchant_id"], bool(row["live"]))


def mine(table: Table, owner: Owner) -> Select[Any]:
    """The rows of a table that are this owner's."""
    return select(table).where(table.c.merchant_id == owner.merchant_id, table.c.live == owner.live)


def find(tx: Connection, table: Table, owner: Owner, id_: str, what: str) -> dict[str, Any]:
    """One row; NotFound also for another's."""
    row = tx.execute(mine(table, owner).where(table.c.id == id_)).mappings().one_or_none()
    if row is None:
        raise NotFound(what, id_, f"GET /v1/{_MANY.get(what, f'{what}s')}")
    return dict(row)


def page_of(tx: Connection, query: Select[Any], table: Table, before: str, limit: int) -> list[dict[str, Any]]:
    """Newest first, up to `limit` (at most `LISTED_MAX`), older than the id `before`."""
    if not 1 <= limit <= LISTED_MAX:
        raise Refusal("bad_limit", f"limit: 1 to {LISTED_MAX}.")
    if before:
        query = query.where(table.c.id < before)
    return [dict(row) for row in tx.execute(query.order_by(table.c.id.desc()).limit(limit)).mappings()]
