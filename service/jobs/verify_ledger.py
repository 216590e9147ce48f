"""The ledger, proved again each night: see `ledger.verify`, which does it in short reads and writes once."""

from __future__ import annotations

from typing import Final, Protocol

from sqlalchemy import Connection, func, select

from scheduler import Counters, Tick
from service.database import Database
from service.escrow.tables import holds, payouts
from service.ids import Ids
from service.ledger.tables import postings
from service.ledger.verify import Verifier
from service.merchants.audit import By
from service.orders.tables import orders
from service.payments.tables import payments

JOB: Final = "verify-ledger"


class Parts(Protocol):
    """What this job needs."""

    db: Database
    ids: Ids
    verifier: Verifier


async def verify_ledger(parts: Parts, tick: Tick) -> Counters:
    """Check everything. A dry run only counts what there is: each check is kept, and what it finds stops payouts."""
    if tick.dry_run:
        return await parts.db.read(_counted)
    check = await parts.verifier.check(
        By(f"job:{JOB}", tick.now_ms, parts.ids), lambda done, total: tick.progress(done, total or done)
    )
    return {**check.looked, "problems": check.found}


def _counted(tx: Connection) -> Counters:
    tables = (payments, orders, holds, payouts, postings)
    return {table.name: tx.execute(select(func.count()).select_from(table)).scalar_one() for table in tables}
