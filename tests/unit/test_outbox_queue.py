"""The queue: promised once, claimed by committed steps, settled only by who holds the latest claim."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, MetaData, event, select
from sqlalchemy.exc import IntegrityError

from outbox import Done, Drop, Message, Outcome, Policy, Promise, Queue, Retry, Trial, schedule
from outbox.health import MINUTE_MS, RECENT_MINUTES, Ended
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
        return self.taken(limit, **more).messages  # type: ignore[no-any-return]

    def taken(self, limit: int | None = None, policy: Policy = POLICY, **more: Any) -> Any:
        return self(self.queue.claim, policy, self.clock(), Random(1), limit, **more)

    def settle(self, *outcomes: tuple[Message, Outcome]) -> list[str]:
        settled = self(self.queue.settle, outcomes, POLICY, self.clock(), Random(1))
        return [item.what for item in settled]

    def turn(self, destination: str = "shop") -> int | None:
        return self(self.queue.destinations.standing, "mail", destination).next_due_at_ms  # type: ignore[no-any-return]

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


to_whom = pytest.mark.parametrize("to", ["", "shop"])


def test_a_promise_is_made_once(desk: Desk) -> None:
    """The id says what is promised: a second run promises nothing, also inside one batch."""
    assert desk.promise("a", "b", "a") == 2
    assert desk.promise("a", "b", "c", payload="other") == 1
    assert desk.row("a").payload == ""
    assert len(desk.claim()) == 3


def test_the_earliest_of_several_promises_is_the_turn(desk: Desk) -> None:
    """In whatever order they are made, in one batch or in several; one that is due later changes nothing."""
    now_ms = desk.clock()
    for ids in ("abc", "def"):
        promises = [
            Promise(id_, "mail", "shop", "s", due_at_ms=now_ms + at) for id_, at in zip(ids, (9, 5, 7), strict=True)
        ]
        desk(desk.queue.enqueue, promises, now_ms)
        assert desk.turn() == now_ms + 5


@to_whom
def test_a_claim_counts_the_try_and_begins_a_lease(desk: Desk, to: str) -> None:
    """From the commit on nobody else gets it, until the lease is over to the millisecond."""
    desk.promise("a", to=to)
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


@to_whom
def test_the_longest_due_come_first(desk: Desk, to: str) -> None:
    """By due time, not by id, and no more than asked for; the future is left alone."""
    now_ms = desk.clock()
    for id_, due_at_ms in (("c", now_ms - 3), ("a", now_ms - 1), ("b", now_ms - 2), ("d", now_ms + 1)):
        desk.promise(id_, to=to, due_at_ms=due_at_ms)
    assert [message.id for message in desk.claim(2)] == ["c", "b"]
    assert [message.id for message in desk.claim()] == ["a"]


@pytest.mark.parametrize("count", [1, 10, 50])
def test_what_a_claim_and_a_settle_cost_does_not_depend_on_how_many(desk: Desk, count: int) -> None:
    """
    Claim: what is owed to nobody, who is in flight, whose turn it is and what is due there, claim it, put their turns
    right. Settle: the fences (of more than one), the rows, the turns.
    """
    desk.promise(*(f"m{number}" for number in range(count)), to="")
    messages = desk.claim()
    assert (len(messages), len(desk.calls)) == (count, 1 if count == POLICY.batch else 3)
    desk.settle(*((message, Done()) for message in messages))
    assert len(desk.calls) == (1 if count == 1 else 2)
    for number in range(count):
        desk.promise(f"n{number}", to=f"shop-{number % 10}")
    messages = desk.claim()
    assert len(messages) == min(count, 32)  # half of all places: then nobody gets another
    assert len(desk.calls) == 5
    desk.settle(*((message, Done()) for message in messages))
    assert len(desk.calls) == (2 if count == 1 else 3)


def test_a_settle_with_tries_and_every_shape_is_four_statements(desk: Desk) -> None:
    """Done, again and dead in one batch cost no more than one of them; the breaker adds one, and two in trouble."""
    desk.promise("a", "b", "c")
    outcomes: list[Outcome] = [Done(Trial(200)), Retry("http_500"), Drop("gone")]
    assert desk.settle(*zip(desk.claim(), outcomes, strict=True)) == ["done", "retried", "died"]
    assert len(desk.calls) == 4
    breaker = replace(POLICY, breaker=True)
    desk.promise("d", "e", to="other")
    pairs = [(message, Drop("gone")) for message in desk.claim()]
    desk(desk.queue.settle, pairs, breaker, desk.clock(), Random(1))
    assert len(desk.calls) == 6
    desk.promise("f", "g", to="well")
    desk(desk.queue.settle, [(message, Done()) for message in desk.claim()], breaker, desk.clock(), Random(1))
    assert len(desk.calls) == 4


@pytest.mark.parametrize(
    ("meanwhile", "opens"), [("nothing", False), ("restarted", True), ("enabled again", True), ("five minutes", True)]
)
def test_successes_count_though_nobody_wrote_them_down(desk: Desk, meanwhile: str, opens: bool) -> None:
    """Eight of ten failed, never five in a row: too many, unless twenty had succeeded a moment before."""
    policy, places = replace(POLICY, breaker=True), desk.queue.destinations
    fine, failed = Ended(False), Ended(True)
    desk.promise("a")
    desk(places.heard, policy, {"shop": [fine] * 20}, desk.clock())
    assert desk(lambda tx: tx.execute(select(TABLES.destinations.c.recent)).scalar_one()) == ""
    match meanwhile:
        case "restarted":
            places = Queue(TABLES).destinations
        case "enabled again":
            desk(places.release, "mail", "shop")
        case "five minutes":
            desk.clock.advance(RECENT_MINUTES * MINUTE_MS)
            desk(places.heard, policy, {"other": [fine]}, desk.clock())
            assert ("mail", "shop") not in {name for names in places._fine.values() for name in names}
    for ended in ([failed] * 4, [fine], [failed] * 3, [fine, failed]):
        assert not desk(places.standing, "mail", "shop").opened_ms
        desk(places.heard, policy, {"shop": ended}, desk.clock())
    assert bool(desk(places.standing, "mail", "shop").opened_ms) == opens


def test_a_full_destination_is_passed_over(desk: Desk) -> None:
    """No destination gets more than its room, and who stands behind a full one is still found."""
    policy = replace(POLICY, per_destination=4)
    desk.promise(*(f"big-{number:02}" for number in range(60)), to="big")
    desk.clock.advance(1)
    desk.promise("small", to="small")
    desk.clock.advance(1)
    first = desk.taken(3, policy)
    assert ([m.destination for m in first.messages], first.waiting) == (["big", "big", "small"], True)
    desk.promise("tiny", to="tiny")
    second = desk.taken(50, policy)
    assert ([m.destination for m in second.messages], second.waiting) == (["big", "big", "tiny"], True)
    assert desk.taken(50, policy) == ([], [], False, True)
    desk.settle((first.messages[0], Done()))
    assert [m.destination for m in desk.taken(50, policy).messages] == ["big"]


def test_when_half_of_all_is_taken_nobody_hides_behind_who_has_a_place(desk: Desk) -> None:
    """One place is free, and those whose turn is first have one each already: it goes to who has none."""
    policy = replace(POLICY, in_flight=8, per_destination=4)
    for number in range(4):
        desk.promise(*(f"{number}-{n}" for n in range(9)), to=f"early-{number}")
    assert len(desk.taken(4, policy).messages) == 4
    desk.clock.advance(1)
    desk.promise("late", to="late")
    assert [m.id for m in desk.taken(1, policy).messages] == ["late"]


def test_who_has_no_place_is_found_behind_those_that_fill_up_meanwhile(desk: Desk) -> None:
    """The first of them takes the place that makes it half of all, so the others of them get nothing more."""
    policy = replace(POLICY, in_flight=8, per_destination=4)
    for number in range(3):
        desk.promise(*(f"{number}-{n}" for n in range(9)), to=f"early-{number}")
    assert len(desk.taken(3, policy).messages) == 3
    desk.clock.advance(1)
    desk.promise("late", to="late")
    assert sorted(m.destination for m in desk.taken(2, policy).messages) == ["early-0", "late"]


def test_those_that_fail_wait_no_longer_than_the_others(desk: Desk) -> None:
    """With one place at a time and a well destination that always has something due, a failing one gets its turn."""
    policy = replace(POLICY, breaker=True, per_destination=1)
    desk.promise(*(f"well-{number}" for number in range(9)), to="well")
    desk.promise("fails", to="fails")
    got = []
    for _ in range(6):
        (message,) = desk.taken(1, policy).messages
        got.append(message.destination)
        outcome = Done() if message.destination == "well" else Retry("no")
        desk(desk.queue.settle, [(message, outcome)], policy, desk.clock(), Random(1))
        desk.clock.advance(10_000)
    assert got.count("fails") >= 2, got


@to_whom
def test_a_stale_claim_settles_nothing(desk: Desk, to: str) -> None:
    """Who slept through his lease may not write, whatever he says; who has it now may, and only once."""
    desk.promise("a", "b", to=to)
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
    desk.promise(*(f"m{number}" for number in range(50)), to="")
    messages = desk.taken(policy=policy).messages
    desk(desk.queue.settle, [(m, Retry("no")) for m in messages], policy, desk.clock(), Random(7))
    delays = sorted(desk.row(m.id).due_at_ms - desk.clock() for m in messages)
    assert 8_000 <= delays[0] < 9_000
    assert 11_000 < delays[-1] <= 12_000


@to_whom
def test_one_that_kills_its_worker_dies_unrun(desk: Desk, to: str) -> None:
    """The claim has counted it: after budget + 1 claims that nobody settled, the next claim buries it."""
    desk.promise("killer", to=to)
    for _ in range(3):
        assert len(desk.claim()) == 1
        desk.clock.advance(LEASE)
    claim = desk.taken()
    assert (claim.messages, [m.id for m in claim.died]) == ([], ["killer"])
    row = desk.row("killer")
    assert (row.state, row.last_error, row.tries) == ("dead", "unsettled", 3)
    assert desk.turn() is None


@to_whom
def test_the_killer_takes_nobody_with_it(desk: Desk, to: str) -> None:
    """After a crash its batch is claimed one by one, so the innocent lose one try and no more."""
    desk.promise(*(f"m{number}" for number in range(5)), to=to)
    assert len(desk.claim(alone=True)) == 5
    desk.clock.advance(LEASE)
    desk.promise("new", to=to)
    settled = []
    for _ in range(20):  # m2 kills whoever works on it
        claim = desk.taken(alone=True)
        if not (claim.messages or claim.more):
            desk.clock.advance(LEASE)
        elif "m2" not in [m.id for m in claim.messages]:
            settled += [m.id for m in claim.messages]
            desk.settle(*((m, Done()) for m in claim.messages))
    assert sorted(settled) == ["m0", "m1", "m3", "m4", "new"]
    assert {desk.row(f"m{n}").tries for n in (0, 1, 3, 4)} == {2}
    assert (desk.row("m2").state, desk.row("m2").tries) == ("dead", 3)


@to_whom
def test_given_back_is_as_if_never_claimed(desk: Desk, to: str) -> None:
    """Due when it was, the try uncounted; and only by who still holds it."""
    desk.promise("a", to=to)
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


def test_a_held_destination_waits_until_it_is_released(desk: Desk) -> None:
    """Whenever it was promised; others go on, and released it goes out in the order of due times."""
    places = desk.queue.destinations
    desk.promise("a", "b")
    desk(places.hold, "mail", "shop", "off")
    assert desk(places.standing, "mail", "shop").owed == 2
    desk.promise("c")
    desk.promise("other", to="other")
    assert [m.id for m in desk.claim()] == ["other"]
    assert (desk.turn(), desk(places.standing, "mail", "shop").held) == (None, "off")
    desk(places.hold, "mail", "shop", "again")
    standing = desk(places.standing, "mail", "shop")
    assert (standing.held, standing.owed) == ("off", 3), "doing it twice changes nothing"
    desk(places.release, "mail", "shop")
    assert [m.id for m in desk.claim()] == ["a", "b", "c"]
    desk(places.release, "mail", "nobody")


def test_held_before_anything_was_promised(desk: Desk) -> None:
    """A destination may be held that the table has never seen."""
    desk(desk.queue.destinations.hold, "mail", "shop")
    desk.promise("a")
    assert desk.claim() == []


def test_held_in_flight(desk: Desk) -> None:
    """What was on its way when its destination was held: paid is paid, failed waits with the others."""
    places = desk.queue.destinations
    desk.promise("paid", "failed")
    messages = {m.id: m for m in desk.claim()}
    desk(places.hold, "mail", "shop")
    assert desk.settle((messages["paid"], Done()), (messages["failed"], Retry("no"))) == ["done", "retried"]
    desk.clock.advance(10_000)
    assert desk.claim() == []
    desk(places.release, "mail", "shop")
    assert [m.id for m in desk.claim()] == ["failed"]


def test_released_it_starts_afresh(desk: Desk) -> None:
    """The circuit is closed, whatever was before; the rate limit stays."""
    places, policy = desk.queue.destinations, replace(POLICY, breaker=True)
    desk.promise(*(f"m{number}" for number in range(6)))
    desk(places.limit, "mail", "shop", 6000)
    for message in desk.taken(5, policy).messages:
        desk(desk.queue.settle, [(message, Retry("no"))], policy, desk.clock(), Random(1))
    before = desk(places.standing, "mail", "shop")
    assert (before.failures, before.opened_ms, before.circuit(desk.clock())) == (5, 30_000, "open")
    desk(places.hold, "mail", "shop")
    desk(places.release, "mail", "shop")
    after = desk(places.standing, "mail", "shop")
    assert (after.failures, after.failing_since_ms, after.paused_until_ms, after.per_minute) == (0, None, 0, 6000)
    assert (after.circuit(desk.clock()), after.first, after.again) == ("closed", 1, 5)
    assert [m.id for m in desk.taken(policy=policy).messages] == ["m5"]


def test_hurry_brings_the_retries_forward_piece_by_piece(desk: Desk) -> None:
    """The next ones first; what is in flight keeps its lease, or it would be sent twice."""
    desk.promise("a", "b", "c", "flies")
    *rest, flies = sorted(desk.claim(), key=lambda message: message.id)
    for number, message in enumerate(rest, start=1):
        desk.settle((message, Retry("no", after_ms=60_000 * number)))
    hurry = desk.queue.destinations.hurry
    assert desk(hurry, "mail", "shop", desk.clock(), 2) == 2
    assert [desk.row(id_).due_at_ms - desk.clock() for id_ in ("a", "b", "c", "flies")] == [0, 0, 180_000, LEASE]
    assert desk.turn() == desk.clock()
    assert desk(hurry, "mail", "shop", desk.clock(), 2) == 1
    assert desk(hurry, "mail", "shop", desk.clock(), 2) == 0
    assert sorted(m.id for m in desk.claim()) == ["a", "b", "c"]
    assert desk.settle((flies, Done())) == ["done"]


def test_giving_up_leaves_what_is_in_flight(desk: Desk) -> None:
    """The rest is dead and says why, also what somebody claimed and left to its lease; nobody else's is touched."""
    desk.promise("waits")
    desk.settle((desk.claim()[0], Retry("no", after_ms=3_600_000)))
    desk.promise("crashed")
    (crashed,) = desk.claim()
    desk.clock.advance(LEASE - 1)
    desk.promise("flies")
    (flies,) = desk.claim()
    desk.clock.advance(1)
    desk.promise("first")
    desk.promise("other", to="other")
    give_up = desk.queue.destinations.give_up
    assert [desk(give_up, "mail", "shop", desk.clock(), 1, "given_up") for _ in range(3)] == [2, 1, 0]
    states = {id_: desk.row(id_).state for id_ in ("waits", "crashed", "first", "flies", "other")}
    assert states == {"waits": "dead", "crashed": "dead", "first": "dead", "flies": "pending", "other": "pending"}
    assert desk.row("first").last_error == "given_up"
    assert desk.settle((crashed, Done())) == []
    assert desk.settle((flies, Done())) == ["done"]
    assert desk.turn() is None


