"""Endpoints that do nothing but fail: warned of after one day and after four, disabled after five."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, select

import service.callbacks.tables  # noqa: F401 - the tables have to meet in the one MetaData
from outbox.health import Ended
from outbox.message import Done, Outcome, Retry
from outbox.policy import STANDARD_MS, Policy
from outbox.queue import Queue
from service.ids import Ids
from service.merchants import endpoints, merchants
from service.merchants.audit import By
from service.merchants.endpoints import forget_warnings
from service.merchants.events import WEBHOOK, News, rfc3339, tell
from service.merchants.failing import DAY_MS, disabled, failed
from service.merchants.tables import audit, events
from service.payments.tables import attention
from service.schema import metadata, outbox_tables
from service.seal import Seal, new_master_key
from tests.support.clock import Clock

SEAL = Seal([new_master_key()])
POLICY = Policy(WEBHOOK, STANDARD_MS, lease_ms=30_000, limit_ms=12_000, per_destination=4, jitter=0, breaker=True)


class Desk:
    """A merchant with a failing endpoint and another that listens; every try is settled as the deliverer does it."""

    def __init__(self, tx: Connection) -> None:
        self.tx, self.clock, self.queue = tx, Clock(), Queue(outbox_tables)
        self.merchant = merchants.create(tx, "Awa", False, self.by(), SEAL, lambda *_: None).id
        self.sick = endpoints.add(tx, self.merchant, "https://sick.example/", self.by(), SEAL, schedule="0").id
        self.other = endpoints.add(tx, self.merchant, "https://other.example/", self.by(), SEAL).id

    def by(self) -> By:
        return By("caisse", self.clock(), Ids(self.clock))

    def answer(self, works: bool = False) -> list[str]:
        """One more event, and what the sick endpoint answers to it; what a person was told to look at."""
        tx, now_ms, told = self.tx, self.clock(), list[str]()
        tell(tx, self.queue, [News(self.merchant, "endpoint.test", 0, {})], self.by().ids, now_ms)
        self.queue.destinations.resume(tx, WEBHOOK, [self.sick])
        mine = None
        while mine is None:
            claim = self.queue.claim(tx, POLICY, now_ms, Random(1))
            assert claim.messages, "the sick one has something due"
            for message in claim.messages:
                if message.destination != self.sick:
                    self.queue.settle(tx, [(message, Done())], POLICY, now_ms, Random(1))
                else:
                    mine = message
        outcome: Outcome = Done(then=lambda tx: forget_warnings(tx, self.sick, now_ms))
        if not works:
            outcome = Retry("http_500", then=lambda tx: told.extend(failed(tx, self.queue, self.sick, self.by())))
        assert len(self.queue.settle(tx, [(mine, outcome)], POLICY, now_ms, Random(1))) == 1
        return told

    def endpoint(self) -> dict[str, Any]:
        return endpoints.one(self.tx, self.sick)

    def told(self, type_: str) -> list[dict[str, Any]]:
        query = select(events.c.body).where(events.c.type == type_).order_by(events.c.position)
        return [json.loads(body)["data"]["endpoint"] for body in self.tx.execute(query).scalars()]

    def open(self) -> dict[str, str]:
        query = select(attention.c.reason, attention.c.detail).where(attention.c.closed_at_ms.is_(None))
        return {row.reason: row.detail for row in self.tx.execute(query)}


@pytest.fixture
def desk() -> Iterator[Desk]:
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.begin() as tx:
        yield Desk(tx)
    engine.dispose()


def test_warned_after_one_day_and_after_four_disabled_after_five(desk: Desk) -> None:
    """To the millisecond, each once, told to the merchant's other endpoint and put before a person."""
    begun_ms, heard = desk.clock(), []
    for at_ms in (0, DAY_MS - 1, DAY_MS, DAY_MS + 1, 4 * DAY_MS - 1, 4 * DAY_MS, 5 * DAY_MS - 1, 5 * DAY_MS):
        desk.clock.now_ms = begun_ms + at_ms
        told = desk.answer()
        heard.append((at_ms, told)) if told else None
        assert (desk.endpoint()["status"] == "disabled") == (at_ms == 5 * DAY_MS)
    assert heard == [
        (DAY_MS, ["endpoint_failing"]), (4 * DAY_MS, ["endpoint_failing"]), (5 * DAY_MS, ["endpoint_disabled"])
    ]  # fmt: skip
    ends = rfc3339(begun_ms + 5 * DAY_MS)
    assert [(w["id"], w["url"], w["failing_since"], w["disabled_at"]) for w in desk.told("endpoint.failing")] == [
        (desk.sick, "https://sick.example/", rfc3339(begun_ms), ends)
    ] * 2
    (gone,) = desk.told("endpoint.disabled")
    assert str(rfc3339(begun_ms)) in gone["reason"]
    assert list(desk.open()) == ["endpoint_disabled"], "the warning is closed, what it warned of is open"
    assert [row.action for row in desk.tx.execute(select(audit).where(audit.c.subject == desk.sick))][-1:] == [
        "endpoint.disabled"
    ]


