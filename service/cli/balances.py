"""`caisse balances …`"""

from __future__ import annotations

from typing import Any

import click

from service.cli import show
from service.cli.run import run

CSV_FILE = click.Path(dir_okay=False, allow_dash=True)
_AMOUNTS = ("available", "pending", "paid_out", "reserved", "beneficiaries", "unallocated", "disputed", "at_providers")


class _Balances(click.Group):
    """What is no subcommand is a merchant, so that `caisse balances` alone shows them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Balances)
def balances() -> None:
    """Balances: what can be paid out, what is in escrow, what was paid out this month.

    `caisse balances [MERCHANT]` is `caisse balances list [MERCHANT]`.
    """


@balances.command("list")
@click.argument("merchant", required=False)
@click.option("--beneficiary", help="Of this beneficiary alone.")
@show.limited
@show.as_json
def list_(merchant: str | None, beneficiary: str | None, limit: int, json_: bool) -> None:
    """Balances of merchants, or of one beneficiary. What is 0 for all of them is left out."""
    found = run("balances.list", merchant=merchant, beneficiary=beneficiary, limit=limit)
    columns = ("name", "mode", "currency", "available", *show.filled(found, _AMOUNTS[1:]), "month")
    show.rows(found, json_, columns, "Nothing has been paid yet.", _line, right=_AMOUNTS, whole=columns[1:])


def _line(balance: dict[str, Any]) -> dict[str, Any]:
    """A balance in a list, its amounts as numbers of its currency."""
    amounts = {name: show.figure(balance[name], balance["currency"]) for name in _AMOUNTS if name in balance}
    return {**balance, **amounts, "mode": "live" if balance["live"] else "test"}


@balances.command()
@click.argument("merchant", required=False, default="")
@click.option("--beneficiary", default="", help="Of this beneficiary, not of the merchant.")
@click.option("--from", "first", required=True, help="The first day, such as 2026-11-01.")
@click.option("--to", "last", required=True, help="The last day, which is in it.")
@click.option("--currency", default="", help="Of a merchant that has several.")
@click.option("--live/--test", default=None, help="A merchant's mode; otherwise the installation's.")
@click.option("--lang", "language", type=click.Choice(["en", "fr"]), default="en", show_default=True)
@click.option("--csv", "file", type=CSV_FILE, default="-", show_default=True, help="Where to write it; - is here.")
def statement(
    merchant: str,
    beneficiary: str,
    first: str,
    last: str,
    currency: str,
    live: bool | None,
    language: str,
    file: str,
) -> None:
    """What came into a balance and went out of it, day by day, as CSV."""
    text = run(
        "balances.statement",
        first=first,
        last=last,
        merchant=merchant,
        beneficiary=beneficiary,
        currency=currency,
        live=live,
        language=language,
    )
    save(text, file)


def save(text: str, file: str) -> None:
    """Write CSV as it is, line ends and all, to a file or (-) to stdout."""
    with click.open_file(file, "wb") as out:
        out.write(text.encode())
