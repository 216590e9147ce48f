"""prune: forget now what the daily run would forget."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from service.merchants.events import rfc3339
from service.retention import PRUNE, WHAT, Run, piece

if TYPE_CHECKING:
    from service.application import Application

Progress = Callable[[int, int | None], None]


async def prune(app: Application, *, dry_run: bool = False, progress: Progress | None = None) -> dict[str, Any]:
    """Forget what is older than the settings say; it may be stopped and run again."""
    run = Run(app.clock())
    step = app.db.read if dry_run else app.db.write
    while not run.over:
        run = await step(piece, app.settings, run, app.clock(), dry_run)
        if progress is not None:
            progress(run.looked, None)
    standing = await app.db.read(app.scheduler.overview, app.clock())
    next_ms = next((one.next_due_at_ms for one in standing if one.name == PRUNE), None)
    return {
        "dry_run": dry_run,
        "looked": run.looked,
        "went": [
            {
                "what": what,
                "count": run.gone.get(what, 0),
                "setting": f"CAISSE_{setting.upper()}" if setting else "",
                "days": getattr(app.settings, setting) if setting else None,
                "meaning": meaning,
            }
            for what, (setting, meaning) in WHAT.items()
        ],
        "next_at": rfc3339(next_ms) if next_ms else None,
    }
