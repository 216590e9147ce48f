"""
What the clock does with money, and what it costs to know where it is: ten thousand orders expire while callbacks come
in, ten thousand holds are released, and a ledger of a million postings says what somebody has and proves itself.

The databases are filled with copies of whole stories (stories.py). Jobs are begun by hand, by `caisse jobs run` beside
the running service (`python -m tests.bench.money`), which is without the two minutes of quiet after a start.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from service import logs
from service.application import run as run_program
from service.application import serve
from service.config import Settings
from service.database import Database
from service.escrow.terms import Terms
from service.ids import now_ms
from service.ledger.balances import look_beneficiary, look_merchant
from service.orders import expire
from service.orders.owner import Whose
from tests.bench import caisse, filling, processes, stories
from tests.bench.bar import Bar
from tests.bench.callbacks import Signer
from tests.bench.end_to_end import MERCHANTS, listening
from tests.bench.figures import alternating, percentile, spread
from tests.bench.load import Told, open_loop

WARM_UP_S = 2.0
END_WITHIN_S = 300.0
LOOK_EVERY_S = 0.25
DAY_MS = 24 * stories.HOUR_MS
AGO_MS = 90 * DAY_MS, 4 * DAY_MS
"""When the stories of a ledger began: none of them is so young that it would end in the future."""
WARM_UP_ROUNDS = 20
VERIFY_WITHIN_S = 600.0


@dataclass(frozen=True)
class Prepared:
    """A database that is set up, and filled, once for all runs of a case; each run has a copy."""

    folder: Path
    receivers: int
    shops: list[caisse.Shop]


@contextlib.contextmanager
def _prepared() -> Iterator[Prepared]:
    with tempfile.TemporaryDirectory(prefix="caisse-bench-") as name:
        folder, receivers = Path(name), processes.free_port()
        shops = caisse.set_up(folder, processes.free_port(), f"http://127.0.0.1:{receivers}", MERCHANTS)
        yield Prepared(folder, receivers, shops)


@contextlib.contextmanager
def _serving(made: Prepared, folder: Path) -> Iterator[int]:
    """The service at once, and the merchants' endpoints; gives its port."""
    port = processes.free_port()
    with contextlib.ExitStack() as others:
        others.enter_context(listening(made.receivers, folder))
        with processes.running(["-m", "tests.bench.money"], port, caisse.environment(folder, port), folder / "log"):
            yield port


def _command(folder: Path, *arguments: str, within_s: float) -> str:
    """What a command line prints. Raises RuntimeError for an exit status other than 0."""
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", *arguments],
        env=caisse.environment(folder, processes.free_port()),
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"caisse {' '.join(arguments)} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def _job(folder: Path, name: str, left: str, after_s: float = 0.0) -> tuple[float, float]:
    """
    `caisse jobs run NAME`, after a while, and until `left` (a query) finds nothing more: when it began and was done, by
    the clock that the load has. Raises RuntimeError when it is not done in time.
    """
    time.sleep(after_s)
    begun_s = time.perf_counter()
    _command(folder, "jobs", "run", name, within_s=END_WITHIN_S)
    path = caisse.database(folder)
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)) as reader:
        while reader.execute(f"SELECT EXISTS ({left})").fetchone()[0]:
            if time.perf_counter() - begun_s > END_WITHIN_S:
                raise RuntimeError(f"{name} left something after {END_WITHIN_S:.0f} s")
            time.sleep(LOOK_EVERY_S)
    return begun_s, time.perf_counter()


# --- expiring -----------------------------------------------------------------------------------------


@dataclass
class Meanwhile:
    """Callbacks that come in while something else is done, or nothing."""

    name: str
    title: str
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        return {"title": self.title, "p50_ms": spread(self.p50_ms), "p99_ms": spread(self.p99_ms)}


