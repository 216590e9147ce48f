"""
The live view of the demonstration: callbacks in, payments, webhooks out, the shop, and what just happened.

`Snapshot` is everything that can be seen at one moment, `draw` makes the terminal's picture of it and `line` one plain
line; both are pure. `watch` takes a snapshot a few times a second and shows it until it is told to stop.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from service.sandbox.merchant import Counters

FRAMES_PER_S = 2
LINE_EVERY_S = 2.0
CURRENCIES = ("XOF", "XAF", "EUR")
_DECIMALS = {"XOF": 0, "XAF": 0, "EUR": 2}


@dataclass(frozen=True, slots=True)
class Inflow:
    """Callbacks of one provider, as kept by caisse."""

    title: str
    received: int = 0
    repeated: int = 0
    per_s: float = 0.0
    processed: int = 0
    ignored: int = 0
    parked: int = 0
    deferred: int = 0
    dead: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Sums:
    """Payments in one state: how many, and minor units by currency."""

    count: int = 0
    minor: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outflow:
    """Webhooks to the shop."""

    delivered: int = 0
    waiting: int = 0  # not tried yet
    retrying: int = 0
    dead: int = 0
    next_retry_s: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything there is to see at one moment."""

    elapsed_s: float
    inflows: Sequence[Inflow]
    refused: int  # callbacks answered with something else than 2xx or 503
    postponed: int  # answered 503 or not at all: the provider comes again
    paid: Sums
    refunded: Sums
    pending: Sums
    unpaid: Sums
    disputed: int
    outflow: Outflow
    shop: Counters
    due: int
    oldest_due_s: float
    commits_per_s: float
    wal_bytes: int
    happened: Sequence[tuple[str, str, str]] = ()  # time of day, rich style, sentence


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


def _short_figure(minor: int, currency: str) -> str:
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


def _bytes(number: int) -> str:
    return f"{number / 1_000_000:.1f} MB" if number >= 100_000 else f"{number / 1000:.0f} kB"


def line(seen: Snapshot) -> str:
    """One plain line, for a pipe or a log."""
    arrived = ", ".join(f"{inflow.title} {inflow.received}" for inflow in seen.inflows)
    aside = sum(inflow.parked + inflow.deferred + inflow.dead for inflow in seen.inflows)
    done = sum(inflow.processed + inflow.ignored for inflow in seen.inflows)
    sums = " + ".join(
        money(minor, currency).replace("\u00a0", " ") for currency, minor in sorted(seen.paid.minor.items()) if minor
    )
    out, shop = seen.outflow, seen.shop
    return (
        f"{clock(seen.elapsed_s)} | in: {arrived} | worked on {done}, set aside {aside}"
        f" | paid {seen.paid.count} ({sums or '0'}), refunded {seen.refunded.count}, open {seen.pending.count},"
        f" not paid {seen.unpaid.count}"
        f" | webhooks: delivered {out.delivered}, waiting {out.waiting}, retrying {out.retrying}, dead {out.dead}"
        f" | shop: verified {shop.verified}, failed on purpose {shop.on_purpose}, after a retry {shop.retried},"
        f" repeats dropped {shop.repeat} | queue {seen.due}"
    )


# --- the picture ------------------------------------------------------------------------------------


def draw(seen: Snapshot, heading: Sequence[str], width: int, height: int) -> RenderableType:
    """The whole picture, made for 80 x 24 and using more where there is more."""
    happened_lines = max(1, height - len(heading) - 17 - 2)
    layout = Layout()
    layout.split_column(
        Layout(_heading(seen, heading), size=len(heading)),
        Layout(name="flows", size=10),
        Layout(name="sums", size=7),
        Layout(_happened(seen, happened_lines), name="happened", minimum_size=3),
    )
    wide = width >= 116
    left = 82 if wide else 51
    layout["flows"].split_row(Layout(_inflows(seen, wide), size=left), Layout(_outflow(seen)))
    layout["sums"].split_row(Layout(_payments(seen), size=left), Layout(_shop(seen)))
    return layout


