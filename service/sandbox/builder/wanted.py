"""What is asked of the builder, read from `field=value` pairs, and what it gives back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from service.payments import money

Credentials = Mapping[str, Sequence[str]]

FIELDS: Mapping[str, str] = {
    "amount": "in minor units of the currency",
    "currency": "ISO 4217",
    "id": "the provider's id of the payment; by default made from the reference",
    "reference": "the merchant's; by default made from the time, a new payment each time",
    "event_id": "Stripe's id of the event",
    "status": "the provider's word, instead of the event's own",
    "reason": "the provider's word for why it failed",
    "live": "true or false",
    "time_ms": "when it happened; the signature is always of now",
    "phone": "of the payer",
    "customer": "the payer's name",
    "operator": "the provider's word for who moved the money",
    "fee": "in minor units",
    "charge": "Stripe's id of the charge: another try, another charge",
    "session": "Stripe's id of the checkout session",
    "refund": "the provider's id of the refund",
    "refunded": "in minor units; by default all of it",
    "dispute": "the provider's id of the dispute",
    "method": "POST or GET (Monetbil)",
}


@dataclass(frozen=True, slots=True)
class Built:
    """One signed callback, ready to be sent to the service's address with `path_suffix` behind it."""

    provider: str
    event: str
    method: str
    path_suffix: str
    headers: Mapping[str, str]
    body: bytes
    payment: str  # the provider's own name of the payment, the first of its references


@dataclass(frozen=True, slots=True)
class Wanted:
    """The fields with their defaults. Amounts in minor units."""

    amount: int
    currency: str
    reference: str
    live: bool
    time_ms: int
    given: Mapping[str, str]
    raw: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, fields: Mapping[str, Any], now_ms: int, currency: str) -> Wanted:
        """Refuses what it does not know with a sentence."""
        raw = {name: value for name, value in fields.items() if "." in name}
        given = {name: str(value) for name, value in fields.items() if name not in raw}
        for name in given:
            if name not in FIELDS:
                raise ValueError(
                    f"{name} is not a field; there are {', '.join(FIELDS)}, and any path with a point in it."
                )
        if given.get("live", "true") not in ("true", "false"):
            raise ValueError("live is true or false.")
        return cls(
            amount=_number(given, "amount", 5000),
            currency=given.get("currency", currency).upper(),
            reference=given.get("reference", f"CMD-{now_ms}"),
            live=given.get("live", "true") == "true",
            time_ms=_number(given, "time_ms", now_ms),
            given=given,
            raw=raw,
        )

    def number(self, name: str, default: int) -> int:
        """A field that is a whole number."""
        return _number(self.given, name, default)

    def text(self, name: str, default: str) -> str:
        """A field, or what stands in its place."""
        return self.given.get(name, default)

    def letters(self, length: int = 24) -> str:
        """The end of an id: of the payment's id if one was given, else made from the reference."""
        given = self.given.get("id", "").rpartition("_")[2]
        return given or hashlib.sha256(self.reference.encode()).hexdigest()[:length]

    def digits(self, length: int = 10) -> str:
        """An id of digits, for the providers that have such."""
        made = int(hashlib.sha256(self.reference.encode()).hexdigest(), 16) % (9 * 10 ** (length - 1))
        return self.given.get("id") or str(10 ** (length - 1) + made)

    def major(self, amount_minor: int | None = None) -> int | float | str:
        """An amount as the providers of whole francs write it; a plain number where it is whole."""
        found = money.to_major(self.amount if amount_minor is None else amount_minor, self.currency)
        return int(found) if found == found.to_integral_value() else str(found)

    def at(self, shape: str = "%Y-%m-%dT%H:%M:%S.000Z") -> str:
        """The time it happened, as text."""
        return datetime.fromtimestamp(self.time_ms / 1000, UTC).strftime(shape)


def _number(given: Mapping[str, str], name: str, default: int) -> int:
    text = given.get(name, str(default))
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{name} is a whole number, not {text[:40]!r}.")
    return int(text)


Shape = Callable[[Wanted], dict[str, Any]]
"""The body of one event, before raw paths are set."""


def shape_of(provider: str, event: str, table: Mapping[str, Shape]) -> Shape:
    """The event's shape; a sentence names what there is."""
    found = table.get(event)
    if found is None:
        raise ValueError(f"{provider} has no event {event[:60]!r} here; there are {', '.join(table)}.")
    return found


def secret_of(provider: str, credentials: Credentials, name: str) -> str:
    """The newest secret, which a provider signs with."""
    found = next((value for value in credentials.get(name, ()) if value.strip()), None)
    if found is None:
        raise ValueError(f"{provider} has no {name} to sign with.")
    return found


def with_raw(body: dict[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """
    Set each dotted path. A text takes the kind of what it replaces: `true` over a boolean is a boolean.

    Over a text, or where nothing was, it stays text: an order number 7 in metadata is "7".
    """
    for path, value in raw.items():
        *inner, last = path.split(".")
        at: dict[str, Any] = body
        for name in inner:
            if not isinstance(at.get(name), dict):
                at[name] = {}
            at = at[name]
        at[last] = _like(at[last], value) if last in at else value
    return body


def _like(old: Any, new: Any) -> Any:
    if isinstance(old, str) or not isinstance(new, str):
        return new
    try:
        return json.loads(new)
    except ValueError:
        return new


def compact(body: Mapping[str, Any]) -> bytes:
    """JSON without spaces, as most providers send it."""
    return json.dumps(body, separators=(",", ":")).encode()
