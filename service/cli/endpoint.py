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
@click.option("--per-minute", help="At most so many tries a minute; otherwise as many as it takes.")
@show.as_json
def add(merchant: str, url: str, events: str, schedule: str, per_minute: str | None, json_: bool) -> None:
    """Add an endpoint; its secret is shown this once."""
    made = run("endpoint.add", merchant=merchant, url=url, events=events, schedule=schedule, per_minute=per_minute)
    show.fields(made, json_)


@endpoint.command("list")
@click.option("--merchant", help="Only this merchant's.")
@show.as_json
def list_(merchant: str | None, json_: bool) -> None:
    """Endpoints, without their secrets."""
    columns = ("id", "merchant_id", "url", "events", "status", "circuit", "disabled_reason", "schedule", "created_at")
    nothing = "There is no endpoint yet: caisse endpoint add MERCHANT URL"
    show.rows(run("endpoint.list", merchant=merchant), json_, columns, nothing)


@endpoint.command("show")
@click.argument("endpoint")
@show.as_json
def show_(endpoint: str, json_: bool) -> None:
    """One endpoint: its settings, what it is owed, and how it answers."""
    show.fields(run("endpoint.show", endpoint=endpoint), json_)


@endpoint.command()
@click.argument("endpoint")
@click.option("--url", help="The new address; what is owed goes there too.")
@click.option("--events", help="Event types, comma-separated; * is all but provider.event.")
@click.option("--schedule", help="standard, short, or retries' delays in seconds.")
@click.option("--per-minute", help="At most so many tries a minute; none: as many as it takes.")
@show.as_json
def change(
    endpoint: str, url: str | None, events: str | None, schedule: str | None, per_minute: str | None, json_: bool
) -> None:
    """Change its address, filter, schedule or limit; its secret stays."""
    changed = run(
        "endpoint.change", endpoint=endpoint, url=url, events=events, schedule=schedule, per_minute=per_minute
    )
    show.fields(changed, json_)


@endpoint.command()
@click.argument("endpoint")
@click.option("--reason", default="by hand", show_default=True)
@show.as_json
def disable(endpoint: str, reason: str, json_: bool) -> None:
    """Send nothing more there; what is owed is kept aside."""
    show.fields(run("endpoint.disable", endpoint=endpoint, reason=reason), json_)


@endpoint.command()
@click.argument("endpoint")
@click.option(
    "--send-held/--give-up-held", default=None,
    help="What was kept aside meanwhile: send it, or count it as failed. Neither: a terminal is asked, others send.",
)  # fmt: skip
@show.as_json
def enable(endpoint: str, send_held: bool | None, json_: bool) -> None:
    """Send there again, and with it what was kept aside."""
    if send_held is None:
        send_held = True
        if sys.stdin.isatty() and not json_:
            stands = run("endpoint.show", endpoint=endpoint)
            if stands["status"] == "disabled" and stands["owed"]:
                send_held = click.confirm(f"{stands['owed']:,} webhooks were kept: send them?", default=True)
    show.fields(run("endpoint.enable", progress_of="Enabling", endpoint=endpoint, send_held=send_held), json_)


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
