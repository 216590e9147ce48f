"""
All SQL of the queue; `{messages}`, `{tries}` and `{destinations}` are its tables. Each is one statement whatever the
size of its batch.

Differences of dialect belong here and nowhere else. For PostgreSQL: FOR UPDATE SKIP LOCKED in the claim's inner
selects, FOR UPDATE in `LOOK`, json_each_text for json_each, json_agg and ctid in `PLACES`, greatest for max of several
(it passes over nulls, where SQLite's answers null), no INDEXED BY.
"""

from __future__ import annotations

ENQUEUE = """
INSERT INTO {messages} (id, topic, destination, subject, payload, state, due_at_ms, created_at_ms)
VALUES (:id, :topic, :destination, :subject, :payload, 'pending', :due_at_ms, :now_ms) ON CONFLICT (id) DO NOTHING"""

# One statement claims and hands over. `was_due_at_ms` keeps what the lease overwrites.
CLAIM = """
UPDATE {messages}
SET was_due_at_ms = due_at_ms, due_at_ms = :lease_ends_at_ms, tries = tries + 1, claim = claim + 1
WHERE {which}
RETURNING id, topic, destination, subject, payload, tries, claim, created_at_ms, was_due_at_ms,
          tries_before, tries_max, settled_claim"""

DUE = """
id IN (
  SELECT id FROM {messages} WHERE topic = :topic AND state = 'pending' AND destination = '' AND due_at_ms <= :now_ms
  ORDER BY due_at_ms LIMIT :limit)"""

CHOSEN = "rowid IN (SELECT value FROM json_each(:rows))"

PUT_BACK = """
UPDATE {messages} SET due_at_ms = was_due_at_ms, tries = tries - 1 WHERE id = :id AND claim = :claim"""

DIE = """
UPDATE {messages} SET state = 'dead', finished_at_ms = :now_ms, settled_claim = claim, tries = tries - 1,
  last_error = :error WHERE id = :id AND claim = :claim"""

LOOK = """
SELECT json_group_object(id, claim) FROM {messages}
WHERE id IN (SELECT value FROM json_each(:ids)) AND settled_claim < claim"""

# Every outcome fits this one statement, so that a batch is one call. `uncount` is 1 where the try does not count (given
# back): its error stays too.
SETTLE = """
UPDATE {messages} SET
  state = :state, due_at_ms = coalesce(:due_at_ms, due_at_ms), settled_claim = claim, tries = tries - :uncount,
  tries_max = coalesce(:tries_max, tries_max), finished_at_ms = :finished_at_ms,
  last_error = CASE WHEN :uncount = 1 THEN last_error ELSE :error END,
  last_status = CASE WHEN :uncount = 1 THEN last_status ELSE :status END,
  last_try_at_ms = coalesce(:tried_at_ms, last_try_at_ms)
WHERE id = :id AND claim = :claim AND settled_claim < claim"""

KEEP_TRY = """
INSERT INTO {tries} (message_id, number, started_at_ms, duration_ms, http_status, error, head)
VALUES (:id, :number, :started_at_ms, :duration_ms, :status, :error, :head)"""

DEAD = "SELECT id, topic, destination, revived FROM {messages} WHERE id IN :ids AND state = 'dead'"

REVIVE = """
UPDATE {messages} SET state = 'pending', due_at_ms = :now_ms, finished_at_ms = NULL, tries_before = tries,
  tries_max = NULL, reason = :reason, revived = :revived WHERE id = :id AND state = 'dead'"""

# As HURRY, but these ones, each at its own time.
HASTEN = """
UPDATE {messages} SET due_at_ms = :due_at_ms
WHERE id = :id AND state = 'pending' AND tries > 0 AND due_at_ms > :due_at_ms AND claim = settled_claim"""

# By two indexes, because at a start the table may hold millions that are done.
FORGET_LEASES = """
UPDATE {messages} SET due_at_ms = :now_ms WHERE id IN (
  SELECT id FROM {messages} INDEXED BY outbox_flying
    WHERE destination <> '' AND claim > settled_claim AND due_at_ms > :now_ms
  UNION ALL SELECT id FROM {messages} INDEXED BY outbox_due
    WHERE state = 'pending' AND destination = '' AND claim > settled_claim AND due_at_ms > :now_ms)"""

LEASED = """
SELECT DISTINCT topic, destination FROM {messages} WHERE destination <> '' AND claim > settled_claim"""

# min() over two numbers that may be null, without a dialect's own function.
NEXT_DUE = """
SELECT min(due_at_ms) FROM (
  SELECT min(due_at_ms) AS due_at_ms FROM {messages}
    WHERE topic = :topic AND state = 'pending' AND destination = '' AND due_at_ms > :after_ms
  UNION ALL SELECT min(next_due_at_ms) FROM {destinations}
    WHERE topic = :topic AND next_due_at_ms IS NOT NULL AND troubled = 0 AND next_due_at_ms > :after_ms
  UNION ALL SELECT min(next_due_at_ms) FROM {destinations}
    WHERE topic = :topic AND next_due_at_ms IS NOT NULL AND troubled = 1 AND next_due_at_ms > :after_ms)"""

