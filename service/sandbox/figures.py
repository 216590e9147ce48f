"""How figures are written and framed on the demonstration's screen. Nothing here knows what they mean."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

_DECIMALS = {"XOF": 0, "XAF": 0, "EUR": 2}

# --- words ------------------------------------------------------------------------------------------


def grouped(number: int) -> str:
    """12500 -> "12 500", as it is written in French; the space does not break."""
    return f"{number:,}".replace(",", "\u00a0")


def money(minor: int, currency: str) -> str:
    """Minor units as people write them: "12 500 XOF", "12,50 EUR"."""
    return f"{_figure(minor, currency)}\u00a0{currency}"


def _figure(minor: int, currency: str) -> str:
    decimals = _DECIMALS.get(currency, 2)
    whole, rest = divmod(minor, 10**decimals)
    return grouped(whole) + (f",{rest:0{decimals}d}" if decimals else "")


def short_figure(minor: int, currency: str) -> str:
    """At most nine characters, so that a column never breaks: from ten millions on "12,3 M"."""
    units = minor / 10 ** _DECIMALS.get(currency, 2)
    return _figure(minor, currency) if units < 10_000_000 else f"{units / 1_000_000:.1f}".replace(".", ",") + " M"


def span(seconds: float) -> str:
    """0.4 s, 12 s, 3 min, 2 h: as short as it is clear."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def clock(seconds: float) -> str:
    """Elapsed time as 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def size(number: int) -> str:
    return f"{number / 1_000_000:.1f} MB" if number >= 100_000 else f"{number / 1000:.0f} kB"


# --- frames -----------------------------------------------------------------------------------------


def panel(title: str, inside: RenderableType, subtitle: str | None = None) -> Panel:
    return Panel(
        inside,
        title=f"[bold]{title}[/]",
        subtitle=subtitle,
        title_align="left",
        subtitle_align="right",
        border_style="bright_black",
        padding=(0, 1),
    )


def figures(*columns: str, widths: Sequence[int] = ()) -> Table:
    """A table without lines. `widths` are at least so wide, so that nothing moves while figures grow."""
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="dim", pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(
            name,
            justify="left" if number == 0 else "right",
            no_wrap=True,
            min_width=widths[number] if widths else None,
        )
    return table


def count(number: int, style: str = "") -> Text:
    return Text(grouped(number), style=style if number else "dim")
