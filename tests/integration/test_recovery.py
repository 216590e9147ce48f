"""Recovery in bulk through the command line, with a real service and a real shop; kill -9 in the middle of it."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from service.application import Application, build
from service.merchants.events import WEBHOOK, News, tell
from service.schema import outbox_tables
from tests.crash.test_kill import caisse, create_merchant, environment, free_port, start
from tests.support.service import PATIENCE_S, Shop, Till, eventually, open_shop, settings_of, till

MANY = 3_000
PIECE = 500


def command(directory: Path, *words: str, status: int = 0, port: int = 0) -> Any:
    """The command line; its JSON, or what it said when it did not end with 0."""
    done = subprocess.run(
        caisse(directory, port, *words, "--json"), env=environment(directory, port), capture_output=True, text=True,
        cwd=Path(__file__).parents[2], check=False, timeout=90,
    )  # fmt: skip
    assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout) if status == 0 else done.stderr


async def told(app: Application, merchant: str, count: int, type_: str = "payment.succeeded") -> None:
    """Many events, promised to the merchant's endpoints, in pieces."""

    def work(tx: Connection, first: int, last: int) -> None:
        news = [News(merchant, type_, 0, {"number": number}) for number in range(first, last)]
        tell(tx, app.queue, news, app.ids, app.clock())

    for first in range(0, count, PIECE):
        await app.db.write(work, first, min(first + PIECE, count))
    app.nudge()


async def give_up(app: Application, endpoint: str) -> None:
    """What a long outage leaves behind: everything that is owed is dead."""
    while await app.db.write(app.queue.destinations.give_up, WEBHOOK, endpoint, app.clock(), PIECE, "http_500"):
        pass


def times(shop: Shop) -> Counter[str]:
    """How often each event came."""
    return Counter(headers["webhook-id"] for headers, _ in shop.got)


async def failed(running: Till, count: int) -> None:
    m = outbox_tables.messages
    until = time.monotonic() + PATIENCE_S
    while await running.count(m, m.c.topic == WEBHOOK, m.c.state == "dead") < count:
        assert time.monotonic() < until, "it did not die"
        await asyncio.sleep(0.02)


@pytest.mark.timeout(300)
def test_after_the_repair_everything_that_was_missed_comes_once(tmp_path: Path) -> None:
    """It fails, is disabled, its backlog is given up; repaired, one command brings all of it, a second nothing."""

    async def run() -> None:
        async with till(tmp_path) as running:
            assert running.merchant is not None and running.merchant.endpoint is not None
            merchant, endpoint = running.merchant.id, running.merchant.endpoint.id

            async def caisse_(*words: str, status: int = 0) -> Any:
                return await asyncio.to_thread(command, tmp_path, *words, status=status)

            await caisse_("endpoint", "change", endpoint, "--schedule", "0")
            running.shop.answer = lambda _: 500
            await told(running.app, merchant, 1)
            await failed(running, 1)  # really tried, and really dead
            await caisse_("endpoint", "disable", endpoint)
            await told(running.app, merchant, MANY)
            stands = await caisse_("endpoint", "show", endpoint)
            assert (stands["status"], stands["owed"], stands["next_due_at"]) == ("disabled", MANY, None)
            skipped = await caisse_("deliveries", "recover", "--since", "1h")
            assert (skipped["recovery"], skipped["found"]["disabled"]) == (None, 1)
            enabled = await caisse_("endpoint", "enable", endpoint, "--give-up-held")
            assert enabled["given_up"] == MANY
            running.shop.answer = lambda _: 200
            running.shop.got.clear()

            m = outbox_tables.messages
            before = await running.rows(m, m.c.topic == WEBHOOK)
            dry = await caisse_("deliveries", "recover", "--since", "1h", "--dry-run")
            assert dry["found"] == {"failed": MANY + 1, "waiting": 0, "skipped": 0, "disabled": 0}
            assert dry["endpoints"][0]["failed"] == MANY + 1
            assert await running.rows(m, m.c.topic == WEBHOOK) == before
            assert await caisse_("deliveries", "recoveries") == []

            done = (await caisse_("deliveries", "recover", "--since", "1h", "--reason", "their server is back"))[
                "recovery"
            ]
            assert (done["status"], done["sent"], done["looked"], done["total"]) == ("finished", *[MANY + 1] * 3)
            await eventually(lambda: len(times(running.shop)) == MANY + 1, shown=lambda: str(len(running.shop.got)))
            await running.settled()
            assert set(times(running.shop).values()) == {1}

            again = await caisse_("deliveries", "recover", "--since", "1h")
            assert again["recovery"] is None
            assert again["found"] == {"failed": 0, "waiting": 0, "skipped": MANY + 1, "disabled": 0}
            for words, says in (
                (("--since", "tomorrow"), "--since is"),
                (("--since", "9999-01-01"), "in the future"),
                (("--since", "1h", "--endpoint", "ep_nobody"), "caisse endpoint list"),
                (("--since", "1h", "--merchant", "mer_nobody"), "caisse merchant list"),
                (("--since", "1h", "--payment", "pay_nobody"), "caisse payments list"),
                (("--since", "1h", "--type", "payment.suceeded"), "payment.succeeded"),
            ):
                assert says in await caisse_("deliveries", "recover", *words, status=1)

    asyncio.run(run())


