"""
Checkout sessions: one buyer, one amount, as many attempts as it has tries, one live at a time.

A session is on disk before any provider hears of it. Its client secret is shown once and kept as a hash: who has it
may submit, confirm and ask how it stands, and sees no personal data.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection, insert, select

from outbox.queue import Queue
from service.errors import NotFound, Refusal
from service.merchants.audit import By
from service.merchants.events import tell
from service.merchants.tables import merchants
from service.orders import orders as order_steps
from service.orders import shown
from service.orders.fields import a_count, a_country, a_locale, a_text, an_amount, some_metadata, some_methods
from service.orders.owner import LISTED_MAX, Owner, find
from service.orders.settle import Affairs, expiry
from service.orders.states import Happens, Order, Session
from service.orders.tables import buyers, orders, sessions
from service.payments.heard import Context
from service.payments.tables import attempts, payments
from service.payments.wish import URL_MAX
from service.providers.calls import METHODS, Customer

MINUTE = 60_000
EXPIRES_IN_MS, EXPIRES_IN_MS_MIN, EXPIRES_IN_MS_MAX = 60 * MINUTE, 30 * MINUTE, 24 * 60 * MINUTE
TRIES, TRIES_MAX = 5, 20
SECRET_PREFIX = "cs_"  # noqa: S105 - how it begins, not what it is
SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Offer:
    """
    What a buyer is asked for: an amount with its currency, or an order, and then what is left of it. `return_url` was
    checked (`return_urls.py`). `customer` is kept apart, and shown to nobody but the provider.
    """

    currency: str = ""
    amount_minor: int | None = None
    order_id: str = ""
    description: str = ""
    reference: str = ""
    methods: tuple[str, ...] = METHODS
    country: str = ""
    locale: str = "fr"
    return_url: str = ""
    customer: Customer = field(default_factory=Customer)
    metadata: Mapping[str, str] = field(default_factory=dict)
    expires_in_ms: int = EXPIRES_IN_MS
    tries: int = TRIES


@dataclass(frozen=True, slots=True)
class OfLink:
    """Where a session came from, when it was a payment link; the product is ordered with the first submit."""

    link_id: str
    product_id: str | None = None
    quantity: int = 1


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session with its secret, this once."""

    id: str
    client_secret: str = field(repr=False)


def create(
    tx: Connection, queue: Queue, owner: Owner, offer: Offer, by: By, of_link: OfLink | None = None
) -> NewSession:
    """
    An open session. With an order it ends no later than the order does.

    Raises Refusal: bad_… , order_not_payable, NotFound for the order.
    """
    expires_at_ms = by.now_ms + a_count("expires_in_ms", offer.expires_in_ms, EXPIRES_IN_MS_MIN, EXPIRES_IN_MS_MAX)
    amount_minor, currency = offer.amount_minor, offer.currency
    if offer.order_id:
        order = find(tx, orders, owner, offer.order_id, "order")
        left_minor = order["amount_minor"] - order["paid_minor"]
        if order["state"] != Order.AWAITING_PAYMENT or left_minor <= 0 or order["expires_at_ms"] <= by.now_ms:
            raise Refusal(
                "order_not_payable", f"The order {offer.order_id} is {order['state']}; nothing is left to pay."
            )
        if amount_minor not in (None, left_minor) or currency not in ("", order["currency"]):
            raise Refusal("bad_amount", f"amount: {left_minor} {order['currency']} of the order are left to pay.")
        amount_minor, currency = left_minor, order["currency"]
        expires_at_ms = min(expires_at_ms, order["expires_at_ms"])
    if amount_minor is None:
        raise Refusal("bad_amount", "amount: an amount with its currency, or an order.")
    secret = SECRET_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    session_id = by.ids("ses")
    row = {
        "id": session_id,
        "merchant_id": owner.merchant_id,
        "live": owner.live,
        "state": Session.OPEN.value,
        "order_id": offer.order_id or None,
        "link_id": of_link.link_id if of_link else None,
        "product_id": of_link.product_id if of_link else None,
        "quantity": of_link.quantity if of_link else 1,
        "amount_minor": an_amount("amount", amount_minor, currency),
        "currency": currency,
        "description": a_text("description", offer.description),
        "reference": a_text("reference", offer.reference) or None,
        "methods": some_methods(offer.methods),
        "country": a_country(offer.country),
        "locale": a_locale(offer.locale),
        "return_url": a_text("return_url", offer.return_url, URL_MAX),
        "metadata": some_metadata(offer.metadata),
        "secret": _hash(secret),
        "tries_left": a_count("tries", offer.tries, 1, TRIES_MAX),
        "created_at_ms": by.now_ms,
        "updated_at_ms": by.now_ms,
        "expires_at_ms": expires_at_ms,
    }
    tx.execute(insert(sessions), row)
    if offer.customer != Customer():
        checked = {name: a_text("customer", value) for name, value in asdict(offer.customer).items()}
        tx.execute(insert(buyers), {"session_id": session_id, **checked})
    queue.enqueue(tx, [expiry(session_id, expires_at_ms, by.now_ms)], by.now_ms)
    by.write_down(tx, "session.created", session_id)
    return NewSession(session_id, secret)


