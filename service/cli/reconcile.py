"""`caisse reconcile`"""

from __future__ import annotations

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
    show.rows(answer["accounts"], False, ("account", "provider", "state", "listed", "unread", "error"), "No account.")
    click.echo("")
    columns = ("id", "kind", "provider_reference", "payment", "currency", "here", "there", "day", "detail")
    show.rows(answer["differences"], False, columns, "Nothing differs.")
    if answer["open"] > len(answer["differences"]):
        click.echo(f"The first {len(answer['differences'])} of {answer['open']}.")
