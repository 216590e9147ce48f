"""
T2: what a kept callback means, applied to the payments it speaks of, in one transaction with its message's settling.

A batch of callbacks is translated by its providers' files, heard by the book of payments, and written back. What
cannot be understood is parked, what comes too early waits, and both are answers, not failures: only a real fault
(a bug, a full disk) makes the message try again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, delete, insert, select, text, update

from outbox.message import Message, Promise
from outbox.prepared import Lookup, Prepared
from outbox.queue import Queue
from service.attention import open_attention
from service.callbacks.tables import callbacks, waits
from service.callbacks.take import message_id
from service.ids import Clock, Ids
from service.merchants.events import News, rfc3339, tell, wanted_on_request
from service.merchants.tables import accounts
from service.payments.book import Book
from service.payments.facts import Told
from service.payments.heard import Account, Follower, Heard, Lacks, Moved, Waits, names_of
from service.providers import PROVIDERS
from service.providers.base import AboutPayout, Ask, Ignored, Incoming, Meaning, Parked, Provider, Unmapped
from service.providers.meaning import as_hint

ASK = "ask"
DEFERRED = "deferred"
DEFERRED_FOR_MS = 72 * 3_600_000
"""How long a callback may wait for what it speaks of; then a person is asked to look."""

UNKNOWN_TYPE = "unknown_type"
TEST_ON_LIVE = "test_callback_on_live_account"
NOT_PLACED = "answer_not_placed"
IDS_A_STATEMENT = 500
NO_MERCHANT = ""
"""What a callback waits for when its account belongs to nobody yet."""


WakePayout = Callable[[Connection, str, Sequence[str], int], bool]
"""`wake(tx, account_id, references, now_ms)`: ask about the payout that goes by one of these; False: there is none."""


@dataclass(slots=True)
class Report:
    """What one transaction did, for metrics and logs after its commit."""

    finished: list[tuple[str, str, str, str, str]] = field(default_factory=list)  # id, provider, kind, status, reason
    moved: list[Moved] = field(default_factory=list)
    illegal: list[tuple[str, str]] = field(default_factory=list)  # callback id, state+fact
    attention: list[str] = field(default_factory=list)  # reasons, beside those that a payment's move carries


_CALLBACKS = Lookup(select(callbacks).where(callbacks.c.id.in_(bindparam("wanted", expanding=True))))
_ANYBODY_WAITS = Prepared(text(f"SELECT 1 FROM {waits.name} LIMIT 1"))  # noqa: S608 - a name of ours
_ACCOUNTS = Lookup(
    select(accounts.c.id, accounts.c.provider, accounts.c.merchant_id, accounts.c.live).where(
        accounts.c.id.in_(bindparam("wanted", expanding=True))
    )
)
_FINISH = Prepared(
    update(callbacks)
    .where(callbacks.c.id == bindparam("id_"))
    .values({n: bindparam(n) for n in ("status", "reason", "finished_at_ms", "deferred_until_ms", "payment_id")})
)


class Processor:
    """
    Works on batches of kept callbacks. Holds what never changes; every call is one transaction.

    `ours` is how this installation's own references at providers begin. `ask_first`: providers whose word about money
    that came in is a hint, though it is signed.
    """

    def __init__(
        self,
        queue: Queue,
        ids: Ids,
        clock: Clock,
        ours: str,
        followers: Sequence[Follower] = (),
        providers: Mapping[str, Provider] = PROVIDERS,
        ask_first: frozenset[str] = frozenset(),
        wake_payout: WakePayout = lambda *_: False,
    ) -> None:
        self._queue, self._ids, self._clock, self._ours = queue, ids, clock, ours
        self._followers, self._providers, self._ask_first = followers, providers, ask_first
        self._wake_payout = wake_payout

    def book(self, tx: Connection, now_ms: int) -> Book:
        """The book of payments for this transaction: the one way in which anything changes a payment."""
        return Book(tx, self._queue, self._ids, now_ms, self._ours, self._followers)

    def close(self, tx: Connection, book: Book, now_ms: int) -> Report:
        """Write what the book took in; whatever waited for a payment that is known now is worked on."""
        book.flush()
        revive(tx, self._queue, book.known, now_ms)
        return Report(moved=book.moved)

    def process(self, tx: Connection, callback_ids: Sequence[str]) -> Report:
        """Work on these callbacks, each at most once: one that is not `received` any more is left alone."""
        now_ms = self._clock()
        rows = {row["id"]: row for row in _CALLBACKS(tx, callback_ids)}
        todo = [rows[id_] for id_ in callback_ids if id_ in rows and rows[id_]["status"] == "received"]
        if not todo:
            return Report()
        owners = _owners(tx, [row["account_id"] for row in todo])
        meanings = [self._translate(row) for row in todo]
        book = self.book(tx, now_ms)
        book.load(name for meaning in meanings for name in _names(meaning, self._ours))
        report = Report()
        finishes: list[dict[str, Any]] = []
        promises: list[Promise] = []
        for row, meaning in zip(todo, meanings, strict=True):
            done = self._work_on(tx, book, row, meaning, owners[row["account_id"]], promises, report, now_ms)
            finishes.append(done)
            report.finished.append((row["id"], row["provider"], row["kind"], done["status"], done["reason"] or ""))
        book.flush()
        if promises:
            self._queue.enqueue(tx, promises, now_ms)
        _FINISH(tx, finishes)
        revive(tx, self._queue, book.known, now_ms)
        self._pass_on(tx, todo, finishes, owners, now_ms)
        report.moved = book.moved
        return report

    def hear_answer(self, tx: Connection, account_id: str, told: Told, callback_id: str) -> Report:
        """The provider's answer to our question, heard exactly like a callback."""
        now_ms = self._clock()
        account = _owners(tx, [account_id])[account_id]
        report = Report()
        book = self.book(tx, now_ms)
        heard = book.hear(account, told, callback_id)
        book.flush()
        match heard:
            case Heard(payment_id, illegal):
                report.illegal += [(callback_id, pair) for pair in illegal]
                tx.execute(update(callbacks).where(callbacks.c.id == callback_id).values(payment_id=payment_id))
            case Waits(references):
                # Evidence about a payment that is not known yet: the callback waits for it, and then asks again.
                (row,) = _CALLBACKS(tx, [callback_id])
                promises: list[Promise] = []
                _FINISH(tx, [self._defer(tx, row, references, promises, now_ms)])
                self._queue.enqueue(tx, promises, now_ms)
            case Lacks(reason):
                _FINISH(tx, [_finish(callback_id, "parked", now_ms, reason)])
                open_attention(tx, self._ids, callback_id, NOT_PLACED, reason, now_ms)
                report.attention.append(NOT_PLACED)
        revive(tx, self._queue, book.known, now_ms)
        report.moved = book.moved
        return report

    def _translate(self, row: Mapping[str, Any]) -> Meaning:
        said = self._providers[row["provider"]].translate(_incoming(row), row["received_at_ms"])
        return as_hint(said) if isinstance(said, Told) and row["provider"] in self._ask_first else said

    def _work_on(
        self,
        tx: Connection,
        book: Book,
        row: Mapping[str, Any],
        meaning: Meaning,
        account: Account,
        promises: list[Promise],
        report: Report,
        now_ms: int,
    ) -> dict[str, Any]:
        id_ = row["id"]
        if account.live and _is_test(row):
            # Said here, and not only at the door: running it again must not make money of it either.
            return _finish(id_, "parked", now_ms, TEST_ON_LIVE)
        told: Told | None = None
        match meaning:
            case Ignored(reason):
                return _finish(id_, "ignored", now_ms, reason)
            case Unmapped(_):
                return _finish(id_, "ignored", now_ms, UNKNOWN_TYPE)
            case Parked(reason):
                return _finish(id_, "parked", now_ms, reason)
            case AboutPayout(references, reason):
                known = self._wake_payout(tx, row["account_id"], references, now_ms)
                return _finish(id_, "processed" if known else "ignored", now_ms, None if known else reason)
            case Told() | Ask():
                told = meaning.told if isinstance(meaning, Ask) else meaning
        if account.merchant_id == NO_MERCHANT:
            return self._defer(tx, row, (NO_MERCHANT,), promises, now_ms)
        payment_id: str | None = None
        if told is not None:
            heard = book.hear(account, told, id_)
            match heard:
                case Waits(references):
                    return self._defer(tx, row, references, promises, now_ms)
                case Lacks(reason) if isinstance(meaning, Told):
                    return _finish(id_, "parked", now_ms, reason)
                case Lacks():
                    pass
                case Heard(payment_id, illegal):
                    report.illegal += [(id_, pair) for pair in illegal]
        if isinstance(meaning, Ask):
            question = msgspec.json.encode({"reference": meaning.reference, "names": meaning.names}).decode()
            promise = f"{ASK}:{row['account_id']}:{meaning.reference}:{id_}:{row['runs']}"
            promises.append(Promise(promise, ASK, row["account_id"], id_, question))
        return _finish(id_, "processed", now_ms, payment_id=payment_id)

    def _defer(
        self, tx: Connection, row: Mapping[str, Any], references: Sequence[str], promises: list[Promise], now_ms: int
    ) -> dict[str, Any]:
        id_, until_ms = row["id"], row["received_at_ms"] + DEFERRED_FOR_MS
        tx.execute(
            insert(waits).prefix_with("OR IGNORE", dialect="sqlite"),
            [{"account_id": row["account_id"], "reference": name, "callback_id": id_} for name in references],
        )
        promises.append(Promise(f"{DEFERRED}:{id_}", DEFERRED, "", id_, due_at_ms=until_ms))
        reason = "no_merchant" if NO_MERCHANT in references else "not_known_yet"
        return _finish(id_, "deferred", now_ms, reason, deferred_until_ms=until_ms)

    def _pass_on(
        self,
        tx: Connection,
        todo: Sequence[Mapping[str, Any]],
        finishes: Sequence[Mapping[str, Any]],
        owners: Mapping[str, Account],
        now_ms: int,
    ) -> None:
        """`provider.event` for the merchants that asked for it; told once, when the callback comes to rest."""
        merchants = {owner.merchant_id for owner in owners.values()} - {NO_MERCHANT}
        wanted = wanted_on_request(tx, merchants, "provider.event")
        if not wanted:
            return
        news = [
            News(
                owners[row["account_id"]].merchant_id,
                "provider.event",
                row["runs"],
                {"callback": passed_on(row, done)},
                payment_id=done["payment_id"],
                callback_id=row["id"],
                live=owners[row["account_id"]].live,
            )
            for row, done in zip(todo, finishes, strict=True)
            if done["status"] != "deferred" and owners[row["account_id"]].merchant_id in wanted
        ]
        tell(tx, self._queue, news, self._ids, now_ms)

    def overdue(self, tx: Connection, messages: Sequence[Message]) -> Report:
        """The 72 hours are over: whoever is still deferred is put before a person."""
        now_ms = self._clock()
        still = tx.execute(
            select(callbacks.c.id, callbacks.c.reason).where(
                callbacks.c.id.in_([message.subject for message in messages]), callbacks.c.status == "deferred"
            )
        )
        report = Report()
        for row in still.all():
            open_attention(tx, self._ids, row.id, "deferred_too_long", row.reason or "", now_ms)
            report.attention.append("deferred_too_long")
        return report

    def died(self, tx: Connection, messages: Sequence[Message]) -> None:
        """Their retries are spent: visible as dead, to be run again by a person."""
        now_ms = self._clock()
        for message in messages:
            tx.execute(
                update(callbacks)
                .where(callbacks.c.id == message.subject, callbacks.c.status == "received")
                .values(status="dead", reason="retries_spent", finished_at_ms=now_ms)
            )
            open_attention(tx, self._ids, message.subject, "callback_dead", message.topic, now_ms)


