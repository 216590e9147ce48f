"""What each job finds and promises: all of it, once, nothing that is not its own, and nothing in a dry run."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, delete, select, update

from outbox.health import Ended
from outbox.message import Promise
from outbox.queue import Queue
from scheduler import Counters, Job, Run, Schedule, Scheduler, Tick
from service.callbacks.process import Report
from service.escrow.holds import DAY_MS, HOUR_MS, UNDELIVERED, Holds
from service.escrow.states import Payout
from service.escrow.tables import holds, payouts
from service.ids import Ids
from service.jobs import release_escrow as releasing
from service.jobs.ask_about_stuck_attempts import ask_about_stuck_attempts
from service.jobs.cleanup_stale_payment_intents import STALE_AFTER_MS, cleanup_stale_payment_intents
from service.jobs.expire_stale_orders import expire_stale_orders
from service.jobs.release_escrow import release_escrow
from service.jobs.rest_failing_endpoints import rest_failing_endpoints
from service.merchants import endpoints
from service.merchants.events import WEBHOOK
from service.merchants.failing import WARN_AFTER_MS
from service.merchants.tables import audit
from service.merchants.tables import endpoints as endpoint_rows
from service.orders.expire import MAX_HOLD_MS
from service.orders.orders import EXPIRES_MS
from service.orders.settle import EXPIRE, WIND_DOWN
from service.orders.tables import orders
from service.payments.facts import Kind
from service.payments.refunds import REFUND
from service.payments.states import RefundState
from service.payments.tables import attempts, attention, payments, refunds
from service.schema import outbox_tables, scheduler_tables
from service.seal import Seal, new_master_key
from tests.property.test_orders_machine import fact
from tests.support.clock import Clock
from tests.support.database import Database
from tests.support.escrow import Market
from tests.unit.test_merchants_failing import POLICY

MESSAGES = outbox_tables.messages


@dataclass
class Parts:
    """As much of the application as jobs need, over a market in memory."""

    db: Any
    queue: Queue
    ids: Ids
    clock: Clock
    holds: Holds
    nudges: int = 0
    opened: list[str] = field(default_factory=list)

    def nudge(self) -> None:
        self.nudges += 1

    @property
    def watch(self) -> Any:
        def tell(report: Report) -> None:
            self.opened += report.attention

        return SimpleNamespace(tell=tell)


class House(Market):
    """A market, and the scheduler that runs one job of it by hand."""

    def __init__(self) -> None:
        super().__init__()
        db = Database.__new__(Database)
        db.engine, db.writes = self.engine, 0
        db.fail_before, db.fail_after, db.gate, db.gate_after = [], [], None, None
        self.parts = Parts(db, self.queue, self.ids, self.clock, self.holds)

    def run(self, does: Callable[[Any, Tick], Any], dry_run: bool = False) -> Counters:
        """Run a job to its end, and return what it counted. One that fails fails the test."""

        async def go() -> Run:
            job = Job("job", Schedule("* * * * *", "UTC"), partial(does, self.parts), "x", 60_000)
            scheduler = Scheduler(self.parts.db, scheduler_tables, [job], self.clock, self.ids)
            begun = await scheduler.run_now("job", "test", dry_run)
            ended = await scheduler.wait(begun.id)
            assert ended is not None
            return ended

        ended = asyncio.run(go())
        assert ended.state == "done", ended.error
        return ended.counters

    def owed(self, topic: str) -> list[str]:
        """What is promised of a topic, by subject."""
        with self.tx() as tx:
            mine = select(MESSAGES.c.subject).where(MESSAGES.c.topic == topic, MESSAGES.c.state == "pending")
            return sorted(tx.execute(mine).scalars())

    def lose(self, topic: str, *, dead: bool = False) -> None:
        """The messages of a topic are gone, or dead."""
        with self.tx() as tx:
            mine = MESSAGES.c.topic == topic
            if dead:
                tx.execute(update(MESSAGES).where(mine).values(state="dead", finished_at_ms=1))
            else:
                tx.execute(delete(MESSAGES).where(mine))

    def set(self, table: Any, id_: str, **values: Any) -> None:
        with self.tx() as tx:
            tx.execute(update(table).where(table.c.id == id_).values(**values))

    def rows(self, query: Any) -> list[Any]:
        with self.tx() as tx:
            return list(tx.execute(query).all())


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.close()


# --- expire-stale-orders ------------------------------------------------------------------------------


def test_an_order_whose_look_is_lost_is_found_and_expires(house: House) -> None:
    """Past its time to the millisecond, when the promise is gone or dead; one that is promised is left to that."""
    lost, promised = house.order(), house.order()
    session = house.session(amount_minor=5_000, currency="XOF", expires_in_ms=EXPIRES_MS).id
    with house.tx() as tx:
        tx.execute(delete(MESSAGES).where(MESSAGES.c.subject == lost))
        tx.execute(update(MESSAGES).where(MESSAGES.c.subject == session).values(state="dead", finished_at_ms=1))
    house.clock.advance(EXPIRES_MS - 1)
    assert house.run(expire_stale_orders) == {"orders": 0, "orders_held_too_long": 0, "sessions": 0}
    house.clock.advance(1)
    found = {"orders": 1, "orders_held_too_long": 0, "sessions": 1}
    assert house.run(expire_stale_orders, dry_run=True) == found
    assert house.owed(EXPIRE) == [promised]
    assert house.run(expire_stale_orders) == found
    assert house.owed(EXPIRE) == sorted([lost, promised, session])
    assert house.parts.nudges == 2
    assert house.run(expire_stale_orders) == dict.fromkeys(found, 0), "what is promised is not promised twice"
    house.expire(lost)
    assert house.seen(lost)["state"] == "expired"


def test_orders_are_found_in_batches_and_none_is_left_out(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven in batches of three: all of them, none twice."""
    monkeypatch.setattr("service.jobs.expire_stale_orders.BATCH", 3)
    mine = sorted(house.order() for _ in range(7))
    house.lose(EXPIRE)
    house.clock.advance(EXPIRES_MS)
    assert house.run(expire_stale_orders)["orders"] == 7
    assert house.owed(EXPIRE) == mine
    assert house.parts.nudges == 3


