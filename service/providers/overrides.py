"""
What the settings file knows better than a provider's file: codes and limits of ways to be paid and to pay out, and
`FACTS`.

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

    [providers.fedapay.payout_channels.orange-ci]  # the same of ways to pay out
    currency = "XOF"
    code = "orange_ci"

    [providers.fedapay.payout_facts]
    payout_start_field = ""

Names: `operator-country` where a way is an operator's, else `card-`, `wallet-`, `bank-` or `account-`, the currency and
the country, with `-embedded` where the merchant's own page confirms. `docs/providers.md` lists them all.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields, replace
from string import Formatter
from typing import Any, Final, TypeVar

from service.payments.facts import AMOUNT_MINOR_MAX
from service.providers import CALLS, called
from service.providers.base import Provider
from service.providers.calls import OPERATORS, Calls, Channel, Facts
from service.providers.payouts import PayeeKind, PayoutChannel, Payouts

WORDS_MAX, TEXT_CHARACTERS_MAX = 50, 300
NUMBER_MAX: Final = 10**12
PLACES_MAX: Final = 4

Table = Mapping[str, object]
Half = TypeVar("Half", Calls, Provider, Payouts)
Way = TypeVar("Way", Channel, PayoutChannel)

SECTIONS = ("channels", "facts", "payout_channels", "payout_facts")
"""What a provider's table may hold: two for each of the halves that call."""


class BadOverride(Exception):
    """One sentence for whoever wrote the table: what is wrong, by its name."""


def name(channel: Channel) -> str:
    """A way's name in the settings."""
    if channel.operator:
        parts = [channel.operator, channel.country or channel.currency]
    else:
        parts = ["card" if channel.method == "card" else "wallet", channel.currency, channel.country]
    return "-".join(part.lower() for part in (*parts, "embedded" if channel.embedded else "") if part)


_KINDS: Mapping[PayeeKind, str] = {"mobile_money": "wallet", "bank": "bank", "account": "account"}


def payout_name(channel: PayoutChannel) -> str:
    """The name in the settings of a way to pay out."""
    if channel.operator:
        parts = [channel.operator, channel.country or channel.currency]
    else:
        parts = [_KINDS[channel.kind], channel.currency, channel.country]
    return "-".join(part.lower() for part in parts if part)


def apply(calls: Mapping[str, Calls], table: object) -> Mapping[str, Calls]:
    """The calling halves as `[providers]` has them; raises `BadOverride`. An empty table changes nothing."""
    changed = dict(calls)
    for provider, section in _tables(table, "providers", calls).items():
        where = f"providers.{provider}"
        parts = _tables(section, where, SECTIONS)
        old = changed[provider]
        facts = _facts(old.facts, parts.get("facts", {}), f"{where}.facts")
        channels = _channels(old.channels, parts.get("channels", {}), f"{where}.channels", name, _READ, _new)
        changed[provider] = replace(_bound(old, facts=facts), channels=channels, facts=facts)
    return changed


def apply_payouts(payouts: Mapping[str, Payouts], table: object) -> Mapping[str, Payouts]:
    """
    The paying halves as `[providers]` has them; raises `BadOverride`. An empty table changes nothing.

    A fact that both calling halves believe alike (in which unit XOF is counted) is one fact: what `facts` says of it
    holds for payouts too, unless `payout_facts` says otherwise. Paid out in another unit than it is taken in, 1000 F
    would go out as 100000.
    """
    changed = dict(payouts)
    for provider, section in _tables(table, "providers", payouts).items():
        where = f"providers.{provider}"
        parts = _tables(section, where, SECTIONS)
        old = changed[provider]
        said, alike = _tables(parts.get("facts", {}), f"{where}.facts", None, plain=True), CALLS[provider].facts
        both = {key: value for key, value in said.items() if key in alike and old.facts.get(key) == alike[key]}
        facts = _facts(old.facts, both, f"{where}.facts")
        facts = _facts(facts, parts.get("payout_facts", {}), f"{where}.payout_facts")
        given, at = parts.get("payout_channels", {}), f"{where}.payout_channels"
        channels = _channels(old.channels, given, at, payout_name, _READ_PAYOUT, _new_payout)
        changed[provider] = replace(_bound(old, facts=facts, channels=channels), channels=channels, facts=facts)
    return changed


