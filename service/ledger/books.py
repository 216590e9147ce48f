"""
What the ledger says of itself: sums, sides, numbers, subjects. Queries over one page each.

Accounts are read once, with the number of the newest posting: postings are only ever added, so the sums of those up to
that number are what the accounts were at that moment, however long adding them up takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Table, func, select, text

from service.escrow.hold_rows import of_hold
from service.escrow.payout_rows import of_payout
from service.escrow.tables import holds, payouts
from service.ledger.ledger import MAY_BE_NEGATIVE, Kind, Wanted, as_posted, known, on_its_side, posted
from service.ledger.settlements import of_settlement
from service.ledger.tables import ledger_accounts, postings, settlements

ROWS: Final[Mapping[str, tuple[str, Table, Callable[[Mapping[str, Any]], Wanted]]]] = {
    "holds": ("hold", holds, of_hold),
    "payouts": ("payout", payouts, of_payout),
    "settlements": ("settlement", settlements, of_settlement),
}
"""Subjects whose row alone says what they should have moved: what one is called, its table, how it says so."""

_PIECE = text(
    "SELECT debit_id, credit_id, count(*), sum(amount_minor), max(id) FROM postings "
    "WHERE id > :after AND id <= :top GROUP BY debit_id, credit_id"
)
_END = text("SELECT max(id) FROM (SELECT id FROM postings WHERE id > :after AND id <= :top ORDER BY id LIMIT :limit)")
_SUBJECTS = text(
    "SELECT subject, count(*), min(number), max(number), EXISTS (SELECT 1 FROM payments WHERE id = subject) "
    "OR EXISTS (SELECT 1 FROM holds WHERE id = subject) OR EXISTS (SELECT 1 FROM payouts WHERE id = subject) "
    "OR EXISTS (SELECT 1 FROM settlements WHERE id = subject) "
    "FROM postings WHERE subject > :after GROUP BY subject ORDER BY subject LIMIT :limit"
)


@dataclass(slots=True)
class Books:
    """The accounts as they were when `top` was the newest posting, and what postings up to it add up to."""

    accounts: Mapping[int, Any]
    top: int
    debits: dict[int, int] = field(default_factory=dict)
    credits: dict[int, int] = field(default_factory=dict)

    def problems(self) -> list[str]:
        """Once all pieces are added: sums that differ, currencies out of balance, balances that cannot be."""
        found: list[str] = []
        balance: dict[tuple[str, bool], int] = {}
        for id_, row in self.accounts.items():
            sides = (("debits", row.debits_minor, self.debits), ("credits", row.credits_minor, self.credits))
            for side, stored, added in sides:
                if stored != added.get(id_, 0):
                    found.append(
                        f"The account {name_of(row)} has {side} of {stored}, and its postings add up to "
                        f"{added.get(id_, 0)}."
                    )
            key = row.currency, bool(row.live)
            balance[key] = balance.get(key, 0) + row.debits_minor - row.credits_minor
            has = on_its_side(row.kind, row.debits_minor, row.credits_minor)
            if has < 0 and row.kind not in MAY_BE_NEGATIVE:
                found.append(f"The account {name_of(row)} stands at {has}, and may not be below 0.")
        for (currency, live), minor in sorted(balance.items()):
            if minor:
                mode = "live" if live else "test"
                found.append(f"The debits of all {mode} accounts in {currency} are {minor} more than their credits.")
        return found


def name_of(row: Any) -> str:
    """An account, as a sentence calls it."""
    return f"{row.id} ({row.kind} of {row.owner}, {row.currency}, {'live' if row.live else 'test'})"


def read_books(tx: Connection) -> Books:
    """A query: the accounts, and the newest posting at the same moment."""
    rows = {row.id: row for row in tx.execute(select(ledger_accounts))}
    top = tx.execute(select(func.max(postings.c.id))).scalar() or 0
    return Books(rows, top)


def add_piece(tx: Connection, books: Books, after: int, limit: int) -> tuple[int, int, list[str]]:
    """
    A query: add the next postings up. Returns the last one's number, how many, and what is wrong with their two sides.
    """
    end = tx.execute(_END, {"after": after, "top": books.top, "limit": limit}).scalar()
    if end is None:
        return after, 0, []
    count, found = 0, []
    for debit_id, credit_id, many, minor, newest in tx.execute(_PIECE, {"after": after, "top": end}):
        count += many
        books.debits[debit_id] = books.debits.get(debit_id, 0) + minor
        books.credits[credit_id] = books.credits.get(credit_id, 0) + minor
        debit, credit = books.accounts.get(debit_id), books.accounts.get(credit_id)
        if debit is None or credit is None:
            found.append(
                f"The posting {newest} names the accounts {debit_id} and {credit_id}, which are not both there."
            )
        elif _side(debit) != _side(credit):
            found.append(f"The posting {newest} is between {name_of(debit)} and {name_of(credit)}.")
    return end, count, found


def _side(row: Any) -> tuple[str, bool, str]:
    return row.currency, bool(row.live), row.merchant_id


def subjects(tx: Connection, after: str, limit: int) -> tuple[str, int, list[str]]:
    """A query: the next subjects of postings: that each is there, and its postings numbered 1, 2, 3 …"""
    rows = tx.execute(_SUBJECTS, {"after": after, "limit": limit}).all()
    found: list[str] = []
    for subject, many, first, last, there in rows:
        if not there:
            found.append(f"{many} postings are of {subject}, and there is no such payment, hold, payout or settlement.")
        if first != 1 or last != many:
            found.append(f"The postings of {subject} are numbered {first} to {last}, and there are {many}.")
    return (rows[-1][0] if rows else after), len(rows), found


def compare(tx: Connection, what: str, wanted: Mapping[str, Wanted]) -> list[str]:
    """A query: what these subjects should have moved against what they have posted."""
    owners = {place.owner for moves in wanted.values() for move in moves for place in (move.debit, move.credit)}
    ids = known(tx, owners)
    have = posted(tx, list(wanted))
    found: list[str] = []
    for subject, moves in wanted.items():
        should, has = as_posted(moves, ids), have[subject]
        if should != has:
            ways = sorted(way for way in should.keys() | has.keys() if should.get(way) != has.get(way))
            found += [_differ(what, subject, way, should.get(way, 0), has.get(way, 0)) for way in ways]
    return found


def _differ(what: str, subject: str, way: tuple[str, int, int], should: int, has: int) -> str:
    entry, debit_id, credit_id = way
    if (should or has) < 0:
        debit_id, credit_id, should, has = credit_id, debit_id, -should, -has
    return (
        f"The {what} {subject} should have posted {should} as {entry}, to the debit of the account {debit_id} and the "
        f"credit of {credit_id}, and has posted {has}."
    )


def escrowed(tx: Connection) -> tuple[int, list[str]]:
    """A query: that each beneficiary's escrow is what their holds keep."""
    h, a = holds.c, ledger_accounts.c
    keeps = select(
        h.beneficiary_id, h.live, h.currency, func.sum(h.held_minor - h.released_minor - h.refunded_minor)
    ).group_by(h.beneficiary_id, h.live, h.currency)
    kept = {(owner, bool(live), currency): minor for owner, live, currency, minor in tx.execute(keeps)}
    rows = tx.execute(select(ledger_accounts).where(a.kind == Kind.ESCROW.value)).all()
    has = {(r.owner, bool(r.live), r.currency): on_its_side(r.kind, r.debits_minor, r.credits_minor) for r in rows}
    found = [
        f"The escrow of {owner} in {currency} is {has.get((owner, live, currency), 0)}, and its holds keep "
        f"{kept.get((owner, live, currency), 0)}."
        for owner, live, currency in sorted(kept.keys() | has.keys())
        if kept.get((owner, live, currency), 0) != has.get((owner, live, currency), 0)
    ]
    return len(kept), found


def counted(tx: Connection, tables: Sequence[Table]) -> int:
    """A query: how many rows there are, for the bar."""
    return sum(tx.execute(select(func.count()).select_from(table)).scalar_one() for table in tables)
