"""`make bench`: intake beside two baselines, end to end over 50 endpoints, SQL calls for each callback."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.bench import end_to_end, intake
from tests.bench.figures import machine

RESULTS = Path(__file__).parents[2] / "docs" / "performance.json"

INTAKE_TIMES_VERIFY_MIN = 0.5
INTAKE_TIMES_SESSION_MIN = 8.0

console = Console(stderr=True, width=None if sys.stderr.isatty() else 110)


def progress() -> Progress:
    return Progress(
        TextColumn("{task.description:<58}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True
    )


@click.command(help="Measure caisse. Without a part: all of them, about six minutes on two cores.")
@click.option("--part", "parts", multiple=True, type=click.Choice(["intake", "end-to-end", "sql", "highest"]))
@click.option("--subject", "names", multiple=True, help="Of intake: verify, session, caisse, caisse_working.")
@click.option("--runs", default=5, show_default=True, help="Alternating runs of intake.")
@click.option("--seconds", default=5.0, show_default=True, help="Length of one run of intake.")
@click.option("--clients", default=64, show_default=True, help="Keep-alive connections of intake.")
@click.option("--rate", default=1000.0, show_default=True, help="Callbacks a second, end to end.")
@click.option("--duration", default=60.0, show_default=True, help="Seconds of the run end to end.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--save", is_flag=True, help="Write the figures to docs/performance.json.")
def main(
    parts: tuple[str, ...],
    names: tuple[str, ...],
    runs: int,
    seconds: float,
    clients: int,
    rate: float,
    duration: float,
    as_json: bool,
    save: bool,
) -> None:
    """Run the parts, print one table for each, exit 1 when a target of docs/performance.md is missed."""
    told: dict[str, Any] = {"measured_at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine()}
    chosen = parts or ("intake", "end-to-end", "sql", "highest")
    if "intake" in chosen:
        told["intake"] = {"clients": clients, "seconds": seconds} | _intake(names, runs, seconds, clients)
    if "end-to-end" in chosen:
        told["end_to_end"] = _end_to_end(rate, duration)
    if "sql" in chosen:
        told["sql"] = _sql(rate)
    if "highest" in chosen:
        told["highest"] = _highest(rate)
    missed = _missed(told)
    told["missed"] = missed
    if as_json:
        click.echo(json.dumps(told, indent=2))
    if save:
        RESULTS.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    for sentence in missed:
        console.print(f"[red]missed:[/] {sentence}")
    sys.exit(1 if missed else 0)


def _intake(names: tuple[str, ...], runs: int, seconds: float, clients: int) -> dict[str, Any]:
    chosen = [subject for subject in intake.subjects() if not names or subject.name in names]
    with progress() as bar:
        task = bar.add_task("intake", total=runs * len(chosen))
        intake.measure(chosen, runs, seconds, clients, _steps(bar, task))
    told = intake.result(chosen)
    table = Table(title=f"Intake: {clients} clients, {runs} alternating runs of {seconds:g} s, medians")
    for heading in ("what", "per s", "low–high", "p50 ms", "p99 ms", "× verify", "× session"):
        table.add_column(heading, justify="left" if heading == "what" else "right", no_wrap=True)
    for one in told.values():
        rate = one["per_second"]
        table.add_row(
            one["title"],
            f"{rate['median']:,.0f}",
            f"{rate['low']:,.0f}–{rate['high']:,.0f}",
            f"{one['p50_ms']['median']:.1f}",
            f"{one['p99_ms']['median']:.1f}",
            f"{one['times_verify']:.2f}" if "times_verify" in one else "",
            f"{one['times_session']:.1f}" if "times_session" in one else "",
        )
    console.print(table)
    return told


def _end_to_end(rate: float, duration: float) -> dict[str, Any]:
    with progress() as bar:
        task = bar.add_task(f"end to end at {rate:,.0f} a second", total=duration)

        def tell(depth: int) -> None:
            bar.update(task, advance=1, description=f"end to end at {rate:,.0f} a second, {depth:,} waiting")

        done = end_to_end.run(rate, duration, tell)
    _show([done], f"End to end: {end_to_end.MERCHANTS} merchants, {duration:g} s")
    return done.as_json()


def _sql(rate: float) -> dict[str, Any]:
    with progress() as bar:
        bar.add_task("SQL calls for each callback", total=None)
        done = end_to_end.run(rate, 10.0, count_sql=True)
    console.print(f"SQL calls for each callback at {rate:,.0f} a second: [bold]{done.sql_calls}[/]")
    return {"rate": rate, "calls_per_callback": done.sql_calls, "acknowledged": done.acknowledged}


def _highest(begin: float) -> dict[str, Any]:
    with progress() as bar:
        task = bar.add_task("highest sustained", total=None)
        runs = end_to_end.highest(begin, 1.25, 20.0, _steps(bar, task))
    _show(runs, "Raising the rate until it is not sustained, 20 s each")
    good = [run.rate for run in runs if run.sustained]
    return {"per_second": max(good, default=None), "runs": [run.as_json() for run in runs]}


def _show(runs: list[end_to_end.Run], title: str) -> None:
    table = Table(title=title)
    for heading in ("rate", "answered", "p50 ms", "p99 ms", "webhooks", "missing", "repeats", "growth", "drained", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for run in runs:
        table.add_row(
            f"{run.rate:,.0f}",
            f"{run.offered_per_second:,.0f}",
            f"{run.p50_ms:,.0f}",
            f"{run.p99_ms:,.0f}",
            f"{run.webhooks:,}",
            f"{run.missing:,}",
            f"{run.repeats:,}",
            f"{run.growth_per_second:+.1f}/s",
            "never" if run.drained_s is None else f"{run.drained_s:.1f} s",
            "[green]sustained[/]" if run.sustained else "[red]not sustained[/]",
        )
    console.print(table)
    for run in runs:
        for reason in run.why_not:
            console.print(f"{run.rate:,.0f} a second: {reason}")


def _steps(bar: Progress, task: Any) -> Callable[[str], None]:
    """Advance when a step begins, so that the first one stands at nothing."""
    begun = False

    def step(title: str) -> None:
        nonlocal begun
        bar.update(task, advance=1 if begun else 0, description=title)
        begun = True

    return step


def _missed(told: dict[str, Any]) -> list[str]:
    """The targets of docs/performance.md that these figures do not reach."""
    missed = []
    one = told.get("intake", {}).get("caisse", {})
    if one.get("times_verify", INTAKE_TIMES_VERIFY_MIN) < INTAKE_TIMES_VERIFY_MIN:
        missed.append(f"intake is {one['times_verify']} × the one that keeps nothing, not {INTAKE_TIMES_VERIFY_MIN}")
    if one.get("times_session", INTAKE_TIMES_SESSION_MIN) < INTAKE_TIMES_SESSION_MIN:
        missed.append(f"intake is {one['times_session']} times the ordinary service, not {INTAKE_TIMES_SESSION_MIN}")
    if not told.get("end_to_end", {}).get("sustained", True):
        missed.append(f"end to end: {'; '.join(told['end_to_end']['why_not'])}")
    calls = told.get("sql", {}).get("calls_per_callback") or 0
    if calls > end_to_end.SQL_CALLS_MAX:
        missed.append(f"{calls} SQL calls for each callback, not {end_to_end.SQL_CALLS_MAX} at most")
    return missed


if __name__ == "__main__":
    main()
