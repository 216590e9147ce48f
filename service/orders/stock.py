"""Taking stock for an order and giving it back, in the transactions in which the order's state changes."""

from __future__ import annotations

from sqlalchemy import Connection, select, text, update

from service.orders.tables import order_lines, products, tallies

_TALLY = text(
    "INSERT INTO tallies (name, value) VALUES (:name, :n) "
    "ON CONFLICT (name) DO UPDATE SET value = tallies.value + excluded.value"
)


class Conflict(Exception):
    """A row was changed by somebody else since it was read."""


def tally(tx: Connection, name: str, n: int = 1) -> None:
    """Count something for the metrics, in the transaction that did it."""
    if n:
        tx.execute(_TALLY, {"name": name, "n": n})


def tallies_now(tx: Connection) -> dict[str, int]:
    """What was counted since the beginning: orders_expired, payments_canceled, stock_released (units)."""
    return {row.name: row.value for row in tx.execute(select(tallies))}


def reserve(tx: Connection, order_id: str) -> list[str]:
    """
    Take what the order's lines need: all of it, or nothing. Returns the products that have too little, by id.

    Unlimited products are not counted, so nothing of them is held, nor given back.
    """
    lines = tx.execute(select(order_lines).where(order_lines.c.order_id == order_id, order_lines.c.held == 0)).all()
    wanted: dict[str, int] = {}
    for line in lines:
        if line.product_id is not None:
            wanted[line.product_id] = wanted.get(line.product_id, 0) + line.quantity
    rows = tx.execute(select(products.c.id, products.c.stock).where(products.c.id.in_(sorted(wanted)))).all()
    limited = {row.id: row.stock for row in rows if row.stock is not None}
    short = sorted(id_ for id_, stock in limited.items() if stock < wanted[id_])
    if short:
        return short
    for id_ in sorted(limited):
        taken = tx.execute(
            update(products)
            .where(products.c.id == id_, products.c.stock >= wanted[id_])
            .values(stock=products.c.stock - wanted[id_])
        )
        if taken.rowcount != 1:
            raise Conflict(id_)
    tx.execute(
        update(order_lines)
        .where(order_lines.c.order_id == order_id, order_lines.c.product_id.in_(sorted(limited)))
        .values(held=order_lines.c.quantity)
    )
    return []


def release(tx: Connection, order_id: str) -> int:
    """Give back what the order holds; again changes nothing. Returns how many units."""
    held = order_lines.c.held > 0
    lines = tx.execute(select(order_lines).where(order_lines.c.order_id == order_id, held)).all()
    for line in lines:
        # A product that has become unlimited since stays so: null + n is null.
        given = products.c.stock + line.held
        tx.execute(update(products).where(products.c.id == line.product_id).values(stock=given))
    tx.execute(update(order_lines).where(order_lines.c.order_id == order_id, held).values(held=0))
    units = sum(int(line.held) for line in lines)
    tally(tx, "stock_released", units)
    return units
