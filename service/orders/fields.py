"""What is said in a request, checked: each raises Refusal `bad_<field>` with a sentence that names the field."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from service.errors import Refusal
from service.payments.currencies import CURRENCIES
from service.payments.facts import AMOUNT_MINOR_MAX
from service.payments.wish import LOCALES, METADATA_MAX, METADATA_NAME_MAX, METADATA_VALUE_MAX, TEXT_MAX
from service.providers.calls import METHODS


def a_count(name: str, value: int, least: int, most: int) -> int:
    """A whole number within bounds."""
    if type(value) is not int or not least <= value <= most:
        raise Refusal(f"bad_{name}", f"{name}: a whole number from {least} to {most}.")
    return value


def an_amount(name: str, amount_minor: int, currency: str) -> int:
    """Minor units, more than none, of a currency that there is."""
    if currency not in CURRENCIES:
        raise Refusal("bad_currency", f"currency: {str(currency)[:10]!r} is no ISO 4217 code, such as XOF or EUR.")
    if type(amount_minor) is not int:
        raise Refusal(f"bad_{name}", f"{name}: an integer of minor units (5000 XOF is 5000, 12.50 EUR is 1250).")
    if not 0 < amount_minor <= AMOUNT_MINOR_MAX:
        raise Refusal(f"bad_{name}", f"{name}: more than 0 and at most {AMOUNT_MINOR_MAX} minor units.")
    return amount_minor


def a_text(name: str, value: str, most: int = TEXT_MAX) -> str:
    """Text that a database and a page can take."""
    if len(value) > most:
        raise Refusal(f"bad_{name}", f"{name}: at most {most} characters.")
    if "\0" in value or value != value.encode(errors="ignore").decode():
        raise Refusal(f"bad_{name}", f"{name}: it has a NUL or half a character in it.")
    return value


def some_methods(methods: Sequence[str]) -> str:
    """At least one method, each once, as it is kept."""
    wanted = list(dict.fromkeys(methods))
    if not wanted or any(method not in METHODS for method in wanted):
        raise Refusal("bad_methods", f"methods: one or more of {', '.join(METHODS)}.")
    return ",".join(wanted)


def a_country(country: str) -> str:
    """ISO 3166-1, or none."""
    if country and not re.fullmatch("[A-Z]{2}", country):
        raise Refusal("bad_country", "country: two capital letters (ISO 3166-1), such as CI.")
    return country


def a_locale(locale: str) -> str:
    """A language that the page speaks."""
    if locale not in LOCALES:
        raise Refusal("bad_locale", f"locale: one of {', '.join(LOCALES)}.")
    return locale


def some_metadata(metadata: Mapping[str, str]) -> str:
    """Names and values, as they are kept."""
    if len(metadata) > METADATA_MAX:
        raise Refusal("bad_metadata", f"metadata: at most {METADATA_MAX} entries.")
    for name, value in metadata.items():
        a_text("metadata", name, METADATA_NAME_MAX)
        a_text("metadata", value, METADATA_VALUE_MAX)
        if not name:
            raise Refusal("bad_metadata", "metadata: every entry has a name.")
    return json.dumps(dict(metadata), sort_keys=True)
