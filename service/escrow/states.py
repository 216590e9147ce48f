"""The machines of holds and payouts, as rows."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from service.payments.states import Row, table


class Hold(StrEnum):
    """A hold: the money of one paid order, kept for its beneficiary."""

    HELD = "held"
    RELEASE_SCHEDULED = "release_scheduled"
    FROZEN = "frozen"
    RELEASED = "released"
    REFUNDED = "refunded"


class HoldStep(StrEnum):
    """What moves a hold."""

    DELIVERED = "delivered"
    CONFIRMED = "confirmed"  # by the buyer
    OPERATOR = "operator"  # a person of the merchant's releases it
    DUE = "due"
    DISPUTED = "disputed"  # by the buyer, their bank, a reversal, a refund not by us, late or mismatched money
    WON = "won"  # nothing stands against it any more
    REFUNDED_ALL = "refunded_all"
    REFUNDED_PART = "refunded_part"
    TAKEN_BACK = "taken_back"  # refunded or charged back after it was released
    NEVER_DELIVERED = "never_delivered"
    CAME_BACK = "came_back"  # a refund of it that had succeeded has failed


_H, _S = Hold, HoldStep
UNRELEASED = (_H.HELD, _H.RELEASE_SCHEDULED, _H.FROZEN)

HOLD_ROWS: tuple[Row, ...] = (
    Row((_H.HELD,), _S.DELIVERED, _H.RELEASE_SCHEDULED, "delivery + 48 h, or what the merchant has set"),
    Row((_H.RELEASE_SCHEDULED, _H.FROZEN), _S.DELIVERED, None),
    Row((_H.HELD, _H.RELEASE_SCHEDULED), _S.CONFIRMED, _H.RELEASED, "by a token of the buyer's own"),
    Row((_H.HELD, _H.RELEASE_SCHEDULED), _S.OPERATOR, _H.RELEASED, "a named person, with a reason"),
    Row((_H.RELEASE_SCHEDULED,), _S.DUE, _H.RELEASED, "no dispute or refund is open; not late or mismatched"),
    Row((_H.HELD, _H.RELEASE_SCHEDULED), _S.DISPUTED, _H.FROZEN, "all that is left is frozen; attention"),
    Row((_H.FROZEN,), _S.DISPUTED, None, "one more thing against it"),
    Row((_H.FROZEN,), _S.WON, _H.HELD, "release_scheduled when it was delivered"),
    Row(UNRELEASED, _S.REFUNDED_ALL, _H.REFUNDED),
    Row(UNRELEASED, _S.REFUNDED_PART, None, "the amount only"),
    Row((_H.REFUNDED,), _S.CAME_BACK, _H.HELD, "the bank sent a refund back; release_scheduled when it was delivered"),
    Row((_H.RELEASED,), _S.TAKEN_BACK, None, "the beneficiary's balance falls, below zero too; attention"),
    Row((_H.HELD,), _S.NEVER_DELIVERED, None, "attention; never released by itself"),
)
HOLD = table(HOLD_ROWS)


class Payout(StrEnum):
    """A payout."""

    REQUESTED = "requested"
    AWAITING_APPROVAL = "awaiting_approval"
    QUEUED = "queued"
    SUBMITTING = "submitting"
    UNKNOWN = "unknown"
    IN_TRANSIT = "in_transit"
    PAID = "paid"
    FAILED = "failed"
    CANCELED = "canceled"
    RETURNED = "returned"


class PayoutStep(StrEnum):
    """What moves a payout: our own steps, and the provider's word."""

    WAITS_FOR_A_PERSON = "waits_for_a_person"
    ALLOWED = "allowed"
    APPROVED = "approved"
    SENDING = "sending"  # committed, with the reference, before the call
    NOTHING_SENT = "nothing_sent"
    LOST = "lost"  # time-out, reset, 5xx, unreadable 2xx, or the worker died: nobody knows
    NOT_KNOWN = "not_known"  # the provider knows no such reference, after its grace time
    CANCELED = "canceled"
    OPERATOR_PAID = "operator_paid"
    OPERATOR_FAILED = "operator_failed"
    SAID_IN_TRANSIT = "said_in_transit"
    SAID_OTP = "said_otp"
    SAID_PAID = "said_paid"
    SAID_FAILED = "said_failed"
    SAID_RETURNED = "said_returned"


