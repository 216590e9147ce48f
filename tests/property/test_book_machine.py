"""
The book of payments against a reference model: a provider that repeats, reorders and contradicts itself, told in
batches of any size, with transactions that are rolled back and run again. Whatever happens, the stored payment is what
the pure rules make of the set of facts, and its events are numbered without a gap.
"""

from __future__ import annotations

import functools
import itertools

import msgspec
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import Connection, Engine, create_engine, event, insert, select
from sqlalchemy.pool import StaticPool

from outbox.queue import Queue
from service.ids import Ids
from service.merchants.tables import accounts, endpoints, events, merchants
from service.payments.book import Book
from service.payments.facts import Fact, Kind, Source, Told, join
from service.payments.heard import Account, Heard, Waits
from service.payments.rules import decide_attempt, decide_payment
from service.payments.tables import payments
from service.schema import metadata, outbox_tables
from tests.support.clock import Clock

ACCOUNT = Account("acc_stripe", "stripe", "mer_1", False)
NAMES = {1: ("pi_1", "cs_1", "ch_1"), 2: ("pi_2", "cs_2", "ch_2")}


@functools.cache
def template() -> bytes:
    """The real schema with one merchant and one endpoint, made once and copied for every example."""
    made = create_engine("sqlite://", poolclass=StaticPool)
    metadata.create_all(made)
    with made.begin() as tx:
        tx.execute(insert(merchants), {"id": "mer_1", "name": "Awa", "status": "active", "created_at_ms": 1})
        tx.execute(insert(accounts), {"id": ACCOUNT.id, "provider": "stripe", "merchant_id": "mer_1", "live": False,
                                      "origin": "settings", "created_at_ms": 1})  # fmt: skip
        tx.execute(insert(endpoints), {"id": "ep_1", "merchant_id": "mer_1", "url": "http://127.0.0.1/", "events": "*",
                                       "status": "enabled", "created_at_ms": 1})  # fmt: skip
    with made.connect() as connection:
        copied: bytes = connection.connection.driver_connection.serialize()  # type: ignore[union-attr]
    made.dispose()
    return copied


def engine() -> Engine:
    """A database in memory, as the template has it."""
    made = create_engine("sqlite://", poolclass=StaticPool, connect_args={"isolation_level": None})
    with made.connect() as connection:
        connection.connection.driver_connection.deserialize(template())  # type: ignore[union-attr]
    event.listen(made, "begin", lambda c: c.exec_driver_sql("BEGIN IMMEDIATE"))
    return made


KINDS = st.sampled_from([
    Kind.CREATED, Kind.PENDING, Kind.REQUIRES_ACTION, Kind.TRY_FAILED, Kind.AUTHORIZED, Kind.FAILED, Kind.CANCELED,
    Kind.EXPIRED, Kind.CAPTURED, Kind.REFUND_PENDING, Kind.REFUND_SUCCEEDED, Kind.REFUND_FAILED, Kind.REFUNDED_TOTAL,
    Kind.DISPUTE_OPENED, Kind.DISPUTE_WON, Kind.DISPUTE_LOST, Kind.REVERSED,
])  # fmt: skip
AFTER = {Kind.REFUND_PENDING, Kind.REFUND_SUCCEEDED, Kind.REFUND_FAILED, Kind.REFUNDED_TOTAL, Kind.DISPUTE_OPENED,
         Kind.DISPUTE_WON, Kind.DISPUTE_LOST, Kind.REVERSED}  # fmt: skip


@st.composite
def tellings(draw: st.DrawFn) -> Told:
    """One message about one of two payments, under any of its names: always the main one, perhaps others."""
    which = draw(st.sampled_from([1, 2]))
    main, *others = NAMES[which]
    names = (main, *draw(st.lists(st.sampled_from(others), unique=True)))
    kind = draw(KINDS)
    asks = kind not in AFTER
    movement = main if kind not in AFTER or kind is Kind.REFUNDED_TOTAL else f"{draw(st.sampled_from('ab'))}_{which}"
    if kind in {Kind.DISPUTE_OPENED, Kind.DISPUTE_WON, Kind.DISPUTE_LOST}:
        movement = f"dp_{movement}"
    amount = draw(st.sampled_from([100, 499, 500, 501]))
    fact = Fact(
        kind,
        movement,
        draw(st.integers(0, 4)),
        amount if kind is Kind.CAPTURED or not asks else None,
        500 if asks else None,
        draw(st.sampled_from(["XOF", "XOF", "XOF", "XAF"])),
        source=draw(st.sampled_from([Source.HINT, Source.CALLBACK, Source.ANSWER])),
    )
    return Told(names, (fact,), reference=f"order-{which}")


