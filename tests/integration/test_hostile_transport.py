"""HTTP as nobody sends it: malformed requests, naughty heads and addresses, floods, and clients that do not read."""

from __future__ import annotations

import asyncio
import gc
import resource
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

import pytest

from service.api import callbacks as routes
from service.api import site
from service.callbacks.tables import callbacks
from tests.support import corpora
from tests.support.service import PATIENCE_S, Till, eventually, stripe_event, till

HOST = b"Host: a\r\n"
POST = b"POST /webhooks/stripe HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
TWO = b"Content-Length: 2\r\n\r\n{}"
CLOSED = b""


async def raw(t: Till, data: bytes, wait_s: float = PATIENCE_S) -> bytes:
    """Everything that comes back until the server closes; empty when it just closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", t.app.port)
    try:
        writer.write(data)
        async with asyncio.timeout(wait_s):
            return await reader.read()
    except ConnectionError:
        return CLOSED
    finally:
        writer.close()


def statuses(said: bytes) -> list[int]:
    """Of the answers in it."""
    return [int(part[2:5]) for part in said.split(b"HTTP/1.")[1:]]


CASES: list[tuple[str, bytes, set[int]]] = [
    ("pipelined", (POST + TWO) * 20, {401}),
    ("tiny chunks", CHUNKED + b"1\r\na\r\n" * 500 + b"0\r\n\r\n", {401}),
    ("too many chunks", CHUNKED + b"1\r\na\r\n" * 5_000 + b"0\r\n\r\n", {400}),
    ("a chunk's extension without end", CHUNKED + b"1;" + b"a" * 200_000 + b"\r\na\r\n0\r\n\r\n", {400}),
    ("trailers without end", CHUNKED + b"1\r\na\r\n0\r\n" + b"X: a\r\n" * 20_000 + b"\r\n", {400}),
    ("a chunk's size that is none", CHUNKED + b"-1\r\na\r\n", {400}),
    ("a chunk's size of 2^64", CHUNKED + b"ffffffffffffffffff\r\na\r\n", {400}),
    ("length too long", POST + b"Content-Length: 10\r\n\r\nabc", {400, 408}),
    ("length too short", POST + b"Content-Length: 2\r\n\r\n{}garbage\r\n\r\n", {400, 401}),
    ("two lengths", POST + b"Content-Length: 3\r\nContent-Length: 2\r\n\r\n{} ", {400}),
    ("length and chunks", CHUNKED.replace(HOST, HOST + b"Content-Length: 3\r\n") + b"2\r\n{}\r\n0\r\n\r\n", {400, 401}),
    ("another encoding", POST + b"Transfer-Encoding: xchunked\r\n\r\n{}", {400}),
    ("waits to be asked", POST + b"Expect: 100-continue\r\n" + TWO, {100, 401}),
    ("expects tea", POST + b"Expect: 200-tea\r\n" + TWO, {401, 417}),
    ("the whole address", b"POST http://a/webhooks/stripe HTTP/1.1\r\n" + HOST + TWO, {401}),
    ("somebody else's address", b"POST http://b:9/webhooks/stripe HTTP/1.1\r\n" + HOST + TWO, {400, 401}),
    ("a tunnel", b"CONNECT a:443 HTTP/1.1\r\n" + HOST + b"\r\n", {400, 404, 405}),
    ("an asterisk", b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", {400, 404, 405}),
    ("HTTP/1.0", b"POST /webhooks/stripe HTTP/1.0\r\n" + TWO, {401}),
    ("HTTP/0.9", b"GET /healthz\r\n\r\n", {400}),
    ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", set()),
    ("HTTP/1.2", b"GET /healthz HTTP/1.2\r\n" + HOST + b"\r\n", {400}),
    ("a method in lower case", b"post /webhooks/stripe HTTP/1.1\r\n" + HOST + TWO, {405}),
    ("a method of somebody's own", b"BREW /webhooks/stripe HTTP/1.1\r\n" + HOST + b"\r\n", {405}),
    ("a method that is none", b"B@D! /webhooks/stripe HTTP/1.1\r\n" + HOST + b"\r\n", {400, 405}),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500, {400}),
    ("a header of 1 MB", POST + b"X: " + b"a" * 1_000_000 + b"\r\n\r\n", {431}),
    ("10,000 headers", POST + b"".join(b"X-%d: a\r\n" % n for n in range(10_000)) + b"\r\n", {431}),
    ("a folded header", POST + b"X: a\r\n b\r\n" + TWO, {400, 401}),
    ("a space before the colon", POST + b"X : a\r\n" + TWO, {400}),
    ("an address of 100 kB", b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", {414, 431}),
    ("a websocket", POST.replace(b"POST", b"GET") + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", {405}),
    ("a body where none belongs", b"POST /healthz HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\n\r\nabc", {405}),
]  # fmt: skip


def test_malformed_requests_are_4xx_or_a_closed_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has the answers it may have, nothing is stored, and the next honest callback is taken."""
    monkeypatch.setattr(site, "HEADER_DEADLINE_MS", 3_000)  # an answered connection is closed after that too
    monkeypatch.setattr(routes, "BODY_DEADLINE_S", 3.0)

    async def run() -> None:
        async with till(tmp_path, merchant=False) as t:
            answers = await asyncio.gather(*(raw(t, data) for _, data, _ in CASES))
            for (name, _, allowed), said in zip(CASES, answers, strict=True):
                # A server that closes with bytes unread resets the connection, and the answer can be lost with it.
                assert set(statuses(said)) <= allowed, (name, said[:200])
            assert len(statuses(await raw(t, (POST + TWO) * 20))) == 20
            assert await t.count(callbacks) == 0
            assert await t.stripe(stripe_event("payment_intent.succeeded")) == 200

    asyncio.run(run())


