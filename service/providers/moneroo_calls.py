"""
Moneroo, asked: initialize, which gives the address of its page, and verify.

Facts marked [docs] are read in docs.moneroo.io, [3p] in others' code, [unv] nowhere. A payment cannot be found by our
reference, repeated with a key, cancelled or refunded [docs]: an answer to initialize that is lost stays lost until a
callback names it. Our reference travels in `metadata`, which verify gives back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from service.payments import money
from service.payments.facts import Fact, Kind, Source, Told
from service.providers import called, meaning, moneroo, strict
from service.providers.base import Asked, Credentials, Parked, Unclear
from service.providers.calls import (
    Accepted,
    Asking,
    Broken,
    Call,
    Calls,
    Channel,
    Creating,
    Facts,
    Given,
    Lost,
    Method,
    Need,
    NotSent,
    Redirect,
    Wanted,
)

# --- tables -------------------------------------------------------------------------------------------

WALLETS: Mapping[str, Mapping[tuple[str, str], str]] = {
    "XOF": {
        ("BJ", "mtn"): "mtn_bj",
        ("BJ", "moov"): "moov_bj",
        ("CI", "mtn"): "mtn_ci",
        ("CI", "orange"): "orange_ci",
        ("CI", "moov"): "moov_ci",
        ("CI", "wave"): "wave_ci",
        ("SN", "orange"): "orange_sn",
        ("SN", "wave"): "wave_sn",
        ("SN", "free"): "freemoney_sn",
        ("TG", "moov"): "moov_tg",
        ("TG", "togocel"): "togocel",
        ("BF", "orange"): "orange_bf",
        ("BF", "moov"): "moov_bf",
        ("ML", "orange"): "orange_ml",
        ("ML", "moov"): "moov_ml",
        ("NE", "airtel"): "airtel_ne",
    },
    "XAF": {
        ("CM", "mtn"): "mtn_cm",
        ("CM", "orange"): "orange_cm",
        ("CM", "eu"): "eu_mobile_cm",
    },
}
"""Codes of wallets by currency, country and operator [docs]; those of operators we have no word for are left out."""

WALLETS_ELSEWHERE: Mapping[str, Mapping[tuple[str, str], str]] = {
    "GNF": {("GN", "mtn"): "mtn_gn", ("GN", "orange"): "orange_gn"},
    "GHS": {("GH", "mtn"): "mtn_gh", ("GH", "vodafone"): "vodafone_gh"},
    "KES": {("KE", "mpesa"): "mpesa_ke"},
    "TZS": {("TZ", "mpesa"): "mpesa_tz", ("TZ", "airtel"): "airtel_tz"},
    "NGN": {("NG", "mtn"): "mtn_ng", ("NG", "airtel"): "airtel_ng"},
    "RWF": {("RW", "mtn"): "mtn_rw", ("RW", "airtel"): "airtel_rw"},
    "UGX": {("UG", "mtn"): "mtn_ug", ("UG", "airtel"): "airtel_ug"},
    "ZMW": {("ZM", "mtn"): "mtn_zm", ("ZM", "airtel"): "airtel_zm"},
    "CDF": {("CD", "orange"): "orange_cd", ("CD", "airtel"): "airtel_cd"},
    "MWK": {("MW", "airtel"): "airtel_mw"},
}
"""The same outside the two francs: the list of moneroo-nodejs-sdk [3p], in part seen in the docs."""

CARDS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("XOF", "card_xof"): ("BJ", "BF", "CI", "ML", "TG"),
    ("XAF", "card_xaf"): ("CM", "CF", "CG", "GA", "GQ", "TD"),
    ("USD", "card_usd"): ("",),
    ("GHS", "card_ghs"): ("GH",),
    ("KES", "card_kes"): ("KE",),
    ("NGN", "card_ngn"): ("NG",),
    ("TZS", "card_tzs"): ("TZ",),
    ("UGX", "card_ugx"): ("UG",),
    ("ZAR", "card_zar"): ("ZA",),
}
"""Codes of cards and the countries of their cards [docs]; none named is the whole world."""


EMAIL: Final[frozenset[Need]] = frozenset({"email"})
"""Required [docs], like both names, for which `NAMELESS` can stand."""


def _step(currency: str) -> int:
    """Amounts are whole major units [docs]: no cents of a dollar."""
    return int(10 ** money.exponent(currency))


def _way(method: Method, currency: str, country: str = "", operator: str = "", code: str = "") -> Channel:
    step = _step(currency)
    return Channel(method, currency, country, operator, code, min_minor=step, step_minor=step, needs=EMAIL)


def _wallets(table: Mapping[str, Mapping[tuple[str, str], str]]) -> list[Channel]:
    """Each wallet, and each country with the operator left to the payer on Moneroo's page."""
    named = [
        _way("mobile_money", currency, country, operator, code)
        for currency, codes in table.items()
        for (country, operator), code in codes.items()
    ]
    places = dict.fromkeys((one.currency, one.country) for one in named)
    return named + [_way("mobile_money", *place) for place in places]


