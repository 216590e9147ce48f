"""
Money that two hands reach for at the same moment, through the one writer of a real database: each pair has one winner,
in whichever order it comes, and the ledger adds up.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
from sqlalchemy import Connection, insert, select

from outbox.queue import Queue
from service.database import Database
from service.errors import Refusal
from service.escrow import beneficiaries
from service.escrow.hold_rows import of_token
from service.escrow.hold_rows import one as one_hold
from service.escrow.holds import HOUR_MS, Holds
from service.escrow.payouts import Draft as PayoutDraft
from service.escrow.payouts import Payouts
from service.escrow.states import HoldStep
from service.escrow.tables import holds
from service.escrow.terms import RELEASE_HOURS, Terms, set_terms
from service.ids import Ids
from service.ledger.ledger import Kind as Account
from service.ledger.ledger import balance
from service.ledger.payments import follow as follow_ledger
from service.merchants.accounts import Entry, Registry
from service.merchants.audit import By
from service.merchants.tables import accounts, merchants
from service.orders import orders as order_steps
from service.orders.expire import Expirer
from service.orders.follow import Follow
from service.orders.tables import orders
from service.payments.book import Book
from service.payments.facts import Fact, Kind, Source, Told
from service.payments.refunds import Refunds
from service.providers import CALLS, PAYOUTS
from service.schema import metadata, outbox_tables
from tests.property.test_book_machine import ACCOUNT
from tests.property.test_orders_machine import MINE, OURS
from tests.support.clock import Clock
from tests.support.escrow import SELLER
from tests.support.escrow_check import problems

PAIRS = 200
PRICE = 5_000
NAME = "races.db"
T = TypeVar("T")
Work = Callable[[], Coroutine[Any, Any, Any]]


class Held(NamedTuple):
    """An order with a hold: the ids of all that is its own."""

    order_id: str
    payment_id: str
    hold_id: str
    seller: str


class Counting:
    """The shop's hands: each is one work of the real code, given to the real writer."""

    def __init__(self, db: Database, first: int = 0) -> None:
        self.db, self.clock = db, Clock()
        numbers = itertools.count(first)
        self.ids = Ids(self.clock, lambda: next(numbers))
        self.queue = Queue(outbox_tables)
        entry = Entry(ACCOUNT.id, "stripe", "mer_1", False, "http://stripe.test", {"secret_key": ("sk_test_1",)})
        self.payouts = Payouts(self.queue, lambda: Registry([entry]), PAYOUTS, OURS)
        self.holds = Holds(self.queue, self.payouts.pay_out)
        self.refunds = Refunds(self.queue, CALLS)
        self.expirer = Expirer(None, None, self.queue, self.ids, self.clock, 0)  # type: ignore[arg-type]
        self.seller = ""

    @property
    def by(self) -> By:
        """A hand, now."""
        return By("test", self.clock(), self.ids)

    def open(self, tx: Connection) -> None:
        """One merchant with one account and one seller."""
        tx.execute(insert(merchants), {"id": "mer_1", "name": "Awa", "status": "active", "created_at_ms": 1})
        row = {"id": ACCOUNT.id, "provider": "stripe", "merchant_id": "mer_1", "live": False, "origin": "settings"}
        tx.execute(insert(accounts), row | {"created_at_ms": 1})
        set_terms(tx, "mer_1", Terms(enabled=True, approve_above={"XOF": 10**9}, payout_on_release=False), self.by)
        self.seller = beneficiaries.create(tx, MINE, "XOF", SELLER, self.by)

    def ordered(self, tx: Connection, late: str = "ask") -> tuple[str, str]:
        """An order that waits for its payment; both ids."""
        line = order_steps.Line(1, description="Couture", unit_minor=PRICE)
        draft = order_steps.Draft((line,), "XOF", beneficiary_id=self.seller, late=late)
        order_id = order_steps.create(tx, self.queue, MINE, draft, self.by)
        book, payment_id = self.book(tx), self.ids("pay")
        now_ms = self.clock()
        row = {"id": payment_id, "merchant_id": "mer_1", "live": False, "provider": "stripe", "order_id": order_id,
               "amount_minor": PRICE, "currency": "XOF", "session_id": None, "created_at_ms": now_ms}  # fmt: skip
        attempt = {"id": self.ids("try"), "account_id": ACCOUNT.id, "provider": "stripe",
                   "reference": OURS + payment_id, "amount_minor": PRICE, "currency": "XOF"}  # fmt: skip
        book.begin(row, attempt)
        book.flush()
        order_steps.admit(tx, payment_id)
        return order_id, payment_id

    def book(self, tx: Connection) -> Book:
        """The book of payments with all that follows it."""
        followers = self.refunds.follow, Follow(), follow_ledger
        return Book(tx, self.queue, self.ids, self.clock(), OURS, followers)

    def says(self, tx: Connection, payment_id: str, kind: Kind) -> None:
        """The provider does."""
        amount = PRICE if kind is Kind.CAPTURED else None
        fact = Fact(kind, f"{kind}_{payment_id}", self.clock(), amount, None, "XOF", source=Source.ANSWER)
        book = self.book(tx)
        book.hear(ACCOUNT, Told((f"ref_{payment_id}",), (fact,), OURS + payment_id), None)
        book.flush()

    def held(self, tx: Connection) -> Held:
        """An order for a seller of its own that was paid and delivered."""
        self.seller = beneficiaries.create(tx, MINE, "XOF", SELLER, self.by)
        order_id, payment_id = self.ordered(tx)
        self.says(tx, payment_id, Kind.CAPTURED)
        order_steps.deliver(tx, self.queue, MINE, order_id, self.by)
        hold_id = tx.execute(select(holds.c.id).where(holds.c.order_id == order_id)).scalar_one()
        return Held(order_id, payment_id, hold_id, self.seller)

    def belongs_to(self, tx: Connection, made: Sequence[Held], kind: Account = Account.BENEFICIARY) -> Counter[int]:
        """What their sellers have."""
        return Counter(balance(tx, kind, one.seller, False, "XOF") for one in made)

    def state(self, tx: Connection, table: Any, id_: str) -> str:
        """Of an order or a hold."""
        return str(tx.execute(select(table.c.state).where(table.c.id == id_)).scalar_one())


