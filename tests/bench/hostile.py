"""
Honest callbacks beside hundreds of sockets that waste the server's time: the honest ones' p99, alone and with them.

The slow sockets live in a process of their own (`python -m tests.bench.hostile PORT COUNT`) and are opened again
whenever the server ends them, so that their number holds. Five kinds, in equal shares: one that says nothing, a head by
the byte, a body by the byte, a body in tiny chunks, and a keep-alive connection that falls silent after one answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench import caisse, processes
from tests.bench.callbacks import Signer
from tests.bench.figures import spread
from tests.bench.load import Told, open_loop

RATE = 200.0
SLOW = 500
SETTLE_S = 1.5  # until all slow sockets are open
RATIO_MAX = 2.0
DRIP_S = 0.5
CHUNK_S = 0.1

_HEAD = b"POST /webhooks/stripe HTTP/1.1\r\nhost: a\r\n"
Kind = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Subject:
    """Honest callbacks with `slow` slow sockets beside them, and what they saw over all runs."""

    name: str
    title: str
    slow: int
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)


def subjects(slow: int = SLOW) -> list[Subject]:
    return [Subject("alone", "honest callbacks alone", 0), Subject("hostile", f"beside {slow} slow sockets", slow)]


def measure(chosen: list[Subject], runs: int, seconds: float, step: Callable[[str], None], rate: float = RATE) -> None:
    """Each round runs every subject once, beginning with the other one each time, on fresh databases."""
    for number in range(runs):
        for subject in chosen[number % len(chosen) :] + chosen[: number % len(chosen)]:
            step(subject.title)
            with tempfile.TemporaryDirectory(prefix="caisse-bench-") as name:
                told = _once(subject, Path(name), seconds, rate)
            subject.p50_ms.append(told.percentile(0.5))
            subject.p99_ms.append(told.percentile(0.99))


def _once(subject: Subject, folder: Path, seconds: float, rate: float) -> Told:
    port = processes.free_port()
    signer = Signer(f"127.0.0.1:{port}")

    async def honest() -> Told:
        await open_loop(port, lambda number: signer.request(number, b"/webhooks/stripe"), rate, 0.5)  # warm
        first = int(rate)
        return await open_loop(port, lambda number: signer.request(number, b"/webhooks/stripe"), rate, seconds, first)

    with caisse.serving(port, folder):
        if not subject.slow:
            told = asyncio.run(honest())
        else:
            arguments = ["-m", "tests.bench.hostile", str(port), str(subject.slow)]
            log = folder / "slow"
            with processes.running(arguments, port, processes.clean_environment(), log) as attack:
                time.sleep(SETTLE_S)
                told = asyncio.run(honest())
                if attack.poll() is not None:
                    raise RuntimeError(f"the slow sockets ended early:\n{log.read_text(errors='replace')[-2000:]}")
            opened = json.loads(log.read_text().splitlines()[-1])
            if min(opened.values()) < subject.slow // len(KINDS):
                raise RuntimeError(f"{subject.title}: only so many were opened: {opened}")
    if told.others:
        raise RuntimeError(f"{subject.title}: honest callbacks got other answers than 200: {told.others}")
    return told


def result(measured: list[Subject], rate: float = RATE) -> dict[str, Any]:
    """Medians, extremes, and how many times as long the honest p99 is beside the slow ones."""
    told: dict[str, Any] = {
        subject.name: {
            "title": subject.title,
            "p50_ms": spread(subject.p50_ms),
            "p99_ms": spread(subject.p99_ms),
        }
        for subject in measured
        if subject.p99_ms
    }
    if {"alone", "hostile"} <= set(told):
        ratio = told["hostile"]["p99_ms"]["median"] / told["alone"]["p99_ms"]["median"]
        told |= {"rate": rate, "times_alone": round(ratio, 2), "met": ratio <= RATIO_MAX}
    return told


# --- the slow sockets ---------------------------------------------------------------------------------


async def _silent(_: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def _slow_head(writer: asyncio.StreamWriter) -> None:
    writer.write(_HEAD + b"x-slow: ")
    await _drip(writer, b"a", DRIP_S)


async def _slow_body(writer: asyncio.StreamWriter) -> None:
    writer.write(_HEAD + b"content-length: 200000\r\n\r\n")
    await _drip(writer, b"a", DRIP_S)


async def _tiny_chunks(writer: asyncio.StreamWriter) -> None:
    writer.write(_HEAD + b"transfer-encoding: chunked\r\n\r\n")
    await _drip(writer, b"1\r\na\r\n", CHUNK_S)


async def _half_open(writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
    await asyncio.Event().wait()


KINDS: tuple[Kind, ...] = (_silent, _slow_head, _slow_body, _tiny_chunks, _half_open)


async def _drip(writer: asyncio.StreamWriter, piece: bytes, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        writer.write(piece)
        await writer.drain()


async def hold_open(port: int, count: int, opened: Counter[str]) -> None:
    """Keep `count` slow sockets open until cancelled; `opened` counts every one by its kind."""

    async def one(kind: Kind) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.1)
                continue
            opened[kind.__name__] += 1
            saying = asyncio.ensure_future(kind(writer))
            try:
                while await reader.read(4_096):  # until the server ends it
                    pass
            except OSError:
                pass
            finally:
                saying.cancel()
                await asyncio.gather(saying, return_exceptions=True)
                writer.close()

    await asyncio.gather(*(one(KINDS[number % len(KINDS)]) for number in range(count)))


async def _attack(port: int, count: int) -> None:
    import signal

    opened: Counter[str] = Counter()
    task = asyncio.ensure_future(hold_open(port, count, opened))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await asyncio.gather(task, return_exceptions=True)
    print(json.dumps(opened), flush=True)


if __name__ == "__main__":
    asyncio.run(_attack(int(sys.argv[1]), int(sys.argv[2])))
