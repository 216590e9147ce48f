"""What a provider's list says of one payment, against what is known here: pure, and about money alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from service.payments.facts import Fact, Kind, Told
from service.payments.records import AttemptRecord
from service.payments.rules import flows
from service.payments.states import LIVE

BACK: Final = frozenset({Kind.REVERSED, Kind.REFUND_SUCCEEDED, Kind.REFUNDED_TOTAL})
_OVER: Final = frozenset({Kind.FAILED, Kind.CANCELED, Kind.EXPIRED})


class Differs(StrEnum):
    """How the provider's list and what is known here disagree about one payment."""

    MISSING_HERE = "missing_here"  # captured there, and nobody here knows it
    MISSING_THERE = "missing_there"  # captured here, and not in the list
    AMOUNT = "amount"
    STATUS = "status"  # captured, or given back, on one side alone


@dataclass(frozen=True, slots=True)
class Difference:
    """
    One disagreement. `reference` is the provider's name of the payment; amounts are minor units of `currency`; `at_ms`
    is when the money moved, 0 where nobody says.
    """

    reference: str
    kind: Differs
    payment_id: str | None
    currency: str
    ours_minor: int
    theirs_minor: int
    detail: str
    at_ms: int = 0


def compare(told: Told, known: Sequence[AttemptRecord], until_ms: int) -> Difference | None:
    """
    How they disagree about one listed payment; None where they do not. `known` are the attempts that go by one of its
    names. Money that moved at `until_ms` or later is left to the next time: its callback may be on its way.
    """
    theirs = [fact for fact in told.facts if fact.kind is Kind.CAPTURED]
    at_ms = max((fact.at_ms for fact in theirs), default=0)
    if at_ms >= until_ms:
        return None
    here = [kept.fact for attempt in known for kept in attempt.facts.values()]
    asked = known[0].row["currency"] if known else next((f.currency for f in theirs if f.currency), "XXX")
    there_minor = captured(theirs, asked)
    # Of what came twice the provider may list each by itself, so that like is compared with like.
    moved = {fact.movement for fact in theirs}
    here_minor = captured([fact for fact in here if fact.movement in moved], asked) or captured(here, asked)
    payment_id = known[0].row["payment_id"] if known else None
    back_there = _word(fact for fact in told.facts if fact.kind in BACK and fact.amount_minor != 0)
    back_here = any(fact.kind in BACK for fact in here)
    # What went back may be listed without a word of its having come.
    came_there, came_here = there_minor or back_there, here_minor
    currency = next(iter(there_minor or here_minor), asked)
    sums = payment_id, currency, here_minor.get(currency, 0), there_minor.get(currency, 0)
    name = told.references[0]
    if not known:
        return (
            Difference(name, Differs.MISSING_HERE, *sums, f"{money_words(there_minor)} there", at_ms)
            if theirs
            else None
        )
    if came_there and not came_here:
        said = money_words(there_minor) or back_there
        return Difference(name, Differs.STATUS, *sums, f"{_states(known)} here, {said} there", at_ms)
    if came_here and not came_there:
        moment = max((fact.at_ms for fact in here if fact.kind is Kind.CAPTURED), default=0)
        if moment >= until_ms:
            return None
        word = _word(told.facts) or "nothing"
        return Difference(name, Differs.STATUS, *sums, f"{money_words(here_minor)} here, {word} there", moment)
    if there_minor and there_minor != here_minor:
        detail = f"{money_words(here_minor)} here, {money_words(there_minor)} there"
        return Difference(name, Differs.AMOUNT, *sums, detail, at_ms)
    if back_there and not back_here:
        return Difference(name, Differs.STATUS, *sums, f"succeeded here, {back_there} there", at_ms)
    return None


def is_over(told: Told, known: Sequence[AttemptRecord]) -> bool:
    """Ended without money there, and alive here: no difference of money, but worth a question."""
    ended = any(fact.kind in _OVER for fact in told.facts)
    return ended and any(attempt.row["state"] in LIVE for attempt in known)


def captured(facts: Sequence[Fact], currency: str) -> dict[str, int]:
    """What was captured, by currency, in minor units."""
    money = flows([fact for fact in facts if fact.kind is Kind.CAPTURED], currency)
    sums = {money.currency: money.captured_minor, **dict(money.elsewhere)}
    return {code: minor for code, minor in sorted(sums.items()) if minor}


def money_words(sums: Mapping[str, int]) -> str:
    """Amounts for people: minor units and currency."""
    return " and ".join(f"{minor} {code}" for code, minor in sums.items())


def _word(facts: Iterable[Fact]) -> str:
    return next((fact.kind.value for fact in facts), "")


def _states(known: Sequence[AttemptRecord]) -> str:
    return ", ".join(dict.fromkeys(attempt.row["state"] for attempt in known))
