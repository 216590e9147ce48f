"""
What the payments of an order or a session amount to: pure functions of values.

Money counts as *right* when one capture is exactly what its payment asked for. What comes beside it (a second capture,
another currency) is put before a person and takes nothing away: else it would depend on whether two callbacks came in
one batch or in two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from service.payments.rules import Problem

LIVE = frozenset({"pending", "requires_action", "unknown", "authorized"})
DEAD = frozenset({"failed", "canceled", "expired"})
"""A payment's statuses: it can still succeed without anything being sent anew; it cannot, by the provider's word."""

PAYING_MAX = 12
"""Payments that may make up one order's sum together; an order with more of them is a person's."""

PaymentStatus = Literal["unpaid", "partially_paid", "paid"]


@dataclass(frozen=True, slots=True)
class Money:
    """
    One payment, as its order and session see it. Amounts in minor units of `currency`. `exact`: some capture is what
    was asked for, to the unit. `returned_by_us_minor`: our refunds that the provider has, or may have, and did not
    refuse; `promised_minor`: those that still wait to be sent as well.
    """

    payment_id: str
    session_id: str | None
    amount_minor: int
    currency: str
    status: str
    problems: frozenset[str]
    captured_minor: int
    refunded_minor: int
    exact: bool
    returned_by_us_minor: int = 0
    promised_minor: int = 0
    order_id: str | None = None

    @property
    def kept_minor(self) -> int:
        """What has come and not gone back."""
        return max(self.captured_minor - self.refunded_minor, 0)

    @property
    def right(self) -> bool:
        """Whether goods may be given for it: exactly what was asked for is there, still, and nobody disputes it."""
        disputed = Problem.DISPUTED in self.problems
        return self.exact and not disputed and self.kept_minor >= self.amount_minor

    @property
    def gone_back(self) -> bool:
        """Whether all of it went back."""
        return self.status == "refunded"

    @property
    def by_others(self) -> bool:
        """Whether some of it went back that we did not send."""
        return Problem.DISPUTED in self.problems or self.refunded_minor > self.returned_by_us_minor


def pays(amount_minor: int, currency: str, among: Sequence[Money]) -> bool:
    """Whether right payments make up exactly this amount; one too many does not spoil it."""
    sums = {0}
    for one in [one for one in among if one.right and one.currency == currency][:PAYING_MAX]:
        sums |= {total + one.amount_minor for total in sums if total + one.amount_minor <= amount_minor}
    return amount_minor in sums


def paid_minor(currency: str, among: Sequence[Money]) -> int:
    """What has come for it and is still there, right or not."""
    return sum(one.kept_minor for one in among if one.currency == currency and Problem.MISMATCH not in one.problems)


def payment_status(amount_minor: int, kept_minor: int) -> PaymentStatus:
    """By the amounts alone; whether it is fulfilled is the state's to say."""
    if kept_minor <= 0:
        return "unpaid"
    return "paid" if kept_minor >= amount_minor else "partially_paid"


def any_live(among: Sequence[Money]) -> bool:
    """Whether some payment can still succeed."""
    return any(one.status in LIVE for one in among)


def refunded_by_us(among: Sequence[Money]) -> bool:
    """Whether all that came went back, and every unit of it by our hand."""
    came = [one for one in among if one.captured_minor > 0]
    return bool(came) and all(one.gone_back and not one.by_others for one in came)


def returned_elsewhere(among: Sequence[Money]) -> bool:
    """Whether money went back, or was clawed back, that we did not send."""
    return any(one.by_others for one in among)
