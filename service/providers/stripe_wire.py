"""
How Stripe wants to be asked: what it takes and refuses, amounts, forms. `stripe_calls` has the conversations.

Facts marked [SDK] are read in stripe-python 16.1.0, [docs] in docs.stripe.com, [unv] nowhere; checked in November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from service.payments import money
from service.payments.facts import Kind
from service.providers import called, strict, stripe
from service.providers.base import Credentials
from service.providers.calls import Channel, Facts, NotSent, Response, Wanted

# --- tables -------------------------------------------------------------------------------------------

VERSION: Final = "2026-06-24.dahlia"
"""`Stripe-Version` [SDK]: the shapes below are this version's, whatever the account's own one is."""

CHECKOUT, INTENT = "checkout", "payment_intent"
"""A channel's code: which of the two objects is made."""

_CURRENCIES = (
    "AED AUD BWP CAD CHF CNY CVE CZK DJF DKK EGP ETB EUR GBP GMD GNF HKD INR JPY KES KMF LRD LSL MAD MGA MUR MZN NAD "
    "NGN NOK NZD PLN RWF SCR SEK SGD SLE SZL TND TZS UGX USD XAF XOF ZAR ZMW"
)
CURRENCIES: Final = tuple(_CURRENCIES.split())
"""A part of the presentment currencies [docs/currencies, not checked one by one: unv]. GHS is not among them."""

MINIMUM: Mapping[str, int] = {
    "AED": 200, "AUD": 50, "CAD": 50, "CHF": 50, "DKK": 250, "EUR": 50, "GBP": 30, "HKD": 400, "JPY": 50, "NOK": 300,
    "NZD": 50, "PLN": 200, "SEK": 300, "SGD": 50, "USD": 50,
}  # fmt: skip
"""Smallest charges in minor units [docs/currencies, unv]; others are compared by Stripe after conversion."""

WIRE_MAX: Final = 99_999_999
"""`amount` has at most eight digits [SDK]."""

TENS: Final = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})
"""Three decimals of which the last has to be 0 [docs/currencies]."""

REFUSED: Mapping[str, NotSent] = {
    "rate_limit": NotSent("rate_limited"),  # a 400 in older versions [SDK]
    "api_key_expired": called.CREDENTIALS_WRONG,
    "platform_api_key_expired": called.CREDENTIALS_WRONG,
    "secret_key_required": called.CREDENTIALS_WRONG,
    "testmode_charges_only": NotSent("account_not_activated", alert=True),
    "account_invalid": NotSent("account_not_activated", alert=True),
    "amount_too_small": NotSent("amount"),
    "amount_too_large": NotSent("amount"),
    "email_invalid": NotSent("email"),
    "url_invalid": NotSent("url", alert=True),
}
"""`error.code` of an invalid_request_error [docs/error-codes]; a code in no row is `invalid_request`, by its type."""

NOT_REFUNDED: Mapping[str, str] = {
    "charge_already_refunded": "already_refunded",
    "charge_disputed": "disputed",
    "refund_disputed_payment": "disputed",
    "amount_too_large": "above_the_rest",
    "balance_insufficient": "balance",
    "insufficient_funds": "balance",
    "resource_missing": "not_known",
}
"""`error.code` of a refused refund [docs/error-codes]; a code in no row is `refused`, by its type."""

REFUND_REASONS: Final = frozenset({"duplicate", "fraudulent", "requested_by_customer"})  # [SDK]
CANCELLATION_REASON: Final = "abandoned"  # [SDK]

NOTES_MAX, NOTE_KEY_MAX, NOTE_MAX = 50, 40, 500  # [docs/metadata]

FACTS: Facts = {"name_characters_max": 250}
"""What is believed and may be set: how long a product's name may be [unv]."""

LOCALES = frozenset({"auto", "de", "en", "es", "fr", "it", "nl", "pt", "tr"})
"""Languages of the page that our payers read, out of Stripe's own [SDK]; in others Stripe asks the browser."""

PATHS: Mapping[str, str] = {"cs_": "/v1/checkout/sessions", "pi_": "/v1/payment_intents"}
"""By the beginning of an id, the session first: it knows its PaymentIntent, which is cancelled with it only [docs]."""

NESTED: Mapping[str, tuple[str, str]] = {
    "checkout.session": ("payment_intent", "payment_intent"),
    "payment_intent": ("latest_charge", "charge"),
}
EXPAND: Mapping[str, str] = {"cs_": "payment_intent.latest_charge", "pi_": "latest_charge"}
"""What we let expand [docs]: the charge alone knows when the money came and how much went back."""

LIST_LIMIT, LIST_PAGES = 40, 3
"""What `find` looks through: 40 sessions are about 160 kB, and a body may have 256."""

CLOCKS_APART_MS: Final = 3_600_000
"""How far our clock may be from Stripe's, at most."""

INTENTS_LIMIT: Final = 80
"""PaymentIntents on a page of `list`: with a few notes each about 200 kB. Stripe would give 100 [docs]."""

