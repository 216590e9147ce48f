"""`caisse reconcile`"""

from __future__ import annotations

from typing import Any

import click

from service.cli import show
from service.cli.run import run


@click.command()
@click.option("--account", metavar="ID", help="Only this account (`caisse account list`).")
@click.option("--days", type=click.IntRange(1, 90), default=3, show_default=True, help="How far back.")
@show.as_json
def reconcile(account: str | None, days: int, json_: bool) -> None:
    """Compare what providers list with what is known here, and show what differs.

    Nothing is adopted or changed by it. Payments of ours that differ are asked about, and what heals closes by itself.
    The service does the same every night at five, and tells merchants then. Only providers that list payments (stripe,
    paystack, fedapay) are looked at; the last hour is left out.
    """
    answer = run("reconcile", progress_of="Listing", account=account, days=days)
    if json_:
        show.dump(answer)
        return
    columns: tuple[str, ...] = ("account", "provider", "state", "listed", "unread", "error")
    show.rows(answer["accounts"], False, columns, "No account.", right=("listed", "unread"), whole=("account",))
    click.echo("")
    columns = ("id", "kind", "provider_reference", "here", "there", "day")
    show.rows(answer["differences"], False, columns, "Nothing differs.", _line, right=("here", "there"), whole=("day",))
    if answer["open"] > len(answer["differences"]):
        click.echo(f"The first {len(answer['differences'])} of {answer['open']}.")


def _line(difference: dict[str, Any]) -> dict[str, Any]:
    """A difference in a list, its two amounts as money; which payment of ours it is stands in the JSON."""
    currency = difference["currency"]
    minor = {name: difference[name] for name in ("here", "there")}
    return {**difference, **{name: show.money(it, currency) if it is not None else "" for name, it in minor.items()}}
