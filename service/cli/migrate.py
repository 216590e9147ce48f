"""`caisse migrate`"""

from __future__ import annotations

import click

from service.cli import show
from service.cli.run import run


@click.command()
@show.as_json
def migrate(json_: bool) -> None:
    """Bring the database to this version's shape; a newer one is refused. `serve` does it, too."""
    show.fields(run("migrate"), json_)
