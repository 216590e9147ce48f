"""payments list | show | explain | sync | decide"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, or_, select

from service.commands.shape import LIMIT, bounded, by, told
from service.errors import NotFound
from service.payments.history import TIMELINE_MAX, explain, timeline
from service.payments.public import public
from service.payments.refund_rows import of_payment
from service.payments.refund_rows import public as public_refund
from service.payments.tables import aliases, attempts, attention, facts, payments

if TYPE_CHECKING:
    from service.application import Application

_SECRET = ("key", "action")
"""Of an attempt: what could be used in the payer's place, such as a client secret."""


async def listed(
    app: Application,
    *,
    status: str | None = None,
    provider: str | None = None,
    merchant: str | None = None,
    reference: str | None = None,
    limit: int = LIMIT,
) -> list[dict[str, Any]]:
    """Payments, the newest first."""
    query = select(payments).order_by(payments.c.id.desc()).limit(bounded(limit))
    wanted = ((payments.c.status, status), (payments.c.provider, provider), (payments.c.merchant_id, merchant))
    for column, value in wanted:
        if value:
            query = query.where(column == value)
    if reference:
        query = query.where(or_(payments.c.reference == reference, payments.c.provider_reference == reference))
    return await app.db.read(lambda tx: [_shown(dict(row)) for row in tx.execute(query).mappings()])


async def show(app: Application, *, payment: str) -> dict[str, Any]:
    """One payment: its attempts, what was told about it, and all of that in order of time."""
    return await app.db.read(_whole, payment)


async def explained(app: Application, *, payment: str) -> dict[str, Any]:
    """Why it went where it went: every rule and provider, every attempt, and why the next was or was not made."""
    return await app.db.read(explain, payment)


async def sync(app: Application, *, payment: str) -> dict[str, Any]:
    """Ask the provider now; `asked` is false when nothing is live, or it was asked less than 10 s ago."""
    await app.db.read(timeline, payment, 1)  # that there is one
    asked = await app.desk.sync(payment)
    return {"asked": asked, **await app.db.read(_one, payment)}


async def decide(app: Application, *, payment: str, what: str, reason: str, actor: str = "cli") -> dict[str, Any]:
    """End what nobody knows, by a person's word: succeeded, failed, canceled or not_sent, with a reason."""
    await app.desk.decide(payment, what, reason, by(app, actor))
    return await app.db.read(_one, payment)


def _one(tx: Connection, payment_id: str) -> dict[str, Any]:
    return _shown(dict(tx.execute(select(payments).where(payments.c.id == payment_id)).mappings().one()))


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {**public(row), "merchant": row["merchant_id"]}


def _whole(tx: Connection, payment_id: str) -> dict[str, Any]:
    row = tx.execute(select(payments).where(payments.c.id == payment_id)).mappings().one_or_none()
    if row is None:
        raise NotFound("payment", payment_id, "caisse payments list")
    mine = attempts.c.payment_id == payment_id
    tried = list(tx.execute(select(attempts).where(mine).order_by(attempts.c.id).limit(TIMELINE_MAX)).mappings())
    ids = [attempt["id"] for attempt in tried]
    known = (
        tx.execute(select(facts).where(facts.c.attempt_id.in_(ids)).order_by(facts.c.told_at_ms).limit(TIMELINE_MAX))
        .mappings()
        .all()
    )
    names = select(aliases.c.reference).where(aliases.c.attempt_id.in_(ids)).limit(TIMELINE_MAX)
    matters = tx.execute(select(attention).where(attention.c.subject == payment_id)).mappings()
    return {
        **_shown(dict(row)),
        "attempts": [told(attempt, *_SECRET) for attempt in tried],
        "facts": [told({**fact, "at_ms": fact["at_ms"] or None}, "told_at_ms") for fact in known],
        "names": list(tx.execute(names).scalars()),
        "refunds": [public_refund(refund) for refund in of_payment(tx, payment_id)],
        "attention": [told(matter) for matter in matters],
        "timeline": timeline(tx, payment_id, TIMELINE_MAX)["entries"],
    }
