"""
Moneroo, as far as caisse calls it: initialize, verify, retrieve, its page, and its webhooks.

Facts marked [docs] are read in docs.moneroo.io, [SDK] in its libraries, [3p] in others' code, [unv] nowhere. Amounts
are whole major units. There is no idempotency, no cancel and no refund; webhooks go to the address in the dashboard.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from service.payments import money
from service.payments.facts import Reason
from service.sandbox.bank import Charge, Happening, State, Word
from service.sandbox.desk import Account, Api, Asked, Choice, Desk, Letter, Route, Said, Turned, integer, utc

NAME: Final = "moneroo"
ABANDONED_MS: Final = 5 * 60_000
"""After which a payment that nobody paid cancels itself: so moneroo-php; moneroo-laravel says ten minutes [SDK]."""

AMOUNT_MAX: Final = 10**9  # major units [unv]
CHARACTERS_MAX: Final = 255  # of each text [unv]
METADATA_MAX: Final = 50  # [unv]

# --- tables -----------------------------------------------------------------------------------------

METHODS: Mapping[str, str] = {
    "XOF": "mtn_bj moov_bj mtn_ci orange_ci moov_ci wave_ci orange_sn wave_sn freemoney_sn e_money_sn wizall_sn moov_tg"
    " togocel orange_bf moov_bf orange_ml moov_ml mobi_cash_ml airtel_ne card_xof crypto_xof",
    "XAF": "mtn_cm orange_cm eu_mobile_cm card_xaf crypto_xaf",
    "USD": "moneroo_payment_demo card_usd crypto_usd",
    "GNF": "mtn_gn orange_gn",
    "GHS": "mtn_gh vodafone_gh tigo_gh card_ghs",
    "KES": "mpesa_ke card_kes",
    "TZS": "mpesa_tz airtel_tz halopesa_tz tigo_tz card_tzs",
    "NGN": "mtn_ng airtel_ng card_ngn bank_transfer_ngn qr_ngn ussd_ngn",
    "RWF": "mtn_rw airtel_rw",
    "UGX": "mtn_ug airtel_ug card_ugx",
    "ZMW": "mtn_zm airtel_zm zamtel_zm",
    "ZAR": "card_zar",
    "CDF": "orange_cd airtel_cd vodacom_cd",
    "MWK": "airtel_mw tnm_mw",
    "EUR": "crypto_eur",
}
"""Currencies and the short codes of their methods [docs; outside the two francs 3p]."""

STATUS: Mapping[State, str] = {
    "created": "initiated",
    "waiting": "pending",
    "pending": "pending",
    "succeeded": "success",
    "failed": "failed",
    "canceled": "cancelled",
    "expired": "cancelled",
}
EVENTS: Mapping[Word, str] = {
    "begun": "payment.initiated",
    "succeeded": "payment.success",
    "failed": "payment.failed",
    "canceled": "payment.cancelled",
    "expired": "payment.cancelled",
}

FAILURES: Mapping[Reason, str] = {
    Reason.INSUFFICIENT_FUNDS: "Insufficient balance",
    Reason.LIMIT_REACHED: "Transaction limit reached",
    Reason.WRONG_PIN: "Wrong pin",
    Reason.TIMED_OUT: "Payment timed out",
    Reason.DECLINED_BY_USER: "Payment declined by the payer",
    Reason.NO_WALLET: "Payer not found",
    Reason.PROVIDER_UNAVAILABLE: "Operator unavailable",
}
"""`capture.failure_message`; the words are documented nowhere."""

REQUIRED: Final = (
    *("amount", "currency", "description", "return_url"),
    *("customer", "customer.email", "customer.first_name", "customer.last_name"),
)
OPTIONAL_TEXTS: Final = ("phone", "address", "city", "state", "country", "zip")

# --- the envelope and its errors --------------------------------------------------------------------


def envelope(status: int, words: str, data: object = None, errors: object = None) -> Said:
    """`{message, data, errors}` [docs]."""
    return Said(status, {"message": words, "data": {} if data is None else data, "errors": errors})


def error(status: int, words: str) -> Said:
    """Its envelope around nothing."""
    return envelope(status, words)


def unfit(status: int, **fields: str) -> Turned:
    """400 where something is missing, 422 where it is there and not proper [docs]; the shape of an error is [unv]."""
    errors = [{"type": "validation_error", "field": name, "message": words} for name, words in fields.items()]
    return Turned(envelope(status, next(iter(fields.values())), errors=errors))


def _enter(desk: Desk, asked: Asked) -> Account:
    account = desk.account(NAME, "secret_key", asked.bearer())
    if account is None:
        raise Turned(error(401, "Unauthenticated."))
    return account


# --- taking money -----------------------------------------------------------------------------------


def _initialize(desk: Desk, account: Account, asked: Asked) -> Said:
    """201 with the payment's id and where it is paid, and nothing else [docs]."""
    body = asked.json()
    if body is None:
        raise Turned(error(400, "The request body is not valid JSON."))
    amount_minor, currency = _sum(body)
    _texts(body)
    metadata, methods = metadata_of(body.get("metadata")), _methods(body.get("methods"), currency)
    country = _restricted(body)
    customer = body["customer"]
    charge = Charge(
        f"py_{desk.letters(12).lower()}",
        NAME,
        account.name,
        amount_minor,
        currency,
        # It has no field for the merchant's own name of it; where metadata has one, the books show that.
        reference=metadata.get("reference", ""),
        method="card" if methods and all(code.startswith("card_") for code in methods) else "mobile_money",
        operator=methods[0] if len(methods) == 1 else "",
        country=country,
        phone=customer.get("phone") or "",
        left_as="canceled",
        return_url=body["return_url"],
        expires_ms=desk.clock() + ABANDONED_MS,
        asked=body | {"metadata": metadata},
    )
    desk.bank.begin(charge)
    desk.bank.ask(charge, "page")
    data = {"id": charge.id, "checkout_url": desk.page(charge)}
    return envelope(201, "Transaction initialized successfully.", data)


