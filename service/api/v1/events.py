"""`GET /v1/events`: all that a merchant was told, read at its own pace: a shop that was down catches up here."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any

import msgspec
from litestar import MediaType, Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIType, Schema
from litestar.params import Parameter

from service import feed
from service.api.v1.document import answers
from service.api.v1.door import MANY, SCOPE, Door
from service.errors import Refusal
from service.feed import Feed, Page, Wanted
from service.merchants.events import CATALOGUE, ON_REQUEST

EVENTS_READ = "events:read"
LIMIT = 50
LIMIT_MAX = 200
WAIT_S_MAX = 30

_ULID = "[0-9A-HJKMNP-TV-Z]{26}"
PAYMENT = f"^pay_{_ULID}$"
AFTER = f"^(evt_{_ULID}|cur_[0-9a-f]{{1,15}})?$"
_ONE_TYPE = "|".join(re.escape(name) for name in CATALOGUE)
_PAYMENT = re.compile(PAYMENT, re.ASCII)


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


_AFTER = Parameter(
    description="Where to go on: `next` of the answer before, or the id of an event. Nothing: from the beginning.",
    schema_extra={"pattern": AFTER},
)
_TYPES = Parameter(
    description="Only these types, comma-separated or repeated. Nothing: all but "
    + ", ".join(sorted(ON_REQUEST))
    + ".",
    schema_extra={
        "one_of": None,
        "type": OpenAPIType.ARRAY,
        "items": Schema(type=OpenAPIType.STRING, pattern=f"^({_ONE_TYPE})(,({_ONE_TYPE}))*$"),
        "max_items": len(CATALOGUE),
    },
)
_PAYMENT_ID = Parameter(
    description="Only what is about this payment.",
    schema_extra={"one_of": None, "type": OpenAPIType.STRING, "pattern": PAYMENT},
)
_LIMIT = Parameter(description="At most so many.", ge=1, le=LIMIT_MAX)
_WAIT = Parameter(description="When there is nothing: how many seconds to wait for something.", ge=0, le=WAIT_S_MAX)


def feed_route(events: Feed, door: Door, middleware: list[Any]) -> HTTPRouteHandler:
    """The handler, over these parts."""

    @get(
        "/v1/events",
        guards=[door],
        middleware=middleware,
        opt={SCOPE: EVENTS_READ, MANY: ("types",)},
        operation_id="listEvents",
        summary="What was told, in the order it was committed",
        responses={
            200: ResponseSpec(Events, generate_examples=False, description="A page, and where the next one begins"),
            **answers(400, 401, 403, 404, 429, 503),
        },
    )
    async def listed(
        request: Request[Any, Any, Any],
        after: Annotated[str, _AFTER] = "",
        types: Annotated[list[str] | None, _TYPES] = None,
        payment: Annotated[str | None, _PAYMENT_ID] = None,
        limit: Annotated[int, _LIMIT] = LIMIT,
        wait: Annotated[int, _WAIT] = 0,
    ) -> Response[bytes]:
        caller = request.auth
        if payment is not None and not _PAYMENT.fullmatch(payment):
            raise Refusal("bad_payment", "payment: the id of a payment looks like pay_01….")
        wanted = Wanted(caller.merchant_id, caller.live, _types(types), payment)
        page = await events.page(wanted, after, limit)
        if not wait or page.bodies or page.more:
            return _answer(page)
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        with events.place(caller.key_id, caller.merchant_id):
            gone = asyncio.create_task(_gone(request))
            try:
                while not page.bodies and not page.more:
                    if not await events.wait(wanted, page.head, until - loop.time(), gone):
                        break
                    await door.caller(request, EVENTS_READ)
                    page = await events.page(wanted, page.next, limit)
            finally:
                gone.cancel()
        return _answer(page)

    return listed


def _types(given: list[str] | None) -> frozenset[str]:
    listed = [name.strip() for one in given or () for name in one.split(",")]
    if len(listed) > len(CATALOGUE):
        raise Refusal("bad_types", f"types: there are {len(CATALOGUE)} event types, and {len(listed)} were given.")
    names = frozenset(listed)
    for name in names:
        if name not in CATALOGUE:
            raise Refusal(
                "bad_types", f"types: there is no event type {name[:60]!r}; there are {', '.join(CATALOGUE)}."
            )
    return names


async def _gone(request: Request[Any, Any, Any]) -> None:
    """Until the client has hung up: a place must not be kept for nobody."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _answer(page: Page) -> Response[bytes]:
    # The bodies are put in as they are: what is read here has the very bytes that were signed.
    tail = msgspec.json.encode({"next": feed.cursor(page.next), "more": page.more})
    body = b'{"data":[' + b",".join(page.bodies) + b"]," + tail[1:]
    return Response(body, media_type=MediaType.JSON, headers={"Cache-Control": "no-store"})
