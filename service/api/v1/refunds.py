"""`/v1/refunds`, and those of one payment: money that goes back."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection

from service.api.v1.kit import Call, Resource
from service.api.v1.lists import PageQuery, page
from service.api.v1.payments import own as own_payment
from service.api.v1.payouts import WRITE as PAY_OUT
from service.api.v1.payouts import Payout
from service.api.v1.shapes import Amount, Id
from service.escrow import payout_rows
from service.merchants.audit import REASON_CHARACTERS_MAX
from service.payments import refund_rows
from service.payments.states import RefundState

REFUNDS = Resource("refunds")
READ, WRITE = "refunds:read", "refunds:write"


class NewRefund(msgspec.Struct, forbid_unknown_fields=True):
    """How much goes back; all that is left, unless `amount` is given."""

    amount: Amount | None = None
    reason: Annotated[str, Meta(max_length=REASON_CHARACTERS_MAX)] = ""


class Refund(msgspec.Struct):
    """A refund. `manual`: a person has to do it at the provider, which has no way to be told."""

    id: str
    payment: str
    status: str
    origin: Literal["caisse", "external"]
    amount: int
    currency: str
    manual: bool
    provider: str
    provider_reference: str | None
    reason: str
    failure_reason: str | None
    created_at: str
    updated_at: str


class Refunds(msgspec.Struct):
    """A page; `next` goes into the next request's `after`."""

    data: list[Refund]
    next: str
    more: bool


class RefundsOfPayment(msgspec.Struct):
    """All of them, the oldest first."""

    data: list[Refund]


class RefundsQuery(PageQuery, kw_only=True):
    """Which refunds."""

    payment: Id | UnsetType = UNSET
    status: Annotated[str, Meta(pattern=f"^({'|'.join(RefundState)})$")] | UnsetType = UNSET


@REFUNDS.post("/payments/{payment}/refunds", WRITE, Refund, status=201)
async def create_refund(call: Call, payment: str, body: NewRefund) -> Any:
    """Give money back, all or a part, as often as there is a rest.

    Never more than was captured and has not gone back. The provider is told afterwards; what becomes of it is told as
    refund.succeeded or refund.failed.
    """
    hand = call.by

    def work(tx: Connection) -> dict[str, Any]:
        own_payment(tx, call.caller, payment)
        return refund_rows.public(call.app.refunds.create(tx, payment, body.amount, body.reason, hand))

    return await call.write(work)


@REFUNDS.get("/payments/{payment}/refunds", READ, RefundsOfPayment)
async def list_refunds_of_payment(call: Call, payment: str) -> Any:
    """The refunds of one payment, those made at the provider's own dashboard too."""

    def look(tx: Connection) -> dict[str, Any]:
        own_payment(tx, call.caller, payment)
        return {"data": [refund_rows.public(row) for row in refund_rows.of_payment(tx, payment)]}

    return await call.read(look)


@REFUNDS.get("/refunds", READ, Refunds)
async def list_refunds(call: Call, query: RefundsQuery) -> Any:
    """Refunds, the newest first."""
    whose: dict[str, Any] = {"merchant_id": call.caller.merchant_id, "live": call.caller.live}
    given = {"payment_id": query.payment, "status": query.status}
    which: dict[str, Any] = {name: value for name, value in given.items() if value is not UNSET}

    def look(tx: Connection) -> dict[str, Any]:
        def fetch(before: str, limit: int) -> list[dict[str, Any]]:
            return refund_rows.listed(tx, **whose, **which, before=before or None, limit=limit)

        return page(query, fetch, refund_rows.public)

    return await call.read(look)


@REFUNDS.get("/refunds/{refund}", READ, Refund)
async def get_refund(call: Call, refund: str) -> Any:
    """One refund."""

    def look(tx: Connection) -> dict[str, Any]:
        return refund_rows.public(refund_rows.one(tx, refund, call.caller.merchant_id, call.caller.live))

    return await call.read(look)


@REFUNDS.post("/refunds/{refund}/payout", PAY_OUT, Payout, status=201)
async def pay_refund_out(call: Call, refund: str) -> Any:
    """Make a manual refund as a payout to the wallet that paid, where the provider has no refunds and can pay out.

    It always waits for approval by another key. The refund stays queued until the payout is paid; one that fails or is
    called off may be followed by another.
    """
    hand, payouts = call.by, call.app.payouts

    def work(tx: Connection) -> dict[str, Any]:
        refund_rows.one(tx, refund, call.caller.merchant_id, call.caller.live)
        return payout_rows.public(payouts.refund_by_payout(tx, refund, hand))

    return await call.write(work)
