"""
Refunds that are made as payouts: where a provider gives nothing back, and can pay out to the wallet that has paid.

Such a refund stays *manual* and queued while its payout is under way, and follows it in the same transaction: paid is
given back, failed is a refund that still waits, what comes back after it was paid makes the refund fail. The ledger has
the money once: reserved by the payout while it is open, and as the refund's own from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sqlalchemy import Connection, insert, select

from service.errors import Refusal
from service.escrow.beneficiaries import NAME_MAX, To, check
from service.escrow.payout_rows import Row, one
from service.escrow.states import GAVE_BACK, Payout
from service.escrow.tables import payees, payees_personal, payouts
from service.merchants.audit import By
from service.payments import refund_rows
from service.payments.heard import Context
from service.payments.refund_send import Refunder
from service.payments.states import RefundState
from service.payments.tables import payers, payments

BY_PAYOUT: Final = frozenset({"ebilling", "monetbil", "moneroo"})
"""Providers without refunds that pay out to whoever paid. FedaPay has refunds of some operators, on its own pages."""

ACTOR: Final = "payout"
"""Whose hand it is, in the audit trail, when a refund follows its payout."""

MOVEMENT: Final = "payout:"
"""How the names of such refunds begin; our reference of the payout follows, which no other movement can have."""

Follows = Callable[[Connection, Row, Context], None]
"""`follows(tx, was, context)`: what else changes with a payout that may have moved; `was` is its row before."""


def nothing_follows(tx: Connection, was: Row, context: Context) -> None:
    """Where no refund is made by payout."""


# --- beginning ----------------------------------------------------------------------------------------


def waiting(tx: Connection, refund_id: str) -> dict[str, Any]:
    """
    A query: a refund that may be paid out now, with the `retry_of` of its payout.

    Raises NotFound, Refusal: not_manual (or made already, or given up), payout_open (says which), no_way.
    """
    refund = refund_rows.one(tx, refund_id)
    if refund["state"] != RefundState.QUEUED or not refund["manual"]:
        raise Refusal("not_manual", f"The refund {refund_id} is {refund['state']}; it is not waiting for a person.")
    if other := open_payout(tx, refund_id):
        raise Refusal("payout_open", f"The refund {refund_id} is being made by the payout {other}; look at that one.")
    if refund["provider"] not in BY_PAYOUT:
        raise Refusal(
            "no_way",
            f"Refunds of {refund['provider']} are not made by payout; make it there, then: caisse refunds done.",
        )
    before = select(payouts.c.id).where(payouts.c.refund_id == refund_id).order_by(payouts.c.id.desc()).limit(1)
    return refund | {"retry_of": tx.execute(before).scalar()}


def open_payout(tx: Connection, refund_id: str) -> str:
    """A query: the payout by which a refund is being made, or was; empty: none, or none that still counts."""
    counts = payouts.c.refund_id == refund_id, payouts.c.state.not_in(GAVE_BACK)
    return tx.execute(select(payouts.c.id).where(*counts)).scalar() or ""


def payer_of(tx: Connection, refund: Mapping[str, Any]) -> To:
    """
    A query: the wallet that a refunded payment came from.

    Raises Refusal: payer_unknown (says what is missing), bad_….
    """
    p = payments.c
    query = select(p.operator, p.country, payers.c.payer_phone, payers.c.name)
    query = query.outerjoin(payers, payers.c.payment_id == p.id).where(p.id == refund["payment_id"])
    row = tx.execute(query).mappings().one()
    missing = [name for name in ("payer_phone", "operator", "name") if not row[name]]
    if missing:
        raise Refusal(
            "payer_unknown",
            f"The payment {refund['payment_id']} does not say who paid: {', '.join(missing)} missing. Make the refund "
            "by hand, then: caisse refunds done.",
        )
    return check(To("mobile_money", row["payer_phone"], row["name"][:NAME_MAX], row["country"] or "", row["operator"]))


def payee_row(to: To, currency: str, by: By) -> dict[str, Any]:
    """A payer as somebody to be paid, once; not kept yet. With its personal half, as `beneficiaries.payee` has it."""
    return {
        "id": by.ids("pye"),
        "beneficiary_id": None,
        "kind": to.kind,
        "currency": currency,
        "country": to.country,
        "operator": to.operator,
        "bank_code": "",
        "actor": by.actor,
        "created_at_ms": by.now_ms,
        "usable_at_ms": by.now_ms,
        "name": to.name,
        "number": to.number,
    }


def keep_payee(tx: Connection, row: Mapping[str, Any]) -> None:
    """A work: keep it, what is personal apart."""
    personal = {"payee_id": row["id"], "name": row["name"], "number": row["number"]}
    tx.execute(insert(payees).values({name: value for name, value in row.items() if name in payees.c}))
    tx.execute(insert(payees_personal).values(personal))


def still_wanted(tx: Connection, payout: Row) -> bool:
    """A query: whether a payout may still go out. A refund that was made or given up meanwhile wants no money."""
    if payout["refund_id"] is None:
        return True
    return bool(refund_rows.one(tx, payout["refund_id"])["state"] == RefundState.QUEUED)


# --- following ----------------------------------------------------------------------------------------


def follow(tx: Connection, refunder: Refunder, was: Row, context: Context) -> None:
    """The refund of a payout, in the transaction that has moved it; one of any other source has none."""
    state = one(tx, was["id"])["state"]
    if was["source"] != "refund" or state == was["state"]:
        return
    movement = f"{MOVEMENT}{was['reference']}"
    by = By(ACTOR, context.now_ms, context.ids)
    if state == Payout.PAID:
        refunder.paid_out(tx, was["refund_id"], movement, by)
    elif was["state"] == Payout.PAID:
        refunder.came_back(tx, was["account_id"], movement, by)
    elif state in GAVE_BACK:
        by.write_down(tx, f"refund.payout_{state}", was["refund_id"], was["id"])
