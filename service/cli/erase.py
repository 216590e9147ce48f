"""`caisse erase`"""

from __future__ import annotations

import click

from service.cli import show
from service.cli.run import run


@click.command()
@click.option("--phone", "phones", multiple=True, help="With its country: +229 97 00 00 01.")
@click.option("--email", "emails", multiple=True)
@click.option("--name", "names", multiple=True, help="At least two words; accents and order do not matter.")
@click.option(
    "--also-parked",
    is_flag=True,
    help="Also callbacks that are parked, deferred or dead. They can never be worked on then: what they tell is lost.",
)
@click.option("--dry-run", is_flag=True, help="Only count what would be erased.")
@click.option("--yes", "sure", is_flag=True, help="Also when more than 50 rows name the person.")
@click.option("--reason", default="", help="Kept in the audit trail: the number of the request, not the person.")
@show.as_json
def erase(
    phones: tuple[str, ...],
    emails: tuple[str, ...],
    names: tuple[str, ...],
    also_parked: bool,
    dry_run: bool,
    sure: bool,
    reason: str,
    json_: bool,
) -> None:
    """Erase one person, whoever is meant by any of these, from all that is kept: payers, bodies, notes, typed reasons.

    Payments, amounts, times and references stay. What is still owed stays too and is listed with what to do. Backups
    are not reached. The shell's own history keeps what you type here.
    """
    answer = run(
        "erase", progress_of="Searching", phones=list(phones), emails=list(emails), names=list(names),
        also_parked=also_parked, dry_run=dry_run, sure=sure, reason=reason,
    )  # fmt: skip
    if json_:
        show.dump(answer)
        return
    places = [{"place": place, "count": count} for place, count in answer["erased"].items()]
    show.rows(places, False, ("count", "place"), "")
    done = "would be erased" if dry_run else "were erased"
    click.echo(f"\n{sum(place['count'] for place in places)} rows {done}; {answer['looked']} were looked at.")
    if not answer["write_ahead_emptied"]:
        click.echo("The write-ahead file still holds what was erased; it is emptied when the service is idle or stops.")
    if answer["kept_count"]:
        click.echo(f"\n{answer['kept_count']} rows name the person and were kept:")
        show.rows(answer["kept"], False, ("id", "why"), "")
    if answer["unread_count"]:
        click.echo(
            f"\n{answer['unread_count']} quarantined callbacks cannot be opened with the master keys there are, and "
            "were not searched. Put their key back and erase again; or CAISSE_KEEP_QUARANTINE_DAYS ends them:"
        )
        click.echo("\n".join(answer["unread"]))