def hostile_heads(texts: Iterable[str]) -> Iterable[bytes]:
    """Each text as a token or account in the address, a query, a header, a signature: as it is and percent-encoded."""
    for text in texts:
        data, safe = text.encode(errors="surrogatepass"), quote(text.encode(errors="surrogatepass"), safe="").encode()
        for piece in {data, safe}:
            yield b"POST /webhooks/ebilling/%s HTTP/1.1\r\n%sConnection: close\r\n%s" % (piece, HOST, TWO)
            yield b"POST /webhooks/stripe/%s HTTP/1.1\r\n%sConnection: close\r\n%s" % (piece, HOST, TWO)
            yield b"GET /webhooks/monetbil?sign=1&%s=%s HTTP/1.1\r\n%sConnection: close\r\n\r\n" % (piece, piece, HOST)
        yield POST + b"Connection: close\r\nUser-Agent: %s\r\nStripe-Signature: %s\r\n%s" % (data, data, TWO)
        yield POST + b"Connection: close\r\nContent-Type: %s\r\nHost: %s\r\n%s" % (data, data, TWO)


def test_naughty_strings_in_heads_and_addresses_get_a_4xx(tmp_path: Path) -> None:
    """Never a 5xx and never a 200; the quarantine that some of them end in can be read again."""
    heads = iter(list(hostile_heads(corpora.strings())))

    async def run() -> None:
        async with till(tmp_path, merchant=False) as t:

            async def one_after_another() -> None:
                for head in heads:
                    said = await raw(t, head)
                    assert all(400 <= status < 500 for status in statuses(said)), (head, said[:200])

            await asyncio.gather(*(one_after_another() for _ in range(16)))
            from service.commands import run as command

            aside = await command(t.app, "callbacks.list", {"status": "quarantined"})
            assert aside
            for row in aside:
                assert await command(t.app, "callbacks.show", {"callback": row["id"]})
            assert await t.count(callbacks) == 0

    asyncio.run(run())


