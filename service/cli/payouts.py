"""`caisse payouts …`"""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from service.cli import show
from service.cli.hand import named
from service.cli.run import run, settings
from service.escrow.states import Payout

_AMOUNTS = ("amount", "fee")


@click.group()
def payouts() -> None:
    """Money that is paid out."""


@payouts.command("list")
@click.option("--status", type=click.Choice([state.value for state in Payout]))
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
    columns = ("id", "status", "amount", "seller", "waits_for_or_why", "when")
    line = partial(_line, settings().timezone)
    show.rows(found, json_, columns, "No such payout.", line, right=("amount",), whole=("when",))


def _line(zone: str, payout: dict[str, Any]) -> dict[str, str]:
    """A payout in a list: what it waits for or why it failed, and when it was paid, or else asked for."""
    waits_for = "a code" if payout["otp_wanted"] else payout["waits_for"]
    return {
        "id": payout["id"],
        "status": payout["status"].replace("_", " "),  # so that it may be broken
        "amount": show.money(payout["amount"], payout["currency"]),
        "seller": payout["seller"],
        "waits_for_or_why": waits_for or (payout["failure_reason"] or "").replace("_", " "),
        "when": show.when(payout["paid_at"] or payout["created_at"], zone),
    }


@payouts.command("show")
@click.argument("payout")
@show.as_json
def show_(payout: str, json_: bool) -> None:
    """One payout."""
    show.fields(run("payouts.show", payout=payout), json_, amounts=_AMOUNTS)


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
    show.fields(made, json_, amounts=_AMOUNTS)


@payouts.command()
@click.argument("payout")
@click.option("--reason", default="", help="Kept in the audit trail.")
@named(required=True)
@show.as_json
def approve(payout: str, reason: str, actor: str, json_: bool) -> None:
    """Let a payout go: you are another than who asked for it."""
    show.fields(run("payouts.approve", payout=payout, reason=reason, actor=actor), json_, amounts=_AMOUNTS)


@payouts.command()
@click.argument("payout")
@click.option("--reason", default="", help="Kept in the audit trail.")
@named()
@show.as_json
def cancel(payout: str, reason: str, actor: str, json_: bool) -> None:
    """Call off a payout that was not sent yet."""
    show.fields(run("payouts.cancel", payout=payout, reason=reason, actor=actor), json_, amounts=_AMOUNTS)


@payouts.command()
@click.argument("payout")
@named()
@show.as_json
def retry(payout: str, actor: str, json_: bool) -> None:
    """Make one that failed or came back again, as a new payout."""
    show.fields(run("payouts.retry", payout=payout, actor=actor), json_, amounts=_AMOUNTS)


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
    show.fields(decided, json_, amounts=_AMOUNTS)


@payouts.command()
@click.argument("payout")
@click.argument("code")
@named()
@show.as_json
def otp(payout: str, code: str, actor: str, json_: bool) -> None:
    """Hand in the code that the provider has sent to the owner of the account."""
    show.fields(run("payouts.otp", payout=payout, code=code, actor=actor), json_, amounts=_AMOUNTS)
