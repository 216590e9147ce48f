"""Payment links: something to send or print that makes a session for whoever opens it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from outbox.queue import Queue
from service.errors import NotFound, Refusal
from service.ids import Ids
from service.merchants.audit import By
from service.merchants.events import rfc3339
from service.merchants.tables import merchants
from service.orders.fields import a_count, a_country, a_text, an_amount, some_methods
from service.orders.orders import QUANTITY_MAX
from service.orders.owner import Owner, find, mine, page_of, row_of
from service.orders.sessions import NewSession, Offer, OfLink
from service.orders.sessions import create as create_session
from service.orders.shown import words
from service.orders.states import Session
from service.orders.tables import links, products, sessions
from service.payments.wish import URL_MAX
from service.providers.calls import METHODS

USES_MAX = 1_000_000
OPEN_SESSIONS_MAX = 1_000
"""Of one link at a time. A link is public; this is what somebody who only opens it can make us keep."""
SUBMITTED = (Session.PROCESSING, Session.EXPIRING, Session.CANCELING, Session.COMPLETE)
ACTOR = "link"


@dataclass(frozen=True, slots=True)
class LinkDraft:
    """
    What a link asks for: `amount_minor`, or what the buyer says between `min_minor` and `max_minor`, each with a
    currency; or so many of a product at its price of the day. `max_uses`: payments begun or made; None: no limit.
    """

    currency: str = ""
    amount_minor: int | None = None
    min_minor: int | None = None
    max_minor: int | None = None
    product_id: str = ""
    quantity: int = 1
    description: str = ""
    reference: str = ""
    methods: tuple[str, ...] = METHODS
    country: str = ""
    return_url: str = ""
    max_uses: int | None = None


def create(tx: Connection, owner: Owner, draft: LinkDraft, by: By) -> str:
    """An active link. Raises Refusal bad_…; NotFound for the product."""
    currency = draft.currency
    if draft.product_id:
        product = find(tx, products, owner, draft.product_id, "product")
        if draft.amount_minor is not None or draft.min_minor is not None or draft.max_minor is not None:
            raise Refusal("bad_amount", "amount: a link with a product has the product's price.")
        if currency not in ("", product["currency"]):
            raise Refusal("bad_currency", f"currency: the product is in {product['currency']}.")
        currency = product["currency"]
    bounds = [("amount", draft.amount_minor), ("min_amount", draft.min_minor), ("max_amount", draft.max_minor)]
    for name, value in bounds:
        if value is not None:
            an_amount(name, value, currency)
    if draft.amount_minor is not None and (draft.min_minor is not None or draft.max_minor is not None):
        raise Refusal("bad_amount", "amount: either an amount, or min_amount and max_amount.")
    chosen = draft.min_minor is not None and draft.max_minor is not None and draft.min_minor <= draft.max_minor
    if not draft.product_id and draft.amount_minor is None and not chosen:
        raise Refusal("bad_amount", "amount: an amount, a product, or min_amount and max_amount to choose between.")
    link_id = by.ids("lnk")
    row = {
        "id": link_id,
        "merchant_id": owner.merchant_id,
        "live": owner.live,
        "active": True,
        "amount_minor": draft.amount_minor,
        "min_minor": draft.min_minor,
        "max_minor": draft.max_minor,
        "currency": currency,
        "product_id": draft.product_id or None,
        "quantity": a_count("quantity", draft.quantity, 1, QUANTITY_MAX),
        "description": a_text("description", draft.description),
        "reference": a_text("reference", draft.reference) or None,
        "methods": some_methods(draft.methods),
        "country": a_country(draft.country),
        "return_url": a_text("return_url", draft.return_url, URL_MAX),
        "max_uses": _uses(draft.max_uses),
        "created_at_ms": by.now_ms,
        "updated_at_ms": by.now_ms,
    }
    tx.execute(insert(links), row)
    by.write_down(tx, "link.created", link_id)
    return link_id


KEEP: Any = object()
"""For `change`: leave it as it is, where None means something."""


def change(
    tx: Connection,
    owner: Owner,
    link_id: str,
    by: By,
    *,
    active: bool | None = None,
    description: str | None = None,
    max_uses: int | None = KEEP,
) -> None:
    """Change what is given. Sessions that were opened stay as they are."""
    find(tx, links, owner, link_id, "link")
    values: dict[str, Any] = {}
    if active is not None:
        values["active"] = active
    if description is not None:
        values["description"] = a_text("description", description)
    if max_uses is not KEEP:
        values["max_uses"] = _uses(max_uses)
    if values:
        tx.execute(update(links).where(links.c.id == link_id).values(**values, updated_at_ms=by.now_ms))
        by.write_down(tx, "link.changed", link_id, ", ".join(sorted(values)))


def one(tx: Connection, owner: Owner, link_id: str) -> dict[str, Any]:
    """The row with `uses`. Raises NotFound, also for another merchant's."""
    return _with_uses(tx, [find(tx, links, owner, link_id, "link")])[0]


def listed(
    tx: Connection, owner: Owner, *, before: str = "", limit: int = 50, active: bool | None = None
) -> list[dict[str, Any]]:
    """Newest first, each with `uses`."""
    query = mine(links, owner)
    if active is not None:
        query = query.where(links.c.active == active)
    return _with_uses(tx, page_of(tx, query, links, before, limit))


def public(row: Mapping[str, Any]) -> dict[str, Any]:
    """As merchants see it. `uses` counts payments begun and made, not pages opened."""
    return {
        "id": row["id"],
        "active": bool(row["active"]),
        "amount": row["amount_minor"],
        "min_amount": row["min_minor"],
        "max_amount": row["max_minor"],
        "currency": row["currency"],
        "product": row["product_id"],
        "quantity": row["quantity"],
        "description": row["description"],
        "reference": row["reference"],
        "methods": words(row["methods"]),
        "country": row["country"],
        "return_url": row["return_url"],
        "max_uses": row["max_uses"],
        "uses": row["uses"],
        "live": bool(row["live"]),
        "created_at": rfc3339(row["created_at_ms"]),
        "updated_at": rfc3339(row["updated_at_ms"]),
    }


