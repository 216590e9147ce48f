"""
Where personal data may stand: each place by its page, what is to stand there instead, and what must stay for now.

Reading and judging is `erasure`'s; here is only what is searched and how it is emptied. A table that is new gets its
line here, or in the test that asks of every column why it has none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Column, ColumnElement, Connection, Table, and_, delete, or_, select, tuple_, update

from outbox import pruning
from service import idempotency
from service.callbacks.process import ASK, DEFERRED
from service.callbacks.tables import callbacks, quarantine, waits
from service.escrow.states import OPEN
from service.escrow.tables import beneficiaries, payees_personal, payouts
from service.ledger.tables import settlements
from service.merchants.tables import audit, endpoints, events, recoveries
from service.orders.tables import buyers, links, order_lines, orders, sessions
from service.payments import tables as paying
from service.payments.states import LIVE
from service.payments.tables import aliases, attempts, attention, decisions, payers, payments, refunds
from service.person import Person
from service.retention import WORKED_ON
from service.schema import outbox_tables
from service.seal import Seal, SealError, bound_to

ROWS_A_PAGE = 100
"""Of 256 kB at the most: 25 MB in memory, and nearly always a hundredth of that."""

ERASED = "(erased)"
"""What stands afterwards where somebody had typed a reason."""
NAMES = "references"
"""The place of what is searched and told of, and never emptied."""

Key = tuple[Any, ...]
Text = bytes | str


class Row(NamedTuple):
    """One row on the search: its primary key and the texts in it. `unread`: it holds one more that cannot be opened."""

    key: Key
    texts: tuple[Text, ...]
    unread: bool = False


class Named(NamedTuple):
    """A row that names the person; `told` is what is to stand there instead."""

    row: Row
    told: Any = None


class Left(NamedTuple):
    """A row that names the person and was left as it is."""

    id: str
    why: str


def _nothing_owed(tx: Connection, keys: Sequence[Key]) -> Mapping[Key, Left]:
    return {}


@dataclass(frozen=True, slots=True)
class Place:
    """
    Where personal data may stand. `page(tx, after)` are the next rows. `told(row)` is what is to stand there instead,
    worked out beside the writer. `owed(tx, keys)` says which of them must stay, and what to do. `empty(tx, named,
    now_ms)` erases the person in the others, and says which of them were changed since they were read. `counted`: a
    column of a table that may be large, so that progress knows of it.
    """

    name: str
    columns: tuple[Column[Any], ...]
    page: Callable[[Connection, Key | None], Sequence[Row]]
    empty: Callable[[Connection, Sequence[Named], int], Mapping[Key, Left]]
    told: Callable[[Row], Any] = lambda _: None
    owed: Callable[[Connection, Sequence[Key]], Mapping[Key, Left]] = _nothing_owed
    counted: Column[Any] | None = None


_m, _t = outbox_tables.messages.c, outbox_tables.tries.c
_c, _q, _e, _p, _k = callbacks.c, quarantine.c, events.c, payments.c, paying.idempotency.c

_BY_NAME = "its reference names the person: it is what the payment is found by, and stays as long as the payment"
_BY_ORDER = "its reference names the person: it is what your shop finds it by, and stays as long as it does"
_BY_WAIT = "it waits for a payment whose reference names the person, and does so until that comes or it is replayed"
_BY_QUESTION = "its question to the provider names the payment, and so the person; it goes with CAISSE_KEEP_WORK_DAYS"


def places(seal: Seal, person: Person, also_parked: bool) -> tuple[Place, ...]:
    """All of them. What money is called by is the merchant's and the provider's, and is only told of."""

    def event(text: Text) -> bytes:
        """The event stays an event: whoever reads the feed finds its type and its payment, without the person."""
        body = json.loads(text)
        body["data"] = person.without(body.get("data"))
        if person.named_in(json.dumps(body).encode()):
            body["data"] = {"erased": True}  # first name here, last name there
        return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()

    def notes(text: Text) -> str:
        """The merchant's notes keep their names: an empty set of notes would be filled again by the next callback."""
        found = person.without(json.loads(text))
        if person.named_in(json.dumps(found).encode()):
            found = {"erased": "true"}
        return json.dumps(found, sort_keys=True)

    def action(text: Text) -> str:
        """What the payer had to do keeps its type."""
        found = person.without(json.loads(text))
        if person.named_in(json.dumps(found).encode()):
            found = {"type": found.get("type", "")}
        return json.dumps(found)

    def texts(name: str, *columns: tuple[Column[Any], Callable[[Text], Any]], **more: Any) -> Place:
        return _texts(person, name, columns, **more)

    def nothing(_: Text) -> str:
        return ""

    def mark(_: Text) -> str:
        return ERASED

    typed = (
        *(audit.c.reason, attention.c.detail, recoveries.c.reason, endpoints.c.disabled_reason, _c.reason),
        *(outbox_tables.destinations.c.held, _m.reason, decisions.c.reason, refunds.c.reason, refunds.c.failure_reason),
        *(payouts.c.failure_reason, settlements.c.note),
    )
    return (
        Place("callbacks", (_c.body, _c.query), _pages(callbacks, _c.body, _c.query), _callbacks_empty,
              owed=_callbacks_owed(also_parked), counted=_c.id),
        Place("quarantine", (_q.body, _q.query, _q.headers), _quarantine_page(seal), _quarantine_empty, counted=_q.id),
        texts("events", (_e.body, event), counted=_e.position, owed=_events_owed),
        texts("answers", (_t.head, lambda _: b""), counted=_t.message_id),
        _whole("payers", payers),
        texts("payments", (_p.metadata, notes), (_p.description, nothing), (_p.return_url, nothing), counted=_p.id),
        texts("payments", (attempts.c.action, action), owed=_attempts_owed),
        texts("orders", (orders.c.metadata, notes), (orders.c.description, nothing)),
        texts("orders", (order_lines.c.description, nothing)),
        _whole("buyers", buyers),
        _whole("payees", payees_personal, owed=_payees_owed),
        texts("payouts", (payouts.c.description, nothing), owed=_payouts_owed),
        texts("sessions", (sessions.c.metadata, notes), (sessions.c.description, nothing),
              (sessions.c.return_url, nothing)),
        texts("links", (links.c.description, nothing), (links.c.return_url, nothing)),
        Place("replies", (_k.answer,), _replies_page(seal), _replies_empty),
        *(texts("reasons", (column, mark)) for column in typed),
        _names(_p.id, _BY_NAME, _p.reference, _p.provider_reference, _p.order_id),
        _names(aliases.c.attempt_id, _BY_NAME, aliases.c.reference),
        _names(orders.c.id, _BY_ORDER, orders.c.reference),
        _names(sessions.c.id, _BY_ORDER, sessions.c.reference),
        _names(links.c.id, _BY_ORDER, links.c.reference),
        _names(beneficiaries.c.id, _BY_ORDER, beneficiaries.c.reference),
        _names(waits.c.callback_id, _BY_WAIT, waits.c.reference),
        _names(_m.subject, _BY_QUESTION, _m.payload, where=(_m.id > f"{ASK}:") & (_m.id < f"{ASK};")),
    )  # fmt: skip


