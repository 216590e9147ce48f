"""balances list | statement"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select

from service.commands.shape import LIMIT, bounded
from service.errors import NotFound, Refusal
from service.escrow.beneficiaries import names_of
from service.escrow.tables import beneficiaries
from service.ledger import balances
from service.ledger import statement as statements
from service.ledger.months import a_day
from service.ledger.statement import DEADLINE_MS, LANGUAGES, Asked
from service.merchants import merchants
from service.merchants.tables import merchants as merchant_table
from service.orders.owner import Owner, Whose, row_of

if TYPE_CHECKING:
    from service.application import Application


async def listed(
    app: Application, *, merchant: str | None = None, beneficiary: str | None = None, limit: int = LIMIT
) -> list[dict[str, Any]]:
    """Balances: of one beneficiary, of one merchant, or of all merchants in both modes, one row for each currency."""
    most, zone, now_ms = bounded(limit), app.settings.timezone, app.clock()

    def look(tx: Connection) -> list[dict[str, Any]]:
        if beneficiary is not None:
            owner = _owner(tx, beneficiary, merchant)
            theirs = balances.look_beneficiary(tx, owner, beneficiary, zone, now_ms)
            return [{"name": names_of(tx, [beneficiary])[beneficiary], **theirs}]
        found: list[dict[str, Any]] = []
        for owner in owners(tx, merchant, most):
            name = merchants.one(tx, owner.merchant_id)["name"]
            found += [{"name": name, **one} for one in balances.look_merchant(tx, owner, zone, now_ms)]
        return found

    return await app.db.read(look)


async def statement(
    app: Application,
    *,
    first: str,
    last: str,
    merchant: str = "",
    beneficiary: str = "",
    currency: str = "",
    live: bool | None = None,
    language: str = "en",
) -> str:
    """A statement as CSV: a beneficiary's, or a merchant's own in the installation's mode unless `live` says which."""
    if language not in LANGUAGES:
        raise Refusal("bad_language", f"language: one of {', '.join(LANGUAGES)}.")
    asked = Asked(a_day("from", first), a_day("to", last), beneficiary, currency, language)
    mode = app.settings.live if live is None else live

    def look(tx: Connection) -> str:
        if beneficiary:
            owner = _owner(tx, beneficiary, merchant or None)
        elif merchant:
            merchants.one(tx, merchant)
            owner = Whose(merchant, mode)
        else:
            raise Refusal("bad_merchant", "merchant: say whose statement, a merchant's or a beneficiary's.")
        return statements.statement(tx, owner, asked, app.settings.timezone, app.clock())

    return await app.db.read(look, deadline_ms=DEADLINE_MS)


def owners(tx: Connection, merchant: str | None, limit: int) -> list[Owner]:
    """A query: one merchant, or all up to a limit, each in both modes. Raises NotFound."""
    if merchant is not None:
        merchants.one(tx, merchant)
        ids = [merchant]
    else:
        query = select(merchant_table.c.id).order_by(merchant_table.c.id).limit(limit)
        ids = list(tx.execute(query).scalars())
    return [Whose(id_, live) for id_ in ids for live in (True, False)]


def _owner(tx: Connection, beneficiary_id: str, merchant: str | None) -> Owner:
    b = beneficiaries.c
    query = select(b.merchant_id, b.live).where(b.id == beneficiary_id)
    if merchant is not None:
        query = query.where(b.merchant_id == merchant)
    row = tx.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound("beneficiary", beneficiary_id, "caisse beneficiaries list")
    return row_of(row)
