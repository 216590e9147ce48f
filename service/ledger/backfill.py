"""What payments had moved before there was a ledger, posted once, in small pieces, at the first start after it."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select

from service.database import Database
from service.ids import Clock
from service.ledger.payments import place
from service.merchants.tables import installation
from service.payments.tables import payments

DONE = "ledger"
PIECE = 200


async def backfill(db: Database, clock: Clock) -> int:
    """Post what is missing; again posts nothing. Returns how many postings that took."""
    if await db.read(_is_done):
        return 0
    after, made = "", 0
    while True:
        ids = await db.read(_next, after)
        if not ids:
            await db.write(_finish)
            return made
        made += await db.write(place, ids, clock())
        after = ids[-1]


def _is_done(tx: Connection) -> bool:
    return tx.execute(select(installation.c.name).where(installation.c.name == DONE)).first() is not None


def _next(tx: Connection, after: str) -> list[str]:
    query = select(payments.c.id).where(payments.c.id > after, payments.c.captured_minor > 0)
    return list(tx.execute(query.order_by(payments.c.id).limit(PIECE)).scalars())


def _finish(tx: Connection) -> None:
    if not _is_done(tx):
        tx.execute(insert(installation), {"name": DONE, "value": b"1"})
