"""
What the ledger has of payments: worked out from their facts, and from what their orders have become.

Money comes in to the merchant whose payment it is. Where nothing may be given for it (it is late, of a wrong amount,
once too often in one payment, for an order that is over) it stands aside as unallocated, and where a bank claims it
back, as disputed. Two payments for one order are both the merchant's: a person sees the second.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, select

from outbox.prepared import Lookup
from service.ledger.ledger import Entry, Kind, Move, Place, Wanted, bring
from service.merchants.events import News
from service.orders.states import BOUGHT, ENDED, Order
from service.orders.tables import orders
from service.payments.facts import Kind as FactKind
from service.payments.heard import Change, Context
from service.payments.records import AttemptRecord, PaymentRecord, Records
from service.payments.rules import NOT_TO_BE_FULFILLED, Flows, Problem, flows
from service.payments.states import RefundState
from service.payments.tables import payments, refunds

_ALLOCATED = frozenset({*BOUGHT, Order.REFUNDED})
ALL = 2**62
"""More than any sum."""
_TWICE = frozenset({Problem.DUPLICATE, Problem.OVER})
_OURS = Lookup(
    select(refunds.c.attempt_id, refunds.c.amount_minor).where(
        refunds.c.payment_id.in_(bindparam("wanted", expanding=True)),
        refunds.c.state == bindparam("state", RefundState.SUCCEEDED.value, literal_execute=True),
        refunds.c.origin == bindparam("origin", "caisse", literal_execute=True),
    )
)
_STATES = Lookup(select(orders.c.id, orders.c.state).where(orders.c.id.in_(bindparam("wanted", expanding=True))))


def follow(tx: Connection, changes: Sequence[Change], context: Context) -> list[News]:
    """The follower: after orders and refunds, whose rows it reads. It has no news of its own."""
    moved = [(change.row, change.attempts) for change in changes if _has_money(change)]
    if moved:
        bring(tx, wanted(tx, moved), context.now_ms)
    return []


def place_orders(tx: Connection, order_ids: Collection[str], now_ms: int) -> None:
    """A work: these orders were bought, or are over, so that their money is somebody's, or nobody's."""
    if not order_ids:
        return
    mine = select(payments.c.id).where(payments.c.order_id.in_(sorted(order_ids)), payments.c.captured_minor > 0)
    place(tx, list(tx.execute(mine).scalars()), now_ms)


def place(tx: Connection, payment_ids: Sequence[str], now_ms: int) -> int:
    """A work: bring the ledger to what these payments are now. Returns how many postings that took."""
    if not payment_ids:
        return 0
    return bring(tx, wanted(tx, ((one.row, one.attempts) for one in load(tx, payment_ids))), now_ms)


def load(tx: Connection, payment_ids: Sequence[str]) -> list[PaymentRecord]:
    """A query: these payments with their facts. One without attempts, merged away, has no money and is left out."""
    records = Records(tx)
    records.load_payments(payment_ids)
    return list(records.payments.values())


def wanted(tx: Connection, among: Iterable[tuple[Mapping[str, Any], Sequence[AttemptRecord]]]) -> dict[str, Wanted]:
    """A query: what these payments should have moved by now, by their ids."""
    found = list(among)
    back = [row["id"] for row, _ in found if row["refunded_minor"]]
    ours: dict[str, int] = {}
    for row in _OURS(tx, back):
        ours[row["attempt_id"]] = ours.get(row["attempt_id"], 0) + row["amount_minor"]
    bought_by = sorted({row["order_id"] for row, _ in found if row["order_id"]})
    states = {row["id"]: row["state"] for row in _STATES(tx, bought_by)}
    return {row["id"]: of_payment(row, attempts, ours, states.get(row["order_id"])) for row, attempts in found}


def of_payment(
    row: Mapping[str, Any], attempts: Sequence[AttemptRecord], ours: Mapping[str, int], order: str | None
) -> Wanted:
    """
    What one payment should have moved. `ours`: what went back by our hand, by attempt; `order`: the state of its order.
    """
    moves: dict[Move, int] = {}
    room_minor = _merchants(row, order)
    for attempt in attempts:
        money = money_of(attempt)
        if not money.captured_minor and not money.elsewhere:
            continue
        for currency, minor in money.elsewhere:
            _count(moves, row, attempt, currency, {Entry.CAPTURE: minor}, minor)
        gone = money.refunded_minor + money.clawed_minor + money.lost_minor + money.disputed_minor
        left = money.captured_minor - gone
        mine = max(min(left, room_minor), 0) if money.currency == row["currency"] else 0
        room_minor -= mine
        by_us = min(ours.get(attempt.row["id"], 0), money.refunded_minor)
        did = {
            Entry.CAPTURE: money.captured_minor,
            Entry.FEE: money.fee_minor,
            Entry.REFUND: by_us,
            Entry.REFUND_ELSEWHERE: money.refunded_minor - by_us,
            Entry.REVERSAL: money.clawed_minor,
            Entry.DISPUTE_LOST: money.lost_minor,
            Entry.DISPUTE: money.disputed_minor,
        }
        _count(moves, row, attempt, money.currency, did, left - mine)
    return moves


def money_of(attempt: AttemptRecord) -> Flows:
    """What its facts say; of the one capture that most attempts have, without the way through all the rules."""
    said = [kept.fact for kept in attempt.facts.values()]
    if len(said) == 1 and said[0].kind is FactKind.CAPTURED:
        return Flows(said[0].currency or attempt.row["currency"], said[0].amount_minor or 0, said[0].fee_minor or 0)
    return flows(said, attempt.row["currency"])


def _merchants(row: Mapping[str, Any], order: str | None) -> int:
    """
    How much of the money is the merchant's, in minor units: by the order where there is one, else by the payment's own
    exceptions. Of what came twice, as much as was asked for.
    """
    problems = NOT_TO_BE_FULFILLED & {*row["exceptions"].split(",")}
    if Problem.DUPLICATE in problems and (order in _ALLOCATED or problems <= _TWICE):
        return 0 if order in ENDED else int(row["amount_minor"])
    wrong = order not in _ALLOCATED and (problems or order in ENDED)
    return 0 if wrong else ALL


def _count(
    moves: dict[Move, int],
    row: Mapping[str, Any],
    attempt: AttemptRecord,
    currency: str,
    amounts: Mapping[Entry, int],
    aside_minor: int,
) -> None:
    whose = row["merchant_id"], bool(row["live"]), currency
    merchant = Place(Kind.MERCHANT, row["merchant_id"], *whose)
    float_ = Place(Kind.FLOAT, attempt.row["account_id"], *whose)
    for entry, minor in amounts.items():
        if not minor:
            continue
        match entry:
            case Entry.CAPTURE:
                way = float_, merchant
            case Entry.FEE:
                way = Place(Kind.FEES, row["merchant_id"], *whose), float_
            case Entry.DISPUTE:
                way = merchant, Place(Kind.DISPUTED, row["merchant_id"], *whose)
            case _:
                way = merchant, float_
        _add(moves, Move(entry, *way), minor)
    if aside_minor > 0:
        unallocated = Place(Kind.UNALLOCATED, row["merchant_id"], *whose)
        _add(moves, Move(Entry.UNALLOCATED, merchant, unallocated), aside_minor)


def _add(moves: dict[Move, int], move: Move, minor: int) -> None:
    moves[move] = moves.get(move, 0) + minor


def _has_money(change: Change) -> bool:
    return bool(change.row["captured_minor"] or (change.before and change.before.captured_minor))
