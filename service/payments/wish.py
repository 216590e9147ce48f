"""A payment that a merchant wants: what it must be like, before anything is recorded or sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from service.errors import Refusal
from service.payments.currencies import CURRENCIES
from service.payments.facts import AMOUNT_MINOR_MAX
from service.providers.calls import METHODS, OPERATORS, Customer, Method

TEXT_MAX = 500
METADATA_MAX = 50
METADATA_NAME_MAX, METADATA_VALUE_MAX = 40, 500
PROVIDERS_MAX = 10
URL_MAX = 2_000
LOCALES = ("fr", "en")
_URL = re.compile(r"https?://[^\s/?#@]+([/?#][!-~]*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Wish:
    """
    What is wanted, in the merchant's words. `providers`: an explicit chain, names or account ids in order; without one
    the routes choose. `embedded`: the merchant's own page confirms (card). `operator` empty: the payer chooses.
    """

    merchant_id: str
    live: bool
    amount_minor: int
    currency: str
    method: Method
    reference: str = ""
    description: str = ""
    customer: Customer = field(default_factory=Customer)
    payer_phone: str = ""  # E.164
    operator: str = ""
    country: str = ""  # ISO 3166-1, upper case
    providers: tuple[str, ...] = ()
    return_url: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    order_id: str | None = None
    session_id: str | None = None
    embedded: bool = False
    locale: str = "fr"
    expires_at_ms: int | None = None  # when the provider should let it lapse, where it can be told


def check(wish: Wish) -> None:
    """Raises Refusal `bad_<field>` that names what is wrong. Who may be asked for it is routing's business."""
    if isinstance(wish.amount_minor, bool) or not isinstance(wish.amount_minor, int):
        raise Refusal("bad_amount", "amount: an integer of minor units (5000 XOF is 5000, 12.50 EUR is 1250).")
    if not 0 < wish.amount_minor <= AMOUNT_MINOR_MAX:
        raise Refusal("bad_amount", f"amount: more than 0 and at most {AMOUNT_MINOR_MAX} minor units.")
    if wish.currency not in CURRENCIES:
        raise Refusal("bad_currency", f"currency: {wish.currency[:10]!r} is no ISO 4217 code, such as XOF or EUR.")
    if wish.method not in METHODS:
        raise Refusal("bad_method", f"method: one of {', '.join(METHODS)}.")
    if wish.operator and wish.operator not in OPERATORS:
        raise Refusal("bad_operator", f"operator: one of {', '.join(OPERATORS)}, or none to let the payer choose.")
    if wish.country and not re.fullmatch("[A-Z]{2}", wish.country):
        raise Refusal("bad_country", "country: two capital letters (ISO 3166-1), such as CI.")
    if wish.return_url and (len(wish.return_url) > URL_MAX or not _URL.fullmatch(wish.return_url)):
        raise Refusal("bad_return_url", "return_url: an address that begins with https:// (or http://).")
    if wish.locale not in LOCALES:
        raise Refusal("bad_locale", f"locale: one of {', '.join(LOCALES)}.")
    if len(wish.providers) > PROVIDERS_MAX:
        raise Refusal("bad_providers", f"providers: at most {PROVIDERS_MAX}.")
    if wish.payer_phone and wish.method != "mobile_money":
        raise Refusal("bad_payer_phone", "payer_phone: only with the method mobile_money.")
    if wish.embedded and wish.method != "card":
        raise Refusal("bad_embedded", "embedded: only with the method card.")
    for name in ("reference", "description"):
        _text(name, getattr(wish, name))
    for name in ("name", "email", "phone"):
        _text(f"customer.{name}", getattr(wish.customer, name))
    if len(wish.metadata) > METADATA_MAX:
        raise Refusal("bad_metadata", f"metadata: at most {METADATA_MAX} entries.")
    for name, value in wish.metadata.items():
        if not name or len(name) > METADATA_NAME_MAX or len(value) > METADATA_VALUE_MAX:
            limits = f"names of at most {METADATA_NAME_MAX} and values of at most {METADATA_VALUE_MAX} characters"
            raise Refusal("bad_metadata", f"metadata: {limits}.")
        _text("metadata", name + value, 2 * METADATA_VALUE_MAX)


def _text(name: str, value: str, most: int = TEXT_MAX) -> None:
    if len(value) > most:
        raise Refusal(f"bad_{name.partition('.')[0]}", f"{name}: at most {most} characters.")
    if "\0" in value or value != value.encode(errors="ignore").decode():
        raise Refusal(f"bad_{name.partition('.')[0]}", f"{name}: it has a NUL or half a character in it.")