_O, _P = Payout, PayoutStep
_SENT = (_O.SUBMITTING, _O.IN_TRANSIT, _O.UNKNOWN)
_PERHAPS_SENT = (_O.QUEUED, *_SENT)
"""One that is queued may have been sent before: the provider did not know it then, and may know it now."""
OPEN = (_O.REQUESTED, _O.AWAITING_APPROVAL, _O.QUEUED, *_SENT)
"""Without an end: its amount is reserved."""
GAVE_BACK = (_O.FAILED, _O.CANCELED, _O.RETURNED)
"""Ended, and the money is in the balance again."""

PAYOUT_ROWS: tuple[Row, ...] = (
    # Our own steps.
    Row((_O.REQUESTED,), _P.WAITS_FOR_A_PERSON, _O.AWAITING_APPROVAL, "above what needs nobody"),
    Row((_O.REQUESTED,), _P.ALLOWED, _O.QUEUED),
    Row((_O.AWAITING_APPROVAL,), _P.APPROVED, _O.QUEUED, "by another hand than the one that asked for it"),
    Row((_O.QUEUED,), _P.SENDING, _O.SUBMITTING, "reference committed"),
    Row((_O.SUBMITTING,), _P.NOTHING_SENT, _O.QUEUED, "proof that nothing was sent"),
    Row((_O.SUBMITTING,), _P.LOST, _O.UNKNOWN, "asked about by its reference, or a person's"),
    Row((_O.UNKNOWN,), _P.LOST, None),
    Row((_O.UNKNOWN,), _P.NOT_KNOWN, _O.QUEUED, "after its grace time; sent again with the same reference"),
    Row((_O.REQUESTED, _O.AWAITING_APPROVAL, _O.QUEUED), _P.CANCELED, _O.CANCELED, "reserved → available"),
    Row((_O.UNKNOWN,), _P.OPERATOR_PAID, _O.PAID, "a named person, with a reason"),
    Row((_O.UNKNOWN,), _P.OPERATOR_FAILED, _O.FAILED, "a named person, with a reason"),
    # The provider's word.
    Row(_PERHAPS_SENT, _P.SAID_IN_TRANSIT, _O.IN_TRANSIT, "queued: one that was sent before and was not known then"),
    Row(_PERHAPS_SENT, _P.SAID_OTP, _O.IN_TRANSIT, "attention: a person enters the code"),
    Row(_PERHAPS_SENT, _P.SAID_PAID, _O.PAID, "reserved → paid out"),
    Row((_O.PAID,), _P.SAID_PAID, None),
    Row((_O.FAILED, _O.CANCELED), _P.SAID_PAID, _O.PAID, "whatever was said before: the money is gone; attention"),
    Row(_PERHAPS_SENT, _P.SAID_FAILED, _O.FAILED, "reserved → available"),
    Row((_O.FAILED,), _P.SAID_FAILED, None),
    Row((_O.PAID,), _P.SAID_FAILED, _O.RETURNED, "what some providers call money that came back"),
    Row((*_PERHAPS_SENT, _O.PAID), _P.SAID_RETURNED, _O.RETURNED, "paid out → available; attention"),
    Row((_O.RETURNED,), _P.SAID_RETURNED, None),
)
PAYOUT = table(PAYOUT_ROWS)

MACHINES: Mapping[str, tuple[Row, ...]] = {"hold": HOLD_ROWS, "payout": PAYOUT_ROWS}