def _sum(body: Mapping[str, Any]) -> tuple[int, str]:
    """What is there at all, then amount in minor units and currency."""
    customer = body.get("customer")
    named = {f"customer.{name}": value for name, value in customer.items()} if isinstance(customer, dict) else {}
    given = {**body, **named}
    lacking = [name for name in REQUIRED if given.get(name) in (None, "", {})]
    if lacking:
        raise unfit(400, **{name: f"The {name} field is required." for name in lacking})
    currency = body["currency"]
    if not isinstance(currency, str) or currency not in METHODS:
        raise unfit(422, currency="The selected currency is invalid.")
    amount = integer(body["amount"])
    if amount is None:
        raise unfit(422, amount="The amount must be an integer.")
    if not 0 < amount <= AMOUNT_MAX:
        raise unfit(422, amount=f"The amount must be between 1 and {AMOUNT_MAX}.")
    return amount * 10 ** money.exponent(currency), currency


def _texts(body: Mapping[str, Any]) -> None:
    """Texts are texts of some length, the e-mail is one, the return address is one."""
    customer = body["customer"]
    texts = {"description": body["description"]}
    texts |= {f"customer.{name}": customer[name] for name in ("email", "first_name", "last_name")}
    texts |= {f"customer.{name}": customer[name] for name in OPTIONAL_TEXTS if customer.get(name) is not None}
    for name, value in texts.items():
        if not isinstance(value, str) or len(value) > CHARACTERS_MAX:
            raise unfit(422, **{name: f"The {name} must be a string of at most {CHARACTERS_MAX} characters."})
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", customer["email"]):
        raise unfit(422, **{"customer.email": "The customer.email must be a valid email address."})
    if not isinstance(body["return_url"], str) or not re.match(r"https?://[^/\s]", body["return_url"]):
        raise unfit(422, return_url="The return_url must be a valid URL.")


def metadata_of(given: object) -> dict[str, str]:
    """ "Only string values are allowed" [docs]; an empty list is PHP's empty object."""
    if given is None or given == []:
        return {}
    if not isinstance(given, dict) or len(given) > METADATA_MAX:
        raise unfit(422, metadata="The metadata must be an array of key-value pairs.")
    for name, value in given.items():
        if not isinstance(value, str):
            raise unfit(422, **{f"metadata.{name}": f"The metadata.{name} must be a string."})
    return given


def _methods(given: object, currency: str) -> list[str]:
    """Short codes of this currency; none at all is all of them [docs]."""
    if given is None:
        return []
    if not isinstance(given, list) or not given:
        raise unfit(422, methods="The methods must be an array.")
    for number, code in enumerate(given):
        if code not in METHODS[currency].split():
            raise unfit(422, **{f"methods.{number}": f"The selected methods.{number} is invalid."})
    return given


def _restricted(body: Mapping[str, Any]) -> str:
    """`restrict_country_code` or `restricted_phone`, never both [docs]."""
    country, phone = body.get("restrict_country_code"), body.get("restricted_phone")
    if country is not None and phone is not None:
        raise unfit(422, restrict_country_code="The restrict_country_code and restricted_phone exclude each other.")
    if phone is not None:
        parts = phone if isinstance(phone, dict) else {}
        for name in ("number", "country_code"):
            if not isinstance(parts.get(name), str) or not parts[name]:
                raise unfit(422, **{f"restricted_phone.{name}": f"The restricted_phone.{name} field is required."})
        country = parts["country_code"]
    if country is None:
        return ""
    if not isinstance(country, str) or not re.fullmatch(r"[A-Z]{2}", country):
        raise unfit(422, restrict_country_code="The selected restrict_country_code is invalid.")
    return country


# --- what became of it ------------------------------------------------------------------------------


def _verify(desk: Desk, account: Account, asked: Asked) -> Said:
    """All of it; here the currency is an object [docs]."""
    charge = _charge(desk, account, asked)
    return envelope(200, "Payment transaction fetched successfully!", _payment(desk, account, charge))


