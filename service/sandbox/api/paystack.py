"""
Paystack's API as its documentation has it: amounts are a hundred times the major unit in every currency, our reference
is unique for ever, nothing can be cancelled, and only success is told by a callback.

What verify says of a page that nobody has finished is `abandoned`, from the first second on. `paystack_objects` has
what the answers are made of.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote, urlencode

from service.payments import money
from service.sandbox.api import paystack_objects as objects
from service.sandbox.bank import Charge, Happening, Refund
from service.sandbox.desk import (
    PAGE_MAX,
    Account,
    Api,
    Asked,
    Choice,
    Desk,
    Letter,
    Route,
    Said,
    Turned,
    integer,
)

CURRENCIES: Final = ("NGN", "GHS", "ZAR", "KES", "USD", "XOF")
CHANNELS: Final = ("card", "bank", "ussd", "qr", "eft", "mobile_money", "bank_transfer", "apple_pay")
REFERENCE: Final = re.compile(r"[A-Za-z0-9.=-]{1,100}")
MINIMUM: Mapping[str, int] = {"GHS": 10, "KES": 300, "NGN": 5000, "USD": 200, "XOF": 100, "ZAR": 100}  # ×100

# --- reading ------------------------------------------------------------------------------------------


def enter(desk: Desk, asked: Asked) -> Account:
    """`Authorization: Bearer sk_…`."""
    account = desk.account("paystack", "secret_keys", asked.bearer())
    if account is None:
        raise Turned(objects.error(401, "Invalid key", code="invalid_Key"))
    return account


def body_of(asked: Asked) -> dict[str, Any]:
    """The JSON object in the body."""
    found = asked.json()
    if found is None:
        raise objects.turn("The request body is not a JSON object")
    return found


def text_of(said: Mapping[str, Any], name: str, *, needed: bool = True) -> str:
    """A field that is a text; empty where it is not `needed` and not there."""
    value = said.get(name)
    if value is None and not needed:
        return ""
    if not isinstance(value, str) or not value.strip():
        raise objects.turn(f"{name} is required", "missing_params")
    return value


def amount_of(said: Mapping[str, Any], currency: str) -> int:
    """In minor units; on the wire whole hundredths of the major unit, so a franc is never split."""
    wire = integer(said.get("amount"))
    minor = None if wire is None else money.from_wire(wire, 2, currency)
    if not wire or minor is None or wire < 0:
        raise objects.turn("Invalid Amount Sent", "invalid_amount")
    if wire < MINIMUM[currency]:
        raise objects.turn(f"Amount is less than the minimum for {currency}", "invalid_amount")
    return minor


def _wanted(desk: Desk, account: Account, asked: Asked) -> Charge:
    """What initialize and charge ask for alike."""
    said = body_of(asked)
    email = text_of(said, "email")
    if not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", email):
        raise objects.turn("Invalid Email Address Passed", "invalid_email_address")
    currency = text_of(said, "currency", needed=False) or "NGN"
    if currency not in CURRENCIES:
        raise objects.turn("Currency not supported by merchant", "unsupported_currency")
    amount = amount_of(said, currency)
    reference = text_of(said, "reference", needed=False) or desk.letters(15).lower()
    if not REFERENCE.fullmatch(reference):
        raise objects.turn("Invalid characters in transaction reference", "invalid_reference")
    if desk.bank.by_reference("paystack", account.name, reference):
        raise objects.turn("Duplicate Transaction Reference", "duplicate_reference")
    metadata = said.get("metadata")
    if not isinstance(metadata, dict | str | None):
        raise objects.turn("Invalid metadata sent", "invalid_metadata")
    cancel = metadata.get("cancel_action") if isinstance(metadata, dict) else None
    return Charge(
        id=desk.digits(10),
        provider="paystack",
        account=account.name,
        amount_minor=amount,
        currency=currency,
        reference=reference,
        return_url=text_of(said, "callback_url", needed=False),
        cancel_url=cancel if isinstance(cancel, str) else "",
        asked=said,
    )


# --- payments -----------------------------------------------------------------------------------------


def initialize(desk: Desk, account: Account, asked: Asked) -> Said:
    """`POST /transaction/initialize`: a page, on which nobody has paid yet."""
    charge = _wanted(desk, account, asked)
    channels = charge.asked.get("channels")
    if channels is not None and (
        not isinstance(channels, list) or not channels or any(one not in CHANNELS for one in channels)
    ):
        raise objects.turn("Invalid channels passed", "invalid_channels")
    charge.method = channels[0] if channels else "card"
    desk.bank.begin(charge)
    desk.bank.ask(charge, "page")
    data = {"authorization_url": desk.page(charge), "access_code": desk.letters(15), "reference": charge.reference}
    return objects.said("Authorization URL created", data)


def charge(desk: Desk, account: Account, asked: Asked) -> Said:
    """`POST /charge` of a wallet: the phone rings, a code is sent, or the operator's own page opens."""
    wanted = _wanted(desk, account, asked)
    wallet = wanted.asked.get("mobile_money")
    if not isinstance(wallet, dict):
        raise objects.turn("Only mobile_money can be charged here", "missing_params")
    phone, provider = text_of(wallet, "phone"), text_of(wallet, "provider").lower()
    if not re.fullmatch(r"\+?[0-9]{8,15}", phone):
        raise objects.turn("Invalid phone number", "invalid_phone")
    if (wanted.currency, provider) not in objects.WALLETS:
        raise objects.turn(
            f"Mobile money provider {provider} is not supported for {wanted.currency}", "invalid_provider"
        )
    wanted.method, wanted.operator, wanted.phone = "mobile_money", provider, phone
    desk.bank.begin(wanted)
    first = objects.WALLETS[wanted.currency, provider][0]
    desk.bank.ask(wanted, "otp" if first == "send_otp" else "page" if first == "open_url" else "approval")
    return objects.said("Charge attempted", objects.attempt(desk, wanted))


