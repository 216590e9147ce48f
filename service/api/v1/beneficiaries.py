"""`/v1/beneficiaries`: whom money is held for and paid out to, and where it goes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection

from service.api.v1.holds import Why
from service.api.v1.kit import Call, Resource
from service.api.v1.lists import PageQuery, page
from service.api.v1.shapes import Country, Currency, Id
from service.escrow import beneficiaries as steps
from service.escrow.beneficiaries import To

BENEFICIARIES = Resource("beneficiaries")
READ, WRITE, APPROVE = "beneficiaries:read", "beneficiaries:write", "beneficiaries:approve"

Reference = Annotated[str, Meta(max_length=steps.REFERENCE_MAX, description="Yours; no two have the same.")]


class PayTo(msgspec.Struct, forbid_unknown_fields=True):
    """
    Where the money is to go: a wallet (`operator`, `number`, `name`), a bank account (`bank_code`, `number`, `name`),
    or an account at the provider itself (`number` is its id).
    """

    kind: Literal["mobile_money", "bank", "account"]
    number: Annotated[str, Meta(min_length=1, max_length=60)]
    name: Annotated[str, Meta(max_length=steps.NAME_MAX)] = ""
    country: Country = ""
    operator: Annotated[str, Meta(max_length=40)] = ""
    bank_code: Annotated[str, Meta(max_length=40)] = ""

    @property
    def to(self) -> To:
        """As the steps take it."""
        return To(self.kind, self.number, self.name, self.country, self.operator, self.bank_code)


class NewBeneficiary(msgspec.Struct, forbid_unknown_fields=True):
    """Whom to pay in one currency. `account`: the provider account that pays them; else the first that can."""

    currency: Currency
    payee: PayTo
    reference: Reference = ""
    account: Id = ""


class BeneficiaryChange(msgspec.Struct, forbid_unknown_fields=True):
    """One that is not active is paid nothing more, and nothing more is held for them."""

    active: bool


class PayeeApproval(Why):
    """Which payee you have made sure of, and how. If it was changed again since, that one is not approved."""

    payee: Id


class Payee(msgspec.Struct):
    """Where it goes now, the number by its last digits. It is paid from `usable_at` on."""

    id: str
    kind: Literal["mobile_money", "bank", "account"]
    name: str
    number: str
    country: str
    operator: str
    bank_code: str
    usable_at: str
    approved_by: str | None


class Beneficiary(msgspec.Struct):
    """A beneficiary."""

    id: str
    reference: str | None
    currency: str
    active: bool
    live: bool
    account: str | None
    payee: Payee
    created_at: str
    updated_at: str


class Beneficiaries(msgspec.Struct):
    """A page; `next` goes into the next request's `after`."""

    data: list[Beneficiary]
    next: str
    more: bool


class BeneficiariesQuery(PageQuery, kw_only=True):
    """Which beneficiaries."""

    reference: Reference | UnsetType = UNSET


@BENEFICIARIES.get("/beneficiaries", READ, Beneficiaries)
async def list_beneficiaries(call: Call, query: BeneficiariesQuery) -> Any:
    """Beneficiaries, the newest first."""
    which: dict[str, Any] = {} if query.reference is UNSET else {"reference": query.reference}

    def look(tx: Connection) -> dict[str, Any]:
        def fetch(before: str, limit: int) -> list[dict[str, Any]]:
            return steps.listed(tx, call.caller, before=before, limit=limit, **which)

        return page(query, fetch, steps.public)

    return await call.read(look)


@BENEFICIARIES.post("/beneficiaries", WRITE, Beneficiary, status=201)
async def create_beneficiary(call: Call, body: NewBeneficiary) -> Any:
    """Make a beneficiary; the first payee can be paid at once."""
    hand, to = call.by, body.payee.to

    def work(tx: Connection) -> dict[str, Any]:
        made = steps.create(tx, call.caller, body.currency, to, hand, body.reference, body.account)
        return _shown(tx, call, made)

    return await call.write(work)


@BENEFICIARIES.get("/beneficiaries/{beneficiary}", READ, Beneficiary)
async def get_beneficiary(call: Call, beneficiary: str) -> Any:
    """One beneficiary."""
    return await call.read(_shown, call, beneficiary)


@BENEFICIARIES.patch("/beneficiaries/{beneficiary}", WRITE, Beneficiary)
async def change_beneficiary(call: Call, beneficiary: str, body: BeneficiaryChange) -> Any:
    """Switch a beneficiary off, or on again."""
    hand = call.by

    def work(tx: Connection) -> dict[str, Any]:
        steps.change(tx, call.caller, beneficiary, hand, active=body.active)
        return _shown(tx, call, beneficiary)

    return await call.write(work)


@BENEFICIARIES.post("/beneficiaries/{beneficiary}/payee", WRITE, Beneficiary)
async def change_payee(call: Call, beneficiary: str, body: PayTo) -> Any:
    """Pay them somewhere else from now on.

    It waits 24 hours, or until a second person approves it: who has got hold of one key cannot have tomorrow's money
    sent to a number of their own. The same again is nothing.
    """
    hand, to = call.by, body.to

    def work(tx: Connection) -> dict[str, Any]:
        steps.pay_to(tx, call.caller, beneficiary, to, hand)
        return _shown(tx, call, beneficiary)

    return await call.write(work)


@BENEFICIARIES.post("/beneficiaries/{beneficiary}/payee/approve", APPROVE, Beneficiary)
async def approve_payee(call: Call, beneficiary: str, body: PayeeApproval) -> Any:
    """Let a changed payee be paid at once; `reason` says how it was made sure that it is theirs.

    Needs another key than the one that changed it. `payee` is the one that you looked at: refused with `payee_changed`
    if it was changed again since.
    """
    hand = call.by

    def work(tx: Connection) -> dict[str, Any]:
        call.app.payouts.approve_payee(tx, call.caller, beneficiary, body.payee, body.reason, hand)
        return _shown(tx, call, beneficiary)

    return await call.write(work)


def _shown(tx: Connection, call: Call, beneficiary: str) -> dict[str, Any]:
    return steps.public(steps.one(tx, call.caller, beneficiary))
