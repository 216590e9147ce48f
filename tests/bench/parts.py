"""The parts of `make bench`: what each is called, how it is measured, how its figures are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.bench import claims, delivery, end_to_end, hostile, intake, memory, money, paying, sheets, stores
from tests.bench.bar import Bar
from tests.bench.sheets import Sheet


@dataclass(frozen=True)
class Plan:
    """How long and how large. The defaults are what docs/performance.md is made with."""

    subjects: tuple[str, ...] = ()  # of intake; none: all
    runs: int = 5
    seconds: float = 5.0  # of one run of intake
    clients: int = 64
    rate: float = 1_000.0  # callbacks a second, end to end
    duration: float = 60.0  # seconds of the run end to end
    sql_seconds: float = 10.0
    highest_seconds: float = 20.0
    easy_rate: float = 300.0  # a second, for isolation: a third of what the machine can do
    latency_rate: float = 100.0
    delivery_seconds: float = 20.0  # of one run of isolation, latency, hostile
    waiting: int = 100_000
    pending: int = 1_000_000
    destinations: int = claims.MANY
    rounds: int = 300
    paying_rate: float = 50.0  # payments a second
    paying_seconds: float = 10.0  # of one run of each kind of request
    rules: int = 1_000
    memory_seconds: float = 15.0
    started_with: int = 1_000_000
    stored: int = 5_000_000
    slow_sockets: int = hostile.SLOW
    orders: int = 10_000  # that expire
    expiring_rate: float = 100.0  # callbacks a second meanwhile
    holds: int = 10_000  # that are released
    beneficiaries: int = 10_000
    postings: int = 1_000_000


QUICK = Plan(
    runs=1, seconds=0.5, clients=16, rate=100, duration=3, sql_seconds=2, highest_seconds=2, easy_rate=100,
    delivery_seconds=2, waiting=2_000, pending=5_000, destinations=500, rounds=10, paying_seconds=1, rules=20,
    memory_seconds=1, started_with=5_000, stored=5_000, slow_sockets=20, orders=100, expiring_rate=50, holds=100,
    beneficiaries=50, postings=5_000,
)  # fmt: skip
"""A few seconds a part, to see that it runs; the figures say nothing."""


class Part(NamedTuple):
    """`usual`: measured when no part is named. `takes`: minutes with the defaults, on two cores."""

    name: str
    takes: float
    run: Callable[[Plan, Bar], dict[str, Any]]
    sheet: Callable[[Mapping[str, Any]], Sheet]
    usual: bool = True

    @property
    def key(self) -> str:
        """Its name in docs/performance.json."""
        return self.name.replace("-", "_")


def _intake(plan: Plan, bar: Bar) -> dict[str, Any]:
    chosen = [subject for subject in intake.subjects() if not plan.subjects or subject.name in plan.subjects]
    intake.measure(chosen, plan.runs, plan.seconds, plan.clients, bar)
    told = {"clients": plan.clients, "seconds": plan.seconds} | intake.result(chosen)
    return told | {"partial": True} if plan.subjects else told


def _end_to_end(plan: Plan, bar: Bar) -> dict[str, Any]:
    bar.expect(plan.duration)

    def tell(depth: int) -> None:
        bar.step(f"{plan.rate:,.0f} a second, {depth:,} waiting")

    return end_to_end.run(plan.rate, plan.duration, tell).as_json()


def _sql(plan: Plan, _: Bar) -> dict[str, Any]:
    done = end_to_end.run(plan.rate, plan.sql_seconds, count_sql=True)
    return {"rate": plan.rate, "calls_per_callback": done.sql_calls, "acknowledged": done.acknowledged}


def _highest(plan: Plan, bar: Bar) -> dict[str, Any]:
    runs = end_to_end.highest(plan.rate, 1.25, plan.highest_seconds, bar.step)
    good = [run.rate for run in runs if run.sustained]
    return {"per_second": max(good, default=None), "runs": [run.as_json() for run in runs]}


def _hostile(plan: Plan, bar: Bar) -> dict[str, Any]:
    subjects = hostile.subjects(plan.slow_sockets)
    bar.expect(plan.runs * len(subjects))
    hostile.measure(subjects, plan.runs, plan.delivery_seconds, bar.step)
    return hostile.result(subjects)


PARTS = (
    Part("intake", 3.5, _intake, sheets.intake),
    Part(
        "waiting",
        2.5,
        lambda plan, bar: stores.waiting(plan.waiting, plan.runs, plan.seconds, plan.clients, bar),
        sheets.intake,
    ),
    Part("end-to-end", 1.5, _end_to_end, sheets.end_to_end),
    Part("sql", 0.5, _sql, sheets.sql),
    Part("highest", 2, _highest, sheets.highest),
    Part(
        "latency",
        3,
        lambda plan, bar: delivery.latency(plan.latency_rate, plan.delivery_seconds, plan.runs, bar),
        sheets.latency,
    ),
    Part(
        "isolation",
        12,
        lambda plan, bar: delivery.isolation(plan.easy_rate, plan.delivery_seconds, plan.waiting, plan.runs, bar),
        sheets.isolation,
    ),
    Part(
        "claim",
        4,
        lambda plan, bar: claims.measure(plan.pending, plan.destinations, plan.rounds, plan.runs, bar),
        sheets.claim,
    ),
    Part(
        "paying",
        7,
        lambda plan, bar: paying.measure(
            plan.paying_rate, plan.paying_seconds, plan.rules, plan.rounds, plan.runs, bar
        ),
        sheets.paying,
    ),
    Part("hostile", 5, _hostile, sheets.hostile),
    Part(
        "memory",
        6,
        lambda plan, bar: memory.measure(plan.waiting, plan.memory_seconds, plan.runs, bar),
        sheets.memory,
    ),
    Part(
        "expiring",
        5,
        lambda plan, bar: money.expiring(plan.orders, plan.expiring_rate, plan.delivery_seconds, plan.runs, bar),
        sheets.expiring,
    ),
    Part(
        "releasing",
        5,
        lambda plan, bar: money.releasing(plan.holds, plan.beneficiaries, plan.runs, bar),
        sheets.releasing,
    ),
    Part(
        "ledger",
        8,
        lambda plan, bar: money.ledger(plan.postings, plan.beneficiaries, plan.rounds, plan.runs, bar),
        sheets.ledger,
    ),
    Part("start", 2, lambda plan, bar: stores.start(plan.started_with, plan.runs, bar), sheets.start),
    Part(
        "large",
        10,
        lambda plan, bar: stores.large(plan.stored, plan.runs, plan.seconds, plan.clients, bar),
        sheets.intake,
        usual=False,
    ),
)
