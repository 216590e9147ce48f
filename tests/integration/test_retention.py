"""Retention in a running service: pruning under traffic, the run of the night, and the command."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import update

from service.callbacks.tables import callbacks
from service.commands import run as command
from service.jobs.jobs import jobs as every_job
from service.merchants.tables import events
from service.retention import DAY_MS, PRUNE
from service.schema import outbox_tables
from tests.support.service import Till, eventually, stripe_event, till

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
        async with till(tmp_path, jobs=every_job) as t:
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


def test_the_night_comes_by_itself(tmp_path: Path) -> None:
    """The job is due at half past two; what it promises is done by the service without being asked."""

    async def run() -> None:
        async with till(tmp_path, jobs=every_job) as t:
            assert await t.stripe(stripe_event("payment_intent.succeeded")) == 200
            await t.shop.wait_for(1)
            await t.settled()
            await age(t, 91)
            (job,) = [one for one in await command(t.app, "jobs.list", {}) if one["name"] == PRUNE]
            assert (job["schedule"], job["zone"]) == ("30 2 * * *", "Europe/Paris")
            due_at = datetime.fromisoformat(job["next_run_at"])
            await t.app.scheduler.run_due(round(due_at.timestamp() * 1000))
            await eventually_empty(t)
            await t.settled()
            assert await t.count(messages, messages.c.topic == PRUNE, messages.c.state == "pending") == 0
            assert await t.count(tries) == 0
            (run,) = await command(t.app, "jobs.runs", {"job": PRUNE})
            assert (run["state"], run["counters"], run["by"]) == ("done", {"promised": 1, "under_way": 0}, "clock")

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
        async with till(tmp_path, keep_work_days="0", jobs=every_job) as t:
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
                              "quarantine": 0, "keys": 0, "runs": 0}  # fmt: skip
            by_name = {row["what"]: row for row in went["went"]}
            assert (by_name["work"]["days"], by_name["work"]["setting"]) == (0, "CAISSE_KEEP_WORK_DAYS")
            (job,) = [one for one in await command(t.app, "jobs.list", {}) if one["name"] == PRUNE]
            assert went["next_at"] == job["next_run_at"]
            assert looked == sorted(looked)
            assert await t.count(events) == 0
            json.dumps(went)

    asyncio.run(run())
