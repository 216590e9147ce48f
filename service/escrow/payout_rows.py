"""The rows of payouts: looked at, shown, moved from state to state, and what they mean in the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, bindparam, insert, select, update

from outbox.prepared import Lookup, Prepared
from service.attention import close_attention, open_attention
from service.errors import NotFound
from service.escrow.states import GAVE_BACK, OPEN, PAYOUT, Payout, PayoutStep
from service.escrow.tables import payouts
from service.ledger.ledger import Entry, Kind, Move, Place, Wanted, bring
from service.merchants.events import News, rfc3339
from service.orders.owner import Owner, find, mine, page_of
from service.orders.stock import tally
from service.payments.heard import Context

Row = Mapping[str, Any]
TALLY: Final = "payouts:"
"""How the names of totals begin that metrics show by provider and status."""

APPROVAL, FAILED, RETURNED, UNKNOWN, OTP, FLOAT_SHORT, STUCK, AFTER_ALL, BALANCE, NOT_POSSIBLE = (
    *("payout_approval", "payout_failed", "payout_returned", "payout_unknown", "payout_otp", "payout_float_short"),
    *("payout_stuck", "payout_paid_after_all", "payout_balance_short", "payout_not_possible"),
)
"""Why a payout (the last: a hold that was released) is before a person."""
_WHILE_OPEN: Final = (APPROVAL, UNKNOWN, OTP, FLOAT_SHORT, BALANCE, STUCK)
_TOLD: Final[Mapping[str, str]] = {
    Payout.PAID: "payout.paid",
    Payout.FAILED: "payout.failed",
    Payout.CANCELED: "payout.canceled",
    Payout.RETURNED: "payout.returned",
    Payout.IN_TRANSIT: "payout.in_transit",
}


_ONE = Lookup(select(payouts).where(payouts.c.id.in_(bindparam("wanted", expanding=True))))
_UPDATE = Prepared(
    update(payouts)
    .where(payouts.c.id == bindparam("id_"), payouts.c.version == bindparam("version_"))
    .values({name: bindparam(name) for name in payouts.c.keys() if name != "id"})  # noqa: SIM118 - columns, no mapping
)
_INSERT = Prepared(insert(payouts), payouts.c.keys())


def keep(tx: Connection, row: Row) -> None:
    """A new one, with what it reserves."""
    _INSERT(tx, [row])
    bring(tx, {row["id"]: of_payout(row)}, row["created_at_ms"])


def one(tx: Connection, payout_id: str, owner: Owner | None = None) -> dict[str, Any]:
    """A query: one payout. Raises NotFound, also for another merchant's."""
    if owner is not None:
        return find(tx, payouts, owner, payout_id, "payout")
    found = _ONE(tx, [payout_id])
    if not found:
        raise NotFound("payout", payout_id, "caisse payouts list")
    return found[0]


def listed(
    tx: Connection,
    owner: Owner,
    *,
    status: str | None = None,
    beneficiary: str | None = None,
    hold: str | None = None,
    before: str = "",
    limit: int = 50,
) -> list[dict[str, Any]]:
    """A query: an owner's payouts, newest first."""
    query = mine(payouts, owner)
    p = payouts.c
    for column, value in ((p.state, status), (p.beneficiary_id, beneficiary), (p.hold_id, hold)):
        if value is not None:
            query = query.where(column == value)
    return page_of(tx, query, payouts, before, limit)


def public(row: Row) -> dict[str, Any]:
    """A payout as merchants see it."""
    return {
        "id": row["id"],
        "status": row["state"],
        "source": row["source"],
        "beneficiary": row["beneficiary_id"],
        "hold": row["hold_id"],
        "refund": row["refund_id"],
        "retry_of": row["retry_of"],
        "live": bool(row["live"]),
        "amount": row["amount_minor"],
        "currency": row["currency"],
        "fee": row["fee_minor"],
        "provider": row["provider"],
        "account": row["account_id"],
        "reference": row["reference"],
        "provider_reference": row["provider_reference"],
        "description": row["description"],
        "failure_reason": row["failure_reason"],
        "waits_for": row["waits_for"] or None,
        "otp_wanted": bool(row["otp_wanted"]),
        "approved_by": row["approved_by"],
        "created_at": rfc3339(row["created_at_ms"]),
        "updated_at": rfc3339(row["updated_at_ms"]),
        "paid_at": rfc3339(row["paid_at_ms"]),
    }


