"""Held money whose time has come, and what was paid for long ago and never delivered."""

from __future__ import annotations

from typing import Any, Final, Protocol

from sqlalchemy import ColumnElement, Connection, func, literal_column, select

from scheduler import Counters, Tick
from service.escrow.holds import BATCH, DAY_MS, UNDELIVERED, Holds
from service.escrow.states import Hold
from service.escrow.tables import holds
from service.escrow.terms import terms_of
from service.ids import Ids
from service.jobs.finding import Parts
from service.merchants.audit import By
from service.payments.tables import attention

JOB: Final = "release-escrow"
PIECE: Final = 10
"""Holds in one transaction. Each posts, tells, and reserves a payout, 2 to 7 ms: a hundred would hold up intake."""


_SCHEDULED: Final[ColumnElement[str]] = literal_column(
    f"'{Hold.RELEASE_SCHEDULED}'"
)  # its index is found by these words


class Escrow(Parts, Protocol):
    """What this job needs beside."""

    holds: Holds
    ids: Ids


async def release_escrow(parts: Escrow, tick: Tick) -> Counters:
    """Release all that is due, in pieces, the oldest first; then look once for what was never delivered."""
    due = await parts.db.read(_due, tick.now_ms)
    if tick.dry_run:
        return {"released": due, "undelivered": await parts.db.read(_undelivered, tick.now_ms)}
    by = By(f"job:{JOB}", tick.now_ms, parts.ids)
    counters: Counters = {"released": 0, "left": 0, "undelivered": 0} | dict(tick.counters)
    looked = 0
    while True:
        looked_now, counters = await parts.db.write(_release, parts.holds, tick, by, counters)
        parts.nudge()
        looked += looked_now
        tick.progress(looked, max(due, looked))
        if looked_now < PIECE:
            break
    return await parts.db.write(_find_undelivered, parts.holds, tick, by, counters)


def _release(tx: Connection, among: Holds, tick: Tick, by: By, before: Counters) -> tuple[int, Counters]:
    wanted = list(tx.execute(_oldest(by.now_ms)).scalars())
    did = among.release_due(tx, by, PIECE)
    released = select(holds.c.id).where(holds.c.id.in_(wanted), holds.c.state == Hold.RELEASED.value)
    for hold_id in tx.execute(released.order_by(holds.c.id)).scalars():
        by.write_down(tx, "hold.released", hold_id, "its time had come")
    counters = dict(before) | {what: before[what] + count for what, count in did.items()}
    tick.keep_in(tx, "", counters)
    return sum(did.values()), counters


def _find_undelivered(tx: Connection, among: Holds, tick: Tick, by: By, before: Counters) -> Counters:
    counters = dict(before) | {"undelivered": before["undelivered"] + among.find_undelivered(tx, by, BATCH)}
    tick.keep_in(tx, "", counters)
    return counters


def _oldest(now_ms: int) -> Any:
    due = holds.c.state == _SCHEDULED, holds.c.release_at_ms <= now_ms
    return select(holds.c.id).where(*due).order_by(holds.c.release_at_ms).limit(PIECE)


def _due(tx: Connection, now_ms: int) -> int:
    due = holds.c.state == _SCHEDULED, holds.c.release_at_ms <= now_ms
    return tx.execute(select(func.count()).select_from(holds).where(*due)).scalar_one()


def _undelivered(tx: Connection, now_ms: int) -> int:
    """How many `Holds.find_undelivered` would find, for a run that only counts."""
    known = select(attention.c.id).where(
        attention.c.subject == holds.c.id, attention.c.reason == UNDELIVERED, attention.c.closed_at_ms.is_(None)
    )
    old = holds.c.state == Hold.HELD.value, holds.c.created_at_ms <= now_ms - DAY_MS, ~known.exists()
    found = 0
    for merchant_id in tx.execute(select(holds.c.merchant_id).where(*old).distinct()).scalars().all():
        before_ms = now_ms - terms_of(tx, merchant_id).undelivered_days * DAY_MS
        mine = holds.c.merchant_id == merchant_id, holds.c.created_at_ms <= before_ms
        found += tx.execute(select(func.count()).select_from(holds).where(*old, *mine)).scalar_one()
    return found
