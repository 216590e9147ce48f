"""`/v1/payments`: asking for money, what the payer has to do, and what became of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection, bindparam, select

from outbox.prepared import Lookup
from service.api.v1.kit import Call, Resource
from service.api.v1.lists import PageQuery, page, rows
from service.api.v1.reading import not_found
from service.api.v1.shapes import (
    Amount,
    Country,
    Currency,
    Customer,
    Id,
    Metadata,
    Method,
    Phone,
    Text,
    Time,
    Url,
    buyer,
    phone,
    time_ms,
)
from service.merchants.keys import Caller
from service.orders import orders
from service.orders.return_urls import check_return_url
from service.payments import history
from service.payments.public import public
from service.payments.rules import STATUSES
from service.payments.states import LIVE, State
from service.payments.tables import attempts, payments
from service.payments.wish import Wish
from service.routing.operators import WARNINGS

PAYMENTS = Resource("payments")
READ, WRITE = "payments:read", "payments:write"


class NewPayment(msgspec.Struct, forbid_unknown_fields=True):
    """A payment to be asked for."""

    amount: Amount
    currency: Currency
    method: Method
    reference: Annotated[Text, Meta(description="Yours.")] = ""
    description: Text = ""
    customer: Customer = msgspec.field(default_factory=Customer)
    payer_phone: Annotated[Phone, Meta(description="The wallet's number, for mobile money.")] = ""
    operator: Annotated[str, Meta(max_length=40, description="As the payer chose it; empty: at the provider.")] = ""
    country: Country = ""
    providers: Annotated[
        list[Annotated[str, Meta(max_length=100)]],
        Meta(max_length=10, description="An explicit chain, in order; otherwise the routes choose."),
    ] = []
    return_url: Annotated[Url, Time, buyer, phone, time_ms, Meta(description="Where the payer comes back to.")] = ""
    metadata: Metadata = {}
    order: Annotated[Id, Meta(description="The order that it pays.")] = ""
    embedded: Annotated[bool, Meta(description="Your own page confirms the card, with the client secret.")] = False
    locale: Annotated[Literal["fr", "en"], Meta(description="Of the provider's page.")] = "fr"


class NextAction(msgspec.Struct):
    """What the payer has to do, in the provider's own words."""

    type: Literal["otp", "approve_on_phone", "redirect", "confirm"]
    display_text: str | UnsetType = UNSET
    url: str | UnsetType = UNSET
    client_secret: str | UnsetType = UNSET


class Payment(msgspec.Struct):
    """A payment. `amount…` and `fee` are integers of minor units."""

    id: str
    status: str
    exceptions: list[str]
    origin: str
    live: bool
    amount: int
    currency: str
    amount_captured: int
    amount_refunded: int
    fee: int | None
    provider: str
    provider_reference: str | None
    method: str | None
    reference: str | None
    order: str | None
    metadata: dict[str, str]
    failure_reason: str | None
    created_at: str
    updated_at: str
    paid_at: str | None
    next_action: NextAction | None
    warnings: list[str] | UnsetType = UNSET
    merged_into: str | UnsetType = UNSET


class Payments(msgspec.Struct):
    """A page; `next` goes into the next request's `after`."""

    data: list[Payment]
    next: str
    more: bool


class PaymentsQuery(PageQuery, kw_only=True):
    """Which payments."""

    status: Annotated[str, Meta(pattern=f"^({'|'.join(STATUSES)})$", description="As it is now.")] | UnsetType = UNSET
    reference: Annotated[Text, Meta(description="Yours, or the provider's.")] | UnsetType = UNSET
    order: Id | UnsetType = UNSET
    created_from: Time | UnsetType = UNSET
    created_until: Time | UnsetType = UNSET


async def _again(call: Call, payment_id: str) -> dict[str, Any]:
    return await shown(call, payment_id)


