"""What a person has to look at: one list, one row for each matter, opened and closed in the transaction it is about."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, text, update

from outbox.prepared import Prepared
from service.ids import Ids
from service.payments.tables import attention

_OPEN = text(
    "INSERT INTO attention (id, subject, reason, detail, opened_at_ms) "
    "VALUES (:id, :subject, :reason, :detail, :now_ms) "
    "ON CONFLICT (subject, reason) DO UPDATE SET detail = :detail, opened_at_ms = :now_ms, closed_at_ms = NULL "
    "WHERE attention.closed_at_ms IS NOT NULL"
)


_CLOSE = Prepared(
    update(attention)
    .where(
        attention.c.subject == bindparam("subject_"),
        attention.c.reason == bindparam("reason_"),
        attention.c.closed_at_ms.is_(None),
    )
    .values(closed_at_ms=bindparam("now_ms"))
)


def open_attention(tx: Connection, ids: Ids, subject: str, reason: str, detail: str, now_ms: int) -> None:
    """Put a matter before a person: `reason` is a fixed word, `subject` an id. One that is open stays as it is."""
    tx.execute(_OPEN, {"id": ids("att"), "subject": subject, "reason": reason, "detail": detail, "now_ms": now_ms})


def close_attention(tx: Connection, subject: str, reason: str, now_ms: int) -> None:
    """The matter has settled itself."""
    _CLOSE(tx, [{"subject_": subject, "reason_": reason, "now_ms": now_ms}])
