"""What the book of payments takes in and gives back: who spoke, what came of it, what has changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from outbox.queue import Queue
from service.ids import Ids
from service.merchants.events import News
from service.payments.facts import Kind, Told
from service.payments.records import AttemptRecord
from service.payments.rules import Payment

MOVES_MONEY = frozenset(
    {
        Kind.CAPTURED,
        Kind.REVERSED,
        Kind.REFUND_PENDING,
        Kind.REFUND_SUCCEEDED,
        Kind.REFUND_FAILED,
        Kind.REFUND_CANCELED,
        Kind.DISPUTE_OPENED,
        Kind.DISPUTE_WON,
        Kind.DISPUTE_LOST,
    }
)


ON_TRUST = "operator-"
"""How the movement of money begins that only a person has seen: the provider knows no such name."""


@dataclass(frozen=True, slots=True)
class Account:
    """The provider account that spoke. `merchant_id` is set: without a merchant nothing is heard."""

    id: str
    provider: str
    merchant_id: str
    live: bool


@dataclass(frozen=True, slots=True)
class Heard:
    """Understood, and now part of a payment. `illegal` counts facts that the table does not list for the state."""

    payment_id: str
    illegal: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Waits:
    """About a payment that is not known yet: whatever makes one of these references known revives it."""

    references: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lacks:
    """It would begin a payment, but does not say what about."""

    reason: str


@dataclass(frozen=True, slots=True)
class Moved:
    """A payment's change, for metrics and logs once it is committed."""

    payment_id: str
    provider: str
    status: str
    currency: str
    amount_minor: int
    problems: tuple[str, ...]  # new ones
    begun: bool
    status_changed: bool
    newly_captured_minor: int


@dataclass(frozen=True, slots=True)
class Change:
    """
    One payment before and after a transaction; `row` and `attempts` are as they were written. `before` is None when it
    has begun. One that was merged into another has no attempts any more, and `after` is what it was.
    """

    row: Mapping[str, Any]
    before: Payment | None
    after: Payment
    attempts: Sequence[AttemptRecord] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """What a follower needs to write in the same transaction."""

    queue: Queue
    ids: Ids
    now_ms: int


Follower = Callable[[Connection, Sequence[Change], Context], Sequence[News]]
"""What else changes with payments: orders, sessions, refunds. What it returns is told to the merchant."""


def ours(installation: str) -> str:
    """How our own references at providers begin: two installations on one account do not take each other's."""
    return f"caisse-{installation}-"


def names_of(told: Told, ours: str) -> tuple[str, ...]:
    """Every name the payment goes by in this message: provider ids, our own reference, ids of moved money."""
    names = dict.fromkeys(told.references)
    if told.reference and told.reference.startswith(ours):
        names[told.reference] = None
    said = (fact for fact in told.facts if fact.kind in MOVES_MONEY and not fact.movement.startswith(ON_TRUST))
    names.update(dict.fromkeys(fact.movement for fact in said))
    return tuple(names)
