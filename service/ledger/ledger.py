"""
The one writer of the ledger.

Nobody posts "5,000 more". Whoever changes a state says what the subject (a payment, a hold, a payout) should have moved
in all by now, and `bring` posts the difference: nothing when that is posted already, the other way round when it was
too much. So it may be called again at will, a correction is a new posting, and the whole ledger can be checked by
working out afresh what every subject should have moved (`verify`).

Amounts are integers of minor units; every posting stays within one currency.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, insert, select, update

from outbox.prepared import Lookup, Prepared
from service.ledger.tables import ledger_accounts, postings


class Kind(StrEnum):
    """An account. The first three are what there is, and grow by debits; the others say whose it is, by credits."""

    FLOAT = "float"  # what a provider holds for us; its owner is the provider account
    BANK = "bank"  # what has been settled to the merchant's bank
    FEES = "fees"  # what providers have kept

    MERCHANT = "merchant"  # the merchant's; less what is at the bank and what fees took, it can be paid out
    UNALLOCATED = "unallocated"  # money that has come and that nothing was given for: late, too much, twice
    DISPUTED = "disputed"  # claimed back by a payer's bank, and not decided
    ESCROW = "escrow"  # held for a beneficiary
    BENEFICIARY = "beneficiary"  # a beneficiary's, to be paid out
    RESERVED = "reserved"  # on its way in payouts that have no end yet; of a merchant or a beneficiary


BY_DEBIT = frozenset({Kind.FLOAT, Kind.BANK, Kind.FEES})
MAY_BE_NEGATIVE = frozenset({Kind.FLOAT, Kind.BANK, Kind.MERCHANT, Kind.BENEFICIARY})
"""
A provider may owe less than nothing after refunds, a bank may have topped a float up; a merchant, or a beneficiary, may
owe what was refunded or clawed back after it was paid out. Everything else below zero is a mistake of ours.
"""


class Entry(StrEnum):
    """Why something was posted. A correction has the word of what it corrects."""

    CAPTURE = "capture"
    FEE = "fee"
    REFUND = "refund"
    REFUND_ELSEWHERE = "refund_elsewhere"  # seen at the provider, not made by us
    REVERSAL = "reversal"  # clawed back by the operator
    DISPUTE = "dispute"  # claimed back, not decided
    DISPUTE_LOST = "dispute_lost"
    UNALLOCATED = "unallocated"
    HOLD = "hold"
    RELEASE = "release"
    HOLD_REFUND = "hold_refund"  # of held money, back to the merchant who gives it back
    CLAWBACK = "clawback"  # of released money, from the beneficiary
    PAYOUT = "payout"  # reserved
    PAID_OUT = "paid_out"
    RETURNED = "returned"
    SETTLEMENT = "settlement"


class Place(NamedTuple):
    """One account of the ledger."""

    kind: str
    owner: str
    merchant_id: str
    live: bool
    currency: str


class Move(NamedTuple):
    """From one place to another, and why: what `debit` gains, or `credit` is owed."""

    entry: str
    debit: Place
    credit: Place


Wanted = Mapping[Move, int]
"""What a subject should have moved in all, in minor units; below zero: the other way."""

_ACCOUNTS = Lookup(
    select(*[c for c in ledger_accounts.c if c.name not in ("debits_minor", "credits_minor")]).where(
        ledger_accounts.c.owner.in_(bindparam("wanted", expanding=True))
    )
)
_POSTED = Lookup(
    select(*[c for c in postings.c if c.name not in ("id", "at_ms")]).where(
        postings.c.subject.in_(bindparam("wanted", expanding=True))
    )
)
_POST = Prepared(insert(postings), [c.name for c in postings.c if c.name != "id"])
_ADD = Prepared(
    update(ledger_accounts)
    .where(ledger_accounts.c.id == bindparam("id_"))
    .values(
        debits_minor=ledger_accounts.c.debits_minor + bindparam("debits"),
        credits_minor=ledger_accounts.c.credits_minor + bindparam("credits"),
    )
)

_Way = tuple[str, int, int]
Key = tuple[str, str, bool, str]
"""What makes an account one: kind, owner, live, currency."""


def bring(tx: Connection, wanted: Mapping[str, Wanted], now_ms: int) -> int:
    """
    A work: post what is missing until each subject has moved what is wanted of it. Returns how many postings that took.
    """
    if not wanted:
        return 0
    places = {place for moves in wanted.values() for move in moves for place in (move.debit, move.credit)}
    ids = _ids(tx, places)
    missing: dict[str, dict[_Way, int]] = {subject: {} for subject in wanted}
    for subject, moves in wanted.items():
        for move, minor in moves.items():
            _add(missing[subject], move.entry, ids[_key(move.debit)], ids[_key(move.credit)], minor)
    numbers = dict.fromkeys(wanted, 0)
    for row in _POSTED(tx, sorted(wanted)):
        numbers[row["subject"]] = max(numbers[row["subject"]], row["number"])
        _add(missing[row["subject"]], row["kind"], row["debit_id"], row["credit_id"], -row["amount_minor"])
    rows: list[dict[str, Any]] = []
    sums: dict[int, list[int]] = {}
    for subject, ways in missing.items():
        for (entry, low, high), minor in ways.items():
            if not minor:
                continue
            debit_id, credit_id = (low, high) if minor > 0 else (high, low)
            numbers[subject] += 1
            rows.append(
                {
                    "subject": subject,
                    "number": numbers[subject],
                    "kind": entry,
                    "debit_id": debit_id,
                    "credit_id": credit_id,
                    "amount_minor": abs(minor),
                    "at_ms": now_ms,
                }
            )
            sums.setdefault(debit_id, [0, 0])[0] += abs(minor)
            sums.setdefault(credit_id, [0, 0])[1] += abs(minor)
    if rows:
        _POST(tx, rows)
        _ADD(tx, [{"id_": id_, "debits": of[0], "credits": of[1]} for id_, of in sorted(sums.items())])
    return len(rows)


def posted(tx: Connection, subjects: Sequence[str]) -> dict[str, dict[tuple[str, int, int], int]]:
    """A query: what each subject has moved, net, by (entry, lower account id, higher): above zero debits the lower."""
    found: dict[str, dict[_Way, int]] = {subject: {} for subject in subjects}
    for row in _POSTED(tx, sorted(found)):
        _add(found[row["subject"]], row["kind"], row["debit_id"], row["credit_id"], row["amount_minor"])
    return {subject: {way: minor for way, minor in ways.items() if minor} for subject, ways in found.items()}


def as_posted(wanted: Wanted, ids: Mapping[Key, int]) -> dict[tuple[str, int, int], int]:
    """The same of what is wanted; an account that is not there yet counts as number 0."""
    ways: dict[_Way, int] = {}
    for move, minor in wanted.items():
        _add(ways, move.entry, ids.get(_key(move.debit), 0), ids.get(_key(move.credit), 0), minor)
    return {way: minor for way, minor in ways.items() if minor}


def known(tx: Connection, owners: Collection[str]) -> dict[Key, int]:
    """A query: the numbers of these owners' accounts."""
    rows = _ACCOUNTS(tx, sorted(owners))
    return {(row["kind"], row["owner"], bool(row["live"]), row["currency"]): row["id"] for row in rows}


