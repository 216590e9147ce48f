"""The rows of holds: looked at, shown, and what they mean in the ledger."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from service.errors import NotFound, Refusal
from service.escrow.rules import Amounts
from service.escrow.tables import holds
from service.ledger.ledger import Entry, Kind, Move, Place, Wanted
from service.merchants.events import News, rfc3339
from service.orders.owner import Owner, find, mine, page_of

Row = Mapping[str, Any]


def of_hold(row: Row) -> Wanted:
    """What one hold should have moved in the ledger."""
    whose = row["merchant_id"], bool(row["live"]), row["currency"]
    merchant = Place(Kind.MERCHANT, row["merchant_id"], *whose)
    escrow = Place(Kind.ESCROW, row["beneficiary_id"], *whose)
    beneficiary = Place(Kind.BENEFICIARY, row["beneficiary_id"], *whose)
    return {
        Move(Entry.HOLD, merchant, escrow): row["held_minor"],
        Move(Entry.RELEASE, escrow, beneficiary): row["released_minor"],
        Move(Entry.HOLD_REFUND, escrow, merchant): row["refunded_minor"],
        Move(Entry.CLAWBACK, beneficiary, merchant): row["taken_back_minor"],
    }


def amounts(row: Row) -> Amounts:
    """A row's amounts."""
    names = "held_minor", "released_minor", "refunded_minor", "frozen_minor", "taken_back_minor"
    return Amounts(*(row[name] for name in names))


def one(tx: Connection, hold_id: str, owner: Owner | None = None) -> dict[str, Any]:
    """A query: one hold. Raises NotFound, also for another merchant's."""
    if owner is not None:
        return find(tx, holds, owner, hold_id, "hold")
    row = tx.execute(select(holds).where(holds.c.id == hold_id)).mappings().one_or_none()
    if row is None:
        raise NotFound("hold", hold_id, "caisse holds list")
    return dict(row)


def of_token(tx: Connection, order_id: str, token: str) -> dict[str, Any]:
    """A query: the hold that a buyer's token opens. Raises Refusal unauthorized for any other."""
    query = select(holds).where(holds.c.buyer == digest(token), holds.c.order_id == order_id)
    row = tx.execute(query).mappings().one_or_none()
    if row is None:
        raise Refusal("unauthorized", "This is not the buyer's token of this order.")
    return dict(row)


def listed(
    tx: Connection,
    owner: Owner,
    *,
    state: str | None = None,
    beneficiary: str | None = None,
    order: str | None = None,
    before: str = "",
    limit: int = 50,
) -> list[dict[str, Any]]:
    """A query: an owner's holds, newest first."""
    query = mine(holds, owner)
    for column, value in ((holds.c.state, state), (holds.c.beneficiary_id, beneficiary), (holds.c.order_id, order)):
        if value is not None:
            query = query.where(column == value)
    return page_of(tx, query, holds, before, limit)


def public(row: Row) -> dict[str, Any]:
    """A hold as merchants see it."""
    return {
        "id": row["id"],
        "order": row["order_id"],
        "beneficiary": row["beneficiary_id"],
        "status": row["state"],
        "live": bool(row["live"]),
        "currency": row["currency"],
        "held": row["held_minor"],
        "releasable": amounts(row).releasable_minor,
        "released": row["released_minor"],
        "refunded": row["refunded_minor"],
        "frozen": row["frozen_minor"],
        "taken_back": row["taken_back_minor"],
        "against": sorted(words(row["against"])),
        "release_at": rfc3339(row["release_at_ms"]),
        "delivered_at": rfc3339(row["delivered_at_ms"]),
        "created_at": rfc3339(row["created_at_ms"]),
        "updated_at": rfc3339(row["updated_at_ms"]),
    }


def digest(token: str) -> bytes:
    """How a token is kept: it has 256 random bits."""
    return hashlib.sha256(token.encode(errors="replace")).digest()


def told_of(row: Row, type_: str) -> News:
    """What its merchant is told."""
    return News(row["merchant_id"], type_, row["sequence"], {"hold": public(row)}, live=bool(row["live"]))


def set_aside(row: Row) -> frozenset[str]:
    """The causes that a person has overruled."""
    return frozenset(json.loads(row["overruled"] or "[]"))


def words(kept: str) -> frozenset[str]:
    """What a comma-separated column holds."""
    return frozenset(word for word in kept.split(",") if word)
