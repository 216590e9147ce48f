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

from service.sandbox.figures import clock, count, figures, grouped, money, panel, short_figure, size, span
from service.sandbox.merchant import Counters
from service.sandbox.rows import Row, endpoints
from service.sandbox.rows import plain as row_in_words
from service.sandbox.stall import Step

FRAMES_PER_S = 2
LINE_EVERY_S = 2.0
CURRENCIES = ("XOF", "XAF", "EUR")


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
    """Webhooks to the shop and its neighbours."""

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
    rows: Sequence[Row] = ()
    hint: tuple[str, str] | None = None  # a sentence, and the command it speaks of
    paid_out: Sums = Sums()  # what payees really got, by the sandbox's own book
    sale: Sequence[Step] = ()  # the seller's, whose money is held


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
        f" not paid {seen.unpaid.count}{f', paid out {seen.paid_out.count}' if seen.paid_out.count else ''}"
        f" | webhooks: delivered {out.delivered}, waiting {out.waiting}, retrying {out.retrying}, dead {out.dead}"
        f" | shop: verified {shop.verified}, failed on purpose {shop.on_purpose}, after a retry {shop.retried},"
        f" repeats dropped {shop.repeat} | queue {seen.due}"
    )


def lines(seen: Snapshot) -> list[str]:
    """The plain line, and one for the endpoints."""
    rows = " | ".join(row_in_words(row) for row in seen.rows)
    return [line(seen), *([f"{clock(seen.elapsed_s)} | to: {rows}"] if rows else [])]


# --- the picture ------------------------------------------------------------------------------------


TALL = 32
"""Lines from which on there is room for the payments by currency and for what the shop did."""
SALE_LINES = 7
"""The sale of the moment: four steps, and who reads it where there are fewer lines is told of each below."""


def draw(seen: Snapshot, heading: Sequence[str], width: int, height: int) -> RenderableType:
    """The whole picture, made for 80 x 24 and using more where there is more."""
    above = [*heading[:1], *_hint(seen, width)] if seen.hint else list(heading)
    wide, tall = width >= 116, height >= TALL
    left = 82 if wide else 51
    sizes = {"heading": len(above), "flows": 10, "endpoints": 3 + len(seen.rows), "sums": 7 if tall else 0}
    sizes["sale"] = SALE_LINES if height - sum(sizes.values()) >= SALE_LINES + 5 else 0
    happened_lines = max(1, height - sum(sizes.values()) - 2)
    flows, sums = Layout(name="flows", size=10), Layout(name="sums", size=7)
    flows.split_row(Layout(_inflows(seen, wide), size=left), Layout(_outflow(seen) if tall else _till(seen)))
    sums.split_row(Layout(_payments(seen), size=left), Layout(_shop(seen)))
    layout = Layout()
    layout.split_column(
        Layout(_heading(seen, above), size=sizes["heading"]),
        flows,
        Layout(endpoints(seen.rows, wide, _queue(seen)), size=sizes["endpoints"]),
        *([sums] if tall else []),
        *([Layout(_sale(seen), size=SALE_LINES)] if sizes["sale"] else []),
        Layout(_happened(seen, happened_lines), name="happened", minimum_size=3),
    )
    return layout


def _hint(seen: Snapshot, width: int) -> list[str | Text]:
    """Sentence and command, without a frame, to be copied as they stand."""
    if seen.hint is None:
        return []
    sentence, command = seen.hint
    words = command.replace(" --", "\n--").split("\n")  # an option stays with its value
    if max(map(len, words)) > width - 2:
        words = command.split(" ")
    lines: list[str] = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) + 3 > width:
            lines.append("")
        lines[-1] += f"{' ' if lines[-1] else ''}{word}"
    # A backslash must be the very last character, and the screen fills lines up with blanks: so it goes to the end.
    shown = [f"{one:<{width - 1}}\\" for one in lines[:-1]] + lines[-1:]
    return [Text(sentence, style="bold yellow"), *(Text(one, style="bold") for one in shown)]


