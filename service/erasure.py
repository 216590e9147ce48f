"""
Forgetting one person. Facts and attempts hold no personal data; the bodies we keep as they came do, and so may what a
merchant put into a payment's metadata or somebody typed as a reason. Those are searched, row by row, and emptied.

Reads are pages beside the writer, the search runs in a thread, and only what is found is written, in small pieces. It
may be stopped and run again at any point.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Column, ColumnElement, Connection, Table, delete, func, or_, select, tuple_, update

from outbox import pruning
from service.callbacks.process import ASK, DEFERRED
from service.callbacks.tables import callbacks, quarantine, waits
from service.database import Database
from service.merchants.tables import audit, endpoints, events, recoveries
from service.payments.tables import aliases, attention, payments
from service.person import Person
from service.retention import BYTES_A_PIECE, WORKED_ON, first_fitting
from service.schema import outbox_tables
from service.seal import Seal, SealError, bound_to

ROWS_A_PAGE = 100
"""Of 256 kB at the most: 25 MB in memory, and nearly always a hundredth of that."""
ROWS_A_PIECE = 50
READ_MS = 30_000
SHOWN_MAX = 500
EMPTY_WAIT_MS = 15_000
EMPTY_POLL_MS = 20

ERASED = "(erased)"
"""What stands afterwards where somebody had typed a reason."""
NAMES = "references"
"""The place of what is searched and told of, and never emptied."""

Progress = Callable[[int, int | None], None]
Key = tuple[Any, ...]


class Row(NamedTuple):
    """One row on the search: its primary key and the texts in it. `unread`: it holds one more that cannot be opened."""

    key: Key
    texts: tuple[bytes | str, ...]
    unread: bool = False


class Named(NamedTuple):
    """A row that names the person; `told` is what is to stand there instead."""

    row: Row
    told: Any = None


class Left(NamedTuple):
    """A row that names the person and was left as it is."""

    id: str
    why: str


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


def _nothing_owed(tx: Connection, keys: Sequence[Key]) -> Mapping[Key, Left]:
    return {}


@dataclass(frozen=True, slots=True)
class Place:
    """
    Where personal data may stand. `page(tx, after)` are the next rows. `told(row)` is what is to stand there instead,
    worked out beside the writer. `owed(tx, keys)` says which of them must stay, and what to do. `empty(tx, named,
    now_ms)` erases the person in the others, and says which of them were changed since they were read.
    """

    name: str
    counted: Column[Any] | None
    page: Callable[[Connection, Key | None], Sequence[Row]]
    empty: Callable[[Connection, Sequence[Named], int], Mapping[Key, Left]]
    told: Callable[[Row], Any] = lambda _: None
    owed: Callable[[Connection, Sequence[Key]], Mapping[Key, Left]] = _nothing_owed


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
    places = _places(seal, person, also_parked)
    total = 0
    for place in places:
        total += await db.read(_count, place, deadline_ms=READ_MS)
    result = Result({place.name: 0 for place in places})
    for place in places:
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
    return [Named(row, place.told(row)) for row in rows if person.named_in(*map(_bytes, row.texts))]


def _bytes(text: bytes | str) -> bytes:
    return text.encode(errors="replace") if isinstance(text, str) else text


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


# --- the places ---------------------------------------------------------------------------------------

_m, _t = outbox_tables.messages.c, outbox_tables.tries.c
_c, _q, _e, _p = callbacks.c, quarantine.c, events.c, payments.c

_BY_NAME = "its reference names the person: it is what the payment is found by, and stays as long as the payment"
_BY_WAIT = "it waits for a payment whose reference names the person, and does so until that comes or it is replayed"
_BY_QUESTION = "its question to the provider names the payment, and so the person; it goes with CAISSE_KEEP_WORK_DAYS"


def _places(seal: Seal, person: Person, also_parked: bool) -> tuple[Place, ...]:
    """All of them. What money is called by is the merchant's and the provider's, and is only told of."""

    def event_told(row: Row) -> bytes:
        """The event stays an event: whoever reads the feed finds its type and its payment, without the person."""
        body = json.loads(row.texts[0])
        body["data"] = person.without(body.get("data"))
        if person.named_in(json.dumps(body).encode()):
            body["data"] = {"erased": True}  # first name here, last name there
        return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()

    def notes_told(row: Row) -> str:
        """The merchant's notes keep their names: an empty set of notes would be filled again by the next callback."""
        notes = person.without(json.loads(row.texts[0]))
        if person.named_in(json.dumps(notes).encode()):
            notes = {"erased": "true"}
        return json.dumps(notes, sort_keys=True)

    typed = (
        *(audit.c.reason, attention.c.detail, recoveries.c.reason, endpoints.c.disabled_reason, _c.reason),
        *(outbox_tables.destinations.c.held, _m.reason),
    )
    return (
        Place("callbacks", _c.id, _pages(callbacks, _c.body, _c.query), _callbacks_empty,
              owed=_callbacks_owed(also_parked)),
        Place("quarantine", _q.id, _quarantine_page(seal), _quarantine_empty),
        _texts("events", _e.body, event_told, _e.position, _events_owed),
        _texts("answers", _t.head, lambda _: b"", _t.message_id),
        _texts("payments", _p.metadata, notes_told, _p.id),
        *(_texts("reasons", column, lambda _: ERASED) for column in typed),
        _names(_p.id, _BY_NAME, _p.reference, _p.provider_reference, _p.order_id),
        _names(aliases.c.attempt_id, _BY_NAME, aliases.c.reference),
        _names(waits.c.callback_id, _BY_WAIT, waits.c.reference),
        _names(_m.subject, _BY_QUESTION, _m.payload, where=(_m.id > f"{ASK}:") & (_m.id < f"{ASK};")),
    )  # fmt: skip


