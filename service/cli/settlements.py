"""`caisse settlements …`"""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from service.cli import show
from service.cli.run import run, settings


@click.group()
def settlements() -> None:
    """What providers have sent to your bank. Options take amounts in minor units."""


@settlements.command()
@click.argument("account")
@click.option("--amount", type=int, required=True, help="What came to your bank; below 0: what you sent to the float.")
@click.option("--currency", required=True, help="ISO 4217, such as XOF.")
@click.option("--reference", required=True, help="The provider's or the bank's; recorded once.")
@click.option("--fee", type=int, default=0, show_default=True, help="What the provider kept besides.")
@click.option("--settled-at", default="", help="When it moved, such as 2026-11-20; otherwise now.")
@click.option("--note", default="")
@show.as_json
def add(
    account: str, amount: int, currency: str, reference: str, fee: int, settled_at: str, note: str, json_: bool
) -> None:
    """Record a settlement of the provider account ACCOUNT; the same again changes nothing."""
    made = run(
        "settlements.add", account=account, amount=amount, currency=currency, reference=reference, fee=fee,
        settled_at=settled_at, note=note,
    )  # fmt: skip
    show.fields(made, json_, amounts=("amount", "fee"))


@settlements.command("list")
@click.option("--account", help="Only those of this provider account.")
@click.option("--merchant")
@click.option("--after", default="", help="The last id of the page before.")
@show.limited
@show.as_json
def list_(account: str | None, merchant: str | None, after: str, limit: int, json_: bool) -> None:
    """Settlements, the newest first."""
    found = run("settlements.list", account=account, merchant=merchant, after=after, limit=limit)
    columns = ("id", "amount", "fee", "reference", "settled", "note")
    nothing = "No settlement was recorded: caisse settlements add ACCOUNT …"
    line = partial(_line, settings().timezone)
    show.rows(found, json_, columns, nothing, line, right=("amount", "fee"), whole=("settled",))


def _line(zone: str, one: dict[str, Any]) -> dict[str, str]:
    """A settlement in a list; its account is in the JSON."""
    amounts = {name: show.money(one[name], one["currency"]) for name in ("amount", "fee")}
    return {**one, **amounts, "settled": show.when(one["settled_at"], zone)}
