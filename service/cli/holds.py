"""`caisse holds …`"""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from service.cli import show
from service.cli.hand import named
from service.cli.run import run, settings
from service.escrow.states import Hold

_SAYS = "Why; kept in the audit trail."
_AMOUNTS = ("held", "releasable", "released", "refunded", "frozen", "taken_back")


@click.group()
def holds() -> None:
    """Money of paid orders that is held for a seller."""


@holds.command("list")
@click.option("--status", type=click.Choice([state.value for state in Hold]))
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
    columns = ("id", "status", "amount_held", "seller", "why_or_when")
    line = partial(_line, settings().timezone)
    show.rows(found, json_, columns, "No such hold.", line, right=("amount_held",), whole=("status",))


def _line(zone: str, hold: dict[str, Any]) -> dict[str, str]:
    """A hold in a list: what stands against it, when it is released by itself, or since when it is what it is."""
    scheduled = hold["status"] == Hold.RELEASE_SCHEDULED
    at = f"due {show.when(hold['release_at'], zone)}" if scheduled else show.when(hold["updated_at"], zone)
    return {
        "id": hold["id"],
        "status": hold["status"],
        "amount_held": show.money(hold["held"], hold["currency"]),
        "seller": hold["seller"],
        "why_or_when": ", ".join(hold["against"]).replace("_", " ") or at,
    }


@holds.command("show")
@click.argument("hold")
@show.as_json
def show_(hold: str, json_: bool) -> None:
    """One hold."""
    show.fields(run("holds.show", hold=hold), json_, amounts=_AMOUNTS)


@holds.command()
@click.argument("hold")
@click.option("--reason", required=True, help=_SAYS)
@named()
@show.as_json
def release(hold: str, reason: str, actor: str, json_: bool) -> None:
    """Give what is held to the beneficiary, before the clock or the buyer does."""
    show.fields(run("holds.release", hold=hold, reason=reason, actor=actor), json_, amounts=_AMOUNTS)


@holds.command()
@click.argument("hold")
@click.option("--reason", required=True, help=_SAYS)
@named()
@show.as_json
def unfreeze(hold: str, reason: str, actor: str, json_: bool) -> None:
    """Set aside what stands against a hold; it goes on where it was."""
    show.fields(run("holds.unfreeze", hold=hold, reason=reason, actor=actor), json_, amounts=_AMOUNTS)


@holds.command("buyer-link")
@click.argument("hold")
@named()
@show.as_json
def buyer_link(hold: str, actor: str, json_: bool) -> None:
    """Make the token with which the buyer confirms or objects; it is shown this once, and is the buyer's alone."""
    show.fields(run("holds.buyer-link", hold=hold, actor=actor), json_)
