"""Paystack's callbacks as its documentation samples shape them, signed with the API's secret key."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from service.payments import money
from service.sandbox.builder.wanted import Built, Credentials, Shape, Wanted, compact, secret_of, shape_of, with_raw

CURRENCY = "XOF"


def _wire(wanted: Wanted, amount_minor: int) -> int:
    """A hundred times the major amount, in every currency."""
    return int(money.to_major(amount_minor, wanted.currency) * 100)


def _number(wanted: Wanted) -> int:
    digits = wanted.digits()
    return int(digits) if digits.isdigit() else int(hashlib.sha256(digits.encode()).hexdigest(), 16) % 10**10


def _customer(wanted: Wanted) -> dict[str, Any]:
    first, _, last = wanted.text("customer", "Awa Kone").partition(" ")
    return {
        "id": 68324,
        "first_name": first,
        "last_name": last,
        "email": "payer@example.com",
        "customer_code": "CUS_caisse",
        "phone": wanted.text("phone", "+2250700000001"),
        "metadata": None,
    }


def _transaction(wanted: Wanted, status: str) -> dict[str, Any]:
    return {
        "id": _number(wanted),
        "domain": "live" if wanted.live else "test",
        "status": status,
        "reference": wanted.reference,
        "amount": _wire(wanted, wanted.amount),
        "message": None,
        "gateway_response": wanted.text("reason", "Approved" if status == "success" else "Declined"),
        "paid_at": wanted.at() if status == "success" else None,
        "created_at": wanted.at(),
        "channel": "mobile_money",
        "currency": wanted.currency,
        "metadata": {"reference": wanted.reference},
        "fees": _wire(wanted, wanted.number("fee", 0)),
        "authorization": {"channel": "mobile_money", "bank": wanted.text("operator", "orange")},
        "customer": _customer(wanted),
        "requested_amount": _wire(wanted, wanted.amount),
    }


def _charge(status: str) -> Shape:
    return lambda wanted: _transaction(wanted, wanted.text("status", status))


def _refund(status: str, *, named: bool) -> Shape:
    def shape(wanted: Wanted) -> dict[str, Any]:
        return {
            "status": wanted.text("status", status),
            "transaction_reference": wanted.reference,
            "refund_reference": wanted.text("refund", f"TRF_{wanted.letters(16)}") if named else None,
            "amount": str(_wire(wanted, wanted.number("refunded", wanted.amount))),
            "currency": wanted.currency,
            "processor": "instant-transfer",
            "customer": _customer(wanted),
            "integration": 412829,
            "domain": "live" if wanted.live else "test",
        }

    return shape


def _dispute(status: str, resolution: str | None) -> Shape:
    def shape(wanted: Wanted) -> dict[str, Any]:
        return {
            "id": wanted.number("dispute", 358950),
            "refund_amount": _wire(wanted, wanted.number("refunded", wanted.amount)),
            "currency": wanted.currency,
            "status": wanted.text("status", status),
            "resolution": wanted.text("reason", resolution) if resolution else None,
            "domain": "live" if wanted.live else "test",
            "transaction": _transaction(wanted, "success"),
            "transaction_reference": None,
            "category": "chargeback",
            "customer": _customer(wanted),
            "created_at": wanted.at(),
            "updated_at": wanted.at(),
        }

    return shape


def _transfer(status: str) -> Shape:
    def shape(wanted: Wanted) -> dict[str, Any]:
        return {
            "id": _number(wanted),
            "amount": _wire(wanted, wanted.amount),
            "currency": wanted.currency,
            "domain": "live" if wanted.live else "test",
            "reference": wanted.reference,
            "status": wanted.text("status", status),
            "transfer_code": f"TRF_{wanted.letters(16)}",
        }

    return shape


EVENTS: Mapping[str, Shape] = {
    "charge.success": _charge("success"),
    "refund.pending": _refund("pending", named=False),
    "refund.processing": _refund("processing", named=False),
    "refund.needs-attention": _refund("needs-attention", named=True),
    "refund.processed": _refund("processed", named=True),
    "refund.failed": _refund("failed", named=True),
    "charge.dispute.create": _dispute("awaiting-merchant-feedback", None),
    "charge.dispute.remind": _dispute("awaiting-merchant-feedback", None),
    "charge.dispute.resolve": _dispute("resolved", "merchant-accepted"),
    "transfer.success": _transfer("success"),
    "transfer.failed": _transfer("failed"),
    "transfer.reversed": _transfer("reversed"),
}


def build(event: str, credentials: Credentials, now_ms: int, wanted: Wanted) -> Built:
    """One delivery of one event."""
    data = shape_of("paystack", event, EVENTS)(wanted)
    body = compact(with_raw({"event": event, "data": data}, wanted.raw))
    secret = secret_of("paystack", credentials, "secret_keys")
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "Paystack/2.0",
        "X-Paystack-Signature": hmac.new(secret.encode(), body, hashlib.sha512).hexdigest(),
    }
    return Built("paystack", event, "POST", "/webhooks/paystack", headers, body, wanted.reference)
