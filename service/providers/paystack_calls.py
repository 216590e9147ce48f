"""
What we ask of Paystack: a page of theirs (initialize), or a wallet charged directly (charge, submit_otp).

Facts marked [SDK] are read in its OpenAPI description and plugins, [docs] in paystack.com/docs, [3p] in other people's
code, [unv] nowhere; checked in November 2026.

There is no idempotency key: our reference is unique at Paystack, so that a repeated call is refused as a duplicate, and
a lost one is asked about by it. Nothing can be cancelled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from service.payments import money
from service.payments.facts import Fact, Kind, Reason, Source, Told
from service.providers import called, meaning, paystack, strict
from service.providers.base import Answer, Credentials, NotFinal, NotKnown, Parked, Unclear
from service.providers.calls import (
    Accepted,
    Action,
    Approve,
    Asking,
    Call,
    Calls,
    Channel,
    Creating,
    Declined,
    Given,
    Lost,
    NotSent,
    Otp,
    Redirect,
    Refunding,
    RefundRefused,
    Refunds,
    Response,
    Result,
    Wanted,
)

# --- tables -------------------------------------------------------------------------------------------

REFERENCE: Final = re.compile(r"[A-Za-z0-9.=-]{1,100}", re.ASCII)
"""What a reference may be made of [docs]; that 100 characters are not too many is [unv]."""

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

PHONES: Mapping[str, tuple[str, str]] = {"GH": ("+233", "0"), "CI": ("+225", "")}
"""How a wallet's number is written: this beginning becomes that one [docs for GH, unv for CI]; elsewhere E.164."""

ABANDONED_AFTER_MS: Final = 3_600_000
"""
When `abandoned` is believed, counted from `created_at` on Paystack's own clock [unv].

It is what verify says of every page that nobody has finished yet, one opened a second ago included [docs: "the customer
has not completed the transaction"]. Until then it says only that nobody has paid.
"""

URL_FIELDS = ("url", "qr_code")
"""Where an address for the payer may stand [docs for url, 3p for qr_code]."""

CREDENTIALS_REFUSED = ("invalid key",)  # a 400 [SDK]
DUPLICATE = ("duplicate transaction reference", "duplicate reference")  # `message` [SDK] and `code` [3p], plain
UNKNOWN_REFERENCE = ("transaction not found", "reference not found")  # `code` and `message` [3p], plain
WRONG_OTP = ("incorrect otp", "invalid otp", "wrong otp", "otp is incorrect", "incorrect token", "invalid token")
"""Parts of the words with which a code is refused and may be typed again; documented nowhere [unv]."""

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
    "not found": "not_known",
    "invalid key": "credentials",
}
"""Parts of the words of a refused refund [3p]."""

REFUND_REFUSED_TYPES = frozenset({"validation error"})  # [SDK]

# --- writing ------------------------------------------------------------------------------------------


def to_wire(amount_minor: int, currency: str) -> int | None:
    """An amount as Paystack writes it: 1000 XOF are 100000; None for what cannot be charged."""
    units = money.to_wire(amount_minor, paystack.PLACES, currency)
    return units if units is not None and units > 0 else None


def _headers(credentials: Credentials) -> dict[str, str]:
    return {"Authorization": f"Bearer {called.credential(credentials, 'secret_keys')}", "Accept": "application/json"}


def phone(number: str, country: str) -> str:
    """A wallet's number as its country writes it; one of another country stays as it is."""
    begins, instead = PHONES.get(country, ("", ""))
    return instead + number.removeprefix(begins) if begins and number.startswith(begins) else number


# --- reading ------------------------------------------------------------------------------------------


def _words(said: Mapping[str, object]) -> tuple[str, str, str]:
    """`code`, `message` and `type` of an answer, plain: small letters, no underscores."""
    given = (strict.word(said.get(name), 300).casefold() for name in ("code", "message", "type"))
    code, message, type_ = (word.replace("_", " ").replace("-", " ") for word in given)
    return code, message, type_


