"""The closing check of a demonstration: was anything lost between an acknowledged callback and the shop?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, func, select

from outbox.tables import Tables
from service.callbacks.tables import callbacks
from service.merchants.events import WEBHOOK
from service.merchants.tables import events


@dataclass(slots=True)
class Closing:
    """Whether anything was lost. Every number but the first three should be zero, or has an innocent name."""

    callbacks: int = 0
    worked_on: int = 0
    events: int = 0
    delivered: int = 0
    waiting: int = 0  # events whose next try is still to come
    unfinished: int = 0  # callbacks whose work, or whose question to the provider, is still to come
    aside: int = 0  # parked or deferred: kept for a person, or for what they wait for
    lost: list[str] = field(default_factory=list)


def check(
    tx: Connection,
    tables: Tables,
    acknowledged: Sequence[tuple[str, str]],
    since_position: int,
    shop_knows: frozenset[str] | None,
) -> Closing:
    """
    Follow every acknowledged callback to its end, every event to the shop.

    `shop_knows`: ids of the events that the shop has really got, None where it does not remember them all.
    """
    closing = Closing(callbacks=len(acknowledged))
    m = tables.messages.c
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for at in range(0, len(acknowledged), 400):
        some = acknowledged[at : at + 400]
        rows = tx.execute(
            select(callbacks.c.provider, callbacks.c.key, callbacks.c.status, callbacks.c.id).where(
                callbacks.c.account_id.in_(sorted({f"acc_{provider}" for provider, _ in some})),
                callbacks.c.key.in_([key for _, key in some]),
            )
        )
        found |= {(row[0], row[1]): (row[2], row[3]) for row in rows}
    pending, dead = _open_work(tx, tables)
    for name in acknowledged:
        status, id_ = found.get(name, ("", ""))
        if not status:
            closing.lost.append(f"{name[0]} callback {name[1][:60]}: acknowledged, not in the database")
        elif status == "dead" or id_ in dead:
            closing.lost.append(f"{name[0]} callback {id_}: given up")
        elif id_ in pending:
            closing.unfinished += 1
        elif status == "received":
            closing.lost.append(f"{name[0]} callback {id_}: kept, and nobody works on it")
        elif status in ("parked", "deferred"):
            closing.aside += 1
        closing.worked_on += status in ("processed", "ignored")
    states: dict[str, set[str]] = {}
    for row in tx.execute(
        select(events.c.id, m.state)
        .select_from(events.outerjoin(tables.messages, (m.subject == events.c.id) & (m.topic == WEBHOOK)))
        .where(events.c.position > since_position)
    ):
        states.setdefault(row[0], set()).add(row[1] or "none")
    closing.events = len(states)
    for event_id, said in states.items():
        if said & {"none", "dead"}:
            closing.lost.append(f"event {event_id}: {'given up' if 'dead' in said else 'promised to nobody'}")
        elif said == {"done"}:
            closing.delivered += 1
            if shop_knows is not None and event_id not in shop_knows:
                closing.lost.append(f"event {event_id}: recorded as delivered, the shop never got it")
        else:
            closing.waiting += 1
    return closing


def _open_work(tx: Connection, tables: Tables) -> tuple[set[str], set[str]]:
    """Ids of callbacks that somebody still works or asks for, and of those that were given up."""
    m = tables.messages.c
    pending, dead = set[str](), set[str]()
    for state, ids in (("pending", pending), ("held", pending), ("dead", dead)):
        rows = tx.execute(select(m.subject).where(m.state == state, m.topic.not_in((WEBHOOK, "deferred"))))
        ids |= {row[0] for row in rows}
    return pending, dead


def last_position(tx: Connection) -> int:
    return int(tx.execute(select(func.coalesce(func.max(events.c.position), 0))).scalar_one())
