"""
The check of the ledger: whether it adds up, and whether everything has become what its facts say.

It is made of short reads, each one snapshot, and writes once at its end, so the service goes on meanwhile; nothing
that is wrong is mended. While the newest check says that something is wrong no payout is sent (`soundness`); the next
one that finds all well lets them go.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import Connection, Table, insert, select

from outbox.queue import Queue
from service.attention import close_attention, open_attention
from service.database import Database
from service.errors import Refusal
from service.escrow.payouts import hasten
from service.escrow.tables import holds, payouts
from service.ids import Clock, Ids
from service.ledger import books, ordinary, statuses
from service.ledger.payments import load, wanted
from service.ledger.soundness import is_sound
from service.ledger.tables import ledger_checks, postings, settlements
from service.merchants.audit import By
from service.orders.tables import orders, sessions
from service.payments.tables import payments

Progress = Callable[[int, int | None], None]
What = Literal["all", "ledger", "statuses"]
WHATS: Final[tuple[What, ...]] = ("all", "ledger", "statuses")

SUBJECT, UNSOUND = "ledger", "ledger_unsound"
"""What a person has to look at, and why."""
POSTINGS_PAGE, SUBJECTS_PAGE, IDS_PAGE, PAGE = 20_000, 5_000, 2_000, 500
"""Rows of one read: each takes some tenths of a second at the most."""
PROBLEMS_MAX: Final = 100


class Page(NamedTuple):
    """What one read came to: where the next begins, how many rows it looked at, what is wrong with them."""

    after: Any
    looked: int
    problems: list[str]


@dataclass(frozen=True, slots=True)
class Check:
    """
    What was found. `looked`: how many of what; `problems`: the first hundred, a sentence each, of `found` in all. `id`
    is empty for one that is not kept: a part that is sound proves nothing of the rest.
    """

    id: str
    begun_at_ms: int
    ended_at_ms: int
    sound: bool
    looked: Mapping[str, int]
    problems: tuple[str, ...]
    found: int


@dataclass(slots=True)
class _Run:
    """One check under way."""

    progress: Progress | None
    total: int | None = None
    done: int = 0
    looked: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    found: int = 0

    def take(self, what: str, page: Page) -> None:
        self.looked[what] = self.looked.get(what, 0) + page.looked
        self.found += len(page.problems)
        self.problems += page.problems[: PROBLEMS_MAX - len(self.problems)]
        self.done += page.looked
        if self.progress is not None:
            self.progress(self.done, self.total)


Look = Callable[[Connection, Any], Page]


class Verifier:
    """Checks the ledger. Holds what never changes; two checks at a time do not disturb each other."""

    def __init__(self, db: Database, queue: Queue, ids: Ids, clock: Clock) -> None:
        self._db, self._queue, self._ids, self._clock = db, queue, ids, clock

    async def check(self, by: By, progress: Progress | None = None, what: What = "all") -> Check:
        """
        Look at everything (or a part), keep what was found, put it before a person or take it away again.

        Raises Refusal bad_what.
        """
        if what not in WHATS:
            raise Refusal("bad_what", f"what: one of {', '.join(WHATS)}.")
        run = _Run(progress)
        run.total = await self._db.read(books.counted, _counted(what))
        if what != "statuses":
            await self._sums(run)
            await self._pages(run, "subjects", "", lambda tx, after: Page(*books.subjects(tx, after, SUBJECTS_PAGE)))
        await self._pages(run, "payments", "", lambda tx, after: _payments(tx, after, what))
        if what != "ledger":
            await self._pages(run, "orders", "", _orders)
            await self._pages(run, "sessions", "", _sessions)
        for name, (one, table, _) in books.ROWS.items():
            if what != "statuses" or name == "holds":
                await self._pages(run, name, "", _rows_of(name, one, table, what))
        return await self._db.write(self._keep, run, what, by)

    async def _sums(self, run: _Run) -> None:
        kept = await self._db.read(books.read_books)
        run.take("accounts", Page(None, len(kept.accounts), []))

        def piece(tx: Connection, after: int) -> Page:
            return Page(*books.add_piece(tx, kept, after, POSTINGS_PAGE))

        await self._pages(run, "postings", 0, piece)
        run.take("accounts", Page(None, 0, kept.problems()))
        run.take("escrows", Page(None, *await self._db.read(books.escrowed)))

    async def _pages(self, run: _Run, what: str, after: Any, look: Look) -> None:
        run.looked.setdefault(what, 0)
        while True:
            page = await self._db.read(look, after)
            run.take(what, page)
            if page.after == after:
                return
            after = page.after

    def _keep(self, tx: Connection, run: _Run, what: What, by: By) -> Check:
        now_ms, sound = self._clock(), not run.found
        id_ = self._ids("chk") if what == "all" or not sound else ""
        more = [f"… and {run.found - PROBLEMS_MAX} more."] if run.found > PROBLEMS_MAX else []
        if id_:
            was_sound = is_sound(tx)
            row = {
                "id": id_,
                "begun_at_ms": by.now_ms,
                "ended_at_ms": now_ms,
                "sound": sound,
                "looked": json.dumps(run.looked),
                "problems": json.dumps([*run.problems, *more], ensure_ascii=False),
                "actor": by.actor,
            }
            tx.execute(insert(ledger_checks).values(row))
            if sound:
                close_attention(tx, SUBJECT, UNSOUND, now_ms)
                if not was_sound:
                    hasten(tx, self._queue, "ledger", now_ms)
            else:
                open_attention(tx, self._ids, SUBJECT, UNSOUND, run.problems[0][:300], now_ms)
        return Check(id_, by.now_ms, now_ms, sound, run.looked, tuple(run.problems), run.found)


def _counted(what: What) -> list[Table]:
    statuses_of = [payments, orders, sessions, holds]
    ledger_of = [postings, payments, holds, payouts, settlements]
    return {"all": [*dict.fromkeys([*ledger_of, *statuses_of])], "ledger": ledger_of, "statuses": statuses_of}[what]


def _payments(tx: Connection, after: str, what: What) -> Page:
    ids = _ids_of(tx, payments, after)
    if not ids:
        return Page(after, 0, [])
    ours = ordinary.payments_to_look_at(tx, after, ids[-1])
    found: list[str] = []
    for at in range(0, len(ours), PAGE):
        found += _each(ours[at : at + PAGE], lambda few: _by_the_rules(tx, few, what))
    return Page(ids[-1], len(ids), found)


def _by_the_rules(tx: Connection, ids: Sequence[str], what: What) -> list[str]:
    records = load(tx, ids)
    there = {record.row["id"] for record in records}
    empty = [id_ for id_ in ids if id_ not in there]
    found: list[str] = []
    if what != "ledger":
        for record in records:
            found += statuses.of_payment(record)
        found += statuses.of_refunds(tx, records)
        found += statuses.without_attempts(tx, empty)
    if what != "statuses":
        should = wanted(tx, ((record.row, record.attempts) for record in records))
        found += books.compare(tx, "payment", should | {id_: {} for id_ in empty})
    return found


def _orders(tx: Connection, after: str) -> Page:
    ids = _ids_of(tx, orders, after)
    if not ids:
        return Page(after, 0, [])
    ours = ordinary.orders_to_look_at(tx, after, ids[-1])
    found = _each(ours, lambda few: statuses.of_orders(tx, statuses.rows_of(tx, orders, few)))
    return Page(ids[-1], len(ids), found)


def _sessions(tx: Connection, after: str) -> Page:
    ids = _ids_of(tx, sessions, after)
    if not ids:
        return Page(after, 0, [])
    ours = ordinary.sessions_to_look_at(tx, after, ids[-1])
    found = _each(ours, lambda few: statuses.of_sessions(tx, statuses.rows_of(tx, sessions, few)))
    return Page(ids[-1], len(ids), found)


def _rows_of(name: str, one: str, table: Table, what: What) -> Look:
    of_row = books.ROWS[name][2]

    def look(tx: Connection, after: str) -> Page:
        rows = statuses.page(tx, table, after, PAGE)
        if not rows:
            return Page(after, 0, [])
        last, found = rows[-1]["id"], list[str]()
        if what != "statuses":
            found += books.compare(tx, one, {row["id"]: of_row(row) for row in rows})
        if what != "ledger" and table is holds:
            ours = ordinary.holds_to_look_at(tx, after, last)
            found += _each(ours, lambda few: statuses.of_holds(tx, [row for row in rows if row["id"] in few]))
        return Page(last, len(rows), found)

    return look


def _each(ids: Sequence[str], look: Callable[[Sequence[str]], list[str]]) -> list[str]:
    """Look at these together; where a row has a word that the rules cannot read, find out which."""
    try:
        return look(ids) if ids else []
    except (ValueError, LookupError) as error:
        if len(ids) == 1:
            return [f"{ids[0]} cannot be read: {error!r}."]
        half = len(ids) // 2
        return _each(ids[:half], look) + _each(ids[half:], look)


def _ids_of(tx: Connection, table: Table, after: str) -> list[str]:
    query = select(table.c.id).where(table.c.id > after).order_by(table.c.id).limit(IDS_PAGE)
    return list(tx.execute(query).scalars())