def _says(said: Mapping[str, object], parts: tuple[str, ...]) -> bool:
    code, message, _ = _words(said)
    return any(part in word for part in parts for word in (code, message))


def _text(value: object) -> str:
    """The provider's words for the payer, on one line."""
    return strict.word(" ".join(value.split()), 500) if isinstance(value, str) else ""


def _action(kind: Kind, it: Mapping[str, object]) -> Action | None:
    """
    What the payer has to do; None where nothing, or nothing that we could pass on.

    PIN, birthday, address and phone are asked of cards and bank accounts, which we never charge directly [docs].
    """
    status, display = strict.word(it.get("status")), _text(it.get("display_text"))
    if status == "send_otp":
        return Otp(display)
    url = next((url for name in URL_FIELDS if (url := called.link(it.get(name)))), None)
    if kind in (Kind.REQUIRES_ACTION, Kind.PENDING) and url:
        return Redirect(url)
    if status == "pay_offline" or (kind is Kind.PENDING and display):
        return Approve(display)
    return None


def _attempted(it: Mapping[str, object], reference: str, amount_minor: int, currency: str) -> Result:
    """A transaction that a charge or a code came to."""
    if strict.identifier(it.get("reference")) != reference:
        return Lost("other_payment")
    told = paystack.of_charge(it, Source.ANSWER)
    if not isinstance(told, Told):
        return Lost("unknown_status" if isinstance(told, Parked) and "status" in told.reason else "unreadable")
    if called.other_amount(told, amount_minor, currency):
        return Lost("other_payment")
    kind = told.facts[0].kind
    if kind is Kind.FAILED:
        return Declined(told, told.facts[0].reason or Reason.UNKNOWN)
    if kind is Kind.CANCELED:
        return Accepted(_waiting(told))  # `abandoned` a moment after it was begun
    if strict.word(it.get("status")) == "open_url" and _action(kind, it) is None:
        return Lost("unreadable", told)
    return Accepted(told, _action(kind, it))


def _waiting(told: Told) -> Told:
    """The same without an end: nobody has paid yet."""
    facts = tuple(
        Fact(Kind.CREATED, fact.movement, asked_minor=fact.asked_minor, currency=fact.currency, source=fact.source)
        for fact in told.facts
    )
    return Told(told.references, facts, told.reference, told.metadata)


def _result(response: Response, reference: str, amount_minor: int, currency: str) -> Result:
    said = strict.document(response.body)
    if response.status == 400 and not isinstance(said, Parked):
        it = strict.branch(said, "data")
        if strict.word(it.get("status")) in paystack.CHARGE:
            return _attempted(it, reference, amount_minor, currency)  # a refused charge may come as a 400 [3p]
        return _refusal(said)
    stopped = called.turned_away(response.status)
    if stopped:
        return stopped
    if isinstance(said, Parked) or not isinstance(said.get("data"), dict) or said.get("status") is not True:
        return Lost("unreadable")
    return _attempted(strict.branch(said, "data"), reference, amount_minor, currency)


def _refusal(said: Mapping[str, object]) -> NotSent | Lost:
    """What a 400 proves. A duplicate proves that there is a payment of this reference, and that is asked about."""
    if _says(said, DUPLICATE):
        return Lost("duplicate_reference")
    if _says(said, CREDENTIALS_REFUSED):
        return called.CREDENTIALS_WRONG
    code, _, type_ = _words(said)
    return REFUSED.get(code) or REFUSED.get(type_) or Lost("refused")


# --- create -------------------------------------------------------------------------------------------


