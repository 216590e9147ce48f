"""`/v1/endpoints`: where a merchant wants events. Both modes of a merchant share them; an event says which it is of."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection

from service.api.v1.kit import Call, Resource
from service.api.v1.lists import PageQuery, page
from service.api.v1.reading import not_found
from service.api.v1.shapes import Reason
from service.commands import endpoints as commands
from service.merchants import endpoints
from service.merchants.events import WEBHOOK, rfc3339

ENDPOINTS = Resource("endpoints")
READ, WRITE = "endpoints:read", "endpoints:write"

Address = Annotated[str, Meta(min_length=1, max_length=endpoints.URL_CHARACTERS_MAX)]
Filter = Annotated[
    list[Annotated[str, Meta(max_length=60)]],
    Meta(max_length=100, description="Types of events; `*` is all but those that are told only on request."),
]
Schedule = Annotated[
    str, Meta(max_length=500, description="`standard`, `short`, or delays in seconds, comma-separated: 5,60,300.")
]
PerMinute = Annotated[int, Meta(ge=1, le=endpoints.PER_MINUTE_MAX, description="Tries a minute at most.")]


class Endpoint(msgspec.Struct):
    """An endpoint. `held`: why what it is owed is kept aside; `circuit`: open while it does nothing but fail."""

    id: str
    url: str
    events: str
    status: Literal["enabled", "disabled"]
    schedule: str
    created_at: str
    circuit: str
    disabled_reason: str | None = None


class EndpointStands(Endpoint, kw_only=True):
    """An endpoint, and how it stands."""

    held: str | None
    per_minute: int | None
    failures_in_a_row: int
    failing_since: str | None
    owed: int
    paused_until: str | None
    next_due_at: str | None


class Endpoints(msgspec.Struct):
    """A page; `next` goes into the next request's `after`."""

    data: list[Endpoint]
    next: str
    more: bool


class NewEndpoint(msgspec.Struct, forbid_unknown_fields=True):
    """An endpoint to be added."""

    url: Address
    events: Filter = msgspec.field(default_factory=lambda: ["*"])
    schedule: Schedule = "standard"
    per_minute: PerMinute | None = None


class Changes(msgspec.Struct, forbid_unknown_fields=True):
    """What is given is changed; `per_minute` null ends the limit."""

    url: Address | UnsetType = UNSET
    events: Filter | UnsetType = UNSET
    schedule: Schedule | UnsetType = UNSET
    per_minute: PerMinute | UnsetType | None = UNSET


class Secret(msgspec.Struct):
    """The secret, shown this once."""

    id: str
    url: str
    secret: str


class NewSecret(msgspec.Struct):
    """The new secret, shown this once. The old one signs too until `old_ends_at`."""

    id: str
    secret: str
    old_ends_at: str


class Overlap(msgspec.Struct, forbid_unknown_fields=True):
    """How long the old secret signs too; 0: it leaked, it ends now."""

    overlap_hours: Annotated[int, Meta(ge=0, le=720)] = 24


class Disabled(msgspec.Struct):
    """`held`: deliveries that are kept aside."""

    id: str
    status: Literal["disabled"]
    held: int


class Enabled(msgspec.Struct):
    """`sent`: deliveries that were kept aside and go now; `given_up`: those that do not."""

    id: str
    status: Literal["enabled"]
    sent: int
    given_up: int


class Enabling(msgspec.Struct, forbid_unknown_fields=True):
    """`send_held` false: what was kept aside counts as failed."""

    send_held: bool = True


class Tested(msgspec.Struct):
    """The delivery of the test, as far as it came while this waited (12 s at most)."""

    endpoint: str
    id: str
    event: str
    status: str
    tries: int
    http_status: int | None
    error: str | None
    delivered_at: str | None


_OURS = ("merchant_id", "failing_since_ms", "warnings", "warned_at")


async def own(call: Call, endpoint: str) -> dict[str, Any]:
    """The caller's own endpoint. Raises not_found."""

    def look(tx: Connection) -> dict[str, Any]:
        row = endpoints.one(tx, endpoint)
        if row["merchant_id"] != call.caller.merchant_id:
            raise not_found("endpoint")
        return row

    row: dict[str, Any] = await call.read(look)
    return row


