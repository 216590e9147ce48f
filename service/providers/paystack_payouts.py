"""
Money paid out through Paystack: a recipient, a transfer out of the balance, and a code where Paystack wants one.

Facts marked [SDK] are read in its OpenAPI description, [docs] in paystack.com/docs, [3p] in other people's code, [unv]
nowhere; checked in November 2026. Only the transfer moves money: what goes wrong with the recipient is `NotSent`, and
making the recipient again pays nobody. There is no idempotency key. Our reference is unique at Paystack, so that a
repeated transfer is refused as a duplicate, and a lost one is asked about by it.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from decimal import ROUND_FLOOR, Decimal
from typing import Final
from urllib.parse import quote

from service.payments import money
from service.providers import called, meaning, paystack, strict
from service.providers import paystack_wire as wire
from service.providers.base import Credentials, NotKnown, Parked, Unclear
from service.providers.calls import Broken, Call, Facts, Lost, NotSent, Response
from service.providers.payouts import (
    AskingFloat,
    AskingPayout,
    PaidOut,
    Payee,
    Paying,
    PayoutChannel,
    PayoutRefused,
    Payouts,
    PayoutTold,
    Sending,
    Stage,
)

# --- tables -------------------------------------------------------------------------------------------

STATUS: Mapping[str, Stage] = {
    "pending": "in_transit",
    "received": "in_transit",
    "otp": "otp",
    "success": "paid",
    "failed": "failed",
    "reversed": "returned",
}
"""A transfer's `status` [docs]. `dead_statuses` are failed too; any other word is unknown, and nothing is concluded."""

WALLETS: tuple[tuple[str, str, str, str], ...] = (
    ("mtn", "GH", "GHS", "MTN"),
    ("airtel", "GH", "GHS", "ATL"),
    ("vodafone", "GH", "GHS", "VOD"),
    ("mpesa", "KE", "KES", "MPESA"),
    ("mtn", "CI", "XOF", "MTN_CI"),
    ("orange", "CI", "XOF", "OM_CI"),
    ("wave", "CI", "XOF", "WAVE_CI"),
)
"""Operator, country, currency, `bank_code` [docs for GH and KE, unv for CI]: `GET /bank?type=mobile_money` has them."""

BANKS: Mapping[str, str] = {"NGN": "nuban", "GHS": "ghipss", "KES": "kepss", "ZAR": "basa"}
"""Currency and `type` of a recipient with a bank account [docs]."""

FACTS: Facts = {
    "xof_places": paystack.PLACES,  # the same as for payments
    "credentials_words": ("invalid key",),  # the same as for payments
    "payout_local_phones": ("GH +233 0", "KE +254 0", "CI +225 "),  # as `local_phones` of payments [docs; unv for CI]
    "dead_statuses": ("rejected", "abandoned", "blocked"),  # that nothing follows them is [3p]
    "unknown_transfer_words": ("transfer not found",),  # message [SDK], code [3p]
    "transfer_taken_words": ("reference", "duplicate"),  # code and message [SDK for the bulk call, unv for one]
    "float_words": ("balance is not enough", "insufficient"),  # [3p]
    "account_words": ("recipient", "account number", "bank code", "cannot resolve"),  # [SDK; unv for the rest]
    "not_allowed_words": ("third party payouts", "starter business", "not enabled", "not permitted"),  # [unv]
    "wrong_code_words": ("invalid otp", "otp is invalid", "incorrect otp", "wrong otp", "incorrect token"),  # [unv]
    "transfer_reason_characters_max": 100,  # [unv]
}
"""
What is believed and may be set, in words as `paystack.FACTS` has them. Any refusal that mentions a reference is taken
for a duplicate: that costs a question, and the opposite mistake would pay twice.
"""

REFERENCE: Final = re.compile(r"[a-z0-9_-]{16,50}", re.ASCII)
"""What a transfer's reference may be made of [docs]."""

