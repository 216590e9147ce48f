"""
eBilling's callbacks: the form its official plugin reads, and SHAP's JSON about payouts, sent to the address that ends
with the secret token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from service.sandbox.builder.wanted import Built, Credentials, Shape, Wanted, compact, secret_of, shape_of, with_raw

CURRENCY = "XAF"


def _paid(wanted: Wanted) -> dict[str, Any]:
    shape = {
        "reference": wanted.reference,
        "amount": str(wanted.major()),
        "paymentsystem": wanted.text("operator", "airtelmoney"),
        "transactionid": f"TXN{wanted.letters(12)}",
        "billingid": wanted.digits(),
        "customername": wanted.text("customer", "Awa Kone"),
        "payermsisdn": wanted.text("phone", "077000001"),
    }
    return shape | ({"state": wanted.given["status"]} if "status" in wanted.given else {})


def _payout(status: str) -> Shape:
    return lambda wanted: {
        "shap_reference": wanted.digits(),
        "external_reference": wanted.reference,
        "payment_system_name": wanted.text("operator", "airtelmoney"),
        "transaction_id": f"disbursement-{wanted.letters(10)}-{wanted.digits()}",
        "amount": wanted.major(),
        "status": wanted.text("status", status),
    }


EVENTS: Mapping[str, Shape] = {
    "paid": _paid,
    "payout.success": _payout("success"),
    "payout.failed": _payout("failed"),
}


def build(event: str, credentials: Credentials, now_ms: int, wanted: Wanted) -> Built:
    """One callback. Paths are `form.<name>`, SHAP's `json.<name>`."""
    kind = "json" if event.startswith("payout.") else "form"
    fields = with_raw({kind: shape_of("ebilling", event, EVENTS)(wanted)}, wanted.raw)[kind]
    token = secret_of("ebilling", credentials, "callback_tokens")
    path = f"/webhooks/ebilling/{quote(token, safe='')}"
    headers = {"User-Agent": "E-Billing", "Content-Type": "application/x-www-form-urlencoded"}
    if kind == "json":
        headers["Content-Type"] = "application/json"
        return Built("ebilling", event, "POST", path, headers, compact(fields), str(fields["shap_reference"]))
    return Built("ebilling", event, "POST", path, headers, urlencode(fields).encode(), str(fields["billingid"]))
