"""A provider that is far away: it is sent payouts and refunds, loses answers, and its own book is the truth."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from sqlalchemy import Connection, Engine

from service.callbacks.process import Report
from service.escrow.pay_out import Payer
from service.ids import Ids
from service.orders.follow import refund_ended
from service.payments.facts import Fact, Kind, Told
from service.payments.refund_send import Refunder
from service.providers import CALLS
from service.providers.base import NotKnown, Unclear
from service.providers.calls import Calls, Lost, NotSent, Refunding, RefundRefused
from service.providers.payouts import PayoutChannel, PayoutRefused, Payouts, PayoutTold, Stage
from tests.property.test_orders_machine import OURS
from tests.support.clock import Clock
from tests.support.escrow import Market

T = TypeVar("T")

Kindness = Literal["keyed", "asked", "named", "silent"]
"""It takes keys; it is asked by our reference, only by its own name, or not at all. Only the first pays a key once."""

SLOW_MS, TOO_SLOW_MS = 9 * 60_000, 25 * 60_000
"""After a lost answer a payout may not be seen in its book at once: mostly after less than our grace."""

SENDS = (
    *("accepted", "paid", "otp", "failed", "refused", "float", "not_sent", "lost_before", "lost_after", "lost_slowly"),
    *("dies_before", "dies_after", "dies_slowly", "lost_too_slowly"),
)
REFUNDS = ("pending", "succeeded", "refused", "not_sent", "lost_before", "lost_after", "dies_before", "dies_after")


class Died(BaseException):
    """The worker is gone, in the middle of a call."""


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Run what never really waits."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("it waits")


@dataclass
class Sent:
    """A payout in the provider's book. `once`: a second one under its reference is refused."""

    reference: str
    amount: int
    stage: Stage
    seen_ms: int
    was_paid: bool = False
    once: bool = False
    fee: int = 0

    def moves(self, stage: Stage) -> None:
        """It goes on."""
        self.stage = stage
        self.was_paid |= stage == "paid"


@dataclass
class Far:
    """
    What it does next is in `mood`; `calls` is what it was asked and what it said, for the model to judge. One call has
    one of: send, ask, float, refund.
    """

    clock: Clock
    kind: Kindness
    book: dict[str, list[Sent]] = field(default_factory=dict)
    refunded: dict[str, int] = field(default_factory=dict)
    float_minor: int = 10**12
    mood: str = ""
    calls: list[tuple[str, str, Any]] = field(default_factory=list)

    # --- what the product is given

    def paying(self) -> Payouts:
        """Its paying half; the conversations are done by `run`."""
        talk: Callable[[str], Any] = lambda what: lambda *said: (what, said[0])  # noqa: E731
        return Payouts(
            (PayoutChannel("account", "XOF"),),
            talk("send"),
            None if self.kind == "silent" else talk("ask"),
            None,
            None if self.kind == "silent" else talk("float"),
            idempotent=self.kind == "keyed",
            by_name_only=self.kind == "named",
        )

    def refunding(self) -> Calls:
        """Its refunding half."""
        talk: Any = lambda *said: ("refund", (said[0], said[1]))  # noqa: E731
        return replace(CALLS["stripe"], refund=talk, refunds=None, idempotent=self.kind == "keyed")

    async def run(self, _provider: str, _base_url: str, talk: Any, _broken: Any, _limit_ms: int | None = None) -> Any:
        """Instead of the client: what was sent, and what comes of it."""
        what, asked = talk
        name = asked.reference if what in ("send", "ask") else asked[0].key if what == "refund" else ""
        said: Any = None
        try:
            said = getattr(self, f"_{what}")(asked)
        finally:
            self.calls.append((what, name, said))
        return said

    # --- what it does

    def found(self, reference: str) -> Sent | None:
        """As it is seen there now."""
        return next((one for one in self.book.get(reference, ()) if one.seen_ms <= self.clock()), None)

    def has(self, reference: str) -> bool:
        """Whether it took one, seen or not."""
        return bool(self.book.get(reference))

    def paid(self, reference: str) -> int:
        """How often money really left under this reference."""
        return sum(one.was_paid for one in self.book.get(reference, ()))

    def _tell(self, one: Sent) -> PayoutTold:
        return PayoutTold(one.stage, (f"tr_{one.reference}",), fee_minor=one.fee or None)

    def _send(self, paying: Any) -> Any:
        reference, mood = paying.reference, self.mood
        if mood == "not_sent":
            return NotSent("refused")
        if mood == "lost_before":
            return Lost("timeout")
        if mood == "dies_before":
            raise Died
        known = self.book.get(reference)
        if known and self.kind == "keyed":
            if mood.startswith("lost"):
                return Lost("timeout")
            if mood.startswith("dies"):
                raise Died
            return self._tell(known[0])
        if known and known[0].once:
            return PayoutRefused("duplicate_reference")
        if mood in ("refused", "float"):
            return PayoutRefused("bad_account" if mood == "refused" else "insufficient_float")
        stages: dict[str, Stage] = {"paid": "paid", "otp": "otp", "failed": "failed"}
        sent = Sent(reference, paying.amount_minor, "in_transit", self.clock())
        sent.moves(stages.get(mood, "in_transit"))
        sent.once = mood == "lost_too_slowly"
        sent.seen_ms += TOO_SLOW_MS if sent.once else SLOW_MS if mood.endswith("slowly") else 0
        self.book.setdefault(reference, []).append(sent)
        if mood.startswith("dies"):
            raise Died
        return Lost("timeout") if mood.startswith("lost") else self._tell(sent)

    def _ask(self, paying: Any) -> Any:
        if self.mood == "unclear":
            return Unclear("timeout")
        found = self.found(paying.reference)
        if found is None:
            return NotKnown()
        return replace(self._tell(found), stage="in_transit") if self.mood == "stale" else self._tell(found)

    def _float(self, _: Any) -> Any:
        return Unclear("timeout") if self.mood == "float_unclear" else {"XOF": self.float_minor}

    def _refund(self, asked: Any) -> Any:
        given, amount = asked
        mood = self.mood
        if mood == "not_sent":
            return NotSent("refused")
        if given.key not in self.refunded:
            if mood == "refused":
                return RefundRefused("refused")
            if mood.endswith("_before"):
                if mood.startswith("dies"):
                    raise Died
                return Lost("timeout")
            self.refunded[given.key] = amount
        if mood.startswith("dies"):
            raise Died
        if mood.startswith("lost"):
            return Lost("timeout")
        kind = Kind.REFUND_SUCCEEDED if mood == "succeeded" else Kind.REFUND_PENDING
        return Refunding(Told(given.references[:1], (Fact(kind, f"re_{given.key}", 0, amount, None, "XOF"),)))


