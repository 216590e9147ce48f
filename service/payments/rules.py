"""
What a payment is, computed from what was told about it: pure, and the order of arrival never matters.

Facts are joined into a set (`facts.join`), read in a canonical order (`states.rank`, then the provider's time)
through the attempt's table, and summed. Nothing here knows a clock or a database.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from service.payments.facts import Fact, Kind, Reason, Source
from service.payments.states import (
    ATTEMPT,
    DISPUTE,
    DISPUTE_ORDER,
    LIVE,
    REFUND,
    REFUND_ORDER,
    DisputeState,
    RefundState,
    State,
    Step,
    Table,
    rank,
)


class Problem(StrEnum):
    """An exception on a payment, beside its status. Each opens an attention item."""

    LATE = "late"
    UNDER = "under"
    OVER = "over"
    DUPLICATE = "duplicate"
    MISMATCH = "mismatch"
    UNRESOLVED = "unresolved"
    DISPUTED = "disputed"


NOT_TO_BE_FULFILLED = frozenset({Problem.LATE, Problem.UNDER, Problem.OVER, Problem.DUPLICATE, Problem.MISMATCH})
"""A success with one of these is told as `payment.attention`: who ships on `payment.succeeded` must not be tricked."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A step of ours about one attempt, at our time."""

    step: Step
    at_ms: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """What an attempt is, given its facts. `None` amounts were never said."""

    state: State
    asked_minor: int | None
    currency: str | None
    captured_minor: int
    refunded_minor: int
    refund_seen: bool
    paid_at_ms: int | None
    fee_minor: int | None
    method: str | None
    reason: str | None
    problems: frozenset[Problem]


@dataclass(frozen=True, slots=True)
class Payment:
    """What a payment is, given its attempts. `status` is the API's word."""

    status: str
    problems: frozenset[Problem]
    amount_minor: int
    currency: str
    captured_minor: int
    refunded_minor: int
    fee_minor: int | None
    method: str | None
    failure_reason: str | None
    paid_at_ms: int | None


def _canonical(item: Fact | Decision) -> tuple[int, int, str, str]:
    if isinstance(item, Fact):
        return (rank(item.kind) or 0, item.at_ms, item.movement, item.kind)
    return (rank(item.step) or 0, item.at_ms, "", item.step)


def attempt_state(start: State, facts: Iterable[Fact], decisions: Iterable[Decision] = ()) -> State:
    """Read everything that moves an attempt, in canonical order, through its table."""
    items: list[Fact | Decision] = [fact for fact in facts if rank(fact.kind) is not None]
    items += decisions
    state: str = start
    for item in sorted(items, key=_canonical):
        what = item.kind if isinstance(item, Fact) else item.step
        state = ATTEMPT.get((state, what), state)
    return State(state)


def decide_attempt(
    facts: Sequence[Fact],
    *,
    asked: tuple[int, str] | None = None,
    decisions: Sequence[Decision] = (),
    start: State = State.SUBMITTING,
    ended_at_ms: int | None = None,
) -> Attempt:
    """
    Say what an attempt is.

    `asked` is what we asked the provider for (minor units, currency); None for an adopted payment, which asks for
    what its strongest, latest fact says. `start` is SUBMITTING for adopted ones: somebody else has sent them.
    `ended_at_ms` is when our order or session ended: a capture after it is late.
    """
    state = attempt_state(start, facts, decisions)
    asked_minor, currency = asked or _asked(facts)
    captures = _captures(facts)
    problems: set[Problem] = set()
    captured = sum(fact.amount_minor or 0 for fact in captures)
    if captures:
        if currency is None or any(fact.currency != currency or fact.amount_minor is None for fact in captures):
            problems.add(Problem.MISMATCH)
        elif asked_minor is not None and captured != asked_minor:
            problems.add(Problem.UNDER if captured < asked_minor else Problem.OVER)
        if len(captures) > 1:
            problems.add(Problem.DUPLICATE)
        if ended_at_ms is not None and any(fact.at_ms > ended_at_ms for fact in captures):
            problems.add(Problem.LATE)
    elif state not in LIVE and any(fact.kind is Kind.RECEIVED_PART and fact.amount_minor for fact in facts):
        problems.add(Problem.UNDER)
    if claims(facts):
        problems.add(Problem.DISPUTED)
    times = [fact.at_ms for fact in captures if fact.at_ms]
    reasons = sorted((fact for fact in facts if fact.reason is not None), key=_canonical)
    methods = sorted((fact for fact in facts if fact.method is not None), key=_canonical)
    fees = [fact.fee_minor for fact in facts if fact.fee_minor is not None]
    refunded, refund_seen = _refunded(facts)
    return Attempt(
        state=state,
        asked_minor=asked_minor,
        currency=currency,
        captured_minor=captured,
        refunded_minor=refunded,
        refund_seen=refund_seen,
        paid_at_ms=min(times) if times else None,
        fee_minor=max(fees) if fees else None,
        method=methods[-1].method if methods else None,
        reason=_why(state, reasons),
        problems=frozenset(problems),
    )