def _owners(tx: Connection, account_ids: Iterable[str]) -> dict[str, Account]:
    rows = _ACCOUNTS(tx, sorted(set(account_ids)))
    return {
        row["id"]: Account(row["id"], row["provider"], row["merchant_id"] or NO_MERCHANT, bool(row["live"]))
        for row in rows
    }


def _is_test(row: Mapping[str, Any]) -> bool:
    return PROVIDERS[row["provider"]].identify(_incoming(row)).live is False


def _incoming(row: Mapping[str, Any]) -> Incoming:
    return Incoming(row["method"], (), row["query"], row["body"])


def _names(meaning: Meaning, ours: str) -> tuple[str, ...]:
    match meaning:
        case Told():
            return names_of(meaning, ours)
        case Ask(_, told) if told is not None:
            return names_of(told, ours)
        case _:
            return ()


def _finish(
    id_: str,
    status: str,
    now_ms: int,
    reason: str | None = None,
    *,
    deferred_until_ms: int | None = None,
    payment_id: str | None = None,
) -> dict[str, Any]:
    return {
        "id_": id_,
        "status": status,
        "reason": reason[:200] if reason else None,
        "finished_at_ms": now_ms,
        "deferred_until_ms": deferred_until_ms,
        "payment_id": payment_id,
    }


