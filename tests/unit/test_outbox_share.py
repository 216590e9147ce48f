"""Who is served next: whatever one destination owes, does or fails to do, the others get their places."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.policy import Policy
from outbox.share import Choice, Place, cap, choose


def policy(in_flight: int = 64, per_destination: int = 4) -> Policy:
    return Policy("t", (), 30_000, 10_000, in_flight=in_flight, per_destination=per_destination)


Due = tuple[list[tuple[int, Any]], list[tuple[int, Any]]]


def place(name: str, troubled: bool = False, opened_ms: int = 0, per_minute: int | None = None) -> Place:
    return Place(name, int(troubled), opened_ms, 0, per_minute, 0, [], [])


def owed(name: str, first: int, again: int = 0) -> Due:
    """First tries and retries, the retries due before the first tries."""
    return [(1000 + n, f"{name}-first-{n}") for n in range(first)], [(n, f"{name}-again-{n}") for n in range(again)]


def owing(places: list[Place], due: dict[str, Due]) -> list[Place]:
    """These places with what is due there."""
    return [p._replace(first=due[p.name][0], again=due[p.name][1]) if p.name in due else p for p in places]


def chosen(
    places: list[Place],
    due: dict[str, Due],
    flying: dict[str, int] | None = None,
    room: int = 50,
    policy: Policy = policy(),  # noqa: B008 - frozen
    seed: int = 1,
) -> Choice:
    flying = flying or {}
    troubled = sum(flying.get(p.name, 0) for p in places if p.troubled)
    return choose(owing(places, due), flying, troubled, policy, room, Random(seed))


def test_one_destination_gets_its_cap_and_no_more() -> None:
    """What is in flight already counts; what has no room makes it wait."""
    due = {"a": owed("a", 16)}
    assert chosen([place("a")], due).taken == {"a": 4}
    assert chosen([place("a")], due, {"a": 3}).taken == {"a": 1}
    full = chosen([place("a")], due, {"a": 4})
    assert (full.rows, full.waiting) == ([], True)
    assert not chosen([place("a")], {"a": owed("a", 2)}).waiting


def test_whether_more_waits_than_there_is_room_for_is_known() -> None:
    """One more than the cap is looked up: only if there is one, somebody has to look again."""
    assert chosen([place("a")], {"a": owed("a", 5)}).waiting
    assert not chosen([place("a")], {"a": owed("a", 4)}).waiting
    assert not chosen([place("a")], {"a": owed("a", 2, 2)}).waiting


def test_they_are_served_in_turn_one_each() -> None:
    """Round by round in the order of turns, so that the first cannot fill the room."""
    places = [place(name) for name in "cab"]
    due = {name: owed(name, 4) for name in "abc"}
    choice = chosen(places, due, room=5)
    assert [id_[0] for id_ in choice.rows] == ["c", "a", "b", "c", "a"]
    assert choice.waiting


def test_forty_that_hang_at_the_same_instant_leave_room() -> None:
    """Each has more due than its cap, all at once: one each, and 24 of 64 places stay free."""
    places = [place(f"h{n}") for n in range(40)]
    due = {p.name: owed(p.name, 4) for p in places}
    choice = chosen(places, due)
    assert (len(choice.rows), set(choice.taken.values())) == (40, {1})
    later = chosen([*places, place("well")], due | {"well": owed("well", 4)}, dict(choice.taken), room=24)
    assert later.taken == {"well": 1}


def test_when_half_is_taken_nobody_gets_a_second_place() -> None:
    """31 of 64: one more. 32: none."""
    due = {"a": owed("a", 4)}
    assert chosen([place("a")], due, {"a": 1, "others": 30}).taken == {"a": 1}
    assert chosen([place("a")], due, {"a": 1, "others": 31}).taken == {}
    assert chosen([place("a")], due, {"others": 63}, room=1).taken == {"a": 1}
    assert (cap(policy(), 31), cap(policy(), 32), cap(policy(in_flight=1), 0)) == (4, 1, 4)


def test_who_fails_gets_one_at_a_time() -> None:
    """However much is due there and however empty it is."""
    due = {"a": owed("a", 4, 4)}
    assert chosen([place("a", troubled=True)], due).taken == {"a": 1}
    assert chosen([place("a", troubled=True)], due, {"a": 1}).taken == {}


def test_those_that_fail_share_half_of_all_places() -> None:
    """5,000 of them, all due first; the others find the other half."""
    failing = [place(f"f{n}", troubled=True) for n in range(50)]
    well = [place(f"w{n}") for n in range(50)]
    due = {p.name: owed(p.name, 1) for p in failing + well}
    choice = chosen(failing + well, due, room=50)
    assert Counter(id_[0] for id_ in choice.rows) == {"f": 32, "w": 18}
    assert choice.waiting
    full = chosen(failing[32:], due, {p.name: 1 for p in failing[:32]}, room=32)
    assert full.rows, "the share counts what is in flight, and `chosen` counts only its own places"
    crowd = choose(owing(failing[32:] + well, due), {p.name: 1 for p in failing[:32]}, 32, policy(), 32, Random(1))
    assert Counter(id_[0] for id_ in crowd.rows) == {"w": 32}


def test_first_tries_and_retries_share_three_to_one() -> None:
    """Neither starves, whichever was due longer: of 4,000 choices about 1,000 are retries."""
    got: Counter[str] = Counter()
    for seed in range(4000):
        (id_,) = chosen([place("a")], {"a": owed("a", 4, 4)}, room=1, seed=seed).rows
        got[id_] += 1
    assert set(got) == {"a-first-0", "a-again-0"}
    assert 850 < got["a-again-0"] < 1150


def test_within_its_kind_the_longest_due_goes_first() -> None:
    """And when one kind is used up the other follows."""
    ids = chosen([place("a")], {"a": owed("a", 3, 2)}, policy=policy(per_destination=9)).rows
    assert [id_ for id_ in ids if "first" in id_] == [f"a-first-{n}" for n in range(3)]
    assert [id_ for id_ in ids if "again" in id_] == [f"a-again-{n}" for n in range(2)]


def test_a_probe_is_whatever_has_waited_longest() -> None:
    """Not luck: with an open circuit a message must not be probed with again and again while an older one waits."""
    due: dict[str, Due] = {"a": ([(5, "middle"), (9, "new")], [(1, "old")])}
    for seed in range(20):
        assert chosen([place("a", troubled=True, opened_ms=30_000)], due, seed=seed).rows == ["old"]


@pytest.mark.parametrize(("per_minute", "taken"), [(1, 1), (59, 1), (60, 1), (119, 1), (120, 2), (180, 3), (6000, 4)])
def test_a_limited_destination_gets_what_a_second_allows(per_minute: int, taken: int) -> None:
    """At least one, never more than its cap; that it has to wait is no reason to choose again."""
    choice = chosen([place("a", per_minute=per_minute)], {"a": owed("a", 5)})
    assert choice.taken == {"a": taken}
    assert choice.waiting == (taken == 4)


# --- whatever the inputs -----------------------------------------------------------------------------


@st.composite
def situations(draw: st.DrawFn) -> dict[str, Any]:
    size = draw(st.integers(1, 6))
    rules = policy(draw(st.integers(1, 12)), draw(st.integers(1, 5)))
    places, due, flying = [], {}, {}
    for number in range(size):
        name = f"p{number}"
        failing = draw(st.booleans())
        opened_ms = draw(st.sampled_from([0, 30_000])) if failing else 0
        limit = draw(st.sampled_from([None, None, 1, 120, 600]))
        places.append(place(name, failing, opened_ms, limit))
        first, again = draw(st.integers(0, rules.per_destination)), draw(st.integers(0, rules.per_destination))
        if first + again:
            due[name] = owed(name, first, again)
        if count := draw(st.integers(0, 3)):
            flying[name] = count
    elsewhere = draw(st.integers(0, 4))
    if elsewhere:
        flying["elsewhere"] = elsewhere
    return {
        "places": owing(places, due),
        "flying": flying,
        "troubled_flying": sum(flying.get(p.name, 0) for p in places if p.troubled) + draw(st.integers(0, elsewhere)),
        "policy": rules,
        "room": draw(st.integers(1, 12)),
        "rng": draw(st.randoms(use_true_random=False)),
    }


@given(situations())
def test_no_rule_is_broken_whatever_the_situation(at: dict[str, Any]) -> None:
    """Room, caps, the scarce half, the share of the failing, the limits; nothing twice, and nothing that is not due."""
    rules: Policy = at["policy"]
    half = max(1, rules.in_flight // 2)
    places = {p.name: p for p in at["places"]}
    due = {p.name: [row for _, row in [*p.first, *p.again]] for p in at["places"] if p.first or p.again}
    of = {row: name for name, here in due.items() for row in here}
    choice = choose(**at)

    assert len(choice.rows) == len(set(choice.rows)) <= at["room"]
    assert Counter(of[row] for row in choice.rows) == choice.taken
    total, troubled, got = sum(at["flying"].values()), at["troubled_flying"], Counter(at["flying"])
    for id_ in choice.rows:  # each by itself, in the order in which they were given away
        name = of[id_]
        assert got[name] < rules.per_destination
        assert got[name] == 0 or total < half, "nobody gets a second place when half is taken"
        if places[name].troubled:
            assert got[name] == 0, "who fails gets one at a time"
            assert troubled < half, "those that fail share half"
            troubled += 1
        got[name] += 1
        total += 1
    for name, count in choice.taken.items():
        limit = places[name].per_minute
        assert limit is None or count <= max(1, limit // 60)

    # Who is well, has something due and nothing in flight gets a place, if there is any.
    for name in due:
        if not places[name].troubled and name not in at["flying"]:
            assert name in choice.taken or len(choice.rows) == at["room"]
    # In one round everybody gets one before anybody gets two.
    if len(choice.rows) == at["room"] and max(choice.taken.values()) > 1:
        for name in due:
            assert places[name].troubled or name in at["flying"] or name in choice.taken
    # What is left behind, or may be, is not forgotten.
    for name, here in due.items():
        taken = choice.taken.get(name, 0)
        limit = None if places[name].opened_ms else places[name].per_minute
        limited = limit is not None and taken >= max(1, limit // 60)
        if taken < len(here) and not limited:
            assert choice.waiting
    assert set(choice.taken) <= set(due)
    assert [p.name for p in choice.touched] == [
        p.name for p in at["places"] if p.name not in due or p.name in choice.taken
    ]


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(1, 8), st.randoms(use_true_random=False))
def test_everybody_is_served_in_the_end(failing: list[bool], room: int, rng: Random) -> None:
    """Rounds with a place or a few at a time, each served one going behind: nobody waits for more than one circle."""
    rules = policy(in_flight=64, per_destination=4)
    line = [place(f"p{number}", fails) for number, fails in enumerate(failing)]
    served: set[str] = set()
    for _ in range(len(line)):
        choice = choose(owing(line, {p.name: owed(p.name, 4, 4) for p in line}), {}, 0, rules, room, rng)
        served |= set(choice.taken)
        line.sort(key=lambda p: p.name in choice.taken)
    assert len(served) == len(line)
