"""
Which of the refunds that a provider tells of are ours, and what each has become: pure, and the order of arrival never
matters, except between refunds of one amount, which nobody can tell apart.

A refund of ours is known by the name that the provider's answer gave it. One whose answer was lost has no name yet:
then the oldest of the same amount takes the name that nobody has. What is left over was not made by us.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from service.payments.facts import Fact, Kind
from service.payments.states import REFUND, REFUND_ORDER, RefundState, RefundStep

_S = RefundState
WITHOUT_AN_END = frozenset({_S.REQUESTED, _S.QUEUED, _S.SUBMITTING, _S.UNKNOWN, _S.PENDING})
NOTHING_WENT = frozenset({_S.FAILED, _S.CANCELED})
_WITH_THE_PROVIDER = frozenset({_S.SUBMITTING, _S.UNKNOWN, _S.PENDING})
_GONE_OR_GOING = _WITH_THE_PROVIDER | {_S.SUCCEEDED}

REFUND_KINDS = frozenset({*REFUND_ORDER, Kind.REFUNDED_TOTAL})

RENAMING = frozenset({"paystack"})
"""Providers whose pending refund may get another name when it is processed (`paystack.of_refund`)."""


@dataclass(frozen=True, slots=True)
class Refund:
    """
    A refund of one attempt, amounts in minor units. `name`: the movement's id at the provider. `id` is empty for one
    that was just seen there. `made_here`: caisse was asked for it.
    """

    id: str
    state: RefundState
    amount_minor: int
    made_here: bool = False
    manual: bool = False
    name: str | None = None
    currency: str | None = None


@dataclass(slots=True)
class _Movement:
    kinds: set[str] = field(default_factory=set)
    amount_minor: int = 0
    currency: str | None = None

    @property
    def state(self) -> RefundState:
        return walk(_S.PENDING, self.kinds)


def step(state: RefundState, what: RefundStep | Kind) -> RefundState:
    """One row of the machine; what is not listed changes nothing."""
    return RefundState(REFUND.get((state, what), state))


def walk(state: RefundState, kinds: Iterable[str]) -> RefundState:
    """What the provider has said, read in the order of rank."""
    for kind in sorted(kinds, key=REFUND_ORDER.index):
        state = step(state, Kind(kind))
    return state


def match(refunds: Sequence[Refund], facts: Iterable[Fact], renaming: bool = False) -> list[Refund]:
    """
    All refunds of an attempt as its facts have them now: the known ones in their order, then those just seen.

    `renaming`: a name may give way to another of the same amount while its refund is pending.
    """
    told = list(facts)
    movements = _movements(told)
    now = list(refunds)
    places = {refund.name: place for place, refund in enumerate(now) if refund.name}
    strangers: list[str] = []
    for name, movement in movements.items():
        if name in places:
            now[places[name]] = replace(now[places[name]], state=movement.state)
        elif movement.amount_minor:  # without an amount it is no refund yet; the payment's own sums know it
            strangers.append(name)
    for name in strangers:
        movement = movements[name]
        place = _nameless(now, movement, renaming)
        if place is not None:
            now[place] = replace(now[place], name=name, state=movement.state)
        elif renaming and movement.state is _S.PENDING and _held(now, movement):
            continue  # the same refund under the name it had before, whatever has become of it since
        else:
            now.append(Refund("", movement.state, movement.amount_minor, name=name, currency=movement.currency))
    return _explain_total(now, told, movements)


def _movements(facts: Sequence[Fact]) -> Mapping[str, _Movement]:
    found: dict[str, _Movement] = {}
    for fact in facts:
        if fact.kind in REFUND_ORDER:
            movement = found.setdefault(fact.movement, _Movement())
            movement.kinds.add(fact.kind)
            movement.amount_minor = max(movement.amount_minor, fact.amount_minor or 0)
            movement.currency = movement.currency or fact.currency
    return dict(sorted(found.items()))


def _same(refund: Refund, movement: _Movement) -> bool:
    return refund.amount_minor == movement.amount_minor and refund.state not in NOTHING_WENT


def _held(now: Sequence[Refund], movement: _Movement) -> bool:
    return any(refund.amount_minor == movement.amount_minor for refund in now)


def _nameless(now: Sequence[Refund], movement: _Movement, renaming: bool) -> int | None:
    """The first refund of this amount that has no name yet, or whose name may give way."""
    for place, refund in enumerate(now):
        if not _same(refund, movement):
            continue
        if refund.name is None:
            by_hand = refund.manual and refund.state is _S.QUEUED and movement.state is _S.SUCCEEDED
            ours = refund.state in _WITH_THE_PROVIDER and refund.made_here
            if by_hand or ours or not refund.made_here:
                return place
        elif renaming and refund.state is _S.PENDING and movement.state is not _S.PENDING:
            return place
    return None


def _explain_total(now: list[Refund], facts: Sequence[Fact], movements: Mapping[str, _Movement]) -> list[Refund]:
    """
    Totals name no refund: what they hold beyond the refunds that are known is a manual one that was made meanwhile, or
    one nameless refund that is not ours; it shrinks when its parts are told by name.
    """
    totals = [fact for fact in facts if fact.kind is Kind.REFUNDED_TOTAL]
    total = max((fact.amount_minor or 0 for fact in totals), default=0)
    total -= sum(movement.amount_minor for movement in movements.values() if movement.state is _S.FAILED)
    rest_at = next((at for at, one in enumerate(now) if not one.made_here and one.name is None), None)
    known = sum(one.amount_minor for at, one in enumerate(now) if one.state in _GONE_OR_GOING and at != rest_at)
    left = total - known
    for place, refund in enumerate(now):
        if refund.manual and refund.state is _S.QUEUED and refund.amount_minor <= left:
            now[place] = replace(refund, state=step(refund.state, Kind.REFUND_SUCCEEDED))
            left -= refund.amount_minor
    if rest_at is None and left > 0:
        now.append(Refund("", _S.SUCCEEDED, left, currency=next((f.currency for f in totals if f.currency), None)))
    elif rest_at is not None:
        state = _S.SUCCEEDED if left > 0 else _S.CANCELED
        now[rest_at] = replace(now[rest_at], state=state, amount_minor=left if left > 0 else now[rest_at].amount_minor)
    return now
