"""
eBilling v1 with Basic, as far as caisse calls it: a bill, the prompt on a phone, the portal, and the unsigned callback.

Facts marked [SDK] are read in the official WooCommerce plugin, [3p] in others' code, [unv] nowhere. Amounts are whole
francs (XAF). A bill knows no idempotency, no cancel and no refund; only its paying is told, to the one address in the
profile. A prompt that is declined or lapses ends the bill [unv]: whether it stays payable is documented nowhere.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping
from typing import Any, Final

from service.payments import money
from service.payments.facts import Reason
from service.sandbox import pages
from service.sandbox.bank import Charge, Happening, State
from service.sandbox.desk import Account, Api, Asked, Choice, Desk, Letter, Route, Said, Turned, integer, utc

NAME: Final = "ebilling"
CURRENCY: Final = "XAF"
DIAL: Final = "241"
BILLS: Final = "/api/v1/merchant/e_bills"
AMOUNT_MAX: Final = 10**9  # francs [unv]
EXPIRY_MINUTES: Final = 60  # where none is named; 0 is never [SDK]
EXPIRY_MINUTES_MAX: Final = 60 * 24 * 365  # [unv]
CHARACTERS_MAX: Final = 255  # of each text [unv]
PER_PAGE, PER_PAGE_MAX = 25, 100  # [unv]

# --- tables -----------------------------------------------------------------------------------------

SYSTEMS: Mapping[str, str] = {"airtelmoney": "07", "moovmoney4": "06", "moovmoney1": "06"}
"""`payment_system_name` of a prompt, and how its operator's numbers begin [3p]."""

CARD: Final = "ORABANK_NG"

STATES: Mapping[State, str] = {
    "created": "ready",
    "waiting": "ready",
    "pending": "in_progress",
    "succeeded": "processed",
    "failed": "failed",
    "canceled": "cancelled",
    "expired": "expired",
}

REASONS: Mapping[Reason, str] = {
    Reason.INSUFFICIENT_FUNDS: "Insufficient balance",
    Reason.LIMIT_REACHED: "Transaction limit reached",
    Reason.WRONG_PIN: "Wrong PIN",
    Reason.TIMED_OUT: "Request timed out",
    Reason.DECLINED_BY_USER: "Rejected by the subscriber",
    Reason.NO_WALLET: "Subscriber not registered",
    Reason.NUMBER_MISMATCH: "MSISDN and operator mismatch",
    Reason.PROVIDER_UNAVAILABLE: "Operator unavailable",
}
"""`reason` of a failed bill; its texts are documented nowhere."""

REQUIRED: Final = ("payer_msisdn", "amount", "short_description")
TEXTS: Final = (
    *("payer_email", "payer_name", "payer_address", "payer_city", "external_reference", "client_transaction_id"),
    *("additional_info", "description", "due_date"),
)

# --- who asks ---------------------------------------------------------------------------------------


def error(status: int, words: str, **fields: str) -> Said:
    """A `message`, and the fields that are wrong; seen are only the statuses 401, 406 and 422 [3p]."""
    errors = {name: [said] for name, said in fields.items()}
    return Said(status, {"message": words} | ({"errors": errors} if errors else {}))


def _unfit(name: str, words: str) -> Turned:
    return Turned(error(422, "Unprocessable Entity", **{name: words}))


