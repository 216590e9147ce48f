"""
What most jobs do: find things page by page, and promise the outbox a look at each.

A page is read beside the service's work and promised in one short transaction, with how far the run is. What somebody
has promised meanwhile is not promised twice, so a page may come twice as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Connection, exists, select

from outbox.message import Promise
from outbox.queue import Queue
from scheduler import Counters, Tick
from service.database import Database
from service.schema import outbox_tables

READ_MS = 30_000
"""A page may be looked for in a table of millions, of which almost nothing is found."""

Look = Callable[[Connection, str, int], Sequence[Promise]]
"""`look(tx, after, limit)`: the next things by their ids, each as what is promised of it; `subject` is the id."""


class Parts(Protocol):
    """As much of the application as a job that promises needs."""

    db: Database
    queue: Queue

    def nudge(self) -> None:
        """Something was promised."""


async def promise_each(parts: Parts, tick: Tick, looks: Mapping[str, Look], batch: int) -> Counters:
    """Promise all that the looks find, `batch` in a transaction. Returns how many each found, dry or not."""
    counters = dict.fromkeys(looks, 0) | dict(tick.counters)
    at, _, after = tick.cursor.partition(" ")
    names = list(looks)
    for name in names[names.index(at) if at in looks else 0 :]:
        while True:
            found = list(await parts.db.read(looks[name], after, batch, deadline_ms=READ_MS))
            counters[name] += len(found)
            if found:
                after = found[-1].subject
                if not tick.dry_run:
                    await parts.db.write(_promise, parts.queue, tick, found, f"{name} {after}", counters)
                    parts.nudge()
                tick.progress(sum(counters.values()), None)  # how many there are is not known before the last page
            if len(found) < batch:
                break
        after = ""
    return counters


def promised(topic: str, subject: ColumnElement[str], payload: str = "") -> ColumnElement[bool]:
    """Whether a look of this topic and payload at a subject is on its way: to be done, in flight, or held."""
    m = outbox_tables.messages.c
    return exists().where(m.subject == subject, m.topic == topic, m.payload == payload, m.state == "pending")


def _promise(
    tx: Connection, queue: Queue, tick: Tick, found: Sequence[Promise], cursor: str, counters: Mapping[str, int]
) -> None:
    m: Any = outbox_tables.messages.c
    subjects = [promise.subject for promise in found]
    waiting = select(m.subject).where(
        m.subject.in_(subjects), m.topic == found[0].topic, m.payload == found[0].payload, m.state == "pending"
    )
    there = set(tx.execute(waiting).scalars())
    queue.enqueue(tx, [one for one in found if one.subject not in there], tick.now_ms)
    tick.keep_in(tx, cursor, counters)
