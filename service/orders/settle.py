"""
What becomes of orders and sessions, given the payments as they are now: the one place that moves them by money.

It runs in whichever transaction changed the payments, or ended their time, and may be run again: it looks at rows, not
at who called. An order is fulfilled by whoever first writes `fulfilled_at_ms`, and `order.paid` is told there and
nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select, update

from outbox.message import Promise
from service.attention import close_attention, open_attention
from service.errors import Refusal
from service.escrow.holds import follow as follow_holds
from service.ledger.payments import place_orders
from service.merchants.audit import By
from service.merchants.events import News
from service.orders import rules, shown
from service.orders.money import money_of
from service.orders.rules import Money
from service.orders.states import BOUGHT, ENDED, ORDER, PAYABLE, SESSION, UNFINISHED, Happens, Order, Session
from service.orders.stock import Conflict, release, reserve, tally
from service.orders.tables import orders, sessions
from service.payments.heard import Context
from service.payments.refunds import Duplicates
from service.payments.rules import Problem
from service.payments.tables import attempts, payments

ACTOR = "orders"
EXPIRE, WIND_DOWN = "expire", "wind_down"
ELSEWHERE = "refunded_elsewhere"
OWN = frozenset({Problem.LATE, Problem.UNRESOLVED, Problem.DUPLICATE})
"""Exceptions of the order itself; the others are its payments' and go when theirs do."""


GiveBack = Callable[[Connection, str, By], object]
"""`give_back(tx, payment_id, by)` promises to refund all of a payment, or raises Refusal."""


def expiry(subject: str, due_at_ms: int, now_ms: int) -> Promise:
    """
    To look then whether the order's, or the session's, time is up. When it was promised is in its id: a look that comes
    too early promises another for the same time, and must not find itself.
    """
    return Promise(f"{EXPIRE}:{subject}:{due_at_ms}:{now_ms}", EXPIRE, "", subject, due_at_ms=due_at_ms)


