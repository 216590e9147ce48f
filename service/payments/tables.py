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
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
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
    # Of payments that caisse itself asks for; null on adopted ones.
    Column("description", Text),
    Column("country", Text),  # ISO 3166-1, upper case; empty: nobody knows
    Column("operator", Text),  # as the payer chose it; empty: at the provider
    Column("return_url", Text),
    Column("session_id", Text, index=True),
    Column("wish", Text),  # JSON of what else was asked for (`legs.row_of`): the chain, embedded, locale
    Column("explanation", Text),  # JSON of routing.Choice.explained()
    milliseconds("ended_at_ms", nullable=True),  # when its order or session had ended: a later capture is late
    CheckConstraint("amount_minor >= 0 AND captured_minor >= 0 AND refunded_minor >= 0", name="amounts_not_negative"),
    CheckConstraint("length(currency) = 3", name="currency_is_iso"),
    Index("ix_payments_merchant_id", "merchant_id", "id"),
)

OURS_AND_LIVE = (
    "reference IS NOT NULL AND "
    "state IN ('authorized', 'canceling', 'created', 'pending', 'requires_action', 'submitting', 'unknown')"
)
"""Attempts that caisse made and that have no end: few of many. A query finds them by these very words."""

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
    # Of attempts that caisse itself makes; null on adopted ones.
    Column("reference", Text),  # ours, at the provider
    Column("provider_reference", Text),  # theirs, the one that a person would look up
    Column("key", Text),  # idempotency key
    Column("channel", Text),  # JSON of the channel that it goes through
    Column("action", Text),  # JSON of what the payer has to do, the latest the provider asked for
    Column("reason", Text),  # why it ended, in our words, beside what the facts say
    counter("otp_tries"),
    milliseconds("asked_at_ms", nullable=True),  # the last time the provider was asked
    Index("ix_attempts_live", "id", sqlite_where=text(OURS_AND_LIVE)),
)

decisions = Table(
    "decisions",
    metadata,
    Column("attempt_id", Text, ForeignKey("attempts.id"), nullable=False),
    Column("step", Text, nullable=False),  # states.Step
    milliseconds("at_ms"),
    Column("actor", Text, nullable=False, server_default=""),  # of an operator's
    Column("reason", Text, nullable=False, server_default=""),
    PrimaryKeyConstraint("attempt_id", "step", "at_ms"),
)

payers = Table(
    "payers",
    metadata,
    # Personal data, apart from what is append-only, so that it can be erased for one person.
    Column("payment_id", Text, ForeignKey("payments.id"), primary_key=True),
    Column("name", Text, nullable=False, server_default=""),
    Column("email", Text, nullable=False, server_default=""),
    Column("phone", Text, nullable=False, server_default=""),  # the customer's, E.164
    Column("payer_phone", Text, nullable=False, server_default=""),  # the wallet's, E.164
)

refunds = Table(
    "refunds",
    metadata,
    identifier(),  # rf_…; also its idempotency key at the provider
    Column("payment_id", Text, ForeignKey("payments.id"), nullable=False, index=True),
    Column("attempt_id", Text, ForeignKey("attempts.id"), nullable=False),
    Column("origin", Text, nullable=False),  # caisse | external
    Column("state", Text, nullable=False),  # states.RefundState
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("manual", Boolean, nullable=False),  # an operator has to do it at the provider
    Column("provider_reference", Text),
    Column("reason", Text, nullable=False, server_default=""),  # why it is wanted, in the merchant's words
    Column("failure_reason", Text),
    Column("actor", Text, nullable=False),
    milliseconds("created_at_ms"),
    milliseconds("updated_at_ms"),
    counter("version"),
    CheckConstraint("amount_minor > 0", name="something_goes_back"),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("merchant_id", Text, nullable=False),
    Column("live", Boolean, nullable=False),
    Column("key", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),  # SHA-256 of method, path and body
    Column("subject", Text),  # what it made, known from the commit that made it on
    Column("status", Integer),  # null: not answered yet
    Column("answer", LargeBinary),
    milliseconds("begun_at_ms"),
    PrimaryKeyConstraint("merchant_id", "live", "key"),
    Index("ix_idempotency_begun_at_ms", "begun_at_ms"),
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
    Index("ix_attention_open", "opened_at_ms", sqlite_where=text("closed_at_ms IS NULL")),
)
