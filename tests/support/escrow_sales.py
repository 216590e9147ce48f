"""The first half of the machine of `property/test_escrow_machine.py`: sales, what providers say of them, refunds."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, cast

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from outbox.message import Message, Outcome
from service.errors import Refusal
from service.escrow import beneficiaries as payee_steps
from service.escrow.beneficiaries import To
from service.ledger.ledger import Entry, Move, Place, Wanted, bring
from service.ledger.ledger import Kind as Account
from service.orders import orders as order_steps
from service.payments.facts import Fact, Kind, Source
from service.providers.calls import Lost, NotSent, Refunding, RefundRefused
from tests.property.test_book_machine import ACCOUNT
from tests.property.test_orders_machine import MINE
from tests.support.escrow_check import reached
from tests.support.escrow_far import REFUNDS, SENDS, Abroad, Died, at_once
from tests.support.escrow_model import DAY_MS, Books, Movement, Order, Payee, Payment, Refund

NOBODY_NEEDED = 3_000
"""Above this a person approves a payout."""
SALES = (*["right"] * 12, "under", "over", "foreign", "twice", "short_then_right", "two_payments",
         "late", "revived", "disputed_first", "unpaid")  # fmt: skip
BEGUN: dict[tuple[str, bool], Any] = {}
"""What was prepared once, by kind of provider and terms: it costs more than all that an example then does."""


class Sales(RuleBasedStateMachine):
    """A market that sells, and a provider that says what it likes."""

    # --- beginning and end

    @initialize(
        kind=st.sampled_from(["keyed", "asked", "asked", "named", "silent"]),
        by_itself=st.booleans(),
        moods=st.lists(st.sampled_from(SENDS), min_size=3, max_size=3),
        later=st.lists(st.sampled_from(["", "paid", "failed", "returned"]), min_size=3, max_size=3),
        back=st.lists(st.sampled_from(REFUNDS), max_size=1),
        word=st.sampled_from(["succeeded", "failed"]),
    )
    def begin(self, kind: Any, by_itself: bool, moods: list[str], later: list[Any], back: list[str], word: str) -> None:
        """One seller, one provider."""
        self.market = Abroad(kind, payout_on_release=by_itself, approve_above={"XOF": NOBODY_NEEDED})
        self.far, self.kind, self.by_itself, self.sound = self.market.far, kind, by_itself, True
        self.settlements: dict[str, Wanted] = {}
        if (kind, by_itself) not in BEGUN:
            self.books, self.payees, self.number = Books(), [Payee()], 0
            self.told: list[tuple[str, Fact]] = []
            self.prepare()
            BEGUN[kind, by_itself] = self.market.saved(), deepcopy((self.books, self.payees, self.number, self.told))
        saved, known = BEGUN[kind, by_itself]
        self.market.as_it_was(saved)
        self.books, self.payees, self.number, self.told = deepcopy(known)
        self.begun(moods, later)
        if back:
            order, part = self.books.orders[-1], 700 if word == "succeeded" else None
            self.refunded(order, order.payments[0], part, [back[0], "succeeded"], [word])

    def prepare(self) -> None:
        """What there is at the beginning, the same each time."""

    def begun(self, moods: list[str], later: list[Any]) -> None:
        """What comes next, another each time."""

    def teardown(self) -> None:
        """The database is gone."""
        if hasattr(self, "market"):
            self.market.close()

    @property
    def now(self) -> int:
        """The clock."""
        return self.market.clock()

    def next(self) -> int:
        """A number that nobody has had; and a millisecond goes by, so that nothing happens at one instant."""
        self.market.clock.advance(1)
        self.number += 1
        return self.number

    def refused(self, what: Callable[[], object], code: str | None) -> bool:
        """Do it: it is refused with this code, or it is done. Whether it was refused."""
        self.next()
        try:
            what()
        except Refusal as refusal:
            came: str | None = refusal.code
        else:
            came = None
        assert came == code
        reached[f"refused: {came}"] += came is not None
        return came is not None

    def work(self, act: Callable[[Message, Any], Any], subject: str, payload: str, mood: str) -> Outcome | None:
        """One message is worked on; None: the worker has died of it. What was called is in `far.calls`."""
        self.far.mood, self.far.calls = mood, []
        now_ms = self.now
        message = Message(f"m:{subject}", "t", ACCOUNT.id, subject, payload, 1, 1, now_ms, now_ms, now_ms)
        try:
            return cast(Outcome, at_once(act(message, None)))
        except Died:
            return None

    # --- sales

    def say(self, order: Order, payment: Payment, *facts: Fact) -> None:
        """The provider says something, and the model is told the same."""
        self.market.tell(*[(payment.id, fact) for fact in facts])
        self.told += [(payment.id, fact) for fact in facts]
        for fact in facts:
            self.learn(payment, fact, order)
        order.follow(self.now)

    def learn(self, payment: Payment, fact: Fact, order: Order) -> None:
        """What a fact means."""
        amount, word = fact.amount_minor or 0, str(fact.kind).rpartition("_")[2]
        if fact.kind is Kind.CAPTURED and fact.currency == "XOF":
            payment.captures[fact.movement] = amount
            payment.late |= order.state == "canceled"
            payment.fee = max(payment.fee, fact.fee_minor or 0)
        elif fact.kind is Kind.CAPTURED:
            payment.elsewhere += amount
        elif fact.kind is Kind.REVERSED:
            payment.reversals[fact.movement] = amount
        elif fact.movement.startswith("dp_"):
            payment.disputes.setdefault(fact.movement, Movement(amount)).said.add(word)
        elif fact.movement.startswith("re_"):
            payment.refunds.setdefault(fact.movement, Movement(amount)).said.add(word)

    def fact(self, kind: Kind, movement: str, minor: int | None = None, at_ms: int | None = None, **more: Any) -> Fact:
        """As a strongly signed callback has it."""
        return Fact(kind, movement, self.now if at_ms is None else at_ms, minor, None,
                    **({"currency": "XOF", "source": Source.CALLBACK} | more))  # fmt: skip

    @rule(way=st.sampled_from(SALES), price=st.sampled_from([1_000, 2_500, 5_000]), timed=st.booleans())
    def sells(self, way: str, price: int, timed: bool) -> None:
        """A sale."""
        self.sell(way, price, timed=timed)

    def sell(self, way: str, price: int, *, timed: bool) -> None:
        """An order for the seller, paid in one way or another."""
        n, market = self.next(), self.market
        line = order_steps.Line(1, description="Couture", unit_minor=price)
        late = "revive" if way == "revived" else "ask"
        order = Order(market.order(line, beneficiary_id=market.seller, late=late), price, late)
        self.books.orders.append(order)

        def pays() -> Payment:
            payment = Payment(market.pay(order.id, asked=(price, "XOF")), price)
            order.payments.append(payment)
            return payment

        def comes(minor: int = price, which: str = "a", at_ms: int | None = None, currency: str = "XOF") -> Fact:
            return self.fact(Kind.CAPTURED, f"m{which}{n}", minor, at_ms, currency=currency)

        first = pays()
        match way:
            case "right":
                self.say(order, first, comes())
            case "under" | "over":
                self.say(order, first, comes(price + (1 if way == "over" else -1)))
            case "foreign":
                self.say(order, first, comes(currency="EUR"))
            case "twice":
                self.say(order, first, comes(), comes(which="b"))
            case "short_then_right":
                self.say(order, first, comes(price - 300), comes(which="b"))
            case "two_payments":
                self.say(order, first, self.fact(Kind.FAILED, f"x{n}"))
                self.say(order, pays(), comes(which="b"))
                self.say(order, first, comes())
            case "late" | "revived":
                market.cancel(order.id)
                self.say(order, first, self.fact(Kind.CANCELED, f"x{n}"))
                order.state = "canceled"
                self.next()
                self.say(order, first, comes(at_ms=None if timed else 0))
            case "unpaid":
                pass
            case "disputed_first":
                self.say(order, first, self.fact(Kind.DISPUTE_OPENED, f"dp_{n}", price))
                self.say(order, first, comes())
            case _:
                raise AssertionError(way)

    def money(self, data: st.DataObject) -> tuple[Order, Payment]:
        """Some payment that has money."""
        return data.draw(st.sampled_from(self.books.payments()))

    @precondition(lambda self: self.books.payments())
    @rule(data=st.data(), fee=st.sampled_from([25, 50]))
    def costs(self, data: st.DataObject, fee: int) -> None:
        """The provider says what it has kept."""
        self.next()
        order, payment = self.money(data)
        captures = [fact for id_, fact in self.told if id_ == payment.id and fact.kind is Kind.CAPTURED]
        c = captures[0]
        reached["fee of a capture"] += 1
        self.say(order, payment, Fact(c.kind, c.movement, c.at_ms, c.amount_minor, None, c.currency, fee))

    @precondition(lambda self: self.books.payments())
    @rule(data=st.data(), what=st.sampled_from(["claim", "claim", "claw", "refund", "refund"]), part=st.booleans(),
          verdict=st.sampled_from(["opened", "opened", "won", "lost"]),
          word=st.sampled_from(["succeeded", "succeeded", "failed", "pending"]))  # fmt: skip
    def money_is_taken_back(self, data: st.DataObject, what: str, part: bool, verdict: str, word: str) -> None:
        """
        A dispute begins or ends, in any order; the operator claws back; somebody refunds at the provider's own
        dashboard, and a bank may reject that later, or it is told first.
        """
        n = self.next()
        order, payment = self.money(data)
        if what == "claim":
            name = data.draw(st.sampled_from([f"dp_{n}", *payment.disputes, *payment.disputes]))
            known = payment.disputes.get(name)
            amount = known.amount if known else 700 if part else payment.captured
            reached[f"dispute {verdict}"] += 1
            self.say(order, payment, self.fact(Kind(f"dispute_{verdict}"), name, amount))
        elif what == "claw":
            reached["reversed"] += 1
            self.say(order, payment, self.fact(Kind.REVERSED, f"rv_{n}", 400))
        else:
            theirs = sorted(name for name, one in payment.refunds.items() if not one.ours)
            name = data.draw(st.sampled_from([f"re_x{n}", *theirs]))
            amount = payment.refunds[name].amount if name in payment.refunds else 300 + n
            if name in payment.refunds or payment.captured - payment.gone >= amount:
                reached[f"refund elsewhere {word}"] += 1
                self.say(order, payment, self.fact(Kind(f"refund_{word}"), name, amount, 0))

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def repeats(self, data: st.DataObject) -> None:
        """Facts come again, in another order, in one batch."""
        self.next()
        self.market.tell(*data.draw(st.lists(st.sampled_from(self.told), min_size=1, max_size=4)))

    # --- refunds of ours

    @precondition(lambda self: self.books.payments())
    @rule(data=st.data(), whole=st.booleans(), moods=st.lists(st.sampled_from(REFUNDS), max_size=2),
          words=st.lists(st.sampled_from(["succeeded", "failed", "pending"]), max_size=2))  # fmt: skip
    def we_refund(self, data: st.DataObject, whole: bool, moods: list[str], words: list[str]) -> None:
        """Asked for; and what comes of it at once, if anything."""
        self.refunded(*self.money(data), None if whole else 900 + self.number, moods, words)

    def refunded(self, order: Order, payment: Payment, amount: int | None, moods: list[str], words: list[str]) -> None:
        """Some of a payment, or the rest of it."""
        open_ = sum(one.amount for one in order.refunds if one.payment is payment and one.open)
        rest = payment.captured - payment.gone - open_ - payment.pending_elsewhere
        made: list[str] = []
        code = "above_the_rest" if rest < (amount or 1) or payment.elsewhere else None
        if not self.refused(lambda: made.append(self.market.refund(payment.id, amount)), code):
            one = Refund(made[0], payment, amount or rest)
            order.refunds.append(one)
            for mood in moods:
                self.refund_is_worked_on(order, one, mood)
            for word in words:
                self.refund_is_told_of(order, one, word)

    def refund(self, data: st.DataObject, want: Callable[[Refund], bool]) -> tuple[Order, Refund] | None:
        """Some refund of ours that is so."""
        found = [(order, one) for order in self.books.orders for one in order.refunds if want(one)]
        return data.draw(st.sampled_from(found)) if found else None

    @precondition(lambda self: any(order.refunds for order in self.books.orders))
    @rule(data=st.data(), what=st.sampled_from(["work", "work", "tell", "give up"]), mood=st.sampled_from(REFUNDS),
          word=st.sampled_from(["succeeded", "succeeded", "failed", "pending"]))  # fmt: skip
    def refund_goes_on(self, data: st.DataObject, what: str, mood: str, word: str) -> None:
        """Something becomes of a refund of ours."""
        wanted: dict[str, Callable[[Refund], bool]] = {
            "work": lambda one: one.open,
            "tell": lambda one: one.id in self.far.refunded,
            "give up": lambda one: one.state in ("queued", "unknown") and one.id not in self.far.refunded,
        }
        found = self.refund(data, wanted[what])
        if found is None:
            return
        if what == "work":
            self.refund_is_worked_on(*found, mood)
        elif what == "tell":
            self.refund_is_told_of(*found, word)
        else:
            self.refund_is_given_up(*found)

    def refund_is_worked_on(self, order: Order, one: Refund, mood: str) -> None:
        """Sent, or sent again under its key."""
        self.next()
        if not one.open:
            return
        fresh = one.state == "queued"
        self.work(self.market.refunder.act, one.id, "", mood)
        one.state = "submitting" if fresh else "unknown" if one.state == "submitting" else one.state
        for _, key, said in self.far.calls:
            assert key == one.id and (fresh or (one.state == "unknown" and self.kind == "keyed"))
            match said:
                case Refunding(told):
                    movement = one.payment.refunds.setdefault(f"re_{one.id}", Movement(one.amount, ours=True))
                    movement.said.add(str(told.facts[0].kind).rpartition("_")[2])
                    self.told.append((one.payment.id, told.facts[0]))
                    one.state = self.by_words(movement)
                case RefundRefused() if fresh:
                    one.state = "failed"
                case NotSent() if fresh:
                    one.state = "queued"
                case Lost() if fresh:
                    one.state = "unknown"
        reached[f"our refund {one.state}"] += 1
        order.follow(self.now)

    def by_words(self, movement: Movement) -> str:
        """Of a refund that the provider has."""
        return next((word for word in ("failed", "succeeded") if word in movement.said), "pending")

    def refund_is_told_of(self, order: Order, one: Refund, word: str) -> None:
        """By a callback, also after its end, also before the answer."""
        self.next()
        if one.id in self.far.refunded:
            movement = one.payment.refunds.setdefault(f"re_{one.id}", Movement(one.amount, ours=True))
            was, one.state = one.state, self.by_words(Movement(0, movement.said | {word}))
            reached[f"our refund {was}, then {one.state}"] += was != one.state
            self.say(order, one.payment, self.fact(Kind(f"refund_{word}"), f"re_{one.id}", one.amount, 0))

    def refund_is_given_up(self, order: Order, one: Refund) -> None:
        """A person has looked: it is not there."""
        with self.market.tx() as tx:
            self.next()
            self.market.refunds.give_up(tx, one.id, "not there", self.market.by)
        one.state = "canceled" if one.state == "queued" else "failed"
        order.follow(self.now)

    # --- all around

    @rule(what=st.sampled_from(["float", "check", "payee", "approve"]), well=st.sampled_from([True, True, False]))
    def surroundings_change(self, what: str, well: bool) -> None:
        """The float runs dry or is filled, the ledger is looked at, the payee is another, a second person made sure."""
        n, market = self.next(), self.market
        if what == "float":
            self.far.float_minor = 10**12 if well else 0
        elif what == "check":
            self.sound = well
            market.checked(sound=well)
        with market.tx() as tx:
            if what == "payee" and not well and len(self.payees) < 9:  # ten a day are too many
                payee_steps.pay_to(tx, MINE, market.seller, To("account", f"acct_{n:04}", "Moussa"), market.by)
                self.payees.append(Payee(self.now + DAY_MS))
            elif what == "approve" and self.payees[-1].usable_ms > self.now:
                newest = payee_steps.payee_of(tx, market.seller)["id"]
                market.payouts.approve_payee(tx, MINE, market.seller, newest, "called", market.by_another())
                self.payees[-1].usable_ms = self.now

    @precondition(lambda self: self.books.float() > 100)
    @rule(part=st.sampled_from([1, 2, 3]), fee=st.sampled_from([0, 10]))
    def provider_settles(self, part: int, fee: int) -> None:
        """To the merchant's bank."""
        amount, id_ = (self.books.float() - fee) // part, f"stl_{self.next()}"
        whose = "mer_1", False, "XOF"
        float_ = Place(Account.FLOAT, ACCOUNT.id, *whose)
        bank, fees = Place(Account.BANK, "mer_1", *whose), Place(Account.FEES, "mer_1", *whose)
        moves = {Move(Entry.SETTLEMENT, bank, float_): amount, Move(Entry.FEE, fees, float_): fee}
        self.settlements[id_] = moves
        with self.market.tx() as tx:
            bring(tx, {id_: moves}, self.now)
        reached["settled"] += 1
        self.books.settled += amount
        self.books.settlement_fees += fee