def _heading(seen: Snapshot, heading: Sequence[str]) -> RenderableType:
    first = Table.grid(expand=True)
    first.add_column(ratio=1, no_wrap=True)
    first.add_column(justify="right", no_wrap=True)
    first.add_row(Text.from_markup(heading[0]), Text(f"{clock(seen.elapsed_s)}  Ctrl-C stops", style="dim"))
    rest = [Text.from_markup(one, overflow="ellipsis") for one in heading[1:]]
    for text in rest:
        text.no_wrap = True
    return Group(first, *rest)


def _panel(title: str, inside: RenderableType, subtitle: str | None = None) -> Panel:
    return Panel(
        inside,
        title=f"[bold]{title}[/]",
        subtitle=subtitle,
        title_align="left",
        subtitle_align="right",
        border_style="bright_black",
        padding=(0, 1),
    )


def _figures(*columns: str, widths: Sequence[int] = ()) -> Table:
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


def _count(number: int, style: str = "") -> Text:
    return Text(grouped(number), style=style if number else "dim")


def _inflows(seen: Snapshot, wide: bool) -> Panel:
    names = ["", "received", "/s", "done", "waiting", "aside"]
    more = ["repeats", "ignored", "parked", "deferred"] if wide else []
    table = _figures(*names, *more, widths=(8, 8, 5, 7, 7, 5, *(len(name) for name in more)))
    everything = [*seen.inflows, _total(seen.inflows)]
    for inflow in everything:
        last = inflow is everything[-1]
        cells = [
            Text(inflow.title, style="bold" if last else ""),
            _count(inflow.received),
            Text(f"{inflow.per_s:.1f}", style="green" if inflow.per_s else "dim"),
            _count(inflow.processed + inflow.ignored),
            _count(inflow.waiting, "cyan"),
            _count(inflow.parked + inflow.deferred + inflow.dead, "yellow"),
        ]
        if wide:
            cells += [
                _count(inflow.repeated),
                _count(inflow.ignored),
                _count(inflow.parked, "yellow"),
                _count(inflow.deferred, "yellow"),
            ]
        table.add_row(*cells)
    total = everything[-1]
    notes = f"{grouped(total.ignored)} ignored, {grouped(total.repeated)} repeats"
    if seen.postponed:
        notes += f", [yellow]{grouped(seen.postponed)} to come again[/]"
    if seen.refused:
        notes += f", [red]{grouped(seen.refused)} refused[/]"
    return _panel("Callbacks from providers", table, notes)


def _total(inflows: Sequence[Inflow]) -> Inflow:
    return Inflow(
        "All",
        *(
            sum(values)  # field by field, in the order they are declared
            for values in zip(
                *(
                    (i.received, i.repeated, i.per_s, i.processed, i.ignored, i.parked, i.deferred, i.dead, i.waiting)
                    for i in inflows
                ),
                strict=True,
            )
        ),
    )


def _outflow(seen: Snapshot) -> Panel:
    out = seen.outflow
    table = _figures("", "")
    table.show_header = False
    table.add_row("Delivered", _count(out.delivered, "green"))
    table.add_row("Waiting", _count(out.waiting, "cyan"))
    table.add_row("Retrying", _count(out.retrying, "yellow"))
    when = span(out.next_retry_s) if out.next_retry_s is not None else "-"
    table.add_row("  next in", Text(when, style="" if out.next_retry_s is not None else "dim"))
    table.add_row("Given up", _count(out.dead, "bold red"))
    table.add_row("Queue, due", _count(seen.due, "cyan"))
    table.add_row("  oldest", Text(span(seen.oldest_due_s) if seen.due else "-", style="" if seen.due else "dim"))
    table.add_row("Database", f"{seen.commits_per_s:.0f} commits/s")
    return _panel("Webhooks to the shop", table, f"[dim]WAL {_bytes(seen.wal_bytes)}[/]")


