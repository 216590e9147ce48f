"""The whole ledger worked out afresh, from what every subject is now: for whoever has just let many hands at it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from sqlalchemy import Connection, func, select

from service.escrow.hold_rows import amounts, of_hold
from service.escrow.payout_rows import of_payout
from service.escrow.tables import holds, payouts
from service.ledger.ledger import MAY_BE_NEGATIVE, Wanted, as_posted, known, on_its_side, posted
from service.ledger.payments import load, wanted
from service.ledger.tables import ledger_accounts, postings
from service.payments.tables import payments
from tests.support.escrow_model import OPEN, Hold, Payout

reached: Counter[str] = Counter()
"""How often the machine of `property/test_escrow_machine.py` came to what."""
PAYOUT_REASONS = {"failed": "payout_failed", "returned": "payout_returned", "awaiting_approval": "payout_approval"}


@contextmanager
def quietly() -> Iterator[None]:
    """Without a line for each of thousands of tries: a failure is told by the machine's own steps."""

    def drop(*_: Any) -> Any:
        raise structlog.DropEvent

    chain = structlog.get_config()["processors"]
    before = list(chain)
    chain[:] = [drop]  # in place: loggers that were used before keep this list
    try:
        yield
    finally:
        chain[:] = before


Seen = set[tuple[str, str]]
"""What is before a person: subject and reason."""


def a_hold_is_right(hold: Hold, row: dict[str, Any], seen: Seen) -> None:
    """The row, and what a person sees."""
    id_ = row["id"]
    now = row["state"], row["held_minor"], row["released_minor"], row["refunded_minor"], row["frozen_minor"]
    right = hold.state, hold.held, hold.released, hold.refunded, hold.frozen
    assert now == right, f"{id_} is {now}, the model's {right}; against {row['against']!r}, not {row['overruled']!r}"
    assert (row["taken_back_minor"], row["release_at_ms"]) == (hold.taken_back, hold.due_ms), hold
    assert ((id_, "hold_frozen") in seen) == (hold.state == "frozen"), hold
    assert ((id_, "hold_undelivered") in seen) == hold.undelivered, hold
    assert not hold.was_taken_back or (id_, "hold_taken_back") in seen
    assert not hold.auto_failed or (id_, "payout_not_possible") in seen
    reached[f"hold {hold.state}"] += 1
    reached["hold owed back"] += hold.taken_back > 0
    reached["hold came back"] += hold.came_back


def a_payout_is_right(one: Payout, row: dict[str, Any], seen: Seen, looks: int) -> None:
    """The row, what a person sees, and how often the provider is asked about it later on."""
    assert (row["state"], row["amount_minor"], row["fee_minor"]) == (one.state, one.amount, one.fee), one
    assert looks == (3 if one.looked_after else 0), one
    wanted = {PAYOUT_REASONS[one.state]} if one.state in PAYOUT_REASONS else set()
    wanted |= {"payout_otp"} if one.otp else set()
    wanted |= {"payout_unknown"} if one.cannot_be_asked else set()
    wanted |= {"payout_paid_after_all"} if one.paid_after_all else set()
    missing = {reason for reason in wanted if (one.id, reason) not in seen}
    assert not missing, (missing, one)
    if one.state not in OPEN:
        left = {"payout_approval", "payout_unknown", "payout_otp", "payout_float_short", "payout_balance_short"}
        assert not {reason for reason in left if (one.id, reason) in seen}, one
    reached[f"payout {one.state}"] += 1


def problems(tx: Connection, elsewhere: dict[str, Wanted] | None = None) -> list[str]:
    """A query: what is wrong with the ledger, in words. `elsewhere`: what other subjects should have moved."""
    found: list[str] = []
    accounts = list(tx.execute(select(ledger_accounts)).mappings())
    p, sums = postings.c, dict[int, list[int]]()
    for side, column in enumerate((p.debit_id, p.credit_id)):
        for id_, minor in tx.execute(select(column, func.sum(p.amount_minor)).group_by(column)):
            sums.setdefault(id_, [0, 0])[side] = minor
    for row in accounts:
        name = f"{row['kind']} of {row['owner']} in {row['currency']}"
        if sums.get(row["id"], [0, 0]) != [row["debits_minor"], row["credits_minor"]]:
            found.append(f"{name}: {sums.get(row['id'])} posted, {row['debits_minor']}, {row['credits_minor']} kept")
        has = on_its_side(row["kind"], row["debits_minor"], row["credits_minor"])
        if has < 0 and row["kind"] not in MAY_BE_NEGATIVE:
            found.append(f"{name}: {has} is below zero")
    should: dict[str, Wanted] = dict(elsewhere or {})
    ids = list(tx.execute(select(payments.c.id)).scalars())
    should |= wanted(tx, ((one.row, one.attempts) for one in load(tx, ids)))
    for hold in [dict(row) for row in tx.execute(select(holds)).mappings()]:
        should[hold["id"]] = of_hold(hold)
        has_all = amounts(hold)
        if has_all.releasable_minor < 0:
            found.append(f"{hold['id']}: more than is held: {has_all}")
        if hold["state"] == "released" and hold["released_minor"] + hold["refunded_minor"] != hold["held_minor"]:
            found.append(f"{hold['id']}: released, and not all of it: {has_all}")
        if hold["state"] == "refunded" and hold["refunded_minor"] != hold["held_minor"]:
            found.append(f"{hold['id']}: refunded, and not all of it: {has_all}")
    should |= {row["id"]: of_payout(dict(row)) for row in tx.execute(select(payouts)).mappings()}
    owners = {place.owner for moves in should.values() for move in moves for place in (move.debit, move.credit)}
    numbers = known(tx, owners)
    moved = posted(tx, list({*should, *tx.execute(select(p.subject).distinct()).scalars()}))
    for subject, ways in moved.items():
        right = as_posted(should.get(subject, {}), numbers)
        if ways != right:
            found.append(f"{subject}: {ways} posted, {right} wanted")
    return found
