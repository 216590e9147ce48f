"""
Every machine as one table of rows. The code that moves things, the tests that enumerate every pair and the
command that prints the diagrams all read these rows (`spec`: states and transitions).

What is not listed is ignored, counted and logged as `illegal_transition`; it never raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from service.payments.facts import Kind


class State(StrEnum):
    """A payment attempt's state."""

    CREATED = "created"
    SUBMITTING = "submitting"
    REQUIRES_ACTION = "requires_action"
    PENDING = "pending"
    AUTHORIZED = "authorized"
    UNKNOWN = "unknown"
    CANCELING = "canceling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"
    NOT_SENT = "not_sent"


class Step(StrEnum):
    """What we do or decide about an attempt ourselves; together with the provider's facts it gives the state."""

    SENDING = "sending"  # committed before the call
    CANCELED_UNSENT = "canceled_unsent"
    NOTHING_SENT = "nothing_sent"  # proof: connection refused, documented refusal …
    LOST = "lost"  # timeout, reset, 5xx, unreadable 2xx, or the worker died: nobody knows
    FOUND_PENDING = "found_pending"  # the provider has just said that it is not final …
    FOUND_WAITING = "found_waiting"  # … or that it waits for the payer
    NOT_KNOWN = "not_known"  # after its grace time the provider knows no such reference
    CANCEL_WANTED = "cancel_wanted"
    CANCEL_UNCLEAR = "cancel_unclear"
    OPERATOR_SUCCEEDED = "operator_succeeded"
    OPERATOR_FAILED = "operator_failed"
    OPERATOR_CANCELED = "operator_canceled"
    OPERATOR_NOT_SENT = "operator_not_sent"


@dataclass(frozen=True, slots=True)
class Row:
    """From any of `states`, when `what` happens: to `to` (None: it stays where it is)."""

    states: tuple[str, ...]
    what: str
    to: str | None
    note: str = ""


Table = Mapping[tuple[str, str], str]


def table(rows: Iterable[Row]) -> Table:
    """Spread rows into (state, what) → state; two rows for one pair are a mistake in the table."""
    spread: dict[tuple[str, str], str] = {}
    for row in rows:
        for state in row.states:
            if (state, row.what) in spread:
                raise ValueError(f"two rows for {state} + {row.what}")
            spread[state, row.what] = row.to or state
    return spread


_S = State
_WAITING = (_S.SUBMITTING, _S.REQUIRES_ACTION, _S.PENDING)
_LIVE = (*_WAITING, _S.AUTHORIZED, _S.UNKNOWN, _S.CANCELING)
_ENDED = (_S.FAILED, _S.CANCELED, _S.EXPIRED, _S.NOT_SENT)
LIVE = frozenset((_S.CREATED, *_LIVE))

