"""
What is kept how long, and forgetting the rest: a table of walks, done in small pieces by a topic of the outbox.

Never touched, however old: what is owed (a delivery that is pending or failed, its event and its tries; a callback that
was not worked on, or whose question was not answered), payments, facts and the audit trail.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, func, select, update

from outbox import pruning
from outbox.message import Done, Message, Outcome, Promise
from outbox.queue import Queue
from service.callbacks.tables import callbacks, quarantine, waits
from service.config import Settings
from service.ids import Clock, Ids
from service.merchants.tables import events
from service.payments.states import Callback
from service.schema import outbox_tables

PRUNE = "prune"
DAY_MS = 24 * 3_600_000
AT_MS = 2 * 3_600_000 + 30 * 60_000
"""When the day's run begins, after midnight UTC: night where our merchants are."""
ROWS_A_PIECE = 500
WORKED_ON = (Callback.PROCESSED.value, Callback.IGNORED.value)


class Stride(NamedTuple):
    """What one piece of one walk did. `after` None: the walk is over."""

    after: str | None
    looked: int = 0
    gone: Mapping[str, int] = {}


Walk = Callable[[Connection, str, int, bool, int], Stride]
"""(tx, after, before_ms, dry_run, now_ms): one piece of it, at most 500 rows."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One kind of row: the setting that says how long it is kept, and the walks that forget the older ones."""

    setting: str
    walks: tuple[Walk, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """How far a run is; its JSON is the payload of its next message, so that a kill costs nothing."""

    begun_at_ms: int
    walk: int = 0
    after: str = ""
    looked: int = 0
    gone: Mapping[str, int] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether nothing is left to walk."""
        return self.walk >= len(_WALKS)


def piece(tx: Connection, settings: Settings, run: Run, now_ms: int, dry_run: bool = False) -> Run:
    """One piece of a run, at most 500 rows; a query when it is dry. Ages are counted from the run's beginning."""
    setting, walk = _WALKS[run.walk]
    days: int = getattr(settings, setting)
    if not days:
        return replace(run, walk=run.walk + 1, after="")
    stride = walk(tx, run.after, run.begun_at_ms - days * DAY_MS, dry_run, now_ms)
    gone = {what: run.gone.get(what, 0) + stride.gone.get(what, 0) for what in {**run.gone, **stride.gone}}
    over = stride.after is None
    return Run(run.begun_at_ms, run.walk + over, "" if over else stride.after or "", run.looked + stride.looked, gone)


# --- the walks ----------------------------------------------------------------------------------------


def _deliveries(tx: Connection, after: str, before_ms: int, dry_run: bool, now_ms: int) -> Stride:
    """Events, with all their deliveries or not at all; by position, which is the order of time."""
    at = int(after or 0)
    query = select(events.c.position, events.c.id, events.c.created_at_ms).where(events.c.position > at)
    rows = tx.execute(query.order_by(events.c.position).limit(ROWS_A_PIECE)).all()
    # A clock that was put right may have left a younger one between old ones, but not five hundred of them.
    old = [row for row in rows if row.created_at_ms < before_ms]
    if not old:
        return Stride(None)
    ids = [row.id for row in old]
    owed = pruning.unsettled(tx, outbox_tables, ids, since_ms=before_ms)
    free = [id_ for id_ in ids if id_ not in owed]
    forgotten = pruning.forget_subjects(tx, outbox_tables, free, dry_run=dry_run)
    if not dry_run and forgotten.subjects:
        tx.execute(delete(events).where(events.c.id.in_(sorted(forgotten.subjects))))
    left = set(free) - forgotten.subjects
    first_left = next((row.position for row in old if row.id in left), None)
    goes_on = rows[-1].position if first_left is None else first_left - 1
    gone = {"events": len(forgotten.subjects), "deliveries": forgotten.messages, "tries": forgotten.tries}
    over = first_left is None and len(rows) < ROWS_A_PIECE
    return Stride(None if over else str(goes_on), len(rows), gone)


def _work(low: str, high: Callable[[int], str]) -> Walk:
    """Ended messages that are no deliveries, by their ids."""

    def walk(tx: Connection, after: str, before_ms: int, dry_run: bool, now_ms: int) -> Stride:
        ended = pruning.prune_ended(tx, outbox_tables, after or low, high(before_ms), before_ms, dry_run=dry_run)
        return Stride(ended.after, ended.looked, {"work": ended.messages, "tries": ended.tries})

    return walk


def _of_callbacks(rows_too: bool) -> Walk:
    """Callbacks that were worked on: body and query, or (`rows_too`) the row; by id, which is the order of time."""

    def walk(tx: Connection, after: str, before_ms: int, dry_run: bool, now_ms: int) -> Stride:
        c = callbacks.c
        ended_at_ms = func.coalesce(c.finished_at_ms, c.received_at_ms).label("ended_at_ms")
        query = select(c.id, c.status, c.erased_at_ms, ended_at_ms).where(
            c.id > after, c.id < _first_at("cb", before_ms)
        )
        rows = tx.execute(query.order_by(c.id).limit(ROWS_A_PIECE)).all()
        ids = [
            row.id
            for row in rows
            if row.status in WORKED_ON and row.ended_at_ms < before_ms and (rows_too or row.erased_at_ms is None)
        ]
        owed = pruning.unsettled(tx, outbox_tables, ids) if ids else set()
        free = [id_ for id_ in ids if id_ not in owed]
        if free and not dry_run:
            if rows_too:
                tx.execute(delete(waits).where(waits.c.callback_id.in_(free)))
                tx.execute(delete(callbacks).where(c.id.in_(free)))
            else:
                tx.execute(update(callbacks).where(c.id.in_(free)).values(body=b"", query=b"", erased_at_ms=now_ms))
        over = len(rows) < ROWS_A_PIECE
        return Stride(None if over else rows[-1].id, len(rows), {"callbacks" if rows_too else "bodies": len(free)})

    return walk


def _quarantine(tx: Connection, after: str, before_ms: int, dry_run: bool, now_ms: int) -> Stride:
    query = select(quarantine.c.id).where(quarantine.c.id > after, quarantine.c.id < _first_at("qua", before_ms))
    ids = tx.execute(query.order_by(quarantine.c.id).limit(ROWS_A_PIECE)).scalars().all()
    if ids and not dry_run:
        tx.execute(delete(quarantine).where(quarantine.c.id.in_(ids)))
    return Stride(None if len(ids) < ROWS_A_PIECE else ids[-1], len(ids), {"quarantine": len(ids)})


def _first_at(prefix: str, at_ms: int) -> str:
    """The lowest id that could be made at a time."""
    return Ids(lambda: max(0, at_ms), lambda: 0)(prefix)


KEPT: tuple[Kept, ...] = (
    Kept("keep_deliveries_days", (_deliveries,)),
    Kept(
        "keep_work_days",
        (
            _work("callback:", lambda before_ms: "callback:" + _first_at("cb", before_ms)),
            _work("deferred:", lambda before_ms: "deferred:" + _first_at("cb", before_ms)),
            _work("recover:", lambda before_ms: "recover:" + _first_at("rec", before_ms)),
            _work("ask:", lambda _: "ask;"),  # named by account and reference, so all of them are looked at
        ),
    ),
    Kept("keep_callback_bodies_days", (_of_callbacks(False),)),
    Kept("keep_callbacks_days", (_of_callbacks(True),)),
    Kept("keep_quarantine_days", (_quarantine,)),
)
_WALKS: tuple[tuple[str, Walk], ...] = tuple((kept.setting, walk) for kept in KEPT for walk in kept.walks)

WHAT: Mapping[str, tuple[str, str]] = {
    "events": ("keep_deliveries_days", "events of which nothing is owed"),
    "deliveries": ("keep_deliveries_days", "their deliveries"),
    "work": ("keep_work_days", "ended work on callbacks, and answered questions"),
    "tries": ("", "tries of all these"),
    "bodies": ("keep_callback_bodies_days", "bodies of callbacks that were worked on"),
    "callbacks": ("keep_callbacks_days", "callbacks that were worked on, row and all"),
    "quarantine": ("keep_quarantine_days", "quarantined callbacks"),
}
"""What goes: the setting, and what it is."""


# --- the daily run ------------------------------------------------------------------------------------


class Pruner:
    """
    The handler of the topic `prune`. A message is one piece and promises the next, the last one the next day's first:
    there is always exactly one, and it holds how far the run is.
    """

    def __init__(self, queue: Queue, settings: Settings, clock: Clock) -> None:
        self._queue, self._settings, self._clock = queue, settings, clock

    def ensure(self, tx: Connection) -> None:
        """Promise the next run unless one is promised or under way; at the start of the service."""
        m = outbox_tables.messages.c
        # The first two conditions are those of the index of what is owed to nobody.
        waits_ = select(m.id).where(m.state == "pending", m.destination == "", m.topic == PRUNE).limit(1)
        if tx.execute(waits_).first() is None:
            self._tomorrow(tx)

    def work(self, tx: Connection, messages: Sequence[Message]) -> list[Outcome]:
        """One piece each."""
        for message in messages:
            now_ms = self._clock()
            run = piece(tx, self._settings, _read(message.payload, now_ms), now_ms)
            self._forget_earlier(tx)
            if run.over:
                self._tomorrow(tx)
            else:
                _, day, number = message.id.split(":")
                self._promise(tx, f"{PRUNE}:{day}:{int(number) + 1}", now_ms, _written(run))
        return [Done() for _ in messages]

    def died(self, tx: Connection, messages: Sequence[Message]) -> None:
        """Today's run is spent; tomorrow's begins anew."""
        self._tomorrow(tx)

    def _tomorrow(self, tx: Connection) -> None:
        today = self._clock() // DAY_MS
        due_at_ms = (today + 1) * DAY_MS + AT_MS
        self._promise(tx, f"{PRUNE}:{_day(today + 1)}:0", due_at_ms, "")

    def _promise(self, tx: Connection, id_: str, due_at_ms: int, payload: str) -> None:
        self._queue.enqueue(tx, [Promise(id_, PRUNE, "", "", payload, due_at_ms)], self._clock())

    def _forget_earlier(self, tx: Connection) -> None:
        """A run of a million rows is thousands of messages; none of them tells anything once it is done."""
        pruning.prune_ended(tx, outbox_tables, f"{PRUNE}:", f"{PRUNE};", self._clock() + 1)


def _day(number: int) -> str:
    return datetime.fromtimestamp(number * DAY_MS / 1000, UTC).strftime("%Y-%m-%d")


def _written(run: Run) -> str:
    return json.dumps([run.begun_at_ms, run.walk, run.after, run.looked, dict(run.gone)], separators=(",", ":"))


def _read(payload: str, now_ms: int) -> Run:
    """Where the run is; a new one begins now. One of another version's shape begins anew too: nothing is lost by it."""
    try:
        begun_at_ms, walk, after, looked, gone = json.loads(payload)
        run = Run(int(begun_at_ms), int(walk), str(after), int(looked), dict(gone))
    except (ValueError, TypeError):
        return Run(now_ms)
    return Run(now_ms) if run.over else run


def next_run(tx: Connection) -> dict[str, Any] | None:
    """A query: when the next piece is due, and how far the run is."""
    m = outbox_tables.messages.c
    query = select(m.due_at_ms, m.payload).where(m.state == "pending", m.destination == "", m.topic == PRUNE)
    row = tx.execute(query.order_by(m.due_at_ms).limit(1)).first()
    if row is None:
        return None
    under_way = _read(row.payload, 0) if row.payload else None
    return {"due_at_ms": row.due_at_ms, "gone": None if under_way is None else dict(under_way.gone)}