class TheBook(RuleBasedStateMachine):
    """System: the book over a database. Model: a dict of joined facts per payment."""

    @initialize()
    def open(self) -> None:
        """An empty book."""
        self.engine = engine()
        self.clock = Clock()
        self.numbers = itertools.count()
        self.ids = Ids(self.clock, lambda: next(self.numbers))
        self.queue = Queue(outbox_tables)
        self.model: dict[str, dict[tuple[str, str], Fact]] = {}
        self.told: list[Told] = []

    def hear(self, tx: Connection, batch: list[Told]) -> list[Heard | Waits]:
        """One transaction's work."""
        book = Book(tx, self.queue, self.ids, self.clock(), "caisse-here-")
        heard = [book.hear(ACCOUNT, told, None) for told in batch]
        book.flush()
        return heard  # type: ignore[return-value]

    def tell(self, batch: list[Told]) -> None:
        """A batch is told and committed."""
        self.clock.advance(7)
        with self.engine.begin() as tx:
            heard = self.hear(tx, batch)
        for told, answer in zip(batch, heard, strict=True):
            self.expect(told, answer)
            self.told.append(told)

    def expect(self, told: Told, answer: Heard | Waits) -> None:
        """The model takes it in, and says whether it should have been heard."""
        main = told.references[0]
        fact = told.facts[0]
        if main not in self.model:
            if fact.kind in AFTER:
                assert isinstance(answer, Waits)
                return
            self.model[main] = {}
        assert isinstance(answer, Heard)
        kept = self.model[main]
        key = (fact.kind, fact.movement)
        kept[key] = join(kept[key], fact) if key in kept else fact

    @rule(batch=st.lists(tellings(), min_size=1, max_size=4))
    def say(self, batch: list[Told]) -> None:
        """The provider says something, perhaps against what it said before."""
        self.tell(batch)

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """The provider sends again what it has sent before, in another order."""
        self.tell(data.draw(st.lists(st.sampled_from(self.told), min_size=1, max_size=4)))

    @rule(batch=st.lists(tellings(), min_size=1, max_size=3))
    def fail_before_the_commit(self, batch: list[Told]) -> None:
        """The transaction is rolled back: nothing of it may remain."""
        with self.engine.connect() as tx, tx.begin() as transaction:
            self.hear(tx, batch)
            transaction.rollback()

    @invariant()
    def stored_is_what_the_rules_say(self) -> None:
        """Every payment: status, exceptions and sums computed afresh from the model's facts equal what is stored."""
        with self.engine.begin() as tx:
            rows = {row.provider_reference: row for row in tx.execute(select(payments))}
        assert len(rows) == len(self.model)
        for main, said in self.model.items():
            row = rows[main]
            truth = decide_payment([decide_attempt(list(said.values()))])
            stored = (row.status, row.exceptions, row.amount_minor, row.captured_minor, row.refunded_minor)
            problems = ",".join(sorted(truth.problems))
            assert stored == (
                truth.status, problems, truth.amount_minor, truth.captured_minor, truth.refunded_minor
            )  # fmt: skip

    @invariant()
    def events_are_numbered_and_each_is_promised_once(self) -> None:
        """Sequence numbers per payment are 1, 2, 3 …; each event is one message; the last one shows what is stored."""
        with self.engine.begin() as tx:
            found = tx.execute(select(events).order_by(events.c.position)).all()
            promised = tx.execute(select(outbox_tables.messages.c.subject)).scalars().all()
            assert sorted(promised) == sorted(row.id for row in found)
            for row in tx.execute(select(payments)):
                mine = [told for told in found if told.payment_id == row.id]
                assert [told.sequence for told in mine] == list(range(1, row.sequence + 1))
                last = msgspec.json.decode(mine[-1].body)["data"]["payment"]
                assert (last["status"], last["amount_captured"]) == (row.status, row.captured_minor)

    def teardown(self) -> None:
        """Close the database."""
        self.engine.dispose()


TestTheBook = TheBook.TestCase
TestTheBook.settings = settings(
    max_examples=30,
    stateful_step_count=10,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
)
