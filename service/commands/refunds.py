"""refunds list | show | create | done | give-up | pay-out"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.commands.hand import NAMELESS
from service.commands.shape import LIMIT, bounded, by
from service.errors import Refusal
from service.escrow import payout_rows
from service.payments import refund_rows
from service.payments.refund_rows import public

if TYPE_CHECKING:
    from service.application import Application


async def listed(
    app: Application,
    *,
    payment: str | None = None,
    status: str | None = None,
    merchant: str | None = None,
    limit: int = LIMIT,
) -> list[dict[str, Any]]:
    """Refunds, the newest first."""
    most = bounded(limit)
    rows = await app.db.read(
        lambda tx: refund_rows.listed(tx, merchant_id=merchant, payment_id=payment, status=status, limit=most)
    )
    return [public(row) for row in rows]


async def show(app: Application, *, refund: str) -> dict[str, Any]:
    """One refund."""
    return public(await app.db.read(refund_rows.one, refund))


async def create(
    app: Application, *, payment: str, amount: int | None = None, reason: str = "", actor: str = "cli"
) -> dict[str, Any]:
    """Give money back: so much of it in minor units, or all that is left."""
    hand = by(app, actor)
    made = await app.db.write(lambda tx: app.refunds.create(tx, payment, amount, reason, hand))
    app.nudge()
    return public(made)


async def done(
    app: Application, *, refund: str, reason: str, provider_reference: str = "", actor: str = "cli"
) -> dict[str, Any]:
    """A person has made it at the provider, or has seen it there."""
    hand = by(app, actor)
    made = await app.db.write(lambda tx: app.refunder.mark_done(tx, refund, reason, hand, provider_reference))
    app.nudge()
    return public(made)


async def give_up(app: Application, *, refund: str, reason: str, actor: str = "cli") -> dict[str, Any]:
    """It will not be made, or is not there at the provider: its amount can be asked for again."""
    hand = by(app, actor)
    made = await app.db.write(lambda tx: app.refunds.give_up(tx, refund, reason, hand))
    app.nudge()
    return public(made)


async def pay_out(app: Application, *, refund: str, actor: str) -> dict[str, Any]:
    """Make it as a payout to the wallet that paid; another person has to approve that."""
    if actor == NAMELESS:
        raise Refusal("second_person", "Say who asks for it: --as NAME. Another person approves it.")
    hand = by(app, actor)
    made = await app.db.write(lambda tx: app.payouts.refund_by_payout(tx, refund, hand))
    app.nudge()
    return payout_rows.public(made)
