"""What goes and what stays, rule by rule and at each boundary; and a run, piece by piece."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, func, insert, select, update

from outbox import pruning
from outbox.message import Promise
from outbox.policy import Policy
from outbox.queue import Queue
from service import retention
from service.callbacks.replay import run_again
from service.callbacks.tables import callbacks, quarantine
from service.config import BadSetting, Settings
from service.errors import Refusal
from service.ids import Ids
from service.jobs.prune import prune
from service.merchants.tables import accounts, events, merchants
from service.payments.tables import idempotency as keys_used
from service.retention import DAY_MS, PRUNE, Pruner, Run, piece
from service.schema import metadata, outbox_tables, scheduler_tables
from tests.support.clock import Clock
from tests.support.database import Database, open_engine
from tests.support.service import settings_of

MESSAGES, TRIES, _ = outbox_tables
POLICY = Policy(PRUNE, (60_000,), lease_ms=70_000, limit_ms=60_000, batch=1)


class House:
    """A database with one merchant, a clock, and short ways to put rows of any age into it."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        self.engine, self.directory, self.clock = engine, directory, Clock()
        self.ids = Ids(self.clock)
        self.number = 0
        with engine.begin() as tx:
            row = {"id": "mer_1", "name": "Awa", "status": "active", "created_at_ms": 0}
            tx.execute(insert(merchants).values({k: v for k, v in row.items() if k in merchants.c}))
            account = {"id": "acc_1", "provider": "stripe", "merchant_id": "mer_1", "live": False, "name": "",
                       "origin": "settings", "status": "active", "base_url": "", "credentials": b"",
                       "created_at_ms": 0}  # fmt: skip
            tx.execute(insert(accounts).values({k: v for k, v in account.items() if k in accounts.c}))

    def settings(self, **days: str) -> Settings:
        return settings_of(self.directory, **days)

    def _at(self, days_ago: float) -> int:
        return self.clock() - round(days_ago * DAY_MS)

    def message(self, id_: str, topic: str, subject: str, state: str, ago: float, tries: int = 0, to: str = "") -> str:
        at_ms = self._at(ago)
        ended = at_ms if state in ("done", "dead") else None
        with self.engine.begin() as tx:
            tx.execute(insert(MESSAGES).values(
                id=id_, topic=topic, destination=to, subject=subject, payload="", state=state, due_at_ms=at_ms,
                tries=tries, claim=tries, settled_claim=tries, finished_at_ms=ended, created_at_ms=at_ms,
            ))  # fmt: skip
            for number in range(1, tries + 1):
                tx.execute(insert(TRIES).values(message_id=id_, number=number, started_at_ms=at_ms, duration_ms=1,
                                                head=b""))  # fmt: skip
        return id_

    def event(self, ago: float, *states: tuple[str, float], tries: int = 1) -> str:
        """An event told so many days ago, with a delivery for each (state, ended so many days ago)."""
        id_ = Ids(lambda: self._at(ago))("evt")
        with self.engine.begin() as tx:
            tx.execute(insert(events).values(id=id_, merchant_id="mer_1", type="payment.succeeded", sequence=1,
                                             body=b"{}", created_at_ms=self._at(ago)))  # fmt: skip
        for number, (state, ended) in enumerate(states):
            self.message(f"webhook:{id_}:ep_{number}:0", "webhook", id_, state, ended, tries, f"ep_{number}")
        return id_

    def callback(self, ago: float, status: str = "processed", *work: tuple[str, float]) -> str:
        id_ = Ids(lambda: self._at(ago))("cb")
        self.number += 1
        finished = self._at(ago) if status != "received" else None
        with self.engine.begin() as tx:
            tx.execute(insert(callbacks).values(
                id=id_, account_id="acc_1", key=f"k{self.number}", provider="stripe", kind="x", status=status,
                method="POST", query=b"q=1", body=b"body", body_sha256=b"d", received_at_ms=self._at(ago),
                last_seen_at_ms=self._at(ago), finished_at_ms=finished,
            ))  # fmt: skip
        for number, (state, ended) in enumerate(work):
            self.message(f"callback:{id_}:{number}", "stripe", id_, state, ended)
        return id_

    def quarantined(self, ago: float) -> str:
        id_ = Ids(lambda: self._at(ago))("qua")
        with self.engine.begin() as tx:
            tx.execute(insert(quarantine).values(id=id_, account_id="acc_1", provider="stripe", reason="x",
                                                 method="POST", headers="[]", query=b"", body=b"",
                                                 received_at_ms=self._at(ago)))  # fmt: skip
        return id_

    def prune(self, dry_run: bool = False, **days: str) -> dict[str, int]:
        """All pieces of a run; what went, the zeros left out."""
        settings, run = self.settings(**days), Run(self.clock())
        while not run.over:
            with self.engine.begin() as tx:
                run = piece(tx, settings, run, self.clock(), dry_run)
        return {what: count for what, count in run.gone.items() if count}

    def all(self, column: Any, *where: Any) -> list[Any]:
        with self.engine.begin() as tx:
            return list(tx.execute(select(column).where(*where).order_by(column)).scalars())


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    engine = open_engine(tmp_path / "caisse.db")
    metadata.create_all(engine)
    yield House(engine, tmp_path)
    engine.dispose()


