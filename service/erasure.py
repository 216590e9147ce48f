"""
Forgetting one person. Facts, attempts and the audit trail hold no personal data; the bodies we keep as they came do,
and so may what a merchant put into a payment's metadata. Those are searched, row by row, and emptied.

Reads are pages beside the writer, the search runs in a thread, and only what is found is written, in small pieces. It
may be stopped and run again at any point.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, func, or_, select, tuple_, update

from outbox import pruning
from service.callbacks.process import DEFERRED
from service.callbacks.tables import callbacks, quarantine
from service.database import Database
from service.merchants.tables import events
from service.payments.tables import payments
from service.person import Person
from service.retention import WORKED_ON
from service.schema import outbox_tables
from service.seal import Seal, bound_to

ROWS_A_PAGE = 100
"""Of 256 kB at the most: 25 MB in memory, and nearly always a hundredth of that."""
ROWS_A_PIECE = 50
READ_MS = 30_000
KEPT_SHOWN_MAX = 500
EMPTY_WAIT_MS = 15_000
EMPTY_POLL_MS = 20

Progress = Callable[[int, int | None], None]


class Row(NamedTuple):
    """One row on the search: its key, and the texts in it."""

    key: Any
    texts: tuple[bytes, ...]


class Kept(NamedTuple):
    """A row that names the person and was kept all the same."""

    id: str
    why: str


@dataclass(slots=True)
class Result:
    """`erased` rows by kind, or what would be. `emptied`: nothing of it is left in the write-ahead file either."""

    erased: dict[str, int]
    kept: list[Kept] = field(default_factory=list)
    kept_count: int = 0
    looked: int = 0
    emptied: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """
    Where personal data may stand. `page(tx, after)` are the next rows; `owed(tx, keys)` says which of them must stay,
    and what to do; `empty(tx, keys, now_ms)` erases the person in the others.
    """

    name: str
    count: Callable[[Connection], int]
    page: Callable[[Connection, Any], Sequence[Row]]
    owed: Callable[[Connection, Sequence[Any]], Mapping[Any, Kept]]
    empty: Callable[[Connection, Sequence[Any], int], object]


async def erase(
    db: Database, seal: Seal, person: Person, clock: Callable[[], int], dry_run: bool, progress: Progress | None
) -> Result:
    """Search every place, and empty what names the person and is not owed any more."""
    places = _places(seal, person)
    total = 0
    for place in places:
        total += await db.read(place.count, deadline_ms=READ_MS)
    result = Result({place.name: 0 for place in places})
    for place in places:
        after: Any = None
        while rows := await db.read(place.page, after, deadline_ms=READ_MS):
            after = rows[-1].key
            found = await asyncio.to_thread(_naming, person, rows)
            for start in range(0, len(found), ROWS_A_PIECE):
                some = found[start : start + ROWS_A_PIECE]
                step = db.read(place.owed, some) if dry_run else db.write(_piece, place, some, clock())
                kept = await step
                result.erased[place.name] += len(some) - len(kept)
                result.kept_count += len(kept)
                result.kept += list(kept.values())[: KEPT_SHOWN_MAX - len(result.kept)]
            result.looked += len(rows)
            if progress is not None:
                progress(result.looked, max(total, result.looked))
    return result


def _piece(tx: Connection, place: Place, keys: Sequence[Any], now_ms: int) -> Mapping[Any, Kept]:
    """A work: what is owed is asked again here, where nobody can come between."""
    # What is overwritten is overwritten with zeros, in this piece at least; some builds of SQLite do it always.
    tx.exec_driver_sql("PRAGMA secure_delete=ON").close()
    kept = place.owed(tx, keys)
    gone = [key for key in keys if key not in kept]
    if gone:
        place.empty(tx, gone, now_ms)
    return kept


def _naming(person: Person, rows: Sequence[Row]) -> list[Any]:
    return [row.key for row in rows if person.named_in(*row.texts)]


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


def _places(seal: Seal, person: Person) -> tuple[Place, ...]:
    """All of them. What a payment is called by is the merchant's and the provider's, and is only told of."""
    return (
        Place("callbacks", _count(callbacks.c.id), _callbacks_page, _callbacks_owed, _callbacks_empty),
        Place("quarantine", _count(quarantine.c.id), _quarantine_page(seal), _nothing_owed, _quarantine_empty),
        Place("events", _count(events.c.position), _events_page, _events_owed, _events_empty(person)),
        Place("answers", _count(_t.message_id), _answers_page, _nothing_owed, _answers_empty),
        Place("payments", _count(payments.c.id), _payments_page, _nothing_owed, _payments_empty(person)),
        Place("references", lambda _: 0, _references_page, _references_owed, lambda tx, keys, now_ms: None),
    )


_t = outbox_tables.tries.c
_c = callbacks.c


def _count(column: Any) -> Callable[[Connection], int]:
    return lambda tx: int(tx.execute(select(func.count(column))).scalar_one())


def _nothing_owed(tx: Connection, keys: Sequence[Any]) -> Mapping[Any, Kept]:
    return {}


def _callbacks_page(tx: Connection, after: Any) -> list[Row]:
    query = select(_c.id, _c.body, _c.query).where(_c.id > (after or ""))
    rows = tx.execute(query.order_by(_c.id).limit(ROWS_A_PAGE))
    return [Row(row.id, (row.body, row.query)) for row in rows]


def _callbacks_owed(tx: Connection, keys: Sequence[Any]) -> Mapping[Any, Kept]:
    # The message that ends a wait stays for its 72 hours, also when the waiting is long over.
    asked = pruning.unsettled(tx, outbox_tables, keys, but=[DEFERRED])
    kept: dict[str, Kept] = {}
    for row in tx.execute(select(_c.id, _c.status).where(_c.id.in_(list(keys)))):
        if row.status not in WORKED_ON:
            kept[row.id] = Kept(row.id, f"{row.status}: let it be worked on, or replay it, then erase again")
        elif row.id in asked:
            kept[row.id] = Kept(
                row.id, "our question to the provider is not answered: wait, or replay it, then erase again"
            )
    return kept


def _callbacks_empty(tx: Connection, keys: Sequence[Any], now_ms: int) -> None:
    tx.execute(update(callbacks).where(_c.id.in_(list(keys))).values(body=b"", query=b"", erased_at_ms=now_ms))


def _quarantine_page(seal: Seal) -> Callable[[Connection, Any], list[Row]]:
    q = quarantine.c

    def page(tx: Connection, after: Any) -> list[Row]:
        rows = tx.execute(select(quarantine).where(q.id > (after or "")).order_by(q.id).limit(ROWS_A_PAGE))
        return [
            Row(row.id, (seal.open_bytes(row.body, bound_to("quarantine", row.id, "body")), row.query,
                         row.headers.encode()))
            for row in rows
        ]  # fmt: skip

    return page


def _quarantine_empty(tx: Connection, keys: Sequence[Any], now_ms: int) -> None:
    """It was never believed, so nothing is owed of it: the row goes."""
    tx.execute(delete(quarantine).where(quarantine.c.id.in_(list(keys))))


def _events_page(tx: Connection, after: Any) -> list[Row]:
    e = events.c
    rows = tx.execute(
        select(e.position, e.body).where(e.position > (after or 0)).order_by(e.position).limit(ROWS_A_PAGE)
    )
    return [Row(row.position, (row.body,)) for row in rows]


def _events_owed(tx: Connection, keys: Sequence[Any]) -> Mapping[Any, Kept]:
    rows = tx.execute(select(events.c.position, events.c.id).where(events.c.position.in_(list(keys)))).all()
    owed = pruning.unsettled(tx, outbox_tables, [row.id for row in rows], paid_again=True)
    why = "not delivered (`caisse deliveries list --event`): let it be delivered, or retry it, then erase again"
    return {row.position: Kept(row.id, why) for row in rows if row.id in owed}


def _events_empty(person: Person) -> Callable[[Connection, Sequence[Any], int], None]:
    """The event stays an event: whoever reads the feed finds its type and its payment, without the person."""

    def empty(tx: Connection, keys: Sequence[Any], now_ms: int) -> None:
        e = events.c
        for row in tx.execute(select(e.position, e.body).where(e.position.in_(list(keys)))).all():
            body = json.loads(row.body)
            body["data"] = person.without(body.get("data"))
            if person.named_in(json.dumps(body).encode()):
                body["data"] = {"erased": True}  # first name here, last name there
            told = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
            tx.execute(update(events).where(e.position == row.position).values(body=told))

    return empty


def _answers_page(tx: Connection, after: Any) -> list[Row]:
    query = select(_t.message_id, _t.number, _t.head).where(
        tuple_(_t.message_id, _t.number) > tuple_(*(after or ("", 0)))
    )
    rows = tx.execute(query.order_by(_t.message_id, _t.number).limit(ROWS_A_PAGE))
    return [Row((row.message_id, row.number), (row.head,)) for row in rows]


def _answers_empty(tx: Connection, keys: Sequence[Any], now_ms: int) -> None:
    for message_id, number in keys:
        mine = (_t.message_id == message_id) & (_t.number == number)
        tx.execute(update(outbox_tables.tries).where(mine).values(head=b""))


def _payments_page(tx: Connection, after: Any) -> list[Row]:
    p = payments.c
    rows = tx.execute(select(p.id, p.metadata).where(p.id > (after or "")).order_by(p.id).limit(ROWS_A_PAGE))
    return [Row(row.id, (row.metadata.encode(),)) for row in rows]


def _payments_empty(person: Person) -> Callable[[Connection, Sequence[Any], int], None]:
    """The merchant's notes keep their names: an empty set of notes would be filled again by the next callback."""

    def empty(tx: Connection, keys: Sequence[Any], now_ms: int) -> None:
        p = payments.c
        for row in tx.execute(select(p.id, p.metadata).where(p.id.in_(list(keys)))).all():
            notes = person.without(json.loads(row.metadata))
            if person.named_in(json.dumps(notes).encode()):
                notes = {"erased": "true"}
            tx.execute(update(payments).where(p.id == row.id).values(metadata=json.dumps(notes, sort_keys=True)))

    return empty


def _references_page(tx: Connection, after: Any) -> list[Row]:
    p = payments.c
    query = select(p.id, p.reference, p.provider_reference).where(
        p.id > (after or ""), or_(p.reference.is_not(None), p.provider_reference.is_not(None))
    )
    rows = tx.execute(query.order_by(p.id).limit(ROWS_A_PAGE))
    return [Row(r.id, tuple((name or "").encode() for name in (r.reference, r.provider_reference))) for r in rows]


def _references_owed(tx: Connection, keys: Sequence[Any]) -> Mapping[Any, Kept]:
    why = "its reference names the person: it is what the payment is found by, and stays as long as the payment"
    return {key: Kept(key, why) for key in keys}
