"""
Walking what is dead and what waits for a retry, piece by piece: queries over a transaction, each of at most `limit`
rows of an index, whatever the size of the table.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, func, select, text

from outbox.tables import AGAIN, Tables

DEAD = "state = 'dead'"
"""The condition of the index `outbox_dead`, word by word."""

_NUMBERED = """
SELECT p.value, max(CAST(substr(m.id, length(p.value) + 2) AS INTEGER)),
  max(CASE WHEN m.state = 'pending' THEN m.id END), max(CASE WHEN m.state = 'done' THEN 1 ELSE 0 END)
FROM json_each(:stems) AS p CROSS JOIN {messages} AS m ON m.id > p.value || ':' AND m.id < p.value || ';'
GROUP BY p.value"""


class Dead(NamedTuple):
    id: str
    destination: str
    subject: str
    finished_at_ms: int


class Waiting(NamedTuple):
    """`last_try_at_ms`: when its last settled try began."""

    id: str
    destination: str
    subject: str
    due_at_ms: int
    last_try_at_ms: int


class Numbered(NamedTuple):
    """Messages whose ids are a stem, a colon and a number: the `last` number, and those that are not dead."""

    last: int
    pending: str | None
    done: bool


def dead(tx: Connection, tables: Tables, topic: str, after: str, limit: int) -> list[Dead]:
    """The next dead messages of a topic with `id > after`, by id."""
    m = tables.messages.c
    query = select(*_of_dead(tables)).where(m.topic == topic, text(DEAD), m.id > after)
    return [Dead(*row) for row in tx.execute(query.order_by(m.id).limit(limit))]


def dead_about(
    tx: Connection, tables: Tables, topic: str, subjects: Collection[str], after: str, limit: int
) -> list[Dead]:
    """The same, only those about these few subjects, which it looks up."""
    m = tables.messages.c
    query = select(*_of_dead(tables)).where(_about(tables, topic, "dead", subjects), m.id > after)
    return [Dead(*row) for row in tx.execute(query.order_by(m.id).limit(limit))]


def waiting(
    tx: Connection, tables: Tables, topic: str, destination: str, after: tuple[int, str], limit: int
) -> list[Waiting]:
    """
    The next messages to a destination that were tried, are not in flight and are due after `after` (ms, id), in the
    order of (due_at_ms, id).
    """
    m = tables.messages.c
    at_ms, id_ = after
    query = select(*_of_waiting(tables)).where(
        m.topic == topic,
        m.destination == destination,
        text(AGAIN),
        m.claim == m.settled_claim,
        m.due_at_ms >= at_ms,
        (m.due_at_ms > at_ms) | (m.id > id_),
    )
    return [Waiting(*row) for row in tx.execute(query.order_by(m.due_at_ms, m.id).limit(limit))]


def waiting_about(
    tx: Connection, tables: Tables, topic: str, subjects: Collection[str], after: str, limit: int
) -> list[Waiting]:
    """Those about these few subjects, to whomever, with `id > after`, by id."""
    m = tables.messages.c
    about = _about(tables, topic, "pending", subjects)
    query = select(*_of_waiting(tables)).where(about, m.tries > 0, m.claim == m.settled_claim, m.id > after)
    return [Waiting(*row) for row in tx.execute(query.order_by(m.id).limit(limit))]


def _of_dead(tables: Tables) -> tuple[ColumnElement[Any], ...]:
    m = tables.messages.c
    return m.id, m.destination, m.subject, m.finished_at_ms


def _of_waiting(tables: Tables) -> tuple[ColumnElement[Any], ...]:
    m = tables.messages.c
    return m.id, m.destination, m.subject, m.due_at_ms, func.coalesce(m.last_try_at_ms, 0)


def _about(tables: Tables, topic: str, state: str, subjects: Collection[str]) -> ColumnElement[bool]:
    # `state || ''` keeps SQLite from the partial indexes of all that is dead or pending: it has to look the few up.
    m = tables.messages.c
    return and_(m.subject.in_(list(subjects)), m.topic == topic, m.state.concat("") == state)


def numbered(tx: Connection, tables: Tables, stems: Sequence[str]) -> dict[str, Numbered]:
    """What there is under each stem; those under which there is nothing are left out. Probes the primary key."""
    statement = text(_NUMBERED.format(messages=tables.messages.name))
    rows = tx.execute(statement, {"stems": json.dumps(list(stems))})
    return {stem: Numbered(last, pending, bool(done)) for stem, last, pending, done in rows}
