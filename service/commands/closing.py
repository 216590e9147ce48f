"""closing"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from service.commands.balances import owners
from service.commands.shape import LIMIT_MAX
from service.ledger import closing
from service.ledger.months import a_day

if TYPE_CHECKING:
    from service.application import Application


async def closed(app: Application, *, day: str | None = None, merchant: str | None = None) -> list[dict[str, Any]]:
    """The evening closing of a day, or of today: of each merchant and mode that had something on it."""
    chosen, zone, now_ms = a_day("day", day) if day is not None else None, app.settings.timezone, app.clock()

    def look(tx: Connection) -> list[dict[str, Any]]:
        every = [closing.of_day(tx, owner, chosen, zone, now_ms) for owner in owners(tx, merchant, LIMIT_MAX)]
        return [one for one in every if one["lines"]]

    return await app.db.read(look)


async def as_csv(app: Application, *, day: str | None = None, merchant: str | None = None) -> str:
    """The same as CSV, one line for each provider account and currency."""
    return closing.as_csv(await closed(app, day=day, merchant=merchant))
