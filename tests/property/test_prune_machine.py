"""
Pruning between everything else: promises, claims, settles, retries, deaths, replays, crashes, in every order.

The model knows what is owed. After every step each message of an event that is owed anything is there with its event
and its tries; and each piece of a prune takes all that is free of what it looks at.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import Column, Integer, MetaData, Table, Text, delete, insert, select

from outbox import pruning
from outbox.message import Done, Drop, Message, Promise, Retry, Trial
from outbox.policy import Policy
from outbox.queue import Queue
from outbox.tables import define
from tests.support.database import open_engine

METADATA = MetaData()
TABLES = define(METADATA)
EVENTS = Table(
    "subjects", METADATA, Column("position", Integer, primary_key=True), Column("id", Text), Column("at_ms", Integer)
)
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

    @property
    def owed(self) -> bool:
        return any(state != "done" for state in self.states.values())

    def free(self, before_ms: int) -> bool:
        """Whether a prune may take it."""
        return not self.owed and self.at_ms < before_ms and all(at < before_ms for at in self.ended_ms.values())


class PruneMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.engine = open_engine(":memory:")
        METADATA.create_all(self.engine)
        self.queue, self.rng = Queue(TABLES), Random(0)
        self.now_ms = 1_000_000
        self.model: dict[str, Model] = {}
        self.number = 0
        self.working: list[Message] = []  # also those whose lease is over: their workers come back late
        self.after = ""

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
            tx.execute(insert(EVENTS).values(position=self.number, id=id_, at_ms=self.now_ms))
        self.model[id_] = Model(self.now_ms)
        for place in PLACES[:places]:
            self.promise(id_, place, 0)

    def promise(self, event: str, place: str, number: int) -> None:
        id_ = f"webhook:{event}:{place}:{number}"
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
            numbers = [int(id_.rpartition(":")[2]) for id_ in self.model[event].states if f":{place}:" in id_]
            self.promise(event, place, max(numbers) + 1)
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
        """One piece, as `service/retention.py` does it; a crash undoes it whole."""
        before_ms = self.now_ms - KEEP_MS
        tx = self.engine.connect()
        tx.begin()
        at = int(self.after or 0)
        rows = tx.execute(select(EVENTS).where(EVENTS.c.position > at).order_by(EVENTS.c.position).limit(2)).all()
        old = [row.id for row in rows if row.at_ms < before_ms]
        owed = pruning.unsettled(tx, TABLES, old, since_ms=before_ms)
        forgotten = pruning.forget_subjects(tx, TABLES, [id_ for id_ in old if id_ not in owed])
        tx.execute(delete(EVENTS).where(EVENTS.c.id.in_(forgotten.subjects)))
        if crash:
            tx.rollback()
            reached["pruned and crashed"] += bool(forgotten.subjects)
        else:
            tx.commit()
            for id_ in old:
                assert (id_ in forgotten.subjects) == self.model[id_].free(before_ms), "all that is free, nothing else"
                reached["kept for one that failed"] += "dead" in self.model[id_].states.values()
            for id_ in forgotten.subjects:
                del self.model[id_]
                reached["pruned"] += 1
            self.after = str(rows[-1].position) if rows else ""
        tx.close()

    @rule()
    def prune_by_id(self) -> None:
        """The other walk, over the ids: whatever is not done stays."""
        before_ms = self.now_ms - KEEP_MS
        with self.engine.begin() as tx:
            pruning.prune_ended(tx, TABLES, "webhook:", "webhook;", before_ms)
        for model in self.model.values():
            for id_ in [id_ for id_, state in model.states.items() if state == "done"]:
                if model.ended_ms[id_] < before_ms:
                    del model.states[id_], model.ended_ms[id_]
                    model.tries.pop(id_, None)
                    reached["pruned by id"] += 1

    @invariant()
    def nothing_owed_is_gone(self) -> None:
        with self.engine.begin() as tx:
            events = set(tx.execute(select(EVENTS.c.id)).scalars())
            m = TABLES.messages.c
            states: dict[str, str] = {row[0]: row[1] for row in tx.execute(select(m.id, m.state))}
            tried = Counter(tx.execute(select(TABLES.tries.c.message_id)).scalars())
        assert events == set(self.model)
        assert states == {id_: state for model in self.model.values() for id_, state in model.states.items()}
        wanted: Counter[str] = sum((model.tries for model in self.model.values()), Counter())
        assert +tried == +wanted


@pytest.mark.timeout(300)
def test_a_prune_at_any_moment_takes_nothing_that_is_owed() -> None:
    """The machine, and that it went where it must go to prove anything."""
    reached.clear()
    examples = max(100, settings().max_examples)
    run_state_machine_as_test(PruneMachine, settings=settings(stateful_step_count=80, max_examples=examples))
    for what in (
        *("pruned", "pruned and crashed", "pruned by id", "kept for one that failed"),
        *("sent again", "revived", "settled late", "settled after it was pruned", "died of its claims"),
    ):
        assert reached[what], f"never {what}: {dict(reached)}"
