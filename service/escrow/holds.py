"""
Holds: the money of a paid order, kept for its beneficiary until the buyer has what was bought.

`follow` is the one place that moves a hold by what its order and payments are; it runs in whichever transaction changed
those, and may be run again. Releasing is a decision of somebody's, or of the clock's (`Holds`).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection, Select, bindparam, func, insert, literal_column, select, update

from outbox.prepared import Lookup, Prepared
from outbox.queue import Queue
from service.attention import close_attention, open_attention
from service.errors import Refusal
from service.escrow import rules
from service.escrow.hold_rows import Row, amounts, digest, of_hold, one, set_aside, told_of, words
from service.escrow.rules import Amounts
from service.escrow.states import HOLD, UNRELEASED, Hold, HoldStep
from service.escrow.tables import escrow_terms, holds
from service.escrow.terms import UNDELIVERED_DAYS, terms_of
from service.ledger.ledger import bring
from service.ledger.payments import load
from service.merchants.audit import By
from service.merchants.events import News, tell
from service.orders.money import money_of
from service.orders.states import BOUGHT
from service.orders.tables import orders
from service.payments.heard import Context
from service.payments.refund_match import NOTHING_WENT
from service.payments.rules import Problem, claims, flows
from service.payments.states import RefundState
from service.payments.tables import attention, payments, refunds

HOUR_MS, DAY_MS = 3_600_000, 24 * 3_600_000
BATCH: Final = 100
"""Holds that the clock releases in one look (mission B6)."""
TOKEN_BYTES: Final = 32
FROZEN, TAKEN_BACK, UNDELIVERED = "hold_frozen", "hold_taken_back", "hold_undelivered"
"""Why a hold is before a person."""

PaysOut = Callable[[Connection, Row, By], object]
"""`pays_out(tx, hold, by)`: what was just released goes on its way, where the merchant's terms say so."""

_TOLD: Final[Mapping[str, str]] = {
    Hold.RELEASE_SCHEDULED: "hold.scheduled",
    Hold.FROZEN: "hold.frozen",
    Hold.RELEASED: "hold.released",
    Hold.REFUNDED: "hold.refunded",
}
_ESCROWED = Lookup(
    select(orders).where(orders.c.id.in_(bindparam("wanted", expanding=True)), orders.c.beneficiary_id.is_not(None))
)
_UPDATE = Prepared(
    update(holds)
    .where(holds.c.id == bindparam("id_"), holds.c.version == bindparam("version_"))
    .values({name: bindparam(name) for name in holds.c.keys() if name != "id"})  # noqa: SIM118 - columns, no mapping
)
_OF_ORDERS = Lookup(select(holds).where(holds.c.order_id.in_(bindparam("wanted", expanding=True))))


# --- following ----------------------------------------------------------------------------------------


def follow(tx: Connection, order_ids: Collection[str], context: Context) -> list[News]:
    """What these orders and their payments mean for the money that is held for them; most orders hold none."""
    bought = {row["id"]: row for row in _ESCROWED(tx, sorted(order_ids))}
    if not bought:
        return []
    there = {row["order_id"]: row for row in _OF_ORDERS(tx, sorted(bought))}
    news: list[News] = []
    left = money_left(tx, bought)
    for order_id, order in bought.items():
        kept_minor, said = left[order_id]
        hold = there.get(order_id)
        if hold is None and order["state"] in BOUGHT and kept_minor > 0:
            hold = _begin(tx, order, min(kept_minor, order["amount_minor"]), context, news)
        if hold is not None:
            _follow(tx, _Held(tx, hold, context, news), order, kept_minor, said)
    return news


