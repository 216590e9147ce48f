"""The stored rules and the accounts as a payment meets them: read once, until somebody changes a rule or an account."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, func, select

from service.merchants.accounts import Registry
from service.providers.calls import Calls
from service.routing.gateways import gateways
from service.routing.rules import Ask, Choice, Gateway, Router
from service.routing.store import listed
from service.routing.tables import routes

MERCHANTS_MAX = 1_000
_STAMP = select(
    func.count(), func.coalesce(func.sum(routes.c.version), 0), func.max(routes.c.updated_at_ms), func.max(routes.c.id)
)


class Routes:
    """
    `choose` in a transaction. Rules are compiled and accounts read once per merchant. Rules are forgotten when one of
    them changes, accounts with their registry, which is loaded anew after every change of one.
    """

    def __init__(
        self,
        registry: Callable[[], Registry],
        calls: Mapping[str, Calls],
        open_circuits: Callable[[], Collection[str]] = frozenset,
    ) -> None:
        self._registry, self._calls, self._open_circuits = registry, calls, open_circuits
        # Each kept beside what it was made with, and used as a pair: readers have older snapshots, and other threads.
        self._compiled: tuple[tuple[Any, ...], dict[str, Router]] = (), {}
        self._gateways: tuple[Registry | None, dict[str, list[Gateway]]] = None, {}

    def choose(self, tx: Connection, ask: Ask, seed: str) -> Choice:
        """Who is asked for this payment, in which order, and why; `seed` is the payment's id."""
        return self.router(tx, ask.merchant_id).choose(ask, self._now(tx, ask.merchant_id), seed)

    def _now(self, tx: Connection, merchant_id: str) -> list[Gateway]:
        registry = self._registry()
        made_with, kept = self._gateways
        if made_with is not registry or len(kept) > MERCHANTS_MAX:
            _, kept = self._gateways = registry, {}
        mine = kept.get(merchant_id)
        if mine is None:
            mine = kept[merchant_id] = gateways(tx, registry, merchant_id, (), self._calls)
        opened = self._open_circuits()
        return [replace(one, circuit_open=True) if one.account_id in opened else one for one in mine]

    def router(self, tx: Connection, merchant_id: str) -> Router:
        """The rules that a merchant's payments meet."""
        stamp = tuple(tx.execute(_STAMP).one())
        made_with, kept = self._compiled
        if made_with != stamp or len(kept) > MERCHANTS_MAX:
            _, kept = self._compiled = stamp, {}
        router = kept.get(merchant_id)
        if router is None:
            router = kept[merchant_id] = Router(listed(tx, merchant_id))
        return router
