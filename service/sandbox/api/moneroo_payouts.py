"""
Moneroo's payouts: initialize, verify, retrieve, and `payout.*` webhooks. There is no reference of ours, no idempotency
and no balance to be asked [docs]: whoever asks twice has paid twice.

No status is documented for money that came back: here the payout is `failed` after its success. How a balance that is
too small is said is [unv].
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from service.payments import money
from service.sandbox.api import moneroo
from service.sandbox.desk import Account, Asked, Desk, Letter, Route, Said, Turned, integer, utc
from service.sandbox.treasury import Fate, Moved, Payout

NAME: Final = moneroo.NAME
METHODS: Mapping[str, frozenset[str]] = {
    currency: frozenset(code for code in codes.split() if not re.match("card_|crypto_|bank_|qr_|ussd_", code))
    for currency, codes in (
        {**moneroo.METHODS, "XOF": moneroo.METHODS["XOF"] + " djamo_ci", "USD": "moneroo_payout_demo"}
    ).items()
}
"""Codes by currency [docs]; accounts at banks are paid by none of these."""

FATES: Mapping[str, Fate] = {
    "4149518161": Fate(),
    "4149518162": Fate(fails=True),
    "4149518163": Fate(slow_ms=None),
}
"""Test numbers of payouts: success, failed, pending for ever [docs; those of payments mean something else]."""

STATUS: Mapping[str, str] = {
    "created": "initiated",
    "otp": "initiated",
    "queued": "initiated",
    "in_transit": "pending",
    "paid": "success",
    "failed": "failed",
    "returned": "failed",
}
EVENTS: Mapping[str, str] = {
    "created": "payout.initiated",
    "paid": "payout.success",
    "failed": "payout.failed",
    "returned": "payout.failed",
}
FAILURES: Mapping[str, str] = {"rejected": "Recipient not found", "sent_back": "Payout was returned"}
"""`disburse.failure_message`; the words are documented nowhere."""

REQUIRED: Final = (
    *("amount", "currency", "description", "method", "recipient", "customer"),
    *("customer.email", "customer.first_name", "customer.last_name"),
)


def initialize(desk: Desk, account: Account, asked: Asked) -> Said:
    """`POST /v1/payouts/initialize`: 201 with the payout's id and nothing else [docs]."""
    body = asked.json()
    if body is None:
        raise Turned(moneroo.error(400, "The request body is not valid JSON."))
    amount_minor, currency = _sum(body)
    _customer(body["customer"])
    if not isinstance(body["description"], str) or len(body["description"]) > moneroo.CHARACTERS_MAX:
        raise moneroo.unfit(422, description="The description must be a string of at most 255 characters.")
    metadata = moneroo.metadata_of(body.get("metadata"))
    payee = _payee(body["recipient"])
    payout = Payout(
        id=f"po_{desk.letters(12).lower()}",
        provider=NAME,
        account=account.name,
        amount_minor=amount_minor,
        currency=currency,
        # It has no field for the merchant's own name of it; where metadata has one, the book shows that.
        reference=metadata.get("reference", ""),
        payee=payee,
        asked=body | {"metadata": metadata},
    )
    if not desk.treasury.enough(payout):
        raise Turned(moneroo.error(400, "Insufficient balance."))
    desk.treasury.begin(payout)
    desk.treasury.send(payout, fate=FATES.get(payee))
    return moneroo.envelope(201, "Payout transaction initialized successfully", {"id": payout.id})


def _sum(body: Mapping[str, Any]) -> tuple[int, str]:
    """What is there at all, then amount in minor units and currency."""
    customer = body.get("customer")
    named = {f"customer.{name}": value for name, value in customer.items()} if isinstance(customer, dict) else {}
    given = {**body, **named}
    lacking = [name for name in REQUIRED if given.get(name) in (None, "", {})]
    if lacking:
        raise moneroo.unfit(400, **{name: f"The {name} field is required." for name in lacking})
    currency, method, amount = body["currency"], body["method"], integer(body["amount"])
    if not isinstance(currency, str) or currency not in METHODS:
        raise moneroo.unfit(422, currency="The selected currency is invalid.")
    if not isinstance(method, str) or method not in METHODS[currency]:
        raise moneroo.unfit(422, method="The selected method is invalid.")
    if amount is None or not 0 < amount <= moneroo.AMOUNT_MAX:
        raise moneroo.unfit(422, amount=f"The amount must be an integer between 1 and {moneroo.AMOUNT_MAX}.")
    return amount * 10 ** money.exponent(currency), currency


