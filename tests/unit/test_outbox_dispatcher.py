"""The dispatcher: every message is worked on, whatever raises, hangs, fails to be written or is stopped."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import Column, Connection, MetaData, Table, Text, insert, select

from outbox import Dispatcher, Done, Drop, Happened, Message, Outcome, Policy, Promise, Queue, Retry, Topic, Trial
from outbox.tables import define
from outbox.topic import Act, Work
from tests.support.clock import Clock
from tests.support.database import Database

METADATA = MetaData()
TABLES = define(METADATA)
EFFECTS = Table("effects", METADATA, Column("id", Text, primary_key=True))


def policy(topic: str = "jobs", **more: Any) -> Policy:
    settings: dict[str, Any] = {"delays_ms": (10, 20), "lease_ms": 6_000, "limit_ms": 1_000, "jitter": 0} | more
    return Policy(topic, **settings)


class House:
    """A dispatcher over a fresh file. Everything a test needs to promise, run and look."""

    def __init__(self, path: Path) -> None:
        self.db = Database(path)
        METADATA.create_all(self.db.engine)
        self.queue = Queue(TABLES)
        self.clock = Clock()
        self.heard: list[Happened] = []

    def dispatcher(self, *topics: Topic, **more: Any) -> Dispatcher:
        return Dispatcher(
            self.db, self.queue, topics, self.clock, Random(1), self.heard.append, **{"pause_ms": 10} | more
        )

    def promise(self, *ids: str, topic: str = "jobs", to: str = "shop", **more: Any) -> None:
        with self.db.engine.begin() as tx:
            self.queue.enqueue(tx, [Promise(id_, topic, to, id_, **more) for id_ in ids], self.clock())

    def states(self) -> dict[str, str]:
        with self.db.engine.connect() as tx:
            return {row.id: row.state for row in tx.execute(select(TABLES.messages).order_by(TABLES.messages.c.id))}

    def row(self, id_: str) -> Any:
        with self.db.engine.connect() as tx:
            return tx.execute(select(TABLES.messages).where(TABLES.messages.c.id == id_)).one()

    def effects(self) -> list[str]:
        with self.db.engine.connect() as tx:
            return sorted(tx.execute(select(EFFECTS.c.id)).scalars())

    def told(self) -> Counter[str]:
        return Counter(dict.fromkeys((), 0)) + Counter(
            {w: sum(h.count for h in self.heard if h.what == w) for w in {h.what for h in self.heard}}
        )


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path / "outbox.db")
    yield house
    house.db.close()


def effect(tx: Connection, id_: str) -> None:
    tx.execute(insert(EFFECTS), {"id": id_})


def working(*bad: str) -> Work:
    """Work that leaves an effect for each message, then raises if one of them is bad."""

    def work(tx: Connection, messages: Sequence[Message]) -> list[Outcome]:
        for message in messages:
            effect(tx, message.id)
            if message.id in bad:
                raise LookupError(message.id)
        return [Done() for _ in messages]

    return work


def acting(answers: dict[str, Outcome | Exception] | None = None) -> Act:
    async def act(message: Message, loaded: Any) -> Outcome:
        answer = (answers or {}).get(message.id, Done(Trial(200)))
        await asyncio.sleep(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return act


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110 - what is waited for is in a database
            await asyncio.sleep(0.002)


# --- work ---------------------------------------------------------------------------------------------


def test_work_is_settled_in_its_own_transaction(house: House) -> None:
    """Effect and settlement are one commit: one write claims, one does both."""
    house.promise("a", "b")
    dispatcher = house.dispatcher(Topic(policy(), work=working()))
    assert asyncio.run(dispatcher.run_once("jobs")) == 2
    assert (house.effects(), house.states()) == (["a", "b"], {"a": "done", "b": "done"})
    assert house.db.writes == 2
    assert asyncio.run(dispatcher.run_once("jobs")) == 0


def test_one_that_raises_harms_no_other(house: House) -> None:
    """The batch is run again one by one; only the one that raises is retried, and leaves no effect."""
    house.promise("a", "b", "c")
    died: list[str] = []
    topic = Topic(policy(), work=working("b"), died=lambda tx, messages: died.extend(m.id for m in messages))
    dispatcher = house.dispatcher(topic)
    asyncio.run(dispatcher.run_once("jobs"))
    assert house.states() == {"a": "done", "b": "pending", "c": "done"}
    assert (house.effects(), house.row("b").last_error) == (["a", "c"], "LookupError")
    for _ in range(2):
        house.clock.advance(20)
        asyncio.run(dispatcher.run_once("jobs"))
    assert (house.row("b").state, house.row("b").tries, died) == ("dead", 3, ["b"])
    assert house.told()["batch_raised"] == 3
    assert [h.message_ids for h in house.heard if h.what == "died"] == [("b",)]


def test_work_that_returns_nonsense_is_retried(house: House) -> None:
    """Too few outcomes, or something that is none, is a fault of the handler like any other."""
    house.promise("a")
    for nonsense in ([], [None]):
        topic = Topic(policy(), work=lambda tx, messages, nonsense=nonsense: nonsense)  # type: ignore[misc]
        asyncio.run(house.dispatcher(topic).run_once("jobs"))
        assert house.row("a").state == "pending"
        house.clock.advance(20)
    assert house.row("a").last_error == "TypeError"


def test_work_on_what_somebody_else_claimed_is_undone(house: House) -> None:
    """Exactly once: when the fence of one does not hold, its effect is not committed; the others' is."""
    house.promise("a", "b")

    def work(tx: Connection, messages: Sequence[Message]) -> list[Outcome]:
        for message in messages:
            effect(tx, message.id)
        return [Done() for _ in messages]

    dispatcher = house.dispatcher(Topic(policy(), work=work))

    async def run() -> None:
        write = house.db.write

        async def steal(*args: Any, **named: Any) -> Any:
            house.db.write = write  # type: ignore[method-assign]
            with house.db.engine.begin() as tx:
                tx.execute(TABLES.messages.update().where(TABLES.messages.c.id == "a").values(claim=9))
            return await write(*args, **named)

        async def claimed(*args: Any, **named: Any) -> Any:
            result = await write(*args, **named)
            house.db.write = steal  # type: ignore[method-assign]
            return result

        house.db.write = claimed  # type: ignore[method-assign]
        await dispatcher.run_once("jobs")

    asyncio.run(run())
    assert (house.effects(), house.states()) == (["b"], {"a": "pending", "b": "done"})
    assert house.told()["stale"] == 1


