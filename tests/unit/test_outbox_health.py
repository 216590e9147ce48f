"""The circuit breaker: opened by failures alone, one probe at a time, closed by the first success."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.health import (
    FAILURES_IN_A_ROW,
    OPEN_MS,
    OPEN_MS_MAX,
    PAUSE_MS_MAX,
    RECENT_MINUTES,
    Ended,
    Health,
)

NOW_MS = 1_795_165_200_000  # a full minute
MINUTE_MS = 60_000
FAILED, FINE = Ended(True), Ended(False)


def opened(now_ms: int = NOW_MS) -> Health:
    return Health().after([FAILED] * FAILURES_IN_A_ROW, now_ms)


def test_the_numbers_of_the_specification() -> None:
    """Five in a row, 30 s doubling to 15 minutes, a Retry-After for 15 minutes at most."""
    assert (FAILURES_IN_A_ROW, OPEN_MS, OPEN_MS_MAX, PAUSE_MS_MAX) == (5, 30_000, 900_000, 900_000)


def test_four_failures_leave_it_closed_and_the_fifth_opens_it() -> None:
    """Whether they come at once or one by one."""
    four = Health().after([FAILED] * 4, NOW_MS)
    assert (four.failures, four.opened_ms, four.paused_until_ms, four.troubled) == (4, 0, 0, 1)
    five = four.after([FAILED], NOW_MS + 1_000)
    assert (five.failures, five.opened_ms, five.paused_until_ms) == (5, OPEN_MS, NOW_MS + 1_000 + OPEN_MS)
    assert opened()[:4] == (5, NOW_MS, OPEN_MS, NOW_MS + OPEN_MS)


def test_a_success_in_between_begins_the_count_anew() -> None:
    """Four, one that works, four: closed; and failing since the first after the success."""
    health = Health().after([*[FAILED] * 4, FINE], NOW_MS)
    assert health[:4] == (0, None, 0, 0)
    health = health.after([FAILED] * 4, NOW_MS + 7 * MINUTE_MS)
    assert (health.failures, health.opened_ms, health.failing_since_ms) == (4, 0, NOW_MS + 7 * MINUTE_MS)


def minutes_of(pattern: str) -> list[Ended]:
    return [FAILED if letter == "x" else FINE for letter in pattern]


@pytest.mark.parametrize(
    ("pattern", "opens"),
    [
        ("xxxx.xx.x", False),  # 7 of 9: too few to say
        ("xxxx.xxx.x", True),  # 8 of 10
        (".xxxx.x.xx", False),  # 7 of 10 is 70 %, not more
        ("..xxxx.xxxx", True),  # 7 of 10, then 8 of 11
        ("xxxx......xxxx", False),  # 8 of 14
    ],
)
def test_mostly_failed_opens_it_too(pattern: str, opens: bool) -> None:
    """More than 70 % of at least ten within five minutes, though never five in a row."""
    assert "xxxxx" not in pattern
    health = Health()
    for number, ended in enumerate(minutes_of(pattern)):
        assert not health.opened_ms, number
        health = health.after([ended], NOW_MS + number * 10_000)
    assert (health.opened_ms == OPEN_MS) == opens


def test_what_is_older_than_five_minutes_does_not_count() -> None:
    """Nine that mostly failed, and the tenth five minutes later finds them forgotten; a minute earlier it does not."""
    nine = Health().after(minutes_of("xxxx.xxx."), NOW_MS)
    assert nine.after([FAILED], NOW_MS + (RECENT_MINUTES - 1) * MINUTE_MS).opened_ms == OPEN_MS
    later = nine.after([FAILED], NOW_MS + RECENT_MINUTES * MINUTE_MS)
    assert (later.opened_ms, len(later.recent.split())) == (0, 1)


def test_what_succeeded_before_counts_for_as_long_though_it_is_not_in_the_text() -> None:
    """Ten failures among twenty successes: too few to open by their share, unless the successes are too old."""
    pattern = minutes_of("xxxx.xxxx.xx")
    oldest = NOW_MS // MINUTE_MS - RECENT_MINUTES
    assert Health().after(pattern, NOW_MS).opened_ms == OPEN_MS
    assert Health().after(pattern, NOW_MS, {oldest: 20}).opened_ms == OPEN_MS
    assert Health().after(pattern, NOW_MS, {oldest + 1: 20}).opened_ms == 0


def test_each_failed_probe_doubles_up_to_fifteen_minutes() -> None:
    """From the end of the probe on, to the millisecond."""
    health, now_ms, lengths = opened(), NOW_MS, []
    for _ in range(8):
        now_ms = health.paused_until_ms
        health = health.after([FAILED], now_ms)
        assert health.paused_until_ms == now_ms + health.opened_ms
        lengths.append(health.opened_ms // 1000)
    assert lengths == [60, 120, 240, 480, 900, 900, 900, 900]
    assert health.failing_since_ms == NOW_MS


def test_one_that_was_in_flight_when_it_opened_says_nothing_new() -> None:
    """It fails a moment later: neither longer nor later; it is a failure all the same."""
    health = opened()
    late = health.after([FAILED] * 3, health.paused_until_ms - 1)
    assert (late.opened_ms, late.paused_until_ms, late.failures) == (OPEN_MS, health.paused_until_ms, 8)


def test_two_probes_that_fail_together_double_once() -> None:
    """They may end in one transaction after a restart."""
    health = opened()
    assert health.after([FAILED] * 2, health.paused_until_ms).opened_ms == 2 * OPEN_MS


@pytest.mark.parametrize("after_ms", [-1, 0, 100 * MINUTE_MS])
def test_a_success_closes_it_whenever_it_comes(after_ms: int) -> None:
    """Also one that was in flight when it opened; the next opening begins with 30 s again, and with a clean record."""
    health = opened()
    closed = health.after([FINE], health.paused_until_ms + after_ms)
    assert closed[:4] == (0, None, 0, 0)
    again = closed.after([FAILED] * 4, NOW_MS + MINUTE_MS)
    assert again.opened_ms == 0
    assert again.after([FAILED], NOW_MS + MINUTE_MS).opened_ms == OPEN_MS


def test_a_closed_circuit_keeps_its_pause_through_a_success() -> None:
    """One of four in flight answered 429 with Retry-After; that another was paid does not take it back."""
    asked = Health().after([Ended(True, 60_000), FINE], NOW_MS)
    assert (asked.failures, asked.opened_ms, asked.paused_until_ms) == (0, 0, NOW_MS + 60_000)


@pytest.mark.parametrize(
    ("after_ms", "paused_ms"), [(0, 0), (1, 1), (60_000, 60_000), (PAUSE_MS_MAX, PAUSE_MS_MAX), (10**9, PAUSE_MS_MAX)]
)
def test_retry_after_pauses_and_is_bounded(after_ms: int, paused_ms: int) -> None:
    """Without opening the circuit; 15 minutes at most."""
    health = Health().after([Ended(True, after_ms)], NOW_MS)
    assert (health.paused_until_ms, health.opened_ms) == (NOW_MS + paused_ms if paused_ms else 0, 0)


def test_the_longer_of_circuit_and_retry_after_counts() -> None:
    """And a pause is never shortened by a later answer."""
    short = Health().after([FAILED] * 4 + [Ended(True, 10_000)], NOW_MS)
    assert short.paused_until_ms == NOW_MS + OPEN_MS
    long = Health().after([FAILED] * 4 + [Ended(True, 40_000)], NOW_MS)
    assert (long.paused_until_ms, long.opened_ms) == (NOW_MS + 40_000, OPEN_MS)
    assert long.after([Ended(True, 1_000)], NOW_MS + 5).paused_until_ms == NOW_MS + 40_000


steps = st.lists(
    st.tuples(
        st.integers(0, 20 * MINUTE_MS),
        st.lists(st.builds(Ended, st.booleans(), st.sampled_from([0, 0, 1, 60_000, 10**9])), min_size=1, max_size=6),
    ),
    max_size=40,
)


@given(steps)
def test_whatever_comes_it_stays_within_its_bounds(story: list[tuple[int, list[Ended]]]) -> None:
    """
    Failing means failing since; an open circuit was failing; no pause is longer than 15 minutes; a success leaves it
    closed; the text in the column does not grow; and it does not matter whether answers come in one batch or several.
    """
    health, now_ms = Health(), NOW_MS
    for wait_ms, ended in story:
        now_ms += wait_ms
        before, one_by_one = health, health
        health = health.after(ended, now_ms)
        for answer in ended:
            one_by_one = one_by_one.after([answer], now_ms)
        assert one_by_one == health
        assert (health.failures == 0) == (health.failing_since_ms is None)
        assert health.opened_ms == 0 or (health.troubled and OPEN_MS <= health.opened_ms <= OPEN_MS_MAX)
        assert health.paused_until_ms <= max(before.paused_until_ms, now_ms + max(PAUSE_MS_MAX, OPEN_MS_MAX))
        if not ended[-1].failed:
            assert (health.failures, health.opened_ms) == (0, 0)
        if all(answer.failed for answer in ended):
            assert health.paused_until_ms >= before.paused_until_ms
            if before.failures + len(ended) >= FAILURES_IN_A_ROW:
                assert health.opened_ms
        assert len(health.recent.split()) <= RECENT_MINUTES


@given(st.integers(0, 30), st.lists(st.integers(0, OPEN_MS - 1), max_size=10))
def test_nothing_that_ends_while_it_is_open_makes_it_longer(probes: int, late_ms: list[int]) -> None:
    """However many were in flight."""
    health, now_ms = opened(), NOW_MS
    for _ in range(probes):
        now_ms = health.paused_until_ms
        health = health.after([FAILED], now_ms)
    for ms in sorted(late_ms):
        after = health.after([FAILED], now_ms + ms)
        assert (after.opened_ms, after.paused_until_ms) == (health.opened_ms, health.paused_until_ms)
