"""Endpoints that do nothing but fail, also those whose next try is hours away: warned of, and disabled in the end."""

from __future__ import annotations

from typing import Final, Protocol

from sqlalchemy import Connection

from scheduler import Counters, Tick
from service.callbacks.process import Report
from service.ids import Ids
from service.jobs.finding import Parts
from service.merchants.audit import By
from service.merchants.failing import Verdict, due, failed
from service.watch import Watch

JOB: Final = "rest-failing-endpoints"
BATCH: Final = 20


class Watched(Parts, Protocol):
    """What this job needs beside."""

    ids: Ids
    watch: Watch


async def rest_failing_endpoints(parts: Watched, tick: Tick) -> Counters:
    """Judge each by how long it has failed (`merchants.failing`), as the try that fails does when there is one."""
    by = By(f"job:{JOB}", tick.now_ms, parts.ids)
    counters: Counters = {"warned": 0, "disabled": 0} | dict(tick.counters)
    after = tick.cursor
    while True:
        found = await parts.db.read(due, tick.now_ms, after, BATCH)
        if not found:
            return counters
        counters = _counted(counters, found)
        after = found[-1][0]
        if not tick.dry_run:
            opened = await parts.db.write(_judge, parts, tick, found, by, counters)
            parts.watch.tell(Report(attention=opened))
            parts.nudge()


def _judge(
    tx: Connection, parts: Watched, tick: Tick, found: list[tuple[str, Verdict]], by: By, counters: Counters
) -> list[str]:
    opened = [reason for endpoint_id, _ in found for reason in failed(tx, parts.queue, endpoint_id, by)]
    tick.keep_in(tx, found[-1][0], counters)
    return opened


def _counted(before: Counters, found: list[tuple[str, Verdict]]) -> Counters:
    said = [verdict for _, verdict in found]
    return {"warned": before["warned"] + said.count("warn"), "disabled": before["disabled"] + said.count("disable")}
