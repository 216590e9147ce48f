"""
What an operation of /v1 is, and how a request becomes a call of one: key and scope, query and body by their shapes,
`Idempotency-Key`, and the answer.

    PAYMENTS = Resource("payments")

    @PAYMENTS.post("/payments", "payments:write", Payment, status=201)
    async def create_payment(call: Call, body: NewPayment) -> Any:
        '''The first line is the summary of the document, what follows its description.'''

The function's name becomes the operation's id, its parameters say what it takes: `body` and `query` are msgspec
structs, every other name stands in the path. What it returns becomes JSON; a Refusal becomes a problem.
"""

from __future__ import annotations

import hashlib
import inspect
import typing
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from litestar import Request, Response
from litestar.handlers import HTTPRouteHandler
from sqlalchemy import Connection

from service import idempotency
from service.api.v1 import door, reading
from service.api.v1.door import Door
from service.errors import Refusal
from service.idempotency import Answer, Keys, Once, Place
from service.merchants.audit import By
from service.merchants.keys import Caller

if TYPE_CHECKING:
    from service.application import Application

PREFIX = "/v1"
SESSION = ""
"""
Instead of a scope: no API key, but the client secret of the session in the path, or the buyer's token of the order,
which the operation looks at.
"""

Method = Literal["GET", "POST", "PATCH", "DELETE"]
Does = Callable[..., Awaitable[Any]]
Again = Callable[["Call", str], Awaitable[Any]]


NOBODY = Caller("", "", False, frozenset())


@dataclass(slots=True)
class Call:
    """One request that came in at the door: who asks, and with what to do it."""

    app: Application
    caller: Caller
    request: Request[Any, Any, Any]
    at: Door
    once: Once
    status: int  # of the answer, when all goes well

    @property
    def secret(self) -> str:
        """What stands in the place of an API key; raises Refusal unauthorized when nothing does."""
        return door.bearer(self.request)

    @property
    def by(self) -> By:
        """Whose hand it is, for the audit trail."""
        return By(self.actor, self.app.clock(), self.app.ids)

    @property
    def actor(self) -> str:
        """The same, without a time."""
        return f"api:{self.caller.key_id}"

    async def read(self, query: Callable[..., Any], *args: Any) -> Any:
        """A query on the database."""
        return await self.app.db.read(query, *args)

    async def write(self, work: Callable[[Connection], Any], subject: str = "") -> Answer:
        """A work whose value is the answer; with an Idempotency-Key the answer is kept in the same transaction."""
        answer = await self.once.write(lambda tx: encoded(self.status, work(tx)), subject)
        self.app.nudge()
        return answer


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    tag: str
    method: Method
    path: str  # below PREFIX, with {names}
    scope: str
    does: Does
    answer: Any  # the type of what it returns; None: nothing (204)
    status: int
    body: type[Any] | None
    query: type[Any] | None
    names: tuple[str, ...]  # in the path
    many: tuple[str, ...]  # fields of the query that may be repeated
    refuses: tuple[int, ...]  # statuses of its own, beside those that every operation has
    again: Again | None

    @property
    def id(self) -> str:
        """`create_payment` is createPayment."""
        first, *others = self.does.__name__.split("_")
        return first + "".join(map(str.title, others))

    @property
    def words(self) -> tuple[str, str]:
        """Its summary and its description."""
        summary, _, rest = (inspect.getdoc(self.does) or "").partition("\n")
        return summary.rstrip("."), " ".join(rest.split())


@dataclass(slots=True)
class Resource:
    """The operations of one file. `get`, `post`, `patch`, `delete` add one."""

    tag: str
    operations: list[Operation] = field(default_factory=list)

    def _add(
        self,
        method: Method,
        path: str,
        scope: str,
        answer: Any,
        *,
        status: int = 200,
        many: Sequence[str] = (),
        refuses: Sequence[int] = (),
        again: Again | None = None,
    ) -> Callable[[Does], Does]:
        def add(does: Does) -> Does:
            takes = typing.get_type_hints(does)
            names = tuple(name for name in inspect.signature(does).parameters if name not in ("call", "body", "query"))
            assert all(f"{{{name}}}" in path for name in names), f"{path} lacks a name that {does.__name__} takes"
            self.operations.append(
                Operation(
                    *(self.tag, method, path, scope, does, answer, status, takes.get("body"), takes.get("query")),
                    *(names, tuple(many), tuple(refuses), again),
                )
            )
            return does

        return add

    def get(self, path: str, scope: str, answer: Any, **more: Any) -> Callable[[Does], Does]:
        """To read."""
        return self._add("GET", path, scope, answer, **more)

    def post(self, path: str, scope: str, answer: Any, **more: Any) -> Callable[[Does], Does]:
        """To make or to do; takes an Idempotency-Key. `again(call, subject)` answers for what was never answered."""
        return self._add("POST", path, scope, answer, **more)

    def patch(self, path: str, scope: str, answer: Any, **more: Any) -> Callable[[Does], Does]:
        """To change; what is not given stays."""
        return self._add("PATCH", path, scope, answer, **more)

    def delete(self, path: str, scope: str, **more: Any) -> Callable[[Does], Does]:
        """To delete."""
        return self._add("DELETE", path, scope, None, status=204, **more)


