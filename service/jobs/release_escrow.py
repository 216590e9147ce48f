"""Held money whose time has come, and what was paid for long ago and never delivered."""

from __future__ import annotations

from typing import Final, Protocol

from sqlalchemy import Connection, func, literal_column, select

from scheduler import Counters, Tick
from service.escrow.holds import Holds, undelivered
from service.escrow.states import Hold
from service.escrow.tables import holds
from service.ids import Ids
from service.jobs.finding import Parts
from service.merchants.audit import By

JOB: Final = "release-escrow"
PIECE: Final = 20
"""Holds in one transaction. Each posts, tells, and reserves a payout, 2 to 7 ms: a hundred would hold up intake."""


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
    # Looked for beside the writer: those that are before a person already may be many, and are passed over each time.
    if await parts.db.read(_undelivered, tick.now_ms):
        counters = await parts.db.write(_find_undelivered, parts.holds, tick, by, counters)
    return counters


def _release(tx: Connection, among: Holds, tick: Tick, by: By, before: Counters) -> tuple[int, Counters]:
    did = among.release_due(tx, by, PIECE)
    counters = dict(before) | {what: before[what] + count for what, count in did.items()}
    tick.keep_in(tx, "", counters)
    return sum(did.values()), counters


def _find_undelivered(tx: Connection, among: Holds, tick: Tick, by: By, before: Counters) -> Counters:
    counters = dict(before) | {"undelivered": before["undelivered"] + among.find_undelivered(tx, by, PIECE)}
    tick.keep_in(tx, "", counters)
    return counters


def _due(tx: Connection, now_ms: int) -> int:
    scheduled = holds.c.state == literal_column(f"'{Hold.RELEASE_SCHEDULED}'")  # its index is found by these words
    due = select(func.count()).select_from(holds).where(scheduled, holds.c.release_at_ms <= now_ms)
    return tx.execute(due).scalar_one()


def _undelivered(tx: Connection, now_ms: int) -> int:
    return tx.execute(select(func.count()).select_from(undelivered(now_ms).subquery())).scalar_one()
