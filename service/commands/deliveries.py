"""deliveries list | show | retry: webhooks as operators see them, derived from the outbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, and_, not_, select

from service.commands.shape import LIMIT, Row, bounded, by, told
from service.errors import NotFound, Refusal
from service.merchants import endpoints
from service.merchants.audit import By
from service.merchants.events import WEBHOOK, rfc3339
from service.merchants.missed import siblings
from service.merchants.recovery import promise
from service.payments.states import Delivery
from service.schema import outbox_tables

if TYPE_CHECKING:
    from outbox.queue import Queue
    from service.application import Application

_LISTED = "caisse deliveries list"
_m = outbox_tables.messages.c
# Ids are `webhook:<event>:<endpoint>:<n>` and events' ids sort by time: the primary key lists the newest first.
_WEBHOOKS = and_(_m.topic == WEBHOOK, _m.id >= f"{WEBHOOK}:", _m.id < f"{WEBHOOK};")
_d = outbox_tables.destinations.c
_SHOWN = select(outbox_tables.messages, _d.held, _d.paused_until_ms).outerjoin_from(
    outbox_tables.messages,
    outbox_tables.destinations,
    and_(_d.topic == _m.topic, _d.destination == _m.destination),
)


async def listed(
    app: Application,
    *,
    endpoint: str | None = None,
    status: str | None = None,
    event: str | None = None,
    limit: int = LIMIT,
) -> list[dict[str, Any]]:
    """Deliveries, the newest first."""
    now_ms = app.clock()
    where = [_WEBHOOKS]
    if endpoint:
        where.append(_m.destination == endpoint)
    if event:
        where.append(_m.subject == event)
    if status:
        where.append(_where(_status(status), now_ms))
    query = _SHOWN.where(*where).order_by(_m.id.desc()).limit(bounded(limit))

    def look(tx: Connection) -> list[dict[str, Any]]:
        if endpoint:
            endpoints.one(tx, endpoint)
        return [_shown(row, now_ms) for row in tx.execute(query).mappings()]

    return await app.db.read(look)


async def show(app: Application, *, delivery: str) -> dict[str, Any]:
    """One delivery, try by try."""
    now_ms = app.clock()
    tries = outbox_tables.tries

    def look(tx: Connection) -> dict[str, Any]:
        shown = one(tx, delivery, now_ms)
        rows = tx.execute(select(tries).where(tries.c.message_id == delivery).order_by(tries.c.number)).mappings()
        shown["tried"] = [
            {**told(row, "message_id", "head"), "answer": bytes(row["head"]).decode("utf-8", "replace")} for row in rows
        ]
        return shown

    return await app.db.read(look)


async def retry(app: Application, *, delivery: str, reason: str = "", actor: str = "cli") -> dict[str, Any]:
    """Deliver the same event to the same endpoint once more, as a new delivery."""
    made = await app.db.write(again, app.queue, delivery, by(app, actor), reason)
    app.nudge()
    return made


def again(tx: Connection, queue: Queue, message_id: str, hand: By, reason: str = "") -> dict[str, Any]:
    """A work: promise the next number. What has not come to rest by itself is not promised twice."""
    found = one(tx, message_id, hand.now_ms)
    if found["status"] not in (Delivery.SUCCEEDED, Delivery.FAILED):
        raise Refusal("not_resting", f"This delivery is {found['status']}; it is on its way already.")
    endpoint = endpoints.one(tx, found["endpoint"])
    if endpoint["status"] != "enabled":
        raise Refusal("endpoint_disabled", f"Enable it first: `caisse endpoint enable {found['endpoint']}`.")
    pair = found["event"], found["endpoint"]
    sibling = siblings(tx, [pair])[pair]
    if sibling.pending:
        raise Refusal("not_resting", f"The same event is on its way there already: {sibling.pending}.")
    (made,) = promise(tx, queue, {pair: sibling.last + 1}, hand.now_ms)
    queue.destinations.resume(tx, WEBHOOK, [found["endpoint"]])  # somebody waits for it: an open circuit tries now
    hand.write_down(tx, "delivery.retried", message_id, reason)
    return {**one(tx, made, hand.now_ms), "again_of": message_id}


def one(tx: Connection, message_id: str, now_ms: int) -> dict[str, Any]:
    """A query: one delivery."""
    row = tx.execute(_SHOWN.where(_m.id == message_id, _WEBHOOKS)).mappings().one_or_none()
    if row is None:
        raise NotFound("delivery", message_id, _LISTED)
    return _shown(row, now_ms)


def of_event(tx: Connection, event_id: str, now_ms: int) -> list[dict[str, Any]]:
    """A query: all deliveries of an event."""
    query = _SHOWN.where(_m.subject == event_id, _WEBHOOKS).order_by(_m.id)
    return [_shown(row, now_ms) for row in tx.execute(query).mappings()]


def status_of(row: Row, now_ms: int) -> Delivery:
    """Processing is derived: claimed, and its lease not over. So is held: its endpoint is disabled."""
    match row["state"]:
        case "done":
            return Delivery.SUCCEEDED
        case "dead":
            return Delivery.FAILED
        case _ if row["claim"] > row["settled_claim"] and row["due_at_ms"] > now_ms:
            return Delivery.PROCESSING
        case _:
            return Delivery.PENDING if row["held"] is None else Delivery.HELD


def _where(status: Delivery, now_ms: int) -> ColumnElement[bool]:
    claimed = and_(_m.claim > _m.settled_claim, _m.due_at_ms > now_ms)
    match status:
        case Delivery.SUCCEEDED:
            return _m.state == "done"
        case Delivery.FAILED:
            return _m.state == "dead"
        case Delivery.HELD:
            return and_(_m.state == "pending", not_(claimed), _d.held.is_not(None))
        case Delivery.PROCESSING:
            return and_(_m.state == "pending", claimed)
        case Delivery.PENDING:
            return and_(_m.state == "pending", not_(claimed), _d.held.is_(None))


def _status(word: str) -> Delivery:
    if word.lower() not in tuple(Delivery):
        raise Refusal("unknown_status", f"There is no status {word[:30]!r}; there are {', '.join(Delivery)}.")
    return Delivery(word.lower())


def _shown(row: Row, now_ms: int) -> dict[str, Any]:
    status = status_of(row, now_ms)
    return {
        "id": row["id"],
        "event": row["subject"],
        "endpoint": row["destination"],
        "status": status.value,
        "tries": row["tries"],
        "last_try_at": rfc3339(row["last_try_at_ms"]),
        "next_retry_at": rfc3339(max(row["due_at_ms"], row["paused_until_ms"] or 0))
        if status is Delivery.PENDING
        else None,
        "http_status": row["last_status"],
        "error": row["last_error"],
        "delivered_at": rfc3339(row["finished_at_ms"]) if status is Delivery.SUCCEEDED else None,
        "created_at": rfc3339(row["created_at_ms"]),
        "reason": row["held"] if status is Delivery.HELD else row["reason"],
    }