def encoded(status: int, value: Any) -> Answer:
    """A value as an answer; bytes and Answers are one already."""
    if isinstance(value, Answer):
        return value
    return Answer(status, b"" if value is None else msgspec.json.encode(value))


def handler(app: Application, at: Door, keys: Keys, op: Operation, middleware: list[Any]) -> HTTPRouteHandler:
    """The operation as a route of Litestar."""
    path = PREFIX + op.path
    for name in op.names:
        path = path.replace(f"{{{name}}}", f"{{{name}:str}}")

    async def handle(request: Request[Any, Any, Any]) -> Response[bytes]:
        key = _key(request) if op.method == "POST" else ""
        caller, used = await at.caller(request, op.scope, key) if op.scope else (NOBODY, None)
        given: dict[str, Any] = {
            name: reading.checked_id(str(request.path_params[name]), name.replace("_", " ")) for name in op.names
        }
        found = reading.query(request.scope["query_string"], op.query or _Nothing, op.many)
        if op.query is not None:
            given["query"] = found
        raw = await _body(request, op)
        if op.body is not None:
            given["body"] = reading.decode(raw, op.body)

        async def does(once: Once) -> Answer:
            call = Call(app, caller, request, at, once, op.status)
            return encoded(op.status, await op.does(call, **given))

        if not key:
            return _response(await does(Once(keys, None, "")))

        async def again(subject: str) -> Answer:
            assert op.again is not None
            call = Call(app, caller, request, at, Once(keys, None, ""), op.status)
            return encoded(op.status, await op.again(call, subject))

        print_ = idempotency.fingerprint(op.method, request.scope["path"], raw)
        # Without an API key it is bound to what stands in its place: two buyers may take the same Idempotency-Key, and
        # neither hears what the other was answered.
        whose = caller.merchant_id or hashlib.sha256(door.bearer(request).encode(errors="replace")).hexdigest()
        place = Place(whose, caller.live, key)
        answer, replayed = await keys.once(place, used, print_, does, again if op.again else None)
        return _response(answer, {"Idempotent-Replayed": "true"} if replayed else {})

    # 200 is only what Litestar assumes: the answer brings its own status.
    made = HTTPRouteHandler(
        path, http_method=op.method, status_code=200, middleware=middleware, include_in_schema=False
    )
    return made(handle)


class _Nothing(msgspec.Struct):
    """The query of operations that take none."""


def _key(request: Request[Any, Any, Any]) -> str:
    given = request.headers.getall("idempotency-key", [])
    if not given:
        return ""
    if len(given) > 1:
        raise Refusal("bad_idempotency_key", "Idempotency-Key: it is there more than once.")
    return idempotency.checked(given[0])


async def _body(request: Request[Any, Any, Any], op: Operation) -> bytes:
    headers = request.headers
    there = headers.get("content-length", "0").strip() not in ("", "0") or "transfer-encoding" in headers
    if op.method in ("GET", "DELETE"):
        if there:
            raise Refusal("bad_body", f"A {op.method} has no body.")
        return b""
    raw = await reading.raw_body(request) if there else b""
    if raw and op.body is None:
        reading.decode(raw, _Nobody)
    return raw


class _Nobody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of operations that take none: nothing, or `{}`."""


def _response(answer: Answer, headers: dict[str, str] | None = None) -> Response[bytes]:
    headers = {"Cache-Control": "no-store", **(headers or {})}
    return Response(answer.body, status_code=answer.status, media_type=answer.media, headers=headers)
