"""endpoint add | list | show | change | disable | enable | rotate-secret | test"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Connection, insert, select

from outbox.destinations import Standing
from outbox.message import Promise
from service.commands.deliveries import one as delivery
from service.commands.shape import by, told
from service.errors import Refusal
from service.merchants import endpoints
from service.merchants.events import WEBHOOK, delivery_id, rfc3339
from service.merchants.tables import events
from service.schema import outbox_tables

if TYPE_CHECKING:
    from service.application import Application
    from service.control import Progress

PIECE = 500
"""Messages changed in one transaction: few milliseconds, so that intake never waits long behind them."""

TEST_WAIT_MS = 12_000
TEST_POLL_MS = 100


_REFUSED = {
    "https_required": "it must be https, except in the networks of CAISSE_ALLOW_PRIVATE_CIDRS",
    "forbidden_address": "it is private or special; CAISSE_ALLOW_PRIVATE_CIDRS can allow its network",
    "own_port": "it is caisse's own",
    "bad_url": "it is no plain http or https address (numbers must be written the usual way)",
    "scheme": "it must be http or https",
    "user_info": "it must not hold a user name or password",
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
    return lambda tx, endpoint_id: app.queue.destinations.hold(tx, WEBHOOK, endpoint_id, reason)


def _limit(per_minute: int | str | None) -> int | None:
    """A whole number of tries a minute; `none`: no limit."""
    word = str(per_minute).strip().lower()
    if word == "none":
        return None
    limit = int(word) if re.fullmatch("[0-9]{1,9}", word) else 0
    if not 1 <= limit <= endpoints.PER_MINUTE_MAX:
        allowed = f"a whole number from 1 to {endpoints.PER_MINUTE_MAX}, or none"
        raise Refusal("bad_per_minute", f"The limit of tries a minute is {allowed}; not {word[:40]!r}.")
    return limit


async def add(
    app: Application,
    *,
    merchant: str,
    url: str,
    events: str = "*",
    schedule: str = "standard",
    per_minute: int | str | None = None,
    actor: str = "cli",
) -> dict[str, Any]:
    """Add an endpoint to a merchant; its secret is shown this once."""
    check_address(app, url)
    limit = _limit(per_minute)
    hand = by(app, actor)

    def work(tx: Connection) -> endpoints.NewEndpoint:
        made = endpoints.add(tx, merchant, url, hand, app.seal, events, schedule)
        if limit is not None:
            app.queue.destinations.limit(tx, WEBHOOK, made.id, limit)
        return made

    made = await app.db.write(work)
    return {"id": made.id, "url": made.url, "secret": made.secret}


async def listed(app: Application, *, merchant: str | None = None) -> list[dict[str, Any]]:
    """Endpoints, without their secrets."""
    now_ms = app.clock()
    d = outbox_tables.destinations.c

    def look(tx: Connection) -> list[dict[str, Any]]:
        opened = select(d.destination, d.paused_until_ms, d.opened_ms).where(d.topic == WEBHOOK, d.opened_ms > 0)
        circuits = {
            row.destination: Standing(paused_until_ms=row.paused_until_ms, opened_ms=row.opened_ms).circuit(now_ms)
            for row in tx.execute(opened)
        }
        return [{**told(row), "circuit": circuits.get(row["id"], "closed")} for row in endpoints.listed(tx, merchant)]

    return await app.db.read(look)


async def show(app: Application, *, endpoint: str) -> dict[str, Any]:
    """One endpoint: its settings, and how it stands."""
    now_ms = app.clock()

    def look(tx: Connection) -> dict[str, Any]:
        row = endpoints.one(tx, endpoint)
        stands = app.queue.destinations.standing(tx, WEBHOOK, endpoint)
        paused = stands.paused_until_ms > now_ms
        return {
            **told(row, "failing_since_ms", "warnings", "warned_at_ms"),
            "circuit": stands.circuit(now_ms),
            "held": stands.held,
            "per_minute": stands.per_minute,
            "failures_in_a_row": stands.failures,
            "failing_since": rfc3339(stands.failing_since_ms),
            "warned_at": rfc3339(row["warned_at_ms"]),
            "owed": stands.owed,
            "owed_first": stands.first,
            "owed_again": stands.again,
            "paused_until": rfc3339(stands.paused_until_ms) if paused else None,
            "next_due_at": rfc3339(stands.next_due_at_ms),
        }

    return await app.db.read(look)


async def change(
    app: Application,
    *,
    endpoint: str,
    url: str | None = None,
    events: str | None = None,
    schedule: str | None = None,
    per_minute: int | str | None = None,
    actor: str = "cli",
) -> dict[str, Any]:
    """Change an endpoint's address, filter, schedule or limit; `per_minute` "none" ends the limit."""
    if url is None and events is None and schedule is None and per_minute is None:
        raise Refusal("nothing_to_change", "Say what to change: --url, --events, --schedule or --per-minute.")
    if url is not None:
        check_address(app, url)
    limit = _limit(per_minute)
    hand = by(app, actor)

    def forgive(tx: Connection, endpoint_id: str) -> None:
        app.queue.destinations.release(tx, WEBHOOK, endpoint_id)

    def work(tx: Connection) -> None:
        endpoints.change(tx, endpoint, hand, forgive, url, events, schedule)
        if per_minute is not None:
            app.queue.destinations.limit(tx, WEBHOOK, endpoint, limit)
            hand.write_down(tx, "endpoint.limited", endpoint, f"{limit or 'none'} a minute")

    await app.db.write(work)
    return await show(app, endpoint=endpoint)


