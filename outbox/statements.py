"""
All SQL of the queue; `{messages}` and `{tries}` are its tables. Each is one statement whatever the size of its batch.

Differences of dialect belong here and nowhere else. For PostgreSQL: FOR UPDATE SKIP LOCKED in the claim's inner
selects, FOR UPDATE in `LOOK`, json_each_text for json_each.
"""

from __future__ import annotations

ENQUEUE = """
INSERT INTO {messages} (id, topic, destination, subject, payload, state, due_at_ms, created_at_ms)
VALUES (:id, :topic, :destination, :subject, :payload, :state, :due_at_ms, :now_ms) ON CONFLICT (id) DO NOTHING"""

# One statement claims and hands over. `was_due_at_ms` keeps what the lease overwrites.
CLAIM = """
UPDATE {messages}
SET was_due_at_ms = due_at_ms, due_at_ms = :lease_ends_at_ms, tries = tries + 1, claim = claim + 1
WHERE id IN ({due})
RETURNING id, topic, destination, subject, payload, tries, claim, created_at_ms, was_due_at_ms,
          tries_before, tries_max, settled_claim"""

DUE = """
SELECT id FROM {messages} WHERE topic = :topic AND state = 'pending' AND due_at_ms <= :now_ms
ORDER BY due_at_ms LIMIT :limit"""

# `busy` is {destination: in flight}. Full destinations are passed over; the others get no more than their room.
DUE_WITH_ROOM = """
SELECT id FROM (
  SELECT id, destination, row_number() OVER (PARTITION BY destination ORDER BY due_at_ms) AS place
  FROM (SELECT id, destination, due_at_ms FROM {messages}
        WHERE topic = :topic AND state = 'pending' AND due_at_ms <= :now_ms
          AND destination NOT IN (SELECT key FROM json_each(:busy) WHERE value >= :cap)
        ORDER BY due_at_ms LIMIT :limit))
WHERE place <= :cap - coalesce((SELECT value FROM json_each(:busy) WHERE key = destination), 0)"""

PUT_BACK = """
UPDATE {messages} SET due_at_ms = was_due_at_ms, tries = tries - 1 WHERE id = :id AND claim = :claim"""

DIE = """
UPDATE {messages} SET state = 'dead', finished_at_ms = :now_ms, settled_claim = claim, tries = tries - 1,
  last_error = :error WHERE id = :id AND claim = :claim"""

LOOK = "SELECT id, claim FROM {messages} WHERE id IN :ids AND settled_claim < claim"

# Every outcome fits this one statement, so that a batch is one call. A message that was held while it was in flight
# stays held after a Retry. `uncount` is 1 where the try does not count (held, given back): its error stays too.
SETTLE = """
UPDATE {messages} SET
  state = CASE WHEN :state = 'pending' THEN state ELSE :state END,
  due_at_ms = coalesce(:due_at_ms, due_at_ms), settled_claim = claim, tries = tries - :uncount,
  tries_max = coalesce(:tries_max, tries_max), finished_at_ms = :finished_at_ms, reason = coalesce(:reason, reason),
  last_error = CASE WHEN :uncount = 1 THEN last_error ELSE :error END,
  last_status = CASE WHEN :uncount = 1 THEN last_status ELSE :status END,
  last_try_at_ms = coalesce(:tried_at_ms, last_try_at_ms)
WHERE id = :id AND claim = :claim AND settled_claim < claim"""

KEEP_TRY = """
INSERT INTO {tries} (message_id, number, started_at_ms, duration_ms, http_status, error, head)
VALUES (:id, :number, :started_at_ms, :duration_ms, :status, :error, :head)"""

DEAD = "SELECT id, topic, revived FROM {messages} WHERE id IN :ids AND state = 'dead'"

REVIVE = """
UPDATE {messages} SET state = 'pending', due_at_ms = :now_ms, finished_at_ms = NULL, tries_before = tries,
  tries_max = NULL, reason = :reason, revived = :revived WHERE id = :id AND state = 'dead'"""

HOLD = """
UPDATE {messages} SET state = 'held', reason = :reason
WHERE topic = :topic AND state = 'pending' AND destination = :destination"""

# What waited in the schedule's long tail goes now; what is still in flight keeps its lease, or it would be sent twice.
# Both conditions on the state: the first is the partial index's own, without it SQLite would not use that.
RELEASE = """
UPDATE {messages} SET state = 'pending', due_at_ms =
  CASE WHEN claim > settled_claim OR due_at_ms < :now_ms THEN due_at_ms ELSE :now_ms END
WHERE state IN ('held', 'dead') AND state = 'held' AND topic = :topic AND destination = :destination"""

FORGET_LEASES = """
UPDATE {messages} SET due_at_ms = :now_ms WHERE state = 'pending' AND claim > settled_claim AND due_at_ms > :now_ms"""

NEXT_DUE = "SELECT min(due_at_ms) FROM {messages} WHERE topic = :topic AND state = 'pending'"

PENDING = """
SELECT topic, count(*), sum(CASE WHEN due_at_ms <= :now_ms THEN 1 ELSE 0 END), min(due_at_ms)
FROM {messages} WHERE state = 'pending' GROUP BY topic"""

RESTING = "SELECT topic, state, count(*) FROM {messages} WHERE state IN ('held', 'dead') GROUP BY topic, state"
