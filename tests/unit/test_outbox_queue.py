"""The queue: promised once, claimed by committed steps, settled only by who holds the latest claim."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, MetaData, event, select
from sqlalchemy.exc import IntegrityError

from outbox import Done, Drop, Hold, Message, Outcome, Policy, Promise, Queue, Retry, Trial, schedule
from outbox.tables import define
from tests.support.clock import Clock
from tests.support.database import open_engine

METADATA = MetaData()
TABLES = define(METADATA)
POLICY = Policy("mail", (10_000, 20_000), lease_ms=30_000, limit_ms=10_000, jitter=0)
LEASE = POLICY.lease_ms


class Desk:
    """A queue over a fresh file; each call is one committed transaction. `calls` are the statements of the last."""

    def __init__(self, path: Path) -> None:
        self.engine: Engine = open_engine(path)
        self.queue = Queue(TABLES)
        self.clock = Clock()
        self.calls: list[str] = []
        METADATA.create_all(self.engine)
        event.listen(self.engine, "before_cursor_execute", lambda *args: self.calls.append(args[2]))

    def __call__(self, function: Any, *args: Any, **named: Any) -> Any:
        with self.engine.begin() as tx:
            self.calls.clear()
            return function(tx, *args, **named)

    def promise(self, *ids: str, to: str = "shop", **more: Any) -> int:
        promises = [Promise(id_, "mail", to, f"about-{id_}", **more) for id_ in ids]
        return self(self.queue.enqueue, promises, self.clock())  # type: ignore[no-any-return]

    def claim(self, limit: int | None = None, **more: Any) -> list[Message]:
        return self(self.queue.claim, POLICY, self.clock(), limit, **more).messages  # type: ignore[no-any-return]

    def settle(self, *outcomes: tuple[Message, Outcome]) -> list[str]:
        settled = self(self.queue.settle, outcomes, POLICY, self.clock(), Random(1))
        return [item.what for item in settled]

    def row(self, id_: str) -> Any:
        return self(lambda tx: tx.execute(select(TABLES.messages).where(TABLES.messages.c.id == id_)).one())

    def tries(self, id_: str) -> Sequence[Any]:
        query = select(TABLES.tries).where(TABLES.tries.c.message_id == id_).order_by(TABLES.tries.c.number)
        return self(lambda tx: tx.execute(query).all())  # type: ignore[no-any-return]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "outbox.db")
    yield desk
    desk.engine.dispose()


def test_a_promise_is_made_once(desk: Desk) -> None:
    """The id says what is promised: a second run promises nothing, also inside one batch."""
    assert desk.promise("a", "b", "a") == 2
    assert desk.promise("a", "b", "c", payload="other") == 1
    assert desk.row("a").payload == ""
    assert len(desk.claim()) == 3


def test_a_claim_counts_the_try_and_begins_a_lease(desk: Desk) -> None:
    """From the commit on nobody else gets it, until the lease is over to the millisecond."""
    desk.promise("a")
    promised_at_ms = desk.clock()
    desk.clock.advance(500)
    (message,) = desk.claim()
    assert (message.tries, message.claim) == (1, 1)
    assert (message.due_at_ms, message.claimed_at_ms) == (promised_at_ms, desk.clock())
    desk.clock.advance(LEASE - 1)
    assert desk.claim() == []
    desk.clock.advance(1)
    (again,) = desk.claim()
    assert (again.tries, again.claim) == (2, 2)


def test_the_longest_due_come_first(desk: Desk) -> None:
    """By due time, not by id, and no more than asked for; the future is left alone."""
    now_ms = desk.clock()
    for id_, due_at_ms in (("c", now_ms - 3), ("a", now_ms - 1), ("b", now_ms - 2), ("d", now_ms + 1)):
        desk.promise(id_, due_at_ms=due_at_ms)
    assert [message.id for message in desk.claim(2)] == ["c", "b"]
    assert [message.id for message in desk.claim()] == ["a"]


@pytest.mark.parametrize("count", [1, 50])
@pytest.mark.parametrize("busy", [None, {"elsewhere": 3}])
def test_a_claim_is_one_statement(desk: Desk, count: int, busy: dict[str, int] | None) -> None:
    """Whatever its size. A settle is one to three: the fences (of more than one), the rows, the tries."""
    for number in range(count):
        desk.promise(f"m{number}", to=f"shop-{number % 10}")
    messages = desk.claim(busy=busy)
    assert len(messages) == count
    assert len(desk.calls) == 1
    desk.settle(*((message, Done()) for message in messages))
    assert len(desk.calls) == (1 if count == 1 else 2)


def test_a_settle_with_tries_and_every_shape_is_three_statements(desk: Desk) -> None:
    """Done, again, dead and held in one batch cost no more than one of them."""
    desk.promise("a", "b", "c", "d")
    outcomes: list[Outcome] = [Done(Trial(200)), Retry("http_500"), Drop("gone"), Hold("disabled")]
    assert desk.settle(*zip(desk.claim(), outcomes, strict=True)) == ["done", "retried", "died", "held"]
    assert len(desk.calls) == 3


def test_a_full_destination_is_passed_over(desk: Desk) -> None:
    """No destination gets more than its room, and who stands behind a full one is still found."""
    policy = Policy("mail", (), lease_ms=30_000, limit_ms=10_000, per_destination=4)
    desk.promise(*(f"big-{number:02}" for number in range(60)), to="big")
    desk.clock.advance(1)
    desk.promise("small", to="small")
    desk.clock.advance(1)

    def claimed(busy: dict[str, int]) -> list[str]:
        return [m.destination for m in desk(desk.queue.claim, policy, desk.clock(), busy=busy).messages]

    assert claimed({"big": 1}) == ["big"] * 3
    assert claimed({"big": 4}) == ["small"]
    assert claimed({"big": 4}) == []


def test_a_stale_claim_settles_nothing(desk: Desk) -> None:
    """Who slept through his lease may not write, whatever he says; who has it now may, and only once."""
    desk.promise("a", "b")
    late = desk.claim()
    desk.clock.advance(LEASE)
    fresh = desk.claim()
    ran: list[str] = []
    assert desk.settle(*((m, Done(Trial(200), then=lambda _: ran.append("late"))) for m in late)) == []
    assert desk.settle((late[0], Drop("gone", then=lambda _: ran.append("late")))) == []
    assert (ran, desk.row("a").state, desk.tries("a")) == ([], "pending", [])
    assert desk.settle((late[0], Done()), (fresh[0], Done(Trial(204), then=lambda _: ran.append("fresh")))) == ["done"]
    assert desk.settle((fresh[0], Retry("twice"))) == []
    assert desk.settle((fresh[0], Retry("twice")), (fresh[1], Done())) == ["done"]
    assert (ran, desk.row("a").state, desk.row("a").last_error) == (["fresh"], "done", None)


def test_the_schedule_is_walked_to_its_end(desk: Desk) -> None:
    """As many retries as delays, each after its delay; then dead, with every try on record."""
    desk.promise("a")
    for number, delay_ms in enumerate((10_000, 20_000), start=1):
        (message,) = desk.claim()
        assert message.tries == number
        assert desk.settle((message, Retry("http_500", trial=Trial(500, "http_500", b"x" * 2000, 12)))) == ["retried"]
        assert desk.row("a").due_at_ms == desk.clock() + delay_ms
        desk.clock.advance(delay_ms)
    assert desk.settle((desk.claim()[0], Retry("timeout"))) == ["died"]
    row = desk.row("a")
    assert (row.state, row.last_error, row.tries, row.finished_at_ms) == ("dead", "timeout", 3, desk.clock())
    tries = desk.tries("a")
    assert [(t.number, t.http_status, t.error, len(t.head), t.duration_ms) for t in tries] == [
        (1, 500, "http_500", 1024, 12),
        (2, 500, "http_500", 1024, 12),
        (3, None, "timeout", 0, 0),
    ]
    desk.clock.advance(10**9)
    assert desk.claim() == []


def test_a_message_may_have_a_schedule_of_its_own(desk: Desk) -> None:
    """`delays_ms` of a Retry replaces the topic's, and is remembered for the claims that follow."""
    desk.promise("a")
    (message,) = desk.claim()
    desk.settle((message, Retry("no", delays_ms=(1_000,))))
    assert desk.row("a").due_at_ms == desk.clock() + 1_000
    desk.clock.advance(1_000)
    desk.claim()
    desk.clock.advance(LEASE)
    assert desk.claim() == []
    assert (desk.row("a").state, desk.row("a").last_error) == ("dead", "unsettled")