REFUSED: tuple[tuple[str, str], ...] = (
    ("float_words", "insufficient_float"),
    ("not_allowed_words", "not_allowed"),
    ("account_words", "bad_account"),
)
"""The facts that tell why, and our words for it."""

NAME_CHARACTERS_MAX: Final = 100

# --- reading ------------------------------------------------------------------------------------------


def _key(credentials: Credentials, live: bool) -> str:
    """The key that calls; none where it is one for test money and the account is live."""
    key = called.credential(credentials, "secret_keys")
    return "" if live and key.startswith(called.TEST_KEYS) else key


def _code(paying: Paying) -> str | None:
    """Paystack's code of it, `TRF_…`; our own reference may stand among the names."""
    return next((name for name in paying.names if name != paying.reference), None)


def _why(said: Mapping[str, object], facts: Facts) -> str | None:
    return next((why for words, why in REFUSED if wire.says(said, called.words(facts, words))), None)


def _floored(value: object, currency: str, facts: Facts) -> int | None:
    """Paystack's units as whole minor units, rounded down; less than nothing is nothing, None for what is no number."""
    if type(value) is int and value < 0:
        return 0
    units = money.from_wire(value, 2, "USD")  # as it stands there
    if units is None:
        return None
    by = money.exponent(currency) - paystack.places(currency, facts)
    return int(Decimal(units).scaleb(by).to_integral_value(ROUND_FLOOR))


def _read(it: Mapping[str, object], paying: Paying, facts: Facts, recipient: str = "") -> PayoutTold | str:
    """What a transfer says, or why it is not believed."""
    if it.get("reference") != paying.reference:
        return "other_payout"
    if paying.live and it.get("domain") == "test":
        return called.TEST_MONEY
    said = strict.amounts(
        lambda value, currency: money.from_wire(value, paystack.places(currency, facts), currency),
        it.get("currency") or paying.currency,
        it.get("amount"),
    )
    if isinstance(said, Parked):
        return "unreadable"
    currency, (amount,) = said
    if currency != paying.currency or amount not in (None, paying.amount_minor):
        return "other_payout"
    status = strict.word(it.get("status"))
    stage = "failed" if status in called.words(facts, "dead_statuses") else STATUS.get(status)
    if stage is None:
        return "unknown_status"
    code = strict.identifier(it.get("transfer_code"))
    words = wire.text(it.get("gateway_response")) or wire.text(it.get("failures"))
    return PayoutTold(
        stage,
        (code,) if code else (),
        strict.identifier(strict.dig(it, "recipient", "recipient_code")) or recipient,
        _floored(it["fee_charged"], paying.currency, facts) if stage == "paid" and "fee_charged" in it else None,
        (_why({"message": words}, facts) or "refused") if stage == "failed" else "",
        words if stage in ("failed", "returned") else "",
        strict.first_ms(*(it.get(name) for name in ("transferred_at", "updatedAt", "updated_at", "createdAt"))),
    )


# --- sending ------------------------------------------------------------------------------------------


def send(paying: Paying, channel: PayoutChannel, credentials: Credentials, facts: Facts = FACTS) -> Sending:
    """`POST /transferrecipient`, unless we know the recipient, and `POST /transfer` to it [SDK]."""
    payee, units = paying.payee, wire.to_wire(paying.amount_minor, paying.currency, facts)
    if not _key(credentials, paying.live):
        return called.CREDENTIALS_WRONG
    if not channel.fits(payee) or payee.currency != paying.currency:
        return PayoutRefused("unsupported")
    most = paying.amount_minor if channel.max_minor is None else channel.max_minor
    if (
        units is None
        or not channel.min_minor <= paying.amount_minor <= most
        or paying.amount_minor % channel.step_minor
    ):
        return PayoutRefused("amount")
    if not REFERENCE.fullmatch(paying.reference):
        return NotSent("reference", alert=True)
    recipient = paying.recipient
    if not recipient:
        made = yield from _recipient(paying, channel, credentials, facts)
        if not isinstance(made, str):
            return made
        recipient = made
    asked: dict[str, object] = {
        "source": "balance",
        "amount": units,
        "currency": paying.currency,
        "recipient": recipient,
        "reference": paying.reference,
    }
    if paying.description:
        asked["reason"] = called.text(paying.description, called.number(facts, "transfer_reason_characters_max"))
    try:
        response = yield Call("POST", "/transfer", wire.headers(credentials), json=asked)
    except Broken as broken:  # the recipient moved nothing: what counts is whether the transfer left
        return Lost(broken.reason) if broken.sent else NotSent(broken.reason)
    said = strict.document(response.body)
    if response.status in (400, 404, 409, 422) and not isinstance(said, Parked):  # a duplicate may be a 404 [SDK]
        return _refusal(said, facts)
    return _transferred(response, paying, facts, recipient)


