"""Shapes that several resources share: what an amount, a currency, a number, a text may be."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from service.api.problems import Wrong
from service.errors import Refusal
from service.payments.facts import AMOUNT_MINOR_MAX
from service.payments.wish import METADATA_MAX, METADATA_NAME_MAX, METADATA_VALUE_MAX, TEXT_MAX, URL_MAX
from service.providers.calls import Customer as Buyer
from service.routing.operators import Phone as Read
from service.routing.operators import read_phone

Amount = Annotated[int, Meta(ge=1, le=AMOUNT_MINOR_MAX, description="An integer of minor units.")]
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$", description="ISO 4217, such as XOF or EUR.")]
Text = Annotated[str, Meta(max_length=TEXT_MAX)]
Url = Annotated[str, Meta(max_length=URL_MAX)]
Country = Annotated[str, Meta(pattern="^([A-Z]{2})?$", description="ISO 3166-1, such as CI; empty where nobody knows.")]
Metadata = Annotated[
    dict[
        Annotated[str, Meta(max_length=METADATA_NAME_MAX)],
        Annotated[str, Meta(max_length=METADATA_VALUE_MAX)],
    ],
    Meta(max_length=METADATA_MAX, description="Yours: kept, told again, not read."),
]
Id = Annotated[str, Meta(max_length=100)]
Method = Literal["card", "mobile_money"]
Phone = Annotated[str, Meta(max_length=40, description="With + and its country, or as written in `country`.")]


class Customer(msgspec.Struct, forbid_unknown_fields=True):
    """Who buys, as far as you know."""

    name: Text = ""
    email: Text = ""
    phone: Phone = ""


Time = Annotated[str, Meta(max_length=40, description="RFC 3339, such as 2026-11-20T09:00:00Z.")]


def time_ms(field: str, text: str) -> int:
    """Milliseconds UTC. Raises Wrong: bad_time."""
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            at = at.replace(tzinfo=UTC)
        return int(at.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise Wrong("bad_time", field, f"{field}: a time looks like 2026-11-20T09:00:00Z.") from None


def phone(field: str, text: str, country: str, operator: str = "") -> Read:
    """A number as it may be dialled. Raises Wrong: bad_phone."""
    try:
        return read_phone(text, country, operator)
    except Refusal as refused:
        raise Wrong(refused.code, field, f"{field}: {refused.sentence}") from None


def buyer(customer: Customer, country: str) -> Buyer:
    """Who buys, with the number as it may be dialled."""
    number = phone("customer.phone", customer.phone, country).e164 if customer.phone else ""
    return Buyer(customer.name, customer.email, number)


class Reason(msgspec.Struct, forbid_unknown_fields=True):
    """Why, for the audit trail."""

    reason: Text = ""
