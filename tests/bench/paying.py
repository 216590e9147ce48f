"""
What asking for a payment costs beside the provider's own time, and what it costs to ask how a session stands, to bring
an Idempotency-Key, and to choose among a thousand routes.

The provider is a process that answers at once (provider.py). Its time is what the same client needs for a call of its
own, over a new connection as caisse's calls are; ours is the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection

from service import logs
from service.application import Application, build
from service.commands import keys
from service.config import Settings
from service.merchants.audit import By
from service.merchants.keys import Caller
from service.orders import sessions
from service.providers.calls import Customer
from service.routing import store
from service.routing.rules import Ask
from tests.bench import caisse, processes, provider
from tests.bench.bar import Bar
from tests.bench.end_to_end import listening
from tests.bench.figures import alternating, percentile, spread, times

T = TypeVar("T")

WARM_UP_S, WARM_UP_ROUNDS = 2.0, 20
ANSWER_WITHIN_S = 30.0
SESSIONS = 50
"""Paid ones, that pages ask about in turn."""
BUYER = {"name": "Awa Koné", "email": "awa@example.com"}

Request = Callable[[int], bytes]
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Row:
    """One kind of request: what its client waited for."""

    name: str
    title: str
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)

    def take(self, latencies_ms: list[float]) -> None:
        self.p50_ms.append(percentile(latencies_ms, 0.5))
        self.p99_ms.append(percentile(latencies_ms, 0.99))

    def figures(self) -> dict[str, Any]:
        return {"title": self.title, "p50_ms": spread(self.p50_ms), "p99_ms": spread(self.p99_ms)}


def rows(rules: int) -> list[Row]:
    """What is measured."""
    return [
        Row("provider", "the provider alone"),
        Row("payment", "a payment"),
        Row("payment_with_key", "a payment, with a key"),
        Row("order", "an order"),
        Row("order_with_key", "an order, with a key"),
        Row("verify", "how a session stands"),
        Row("routing", f"choosing among {rules:,} routes"),
    ]


@dataclass(frozen=True)
class Prepared:
    """A database with a shop in it, its API key, the sessions that are paid, and where the others will listen."""

    folder: Path
    receivers: int
    provider: int
    api_key: str
    sessions: list[tuple[str, str]]  # id, client secret


def measure(rate: float, seconds: float, rules: int, rounds: int, runs: int, bar: Bar) -> dict[str, Any]:
    """`seconds` of each kind of request at `rate` a second; requests with and without a key take turns."""
    kinds = {row.name: row for row in rows(rules)}
    with _prepared() as made, _routed(rules) as routed:
        cases: list[Callable[[], dict[str, list[float]]]] = [
            lambda: {"provider": _alone(made, rate, seconds)},
            lambda: _keyed("payment", made, rate, seconds, "/v1/payments", payment),
            lambda: _keyed("order", made, rate, seconds, "/v1/orders", order),
            lambda: {"verify": _verified(made, rate, seconds)},
            lambda: {"routing": asyncio.run(_with(routed, _chosen, (routed / "merchant").read_text(), rounds))},
        ]
        bar.expect(runs * len(cases))
        for run, case in alternating(cases, runs):
            bar.step(f"run {run + 1}")
            for name, latencies_ms in case().items():
                kinds[name].take(latencies_ms)
    return {"rate": rate, "seconds": seconds, "rules": rules} | figures(kinds)


def figures(kinds: Mapping[str, Row]) -> dict[str, Any]:
    """`overhead_ms`: the whole without the provider's, run by run. For a payment, a key's cost is of what is ours."""
    told: dict[str, Any] = {row.name: row.figures() for row in kinds.values()}
    for name in ("payment", "payment_with_key"):
        pairs = zip(kinds[name].p50_ms, kinds["provider"].p50_ms, strict=True)
        told[name]["overhead_ms"] = spread([total - theirs for total, theirs in pairs])
    for name, of in (("payment", "overhead_ms"), ("order", "p50_ms")):
        told[f"{name}_with_key"]["times_without"] = times(told[f"{name}_with_key"][of], told[name][of])
    return told


# --- what is asked ------------------------------------------------------------------------------------


def payment(number: int) -> dict[str, Any]:
    """A card payment as a shop asks for one."""
    return {
        "amount": 5_000, "currency": provider.CURRENCY.upper(), "method": "card", "reference": f"order-{number}",
        "description": "Two baskets", "customer": BUYER, "return_url": "https://shop.example/thanks",
        "metadata": {"cart": f"c{number}"},
    }  # fmt: skip


def order(number: int) -> dict[str, Any]:
    """An order as a shop writes one down: the cheapest request that makes something."""
    line = {"description": "Basket", "quantity": 2, "unit_amount": 2_500}
    return {"lines": [line], "currency": provider.CURRENCY.upper(), "reference": f"order-{number}"}


def posted(path: str, body: dict[str, Any], api_key: str, idempotency_key: str = "") -> bytes:
    """A request of a merchant's application."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {api_key}\r\n"
    if idempotency_key:
        head += f"idempotency-key: {idempotency_key}\r\n"
    return f"{head}content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content


