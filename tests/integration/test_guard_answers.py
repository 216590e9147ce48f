"""Bombs: what a hostile answer costs in memory, over real sockets and in a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys
import zlib
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

from outbox.guard import RECEIVED_BYTES_MAX
from outbox.webhook import new_secret
from tests.support.speaker import OK, Speak, send_to, speaking, word

MB = 1_000_000
MORE_MEMORY_MAX = 20 * MB
SENT_BYTES_MAX = 150 * MB
"""How much of each bomb is offered. Whoever takes it all in passes the limit on memory many times over."""


PIECE = 16 * MB
PIECES = 64


def _squeezed(wbits: int) -> bytes:
    """About 1 GB of zeros in 1 MB: for gzip one member after the other, for raw deflate one block after the other."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, wbits)
    piece = squeeze.compress(bytes(PIECE)) + squeeze.flush(zlib.Z_FINISH if wbits > 0 else zlib.Z_FULL_FLUSH)
    return piece * PIECES


def _squeezed_answer(encoding: bytes, body: bytes) -> bytes:
    return OK + b"content-encoding: %s\r\ncontent-length: %d\r\n\r\n" % (encoding, len(body)) + body


GZIP = _squeezed(31)
IN_ONE_CHUNK = b"%x\r\n%s\r\n0\r\n\r\n" % (len(GZIP), GZIP)
NOISE = b"x" * 65_536
BOMBS: dict[str, tuple[bytes, bytes]] = {  # what comes first, and what then comes again and again
    "gzip": (_squeezed_answer(b"gzip", GZIP), b""),
    "gzip twice": (_squeezed_answer(b"gzip, gzip", GZIP), b""),
    "deflate": (_squeezed_answer(b"deflate", _squeezed(-15)), b""),
    "gzip in chunks": (OK + b"transfer-encoding: gzip, chunked\r\ncontent-encoding: gzip\r\n\r\n" + IN_ONE_CHUNK, b""),
    "endless body": (OK + b"\r\n", NOISE),
    "huge content-length": (OK + b"content-length: 9223372036854775807\r\n\r\n", NOISE),
    "huge chunk": (OK + b"transfer-encoding: chunked\r\n\r\n7fffffffffffffff\r\n", NOISE),
    "small chunks": (OK + b"transfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 10_000),
    "chunk extension": (OK + b"transfer-encoding: chunked\r\n\r\n1;", NOISE),
    "trailers": (OK + b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", b"a: b\r\n" * 10_000),
    "status line": (b"HTTP/1.1 200 ", NOISE),
    "status line without end or sense": (b"", NOISE),
    "one header": (OK + b"x: ", NOISE),
    "header name": (OK, NOISE),
    "headers": (OK, b"x: y\r\n" * 10_000),
    "folded header": (OK + b"x: y\r\n", b" z\r\n" * 10_000),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2_000),
    "early hints": (b"", b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n" * 2_000),
    "switched protocols": (b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", NOISE),
    "answer after answer": (b"", OK + b"content-length: 1\r\n\r\nx"),
    "empty lines": (b"", b"\r\n" * 30_000),
}

CHILD = """
import asyncio, json, sys
from pathlib import Path
from typing import Any
import aiohttp, uvloop
from outbox.guard import Guard
from outbox.webhook import Sender, Webhook, open_session

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024

async def main(urls):
    guard = Guard()
    grown = {}
    async with open_session(guard) as session, aiohttp.ClientSession() as naive:
        sender = Sender(session, guard, lambda: 1_800_000_000_000, total_ms=5_000)
        async def send(url):
            return await sender.send(Webhook(url, "e", b"{}", [sys.argv[2]]))
        await asyncio.gather(*(send(urls["harmless"]) for _ in range(4)))
        for name, url in urls.items():
            before = peak()
            outcomes = await asyncio.gather(*(send(url) for _ in range(4)))
            grown[name] = (peak() - before, type(outcomes[0]).__name__, getattr(outcomes[0], "error", ""))
        before = peak()
        async with naive.post(urls["gzip"], data=b"{}") as answer:
            await answer.content.readexactly(100_000_000)
        grown["naive"] = (peak() - before, "", "")
    print(json.dumps(grown))

uvloop.run(main(json.loads(sys.argv[1])))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="a peak that belongs to one process is in /proc")
@pytest.mark.slow
def test_no_answer_costs_more_than_20_mb_of_memory() -> None:
    """Each bomb four times at once, in a process of its own, on the service's own loop; its peak before and after."""
    offered: dict[str, int] = {}

    def bomb(name: str, first: bytes, again: bytes) -> Speak:
        async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            sent = 0
            for piece in chain([first], repeat(again) if again else []):
                writer.write(piece)
                sent += len(piece)
                offered[name] = max(offered.get(name, 0), sent)
                await writer.drain()
                if sent > SENT_BYTES_MAX:
                    return
            await reader.read()  # until the other side closes

        async def brief(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(first)

        return brief if name == "harmless" else speak

    async def run() -> dict[str, list[Any]]:
        async with speaking(bomb("harmless", OK + b"connection: close\r\n\r\n", b"")) as harmless:
            urls = {"harmless": harmless}
            opened = [speaking(bomb(name, *parts)) for name, parts in BOMBS.items()]
            for name, one in zip(BOMBS, opened, strict=True):
                urls[name] = await one.__aenter__()
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", CHILD, json.dumps(urls), new_secret()),
                cwd=Path(__file__).parents[2],
                stdout=asyncio.subprocess.PIPE,
            )
            said, _ = await child.communicate()
            for one in opened:
                await one.__aexit__(None, None, None)
            assert child.returncode == 0
            return dict(json.loads(said))

    grown = asyncio.run(run())
    assert grown.pop("naive")[0] > MORE_MEMORY_MAX  # the control: a client that is not ours, and we would have seen it
    assert set(grown) == {"harmless", *BOMBS}
    assert {name: more for name, (more, *_) in grown.items() if more > MORE_MEMORY_MAX} == {}
    assert grown["harmless"][1] == "Done"
    # What said 2xx before it misbehaved was delivered; what never said it was not.
    for name in ("gzip", "deflate", "gzip in chunks", "endless body", "huge content-length", "huge chunk"):
        assert grown[name][1:] == ["Done", ""], name
    for name in ("status line", "one header", "headers", "interim answers", "early hints", "switched protocols"):
        assert grown[name][1] == "Retry", name
    # Nobody was read to the end: what was offered is what the buffers of both kernels hold.
    assert {name: sent for name, sent in offered.items() if sent >= SENT_BYTES_MAX} == {}


def test_a_status_at_the_head_of_one_large_piece_is_read() -> None:
    """An honest shop whose page is longer than the limit, come in one piece while the event loop was busy."""

    async def run() -> None:
        from outbox.guard import _Protocol

        body = b"x" * (2 * RECEIVED_BYTES_MAX)
        protocol = _Protocol(asyncio.get_running_loop())
        aborted: list[bool] = []

        class Wire(asyncio.Transport):
            def abort(self) -> None:
                aborted.append(True)

            def pause_reading(self) -> None: ...

        protocol.connection_made(Wire())
        protocol.set_response_params(auto_decompress=False)
        protocol.data_received(OK + b"content-length: %d\r\n\r\n" % len(body) + body)
        message, _ = await asyncio.wait_for(protocol.read(), 5)
        assert message.code == 200
        assert aborted

    asyncio.run(run())


def test_a_long_page_is_a_delivery_all_the_same() -> None:
    """The same over a real socket: a status, and a body many times the limit, written at once."""

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"content-length: 5000000\r\n\r\n" + b"x" * 5_000_000)
        await writer.drain()

    async def run() -> None:
        async with speaking(speak) as url:
            for _ in range(20):
                assert word(await send_to(url)) == "done"

    asyncio.run(run())


def test_the_bomb_is_one() -> None:
    """The control: 1 MB that becomes 1 GB."""
    assert len(zlib.decompress(GZIP, 31)) == PIECE and PIECE * PIECES > 1_000 * MB
    assert len(GZIP) < 1.1 * MB