def test_a_rate_limit_reschedules_and_spends_no_try(desk: Desk) -> None:
    """So many a minute, what a second allows at a time; a new promise does not get past it."""
    places = desk.queue.destinations
    desk.promise(*(f"m{number}" for number in range(9)))
    desk(places.limit, "mail", "shop", 120)
    assert len(desk.claim()) == 2
    assert desk.turn() == desk.clock() + 1_000
    desk.promise("more")
    desk.clock.advance(999)
    assert desk.claim() == []
    desk.clock.advance(1)
    assert len(desk.claim()) == 2
    desk(places.limit, "mail", "shop", 1)
    desk.clock.advance(1_000)
    assert len(desk.claim()) == 1
    assert desk.turn() == desk.clock() + 60_000
    desk(places.limit, "mail", "shop", None)
    desk.clock.advance(60_000)
    assert len({m.id for m in desk.claim()}) == 10, "five are left, and the lease of five is over"


def test_a_limited_destination_that_fails_is_left_alone_like_any_other(desk: Desk) -> None:
    """The pause of the limit must not make the breaker think that the probe was in flight when it opened."""
    places, policy = desk.queue.destinations, replace(POLICY, delays_ms=(0,) * 20, breaker=True)
    desk.promise("a")
    desk(places.limit, "mail", "shop", 60)
    tried_at_ms = []
    begun_ms = desk.clock()
    while desk.clock() < begun_ms + 250_000:
        for message in desk.taken(policy=policy).messages:
            tried_at_ms.append(desk.clock() - begun_ms)
            desk(desk.queue.settle, [(message, Retry("refused"))], policy, desk.clock(), Random(1))
        desk.clock.advance(1_000)
    assert tried_at_ms == [0, 1_000, 2_000, 3_000, 4_000, 34_000, 94_000, 214_000]