def test_what_is_paid_or_before_a_person_is_never_found(house: House) -> None:
    """A paid order, one with enough of the wrong money, one that was cancelled."""
    paid, wrong, over = house.sold()[0], house.order(), house.order()
    house.cancel(over)
    house.set(orders, wrong, paid_minor=5_000)
    house.lose(EXPIRE)
    house.clock.advance(EXPIRES_MS + MAX_HOLD_MS)
    assert not any(house.run(expire_stale_orders).values())
    assert house.seen(paid)["state"] == "paid"


def test_an_order_that_holds_its_stock_too_long_is_found(house: House) -> None:
    """Expiring, its second look lost: after max_hold, and not a moment sooner."""
    order_id = house.order()
    house.pay(order_id)
    house.clock.advance(EXPIRES_MS)
    house.expire(order_id)
    house.lose(EXPIRE)
    house.clock.advance(MAX_HOLD_MS - 1)
    assert house.run(expire_stale_orders)["orders_held_too_long"] == 0
    house.clock.advance(1)
    assert house.run(expire_stale_orders)["orders_held_too_long"] == 1
    assert house.owed(EXPIRE) == [order_id]


# --- cleanup-stale-payment-intents --------------------------------------------------------------------


def test_only_payments_that_nothing_waits_for_are_wound_down(house: House) -> None:
    """
    Without an order, or of one that is over, live, ours, a day old: those and no others, and never what succeeded.
    """
    alone, of_order, begun_elsewhere = house.pay(), house.pay(order := house.order()), house.pay()
    house.set(payments, begun_elsewhere, origin="external")
    captured, failed = house.pay(), house.pay()
    house.captured(captured)
    house.tell((failed, fact(Kind.FAILED, failed, house.clock())))
    house.set(orders, order, state="canceled", ended_at_ms=1)
    house.pay(house.order())  # which still waits for it
    house.clock.advance(STALE_AFTER_MS - 1)
    young = house.pay()
    assert house.run(cleanup_stale_payment_intents) == {"payments": 0}
    house.clock.advance(1)
    house.set(payments, young, created_at_ms=house.clock() - STALE_AFTER_MS)
    assert house.run(cleanup_stale_payment_intents, dry_run=True) == {"payments": 2}
    assert house.owed(WIND_DOWN) == []
    assert house.run(cleanup_stale_payment_intents) == {"payments": 2}
    assert house.owed(WIND_DOWN) == sorted([alone, of_order])
    assert house.run(cleanup_stale_payment_intents) == {"payments": 0}


