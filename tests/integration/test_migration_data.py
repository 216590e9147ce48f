"""Migration 0002 over a database that was in use: what was owed is owed to the same, what was held is held."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import Connection, text

from outbox import Policy, Queue
from service import migrations
from service.database import Database
from service.ids import Ids
from service.merchants.events import WEBHOOK, News, tell
from service.migrations import current, migrate
from service.schema import outbox_tables

NOW_MS = 1_795_165_200_000
HOUR_MS = 3_600_000
WEBHOOKS = Policy(WEBHOOK, (1_000,) * 9, 30_000, 12_000, batch=50, in_flight=400, per_destination=50)
CALLBACKS = Policy("stripe", (1_000,) * 9, 70_000, 60_000, batch=50)
BODY = b"{}"


def put(tx: Connection, table: str, **values: Any) -> None:
    """A row, by the names that its columns had then."""
    names = ", ".join(values)
    marks = ", ".join(f":{name}" for name in values)
    tx.execute(text(f"INSERT INTO {table} ({names}) VALUES ({marks})"), values)


def owe(tx: Connection, name: str, to: str, state: str = "pending", topic: str = WEBHOOK, **more: Any) -> None:
    """A message; `more` says how far it has come."""
    rests = {"finished_at_ms": NOW_MS - 5} if state in ("done", "dead") else {}
    row = {"id": name, "topic": topic, "destination": to, "subject": f"evt_{name}", "payload": "", "state": state}
    put(tx, "outbox_messages", **row, **({"due_at_ms": NOW_MS - 10, "created_at_ms": NOW_MS - 20} | rests | more))


RETRIED = {"tries": 2, "claim": 2, "settled_claim": 2, "last_error": "http_500"}
LEASED = {"tries": 1, "claim": 1, "settled_claim": 0, "due_at_ms": NOW_MS + 20_000, "was_due_at_ms": NOW_MS - 10}


def fill(tx: Connection) -> None:
    """As the version before would have left it: two merchants, one of them disabled, and every state of a message."""
    at = {"created_at_ms": 1}
    put(tx, "merchants", id="mer_a", name="Awa", status="active", **at)
    put(tx, "merchants", id="mer_b", name="Binta", status="disabled", **at)
    put(tx, "merchants", id="mer_c", name="Coumba", status="active", **at)
    for id_, merchant, reason in (
        ("ep_c", "mer_c", None),
        ("ep_well", "mer_a", None),
        ("ep_left", "mer_a", None),
        ("ep_off", "mer_a", "it answered 410 Gone"),
        ("ep_idle", "mer_a", "rebuilding"),
        ("ep_b", "mer_b", "merchant disabled"),
    ):
        status = "disabled" if reason else "enabled"
        put(tx, "endpoints", id=id_, merchant_id=merchant, url="http://a/", status=status, disabled_reason=reason, **at)

    owe(tx, "c_fresh", "ep_c")
    owe(tx, "fresh", "ep_well")
    owe(tx, "retried", "ep_well", due_at_ms=NOW_MS + 60_000, **RETRIED)
    owe(tx, "leased", "ep_well", **LEASED)
    owe(tx, "done", "ep_well", "done", tries=1, claim=1, settled_claim=1)
    owe(tx, "dead", "ep_well", "dead", **RETRIED)
    owe(tx, "off_fresh", "ep_off", "held", reason="it answered 410 Gone")
    owe(tx, "off_retried", "ep_off", "held", reason="held", due_at_ms=NOW_MS + 60_000, **RETRIED)
    owe(tx, "off_leased", "ep_off", "held", reason="held", **LEASED)
    owe(tx, "off_dead", "ep_off", "dead", **RETRIED)
    owe(tx, "b_fresh", "ep_b", "held", reason="merchant disabled")
    owe(tx, "left", "ep_left", "held", reason="held")  # enabled again without what was held, as was the default
    owe(tx, "callback", "acc_test", topic="stripe")
    owe(tx, "callback_leased", "acc_test", topic="stripe", **LEASED)
    put(tx, "outbox_tries", message_id="retried", number=1, started_at_ms=1, duration_ms=1, error="http_500", head=b"")

    for live in (0, 1):
        name = "live" if live else "test"
        put(tx, "accounts", id=f"acc_{name}", provider="stripe", live=live, origin="stored", **at)
        payment = {"merchant_id": "mer_a", "origin": "provider", "status": "succeeded", "currency": "XOF"}
        amounts = {"amount_minor": 1, "provider": "stripe", "updated_at_ms": 1}
        put(tx, "payments", id=f"pay_{name}", live=live, **payment, **amounts, **at)
        callback = {"account_id": f"acc_{name}", "key": name, "provider": "stripe", "kind": "x", "status": "processed"}
        rest = {"method": "POST", "query": b"", "body": BODY, "body_sha256": b"", "received_at_ms": 1}
        put(tx, "callbacks", id=f"cb_{name}", last_seen_at_ms=1, **callback, **rest)
        event = {"merchant_id": "mer_a", "sequence": 1, "body": BODY}
        put(tx, "events", id=f"evt_paid_{name}", type="payment.succeeded", payment_id=f"pay_{name}", **event, **at)
        both = {"payment_id": f"pay_{name}", "callback_id": f"cb_{name}"}
        put(tx, "events", id=f"evt_both_{name}", type="payment.failed", **both, **event, **at)
        put(tx, "events", id=f"evt_passed_{name}", type="provider.event", callback_id=f"cb_{name}", **event, **at)


def claimed(tx: Connection, queue: Queue, policy: Policy, now_ms: int) -> dict[str, str]:
    """All that can be claimed now: whom each is owed to."""
    found: dict[str, str] = {}
    while messages := queue.claim(tx, policy, now_ms, Random(0)).messages:
        found |= {message.id: message.destination for message in messages}
    return found


def test_what_was_owed_is_owed_and_what_was_held_is_held(tmp_path: Path) -> None:
    """An event told afterwards reaches the enabled; the disabled get nothing until they are enabled, and then all."""
    scripts = tmp_path / "before"
    (scripts / "versions").mkdir(parents=True)
    shutil.copy(migrations.SCRIPTS / "env.py", scripts)
    shutil.copy(migrations.SCRIPTS / "versions" / "0001_expand_begin.py", scripts / "versions")
    queue, rows = Queue(outbox_tables), "SELECT id, * FROM outbox_messages WHERE state IN ('done', 'dead') ORDER BY id"

    async def run() -> None:
        db = await Database.open(f"sqlite:///{tmp_path}/caisse.db", on_storage_failure=pytest.fail)
        try:
            await migrate(db, scripts)
            assert await current(db) == "0001"
            await db.write(fill)
            resting = await db.read(lambda tx: {row.id: row for row in tx.execute(text(rows))})
            await migrate(db)

            news = [News("mer_a", "payment.succeeded", 1, {}), News("mer_b", "payment.succeeded", 1, {})]
            ids = await db.write(tell, queue, news, Ids(lambda: NOW_MS), NOW_MS)
            first, second = await db.write(
                lambda tx: (claimed(tx, queue, WEBHOOKS, NOW_MS), claimed(tx, queue, WEBHOOKS, NOW_MS + HOUR_MS))
            )
            new = {to: f"{WEBHOOK}:{ids[0]}:{to}:0" for to in ("ep_well", "ep_left")}
            assert first == {"c_fresh": "ep_c", "fresh": "ep_well", **{id_: to for to, id_ in new.items()}}
            assert second == first | {"retried": "ep_well", "leased": "ep_well"}, "each again after its lease"

            later_ms = NOW_MS + 2 * HOUR_MS
            for endpoint, owed in (
                ("ep_off", {"off_fresh", "off_retried", "off_leased", f"{WEBHOOK}:{ids[0]}:ep_off:0"}),
                ("ep_idle", {f"{WEBHOOK}:{ids[0]}:ep_idle:0"}),
                ("ep_b", {"b_fresh", f"{WEBHOOK}:{ids[1]}:ep_b:0"}),
            ):
                await db.write(queue.destinations.release, WEBHOOK, endpoint)
                found = await db.write(claimed, queue, WEBHOOKS, later_ms)
                assert {id_ for id_, to in found.items() if to == endpoint} == owed
            assert await db.write(claimed, queue, CALLBACKS, NOW_MS) == {"callback": ""}
            assert await db.write(claimed, queue, CALLBACKS, later_ms) == {"callback": "", "callback_leased": ""}

            after = await db.read(lambda tx: {row.id: row for row in tx.execute(text(rows))})
            assert {id_: row for id_, row in after.items() if id_ in resting} == resting
            # What its merchant did not want to be sent is kept as failed, so that it can still be recovered.
            assert after.keys() - resting.keys() == {"left"}
            assert await db.read(lambda tx: tx.execute(text("SELECT count(*) FROM outbox_tries")).scalar()) == 1
        finally:
            await db.close()

    asyncio.run(run())


def test_events_are_live_as_their_payment_or_account_is(tmp_path: Path) -> None:
    """Else a test key would read what was really paid, or miss what it may see."""
    scripts = tmp_path / "before"
    (scripts / "versions").mkdir(parents=True)
    shutil.copy(migrations.SCRIPTS / "env.py", scripts)
    shutil.copy(migrations.SCRIPTS / "versions" / "0001_expand_begin.py", scripts / "versions")

    async def run() -> None:
        db = await Database.open(f"sqlite:///{tmp_path}/caisse.db", on_storage_failure=pytest.fail)
        try:
            await migrate(db, scripts)
            await db.write(fill)
            await migrate(db)
            found = await db.read(lambda tx: tx.execute(text("SELECT id, live FROM events")).all())
            assert len(found) == 6
            assert {row.id: bool(row.live) for row in found} == {row.id: "live" in row.id for row in found}
        finally:
            await db.close()

    asyncio.run(run())
