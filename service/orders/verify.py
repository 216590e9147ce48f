"""
How a session stands, for the page that waits for it: read from our own database, and the provider asked when nothing
has been heard for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sqlalchemy import Connection, select

from service.database import Database
from service.ids import Clock
from service.orders import sessions
from service.orders.rules import LIVE
from service.orders.states import status_of
from service.orders.tables import orders
from service.payments.wish import LOCALES

ASK_AFTER_MS = 30_000
ASK_LIMIT_MS = 2_000
"""A page waits for this. The desk asks at most once in ten seconds, however many pages wait."""
POLL_FIRST_MS, POLL_THEN_MS = 2_000, 5_000

_SUCCESS = ("paid", "refunded")
_PENDING = ("pending", "processing")

MESSAGES: Mapping[str, Mapping[str, str]] = {
    "pending": {"fr": "En attente du paiement.", "en": "Waiting for the payment."},
    "processing": {
        "fr": "Le paiement est en cours. Validez-le si votre téléphone le demande.",
        "en": "The payment is under way. Approve it if your phone asks you to.",
    },
    "paid": {"fr": "Le paiement est reçu. Merci.", "en": "The payment has come. Thank you."},
    "refunded": {"fr": "Le paiement a été remboursé.", "en": "The payment was refunded."},
    "failed": {"fr": "Le paiement n’a pas abouti.", "en": "The payment did not go through."},
    "cancelled": {"fr": "Le paiement a été annulé.", "en": "The payment was cancelled."},
    "expired": {"fr": "Le délai de paiement est dépassé.", "en": "The time to pay is over."},
    "held": {
        "fr": "Une somme est arrivée, mais pas comme prévu. La boutique la vérifie.",
        "en": "Money has come, but not as expected. The shop is looking into it.",
    },
}
"""By the session's status; `held`: money that nobody has called right yet."""

Sync = Callable[[str, int], Awaitable[bool]]


async def verify(
    db: Database, sync: Sync, clock: Clock, session_id: str, client_secret: str, locale: str = ""
) -> dict[str, Any]:
    """`answer` for who has the secret; a wait of more than 30 s makes us ask first. Raises NotFound."""
    row, order = await db.read(_look, session_id, client_secret)
    if row["payment_status"] in LIVE and clock() - row["created_at_ms"] >= ASK_AFTER_MS:
        try:
            async with asyncio.timeout(ASK_LIMIT_MS / 1000):
                await sync(row["payment_id"], ASK_LIMIT_MS)
        except TimeoutError:
            pass  # what it hears is written all the same, and the next look finds it
        row, order = await db.read(_look, session_id, client_secret)
    return answer(row, order, locale, clock())


def _look(tx: Connection, session_id: str, client_secret: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    row = sessions.authorize(tx, session_id, client_secret)
    order = None
    if row["order_id"] is not None:
        columns = (orders.c.id, orders.c.state, orders.c.payment_status, orders.c.reference)
        order = dict(tx.execute(select(*columns).where(orders.c.id == row["order_id"])).mappings().one())
    return row, order


def answer(row: Mapping[str, Any], order: Mapping[str, Any] | None, locale: str, now_ms: int) -> dict[str, Any]:
    """
    {"status": success | pending | error, "state": the session's status, "message", "order", "poll_after_ms": None when
    nothing will change by itself}. No personal data: who has the secret may be anybody the link was sent to.
    """
    state = status_of(row["state"], row["ended_by"], row["payment_status"])
    money = row["payment_status"] in ("succeeded", "partially_refunded")
    word = "held" if money and state not in _SUCCESS else state
    language = locale if locale in LOCALES else row["locale"]
    pending = state in _PENDING
    poll_after_ms = POLL_FIRST_MS if now_ms - row["created_at_ms"] < ASK_AFTER_MS else POLL_THEN_MS
    return {
        "status": "success" if state in _SUCCESS else "pending" if pending else "error",
        "state": state,
        "message": MESSAGES[word][language],
        "order": order,
        "poll_after_ms": poll_after_ms if pending else None,
    }
