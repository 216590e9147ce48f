"""What becomes of a hold's amounts, and what stands against its release: pure functions of values."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from service.escrow.states import Hold
from service.payments.rules import Problem

BUYER, DISPUTE, ELSEWHERE, LATE, MISMATCH = "buyer", "dispute", "refunded_elsewhere", "late", "mismatch"
"""What can stand against a hold: the buyer's word, a bank's or operator's, a refund not by us, late or wrong money."""

_BY_PROBLEM = {
    Problem.LATE: LATE,
    Problem.MISMATCH: MISMATCH,
    Problem.UNDER: MISMATCH,
    Problem.OVER: MISMATCH,
}


@dataclass(frozen=True, slots=True)
class Amounts:
    """A hold's money, in minor units: held = releasable + released + refunded + frozen."""

    held_minor: int
    released_minor: int = 0
    refunded_minor: int = 0
    frozen_minor: int = 0
    taken_back_minor: int = 0

    @property
    def releasable_minor(self) -> int:
        """What a release would give to the beneficiary."""
        return self.held_minor - self.released_minor - self.refunded_minor - self.frozen_minor


def weigh(was: Amounts, kept_minor: int, frozen: bool) -> Amounts:
    """
    The amounts, given what is left of the order's money (`kept_minor`: captured, less refunds, reversals and lost
    disputes). Before the release what went back is the hold's; afterwards it is taken back from the beneficiary.
    """
    gone = min(max(was.held_minor - kept_minor, 0), was.held_minor)
    if was.released_minor:
        back = min(max(gone - was.refunded_minor, 0), was.released_minor)
        return Amounts(was.held_minor, was.released_minor, was.refunded_minor, 0, back)
    return Amounts(was.held_minor, 0, gone, was.held_minor - gone if frozen else 0, 0)


def hold_state(back: Amounts, stands: Collection[str], delivered: bool) -> Hold:
    """
    The state of a hold, given its amounts with nothing frozen, what stands against it (`standing`) and whether its
    order was delivered. A release is for ever: only that makes its amount more than 0.
    """
    if back.released_minor:
        return Hold.RELEASED
    if back.refunded_minor == back.held_minor:
        return Hold.REFUNDED
    if stands:
        return Hold.FROZEN
    return Hold.RELEASE_SCHEDULED if delivered else Hold.HELD


def standing(said: Iterable[str], set_aside: Collection[str], against: Collection[str]) -> frozenset[str]:
    """
    The words that stand against a hold: of what is `said` by its payments (`causes`) all that no person has set aside,
    and the buyer's own, which only the hold knows (`against`).
    """
    return words_of(cause for cause in said if cause not in set_aside) | ({BUYER} & frozenset(against))


def causes(
    payment_id: str, captured_minor: int, problems: Iterable[str], claims: Iterable[str], elsewhere_minor: int
) -> frozenset[str]:
    """
    What one payment says against the release of its order's money: words of above, each with which one of its kind, so
    that what a person has set aside is that, and nothing that comes after it. `claims`: disputes and reversals that
    stand; `elsewhere_minor`: what somebody else has given back.
    """
    wrong = (_BY_PROBLEM[Problem(word)] for word in problems if word in _BY_PROBLEM)
    found = {f"{word}:{payment_id}:{captured_minor}" for word in wrong}
    found |= {f"{DISPUTE}:{claim}" for claim in claims}
    return frozenset(found | ({f"{ELSEWHERE}:{payment_id}:{elsewhere_minor}"} if elsewhere_minor else set()))


def words_of(found: Iterable[str]) -> frozenset[str]:
    """The words alone."""
    return frozenset(cause.partition(":")[0] for cause in found)
