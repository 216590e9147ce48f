"""
What the settings file knows better than a provider's file: codes and limits of ways to be paid, and `FACTS`.

    [providers.paystack.channels.moov-ci]        # a way there is none for yet: operator-country, with its currency
    currency = "XOF"
    code = "moov"
    direct = true

    [providers.stripe.channels.card-eur]         # one there is: what is said here replaces what we believe
    min_minor = 100

    [providers.fedapay.channels.celtiis-bj]
    off = true

    [providers.ebilling.facts]
    portal_url = "https://staging.billing-easy.net"

Names: `operator-country` where a way is an operator's, else `card-` or `wallet-`, the currency and the country, with
`-embedded` where the merchant's own page confirms. `docs/providers.md` lists them all.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields, replace
from string import Formatter
from typing import Any, Final, TypeVar, cast

from service.payments.facts import AMOUNT_MINOR_MAX
from service.providers import called
from service.providers.base import Provider
from service.providers.calls import OPERATORS, Calls, Channel, Facts

WORDS_MAX, TEXT_CHARACTERS_MAX = 50, 300
NUMBER_MAX: Final = 10**12
PLACES_MAX: Final = 4

Table = Mapping[str, object]
Half = TypeVar("Half", Calls, Provider)


class BadOverride(Exception):
    """One sentence for whoever wrote the table: what is wrong, by its name."""


def name(channel: Channel) -> str:
    """A way's name in the settings."""
    if channel.operator:
        parts = [channel.operator, channel.country or channel.currency]
    else:
        parts = ["card" if channel.method == "card" else "wallet", channel.currency, channel.country]
    return "-".join(part.lower() for part in (*parts, "embedded" if channel.embedded else "") if part)


def apply(calls: Mapping[str, Calls], table: object) -> Mapping[str, Calls]:
    """The calling halves as `[providers]` has them; raises `BadOverride`. An empty table changes nothing."""
    changed = dict(calls)
    for provider, section in _tables(table, "providers", calls).items():
        where = f"providers.{provider}"
        parts = _tables(section, where, ("channels", "facts"))
        old = changed[provider]
        facts = _facts(old.facts, parts.get("facts", {}), f"{where}.facts")
        channels = _channels(old.channels, parts.get("channels", {}), f"{where}.channels")
        changed[provider] = replace(_bound(old, facts), channels=channels, facts=facts)
    return changed


def listening(providers: Mapping[str, Provider], calls: Mapping[str, Calls]) -> Mapping[str, Provider]:
    """The listening halves with the same facts: an amount has to be read as it was written."""
    return {name: _bound(provider, calls[name].facts) for name, provider in providers.items()}


def _bound(half: Half, facts: Facts) -> Half:
    """The same half; whichever of its functions has a parameter `facts` is given these."""
    bound = {
        entry.name: functools.partial(function, facts=facts)
        for entry in fields(half)
        if callable(function := getattr(half, entry.name)) and "facts" in inspect.signature(function).parameters
    }
    return replace(half, **cast("dict[str, Any]", bound))


# --- facts --------------------------------------------------------------------------------------------


def _facts(believed: Facts, given: object, where: str) -> Facts:
    found = dict(believed)
    for key, value in _tables(given, where, believed, plain=True).items():
        found[key] = _fact(believed[key], value, f"{where}.{key}")
    return found


def _fact(believed: str | int | tuple[str, ...], value: object, where: str) -> str | int | tuple[str, ...]:
    if isinstance(believed, int):
        return _number(value, where, PLACES_MAX if where.endswith("_places") else NUMBER_MAX)
    if isinstance(believed, tuple):
        if not isinstance(value, list) or len(value) > WORDS_MAX:
            raise BadOverride(f"{where} has to be a list of at most {WORDS_MAX} texts.")
        return tuple(_text(word, where) for word in value)
    text = _text(value, where, empty=True)
    if where.endswith("_url") and text and called.link(text) is None:
        raise BadOverride(f"{where} has to be an https address.")
    if where.endswith("_path"):
        if not re.fullmatch(r"/[!-~]*", text):
            raise BadOverride(f"{where} has to begin with / and to have no spaces.")
        if _holes(text, where) != _holes(believed, where):
            holes = ", ".join(f"{{{hole}}}" for hole in sorted(_holes(believed, where))) or "no {…}"
            raise BadOverride(f"{where} has to hold {holes}.")
    return text


