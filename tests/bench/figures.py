"""What is made of the raw numbers: medians, ratios, and whether a queue grows."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import TypeVar

T = TypeVar("T")

GROWTH_SHARE_MAX = 0.01
"""A queue that grows by less than one in a hundred of what comes in is judged not to grow: noise is that big."""


def slope(samples: Sequence[tuple[float, float]]) -> float:
    """Least squares: by how much the second value grows for each unit of the first."""
    if len(samples) < 2:
        return 0.0
    return statistics.linear_regression([x for x, _ in samples], [y for _, y in samples]).slope


def grows(samples: Sequence[tuple[float, float]], per_second: float) -> bool:
    """Whether a queue sampled as (second, depth) grows; the first third is filling up and does not count."""
    settled = samples[len(samples) // 3 :]
    return slope(settled) > per_second * GROWTH_SHARE_MAX


def spread(values: Sequence[float]) -> dict[str, float]:
    """A median with its extremes: a single figure hides how much one machine varies."""
    return {
        "median": round(statistics.median(values), 2),
        "low": round(min(values), 2),
        "high": round(max(values), 2),
        "runs": len(values),
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def times(one: dict[str, float], other: dict[str, float]) -> float:
    """How many times the other one's median it is."""
    return round(one["median"] / other["median"], 2) if other["median"] else 0.0


def alternating(things: Sequence[T], runs: int) -> Iterator[tuple[int, T]]:
    """(run, thing): every thing once a run, each run beginning with another, so that none has the warm machine."""
    for run in range(runs):
        at = run % len(things)
        for thing in (*things[at:], *things[:at]):
            yield run, thing


def machine() -> dict[str, object]:
    """Where the figures come from; no host name, no path."""
    import sqlite3

    return {
        "cores": os.cpu_count(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "python": sys.version.split()[0],
        "sqlite": sqlite3.sqlite_version,
        "packages": {name: version(name) for name in ("litestar", "granian", "sqlalchemy", "aiosqlite", "aiohttp")},
    }
