"""`/v1/closing`: the evening closing of a day, for programs and as CSV."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from service.api.v1.balances import READ, Csv, Day, Sheet
from service.api.v1.kit import Call, Resource
from service.ledger.closing import as_csv, of_day
from service.ledger.months import a_day

CLOSING = Resource("closing")


class ClosingTotal(msgspec.Struct):
    """
    Minor units. `net`: received less fees and refunded. `expected`: net less `paid_out`, plus what `returned`; what the
    day adds to what the provider owes your bank. `settled`: what it sent there on the day. `differences`: how often the
    provider's own list says otherwise (`ours`, `theirs`), of which `open_differences` are not settled.
    """

    currency: str
    received: int
    fees: int
    refunded: int
    net: int
    paid_out: int
    returned: int
    expected: int
    settled: int
    differences: int
    open_differences: int
    ours: int
    theirs: int


class ClosingLine(ClosingTotal, kw_only=True):
    """One provider account in one currency."""

    provider: str
    account: str


class Closing(msgspec.Struct):
    """A day of your time zone, by the time of posting; once `closed` its figures stay as they are."""

    merchant: str
    name: str
    live: bool
    day: str
    timezone: str
    closed: bool
    lines: list[ClosingLine]
    totals: list[ClosingTotal]


class ClosingQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which day, and how; without a day the one that it is."""

    day: Day | UnsetType = UNSET
    format: Literal["json", "csv"] | UnsetType = UNSET


@CLOSING.get("/closing", READ, Closing | Csv)
async def get_closing(call: Call, query: ClosingQuery) -> Any:
    """What a day has moved at each provider account: received, fees, refunded, paid out, expected at the bank

    As CSV with `format=csv`, or `Accept: text/csv`: one line for each account and currency, amounts as decimal numbers.
    """
    day = a_day("day", query.day) if query.day is not UNSET else None
    app = call.app
    found = await call.read(of_day, call.caller, day, app.settings.timezone, app.clock())
    media = call.request.headers.get("accept", "").partition(";")[0].strip().lower()
    wanted = ("csv" if media == "text/csv" else "json") if query.format is UNSET else query.format
    return Sheet.of(as_csv([found])) if wanted == "csv" else found