@PAYMENTS.post("/payments", WRITE, Payment, status=201, again=_again)
async def create_payment(call: Call, body: NewPayment) -> dict[str, Any]:
    """Ask for a payment.

    Answered when the provider has answered, or after its time limit with `status` unknown, which is looked up and told
    later. `next_action` says what the payer has to do.
    """
    country, warnings = body.country, list[str]()

    def number(field: str, text: str, operator: str = "") -> str:
        nonlocal country
        if not text:
            return ""
        found = phone(field, text, country, operator)
        country = country or found.country
        warnings.extend(f"{field}: {WARNINGS[word]}" for word in found.warnings)
        return found.e164

    payer_phone = number("payer_phone", body.payer_phone, body.operator)
    wish = Wish(
        call.caller.merchant_id,
        call.caller.live,
        body.amount,
        body.currency,
        body.method,
        reference=body.reference,
        description=body.description,
        customer=buyer(body.customer, country),
        payer_phone=payer_phone,
        operator=body.operator,
        country=country,
        providers=tuple(body.providers),
        return_url=check_return_url(
            body.return_url, strict=call.app.settings.strict, allowed=call.app.settings.return_origins
        ),
        metadata=body.metadata,
        order_id=body.order or None,
        embedded=body.embedded,
        locale=body.locale,
    )
    payment_id = await call.app.desk.create(wish, _begun(call, body.order))
    return {**await shown(call, payment_id), "warnings": warnings}


def _begun(call: Call, order: str) -> Callable[[Connection, str], None]:
    def begun(tx: Connection, payment_id: str) -> None:
        call.once.begun(tx, payment_id)
        if order:
            orders.admit(tx, payment_id)

    return begun


@PAYMENTS.get("/payments", READ, Payments)
async def list_payments(call: Call, query: PaymentsQuery) -> dict[str, Any]:
    """Payments, the newest first."""
    c = payments.c
    found = _mine(call.caller)
    if query.status is not UNSET:
        found = found.where(c.status == query.status)
    if query.order is not UNSET:
        found = found.where(c.order_id == query.order)
    if query.reference is not UNSET:
        found = found.where((c.reference == query.reference) | (c.provider_reference == query.reference))
    if query.created_from is not UNSET:
        found = found.where(c.created_at_ms >= time_ms("created_from", query.created_from))
    if query.created_until is not UNSET:
        found = found.where(c.created_at_ms < time_ms("created_until", query.created_until))

    def look(tx: Connection) -> dict[str, Any]:
        answer = page(query, lambda before, limit: rows(tx, found, c.id, before, limit))
        actions = _actions(tx, [row["id"] for row in answer["data"]])
        answer["data"] = [{**public(row), "next_action": actions.get(row["id"])} for row in answer["data"]]
        return answer

    answer: dict[str, Any] = await call.read(look)
    return answer


@PAYMENTS.get("/payments/{payment}", READ, Payment)
async def get_payment(call: Call, payment: str) -> dict[str, Any]:
    """One payment, as it is known now."""
    return await shown(call, payment)


class Code(msgspec.Struct, forbid_unknown_fields=True):
    """What the payer typed."""

    otp: Annotated[str, Meta(min_length=1, max_length=40)]


@PAYMENTS.post("/payments/{payment}/otp", WRITE, Payment, again=_again)
async def submit_otp(call: Call, payment: str, body: Code) -> dict[str, Any]:
    """Submit the payer's code.

    A wrong one asks again: `next_action` says so in the provider's words. After five the payment has to be cancelled.
    """
    await call.read(own, call.caller, payment)
    await call.once.mark(payment)
    await call.app.desk.otp(payment, body.otp)
    return await shown(call, payment)


@PAYMENTS.post("/payments/{payment}/cancel", WRITE, Payment)
async def cancel_payment(call: Call, payment: str) -> dict[str, Any]:
    """Cancel a payment.

    At the provider first: `status` becomes canceled, or expired, once the provider says so; what is that already stays
    as it is.
    """
    row = await call.read(own, call.caller, payment)
    if row["status"] not in ("canceled", "expired"):
        await call.app.desk.cancel(payment, call.by)
    return await shown(call, payment)


