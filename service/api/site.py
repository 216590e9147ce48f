"""The HTTP face: callback routes, health, metrics, and the server they run in (Granian, embedded in our process)."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from typing import TYPE_CHECKING, Any, cast

import msgspec
import structlog
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server
from litestar import Litestar, MediaType, Request, Response, get
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from service.api.callbacks import CallbackRoutes
from service.api.problems import PROBLEM_TYPE, problem
from service.database import StorageError
from service.heartbeat import stuck
from service.metrics import CONTENT_TYPE, Metrics, measure

if TYPE_CHECKING:
    from service.application import Application

log: Any = structlog.get_logger()

CALLBACKS = ("/webhooks/", "/api/webhooks/")
HEADER_DEADLINE_MS = 5_000
HEADER_BUFFER_BYTES = 64 * 1024
BACKLOG = 1_024
STOP_S = 10.0


class Site:
    """The Litestar application and its server."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self.callbacks = CallbackRoutes(lambda: app.registry, app.intake, app.metrics)
        self.litestar = self._routes()
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
            await self.litestar(scope, receive, send)

    def _routes(self) -> Litestar:
        app, timed = self._app, [_timed(self._app.metrics)]

        @get("/healthz", middleware=timed)
        async def healthz() -> dict[str, str]:
            return {"status": "ok"}

        @get("/readyz", middleware=timed)
        async def readyz() -> Response[bytes]:
            wrong = await not_ready(app)
            body = msgspec.json.encode({"status": "not_ready" if wrong else "ready", "problems": wrong})
            return Response(body, status_code=503 if wrong else 200, media_type=MediaType.JSON)

        @get("/metrics", middleware=timed)
        async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
            token = app.settings.metrics_token
            given = request.headers.get("authorization", "").encode("utf-8", "replace")
            if token and not hmac.compare_digest(given, f"Bearer {token}".encode()):
                raise HTTPException("A bearer token is needed (CAISSE_METRICS_TOKEN).", status_code=401)
            with contextlib.suppress(StorageError):
                app.metrics.measured(await app.db.read(measure, app.queue, app.clock(), deadline_ms=2_000))
            return Response(app.metrics.render(), media_type=CONTENT_TYPE)

        def refused(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
            code = {404: "not_found", 405: "method_not_allowed", 401: "unauthorized"}.get(error.status_code, "refused")
            body = problem(error.status_code, code, error.detail or "It was refused.")
            return Response(body, status_code=error.status_code, media_type=PROBLEM_TYPE.decode())

        def crashed(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
            log.error("request.raised", route=request.url.path, exc_info=error)
            body = problem(500, "internal", "A fault in caisse; its log says where.")
            return Response(body, status_code=500, media_type=PROBLEM_TYPE.decode())

        app.metrics.know_routes(("/webhooks/{provider}", "/healthz", "/readyz", "/metrics"))
        return Litestar(
            [healthz, readyz, metrics],
            openapi_config=None,
            exception_handlers={HTTPException: refused, Exception: crashed},
            logging_config=None,
        )

    async def start(self, host: str, port: int) -> None:
        """Listen, and return once connections are taken. Raises OSError when that fails."""
        self._server = Server(
            self,
            address=host,
            port=port,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            backlog=BACKLOG,
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
        """Take no more connections; callbacks that are being answered are answered first."""
        if self._server is None or self._serving is None:
            return
        self._server.stop()  # type: ignore[no-untyped-call] # Granian has no annotations here
        await self._serving
        until = time.monotonic() + STOP_S
        while self.callbacks.answering and time.monotonic() < until:  # noqa: ASYNC110 - a count, looked at once a stop
            await asyncio.sleep(0.01)


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
                metrics.request(str(scope.get("method", "")), scope["path"], status, time.perf_counter() - began)

        return timed

    return around


async def not_ready(app: Application) -> list[str]:
    """What is wrong, in sentences; empty while callbacks are taken, kept, worked on and told."""
    wrong = [
        f"{entry.id}: {', '.join(entry.missing)} missing; its callbacks are refused."
        for entry in app.registry.half_set()
    ]
    if sentence := await stuck(app):
        wrong.append(sentence)
    return wrong
