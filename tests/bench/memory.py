"""
How much memory the service takes, over all its processes: at rest, with a deep queue that nobody works on, and with one
that the worker cannot get rid of. Linux only: it alone says what each process has for itself (PSS).
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench import caisse, filling, processes
from tests.bench.bar import Bar
from tests.bench.end_to_end import MERCHANTS, listening
from tests.bench.figures import alternating, spread

PROC = Path("/proc")
EVERY_S = 0.25


@dataclass
class Case:
    """One state of the service; `idle`: nobody works, `waiting` callbacks or `owed` webhooks (to who never answers)."""

    name: str
    title: str
    idle: bool = False
    waiting: int = 0
    owed: int = 0
    peaks_mb: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Prepared:
    folder: Path
    receivers: int


def cases(count: int) -> list[Case]:
    """What is looked at."""
    return [
        Case("rest", "at rest"),
        Case("waiting", f"{count:,} callbacks wait", idle=True, waiting=count),
        Case("owed", f"{count:,} webhooks nobody answers", owed=count),
    ]


def measure(count: int, seconds: float, runs: int, bar: Bar) -> dict[str, Any]:
    """The highest of what is seen in `seconds` after each start, in MB (10^6 bytes)."""
    if not (PROC / "self" / "smaps_rollup").exists():
        return {"skipped": "only Linux tells what each process has for itself"}
    among = cases(count)
    with contextlib.ExitStack() as stack:
        made = {case.name: stack.enter_context(_prepared(case, bar)) for case in among}
        bar.expect(runs * len(among))
        for _, case in alternating(among, runs):
            bar.step(case.title)
            case.peaks_mb.append(_once(case, made[case.name], seconds))
    return {"seconds": seconds} | {
        case.name: {"title": case.title, "megabytes": spread(case.peaks_mb)} for case in among
    }


@contextlib.contextmanager
def _prepared(case: Case, bar: Bar) -> Iterator[Prepared]:
    with tempfile.TemporaryDirectory(prefix="caisse-bench-") as name:
        folder, receivers = Path(name), processes.free_port()
        address = f"http://127.0.0.1:{receivers}"
        shops = caisse.set_up(folder, processes.free_port(), address, MERCHANTS, "hang", MERCHANTS)
        if case.waiting:
            filling.waiting_callbacks(caisse.database(folder), case.waiting, bar)
        if case.owed:
            filling.owed_webhooks(caisse.database(folder), shops, case.owed, bar)
        yield Prepared(folder, receivers)


def _once(case: Case, made: Prepared, seconds: float) -> float:
    port = processes.free_port()
    with processes.fresh(made.folder) as folder, contextlib.ExitStack() as receivers:
        receivers.enter_context(listening(made.receivers, folder))
        with caisse.serving(port, folder, idle=case.idle) as process:
            until, peak = time.monotonic() + seconds, 0.0
            while time.monotonic() < until:
                peak = max(peak, family_mb(process.pid))
                time.sleep(EVERY_S)
            receivers.close()
    return peak


def family_mb(pid: int, proc: Path = PROC) -> float:
    """What a process and all it has started have for themselves, shared pages divided among those who share them."""
    return sum(_pss_kb(proc / str(one)) for one in _family(pid, proc)) * 1024 / 1e6


def _family(pid: int, proc: Path) -> set[int]:
    parents: dict[int, int] = {}
    for entry in proc.iterdir():
        # The name of the program stands in brackets and may hold anything; a process may end while it is looked at.
        with contextlib.suppress(OSError, ValueError, IndexError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family


def _pss_kb(entry: Path) -> int:
    with contextlib.suppress(OSError):
        for line in (entry / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0