def test_unknown_outcome_of_work_is_not_done_twice(house: House) -> None:
    """The commit raised though it had happened: done again, found settled, undone."""
    house.promise("a")

    async def run() -> None:
        dispatcher = house.dispatcher(Topic(policy(), work=working()))
        write = house.db.write

        async def second(*args: Any, **named: Any) -> Any:
            house.db.write = write  # type: ignore[method-assign]
            house.db.fail_after.append(OSError("unknown"))
            return await write(*args, **named)

        async def first(*args: Any, **named: Any) -> Any:
            house.db.write = second  # type: ignore[method-assign]
            return await write(*args, **named)

        house.db.write = first  # type: ignore[method-assign]
        dispatcher.start()
        await until(lambda: house.told()["write_failed"] == 1)
        await asyncio.sleep(0.05)
        await dispatcher.stop(1_000)

    asyncio.run(run())
    assert (house.effects(), house.states()) == (["a"], {"a": "done"})


# --- acts ---------------------------------------------------------------------------------------------


def test_acts_are_settled_by_what_they_return(house: House) -> None:
    """Every outcome, an exception, and something that is no outcome."""
    answers: dict[str, Any] = {
        "again": Retry("http_500", trial=Trial(500, "http_500")),
        "drop": Drop("gone", Trial(410, "gone")),
        "ok": Done(Trial(200, head=b"fine")),
        "raises": LookupError("no such thing"),
        "wrong": "Done",
    }
    house.promise(*answers)
    asyncio.run(house.dispatcher(Topic(policy(), act=acting(answers))).run_once("jobs"))
    assert house.states() == {
        "again": "pending",
        "drop": "dead",
        "ok": "done",
        "raises": "pending",
        "wrong": "pending",
    }
    assert (house.row("raises").last_error, house.row("wrong").last_error) == ("LookupError", "TypeError")
    assert house.row("ok").last_status == 200
    assert house.told()["act_raised"] == 2


