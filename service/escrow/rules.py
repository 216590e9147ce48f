"""What becomes of a hold's amounts, and what stands against its release: pure functions of values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from service.payments.rules import Problem

BUYER, DISPUTE, ELSEWHERE, LATE, MISMATCH = "buyer", "dispute", "refunded_elsewhere", "late", "mismatch"
"""What can stand against a hold: the buyer's word, a bank's or operator's, a refund not by us, late or wrong money."""

_BY_PROBLEM = {
    Problem.DISPUTED: DISPUTE,
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


def against(problems: Iterable[str], elsewhere: bool) -> frozenset[str]:
    """What an order's payments say against the release of its money. `elsewhere`: a refund that is not ours."""
    said = {_BY_PROBLEM[Problem(problem)] for problem in problems if problem in _BY_PROBLEM}
    return frozenset(said | ({ELSEWHERE} if elsewhere else set()))