def test_retry_after_pauses_the_whole_destination(desk: Desk) -> None:
    """Also what was not tried yet; for 15 minutes at most, though the message it was the answer to may wait longer."""
    policy = replace(POLICY, breaker=True)
    desk.promise("a", "b")
    (message,) = desk.taken(1, policy).messages
    slow_down = Retry("http_429", after_ms=3_600_000)
    desk(desk.queue.settle, [(message, slow_down)], policy, desk.clock(), Random(1))
    assert desk.turn() == desk.clock() + 15 * 60_000
    backlog = desk(desk.queue.backlog, desk.clock())["mail"]
    assert (backlog.pending, backlog.due, backlog.oldest_due_at_ms) == (2, 0, None)
    desk.promise("c")
    assert desk.taken(policy=policy).messages == []
    desk(desk.queue.destinations.resume, "mail", ["shop", "nobody"])
    assert desk.taken(policy=policy).messages == [], "what it asked for holds, whoever is in a hurry"
    assert desk.row(message.id).due_at_ms == desk.clock() + 3_600_000
    desk.clock.advance(15 * 60_000)
    assert [m.id for m in desk.taken(policy=policy).messages] == ["b"]


def test_after_a_start_nothing_is_in_flight(desk: Desk) -> None:
    """Who had claimed it is dead: due at once, its destination has its turn, and a late settle changes nothing."""
    desk.promise("a", to="")
    desk.promise("b", "c")
    desk.promise("done", to="done")
    claimed = {m.id: m for m in desk.claim()}
    desk.settle((claimed["done"], Done()))
    desk(desk.queue.destinations.hold, "mail", "held")
    desk.clock.advance(1_000)
    assert (desk.turn(), desk.claim()) == (desk.clock() - 1_000 + LEASE, [])
    assert desk(desk.queue.forget_leases, desk.clock()) == 3
    assert (desk.turn(), desk.turn("done"), desk.turn("held")) == (desk.clock(), None, None)
    again = desk.claim()
    assert sorted((m.id, m.tries) for m in again) == [("a", 2), ("b", 2), ("c", 2)]
    assert desk.settle((claimed["a"], Done()), (claimed["b"], Drop("late"))) == []
    assert len(desk.settle(*((m, Done()) for m in again))) == 3


