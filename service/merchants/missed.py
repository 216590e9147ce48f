"""
What endpoints have missed: queries, each one piece of a walk over what is dead and what waits for a retry.

Left out: what was delivered meanwhile or is on its way, what died after `until_ms` (or an endpoint that is still broken
would keep the walk going for ever), and what is owed to disabled endpoints.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy import Connection, Select, select

from outbox import walks
from service.merchants.events import WEBHOOK, delivery_id
from service.merchants.tables import endpoints, events
from service.schema import outbox_tables

LOOKED_A_PIECE = 250
ENDPOINTS_A_PIECE = 500
"""Looked up in one statement, about 2 ms of the writer's time when nothing waits there."""

Pair = tuple[str, str]
"""An event and an endpoint."""

Phase = Literal["pauses", "failed", "waiting"]
_AFTER: Mapping[Phase, Phase | None] = {"pauses": "failed", "failed": "waiting", "waiting": None}
FIRST: Phase = "pauses"

_d = outbox_tables.destinations.c


@dataclass(frozen=True, slots=True)
class Scope:
    """
    What to recover: what died from `since_ms` to `until_ms` and what waits for a retry since before that, of one
    endpoint, event type, payment or merchant; None means of all.
    """

    since_ms: int
    until_ms: int
    endpoint: str | None = None
    type: str | None = None
    payment: str | None = None
    merchant: str | None = None


