"""
Monetbil's withdrawal: one call whose answer is the end, and a notification to the address that it names [3p].

There is no status to be asked for. That a `processing_number` may be used once is documented nowhere: asked twice, this
pays twice. The notification's fields are [unv]; it is signed like the others.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Final

from service.payments import money
from service.sandbox.api import monetbil
from service.sandbox.desk import Account, Asked, Desk, Letter, Route, Said, Turned
from service.sandbox.treasury import Moved, Payout

NAME: Final = monetbil.NAME
REQUIRED: Final = ("service_key", "service_secret", "phonenumber", "amount", "operator", "processing_number")
EVENTS: Mapping[str, str] = {"paid": "payout.success", "failed": "payout.failed", "returned": "payout.failed"}
MESSAGES: Mapping[str, str] = {"rejected": "Subscriber not registered.", "sent_back": "Payout returned."}


def _fields(asked: Asked) -> dict[str, str]:
    """Some call the key `service`, as placePayment does [3p]."""
    fields = monetbil.fields_of(asked)
    return fields | ({"service_key": fields["service"]} if "service" in fields else {})


def _refused(code: str, words: str) -> Turned:
    return Turned(Said(200, {"success": False, "message": words, "code": code}))  # the codes are [unv]


def enter(desk: Desk, asked: Asked) -> Account:
    """The key and the secret in the body, in every request."""
    fields = _fields(asked)
    lacking = [name for name in REQUIRED if not fields.get(name)]
    if lacking:
        raise monetbil.unfit(**dict.fromkeys(lacking, "The {} field is required."))
    account = desk.account(NAME, "service_key", fields["service_key"])
    given = fields["service_secret"].encode()
    secrets = account.credentials.get("service_secrets", ()) if account else ()
    if account is None or not any(one and hmac.compare_digest(one.encode(), given) for one in secrets):
        raise _refused("INVALID_CREDENTIALS", "Invalid service key or secret.")
    return account


def withdraw(desk: Desk, account: Account, asked: Asked) -> Said:
    """`{success, transaction, operator_transaction_id, message}`; paid when it is said, unless it is slow."""
    fields = _fields(asked)
    operator, number, amount = fields["operator"], fields["phonenumber"], fields["amount"]
    if operator not in monetbil.codes():
        raise _refused("INVALID_OPERATOR", "Invalid operator.")
    dial, currency, _ = monetbil.COUNTRIES[operator.partition("_")[0]]
    if not re.fullmatch(rf"({dial})?\d{{8,10}}", number, re.ASCII):
        raise _refused("INVALID_MSISDN", "Invalid msisdn.")
    if not re.fullmatch(r"\d{1,12}", amount, re.ASCII) or not 0 < int(amount) <= monetbil.AMOUNT_MAX:
        raise _refused("INVALID_AMOUNT", "Invalid amount.")
    payout = Payout(
        id=desk.digits(20),
        provider=NAME,
        account=account.name,
        amount_minor=int(amount) * 10 ** money.exponent(currency),
        currency=currency,
        reference=fields["processing_number"],
        purse=operator,
        payee=number if number.startswith(dial) else dial + number,
        callback_url=fields.get("payout_notification_url", ""),
        asked={name: value for name, value in fields.items() if name != "service_secret"},
    )
    if not desk.treasury.enough(payout):
        raise _refused("INSUFFICIENT_BALANCE", "Insufficient balance.")
    desk.treasury.begin(payout)
    desk.treasury.send(payout, at_once=True)
    if payout.state == "failed":
        raise _refused("PAYOUT_FAILED", MESSAGES["rejected"])
    return Said(
        200,
        {
            "success": True,
            "transaction": payout.id,
            "operator_transaction_id": f"MP{payout.id[-12:]}",
            "message": "Transaction successful.",
        },
    )


def letters(desk: Desk, moved: Moved) -> Sequence[Letter]:
    """One notification for each end, where the request named an address; what the answer refused is told by it."""
    payout, account, event = moved.payout, desk.account_of(moved.payout), EVENTS.get(moved.word)
    if event is None or account is None or not payout.callback_url:
        return ()
    fields = {
        "id": payout.id,
        "reference": payout.reference,
        "amount": payout.amount_minor,
        "currency": payout.currency,
        "live": "true" if account.live else "false",
        "time_ms": moved.at_ms,
        "phone": payout.payee,
        "operator": payout.purse,
        "reason": MESSAGES.get(payout.reason, "Transaction successful."),
    }
    return [Letter(event, fields)]


API: Final = monetbil.API.paying(
    (
        Route("payout", "POST", "/v1/payouts/withdrawal", withdraw, enter),
        Route("payout", "POST", "/payment/v1/payouts/withdrawal", withdraw, enter),
    ),
    letters,
)