def _retrieve(desk: Desk, account: Account, asked: Asked) -> Said:
    """The same with the currency as a word, and without `capture` [docs]."""
    data = _payment(desk, account, _charge(desk, account, asked))
    data["currency"] = data["currency"]["code"]
    data["payment_phone_number"] = (data.pop("capture") or {}).get("phone_number")
    return envelope(200, "Payment transaction fetched successfully", data)


def _charge(desk: Desk, account: Account, asked: Asked) -> Charge:
    found = desk.bank.find(NAME, asked.parts["id"])
    if found is None or found.account != account.name:
        raise Turned(error(404, "Payment transaction not found."))
    return found


def _payment(desk: Desk, account: Account, charge: Charge) -> dict[str, Any]:
    amount = in_major(charge.captured_minor or charge.amount_minor, charge.currency)
    exponent = money.exponent(charge.currency)
    currency = {
        "name": charge.currency,
        "symbol": charge.currency,
        "symbol_first": False,
        "decimals": exponent,
        "code": charge.currency,
    }
    customer = {name: charge.asked["customer"].get(name) for name in ("email", "first_name", "last_name", "phone")}
    status = STATUS[charge.state]
    at = utc(charge.created_ms)
    return {
        "id": charge.id,
        "status": status,
        "is_processed": False,  # the merchant marks it so
        "processed_at": None,
        "amount": amount,
        "amount_formatted": f"{charge.currency} {amount}",
        "currency": currency,
        "description": charge.asked["description"],
        "return_url": _back(desk, charge, "pay") if not charge.live else charge.return_url,
        "environment": "live" if account.live else "sandbox",
        "initiated_at": at,
        "checkout_url": desk.page(charge),
        "metadata": charge.asked["metadata"] or [],
        "app": {"id": f"app_{account.name}", "name": account.name, "is_enabled": True},
        "customer": {"id": f"cus_{charge.id[3:]}", **customer},
        "capture": None if charge.state in ("created", "canceled", "expired") else _capture(charge, amount, currency),
        "created_at": at,
    }


def _capture(charge: Charge, amount: int | str, currency: Mapping[str, Any]) -> dict[str, Any]:
    failed = charge.state == "failed"
    reason = charge.reason or Reason.UNKNOWN
    code = charge.operator or f"{charge.method}_demo"
    return {
        "identifier": f"cap_{charge.id[3:]}",
        "phone_number": charge.phone or None,
        "failure_message": FAILURES.get(reason, "Payment failed") if failed else None,
        "failure_error_code": None,  # documented without its words; the message alone says why
        "failure_error_type": None,
        "amount": amount,
        "currency": currency,
        "method": {"name": code, "short_code": code},
        "gateway": {
            "name": "Sandbox",
            "short_code": "sandbox",
            "transaction_id": f"gw_{charge.id[3:]}",
            "transaction_status": "COMPLETED" if charge.state == "succeeded" else charge.state.upper(),
            "transaction_failure_message": None,
        },
    }


def in_major(amount_minor: int, currency: str) -> int | str:
    """Whole, as it was asked for; text with a fraction only where trouble took another amount."""
    found = money.to_major(amount_minor, currency)
    return int(found) if found == found.to_integral_value() else str(found)


# --- telling ----------------------------------------------------------------------------------------


def _letters(desk: Desk, happening: Happening) -> list[Letter]:
    """A hint: the id, the status, the sum, the customer [docs]."""
    charge, event = happening.charge, EVENTS.get(happening.word)
    if event is None:
        return []
    customer = charge.asked["customer"]
    fields = {
        "id": charge.id,
        "amount": charge.captured_minor or charge.amount_minor,
        "currency": charge.currency,
        "data.customer": {
            "id": f"cus_{charge.id[3:]}",
            "email": customer["email"],
            "firstName": customer["first_name"],  # so in webhooks alone [docs]
            "lastName": customer["last_name"],
            "phone": customer.get("phone"),
        },
        "data.metadata": {},  # documented webhooks repeat none; it has to be asked for
    }
    return [Letter(event, fields)]


def _back(desk: Desk, charge: Charge, choice: Choice) -> str:
    """`return_url` with the payment's id and what became of it [docs]."""
    join = "&" if "?" in charge.return_url else "?"
    return charge.return_url + join + urlencode({"paymentId": charge.id, "paymentStatus": STATUS[charge.state]})


API: Final = Api(
    name=NAME,
    routes=(
        Route("create", "POST", "/v1/payments/initialize", _initialize),
        Route("fetch", "GET", "/v1/payments/(?P<id>[^/]{1,100})/verify", _verify),
        Route("fetch", "GET", "/v1/payments/(?P<id>[^/]{1,100})", _retrieve),
    ),
    enter=_enter,
    error=error,
    letters=_letters,
    back=_back,
    taken=lambda status: status == 200,  # "any other … including 3xx … is a failure" [docs]
)
