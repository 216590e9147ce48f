"""What a merchant has decided about paying out, beneficiaries and where their money goes, holds, payouts."""

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

escrow_terms = Table(
    "escrow_terms",
    metadata,
    # A merchant without a row has the defaults of `terms.Terms`.
    Column("merchant_id", Text, ForeignKey("merchants.id"), primary_key=True),
    Column("enabled", Boolean, nullable=False),
    Column("release_hours", Integer, nullable=False),
    Column("undelivered_days", Integer, nullable=False),
    Column("payout_on_release", Boolean, nullable=False),
    Column("approve_above", Text, nullable=False),  # JSON: currency → minor units
    Column("timezone", Text),  # null: the installation's
    milliseconds("updated_at_ms"),
)

beneficiaries = Table(
    "beneficiaries",
    metadata,
    identifier(),  # ben_…
    Column("merchant_id", Text, ForeignKey("merchants.id"), nullable=False),
    Column("live", Boolean, nullable=False),
    Column("reference", Text),  # the merchant's own
    Column("currency", Text, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("account_id", Text, ForeignKey("accounts.id")),  # the provider account that pays them; null: who can
    Column("link", LargeBinary, unique=True),  # SHA-256 of the token of their read-only page
    milliseconds("created_at_ms"),
    milliseconds("updated_at_ms"),
    Index("ix_beneficiaries_merchant_id", "merchant_id", "id"),
    UniqueConstraint("merchant_id", "live", "reference"),
)

payees = Table(
    "payees",
    metadata,
    # Where the money of a beneficiary goes: the newest counts. Never changed, only followed by another.
    identifier(),  # pye_…
    Column("beneficiary_id", Text, ForeignKey("beneficiaries.id")),  # null: a payer, of a refund by payout
    Column("kind", Text, nullable=False),  # mobile_money | bank | account
    Column("currency", Text, nullable=False),
    Column("country", Text, nullable=False, server_default=""),
    Column("operator", Text, nullable=False, server_default=""),
    Column("bank_code", Text, nullable=False, server_default=""),
    Column("actor", Text, nullable=False),  # who has set it
    milliseconds("created_at_ms"),
    milliseconds("usable_at_ms"),
    Column("approved_by", Text),  # a second person, who let it be used at once
    Index("ix_payees_beneficiary_id", "beneficiary_id", "id"),
)

payees_personal = Table(
    "payees_personal",
    metadata,
    # Personal data, apart, so that it can be erased for one person.
    Column("payee_id", Text, ForeignKey("payees.id"), primary_key=True),
    Column("name", Text, nullable=False, server_default=""),
    Column("number", Text, nullable=False, server_default=""),  # E.164 of a wallet, or the number of an account
)

recipients = Table(
    "recipients",
    metadata,
    # What a provider account calls a payee, so that it is made there once (Paystack's RCP_…).
    Column("payee_id", Text, ForeignKey("payees.id"), nullable=False),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("recipient", Text, nullable=False),
    PrimaryKeyConstraint("payee_id", "account_id"),
)

holds = Table(
    "holds",
    metadata,
    identifier(),  # hold_…
    Column("merchant_id", Text, ForeignKey("merchants.id"), nullable=False),
    Column("live", Boolean, nullable=False),
    Column("order_id", Text, ForeignKey("orders.id"), nullable=False, unique=True),  # never a second one
    Column("beneficiary_id", Text, ForeignKey("beneficiaries.id"), nullable=False),
    Column("state", Text, nullable=False),  # states.Hold
    Column("currency", Text, nullable=False),
    Column("held_minor", BigInteger, nullable=False),  # in all, at the beginning; never changed
    Column("released_minor", BigInteger, nullable=False, server_default="0"),
    Column("refunded_minor", BigInteger, nullable=False, server_default="0"),  # before the release
    Column("frozen_minor", BigInteger, nullable=False, server_default="0"),
    Column("taken_back_minor", BigInteger, nullable=False, server_default="0"),  # after the release
    Column("against", Text, nullable=False, server_default=""),  # sorted, comma-separated: why it is frozen
    Column("overruled", Text, nullable=False, server_default=""),  # JSON: causes that a person has set aside
    Column("buyer", LargeBinary, unique=True),  # SHA-256 of the buyer's token
    milliseconds("created_at_ms"),
    milliseconds("updated_at_ms"),
    milliseconds("delivered_at_ms", nullable=True),
    milliseconds("release_at_ms", nullable=True),  # when it is due by the clock
    milliseconds("ended_at_ms", nullable=True),
    counter("version"),
    counter("sequence"),
    CheckConstraint(
        "held_minor > 0 AND released_minor >= 0 AND refunded_minor >= 0 AND frozen_minor >= 0 "
        "AND released_minor + refunded_minor + frozen_minor <= held_minor "
        "AND taken_back_minor >= 0 AND taken_back_minor <= released_minor",
        name="adds_up",
    ),
    Index("ix_holds_merchant_id", "merchant_id", "id"),
    Index("ix_holds_beneficiary_id", "beneficiary_id", "id"),
    # What the clock looks for: few rows of many.
    Index("ix_holds_release_at_ms", "release_at_ms", sqlite_where=text("state = 'release_scheduled'")),
    Index("ix_holds_undelivered", "created_at_ms", sqlite_where=text("state = 'held'")),
)

payouts = Table(
    "payouts",
    metadata,
    identifier(),  # po_…
    Column("merchant_id", Text, ForeignKey("merchants.id"), nullable=False),
    Column("live", Boolean, nullable=False),
    Column("source", Text, nullable=False),  # beneficiary | merchant: whose balance pays it; refund: the payment's
    Column("beneficiary_id", Text, ForeignKey("beneficiaries.id")),  # null: a refund
    Column("payee_id", Text, ForeignKey("payees.id"), nullable=False),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("provider", Text, nullable=False),
    Column("state", Text, nullable=False),  # states.Payout
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("fee_minor", BigInteger, nullable=False, server_default="0"),
    Column("hold_id", Text, ForeignKey("holds.id")),
    Column("refund_id", Text, ForeignKey("refunds.id")),  # the refund that is made by it
    Column("retry_of", Text, ForeignKey("payouts.id")),
    Column("reference", Text, nullable=False),  # ours at the provider: one for ever
    Column("provider_reference", Text),  # theirs
    Column("description", Text, nullable=False, server_default=""),
    Column("failure_reason", Text),
    Column(
        "waits_for", Text, nullable=False, server_default=""
    ),  # why a queued one is not sent: float | payee | ledger
    Column("otp_wanted", Boolean, nullable=False, server_default="0"),
    Column("actor", Text, nullable=False),
    Column("approved_by", Text),
    milliseconds("created_at_ms"),
    milliseconds("updated_at_ms"),
    milliseconds("sent_at_ms", nullable=True),  # the first time that it was about to be sent
    milliseconds("paid_at_ms", nullable=True),
    counter("version"),
    counter("sequence"),
    UniqueConstraint("account_id", "reference"),
    CheckConstraint("amount_minor > 0 AND fee_minor >= 0", name="something_is_paid"),
    Index("ix_payouts_merchant_id", "merchant_id", "id"),
    Index("ix_payouts_beneficiary_id", "beneficiary_id", "id"),
    Index("ix_payouts_provider_reference", "account_id", "provider_reference"),
    # One payout at a time, and never a second that was paid, for one hold.
    Index(
        "uq_payouts_hold_id",
        "hold_id",
        unique=True,
        sqlite_where=text("hold_id IS NOT NULL AND state NOT IN ('failed', 'canceled', 'returned')"),
    ),
    Index(
        "uq_payouts_refund_id",
        "refund_id",
        unique=True,
        sqlite_where=text("refund_id IS NOT NULL AND state NOT IN ('failed', 'canceled', 'returned')"),
    ),
)
