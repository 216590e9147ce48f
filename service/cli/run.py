"""
Running a named command: here, when nobody has the database, or in the process that has it.

Which one it was makes no difference to the answer: both look into the same table of commands.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from service.config import BadSetting, Settings
from service.errors import Refusal

HELD_WAIT_MS = 10_000
"""A short-lived command holds the lock for a moment only, and so does a service that is starting or stopping."""
HELD_POLL_MS = 50

Progress = Callable[[int, int | None], None]


def settings() -> Settings:
    """The settings, read for this command line."""
    config = click.get_current_context().find_root().params.get("config")
    return Settings.read(Path(config) if config else None)


def run(command: str, /, *, progress_of: str | None = None, read: Settings | None = None, **arguments: Any) -> Any:
    """Run a command; `progress_of` names the long work whose bar is shown on a terminal."""
    with bar(progress_of) as progress:
        return asyncio.run(_run(read or settings(), command, arguments, progress))


async def _run(read: Settings, name: str, arguments: dict[str, Any], progress: Progress | None) -> Any:
    from service.control import CommandError, call
    from service.lock import Held, Lock

    until_s = time.monotonic() + HELD_WAIT_MS / 1000
    while True:
        try:
            if read.database_path.parent.is_dir():
                # Asked before anything heavy is imported: beside a running service a command takes a fifth of a second.
                Lock.acquire(read.database_path).release()
            return await _alone(read, name, arguments, progress)
        except Held as held:
            if held.address is not None and held.token is not None:
                try:
                    return await call(held.address, held.token, name, arguments, progress)
                except CommandError as error:
                    # Unreachable: it was ending just then, and nothing was done.
                    if error.code != "unreachable":
                        raise Refusal(error.code, error.sentence) from None
            if time.monotonic() >= until_s:
                pid = held.pid or "unknown"
                sentence = f"Another caisse (pid {pid}) has the database and takes no commands; try again."
                raise Refusal("held", sentence) from None
        await asyncio.sleep(HELD_POLL_MS / 1000)


async def _alone(read: Settings, name: str, arguments: dict[str, Any], progress: Progress | None) -> Any:
    from service import commands, logs
    from service.application import build

    logs.configure("error")  # the terminal belongs to the answer
    app = build(read)
    await app.open()
    try:
        return await commands.run(app, name, arguments, progress)
    finally:
        await app.close()


@contextlib.contextmanager
def bar(title: str | None) -> Iterator[Progress | None]:
    """A progress bar on a terminal; nothing elsewhere, or without a title."""
    if title is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    with Bar(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def sentence_for(error: Exception) -> str | None:
    """What to tell a person about a failure that is theirs to put right; None: it is ours, and wants a traceback."""
    if isinstance(error, Refusal):
        return error.sentence
    if isinstance(error, BadSetting):
        return str(error)
    from service.database import StorageError, UnsupportedDatabase
    from service.lock import Held
    from service.migrations import NewerDatabase
    from service.seal import SealError

    if isinstance(error, Held):
        return f"{error} `caisse doctor` asks it how it is."
    if isinstance(error, StorageError | UnsupportedDatabase | NewerDatabase | SealError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{where}."
    return None