ATTEMPT_ROWS: tuple[Row, ...] = (
    # Our own steps.
    Row((_S.CREATED,), Step.SENDING, _S.SUBMITTING, "reference and key stored"),
    Row((_S.CREATED,), Step.CANCELED_UNSENT, _S.CANCELED),
    Row((_S.SUBMITTING,), Step.NOTHING_SENT, _S.NOT_SENT, "the only state that fails over by itself"),
    Row(_WAITING, Step.LOST, _S.UNKNOWN, "asked about on schedule"),
    Row((*_WAITING, _S.UNKNOWN), Step.FOUND_PENDING, _S.PENDING, "what it says now counts, whatever its clock says"),
    Row((*_WAITING, _S.UNKNOWN), Step.FOUND_WAITING, _S.REQUIRES_ACTION, "the new instruction kept"),
    Row((_S.UNKNOWN, _S.CANCELING), Step.NOT_KNOWN, _S.NOT_SENT, "also when it was to be cancelled meanwhile"),
    Row((_S.REQUIRES_ACTION, _S.PENDING, _S.AUTHORIZED, _S.UNKNOWN), Step.CANCEL_WANTED, _S.CANCELING),
    Row((_S.CANCELING,), Step.CANCEL_UNCLEAR, None, "asked again"),
    Row((_S.UNKNOWN, _S.CANCELING), Step.OPERATOR_SUCCEEDED, _S.SUCCEEDED, "a named person, with a reason"),
    Row((_S.UNKNOWN, _S.CANCELING), Step.OPERATOR_FAILED, _S.FAILED, "a named person, with a reason"),
    Row((_S.UNKNOWN, _S.CANCELING), Step.OPERATOR_CANCELED, _S.CANCELED, "a named person, with a reason"),
    Row((_S.UNKNOWN, _S.CANCELING), Step.OPERATOR_NOT_SENT, _S.NOT_SENT, "a named person, with a reason"),
    # Not yet final.
    Row((_S.SUBMITTING, _S.UNKNOWN), Kind.CREATED, _S.PENDING, "the provider has it"),
    Row((_S.REQUIRES_ACTION, _S.PENDING, _S.AUTHORIZED, _S.CANCELING), Kind.CREATED, None),
    Row((_S.SUBMITTING, _S.REQUIRES_ACTION, _S.UNKNOWN), Kind.PENDING, _S.PENDING),
    Row((_S.PENDING, _S.AUTHORIZED, _S.CANCELING), Kind.PENDING, None),
    Row((_S.SUBMITTING, _S.PENDING, _S.UNKNOWN), Kind.REQUIRES_ACTION, _S.REQUIRES_ACTION, "instruction kept"),
    Row((_S.REQUIRES_ACTION, _S.AUTHORIZED, _S.CANCELING), Kind.REQUIRES_ACTION, None),
    Row((*_WAITING, _S.UNKNOWN), Kind.TRY_FAILED, _S.REQUIRES_ACTION, "the payer may try again; reason kept"),
    Row((*_WAITING, _S.UNKNOWN), Kind.AUTHORIZED, _S.AUTHORIZED),
    Row((_S.AUTHORIZED, _S.CANCELING), Kind.AUTHORIZED, None),
    Row(_LIVE, Kind.RECEIVED_PART, None, "the amount is a fact; if it then dies: under"),
    # The provider's definite end. Of two ends the one with the later provider time counts.
    Row((*_LIVE, *_ENDED), Kind.FAILED, _S.FAILED),
    Row((*_LIVE, *_ENDED), Kind.CANCELED, _S.CANCELED),
    Row((*_LIVE, *_ENDED), Kind.EXPIRED, _S.EXPIRED),
    # Money wins.
    Row((_S.CREATED, *_LIVE, *_ENDED), Kind.CAPTURED, _S.SUCCEEDED, "mismatch, under, over and late are exceptions"),
    Row((_S.SUCCEEDED,), Kind.CAPTURED, None),
    Row((_S.SUCCEEDED,), Kind.REVERSED, None, "disputed; a clawback, not a refund"),
)

ATTEMPT = table(ATTEMPT_ROWS)

_ORDER: dict[str, int] = {
    Step.SENDING: 0,
    Kind.CREATED: 1,
    Kind.PENDING: 2,
    Kind.REQUIRES_ACTION: 2,
    Kind.AUTHORIZED: 2,
    Kind.TRY_FAILED: 2,
    Kind.RECEIVED_PART: 2,
    Step.LOST: 2,
    Step.FOUND_PENDING: 2,
    Step.FOUND_WAITING: 2,
    Step.CANCEL_WANTED: 3,
    Step.CANCEL_UNCLEAR: 3,
    Step.CANCELED_UNSENT: 4,
    Step.NOTHING_SENT: 4,
    Step.NOT_KNOWN: 4,
    Step.OPERATOR_SUCCEEDED: 5,
    Step.OPERATOR_FAILED: 5,
    Step.OPERATOR_CANCELED: 5,
    Step.OPERATOR_NOT_SENT: 5,
    Kind.FAILED: 6,
    Kind.CANCELED: 6,
    Kind.EXPIRED: 6,
    Kind.CAPTURED: 7,
    Kind.REVERSED: 8,
}
"""The rank of what happened: money over ends over live words over our own steps. Inside a rank the time decides."""