# --- events and deliveries ---------------------------------------------------------------------------


def test_a_delivered_event_goes_with_its_deliveries_and_their_tries(house: House) -> None:
    """All three, and none of a younger one."""
    house.event(91, ("done", 91), ("done", 91), tries=3)
    young = house.event(89, ("done", 89))
    assert house.prune() == {"events": 1, "deliveries": 2, "tries": 6}
    assert house.all(events.c.id) == [young]
    assert house.all(MESSAGES.c.subject) == [young]
    assert len(house.all(TRIES.c.message_id)) == 1


@pytest.mark.parametrize("state", ["pending", "dead"])
def test_one_delivery_that_is_owed_keeps_the_event_and_all_its_deliveries(house: House, state: str) -> None:
    """Pending or failed, however old."""
    id_ = house.event(4000, ("done", 4000), (state, 4000))
    assert house.prune() == {}
    assert house.all(events.c.id) == [id_]
    assert len(house.all(MESSAGES.c.id)) == len(house.all(TRIES.c.message_id)) == 2


def again(house: House, event: str, number: int, state: str, ago: float, endpoint: str = "ep_0", tries: int = 1) -> str:
    """One more delivery of an event to an endpoint."""
    return house.message(f"webhook:{event}:{endpoint}:{number}", "webhook", event, state, ago, tries, endpoint)


def test_what_failed_and_was_delivered_later_goes_like_what_was_delivered(house: House) -> None:
    """As old as that later delivery; the failed one goes with its tries, and numbers are numbers: 10 is after 9."""
    id_ = house.event(4000, ("dead", 4000), tries=3)
    again(house, id_, 9, "dead", 200)
    again(house, id_, 10, "done", 89)
    assert house.prune() == {}
    house.clock.advance(2 * DAY_MS)
    assert house.prune() == {"events": 1, "deliveries": 3, "tries": 5}
    assert house.all(MESSAGES.c.id) == house.all(TRIES.c.message_id) == []


@pytest.mark.parametrize(
    ("number", "state", "endpoint"),
    [(1, "dead", "ep_0"), (1, "pending", "ep_0"), (1, "done", "ep_1"), (1, "done", "ep_01")],
)
def test_what_was_not_delivered_later_to_the_same_endpoint_stays(
    house: House, number: int, state: str, endpoint: str
) -> None:
    """It failed again, it is on its way, or it was another endpoint that got it."""
    id_ = house.event(4000, ("dead", 4000))
    again(house, id_, number, state, 4000, endpoint)
    assert house.prune() == {}


def test_an_earlier_delivery_forgives_nothing(house: House) -> None:
    """Somebody asked for it once more, and that failed."""
    id_ = house.event(4000, ("done", 4000))
    again(house, id_, 1, "dead", 4000)
    assert house.prune() == {}


