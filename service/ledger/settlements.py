"""
Settlements: money that a provider has sent to the merchant's bank, or the bank to the float (below zero).

No provider tells of them in a way that can be believed, so a person, or a program that reads bank statements, records
them: once for each reference, so that the same statement may be read twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, insert, select

from outbox.queue import Queue
from service.errors import NotFound, Refusal
from service.escrow.payouts import hasten
from service.ledger.ledger import Entry, Kind, Move, Place, Wanted, bring
from service.ledger.tables import settlements
from service.merchants.audit import By
from service.merchants.events import rfc3339
from service.merchants.tables import accounts
from service.orders.fields import a_text, an_amount
from service.orders.owner import Owner, mine, page_of, row_of
from service.payments.facts import AMOUNT_MINOR_MAX

REFERENCE_MAX: Final = 120
AHEAD_MS: Final = 24 * 3_600_000
"""How far in the future a settlement may lie: a bank's day may have begun where ours has not."""
_SAME: Final = ("amount_minor", "currency", "fee_minor")
"""What must be the same for the same reference to be the same money."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """
    As somebody records it. Amounts in minor units; below zero: the bank has topped the float up. `fee_minor`: what the
    provider kept besides. `settled_at_ms`: when the money moved; None: now.
    """

    account_id: str
    amount_minor: int
    currency: str
    reference: str
    settled_at_ms: int | None = None
    fee_minor: int = 0
    note: str = ""


def record(
    tx: Connection, draft: Settlement, by: By, owner: Owner | None = None, queue: Queue | None = None
) -> dict[str, Any]:
    """
    A work: write a settlement down and post it. The same again changes nothing. `owner`: whose account it must be.
    `queue`: where payouts wait for their float; after a top-up they are tried at once.

    Raises NotFound (also for another merchant's account), and Refusal: bad_amount, bad_currency, bad_fee,
    bad_reference, bad_note, bad_settled_at, reference_taken (it was recorded with other amounts).
    """
    whose = row_of(_account(tx, draft.account_id, owner))
    checked = _checked(draft, by.now_ms)
    s = settlements.c
    there = select(settlements).where(s.account_id == draft.account_id, s.reference == draft.reference)
    if (known := tx.execute(there).mappings().one_or_none()) is not None:
        if any(known[name] != checked[name] for name in _SAME):
            raise Refusal(
                "reference_taken",
                f"reference: {draft.reference!r} was recorded already, of {known['amount_minor']} {known['currency']} "
                f"with a fee of {known['fee_minor']}.",
            )
        return dict(known)
    row = {
        **checked,
        "id": by.ids("stl"),
        "merchant_id": whose.merchant_id,
        "live": whose.live,
        "account_id": draft.account_id,
        "actor": by.actor,
        "created_at_ms": by.now_ms,
    }
    tx.execute(insert(settlements).values(row))
    bring(tx, {row["id"]: of_settlement(row)}, by.now_ms)
    by.write_down(tx, "settlement.recorded", row["id"], draft.note)
    if queue is not None and draft.amount_minor < 0:
        hasten(tx, queue, "float", by.now_ms)
    return row


def of_settlement(row: Mapping[str, Any]) -> Wanted:
    """What one settlement should have moved in the ledger."""
    whose = row["merchant_id"], bool(row["live"]), row["currency"]
    float_ = Place(Kind.FLOAT, row["account_id"], *whose)
    return {
        Move(Entry.SETTLEMENT, Place(Kind.BANK, row["merchant_id"], *whose), float_): row["amount_minor"],
        Move(Entry.FEE, Place(Kind.FEES, row["merchant_id"], *whose), float_): row["fee_minor"],
    }


def listed(
    tx: Connection, owner: Owner, *, account: str | None = None, before: str = "", limit: int = 50
) -> list[dict[str, Any]]:
    """A query: an owner's settlements, the newest recorded first."""
    query = mine(settlements, owner)
    if account is not None:
        query = query.where(settlements.c.account_id == account)
    return page_of(tx, query, settlements, before, limit)


def all_listed(
    tx: Connection, *, account: str | None = None, merchant: str | None = None, before: str = "", limit: int = 50
) -> list[dict[str, Any]]:
    """A query: everybody's, for whoever runs the installation."""
    query = select(settlements).order_by(settlements.c.id.desc()).limit(limit)
    for column, value in ((settlements.c.account_id, account), (settlements.c.merchant_id, merchant)):
        if value is not None:
            query = query.where(column == value)
    if before:
        query = query.where(settlements.c.id < before)
    return [dict(row) for row in tx.execute(query).mappings()]


def public(row: Mapping[str, Any]) -> dict[str, Any]:
    """A settlement as merchants see it."""
    return {
        "id": row["id"],
        "account": row["account_id"],
        "live": bool(row["live"]),
        "amount": row["amount_minor"],
        "currency": row["currency"],
        "fee": row["fee_minor"],
        "reference": row["reference"],
        "note": row["note"],
        "recorded_by": row["actor"],
        "settled_at": rfc3339(row["settled_at_ms"]),
        "created_at": rfc3339(row["created_at_ms"]),
    }


def _account(tx: Connection, account_id: str, owner: Owner | None) -> dict[str, Any]:
    row = tx.execute(select(accounts).where(accounts.c.id == account_id)).mappings().one_or_none()
    if row is None or row["merchant_id"] is None:
        raise NotFound("account", account_id, "caisse account list")
    if owner is not None and (row["merchant_id"], bool(row["live"])) != (owner.merchant_id, owner.live):
        raise NotFound("account", account_id, "caisse account list")
    return dict(row)


def _checked(draft: Settlement, now_ms: int) -> dict[str, Any]:
    if type(draft.amount_minor) is not int or draft.amount_minor == 0:
        raise Refusal("bad_amount", "amount: an integer of minor units, not 0; below 0 when the bank topped it up.")
    an_amount("amount", abs(draft.amount_minor), draft.currency)
    if type(draft.fee_minor) is not int or not 0 <= draft.fee_minor <= AMOUNT_MINOR_MAX:
        raise Refusal("bad_fee", f"fee: 0 to {AMOUNT_MINOR_MAX} minor units.")
    if not draft.reference.strip():
        raise Refusal("bad_reference", "reference: the provider's or the bank's; by it the same one is known again.")
    settled_at_ms = now_ms if draft.settled_at_ms is None else draft.settled_at_ms
    if not 0 <= settled_at_ms <= now_ms + AHEAD_MS:
        raise Refusal("bad_settled_at", "settled_at: when the money moved, not in the future.")
    return {
        "amount_minor": draft.amount_minor,
        "currency": draft.currency,
        "fee_minor": draft.fee_minor,
        "reference": a_text("reference", draft.reference, REFERENCE_MAX),
        "note": a_text("note", draft.note),
        "settled_at_ms": settled_at_ms,
    }
