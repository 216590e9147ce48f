"""Whom we owe something: whose turn it is, who is full, who fails, who is held. Plain functions over a transaction."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from random import Random
from typing import NamedTuple

from sqlalchemy import Connection, TextClause, text

from outbox import statements as sql
from outbox.health import MINUTE_MS, PAUSE_MS_MAX, RECENT_MINUTES, Ended, Health
from outbox.policy import Policy
from outbox.prepared import Prepared
from outbox.share import Choice, Place, cap, choose
from outbox.tables import Tables

CLOCK_BACK_MS = 1_000


class Standing(NamedTuple):
    """
    How a destination stands. `next_due_at_ms` is its turn (null: nothing is owed, or it is held), `first` and `again`
    count what is owed: not tried yet, tried before (what is in flight among them). The circuit is open until
    `paused_until_ms` if `opened_ms` is not 0, and then half-open.
    """

    next_due_at_ms: int | None = None
    paused_until_ms: int = 0
    held: str | None = None
    per_minute: int | None = None
    failures: int = 0
    failing_since_ms: int | None = None
    opened_ms: int = 0
    first: int = 0
    again: int = 0

    @property
    def owed(self) -> int:
        """How much is owed to it."""
        return self.first + self.again

    def circuit(self, now_ms: int) -> str:
        """closed | open | half-open."""
        if not self.opened_ms:
            return "closed"
        return "open" if now_ms < self.paused_until_ms else "half-open"


class Trouble(NamedTuple):
    """How many destinations of a topic fail, have an open circuit, are held; and the longest failure (ms UTC)."""

    failing: int
    opened: int
    held: int
    failing_since_ms: int | None


class Destinations:
    """
    The table of destinations. The queue keeps it true; others hold, release, limit and look.

    How many are in flight somewhere is not counted but seen: it is the leases that run. A counter would be wrong after
    every crash, and no crash can make this wrong for longer than a lease.
    """

    def __init__(self, tables: Tables) -> None:
        names = {
            "messages": tables.messages.name,
            "tries": tables.tries.name,
            "destinations": tables.destinations.name,
        }

        def prepare(statement: str, **more: str) -> TextClause:
            return text(statement.format(**names, **more))

        self._promise = Prepared(prepare(sql.PROMISE))
        self._turn = Prepared(prepare(sql.TURN))
        self._serve = Prepared(prepare(sql.SERVE))
        self._pause = Prepared(prepare(sql.PAUSE))
        self._hear = Prepared(prepare(sql.HEAR))
        self._health = Prepared(prepare(sql.HEALTH))
        self._flying = Prepared(prepare(sql.FLYING))
        self._places = Prepared(prepare(sql.PLACES))
        self._hold = prepare(sql.HOLD)
        self._release = prepare(sql.RELEASE)
        self._resume = prepare(sql.RESUME)
        self._limit = prepare(sql.LIMIT)
        self._hurry = prepare(sql.HURRY)
        self._give_up = prepare(sql.GIVE_UP, which="= 0"), prepare(sql.GIVE_UP, which="> 0")
        self._state = prepare(sql.STATE)
        self._trouble = prepare(sql.TROUBLE)
        self._clock_back = prepare(sql.CLOCK_BACK)
        self._latest_ms = 0
        self._fine: dict[int, Counter[tuple[str, str]]] = {}
        """
        Successes of those that are well, by minute. They are written down when it gets into trouble and not before,
        since that would be an update for each with every batch. A restart forgets them, and a settle that is undone and
        run again loses them or counts them twice: then a circuit opens a little earlier or later by its share of
        failures. Five in a row are five in a row.
        """
        self._first = prepare(sql.OWED_TO, which="= 0")
        self._again = prepare(sql.OWED_TO, which="> 0")

    # --- what the queue does with it -------------------------------------------------------------

    def promised(self, tx: Connection, topic: str, due: Mapping[str, int]) -> None:
        """Something is promised to these destinations, the earliest of it due then."""
        self._promise(tx, [{"topic": topic, "due": json.dumps(due)}])

    def turn(self, tx: Connection, names: Iterable[tuple[str, str]]) -> None:
        """What is owed to these (topic, destination) has changed: their turn is worked out anew."""
        by_topic: dict[str, set[str]] = {}
        for topic, name in names:
            if name:
                by_topic.setdefault(topic, set()).add(name)
        for topic, some in by_topic.items():
            self._turn(tx, [{"topic": topic, "names": json.dumps(sorted(some))}])

    def set_back(self, tx: Connection, now_ms: int) -> int:
        """The clock is behind what was written by it: nobody waits until it has come so far again. Returns how many."""
        moved = tx.execute(self._clock_back, {"now_ms": now_ms, "pause_ms_max": PAUSE_MS_MAX}).all()
        self.turn(tx, ((topic, destination) for topic, destination in moved))
        return len(moved)

    def choose(self, tx: Connection, policy: Policy, now_ms: int, room: int, rng: Random) -> Choice:
        """
        Chooses up to `room` due messages, fairly (`share.py`). It costs the same whatever waits: those whose turn is
        first are looked up, then the first few messages of each.
        """
        if now_ms + CLOCK_BACK_MS < self._latest_ms and not self.set_back(tx, now_ms):
            self._latest_ms = now_ms  # otherwise the next claim looks again: this one may be undone
        self._latest_ms = max(self._latest_ms, now_ms)  # so that many small steps back are noticed too
        at = {"topic": policy.topic, "now_ms": now_ms}
        in_flight = self._flying.rows(tx, at)
        flying = {name: count for name, count, _ in in_flight}
        troubled = sum(count for _, count, trouble in in_flight if trouble)
        most = cap(policy, sum(flying.values()))
        full = [name for name, count, trouble in in_flight if trouble or count >= most]
        # Who is not full now may become so while we choose: so many more are looked up behind.
        limit = room + len(flying) - len(full)
        # One more than any of them can get is looked up, so that it is known whether something has to wait.
        parameters = {**at, "full": json.dumps(full), "limit": limit, "few": most + 1}
        ((found,),) = self._places.rows(tx, parameters)
        places = [Place(*columns) for columns in json.loads(found)]
        places.sort(key=lambda place: place.turn_ms)
        choice = choose(places, flying, troubled, policy, room, rng)
        choice.waiting = choice.waiting or bool(full)
        return choice

    def served(self, tx: Connection, policy: Policy, choice: Choice, now_ms: int) -> None:
        """After the claim: those that got something go behind the others, and the limited ones pause."""
        if not choice.touched:
            return
        pauses = []
        for place in choice.touched:
            taken = choice.taken.get(place.name, 0)
            # Not of a probe: its failure has a longer pause, and must not be taken for one that came during a pause.
            if place.per_minute is not None and taken and not place.opened_ms:
                until_ms = max(place.paused_until_ms, now_ms) + taken * MINUTE_MS // place.per_minute
                pauses.append({"topic": policy.topic, "destination": place.name, "paused_until_ms": until_ms})
        if pauses:
            self._pause(tx, pauses)
        names = json.dumps([place.name for place in choice.touched])
        self._serve(tx, [{"topic": policy.topic, "names": names, "now_ms": now_ms}])

    def heard(self, tx: Connection, policy: Policy, ended: Mapping[str, Sequence[Ended]], now_ms: int) -> None:
        """Tries at these destinations ended so: their health and their turn."""
        if not ended:
            return
        if policy.breaker:
            rows = []
            well = {(policy.topic, name): len(tries) for name, tries in ended.items()}
            badly = {name: int(any(one.failed or one.slow for one in tries)) for name, tries in ended.items()}
            for name, *columns in self._health.rows(tx, {"topic": policy.topic, "ended": json.dumps(badly)}):
                del well[policy.topic, name]
                health = Health(*columns).after(ended[name], now_ms, self._forget(policy.topic, name))
                rows.append({"topic": policy.topic, "destination": name, **health._asdict()})
            if rows:
                self._hear(tx, rows)
            minute = now_ms // MINUTE_MS
            self._fine.setdefault(minute, Counter()).update(well)
            for old in [one for one in self._fine if one <= minute - RECENT_MINUTES]:
                del self._fine[old]
        self.turn(tx, ((policy.topic, name) for name in ended))

    def _forget(self, topic: str, destination: str) -> dict[int, int]:
        """Its successes that nobody wrote down."""
        name = topic, destination
        return {minute: counts.pop(name) for minute, counts in self._fine.items() if name in counts}

    # --- what others do with it ------------------------------------------------------------------

    def standing(self, tx: Connection, topic: str, destination: str) -> Standing:
        """How a destination stands."""
        where = {"topic": topic, "destination": destination}
        row = tx.execute(self._state, where).one_or_none()
        if row is None:
            return Standing()
        first, again = (int(tx.execute(query, where).scalar_one()) for query in (self._first, self._again))
        return Standing(*row, first, again)  # type: ignore[call-arg] # seven columns, which mypy cannot count

    def trouble(self, tx: Connection, topic: str) -> Trouble:
        """How many destinations of a topic are not well. Reads the whole (small) table."""
        return Trouble(*tx.execute(self._trouble, {"topic": topic}).one())

    def hold(self, tx: Connection, topic: str, destination: str, reason: str = "held") -> None:
        """
        Sends nothing there until `release`; what is owed waits, whenever it was promised, and what is in flight may
        still be settled. Costs the same however much that is.
        """
        tx.execute(self._hold, {"topic": topic, "destination": destination, "held": reason})

    def release(self, tx: Connection, topic: str, destination: str) -> None:
        """
        Sends there (again), with a closed circuit, as if it had never failed: what is due now, and what waits for a
        retry when its time comes (unless you `hurry` it). Costs the same however much that is.
        """
        tx.execute(self._release, {"topic": topic, "destination": destination})
        self._forget(topic, destination)
        self.turn(tx, [(topic, destination)])

    def hurry(self, tx: Connection, topic: str, destination: str, now_ms: int, limit: int) -> int:
        """Makes due now up to `limit` messages that wait for a retry, the next ones first. Returns how many."""
        where = {"topic": topic, "destination": destination}
        count = tx.execute(self._hurry, {**where, "now_ms": now_ms, "limit": limit}).rowcount
        self.turn(tx, [(topic, destination)])
        return count

    def give_up(self, tx: Connection, topic: str, destination: str, now_ms: int, limit: int, error: str) -> int:
        """Makes dead up to `limit` of each kind that is owed and not in flight. Returns how many; 0: no more is."""
        where = {"topic": topic, "destination": destination, "now_ms": now_ms, "limit": limit, "error": error}
        count = sum(tx.execute(query, where).rowcount for query in self._give_up)
        self.turn(tx, [(topic, destination)])
        return count

    def resume(self, tx: Connection, topic: str, destinations: Collection[str]) -> None:
        """An open circuit is half-open at once, and the next try decides. A Retry-After and a limit still hold."""
        if destinations:
            tx.execute(self._resume, [{"topic": topic, "destination": name} for name in sorted(destinations)])
            self.turn(tx, ((topic, name) for name in destinations))

    def limit(self, tx: Connection, topic: str, destination: str, per_minute: int | None) -> None:
        """From now on at most so many tries a minute; None: as many as it can take."""
        tx.execute(self._limit, {"topic": topic, "destination": destination, "per_minute": per_minute})
