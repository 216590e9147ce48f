"""Forgetting what is old: the run is promised here, and done piece by piece by the outbox (`retention`)."""

from __future__ import annotations

from typing import Protocol

from scheduler import Counters, Tick
from service.config import Settings
from service.jobs.finding import Parts
from service.retention import Pruner, Run, piece


class Pruning(Parts, Protocol):
    """What this job needs beside."""

    settings: Settings
    pruner: Pruner


async def prune(parts: Pruning, tick: Tick) -> Counters:
    """Promise the run, unless the last one is still under way. A dry run counts what would go."""
    if not tick.dry_run:
        promised = await parts.db.write(parts.pruner.promise, tick.now_ms)
        parts.nudge()
        return {"promised": int(promised), "under_way": int(not promised)}
    run = Run(tick.now_ms)
    while not run.over:
        run = await parts.db.read(piece, parts.settings, run, tick.now_ms, True)
        tick.progress(run.looked, None)
    return dict(run.gone)
