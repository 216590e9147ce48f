"""settlements add | list"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from service.commands.shape import LIMIT, bounded, by
from service.errors import Refusal
from service.ledger import settlements
from service.ledger.settlements import Settlement, public

if TYPE_CHECKING:
    from service.application import Application


async def add(
    app: Application,
    *,
    account: str,
    amount: int,
    currency: str,
    reference: str,
    fee: int = 0,
    settled_at: str = "",
    note: str = "",
    actor: str = "cli",
) -> dict[str, Any]:
    """Record what a provider has sent to your bank, or below zero what you sent to it; the same again is nothing."""
    draft = Settlement(account, amount, currency, reference, at_ms(settled_at), fee, note)
    hand = by(app, actor)
    return public(await app.db.write(lambda tx: settlements.record(tx, draft, hand, queue=app.queue)))


async def listed(
    app: Application, *, account: str | None = None, merchant: str | None = None, after: str = "", limit: int = LIMIT
) -> list[dict[str, Any]]:
    """Settlements, the newest first; `after` is the last id of the page before."""
    most = bounded(limit)
    rows = await app.db.read(
        lambda tx: settlements.all_listed(tx, account=account, merchant=merchant, before=after, limit=most)
    )
    return [public(row) for row in rows]


def at_ms(settled_at: str) -> int | None:
    """A time as somebody writes it, a day too (its begin, UTC); nothing is now. Raises Refusal bad_settled_at."""
    if not settled_at:
        return None
    try:
        at = datetime.fromisoformat(settled_at)
        return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise Refusal("bad_settled_at", "settled_at: a day or a time such as 2026-11-20T09:00:00Z.") from None
