"""Working on kept callbacks: retries, death and running again; any order of the same callbacks ends the same."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import Connection, Engine, create_engine, event, insert, select

from outbox.message import Promise
from outbox.queue import Queue
from service import heartbeat
from service.callbacks import replay
from service.callbacks.process import Processor, Report
from service.callbacks.tables import callbacks
from service.callbacks.take import Arrival, take
from service.errors import Refusal
from service.heartbeat import Heartbeat
from service.ids import Ids
from service.merchants.tables import accounts, events, merchants
from service.payments.tables import attention, facts, payments
from service.schema import metadata, outbox_tables
from service.topics import CALLBACK_RETRIES_MS
from tests.support.clock import Clock
from tests.support.service import stripe_event, till

messages = outbox_tables.messages


def test_a4_the_retry_policies_are_the_lists_of_the_specification() -> None:
    """A4: the length of the list is the number of retries after the first try."""
    assert CALLBACK_RETRIES_MS == {
        "stripe": (10_000, 30_000, 60_000),
        "monetbil": (10_000, 30_000, 60_000),
        "payments": (10_000, 30_000, 90_000, 270_000, 810_000),
    }


def test_a_callback_that_cannot_be_worked_on_is_tried_again_dies_visibly_and_can_be_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One poisoned callback among good ones: they are not held up; it is tried four times, is dead, and is revived."""
    poisoned = True
    honest = Processor.process

    def process(self: Processor, tx: Connection, ids: Sequence[str]) -> Report:
        rows = tx.execute(select(callbacks.c.key).where(callbacks.c.id.in_(list(ids)))).scalars().all()
        if poisoned and "evt_bad" in rows:
            raise ZeroDivisionError
        return honest(self, tx, ids)

    monkeypatch.setattr(Processor, "process", process)
    monkeypatch.setitem(CALLBACK_RETRIES_MS, "stripe", (1, 1, 1))

    async def run() -> None:
        nonlocal poisoned
        async with till(tmp_path) as t:
            names = ["evt_1", "evt_bad", "evt_2", "evt_3"]
            for n, name in enumerate(names):
                assert await t.stripe(stripe_event("payment_intent.succeeded", name, intent=f"pi_{n}")) == 200
            await t.shop.wait_for(3)
            row = (await t.rows(callbacks, callbacks.c.key == "evt_bad"))[0]
            for _ in range(200):
                row = (await t.rows(callbacks, callbacks.c.key == "evt_bad"))[0]
                if row.status == "dead":
                    break
                await asyncio.sleep(0.02)
            assert (row.status, row.reason) == ("dead", "retries_spent")
            message = (await t.rows(messages, messages.c.subject == row.id))[0]
            assert (message.state, message.tries, message.last_error) == ("dead", 4, "ZeroDivisionError")
            assert (row.id, "callback_dead") in [(a.subject, a.reason) for a in await t.rows(attention)]
            poisoned = False
            await replay.replay(t.app, row.id, "the fault is repaired", "test")
            await t.shop.wait_for(4)
            await t.settled()
            assert (await t.rows(callbacks, callbacks.c.key == "evt_bad"))[0].status == "processed"
            with pytest.raises(Refusal, match="only parked, deferred, dead"):
                await replay.replay(t.app, row.id, "again", "test")

    asyncio.run(run())


