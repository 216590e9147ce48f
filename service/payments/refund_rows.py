"""The rows of refunds: looked at, shown, and moved from state to state with what a person has to see of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, Select, select, update

from service.attention import close_attention, open_attention
from service.errors import NotFound, Refusal
from service.ids import Ids
from service.merchants.events import News, rfc3339
from service.payments.refund_match import NOTHING_WENT, WITHOUT_AN_END
from service.payments.states import RefundState
from service.payments.tables import attempts, payments, refunds

LISTED_AT_MOST: Final = 500

MANUAL, FAILED, UNKNOWN, STUCK, NOT_OURS = (
    *("refund_manual", "refund_failed", "refund_unknown"),
    *("refund_stuck", "refund_not_ours"),
)
"""Why a refund is before a person."""
_WHILE_OPEN = (MANUAL, UNKNOWN, STUCK)

Row = Mapping[str, Any] | RowMapping

_SHOWN: Select[Any] = (
    select(
        *(refunds, attempts.c.provider, attempts.c.account_id, payments.c.merchant_id, payments.c.live),
    )
    .join(attempts, attempts.c.id == refunds.c.attempt_id)
    .join(payments, payments.c.id == refunds.c.payment_id)
)


def one(tx: Connection, refund_id: str, merchant_id: str | None = None, live: bool | None = None) -> dict[str, Any]:
    """A query: one refund with its `provider`, `account_id`, `merchant_id`, `live`. Raises NotFound."""
    row = tx.execute(_SHOWN.where(refunds.c.id == refund_id)).mappings().one_or_none()
    if row is None or merchant_id not in (None, row["merchant_id"]) or live not in (None, bool(row["live"])):
        raise NotFound("refund", refund_id, "caisse refunds list")
    return dict(row)


def of_payment(tx: Connection, payment_id: str) -> list[dict[str, Any]]:
    """A query: the refunds of a payment, the oldest first."""
    query = _SHOWN.where(refunds.c.payment_id == payment_id).order_by(refunds.c.id).limit(LISTED_AT_MOST)
    return [dict(row) for row in tx.execute(query).mappings()]


def listed(
    tx: Connection,
    *,
    merchant_id: str | None = None,
    live: bool | None = None,
    payment_id: str | None = None,
    status: str | None = None,
    before: str | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """A query: refunds, the newest first; `before` is the last id of the page before. Raises Refusal unknown_status."""
    if status is not None and status not in tuple(RefundState):
        raise Refusal("unknown_status", f"There is no status {status[:30]!r}; there are {', '.join(RefundState)}.")
    query = _SHOWN.order_by(refunds.c.id.desc()).limit(min(limit, LISTED_AT_MOST))
    wanted = (
        (payments.c.merchant_id, merchant_id),
        (payments.c.live, live),
        (refunds.c.payment_id, payment_id),
        (refunds.c.state, status),
    )
    for column, value in wanted:
        if value is not None:
            query = query.where(column == value)
    if before is not None:
        query = query.where(refunds.c.id < before)
    return [dict(row) for row in tx.execute(query).mappings()]


def public(row: Row) -> dict[str, Any]:
    """A refund as merchants see it: in events, the API and `--json`."""
    return {
        "id": row["id"],
        "payment": row["payment_id"],
        "status": row["state"],
        "origin": row["origin"],
        "live": bool(row["live"]),
        "amount": row["amount_minor"],
        "currency": row["currency"],
        "manual": bool(row["manual"]),
        "provider": row["provider"],
        "provider_reference": row["provider_reference"],
        "reason": row["reason"],
        "failure_reason": row["failure_reason"],
        "created_at": rfc3339(row["created_at_ms"]),
        "updated_at": rfc3339(row["updated_at_ms"]),
    }


def move(
    tx: Connection,
    row: Row,
    state: RefundState,
    ids: Ids,
    now_ms: int,
    *,
    name: str | None = None,
    amount_minor: int | None = None,
    failure_reason: str | None = None,
) -> list[News]:
    """
    Write what a refund has become, with what a person has to see of it. Returns the news, none if nothing changed.

    `row` as `one` gives it. Nothing is written when somebody else has moved it meanwhile.
    """
    values: dict[str, Any] = {"state": state.value, "provider_reference": name or row["provider_reference"]}
    values["amount_minor"] = amount_minor or row["amount_minor"]
    if state in NOTHING_WENT:
        values["failure_reason"] = failure_reason or row["failure_reason"]
    if all(row[column] == value for column, value in values.items()):
        return []
    here = (refunds.c.id == row["id"], refunds.c.version == row["version"])
    values |= {"updated_at_ms": now_ms, "version": row["version"] + 1}
    if not tx.execute(update(refunds).where(*here).values(values)).rowcount:
        return []
    if state not in WITHOUT_AN_END:
        for reason in _WHILE_OPEN:
            close_attention(tx, row["id"], reason, now_ms)
    if state == row["state"]:
        return []
    if state is RefundState.FAILED:
        open_attention(tx, ids, row["id"], FAILED, values["failure_reason"] or "", now_ms)
    told = {RefundState.SUCCEEDED: "refund.succeeded"} | dict.fromkeys(NOTHING_WENT, "refund.failed")
    return [told_of({**row, **values}, told[state])] if state in told else []


def told_of(row: Row, type_: str) -> News:
    """`sequence` counts the changes of the refund, not the payment's events."""
    data = {"refund": public(row)}
    return News(row["merchant_id"], type_, row["version"], data, row["payment_id"], live=bool(row["live"]))