class InMemory:
    """A Database of which every work is over before it is awaited."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def write(self, work: Callable[..., T], *args: Any, lane: str = "background") -> T:
        """One transaction."""
        with self._engine.begin() as tx:
            return work(tx, *args)

    async def read(self, query: Callable[..., T], *args: Any, deadline_ms: int = 0) -> T:
        """Another."""
        with self._engine.begin() as tx:
            return query(tx, *args)


class _Syncer:
    """As much of `payments.sync.Syncer` as senders need."""

    def __init__(self, market: Market, db: InMemory) -> None:
        self._market, self.keep = market, db.write

    def book(self, tx: Connection, _: int) -> Any:
        return self._market.book(tx)

    def close(self, _: Connection, book: Any, __: int) -> Report:
        book.flush()
        return Report()

    def reported(self, _: Report) -> None:
        """Nobody counts."""

    def fault(self, what: str, error: BaseException) -> None:
        """One of ours is one of ours."""
        raise AssertionError(what) from error


Saved = tuple[sqlite3.Connection, int, int, str]


class Abroad(Market):
    """A market that pays out, and back, through a provider far away."""

    def __init__(self, kind: Kindness, **terms: Any) -> None:
        self.far = Far(Clock(), kind)
        super().__init__({"stripe": self.far.paying()}, **terms)
        self.far.clock = self.clock
        self.numbers = 1_000
        self.ids = Ids(self.clock, self._number)
        db: Any = InMemory(self.engine)
        syncer: Any = _Syncer(self, db)
        client: Any = self.far
        calls = {"stripe": self.far.refunding()}
        self.refunds._calls = calls

        def parts(what: Any, *more: Any) -> Any:
            return db, self.queue, syncer, client, lambda: self.registry, what, self.ids, self.clock, *more

        payer: Any = Payer
        self.payer: Payer = payer(*parts({"stripe": self.far.paying()}, lambda _: ""))
        refunder: Any = Refunder
        self.refunder: Refunder = refunder(*parts(calls), ended=refund_ended)

    def _number(self) -> int:
        self.numbers += 1
        return self.numbers

    @property
    def _driver(self) -> Any:
        with self.engine.connect() as connection:
            return connection.connection.driver_connection

    def saved(self) -> Saved:
        """All that it is, for `as_it_was` of another one of the same kind. Nothing has been sent yet."""
        copy = sqlite3.connect(":memory:")
        self._driver.backup(copy)
        return copy, self.clock(), self.numbers, self.seller

    def as_it_was(self, saved: Saved) -> None:
        """Go on from there. By a backup: under statements that are prepared, `deserialize` crashes SQLite."""
        copy, self.clock.now_ms, self.numbers, self.seller = saved
        copy.backup(self._driver)
        self.ours = OURS