@ENDPOINTS.get("/endpoints", READ, Endpoints)
async def list_endpoints(call: Call, query: PageQuery) -> dict[str, Any]:
    """Endpoints, the newest first, without their secrets."""
    # At most ENDPOINTS_MAX of them, so they are paged here.
    found = sorted(
        await commands.listed(call.app, merchant=call.caller.merchant_id), key=lambda one: one["id"], reverse=True
    )

    def fetch(before: str, limit: int) -> list[dict[str, Any]]:
        return [one for one in found if not before or one["id"] < before][:limit]

    return page(query, fetch, _public)


@ENDPOINTS.post("/endpoints", WRITE, Secret, status=201)
async def create_endpoint(call: Call, body: NewEndpoint) -> Any:
    """Add an endpoint.

    What is told from now on is sent there. `secret` verifies the signatures and is not shown again.
    """
    commands.check_address(call.app, body.url)
    hand, caller, app = call.by, call.caller, call.app

    def work(tx: Connection) -> dict[str, Any]:
        events = ",".join(body.events)
        made = endpoints.add(tx, caller.merchant_id, body.url, hand, app.seal, events, body.schedule)
        if body.per_minute is not None:
            app.queue.destinations.limit(tx, WEBHOOK, made.id, body.per_minute)
        return {"id": made.id, "url": made.url, "secret": made.secret}

    return await call.write(work)


@ENDPOINTS.get("/endpoints/{endpoint}", READ, EndpointStands)
async def get_endpoint(call: Call, endpoint: str) -> dict[str, Any]:
    """One endpoint, and how it stands."""
    await own(call, endpoint)
    return _public(await commands.show(call.app, endpoint=endpoint))


@ENDPOINTS.patch("/endpoints/{endpoint}", WRITE, EndpointStands)
async def change_endpoint(call: Call, endpoint: str, body: Changes) -> dict[str, Any]:
    """Change an endpoint's address, filter, schedule or limit."""
    await own(call, endpoint)
    shown = await commands.change(
        call.app,
        endpoint=endpoint,
        url=body.url or None,
        events=",".join(body.events) if body.events is not UNSET else None,
        schedule=body.schedule or None,
        per_minute=None if body.per_minute is UNSET else body.per_minute or "none",
        actor=call.actor,
    )
    return _public(shown)


@ENDPOINTS.post("/endpoints/{endpoint}/disable", WRITE, Disabled)
async def disable_endpoint(call: Call, endpoint: str, body: Reason) -> dict[str, Any]:
    """Send nothing more there; what is owed is kept aside."""
    await own(call, endpoint)
    return await commands.disable(call.app, endpoint=endpoint, reason=body.reason or "by the API", actor=call.actor)


@ENDPOINTS.post("/endpoints/{endpoint}/enable", WRITE, Enabled)
async def enable_endpoint(call: Call, endpoint: str, body: Enabling) -> dict[str, Any]:
    """Send there again, and what was kept aside with it."""
    await own(call, endpoint)
    return await commands.enable(call.app, endpoint=endpoint, send_held=body.send_held, actor=call.actor)


@ENDPOINTS.post("/endpoints/{endpoint}/rotate-secret", WRITE, NewSecret)
async def rotate_endpoint_secret(call: Call, endpoint: str, body: Overlap) -> Any:
    """Make a new secret; the old one signs too until the overlap is over."""
    await own(call, endpoint)
    hand, overlap_ms = call.by, body.overlap_hours * 3_600_000

    def work(tx: Connection) -> dict[str, Any]:
        secret = endpoints.rotate(tx, endpoint, hand, call.app.seal, overlap_ms)
        return {"id": endpoint, "secret": secret, "old_ends_at": rfc3339(hand.now_ms + overlap_ms)}

    return await call.write(work)


@ENDPOINTS.post("/endpoints/{endpoint}/test", WRITE, Tested)
async def test_endpoint(call: Call, endpoint: str) -> dict[str, Any]:
    """Send an `endpoint.test` event there, and wait for what it answers."""
    await own(call, endpoint)
    return await commands.test(call.app, endpoint=endpoint, actor=call.actor)


def _public(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in _OURS}