def _customer(customer: Mapping[str, Any]) -> None:
    for name in ("email", "first_name", "last_name"):
        if not isinstance(customer[name], str) or len(customer[name]) > moneroo.CHARACTERS_MAX:
            raise moneroo.unfit(422, **{f"customer.{name}": f"The customer.{name} must be a string."})
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", customer["email"]):
        raise moneroo.unfit(422, **{"customer.email": "The customer.email must be a valid email address."})


def _payee(recipient: object) -> str:
    """`msisdn`, a number or its digits without a plus, or `account_number` (the demonstration's method has that)."""
    said = recipient if isinstance(recipient, dict) else {}
    number = said.get("msisdn", said.get("account_number"))
    if integer(number) is None and not isinstance(number, str):
        raise moneroo.unfit(422, **{"recipient.msisdn": "The recipient.msisdn field is required."})
    if not re.fullmatch(r"[1-9]\d{7,14}", str(number), re.ASCII):
        raise moneroo.unfit(422, **{"recipient.msisdn": "The recipient.msisdn is invalid."})
    return str(number)


# --- what became of it --------------------------------------------------------------------------------


def verify(desk: Desk, account: Account, asked: Asked) -> Said:
    """All of it; here the currency is an object [docs]."""
    found = _found(desk, account, asked)
    return moneroo.envelope(200, "Payout transaction fetched successfully!", _payout(account, found))


def retrieve(desk: Desk, account: Account, asked: Asked) -> Said:
    """The same with the currency as a word, and without `disburse`."""
    data = _payout(account, _found(desk, account, asked))
    data["currency"] = data["currency"]["code"]
    del data["disburse"]
    return moneroo.envelope(200, "Payout transaction fetched successfully", data)


def _found(desk: Desk, account: Account, asked: Asked) -> Payout:
    found = desk.treasury.find(NAME, asked.parts["id"])
    if found is None or found.account != account.name:
        raise Turned(moneroo.error(404, "Payout transaction not found."))
    return found


def _payout(account: Account, payout: Payout) -> dict[str, Any]:
    amount, code = moneroo.in_major(payout.amount_minor, payout.currency), payout.currency
    exponent, status, method = money.exponent(code), STATUS[payout.state], payout.asked["method"]
    customer = {name: payout.asked["customer"].get(name) for name in ("email", "first_name", "last_name", "phone")}
    return {
        "id": payout.id,
        "status": status,
        "amount": amount,
        "currency": {"name": code, "symbol": code, "symbol_first": False, "decimals": exponent, "code": code},
        "amount_formatted": f"{code} {amount}",
        "description": payout.asked["description"],
        "environment": "live" if account.live else "sandbox",
        "metadata": payout.asked["metadata"] or [],
        "app": {"id": f"app_{account.name}", "name": account.name, "is_enabled": True},
        "customer": {"id": f"cus_{payout.id[3:]}", **customer},
        "disburse": {
            "identifier": f"pd_{payout.id[3:]}",
            "failure_message": FAILURES.get(payout.reason),
            "failure_error_code": None,
            "failure_error_type": None,
            "method": {"name": method, "short_code": method},
            "gateway": {
                "name": "Sandbox",
                "short_code": "sandbox",
                "transaction_id": f"gw_{payout.id[3:]}",
                "transaction_status": payout.state.upper(),
                "transaction_failure_message": None,
            },
        },
        "failed_at": utc(payout.ended_ms) if status == "failed" else None,
        "pending_at": utc(payout.sent_ms),
        "success_at": utc(payout.paid_ms) if status == "success" else None,
        "created_at": utc(payout.created_ms),
    }


# --- telling ------------------------------------------------------------------------------------------


def letters(desk: Desk, moved: Moved) -> Sequence[Letter]:
    """A hint: the id, the status, the sum, the customer [docs]."""
    payout, event = moved.payout, EVENTS.get(moved.word)
    if event is None:
        return ()
    customer = payout.asked["customer"]
    fields: dict[str, Any] = {
        "id": payout.id,
        "amount": payout.amount_minor,
        "currency": payout.currency,
        "data.customer": {
            "id": f"cus_{payout.id[3:]}",
            "email": customer["email"],
            "firstName": customer["first_name"],  # so in webhooks alone [docs]
            "lastName": customer["last_name"],
            "phone": customer.get("phone"),
        },
        "data.metadata": {},  # documented webhooks repeat none; it has to be asked for
    }
    return [Letter(event, fields)]


API: Final = moneroo.API.paying(
    (
        Route("payout", "POST", "/v1/payouts/initialize", initialize),
        Route("fetch", "GET", "/v1/payouts/(?P<id>[^/]{1,100})/verify", verify),
        Route("fetch", "GET", "/v1/payouts/(?P<id>[^/]{1,100})", retrieve),
    ),
    letters,
)
