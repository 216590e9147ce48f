"""`/v1/orders`: what was bought, the stock that it holds, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection, select

from service.api.v1.kit import SESSION, Call, Resource
from service.api.v1.lists import PageQuery, page
from service.api.v1.shapes import Amount, Currency, Id, Metadata, Reason, Text, Time, time_ms
from service.escrow.tables import holds
from service.orders import orders
from service.orders.buyer import WORDS_MAX, Buyer
from service.orders.states import Order as State

ORDERS = Resource("orders")
READ, WRITE = "orders:read", "orders:write"


class NewLine(msgspec.Struct, forbid_unknown_fields=True):
    """So many of a product, at its price unless `unit_amount` says another; or of what `description` says."""

    quantity: Annotated[int, Meta(ge=1, le=orders.QUANTITY_MAX)] = 1
    product: Id = ""
    description: Text = ""
    unit_amount: Amount | None = None


class NewEscrow(msgspec.Struct, forbid_unknown_fields=True):
    """For whom the money is held once it is paid; delayed payout has to be on (`/v1/escrow`)."""

    beneficiary: Annotated[str, Meta(min_length=1, max_length=100)]


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
    escrow: NewEscrow | None = None


class Line(msgspec.Struct):
    """A line of an order."""

    product: str | None
    description: str
    quantity: int
    unit_amount: int


class Escrow(msgspec.Struct):
    """For whom the money is held; `hold` is null until it is paid."""

    beneficiary: str
    hold: str | None


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
    escrow: Escrow | None
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


class BuyersWords(msgspec.Struct, forbid_unknown_fields=True):
    """What is wrong, for the shop to read."""

    reason: Annotated[str, Meta(min_length=1, max_length=WORDS_MAX)]


class BuyersView(msgspec.Struct):
    """How far the order is, and what has become of its money."""

    order: str
    state: str
    hold: Literal["held", "release_scheduled", "frozen", "released", "refunded"]


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

        found = page(query, fetch)
        return found | {"data": _public(tx, found["data"])}

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
        body.escrow.beneficiary if body.escrow else "",
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


@ORDERS.post("/orders/{order}/confirm", SESSION, BuyersView)
async def confirm_order(call: Call, order: str) -> Any:
    """The buyer has what was bought: the money that is held goes to whom it is for, and the order is completed.

    Brings the buyer's own token instead of an API key, `Authorization: Bearer …`, as `/v1/holds/{hold}/buyer_link`
    gives it; no API key will do. Again changes nothing.
    """
    token, now_ms = call.secret, call.app.clock()
    return await call.write(lambda tx: _buyer(call).confirm(tx, order, token, now_ms))


@ORDERS.post("/orders/{order}/dispute", SESSION, BuyersView)
async def dispute_order(call: Call, order: str, body: BuyersWords) -> Any:
    """The buyer objects, in their own words: the money that is held is frozen, and a person looks at it.

    Brings the buyer's own token instead of an API key; no API key will do. Again changes nothing.
    """
    token, now_ms = call.secret, call.app.clock()
    return await call.write(lambda tx: _buyer(call).dispute(tx, order, token, body.reason, now_ms))


def _buyer(call: Call) -> Buyer:
    return Buyer(call.app.queue, call.app.holds, call.app.ids)


def _shown(tx: Connection, call: Call, order: str) -> dict[str, Any]:
    (shown,) = _public(tx, [orders.one(tx, call.caller, order)])
    return shown


def _public(tx: Connection, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """As merchants see them, each with what is held of it."""
    held = [row["id"] for row in rows if row["beneficiary_id"]]
    query = select(holds.c.order_id, holds.c.id).where(holds.c.order_id.in_(held))
    hold_of = {row.order_id: row.id for row in tx.execute(query)} if held else {}
    shown = []
    for row in rows:
        one = orders.public(row)
        beneficiary = one.pop("beneficiary", None)
        one["escrow"] = {"beneficiary": beneficiary, "hold": hold_of.get(row["id"])} if beneficiary else None
        shown.append(one)
    return shown
