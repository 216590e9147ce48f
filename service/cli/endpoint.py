"""`caisse endpoint …`"""

from __future__ import annotations

import sys

import click

from service.cli import show
from service.cli.run import run


@click.group()
def endpoint() -> None:
    """Where a merchant wants webhooks."""


@endpoint.command()
@click.argument("merchant")
@click.argument("url")
@click.option(
    "--events", default="*", show_default=True, help="Event types, comma-separated; * is all but provider.event."
)
@click.option(
    "--schedule", default="standard", show_default=True, help="standard, short, or retries' delays in seconds."
)
@show.as_json
def add(merchant: str, url: str, events: str, schedule: str, json_: bool) -> None:
    """Add an endpoint; its secret is shown this once."""
    show.fields(run("endpoint.add", merchant=merchant, url=url, events=events, schedule=schedule), json_)


@endpoint.command("list")
@click.option("--merchant", help="Only this merchant's.")
@show.as_json
def list_(merchant: str | None, json_: bool) -> None:
    """Endpoints, without their secrets."""
    columns = ("id", "merchant_id", "url", "events", "status", "disabled_reason", "schedule", "created_at")
    nothing = "There is no endpoint yet: caisse endpoint add MERCHANT URL"
    show.rows(run("endpoint.list", merchant=merchant), json_, columns, nothing)


@endpoint.command()
@click.argument("endpoint")
@click.option("--reason", default="by hand", show_default=True)
@show.as_json
def disable(endpoint: str, reason: str, json_: bool) -> None:
    """Send nothing more there; what is owed is kept aside."""
    show.fields(run("endpoint.disable", endpoint=endpoint, reason=reason), json_)


@endpoint.command()
@click.argument("endpoint")
@click.option("--send-held", is_flag=True, help="Also send what was kept aside meanwhile.")
@show.as_json
def enable(endpoint: str, send_held: bool, json_: bool) -> None:
    """Send there again."""
    show.fields(run("endpoint.enable", endpoint=endpoint, send_held=send_held), json_)


@endpoint.command("rotate-secret")
@click.argument("endpoint")
@click.option(
    "--overlap-hours", type=click.FloatRange(0, 720), default=24, show_default=True,
    help="How long the old secret signs too; 0 when it leaked.",
)  # fmt: skip
@show.as_json
def rotate_secret(endpoint: str, overlap_hours: float, json_: bool) -> None:
    """Make a new secret; it is shown this once."""
    show.fields(run("endpoint.rotate-secret", endpoint=endpoint, overlap_hours=overlap_hours), json_)


@endpoint.command()
@click.argument("endpoint")
@show.as_json
def test(endpoint: str, json_: bool) -> None:
    """Send an endpoint.test event and show what came of it. Exit status 1 when it was not taken."""
    made = run("endpoint.test", endpoint=endpoint)
    show.fields(made, json_, ("reason", "next_retry_at"))
    if made["last_try_at"] is None:
        click.echo("It is sent as soon as the service runs: caisse serve", err=True)
    if made["status"] != "succeeded":
        sys.exit(1)
