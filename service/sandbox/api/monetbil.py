"""
Monetbil, as far as caisse calls it: the widget, placePayment, checkPayment, and the notifications.

Facts marked [SDK] are read in monetbil-php, [docs] in its public pages, [3p] in others' code, [unv] nowhere. It takes
whole major units, knows no idempotency (whoever asks twice has two payments), and checkPayment asks for no credential.
With which HTTP status it says `status` is [unv]: 200 here, where nobody is spared reading the body.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote, urlencode

from service.payments import money
from service.payments.facts import Reason
from service.sandbox.bank import Charge, Happening, State
from service.sandbox.desk import Account, Api, Asked, Choice, Desk, Letter, Route, Said, Turned

NAME: Final = "monetbil"
AMOUNT_MAX: Final = 10**9  # major units [unv]
FEE_PERCENT: Final = 2  # [unv]

# --- tables -----------------------------------------------------------------------------------------

COUNTRIES: Mapping[str, tuple[str, str, str]] = {
    "CM": ("237", "XAF", "CAMEROON"),
    "CG": ("242", "XAF", "CONGO"),
    "GA": ("241", "XAF", "GABON"),
    "SN": ("221", "XOF", "SENEGAL"),
    "BJ": ("229", "XOF", "BENIN"),
    "GN": ("224", "GNF", "GUINEA"),
    "CD": ("243", "CDF", "CONGO, THE DEMOCRATIC REPUBLIC OF THE"),
}
"""Where it takes money: dialled with, in what, and the name [docs by way of 3p]."""

OPERATORS: Mapping[str, tuple[str, str]] = {
    "MTNMOBILEMONEY": ("MTN Mobile Money", "*126#"),
    "ORANGEMONEY": ("Orange Money", "#150*50#"),
    "EUMM": ("Express Union Mobile Money", "*050#"),
    "MOOVMONEY": ("Moov Money", "*155#"),
    "AIRTELMONEY": ("Airtel Money", "*501#"),
}
"""What follows the country in an operator's code: its name, and what the payer dials [docs sample for MTN, unv]."""

WHERE: Mapping[str, Sequence[str]] = {
    "CM": ("MTNMOBILEMONEY", "ORANGEMONEY", "EUMM"),
    "CG": ("MTNMOBILEMONEY", "AIRTELMONEY"),
    "GA": ("MOOVMONEY", "AIRTELMONEY"),
    "SN": ("ORANGEMONEY",),
    "BJ": ("MTNMOBILEMONEY", "MOOVMONEY"),
    "GN": ("MTNMOBILEMONEY", "ORANGEMONEY"),
    "CD": ("ORANGEMONEY", "AIRTELMONEY"),
}

FINAL: Mapping[State, tuple[str, str, str, str]] = {
    # state: status, status in test mode, event of the notification, message
    "succeeded": ("1", "7", "success", "Transaction successful."),
    "failed": ("0", "8", "failed", "Payment failed."),
    "expired": ("0", "8", "failed", "Waiting time expired."),
    "canceled": ("-1", "9", "cancelled", "Transaction cancelled."),
}
REFUNDED: Final = "-2"

MESSAGES: Mapping[Reason, str] = {
    Reason.INSUFFICIENT_FUNDS: "Insufficient balance.",
    Reason.LIMIT_REACHED: "Transaction limit reached.",
    Reason.WRONG_PIN: "Wrong pin.",
    Reason.TIMED_OUT: "Waiting time expired.",
    Reason.DECLINED_BY_USER: "Rejected by the subscriber.",
    Reason.NO_WALLET: "Subscriber not registered.",
    Reason.NUMBER_MISMATCH: "Invalid msisdn.",
    Reason.PROVIDER_UNAVAILABLE: "Operator unavailable.",
}
"""`message` of a failed one; only that of the waiting time is known [docs]."""

