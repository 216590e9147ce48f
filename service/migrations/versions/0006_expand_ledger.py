"""The ledger, delayed payout with its beneficiaries and payouts, and the scheduler's jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them; what payments have moved so far is posted by the first start after it."""
    op.create_table(
        "jobs",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_due_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_done_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("paused_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("paused_by", sa.Text(), nullable=True),
        sa.CheckConstraint("name <> ''", name=op.f("ck_jobs_job_named")),
        sa.CheckConstraint("(paused_at_ms IS NULL) = (paused_by IS NULL)", name=op.f("ck_jobs_job_paused")),
        sa.CheckConstraint("last_due_at_ms >= since_ms", name=op.f("ck_jobs_job_times")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_jobs")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "ledger_checks",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("begun_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("sound", sa.Boolean(), nullable=False),
        sa.Column("looked", sa.Text(), nullable=False),
        sa.Column("problems", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_checks")),
    )
    op.create_table(
        "escrow_terms",
        sa.Column("merchant_id", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("release_hours", sa.Integer(), nullable=False),
        sa.Column("undelivered_days", sa.Integer(), nullable=False),
        sa.Column("payout_on_release", sa.Boolean(), nullable=False),
        sa.Column("approve_above", sa.Text(), nullable=False),
        sa.Column("timezone", sa.Text(), nullable=True),
        sa.Column("updated_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_escrow_terms_merchant_id")),
        sa.PrimaryKeyConstraint("merchant_id", name=op.f("pk_escrow_terms")),
    )
    op.create_table(
        "job_runs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("due_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("from_ms", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("begun_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("lease_until_ms", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("fence", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("deaths", sa.Integer(), server_default="0", nullable=False),
        sa.Column("missed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("manual", sa.Integer(), server_default="0", nullable=False),
        sa.Column("dry_run", sa.Integer(), server_default="0", nullable=False),
        sa.Column("actor", sa.Text(), server_default="", nullable=False),
        sa.Column("process", sa.Text(), server_default="", nullable=False),
        sa.Column("counters", sa.Text(), server_default="{}", nullable=False),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column("cursor", sa.Text(), server_default="", nullable=False),
        sa.CheckConstraint("(state = 'running') = (ended_at_ms IS NULL)", name=op.f("ck_job_runs_run_ended")),
        sa.CheckConstraint(
            "state IN ('running', 'done', 'failed', 'skipped', 'abandoned')", name=op.f("ck_job_runs_run_state")
        ),
        sa.CheckConstraint("fence >= 1 AND deaths >= 0 AND missed >= 0", name=op.f("ck_job_runs_run_numbers")),
        sa.CheckConstraint("from_ms <= due_at_ms AND due_at_ms > 0", name=op.f("ck_job_runs_run_times")),
        sa.CheckConstraint("length(error) <= 500", name=op.f("ck_job_runs_run_error")),
        sa.CheckConstraint("manual = 1 OR dry_run = 0", name=op.f("ck_job_runs_run_dry_by_hand")),
        sa.CheckConstraint("manual IN (0, 1) AND dry_run IN (0, 1)", name=op.f("ck_job_runs_run_flags")),
        sa.ForeignKeyConstraint(["job"], ["jobs.name"], name=op.f("fk_job_runs_job")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_runs")),
    )
    op.create_index(
        "job_runs_due",
        "job_runs",
        ["job", "due_at_ms"],
        unique=True,
        sqlite_where=sa.text("manual = 0"),
        postgresql_where=sa.text("manual = 0"),
    )
    op.create_index("job_runs_history", "job_runs", ["job", "due_at_ms", "id"], unique=False)
    op.create_index(
        "job_runs_running",
        "job_runs",
        ["job"],
        unique=True,
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_table(
        "ledger_accounts",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("merchant_id", sa.Text(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("debits_minor", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("credits_minor", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint(
            "debits_minor >= 0 AND credits_minor >= 0", name=op.f("ck_ledger_accounts_sums_not_negative")
        ),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_ledger_accounts_merchant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_accounts")),
        sa.UniqueConstraint(
            "owner", "kind", "live", "currency", name=op.f("uq_ledger_accounts_owner_kind_live_currency")
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_ledger_accounts_merchant_id", "ledger_accounts", ["merchant_id", "live"], unique=False)
    op.create_table(
        "beneficiaries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("merchant_id", sa.Text(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=True),
        sa.Column("link", sa.LargeBinary(), nullable=True),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_beneficiaries_account_id")),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_beneficiaries_merchant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_beneficiaries")),
        sa.UniqueConstraint(
            "merchant_id", "live", "reference", name=op.f("uq_beneficiaries_merchant_id_live_reference")
        ),
        sa.UniqueConstraint("link", name=op.f("uq_beneficiaries_link")),
    )
    op.create_index("ix_beneficiaries_merchant_id", "beneficiaries", ["merchant_id", "id"], unique=False)
    op.create_table(
        "differences",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("merchant_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("provider_reference", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payment_id", sa.Text(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("ours_minor", sa.BigInteger(), nullable=False),
        sa.Column("theirs_minor", sa.BigInteger(), nullable=False),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("found_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("closed_at_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_differences_account_id")),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_differences_merchant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_differences")),
        sa.UniqueConstraint(
            "account_id", "provider_reference", "kind", name=op.f("uq_differences_account_id_provider_reference_kind")
        ),
    )
    op.create_index("ix_differences_merchant_id", "differences", ["merchant_id", "day"], unique=False)
    op.create_table(
        "postings",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("debit_id", sa.Integer(), nullable=False),
        sa.Column("credit_id", sa.Integer(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("amount_minor > 0 AND debit_id <> credit_id", name=op.f("ck_postings_something_moves")),
        sa.ForeignKeyConstraint(["credit_id"], ["ledger_accounts.id"], name=op.f("fk_postings_credit_id")),
        sa.ForeignKeyConstraint(["debit_id"], ["ledger_accounts.id"], name=op.f("fk_postings_debit_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_postings")),
        sa.UniqueConstraint("subject", "number", name=op.f("uq_postings_subject_number")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_postings_credit_id", "postings", ["credit_id", "at_ms"], unique=False)
    op.create_index("ix_postings_debit_id", "postings", ["debit_id", "at_ms"], unique=False)
    op.create_table(
        "settlements",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("merchant_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("fee_minor", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("settled_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("amount_minor <> 0 AND fee_minor >= 0", name=op.f("ck_settlements_something_moves")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_settlements_account_id")),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_settlements_merchant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_settlements")),
        sa.UniqueConstraint("account_id", "reference", name=op.f("uq_settlements_account_id_reference")),
    )
    op.create_table(
        "holds",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("merchant_id", sa.Text(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("beneficiary_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("held_minor", sa.BigInteger(), nullable=False),
        sa.Column("released_minor", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("refunded_minor", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("frozen_minor", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("taken_back_minor", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("against", sa.Text(), server_default="", nullable=False),
        sa.Column("overruled", sa.Text(), server_default="", nullable=False),
        sa.Column("buyer", sa.LargeBinary(), nullable=True),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("delivered_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("release_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("ended_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.Integer(), server_default="0", nullable=False),
        sa.Column("sequence", sa.Integer(), server_default="0", nullable=False),
        sa.CheckConstraint(
            "held_minor > 0 AND released_minor >= 0 AND refunded_minor >= 0 AND frozen_minor >= 0 "
            "AND released_minor + refunded_minor + frozen_minor <= held_minor "
            "AND taken_back_minor >= 0 AND taken_back_minor <= released_minor",
            name=op.f("ck_holds_adds_up"),
        ),
        sa.ForeignKeyConstraint(["beneficiary_id"], ["beneficiaries.id"], name=op.f("fk_holds_beneficiary_id")),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_holds_merchant_id")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_holds_order_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_holds")),
        sa.UniqueConstraint("order_id", name=op.f("uq_holds_order_id")),
        sa.UniqueConstraint("buyer", name=op.f("uq_holds_buyer")),
    )
    op.create_index("ix_holds_beneficiary_id", "holds", ["beneficiary_id", "id"], unique=False)
    op.create_index("ix_holds_merchant_id", "holds", ["merchant_id", "id"], unique=False)
    op.create_index(
        "ix_holds_release_at_ms",
        "holds",
        ["release_at_ms"],
        unique=False,
        sqlite_where=sa.text("state = 'release_scheduled'"),
    )
    op.create_index(
        "ix_holds_undelivered", "holds", ["created_at_ms"], unique=False, sqlite_where=sa.text("state = 'held'")
    )
    op.create_table(
        "payees",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("beneficiary_id", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("country", sa.Text(), server_default="", nullable=False),
        sa.Column("operator", sa.Text(), server_default="", nullable=False),
        sa.Column("bank_code", sa.Text(), server_default="", nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("usable_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("approved_by", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["beneficiary_id"], ["beneficiaries.id"], name=op.f("fk_payees_beneficiary_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payees")),
    )
    op.create_index("ix_payees_beneficiary_id", "payees", ["beneficiary_id", "id"], unique=False)
    op.create_table(
        "payees_personal",
        sa.Column("payee_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column("number", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["payee_id"], ["payees.id"], name=op.f("fk_payees_personal_payee_id")),
        sa.PrimaryKeyConstraint("payee_id", name=op.f("pk_payees_personal")),
    )
    op.create_table(
        "payouts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("merchant_id", sa.Text(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("beneficiary_id", sa.Text(), nullable=True),
        sa.Column("payee_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("fee_minor", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("hold_id", sa.Text(), nullable=True),
        sa.Column("refund_id", sa.Text(), nullable=True),
        sa.Column("retry_of", sa.Text(), nullable=True),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("provider_reference", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("failure_reason", sa.Text(), nullable=True),
        sa.Column("waits_for", sa.Text(), server_default="", nullable=False),
        sa.Column("otp_wanted", sa.Boolean(), server_default="0", nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("approved_by", sa.Text(), nullable=True),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("sent_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("paid_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.Integer(), server_default="0", nullable=False),
        sa.Column("sequence", sa.Integer(), server_default="0", nullable=False),
        sa.CheckConstraint("amount_minor > 0 AND fee_minor >= 0", name=op.f("ck_payouts_something_is_paid")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_payouts_account_id")),
        sa.ForeignKeyConstraint(["beneficiary_id"], ["beneficiaries.id"], name=op.f("fk_payouts_beneficiary_id")),
        sa.ForeignKeyConstraint(["hold_id"], ["holds.id"], name=op.f("fk_payouts_hold_id")),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_payouts_merchant_id")),
        sa.ForeignKeyConstraint(["payee_id"], ["payees.id"], name=op.f("fk_payouts_payee_id")),
        sa.ForeignKeyConstraint(["refund_id"], ["refunds.id"], name=op.f("fk_payouts_refund_id")),
        sa.ForeignKeyConstraint(["retry_of"], ["payouts.id"], name=op.f("fk_payouts_retry_of")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payouts")),
        sa.UniqueConstraint("account_id", "reference", name=op.f("uq_payouts_account_id_reference")),
    )
    op.create_index("ix_payouts_beneficiary_id", "payouts", ["beneficiary_id", "id"], unique=False)
    op.create_index("ix_payouts_merchant_id", "payouts", ["merchant_id", "id"], unique=False)
    op.create_index("ix_payouts_provider_reference", "payouts", ["account_id", "provider_reference"], unique=False)
    op.create_index(
        "uq_payouts_hold_id",
        "payouts",
        ["hold_id"],
        unique=True,
        sqlite_where=sa.text("hold_id IS NOT NULL AND state NOT IN ('failed', 'canceled', 'returned')"),
    )
    op.create_index(
        "uq_payouts_refund_id",
        "payouts",
        ["refund_id"],
        unique=True,
        sqlite_where=sa.text("refund_id IS NOT NULL AND state NOT IN ('failed', 'canceled', 'returned')"),
    )
    op.create_table(
        "recipients",
        sa.Column("payee_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_recipients_account_id")),
        sa.ForeignKeyConstraint(["payee_id"], ["payees.id"], name=op.f("fk_recipients_payee_id")),
        sa.PrimaryKeyConstraint("payee_id", "account_id", name=op.f("pk_recipients")),
    )
    op.create_index(
        "ix_attempts_live",
        "attempts",
        ["id"],
        unique=False,
        sqlite_where=sa.text(
            "reference IS NOT NULL AND state IN ('authorized', 'canceling', 'created', 'pending', 'requires_action', "
            "'submitting', 'unknown')"
        ),
    )
    op.add_column("orders", sa.Column("beneficiary_id", sa.Text(), nullable=True))
    op.create_index(
        "ix_orders_awaiting",
        "orders",
        ["expires_at_ms"],
        unique=False,
        sqlite_where=sa.text("state = 'awaiting_payment'"),
    )
    op.create_index(
        "ix_orders_expiring", "orders", ["ending_since_ms"], unique=False, sqlite_where=sa.text("state = 'expiring'")
    )
    op.create_index(
        "ix_sessions_going",
        "sessions",
        ["expires_at_ms"],
        unique=False,
        sqlite_where=sa.text("state IN ('open', 'processing')"),
    )
