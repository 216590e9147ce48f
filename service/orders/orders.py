"""
Orders: what was bought, what it costs, and the stock that it holds until it is paid or over.

`create`, `admit` and the rest are steps of one transaction each. What becomes of an order by its payments is in
`settle.py`, what becomes of it by the clock in `expire.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, insert, select, update

from outbox.queue import Queue
from service.attention import close_attention
from service.errors import Refusal
from service.escrow.beneficiaries import held_for
from service.ledger.payments import place_orders
from service.merchants.audit import By
from service.merchants.events import tell
from service.orders import rules, shown
from service.orders.fields import a_count, a_text, an_amount, some_metadata
from service.orders.owner import Owner, find, mine, page_of, row_of
from service.orders.settle import Affairs, expiry
from service.orders.states import ENDED, PAYABLE, Happens, Order
from service.orders.stock import reserve
from service.orders.tables import order_lines, orders, products
from service.payments.facts import AMOUNT_MINOR_MAX
from service.payments.heard import Context
from service.payments.rules import Problem
from service.payments.tables import payments

EXPIRES_MS, EXPIRES_MS_MIN, EXPIRES_MS_MAX = 3_600_000, 5 * 60_000, 30 * 24 * 3_600_000
LINES_MAX = 100
QUANTITY_MAX = 1_000_000
PAYMENTS_MAX = 100
"""Attempts to pay one order; whoever needs more talks to the shop."""
LATE = ("ask", "revive", "refund")


@dataclass(frozen=True, slots=True)
class Line:
    """So many of a product, at its price unless `unit_minor` says another; or of what `description` says."""

    quantity: int
    product_id: str = ""
    description: str = ""
    unit_minor: int | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """
    An order to be made. `amount_minor`, where given, must be the sum of the lines. `late`: what becomes of money that
    comes after the end: `revive` when the stock can be had again, `refund`, or `ask` a person. `restock`: a full refund
    by us gives the stock back. `beneficiary_id`: once paid, its money is held for them until the buyer has the goods.
    """

    lines: tuple[Line, ...]
    currency: str
    amount_minor: int | None = None
    reference: str = ""
    description: str = ""
    expires_at_ms: int | None = None
    late: str = "ask"
    restock: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    beneficiary_id: str = ""


def create(tx: Connection, queue: Queue, owner: Owner, draft: Draft, by: By, order_id: str | None = None) -> str:
    """
    Make an order and take its stock, in one transaction. Returns its id.

    Raises Refusal: bad_… , out_of_stock (names the products).
    """
    id_ = order_id or by.ids("ord")
    expires_at_ms = by.now_ms + EXPIRES_MS if draft.expires_at_ms is None else draft.expires_at_ms
    if not by.now_ms + EXPIRES_MS_MIN <= expires_at_ms <= by.now_ms + EXPIRES_MS_MAX:
        raise Refusal("bad_expires_at", "expires_at: 5 minutes to 30 days from now.")
    if draft.late not in LATE:
        raise Refusal("bad_late", f"late: one of {', '.join(LATE)}.")
    lines = _lines(tx, owner, draft)
    amount_minor = sum(line["quantity"] * line["unit_minor"] for line in lines)
    an_amount("amount", amount_minor, draft.currency)
    if draft.amount_minor is not None and draft.amount_minor != amount_minor:
        raise Refusal("bad_amount", f"amount: the lines come to {amount_minor}, not to {draft.amount_minor}.")
    row = {
        "id": id_,
        "merchant_id": owner.merchant_id,
        "live": owner.live,
        "state": Order.AWAITING_PAYMENT.value,
        "payment_status": "unpaid",
        "amount_minor": amount_minor,
        "currency": draft.currency,
        "reference": a_text("reference", draft.reference) or None,
        "description": a_text("description", draft.description),
        "late": draft.late,
        "restock": draft.restock,
        "metadata": some_metadata(draft.metadata),
        "beneficiary_id": held_for(tx, owner, draft.beneficiary_id, draft.currency) if draft.beneficiary_id else None,
        "created_at_ms": by.now_ms,
        "updated_at_ms": by.now_ms,
        "expires_at_ms": expires_at_ms,
    }
    tx.execute(insert(orders), row)
    tx.execute(insert(order_lines), [line | {"order_id": id_, "number": n} for n, line in enumerate(lines, 1)])
    short = reserve(tx, id_)
    if short:
        raise Refusal("out_of_stock", f"There is not enough of {', '.join(short[:10])}.")
    affairs = Affairs(tx, _context(queue, by))
    affairs.tell_order(_row(tx, id_), "order.created")
    tell(tx, queue, affairs.done(), by.ids, by.now_ms)
    queue.enqueue(tx, [expiry(id_, expires_at_ms, by.now_ms)], by.now_ms)
    by.write_down(tx, "order.created", id_)
    return id_


def one(tx: Connection, owner: Owner, order_id: str) -> dict[str, Any]:
    """The row and its `lines`. Raises NotFound, also for another merchant's."""
    row = find(tx, orders, owner, order_id, "order")
    return row | {"lines": shown.lines_of(tx, [order_id])[order_id]}