PENDING = """
SELECT topic, count(*), sum(CASE WHEN due_at_ms <= :now_ms THEN 1 ELSE 0 END), min(due_at_ms), 0
FROM {messages} WHERE state = 'pending' AND destination = '' GROUP BY topic"""

# Grouped in the index first: the join is with destinations, not with messages.
OWED = """
SELECT o.topic, sum(CASE WHEN d.held IS NULL THEN o.pending ELSE 0 END),
  sum(CASE WHEN d.held IS NULL AND d.paused_until_ms <= :now_ms THEN o.due ELSE 0 END),
  min(CASE WHEN d.held IS NULL AND d.paused_until_ms <= :now_ms THEN o.oldest END),
  sum(CASE WHEN d.held IS NULL THEN 0 ELSE o.pending END)
FROM (
  SELECT topic, destination, count(*) AS pending, sum(CASE WHEN due_at_ms <= :now_ms THEN 1 ELSE 0 END) AS due,
    min(due_at_ms) AS oldest
  FROM {messages} WHERE state = 'pending' AND destination <> '' AND tries = 0 GROUP BY topic, destination
  UNION ALL
  SELECT topic, destination, count(*), sum(CASE WHEN due_at_ms <= :now_ms THEN 1 ELSE 0 END), min(due_at_ms)
  FROM {messages} WHERE state = 'pending' AND destination <> '' AND tries > 0 GROUP BY topic, destination
) AS o JOIN {destinations} AS d ON d.topic = o.topic AND d.destination = o.destination
GROUP BY o.topic"""

DEAD_COUNT = "SELECT topic, count(*) FROM {messages} WHERE state = 'dead' GROUP BY topic"

# --- destinations: whose turn it is ---------------------------------------------------------------------------------

# What is owed to it, or the end of its pause, or behind those that came since it was served; null when nothing is. One
# statement over all names: as an executemany SQLite would prepare it anew for every row, 40 µs each instead of 2.
_EARLIEST = """
  coalesce((SELECT due_at_ms FROM {{messages}} AS m
    WHERE m.topic = :topic AND m.destination = {{destinations}}.destination
      AND m.state = 'pending' AND m.destination <> '' AND m.tries {which} ORDER BY m.due_at_ms LIMIT 1), {never})"""
_NEVER = 2**63 - 1
_TURN = """
UPDATE {{destinations}} SET {more}
  next_due_at_ms = CASE WHEN held IS NULL THEN
    max({served}, paused_until_ms, nullif(min({first}, {again}), {never})) END
WHERE topic = :topic AND destination IN (SELECT value FROM json_each(:names))"""


def _turn(more: str, served: str) -> str:
    first, again = (_EARLIEST.format(which=which, never=_NEVER) for which in ("= 0", "> 0"))
    return _TURN.format(more=more, served=served, first=first, again=again, never=_NEVER)


TURN = _turn("", "served_at_ms")

SERVE = _turn("served_at_ms = :now_ms,", ":now_ms")

PAUSE = """
UPDATE {destinations} SET paused_until_ms = max(paused_until_ms, :paused_until_ms)
WHERE topic = :topic AND destination = :destination"""

HEAR = """
UPDATE {destinations} SET failures = :failures, failing_since_ms = :failing_since_ms, opened_ms = :opened_ms,
  paused_until_ms = :paused_until_ms, recent = :recent, troubled = :troubled
WHERE topic = :topic AND destination = :destination"""

# What is promised can only make its turn earlier, and need not be new: then it is looked at once for nothing. Without
# `WHERE true` SQLite takes ON for that of a join.
PROMISE = """
INSERT INTO {destinations} (topic, destination, next_due_at_ms)
SELECT :topic, key, value FROM json_each(:due) WHERE true
ON CONFLICT (topic, destination) DO UPDATE SET next_due_at_ms = max(paused_until_ms, excluded.next_due_at_ms)
WHERE held IS NULL AND (next_due_at_ms IS NULL OR next_due_at_ms > excluded.next_due_at_ms)"""

# Of those that were in trouble or are now: `ended` says of each whether it ended badly. The others are well, as before.
HEALTH = """
SELECT d.destination, d.failures, d.failing_since_ms, d.opened_ms, d.paused_until_ms, d.recent, d.troubled
FROM json_each(:ended) AS e CROSS JOIN {destinations} AS d ON d.topic = :topic AND d.destination = e.key
WHERE d.troubled = 1 OR e.value = 1"""

# An expired lease is not in flight: whoever had it is slow or dead, and its message may be claimed again.
FLYING = """
SELECT f.destination, f.flying, d.troubled FROM (
  SELECT destination, count(*) AS flying FROM {messages}
  WHERE topic = :topic AND destination <> '' AND claim > settled_claim AND due_at_ms > :now_ms GROUP BY destination
) AS f JOIN {destinations} AS d ON d.topic = :topic AND d.destination = f.destination"""

