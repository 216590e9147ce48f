"""
The one HTTP client for providers: it drives a conversation (`providers/calls.py`), with one time limit over all of it,
and says of what broke whether a byte of it can have arrived.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from typing import Any, Protocol, TypeVar

import aiohttp
import httpx
import structlog
from httpx_aiohttp import AiohttpTransport

from service.providers.calls import CALLS_MAX, Broken, Call, Response

log: Any = structlog.get_logger()

ANSWER_BYTES_MAX = 256 * 1024
LIMIT_MS = 15_000
CONNECT_MS = 5_000
"""Until connected (DNS and TLS too) or a place in the pool is free: short, because running out of it proves nothing
was sent, where running out of the whole limit proves nothing at all."""

T = TypeVar("T")


class Heard(Protocol):
    """Hears of every call: provider, status (0: none), seconds, what broke ("" if nothing did)."""

    def __call__(self, provider: str, status: int, seconds: float, broken: str) -> object: ...


class Client:
    """
    Made once, closed once. Connections are not kept: one that the provider has just dropped would make an unknown
    outcome of a payment that was never sent.
    """

    def __init__(
        self,
        heard: Heard = lambda *_: None,
        transport: httpx.AsyncBaseTransport | None = None,
        limit_ms: int = LIMIT_MS,
    ) -> None:
        self._heard = heard
        self.limit_ms = limit_ms
        self._session: aiohttp.ClientSession | None = None
        if transport is None:
            # Without the guard, and where the settings say: providers' addresses are the operator's own.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True, limit=100),
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
            transport = AiohttpTransport(client=self._session)
        limit, connect = LIMIT_MS / 1000, CONNECT_MS / 1000
        times = httpx.Timeout(connect=connect, pool=connect, read=limit, write=limit)
        self._http = httpx.AsyncClient(transport=transport, timeout=times, trust_env=False, follow_redirects=False)

    async def close(self) -> None:
        """Close what is open."""
        await self._http.aclose()
        if self._session is not None:
            await self._session.close()

    async def run(
        self,
        provider: str,
        base_url: str,
        conversation: Generator[Call, Response, T],
        broken: Callable[[Broken, int], T],
        limit_ms: int | None = None,
    ) -> T:
        """
        Drive it to its result. Never raises but for a fault of ours: what breaks is thrown into the conversation, and
        what it does not catch is judged by `broken` (`calls.broken_create` and its sisters).
        """
        until = time.monotonic() + (self.limit_ms if limit_ms is None else limit_ms) / 1000
        made = 0
        try:
            call = next(conversation)
            while True:
                made += 1
                try:
                    response = await self._send(provider, base_url, call, until - time.monotonic(), made)
                except Broken as error:
                    call = conversation.throw(error)
                else:
                    call = conversation.send(response)
        except StopIteration as end:
            result: T = end.value
            return result
        except Broken as error:
            return broken(error, made)
        finally:
            conversation.close()

    async def _send(self, provider: str, base_url: str, call: Call, left_s: float, number: int) -> Response:
        if left_s <= 0 or number > CALLS_MAX:
            raise Broken("time_limit" if left_s <= 0 else "too_many_calls", sent=number > 1)
        began, status, word = time.perf_counter(), 0, ""
        try:
            async with asyncio.timeout(left_s):
                response = await self._exchange(base_url, call)
            status = response.status
            return response
        except TimeoutError:
            word = "timeout"
            raise Broken(word, sent=True) from None
        except Broken as error:
            word = error.reason
            raise
        finally:
            seconds = time.perf_counter() - began
            self._heard(provider, status, seconds, word)
            log.debug("provider.called", provider=provider, call=call.shown, status=status, broken=word)

    async def _exchange(self, base_url: str, call: Call) -> Response:
        form = None if call.form is None else httpx.QueryParams(list(call.form))
        headers = {"accept-encoding": "identity", **call.headers}
        content: bytes | None = None
        if form is not None:
            content = str(form).encode()
            headers.setdefault("content-type", "application/x-www-form-urlencoded")
        url = (call.base_url or base_url).rstrip("/") + call.path
        try:
            async with self._http.stream(call.method, url, headers=headers, content=content, json=call.json) as got:
                chunks: list[bytes] = []
                size = 0
                async for chunk in got.aiter_raw():
                    size += len(chunk)
                    if size > ANSWER_BYTES_MAX:
                        raise Broken("answer_too_large", sent=True)
                    chunks.append(chunk)
                names = {name.lower(): value for name, value in got.headers.items()}
                return Response(got.status_code, names, b"".join(chunks))
        except (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, OSError) as error:
            raise classified(error) from error


def classified(error: BaseException) -> Broken:
    """
    What went wrong, in a fixed word. The transport calls every lost connection a connect timeout, so its cause counts:
    only aiohttp's own words for "never connected" are proof that nothing was sent.
    """
    cause = error.__cause__ or error
    match cause:
        case aiohttp.ClientConnectorDNSError():
            return Broken("dns", sent=False)
        case aiohttp.ClientSSLError():
            return Broken("tls", sent=False)
        case aiohttp.ClientConnectorError():
            return Broken("refused", sent=False)
        case aiohttp.ConnectionTimeoutError():
            return Broken("connect_timeout", sent=False)
        case httpx.UnsupportedProtocol() | httpx.InvalidURL() | aiohttp.InvalidURL():
            return Broken("bad_address", sent=False)
        case TimeoutError():
            return Broken("timeout", sent=True)
        case _:
            return Broken("connection_lost", sent=True)
