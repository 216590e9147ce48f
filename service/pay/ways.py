"""
Which ways to pay a session's buyer is offered: those for which routing finds somebody now, and no others.

The page asks the router itself, once for each operator of each country that has the currency, so that a rule, a limit
or a provider that is left alone shows here before the buyer has typed anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection

from service.merchants.accounts import Registry
from service.orders.shown import words
from service.providers.calls import Calls, Customer, Method
from service.routing.gateways import gateways
from service.routing.live import Routes
from service.routing.operators import PREFIXES, WITHOUT_PREFIX
from service.routing.rules import Ask

SEED: Final = "offered"
"""Any: it decides who of several is asked, not whether there is one."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way. `operator` empty: the payer says at the provider's page. `email`: only with the payer's address."""

    operator: str = ""
    email: bool = False


@dataclass(frozen=True, slots=True)
class Ways:
    """`wallets` by country (ISO 3166-1), those of one country in their usual order."""

    card: Way | None
    wallets: Mapping[str, tuple[Way, ...]]

    def wallet(self, country: str, operator: str) -> Way | None:
        """The way that the buyer chose, None: it is not offered."""
        return next((one for one in self.wallets.get(country, ()) if one.operator == operator), None)


class Offers:
    """Over what routing knows."""

    def __init__(
        self,
        routes: Routes,
        registry: Callable[[], Registry],
        calls: Mapping[str, Calls],
        opened: Callable[[], Collection[str]],
    ) -> None:
        self._routes, self._registry, self._calls, self._opened = routes, registry, calls, opened

    def of(self, tx: Connection, row: Mapping[str, Any], buyer: Customer) -> Ways:
        """What this session's buyer may choose between."""
        mine = gateways(tx, self._registry(), row["merchant_id"], self._opened(), self._calls)
        router = self._routes.router(tx, row["merchant_id"])

        def way(method: Method, country: str, operator: str) -> Way | None:
            for email in [True] if buyer.email else [False, True]:
                ask = Ask(
                    row["amount_minor"], row["currency"], method, row["merchant_id"], bool(row["live"]), country,
                    operator, has_phone=method == "mobile_money", has_email=email, has_name=bool(buyer.name),
                )  # fmt: skip
                if router.choose(ask, mine, SEED).chain:
                    return Way(operator, email and not buyer.email)
            return None

        methods = words(row["methods"])
        found: dict[str, tuple[Way, ...]] = {}
        if "mobile_money" in methods:
            for country, operators in self._candidates(row["currency"], row["country"]).items():
                ways = [way("mobile_money", country, operator) for operator in operators]
                ways = [one for one in ways if one is not None] or [way("mobile_money", country, "")]
                if there := tuple(one for one in ways if one is not None):
                    found[country] = there
        return Ways(way("card", row["country"], "") if "card" in methods else None, found)

    def _candidates(self, currency: str, country: str) -> dict[str, list[str]]:
        """Countries with this currency and the operators there, as far as any provider or the plans of numbers know."""
        named: dict[str, list[str]] = {}
        for calls in self._calls.values():
            for one in calls.channels:
                if one.method == "mobile_money" and one.currency == currency and one.country:
                    named.setdefault(one.country, []).append(one.operator)
        return {
            name: list(
                dict.fromkeys(filter(None, [*PREFIXES.get(name, ()), *WITHOUT_PREFIX.get(name, ()), *sorted(of)]))
            )
            for name, of in sorted(named.items())
            if country in ("", name)
        }
