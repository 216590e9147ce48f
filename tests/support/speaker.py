"""A TCP server that says whatever a test wants it to, and one webhook sent to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from outbox.guard import Guard
from outbox.message import Done, Drop, Retry
from outbox.webhook import Sender, Webhook, new_secret, open_session
from tests.support.clock import Clock

Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\n"


@asynccontextmanager
async def speaking(speak: Speak, heads: list[bytes] | None = None) -> AsyncIterator[str]:
    """A TCP server that reads a request (its head is put into `heads`) and then speaks as it likes; the URL."""
    talks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if heads is not None:
                heads.append(head)
            if b"content-length: 2\r\n" in head.lower():
                await reader.readexactly(2)  # closed over bytes that nobody read, the answer would be lost with them
            await speak(reader, writer)
            writer.close()
            await writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError):
            pass  # hung up on: what we want
        finally:
            writer.transport.abort()

    def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks[asyncio.ensure_future(talk(reader, writer))] = writer

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        for task, writer in talks.items():
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*talks, return_exceptions=True)
        await server.wait_closed()


async def send_to(url: str, total_ms: int = 10_000) -> Done | Retry | Drop:
    """One try, over a session of its own, by a guard that allows loopback."""
    guard = Guard()
    async with open_session(guard) as session:
        return await Sender(session, guard, Clock(), total_ms=total_ms).send(
            Webhook(url, "evt_1", b"{}", [new_secret()])
        )


def word(outcome: Done | Retry | Drop) -> str:
    """`done`, or why not."""
    return "done" if isinstance(outcome, Done) else outcome.error
