"""`/v1/links`: payment links, which make a session for whoever opens them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection

from service.api.v1.kit import Call, Resource
from service.api.v1.lists import PageQuery, page
from service.api.v1.shapes import Amount, Country, Id, Method, Text, Url
from service.orders import links
from service.orders.orders import QUANTITY_MAX
from service.orders.return_urls import check_return_url

LINKS = Resource("links")
READ, WRITE = "sessions:read", "sessions:write"

Uses = Annotated[int, Meta(ge=1, le=links.USES_MAX)]


class NewLink(msgspec.Struct, forbid_unknown_fields=True):
    """A fixed `amount`, or what the buyer chooses between `min_amount` and `max_amount`, or so many of a `product`."""

    amount: Amount | None = None
    min_amount: Amount | None = None
    max_amount: Amount | None = None
    currency: Annotated[str, Meta(pattern="^([A-Z]{3})?$")] = ""
    product: Id = ""
    quantity: Annotated[int, Meta(ge=1, le=QUANTITY_MAX)] = 1
    description: Text = ""
    reference: Text = ""
    methods: Annotated[list[Method], Meta(min_length=1, max_length=2)] = msgspec.field(
        default_factory=lambda: ["card", "mobile_money"]
    )
    country: Country = ""
    return_url: Url = ""
    max_uses: Uses | None = None


class LinkChanges(msgspec.Struct, forbid_unknown_fields=True):
    """What is given is changed; `max_uses` null: no limit."""

    active: bool | UnsetType = UNSET
    description: Text | UnsetType = UNSET
    max_uses: Uses | UnsetType | None = UNSET


class Link(msgspec.Struct):
    """A payment link; `uses` counts payments begun or made."""

    id: str
    active: bool
    amount: int | None
    min_amount: int | None
    max_amount: int | None
    currency: str
    product: str | None
    quantity: int
    description: str
    reference: str | None
    methods: list[str]
    country: str
    return_url: str
    max_uses: int | None
    uses: int
    live: bool
    created_at: str
    updated_at: str


class Links(msgspec.Struct):
    """A page; `next` goes into the next request's `after`."""

    data: list[Link]
    next: str
    more: bool


class LinksQuery(PageQuery, kw_only=True):
    """Which links."""

    active: bool | UnsetType = UNSET


@LINKS.get("/links", READ, Links)
async def list_links(call: Call, query: LinksQuery) -> Any:
    """Payment links, the newest first."""
    active = None if query.active is UNSET else query.active

    def look(tx: Connection) -> dict[str, Any]:
        def fetch(before: str, limit: int) -> list[dict[str, Any]]:
            return links.listed(tx, call.caller, before=before, limit=limit, active=active)

        return page(query, fetch, links.public)

    return await call.read(look)


@LINKS.post("/links", WRITE, Link, status=201)
async def create_link(call: Call, body: NewLink) -> Any:
    """Make a payment link."""
    draft = links.LinkDraft(
        body.currency,
        body.amount,
        body.min_amount,
        body.max_amount,
        body.product,
        body.quantity,
        body.description,
        body.reference,
        tuple(body.methods),
        body.country,
        check_return_url(body.return_url, strict=call.app.settings.strict, allowed=call.app.settings.return_origins),
        body.max_uses,
    )
    hand = call.by
    return await call.write(lambda tx: _shown(tx, call, links.create(tx, call.caller, draft, hand)))


@LINKS.get("/links/{link}", READ, Link)
async def get_link(call: Call, link: str) -> Any:
    """One payment link."""
    return await call.read(_shown, call, link)


@LINKS.patch("/links/{link}", WRITE, Link)
async def change_link(call: Call, link: str, body: LinkChanges) -> Any:
    """Switch a payment link on or off, or change its words or how often it may be used."""
    hand = call.by
    given = {"active": body.active, "description": body.description, "max_uses": body.max_uses}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not UNSET}

    def work(tx: Connection) -> dict[str, Any]:
        links.change(tx, call.caller, link, hand, **changes)
        return _shown(tx, call, link)

    return await call.write(work)


def _shown(tx: Connection, call: Call, link: str) -> dict[str, Any]:
    return links.public(links.one(tx, call.caller, link))