def _alone(made: Prepared, rate: float, seconds: float) -> list[float]:
    """The provider called as caisse calls it, by nobody else."""
    form = (
        "client_reference_id=c0ffee&line_items[0][price_data][unit_amount]=5000"
        f"&line_items[0][price_data][currency]={provider.CURRENCY}"
    ).encode()
    head = f"POST {provider.PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-length: {len(form)}\r\n"
    request = head.encode() + b"content-type: application/x-www-form-urlencoded\r\n\r\n" + form
    with processes.fresh() as folder, _providing(made.provider, folder):
        return asyncio.run(asked(made.provider, lambda _: request, rate, seconds, fresh=True))


def _keyed(
    name: str, made: Prepared, rate: float, seconds: float, path: str, body: Callable[[int], dict[str, Any]]
) -> dict[str, list[float]]:
    """Every second request has a key."""

    def request(number: int) -> bytes:
        return posted(path, body(number), made.api_key, f"bench-{number}" if number % 2 else "")

    with _serving(made) as port:
        latencies_ms = asyncio.run(asked(port, request, rate, seconds))
    first = int(rate * WARM_UP_S) % 2
    return {name: latencies_ms[first::2], f"{name}_with_key": latencies_ms[1 - first :: 2]}


def _verified(made: Prepared, rate: float, seconds: float) -> list[float]:
    """The page's question, about sessions whose end is known, so that no provider is asked."""

    def request(number: int) -> bytes:
        id_, secret = made.sessions[number % len(made.sessions)]
        head = f"GET /v1/sessions/{id_}/verify HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        return f"{head}authorization: Bearer {secret}\r\n\r\n".encode()

    with _serving(made) as port:
        return asyncio.run(asked(port, request, rate, seconds))


# --- the client ---------------------------------------------------------------------------------------


async def asked(port: int, request: Request, rate: float, seconds: float, fresh: bool = False) -> list[float]:
    """
    `rate` requests a second whatever the answers do, each at its own time: over a connection that is free, else a new
    one; `fresh`: always a new one. The latencies in ms, in the order of asking, without those of the warm-up.

    Raises RuntimeError for an answer other than 2xx.
    """
    free: deque[Stream] = deque()
    writers: list[asyncio.StreamWriter] = []
    begin_s = time.perf_counter()

    async def connected() -> Stream:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        return reader, writer

    async def one(number: int) -> float:
        await asyncio.sleep(begin_s + number / rate - time.perf_counter())
        sent_s = time.perf_counter()
        reader, writer = free.popleft() if free else await connected()
        writer.write(request(number))
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        body = await reader.readexactly(int(length.partition(b":")[2]))
        took_ms = (time.perf_counter() - sent_s) * 1000
        if not head.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(f"{head[9:12].decode()}: {body[:500].decode()}")
        if fresh:
            writer.close()
        else:
            free.append((reader, writer))
        return took_ms

    ones = [asyncio.create_task(one(number)) for number in range(int(rate * (WARM_UP_S + seconds)))]
    try:
        async with asyncio.timeout(WARM_UP_S + seconds + ANSWER_WITHIN_S):
            latencies_ms = await asyncio.gather(*ones)
    finally:
        for task in ones:
            task.cancel()
        await asyncio.gather(*ones, return_exceptions=True)
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
    return latencies_ms[int(rate * WARM_UP_S) :]


# --- the service --------------------------------------------------------------------------------------


def _environment(folder: Path, port: int, provider_port: int) -> dict[str, str]:
    return caisse.environment(folder, port, CAISSE_STRIPE_BASE_URL=f"http://127.0.0.1:{provider_port}")


