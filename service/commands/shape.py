"""How rows become JSON: times as RFC 3339, nothing but what is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import RowMapping

from service.errors import Refusal
from service.merchants.audit import By
from service.merchants.events import rfc3339

if TYPE_CHECKING:
    from service.application import Application

Row = Mapping[str, Any] | RowMapping

LIMIT = 50
LIMIT_MAX = 500


def told(row: Row, *leave_out: str) -> dict[str, Any]:
    """A row for people and programs: `…_at_ms` becomes `…_at`."""
    return {
        name.removesuffix("_ms") if _is_time(name) else name: rfc3339(value) if _is_time(name) else value
        for name, value in row.items()
        if name not in leave_out
    }


def bounded(limit: int) -> int:
    """A page has a limit."""
    if not 1 <= limit <= LIMIT_MAX:
        raise Refusal("bad_limit", f"The limit is between 1 and {LIMIT_MAX}.")
    return limit


def by(app: Application, actor: str) -> By:
    """Whose hand it is, now."""
    return By(actor, app.clock(), app.ids)


def _is_time(name: str) -> bool:
    return name == "at_ms" or name.endswith("_at_ms")
