"""
SHAP, eBilling's payouts [3p ×5]: a token of its own, a payout from the float of one operator, and a JSON callback.

`payout` in the request is an object, or one written as text: third parties send both. That an `external_reference` may
be used once is documented nowhere: asked twice, this pays twice, and asked about it tells of the newest. Of the error
codes SP0011, SP0014, SP0016 and SP0027 are known; the others, and the HTTP statuses, are [unv].
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from service.payments import money
from service.sandbox.api import ebilling
from service.sandbox.desk import Account, Asked, Desk, Letter, Route, Said, Turned, integer
from service.sandbox.treasury import Moved, Payout

NAME, CURRENCY = ebilling.NAME, ebilling.CURRENCY
TOKEN_MS: Final = 2 * 3_600_000
AMOUNT_MIN: Final = 100
TYPES: Final = ("refund", "cashback", "withdrawal")
STATES: Mapping[str, str] = {
    "created": "initiated",
    "otp": "initiated",
    "queued": "pending",
    "in_transit": "processing",
    "paid": "success",
    "failed": "failed",
    "returned": "failed",
}
EVENTS: Mapping[str, str] = {"paid": "payout.success", "failed": "payout.failed", "returned": "payout.failed"}

# --- who asks -----------------------------------------------------------------------------------------


def error(status: int, code: str, words: str) -> Said:
    """`{error_code: SP00xx, error_description}`."""
    return Said(status, {"error_code": code, "error_description": words})


def _whose(desk: Desk, asked: Asked) -> Account:
    """By `api_id` and `api_secret`, which are `shap_id` and `shap_secret` here."""
    said = asked.json() or {}
    id_, secret = (said.get(name) if isinstance(said.get(name), str) else "" for name in ("api_id", "api_secret"))
    account = desk.account(NAME, "shap_id", id_ or "")
    secrets = account.credentials.get("shap_secret", ()) if account else ()
    if account is None or not any(
        one and hmac.compare_digest(one.encode(), (secret or "").encode()) for one in secrets
    ):
        raise Turned(error(401, "SP0001", "Invalid credentials"))
    return account


def enter(desk: Desk, asked: Asked) -> Account:
    """`Authorization: Bearer` with a token that was given less than two hours ago."""
    name, until_ms = desk.recall(NAME, f"token {asked.bearer()}") or ("", 0)
    fitting = (one for one in desk.accounts if (one.provider, one.name) == (NAME, name) and desk.clock() < until_ms)
    account = next(fitting, None)
    if account is None:
        raise Turned(error(401, "SP0002", "Invalid or expired token"))
    return account


def token(desk: Desk, account: Account, asked: Asked) -> Said:
    """`POST auth`."""
    made = desk.letters(48)
    desk.remember(NAME, f"token {made}", (account.name, desk.clock() + TOKEN_MS))
    return Said(200, {"access_token": made, "token_type": "Bearer", "expires_in": TOKEN_MS // 1000})


# --- payouts ------------------------------------------------------------------------------------------


def balance(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET balance`: one for each operator."""
    found = [
        {"payment_system_name": name, "amount": _major(desk.treasury.float_minor(NAME, account.name, CURRENCY, name))}
        for name in ebilling.SYSTEMS
    ]
    return Said(200, {"data": found})


def _major(amount_minor: int) -> int:
    return int(money.to_major(amount_minor, CURRENCY))


