"""`/v1/merchants`: the merchant that the key belongs to, and what the key may do."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from sqlalchemy import Connection

from service.api.v1.kit import Call, Resource
from service.api.v1.lists import PageQuery, page
from service.api.v1.reading import not_found
from service.merchants import merchants
from service.merchants.events import rfc3339

MERCHANTS = Resource("merchants")
READ = "merchants:read"


class Merchant(msgspec.Struct):
    """A merchant, and the key that asked."""

    id: str
    name: str
    status: Literal["active", "disabled"]
    created_at: str
    live: bool
    scopes: list[str]


class Merchants(msgspec.Struct):
    """A page, of one."""

    data: list[Merchant]
    next: str
    more: bool


@MERCHANTS.get("/merchants", READ, Merchants)
async def list_merchants(call: Call, query: PageQuery) -> dict[str, Any]:
    """The merchant that this key belongs to."""
    mine = await call.read(_shown, call)
    return page(query, lambda before, _: [mine] if not before or mine["id"] < before else [])


@MERCHANTS.get("/merchants/{merchant}", READ, Merchant)
async def get_merchant(call: Call, merchant: str) -> Any:
    """The same, by its id."""
    if merchant != call.caller.merchant_id:
        raise not_found("merchant")
    return await call.read(_shown, call)


def _shown(tx: Connection, call: Call) -> dict[str, Any]:
    row = merchants.one(tx, call.caller.merchant_id)
    return {
        "id": row["id"],
        "name": row["name"],
        "status": row["status"],
        "created_at": rfc3339(row["created_at_ms"]),
        "live": call.caller.live,
        "scopes": sorted(call.caller.scopes),
    }