def test_an_act_that_hangs_is_cut_off(house: House) -> None:
    """At `limit_ms`, as a try like any other, with how long it took."""
    house.promise("a")

    async def act(message: Message, loaded: Any) -> Outcome:
        await asyncio.Event().wait()
        return Done()

    asyncio.run(house.dispatcher(Topic(policy(limit_ms=20), act=act)).run_once("jobs"))
    assert (house.row("a").state, house.row("a").last_error) == ("pending", "time_limit")
    with house.db.engine.connect() as tx:
        assert tx.execute(select(TABLES.tries.c.duration_ms)).scalar_one() >= 15


def test_loading_happens_with_the_claim(house: House) -> None:
    """One transaction claims and reads; if reading raises for the batch, only the culprit waits."""
    house.promise("a", "b", "c")
    seen: dict[str, Any] = {}

    async def act(message: Message, loaded: Any) -> Outcome:
        seen[message.id] = loaded
        return Done()

    def load(tx: Connection, messages: Sequence[Message]) -> dict[str, str]:
        if any(message.id == "b" for message in messages):
            raise LookupError
        return {message.id: message.id.upper() for message in messages}

    asyncio.run(house.dispatcher(Topic(policy(), act=act, load=load)).run_once("jobs"))
    assert seen == {"a": "A", "c": "C"}
    assert house.states() == {"a": "done", "b": "pending", "c": "done"}
    assert (house.row("b").tries, house.row("b").last_error) == (1, "LookupError")
    house.promise("d")
    asyncio.run(house.dispatcher(Topic(policy(), act=act, load=load)).run_once("jobs"))
    assert seen["d"] == "D"


def test_a_then_that_raises_harms_only_its_own(house: House) -> None:
    """The others' `then` is committed; its own message is tried again, with the try kept."""
    house.promise("a", "b", "c")

    def fail(tx: Connection) -> None:
        effect(tx, "half")
        raise LookupError

    answers: dict[str, Outcome | Exception] = {
        "a": Done(then=lambda tx: effect(tx, "a")),
        "b": Done(Trial(200), then=fail),
        "c": Drop("gone", then=lambda tx: effect(tx, "c")),
    }
    asyncio.run(house.dispatcher(Topic(policy(), act=acting(answers))).run_once("jobs"))
    assert house.effects() == ["a", "c"]
    assert house.states() == {"a": "done", "b": "pending", "c": "dead"}
    assert house.row("b").last_status == 200
    assert house.told()["then_raised"] == 1


def test_a_died_that_raises_stops_nobody_dying(house: House) -> None:
    """They are dead, and it is told."""
    house.promise("a")

    def died(tx: Connection, messages: Sequence[Message]) -> None:
        raise LookupError

    asyncio.run(house.dispatcher(Topic(policy(), act=acting({"a": Drop("gone")}), died=died)).run_once("jobs"))
    assert house.states() == {"a": "dead"}
    assert house.told()["died_raised"] == 1


@pytest.mark.parametrize("when", ["fail_before", "fail_after"])
def test_a_settle_that_cannot_be_written_is_offered_again(house: House, when: str) -> None:
    """The disk is full for a while, or the outcome of the commit is not known: the act is not done twice."""
    house.promise("a", "b")
    acts: list[str] = []

    async def act(message: Message, loaded: Any) -> Outcome:
        acts.append(message.id)
        if len(acts) == 2:
            getattr(house.db, when).extend([OSError("disk full")] * (3 if when == "fail_before" else 1))
        return Done(Trial(200))

    async def run() -> None:
        dispatcher = house.dispatcher(Topic(policy(), act=act))
        dispatcher.start()
        await until(lambda: set(house.states().values()) == {"done"} and not house.db.fail_before)
        await until(lambda: dispatcher.in_flight == {"jobs": 0})
        await dispatcher.stop(1_000)

    asyncio.run(run())
    assert sorted(acts) == ["a", "b"]
    assert house.told()["write_failed"] >= 1


def test_a_settle_that_cannot_be_written_for_a_lease_is_left_to_it(house: House) -> None:
    """Then the message is claimed again: at least once, never lost."""
    house.promise("a")
    acts: list[int] = []

    async def act(message: Message, loaded: Any) -> Outcome:
        acts.append(message.tries)
        if message.tries == 1:
            house.clock.advance(6_000)
            house.db.fail_before.append(OSError("disk full"))
        return Done()

    async def run() -> None:
        dispatcher = house.dispatcher(Topic(policy(), act=act))
        dispatcher.start()
        await until(lambda: house.states() == {"a": "done"})
        await dispatcher.stop(1_000)

    asyncio.run(run())
    assert acts == [1, 2]


