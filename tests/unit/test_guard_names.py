"""Names: what they point to is judged each time, and whoever's name server is silent delays nobody else."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from outbox.guard import ADDRESSES_MAX, LOOKUPS_MAX, Forbidden, Guard
from outbox.message import Done, Drop, Retry
from outbox.webhook import Sender, Webhook, open_session
from tests.support.clock import Clock

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
METADATA = "169.254.169.254"


def info(address: str, port: int) -> Any:
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))


async def send(guard: Guard, url: str, swap: AbstractResolver | None = None) -> Done | Retry | Drop:
    async with open_session(guard) as session:
        if swap is not None:
            session.connector._resolver = swap  # type: ignore[union-attr]
        return await Sender(session, guard, Clock(), total_ms=5_000).send(Webhook(url, "e", b"{}", [SECRET]))


async def serve(hits: list[str]) -> tuple[web.ServerRunner, int]:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        hits.append(request.headers["host"])
        return web.Response()

    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, int(runner.addresses[0][1])


@pytest.mark.loopback  # what is really dialled is the point
def test_a_name_that_moves_is_judged_where_it_is_now() -> None:
    """Good when it was entered and the first time it is called, forbidden the second time."""

    async def run() -> None:
        hits: list[str] = []
        runner, port = await serve(hits)
        answers = iter(["127.0.0.1", METADATA])
        guard = Guard(look_up=lambda host, port, *_: [info(next(answers), port)])
        url = f"http://shop.example:{port}/"
        try:
            assert guard.check_url(url) is None
            assert isinstance(await send(guard, url), Done)
            second = await send(guard, url)
        finally:
            await runner.cleanup()
        assert isinstance(second, Retry) and second.error == "forbidden_address"
        assert len(hits) == 1

    asyncio.run(run())


@pytest.mark.loopback
@pytest.mark.parametrize("second", ["127.0.0.1", "localhost", "0", "127.1", "::1", "::ffff:127.0.0.1"])
def test_an_address_that_changes_between_the_check_and_the_dial(second: str) -> None:
    """A resolver that is not ours, or lies: the socket is judged by itself, and what it would look up is refused."""

    class Lying(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            return [ResolveResult(hostname=host, host=second, port=port, family=family, proto=0, flags=0)]

        async def close(self) -> None: ...

    async def run() -> None:
        hits: list[str] = []
        runner, port = await serve(hits)
        try:
            outcome = await send(Guard(allow_cidrs=(), https_only=False), f"http://shop.example:{port}/", Lying())
        finally:
            await runner.cleanup()
        assert isinstance(outcome, Retry) and outcome.error == "forbidden_address"
        assert hits == []

    asyncio.run(run())


def test_all_addresses_of_a_name_are_judged_and_few_are_dialled() -> None:
    """A thousand addresses are a thousand doors to knock at; the forbidden one may be the last of them."""

    async def run() -> None:
        many = [f"8.8.{n // 250}.{n % 250 + 1}" for n in range(1000)]
        found: list[str] = many
        guard = Guard(look_up=lambda host, port, *_: [info(address, port) for address in found])
        connector = guard.connector()
        resolved = await connector._resolver.resolve("a.example", 443)
        assert [result["host"] for result in resolved] == many[:ADDRESSES_MAX]
        found = [*many, METADATA]
        with pytest.raises(Forbidden):
            await connector._resolver.resolve("a.example", 443)
        await connector.close()

    asyncio.run(run())


def test_silent_name_servers_delay_nobody_else() -> None:
    """Nearly all seats are taken by names that never answer: the next name is found, and a loop that ends waits not."""
    answer = threading.Event()

    def look_up(host: str, port: int, *_: Any) -> list[Any]:
        if host.startswith("silent"):
            answer.wait(60)
        return [info("8.8.8.8", port)]

    async def run() -> None:
        connector = Guard(look_up=look_up).connector()
        waiting = [asyncio.ensure_future(connector._resolve_host(f"silent{n}", 443)) for n in range(LOOKUPS_MAX - 1)]
        found = await asyncio.wait_for(connector._resolve_host("shop.example", 443), 30)
        assert found[0]["host"] == "8.8.8.8"
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await connector.close()

    asyncio.run(run())  # with the loop's own threads this waits for every one of them
    assert not answer.is_set()
    answer.set()


def test_one_silent_name_takes_one_seat() -> None:
    """Many tries at it wait for the same answer, also those begun after the first gave up."""
    answer, asked = threading.Event(), 0

    def look_up(host: str, port: int, *_: Any) -> list[Any]:
        nonlocal asked
        asked += 1
        answer.wait(60)
        return [info("8.8.8.8", port)]

    async def run() -> None:
        connector = Guard(look_up=look_up).connector()
        for _ in range(5):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(connector._resolve_host("silent.example", 443), 0.02)
        assert asked == 1
        answer.set()
        await connector.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("failure", "word"),
    [
        (socket.gaierror(socket.EAI_NONAME, "not known"), "dns"),
        (UnicodeError("label too long"), "bad_url"),
        (OSError("no more files"), "dns"),
    ],
)
def test_a_look_up_that_fails_is_a_failed_try(failure: Exception, word: str) -> None:
    """With a word, never an exception, and never the text of one."""

    def look_up(*_: Any) -> list[Any]:
        raise failure

    outcome = asyncio.run(send(Guard(look_up=look_up), "https://shop.example/"))
    assert isinstance(outcome, Retry) and outcome.error == word


@pytest.mark.loopback  # it asks the kernel which addresses are ours
def test_our_port_is_ours_by_every_name_of_this_machine() -> None:
    """By number, by a name that points here, and by the addresses that its host name has."""
    own = {found[4][0] for found in socket.getaddrinfo(socket.gethostname(), None)}
    everywhere = Guard(allow_cidrs=["0.0.0.0/0", "::/0"], own_ports=[8080], https_only=False)
    inside = ("64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.1")
    for address in ("127.0.0.1", "127.0.0.2", "127.255.255.254", "0.0.0.0", "::", "::1", *map(str, own), *inside):
        host = f"[{address}]" if ":" in address else address
        assert everywhere.check_url(f"http://{host}:8080/") == "own_port", address
        assert everywhere.check_url(f"http://{host}:8081/") is None, address
    assert everywhere.check_url("http://8.8.8.8:8080/") is None

    async def run() -> None:
        for address in ("127.0.0.2", *(a for a in map(str, own) if ":" not in a)):
            everywhere.look_up = lambda host, port, *_, at=address: [info(at, port)]
            outcome = await send(everywhere, "http://till.example:8080/")
            assert isinstance(outcome, Retry) and outcome.error == "own_port"

    asyncio.run(run())