def create(wanted: Wanted, channel: Channel, credentials: Credentials) -> Creating:
    """`POST /charge` for a wallet whose code the channel knows, `POST /transaction/initialize` otherwise [SDK]."""
    units = to_wire(wanted.amount_minor, wanted.currency)
    if units is None:
        return NotSent("amount")
    if not REFERENCE.fullmatch(wanted.reference):
        return NotSent("reference", alert=True)
    if not wanted.customer.email:
        return NotSent("no_email")  # it is required in both [SDK]
    if channel.code and not wanted.payer_phone:
        return NotSent("no_phone")
    if not called.credential(credentials, "secret_keys"):
        return called.CREDENTIALS_WRONG
    asked: dict[str, object] = {
        "email": wanted.customer.email,
        "amount": units,
        "currency": wanted.currency,
        "reference": wanted.reference,
    }
    notes = {called.text(key, 100): called.text(note, 500) for key, note in wanted.metadata.items()}
    if channel.code:
        wallet = {"phone": phone(wanted.payer_phone, channel.country), "provider": channel.code}
        asked |= {"mobile_money": wallet, "metadata": notes}
        response = yield Call("POST", "/charge", _headers(credentials), json=asked)
        return _result(response, wanted.reference, wanted.amount_minor, wanted.currency)
    asked |= {
        "callback_url": wanted.return_url,
        "channels": [wanted.method],
        "metadata": notes | {"cancel_action": wanted.return_url},
    }
    response = yield Call("POST", "/transaction/initialize", _headers(credentials), json=asked)
    return _initialized(response, wanted)


def _initialized(response: Response, wanted: Wanted) -> Result:
    """`{"status": true, "data": {authorization_url, access_code, reference}}` [SDK]; it names no amount."""
    said = strict.document(response.body)
    if response.status == 400 and not isinstance(said, Parked):
        return _refusal(said)
    stopped = called.turned_away(response.status)
    if stopped:
        return stopped
    it = strict.branch(said, "data")
    url = called.link(it.get("authorization_url"))
    if isinstance(said, Parked) or said.get("status") is not True or url is None:
        return Lost("unreadable")
    if it.get("reference") != wanted.reference:
        return Lost("other_payment")
    fact = Fact(Kind.CREATED, wanted.reference, source=Source.ANSWER)
    return Accepted(Told((wanted.reference,), (fact,), wanted.reference), Redirect(url))


def otp(given: Given, code: str, credentials: Credentials) -> Creating:
    """`POST /charge/submit_otp` [SDK]. A wrong code is asked for again; `failed` is the end of it."""
    asked = {"otp": called.text(code, 50), "reference": given.reference}
    response = yield Call("POST", "/charge/submit_otp", _headers(credentials), json=asked)
    said = strict.document(response.body)
    again = response.status == 400 and not isinstance(said, Parked) and _says(said, WRONG_OTP)
    if again and not strict.branch(said, "data").get("status"):
        fact = Fact(Kind.REQUIRES_ACTION, given.reference, source=Source.ANSWER)
        return Accepted(Told((given.reference,), (fact,), given.reference), Otp(_text(strict.dig(said, "message"))))
    return _result(response, given.reference, given.amount_minor, given.currency)


# --- fetch and find -----------------------------------------------------------------------------------


def fetch(given: Given, live: bool, credentials: Credentials) -> Asking:
    """`GET /transaction/verify/{reference}` [SDK]: their name of a payment is the reference that was given to them."""
    return (yield from _verify(next(iter(given.references), given.reference), live, credentials))


def find(given: Given, live: bool, credentials: Credentials) -> Asking:
    """The same by our reference: it is unique there [SDK], and a lost create is found by it."""
    return (yield from _verify(given.reference, live, credentials))