def _begin(tx: Connection, order: Row, held_minor: int, context: Context, news: list[News]) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(holds.c.keys()) | {
        "id": context.ids("hold"),
        "merchant_id": order["merchant_id"],
        "live": order["live"],
        "order_id": order["id"],
        "beneficiary_id": order["beneficiary_id"],
        "state": Hold.HELD.value,
        "currency": order["currency"],
        "held_minor": held_minor,
        **dict.fromkeys(("released_minor", "refunded_minor", "frozen_minor", "taken_back_minor"), 0),
        "against": "",
        "overruled": "",
        "created_at_ms": context.now_ms,
        "updated_at_ms": context.now_ms,
        "version": 1,
        "sequence": 1,
    }
    tx.execute(insert(holds), row)
    bring(tx, {row["id"]: of_hold(row)}, context.now_ms)
    news.append(told_of(row, "hold.created"))
    return row


def money_left(tx: Connection, bought: Mapping[str, Row]) -> dict[str, tuple[int, frozenset[str]]]:
    """A query: what is left of the money of these orders, and what their payments say against releasing it."""
    among = {money.payment_id: money for money in money_of(tx, bought) if money.captured_minor}
    kept = dict.fromkeys(bought, 0)
    found: dict[str, set[str]] = {id_: set() for id_ in bought}
    for payment in load(tx, list(among)):
        money = among[payment.row["id"]]
        order = bought[payment.row["order_id"]]
        stand: set[str] = set()
        for attempt in payment.attempts:
            facts = [kept.fact for kept in attempt.facts.values()]
            stand |= claims(facts)
            did = flows(facts, attempt.row["currency"])
            if did.currency == order["currency"]:
                kept[order["id"]] += did.captured_minor - did.refunded_minor - did.clawed_minor - did.lost_minor
        # While one of ours is on its way nobody can say whose refund it is; nothing is released meanwhile.
        theirs = money.refunded_minor > money.returned_by_us_minor
        elsewhere_minor = money.refunded_minor - _given_back(tx, money.payment_id) if theirs else 0
        found[order["id"]] |= rules.causes(
            money.payment_id, money.captured_minor, money.problems, stand, elsewhere_minor
        )
    for id_, order in bought.items():
        if Problem.LATE in words(order["exceptions"]):
            # By our clock alone, where the provider does not say when it came; another payment is another cause.
            found[id_].add(f"{rules.LATE}:{id_}:{sum(money.order_id == id_ for money in among.values())}")
    return {id_: (max(kept[id_], 0), frozenset(found[id_])) for id_ in bought}


def _given_back(tx: Connection, payment_id: str) -> int:
    """By us, so far."""
    ours = refunds.c.payment_id == payment_id, refunds.c.origin == "caisse", refunds.c.state == RefundState.SUCCEEDED
    return int(tx.execute(select(func.coalesce(func.sum(refunds.c.amount_minor), 0)).where(*ours)).scalar_one())


def _follow(tx: Connection, held: _Held, order: Row, kept_minor: int, said: frozenset[str]) -> None:
    row = held.row
    stands = rules.standing(said, set_aside(row), words(row["against"]))
    back = rules.weigh(amounts(row), kept_minor, frozen=False)
    to = rules.hold_state(back, stands, order["delivered_at_ms"] is not None)
    if row["state"] == Hold.REFUNDED and to != Hold.REFUNDED:
        held.step(HoldStep.CAME_BACK, ended_at_ms=None, against="")  # what still stands is before a person anew
    if row["state"] in UNRELEASED:
        if held.now_is(against=",".join(sorted(stands))) and stands:
            held.open(FROZEN, row["against"])
        if stands:
            held.step(HoldStep.DISPUTED)
        elif row["state"] == Hold.FROZEN:
            held.step(HoldStep.WON)
        if to == Hold.RELEASE_SCHEDULED and row["state"] == Hold.HELD:
            hours = terms_of(tx, row["merchant_id"]).release_hours
            due_at_ms = order["delivered_at_ms"] + hours * HOUR_MS
            held.step(HoldStep.DELIVERED, delivered_at_ms=order["delivered_at_ms"], release_at_ms=due_at_ms)
    was = amounts(row)
    now = rules.weigh(was, kept_minor, row["state"] == Hold.FROZEN)
    if now != was:
        held.weigh(now)
        if now.refunded_minor > was.refunded_minor:
            held.step(HoldStep.REFUNDED_ALL if to == Hold.REFUNDED else HoldStep.REFUNDED_PART)
        if now.taken_back_minor > was.taken_back_minor:
            held.step(HoldStep.TAKEN_BACK)
            held.open(TAKEN_BACK, str(now.taken_back_minor))
            held.tell("hold.refunded")
    held.write()