def test_what_runs_again_has_a_turn(desk: Desk) -> None:
    """A destination to which nothing was owed any more is looked at again."""
    desk.promise("a")
    desk.settle((desk.claim()[0], Drop("gone")))
    assert desk.turn() is None
    desk(desk.queue.revive, ["a"], desk.clock(), "asked")
    assert desk.turn() == desk.clock()


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
    """What the metrics and the dispatcher's sleep are made of; what is held is not pending."""
    assert desk(desk.queue.due, "mail") is None
    now_ms = desk.clock()
    desk.promise("dead")
    desk.settle((desk.claim()[0], Drop("gone")))
    desk.promise("held-1", "held-2", to="off")
    desk(desk.queue.destinations.hold, "mail", "off")
    desk.promise("late", due_at_ms=now_ms - 5)
    desk.promise("later", due_at_ms=now_ms + 5)
    desk.promise("nobody's", due_at_ms=now_ms - 3, to="")
    assert desk(desk.queue.backlog, now_ms)["mail"] == (3, 2, now_ms - 5, 2, 1)
    assert desk(desk.queue.due, "mail") == now_ms - 5
    assert desk(desk.queue.due, "mail", now_ms - 5) == now_ms - 3
    desk.settle(*((m, Done()) for m in desk.claim()))
    assert desk(desk.queue.due, "mail") == now_ms + 5


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