def _why(state: State, reasons: Sequence[Fact]) -> str | None:
    if state is State.SUCCEEDED:
        return None
    if reasons:
        return reasons[-1].reason
    return Reason.PROVIDER_UNAVAILABLE if state is State.NOT_SENT else None


_SOURCE_WEIGHT = {source: weight for weight, source in enumerate(Source)}


def _asked(facts: Iterable[Fact]) -> tuple[int | None, str | None]:
    said = [fact for fact in facts if fact.asked_minor is not None and fact.currency is not None]
    if not said:
        return None, None
    best = max(said, key=lambda f: (_SOURCE_WEIGHT[f.source], f.at_ms, f.asked_minor or 0, f.currency or ""))
    return best.asked_minor, best.currency


def _by_movement(
    facts: Iterable[Fact], order: tuple[str, ...], start: str, machine: Table
) -> dict[str, tuple[str, int]]:
    """Each refund's or dispute's state and largest amount, read in the order of its machine."""
    found: dict[str, tuple[str, int]] = {}
    relevant = [fact for fact in facts if fact.kind in order]
    for fact in sorted(relevant, key=lambda f: order.index(f.kind)):
        state, amount = found.get(fact.movement, (start, 0))
        found[fact.movement] = (machine.get((state, fact.kind), state), max(amount, fact.amount_minor or 0))
    return found


def _refunded(facts: Sequence[Fact]) -> tuple[int, bool]:
    """
    How much went back, and whether any refund was seen at all (an amount may be unsaid).

    Providers tell totals so far, single refunds, or both. A total once told included the refunds that failed
    afterwards, so those are taken off it; the larger of both ways of counting is the truth.
    """
    single = _by_movement(facts, REFUND_ORDER, RefundState.PENDING, REFUND).values()
    succeeded = sum(amount for state, amount in single if state == RefundState.SUCCEEDED)
    failed = sum(amount for state, amount in single if state == RefundState.FAILED)
    totals = [fact.amount_minor for fact in facts if fact.kind is Kind.REFUNDED_TOTAL]
    total = max((amount or 0 for amount in totals), default=0)
    refunded = max(succeeded, total - failed, 0)
    return refunded, refunded > 0 or None in totals


@dataclass(frozen=True, slots=True)
class Flows:
    """
    What the money of one attempt has done, in minor units of `currency`. `elsewhere`: captured in other currencies than
    that, which nothing was ever asked for in. `clawed`: reversed by the operator; `lost`: in disputes; `disputed`:
    claimed back in disputes that are open. What a claim does not say is all that is there.
    """

    currency: str
    captured_minor: int = 0
    fee_minor: int = 0
    refunded_minor: int = 0
    clawed_minor: int = 0
    lost_minor: int = 0
    disputed_minor: int = 0
    elsewhere: tuple[tuple[str, int], ...] = ()


def flows(facts: Sequence[Fact], currency: str) -> Flows:
    """What an attempt's facts say of money that moved; `currency` is what was asked for."""
    captured: dict[str, int] = {}
    for fact in _captures(facts):
        code = fact.currency or currency
        captured[code] = captured.get(code, 0) + (fact.amount_minor or 0)
    if not captured:
        return Flows(currency)
    main = currency if currency in captured else min(captured)
    refunded, _ = _refunded(facts)
    rest = max(captured[main] - refunded, 0)
    clawed = sum(rest if f.amount_minor is None else f.amount_minor for f in facts if f.kind is Kind.REVERSED)
    disputes = _by_movement(facts, DISPUTE_ORDER, DisputeState.OPEN, DISPUTE).values()
    lost = sum(amount or rest for state, amount in disputes if state == DisputeState.LOST)
    still = sum(amount or rest for state, amount in disputes if state == DisputeState.OPEN)
    return Flows(
        main,
        captured[main],
        max((fact.fee_minor for fact in facts if fact.fee_minor is not None), default=0),
        refunded,
        min(clawed, captured[main]),
        min(lost, captured[main]),
        max(0, min(still, captured[main] - refunded - clawed - lost)),
        tuple(sorted((code, minor) for code, minor in captured.items() if code != main)),
    )


