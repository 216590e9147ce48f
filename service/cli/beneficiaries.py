"""`caisse beneficiaries …`"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from service.cli import show
from service.cli.hand import named
from service.cli.run import run, settings

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def beneficiaries() -> None:
    """Whom money is held for and paid out to."""


def _payee(command: F) -> F:
    """The options that say where money is to go; the command's arguments have their names."""
    for option in (
        click.option("--bank-code", default="", help="The provider's own code of the bank."),
        click.option("--operator", default="", help="Of a wallet, such as mtn, orange or wave."),
        click.option("--country", default="", help="Two letters, such as CI."),
        click.option("--name", default="", help="Whose wallet or account it is."),
        click.option("--number", required=True, help="Of the wallet, of the bank account, or acct_… at the provider."),
        click.option("--kind", type=click.Choice(["mobile_money", "bank", "account"]), default="mobile_money",
                     show_default=True),
    ):  # fmt: skip
        command = option(command)
    return command


@beneficiaries.command("list")
@click.option("--merchant")
@click.option("--reference")
@click.option("--after", default="", help="The id of the last one of the page before.")
@show.limited
@show.as_json
def list_(merchant: str | None, reference: str | None, after: str, limit: int, json_: bool) -> None:
    """Beneficiaries, the newest first."""
    found = run("beneficiaries.list", merchant=merchant, reference=reference, after=after, limit=limit)
    columns = ("id", "reference", "name", "currency", "paid_to", "number", "active")
    nothing = "There is no beneficiary yet: caisse beneficiaries add MERCHANT"
    show.rows(found, json_, columns, nothing, _line, whole=("currency", "number"))


def _line(beneficiary: dict[str, Any]) -> dict[str, Any]:
    """A beneficiary in a list, with the last digits of where they are paid."""
    to = beneficiary["payee"]
    paid_to = to["operator"] or to["bank_code"] or to["kind"]
    return {**beneficiary, "name": to["name"], "paid_to": paid_to, "number": to["number"]}


@beneficiaries.command("show")
@click.argument("beneficiary")
@show.as_json
def show_(beneficiary: str, json_: bool) -> None:
    """One beneficiary, and where the money goes."""
    _show(run("beneficiaries.show", beneficiary=beneficiary), json_)


@beneficiaries.command()
@click.argument("merchant")
@click.option("--currency", required=True, help="In which they are paid, such as XOF.")
@click.option("--reference", default="", help="Yours; no two have the same.")
@click.option("--account", default="", help="The provider account that pays them; otherwise the first that can.")
@_payee
@named()
@show.as_json
def add(merchant: str, currency: str, reference: str, account: str, actor: str, json_: bool, **to: str) -> None:
    """Add a beneficiary; they can be paid at once."""
    made = run("beneficiaries.add", merchant=merchant, currency=currency, to=to, reference=reference, account=account,
               actor=actor)  # fmt: skip
    _show(made, json_)


@beneficiaries.command("pay-to")
@click.argument("beneficiary")
@_payee
@named()
@show.as_json
def pay_to(beneficiary: str, actor: str, json_: bool, **to: str) -> None:
    """Pay them somewhere else: after 24 hours, or once a second person approves it."""
    changed = run("beneficiaries.pay-to", beneficiary=beneficiary, to=to, actor=actor)
    _show(changed, json_)
    if not json_:
        approve = f"caisse beneficiaries approve {beneficiary} {changed['payee']['id']}"
        click.echo(f"A second person makes it count at once: {approve}", err=True)


@beneficiaries.command()
@click.argument("beneficiary")
@click.argument("payee")
@click.option("--reason", required=True, help="How you made sure that it is theirs.")
@named(required=True)
@show.as_json
def approve(beneficiary: str, payee: str, reason: str, actor: str, json_: bool) -> None:
    """Let where they are paid now count at once: you are another than who changed it.

    PAYEE (pye_…) is the one that you looked at, as `show` names it; if it was changed again since, it is refused.
    """
    approved = run("beneficiaries.approve", beneficiary=beneficiary, payee=payee, reason=reason, actor=actor)
    _show(approved, json_)


@beneficiaries.command()
@click.argument("beneficiary")
@named()
@show.as_json
def disable(beneficiary: str, actor: str, json_: bool) -> None:
    """Pay them nothing more, and hold nothing more for them."""
    _show(run("beneficiaries.change", beneficiary=beneficiary, active=False, actor=actor), json_)


@beneficiaries.command()
@click.argument("beneficiary")
@named()
@show.as_json
def enable(beneficiary: str, actor: str, json_: bool) -> None:
    """Pay them again."""
    _show(run("beneficiaries.change", beneficiary=beneficiary, active=True, actor=actor), json_)


@beneficiaries.command()
@click.argument("beneficiary")
@named()
@show.as_json
def link(beneficiary: str, actor: str, json_: bool) -> None:
    """Make a new address of their read-only page; it is shown this once, and the one before opens nothing any more."""
    show.fields(run("beneficiaries.link", beneficiary=beneficiary, actor=actor), json_)


def _show(answer: dict[str, Any], json_: bool) -> None:
    if json_:
        show.dump(answer)
        return
    to = {f"paid to {name}": value for name, value in answer["payee"].items() if name not in ("id", "usable_at")}
    flat = {name: value for name, value in answer.items() if name != "payee"}
    since = show.when(answer["payee"]["usable_at"], settings().timezone)
    show.fields({**flat, "payee": answer["payee"]["id"], **to, "can be paid since": since}, False)
