"""What `--since` means."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from service.errors import Refusal

_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 24 * 3_600_000, "w": 7 * 24 * 3_600_000}
_SPAN = re.compile(r"([0-9]{1,9})\s*([smhdw])")
_DATE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:?[0-9]{2})?)?"
)
_FORMS = "90m, 2h, 3d, 2026-11-20 or 2026-11-20T14:00"


def since_ms(text: str, now_ms: int, zone: str) -> int:
    """
    The moment that is meant (ms UTC): a span back from now, a date, or a time, in `zone` where it names none.

    Refusal: it is none of these, no such day or time, in the future, or before 1970.
    """
    word = text.strip()
    if span := _SPAN.fullmatch(word):
        at_ms = now_ms - int(span[1]) * _UNITS_MS[span[2]]
    elif _DATE.fullmatch(word):
        try:
            read = datetime.fromisoformat(word)
            local = read if read.tzinfo else read.replace(tzinfo=ZoneInfo(zone))
            at_ms = round((local - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000)
        except (ValueError, OverflowError):
            raise Refusal("bad_since", f"There is no such day or time: --since {word}.") from None
    else:
        raise Refusal("bad_since", f"--since is {_FORMS}, not {text[:40]!r}.")
    if at_ms < 0:
        raise Refusal("bad_since", f"--since {word} is before 1970.")
    if at_ms > now_ms:
        raise Refusal("bad_since", f"--since {word} is in the future (times without a zone are in {zone}).")
    return at_ms