def test_nothing_is_dropped_when_it_is_disabled(desk: Desk) -> None:
    """What is owed, and what is told afterwards, waits under the reason; the other endpoint gets its own."""
    desk.answer()
    assert disabled(desk.tx, desk.queue, desk.sick, "it answered 410 Gone", desk.by()) == ["endpoint_disabled"]
    assert disabled(desk.tx, desk.queue, desk.sick, "again", desk.by()) == [], "once"
    standing = desk.queue.destinations.standing(desk.tx, WEBHOOK, desk.sick)
    assert (standing.held, standing.owed) == (
        "it answered 410 Gone",
        1,
    )  # the one that failed; bad news of itself it is not told
    desk.clock.advance(60_000)
    assert {m.destination for m in desk.queue.claim(desk.tx, POLICY, desk.clock(), Random(1)).messages} == {desk.other}


def test_nobody_is_disabled_sooner_than_a_day_after_the_last_warning(desk: Desk) -> None:
    """Nothing was owed to it for a week: the first failure after that warns, the next a day later disables."""
    desk.answer()
    desk.clock.advance(7 * DAY_MS)
    assert desk.answer() == ["endpoint_failing"]
    assert desk.told("endpoint.failing")[0]["disabled_at"] == rfc3339(desk.clock() + DAY_MS)
    desk.clock.advance(DAY_MS - 1)
    assert desk.answer() == []
    desk.clock.advance(1)
    assert desk.answer() == ["endpoint_disabled"]


def test_a_success_clears_the_warning_and_the_days_begin_anew(desk: Desk) -> None:
    """It is nothing but failures that disables."""
    desk.answer()
    desk.clock.advance(4 * DAY_MS)
    assert desk.answer() == ["endpoint_failing"]
    assert desk.open().keys() == {"endpoint_failing"}
    desk.answer(works=True)
    row = desk.endpoint()
    assert (row["warnings"], row["failing_since_ms"], row["warned_at_ms"], desk.open()) == (0, None, None, {})
    desk.clock.advance(DAY_MS)
    assert desk.answer() == []
    desk.clock.advance(DAY_MS)
    assert desk.answer() == ["endpoint_failing"]
    assert desk.endpoint()["status"] == "enabled"


def test_a_success_that_nobody_noted_begins_the_days_anew_too(desk: Desk) -> None:
    """It was claimed before the warning was written: the failures since then are others than those warned of."""
    desk.answer()
    desk.clock.advance(4 * DAY_MS)
    assert desk.answer() == ["endpoint_failing"]
    desk.queue.destinations.heard(desk.tx, POLICY, {desk.sick: [Ended(failed=False)]}, desk.clock())
    desk.clock.advance(1)
    assert desk.answer() == []
    desk.clock.advance(DAY_MS)
    assert desk.answer() == ["endpoint_failing"]
    assert desk.endpoint()["warnings"] == 1


def test_enabled_again_it_has_its_five_days(desk: Desk) -> None:
    """What it did before it was disabled says nothing about now."""
    desk.answer()
    desk.clock.advance(5 * DAY_MS)
    desk.answer()
    desk.clock.advance(DAY_MS)
    assert desk.answer() == ["endpoint_disabled"]

    def release(tx: Connection, endpoint_id: str) -> None:
        desk.queue.destinations.release(tx, WEBHOOK, endpoint_id)

    endpoints.enable(desk.tx, desk.sick, desk.by(), release)
    assert desk.answer() == []
    desk.clock.advance(DAY_MS - 1)
    assert desk.answer() == []
    desk.clock.advance(1)
    assert desk.answer() == ["endpoint_failing"]
