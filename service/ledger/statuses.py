"""
What is stored of payments, refunds, orders, sessions and holds against what their facts say, worked out afresh.

Each function is a query over one page, so over one snapshot: what is compared was committed together, and what is
written meanwhile is no fault. They return sentences, each with the id and both values, and none when all is well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Table, bindparam, select

from outbox.prepared import Lookup
from service.escrow import rules as hold_rules
from service.escrow.hold_rows import amounts
from service.escrow.states import Hold
from service.ledger.payments import load
from service.orders import rules as order_rules
from service.orders.money import money_of
from service.orders.rules import Money
from service.orders.states import PAYABLE, UNFINISHED
from service.orders.tables import orders, sessions
from service.payments.facts import Kind
from service.payments.records import AttemptRecord, PaymentRecord
from service.payments.refund_match import walk
from service.payments.rules import Attempt, Payment, Problem, decide_payment, flows
from service.payments.states import REFUND_ORDER, RefundState
from service.payments.tables import payments, refunds

Row = Mapping[str, Any]

_STORED: Final = (
    "status", "amount_minor", "currency", "captured_minor", "refunded_minor", "fee_minor", "failure_reason",
)  # fmt: skip
"""What a payment's row has word for word from the rules."""
_IF_SAID: Final = ("method", "paid_at_ms")
"""What else it has, where the facts say it: else it is what was asked for, or when it was first known."""
_TOGETHER: Final = 500
_REFUNDS = Lookup(select(refunds).where(refunds.c.payment_id.in_(bindparam("wanted", expanding=True))))
_ORDERS = Lookup(select(orders.c.id, orders.c.currency).where(orders.c.id.in_(bindparam("wanted", expanding=True))))


def page(tx: Connection, table: Table, after: str, limit: int, *where: Any) -> list[dict[str, Any]]:
    """The next rows by id."""
    query = select(table).where(table.c.id > after, *where).order_by(table.c.id).limit(limit)
    return [dict(row) for row in tx.execute(query).mappings()]


def rows_of(tx: Connection, table: Table, ids: Sequence[str]) -> list[dict[str, Any]]:
    """These rows."""
    found: list[dict[str, Any]] = []
    for at in range(0, len(ids), _TOGETHER):
        found += map(dict, tx.execute(select(table).where(table.c.id.in_(ids[at : at + _TOGETHER]))).mappings())
    return found


def differs(what: str, id_: str, name: str, stored: object, found: object) -> str:
    """The sentence of most problems."""
    return f"The {what} {id_} has {name} {_said(stored)}, and its facts say {_said(found)}."


# --- payments and their attempts ------------------------------------------------------------------------


def of_payment(record: PaymentRecord) -> Iterator[str]:
    """A payment and its attempts, by the rules."""
    row, external = record.row, record.row["origin"] == "external"
    decided: list[Attempt] = []
    for attempt in record.attempts:
        said = attempt.decide(external, row["ended_at_ms"])
        decided.append(said)
        now = said.state.value, said.asked_minor or 0, said.currency or "XXX"
        for name, value in zip(("state", "amount_minor", "currency"), now, strict=True):
            if attempt.row[name] != value:
                yield differs("attempt", attempt.row["id"], name, attempt.row[name], value)
    after = decide_payment(decided)
    for name in _STORED:
        if row[name] != getattr(after, name):
            yield differs("payment", row["id"], name, row[name], getattr(after, name))
    for name in _IF_SAID:
        said_now = getattr(after, name)
        # A payment of ours keeps the method that was asked for until a provider says another.
        unsaid = said_now is None and (name == "paid_at_ms" or not external)
        if row[name] != said_now and not unsaid:
            yield differs("payment", row["id"], name, row[name], said_now)
    stored = frozenset(word for word in row["exceptions"].split(",") if word)
    if stored != after.problems and not _was_in_time(record, stored, after):
        yield differs("payment", row["id"], "exceptions", row["exceptions"], ",".join(sorted(after.problems)))


def _was_in_time(record: PaymentRecord, stored: frozenset[str], after: Payment) -> bool:
    """
    Money that was known when its order ended is not late, whatever the provider's clock says: that is worked out only
    when something more is told.
    """
    captures = [kept for one in record.attempts for (kind, _), kept in one.facts.items() if kind == Kind.CAPTURED]
    ended_at_ms = record.row["ended_at_ms"]
    known = ended_at_ms is not None and all(kept.told_at_ms <= ended_at_ms for kept in captures)
    return known and stored == after.problems - {Problem.LATE}


def without_attempts(tx: Connection, ids: Sequence[str]) -> list[str]:
    """Of these payments, those that have money from nowhere; one that was merged into another has none any more."""
    left = [row for row in rows_of(tx, payments, ids) if row["merged_into"] is None and row["captured_minor"]]
    return [differs("payment", row["id"], "captured_minor", row["captured_minor"], None) for row in left]


