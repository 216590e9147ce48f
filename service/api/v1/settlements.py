"""`/v1/settlements`: what providers have sent to the merchant's bank."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection

from service.api.v1.kit import Call, Resource
from service.api.v1.lists import PageQuery, page
from service.api.v1.shapes import Currency, Id, Text, Time, time_ms
from service.ledger import settlements
from service.ledger.settlements import REFERENCE_MAX, public
from service.payments.facts import AMOUNT_MINOR_MAX

SETTLEMENTS = Resource("settlements")
READ, WRITE = "settlements:read", "settlements:write"


class NewSettlement(msgspec.Struct, forbid_unknown_fields=True):
    """Money that moved between a provider and your bank. `amount` below 0: you sent it to the provider."""

    account: Id
    amount: Annotated[int, Meta(ge=-AMOUNT_MINOR_MAX, le=AMOUNT_MINOR_MAX, description="Minor units, not 0.")]
    currency: Currency
    reference: Annotated[
        str, Meta(min_length=1, max_length=REFERENCE_MAX, description="The bank's; recorded once for an account.")
    ]
    fee: Annotated[int, Meta(ge=0, le=AMOUNT_MINOR_MAX, description="What the provider kept besides.")] = 0
    settled_at: Time | None = None
    note: Text = ""


class Settlement(msgspec.Struct):
    """A settlement."""

    id: str
    account: str
    live: bool
    amount: int
    currency: str
    fee: int
    reference: str
    note: str
    recorded_by: str
    settled_at: str
    created_at: str


class Settlements(msgspec.Struct):
    """A page; `next` goes into the next request's `after`."""

    data: list[Settlement]
    next: str
    more: bool


class SettlementsQuery(PageQuery, kw_only=True):
    """Which settlements."""

    account: Id | UnsetType = UNSET


@SETTLEMENTS.post("/settlements", WRITE, Settlement, status=201)
async def create_settlement(call: Call, body: NewSettlement) -> Any:
    """Record that a provider has paid your bank, or your bank the provider.

    The same reference with the same amounts again changes nothing; with others it is refused.
    """
    at_ms = None if body.settled_at is None else time_ms("settled_at", body.settled_at)
    draft = settlements.Settlement(body.account, body.amount, body.currency, body.reference, at_ms, body.fee, body.note)
    hand = call.by
    return await call.write(lambda tx: public(settlements.record(tx, draft, hand, call.caller, call.app.queue)))


@SETTLEMENTS.get("/settlements", READ, Settlements)
async def list_settlements(call: Call, query: SettlementsQuery) -> Any:
    """Settlements, the newest recorded first."""
    account = None if query.account is UNSET else str(query.account)

    def look(tx: Connection) -> dict[str, Any]:
        def fetch(before: str, limit: int) -> list[dict[str, Any]]:
            return settlements.listed(tx, call.caller, account=account, before=before, limit=limit)

        return page(query, fetch, public)

    return await call.read(look)
