"""beneficiaries list | show | add | pay-to | approve | change | link"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select

from service.commands.hand import refuse_nameless
from service.commands.shape import LIMIT, Row, bounded, by
from service.errors import NotFound
from service.escrow import beneficiaries as steps
from service.escrow.beneficiaries import To
from service.escrow.tables import beneficiaries
from service.merchants import merchants
from service.merchants.audit import By
from service.orders.owner import Owner, Whose, row_of

if TYPE_CHECKING:
    from service.application import Application


async def listed(
    app: Application,
    *,
    merchant: str | None = None,
    reference: str | None = None,
    after: str = "",
    limit: int = LIMIT,
) -> list[dict[str, Any]]:
    """Beneficiaries, the newest first; `after` is the id of the last one of the page before."""
    b = beneficiaries.c
    query = select(beneficiaries).order_by(b.id.desc()).limit(bounded(limit))
    for column, value in ((b.merchant_id, merchant), (b.reference, reference)):
        if value is not None:
            query = query.where(column == value)
    if after:
        query = query.where(b.id < after)
    return await app.db.read(lambda tx: [_shown(tx, row) for row in tx.execute(query).mappings()])


async def show(app: Application, *, beneficiary: str) -> dict[str, Any]:
    """One beneficiary, and where the money goes."""
    return await app.db.read(lambda tx: _shown(tx, _one(tx, beneficiary)))


async def add(
    app: Application,
    *,
    merchant: str,
    currency: str,
    to: dict[str, str],
    reference: str = "",
    account: str = "",
    actor: str = "cli",
) -> dict[str, Any]:
    """Add a beneficiary; the first payee can be paid at once."""
    hand, whose, first = by(app, actor), Whose(merchant, app.settings.live), _to(to)

    def work(tx: Connection) -> dict[str, Any]:
        merchants.one(tx, merchant)
        return _shown(tx, _one(tx, steps.create(tx, whose, currency, first, hand, reference, account)))

    return await app.db.write(work)


async def pay_to(app: Application, *, beneficiary: str, to: dict[str, str], actor: str = "cli") -> dict[str, Any]:
    """Pay them somewhere else: after a day, or once a second person has approved it."""
    new = _to(to)
    return await _does(app, beneficiary, actor, lambda tx, whose, hand: steps.pay_to(tx, whose, beneficiary, new, hand))


async def approve(app: Application, *, beneficiary: str, payee: str, reason: str, actor: str) -> dict[str, Any]:
    """A second person has made sure that this payee, the newest, is theirs."""

    def step(tx: Connection, whose: Owner, hand: By) -> None:
        refuse_nameless(steps.payee_of(tx, beneficiary)["actor"], actor)
        app.payouts.approve_payee(tx, whose, beneficiary, payee, reason, hand)

    return await _does(app, beneficiary, actor, step)


async def change(app: Application, *, beneficiary: str, active: bool, actor: str = "cli") -> dict[str, Any]:
    """Pay them nothing more, or pay them again."""
    return await _does(
        app, beneficiary, actor, lambda tx, whose, hand: steps.change(tx, whose, beneficiary, hand, active=active)
    )


async def link(app: Application, *, beneficiary: str, actor: str = "cli") -> dict[str, Any]:
    """A new address of their read-only page, shown this once; the one before opens nothing any more."""
    hand = by(app, actor)

    def work(tx: Connection) -> str:
        return steps.link(tx, row_of(_one(tx, beneficiary)), beneficiary, hand)

    path = f"/balance/{await app.db.write(work)}"
    public = app.settings.public_url
    return {"beneficiary": beneficiary, "url": f"{public}{path}" if public else path}


async def _does(
    app: Application, beneficiary: str, actor: str, step: Callable[[Connection, Owner, By], object]
) -> dict[str, Any]:
    hand = by(app, actor)

    def work(tx: Connection) -> dict[str, Any]:
        step(tx, row_of(_one(tx, beneficiary)), hand)
        return _shown(tx, _one(tx, beneficiary))

    shown = await app.db.write(work)
    app.nudge()
    return shown


def _one(tx: Connection, beneficiary_id: str) -> Row:
    row = tx.execute(select(beneficiaries).where(beneficiaries.c.id == beneficiary_id)).mappings().one_or_none()
    if row is None:
        raise NotFound("beneficiary", beneficiary_id, "caisse beneficiaries list")
    return row


def _shown(tx: Connection, row: Row) -> dict[str, Any]:
    return {**steps.public({**row, "payee": steps.payee_of(tx, row["id"])}), "merchant": row["merchant_id"]}


def _to(given: dict[str, str]) -> To:
    names = ("kind", "number", "name", "country", "operator", "bank_code")
    return To(**{name: str(given.get(name) or "") for name in names})  # type: ignore[arg-type] # `check` says which
