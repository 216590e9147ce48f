"""Whether the ledger may be trusted: what the newest check said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from service.ledger.tables import ledger_checks


def newest(tx: Connection) -> Mapping[str, Any] | None:
    """A query: the last check, None before the first."""
    query = select(ledger_checks).order_by(ledger_checks.c.id.desc()).limit(1)
    row = tx.execute(query).mappings().one_or_none()
    return None if row is None else dict(row)


def is_sound(tx: Connection) -> bool:
    """A query: whether money may be paid out. Before the first check nothing is known against it."""
    check = newest(tx)
    return check is None or bool(check["sound"])
