"""
The queue: plain functions over a transaction. Whoever calls them decides what else is in that transaction.

The statements (`statements.py`) are prepared once, and each function makes a fixed number of them whatever the size of
its batch.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from random import Random
from typing import Any, NamedTuple

from sqlalchemy import Connection, TextClause, bindparam, text

from outbox import statements as sql
from outbox.destinations import Destinations
from outbox.health import SLOW_MS, Ended
from outbox.judge import What, judge, kept, unchanged
from outbox.message import Message, Outcome, Promise, Retry
from outbox.policy import Policy
from outbox.prepared import Prepared
from outbox.share import Choice
from outbox.tables import Tables

REVIVALS_AN_HOUR = 5
UNSETTLED = "unsettled"
"""The last error of a message that was claimed as often as its budget allows and never settled: it kills its worker."""


class Claim(NamedTuple):
    """
    `messages` are the claimer's to settle; `died` were claimed so often without being settled that they are dead.
    `more`: there may be others due, so claim again. `waiting`: others are due whose destination has no room; claim
    again when something is settled.
    """

    messages: list[Message]
    died: list[Message]
    more: bool
    waiting: bool = False


class Settled(NamedTuple):
    message: Message
    what: What
    error: str


class Backlog(NamedTuple):
    """
    How a topic stands. `due` counts those that wait past their time, `oldest_due_at_ms` is the longest waiting; what is
    owed to a destination that pauses is not due. `held` is owed to one that is held, and not counted as pending.
    """

    pending: int = 0
    due: int = 0
    oldest_due_at_ms: int | None = None
    held: int = 0
    dead: int = 0


class Queue:
    """The queue over its tables. Holds nothing but statements and hints; every function runs inside `tx`."""

    def __init__(self, tables: Tables) -> None:
        names = {
            "messages": tables.messages.name,
            "tries": tables.tries.name,
            "destinations": tables.destinations.name,
        }

        def prepare(statement: str, *expanding: str) -> TextClause:
            clause = text(statement.format(**names))
            return clause.bindparams(*(bindparam(name, expanding=True) for name in expanding))

        def prepare_claim(which: str) -> Prepared:
            return Prepared(text(sql.CLAIM.format(**names, which=which.format(**names))))

        self._enqueue = Prepared(prepare(sql.ENQUEUE))
        self._claim = prepare_claim(sql.DUE)
        self._claim_chosen = prepare_claim(sql.CHOSEN)
        self._put_back = Prepared(prepare(sql.PUT_BACK))
        self._die = Prepared(prepare(sql.DIE))
        self._look = Prepared(prepare(sql.LOOK))
        self._settle = Prepared(prepare(sql.SETTLE))
        self._keep_try = Prepared(prepare(sql.KEEP_TRY))
        self._dead = prepare(sql.DEAD, "ids")
        self._revive = Prepared(prepare(sql.REVIVE))
        self._hasten = Prepared(prepare(sql.HASTEN))
        self._forget_leases = prepare(sql.FORGET_LEASES)
        self._next_due = prepare(sql.NEXT_DUE)
        self._pending = prepare(sql.PENDING)
        self._owed = prepare(sql.OWED)
        self._dead_count = prepare(sql.DEAD_COUNT)
        self._leased = prepare(sql.LEASED)
        self.destinations = Destinations(tables)
        self.ready: set[str] = set()
        """
        Topics for which something due was written since the dispatcher last took them away: a hint whom to wake. It may
        name what was rolled back (one look for nothing).
        """
        self.soonest: dict[str, int] = {}
        """Likewise per topic the earliest time at which what was written later becomes due, and when to look again."""

    def enqueue(self, tx: Connection, promises: Iterable[Promise], now_ms: int) -> int:
        """Promises what is not promised yet, known by its id, in one statement. Returns how many were new."""
        rows: list[dict[str, Any]] = []
        owed: dict[str, dict[str, int]] = {}
        for promise in promises:
            due_at_ms = promise.due_at_ms or now_ms
            rows.append(
                {
                    "id": promise.id,
                    "topic": promise.topic,
                    "destination": promise.destination,
                    "subject": promise.subject,
                    "payload": promise.payload,
                    "due_at_ms": due_at_ms,
                    "now_ms": now_ms,
                }
            )
            if promise.destination:
                due = owed.setdefault(promise.topic, {})
                due[promise.destination] = min(due_at_ms, due.get(promise.destination, due_at_ms))
            self.expect(promise.topic, due_at_ms, now_ms)
        if not rows:
            return 0
        for topic, due in owed.items():
            self.destinations.promised(tx, topic, due)
        return self._enqueue(tx, rows)

    def claim(
        self,
        tx: Connection,
        policy: Policy,
        now_ms: int,
        rng: Random,
        limit: int | None = None,
        alone: bool = False,
    ) -> Claim:
        """
        Takes up to `limit` due messages of the policy's topic (its `batch`, at most): first what is owed to nobody in
        particular, the longest due first, then what is owed to destinations, fairly (`share.py`). The lease begins, the
        try is counted, the claim number goes up. Commit before you begin on them.

        `alone`: messages whose last claim was never settled (their worker died, perhaps of one of them) come one by
        one, so that the one that kills takes nobody's budget but its own. One that was claimed as often as its
        budget allows, and once more, is dead without being run.
        """
        limit = policy.batch if limit is None else min(limit, policy.batch)
        lease = {"lease_ends_at_ms": now_ms + policy.lease_ms}
        rows = list(self._claim.rows(tx, {"topic": policy.topic, "now_ms": now_ms, "limit": limit, **lease}))
        choice = Choice()
        if len(rows) < limit:
            choice = self.destinations.choose(tx, policy, now_ms, limit - len(rows), rng)
            if choice.rows:
                rows += self._claim_chosen.rows(tx, {"rows": json.dumps(choice.rows), **lease})
            # Without a message too: its turn was too early, and is put right here.
            self.destinations.served(tx, policy, choice, now_ms)
        messages: list[Message] = []
        died: list[Message] = []
        suspects: list[Message] = []
        budget = len(policy.delays_ms) + 1
        for id_, topic, to, subject, payload, tries, number, created, due, before, tries_max, settled_claim in rows:
            message = Message(id_, topic, to, subject, payload, tries, number, created, due, now_ms, before)
            if message.tries > (before + budget if tries_max is None else tries_max):
                died.append(message)
            else:
                messages.append(message)
                if alone and settled_claim < message.claim - 1:
                    suspects.append(message)
        messages.sort(key=_due)  # RETURNING promises no order
        if died:
            self._die(tx, [{**_fence(m), "now_ms": now_ms, "error": UNSETTLED} for m in died])
            self.destinations.turn(tx, ((m.topic, m.destination) for m in died))
        more = len(rows) >= limit or len(choice.touched) > len(choice.taken)
        if suspects and len(messages) > 1:
            first = min(suspects, key=_due)
            others = [message for message in messages if message is not first]
            self._put_back(tx, [_fence(message) for message in others])
            self.destinations.turn(tx, ((m.topic, m.destination) for m in others))
            messages, more = [first], True
        return Claim(messages, died, more, choice.waiting)

    def settle(
        self,
        tx: Connection,
        outcomes: Sequence[tuple[Message, Outcome]],
        policy: Policy,
        now_ms: int,
        rng: Random,
    ) -> list[Settled]:
        """
        Writes what came of claimed messages of one topic. Returns those whose fence held: nobody claimed them since,
        and they were not settled yet. For the others nothing is written and `then` is not run.

        A row is kept of every try that failed, and of a Done that has a trial. `then` functions run last, in order;
        what one raises is raised here and should undo the transaction.
        """
        if len(outcomes) > 1:
            # Which fences hold cannot be told from the row count of many updates, so it is looked up. A single one can.
            ids = json.dumps([message.id for message, _ in outcomes])
            ((found,),) = self._look.rows(tx, {"ids": ids})
            latest = json.loads(found)
            outcomes = [pair for pair in outcomes if latest.get(pair[0].id) == pair[0].claim]
        rows: list[dict[str, Any]] = []
        tries: list[dict[str, Any]] = []
        settled: list[Settled] = []
        ended: dict[str, list[Ended]] = {}
        for message, outcome in outcomes:
            what, row = judge(message, outcome, policy, now_ms, rng)
            error = row["error"] or ""
            if outcome.trial is not None or row["error"] is not None:
                tries.append(kept(message, outcome.trial, row["error"]))
            if message.destination:
                after_ms = (outcome.after_ms or 0) if isinstance(outcome, Retry) else 0
                slow = outcome.trial is not None and outcome.trial.duration_ms >= SLOW_MS
                ended.setdefault(message.destination, []).append(Ended(what != "done", after_ms, slow))
            if what == "retried":
                self.expect(message.topic, row["due_at_ms"], now_ms)
            rows.append(row)
            settled.append(Settled(message, what, error))
        if not rows:
            return []
        changed = self._settle(tx, rows)
        if len(rows) == 1 and changed == 0:
            return []
        if tries:
            self._keep_try(tx, tries)
        self.destinations.heard(tx, policy, ended, now_ms)
        for _, outcome in outcomes:
            if outcome.then is not None:
                outcome.then(tx)
        return settled

    def give_back(self, tx: Connection, messages: Sequence[Message]) -> None:
        """Returns what was claimed and not begun: due as before, the try not counted. Fenced like a settle."""
        rows = [{**unchanged(message), "due_at_ms": message.due_at_ms, "uncount": 1} for message in messages]
        if rows:
            self._settle(tx, rows)
        self.destinations.turn(tx, ((message.topic, message.destination) for message in messages))
        for message in messages:
            self.ready.add(message.topic)

    def revive(self, tx: Connection, ids: Collection[str], now_ms: int, reason: str) -> int:
        """Runs dead messages again with a fresh budget, each at most five times an hour. Returns how many."""
        rows: list[dict[str, Any]] = []
        whom: list[tuple[str, str]] = []
        for message_id, topic, destination, revived in tx.execute(self._dead, {"ids": list(ids)}) if ids else ():
            times = [*revived.split(), str(now_ms)][-REVIVALS_AN_HOUR - 1 :]
            if len(times) > REVIVALS_AN_HOUR and int(times[0]) > now_ms - 3_600_000:
                continue
            last = " ".join(times[-REVIVALS_AN_HOUR:])
            rows.append({"id": message_id, "now_ms": now_ms, "reason": reason, "revived": last})
            whom.append((topic, destination))
            self.ready.add(topic)
        if rows:
            self._revive(tx, rows)
            self.destinations.turn(tx, whom)
        return len(rows)

    def hasten(self, tx: Connection, due: Sequence[tuple[str, str, str, int]], now_ms: int) -> int:
        """
        Makes messages that wait for a retry due sooner: (id, topic, destination, due_at_ms). What is in flight, settled
        or due by then stays as it is. Returns how many.
        """
        if not due:
            return 0
        count = self._hasten(tx, [{"id": id_, "due_at_ms": at_ms} for id_, _, _, at_ms in due])
        self.destinations.turn(tx, ((topic, destination) for _, topic, destination, _ in due))
        for _, topic, _, at_ms in due:
            self.expect(topic, at_ms, now_ms)
        return count

    def forget_leases(self, tx: Connection, now_ms: int) -> int:
        """
        Makes due at once what was claimed and never settled. Only at the start of a process that has the database to
        itself: then whoever claimed it is dead, and waiting for the leases to end would only delay. Returns how many.
        """
        self.ready.clear()
        self.soonest.clear()
        leased = tx.execute(self._leased).all()
        count = tx.execute(self._forget_leases, {"now_ms": now_ms}).rowcount
        self.destinations.turn(tx, ((topic, destination) for topic, destination in leased))
        self.destinations.set_back(tx, now_ms)
        return count

    def due(self, tx: Connection, topic: str, after_ms: int = 0) -> int | None:
        """
        When, later than `after_ms`, the topic's next message is due (ms; the end of a lease counts), or None when
        nothing is. Those of a destination are due when its turn comes.
        """
        due_at_ms: int | None = tx.execute(self._next_due, {"topic": topic, "after_ms": after_ms}).scalar()
        return due_at_ms

    def backlog(self, tx: Connection, now_ms: int) -> dict[str, Backlog]:
        """How every topic stands that has something pending, held or dead. Walks the index of what is pending."""
        found: dict[str, Backlog] = {}
        for query in (self._pending, self._owed):
            for topic, pending, due, oldest, held in tx.execute(query, {"now_ms": now_ms}):
                before = found.get(topic, Backlog())
                ages = [at for at in (before.oldest_due_at_ms, oldest if due else None) if at is not None]
                found[topic] = Backlog(
                    before.pending + pending, before.due + due, min(ages, default=None), before.held + held
                )
        for topic, count in tx.execute(self._dead_count):
            found[topic] = found.get(topic, Backlog())._replace(dead=count)
        return found

    def expect(self, topic: str, due_at_ms: int, now_ms: int) -> None:
        """Something of this topic is due then: a hint for the dispatcher."""
        if due_at_ms <= now_ms:
            self.ready.add(topic)  # apart from `soonest`, where it would hide what is due after it
        else:
            # Written even where it changes nothing: the dispatcher may have taken the known one away since.
            self.soonest[topic] = min(due_at_ms, self.soonest.get(topic, due_at_ms))


def _due(message: Message) -> tuple[int, str]:
    return message.due_at_ms, message.id


def _fence(message: Message) -> dict[str, Any]:
    return {"id": message.id, "claim": message.claim}
