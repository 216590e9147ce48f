"""
The evening closing: what one day moved at each provider account, in the merchant's time zone, by the time of posting.

A day that is over never changes: the ledger is written once, and a correction counts on the day on which it was made.
What may still come to an old day are its differences with the provider's own list, which are found later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from typing import Any, Final

from sqlalchemy import Connection, case, func, select

from service.ledger.balances import moved
from service.ledger.ledger import Entry, Kind
from service.ledger.months import begun, day_of, of_days, zone_of
from service.ledger.statement import cell, number, written
from service.ledger.tables import differences, ledger_accounts
from service.merchants.tables import accounts, merchants
from service.orders.owner import Owner

COLUMNS: Final[Mapping[Entry, tuple[str, int]]] = {
    # Where a posting on a float counts: +1, what the float gained, or -1, what it lost.
    Entry.CAPTURE: ("received_minor", 1),
    Entry.FEE: ("fees_minor", -1),
    Entry.REFUND: ("refunded_minor", -1),
    Entry.REFUND_ELSEWHERE: ("refunded_minor", -1),
    Entry.REVERSAL: ("refunded_minor", -1),
    Entry.DISPUTE_LOST: ("refunded_minor", -1),
    Entry.SETTLEMENT: ("settled_minor", -1),
    Entry.PAID_OUT: ("paid_out_minor", -1),
    Entry.RETURNED: ("returned_minor", 1),
}
"""Every entry that touches a float, so that a line adds up: expected - settled = how the float has changed."""


@dataclass(slots=True)
class Figures:
    """
    Sums of one day in minor units. `refunded`: ours, those made at the provider, reversals and lost disputes. `fees`:
    those of payments, payouts and settlements. `settled`: what the provider has sent to the bank on that day.

    `differences` counts what the provider's list has otherwise than we do for that day, `open_differences` those that
    are not settled, `ours` and `theirs` sum both sides of them.
    """

    received_minor: int = 0
    fees_minor: int = 0
    refunded_minor: int = 0
    paid_out_minor: int = 0
    returned_minor: int = 0
    settled_minor: int = 0
    differences: int = 0
    open_differences: int = 0
    ours_minor: int = 0
    theirs_minor: int = 0

    @property
    def net_minor(self) -> int:
        """What the day's payments have left at the provider: received, less fees and what went back."""
        return self.received_minor - self.fees_minor - self.refunded_minor

    @property
    def expected_minor(self) -> int:
        """
        What the provider owes the bank for this day: its net, less the payouts that were paid out of this float, plus
        those that came back to it. Below zero: the day took more from the float than it brought.
        """
        return self.net_minor - self.paid_out_minor + self.returned_minor

    def add(self, other: Figures) -> None:
        """For a line of totals."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def public(self) -> dict[str, int]:
        """Integers of minor units, and two counts."""
        names = *_SUMS[:3], "net_minor", *_SUMS[3:5], "expected_minor", *_SUMS[5:]
        return {name.removesuffix("_minor"): getattr(self, name) for name in names}


_SUMS: Final = tuple(one.name for one in fields(Figures))
_A, _D = ledger_accounts.c, differences.c


def of_day(tx: Connection, owner: Owner, day: date | None, installation: str, now_ms: int) -> dict[str, Any]:
    """
    A query: the closing of a merchant in one of its modes; without a day, of the one that it is. `closed`: the day is
    over.

    Raises Refusal bad_day for one that has not begun.
    """
    zone = zone_of(tx, owner.merchant_id, installation)
    chosen = day if day is not None else day_of(now_ms, zone)
    begun("day", chosen, now_ms, zone)
    span = of_days(chosen, chosen, zone)
    found: dict[tuple[str, str], Figures] = {}
    theirs = _A.merchant_id == owner.merchant_id, _A.live == owner.live, _A.kind == Kind.FLOAT.value
    floats = {
        row.id: (row.owner, row.currency) for row in tx.execute(select(_A.id, _A.owner, _A.currency).where(*theirs))
    }
    for (account_id, entry), minor in moved(tx, list(floats), span).items():
        name, sign = COLUMNS[Entry(entry)]
        figures = found.setdefault(floats[account_id], Figures())
        setattr(figures, name, getattr(figures, name) + sign * minor)
    for row in tx.execute(_of_differences(owner, chosen)):
        figures = found.setdefault((row.account_id, row.currency), Figures())
        figures.differences, figures.open_differences = row.many, row.open
        figures.ours_minor, figures.theirs_minor = row.ours, row.theirs
    providers = select(accounts.c.id, accounts.c.provider).where(accounts.c.id.in_({id_ for id_, _ in found}))
    provider = {row.id: row.provider for row in tx.execute(providers)}
    return {
        "merchant": owner.merchant_id,
        "name": tx.execute(select(merchants.c.name).where(merchants.c.id == owner.merchant_id)).scalar() or "",
        "live": owner.live,
        "day": str(chosen),
        "timezone": zone.key,
        "closed": span.until_ms <= now_ms,
        "lines": [
            {"provider": provider[account_id], "account": account_id, "currency": currency} | figures.public()
            for (account_id, currency), figures in sorted(
                found.items(), key=lambda line: (provider[line[0][0]], line[0])
            )
        ],
        "totals": [{"currency": currency} | total.public() for currency, total in _totals(found).items()],
    }


def _of_differences(owner: Owner, day: date) -> Any:
    return (
        select(
            _D.account_id,
            _D.currency,
            func.count().label("many"),
            func.sum(case((_D.closed_at_ms.is_(None), 1), else_=0)).label("open"),
            func.sum(_D.ours_minor).label("ours"),
            func.sum(_D.theirs_minor).label("theirs"),
        )
        .where(_D.merchant_id == owner.merchant_id, _D.day == str(day), _D.live == owner.live)
        .group_by(_D.account_id, _D.currency)
    )


def _totals(found: Mapping[tuple[str, str], Figures]) -> dict[str, Figures]:
    totals: dict[str, Figures] = {}
    for (_, currency), figures in sorted(found.items(), key=lambda line: line[0][1]):
        totals.setdefault(currency, Figures()).add(figures)
    return totals


_COUNTS: Final = ("differences", "open_differences")


def as_csv(closings: Sequence[Mapping[str, Any]]) -> str:
    """The lines of closings as a table, amounts as plain decimal numbers; totals are left to who reads it."""
    names = list(Figures().public())
    lines = [["day", "timezone", "merchant", "name", "mode", "provider", "account", "currency", *names]]
    for closing in closings:
        whose = [cell(str(closing[name])) for name in ("day", "timezone", "merchant", "name")]
        mode = "live" if closing["live"] else "test"
        for line in closing["lines"]:
            where = [cell(line[name]) for name in ("provider", "account", "currency")]
            figures = [str(line[name]) if name in _COUNTS else number(line[name], line["currency"]) for name in names]
            lines.append([*whose, mode, *where, *figures])
    return written(lines)
