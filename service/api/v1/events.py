"""`GET /v1/events`: all that a merchant was told, read at its own pace: a shop that was down catches up here."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any

import msgspec
from litestar import Request
from msgspec import UNSET, Meta, UnsetType

from service import feed
from service.api.problems import Wrong
from service.api.v1.kit import Call, Resource
from service.feed import Page, Wanted
from service.merchants.events import CATALOGUE, ON_REQUEST

EVENTS = Resource("events")
EVENTS_READ = "events:read"
LIMIT = 50
LIMIT_MAX = 200
WAIT_S_MAX = 30

_ULID = "[0-9A-HJKMNP-TV-Z]{26}"
_PAYMENT = re.compile(f"pay_{_ULID}", re.ASCII)
_ONE_TYPE = "|".join(re.escape(name) for name in CATALOGUE)
_AFTER = "Where to go on: `next` of the answer before, or the id of an event. Nothing: from the beginning."
_TYPES = "Only these types, comma-separated or repeated. Nothing: all but " + ", ".join(sorted(ON_REQUEST)) + "."
_WAIT = "When there is nothing: how many seconds to wait for something."


class Event(msgspec.Struct):
    """What was told, exactly as it was signed and sent to endpoints."""

    id: str
    type: str
    created_at: str
    sequence: int
    data: dict[str, Any]


class Events(msgspec.Struct):
    """`next` goes into the next request's `after`, also when `data` is empty. `more`: ask again at once."""

    data: list[Event]
    next: str
    more: bool


class EventsQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which events."""

    after: Annotated[
        str, Meta(description=_AFTER, extra_json_schema={"pattern": f"^(evt_{_ULID}|cur_[0-9a-f]{{1,15}})?$"})
    ] = ""
    types: (
        Annotated[
            list[Annotated[str, Meta(extra_json_schema={"pattern": f"^({_ONE_TYPE})(,({_ONE_TYPE}))*$"})]],
            Meta(description=_TYPES, extra_json_schema={"maxItems": len(CATALOGUE)}),
        ]
        | UnsetType
    ) = UNSET
    payment: (
        Annotated[
            str,
            Meta(description="Only what is about this payment.", extra_json_schema={"pattern": f"^pay_{_ULID}$"}),
        ]
        | UnsetType
    ) = UNSET
    limit: Annotated[int, Meta(ge=1, le=LIMIT_MAX, description="At most so many.")] = LIMIT
    wait: Annotated[int, Meta(ge=0, le=WAIT_S_MAX, description=_WAIT)] = 0


@EVENTS.get("/events", EVENTS_READ, Events, many=("types",))
async def list_events(call: Call, query: EventsQuery) -> Any:
    """What was told, in the order it was committed"""
    caller, events = call.caller, call.app.feed
    if (query.payment and not _PAYMENT.fullmatch(query.payment)) or query.payment == "":
        raise Wrong("bad_payment", "payment", "payment: the id of a payment looks like pay_01….")
    wanted = Wanted(caller.merchant_id, caller.live, _types(query.types or None), query.payment or None)
    page = await events.page(wanted, query.after, query.limit)
    if not query.wait or page.bodies or page.more:
        return _answer(page)
    loop = asyncio.get_running_loop()
    until = loop.time() + query.wait
    with events.place(caller.key_id, caller.merchant_id):
        gone = asyncio.create_task(_gone(call.request))
        try:
            while not page.bodies and not page.more:
                if not await events.wait(wanted, page.head, until - loop.time(), gone):
                    break
                await call.at.caller(call.request, EVENTS_READ)
                page = await events.page(wanted, page.next, query.limit)
        finally:
            gone.cancel()
    return _answer(page)


def _types(given: list[str] | None) -> frozenset[str]:
    listed = [name.strip() for one in given or () for name in one.split(",")]
    if len(listed) > len(CATALOGUE):
        said = f"types: there are {len(CATALOGUE)} event types, and {len(listed)} were given."
        raise Wrong("bad_types", "types", said)
    names = frozenset(listed)
    for name in names:
        if name not in CATALOGUE:
            said = f"types: there is no event type {name[:60]!r}; there are {', '.join(CATALOGUE)}."
            raise Wrong("bad_types", "types", said)
    return names


async def _gone(request: Request[Any, Any, Any]) -> None:
    """Until the client has hung up: a place must not be kept for nobody."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _answer(page: Page) -> dict[str, Any]:
    # The bodies are put in as they are: what is read here has the very bytes that were signed.
    data = [msgspec.Raw(body) for body in page.bodies]
    return {"data": data, "next": feed.cursor(page.next), "more": page.more}