def listed(
    tx: Connection,
    owner: Owner,
    *,
    before: str = "",
    limit: int = 50,
    state: str | None = None,
    reference: str | None = None,
) -> list[dict[str, Any]]:
    """Newest first, each with its `lines`."""
    query = mine(orders, owner)
    if state is not None:
        query = query.where(orders.c.state == state)
    if reference is not None:
        query = query.where(orders.c.reference == reference)
    rows = page_of(tx, query, orders, before, limit)
    lines = shown.lines_of(tx, [row["id"] for row in rows])
    return [row | {"lines": lines[row["id"]]} for row in rows]


def public(row: Mapping[str, Any]) -> dict[str, Any]:
    """As merchants see it; of a row as `one` and `listed` give it."""
    return shown.order(row, row["lines"])


# --- paying


def admit(tx: Connection, payment_id: str) -> None:
    """
    A payment wants to pay its order: allowed, in the transaction that records it, or refused with all of it.

    Raises Refusal: bad_order, order_not_payable, bad_currency, bad_amount, prompt_open, too_many_payments.
    """
    payment = tx.execute(select(payments).where(payments.c.id == payment_id)).mappings().one()
    order_id = payment["order_id"]
    row = tx.execute(mine(orders, row_of(payment)).where(orders.c.id == order_id)).mappings().one_or_none()
    if row is None:
        raise Refusal("bad_order", f"order: there is no order {str(order_id)[:60]!r}.")
    if row["state"] != Order.AWAITING_PAYMENT or row["expires_at_ms"] <= payment["created_at_ms"]:
        state = "expired" if row["state"] == Order.AWAITING_PAYMENT else row["state"]
        raise Refusal("order_not_payable", f"The order {order_id} is {state}; nothing more can be paid for it.")
    if payment["currency"] != row["currency"]:
        raise Refusal("bad_currency", f"currency: the order is in {row['currency']}.")
    left_minor = row["amount_minor"] - row["paid_minor"]
    if payment["amount_minor"] > left_minor:
        raise Refusal("bad_amount", f"amount: {max(left_minor, 0)} {row['currency']} of the order are left to pay.")
    others = select(payments.c.id, payments.c.status).where(
        payments.c.order_id == order_id, payments.c.id != payment_id, payments.c.merged_into.is_(None)
    )
    known = tx.execute(others.limit(PAYMENTS_MAX)).all()
    waiting = [other.id for other in known if other.status in rules.LIVE]
    if waiting:
        raise Refusal(
            "prompt_open", f"The payment {waiting[0]} still waits for the payer; end it before another begins."
        )
    if len(known) >= PAYMENTS_MAX:
        raise Refusal("too_many_payments", f"{PAYMENTS_MAX} payments were tried for the order {order_id}.")


# --- what a person does


