"""What Paystack's answers and callbacks are made of: its envelope, transactions, charges and refunds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from service.payments import money
from service.payments.facts import Reason
from service.sandbox.bank import Charge, Refund
from service.sandbox.desk import Desk, Said, Turned, utc

OFFLINE: Final = "Please complete authorization process on your mobile phone"
VOUCHER: Final = "Please dial *110# to generate a voucher code. Then input the voucher"
DIALLED: Final = "Please dial #144*82# to get a one-time code. Then input the code"
WALLETS: Mapping[tuple[str, str], tuple[str, str]] = {
    ("GHS", "mtn"): ("pay_offline", OFFLINE),
    ("GHS", "atl"): ("pay_offline", OFFLINE),
    ("GHS", "vod"): ("send_otp", VOUCHER),
    ("KES", "mpesa"): ("pay_offline", OFFLINE),
    ("XOF", "mtn"): ("pay_offline", OFFLINE),
    ("XOF", "orange"): ("send_otp", DIALLED),
    ("XOF", "wave"): ("open_url", ""),
}
"""Currency and `mobile_money.provider`: the first status, and what the payer is told."""

RESPONSES: Mapping[Reason, str] = {
    Reason.INSUFFICIENT_FUNDS: "Insufficient funds",
    Reason.LIMIT_REACHED: "Transaction limit exceeded",
    Reason.WRONG_PIN: "Incorrect PIN",
    Reason.TIMED_OUT: "Transaction timed out",
    Reason.DECLINED_BY_USER: "Declined by user",
    Reason.NO_WALLET: "Number is not registered",
    Reason.NUMBER_MISMATCH: "Number and provider mismatch",
    Reason.PROVIDER_UNAVAILABLE: "Provider unavailable",
    Reason.UNKNOWN: "Declined",
}
"""`gateway_response`, in words of ours: Paystack's are documented nowhere."""

REFUNDS: Mapping[str, str] = {"pending": "pending", "succeeded": "processed", "failed": "failed"}

# --- saying -------------------------------------------------------------------------------------------


def error(status: int, words: str, *, code: str = "", type_: str = "validation_error") -> Said:
    """`{status: false, message, meta, type, code}`."""
    kind = "api_error" if status >= 500 else type_
    next_step = "Ensure that you provide the correct values and try again"
    return Said(
        status, {"status": False, "message": words, "meta": {"nextStep": next_step}, "type": kind, "code": code}
    )


def turn(words: str, code: str = "invalid_params", status: int = 400) -> Turned:
    return Turned(error(status, words, code=code))


def said(message: str, data: object, **more: object) -> Said:
    return Said(200, {"status": True, "message": message, "data": data, **more})


def wire(amount_minor: int, currency: str) -> int:
    return int(money.to_major(amount_minor, currency) * 100)


def status_of(charge: Charge) -> str:
    match charge.state:
        case "succeeded":
            return "success"
        case "failed":
            return "failed"
        case "created" | "canceled" | "expired":
            return "abandoned"
        case "waiting":
            return "ongoing" if charge.waits == "otp" else "pending"
        case "pending":
            return "pending"


def transaction(desk: Desk, charge: Charge) -> dict[str, Any]:
    """The whole transaction, as verify and the callback have it."""
    account = desk.account_of(charge)
    paid = charge.state == "succeeded"
    at, paid_at = utc(charge.created_ms), utc(charge.ended_ms) if paid else None
    units = wire(charge.captured_minor or charge.amount_minor, charge.currency)
    response = (
        "Approved" if paid else RESPONSES[charge.reason] if charge.reason else "The transaction was not completed"
    )
    return {
        "id": int(charge.id),
        "domain": "live" if account and account.live else "test",
        "status": status_of(charge),
        "reference": charge.reference,
        "receipt_number": None,
        "amount": units,
        "message": None,
        "gateway_response": "Approved" if paid else response,
        "paid_at": paid_at,
        "created_at": at,
        "channel": charge.method or "card",
        "currency": charge.currency,
        "ip_address": "127.0.0.1",
        "metadata": charge.asked.get("metadata") or "",
        "log": None,
        "fees": units * 195 // 10_000 if paid else None,
        "fees_split": None,
        "authorization": {"channel": charge.method, "bank": charge.operator} if paid else {},
        "customer": {
            "id": 68324,
            "first_name": None,
            "last_name": None,
            "email": charge.asked.get("email"),
            "customer_code": "CUS_sandbox",
            "phone": charge.phone or None,
            "metadata": None,
        },
        "plan": None,
        "split": {},
        "order_id": None,
        "paidAt": paid_at,
        "createdAt": at,
        "requested_amount": wire(charge.amount_minor, charge.currency),
        "transaction_date": at,
        "plan_object": {},
        "subaccount": {},
    }


def attempt(desk: Desk, charge: Charge) -> dict[str, Any]:
    """What a charge answers: little while it waits, all of it at its end."""
    if not charge.live:
        whole = transaction(desk, charge)
        return whole | ({"message": whole["gateway_response"]} if charge.state == "failed" else {})
    if charge.waits == "page":
        return {"reference": charge.reference, "status": "open_url", "url": desk.page(charge)}
    first, display = WALLETS.get((charge.currency, charge.operator), ("pending", ""))
    status = first if charge.waits else "pending"
    return {"reference": charge.reference, "status": status} | ({"display_text": display} if charge.waits else {})


def refunded(desk: Desk, charge: Charge, refund: Refund) -> dict[str, Any]:
    account = desk.account_of(charge)
    whole = transaction(desk, charge)
    return {
        "transaction": {name: whole[name] for name in ("id", "domain", "reference", "amount", "paid_at", "currency")},
        "integration": 412829,
        "deducted_amount": 0,
        "channel": None,
        "merchant_note": refund.note or f"Refund for transaction {charge.reference}",
        "customer_note": f"Refund for transaction {charge.reference}",
        "status": REFUNDS[refund.state],
        "currency": charge.currency,
        "domain": "live" if account and account.live else "test",
        "amount": wire(refund.amount_minor, charge.currency),
        "fully_deducted": False,
        "id": int(refund.id),
        "createdAt": utc(refund.created_ms),
        "updatedAt": utc(refund.changed_ms),
    }