def _enter(desk: Desk, asked: Asked) -> Account:
    """Basic `username:SharedKey` [SDK]; the portal is for anybody who has a bill's number."""
    if not asked.path.startswith(BILLS):
        charge = desk.bank.find(NAME, _invoice(asked))
        account = desk.account_of(charge) if charge else None
        if account is None:
            raise Turned(Said(404, pages.plain("404", "Facture introuvable · There is no such bill")))
        return account
    word, _, given = asked.headers.get("authorization", "").partition(" ")
    try:
        user, _, key = base64.b64decode(given.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        user = key = ""
    account = desk.account(NAME, "username", user) if word.lower() == "basic" else None
    keys = account.credentials.get("shared_key", ()) if account else ()
    if account is None or not any(one and hmac.compare_digest(one.encode(), key.encode()) for one in keys):
        raise Turned(error(401, "HTTP Basic: Access denied."))
    return account


# --- a bill -----------------------------------------------------------------------------------------


def _create(desk: Desk, account: Account, asked: Asked) -> Said:
    """201 with the whole bill under `e_bill` [3p]."""
    body = asked.json()
    if body is None:
        raise Turned(error(422, "The body is not a JSON object."))
    for name in REQUIRED:
        if body.get(name) in (None, ""):
            raise _unfit(name, "can't be blank")
    for name in ("email", "sms"):
        if not isinstance(body.get(name, False), bool):
            raise _unfit(name, "is not a boolean")
    if body.get("currency", CURRENCY) != CURRENCY:
        raise _unfit("currency", f"is not {CURRENCY}")
    number = _number(body["payer_msisdn"])
    amount = _whole("amount", body["amount"], 1, AMOUNT_MAX)
    minutes = _whole("expiry_period", body.get("expiry_period", EXPIRY_MINUTES), 0, EXPIRY_MINUTES_MAX)
    texts = {name: _text(name, body.get(name)) for name in ("short_description", *TEXTS)}
    charge = Charge(
        _free_number(desk),
        NAME,
        account.name,
        amount * 10 ** money.exponent(CURRENCY),
        CURRENCY,
        reference=texts["external_reference"] or "",
        country="GA",
        phone=number,
        expires_ms=desk.clock() + minutes * 60_000 if minutes else None,
        asked={**texts, "payer_msisdn": str(body["payer_msisdn"]), "expiry_period": minutes},
    )
    desk.bank.begin(charge)
    said = {
        "client_transaction_id": texts["client_transaction_id"],
        "server_transaction_id": desk.letters(20),
        "e_bill": _bill(account, charge),
    }
    return Said(201, said)


def _free_number(desk: Desk) -> str:
    """Numbers are so short that one may be taken."""
    while True:
        number = "555" + desk.digits(7)
        if desk.bank.find(NAME, number) is None:
            return number


def _number(given: object) -> str:
    """A number as people in Gabon write it (077…), or with its country; as the bank knows it, with its country."""
    digits = str(given) if isinstance(given, str) or integer(given) is not None else ""
    if re.fullmatch(r"0[1-9]\d{7}", digits, re.ASCII):
        return DIAL + digits[1:]
    if not re.fullmatch(r"[1-9]\d{9,14}", digits, re.ASCII):
        raise _unfit("payer_msisdn", "is invalid")
    return DIAL + digits.removeprefix(DIAL).removeprefix("0") if digits.startswith(DIAL) else digits


def _whole(name: str, given: object, least: int, most: int) -> int:
    """A whole number, or one as text as the plugin sends it [SDK]."""
    text = isinstance(given, str) and re.fullmatch(r"\d{1,12}", given, re.ASCII)
    found = int(given) if text and isinstance(given, str) else integer(given)
    if found is None or not least <= found <= most:
        raise _unfit(name, f"must be a whole number between {least} and {most}")
    return found


def _text(name: str, given: object) -> str | None:
    """The plugin sends its order's number as a number [SDK]."""
    if given is None:
        return None
    if not isinstance(given, str) and integer(given) is None:
        raise _unfit(name, "is not a text")
    if len(str(given)) > CHARACTERS_MAX:
        raise _unfit(name, f"is longer than {CHARACTERS_MAX} characters")
    return str(given)


def _bill(account: Account, charge: Charge) -> dict[str, Any]:
    """The fields of "REST API Function Specification v1.9" [3p]."""
    asked, paid = charge.asked, charge.captured_minor
    nothing = ("schedule_at", "minimum_amount", "payer_id", "payer_code", *(f"data{number}" for number in range(10)))
    return {
        "bill_id": charge.id,
        "payer_msisdn": asked["payer_msisdn"],
        "payee_id": account.name,
        "payee_name": account.name,
        "amount": _major(charge.amount_minor),
        "currency": charge.currency,
        "state": STATES[charge.state],
        "created_at": utc(charge.created_ms),
        "updated_at": utc(charge.changed_ms),
        "expire_at": utc(charge.expires_ms),
        "expiry_period": asked["expiry_period"],
        "short_description": asked["short_description"],
        "reason": REASONS.get(charge.reason, "Payment failed") if charge.reason else None,
        "accept_partial_payment": False,
        "amount_paid": _major(paid),
        "ps_transaction_id": _transaction(charge) if paid else None,
        "payment_system_name": charge.operator,
        **{name: asked[name] for name in TEXTS if name != "client_transaction_id"},
        **dict.fromkeys(nothing),
    }


def _major(amount_minor: int) -> int:
    return int(money.to_major(amount_minor, CURRENCY))


def _transaction(charge: Charge) -> str:
    return f"TXN{charge.id}"


def _get(desk: Desk, account: Account, asked: Asked) -> Said:
    """The bill itself, without an envelope [3p ×2]."""
    return Said(200, _bill(account, _charge(desk, account, asked)))


def _charge(desk: Desk, account: Account, asked: Asked) -> Charge:
    found = desk.bank.find(NAME, asked.parts["id"])
    if found is None or found.account != account.name:
        raise Turned(error(404, "e_bill not found"))
    return found


def _list(desk: Desk, account: Account, asked: Asked) -> Said:
    """A page of all bills, the newest first [3p: the fields; the order is unv]."""
    query = asked.queries()
    page = _whole("page", query.get("page", "1"), 1, 10**6)
    size = _whole("per_page", query.get("per_page", str(PER_PAGE)), 1, PER_PAGE_MAX)
    bills = desk.bank.of(NAME, account.name)
    shown = [_bill(account, charge) for charge in bills[(page - 1) * size : page * size]]
    return Said(200, {"current_page": page, "per_page": size, "total_entries": len(bills), "entries": shown})


# --- paying it --------------------------------------------------------------------------------------


def _push(desk: Desk, account: Account, asked: Asked) -> Said:
    """202: the phone rings; 406 for another operator's number [3p ×2]."""
    charge, body = _charge(desk, account, asked), asked.json() or {}
    for name in ("payer_msisdn", "payment_system_name"):
        if body.get(name) in (None, ""):
            raise _unfit(name, "can't be blank")
    number, system = _number(body["payer_msisdn"]), body["payment_system_name"]
    if system not in SYSTEMS:
        raise _unfit("payment_system_name", "is not included in the list")
    if not f"0{number.removeprefix(DIAL)}".startswith(SYSTEMS[system]):
        raise Turned(error(406, "MSISDN and payment system mismatch"))
    if not charge.live:
        raise Turned(error(406, f"e_bill is {STATES[charge.state]}"))
    charge.phone, charge.operator, charge.method = number, system, "mobile_money"
    desk.bank.ask(charge, "approval")
    return Said(202, {"message": "Accepted"})


def _portal(desk: Desk, account: Account, asked: Asked) -> Said:
    """
    `/checkoutnow?invoice_number&merchant_redirect_url` [SDK], and the older `/?invoice&redirect_url` [3p], which with
    `operator` goes straight to that one's page. What waits on a phone goes on waiting beside it.
    """
    query, charge = asked.queries(), desk.bank.find(NAME, _invoice(asked))
    assert charge is not None, "it was looked for at the door"
    if charge.live:
        charge.return_url = query.get("merchant_redirect_url") or query.get("redirect_url") or charge.return_url
        if query.get("operator") == CARD:
            charge.operator, charge.method = CARD, "card"
        if charge.state == "created":
            desk.bank.ask(charge, "page")
    return Said(303, b"", {"Location": desk.page(charge)})


def _invoice(asked: Asked) -> str:
    query = asked.queries()
    return query.get("invoice_number") or query.get("invoice", "")


def _back(desk: Desk, charge: Charge, choice: Choice) -> str:
    """Where the merchant said, whatever became of it: coming back proves nothing."""
    return charge.return_url


# --- telling ----------------------------------------------------------------------------------------


def _letters(desk: Desk, happening: Happening) -> list[Letter]:
    """Only that it was paid [SDK]; nothing in it is signed."""
    charge = happening.charge
    if happening.word != "succeeded":
        return []
    fields = {
        "id": charge.id,
        "reference": charge.reference,
        "amount": charge.captured_minor,
        "customer": charge.asked["payer_name"] or "",
        "phone": f"0{charge.phone.removeprefix(DIAL)}" if charge.phone.startswith(DIAL) else charge.phone,
        "operator": charge.operator or "airtelmoney",
        "form.transactionid": _transaction(charge),
    }
    return [Letter("paid", fields)]


_BILL: Final = BILLS + r"/(?P<id>[0-9]{1,30})"
API: Final = Api(
    name=NAME,
    routes=(
        Route("create", "POST", BILLS + r"(?:\.json)?", _create),
        Route("fetch", "GET", BILLS + r"(?:\.json)?", _list),
        Route("fetch", "GET", _BILL + r"(?:\.json)?", _get),
        # The second call of the same wish: a name of its own, so that trouble can strike it alone.
        Route("otp", "POST", _BILL + r"/ussd_push(?:\.json)?", _push),
        Route("fetch", "GET", "/checkoutnow", _portal),
        Route("fetch", "GET", "/", _portal),
    ),
    enter=_enter,
    error=error,
    letters=_letters,
    back=_back,
)
