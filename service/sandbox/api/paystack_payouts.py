"""
Paystack's transfers as its documentation has them: a recipient, then a transfer from the balance, with a code of the
merchant's own where that is switched on (`payout_otp`).

A reference is unique for ever. A transfer is `pending` until it has arrived, and told by `transfer.success`, `.failed`
or `.reversed`. The codes of wallets in XOF are [unv].
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

from service.sandbox.api import paystack
from service.sandbox.api import paystack_objects as objects
from service.sandbox.api.paystack import CURRENCIES, amount_of, body_of, listed, text_of
from service.sandbox.desk import Account, Asked, Desk, Letter, Route, Said, utc
from service.sandbox.treasury import Moved, Payout

NAME: Final = "paystack"
REFERENCE: Final = re.compile(r"[a-z0-9_-]{16,50}")
OTP: Final = "123456"
OTP_MS: Final = 30 * 60_000
"""After which a transfer without its code is `abandoned` [docs]."""

BANKS: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("GHS", "mobile_money"): {"MTN": "MTN", "VOD": "Vodafone", "ATL": "AirtelTigo"},
    ("KES", "mobile_money"): {"MPESA": "M-PESA"},
    ("XOF", "mobile_money"): {"MTN_CI": "MTN", "OM_CI": "Orange Money", "WAVE_CI": "Wave"},
    ("NGN", "nuban"): {"044": "Access Bank", "058": "Guaranty Trust Bank"},
    ("GHS", "ghipss"): {"040100": "GCB Bank", "130100": "Ecobank Ghana"},
    ("KES", "kepss"): {"68": "Equity Bank", "11": "Co-operative Bank of Kenya"},
    ("ZAR", "basa"): {"250655": "First National Bank", "632005": "ABSA Bank"},
}
"""By currency and type: code and name."""

STATUS: Mapping[str, str] = {
    "created": "received",
    "otp": "otp",
    "queued": "pending",
    "in_transit": "pending",
    "paid": "success",
    "failed": "failed",
    "returned": "reversed",
}
EVENTS: Mapping[str, str] = {"paid": "transfer.success", "failed": "transfer.failed", "returned": "transfer.reversed"}

# --- recipients ---------------------------------------------------------------------------------------


def banks(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /bank?currency=XOF&type=mobile_money`."""
    query = asked.queries()
    currency, type_ = query.get("currency", "NGN"), query.get("type", "")
    found = [
        {"id": number, "name": name, "slug": code.lower(), "code": code, "active": True, "currency": one, "type": kind}
        for (one, kind), codes in BANKS.items()
        if one == currency and type_ in ("", kind)
        for number, (code, name) in enumerate(codes.items(), 1)
    ]
    return objects.said("Banks retrieved", found)


def recipient(desk: Desk, account: Account, asked: Asked) -> Said:
    """`POST /transferrecipient`; the same wallet or account is the same recipient again."""
    said = body_of(asked)
    type_, name, currency = text_of(said, "type"), text_of(said, "name"), text_of(said, "currency", needed=False)
    number, bank = text_of(said, "account_number"), text_of(said, "bank_code")
    currency = currency or "NGN"
    codes = BANKS.get((currency, type_))
    if codes is None:
        raise objects.turn(f"Transfers of type {type_} are not supported in {currency}", "invalid_params")
    if bank not in codes:
        raise objects.turn("Bank code is invalid", "invalid_bank_code")
    if not re.fullmatch(r"\+?[0-9]{8,15}", number):
        raise objects.turn("Account number is invalid", "invalid_account_number")
    kept = f"{account.name} {type_} {currency} {bank} {number}"
    known = desk.recall(NAME, kept)
    if known is None:
        known = _recipient(desk, account, type_, name, currency, {"number": number, "bank": bank, "title": codes[bank]})
        desk.remember(NAME, kept, known)
        desk.remember(NAME, f"{account.name} {known['recipient_code']}", known)
    return objects.said("Transfer recipient created successfully", known)


def _recipient(
    desk: Desk, account: Account, type_: str, name: str, currency: str, where: Mapping[str, str]
) -> dict[str, Any]:
    at = utc(desk.clock())
    return {
        "active": True,
        "createdAt": at,
        "currency": currency,
        "domain": "live" if account.live else "test",
        "id": int(desk.digits(8)),
        "integration": 412829,
        "name": name,
        "recipient_code": f"RCP_{desk.letters(15).lower()}",
        "type": type_,
        "updatedAt": at,
        "is_deleted": False,
        "details": {
            "authorization_code": None,
            "account_number": where["number"],
            "account_name": None,
            "bank_code": where["bank"],
            "bank_name": where["title"],
        },
    }


# --- transfers ----------------------------------------------------------------------------------------


