"""`caisse holds …`"""

from __future__ import annotations

import click

from service.cli import show
from service.cli.hand import named
from service.cli.run import run

_SAYS = "Why; kept in the audit trail."


@click.group()
def holds() -> None:
    """Money of paid orders that is held for a seller. Amounts are in minor units."""


@holds.command("list")
@click.option("--status", help="held, release_scheduled, frozen, released or refunded.")
@click.option("--merchant")
@click.option("--beneficiary")
@click.option("--order")
@click.option("--after", default="", help="The id of the last one of the page before.")
@show.limited
@show.as_json
def list_(
    status: str | None,
    merchant: str | None,
    beneficiary: str | None,
    order: str | None,
    after: str,
    limit: int,
    json_: bool,
) -> None:
    """Holds, the newest first."""
    found = run("holds.list", status=status, merchant=merchant, beneficiary=beneficiary, order=order, after=after,
                limit=limit)  # fmt: skip
    columns = ("id", "status", "held", "releasable", "released", "refunded", "frozen", "currency", "against", "order",
               "beneficiary", "release_at")  # fmt: skip
    show.rows(found, json_, columns, "No such hold.")


@holds.command("show")
@click.argument("hold")
@show.as_json
def show_(hold: str, json_: bool) -> None:
    """One hold."""
    show.fields(run("holds.show", hold=hold), json_)


@holds.command()
@click.argument("hold")
@click.option("--reason", required=True, help=_SAYS)
@named()
@show.as_json
def release(hold: str, reason: str, actor: str, json_: bool) -> None:
    """Give what is held to the beneficiary, before the clock or the buyer does."""
    show.fields(run("holds.release", hold=hold, reason=reason, actor=actor), json_)


@holds.command()
@click.argument("hold")
@click.option("--reason", required=True, help=_SAYS)
@named()
@show.as_json
def unfreeze(hold: str, reason: str, actor: str, json_: bool) -> None:
    """Set aside what stands against a hold; it goes on where it was."""
    show.fields(run("holds.unfreeze", hold=hold, reason=reason, actor=actor), json_)


@holds.command("buyer-link")
@click.argument("hold")
@named()
@show.as_json
def buyer_link(hold: str, actor: str, json_: bool) -> None:
    """Make the token with which the buyer confirms or objects; it is shown this once, and is the buyer's alone."""
    show.fields(run("holds.buyer-link", hold=hold, actor=actor), json_)
