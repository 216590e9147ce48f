"""The HTTP face: callback routes, health, metrics, and the server they run in (Granian, embedded in our process)."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import resource
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import msgspec
import structlog
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.net import SocketSpec  # type: ignore[attr-defined] # imported there, not declared
from granian.server.embed import Server
from litestar import Litestar, MediaType, Request, Response, get
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from service.api import problems, v1
from service.api.callbacks import CallbackRoutes
from service.api.problems import PROBLEM_TYPE, problem
from service.database import StorageError
from service.errors import Refusal
from service.heartbeat import stuck
from service.metrics import CONTENT_TYPE, Metrics, measure
from service.pay.pages import Pages

if TYPE_CHECKING:
    from service.application import Application

log: Any = structlog.get_logger()

CALLBACKS = ("/webhooks/", "/api/webhooks/")
HEADER_DEADLINE_MS = 5_000
HEADER_BUFFER_BYTES = 16 * 1024
BACKLOG = 1_024
CONNECTIONS_MAX = 6_144
"""Connections held at once; more wait in the backlog until one ends. The figures behind it: docs/limits.md."""
FILES_RESERVED = 512
"""File descriptors that no connection may take: database, webhooks, questions to providers, logs."""
UNREAD_MS = 10_000
"""How long an answer may lie unread: else whoever pipelines and never reads holds a connection for ever."""
STOP_S = 10.0


class Site:
    """The Litestar application and its server."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self.callbacks = CallbackRoutes(lambda: app.registry, app.intake, app.metrics)
        self.litestar = self._routes()
        self._answering = 0
        self._server: Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        The ASGI application. Callbacks do not go through Litestar's router and its layers: those took a tenth of the
        processor's time at a thousand callbacks a second, and did nothing for them.
        """
        if f"{scope['path']}/".startswith(CALLBACKS):
            await self.callbacks(cast(HTTPScope, scope), receive, send)
        else:
            self._answering += 1
            try:
                await self.litestar(scope, receive, send)
            finally:
                self._answering -= 1

    def _routes(self) -> Litestar:
        app, timed = self._app, [_timed(self._app.metrics)]

        @get("/healthz", middleware=timed, include_in_schema=False)
        async def healthz() -> dict[str, str]:
            return {"status": "ok"}

        @get("/readyz", middleware=timed, include_in_schema=False)
        async def readyz() -> Response[bytes]:
            wrong = await not_ready(app)
            body = msgspec.json.encode({"status": "not_ready" if wrong else "ready", "problems": wrong})
            return Response(body, status_code=503 if wrong else 200, media_type=MediaType.JSON)

        @get("/metrics", middleware=timed, include_in_schema=False)
        async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
            token = app.settings.metrics_token
            given = request.headers.get("authorization", "").encode("utf-8", "replace")
            if token and not hmac.compare_digest(given, f"Bearer {token}".encode()):
                raise HTTPException("A bearer token is needed (CAISSE_METRICS_TOKEN).", status_code=401)
            with contextlib.suppress(StorageError):
                app.metrics.measured(await app.db.read(measure, app.queue, app.clock(), deadline_ms=2_000))
            return Response(app.metrics.render(), media_type=CONTENT_TYPE)

        self._api = v1.Api(app, timed)
        pages = Pages(app, timed)
        fixed = ("/webhooks/{provider}", "/healthz", "/readyz", "/metrics")
        app.metrics.know_routes((*fixed, *self._api.paths, *pages.paths))
        return Litestar(
            [healthz, readyz, metrics, *self._api.handlers, *pages.handlers],
            openapi_config=None,
            exception_handlers={HTTPException: _fault, Refusal: _refused, StorageError: _storage, Exception: _crashed},
            logging_config=None,
        )

    async def start(self, host: str, port: int) -> None:
        """Listen, and return once connections are taken. Raises OSError when that fails."""
        self._server = _Server(
            self,
            address=host,
            port=port,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            backlog=BACKLOG,
            backpressure=_connections_max(),
            log_enabled=False,
            http1_settings=HTTP1Settings(header_read_timeout=HEADER_DEADLINE_MS, max_buffer_size=HEADER_BUFFER_BYTES),
        )
        self._serving = asyncio.create_task(self._server.serve(), name="http")
        until = time.monotonic() + STOP_S
        while time.monotonic() < until:
            if self._serving.done():
                self._serving.result()
                raise OSError(f"The server on {host}:{port} ended at once.")
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(host, port)
                writer.close()
                return
            await asyncio.sleep(0.005)
        raise OSError(f"Nothing answers on {host}:{port}.")

    async def stop(self) -> None:
        """Take no more connections; what is being answered is answered first, and polls that wait end at once."""
        await self._app.feed.close()
        if self._server is None or self._serving is None:
            return
        self._server.stop()  # type: ignore[no-untyped-call] # Granian has no annotations here
        await self._serving
        until = time.monotonic() + STOP_S
        while (self.callbacks.answering or self._answering) and time.monotonic() < until:  # noqa: ASYNC110 - a count, looked at once a stop
            await asyncio.sleep(0.01)
        await self._api.close()


class _Server(Server):
    """Granian's, with a listening socket whose time limit for unread answers every connection inherits."""

    def _init_shared_socket(self) -> None:
        shared = SocketSpec(self.bind_addr, self.bind_port, self.backlog).build()
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            listening = socket.socket(fileno=shared.get_fd())
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)
            listening.detach()  # the server's, to close when it ends
        self._shd = shared  # type: ignore[assignment] # declared as the None it begins with


