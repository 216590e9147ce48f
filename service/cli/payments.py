"""`caisse payments …`"""

from __future__ import annotations

import click

from service.cli import show
from service.cli.run import run


@click.group()
def payments() -> None:
    """Payments."""


@payments.command("list")
@click.option("--status")
@click.option("--provider")
@click.option("--merchant")
@click.option("--reference", help="The merchant's reference, or the provider's.")
@show.limited
@show.as_json
def list_(
    status: str | None, provider: str | None, merchant: str | None, reference: str | None, limit: int, json_: bool
) -> None:
    """Payments, the newest first. Amounts are in minor units."""
    found = run("payments.list", status=status, provider=provider, merchant=merchant, reference=reference, limit=limit)
    columns = ("id", "status", "exceptions", "amount", "currency", "provider", "provider_reference", "reference",
               "created_at")  # fmt: skip
    show.rows(found, json_, columns, "No such payment.")


@payments.command("show")
@click.argument("payment")
@show.as_json
def show_(payment: str, json_: bool) -> None:
    """One payment, and what happened in order of time."""
    found = run("payments.show", payment=payment)
    show.fields(found, json_, ("attempts", "facts", "timeline", "attention", "refunds"))
    if json_:
        return
    click.echo()
    show.rows(found["attempts"], False, ("id", "state", "amount_minor", "currency", "provider", "account_id"), "")
    if found["refunds"]:
        click.echo()
        columns = ("id", "status", "amount", "currency", "manual", "origin", "provider_reference", "created_at")
        show.rows(found["refunds"], False, columns, "")
    click.echo()
    for moment in found["timeline"]:
        click.echo(f"{moment['at']}  {moment['what']:<10} {show.printable(moment['text'])}")


@payments.command()
@click.argument("payment")
@show.as_json
def explain(payment: str, json_: bool) -> None:
    """Why it went where it went: every rule, every provider, every attempt."""
    found = run("payments.explain", payment=payment)
    if json_:
        show.dump(found)
        return
    for sentence in found["sentences"]:
        click.echo(show.printable(sentence))


@payments.command()
@click.argument("payment")
@show.as_json
def sync(payment: str, json_: bool) -> None:
    """Ask the provider about it now, at most once in ten seconds."""
    show.fields(run("payments.sync", payment=payment), json_)


@payments.command()
@click.argument("payment")
@click.argument("what", type=click.Choice(["succeeded", "failed", "canceled", "not_sent"]))
@click.option("--reason", required=True, help="What you saw at the provider; kept in the audit trail.")
@show.as_json
def decide(payment: str, what: str, reason: str, json_: bool) -> None:
    """End what nobody knows by your own word: you have looked at the provider."""
    show.fields(run("payments.decide", payment=payment, what=what, reason=reason), json_)
