"""Orders and sessions follow their payments, in the transaction that changed them, whatever told of it."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, or_, select

from service.attention import open_attention
from service.merchants.audit import By
from service.merchants.events import News, tell
from service.orders.rules import LIVE
from service.orders.settle import ACTOR, Affairs, GiveBack
from service.orders.states import Order, Session
from service.orders.stock import tally
from service.orders.tables import orders, sessions
from service.payments.heard import Change, Context
from service.payments.refunds import Duplicates
from service.payments.rules import Problem
from service.payments.tables import payments


class Follow:
    """
    A `Follower` of the book of payments. Most payments have neither order nor session, and cost nothing here.

    `give_back`: for orders whose policy for late money is `refund`, and with `duplicates` = `auto` for what came twice;
    without it a person is asked.
    """

    def __init__(self, give_back: GiveBack | None = None, duplicates: Duplicates = "ask") -> None:
        self._give_back, self._duplicates = give_back, duplicates

    def __call__(self, tx: Connection, changes: Sequence[Change], context: Context) -> list[News]:
        """Move what has to move; what is returned is told in the same transaction."""
        ours = [change for change in changes if change.row["order_id"] or change.row["session_id"]]
        if not ours:
            return []
        _write_down_canceled(tx, ours, context)
        _see_money_after_the_end(tx, ours, context)
        newly = {change.row["id"] for change in ours if _newly_captured(change)}
        affairs = Affairs(tx, context, self._give_back, duplicates=self._duplicates, newly=newly)
        affairs.settle(
            {change.row["order_id"] for change in ours if change.row["order_id"]},
            {change.row["session_id"] for change in ours if change.row["session_id"]},
        )
        return affairs.done()


def refund_ended(tx: Connection, payment_id: str, context: Context) -> None:
    """A refund of ours came to nothing: what went back besides is somebody else's, and its order has to hear of it."""
    order_id = tx.execute(select(payments.c.order_id).where(payments.c.id == payment_id)).scalar()
    if order_id:
        affairs = Affairs(tx, context)
        affairs.settle([order_id])
        tell(tx, context.queue, affairs.done(), context.ids, context.now_ms)


def _newly_captured(change: Change) -> bool:
    return change.after.captured_minor > (change.before.captured_minor if change.before else 0)


def _see_money_after_the_end(tx: Connection, changes: Sequence[Change], context: Context) -> None:
    """
    Money for a session that is over, where the provider's own time does not say that it is late (an answer may only
    know when the payment was begun): before a person all the same. An order looks after its own.
    """
    for change in changes:
        if not _newly_captured(change) or change.row["order_id"] or Problem.LATE in change.after.problems:
            continue
        state = tx.execute(select(sessions.c.state).where(sessions.c.id == change.row["session_id"])).scalar()
        if state in (Session.EXPIRED, Session.CANCELED):
            detail = change.row["session_id"]
            open_attention(tx, context.ids, change.row["id"], Problem.LATE, detail, context.now_ms)


def _write_down_canceled(tx: Connection, changes: Sequence[Change], context: Context) -> None:
    """A payment that the provider cancelled because its order or session is ending: counted, and in the audit trail."""
    for change in changes:
        ended = change.after.status in ("canceled", "expired")  # some providers call a cancelled page expired
        if not ended or change.before is None or change.before.status not in LIVE:
            continue
        order_id, session_id = change.row["order_id"], change.row["session_id"]
        ending = (
            select(orders.c.id)
            .where(orders.c.id == order_id, orders.c.state.in_((Order.EXPIRING, Order.CANCELING)))
            .union(
                select(sessions.c.id).where(
                    sessions.c.id == session_id,
                    or_(sessions.c.state == Session.EXPIRING, sessions.c.state == Session.CANCELING),
                )
            )
        )
        subject = tx.execute(ending.limit(1)).scalar()
        if subject is not None:
            tally(tx, "payments_canceled")
            by = By(ACTOR, context.now_ms, context.ids)
            by.write_down(tx, "local.payment.canceled", change.row["id"], subject)