def _keys(table: Table) -> list[Column[Any]]:
    return list(table.primary_key.columns)


def _pages(
    table: Table, *texts: Column[Any], where: ColumnElement[bool] | None = None
) -> Callable[[Connection, Key | None], list[Row]]:
    """By primary key, those that have a text at all."""
    keys = _keys(table)
    query = select(*keys, *texts).order_by(*keys).limit(ROWS_A_PAGE)
    query = query.where(or_(*(text != text.type.python_type() for text in texts)))
    if where is not None:
        query = query.where(where)

    def page(tx: Connection, after: Key | None) -> list[Row]:
        further = query if after is None else query.where(tuple_(*keys) > tuple_(*after))
        return [
            Row(tuple(row[: len(keys)]), tuple(text or "" for text in row[len(keys) :])) for row in tx.execute(further)
        ]

    return page


def _texts(
    name: str,
    column: Column[Any],
    told: Callable[[Row], Any],
    counted: Column[Any] | None = None,
    owed: Callable[[Connection, Sequence[Key]], Mapping[Key, Left]] = _nothing_owed,
) -> Place:
    """One column, of which another text takes the place."""
    table = column.table

    def empty(tx: Connection, named: Sequence[Named], now_ms: int) -> Mapping[Key, Left]:
        changed: dict[Key, Left] = {}
        for row, text in named:
            mine = (tuple_(*_keys(table)) == tuple_(*row.key)) & (column == row.texts[0])
            if tx.execute(update(table).where(mine).values({column: text})).rowcount == 0:
                changed[row.key] = Left(":".join(map(str, row.key)), "it was changed meanwhile: erase again")
        return changed

    return Place(name, counted, _pages(table, column), empty, told, owed)


def _names(shown: Column[Any], why: str, *columns: Column[Any], where: ColumnElement[bool] | None = None) -> Place:
    """What money is called by: told of under the id in `shown`, and left."""
    table = shown.table

    def owed(tx: Connection, keys: Sequence[Key]) -> Mapping[Key, Left]:
        query = select(*_keys(table), shown).where(tuple_(*_keys(table)).in_(list(keys)))
        return {tuple(row[:-1]): Left(row[-1], why) for row in tx.execute(query)}

    return Place(NAMES, None, _pages(table, *columns, where=where), lambda tx, named, now_ms: {}, owed=owed)


def _callbacks_owed(also_parked: bool) -> Callable[[Connection, Sequence[Key]], Mapping[Key, Left]]:
    def owed(tx: Connection, keys: Sequence[Key]) -> Mapping[Key, Left]:
        ids = [key[0] for key in keys]
        if also_parked:
            # Only what is being worked on, or asked about, right now.
            under_way = select(_m.subject).where(_m.subject.in_(ids), _m.state == "pending", _m.topic != DEFERRED)
            asked = set(tx.execute(under_way).scalars())
        else:
            # The message that ends a wait stays for its 72 hours, also when the waiting is long over.
            asked = pruning.unsettled(tx, outbox_tables, ids, but=[DEFERRED])
        left: dict[Key, Left] = {}
        for id_, status in tx.execute(select(_c.id, _c.status).where(_c.id.in_(ids))):
            if status not in WORKED_ON and (status == "received" or not also_parked):
                why = f"{status}: let it be worked on, or replay it, then erase again (or at once: --also-parked)"
                left[id_,] = Left(id_, why)
            elif id_ in asked:
                why = "our question to the provider is not answered: wait, or replay it, then erase again"
                left[id_,] = Left(id_, why)
        return left

    return owed


def _callbacks_empty(tx: Connection, named: Sequence[Named], now_ms: int) -> Mapping[Key, Left]:
    ids = [one.row.key[0] for one in named]
    tx.execute(update(callbacks).where(_c.id.in_(ids)).values(body=b"", query=b"", erased_at_ms=now_ms))
    tx.execute(delete(waits).where(waits.c.callback_id.in_(ids)))  # of what was parked: nothing is left to come back
    return {}


def _quarantine_page(seal: Seal) -> Callable[[Connection, Key | None], list[Row]]:
    def page(tx: Connection, after: Key | None) -> list[Row]:
        further = select(quarantine).where(_q.id > (after[0] if after else "")).order_by(_q.id).limit(ROWS_A_PAGE)
        return [_opened(seal, row) for row in tx.execute(further)]

    return page


def _opened(seal: Seal, row: Any) -> Row:
    try:
        body = seal.open_bytes(row.body, bound_to("quarantine", row.id, "body"))
    except SealError:
        return Row((row.id,), (row.query, row.headers), unread=True)
    return Row((row.id,), (body, row.query, row.headers))


def _quarantine_empty(tx: Connection, named: Sequence[Named], now_ms: int) -> Mapping[Key, Left]:
    """It was never believed, so nothing is owed of it: the row goes."""
    tx.execute(delete(quarantine).where(_q.id.in_([one.row.key[0] for one in named])))
    return {}


def _events_owed(tx: Connection, keys: Sequence[Key]) -> Mapping[Key, Left]:
    rows = tx.execute(select(_e.position, _e.id).where(_e.position.in_([key[0] for key in keys]))).all()
    owed = pruning.unsettled(tx, outbox_tables, [row.id for row in rows])
    why = "not delivered (`caisse deliveries list --event`): let it be delivered, or retry it, then erase again"
    return {(row.position,): Left(row.id, why) for row in rows if row.id in owed}
