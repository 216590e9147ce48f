"""`caisse escrow …`"""

from __future__ import annotations

import sys
from typing import Any

import click

from service.cli import show
from service.cli.run import run


@click.group()
def escrow() -> None:
    """Delayed payout: the money of a paid order is held for a seller until the buyer has what was bought."""


@escrow.command("show")
@click.argument("merchant")
@show.as_json
def show_(merchant: str, json_: bool) -> None:
    """A merchant's terms."""
    show.fields(run("escrow.show", merchant=merchant), json_)


def _above(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    for one in given:
        currency, there, amount = one.partition("=")
        if not there or not (amount == "none" or (amount.isascii() and amount.isdigit() and len(amount) < 20)):
            raise click.BadParameter("it looks like XOF=100000, or XOF=none", ctx, param)
        found[currency.upper()] = None if amount == "none" else int(amount)
    return found


@escrow.command("set")
@click.argument("merchant")
@click.option("--on/--off", "enabled", default=None, help="Hold money from now on, or none any more.")
@click.option("--hours", "release_hours", type=int, help="So long after a recorded delivery it is released by itself.")
@click.option("--undelivered-days", type=int, help="So long after it was paid a person looks at what never came.")
@click.option(
    "--approve-above", multiple=True, metavar="XOF=100000", callback=_above,
    help="A person approves each payout of more, in minor units; none: each one. Repeat it for other currencies.",
)  # fmt: skip
@click.option("--timezone", help="Of months, such as Africa/Abidjan; empty: the installation's.")
@click.option(
    "--payout-on-release/--no-payout-on-release", "payout_on_release", default=None,
    help="Whether what is released goes on its way by itself.",
)  # fmt: skip
@click.option("--understood", is_flag=True, help="With --on: you have read the notice; nobody is asked.")
@show.as_json
def set_(
    merchant: str,
    approve_above: dict[str, int | None],
    timezone: str | None,
    understood: bool,
    json_: bool,
    **given: Any,
) -> None:
    """Change a merchant's terms; what is not given stays. Before it is switched on a notice has to be understood."""
    fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if approve_above:
        fields["approve_above"] = approve_above
    if timezone is not None:
        fields["timezone"] = timezone or None
    on = given["enabled"] is True
    if on:
        _tell(merchant, understood, asks=not json_ and _is_person())
    changed = run("escrow.set", merchant=merchant, fields=fields, understood=on)
    show.fields(changed, json_, ("notice",))


def _tell(merchant: str, understood: bool, *, asks: bool) -> None:
    """The notice, before anything is switched on; who has not understood it by option is asked, or refused."""
    now = run("escrow.show", merchant=merchant)
    click.echo(now["notice"], err=True)
    if understood or now["enabled"]:
        return
    if not asks:
        raise click.UsageError("Read the notice above; then switch it on with --on --understood.")
    click.confirm("You have understood this, and switch it on?", abort=True, err=True)


def _is_person() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()
