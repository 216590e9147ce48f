"""
One destination hangs, one owes 100,000, 5,000 fail: the others see none of it. Counted in rounds and statements, with
the real dispatcher and a clock moved by hand, because milliseconds say more of the machine than of the queue.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import MetaData, event, insert, select

from outbox import Dispatcher, Done, Happened, Message, Outcome, Policy, Promise, Queue, Retry, Topic, Trial
from outbox.tables import define
from tests.support.clock import Clock
from tests.support.database import Database

METADATA = MetaData()
TABLES = define(METADATA)
POLICY = Policy("webhook", (60_000,) * 9, lease_ms=30_000, limit_ms=12_000, per_destination=4, jitter=0, breaker=True)
HANGS = 40


class House:
    """A real dispatcher over a fresh file. Who hangs does so until `gate` opens; `begun` is what was begun."""

    def __init__(self, path: Path) -> None:
        self.db = Database(path)
        METADATA.create_all(self.db.engine)
        self.queue = Queue(TABLES)
        self.clock = Clock()
        self.begun: list[Message] = []
        self.heard: list[Happened] = []
        self.statements = 0
        event.listen(self.db.engine, "before_cursor_execute", self._count)

    def _count(self, *_: Any) -> None:
        self.statements += 1

    def dispatcher(self, gate: asyncio.Event) -> Dispatcher:
        async def act(message: Message, loaded: Any) -> Outcome:
            self.begun.append(message)
            if message.destination.startswith("hang"):
                await gate.wait()
            return Retry("http_500") if message.destination.startswith("fail") else Done(Trial(200))

        topic = Topic(POLICY, act=act)
        return Dispatcher(self.db, self.queue, [topic], self.clock, Random(1), self.heard.append)

    def promise(self, to: str, count: int = 1, due_at_ms: int = 0) -> None:
        with self.db.engine.begin() as tx:
            promises = [Promise(f"{to}:{len(self.begun)}:{n}", "webhook", to, "s", "", due_at_ms) for n in range(count)]
            self.queue.enqueue(tx, promises, self.clock())

    def failing(self, count: int) -> None:
        """So many destinations whose last try failed, each with a retry that is due."""
        now_ms = self.clock()
        names = [f"fail-{number:04}" for number in range(count)]
        message = {"topic": "webhook", "subject": "s", "payload": "", "due_at_ms": now_ms - 9_000, "created_at_ms": 1}
        tried = {"tries": 1, "claim": 1, "settled_claim": 1}
        broken = {
            "troubled": 1,
            "failures": 5,
            "failing_since_ms": 1,
            "opened_ms": 30_000,
            "paused_until_ms": now_ms - 9_000,
        }
        with self.db.engine.begin() as tx:
            tx.execute(insert(TABLES.messages), [{"id": f"{n}:0", "destination": n, **message, **tried} for n in names])
            tx.execute(
                insert(TABLES.destinations),
                [{"topic": "webhook", "destination": n, "next_due_at_ms": now_ms - 9_000, **broken} for n in names],
            )

    async def round(self, dispatcher: Dispatcher) -> list[Message]:
        """
        One claim, and what was begun of it; what does not hang is ended and settled. (`run_once` would wait for what
        hangs.)
        """
        lane, before = dispatcher._lanes["webhook"], len(self.begun)
        lane.hungry = True
        await dispatcher._rounds.turn(lane, claim_next=True)
        for _ in range(20):
            await asyncio.sleep(0)
        self.clock.advance(1)
        return self.begun[before:]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path / "outbox.db")
    yield house
    house.db.close()


def told(messages: list[Message]) -> Counter[str]:
    return Counter(message.destination for message in messages)


def test_one_that_hangs_one_that_owes_very_much_and_5000_that_fail_leave_the_others_their_places(house: House) -> None:
    """Whatever is promised to a well one is begun with the next claim, round after round."""
    house.promise("hang", 1_000)
    house.promise("owes", 100_000)
    house.failing(5_000)

    async def run() -> None:
        gate = asyncio.Event()
        dispatcher = house.dispatcher(gate)
        for number in range(60):
            house.promise(f"well-{number % 10}", due_at_ms=house.clock())
            waited = 0
            while f"well-{number % 10}" not in told(await house.round(dispatcher)):
                waited += 1
                assert waited <= 1, "it is in the next claim, or in the one after when that was full"
        gate.set()
        await dispatcher.stop(0)

    asyncio.run(run())
    got = told(house.begun)
    assert got["hang"] <= POLICY.per_destination, "it holds its places and takes no others"
    assert got["owes"] >= 50, "who owes much is served all the time"
    assert sum(count for name, count in got.items() if name.startswith("fail-")) > 500, "and so are those that fail"


def test_forty_that_begin_to_hang_at_the_same_instant_leave_room(house: House) -> None:
    """Each was well a moment ago and has more due than its share."""
    for number in range(HANGS):
        house.promise(f"hang-{number}", 10)

    async def run() -> None:
        gate = asyncio.Event()
        dispatcher = house.dispatcher(gate)
        for _ in range(5):
            await house.round(dispatcher)
        assert dispatcher.in_flight["webhook"] <= POLICY.in_flight - 20
        for number in range(30):
            house.promise(f"well-{number}", 2)
            assert told(await house.round(dispatcher))[f"well-{number}"] >= 1
        gate.set()
        await dispatcher.stop(0)

    asyncio.run(run())


def test_what_a_round_costs_does_not_depend_on_what_waits(house: House) -> None:
    """The same statements with 20 waiting and with 20,000, with 10 destinations and with 1,000."""

    async def costs() -> set[int]:
        dispatcher = house.dispatcher(asyncio.Event())
        found = set()
        for _ in range(6):
            for number in range(10):
                house.promise(f"well-{number}", 4)
            before = house.statements
            assert await dispatcher.run_once("webhook") >= 32
            found.add(house.statements - before)
        return found

    few = asyncio.run(costs())
    house.promise("owes", 20_000)
    for number in range(1_000):
        house.promise(f"other-{number}")
    house.failing(1_000)
    many = asyncio.run(costs())
    assert max(many) <= max(few) + 3, (few, many)  # tries that failed have their rows, and the breaker its state


def test_a_worker_stopped_past_its_lease_and_resumed_writes_nothing(house: House) -> None:
    """Two dispatchers over one file: what the first is still at the second claims and settles."""
    house.promise("hang")
    ran: list[str] = []

    async def run() -> None:
        gate, begun = asyncio.Event(), asyncio.Event()

        async def slow(message: Message, loaded: Any) -> Outcome:
            begun.set()
            await gate.wait()
            return Retry("late", trial=Trial(500), then=lambda _: ran.append("late"))

        async def quick(message: Message, loaded: Any) -> Outcome:
            return Done(Trial(200), then=lambda _: ran.append("quick"))

        first = Dispatcher(house.db, house.queue, [Topic(POLICY, act=slow)], house.clock, Random(1), house.heard.append)
        second = Dispatcher(house.db, Queue(TABLES), [Topic(POLICY, act=quick)], house.clock, Random(2))
        stopped = asyncio.create_task(first.run_once("webhook"))
        await begun.wait()
        house.clock.advance(POLICY.lease_ms - 1)
        assert await second.run_once("webhook") == 0
        house.clock.advance(1)
        assert await second.run_once("webhook") == 1
        gate.set()
        assert await stopped == 1

    asyncio.run(run())
    assert ran == ["quick"]
    assert [h.count for h in house.heard if h.what == "stale"] == [1]
    with house.db.engine.connect() as tx:
        row = tx.execute(select(TABLES.messages)).one()
        assert (row.state, row.last_error, row.last_status, row.tries) == ("done", None, 200, 2)
        assert [t.http_status for t in tx.execute(select(TABLES.tries))] == [200]
        health = tx.execute(select(TABLES.destinations)).one()
        assert (health.failures, health.next_due_at_ms) == (0, None), "a late answer says nothing of the destination"
