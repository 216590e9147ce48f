"""
The load: keep-alive connections over asyncio protocols, requests built beforehand, answers read as little as possible.

It must never be what is measured, so it does as little as it can for each request.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.bench.figures import percentile

_NOT_ANSWERED = 0


@dataclass(slots=True)
class Told:
    """What the clients saw. `acknowledged` are the numbers of requests answered 200."""

    acknowledged: list[int] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    others: dict[int, int] = field(default_factory=dict)  # status, or 0 for a lost connection -> how often
    seconds: float = 0.0  # the span in which latencies were taken
    answered_s: dict[int, float] = field(default_factory=dict)  # number -> when its 200 came (of the open loop)

    @property
    def per_second(self) -> float:
        return len(self.latencies_ms) / self.seconds if self.seconds else 0.0

    def percentile(self, share: float) -> float:
        return percentile(self.latencies_ms, share)


class Connection(asyncio.Protocol):
    """One request at a time. When an answer is whole, `done(connection, status)` is called and may send the next."""

    def __init__(self, done: Callable[[Connection, int], None]) -> None:
        self.number = -1
        self.begun_s = 0.0
        self._done = done
        self._buffer = b""
        self._transport: asyncio.WriteTransport | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def send(self, number: int, request: bytes, begun_s: float) -> None:
        self.number, self.begun_s = number, begun_s
        assert self._transport is not None
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        end = data.find(b"\r\n\r\n")
        if end < 0 or len(data) < end + 4 + _content_length(data, end):
            self._buffer = data
            return
        self._buffer = b""
        self._done(self, int(data[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)
        if self.number >= 0:
            self._done(self, _NOT_ANSWERED)

    def close(self) -> None:
        self.number = -1
        if self._transport is not None:
            self._transport.close()


def _content_length(data: bytes, end: int) -> int:
    head = data[:end].lower()
    at = head.find(b"content-length:")
    if at < 0:
        return 0
    line = head[at + 15 : head.find(b"\r\n", at) if head.find(b"\r\n", at) > 0 else end]
    return int(line)


async def _connect(port: int, count: int, done: Callable[[Connection, int], None]) -> list[Connection]:
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(lambda: Connection(done), "127.0.0.1", port) for _ in range(count)]
    return [protocol for _, protocol in made]


async def closed_loop(
    port: int, request: Callable[[int], bytes], clients: int, seconds: float, warm_up_s: float = 0.5
) -> Told:
    """`clients` connections, each sending its next request when the last is answered; the warm-up is not counted."""
    told = Told()
    number = 0
    begin_s = end_s = 0.0
    finished = asyncio.get_running_loop().create_future()
    flying = 0

    def begin(connection: Connection) -> None:
        nonlocal number, flying
        flying += 1
        connection.send(number, request(number), time.perf_counter())
        number += 1

    def done(connection: Connection, status: int) -> None:
        nonlocal flying
        flying -= 1
        now_s = time.perf_counter()
        if status == 200:
            told.acknowledged.append(connection.number)
            if begin_s <= now_s < end_s:
                told.latencies_ms.append((now_s - connection.begun_s) * 1000)
        else:
            told.others[status] = told.others.get(status, 0) + 1
        connection.number = -1
        if now_s < end_s and status != _NOT_ANSWERED:
            begin(connection)
        elif flying == 0 and not finished.done():
            finished.set_result(None)

    connections = await _connect(port, clients, done)
    begin_s = time.perf_counter() + warm_up_s
    end_s = begin_s + seconds
    for connection in connections:
        begin(connection)
    await asyncio.wait_for(finished, warm_up_s + seconds + 30)
    for connection in connections:
        connection.close()
    await asyncio.gather(*(connection.closed for connection in connections))
    told.seconds = seconds
    return told


async def open_loop(
    port: int, request: Callable[[int], bytes], rate: float, seconds: float, first: int = 0, connections: int = 128
) -> Told:
    """
    `rate` requests a second whatever the answers do; what finds no free connection waits.

    A latency counts from the instant the request was due, so a stalled server cannot hide its stall.
    """
    told = Told()
    # First in, first out: a connection that rests for seconds would be closed by the server, and rightly.
    free: deque[Connection] = deque()
    waiting: deque[tuple[int, float]] = deque()
    flying = 0

    def done(connection: Connection, status: int) -> None:
        nonlocal flying
        flying -= 1
        now_s = time.perf_counter()
        if status == 200:
            told.acknowledged.append(connection.number)
            told.answered_s[connection.number] = now_s
            told.latencies_ms.append((now_s - connection.begun_s) * 1000)
        else:
            told.others[status] = told.others.get(status, 0) + 1
        connection.number = -1
        if status == _NOT_ANSWERED:
            return
        if waiting:
            send(connection, *waiting.popleft())
        else:
            free.append(connection)

    def send(connection: Connection, number: int, due_s: float) -> None:
        nonlocal flying
        flying += 1
        connection.send(number, request(number), due_s)

    made = await _connect(port, connections, done)
    free.extend(made)
    begin_s = time.perf_counter()
    sent, total = 0, int(rate * seconds)
    while sent < total:
        due = min(total, int((time.perf_counter() - begin_s) * rate) + 1)
        for index in range(sent, due):
            due_s = begin_s + index / rate
            if free:
                send(free.popleft(), first + index, due_s)
            else:
                waiting.append((first + index, due_s))
        sent = due
        await asyncio.sleep(0.005)
    told.seconds = time.perf_counter() - begin_s
    until_s = time.perf_counter() + 30
    while (flying or waiting) and time.perf_counter() < until_s:  # noqa: ASYNC110 - `done` is no coroutine
        await asyncio.sleep(0.02)
    if flying or waiting:
        told.others[_NOT_ANSWERED] = told.others.get(_NOT_ANSWERED, 0) + flying + len(waiting)
    for connection in made:
        connection.close()
    await asyncio.gather(*(connection.closed for connection in made))
    return told
