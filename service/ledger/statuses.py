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
from service.escrow.hold_rows import amounts, set_aside, words
from service.escrow.holds import money_left
from service.escrow.rules import Amounts
from service.escrow.states import UNRELEASED, Hold
from service.orders import rules as order_rules
from service.orders.money import money_of
from service.orders.rules import Money
from service.orders.states import BOUGHT, ENDED, PAYABLE, Order, Session
from service.orders.tables import orders
from service.payments.facts import Kind
from service.payments.records import AttemptRecord, PaymentRecord
from service.payments.refund_match import NOTHING_WENT, walk
from service.payments.rules import Attempt, Payment, Problem, decide_payment
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
_ORDERS = Lookup(select(orders).where(orders.c.id.in_(bindparam("wanted", expanding=True))))
_ATTACHED = Lookup(select(payments).where(payments.c.order_id.in_(bindparam("wanted", expanding=True))))
_REFUNDED = Lookup(
    select(payments.c.order_id)
    .join(refunds, refunds.c.payment_id == payments.c.id)
    .where(
        payments.c.order_id.in_(bindparam("wanted", expanding=True)),
        refunds.c.origin == bindparam("origin", "caisse", literal_execute=True),
    )
)
"""Orders of which we gave something back, or meant to."""


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
    """What came for each order, and whether that and its times go with its state."""
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
        found += _times(row)
        found += _never_so(tx, row, mine)
    return found


def _times(row: Row) -> Iterator[str]:
    """What is written once, with a state: one that was bought again keeps when it had ended."""
    state = Order(row["state"])
    bought, delivered = {*BOUGHT, Order.REFUNDED}, {Order.DELIVERED, Order.COMPLETED}
    for name, have, may in (
        ("fulfilled_at_ms", bought, bought),
        ("delivered_at_ms", delivered, delivered | {Order.REFUNDED}),
        ("ended_at_ms", {*ENDED}, bought | {*ENDED}),
    ):
        if (state in have and row[name] is None) or (state not in may and row[name] is not None):
            yield f"The order {row['id']} has state {state}, and {name} {_said(row[name])}."


def _never_so(tx: Connection, row: Row, among: Sequence[Money]) -> Iterator[str]:
    """
    One that is bought, and for which nothing ever came; one that is refunded, and we gave nothing back. What happened
    afterwards may hide how it became so (a refund failed, more came, a payment was merged into another): then it is
    not judged.
    """
    if row["state"] not in (*BOUGHT, Order.REFUNDED):
        return
    came = [money for money in among if money.captured_minor]
    right = bool(came) and (row["state"] != Order.REFUNDED or order_rules.refunded_by_us(among))
    if right or any(payment["merged_into"] for payment in _ATTACHED(tx, [row["id"]])):
        return
    if not came:
        yield f"The order {row['id']} has state {row['state']}, and nothing was ever paid for it."
        return
    ours = [one for one in _REFUNDS(tx, [money.payment_id for money in came]) if one["origin"] == "caisse"]
    failed = {one["payment_id"] for one in ours if one["state"] in NOTHING_WENT}
    for money in came:
        later = money.problems or money.payment_id in failed or money.captured_minor > money.amount_minor
        if (later or money.gone_back) and any(one["payment_id"] == money.payment_id for one in ours):
            return
    gone_minor = sum(money.refunded_minor for money in came)
    yield f"The order {row['id']} has state refunded, and of what came for it {gone_minor} went back by our hand."


def of_sessions(tx: Connection, rows: Sequence[Row]) -> list[str]:
    """Unfinished sessions, one of whose payments is right and enough; complete ones that nothing has paid."""
    among: dict[str, list[Money]] = {row["id"]: [] for row in rows}
    for money in money_of(tx, (), among.keys()):
        among[money.session_id or ""].append(money)
    paid_by = {row["id"]: row for row in rows_of(tx, payments, [row["payment_id"] or "" for row in rows])}
    found: list[str] = []
    for row in rows:
        state, payment = Session(row["state"]), paid_by.get(row["payment_id"])
        if state == Session.COMPLETE:
            # One that was merged into another has its money there.
            if payment is None or not (payment["captured_minor"] or payment["merged_into"]):
                found.append(f"The session {row['id']} has state complete, and no payment of it has money.")
            if row["paid_at_ms"] is None:
                found.append(f"The session {row['id']} has state complete, and paid_at_ms nothing.")
        elif state in (Session.EXPIRED, Session.CANCELED):
            if row["ended_at_ms"] is None:
                found.append(f"The session {row['id']} has state {state}, and ended_at_ms nothing.")
        else:
            for money in among[row["id"]]:
                if money.right and money.currency == row["currency"] and money.amount_minor >= row["amount_minor"]:
                    says = f"its payment {money.payment_id} says complete"
                    found.append(f"The session {row['id']} has state {state}, and {says}.")
    return found


