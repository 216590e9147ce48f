"""
The queue: plain functions over a transaction. Whoever calls them decides what else is in that transaction.

The statements are prepared once, and each function makes a fixed number of them whatever the size of its batch.
Differences of dialect belong here and nowhere else. For PostgreSQL: FOR UPDATE SKIP LOCKED in the claim's inner
selects, FOR UPDATE in `_LOOK`, json_each_text for json_each.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from random import Random
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, TextClause, bindparam, text

from outbox.message import (
    ERROR_CHARACTERS_MAX,
    HEAD_BYTES_MAX,
    Done,
    Drop,
    Hold,
    Message,
    Outcome,
    Promise,
    Retry,
    Trial,
)
from outbox.policy import Policy
from outbox.tables import Tables

__all__ = [
    "Backlog",
    "Claim",
    "Done",
    "Drop",
    "Hold",
    "Message",
    "Outcome",
    "Promise",
    "Queue",
    "Retry",
    "Settled",
    "Trial",
]

REVIVALS_AN_HOUR = 5
UNSETTLED = "unsettled"
"""The last error of a message that was claimed as often as its budget allows and never settled: it kills its worker."""

What = Literal["done", "retried", "died", "held"]


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


_ENQUEUE = """
INSERT INTO {messages} (id, topic, destination, subject, payload, state, due_at_ms, created_at_ms)
VALUES (:id, :topic, :destination, :subject, :payload, :state, :due_at_ms, :now_ms) ON CONFLICT (id) DO NOTHING"""

# One statement claims and hands over. `was_due_at_ms` keeps what the lease overwrites.
_CLAIM = """
UPDATE {messages}
SET was_due_at_ms = due_at_ms, due_at_ms = :lease_ends_at_ms, tries = tries + 1, claim = claim + 1
WHERE id IN ({due})
RETURNING id, topic, destination, subject, payload, tries, claim, created_at_ms, was_due_at_ms,
          tries_before, tries_max, settled_claim"""

_DUE = """
SELECT id FROM {messages} WHERE topic = :topic AND state = 'pending' AND due_at_ms <= :now_ms
ORDER BY due_at_ms LIMIT :limit"""

# `busy` is {{destination: in flight}}. Full destinations are passed over; the others get no more than their room.
_DUE_WITH_ROOM = """
SELECT id FROM (
  SELECT id, destination, row_number() OVER (PARTITION BY destination ORDER BY due_at_ms) AS place
  FROM (SELECT id, destination, due_at_ms FROM {messages}
        WHERE topic = :topic AND state = 'pending' AND due_at_ms <= :now_ms
          AND destination NOT IN (SELECT key FROM json_each(:busy) WHERE value >= :cap)
        ORDER BY due_at_ms LIMIT :limit))
WHERE place <= :cap - coalesce((SELECT value FROM json_each(:busy) WHERE key = destination), 0)"""

_PUT_BACK = """
UPDATE {messages} SET due_at_ms = was_due_at_ms, tries = tries - 1 WHERE id = :id AND claim = :claim"""

_DIE = """
UPDATE {messages} SET state = 'dead', finished_at_ms = :now_ms, settled_claim = claim, tries = tries - 1,
  last_error = :error WHERE id = :id AND claim = :claim"""

_LOOK = "SELECT id, claim FROM {messages} WHERE id IN :ids AND settled_claim < claim"

# Every outcome fits this one statement, so that a batch is one call. A message that was held while it was in flight
# stays held after a Retry. `uncount` is 1 where the try does not count (held, given back): its error stays too.
_SETTLE = """
UPDATE {messages} SET
  state = CASE WHEN :state = 'pending' THEN state ELSE :state END,
  due_at_ms = coalesce(:due_at_ms, due_at_ms), settled_claim = claim, tries = tries - :uncount,
  tries_max = coalesce(:tries_max, tries_max), finished_at_ms = :finished_at_ms, reason = coalesce(:reason, reason),
  last_error = CASE WHEN :uncount = 1 THEN last_error ELSE :error END,
  last_status = CASE WHEN :uncount = 1 THEN last_status ELSE :status END,
  last_try_at_ms = coalesce(:tried_at_ms, last_try_at_ms)
WHERE id = :id AND claim = :claim AND settled_claim < claim"""

_KEEP_TRY = """
INSERT INTO {tries} (message_id, number, started_at_ms, duration_ms, http_status, error, head)
VALUES (:id, :number, :started_at_ms, :duration_ms, :status, :error, :head)"""

_DEAD = "SELECT id, topic, revived FROM {messages} WHERE id IN :ids AND state = 'dead'"

_REVIVE = """
UPDATE {messages} SET state = 'pending', due_at_ms = :now_ms, finished_at_ms = NULL, tries_before = tries,
  tries_max = NULL, reason = :reason, revived = :revived WHERE id = :id AND state = 'dead'"""

_HOLD = """
UPDATE {messages} SET state = 'held', reason = :reason
WHERE topic = :topic AND state = 'pending' AND destination = :destination"""

# What waited in the schedule's long tail goes now; what is still in flight keeps its lease, or it would be sent twice.
_RELEASE = """
UPDATE {messages} SET state = 'pending', due_at_ms =
  CASE WHEN claim > settled_claim OR due_at_ms < :now_ms THEN due_at_ms ELSE :now_ms END