def transfer(desk: Desk, account: Account, asked: Asked) -> Said:
    """`POST /transfer` from the balance: `pending`, or `otp` where a person has to confirm it."""
    said = body_of(asked)
    if said.get("source") != "balance":
        raise objects.turn("source is required and has to be balance", "missing_params")
    to = desk.recall(NAME, f"{account.name} {text_of(said, 'recipient')}")
    if to is None:
        raise objects.turn("Recipient specified is invalid", "invalid_transfer_recipient")
    currency = text_of(said, "currency", needed=False) or to["currency"]
    if currency not in CURRENCIES or currency != to["currency"]:
        raise objects.turn("Currency does not match the recipient's", "invalid_currency")
    amount = amount_of(said, currency)
    reference = text_of(said, "reference", needed=False) or f"sandbox-{desk.letters(20).lower()}"
    if not REFERENCE.fullmatch(reference):
        raise objects.turn("Transfer reference is invalid", "invalid_transfer_reference")
    if desk.treasury.by_reference(NAME, account.name, reference):
        words = "Please provide a unique reference. Reference already exists on a transfer"
        raise objects.turn(words, "duplicate_transfer_reference")
    payout = Payout(
        id=desk.digits(9),
        provider=NAME,
        account=account.name,
        amount_minor=amount,
        currency=currency,
        reference=reference,
        names={"code": f"TRF_{desk.letters(16).lower()}"},
        payee=to["details"]["account_number"],
        asked=said | {"recipient": to},
    )
    if not desk.treasury.enough(payout):
        raise objects.turn("Your balance is not enough to fulfil this request", "insufficient_balance")
    desk.treasury.begin(payout)
    if desk.trouble.take(NAME, "payout", "payout_otp"):
        desk.treasury.ask_code(payout, OTP_MS)
        return objects.said("Transfer requires OTP to continue", _transfer(account, payout, whole=False))
    desk.treasury.send(payout)
    return objects.said("Transfer has been queued", _transfer(account, payout, whole=False))


def finalize(desk: Desk, account: Account, asked: Asked) -> Said:
    """`POST /transfer/finalize_transfer` with the code."""
    said = body_of(asked)
    payout = desk.treasury.find(NAME, text_of(said, "transfer_code"))
    if payout is None or payout.account != account.name:
        raise objects.turn("Transfer code is invalid", "invalid_transfer_code")
    if payout.state != "otp":
        raise objects.turn("Transfer is not currently awaiting OTP", "invalid_transfer_state")
    if text_of(said, "otp") != OTP or desk.trouble.take(NAME, "otp", "otp_wrong"):
        raise objects.turn("Invalid OTP. Please try again", "invalid_otp")
    desk.treasury.send(payout)
    return objects.said("Transfer has been queued", _transfer(account, payout, whole=False))


def verify(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /transfer/verify/{reference}` and `GET /transfer/{id or code}`."""
    name = unquote(asked.parts["name"])
    found = desk.treasury.by_reference(NAME, account.name, name)
    if found is None and not asked.path.startswith("/transfer/verify/"):
        found = desk.treasury.find(NAME, name)
    if found is None or found.account != account.name:
        raise objects.turn("Transfer not found", "transfer_not_found", 404)
    return objects.said("Transfer retrieved", _transfer(account, found))


def transfers(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /transfer`, the newest first."""
    of = desk.treasury.of(NAME, account.name)
    return listed("Transfers retrieved", [_transfer(account, one) for one in of], asked)


def balance(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /balance`: a hundred times the major unit, by currency."""
    found = [
        {"currency": one, "balance": objects.wire(desk.treasury.float_minor(NAME, account.name, one), one)}
        for one in CURRENCIES
    ]
    return objects.said("Balances retrieved", found)


def _transfer(account: Account, payout: Payout, *, whole: bool = True) -> dict[str, Any]:
    """The transfer; while it is made it names its recipient by number alone, as in the documented samples."""
    to = payout.asked["recipient"]
    status = "abandoned" if payout.reason == "no_code" else STATUS[payout.state]
    said = {
        "domain": "live" if account.live else "test",
        "amount": objects.wire(payout.amount_minor, payout.currency),
        "currency": payout.currency,
        "reference": payout.reference,
        "source": "balance",
        "source_details": None,
        "reason": payout.asked.get("reason"),
        "status": status,
        "failures": None,
        "transfer_code": payout.names["code"],
        "titan_code": None,
        "transferred_at": utc(payout.paid_ms),
        "id": int(payout.id),
        "integration": 412829,
        "request": int(payout.id) + 1,
        "recipient": to if whole else to["id"],
        "createdAt": utc(payout.created_ms),
        "updatedAt": utc(payout.changed_ms),
    }
    if whole:
        fee = objects.wire(payout.fee_minor, payout.currency)
        said |= {"session": {"provider": None, "id": None}, "fee_charged": fee, "fees_breakdown": None}
        said["gateway_response"] = "Payee's account was not found" if payout.reason == "rejected" else None
    return said


# --- callbacks ----------------------------------------------------------------------------------------


def letters(desk: Desk, moved: Moved) -> Sequence[Letter]:
    """How a transfer ended; nothing tells of one that waits, or was abandoned."""
    payout, account = moved.payout, desk.account_of(moved.payout)
    event = EVENTS.get(moved.word)
    if event is None or account is None or payout.reason == "no_code":
        return ()
    named = {"id": payout.id, "reference": payout.reference, "currency": payout.currency}
    return [Letter(event, named | {f"data.{name}": value for name, value in _transfer(account, payout).items()})]


_NAME: Final = r"(?P<name>[^/]{1,300})"

API: Final = paystack.API.paying(
    (
        Route("fetch", "GET", "/bank", banks),
        Route("fetch", "GET", "/balance", balance),
        Route("prepare", "POST", "/transferrecipient", recipient),
        Route("payout", "POST", "/transfer", transfer),
        Route("otp", "POST", "/transfer/finalize_transfer", finalize),
        Route("fetch", "GET", f"/transfer/verify/{_NAME}", verify),
        Route("fetch", "GET", f"/transfer/{_NAME}", verify),
        Route("fetch", "GET", "/transfer", transfers),
    ),
    letters,
)