@asynccontextmanager
async def counting(directory: Path, before: Path | None = None) -> AsyncIterator[Counting]:
    """A new database, or one as another was; at the end the whole ledger is worked out afresh."""
    if before is not None:
        shutil.copy(before, directory / before.name)
    db = await Database.open(f"sqlite:///{directory}/{NAME}", on_storage_failure=lambda _: None)
    try:
        made = Counting(db, 0 if before is None else 10**6)
        if before is None:
            await db.write(metadata.create_all)
            await db.write(made.open)
        yield made
        assert await db.read(problems) == []
    finally:
        await db.close()


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Held]]:
    """A database with two hundred holds that are scheduled, made once: each test has a copy."""
    directory = tmp_path_factory.mktemp("before")

    async def run() -> list[Held]:
        async with counting(directory) as k:
            return await prepared(k, lambda tx, _: k.held(tx))

    return directory / NAME, asyncio.run(run())


async def pair(number: int, hands: Sequence[Work]) -> list[str]:
    """Both at the same moment, in turns one and the other first: "done" or the code of the refusal, as given."""

    async def tried(hand: Work) -> str:
        try:
            await hand()
        except Refusal as refusal:
            return refusal.code
        return "done"

    tasks = [tried(hand) for hand in (hands if number % 2 else hands[::-1])]
    came = await asyncio.gather(*tasks)
    return list(came if number % 2 else came[::-1])


async def prepared(k: Counting, make: Callable[[Connection, int], T]) -> list[T]:
    """So many, twenty in a transaction."""
    found: list[T] = []
    for first in range(0, PAIRS, 20):
        numbers = range(first, first + 20)
        found += await k.db.write(lambda tx, numbers=numbers: [make(tx, number) for number in numbers])
    return found


async def pairs(hands: Sequence[Sequence[Work]]) -> list[list[str]]:
    """All pairs, ten of them at once: the two of each stand next to each other before the writer."""
    came: list[list[str]] = []
    for first in range(0, len(hands), 10):
        numbers = range(first, first + 10)
        came += await asyncio.gather(*(pair(number, hands[number]) for number in numbers))
    return came


def test_expiry_against_a_late_capture(tmp_path: Path) -> None:
    """200 pairs: the money is never lost: the order is paid and its money held; or it is over, and nobody's, late."""

    async def run() -> None:
        async with counting(tmp_path) as k:
            policies = ["revive" if number % 4 > 1 else "ask" for number in range(PAIRS)]
            made = await prepared(k, lambda tx, number: k.ordered(tx, policies[number]))
            k.clock.advance(2 * HOUR_MS)
            await prepared(k, lambda tx, number: k.expirer.look(tx, made[number][0], k.clock()))

            def dies(order_id: str, payment_id: str) -> Work:
                def work(tx: Connection) -> None:
                    k.says(tx, payment_id, Kind.EXPIRED)
                    k.expirer.look(tx, order_id, k.clock())

                return lambda: k.db.write(work)

            def comes(payment_id: str) -> Work:
                return lambda: k.db.write(k.says, payment_id, Kind.CAPTURED)

            came = await pairs([(dies(*ids), comes(ids[1])) for ids in made])
            assert came == [["done", "done"]] * PAIRS
            states = await k.db.read(lambda tx: [k.state(tx, orders, order_id) for order_id, _ in made])
            quarter = PAIRS // 4
            assert Counter(zip(policies, states, strict=True)) == {
                ("ask", "expired"): quarter,
                ("ask", "paid"): quarter,
                ("revive", "paid"): 2 * quarter,
            }
            rows = await k.db.read(lambda tx: tx.execute(select(holds.c.state)).scalars().all())
            assert Counter(rows) == {"held": 2 * quarter, "frozen": quarter}, "revived is late, and frozen"
            assert await k.db.read(balance, Account.UNALLOCATED, "mer_1", False, "XOF") == quarter * PRICE

    asyncio.run(run())


