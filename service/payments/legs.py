"""A wish as routing, the provider and the table of payments want it; and one attempt on its way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from service.merchants.accounts import Entry
from service.payments.wish import Wish
from service.providers.calls import Channel, Wanted
from service.routing.rules import Ask, Rule

EXPIRES_MS: Final = 24 * 3_600_000
"""When a provider should let a payment lapse that says nothing else."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One attempt that is written down and has to be sent now: everything that sending needs."""

    payment_id: str
    attempt_id: str
    account_id: str
    channel: Channel
    wanted: Wanted
    rest: tuple[tuple[str, Channel], ...]  # whom to ask next: account, channel
    rule: Rule | None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What payments are asked for with that comes from the settings."""

    public_url: str

    def called_back_at(self, entry: Entry) -> str:
        """Where the provider should call back."""
        token = next(iter(entry.credentials.get("callback_tokens", ())), "")
        return f"{self.public_url}/webhooks/{entry.provider}/{token or entry.id}" if self.public_url else ""


def ask_of(wish: Wish) -> Ask:
    """What routing decides by."""
    return Ask(
        wish.amount_minor,
        wish.currency,
        wish.method,
        wish.merchant_id,
        wish.live,
        wish.country,
        wish.operator,
        wish.providers,
        has_phone=bool(wish.payer_phone),
        has_email=bool(wish.customer.email),
        has_name=bool(wish.customer.name),
        embedded=wish.embedded,
    )


def wanted_of(payment_id: str, wish: Wish, public_url: str, now_ms: int) -> Wanted:
    """What every provider is asked for; reference, key and callback address are the attempt's."""
    return Wanted(
        reference="",
        key="",
        amount_minor=wish.amount_minor,
        currency=wish.currency,
        method=wish.method,
        country=wish.country,
        operator=wish.operator,
        description=wish.description or wish.reference or payment_id,
        return_url=wish.return_url or public_url,
        callback_url="",
        payer_phone=wish.payer_phone,
        customer=wish.customer,
        expires_at_ms=wish.expires_at_ms or now_ms + EXPIRES_MS,
        metadata={"caisse_payment": payment_id},
        live=wish.live,
        now_ms=now_ms,
        locale=wish.locale,
        embedded=wish.embedded,
    )


def row_of(payment_id: str, wish: Wish, provider: str, explanation: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
    """The payment's row; whom it belongs to and what it asks for never change."""
    return {
        "id": payment_id,
        "merchant_id": wish.merchant_id,
        "live": wish.live,
        "provider": provider,
        "amount_minor": wish.amount_minor,
        "currency": wish.currency,
        "method": wish.method,
        "operator": wish.operator or None,
        "country": wish.country or None,
        "reference": wish.reference or None,
        "description": wish.description or None,
        "return_url": wish.return_url or None,
        "order_id": wish.order_id,
        "session_id": wish.session_id,
        "metadata": json.dumps(dict(wish.metadata), sort_keys=True),
        "wish": json.dumps({"providers": wish.providers, "embedded": wish.embedded, "locale": wish.locale}),
        "explanation": json.dumps(explanation),
        "created_at_ms": now_ms,
    }