# --- ask-about-stuck-attempts -------------------------------------------------------------------------


def test_whatever_has_no_end_is_asked_about_again(house: House) -> None:
    """Attempts, refunds and payouts whose message is gone or dead; what waits for a person or has an end is not."""
    payment_id, ended = house.pay(), house.pay()
    house.tell((ended, fact(Kind.FAILED, ended, house.clock())))
    order_id, (_, paid) = house.sold()[0], house.sold()
    refund_id, manual, over = (house.refund(paid, 1_000) for _ in range(3))
    house.set(refunds, manual, manual=True, state=RefundState.QUEUED.value)
    house.set(refunds, over, state=RefundState.SUCCEEDED.value)
    house.deliver(order_id)
    house.release(house.hold_of(order_id)["id"])
    (payout_id,) = [row.id for row in house.rows(select(payouts.c.id))]
    assert house.run(ask_about_stuck_attempts)["refunds"] == 0, "it is promised"
    for dead in (False, True):
        for topic in (REFUND, "payout", "sync"):
            house.lose(topic, dead=dead)
        house.clock.advance(1)
        found = {"attempts": 1, "refunds": 1, "payouts": 1}
        assert house.run(ask_about_stuck_attempts, dry_run=True) == found
        assert house.owed("sync") == []
        assert house.run(ask_about_stuck_attempts) == found
        (attempt,) = house.rows(select(attempts.c.id).where(attempts.c.payment_id == payment_id))
        assert house.owed("sync") == [attempt.id]
        assert (house.owed(REFUND), house.owed("payout")) == ([refund_id], [payout_id])
    for state in (Payout.AWAITING_APPROVAL, Payout.PAID):
        house.lose("payout")
        house.set(payouts, payout_id, state=state.value)
        assert house.run(ask_about_stuck_attempts)["payouts"] == 0


def test_a_question_that_is_only_asked_once_carries_nothing(house: House) -> None:
    """A hint's question about a payout is pending: the payout is still promised what brings it to its end."""
    order_id, _ = house.sold()
    house.deliver(order_id)
    house.release(house.hold_of(order_id)["id"])
    house.lose("payout")
    (row,) = house.rows(select(payouts.c.id, payouts.c.account_id))
    with house.tx() as tx:
        house.queue.enqueue(tx, [Promise("payout:x", "payout", row.account_id, row.id, "ask")], house.clock())
    assert house.run(ask_about_stuck_attempts)["payouts"] == 1


# --- release-escrow -----------------------------------------------------------------------------------


def _delivered(house: House, count: int) -> list[str]:
    found = []
    for _ in range(count):
        order_id, _ = house.sold()
        house.deliver(order_id)
        found.append(house.hold_of(order_id)["id"])
    return found