def test_the_heartbeat_beats_while_work_moves_and_stops_when_it_does_not(tmp_path: Path) -> None:
    """A dead outbox must not look alive: with a message due for minutes no beat is sent, and readiness says why."""
    heard: list[str] = []

    async def run() -> None:
        site = web.Application()

        async def beat(request: web.Request) -> web.Response:
            heard.append(request.path)
            return web.Response()

        site.router.add_get("/beat", beat)
        runner = web.AppRunner(site, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/beat"
        try:
            async with till(tmp_path, heartbeat_url=url) as t:
                beating = Heartbeat(t.app)
                assert await beating.beat()
                assert heard[-1] == "/beat"
                assert t.app.dispatcher is not None
                await t.app.dispatcher.stop(1_000)
                late = t.app.clock() - heartbeat.STUCK_MS - 1_000
                promise = Promise("webhook:x", "webhook", "ep_1", "evt_1", due_at_ms=late)
                await t.app.db.write(t.app.queue.enqueue, [promise], late)
                count = len(heard)
                assert await beating.beat(), "old work alone is no fault"
                t.app.watch.started_at_ms = late
                t.app.watch.moved_at_ms.clear()
                count = len(heard)
                assert not await beating.beat()
                assert len(heard) == count
                async with t.client.get(t.url + "/readyz") as answer:
                    assert answer.status == 503 and "does not move" in await answer.text()
                async with t.client.get(t.url + "/metrics") as scraped:
                    text = await scraped.text()
                assert 'queue_size{queue="webhook"} 1.0' in text and "heartbeat_last_success" in text
        finally:
            await runner.cleanup()

    asyncio.run(run())


def test_a_heartbeat_that_fails_in_any_way_stops_neither_the_next_one_nor_the_service(tmp_path: Path) -> None:
    """An address that only turns out to be none when it is called: logged, tried again, and the stop is clean."""

    async def run() -> None:
        async with till(tmp_path, heartbeat_url="https://xn--/x") as t:
            beating = Heartbeat(t.app, every_s=0.01)
            beating.start()
            await asyncio.sleep(0.1)
            assert beating._task is not None and not beating._task.done()
            await beating.stop()

    asyncio.run(run())


def test_r13_no_label_of_a_metric_ever_holds_an_id(tmp_path: Path) -> None:
    """R13: after traffic of every kind, no id of anything stands in /metrics; the token guards it when it is set."""

    async def run() -> None:
        async with till(tmp_path, metrics_token="scraper") as t:
            for n in range(3):
                await t.stripe(stripe_event("payment_intent.succeeded", f"evt_{n}", intent=f"pi_{n}"))
            await t.post("/webhooks/stripe", b"{}")
            await t.post("/webhooks/nobody/evt_123", b"{}")
            await t.shop.wait_for(3)
            async with t.client.get(t.url + "/metrics") as closed:
                assert closed.status == 401
            async with t.client.get(t.url + "/metrics", headers={"Authorization": "Bearer scraper"}) as answer:
                assert answer.status == 200
                text = await answer.text()
            known = [row.id for table in (merchants, payments, callbacks, events) for row in await t.rows(table)]
            assert len(known) > 8
            for id_ in [*known, "pi_1", "evt_1", "evt_123", "nobody", "acc_stripe"]:
                assert id_ not in text, id_
            assert 'payments_total{gateway="stripe",status="succeeded"} 3.0' in text
            assert 'webhooks_received_total{provider="stripe",result="kept"} 3.0' in text

    asyncio.run(run())


# --- every order ends the same, through the whole of taking and working -------------------------------


def database() -> Engine:
    """The real schema in memory, with a merchant and its account."""
    engine = create_engine("sqlite://", connect_args={"isolation_level": None})
    event.listen(engine, "begin", lambda c: c.exec_driver_sql("BEGIN IMMEDIATE"))
    metadata.create_all(engine)
    with engine.begin() as tx:
        tx.execute(insert(merchants), {"id": "mer_1", "name": "Awa", "status": "active", "created_at_ms": 1})
        tx.execute(insert(accounts), {"id": "acc_stripe", "provider": "stripe", "merchant_id": "mer_1", "live": False,
                                      "origin": "settings", "created_at_ms": 1})  # fmt: skip
    return engine


def play(engine: Engine, stream: Sequence[dict[str, Any]], batch: int) -> dict[str, tuple[Any, ...]]:
    """Take the callbacks in this order and work on them in batches; what the payments are at the end."""
    clock = Clock()
    numbers = itertools.count()
    ids = Ids(clock, lambda: next(numbers))
    queue = Queue(outbox_tables)
    processor = Processor(queue, ids, clock, "caisse-here-")
    for start in range(0, len(stream), batch):
        for sent in stream[start : start + batch]:
            clock.advance(3)
            body = json.dumps(sent).encode()
            with engine.begin() as tx:
                take(tx, queue, [Arrival(ids("cb"), "acc_stripe", "stripe", "stripe", sent["id"], sent["type"], "POST",
                                         b"", body, b"", clock())])  # fmt: skip
        while True:
            with engine.begin() as tx:
                todo = tx.execute(select(callbacks.c.id).where(callbacks.c.status == "received")).scalars().all()
                if not todo:
                    break
                processor.process(tx, todo)
    with engine.begin() as tx:
        left = tx.execute(select(callbacks.c.status).where(callbacks.c.status == "deferred")).all()
        assert left == [], "something still waits"
        twice = tx.execute(select(facts.c.kind, facts.c.movement)).all()
        assert len(twice) == len(set(twice))
        return {
            row.provider_reference if row.provider_reference.startswith("pi") else f"pi_{row.provider_reference[-1]}": (
                row.status, row.exceptions, row.amount_minor, row.captured_minor, row.refunded_minor, row.paid_at_ms,
            )
            for row in tx.execute(select(payments).where(payments.c.merged_into.is_(None)))
        }  # fmt: skip


def story(n: int) -> list[dict[str, Any]]:
    """One payment's life: declined once, processing, paid, told three times over, partly refunded, disputed."""
    of: dict[str, Any] = {"intent": f"pi_{n}"}
    link = {"payment_intent": f"pi_{n}"}
    return [
        stripe_event("payment_intent.payment_failed", f"e{n}a", **of),
        stripe_event("payment_intent.processing", f"e{n}b", **of),
        stripe_event("payment_intent.succeeded", f"e{n}c", **of),
        stripe_event("checkout.session.completed", f"e{n}d", id=f"cs_{n}", object="checkout.session", status="complete",
                     payment_status="paid", amount_total=5000, **link),
        stripe_event("refund.created", f"e{n}e", id=f"re_{n}", object="refund", amount=1500, status="succeeded",
                     charge=f"ch_{n}", **link),
        stripe_event("charge.dispute.created", f"e{n}f", id=f"dp_{n}", object="dispute", amount=5000,
                     status="needs_response", charge=f"ch_{n}", **link),
    ]  # fmt: skip


def test_every_order_of_one_payments_callbacks_ends_the_same() -> None:
    """A sample of the 720 orders, each told twice over: one end, whatever waits for whatever on the way."""
    orders = list(itertools.permutations(story(1)))
    ends = set()
    for order in [*Random(7).sample(orders, 60), tuple(story(1)), tuple(reversed(story(1)))]:
        engine = database()
        ends.add(tuple(play(engine, [*order, *order], 1).values()))
        engine.dispose()
    assert ends == {(("partially_refunded", "disputed", 5000, 5000, 1500, 1_795_200_000_000),)}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_shuffled_and_tripled_stream_of_many_payments_ends_as_the_one_in_order(seed: int) -> None:
    """P2: 25 payments, every callback three times, shuffled over all of them, worked on in batches of twenty."""
    luck = Random(seed)
    stream = [sent for n in range(25) for sent in story(n)]
    engine = database()
    wanted = play(engine, stream, 1)
    engine.dispose()
    assert len(wanted) == 25
    mixed = stream * 3
    luck.shuffle(mixed)
    engine = database()
    assert play(engine, mixed, 20) == wanted
    engine.dispose()
