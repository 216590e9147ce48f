"""
The clock's part in orders and sessions: their time is up, so the providers are asked to cancel what is still live, and
only what they say is dead is given up. One message for each order and session, due when its time is up.

Two topics: `expire` (a work, which looks and moves rows) and `wind_down` (an act, which cancels one payment at its
provider, or asks about it where the provider cannot cancel).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import Connection, select

from outbox.message import Done, Message, Outcome, Retry
from outbox.policy import Policy
from outbox.queue import Queue
from outbox.topic import Topic
from service.attention import open_attention
from service.database import Database
from service.errors import Refusal
from service.ids import Clock, Ids
from service.merchants.audit import By
from service.merchants.events import tell
from service.orders.rules import LIVE
from service.orders.settle import ACTOR, EXPIRE, WIND_DOWN, Affairs, GiveBack, expiry
from service.orders.states import Happens, Order, Session
from service.orders.tables import orders, sessions
from service.payments.heard import Context
from service.payments.rules import Problem
from service.payments.tables import payments

SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000
AFTER_START_MS = 2 * MINUTE
"""Callbacks that came while we were down are worked on first."""
MAX_HOLD_MS = 2 * HOUR
"""How long stock is held for an attempt of which nobody can say that it is dead."""
EXPIRE_BATCH = 20

EXPIRE_POLICY = Policy(EXPIRE, (MINUTE, 10 * MINUTE, HOUR), lease_ms=70_000, limit_ms=60_000, batch=EXPIRE_BATCH)
WIND_DOWN_POLICY = Policy(
    WIND_DOWN,
    # Afterwards the payment's own sweep goes on asking.
    (30 * SECOND, 2 * MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, 24 * HOUR, 24 * HOUR, 24 * HOUR),
    lease_ms=60_000,
    limit_ms=45_000,
    # One provider that does not answer must not keep the others' waiting: an order holds its stock meanwhile.
    in_flight=32,
    per_destination=4,
)


class Desk(Protocol):
    """As much of `payments.desk.Desk` as an end needs."""

    async def cancel(self, payment_id: str, by: By) -> None: ...

    async def sync(self, payment_id: str, limit_ms: int = ...) -> bool: ...


class Expirer:
    """
    The handlers of both topics. `started_at_ms`: when this process began. `give_back`: for orders whose policy is to
    refund, and which end with a part of their money.
    """

    def __init__(
        self,
        db: Database,
        desk: Desk,
        queue: Queue,
        ids: Ids,
        clock: Clock,
        started_at_ms: int,
        give_back: GiveBack | None = None,
    ) -> None:
        self._db, self._desk, self._queue, self._ids, self._clock = db, desk, queue, ids, clock
        self._give_back = give_back
        self._ready_at_ms = started_at_ms + AFTER_START_MS

    def topics(self) -> list[Topic]:
        """For the dispatcher."""
        return [
            Topic(EXPIRE_POLICY, work=self.work, died=self.died),
            Topic(WIND_DOWN_POLICY, act=self.act, died=self.died),
        ]

    # --- the time is up

    def work(self, tx: Connection, messages: Sequence[Message]) -> list[Outcome]:
        """Look at each; one that is not there any more, or moved on by itself, is done."""
        now_ms = self._clock()
        for message in messages:
            if now_ms < self._ready_at_ms:
                self._queue.enqueue(tx, [expiry(message.subject, self._ready_at_ms, now_ms)], now_ms)
                continue
            self.look(tx, message.subject, now_ms)
        return [Done() for _ in messages]

    def look(self, tx: Connection, subject: str, now_ms: int) -> None:
        """End what has to end; again changes nothing."""
        affairs = Affairs(tx, Context(self._queue, self._ids, now_ms), self._give_back)
        table = orders if subject.startswith("ord_") else sessions
        row = tx.execute(select(table).where(table.c.id == subject)).mappings().one_or_none()
        if row is None:
            return
        if table is orders:
            self._order(tx, affairs, dict(row), now_ms)
        else:
            self._session(tx, affairs, dict(row), now_ms)
        tell(tx, self._queue, affairs.done(), self._ids, now_ms)

    def _order(self, tx: Connection, affairs: Affairs, row: dict[str, Any], now_ms: int) -> None:
        id_, state = row["id"], row["state"]
        if state == Order.AWAITING_PAYMENT:
            if now_ms < row["expires_at_ms"]:
                self._queue.enqueue(tx, [expiry(id_, row["expires_at_ms"], now_ms)], now_ms)
            elif row["paid_minor"] < row["amount_minor"]:  # else it is paid, if not rightly: a person decides
                affairs.move_order(row, Happens.TIME_UP)
                affairs.wind_down(id_, affairs.live_payments(payments.c.order_id == id_))
                affairs.settle([id_])
                self._queue.enqueue(tx, [expiry(id_, now_ms + MAX_HOLD_MS, now_ms)], now_ms)
        elif state == Order.EXPIRING and row["paid_minor"] < row["amount_minor"]:
            until_ms = (row["ending_since_ms"] or now_ms) + MAX_HOLD_MS
            if now_ms < until_ms:
                self._queue.enqueue(tx, [expiry(id_, until_ms, now_ms)], now_ms)
            else:
                self._give_up_holding(tx, affairs, row, now_ms)

    def _give_up_holding(self, tx: Connection, affairs: Affairs, row: dict[str, Any], now_ms: int) -> None:
        """The stock goes back, the attempts stay what they are: nothing is concluded about them."""
        live = affairs.live_payments(payments.c.order_id == row["id"])
        exceptions = {word for word in row["exceptions"].split(",") if word} | {Problem.UNRESOLVED.value}
        after = affairs.move_order(row, Happens.HELD_TOO_LONG, exceptions=",".join(sorted(exceptions)))
        if after is not None:
            open_attention(tx, self._ids, row["id"], Problem.UNRESOLVED, ",".join([*live][:10]), now_ms)
            affairs.tell_order(affairs.tell_order(after, "order.expired"), "order.attention")

    def _session(self, tx: Connection, affairs: Affairs, row: dict[str, Any], now_ms: int) -> None:
        id_ = row["id"]
        if row["state"] not in (Session.OPEN, Session.PROCESSING):
            return
        if now_ms < row["expires_at_ms"]:
            self._queue.enqueue(tx, [expiry(id_, row["expires_at_ms"], now_ms)], now_ms)
            return
        affairs.move_session(row, Happens.TIME_UP)
        affairs.wind_down(id_, affairs.live_payments(payments.c.session_id == id_))
        affairs.settle(session_ids=[id_])

    # --- cancelling at the provider

    async def act(self, message: Message, _: Any) -> Outcome:
        """
        Once: cancel, or where that is not possible ask. What the provider says moves the payment, and the payment its
        order; an error moves nothing, and is tried again.
        """
        by = By(ACTOR, self._clock(), self._ids)
        if not await self._db.read(_is_live, message.subject):
            return Done()
        try:
            await self._desk.cancel(message.subject, by)
        except Refusal:
            await self._desk.sync(message.subject)
        return Retry("still_live") if await self._db.read(_is_live, message.subject) else Done()

    def died(self, tx: Connection, messages: Sequence[Message]) -> None:
        """Tried in vain, for days if it was a provider that did not answer: a person has to look."""
        for message in messages:
            open_attention(tx, self._ids, message.subject, "never_ended", message.id, self._clock())


def _is_live(tx: Connection, payment_id: str) -> bool:
    return tx.execute(select(payments.c.status).where(payments.c.id == payment_id)).scalar() in LIVE
