"""eBilling's callbacks: the form its official plugin reads, sent to the address that ends with the secret token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from service.sandbox.builder.wanted import Built, Credentials, Shape, Wanted, secret_of, shape_of, with_raw

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


EVENTS: Mapping[str, Shape] = {"paid": _paid}


def build(event: str, credentials: Credentials, now_ms: int, wanted: Wanted) -> Built:
    """One callback. Paths are `form.<name>`."""
    form = with_raw({"form": shape_of("ebilling", event, EVENTS)(wanted)}, wanted.raw)["form"]
    token = secret_of("ebilling", credentials, "callback_tokens")
    headers = {"User-Agent": "E-Billing", "Content-Type": "application/x-www-form-urlencoded"}
    path = f"/webhooks/ebilling/{quote(token, safe='')}"
    return Built("ebilling", event, "POST", path, headers, urlencode(form).encode(), str(form["billingid"]))