def _keys(table: Table) -> list[Column[Any]]:
    return list(table.primary_key.columns)


def _pages(
    table: Table, *texts: Column[Any], where: ColumnElement[bool] | None = None
) -> Callable[[Connection, Key | None], list[Row]]:
    """By primary key, those that have a text at all."""
    keys = _keys(table)
    query = select(*keys, *texts).order_by(*keys).limit(ROWS_A_PAGE)
    query = query.where(or_(*(text != text.type.python_type() for text in texts)))
    if where is not None:
        query = query.where(where)

    def page(tx: Connection, after: Key | None) -> list[Row]:
        further = query if after is None else query.where(tuple_(*keys) > tuple_(*after))
        return [
            Row(tuple(row[: len(keys)]), tuple(text or "" for text in row[len(keys) :])) for row in tx.execute(further)
        ]

    return page


def _texts(
    person: Person,
    name: str,
    columns: Sequence[tuple[Column[Any], Callable[[Text], Any]]],
    counted: Column[Any] | None = None,
    owed: Callable[[Connection, Sequence[Key]], Mapping[Key, Left]] = _nothing_owed,
) -> Place:
    """Columns of one table; in each that names the person another text takes the place of what is there."""
    table: Table = columns[0][0].table
    every = tuple(column for column, _ in columns)

    def told(row: Row) -> list[tuple[Column[Any], Text, Any]]:
        """Column, what stands there and what will."""
        pairs = zip(columns, row.texts, strict=True)
        return [(column, old, new(old)) for (column, new), old in pairs if person.named_in(bytes_of(old))]

    def empty(tx: Connection, named: Sequence[Named], now_ms: int) -> Mapping[Key, Left]:
        changed: dict[Key, Left] = {}
        for row, turned in named:
            mine = and_(tuple_(*_keys(table)) == tuple_(*row.key), *(column == old for column, old, _ in turned))
            values = {column.name: new for column, _, new in turned}
            if tx.execute(update(table).where(mine).values(values)).rowcount == 0:
                changed[row.key] = Left(":".join(map(str, row.key)), "it was changed meanwhile: erase again")
        return changed

    return Place(name, every, _pages(table, *every), empty, told, owed, counted)