def _connections_max() -> int:
    """
    `CONNECTIONS_MAX`, or what the file descriptors allow once the soft limit (often 1,024) is raised to the hard one:
    a flood that used them up would leave none for the database.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS_MAX + FILES_RESERVED
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return CONNECTIONS_MAX
    raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(OSError, ValueError):  # refused: serve with what there is
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft = raised
    return max(soft // 2, soft - FILES_RESERVED)


def _timed(metrics: Metrics) -> Any:
    """A middleware that counts and times a handler; the callback routes do it themselves, with nothing in their way."""

    def around(app: ASGIApp) -> ASGIApp:
        async def timed(scope: Scope, receive: Receive, send: Send) -> None:
            began, status = time.perf_counter(), 500

            async def watch(message: Any) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            metrics.connections(1)
            try:
                await app(scope, receive, watch)
            finally:
                metrics.connections(-1)
                route = str(scope.get("path_template", ""))  # never the path: it may hold ids
                metrics.request(str(scope.get("method", "")), route, status, time.perf_counter() - began)

        return timed

    return around


def _answer(
    status: int, code: str, detail: str, headers: Mapping[str, str] | None = None, field: str = ""
) -> Response[bytes]:
    headers = {**problems.HEADERS.get(code, {}), **(headers or {})}
    body = problem(status, code, detail, field)
    return Response(body, status_code=status, media_type=PROBLEM_TYPE.decode(), headers=headers)


def _fault(_: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """What Litestar itself refuses: unknown paths and methods, values that are not what the handler declares."""
    code = {404: "not_found", 405: "method_not_allowed", 401: "unauthorized"}.get(error.status_code, "refused")
    detail = {404: "There is nothing at this address.", 405: "This address does not take this method."}.get(
        error.status_code, error.detail or "It was refused."
    )
    if isinstance(error, ValidationException) and isinstance(error.extra, list):
        code = "bad_query"
        detail = "; ".join(f"{wrong.get('key', 'request')}: {wrong.get('message')}" for wrong in error.extra[:5]) + "."
    return _answer(error.status_code, code, detail, error.headers)


def _refused(_: Request[Any, Any, Any], error: Refusal) -> Response[bytes]:
    return _answer(
        problems.STATUS.get(error.code, 400), error.code, problems.detail(error), field=problems.field_of(error)
    )


def _storage(_: Request[Any, Any, Any], error: StorageError) -> Response[bytes]:
    log.warning("request.not_answered", reason=type(error).__name__)
    return _answer(503, "storage", "The storage cannot answer at the moment; try again.")


def _crashed(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    log.error("request.raised", route=request.url.path, exc_info=error)
    return _answer(500, "internal", "A fault in caisse; its log says where.")


async def not_ready(app: Application) -> list[str]:
    """What is wrong, in sentences; empty while callbacks are taken, kept, worked on and told."""
    wrong = [
        f"{entry.id}: {', '.join(entry.missing)} missing; its callbacks are refused."
        for entry in app.registry.half_set()
    ]
    if sentence := await stuck(app):
        wrong.append(sentence)
    return wrong
