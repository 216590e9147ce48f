"""The part `paying` of the bench: its provider answers what caisse takes, its client counts what it should."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from service.providers import CALLS
from service.providers.calls import Accepted, Call, Customer, Redirect, Response, Wanted
from service.providers.stripe_wire import CHECKOUT
from tests.bench import paying, provider
from tests.bench.parts import PARTS
from tests.bench.paying import asked

CREDENTIALS = {"secret_key": ("sk_test_bench",)}


def wanted(amount_minor: int) -> Wanted:
    """A payment as the desk asks for one."""
    return Wanted(
        reference="c0ffee", key="c0ffee", amount_minor=amount_minor, currency=provider.CURRENCY.upper(), method="card",
        country="", operator="", description="Two baskets", return_url="https://shop.example/thanks", callback_url="",
        payer_phone="", customer=Customer(**paying.BUYER), expires_at_ms=86_400_000, metadata={"caisse_payment": "p"},
        live=False, now_ms=0,
    )  # fmt: skip


def outcome(amount_minor: int) -> Accepted:
    """The conversation with this provider, to its end."""
    channel = next(one for one in CALLS["stripe"].channels if (one.code, one.currency) == (CHECKOUT, "XOF"))
    talk = CALLS["stripe"].create(wanted(amount_minor), channel, CREDENTIALS)
    call: Call = next(talk)
    assert call.path == provider.PATH and call.form is not None
    body = provider.made("&".join(f"{name}={value}" for name, value in call.form), 1)
    with pytest.raises(StopIteration) as end:
        talk.send(Response(200, {}, json.dumps(body).encode()))
    assert isinstance(end.value.value, Accepted), end.value.value
    return end.value.value


def test_the_provider_answers_what_caisse_takes() -> None:
    """Else the bench would measure how a broken answer is put before a person."""
    open_ = outcome(5_000)
    assert isinstance(open_.action, Redirect)
    paid = outcome(provider.PAID_MINOR)
    assert paid.action is None and [fact.kind for fact in paid.told.facts] == ["captured"]


@contextlib.asynccontextmanager
async def answering(answer: Callable[[int], tuple[float, bytes]]) -> AsyncIterator[tuple[int, list[int]]]:
    """A server whose n-th answer is `answer(n)`: after so many seconds, this status. Gives its port and a count."""
    made = [0, 0]  # connections, requests
    serving: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made[0] += 1
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                number, made[1] = made[1], made[1] + 1
                wait_s, status = answer(number)
                await asyncio.sleep(wait_s)
                writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], made
        await asyncio.gather(*serving)


REQUEST = b"GET / HTTP/1.1\r\n\r\n"


@pytest.mark.loopback  # the client of the bench is one of sockets
def test_a_late_answer_holds_up_no_other_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request goes out at its own time; the warm-up's are not counted, and are as many as they should be."""
    monkeypatch.setattr(paying, "WARM_UP_S", 0.1)

    async def run() -> tuple[list[float], list[int]]:
        async with answering(lambda number: (0.5 if number == 15 else 0.0, b"201 Created")) as (port, made):
            return await asked(port, lambda _: REQUEST, 100, 0.2), made

    latencies_ms, made = asyncio.run(run())
    assert len(latencies_ms) == 20 and made[1] == 30
    assert [number for number, took_ms in enumerate(latencies_ms) if took_ms >= 500] == [5]


@pytest.mark.loopback
def test_connections_are_kept_unless_new_ones_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider is called over a new connection each time, and its time has to be measured so."""
    monkeypatch.setattr(paying, "WARM_UP_S", 0.0)

    async def run(fresh: bool) -> int:
        async with answering(lambda _: (0.0, b"200 OK")) as (port, made):
            await asked(port, lambda _: REQUEST, 50, 0.4, fresh=fresh)
            return made[0]

    assert asyncio.run(run(fresh=True)) == 20
    assert asyncio.run(run(fresh=False)) < 20


@pytest.mark.loopback
def test_a_refused_request_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that refuses is quick, and must not look so."""
    monkeypatch.setattr(paying, "WARM_UP_S", 0.0)

    async def run() -> None:
        async with answering(lambda _: (0.0, b"409 Conflict")) as (port, _):
            with pytest.raises(RuntimeError, match=r"^409: \{\}$"):
                await asked(port, lambda _: REQUEST, 50, 0.1)

    asyncio.run(run())


def test_the_figures_that_targets_ask_for_are_in_the_sheet() -> None:
    """What is ours is the whole without the provider's, run by run; a key's cost for a payment is of what is ours."""
    p50_ms = {
        "provider": [2.0, 4.0, 3.0], "payment": [10.0, 12.0, 13.0], "payment_with_key": [14.0, 14.0, 15.0],
        "order": [4.0] * 3, "order_with_key": [5.0] * 3, "verify": [2.0] * 3, "routing": [0.1] * 3,
    }  # fmt: skip
    rows = {row.name: row for row in paying.rows(1_000)}
    for name, row in rows.items():
        row.p50_ms = row.p99_ms = p50_ms[name]
    figures = paying.figures(rows)
    assert figures["payment"]["overhead_ms"]["median"] == 8.0
    assert figures["payment_with_key"]["times_without"] == 1.5
    assert figures["order_with_key"]["times_without"] == 1.25
    part = next(part for part in PARTS if part.name == "paying")
    sheet = part.sheet({"rate": 50.0, "seconds": 10.0, **figures})
    assert [row[0] for row in sheet.rows] == [row.title for row in paying.rows(1_000)]
    assert sheet.rows[1][4] == "8" and sheet.rows[2][6] == "1.50"
