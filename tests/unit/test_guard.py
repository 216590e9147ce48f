"""The guard: nothing forbidden is dialled, however it is spelled, whatever a name says the second time."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from outbox.guard import Forbidden, Guard
from outbox.message import Retry
from outbox.webhook import Sender, Webhook, new_secret, open_session
from tests.support.clock import Clock

CLOSED = Guard(allow_cidrs=())
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.mark.parametrize(
    "address",
    [
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:a9fe:a9fe",
        "::127.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "4000::1",
        "::ffff:0:127.0.0.1",
        "not an address",
        "",
    ],
)
def test_addresses_within_addresses(address: str) -> None:
    """Mapped, translated, tunnelled; metadata that looks public; what is no address at all."""
    assert CLOSED.check_address(address, 443) == "forbidden_address"


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700::1111", "64:ff9b::8.8.8.8"])
def test_the_internet_is_open(address: str) -> None:
    """The neighbours of the forbidden ranges are not."""
    assert Guard().check_address(address, 443) is None


def test_an_allowance_is_for_what_is_dialled() -> None:
    """Allowing loopback allows the mapped spelling, which the kernel dials as loopback, but no tunnel."""
    assert Guard().check_address("::ffff:127.0.0.1", 8080) is None
    assert Guard().check_address("64:ff9b::127.0.0.1", 8080) == "forbidden_address"
    assert Guard().check_address("2002:7f00:1::", 8080) == "forbidden_address"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://shop.example/hook", None),
        ("https://shop.example:8443/hook", None),
        ("http://shop.example/hook", None),  # a name is judged when it is dialled
        ("http://127.0.0.1:8080/", None),
        ("http://[::1]:8080/", None),
        ("https://8.8.8.8/", None),
        ("http://8.8.8.8/", "https_required"),
        ("https://10.0.0.1/", "forbidden_address"),
        ("https://[fe80::1]/", "forbidden_address"),
        ("https://shop.example:22/", "port"),
        ("https://shop.example:25/", "port"),
        ("http://127.0.0.1:6379/", "port"),
        ("https://shop.example:5432/", "port"),
        ("https://user@shop.example/", "user_info"),
        ("https://user:@shop.example/", "user_info"),
        ("https://:pass@shop.example/", "user_info"),
        ("file:///etc/passwd", "bad_url"),
        ("gopher://shop.example:70/", "scheme"),
        ("https:///hook", "bad_url"),
        ("https://shop.example:0/", "port"),
        ("https://shop.example:99999/", "bad_url"),
        ("/hook", "bad_url"),
        ("", "bad_url"),
        ("https://[::1", "bad_url"),
        ("https://127.1/", "bad_url"),
        ("https://2130706433/", "bad_url"),
        ("https://0x7f.0.0.1/", "bad_url"),
        ("https://shop.0x", "bad_url"),
        ("https://8.8.8.8./", "bad_url"),
        ("https://1.2.3.4.5/", "bad_url"),
        ("https://0300.0250.1.1/", "bad_url"),
        ("https://①②⑦.⓪.⓪.①/", None),  # plain 127.0.0.1 once read
        ("https://①⓪.⓪.⓪.①/", "forbidden_address"),
        ("https://[::1%251]/", "bad_url"),
        ("https://[fe80::1%25eth0]/", "forbidden_address"),
        ("https://127.0.0.1\\@shop.example/", "bad_url"),
        ("https://127.0.0.1#@shop.example/", None),  # the fragment is not sent: this is loopback
        ("https://shop.example#@127.0.0.1/", None),
        ("https://3com.example/", None),
        ("https://x.3com/", None),
    ],
)
def test_urls(url: str, reason: str | None) -> None:
    """What can be said when an address is entered."""
    assert Guard().check_url(url) == reason


def test_http_is_for_everybody_outside_production() -> None:
    """But the addresses stay judged."""
    assert Guard(https_only=False).check_url("http://8.8.8.8/") is None
    assert Guard(https_only=False).check_url("http://10.0.0.1/") == "forbidden_address"


@pytest.mark.loopback  # it asks the kernel which addresses are ours
def test_our_own_ports_are_never_called() -> None:
    """On no address of this machine, allowed or not; on another machine that port is an ordinary one."""
    guard = Guard(own_ports=[8000])
    for address in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::"):
        assert guard.check_address(address, 8000) == "own_port", address
    assert guard.check_url("http://127.0.0.1:8000/") == "own_port"
    assert guard.check_url("http://127.0.0.1:8001/") is None
    assert guard.check_url("https://8.8.8.8:8000/") is None


def dial(guard: Guard, url: str, known: dict[str, list[str]] | None = None) -> tuple[str, int]:
    """Sends a webhook to `url` (with `{port}` of a real server on loopback): the word, and what the server saw."""
    hits = 0

    async def run() -> str:
        nonlocal hits

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            nonlocal hits
            hits += 1
            return web.Response()

        def look_up(host: str, *more: Any) -> list[Any]:
            found = [socket.getaddrinfo(address, *more) for address in (known or {}).get(host, [host])]
            return [info for infos in found for info in infos]

        guard.look_up = look_up
        runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.05)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        try:
            async with open_session(guard) as session:
                outcome = await Sender(session, guard, Clock()).send(
                    Webhook(url.format(port=port), "e", b"{}", [SECRET])
                )
        finally:
            await runner.cleanup()
        return getattr(outcome, "error", "done")

    return asyncio.run(run()), hits


SPELLINGS = [
    "http://127.0.0.1:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://2130706433:{port}/",
    "http://017700000001:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://0x7f.1:{port}/",
    "http://0x7f000001:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://localhost:{port}/",
    "http://LOCALHOST:{port}/",
    "http://localhost.:{port}/",
    "http://[::1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[0:0:0:0:0:ffff:7f00:0001]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[::]:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://127。0。0。1:{port}/",
    "http://%31%32%37.0.0.1:{port}/",
]


@pytest.mark.loopback  # a real server on loopback is what must not be reached
@pytest.mark.parametrize("url", SPELLINGS)
def test_no_spelling_reaches_loopback(url: str) -> None:
    """Judged by the number that would be dialled, whoever reads the spelling."""
    for guard in (CLOSED, Guard(allow_cidrs=(), https_only=False)):
        word, hits = dial(guard, url)
        assert hits == 0
        assert word in {"forbidden_address", "bad_url", "dns"}


@pytest.mark.loopback
@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://①②⑦.0.0.1:{port}/"])
def test_an_allowed_network_is_reached_over_http_in_production(url: str) -> None:
    """The shop on the same machine is the ordinary case."""
    assert dial(Guard(), url, {"localhost": ["127.0.0.1"]}) == ("done", 1)


@pytest.mark.loopback
def test_a_name_is_judged_by_all_its_addresses() -> None:
    """One forbidden among good ones refuses them all; a good name over http is refused where https is required."""
    shop = "http://shop.example:{port}/"
    assert dial(CLOSED, shop, {"shop.example": ["127.0.0.1"]}) == ("forbidden_address", 0)
    assert dial(Guard(), shop, {"shop.example": ["127.0.0.1"]}) == ("done", 1)
    assert dial(Guard(), shop, {"shop.example": ["127.0.0.1", "10.0.0.1"]}) == ("forbidden_address", 0)
    assert dial(Guard(), shop, {"shop.example": ["8.8.8.8"]}) == ("https_required", 0)
    assert dial(Guard(), shop, {"shop.example": ["::ffff:169.254.169.254"]}) == ("forbidden_address", 0)


@pytest.mark.loopback
def test_every_socket_is_judged_again() -> None:
    """A name that points elsewhere after it was resolved (or is not resolved at all) meets the socket factory."""

    async def run() -> None:
        connector = CLOSED.connector()
        for where in (("127.0.0.1", 443), ("10.1.2.3", 443), ("fe80::1%lo", 443, 0, 0)):
            info = (socket.AF_INET, socket.SOCK_STREAM, 0, "", where)
            with pytest.raises(Forbidden):
                connector._socket_factory(info)  # type: ignore[misc]
        with connector._socket_factory((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("8.8.8.8", 443))):  # type: ignore[misc]
            pass
        await connector.close()

    asyncio.run(run())


@pytest.mark.loopback
def test_the_connector_protects_whoever_uses_it() -> None:
    """Also a plain session that follows redirects: every hop is judged."""

    async def run() -> None:
        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            raise web.HTTPFound("http://169.254.169.254/latest/meta-data")

        runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.05)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            async with aiohttp.ClientSession(connector=Guard().connector()) as session:
                with pytest.raises(OSError) as raised:
                    await session.get(f"http://127.0.0.1:{runner.addresses[0][1]}/")
                assert isinstance(raised.value.__cause__, Forbidden)
        finally:
            await runner.cleanup()

    asyncio.run(run())


@pytest.mark.loopback
def test_a_flood_of_interim_answers_ends_at_its_limit() -> None:
    """25 MB of `100 Continue` before the answer: cut off after 192 kB, and the event loop was never held for long."""

    async def run() -> None:
        sent = 0

        async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            await reader.readuntil(b"\r\n\r\n")
            block = b"HTTP/1.1 100 Continue\r\n\r\n" * 2_000
            try:
                for _ in range(500):
                    writer.write(block)
                    sent += len(block)
                    await writer.drain()
            except OSError:
                pass
            writer.close()

        server = await asyncio.start_server(flood, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        guard = Guard()
        async with open_session(guard) as session:
            outcome = await Sender(session, guard, lambda: 1).send(
                Webhook(f"http://127.0.0.1:{port}/", "evt_1", b"{}", [new_secret()])
            )
        server.close()
        await server.wait_closed()
        assert isinstance(outcome, Retry)
        assert sent < 10_000_000

    asyncio.run(run())


def test_certificates_are_verified_and_shown_once() -> None:
    """A server of TLS 1.2 could ask for a new handshake again and again, each of them work for our one event loop."""

    async def run() -> None:
        connector = CLOSED.connector()
        context = connector._ssl
        assert isinstance(context, ssl.SSLContext)
        assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname
        assert context.options & ssl.OP_NO_RENEGOTIATION
        await connector.close()

    asyncio.run(run())


@pytest.mark.loopback
def test_a_proxy_is_not_asked_to_dial_for_us() -> None:
    """Whoever hands one to a session over our connector: what it would dial, we would not see."""

    async def run() -> None:
        async with open_session(Guard()) as session:
            with pytest.raises(aiohttp.ClientError, match=r"^proxy$"):
                await session.get("https://shop.example/", proxy="http://127.0.0.1:8080/")

    asyncio.run(run())
