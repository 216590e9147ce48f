"""The charts and the tables of docs/performance.md are those that docs/performance.json gives."""

from __future__ import annotations

import re

import pytest

from tests.bench import page
from tests.bench.charts import charts
from tests.bench.parts import PARTS

STALE = "run `python -m tests.bench.page`, then read the change"


def test_the_tables_are_those_of_the_figures() -> None:
    """A figure in the page that nobody measured, or a target that has changed since, is found."""
    stands = page.PAGE.read_text("utf-8")
    assert stands == page.filled(stands, page.read()), STALE


def test_the_charts_are_those_of_the_figures() -> None:
    """Letter for letter; and no chart is left of a part that is gone."""
    stand = {f"charts/{path.name}": path.read_text("utf-8") for path in (page.DOCS / "charts").iterdir()}
    assert stand == charts(page.read()), STALE


def test_the_page_has_a_place_for_every_part() -> None:
    """What is measured is told."""
    places = re.findall(r"<!-- figures: ([a-z_]+) -->", page.PAGE.read_text("utf-8"))
    assert sorted(places) == sorted(["targets", "machine", *(part.key for part in PARTS)])


def test_every_chart_has_its_words() -> None:
    """An alt text says what is drawn."""
    pictures = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.PAGE.read_text("utf-8"))
    assert {path for _, path in pictures} == set(charts(page.read()))
    assert all(len(words) > 20 for words, _ in pictures)


def test_a_planted_figure_is_found() -> None:
    """The control: a page with another figure is not the page."""
    stands = page.PAGE.read_text("utf-8")
    planted = re.sub(r"\d(?= \|\n)", "x", stands, count=1)
    assert planted != stands
    assert page.filled(planted, page.read()) == page.filled(stands, page.read())
    with pytest.raises(KeyError):
        page.filled("<!-- figures: nothing -->\n<!-- end -->", page.read())