def bytes_of(text: Text) -> bytes:
    """A text as it is searched."""
    return text.encode(errors="replace") if isinstance(text, str) else text


def _whole(
    name: str, table: Table, owed: Callable[[Connection, Sequence[Key]], Mapping[Key, Left]] = _nothing_owed
) -> Place:
    """A table that holds nothing but personal data, one row a person: the row goes."""
    texts = [column for column in table.columns if not column.primary_key]

    def empty(tx: Connection, named: Sequence[Named], now_ms: int) -> Mapping[Key, Left]:
        (key,) = _keys(table)
        tx.execute(delete(table).where(key.in_([one.row.key[0] for one in named])))
        return {}

    return Place(name, tuple(texts), _pages(table, *texts), empty, owed=owed, counted=_keys(table)[0])


def _names(shown: Column[Any], why: str, *columns: Column[Any], where: ColumnElement[bool] | None = None) -> Place:
    """What money is called by: told of under the id in `shown`, and left."""
    table = shown.table

    def owed(tx: Connection, keys: Sequence[Key]) -> Mapping[Key, Left]:
        query = select(*_keys(table), shown).where(tuple_(*_keys(table)).in_(list(keys)))
        return {tuple(row[:-1]): Left(row[-1], why) for row in tx.execute(query)}

    return Place(NAMES, columns, _pages(table, *columns, where=where), lambda tx, named, now_ms: {}, owed=owed)


# --- what has rules of its own --------------------------------------------------------------------------


def _callbacks_owed(also_parked: bool) -> Callable[[Connection, Sequence[Key]], Mapping[Key, Left]]:
    def owed(tx: Connection, keys: Sequence[Key]) -> Mapping[Key, Left]:
        ids = [key[0] for key in keys]
        if also_parked:
            # Only what is being worked on, or asked about, right now.
            under_way = select(_m.subject).where(_m.subject.in_(ids), _m.state == "pending", _m.topic != DEFERRED)
            asked = set(tx.execute(under_way).scalars())
        else:
            # The message that ends a wait stays for its 72 hours, also when the waiting is long over.
            asked = pruning.unsettled(tx, outbox_tables, ids, but=[DEFERRED])
        left: dict[Key, Left] = {}
        for id_, status in tx.execute(select(_c.id, _c.status).where(_c.id.in_(ids))):
            if status not in WORKED_ON and (status == "received" or not also_parked):
                why = f"{status}: let it be worked on, or replay it, then erase again (or at once: --also-parked)"
                left[id_,] = Left(id_, why)
            elif id_ in asked:
                why = "our question to the provider is not answered: wait, or replay it, then erase again"
                left[id_,] = Left(id_, why)
        return left

    return owed


def _callbacks_empty(tx: Connection, named: Sequence[Named], now_ms: int) -> Mapping[Key, Left]:
    ids = [one.row.key[0] for one in named]
    tx.execute(update(callbacks).where(_c.id.in_(ids)).values(body=b"", query=b"", erased_at_ms=now_ms))
    tx.execute(delete(waits).where(waits.c.callback_id.in_(ids)))  # of what was parked: nothing is left to come back
    return {}


