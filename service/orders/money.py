"""The payments of orders and sessions, read as what the rules look at."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, or_, select

from service.orders import shown
from service.orders.rules import Money
from service.payments.facts import Kind
from service.payments.refund_match import NOTHING_WENT
from service.payments.states import RefundState
from service.payments.tables import attempts, facts, payments, refunds

NOT_SENT = (RefundState.REQUESTED, RefundState.QUEUED)
"""Refunds of ours of which the provider has not heard: what goes back there meanwhile is somebody else's doing."""


def money_of(tx: Connection, order_ids: Collection[str] = (), session_ids: Collection[str] = ()) -> list[Money]:
    """The payments of these orders and sessions, oldest first."""
    mine = or_(payments.c.order_id.in_(sorted(order_ids)), payments.c.session_id.in_(sorted(session_ids)))
    query = select(payments).where(mine, payments.c.merged_into.is_(None)).order_by(payments.c.id)
    rows = tx.execute(query).mappings().all()
    captured = [row["id"] for row in rows if row["captured_minor"]]
    exact: set[str] = set()
    returned: dict[str, int] = {}
    promised: dict[str, int] = {}
    if captured:
        same = (facts.c.amount_minor == attempts.c.amount_minor) & (facts.c.currency == attempts.c.currency)
        captures = (
            select(attempts.c.payment_id)
            .join(facts, facts.c.attempt_id == attempts.c.id)
            .where(attempts.c.payment_id.in_(captured), facts.c.kind == Kind.CAPTURED, same)
        )
        exact = set(tx.execute(captures).scalars())
        ours = select(refunds.c.payment_id, refunds.c.state, refunds.c.amount_minor).where(
            refunds.c.payment_id.in_(captured), refunds.c.origin == "caisse", refunds.c.state.not_in(NOTHING_WENT)
        )
        for id_, state, amount_minor in tx.execute(ours):
            promised[id_] = promised.get(id_, 0) + amount_minor
            if state not in NOT_SENT:
                returned[id_] = returned.get(id_, 0) + amount_minor
    return [
        _money(dict(row), row["id"] in exact, returned.get(row["id"], 0), promised.get(row["id"], 0)) for row in rows
    ]


def _money(row: Mapping[str, Any], exact: bool, returned_minor: int, promised_minor: int) -> Money:
    return Money(
        row["id"],
        row["session_id"],
        row["amount_minor"],
        row["currency"],
        row["status"],
        frozenset(shown.words(row["exceptions"])),
        row["captured_minor"],
        row["refunded_minor"],
        exact,
        returned_minor,
        promised_minor,
        row["order_id"],
    )