def test_caps_in_flight(house: House) -> None:
    """Never more than `in_flight` at once, never more than `per_destination` to one, and the others pass by."""
    for number in range(20):
        house.promise(f"big-{number:02}", to="big")
    house.clock.advance(1)
    house.promise("x", "y", "z", to="small")
    now: Counter[str] = Counter()
    most: Counter[str] = Counter()
    gate = asyncio.Event()

    async def act(message: Message, loaded: Any) -> Outcome:
        now[message.destination] += 1
        most["all"] = max(most["all"], now.total())
        most[message.destination] = max(most[message.destination], now[message.destination])
        if message.destination == "big":
            await gate.wait()
        now[message.destination] -= 1
        return Done()

    async def run() -> None:
        dispatcher = house.dispatcher(Topic(policy(in_flight=8, per_destination=4), act=act))
        dispatcher.start()
        await until(lambda: all(house.row(id_).state == "done" for id_ in "xyz"))
        await until(lambda: dispatcher.in_flight == {"jobs": 4})
        writes = house.db.writes
        await asyncio.sleep(0.05)
        assert house.db.writes == writes, "it claims in circles while a destination is full"
        gate.set()
        await until(lambda: set(house.states().values()) == {"done"})
        await dispatcher.stop(1_000)

    asyncio.run(run())
    assert most["big"] == 4
    assert most["all"] <= 8


def test_what_ends_while_a_step_waits_for_the_writer_is_settled_by_it(house: House) -> None:
    """And the places that it leaves are claimed in the same transaction: nothing waits for another turn."""
    house.promise(*(f"m{number}" for number in range(8)), to="")
    gates = {f"m{number}": asyncio.Event() for number in range(8)}

    async def act(message: Message, loaded: Any) -> Outcome:
        await gates[message.id].wait()
        return Done()

    async def run() -> None:
        dispatcher = house.dispatcher(Topic(policy(in_flight=4), act=act))
        dispatcher.start()
        await until(lambda: dispatcher.in_flight == {"jobs": 4})
        first = [id_ for id_, row in ((id_, house.row(id_)) for id_ in gates) if row.claim]
        house.db.gate = asyncio.Event()
        gates[first[0]].set()
        await asyncio.sleep(0.01)  # its step waits for the writer now
        for id_ in first[1:]:
            gates[id_].set()
        await asyncio.sleep(0.01)
        writes, gate, house.db.gate = house.db.writes, house.db.gate, None
        gate.set()
        await until(lambda: all(house.row(id_).claim for id_ in gates))
        assert [house.states()[id_] for id_ in first] == ["done"] * 4
        assert house.db.writes == writes + 1
        for one in gates.values():
            one.set()
        await until(lambda: set(house.states().values()) == {"done"})
        await dispatcher.stop(1_000)

    asyncio.run(run())


def test_a_value_that_no_table_takes_is_the_fault_of_its_own_message(house: House) -> None:
    """Settled in one transaction with the others': theirs is written, and the odd one is tried again."""
    house.promise("odd", "a", "b")
    answers: dict[str, Outcome | Exception] = {"odd": Retry("no", after_ms=2**70)}
    dispatcher = house.dispatcher(Topic(policy(), act=acting(answers)))
    asyncio.run(dispatcher.run_once("jobs"))
    assert house.states() == {"odd": "pending", "a": "done", "b": "done"}
    assert house.row("odd").last_error == "OverflowError"
    assert house.told()["settle_raised"] == 1
    assert not house.told()["write_failed"]


# --- time ---------------------------------------------------------------------------------------------