def test_the_buyers_word_against_the_clock(tmp_path: Path, before: tuple[Path, list[Held]]) -> None:
    """200 pairs: whoever is first releases, the other finds it done; 5,000 went over once."""

    async def run() -> None:
        whole, made = before
        async with counting(tmp_path, whole) as k:
            tokens = await prepared(k, lambda tx, number: k.holds.link(tx, made[number].hold_id, k.by))
            k.clock.advance(RELEASE_HOURS * HOUR_MS)
            first: Counter[str] = Counter()

            async def clock() -> None:
                first["clock"] += (await k.db.write(k.holds.release_due, k.by, 1))["released"]

            def buyer(order_id: str, token: str) -> Work:
                def work(tx: Connection) -> None:
                    row = of_token(tx, order_id, token)
                    k.holds.release(tx, row["id"], "", k.by, HoldStep.CONFIRMED)

                return lambda: k.db.write(work)

            hands = [(clock, buyer(made[n].order_id, tokens[n])) for n in range(PAIRS)]
            for number, both in enumerate(hands):  # one by one: the clock takes the oldest that is left
                assert await pair(number, both) == ["done", "done"]
            rows = await k.db.read(lambda tx: [one_hold(tx, one.hold_id) for one in made])
            right = ("released", PRICE, 3)
            assert {(row["state"], row["released_minor"], row["sequence"]) for row in rows} == {right}
            assert 0 < first["clock"] < PAIRS, "each of the two was first in some of them"
            assert await k.db.read(k.belongs_to, made) == {PRICE: PAIRS}

    asyncio.run(run())


def test_two_payouts_over_one_balance(tmp_path: Path, before: tuple[Path, list[Held]]) -> None:
    """200 pairs: one is reserved and one refused, who asks first; also when both are of the same hold."""

    async def run() -> None:
        whole, made = before
        async with counting(tmp_path, whole) as k:
            await prepared(k, lambda tx, number: k.holds.release(tx, made[number].hold_id, "the buyer called", k.by))

            def ask(seller: str, hold_id: str | None) -> Work:
                draft = PayoutDraft(seller, PRICE - (0 if hold_id else 1_999), "XOF", hold_id=hold_id)
                return lambda: k.db.write(k.payouts.request, MINE, draft, k.by)

            hands = [ask(one.seller, one.hold_id if n % 4 > 1 else None) for n, one in enumerate(made)]
            came = await pairs([(hand, hand) for hand in hands])
            for number, words in enumerate(came):
                refused = "hold_paid_out" if number % 4 > 1 else "balance_short"
                assert words == (["done", refused] if number % 2 else [refused, "done"])
            assert await k.db.read(k.belongs_to, made) == {1_999: PAIRS // 2, 0: PAIRS // 2}
            reserved = await k.db.read(k.belongs_to, made, Account.RESERVED)
            assert reserved == {PRICE - 1_999: PAIRS // 2, PRICE: PAIRS // 2}

    asyncio.run(run())


def test_a_refund_against_a_release(tmp_path: Path, before: tuple[Path, list[Held]]) -> None:
    """200 pairs: a refund that is first holds the release up; one that comes after it is taken from the seller."""

    async def run() -> None:
        whole, made = before
        async with counting(tmp_path, whole) as k:

            def back(payment_id: str) -> Work:
                return lambda: k.db.write(k.refunds.create, payment_id, 2_000, "torn", k.by)

            def release(hold_id: str) -> Work:
                return lambda: k.db.write(k.holds.release, hold_id, "the buyer called", k.by)

            came = await pairs([(back(one.payment_id), release(one.hold_id)) for one in made])
            assert came == [["done", "refund_open" if number % 2 else "done"] for number in range(PAIRS)]

            def gone(tx: Connection, number: int) -> None:
                payment_id = made[number].payment_id
                fact = Fact(Kind.REFUND_SUCCEEDED, f"re_{payment_id}", 0, 2_000, None, "XOF", source=Source.ANSWER)
                book = k.book(tx)
                book.hear(ACCOUNT, Told((f"ref_{payment_id}",), (fact,), OURS + payment_id), None)
                book.flush()

            await prepared(k, gone)
            rows = await k.db.read(lambda tx: [one_hold(tx, one.hold_id) for one in made])
            names = "released_minor", "refunded_minor", "taken_back_minor"
            for number, row in enumerate(rows):
                assert tuple(row[name] for name in names) == ((0, 2_000, 0) if number % 2 else (PRICE, 0, 2_000))
            assert await k.db.read(k.belongs_to, made) == {0: PAIRS // 2, PRICE - 2_000: PAIRS // 2}

    asyncio.run(run())
