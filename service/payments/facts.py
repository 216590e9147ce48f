"""
The words of the rules: what a provider can tell us about one payment.

A *fact* is append-only. Facts about one money movement may be told many times, by several callbacks
and by answers to our own questions; `join` makes one of two, and the order does not matter.
This module imports nothing of ours: it is the bottom of the house.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

AMOUNT_MINOR_MAX = 10**15
"""No merchant moves more in one payment; far below 2^63, which SQLite refuses."""


class Kind(StrEnum):
    """What a fact says. The first group moves an attempt, the others are sums and exceptions on top of it."""

    CREATED = "created"  # the provider has it; nobody has tried to pay yet
    PENDING = "pending"
    REQUIRES_ACTION = "requires_action"  # waits for the payer: OTP, redirect, approval on the phone
    AUTHORIZED = "authorized"
    TRY_FAILED = "try_failed"  # one try declined, the payer may try again on the same object
    RECEIVED_PART = "received_part"  # some money came, not all (eBilling)
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"
    CAPTURED = "captured"

    REVERSED = "reversed"  # clawed back by the operator; not a refund
    REFUND_PENDING = "refund_pending"
    REFUND_SUCCEEDED = "refund_succeeded"
    REFUND_FAILED = "refund_failed"
    REFUND_CANCELED = "refund_canceled"
    REFUNDED_TOTAL = "refunded_total"  # "so much so far", joined by maximum, never added
    DISPUTE_OPENED = "dispute_opened"
    DISPUTE_WON = "dispute_won"
    DISPUTE_LOST = "dispute_lost"


class Reason(StrEnum):
    """Why a try failed, in one vocabulary over all providers (mission B1b)."""

    INSUFFICIENT_FUNDS = "insufficient_funds"
    LIMIT_REACHED = "limit_reached"
    WRONG_PIN = "wrong_pin"
    TIMED_OUT = "timed_out"
    DECLINED_BY_USER = "declined_by_user"
    NO_WALLET = "no_wallet"
    NUMBER_MISMATCH = "number_mismatch"
    PROVIDER_UNAVAILABLE = "provider_unavailable"
    UNKNOWN = "unknown"


class Source(StrEnum):
    """Who told us. The order is the weight when two sources disagree about what was asked for."""

    HINT = "hint"  # a callback that proves nothing (Monetbil, Moneroo, eBilling)
    CALLBACK = "callback"  # a strongly signed callback
    ANSWER = "answer"  # the provider's answer to our own question
    OPERATOR = "operator"  # a named person, with a reason


@dataclass(frozen=True, slots=True)
class Fact:
    """
    One thing a provider said about one money movement.

    `movement` is the provider's id of the *movement*, so that three callbacks about one capture give one
    fact; with `kind` and the account it is the fact's identity. `amount_minor` is what moved (None: not said);
    `asked_minor` what the payment as a whole asked for, when the same message says so. `at_ms` is the
    provider's own time, 0 where it gives none. Amounts are integers of minor units of `currency`.
    """

    kind: Kind
    movement: str
    at_ms: int = 0
    amount_minor: int | None = None
    asked_minor: int | None = None
    currency: str | None = None  # ISO 4217, upper case
    fee_minor: int | None = None
    method: str | None = None  # card | mobile_money | bank | other
    reason: Reason | None = None
    source: Source = Source.CALLBACK


@dataclass(frozen=True, slots=True)
class Told:
    """
    What one message says about one payment.

    `references` are the provider's own ids of the payment, the one a person would look up first; together
    they are aliases of one payment. `reference` is what the merchant, or caisse, gave the provider as its own.
    A message that knows what the payment asks for carries it in its facts (`asked_minor` and `currency`);
    one that does not (a refund, a dispute) cannot begin a payment and waits for it.
    """

    references: tuple[str, ...]
    facts: tuple[Fact, ...]
    reference: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


CUMULATIVE = frozenset({Kind.REFUNDED_TOTAL, Kind.RECEIVED_PART})
_WEIGHT = {source: weight for weight, source in enumerate(Source)}


def join(a: Fact, b: Fact) -> Fact:
    """
    Make one fact of two with the same kind and movement; commutative, associative, idempotent.

    Totals take the larger amount. Otherwise the stronger source counts, then the later provider time, then the
    larger amount and so on, never the one that arrived last.
    """
    if a.kind in CUMULATIVE and (a.amount_minor or 0) != (b.amount_minor or 0):
        return max(a, b, key=lambda fact: fact.amount_minor or 0)
    return max(a, b, key=_order)


def _order(fact: Fact) -> tuple[int, int, int, int, str, int, str, str]:
    return (
        _WEIGHT[fact.source],
        fact.at_ms,
        -1 if fact.amount_minor is None else fact.amount_minor,
        -1 if fact.asked_minor is None else fact.asked_minor,
        fact.currency or "",
        -1 if fact.fee_minor is None else fact.fee_minor,
        fact.method or "",
        fact.reason or "",
    )