def expiring(orders: int, rate: float, seconds: float, runs: int, bar: Bar) -> dict[str, Any]:
    """
    Intake at `rate` a second with `orders` unpaid orders in the database, alone, and while the job finds that their
    time is up and the outbox ends them. The ratio is of the two p99 of one run.
    """
    alone, beside = Meanwhile("alone", "nothing else"), Meanwhile("expiring", f"{orders:,} orders expire")
    took_s: list[float] = []
    with _prepared() as made:
        shops, ago_ms = made.shops, (2 * DAY_MS, DAY_MS)
        filling.told_stories(caisse.database(made.folder), shops, stories.unpaid(), orders, len(shops), ago_ms, bar)
        bar.expect(2 * runs)
        for _, case in alternating([alone, beside], runs):
            bar.step(case.title)
            latencies_ms, job_s = _beside(made, rate, seconds, job=case is beside)
            case.p50_ms.append(percentile(latencies_ms, 0.5))
            case.p99_ms.append(percentile(latencies_ms, 0.99))
            took_s += job_s
    ratios = [one / other for one, other in zip(beside.p99_ms, alone.p99_ms, strict=True)]
    told = {case.name: case.figures() for case in (alone, beside)}
    told["expiring"] |= {"seconds": spread(took_s), "times_alone": spread(ratios)}
    return {"orders": orders, "rate": rate} | told


def _beside(made: Prepared, rate: float, seconds: float, *, job: bool) -> tuple[list[float], list[float]]:
    """The latencies, and how long the job took (if there was one): they are of that time alone."""
    told: list[Told] = []
    with processes.fresh(made.folder) as folder, _serving(made, folder) as port, ThreadPoolExecutor(1) as beside:
        signer, paths = Signer(f"127.0.0.1:{port}"), [shop.path for shop in made.shops]
        left = "SELECT 1 FROM orders WHERE state <> 'expired'"
        begun_s = time.perf_counter()
        running = beside.submit(_job, folder, "expire-stale-orders", left, WARM_UP_S) if job else None
        while not told or (running is not None and not running.done()):
            first = int(rate * (WARM_UP_S + seconds)) * len(told)
            load = open_loop(port, lambda n: signer.request(n, paths[n % MERCHANTS]), rate, WARM_UP_S + seconds, first)
            told.append(asyncio.run(load))
        span = (begun_s + WARM_UP_S, time.perf_counter()) if running is None else running.result()
    others = {status: count for one in told for status, count in one.others.items()}
    if others:
        raise RuntimeError(f"answers other than 200: {others}")
    return within(told, *span), [] if running is None else [span[1] - span[0]]


def within(told: list[Told], begun_s: float, done_s: float) -> list[float]:
    """The latencies of what was answered in this time."""
    answers = [both for one in told for both in zip(one.answered_s.values(), one.latencies_ms, strict=True)]
    return [took_ms for at_s, took_ms in answers if begun_s <= at_s <= done_s]


# --- releasing ----------------------------------------------------------------------------------------


def releasing(holds: int, beneficiaries: int, runs: int, bar: Bar) -> dict[str, Any]:
    """`holds` that are due are released by the job: the money is theirs; or a payout of each waits for approval too."""
    cases = {
        "kept": ("released", Terms(enabled=True, payout_on_release=False)),
        "paid_out": ("with a payout that waits for approval", Terms(enabled=True, payout_on_release=True)),
    }
    took_s: dict[str, list[float]] = {name: [] for name in cases}
    left = "SELECT 1 FROM holds WHERE state = 'release_scheduled'"
    with contextlib.ExitStack() as stack:
        made = {name: stack.enter_context(_prepared()) for name in cases}
        for name, (_, terms) in cases.items():
            path, shops, ago_ms = caisse.database(made[name].folder), made[name].shops, (6 * DAY_MS, 5 * DAY_MS)
            filling.terms(path, shops, terms)
            filling.told_stories(path, shops, stories.due(), holds, beneficiaries, ago_ms, bar)
        bar.expect(len(cases) * runs)
        for _, name in alternating(list(cases), runs):
            bar.step(cases[name][0])
            with processes.fresh(made[name].folder) as folder, _serving(made[name], folder):
                begun_s, done_s = _job(folder, "release-escrow", left)
                took_s[name].append(done_s - begun_s)
    return {"holds": holds} | {
        name: {"title": title, "seconds": spread(took_s[name])} for name, (title, _) in cases.items()
    }


