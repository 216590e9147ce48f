"""
Forgetting one person. Facts and attempts hold no personal data; what does stands in the places of `personal.py`. They
are searched, row by row, and emptied.

Reads are pages beside the writer, the search runs in a thread, and only what is found is written, in small pieces. It
may be stopped and run again at any point.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, func, select

from service.database import Database
from service.person import Person
from service.personal import NAMES, Key, Left, Named, Place, Row, bytes_of, places
from service.retention import BYTES_A_PIECE, first_fitting
from service.seal import Seal

__all__ = ["NAMES", "Result", "erase", "wal_emptied"]

ROWS_A_PIECE = 50
READ_MS = 30_000
SHOWN_MAX = 500
EMPTY_WAIT_MS = 15_000
EMPTY_POLL_MS = 20

Progress = Callable[[int, int | None], None]


@dataclass(slots=True)
class Result:
    """
    `erased` rows by kind, or what would be. `unread`: ids of rows that could not be opened, and so not be searched.
    `emptied`: nothing of what was erased is left in the write-ahead file either.
    """

    erased: dict[str, int]
    left: list[Left] = field(default_factory=list)
    left_count: int = 0
    unread: list[str] = field(default_factory=list)
    unread_count: int = 0
    looked: int = 0
    emptied: bool = True


async def erase(
    db: Database,
    seal: Seal,
    person: Person,
    clock: Callable[[], int],
    *,
    also_parked: bool,
    dry_run: bool,
    progress: Progress | None = None,
) -> Result:
    """
    Search every place, and empty what names the person and is not owed any more. `also_parked`: callbacks that rest
    unfinished too; they can never be worked on then.
    """
    where = places(seal, person, also_parked)
    total = 0
    for place in where:
        total += await db.read(_count, place, deadline_ms=READ_MS)
    result = Result({place.name: 0 for place in where})
    for place in where:
        after: Key | None = None
        while rows := await db.read(place.page, after, deadline_ms=READ_MS):
            after = rows[-1].key
            named = await asyncio.to_thread(_naming, person, place, rows)
            for some in _pieces(named):
                keys = [one.row.key for one in some]
                step = db.read(place.owed, keys) if dry_run else db.write(_piece, place, some, clock())
                left = await step
                result.erased[place.name] += len(some) - len(left)
                result.left_count += len(left)
                result.left += list(left.values())[: SHOWN_MAX - len(result.left)]
            found = {one.row.key for one in named}
            unread = [str(row.key[0]) for row in rows if row.unread and row.key not in found]
            result.unread_count += len(unread)
            result.unread += unread[: SHOWN_MAX - len(result.unread)]
            result.looked += len(rows)
            if progress is not None:
                progress(result.looked, max(total, result.looked))
    if progress is not None:
        progress(result.looked, result.looked)
    return result


def _count(tx: Connection, place: Place) -> int:
    """Of the places that may be large; the others are few beside them."""
    return 0 if place.counted is None else int(tx.execute(select(func.count(place.counted))).scalar_one())


def _naming(person: Person, place: Place, rows: Sequence[Row]) -> list[Named]:
    return [Named(row, place.told(row)) for row in rows if person.named_in(*map(bytes_of, row.texts))]


def _pieces(named: Sequence[Named]) -> Iterator[Sequence[Named]]:
    while named:
        fit = first_fitting([sum(map(len, one.row.texts)) for one in named], ROWS_A_PIECE, BYTES_A_PIECE)
        yield named[:fit]
        named = named[fit:]


def _piece(tx: Connection, place: Place, named: Sequence[Named], now_ms: int) -> Mapping[Key, Left]:
    """A work: what is owed is asked again here, where nobody can come between."""
    owed = place.owed(tx, [one.row.key for one in named])
    gone = [one for one in named if one.row.key not in owed]
    return {**owed, **(place.empty(tx, gone, now_ms) if gone else {})}


async def wal_emptied(db: Database) -> bool:
    """Wait until the write-ahead file was emptied into the database since the last commit; False: not yet."""
    before = db.stats.checkpoints
    loop = asyncio.get_running_loop()
    until_s = loop.time() + EMPTY_WAIT_MS / 1000
    while True:
        # The writer does it when nobody has written for a second, or when the file has grown large.
        if db.stats.checkpoints > before or not _wal_bytes(db):
            return True
        if loop.time() >= until_s:
            return False
        await asyncio.sleep(EMPTY_POLL_MS / 1000)


def _wal_bytes(db: Database) -> int:
    try:
        return Path(f"{db.path}-wal").stat().st_size
    except OSError:
        return 0