def test_due_holds_are_released_in_pieces_and_written_down(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five in pieces of two: each once, with its payout promised and a row of the audit trail by the job's name."""
    monkeypatch.setattr(releasing, "PIECE", 2)
    mine = _delivered(house, 5)
    house.clock.advance(48 * HOUR_MS - 1)
    assert house.run(release_escrow)["released"] == 0
    house.clock.advance(1)
    assert house.run(release_escrow, dry_run=True) == {"released": 5, "undelivered": 0}
    assert [row.state for row in house.rows(select(holds.c.state))] == ["release_scheduled"] * 5
    assert house.run(release_escrow) == {"released": 5, "left": 0, "undelivered": 0}
    assert {row.state for row in house.rows(select(holds.c.state))} == {"released"}
    assert len(house.owed("payout")) == 5
    told = house.rows(select(audit.c.subject, audit.c.actor).where(audit.c.action == "hold.released"))
    assert sorted(told) == [(id_, "job:release-escrow") for id_ in sorted(mine)]
    assert house.run(release_escrow)["released"] == 0


def test_a_piece_that_is_undone_is_released_by_the_next_run(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was committed stays with its counters, the failed piece leaves nothing, and nothing is released twice."""
    monkeypatch.setattr(releasing, "PIECE", 2)
    _delivered(house, 5)
    house.clock.advance(48 * HOUR_MS)
    real = house.holds.release_due
    calls = Counter[str]()

    def breaks(tx: Connection, *more: Any) -> Mapping[str, int]:
        calls["all"] += 1
        did = real(tx, *more)
        if calls["all"] == 2:
            raise RuntimeError("in the middle")
        return did

    monkeypatch.setattr(house.holds, "release_due", breaks)
    with pytest.raises(AssertionError, match="in the middle"):
        house.run(release_escrow)
    (kept,) = house.rows(select(scheduler_tables.runs.c.counters, scheduler_tables.runs.c.state))
    assert kept == ('{"left":0,"released":2,"undelivered":0}', "failed")
    assert Counter(row.state for row in house.rows(select(holds.c.state))) == {"released": 2, "release_scheduled": 3}
    assert house.run(release_escrow)["released"] == 3
    assert len(house.owed("payout")) == 5


def test_what_was_never_delivered_comes_before_a_person_once(house: House) -> None:
    """After the merchant's days; a dry run counts the same and opens nothing."""
    order_id, _ = house.sold()
    house.clock.advance(14 * DAY_MS - 1)
    assert house.run(release_escrow)["undelivered"] == 0
    house.clock.advance(1)
    assert house.run(release_escrow, dry_run=True)["undelivered"] == 1
    assert house.rows(select(attention.c.id).where(attention.c.reason == UNDELIVERED)) == []
    assert house.run(release_escrow)["undelivered"] == 1
    (row,) = house.rows(select(attention.c.subject).where(attention.c.reason == UNDELIVERED))
    assert row.subject == house.hold_of(order_id)["id"]
    assert house.run(release_escrow)["undelivered"] == 0


# --- rest-failing-endpoints ---------------------------------------------------------------------------


def test_an_endpoint_that_only_fails_is_judged_between_its_tries(house: House) -> None:
    """Warned after a day and after four, disabled after five, though nothing is tried; one owed nothing is left."""
    seal = Seal([new_master_key()])
    with house.tx() as tx:
        sick, idle = (
            endpoints.add(tx, "mer_1", f"https://{name}.example/", house.by, seal, "payment.succeeded").id
            for name in ("sick", "idle")
        )
        house.queue.enqueue(tx, [Promise(f"webhook:e:{to}:0", WEBHOOK, to, "e") for to in (sick, idle)], house.clock())
        for to in (sick, idle):
            house.queue.destinations.heard(tx, POLICY, {to: [Ended(True, 0, False)]}, house.clock())
        tx.execute(delete(MESSAGES).where(MESSAGES.c.destination == idle))
        house.queue.destinations.turn(tx, [(WEBHOOK, idle)])
    found = []
    began_ms = house.clock()
    for after_ms in (WARN_AFTER_MS[0] - 1, WARN_AFTER_MS[0], WARN_AFTER_MS[1], 5 * DAY_MS):
        house.clock.now_ms = began_ms + after_ms
        would = house.run(rest_failing_endpoints, dry_run=True)
        assert house.run(rest_failing_endpoints) == would
        found.append((would["warned"], would["disabled"]))
        assert not any(house.run(rest_failing_endpoints).values()), "said once"
    assert found == [(0, 0), (1, 0), (1, 0), (0, 1)]
    states = {row.id: row.status for row in house.rows(select(endpoint_rows.c.id, endpoint_rows.c.status))}
    assert (states[sick], states[idle]) == ("disabled", "enabled")
    assert house.parts.opened == ["endpoint_failing", "endpoint_failing", "endpoint_disabled"]
    by = house.rows(select(audit.c.actor).where(audit.c.action == "endpoint.disabled"))
    assert [row.actor for row in by] == ["job:rest-failing-endpoints"]
