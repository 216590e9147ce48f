"""FedaPay's callbacks as seen from its sandbox, signed by the documented algorithm."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from service.sandbox.builder.wanted import Built, Credentials, Shape, Wanted, compact, secret_of, shape_of, with_raw

CURRENCY = "XOF"


def _number(wanted: Wanted) -> int | str:
    digits = wanted.digits(9)
    return int(digits) if digits.isdigit() else digits


def _transaction(status: str) -> Shape:
    def shape(wanted: Wanted) -> dict[str, Any]:
        now = wanted.text("status", status)
        paid = now not in ("pending", "declined", "canceled", "expired")
        part = now.endswith("partially_refunded")
        fee = wanted.number("fee", 0)
        return {
            "id": _number(wanted),
            "klass": "v1/transaction",
            "reference": f"trx_{wanted.letters(16)}",
            "amount": wanted.major(),
            "description": "Commande",
            "callback_url": "https://shop.example.com/merci",
            "status": now,
            "mode": wanted.text("operator", "mtn_open") if wanted.live else "momo_test",
            "fees": wanted.major(fee),
            "amount_debited": wanted.major(wanted.amount + fee),
            "amount_transferred": wanted.major() if paid else None,
            "commission": "0.018",
            "last_error_code": wanted.given.get("reason"),
            "last_error_message": None,
            "merchant_reference": wanted.reference,
            "custom_metadata": {"reference": wanted.reference},
            "metadata": {"expire_schedule_jobid": "job_1"},
            "created_at": wanted.at(),
            "updated_at": wanted.at(),
            "approved_at": wanted.at() if paid else None,
            "declined_at": wanted.at() if now == "declined" else None,
            "canceled_at": wanted.at() if now == "canceled" else None,
            "transferred_at": wanted.at() if now.startswith("transferred") else None,
            "refunded_at": wanted.at() if "refunded" in now else None,
            "currency": {"id": 1, "klass": "v1/currency", "iso": wanted.currency, "div": 1},
            "customer": {
                "klass": "v1/customer",
                "firstname": wanted.text("customer", "Awa"),
                "phone_number": {"number": wanted.text("phone", "+22997000001"), "country": "bj"},
            },
            "refunds": [{"amount": wanted.major(wanted.number("refunded", wanted.amount // 2))}] if part else [],
        }

    return shape


def _payout(status: str) -> Shape:
    return lambda wanted: {
        "id": _number(wanted),
        "klass": "v1/payout",
        "reference": wanted.digits(13),
        "amount": wanted.major(),
        "status": wanted.text("status", status),
        "mode": wanted.text("operator", "mtn_open"),
        "merchant_reference": wanted.reference,
        "last_error_code": wanted.given.get("reason"),
    }


EVENTS: Mapping[str, Shape] = {
    "transaction.created": _transaction("pending"),
    "transaction.approved": _transaction("approved"),
    "transaction.declined": _transaction("declined"),
    "transaction.canceled": _transaction("canceled"),
    "transaction.expired": _transaction("expired"),
    "transaction.transferred": _transaction("transferred"),
    "transaction.refunded": _transaction("refunded"),
    "transaction.updated": _transaction("approved_partially_refunded"),
    "transaction.deleted": _transaction("pending"),
    "payout.sent": _payout("sent"),
    "payout.failed": _payout("failed"),
}


def build(event: str, credentials: Credentials, now_ms: int, wanted: Wanted) -> Built:
    """One delivery of one event."""
    entity = shape_of("fedapay", event, EVENTS)(wanted)
    envelope = {
        "name": event,
        "object": event.partition(".")[0],
        "object_id": entity["id"],
        "entity": entity,
        # What the real ones carry too, and what must not be kept.
        "account": {"id": 1, "klass": "v1/account", "users": [{"email": "owner@example.com"}], "public_key": "pk_x"},
    }
    # FedaPay escapes & as Rails does, which is why only the raw bytes verify.
    body = compact(with_raw(envelope, wanted.raw)).replace(b"&", b"\\u0026")
    secret = secret_of("fedapay", credentials, "webhook_secrets")
    seconds = str(now_ms // 1000)
    digest = hmac.new(secret.encode(), b"%s.%s" % (seconds.encode(), body), hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "FedaPay",
        "X-FEDAPAY-SIGNATURE": f"t={seconds},s={digest}",
    }
    return Built("fedapay", event, "POST", "/webhooks/fedapay", headers, body, str(entity["id"]))