def test_after_ms_only_delays(desk: Desk) -> None:
    """A Retry-After below the schedule changes nothing, one above it wins."""
    for after_ms, expected_ms in ((1, 10_000), (15_000, 15_000)):
        desk.promise(f"after-{after_ms}")
        (message,) = desk.claim()
        desk.settle((message, Retry("http_503", after_ms=after_ms)))
        assert desk.row(message.id).due_at_ms == desk.clock() + expected_ms


def test_jitter_stays_within_its_share(desk: Desk) -> None:
    """±20 %, both sides used, so that a thousand retries do not come back as one."""
    policy = Policy("mail", (10_000,), lease_ms=30_000, limit_ms=10_000)
    desk.promise(*(f"m{number}" for number in range(50)))
    messages = desk(desk.queue.claim, policy, desk.clock()).messages
    desk(desk.queue.settle, [(m, Retry("no")) for m in messages], policy, desk.clock(), Random(7))
    delays = sorted(desk.row(m.id).due_at_ms - desk.clock() for m in messages)
    assert 8_000 <= delays[0] < 9_000
    assert 11_000 < delays[-1] <= 12_000


def test_one_that_kills_its_worker_dies_unrun(desk: Desk) -> None:
    """The claim has counted it: after budget + 1 claims that nobody settled, the next claim buries it."""
    desk.promise("killer")
    for _ in range(3):
        assert len(desk.claim()) == 1
        desk.clock.advance(LEASE)
    claim = desk(desk.queue.claim, POLICY, desk.clock())
    assert (claim.messages, [m.id for m in claim.died]) == ([], ["killer"])
    row = desk.row("killer")
    assert (row.state, row.last_error, row.tries) == ("dead", "unsettled", 3)