def _captures(facts: Iterable[Fact]) -> list[Fact]:
    """A person's word stands in for the provider's until that comes; it is not a second capture."""
    captures = [fact for fact in facts if fact.kind is Kind.CAPTURED]
    return [fact for fact in captures if fact.source is not Source.OPERATOR] or captures


def claims(facts: Sequence[Fact]) -> frozenset[str]:
    """What is claimed back, or was taken: the movements of reversals, and of disputes that are not won."""
    disputes = _by_movement(facts, DISPUTE_ORDER, DisputeState.OPEN, DISPUTE)
    standing = {movement for movement, (state, _) in disputes.items() if state != DisputeState.WON}
    return frozenset(standing | {fact.movement for fact in facts if fact.kind is Kind.REVERSED})


_LIVE_BEST_FIRST: tuple[tuple[str, frozenset[State]], ...] = (
    ("authorized", frozenset({State.AUTHORIZED})),
    ("requires_action", frozenset({State.REQUIRES_ACTION})),
    ("pending", frozenset({State.CREATED, State.SUBMITTING, State.PENDING, State.CANCELING})),
    ("unknown", frozenset({State.UNKNOWN})),
)
_ENDED_AS = {
    State.FAILED: "failed",
    State.NOT_SENT: "failed",
    State.CANCELED: "canceled",
    State.EXPIRED: "expired",
}


def decide_payment(attempts: Sequence[Attempt]) -> Payment:
    """
    Say what a payment is, from its attempts in the order they were made (at least one, with an amount).

    Money first, then the best live attempt; an end only when no attempt can still succeed.
    """
    last = attempts[-1]
    captured = [attempt for attempt in attempts if attempt.state is State.SUCCEEDED]
    chosen = captured[0] if captured else last
    amount = next((a.asked_minor for a in attempts if a.asked_minor is not None), 0)
    currency = next((a.currency for a in attempts if a.currency is not None), "XXX")
    problems = frozenset().union(*(attempt.problems for attempt in attempts))
    captured_minor = sum(attempt.captured_minor for attempt in attempts)
    refunded_minor = sum(attempt.refunded_minor for attempt in attempts)
    if len(captured) > 1:
        problems |= {Problem.DUPLICATE}
    states = {attempt.state for attempt in attempts}
    if captured:
        # What came twice may go back once without the payment being a refunded one.
        surplus = max(captured_minor - amount, 0) if Problem.DUPLICATE in problems else 0
        gone = refunded_minor - surplus
        if gone >= captured_minor - surplus > 0:
            status = "refunded"
        elif gone > 0 or (not refunded_minor and any(a.refund_seen for a in attempts)):
            status = "partially_refunded"
        else:
            status = "succeeded"
    else:
        live = next((word for word, among in _LIVE_BEST_FIRST if states & among), None)
        status = live or _ENDED_AS[last.state]
    fees = [a.fee_minor for a in attempts if a.fee_minor is not None]
    return Payment(
        status=status,
        problems=problems,
        amount_minor=amount,
        currency=currency,
        captured_minor=captured_minor,
        refunded_minor=refunded_minor,
        fee_minor=sum(fees) if fees else None,
        method=chosen.method,
        failure_reason=last.reason if not captured else None,
        paid_at_ms=chosen.paid_at_ms if captured else None,
    )


_TOLD_AS = {
    "pending": "payment.pending",
    "unknown": "payment.pending",
    "authorized": "payment.pending",
    "requires_action": "payment.requires_action",
    "succeeded": "payment.succeeded",
    "failed": "payment.failed",
    "canceled": "payment.canceled",
    "expired": "payment.expired",
    "refunded": "payment.refunded",
    "partially_refunded": "payment.partially_refunded",
}
STATUSES = tuple(_TOLD_AS)
"""Every status a payment can have."""


def _told_as(payment: Payment) -> str:
    if payment.status == "succeeded" and payment.problems & NOT_TO_BE_FULFILLED:
        return "payment.attention"
    return _TOLD_AS[payment.status]


def _shown(payment: Payment) -> tuple[str, str, int, str, int, int]:
    """What a merchant would act on: a change of any of it is news."""
    money = (payment.amount_minor, payment.currency, payment.captured_minor, payment.refunded_minor)
    return _told_as(payment), payment.status, *money


def announce(before: Payment | None, after: Payment) -> tuple[str, ...]:
    """The types of the events that tell a merchant of a change, in the order they are told; often none."""
    told: list[str] = []
    if before is None or _shown(before) != _shown(after):
        told.append(_told_as(after))
    old = before.problems if before else frozenset()
    if (after.problems - old) - {Problem.DISPUTED} and "payment.attention" not in told:
        told.append("payment.attention")
    if Problem.DISPUTED in after.problems ^ old:
        told.append("payment.disputed")
    return tuple(told)
