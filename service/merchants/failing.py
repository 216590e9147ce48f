"""
Endpoints that do nothing but fail: warned of after one day and after four, disabled after five. The try that fails
says so, and a job for those whose next try is far away (`jobs.rest_failing_endpoints`).

Whom a warning reaches: the attention list, the log, and an event to the merchant's other endpoints and the feed. No
endpoint is disabled sooner than a day after its last warning, however long it was silent in between.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import Connection, select, update

from outbox.queue import Queue
from service.attention import open_attention
from service.merchants.audit import By
from service.merchants.endpoints import DISABLED, FAILING, disable
from service.merchants.events import WEBHOOK, News, rfc3339, tell
from service.merchants.tables import endpoints
from service.schema import outbox_tables

DAY_MS = round(timedelta(days=1).total_seconds() * 1000)
WARN_AFTER_MS = (DAY_MS, 4 * DAY_MS)
DISABLE_AFTER_MS = 5 * DAY_MS
NOTICE_MS = DAY_MS

Verdict = Literal["", "warn", "disable"]

_d = outbox_tables.destinations.c


def failed(tx: Connection, queue: Queue, endpoint_id: str, by: By) -> list[str]:
    """After a try that failed, in its transaction: warn or disable, if it is time. Returns what a person must see."""
    since_ms = tx.execute(
        select(_d.failing_since_ms).where(_d.topic == WEBHOOK, _d.destination == endpoint_id)
    ).scalar()
    if since_ms is None or by.now_ms - since_ms < WARN_AFTER_MS[0]:
        return []
    row: Any = tx.execute(select(endpoints).where(endpoints.c.id == endpoint_id)).one()
    match verdict(row, since_ms, by.now_ms):
        case "":
            return []
        case "disable":
            return disabled(tx, queue, endpoint_id, f"it has only failed since {rfc3339(since_ms)}", by)
        case "warn":
            tx.execute(
                update(endpoints)
                .where(endpoints.c.id == endpoint_id)
                .values(failing_since_ms=since_ms, warnings=_due(since_ms, by.now_ms), warned_at_ms=by.now_ms)
            )
            ends_ms = max(since_ms + DISABLE_AFTER_MS, by.now_ms + NOTICE_MS)
            open_attention(tx, by.ids, endpoint_id, FAILING, f"since {rfc3339(since_ms)}", by.now_ms)
            told = {"failing_since": rfc3339(since_ms), "disabled_at": rfc3339(ends_ms)}
            _tell(tx, queue, "endpoint.failing", row, told, by)
            return [FAILING]


def verdict(row: Any, since_ms: int, now_ms: int) -> Verdict:
    """What is to be done about an endpoint, its row, that has only failed since a time (ms)."""
    if row.status != "enabled":
        return ""
    warnings = row.warnings if row.failing_since_ms == since_ms else 0
    if warnings < _due(since_ms, now_ms):
        return "warn"
    if now_ms - since_ms >= DISABLE_AFTER_MS and now_ms - row.warned_at_ms >= NOTICE_MS:
        return "disable"
    return ""


def due(tx: Connection, now_ms: int, after: str, limit: int) -> list[tuple[str, Verdict]]:
    """
    A query: the next endpoints, by their ids, about which something is to be done, and what.

    One to which nothing is owed is left alone: nothing would show that it works again.
    """
    query = (
        select(endpoints, _d.failing_since_ms.label("since_ms"))
        .join(outbox_tables.destinations, _d.destination == endpoints.c.id)
        .where(_d.topic == WEBHOOK, _d.failing_since_ms <= now_ms - WARN_AFTER_MS[0], _d.next_due_at_ms.is_not(None))
        .where(endpoints.c.id > after, endpoints.c.status == "enabled")
        .order_by(endpoints.c.id)
    )
    found: list[tuple[str, Verdict]] = []
    for row in tx.execute(query):
        if (said := verdict(row, row.since_ms, now_ms)) and len(found) < limit:
            found.append((row.id, said))
    return found


def _due(since_ms: int, now_ms: int) -> int:
    """How often it has been due to be warned of."""
    return sum(now_ms - since_ms >= after_ms for after_ms in WARN_AFTER_MS)


def disabled(tx: Connection, queue: Queue, endpoint_id: str, reason: str, by: By) -> list[str]:
    """Disable an endpoint without being asked to; what is owed to it is kept. Returns what a person has to see."""

    def hold(tx: Connection, endpoint_id: str) -> None:
        queue.destinations.hold(tx, WEBHOOK, endpoint_id, reason)

    if not disable(tx, endpoint_id, reason, by, hold):
        return []
    open_attention(tx, by.ids, endpoint_id, DISABLED, reason, by.now_ms)
    row: Any = tx.execute(select(endpoints).where(endpoints.c.id == endpoint_id)).one()
    _tell(tx, queue, "endpoint.disabled", row, {"reason": reason}, by)
    return [DISABLED]


def _tell(tx: Connection, queue: Queue, type_: str, endpoint: Any, told: dict[str, Any], by: By) -> None:
    data = {"endpoint": {"id": endpoint.id, "url": endpoint.url, **told}}
    news = News(endpoint.merchant_id, type_, 0, data, not_to=endpoint.id)
    tell(tx, queue, [news], by.ids, by.now_ms)