def balance(tx: Connection, kind: Kind, owner: str, live: bool, currency: str) -> int:
    """A query: what an account holds, on its own side, in minor units; 0 where there is none."""
    a = ledger_accounts.c
    row = tx.execute(
        select(a.debits_minor, a.credits_minor).where(
            a.owner == owner, a.kind == kind.value, a.live == live, a.currency == currency
        )
    ).one_or_none()
    return 0 if row is None else on_its_side(kind, row.debits_minor, row.credits_minor)


def on_its_side(kind: str, debits_minor: int, credits_minor: int) -> int:
    """A balance as people say it: above zero is as it should be."""
    return debits_minor - credits_minor if kind in BY_DEBIT else credits_minor - debits_minor


def _add(ways: dict[_Way, int], entry: str, debit_id: int, credit_id: int, minor: int) -> None:
    if debit_id > credit_id:
        debit_id, credit_id, minor = credit_id, debit_id, -minor
    way = (entry, debit_id, credit_id)
    ways[way] = ways.get(way, 0) + minor


def _ids(tx: Connection, places: Collection[Place]) -> dict[Key, int]:
    """The accounts' numbers; those that are not there yet are made."""
    owners = {place.owner for place in places}
    found = known(tx, owners)
    missing = {_key(place): place for place in places if _key(place) not in found}
    if missing:
        tx.execute(insert(ledger_accounts), [place._asdict() for _, place in sorted(missing.items())])
        found = known(tx, owners)
    return found


def _key(place: Place) -> Key:
    return place.kind, place.owner, place.live, place.currency
