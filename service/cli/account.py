"""`caisse account …`"""

from __future__ import annotations

import sys

import click

from service.cli import show
from service.cli.run import run


@click.group()
def account() -> None:
    """Accounts at providers, beside the default ones that the settings make."""


@account.command()
@click.argument("merchant")
@click.argument("provider")
@click.option(
    "--set", "given", multiple=True, metavar="NAME=VALUE",
    help="A credential; NAME=- reads it from standard input, NAME alone asks for it unseen.",
)  # fmt: skip
@click.option("--live/--test", "live", default=None, help="Real or test money; as the mode says unless given.")
@click.option("--name", default="", help="To tell accounts apart.")
@click.option("--base-url", help="Another address of the provider's API.")
@show.as_json
def add(
    merchant: str,
    provider: str,
    given: tuple[str, ...],
    live: bool | None,
    name: str,
    base_url: str | None,
    json_: bool,
) -> None:
    """Store a merchant's own account; prints the callback address to paste at the provider."""
    credentials: dict[str, list[str]] = {}
    for item in given:
        credential, value = _value(item)
        credentials.setdefault(credential, []).append(value)
    made = run(
        "account.add",
        merchant=merchant,
        provider=provider,
        credentials=credentials,
        live=live,
        name=name,
        base_url=base_url,
    )
    if json_:
        show.dump(made)
        return
    click.echo(f"account   {made['id']}  ({'live' if made['live'] else 'test'} money)")
    click.echo(f"paste     {made['address']}")
    if made["paste"]:
        click.echo(f"where     {made['paste']}")


@account.command("list")
@show.as_json
def list_(json_: bool) -> None:
    """All accounts and what each is missing; never a secret."""
    columns = ("id", "provider", "name", "merchant_id", "live", "status", "missing", "address")
    show.rows(run("account.list"), json_, columns, "No provider is configured: caisse init, or set its keys.")


@account.command()
@click.argument("account")
@click.argument("credential")
@click.option("--value", help="The new secret; asked for unseen when it is not given, `-` reads standard input.")
@click.option(
    "--drop-old", is_flag=True, help="Forget the older ones: callbacks signed with them are refused from now on."
)
@show.as_json
def rotate(account: str, credential: str, value: str | None, drop_old: bool, json_: bool) -> None:
    """Put a new secret first; the old ones still verify callbacks until --drop-old."""
    _, secret = _value(credential if value is None else f"{credential}={value}")
    made = run("account.rotate", account=account, credential=credential, value=secret, drop_old=drop_old)
    show.fields(made, json_)


def _value(item: str) -> tuple[str, str]:
    name, given, value = item.partition("=")
    if not given:
        value = click.prompt(name, hide_input=True)
    elif value == "-":
        value = sys.stdin.readline()
    if not name or not value.strip():
        raise click.BadParameter("write NAME=VALUE", param_hint="--set")
    return name.strip(), value.strip()
