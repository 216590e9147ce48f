"""`/v1/escrow`: the merchant's terms of delayed payout. It is off until somebody switches it on."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection

from service.api.v1.kit import Call, Resource
from service.errors import Refusal
from service.escrow.switch import change_terms, has_live_account
from service.escrow.terms import (
    CURRENCIES_MAX,
    RELEASE_HOURS_MAX,
    UNDELIVERED_DAYS_MAX,
    shown,
    terms_of,
)
from service.payments.facts import AMOUNT_MINOR_MAX

ESCROW = Resource("escrow")
READ, WRITE = "escrow:read", "escrow:write"

_Code = Annotated[str, Meta(pattern="^[A-Z]{3}$")]
_Zone = Annotated[str, Meta(max_length=60, description="IANA, such as Africa/Abidjan; null: the installation's.")]
_Above = Annotated[int, Meta(ge=0, le=AMOUNT_MINOR_MAX)]


class Terms(msgspec.Struct):
    """
    `release_hours` after a recorded delivery money is released by itself. `approve_above`: by currency, in minor units;
    a payout of more needs a person, and of a currency that is not there every one does.
    """

    enabled: bool
    release_hours: int
    undelivered_days: int
    payout_on_release: bool
    approve_above: dict[str, int]
    timezone: str | None
    notice: str


class TermsChange(msgspec.Struct, forbid_unknown_fields=True):
    """What is not given stays. Of `approve_above` the currencies that are given change; null takes one away."""

    enabled: bool | UnsetType = UNSET
    release_hours: Annotated[int, Meta(ge=0, le=RELEASE_HOURS_MAX)] | UnsetType = UNSET
    undelivered_days: Annotated[int, Meta(ge=1, le=UNDELIVERED_DAYS_MAX)] | UnsetType = UNSET
    payout_on_release: bool | UnsetType = UNSET
    approve_above: Annotated[dict[_Code, _Above | None], Meta(max_length=CURRENCIES_MAX)] | UnsetType = UNSET
    timezone: _Zone | UnsetType | None = UNSET
    understood: Annotated[
        bool, Meta(description="`notice` was read. Needed the first time that it is switched on.")
    ] = False


@ESCROW.get("/escrow", READ, Terms)
async def get_escrow_terms(call: Call) -> Any:
    """The terms of delayed payout, and what has to be known before it is switched on."""
    return await call.read(lambda tx: shown(terms_of(tx, call.caller.merchant_id)))


@ESCROW.patch("/escrow", WRITE, Terms)
async def change_escrow_terms(call: Call, body: TermsChange) -> Any:
    """Switch delayed payout on or off, or change its terms.

    They are the merchant's, in test and live alike, so a test key may not change them where real money moves. What is
    held already keeps the hours that it was scheduled with;
    switched off, nothing new is held, and what is held goes on to its end.
    """
    given = {name: getattr(body, name) for name in body.__struct_fields__ if name != "understood"}
    changes = {name: value for name, value in given.items() if value is not UNSET}
    hand, merchant_id = call.by, call.caller.merchant_id

    def work(tx: Connection) -> dict[str, object]:
        if not call.caller.live and has_live_account(tx, merchant_id):
            raise Refusal("test_key", "These terms hold for real money too; a live key changes them.")
        return shown(change_terms(tx, merchant_id, changes, hand, understood=body.understood))

    return await call.write(work)
