"""Recovery in bulk: `--since`, what is found, the rate, pause and resume, and the pieces of the job."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, insert, select, update
from sqlalchemy import event as sqlalchemy_event

import service.callbacks.tables
import service.payments.tables  # noqa: F401 - the tables have to meet in the one MetaData
from outbox.message import Done, Promise, Retry
from outbox.policy import Policy
from outbox.queue import Queue
from service.commands.since import since_ms
from service.errors import Refusal
from service.ids import Ids
from service.merchants import missed, recovery
from service.merchants.audit import By
from service.merchants.events import WEBHOOK, delivery_id
from service.merchants.missed import Scope, look
from service.merchants.recovery import RECOVER, Recoverer
from service.merchants.tables import audit, endpoints, events, merchants, recoveries
from service.schema import metadata, outbox_tables
from tests.support.clock import Clock

HOUR_MS = 3_600_000
PIECES = Policy(RECOVER, (1_000,), lease_ms=70_000, limit_ms=60_000, batch=1)
TRIES = Policy(WEBHOOK, (1_000,), lease_ms=30_000, limit_ms=12_000, jitter=0, breaker=True)
m = outbox_tables.messages.c


class Site:
    """Two merchants, an endpoint or two each, and an outbox: everything but a dispatcher."""

    def __init__(self, tx: Connection, clock: Clock) -> None:
        self.tx, self.clock, self.queue = tx, clock, Queue(outbox_tables)
        self.recoverer = Recoverer(self.queue, clock)
        for name in ("mer_a", "mer_b"):
            tx.execute(insert(merchants).values(id=name, name=name, status="active", created_at_ms=1))
        for name, merchant in (("ep_1", "mer_a"), ("ep_2", "mer_a"), ("ep_3", "mer_b")):
            row = {"id": name, "merchant_id": merchant, "url": "https://a.example", "status": "enabled"}
            tx.execute(insert(endpoints).values(**row, created_at_ms=1))
        self.made = 0

    @property
    def by(self) -> By:
        self.made += 1
        number = self.made
        return By("test", self.clock(), Ids(self.clock, lambda: number))

    def event(self, name: str, type_: str = "payment.succeeded", merchant: str = "mer_a", payment: str = "") -> str:
        row = {"id": name, "merchant_id": merchant, "type": type_, "payment_id": payment or None, "sequence": 1}
        self.tx.execute(insert(events).values(**row, body=b"{}", created_at_ms=self.clock()))
        return name

    def owe(self, event: str, endpoint: str = "ep_1", number: int = 0) -> str:
        id_ = delivery_id(event, endpoint, number)
        self.queue.enqueue(self.tx, [Promise(id_, WEBHOOK, endpoint, event)], self.clock())
        return id_

    def dead(self, event: str, endpoint: str = "ep_1", number: int = 0, **fields: Any) -> str:
        if self.tx.execute(select(events.c.id).where(events.c.id == event)).first() is None:
            self.event(event, **fields)
        id_ = self.owe(event, endpoint, number)
        self.put(id_, state="dead", finished_at_ms=self.clock(), tries=1, claim=1, settled_claim=1)
        return id_

    def put(self, id_: str, **values: Any) -> None:
        self.tx.execute(update(outbox_tables.messages).where(m.id == id_).values(**values))
        self.queue.destinations.turn(self.tx, [(WEBHOOK, id_.split(":")[2])])

    def waits(self, event: str, endpoint: str = "ep_1", in_ms: int = HOUR_MS) -> str:
        self.event(event)
        id_ = self.owe(event, endpoint)
        values = {"tries": 1, "claim": 1, "settled_claim": 1, "last_try_at_ms": self.clock()}
        self.put(id_, **values, due_at_ms=self.clock() + in_ms)
        return id_

    def begin(self, per_minute: int | None = None, **filters: Any) -> str:
        scope = Scope(filters.pop("since_ms", 0), self.clock(), **filters)
        return recovery.begin(self.tx, self.queue, scope, per_minute, 1, self.by)

    def piece(self) -> bool:
        """The next piece that is due; False: none is."""
        claim = self.queue.claim(self.tx, PIECES, self.clock(), Random(1))
        if not claim.messages:
            return False
        outcomes = self.recoverer.work(self.tx, claim.messages)
        self.queue.settle(self.tx, list(zip(claim.messages, outcomes, strict=True)), PIECES, self.clock(), Random(1))
        return True

    def run(self, **given: Any) -> Any:
        id_ = self.begin(**given)
        while self.piece():
            pass
        return self.job(id_)

    def job(self, id_: str) -> Any:
        return self.tx.execute(select(recoveries).where(recoveries.c.id == id_)).one()

    def pending(self) -> dict[str, int]:
        query = select(m.id, m.due_at_ms).where(m.topic == WEBHOOK, m.state == "pending").order_by(m.due_at_ms, m.id)
        return {row.id: row.due_at_ms for row in self.tx.execute(query)}


@pytest.fixture
def site() -> Iterator[Site]:
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.begin() as tx:
        tx.exec_driver_sql("PRAGMA foreign_keys=ON")
        yield Site(tx, Clock())
    engine.dispose()


# --- since ---------------------------------------------------------------------------------------------

NOW_MS = Clock()()  # 2026-11-20T09:00:00Z


@pytest.mark.parametrize(
    ("text", "back_ms"),
    [
        ("90m", 90 * 60_000),
        ("2h", 2 * HOUR_MS),
        (" 3d ", 72 * HOUR_MS),
        ("1w", 168 * HOUR_MS),
        ("2026-11-20", 10 * HOUR_MS),  # midnight in Paris is 23:00 UTC
        ("2026-11-20T08:30", 90 * 60_000),
        ("2026-11-20 08:30:00", 90 * 60_000),
        ("2026-11-20T08:30Z", 30 * 60_000),
        ("2026-11-20T08:30:00+01:00", 90 * 60_000),
    ],
)
def test_since_is_a_span_a_date_or_a_time(text: str, back_ms: int) -> None:
    """A time without a zone is the setting's local time; one with a zone is its own."""
    assert since_ms(text, NOW_MS, "Europe/Paris") == NOW_MS - back_ms


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "--since is"),
        ("yesterday", "'yesterday'"),
        ("2", "--since is"),
        ("-2h", "--since is"),
        ("٢h", "--since is"),
        ("2026-13-01", "no such day"),
        ("2026-02-30T10:00", "no such day"),
        ("2026-11-20T25:00", "no such day"),
        ("0001-01-01T00:00+14:00", "before 1970"),
        ("0000-01-01", "no such day"),
        ("1969-12-31", "before 1970"),
        ("999999999w", "before 1970"),
        ("2026-11-20T10:01", "Europe/Paris"),
        ("9999-12-31T23:59-12:00", "future"),
        ("x" * 5_000, "--since is"),
    ],
)
def test_a_since_that_cannot_be_is_named(text: str, says: str) -> None:
    """One sentence each, never a fault of ours."""
    with pytest.raises(Refusal, match=r"^.{1,200}$") as refused:
        since_ms(text, NOW_MS, "Europe/Paris")
    assert says in refused.value.sentence


