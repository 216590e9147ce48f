"""Durable intake at 64 keep-alive clients, beside the two baselines: alternating runs, medians, ratios."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench import caisse, processes
from tests.bench.callbacks import Signer, event_id
from tests.bench.figures import spread
from tests.bench.load import Told, closed_loop

PATH = b"/webhooks/stripe"

# The pool of one is the quickest of 1, 5 and 15 here (520, 420 and 450 a second): SQLite lets one write at a time, and
# more connections only wait in its busy handler. So the baseline is the strongest of its kind.
SESSION_POOL = "1"


@dataclass
class Subject:
    """One thing that is measured: how to start it on a port with its own folder, and whether it keeps callbacks."""

    name: str
    title: str
    start: Callable[[int, Path], AbstractContextManager[Any]]
    keeps: bool = True
    rates: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)


def _baseline(name: str) -> Callable[[int, Path], AbstractContextManager[Any]]:
    def start(port: int, folder: Path) -> AbstractContextManager[Any]:
        environment = processes.clean_environment(BENCH_DATABASE=str(folder / "bench.db"), BENCH_POOL=SESSION_POOL)
        arguments = ["-m", "tests.bench.baselines", name, str(port)]
        return processes.running(arguments, port, environment, folder / "log")

    return start


def _caisse(idle: bool) -> Callable[[int, Path], AbstractContextManager[Any]]:
    return lambda port, folder: caisse.serving(port, folder, idle=idle)


def subjects() -> list[Subject]:
    return [
        Subject("verify", "verify, keep nothing", _baseline("verify"), keeps=False),
        Subject("session", "a session a request", _baseline("session")),
        Subject("caisse", "caisse, work waiting", _caisse(idle=True)),
        Subject("caisse_working", "caisse, working", _caisse(idle=False)),
    ]


def measure(chosen: list[Subject], runs: int, seconds: float, clients: int, step: Callable[[str], None]) -> None:
    """Each round runs every subject once, beginning with another one each time, on fresh databases."""
    for number in range(runs):
        for subject in chosen[number % len(chosen) :] + chosen[: number % len(chosen)]:
            step(subject.title)
            with tempfile.TemporaryDirectory(prefix="caisse-bench-") as name:
                told = _once(subject, Path(name), seconds, clients)
            subject.rates.append(told.per_second)
            subject.p50_ms.append(told.percentile(0.5))
            subject.p99_ms.append(told.percentile(0.99))


def _once(subject: Subject, folder: Path, seconds: float, clients: int) -> Told:
    port = processes.free_port()
    signer = Signer(f"127.0.0.1:{port}")
    ready = [signer.request(number, PATH) for number in range(int(15_000 * (seconds + 1)))]

    def request(number: int) -> bytes:
        return ready[number] if number < len(ready) else signer.request(number, PATH)

    with subject.start(port, folder):
        told = asyncio.run(closed_loop(port, request, clients, seconds))
    if told.others:
        raise RuntimeError(f"{subject.title}: answers other than 200: {told.others}")
    if subject.keeps:
        missing = {event_id(number) for number in told.acknowledged} - kept(folder)
        if missing:
            raise RuntimeError(f"{subject.title}: {len(missing)} acknowledged callbacks are not in the database")
    return told


def kept(folder: Path) -> set[str]:
    """The keys in the database, read after the server has ended."""
    (path,) = folder.glob("*.db")
    connection = sqlite3.connect(path)
    try:
        return {key for (key,) in connection.execute("SELECT key FROM callbacks")}
    finally:
        connection.close()


def result(measured: list[Subject]) -> dict[str, Any]:
    """Medians, extremes and the two ratios; a ratio is of medians, each subject's over all its runs."""
    told: dict[str, Any] = {
        subject.name: {
            "title": subject.title,
            "per_second": spread(subject.rates),
            "p50_ms": spread(subject.p50_ms),
            "p99_ms": spread(subject.p99_ms),
        }
        for subject in measured
        if subject.rates
    }
    for name in ("caisse", "caisse_working"):
        for baseline in ("verify", "session"):
            if name in told and baseline in told:
                ratio = told[name]["per_second"]["median"] / told[baseline]["per_second"]["median"]
                told[name][f"times_{baseline}"] = round(ratio, 2)
    return told