def rank(what: str) -> int | None:
    """The rank in which an attempt's happenings are read, None for what does not move an attempt."""
    return _ORDER.get(what)


# --- a refund -----------------------------------------------------------------------------------------


class RefundState(StrEnum):
    """A refund. One that we did not make begins as `pending`. Providers send no times with them: the rank decides."""

    REQUESTED = "requested"
    QUEUED = "queued"  # to be sent, or to be made by a person where the provider has no API for it
    SUBMITTING = "submitting"
    UNKNOWN = "unknown"
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class RefundStep(StrEnum):
    """What we do about a refund ourselves, beside what the provider says of it."""

    CHECKED = "checked"
    SENDING = "sending"  # committed before the call
    NOTHING_SENT = "nothing_sent"
    REFUSED = "refused"
    LOST = "lost"  # timeout, reset, 5xx, unreadable 2xx, or the worker died: nobody knows
    DONE_BY_HAND = "done_by_hand"
    GIVEN_UP = "given_up"
    OPERATOR_SUCCEEDED = "operator_succeeded"
    OPERATOR_FAILED = "operator_failed"


_R, _P = RefundState, RefundStep
_ON_ITS_WAY = (_R.SUBMITTING, _R.UNKNOWN, _R.PENDING)
REFUND_ROWS: tuple[Row, ...] = (
    # Our own steps.
    Row((_R.REQUESTED,), _P.CHECKED, _R.QUEUED, "under lock: captured − refunds not failed or canceled ≥ amount"),
    Row((_R.QUEUED,), _P.SENDING, _R.SUBMITTING, "its id is the key"),
    Row((_R.SUBMITTING,), _P.NOTHING_SENT, _R.QUEUED, "proof that nothing was sent"),
    Row((_R.SUBMITTING,), _P.REFUSED, _R.FAILED, "attention"),
    Row((_R.SUBMITTING,), _P.LOST, _R.UNKNOWN, "asked about on schedule, never made anew"),
    Row((_R.QUEUED,), _P.DONE_BY_HAND, _R.SUCCEEDED, "manual; a named person, with a reason"),
    Row((_R.QUEUED,), _P.GIVEN_UP, _R.CANCELED, "manual; a named person, with a reason"),
    Row((_R.UNKNOWN,), _P.OPERATOR_SUCCEEDED, _R.SUCCEEDED, "who saw it at the provider, with a reason"),
    Row((_R.UNKNOWN,), _P.OPERATOR_FAILED, _R.FAILED, "who saw at the provider that it is not there"),
    # The provider's word.
    Row(_ON_ITS_WAY, Kind.REFUND_PENDING, _R.PENDING),
    Row(_ON_ITS_WAY, Kind.REFUND_CANCELED, _R.CANCELED),
    Row((*_ON_ITS_WAY, _R.QUEUED, _R.CANCELED), Kind.REFUND_SUCCEEDED, _R.SUCCEEDED, "queued: a manual one"),
    Row((*_ON_ITS_WAY, _R.SUCCEEDED), Kind.REFUND_FAILED, _R.FAILED, "after success: the bank rejected it later"),
)
REFUND = table(REFUND_ROWS)
REFUND_ORDER: tuple[str, ...] = (
    Kind.REFUND_PENDING,
    Kind.REFUND_CANCELED,
    Kind.REFUND_SUCCEEDED,
    Kind.REFUND_FAILED,
)

# --- a dispute ----------------------------------------------------------------------------------------


class DisputeState(StrEnum):
    """A dispute or chargeback. Only `won` takes the exception away."""

    OPEN = "open"
    WON = "won"
    LOST = "lost"