def pay(desk: Desk, account: Account, asked: Asked) -> Said:
    """`POST payout`."""
    said = asked.json() or {}
    system, wanted = said.get("payment_system_name"), _wanted(said.get("payout"))
    if not isinstance(system, str) or system not in ebilling.SYSTEMS:
        raise Turned(error(422, "SP0010", "Invalid payment system name"))
    number, amount, reference = wanted.get("payee_msisdn"), wanted.get("amount"), wanted.get("external_reference")
    if not isinstance(number, str) or not re.fullmatch(ebilling.SYSTEMS[system] + r"\d{7}", _local(number), re.ASCII):
        raise Turned(error(422, "SP0012", "Invalid payee MSISDN"))
    if isinstance(amount, str) and re.fullmatch(r"\d{1,12}", amount, re.ASCII):
        amount = int(amount)
    whole = integer(amount)
    if whole is None or not AMOUNT_MIN <= whole <= ebilling.AMOUNT_MAX:
        raise Turned(error(422, "SP0011", "Invalid amount"))
    if wanted.get("payout_type") not in TYPES:
        raise Turned(error(422, "SP0014", "Invalid payout type"))
    if not isinstance(reference, str) or not 0 < len(reference) <= ebilling.CHARACTERS_MAX:
        raise Turned(error(422, "SP0013", "Invalid external reference"))
    id_ = "222" + desk.digits(7)
    payout = Payout(
        id=id_,
        provider=NAME,
        account=account.name,
        amount_minor=whole * 10 ** money.exponent(CURRENCY),
        currency=CURRENCY,
        reference=reference,
        names={"transaction": f"disbursement-{desk.letters(10).upper()}-{id_}"},
        purse=system,
        payee=_local(number),
        asked=wanted,
    )
    if not desk.treasury.enough(payout):
        raise Turned(error(422, "SP0016", "Insufficient balance"))
    desk.treasury.begin(payout)
    desk.treasury.send(payout)
    return Said(
        200, {"successful": True, "success_message": "Payout request was successful", "response": _payout(payout)}
    )


def _wanted(said: object) -> dict[str, Any]:
    """An object, or one as text."""
    if isinstance(said, str):
        try:
            said = json.loads(said)
        except (ValueError, RecursionError):
            said = None
    if not isinstance(said, dict):
        raise Turned(error(422, "SP0009", "Invalid payout"))
    return said


def _local(number: str) -> str:
    """Nine digits as people in Gabon write them, 077…"""
    digits = number.removeprefix("+")
    return "0" + digits.removeprefix(ebilling.DIAL).removeprefix("0") if digits.startswith(ebilling.DIAL) else digits


def fetch(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET payout?payee_msisdn&external_reference`."""
    query = asked.queries()
    reference, number = query.get("external_reference", ""), _local(query.get("payee_msisdn", ""))
    for payout in desk.treasury.of(NAME, account.name):
        if (payout.reference, payout.payee) == (reference, number):
            return Said(200, {"payout": _payout(payout)})
    raise Turned(error(404, "SP0027", "Payout not found"))


def _payout(payout: Payout) -> dict[str, Any]:
    return {
        "payout_id": payout.id,
        "payee_msisdn": payout.payee,
        "transaction_id": payout.names["transaction"],
        "payment_system_name": payout.purse,
        "amount": _major(payout.amount_minor),
        "currency": CURRENCY,
        "external_reference": payout.reference,
        "payout_type": payout.asked["payout_type"],
        "state": STATES[payout.state],
    }


# --- telling ------------------------------------------------------------------------------------------


def letters(desk: Desk, moved: Moved) -> Sequence[Letter]:
    """How it ended, to the one address in the profile; nothing in it is signed."""
    payout, event = moved.payout, EVENTS.get(moved.word)
    if event is None:
        return ()
    fields = {
        "id": payout.id,
        "reference": payout.reference,
        "amount": payout.amount_minor,
        "operator": payout.purse,
        "json.transaction_id": payout.names["transaction"],
    }
    return [Letter(event, fields)]


_SHAP: Final = "/shap/api/v1/merchant"

API: Final = ebilling.API.paying(
    (
        Route("prepare", "POST", f"{_SHAP}/auth", token, _whose),
        Route("fetch", "GET", f"{_SHAP}/balance", balance, enter),
        Route("payout", "POST", f"{_SHAP}/payout", pay, enter),
        Route("fetch", "GET", f"{_SHAP}/payout", fetch, enter),
    ),
    letters,
)
