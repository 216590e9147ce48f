"""
What one claim costs, whatever waits: a thousand messages, a million over few destinations, a million over many.

Through the outbox's own queue, on a file with the service's tables, over a connection opened as the service's writer
opens its own (WAL, `synchronous=FULL`), with the policy that webhooks have. A round claims a batch, settles it and
promises as much again, each in a transaction; what is timed is the call, without the commit.
"""

from __future__ import annotations

import contextlib
import sqlite3
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.pool import StaticPool

from outbox.message import Done, Promise
from outbox.policy import STANDARD_MS, Policy
from outbox.queue import Queue
from service.ids import now_ms
from service.merchants.events import WEBHOOK
from service.schema import outbox_tables
from service.sqlite.connections import open_writing
from service.sqlite.terms import Limits
from tests.bench import caisse, filling, processes
from tests.bench.bar import Bar
from tests.bench.figures import alternating, percentile, spread, times

T = TypeVar("T")

FEW, MANY = 50, 5_000
FEW_PENDING = 1_000
WARM_UP_ROUNDS = 20
CALLS = ("claim", "settle", "enqueue")

# As the service has it (application.py), but for the handlers.
POLICY = Policy(WEBHOOK, STANDARD_MS, lease_ms=30_000, limit_ms=12_000, per_destination=4, breaker=True)


@dataclass
class Case:
    """So many pending messages over so many destinations."""

    name: str
    title: str
    pending: int
    destinations: int
    medians_ms: dict[str, list[float]] = field(default_factory=lambda: {call: [] for call in CALLS})
    p99_ms: list[float] = field(default_factory=list)  # of the claim
    statements: dict[str, float] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        told: dict[str, Any] = {"title": self.title, "pending": self.pending, "destinations": self.destinations}
        told |= {f"{call}_ms": spread(values) for call, values in self.medians_ms.items()}
        return told | {"claim_p99_ms": spread(self.p99_ms), "statements": self.statements}


def cases(pending: int, destinations: int) -> list[Case]:
    """What is compared; the first is what the others are compared with."""
    return [
        Case("few", f"{FEW_PENDING:,} over {FEW}", FEW_PENDING, FEW),
        Case("deep", f"{pending:,} over {FEW}", pending, FEW),
        Case("wide", f"{pending:,} over {destinations:,}", pending, destinations),
    ]


def measure(pending: int, destinations: int, rounds: int, runs: int, bar: Bar) -> dict[str, Any]:
    """`rounds` rounds in each of `runs` alternating runs; the databases are made once, and stay as full as they are."""
    among = cases(pending, destinations)
    with contextlib.ExitStack() as stack:
        paths = {case.name: stack.enter_context(_made(case, bar)) for case in among}
        bar.expect(runs * len(among))
        for run, case in alternating(among, runs):
            bar.step(case.title)
            with _opened(paths[case.name]) as (raw, tx):
                _run(case, run, rounds, raw, tx)
    told: dict[str, Any] = {case.name: case.figures() for case in among}
    for name in ("deep", "wide"):
        told[name]["times_few"] = times(told[name]["claim_ms"], told["few"]["claim_ms"])
    return {"batch": POLICY.batch, "rounds": rounds} | told


@contextlib.contextmanager
def _made(case: Case, bar: Bar) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="caisse-bench-") as name:
        folder = Path(name)
        caisse.set_up(folder, processes.free_port(), "", 0)
        filling.pending_messages(caisse.database(folder), WEBHOOK, case.pending, case.destinations, bar)
        yield caisse.database(folder)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[sqlite3.Connection, Connection]]:
    raw = open_writing(path, sqlite3.Connection, Limits(), lambda: False)
    engine = create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool, pool_reset_on_return=None)
    try:
        with engine.connect() as tx:
            yield raw, tx
    finally:
        engine.dispose()
        raw.close()


def _run(case: Case, run: int, rounds: int, raw: sqlite3.Connection, tx: Connection) -> None:
    queue, rng = Queue(outbox_tables), Random(run)
    spent: dict[str, list[float]] = {call: [] for call in CALLS}
    statements: Counter[str] = Counter()
    now = ""

    def count(*_: Any) -> None:
        statements[now] += 1

    def timed(call: str, work: Callable[..., T], *args: Any) -> T:
        nonlocal now
        now = call
        raw.execute("BEGIN IMMEDIATE")
        begin = time.perf_counter()
        result = work(tx, *args)
        spent[call].append((time.perf_counter() - begin) * 1000)
        raw.execute("COMMIT")
        return result

    event.listen(tx.engine, "before_cursor_execute", count)
    for number in range(WARM_UP_ROUNDS + rounds):
        if number == WARM_UP_ROUNDS:
            statements.clear()
            for values in spent.values():
                values.clear()
        at_ms = now_ms()
        messages = timed("claim", queue.claim, POLICY, at_ms, rng).messages
        if len(messages) < POLICY.batch:
            raise RuntimeError(f"{case.title}: a claim took {len(messages)}, not a batch of {POLICY.batch}")
        timed("settle", queue.settle, [(message, Done()) for message in messages], POLICY, at_ms, rng)
        name = f"{WEBHOOK}:bench:{run}:{number}"
        promises = [Promise(f"{name}:{at}", WEBHOOK, m.destination, m.subject) for at, m in enumerate(messages)]
        timed("enqueue", queue.enqueue, promises, at_ms)
        # As the writer does between its batches; readers there are none.
        raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    for call in CALLS:
        case.medians_ms[call].append(statistics.median(spent[call]))
        case.statements[call] = round(statements[call] / rounds, 2)
    case.p99_ms.append(percentile(spent["claim"], 0.99))