def _heading(seen: Snapshot, heading: Sequence[str | Text]) -> RenderableType:
    first = Table.grid(expand=True)
    first.add_column(ratio=1, no_wrap=True)
    first.add_column(justify="right", no_wrap=True)
    first.add_row(_text(heading[0]), Text(f"{clock(seen.elapsed_s)}  Ctrl-C stops", style="dim"))
    rest = [_text(one) for one in heading[1:]]
    for text in rest:
        text.no_wrap, text.overflow = True, "ellipsis"
    return Group(first, *rest)


def _text(one: str | Text) -> Text:
    return Text.from_markup(one) if isinstance(one, str) else one


def _queue(seen: Snapshot) -> str:
    due = f"queue {grouped(seen.due)}" + (f", oldest {span(seen.oldest_due_s)}" if seen.due else "")
    notes = f"[dim]{due} · {seen.commits_per_s:.0f} commits/s · WAL {size(seen.wal_bytes)}[/]"
    return f"[bold red]{grouped(seen.shop.refused)} forged, refused[/] · {notes}" if seen.shop.refused else notes


def _inflows(seen: Snapshot, wide: bool) -> Panel:
    names = ["", "received", "/s", "done", "waiting", "aside"]
    more = ["repeats", "ignored", "parked", "deferred"] if wide else []
    table = figures(*names, *more, widths=(8, 8, 5, 7, 7, 5, *(len(name) for name in more)))
    everything = [*seen.inflows, _total(seen.inflows)]
    for inflow in everything:
        last = inflow is everything[-1]
        cells = [
            Text(inflow.title, style="bold" if last else ""),
            count(inflow.received),
            Text(f"{inflow.per_s:.1f}", style="green" if inflow.per_s else "dim"),
            count(inflow.processed + inflow.ignored),
            count(inflow.waiting, "cyan"),
            count(inflow.parked + inflow.deferred + inflow.dead, "yellow"),
        ]
        if wide:
            cells += [
                count(inflow.repeated),
                count(inflow.ignored),
                count(inflow.parked, "yellow"),
                count(inflow.deferred, "yellow"),
            ]
        table.add_row(*cells)
    total = everything[-1]
    notes = f"{grouped(total.ignored)} ignored, {grouped(total.repeated)} repeats"
    if seen.postponed:
        notes += f", [yellow]{grouped(seen.postponed)} to come again[/]"
    if seen.refused:
        notes += f", [red]{grouped(seen.refused)} refused[/]"
    return panel("Callbacks from providers", table, notes)


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
    table = figures("", "")
    table.show_header = False
    table.add_row("Delivered", count(out.delivered, "green"))
    table.add_row("Waiting", count(out.waiting, "cyan"))
    table.add_row("Retrying", count(out.retrying, "yellow"))
    when = span(out.next_retry_s) if out.next_retry_s is not None else "-"
    table.add_row("  next in", Text(when, style="" if out.next_retry_s is not None else "dim"))
    table.add_row("Given up", count(out.dead, "bold red"))
    table.add_row("Queue, due", count(seen.due, "cyan"))
    table.add_row("  oldest", Text(span(seen.oldest_due_s) if seen.due else "-", style="" if seen.due else "dim"))
    return panel("All webhooks", table)


def _till(seen: Snapshot) -> Panel:
    """The payments where there is little room."""
    table = figures("", "")
    table.show_header = False
    table.add_row("Paid", count(seen.paid.count, "green"))
    for currency in CURRENCIES:
        minor = seen.paid.minor.get(currency, 0)
        table.add_row(f"  {currency}", Text(short_figure(minor, currency), style="green" if minor else "dim"))
    table.add_row("Given back", count(seen.refunded.count, "yellow"))
    table.add_row("Open", count(seen.pending.count, "cyan"))
    table.add_row("Not paid", count(seen.unpaid.count))
    table.add_row("Disputed", count(seen.disputed, "red"))
    return panel("Payments", table, _paid_out(seen, few=True))


