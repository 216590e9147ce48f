"""The machines of orders and sessions: every pair is as the specification lists it, written down a second time here."""

from __future__ import annotations

from itertools import product

import pytest

from service.orders.states import MACHINES, ORDER, SESSION, STATUSES, Happens, Order, Session, status_of
from service.payments.states import mermaid

ORDERS = {
    "awaiting_payment": {"paid_in_full": "paid", "time_up": "expiring", "cancel_wanted": "canceling"},
    "expiring": {"paid_in_full": "paid", "all_dead": "expired", "held_too_long": "expired"},
    "canceling": {"paid_in_full": "paid", "all_dead": "canceled"},
    "expired": {"revived": "paid", "late_money": "expired"},
    "canceled": {"revived": "paid", "late_money": "canceled"},
    "paid": {
        "delivered": "delivered", "refunded_by_us": "refunded", "refunded_in_part": "paid",
        "refunded_elsewhere": "paid",
    },
    "delivered": {
        "completed": "completed", "refunded_by_us": "refunded", "refunded_in_part": "delivered",
        "refunded_elsewhere": "delivered",
    },
    "completed": {
        "refunded_by_us": "refunded", "refunded_in_part": "completed", "refunded_elsewhere": "completed",
    },
    "refunded": {},
}  # fmt: skip

SESSIONS = {
    "open": {
        "submitted": "processing", "paid_in_full": "complete", "time_up": "expiring", "cancel_wanted": "canceling",
    },
    "processing": {
        "paid_in_full": "complete", "attempt_failed": "open", "no_try_left": "expired", "time_up": "expiring",
    },
    "expiring": {"paid_in_full": "complete", "all_dead": "expired"},
    "canceling": {"paid_in_full": "complete", "all_dead": "canceled"},
    "expired": {"late_money": "expired"},
    "canceled": {"late_money": "canceled"},
    "complete": {},
}  # fmt: skip


@pytest.mark.parametrize(("state", "what"), list(product(Order, Happens)), ids=str)
def test_every_pair_of_an_order_is_as_listed(state: Order, what: Happens) -> None:
    """R15, R16 among them: nothing but death by evidence ends it, and a refund in part moves nothing."""
    assert ORDER.get((state, what)) == ORDERS[state].get(what)


@pytest.mark.parametrize(("state", "what"), list(product(Session, Happens)), ids=str)
def test_every_pair_of_a_session_is_as_listed(state: Session, what: Happens) -> None:
    """R15: `processing` leads to `canceling` by nothing."""
    assert SESSION.get((state, what)) == SESSIONS[state].get(what)


@pytest.mark.parametrize("name", list(MACHINES))
def test_every_state_is_in_its_table(name: str) -> None:
    """No state is forgotten, and the diagram can be drawn."""
    rows = MACHINES[name]
    seen = {state for row in rows for state in row.states} | {row.to for row in rows if row.to}
    assert seen == set({"order": Order, "session": Session}[name])
    assert all(state in mermaid(rows) for state in seen)


@pytest.mark.parametrize("state", Session, ids=str)
def test_every_state_has_a_word_for_merchants(state: Session) -> None:
    """E1: pending, processing, paid, failed, cancelled, refunded, expired, and nothing else."""
    ways = product((None, "time", "tries", "cancel", "order"), (None, "failed", "succeeded", "refunded"))
    assert {status_of(state, by, payment) for by, payment in ways} <= set(STATUSES)


def test_the_merchants_words_say_how_it_ended() -> None:
    """The two words that the machine has no state for."""
    assert status_of("expired", "tries", "failed") == "failed"
    assert status_of("expired", "time", "failed") == "expired"
    assert status_of("complete", None, "refunded") == "refunded"
    assert status_of("complete", None, "partially_refunded") == "paid"
    assert status_of("canceled", "cancel", None) == "cancelled"
