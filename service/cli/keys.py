"""`caisse keys …`"""

from __future__ import annotations

import click

from service.cli import show
from service.cli.run import run


@click.group()
def keys() -> None:
    """API keys, and the master keys that seal stored secrets."""


@keys.command()
@click.argument("merchant")
@click.option("--name", default="", help="To tell keys apart.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help="What it may do, for example events:read for the feed /v1/events; everything unless given.",
)
@show.as_json
def create(merchant: str, name: str, scopes: tuple[str, ...], json_: bool) -> None:
    """Make an API key; it is shown this once."""
    show.fields(run("keys.create", merchant=merchant, name=name, scopes=list(scopes) or ["*"]), json_)


@keys.command("list")
@click.option("--merchant", help="Only this merchant's.")
@show.as_json
def list_(merchant: str | None, json_: bool) -> None:
    """API keys by their last letters."""
    columns = ("id", "merchant_id", "name", "hint", "scopes", "created_at", "revoked_at")
    show.rows(run("keys.list", merchant=merchant), json_, columns, "There is no key yet: caisse keys create MERCHANT")


@keys.command()
@click.argument("key")
@click.option("--reason", default="", help="Kept in the audit trail.")
@show.as_json
def revoke(key: str, reason: str, json_: bool) -> None:
    """Refuse an API key (by its id, key_…) from now on."""
    show.fields(run("keys.revoke", key=key, reason=reason), json_)


@keys.command("rotate-master")
@show.as_json
def rotate_master(json_: bool) -> None:
    """Seal every stored secret again with the newest master key; may be stopped and run again."""
    show.fields(run("keys.rotate-master", progress_of="Sealing again"), json_)
