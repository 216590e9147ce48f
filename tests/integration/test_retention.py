"""Retention in a running service: pruning under traffic, the run of the night, and the command."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from sqlalchemy import delete, update

from service.application import build
from service.callbacks.tables import callbacks
from service.commands import run as command
from service.ids import now_ms
from service.merchants.tables import events
from service.retention import AT_MS, DAY_MS, PRUNE
from service.schema import outbox_tables
from tests.support.service import ALL, Till, eventually, settings_of, stripe_event, till

messages, tries, _ = outbox_tables


async def age(t: Till, days: int) -> None:
    """Put everything that is there so many days into the past, all but the night's run."""
    ms = days * DAY_MS

    def work(tx: Any) -> None:
        tx.execute(update(events).values(created_at_ms=events.c.created_at_ms - ms))
        ended = messages.c.finished_at_ms.is_not(None)
        tx.execute(update(messages).where(ended).values(finished_at_ms=messages.c.finished_at_ms - ms))

    await t.app.db.write(work)


def test_a_prune_during_delivery_takes_nothing_that_is_owed(tmp_path: Path) -> None:
    """
    A shop that fails now and then, callbacks coming in, everything that ends put a year back and pruned at once: every
    event still reaches the shop, each failed one again, and none twice.
    """

    async def run() -> None:
        async with till(tmp_path) as t:
            seen: dict[str, int] = {}

            taken: set[str] = set()

            def answer(event: dict[str, Any]) -> int:
                seen[event["id"]] = seen.get(event["id"], 0) + 1
                if seen[event["id"]] == 1 and len(seen) % 5 == 0:
                    return 503  # not five in a row: the circuit stays closed
                taken.add(event["id"])
                return 200

            t.shop.answer = answer
            pruned = 0
            over = asyncio.Event()

            async def prune_all_the_time() -> None:
                nonlocal pruned
                while not over.is_set():
                    await age(t, 400)
                    went = await command(t.app, "prune", {})
                    pruned += {row["what"]: row["count"] for row in went["went"]}["events"]
                    t.app.nudge()
                    await asyncio.sleep(0.01)

            pruning = asyncio.create_task(prune_all_the_time())
            for number in range(60):
                body = stripe_event("payment_intent.succeeded", f"evt_{number}", intent=f"pi_{number}")
                assert await t.stripe(body) == 200
            await eventually(lambda: len(taken) >= 60, 30.0, lambda: f"{len(taken)} of 60")
            over.set()
            await pruning
            await t.settled()
            assert len(seen) == 60
            assert sum(seen.values()) == 72
            assert pruned > 0
            assert await t.count(callbacks, callbacks.c.status == "processed") == 60
            assert await t.count(messages, messages.c.state == "dead") == 0

    asyncio.run(run())


def test_the_night_comes_by_itself_and_promises_the_next(tmp_path: Path) -> None:
    """A service that is there at night prunes without being asked; the run is promised once, over restarts too."""

    async def run() -> None:
        for _ in range(2):
            app = build(settings_of(tmp_path, **ALL))
            await app.start()
            try:
                prunes = await app.db.read(
                    lambda tx: tx.execute(messages.select().where(messages.c.topic == PRUNE)).all()
                )
                assert [(row.state, row.due_at_ms % DAY_MS) for row in prunes] == [("pending", AT_MS)]
            finally:
                await app.stop()
        async with till(tmp_path) as t:
            assert await t.stripe(stripe_event("payment_intent.succeeded")) == 200
            await t.shop.wait_for(1)
            await t.settled()
            await age(t, 91)
            await t.app.db.write(
                lambda tx: tx.execute(update(messages).where(messages.c.topic == PRUNE).values(due_at_ms=now_ms()))
            )
            t.app.nudge()
            await eventually_empty(t)
            await t.settled()
            rows = await t.rows(messages, messages.c.topic == PRUNE, messages.c.state == "pending")
            assert [row.due_at_ms > now_ms() for row in rows] == [True]
            assert await t.count(tries) == 0

    asyncio.run(run())


async def eventually_empty(t: Till) -> None:
    for _ in range(1000):
        if not await t.count(events):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the event is still there")


def test_the_command_tells_what_would_go_and_then_what_went(tmp_path: Path) -> None:
    """The dry run changes nothing; both tell the same; settings and days stand beside the counts."""

    async def run() -> None:
        async with till(tmp_path, keep_work_days="0") as t:
            assert await t.stripe(stripe_event("payment_intent.succeeded")) == 200
            await t.shop.wait_for(1)
            await t.settled()
            await age(t, 91)
            would = await command(t.app, "prune", {"dry_run": True})
            assert await t.count(events) == 1
            looked: list[int] = []
            went = await command(t.app, "prune", {}, lambda done, _: looked.append(done))
            assert went["went"] == would["went"]
            counts = {row["what"]: row["count"] for row in went["went"]}
            assert counts == {"events": 1, "deliveries": 1, "work": 0, "tries": 1, "bodies": 0, "callbacks": 0,
                              "quarantine": 0, "keys": 0}  # fmt: skip
            by_name = {row["what"]: row for row in went["went"]}
            assert (by_name["work"]["days"], by_name["work"]["setting"]) == (0, "CAISSE_KEEP_WORK_DAYS")
            assert went["next_at"].endswith("T02:30:00.000Z")
            assert looked == sorted(looked)
            assert await t.count(events) == 0
            json.dumps(went)

    asyncio.run(run())


def test_a_missing_run_is_promised_at_the_next_start(tmp_path: Path) -> None:
    """Somebody deleted it by hand."""

    async def run() -> None:
        async with till(tmp_path) as t:
            await t.app.db.write(lambda tx: tx.execute(delete(messages).where(messages.c.topic == PRUNE)))
        async with till(tmp_path, merchant=False) as t:
            assert await t.count(messages, messages.c.topic == PRUNE, messages.c.state == "pending") == 1

    asyncio.run(run())