_D = DisputeState
DISPUTE_ROWS: tuple[Row, ...] = (
    Row((_D.OPEN,), Kind.DISPUTE_OPENED, None),
    Row((_D.OPEN,), Kind.DISPUTE_WON, _D.WON),
    Row((_D.OPEN, _D.WON), Kind.DISPUTE_LOST, _D.LOST, "of two verdicts the one that costs money is believed"),
)
DISPUTE = table(DISPUTE_ROWS)
DISPUTE_ORDER: tuple[str, ...] = (Kind.DISPUTE_OPENED, Kind.DISPUTE_WON, Kind.DISPUTE_LOST)

# --- a kept callback and a webhook delivery -------------------------------------------------------------


class Callback(StrEnum):
    """A kept callback."""

    RECEIVED = "received"
    PROCESSED = "processed"
    IGNORED = "ignored"
    PARKED = "parked"
    DEFERRED = "deferred"
    DEAD = "dead"


_C = Callback
CALLBACK_ROWS: tuple[Row, ...] = (
    Row((_C.RECEIVED,), "understood", _C.PROCESSED),
    Row((_C.RECEIVED,), "not_about_payments", _C.IGNORED, "counted"),
    Row((_C.RECEIVED,), "not_understood", _C.PARKED, "unreadable, a status in no table, test on a live account"),
    Row((_C.RECEIVED,), "not_known_yet", _C.DEFERRED, "72 h, then attention"),
    Row((_C.RECEIVED,), "retries_spent", _C.DEAD),
    Row((_C.PROCESSED,), "answer_not_known_yet", _C.DEFERRED, "it made us ask, and the answer has no payment yet"),
    Row((_C.PROCESSED,), "answer_not_understood", _C.PARKED, "and before a person"),
    Row((_C.DEFERRED,), "known_now", _C.RECEIVED, "in the transaction that made it known"),
    Row((_C.PARKED, _C.DEAD, _C.DEFERRED), "run_again", _C.RECEIVED, "by a person, with a reason"),
    Row(tuple(_C), "same_callback_again", None, "seen_count + 1, answered 200"),
)
CALLBACK = table(CALLBACK_ROWS)


class Delivery(StrEnum):
    """A webhook delivery as operators see it; processing is derived (claimed, and its lease not over)."""

    PENDING = "pending"
    PROCESSING = "processing"
    HELD = "held"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


_W = Delivery
DELIVERY_ROWS: tuple[Row, ...] = (
    Row((_W.PENDING,), "claimed", _W.PROCESSING),
    Row((_W.PROCESSING,), "answered_2xx", _W.SUCCEEDED),
    Row((_W.PROCESSING,), "refused_or_lost", _W.PENDING, "again at next_retry_at"),
    Row((_W.PROCESSING,), "lease_over", _W.PENDING, "the worker died"),
    Row((_W.PROCESSING,), "budget_spent", _W.FAILED),
    Row((_W.PENDING,), "endpoint_disabled", _W.HELD),
    Row((_W.HELD,), "endpoint_enabled", _W.PENDING, "what waited for a retry goes at once"),
    Row((_W.HELD,), "given_up_when_enabled", _W.FAILED, "if the operator says so; `deliveries recover` brings it"),
)
DELIVERY = table(DELIVERY_ROWS)

MACHINES: Mapping[str, tuple[Row, ...]] = {
    "attempt": ATTEMPT_ROWS,
    "refund": REFUND_ROWS,
    "dispute": DISPUTE_ROWS,
    "callback": CALLBACK_ROWS,
    "delivery": DELIVERY_ROWS,
}


def mermaid(rows: Iterable[Row]) -> str:
    """One machine as a Mermaid state diagram; rows that stay put are drawn as loops."""
    edges: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for state in row.states:
            edges.setdefault((state, row.to or state), []).append(row.what)
    lines = [f"    {a} --> {b}: {', '.join(whats)}" for (a, b), whats in edges.items()]
    return "\n".join(["stateDiagram-v2", *lines])
