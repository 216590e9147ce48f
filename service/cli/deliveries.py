"""`caisse deliveries …`"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from service.cli import show
from service.cli.run import bar, run

POLL_S = 0.3


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


@deliveries.command()
@click.option(
    "--since", required=True,
    help="90m, 2h, 3d, 2026-11-20 or 2026-11-20T14:00 (in CAISSE_TIMEZONE, unless Z or +01:00 follows).",
)  # fmt: skip
@click.option("--endpoint", help="Only to this endpoint.")
@click.option("--type", "type_", help="Only events of this type.")
@click.option("--payment", help="Only events about this payment.")
@click.option("--merchant", help="Only to this merchant's endpoints.")
@click.option("--per-minute", type=click.IntRange(1, 60_000), help="At most so many a minute; otherwise at once.")
@click.option("--dry-run", is_flag=True, help="Only count.")
@click.option("--reason", default="", help="Kept in the audit trail.")
@click.option("--no-wait", is_flag=True, help="Begin, and do not wait until it is done.")
@show.as_json
def recover(
    since: str,
    endpoint: str | None,
    type_: str | None,
    payment: str | None,
    merchant: str | None,
    per_minute: int | None,
    dry_run: bool,
    reason: str,
    no_wait: bool,
    json_: bool,
) -> None:
    """Deliver again all that failed since a time, and what waits for a retry now.

    What was delivered meanwhile or is on its way is left out, so it may be repeated. It is a stored job: Ctrl-C leaves
    it running, and after a kill it goes on where it was.
    """
    answer = run(
        "deliveries.recover", progress_of="Counting", since=since, endpoint=endpoint, type=type_, payment=payment,
        merchant=merchant, per_minute=per_minute, dry_run=dry_run, reason=reason,
    )  # fmt: skip
    if not json_:
        _tell_found(answer)
    if answer["recovery"] is not None and not no_wait:
        answer["recovery"] = _follow(answer["recovery"]["id"])
    if json_:
        show.dump(answer)
    elif answer["recovery"] is not None:
        _tell_job(answer["recovery"])


@deliveries.command()
@show.limited
@show.as_json
def recoveries(limit: int, json_: bool) -> None:
    """Recoveries, the newest first."""
    columns = ("id", "status", "since", "looked", "total", "sent", "hurried", "skipped", "disabled", "created_at")
    show.rows(run("deliveries.recoveries", limit=limit), json_, columns, "There was no recovery yet.")


@deliveries.command()
@click.argument("recovery")
@click.option("--pause", "to", flag_value="pause", help="Promise nothing more for now.")
@click.option("--resume", "to", flag_value="resume", help="Go on where it was.")
@click.option("--cancel", "to", flag_value="cancel", help="End it; what it has promised is delivered.")
@click.option("--follow", is_flag=True, help="Wait until it is done.")
@show.as_json
def recovery(recovery: str, to: str | None, follow: bool, json_: bool) -> None:
    """One recovery: how far it is; or pause, resume or cancel it."""
    if to is not None:
        run("deliveries.recovery.change", recovery=recovery, to=to)
    job = _follow(recovery) if follow else run("deliveries.recovery", recovery=recovery)
    show.fields(job, json_, ("served",))
    if not json_:
        _tell_waits(job)


def _follow(id_: str) -> dict[str, Any]:
    """Until it does not run any more. It is asked again and again, so that nothing in the service waits for us."""
    try:
        with bar("Recovering") as progress:
            while True:
                job: dict[str, Any] = run("deliveries.recovery", recovery=id_)
                if progress is not None:
                    progress(job["looked"], job["total"])
                if job["status"] != "running" or not job["served"]:
                    return job
                time.sleep(POLL_S)
    except KeyboardInterrupt:
        click.echo(f"\nIt goes on without you. Follow it: caisse deliveries recovery {id_} --follow", err=True)
        raise click.exceptions.Exit(1) from None


def _tell_found(answer: Mapping[str, Any]) -> None:
    columns = ("id", "failed", "waiting", "skipped", "disabled", "status", "url")
    if answer["endpoints"]:
        show.rows(answer["endpoints"], False, columns, "")
        click.echo()
    found = answer["found"]
    will = "would be" if answer["dry_run"] else "are"
    if found["failed"] + found["waiting"] == 0:
        click.echo(f"Nothing that failed since {answer['since']} has to be sent again.")
    else:
        click.echo(f"{found['failed']:,} that failed since {answer['since']} {will} sent again,")
        click.echo(f"{found['waiting']:,} that wait for a retry {will} tried now.")
    if found["skipped"]:
        click.echo(f"{found['skipped']:,} were delivered meanwhile or are on their way, and are left out.")
    if found["disabled"]:
        click.echo(
            f"{found['disabled']:,} belong to disabled endpoints: enable them first (`caisse endpoint enable ID`)."
        )


def _tell_job(job: Mapping[str, Any]) -> None:
    click.echo(f"\n{job['id']} is {job['status']}: {job['sent']:,} sent again, {job['hurried']:,} tried now.")
    _tell_waits(job)


def _tell_waits(job: Mapping[str, Any]) -> None:
    if job["status"] == "running" and not job["served"]:
        click.echo("It is stored, and begins as soon as the service runs: caisse serve")
    elif job["status"] == "running":
        click.echo(f"Follow it: caisse deliveries recovery {job['id']} --follow")
    elif job["status"] == "paused":
        click.echo(f"Go on with it: caisse deliveries recovery {job['id']} --resume")
