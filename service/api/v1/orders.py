"""`/v1/orders`: what was bought, the stock that it holds, and what became of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection

from service.api.v1.kit import Call, Resource
from service.api.v1.lists import PageQuery, page
from service.api.v1.shapes import Amount, Currency, Id, Metadata, Reason, Text, Time, time_ms
from service.orders import orders
from service.orders.states import Order as State

ORDERS = Resource("orders")
READ, WRITE = "orders:read", "orders:write"


class NewLine(msgspec.Struct, forbid_unknown_fields=True):
    """So many of a product, at its price unless `unit_amount` says another; or of what `description` says."""

    quantity: Annotated[int, Meta(ge=1, le=orders.QUANTITY_MAX)] = 1
    product: Id = ""
    description: Text = ""
    unit_amount: Amount | None = None


class NewOrder(msgspec.Struct, forbid_unknown_fields=True):
    """An order. `amount`, where it is given, has to be the sum of the lines."""

    lines: Annotated[list[NewLine], Meta(min_length=1, max_length=orders.LINES_MAX)]
    currency: Currency
    amount: Amount | None = None
    reference: Text = ""
    description: Text = ""
    expires_at: (
        Annotated[Time, Meta(description="5 minutes to 30 days from now; in an hour, unless it is given.")] | None
    ) = None
    late: Annotated[
        Literal["ask", "revive", "refund"], Meta(description="What becomes of money that comes after the end.")
    ] = "ask"
    restock: Annotated[bool, Meta(description="A full refund by us gives the stock back.")] = False
    metadata: Metadata = {}


class Line(msgspec.Struct):
    """A line of an order."""

    product: str | None
    description: str
    quantity: int
    unit_amount: int


class Order(msgspec.Struct):
    """An order. Fulfil it when `state` is paid, which is told once as order.paid."""

    id: str
    state: str
    payment_status: Literal["unpaid", "partially_paid", "paid"]
    exceptions: list[str]
    amount: int
    amount_paid: int
    currency: str
    reference: str | None
    description: str
    lines: list[Line]
    late: str
    restock: bool
    live: bool
    metadata: dict[str, str]
    created_at: str
    updated_at: str
    expires_at: str
    fulfilled_at: str | None
    delivered_at: str | None
    ended_at: str | None


class Orders(msgspec.Struct):
    """A page; `next` goes into the next request's `after`."""

    data: list[Order]
    next: str
    more: bool


class OrdersQuery(PageQuery, kw_only=True):
    """Which orders."""

    state: Annotated[str, Meta(pattern=f"^({'|'.join(State)})$")] | UnsetType = UNSET
    reference: Text | UnsetType = UNSET


@ORDERS.get("/orders", READ, Orders)
async def list_orders(call: Call, query: OrdersQuery) -> Any:
    """Orders, the newest first."""
    given = {"state": query.state, "reference": query.reference}
    which: dict[str, Any] = {name: value for name, value in given.items() if value is not UNSET}

    def look(tx: Connection) -> dict[str, Any]:
        def fetch(before: str, limit: int) -> list[dict[str, Any]]:
            return orders.listed(tx, call.caller, before=before, limit=limit, **which)

        return page(query, fetch, orders.public)

    return await call.read(look)


@ORDERS.post("/orders", WRITE, Order, status=201)
async def create_order(call: Call, body: NewOrder) -> Any:
    """Make an order and hold its stock until it is paid or its time is up."""
    lines = tuple(orders.Line(line.quantity, line.product, line.description, line.unit_amount) for line in body.lines)
    draft = orders.Draft(
        lines,
        body.currency,
        body.amount,
        body.reference,
        body.description,
        time_ms("expires_at", body.expires_at) if body.expires_at else None,
        body.late,
        body.restock,
        body.metadata,
    )
    hand, queue = call.by, call.app.queue
    return await call.write(lambda tx: _shown(tx, call, orders.create(tx, queue, call.caller, draft, hand)))


@ORDERS.get("/orders/{order}", READ, Order)
async def get_order(call: Call, order: str) -> Any:
    """One order."""
    return await call.read(_shown, call, order)


@ORDERS.post("/orders/{order}/cancel", WRITE, Order)
async def cancel_order(call: Call, order: str, body: Reason) -> Any:
    """Cancel an order.

    Its payments are cancelled at their providers first: `state` is canceling until the last of them is proven dead.
    """
    hand, queue = call.by, call.app.queue

    def work(tx: Connection) -> dict[str, Any]:
        orders.cancel(tx, queue, call.caller, order, hand, body.reason)
        return _shown(tx, call, order)

    return await call.write(work)


@ORDERS.post("/orders/{order}/deliver", WRITE, Order)
async def deliver_order(call: Call, order: str) -> Any:
    """Record that a paid order was delivered."""
    hand, queue = call.by, call.app.queue

    def work(tx: Connection) -> dict[str, Any]:
        orders.deliver(tx, queue, call.caller, order, hand)
        return _shown(tx, call, order)

    return await call.write(work)


def _shown(tx: Connection, call: Call, order: str) -> dict[str, Any]:
    return orders.public(orders.one(tx, call.caller, order))
