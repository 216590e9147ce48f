"""
The pull feed: what one merchant was told, in the order of the commits, and waiting for what comes next.

The order is `events.position`: an AUTOINCREMENT, given inside the one writer's transaction and never given twice. So
whoever sees a position sees every smaller one that will ever be, and a reader that asks for what is greater than its
last one misses nothing and gets nothing twice. (On PostgreSQL, where transactions commit in another order than they
took their numbers, this will need more.) A cursor is such a position, written down so that nobody counts with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, func, select, text

from service.database import Database, StorageError
from service.errors import Refusal
from service.merchants.events import ON_REQUEST
from service.merchants.tables import events

SCAN_ROWS = 5_000
"""Events looked at for one page at most: what a filter leaves out costs time, too."""
PAGE_BYTES = 256 << 10
"""A page ends after this, though never before its first event: two hundred `provider.event` would be 70 MB."""
READERS = 2
"""Pages read at the same time: the dispatcher, commands and `/readyz` need readers too."""
WAITING_PER_KEY = 4
WAITING_PER_MERCHANT = 40
WAITING = 200
LOOK_MS = 1_000
"""A commit that nobody told the feed of is found after this."""
LOOK_GAP_MS = 10
"""All waiting polls share one look after a commit; under load there is one look for all commits of this time."""
LOOK_ROWS = 1_000

_CURSOR = re.compile(r"cur_(0|[1-9a-f][0-9a-f]{0,14})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose events, and which of them. No `types`: all but those that are told only on request."""

    merchant_id: str
    live: bool
    types: frozenset[str] = frozenset()
    payment_id: str | None = None

    def has(self, row: Any) -> bool:
        """Whether an event is one of these; the same as `where`, for a row in hand."""
        return (
            row.merchant_id == self.merchant_id
            and row.live == self.live
            and (row.type in self.types if self.types else row.type not in ON_REQUEST)
            and self.payment_id in (None, row.payment_id)
        )

    def where(self) -> list[ColumnElement[bool]]:
        """The same in SQL."""
        column = events.c
        found = [column.merchant_id == self.merchant_id, column.live == self.live]
        found.append(column.type.in_(sorted(self.types)) if self.types else column.type.not_in(sorted(ON_REQUEST)))
        if self.payment_id is not None:
            found.append(column.payment_id == self.payment_id)
        return found


@dataclass(frozen=True, slots=True)
class Page:
    """
    Bodies as they were signed. `next` is where to go on, after what was looked at and left out as well; `more`: there
    is, or may be, more now. `head` is the last position that was given when this was read.
    """

    bodies: tuple[bytes, ...] = field(repr=False)
    next: int
    more: bool
    head: int


_HEAD = text("SELECT seq FROM sqlite_sequence WHERE name = 'events'")
_BODIES = select(events.c.position, events.c.body).where(events.c.position.in_(bindparam("wanted", expanding=True)))
_SINCE = (
    select(events.c.position, events.c.merchant_id, events.c.live, events.c.type, events.c.payment_id)
    .where(events.c.position > bindparam("seen"))
    .order_by(events.c.position)
    .limit(LOOK_ROWS)
)


def cursor(position: int) -> str:
    """A position as it is given away."""
    return f"cur_{position:x}"


def read(tx: Connection, wanted: Wanted, after: str | int, limit: int) -> Page:
    """
    At most `limit` events after a cursor, an event's id, or the beginning (empty); an integer is a page's `next`.

    Raises Refusal: bad_cursor (never given here), not_found (no such event, or not one that this caller may see).
    """
    head = int(tx.execute(_HEAD).scalar() or 0)
    begin = after if isinstance(after, int) else _position(tx, wanted, after, head)
    its = [events.c.merchant_id == wanted.merchant_id, events.c.position > begin]
    # The index alone answers this: where the last row stands that may be looked at, or None if there are not so many.
    window = select(events.c.position).where(*its).order_by(events.c.position).limit(1).offset(SCAN_ROWS - 1)
    end = tx.execute(window).scalar()
    bytes_ = func.length(events.c.body)
    matching = (
        select(events.c.position, bytes_.label("bytes"))
        .where(*its, *wanted.where(), bytes_ > 0)  # 0: kept longer than its body was
        .order_by(events.c.position)
        .limit(limit + 1)
    )
    found = tx.execute(matching if end is None else matching.where(events.c.position <= end)).all()
    taken: list[int] = []
    room = PAGE_BYTES
    for row in found[:limit]:
        if taken and row.bytes > room:
            break
        taken.append(row.position)
        room -= row.bytes
    bodies = {row.position: bytes(row.body) for row in tx.execute(_BODIES, {"wanted": taken})}
    if len(taken) < len(found):
        next_, more = taken[-1], True
    elif end is not None:
        next_, more = int(end), True
    else:
        last = select(func.max(events.c.position)).where(*its)
        next_, more = int(tx.execute(last).scalar() or begin), False
    return Page(tuple(bodies[position] for position in taken), next_, more, head)