def page(tx: Connection, link_id: str) -> dict[str, Any]:
    """
    What the buyer may see before opening it: the row, `merchant_name`, `product_name`, `price_minor` (None: the buyer
    says), and `closed_reason` (None: it can be opened): link_inactive, link_used_up, out_of_stock, merchant_disabled.
    """
    row = _row(tx, link_id)
    merchant = tx.execute(select(merchants).where(merchants.c.id == row["merchant_id"])).mappings().one()
    product = _product(tx, row)
    seen = {
        "merchant_name": merchant["name"],
        "product_name": product["name"] if product else None,
        "price_minor": product["price_minor"] * row["quantity"] if product else row["amount_minor"],
    }
    try:
        _refuse_closed(tx, row, product, merchant["status"])
    except Refusal as closed:
        return row | seen | {"open": False, "closed_reason": closed.code}
    return row | seen | {"open": True, "closed_reason": None}


def open_link(
    tx: Connection,
    queue: Queue,
    link_id: str,
    ids: Ids,
    now_ms: int,
    *,
    amount_minor: int | None = None,
    locale: str = "fr",
) -> NewSession:
    """
    A session of one's own. A product is ordered, and its stock taken, with the first submit: looking is not buying.

    Raises Refusal: link_inactive, link_used_up, out_of_stock, merchant_disabled, bad_amount, link_busy; NotFound.
    """
    row = _row(tx, link_id)
    product = _product(tx, row)
    status = tx.execute(select(merchants.c.status).where(merchants.c.id == row["merchant_id"])).scalar_one()
    _refuse_closed(tx, row, product, status)
    still_open = select(sessions.c.id).where(sessions.c.link_id == link_id, sessions.c.state == Session.OPEN)
    if len(tx.execute(still_open.limit(OPEN_SESSIONS_MAX)).all()) >= OPEN_SESSIONS_MAX:
        raise Refusal("link_busy", "Too many have this link open; try again in a few minutes.")
    if product is not None:
        asked_minor = product["price_minor"] * row["quantity"]
    elif row["amount_minor"] is not None:
        asked_minor = row["amount_minor"]
    elif amount_minor is None:
        raise Refusal("bad_amount", "amount: say how much.")
    else:
        asked_minor = a_count("amount", amount_minor, row["min_minor"], row["max_minor"])
    if amount_minor not in (None, asked_minor):
        raise Refusal("bad_amount", f"amount: this link asks for {asked_minor} {row['currency']}.")
    offer = Offer(
        currency=row["currency"],
        amount_minor=asked_minor,
        description=row["description"] or (product["name"] if product else ""),
        reference=row["reference"] or "",
        methods=tuple(words(row["methods"])),
        country=row["country"],
        locale=locale,
        return_url=row["return_url"],
    )
    of_link = OfLink(link_id, row["product_id"], row["quantity"])
    return create_session(tx, queue, row_of(row), offer, By(ACTOR, now_ms, ids), of_link)


def refuse_used_up(tx: Connection, link_id: str, session_id: str) -> None:
    """Within the transaction of a submit: Refusal link_used_up when others have all the uses."""
    max_uses = tx.execute(select(links.c.max_uses).where(links.c.id == link_id)).scalar()
    others = select(func.count()).where(
        sessions.c.link_id == link_id, sessions.c.state.in_(SUBMITTED), sessions.c.id != session_id
    )
    if max_uses is not None and tx.execute(others).scalar_one() >= max_uses:
        raise Refusal("link_used_up", "Others have paid this link as often as it may be, or are about to.")


def _refuse_closed(tx: Connection, row: Mapping[str, Any], product: Mapping[str, Any] | None, status: str) -> None:
    if status != "active":
        raise Refusal("merchant_disabled", "This shop takes no payments at the moment.")
    if not row["active"] or (product is not None and not product["active"]):
        raise Refusal("link_inactive", "This link is not in use any more.")
    if (
        row["max_uses"] is not None
        and _count(tx, [row["id"]], (Session.COMPLETE,)).get(row["id"], 0) >= row["max_uses"]
    ):
        raise Refusal("link_used_up", "This link has been paid as often as it may be.")
    if product is not None and product["stock"] is not None and product["stock"] < row["quantity"]:
        raise Refusal("out_of_stock", "There is none left.")


def _row(tx: Connection, link_id: str) -> dict[str, Any]:
    row = tx.execute(select(links).where(links.c.id == link_id)).mappings().one_or_none()
    if row is None:
        raise NotFound("link", link_id, "GET /v1/links")
    return dict(row)


def _product(tx: Connection, row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if row["product_id"] is None:
        return None
    return dict(tx.execute(select(products).where(products.c.id == row["product_id"])).mappings().one())


def _count(tx: Connection, link_ids: list[str], states: tuple[str, ...]) -> dict[str, int]:
    query = (
        select(sessions.c.link_id, func.count())
        .where(sessions.c.link_id.in_(link_ids), sessions.c.state.in_(states))
        .group_by(sessions.c.link_id)
    )
    return {row[0]: row[1] for row in tx.execute(query)}


def _with_uses(tx: Connection, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    uses = _count(tx, [row["id"] for row in rows], SUBMITTED)
    return [row | {"uses": uses.get(row["id"], 0)} for row in rows]


def _uses(max_uses: int | None) -> int | None:
    return None if max_uses is None else a_count("max_uses", max_uses, 1, USES_MAX)