def test_no_number_is_free_again_while_an_event_goes(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """In several pieces: after each of them what is left has the highest number there was, and is delivered."""
    monkeypatch.setattr(pruning, "ROWS_A_PIECE", 5)
    id_ = house.event(400, ("dead", 400))
    for number in range(1, 12):
        again(house, id_, number, "done" if number % 3 == 0 or number == 11 else "dead", 400)
    settings, run, pieces = house.settings(), Run(house.clock()), 0
    while house.all(events.c.id):
        left = [int(one.rpartition(":")[2]) for one in house.all(MESSAGES.c.id)]
        assert max(left) == 11
        with house.engine.begin() as tx:
            assert not pruning.unsettled(tx, outbox_tables, [id_])
            run = piece(tx, settings, run, house.clock())
        pieces += 1
    assert pieces > 3


def test_an_event_is_as_old_as_its_last_delivery(house: House) -> None:
    """Told long ago and delivered yesterday: it is kept from yesterday on."""
    house.event(200, ("done", 200), ("done", 1))
    assert house.prune() == {}
    house.clock.advance(90 * DAY_MS)
    assert house.prune() == {"events": 1, "deliveries": 2, "tries": 2}


def test_an_event_that_nobody_wanted_goes_by_its_age_alone(house: House) -> None:
    """No endpoint, no delivery, nothing owed."""
    house.event(91)
    house.event(89)
    assert house.prune() == {"events": 1}


def test_the_day_itself_is_kept_to_the_millisecond(house: House) -> None:
    """Exactly as old as the setting says stays, one millisecond more goes."""
    house.event(90, ("done", 90))
    assert house.prune() == {}
    house.clock.advance(1)
    assert house.prune() == {"events": 1, "deliveries": 1, "tries": 1}


def test_one_out_of_order_does_not_stop_the_walk(house: House) -> None:
    """A clock that was wrong for a moment leaves a younger event between old ones."""
    house.event(100)
    kept = house.event(1)
    house.event(100)
    assert house.prune() == {"events": 2}
    assert house.all(events.c.id) == [kept]


def test_a_piece_never_deletes_more_than_its_rows(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many events, one alone too large and one message alone too large: all go, a bounded number at a time."""
    monkeypatch.setattr(pruning, "ROWS_A_PIECE", 10)
    for _ in range(4):
        house.event(100, ("done", 100), tries=2)
    house.event(100, *[("done", 100)] * 15, tries=1)
    house.event(100, ("done", 100), tries=25)
    owed = house.event(100, ("dead", 100))
    house.event(100, ("done", 100), tries=3)
    settings, run, deleted = house.settings(), Run(house.clock()), []
    while not run.over:
        before = len(house.all(MESSAGES.c.id)), len(house.all(TRIES.c.message_id)), len(house.all(events.c.id))
        with house.engine.begin() as tx:
            run = piece(tx, settings, run, house.clock())
        after = len(house.all(MESSAGES.c.id)), len(house.all(TRIES.c.message_id)), len(house.all(events.c.id))
        deleted.append(sum(before) - sum(after))
        assert len(deleted) < 100, "it does not end"
    assert house.all(events.c.id) == [owed]
    assert house.all(MESSAGES.c.subject) == [owed]
    assert sorted(count for count in deleted if count > 10) == [27], "only the message with 25 tries is larger"


def test_large_bodies_go_in_more_pieces(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Of events, callbacks and quarantine: no piece deletes or empties more bytes than it may, and all of it goes. Large
    ones that are young, between old ones, do not end the walk.
    """
    monkeypatch.setattr(retention, "BYTES_A_PIECE", 100_000)
    for number in range(6):
        house.event(1 if number in (2, 3) else 100)
        house.callback(400)
        house.quarantined(100)
    with house.engine.begin() as tx:
        for table in (events, callbacks, quarantine):
            tx.execute(update(table).values(body=b"x" * 40_000))

    def size() -> int:
        return sum(len(body) for table in (events, callbacks, quarantine) for body in house.all(table.c.body))

    settings, run, went = house.settings(), Run(house.clock()), []
    while not run.over:
        before = size()
        with house.engine.begin() as tx:
            run = piece(tx, settings, run, house.clock())
        went.append(before - size())
    assert max(went) == 80_000
    assert size() == 80_000


def test_a_body_larger_than_a_piece_goes_alone(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the walk would stand before it for ever."""
    monkeypatch.setattr(retention, "BYTES_A_PIECE", 1)
    for _ in range(3):
        house.event(100)
        house.callback(400)
        house.quarantined(100)
    assert house.prune() == {"events": 3, "bodies": 3, "quarantine": 3}


# --- callbacks and work -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["processed", "ignored"])
def test_a_body_goes_after_a_year_and_its_row_stays(house: House, status: str) -> None:
    """Key and digest stay, so that a late copy is still known; the second run has nothing to do."""
    id_ = house.callback(366, status, ("done", 366))
    house.callback(364, status)
    assert house.prune() == {"bodies": 1, "work": 1}
    with house.engine.begin() as tx:
        row = tx.execute(select(callbacks).where(callbacks.c.id == id_)).one()
    assert (row.body, row.query, row.erased_at_ms) == (b"", b"", house.clock())
    assert (row.status, row.key, row.body_sha256) == (status, "k1", b"d")
    assert house.prune() == {}


@pytest.mark.parametrize("status", ["received", "deferred", "parked", "dead"])
def test_a_callback_that_was_not_worked_on_is_kept_for_ever(house: House, status: str) -> None:
    """Body and row, even if rows are to go."""
    house.callback(4000, status)
    assert house.prune(keep_callbacks_days="1", keep_callback_bodies_days="1") == {}


@pytest.mark.parametrize("state", ["pending", "dead"])
def test_a_callback_whose_question_was_not_answered_is_kept(house: House, state: str) -> None:
    """The answer may defer it, and then its body is read again."""
    id_ = house.callback(4000)
    house.message(f"ask:acc_1:r:{id_}:0", "ask", id_, state, 4000, to="acc_1")
    assert house.prune(keep_callbacks_days="1", keep_callback_bodies_days="1") == {}


def test_a_callback_that_was_run_again_goes_like_any_other(house: House) -> None:
    """Its first work failed for good, a person had it done again: nothing is owed of it."""
    id_ = house.callback(400, "processed", ("dead", 400), ("done", 400))
    house.message(f"ask:acc_1:r:{id_}:0", "ask", id_, "dead", 400, to="acc_1")
    house.message(f"ask:acc_1:r:{id_}:1", "ask", id_, "done", 400, to="acc_1")
    assert house.prune(keep_work_days="0") == {"bodies": 1}


def test_rows_go_only_if_a_setting_says_so(house: House) -> None:
    """By default never; then erased and unerased ones alike, by the day they were worked on."""
    house.callback(4000)
    assert house.prune() == {"bodies": 1}
    house.callback(11)
    kept = house.callback(9)
    assert house.prune(keep_callbacks_days="10") == {"callbacks": 2}
    assert house.all(callbacks.c.id) == [kept]


def test_ended_work_goes_and_unended_stays(house: House) -> None:
    """Work on callbacks, deferrals and questions; what is pending or dead is not touched, nor another topic's."""
    old, young = house.callback(91, "processed", ("done", 91), ("dead", 91), ("pending", 91)), house.callback(89)
    house.message(f"deferred:{old}", "deferred", old, "done", 91)
    house.message(f"ask:acc_1:r:{old}:0", "ask", old, "done", 91, tries=4, to="acc_1")
    house.message(f"ask:acc_1:r:{young}:0", "ask", young, "done", 89, to="acc_1")
    house.message("other:1", "other", "x", "done", 4000)
    assert house.prune() == {"work": 3, "tries": 4}
    left = [f"ask:acc_1:r:{young}:0", f"callback:{old}:1", f"callback:{old}:2", "other:1"]
    assert house.all(MESSAGES.c.id) == left


def test_work_that_ended_late_is_kept_from_then_on(house: House) -> None:
    """The id is old, the end is not."""
    house.callback(200, "processed", ("done", 1))
    assert house.prune() == {}


def test_quarantine_goes_by_age(house: House) -> None:
    """Nothing in it was believed, so nothing is owed of it."""
    house.quarantined(91)
    young = house.quarantined(89)
    assert house.prune() == {"quarantine": 1}
    assert house.all(quarantine.c.id) == [young]


# --- settings, and the dry run ------------------------------------------------------------------------


def test_zero_keeps_for_ever(house: House) -> None:
    """Each setting by itself."""
    house.event(9000, ("done", 9000))
    house.callback(9000, "processed", ("done", 9000))
    house.quarantined(9000)
    names = ("deliveries", "work", "callback_bodies", "callbacks", "quarantine")
    assert house.prune(False, **{f"keep_{name}_days": "0" for name in names}) == {}
    shown = {row["name"]: row["value"] for row in house.settings(keep_work_days="0").shown()}
    assert shown["CAISSE_KEEP_WORK_DAYS"] == "0"


@pytest.mark.parametrize("days", ["-1", "1.5", "36501", "ninety"])
def test_a_setting_that_is_no_number_of_days_is_refused(house: House, days: str) -> None:
    """By its name."""
    with pytest.raises(BadSetting, match="CAISSE_KEEP_DELIVERIES_DAYS must be a whole number of days"):
        house.settings(keep_deliveries_days=days)


def test_a_dry_run_tells_what_would_go_and_changes_nothing(house: House) -> None:
    """The same numbers as the run after it, from a connection that could not write."""
    for _ in range(3):
        house.event(100, ("done", 100), ("done", 100), tries=2)
    house.event(100, ("dead", 100))
    house.callback(400, "processed", ("done", 400))
    house.quarantined(100)
    before = house.all(MESSAGES.c.id), house.all(events.c.id), house.all(callbacks.c.body)
    told = house.prune(dry_run=True)
    assert (house.all(MESSAGES.c.id), house.all(events.c.id), house.all(callbacks.c.body)) == before
    assert told == house.prune() == {
        "events": 3, "deliveries": 6, "tries": 12, "work": 1, "bodies": 1, "quarantine": 1,
    }  # fmt: skip


# --- idempotency keys ----------------------------------------------------------------------------------


def _use_keys(house: House, hours_ago: float, *names: str) -> None:
    at_ms = house._at(hours_ago / 24)
    row = {"merchant_id": "mer_1", "live": False, "fingerprint": "f", "begun_at_ms": at_ms}
    with house.engine.begin() as tx:
        tx.execute(insert(keys_used), [row | {"key": name} for name in names])


def test_idempotency_keys_go_after_a_day_whatever_is_set(house: House) -> None:
    """To the millisecond; all settings at "for ever" change nothing. The same key is free again then."""
    _use_keys(house, 24, "a-day")
    house.clock.now_ms += 1
    _use_keys(house, 24, "a-day-and-nothing")
    for_ever = {name: "0" for name, _ in retention.WALKS if name}
    assert house.prune(True, **for_ever) == {"keys": 1}
    assert house.prune(False, **for_ever) == {"keys": 1}
    assert house.all(keys_used.c.key) == ["a-day-and-nothing"]


@pytest.mark.parametrize("dry_run", [True, False])
def test_keys_go_in_pieces_that_lose_none(house: House, monkeypatch: pytest.MonkeyPatch, dry_run: bool) -> None:
    """Many of the same moment, in pieces of three: each is counted once, dry or not."""
    monkeypatch.setattr(retention, "ROWS_A_PIECE", 3)
    _use_keys(house, 30, *(f"k{number}" for number in range(7)))
    _use_keys(house, 29, *(f"m{number}" for number in range(2)))
    assert house.prune(dry_run) == {"keys": 9}
    assert len(house.all(keys_used.c.key)) == (9 if dry_run else 0)


# --- what is gone is refused --------------------------------------------------------------------------


def test_a_callback_without_its_body_is_not_run_again(house: House) -> None:
    """A sentence, and no new message."""
    id_ = house.callback(400, "processed")
    house.prune()

    def again(tx: Connection) -> None:
        run_again(tx, Queue(outbox_tables), id_, "why", "cli", house.clock(), house.ids)

    with pytest.raises(Refusal, match="was erased") as refused, house.engine.begin() as tx:
        again(tx)
    assert refused.value.code == "erased"
    assert house.all(MESSAGES.c.id) == []


# --- a run in pieces ----------------------------------------------------------------------------------


class Nightly:
    """The topic, run by hand through the real queue."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.queue = Queue(outbox_tables)
        self.pruner = Pruner(self.queue, house.settings(), house.clock)

    def promise(self) -> bool:
        """What the job does."""
        with self.house.engine.begin() as tx:
            return self.pruner.promise(tx, self.house.clock())

    def step(self, crash: bool = False) -> str | None:
        """Claim and do one piece as the dispatcher does: work and settling in one transaction."""
        now_ms = self.house.clock()
        with self.house.engine.begin() as tx:
            claimed = self.queue.claim(tx, POLICY, now_ms, Random(0)).messages
        if not claimed:
            return None
        try:
            with self.house.engine.begin() as tx:
                outcomes = self.pruner.work(tx, claimed)
                settled = self.queue.settle(tx, list(zip(claimed, outcomes, strict=True)), POLICY, now_ms, Random(0))
                assert len(settled) == 1
                if crash:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            self.house.clock.advance(POLICY.lease_ms)
        return claimed[0].id

    def waiting(self) -> list[str]:
        with self.house.engine.begin() as tx:
            return list(tx.execute(select(MESSAGES.c.id).where(MESSAGES.c.state == "pending")).scalars())


@pytest.fixture
def nightly(house: House) -> Nightly:
    return Nightly(house)


def test_a_run_is_always_one_message_and_is_promised_once(nightly: Nightly, house: House) -> None:
    """While one is under way no other is promised; over, the next may be, on the same day too; nothing promises it."""
    for _ in range(2):
        assert nightly.promise()
        steps = 0
        while True:
            assert not nightly.promise()
            assert len(nightly.waiting()) == 1
            nightly.step()
            steps += 1
            assert steps < 50
            if not nightly.waiting():
                break
        assert nightly.step() is None
        house.clock.advance(1)
    assert len(house.all(MESSAGES.c.id)) <= 2, "earlier pieces are forgotten as well"


def test_a_kill_in_the_middle_goes_on_where_it_was(
    nightly: Nightly, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every piece is killed once before its commit; what is left at the end is what a run in one go leaves."""
    monkeypatch.setattr(pruning, "ROWS_A_PIECE", 5)
    for number in range(10):
        house.event(100, ("done", 100), tries=1)
        house.callback(400 + number, "processed", ("done", 400))
    owed = house.event(100, ("dead", 100))
    began_ms = house.clock()
    nightly.promise()
    seen: list[str] = []
    while (id_ := nightly.step(crash=True)) is not None:
        assert nightly.step() == id_, "the same piece again"
        seen.append(id_)
        assert len(seen) < 60
    assert seen == [f"prune:{began_ms}:{number}" for number in range(len(seen))]
    assert len(seen) > 10
    assert house.all(events.c.id) == [owed]
    assert house.all(callbacks.c.body) == [b""] * 10
    assert house.all(MESSAGES.c.subject, MESSAGES.c.topic != PRUNE) == [owed]


@pytest.mark.parametrize("payload", ["", "rubbish", "[1]", '["a",0,"",0,{}]', json.dumps([1, 99, "", 0, {}])])
def test_a_payload_of_another_version_begins_anew(nightly: Nightly, house: House, payload: str) -> None:
    """Nothing is lost by it: the run begins at its first walk. Empty: what an earlier version has promised itself."""
    house.event(100)
    with house.engine.begin() as tx:
        nightly.queue.enqueue(tx, [Promise("prune:2026-11-20:7", PRUNE, "", "", payload)], house.clock())
    while nightly.step() is not None:
        pass
    assert house.all(events.c.id) == []
    assert house.all(func.count(MESSAGES.c.id)) == [1]


def test_the_job_promises_a_run_and_counts_what_would_go(nightly: Nightly, house: House) -> None:
    """Dry: the counts and no message. Else one message, and none while it is under way."""

    async def story() -> None:
        db = Database(house.directory / "caisse.db")
        try:
            parts: Any = SimpleNamespace(
                db=db, queue=nightly.queue, pruner=nightly.pruner, settings=house.settings(), nudge=lambda: None
            )

            def tick(dry_run: bool) -> Any:
                return SimpleNamespace(now_ms=house.clock(), dry_run=dry_run, progress=lambda *_: None)

            assert (await prune(parts, tick(True)))["events"] == 1
            assert nightly.waiting() == []
            assert await prune(parts, tick(False)) == {"promised": 1, "under_way": 0}
            assert await prune(parts, tick(False)) == {"promised": 0, "under_way": 1}
            assert len(nightly.waiting()) == 1
        finally:
            db.close()

    house.event(100, ("done", 100))
    asyncio.run(story())


# --- runs of jobs -------------------------------------------------------------------------------------


def test_old_runs_of_jobs_go_but_for_the_last_fifty_of_each(house: House) -> None:
    """By their age; a dry run counts the same as then goes, and one that runs stays."""
    with house.engine.begin() as tx:
        for job, count in (("often", 130), ("seldom", 3)):
            tx.execute(insert(scheduler_tables.jobs).values(name=job, since_ms=1, last_due_at_ms=1))
            for number in range(count):
                at_ms = house._at(91) - number * 60_000
                row = {"id": f"run_{job}_{number}", "job": job, "due_at_ms": at_ms, "from_ms": at_ms, "state": "done"}
                tx.execute(insert(scheduler_tables.runs).values(**row, begun_at_ms=at_ms, ended_at_ms=at_ms))
    assert house.prune(True) == {"runs": 80}
    assert house.prune(False) == {"runs": 80}
    left = house.all(scheduler_tables.runs.c.job)
    assert (left.count("often"), left.count("seldom")) == (50, 3)