def _position(tx: Connection, wanted: Wanted, after: str, head: int) -> int:
    if not after:
        return 0
    if after.startswith("evt_"):
        is_it = (events.c.id == after, events.c.merchant_id == wanted.merchant_id, events.c.live == wanted.live)
        found = tx.execute(select(events.c.position).where(*is_it)).scalar()
        if found is None:
            raise Refusal("not_found", f"after: there is no event {after[:60]!r}.")
        return int(found)
    match = _CURSOR.fullmatch(after)
    if match is None:
        raise Refusal("bad_cursor", "after: neither the `next` of an earlier answer nor the id of an event.")
    position = int(match[1], 16)
    if position > head:
        # After a database was put back from a backup: going on from here would miss what is told now.
        raise Refusal("bad_cursor", "after: this cursor is ahead of all that was ever told here.")
    return position


@dataclass(slots=True, eq=False)
class _Poll:
    wanted: Wanted
    head: int
    woken: asyncio.Event = field(default_factory=asyncio.Event)


class Feed:
    """
    Polls that wait. One look at the table serves them all, and wakes those that it found something for; while a poll
    waits it holds no connection. All of it belongs to the event loop.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._polls: set[_Poll] = set()
        self._places: Counter[str] = Counter()
        self._seen = 0  # every event up to here was looked at
        self._reading = asyncio.Semaphore(READERS)
        self._nudged = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self.closed = False

    @property
    def waiting(self) -> int:
        """Places that are taken."""
        return self._places[""]

    async def page(self, wanted: Wanted, after: str | int, limit: int) -> Page:
        """`read`, when it is our turn."""
        async with self._reading:
            return await self._db.read(read, wanted, after, limit)

    def nudge(self) -> None:
        """Something was committed. Costs nothing while nobody waits."""
        self._nudged.set()

    @contextlib.contextmanager
    def place(self, key_id: str, merchant_id: str) -> Iterator[None]:
        """A place to wait in. Raises Refusal (too_many_polls): the key, its merchant or everybody has all of theirs."""
        whose = {
            "": ("there are", WAITING),
            key_id: ("this key has", WAITING_PER_KEY),
            merchant_id: ("this merchant has", WAITING_PER_MERCHANT),
        }
        for who, (words, most) in whose.items():
            if self._places[who] >= most:
                detail = f"wait: {words} {most} waiting requests already; ask without `wait`, or later."
                raise Refusal("too_many_polls", detail)
        self._places.update(whose.keys())
        try:
            yield
        finally:
            self._places.subtract(whose.keys())
            self._places += Counter()  # forgets those that have none

    async def wait(self, wanted: Wanted, head: int, seconds: float, gone: asyncio.Future[Any]) -> bool:
        """
        Until something wanted is told that a page of this `head` does not have (True: read again), or the time is
        over, the client is `gone`, or the service stops (False).
        """
        if self.closed or gone.done():
            return False
        if head < self._seen:
            return True  # what lies between was looked at before we were there to be woken
        if not self._polls:
            self._seen = head  # nobody looked meanwhile; who committed since has left the nudge set
        poll = _Poll(wanted, head)
        self._polls.add(poll)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="feed")
        woken = asyncio.create_task(poll.woken.wait())
        try:
            await asyncio.wait((woken, gone), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            self._polls.discard(poll)
        return poll.woken.is_set() and not self.closed

    async def close(self) -> None:
        """The service stops: every poll ends, and none waits any more. Idempotent."""
        self.closed = True
        for poll in self._polls:
            poll.woken.set()
        self._nudged.set()
        if self._looking is not None:
            await self._looking  # not cancelled: a look takes milliseconds, a broken-off read costs its connection

    async def _look(self) -> None:
        """Runs while somebody waits."""
        while self._polls:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_MS / 1000):
                    await self._nudged.wait()
            self._nudged.clear()
            if self.closed:
                return
            try:
                rows = await self._db.read(_since, self._seen)
            except StorageError:
                rows = []  # the storage tells of itself; we look again
            for row in rows:
                for poll in self._polls:
                    if row.position > poll.head and poll.wanted.has(row):
                        poll.woken.set()
            if rows:
                self._seen = max(self._seen, rows[-1].position)
            if len(rows) == LOOK_ROWS:
                self._nudged.set()
            await asyncio.sleep(LOOK_GAP_MS / 1000)


def _since(tx: Connection, seen: int) -> Sequence[Any]:
    return tx.execute(_SINCE, {"seen": seen}).all()