@contextlib.contextmanager
def _serving(made: Prepared) -> Iterator[int]:
    """The service, its provider and the merchant's endpoint; gives its port."""
    port = processes.free_port()
    with processes.fresh(made.folder) as folder, contextlib.ExitStack() as others:
        others.enter_context(listening(made.receivers, folder))
        others.enter_context(_providing(made.provider, folder))
        environment = _environment(folder, port, made.provider)
        with processes.running(["-m", "tests.bench.serve"], port, environment, folder / "log"):
            yield port


def _providing(port: int, folder: Path) -> contextlib.AbstractContextManager[Any]:
    arguments = ["-m", "tests.bench.provider", str(port)]
    return processes.running(arguments, port, processes.clean_environment(), folder / "provider")


@contextlib.contextmanager
def _prepared() -> Iterator[Prepared]:
    with tempfile.TemporaryDirectory(prefix="caisse-bench-") as name:
        folder, receivers, providing = Path(name), processes.free_port(), processes.free_port()
        (shop,) = caisse.set_up(folder, processes.free_port(), f"http://127.0.0.1:{receivers}", 1)
        with processes.fresh() as elsewhere, _providing(providing, elsewhere):
            api_key, paid = asyncio.run(_with(folder, _furnished, shop.merchant, provider_port=providing))
        yield Prepared(folder, receivers, providing, api_key, paid)


async def _furnished(app: Application, merchant: str) -> tuple[str, list[tuple[str, str]]]:
    """An API key, and sessions whose payments are paid."""
    made = await keys.create(app, merchant=merchant)
    return made["api_key"], [await _paid_session(app, merchant) for _ in range(SESSIONS)]


async def _paid_session(app: Application, merchant: str) -> tuple[str, str]:
    by = By("bench", app.clock(), app.ids)
    owner = Caller("", merchant, app.settings.live, frozenset())
    offer = sessions.Offer(
        currency=provider.CURRENCY.upper(),
        amount_minor=provider.PAID_MINOR,
        return_url="https://shop.example/thanks",
        customer=Customer(**BUYER),
    )
    made = await app.db.write(lambda tx: sessions.create(tx, app.queue, owner, offer, by))
    await app.checkout.submit(made.id, method="card")
    told = await app.checkout.verify(made.id, made.client_secret)
    if told["state"] != "paid":
        raise RuntimeError(f"a session should be paid and is {told['state']}")
    return made.id, made.client_secret


# --- routing ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _routed(rules: int) -> Iterator[Path]:
    """A shop with many routes; the last of them is the one that takes its payments."""
    with tempfile.TemporaryDirectory(prefix="caisse-bench-") as name:
        folder = Path(name)
        (shop,) = caisse.set_up(folder, processes.free_port(), f"http://127.0.0.1:{processes.free_port()}", 1)
        asyncio.run(_with(folder, _ruled, rules))
        (folder / "merchant").write_text(shop.merchant)
        yield folder


async def _ruled(app: Application, rules: int) -> None:
    wanted = [
        {
            "providers": ["stripe"],
            "currency": [provider.CURRENCY.upper()],
            "country": [("BJ", "CI", "CM", "GA", "SN", "TG")[number % 6]],
            "min_amount": 10_000 + number,
        }
        for number in range(rules - 1)
    ]
    by = By("bench", app.clock(), app.ids)
    diff = await app.db.read(store.plan_set, [*wanted, {"providers": ["stripe"]}], by)
    await app.db.write(store.apply, diff, by)


async def _chosen(app: Application, merchant: str, rounds: int) -> list[float]:
    """What asking for a payment asks of the routes, explanation included, where it does: on the writer's thread."""
    ask = Ask(5_000, provider.CURRENCY.upper(), "card", merchant, app.settings.live, country="CI")

    def choose(tx: Connection, seed: str) -> float:
        begin_s = time.perf_counter()
        choice = app.routes.choose(tx, ask, seed)
        choice.explained()
        took_ms = (time.perf_counter() - begin_s) * 1000
        if not choice.chain:
            raise RuntimeError("no route took the payment")
        return took_ms

    taken = [await app.db.write(choose, f"pay_{number}") for number in range(WARM_UP_ROUNDS + rounds)]
    return taken[WARM_UP_ROUNDS:]


async def _with(folder: Path, does: Callable[..., Awaitable[T]], *args: Any, provider_port: int = 1) -> T:
    """Something with the application of a folder, which is opened for it and does not serve."""
    logs.configure("warning", human=False)
    app = build(Settings.read(environment=_environment(folder, 1, provider_port), directory=folder))
    await app.open()
    try:
        return await does(app, *args)
    finally:
        await app.close()