class _Held:
    """One hold in one transaction: moved by the table, written once, told with numbers of its own."""

    def __init__(self, tx: Connection, row: Row, context: Context, news: list[News]) -> None:
        self._tx, self._context, self._news = tx, context, news
        self._was = dict(row)
        self.row = dict(row)
        self._types: list[str] = []

    def step(self, what: HoldStep, **more: Any) -> bool:
        """By the table, or not at all. Frozen money that is free again waits for what it waited for before."""
        to = HOLD.get((self.row["state"], what))
        if to is None:
            return False
        if what in (HoldStep.WON, HoldStep.CAME_BACK) and self.row["release_at_ms"] is not None:
            to = Hold.RELEASE_SCHEDULED.value
        if to in (Hold.RELEASED, Hold.REFUNDED):
            more["ended_at_ms"] = self._context.now_ms
        was = self.row["state"]  # perhaps frozen a moment ago, in this very transaction
        moved = to != was
        self.row |= more | {"state": str(to)}
        if moved:
            if was == Hold.FROZEN:
                close_attention(self._tx, self.row["id"], FROZEN, self._context.now_ms)
            close_attention(self._tx, self.row["id"], UNDELIVERED, self._context.now_ms)
            self.tell("hold.unfrozen" if what in (HoldStep.WON, HoldStep.CAME_BACK) else _TOLD[to])
        return True

    def now_is(self, **values: Any) -> bool:
        """Set columns; whether anything is new by that."""
        new = any(self.row[name] != value for name, value in values.items())
        self.row |= values
        return new

    def weigh(self, now: Amounts) -> None:
        """Other amounts."""
        self.row |= {
            "released_minor": now.released_minor,
            "refunded_minor": now.refunded_minor,
            "frozen_minor": now.frozen_minor,
            "taken_back_minor": now.taken_back_minor,
        }

    def open(self, reason: str, detail: str) -> None:
        """Put it before a person."""
        open_attention(self._tx, self._context.ids, self.row["id"], reason, detail, self._context.now_ms)

    def tell(self, type_: str) -> None:
        """To be told once it is written."""
        self._types.append(type_)

    def write(self) -> None:
        """Compare and set, post, tell; nothing when nothing has changed."""
        if self.row == self._was:
            return
        self.row |= {
            "version": self._was["version"] + 1,
            "sequence": self._was["sequence"] + len(self._types),
            "updated_at_ms": self._context.now_ms,
        }
        here = {"id_": self.row["id"], "version_": self._was["version"]}
        if _UPDATE(self._tx, [self.row | here]) != 1:
            raise Conflict(self.row["id"])
        bring(self._tx, {self.row["id"]: of_hold(self.row)}, self._context.now_ms)
        first = self._was["sequence"] + 1
        self._news += [
            replace(told_of(self.row, type_), sequence=first + number) for number, type_ in enumerate(self._types)
        ]
        self._was, self._types = dict(self.row), []


class Conflict(Exception):
    """The hold was changed by somebody else since it was read."""


# --- releasing ----------------------------------------------------------------------------------------


