"""Monetbil's notifications: the fields its official library reads, with its MD5 over their values."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from service.sandbox.builder.wanted import Built, Credentials, Shape, Wanted, secret_of, shape_of, with_raw

CURRENCY = "XAF"


def _notification(status: str, message: str) -> Shape:
    def shape(wanted: Wanted) -> dict[str, Any]:
        number = wanted.digits(20)
        return {
            "service": "",
            "transaction_id": number,
            "transaction_uuid": number,
            "msisdn": wanted.text("phone", "237670000001"),
            "amount": str(wanted.major()),
            "fee": str(wanted.major(wanted.number("fee", 0))),
            "status": wanted.text("status", status),
            "message": wanted.text("reason", message),
            "country_name": "CAMEROON",
            "country_iso": "CM",
            "country_code": "237",
            "mccmnc": "62401",
            "mobile_operator_name": wanted.text("operator", "MTN"),
            "currency": wanted.currency,
            "user": "",
            "item_ref": wanted.reference,
            "payment_ref": wanted.reference,
            "first_name": wanted.text("customer", ""),
            "last_name": "",
            "email": "payer+1@example.com",
            "testmode": "0" if wanted.live else "1",
        }

    return shape


def _payout(status: str, message: str) -> Shape:
    """A withdrawal's notification; its fields are documented nowhere."""

    def shape(wanted: Wanted) -> dict[str, Any]:
        number = wanted.digits(20)
        return {
            "service": "",
            "transaction": number,
            "operator_transaction_id": f"MP{number[-12:]}",
            "processing_number": wanted.reference,
            "phonenumber": wanted.text("phone", "237670000001"),
            "amount": str(wanted.major()),
            "currency": wanted.currency,
            "operator": wanted.text("operator", "CM_MTNMOBILEMONEY"),
            "status": wanted.text("status", status),
            "message": wanted.text("reason", message),
            "testmode": "0" if wanted.live else "1",
        }

    return shape


EVENTS: Mapping[str, Shape] = {
    "success": _notification("success", "payment finish"),
    "failed": _notification("failed", "Waiting time expired."),
    "cancelled": _notification("cancelled", "payment cancelled"),
    "payout.success": _payout("success", "Transaction successful."),
    "payout.failed": _payout("failed", "Payout returned."),
}


def build(event: str, credentials: Credentials, now_ms: int, wanted: Wanted) -> Built:
    """One notification, by POST or, as a service may be set, by GET. Paths are `form.<name>`."""
    shape = shape_of("monetbil", event, EVENTS)
    secret = secret_of("monetbil", credentials, "service_secrets")
    method = wanted.text("method", "POST").upper()
    if method not in ("POST", "GET"):
        raise ValueError("method is POST or GET.")
    fields = shape(wanted)
    fields["service"] = next(iter(credentials.get("service_key", ())), "")
    fields = {name: str(value) for name, value in with_raw({"form": fields}, wanted.raw)["form"].items()}
    joined = secret + "".join(fields[name] for name in sorted(fields))
    fields["sign"] = hashlib.md5(joined.encode(), usedforsecurity=False).hexdigest()
    form, name = urlencode(fields), fields.get("transaction_id") or fields.get("transaction", "")
    headers = {"User-Agent": "Monetbil", "Content-Type": "application/x-www-form-urlencoded"}
    if method == "GET":
        return Built(
            "monetbil", event, "GET", f"/webhooks/monetbil?{form}", {"User-Agent": "Monetbil"}, b"",
            name,
        )  # fmt: skip
    return Built("monetbil", event, "POST", "/webhooks/monetbil", headers, form.encode(), name)
