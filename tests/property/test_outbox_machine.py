"""
The outbox against a model: workers that crash, sleep past their lease and come back late, in every order.

The model knows for each message what the table should say; the rules do to both the same, and the invariants compare.
Left to itself Hypothesis mostly waits and holds, so rules are few and dense, and the test counts what it has reached:
a machine that settles nothing proves nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import MetaData, func, select

from outbox import Done, Drop, Hold, Message, Outcome, Policy, Promise, Queue, Retry, Trial
from outbox.tables import define
from tests.support.database import open_engine

METADATA = MetaData()
TABLES = define(METADATA)
LEASE_MS = 10_000
DELAYS_MS = (1_000, 5_000)
POLICY = Policy("jobs", DELAYS_MS, LEASE_MS, limit_ms=5_000, batch=3, per_destination=2, jitter=0)
BUDGET = len(DELAYS_MS) + 1
IDS = [f"m{number}" for number in range(6)]
PLACES = ["near", "far"]


@dataclass
class Model:
    """What should be true of one message."""

    destination: str
    state: str = "pending"
    due_at_ms: int = 0
    tries: int = 0
    before: int = 0
    claim: int = 0
    settled: int = 0
    claims_counted: int = 0  # since it was last revived, minus what was given back or held
    acted_done: int = 0  # how often Done was accepted
    kept: list[int] = field(default_factory=list)  # numbers of the tries on record
    revived: list[int] = field(default_factory=list)


PHASES_MIN = 5
PHASES = [
    "claimed",
    "claimed again after its lease",
    "died of its claims",
    "died of its schedule",
    "suspects put back",
    "settled",
    "settled twice",
    "settled stale",
    "settled late, but nobody came",
    "held in flight",
    "released in flight",
    "given back",
    "revived",
]
reached: Counter[str] = Counter()


class OutboxMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.engine = open_engine(":memory:")
        METADATA.create_all(self.engine)
        self.queue = Queue(TABLES)
        self.rng = Random(0)
        self.now_ms = 1_000_000
        self.model: dict[str, Model] = {}
        self.held_by_workers: list[Message] = []  # claimed by a worker that may still settle, in time or late
        self.acted: set[tuple[str, int]] = set()  # which of them have acted already

    def teardown(self) -> None:
        self.engine.dispose()

    def run(self, function: Any, *args: Any, **named: Any) -> Any:
        with self.engine.begin() as tx:
            return function(tx, *args, **named)

    # --- what happens --------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        self.promise(IDS[:4], 0, held=False)

    @rule(
        ids=st.lists(st.sampled_from(IDS), max_size=4),
        later_ms=st.sampled_from([0, 0, 1, LEASE_MS]),
        held=st.booleans(),
    )
    def promise(self, ids: list[str], later_ms: int, held: bool) -> None:
        promises = [
            Promise(id_, "jobs", PLACES[int(id_[1:]) % 2], "s", due_at_ms=self.now_ms + later_ms, held=held)
            for id_ in ids
        ]
        new = {id_ for id_ in ids if id_ not in self.model}
        assert self.run(self.queue.enqueue, promises, self.now_ms) == len(new)
        for promise in promises:
            self.model.setdefault(
                promise.id,
                Model(promise.destination, "held" if held else "pending", self.now_ms + later_ms),
            )

    @rule(limit=st.integers(1, 3), alone=st.booleans(), full=st.sampled_from([None, {}, {"near": 1}, {"near": 2}]))
    def claim(self, limit: int, alone: bool, full: dict[str, int] | None) -> None:
        claim = self.run(self.queue.claim, POLICY, self.now_ms, limit, full, alone=alone)
        assert len(claim.messages) + len(claim.died) <= limit
        seen: dict[str, int] = dict(full or {})
        for message in claim.messages:
            model = self.model[message.id]
            assert model.state == "pending", "only pending messages are claimed; done never runs again"
            assert model.due_at_ms <= self.now_ms, "nobody is claimed before it is due, nor within a lease"
            if alone and model.claim > model.settled:
                assert claim.messages == [message], "a suspect comes alone"
            model.claim += 1
            assert message.claim == model.claim, "the claim number goes up by one"
            reached["claimed"] += 1
            reached["claimed again after its lease"] += model.claim - model.settled > 1
            assert message.due_at_ms == model.due_at_ms
            model.tries += 1
            model.claims_counted += 1
            assert message.tries == model.tries
            assert model.claims_counted <= BUDGET, "never more claims than the budget"
            model.due_at_ms = self.now_ms + LEASE_MS
            self.held_by_workers.append(message)
            seen[model.destination] = seen.get(model.destination, 0) + 1
        if full is not None:
            assert all(
                count <= POLICY.per_destination
                for place, count in seen.items()
                if place not in full or count > full[place]
            )
        for message in claim.died:
            model = self.model[message.id]
            reached["died of its claims"] += 1
            assert (model.state, model.claims_counted) == ("pending", BUDGET)
            model.state, model.claim, model.settled = "dead", message.claim, message.claim
            model.due_at_ms = self.now_ms + LEASE_MS
        if full is None and not alone and limit == POLICY.batch and not claim.messages and not claim.died:
            assert not self.due(), "what is due is found"
        self.forget_put_back({m.id for m in (*claim.messages, *claim.died)})

    def forget_put_back(self, claimed: set[str]) -> None:
        """Suspects that were claimed and put back within the claim have a higher number, and nothing else changed."""
        for id_, model in self.model.items():
            if id_ not in claimed:
                row = self.row(id_)
                assert row.claim >= model.claim
                if row.claim > model.claim:
                    assert (row.tries, row.due_at_ms) == (model.tries, model.due_at_ms)
                    model.claim = row.claim
                    reached["suspects put back"] += 1

    @rule(
        data=st.data(),
        steps=st.lists(
            st.tuples(
                st.sampled_from([None, None, *PLACES]),
                st.sampled_from([0, 0, 0, LEASE_MS - 1, LEASE_MS, LEASE_MS + 1]),
                st.booleans(),
            ),
            min_size=1,
            max_size=4,
        ),
    )
    def settle(self, data: st.DataObject, steps: list[tuple[str | None, int, bool]]) -> None:
        """Workers say what came of it: in time, after their lease, after somebody else's claim, held since, twice."""
        for meanwhile, wait_ms, claim in steps:
            if claim or not self.held_by_workers:
                self.claim(3, alone=False, full=None)
            self.now_ms += wait_ms
            if meanwhile:
                self.switch(meanwhile)
            if self.held_by_workers:
                self.settle_some(data)

    def settle_some(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.held_by_workers), min_size=1, max_size=3, unique_by=id))
        if len({message.id for message in chosen}) < len(chosen):
            chosen = chosen[:1]
        outcomes: list[tuple[Message, Outcome]] = []
        ran: list[str] = []
        for message in chosen:
            kind = data.draw(st.sampled_from(["done", "done", "retry", "soon", "drop", "hold"]))
            then = lambda _, id_=message.id: ran.append(id_)  # noqa: E731
            outcome: Outcome
            match kind:
                case "done":
                    outcome = Done(Trial(200), then)
                case "retry":
                    outcome = Retry("no", then=then)
                case "soon":
                    outcome = Retry("no", after_ms=2_000, then=then)
                case "drop":
                    outcome = Drop("no", then=then)
                case _:
                    outcome = Hold("off", then=then)
            outcomes.append((message, outcome))
        keep = data.draw(st.booleans())  # a worker that was told nothing may settle again
        settled = {item.message.id for item in self.run(self.queue.settle, outcomes, POLICY, self.now_ms, self.rng)}
        assert settled == set(ran), "`then` runs exactly where the fence held"
        for message, outcome in outcomes:
            model = self.model[message.id]
            holds = message.claim == model.claim and model.settled < model.claim
            assert (message.id in settled) == holds, "a stale claim settles nothing"
            reached["settled" if holds else "settled twice" if message.claim == model.claim else "settled stale"] += 1
            reached["settled late, but nobody came"] += holds and self.now_ms > message.claimed_at_ms + LEASE_MS
            reached["held in flight"] += holds and model.state == "held"
            if holds:
                self.apply(model, message, outcome)
            if not keep:
                self.held_by_workers.remove(message)

    def apply(self, model: Model, message: Message, outcome: Outcome) -> None:
        model.settled = model.claim
        match outcome:
            case Done():
                model.state = "done"
                model.acted_done += 1
            case Drop():
                model.state = "dead"
            case Hold():
                model.state, model.due_at_ms = "held", message.due_at_ms
                model.tries -= 1
                model.claims_counted -= 1
                return
            case Retry():
                retries = model.tries - model.before - 1
                if retries == len(DELAYS_MS):
                    model.state = "dead"
                    reached["died of its schedule"] += 1
                else:
                    model.due_at_ms = self.now_ms + max(DELAYS_MS[retries], outcome.after_ms or 0)
        model.kept.append(message.tries)

    @precondition(lambda self: self.held_by_workers)
    @rule(data=st.data(), crash=st.booleans())
    def leave(self, data: st.DataObject, crash: bool) -> None:
        """A worker dies, before or after it acted, and nothing is ever written; or it gives its message back."""
        message = data.draw(st.sampled_from(self.held_by_workers))
        self.held_by_workers.remove(message)
        if crash:
            return
        self.run(self.queue.give_back, [message])
        model = self.model[message.id]
        if message.claim == model.claim and model.settled < model.claim:
            reached["given back"] += 1
            model.settled, model.due_at_ms = model.claim, message.due_at_ms
            model.tries -= 1
            model.claims_counted -= 1

    @rule(steps=st.lists(st.sampled_from(["crash", "late", "fail", "fail", "give back"]), min_size=1, max_size=4))
    def live(self, steps: list[str]) -> None:
        """A worker's life after life: claim what is due; then die, sleep past the lease, fail, or stop in order."""
        for step in steps:
            before = len(self.held_by_workers)
            self.claim(3, alone=step == "crash", full=None)
            mine = self.held_by_workers[before:]
            if step == "fail":
                del self.held_by_workers[before:]
                failed = [(message, Retry("no")) for message in mine]
                assert len(self.run(self.queue.settle, failed, POLICY, self.now_ms, self.rng)) == len(mine)
                for message, outcome in failed:
                    self.apply(self.model[message.id], message, outcome)
                self.now_ms += DELAYS_MS[-1]
                continue
            if step == "give back":
                for message in mine:
                    reached["given back"] += 1
                    self.held_by_workers.remove(message)
                    model = self.model[message.id]
                    model.settled, model.due_at_ms = model.claim, message.due_at_ms
                    model.tries -= 1
                    model.claims_counted -= 1
                self.run(self.queue.give_back, mine)
            else:
                if step == "crash":
                    del self.held_by_workers[before:]
                self.now_ms += LEASE_MS

    @rule(wait_ms=st.sampled_from([1, 1_000, 5_000, LEASE_MS - 1, LEASE_MS, LEASE_MS + 1, 700_000]))
    def wait(self, wait_ms: int) -> None:
        self.now_ms += wait_ms

    @rule(place=st.sampled_from(PLACES))
    def switch(self, place: str) -> None:
        """A destination is disabled, or enabled again."""
        here = [model for model in self.model.values() if model.destination == place]
        held = [model for model in here if model.state == "held"]
        pending = [model for model in here if model.state == "pending"]
        if held:
            assert self.run(self.queue.release, "jobs", place, self.now_ms) == len(held)
            for model in held:
                reached["released in flight"] += model.claim > model.settled
                model.state = "pending"
                if model.claim == model.settled:
                    model.due_at_ms = min(model.due_at_ms, self.now_ms)
        else:
            assert self.run(self.queue.hold, "jobs", place) == len(pending)
            for model in pending:
                model.state = "held"

    @precondition(lambda self: any(model.state == "dead" for model in self.model.values()))
    @rule(ids=st.lists(st.sampled_from(IDS), min_size=3, max_size=6, unique=True))
    def revive(self, ids: list[str]) -> None:
        expected = []
        for id_ in ids:
            model = self.model.get(id_)
            lately = [at for at in model.revived if at > self.now_ms - 3_600_000] if model else []
            if model and model.state == "dead":
                reached["revived" if len(lately) < 5 else "revived too often"] += 1
                if len(lately) < 5:
                    expected.append(model)
        assert self.run(self.queue.revive, ids, self.now_ms, "asked") == len(expected)
        for model in expected:
            model.revived.append(self.now_ms)
            model.state, model.due_at_ms = "pending", self.now_ms
            model.before, model.claims_counted = model.tries, 0

    # --- what is always true -------------------------------------------------------------------------

    def row(self, id_: str) -> Any:
        return self.run(lambda tx: tx.execute(select(TABLES.messages).where(TABLES.messages.c.id == id_)).one())

    def due(self) -> list[str]:
        return [id_ for id_, m in self.model.items() if m.state == "pending" and m.due_at_ms <= self.now_ms]

    @invariant()
    def the_table_is_the_model(self) -> None:
        """Ids promised twice exist once, and every column is where its message's history leads."""
        rows = self.run(lambda tx: tx.execute(select(TABLES.messages)).all())
        assert {row.id for row in rows} == set(self.model)
        for row in rows:
            model = self.model[row.id]
            assert (row.state, row.claim, row.settled_claim, row.tries, row.tries_before) == (
                model.state,
                model.claim,
                model.settled,
                model.tries,
                model.before,
            )
            assert row.tries - row.tries_before == model.claims_counted <= BUDGET
            assert model.acted_done == (1 if model.state == "done" else 0)
            if row.state == "pending":
                assert row.due_at_ms == model.due_at_ms
                longest_ms = max(LEASE_MS, *DELAYS_MS)
                assert row.due_at_ms <= self.now_ms + longest_ms, "whatever happens, it is claimable within a lease"

    @invariant()
    def every_settled_try_is_on_record(self) -> None:
        tries = TABLES.tries
        query = select(tries.c.message_id, func.group_concat(tries.c.number)).group_by(tries.c.message_id)
        found = {
            id_: sorted(map(int, numbers.split(","))) for id_, numbers in self.run(lambda tx: tx.execute(query).all())
        }
        assert found == {id_: sorted(m.kept) for id_, m in self.model.items() if m.kept}


def test_the_outbox_is_its_model() -> None:
    """In every order of claims, crashes, late answers, holding and running again; and every phase was reached."""
    reached.clear()
    run_state_machine_as_test(
        OutboxMachine,
        settings=settings(
            max_examples=2 * settings().max_examples,
            stateful_step_count=50,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
    missed = [phase for phase in PHASES if reached[phase] < PHASES_MIN]
    assert not missed, f"hardly reached: {missed} of {dict(reached)}"
