"""
Recovery against a model: whatever is dead, done, waiting or held, and whatever is asked for, exactly what was missed is
delivered again, once; and two jobs that take turns, stop and begin again change nothing about that.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, insert, select

import service.callbacks.tables
import service.payments.tables  # noqa: F401 - the tables have to meet in the one MetaData
from outbox.policy import Policy
from outbox.queue import Queue
from service.ids import Ids
from service.merchants import missed, recovery
from service.merchants.audit import By
from service.merchants.events import WEBHOOK, delivery_id
from service.merchants.missed import Scope
from service.merchants.recovery import RECOVER, Recoverer
from service.merchants.tables import endpoints, events, merchants, recoveries
from service.schema import metadata, outbox_tables

NOW_MS = 1_795_165_200_000
SINCE_MS = NOW_MS - 1_000
POLICY = Policy(RECOVER, (1_000,), lease_ms=70_000, limit_ms=60_000, batch=1)
EVENTS, PLACES = 4, ("ep_1", "ep_2", "ep_3")
MERCHANT_OF = {"ep_1": "mer_a", "ep_2": "mer_a", "ep_3": "mer_b"}
TYPES = ("payment.succeeded", "payment.failed")
DISABLED = [frozenset[str](), *(frozenset({place}) for place in PLACES)]


@dataclass(frozen=True)
class Owed:
    """One delivery: `late` for dead ones, they died since the time asked for."""

    state: str  # dead | done | first | waiting | flying
    late: bool


deliveries = st.lists(
    st.builds(Owed, st.sampled_from(["dead", "dead", "dead", "done", "first", "waiting", "flying"]), st.booleans()),
    max_size=3,
)
worlds = st.fixed_dictionaries({(n, place): deliveries for n in range(EVENTS) for place in PLACES})
filters = st.fixed_dictionaries(
    {},
    optional={
        "endpoint": st.sampled_from(PLACES),
        "type": st.sampled_from(TYPES),
        "payment": st.sampled_from(["pay_0", "pay_1"]),
        "merchant": st.sampled_from(["mer_a", "mer_b"]),
    },
)


def wanted_pair(asked: dict[str, str], number: int, place: str) -> bool:
    """Whether the filters let this event and this endpoint through."""
    return (
        asked.get("endpoint", place) == place
        and asked.get("merchant", MERCHANT_OF[place]) == MERCHANT_OF[place]
        and asked.get("type", TYPES[number % 2]) == TYPES[number % 2]
        and asked.get("payment", f"pay_{number // 2}") == f"pay_{number // 2}"
    )


def fill(tx: Connection, world: dict[tuple[int, str], list[Owed]], disabled: frozenset[str]) -> None:
    """The world, as rows."""
    for name in ("mer_a", "mer_b"):
        tx.execute(insert(merchants).values(id=name, name=name, status="active", created_at_ms=1))
    for place in PLACES:
        status = "disabled" if place in disabled else "enabled"
        row = {"id": place, "merchant_id": MERCHANT_OF[place], "url": "https://a.example", "status": status}
        tx.execute(insert(endpoints).values(**row, created_at_ms=1))
        tx.execute(
            insert(outbox_tables.destinations).values(
                topic=WEBHOOK, destination=place, held="off" if place in disabled else None
            )
        )
    for number in range(EVENTS):
        row = {"id": f"evt_{number}", "merchant_id": "mer_a", "type": TYPES[number % 2], "sequence": 1, "body": b"{}"}
        tx.execute(insert(events).values(**row, payment_id=f"pay_{number // 2}", created_at_ms=1))
    for (number, place), owed in world.items():
        for at, one in enumerate(owed):
            values: dict[str, Any] = {"state": "pending", "due_at_ms": NOW_MS - 50, "tries": 1, "claim": 1}
            values |= {"settled_claim": 1, "last_try_at_ms": NOW_MS - 100}
            if one.state in ("dead", "done"):
                values |= {"state": one.state, "finished_at_ms": SINCE_MS + (5 if one.late else -5)}
            elif one.state == "first":
                values |= {"tries": 0, "claim": 0, "settled_claim": 0, "last_try_at_ms": None}
            else:
                values |= {"due_at_ms": NOW_MS + 60_000 + at, "settled_claim": int(one.state == "waiting")}
            id_ = delivery_id(f"evt_{number}", place, at)
            row = {"id": id_, "topic": WEBHOOK, "destination": place, "subject": f"evt_{number}", "payload": ""}
            tx.execute(insert(outbox_tables.messages).values(**row, created_at_ms=1, **values))


def rows(tx: Connection) -> dict[str, tuple[str, int]]:
    """Every delivery: its state, and when it is due."""
    m = outbox_tables.messages.c
    found = tx.execute(select(m.id, m.state, m.due_at_ms).where(m.topic == WEBHOOK))
    return {row.id: (row.state, row.due_at_ms) for row in found}


reached: Counter[str] = Counter()


@settings(max_examples=max(100, settings().max_examples))
@given(worlds, filters, filters, st.sampled_from(DISABLED), st.builds(Random, st.integers(0, 9_999)))
def exactly_what_was_missed(
    world: dict[tuple[int, str], list[Owed]],
    asked: dict[str, str],
    also: dict[str, str],
    disabled: frozenset[str],
    luck: Random,
) -> None:
    """Two jobs in pieces of one or two rows, in any order of turns, one of them paused and resumed on the way."""
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    queue = Queue(outbox_tables)
    recoverer = Recoverer(queue, lambda: NOW_MS)
    by = By("test", NOW_MS, Ids(lambda: NOW_MS, lambda: luck.getrandbits(80)))
    sizes = {"LOOKED_A_PIECE": luck.choice([1, 2, 500]), "ENDPOINTS_A_PIECE": luck.choice([1, 2])}
    with engine.begin() as tx, patch.multiple(missed, **sizes), patch.object(recovery, "SENT_A_PIECE", 2):
        fill(tx, world, disabled)
        before = rows(tx)
        jobs = [recovery.begin(tx, queue, Scope(SINCE_MS, NOW_MS, **one), None, 0, by) for one in (asked, also)]
        turns = 0
        while claimed := queue.claim(tx, POLICY, NOW_MS, luck).messages:
            turns += 1
            assert turns < 200, "it does not end"
            outcomes = recoverer.work(tx, claimed)
            queue.settle(tx, list(zip(claimed, outcomes, strict=True)), POLICY, NOW_MS, luck)
            status = select(recoveries.c.status).where(recoveries.c.id == jobs[0])
            if luck.random() < 0.2 and tx.execute(status).scalar_one() == "running":
                recovery.pause(tx, jobs[0], by)
                recovery.resume(tx, queue, jobs[0], by)
        after = rows(tx)
        done = tx.execute(select(recoveries)).all()
    engine.dispose()
    assert {job.status for job in done} == {"finished"}

    expected = dict(before)
    sent = hurried = 0
    for (number, place), owed in world.items():
        if place in disabled or not any(wanted_pair(one, number, place) for one in (asked, also)):
            continue
        if owed and all(one.state == "dead" for one in owed) and owed[-1].late:
            expected[delivery_id(f"evt_{number}", place, len(owed))] = ("pending", NOW_MS)
            sent += 1
        for at, one in enumerate(owed):
            if one.state == "waiting":
                expected[delivery_id(f"evt_{number}", place, at)] = ("pending", NOW_MS)
                hurried += 1
    assert after == expected
    assert sum(job.sent for job in done) == sent
    assert sum(job.hurried for job in done) == hurried
    reached.update({"sent": sent, "hurried": hurried, "skipped": sum(job.skipped for job in done)})
    reached.update({"disabled": sum(job.disabled for job in done)})


def test_exactly_what_was_missed_comes_again_once() -> None:
    """Against the model; and what was drawn has met every case."""
    exactly_what_was_missed()
    assert all(reached[what] >= 5 for what in ("sent", "hurried", "skipped", "disabled")), reached
