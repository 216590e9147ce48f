"""`/v1/products`: what a shop sells, and how much of it is left."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection

from service.api.problems import Wrong
from service.api.v1.kit import Call, Resource
from service.api.v1.lists import PageQuery, page
from service.api.v1.shapes import Amount, Currency, Text
from service.orders import products

PRODUCTS = Resource("products")
READ, WRITE = "products:read", "products:write"

Name = Annotated[str, Meta(min_length=1, max_length=products.NAME_CHARACTERS_MAX)]
Stock = Annotated[int, Meta(ge=0, le=products.STOCK_MAX, description="Free to be sold; null: unlimited.")]


class Product(msgspec.Struct):
    """`price` in minor units of `currency`; `stock` null: unlimited."""

    id: str
    name: str
    price: int
    currency: str
    stock: int | None
    active: bool
    live: bool
    created_at: str
    updated_at: str


class Products(msgspec.Struct):
    """A page; `next` goes into the next request's `after`."""

    data: list[Product]
    next: str
    more: bool


class NewProduct(msgspec.Struct, forbid_unknown_fields=True):
    """A product to be sold."""

    name: Name
    price: Amount
    currency: Currency
    stock: Stock | None = None


class ProductChanges(msgspec.Struct, forbid_unknown_fields=True):
    """What is given is changed; orders keep the price they were made with."""

    name: Name | UnsetType = UNSET
    price: Amount | UnsetType = UNSET
    active: bool | UnsetType = UNSET


class StockChange(msgspec.Struct, forbid_unknown_fields=True):
    """Either `set` (null: unlimited), or `add`, which may be negative. What orders hold is not counted."""

    set: Stock | UnsetType | None = UNSET
    add: Annotated[int, Meta(ge=-products.STOCK_MAX, le=products.STOCK_MAX)] | UnsetType = UNSET
    reason: Text = ""


class ProductsQuery(PageQuery, kw_only=True):
    """Which products."""

    active: bool | UnsetType = UNSET


@PRODUCTS.get("/products", READ, Products)
async def list_products(call: Call, query: ProductsQuery) -> Any:
    """Products, the newest first."""
    active = None if query.active is UNSET else query.active

    def look(tx: Connection) -> dict[str, Any]:
        def fetch(before: str, limit: int) -> list[dict[str, Any]]:
            return products.listed(tx, call.caller, before=before, limit=limit, active=active)

        return page(query, fetch, products.public)

    return await call.read(look)


@PRODUCTS.post("/products", WRITE, Product, status=201)
async def create_product(call: Call, body: NewProduct) -> Any:
    """Add a product."""
    hand = call.by

    def work(tx: Connection) -> dict[str, Any]:
        made = products.create(
            tx, call.caller, hand, name=body.name, price_minor=body.price, currency=body.currency, stock=body.stock
        )
        return _shown(tx, call, made)

    return await call.write(work)


@PRODUCTS.get("/products/{product}", READ, Product)
async def get_product(call: Call, product: str) -> Any:
    """One product."""
    return await call.read(_shown, call, product)


@PRODUCTS.patch("/products/{product}", WRITE, Product)
async def change_product(call: Call, product: str, body: ProductChanges) -> Any:
    """Change a product's name or price, or whether it is sold."""
    hand = call.by

    def work(tx: Connection) -> dict[str, Any]:
        given = {"name": body.name, "price_minor": body.price, "active": body.active}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not UNSET}
        products.change(tx, call.caller, product, hand, **changes)
        return _shown(tx, call, product)

    return await call.write(work)


@PRODUCTS.delete("/products/{product}", WRITE)
async def delete_product(call: Call, product: str) -> None:
    """Sell a product no more.

    It stays readable, with `active` false, since orders name it.
    """
    hand = call.by
    await call.write(lambda tx: products.change(tx, call.caller, product, hand, active=False))


@PRODUCTS.post("/products/{product}/stock", WRITE, Product)
async def change_stock(call: Call, product: str, body: StockChange) -> Any:
    """Set a product's stock, or add to it."""
    hand = call.by
    if (body.set is UNSET) == (body.add is UNSET):
        raise Wrong("bad_stock", "set", "set: either set or add has to be given, and not both.")

    def work(tx: Connection) -> dict[str, Any]:
        if body.add is not UNSET:
            products.add_stock(tx, call.caller, product, hand, body.add, body.reason)
        elif body.set is not UNSET:
            products.set_stock(tx, call.caller, product, hand, body.set, body.reason)
        return _shown(tx, call, product)

    return await call.write(work)


def _shown(tx: Connection, call: Call, product: str) -> dict[str, Any]:
    return products.public(products.one(tx, call.caller, product))