# Two walks in the order of turns, one for those that fail: however many they are, they stand in nobody's way. What is
# passed over in them is full, and so at most as many as there are places.
_IN_TURN = """
SELECT * FROM (
  SELECT destination, troubled, opened_ms, paused_until_ms, per_minute, next_due_at_ms FROM {{destinations}}
  WHERE topic = :topic AND next_due_at_ms IS NOT NULL AND {which} AND next_due_at_ms <= :now_ms
    AND destination NOT IN (SELECT value FROM json_each(:full))
  ORDER BY next_due_at_ms LIMIT :limit)"""

# The first few of each: both kinds are probed in their own index, whatever waits behind them, and nothing but the index
# is read. `row` is what the chosen ones are claimed by, in this same transaction.
_FIRST_FEW = """
(SELECT json_group_array(json_array(due_at_ms, row)) FROM (
  SELECT x.rowid AS row, x.due_at_ms FROM {{messages}} AS x
  WHERE x.topic = :topic AND x.destination = p.destination AND x.state = 'pending' AND x.destination <> '' AND x.{which}
    AND x.due_at_ms <= :now_ms
  ORDER BY x.due_at_ms LIMIT :few))"""

# The columns are those of `Place`. All in one value: fifty rows cost Python more than they cost SQLite.
_PLACES = """
SELECT json_group_array(json_array(destination, troubled, opened_ms, paused_until_ms, per_minute, next_due_at_ms,
  json({first}), json({again}))) FROM ({well}UNION ALL{troubled}) AS p"""

PLACES = _PLACES.format(
    first=_FIRST_FEW.format(which="tries = 0"),
    again=_FIRST_FEW.format(which="tries > 0"),
    well=_IN_TURN.format(which="troubled = 0"),
    troubled=_IN_TURN.format(which="troubled = 1"),
)

HOLD = """
INSERT INTO {destinations} (topic, destination, held) VALUES (:topic, :destination, :held)
ON CONFLICT (topic, destination) DO UPDATE SET held = coalesce({destinations}.held, :held), next_due_at_ms = NULL"""

# A fresh start: what it did before it was held says nothing about now.
RELEASE = """
UPDATE {destinations} SET held = NULL, failures = 0, failing_since_ms = NULL, opened_ms = 0, paused_until_ms = 0,
  recent = '', troubled = 0, served_at_ms = 0 WHERE topic = :topic AND destination = :destination"""

RESUME = """
UPDATE {destinations} SET paused_until_ms = 0
WHERE topic = :topic AND destination = :destination AND opened_ms > 0"""

# After the clock was set back: what was served or paused "later" than now would wait for the old time to come again.
CLOCK_BACK = """
UPDATE {destinations} SET served_at_ms = min(served_at_ms, :now_ms),
  paused_until_ms = min(paused_until_ms, :now_ms + :pause_ms_max)
WHERE served_at_ms > :now_ms OR paused_until_ms > :now_ms + :pause_ms_max
RETURNING topic, destination"""

LIMIT = """
INSERT INTO {destinations} (topic, destination, per_minute) VALUES (:topic, :destination, :per_minute)
ON CONFLICT (topic, destination) DO UPDATE SET per_minute = :per_minute"""

# What waits in the schedule's long tail goes now. What is in flight keeps its lease, or it would be sent twice.
HURRY = """
UPDATE {messages} SET due_at_ms = :now_ms WHERE id IN (
  SELECT id FROM {messages}
  WHERE topic = :topic AND destination = :destination AND state = 'pending' AND destination <> '' AND tries > 0
    AND due_at_ms > :now_ms AND claim = settled_claim
  ORDER BY due_at_ms LIMIT :limit)"""

# What somebody claimed and left to its lease is not in flight when that is over.
GIVE_UP = """
UPDATE {messages} SET state = 'dead', finished_at_ms = :now_ms, last_error = :error, settled_claim = claim
WHERE id IN (
  SELECT id FROM {messages}
  WHERE topic = :topic AND destination = :destination AND state = 'pending' AND destination <> '' AND tries {which}
    AND (claim = settled_claim OR due_at_ms <= :now_ms)
  LIMIT :limit)"""

TROUBLE = """
SELECT coalesce(sum(failures > 0), 0), coalesce(sum(opened_ms > 0), 0), coalesce(sum(held IS NOT NULL), 0),
  min(failing_since_ms)
FROM {destinations} WHERE topic = :topic"""

STATE = """
SELECT next_due_at_ms, paused_until_ms, held, per_minute, failures, failing_since_ms, opened_ms
FROM {destinations} WHERE topic = :topic AND destination = :destination"""

OWED_TO = """
SELECT count(*) FROM {messages} WHERE topic = :topic AND destination = :destination AND state = 'pending'
  AND destination <> '' AND tries {which}"""
