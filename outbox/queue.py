"""
The queue: plain functions over a transaction. Whoever calls them decides what else is in that transaction.

The statements (`statements.py`) are prepared once, and each function makes a fixed number of them whatever the size of
its batch.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from sqlalchemy import Connection, TextClause, bindparam, text

from outbox import statements as sql
from outbox.judge import What, judge, kept, unchanged
from outbox.message import Hold, Message, Outcome, Promise
from outbox.policy import Policy
from outbox.tables import Tables

REVIVALS_AN_HOUR = 5
UNSETTLED = "unsettled"
"""The last error of a message that was claimed as often as its budget allows and never settled: it kills its worker."""


class Claim(NamedTuple):
    """
    `messages` are the claimer's to settle; `died` were claimed so often without being settled that they are dead.
    `more`: there may be others due, so claim again.
    """

    messages: list[Message]
    died: list[Message]
    more: bool


class Settled(NamedTuple):
    message: Message
    what: What
    error: str


class Backlog(NamedTuple):
    """How a topic stands. `due` counts those that wait past their time, `oldest_due_at_ms` is the longest waiting."""

    pending: int = 0
    due: int = 0
    oldest_due_at_ms: int | None = None
    held: int = 0
    dead: int = 0


class Queue:
    """The queue over its two tables. Holds nothing but statements and `soonest`; every function runs inside `tx`."""

    def __init__(self, tables: Tables) -> None:
        names = {"messages": tables.messages.name, "tries": tables.tries.name}

        def prepare(statement: str, *expanding: str) -> TextClause:
            clause = text(statement.format(**names))
            return clause.bindparams(*(bindparam(name, expanding=True) for name in expanding))

        def prepare_claim(due: str) -> TextClause:
            return text(sql.CLAIM.format(**names, due=due.format(**names)))

        self._enqueue = prepare(sql.ENQUEUE)
        self._claim = prepare_claim(sql.DUE)
        self._claim_with_room = prepare_claim(sql.DUE_WITH_ROOM)
        self._put_back = prepare(sql.PUT_BACK)
        self._die = prepare(sql.DIE)
        self._look = prepare(sql.LOOK, "ids")
        self._settle = prepare(sql.SETTLE)
        self._keep_try = prepare(sql.KEEP_TRY)
        self._dead = prepare(sql.DEAD, "ids")
        self._revive = prepare(sql.REVIVE)
        self._hold = prepare(sql.HOLD)
        self._release = prepare(sql.RELEASE)
        self._forget_leases = prepare(sql.FORGET_LEASES)
        self._next_due = prepare(sql.NEXT_DUE)
        self._pending = prepare(sql.PENDING)
        self._resting = prepare(sql.RESTING)
        self.soonest: dict[str, int] = {}
        """
        Per topic the earliest due time written since the dispatcher last took it away: a hint whom to wake and when.
        It may name what was rolled back (one look for nothing); what it misses is found by the sweep.
        """

    def enqueue(self, tx: Connection, promises: Iterable[Promise], now_ms: int) -> int:
        """Promises what is not promised yet, known by its id, in one statement. Returns how many were new."""
        rows: list[dict[str, Any]] = []
        for promise in promises:
            due_at_ms = promise.due_at_ms or now_ms
            rows.append(
                {
                    "id": promise.id,
                    "topic": promise.topic,
                    "destination": promise.destination,
                    "subject": promise.subject,
                    "payload": promise.payload,
                    "state": "held" if promise.held else "pending",
                    "due_at_ms": due_at_ms,
                    "now_ms": now_ms,
                }
            )
            self._expect(promise.topic, due_at_ms)
        return tx.execute(self._enqueue, rows).rowcount if rows else 0

    def claim(
        self,
        tx: Connection,
        policy: Policy,
        now_ms: int,
        limit: int | None = None,
        busy: Mapping[str, int] | None = None,
        alone: bool = False,
    ) -> Claim:
        """
        Takes up to `limit` due messages of the policy's topic (its `batch`, at most), the longest due first, in one
        statement: the lease begins, the try is counted, the claim number goes up. Commit before you begin on them.

        `busy`: how many are in flight per destination; none gets more than the policy's `per_destination`.
        `alone`: messages whose last claim was never settled (their worker died, perhaps of one of them) come one by
        one, so that the one that kills takes nobody's budget but its own. One that was claimed as often as its
        budget allows, and once more, is dead without being run.
        """
        parameters: dict[str, Any] = {
            "topic": policy.topic,
            "now_ms": now_ms,
            "limit": policy.batch if limit is None else min(limit, policy.batch),
            "lease_ends_at_ms": now_ms + policy.lease_ms,
        }
        if busy is None:
            rows = tx.execute(self._claim, parameters).all()
        else:
            parameters |= {"busy": json.dumps(busy), "cap": policy.per_destination}
            rows = tx.execute(self._claim_with_room, parameters).all()
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
            tx.execute(self._die, [{**_fence(m), "now_ms": now_ms, "error": UNSETTLED} for m in died])
        more = len(rows) >= parameters["limit"]
        if suspects and len(messages) > 1:
            first = min(suspects, key=_due)
            tx.execute(self._put_back, [_fence(message) for message in messages if message is not first])
            messages, more = [first], True
        return Claim(messages, died, more)

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
            ids = [message.id for message, _ in outcomes]
            latest = {row[0]: row[1] for row in tx.execute(self._look, {"ids": ids})}
            outcomes = [pair for pair in outcomes if latest.get(pair[0].id) == pair[0].claim]
        rows: list[dict[str, Any]] = []
        tries: list[dict[str, Any]] = []
        settled: list[Settled] = []
        for message, outcome in outcomes:
            what, row = judge(message, outcome, policy, now_ms, rng)
            error = row["error"] or ""
            trial = None if isinstance(outcome, Hold) else outcome.trial
            if trial is not None or row["error"] is not None:
                tries.append(kept(message, trial, row["error"]))
            if what == "retried":
                self._expect(message.topic, row["due_at_ms"])
            rows.append(row)
            settled.append(Settled(message, what, error))
        if not rows:
            return []
        changed = tx.execute(self._settle, rows).rowcount
        if len(rows) == 1 and changed == 0:
            return []
        if tries:
            tx.execute(self._keep_try, tries)
        for _, outcome in outcomes:
            if outcome.then is not None:
                outcome.then(tx)
        return settled

    def give_back(self, tx: Connection, messages: Sequence[Message]) -> None:
        """Returns what was claimed and not begun: due as before, the try not counted. Fenced like a settle."""
        rows = [{**unchanged(message), "due_at_ms": message.due_at_ms, "uncount": 1} for message in messages]
        if rows:
            tx.execute(self._settle, rows)
        for message in messages:
            self._expect(message.topic, message.due_at_ms)

    def revive(self, tx: Connection, ids: Collection[str], now_ms: int, reason: str) -> int:
        """Runs dead messages again with a fresh budget, each at most five times an hour. Returns how many."""
        rows: list[dict[str, Any]] = []
        for message_id, topic, revived in tx.execute(self._dead, {"ids": list(ids)}) if ids else ():
            times = [*revived.split(), str(now_ms)][-REVIVALS_AN_HOUR - 1 :]
            if len(times) > REVIVALS_AN_HOUR and int(times[0]) > now_ms - 3_600_000:
                continue
            last = " ".join(times[-REVIVALS_AN_HOUR:])
            rows.append({"id": message_id, "now_ms": now_ms, "reason": reason, "revived": last})
            self._expect(topic, now_ms)
        if rows:
            tx.execute(self._revive, rows)
        return len(rows)

    def hold(self, tx: Connection, topic: str, destination: str, reason: str = "held") -> int:
        """
        Keeps aside what is owed to a destination, until `release`. What is in flight may still be settled as done.
        Returns how many. One statement for all of them, measured 4–7 µs a message (20,000 of them), and the writer does
        nothing else meanwhile: the caller decides how many that is.
        """
        return tx.execute(self._hold, {"topic": topic, "destination": destination, "reason": reason}).rowcount

    def release(self, tx: Connection, topic: str, destination: str, now_ms: int) -> int:
        """Lets go of what was held: due now, but for what is still in flight. Returns how many."""
        self._expect(topic, now_ms)
        return tx.execute(self._release, {"topic": topic, "destination": destination, "now_ms": now_ms}).rowcount

    def forget_leases(self, tx: Connection, now_ms: int) -> int:
        """
        Makes due at once what was claimed and never settled. Only at the start of a process that has the database to
        itself: then whoever claimed it is dead, and waiting for the leases to end would only delay. Returns how many.
        """
        self.soonest.clear()
        return tx.execute(self._forget_leases, {"now_ms": now_ms}).rowcount

    def due(self, tx: Connection, topic: str) -> int | None:
        """When the topic's next message is due (ms; the end of a lease counts), or None when nothing is pending."""
        due_at_ms: int | None = tx.execute(self._next_due, {"topic": topic}).scalar()
        return due_at_ms

    def backlog(self, tx: Connection, now_ms: int) -> dict[str, Backlog]:
        """How every topic stands that has something pending, held or dead. Walks the index of what is pending."""
        found: dict[str, Backlog] = {}
        for topic, pending, due, oldest in tx.execute(self._pending, {"now_ms": now_ms}):
            found[topic] = Backlog(pending, due, oldest if due else None)
        for topic, state, count in tx.execute(self._resting):
            found[topic] = found.get(topic, Backlog())._replace(**{state: count})
        return found

    def _expect(self, topic: str, due_at_ms: int) -> None:
        known = self.soonest.get(topic)
        if known is None or due_at_ms < known:
            self.soonest[topic] = due_at_ms


def _due(message: Message) -> tuple[int, str]:
    return message.due_at_ms, message.id


def _fence(message: Message) -> dict[str, Any]:
    return {"id": message.id, "claim": message.claim}
