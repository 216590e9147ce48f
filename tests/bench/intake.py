"""Durable intake at 64 keep-alive clients, beside the two baselines: alternating runs, medians, ratios."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench import caisse, processes
from tests.bench.bar import Bar
from tests.bench.callbacks import Signer, event_id, scattered
from tests.bench.figures import alternating, spread, times
from tests.bench.load import Told, closed_loop

PATH = b"/webhooks/stripe"

# The pool of one is the quickest of 1, 5 and 15 here (520, 420 and 450 a second): SQLite lets one write at a time, and
# more connections only wait in its busy handler. So the baseline is the strongest of its kind.
SESSION_POOL = "1"

RUN_MAX = 10_000_000
"""Callbacks of one run, at most: each run has numbers of its own."""
READY_A_SECOND = 15_000
"""Requests signed beforehand: more than any server here takes."""


@dataclass
class Subject:
    """One thing that is measured: how to start it on a port with its own folder, and whether it keeps callbacks."""

    name: str
    title: str
    start: Callable[[int, Path], AbstractContextManager[Any]]
    keeps: bool = True
    folder: Callable[[], AbstractContextManager[Path]] = processes.fresh  # of each run
    rates: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)


def _baseline(name: str) -> Callable[[int, Path], AbstractContextManager[Any]]:
    def start(port: int, folder: Path) -> AbstractContextManager[Any]:
        environment = processes.clean_environment(BENCH_DATABASE=str(folder / "bench.db"), BENCH_POOL=SESSION_POOL)
        arguments = ["-m", "tests.bench.baselines", name, str(port)]
        return processes.running(arguments, port, environment, folder / "log")

    return start


def caisse_itself(idle: bool) -> Callable[[int, Path], AbstractContextManager[Any]]:
    return lambda port, folder: caisse.serving(port, folder, idle=idle)


def subjects() -> list[Subject]:
    return [
        Subject("verify", "verify, keep nothing", _baseline("verify"), keeps=False),
        Subject("session", "a session a request", _baseline("session")),
        Subject("caisse", "caisse, work waiting", caisse_itself(idle=True)),
        Subject("caisse_working", "caisse, working", caisse_itself(idle=False)),
    ]


def measure(chosen: list[Subject], runs: int, seconds: float, clients: int, bar: Bar) -> None:
    """Each round runs every subject once, beginning with another one each time."""
    bar.expect(runs * len(chosen))
    for run, subject in alternating(chosen, runs):
        bar.step(subject.title)
        with subject.folder() as folder:
            told = _once(subject, folder, run, seconds, clients)
        subject.rates.append(told.per_second)
        subject.p50_ms.append(told.percentile(0.5))
        subject.p99_ms.append(told.percentile(0.99))


def _once(subject: Subject, folder: Path, run: int, seconds: float, clients: int) -> Told:
    port = processes.free_port()
    signer = Signer(f"127.0.0.1:{port}")
    first = run * RUN_MAX  # a folder may be used again, and each callback must be new
    ready = [signer.request(scattered(first + index), PATH) for index in range(int(READY_A_SECOND * (seconds + 1)))]

    def request(index: int) -> bytes:
        return ready[index] if index < len(ready) else signer.request(scattered(first + index), PATH)

    before = last_row(folder)
    with subject.start(port, folder):
        told = asyncio.run(closed_loop(port, request, clients, seconds))
    if told.others:
        raise RuntimeError(f"{subject.title}: answers other than 200: {told.others}")
    if subject.keeps:
        missing = {event_id(scattered(first + index)) for index in told.acknowledged} - kept(folder, before)
        if missing:
            raise RuntimeError(f"{subject.title}: {len(missing)} acknowledged callbacks are not in the database")
    return told


def last_row(folder: Path) -> int:
    """The last callback that was in the database before the run; 0 for none, or no database yet."""
    if not (found := list(folder.glob("*.db"))):
        return 0
    with contextlib.closing(sqlite3.connect(found[0])) as connection:
        return connection.execute("SELECT max(rowid) FROM callbacks").fetchone()[0] or 0


def kept(folder: Path, after: int = 0) -> set[str]:
    """The keys that came into the database after that row, read when the server has ended."""
    (path,) = folder.glob("*.db")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {key for (key,) in connection.execute("SELECT key FROM callbacks WHERE rowid > ?", (after,))}


def figures(subject: Subject) -> dict[str, Any]:
    """Medians and extremes of one subject."""
    return {
        "title": subject.title,
        "per_second": spread(subject.rates),
        "p50_ms": spread(subject.p50_ms),
        "p99_ms": spread(subject.p99_ms),
    }


def result(measured: list[Subject]) -> dict[str, Any]:
    """The figures of all and the two ratios; a ratio is of medians, each subject's over all its runs."""
    told = {subject.name: figures(subject) for subject in measured if subject.rates}
    for name in ("caisse", "caisse_working"):
        for baseline in ("verify", "session"):
            if name in told and baseline in told:
                ratio = times(told[name]["per_second"], told[baseline]["per_second"])
                told[name][f"times_{baseline}"] = ratio
    return told
