"""Merchants, their accounts at providers, their keys and endpoints, the events told to them, and the audit trail."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    text,
)

from service.schema import counter, identifier, metadata, milliseconds

merchants = Table(
    "merchants",
    metadata,
    identifier(),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),  # active | disabled
    milliseconds("created_at_ms"),
    CheckConstraint("status IN ('active', 'disabled')", name="status_known"),
)

accounts = Table(
    "accounts",
    metadata,
    identifier(),  # acc_<provider> for the default account, acc_<ulid> for stored ones
    Column("merchant_id", Text, ForeignKey("merchants.id")),  # NULL: no merchant exists yet
    Column("provider", Text, nullable=False),
    Column("name", Text, nullable=False, server_default=""),
    Column("live", Boolean, nullable=False),
    Column("origin", Text, nullable=False),  # settings | stored
    Column("status", Text, nullable=False, server_default="active"),
    Column("base_url", Text),
    Column("credentials", LargeBinary),  # sealed, bound to this row; NULL: from the settings
    milliseconds("created_at_ms"),
    CheckConstraint("status IN ('active', 'disabled')", name="status_known"),
    CheckConstraint("origin IN ('settings', 'stored')", name="origin_known"),
)

api_keys = Table(
    "api_keys",
    metadata,
    identifier(),
    Column("merchant_id", Text, ForeignKey("merchants.id"), nullable=False, index=True),
    Column("name", Text, nullable=False, server_default=""),
    Column("hash", LargeBinary, nullable=False, unique=True),  # SHA-256 of a key with 256 random bits
    Column("hint", Text, nullable=False),  # the last four characters, to tell keys apart
    Column("scopes", Text, nullable=False),  # comma-separated
    milliseconds("created_at_ms"),
    milliseconds("revoked_at_ms", nullable=True),
)

endpoints = Table(
    "endpoints",
    metadata,
    identifier(),
    Column("merchant_id", Text, ForeignKey("merchants.id"), nullable=False, index=True),
    Column("url", Text, nullable=False),
    Column(
        "events", Text, nullable=False, server_default="*"
    ),  # comma-separated types, or * for all but provider.event
    Column("status", Text, nullable=False),  # enabled | disabled
    Column("disabled_reason", Text),
    Column("schedule", Text, nullable=False, server_default="standard"),  # standard | short | seconds, comma-separated
    milliseconds("created_at_ms"),
    milliseconds("failing_since_ms", nullable=True),  # of the failures that were last warned of
    counter("warnings"),  # how many times since then
    milliseconds("warned_at_ms", nullable=True),
    CheckConstraint("status IN ('enabled', 'disabled')", name="status_known"),
)

endpoint_secrets = Table(
    "endpoint_secrets",
    metadata,
    identifier(),
    Column("endpoint_id", Text, ForeignKey("endpoints.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("secret", LargeBinary, nullable=False),  # sealed, bound to this row
    milliseconds("created_at_ms"),
    milliseconds("expires_at_ms", nullable=True),  # set when a newer one has taken over
)

events = Table(
    "events",
    metadata,
    # Given inside the committing transaction by the only writer, so its order is the order of commits.
    Column("position", Integer, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("merchant_id", Text, ForeignKey("merchants.id"), nullable=False),
    Column("type", Text, nullable=False),
    Column("payment_id", Text),
    Column("callback_id", Text),
    Column("sequence", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),  # the exact bytes that are signed and sent
    milliseconds("created_at_ms"),
    Column("live", Boolean, nullable=False, server_default="1"),  # test keys do not see live ones
    Index("ix_events_payment_id", "payment_id", sqlite_where=text("payment_id IS NOT NULL")),
    Index("ix_events_merchant_id", "merchant_id", "position"),
    sqlite_autoincrement=True,
)

audit = Table(
    "audit",
    metadata,
    identifier(),
    milliseconds("at_ms"),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Index("ix_audit_subject", "subject", "at_ms"),
)

installation = Table(
    "installation",
    metadata,
    Column("name", Text, primary_key=True),  # id | canary (sealed: proves the keys are the right ones)
    Column("value", LargeBinary, nullable=False),
)

recoveries = Table(
    "recoveries",
    metadata,
    identifier(),
    Column("merchant_id", Text, ForeignKey("merchants.id")),  # of these filters NULL means all
    Column("endpoint_id", Text),
    Column("type", Text),
    Column("payment_id", Text),
    milliseconds("since_ms"),
    Column("per_minute", Integer),  # NULL: as fast as the endpoints take them
    Column("status", Text, nullable=False),  # running | paused | finished | canceled
    Column("reason", Text, nullable=False, server_default=""),
    Column("trouble", Text, nullable=False, server_default=""),  # why it paused by itself
    Column("phase", Text, nullable=False),  # pauses, then failed, then waiting
    Column("cursor", Text, nullable=False, server_default=""),
    counter("piece"),  # the number of the message that goes on with it; any other does nothing
    milliseconds("next_at_ms"),  # the next free moment under `per_minute`
    Column("total", Integer, nullable=False),  # rows to look at, counted when it began: an estimate
    counter("looked"),
    counter("sent"),  # new deliveries
    counter("hurried"),  # that waited for a retry, and go now
    counter("skipped"),  # delivered since, or on their way
    counter("disabled"),  # to disabled endpoints
    milliseconds("created_at_ms"),
    milliseconds("updated_at_ms"),
    milliseconds("finished_at_ms", nullable=True),
    CheckConstraint("status IN ('running', 'paused', 'finished', 'canceled')", name="status_known"),
)
