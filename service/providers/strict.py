"""
Strict reading of what a provider sends. Anything ambiguous is unreadable, and nothing here raises.

The body of a callback is written by a stranger until its signature is checked, and by a provider's software after
that; both make mistakes. JSON that two parsers read differently (duplicate keys, NaN, lone surrogates), nesting that
would exhaust the stack and numbers that would exhaust the processor are all answered by `Parked("unreadable:…")`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, NoReturn
from urllib.parse import unquote_to_bytes

import msgspec

from service.providers.base import Parked

DEPTH_MAX: Final = 64
FIELDS_MAX: Final = 200
ID_CHARACTERS_MAX: Final = 200
METADATA_MAX, METADATA_KEY_MAX, METADATA_VALUE_MAX = 50, 100, 500

Document = dict[str, object]

# --- JSON ---------------------------------------------------------------------------------------------

# Strings are matched as a whole, so that brackets inside them are not counted; possessive, so that it stays linear.
_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|([\[{])|([\]}])', re.DOTALL)
# Only escapes can bring a NUL or half a surrogate pair into a string: raw ones are refused by the decoders.
_ESCAPES_TO_CHECK = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")


class _TwiceError(ValueError):
    """A key stands twice in one object."""


def document(body: bytes) -> Document | Parked:
    """The JSON object in `body`, numbers with a point as Decimal; or why it cannot be read."""
    if not body:
        return Parked("unreadable:empty")
    if _too_deep(body):
        return Parked("unreadable:too_deep")
    try:
        found = json.loads(
            body.decode(),
            object_pairs_hook=_unique,
            parse_float=Decimal,
            parse_constant=_no_constant,
        )
    except UnicodeDecodeError:
        return Parked("unreadable:not_utf8")
    except _TwiceError:
        return Parked("unreadable:duplicate_key")
    # ArithmeticError: an exponent that no Decimal holds. RecursionError: called from very deep in our own stack.
    except (ValueError, ArithmeticError, RecursionError):
        return Parked("unreadable:not_json")
    if not isinstance(found, dict):
        return Parked("unreadable:not_an_object")
    if _ESCAPES_TO_CHECK.search(body) and not _clean(found):
        return Parked("unreadable:bad_character")
    return found


def glance(body: bytes) -> Document | None:
    """
    The JSON object in `body`, read quickly to *name* a callback while the provider waits; None where it is none.

    Five times as fast as `document` and not as strict: of a key that stands twice it sees the last. Nothing about
    money is ever taken from here.
    """
    try:
        found = msgspec.json.decode(body)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors, broken UTF-8 is one as well
        return None
    return found if isinstance(found, dict) else None


def _too_deep(body: bytes) -> bool:
    if body.count(b"{") + body.count(b"[") <= DEPTH_MAX:
        return False
    depth = 0
    for mark in _BRACKETS.finditer(body):
        opened, closed = mark.groups()
        depth += (opened is not None) - (closed is not None)
        if depth > DEPTH_MAX:
            return True
    return False


def _unique(pairs: list[tuple[str, object]]) -> Document:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _TwiceError
    return found


def _no_constant(word: str) -> NoReturn:
    raise ValueError(word)


def _clean(value: object) -> bool:
    """No NUL and no half surrogate pair in any string; the depth is bounded by then."""
    match value:
        case str():
            return "\x00" not in value and not any("\ud800" <= character <= "\udfff" for character in value)
        case dict():
            return all(_clean(key) and _clean(item) for key, item in value.items())
        case list():
            return all(_clean(item) for item in value)
        case _:
            return True


def dig(value: object, *path: str) -> object:
    """What lies at the end of a path of keys, None where there is no such path."""
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def branch(value: object, *path: str) -> Mapping[str, object]:
    """The object at the end of a path, an empty one where there is none."""
    found = dig(value, *path)
    return found if isinstance(found, dict) else {}


# --- forms --------------------------------------------------------------------------------------------


def split(raw: bytes) -> list[tuple[bytes, bytes]] | Parked:
    """The fields of a form or a query as they were before encoding: bytes, in their order, each name once."""
    if raw.count(b"&") >= FIELDS_MAX:
        return Parked("unreadable:too_many_fields")
    fields = []
    for part in raw.replace(b"+", b" ").split(b"&"):
        name, _, value = part.partition(b"=")
        if part:
            fields.append((unquote_to_bytes(name), unquote_to_bytes(value)))
    if len({name for name, _ in fields}) != len(fields):
        return Parked("unreadable:duplicate_field")
    return fields


def form(raw: bytes) -> dict[str, str] | Parked:
    """The fields of a form or a query as text, or why it cannot be read."""
    fields = split(raw)
    if isinstance(fields, Parked):
        return fields
    try:
        found = {name.decode(): value.decode() for name, value in fields}
    except UnicodeDecodeError:
        return Parked("unreadable:not_utf8")
    if any("\x00" in name or "\x00" in value for name, value in found.items()):
        return Parked("unreadable:bad_character")
    return found


# --- single values ------------------------------------------------------------------------------------


def digits(value: bytes, length_max: int) -> int | None:
    """A whole number in ASCII digits and nothing else: `int()` would also take `+1`, `1_674`, ` 1`, full-width ones."""
    if not 0 < len(value) <= length_max or value.strip(b"0123456789"):
        return None
    return int(value)


def identifier(value: object) -> str | None:
    """An id or a reference: text or a whole number, printable, at most 200 characters."""
    if isinstance(value, int) and not isinstance(value, bool) and -(10**40) < value < 10**40:
        value = str(value)
    if isinstance(value, str) and 0 < len(value) <= ID_CHARACTERS_MAX and value.isprintable() and value.strip():
        return value
    return None


def word(value: object, limit: int = 100) -> str:
    """A type, a status or a message, for tables and labels: printable text, cut; empty for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = identifier(value)
    return value[:limit] if isinstance(value, str) and value.isprintable() else ""


