"""
Callbacks that failed verification: the newest few hundred are kept, so that after a wrong secret is put right they can
be checked again, against the time they came, and replayed. Nothing in here was believed.
"""

from __future__ import annotations

import json

from sqlalchemy import Connection, delete, insert, select

from service.callbacks.tables import quarantine
from service.ids import Clock
from service.providers.base import Incoming

ROWS_MAX = 300
PER_SECOND = 5
BURST = 50
HEADER_BYTES_MAX = 8_192
KEPT_HEADERS = 40


class Allowance:
    """A token bucket: anybody can send rubbish, and rubbish must not fill the disk or the writer's queue."""

    def __init__(self, clock: Clock, per_second: float = PER_SECOND, burst: float = BURST) -> None:
        self._clock, self._per_ms, self._burst = clock, per_second / 1000, burst
        self._left, self._at_ms = burst, clock()

    def take(self) -> bool:
        """Whether one more may be kept now."""
        now_ms = self._clock()
        self._left = min(self._burst, self._left + max(0, now_ms - self._at_ms) * self._per_ms)
        self._at_ms = now_ms
        if self._left < 1:
            return False
        self._left -= 1
        return True


def keep(
    tx: Connection, id_: str, account_id: str, provider: str, reason: str, incoming: Incoming, received_at_ms: int
) -> None:
    """Keep one, and drop the oldest beyond the cap."""
    headers = [
        [name.decode("latin-1")[:200], value[:HEADER_BYTES_MAX].decode("latin-1")]
        for name, value in incoming.headers[:KEPT_HEADERS]
        if name not in (b"authorization", b"cookie")
    ]
    tx.execute(
        insert(quarantine),
        {
            "id": id_,
            "account_id": account_id,
            "provider": provider,
            "reason": reason,
            "method": incoming.method,
            "headers": json.dumps(headers),
            "query": incoming.query[:HEADER_BYTES_MAX],
            "body": incoming.body,
            "received_at_ms": received_at_ms,
        },
    )
    newest = select(quarantine.c.id).order_by(quarantine.c.id.desc()).limit(1).offset(ROWS_MAX - 1).scalar_subquery()
    tx.execute(delete(quarantine).where(quarantine.c.id < newest))


def kept(tx: Connection, id_: str) -> tuple[str, str, Incoming, int] | None:
    """One kept callback: (account id, provider, as it came, when)."""
    row = tx.execute(select(quarantine).where(quarantine.c.id == id_)).one_or_none()
    if row is None:
        return None
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in json.loads(row.headers)]
    return row.account_id, row.provider, Incoming(row.method, headers, row.query, row.body), row.received_at_ms


def forget(tx: Connection, id_: str) -> None:
    """It has been taken after all."""
    tx.execute(delete(quarantine).where(quarantine.c.id == id_))
