"""payouts list | show | add | approve | cancel | retry | decide | otp"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select

from service.commands.hand import refuse_nameless
from service.commands.shape import LIMIT, Row, bounded, by
from service.errors import NotFound, Refusal
from service.escrow import payout_rows
from service.escrow.beneficiaries import payee_names
from service.escrow.payouts import Draft, Source
from service.escrow.states import Payout
from service.escrow.tables import beneficiaries, payouts
from service.orders.owner import row_of

if TYPE_CHECKING:
    from service.application import Application


async def listed(
    app: Application,
    *,
    status: str | None = None,
    merchant: str | None = None,
    beneficiary: str | None = None,
    hold: str | None = None,
    after: str = "",
    limit: int = LIMIT,
) -> list[dict[str, Any]]:
    """
    Payouts, the newest first, each with the name of whom it pays; `after` is the id of the last one of the page before.

    Raises Refusal unknown_status.
    """
    if status is not None and status not in list(Payout):
        raise Refusal("unknown_status", f"status: one of {', '.join(Payout)}.")
    p = payouts.c
    query = select(payouts).order_by(p.id.desc()).limit(bounded(limit))
    wanted = ((p.state, status), (p.merchant_id, merchant), (p.beneficiary_id, beneficiary), (p.hold_id, hold))
    for column, value in wanted:
        if value is not None:
            query = query.where(column == value)
    if after:
        query = query.where(p.id < after)

    def look(tx: Connection) -> list[dict[str, Any]]:
        rows = tx.execute(query).mappings().all()
        names = payee_names(tx, {row["payee_id"] for row in rows})
        return [_shown(row) | {"seller": names.get(row["payee_id"], "")} for row in rows]

    return await app.db.read(look)


async def show(app: Application, *, payout: str) -> dict[str, Any]:
    """One payout."""
    return _shown(await app.db.read(payout_rows.one, payout))


async def add(
    app: Application,
    *,
    beneficiary: str,
    amount: int,
    source: Source = "beneficiary",
    hold: str | None = None,
    description: str = "",
    account: str = "",
    actor: str = "cli",
) -> dict[str, Any]:
    """Pay a beneficiary so much, in minor units of their currency."""
    hand = by(app, actor)

    def work(tx: Connection) -> dict[str, Any]:
        b = beneficiaries.c
        to = tx.execute(select(beneficiaries).where(b.id == beneficiary)).mappings().one_or_none()
        if to is None:
            raise NotFound("beneficiary", beneficiary, "caisse beneficiaries list")
        draft = Draft(beneficiary, amount, to["currency"], source, hold, description, account)
        return app.payouts.request(tx, row_of(to), draft, hand)

    return await _done(app, work)


async def approve(app: Application, *, payout: str, reason: str = "", actor: str) -> dict[str, Any]:
    """A second person lets it go."""
    hand = by(app, actor)

    def work(tx: Connection) -> dict[str, Any]:
        refuse_nameless(payout_rows.one(tx, payout)["actor"], actor)
        return app.payouts.approve(tx, payout, reason, hand)

    return await _done(app, work)


async def cancel(app: Application, *, payout: str, reason: str = "", actor: str = "cli") -> dict[str, Any]:
    """Call it off before it is sent."""
    hand = by(app, actor)
    return await _done(app, lambda tx: app.payouts.cancel(tx, payout, reason, hand))


async def retry(app: Application, *, payout: str, actor: str = "cli") -> dict[str, Any]:
    """Make one that failed or came back again: a new payout, linked to it."""
    hand = by(app, actor)
    return await _done(app, lambda tx: app.payouts.retry(tx, payout, hand))


async def decide(
    app: Application, *, payout: str, outcome: str, reason: str, provider_reference: str = "", actor: str = "cli"
) -> dict[str, Any]:
    """End one that nobody knows about: paid or failed, as a person has seen at the provider."""
    hand = by(app, actor)
    return await _done(app, lambda tx: app.payouts.decide(tx, payout, outcome, reason, hand, provider_reference))


async def otp(app: Application, *, payout: str, code: str, actor: str = "cli") -> dict[str, Any]:
    """Hand in the code that the provider has sent to the owner of the account."""
    made = await app.payer.finalize(payout, code, by(app, actor))
    app.nudge()
    return _shown(made)


async def _done(app: Application, work: Callable[[Connection], dict[str, Any]]) -> dict[str, Any]:
    made = await app.db.write(work)
    app.nudge()
    return _shown(made)


def _shown(row: Row) -> dict[str, Any]:
    return {**payout_rows.public(dict(row)), "merchant": row["merchant_id"]}
