"""`caisse attention …`"""

from __future__ import annotations

import click

from service.cli import show
from service.cli.run import run


@click.group()
def attention() -> None:
    """What needs a person: one list."""


@attention.command("list")
@click.option("--reason", help="Only these, such as late, refund_failed or delivery_dead.")
@click.option("--merchant")
@click.option("--before", help="The `cursor` (see --json) of the last one of the page before.")
@click.option("--lang", type=click.Choice(["en", "fr"]), default="en", show_default=True)
@show.limited
@show.as_json
def list_(reason: str | None, merchant: str | None, before: str | None, lang: str, limit: int, json_: bool) -> None:
    """What is open, the newest first, with what can be done about it."""
    found = run("attention.list", reason=reason, merchant=merchant, before=before, limit=limit, lang=lang)
    columns = ("id", "reason", "payment", "since", "actions", "words")
    show.rows(found, json_, columns, "Nothing needs a person.")


@attention.command()
@click.argument("item")
@click.argument("action", type=click.Choice(["revive", "refund", "attach", "ignore"]))
@click.option("--reason", required=True, help="Why; kept in the audit trail.")
@click.option("--order", help="The order that the money is for (attach).")
@click.option("--amount", type=click.IntRange(min=1), help="So much goes back, in minor units (refund).")
@show.as_json
def act(item: str, action: str, reason: str, order: str | None, amount: int | None, json_: bool) -> None:
    """Do something about one of them; it is closed by it.

    revive: take the money for the order, or run it again. refund: give back what is too much, or all. attach: the money
    is for this order. ignore: nothing has to be done.
    """
    done = run("attention.act", item=item, action=action, reason=reason, order=order, amount=amount)
    show.fields(done, json_)
