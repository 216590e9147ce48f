"""
Databases that are not empty: a hundred thousand rows by the service's own functions, millions by plain SQL.

The tables, and every index, are those that the service's migrations made; the file is set up before it is filled.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from outbox.queue import Queue
from service.callbacks.take import Arrival, message_id, take
from service.ids import Ids, now_ms
from service.merchants.events import News, tell
from service.providers import PROVIDERS
from service.schema import outbox_tables
from tests.bench.bar import Bar
from tests.bench.caisse import Shop
from tests.bench.callbacks import body_of, event_id, scattered
from tests.support.database import open_engine

FIRST = 500_000_000_000
"""The number of the first stored callback: far above those that a run sends."""
TOGETHER = 1_000
MILLIONS_TOGETHER = 50_000
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