def currency(value: object) -> str | None:
    """An ISO 4217 code in capitals, None for what cannot be one."""
    if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isalpha():
        return value.upper()
    return None


Read = Callable[[object, str], int | None]
"""A provider's own way from a value on the wire to minor units of a currency; None where it cannot be one."""


def amounts(read: Read, currency_given: object, *values: object) -> tuple[str | None, tuple[int | None, ...]] | Parked:
    """
    The currency and the amounts of a message in minor units.

    What is absent (null, or empty in a form) is None, what is there and cannot be read parks the message. Without a
    currency an amount means nothing and is None too.
    """
    if currency_given is None or currency_given == "":
        return None, tuple(None for _ in values)
    code = currency(currency_given)
    if code is None:
        return Parked("bad_currency")
    found: list[int | None] = []
    for value in values:
        absent = value is None or value == ""
        minor = None if absent else read(value, code)
        if minor is None and not absent:
            return Parked("bad_amount")
        found.append(minor)
    return code, tuple(found)


def metadata(value: object) -> dict[str, str]:
    """The merchant's notes: text to text, short and few; everything else is left out."""
    if not isinstance(value, dict):
        return {}
    kept = {
        key: item
        for key, item in value.items()
        if isinstance(item, str) and len(key) <= METADATA_KEY_MAX and len(item) <= METADATA_VALUE_MAX
    }
    return dict(list(kept.items())[:METADATA_MAX])


# --- times --------------------------------------------------------------------------------------------

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS_MAX: Final = 4_102_444_800_000  # 2100: a later time is a mistake, and would outrank every right one
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:?\d\d)", re.ASCII)


def seconds_ms(value: object) -> int:
    """Unix seconds (a whole number, or a Decimal or digits with a fraction) as milliseconds; 0 for what is no time."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,11}(\.[0-9]{1,9})?", value):
        value = Decimal(value)
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not 0 <= value <= _MS_MAX // 1000:
        return 0
    return int(value * 1000)


def time_ms(value: object) -> int:
    """An RFC 3339 time with its zone as milliseconds; 0 for anything else, a time without a zone included."""
    if not isinstance(value, str) or len(value) > 40 or not _RFC3339.fullmatch(value):
        return 0
    try:
        found = (datetime.fromisoformat(value) - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        return 0
    return found if 0 <= found <= _MS_MAX else 0


def first_ms(*values: object) -> int:
    """The first of several times that is one, 0 when none is."""
    return next((found for value in values if (found := time_ms(value))), 0)


_HTTP_DATE = re.compile(r"[A-Z][a-z]{2}, (\d\d) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d) GMT", re.ASCII)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def http_date_ms(value: str | None) -> int:
    """The `Date` header of an answer (RFC 9110, IMF-fixdate): the provider's own clock; 0 for anything else."""
    found = _HTTP_DATE.fullmatch(value or "")
    if not found or found[2] not in _MONTHS:
        return 0
    month = _MONTHS.index(found[2]) + 1
    return time_ms(f"{found[3]}-{month:02}-{found[1]}T{found[4]}:{found[5]}:{found[6]}Z")