@dataclass(slots=True)
class Stride:
    """
    What one piece found. `phase` and `cursor` say where the next one goes on; `phase` None: that was the last.

    `paused`: endpoints whose pause ends; `failed`: what is sent again, under which number; `waiting`: (id, endpoint)
    of what goes now. `skipped` and `disabled` count deliveries by endpoint.
    """

    phase: Phase | None
    cursor: str
    looked: int = 0
    paused: list[str] = field(default_factory=list)
    failed: dict[Pair, int] = field(default_factory=dict)
    waiting: list[tuple[str, str]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    disabled: Counter[str] = field(default_factory=Counter)


def siblings(tx: Connection, pairs: Collection[Pair]) -> dict[Pair, walks.Numbered]:
    """A query: of each, all deliveries of that event to that endpoint."""
    stems = {delivery_id(*pair).rpartition(":")[0]: pair for pair in pairs}
    return {stems[stem]: found for stem, found in walks.numbered(tx, outbox_tables, list(stems)).items()}


def look(
    tx: Connection, scope: Scope, phase: Phase, cursor: str, now_ms: int, sent_max: int = LOOKED_A_PIECE
) -> Stride:
    """A query: one piece of the walk, at most 250 rows, of which at most `sent_max` are to be sent. Changes nothing."""
    match phase:
        case "pauses":
            return _pauses(tx, scope, cursor, now_ms)
        case "failed":
            return _failed(tx, scope, cursor, sent_max)
        case "waiting":
            return _waiting(tx, scope, cursor, now_ms, min(LOOKED_A_PIECE, sent_max))


def _pauses(tx: Connection, scope: Scope, cursor: str, now_ms: int) -> Stride:
    e = endpoints.c
    # Who pauses and does not fail is only limited, and stays so.
    query = _endpoints(scope).where(
        _d.topic == WEBHOOK, _d.destination == e.id, _d.failures > 0, _d.paused_until_ms > now_ms, e.id > cursor
    )
    ids = list(tx.execute(query.order_by(e.id).limit(ENDPOINTS_A_PIECE)).scalars())
    stride = _goes_on("pauses", ids[-1] if len(ids) == ENDPOINTS_A_PIECE else None)
    stride.paused = ids
    return stride


def _failed(tx: Connection, scope: Scope, cursor: str, sent_max: int) -> Stride:
    if scope.payment:
        rows = walks.dead_about(tx, outbox_tables, WEBHOOK, _told(tx, scope.payment), cursor, LOOKED_A_PIECE)
    else:
        rows = walks.dead(tx, outbox_tables, WEBHOOK, cursor, LOOKED_A_PIECE)
    stride = _goes_on("failed", rows[-1].id if len(rows) == LOOKED_A_PIECE else None)
    timely = [row for row in rows if scope.since_ms <= row.finished_at_ms <= scope.until_ms]
    chosen, enabled = _chosen(tx, scope, timely)
    found = siblings(tx, {(row.subject, row.destination) for row in timely if row.id in chosen})
    last = cursor
    for row in rows:
        pair = row.subject, row.destination
        if row.id not in chosen:
            pass  # another one's
        elif found[pair].pending or found[pair].done:
            stride.skipped[row.destination] += 1
        elif row.id != delivery_id(*pair, found[pair].last):
            pass  # the last one speaks for all of them
        elif row.destination not in enabled:
            stride.disabled[row.destination] += 1
        elif len(stride.failed) == sent_max:
            stride.phase, stride.cursor = "failed", last
            break
        else:
            stride.failed[pair] = found[pair].last + 1
        stride.looked += 1
        last = row.id
    return stride


def _waiting(tx: Connection, scope: Scope, cursor: str, now_ms: int, limit: int) -> Stride:
    if scope.payment:
        rows = walks.waiting_about(tx, outbox_tables, WEBHOOK, _told(tx, scope.payment), cursor, limit)
        stride = _goes_on("waiting", rows[-1].id if len(rows) == limit else None)
    else:
        rows, stride = _waiting_by_endpoint(tx, scope, cursor, now_ms, limit)
    stride.looked = len(rows)
    # One that was tried since the job began has had its turn: without this an endpoint that is still broken would have
    # all its tries spent within a minute.
    rows = [row for row in rows if row.last_try_at_ms <= scope.until_ms and row.due_at_ms > now_ms]
    chosen, enabled = _chosen(tx, scope, rows)
    stride.waiting = [(row.id, row.destination) for row in rows if row.id in chosen and row.destination in enabled]
    return stride


def _waiting_by_endpoint(
    tx: Connection, scope: Scope, cursor: str, now_ms: int, limit: int
) -> tuple[list[walks.Waiting], Stride]:
    """The cursor is [endpoint, due_at_ms, id]: what is due later there, and the endpoints behind it."""
    after = walks.At(*json.loads(cursor)) if cursor else walks.At()
    query = _endpoints(scope).where(endpoints.c.id >= after.destination)
    names = list(tx.execute(query.order_by(endpoints.c.id).limit(ENDPOINTS_A_PIECE)).scalars())
    rows, at = walks.waiting(tx, outbox_tables, WEBHOOK, names, after, now_ms, limit)
    if at is None and len(names) == ENDPOINTS_A_PIECE:
        at = walks.At.behind(names[-1])
    return rows, _goes_on("waiting", None if at is None else json.dumps(at))


def _goes_on(phase: Phase, cursor: str | None) -> Stride:
    """Without a cursor the phase is over."""
    return Stride(_AFTER[phase], "") if cursor is None else Stride(phase, cursor)


def _endpoints(scope: Scope) -> Select[str]:
    """The enabled ones in question."""
    query = select(endpoints.c.id).where(endpoints.c.status == "enabled")
    if scope.endpoint:
        query = query.where(endpoints.c.id == scope.endpoint)
    if scope.merchant:
        query = query.where(endpoints.c.merchant_id == scope.merchant)
    return query


def _chosen(tx: Connection, scope: Scope, rows: Sequence[walks.Dead | walks.Waiting]) -> tuple[set[str], set[str]]:
    """The ids of those that the filters let through, and which of their endpoints are enabled."""
    if scope.endpoint:
        rows = [row for row in rows if row.destination == scope.endpoint]
    e = endpoints.c
    query = select(e.id, e.merchant_id, e.status).where(e.id.in_({row.destination for row in rows}))
    theirs = {row.id: row.status for row in tx.execute(query) if scope.merchant in (None, row.merchant_id)}
    rows = [row for row in rows if row.destination in theirs]
    if scope.type:
        of_type = select(events.c.id).where(events.c.id.in_({row.subject for row in rows}), events.c.type == scope.type)
        subjects = set(tx.execute(of_type).scalars())
        rows = [row for row in rows if row.subject in subjects]
    return {row.id for row in rows}, {id_ for id_, status in theirs.items() if status == "enabled"}


def _told(tx: Connection, payment_id: str) -> Sequence[str]:
    """The events of a payment: few."""
    return tx.execute(select(events.c.id).where(events.c.payment_id == payment_id)).scalars().all()
