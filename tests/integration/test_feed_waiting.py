"""Waiting at the pull feed: what wakes a poll, what ends it, how many may wait; and a reader during writes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import select

from service import commands, feed
from service.api import site
from service.merchants import keys
from service.merchants.audit import By
from service.merchants.merchants import NewMerchant
from service.merchants.tables import events
from tests.support.feed import ask, ids, key_of, new_key, pay, told
from tests.support.service import PATIENCE_S, Till, eventually, till


def test_a_waiting_poll_is_woken_by_what_it_waits_for_and_by_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A callback wakes it and a command does; another merchant's events and other types do not."""
    monkeypatch.setattr(feed, "LOOK_MS", 60_000)  # the commit itself must be heard of

    async def run() -> None:
        async with till(tmp_path) as t:
            app = t.app
            other = await t.create_merchant("Other")
            polls = [
                asyncio.create_task(ask(t, query, key))
                for query, key in (
                    ("wait=30", None),
                    ("wait=30&types=payment.disputed", None),
                    ("wait=30&types=endpoint.test", None),
                    ("wait=30", other.key.key),
                )
            ]
            await eventually(lambda: app.feed.waiting == 4)
            await told(t, 1, "payment.disputed", live=True)
            app.nudge()
            await asyncio.sleep(0.1)
            assert app.feed.waiting == 4 and not any(poll.done() for poll in polls)

            await pay(t, "1")
            _, said, _ = await asyncio.wait_for(polls[0], PATIENCE_S)
            assert [event["type"] for event in said["data"]] == ["payment.succeeded"]
            assert app.feed.waiting == 3

            (disputed,) = await told(t, 1, "payment.disputed")
            app.nudge()
            assert ids((await asyncio.wait_for(polls[1], PATIENCE_S))[1]) == [disputed]
            (tested,) = await told(t, 1, "endpoint.test")
            app.nudge()
            assert ids((await asyncio.wait_for(polls[2], PATIENCE_S))[1]) == [tested]
            assert not polls[3].done()
            await commands.run(app, "endpoint.test", {"endpoint": (await endpoint_of(t, other))})
            # A live event by its default, and a test key: this one goes on waiting.
            assert not polls[3].done()
            await told(t, 1, merchant=other.id)
            app.nudge()
            assert (await asyncio.wait_for(polls[3], PATIENCE_S))[0] == 200
            assert app.feed.waiting == 0

    asyncio.run(run())


async def endpoint_of(t: Till, merchant: NewMerchant) -> str:
    """A new endpoint of a merchant, at the shop."""
    made = await commands.run(t.app, "endpoint.add", {"merchant": merchant.id, "url": t.shop.url})
    return str(made["id"])