def cancel(tx: Connection, queue: Queue, owner: Owner, order_id: str, by: By, reason: str = "") -> str:
    """
    Provider first: `canceling` while an attempt can still succeed, `canceled` when none can. Returns the state; again
    changes nothing.

    Raises Refusal not_cancelable: it is paid, it holds money, or it is over.
    """
    row = find(tx, orders, owner, order_id, "order")
    if row["state"] in (Order.CANCELING, Order.CANCELED):
        return str(row["state"])
    if row["state"] != Order.AWAITING_PAYMENT or row["paid_minor"]:
        holds = f", and holds {row['paid_minor']} {row['currency']}: refund that" if row["paid_minor"] else ""
        raise Refusal("not_cancelable", f"The order {order_id} is {row['state']}{holds}.")
    by.write_down(tx, "order.cancel_wanted", order_id, reason)
    affairs = Affairs(tx, _context(queue, by))
    affairs.move_order(row, Happens.CANCEL_WANTED)
    affairs.wind_down(order_id, affairs.live_payments(payments.c.order_id == order_id))
    affairs.settle([order_id])
    tell(tx, queue, affairs.done(), by.ids, by.now_ms)
    return str(_row(tx, order_id)["state"])


def deliver(tx: Connection, queue: Queue, owner: Owner, order_id: str, by: By) -> None:
    """It was handed over. Again changes nothing. Raises Refusal not_paid."""
    row = find(tx, orders, owner, order_id, "order")
    if row["state"] in (Order.DELIVERED, Order.COMPLETED):
        return
    affairs = Affairs(tx, _context(queue, by))
    after = affairs.move_order(row, Happens.DELIVERED, delivered_at_ms=by.now_ms)
    if after is None:
        raise Refusal("not_paid", f"The order {order_id} is {row['state']}; only what is paid is delivered.")
    _done(tx, queue, affairs, after, by, "order.delivered")


def complete(tx: Connection, queue: Queue, owner: Owner, order_id: str, by: By) -> None:
    """Nobody wants anything more of it. Again changes nothing. Raises Refusal not_delivered."""
    row = find(tx, orders, owner, order_id, "order")
    if row["state"] == Order.COMPLETED:
        return
    affairs = Affairs(tx, _context(queue, by))
    after = affairs.move_order(row, Happens.COMPLETED)
    if after is None:
        raise Refusal("not_delivered", f"The order {order_id} is {row['state']}; only what was delivered is completed.")
    _done(tx, queue, affairs, after, by, "order.completed")


def revive(tx: Connection, queue: Queue, owner: Owner, order_id: str, by: By, reason: str) -> None:
    """
    A person takes the money that is there, late, too little or too much as it is: the order is paid, and fulfilled. A
    prompt that still waits for the payer is called off.

    Raises Refusal: reason_needed, not_revivable (bought already), no_money, out_of_stock.
    """
    row = find(tx, orders, owner, order_id, "order")
    _say_why(reason)
    if row["state"] not in (*PAYABLE, *ENDED):
        raise Refusal("not_revivable", f"The order {order_id} is {row['state']}.")
    if not row["paid_minor"]:
        raise Refusal("no_money", f"No money has come for the order {order_id}, or it went back.")
    if row["state"] in ENDED:
        short = reserve(tx, order_id)
        if short:
            raise Refusal(
                "out_of_stock", f"There is not enough of {', '.join(short[:10])} any more: refund the payment."
            )
        happens = Happens.REVIVED
    else:
        happens = Happens.PAID_IN_FULL
    by.write_down(tx, "order.revived", order_id, reason)
    affairs = Affairs(tx, _context(queue, by))
    after = affairs.move_order(row, happens)
    assert after is not None  # both rows stand in the table for these states
    affairs.tell_order(after, "order.paid")
    mine_ = tx.execute(select(payments.c.id, payments.c.session_id).where(payments.c.order_id == order_id)).all()
    affairs.settle(session_ids={one_.session_id for one_ in mine_ if one_.session_id})
    tell(tx, queue, affairs.done(), by.ids, by.now_ms)
    for subject in (order_id, *(one_.id for one_ in mine_)):
        for problem in (Problem.LATE, Problem.UNDER, Problem.OVER):
            close_attention(tx, subject, problem, by.now_ms)


