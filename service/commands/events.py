"""events list | show: what merchants were told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Connection, select

from service.commands.deliveries import of_event
from service.commands.shape import LIMIT, bounded, told
from service.errors import NotFound, Refusal
from service.merchants.events import CATALOGUE
from service.merchants.tables import events

if TYPE_CHECKING:
    from service.application import Application


async def listed(
    app: Application,
    *,
    merchant: str | None = None,
    type: str | None = None,  # noqa: A002 - the option's name
    payment: str | None = None,
    limit: int = LIMIT,
) -> list[dict[str, Any]]:
    """Events, the newest first."""
    if type is not None and type not in CATALOGUE:
        raise Refusal("unknown_event_type", f"There is no event type {type[:60]!r}; there are {', '.join(CATALOGUE)}.")
    query = select(events).order_by(events.c.position.desc()).limit(bounded(limit))
    for column, wanted in ((events.c.merchant_id, merchant), (events.c.type, type), (events.c.payment_id, payment)):
        if wanted:
            query = query.where(column == wanted)
    return await app.db.read(lambda tx: [told(row, "body") for row in tx.execute(query).mappings()])


async def show(app: Application, *, event: str) -> dict[str, Any]:
    """One event: the body as it was signed, and its deliveries."""
    now_ms = app.clock()

    def look(tx: Connection) -> dict[str, Any]:
        row = tx.execute(select(events).where(events.c.id == event)).mappings().one_or_none()
        if row is None:
            raise NotFound("event", event, "caisse events list")
        body = msgspec.json.decode(bytes(row["body"]))
        return {**told(row, "body"), "body": body, "deliveries": of_event(tx, event, now_ms)}

    return await app.db.read(look)
