"""`/v1/deliveries`: the webhooks that were sent or are still owed, and sending again what was missed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection, select

from service.api.v1.endpoints import own as own_endpoint
from service.api.v1.kit import Call, Resource
from service.api.v1.lists import PageQuery, page, rows
from service.api.v1.payments import own as own_payment
from service.api.v1.reading import not_found
from service.api.v1.shapes import Reason
from service.commands import deliveries as commands
from service.commands import recoveries
from service.merchants.events import CATALOGUE, WEBHOOK
from service.merchants.keys import Caller
from service.merchants.tables import endpoints, events
from service.schema import outbox_tables

DELIVERIES = Resource("deliveries")
READ, WRITE = "deliveries:read", "deliveries:write"

_STATES = {"pending": "pending", "succeeded": "done", "failed": "dead"}


class Delivery(msgspec.Struct):
    """One event's way to one endpoint."""

    id: str
    event: str
    endpoint: str
    status: Literal["pending", "processing", "held", "succeeded", "failed"]
    tries: int
    last_try_at: str | None
    next_retry_at: str | None
    http_status: int | None
    error: str | None
    delivered_at: str | None
    created_at: str


class Deliveries(msgspec.Struct):
    """A page; `next` goes into the next request's `after`."""

    data: list[Delivery]
    next: str
    more: bool


class Try(msgspec.Struct):
    """One try; `answer` is the head of what came back."""

    number: int
    answer: str


class DeliveryTried(Delivery, kw_only=True):
    """A delivery, try by try."""

    tried: list[Try]


class DeliveryAgain(Delivery, kw_only=True):
    """A new delivery of the same event."""

    again_of: str


class DeliveriesQuery(PageQuery, kw_only=True):
    """Which deliveries."""

    endpoint: Annotated[str, Meta(max_length=100)] | UnsetType = UNSET
    event: Annotated[str, Meta(max_length=100)] | UnsetType = UNSET
    status: (
        Annotated[
            Literal["pending", "succeeded", "failed"], Meta(description="`pending` has those that are held with it.")
        ]
        | UnsetType
    ) = UNSET


class Missed(msgspec.Struct, forbid_unknown_fields=True):
    """Which of what was missed, of both modes."""

    since: Annotated[str, Meta(min_length=1, max_length=40, description="RFC 3339, or a span back such as 24h.")]
    endpoint: Annotated[str, Meta(max_length=100)] | None = None
    type: Annotated[str, Meta(pattern=f"^({'|'.join(CATALOGUE)})$")] | None = None
    payment: Annotated[str, Meta(max_length=100)] | None = None
    per_minute: Annotated[int, Meta(ge=1, le=60_000)] | None = None
    reason: Annotated[str, Meta(max_length=500)] = ""
    dry_run: bool = False


class Recovery(msgspec.Struct):
    """`recovery` is the job, or null: nothing was missed, or `dry_run`."""

    dry_run: bool
    since: str
    looked: int
    found: dict[str, int]
    recovery: dict[str, Any] | None


@DELIVERIES.get("/deliveries", READ, Deliveries)
async def list_deliveries(call: Call, query: DeliveriesQuery) -> dict[str, Any]:
    """Webhooks that were sent or are owed, the newest first."""
    m = outbox_tables.messages.c
    now_ms = call.app.clock()
    found = _mine(call.caller)
    if query.endpoint is not UNSET:
        found = found.where(m.destination == query.endpoint)
    if query.event is not UNSET:
        found = found.where(m.subject == query.event)
    if query.status is not UNSET:
        found = found.where(m.state == _STATES[query.status])

    def look(tx: Connection) -> dict[str, Any]:
        return page(
            query,
            lambda before, limit: rows(tx, found, m.id, before, limit),
            lambda row: commands.one(tx, row["id"], now_ms),
        )

    answer: dict[str, Any] = await call.read(look)
    return answer


@DELIVERIES.get("/deliveries/{delivery}", READ, DeliveryTried)
async def get_delivery(call: Call, delivery: str) -> dict[str, Any]:
    """One delivery, try by try."""
    await call.read(_own, call.caller, delivery)
    return await commands.show(call.app, delivery=delivery)


@DELIVERIES.post("/deliveries/{delivery}/retry", WRITE, DeliveryAgain, status=201)
async def retry_delivery(call: Call, delivery: str, body: Reason) -> Any:
    """Send the same event to the same endpoint once more, as a new delivery."""
    await call.read(_own, call.caller, delivery)
    hand, queue = call.by, call.app.queue
    return await call.write(lambda tx: commands.again(tx, queue, delivery, hand, body.reason))


@DELIVERIES.post("/deliveries/recover", WRITE, Recovery)
async def recover_deliveries(call: Call, body: Missed) -> dict[str, Any]:
    """Send again what your endpoints have missed since a time.

    A stored job does it; this does not wait for it. What is on its way already is not sent twice, so asking twice is
    harmless. `dry_run` only counts.
    """
    if body.endpoint is not None:
        await own_endpoint(call, body.endpoint)
    if body.payment is not None:
        await call.read(own_payment, call.caller, body.payment)
    found = await recoveries.recover(
        call.app,
        since=body.since,
        endpoint=body.endpoint,
        type=body.type,
        payment=body.payment,
        merchant=call.caller.merchant_id,
        per_minute=body.per_minute,
        reason=body.reason,
        dry_run=body.dry_run,
        actor=call.actor,
    )
    return {name: found[name] for name in ("dry_run", "since", "looked", "found", "recovery")}


def _mine(caller: Caller) -> Any:
    """Ids of deliveries to the caller's endpoints; a test key sees none of a live event."""
    m = outbox_tables.messages.c
    own = select(endpoints.c.id).where(endpoints.c.merchant_id == caller.merchant_id)
    return (
        select(m.id)
        .join(events, events.c.id == m.subject)
        .where(m.topic == WEBHOOK, m.destination.in_(own), events.c.live == caller.live)
    )


def _own(tx: Connection, caller: Caller, delivery: str) -> None:
    if tx.execute(_mine(caller).where(outbox_tables.messages.c.id == delivery)).first() is None:
        raise not_found("delivery")
