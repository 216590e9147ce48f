"""The tables: what we owe, each try at it, and whom we owe it to."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)

FIRST = "state = 'pending' AND destination <> '' AND tries = 0"
AGAIN = "state = 'pending' AND destination <> '' AND tries > 0"
FLYING = "destination <> '' AND claim > settled_claim"
WELL = "next_due_at_ms IS NOT NULL AND troubled = 0"
TROUBLED = "next_due_at_ms IS NOT NULL AND troubled = 1"
"""The conditions of the partial indexes. A query uses one only if it repeats its condition word by word."""


class Tables(NamedTuple):
    messages: Table
    tries: Table
    destinations: Table


def define(metadata: MetaData) -> Tables:
    """
    Adds `outbox_messages`, `outbox_tries` and `outbox_destinations` to the metadata. All times are integer ms UTC.

    A message has no running state: it runs while `claim > settled_claim` and `due_at_ms` (the end of its lease)
    is to come. Every index is paid for by each message several times over, so each message is in few at a time: it
    is owed to somebody or to nobody, a first try or not, in flight or not, dead or not.
    """
    messages = Table(
        "outbox_messages",
        metadata,
        Column("id", Text, primary_key=True),
        Column("topic", Text, nullable=False),
        Column("destination", Text, nullable=False),
        Column("subject", Text, nullable=False),
        Column("payload", Text, nullable=False),
        Column("state", Text, nullable=False, server_default="pending"),
        Column("due_at_ms", BigInteger, nullable=False),
        Column("was_due_at_ms", BigInteger),  # before the last claim moved it: giving back restores it
        Column("claim", BigInteger, nullable=False, server_default="0"),  # the fence, never goes back
        Column("settled_claim", BigInteger, nullable=False, server_default="0"),
        Column("tries", Integer, nullable=False, server_default="0"),
        Column("tries_before", Integer, nullable=False, server_default="0"),  # before it was last run again
        Column("tries_max", Integer),  # where `tries` ends; null: as the topic's policy says
        Column("last_error", Text),
        Column("last_status", Integer),
        Column("last_try_at_ms", BigInteger),
        Column("finished_at_ms", BigInteger),
        Column("created_at_ms", BigInteger, nullable=False),
        Column("reason", Text),  # why it was last run again
        Column("revived", Text, nullable=False, server_default=""),  # when it was run again, the last five, in ms
        CheckConstraint("state IN ('pending', 'done', 'dead')", name="outbox_state"),
        CheckConstraint("(state IN ('done', 'dead')) = (finished_at_ms IS NOT NULL)", name="outbox_finished"),
        CheckConstraint("state NOT IN ('done', 'dead') OR settled_claim = claim", name="outbox_settled"),
        CheckConstraint("settled_claim >= 0 AND settled_claim <= claim", name="outbox_claim"),
        CheckConstraint("tries_before >= 0 AND tries_before <= tries AND tries <= claim", name="outbox_tries_made"),
        CheckConstraint("due_at_ms > 0 AND created_at_ms > 0", name="outbox_times"),
        CheckConstraint("last_status BETWEEN 100 AND 999", name="outbox_last_status"),
        CheckConstraint("id <> '' AND topic <> ''", name="outbox_named"),
    )
    m = messages.c
    _partial("outbox_due", "state = 'pending' AND destination = ''", m.topic, m.due_at_ms)
    _partial("outbox_first", FIRST, m.topic, m.destination, m.due_at_ms)
    _partial("outbox_again", AGAIN, m.topic, m.destination, m.due_at_ms)
    _partial("outbox_flying", FLYING, m.topic, m.destination, m.due_at_ms)
    _partial("outbox_dead", "state = 'dead'", m.topic, m.id)
    _partial("outbox_destination", "destination <> ''", m.destination, m.created_at_ms)
    Index("outbox_subject", m.subject)

    tries = Table(
        "outbox_tries",
        metadata,
        Column("message_id", Text, ForeignKey("outbox_messages.id", ondelete="CASCADE"), primary_key=True),
        Column("number", Integer, primary_key=True),  # a gap: that try was claimed and never settled
        Column("started_at_ms", BigInteger, nullable=False),
        Column("duration_ms", BigInteger, nullable=False),
        Column("http_status", Integer),
        Column("error", Text),
        Column("head", LargeBinary, nullable=False),
        CheckConstraint("number >= 1", name="outbox_try_number"),
        CheckConstraint("duration_ms >= 0", name="outbox_try_duration"),
        CheckConstraint("http_status BETWEEN 100 AND 999", name="outbox_try_status"),
        CheckConstraint("length(head) <= 1024", name="outbox_try_head"),
        sqlite_with_rowid=False,
    )

    destinations = Table(
        "outbox_destinations",
        metadata,
        Column("topic", Text, primary_key=True),
        Column("destination", Text, primary_key=True),
        # Its turn: the earliest of what is owed to it, but no sooner than the end of its pause, and behind all that
        # came since it was last served. Never later than that; null while nothing is owed, or while it is held.
        Column("next_due_at_ms", BigInteger),
        Column("served_at_ms", BigInteger, nullable=False, server_default="0"),
        Column("paused_until_ms", BigInteger, nullable=False, server_default="0"),
        Column("held", Text),  # why nothing is sent there; what is owed waits
        Column("per_minute", Integer),  # the most tries; null: no limit
        Column("failures", Integer, nullable=False, server_default="0"),  # in a row
        Column("failing_since_ms", BigInteger),  # the first of them
        Column(
            "opened_ms", BigInteger, nullable=False, server_default="0"
        ),  # how long the circuit opened last; 0: closed
        Column("recent", Text, nullable=False, server_default=""),  # minute:tries:failures of the last minutes
        Column("troubled", Integer, nullable=False, server_default="0"),  # 1: its last try failed, or was slow
        CheckConstraint("next_due_at_ms IS NULL OR held IS NULL", name="outbox_held_waits"),
        CheckConstraint("per_minute > 0", name="outbox_per_minute"),
        CheckConstraint("(failures = 0) = (failing_since_ms IS NULL)", name="outbox_failing"),
        CheckConstraint("topic <> '' AND destination <> ''", name="outbox_destination_named"),
        sqlite_with_rowid=False,
    )
    d = destinations.c
    _partial("outbox_well", WELL, d.topic, d.next_due_at_ms)
    _partial("outbox_troubled", TROUBLED, d.topic, d.next_due_at_ms)
    return Tables(messages, tries, destinations)


def _partial(name: str, where: str, *columns: Column[Any]) -> None:
    Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))
