"""
Recovery in bulk: what endpoints have missed is delivered again, by a stored job that the outbox works on in pieces.

A piece is one message of the topic `recover`, and one transaction: what it promises, how far the job is and the message
of the next piece. So a kill costs nothing and promises nothing twice, and two jobs at once do not either. Three phases:
open circuits of the endpoints are tried at once; what is dead is delivered again, as a new delivery of the same event;
what waits for a retry goes now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, func, insert, select, update

from outbox import pruning
from outbox.message import Done, Message, Outcome, Promise
from outbox.queue import Queue
from service.errors import NotFound, Refusal
from service.ids import Clock
from service.merchants.audit import REASON_CHARACTERS_MAX, By
from service.merchants.events import WEBHOOK, delivery_id
from service.merchants.missed import FIRST, Pair, Scope, look
from service.merchants.tables import recoveries
from service.schema import outbox_tables

RECOVER = "recover"
SENT_A_PIECE = 100
"""Promises in one transaction: it stays below 10 ms, so that intake never waits long behind it."""
UNFINISHED_MAX = 20


def promise(
    tx: Connection, queue: Queue, again: Mapping[Pair, int], now_ms: int, due_at_ms: Sequence[int] = ()
) -> list[str]:
    """Promise each pair under the number given, due now or at `due_at_ms` in the same order. Returns their ids."""
    dues = due_at_ms or [now_ms] * len(again)
    promises = [
        Promise(delivery_id(event, endpoint, number), WEBHOOK, endpoint, event, due_at_ms=at_ms)
        for ((event, endpoint), number), at_ms in zip(again.items(), dues, strict=True)
    ]
    queue.enqueue(tx, promises, now_ms)
    return [one.id for one in promises]


def begin(
    tx: Connection, queue: Queue, scope: Scope, per_minute: int | None, total: int, by: By, reason: str = ""
) -> str:
    """Store a job and promise its first piece; `total` is the number of rows it will look at. Returns its id."""
    r = recoveries.c
    unfinished = select(func.count()).where(r.status.in_(("running", "paused")))
    if tx.execute(unfinished).scalar_one() >= UNFINISHED_MAX:
        raise Refusal(
            "too_many_recoveries", f"{UNFINISHED_MAX} recoveries are not finished; wait for one, or cancel it."
        )
    id_ = by.ids("rec")
    row = {
        "id": id_,
        "merchant_id": scope.merchant,
        "endpoint_id": scope.endpoint,
        "type": scope.type,
        "payment_id": scope.payment,
        "since_ms": scope.since_ms,
        "per_minute": per_minute,
        "status": "running",
        "reason": reason[:REASON_CHARACTERS_MAX],
        "phase": FIRST,
        "next_at_ms": by.now_ms,
        "total": total,
        "created_at_ms": by.now_ms,
        "updated_at_ms": by.now_ms,
    }
    tx.execute(insert(recoveries).values(**row))
    _promise_piece(tx, queue, id_, 0, by.now_ms, by.now_ms)
    by.write_down(tx, "recovery.begun", id_, reason)
    return id_


def one(tx: Connection, id_: str) -> dict[str, Any]:
    """A query: one job; NotFound says how to list them."""
    row = tx.execute(select(recoveries).where(recoveries.c.id == id_)).one_or_none()
    if row is None:
        raise NotFound("recovery", id_, "caisse deliveries recoveries")
    return dict(row._mapping)


def pause(tx: Connection, id_: str, by: By) -> None:
    """Promise nothing more until it is resumed; at most a minute's deliveries are promised already."""
    if one(tx, id_)["status"] != "paused":
        _move(tx, id_, "paused", by)


def resume(tx: Connection, queue: Queue, id_: str, by: By) -> None:
    """Go on where it was."""
    row = one(tx, id_)
    if row["status"] != "running":
        # The message of the last piece may still wait: its number is not the job's any more, so it does nothing.
        _move(tx, id_, "running", by, piece=row["piece"] + 1, trouble="")
        _promise_piece(tx, queue, id_, row["piece"] + 1, max(by.now_ms, row["next_at_ms"]), by.now_ms)


def cancel(tx: Connection, id_: str, by: By) -> None:
    """End it here; what it has promised is delivered."""
    if one(tx, id_)["status"] != "canceled":
        _move(tx, id_, "canceled", by, finished_at_ms=by.now_ms)


