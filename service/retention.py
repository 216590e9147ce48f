"""
What is kept how long, and forgetting the rest: a table of walks, done in small pieces by a topic of the outbox.

Never touched, however old: what is owed (a delivery that is pending or failed, its event and its tries; a callback that
was not worked on, or whose question was not answered), payments, orders, sessions, facts, the audit trail, and payers'
own data, which only an erasure takes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, delete, func, select, tuple_, update

from outbox import pruning
from outbox.message import Done, Message, Outcome, Promise
from outbox.queue import Queue
from scheduler.runs import KEPT_RUNS, Runs
from scheduler.runs import ROWS_A_PIECE as RUNS_A_PIECE
from service import idempotency
from service.callbacks.tables import callbacks, quarantine, waits
from service.config import Settings
from service.ids import Clock, Ids
from service.merchants.tables import events
from service.payments.states import Callback
from service.payments.tables import idempotency as keys_used
from service.schema import outbox_tables, scheduler_tables

PRUNE = "prune"
DAY_MS = 24 * 3_600_000
ROWS_A_PIECE = 500
BYTES_A_PIECE = 256 * 1024
"""
Of bodies that one piece empties or deletes, about 5 ms of the writer's time: each of their pages is overwritten with
zeros, and written once more into the write-ahead file.
"""
WORKED_ON = (Callback.PROCESSED.value, Callback.IGNORED.value)


class Walked(NamedTuple):
    """What one piece of one walk did. `after` None: the walk is over."""

    after: str | None
    looked: int = 0
    gone: Mapping[str, int] = {}


Walk = Callable[[Connection, str, int, bool, int], Walked]
"""(tx, after, before_ms, dry_run, now_ms): one piece of it, at most 500 rows and 256 kB of bodies (or one row)."""


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
        return self.walk >= len(WALKS)


def piece(tx: Connection, settings: Settings, run: Run, now_ms: int, dry_run: bool = False) -> Run:
    """One piece of a run; a query when it is dry. Ages are counted from the run's beginning."""
    setting, walk = WALKS[run.walk]
    kept_ms = getattr(settings, setting) * DAY_MS if setting else idempotency.KEPT_MS
    if not kept_ms:
        return replace(run, walk=run.walk + 1, after="")
    walked = walk(tx, run.after, run.begun_at_ms - kept_ms, dry_run, now_ms)
    gone = {what: run.gone.get(what, 0) + walked.gone.get(what, 0) for what in {**run.gone, **walked.gone}}
    over = walked.after is None
    return Run(run.begun_at_ms, run.walk + over, "" if over else walked.after or "", run.looked + walked.looked, gone)


# --- the walks ----------------------------------------------------------------------------------------


def first_fitting(sizes: Sequence[int], rows_max: int, bytes_max: int) -> int:
    """How many of the first rows fit into one piece by their bytes; at least one."""
    fit = used = 0
    for size in sizes[:rows_max]:
        used += size
        if fit and used > bytes_max:
            break
        fit += 1
    return fit


class _Page(NamedTuple):
    """The keys of the next rows that fit into one piece; `last` of those that would without their bytes."""

    keys: list[Any]
    last: Any
    over: bool


def _page(tx: Connection, key: ColumnElement[Any], size: ColumnElement[int], *where: ColumnElement[bool]) -> _Page:
    # A length is known from the head of a row. What stands behind a large body is only read by going all through it,
    # and so is asked for once it is known how many rows that may be.
    rows = tx.execute(select(key, size).where(*where).order_by(key).limit(ROWS_A_PIECE)).all()
    fit = first_fitting([row[1] for row in rows], ROWS_A_PIECE, BYTES_A_PIECE)
    over = fit == len(rows) < ROWS_A_PIECE
    return _Page([row[0] for row in rows[:fit]], rows[-1][0] if rows else None, over)


