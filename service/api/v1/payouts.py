"""`/v1/payouts`: money that is paid out, to its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection

from service.api.v1.kit import Call, Resource
from service.api.v1.lists import PageQuery, page
from service.api.v1.shapes import Amount, Currency, Id, Reason, Text
from service.escrow import payout_rows
from service.escrow.payouts import Draft
from service.escrow.states import Payout as State

PAYOUTS = Resource("payouts")
READ, WRITE, APPROVE = "payouts:read", "payouts:write", "payouts:approve"


class NewPayout(msgspec.Struct, forbid_unknown_fields=True):
    """
    To whom, and how much, out of whose balance. `hold`: of what that hold has released. `account`: the provider account
    that pays; else the beneficiary's own, or the first that can.
    """

    beneficiary: Annotated[str, Meta(min_length=1, max_length=100)]
    amount: Amount
    currency: Currency
    source: Literal["beneficiary", "merchant"] = "beneficiary"
    hold: Id = ""
    description: Text = ""
    account: Id = ""


class Decision(msgspec.Struct, forbid_unknown_fields=True):
    """What a person has seen at the provider: it was paid, or it is not there and never will be."""

    outcome: Literal["paid", "failed"]
    reason: Annotated[str, Meta(min_length=1, max_length=500)]
    provider_reference: Annotated[str, Meta(max_length=200)] = ""


class Code(msgspec.Struct, forbid_unknown_fields=True):
    """What the provider has sent to the owner of the account."""

    otp: Annotated[str, Meta(min_length=1, max_length=40)]


class Payout(msgspec.Struct):
    """A payout. `waits_for`: why a queued one is not sent. `retry_of`: the one that failed before it."""

    id: str
    status: Literal[
        "requested", "awaiting_approval", "queued", "submitting", "unknown", "in_transit", "paid", "failed",
        "canceled", "returned",
    ]  # fmt: skip
    source: Literal["beneficiary", "merchant", "refund"]
    beneficiary: str | None
    hold: str | None
    refund: str | None
    retry_of: str | None
    live: bool
    amount: int
    currency: str
    fee: int
    provider: str
    account: str
    reference: str
    provider_reference: str | None
    description: str
    failure_reason: str | None
    waits_for: str | None
    otp_wanted: bool
    approved_by: str | None
    created_at: str
    updated_at: str
    paid_at: str | None


class Payouts(msgspec.Struct):
    """A page; `next` goes into the next request's `after`."""

    data: list[Payout]
    next: str
    more: bool


class PayoutsQuery(PageQuery, kw_only=True):
    """Which payouts."""

    status: Annotated[str, Meta(pattern=f"^({'|'.join(State)})$")] | UnsetType = UNSET
    beneficiary: Id | UnsetType = UNSET
    hold: Id | UnsetType = UNSET


@PAYOUTS.get("/payouts", READ, Payouts)
async def list_payouts(call: Call, query: PayoutsQuery) -> Any:
    """Payouts, the newest first."""
    given = {"status": query.status, "beneficiary": query.beneficiary, "hold": query.hold}
    which: dict[str, Any] = {name: value for name, value in given.items() if value is not UNSET}

    def look(tx: Connection) -> dict[str, Any]:
        def fetch(before: str, limit: int) -> list[dict[str, Any]]:
            return payout_rows.listed(tx, call.caller, before=before, limit=limit, **which)

        return page(query, fetch, payout_rows.public)

    return await call.read(look)


@PAYOUTS.post("/payouts", WRITE, Payout, status=201)
async def create_payout(call: Call, body: NewPayout) -> Any:
    """Pay money out.

    What is asked for leaves the balance at once, so that two requests over one balance cannot both be met. Above what
    the merchant's terms allow a second person approves it. What becomes of it is told as payout.paid, payout.failed, …
    """
    draft = Draft(
        body.beneficiary,
        body.amount,
        body.currency,
        body.source,
        body.hold or None,
        body.description,
        body.account,
    )
    hand, payouts = call.by, call.app.payouts
    return await call.write(lambda tx: payout_rows.public(payouts.request(tx, call.caller, draft, hand)))


@PAYOUTS.get("/payouts/{payout}", READ, Payout)
async def get_payout(call: Call, payout: str) -> Any:
    """One payout."""
    return await call.read(lambda tx: payout_rows.public(payout_rows.one(tx, payout, call.caller)))


@PAYOUTS.post("/payouts/{payout}/approve", APPROVE, Payout)
async def approve_payout(call: Call, payout: str, body: Reason) -> Any:
    """Let a payout go that waits for approval; needs another key than the one that asked for it."""
    hand, payouts = call.by, call.app.payouts
    return await _does(call, payout, lambda tx: payouts.approve(tx, payout, body.reason, hand))


@PAYOUTS.post("/payouts/{payout}/cancel", WRITE, Payout)
async def cancel_payout(call: Call, payout: str, body: Reason) -> Any:
    """Call off a payout that was not sent yet; the money is in the balance again. Again changes nothing."""
    hand, payouts = call.by, call.app.payouts
    return await _does(call, payout, lambda tx: payouts.cancel(tx, payout, body.reason, hand))


@PAYOUTS.post("/payouts/{payout}/retry", WRITE, Payout, status=201)
async def retry_payout(call: Call, payout: str) -> Any:
    """Make one that failed, came back or was called off again: a new payout, linked to it by `retry_of`."""
    hand, payouts = call.by, call.app.payouts
    return await _does(call, payout, lambda tx: payouts.retry(tx, payout, hand))


@PAYOUTS.post("/payouts/{payout}/decide", APPROVE, Payout)
async def decide_payout(call: Call, payout: str, body: Decision) -> Any:
    """End a payout that nobody knows about, by the word of a person who has looked at the provider."""
    hand, payouts = call.by, call.app.payouts
    reference = body.provider_reference
    return await _does(call, payout, lambda tx: payouts.decide(tx, payout, body.outcome, body.reason, hand, reference))


async def _again(call: Call, payout: str) -> Any:
    return await get_payout(call, payout)


@PAYOUTS.post("/payouts/{payout}/otp", WRITE, Payout, again=_again)
async def submit_payout_otp(call: Call, payout: str, body: Code) -> Any:
    """Hand in the code that the provider has sent to the owner of the account; after a wrong one, another."""
    await call.read(payout_rows.one, payout, call.caller)
    await call.once.mark(payout)
    return payout_rows.public(await call.app.payer.finalize(payout, body.otp, call.by))


async def _does(call: Call, payout: str, step: Callable[[Connection], dict[str, Any]]) -> Any:
    """One step of a payout that is the caller's own."""

    def work(tx: Connection) -> dict[str, Any]:
        payout_rows.one(tx, payout, call.caller)
        return payout_rows.public(step(tx))

    return await call.write(work)
