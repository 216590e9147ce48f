"""
docs/performance.json, and what is made of it: the charts, and the tables in docs/performance.md.

The page's words are written by hand; what stands between `<!-- figures: name -->` and `<!-- end -->` is made.
`make bench ARGS=--save` writes all three, `python -m tests.bench.page` the last two; a test compares.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench.charts import CHARTS, charts
from tests.bench.parts import PARTS
from tests.bench.sheets import judged

DOCS = Path(__file__).parents[2] / "docs"
RESULTS, PAGE = DOCS / "performance.json", DOCS / "performance.md"

_BLOCK = re.compile(r"(<!-- figures: ([a-z_]+) -->\n).*?(<!-- end -->)", re.DOTALL)

Told = dict[str, Any]


def merged(before: Told, told: Told) -> Told:
    """
    What was measured now, beside what was measured before of the other parts; but figures of two machines are never
    beside each other. What was skipped, or measured in part, replaces nothing.
    """
    whole = {part.key: told[part.key] for part in PARTS if part.key in told and _whole(told[part.key])}
    kept = {part.key: before[part.key] for part in PARTS if part.key in before}
    if before.get("machine") != told["machine"]:
        kept = {}
    everything = kept | whole
    ordered = {part.key: everything[part.key] for part in PARTS if part.key in everything}
    return {"measured_at": told["measured_at"], "machine": told["machine"]} | ordered


def _whole(part: Mapping[str, Any]) -> bool:
    return "skipped" not in part and not part.get("partial")


def as_text(told: Told) -> str:
    """JSON with lists of numbers on one line: a queue has sixty samples."""
    text = json.dumps(told, indent=2, ensure_ascii=False)
    flat = re.compile(r"\[[^\[\]{}\"]*\]")
    text = flat.sub(lambda found: " ".join(found[0].split()).replace("[ ", "[").replace(" ]", "]"), text)
    return text + "\n"


def blocks(told: Told) -> dict[str, str]:
    """What is put into the page, by name."""
    made = {part.key: _block(part.key, part.sheet(told[part.key]).as_markdown()) for part in PARTS if part.key in told}
    machine = told["machine"]
    measured = sorted(
        {told[part.key].get("measured_at", told["measured_at"])[:10] for part in PARTS if part.key in told}
    )
    made["targets"] = judged(told).as_markdown()
    made["machine"] = (
        f"Taken on {', '.join(measured)} on {machine['cores']} cores ({machine['system']} {machine['architecture']}, "
        f"Python {machine['python']}, SQLite {machine['sqlite']})."
    )
    return made


def _block(key: str, table: str) -> str:
    drawn = [f"![{chart.alt}](charts/{chart.part}.svg)" for chart in CHARTS if chart.part == key]
    return "\n\n".join([table, *drawn])


def filled(page: str, told: Told) -> str:
    """The page with its blocks made anew; a part not measured yet says so. Raises KeyError for no such part."""
    made = {part.key: "Not measured yet." for part in PARTS} | blocks(told)
    return _BLOCK.sub(lambda found: f"{found[1]}{made[found[2]]}\n{found[3]}", page)


def read() -> Told:
    """The saved figures."""
    told: Told = json.loads(RESULTS.read_text("utf-8"))
    return told


def write(told: Told) -> None:
    """The figures, the charts and the page."""
    RESULTS.write_text(as_text(told), "utf-8")
    drawn = charts(told)
    (DOCS / "charts").mkdir(exist_ok=True)
    for path in (DOCS / "charts").glob("*.svg"):
        if f"charts/{path.name}" not in drawn:
            path.unlink()
    for name, text in drawn.items():
        (DOCS / name).write_text(text, "utf-8")
    PAGE.write_text(filled(PAGE.read_text("utf-8"), told), "utf-8")


if __name__ == "__main__":
    write(read())