def _payments(seen: Snapshot) -> Panel:
    table = _figures("", "count", *CURRENCIES, widths=(10, 5, 9, 9, 9))
    rows = (
        ("Paid", seen.paid, "green"),
        ("Given back", seen.refunded, "yellow"),
        ("Open", seen.pending, "cyan"),
        ("Not paid", seen.unpaid, ""),
    )
    for title, sums, style in rows:
        table.add_row(
            title,
            _count(sums.count, style),
            *(
                Text(
                    _short_figure(sums.minor[currency], currency) if sums.minor.get(currency) else "0",
                    style=style if sums.minor.get(currency) else "dim",
                )
                for currency in CURRENCIES
            ),
        )
    return _panel("Payments", table, f"[red]{grouped(seen.disputed)} disputed[/]" if seen.disputed else None)


def _shop(seen: Snapshot) -> Panel:
    shop = seen.shop
    table = _figures("", "")
    table.show_header = False
    table.add_row("Got, all verified" if not shop.refused else "Verified", _count(shop.verified, "green"))
    if shop.refused:
        table.add_row("Forged, refused", _count(shop.refused, "bold red"))
    table.add_row("Failed on purpose", _count(shop.on_purpose, "yellow"))
    table.add_row("Got by a retry", _count(shop.retried, "green"))
    table.add_row("Repeats dropped", _count(shop.repeat))
    if not shop.refused:
        table.add_row("Late ones dropped", _count(shop.older))
    return _panel("The shop", table)


def _happened(seen: Snapshot, lines: int) -> Panel:
    rows = []
    for at, style, sentence in list(seen.happened)[-lines:]:
        text = Text(f"{at}  ", style="dim", no_wrap=True, overflow="ellipsis")
        text.append(sentence, style=style or "default not dim")
        rows.append(text)
    return _panel("Just now", Group(*rows) if rows else Text("Waiting for the first callback …", style="dim"))


# --- showing it -------------------------------------------------------------------------------------


class Rates:
    """Per-second rates of growing counters over the last few seconds."""

    WINDOW_S = 5.0

    def __init__(self) -> None:
        self._seen: dict[str, deque[tuple[float, int]]] = {}

    def of(self, name: str, total: int, at_s: float) -> float:
        """The rate of `name`, now that it stands at `total`."""
        seen = self._seen.setdefault(name, deque())
        seen.append((at_s, total))
        while len(seen) > 2 and seen[1][0] <= at_s - self.WINDOW_S:
            seen.popleft()
        (then_s, then), (now_s, now) = seen[0], seen[-1]
        return max(0.0, (now - then) / (now_s - then_s)) if now_s > then_s else 0.0


async def watch(
    console: Console,
    look: Callable[[], Awaitable[Snapshot]],
    heading: Sequence[str],
    stop: asyncio.Event,
    plain: bool = False,
) -> None:
    """Show snapshots until `stop`: a picture on a terminal, a line every two seconds anywhere else."""
    if plain or not console.is_terminal:
        while not await _stopped(stop, LINE_EVERY_S):
            console.print(line(await look()), markup=False, highlight=False, soft_wrap=True)
        return
    first = draw(await look(), heading, console.width, console.height)
    with Live(first, console=console, screen=True, auto_refresh=False) as live:
        while not await _stopped(stop, 1 / FRAMES_PER_S):
            live.update(draw(await look(), heading, console.width, console.height), refresh=True)


async def _stopped(stop: asyncio.Event, within_s: float) -> bool:
    try:
        await asyncio.wait_for(stop.wait(), within_s)
    except TimeoutError:
        return False
    return True


def time_of_day(at_s: float) -> str:
    """HH:MM:SS on this machine's wall."""
    return time.strftime("%H:%M:%S", time.localtime(at_s))
