"""`caisse verify`"""

from __future__ import annotations

import sys

import click

from service.cli import show
from service.cli.run import run


@click.command()
@click.option(
    "--what",
    type=click.Choice(["all", "ledger", "statuses"]),
    default="all",
    show_default=True,
    help="The sums and postings, the statuses, or both.",
)
@show.as_json
def verify(what: str, json_: bool) -> None:
    """Prove that the ledger adds up and that every stored status is what its facts say; the service goes on meanwhile.

    Exit status 1 when anything is wrong; then no payout is sent until a whole check finds all well again. Nothing is
    mended by itself.
    """
    answer = run("verify", progress_of="Verifying", what=what)
    if json_:
        show.dump(answer)
    else:
        looked = [
            {"looked at": name, "count": f"{count:,}".replace(",", " ")} for name, count in answer["looked"].items()
        ]
        show.rows(looked, False, ("looked at", "count"), "", right=("count",))
        for sentence in answer["problems"]:
            click.echo(show.printable(sentence))
        if answer["found"] > len(answer["problems"]):
            click.echo(f"… and {answer['found'] - len(answer['problems'])} more.")
        click.echo("\nIt adds up." if answer["sound"] else f"\n{answer['found']} problems; no payout is sent.")
    if not answer["sound"]:
        sys.exit(1)
