"""The accounts that a merchant's payments could go through, as they stand now."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import Connection, or_, select

from service.merchants.accounts import Registry
from service.merchants.tables import accounts
from service.providers import CALLS, PROVIDERS
from service.providers.base import Credentials
from service.providers.calls import Calls
from service.routing.rules import Gateway


def gateways(
    tx: Connection,
    registry: Registry,
    merchant_id: str,
    open_circuits: Collection[str] = (),
    calls: Mapping[str, Calls] = CALLS,
) -> list[Gateway]:
    """The merchant's accounts and nobody's, the disabled ones too: the explanation says so. By id."""
    mine = or_(accounts.c.merchant_id == merchant_id, accounts.c.merchant_id.is_(None))
    found: list[Gateway] = []
    for row in tx.execute(select(accounts).where(mine).order_by(accounts.c.id)):
        entry = registry.get(row.id)
        found.append(
            Gateway(
                account_id=row.id,
                provider=row.provider,
                live=row.live,
                calls=calls.get(row.provider),
                merchant_id=row.merchant_id,
                missing=missing(row.provider, entry.credentials) if entry else (),
                disabled=row.status == "disabled" or entry is None,  # None: of the settings, and set no more
                circuit_open=row.id in open_circuits,
            )
        )
    return found


def missing(provider: str, credentials: Credentials) -> tuple[str, ...]:
    """What calling the provider needs and is not there; callbacks have needs of their own."""
    if provider not in PROVIDERS:
        return ()
    needed = (one.name for one in PROVIDERS[provider].credentials if one.calls)
    return tuple(name for name in needed if not any(value.strip() for value in credentials.get(name, ())))
