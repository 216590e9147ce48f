"""Moneroo's callbacks as its documentation shapes them, signed by the documented algorithm."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from service.sandbox.builder.wanted import Built, Credentials, Shape, Wanted, compact, secret_of, shape_of, with_raw

CURRENCY = "XOF"


def _payment(status: str) -> Shape:
    def shape(wanted: Wanted) -> dict[str, Any]:
        first, _, last = wanted.text("customer", "Awa Kone").partition(" ")
        return {
            "id": wanted.text("id", f"py_{wanted.letters(12)}"),
            "amount": wanted.major(),
            "currency": wanted.currency,
            "status": wanted.text("status", status),
            "customer": {
                "id": "cus_1",
                "email": "payer@example.com",
                "firstName": first,
                "lastName": last,
                "phone": wanted.text("phone", "+2250700000001"),
            },
            "metadata": {"reference": wanted.reference},
        }

    return shape


EVENTS: Mapping[str, Shape] = {
    "payment.initiated": _payment("initiated"),
    "payment.success": _payment("success"),
    "payment.failed": _payment("failed"),
    "payment.cancelled": _payment("cancelled"),
    "payout.initiated": _payment("initiated"),
    "payout.success": _payment("success"),
    "payout.failed": _payment("failed"),
}


def build(event: str, credentials: Credentials, now_ms: int, wanted: Wanted) -> Built:
    """One delivery of one event."""
    data = shape_of("moneroo", event, EVENTS)(wanted)
    body = compact(with_raw({"event": event, "data": data}, wanted.raw))
    secret = secret_of("moneroo", credentials, "webhook_secrets")
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "Moneroo",
        "X-Moneroo-Signature": hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(),
    }
    return Built("moneroo", event, "POST", "/webhooks/moneroo", headers, body, str(data["id"]))