def explain(tx: Connection, statement: str, values: Any) -> list[str]:
    return [row[-1] for row in tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]


def test_every_statement_uses_its_index(desk: Desk) -> None:
    """What a claim, a settle and a start read must not grow with what is done, nor with what waits."""
    asked: dict[str, Any] = {}
    event.listen(desk.engine, "before_cursor_execute", lambda *args: asked.setdefault(args[2], args[3]))
    breaker, places = replace(POLICY, breaker=True), desk.queue.destinations
    desk.promise("a", "b", "c")
    desk.promise("d", to="")
    first, *rest = desk.taken(policy=breaker).messages
    desk(desk.queue.settle, [(message, Retry("no")) for message in rest], breaker, desk.clock(), Random(1))
    desk(desk.queue.give_back, [first])
    desk(desk.queue.due, "mail")
    desk.taken(policy=breaker)
    desk(desk.queue.forget_leases, desk.clock())
    for change in (places.hold, places.release, places.standing):
        desk(change, "mail", "shop")
    desk(places.hurry, "mail", "shop", desk.clock(), 5)
    desk(places.give_up, "mail", "shop", desk.clock(), 5, "off")
    used: set[str] = set()
    for statement, parameters in list(asked.items()):
        if not statement.lstrip().startswith(("SELECT", "UPDATE")) or "RETURNING topic" in statement:
            continue  # the last: after the clock was set back the small table is read once
        values = parameters[0] if isinstance(parameters, list) else parameters
        plan = desk(explain, statement, values)
        used |= set(re.findall(r"USING (?:COVERING )?INDEX (outbox_\w+)", " ".join(plan)))
        scans = [
            line for line in plan if re.match(r"SCAN (outbox_\w+|m|x|d)(?! USING.* INDEX outbox_(flying|due)$)\b", line)
        ]
        assert not scans and "TEMP B-TREE" not in " ".join(plan), (statement, plan)
    assert used == {f"outbox_{index}" for index in ("due", "first", "again", "flying", "well", "troubled")}


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