class Synced(msgspec.Struct):
    """`asked` is false when the provider was asked less than ten seconds ago, or there is nothing to ask about."""

    asked: bool
    payment: Payment


@PAYMENTS.post("/payments/{payment}/sync", WRITE, Synced)
async def sync_payment(call: Call, payment: str) -> dict[str, Any]:
    """Ask the provider now what became of a payment."""
    await call.read(own, call.caller, payment)
    asked = await call.app.desk.sync(payment)
    return {"asked": asked, "payment": await shown(call, payment)}


class Entry(msgspec.Struct):
    """Something that happened."""

    at: str
    what: str
    text: str


class Timeline(msgspec.Struct):
    """The oldest first."""

    payment: str
    entries: list[Entry]
    more: bool


@PAYMENTS.get("/payments/{payment}/timeline", READ, Timeline)
async def get_timeline(call: Call, payment: str) -> Any:
    """Everything about one payment, in order of time."""

    def look(tx: Connection) -> Any:
        own(tx, call.caller, payment)
        return history.timeline(tx, payment)

    return await call.read(look)


class AttemptStory(msgspec.Struct):
    """One attempt at one provider, and why the next one was or was not made."""

    id: str
    provider: str
    state: str
    sentences: list[str]


class Explanation(msgspec.Struct):
    """Why this provider, in sentences; `routing` is the whole of it, rule by rule and gateway by gateway."""

    payment: str
    status: str
    provider: str
    sentences: list[str]
    routing: dict[str, Any] | None
    attempts: list[AttemptStory]


@PAYMENTS.get("/payments/{payment}/explain", READ, Explanation)
async def explain_payment(call: Call, payment: str) -> Any:
    """Which provider took it and why, which were passed over and why."""

    def look(tx: Connection) -> Any:
        own(tx, call.caller, payment)
        return history.explain(tx, payment)

    return await call.read(look)


# --- rows ---------------------------------------------------------------------------------------------


_PAYMENTS = Lookup(select(payments).where(payments.c.id.in_(bindparam("wanted", expanding=True))))
_ATTEMPTS = Lookup(
    select(attempts.c.payment_id, attempts.c.action, attempts.c.state)
    .where(attempts.c.payment_id.in_(bindparam("wanted", expanding=True)))
    .order_by(attempts.c.id)
)


def _mine(caller: Caller) -> Any:
    return select(payments).where(payments.c.merchant_id == caller.merchant_id, payments.c.live == caller.live)


def own(tx: Connection, caller: Caller, payment_id: str) -> dict[str, Any]:
    """A query: the caller's own payment. Raises not_found, for another merchant's and the other mode's too."""
    found = _PAYMENTS(tx, [payment_id])
    mine = [row for row in found if (row["merchant_id"], bool(row["live"])) == (caller.merchant_id, caller.live)]
    if not mine:
        raise not_found("payment")
    return mine[0]


async def shown(call: Call, payment_id: str) -> dict[str, Any]:
    """The caller's own payment, with what the payer has to do."""

    def look(tx: Connection) -> dict[str, Any]:
        row = own(tx, call.caller, payment_id)
        return {**public(row), "next_action": _actions(tx, [payment_id]).get(payment_id)}

    answer: dict[str, Any] = await call.read(look)
    return answer


def _actions(tx: Connection, payment_ids: list[str]) -> dict[str, Any]:
    """What the payers have to do: of the youngest attempt that waits for one."""
    youngest = {row["payment_id"]: row for row in _ATTEMPTS(tx, payment_ids) if row["state"] in LIVE}
    waiting = (row for row in youngest.values() if row["action"] and row["state"] == State.REQUIRES_ACTION)
    return {row["payment_id"]: json.loads(row["action"]) for row in waiting}