def of_payout(row: Row) -> Wanted:
    """
    What one payout should have moved in the ledger. Of one that makes a refund that is what is reserved, and the fee:
    once it is paid, the refund's own fact has moved the money.
    """
    whose = row["merchant_id"], bool(row["live"]), row["currency"]
    refunds = row["source"] == "refund"
    if refunds or row["source"] == "merchant":
        owner = Place(Kind.MERCHANT, row["merchant_id"], *whose)
        reserved = Place(Kind.RESERVED, row["merchant_id"], *whose)
    else:
        owner = Place(Kind.BENEFICIARY, row["beneficiary_id"], *whose)
        reserved = Place(Kind.RESERVED, row["beneficiary_id"], *whose)
    float_ = Place(Kind.FLOAT, row["account_id"], *whose)
    fees = Place(Kind.FEES, row["merchant_id"], *whose)
    amount, state = row["amount_minor"], row["state"]
    left = state in (Payout.PAID, Payout.RETURNED)
    gone = left and not refunds
    return {
        Move(Entry.PAYOUT, owner, reserved): amount if gone or state in OPEN else 0,
        Move(Entry.PAID_OUT, reserved, float_): amount if gone else 0,
        Move(Entry.RETURNED, float_, owner): amount if gone and state == Payout.RETURNED else 0,
        Move(Entry.FEE, fees, float_): row["fee_minor"] if left else 0,
    }


def owed_by(row: Row) -> tuple[Kind, str]:
    """The ledger account that pays it: its kind and owner."""
    if row["source"] == "beneficiary":
        return Kind.BENEFICIARY, row["beneficiary_id"]
    return Kind.MERCHANT, row["merchant_id"]


def move(tx: Connection, row: Row, what: PayoutStep | None, context: Context, **more: Any) -> list[News]:
    """
    Write what a payout has become, with what a person has to see of it, and its postings. Returns the news.

    By the table; what is not in it changes no state. Nothing is written when somebody else has moved it meanwhile.
    """
    state = PAYOUT.get((row["state"], what), row["state"]) if what is not None else row["state"]
    values = {"state": str(state), **more}
    if state == Payout.PAID and row["paid_at_ms"] is None:
        values["paid_at_ms"] = context.now_ms
    if state != row["state"]:
        values = {"waits_for": "", "otp_wanted": False} | values
    if row["state"] in GAVE_BACK and state not in GAVE_BACK:
        values |= _places_taken(tx, row)
    if all(row[name] == value for name, value in values.items()):
        return []
    type_ = _TOLD.get(state) if state != row["state"] else None
    values |= {
        "updated_at_ms": context.now_ms,
        "version": row["version"] + 1,
        "sequence": row["sequence"] + (type_ is not None),
    }
    after = {**row, **values}
    if not _UPDATE(tx, [after | {"id_": row["id"], "version_": row["version"]}]):
        return []
    bring(tx, {row["id"]: of_payout(after)}, context.now_ms)
    if state != row["state"]:
        tally(tx, f"{TALLY}{row['provider']}:{state}")
        _show(tx, after, row["state"], context)
    return [] if type_ is None else [told_of(after, type_)]


def _places_taken(tx: Connection, row: Row) -> dict[str, None]:
    """The hold or refund of one that was paid after all is another's now, if that was tried again meanwhile."""
    p = payouts.c
    taken: dict[str, None] = {}
    for place in (p.hold_id, p.refund_id):
        others = place == row[place.name], p.id != row["id"], p.state.not_in(GAVE_BACK)
        if row[place.name] is not None and tx.execute(select(p.id).where(*others)).first() is not None:
            taken[place.name] = None
    return taken


def _show(tx: Connection, row: Row, was: str, context: Context) -> None:
    id_, state = row["id"], row["state"]
    if state not in OPEN:
        for reason in _WHILE_OPEN:
            close_attention(tx, id_, reason, context.now_ms)
    if state == Payout.QUEUED:
        close_attention(tx, id_, APPROVAL, context.now_ms)
    detail = row["failure_reason"] or row["provider"]
    if state == Payout.AWAITING_APPROVAL:
        open_attention(tx, context.ids, id_, APPROVAL, "", context.now_ms)
    elif state == Payout.FAILED:
        open_attention(tx, context.ids, id_, FAILED, detail, context.now_ms)
    elif state == Payout.RETURNED:
        open_attention(tx, context.ids, id_, RETURNED, detail, context.now_ms)
    elif state == Payout.PAID and was in GAVE_BACK:
        open_attention(tx, context.ids, id_, AFTER_ALL, detail, context.now_ms)


def told_of(row: Row, type_: str) -> News:
    """What its merchant is told."""
    return News(row["merchant_id"], type_, row["sequence"], {"payout": public(row)}, live=bool(row["live"]))