DEAD = frozenset({Kind.CANCELED, Kind.EXPIRED})
ENDED = DEAD | {Kind.CAPTURED, Kind.FAILED}

# --- writing ------------------------------------------------------------------------------------------

Field = str | int | Mapping[str, "Field"] | Sequence["Field"] | None


def form(fields: Mapping[str, Field]) -> tuple[tuple[str, str], ...]:
    """Fields as Stripe nests them, `a[b]` and `a[0]` [SDK]; None is left out."""
    flat: list[tuple[str, str]] = []

    def put(name: str, value: Field) -> None:
        if value is None:
            return
        if isinstance(value, str | int):
            flat.append((name, str(value)))
        elif isinstance(value, Mapping):
            for key, item in value.items():
                put(f"{name}[{key}]", item)
        else:
            for at, item in enumerate(value):
                put(f"{name}[{at}]", item)

    for name, value in fields.items():
        put(name, value)
    return tuple(flat)


def to_wire(amount_minor: int, currency: str) -> int | None:
    """An amount as Stripe writes it: 1000 XOF are 1000, 1000 UGX are 100000; None for what cannot be charged."""
    units = money.to_wire(amount_minor, stripe.PLACES.get(currency, money.exponent(currency)), currency)
    if units is None or not 0 < units <= WIRE_MAX or (currency in TENS and units % 10):
        return None
    return units


def headers(credentials: Credentials, key: str = "") -> dict[str, str]:
    """Bearer key and version [SDK]."""
    found = {"Authorization": f"Bearer {called.credential(credentials, 'secret_key')}", "Stripe-Version": VERSION}
    return found | ({"Idempotency-Key": key} if key else {})


def _notes(wanted: Wanted) -> dict[str, str]:
    """The merchant's notes as far as Stripe takes them, and our reference under a name that nobody else writes."""
    fitting = {
        called.text(key, NOTE_KEY_MAX): called.text(value, NOTE_MAX)
        for key, value in wanted.metadata.items()
        if 0 < len(key) <= NOTE_KEY_MAX and not {"[", "]"} & set(key) and 0 < len(value) <= NOTE_MAX
    }
    fitting.pop("reference", None)
    return {"reference": wanted.reference} | dict(list(fitting.items())[: NOTES_MAX - 1])


def _name(wanted: Wanted, facts: Facts) -> str:
    return called.text(wanted.description, called.number(facts, "name_characters_max")).strip() or wanted.reference


def session(wanted: Wanted, units: int, facts: Facts) -> dict[str, Field]:
    """The fields of a checkout session [SDK]."""
    notes, name = _notes(wanted), _name(wanted, facts)
    return {
        "mode": "payment",
        "payment_method_types": ["card"],
        "line_items": [
            {
                "price_data": {
                    "currency": wanted.currency.lower(),
                    "unit_amount": units,
                    "product_data": {"name": name},
                },
                "quantity": 1,
            }
        ],
        "client_reference_id": wanted.reference,
        "success_url": wanted.return_url,
        "cancel_url": wanted.return_url,
        "customer_email": wanted.customer.email or None,
        "locale": wanted.locale if wanted.locale in LOCALES else "auto",
        "expires_at": None if wanted.expires_at_ms is None else wanted.expires_at_ms // 1000,
        "metadata": notes,
        "payment_intent_data": {"description": name, "metadata": notes},
    }


def payment_intent(wanted: Wanted, units: int, facts: Facts) -> dict[str, Field]:
    """The fields of a PaymentIntent, by card like the session [SDK]."""
    return {
        "amount": units,
        "currency": wanted.currency.lower(),
        "payment_method_types": ["card"],
        "description": _name(wanted, facts),
        "receipt_email": wanted.customer.email or None,
        "metadata": _notes(wanted),
    }


def channel(currency: str, code: str) -> Channel:
    """To be paid by card in this currency, between Stripe's limits."""
    iso = money.exponent(currency)
    places = stripe.PLACES.get(currency, iso)
    units = 10 if currency in TENS else 10 ** max(0, places - iso)  # the least step on the wire
    step = 10 if currency in TENS else 10 ** max(0, iso - places)
    least = max(MINIMUM.get(currency, 1), step)
    most = money.from_wire(WIRE_MAX - WIRE_MAX % units, places, currency)
    own = code == INTENT
    return Channel(
        "card", currency, code=code, direct=own, embedded=own, min_minor=least, max_minor=most, step_minor=step
    )


# --- reading ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Error:
    """What a refusal says; all of it empty where it says nothing."""

    type: str
    code: str
    param: str
    words: str


def error(response: Response) -> Error:
    """`{"error": {type, code, param, message}}` [SDK]."""
    said = strict.branch(strict.document(response.body), "error")
    type_, code, param = (strict.word(said.get(name)) for name in ("type", "code", "param"))
    return Error(type_, code, param, strict.word(said.get("message"), 300))
