"""
Callbacks that failed verification: the newest few hundred are kept, so that after a wrong secret is put right they can
be checked again, against the time they came, and replayed. Nothing in here was believed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from service.callbacks.tables import quarantine
from service.ids import Clock
from service.providers.base import Incoming
from service.seal import Seal, bound_to

UNKNOWN_TOKEN = "token:"  # noqa: S105 - what the account's id begins with when nobody has the token
ROWS_MAX = 300
PER_SECOND = 5
BURST = 50
"""All three for each account by itself: rubbish for one must not push out another's genuine callbacks."""
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


@dataclass(frozen=True, slots=True)
class Aside:
    """
    One callback on its way into the quarantine, or out of it. `account_id` is the account's, or for a secret token
    in the address that nobody has (eBilling) `token:` and the token's digest.
    """

    id: str
    account_id: str
    provider: str
    reason: str
    incoming: Incoming
    received_at_ms: int


def keep(tx: Connection, seal: Seal, aside: Aside) -> None:
    """
    Keep one, and drop the account's oldest beyond the cap.

    To be checked again its bytes must be the ones that came, what a provider's file would redact among them: they are
    sealed.
    """
    incoming = aside.incoming
    headers = [
        [name.decode("latin-1")[:200], value[:HEADER_BYTES_MAX].decode("latin-1")]
        for name, value in incoming.headers[:KEPT_HEADERS]
        if name not in (b"authorization", b"cookie")
    ]
    tx.execute(
        insert(quarantine),
        {
            "id": aside.id,
            "account_id": aside.account_id,
            "provider": aside.provider,
            "reason": aside.reason,
            "method": incoming.method,
            "headers": json.dumps(headers),
            "query": incoming.query[:HEADER_BYTES_MAX],
            "body": seal.seal(incoming.body, _bound(aside.id)),
            "received_at_ms": aside.received_at_ms,
        },
    )
    mine = quarantine.c.account_id == aside.account_id
    if aside.account_id.startswith(UNKNOWN_TOKEN):
        # Their number is the stranger's choice, so all unknown tokens of a provider share one cap.
        mine = quarantine.c.account_id.startswith(UNKNOWN_TOKEN) & (quarantine.c.provider == aside.provider)
    newest = select(quarantine.c.id).where(mine).order_by(quarantine.c.id.desc()).limit(1).offset(ROWS_MAX - 1)
    tx.execute(delete(quarantine).where(mine, quarantine.c.id < newest.scalar_subquery(), quarantine.c.id != aside.id))


def kept(tx: Connection, seal: Seal, id_: str) -> Aside | None:
    """One kept callback, as it came."""
    row = tx.execute(select(quarantine).where(quarantine.c.id == id_)).one_or_none()
    if row is None:
        return None
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in json.loads(row.headers)]
    incoming = Incoming(row.method, headers, row.query, seal.open_bytes(row.body, _bound(id_)))
    return Aside(id_, row.account_id, row.provider, row.reason, incoming, row.received_at_ms)


def _bound(id_: str) -> str:
    return bound_to("quarantine", id_, "body")


def forget(tx: Connection, id_: str) -> None:
    """It has been taken after all."""
    tx.execute(delete(quarantine).where(quarantine.c.id == id_))
