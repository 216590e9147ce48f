"""`caisse merchant …`"""

from __future__ import annotations

import click

from service.cli import show
from service.cli.run import run


@click.group()
def merchant() -> None:
    """Whom payments belong to and events are told."""


@merchant.command()
@click.argument("name")
@click.option("--webhook-url", help="Where events are sent.")
@click.option(
    "--events", default="*", show_default=True, help="Event types, comma-separated; * is all but provider.event."
)
@show.as_json
def create(name: str, webhook_url: str | None, events: str, json_: bool) -> None:
    """Create a merchant; its API key and webhook secret are shown this once."""
    made = run("merchant.create", name=name, webhook_url=webhook_url, events=events)
    if json_:
        show.dump(made)
        return
    click.echo(f"merchant         {made['id']}")
    click.echo(f"API key          {made['api_key']}")
    if made["endpoint"]:
        click.echo(f"endpoint         {made['endpoint']['id']}  {made['endpoint']['url']}")
        click.echo(f"webhook secret   {made['endpoint']['secret']}")
    else:
        click.echo(f"No endpoint yet: caisse endpoint add {made['id']} URL")
    click.echo("Keep the key and the secret now; they are not shown again.")


@merchant.command("list")
@show.as_json
def list_(json_: bool) -> None:
    """All merchants."""
    nothing = "There is no merchant yet: caisse merchant create NAME --webhook-url URL"
    show.rows(run("merchant.list"), json_, ("id", "name", "status", "endpoints", "created_at"), nothing)


@merchant.command()
@click.argument("merchant")
@click.option("--reason", default="", help="Kept in the audit trail.")
@show.as_json
def disable(merchant: str, reason: str, json_: bool) -> None:
    """Refuse its keys and keep its webhooks aside; callbacks about its payments are still taken."""
    show.fields(run("merchant.disable", merchant=merchant, reason=reason), json_)