def test_a_clock_that_was_set_back_makes_nobody_wait_for_the_old_time(desk: Desk) -> None:
    """What was served "later" than now is looked at with the new time, by the next claim."""
    desk.promise("a", "b")
    assert [m.id for m in desk.claim(1)] == ["a"]
    served_at_ms = desk.clock()
    desk.clock.advance(3_600_000)
    assert desk.taken(1).messages
    desk.clock.advance(-3_600_000 + 10_000)
    desk.promise("c")
    assert [m.id for m in desk.taken().messages] == ["b", "c"]
    assert desk.clock() == served_at_ms + 10_000


def test_who_was_slow_gets_one_place_until_it_is_quick_again(desk: Desk) -> None:
    """A success after nine seconds is a success; many like it would keep all places."""
    policy = replace(POLICY, breaker=True, per_destination=2)
    desk.promise(*"abcdefgh")
    slow, *_ = taken = desk.taken(policy=policy).messages
    done = [(message, Done(Trial(200, duration_ms=9_000 if message is slow else 5))) for message in reversed(taken)]
    desk(desk.queue.settle, done, policy, desk.clock(), Random(1))
    assert len(taken) > 1
    (alone,) = desk.taken(policy=policy).messages
    desk(desk.queue.settle, [(alone, Done(Trial(200, duration_ms=5)))], policy, desk.clock(), Random(1))
    assert len(desk.taken(policy=policy).messages) > 1
