"""
The one MetaData. Tables live with the subject that owns them; this module only lets them meet.

Times are integer milliseconds UTC, money integer minor units, ids prefixed text that sorts by time.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, MetaData, Text

import outbox.tables
import scheduler.tables

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

outbox_tables = outbox.tables.define(metadata)
scheduler_tables = scheduler.tables.define(metadata)


def identifier(name: str = "id") -> Column[str]:
    """A primary key made by `service.ids`."""
    return Column(name, Text, primary_key=True)


def milliseconds(name: str, nullable: bool = False) -> Column[int]:
    """A point in time: integer milliseconds UTC."""
    return Column(name, BigInteger, nullable=nullable)


def counter(name: str, default: int = 0) -> Column[int]:
    """A number that only grows."""
    return Column(name, Integer, nullable=False, default=default, server_default=str(default))
