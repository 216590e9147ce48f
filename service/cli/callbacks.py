"""`caisse callbacks …`"""

from __future__ import annotations

import json

import click

from service.cli import show
from service.cli.run import run


@click.group()
def callbacks() -> None:
    """What providers sent: kept, parked, deferred, dead, quarantined."""


@callbacks.command("list")
@click.option("--status", help="received, processed, ignored, parked, deferred, dead or quarantined.")
@click.option("--provider")
@click.option("--payment", help="Only those about this payment.")
@show.limited
@show.as_json
def list_(status: str | None, provider: str | None, payment: str | None, limit: int, json_: bool) -> None:
    """Callbacks, the newest first."""
    found = run("callbacks.list", status=status, provider=provider, payment=payment, limit=limit)
    kept = ("id", "provider", "kind", "status", "reason", "seen_count", "payment_id", "received_at")
    aside = ("id", "provider", "account_id", "status", "reason", "received_at")
    show.rows(found, json_, aside if status == "quarantined" else kept, "No such callback.")


@callbacks.command("show")
@click.argument("callback")
@show.as_json
def show_(callback: str, json_: bool) -> None:
    """One callback with its body. It may hold personal data."""
    found = run("callbacks.show", callback=callback)
    show.fields(found, json_, ("body", "work"))
    if json_:
        return
    if found.get("work"):
        click.echo()
        show.rows(found["work"], False, ("id", "topic", "state", "tries", "last_error", "last_try_at"), "")
    click.echo()
    if found.get("erased_at"):
        click.echo("Its body was erased: it had become too old, or a person asked for it.")
        return
    click.echo(show.printable(_pretty(found["body"]), lines=True))


@callbacks.command()
@click.argument("callback")
@click.option("--reason", required=True, help="Why; kept in the audit trail.")
@show.as_json
def replay(callback: str, reason: str, json_: bool) -> None:
    """Run a resting callback again, or check a quarantined one (qua_…) again against the time it came."""
    show.fields(run("callbacks.replay", callback=callback, reason=reason), json_)


def _pretty(body: str) -> str:
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return body