def _move(tx: Connection, id_: str, status: str, by: By, **values: Any) -> None:
    was = one(tx, id_)["status"]
    if was in ("finished", "canceled"):
        raise Refusal("recovery_over", f"This recovery is {was}; begin a new one: `caisse deliveries recover`.")
    values |= {"status": status, "updated_at_ms": by.now_ms}
    tx.execute(update(recoveries).where(recoveries.c.id == id_).values(**values))
    by.write_down(tx, {"running": "recovery.resumed"}.get(status, f"recovery.{status}"), id_)


def _piece_id(id_: str, number: int) -> str:
    return f"{RECOVER}:{id_}:{number}"


def _promise_piece(tx: Connection, queue: Queue, id_: str, number: int, due_at_ms: int, now_ms: int) -> None:
    queue.enqueue(tx, [Promise(_piece_id(id_, number), RECOVER, "", id_, due_at_ms=due_at_ms)], now_ms)


class Recoverer:
    """The handler of the topic `recover`: its policy takes one message at a time, since a message is a transaction."""

    def __init__(self, queue: Queue, clock: Clock) -> None:
        self._queue, self._clock = queue, clock

    def work(self, tx: Connection, messages: Sequence[Message]) -> list[Outcome]:
        """One piece each."""
        for message in messages:
            row = tx.execute(select(recoveries).where(recoveries.c.id == message.subject)).mappings().one_or_none()
            if row is not None and row["status"] == "running" and message.id == _piece_id(row["id"], row["piece"]):
                self._piece(tx, row)
        return [Done() for _ in messages]

    def died(self, tx: Connection, messages: Sequence[Message]) -> None:
        """Our own fault, or the storage's: it waits for a person."""
        tx.execute(
            update(recoveries)
            .where(recoveries.c.id.in_([message.subject for message in messages]), recoveries.c.status == "running")
            .values(status="paused", trouble="it failed again and again; the log says why", updated_at_ms=self._clock())
        )

    def _piece(self, tx: Connection, row: RowMapping) -> None:
        now_ms, rate, id_ = self._clock(), row["per_minute"], row["id"]
        # No more than a minute's, so that a pause is not felt an hour later.
        sent_max = min(SENT_A_PIECE, rate) if rate else SENT_A_PIECE
        stride = look(tx, scope_of(row), row["phase"], row["cursor"], now_ms, sent_max)
        if stride.paused:
            self._queue.destinations.resume(tx, WEBHOOK, stride.paused)
            self._queue.ready.add(WEBHOOK)  # what it owes may be due long since
        count = len(stride.failed) + len(stride.waiting)
        slots = [now_ms + place * 60_000 // rate if rate else now_ms for place in range(count + 1)]
        sends, hurries, next_at_ms = slots[: len(stride.failed)], slots[len(stride.failed) : -1], slots[-1]
        promise(tx, self._queue, stride.failed, now_ms, sends)
        sooner = [
            (message_id, WEBHOOK, endpoint, slot)
            for (message_id, endpoint), slot in zip(stride.waiting, hurries, strict=True)
        ]
        hurried = self._queue.hasten(tx, sooner, now_ms)
        over = stride.phase is None
        tx.execute(
            update(recoveries)
            .where(recoveries.c.id == id_)
            .values(
                phase=stride.phase or row["phase"],
                cursor=stride.cursor,
                piece=row["piece"] + 1,
                next_at_ms=next_at_ms,
                looked=row["looked"] + stride.looked,
                sent=row["sent"] + len(stride.failed),
                hurried=row["hurried"] + hurried,
                skipped=row["skipped"] + stride.skipped.total(),
                disabled=row["disabled"] + stride.disabled.total(),
                updated_at_ms=now_ms,
                **({"status": "finished", "finished_at_ms": now_ms} if over else {}),
            )
        )
        # A million deliveries are thousands of pieces; none of them tells anything once it is done.
        pruning.prune_ended(tx, outbox_tables, f"{RECOVER}:{id_}:", f"{RECOVER}:{id_};", now_ms + 1)
        if not over:
            _promise_piece(tx, self._queue, id_, row["piece"] + 1, next_at_ms, now_ms)


def scope_of(row: Mapping[str, Any] | RowMapping) -> Scope:
    """What a stored job recovers."""
    filters = row["endpoint_id"], row["type"], row["payment_id"], row["merchant_id"]
    return Scope(row["since_ms"], row["created_at_ms"], *filters)