def submit_otp(desk: Desk, account: Account, asked: Asked) -> Said:
    """`POST /charge/submit_otp`: a wrong code may be typed again, until it has been wrong too often."""
    said = body_of(asked)
    otp, reference = text_of(said, "otp"), text_of(said, "reference")
    found = desk.bank.by_reference("paystack", account.name, reference)
    if found is None:
        raise objects.turn("Transaction reference is invalid", "transaction_not_found")
    if found.waits != "otp":
        words = "Transaction is not waiting for an OTP"
        raise Turned(objects.error(400, words, code="invalid_transaction_state", type_="api_error"))
    refused = desk.trouble.take("paystack", "otp", "otp_wrong") is not None
    if desk.bank.code(found, otp, refused=refused) == "wrong":
        raise objects.turn("Incorrect OTP. Please try again", "incorrect_otp")
    return objects.said("Charge attempted", objects.attempt(desk, found))


def _known(desk: Desk, account: Account, name: str) -> Charge:
    name = unquote(name)
    found = desk.bank.by_reference("paystack", account.name, name)
    if found is None and name.isdigit():
        by_id = desk.bank.find("paystack", name)
        found = by_id if by_id and by_id.account == account.name else None
    if found is None:
        raise objects.turn("Transaction reference not found.", "transaction_not_found")
    return found


