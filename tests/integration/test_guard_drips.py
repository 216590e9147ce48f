"""Answers that never end, and an environment and redirects that would send us elsewhere; over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import pytest

from outbox.guard import Guard
from outbox.webhook import BODY_MS, Sender, Webhook, new_secret, open_session
from tests.support.clock import Clock
from tests.support.service import PATIENCE_S, eventually
from tests.support.speaker import OK, send_to, speaking, word

TOTAL_MS = 1_500
"""Connecting is part of it, and a slow machine may take a while to connect."""

DRIPS = {
    "nothing": (b"", b"", "timeout"),
    "status line": (b"HTTP/1.1 200 ", b"x", "timeout"),
    "header": (OK + b"x: ", b"y", "timeout"),
    "headers": (OK, b"x: y\r\n", "timeout"),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", "timeout"),
    "early hints": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", "timeout"),
    "empty lines": (b"", b"\r\n", "timeout"),
    "body": (OK + b"content-length: 5000\r\n\r\n", b"x", "done"),
    "body without length": (OK + b"\r\n", b"x", "done"),
    "chunks": (OK + b"transfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n", "done"),
    "chunk size": (OK + b"transfer-encoding: chunked\r\n\r\n", b"0", "done"),
    "trailers": (OK + b"transfer-encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n", "done"),
    "body of a failure": (b"HTTP/1.1 500 No\r\ncontent-length: 5000\r\n\r\n", b"x", "http_500"),
}


@pytest.mark.parametrize("name", DRIPS)
def test_a_drip_ends_at_the_deadline(name: str) -> None:
    """Wherever it drips it ends, and not before its limit: one over all, a shorter one after the status."""
    first, again, expected = DRIPS[name]

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            writer.write(again)
            await writer.drain()
            await asyncio.sleep(0.02)

    async def run() -> None:
        async with speaking(speak) as url:
            outcome = await asyncio.wait_for(send_to(url, TOTAL_MS), PATIENCE_S)
        assert word(outcome) == expected
        assert outcome.trial is not None
        least_ms = TOTAL_MS if expected == "timeout" else min(BODY_MS, TOTAL_MS)
        assert outcome.trial.duration_ms >= least_ms - 50

    asyncio.run(run())


def test_a_limit_of_more_than_five_seconds_is_exact() -> None:
    """aiohttp would round it up to the next whole second, and a lease is counted on."""

    async def run() -> None:
        guard = Guard()
        async with open_session(guard) as session:
            timeout = Sender(session, guard, Clock(), total_ms=5_100)._timeout
            assert timeout.total == 5.1
            assert timeout.ceil_threshold > 3_600

    asyncio.run(run())


def test_who_never_shakes_hands_ends_at_the_deadline() -> None:
    """TLS that does not begin, and a request that is never read: the same limit."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3_600)

    async def run() -> None:
        async with speaking(speak) as url:
            assert word(await send_to(url.replace("http:", "https:"), TOTAL_MS)) == "timeout"
            guard = Guard()
            async with open_session(guard) as session:
                outcome = await Sender(session, guard, Clock(), total_ms=TOTAL_MS).send(
                    Webhook(url, "evt_1", bytes(900_000), [new_secret()])
                )
            assert word(outcome) == "timeout"

    asyncio.run(run())


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_nothing_stays_open_after_hostile_answers() -> None:
    """Drips, floods and silence, over one session: no socket is left to them."""

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"\r\n")
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.01)

    def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Awaitable[None]:
        writer.write(OK + b"\r\n" + bytes(1_000_000))
        return writer.drain()

    async def run() -> None:
        guard = Guard()
        async with speaking(speak) as drip, speaking(flood) as page, open_session(guard) as session:
            sender = Sender(session, guard, Clock(), total_ms=100)
            await asyncio.sleep(0.05)
            before = _open_files()
            for url in (drip, page, drip.replace("http:", "https:")) * 5:
                await asyncio.gather(*(sender.send(Webhook(url, "e", b"{}", [new_secret()])) for _ in range(4)))
            # The server's side closes a moment later.
            await eventually(lambda: _open_files() <= before + 2, shown=lambda: f"{_open_files()}, before {before}")

    asyncio.run(run())


# --- the environment ----------------------------------------------------------------------------------


def test_the_environment_sends_us_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies of every name are not asked, and .netrc gives no password away."""
    trapped: list[bytes] = []
    heads: list[bytes] = []

    async def trap(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        trapped.append(b"!")
        writer.write(OK + b"content-length: 0\r\n\r\n")

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"content-length: 0\r\nset-cookie: a=b\r\nconnection: close\r\n\r\n")

    async def run() -> None:
        netrc = tmp_path / ".netrc"
        netrc.write_text("machine 127.0.0.1 login merchant password hunter2\ndefault login merchant password hunter2\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        monkeypatch.setenv("HOME", str(tmp_path))
        async with speaking(answer, heads) as url, speaking(trap) as proxy:
            for name in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy"):
                monkeypatch.setenv(name, proxy)
                monkeypatch.setenv(name.upper(), proxy)
            for _ in range(2):
                assert word(await send_to(url)) == "done"
            assert word(await send_to(url.replace("http:", "https:"), TOTAL_MS)) in ("tls", "reset", "timeout")

    asyncio.run(run())
    assert trapped == []
    assert len(heads) == 2
    for head in heads:
        assert b"authorization" not in head.lower() and b"cookie" not in head.lower()
        assert head.startswith(b"POST / HTTP/1.1\r\n")  # a proxy would be given the whole address


def test_a_redirect_is_an_answer_and_no_invitation() -> None:
    """To metadata, to ourselves, to a name, and with the method kept: the word is `redirect`, and nobody is called."""
    places = (
        "http://169.254.169.254/latest/meta-data",
        "/again",
        "//127.0.0.1:1/",
        "https://shop.example/",
        "x" * 8000,
    )
    called = 0

    async def run() -> None:
        nonlocal called
        for status in (300, 301, 302, 303, 307, 308):
            for place in places:

                async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                    nonlocal called
                    called += 1
                    head = f"HTTP/1.1 {status} Go\r\nlocation: {place}\r\nrefresh: 0; url={place}\r\n"  # noqa: B023
                    writer.write(head.encode() + b"content-length: 0\r\n\r\n")
                    await writer.drain()

                async with speaking(speak) as url:
                    assert word(await send_to(url)) == "redirect"

    asyncio.run(run())
    assert called == 6 * len(places)