def one(tx: Connection, owner: Owner, session_id: str) -> dict[str, Any]:
    """Raises NotFound, also for another merchant's."""
    row = _seen(tx, session_id)
    if row is None or row["merchant_id"] != owner.merchant_id or bool(row["live"]) != owner.live:
        raise NotFound("session", session_id, "GET /v1/sessions")
    return row


def listed(
    tx: Connection,
    owner: Owner,
    *,
    before: str = "",
    limit: int = 50,
    state: str | None = None,
    order_id: str | None = None,
) -> list[dict[str, Any]]:
    """Newest first."""
    if not 1 <= limit <= LISTED_MAX:
        raise Refusal("bad_limit", f"limit: 1 to {LISTED_MAX}.")
    query = shown.SESSIONS.where(sessions.c.merchant_id == owner.merchant_id, sessions.c.live == owner.live)
    if before:
        query = query.where(sessions.c.id < before)
    if state is not None:
        query = query.where(sessions.c.state == state)
    if order_id is not None:
        query = query.where(sessions.c.order_id == order_id)
    return [dict(row) for row in tx.execute(query.order_by(sessions.c.id.desc()).limit(limit)).mappings()]


def public(row: Mapping[str, Any]) -> dict[str, Any]:
    """As merchants see it; of a row as `one`, `listed`, `authorize` and `page` give it."""
    return shown.session(row)


def authorize(tx: Connection, session_id: str, client_secret: str) -> dict[str, Any]:
    """
    The row, for who has the secret. NotFound says nothing about which of the two was wrong, and takes as long.
    """
    row = _seen(tx, session_id)
    kept = row["secret"] if row is not None else bytes(hashlib.sha256().digest_size)
    given = client_secret.encode(errors="replace") if len(client_secret) <= 200 else b""
    if not hmac.compare_digest(kept, hashlib.sha256(given).digest()) or row is None:
        raise NotFound("session", session_id, "POST /v1/sessions")
    return row


def page(tx: Connection, session_id: str) -> dict[str, Any]:
    """
    What the buyer's page needs: the row, the merchant's name, the order's lines, and of the last payment what the payer
    has to do (`action`). No personal data. Raises NotFound.
    """
    row = _seen(tx, session_id)
    if row is None:
        raise NotFound("session", session_id, "POST /v1/sessions")
    name = tx.execute(select(merchants.c.name).where(merchants.c.id == row["merchant_id"])).scalar_one()
    lines = shown.lines_of(tx, [row["order_id"]])[row["order_id"]] if row["order_id"] else []
    of_payment: dict[str, Any] = dict.fromkeys(("payment_exceptions", "method", "operator", "provider", "action"))
    of_payment["otp_tries"] = 0
    if row["payment_id"]:
        seen = select(payments.c.exceptions, payments.c.method, payments.c.operator, payments.c.provider)
        payment = tx.execute(seen.where(payments.c.id == row["payment_id"])).mappings().one_or_none()
        last = select(attempts.c.action, attempts.c.otp_tries).where(attempts.c.payment_id == row["payment_id"])
        attempt = tx.execute(last.order_by(attempts.c.id.desc()).limit(1)).mappings().one_or_none()
        if payment is not None and attempt is not None:
            of_payment |= {**payment, "payment_exceptions": shown.words(payment["exceptions"])}
            del of_payment["exceptions"]
            waits = row["payment_status"] == "requires_action"
            of_payment["action"] = json.loads(attempt["action"]) if waits and attempt["action"] else None
            of_payment["otp_tries"] = attempt["otp_tries"]
    del row["secret"]
    return row | of_payment | {"merchant_name": name, "lines": lines}


