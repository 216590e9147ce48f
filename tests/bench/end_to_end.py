"""
From a provider's callback to the merchant's 2xx: a fixed rate over 50 merchants, and whether the queue grows.

Load, service and receivers are three processes on the same cores. A run is good when the callbacks came at the rate
asked for, every one was answered 200, the queue did not grow, and every acknowledged payment reached its merchant.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from outbox.tables import AGAIN, FIRST
from service.retention import PRUNE
from tests.bench import caisse, processes
from tests.bench.callbacks import Signer, payment_reference
from tests.bench.figures import grows, slope
from tests.bench.load import open_loop

MERCHANTS = 50
DRAIN_WITHIN_S = 30.0
SHARE_OF_RATE_MIN = 0.99
SQL_CALLS_MAX = 12


@dataclass
class Run:
    """One rate for a while, and what came of it."""

    rate: float
    seconds: float
    offered_per_second: float = 0.0
    acknowledged: int = 0
    other_answers: dict[int, int] = field(default_factory=dict)
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    delivered: int = 0
    webhooks: int = 0
    repeats: int = 0
    missing: int = 0
    drained_s: float | None = None
    growth_per_second: float = 0.0
    depth: list[tuple[float, int]] = field(default_factory=list)
    sql_calls: float | None = None  # per callback
    why_not: list[str] = field(default_factory=list)

    @property
    def sustained(self) -> bool:
        return not self.why_not

    def as_json(self) -> dict[str, Any]:
        """`sustained_per_second` is 0 when it was not."""
        return asdict(self) | {"sustained": self.sustained, "sustained_per_second": self.rate * self.sustained}


class Depth(threading.Thread):
    """Counts what waits, once a second, through a reader of its own that never holds a snapshot."""

    def __init__(self, path: Path, tell: Callable[[int], None]) -> None:
        super().__init__(name="bench-depth", daemon=True)
        self._path, self._tell = path, tell
        self._ended = threading.Event()
        self.samples: list[tuple[float, int]] = []

    def run(self) -> None:
        connection = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, isolation_level=None)
        begin = time.perf_counter()
        while not self._ended.wait(1.0):
            depth = waiting(connection)
            self.samples.append((round(time.perf_counter() - begin, 2), depth))
            self._tell(depth)
        connection.close()

    def stop(self) -> None:
        self._ended.set()
        self.join()


# Counted in the partial indexes, which hold only what waits: looking through the whole table each second would slow
# down what is measured. The nightly pruning always waits for its night.
_WAITING = f"""
SELECT (SELECT count(*) FROM outbox_messages INDEXED BY outbox_due
        WHERE state = 'pending' AND destination = '' AND topic <> '{PRUNE}')
     + (SELECT count(*) FROM outbox_messages INDEXED BY outbox_first WHERE {FIRST})
     + (SELECT count(*) FROM outbox_messages INDEXED BY outbox_again WHERE {AGAIN})"""


def waiting(connection: sqlite3.Connection) -> int:
    """How many messages are not done yet."""
    (count,) = connection.execute(_WAITING).fetchone()
    return int(count)


def run(rate: float, seconds: float, tell: Callable[[int], None] = lambda _: None, count_sql: bool = False) -> Run:
    """One run on a fresh database."""
    done = Run(rate, seconds)
    with processes.fresh() as folder:
        port, receivers = processes.free_port(), processes.free_port()
        shops = caisse.set_up(folder, port, f"http://127.0.0.1:{receivers}", MERCHANTS)
        counted = folder / "sql.json" if count_sql else None
        with listening(receivers, folder):
            with caisse.serving(port, folder, count_into=counted):
                numbers = _load(done, folder, port, [shop.path for shop in shops], tell)
                _drain(done, caisse.database(folder))
            _compare(done, receivers, numbers)
        if counted is not None:
            calls = json.loads(counted.read_text(encoding="utf-8"))
            done.sql_calls = round(sum(calls.values()) / max(1, done.acknowledged), 2)
    _judge(done)
    return done


def _load(done: Run, folder: Path, port: int, paths: list[bytes], tell: Callable[[int], None]) -> list[int]:
    signer = Signer(f"127.0.0.1:{port}")
    depth = Depth(caisse.database(folder), tell)
    depth.start()
    told = asyncio.run(
        open_loop(port, lambda number: signer.request(number, paths[number % len(paths)]), done.rate, done.seconds)
    )
    depth.stop()
    done.depth = depth.samples
    done.offered_per_second = round((len(told.acknowledged) + sum(told.others.values())) / told.seconds, 1)
    done.acknowledged, done.other_answers = len(told.acknowledged), told.others
    done.p50_ms, done.p99_ms = round(told.percentile(0.5), 2), round(told.percentile(0.99), 2)
    return told.acknowledged


def _drain(done: Run, path: Path) -> None:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    begin = time.perf_counter()
    while time.perf_counter() - begin < DRAIN_WITHIN_S:
        if waiting(connection) == 0:
            done.drained_s = round(time.perf_counter() - begin, 2)
            break
        time.sleep(0.1)
    connection.close()


def listening(port: int, folder: Path) -> AbstractContextManager[Any]:
    """The receivers' process."""
    arguments = ["-m", "tests.bench.receivers", str(port)]
    return processes.running(arguments, port, processes.clean_environment(), folder / "receivers")


def report_of(receivers: int) -> dict[str, Any]:
    """What arrived at them until now (receivers.py)."""
    with urllib.request.urlopen(f"http://127.0.0.1:{receivers}/report") as answer:
        report: dict[str, Any] = json.load(answer)
    return report


def _compare(done: Run, receivers: int, numbers: list[int]) -> None:
    report = report_of(receivers)
    done.webhooks = sum(report["endpoints"].values())
    done.delivered = len(report["references"])
    done.repeats = sum(times - 1 for times in report["references"].values())
    done.missing = len({payment_reference(number) for number in numbers} - set(report["references"]))


def _judge(done: Run) -> None:
    done.growth_per_second = round(slope(done.depth[len(done.depth) // 3 :]), 2)
    reasons = {
        f"only {done.offered_per_second} a second were answered": done.offered_per_second
        < done.rate * SHARE_OF_RATE_MIN,
        f"other answers than 200: {done.other_answers}": bool(done.other_answers),
        f"the queue grew by {done.growth_per_second} a second": grows(done.depth, done.rate),
        f"the queue was not empty {DRAIN_WITHIN_S:.0f} s after the load": done.drained_s is None,
        f"{done.missing} acknowledged callbacks reached no merchant": done.missing > 0,
    }
    done.why_not = [reason for reason, holds in reasons.items() if holds]


def highest(begin: float, factor: float, seconds: float, step: Callable[[str], None]) -> list[Run]:
    """Raise the rate until a run fails; the last good one is the highest sustained."""
    runs = []
    rate = begin
    while True:
        step(f"{rate:.0f} a second")
        runs.append(run(rate, seconds))
        if not runs[-1].sustained:
            return runs
        rate = round(rate * factor, -1)
