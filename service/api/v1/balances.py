"""`/v1/balances`, statements as CSV, and a beneficiary's balance and read-only page."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection

from service.api.v1.kit import Call, Resource
from service.api.v1.shapes import Currency, Id
from service.escrow import beneficiaries
from service.idempotency import Answer
from service.ledger import balances
from service.ledger.months import a_day
from service.ledger.statement import DEADLINE_MS, Asked, statement

BALANCES = Resource("balances")
READ, LINK = "balances:read", "beneficiaries:write"

Csv = Annotated[str, Meta(description="A table, RFC 4180, UTF-8.", extra_json_schema={"contentMediaType": "text/csv"})]
"""The body of an answer that is no JSON."""


class Sheet(Answer):
    """An answer that is CSV."""

    __slots__ = ()
    media: ClassVar[str] = "text/csv"

    @classmethod
    def of(cls, text: str) -> Sheet:
        """200 with these lines."""
        return cls(200, text.encode())


Day = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=40,
        description="A day of your time zone, such as 2026-11-20.",
        extra_json_schema={"format": "date"},
    ),
]


class Balance(msgspec.Struct):
    """
    In one currency, in minor units. `available` can be paid out, `pending` is in escrow for beneficiaries,
    `beneficiaries` is what they can have paid out; `paid_out` has left in `month`, theirs too, less what came back;
    `reserved` is on its way; nothing was given for `unallocated`; `disputed` is claimed back. `at_providers`: all.
    """

    merchant: str
    live: bool
    currency: str
    available: int
    pending: int
    paid_out: int
    reserved: int
    beneficiaries: int
    unallocated: int
    disputed: int
    at_providers: int
    month: str
    timezone: str


class Balances(msgspec.Struct):
    """One for each currency that money has come in."""

    data: list[Balance]


class BeneficiaryBalance(msgspec.Struct):
    """
    In minor units. `available` can be paid out (below 0: owed), `pending` is in escrow, `reserved` is on its way,
    `paid_out` has left in `month`, less what came back.
    """

    beneficiary: str
    live: bool
    currency: str
    available: int
    pending: int
    paid_out: int
    reserved: int
    month: str
    timezone: str


class BalanceLink(msgspec.Struct):
    """Where the beneficiary sees their balance; `url` where caisse knows its public address. Shown this once."""

    beneficiary: str
    path: str
    url: str | None


class StatementQuery(msgspec.Struct, forbid_unknown_fields=True, rename={"first": "from", "last": "to"}):
    """Which statement."""

    first: Day
    last: Day
    beneficiary: Annotated[Id, Meta(min_length=1, description="Theirs; else your own.")] | UnsetType = UNSET
    currency: Annotated[Currency, Meta(description="Of yours, when there are several.")] | UnsetType = UNSET
    lang: Literal["en", "fr"] = "en"


@BALANCES.get("/balances", READ, Balances)
async def get_balances(call: Call) -> Any:
    """Your balances, one for each currency."""
    zone, now_ms = call.app.settings.timezone, call.app.clock()
    return {"data": await call.read(balances.look_merchant, call.caller, zone, now_ms)}


@BALANCES.get("/beneficiaries/{beneficiary}/balance", READ, BeneficiaryBalance)
async def get_beneficiary_balance(call: Call, beneficiary: str) -> Any:
    """A beneficiary's balance."""
    zone, now_ms = call.app.settings.timezone, call.app.clock()
    return await call.read(balances.look_beneficiary, call.caller, beneficiary, zone, now_ms)


@BALANCES.get("/balances/statement", READ, Csv)
async def get_statement(call: Call, query: StatementQuery) -> Any:
    """A statement as CSV: what came into a balance and what went out, from one day to another

    UTF-8 with a byte order mark, amounts as decimal numbers, at most 100,000 postings. Cells that a spreadsheet might
    take for a formula begin with an apostrophe.
    """
    asked = Asked(
        a_day("from", query.first),
        a_day("to", query.last),
        "" if query.beneficiary is UNSET else query.beneficiary,
        "" if query.currency is UNSET else query.currency,
        query.lang,
    )
    app = call.app
    whose = call.caller, asked, app.settings.timezone, app.clock()
    return Sheet.of(await app.db.read(statement, *whose, deadline_ms=DEADLINE_MS))


@BALANCES.post("/beneficiaries/{beneficiary}/link", LINK, BalanceLink)
async def create_balance_link(call: Call, beneficiary: str) -> Any:
    """Make a new link to the beneficiary's read-only page; the one before opens nothing any more."""
    hand, public_url = call.by, call.app.settings.public_url

    def work(tx: Connection) -> dict[str, Any]:
        path = f"/balance/{beneficiaries.link(tx, call.caller, beneficiary, hand)}"
        return {"beneficiary": beneficiary, "path": path, "url": f"{public_url}{path}" if public_url else None}

    return await call.write(work)
