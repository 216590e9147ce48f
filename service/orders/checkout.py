"""What a buyer does with a session: submit a way to pay, type a code, ask how it stands."""

from __future__ import annotations

from typing import Any, Protocol

from sqlalchemy import Connection, select, update

from outbox.queue import Queue
from service.database import Database
from service.errors import NotFound, Refusal
from service.ids import Clock, Ids
from service.merchants.audit import By
from service.merchants.tables import merchants
from service.orders import links, sessions, verify
from service.orders import orders as order_steps
from service.orders.orders import EXPIRES_MS_MAX, EXPIRES_MS_MIN, Draft, Line
from service.orders.owner import row_of
from service.orders.tables import sessions as session_table
from service.payments.desk import Begun
from service.payments.heard import Context
from service.payments.wish import Wish
from service.providers.calls import Customer, Method

ACTOR = "buyer"


class Desk(Protocol):
    """As much of `payments.desk.Desk` as buyers need."""

    async def create(self, wish: Wish, begun: Begun | None = None) -> str: ...

    async def otp(self, payment_id: str, code: str) -> None: ...

    async def sync(self, payment_id: str, limit_ms: int = ...) -> bool: ...


class Checkout:
    """Over the desk, which does all that concerns providers."""

    def __init__(self, db: Database, desk: Desk, queue: Queue, ids: Ids, clock: Clock) -> None:
        self._db, self._desk, self._queue, self._ids, self._clock = db, desk, queue, ids, clock

    async def submit(
        self,
        session_id: str,
        *,
        method: Method,
        operator: str = "",
        payer_phone: str = "",
        country: str = "",
        customer: Customer | None = None,
        embedded: bool = False,
        return_url: str = "",
    ) -> str:
        """
        Begin a payment; comes back with its id when the provider has answered. Of many at the same moment one begins.

        Raises Refusal: session_not_open, prompt_open, no_tries_left, bad_method, order_not_payable, out_of_stock,
        link_used_up, merchant_disabled, and what `Desk.create` says; NotFound.
        """
        row, buyer = await self._db.read(_look, session_id)
        sessions.refuse_closed(row, self._clock())
        if method not in row["methods"].split(","):
            raise Refusal("bad_method", f"method: one of {row['methods'].replace(',', ', ')}.")
        order_id = row["order_id"] or (self._ids("ord") if row["product_id"] else None)
        wish = Wish(
            merchant_id=row["merchant_id"],
            live=bool(row["live"]),
            amount_minor=row["amount_minor"],
            currency=row["currency"],
            method=method,
            reference=row["reference"] or "",
            description=row["description"],
            customer=customer if customer is not None else buyer,
            payer_phone=payer_phone,
            operator=operator,
            country=country or row["country"],
            return_url=return_url or row["return_url"],
            order_id=order_id,
            session_id=session_id,
            embedded=embedded,
            locale=row["locale"],
            expires_at_ms=row["expires_at_ms"],
        )
        return await self._desk.create(wish, lambda tx, payment_id: self._begin(tx, payment_id, session_id, order_id))

    def _begin(self, tx: Connection, payment_id: str, session_id: str, order_id: str | None) -> None:
        """In the transaction that records the payment: the session is taken, and with a product the order is made."""
        now_ms = self._clock()
        row = sessions.begin(tx, Context(self._queue, self._ids, now_ms), session_id, payment_id)
        if row["link_id"] is not None:
            links.refuse_used_up(tx, row["link_id"], session_id)
        if row["product_id"] is not None and row["order_id"] is None:
            by = By(ACTOR, now_ms, self._ids)
            ends_at_ms = min(max(row["expires_at_ms"], now_ms + EXPIRES_MS_MIN), now_ms + EXPIRES_MS_MAX)
            # At the price that the session was opened with, whatever the product costs by now.
            line = Line(row["quantity"], row["product_id"], unit_minor=row["amount_minor"] // row["quantity"])
            draft = Draft((line,), row["currency"], row["amount_minor"], row["reference"] or "", row["description"],
                          ends_at_ms)  # fmt: skip
            order_steps.create(tx, self._queue, row_of(row), draft, by, order_id)
            tx.execute(update(session_table).where(session_table.c.id == session_id).values(order_id=order_id))

    async def otp(self, session_id: str, code: str) -> None:
        """The code that the payer typed, for the session's payment. Raises what `Desk.otp` says; NotFound."""
        row, _ = await self._db.read(_look, session_id)
        if row["payment_id"] is None:
            raise Refusal("not_waiting_for_otp", f"The session {session_id} does not wait for a code.")
        await self._desk.otp(row["payment_id"], code)

    async def verify(self, session_id: str, client_secret: str, locale: str = "") -> dict[str, Any]:
        """How it stands (`verify.answer`), for who has the secret. Raises NotFound."""
        return await verify.verify(self._db, self._desk.sync, self._clock, session_id, client_secret, locale)


def _look(tx: Connection, session_id: str) -> tuple[dict[str, Any], Customer]:
    query = select(session_table, merchants.c.status.label("merchant_status")).join(
        merchants, merchants.c.id == session_table.c.merchant_id
    )
    row = tx.execute(query.where(session_table.c.id == session_id)).mappings().one_or_none()
    if row is None:
        raise NotFound("session", session_id, "POST /v1/sessions")
    if row["merchant_status"] != "active":
        raise Refusal("merchant_disabled", "This shop takes no payments at the moment.")
    return dict(row), sessions.buyer(tx, session_id)
