"""`caisse deliveries …`"""

from __future__ import annotations

import click

from service.cli import show
from service.cli.run import run


@click.group()
def deliveries() -> None:
    """Webhooks on their way to endpoints."""


@deliveries.command("list")
@click.option("--endpoint", help="Only to this endpoint.")
@click.option("--status", help="pending, processing, held, succeeded or failed.")
@click.option("--event", help="Only of this event.")
@show.limited
@show.as_json
def list_(endpoint: str | None, status: str | None, event: str | None, limit: int, json_: bool) -> None:
    """Deliveries, the newest first."""
    found = run("deliveries.list", endpoint=endpoint, status=status, event=event, limit=limit)
    columns = ("id", "status", "tries", "http_status", "error", "last_try_at", "next_retry_at", "delivered_at")
    show.rows(found, json_, columns, "No such delivery.")


@deliveries.command("show")
@click.argument("delivery")
@show.as_json
def show_(delivery: str, json_: bool) -> None:
    """One delivery, try by try."""
    found = run("deliveries.show", delivery=delivery)
    show.fields(found, json_, ("tried",))
    if not json_:
        click.echo()
        columns = ("number", "started_at", "duration_ms", "http_status", "error", "answer")
        show.rows(found["tried"], False, columns, "It was not tried yet.")


@deliveries.command()
@click.argument("delivery")
@click.option("--reason", default="", help="Kept in the audit trail.")
@show.as_json
def retry(delivery: str, reason: str, json_: bool) -> None:
    """Deliver the same event to the same endpoint once more, as a new delivery."""
    show.fields(run("deliveries.retry", delivery=delivery, reason=reason), json_)