WIDGET: Final = "/widget/v2.1/"
PLACE: Final = "/payment/v1/placePayment"
CHECK: Final = "/payment/v1/checkPayment"
REQUIRED: Mapping[str, Sequence[str]] = {
    WIDGET: ("amount",),
    PLACE: ("service", "phonenumber", "amount"),
    CHECK: ("paymentId",),
}
ECHOED: Final = ("item_ref", "payment_ref", "user", "first_name", "last_name", "email")

# --- who asks ---------------------------------------------------------------------------------------


def error(status: int, words: str) -> Said:
    """How it says that something is wrong with no field of the request."""
    return Said(status, {"status": "SERVER_ERROR" if status >= 500 else "ERROR", "message": words})


def _enter(desk: Desk, asked: Asked) -> Account:
    """By the service key, in the path or the body; checkPayment asks for none, and its payment says whose it is."""
    fields = fields_of(asked)
    path = WIDGET if asked.path.startswith(WIDGET) else asked.path
    lacking = [name for name in REQUIRED[path] if not fields.get(name)]
    if lacking:
        raise unfit(**dict.fromkeys(lacking, "The {} field is required."))
    if path == CHECK:
        found = _charge(desk, fields["paymentId"])
        account = desk.account_of(found) if found else None
        account = account or next((one for one in desk.accounts if one.provider == NAME), None)
    else:
        key = unquote(asked.path.removeprefix(WIDGET)) if path == WIDGET else fields["service"]
        account = desk.account(NAME, "service_key", key)
    if account is None:
        raise Turned(refused("SERVICE_NOT_FOUND", "Service not found."))  # [3p]
    return account


def fields_of(asked: Asked) -> dict[str, str]:
    """A form or JSON [docs]; whole numbers of JSON as text, and what is neither as nothing that is valid."""
    if asked.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return asked.form() or {}
    given = asked.json() or {}
    return {name: str(value) for name, value in given.items() if value is not None and value != ""}


def unfit(**fields: str) -> Turned:
    """422 with a list of sentences by field [docs]."""
    said = {name: [words.format(re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower())] for name, words in fields.items()}
    return Turned(Said(422, said))


def refused(status: str, words: str) -> Said:
    """A no in an answer of 200."""
    return Said(200, {"success": False, "status": status, "message": words})


# --- taking money -----------------------------------------------------------------------------------


def _widget(desk: Desk, account: Account, asked: Asked) -> Said:
    """`{success: true, payment_url}` [SDK]. Who will pay is asked on the page, so no number is said yet."""
    fields = fields_of(asked)
    country, amount_minor, currency = _sum(fields, fields.get("country", "CM"))
    if "sign" in fields and fields["sign"] not in _signs(account, fields):
        raise Turned(Said(403, {"success": False, "message": "Invalid signature"}))
    charge = _begin(desk, account, fields, country, amount_minor, currency, fields.get("phone", ""))
    charge.left_as = "canceled"  # the page's own button; the return address knows `cancelled` [SDK]
    desk.bank.ask(charge, "page")
    return Said(200, {"success": True, "payment_url": desk.page(charge)})


def _signs(account: Account, fields: Mapping[str, str]) -> list[str]:
    """`sign`: the MD5 of a secret and all values in the order of their names, nothing between [SDK]."""
    values = "".join(value for name, value in sorted(fields.items()) if name != "sign")
    secrets = [secret for secret in account.credentials.get("service_secrets", ()) if secret]
    return [hashlib.md5((secret + values).encode(), usedforsecurity=False).hexdigest() for secret in secrets]


