"""`caisse closing`"""

from __future__ import annotations

from typing import Any

import click

from service.cli import show
from service.cli.balances import CSV_FILE, save
from service.cli.run import run

_AMOUNTS = ("received", "fees", "refunded", "net", "paid_out", "returned", "expected", "settled")
_COUNTS = ("differences", "open_differences")


@click.command()
@click.argument("day", required=False)
@click.option("--merchant", help="Of this merchant alone.")
@click.option("--csv", "file", type=CSV_FILE, help="Write CSV to a file, or to -.")
@show.as_json
def closing(day: str | None, merchant: str | None, file: str | None, json_: bool) -> None:
    """The evening closing of DAY (2026-11-20), or of today: each provider's figures and their totals.

    A day is one of the merchant's time zone. What is 0 everywhere is left out of the table, and stands in the CSV.
    """
    if file is not None:
        save(run("closing.csv", day=day, merchant=merchant), file)
        return
    found = run("closing", day=day, merchant=merchant)
    if json_:
        show.dump(found)
        return
    if not found:
        click.echo("Nothing moved on that day.")
    for number, one in enumerate(found):
        if number:
            click.echo()
        mode, state = "live" if one["live"] else "test", "over" if one["closed"] else "not over yet"
        click.echo(
            f"{one['day']} ({one['timezone']}, {state})  {one['merchant']} {show.printable(one['name'])}  {mode}"
        )
        lines: list[dict[str, Any]] = [*one["lines"], *({"provider": "total", **total} for total in one["totals"])]
        places = [(line["provider"], line["currency"]) for line in one["lines"]]
        account = ["account"] if len(set(places)) < len(places) else []  # only where it tells two lines apart
        columns = ["provider", *account, "currency", *show.filled(lines, (*_AMOUNTS, *_COUNTS))]
        show.rows(lines, False, columns, "", _line, right=(*_AMOUNTS, *_COUNTS), whole=("provider", "currency"))


def _line(line: dict[str, Any]) -> dict[str, Any]:
    """A line of the closing, its amounts as numbers of its currency."""
    return {**line, **{name: show.figure(line[name], line["currency"]) for name in _AMOUNTS}}