def test_polls_have_places_and_who_goes_away_frees_his(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many for a key and so many in all, then 429, but never without `wait`; no reader is held meanwhile."""
    monkeypatch.setattr(feed, "WAITING", 6)

    async def run() -> None:
        async with till(tmp_path) as t:
            app, second = t.app, (await new_key(t)).key
            polls = [asyncio.create_task(ask(t, "wait=30")) for _ in range(feed.WAITING_PER_KEY)]
            await eventually(lambda: app.feed.waiting == 4)
            status, said, headers = await ask(t, "wait=30")
            assert (status, said["type"]) == (429, "urn:caisse:too_many_polls") and int(headers["Retry-After"]) > 0
            assert (await ask(t))[0] == 200
            polls += [asyncio.create_task(ask(t, "wait=30", second)) for _ in range(2)]
            await eventually(lambda: app.feed.waiting == 6)
            assert (await ask(t, "wait=30", second))[0] == 429
            await eventually(lambda: not app.db._reading)

            polls.pop(0).cancel()
            await eventually(lambda: app.feed.waiting == 5)
            polls.append(asyncio.create_task(ask(t, "wait=30")))
            await eventually(lambda: app.feed.waiting == 6)
            (id_,) = await told(t, 1)
            app.nudge()
            for status, said, _ in await asyncio.wait_for(asyncio.gather(*polls), PATIENCE_S):
                assert (status, ids(said)) == (200, [id_])
            await eventually(lambda: app.feed.waiting == 0)

    asyncio.run(run())


def test_a_poll_ends_after_its_wait_and_at_once_when_the_service_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty page with a cursor that goes on; stopping does not wait for thirty seconds."""
    monkeypatch.setattr(site, "STOP_S", 60.0)

    async def run() -> None:
        async with till(tmp_path) as t:
            await told(t, 2)
            _, page, _ = await ask(t)
            status, said, _ = await ask(t, f"wait=1&after={page['next']}")
            assert (status, said) == (200, {"data": [], "next": page["next"], "more": False})
            poll = asyncio.create_task(ask(t, f"wait=30&after={page['next']}"))
            await eventually(lambda: t.app.feed.waiting == 1)
            (unheard,) = await told(t, 1)  # and nobody tells the feed of it
            _, page, _ = await asyncio.wait_for(poll, PATIENCE_S)
            assert ids(page) == [unheard]
            polls = [asyncio.create_task(ask(t, f"wait=30&after={page['next']}")) for _ in range(3)]
            await eventually(lambda: t.app.feed.waiting == 3)
            began = asyncio.get_running_loop().time()
        for status, said, _ in await asyncio.gather(*polls):
            assert (status, said["data"], said["next"]) == (200, [], page["next"])
        assert asyncio.get_running_loop().time() - began < 25  # not the thirty seconds that each would have waited

    asyncio.run(run())


def test_what_was_told_between_the_page_and_the_wait_is_not_slept_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether others wait, or waited a moment ago, or nobody did; and who wants something else sleeps on."""
    monkeypatch.setattr(feed, "LOOK_MS", 60_000)

    async def run() -> None:
        async with till(tmp_path) as t:
            assert t.merchant is not None
            its, merchant, loop = t.app.feed, t.merchant.id, asyncio.get_running_loop()
            wanted, never = feed.Wanted(merchant, False), loop.create_future()
            page = await t.app.db.read(feed.read, wanted, "", 10)
            await told(t, 1)
            its.nudge()
            gone = loop.create_future()
            others = [
                asyncio.create_task(its.wait(other, page.head, 30, gone))
                for other in (
                    feed.Wanted(merchant, True),
                    feed.Wanted("mer_other", False),
                    feed.Wanted(merchant, False, frozenset({"payment.disputed"})),
                    feed.Wanted(merchant, False, payment_id="pay_1"),
                )
            ]
            await eventually(lambda: its._seen > page.head)
            assert await asyncio.wait_for(its.wait(wanted, page.head, 30, never), PATIENCE_S)
            gone.set_result(None)
            assert await asyncio.gather(*others) == [False] * 4
            assert await asyncio.wait_for(its.wait(wanted, page.head, 30, never), PATIENCE_S)

            page = await t.app.db.read(feed.read, wanted, "", 10)
            await told(t, 1)
            its.nudge()
            assert await asyncio.wait_for(its.wait(wanted, page.head, 30, never), PATIENCE_S)

    asyncio.run(run())


def test_a_key_that_is_revoked_while_it_waits_gets_nothing(tmp_path: Path) -> None:
    """From the commit on: what is told after it is not for this key."""

    async def run() -> None:
        async with till(tmp_path) as t:
            waiting = await new_key(t)
            poll = asyncio.create_task(ask(t, "wait=30", waiting.key))
            await eventually(lambda: t.app.feed.waiting == 1)
            await t.app.db.write(keys.revoke, waiting.id, By("test", t.app.clock(), t.app.ids))
            await told(t, 1)
            t.app.nudge()
            assert (await asyncio.wait_for(poll, PATIENCE_S))[0] == 401

    asyncio.run(run())


def test_a_slow_reader_during_writes_misses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    """Many writers, none far ahead of slow readers with small pages, waits and filters: each reads what was written."""
    writers, each = 8, 20

    async def run() -> None:
        async with till(tmp_path, merchant=False) as t:
            t.merchant = await t.create_merchant()
            luck = Random(7)
            wrote = asyncio.Event()

            during = [0, 0, 0]  # pages with something in them that each reader got before the last was written

            async def write(writer: int) -> None:
                for number in range(each):
                    await pay(t, f"{writer}_{number}")
                    await eventually(lambda read=number + 1: min(during) >= read, shown=lambda: str(during))  # type: ignore[misc]

            async def read(reader: int, limit_max: int, wait: int, query: str) -> list[str]:
                found: list[str] = []
                after, last = "", False
                while True:
                    _, said, _ = await ask(t, f"{query}&limit={luck.randint(1, limit_max)}&wait={wait}&after={after}")
                    during[reader] += bool(said["data"]) and not wrote.is_set()
                    found += ids(said)
                    after = luck.choice([said["next"], found[-1]]) if said["data"] else said["next"]
                    if last and not said["data"] and not said["more"]:
                        return found
                    last = wrote.is_set()
                    await asyncio.sleep(0.01)

            ways = ((3, 0, ""), (3, 1, ""), (9, 1, "types=payment.succeeded"))
            reads = [asyncio.create_task(read(reader, *how)) for reader, how in enumerate(ways)]
            await asyncio.gather(*(write(writer) for writer in range(writers)))
            assert min(during) >= each, "nobody read while others wrote: this run has proved nothing"
            await t.settled()
            wrote.set()
            rows = await t.app.db.read(lambda tx: tx.execute(select(events).order_by(events.c.position)).all())
            assert len(rows) == writers * each
            for found in await asyncio.gather(*reads):
                assert found == [row.id for row in rows]

    asyncio.run(run())


def test_the_loop_of_the_page_reads_everything_once(tmp_path: Path) -> None:
    """The Python of docs/events-feed.md, as it stands there, against a running service."""
    page = Path(__file__).parents[2] / "docs" / "events-feed.md"
    source = page.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(source, names)

    async def run() -> None:
        async with till(tmp_path) as t:
            known, handled, cursors = await told(t, 3), [], []

            class Enough(Exception):
                """The loop has no end of its own."""

            def remember(cursor: str) -> None:
                cursors.append(cursor)
                if len(handled) == 5:
                    raise Enough

            def follow() -> None:
                with pytest.raises(Enough):
                    names["follow"](t.url, key_of(t), "", lambda event: handled.append(event["id"]), remember)

            loop = asyncio.create_task(asyncio.to_thread(follow))
            await eventually(lambda: t.app.feed.waiting == 1)
            known += await told(t, 2)
            t.app.nudge()
            await asyncio.wait_for(loop, PATIENCE_S)
            assert handled == known and len(cursors) == 2

    asyncio.run(run())
