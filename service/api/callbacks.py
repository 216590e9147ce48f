"""
The callback routes, `/webhooks/{provider}[/{account}]`, as one raw ASGI handler: twice the speed of a routed one.

200: kept, first time or again, readable or not. 401: not verified, no reason given. 4xx: faults of the transport
alone. 503: it cannot be kept now, the provider tries again. Nothing else is ever answered.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from litestar.types import HTTPScope, Receive, Send

from service.api.problems import PROBLEM_TYPE, problem
from service.callbacks.intake import Intake, NotVerified
from service.database import StorageError
from service.merchants.accounts import Entry, Registry
from service.metrics import Metrics
from service.providers import PROVIDERS
from service.providers.base import BODY_BYTES_MAX, Incoming

log: Any = structlog.get_logger()

# The figures behind these limits: docs/limits.md.
ROUTE = "/webhooks/{provider}"
BODY_DEADLINE_S = 5.0
BODY_PIECES_MAX = 1_024
"""Parts in which one body may come. By the byte, 256 kB cost the loop seconds; a packet at a time is 180 parts."""
BODIES_BYTES_MAX = 32 * 1024 * 1024
"""Of all bodies that are still coming. One that comes whole, as providers' do, is never counted and never refused."""
HEADERS_MAX = 64
HEADER_BYTES_MAX = 12 * 1024
"""All headers together; no provider sends a quarter of it."""


_CLOSE = [(b"connection", b"close")]  # what is still coming is not read
_AGAIN = [(b"retry-after", b"5")]
_MORE = {503: _AGAIN, 400: _CLOSE, 408: _CLOSE, 413: _CLOSE, 431: _CLOSE}


