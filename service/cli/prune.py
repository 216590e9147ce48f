"""`caisse prune`"""

from __future__ import annotations

import click

from service.cli import show
from service.cli.run import run


@click.command()
@click.option("--dry-run", is_flag=True, help="Only count what would go.")
@show.as_json
def prune(dry_run: bool, json_: bool) -> None:
    """Forget what is older than the CAISSE_KEEP_… settings say; the service does it every night by itself.

    What is owed is kept, however old: deliveries that are pending or failed, callbacks that were not worked on. So are
    payments, orders, sessions, facts and the audit trail. Payers' data goes when they are erased (`caisse erase`).
    """
    answer = run("prune", progress_of="Looking" if dry_run else "Pruning", dry_run=dry_run)
    if json_:
        show.dump(answer)
        return
    went = [{**row, "days": "for ever" if row["days"] == 0 else row["days"]} for row in answer["went"]]
    show.rows(went, False, ("count", "meaning", "days", "setting"), "")
    done = "would go" if dry_run else "went"
    click.echo(f"\n{sum(row['count'] for row in went)} rows {done}; {answer['looked']} were looked at.")
    if answer["next_at"]:
        click.echo(f"The next run by itself: {answer['next_at']}")
