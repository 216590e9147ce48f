"""
Who is served next: values in, a choice out. Nobody can take all the places, whatever he does with them.

- A destination gets `per_destination` places at most, and one at a time while its last try failed or was slow.
- Once half of all places are taken, nobody gets a second one: so forty that hang at the same moment still leave room.
- Those that fail or are slow share half of all places between them.
- Within a destination first tries go before retries, but three times of four only, so that neither starves the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from random import Random
from typing import NamedTuple

from outbox.policy import Policy

_RETRY_FIRST = 0.25


class Place(NamedTuple):
    """
    A destination whose turn it is, and the first of what is due there: first tries and those tried before, as pairs of
    due time and the row it stands in, the longest due first. `troubled` is 1 while its last try failed or was slow.
    """

    name: str
    troubled: int
    opened_ms: int
    paused_until_ms: int
    per_minute: int | None
    turn_ms: int
    first: Sequence[Sequence[int]]
    again: Sequence[Sequence[int]]


@dataclass(slots=True)
class Choice:
    """
    The `rows` to claim, in turn; how many are `taken` of each place; the places `touched`, whose turn comes later now.
    `waiting`: something may be due that has no room, so choose again when there is some.
    """

    rows: list[int] = field(default_factory=list)
    taken: dict[str, int] = field(default_factory=dict)
    touched: list[Place] = field(default_factory=list)
    waiting: bool = False


def cap(policy: Policy, total: int) -> int:
    """How many places one destination may have when `total` are taken."""
    return policy.per_destination if total < _half(policy) else 1


def choose(
    places: Sequence[Place],
    flying: Mapping[str, int],
    troubled_flying: int,
    policy: Policy,
    room: int,
    rng: Random,
) -> Choice:
    """
    Chooses up to `room` messages for `places` (in their turn), of which `flying` says how many are in flight there
    already, and `troubled_flying` how many of all these at places that are in trouble.
    """
    choice = Choice()
    half = _half(policy)
    total, troubled = sum(flying.values()), troubled_flying
    hungry = [(place, _in_order(place, rng)) for place in places if place.first or place.again]
    while hungry and len(choice.rows) < room:
        fed: list[tuple[Place, list[int]]] = []
        for place, queue in hungry:
            taken = choice.taken.get(place.name, 0)
            most = 1 if place.troubled or total >= half else policy.per_destination
            if _spent(place, taken):
                continue
            if flying.get(place.name, 0) + taken >= most or (place.troubled and troubled >= half):
                choice.waiting = True
                continue
            if len(choice.rows) >= room:
                choice.waiting = True
                break
            choice.rows.append(queue.pop(0))
            choice.taken[place.name] = taken + 1
            total += 1
            troubled += place.troubled
            if queue:
                fed.append((place, queue))
        hungry = fed
    choice.waiting = choice.waiting or bool(hungry)
    choice.touched = [place for place in places if place.name in choice.taken or not (place.first or place.again)]
    return choice


def _half(policy: Policy) -> int:
    return max(1, policy.in_flight // 2)


def _spent(place: Place, taken: int) -> bool:
    """A limited destination gets what one second allows at a time, and at least one; a probe is one anyway."""
    if place.per_minute is None or place.opened_ms:
        return False
    return taken >= max(1, place.per_minute // 60)


def _in_order(place: Place, rng: Random) -> list[int]:
    if place.opened_ms:  # it is a probe: whatever has waited longest
        return [row for _, row in sorted((*place.first, *place.again), key=itemgetter(0))]
    first, again = [row for _, row in place.first], [row for _, row in place.again]
    rows: list[int] = []
    while first and again:
        rows.append((again if rng.random() < _RETRY_FIRST else first).pop(0))
    return rows + first + again