def verify(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /transaction/verify/{reference}` and `GET /transaction/{id}`."""
    return objects.said(
        "Verification successful", objects.transaction(desk, _known(desk, account, asked.parts["name"]))
    )


def check(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /charge/{reference}`: how a charge stands."""
    return objects.said("Reference check successful", objects.attempt(desk, _known(desk, account, asked.parts["name"])))


def transactions(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /transaction`, the newest first."""
    query = asked.queries()
    wanted, since_ms, until_ms = query.get("status", ""), _time(query.get("from")), _time(query.get("to"))
    within = [
        one
        for one in desk.bank.of("paystack", account.name)
        if (since_ms is None or one.created_ms >= since_ms) and (until_ms is None or one.created_ms <= until_ms)
    ]
    found = [one for one in (objects.transaction(desk, one) for one in within) if wanted in ("", one["status"])]
    return listed("Transactions retrieved", found, asked)


def _time(given: str | None) -> int | None:
    """ms of a time in a query."""
    if given is None:
        return None
    try:
        at = datetime.fromisoformat(given)
    except ValueError:
        raise objects.turn("Invalid from or to") from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def listed(message: str, found: Sequence[object], asked: Asked) -> Said:
    """The page of a list that was asked for."""
    query = asked.queries()
    size, page = query.get("perPage", "50"), query.get("page", "1")
    if not (size.isdigit() and page.isdigit()) or not 0 < int(size) <= PAGE_MAX or not 0 < int(page) <= 10_000:
        raise objects.turn("Invalid perPage or page")
    begin = (int(page) - 1) * int(size)
    meta = {"total": len(found), "perPage": int(size), "page": int(page), "pageCount": -(-len(found) // int(size))}
    return objects.said(message, found[begin : begin + int(size)], meta=meta)


# --- refunds ------------------------------------------------------------------------------------------


def refund(desk: Desk, account: Account, asked: Asked) -> Said:
    """`POST /refund` of a paid transaction, all that is left by default."""
    said = body_of(asked)
    name = said.get("transaction")
    if not isinstance(name, str | int) or isinstance(name, bool) or not str(name):
        raise objects.turn("transaction is required", "missing_params")
    try:
        found = _known(desk, account, str(name))
    except Turned:
        raise objects.turn("Transaction not found", "transaction_not_found", 404) from None
    if said.get("currency") not in (None, found.currency):
        raise objects.turn("Currency does not match the transaction's", "invalid_currency")
    rest = found.captured_minor - found.refunded_minor
    amount = rest if said.get("amount") is None else amount_of(said, found.currency)
    if found.state != "succeeded":
        raise objects.turn("Transaction has not been paid", "invalid_transaction_state")
    if rest <= 0:
        raise objects.turn("Transaction has been fully reversed", "transaction_reversed")
    if amount > rest:
        raise objects.turn("Refund amount cannot be more than the transaction amount", "invalid_amount")
    fails = desk.trouble.take("paystack", "refund", "refund_fails_later") is not None
    note = text_of(said, "merchant_note", needed=False)
    made = desk.bank.refund(found, Refund(desk.digits(7), amount, fails_later=fails, note=note))
    return objects.said("Refund has been queued for processing", objects.refunded(desk, found, made))


def refunds(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /refund`, of one transaction or all."""
    wanted = asked.queries().get("transaction")
    of = [_known(desk, account, wanted)] if wanted else desk.bank.of("paystack", account.name)
    # In a list an item names its transaction by the number alone, as in the documented sample.
    found = [
        objects.refunded(desk, one, back) | {"transaction": int(one.id)} for one in of for back in reversed(one.refunds)
    ]
    return listed("Refunds retrieved", found, asked)


def one_refund(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /refund/{id}`."""
    for one in desk.bank.of("paystack", account.name):
        for back in one.refunds:
            if back.id == asked.parts["name"]:
                return objects.said("Refund retrieved", objects.refunded(desk, one, back))
    raise objects.turn("Refund not found", "refund_not_found", 404)


# --- callbacks and pages ------------------------------------------------------------------------------


def letters(desk: Desk, happening: Happening) -> Sequence[Letter]:
    """`charge.success` and the refunds; a decline or an abandoned page is told by nothing."""
    charge, refund = happening.charge, happening.refund
    if happening.word == "succeeded":
        whole = objects.transaction(desk, charge)
        named = {"id": charge.id, "reference": charge.reference, "currency": charge.currency}
        return [Letter("charge.success", named | {f"data.{name}": value for name, value in whole.items()})]
    if refund is None:
        return ()
    account = desk.account_of(charge)
    fields = {
        "reference": charge.reference,
        "currency": charge.currency,
        "refunded": str(refund.amount_minor),
        # Nobody says what `refund_reference` is to the refund's id in the API; here they are the same.
        "refund": refund.id,
        "live": "true" if account and account.live else "false",
    }
    return [Letter(f"refund.{objects.REFUNDS[refund.state]}", fields)]


def back(desk: Desk, charge: Charge, choice: Choice) -> str:
    """`callback_url?trxref=…&reference=…`; who abandons goes to `cancel_action`."""
    if choice == "abandon" and charge.cancel_url:
        return charge.cancel_url
    if not charge.return_url:
        return ""
    query = urlencode({"trxref": charge.reference, "reference": charge.reference})
    return f"{charge.return_url}{'&' if '?' in charge.return_url else '?'}{query}"


_NAME: Final = r"(?P<name>[^/]{1,300})"

API = Api(
    name="paystack",
    routes=(
        Route("create", "POST", "/transaction/initialize", initialize),
        Route("create", "POST", "/charge", charge),
        Route("otp", "POST", "/charge/submit_otp", submit_otp),
        Route("fetch", "GET", f"/charge/{_NAME}", check),
        Route("fetch", "GET", f"/transaction/verify/{_NAME}", verify),
        Route("fetch", "GET", r"/transaction/(?P<name>\d{1,20})", verify),
        Route("fetch", "GET", "/transaction", transactions),
        Route("refund", "POST", "/refund", refund),
        Route("fetch", "GET", "/refund", refunds),
        Route("fetch", "GET", r"/refund/(?P<name>\d{1,20})", one_refund),
    ),
    enter=enter,
    error=objects.error,
    letters=letters,
    back=back,
)
