"""What has no end and about which nobody asks any more: the message that would is dead, or gone."""

from __future__ import annotations

from functools import partial
from typing import Final

from sqlalchemy import Connection, select, text

from outbox.message import Promise
from scheduler import Counters, Tick
from service.escrow.payouts import PAYOUT
from service.escrow.states import Payout
from service.escrow.tables import payouts
from service.jobs.finding import Parts, promise_each, promised
from service.payments.asking import SYNC, watch
from service.payments.refund_match import WITHOUT_AN_END
from service.payments.refunds import REFUND
from service.payments.tables import OURS_AND_LIVE, attempts, refunds

BATCH: Final = 100
ON_ITS_WAY: Final = (Payout.QUEUED, Payout.SUBMITTING, Payout.UNKNOWN, Payout.IN_TRANSIT)
"""Payouts that a message carries; the others wait for a person, or are over."""


async def ask_about_stuck_attempts(parts: Parts, tick: Tick) -> Counters:
    """Promise again: the sync of each attempt, and what carries each refund and each payout."""
    looks = {"attempts": _attempts, "refunds": _refunds, "payouts": _payouts}
    return await promise_each(parts, tick, {name: partial(look, tick.now_ms) for name, look in looks.items()}, BATCH)


def _attempts(now_ms: int, tx: Connection, after: str, limit: int) -> list[Promise]:
    a = attempts.c
    # Those that caisse made: what others began is asked about by what their callbacks say.
    ours = text(OURS_AND_LIVE), ~promised(SYNC, a.id)
    query = select(a.id, a.account_id).where(a.id > after, *ours).order_by(a.id).limit(limit)
    return [watch(row.id, row.account_id, now_ms) for row in tx.execute(query)]


def _refunds(now_ms: int, tx: Connection, after: str, limit: int) -> list[Promise]:
    r = refunds.c
    # One that a person has to make is nobody's to send.
    ours = r.origin == "caisse", r.manual.is_(False), r.state.in_(sorted(WITHOUT_AN_END)), ~promised(REFUND, r.id)
    query = select(r.id, attempts.c.account_id).join(attempts, attempts.c.id == r.attempt_id)
    found = tx.execute(query.where(r.id > after, *ours).order_by(r.id).limit(limit))
    return [Promise(f"{REFUND}:{row.id}:{now_ms}", REFUND, row.account_id, row.id) for row in found]


def _payouts(now_ms: int, tx: Connection, after: str, limit: int) -> list[Promise]:
    p = payouts.c
    ours = p.state.in_([state.value for state in ON_ITS_WAY]), ~promised(PAYOUT, p.id)
    found = tx.execute(select(p.id, p.account_id).where(p.id > after, *ours).order_by(p.id).limit(limit))
    return [Promise(f"{PAYOUT}:{row.id}:{now_ms}", PAYOUT, row.account_id, row.id) for row in found]