def _verify(reference: str, live: bool, credentials: Credentials) -> Asking:
    path = f"/transaction/verify/{quote(reference, safe='')}"
    response = yield Call("GET", path, _headers(credentials))
    said = strict.document(response.body)
    if response.status in (400, 404):
        # Only Paystack's own words say that there is no such transaction: a 404 may be any proxy's.
        if isinstance(said, Parked):
            return Unclear("refused")
        wrong_key = Unclear("credentials") if _says(said, CREDENTIALS_REFUSED) else Unclear("refused")
        return NotKnown() if _says(said, UNKNOWN_REFERENCE) else wrong_key
    turned_away = meaning.turned_away(response.status)
    if turned_away:
        return turned_away
    if isinstance(said, Parked) or said.get("status") is not True or not isinstance(said.get("data"), dict):
        return Unclear("unreadable")
    it = strict.branch(said, "data")
    if strict.identifier(it.get("reference")) != reference:
        return Unclear("other_payment")
    if live and it.get("domain") == "test":
        return Unclear("test_answer_in_live")
    return _verified(it, strict.http_date_ms(response.headers.get("date")))


def _verified(it: Mapping[str, object], now_ms: int) -> Answer:
    """What a transaction is now; the time is Paystack's, 0 where it did not say it."""
    told = paystack.of_charge(it, Source.ANSWER)
    if not isinstance(told, Told):
        return Unclear(told.reason.partition(":")[0] if isinstance(told, Parked) else "unreadable")
    kind = told.facts[0].kind
    if kind is Kind.CANCELED:
        began_ms = strict.first_ms(it.get("created_at"), it.get("createdAt"))
        over = began_ms and now_ms - began_ms >= ABANDONED_AFTER_MS
        return told if over else NotFinal(_waiting(told))
    return told if kind in (Kind.CAPTURED, Kind.FAILED, Kind.REVERSED) else NotFinal(told)


# --- refund -------------------------------------------------------------------------------------------


def refund(given: Given, amount_minor: int, reason: str, credentials: Credentials) -> Refunds:
    """`POST /refund` of our reference [SDK]. Without a key: a lost one is looked at by a person, never said again."""
    units = to_wire(amount_minor, given.currency)
    if units is None:
        return RefundRefused("amount")
    reference = next(iter(given.references), given.reference)
    asked: dict[str, object] = {"transaction": reference, "amount": units, "currency": given.currency}
    if reason:
        asked["merchant_note"] = called.text(reason, 200)
    response = yield Call("POST", "/refund", _headers(credentials), json=asked)
    said = strict.document(response.body)
    if response.status in (400, 404) and not isinstance(said, Parked):
        code, message, type_ = _words(said)
        why = next((why for part, why in NOT_REFUNDED.items() if part in message or part in code), None)
        if why is None and type_ not in REFUND_REFUSED_TYPES:
            return Lost("refused")
        return RefundRefused(why or "refused", _text(said.get("message")))
    stopped = called.turned_away(response.status)
    if stopped:
        return RefundRefused(stopped.reason) if isinstance(stopped, NotSent) else stopped
    it = strict.branch(said, "data")
    if isinstance(said, Parked) or said.get("status") is not True or not it:
        return Lost("unreadable")
    told = paystack.of_refund(
        {**it, "transaction_reference": strict.dig(it, "transaction", "reference")}, Source.ANSWER
    )
    if not isinstance(told, Told):
        return Lost("unreadable")
    back = told.facts[0]
    if told.references != (reference,) or (back.amount_minor, back.currency) != (amount_minor, given.currency):
        return Lost("other_payment")
    return Refunding(told)


# --- what it can do -----------------------------------------------------------------------------------


def _least(currency: str) -> int:
    return MINIMUM.get(currency, 1)


CALLS = Calls(
    channels=(
        *(Channel("card", currency, min_minor=_least(currency)) for currency in CARD_CURRENCIES),
        *(Channel("mobile_money", currency, country, min_minor=_least(currency)) for currency, country in HOSTED),
        *(
            Channel("mobile_money", currency, country, operator, code, direct, min_minor=_least(currency))
            for operator, country, currency, code, direct in WALLETS
        ),
    ),
    create=create,
    fetch=fetch,
    find=find,
    otp=otp,
    refund=refund,
)
