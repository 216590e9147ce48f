"""
What a buyer does about an order whose money is held: confirm that it has come, or object.

They come with a token of their own, never with a merchant's key, so that nobody who sells can say it in their place.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, select

from outbox.queue import Queue
from service.errors import Refusal
from service.escrow.hold_rows import of_token
from service.escrow.holds import Holds
from service.escrow.states import HoldStep
from service.ids import Ids
from service.merchants.audit import REASON_CHARACTERS_MAX, By
from service.merchants.events import tell
from service.orders.fields import a_text
from service.orders.settle import Affairs
from service.orders.states import Happens
from service.orders.tables import orders
from service.payments.heard import Context

ACTOR: Final = "buyer"
WORDS_MAX: Final = REASON_CHARACTERS_MAX
"""Characters of an objection: as many as the audit trail keeps."""


class Buyer:
    """Holds what never changes."""

    def __init__(self, queue: Queue, holds: Holds, ids: Ids) -> None:
        self._queue, self._holds, self._ids = queue, holds, ids

    def confirm(self, tx: Connection, order_id: str, token: str, now_ms: int) -> dict[str, Any]:
        """
        A work: the buyer has what was bought. What is held is released, and the order is over. Again changes nothing.

        Raises Refusal: unauthorized (not this order's token), hold_frozen, refund_open, hold_refunded.
        """
        by = By(ACTOR, now_ms, self._ids)
        hold = of_token(tx, order_id, token)
        # Before the order moves: a delivery would only set the clock for what is released here.
        released = self._holds.release(tx, hold["id"], "", by, HoldStep.CONFIRMED)
        return _seen(self._end(tx, order_id, by), released)

    def dispute(self, tx: Connection, order_id: str, token: str, why: str, now_ms: int) -> dict[str, Any]:
        """
        A work: the buyer says, in their own words, that something is wrong. What is held is frozen. The first words
        count; again changes nothing.

        Raises Refusal: unauthorized, no_reason, bad_reason (too long), hold_released, hold_refunded.
        """
        hold = of_token(tx, order_id, token)
        words = a_text("reason", why.strip(), WORDS_MAX)
        if not words:
            raise Refusal("no_reason", "Say what is wrong: the shop reads it.")
        frozen = self._holds.dispute(tx, hold["id"], words, By(ACTOR, now_ms, self._ids))
        return _seen(_order(tx, order_id), frozen)

    def _end(self, tx: Connection, order_id: str, by: By) -> dict[str, Any]:
        """Delivered, if nobody had said so, and completed: as far as the table lets it go."""
        affairs = Affairs(tx, Context(self._queue, by.ids, by.now_ms))
        row = _order(tx, order_id)
        steps: tuple[tuple[Happens, str, dict[str, int]], ...] = (
            (Happens.DELIVERED, "order.delivered", {"delivered_at_ms": by.now_ms}),
            (Happens.COMPLETED, "order.completed", {}),
        )
        for what, word, more in steps:
            after = affairs.move_order(row, what, **more)
            if after is not None:
                by.write_down(tx, word, order_id)
                row = affairs.tell_order(after, word)
        tell(tx, self._queue, affairs.done(), by.ids, by.now_ms)
        return row


def _order(tx: Connection, order_id: str) -> dict[str, Any]:
    return dict(tx.execute(select(orders).where(orders.c.id == order_id)).mappings().one())


def _seen(order: dict[str, Any], hold: Any) -> dict[str, Any]:
    """As much as a buyer may know: how far it is, and nothing of the seller's."""
    return {"order": order["id"], "state": order["state"], "hold": hold["state"]}