def cancel(tx: Connection, queue: Queue, owner: Owner, session_id: str, by: By, reason: str = "") -> str:
    """
    Only an open one: while a payment is under way, that is what has to be cancelled first. Returns the state; again
    changes nothing.

    Raises Refusal: payment_under_way, session_not_open.
    """
    row = one(tx, owner, session_id)
    if row["state"] in (Session.CANCELING, Session.CANCELED):
        return str(row["state"])
    if row["state"] in (Session.PROCESSING, Session.EXPIRING):
        raise Refusal("payment_under_way", f"The payment {row['payment_id']} is under way; cancel that first.")
    affairs = Affairs(tx, Context(queue, by.ids, by.now_ms))
    if affairs.move_session(row, Happens.CANCEL_WANTED) is None:
        raise Refusal("session_not_open", f"The session {session_id} is {row['state']}.")
    by.write_down(tx, "session.cancel_wanted", session_id, reason)
    return _wind_down(tx, queue, affairs, session_id, by)


def expire(tx: Connection, queue: Queue, owner: Owner, session_id: str, by: By, reason: str = "") -> str:
    """
    End it as if its time were up; what is under way is cancelled at its provider first. Returns the state; again
    changes nothing.

    Raises Refusal session_not_open: it is paid, or cancelled.
    """
    row = one(tx, owner, session_id)
    if row["state"] in (Session.EXPIRING, Session.EXPIRED):
        return str(row["state"])
    affairs = Affairs(tx, Context(queue, by.ids, by.now_ms))
    if affairs.move_session(row, Happens.TIME_UP) is None:
        raise Refusal("session_not_open", f"The session {session_id} is {row['state']}.")
    by.write_down(tx, "session.expire_wanted", session_id, reason)
    return _wind_down(tx, queue, affairs, session_id, by)


def _wind_down(tx: Connection, queue: Queue, affairs: Affairs, session_id: str, by: By) -> str:
    """Its end was wanted: what is live is called off, and where nothing is, it is over."""
    affairs.wind_down(session_id, affairs.live_payments(payments.c.session_id == session_id))
    affairs.settle(session_ids=[session_id])
    tell(tx, queue, affairs.done(), by.ids, by.now_ms)
    return str(tx.execute(select(sessions.c.state).where(sessions.c.id == session_id)).scalar_one())


def ended(tx: Connection, session_id: str | None, order_id: str | None) -> bool:
    """Whether either of them takes no new attempt any more, also none of a payment that was let in before."""
    state = select(sessions.c.state).where(sessions.c.id == session_id)
    if session_id and tx.execute(state).scalar() not in (Session.OPEN, Session.PROCESSING):
        return True
    state = select(orders.c.state).where(orders.c.id == order_id)
    return bool(order_id) and tx.execute(state).scalar() != Order.AWAITING_PAYMENT


def begin(tx: Connection, context: Context, session_id: str, payment_id: str) -> dict[str, Any]:
    """
    A payment of this session was recorded in this transaction: the session is `processing` from here on, or the payment
    is refused with all of it. Returns the row as it was.

    Raises Refusal: session_not_open, prompt_open, no_tries_left, and what `orders.admit` says.
    """
    row = dict(tx.execute(select(sessions).where(sessions.c.id == session_id)).mappings().one())
    refuse_closed(row, context.now_ms)
    affairs = Affairs(tx, context)
    affairs.move_session(row, Happens.SUBMITTED, payment_id=payment_id, tries_left=row["tries_left"] - 1)
    if row["order_id"] is not None:
        order_steps.admit(tx, payment_id)
    return row


def refuse_closed(row: Mapping[str, Any], now_ms: int) -> None:
    """Raises Refusal when the session takes no new attempt now."""
    if row["state"] == Session.PROCESSING:
        raise Refusal("prompt_open", f"The payment {row['payment_id']} still waits for the payer.")
    if row["state"] != Session.OPEN or row["expires_at_ms"] <= now_ms:
        state = "expired" if row["state"] == Session.OPEN else row["state"]
        raise Refusal("session_not_open", f"The session {row['id']} is {state}.")
    if row["tries_left"] < 1:
        raise Refusal("no_tries_left", f"All tries of the session {row['id']} are spent.")


def buyer(tx: Connection, session_id: str) -> Customer:
    """Who buys, for the provider alone."""
    row = tx.execute(select(buyers).where(buyers.c.session_id == session_id)).mappings().one_or_none()
    return Customer(row["name"], row["email"], row["phone"]) if row else Customer()


def _seen(tx: Connection, session_id: str) -> dict[str, Any] | None:
    row = tx.execute(shown.SESSIONS.where(sessions.c.id == session_id)).mappings().one_or_none()
    return dict(row) if row is not None else None


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
