"""Orders and sessions whose time is up, and whose own look never came: it died, or is gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Table, and_, literal_column, select

from outbox.message import Promise
from scheduler import Counters, Tick
from service.jobs.finding import Parts, promise_each, promised
from service.orders.expire import MAX_HOLD_MS
from service.orders.settle import EXPIRE, expiry
from service.orders.states import Order, Session
from service.orders.tables import orders, sessions

BATCH: Final = 100


async def expire_stale_orders(parts: Parts, tick: Tick) -> Counters:
    """Promise a look at each (`orders.expire` decides what becomes of it, as it does of every other)."""
    looks = {name: partial(_look, *of, tick.now_ms) for name, of in _LOOKS.items()}
    return await promise_each(parts, tick, looks, BATCH)


def _look(
    table: Table,
    over: Callable[[int], ColumnElement[bool]],
    now_ms: int,
    tx: Connection,
    after: str,
    limit: int,
) -> list[Promise]:
    mine = select(table.c.id).where(table.c.id > after, over(now_ms), ~promised(EXPIRE, table.c.id))
    found = tx.execute(mine.order_by(table.c.id).limit(limit)).scalars()
    return [expiry(id_, now_ms, now_ms) for id_ in found]


def _unpaid(now_ms: int) -> ColumnElement[bool]:
    # One that holds enough money and not the right money is before a person, and does not end by itself.
    awaiting = orders.c.state == _said(Order.AWAITING_PAYMENT)
    return and_(awaiting, orders.c.expires_at_ms <= now_ms, orders.c.paid_minor < orders.c.amount_minor)


def _held_too_long(now_ms: int) -> ColumnElement[bool]:
    expiring = orders.c.state == _said(Order.EXPIRING)
    return and_(expiring, orders.c.ending_since_ms <= now_ms - MAX_HOLD_MS, orders.c.paid_minor < orders.c.amount_minor)


def _not_submitted(now_ms: int) -> ColumnElement[bool]:
    going = sessions.c.state.in_([_said(Session.OPEN), _said(Session.PROCESSING)])
    return and_(going, sessions.c.expires_at_ms <= now_ms)


def _said(state: str) -> Any:
    """Written into the statement: a partial index is used only where its condition stands word by word."""
    return literal_column(f"'{state}'")


_LOOKS: Final[Mapping[str, tuple[Table, Callable[[int], ColumnElement[bool]]]]] = {
    "orders": (orders, _unpaid),
    "orders_held_too_long": (orders, _held_too_long),
    "sessions": (sessions, _not_submitted),
}