async def disable(app: Application, *, endpoint: str, reason: str = "by hand", actor: str = "cli") -> dict[str, Any]:
    """Send nothing more to an endpoint; what is owed is kept aside until it is enabled."""
    hand = by(app, actor)
    await app.db.write(lambda tx: endpoints.disable(tx, endpoint, reason, hand, holding(app, reason)))
    standing = await app.db.read(app.queue.destinations.standing, WEBHOOK, endpoint)
    return {"id": endpoint, "status": "disabled", "held": standing.owed}


async def enable(
    app: Application, *, endpoint: str, send_held: bool = True, actor: str = "cli", progress: Progress | None = None
) -> dict[str, Any]:
    """
    Send to an endpoint again, and with it what was kept aside, as fast as it takes it; retries go at once too.

    Without `send_held` what was kept aside is given up first: it counts as failed, and `deliveries recover` can bring
    it later. Long lists are worked on piece by piece; whoever is interrupted calls it again.
    """
    hand = by(app, actor)
    places = app.queue.destinations
    await app.db.read(endpoints.refuse_disabled, endpoint)

    def give_up(tx: Connection) -> int:
        if endpoints.one(tx, endpoint)["status"] != "disabled":
            return 0  # somebody else has enabled it meanwhile: it is on its way
        return places.give_up(tx, WEBHOOK, endpoint, app.clock(), PIECE, "given_up_when_enabled")

    given_up = 0
    while not send_held and (count := await app.db.write(give_up)):
        given_up += count
        if progress:
            progress(given_up, None)

    def release(tx: Connection, endpoint_id: str) -> None:
        places.release(tx, WEBHOOK, endpoint_id)

    owed = (await app.db.read(places.standing, WEBHOOK, endpoint)).owed
    await app.db.write(lambda tx: endpoints.enable(tx, endpoint, hand, release))
    app.nudge()
    while await app.db.write(places.hurry, WEBHOOK, endpoint, app.clock(), PIECE) == PIECE:
        app.nudge()
    app.nudge()
    return {"id": endpoint, "status": "enabled", "sent": owed, "given_up": given_up}


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
        app.queue.destinations.resume(tx, WEBHOOK, [endpoint])  # somebody waits for it: an open circuit tries now
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
