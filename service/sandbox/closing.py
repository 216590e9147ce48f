"""The closing check of a demonstration: was anything lost between an acknowledged callback and the shop?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, func, select

from outbox.tables import Tables
from service.callbacks.tables import callbacks
from service.merchants.events import WEBHOOK
from service.merchants.tables import events
from service.sandbox.neighbours import Listener


@dataclass(slots=True)
class Told:
    """What became of this run's events at one endpoint."""

    delivered: int = 0
    waiting: int = 0  # their next try is still to come
    failed: int = 0  # given up, kept, and not brought since: `caisse deliveries recover` brings them


@dataclass(slots=True)
class Closing:
    """Whether anything was lost. What is not worked on or delivered should be zero, or has an innocent name."""

    callbacks: int = 0
    worked_on: int = 0
    events: int = 0
    told: dict[str, Told] = field(default_factory=dict)  # by the listener's name, or the endpoint of a stranger
    unfinished: int = 0  # callbacks whose work, or whose question to the provider, is still to come
    aside: int = 0  # parked or deferred: kept for a person, or for what they wait for
    lost: list[str] = field(default_factory=list)


def check(
    tx: Connection,
    tables: Tables,
    acknowledged: Sequence[tuple[str, str]],
    since_position: int,
    listeners: Sequence[Listener],
) -> Closing:
    """
    Follow every acknowledged callback to its end, every event to each listener it was promised to.

    A listener's ledger says what it has really got. One that is patient may be owed and may fail; of another one a
    webhook that was given up is lost.
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
    named = {listener.endpoint: listener for listener in listeners}
    states: dict[tuple[str, str], set[str]] = {}
    for row in tx.execute(
        select(events.c.id, m.destination, m.state)
        .select_from(events.outerjoin(tables.messages, (m.subject == events.c.id) & (m.topic == WEBHOOK)))
        .where(events.c.position > since_position)
    ):
        states.setdefault((row[0], row[1] or ""), set()).add(row[2] or "")
    closing.events = len({event_id for event_id, _ in states})
    closing.told = {listener.name: Told() for listener in listeners}
    for (event_id, endpoint), said in states.items():
        if not endpoint:
            closing.lost.append(f"event {event_id}: promised to nobody")
            continue
        listener = named.get(endpoint)
        title = listener.name if listener else endpoint
        told = closing.told.setdefault(title, Told())
        if "done" in said:
            told.delivered += 1
            if listener and not listener.shop.ledger.knows(event_id):
                closing.lost.append(f"event {event_id}: recorded as delivered, the {title} never got it")
        elif "pending" in said:
            told.waiting += 1
        else:
            told.failed += 1
            if listener and not listener.patient:
                closing.lost.append(f"event {event_id}: given up, though the {title} was well")
    return closing


def _open_work(tx: Connection, tables: Tables) -> tuple[set[str], set[str]]:
    """Ids of callbacks that somebody still works or asks for, and of those that were given up."""
    m = tables.messages.c
    pending, dead = set[str](), set[str]()
    for state, ids in (("pending", pending), ("dead", dead)):
        rows = tx.execute(select(m.subject).where(m.state == state, m.topic.not_in((WEBHOOK, "deferred"))))
        ids |= {row[0] for row in rows}
    return pending, dead


def last_position(tx: Connection) -> int:
    return int(tx.execute(select(func.coalesce(func.max(events.c.position), 0))).scalar_one())