def _recipient(
    paying: Paying, channel: PayoutChannel, credentials: Credentials, facts: Facts
) -> Generator[Call, Response, str | PaidOut]:
    """The code of a recipient for this payee. Nothing here moves money, and the same one may be made again."""
    payee = paying.payee
    if payee.kind == "mobile_money":
        local = {"local_phones": facts["payout_local_phones"]}
        number = wire.phone(payee.number, payee.country, local) if called.digits(payee.number) else ""
        type_, bank = "mobile_money", channel.code
    else:
        number, type_, bank = payee.number, channel.code, payee.bank_code
    if not (number and bank and type_):
        return PayoutRefused("bad_account")
    name = called.text(payee.name.strip(), NAME_CHARACTERS_MAX) or paying.reference
    asked = {"type": type_, "name": name, "account_number": number, "bank_code": bank, "currency": paying.currency}
    try:
        response = yield Call("POST", "/transferrecipient", wire.headers(credentials), json=asked)
    except Broken as broken:
        return NotSent(broken.reason)
    said = strict.document(response.body)
    if response.status in (400, 404, 422) and not isinstance(said, Parked):
        if wire.says(said, called.words(facts, "credentials_words")):
            return called.CREDENTIALS_WRONG
        why = _why(said, facts) or ("bad_account" if wire.words(said)[2] in wire.REFUND_REFUSED_TYPES else None)
        return PayoutRefused(why, wire.text(said.get("message"))) if why else NotSent("refused")
    stopped = called.turned_away(response.status)
    if stopped:
        return NotSent(stopped.reason, alert=stopped.alert)
    it = strict.branch(said, "data")
    code = strict.identifier(it.get("recipient_code"))
    if isinstance(said, Parked) or said.get("status") is not True or code is None:
        return NotSent("unreadable")
    if paying.live and it.get("domain") == "test":
        return NotSent(called.TEST_MONEY, alert=True)
    return code if it.get("currency") in (None, paying.currency) else NotSent("other_recipient")


def _refusal(said: strict.Document, facts: Facts) -> PaidOut:
    """
    What a refused transfer proves. A duplicate proves that there is one of this reference, which is asked about, as is
    a refusal that shows a transfer; what Paystack says of its own trouble proves nothing.
    """
    if wire.says(said, called.words(facts, "transfer_taken_words")):
        return Lost("duplicate_reference")
    if strict.branch(said, "data"):
        return Lost("refused")
    if wire.says(said, called.words(facts, "credentials_words")):
        return called.CREDENTIALS_WRONG
    why = _why(said, facts) or ("refused" if wire.words(said)[2] in wire.REFUND_REFUSED_TYPES else None)
    return PayoutRefused(why, wire.text(said.get("message"))) if why else Lost("refused")


def _transferred(response: Response, paying: Paying, facts: Facts, recipient: str = "") -> PaidOut:
    stopped = called.turned_away(response.status)
    if stopped:
        return PayoutRefused("unsupported") if stopped.reason == "unsupported" else stopped
    said = strict.document(response.body)
    if isinstance(said, Parked) or said.get("status") is not True or not isinstance(said.get("data"), dict):
        return Lost("unreadable")
    told = _read(strict.branch(said, "data"), paying, facts, recipient)
    return told if isinstance(told, PayoutTold) else Lost(told, alert=told == called.TEST_MONEY)


