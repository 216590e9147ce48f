"""escrow show | set"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from service.commands.shape import by
from service.escrow.switch import change_terms
from service.escrow.terms import shown, terms_of
from service.merchants import merchants

if TYPE_CHECKING:
    from service.application import Application


async def show(app: Application, *, merchant: str) -> dict[str, object]:
    """A merchant's terms of delayed payout."""

    def look(tx: Connection) -> dict[str, object]:
        merchants.one(tx, merchant)
        return {"merchant": merchant, **shown(terms_of(tx, merchant))}

    return await app.db.read(look)


async def change(
    app: Application, *, merchant: str, fields: dict[str, Any], understood: bool = False, actor: str = "cli"
) -> dict[str, object]:
    """Change what is given of them; the first time it is switched on, the notice has to be understood."""
    hand = by(app, actor)

    def work(tx: Connection) -> dict[str, object]:
        merchants.one(tx, merchant)
        return {"merchant": merchant, **shown(change_terms(tx, merchant, fields, hand, understood=understood))}

    return await app.db.write(work)
