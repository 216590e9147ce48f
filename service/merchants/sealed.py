"""Every sealed column, for turning over the master keys."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Connection, Table, func, select, update

from service.callbacks.tables import quarantine
from service.merchants.tables import accounts, endpoint_secrets, installation
from service.seal import PREFIX_BYTES, Seal, bound_to

BATCH = 100
CANARY = "canary"

SEALED: tuple[tuple[Table, Column[Any], Column[Any]], ...] = (
    (accounts, accounts.c.id, accounts.c.credentials),
    (endpoint_secrets, endpoint_secrets.c.id, endpoint_secrets.c.secret),
    (installation, installation.c.name, installation.c.value),
    (quarantine, quarantine.c.id, quarantine.c.body),
)
"""Table, row's key, sealed column. In `installation` only the canary is sealed."""


def reseal(tx: Connection, seal: Seal, limit: int = BATCH) -> int:
    """
    Seal up to `limit` values again with the newest key. Returns how many; 0 means that all of them are.

    A value names its key, so nothing has to be remembered between batches: run again after a crash it goes on.
    """
    done = 0
    for table, key, column in SEALED:
        query = select(key, column).where(column.is_not(None), func.substr(column, 1, PREFIX_BYTES) != seal.prefix)
        if table is installation:
            query = query.where(key == CANARY)
        for identifier, value in tx.execute(query.limit(limit - done)).all():
            bound = bound_to(table.name, identifier, column.name)
            again = seal.seal(seal.open_bytes(value, bound), bound)
            tx.execute(update(table).where(key == identifier).values({column.name: again}))
            done += 1
        if done >= limit:
            break
    return done
