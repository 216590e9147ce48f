"""
Days and months of a merchant's own time zone as moments: half-open, without a gap or an overlap, also where the clock
jumps at midnight.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from service.errors import Refusal
from service.escrow.terms import terms_of

FIRST: Final = date(1970, 1, 1)
LAST: Final = date(9998, 12, 31)
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Span:
    """From a moment to just before another, in ms UTC."""

    from_ms: int
    until_ms: int


def zone_of(tx: Connection, merchant_id: str, installation: str) -> ZoneInfo:
    """A query: the time zone of a merchant's days and months; its own, or the installation's."""
    return ZoneInfo(terms_of(tx, merchant_id).timezone or installation)


def a_day(field: str, text: str) -> date:
    """A calendar day as it is written in addresses and commands. Raises Refusal bad_day."""
    try:
        day = date.fromisoformat(text) if _DAY.fullmatch(text) else None
    except ValueError:
        day = None
    if day is None or not FIRST <= day <= LAST:
        raise Refusal("bad_day", f"{field}: {text[:40]!r} is no day from {FIRST} on; a day looks like 2026-11-20.")
    return day


def begun(field: str, day: date, now_ms: int, zone: ZoneInfo) -> None:
    """Raises Refusal bad_day for a day that is still to come."""
    if begins_ms(day, zone) > now_ms:
        raise Refusal("bad_day", f"{field}: {day} has not begun yet in {zone.key}.")


def day_of(at_ms: int, zone: ZoneInfo) -> date:
    """The calendar day that a moment falls on."""
    return local(at_ms, zone).date()


def local(at_ms: int, zone: ZoneInfo) -> datetime:
    """A moment as clocks there show it."""
    return (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(zone)


def begins_ms(day: date, zone: ZoneInfo) -> int:
    """
    The first moment of a day. A midnight that is left out (clocks go forward at 0:00) is read with the offset before
    the change, which is the change itself; of one that comes twice the first counts.
    """
    midnight = datetime.combine(day, time(), zone)
    return (midnight - _EPOCH) // timedelta(milliseconds=1)


def of_days(first: date, last: date, zone: ZoneInfo) -> Span:
    """Whole days, the last one too."""
    return Span(begins_ms(first, zone), begins_ms(last + timedelta(days=1), zone))


def of_month(at_ms: int, zone: ZoneInfo) -> tuple[str, Span]:
    """The month that a moment falls in, by its name (2026-11)."""
    first = day_of(at_ms, zone).replace(day=1)
    following = (first + timedelta(days=31)).replace(day=1)
    return f"{first:%Y-%m}", Span(begins_ms(first, zone), begins_ms(following, zone))
