"""
From our 200 to the merchant's receipt: how long it takes at an easy rate, and whether one merchant in trouble makes
the others wait.

Fifty merchants, each with an endpoint. The first is the one in trouble, and its own webhooks are never counted, in no
configuration. Load and receivers read the same clock, so the two ends of a latency may lie in two processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench import caisse, filling, processes
from tests.bench.bar import Bar
from tests.bench.callbacks import Signer, payment_reference
from tests.bench.end_to_end import MERCHANTS, listening, report_of
from tests.bench.figures import alternating, percentile, spread, times
from tests.bench.load import Told, open_loop
from tests.bench.receivers import FAR_MS

WARM_UP_S = 2.0
"""Not counted: connections are opened, pages of the database read for the first time."""
ARRIVE_WITHIN_S = 30.0


@dataclass
class Case:
    """One configuration. `first` says how the first merchant answers (receivers.py), `backlog` how much it is owed."""

    name: str
    title: str
    first: str = "e"
    backlog: int = 0
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    troubled: list[int] = field(default_factory=list)  # webhooks that came to the first merchant meanwhile

    def figures(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "p50_ms": spread(self.p50_ms),
            "p99_ms": spread(self.p99_ms),
            "webhooks_to_the_first": spread(self.troubled),
        }


@dataclass(frozen=True)
class Prepared:
    """A database that is set up, and filled, once for all runs of a case; each run has a copy."""

    folder: Path
    receivers: int
    shops: list[caisse.Shop]


def latency(rate: float, seconds: float, runs: int, bar: Bar) -> dict[str, Any]:
    """`seconds` at `rate` callbacks a second, nobody in trouble."""
    case = Case("alone", "all well")
    _measure([case], rate, seconds, runs, bar)
    return {"rate": rate, "seconds": seconds, "endpoints": MERCHANTS} | case.figures()


def cases(backlog: int) -> list[Case]:
    """Nobody in trouble, and each kind of trouble."""
    return [
        Case("alone", "all well"),
        Case("hanging", "one never answers", first="hang"),
        Case("backlog", f"one is owed {backlog:,}", backlog=backlog),
        Case("backlog_far", f"the same, it answers after {FAR_MS} ms", first="far", backlog=backlog),
    ]


def isolation(rate: float, seconds: float, backlog: int, runs: int, bar: Bar) -> dict[str, Any]:
    """
    The same with nobody in trouble, with one that never answers, with one that is owed `backlog` webhooks and answers
    at once (so that it costs the machine the most), or as late as a shop on the internet does.
    """
    among = cases(backlog)
    _measure(among, rate, seconds, runs, bar)
    told: dict[str, Any] = {case.name: case.figures() for case in among}
    for name in ("hanging", "backlog", "backlog_far"):
        told[name]["times_alone"] = times(told[name]["p99_ms"], told["alone"]["p99_ms"])
    return {"rate": rate, "seconds": seconds, "endpoints": MERCHANTS} | told


def _measure(cases: list[Case], rate: float, seconds: float, runs: int, bar: Bar) -> None:
    with contextlib.ExitStack() as stack:
        made = {case.name: stack.enter_context(_prepared(case, bar)) for case in cases}
        bar.expect(runs * len(cases))
        for _, case in alternating(cases, runs):
            bar.step(case.title)
            latencies, troubled = _once(case, made[case.name], rate, seconds)
            case.p50_ms.append(percentile(latencies, 0.5))
            case.p99_ms.append(percentile(latencies, 0.99))
            case.troubled.append(troubled)


@contextlib.contextmanager
def _prepared(case: Case, bar: Bar) -> Iterator[Prepared]:
    with tempfile.TemporaryDirectory(prefix="caisse-bench-") as name:
        folder, receivers = Path(name), processes.free_port()
        address = f"http://127.0.0.1:{receivers}"
        shops = caisse.set_up(folder, processes.free_port(), address, MERCHANTS, case.first, 1)
        if case.backlog:
            filling.owed_webhooks(caisse.database(folder), shops[:1], case.backlog, bar)
        yield Prepared(folder, receivers, shops)


def _once(case: Case, made: Prepared, rate: float, seconds: float) -> tuple[list[float], int]:
    port = processes.free_port()
    signer = Signer(f"127.0.0.1:{port}")
    paths = [shop.path for shop in made.shops]
    with processes.fresh(made.folder) as folder, contextlib.ExitStack() as receivers:
        receivers.enter_context(listening(made.receivers, folder))
        with caisse.serving(port, folder):
            told = asyncio.run(
                open_loop(
                    port, lambda number: signer.request(number, paths[number % MERCHANTS]), rate, WARM_UP_S + seconds
                )
            )
            report = _arrived(told, made.receivers)
            receivers.close()  # else whoever hangs would hold up the service's end
    if told.others:
        raise RuntimeError(f"{case.title}: answers other than 200: {told.others}")
    path = f"/{case.first}/0"
    return latencies_ms(told.answered_s, report["received_s"], int(rate * WARM_UP_S)), report["endpoints"].get(path, 0)


def _arrived(told: Told, receivers: int) -> dict[str, Any]:
    """The report once it speaks of all that is counted. Raises RuntimeError when something of that never comes."""
    counted = {payment_reference(number) for number in told.answered_s if number % MERCHANTS}
    until = time.perf_counter() + ARRIVE_WITHIN_S
    while missing := counted - set((report := report_of(receivers))["received_s"]):
        if time.perf_counter() > until:
            raise RuntimeError(f"{len(missing)} of {len(counted)} callbacks reached no merchant")
        time.sleep(0.5)
    return report


def latencies_ms(answered_s: dict[int, float], received_s: dict[str, float], first: int) -> list[float]:
    """
    Of callback `first` and those after it, without the first merchant's. A webhook may be there before the sender of
    the callback has read our answer: that is 0.
    """
    return [
        max(0.0, received_s[payment_reference(number)] - at_s) * 1000
        for number, at_s in answered_s.items()
        if number >= first and number % MERCHANTS
    ]
