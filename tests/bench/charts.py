"""
Charts as SVG, of our own: two kinds in a hundred lines need no library, and the same figures give the same bytes, so
that a test can compare what stands in docs/ with docs/performance.json.

Colours follow the reader's light or dark setting, on a ground of their own; every value also stands there as text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

WIDTH, LABELS, VALUES = 760, 270, 120
LABEL_CHARACTERS_MAX = 36  # what fits left of the bars in the widest of the usual fonts
ROW, HEAD, FOOT = 30, 52, 16
PLOT = WIDTH - LABELS - VALUES

# rule: light, dark. Plain rules and no variables, which not every viewer of SVG knows.
_COLOURS = {
    ".ground": ("fill:#ffffff", "fill:#0d1117"),
    "text": ("fill:#1f2328", "fill:#e6edf3"),
    ".bar": ("fill:#2f6fb7", "fill:#58a6ff"),
    ".first": ("fill:#8c959f", "fill:#848d97"),
    ".range": ("stroke:#1f2328", "stroke:#e6edf3"),
    ".limit": ("stroke:#bc4c00", "stroke:#f0883e"),
    ".limits": ("fill:#bc4c00", "fill:#f0883e"),
    ".axis": ("stroke:#d8dee4", "stroke:#30363d"),
    ".line": ("stroke:#2f6fb7", "stroke:#58a6ff"),
}
_SHAPES = """
text{font:13px system-ui,-apple-system,"Segoe UI",sans-serif}text.title{font-weight:600;font-size:14px}
text.small{font-size:11px}.end{text-anchor:end}.range,.limit{stroke-width:1.5}.limit{stroke-dasharray:5 3}
.line{fill:none;stroke-width:2}
"""


def _style() -> str:
    light = "".join(f"{rule}{{{colour}}}" for rule, (colour, _) in _COLOURS.items())
    dark = "".join(f"{rule}{{{colour}}}" for rule, (_, colour) in _COLOURS.items())
    return f"{_SHAPES}{light}\n@media (prefers-color-scheme:dark){{{dark}}}\n"


class Bar(NamedTuple):
    """A median with its extremes. `first`: what the others are compared with, and drawn in grey."""

    label: str
    median: float
    low: float
    high: float
    first: bool = False


def bars(title: str, unit: str, rows: Sequence[Bar], limit: float | None = None, limit_words: str = "") -> str:
    """Horizontal bars with their extremes, and perhaps a line that they should, or should not, reach."""
    most = max([*(row.high for row in rows), limit or 0.0, 1e-9]) * 1.04
    height = HEAD + ROW * len(rows) + FOOT + (14 if limit is not None else 0)

    def x(value: float) -> str:
        return _short(LABELS + PLOT * value / most)

    parts = []
    for number, row in enumerate(rows):
        top = HEAD + ROW * number
        middle = top + 11
        kind, width = "first" if row.first else "bar", _short(PLOT * row.median / most)
        whisker = f"M{x(row.low)} {middle}H{x(row.high)}M{x(row.low)} {middle - 4}v8M{x(row.high)} {middle - 4}v8"
        parts += [
            f'<text class="end" x="{LABELS - 10}" y="{middle + 4}">{escape(row.label)}</text>',
            f'<rect class="{kind}" x="{LABELS}" y="{top}" rx="2" width="{width}" height="22"/>',
            f'<path class="range" d="{whisker}"/>',
            f'<text x="{WIDTH - VALUES + 10}" y="{middle + 4}">{_value(row.median)} {escape(unit)}</text>',
        ]
    if limit is not None:
        bottom = HEAD + ROW * len(rows)
        parts.append(f'<path class="limit" d="M{x(limit)} {HEAD - 6}V{bottom}"/>')
        side = ' class="end small limits"' if limit > most / 2 else ' class="small limits"'
        parts.append(f'<text{side} x="{x(limit)}" y="{bottom + 12}">{escape(limit_words)}</text>')
    return _page(title, height, parts)


def line(title: str, across: str, up: str, points: Sequence[tuple[float, float]]) -> str:
    """One line over time, from zero."""
    left, right, top, bottom = 64, WIDTH - 20, HEAD, 240
    last, most = max((x for x, _ in points), default=1.0), _round(max((y for _, y in points), default=1.0))

    def place(x: float, y: float) -> str:
        return f"{_short(left + (right - left) * x / last)} {_short(bottom - (bottom - top) * y / most)}"

    parts = []
    for share in (0.0, 0.5, 1.0):
        y = _short(bottom - (bottom - top) * share)
        parts.append(f'<path class="axis" d="M{left} {y}H{right}"/>')
        parts.append(f'<text class="end small" x="{left - 8}" y="{float(y) + 4:g}">{_value(most * share)}</text>')
    parts.append(f'<path class="line" d="M{"L".join(place(x, y) for x, y in points)}"/>')
    parts.append(f'<text class="small" x="{left}" y="{bottom + 18}">0</text>')
    parts.append(f'<text class="end small" x="{right}" y="{bottom + 18}">{_value(last)} {escape(across)}</text>')
    parts.append(f'<text class="small" x="{left}" y="{HEAD - 8}">{escape(up)}</text>')
    return _page(title, bottom + 30, parts)


def _page(title: str, height: int, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img"><title>{escape(title)}</title><style>{_style()}</style>'
        f'<rect class="ground" width="{WIDTH}" height="{height}" rx="6"/>'
        f'<text class="title" x="16" y="26">{escape(title)}</text>'
    )
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def _value(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _round(number: float) -> float:
    """The next of 1, 2, 5, 10, 20 … that is not smaller."""
    power = 10.0 ** math.floor(math.log10(max(number, 1.0)))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= number)


# --- which charts there are ---------------------------------------------------------------------------

Told = Mapping[str, Any]


def _bar(one: Told, figure: str, first: bool = False) -> Bar:
    return Bar(one["title"], one[figure]["median"], one[figure]["low"], one[figure]["high"], first)


def _of(part: Told, figure: str, *names: str) -> list[Bar]:
    """Bars of these, the first of them in grey."""
    return [_bar(part[name], figure, number == 0) for number, name in enumerate(names) if name in part]


def _limit(part: Told, name: str, figure: str, times: float) -> tuple[float, str]:
    return part[name][figure]["median"] * times, f"{times:g} ×"


class Chart(NamedTuple):
    """A chart of one part; its file is docs/charts/<part>.svg."""

    part: str
    alt: str
    draw: Callable[[Told], str]


CHARTS = (
    Chart(
        "intake",
        "Bars: callbacks a second that each service takes, with the lowest and the highest run.",
        lambda told: bars(
            f"Durable intake, {told['clients']} clients",
            "a second",
            _of(told, "per_second", "verify", "session", "caisse", "caisse_working"),
        ),
    ),
    Chart(
        "waiting",
        "Bars: callbacks a second into an empty database and beside those that wait; a line at 0.9 times empty.",
        lambda told: bars(
            "Intake while nobody works",
            "a second",
            _of(told, "per_second", "empty", "full"),
            *_limit(told, "empty", "per_second", 0.9),
        ),
    ),
    Chart(
        "large",
        "Bars: callbacks a second into an empty database and into a large one; a line at 0.8 times empty.",
        lambda told: bars(
            f"Intake with {told['stored']:,} callbacks stored",
            "a second",
            _of(told, "per_second", "empty", "full"),
            *_limit(told, "empty", "per_second", 0.8),
        ),
    ),
    Chart(
        "end_to_end",
        "Line: how many messages wait in each second of the run end to end.",
        lambda told: line(
            f"The queue at {told['rate']:,.0f} callbacks a second", "s", "messages that wait", told["depth"]
        ),
    ),
    Chart(
        "isolation",
        "Bars: the other merchants' p99 when all is well and when one is in trouble; a line at 1.5 times all well.",
        lambda told: bars(
            "From our 200 to the receipt, the 49 others, p99",
            "ms",
            _of(told, "p99_ms", "alone", "hanging", "backlog", "backlog_far"),
            *_limit(told, "alone", "p99_ms", 1.5),
        ),
    ),
    Chart(
        "claim",
        "Bars: the time of one claim with a thousand and with a million pending; a line at twice the first.",
        lambda told: bars(
            f"One claim of {told['batch']}",
            "ms",
            _of(told, "claim_ms", "few", "deep", "wide"),
            *_limit(told, "few", "claim_ms", 2),
        ),
    ),
    Chart(
        "hostile",
        "Bars: the honest callbacks' p99 alone and beside slow sockets; a line at twice the first.",
        lambda told: bars(
            "Honest callbacks beside slow sockets, p99",
            "ms",
            _of(told, "p99_ms", "alone", "hostile"),
            *_limit(told, "alone", "p99_ms", 2),
        ),
    ),
    Chart(
        "paying",
        "Bars: how long a client waits for the provider alone and for a payment; a line 10 ms after the provider.",
        lambda told: bars(
            f"Asking for a payment, {told['rate']:g} a second, p50",
            "ms",
            _of(told, "p50_ms", "provider", "payment", "payment_with_key"),
            told["provider"]["p50_ms"]["median"] + 10,
            "10 ms of ours",
        ),
    ),
    Chart(
        "memory",
        "Bars: the memory of all processes at rest and with deep queues; a line at 300 MB.",
        lambda told: bars(
            "Memory of all processes",
            "MB",
            _of(told, "megabytes", "rest", "waiting", "owed"),
            300,
            "300 MB (at rest 160)",
        ),
    ),
)


def charts(told: Told) -> dict[str, str]:
    """Every chart whose part was measured, by its path from docs/."""
    return {f"charts/{chart.part}.svg": chart.draw(told[chart.part]) for chart in CHARTS if drawn(told.get(chart.part))}


def drawn(part: Told | None) -> bool:
    """Whether there is something to draw: it was measured, and wholly."""
    return part is not None and "skipped" not in part and not part.get("partial")