class Holds:
    """What people and the clock decide about holds. `pays_out`: starts the payout of what is released."""

    def __init__(self, queue: Queue, pays_out: PaysOut) -> None:
        self._queue, self._pays_out = queue, pays_out

    def release(self, tx: Connection, hold_id: str, reason: str, by: By, step: HoldStep = HoldStep.OPERATOR) -> Row:
        """
        A work: give what is held to the beneficiary. Again changes nothing.

        Raises NotFound, and Refusal: no_reason, hold_frozen, refund_open, hold_refunded.
        """
        row = one(tx, hold_id)
        if row["state"] == Hold.RELEASED:
            return row
        if not reason.strip() and step is HoldStep.OPERATOR:
            raise Refusal("no_reason", "Say why it is released: a reason is kept with it.")
        if step is HoldStep.CONFIRMED and row["state"] == Hold.FROZEN and words(row["against"]) == {rules.BUYER}:
            # Nobody but the buyer has objected, and the buyer is content now.
            by.write_down(tx, "hold.objection_withdrawn", hold_id)
            tx.execute(update(holds).where(holds.c.id == hold_id).values(against=""))
            self._again(tx, row, by)
            row = one(tx, hold_id)
        if row["state"] == Hold.FROZEN:
            why = row["against"].replace(",", ", ")
            raise Refusal("hold_frozen", f"The hold {hold_id} is frozen ({why}); settle that, or unfreeze it, first.")
        if row["state"] == Hold.REFUNDED:
            raise Refusal("hold_refunded", f"The money of the hold {hold_id} went back to the buyer.")
        # A refund that is pending at the provider may be so for ever; who releases by name has seen it, and what still
        # goes back is taken from the beneficiary then.
        if _refund_open(tx, [row["order_id"]], but_pending=step is HoldStep.OPERATOR):
            raise Refusal("refund_open", f"A refund of the order {row['order_id']} is under way; wait for its end.")
        by.write_down(tx, "hold.released", hold_id, reason)
        news: list[News] = []
        self._release(tx, row, step, by, news)
        tell(tx, self._queue, news, by.ids, by.now_ms)
        return one(tx, hold_id)

    def release_due(self, tx: Connection, by: By, limit: int = BATCH) -> dict[str, int]:
        """
        A work: release what is due by the clock, oldest first. `left`: due, and a refund is under way: looked at again.
        """
        due = (
            select(holds)
            .where(holds.c.state == literal_column(f"'{Hold.RELEASE_SCHEDULED}'"), holds.c.release_at_ms <= by.now_ms)
            .order_by(holds.c.release_at_ms)
            .limit(limit)
        )
        rows = [dict(row) for row in tx.execute(due).mappings()]
        waiting = _refund_open(tx, [row["order_id"] for row in rows])
        news: list[News] = []
        for row in rows:
            if row["order_id"] not in waiting:
                by.write_down(tx, "hold.released", row["id"], "its time had come")
                self._release(tx, row, HoldStep.DUE, by, news)
        for row in rows:
            if row["order_id"] in waiting:  # so that those behind them have their turn
                later = holds.c.id == row["id"], holds.c.version == row["version"]
                tx.execute(update(holds).where(*later).values(release_at_ms=by.now_ms + HOUR_MS))
        tell(tx, self._queue, news, by.ids, by.now_ms)
        return {"released": len(rows) - len(waiting), "left": len(waiting)}

    def _release(self, tx: Connection, row: Row, step: HoldStep, by: By, news: list[News]) -> None:
        held = _Held(tx, row, Context(self._queue, by.ids, by.now_ms), news)
        was = amounts(row)
        if held.step(step):
            held.weigh(replace(was, released_minor=was.releasable_minor))
            held.write()
            self._pays_out(tx, held.row, by)

    def dispute(self, tx: Connection, hold_id: str, why: str, by: By) -> Row:
        """A work: the buyer says that something is wrong. Raises NotFound, Refusal: hold_released, hold_refunded."""
        row = one(tx, hold_id)
        if row["state"] not in UNRELEASED:
            raise Refusal(f"hold_{row['state']}", f"The hold {hold_id} is {row['state']}; talk to the shop.")
        if rules.BUYER not in words(row["against"]):
            by.write_down(tx, "hold.disputed", hold_id, why)
            against = ",".join(sorted(words(row["against"]) | {rules.BUYER}))
            tx.execute(update(holds).where(holds.c.id == hold_id).values(against=against))
            self._again(tx, row, by)
            open_attention(tx, by.ids, hold_id, FROZEN, f"{rules.BUYER}: {why[:200]}", by.now_ms)
        return one(tx, hold_id)

    def unfreeze(self, tx: Connection, hold_id: str, reason: str, by: By) -> Row:
        """A work: a person sets aside what stands against it. Raises NotFound, Refusal: no_reason, not_frozen."""
        row = one(tx, hold_id)
        if not reason.strip():
            raise Refusal("no_reason", "Say why it is free again: a reason is kept with it.")
        if row["state"] != Hold.FROZEN:
            raise Refusal("not_frozen", f"The hold {hold_id} is {row['state']}.")
        by.write_down(tx, "hold.unfrozen", hold_id, f"{row['against']}: {reason}")
        order = tx.execute(select(orders).where(orders.c.id == row["order_id"])).mappings().one()
        overruled = json.dumps(sorted(set_aside(row) | money_left(tx, {order["id"]: dict(order)})[order["id"]][1]))
        tx.execute(update(holds).where(holds.c.id == hold_id).values(against="", overruled=overruled))
        self._again(tx, row, by)
        return one(tx, hold_id)

    def _again(self, tx: Connection, row: Row, by: By) -> None:
        news = follow(tx, [row["order_id"]], Context(self._queue, by.ids, by.now_ms))
        tell(tx, self._queue, news, by.ids, by.now_ms)

    def link(self, tx: Connection, hold_id: str, by: By) -> str:
        """
        A work: a new token for the buyer, with which they confirm or dispute; the one before is worth nothing any more.
        It is given to whoever sends it to the buyer, and nobody who sells should be that.
        """
        row = one(tx, hold_id)
        token = secrets.token_urlsafe(TOKEN_BYTES)
        tx.execute(update(holds).where(holds.c.id == row["id"]).values(buyer=digest(token)))
        by.write_down(tx, "hold.buyer_token", hold_id)
        return token

    def find_undelivered(self, tx: Connection, by: By, limit: int = BATCH) -> int:
        """A work: what was paid long ago and never delivered is put before a person, once. Returns how many."""
        context = Context(self._queue, by.ids, by.now_ms)
        rows = tx.execute(undelivered(by.now_ms).order_by(holds.c.created_at_ms).limit(limit)).mappings().all()
        for row in rows:
            held = _Held(tx, dict(row), context, [])
            if held.step(HoldStep.NEVER_DELIVERED):  # by the table it stays where it is
                held.open(UNDELIVERED, f"{row['days']} days")
        return len(rows)


