"""Payments of ours that were begun long ago, for nothing that still waits for them."""

from __future__ import annotations

from functools import partial
from typing import Final

from sqlalchemy import Connection, and_, func, or_, select, text

from outbox.message import Promise
from scheduler import Counters, Tick
from service.jobs.finding import Parts, promise_each, promised
from service.orders.rules import LIVE
from service.orders.settle import WIND_DOWN
from service.orders.states import Order, Session
from service.orders.tables import orders, sessions
from service.payments import states
from service.payments.tables import OURS_AND_LIVE, attempts, payments

BATCH: Final = 50
STALE_AFTER_MS: Final = 24 * 3_600_000
"""No provider lets a payer take longer."""


async def cleanup_stale_payment_intents(parts: Parts, tick: Tick) -> Counters:
    """
    Promise that each is wound down (`orders.expire`): its provider is asked to cancel it, or what became of it.

    What has succeeded meanwhile is left alone there, and a provider's error changes nothing.
    """
    return await promise_each(parts, tick, {"payments": partial(_look, tick.now_ms)}, BATCH)


def _look(now_ms: int, tx: Connection, after: str, limit: int) -> list[Promise]:
    p, a = payments.c, attempts.c
    waits = or_(
        orders.c.state == Order.AWAITING_PAYMENT.value,
        and_(p.order_id.is_(None), sessions.c.state.in_([Session.OPEN.value, Session.PROCESSING.value])),
    )
    last = func.max(a.id).label("last")  # ids sort by time
    query = (
        select(p.id, last)
        .join(attempts, a.payment_id == p.id)
        .outerjoin(orders, orders.c.id == p.order_id)
        .outerjoin(sessions, sessions.c.id == p.session_id)
        .where(
            p.id > after,
            p.origin == "caisse",
            p.status.in_(sorted(LIVE)),
            p.created_at_ms <= now_ms - STALE_AFTER_MS,
            p.id.in_(select(a.payment_id).where(text(OURS_AND_LIVE))),
            a.state.in_(sorted(states.LIVE)),
            func.coalesce(waits, False).is_(False),
            ~promised(WIND_DOWN, p.id),
        )
        .group_by(p.id)
        .having(func.max(a.created_at_ms) <= now_ms - STALE_AFTER_MS)
        .order_by(p.id)
        .limit(limit)
    )
    lasts = {row.last: row.id for row in tx.execute(query)}
    accounts = {row.id: row.account_id for row in tx.execute(select(a.id, a.account_id).where(a.id.in_(lasts)))}
    return [
        Promise(f"{WIND_DOWN}:cleanup:{id_}:{now_ms}", WIND_DOWN, accounts[last], id_) for last, id_ in lasts.items()
    ]
