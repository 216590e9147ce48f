"""
The one sync: what a provider says of an attempt of ours, asked by the sweep (an act of the outbox, one message for each
attempt), by a session's verify, by a person, or before an expiry. All of it ends in `_heard`, and that in the book.

Nothing is concluded from silence or from age. That a provider knows no such reference counts after `GRACE_MS` only: it
may not have written down yet what it is still working on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar, assert_never

import structlog
from sqlalchemy import Connection, or_, select, update

from outbox.message import Done, Message, Outcome, Retry, Trial
from outbox.policy import Policy
from outbox.queue import Queue
from service.attention import open_attention
from service.callbacks.process import Processor, Report
from service.database import Busy, Database, StorageFull
from service.ids import Clock, Ids
from service.merchants.accounts import Entry, Registry
from service.payments.asking import AGAIN, SYNC, watch
from service.payments.book import Book
from service.payments.client import LIMIT_MS, Client
from service.payments.facts import Told
from service.payments.outcome import Asked, asked, given_of
from service.payments.states import LIVE, State, Step, rank
from service.payments.tables import attempts
from service.providers.base import Answer, NotFinal, NotKnown, Unclear
from service.providers.calls import Calls, Lost, NotCanceled, broken_ask, broken_cancel

log: Any = structlog.get_logger()

SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000
POLICY = Policy(
    SYNC,
    # 30 s after it was sent, then at 2 and 10 minutes, an hour, six, and daily for a month.
    (90 * SECOND, 8 * MINUTE, 50 * MINUTE, 5 * HOUR, *[24 * HOUR] * 30),
    lease_ms=40 * SECOND,
    limit_ms=2 * LIMIT_MS + 2 * SECOND,
    in_flight=64,
    per_destination=8,
)
GRACE_MS = 10 * MINUTE
REOPENS_FOR_MS = 25 * HOUR
"""How long what has ended without money is asked about where that need not be the end: nothing is paid after a day."""
NOW_AT_MOST_EVERY_MS = 10 * SECOND
_FINAL = rank("failed") or 0
KEEP_S: Final = 20.0

T = TypeVar("T")


class Syncer:
    """
    Asks and writes down. `book` and `close` are how anything about payments of our own is changed; `reported` is told
    what came of it, after the commit.
    """

    def __init__(
        self,
        db: Database,
        queue: Queue,
        processor: Processor,
        client: Client,
        registry: Callable[[], Registry],
        calls: Mapping[str, Calls],
        ids: Ids,
        clock: Clock,
        told: Callable[[Report], None],
        kept: Callable[[str, str, Report], None],
        counted: Callable[[str, str], None],
    ) -> None:
        self._db, self.queue, self._processor, self._client = db, queue, processor, client
        self._registry, self._calls, self._ids, self._clock = registry, calls, ids, clock
        self.reported, self._kept, self._counted = told, kept, counted

    def book(self, tx: Connection, now_ms: int) -> Book:
        """The book of payments for this transaction."""
        return self._processor.book(tx, now_ms)

    def close(self, tx: Connection, book: Book, now_ms: int) -> Report:
        """Write it, once, at the end."""
        return self._processor.close(tx, book, now_ms)

    async def keep(self, work: Callable[..., T], *arguments: Any) -> T:
        """
        Write down what has happened in the world already. A writer that has no room for it now kept nothing, so it is
        offered again for a while: the payer's instruction is in no other place.
        """
        until = time.monotonic() + KEEP_S
        while True:
            try:
                return await self._db.write(work, *arguments)
            except (Busy, StorageFull):
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.2)

    def fault(self, what: str, error: BaseException) -> None:
        """One of ours, which must not look like the provider's."""
        log.error("payments.fault", what=what, exc_info=error)

    # --- the sweep

    def load(self, tx: Connection, messages: Sequence[Message]) -> Mapping[str, Asked]:
        """The attempts that these messages are about."""
        wanted = [message.subject for message in messages]
        rows = tx.execute(select(attempts).where(attempts.c.id.in_(wanted))).mappings()
        found = {row["id"]: asked(tx, dict(row)) for row in rows}
        return {message.id: found[message.subject] for message in messages if message.subject in found}

    async def act(self, message: Message, attempt: Any) -> Outcome:
        """Ask once. An attempt that is over for good needs no more of it; one that was merged away is another's."""
        again = message.payload == AGAIN
        if attempt is None or not (again or attempt["state"] in LIVE or self._may_reopen(attempt, attempt["state"])):
            return Done()
        entry = self._registry().get(attempt["account_id"])
        if entry is None:
            return Retry("account_gone")
        answer = await self._ask(entry, attempt)
        if attempt["state"] == State.CANCELING and not _is_final(answer):
            await self.cancel(attempt)
        word = answer.reason if isinstance(answer, Unclear) else type(answer).__name__.lower()

        def then(tx: Connection) -> None:
            self._kept(SYNC, message.id, self._heard(tx, attempt, answer))

        ended = _is_final(answer) and not self._may_reopen(attempt, _end(answer))
        if ended or (again and not isinstance(answer, Unclear)):
            return Done(Trial(None, None, b"", 0), then=then)
        return Retry(word, trial=Trial(None, word, b"", 0), then=then)

    def _may_reopen(self, attempt: Asked, ended_as: str) -> bool:
        young = self._clock() - attempt["created_at_ms"] < REOPENS_FOR_MS
        return young and ended_as in (State.FAILED, State.CANCELED) and self._calls[attempt["provider"]].reopens

    def died(self, tx: Connection, messages: Sequence[Message]) -> None:
        """A month without an end: a person has to look. The payment stays what it is."""
        for message in messages:
            payment_id = tx.execute(select(attempts.c.payment_id).where(attempts.c.id == message.subject)).scalar()
            open_attention(
                tx, self._ids, payment_id or message.subject, "never_answered", message.destination, self._clock()
            )

    # --- now

    async def now(self, payment_id: str, limit_ms: int | None = None) -> bool:
        """Ask about every live attempt, unless that was done less than 10 s ago."""
        some = await self._db.write(self._take_turn, payment_id)
        await asyncio.gather(*(self._now(attempt, limit_ms) for attempt in some))
        return bool(some)

    def _take_turn(self, tx: Connection, payment_id: str) -> list[Asked]:
        now_ms = self._clock()
        due = or_(attempts.c.asked_at_ms.is_(None), attempts.c.asked_at_ms <= now_ms - NOW_AT_MOST_EVERY_MS)
        mine = update(attempts).where(
            attempts.c.payment_id == payment_id,
            attempts.c.state.in_(sorted(LIVE - {State.CREATED, State.SUBMITTING})),
            attempts.c.reference.is_not(None),
            due,
        )
        rows = tx.execute(mine.values(asked_at_ms=now_ms).returning(*attempts.c)).mappings().all()
        return [asked(tx, dict(row)) for row in rows]

    async def _now(self, attempt: Asked, limit_ms: int | None) -> None:
        entry = self._registry().get(attempt["account_id"])
        if entry is not None:
            answer = await self._ask(entry, attempt, limit_ms)
            self.reported(await self._db.write(self._heard, attempt, answer))

    async def _ask(self, entry: Entry, attempt: Asked, limit_ms: int | None = None) -> Answer:
        """By the provider's name if we know one, else by our reference."""
        calls = self._calls[entry.provider]
        ask = calls.fetch if attempt["names"] else calls.find
        if ask is None:
            answer: Answer = Unclear("cannot_be_asked")
        else:
            talk = ask(given_of(attempt, entry.live), entry.live, entry.credentials)
            try:
                answer = await self._client.run(entry.provider, entry.base_url, talk, broken_ask, limit_ms)
            except Exception as error:  # noqa: BLE001 - a fault of ours; nothing was learnt
                self.fault("ask", error)
                answer = Unclear("fault")
        self._counted(entry.provider, "unclear" if isinstance(answer, Unclear) else _word(answer))
        return answer

    def _heard(self, tx: Connection, before: Asked, answer: Answer) -> Report:
        """
        The end of every question about an attempt of ours. `before`: as it was when it was asked.
        """
        now_ms = self._clock()
        book = self.book(tx, now_ms)
        attempt = book.attempt(before["payment_id"], before["id"])
        if attempt.row["state"] == State.SUBMITTING:
            # Whoever was sending it is dead: a call has an end, and this comes after it.
            book.step(attempt, Step.LOST, reason="worker_died")
        match answer:
            case Told() as told:
                book.answered(attempt, told)
            case NotFinal(told):
                if told is not None:
                    book.answered(attempt, told)
                elif attempt.row["state"] == State.UNKNOWN:
                    book.found(attempt, Step.FOUND_PENDING, State.PENDING)
            case NotKnown():
                # Not of one that the provider has spoken of before: then it is this answer that is odd.
                open_ = attempt.row["state"] in (State.UNKNOWN, State.CANCELING) and not attempt.facts
                if open_ and now_ms - before["created_at_ms"] >= GRACE_MS:
                    book.step(attempt, Step.NOT_KNOWN, reason="provider knows no such reference")
            case Unclear():
                pass
            case _:
                assert_never(answer)
        payment_id = attempt.row["payment_id"]
        report = self.close(tx, book, now_ms)
        tx.execute(update(attempts).where(attempts.c.id == before["id"]).values(asked_at_ms=now_ms))
        self._put_before_a_person(tx, payment_id, attempt.row, answer, now_ms)
        return report

    def _put_before_a_person(
        self, tx: Connection, payment_id: str, row: Mapping[str, Any], answer: Answer, now_ms: int
    ) -> None:
        """An unknown outcome that asking does not end."""
        if row["state"] not in (State.UNKNOWN, State.CANCELING):
            return
        old = now_ms - row["created_at_ms"] >= GRACE_MS
        if answer == Unclear("cannot_be_asked"):
            open_attention(tx, self._ids, payment_id, "cannot_be_asked", row["provider"], now_ms)
        elif old and (row["state"] == State.UNKNOWN or isinstance(answer, Unclear)):
            open_attention(tx, self._ids, payment_id, "still_unknown", row["provider"], now_ms)

    # --- cancelling

    async def cancel(self, attempt: Asked) -> None:
        """Ask the provider to cancel what is wanted cancelled; what it says is written, silence changes nothing."""
        entry = self._registry().get(attempt["account_id"])
        cancel = self._calls[entry.provider].cancel if entry is not None else None
        if entry is None or cancel is None:
            return
        talk = cancel(given_of(attempt, entry.live), entry.credentials)
        try:
            result = await self._client.run(entry.provider, entry.base_url, talk, broken_cancel)
        except Exception as error:  # noqa: BLE001 - a fault of ours; nothing was learnt
            self.fault("cancel", error)
            result = Lost("fault")

        def work(tx: Connection) -> Report:
            now_ms = self._clock()
            book = self.book(tx, now_ms)
            now = book.attempt(attempt["payment_id"], attempt["id"])
            match result:
                case Told() | NotCanceled(Told()):
                    told = result if isinstance(result, Told) else result.told
                    assert told is not None
                    book.answered(now, told)
                case NotCanceled() | Lost():
                    if now.row["state"] == State.CANCELING:
                        book.step(now, Step.CANCEL_UNCLEAR)
                        self.queue.enqueue(tx, [watch(now.row["id"], now.row["account_id"], now_ms)], now_ms)
            return self.close(tx, book, now_ms)

        self.reported(await self.keep(work))


def _is_final(answer: Answer) -> bool:
    """Whether it says how the attempt has ended."""
    told = answer.told if isinstance(answer, NotFinal) else answer
    return isinstance(told, Told) and any((rank(fact.kind) or 0) >= _FINAL for fact in told.facts)


def _end(answer: Answer) -> str:
    """The strongest that it says: money outranks every other end."""
    told = answer.told if isinstance(answer, NotFinal) else answer
    kinds = [fact.kind for fact in told.facts] if isinstance(told, Told) else []
    return max(kinds, key=lambda kind: rank(kind) or 0, default="")


def _word(answer: Answer) -> str:
    return {Told: "told", NotFinal: "not_final", NotKnown: "not_known"}.get(type(answer), "unclear")
