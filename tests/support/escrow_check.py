"""The whole ledger worked out afresh, from what every subject is now: for whoever has just let many hands at it."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from service.escrow.hold_rows import amounts, of_hold
from service.escrow.payout_rows import of_payout
from service.escrow.tables import holds, payouts
from service.ledger.ledger import MAY_BE_NEGATIVE, Wanted, as_posted, known, on_its_side, posted
from service.ledger.payments import load, wanted
from service.ledger.tables import ledger_accounts, postings
from service.payments.tables import payments


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