def forget_events(tx: Connection, after: str, before_ms: int, dry_run: bool, now_ms: int) -> Walked:
    """Events, with all their deliveries or not at all; by position, which is the order of time."""
    e = events.c
    page = _page(tx, e.position, func.length(e.body), e.position > int(after or 0))
    query = select(e.position, e.id, e.created_at_ms).where(e.position.in_([*page.keys, page.last]))
    rows = tx.execute(query.order_by(e.position)).all()
    # A clock that was put right may have left a younger one between old ones, but not five hundred of them.
    if not any(row.created_at_ms < before_ms for row in rows):
        return Walked(None)
    old = [row for row in rows[: len(page.keys)] if row.created_at_ms < before_ms]
    ids = [row.id for row in old]
    owed = pruning.unsettled(tx, outbox_tables, ids, since_ms=before_ms)
    free = [id_ for id_ in ids if id_ not in owed]
    forgotten = pruning.forget_subjects(tx, outbox_tables, free, dry_run=dry_run)
    if not dry_run and forgotten.subjects:
        tx.execute(delete(events).where(events.c.id.in_(sorted(forgotten.subjects))))
    left = set(free) - forgotten.subjects
    first_left = next((row.position for row in old if row.id in left), None)
    goes_on = page.keys[-1] if first_left is None else first_left - 1
    gone = {"events": len(forgotten.subjects), "deliveries": forgotten.messages, "tries": forgotten.tries}
    over = first_left is None and page.over
    return Walked(None if over else str(goes_on), len(page.keys), gone)


def _work(low: str, high: Callable[[int], str]) -> Walk:
    """Ended messages that are no deliveries, by their ids."""

    def walk(tx: Connection, after: str, before_ms: int, dry_run: bool, now_ms: int) -> Walked:
        pruned = pruning.prune_ended(tx, outbox_tables, after or low, high(before_ms), before_ms, dry_run=dry_run)
        return Walked(pruned.after, pruned.looked, {"work": pruned.messages, "tries": pruned.tries})

    return walk


def _of_callbacks(rows_too: bool) -> Walk:
    """Callbacks that were worked on: body and query, or (`rows_too`) the row; by id, which is the order of time."""

    def walk(tx: Connection, after: str, before_ms: int, dry_run: bool, now_ms: int) -> Walked:
        c = callbacks.c
        size = func.length(c.body) + func.length(c.query)
        page = _page(tx, c.id, size, c.id > after, c.id < _first_at("cb", before_ms))
        ended_at_ms = func.coalesce(c.finished_at_ms, c.received_at_ms).label("ended_at_ms")
        rows = tx.execute(select(c.id, c.status, c.erased_at_ms, ended_at_ms).where(c.id.in_(page.keys))).all()
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
        after = page.keys[-1] if page.keys else after
        return Walked(None if page.over else after, len(rows), {"callbacks" if rows_too else "bodies": len(free)})

    return walk


def _quarantine(tx: Connection, after: str, before_ms: int, dry_run: bool, now_ms: int) -> Walked:
    q = quarantine.c
    size = func.length(q.body) + func.length(q.query) + func.length(q.headers)
    page = _page(tx, q.id, size, q.id > after, q.id < _first_at("qua", before_ms))
    if page.keys and not dry_run:
        tx.execute(delete(quarantine).where(q.id.in_(page.keys)))
    return Walked(None if page.over else page.keys[-1], len(page.keys), {"quarantine": len(page.keys)})


def _used_keys(tx: Connection, after: str, before_ms: int, dry_run: bool, now_ms: int) -> Walked:
    """Idempotency keys. The service takes them hourly while any come; this is for those of whom none came after."""
    k = keys_used.c
    row = k.begun_at_ms, k.merchant_id, k.live, k.key
    query = select(*row).where(k.begun_at_ms < before_ms).order_by(*row).limit(ROWS_A_PIECE)
    old = tx.execute(query.where(tuple_(*row) > tuple_(*json.loads(after))) if after else query).all()
    if old and not dry_run:
        tx.execute(delete(keys_used).where(tuple_(*row).in_([tuple(one) for one in old])))
    goes_on = json.dumps(list(old[-1])) if len(old) == ROWS_A_PIECE else None
    return Walked(goes_on, len(old), {"keys": len(old)})


