"""The ledger: accounts with their totals, and postings, which are written once and never changed."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, ForeignKey, Index, Integer, Table, Text
from sqlalchemy import UniqueConstraint as Unique

from service.schema import identifier, metadata, milliseconds

ledger_accounts = Table(
    "ledger_accounts",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),  # ledger.Kind
    Column("owner", Text, nullable=False),  # a provider account's, a merchant's or a beneficiary's id
    Column("merchant_id", Text, ForeignKey("merchants.id"), nullable=False),
    Column("live", Boolean, nullable=False),
    Column("currency", Text, nullable=False),
    # The sums of all postings, kept up in the transaction that posts: both only grow.
    Column("debits_minor", BigInteger, nullable=False, server_default="0"),
    Column("credits_minor", BigInteger, nullable=False, server_default="0"),
    Unique("owner", "kind", "live", "currency"),
    CheckConstraint("debits_minor >= 0 AND credits_minor >= 0", name="sums_not_negative"),
    Index("ix_ledger_accounts_merchant_id", "merchant_id", "live"),
    sqlite_autoincrement=True,
)

postings = Table(
    "postings",
    metadata,
    # One row takes an amount from one account to another, so no set of rows can be out of balance.
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("subject", Text, nullable=False),  # whose state it follows: a payment's, hold's, payout's, settlement's id
    Column("number", Integer, nullable=False),  # of this subject's postings: two writers cannot both post the next
    Column("kind", Text, nullable=False),  # ledger.Entry
    Column("debit_id", Integer, ForeignKey("ledger_accounts.id"), nullable=False),
    Column("credit_id", Integer, ForeignKey("ledger_accounts.id"), nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    milliseconds("at_ms"),
    Unique("subject", "number"),
    CheckConstraint("amount_minor > 0 AND debit_id <> credit_id", name="something_moves"),
    Index("ix_postings_debit_id", "debit_id", "at_ms"),
    Index("ix_postings_credit_id", "credit_id", "at_ms"),
    sqlite_autoincrement=True,
)

settlements = Table(
    "settlements",
    metadata,
    identifier(),  # stl_…
    Column("merchant_id", Text, ForeignKey("merchants.id"), nullable=False),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("live", Boolean, nullable=False),
    Column("currency", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),  # below 0: the bank has topped the float up
    Column("fee_minor", BigInteger, nullable=False, server_default="0"),
    Column("reference", Text, nullable=False),  # the provider's or the bank's: recorded once
    Column("note", Text, nullable=False, server_default=""),
    Column("actor", Text, nullable=False),
    milliseconds("settled_at_ms"),  # when the money moved, as far as whoever recorded it knows
    milliseconds("created_at_ms"),
    Unique("account_id", "reference"),
    CheckConstraint("amount_minor <> 0 AND fee_minor >= 0", name="something_moves"),
)

ledger_checks = Table(
    "ledger_checks",
    metadata,
    # What `verify` found, each time. While the newest says that something is wrong, nothing is paid out.
    identifier(),  # chk_…
    milliseconds("begun_at_ms"),
    milliseconds("ended_at_ms"),
    Column("sound", Boolean, nullable=False),
    Column("looked", Text, nullable=False),  # JSON: what was looked at, and how many
    Column("problems", Text, nullable=False),  # JSON: the first of them, one sentence each
    Column("actor", Text, nullable=False),
)

differences = Table(
    "differences",
    metadata,
    # Between what a provider lists and what is known here: one row for each payment and kind, found again or settled.
    identifier(),  # dif_…
    Column("merchant_id", Text, ForeignKey("merchants.id"), nullable=False),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("live", Boolean, nullable=False),
    Column("provider", Text, nullable=False),
    Column("provider_reference", Text, nullable=False),
    Column("kind", Text, nullable=False),  # missing_here | missing_there | amount | status
    Column("payment_id", Text),
    Column("currency", Text, nullable=False),
    Column("ours_minor", BigInteger, nullable=False),
    Column("theirs_minor", BigInteger, nullable=False),
    Column("detail", Text, nullable=False, server_default=""),
    Column("day", Text, nullable=False),  # YYYY-MM-DD, in the merchant's time zone, of the money
    milliseconds("found_at_ms"),
    milliseconds("closed_at_ms", nullable=True),
    Unique("account_id", "provider_reference", "kind"),
    Index("ix_differences_merchant_id", "merchant_id", "day"),
)