def undelivered(now_ms: int) -> Select[Any]:
    """What was paid longer ago than its merchant's `days`, never delivered, and is not before a person."""
    a, days = attention.c, func.coalesce(escrow_terms.c.undelivered_days, UNDELIVERED_DAYS)
    known = select(a.id).where(a.subject == holds.c.id, a.reason == UNDELIVERED, a.closed_at_ms.is_(None))
    old = holds.c.created_at_ms <= now_ms - DAY_MS, holds.c.created_at_ms <= now_ms - days * DAY_MS
    held = holds.c.state == literal_column(f"'{Hold.HELD}'")  # its index is found by these words
    query = select(holds, days.label("days"))
    query = query.outerjoin(escrow_terms, escrow_terms.c.merchant_id == holds.c.merchant_id)
    return query.where(held, *old, ~known.exists())


def _refund_open(tx: Connection, order_ids: Sequence[str], *, but_pending: bool = False) -> set[str]:
    """Orders of which a refund has no end yet; `but_pending`: leaving out those that only wait at the provider."""
    ended = [*NOTHING_WENT, RefundState.SUCCEEDED, *([RefundState.PENDING] if but_pending else [])]
    query = (
        select(payments.c.order_id)
        .join(refunds, refunds.c.payment_id == payments.c.id)
        .where(payments.c.order_id.in_(order_ids), refunds.c.state.not_in(ended))
    )
    return set(tx.execute(query).scalars())
