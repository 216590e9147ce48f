"""
Sessions against buyers who click, providers who contradict themselves, and a clock: never two live attempts, never an
end while one is live, never complete without the right money, told once.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import select

from service.errors import Refusal
from service.orders import sessions as session_steps
from service.orders.rules import LIVE
from service.orders.states import Session
from service.orders.tables import sessions
from service.payments.facts import Kind
from service.payments.tables import payments
from tests.property.test_orders_machine import MINE, Shop, fact, tried

ENDED = (Session.EXPIRED, Session.CANCELED)
TRIES = 3


class Sessions(RuleBasedStateMachine):
    """A few sessions, some for the same order."""

    @initialize()
    def begin(self) -> None:
        """One by itself, two for one order."""
        self.shop = Shop()
        self.order_id = self.shop.order()
        offers = ({"currency": "XOF", "amount_minor": 5_000}, {"order_id": self.order_id}, {"order_id": self.order_id})
        self.sessions = [self.shop.session(**offer, tries=TRIES).id for offer in offers]
        self.payments: list[str] = []

    def teardown(self) -> None:
        """The database is gone."""
        if hasattr(self, "shop"):
            self.shop.close()

    @rule(data=st.data())
    def submits(self, data: st.DataObject) -> None:
        """Somebody clicks; what is refused leaves nothing behind."""
        session_id = data.draw(st.sampled_from(self.sessions))
        order_id = None if session_id == self.sessions[0] else self.order_id
        payment_id, code = tried(lambda: self.shop.pay(order_id, session_id))
        assert code in ("", "prompt_open", "session_not_open", "order_not_payable", "bad_amount", "no_tries_left")
        if payment_id is not None:
            self.payments.append(payment_id)

    @rule(
        data=st.data(),
        kind=st.sampled_from([Kind.PENDING, Kind.FAILED, Kind.FAILED, Kind.CANCELED, Kind.EXPIRED, Kind.CAPTURED]),
        amount=st.sampled_from([5_000, 5_000, 4_999]),
    )
    def hears(self, data: st.DataObject, kind: Kind, amount: int) -> None:
        """The provider says something about any payment there was."""
        if self.payments:
            payment_id = data.draw(st.sampled_from(self.payments))
            if kind is Kind.CAPTURED:
                self.shop.captured(payment_id, (amount, "XOF"))
            else:
                self.shop.tell((payment_id, fact(kind, payment_id, self.shop.clock())))

    @rule(data=st.data())
    def cancels(self, data: st.DataObject) -> None:
        """The merchant thinks better of it."""
        session_id = data.draw(st.sampled_from(self.sessions))
        try:
            with self.shop.tx() as tx:
                session_steps.cancel(tx, self.shop.queue, MINE, session_id, self.shop.by)
        except Refusal:
            pass  # which ones are refused is said in the invariants: none with a live attempt ends

    @rule(minutes=st.sampled_from([1, 40, 130]))
    def time_passes(self, minutes: int) -> None:
        """And whatever is due is looked at."""
        self.shop.clock.advance(minutes * 60_000)
        for subject in (*self.sessions, self.order_id):
            self.shop.expire(subject)

    @invariant()
    def at_most_one_is_live_and_nothing_ends_before_it(self) -> None:
        """B1a and R14, of a session and of an order; tries are counted down and never below none."""
        if not hasattr(self, "shop"):
            return
        with self.shop.tx() as tx:
            rows = {row.id: row for row in tx.execute(select(sessions))}
            paid = tx.execute(select(payments)).all()
        live = [row for row in paid if row.status in LIVE]
        assert len(live) == len({row.order_id or row.session_id for row in live})
        for id_, row in rows.items():
            of_it = [one for one in paid if one.session_id == id_]
            mine = [one for one in live if one.session_id == id_]
            assert len(of_it) == TRIES - row.tries_left
            if row.state in (*ENDED, Session.OPEN):
                assert mine == []
            if row.state in ENDED and row.order_id is None:
                assert all(one.ended_at_ms is not None for one in of_it)
            right = [one for one in of_it if one.status == "succeeded" and one.captured_minor >= 5_000]
            if row.state == Session.COMPLETE:
                assert right or self.shop.seen(self.order_id)["state"] == "paid"
                assert row.paid_at_ms is not None
            elif right:
                assert row.state in ENDED, "money wins over everything but an end that was proven"

    @invariant()
    def it_is_told_once(self) -> None:
        """Each end has one event, in the session's own numbers."""
        if not hasattr(self, "shop"):
            return
        told = [
            (type_, body["session"]["id"])
            for type_ in ("session.completed", "session.expired", "session.canceled")
            for body in self.shop.bodies(type_)
        ]
        assert len({session_id for _, session_id in told}) == len(told)
        over = [id_ for id_ in self.sessions if self.shop.seen_session(id_)["state"] in ("complete", *ENDED)]
        assert sorted(session_id for _, session_id in told) == sorted(over)


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=max(10, settings().max_examples // 3))
