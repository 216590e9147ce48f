"""Refunds over a real book of payments, a database in a file and a provider that is a function."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx
from sqlalchemy import Connection, create_engine, insert, select
from sqlalchemy.pool import StaticPool

from outbox.message import Outcome
from outbox.queue import Queue, Settled
from service.callbacks.process import Processor, Report
from service.ids import Ids
from service.merchants.accounts import Entry, Registry
from service.merchants.audit import By
from service.merchants.tables import accounts, events, merchants
from service.payments.client import Client
from service.payments.facts import Fact, Kind, Told
from service.payments.heard import Account, ours
from service.payments.refund_send import POLICY, Refunder
from service.payments.refunds import Duplicates, Refunds
from service.payments.tables import attention, refunds
from service.providers import CALLS
from service.schema import metadata, outbox_tables
from tests.support.clock import Clock
from tests.support.database import Database

KEYS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "stripe": {"secret_key": ("sk_test_of_the_tests",)},
    "paystack": {"secret_keys": ("sk_test_of_the_tests",)},
    "fedapay": {"secret_key": ("sk_sandbox_of_the_tests",)},
}
CURRENCY = "XOF"
Provider = Callable[[httpx.Request], httpx.Response]


@dataclass
class Desk:
    """One merchant with three providers. `provider` answers what is sent; `sent` is what was."""

    db: Database
    queue: Queue
    clock: Clock
    ids: Ids
    processor: Processor
    refunds: Refunds
    provider: Provider = lambda _: httpx.Response(500)
    sent: list[httpx.Request] = field(default_factory=list)
    refunder: Refunder = field(init=False)
    reports: list[Report] = field(default_factory=list)

    def __post_init__(self) -> None:
        entries = [Entry(f"acc_{name}", name, "mer_1", False, "https://there", keys) for name, keys in KEYS.items()]
        registry = Registry(entries)

        def answer(request: httpx.Request) -> httpx.Response:
            self.sent.append(request)
            said = self.provider(request)
            # As from a socket: the client reads it as it comes.
            return httpx.Response(said.status_code, headers=said.headers, stream=httpx.ByteStream(said.content))

        client = Client(transport=httpx.MockTransport(answer))
        args = (self.db, self.queue, self, client, lambda: registry, CALLS, self.ids, self.clock)
        self.refunder = Refunder(*args)  # type: ignore[arg-type]

    # --- what a Syncer is

    def book(self, tx: Connection, now_ms: int) -> Any:
        """The book of payments."""
        return self.processor.book(tx, now_ms)

    def close(self, tx: Connection, book: Any, now_ms: int) -> Report:
        """Written."""
        return self.processor.close(tx, book, now_ms)

    async def keep(self, work: Any, *arguments: Any) -> Any:
        """As the syncer does, with a writer that always has room."""
        return await self.db.write(work, *arguments)

    def reported(self, report: Report) -> None:
        """Kept."""
        self.reports.append(report)

    # --- what a test does

    def nudge(self) -> None:
        """Nobody listens."""

    @property
    def by(self) -> By:
        """A person's hand, now."""
        return By("cli", self.clock(), self.ids)

    def tell(self, provider: str, told: Told) -> str:
        """A strongly signed callback; the payment's id."""
        with self.db.engine.begin() as tx:
            book = self.book(tx, self.clock())
            heard = book.hear(Account(f"acc_{provider}", provider, "mer_1", False), told, None)
            self.close(tx, book, self.clock())
        return str(heard.payment_id)

    def paid(self, amount: int = 500, provider: str = "stripe", name: str = "pi_1") -> str:
        """A payment that somebody has paid; its id."""
        fact = Fact(Kind.CAPTURED, name, self.clock(), amount, amount, CURRENCY)
        return self.tell(provider, Told((name,), (fact,)))

    def back(self, kind: Kind, movement: str, amount: int | None = 100, name: str = "pi_1", to: str = "stripe") -> None:
        """The provider speaks of a refund."""
        self.tell(to, Told((name,), (Fact(kind, movement, 0, amount, None, CURRENCY),)))

    def want(self, payment: str, amount: int | None = 100, reason: str = "") -> dict[str, Any]:
        """A merchant wants money to go back."""
        with self.db.engine.begin() as tx:
            return self.refunds.create(tx, payment, amount, reason, self.by)

    async def run(self) -> list[tuple[Outcome, Settled]]:
        """What is due of the topic, each message once."""
        rng = Random(1)
        claimed = await self.db.write(self.queue.claim, POLICY, self.clock(), rng)
        done = []
        for message in claimed.messages:
            outcome = await self.refunder.act(message, None)
            settled = await self.db.write(self.queue.settle, [(message, outcome)], POLICY, self.clock(), rng)
            done.append((outcome, settled[0]))
        return done

    def rows(self, table: Any = refunds, *where: Any) -> list[Any]:
        """Rows of a table."""
        with self.db.engine.connect() as tx:
            return list(tx.execute(select(table).where(*where)).all())

    def states(self) -> list[str]:
        """Of all refunds, the oldest first."""
        return [row.state for row in sorted(self.rows(), key=lambda row: row.id)]

    def open_matters(self) -> list[tuple[str, str]]:
        """(reason, subject) of what is before a person."""
        found = self.rows(attention, attention.c.closed_at_ms.is_(None))
        return sorted((row.reason, row.subject) for row in found)

    def told(self) -> list[str]:
        """The types of all events about refunds, in order."""
        return [row.type for row in self.rows(events, events.c.type.startswith("refund."))]


@functools.cache
def template() -> bytes:
    """The real schema with one merchant and its accounts, made once and copied for every test."""
    made = create_engine("sqlite://", poolclass=StaticPool)
    metadata.create_all(made)
    with made.begin() as tx:
        tx.execute(insert(merchants), {"id": "mer_1", "name": "Awa", "status": "active", "created_at_ms": 1})
        rows = [
            {"id": f"acc_{name}", "provider": name, "merchant_id": "mer_1", "live": False, "origin": "settings",
             "created_at_ms": 1}
            for name in KEYS
        ]  # fmt: skip
        tx.execute(insert(accounts), rows)
    with made.connect() as connection:
        copied: bytes = connection.connection.driver_connection.serialize()  # type: ignore[union-attr]
    made.dispose()
    return copied


def open_desk(directory: Path, duplicates: Duplicates = "ask") -> Desk:
    """A desk with an empty book; close its `db` when done."""
    path = directory / "refunds.db"
    path.write_bytes(template())
    clock = Clock()
    numbers = iter(range(10**9))
    ids = Ids(clock, lambda: next(numbers))
    queue = Queue(outbox_tables)
    made = Refunds(queue, CALLS, duplicates)
    processor = Processor(queue, ids, clock, ours("here"), [made.follow])
    return Desk(Database(path), queue, clock, ids, processor, made)
