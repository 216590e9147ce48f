"""`/v1/holds`: the money of paid orders that is kept for a beneficiary, and who lets it go."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection

from service.api.v1.kit import Call, Resource
from service.api.v1.lists import PageQuery, page
from service.api.v1.shapes import Id
from service.escrow import hold_rows
from service.escrow.states import Hold as State
from service.merchants.audit import REASON_CHARACTERS_MAX

HOLDS = Resource("holds")
READ, WRITE, LINK = "holds:read", "holds:write", "holds:link"


class Why(msgspec.Struct, forbid_unknown_fields=True):
    """Why, for the audit trail: nobody decides about money without a reason."""

    reason: Annotated[str, Meta(min_length=1, max_length=REASON_CHARACTERS_MAX)]


class Hold(msgspec.Struct):
    """A hold: held = releasable + released + refunded + frozen. `taken_back`: of what was released, afterwards."""

    id: str
    order: str
    beneficiary: str
    status: Literal["held", "release_scheduled", "frozen", "released", "refunded"]
    live: bool
    currency: str
    held: int
    releasable: int
    released: int
    refunded: int
    frozen: int
    taken_back: int
    against: list[str]
    release_at: str | None
    delivered_at: str | None
    created_at: str
    updated_at: str


class Holds(msgspec.Struct):
    """A page; `next` goes into the next request's `after`."""

    data: list[Hold]
    next: str
    more: bool


class HoldsQuery(PageQuery, kw_only=True):
    """Which holds."""

    status: Annotated[str, Meta(pattern=f"^({'|'.join(State)})$")] | UnsetType = UNSET
    beneficiary: Id | UnsetType = UNSET
    order: Id | UnsetType = UNSET


class BuyerLink(msgspec.Struct):
    """What the buyer confirms or objects with, shown this once. The one before it is worth nothing any more."""

    hold: str
    order: str
    token: str


@HOLDS.get("/holds", READ, Holds)
async def list_holds(call: Call, query: HoldsQuery) -> Any:
    """Holds, the newest first."""
    given = {"state": query.status, "beneficiary": query.beneficiary, "order": query.order}
    which: dict[str, Any] = {name: value for name, value in given.items() if value is not UNSET}

    def look(tx: Connection) -> dict[str, Any]:
        def fetch(before: str, limit: int) -> list[dict[str, Any]]:
            return hold_rows.listed(tx, call.caller, before=before, limit=limit, **which)

        return page(query, fetch, hold_rows.public)

    return await call.read(look)


@HOLDS.get("/holds/{hold}", READ, Hold)
async def get_hold(call: Call, hold: str) -> Any:
    """One hold."""
    return await call.read(lambda tx: hold_rows.public(hold_rows.one(tx, hold, call.caller)))


@HOLDS.post("/holds/{hold}/release", WRITE, Hold)
async def release_hold(call: Call, hold: str, body: Why) -> Any:
    """Release a hold by a person's word, before the clock or the buyer does.

    What is frozen is not released: unfreeze it first. Again changes nothing.
    """
    hand, holds = call.by, call.app.holds

    def work(tx: Connection) -> dict[str, Any]:
        hold_rows.one(tx, hold, call.caller)
        return hold_rows.public(holds.release(tx, hold, body.reason, hand))

    return await call.write(work)


@HOLDS.post("/holds/{hold}/unfreeze", WRITE, Hold)
async def unfreeze_hold(call: Call, hold: str, body: Why) -> Any:
    """Set aside what stands against a hold; it goes on where it was. What comes anew freezes it again."""
    hand, holds = call.by, call.app.holds

    def work(tx: Connection) -> dict[str, Any]:
        hold_rows.one(tx, hold, call.caller)
        return hold_rows.public(holds.unfreeze(tx, hold, body.reason, hand))

    return await call.write(work)


@HOLDS.post("/holds/{hold}/buyer_link", LINK, BuyerLink, status=201)
async def create_buyer_link(call: Call, hold: str) -> Any:
    """Make the token with which the buyer confirms or disputes, and give it to nobody but the buyer.

    A scope of its own: whoever sells, or records deliveries, must not hold a key that has it, or they could confirm
    their own delivery. Sent to `/v1/orders/{order}/confirm` or `/dispute` in the place of an API key.
    """
    hand, holds = call.by, call.app.holds

    def work(tx: Connection) -> dict[str, Any]:
        row = hold_rows.one(tx, hold, call.caller)
        return {"hold": hold, "order": row["order_id"], "token": holds.link(tx, hold, hand)}

    return await call.write(work)
