"""Payments that caisse itself asks for: attempts with references, decisions, payers, refunds, idempotency keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_PAYMENTS = ("description", "country", "operator", "return_url", "session_id", "wish", "explanation")
_ATTEMPTS = ("reference", "provider_reference", "key", "channel", "action", "reason")


def upgrade() -> None:
    """Add them; adopted payments have none of it."""
    for name in _PAYMENTS:
        op.add_column("payments", sa.Column(name, sa.Text(), nullable=True))
    op.add_column("payments", sa.Column("ended_at_ms", sa.BigInteger(), nullable=True))
    op.create_index(op.f("ix_payments_session_id"), "payments", ["session_id"])
    for name in _ATTEMPTS:
        op.add_column("attempts", sa.Column(name, sa.Text(), nullable=True))
    op.add_column("attempts", sa.Column("otp_tries", sa.Integer(), server_default="0", nullable=False))
    op.add_column("attempts", sa.Column("asked_at_ms", sa.BigInteger(), nullable=True))
    op.create_table(
        "decisions",
        sa.Column("attempt_id", sa.Text(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), server_default="", nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name=op.f("fk_decisions_attempt_id")),
        sa.PrimaryKeyConstraint("attempt_id", "step", "at_ms", name=op.f("pk_decisions")),
    )
    op.create_table(
        "payers",
        sa.Column("payment_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column("email", sa.Text(), server_default="", nullable=False),
        sa.Column("phone", sa.Text(), server_default="", nullable=False),
        sa.Column("payer_phone", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_payers_payment_id")),
        sa.PrimaryKeyConstraint("payment_id", name=op.f("pk_payers")),
    )
    op.create_table(
        "refunds",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("payment_id", sa.Text(), nullable=False),
        sa.Column("attempt_id", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("manual", sa.Boolean(), nullable=False),
        sa.Column("provider_reference", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("failure_reason", sa.Text(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), server_default="0", nullable=False),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_refunds_something_goes_back")),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name=op.f("fk_refunds_attempt_id")),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_refunds_payment_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refunds")),
    )
    op.create_index(op.f("ix_refunds_payment_id"), "refunds", ["payment_id"])
    op.create_table(
        "idempotency",
        sa.Column("merchant_id", sa.Text(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("answer", sa.LargeBinary(), nullable=True),
        sa.Column("begun_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("merchant_id", "live", "key", name=op.f("pk_idempotency")),
    )
    op.create_index(op.f("ix_idempotency_begun_at_ms"), "idempotency", ["begun_at_ms"])
    op.create_index(
        op.f("ix_attention_open"), "attention", ["opened_at_ms"], sqlite_where=sa.text("closed_at_ms IS NULL")
    )