def test_the_killer_takes_nobody_with_it(desk: Desk) -> None:
    """After a crash its batch is claimed one by one, so the innocent lose one try and no more."""
    desk.promise(*(f"m{number}" for number in range(5)))
    assert len(desk.claim(alone=True)) == 5
    desk.clock.advance(LEASE)
    desk.promise("new")
    settled = []
    for _ in range(20):  # m2 kills whoever works on it
        claim = desk(desk.queue.claim, POLICY, desk.clock(), alone=True)
        if not (claim.messages or claim.more):
            desk.clock.advance(LEASE)
        elif "m2" not in [m.id for m in claim.messages]:
            settled += [m.id for m in claim.messages]
            desk.settle(*((m, Done()) for m in claim.messages))
    assert sorted(settled) == ["m0", "m1", "m3", "m4", "new"]
    assert {desk.row(f"m{n}").tries for n in (0, 1, 3, 4)} == {2}
    assert (desk.row("m2").state, desk.row("m2").tries) == ("dead", 3)


def test_given_back_is_as_if_never_claimed(desk: Desk) -> None:
    """Due when it was, the try uncounted; and only by who still holds it."""
    desk.promise("a")
    due_at_ms = desk.clock()
    desk.clock.advance(5)
    first = desk.claim()
    desk.clock.advance(LEASE)
    second = desk.claim()
    desk(desk.queue.give_back, first)
    assert desk.claim() == []
    desk(desk.queue.give_back, second)
    assert (desk.row("a").due_at_ms, desk.row("a").tries) == (second[0].due_at_ms, 1)
    assert second[0].due_at_ms > due_at_ms
    assert desk.claim()[0].tries == 2


def test_dead_runs_again_with_a_fresh_budget_five_times_an_hour(desk: Desk) -> None:
    """The tries go on being numbered; the sixth time within the hour is refused, an hour after the first is not."""
    desk.promise("a", "b")
    for message in desk.claim():
        desk.settle((message, Drop("gone")))
    for number in range(5):
        desk.clock.advance(60_000)
        assert desk(desk.queue.revive, ["a", "nobody"], desk.clock(), "asked") == 1
        (message,) = desk.claim()
        assert (message.id, message.tries, message.tries_before) == ("a", 2 * number + 2, 2 * number + 1)
        assert desk.settle((message, Retry("no"))) == ["retried"]
        desk.clock.advance(10_000)
        (message,) = desk.claim()
        desk.settle((message, Drop("gone")))
    assert desk(desk.queue.revive, ["a"], desk.clock(), "asked") == 0
    assert desk(desk.queue.revive, ["b"], desk.clock(), "asked") == 1
    desk.clock.advance(3_600_000 - 5 * 70_000)
    assert desk(desk.queue.revive, ["a"], desk.clock(), "asked") == 0
    desk.clock.advance(60_000)
    assert desk(desk.queue.revive, ["a"], desk.clock(), "asked") == 1


def test_held_is_kept_aside_until_released(desk: Desk) -> None:
    """By destination, by outcome or from the start; released it is due at once, but for what is in flight."""
    desk.promise("a", "b")
    desk.promise("other", to="other")
    desk.promise("born-held", held=True)
    flying, landed, _ = desk.claim()
    desk.settle((landed, Hold("disabled")))
    assert (desk.row("b").state, desk.row("b").tries, desk.row("b").reason) == ("held", 0, "disabled")
    assert desk(desk.queue.hold, "mail", "shop", "off") == 1
    desk.clock.advance(1_000)
    assert desk(desk.queue.release, "mail", "shop", desk.clock()) == 3
    assert sorted(m.id for m in desk.claim()) == ["b", "born-held"]
    assert desk.settle((flying, Done())) == ["done"]