def _paid_out(seen: Snapshot, *, few: bool = False) -> str | None:
    """Under the payments, once somebody was paid."""
    if not seen.paid_out.count:
        return None
    sums = "" if few else "".join(f" {money(minor, one)}" for one, minor in sorted(seen.paid_out.minor.items()))
    return f"[green]{grouped(seen.paid_out.count)} paid out{sums}[/]"


def _payments(seen: Snapshot) -> Panel:
    table = figures("", "count", *CURRENCIES, widths=(10, 5, 9, 9, 9))
    rows = (
        ("Paid", seen.paid, "green"),
        ("Given back", seen.refunded, "yellow"),
        ("Open", seen.pending, "cyan"),
        ("Not paid", seen.unpaid, ""),
    )
    for title, sums, style in rows:
        table.add_row(
            title,
            count(sums.count, style),
            *(
                Text(
                    short_figure(sums.minor[currency], currency) if sums.minor.get(currency) else "0",
                    style=style if sums.minor.get(currency) else "dim",
                )
                for currency in CURRENCIES
            ),
        )
    notes = [f"[red]{grouped(seen.disputed)} disputed[/]"] if seen.disputed else []
    return panel("Payments", table, " · ".join([*notes, *filter(None, [_paid_out(seen)])]) or None)


def _shop(seen: Snapshot) -> Panel:
    shop = seen.shop
    table = figures("", "")
    table.show_header = False
    table.add_row("Got, all verified" if not shop.refused else "Verified", count(shop.verified, "green"))
    if shop.refused:
        table.add_row("Forged, refused", count(shop.refused, "bold red"))
    table.add_row("Failed on purpose", count(shop.on_purpose, "yellow"))
    table.add_row("Got by a retry", count(shop.retried, "green"))
    table.add_row("Repeats dropped", count(shop.repeat))
    if not shop.refused:
        table.add_row("Late ones dropped", count(shop.older))
    return panel("The shop", table)


def _sale(seen: Snapshot) -> Panel:
    table = figures("", "available", "in escrow", "paid out", widths=(46, 9, 9, 9))
    for step in seen.sale[-(SALE_LINES - 3) :]:
        sums = (grouped(minor) for minor in (step.available, step.held, step.paid_out))
        table.add_row(f"{time_of_day(step.at_s)}  {step.text}", *sums)
    return panel("A sale for a seller: held until it is delivered", table, "the seller's, in XOF; paid out this month")


def step_in_words(step: Step) -> str:
    """One plain sentence."""
    available, held, paid_out = (money(m, "XOF") for m in (step.available, step.held, step.paid_out))
    words = f"seller: {step.text} | available {available}, in escrow {held}, paid out this month {paid_out}"
    return words.replace("\u00a0", " ").replace("\u202f", " ")


def _happened(seen: Snapshot, lines: int) -> Panel:
    rows = []
    for at, style, sentence in list(seen.happened)[-lines:]:
        text = Text(f"{at}  ", style="dim", no_wrap=True, overflow="ellipsis")
        text.append(sentence, style=style or "default not dim")
        rows.append(text)
    return panel("Just now", Group(*rows) if rows else Text("Waiting for the first callback …", style="dim"))


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
        hint: tuple[str, str] | None = None
        told: tuple[Step, ...] = ()
        while not await _stopped(stop, LINE_EVERY_S):
            seen = await look()
            said = lines(seen)
            said += [f"{clock(seen.elapsed_s)} | {step_in_words(step)}" for step in seen.sale if step not in told]
            told = tuple(seen.sale)
            if seen.hint and seen.hint != hint:
                said += seen.hint
            hint = seen.hint
            for text in said:
                console.print(text, markup=False, highlight=False, soft_wrap=True)
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
