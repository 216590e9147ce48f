"""Money and dates as a buyer reads them, and an amount as a buyer types it. Pure; no float comes near."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from service.pay.words import LANGUAGES, MONTHS
from service.payments import money

SIGNS: Final[Mapping[str, str]] = {
    "XOF": "F\N{NO-BREAK SPACE}CFA",
    "XAF": "F\N{NO-BREAK SPACE}CFA",
    "EUR": "€",
    "GHS": "GH₵",
    "NGN": "₦",
    "GNF": "FG",
}
"""What people write for a currency; the others go by their code."""
MARKS: Final[Mapping[str, tuple[str, str]]] = {"fr": ("\N{NARROW NO-BREAK SPACE}", ","), "en": (",", ".")}
"""Between thousands, and before the minor units."""
SPACES: Final = " \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}"
_WHOLE: Final = re.compile(rf"[0-9]{{1,3}}(?:[{SPACES}][0-9]{{3}})+|[0-9]{{1,16}}")


def shown(amount_minor: int, currency: str, language: str) -> str:
    """5000 XOF is “5 000 F CFA”, in English “5,000 F CFA”."""
    thousands, point = MARKS[language]
    number = f"{money.to_major(amount_minor, currency):,f}".translate({ord(","): thousands, ord("."): point})
    return f"{number} {SIGNS.get(currency, currency)}"


def typed(text: str, currency: str) -> int | None:
    """
    Minor units of an amount in major units, None for what is none. Spaces may stand between thousands, and a comma or
    point only before minor units that the currency has: “5.000” francs would be five to a program and five thousand
    to a person, so it is neither.
    """
    text = text.strip(SPACES)
    whole, mark, minor = text, "", ""
    for point in ".,":
        if point in text:
            whole, mark, minor = text.partition(point)
            break
    places = money.exponent(currency)
    if mark and not (0 < len(minor) <= places and minor.isascii() and minor.isdigit()):
        return None
    if not _WHOLE.fullmatch(whole):
        return None
    digits = re.sub(f"[{SPACES}]", "", whole)
    return money.from_major(f"{digits}.{minor}" if minor else digits, currency)


def when(at_ms: int, zone: str, language: str) -> str:
    """A moment in the shop's time zone, to the minute, with the zone's own abbreviation."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(ZoneInfo(zone))
    month = MONTHS[at.month - 1][LANGUAGES.index(language)]
    joined = "à" if language == "fr" else "at"
    return f"{at.day} {month} {at.year} {joined} {at:%H:%M} ({at:%Z})"
