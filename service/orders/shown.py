"""Orders and sessions as merchants see them: in events, the API and on pages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, select

from service.merchants.events import rfc3339
from service.orders.states import status_of
from service.orders.tables import order_lines, sessions
from service.payments.tables import payments


def words(kept: str) -> list[str]:
    """Comma-separated words as they are kept."""
    return [word for word in kept.split(",") if word]


def lines_of(tx: Connection, order_ids: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """The lines of each order, in their order."""
    wanted = sorted(set(order_ids))
    found: dict[str, list[dict[str, Any]]] = {id_: [] for id_ in wanted}
    query = select(order_lines).where(order_lines.c.order_id.in_(wanted))
    for row in tx.execute(query.order_by(order_lines.c.order_id, order_lines.c.number)).mappings():
        found[row["order_id"]].append(dict(row))
    return found


def order(row: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An order."""
    return {
        "id": row["id"],
        "state": row["state"],
        "payment_status": row["payment_status"],
        "exceptions": words(row["exceptions"]),
        "amount": row["amount_minor"],
        "amount_paid": row["paid_minor"],
        "currency": row["currency"],
        "reference": row["reference"],
        "description": row["description"],
        "lines": [
            {
                "product": line["product_id"],
                "description": line["description"],
                "quantity": line["quantity"],
                "unit_amount": line["unit_minor"],
            }
            for line in lines
        ],
        "late": row["late"],
        "restock": bool(row["restock"]),
        "beneficiary": row["beneficiary_id"],
        "live": bool(row["live"]),
        "metadata": json.loads(row["metadata"]),
        "created_at": rfc3339(row["created_at_ms"]),
        "updated_at": rfc3339(row["updated_at_ms"]),
        "expires_at": rfc3339(row["expires_at_ms"]),
        "fulfilled_at": rfc3339(row["fulfilled_at_ms"]),
        "delivered_at": rfc3339(row["delivered_at_ms"]),
        "ended_at": rfc3339(row["ended_at_ms"]),
    }


SESSIONS: Select[Any] = select(
    sessions,
    payments.c.status.label("payment_status"),
    payments.c.failure_reason.label("failure_reason"),
).outerjoin(payments, payments.c.id == sessions.c.payment_id)
"""Sessions with what `session` needs of their payment."""


def session(row: Mapping[str, Any]) -> dict[str, Any]:
    """A session, of a row as `SESSIONS` gives it. Without its secret, which nobody sees twice."""
    return {
        "id": row["id"],
        "status": status_of(row["state"], row["ended_by"], row["payment_status"]),
        "state": row["state"],
        "amount": row["amount_minor"],
        "currency": row["currency"],
        "order": row["order_id"],
        "link": row["link_id"],
        "payment": row["payment_id"],
        "description": row["description"],
        "reference": row["reference"],
        "methods": words(row["methods"]),
        "country": row["country"],
        "locale": row["locale"],
        "return_url": row["return_url"],
        "tries_left": row["tries_left"],
        "failure_reason": row["failure_reason"] if row["paid_at_ms"] is None else None,
        "live": bool(row["live"]),
        "metadata": json.loads(row["metadata"]),
        "created_at": rfc3339(row["created_at_ms"]),
        "updated_at": rfc3339(row["updated_at_ms"]),
        "expires_at": rfc3339(row["expires_at_ms"]),
        "paid_at": rfc3339(row["paid_at_ms"]),
        "ended_at": rfc3339(row["ended_at_ms"]),
    }