def attach(tx: Connection, queue: Queue, owner: Owner, order_id: str, payment_id: str, by: By, reason: str) -> None:
    """
    A person says that this payment, of no order so far, is for this one. What follows is what the money says.

    Raises Refusal: reason_needed, already_attached, not_attachable (merged into another), bad_currency.
    """
    row = find(tx, orders, owner, order_id, "order")
    payment = find(tx, payments, owner, payment_id, "payment")
    _say_why(reason)
    if payment["order_id"] == order_id:
        return
    if payment["order_id"] is not None:
        raise Refusal("already_attached", f"The payment {payment_id} is for the order {payment['order_id']}.")
    if payment["merged_into"] is not None:
        raise Refusal("not_attachable", f"The payment {payment_id} was found to be {payment['merged_into']}.")
    if payment["currency"] != row["currency"]:
        raise Refusal("bad_currency", f"The order is in {row['currency']}, the payment in {payment['currency']}.")
    tx.execute(
        update(payments)
        .where(payments.c.id == payment_id, payments.c.order_id.is_(None))
        .values(order_id=order_id, version=payments.c.version + 1, updated_at_ms=by.now_ms)
    )
    by.write_down(tx, "payment.attached", payment_id, f"{order_id}: {reason}")
    affairs = Affairs(tx, _context(queue, by))
    affairs.settle([order_id])
    tell(tx, queue, affairs.done(), by.ids, by.now_ms)
    place_orders(tx, [order_id], by.now_ms)


def _done(tx: Connection, queue: Queue, affairs: Affairs, after: Mapping[str, Any], by: By, word: str) -> None:
    affairs.tell_order(after, word)
    tell(tx, queue, affairs.done(), by.ids, by.now_ms)
    by.write_down(tx, word, after["id"])


def _context(queue: Queue, by: By) -> Context:
    return Context(queue, by.ids, by.now_ms)


def _row(tx: Connection, order_id: str) -> dict[str, Any]:
    return dict(tx.execute(select(orders).where(orders.c.id == order_id)).mappings().one())


def _say_why(reason: str) -> None:
    if not reason.strip():
        raise Refusal("reason_needed", "reason: say why.")


def _lines(tx: Connection, owner: Owner, draft: Draft) -> list[dict[str, Any]]:
    """The lines as they are kept: with the product's name and price where they say nothing else."""
    if not 1 <= len(draft.lines) <= LINES_MAX:
        raise Refusal("bad_lines", f"lines: 1 to {LINES_MAX}.")
    wanted = sorted({line.product_id for line in draft.lines if line.product_id})
    known = {row["id"]: row for row in tx.execute(mine(products, owner).where(products.c.id.in_(wanted))).mappings()}
    kept = []
    for number, line in enumerate(draft.lines, 1):
        product = known.get(line.product_id)
        if line.product_id and product is None:
            raise Refusal("bad_lines", f"lines: there is no product {line.product_id[:60]!r} (line {number}).")
        if product is not None and (not product["active"] or product["currency"] != draft.currency):
            why = f"is in {product['currency']}" if product["active"] else "is not sold any more"
            raise Refusal("bad_lines", f"lines: the product {product['id']} {why} (line {number}).")
        unit_minor = line.unit_minor if line.unit_minor is not None else (product["price_minor"] if product else None)
        if unit_minor is None:
            raise Refusal("bad_lines", f"lines: a line without a product needs a unit_amount (line {number}).")
        description = a_text("lines", line.description) or (product["name"] if product else "")
        if not description:
            raise Refusal("bad_lines", f"lines: a line without a product needs a description (line {number}).")
        kept.append(
            {
                "product_id": line.product_id or None,
                "description": description,
                "quantity": a_count("lines", line.quantity, 1, QUANTITY_MAX),
                "unit_minor": a_count("lines", unit_minor, 0, AMOUNT_MINOR_MAX),
            }
        )
    return kept
