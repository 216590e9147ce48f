"""When a job is due: what is no schedule, both nights of daylight saving, and what of the past is still run."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from scheduler.schedule import MISSED_MAX, BadSchedule, Schedule, missed, plan

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


def shown(times_ms: list[int]) -> list[str]:
    return [datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%m-%dT%H:%M") for at_ms in times_ms]


def due(expression: str, zone: str, after: str, until: str) -> list[str]:
    return shown(Schedule(expression, zone).between(ms(after), ms(until), 1_000))


@pytest.mark.parametrize(
    ("expression", "zone", "sentence"),
    [
        ("", "UTC", "must have five fields"),
        ("* * * *", "UTC", "must have five fields"),
        ("0 * * * * *", "UTC", "must have five fields"),
        ("@daily", "UTC", "must have five fields"),
        ("0 0 1 1 " + "1," * 200 + "1", "UTC", "must have five fields"),
        ("60 * * * *", "UTC", "cannot be read: bad minute."),
        ("*/0 * * * *", "UTC", "cannot be read: bad minute."),
        ("0 24 * * *", "UTC", "cannot be read: bad hour."),
        ("0 0 0 * *", "UTC", "cannot be read: bad day-of-month."),
        ("0 0 30 13 *", "UTC", "cannot be read"),
        ("0 0 * * MOON", "UTC", "cannot be read: bad day-of-week."),
        ("0 0 30 2 *", "UTC", "never fires"),
        ("0 0 31 2,4,6,9,11 *", "Europe/Paris", "never fires"),
        ("0 0 */31 * SUN#5", "UTC", "never fires"),  # the first of a month that is its fifth Sunday
        ("0 0 * * *", "", "There is no time zone ''"),
        ("0 0 * * *", "Europe/Paname", "There is no time zone 'Europe/Paname'"),
        ("0 0 * * *", "../../etc/passwd", "There is no time zone"),
        ("0 0 * * *", "Europe", "There is no time zone"),
    ],
)
def test_what_cannot_be_kept_is_refused(expression: str, zone: str, sentence: str) -> None:
    """Malformed, never, and nowhere: each a clear sentence when the schedule is made, not at night."""
    with pytest.raises(BadSchedule, match=sentence):
        Schedule(expression, zone)


def test_what_fires_rarely_is_kept() -> None:
    """The 29th of February is a date, and so is a fifth Monday in February, which comes every 28 years."""
    assert shown([Schedule("0 0 29 2 *", "UTC").next_after(ms("2026-01-01"))]) == ["02-29T00:00"]
    assert Schedule("0 0 * 2 MON#5", "UTC").next_after(ms("2026-01-01")) == ms("2044-02-29")


NIGHTS = [
    # 2026-03-29, Paris: 02:00 becomes 03:00 at 01:00 UTC
    ("30 2 * * *", "Europe/Paris", "2026-03-28", "2026-03-31", ["03-28T01:30", "03-29T01:00", "03-30T00:30"]),
    ("10,40 2 * * *", "Europe/Paris", "2026-03-28T12:00", "2026-03-29T12:00", ["03-29T01:00"]),
    ("0 3 * * 0", "Europe/Paris", "2026-03-22T12:00", "2026-04-06", ["03-29T01:00", "04-05T01:00"]),
    (
        "0 * * * *",
        "Europe/Paris",
        "2026-03-28T23:30",
        "2026-03-29T02:30",
        ["03-29T00:00", "03-29T01:00", "03-29T02:00"],
    ),
    # 2026-10-25, Paris: 03:00 becomes 02:00 at 01:00 UTC
    ("30 2 * * *", "Europe/Paris", "2026-10-24", "2026-10-27", ["10-24T00:30", "10-25T00:30", "10-26T01:30"]),
    ("30 2 * * *", "Europe/Paris", "2026-10-25T01:10", "2026-10-26", []),  # asked in the second 02:10
    ("0 3 * * 0", "Europe/Paris", "2026-10-24", "2026-11-02", ["10-25T02:00", "11-01T02:00"]),
    (
        "0 * * * *",
        "Europe/Paris",
        "2026-10-24T23:30",
        "2026-10-25T02:30",
        ["10-25T00:00", "10-25T01:00", "10-25T02:00"],
    ),
    # New York: 2026-03-08 at 07:00 UTC, 2026-11-01 at 06:00 UTC
    ("30 2 * * *", "America/New_York", "2026-03-07T12:00", "2026-03-10", ["03-08T07:00", "03-09T06:30"]),
    ("30 1 * * *", "America/New_York", "2026-10-31T12:00", "2026-11-03", ["11-01T05:30", "11-02T06:30"]),
    # Douala knows no daylight saving
    ("30 2 * * *", "Africa/Douala", "2026-03-28", "2026-03-31", ["03-28T01:30", "03-29T01:30", "03-30T01:30"]),
    ("0 3 * * 0", "Africa/Douala", "2026-10-24", "2026-11-02", ["10-25T02:00", "11-01T02:00"]),
]


@pytest.mark.parametrize(("expression", "zone", "after", "until", "expected"), NIGHTS)
def test_both_nights(expression: str, zone: str, after: str, until: str, expected: list[str]) -> None:
    """What the spring skips runs right after, what the autumn repeats runs once, every real hour has its run."""
    assert due(expression, zone, after, until) == expected


@pytest.mark.parametrize("zone", ["Europe/Paris", "America/New_York", "Africa/Douala"])
@pytest.mark.parametrize("night", ["2026-03-08", "2026-03-29", "2026-10-25", "2026-11-01"])
def test_every_five_minutes_is_every_five_minutes(zone: str, night: str) -> None:
    """No gap and no double, whatever the wall clock does."""
    after_ms = ms(night) - 6 * HOUR_MS
    found = Schedule("*/5 * * * *", zone).between(after_ms, after_ms + DAY_MS, 1_000)
    assert found == list(range(after_ms + 5 * MINUTE_MS, after_ms + DAY_MS + 1, 5 * MINUTE_MS))


def test_between_ends_where_it_is_told() -> None:
    """`after` is not in it, `until` is, and the limit cuts the end off."""
    hourly = Schedule("0 * * * *", "UTC")
    assert due("0 * * * *", "UTC", "2026-05-01T01:00", "2026-05-01T03:00") == ["05-01T02:00", "05-01T03:00"]
    assert shown(hourly.between(ms("2026-05-01T01:00"), ms("2026-05-02"), 2)) == ["05-01T02:00", "05-01T03:00"]
    assert hourly.next_after(ms("2026-05-01T01:00") - 1) == ms("2026-05-01T01:00")
    assert hourly.next_after(ms("2026-05-01T01:00")) == ms("2026-05-01T02:00")


def test_the_newest_of_years_is_found_without_walking_them() -> None:
    """Ten years of every minute: five million due times, of which one hour is looked at."""
    every = Schedule("* * * * *", "Europe/Paris")
    assert every.newest(ms("2016-01-01"), ms("2026-01-01T00:00:30")) == ms("2026-01-01")
    assert Schedule("0 0 29 2 *", "UTC").newest(ms("2020-01-01"), ms("2027-01-01")) == ms("2024-02-29")
    assert Schedule("0 0 29 2 *", "UTC").newest(ms("2025-01-01"), ms("2027-01-01")) is None
    assert every.newest(ms("2026-01-01"), ms("2025-01-01")) is None


HOURLY = Schedule("0 * * * *", "UTC")
NOON_MS = ms("2026-05-01T12:00")


def test_nothing_due_is_no_plan() -> None:
    """Before the due time, and after the clock went back behind the last one, there is nothing to do."""
    assert plan(HOURLY, NOON_MS, NOON_MS + HOUR_MS - 1, DAY_MS) is None
    assert plan(HOURLY, NOON_MS, NOON_MS - 7 * DAY_MS, DAY_MS) is None


def test_one_due_time_is_run_for_the_span_before_it() -> None:
    """The ordinary case: from the last one to this one, nothing missed."""
    found = plan(HOURLY, NOON_MS, NOON_MS + HOUR_MS + 5, DAY_MS)
    assert found is not None and found.skipped is None
    assert (found.from_ms, found.due_at_ms, found.missed) == (NOON_MS, NOON_MS + HOUR_MS, 0)


def test_what_was_missed_collapses_into_the_newest() -> None:
    """Five due times within the window are one run, which answers for all five."""
    found = plan(HOURLY, NOON_MS, NOON_MS + 5 * HOUR_MS, DAY_MS)
    assert found is not None and found.skipped is None
    assert (found.from_ms, found.due_at_ms, found.missed) == (NOON_MS, NOON_MS + 5 * HOUR_MS, 4)


def test_what_is_outside_the_window_is_skipped_in_one() -> None:
    """The window's edge is still within it; what is older is one skipped span, and the run goes on from there."""
    found = plan(HOURLY, NOON_MS, NOON_MS + 10 * HOUR_MS, 2 * HOUR_MS)
    assert found is not None and found.skipped is not None
    assert found.skipped == (NOON_MS, NOON_MS + 7 * HOUR_MS, 7)
    assert (found.from_ms, found.due_at_ms, found.missed) == (NOON_MS + 7 * HOUR_MS, NOON_MS + 10 * HOUR_MS, 2)


def test_all_outside_the_window_is_no_run() -> None:
    """Everything is accounted for, nothing is run."""
    found = plan(Schedule("0 3 * * 0", "UTC"), NOON_MS, ms("2026-05-04T12:00"), HOUR_MS)
    assert found is not None and found.skipped is not None
    assert (found.due_at_ms, found.skipped.times, found.newest_ms) == (None, 1, ms("2026-05-03T03:00"))


def test_counting_what_was_missed_has_an_end() -> None:
    """A year of every minute is counted to the limit, and still accounted for to its end."""
    found = missed(Schedule("* * * * *", "UTC"), NOON_MS - 365 * DAY_MS, NOON_MS)
    assert found is not None and (found.times, found.due_at_ms) == (MISSED_MAX, NOON_MS)
