"""
What lies in the database already: intake beside a hundred thousand that wait, beside millions that are stored, and how
soon the service is ready with a million.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.bench import caisse, filling, processes
from tests.bench.bar import Bar
from tests.bench.figures import alternating, spread, times
from tests.bench.intake import Subject, caisse_itself, figures, measure

FREE_BYTES_MIN = 30 * 2**30
READY_WITHIN_S = 60.0

Fill = Callable[[Path, int, Bar], None]


@contextlib.contextmanager
def prepared(fill: Fill, count: int, bar: Bar) -> Iterator[Path]:
    """A folder with a database that is set up and filled."""
    with tempfile.TemporaryDirectory(prefix="caisse-bench-") as name:
        folder = Path(name)
        caisse.set_up(folder, processes.free_port(), "", 0)
        fill(caisse.database(folder), count, bar)
        yield folder


def _beside_empty(
    title: str, folder: Callable[[], Any], runs: int, seconds: float, clients: int, bar: Bar
) -> dict[str, Any]:
    empty = Subject("empty", "an empty database", caisse_itself(idle=True))
    full = Subject("full", title, caisse_itself(idle=True), folder=folder)
    measure([empty, full], runs, seconds, clients, bar)
    told: dict[str, Any] = {"clients": clients, "seconds": seconds, "empty": figures(empty), "full": figures(full)}
    told["full"]["times_empty"] = times(told["full"]["per_second"], told["empty"]["per_second"])
    return told


def waiting(count: int, runs: int, seconds: float, clients: int, bar: Bar) -> dict[str, Any]:
    """Intake while nobody works and `count` wait, beside intake into an empty database."""
    with prepared(filling.waiting_callbacks, count, bar) as template:
        told = _beside_empty(f"{count:,} waiting", lambda: processes.fresh(template), runs, seconds, clients, bar)
    return {"waiting": count} | told


def large(count: int, runs: int, seconds: float, clients: int, bar: Bar) -> dict[str, Any]:
    """
    Intake with `count` stored, beside an empty database. All runs use the one large file, which each of them makes
    larger by less than a hundredth. Skipped below 30 GB free: an estimate of what it takes, with room to spare.
    """
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < FREE_BYTES_MIN:
        return {"skipped": f"{free / 2**30:.0f} GB free, and it takes {FREE_BYTES_MIN / 2**30:.0f}"}
    with prepared(filling.stored_callbacks, count, bar) as folder:
        size = caisse.database(folder).stat().st_size
        told = _beside_empty(f"{count:,} stored", lambda: contextlib.nullcontext(folder), runs, seconds, clients, bar)
    return {"stored": count, "gigabytes": round(size / 1e9, 1)} | told


# --- start --------------------------------------------------------------------------------------------


def start(count: int, runs: int, bar: Bar) -> dict[str, Any]:
    """From the start of the process to the first 200 of `/readyz`, with nothing stored and with `count` callbacks."""
    with prepared(lambda *_: None, 0, bar) as empty, prepared(filling.stored_callbacks, count, bar) as full:
        titles = {empty: "an empty database", full: f"{count:,} stored"}
        ready: dict[Path, list[float]] = {empty: [], full: []}
        bar.expect(2 * runs)
        for _, folder in alternating([empty, full], runs):
            bar.step(titles[folder])
            ready[folder].append(_ready_ms(folder))
        shown = {folder: {"title": titles[folder], "ready_ms": spread(ready[folder])} for folder in titles}
    return {"stored": count, "empty": shown[empty], "full": shown[full]}


def _ready_ms(folder: Path) -> float:
    port = processes.free_port()
    with (folder / "log").open("wb") as log:
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", "serve"],
            env=caisse.environment(folder, port),
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
    try:
        while not _is_ready(port):
            if process.poll() is not None or time.perf_counter() - begin > READY_WITHIN_S:
                raise RuntimeError(f"it is not ready; its last words:\n{(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.01)
        return (time.perf_counter() - begin) * 1000
    finally:
        processes.end(process)


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