def test_bodies_that_never_end_share_one_budget_and_push_out_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest are sent away with 503; an honest callback among them is taken; afterwards nothing is held."""
    monkeypatch.setattr(routes, "BODIES_BYTES_MAX", 1_000_000)
    monkeypatch.setattr(routes, "BODY_DEADLINE_S", 600.0)  # it is the budget alone that sends them away
    head = POST + b"Content-Length: 200000\r\n\r\n" + b"a" * 150_000

    async def run() -> None:
        async with till(tmp_path, merchant=False) as t:
            site_ = t.app._site
            assert site_ is not None
            bodies = site_.callbacks._bodies
            opened = [await asyncio.open_connection("127.0.0.1", t.app.port) for _ in range(20)]
            for number, (_, writer) in enumerate(opened):
                writer.write(head)
                if number % 5 == 4:
                    assert await t.stripe(stripe_event("payment_intent.succeeded", f"evt_{number}")) == 200
            await eventually(lambda: 0 < len(bodies._ends) <= 7)
            assert bodies._held <= 1_000_000
            first = await opened[0][0].read(1_000)
            assert statuses(first) == [503]
            assert b"retry-after: 5" in first
            for _, writer in opened:
                writer.close()
            await eventually(lambda: not bodies._ends)
            assert (bodies._held, len(bodies._holding), bodies._sent_away) == (0, 0, {})

    asyncio.run(run())


def test_a_stop_does_not_wait_for_bodies_that_were_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every end that we put to a body frees the server's end at once, without the help of the garbage collector."""
    monkeypatch.setattr(routes, "BODY_DEADLINE_S", 0.3)
    monkeypatch.setattr(routes, "BODIES_BYTES_MAX", 1_000_000)
    head = POST + b"Content-Length: 200000\r\n\r\n" + b"a" * 150_000

    async def run() -> None:
        async with till(tmp_path, merchant=False) as t:
            opened = [await asyncio.open_connection("127.0.0.1", t.app.port) for _ in range(12)]
            gc.disable()
            for _, writer in opened:
                writer.write(head)
            assert set(statuses(await opened[0][0].read(1_000))) <= {408, 503}  # so they have arrived
            async with asyncio.timeout(PATIENCE_S):
                await t.app._site.stop()  # type: ignore[union-attr]
            gc.enable()
            for _, writer in opened:
                writer.close()

    try:
        asyncio.run(run())
    finally:
        gc.enable()


def test_who_does_not_read_the_answers_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that pile up unread end the connection: without a limit it would be held, and counted, for ever."""
    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        pytest.skip("this system has no time limit for unread answers")
    monkeypatch.setattr(site, "UNREAD_MS", 500)

    def ask_and_never_read(port: int) -> bool:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.connect(("127.0.0.1", port))
            client.settimeout(0.2)
            until = time.monotonic() + PATIENCE_S
            while time.monotonic() < until:
                try:
                    client.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 500)
                except TimeoutError:
                    continue
                except OSError:
                    return True
        return False

    async def run() -> None:
        async with till(tmp_path, merchant=False) as t:
            assert await asyncio.to_thread(ask_and_never_read, t.app.port)

    asyncio.run(run())


def test_more_sockets_than_are_held_leave_the_service_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every place taken by somebody silent, honest callbacks are taken as soon as the places are free again."""
    monkeypatch.setattr(site, "CONNECTIONS_MAX", 50)
    monkeypatch.setattr(site, "HEADER_DEADLINE_MS", 1_000)
    body = stripe_event("payment_intent.succeeded")

    async def run() -> None:
        async with till(tmp_path, merchant=False) as t:
            opened = [await asyncio.open_connection("127.0.0.1", t.app.port) for _ in range(120)]
            async with asyncio.timeout(PATIENCE_S):
                assert await t.stripe(body) == 200
            for _, writer in opened:
                writer.close()
            async with t.client.get(t.url + "/healthz") as answer:
                assert answer.status == 200

    asyncio.run(run())


def test_the_limit_of_connections_leaves_files_for_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """A soft limit of files is raised to what is needed; a hard one is shared out."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    for files, expected in (
        ((1_024, 50_000), 6_144),
        ((1_024, 4_096), 3_584),
        ((300, 300), 150),
        ((50_000, 50_000), 6_144),
    ):
        monkeypatch.setattr(resource, "getrlimit", lambda _, files=files: files)
        assert site._connections_max() == expected, files
    assert asked == [(6_656, 50_000), (4_096, 4_096), (300, 300)]
