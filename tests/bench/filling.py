"""
Databases that are not empty: a hundred thousand rows by the service's own functions, millions by plain SQL.

The tables, and every index, are those that the service's migrations made; the file is set up before it is filled.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from outbox.queue import Queue
from service.callbacks.take import Arrival, message_id, take
from service.escrow.terms import Terms, set_terms
from service.ids import Ids, now_ms
from service.ledger.ledger import Kind
from service.merchants.audit import By
from service.merchants.events import News, tell
from service.providers import PROVIDERS
from service.schema import outbox_tables
from tests.bench import stories
from tests.bench.bar import Bar
from tests.bench.caisse import Shop
from tests.bench.callbacks import body_of, event_id, scattered
from tests.support.database import open_engine

FIRST = 500_000_000_000
"""The number of the first stored callback: far above those that a run sends."""
TOGETHER = 1_000
MILLIONS_TOGETHER = 50_000
STORIES_TOGETHER = 10_000
STRIDE = 7_919
"""A prime: neighbours are other beneficiaries', and all have their turn."""
ACCOUNT = "acc_stripe"  # the one that the settings make


def _in_steps(count: int, together: int) -> Iterator[range]:
    return (range(begin, min(begin + together, count)) for begin in range(0, count, together))


def _through_core(path: Path, count: int, title: str, bar: Bar, work: Callable[[Any, range], object]) -> None:
    engine = open_engine(path)
    try:
        for numbers in _in_steps(count, TOGETHER):
            with engine.begin() as tx:
                work(tx, numbers)
            bar.filled(title, numbers.stop, count)
    finally:
        engine.dispose()


def waiting_callbacks(path: Path, count: int, bar: Bar) -> None:
    """`count` callbacks that were taken and not worked on."""
    queue, ids, stripe = Queue(outbox_tables), Ids(now_ms), PROVIDERS["stripe"]

    def work(tx: Any, numbers: range) -> None:
        at_ms = now_ms()
        arrivals = []
        for index in numbers:
            number = scattered(FIRST + index)
            body = body_of(number)
            digest = hashlib.sha256(body).digest()
            arrivals.append(
                Arrival(
                    *(ids("cb"), ACCOUNT, "stripe", stripe.queue, event_id(number), "payment_intent.succeeded"),
                    *("POST", b"", body, digest, at_ms),
                )
            )
        take(tx, queue, arrivals)

    _through_core(path, count, "callbacks that wait", bar, work)


def owed_webhooks(path: Path, shops: list[Shop], count: int, bar: Bar) -> None:
    """`count` events that were told to these merchants, one after the other, and not brought yet."""
    queue, ids = Queue(outbox_tables), Ids(now_ms)

    def work(tx: Any, numbers: range) -> None:
        news = [
            News(
                shops[index % len(shops)].merchant,
                "payment.succeeded",
                1,
                {"payment": {"provider_reference": f"pi_owed_{index:012d}", "amount_minor": 5000, "currency": "XOF"}},
            )
            for index in numbers
        ]
        tell(tx, queue, news, ids, now_ms())

    _through_core(path, count, "webhooks that are owed", bar, work)


def stored_callbacks(path: Path, count: int, bar: Bar) -> None:
    """`count` callbacks that were worked on long ago, each with its ended message."""
    callbacks = _insert(
        "callbacks",
        *("id", "account_id", "key", "provider", "kind", "status", "method", "query", "body", "body_sha256"),
        *("received_at_ms", "last_seen_at_ms", "finished_at_ms", "payment_id"),
    )
    messages = _insert("outbox_messages", *_MESSAGE)
    at_ms = now_ms() - 86_400_000
    queue = PROVIDERS["stripe"].queue
    with _quickly(path) as connection:
        for numbers in _in_steps(count, MILLIONS_TOGETHER):
            rows, done = [], []
            for index in numbers:
                number = scattered(FIRST + index)
                body, id_ = body_of(number), f"cb_{index:026d}"
                digest, paid = hashlib.sha256(body).digest(), f"pay_{index:026d}"
                rows.append(
                    (
                        *(id_, ACCOUNT, event_id(number), "stripe", "payment_intent.succeeded", "processed", "POST"),
                        *(b"", body, digest, at_ms, at_ms, at_ms, paid),
                    )
                )
                done.append((message_id(id_), queue, "", id_, "", "done", at_ms, at_ms, 1, 1, 1, at_ms))
            connection.executemany(callbacks, rows)
            connection.executemany(messages, done)
            connection.commit()
            bar.filled("callbacks that are stored", numbers.stop, count)


