"""backup: a copy of the database into a file, also while the service runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.database import BackupFailed
from service.errors import Refusal
from service.seal import key_file

if TYPE_CHECKING:
    from service.application import Application

Progress = Callable[[int, int | None], None]


async def backup(app: Application, *, file: str, progress: Progress | None = None) -> dict[str, Any]:
    """Copy the database to a file that is not there yet. Raises Refusal: bad_file, exists, backup_failed."""
    to = Path(file)
    await asyncio.to_thread(_refuse, to)
    try:
        made = await app.db.backup(to, progress or (lambda *_: None))
    except BackupFailed as failed:
        raise Refusal("backup_failed", str(failed)) from None
    keys = None if app.settings.master_keys else str(key_file(app.db.path))
    where = f"the file {keys}" if keys else "CAISSE_MASTER_KEYS"
    return {
        "file": str(to),
        "bytes": made.bytes,
        "revision": made.revision,
        "rows": made.rows,
        "seconds": round(made.seconds, 3),
        "master_key": keys,
        "note": f"The master key is not in it: keep {where} too, somewhere else. Without it nobody can open the "
        "credentials and secrets that are sealed in here.",
    }


def _refuse(to: Path) -> None:
    if not to.is_absolute() or not to.parent.is_dir():
        raise Refusal("bad_file", f"{to} must be the whole path of a new file, in a folder that is there.")
    if to.exists() or to.is_symlink():
        raise Refusal("exists", f"{to} is there already, and a backup never writes over anything.")
