"""Who did what to whom: one row for every change that a person asked for, in the transaction that made it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, insert

from outbox.prepared import Prepared
from service.ids import Ids
from service.merchants.tables import audit

REASON_CHARACTERS_MAX = 500
_INSERT = Prepared(insert(audit), audit.c.keys())


@dataclass(frozen=True, slots=True)
class By:
    """Whose hand it is and when: handed to every function that changes something."""

    actor: str  # cli | api:<key id> | operator
    now_ms: int
    ids: Ids

    def write_down(self, tx: Connection, action: str, subject: str, reason: str = "") -> None:
        """The audit row. `action` is a fixed word such as `endpoint.disabled`, `subject` an id."""
        row = {"id": self.ids("aud"), "at_ms": self.now_ms, "actor": self.actor, "action": action}
        _INSERT(tx, [row | {"subject": subject, "reason": reason[:REASON_CHARACTERS_MAX]}])
