"""`caisse events …`"""

from __future__ import annotations

import json

import click

from service.cli import show
from service.cli.run import run


@click.group()
def events() -> None:
    """What merchants were told."""


@events.command("list")
@click.option("--merchant")
@click.option("--type", "type_", help="For example payment.succeeded.")
@click.option("--payment", help="Only those about this payment.")
@show.limited
@show.as_json
def list_(merchant: str | None, type_: str | None, payment: str | None, limit: int, json_: bool) -> None:
    """Events, the newest first."""
    found = run("events.list", merchant=merchant, type=type_, payment=payment, limit=limit)
    columns = ("position", "id", "type", "merchant_id", "payment_id", "sequence", "created_at")
    show.rows(found, json_, columns, "No such event.")


@events.command("show")
@click.argument("event")
@show.as_json
def show_(event: str, json_: bool) -> None:
    """One event, as it was signed, and its deliveries."""
    found = run("events.show", event=event)
    show.fields(found, json_, ("body", "deliveries"))
    if json_:
        return
    click.echo()
    click.echo(show.printable(json.dumps(found["body"], indent=2, ensure_ascii=False), lines=True))
    click.echo()
    columns = ("id", "status", "tries", "http_status", "error", "next_retry_at", "delivered_at")
    show.rows(found["deliveries"], False, columns, "No endpoint wanted it.")
