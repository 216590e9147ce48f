"""
The outbox against a model: workers that crash, sleep past their lease and come back late, destinations that fail, are
paused, limited, held and let go, in every order.

The model knows for each message and each destination what the tables should say; the rules do to both the same, and
the invariants compare. Left to itself Hypothesis mostly waits and holds, so rules are few and dense, and the test
counts what it has reached: a machine that settles nothing proves nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
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

from outbox import Done, Drop, Message, Outcome, Policy, Promise, Queue, Retry, Trial
from outbox.destinations import CLOCK_BACK_MS
from outbox.health import PAUSE_MS_MAX, SLOW_MS
from outbox.tables import define
from tests.support.database import open_engine

METADATA = MetaData()
TABLES = define(METADATA)
LEASE_MS = 10_000
DELAYS_MS = (1_000, 5_000)
POLICY = Policy("jobs", DELAYS_MS, LEASE_MS, 5_000, batch=3, in_flight=4, per_destination=2, jitter=0, breaker=True)
HALF = 2
BUDGET = len(DELAYS_MS) + 1
IDS = [f"m{number}" for number in range(8)]
PLACES = ["near", "far", "", "near"]
NAMED = ["near", "far"]
MESSAGES_MAX = 40
MINUTE_MS = 60_000
WAITS_MS = [1, 1_000, 5_000, LEASE_MS - 1, LEASE_MS, LEASE_MS + 1, 30_000, 60_000, 700_000]
BACK_MS = [1, CLOCK_BACK_MS, CLOCK_BACK_MS + 1, 3_600_000, 3_600_000]


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
    claims_counted: int = 0  # since it was last revived, minus what was given back
    acted_done: int = 0  # how often Done was accepted
    kept: list[int] = field(default_factory=list)  # numbers of the tries on record
    revived: list[int] = field(default_factory=list)

    def flies(self, now_ms: int) -> bool:
        return self.claim > self.settled and self.due_at_ms > now_ms


@dataclass
class Place:
    """What should be true of one destination."""

    turn_ms: int | None = None
    served_ms: int = 0
    paused_ms: int = 0
    held: bool = False
    per_minute: int | None = None
    failures: int = 0
    since_ms: int | None = None
    opened_ms: int = 0
    troubled: bool = False  # its last try failed or was slow
    story: list[tuple[int, bool]] = field(default_factory=list)  # (minute, failed) since it last closed
    fine: list[tuple[int, bool]] = field(default_factory=list)  # the same, of which only the process knows

    def heard(self, ended: list[tuple[bool, bool, int]], now_ms: int, undone: bool = False) -> None:
        """One batch of (failed, slow, after_ms). What the process remembers, it remembers of what was undone too."""
        if not self.troubled and not any(failed or slow for failed, slow, _ in ended):
            self.fine += [(now_ms // MINUTE_MS, False)] * len(ended)
            return
        remembered, self.fine = self.fine, []
        if undone:
            return
        reached["successes written down late"] += bool(remembered)
        self.story = [one for one in self.story + remembered if one[0] > now_ms // MINUTE_MS - 5]
        for failed, slow, after_ms in ended:
            self.ended(failed, slow, after_ms, now_ms)

    def ended(self, failed: bool, slow: bool, after_ms: int, now_ms: int) -> None:
        """The circuit breaker, said once more in other words."""
        self.troubled = failed or slow
        reached["slow and well"] += slow and not failed
        self.story.append((now_ms // MINUTE_MS, failed))
        if not failed:
            self.failures, self.since_ms = 0, None
            if self.opened_ms:
                self.opened_ms, self.paused_ms, self.story = 0, 0, []
                reached["closed by a success"] += 1
            return
        self.failures += 1
        self.since_ms = now_ms if self.since_ms is None else self.since_ms
        lately = [failed for _, failed in self.story]
        mostly = len(lately) >= 10 and 10 * sum(lately) > 7 * len(lately)
        pause_ms = min(after_ms, 900_000)
        if not self.opened_ms:
            if self.failures >= 5 or mostly:
                self.opened_ms = 30_000
                pause_ms = max(pause_ms, 30_000)
                reached["opened"] += 1
        elif now_ms >= self.paused_ms:
            self.opened_ms = min(2 * self.opened_ms, 900_000)
            pause_ms = max(pause_ms, self.opened_ms)
            reached["opened for longer"] += 1
        else:
            reached["failed late, while it was open"] += 1
        if pause_ms:
            self.paused_ms = max(self.paused_ms, now_ms + pause_ms)


PHASES_MIN = 2
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
    "undone by its then",
    "held in flight",
    "released in flight",
    "promised while held",
    "given up",
    "hurried",
    "given back",
    "revived",
    "restarted with leases running",
    "opened",
    "opened for longer",
    "probed",
    "closed by a success",
    "successes written down late",
    "failed late, while it was open",
    "resumed",
    "limited",
    "passed over because full",
    "passed over because paused",
    "slow and well",
    "hastened",
    "clock back over what was served",
    "clock back over a pause",
    "claimed anew after an undone claim",
]
reached: Counter[str] = Counter()


class OutboxMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.engine = open_engine(":memory:")
        METADATA.create_all(self.engine)
        self.queue = Queue(TABLES)
        self.rng = Random(0)
        self.now_ms = 1_000_000_000
        self.latest_ms = self.now_ms  # the latest that it ever was
        self.claimed_ms = 0  # when destinations were last chosen from
        self.model: dict[str, Model] = {}
        self.places: dict[str, Place] = {}
        self.held_by_workers: list[Message] = []  # claimed by a worker that may still settle, in time or late

    def teardown(self) -> None:
        try:
            self.all_is_paid_in_the_end()
        finally:
            self.engine.dispose()

    def run(self, function: Any, *args: Any, **named: Any) -> Any:
        with self.engine.begin() as tx:
            return function(tx, *args, **named)

    def undo(self, function: Any, *args: Any, **named: Any) -> None:
        with self.engine.connect() as tx:
            function(tx, *args, **named)
            tx.rollback()

    def place(self, name: str) -> Place:
        return self.places.setdefault(name, Place())

    def touch(self, *names: str) -> None:
        """The queue has worked out the turns of these anew."""
        for name in names:
            if name in self.places:
                place = self.places[name]
                due = [m.due_at_ms for m in self.model.values() if m.destination == name and m.state == "pending"]
                gone = place.held or not due
                place.turn_ms = None if gone else max(min(due), place.paused_ms, place.served_ms)

    def flying(self, name: str | None = None) -> list[Model]:
        """What is in flight there, or anywhere where it takes a place."""
        return [
            m
            for m in self.model.values()
            if m.flies(self.now_ms) and m.destination and name in (None, m.destination)
        ]  # fmt: skip

    # --- what happens --------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        self.promise(IDS[:6], 0)

    @rule(ids=st.lists(st.sampled_from(IDS), max_size=5), later_ms=st.sampled_from([0, 0, 1, LEASE_MS]))
    def promise(self, ids: list[str], later_ms: int) -> None:
        due_at_ms = self.now_ms + later_ms
        promises = [Promise(id_, "jobs", PLACES[int(id_[1:]) % 4], "s", due_at_ms=due_at_ms) for id_ in ids]
        new = {id_ for id_ in ids if id_ not in self.model}
        assert self.run(self.queue.enqueue, promises, self.now_ms) == len(new)
        for promise in promises:
            self.model.setdefault(promise.id, Model(promise.destination, due_at_ms=due_at_ms))
            if promise.destination:
                place = self.place(promise.destination)
                reached["promised while held"] += place.held
                if not place.held:
                    turn_ms = due_at_ms if place.turn_ms is None else min(place.turn_ms, due_at_ms)
                    place.turn_ms = max(place.paused_ms, turn_ms)

    @precondition(lambda self: len(self.model) < MESSAGES_MAX)
    @rule(name=st.sampled_from(NAMED), count=st.integers(1, 3), resume=st.booleans())
    def send_again(self, name: str, count: int, resume: bool) -> None:
        """New deliveries of what rests, as a person or a recovery makes them; a person does not wait for a circuit."""
        made = [f"again-{len(self.model)}-{number}" for number in range(count)]
        promises = [Promise(id_, "jobs", name, "s") for id_ in made]
        assert self.run(self.queue.enqueue, promises, self.now_ms) == count
        self.model |= {id_: Model(name, due_at_ms=self.now_ms) for id_ in made}
        place = self.place(name)
        reached["promised while held"] += place.held
        if not place.held:
            turn_ms = self.now_ms if place.turn_ms is None else min(place.turn_ms, self.now_ms)
            place.turn_ms = max(place.paused_ms, turn_ms)
        if resume:
            reached["resumed"] += place.opened_ms > 0 and place.paused_ms > self.now_ms and not place.held
            self.run(self.queue.destinations.resume, "jobs", [name])
            place.paused_ms = 0 if place.opened_ms else place.paused_ms
            self.touch(name)

    def clock_is_noticed(self, limit: int) -> None:
        """The first claim after the clock was set back looks through the destinations, if it comes to them at all."""
        mine = [m for m in self.model.values() if not m.destination and m.state == "pending"]
        if sum(m.due_at_ms <= self.now_ms for m in mine) >= limit:
            return
        if self.now_ms + CLOCK_BACK_MS < self.claimed_ms:
            self.set_back()
            self.claimed_ms = self.now_ms
        self.claimed_ms = max(self.claimed_ms, self.now_ms)

    def set_back(self) -> None:
        for name, place in self.places.items():
            if place.served_ms > self.now_ms or place.paused_ms > self.now_ms + PAUSE_MS_MAX:
                reached["clock back over what was served"] += place.served_ms > self.now_ms
                reached["clock back over a pause"] += place.paused_ms > self.now_ms + PAUSE_MS_MAX
                place.served_ms = min(place.served_ms, self.now_ms)
                place.paused_ms = min(place.paused_ms, self.now_ms + PAUSE_MS_MAX)
                self.touch(name)

    @rule(limit=st.integers(1, 3), alone=st.booleans(), undone=st.booleans())
    def claim(self, limit: int, alone: bool, undone: bool = False) -> None:
        flying = {name: len(self.flying(name)) for name in self.places}
        failing = sum(flying[name] for name, place in self.places.items() if place.troubled)
        self.clock_is_noticed(min(limit, POLICY.batch))
        if undone:  # its transaction is rolled back, because of somebody else in it, and run again
            self.undo(self.queue.claim, POLICY, self.now_ms, Random(1), limit, alone=alone)
            reached["claimed anew after an undone claim"] += 1
        claim = self.run(self.queue.claim, POLICY, self.now_ms, self.rng, limit, alone=alone)
        assert len(claim.messages) + len(claim.died) <= limit
        for message in claim.messages:
            model = self.model[message.id]
            assert model.state == "pending", "only pending messages are claimed; done never runs again"
            assert model.due_at_ms <= self.now_ms, "nobody is claimed before it is due, nor within a lease"
            if alone and model.claim > model.settled:
                assert claim.messages == [message], "a suspect comes alone"
            assert message.claim == model.claim + 1, "the claim number goes up by one"
            reached["claimed"] += 1
            reached["claimed again after its lease"] += model.claim > model.settled
            assert message.due_at_ms == model.due_at_ms
            assert message.tries == model.tries + 1
            assert model.claims_counted < BUDGET, "never more claims than the budget"
            self.held_by_workers.append(message)
        for message in claim.died:
            reached["died of its claims"] += 1
            assert (self.model[message.id].state, self.model[message.id].claims_counted) == ("pending", BUDGET)
        taken = self.take(claim)
        self.no_rule_is_broken(taken, flying, failing)
        if not claim.more and len(claim.messages) + len(claim.died) < limit:
            self.what_is_due_is_found(taken, flying, failing, claim.waiting)

    def take(self, claim: Any) -> Counter[str]:
        """Brings the model to where the claim has brought the table; how many it took of each destination."""
        claimed, died = {m.id for m in claim.messages}, {m.id for m in claim.died}
        taken: Counter[str] = Counter()
        rows = {row.id: row for row in self.run(lambda tx: tx.execute(select(TABLES.messages)).all())}
        for id_, model in self.model.items():
            row = rows[id_]
            if row.claim == model.claim:
                assert id_ not in claimed | died
                continue
            assert row.claim == model.claim + 1
            model.claim += 1
            taken[model.destination] += 1
            if id_ in claimed:
                model.tries += 1
                model.claims_counted += 1
                model.due_at_ms = self.now_ms + LEASE_MS
            elif id_ in died:
                model.state, model.settled = "dead", model.claim
                model.due_at_ms = self.now_ms + LEASE_MS
            else:  # a suspect that was put back: a higher number, and nothing else changed
                assert (row.state, row.tries, row.due_at_ms) == ("pending", model.tries, model.due_at_ms)
                reached["suspects put back"] += 1
        return taken

    def no_rule_is_broken(self, taken: Counter[str], flying: dict[str, int], failing: int) -> None:
        total = sum(flying.values())
        for name, place in self.places.items():
            got = taken[name]
            if got:
                assert not place.held, "held destinations are never claimed"
                assert place.turn_ms is not None and place.turn_ms <= self.now_ms, "not before its turn"
                assert place.paused_ms <= self.now_ms, "an open circuit is never claimed before its end"
                assert flying[name] + got <= POLICY.per_destination
                assert not place.troubled or flying[name] + got == 1, "who fails or is slow gets one at a time"
                reached["probed"] += place.opened_ms > 0
                place.served_ms = self.now_ms
                if place.per_minute and not place.opened_ms:
                    reached["limited"] += 1
                    assert got <= max(1, place.per_minute // 60)
                    place.paused_ms = self.now_ms + got * MINUTE_MS // place.per_minute
                self.touch(name)
            elif (row := self.standing(name)).next_due_at_ms != place.turn_ms:
                # It was looked up for nothing: something was promised twice. Now its turn is right.
                assert place.turn_ms is not None and place.turn_ms <= self.now_ms
                place.served_ms = self.now_ms
                self.touch(name)
                assert row.next_due_at_ms == place.turn_ms
        places_of_failing = sum(got for name, got in taken.items() if name and self.places[name].troubled)
        assert not places_of_failing or failing + places_of_failing <= HALF, "those that fail share half"
        for name, got in taken.items():
            assert not name or got + flying[name] <= 1 or total < HALF, "nobody gets a second place of the scarce half"

    def what_is_due_is_found(self, taken: Counter[str], flying: dict[str, int], failing: int, waiting: bool) -> None:
        """There was room left. Whoever got nothing has a reason; if the reason is room, somebody is told."""
        left = Counter(
            m.destination for m in self.model.values() if m.state == "pending" and m.due_at_ms <= self.now_ms
        )
        assert not left[""], "what is owed to nobody in particular is claimed as far as there is room"
        total = sum(flying.values()) + sum(got for name, got in taken.items() if name)
        for name in left:
            place = self.places[name]
            here = flying[name] + taken[name]
            if place.held or place.paused_ms > self.now_ms:
                reached["passed over because paused"] += place.paused_ms > self.now_ms
                most_ms = PAUSE_MS_MAX + CLOCK_BACK_MS
                assert place.held or place.paused_ms <= self.now_ms + most_ms, "whatever the clock did"
                continue
            if place.served_ms > self.now_ms:
                assert place.served_ms <= self.now_ms + CLOCK_BACK_MS, "whatever the clock did"
                continue
            full = here >= POLICY.per_destination or (here and (place.troubled or total >= HALF))
            crowded = (
                place.troubled
                and failing + sum(got for other, got in taken.items() if other and self.places[other].troubled) >= HALF
            )
            reached["passed over because full"] += bool(full)
            assert full or crowded, f"{name} has something due and room, and got nothing"
            assert waiting, "it is not forgotten"

    @rule(
        data=st.data(),
        steps=st.lists(
            st.tuples(
                st.sampled_from(["", "", "", *NAMED, "near near", "far far"]),
                st.sampled_from([0, 0, 0, LEASE_MS - 1, LEASE_MS, LEASE_MS + 1]),
                st.booleans(),
            ),
            min_size=1,
            max_size=4,
        ),
    )
    def settle(self, data: st.DataObject, steps: list[tuple[str, int, bool]]) -> None:
        """Workers say what came of it: in time, after their lease, after somebody else's claim, held since, twice."""
        for meanwhile, wait_ms, claim in steps:
            if claim or not self.held_by_workers:
                self.claim(3, alone=False)
            self.now_ms += wait_ms
            for name in meanwhile.split():
                self.switch(name)
            if self.held_by_workers:
                self.settle_some(data)

    def settle_some(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.held_by_workers), min_size=1, max_size=3, unique_by=id))
        if len({message.id for message in chosen}) < len(chosen):
            chosen = chosen[:1]
        outcomes: list[tuple[Message, Outcome]] = []
        ran: list[str] = []
        for message in chosen:
            kind = data.draw(st.sampled_from(["done", "slow", "retry", "soon", "retry", "slow", "later", "drop"]))
            then = lambda _, id_=message.id: ran.append(id_)  # noqa: E731
            outcome: Outcome
            match kind:
                case "done":
                    outcome = Done(Trial(200), then)
                case "slow":
                    outcome = Done(Trial(200, duration_ms=SLOW_MS), then)
                case "retry":
                    outcome = Retry("no", then=then)
                case "soon":
                    outcome = Retry("no", after_ms=2_000, then=then)
                case "later":
                    outcome = Retry("no", after_ms=1_000_000, then=then)
                case _:
                    outcome = Drop("no", then=then)
            outcomes.append((message, outcome))
        if data.draw(st.integers(0, 9)) == 0:
            self.settle_undone(outcomes)
            return
        keep = data.draw(st.booleans())  # a worker that was told nothing may settle again
        assert self.settle_these(outcomes) == set(ran), "`then` runs exactly where the fence held"
        for message, _ in outcomes:
            if not keep:
                self.held_by_workers.remove(message)

    def settle_undone(self, outcomes: list[tuple[Message, Outcome]]) -> None:
        """The last `then` raises, or the process dies before the commit: nothing of it was written."""

        def fail(_: Any) -> None:
            reached["undone by its then"] += 1
            raise LookupError

        message, _ = outcomes[-1]
        try:
            self.run(
                self.queue.settle, [*outcomes[:-1], (message, Drop("no", then=fail))], POLICY, self.now_ms, self.rng
            )
        except LookupError:
            self.hear([*outcomes[:-1], (message, Drop("no"))], undone=True)
            return
        model = self.model[message.id]
        assert message.claim != model.claim or model.settled == model.claim, "`then` runs where the fence holds"
        self.apply_all(outcomes[:-1])

    def settle_these(self, outcomes: list[tuple[Message, Outcome]]) -> set[str]:
        settled = {item.message.id for item in self.run(self.queue.settle, outcomes, POLICY, self.now_ms, self.rng)}
        for message, _ in outcomes:
            model = self.model[message.id]
            holds = message.claim == model.claim and model.settled < model.claim
            assert (message.id in settled) == holds, "a stale claim settles nothing"
            reached["settled" if holds else "settled twice" if message.claim == model.claim else "settled stale"] += 1
            reached["settled late, but nobody came"] += holds and self.now_ms > message.claimed_at_ms + LEASE_MS
            reached["held in flight"] += holds and bool(model.destination) and self.place(model.destination).held
        self.apply_all(outcomes)
        return settled

    def apply_all(self, outcomes: list[tuple[Message, Outcome]]) -> None:
        names = self.hear(outcomes)
        for message, outcome in outcomes:
            model = self.model[message.id]
            if message.claim == model.claim and model.settled < model.claim:
                self.apply(model, message, outcome)
        self.touch(*names)

    def hear(self, outcomes: list[tuple[Message, Outcome]], undone: bool = False) -> list[str]:
        """How those tries ended whose fence holds, to each destination."""
        ended: dict[str, list[tuple[bool, bool, int]]] = {}
        for message, outcome in outcomes:
            model = self.model[message.id]
            if model.destination and message.claim == model.claim and model.settled < model.claim:
                slow = outcome.trial is not None and outcome.trial.duration_ms >= SLOW_MS
                after_ms = (outcome.after_ms or 0) if isinstance(outcome, Retry) else 0
                ended.setdefault(model.destination, []).append((not isinstance(outcome, Done), slow, after_ms))
        for name, its in ended.items():
            self.place(name).heard(its, self.now_ms, undone)
        return list(ended)

    def apply(self, model: Model, message: Message, outcome: Outcome) -> None:
        model.settled = model.claim
        match outcome:
            case Done():
                model.state = "done"
                model.acted_done += 1
            case Drop():
                model.state = "dead"
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
        if not crash:
            self.give_back([message])

    def give_back(self, messages: list[Message]) -> None:
        self.run(self.queue.give_back, messages)
        for message in messages:
            model = self.model[message.id]
            if message.claim == model.claim and model.settled < model.claim:
                reached["given back"] += 1
                model.settled, model.due_at_ms = model.claim, message.due_at_ms
                model.tries -= 1
                model.claims_counted -= 1
        self.touch(*(message.destination for message in messages))

    @rule(
        steps=st.lists(
            st.sampled_from(["crash", "late", "late", *["fail"] * 6, "well", "hurry", "resume", "give back"]),
            min_size=1,
            max_size=7,
        )
    )
    def live(self, steps: list[str]) -> None:
        """
        A worker's life after life: claim what is due; then die, sleep past the lease, fail, pay, or stop in order; and
        those that slept wake up in the end and say that they have failed. Meanwhile a person loses patience.
        """
        slept: list[Message] = []
        for step in steps:
            if step == "hurry":
                self.hurry_or_give_up(NAMED[len(steps) % 2], hurry=True, some=len(steps) > 4)
                continue
            if step == "resume":
                self.send_again(NAMED[len(steps) % 2], 1, resume=True)
                continue
            before = len(self.held_by_workers)
            self.claim(3, alone=step == "crash")
            mine = self.held_by_workers[before:]
            if step == "fail":
                del self.held_by_workers[before:]
                assert len(self.settle_these([(m, Retry("no")) for m in mine])) == len(mine)
                self.now_ms += DELAYS_MS[-1]
                paused = [place.paused_ms for place in self.places.values() if place.paused_ms > self.now_ms]
                self.now_ms = max([self.now_ms, *paused]) if len(paused) == len(self.places) else self.now_ms
                continue
            if step == "well":
                del self.held_by_workers[before:]
                self.settle_these([(m, Done(Trial(200))) for m in mine])
            elif step == "give back":
                del self.held_by_workers[before:]
                self.give_back(mine)
            else:
                del self.held_by_workers[before:]
                slept += mine if step == "late" else []
                self.now_ms += LEASE_MS
        late: list[tuple[Message, Outcome]] = [(message, Retry("no")) for message in {m.id: m for m in slept}.values()]
        if late:
            self.settle_these(late)

    @precondition(lambda self: any(m.claim > m.settled for m in self.model.values()))
    @rule(down_ms=st.sampled_from([0, 1, LEASE_MS]))
    def restart(self, down_ms: int) -> None:
        """The process is killed with all its workers, and comes up again."""
        self.held_by_workers.clear()
        self.queue, self.claimed_ms = Queue(TABLES), 0
        self.now_ms += down_ms
        flying = [m for m in self.model.values() if m.flies(self.now_ms)]
        leased = {m.destination for m in self.model.values() if m.claim > m.settled}
        reached["restarted with leases running"] += bool(flying)
        assert self.run(self.queue.forget_leases, self.now_ms) == len(flying)
        for model in flying:
            model.due_at_ms = self.now_ms
        self.touch(*leased)
        self.set_back()
        for place in self.places.values():
            place.fine = []

    @rule(wait_ms=st.sampled_from(WAITS_MS))
    def wait(self, wait_ms: int) -> None:
        """Time goes by."""
        self.now_ms += wait_ms

    @precondition(lambda self: any(place.paused_ms > self.now_ms for place in self.places.values()))
    @rule(back_ms=st.sampled_from(BACK_MS))
    def set_clock_back(self, back_ms: int) -> None:
        """Somebody sets the clock back, and what is due by it waits for nothing of the old time."""
        self.now_ms -= back_ms
        self.claim(3, alone=False)
        self.claim(3, alone=False)

    # --- what people do to destinations --------------------------------------------------------------

    @rule(name=st.sampled_from(NAMED))
    def switch(self, name: str) -> None:
        """A destination is disabled, or enabled again."""
        place, queue = self.place(name), self.queue.destinations
        pending = [m for m in self.model.values() if m.destination == name and m.state == "pending"]
        if place.held:
            reached["released in flight"] += any(m.flies(self.now_ms) for m in pending)
            self.run(queue.release, "jobs", name)
            place.served_ms = 0
            place.held, place.failures, place.since_ms, place.opened_ms, place.paused_ms = False, 0, None, 0, 0
            place.story, place.fine, place.troubled = [], [], False
        else:
            self.run(queue.hold, "jobs", name)
            place.held = True
        self.touch(name)

    @precondition(lambda self: any(m.state == "pending" and m.destination for m in self.model.values()))
    @rule(name=st.sampled_from(NAMED), hurry=st.booleans(), some=st.booleans())
    def hurry_or_give_up(self, name: str, hurry: bool, some: bool = False) -> None:
        """What waits for its retry goes at once, or some of it by its id; or all that is not in flight is given up."""
        queue = self.queue.destinations
        here = [m for m in self.model.values() if m.destination == name and m.state == "pending"]
        if hurry and some:
            self.hasten(name)
        elif hurry:
            waits = [m for m in here if m.tries and m.due_at_ms > self.now_ms and m.claim == m.settled]
            assert self.run(queue.hurry, "jobs", name, self.now_ms, 50) == len(waits)
            reached["hurried"] += bool(waits)
            for model in waits:
                model.due_at_ms = self.now_ms
        elif self.place(name).held:
            rests = [m for m in here if not m.flies(self.now_ms)]
            assert self.run(queue.give_up, "jobs", name, self.now_ms, 50, "given_up") == len(rests)
            reached["given up"] += bool(rests)
            for model in rests:
                model.state, model.settled = "dead", model.claim
        else:
            return
        self.touch(name)

    def hasten(self, name: str) -> None:
        """Every second one, whatever it is at: what flies, rests or is due sooner stays as it is."""
        at_ms = self.now_ms + 500
        some = {id_: m for number, (id_, m) in enumerate(self.model.items()) if m.destination == name and number % 2}
        waits = [m for m in some.values() if m.state == "pending" and m.tries and m.claim == m.settled]
        sooner = [m for m in waits if m.due_at_ms > at_ms]
        due = [(id_, "jobs", name, at_ms) for id_ in some]
        assert self.run(self.queue.hasten, due, self.now_ms) == len(sooner)
        reached["hastened"] += len(sooner)
        for model in sooner:
            model.due_at_ms = at_ms

    @rule(name=st.sampled_from(NAMED), per_minute=st.sampled_from([None, None, 1, 60, 120]))
    def limit(self, name: str, per_minute: int | None) -> None:
        self.run(self.queue.destinations.limit, "jobs", name, per_minute)
        self.place(name).per_minute = per_minute

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
        self.touch(*(model.destination for model in expected))

    # --- what is always true -------------------------------------------------------------------------

    def standing(self, name: str) -> Any:
        return self.run(self.queue.destinations.standing, "jobs", name)

    @invariant()
    def the_table_is_the_model(self) -> None:
        """Nothing owed is lost, ids promised twice exist once, and every column is where its history leads."""
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
                longest_ms = max(LEASE_MS, *DELAYS_MS, 1_000_000)
                self.latest_ms = max(self.latest_ms, self.now_ms)
                assert row.due_at_ms <= self.latest_ms + longest_ms, "whatever happens, it is claimable in the end"

    @invariant()
    def every_destination_has_its_turn(self) -> None:
        """Null while it is held or nothing is owed, never too late otherwise: nobody is forgotten."""
        for name, place in self.places.items():
            row = self.standing(name)
            assert (row.held is not None, row.per_minute) == (place.held, place.per_minute)
            assert (row.failures, row.failing_since_ms) == (place.failures, place.since_ms)
            assert (row.opened_ms, row.paused_until_ms) == (place.opened_ms, place.paused_ms)
            assert row.next_due_at_ms == place.turn_ms
            due = [m.due_at_ms for m in self.model.values() if m.destination == name and m.state == "pending"]
            assert row.owed == len(due)
            if place.held:
                assert row.next_due_at_ms is None
            elif due:
                assert row.next_due_at_ms is not None
                assert row.next_due_at_ms <= max(min(due), place.paused_ms, place.served_ms)

    @invariant()
    def every_destination_has_its_story(self) -> None:
        """The tries of the last minutes, as they stood when it was last in trouble."""
        query = select(TABLES.destinations.c.destination, TABLES.destinations.c.recent)
        for name, recent in self.run(lambda tx: tx.execute(query).all()):
            tries: Counter[int] = Counter(minute for minute, _ in self.place(name).story)
            failures: Counter[int] = Counter(minute for minute, failed in self.place(name).story if failed)
            assert set(recent.split()) == {f"{minute}:{count}:{failures[minute]}" for minute, count in tries.items()}

    @invariant()
    def in_flight_is_the_leases_that_run(self) -> None:
        """Seen by the queue's own statement, whatever crashed."""
        at = {"topic": "jobs", "now_ms": self.now_ms}
        found = self.run(lambda tx: {r[0]: r[1] for r in self.queue.destinations._flying.rows(tx, at)})
        assert found == Counter(model.destination for model in self.flying())

    @invariant()
    def every_settled_try_is_on_record(self) -> None:
        tries = TABLES.tries
        query = select(tries.c.message_id, func.group_concat(tries.c.number)).group_by(tries.c.message_id)
        found = {
            id_: sorted(map(int, numbers.split(","))) for id_, numbers in self.run(lambda tx: tx.execute(query).all())
        }
        assert found == {id_: sorted(m.kept) for id_, m in self.model.items() if m.kept}

    def all_is_paid_in_the_end(self) -> None:
        """Everybody is enabled again and answers 200: in so many rounds nothing is pending any more."""
        for name, place in self.places.items():
            self.limit(name, None)
            if place.held:
                self.switch(name)
        for _ in range(4 * len(self.model) + 20):
            before = len(self.held_by_workers)
            self.claim(3, alone=False)
            mine = self.held_by_workers[before:]
            del self.held_by_workers[before:]
            if mine:
                self.settle_these([(m, Done(Trial(200))) for m in mine])
            else:
                self.now_ms += 1_000_000
        assert not [id_ for id_, m in self.model.items() if m.state == "pending"]
        self.the_table_is_the_model()


@pytest.mark.timeout(300)
def test_the_outbox_is_its_model() -> None:
    """In every order of claims, crashes, late answers, failures, holding and running again; every phase was reached."""
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
