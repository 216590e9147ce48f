"""The live view: its words, its picture at both sizes, its plain line."""

from __future__ import annotations

import asyncio
import io

import pytest
from rich.console import Console

from service.sandbox.merchant import Counters
from service.sandbox.screen import Inflow, Outflow, Rates, Snapshot, Sums, clock, draw, line, money, span, watch

TITLES = ("Stripe", "Paystack", "FedaPay", "Monetbil", "Moneroo", "eBilling")
LONG = "Paystack · 68 500 XOF paid by Orange Money → delivered on 3rd try"
HEADING = ["[bold]caisse dev[/]  http://127.0.0.1:8080/webhooks/…", "[dim]Elsewhere: caisse payments list[/]"]


def busy(large: int = 1) -> Snapshot:
    """A morning at the market; `large` for a month of them."""
    return Snapshot(
        elapsed_s=83.2,
        inflows=[Inflow(title, 412 * large, 33, 4.2, 390 * large, 12, 1, 3, 0, 6) for title in TITLES],
        refused=0,
        postponed=2,
        paid=Sums(512 * large, {"XOF": 2_345_500 * large, "XAF": 950_000 * large, "EUR": 234_550 * large}),
        refunded=Sums(12, {"XOF": 45_500}),
        pending=Sums(4, {"XOF": 4_500, "EUR": 1_200}),
        unpaid=Sums(31, {"XOF": 450_000}),
        disputed=2,
        outflow=Outflow(1204 * large, 3, 2, 1, 3.2),
        shop=Counters(1300 * large, 1300 * large, 0, 20, 21, 22, 1100, 40, 3, 50),
        due=3,
        oldest_due_s=0.4,
        commits_per_s=23,
        wal_bytes=1_200_000,
        happened=[(f"09:12:{second:02d}", "green", LONG) for second in range(60)],
    )


def picture(seen: Snapshot, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(draw(seen, HEADING, width, height), height=height)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
@pytest.mark.parametrize("large", [1, 40])
def test_the_picture_fits(width: int, height: int, large: int) -> None:
    """Everything is there, nothing is cut off, and the newest line is seen."""
    lines = picture(busy(large), width, height)
    assert len(lines) == height
    assert all(len(text) <= width for text in lines)
    text = "\n".join(lines)
    words = (*TITLES, "Delivered", "Retrying", "3.2 s", "Given up", "Paid", "Not paid", "2 disputed", "0:01:23", "XOF")
    words += ("deferred", "parked") if width >= 120 else ()
    for word in (*words, "Repeats dropped", "23 commits/s", "WAL 1.2 MB", "2 to come again", "09:12:59", "webhooks/…"):
        assert word in text, word
    cut = [text for text in lines if "…" in text and not text.startswith("caisse dev")]
    assert cut == []


def test_an_empty_picture_says_what_it_waits_for() -> None:
    """The first frame, before anything has happened."""
    empty = Snapshot(0, [], 0, 0, Sums(), Sums(), Sums(), Sums(), 0, Outflow(), Counters(), 0, 0, 0, 0)
    assert "Waiting for the first callback" in "\n".join(picture(empty, 80, 24))
    assert "paid 0 (0)" in line(empty)


def test_what_should_not_be_is_said_aloud() -> None:
    """Refused callbacks and webhooks that cannot be verified have no line of their own until there are some."""
    seen = busy()
    calm = "\n".join(picture(seen, 120, 40))
    assert "refused" not in calm
    assert "Got, all verified" in calm
    seen.shop.refused = 1
    assert "Forged, refused" in "\n".join(picture(seen, 120, 40))


def test_the_plain_line_says_it_all() -> None:
    """One line, no colours, every provider by name."""
    said = line(busy())
    assert "\n" not in said
    assert "\u00a0" not in said
    for word in (*TITLES, "2 345 500 XOF", "2 345,50 EUR", "retrying 2", "dead 1", "repeats dropped 40"):
        assert word in said, word


def test_figures_are_written_as_in_french() -> None:
    """A space that does not break between thousands, a comma before cents, none for francs."""
    assert money(12_500, "XOF") == "12\u00a0500\u00a0XOF"
    assert money(1_250, "EUR") == "12,50\u00a0EUR"
    assert [span(seconds) for seconds in (-1, 0.44, 9.99, 119, 600, 9000)] == [
        "0.0 s", "0.4 s", "10 s", "119 s", "10 min", "2 h",
    ]  # fmt: skip
    assert clock(3723.9) == "1:02:03"


def test_rates_are_over_the_last_seconds() -> None:
    """A burst fades after five seconds, and a second reading at the same instant divides by nothing."""
    rates = Rates()
    assert rates.of("a", 0, 0.0) == 0
    assert rates.of("a", 10, 1.0) == 10
    assert rates.of("a", 10, 1.0) == 10
    for second in range(2, 12):
        last = rates.of("a", 10, float(second))
    assert last == 0


def test_a_pipe_gets_lines_and_a_terminal_a_picture() -> None:
    """`watch` ends as soon as it is told to."""

    async def look() -> Snapshot:
        return busy()

    async def run(terminal: bool, plain: bool) -> str:
        console = Console(file=io.StringIO(), force_terminal=terminal, width=80, height=24)
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, stop.set)
        await watch(console, look, HEADING, stop, plain)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    assert "\x1b" not in asyncio.run(run(terminal=False, plain=False))
    shown = asyncio.run(run(terminal=True, plain=False))
    assert "\x1b[?1049h" in shown
    assert "\x1b[?1049l" in shown
    assert "\x1b[?1049h" not in asyncio.run(run(terminal=True, plain=True))