def pending_messages(path: Path, topic: str, count: int, destinations: int, bar: Bar) -> None:
    """`count` messages that are due to so many destinations, one in ten of them tried before."""
    messages = _insert("outbox_messages", *_MESSAGE)
    at_ms = now_ms() - 86_400_000
    with _quickly(path) as connection:
        for numbers in _in_steps(count, MILLIONS_TOGETHER):
            rows = []
            for index in numbers:
                whom, due_at_ms = f"ep_{index % destinations:026d}", at_ms + index // 100
                again = int(index // destinations % 10 == 9)
                id_ = f"{topic}:evt_{index:026d}:{whom}:0"
                subject = f"evt_{index:026d}"
                rows.append((id_, topic, whom, subject, "", "pending", due_at_ms, at_ms, again, again, again, None))
            connection.executemany(messages, rows)
            connection.commit()
            bar.filled("messages that are due", numbers.stop, count)
        connection.execute(
            "INSERT INTO outbox_destinations (topic, destination, next_due_at_ms) "
            "SELECT topic, destination, min(due_at_ms) FROM outbox_messages GROUP BY topic, destination"
        )
        connection.commit()


def terms(path: Path, shops: Sequence[Shop], chosen: Terms) -> None:
    """What these merchants have decided about money that they hold for others."""
    ids = Ids(now_ms)
    engine = open_engine(path)
    try:
        with engine.begin() as tx:
            for shop in shops:
                set_terms(tx, shop.merchant, chosen, By("bench", now_ms(), ids))
    finally:
        engine.dispose()


def told_stories(
    path: Path,
    shops: Sequence[Shop],
    told: Sequence[stories.Story],
    count: int,
    beneficiaries: int,
    ago_ms: tuple[int, int],
    bar: Bar,
) -> None:
    """
    `count` copies of these stories, each as often as its share, begun from `ago_ms[0]` to `ago_ms[1]` ago: of shops in
    turn, and of so many beneficiaries, who are made with their accounts in the ledger.
    """
    deck, begin_ms = stories.deck(told), now_ms() - ago_ms[0]
    every_ms = (ago_ms[0] - ago_ms[1]) / max(1, count)
    with _quickly(path) as connection:
        ledger = _ledger(connection, shops, told, beneficiaries)
        _cast(connection, shops, beneficiaries, begin_ms)
        sums: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0])
        for numbers in _in_steps(count, STORIES_TOGETHER):
            rows: dict[stories.Row, list[list[Any]]] = {row: [] for story in told for row in story.rows}
            for index in numbers:
                story, whose = deck[index % len(deck)], index * STRIDE % beneficiaries
                names = _names(shops, whose) | {str(at): f"{index * 100 + at:026d}" for at in range(story.things)}
                for row in story.rows:
                    values = row.copied(names, begin_ms + int(index * every_ms), ledger[whose])
                    rows[row].append(values)
                    if row.table == "postings":
                        said = dict(zip(row.columns, values, strict=True))
                        sums[said["debit_id"]][0] += said["amount_minor"]
                        sums[said["credit_id"]][1] += said["amount_minor"]
            for table in stories.TABLES:
                for row, copies in rows.items():
                    if row.table == table:
                        connection.executemany(_insert(table, *row.columns), copies)
            connection.commit()
            bar.filled("stories about money", numbers.stop, count)
        connection.executemany(
            "UPDATE ledger_accounts SET debits_minor = ?, credits_minor = ? WHERE id = ?",
            [(*both, id_) for id_, both in sums.items()],
        )
        connection.commit()


def beneficiary_id(whose: int) -> str:
    """The id of the beneficiary with this number; they are the shops' in turn."""
    return f"ben_{whose:026d}"


def account_id(shop: Shop) -> str:
    """The provider account behind the path of its callbacks."""
    return shop.path.rpartition(b"/")[2].decode()


def _names(shops: Sequence[Shop], whose: int) -> dict[str, str]:
    shop, body = shops[whose % len(shops)], f"{whose:026d}"
    return {"merchant": shop.merchant, "account": account_id(shop), "beneficiary": body, "payee": body}


def _cast(connection: sqlite3.Connection, shops: Sequence[Shop], beneficiaries: int, at_ms: int) -> None:
    for row in stories.cast():
        made = [row.copied(_names(shops, whose), at_ms, {}) for whose in range(beneficiaries)]
        connection.executemany(_insert(row.table, *row.columns), made)


def _ledger(
    connection: sqlite3.Connection, shops: Sequence[Shop], told: Sequence[stories.Story], beneficiaries: int
) -> list[dict[str, int]]:
    """The accounts that these stories post to, with nothing in them: their numbers, for each beneficiary by kind."""
    kinds = sorted({kind for story in told for row in story.rows for _, kind in row.ledger})
    known: dict[tuple[str, str], int] = {}
    rows, found = [], []
    for whose in range(beneficiaries):
        shop, mine = shops[whose % len(shops)], {}
        for kind in kinds:
            owner = beneficiary_id(whose) if kind in _BENEFICIARYS else shop.merchant
            owner = account_id(shop) if kind == Kind.FLOAT else owner
            if (kind, owner) not in known:
                known[kind, owner] = len(known) + 1
                rows.append((known[kind, owner], kind, owner, shop.merchant, 0, stories.CURRENCY))
            mine[kind] = known[kind, owner]
        found.append(mine)
    connection.executemany(_insert("ledger_accounts", "id", "kind", "owner", "merchant_id", "live", "currency"), rows)
    return found


_BENEFICIARYS = frozenset({Kind.ESCROW, Kind.BENEFICIARY, Kind.RESERVED})
"""Kinds of accounts that are a beneficiary's in the stories."""

_MESSAGE = (
    *("id", "topic", "destination", "subject", "payload", "state", "due_at_ms", "created_at_ms"),
    *("claim", "settled_claim", "tries", "finished_at_ms"),
)


def _insert(table: str, *columns: str) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


@contextlib.contextmanager
def _quickly(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that is in no way durable, and leaves the file as the service wants to find it."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE", "cache_size=-1000000"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        yield connection
        connection.execute("PRAGMA locking_mode=NORMAL").fetchall()
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
