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
from random import Random
from typing import NamedTuple

from outbox.policy import Policy

_RETRY_FIRST = 0.25


class Place(NamedTuple):
    """A destination whose turn it is."""

    name: str
    failing: bool
    opened_ms: int
    paused_until_ms: int
    per_minute: int | None
    turn_ms: int = 0


class Owed(NamedTuple):
    """A message that is due, by the row it stands in."""

    row: int
    due_at_ms: int
    again: bool


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
    owed: Mapping[str, list[Owed]],
    flying: Mapping[str, int],
    failing_flying: int,
    policy: Policy,
    room: int,
    rng: Random,
) -> Choice:
    """
    Chooses up to `room` messages for `places` (in their turn), of which `flying` says how many are in flight there
    already, and `failing_flying` how many of all these at places that fail. `owed`: of each kind the earliest first.
    """
    choice = Choice()
    half = _half(policy)
    total, failing = sum(flying.values()), failing_flying
    queues = {place.name: _in_order(owed.get(place.name, []), place.opened_ms > 0, rng) for place in places}
    hungry = [place for place in places if queues[place.name]]
    while hungry and len(choice.rows) < room:
        fed: list[Place] = []
        for place in hungry:
            here = flying.get(place.name, 0) + choice.taken.get(place.name, 0)
            most = 1 if place.failing else cap(policy, total)
            if here >= most or (place.failing and failing >= half) or _spent(place, choice):
                choice.waiting = choice.waiting or not _spent(place, choice)
                continue
            if len(choice.rows) >= room:
                choice.waiting = True
                break
            choice.rows.append(queues[place.name].pop(0))
            choice.taken[place.name] = choice.taken.get(place.name, 0) + 1
            total += 1
            failing += place.failing
            if queues[place.name]:
                fed.append(place)
        hungry = fed
    # Of each kind only `per_destination` were looked up: behind so many there may be more.
    emptied = (name for name, count in choice.taken.items() if count == len(owed[name]) >= policy.per_destination)
    choice.waiting = choice.waiting or bool(hungry) or any(emptied)
    return choice


def _half(policy: Policy) -> int:
    return max(1, policy.in_flight // 2)


def _spent(place: Place, choice: Choice) -> bool:
    """A limited destination gets what one second allows at a time, and at least one; a probe is one anyway."""
    if place.per_minute is None or place.opened_ms:
        return False
    return choice.taken.get(place.name, 0) >= max(1, place.per_minute // 60)


def _in_order(owed: list[Owed], opened: bool, rng: Random) -> list[int]:
    if opened:  # it is a probe: whatever has waited longest
        return [one.row for one in sorted(owed, key=lambda one: one.due_at_ms)]
    first = [one.row for one in owed if not one.again]
    again = [one.row for one in owed if one.again]
    rows: list[int] = []
    while first and again:
        rows.append((again if rng.random() < _RETRY_FIRST else first).pop(0))
    return rows + first + again
