"""Merchants: whom payments belong to and events are told. The first one adopts the accounts that the settings made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from service.errors import NotFound, Refusal
from service.merchants import endpoints as merchant_endpoints
from service.merchants import keys
from service.merchants.audit import By
from service.merchants.tables import accounts, endpoints, merchants
from service.seal import Seal

NAME_CHARACTERS_MAX = 100

Revive = Callable[[Connection, str], object]
"""`revive(tx, account_id)`: callbacks that waited for the account to have a merchant are worked on now."""


@dataclass(frozen=True, slots=True)
class NewMerchant:
    """A merchant with its key and endpoint, this once."""

    id: str
    key: keys.NewKey
    endpoint: merchant_endpoints.NewEndpoint | None = None
    adopted: tuple[str, ...] = field(default=())


def create(
    tx: Connection,
    name: str,
    live: bool,
    by: By,
    seal: Seal,
    revive: Revive,
    url: str | None = None,
    events: str = merchant_endpoints.ALL,
) -> NewMerchant:
    """Create a merchant with a key and, given a URL, an endpoint: one transaction, so none is there without its key."""
    name = name.strip()
    if not name or len(name) > NAME_CHARACTERS_MAX or not name.isprintable():
        raise Refusal("bad_name", f"A merchant's name has 1 to {NAME_CHARACTERS_MAX} printable characters.")
    first = tx.execute(select(func.count()).select_from(merchants)).scalar_one() == 0
    merchant_id = by.ids("mer")
    tx.execute(insert(merchants).values(id=merchant_id, name=name, status="active", created_at_ms=by.now_ms))
    by.write_down(tx, "merchant.created", merchant_id)
    key = keys.create(tx, merchant_id, live, by, name="first")
    endpoint = merchant_endpoints.add(tx, merchant_id, url, by, seal, events) if url else None
    # After the endpoint, so that what the waiting callbacks tell is promised to it.
    return NewMerchant(merchant_id, key, endpoint, _adopt(tx, merchant_id, by, revive) if first else ())


def _adopt(tx: Connection, merchant_id: str, by: By, revive: Revive) -> tuple[str, ...]:
    orphans = (accounts.c.origin == "settings", accounts.c.merchant_id.is_(None))
    adopted = tuple(tx.execute(select(accounts.c.id).where(*orphans).order_by(accounts.c.id)).scalars())
    tx.execute(update(accounts).where(*orphans).values(merchant_id=merchant_id))
    for account_id in adopted:
        by.write_down(tx, "account.adopted", account_id, merchant_id)
        revive(tx, account_id)
    return adopted


def one(tx: Connection, merchant_id: str) -> dict[str, Any]:
    """One merchant; NotFound says how to list them."""
    row = tx.execute(select(merchants).where(merchants.c.id == merchant_id)).one_or_none()
    if row is None:
        raise NotFound("merchant", merchant_id, "caisse merchant list")
    return dict(row._mapping)


def listed(tx: Connection) -> list[dict[str, Any]]:
    """All merchants, with how many endpoints each has."""
    count = select(func.count()).where(endpoints.c.merchant_id == merchants.c.id).scalar_subquery()
    query = select(merchants, count.label("endpoints")).order_by(merchants.c.id)
    return [dict(row._mapping) for row in tx.execute(query)]


def disable(tx: Connection, merchant_id: str, reason: str, by: By, hold: merchant_endpoints.Hold) -> bool:
    """
    Refuse the merchant's keys and keep its webhooks aside. Callbacks about its payments are still taken: money that
    moves is recorded whoever asked for it. False when it was disabled before.
    """
    if one(tx, merchant_id)["status"] == "disabled":
        return False
    tx.execute(update(merchants).where(merchants.c.id == merchant_id).values(status="disabled"))
    by.write_down(tx, "merchant.disabled", merchant_id, reason)
    for endpoint in merchant_endpoints.listed(tx, merchant_id):
        merchant_endpoints.disable(tx, endpoint["id"], "merchant disabled", by, hold)
    return True
