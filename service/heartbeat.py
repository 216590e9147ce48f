"""The outgoing heartbeat: a URL called every minute while work moves, because a dead process cannot complain."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import structlog

from service.database import StorageError

if TYPE_CHECKING:
    from service.application import Application

log: Any = structlog.get_logger()

EVERY_S = 60.0
LIMIT_S = 10.0
STUCK_MS = 120_000
"""A due message that waits so long means that the outbox does not move."""


class Heartbeat:
    """Runs beside the service. Silent without a URL, but `stuck` also answers `/readyz`."""

    def __init__(self, app: Application, every_s: float = EVERY_S) -> None:
        self._app, self._every_s = app, every_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, if there is somebody to call."""
        if self._app.settings.heartbeat_url:
            self._task = asyncio.create_task(self._run(), name="heartbeat")

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self.beat()
            except Exception as error:
                log.error("heartbeat.raised", exc_info=error)
            await asyncio.sleep(self._every_s)

    async def beat(self) -> bool:
        """Call once, if all is well. Returns whether the call arrived."""
        url = self._app.settings.heartbeat_url
        if url is None or await stuck(self._app) is not None:
            return False
        try:
            async with httpx.AsyncClient(timeout=LIMIT_S, trust_env=False) as client:
                answer = await client.get(url)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            log.warning("heartbeat.not_sent", error=type(error).__name__)
            return False
        if answer.is_success:
            self._app.metrics.heartbeat(self._app.clock())
        return answer.is_success


async def stuck(app: Application) -> str | None:
    """One sentence on why work does not move, None while it does."""
    health = app.db.health
    if not health.writable:
        return f"The database cannot be written: {health.reason}"
    topics = list(app.dispatcher.in_flight) if app.dispatcher is not None else []
    try:
        due = await app.db.read(lambda tx: {topic: app.queue.due(tx, topic) for topic in topics}, deadline_ms=2_000)
    except StorageError as error:
        return f"The database cannot be read: {error}"
    now_ms = app.clock()
    for topic, due_at_ms in due.items():
        # Old work alone is no fault: one merchant's slow shop, or an hour of downtime, leaves plenty of it.
        moved_at_ms = app.watch.moved_at_ms.get(topic, app.watch.started_at_ms)
        idle_ms = now_ms - max(now_ms if due_at_ms is None else due_at_ms, moved_at_ms)
        if idle_ms > STUCK_MS:
            return f"The outbox does not move: nothing was done in {topic} for {idle_ms // 1000} s."
    return None
