"""A shop that reads the pull feed, and events put into it directly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import insert

from service.merchants import keys
from service.merchants.audit import By
from service.merchants.tables import events
from tests.support.service import Till, stripe_event

Answer = tuple[int, dict[str, Any], Mapping[str, str]]


def key_of(t: Till) -> str:
    """The first merchant's key, which is a test key and may do everything."""
    assert t.merchant is not None
    return t.merchant.key.key


async def ask(t: Till, query: str = "", key: str | None = None, **more: Any) -> Answer:
    """One request to the feed; every answer but 200 must be a problem."""
    headers = {"Authorization": f"Bearer {key or key_of(t)}"} | more.pop("headers", {})
    async with t.client.get(f"{t.url}/v1/events?{query}", headers=headers, **more) as answer:
        said = await answer.json(content_type=None)
        if answer.status != 200:
            assert answer.content_type == "application/problem+json"
            assert said["status"] == answer.status and said["detail"].endswith(".")
        return answer.status, said, answer.headers.copy()


async def new_key(t: Till, live: bool = False, scopes: tuple[str, ...] = ("*",)) -> keys.NewKey:
    """Another key of the first merchant."""
    assert t.merchant is not None
    merchant, by = t.merchant.id, By("test", t.app.clock(), t.app.ids)
    return await t.app.db.write(lambda tx: keys.create(tx, merchant, live, by, scopes=scopes))


async def told(t: Till, count: int, type_: str = "payment.failed", merchant: str = "", live: bool = False) -> list[str]:
    """Put events into the table as they would be told; returns their ids."""
    assert t.merchant is not None
    rows: list[dict[str, Any]] = [
        {
            "id": (id_ := t.app.ids("evt")),
            "merchant_id": merchant or t.merchant.id,
            "type": type_,
            "sequence": 1,
            "body": json.dumps({"id": id_, "type": type_}).encode(),
            "created_at_ms": t.app.clock(),
            "live": live,
        }
        for _ in range(count)
    ]
    await t.app.db.write(lambda tx: tx.execute(insert(events), rows) and None)
    return [row["id"] for row in rows]


def ids(said: Mapping[str, Any]) -> list[str]:
    """The ids of a page."""
    return [event["id"] for event in said["data"]]


async def all_ids(t: Till, query: str = "", after: str = "", key: str | None = None) -> list[str]:
    """Page until there is no more."""
    found: list[str] = []
    while True:
        status, said, _ = await ask(t, f"{query}&after={after}", key)
        assert status == 200, said
        found += ids(said)
        after = said["next"]
        if not said["more"]:
            return found


async def pay(t: Till, name: str) -> None:
    """A payment of this name succeeds at Stripe."""
    assert await t.stripe(stripe_event("payment_intent.succeeded", f"evt_{name}", intent=f"pi_{name}")) == 200