def of_refunds(tx: Connection, records: Sequence[PaymentRecord]) -> list[str]:
    """The refunds of these payments: what the provider says of one by its name, or in its total, is its state."""
    attempts = {one.row["id"]: one for record in records for one in record.attempts}
    found: list[str] = []
    for row in _REFUNDS(tx, [record.row["id"] for record in records if record.row["captured_minor"]]):
        attempt = attempts.get(row["attempt_id"])
        if attempt is None:
            found.append(f"The refund {row['id']} is of the attempt {row['attempt_id']}, which is not its payment's.")
            continue
        said = _told_of(attempt, row["provider_reference"])
        if said is not None and said != row["state"]:
            found.append(differs("refund", row["id"], "state", row["state"], said))
        elif said is None and row["state"] == RefundState.SUCCEEDED and not _told_total(attempt):
            found.append(differs("refund", row["id"], "state", row["state"], None))
    return found


def _told_of(attempt: AttemptRecord, name: str | None) -> str | None:
    kinds = [kind for kind, movement in attempt.facts if movement == name and kind in REFUND_ORDER]
    return walk(RefundState.PENDING, kinds).value if kinds else None


def _told_total(attempt: AttemptRecord) -> bool:
    return any(kind == Kind.REFUNDED_TOTAL for kind, _ in attempt.facts)


# --- orders, sessions, holds ----------------------------------------------------------------------------


def of_orders(tx: Connection, rows: Sequence[Row]) -> list[str]:
    """What came for each order, and whether one that is paid in full still waits."""
    among: dict[str, list[Money]] = {row["id"]: [] for row in rows}
    for money in money_of(tx, among.keys()):
        among[money.order_id or ""].append(money)
    found: list[str] = []
    for row in rows:
        mine = among[row["id"]]
        kept_minor = order_rules.paid_minor(row["currency"], mine)
        status = order_rules.payment_status(row["amount_minor"], kept_minor)
        for name, value in (("paid_minor", kept_minor), ("payment_status", status)):
            if row[name] != value:
                found.append(differs("order", row["id"], name, row[name], value))
        if row["state"] in PAYABLE and order_rules.pays(row["amount_minor"], row["currency"], mine):
            found.append(differs("order", row["id"], "state", row["state"], "paid"))
    return found


def unfinished_sessions(tx: Connection, after: str, limit: int) -> list[dict[str, Any]]:
    """The next of them; of a finished one its payments say nothing any more."""
    return page(tx, sessions, after, limit, sessions.c.state.in_(UNFINISHED))


def of_sessions(tx: Connection, rows: Sequence[Row]) -> list[str]:
    """Unfinished sessions, one of whose payments is right and enough."""
    among: dict[str, list[Money]] = {row["id"]: [] for row in rows}
    for money in money_of(tx, (), among.keys()):
        among[money.session_id or ""].append(money)
    found: list[str] = []
    for row in rows:
        for money in among[row["id"]]:
            if money.right and money.currency == row["currency"] and money.amount_minor >= row["amount_minor"]:
                paid_by = f"its payment {money.payment_id} says complete"
                found.append(f"The session {row['id']} has state {row['state']}, and {paid_by}.")
    return found


def of_holds(tx: Connection, rows: Sequence[Row]) -> list[str]:
    """Holds, by what is left of the money that was paid for their orders."""
    kept = _kept(tx, [row["order_id"] for row in rows])
    found: list[str] = []
    for row in rows:
        was = amounts(row)
        now = hold_rules.weigh(was, kept[row["order_id"]], row["state"] == Hold.FROZEN)
        for name in ("released_minor", "refunded_minor", "frozen_minor", "taken_back_minor"):
            if getattr(was, name) != getattr(now, name):
                found.append(differs("hold", row["id"], name, getattr(was, name), getattr(now, name)))
        if was.releasable_minor < 0 or (was.releasable_minor and row["state"] in (Hold.RELEASED, Hold.FROZEN)):
            kept_minor = was.released_minor + was.refunded_minor + was.frozen_minor
            found.append(
                f"The hold {row['id']} is {row['state']} and holds {was.held_minor}, and released, refunded and frozen "
                f"make {kept_minor}."
            )
        if (row["state"] == Hold.RELEASED) != (was.released_minor > 0):
            found.append(f"The hold {row['id']} has state {row['state']}, and has released {was.released_minor}.")
    return found


def _kept(tx: Connection, order_ids: Sequence[str]) -> dict[str, int]:
    """What is left of the money of these orders: captured, less what went back, was clawed back or lost."""
    currencies = {row["id"]: row["currency"] for row in _ORDERS(tx, sorted(order_ids))}
    kept = dict.fromkeys(order_ids, 0)
    captured = [money.payment_id for money in money_of(tx, set(order_ids)) if money.captured_minor]
    for payment in load(tx, captured):
        order_id = payment.row["order_id"]
        for attempt in payment.attempts:
            did = flows([one.fact for one in attempt.facts.values()], attempt.row["currency"])
            if did.currency == currencies.get(order_id):
                kept[order_id] += did.captured_minor - did.refunded_minor - did.clawed_minor - did.lost_minor
    return {order_id: max(minor, 0) for order_id, minor in kept.items()}


def _said(value: object) -> str:
    return "nothing" if value is None or value == "" else str(value)
