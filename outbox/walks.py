"""
Walking what is dead and what waits for a retry, piece by piece: queries over a transaction, each of at most `limit`
rows of an index, whatever the size of the table.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, func, select, text

from outbox.tables import Tables

DEAD = "state = 'dead'"
"""The condition of the index `outbox_dead`, word by word."""

_NUMBERED = """
SELECT p.value, max(CAST(substr(m.id, length(p.value) + 2) AS INTEGER)),
  max(CASE WHEN m.state = 'pending' THEN m.id END), max(CASE WHEN m.state = 'done' THEN 1 ELSE 0 END)
FROM json_each(:stems) AS p CROSS JOIN {messages} AS m ON m.id > p.value || ':' AND m.id < p.value || ';'
GROUP BY p.value"""


# What waits at one destination, in the order of its index: nothing is sorted but what is due at the same millisecond.
_OF_ONE = """
FROM {messages} AS x INDEXED BY outbox_again
WHERE x.topic = :topic AND x.destination = p.value
  AND x.state = 'pending' AND x.destination <> '' AND x.tries > 0
  AND x.due_at_ms >= CASE WHEN p.value = :begun THEN max(:at_ms, :now_ms + 1) ELSE :now_ms + 1 END"""

_HOW_MANY = """
SELECT p.value, (SELECT count(*) FROM (SELECT 1 {of_one} LIMIT :limit)) FROM json_each(:names) AS p"""

_WAITING = """
SELECT m.id, m.destination, m.subject, m.due_at_ms, coalesce(m.last_try_at_ms, 0)
FROM json_each(:names) AS p CROSS JOIN {messages} AS m
WHERE m.rowid IN (
  SELECT x.rowid {of_one} AND x.claim = x.settled_claim AND (p.value <> :begun OR x.due_at_ms > :at_ms OR x.id > :id)
  ORDER BY x.due_at_ms, x.id LIMIT :limit)
ORDER BY m.destination, m.due_at_ms, m.id LIMIT :limit"""


class At(NamedTuple):
    """Where a walk over what waits is: behind this message to this destination, and before all later names."""

    destination: str = ""
    due_at_ms: int = 0
    id: str = ""

    @classmethod
    def behind(cls, destination: str) -> At:
        """Behind all that waits there: at the next name there could be, which a blank behind it is."""
        return cls(destination + " ")


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
    tx: Connection, tables: Tables, topic: str, destinations: Sequence[str], after: At, now_ms: int, limit: int
) -> tuple[list[Waiting], At | None]:
    """
    The next messages to these destinations (sorted) that were tried, are not in flight and are due later than now, in
    the order of `At`; and where to go on, None behind the last. Two statements, however many destinations.
    """
    where: dict[str, Any] = {"topic": topic, "begun": after.destination, "at_ms": after.due_at_ms, "id": after.id}
    where |= {"now_ms": now_ms, "limit": limit}

    def ask(statement: str, names: Sequence[str]) -> Sequence[Any]:
        messages = tables.messages.name
        clause = text(statement.format(messages=messages, of_one=_OF_ONE.format(messages=messages)))
        return tx.execute(clause, {**where, "names": json.dumps(names)}).all()

    # Each may have `limit` of them, so first it is counted at how many to look.
    found = {row[0]: row[1] for row in ask(_HOW_MANY, destinations)}
    some: list[str] = []
    count = 0
    for name in destinations:
        if count >= limit:
            break
        count += found[name]
        some.append(name)
    here = [name for name in some if found[name]]
    rows = [Waiting(*row) for row in ask(_WAITING, here)] if here else []
    if len(rows) == limit:
        return rows, At(rows[-1].destination, rows[-1].due_at_ms, rows[-1].id)
    return rows, At.behind(some[-1]) if len(some) < len(destinations) else None


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
