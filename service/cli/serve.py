"""`caisse serve`"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from service.cli.run import settings

if TYPE_CHECKING:
    from service.application import Application


@click.command()
def serve() -> None:
    """Run the service until Ctrl-C or SIGTERM. Logs go to standard error; exit status 70: the storage failed."""
    from service import logs
    from service.application import run
    from service.application import serve as serve_until_stopped

    read = settings()
    logs.configure(read.log_level, human=None if read.mode == "development" else False)

    def ready(app: Application) -> None:
        click.echo(f"caisse listens on http://{read.host}:{app.port} (pid {os.getpid()}); Ctrl-C stops it.")

    sys.exit(run(serve_until_stopped(read, ready)))