def _place(desk: Desk, account: Account, asked: Asked) -> Said:
    """A prompt on the phone: REQUEST_ACCEPTED, the payment's number, and what the payer dials [docs]."""
    fields = fields_of(asked)
    number, operator = fields["phonenumber"], fields.get("operator", "")
    if operator and operator not in codes():
        raise unfit(operator="The selected {} is invalid.")
    country = operator.partition("_")[0] or fields.get("country") or _country(number)
    country, amount_minor, currency = _sum(fields, country)
    dial = COUNTRIES[country][0]
    if not re.fullmatch(rf"({dial})?\d{{8,10}}", number, re.ASCII):
        raise Turned(refused("INVALID_MSISDN", "Invalid msisdn."))  # [docs]
    operator = operator or f"{country}_{WHERE[country][0]}"
    msisdn = number if number.startswith(dial) else dial + number
    charge = _begin(desk, account, fields, country, amount_minor, currency, msisdn)
    charge.operator = operator
    desk.bank.ask(charge, "approval")
    name, ussd = OPERATORS[operator.partition("_")[2]]
    return Said(
        200,
        {
            "status": "REQUEST_ACCEPTED",
            "message": "payment pending",
            "flow": "FLOW_PIN_USSD",
            "channel_ussd": ussd,
            "channel_name": name,
            "channel": operator,
            "paymentId": charge.id,
        },
    )


def codes() -> list[str]:
    """Every operator with its country, as `CM_MTNMOBILEMONEY`."""
    return [f"{country}_{end}" for country, ends in WHERE.items() for end in ends]


def _country(number: str) -> str:
    """Of an international number; Cameroon's where it says nothing."""
    return next((name for name, (dial, _, _) in COUNTRIES.items() if number.startswith(dial)), "CM")


def _sum(fields: Mapping[str, str], country: str) -> tuple[str, int, str]:
    """Country, amount in minor units and currency: whole units of the country's own."""
    if country not in COUNTRIES or fields.get("country", country) != country:
        raise unfit(country="The selected {} is invalid.")
    currency = COUNTRIES[country][1]
    if fields.get("currency", currency) != currency:
        raise unfit(currency="The selected {} is invalid.")
    amount = fields["amount"]
    if not re.fullmatch(r"\d{1,12}", amount, re.ASCII):
        raise unfit(amount="The {} must be an integer.")
    if not 0 < int(amount) <= AMOUNT_MAX:
        raise unfit(amount=f"The {{}} must be between 1 and {AMOUNT_MAX}.")
    return country, int(amount) * 10 ** money.exponent(currency), currency


def _begin(
    desk: Desk, account: Account, fields: Mapping[str, str], country: str, amount_minor: int, currency: str, phone: str
) -> Charge:
    charge = Charge(
        desk.digits(20),
        NAME,
        account.name,
        amount_minor,
        currency,
        reference=fields.get("payment_ref") or fields.get("item_ref", ""),
        method="mobile_money",
        country=country,
        phone=phone,
        return_url=fields.get("return_url", ""),
        callback_url=fields.get("notify_url", ""),
        asked=dict(fields),
    )
    return desk.bank.begin(charge)


# --- what became of it ------------------------------------------------------------------------------


def _check(desk: Desk, account: Account, asked: Asked) -> Said:
    """Nothing but "payment pending" until it is final; then the whole transaction, all of it text."""
    number = fields_of(asked)["paymentId"]
    charge = _charge(desk, number)
    if charge is None:
        return Said(404, {"paymentId": number, "message": "payment not found"})  # [unv]
    if charge.live:
        return Said(200, {"paymentId": number, "message": "payment pending"})
    return Said(200, {"paymentId": number, "message": "payment finish", "transaction": _transaction(account, charge)})


def _charge(desk: Desk, number: str) -> Charge | None:
    return desk.bank.find(NAME, number)