CHANNELS: tuple[Channel, ...] = (
    *_wallets(WALLETS),
    *_wallets(WALLETS_ELSEWHERE),
    *(
        _way("card", currency, country, code=code)
        for (currency, code), countries in CARDS.items()
        for country in countries
    ),
)

NAMELESS: Final = "Client"
"""Both names are required [docs]; this stands for a name that the merchant did not give."""

REFERENCE: Final = "reference"
"""Where our reference stands in `metadata`; `moneroo.answer` compares it."""

INITIALIZE: Final = "/v1/payments/initialize"

FACTS: Facts = {"description_characters_max": 255, "name_characters_max": 100}
"""What is believed and may be set: no limit is documented [unv]."""

# --- creating -----------------------------------------------------------------------------------------


def _customer(wanted: Wanted, facts: Facts) -> dict[str, str]:
    """E-mail and both names are required, a telephone is not [docs]. One word is a first name and stands for both."""
    buyer = wanted.customer
    first, _, last = called.text(buyer.name.strip(), called.number(facts, "name_characters_max")).partition(" ")
    first = first or NAMELESS
    said = {"email": buyer.email, "first_name": first, "last_name": last.strip() or first, "phone": buyer.phone}
    return {name: value for name, value in said.items() if value}


def _metadata(wanted: Wanted) -> dict[str, str]:
    """Our reference first, because readers cut long lists; no note of the merchant replaces it. Strings only [docs]."""
    notes = [(key, value) for key, value in wanted.metadata.items() if key != REFERENCE]
    return {REFERENCE: wanted.reference, **dict(notes[: strict.METADATA_MAX - 1])}


def _asked_for(wanted: Wanted, channel: Channel, amount: int, facts: Facts) -> dict[str, object]:
    """
    The payment. The page offers the one method, or what there is in the country: `methods` of more than one is not
    sent, since one that the account has not connected might refuse all.
    """
    longest = called.number(facts, "description_characters_max")
    body: dict[str, object] = {
        "amount": amount,
        "currency": wanted.currency,
        "description": called.text(wanted.description, longest) or wanted.reference,
        "return_url": wanted.return_url,
        "customer": _customer(wanted, facts),
        "metadata": _metadata(wanted),
    }
    if channel.code:
        return {**body, "methods": [channel.code]}
    return {**body, "restrict_country_code": channel.country} if channel.country else body


def create(wanted: Wanted, channel: Channel, credentials: Credentials, facts: Facts = FACTS) -> Creating:
    """`POST /v1/payments/initialize` → 201 `{message, data: {id, checkout_url}}` [docs]."""
    unfit = called.unfit(wanted, channel, called.credential(credentials, "secret_key"))
    amount = called.whole(wanted.amount_minor, wanted.currency)
    if unfit or amount is None:
        return unfit or NotSent("amount")
    asked = Call("POST", INITIALIZE, moneroo.headers(credentials), json=_asked_for(wanted, channel, amount, facts))
    made = yield asked
    refused = called.turned_away(made.status)
    if refused is not None:
        return refused
    said = strict.document(made.body)
    it = None if isinstance(said, Parked) else said.get("data")
    if not isinstance(it, dict):
        return Lost("unreadable")
    # Only `id` and `checkout_url` are documented. Whatever else stands there must be of this payment.
    ours = strict.metadata(it.get("metadata")).get(REFERENCE)
    currency = moneroo.currency_code(it.get("currency"))
    # The sandbox is on the same host, by its key alone [3p].
    if wanted.live and moneroo.ENVIRONMENTS.get(strict.word(it.get("environment"))) is False:
        return Lost(called.TEST_MONEY, alert=True)
    if (
        (ours is not None and ours != wanted.reference)
        or (currency is not None and currency != wanted.currency)
        or (it.get("amount") is not None and money.from_major(it["amount"], wanted.currency) != wanted.amount_minor)
    ):
        return Lost("other_payment")
    number = strict.identifier(it.get("id"))
    if number is None:
        return Lost("unreadable")
    told = Told((number,), (Fact(Kind.CREATED, number, source=Source.ANSWER),), wanted.reference)
    url = called.link(it.get("checkout_url"))
    return Lost("unreadable", told) if url is None else Accepted(told, Redirect(url))


# --- asking -------------------------------------------------------------------------------------------


def fetch(given: Given, live: bool, credentials: Credentials) -> Asking:
    """`GET /v1/payments/{id}/verify`, which is authoritative [docs]."""
    number = called.theirs(given)
    if number is None:
        return Unclear("not_named")
    try:
        response = yield called.call(moneroo.question(number, credentials))
    except Broken as broken:
        return Unclear(broken.reason)
    if response.status == 404 and not meaning.knows_no_such(response.body):
        return Unclear("no_route")
    asked = Asked(live, given.reference, given.amount_minor, given.currency)
    return moneroo.answer(number, response.status, response.body, asked)


CALLS = Calls(channels=CHANNELS, create=create, fetch=fetch, facts=FACTS)