class Affairs:
    """
    Orders and sessions in one transaction: loaded, moved, written; `news` is what their merchants are to be told.

    `give_back`: for what policies give back; without it a person is asked. `duplicates`: `auto` gives back what came
    twice too. `newly`: the payments in which money has come just now.
    """

    def __init__(
        self,
        tx: Connection,
        context: Context,
        give_back: GiveBack | None = None,
        *,
        duplicates: Duplicates = "ask",
        newly: Collection[str] = (),
    ) -> None:
        self._tx, self._context, self._now_ms, self._give_back = tx, context, context.now_ms, give_back
        self._duplicates, self._newly = duplicates, newly
        self._bought: set[str] = set()
        self._touched: set[str] = set()
        self._placed: set[str] = set()
        self.news: list[News] = []

    def done(self) -> list[News]:
        """
        Once everything is moved: what it means for the money, in the ledger and in what is held for others. Returns all
        there is to tell.
        """
        place_orders(self._tx, self._placed, self._now_ms)
        self.news += follow_holds(self._tx, self._touched, self._context)
        self._placed, self._touched = set(), set()
        news, self.news = self.news, []
        return news

    def settle(self, order_ids: Collection[str] = (), session_ids: Collection[str] = ()) -> None:
        """
        Move what has to move. Orders first: a session of an order that was just bought is complete, or of no more use.
        """
        wanted = {id_ for id_ in order_ids if id_}
        self._touched |= wanted
        among = money_of(self._tx, wanted, {id_ for id_ in session_ids if id_})
        for row in self._rows(orders, wanted):
            self._order(row, [one for one in among if one.order_id == row["id"]])
        for row in self._rows(sessions, {*session_ids, *self._left_over()}):
            self._session(row, [one for one in among if one.session_id == row["id"]])

    def move_order(self, row: Mapping[str, Any], what: Happens, **more: Any) -> dict[str, Any] | None:
        """By the table, or not at all (None). What a state brings with it is done here, in the same transaction."""
        to = ORDER.get((row["state"], what))
        if to is None:
            return None
        ended = to in ENDED and to != row["state"]
        if ended:
            more |= {"ended_at_ms": self._now_ms}
        if to in (Order.EXPIRING, Order.CANCELING):
            more |= {"ending_since_ms": self._now_ms}
        if to == Order.PAID:
            more |= {"fulfilled_at_ms": self._now_ms}
        if ended and row["paid_minor"]:
            problems = {*shown.words(more.get("exceptions", row["exceptions"])), Problem.UNDER.value}
            more |= {"exceptions": ",".join(sorted(problems))}
        after = self._write(orders, row, state=to, **more)
        self._touched.add(row["id"])
        if to in (Order.PAID, *ENDED) and to != row["state"]:
            self._placed.add(row["id"])  # it is somebody's money now, or nobody's
        if ended:
            self._end(after)
        if to == Order.PAID:
            self._bought.add(row["id"])
            self.wind_down(row["id"], self.live_payments(payments.c.order_id == row["id"]))
        if to == Order.REFUNDED and row["restock"]:
            release(self._tx, row["id"])
        return after

    def move_session(self, row: Mapping[str, Any], what: Happens, **more: Any) -> dict[str, Any] | None:
        """By the table, or not at all (None)."""
        to = SESSION.get((row["state"], what))
        if to is None:
            return None
        ended = to in (Session.EXPIRED, Session.CANCELED)
        if ended:
            more |= {"ended_at_ms": self._now_ms}
        after = self._write(sessions, row, state=to, **more)
        if row["order_id"] is None:  # else its order does this for all of its payments
            mine = payments.c.session_id == row["id"]
            if ended:
                self._late_from_now(mine)
            elif to == Session.COMPLETE:
                self.wind_down(row["id"], self.live_payments(mine))
        return after

    def wind_down(self, subject: str, live: Mapping[str, str]) -> None:
        """Have the provider asked to cancel these payments, once this is committed."""
        promises = [Promise(f"{WIND_DOWN}:{subject}:{id_}", WIND_DOWN, account, id_) for id_, account in live.items()]
        self._context.queue.enqueue(self._tx, promises, self._now_ms)

    def live_payments(self, condition: Any) -> dict[str, str]:
        """Payments that can still succeed, oldest first, each with the account of its last attempt."""
        query = (
            select(payments.c.id, attempts.c.account_id)
            .join(attempts, attempts.c.payment_id == payments.c.id)
            .where(condition, payments.c.status.in_(sorted(rules.LIVE)))
        )
        return {row.id: row.account_id for row in self._tx.execute(query.order_by(payments.c.id, attempts.c.id))}

    def tell_order(self, row: Mapping[str, Any], type_: str) -> dict[str, Any]:
        """To be told, with the next number of its own. Returns the row with it."""
        told = self._write(orders, row, sequence=row["sequence"] + 1)
        data = {"order": shown.order(told, shown.lines_of(self._tx, [row["id"]])[row["id"]])}
        self.news.append(News(row["merchant_id"], type_, told["sequence"], data, live=bool(row["live"])))
        return told

    def tell_session(self, row: Mapping[str, Any], type_: str) -> None:
        """To be told, with the next number of its own."""
        told = self._write(sessions, row, sequence=row["sequence"] + 1)
        seen = self._tx.execute(shown.SESSIONS.where(sessions.c.id == row["id"])).mappings().one()
        data = {"session": shown.session(dict(seen))}
        self.news.append(News(row["merchant_id"], type_, told["sequence"], data, live=bool(row["live"])))

    # --- one order

    def _order(self, row: dict[str, Any], among: Sequence[Money]) -> None:
        kept_minor = rules.paid_minor(row["currency"], among)
        was = set(shown.words(row["exceptions"]))
        own = was & OWN
        if Problem.UNDER in was and row["state"] in ENDED and 0 < kept_minor < row["amount_minor"]:
            own.add(Problem.UNDER)  # money that it ended with, whatever its payments say of themselves
        what, told = self._happening(row, among, kept_minor, own)
        if not rules.any_live(among) and Problem.UNRESOLVED in own:
            own.discard(Problem.UNRESOLVED)
            close_attention(self._tx, row["id"], Problem.UNRESOLVED, self._now_ms)
        now = own | {problem for one in among for problem in one.problems}
        if Problem.UNDER in was - now:
            close_attention(self._tx, row["id"], Problem.UNDER, self._now_ms)
        values = {
            "paid_minor": kept_minor,
            "payment_status": rules.payment_status(row["amount_minor"], kept_minor),
            "exceptions": ",".join(sorted(now)),
        }
        if kept_minor < row["paid_minor"] and row["state"] in PAYABLE and row["expires_at_ms"] <= self._now_ms:
            # The wrong money that kept it from ending has gone back.
            self._context.queue.enqueue(self._tx, [expiry(row["id"], self._now_ms, self._now_ms)], self._now_ms)
        if any(row[name] != value for name, value in values.items()):
            row = self._write(orders, row, **values)
        if what is not None:
            row = self.move_order(row, what) or row
            if told:
                row = self.tell_order(row, told)
        if {*shown.words(row["exceptions"])} - was:
            self.tell_order(row, "order.attention")

    def _happening(
        self, row: Mapping[str, Any], among: Sequence[Money], kept_minor: int, own: set[str]
    ) -> tuple[Happens | None, str]:
        """What moves it and how that is told; `own` gains the exceptions that come with it."""
        id_, state = row["id"], row["state"]
        full = rules.pays(row["amount_minor"], row["currency"], among)
        if state in PAYABLE:
            if full:
                self._too_much(row, among, kept_minor, own)
                return Happens.PAID_IN_FULL, "order.paid"
            if state == Order.AWAITING_PAYMENT or rules.any_live(among) or kept_minor >= row["amount_minor"]:
                # Money that is enough and not right is a person's: an order that holds it does not end by itself.
                return None, ""
            return Happens.ALL_DEAD, "order.expired" if state == Order.EXPIRING else "order.canceled"
        if state in ENDED:
            if kept_minor <= row["paid_minor"]:
                return None, ""
            own.add(Problem.LATE)
            if not any(Problem.LATE in one.problems for one in among):
                # Not by the provider's clock, or not by what it says of its clock: then no item of the payment's tells.
                open_attention(self._tx, self._context.ids, id_, Problem.LATE, row["late"], self._now_ms)
            if row["late"] == "revive" and full and not reserve(self._tx, id_):
                self._too_much(row, among, kept_minor, own)
                return Happens.REVIVED, "order.paid"
            if row["late"] == "refund":
                self._refund(among)
            return Happens.LATE_MONEY, ""
        if state not in BOUGHT:
            return None, ""
        self._too_much(row, among, kept_minor, own)
        if rules.refunded_by_us(among):
            return Happens.REFUNDED_BY_US, "order.refunded"
        if rules.returned_elsewhere(among):
            open_attention(self._tx, self._context.ids, id_, ELSEWHERE, "", self._now_ms)
            return Happens.REFUNDED_ELSEWHERE, ""
        return None, ""

    def _refund(self, among: Sequence[Money]) -> None:
        """Promise to give back what has come and is not on its way back; where that is refused a person sees it."""
        by = By(ACTOR, self._now_ms, self._context.ids)
        for one in among:
            if self._give_back is not None and one.kept_minor > 0 and one.captured_minor > one.promised_minor:
                try:
                    self._give_back(self._tx, one.payment_id, by)
                except Refusal:
                    pass  # the attention item stays open all the same

    def _too_much(self, row: Mapping[str, Any], among: Sequence[Money], kept_minor: int, own: set[str]) -> None:
        """Two payments brought more than the order costs: each looks right by itself."""
        if kept_minor > row["amount_minor"] and sum(one.kept_minor > 0 for one in among) > 1:
            own.add(Problem.DUPLICATE)
            detail = ",".join(one.payment_id for one in among if one.kept_minor)
            open_attention(self._tx, self._context.ids, row["id"], Problem.DUPLICATE, detail, self._now_ms)
            for one in reversed(among):
                rest = [other for other in among if other is not one]
                if one.payment_id in self._newly and rules.pays(row["amount_minor"], row["currency"], rest):
                    self._came_twice(one)
                    among = rest

    def _came_twice(self, one: Money) -> None:
        if self._duplicates == "auto":
            self._refund([one])

    def _end(self, row: Mapping[str, Any]) -> None:
        """
        Its stock goes back, its open sessions end, and money that comes from now on is late. What it has in part is
        before a person, or goes back.
        """
        release(self._tx, row["id"])
        if row["paid_minor"]:
            open_attention(self._tx, self._context.ids, row["id"], Problem.UNDER, row["state"], self._now_ms)
            if row["late"] == "refund":
                self._refund(money_of(self._tx, {row["id"]}))
        self._late_from_now(payments.c.order_id == row["id"])
        if row["state"] == Order.EXPIRED:
            tally(self._tx, "orders_expired")
            By(ACTOR, self._now_ms, self._context.ids).write_down(self._tx, "local.order.expired", row["id"])
        still_open = sessions.c.state == Session.OPEN
        for open_ in self._tx.execute(select(sessions).where(sessions.c.order_id == row["id"], still_open)).mappings():
            expired = row["state"] == Order.EXPIRED
            first = self.move_session(dict(open_), Happens.TIME_UP if expired else Happens.CANCEL_WANTED)
            last = self.move_session(first, Happens.ALL_DEAD, ended_by="order") if first else None
            if last:
                self.tell_session(last, "session.expired" if expired else "session.canceled")

    # --- one session

    def _left_over(self) -> list[str]:
        """Sessions that could still be submitted for what was just bought."""
        if not self._bought:
            return []
        still = sessions.c.state.in_((Session.OPEN, Session.PROCESSING))
        query = select(sessions.c.id).where(sessions.c.order_id.in_(sorted(self._bought)), still)
        return list(self._tx.execute(query).scalars())

    def _session(self, row: dict[str, Any], among: Sequence[Money]) -> None:
        if row["state"] in UNFINISHED:
            row = self._follow_money(row, among)
        if row["state"] == Session.COMPLETE and row["order_id"] is None:
            self._paid_twice(row, among)

    def _paid_twice(self, row: Mapping[str, Any], among: Sequence[Money]) -> None:
        """Money has come in another payment than the one that completed it: each looks right by itself."""
        payer = next((one for one in among if one.payment_id == row["payment_id"]), None)
        if payer is None:
            return  # merged into another, perhaps into the very one in which its money is found now
        for one in among:
            # What a person has attached to an order is that order's.
            if one is not payer and one.payment_id in self._newly and one.kept_minor and one.order_id is None:
                detail = payer.payment_id
                open_attention(self._tx, self._context.ids, one.payment_id, Problem.DUPLICATE, detail, self._now_ms)
                if payer.kept_minor:
                    self._came_twice(one)

    def _follow_money(self, row: dict[str, Any], among: Sequence[Money]) -> dict[str, Any]:
        """Move an unfinished one by what its payments are. Returns the row as it is then."""
        after: dict[str, Any] | None = None
        paid = self._paid_by(row, among)
        if paid is not None:
            paid_at_ms = self._tx.execute(select(payments.c.paid_at_ms).where(payments.c.id == paid)).scalar()
            after = self.move_session(row, Happens.PAID_IN_FULL, payment_id=paid, paid_at_ms=paid_at_ms or self._now_ms)
            if after:
                self.tell_session(after, "session.completed")
        elif row["order_id"] in self._bought:
            ending = self.move_session(row, Happens.TIME_UP) or row
            if not rules.any_live(among):
                after = self.move_session(ending, Happens.ALL_DEAD, ended_by="order")
            if after:
                self.tell_session(after, "session.expired" if after["state"] == Session.EXPIRED else "session.canceled")
        elif row["state"] == Session.PROCESSING:
            current = next((one for one in among if one.payment_id == row["payment_id"]), None)
            if current is None or current.status not in rules.DEAD:
                return row
            if row["tries_left"] > 0:
                self.move_session(row, Happens.ATTEMPT_FAILED)
            else:
                after = self.move_session(row, Happens.NO_TRY_LEFT, ended_by="tries")
                if after:
                    self.tell_session(after, "session.expired")
        elif row["state"] in (Session.EXPIRING, Session.CANCELING) and not rules.any_live(among):
            expiring = row["state"] == Session.EXPIRING
            after = self.move_session(row, Happens.ALL_DEAD, ended_by="time" if expiring else "cancel")
            if after:
                self.tell_session(after, "session.expired" if expiring else "session.canceled")
        return after or row

    def _paid_by(self, row: Mapping[str, Any], among: Sequence[Money]) -> str | None:
        """The payment that completes it: right, and for as much; or any money, when its order was bought with it."""
        for one in among:
            if one.right and one.currency == row["currency"] and one.amount_minor >= row["amount_minor"]:
                return one.payment_id
        with_money = [one.payment_id for one in among if one.kept_minor]
        if with_money and row["order_id"]:
            state = self._tx.execute(select(orders.c.state).where(orders.c.id == row["order_id"])).scalar()
            return with_money[-1] if state in BOUGHT else None
        return None

    # --- rows

    def _rows(self, table: Any, ids: Collection[str]) -> list[dict[str, Any]]:
        wanted = sorted({id_ for id_ in ids if id_})
        if not wanted:
            return []
        query = select(table).where(table.c.id.in_(wanted)).order_by(table.c.id)
        return [dict(row) for row in self._tx.execute(query).mappings()]

    def _late_from_now(self, condition: Any) -> None:
        """
        A book that has read one of them before, in this transaction, and writes it afterwards finds another version:
        its Conflict undoes the batch, and each message is worked on by itself, when there is nothing to collide with.
        """
        not_yet = payments.c.ended_at_ms.is_(None)
        ended = {"ended_at_ms": self._now_ms, "version": payments.c.version + 1}
        self._tx.execute(update(payments).where(condition, not_yet).values(ended))

    def _write(self, table: Any, row: Mapping[str, Any], **values: Any) -> dict[str, Any]:
        """Compare and set. Raises Conflict when somebody else was here."""
        values |= {"version": row["version"] + 1, "updated_at_ms": self._now_ms}
        mine = (table.c.id == row["id"], table.c.state == row["state"], table.c.version == row["version"])
        if self._tx.execute(update(table).where(*mine).values(**values)).rowcount != 1:
            raise Conflict(row["id"])
        return {**row, **values}