def test_a_nudge_starts_work_at_once_and_the_next_due_time_is_slept_towards(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the sweep, which is an hour away. Retries come at their due time, promises of later at theirs."""
    monkeypatch.setattr("outbox.dispatcher.SWEEP_MS_MAX", 3_600_000)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        house.clock = Clock(1_000_000)
        begun = loop.time()

        def clock() -> int:
            return 1_000_000 + round((loop.time() - begun) * 1000)

        done: dict[str, int] = {}

        async def act(message: Message, loaded: Any) -> Outcome:
            if message.id == "again" and message.tries == 1:
                return Retry("no")
            done[message.id] = clock()
            return Done()

        topic = Topic(policy(delays_ms=(60,)), act=act)
        dispatcher = Dispatcher(house.db, house.queue, [topic], clock, Random(1), sweep_ms=3_600_000)
        dispatcher.start()
        await asyncio.sleep(0.02)
        nudged = clock()
        house.promise("now", "again")
        house.promise("later", due_at_ms=nudged + 90)
        dispatcher.nudge("jobs")
        await until(lambda: len(done) == 3)
        await dispatcher.stop(1_000)
        assert done["again"] - nudged >= 60
        assert done["later"] - nudged >= 90

    asyncio.run(run())


def test_a_turn_is_not_slept_through_while_somebody_else_has_no_room(house: House) -> None:
    """One hangs with more due behind it; another's retry comes at its time, not when the hanging one ends."""
    begun: list[str] = []
    gate = asyncio.Event()

    async def act(message: Message, loaded: Any) -> Outcome:
        begun.append(message.id)
        if message.destination == "hangs":
            await gate.wait()
        return Retry("no") if begun.count(message.id) == 1 else Done()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        start_ms, begun_s = house.clock(), loop.time()

        def clock() -> int:
            return start_ms + round((loop.time() - begun_s) * 1000)

        patient = policy(delays_ms=(150,), per_destination=1, lease_ms=120_000, limit_ms=60_000)
        topic = Topic(patient, act=act)
        dispatcher = Dispatcher(house.db, house.queue, [topic], clock, Random(1), house.heard.append)
        house.promise("h1", "h2", to="hangs")
        house.promise("again", to="other")
        dispatcher.start()
        await until(lambda: begun.count("again") == 2)
        gate.set()
        await dispatcher.stop(1_000)

    asyncio.run(run())
    assert begun.count("h1") + begun.count("h2") == 1


def test_the_sweep_finds_what_nobody_told_of(house: House) -> None:
    """Another process wrote it, or a nudge was forgotten."""

    async def run() -> None:
        dispatcher = house.dispatcher(Topic(policy(), act=acting()), sweep_ms=30)
        dispatcher.start()
        await asyncio.sleep(0.01)
        house.promise("a")
        house.queue.ready.clear()
        await until(lambda: house.states() == {"a": "done"})
        await dispatcher.stop(1_000)

    asyncio.run(run())
    with pytest.raises(ValueError):
        house.dispatcher(sweep_ms=30_001)


def test_work_that_promises_wakes_the_other_topic(house: House) -> None:
    """A callback's work promises a webhook; it leaves as soon as that is committed, with no nudge from outside."""
    house.promise("cb", topic="callbacks")
    order: list[str] = []

    def work(tx: Connection, messages: Sequence[Message]) -> list[Outcome]:
        house.queue.enqueue(tx, [Promise(f"wh-{m.id}", "webhooks", "shop", m.id) for m in messages], house.clock())
        return [Done() for _ in messages]

    async def act(message: Message, loaded: Any) -> Outcome:
        order.append(house.row(message.subject).state)
        return Done()

    async def run() -> None:
        dispatcher = house.dispatcher(
            Topic(policy("callbacks"), work=work), Topic(policy("webhooks"), act=act), sweep_ms=30_000
        )
        dispatcher.start()
        await until(lambda: house.states() == {"cb": "done", "wh-cb": "done"})
        await dispatcher.stop(1_000)

    asyncio.run(run())
    assert order == ["done"]


def test_what_is_due_at_once_does_not_hide_what_is_due_a_moment_later(house: House) -> None:
    """Both are heard of at the same time by a topic that has been at rest; no sweep is needed for the later one."""

    def work(tx: Connection, messages: Sequence[Message]) -> list[Outcome]:
        if messages[0].id == "first" and messages[0].tries == 1:
            house.queue.enqueue(tx, [Promise("other", "jobs", "", "other")], house.clock())
            return [Retry("later") for _ in messages]
        return [Done() for _ in messages]

    async def run() -> None:
        dispatcher = house.dispatcher(Topic(policy(), work=work), sweep_ms=30_000)
        dispatcher.start()
        await asyncio.sleep(0.05)
        house.promise("first", to="")
        dispatcher.nudge()
        await until(lambda: house.states() == {"first": "pending", "other": "done"})
        house.clock.advance(20)
        async with asyncio.timeout(10):
            await until(lambda: house.states() == {"first": "done", "other": "done"})
        await dispatcher.stop(1_000)

    asyncio.run(run())


def test_a_long_queue_is_worked_off_in_batches_with_one_write_each(house: House) -> None:
    """The write that settles a full batch claims the next one."""
    house.promise(*(f"m{number:04}" for number in range(500)), to="")

    async def run() -> None:
        dispatcher = house.dispatcher(Topic(policy(), work=working()))
        dispatcher.start()
        await until(lambda: len(house.effects()) == 500)
        await dispatcher.stop(1_000)

    asyncio.run(run())
    assert house.db.writes <= 13


# --- the end ------------------------------------------------------------------------------------------


def test_stop_lets_what_is_in_flight_finish(house: House) -> None:
    """And settles it; nothing new is begun."""
    house.promise("a", "b")
    begun = asyncio.Event()

    async def act(message: Message, loaded: Any) -> Outcome:
        begun.set()
        await asyncio.sleep(0.05)
        return Done()

    async def run() -> None:
        dispatcher = house.dispatcher(Topic(policy(in_flight=1), act=act))
        dispatcher.start()
        await begun.wait()
        await dispatcher.stop(1_000)

    asyncio.run(run())
    assert house.states() == {"a": "done", "b": "pending"}
    assert house.row("b").tries == 0


@pytest.mark.parametrize("kind", ["work", "act"])
def test_stop_gives_back_what_was_claimed_and_not_begun(house: House, kind: str) -> None:
    """The claim had just been written when the stop came: due at once for the next process, the try uncounted."""
    house.promise("a", "b")
    topic = Topic(policy(), work=working()) if kind == "work" else Topic(policy(), act=acting())

    async def run() -> None:
        dispatcher = house.dispatcher(topic)
        house.db.gate_after = asyncio.Event()
        dispatcher.start()
        await asyncio.sleep(0.01)
        stopping = asyncio.create_task(dispatcher.stop(1_000))
        await asyncio.sleep(0.01)
        house.db.gate_after.set()
        await stopping

    asyncio.run(run())
    assert house.states() == {"a": "pending", "b": "pending"}
    assert (house.row("a").tries, house.row("a").due_at_ms <= house.clock()) == (0, True)
    assert (house.effects(), house.told()["given_back"]) == ([], 2)


def test_stop_leaves_to_its_lease_what_does_not_finish(house: House) -> None:
    """After the grace it is cancelled; the next process claims it when the lease is over."""
    house.promise("hangs", "ends")
    cancelled: list[str] = []

    async def act(message: Message, loaded: Any) -> Outcome:
        try:
            await asyncio.sleep(0.01 if message.id == "ends" else 900)
        except asyncio.CancelledError:
            cancelled.append(message.id)
            raise
        return Done()

    async def run() -> None:
        dispatcher = house.dispatcher(Topic(policy(), act=act))
        dispatcher.start()
        await until(lambda: house.row("ends").state == "done")
        await dispatcher.stop(20)

    asyncio.run(run())
    assert cancelled == ["hangs"]
    assert house.states() == {"ends": "done", "hangs": "pending"}
    assert asyncio.run(house.dispatcher(Topic(policy(), act=acting())).run_once("jobs")) == 0
    house.clock.advance(6_000)
    assert asyncio.run(house.dispatcher(Topic(policy(), act=acting())).run_once("jobs")) == 1


def test_a_hook_that_raises_stops_nothing(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever counts must not be able to stop what is paid."""
    house.promise("a")

    def hook(happened: Happened) -> None:
        raise LookupError

    dispatcher = Dispatcher(house.db, house.queue, [Topic(policy(), work=working())], house.clock, Random(1), hook)
    asyncio.run(dispatcher.run_once("jobs"))
    assert house.states() == {"a": "done"}
    assert "outbox.hook_raised" in caplog.text


def test_topics_that_cannot_work_are_refused(house: House) -> None:
    """Both, neither, twice, or loading for nobody."""
    for wrong in ({}, {"work": working(), "act": acting()}, {"work": working(), "load": lambda tx, messages: {}}):
        with pytest.raises(ValueError):
            Topic(policy(), **wrong)  # type: ignore[arg-type]
    topic = Topic(policy(), work=working())
    with pytest.raises(ValueError):
        house.dispatcher(topic, topic)
