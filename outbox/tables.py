"""The two tables: what we owe, and each try at it."""

from __future__ import annotations

from typing import NamedTuple

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


class Tables(NamedTuple):
    messages: Table
    tries: Table


def define(metadata: MetaData) -> Tables:
    """
    Adds `outbox_messages` and `outbox_tries` to the metadata. All times are integer ms UTC.

    A message has no running state: it runs while `claim > settled_claim` and `due_at_ms` (the end of its lease)
    is to come. Every index is paid for by each message several times over, so there are few: those that are due,
    those that rest (rare, so almost free), and one each to list by subject and by destination.
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
        Column("reason", Text),  # why it is held, or why it was last run again
        Column("revived", Text, nullable=False, server_default=""),  # when it was run again, the last five, in ms
        CheckConstraint("state IN ('pending', 'held', 'done', 'dead')", name="outbox_state"),
        CheckConstraint("(state IN ('done', 'dead')) = (finished_at_ms IS NOT NULL)", name="outbox_finished"),
        CheckConstraint("state NOT IN ('done', 'dead') OR settled_claim = claim", name="outbox_settled"),
        CheckConstraint("settled_claim >= 0 AND settled_claim <= claim", name="outbox_claim"),
        CheckConstraint("tries_before >= 0 AND tries_before <= tries AND tries <= claim", name="outbox_tries_made"),
        CheckConstraint("due_at_ms > 0 AND created_at_ms > 0", name="outbox_times"),
        CheckConstraint("last_status BETWEEN 100 AND 999", name="outbox_last_status"),
        CheckConstraint("id <> '' AND topic <> ''", name="outbox_named"),
    )
    pending = text("state = 'pending'")
    Index("outbox_due", messages.c.topic, messages.c.due_at_ms, sqlite_where=pending, postgresql_where=pending)
    resting = text("state IN ('held', 'dead')")
    Index(
        "outbox_resting",
        messages.c.topic,
        messages.c.state,
        messages.c.destination,
        sqlite_where=resting,
        postgresql_where=resting,
    )
    Index("outbox_subject", messages.c.subject)
    Index("outbox_destination", messages.c.destination, messages.c.created_at_ms)

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
    return Tables(messages, tries)
