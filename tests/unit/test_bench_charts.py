"""The charts: well-formed, nothing outside the picture, every value also as text."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from tests.bench import claims, delivery, hostile, intake, memory, paying
from tests.bench.charts import LABEL_CHARACTERS_MAX, LABELS, PLOT, WIDTH, Bar, bars, charts, drawn, line

ROWS = [Bar("all well", 20, 18, 31, first=True), Bar("one <hangs> & more", 25, 24, 26)]
NAME = "{http://www.w3.org/2000/svg}"


def test_bars_are_as_long_as_their_figures() -> None:
    """The lengths are in the ratio of the medians, and fit."""
    page = ET.fromstring(bars("p99", "ms", ROWS, 30, "1.5 ×"))
    lengths = [float(rect.get("width", 0)) for rect in page.iter(f"{NAME}rect")][1:]
    assert abs(lengths[1] / lengths[0] - 25 / 20) < 0.01
    assert max(lengths) < PLOT
    assert [rect.get("class") for rect in page.iter(f"{NAME}rect")] == ["ground", "first", "bar"]


def test_the_limit_stands_where_its_figure_is() -> None:
    """Half as far again as the first bar is long."""
    text = bars("p99", "ms", ROWS, 30, "1.5 ×")
    at = re.search(r'class="limit" d="M([\d.]+) ', text)
    first = re.search(r'class="first" x="\d+" y="\d+" rx="2" width="([\d.]+)"', text)
    assert at and first and abs((float(at[1]) - LABELS) / float(first[1]) - 1.5) < 0.01
    assert 'class="limit"' not in bars("p99", "ms", ROWS)


def test_every_value_and_label_is_text_too() -> None:
    """Whoever does not see the bars reads them; what a label holds is escaped."""
    page = ET.fromstring(bars("p99", "ms", ROWS))
    words = [element.text for element in page.iter() if element.text]
    assert {"p99", "all well", "20 ms", "one <hangs> & more", "25 ms"} <= set(words)
    assert page.find(f"{NAME}title") is not None


def test_a_line_stays_inside_the_picture() -> None:
    """From the first sample to the last, never outside; zero is at the bottom."""
    text = line("queue", "s", "waiting", [(1.0, 0), (30.0, 180), (60.0, 90)])
    page = ET.fromstring(text)
    (path,) = (one.get("d", "") for one in page.iter(f"{NAME}path") if one.get("class") == "line")
    points = [tuple(map(float, pair.split())) for pair in path.removeprefix("M").split("L")]
    assert len(points) == 3
    assert all(0 <= x <= WIDTH and 0 <= y <= float(page.get("height", 0)) for x, y in points)
    assert points[0][1] > points[2][1] > points[1][1]


def test_there_are_colours_for_light_and_dark() -> None:
    """Every rule that has a colour has another one in the dark."""
    style = bars("p99", "ms", ROWS)
    light, _, dark = style.partition("@media (prefers-color-scheme:dark)")
    rules = r"([.\w]+)\{(?:fill|stroke):#([0-9a-f]{6})\}"
    assert dict(re.findall(rules, light)).keys() == dict(re.findall(rules, dark.partition("</style>")[0])).keys()
    assert dict(re.findall(rules, light)).items().isdisjoint(dict(re.findall(rules, dark)).items())


def test_only_what_was_measured_whole_is_drawn() -> None:
    """No empty chart, and none of a part that was skipped."""
    depth = {"rate": 1_000.0, "depth": [[1.0, 5], [2.0, 3]]}
    assert list(charts({"end_to_end": depth, "large": {"skipped": "no room"}})) == ["charts/end_to_end.svg"]
    assert not drawn(None) and not drawn({"partial": True})


def test_no_label_is_longer_than_its_place() -> None:
    """The titles of the bench's own cases fit beside the bars, at their full size."""
    titles = [one.title for one in intake.subjects()] + [one.title for one in hostile.subjects()]
    titles += [one.title for one in claims.cases(1_000_000, 5_000)]
    titles += [one.title for one in delivery.cases(100_000)]
    titles += [one.title for one in memory.cases(100_000)]
    titles += [one.title for one in paying.rows(1_000)]
    assert [title for title in titles if len(title) > LABEL_CHARACTERS_MAX] == []