def _transaction(account: Account, charge: Charge) -> dict[str, str | None]:
    live, test, _, _ = FINAL[charge.state]
    gone = charge.captured_minor and charge.refunded_minor >= charge.captured_minor
    amount_minor = charge.captured_minor or charge.amount_minor
    fee_minor = _fee_minor(charge)
    dial, _, name = COUNTRIES[charge.country]
    return {
        "transaction_UUID": charge.id,
        "start_time": _seconds(charge.created_ms),
        "end_time": _seconds(charge.ended_ms),
        "msisdn": charge.phone or None,
        "mobile_operator_name": _operator(charge),
        "mobile_operator_code": charge.operator or None,
        "country_name": name,
        "country_code": dial,
        "country_iso": charge.country,
        "amount": in_major(amount_minor, charge.currency),
        "fee": in_major(fee_minor, charge.currency),
        "revenue": in_major(amount_minor - fee_minor, charge.currency),
        "currency": charge.currency,
        "status": REFUNDED if gone else live if account.live else test,
        "message": "payment refunded" if gone else _message(charge),
        # Whose service it is stands in the kept query of the first request alone [docs sample].
        "query_string": json.dumps(charge.asked | {"service": _service(account)}),
        "operator_transaction_id": f"MP{charge.id[-12:]}" if charge.captured_minor else None,
        "return_url": charge.return_url or None,
        "notify_url": charge.callback_url,
        "testmode": "0" if account.live else "1",
        **{key: charge.asked.get(key) or None for key in ECHOED},
    }


def _message(charge: Charge) -> str:
    said = FINAL[charge.state][3]
    return MESSAGES.get(charge.reason, said) if charge.state == "failed" and charge.reason else said


def _fee_minor(charge: Charge) -> int:
    step = int(10 ** money.exponent(charge.currency))
    return charge.captured_minor * FEE_PERCENT // 100 // step * step


def _service(account: Account) -> str:
    return next(iter(account.credentials.get("service_key", ())), "")


def _operator(charge: Charge) -> str:
    return OPERATORS.get(charge.operator.partition("_")[2], ("", ""))[0]


def in_major(amount_minor: int, currency: str) -> str:
    """Whole, as it was asked for; with a fraction only where trouble took another amount."""
    found = money.to_major(amount_minor, currency)
    return str(int(found) if found == found.to_integral_value() else found)


def _seconds(at_ms: int | None) -> str | None:
    return None if at_ms is None else f"{at_ms // 1000}.{at_ms % 1000:03}0"


# --- telling ----------------------------------------------------------------------------------------


def _letters(desk: Desk, happening: Happening) -> list[Letter]:
    """One notification, when it is final."""
    charge, account = happening.charge, desk.account_of(happening.charge)
    if happening.word not in FINAL or account is None:
        return []
    dial, _, name = COUNTRIES[charge.country]
    fields: dict[str, Any] = {
        "id": charge.id,
        "reference": charge.reference,
        "amount": charge.captured_minor or charge.amount_minor,
        "currency": charge.currency,
        "fee": _fee_minor(charge),
        "live": "true" if account.live else "false",
        "time_ms": happening.at_ms,
        "phone": charge.phone,
        "operator": _operator(charge),
        "reason": _message(charge),
        "form.country_name": name,
        "form.country_iso": charge.country,
        "form.country_code": dial,
        **{f"form.{key}": charge.asked.get(key, "") for key in ECHOED},
    }
    return [Letter(FINAL[charge.state][2], fields)]


def _back(desk: Desk, charge: Charge, choice: Choice) -> str:
    """The return address with what became of it, signed like a notification [SDK]."""
    account = desk.account_of(charge)
    if not charge.return_url or account is None:
        return ""
    said = {
        "transaction_id": charge.id,
        "status": FINAL[charge.state][2] if charge.state in FINAL else "cancelled",
        "phone": charge.phone,
        **{key: charge.asked.get(key, "") for key in ECHOED},
    }
    signs = _signs(account, said)
    join = "&" if "?" in charge.return_url else "?"
    return charge.return_url + join + urlencode(said | ({"sign": signs[0]} if signs else {}))


API: Final = Api(
    name=NAME,
    routes=(
        Route("create", "POST", re.escape(WIDGET) + r"[^/]{1,300}", _widget),
        Route("create", "POST", PLACE, _place),
        Route("fetch", "POST", CHECK, _check),
    ),
    enter=_enter,
    error=error,
    letters=_letters,
    back=_back,
)
