"""
How Paystack wants to be asked: what it takes and refuses, amounts, words. `paystack_calls` has the conversations.

Facts marked [SDK] are read in its OpenAPI description and plugins, [docs] in paystack.com/docs, [3p] in other people's
code, [unv] nowhere; checked in November 2026. `paystack.FACTS` are those that the settings may change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from service.payments import money
from service.payments.facts import Fact, Kind, Told
from service.providers import called, paystack, strict
from service.providers.base import Credentials
from service.providers.calls import Channel, Facts, Lost, Method, Need, NotSent

# --- tables -------------------------------------------------------------------------------------------

REFERENCE: Final = re.compile(r"[A-Za-z0-9.=-]+", re.ASCII)
"""What a reference may be made of [docs]."""

MINIMUM: Mapping[str, int] = {"GHS": 10, "KES": 300, "NGN": 5000, "USD": 200, "XOF": 1, "ZAR": 100}
"""Smallest amounts in minor units [unv]."""

CARD_CURRENCIES = ("NGN", "GHS", "ZAR", "KES", "USD", "XOF")
"""[SDK]; XOF is in the plugin, and missing in the API's description."""

WALLETS: tuple[tuple[str, str, str, str, bool], ...] = (
    ("mtn", "GH", "GHS", "mtn", True),
    ("airtel", "GH", "GHS", "atl", True),
    ("vodafone", "GH", "GHS", "vod", True),
    ("mpesa", "KE", "KES", "mpesa", True),
    ("mtn", "CI", "XOF", "mtn", True),
    ("orange", "CI", "XOF", "orange", True),
    ("wave", "CI", "XOF", "wave", False),  # ends on Wave's own page [3p]
)
"""Operator, country, currency, `mobile_money.provider`, whether the payer stays [docs]. Moov has no documented code."""

HOSTED: tuple[tuple[str, str], ...] = (("GHS", ""), ("KES", ""), ("XOF", "CI"))
"""Where Paystack's page asks for the wallet itself: currency, country [docs]."""

URL_FIELDS = ("url", "qr_code")
"""Where an address for the payer may stand [docs for url, 3p for qr_code]."""

REFUSED: Mapping[str, NotSent] = {
    "unsupported currency": NotSent("unsupported"),
    "validation error": NotSent("invalid_request"),
}
"""`code` [3p] and `type` [SDK] of a 400 that made nothing; processor_error and api_error say nothing."""

NOT_REFUNDED: Mapping[str, str] = {
    "fully reversed": "already_refunded",
    "already been refunded": "already_refunded",
    "cannot be more than": "above_the_rest",
    "greater than": "above_the_rest",
    "insufficient": "balance",
}
"""Parts of the words of a refused refund [3p]."""

REFUND_REFUSED_TYPES = frozenset({"validation error"})  # [SDK]

# --- writing ------------------------------------------------------------------------------------------


def to_wire(amount_minor: int, currency: str, facts: Facts = paystack.FACTS) -> int | None:
    """An amount as Paystack writes it: 1000 XOF are 100000; None for what cannot be charged."""
    units = money.to_wire(amount_minor, paystack.places(currency, facts), currency)
    return units if units is not None and units > 0 else None


def headers(credentials: Credentials) -> dict[str, str]:
    """Bearer key [SDK]."""
    return {"Authorization": f"Bearer {called.credential(credentials, 'secret_keys')}", "Accept": "application/json"}


def phone(number: str, country: str, facts: Facts = paystack.FACTS) -> str:
    """A wallet's number as its country writes it; one of another country stays as it is, E.164."""
    for written in called.words(facts, "local_phones"):
        where, begins, instead = (*written.split(" "), "", "")[:3]
        if where == country and begins and number.startswith(begins):
            return instead + number.removeprefix(begins)
    return number


# --- reading ------------------------------------------------------------------------------------------


def words(said: Mapping[str, object]) -> tuple[str, str, str]:
    """`code`, `message` and `type` of an answer, plain: small letters, no underscores or hyphens."""
    given = (strict.word(said.get(name), 300).casefold() for name in ("code", "message", "type"))
    code, message, type_ = (word.replace("_", " ").replace("-", " ") for word in given)
    return code, message, type_


def says(said: Mapping[str, object], parts: tuple[str, ...]) -> bool:
    """Whether one of these stands in its code or its message."""
    code, message, _ = words(said)
    return any(part in word for part in parts for word in (code, message))


def text(value: object) -> str:
    """The provider's words for the payer, on one line."""
    return strict.word(" ".join(value.split()), 500) if isinstance(value, str) else ""


def refusal(said: Mapping[str, object], facts: Facts) -> NotSent | Lost:
    """What a 400 proves. A duplicate proves that there is a payment of this reference, and that is asked about."""
    if says(said, called.words(facts, "duplicate_words")):
        return Lost("duplicate_reference")
    if says(said, called.words(facts, "credentials_words")):
        return called.CREDENTIALS_WRONG
    code, _, type_ = words(said)
    return REFUSED.get(code) or REFUSED.get(type_) or Lost("refused")


def not_refunded(said: Mapping[str, object], facts: Facts) -> str | None:
    """Why a refund was refused, None where it is not said that it was."""
    if says(said, called.words(facts, "unknown_reference_words")):
        return "not_known"
    code, message, type_ = words(said)
    why = next((why for part, why in NOT_REFUNDED.items() if part in message or part in code), None)
    return why or ("refused" if type_ in REFUND_REFUSED_TYPES else None)


def waiting(told: Told) -> Told:
    """The same without an end: nobody has paid yet."""
    facts = tuple(
        Fact(Kind.CREATED, fact.movement, asked_minor=fact.asked_minor, currency=fact.currency, source=fact.source)
        for fact in told.facts
    )
    return Told(told.references, facts, told.reference, told.metadata)


# --- what it can do -----------------------------------------------------------------------------------


def channels() -> tuple[Channel, ...]:
    """Cards and wallets on its page, and the wallets that are charged directly. It knows payers by e-mail [SDK]."""

    def one(method: Method, currency: str, *more: str, direct: bool = False) -> Channel:
        needs = _BY_PHONE if len(more) > 1 else _BY_EMAIL  # a wallet that is charged by its number
        country, operator, code = (*more, "", "", "")[:3]
        least = MINIMUM.get(currency, 1)
        return Channel(method, currency, country, operator, code, direct, min_minor=least, needs=needs)

    return (
        *(one("card", currency) for currency in CARD_CURRENCIES),
        *(one("mobile_money", currency, country) for currency, country in HOSTED),
        *(
            one("mobile_money", currency, country, operator, code, direct=direct)
            for operator, country, currency, code, direct in WALLETS
        ),
    )


_BY_EMAIL: Final[frozenset[Need]] = frozenset({"email"})
_BY_PHONE: Final[frozenset[Need]] = frozenset({"email", "payer_phone"})