WHERE state IN ('held', 'dead') AND state = 'held' AND topic = :topic AND destination = :destination"""

_FORGET_LEASES = """
UPDATE {messages} SET due_at_ms = :now_ms WHERE state = 'pending' AND claim > settled_claim AND due_at_ms > :now_ms"""

_NEXT_DUE = "SELECT min(due_at_ms) FROM {messages} WHERE topic = :topic AND state = 'pending'"

_PENDING = """
SELECT topic, count(*), sum(CASE WHEN due_at_ms <= :now_ms THEN 1 ELSE 0 END), min(due_at_ms)
FROM {messages} WHERE state = 'pending' GROUP BY topic"""

_RESTING = "SELECT topic, state, count(*) FROM {messages} WHERE state IN ('held', 'dead') GROUP BY topic, state"


class Queue:
    """The queue over its two tables. Holds nothing but statements and `soonest`; every function runs inside `tx`."""

    def __init__(self, tables: Tables) -> None:
        names = {"messages": tables.messages.name, "tries": tables.tries.name}

        def prepare(sql: str, *expanding: str) -> TextClause:
            clause = text(sql.format(**names))
            return clause.bindparams(*(bindparam(name, expanding=True) for name in expanding))

        def prepare_claim(due: str) -> TextClause:
            return text(_CLAIM.format(**names, due=due.format(**names)))

        self._enqueue = prepare(_ENQUEUE)
        self._claim = prepare_claim(_DUE)
        self._claim_with_room = prepare_claim(_DUE_WITH_ROOM)
        self._put_back = prepare(_PUT_BACK)
        self._die = prepare(_DIE)
        self._look = prepare(_LOOK, "ids")
        self._settle = prepare(_SETTLE)
        self._keep_try = prepare(_KEEP_TRY)
        self._dead = prepare(_DEAD, "ids")
        self._revive = prepare(_REVIVE)
        self._hold = prepare(_HOLD)
        self._release = prepare(_RELEASE)
        self._forget_leases = prepare(_FORGET_LEASES)
        self._next_due = prepare(_NEXT_DUE)
        self._pending = prepare(_PENDING)
        self._resting = prepare(_RESTING)
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
            what, row = _judge(message, outcome, policy, now_ms, rng)
            error = row["error"] or ""
            trial = None if isinstance(outcome, Hold) else outcome.trial
            if trial is not None or row["error"] is not None:
                tries.append(_kept(message, trial or _NO_TRIAL, row["error"]))
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
        rows = [{**_row(message), "due_at_ms": message.due_at_ms, "uncount": 1} for message in messages]
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
            kept = " ".join(times[-REVIVALS_AN_HOUR:])
            rows.append({"id": message_id, "now_ms": now_ms, "reason": reason, "revived": kept})
            self._expect(topic, now_ms)
        if rows:
            tx.execute(self._revive, rows)
        return len(rows)

    def hold(self, tx: Connection, topic: str, destination: str, reason: str = "held") -> int:
        """
        Keeps aside what is owed to a destination, until `release`. What is in flight may still be settled as done.
        Returns how many. One statement for all of them: about 10 µs a message, so the caller decides how many that is.
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


_NO_TRIAL = Trial()


def _due(message: Message) -> tuple[int, str]:
    return message.due_at_ms, message.id


def _fence(message: Message) -> dict[str, Any]:
    return {"id": message.id, "claim": message.claim}


def _row(message: Message) -> dict[str, Any]:
    return {
        "id": message.id,
        "claim": message.claim,
        "state": "pending",
        "due_at_ms": None,
        "uncount": 0,
        "tries_max": None,
        "finished_at_ms": None,
        "reason": None,
        "error": None,
        "status": None,
        "tried_at_ms": None,
    }


def _judge(message: Message, outcome: Outcome, policy: Policy, now_ms: int, rng: Random) -> tuple[What, dict[str, Any]]:
    """What an outcome makes of a message: the columns to write."""
    row = _row(message)
    if isinstance(outcome, Hold):
        row |= {"state": "held", "due_at_ms": message.due_at_ms, "uncount": 1, "reason": _words(outcome.reason)}
        return "held", row
    row["tried_at_ms"] = message.claimed_at_ms
    row["status"] = outcome.trial.http_status if outcome.trial else None
    match outcome:
        case Done():
            row |= {"state": "done", "finished_at_ms": now_ms}
            return "done", row
        case Drop(error=error):
            row |= {"state": "dead", "finished_at_ms": now_ms, "error": _words(error)}
            return "died", row
        case Retry(error=error):
            row["error"] = _words(error)
            delays_ms = policy.delays_ms if outcome.delays_ms is None else outcome.delays_ms
            retries = message.tries - message.tries_before - 1
            if retries >= len(delays_ms):
                row |= {"state": "dead", "finished_at_ms": now_ms}
                return "died", row
            delay_ms = round(delays_ms[retries] * (1 + policy.jitter * (2 * rng.random() - 1)))
            row["due_at_ms"] = now_ms + max(delay_ms, outcome.after_ms or 0)
            row["tries_max"] = message.tries_before + len(delays_ms) + 1
            return "retried", row


def _kept(message: Message, trial: Trial, error: str | None) -> dict[str, Any]:
    return {
        "id": message.id,
        "number": message.tries,
        "started_at_ms": message.claimed_at_ms,
        "duration_ms": max(0, trial.duration_ms),
        "status": trial.http_status,
        "error": error if trial.error is None else _words(trial.error),
        "head": trial.head[:HEAD_BYTES_MAX],
    }


def _words(error: str) -> str:
    """Errors come from anywhere: short enough for a column, and nothing in them that a database refuses."""
    return error[:ERROR_CHARACTERS_MAX].encode("utf-8", "replace").decode().replace("\0", "?")
