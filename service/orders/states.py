"""The machines of orders and checkout sessions, as rows, and what merchants call a session's states."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from service.payments.states import Row, table


class Order(StrEnum):
    """An order's state."""

    AWAITING_PAYMENT = "awaiting_payment"
    EXPIRING = "expiring"
    EXPIRED = "expired"
    CANCELING = "canceling"
    CANCELED = "canceled"
    PAID = "paid"
    DELIVERED = "delivered"
    COMPLETED = "completed"
    REFUNDED = "refunded"


class Happens(StrEnum):
    """What moves an order or a session."""

    PAID_IN_FULL = "paid_in_full"
    TIME_UP = "time_up"
    ALL_DEAD = "all_dead"  # no attempt can still succeed, by the providers' evidence
    HELD_TOO_LONG = "held_too_long"  # some attempt is neither dead nor paid after `max_hold`
    CANCEL_WANTED = "cancel_wanted"
    LATE_MONEY = "late_money"
    REVIVED = "revived"
    DELIVERED = "delivered"
    COMPLETED = "completed"
    REFUNDED_BY_US = "refunded_by_us"  # in full
    REFUNDED_IN_PART = "refunded_in_part"
    REFUNDED_ELSEWHERE = "refunded_elsewhere"  # at the provider's own dashboard, or clawed back
    SUBMITTED = "submitted"
    ATTEMPT_FAILED = "attempt_failed"
    NO_TRY_LEFT = "no_try_left"


_O, _H = Order, Happens
BOUGHT = (_O.PAID, _O.DELIVERED, _O.COMPLETED)
ENDED = (_O.EXPIRED, _O.CANCELED)
PAYABLE = (_O.AWAITING_PAYMENT, _O.EXPIRING, _O.CANCELING)

ORDER_ROWS: tuple[Row, ...] = (
    Row(PAYABLE, _H.PAID_IN_FULL, _O.PAID, "fulfilled once"),
    Row((_O.AWAITING_PAYMENT,), _H.TIME_UP, _O.EXPIRING, "no new attempts; cancel calls queued"),
    Row((_O.EXPIRING,), _H.ALL_DEAD, _O.EXPIRED, "stock released"),
    Row((_O.EXPIRING,), _H.HELD_TOO_LONG, _O.EXPIRED, "stock released, unresolved; the attempt is still asked about"),
    Row((_O.AWAITING_PAYMENT,), _H.CANCEL_WANTED, _O.CANCELING, "cancel calls queued"),
    Row((_O.CANCELING,), _H.ALL_DEAD, _O.CANCELED, "stock released"),
    Row(ENDED, _H.REVIVED, _O.PAID, "late; stock could be reserved again"),
    Row(ENDED, _H.LATE_MONEY, None, "late; refund by policy, or attention"),
    Row((_O.PAID,), _H.DELIVERED, _O.DELIVERED),
    Row((_O.DELIVERED,), _H.COMPLETED, _O.COMPLETED),
    Row(BOUGHT, _H.REFUNDED_BY_US, _O.REFUNDED),
    Row(BOUGHT, _H.REFUNDED_IN_PART, None),
    Row(BOUGHT, _H.REFUNDED_ELSEWHERE, None, "attention"),
)
ORDER = table(ORDER_ROWS)


class Session(StrEnum):
    """A checkout session's state."""

    OPEN = "open"
    PROCESSING = "processing"
    COMPLETE = "complete"
    EXPIRING = "expiring"
    EXPIRED = "expired"
    CANCELING = "canceling"
    CANCELED = "canceled"


_S = Session
UNFINISHED = (_S.OPEN, _S.PROCESSING, _S.EXPIRING, _S.CANCELING)

SESSION_ROWS: tuple[Row, ...] = (
    Row((_S.OPEN,), _H.SUBMITTED, _S.PROCESSING, "one live attempt at a time"),
    Row(UNFINISHED, _H.PAID_IN_FULL, _S.COMPLETE),
    Row((_S.PROCESSING,), _H.ATTEMPT_FAILED, _S.OPEN, "tries left"),
    Row((_S.PROCESSING,), _H.NO_TRY_LEFT, _S.EXPIRED, "failed, for merchants"),
    Row((_S.OPEN, _S.PROCESSING), _H.TIME_UP, _S.EXPIRING, "cancel calls queued"),
    Row((_S.EXPIRING,), _H.ALL_DEAD, _S.EXPIRED),
    Row((_S.OPEN,), _H.CANCEL_WANTED, _S.CANCELING),
    Row((_S.CANCELING,), _H.ALL_DEAD, _S.CANCELED),
    Row((_S.EXPIRED, _S.CANCELED), _H.LATE_MONEY, None, "the payment is paid and late"),
)
SESSION = table(SESSION_ROWS)
"""Without a live attempt `expiring` and `canceling` are passed through in one transaction, and nobody sees them."""

MACHINES: Mapping[str, tuple[Row, ...]] = {"order": ORDER_ROWS, "session": SESSION_ROWS}

_SHOWN: Mapping[str, str] = {
    _S.OPEN: "pending",
    _S.PROCESSING: "processing",
    _S.EXPIRING: "processing",
    _S.CANCELING: "processing",
    _S.COMPLETE: "paid",
    _S.CANCELED: "cancelled",
    _S.EXPIRED: "expired",
}
STATUSES = ("pending", "processing", "paid", "failed", "cancelled", "refunded", "expired")
"""A session as merchants see it."""


def status_of(state: str, ended_by: str | None, payment_status: str | None) -> str:
    """The merchant's word for a session: `failed` when its last try failed, `refunded` when all money went back."""
    if state == Session.COMPLETE and payment_status == "refunded":
        return "refunded"
    if state == Session.EXPIRED and ended_by == "tries":
        return "failed"
    return _SHOWN[state]
