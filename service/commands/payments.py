"""payments list | show"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, or_, select

from service.callbacks.tables import callbacks
from service.commands.shape import LIMIT, bounded, told
from service.errors import NotFound
from service.merchants.events import rfc3339
from service.merchants.tables import audit, events
from service.payments.book import public
from service.payments.tables import aliases, attempts, attention, facts, payments

if TYPE_CHECKING:
    from service.application import Application

TIMELINE_MAX = 1_000


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


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {**public(row), "merchant": row["merchant_id"]}


def _whole(tx: Connection, payment_id: str) -> dict[str, Any]:
    row = tx.execute(select(payments).where(payments.c.id == payment_id)).mappings().one_or_none()
    if row is None:
        raise NotFound("payment", payment_id, "caisse payments list")
    tried = list(
        tx.execute(select(attempts).where(attempts.c.payment_id == payment_id).order_by(attempts.c.id)).mappings()
    )
    ids = [attempt["id"] for attempt in tried]
    known = (
        tx.execute(select(facts).where(facts.c.attempt_id.in_(ids)).order_by(facts.c.told_at_ms).limit(TIMELINE_MAX))
        .mappings()
        .all()
    )
    names = tx.execute(select(aliases.c.reference).where(aliases.c.attempt_id.in_(ids))).scalars().all()
    open_matters = tx.execute(select(attention).where(attention.c.subject == payment_id)).mappings().all()
    line: list[tuple[int, str, str]] = []
    for fact in known:
        money = f" {fact['amount_minor']} {fact['currency'] or ''}".rstrip() if fact["amount_minor"] is not None else ""
        again = f" (told {fact['seen_count']} times)" if fact["seen_count"] > 1 else ""
        line.append((fact["told_at_ms"], "fact", f"{fact['kind']}{money}, from {fact['source']}{again}"))
    for event in tx.execute(select(events).where(events.c.payment_id == payment_id).limit(TIMELINE_MAX)).mappings():
        line.append((event["created_at_ms"], "event", f"{event['type']} ({event['id']})"))
    for callback in tx.execute(
        select(callbacks).where(callbacks.c.payment_id == payment_id).limit(TIMELINE_MAX)
    ).mappings():
        what = f"{callback['provider']} {callback['kind']}: {callback['status']} ({callback['id']})"
        line.append((callback["received_at_ms"], "callback", what))
    for matter in open_matters:
        line.append((matter["opened_at_ms"], "attention", matter["reason"]))
    for entry in tx.execute(select(audit).where(audit.c.subject == payment_id)).mappings():
        line.append((entry["at_ms"], "audit", f"{entry['action']} by {entry['actor']}"))
    return {
        **_shown(dict(row)),
        "attempts": [told(attempt) for attempt in tried],
        "facts": [told({**fact, "at_ms": fact["at_ms"] or None}, "told_at_ms") for fact in known],
        "names": list(names),
        "attention": [told(matter) for matter in open_matters],
        "timeline": [{"at": rfc3339(at_ms), "what": what, "text": text} for at_ms, what, text in sorted(line)],
    }
