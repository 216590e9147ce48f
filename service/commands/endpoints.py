"""endpoint add | list | disable | enable | rotate-secret | test"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Connection, insert

from outbox.message import Promise
from service.commands.deliveries import one as delivery
from service.commands.shape import by, told
from service.errors import Refusal
from service.merchants import endpoints
from service.merchants.events import WEBHOOK, delivery_id, rfc3339
from service.merchants.tables import events

if TYPE_CHECKING:
    from service.application import Application

TEST_WAIT_MS = 12_000
TEST_POLL_MS = 100


_REFUSED = {
    "https_required": "it must be https, except in the networks of CAISSE_ALLOW_PRIVATE_CIDRS",
    "forbidden_address": "it is private or special; CAISSE_ALLOW_PRIVATE_CIDRS can allow its network",
    "own_port": "it is caisse's own",
    "port": "nothing that takes webhooks listens on its port",
}


def check_address(app: Application, url: str) -> None:
    """Say at once what the guard would refuse at every delivery."""
    refused = app.guard.check_url(url)
    if refused:
        why = _REFUSED.get(refused, refused.replace("_", " "))
        raise Refusal("address_refused", f"Webhooks may not be sent to this address: {why}.")


def holding(app: Application, reason: str) -> endpoints.Hold:
    """Keep aside what is owed to an endpoint, inside the transaction that disables it."""
    return lambda tx, endpoint_id: app.queue.hold(tx, WEBHOOK, endpoint_id, reason)


async def add(
    app: Application,
    *,
    merchant: str,
    url: str,
    events: str = "*",
    schedule: str = "standard",
    actor: str = "cli",
) -> dict[str, Any]:
    """Add an endpoint to a merchant; its secret is shown this once."""
    check_address(app, url)
    hand = by(app, actor)
    made = await app.db.write(lambda tx: endpoints.add(tx, merchant, url, hand, app.seal, events, schedule))
    return {"id": made.id, "url": made.url, "secret": made.secret}


async def listed(app: Application, *, merchant: str | None = None) -> list[dict[str, Any]]:
    """Endpoints, without their secrets."""
    return [told(row) for row in await app.db.read(endpoints.listed, merchant)]


async def disable(app: Application, *, endpoint: str, reason: str = "by hand", actor: str = "cli") -> dict[str, Any]:
    """Send nothing more to an endpoint; what is owed is kept aside until it is enabled."""
    hand = by(app, actor)
    held = await app.db.write(lambda tx: endpoints.disable(tx, endpoint, reason, hand, holding(app, reason)))
    return {"id": endpoint, "status": "disabled", "held": held}


async def enable(app: Application, *, endpoint: str, send_held: bool = False, actor: str = "cli") -> dict[str, Any]:
    """Send to an endpoint again; `send_held` also sends what was kept aside."""
    hand = by(app, actor)

    def release(tx: Connection, endpoint_id: str) -> int:
        return app.queue.release(tx, WEBHOOK, endpoint_id, hand.now_ms)

    sent = await app.db.write(lambda tx: endpoints.enable(tx, endpoint, hand, release if send_held else None))
    app.nudge()
    return {"id": endpoint, "status": "enabled", "sent": sent}


async def rotate_secret(
    app: Application, *, endpoint: str, overlap_hours: float = 24, actor: str = "cli"
) -> dict[str, Any]:
    """Make a new secret; the old one signs too until the overlap is over."""
    hand = by(app, actor)
    if not 0 <= overlap_hours <= 720:
        raise Refusal("bad_overlap", "The overlap is between 0 and 720 hours.")
    overlap_ms = round(overlap_hours * 3_600_000)
    secret = await app.db.write(lambda tx: endpoints.rotate(tx, endpoint, hand, app.seal, overlap_ms))
    return {"id": endpoint, "secret": secret, "old_ends_at": rfc3339(hand.now_ms + overlap_ms)}


async def test(app: Application, *, endpoint: str, actor: str = "cli") -> dict[str, Any]:
    """Send an `endpoint.test` event to one endpoint and, while the service runs, wait for what it answers."""
    hand = by(app, actor)

    def promise(tx: Connection) -> str:
        row = endpoints.one(tx, endpoint)
        if row["status"] != "enabled":
            raise Refusal("endpoint_disabled", f"{endpoint} is disabled; `caisse endpoint enable {endpoint}` first.")
        event_id = hand.ids("evt")
        body = {"id": event_id, "type": "endpoint.test", "created_at": rfc3339(hand.now_ms), "sequence": 0}
        tx.execute(
            insert(events).values(
                id=event_id,
                merchant_id=row["merchant_id"],
                type="endpoint.test",
                sequence=0,
                body=msgspec.json.encode({**body, "data": {"endpoint": endpoint}}),
                created_at_ms=hand.now_ms,
            )
        )
        message = delivery_id(event_id, endpoint)
        app.queue.enqueue(tx, [Promise(message, WEBHOOK, endpoint, event_id)], hand.now_ms)
        hand.write_down(tx, "endpoint.tested", endpoint)
        return message

    message = await app.db.write(promise)
    app.nudge()
    waited_ms = 0
    while True:
        found = await app.db.read(delivery, message, app.clock())
        if app.dispatcher is None or found["last_try_at"] or waited_ms >= TEST_WAIT_MS:
            return {"endpoint": endpoint, **found}
        await asyncio.sleep(TEST_POLL_MS / 1000)
        waited_ms += TEST_POLL_MS
