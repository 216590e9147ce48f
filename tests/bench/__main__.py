"""`make bench`: the command line. What is measured stands in `parts.py`, what is asked of it in `targets.py`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import click

from tests.bench import page
from tests.bench.bar import Bar, console
from tests.bench.figures import machine
from tests.bench.parts import PARTS, QUICK, Part, Plan
from tests.bench.targets import missed

USUAL = [part for part in PARTS if part.usual]
HELP = f"""Measure caisse. Without a part: all but {", ".join(part.name for part in PARTS if not part.usual)}, about
{sum(part.takes for part in USUAL):.0f} minutes on two cores. Exit status 1: a target is missed.

\b
{chr(10).join(f"{part.name:<12} about {part.takes:g} min" for part in PARTS)}
"""


@click.command(help=HELP)
@click.option("--part", "names", multiple=True, type=click.Choice([part.name for part in PARTS]), help="Repeatable.")
@click.option("--subject", "subjects", multiple=True, help="Of intake: verify, session, caisse, caisse_working.")
@click.option("--runs", type=click.IntRange(1, 100), help="Alternating runs.  [default: 5]")
@click.option("--seconds", type=float, help="Length of one run of intake.  [default: 5]")
@click.option("--clients", type=click.IntRange(1, 1_000), help="Keep-alive connections of intake.  [default: 64]")
@click.option("--rate", type=float, help="Callbacks a second, end to end.  [default: 1000]")
@click.option("--duration", type=float, help="Seconds of the run end to end.  [default: 60]")
@click.option("--quick", is_flag=True, help="Small and short, to see that it runs: nothing is judged or saved.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--save", is_flag=True, help="Write docs/performance.json, and from it the charts and the tables.")
def main(names: tuple[str, ...], quick: bool, as_json: bool, save: bool, **given: Any) -> None:
    """Run the parts, show one table for each, judge."""
    if quick and save:
        raise click.UsageError("The figures of a quick run say nothing: --quick and --save exclude each other.")
    plan = replace(QUICK if quick else Plan(), **{name: value for name, value in given.items() if value})
    told: dict[str, Any] = {"measured_at": _now(), "machine": machine()}
    for part in [part for part in PARTS if part.name in names] if names else USUAL:
        told[part.key] = measured(part, plan)
    sentences = [] if quick else missed(told)
    told["missed"] = sentences
    if as_json:
        click.echo(json.dumps(told, indent=2))
    if save:
        before = page.read()
        after = page.merged(before, told)
        page.write(after)
        if gone := [part.name for part in PARTS if part.key in before and part.key not in after]:
            console.print(f"[yellow]dropped:[/] {', '.join(gone)}: of another machine or with other versions")
    for sentence in sentences:
        console.print(f"[red]missed:[/] {sentence}")
    sys.exit(1 if sentences else 0)


def measured(part: Part, plan: Plan) -> dict[str, Any]:
    """Run one part and show its table, or why it was skipped."""
    with Bar(part.name) as bar:
        told = part.run(plan, bar)
    if "skipped" in told:
        console.print(f"[yellow]skipped:[/] {part.name}: {told['skipped']}")
    else:
        sheet = part.sheet(told)
        console.print(sheet.as_rich(), *sheet.notes, sep="\n")
    return told | {"measured_at": _now()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


if __name__ == "__main__":
    main()