def passed_on(row: Mapping[str, Any], done: Mapping[str, Any]) -> dict[str, Any]:
    """A callback as `provider.event` carries it; the body as text, because a receiver may want to parse it strictly."""
    return {
        "id": row["id"],
        "provider": row["provider"],
        "account": row["account_id"],
        "type": row["kind"],
        "status": done["status"],
        "received_at": rfc3339(row["received_at_ms"]),
        "body": (row["body"] or row["query"]).decode("utf-8", "replace"),
    }


def revive(tx: Connection, queue: Queue, known: Sequence[tuple[str, str]], now_ms: int) -> int:
    """
    Bring back the callbacks that waited for any of these (account, reference) pairs, in this very transaction.

    Called by whatever creates the missing object: a payment, later our own attempt, or the first merchant.
    """
    if not known or not _ANYBODY_WAITS.rows(tx, {}):
        return 0
    pairs = set(known)
    found = tx.execute(select(waits).where(waits.c.reference.in_(sorted({name for _, name in pairs})))).all()
    ids = sorted({row.callback_id for row in found if (row.account_id, row.reference) in pairs})
    if not ids:
        return 0
    revived = 0
    for start in range(0, len(ids), IDS_A_STATEMENT):
        some = ids[start : start + IDS_A_STATEMENT]
        tx.execute(delete(waits).where(waits.c.callback_id.in_(some)))
        rows = tx.execute(
            update(callbacks)
            .where(callbacks.c.id.in_(some), callbacks.c.status == "deferred")
            .values(
                status="received",
                reason=None,
                finished_at_ms=None,
                deferred_until_ms=None,
                runs=callbacks.c.runs + 1,
            )
            .returning(callbacks.c.id, callbacks.c.account_id, callbacks.c.provider, callbacks.c.runs)
        ).all()
        work = [Promise(message_id(r.id, r.runs), PROVIDERS[r.provider].queue, "", r.id) for r in rows]
        queue.enqueue(tx, work, now_ms)
        revived += len(rows)
    return revived
