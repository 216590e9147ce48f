"""The option `--as`: who sits at the command line, so that two people can be told apart."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

NAMELESS = "cli"
"""As in `service.commands.hand`, which is not imported here: all commands would be with it, in a fifth of a second."""

_NAME = re.compile(r"[\w.@-](?:[\w .@-]{0,58}[\w.@-])?")


def _actor(ctx: click.Context, param: click.Parameter, name: str | None) -> str:
    if name is None:
        return NAMELESS
    folded = name.strip().casefold()  # Awa and awa are no two people
    if not _NAME.fullmatch(folded):
        raise click.BadParameter("a name has 1 to 60 letters, digits, spaces, or . @ - _", ctx, param)
    return f"{NAMELESS}:{folded}"


def named(*, required: bool = False) -> Callable[[F], F]:
    """The option; the command's argument is `actor`, as it stands in the audit trail."""
    says = "Who approves it: another than who asked." if required else "Who you are, for the audit trail."
    return click.option("--as", "actor", metavar="NAME", required=required, callback=_actor, help=says)
