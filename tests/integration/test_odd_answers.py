"""Endpoints whose answers are made to hold places, or to break what is written of others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from service.commands import endpoints, merchants
from service.errors import Refusal
from service.merchants.events import WEBHOOK
from service.payments.tables import attention
from service.schema import outbox_tables
from tests.support.service import Till, eventually, stripe_event, till

messages = outbox_tables.messages.c
Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def speaking(speak: Speak) -> AsyncIterator[str]:
    """A server that reads one request and then says whatever it likes."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
            await speak(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()


async def added(t: Till, url: str) -> str:
    assert t.merchant is not None
    return str((await endpoints.add(t.app, merchant=t.merchant.id, url=url))["id"])


async def pay(t: Till, number: int) -> None:
    assert await t.stripe(stripe_event("payment_intent.succeeded", f"evt_{number}", intent=f"pi_{number}")) == 200


@pytest.mark.parametrize("status", [b"000", b"001", b"099"])
def test_a_status_that_is_none_harms_nobody_else(tmp_path: Path, status: bytes) -> None:
    """It was settled in one transaction with everybody's, and the tables refuse it: nobody's was written."""

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 %b X\r\ncontent-length: 0\r\n\r\n" % status)
        await writer.drain()

    async def run() -> None:
        async with speaking(speak) as url, till(tmp_path) as t:
            odd = await added(t, url)
            for number in range(5):
                await pay(t, number)
            await t.shop.wait_for(5)

            async def tried() -> list[Any]:
                where = (messages.destination == odd, messages.last_error.is_not(None))
                return await t.rows(outbox_tables.messages, *where)

            while not (rows := await tried()):  # noqa: ASYNC110 - what is waited for is in a database
                await asyncio.sleep(0.02)
            assert {(row.last_error, row.last_status) for row in rows} == {("bad_answer", None)}
            assert t.merchant is not None and t.merchant.endpoint is not None
            to_shop = (messages.destination == t.merchant.endpoint.id, messages.topic == WEBHOOK)
            await t.settled()
            assert {row.state for row in await t.rows(outbox_tables.messages, *to_shop)} == {"done"}
            assert len(t.shop.got) == 5, "none came twice"

    asyncio.run(run())


def test_a_body_that_drips_after_its_status_keeps_no_place(tmp_path: Path) -> None:
    """The status is the answer; the rest is left after a second, long before the 10 s of a request."""

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async def run() -> None:
        async with speaking(speak) as url, till(tmp_path) as t:
            drips = await added(t, url)
            await pay(t, 1)
            await eventually(lambda: t.shop.types == ["payment.succeeded"])
            await t.settled(30)
            row = (await t.rows(outbox_tables.messages, messages.destination == drips))[0]
            tries = outbox_tables.tries
            (one,) = await t.rows(tries, tries.c.message_id == row.id)
            assert (row.state, row.last_status) == ("done", 200)
            assert one.duration_ms < 8_000, "it was waited for until the request's own limit"

    asyncio.run(run())


def test_an_endpoint_test_goes_through_an_open_circuit(tmp_path: Path) -> None:
    """Who has repaired the shop and asks wants to know now, not in a quarter of an hour."""

    async def run() -> None:
        async with till(tmp_path) as t:
            assert t.merchant is not None and t.merchant.endpoint is not None
            endpoint = t.merchant.endpoint.id
            t.shop.answer = lambda _: 500
            for number in range(5):
                await pay(t, number)
            places = t.app.queue.destinations

            async def opened() -> bool:
                return bool((await t.app.db.read(places.standing, WEBHOOK, endpoint)).opened_ms)

            while not await opened():  # noqa: ASYNC110 - what is waited for is in a database
                await asyncio.sleep(0.02)
            t.shop.answer = lambda _: 200
            tested = await endpoints.test(t.app, endpoint=endpoint)
            # The circuit's one probe may be another delivery; the test then follows at once, since that one succeeds.
            assert tested["status"] == "succeeded"
            assert not await opened()

    asyncio.run(run())


def test_an_endpoint_of_a_disabled_merchant_stays_off(tmp_path: Path) -> None:
    """Not by the back door of its endpoints."""

    async def run() -> None:
        async with till(tmp_path) as t:
            assert t.merchant is not None and t.merchant.endpoint is not None
            await merchants.disable(t.app, merchant=t.merchant.id, reason="left")
            with pytest.raises(Refusal) as refused:
                await endpoints.enable(t.app, endpoint=t.merchant.endpoint.id)
            assert refused.value.code == "merchant_disabled"

    asyncio.run(run())


def test_what_a_person_was_told_of_an_endpoint_is_closed_when_it_is_enabled(tmp_path: Path) -> None:
    """Gone, enabled, gone again: one open matter each time, and none in between."""

    async def run() -> None:
        async with till(tmp_path) as t:
            assert t.merchant is not None and t.merchant.endpoint is not None
            endpoint = t.merchant.endpoint.id

            async def open_ones() -> list[str]:
                rows = await t.rows(attention, attention.c.subject == endpoint, attention.c.closed_at_ms.is_(None))
                return [row.reason for row in rows]

            t.shop.answer = lambda _: 410
            for number in (1, 2):
                await pay(t, number)
                await t.shop.wait_for(number)
                await t.settled()
                assert await open_ones() == ["endpoint_disabled"]
                await endpoints.enable(t.app, endpoint=endpoint)
                assert await open_ones() == []

    asyncio.run(run())
