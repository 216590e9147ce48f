"""Payments, their attempts at providers, what was told about them, and the names they go by."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

from service.schema import counter, identifier, metadata, milliseconds

payments = Table(
    "payments",
    metadata,
    identifier(),
    Column("merchant_id", Text, ForeignKey("merchants.id"), nullable=False),
    Column("origin", Text, nullable=False),  # caisse | external
    Column("live", Boolean, nullable=False),
    Column("status", Text, nullable=False),
    Column("exceptions", Text, nullable=False, server_default=""),  # sorted, comma-separated
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("captured_minor", BigInteger, nullable=False, server_default="0"),
    Column("refunded_minor", BigInteger, nullable=False, server_default="0"),
    Column("fee_minor", BigInteger),
    Column("provider", Text, nullable=False),
    Column("provider_reference", Text),
    Column("method", Text),
    Column("reference", Text),
    Column("order_id", Text),
    Column("metadata", Text, nullable=False, server_default="{}"),
    Column("failure_reason", Text),
    milliseconds("created_at_ms"),
    milliseconds("updated_at_ms"),
    milliseconds("paid_at_ms", nullable=True),
    counter("version"),
    counter("sequence"),  # of the last event told
    Column("merged_into", Text),
    CheckConstraint("amount_minor >= 0 AND captured_minor >= 0 AND refunded_minor >= 0", name="amounts_not_negative"),
    CheckConstraint("length(currency) = 3", name="currency_is_iso"),
    Index("ix_payments_merchant_id", "merchant_id", "id"),
)

attempts = Table(
    "attempts",
    metadata,
    identifier(),
    Column("payment_id", Text, ForeignKey("payments.id"), nullable=False, index=True),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("provider", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    milliseconds("created_at_ms"),
    milliseconds("updated_at_ms"),
)

facts = Table(
    "facts",
    metadata,
    Column("attempt_id", Text, ForeignKey("attempts.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("movement", Text, nullable=False),
    milliseconds("at_ms"),
    Column("amount_minor", BigInteger),
    Column("asked_minor", BigInteger),
    Column("currency", Text),
    Column("fee_minor", BigInteger),
    Column("method", Text),
    Column("reason", Text),
    Column("source", Text, nullable=False),
    Column("callback_id", Text),  # the first that told it
    Column("seen_count", Integer, nullable=False, server_default="1"),
    milliseconds("told_at_ms"),
    # A money movement is also an alias of its attempt, so that no two attempts of an account can hold the same one.
    PrimaryKeyConstraint("attempt_id", "kind", "movement"),
)

aliases = Table(
    "aliases",
    metadata,
    Column("account_id", Text, nullable=False),
    Column("reference", Text, nullable=False),
    Column("attempt_id", Text, ForeignKey("attempts.id"), nullable=False, index=True),
    PrimaryKeyConstraint("reference", "account_id"),  # reference first: looked up by it alone
)

attention = Table(
    "attention",
    metadata,
    identifier(),
    Column("subject", Text, nullable=False),  # a payment's or a callback's id
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False, server_default=""),
    milliseconds("opened_at_ms"),
    milliseconds("closed_at_ms", nullable=True),
    UniqueConstraint("subject", "reason"),
)
