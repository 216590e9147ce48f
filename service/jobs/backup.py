"""The job `backup`: a copy of the database into a folder, under the time's name; the newest are kept."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

import structlog
from sqlalchemy import Connection

from scheduler import Counters, Tick
from service.attention import close_attention, open_attention
from service.config import Settings
from service.database import BackupFailed, Database
from service.ids import Clock, Ids

log = structlog.get_logger()

FAILED: Final = "backup_failed"
SUBJECT: Final = "backup"
_OURS: Final = re.compile(r"caisse-\d{8}T\d{6}Z\.db", re.ASCII)


class Parts(Protocol):
    """What this job needs."""

    db: Database
    settings: Settings
    ids: Ids
    clock: Clock


async def backup(parts: Parts, tick: Tick) -> Counters:
    """
    Make one, then remove the oldest beyond what is kept: never before a good new one is there. A dry run only counts.
    Raises what stopped it, with the matter put before a person.
    """
    folder, keep = parts.settings.backup_path, parts.settings.keep_backups
    if folder is None:
        return {"made": 0}
    if tick.dry_run:
        return {"made": 0, "there": len(kept(folder))}
    try:
        await asyncio.to_thread(_make, folder)
        to = folder / datetime.fromtimestamp(parts.clock() / 1000, UTC).strftime("caisse-%Y%m%dT%H%M%SZ.db")
        made = await parts.db.backup(to, tick.progress)
        gone = await asyncio.to_thread(_remove_oldest, folder, to, keep)
    except Exception as error:
        await parts.db.write(_failed, parts.ids, str(error), parts.clock())
        raise
    await parts.db.write(close_attention, SUBJECT, FAILED, parts.clock())
    log.info("backup.made", file=str(to), bytes=made.bytes, seconds=round(made.seconds, 1))
    return {"made": 1, "bytes": made.bytes, "removed": gone, "there": len(kept(folder))}


def kept(folder: Path) -> list[Path]:
    """The backups in a folder, the newest first. What has another name is somebody else's."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _OURS.fullmatch(path.name)), reverse=True)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BackupFailed(f"The folder {folder} cannot be made: {error.strerror}.") from error


def _remove_oldest(folder: Path, made: Path, keep: int) -> int:
    # After the clock was set back, the newest by name need not be the one that was just made.
    others = [path for path in kept(folder) if path != made]
    old = others[keep - 1 :] if keep else []
    try:
        for path in old:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise BackupFailed(f"The backup is made, but an old one cannot be removed: {error.strerror}.") from error
    return len(old)


def _failed(tx: Connection, ids: Ids, why: str, now_ms: int) -> None:
    open_attention(tx, ids, SUBJECT, FAILED, why[:500], now_ms)
