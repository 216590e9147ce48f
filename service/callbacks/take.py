"""T1: keep verified callbacks together with the messages that promise to work on them. Nothing else happens here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, insert, select, update

from outbox.message import Promise
from outbox.prepared import Prepared
from outbox.queue import Queue
from service.callbacks.tables import callbacks


@dataclass(frozen=True, slots=True)
class Arrival:
    """A verified callback on its way to disk. `body` is already redacted; `sha256` is of the raw bytes."""

    id: str
    account_id: str
    provider: str
    queue: str
    key: str
    kind: str
    method: str
    query: bytes
    body: bytes
    sha256: bytes
    received_at_ms: int
    parked: str = ""  # a reason not to work on it: a test callback on a live account


@dataclass(frozen=True, slots=True)
class Kept:
    """
    It is in the database. `again`: it was there before; `other_body`: under the same key, with other bytes; `parked`:
    why it will not be worked on.
    """

    id: str
    again: bool = False
    other_body: bool = False
    parked: str = ""


_COLUMNS = (
    "id", "account_id", "key", "provider", "kind", "status", "reason", "method", "query", "body", "body_sha256",
    "received_at_ms", "last_seen_at_ms", "finished_at_ms",
)  # fmt: skip
_INSERT = Prepared(insert(callbacks).prefix_with("OR IGNORE", dialect="sqlite"), _COLUMNS)
_AGAIN = (
    update(callbacks)
    .where(callbacks.c.account_id == bindparam("account"), callbacks.c.key == bindparam("key_"))
    .values(seen_count=callbacks.c.seen_count + 1, last_seen_at_ms=bindparam("now"))
)
_FIRST = select(callbacks.c.id, callbacks.c.body_sha256).where(
    callbacks.c.account_id == bindparam("account"), callbacks.c.key == bindparam("key_")
)


def message_id(callback_id: str, run: int = 0) -> str:
    """The outbox message that promises to work on a callback; `run` counts how often a person asked for it again."""
    return f"callback:{callback_id}:{run}"


_KNOWN = select(callbacks.c.id).where(callbacks.c.id.in_(bindparam("ids", expanding=True)))


def take(tx: Connection, queue: Queue, arrivals: Sequence[Arrival]) -> list[Kept]:
    """
    Keep each once: the unique key (account, key) decides, whatever the number of copies and the order they come in.

    Several at a time cost two statements instead of two each; nearly always all of them are new.
    """
    inserted = _INSERT(tx, [_row(arrival) for arrival in arrivals])
    if inserted == len(arrivals):
        new = {arrival.id for arrival in arrivals}
    else:
        new = set(tx.execute(_KNOWN, {"ids": [arrival.id for arrival in arrivals]}).scalars())
    queue.enqueue(
        tx,
        [
            Promise(message_id(arrival.id), arrival.queue, "", arrival.id)
            for arrival in arrivals
            if arrival.id in new and not arrival.parked
        ],
        max(arrival.received_at_ms for arrival in arrivals),
    )
    return [Kept(a.id, parked=a.parked) if a.id in new else _again(tx, a) for a in arrivals]


def _again(tx: Connection, arrival: Arrival) -> Kept:
    name = {"account": arrival.account_id, "key_": arrival.key}
    tx.execute(_AGAIN, name | {"now": arrival.received_at_ms})
    first = tx.execute(_FIRST, name).one()
    return Kept(first.id, again=True, other_body=first.body_sha256 != arrival.sha256)


def _row(arrival: Arrival) -> dict[str, object]:
    return {
        "id": arrival.id,
        "account_id": arrival.account_id,
        "key": arrival.key,
        "provider": arrival.provider,
        "kind": arrival.kind,
        "status": "parked" if arrival.parked else "received",
        "reason": arrival.parked or None,
        "method": arrival.method,
        "query": arrival.query,
        "body": arrival.body,
        "body_sha256": arrival.sha256,
        "received_at_ms": arrival.received_at_ms,
        "last_seen_at_ms": arrival.received_at_ms,
        "finished_at_ms": arrival.received_at_ms if arrival.parked else None,
    }
