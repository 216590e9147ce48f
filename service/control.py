"""
The door by which a command line reaches the running process: one JSON line in, JSON lines out, over loopback.

    → {"token": "…", "command": "merchant.create", "arguments": {"name": "Awa"}}
    ← {"progress": {"done": 1, "total": 3}}          any number of them
    ← {"result": …}   or   {"error": {"code": "…", "sentence": "…"}}

Whoever knows the token may do everything; it stands in the lock file, which only the owner of the database can read.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

log = logging.getLogger("caisse.control")

REQUEST_BYTES = 1 << 20
ANSWER_BYTES = 64 << 20
REQUEST_MS = 5_000  # for the whole request to arrive; a slow client holds one seat for no longer
SILENCE_MS = 600_000  # a client gives up on a process that says nothing for so long
CONNECTIONS = 16

Progress = Callable[[int, int | None], None]
Handler = Callable[[str, dict[str, Any], Progress], Awaitable[Any]]


class CommandError(Exception):
    """A command was refused or failed; `code` is a fixed word, `sentence` is for people."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


class Server:
    """A running control server. Made by `serve`; publish `address` and `token` in the lock."""

    def __init__(self, handler: Handler, request_ms: int) -> None:
        self.address = ""
        self.token = secrets.token_urlsafe(32)
        self._handler = handler
        self._request_ms = request_ms
        self._clients: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=REQUEST_BYTES)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"

    async def close(self, grace_ms: int = 5_000) -> None:
        """Take no more commands; give the running ones `grace_ms` to end, then cancel them. Idempotent."""
        if self._server is None:
            return
        self._server.close()
        if clients := list(self._clients):
            await asyncio.wait(clients, timeout=grace_ms / 1000)
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            if len(self._clients) > CONNECTIONS:
                _send(writer, {"error": {"code": "busy", "sentence": "Too many commands are running; try again."}})
            else:
                _send(writer, await self._answer(reader, writer))
            # Whoever asks and does not read must not hold the connection open for ever either.
            async with asyncio.timeout(self._request_ms / 1000):
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError):
            pass  # The client is gone, or does not read. What it asked for is done all the same.
        except asyncio.CancelledError:
            pass  # `close` gave up on this command; there is nobody above this task to tell.
        finally:
            self._clients.discard(task)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._request_ms / 1000):
                line = await reader.readline()
            request = json.loads(line)
            token, command, arguments = request["token"], request["command"], request["arguments"]
            # On bytes: `compare_digest` raises for a str that is not ASCII.
            known = hmac.compare_digest(token.encode(errors="replace"), self.token.encode())
        except TimeoutError:
            return _error("timeout", "The request did not arrive in time.")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return _error("bad_request", "The request must be one line of JSON with token, command and arguments.")
        if not known:
            return _error("wrong_token", "The token does not belong to this process.")
        if not isinstance(command, str) or not isinstance(arguments, dict):
            return _error("bad_request", "The command must be text and its arguments an object.")

        def progress(done: int, total: int | None = None) -> None:
            _send(writer, {"progress": {"done": done, "total": total}})

        try:
            answer = {"result": await self._handler(command, arguments, progress)}
            json.dumps(answer)  # Here, so that a result that is no JSON is the command's failure and not the door's.
            return answer
        except Exception as error:  # The edge of one command: the next one must not suffer.
            code, sentence = getattr(error, "code", None), getattr(error, "sentence", None)
            if isinstance(code, str) and isinstance(sentence, str):
                return _error(code, sentence)
            log.error("control.command_raised", extra={"command": command}, exc_info=error)
            return _error("internal", "The command failed; the log of the running process says why.")


async def serve(handler: Handler, *, request_ms: int = REQUEST_MS) -> Server:
    """
    Listen on a free loopback port and hand each command to `await handler(command, arguments, progress)`.

    What the handler returns must be plain JSON. An exception with `code` and `sentence` (a Refusal) reaches the client
    as it is, any other as "internal". A command runs to its end even when its client goes away.
    """
    server = Server(handler, request_ms)
    await server.open()
    return server


async def call(
    address: str,
    token: str,
    command: str,
    arguments: Mapping[str, Any],
    on_progress: Progress | None = None,
) -> Any:
    """
    Run a command in the process at `address` and return its result.

    Raises CommandError: what the other side said, or "too_large" (nothing was sent), "unreachable" (nothing was done),
    "no_answer" (it may have been done).
    """
    request = json.dumps({"token": token, "command": command, "arguments": dict(arguments)}).encode() + b"\n"
    if len(request) > REQUEST_BYTES:
        raise CommandError("too_large", "The command is larger than 1 MB.")
    host, _, port = address.rpartition(":")
    try:
        reader, writer = await asyncio.open_connection(host, int(port), limit=ANSWER_BYTES)
    except (OSError, ValueError) as error:
        raise CommandError("unreachable", "The running process does not answer.") from error
    try:
        writer.write(request)
        await writer.drain()
        while True:
            async with asyncio.timeout(SILENCE_MS / 1000):
                answer = json.loads(await reader.readline())
            if "progress" in answer:
                if on_progress is not None:
                    on_progress(answer["progress"]["done"], answer["progress"]["total"])
            elif "error" in answer:
                raise CommandError(answer["error"]["code"], answer["error"]["sentence"])
            else:
                return answer["result"]
    except (OSError, ValueError, KeyError, TypeError) as error:  # a timeout is an OSError
        raise CommandError("no_answer", "The running process ended before it answered.") from error
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def _error(code: str, sentence: str) -> dict[str, Any]:
    return {"error": {"code": code, "sentence": sentence}}


def _send(writer: asyncio.StreamWriter, line: dict[str, Any]) -> None:
    if not writer.is_closing():
        writer.write(json.dumps(line).encode() + b"\n")
