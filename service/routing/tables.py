"""The routes: rules that say which providers a payment is offered to."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, ForeignKey, Integer, Table, Text

from service.schema import identifier, metadata, milliseconds

routes = Table(
    "routes",
    metadata,
    identifier(),  # rt_…
    Column("merchant_id", Text, ForeignKey("merchants.id")),  # NULL: every merchant's
    Column("priority", Integer, nullable=False),  # the lowest is looked at first
    Column("currency", Text, nullable=False, server_default=""),  # of these four: comma-separated, empty for any
    Column("country", Text, nullable=False, server_default=""),
    Column("method", Text, nullable=False, server_default=""),
    Column("operator", Text, nullable=False, server_default=""),
    Column("min_minor", BigInteger),
    Column("max_minor", BigInteger),
    Column("weight", Integer, nullable=False, server_default="1"),
    Column("providers", Text, nullable=False),  # JSON list of names or account ids, in order
    Column("soft_decline_failover", Boolean, nullable=False, server_default="0"),
    Column("enabled", Boolean, nullable=False, server_default="1"),
    Column("note", Text, nullable=False, server_default=""),
    Column("version", Integer, nullable=False, server_default="1"),  # grows with every change
    milliseconds("created_at_ms"),
    milliseconds("updated_at_ms"),
    CheckConstraint("weight > 0", name="weight_positive"),
)