def _quarantine_page(seal: Seal) -> Callable[[Connection, Key | None], list[Row]]:
    def opened(row: Any) -> Row:
        try:
            body = seal.open_bytes(row.body, bound_to("quarantine", row.id, "body"))
        except SealError:
            return Row((row.id,), (row.query, row.headers), unread=True)
        return Row((row.id,), (body, row.query, row.headers))

    def page(tx: Connection, after: Key | None) -> list[Row]:
        further = select(quarantine).where(_q.id > (after[0] if after else "")).order_by(_q.id).limit(ROWS_A_PAGE)
        return [opened(row) for row in tx.execute(further)]

    return page


def _quarantine_empty(tx: Connection, named: Sequence[Named], now_ms: int) -> Mapping[Key, Left]:
    """It was never believed, so nothing is owed of it: the row goes."""
    tx.execute(delete(quarantine).where(_q.id.in_([one.row.key[0] for one in named])))
    return {}


def _events_owed(tx: Connection, keys: Sequence[Key]) -> Mapping[Key, Left]:
    rows = tx.execute(select(_e.position, _e.id).where(_e.position.in_([key[0] for key in keys]))).all()
    owed = pruning.unsettled(tx, outbox_tables, [row.id for row in rows])
    why = "not delivered (`caisse deliveries list --event`): let it be delivered, or retry it, then erase again"
    return {(row.position,): Left(row.id, why) for row in rows if row.id in owed}


def _attempts_owed(tx: Connection, keys: Sequence[Key]) -> Mapping[Key, Left]:
    """What the payer is being asked to do right now."""
    a = attempts.c
    query = select(a.id, a.payment_id).where(a.id.in_([key[0] for key in keys]), a.state.in_(sorted(LIVE)))
    why = "the payer is asked to do what names them: let the payment end, or cancel it, then erase again"
    return {(row.id,): Left(row.payment_id, why) for row in tx.execute(query)}


_BY_PAYOUT = "a payout to them has no end yet: let it end, or cancel it (`caisse payouts cancel`), then erase again"


def _payees_owed(tx: Connection, keys: Sequence[Key]) -> Mapping[Key, Left]:
    """Where money is on its way to, or will be: without it the payout could not be sent, nor asked about."""
    p = payouts.c
    query = select(p.payee_id, p.id).where(p.payee_id.in_([key[0] for key in keys]), p.state.in_(OPEN))
    return {(row.payee_id,): Left(row.id, _BY_PAYOUT) for row in tx.execute(query.order_by(p.id))}


def _payouts_owed(tx: Connection, keys: Sequence[Key]) -> Mapping[Key, Left]:
    """What the provider was told, word for word: sent again with the same key it has to be the same."""
    p = payouts.c
    query = select(p.id).where(p.id.in_([key[0] for key in keys]), p.state.in_(OPEN))
    return {(row.id,): Left(row.id, _BY_PAYOUT) for row in tx.execute(query)}


def _replies_page(seal: Seal) -> Callable[[Connection, Key | None], list[Row]]:
    """Answers kept for an Idempotency-Key. What no master key opens any more is nothing that could be read."""
    keys = _keys(paying.idempotency)
    query = select(*keys, _k.answer).where(_k.answer.is_not(None)).order_by(*keys).limit(ROWS_A_PAGE)

    def page(tx: Connection, after: Key | None) -> list[Row]:
        further = query if after is None else query.where(tuple_(*keys) > tuple_(*after))
        found: list[Row] = []
        for *key, answer in tx.execute(further):
            try:
                found.append(Row(tuple(key), (seal.open_bytes(answer, idempotency.Place(*key).bound),)))
            except SealError:
                found.append(Row(tuple(key), ()))
        return found

    return page


def _replies_empty(tx: Connection, named: Sequence[Named], now_ms: int) -> Mapping[Key, Left]:
    """The key stays used; sent again, the request is answered from what it made, as it is by then."""
    keys = tuple_(*_keys(paying.idempotency))
    for one in named:
        mine = update(paying.idempotency).where(keys == tuple_(*one.row.key))
        tx.execute(mine.values(status=None, answer=None))
    return {}
