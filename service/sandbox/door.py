"""A listening port that can be shut and opened again at once, so that connections are really refused."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
BODY_BYTES_MAX: Final = 256 * 1024
BACKLOG: Final = 256


class Door:
    """One port on loopback; `open` and `shut` take effect before they return. A port of 0 is chosen once and kept."""

    def __init__(self, handler: Handler, host: str, port: int) -> None:
        self.host, self.port = host, port
        self._web = web.Server(handler, access_log=None)
        self._opening: asyncio.Task[asyncio.Server] | None = None
        self._kept: socket.socket | None = None
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Listen. OSError: somebody else does."""
        if self._socket is not None:
            return
        if self._kept is None:
            # Bound and never listening: while the door is shut nobody else is given its port.
            self._kept = socket.socket(socket.AF_INET)
            self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._kept.bind((self.host, self.port))
            self.port = self._kept.getsockname()[1]
        self._socket = socket.create_server((self.host, self.port), backlog=BACKLOG)
        self._socket.setblocking(False)
        loop = asyncio.get_running_loop()
        # Whoever connects before this task has run waits in the backlog.
        self._opening = loop.create_task(loop.create_server(self._web, sock=self._socket))

    def shut(self) -> None:
        """Refuse connections, and drop those that are there: a kept connection would get around the refusal."""
        if self._socket is None or self._opening is None:
            return
        if self._opening.done() and not self._opening.cancelled() and self._opening.exception() is None:
            self._opening.result().close()
        else:
            self._opening.cancel()
        self._socket.close()
        self._socket = None
        for connection in self._web.connections:
            if connection.transport is not None:
                connection.transport.abort()

    async def close(self) -> None:
        """For good."""
        opening = self._opening
        self.shut()
        if self._kept is not None:
            self._kept.close()
        if opening is not None:
            await asyncio.gather(opening, return_exceptions=True)
        await self._web.shutdown(1.0)
