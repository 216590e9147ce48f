"""
Forgetting what is paid: what is done, and what is dead but was *paid again*, done under a later number of the same id.
Nothing else is ever touched here, and the tries of a message go with it.

Plain functions over a transaction, each a piece of at most `ROWS_A_PIECE` rows. They walk the primary key, or look up
the index by subject: there is no index by age, because every message would pay for one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Integer, cast, delete, exists, func, or_, select

from outbox.tables import Tables

ROWS_A_PIECE = 500
"""Messages and tries that one piece deletes, about 5 ms of the writer's time: intake never waits long behind it."""


class Pruned(NamedTuple):
    """`after`: where the next piece goes on; None: the walk is over."""

    after: str | None
    looked: int = 0
    messages: int = 0
    tries: int = 0


class Forgotten(NamedTuple):
    """`subjects` have no message left; the others are for the next piece."""

    subjects: set[str]
    messages: int = 0
    tries: int = 0


def prune_ended(
    tx: Connection, tables: Tables, after: str, below: str, before_ms: int, *, dry_run: bool = False
) -> Pruned:
    """Look at the next messages with `after < id < below`, and delete those that were done before a time (ms)."""
    m = tables.messages.c
    rows = tx.execute(
        select(m.id, m.state, m.finished_at_ms).where(m.id > after, m.id < below).order_by(m.id).limit(ROWS_A_PIECE)
    ).all()
    if not rows:
        return Pruned(None)
    old = [row.id for row in rows if row.state == "done" and row.finished_at_ms < before_ms]
    tries = _tries_of(tx, tables, old)
    fits = old if dry_run else _fitting(old, tries)
    goes_on = rows[-1].id if len(fits) == len(old) else fits[-1]
    if not dry_run:
        _delete(tx, tables, fits)
    over = len(rows) < ROWS_A_PIECE and goes_on == rows[-1].id
    return Pruned(None if over else goes_on, len(rows), len(fits), sum(tries.get(id_, 0) for id_ in fits))


def unsettled(
    tx: Connection,
    tables: Tables,
    subjects: Collection[str],
    *,
    since_ms: int | None = None,
    but: Collection[str] = (),
) -> set[str]:
    """
    Which of these subjects are still owed something: a message that is pending, or dead and not paid again.

    `since_ms`: also those of which a message ended since then. `but`: topics that do not count.
    """
    m = tables.messages.c
    later = tables.messages.alias("later")
    paid_again = exists().where(
        later.c.subject == m.subject,
        later.c.topic == m.topic,
        later.c.destination == m.destination,
        later.c.state == "done",
        _stem(later.c.id) == _stem(m.id),
        _number(later.c.id) > _number(m.id),
    )
    owed: ColumnElement[bool] = (m.state != "done") & ~((m.state == "dead") & paid_again) & m.topic.not_in(list(but))
    if since_ms is not None:
        owed = or_(owed, m.finished_at_ms >= since_ms)
    return set(tx.execute(select(m.subject).where(m.subject.in_(list(subjects)), owed)).scalars())


def forget_subjects(tx: Connection, tables: Tables, subjects: Collection[str], *, dry_run: bool = False) -> Forgotten:
    """
    Delete the messages about these subjects, the lowest subject first, as many as fit into a piece.

    For subjects that are not `unsettled` in the same transaction. One that is too large for a piece goes in several,
    the lower numbers first: whoever comes between finds that what is dead was paid again, and the next number is one
    that nobody had.
    """
    m, t = tables.messages.c, tables.tries.c
    about = m.subject.in_(list(subjects)) & (m.state != "pending")
    if dry_run:
        messages = tx.execute(select(func.count()).where(about)).scalar_one()
        tries = tx.execute(select(func.count()).where(t.message_id == m.id, about)).scalar_one()
        return Forgotten(set(subjects), messages, tries)
    order = m.subject, func.length(m.id), m.id  # of one stem, :9 comes before :10
    found = tx.execute(select(m.subject, m.id).where(about).order_by(*order).limit(ROWS_A_PIECE + 1)).all()
    tried = _tries_of(tx, tables, [row.id for row in found])
    messages_of: dict[str, list[str]] = {subject: [] for subject in sorted(subjects)}
    for row in found:
        messages_of[row.subject].append(row.id)
    cut = found[-1].subject if len(found) > ROWS_A_PIECE else None  # whether it has more is not known
    whole: set[str] = set()
    gone: list[str] = []
    room = ROWS_A_PIECE
    for subject, ids in messages_of.items():
        room -= 1 + sum(1 + tried.get(id_, 0) for id_ in ids)
        if subject == cut or (room < 0 and (whole or len(ids) > 1)):
            if not whole:
                gone = _fitting(ids, tried)  # alone too large: a part of it
            break
        gone += ids
        whole.add(subject)
        if room <= 0:
            break
    _delete(tx, tables, gone)
    return Forgotten(whole, len(gone), sum(tried.get(id_, 0) for id_ in gone))


def _fitting(ids: Sequence[str], tried: Mapping[str, int]) -> list[str]:
    """The first of them whose rows fit into a piece, at least one."""
    used = 0
    for number, id_ in enumerate(ids):
        used += 1 + tried.get(id_, 0)
        if used > ROWS_A_PIECE and number:
            return list(ids[:number])
    return list(ids)


def _tries_of(tx: Connection, tables: Tables, ids: Sequence[str]) -> dict[str, int]:
    t = tables.tries.c
    counted = select(t.message_id, func.count()).where(t.message_id.in_(list(ids))).group_by(t.message_id)
    return {row[0]: row[1] for row in tx.execute(counted)} if ids else {}


def _delete(tx: Connection, tables: Tables, ids: Sequence[str]) -> None:
    if ids:
        tx.execute(delete(tables.tries).where(tables.tries.c.message_id.in_(list(ids))))
        tx.execute(
            delete(tables.messages).where(tables.messages.c.id.in_(list(ids)), tables.messages.c.state != "pending")
        )


_DIGITS = "0123456789"


def _stem(id_: ColumnElement[str]) -> ColumnElement[str]:
    return func.rtrim(id_, _DIGITS)


def _number(id_: ColumnElement[str]) -> ColumnElement[int]:
    """The number that an id ends with; 0 if it ends with none."""
    return cast(func.substr(id_, func.length(_stem(id_)) + 1), Integer)