def _holes(template: str, where: str) -> set[str]:
    try:
        parts = list(Formatter().parse(template))
    except ValueError:
        raise BadOverride(f"{where} has a brace without its other half.") from None
    if any(format_ or conversion for _, hole, format_, conversion in parts if hole is not None):
        raise BadOverride(f"{where} can only hold plain names in braces.")
    return {hole for _, hole, _, _ in parts if hole is not None}


# --- channels -----------------------------------------------------------------------------------------


def _channels(believed: tuple[Channel, ...], given: object, where: str) -> tuple[Channel, ...]:
    found = {name(channel): channel for channel in believed}
    for key, section in _tables(given, where, None).items():
        at = f"{where}.{key}"
        wanted = _tables(section, at, _READ, plain=True)
        if wanted.get("off") is True:
            if key not in found:
                raise BadOverride(f"{at} is no way that could be switched off{_nearest(key, found)}.")
            del found[key]
            continue
        channel = found.get(key) or _new(key, wanted, at, found.values())
        read = {field: _READ[field](value, f"{at}.{field}") for field, value in wanted.items()}
        read.pop("off", None)
        if "currency" in read and read["currency"] != channel.currency:
            raise BadOverride(f"{at}.currency is {channel.currency} there, and cannot be changed.")
        channel = replace(channel, **read)
        if channel.max_minor is not None and channel.max_minor < channel.min_minor:
            raise BadOverride(f"{at} has a max_minor below its min_minor.")
        found[key] = channel
    return tuple(found.values())


def _new(key: str, wanted: Table, where: str, known: Collection[Channel]) -> Channel:
    """A way that our file does not have, an operator's in a country; what it needs is what its neighbours need."""
    operator, _, country = key.rpartition("-")
    if operator not in OPERATORS or not re.fullmatch(r"[a-z]{2}", country):
        raise BadOverride(f"{where} is no way to be paid there{_nearest(key, map(name, known))}.")
    if "currency" not in wanted or "code" not in wanted:
        raise BadOverride(f"{where} is new, so it has to say currency and code.")
    currency, direct = _currency(wanted["currency"], f"{where}.currency"), wanted.get("direct") is True
    wallets = [one for one in known if one.method == "mobile_money"]
    if not wallets:
        raise BadOverride(f"{where} is a wallet, and there are none at this provider.")
    like = max(wallets, key=lambda one: (bool(one.operator), one.direct == direct))
    step = max((one.step_minor for one in wallets if one.currency == currency), default=1)
    return Channel(
        "mobile_money", currency, country.upper(), operator, min_minor=step, step_minor=step, needs=like.needs
    )


# --- values -------------------------------------------------------------------------------------------


def _number(value: object, where: str, most: int, least: int = 0) -> int:
    if type(value) is not int or not least <= value <= most:
        raise BadOverride(f"{where} has to be a whole number from {least} to {most}.")
    return value


def _text(value: object, where: str, *, empty: bool = False) -> str:
    if not isinstance(value, str) or not (value or empty) or len(value) > TEXT_CHARACTERS_MAX:
        raise BadOverride(f"{where} has to be a text of at most {TEXT_CHARACTERS_MAX} characters.")
    if not value.isprintable():
        raise BadOverride(f"{where} has to be printable.")
    return value


def _amount(value: object, where: str) -> int:
    return _number(value, where, AMOUNT_MINOR_MAX, 1)


def _switch(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise BadOverride(f"{where} has to be true or false.")
    return value


def _currency(value: object, where: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Z]{3}", value):
        raise BadOverride(f"{where} has to be a currency in three capitals.")
    return value


_READ: Mapping[str, Callable[[object, str], Any]] = {
    "code": lambda value, where: _text(value, where, empty=True),
    "min_minor": _amount,
    "max_minor": _amount,
    "step_minor": _amount,
    "direct": _switch,
    "off": _switch,
    "currency": _currency,
}
"""What can be said of a way, in minor units of its currency."""


def _tables(value: object, where: str, known: Iterable[str] | None, *, plain: bool = False) -> Table:
    """A table whose keys are known; unless `plain`, of tables."""
    if not isinstance(value, Mapping):
        raise BadOverride(f"{where} has to be a table.")
    for key, inner in value.items():
        if known is not None and key not in known:
            raise BadOverride(f"{where}.{key} is nothing that can be set{_nearest(str(key), known)}.")
        if not plain and not isinstance(inner, Mapping):
            raise BadOverride(f"{where}.{key} has to be a table.")
    return value


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; the nearest one is {near[0]}" if near else ""
