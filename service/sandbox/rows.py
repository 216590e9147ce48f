"""A row for each endpoint: how its circuit stands, what it got, what it is owed, what it misses, how long it takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.panel import Panel
from rich.text import Text

from service.sandbox.figures import count, figures, panel, span


@dataclass(frozen=True, slots=True)
class Row:
    """One endpoint. `missing` are the failed ones that were not brought since and are not on their way again."""

    name: str
    endpoint: str
    manner: str = ""  # what is the matter with it on purpose: hangs, down
    circuit: str = "closed"  # closed | open | half-open
    again_s: float = 0.0  # open: until it is tried again
    delivered: int = 0
    owed: int = 0
    failed: int = 0
    missing: int = 0
    in_flight: int = 0
    took_s: tuple[float, float] | None = None  # p50 and p99 from written down to received, of the last minute
    since_ms: int = 0  # when the oldest of the missing was made


_STYLES = {"closed": "green", "open": "bold red", "half-open": "yellow"}


def endpoints(rows: Sequence[Row], wide: bool, notes: str) -> Panel:
    """The panel: 76 characters inside are enough."""
    flight = "in flight" if wide else "sending"
    names = ["", "circuit", "delivered", "owed", *(["failed"] if wide else []), "missing", flight, "p50", "p99"]
    widths = [12, 26 if wide else 16, 9, 6, *([6] if wide else []), 7, len(flight), 6, 6]
    table = figures(*names, widths=widths)
    table.columns[1].justify = "left"
    for row in rows:
        name = Text(row.name)
        if row.manner:
            name.append(f" {row.manner}", style="red")
        cells = [
            name,
            Text(_circuit(row, wide), style=_STYLES[row.circuit]),
            count(row.delivered, "green"),
            count(row.owed, "cyan"),
            *([count(row.failed, "red")] if wide else []),
            count(row.missing, "bold red"),
            count(row.in_flight),
            *(Text(took(s)) for s in row.took_s or ()),
        ]
        table.add_row(*cells, *([] if row.took_s else [Text("-", style="dim")] * 2))
    return panel("Webhooks to the shop and its neighbours", table, notes)


def _circuit(row: Row, wide: bool) -> str:
    if row.circuit != "open":
        return row.circuit
    return f"open, tries again in {span(row.again_s)}" if wide else f"open {span(row.again_s)} more"


def took(seconds: float) -> str:
    """8 ms, 1.5 s, 3 min."""
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else span(seconds)


def plain(row: Row) -> str:
    """The row in a line of text."""
    name = f"{row.name} ({row.manner})" if row.manner else row.name
    missing = f" of which missing {row.missing}" if row.failed else ""
    times = f", p50 {took(row.took_s[0])} p99 {took(row.took_s[1])}" if row.took_s else ""
    return (
        f"{name}: {_circuit(row, wide=True)}, delivered {row.delivered}, owed {row.owed}, failed {row.failed}{missing},"
        f" in flight {row.in_flight}{times}"
    )


def recovery(row: Row, now_ms: int) -> str:
    """The command that brings what a repaired endpoint misses, nothing while it is down or misses nothing."""
    if not row.missing or row.manner:
        return ""
    minutes = max(10, math.ceil((now_ms - row.since_ms) / 600_000) * 10)
    since = f"{minutes}m" if minutes <= 120 else f"{math.ceil(minutes / 60)}h"
    return f"deliveries recover --since {since} --endpoint {row.endpoint}"


def news(before: Row, row: Row) -> list[tuple[str, str]]:
    """Style and sentence of what changed with an endpoint since the last look."""
    said = []
    if row.manner == "down" and not before.manner:
        said.append(("red", f"{row.name} · is down now, on purpose"))
    if before.manner == "down" and not row.manner:
        said.append(("green", f"{row.name} · is repaired"))
    if row.circuit != before.circuit:
        words, style = {
            "open": (f"circuit opens: left alone for {span(row.again_s)}, nothing is lost", "red"),
            "half-open": ("circuit half-open: one try will tell", "yellow"),
            "closed": ("circuit closes: it gets everything it is owed", "green"),
        }[row.circuit]
        said.append((style, f"{row.name} · {words}"))
    if before.missing and not row.missing:
        said.append(("bold green", f"{row.name} · 0 missing: what had failed is sent again"))
    return said
