"""`/v1/sessions`: one buyer, one amount, as many tries as it has. The buyer's part is at `/pay/{session}`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection

from service.api.v1.kit import SESSION, Call, Resource
from service.api.v1.lists import PageQuery, page
from service.api.v1.shapes import Amount, Country, Customer, Id, Metadata, Method, Reason, Text, Url, buyer
from service.orders import sessions
from service.orders.return_urls import check_return_url
from service.orders.states import Session as State

SESSIONS = Resource("sessions")
READ, WRITE = "sessions:read", "sessions:write"


class NewSession(msgspec.Struct, forbid_unknown_fields=True):
    """What a buyer is asked for: `amount` with `currency`, or an `order`, and then what is left of it."""

    amount: Amount | None = None
    currency: Annotated[str, Meta(pattern="^([A-Z]{3})?$")] = ""
    order: Id = ""
    description: Text = ""
    reference: Text = ""
    methods: Annotated[list[Method], Meta(min_length=1, max_length=2)] = msgspec.field(
        default_factory=lambda: ["card", "mobile_money"]
    )
    country: Country = ""
    locale: Literal["fr", "en"] = "fr"
    return_url: Annotated[Url, Meta(description="Where the buyer goes afterwards.")] = ""
    customer: Customer = msgspec.field(default_factory=Customer)
    metadata: Metadata = {}
    expires_in_s: Annotated[int, Meta(ge=1_800, le=86_400, description="Seconds.")] = 3_600
    tries: Annotated[int, Meta(ge=1, le=sessions.TRIES_MAX)] = sessions.TRIES


class Session(msgspec.Struct):
    """A session. `state` is the machine's, `status` what it means to a merchant."""

    id: str
    status: Literal["pending", "processing", "paid", "failed", "cancelled", "refunded", "expired"]
    state: str
    amount: int
    currency: str
    order: str | None
    link: str | None
    payment: str | None
    description: str
    reference: str | None
    methods: list[str]
    country: str
    locale: str
    return_url: str
    tries_left: int
    failure_reason: str | None
    live: bool
    metadata: dict[str, str]
    created_at: str
    updated_at: str
    expires_at: str
    paid_at: str | None
    ended_at: str | None
    url: str | None
    """The buyer's page; null without CAISSE_PUBLIC_URL."""


class SessionMade(Session, kw_only=True):
    """A session with its secret, shown this once: the buyer's page and `verify` need it."""

    client_secret: str


class Sessions(msgspec.Struct):
    """A page; `next` goes into the next request's `after`."""

    data: list[Session]
    next: str
    more: bool


class SessionsQuery(PageQuery, kw_only=True):
    """Which sessions."""

    state: Annotated[str, Meta(pattern=f"^({'|'.join(State)})$")] | UnsetType = UNSET
    order: Id | UnsetType = UNSET


class OrderSeen(msgspec.Struct):
    """As much of the order as the buyer's page may know."""

    id: str
    state: str
    payment_status: str
    reference: str | None


class Verified(msgspec.Struct):
    """How a session stands, without personal data. `poll_after_ms` null: nothing changes by itself any more."""

    status: Literal["success", "pending", "error"]
    state: str
    message: str
    order: OrderSeen | None
    poll_after_ms: int | None


class VerifyQuery(msgspec.Struct, forbid_unknown_fields=True):
    """In which language `message` is; the session's own, unless it is given."""

    locale: Literal["fr", "en"] | UnsetType = UNSET


@SESSIONS.get("/sessions", READ, Sessions)
async def list_sessions(call: Call, query: SessionsQuery) -> Any:
    """Sessions, the newest first."""
    given = {"state": query.state, "order_id": query.order}
    which: dict[str, Any] = {name: value for name, value in given.items() if value is not UNSET}

    def look(tx: Connection) -> dict[str, Any]:
        def fetch(before: str, limit: int) -> list[dict[str, Any]]:
            return sessions.listed(tx, call.caller, before=before, limit=limit, **which)

        return page(query, fetch, lambda row: _public(call, row))

    return await call.read(look)


@SESSIONS.post("/sessions", WRITE, SessionMade, status=201)
async def create_session(call: Call, body: NewSession) -> Any:
    """Open a session; no provider hears of it before the buyer has chosen how to pay."""
    offer = sessions.Offer(
        body.currency,
        body.amount,
        body.order,
        body.description,
        body.reference,
        tuple(body.methods),
        body.country,
        body.locale,
        check_return_url(body.return_url, strict=call.app.settings.strict, allowed=call.app.settings.return_origins),
        buyer(body.customer, body.country),
        body.metadata,
        body.expires_in_s * 1000,
        body.tries,
    )
    hand, queue = call.by, call.app.queue

    def work(tx: Connection) -> dict[str, Any]:
        made = sessions.create(tx, queue, call.caller, offer, hand)
        return {**_shown(tx, call, made.id), "client_secret": made.client_secret}

    return await call.write(work)


@SESSIONS.get("/sessions/{session}", READ, Session)
async def get_session(call: Call, session: str) -> Any:
    """One session."""
    return await call.read(_shown, call, session)


@SESSIONS.get("/sessions/{session}/verify", SESSION, Verified)
async def verify_session(call: Call, session: str, query: VerifyQuery) -> Any:
    """How a session stands, for the page that waits for it.

    Brings the session's client secret instead of an API key: `Authorization: Bearer cs_…`. When nothing has been heard
    for thirty seconds the provider is asked, for two seconds at most.
    """
    return await call.app.checkout.verify(session, call.secret, query.locale or "")


@SESSIONS.post("/sessions/{session}/cancel", WRITE, Session)
async def cancel_session(call: Call, session: str, body: Reason) -> Any:
    """Cancel a session that no payment is under way for."""
    hand, queue = call.by, call.app.queue

    def work(tx: Connection) -> dict[str, Any]:
        sessions.cancel(tx, queue, call.caller, session, hand, body.reason)
        return _shown(tx, call, session)

    return await call.write(work)


@SESSIONS.post("/sessions/{session}/expire", WRITE, Session)
async def expire_session(call: Call, session: str, body: Reason) -> Any:
    """End a session now, as if its time were up.

    A payment that is under way is cancelled at its provider first; `state` is expiring until it is proven dead.
    """
    hand, queue = call.by, call.app.queue

    def work(tx: Connection) -> dict[str, Any]:
        sessions.expire(tx, queue, call.caller, session, hand, body.reason)
        return _shown(tx, call, session)

    return await call.write(work)


def _shown(tx: Connection, call: Call, session: str) -> dict[str, Any]:
    return _public(call, sessions.one(tx, call.caller, session))


def _public(call: Call, row: Any) -> dict[str, Any]:
    public = call.app.settings.public_url
    return {**sessions.public(row), "url": f"{public}/pay/{row['id']}" if public else None}
