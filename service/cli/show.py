"""Showing answers: JSON for programs, tables for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import click

F = TypeVar("F", bound=Callable[..., Any])

WIDTH_WITHOUT_TERMINAL = 200
_STYLES = {
    "succeeded": "green", "processed": "green", "enabled": "green", "active": "green", "ok": "green",
    "released": "green", "paid": "green", "returned": "red", "unknown": "red", "frozen": "yellow",
    "awaiting_approval": "yellow", "paused": "yellow",
    "failed": "red", "dead": "red", "fail": "red", "quarantined": "red", "missing": "red",
    "parked": "yellow", "deferred": "yellow", "held": "yellow", "warn": "yellow", "disabled": "yellow",
}  # fmt: skip


def as_json(command: F) -> F:
    """The option `--json`."""
    return click.option("--json", "json_", is_flag=True, help="Print JSON.")(command)


def limited(command: F) -> F:
    """The option `--limit`."""
    return click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="At most so many.")(
        command
    )


def dump(answer: Any) -> None:
    """JSON on stdout."""
    click.echo(json.dumps(answer, indent=2))  # ASCII: what a stranger sent must not steer the terminal


def rows(
    answer: Sequence[Mapping[str, Any]],
    json_: bool,
    columns: Iterable[str],
    nothing: str,
    line: Callable[[Any], Mapping[str, Any]] = dict,
    right: Collection[str] = (),
    whole: Collection[str] = (),
) -> None:
    """
    A list: a table of these columns, or the sentence when there is nothing. `line`: one of them as people see it.
    `right`: columns of figures. Those, ids and what is in `whole` are never broken.
    """
    if json_:
        dump(answer)
        return
    if not answer:
        click.echo(nothing)
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = list(columns)
    for column in columns:
        table.add_column(
            column.removesuffix("_at").replace("_", " "),
            justify="right" if column in right else "left",
            overflow="fold",
            no_wrap=column == "id" or column in right or column in whole,
        )
    for row in map(line, answer):
        values = [row.get(column) for column in columns]
        table.add_row(*(Text(word(value), style=_STYLES.get(str(value).replace(" ", "_"), "")) for value in values))
    _console().print(table)


def fields(
    answer: Mapping[str, Any], json_: bool, leave_out: Sequence[str] = (), amounts: Collection[str] = ()
) -> None:
    """One thing: its fields, one a line; lists and bodies are left to the caller. `amounts`: of its `currency`."""
    if json_:
        dump(answer)
        return
    shown = {name: value for name, value in answer.items() if name not in leave_out}
    shown |= {name: money(shown[name], shown["currency"]) for name in amounts if name in shown}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        click.echo(f"{name.replace('_', ' '):<{width}}  {word(value)}")


def figure(minor: int, currency: str) -> str:
    """Minor units as a number that people write: 57840 EUR is 578,40 and 12000 XOF is 12 000."""
    from service.payments.money import to_major

    return f"{to_major(minor, currency):,f}".translate({ord(","): " ", ord("."): ","})


def money(minor: int, currency: str) -> str:
    """The same with its currency: 578,40 EUR."""
    return f"{figure(minor, currency)} {currency}"


def when(at: str | None, zone: str) -> str:
    """A time (RFC 3339) in a zone, short: 21 Nov 22:36. Empty for none."""
    if not at:
        return ""
    moment = datetime.fromisoformat(at).astimezone(ZoneInfo(zone))
    return f"{moment.day} {moment:%b %H:%M}"


def filled(lines: Sequence[Mapping[str, Any]], columns: Iterable[str]) -> list[str]:
    """The columns in which anything stands but 0, so that a table is no wider than it has to be."""
    return [column for column in columns if any(line.get(column) for line in lines)]


def word(value: Any) -> str:
    """A value in a table; control characters are shown, because what a provider sent must not drive a terminal."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(printable(item) for item in value) or "–"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=True)
    return printable(str(value))


def printable(text: str, *, lines: bool = False) -> str:
    """Text that only prints; `lines` keeps line breaks, which in a table would draw rows that are not there."""
    return "".join(c if c.isprintable() or (lines and c == "\n") else repr(c)[1:-1] for c in text)


def _console() -> Any:
    from rich.console import Console

    console = Console(highlight=False, emoji=False)
    return console if console.is_terminal else Console(highlight=False, emoji=False, width=WIDTH_WITHOUT_TERMINAL)