def of_holds(tx: Connection, rows: Sequence[Row]) -> list[str]:
    """Holds, by what is left of the money that was paid for their orders, and what stands against them."""
    sold_as = {row["id"]: row for row in _ORDERS(tx, sorted({row["order_id"] for row in rows}))}
    left = money_left(tx, sold_as)
    doubtful = {one["order_id"] for one in _REFUNDED(tx, list(sold_as))}
    found: list[str] = []
    for row in rows:
        order, (kept_minor, said) = sold_as[row["order_id"]], left[row["order_id"]]
        was = amounts(row)
        now = hold_rules.weigh(was, kept_minor, row["state"] == Hold.FROZEN)
        for name in ("released_minor", "refunded_minor", "frozen_minor", "taken_back_minor"):
            if getattr(was, name) != getattr(now, name):
                found.append(differs("hold", row["id"], name, getattr(was, name), getattr(now, name)))
        if was.releasable_minor < 0 or (was.releasable_minor and row["state"] in (Hold.RELEASED, Hold.FROZEN)):
            make_minor = was.released_minor + was.refunded_minor + was.frozen_minor
            found.append(
                f"The hold {row['id']} is {row['state']} and holds {was.held_minor}, and released, refunded and frozen "
                f"make {make_minor}."
            )
        back = hold_rules.weigh(was, kept_minor, frozen=False)
        found += _hold_state(row, back, said, order["delivered_at_ms"] is not None, row["order_id"] in doubtful)
        found += _hold_times(row, order)
    return found


def _hold_state(row: Row, back: Amounts, said: frozenset[str], delivered: bool, doubtful: bool) -> Iterator[str]:
    """
    Its state and what stands against it. Where a refund of ours came between, it is not judged whose another one was:
    that may have been worked out while ours was on its way.
    """
    stands = hold_rules.standing(said, set_aside(row), words(row["against"]))
    ways = [stands, stands | {hold_rules.ELSEWHERE}, stands - {hold_rules.ELSEWHERE}] if doubtful else [stands]
    may = [(hold_rules.hold_state(back, way, delivered), ",".join(sorted(way))) for way in ways]
    state, against = may[0]
    if row["state"] not in [one for one, _ in may]:
        yield differs("hold", row["id"], "state", row["state"], state)
    elif row["state"] in UNRELEASED and (row["state"], row["against"]) not in may:
        yield differs("hold", row["id"], "against", row["against"], against)


def _hold_times(row: Row, order: Row) -> Iterator[str]:
    """When it was delivered, is due and has ended. One that was released at once was never due, whatever came later."""
    ended = row["state"] in (Hold.RELEASED, Hold.REFUNDED)
    if (row["ended_at_ms"] is not None) != ended:
        yield f"The hold {row['id']} has state {row['state']}, and ended_at_ms {_said(row['ended_at_ms'])}."
    delivered_at_ms, due_at_ms = row["delivered_at_ms"], row["release_at_ms"]
    if delivered_at_ms not in (None, order["delivered_at_ms"]):
        yield differs("hold", row["id"], "delivered_at_ms", delivered_at_ms, order["delivered_at_ms"])
    due = delivered_at_ms is not None or row["state"] == Hold.RELEASE_SCHEDULED
    if due != (due_at_ms is not None) or (due_at_ms or 0) < (delivered_at_ms or 0):
        was = f"delivered_at_ms {_said(delivered_at_ms)}, and release_at_ms {_said(due_at_ms)}"
        yield f"The hold {row['id']} has state {row['state']}, {was}."


def _said(value: object) -> str:
    return "nothing" if value is None or value == "" else str(value)