def test_held_in_flight(desk: Desk) -> None:
    """What was on its way when its destination was held: paid is paid, failed waits held."""
    desk.promise("paid", "failed")
    messages = {m.id: m for m in desk.claim()}
    desk(desk.queue.hold, "mail", "shop")
    assert desk.settle((messages["paid"], Done()), (messages["failed"], Retry("no"))) == ["done", "retried"]
    assert (desk.row("paid").state, desk.row("failed").state) == ("done", "held")
    desk(desk.queue.release, "mail", "shop", desk.clock())
    assert [m.id for m in desk.claim()] == ["failed"]


def test_then_shares_the_transaction(desk: Desk) -> None:
    """What it raises undoes the settle as well."""
    desk.promise("a")
    (message,) = desk.claim()

    def fail(tx: Connection) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        desk.settle((message, Done(then=fail)))
    assert desk.row("a").state == "pending"
    assert desk.settle((message, Done())) == ["done"]


def test_backlog_and_next_due(desk: Desk) -> None:
    """What the metrics and the dispatcher's sleep are made of."""
    assert desk(desk.queue.due, "mail") is None
    now_ms = desk.clock()
    desk.promise("dead", "held")
    first, second = desk.claim()
    desk.settle((first, Drop("gone")), (second, Hold("off")))
    desk.promise("late", due_at_ms=now_ms - 5)
    desk.promise("later", due_at_ms=now_ms + 5)
    backlog = desk(desk.queue.backlog, now_ms)["mail"]
    assert backlog == (2, 1, now_ms - 5, 1, 1)
    assert desk(desk.queue.due, "mail") == now_ms - 5


def test_errors_from_outside_fit_the_column(desk: Desk) -> None:
    """A lone surrogate, a NUL or a novel must not make the settle fail for the whole batch."""
    desk.promise("a")
    desk.settle((desk.claim()[0], Retry("\udcff\0" + "x" * 5000)))
    assert desk.row("a").last_error == "??" + "x" * 298


@pytest.mark.parametrize(
    "nonsense",
    [
        {"state": "running"},
        {"state": "done"},
        {"finished_at_ms": 1},
        {"settled_claim": 1},
        {"tries": 1},
        {"tries": -1, "tries_before": -1},
        {"due_at_ms": 0},
        {"last_status": 7},
        {"topic": ""},
    ],
)
def test_nonsense_rows_are_impossible(desk: Desk, nonsense: dict[str, Any]) -> None:
    """The table itself refuses what no code should write."""
    row = {"id": "a", "topic": "mail", "destination": "d", "subject": "s", "payload": "", "due_at_ms": 1}
    with pytest.raises(IntegrityError):
        desk(lambda tx: tx.execute(TABLES.messages.insert(), {**row, "created_at_ms": 1, **nonsense}))


def test_the_claim_reads_only_the_index_of_what_is_due(desk: Desk) -> None:
    """Its cost must not grow with what is done."""
    desk.promise("a")
    desk.claim()
    sql = desk.calls[0].replace("?", "1")
    plan = " ".join(row[-1] for row in desk(lambda tx: tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}").all()))
    assert "USING INDEX outbox_due (topic=? AND due_at_ms<?)" in plan or "outbox_due" in plan
    assert "SCAN" not in plan
    assert "TEMP B-TREE" not in plan


def test_policies_that_cannot_work_are_refused() -> None:
    """Above all a time limit that outlives its lease."""
    Policy("mail", (), lease_ms=15_000, limit_ms=10_000)
    for wrong in (
        {"limit_ms": 10_001},
        {"limit_ms": 0},
        {"batch": 0},
        {"batch": 51},
        {"in_flight": 0},
        {"per_destination": 0},
        {"jitter": 1.0},
        {"delays_ms": (-1,)},
        {"delays_ms": (1.5,)},
        {"delays_ms": "often"},
        {"delays_ms": (1,) * 51},
    ):
        settings: dict[str, Any] = {"topic": "mail", "delays_ms": (), "lease_ms": 15_000, "limit_ms": 10_000} | wrong
        with pytest.raises(ValueError):
            Policy(**settings)


def test_presets() -> None:
    """The numbers of the specification: five, and five with a tail of about three days."""
    short, standard = schedule("short"), schedule("standard")
    assert short == (1_000, 2_000, 4_000, 8_000, 16_000)
    assert standard[:5] == short
    assert len(standard) == 14
    assert 2.5 < sum(standard) / 86_400_000 < 3.5
