"""Whom the outbox owes what, recovery jobs, warnings of failing endpoints, and the marks of retention and erasure."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them, and bring what is owed under its destination: a held message becomes a held destination."""
    op.create_table(
        "outbox_destinations",
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("next_due_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("served_at_ms", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("paused_until_ms", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("held", sa.Text(), nullable=True),
        sa.Column("per_minute", sa.Integer(), nullable=True),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failing_since_ms", sa.BigInteger(), nullable=True),
        sa.Column("opened_ms", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("recent", sa.Text(), server_default="", nullable=False),
        sa.Column("troubled", sa.Integer(), server_default="0", nullable=False),
        sa.CheckConstraint(
            "next_due_at_ms IS NULL OR held IS NULL", name=op.f("ck_outbox_destinations_outbox_held_waits")
        ),
        sa.CheckConstraint("per_minute > 0", name=op.f("ck_outbox_destinations_outbox_per_minute")),
        sa.CheckConstraint(
            "(failures = 0) = (failing_since_ms IS NULL)", name=op.f("ck_outbox_destinations_outbox_failing")
        ),
        sa.CheckConstraint(
            "topic <> '' AND destination <> ''", name=op.f("ck_outbox_destinations_outbox_destination_named")
        ),
        sa.PrimaryKeyConstraint("topic", "destination", name=op.f("pk_outbox_destinations")),
        sqlite_with_rowid=False,
    )
    # A callback is owed to nobody: its account is in its row.
    op.execute("UPDATE outbox_messages SET destination = '' WHERE topic NOT IN ('webhook', 'ask')")
    op.execute(
        "INSERT INTO outbox_destinations (topic, destination, next_due_at_ms) "
        "SELECT topic, destination, min(due_at_ms) FROM outbox_messages "
        "WHERE state = 'pending' AND destination <> '' GROUP BY topic, destination"
    )
    # What an endpoint was not to get when it was enabled again stays kept: as failed, so that it can be recovered.
    op.execute(
        "UPDATE outbox_messages SET state = 'dead', settled_claim = claim, last_error = 'given_up_when_enabled', "
        "finished_at_ms = coalesce(last_try_at_ms, created_at_ms) "
        "WHERE state = 'held' AND destination IN (SELECT id FROM endpoints WHERE status = 'enabled')"
    )
    op.execute(
        "INSERT INTO outbox_destinations (topic, destination, held) "
        "SELECT topic, destination, max(coalesce(reason, 'held')) FROM outbox_messages WHERE state = 'held' "
        "GROUP BY topic, destination "
        "ON CONFLICT (topic, destination) DO UPDATE SET held = excluded.held, next_due_at_ms = NULL"
    )
    op.execute("UPDATE outbox_messages SET state = 'pending', reason = NULL WHERE state = 'held'")
    # A disabled endpoint is held from now on, whether it was owed anything or not.
    op.execute(
        "INSERT INTO outbox_destinations (topic, destination, held) "
        "SELECT 'webhook', id, coalesce(disabled_reason, 'disabled') FROM endpoints WHERE status = 'disabled' "
        "ON CONFLICT (topic, destination) DO UPDATE SET held = excluded.held, next_due_at_ms = NULL"
    )

    for name in ("outbox_due", "outbox_resting", "outbox_destination", "outbox_subject"):
        op.drop_index(name, "outbox_messages")
    with op.batch_alter_table("outbox_messages", recreate="always") as batch:
        batch.drop_constraint(op.f("ck_outbox_messages_outbox_state"), type_="check")
        batch.create_check_constraint(op.f("ck_outbox_messages_outbox_state"), "state IN ('pending', 'done', 'dead')")
    _partial("outbox_due", "outbox_messages", ["topic", "due_at_ms"], "state = 'pending' AND destination = ''")
    owed = ["topic", "destination", "due_at_ms"]
    _partial("outbox_first", "outbox_messages", owed, "state = 'pending' AND destination <> '' AND tries = 0")
    _partial("outbox_again", "outbox_messages", owed, "state = 'pending' AND destination <> '' AND tries > 0")
    _partial("outbox_flying", "outbox_messages", owed, "destination <> '' AND claim > settled_claim")
    _partial("outbox_dead", "outbox_messages", ["topic", "id"], "state = 'dead'")
    _partial("outbox_destination", "outbox_messages", ["destination", "created_at_ms"], "destination <> ''")
    op.create_index("outbox_subject", "outbox_messages", ["subject"])
    turn = ["topic", "next_due_at_ms"]
    _partial("outbox_well", "outbox_destinations", turn, "next_due_at_ms IS NOT NULL AND troubled = 0")
    _partial("outbox_troubled", "outbox_destinations", turn, "next_due_at_ms IS NOT NULL AND troubled = 1")

    op.create_table(
        "recoveries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("merchant_id", sa.Text(), nullable=True),
        sa.Column("endpoint_id", sa.Text(), nullable=True),
        sa.Column("type", sa.Text(), nullable=True),
        sa.Column("payment_id", sa.Text(), nullable=True),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        sa.Column("per_minute", sa.Integer(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("trouble", sa.Text(), server_default="", nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("cursor", sa.Text(), server_default="", nullable=False),
        sa.Column("piece", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("looked", sa.Integer(), server_default="0", nullable=False),
        sa.Column("sent", sa.Integer(), server_default="0", nullable=False),
        sa.Column("hurried", sa.Integer(), server_default="0", nullable=False),
        sa.Column("skipped", sa.Integer(), server_default="0", nullable=False),
        sa.Column("disabled", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("finished_at_ms", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "status IN ('running', 'paused', 'finished', 'canceled')", name=op.f("ck_recoveries_status_known")
        ),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_recoveries_merchant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recoveries")),
    )
    op.add_column("endpoints", sa.Column("failing_since_ms", sa.BigInteger(), nullable=True))
    op.add_column("endpoints", sa.Column("warnings", sa.Integer(), server_default="0", nullable=False))
    op.add_column("endpoints", sa.Column("warned_at_ms", sa.BigInteger(), nullable=True))
    op.add_column("events", sa.Column("live", sa.Boolean(), server_default="1", nullable=False))
    op.execute("UPDATE events SET live = 0 WHERE payment_id IN (SELECT id FROM payments WHERE live = 0)")
    op.execute(
        "UPDATE events SET live = 0 WHERE callback_id IN ("
        "SELECT c.id FROM callbacks AS c JOIN accounts AS a ON a.id = c.account_id WHERE a.live = 0)"
    )
    op.create_index(op.f("ix_events_merchant_id"), "events", ["merchant_id", "position"])
    op.add_column("callbacks", sa.Column("erased_at_ms", sa.BigInteger(), nullable=True))


def _partial(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
