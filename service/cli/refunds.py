"""`caisse refunds …`"""

from __future__ import annotations

import click

from service.cli import show
from service.cli.hand import named
from service.cli.run import run

_SAYS = "Why; kept in the audit trail."


@click.group()
def refunds() -> None:
    """Money that goes back. Amounts are in minor units."""


@refunds.command("list")
@click.option("--payment", help="Only those of this payment.")
@click.option("--status", help="queued, submitting, unknown, pending, succeeded, failed or canceled.")
@click.option("--merchant")
@show.limited
@show.as_json
def list_(payment: str | None, status: str | None, merchant: str | None, limit: int, json_: bool) -> None:
    """Refunds, the newest first."""
    found = run("refunds.list", payment=payment, status=status, merchant=merchant, limit=limit)
    columns = ("id", "payment", "status", "amount", "currency", "provider", "manual", "origin", "reason",
               "failure_reason", "created_at")  # fmt: skip
    show.rows(found, json_, columns, "No such refund.")


@refunds.command("show")
@click.argument("refund")
@show.as_json
def show_(refund: str, json_: bool) -> None:
    """One refund."""
    show.fields(run("refunds.show", refund=refund), json_)


@refunds.command()
@click.argument("payment")
@click.option("--amount", type=click.IntRange(min=1), help="So much; otherwise all that is left.")
@click.option("--reason", default="", help="Why; the merchant reads it, and the provider where it takes a note.")
@show.as_json
def create(payment: str, amount: int | None, reason: str, json_: bool) -> None:
    """Give money of a payment back."""
    show.fields(run("refunds.create", payment=payment, amount=amount, reason=reason), json_)


@refunds.command()
@click.argument("refund")
@click.option("--reason", required=True, help=_SAYS)
@click.option("--provider-reference", default="", help="The refund's id at the provider.")
@show.as_json
def done(refund: str, reason: str, provider_reference: str, json_: bool) -> None:
    """You have made it at the provider, or have seen it there."""
    show.fields(run("refunds.done", refund=refund, reason=reason, provider_reference=provider_reference), json_)


@refunds.command("give-up")
@click.argument("refund")
@click.option("--reason", required=True, help=_SAYS)
@show.as_json
def give_up(refund: str, reason: str, json_: bool) -> None:
    """It will not be made, or is not there at the provider."""
    show.fields(run("refunds.give-up", refund=refund, reason=reason), json_)


@refunds.command("pay-out")
@click.argument("refund")
@named()
@show.as_json
def pay_out(refund: str, actor: str, json_: bool) -> None:
    """Make it as a payout to the number that paid, where the provider has no refunds. Next: caisse payouts approve."""
    show.fields(run("refunds.pay-out", refund=refund, actor=actor), json_)
