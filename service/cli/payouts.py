"""`caisse payouts …`"""

from __future__ import annotations

import click

from service.cli import show
from service.cli.hand import named
from service.cli.run import run


@click.group()
def payouts() -> None:
    """Money that is paid out. Amounts are in minor units."""


@payouts.command("list")
@click.option("--status", help="awaiting_approval, queued, in_transit, unknown, paid, failed, returned, canceled, …")
@click.option("--merchant")
@click.option("--beneficiary")
@click.option("--hold")
@click.option("--after", default="", help="The id of the last one of the page before.")
@show.limited
@show.as_json
def list_(
    status: str | None,
    merchant: str | None,
    beneficiary: str | None,
    hold: str | None,
    after: str,
    limit: int,
    json_: bool,
) -> None:
    """Payouts, the newest first."""
    found = run("payouts.list", status=status, merchant=merchant, beneficiary=beneficiary, hold=hold, after=after,
                limit=limit)  # fmt: skip
    columns = ("id", "status", "amount", "currency", "provider", "beneficiary", "hold", "waits_for", "otp_wanted",
               "failure_reason", "created_at", "paid_at")  # fmt: skip
    show.rows(found, json_, columns, "No such payout.")


@payouts.command("show")
@click.argument("payout")
@show.as_json
def show_(payout: str, json_: bool) -> None:
    """One payout."""
    show.fields(run("payouts.show", payout=payout), json_)


@payouts.command()
@click.argument("beneficiary")
@click.option("--amount", type=click.IntRange(min=1), required=True, help="In minor units of their currency.")
@click.option("--from", "source", type=click.Choice(["beneficiary", "merchant"]), default="beneficiary",
              show_default=True, help="Whose balance pays it.")  # fmt: skip
@click.option("--hold", help="Of what this hold has released.")
@click.option("--description", default="")
@click.option("--account", default="", help="The provider account that pays; otherwise the first that can.")
@named()
@show.as_json
def add(
    beneficiary: str,
    amount: int,
    source: str,
    hold: str | None,
    description: str,
    account: str,
    actor: str,
    json_: bool,
) -> None:
    """Pay a beneficiary. Above what the merchant's terms allow a second person approves it."""
    made = run("payouts.add", beneficiary=beneficiary, amount=amount, source=source, hold=hold, description=description,
               account=account, actor=actor)  # fmt: skip
    show.fields(made, json_)


@payouts.command()
@click.argument("payout")
@click.option("--reason", default="", help="Kept in the audit trail.")
@named(required=True)
@show.as_json
def approve(payout: str, reason: str, actor: str, json_: bool) -> None:
    """Let a payout go: you are another than who asked for it."""
    show.fields(run("payouts.approve", payout=payout, reason=reason, actor=actor), json_)


@payouts.command()
@click.argument("payout")
@click.option("--reason", default="", help="Kept in the audit trail.")
@named()
@show.as_json
def cancel(payout: str, reason: str, actor: str, json_: bool) -> None:
    """Call off a payout that was not sent yet."""
    show.fields(run("payouts.cancel", payout=payout, reason=reason, actor=actor), json_)


@payouts.command()
@click.argument("payout")
@named()
@show.as_json
def retry(payout: str, actor: str, json_: bool) -> None:
    """Make one that failed or came back again, as a new payout."""
    show.fields(run("payouts.retry", payout=payout, actor=actor), json_)


@payouts.command()
@click.argument("payout")
@click.argument("outcome", type=click.Choice(["paid", "failed"]))
@click.option("--reason", required=True, help="What you saw at the provider; kept in the audit trail.")
@click.option("--provider-reference", default="", help="The payout's id at the provider.")
@named()
@show.as_json
def decide(payout: str, outcome: str, reason: str, provider_reference: str, actor: str, json_: bool) -> None:
    """End what nobody knows by your own word: you have looked at the provider."""
    decided = run("payouts.decide", payout=payout, outcome=outcome, reason=reason,
                  provider_reference=provider_reference, actor=actor)  # fmt: skip
    show.fields(decided, json_)


@payouts.command()
@click.argument("payout")
@click.argument("code")
@named()
@show.as_json
def otp(payout: str, code: str, actor: str, json_: bool) -> None:
    """Hand in the code that the provider has sent to the owner of the account."""
    show.fields(run("payouts.otp", payout=payout, code=code, actor=actor), json_)
