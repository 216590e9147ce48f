"""holds list | show | release | unfreeze | buyer-link"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select

from service.commands.shape import LIMIT, Row, bounded, by
from service.errors import Refusal
from service.escrow import hold_rows
from service.escrow.beneficiaries import names_of
from service.escrow.states import Hold
from service.escrow.tables import holds

if TYPE_CHECKING:
    from service.application import Application


async def listed(
    app: Application,
    *,
    status: str | None = None,
    merchant: str | None = None,
    beneficiary: str | None = None,
    order: str | None = None,
    after: str = "",
    limit: int = LIMIT,
) -> list[dict[str, Any]]:
    """
    Holds, the newest first, each with its seller's name; `after` is the id of the last one of the page before.

    Raises Refusal unknown_status.
    """
    if status is not None and status not in list(Hold):
        raise Refusal("unknown_status", f"status: one of {', '.join(Hold)}.")
    h = holds.c
    query = select(holds).order_by(h.id.desc()).limit(bounded(limit))
    for column, value in (
        *((h.state, status), (h.merchant_id, merchant), (h.beneficiary_id, beneficiary), (h.order_id, order)),
    ):
        if value is not None:
            query = query.where(column == value)
    if after:
        query = query.where(h.id < after)

    def look(tx: Connection) -> list[dict[str, Any]]:
        rows = tx.execute(query).mappings().all()
        names = names_of(tx, {row["beneficiary_id"] for row in rows})
        return [_shown(row) | {"seller": names.get(row["beneficiary_id"], "")} for row in rows]

    return await app.db.read(look)


async def show(app: Application, *, hold: str) -> dict[str, Any]:
    """One hold."""
    return _shown(await app.db.read(hold_rows.one, hold))


async def release(app: Application, *, hold: str, reason: str, actor: str = "cli") -> dict[str, Any]:
    """Give what is held to the beneficiary, by a person's word."""
    hand = by(app, actor)
    made = await app.db.write(lambda tx: app.holds.release(tx, hold, reason, hand))
    app.nudge()
    return _shown(made)


async def unfreeze(app: Application, *, hold: str, reason: str, actor: str = "cli") -> dict[str, Any]:
    """Set aside what stands against it."""
    hand = by(app, actor)
    made = await app.db.write(lambda tx: app.holds.unfreeze(tx, hold, reason, hand))
    app.nudge()
    return _shown(made)


async def buyer_link(app: Application, *, hold: str, actor: str = "cli") -> dict[str, Any]:
    """A new token for the buyer, shown this once; the one before is worth nothing any more."""
    hand = by(app, actor)

    def work(tx: Connection) -> dict[str, Any]:
        row = hold_rows.one(tx, hold)
        return {"hold": hold, "order": row["order_id"], "token": app.holds.link(tx, hold, hand)}

    return await app.db.write(work)


def _shown(row: Row) -> dict[str, Any]:
    return {**hold_rows.public(dict(row)), "merchant": row["merchant_id"]}