# --- what is found -------------------------------------------------------------------------------------


def test_the_dead_come_again_under_the_next_number(site: Site) -> None:
    """One new delivery each, due now; the dead ones stay as they are, and a second recovery finds nothing to do."""
    for name in ("evt_1", "evt_2"):
        site.dead(name)
    site.clock.advance(1)
    job = site.run()
    now_ms = site.clock()
    assert site.pending() == {delivery_id("evt_1", "ep_1", 1): now_ms, delivery_id("evt_2", "ep_1", 1): now_ms}
    assert (job.status, job.sent, job.skipped, job.finished_at_ms) == ("finished", 2, 0, now_ms)
    again = site.run()
    assert (again.sent, again.skipped, len(site.pending())) == (0, 2, 2)


def test_what_came_through_meanwhile_is_left_out(site: Site) -> None:
    """A later one that was delivered or is on its way, and an earlier one that was."""
    site.dead("evt_1")
    site.put(site.owe("evt_1", number=1), state="done", finished_at_ms=site.clock(), claim=1, settled_claim=1, tries=1)
    site.dead("evt_2")
    on_its_way = site.owe("evt_2", number=1)
    site.event("evt_3")
    site.put(site.owe("evt_3"), state="done", finished_at_ms=site.clock(), claim=1, settled_claim=1, tries=1)
    site.dead("evt_3", number=1)
    job = site.run()
    assert (job.sent, job.skipped) == (0, 3)
    assert list(site.pending()) == [on_its_way]