def finalize(paying: Paying, code: str, credentials: Credentials, facts: Facts = FACTS) -> Sending:
    """
    `POST /transfer/finalize_transfer` [SDK]. A wrong code is asked for again. Of a transfer that is there no refusal is
    a definite no: it is `Lost`, and asked about. `NotSent`: the code did not arrive, and may be handed in again.
    """
    if not _key(credentials, paying.live):
        return called.CREDENTIALS_WRONG
    transfer = _code(paying)
    if transfer is None:
        return Lost("no_name")
    asked = {"transfer_code": transfer, "otp": called.text(code, 50)}
    response = yield Call("POST", "/transfer/finalize_transfer", wire.headers(credentials), json=asked)
    said = strict.document(response.body)
    if 400 <= response.status < 500 and response.status not in (401, 403, 429):
        wrong = not isinstance(said, Parked) and wire.says(said, called.words(facts, "wrong_code_words"))
        words = wire.text(strict.dig(said, "message"))
        return PayoutTold("otp", (transfer,), paying.recipient, words=words) if wrong else Lost("refused")
    return _transferred(response, paying, facts, paying.recipient)


# --- asking -------------------------------------------------------------------------------------------


def ask(paying: Paying, credentials: Credentials, facts: Facts = FACTS) -> AskingPayout:
    """`GET /transfer/verify/{reference}` [SDK]. One that Paystack has named to us is never not known."""
    if not _key(credentials, paying.live):
        return Unclear("credentials")
    path = f"/transfer/verify/{quote(paying.reference, safe='')}"
    response = yield Call("GET", path, wire.headers(credentials))
    said = strict.document(response.body)
    if response.status in (400, 404):
        # Only Paystack's own words say that there is no such transfer: a 404 may be any proxy's.
        if isinstance(said, Parked):
            return Unclear("refused")
        if wire.says(said, called.words(facts, "unknown_transfer_words")) and not strict.branch(said, "data"):
            return Unclear("not_known") if _code(paying) else NotKnown()
        return Unclear("credentials" if wire.says(said, called.words(facts, "credentials_words")) else "refused")
    turned_away = meaning.turned_away(response.status)
    if isinstance(turned_away, Unclear):
        return turned_away
    if isinstance(said, Parked) or said.get("status") is not True or not isinstance(said.get("data"), dict):
        return Unclear("unreadable")
    told = _read(strict.branch(said, "data"), paying, facts)
    return told if isinstance(told, PayoutTold) else Unclear(told)


def float_(payee: Payee, live: bool, credentials: Credentials, facts: Facts = FACTS) -> AskingFloat:
    """`GET /balance` [SDK]: one balance a currency, for all operators; it does not say whether it is test money."""
    if not _key(credentials, live):
        return Unclear("credentials")
    response = yield Call("GET", "/balance", wire.headers(credentials))
    turned_away = meaning.turned_away(response.status)
    if turned_away:
        return turned_away if isinstance(turned_away, Unclear) else Unclear("refused")
    said = strict.document(response.body)
    items = None if isinstance(said, Parked) or said.get("status") is not True else said.get("data")
    if not isinstance(items, list):
        return Unclear("unreadable")
    found: dict[str, int] = {}
    for item in items:
        currency = strict.currency(strict.dig(item, "currency"))
        minor = None if currency is None else _floored(strict.dig(item, "balance"), currency, facts)
        if currency is None or minor is None or currency in found:
            return Unclear("unreadable")
        found[currency] = minor
    return found


# --- what it can do -----------------------------------------------------------------------------------

CHANNELS: tuple[PayoutChannel, ...] = (
    *(
        PayoutChannel("mobile_money", currency, country, operator, code)
        for operator, country, currency, code in WALLETS
    ),
    *(PayoutChannel("bank", currency, code=type_) for currency, type_ in BANKS.items()),
)

PAYOUTS = Payouts(channels=CHANNELS, send=send, ask=ask, finalize=finalize, float_=float_, facts=FACTS)
