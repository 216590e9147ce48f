"""The part of the machine of `property/test_escrow_machine.py` that sends payouts, and asks what became of them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from sqlalchemy import select

from outbox.message import Done, Retry
from service.escrow.payouts import ASK_ONLY
from service.providers.base import NotKnown, Unclear
from service.providers.calls import Lost, NotSent
from service.providers.payouts import PayoutRefused, PayoutTold, Stage
from service.schema import outbox_tables
from tests.support.escrow_check import reached
from tests.support.escrow_far import SENDS, SLOW_MS, TOO_SLOW_MS
from tests.support.escrow_model import HOUR_MS, OPEN, Payout
from tests.support.escrow_sales import Sales

GRACE_MS, KEY_MS = 10 * 60_000, 20 * HOUR_MS
assert SLOW_MS < GRACE_MS < TOO_SLOW_MS
MOODS = (*SENDS, "unclear", "stale", "float_unclear")
LATER: dict[str, tuple[Stage, ...]] = {
    "in_transit": ("paid", "paid", "failed", "otp"),
    "otp": ("in_transit", "paid", "failed"),
    "failed": ("paid",),
    "paid": ("failed", "returned"),
}
"""What becomes of a payout at the provider, which may take back what it has said."""


class Sending(Sales):
    """A market whose payouts go out, to a provider that says what it likes of them."""

    def payout(self, data: st.DataObject, states: Collection[str]) -> Payout:
        """One of them, those in these states more often."""
        fit = [one for one in self.books.payouts if one.state in states]
        return data.draw(st.sampled_from([*self.books.payouts, *fit, *fit, *fit]))

    @precondition(lambda self: self.books.payouts)
    @rule(data=st.data(), hint=st.sampled_from([False, False, False, True]), minutes=st.sampled_from([0, 1, 11, 31]),
          moods=st.lists(st.sampled_from(MOODS), min_size=1, max_size=3))  # fmt: skip
    def a_payout_is_worked_on(self, data: st.DataObject, hint: bool, minutes: int, moods: list[str]) -> None:
        """Sent, sent again, or asked about, some times; by its message or because of a hint."""
        one = self.payout(data, OPEN[2:])
        for mood in moods:
            self.work_on(one, hint, mood)
            self.market.clock.advance(minutes * 60_000)

    def work_on(self, one: Payout, hint: bool, mood: str) -> None:
        """What is asked of the provider, and what its answers make of it."""
        self.next()
        wanted = self.calls_wanted(one, hint)
        was = one.state
        came = self.work(self.market.payer.act, one.id, ASK_ONLY if hint else "", mood)
        reached["hint"] += hint
        calls, enough = list(self.far.calls), self.kind == "silent" and self.books.float() >= one.amount
        if calls and calls[0][0] == "float":
            _, _, said = calls.pop(0)
            assert wanted[:1] == ["float"]
            enough = isinstance(said, dict) and said["XOF"] >= one.amount
            wanted = wanted[1:] if enough else []
        assert [(what, name) for what, name, _ in calls] == [(what, one.reference) for what in wanted], one
        if not hint and was == "queued" and enough:
            one.state = "canceled" if self.paid_before(one) else one.state
            one.payee = one.payee if one.first_sent_ms or self.paid_before(one) else self.payees[-1]
            reached["canceled: paid before"] += self.paid_before(one)
        if not hint and one.state == "submitting":
            one.state, one.unknown_ms = "unknown", self.now
        if one.state in ("unknown", "in_transit") and self.unasked(one, hint):
            one.cannot_be_asked = True
        for what, _, said in calls:
            assert was in ("queued", "submitting", "unknown") or what == "ask"
            self.heard(one, what, said, hint)
        self.goes_on_as_it_should(one, hint and was, calls, came)

    def goes_on_as_it_should(
        self, one: Payout, hint: Literal[False] | str, calls: list[tuple[str, str, Any]], came: Any
    ) -> None:
        """Its message comes again until it is over; one that the provider does not know is sent by another at once."""
        if came is None:
            return
        unsent = not hint and one.state == "queued" and [what for what, _, _ in calls] == ["ask"]
        if hint:
            unsent = hint == "submitting" or not one.first_sent_ms
            waits = (unsent and hint in OPEN) or any(isinstance(said, Unclear) for _, _, said in calls)
            unsent = False
        else:
            waits = one.state in ("queued", "unknown", "in_transit") and not unsent
        assert isinstance(came, Retry) == waits, (one, came)
        assert not unsent or came.then is not None
        if isinstance(came, Done) and came.then is not None:
            m = outbox_tables.messages.c
            due = select(m.id).where(m.subject == one.id, m.payload == "", m.due_at_ms == self.now)
            with self.market.tx() as tx:
                came.then(tx)
                assert len(tx.execute(due).all()) == 1, one

    def available(self, source: str) -> int:
        """What can be paid out of one of the two balances."""
        return self.books.beneficiary() if source == "beneficiary" else self.books.merchant_available()

    def paid_before(self, one: Payout) -> bool:
        """What it tries again was paid after all."""
        return one.retry_of is not None and one.retry_of.state == "paid"

    def unasked(self, one: Payout, hint: bool) -> bool:
        """Only a person can find out about it."""
        return self.kind == "silent" or (self.kind == "named" and not one.named)

    def calls_wanted(self, one: Payout, hint: bool) -> list[str]:
        """What may be asked of the provider now, and nothing else."""
        asks = [] if self.unasked(one, hint) else ["ask"]
        if hint:
            return asks if one.first_sent_ms and one.state != "submitting" else []
        if one.state == "queued":
            if self.kind == "silent" and self.books.float() < one.amount:
                return []
            first = [] if self.kind == "silent" else ["float"]
            payee = one.payee if one.first_sent_ms else self.payees[-1]  # never to one that is past
            may = self.sound and payee.usable_ms <= self.now and self.available(one.source) >= 0
            return [*first, "send"] if may and not self.paid_before(one) else first
        if one.state in ("submitting", "unknown"):
            return ["send"] if self.kind == "keyed" and self.now - one.first_sent_ms < KEY_MS else asks
        return asks if one.state == "in_transit" else []

    def heard(self, one: Payout, what: str, said: Any, hint: bool) -> None:
        """What an answer means, by the table."""
        again = one.state != "queued"
        if what == "send" and not again:
            one.state = "submitting"
            one.first_sent_ms = one.first_sent_ms or self.now
        match said:
            case PayoutTold():
                reached["found after all"] += what == "ask" and one.state == "unknown"
                self.books.told(one, said.stage, said.fee_minor or 0)
                reached[f"{what}: {said.stage}"] += 1
                reached["paid after all"] += one.paid_after_all
                reached["fee of a payout"] += one.fee > 0
            case PayoutRefused("insufficient_float") | NotSent() if not again:
                one.state = "queued"
            case PayoutRefused("duplicate_reference") if not again:
                one.state, one.unknown_ms = "unknown", self.now
                reached["refused as a second one"] += 1
            case PayoutRefused() if not again:
                one.state = "failed"
            case Lost() if not again:
                one.state, one.unknown_ms = "unknown", self.now
                reached["lost"] += 1
            case NotKnown() if one.state == "unknown" and not hint:
                late = self.now - one.unknown_ms >= GRACE_MS
                one.state = "queued" if late else "unknown"
                reached["not known, sent again" if late else "not known, asked again"] += 1
        one.ended()

    @precondition(lambda self: self.far.book)
    @rule(data=st.data(), fee=st.sampled_from([0, 0, 15]), hint=st.booleans())
    def goes_on_there(self, data: st.DataObject, fee: int, hint: bool) -> None:
        """Something becomes of a payout at the provider, which may take back what it has said; and may hint at it."""
        sent = data.draw(st.sampled_from([one for among in self.far.book.values() for one in among]))
        after = LATER.get(sent.stage)
        if after:
            sent.moves(data.draw(st.sampled_from(after)))
            sent.fee = max(sent.fee, fee)
        if hint:
            self.work_on(next(one for one in self.books.payouts if one.reference == sent.reference), True, "")
