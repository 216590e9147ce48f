"""The clock is set back: nobody waits until it has come so far again, whatever became of who noticed it."""

from __future__ import annotations

from random import Random

import pytest
from sqlalchemy import Connection, MetaData

from outbox import Done, Policy, Promise, Queue, Trial
from outbox.tables import define
from tests.support.database import open_engine

POLICY = Policy("jobs", (1_000,), 10_000, 5_000, batch=10, per_destination=4)
NOW_MS = 1_000_000_000
HOUR_MS = 3_600_000


@pytest.mark.parametrize("undone", [False, True], ids=["committed", "rolled back once"])
@pytest.mark.parametrize("restarted", [False, True])
def test_who_was_served_by_the_old_time_is_served_by_the_new_one(undone: bool, restarted: bool) -> None:
    """Also when the claim that noticed it was undone, because of somebody else in its transaction, and is run again."""
    metadata = MetaData()
    queue, engine = Queue(define(metadata)), open_engine(":memory:")
    metadata.create_all(engine)

    def claim(tx: Connection, now_ms: int) -> list[str]:
        claim = queue.claim(tx, POLICY, now_ms, Random(0))
        queue.settle(tx, [(message, Done(Trial(200))) for message in claim.messages], POLICY, now_ms, Random(0))
        return [message.id for message in claim.messages]

    try:
        with engine.begin() as tx:
            queue.enqueue(tx, [Promise("before", "jobs", "shop", "s")], NOW_MS)
        with engine.begin() as tx:
            assert claim(tx, NOW_MS) == ["before"]
        now_ms = NOW_MS - HOUR_MS
        with engine.begin() as tx:
            queue.enqueue(tx, [Promise("after", "jobs", "shop", "s"), Promise("again", "jobs", "shop", "s")], now_ms)
            queue.destinations.turn(tx, [("jobs", "shop")])  # as any settle does
        if restarted:
            queue = Queue(define(MetaData()))
            with engine.begin() as tx:
                queue.forget_leases(tx, now_ms)
        if undone:
            with engine.connect() as tx:
                claim(tx, now_ms)
                tx.rollback()
        with engine.begin() as tx:
            assert sorted(claim(tx, now_ms)) == ["after", "again"]
    finally:
        engine.dispose()
