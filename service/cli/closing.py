"""`caisse closing`"""

from __future__ import annotations

from typing import Any

import click

from service.cli import show
from service.cli.balances import CSV_FILE, save
from service.cli.run import run

_COLUMNS = ("provider", "account", "currency", "received", "fees", "refunded", "net", "paid_out", "returned",
            "expected", "settled", "differences")  # fmt: skip


@click.command()
@click.argument("day", required=False)
@click.option("--merchant", help="Of this merchant alone.")
@click.option("--csv", "file", type=CSV_FILE, help="Write CSV to a file, or to -.")
@show.as_json
def closing(day: str | None, merchant: str | None, file: str | None, json_: bool) -> None:
    """The evening closing of DAY (2026-11-20), or of today: each provider's figures and their totals.

    A day is one of the merchant's time zone. Amounts are in minor units; in CSV they are decimal numbers.
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
        show.rows(lines, False, _COLUMNS, "")
