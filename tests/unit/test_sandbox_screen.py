"""The live view: its words, its picture at both sizes, its plain line."""

from __future__ import annotations

import asyncio
import io
import shlex
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from service.sandbox.figures import clock, money, span
from service.sandbox.merchant import Counters
from service.sandbox.rows import Row, news, recovery, took
from service.sandbox.screen import Inflow, Outflow, Rates, Snapshot, Sums, draw, line, lines, watch

TITLES = ("Stripe", "Paystack", "FedaPay", "Monetbil", "Moneroo", "eBilling")
LONG = "Paystack · 68 500 XOF paid by Orange Money → delivered on 3rd try"
ENDPOINT = "ep_01KEXAMPLEEXAMPLEEXAMPLE00"
COMMAND = f".venv/bin/caisse --config caisse-dev/caisse.toml deliveries recover --since 10m --endpoint {ENDPOINT}"
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
        rows=[
            Row("shop", "ep_1", "", "closed", 0, 1204 * large, 5, 0, 0, 1, (0.009, 1.52)),
            Row("books", "ep_2", "", "half-open", 0, 512 * large, 0, 0, 0, 0, (0.006, 0.031)),
            Row("stock", "ep_3", "hangs", "open", 900, 0, 512 * large, 0, 0, 4),
            Row("courier", ENDPOINT, "down", "open", 12.4, 480 * large, 29, 5, 3 * large, 0, (0.999, 119.0)),
        ],
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
    words = [*TITLES, "Paid", "Not paid", "0:01:23", "XOF", "EUR"]
    words += ["courier down", "half-open", "119 s", "1.5 s", "9 ms"]
    if width >= 120:
        words += ["deferred", "parked", "tries again in 12 s", "failed", "Retrying", "3.2 s", "Given up", "2 disputed"]
        words += ["Repeats dropped"]
    else:
        words += ["open 12 s more", "open 15 min more", "Disputed"]
    for word in (*words, "missing", "23 commits/s", "WAL 1.2 MB", "2 to come again", "09:12:59", "webhooks/…"):
        assert word in text, word
    cut = [text for text in lines if "…" in text and not text.startswith("caisse dev")]
    assert cut == []


@pytest.mark.parametrize("width", [80, 120])
def test_a_command_can_be_copied_as_it_stands(width: int) -> None:
    """Without a frame; where it needs two lines the first ends in a backslash with nothing after it."""
    hint = "courier is up again and misses 3. In another terminal:", COMMAND
    shown = picture(replace(busy(), hint=hint), width, 24)
    assert len(shown) == 24
    at = next(number for number, text in enumerate(shown) if "misses 3" in text) + 1
    typed = "\n".join(shown[at : next(number for number, text in enumerate(shown) if text.startswith("╭"))])
    assert all(len(text) <= width for text in shown)
    assert "\\\n" in typed
    assert shlex.split(typed.replace("\\\n", " ")) == shlex.split(COMMAND)  # as a shell joins lines
    assert "09:12:59" in "\n".join(shown)


def row(**more: Any) -> Row:
    return Row("courier", ENDPOINT, **more)


def test_recovery_is_offered_when_it_can_help() -> None:
    """Not while the endpoint is down, not when nothing is missing; and it goes back far enough."""
    assert recovery(row(manner="down", missing=3, since_ms=1), 2) == ""
    assert recovery(row(failed=3), 2) == ""
    offered = {
        span_ms: recovery(row(missing=3, since_ms=1_000), 1_000 + span_ms).split()[3]
        for span_ms in (5_000, 600_001, 7_200_000, 7_200_001, 90_000_000)
    }
    assert list(offered.values()) == ["10m", "20m", "120m", "3h", "25h"]
    assert recovery(row(missing=3), 0).endswith(f"--endpoint {ENDPOINT}")


def test_what_changes_at_an_endpoint_is_said_once() -> None:
    """Down, circuit, repaired, brought: a sentence each, and none while nothing changes."""
    told = [
        (row(), row(manner="down"), "is down now"),
        (row(), row(circuit="open", again_s=30), "left alone for 30 s"),
        (row(circuit="open"), row(circuit="half-open"), "one try will tell"),
        (row(circuit="open"), row(), "circuit closes"),
        (row(manner="down"), row(), "is repaired"),
        (row(missing=3), row(), "0 missing"),
    ]
    for before, after, words in told:
        ((_, sentence),) = news(before, after)
        assert words in sentence
        assert len(f"│ 09:12:33  {sentence} │") <= 80
        assert news(after, after) == []


def test_how_long_it_took() -> None:
    """At most six characters, up to hours."""
    assert [took(s) for s in (0.0004, 0.9994, 0.9996, 119, 130)] == ["0 ms", "999 ms", "1.0 s", "119 s", "2 min"]


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
    assert "1 forged, refused" in "\n".join(picture(seen, 80, 24))


def test_the_plain_line_says_it_all() -> None:
    """One line, no colours, every provider by name."""
    said = line(busy())
    assert "\n" not in said
    assert "\u00a0" not in said
    for word in (*TITLES, "2 345 500 XOF", "2 345,50 EUR", "retrying 2", "dead 1", "repeats dropped 40"):
        assert word in said, word
    _, said = lines(busy())
    for word in ("stock (hangs): open, tries again in 15 min", "failed 5 of which missing 3", "p50 6 ms p99 31 ms"):
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