def test_the_last_of_several_dead_ones_speaks_for_all(site: Site) -> None:
    """Numbers are numbers: after :9 and :10 comes :11, once."""
    for number in (0, 2, 9, 10):
        site.dead("evt_1", number=number)
    job = site.run()
    assert list(site.pending()) == [delivery_id("evt_1", "ep_1", 11)]
    assert (job.sent, job.looked) == (1, 4)


def test_one_that_dies_again_while_the_job_runs_is_left_to_the_next_job(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a broken endpoint with no retries would keep the job running for ever."""
    monkeypatch.setattr(missed, "LOOKED_A_PIECE", 1)
    site.dead("evt_1")
    id_ = site.begin()
    while site.job(id_).status == "running":
        site.clock.advance(1)
        assert site.piece()
        for made in site.pending():
            site.put(made, state="dead", finished_at_ms=site.clock(), claim=1, settled_claim=1, tries=1)
        assert site.job(id_).piece < 20
    assert site.job(id_).sent == 1


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, {"evt_1", "evt_2", "evt_3", "evt_4"}),
        ({"endpoint": "ep_1"}, {"evt_1", "evt_2"}),
        ({"type": "payment.failed"}, {"evt_2"}),
        ({"payment": "pay_1"}, {"evt_1", "evt_3"}),
        ({"merchant": "mer_b"}, {"evt_4"}),
        ({"payment": "pay_1", "endpoint": "ep_2"}, {"evt_3"}),
        ({"merchant": "mer_b", "type": "payment.failed"}, set()),
    ],
)
def test_each_filter_lets_its_own_through(site: Site, filters: dict[str, str], found: set[str]) -> None:
    """Of the dead and of those that wait, alike; the dry look sees the same as the job sends."""
    rows = [
        ("evt_1", "ep_1", "payment.succeeded", "pay_1"),
        ("evt_2", "ep_1", "payment.failed", "pay_2"),
        ("evt_3", "ep_2", "payment.succeeded", "pay_1"),
        ("evt_4", "ep_3", "payment.succeeded", ""),
    ]
    for event, endpoint, type_, payment in rows:
        site.dead(event, endpoint, type_=type_, payment=payment)
        site.event(f"{event}w", type_, payment=payment)
        waits = {"tries": 1, "claim": 1, "settled_claim": 1, "due_at_ms": site.clock() + HOUR_MS}
        site.put(site.owe(f"{event}w", endpoint), **waits)
    scope = Scope(0, site.clock(), **filters)
    failed = look(site.tx, scope, "failed", "", site.clock())
    waiting = look(site.tx, scope, "waiting", "", site.clock())
    assert {event for event, _ in failed.failed} == found
    assert {id_.split(":")[1] for id_, _ in waiting.waiting} == {f"{event}w" for event in found}
    site.run(**filters)
    due = {id_.split(":")[1] for id_, at_ms in site.pending().items() if at_ms == site.clock()}
    assert due == found | {f"{event}w" for event in found}


def test_only_what_died_since_then(site: Site) -> None:
    """To the millisecond, by when it was given up and not by when it was told."""
    site.dead("evt_1")
    site.event("evt_2")
    since = site.clock.advance(1)
    site.dead("evt_2")
    assert site.run(since_ms=since).sent == 1
    assert list(site.pending()) == [delivery_id("evt_2", "ep_1", 1)]


def test_disabled_endpoints_are_counted_and_not_sent_to(site: Site) -> None:
    """Neither what is dead nor what is held there moves."""
    site.dead("evt_1")
    held = site.waits("evt_2")
    before = site.pending()[held]
    site.tx.execute(update(endpoints).where(endpoints.c.id == "ep_1").values(status="disabled"))
    site.queue.destinations.hold(site.tx, WEBHOOK, "ep_1")
    job = site.run()
    assert (job.sent, job.hurried, job.disabled) == (0, 0, 1)
    assert site.pending() == {held: before}


def test_open_circuits_are_tried_at_once_and_limits_stay(site: Site) -> None:
    """The pause of one that fails ends; the pause of one that is only limited does not."""
    site.owe(site.event("evt_1"))
    for _ in range(5):
        claim = site.queue.claim(site.tx, TRIES, site.clock(), Random(1))
        outcomes = [(message, Retry("http_500", delays_ms=[0] * 9)) for message in claim.messages]
        site.queue.settle(site.tx, outcomes, TRIES, site.clock(), Random(1))
    site.queue.destinations.limit(site.tx, WEBHOOK, "ep_2", 1)
    site.owe("evt_1", "ep_2")
    claim = site.queue.claim(site.tx, TRIES, site.clock(), Random(1))
    site.queue.settle(site.tx, [(one, Done()) for one in claim.messages], TRIES, site.clock(), Random(1))
    assert site.queue.destinations.standing(site.tx, WEBHOOK, "ep_1").circuit(site.clock()) == "open"
    paused = site.queue.destinations.standing(site.tx, WEBHOOK, "ep_2").paused_until_ms
    assert paused > site.clock()
    site.run()
    assert site.queue.destinations.standing(site.tx, WEBHOOK, "ep_1").circuit(site.clock()) == "half-open"
    assert site.queue.destinations.standing(site.tx, WEBHOOK, "ep_2").paused_until_ms == paused


def test_what_was_tried_since_the_job_began_is_not_hurried_again(site: Site) -> None:
    """Or an endpoint that is still broken would have all its tries spent within a minute. What is in flight stays."""
    tried, flying = site.waits("evt_1"), site.waits("evt_2")
    site.put(flying, claim=2)
    id_ = site.begin()
    site.put(tried, last_try_at_ms=site.clock() + 1)
    before = site.pending()
    while site.piece():
        pass
    assert site.job(id_).hurried == 0
    assert site.pending() == before


# --- the job -------------------------------------------------------------------------------------------


def test_it_goes_in_pieces_that_end(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pieces find the same as one large one, each once, and leave no trail of messages behind."""
    monkeypatch.setattr(missed, "LOOKED_A_PIECE", 3)
    monkeypatch.setattr(missed, "ENDPOINTS_A_PIECE", 1)
    monkeypatch.setattr(recovery, "SENT_A_PIECE", 2)
    for number in range(7):
        site.dead(f"evt_{number}", f"ep_{1 + number % 3}")
        site.waits(f"evt_w{number}", f"ep_{1 + number % 3}")
    job = site.run()
    assert (job.sent, job.hurried, job.looked) == (7, 7, 14)
    assert set(site.pending().values()) == {site.clock()}
    left = site.tx.execute(select(m.id).where(m.topic == RECOVER)).scalars().all()
    assert len(left) == 1


def test_a_piece_asks_about_many_endpoints_at_once(site: Site) -> None:
    """Three hundred of them, of which a few are owed something: as many statements as for one, and in order."""
    e = {"merchant_id": "mer_a", "url": "https://a.example", "status": "enabled", "created_at_ms": 1}
    site.tx.execute(insert(endpoints), [{"id": f"ep_x{number:03}", **e} for number in range(300)])
    waiting = [site.waits(f"evt_{number}", f"ep_x{number:03}", HOUR_MS - number) for number in (299, 7, 150)]
    asked: list[str] = []
    sqlalchemy_event.listen(site.tx, "before_cursor_execute", lambda *given: asked.append(given[2]))
    stride = look(site.tx, Scope(0, site.clock()), "waiting", "", site.clock())
    assert [id_ for id_, _ in stride.waiting] == [waiting[1], waiting[2], waiting[0]]
    assert len(asked) <= 5


def test_the_walk_of_what_waits_goes_past_what_the_filter_leaves_out(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row a piece, and the first ones due are of another type."""
    monkeypatch.setattr(missed, "LOOKED_A_PIECE", 1)
    for number in range(3):
        site.waits(f"evt_{number}")
    site.tx.execute(update(events).where(events.c.id == "evt_2").values(type="payment.failed"))
    id_ = site.begin(type="payment.failed")
    for _ in range(20):
        site.piece()
    assert (site.job(id_).status, site.job(id_).hurried) == ("finished", 1)


def test_the_rate_spreads_them_within_and_between_pieces(site: Site) -> None:
    """Seven at two a minute: 30 s apart, over as many pieces as it takes; what waits comes no later than it would."""
    for number in range(5):
        site.dead(f"evt_{number}")
    late, soon = site.waits("evt_late"), site.waits("evt_soon", in_ms=1_000)
    site.clock.advance(10_000)
    begun, id_ = site.clock(), site.begin(per_minute=2)
    while site.job(id_).status == "running":
        sent = site.job(id_).sent
        while site.piece():
            ahead = max((at_ms for made, at_ms in site.pending().items() if made.endswith(":1")), default=0)
            assert ahead < site.clock() + 60_000  # so a pause is felt soon
        if site.job(id_).sent > sent and site.job(id_).status == "running":
            recovery.pause(site.tx, id_, site.by)  # stopping and going on makes nothing faster
            recovery.resume(site.tx, site.queue, id_, site.by)
        site.clock.advance(1_000)
    due = site.pending()
    assert [due[delivery_id(f"evt_{n}", "ep_1", 1)] - begun for n in range(5)] == [0, 30_000, 60_000, 90_000, 120_000]
    assert due.pop(soon) < begun
    assert due[late] - begun == 150_000


def test_pause_resume_cancel(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause stops the next piece; resuming goes on, and the old piece's message does nothing."""
    monkeypatch.setattr(recovery, "SENT_A_PIECE", 1)
    for number in range(4):
        site.dead(f"evt_{number}")
    id_ = site.begin()
    assert site.piece() and site.piece()
    assert site.job(id_).sent == 1
    recovery.pause(site.tx, id_, site.by)
    recovery.resume(site.tx, site.queue, id_, site.by)
    assert site.piece() and site.piece()
    assert site.job(id_).sent == 2  # two messages waited, one of them was the job's
    recovery.pause(site.tx, id_, site.by)
    recovery.pause(site.tx, id_, site.by)
    assert site.piece() and not site.piece()
    assert (site.job(id_).status, site.job(id_).sent) == ("paused", 2)
    recovery.resume(site.tx, site.queue, id_, site.by)
    assert site.piece()
    recovery.cancel(site.tx, id_, site.by)
    recovery.cancel(site.tx, id_, site.by)
    while site.piece():
        pass
    assert (site.job(id_).status, site.job(id_).sent) == ("canceled", 3)
    with pytest.raises(Refusal, match="begin a new one"):
        recovery.resume(site.tx, site.queue, id_, site.by)
    actions = site.tx.execute(select(audit.c.action).where(audit.c.subject == id_)).scalars().all()
    assert sorted(actions) == [
        *("recovery.begun", "recovery.canceled", "recovery.paused", "recovery.paused"),
        *("recovery.resumed", "recovery.resumed"),
    ]


def test_a_job_whose_piece_dies_waits_for_a_person(site: Site) -> None:
    """It does not say that it runs; resumed, it goes on."""
    site.dead("evt_1")
    id_ = site.begin()
    claim = site.queue.claim(site.tx, PIECES, site.clock(), Random(1))
    site.recoverer.died(site.tx, claim.messages)
    assert site.job(id_).status == "paused" and "log" in site.job(id_).trouble
    recovery.resume(site.tx, site.queue, id_, site.by)
    while site.piece():
        pass
    assert (site.job(id_).status, site.job(id_).sent, site.job(id_).trouble) == ("finished", 1, "")


def test_not_more_than_twenty_at_once(site: Site) -> None:
    """Each is small, but nobody can count what a script begins in a loop."""
    for _ in range(recovery.UNFINISHED_MAX):
        site.clock.advance(1)
        site.begin()
    with pytest.raises(Refusal, match="not finished"):
        site.begin()
