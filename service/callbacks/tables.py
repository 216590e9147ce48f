"""What providers sent us: kept callbacks, what deferred ones wait for, and the quarantine of the unverified."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from service.schema import identifier, metadata, milliseconds

callbacks = Table(
    "callbacks",
    metadata,
    identifier(),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("key", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("kind", Text, nullable=False),  # the provider's own event type
    Column("status", Text, nullable=False),
    Column("reason", Text),
    Column("method", Text, nullable=False),
    Column("query", LargeBinary, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("body_sha256", LargeBinary, nullable=False),  # of the raw body, before redaction
    milliseconds("received_at_ms"),
    Column("seen_count", Integer, nullable=False, server_default="1"),
    milliseconds("last_seen_at_ms"),
    milliseconds("finished_at_ms", nullable=True),
    milliseconds("deferred_until_ms", nullable=True),
    Column("runs", Integer, nullable=False, server_default="0"),  # how often it was worked on again
    Column("payment_id", Text),
    milliseconds("erased_at_ms", nullable=True),  # body and query are gone: too old, or a person asked for it
    UniqueConstraint("account_id", "key"),
    CheckConstraint(
        "status IN ('received', 'processed', 'ignored', 'parked', 'deferred', 'dead')", name="status_known"
    ),
    # Small: only what a person may have to look at.
    Index(
        "ix_callbacks_open", "status", "received_at_ms", sqlite_where=text("status IN ('parked', 'deferred', 'dead')")
    ),
    Index("ix_callbacks_payment_id", "payment_id", sqlite_where=text("payment_id IS NOT NULL")),
)

waits = Table(
    "callback_waits",
    metadata,
    Column("account_id", Text, nullable=False),
    Column("reference", Text, nullable=False),  # "" : waits for the account to get a merchant
    Column("callback_id", Text, ForeignKey("callbacks.id"), nullable=False),
    PrimaryKeyConstraint("reference", "account_id", "callback_id"),
)

quarantine = Table(
    "quarantine",
    metadata,
    identifier(),
    Column("account_id", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("headers", Text, nullable=False),  # JSON [[name, value]], latin-1, capped
    Column("query", LargeBinary, nullable=False),
    Column("body", LargeBinary, nullable=False),
    milliseconds("received_at_ms"),
)
