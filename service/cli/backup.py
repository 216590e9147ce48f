"""`caisse backup`"""

from __future__ import annotations

from pathlib import Path

import click

from service.cli import show
from service.cli.run import run


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@show.as_json
def backup(file: Path, json_: bool) -> None:
    """Copy the database to FILE, which must not be there yet; beside a running service too.

    The copy is consistent and checked, and appears under its name only when it is whole. The service goes on meanwhile;
    its WAL grows by what is written until the copy is done. The master key is not part of it.
    """
    answer = run("backup", progress_of="Copying", file=str(file.absolute()))
    if json_:
        show.dump(answer)
        return
    click.echo(
        f"{answer['file']}: {answer['bytes']:,} bytes, revision {answer['revision']}, {answer['seconds']:.1f} s."
    )
    click.echo(answer["note"])
