"""account add | list | rotate"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from service.commands.shape import by
from service.merchants import accounts
from service.merchants.accounts import Entry
from service.providers import PROVIDERS

if TYPE_CHECKING:
    from service.application import Application


def address(app: Application, entry: Entry, *, show_token: bool = True) -> str:
    """What to paste at the provider. A provider whose address is a secret gets its first token."""
    base = f"{app.settings.public_url or app.settings.own_url}/webhooks/{entry.provider}"
    provider = PROVIDERS[entry.provider]
    if provider.capabilities.token_in_path:
        names = [credential.name for credential in provider.credentials if credential.verifies]
        token = next((values[0] for name in names if (values := entry.credentials.get(name))), None)
        if token is None:
            return f"{base}/<{names[0] if names else 'token'}>"
        return f"{base}/{token}" if show_token else f"{base}/{'*' * 8}"
    return f"{base}/{entry.id}" if entry.stored else base


async def add(
    app: Application,
    *,
    merchant: str,
    provider: str,
    credentials: Mapping[str, Any],
    live: bool | None = None,
    name: str = "",
    base_url: str | None = None,
    actor: str = "cli",
) -> dict[str, Any]:
    """Store a merchant's own account at a provider; the answer says which address to paste there."""
    hand = by(app, actor)
    real = app.settings.live if live is None else live

    def work(tx: Connection) -> str:
        accounts.refuse_taken_tokens(tx, app.settings, app.seal, provider, credentials)
        return accounts.add(tx, merchant, provider, credentials, real, hand, app.seal, name, base_url)

    account_id = await app.db.write(work)
    await app.reload_registry()
    entry = app.registry.get(account_id)
    return {
        "id": account_id,
        "provider": provider,
        "live": real,
        "address": address(app, entry) if entry else None,
        "paste": PROVIDERS[provider].paste,
    }


async def listed(app: Application) -> list[dict[str, Any]]:
    """Accounts: which credentials each has, how many of each, and what is missing; never a value."""
    shown = await app.db.read(accounts.listed, app.registry)
    for account in shown:
        entry = app.registry.get(account["id"])
        account["address"] = address(app, entry, show_token=False) if entry else None
    return shown


async def rotate(
    app: Application, *, account: str, credential: str, value: str, drop_old: bool = False, actor: str = "cli"
) -> dict[str, Any]:
    """Put a new secret first; the old ones still verify callbacks until `drop_old`."""
    hand = by(app, actor)

    def work(tx: Connection) -> list[str]:
        held = app.registry.get(account)
        if held is not None:
            taken = {credential: value}
            accounts.refuse_taken_tokens(tx, app.settings, app.seal, held.provider, taken, besides=account)
        return accounts.rotate(tx, account, credential, value, hand, app.seal, drop_old)

    missing = await app.db.write(work)
    await app.reload_registry()
    entry = app.registry.get(account)
    return {
        "id": account,
        "credential": credential,
        "live_values": len(entry.credentials.get(credential, ())) if entry else 0,
        "missing": missing,
    }