@pytest.mark.timeout(240)
def test_a_limited_recovery_is_paused_resumed_and_cancelled(tmp_path: Path) -> None:
    """One a minute: the first goes at once, the second would come a minute later. What waits for a retry goes too."""

    async def run() -> None:
        async with till(tmp_path) as running:
            assert running.merchant is not None and running.merchant.endpoint is not None
            endpoint = running.merchant.endpoint.id
            await asyncio.to_thread(command, tmp_path, "endpoint", "disable", endpoint)
            await told(running.app, running.merchant.id, 3)
            await asyncio.to_thread(command, tmp_path, "endpoint", "enable", endpoint, "--give-up-held")
            words = ("deliveries", "recover", "--since", "1h", "--per-minute", "1", "--no-wait")
            job = (await asyncio.to_thread(command, tmp_path, *words))["recovery"]["id"]
            await running.shop.wait_for(1)
            for option, status in (("--pause", "paused"), ("--resume", "running"), ("--cancel", "canceled")):
                told_ = await asyncio.to_thread(command, tmp_path, "deliveries", "recovery", job, option)
                assert (told_["status"], told_["sent"]) == (status, 1)
            said = await asyncio.to_thread(command, tmp_path, "deliveries", "recovery", job, "--resume", status=1)
            assert "begin a new one" in said
            (listed,) = await asyncio.to_thread(command, tmp_path, "deliveries", "recoveries")
            assert listed["status"] == "canceled"

            running.shop.answer = lambda _: 500
            running.shop.got.clear()
            words = ("endpoint", "change", endpoint, "--schedule", "3600")
            await asyncio.to_thread(command, tmp_path, *words)
            await told(running.app, running.merchant.id, 1, "payment.failed")
            await running.shop.wait_for(1)
            await running.settled()
            running.shop.answer = lambda _: 200
            words = ("deliveries", "recover", "--since", "1h", "--type", "payment.failed")
            done = (await asyncio.to_thread(command, tmp_path, *words))["recovery"]
            assert (done["status"], done["sent"], done["hurried"]) == ("finished", 0, 1)
            await running.shop.wait_for(2)
            assert len(times(running.shop)) == 1

    asyncio.run(run())


@pytest.mark.timeout(300)
def test_kill_9_in_the_middle_and_it_goes_on_where_it_was(tmp_path: Path) -> None:
    """Stored without a service, begun by its start, killed twice on the way: each is promised once, and all arrive."""
    port = free_port()
    kills = 0

    async def outage() -> None:
        app = build(settings_of(tmp_path))
        await app.open()
        try:
            (endpoint,) = await app.db.read(
                lambda tx: tx.exec_driver_sql("SELECT id, merchant_id FROM endpoints").all()
            )
            await told(app, endpoint[1], MANY)
            await give_up(app, endpoint[0])
        finally:
            await app.close()

    def job() -> tuple[str, int, int]:
        with sqlite3.connect(tmp_path / "caisse.db") as database:
            found = database.execute("SELECT status, looked, sent FROM recoveries").fetchone()
        database.close()
        return found  # type: ignore[no-any-return]

    async def run() -> None:
        nonlocal kills
        async with open_shop() as shop:
            await asyncio.to_thread(create_merchant, tmp_path, port, shop.url)
            await outage()
            # Three hundred a second: the middle lasts seconds, so that a slow machine finds it too.
            words = ("deliveries", "recover", "--since", "1h", "--per-minute", "18000")
            stored = (await asyncio.to_thread(command, tmp_path, *words, port=port))["recovery"]
            assert (stored["status"], stored["served"], stored["total"]) == ("running", False, MANY)
            for until in (300, 900):
                server = await asyncio.to_thread(start, tmp_path, port)
                await eventually(lambda until=until: job()[1] >= until)  # type: ignore[misc]
                server.kill()
                await asyncio.to_thread(server.wait)
                kills += job()[0] == "running"
            server = await asyncio.to_thread(start, tmp_path, port)
            try:
                await eventually(lambda: job()[0] == "finished", shown=lambda: str(job()))
                await eventually(lambda: len(times(shop)) == MANY, shown=lambda: str(len(times(shop))))
            finally:
                server.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(server.wait) == 0

    asyncio.run(run())
    assert kills == 2, "no kill came in the middle: this run has proved nothing"
    assert job() == ("finished", MANY, MANY)
    with sqlite3.connect(tmp_path / "caisse.db") as database:
        numbers = database.execute(
            "SELECT substr(id, -2), state, count(*) FROM outbox_messages WHERE topic = 'webhook' GROUP BY 1, 2"
        ).fetchall()
    database.close()
    assert numbers == [(":0", "dead", MANY), (":1", "done", MANY)]