# --- the ledger ---------------------------------------------------------------------------------------


def ledger(postings: int, beneficiaries: int, rounds: int, runs: int, bar: Bar) -> dict[str, Any]:
    """Balances out of a ledger, and its proof: the whole of it, and each half alone."""
    told = stories.history()
    with _prepared() as made:
        path, count = caisse.database(made.folder), stories.copies(told, postings)
        filling.told_stories(path, made.shops, told, count, beneficiaries, AGO_MS, bar)
        size = path.stat().st_size
        looks = {"beneficiary": "a beneficiary's balance", "merchant": "a merchant's balance"}
        proofs = {"all": "caisse verify", "ledger": "of it the ledger", "statuses": "of it the statuses"}
        p50_ms: dict[str, list[float]] = {name: [] for name in looks}
        p99_ms: dict[str, list[float]] = {name: [] for name in looks}
        took_s: dict[str, list[float]] = {name: [] for name in proofs}
        bar.expect(runs * (1 + len(proofs)))
        for number, name in alternating(["balances", *proofs], runs):
            bar.step(proofs.get(name, name))
            if name in proofs:
                took_s[name].append(_verified_s(made.folder, name))
                continue
            for whose, latencies_ms in asyncio.run(_looked_at(made, beneficiaries, rounds, number)).items():
                p50_ms[whose].append(percentile(latencies_ms, 0.5))
                p99_ms[whose].append(percentile(latencies_ms, 0.99))
    balances = {
        name: {"title": title, "p50_ms": spread(p50_ms[name]), "p99_ms": spread(p99_ms[name])}
        for name, title in looks.items()
    }
    verify = {name: {"title": title, "seconds": spread(took_s[name])} for name, title in proofs.items()}
    head = {"postings": postings, "beneficiaries": beneficiaries, "gigabytes": round(size / 1e9, 1), "rounds": rounds}
    return head | balances | {"verify": verify}


async def _looked_at(made: Prepared, beneficiaries: int, rounds: int, seed: int) -> dict[str, list[float]]:
    """Balances through the readers that requests have: each of somebody else."""
    rng = Random(seed)
    path = caisse.database(made.folder)
    db = await Database.open(f"sqlite:///{path}", on_storage_failure=lambda _: None)
    took_ms: dict[str, list[float]] = {"beneficiary": [], "merchant": []}
    try:
        for _ in range(WARM_UP_ROUNDS + rounds):
            whose = rng.randrange(beneficiaries)
            owner = Whose(made.shops[whose % len(made.shops)].merchant, False)
            begin_s = time.perf_counter()
            found = await db.read(look_beneficiary, owner, filling.beneficiary_id(whose), "Africa/Abidjan", now_ms())
            took_ms["beneficiary"].append((time.perf_counter() - begin_s) * 1000)
            if found["currency"] != stories.CURRENCY:
                raise RuntimeError(f"this is no balance: {found}")
            begin_s = time.perf_counter()
            await db.read(look_merchant, owner, "Africa/Abidjan", now_ms())
            took_ms["merchant"].append((time.perf_counter() - begin_s) * 1000)
    finally:
        await db.close()
    return {whose: latencies_ms[WARM_UP_ROUNDS:] for whose, latencies_ms in took_ms.items()}


def _verified_s(folder: Path, what: str) -> float:
    """The command as a person gives it, from its start to its answer. Raises RuntimeError when it finds anything."""
    begin_s = time.perf_counter()
    said = json.loads(_command(folder, "verify", "--what", what, "--json", within_s=VERIFY_WITHIN_S))
    took_s = time.perf_counter() - begin_s
    if not said["sound"]:
        raise RuntimeError(f"what was filled in is not sound: {said['problems'][:3]}")
    return took_s


if __name__ == "__main__":
    setattr(expire, "AFTER_START_MS", 0)  # noqa: B010 - a constant replaced on purpose, which mypy rightly forbids
    read = Settings.read()
    logs.configure(read.log_level, human=False)
    sys.exit(run_program(serve(read)))
