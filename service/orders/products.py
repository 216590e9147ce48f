"""Products: what a shop sells, at what price, and how many are left that no order holds."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert, update

from service.errors import Refusal
from service.merchants.audit import By
from service.merchants.events import rfc3339
from service.orders.fields import a_count, a_text, an_amount
from service.orders.owner import Owner, find, mine, page_of
from service.orders.tables import products

NAME_CHARACTERS_MAX = 200
STOCK_MAX = 10**9


def create(
    tx: Connection, owner: Owner, by: By, *, name: str, price_minor: int, currency: str, stock: int | None = None
) -> str:
    """A product to be sold at once; `stock` None: unlimited. Refusal bad_name, bad_price, bad_currency, bad_stock."""
    product_id = by.ids("prod")
    an_amount("price", price_minor, currency)
    row = {
        "id": product_id,
        "merchant_id": owner.merchant_id,
        "live": owner.live,
        "name": _name(name),
        "price_minor": price_minor,
        "currency": currency,
        "stock": _stock(stock),
        "active": True,
        "created_at_ms": by.now_ms,
        "updated_at_ms": by.now_ms,
    }
    tx.execute(insert(products), row)
    by.write_down(tx, "product.created", product_id)
    return product_id


def change(
    tx: Connection,
    owner: Owner,
    product_id: str,
    by: By,
    *,
    name: str | None = None,
    price_minor: int | None = None,
    active: bool | None = None,
) -> None:
    """Change what is given. Orders keep the price that they were made with."""
    row = one(tx, owner, product_id)
    values: dict[str, Any] = {}
    if name is not None:
        values["name"] = _name(name)
    if price_minor is not None:
        an_amount("price", price_minor, row["currency"])
        values["price_minor"] = price_minor
    if active is not None:
        values["active"] = active
    if values:
        _write(tx, product_id, by, **values)
        by.write_down(
            tx, "product.changed", product_id, ", ".join(f"{word}: {values[word]}" for word in sorted(values))
        )


def set_stock(tx: Connection, owner: Owner, product_id: str, by: By, stock: int | None, reason: str = "") -> None:
    """So many are free to be sold, beside what orders hold. None: unlimited."""
    one(tx, owner, product_id)
    _write(tx, product_id, by, stock=_stock(stock))
    by.write_down(tx, "product.stock_set", product_id, f"{stock} {reason}".strip())


def add_stock(tx: Connection, owner: Owner, product_id: str, by: By, count: int, reason: str = "") -> int | None:
    """So many more, or fewer; what is left then. Refusal out_of_stock where that would be less than none."""
    row = one(tx, owner, product_id)
    if type(count) is not int or abs(count) > STOCK_MAX:
        raise Refusal("bad_stock", f"count: a whole number between -{STOCK_MAX} and {STOCK_MAX}.")
    if row["stock"] is None:
        raise Refusal("bad_stock", "This product is unlimited; set a stock first.")
    left: int = row["stock"] + count
    if left < 0:
        raise Refusal("out_of_stock", f"There are {row['stock']} of {product_id}; {-count} cannot be taken away.")
    _write(tx, product_id, by, stock=_stock(left))
    by.write_down(tx, "product.stock_changed", product_id, f"{count:+d} {reason}".strip())
    return left


def one(tx: Connection, owner: Owner, product_id: str) -> dict[str, Any]:
    """Raises NotFound, also for another merchant's."""
    return find(tx, products, owner, product_id, "product")


def listed(
    tx: Connection, owner: Owner, *, before: str = "", limit: int = 50, active: bool | None = None
) -> list[dict[str, Any]]:
    """Newest first."""
    query = mine(products, owner)
    if active is not None:
        query = query.where(products.c.active == active)
    return page_of(tx, query, products, before, limit)


def public(row: Any) -> dict[str, Any]:
    """As merchants see it."""
    return {
        "id": row["id"],
        "name": row["name"],
        "price": row["price_minor"],
        "currency": row["currency"],
        "stock": row["stock"],
        "active": bool(row["active"]),
        "live": bool(row["live"]),
        "created_at": rfc3339(row["created_at_ms"]),
        "updated_at": rfc3339(row["updated_at_ms"]),
    }


def _write(tx: Connection, product_id: str, by: By, **values: Any) -> None:
    tx.execute(update(products).where(products.c.id == product_id).values(**values, updated_at_ms=by.now_ms))


def _name(name: str) -> str:
    stripped = a_text("name", name, NAME_CHARACTERS_MAX).strip()
    if not stripped or not stripped.isprintable():
        raise Refusal("bad_name", f"name: 1 to {NAME_CHARACTERS_MAX} printable characters.")
    return stripped


def _stock(stock: int | None) -> int | None:
    return None if stock is None else a_count("stock", stock, 0, STOCK_MAX)
