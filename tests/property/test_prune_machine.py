"""
Pruning between everything else: promises, claims, settles, retries, deaths, replays, crashes, in every order.

The model knows what is owed. After every step each message of an event that is owed anything is there with its event
and its tries; each piece of a prune takes all that is free of what it looks at, what was recovered too; and no number
is given twice.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import insert, select

import service.callbacks.tables
import service.payments.tables  # noqa: F401 - the tables have to meet in the one MetaData
from outbox import pruning
from outbox.message import Done, Drop, Message, Promise, Retry, Trial
from outbox.policy import Policy
from outbox.queue import Queue
from service import retention
from service.merchants.events import delivery_id
from service.merchants.missed import siblings
from service.merchants.tables import events, merchants
from service.schema import metadata, outbox_tables
from tests.support.database import open_engine

TABLES = outbox_tables
EVENTS_A_PIECE, ROWS_A_PIECE = 2, 3
LEASE_MS = 10_000
POLICY = Policy("webhook", (1_000,), LEASE_MS, limit_ms=5_000, batch=3, per_destination=3, jitter=0)
PLACES = ("near", "far")
KEEP_MS = 20_000
reached: Counter[str] = Counter()


@dataclass
class Model:
    """One event: when it was told, and for each message its state, when it ended, and its tries on record."""

    at_ms: int
    states: dict[str, str] = field(default_factory=dict)
    ended_ms: dict[str, int] = field(default_factory=dict)
    tries: Counter[str] = field(default_factory=Counter)

    def paid_again(self, id_: str) -> bool:
        """Whether the same event came to the same place under a later number."""
        stem, _, number = id_.rpartition(":")
        return any(
            state == "done" and other.rpartition(":")[0] == stem and int(other.rpartition(":")[2]) > int(number)
            for other, state in self.states.items()
        )

    @property
    def owed(self) -> bool:
        return any(
            state == "pending" or (state == "dead" and not self.paid_again(id_)) for id_, state in self.states.items()
        )

    def free(self, before_ms: int) -> bool:
        """Whether a prune may take it."""
        return not self.owed and self.at_ms < before_ms and all(at < before_ms for at in self.ended_ms.values())


class PruneMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.engine = open_engine(":memory:")
        metadata.create_all(self.engine)
        with self.engine.begin() as tx:
            tx.execute(insert(merchants).values(id="mer_1", name="Awa", status="active", created_at_ms=1))
        self.queue, self.rng = Queue(TABLES), Random(0)
        self.now_ms = 1_000_000
        self.model: dict[str, Model] = {}
        self.number = 0
        self.working: list[Message] = []  # also those whose lease is over: their workers come back late
        self.after = ""
        self.given: set[str] = set()

    def teardown(self) -> None:
        self.engine.dispose()

    @initialize()
    def begin(self) -> None:
        self.tell(2)
        self.tell(1)

    @rule(places=st.integers(0, 2))
    def tell(self, places: int) -> None:
        self.number += 1
        id_ = f"evt_{self.number:03}"
        with self.engine.begin() as tx:
            row = {"position": self.number, "id": id_, "merchant_id": "mer_1", "type": "payment.failed", "sequence": 1}
            tx.execute(insert(events).values(**row, body=b"{}", created_at_ms=self.now_ms))
        self.model[id_] = Model(self.now_ms)
        for place in PLACES[:places]:
            self.promise(id_, place, 0)

    def promise(self, event: str, place: str, number: int) -> None:
        id_ = delivery_id(event, place, number)
        assert id_ not in self.given, "a number is given once"
        self.given.add(id_)
        with self.engine.begin() as tx:
            assert self.queue.enqueue(tx, [Promise(id_, "webhook", place, event)], self.now_ms) == 1
        self.model[event].states[id_] = "pending"

    @rule(which=st.integers(0, 99))
    def send_again(self, which: int) -> None:
        """By hand, as a new delivery, also of an event that was all delivered: it is owed again from then on."""
        resting = [
            (event, place)
            for event, model in self.model.items()
            for place in PLACES
            if (mine := [s for id_, s in model.states.items() if f":{place}:" in id_]) and "pending" not in mine
        ]
        if resting:
            event, place = resting[which % len(resting)]
            self.send(event, place)

    def send(self, event: str, place: str) -> None:
        with self.engine.begin() as tx:
            number = siblings(tx, [(event, place)])[event, place].last + 1
        self.promise(event, place, number)
        reached["sent again"] += 1

    @rule()
    def claim(self) -> None:
        with self.engine.begin() as tx:
            claim = self.queue.claim(tx, POLICY, self.now_ms, self.rng, alone=True)
        for message in claim.died:
            self.end(message, "dead")
            reached["died of its claims"] += 1
        self.working += claim.messages

    @rule(which=st.integers(0, 99), how=st.sampled_from(["done", "done", "done", "retry", "drop"]))
    def settle(self, which: int, how: str) -> None:
        if not self.working:
            return
        message = self.working.pop(which % len(self.working))
        outcome = {
            "done": Done(Trial(200)),
            "retry": Retry("no", trial=Trial(500)),
            "drop": Drop("never", Trial(400)),
        }[how]
        with self.engine.begin() as tx:
            settled = self.queue.settle(tx, [(message, outcome)], POLICY, self.now_ms, self.rng)
        if not settled:
            reached["settled late"] += 1
            reached["settled after it was pruned"] += message.subject not in self.model
            return
        assert message.subject in self.model, "who settles finds what he works on"
        self.model[message.subject].tries[message.id] += 1
        if settled[0].what in ("done", "died"):
            self.end(message, "done" if settled[0].what == "done" else "dead")

    @rule()
    def deliver(self) -> None:
        """What is claimed now is done at once, whoever else still works on it."""
        late = len(self.working)
        self.claim()
        while len(self.working) > late:
            self.settle(len(self.working) - 1, "done")

    @rule()
    def fail_and_come_through(self) -> None:
        """What is claimed now dies, is sent again and arrives."""
        late = len(self.working)
        self.claim()
        failed = self.working[late:]
        while len(self.working) > late:
            self.settle(len(self.working) - 1, "drop")
        for message in failed:
            mine = self.model[message.subject].states
            if not any(state == "pending" for id_, state in mine.items() if f":{message.destination}:" in id_):
                self.send(message.subject, message.destination)
        self.deliver()

    @rule()
    def a_night(self) -> None:
        """Much later, a whole run; each piece crashes first."""
        self.now_ms += KEEP_MS + 1
        self.after = ""
        for _ in range(100):
            self.prune(True)
            self.prune(False)
            if not self.after:
                return
        raise AssertionError("it does not end")

    def end(self, message: Message, state: str) -> None:
        self.model[message.subject].states[message.id] = state
        self.model[message.subject].ended_ms[message.id] = self.now_ms

    @rule(which=st.integers(0, 99))
    def revive(self, which: int) -> None:
        dead = [id_ for model in self.model.values() for id_, state in model.states.items() if state == "dead"]
        if dead:
            id_ = dead[which % len(dead)]
            with self.engine.begin() as tx:
                revived = self.queue.revive(tx, [id_], self.now_ms, "again")
            if revived:
                model = self.model[id_.split(":")[1]]
                model.states[id_] = "pending"
                del model.ended_ms[id_]
                reached["revived"] += 1

    @rule(ms=st.sampled_from([1_500, LEASE_MS + 1, KEEP_MS + 1]))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms

    @rule()
    def process_starts_again(self) -> None:
        with self.engine.begin() as tx:
            self.queue.forget_leases(tx, self.now_ms)

    @rule(crash=st.booleans())
    def prune(self, crash: bool) -> None:
        """One piece, and a crash undoes it whole."""
        before_ms, at = self.now_ms - KEEP_MS, int(self.after or 0)
        page = sorted(int(id_[4:]) for id_ in self.model if int(id_[4:]) > at)[:EVENTS_A_PIECE]
        tx = self.engine.connect()
        tx.begin()
        walked = retention.forget_events(tx, self.after, before_ms, False, self.now_ms)
        if crash:
            tx.rollback()
            tx.close()
            reached["pruned and crashed"] += walked.gone.get("events", 0)
            return
        tx.commit()
        tx.close()
        self.after = walked.after or ""
        left, there = self.found()
        for position in page:
            id_ = f"evt_{position:03}"
            model = self.model[id_]
            free = model.free(before_ms)
            gone = set(model.states) - left
            reached["pruned though it failed"] += "dead" in {model.states[id_] for id_ in gone}
            if walked.after is None or position <= int(walked.after):
                assert (id_ not in there) == free, "all that is free, nothing else"
                reached["kept for one that failed"] += "dead" in model.states.values() and not free
            if id_ not in there:
                assert gone == set(model.states)
                del self.model[id_]
                reached["pruned"] += 1
            elif gone:
                assert free, "what goes in several pieces is free as well"
                self.drop(gone)
                assert not model.owed, "and what is left of it says so"
                reached["pruned in several pieces"] += 1

    @rule()
    def prune_by_id(self) -> None:
        """The other walk, over the ids, in all its pieces: whatever is not done stays."""
        before_ms = self.now_ms - KEEP_MS
        after: str | None = "webhook:"
        while after is not None:
            with self.engine.begin() as tx:
                after = pruning.prune_ended(tx, TABLES, after, "webhook;", before_ms).after
        for model in self.model.values():
            gone = {i for i, state in model.states.items() if state == "done" and model.ended_ms[i] < before_ms}
            self.drop(gone)
            self.given -= gone  # no walk of ours takes deliveries by their ids, so here a number may come back
            reached["pruned by id"] += len(gone)

    def drop(self, ids: set[str]) -> None:
        for id_ in ids:
            model = self.model[id_.split(":")[1]]
            del model.states[id_], model.ended_ms[id_]
            model.tries.pop(id_, None)

    def found(self) -> tuple[set[str], set[str]]:
        """The messages and the events that are there."""
        with self.engine.begin() as tx:
            m = TABLES.messages.c
            return set(tx.execute(select(m.id)).scalars()), set(tx.execute(select(events.c.id)).scalars())

    @invariant()
    def nothing_owed_is_gone(self) -> None:
        with self.engine.begin() as tx:
            there = set(tx.execute(select(events.c.id)).scalars())
            m = TABLES.messages.c
            states: dict[str, str] = {row[0]: row[1] for row in tx.execute(select(m.id, m.state))}
            tried = Counter(tx.execute(select(TABLES.tries.c.message_id)).scalars())
        assert there == set(self.model)
        assert states == {id_: state for model in self.model.values() for id_, state in model.states.items()}
        wanted: Counter[str] = sum((model.tries for model in self.model.values()), Counter())
        assert +tried == +wanted


@pytest.mark.timeout(300)
def test_a_prune_at_any_moment_takes_nothing_that_is_owed() -> None:
    """The machine, and that it went where it must go to prove anything."""
    reached.clear()
    examples = max(100, settings().max_examples)
    few = patch.object(pruning, "ROWS_A_PIECE", ROWS_A_PIECE), patch.object(retention, "ROWS_A_PIECE", EVENTS_A_PIECE)
    with few[0], few[1]:
        run_state_machine_as_test(PruneMachine, settings=settings(stateful_step_count=60, max_examples=examples))
    for what in (
        *("pruned", "pruned and crashed", "pruned by id", "kept for one that failed"),
        *("pruned though it failed", "pruned in several pieces"),
        *("sent again", "revived", "settled late", "settled after it was pruned", "died of its claims"),
    ):
        assert reached[what], f"never {what}: {dict(reached)}"