class _Fault(Exception):
    def __init__(self, status: int, code: str, detail: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.headers = _MORE.get(status, []) if headers is None else headers


class CallbackRoutes:
    """The handler. `registry` is asked afresh for each request, since accounts can be added beside it."""

    def __init__(self, registry: Callable[[], Registry], intake: Intake, metrics: Metrics) -> None:
        self._registry, self._intake, self._metrics = registry, intake, metrics
        self._bodies = _Bodies()
        self.answering = 0

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Answer one callback."""
        began, status, result = time.perf_counter(), 500, "failed"
        path = scope["path"].strip("/").removeprefix("api/").removeprefix("webhooks").strip("/")
        provider, _, tail = path.partition("/")
        self.answering += 1
        self._metrics.connections(1)
        try:
            status, result = await self._answer(provider, tail, scope, receive, send)
        except _Fault as fault:
            status, result = fault.status, fault.code
            await _send(send, status, PROBLEM_TYPE, problem(status, fault.code, fault.detail), fault.headers)
        except Exception as error:
            log.error("callback.raised", provider=provider[:20], exc_info=error)
            status, result = 503, "failed"
            detail = "A fault in caisse; send it again."
            await _send(send, status, PROBLEM_TYPE, problem(status, "failed", detail), _MORE[503])
        finally:
            self._metrics.connections(-1)
            self.answering -= 1
            self._metrics.callback(provider, result)
            self._metrics.request(scope["method"], ROUTE, status, time.perf_counter() - began)

    async def _answer(self, name: str, tail: str, scope: HTTPScope, receive: Receive, send: Send) -> tuple[int, str]:
        provider = PROVIDERS.get(name)
        registry = self._registry()
        if provider is None or not registry.offers(name):
            raise _Fault(404, "not_found", "No such provider is configured here.")
        if scope["method"] not in provider.capabilities.methods:
            raise _Fault(405, "method_not_allowed", f"Callbacks of {provider.title} come by POST.")
        account = _account(registry, name, tail, provider.capabilities.token_in_path)
        headers = list(scope["headers"])
        _check(headers)
        body = await self._bodies.read(receive)
        if account is None:
            # A wrong or missing secret token in the address: the same answer as to a wrong signature.
            self._metrics.callback_refused(name, "wrong_token")
            incoming = Incoming(scope["method"], headers, scope["query_string"], body)
            await self._intake.refuse_token(name, tail, incoming)
            await _send(send, 401, b"", b"")
            return 401, "refused"
        incoming = Incoming(scope["method"], headers, scope["query_string"], body)
        try:
            kept = await self._intake.receive(account, incoming)
        except StorageError as error:
            log.warning("callback.not_kept", provider=name, reason=type(error).__name__)
            raise _Fault(503, "not_kept", "It cannot be kept at the moment; send it again.") from None
        if isinstance(kept, NotVerified):
            log.debug("callback.refused", provider=name, account_id=account.id, reason=kept.reason)
            self._metrics.callback_refused(name, kept.reason)
            await _send(send, 401, b"", b"")
            return 401, "refused"
        if kept.other_body:
            log.warning("callback.other_body", provider=name, callback_id=kept.id)
        if kept.parked:
            log.warning("callback.finished", callback_id=kept.id, provider=name, status="parked", reason=kept.parked)
            self._metrics.callback_finished(name, "parked")
        await _send(send, 200, provider.acknowledgement_type, provider.acknowledgement)
        return 200, "repeated" if kept.again else "kept"


def _account(registry: Registry, provider: str, tail: str, token_in_path: bool) -> Entry | None:
    if token_in_path:
        return registry.by_token(provider, tail) if tail else None
    account = registry.by_id(provider, tail) if tail else registry.default(provider)
    if account is None:
        raise _Fault(404, "not_found", "No such account is configured here.")
    return account


def _check(headers: Sequence[tuple[bytes, bytes]]) -> None:
    """What the headers alone are refused for."""
    size = 0
    for name, value in headers:
        size += len(name) + len(value)
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise _Fault(415, "compressed", "Send the body as it is: compressed bodies are not taken.")
        if name == b"content-length" and value.isdigit() and len(value) < 20 and int(value) > BODY_BYTES_MAX:
            raise _too_large()
    if len(headers) > HEADERS_MAX or size > HEADER_BYTES_MAX:
        raise _Fault(431, "headers_too_large", f"At most {HEADERS_MAX} headers of {HEADER_BYTES_MAX} bytes in all.")


def _too_large() -> _Fault:
    return _Fault(413, "too_large", f"A callback has at most {BODY_BYTES_MAX} bytes.")


def _too_slow() -> _Fault:
    return _Fault(408, "too_slow", f"The body has to be here within {BODY_DEADLINE_S:g} s.")


def _no_room() -> _Fault:
    return _Fault(503, "no_room", "Too many bodies are on their way at once; send it again.", _AGAIN + _CLOSE)


class _Bodies:
    """
    All bodies that are still coming, under one deadline and one budget of memory.

    The deadline is looked at every `LOOK_S`: a timer for each of thousands a second costs a tenth of the intake, and
    nobody needs this one to be exact. When the budget is spent, whoever has been sending for longest makes room: a
    flood of halves then pushes out its own and not the next honest callback.
    """

    LOOK_S = 0.2

    def __init__(self) -> None:
        self._ends: dict[asyncio.Task[Any], float] = {}
        self._holding: OrderedDict[asyncio.Task[Any], bytearray] = OrderedDict()
        self._held = 0  # bytes in `_holding`
        self._sent_away: dict[asyncio.Task[Any], Callable[[], _Fault]] = {}
        self._looking = False

    async def read(self, receive: Receive) -> bytes:
        """The whole body. Raises _Fault: too large, too slow, in too many parts, or sent away for want of room."""
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        self._ends[task] = loop.time() + BODY_DEADLINE_S
        if not self._looking:
            self._looking = True
            loop.call_later(self.LOOK_S, self._look, loop)
        try:
            return await self._whole(receive, task)
        except asyncio.CancelledError:
            if task not in self._sent_away:
                raise
            task.uncancel()
            # In no variable: an exception that its own frame holds is a circle, and with it the server's end of the
            # connection stays open until the garbage collector comes by; the server then cannot stop either.
            raise self._sent_away.pop(task)() from None  # noqa: RSE102 - what is kept makes one
        finally:
            del self._ends[task]
            self._let_go(task)

    async def _whole(self, receive: Receive, task: asyncio.Task[Any]) -> bytes:
        body, pieces = bytearray(), 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise _Fault(400, "incomplete", "The connection ended before the body did.")
            chunk: bytes = message["body"]
            if len(body) + len(chunk) > BODY_BYTES_MAX:
                raise _too_large()
            if not message.get("more_body", False):
                return bytes(body + chunk) if body else chunk
            pieces += 1
            if pieces > BODY_PIECES_MAX:
                raise _Fault(400, "too_many_parts", f"A body comes in at most {BODY_PIECES_MAX} parts.")
            body += chunk
            self._held += len(chunk)
            self._holding[task] = body
            if self._held > BODIES_BYTES_MAX:
                self._make_room(task)

    def _make_room(self, asking: asyncio.Task[Any]) -> None:
        while self._held > BODIES_BYTES_MAX:
            oldest = next(iter(self._holding))
            self._let_go(oldest)
            if oldest is asking:
                raise _no_room()
            self._send_away(oldest, _no_room)

    def _let_go(self, task: asyncio.Task[Any]) -> None:
        body = self._holding.pop(task, None)
        if body is not None:
            self._held -= len(body)

    def _send_away(self, task: asyncio.Task[Any], fault: Callable[[], _Fault]) -> None:
        if task not in self._sent_away:
            self._sent_away[task] = fault
            task.cancel()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for task in [task for task, ends in self._ends.items() if ends <= now]:
            self._send_away(task, _too_slow)
        self._looking = bool(self._ends)
        if self._looking:
            loop.call_later(self.LOOK_S, self._look, loop)


async def _send(
    send: Send, status: int, content_type: bytes, body: bytes, extra: list[tuple[bytes, bytes]] | None = None
) -> None:
    headers = [(b"content-length", str(len(body)).encode()), *(extra or ())]
    if content_type:
        headers.append((b"content-type", content_type))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