def listening(providers: Mapping[str, Provider], calls: Mapping[str, Calls]) -> Mapping[str, Provider]:
    """The listening halves with the same facts: an amount has to be read as it was written."""
    return {name: _bound(provider, facts=calls[name].facts) for name, provider in providers.items()}


def _bound(half: Half, **known: Facts | tuple[PayoutChannel, ...]) -> Half:
    """The same half; whichever of its functions has a parameter `facts` (or `channels`) is given these."""
    bound: dict[str, Any] = {}
    for entry in fields(half):
        function = getattr(half, entry.name)
        if callable(function):
            wants = inspect.signature(function).parameters
            given = {name: value for name, value in known.items() if name in wants}
            bound |= {entry.name: functools.partial(function, **given)} if given else {}
    return replace(half, **bound)


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


Read = Mapping[str, Callable[[object, str], Any]]
New = Callable[[str, Table, str, Collection[Way]], Way]


def _channels(
    believed: tuple[Way, ...], given: object, where: str, named: Callable[[Way], str], fields_: Read, new: New[Way]
) -> tuple[Way, ...]:
    found = {named(channel): channel for channel in believed}
    for key, section in _tables(given, where, None).items():
        at = f"{where}.{key}"
        wanted = _tables(section, at, fields_, plain=True)
        if wanted.get("off") is True:
            if key not in found:
                raise BadOverride(f"{at} is no way that could be switched off{_nearest(key, found)}.")
            del found[key]
            continue
        channel = found.get(key) or new(key, wanted, at, found.values())
        read = {field: fields_[field](value, f"{at}.{field}") for field, value in wanted.items()}
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
    operator, country, currency = _wallet(key, wanted, where, [name(one) for one in known])
    direct = wanted.get("direct") is True
    wallets = [one for one in known if one.method == "mobile_money"]
    if not wallets:
        raise BadOverride(f"{where} is a wallet, and there are none at this provider.")
    like = max(wallets, key=lambda one: (bool(one.operator), one.direct == direct))
    step = max((one.step_minor for one in wallets if one.currency == currency), default=1)
    return Channel("mobile_money", currency, country, operator, min_minor=step, step_minor=step, needs=like.needs)


def _new_payout(key: str, wanted: Table, where: str, known: Collection[PayoutChannel]) -> PayoutChannel:
    """A wallet that our file does not pay out to, in the steps of its neighbours."""
    operator, country, currency = _wallet(key, wanted, where, [payout_name(one) for one in known])
    wallets = [one for one in known if one.kind == "mobile_money"]
    if not wallets:
        raise BadOverride(f"{where} is a wallet, and there are none at this provider.")
    step = max((one.step_minor for one in wallets if one.currency == currency), default=1)
    return PayoutChannel("mobile_money", currency, country, operator, min_minor=step, step_minor=step)


def _wallet(key: str, wanted: Table, where: str, known: Iterable[str]) -> tuple[str, str, str]:
    """Operator, country and currency of a way that is new."""
    operator, _, country = key.rpartition("-")
    if operator not in OPERATORS or not re.fullmatch(r"[a-z]{2}", country):
        raise BadOverride(f"{where} is no way to be paid there{_nearest(key, known)}.")
    if "currency" not in wanted or "code" not in wanted:
        raise BadOverride(f"{where} is new, so it has to say currency and code.")
    return operator, country.upper(), _currency(wanted["currency"], f"{where}.currency")


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


_READ: Read = {
    "code": lambda value, where: _text(value, where, empty=True),
    "min_minor": _amount,
    "max_minor": _amount,
    "step_minor": _amount,
    "direct": _switch,
    "off": _switch,
    "currency": _currency,
}
"""What can be said of a way, in minor units of its currency."""

_READ_PAYOUT: Read = {word: read for word, read in _READ.items() if word != "direct"}
"""The same of a way to pay out, where nobody is on a page."""


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
