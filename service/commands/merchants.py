"""merchant create | list | disable"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from service.commands.endpoints import check_address, holding
from service.commands.shape import by, told
from service.merchants import merchants

if TYPE_CHECKING:
    from service.application import Application


async def create(
    app: Application, *, name: str, webhook_url: str | None = None, events: str = "*", actor: str = "cli"
) -> dict[str, Any]:
    """Create a merchant with an API key and, given a URL, an endpoint; key and secret are shown this once."""
    if webhook_url:
        check_address(app, webhook_url)
    hand = by(app, actor)

    def work(tx: Connection) -> merchants.NewMerchant:
        return merchants.create(
            tx, name, app.settings.live, hand, app.seal, app.revive_waiting, webhook_url or None, events
        )

    made = await app.db.write(work)
    await app.reload_registry()
    app.nudge()
    endpoint = made.endpoint
    return {
        "id": made.id,
        "api_key": made.key.key,
        "endpoint": {"id": endpoint.id, "url": endpoint.url, "secret": endpoint.secret} if endpoint else None,
        "accounts": list(made.adopted),
    }


async def listed(app: Application) -> list[dict[str, Any]]:
    """All merchants."""
    return [told(row) for row in await app.db.read(merchants.listed)]


async def disable(app: Application, *, merchant: str, reason: str = "", actor: str = "cli") -> dict[str, Any]:
    """Refuse a merchant's keys and keep its webhooks aside; callbacks about its payments are still taken."""
    hand = by(app, actor)
    changed = await app.db.write(
        lambda tx: merchants.disable(tx, merchant, reason, hand, holding(app, "merchant disabled"))
    )
    return {"id": merchant, "status": "disabled", "changed": changed}
