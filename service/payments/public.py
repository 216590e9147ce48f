"""A payment as merchants see it."""

from __future__ import annotations

import json
from typing import Any

from service.merchants.events import rfc3339


def public(row: Any) -> dict[str, Any]:
    """A payment as merchants see it: in events, the API and `--json`."""
    shown = {
        "id": row["id"],
        "status": row["status"],
        "exceptions": [word for word in row["exceptions"].split(",") if word],
        "origin": row["origin"],
        "live": bool(row["live"]),
        "amount": row["amount_minor"],
        "currency": row["currency"],
        "amount_captured": row["captured_minor"],
        "amount_refunded": row["refunded_minor"],
        "fee": row["fee_minor"],
        "provider": row["provider"],
        "provider_reference": row["provider_reference"],
        "method": row["method"],
        "reference": row["reference"],
        "order": row["order_id"],
        "metadata": json.loads(row["metadata"]),
        "failure_reason": row["failure_reason"],
        "created_at": rfc3339(row["created_at_ms"]),
        "updated_at": rfc3339(row["updated_at_ms"]),
        "paid_at": rfc3339(row["paid_at_ms"]),
    }
    if row["merged_into"]:
        shown["merged_into"] = row["merged_into"]
    return shown
