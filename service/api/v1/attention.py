"""`/v1/attention`: the one list of what needs a person, in plain words, and what a person can do about it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection

from service.api.v1.kit import Call, Resource
from service.api.v1.lists import PageQuery, page
from service.api.v1.shapes import Amount, Id
from service.attention import listing
from service.commands import attention as commands
from service.merchants.audit import REASON_CHARACTERS_MAX

ATTENTION = Resource("attention")
READ, WRITE = "attention:read", "attention:write"

Action = Literal["revive", "refund", "attach", "ignore"]


class Item(msgspec.Struct):
    """A matter. `words` says in a sentence what it is; `actions` are the ones that fit."""

    id: str
    reason: str
    subject: str
    subject_type: str
    payment: str | None
    words: str
    detail: str
    since: str
    actions: list[str]


class Items(msgspec.Struct):
    """A page; `next` goes into the next request's `after`."""

    data: list[Item]
    next: str
    more: bool


class ItemsQuery(PageQuery, kw_only=True):
    """Which matters, and in which language."""

    reason: Annotated[str, Meta(max_length=60)] | UnsetType = UNSET
    lang: Literal["en", "fr"] = "en"


class Doing(msgspec.Struct, forbid_unknown_fields=True):
    """What is done, and why. `order` for attach; `amount` for a refund of a part."""

    action: Action
    reason: Annotated[str, Meta(max_length=REASON_CHARACTERS_MAX)] = ""
    order: Id | None = None
    amount: Amount | None = None


class Done(msgspec.Struct):
    """The matter is closed."""

    id: str
    action: Action
    closed_at: str | None
    refund: dict[str, Any] | UnsetType = UNSET


@ATTENTION.get("/attention", READ, Items)
async def list_attention(call: Call, query: ItemsQuery) -> Any:
    """What needs a person, the newest first."""
    whose: dict[str, Any] = {"merchant_id": call.caller.merchant_id, "live": call.caller.live, "lang": query.lang}
    reason = query.reason or None

    def look(tx: Connection) -> dict[str, Any]:
        def fetch(before: str, limit: int) -> list[dict[str, Any]]:
            return listing.listed(tx, **whose, reason=reason, before=before or None, limit=limit)

        return page(query, fetch, _public, key="cursor")

    return await call.read(look)


@ATTENTION.get("/attention/{item}", READ, Item)
async def get_attention(call: Call, item: str) -> Any:
    """One matter."""

    def look(tx: Connection) -> dict[str, Any]:
        return _public(listing.one(tx, item, call.caller.merchant_id, call.caller.live))

    return await call.read(look)


@ATTENTION.post("/attention/{item}", WRITE, Done)
async def act_on_attention(call: Call, item: str, body: Doing) -> Any:
    """Do something about a matter, with a reason; that closes it.

    revive: run it again, or take the order's money after all. refund: give it back. attach: the money belongs to
    another order. ignore: nothing is to be done.
    """
    await call.once.mark(item)
    return await commands.act(
        call.app,
        item=item,
        action=body.action,
        reason=body.reason,
        order=body.order,
        amount=body.amount,
        merchant=call.caller.merchant_id,
        live=call.caller.live,
        actor=call.actor,
    )


def _public(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name not in ("merchant", "cursor")}
