"""
Balances as people ask for them: what can be paid out, what is kept in escrow, what was paid out this month.

A beneficiary's figures are their own. A merchant's take in all that lies at its provider accounts, so in every currency

    at_providers = available + unallocated + disputed + pending + beneficiaries + reserved

The accounts with their sums, and both sides of the month's payouts: three queries, for a merchant one more. Amounts
are minor units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Select, bindparam, func, select

from service.escrow.tables import beneficiaries
from service.ledger.ledger import Entry, Kind, on_its_side
from service.ledger.months import Span, of_month, zone_of
from service.ledger.tables import ledger_accounts, postings
from service.orders.owner import Owner, find

_A, _P = ledger_accounts.c, postings.c
PAYING: Final = (Entry.PAID_OUT.value, Entry.RETURNED.value)


@dataclass(frozen=True, slots=True)
class Month:
    """A calendar month of a time zone: its name (2026-11) and its moments."""

    name: str
    zone: ZoneInfo
    span: Span


@dataclass(frozen=True, slots=True)
class OfBeneficiary:
    """
    A beneficiary's figures. `available` can be paid out (below zero: owed), `pending` is in escrow, `reserved` is on
    its way in payouts without an end, `paid_out` has left this month, less what came back.
    """

    currency: str
    available_minor: int
    pending_minor: int
    paid_out_minor: int
    reserved_minor: int


@dataclass(frozen=True, slots=True)
class OfMerchant:
    """
    A merchant's figures in one currency. `available` is its own to be paid out. `pending` is in escrow for its
    beneficiaries, `beneficiaries` is what they can have paid out; `reserved` and `paid_out` count payouts of both.
    `unallocated`: money that nothing was given for; `disputed`: claimed back, not decided. `at_providers`: all of it.
    """

    currency: str
    available_minor: int
    pending_minor: int
    paid_out_minor: int
    reserved_minor: int
    beneficiaries_minor: int
    unallocated_minor: int
    disputed_minor: int
    at_providers_minor: int


Balance = OfBeneficiary | OfMerchant


def month_of(tx: Connection, merchant_id: str, installation: str, now_ms: int) -> Month:
    """A query: the month that it is for a merchant; `installation`: the zone of one that has not chosen."""
    zone = zone_of(tx, merchant_id, installation)
    name, span = of_month(now_ms, zone)
    return Month(name, zone, span)


def of_beneficiary(tx: Connection, row: Mapping[str, Any], month: Month) -> OfBeneficiary:
    """A query: the figures of one beneficiary, given by their row."""
    live, currency = bool(row["live"]), row["currency"]
    of_owner = select(_A.id, _A.kind, _A.debits_minor, _A.credits_minor).where(
        _A.owner == row["id"], _A.live == live, _A.currency == currency
    )
    held, ids = dict.fromkeys(Kind, 0), []
    for account in tx.execute(of_owner):
        held[Kind(account.kind)] = on_its_side(account.kind, account.debits_minor, account.credits_minor)
        if account.kind in (Kind.RESERVED, Kind.BENEFICIARY):
            ids.append(account.id)
    # What is paid out leaves `reserved`, and what is returned comes to `beneficiary`: neither touches the other.
    paid_out_minor = sum(moved(tx, ids, month.span, PAYING).values())
    return OfBeneficiary(currency, held[Kind.BENEFICIARY], held[Kind.ESCROW], paid_out_minor, held[Kind.RESERVED])


def of_merchant(tx: Connection, owner: Owner, month: Month) -> list[OfMerchant]:
    """A query: the figures of a merchant in one of its modes, by currency."""
    theirs = _A.merchant_id == owner.merchant_id, _A.live == owner.live
    sums = select(
        _A.currency, _A.kind, func.sum(_A.debits_minor).label("debits"), func.sum(_A.credits_minor).label("credits")
    )
    held: dict[str, dict[Kind, int]] = {}
    for row in tx.execute(sums.where(*theirs).group_by(_A.currency, _A.kind)):
        of_currency = held.setdefault(row.currency, dict.fromkeys(Kind, 0))
        of_currency[Kind(row.kind)] = on_its_side(row.kind, row.debits, row.credits)
    of_floats = select(_A.id, _A.currency).where(*theirs, _A.kind == Kind.FLOAT.value)
    floats = {row.id: row.currency for row in tx.execute(of_floats)}
    paid_out = dict.fromkeys(held, 0)
    for (account_id, _), minor in moved(tx, list(floats), month.span, PAYING).items():
        paid_out[floats[account_id]] -= minor
    return [
        OfMerchant(
            currency,
            available_minor=now[Kind.MERCHANT] - now[Kind.BANK] - now[Kind.FEES],
            pending_minor=now[Kind.ESCROW],
            paid_out_minor=paid_out[currency],
            reserved_minor=now[Kind.RESERVED],
            beneficiaries_minor=now[Kind.BENEFICIARY],
            unallocated_minor=now[Kind.UNALLOCATED],
            disputed_minor=now[Kind.DISPUTED],
            at_providers_minor=now[Kind.FLOAT],
        )
        for currency, now in sorted(held.items())
    ]


def moved(
    tx: Connection, account_ids: Sequence[int], span: Span, entries: Sequence[str] = ()
) -> dict[tuple[int, str], int]:
    """
    A query: what ledger accounts moved in a span, debits less credits, by account and `Entry`; of these entries, or
    of all. Each side is one range of an index.
    """
    found: dict[tuple[int, str], int] = {}
    if not account_ids:
        return found
    given = {"ids": list(account_ids), "from_ms": span.from_ms, "until_ms": span.until_ms}
    for query, sign in ((_DEBITS, 1), (_CREDITS, -1)):
        wanted = query.where(_P.kind.in_(entries)) if entries else query
        for account_id, entry, minor in tx.execute(wanted, given):
            found[account_id, entry] = found.get((account_id, entry), 0) + sign * minor
    return found


def _side(column: Any) -> Select[Any]:
    return (
        select(column, _P.kind, func.sum(_P.amount_minor))
        .where(
            column.in_(bindparam("ids", expanding=True)),
            _P.at_ms >= bindparam("from_ms"),
            _P.at_ms < bindparam("until_ms"),
        )
        .group_by(column, _P.kind)
    )


_DEBITS, _CREDITS = _side(_P.debit_id), _side(_P.credit_id)


def look_beneficiary(
    tx: Connection, owner: Owner, beneficiary_id: str, installation: str, now_ms: int
) -> dict[str, Any]:
    """A query: what is shown of a beneficiary's balance. Raises NotFound, also for another merchant's."""
    row = find(tx, beneficiaries, owner, beneficiary_id, "beneficiary")
    month = month_of(tx, owner.merchant_id, installation, now_ms)
    return {"beneficiary": row["id"], "live": bool(row["live"])} | public(of_beneficiary(tx, row, month), month)


def look_merchant(tx: Connection, owner: Owner, installation: str, now_ms: int) -> list[dict[str, Any]]:
    """A query: what is shown of a merchant's balances, one for each currency."""
    month = month_of(tx, owner.merchant_id, installation, now_ms)
    whose = {"merchant": owner.merchant_id, "live": owner.live}
    return [whose | public(balance, month) for balance in of_merchant(tx, owner, month)]


def public(balance: Balance, month: Month) -> dict[str, Any]:
    """Figures as programs see them: integers of minor units."""
    fields = {name.removesuffix("_minor"): getattr(balance, name) for name in balance.__slots__}
    return fields | {"month": month.name, "timezone": month.zone.key}