def _runs_of_jobs(tx: Connection, after: str, before_ms: int, dry_run: bool, now_ms: int) -> Walked:
    """Runs of scheduled jobs that ended long ago; the last of each job are kept, however old (`scheduler`)."""
    if not dry_run:
        gone = Runs(scheduler_tables).prune(tx, before_ms)
        return Walked("" if gone == RUNS_A_PIECE else None, gone, {"runs": gone})
    r = scheduler_tables.runs.c
    order = func.row_number().over(partition_by=r.job, order_by=(r.due_at_ms.desc(), r.id.desc()))
    ranked = select(r.ended_at_ms, order.label("place")).subquery()
    old = select(func.count()).where(ranked.c.place > KEPT_RUNS, ranked.c.ended_at_ms < before_ms)
    count = tx.execute(old).scalar_one()
    return Walked(None, count, {"runs": count})


def _first_at(prefix: str, at_ms: int) -> str:
    """The lowest id that could be made at a time."""
    return Ids(lambda: max(0, at_ms), lambda: 0)(prefix)


WALKS: tuple[tuple[str, Walk], ...] = (
    ("keep_deliveries_days", forget_events),
    ("keep_work_days", _work("callback:", lambda before_ms: "callback:" + _first_at("cb", before_ms))),
    ("keep_work_days", _work("deferred:", lambda before_ms: "deferred:" + _first_at("cb", before_ms))),
    ("keep_work_days", _work("recover:", lambda before_ms: "recover:" + _first_at("rec", before_ms))),
    ("keep_work_days", _work("ask:", lambda _: "ask;")),  # named by account and reference, so all of them are looked at
    ("keep_callback_bodies_days", _of_callbacks(False)),
    ("keep_callbacks_days", _of_callbacks(True)),
    ("keep_quarantine_days", _quarantine),
    ("", _used_keys),
    ("keep_work_days", _runs_of_jobs),
)
"""The setting that says how many days a kind of row is kept (none: 24 hours), and the walk that forgets the older."""

WHAT: Mapping[str, tuple[str, str]] = {
    "events": ("keep_deliveries_days", "events of which nothing is owed"),
    "deliveries": ("keep_deliveries_days", "their deliveries"),
    "work": ("keep_work_days", "ended work on callbacks, and answered questions"),
    "tries": ("", "tries of all these"),
    "bodies": ("keep_callback_bodies_days", "bodies of callbacks that were worked on"),
    "callbacks": ("keep_callbacks_days", "callbacks that were worked on, row and all"),
    "quarantine": ("keep_quarantine_days", "quarantined callbacks"),
    "keys": ("", "idempotency keys, a day after they were used"),
    "runs": ("keep_work_days", "runs of scheduled jobs, but for the last fifty of each"),
}
"""What goes: the setting, and what it is."""


# --- a run ---------------------------------------------------------------------------------------------


class Pruner:
    """
    The handler of the topic `prune`. A message is one piece and promises the next, so a run is always one message, and
    it holds how far the run is. The job `prune` promises the first.
    """

    def __init__(self, queue: Queue, settings: Settings, clock: Clock) -> None:
        self._queue, self._settings, self._clock = queue, settings, clock

    def promise(self, tx: Connection, now_ms: int) -> bool:
        """A work: promise a run, unless one is promised or under way. Returns whether this one is."""
        m = outbox_tables.messages.c
        # The first two conditions are those of the index of what is owed to nobody.
        waits_ = select(m.id).where(m.state == "pending", m.destination == "", m.topic == PRUNE).limit(1)
        if tx.execute(waits_).first() is not None:
            return False
        self._promise(tx, f"{PRUNE}:{now_ms}:0", _written(Run(now_ms)))
        return True

    def work(self, tx: Connection, messages: Sequence[Message]) -> list[Outcome]:
        """One piece each."""
        for message in messages:
            now_ms = self._clock()
            run = piece(tx, self._settings, _read(message.payload, now_ms), now_ms)
            self._forget_earlier(tx)
            if not run.over:
                _, begun, number = message.id.split(":")
                self._promise(tx, f"{PRUNE}:{begun}:{int(number) + 1}", _written(run))
        return [Done() for _ in messages]

    def _promise(self, tx: Connection, id_: str, payload: str) -> None:
        self._queue.enqueue(tx, [Promise(id_, PRUNE, "", "", payload)], self._clock())

    def _forget_earlier(self, tx: Connection) -> None:
        """A run of a million rows is thousands of messages; none of them tells anything once it is done."""
        pruning.prune_ended(tx, outbox_tables, f"{PRUNE}:", f"{PRUNE};", self._clock() + 1)


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
