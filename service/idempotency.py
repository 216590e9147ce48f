"""
`Idempotency-Key`, with Stripe's meaning: a request that is sent again with its key does nothing again, and is answered
with what was answered the first time.

A key's row is written in the very transaction that does the thing, so there is no moment in which one is there without
the other. It is unique by merchant, mode and key, and nothing but its age (24 h) takes it away: the same key with
another body is refused and leaves it as it is. When the storage cannot say whether the key was used, nothing is done.
What was killed between doing and answering is answered from what it made (`subject`). Answers may hold secrets that
are shown once, so they are sealed, bound to their key; one that no master key opens any more counts as not there.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import structlog
from sqlalchemy import Connection, bindparam, delete, select, tuple_, update
from sqlalchemy.dialects.sqlite import insert

from service.database import Database, StorageError
from service.errors import Refusal
from service.ids import Clock
from service.payments.tables import idempotency
from service.seal import Seal, SealError, bound_to

log: Any = structlog.get_logger()

KEY_CHARACTERS_MAX = 255
KEPT_MS = 24 * 3_600_000
PRUNED_AT_ONCE = 500
PRUNE_EVERY_MS = 3_600_000
"""Requests with keys set it off: where none come, nothing grows."""


class Place(NamedTuple):
    """Whose key it is. Test and live keys are apart."""

    merchant_id: str
    live: bool
    key: str

    @property
    def bound(self) -> str:
        """What its answer is bound to."""
        return bound_to("idempotency", f"{self.merchant_id}:{int(self.live)}:{self.key}", "answer")


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and the bytes of a body, which is JSON unless a kind of answer says otherwise."""

    media: ClassVar[str] = "application/json"

    status: int
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Used:
    """A key's row. `answer` None: not answered yet, or not readable any more."""

    fingerprint: str
    subject: str | None
    answer: Answer | None


class Taken(Exception):
    """Another request has used this key meanwhile; its transaction was first."""


_T = idempotency.c
_HERE = (
    (_T.merchant_id == bindparam("of_merchant")) & (_T.live == bindparam("of_live")) & (_T.key == bindparam("of_key"))
)
_FIND = select(_T.fingerprint, _T.subject, _T.status, _T.answer).where(_HERE)
_BEGIN = insert(idempotency).on_conflict_do_nothing()
_ANSWERED = update(idempotency).where(_HERE, _T.status.is_(None))
_UNDONE = delete(idempotency).where(_HERE, _T.status.is_(None))


def checked(key: str) -> str:
    """Raises Refusal: bad_idempotency_key."""
    if not 0 < len(key) <= KEY_CHARACTERS_MAX or not key.isascii() or not key.isprintable():
        raise Refusal(
            "bad_idempotency_key", f"Idempotency-Key: it has 1 to {KEY_CHARACTERS_MAX} printable ASCII characters."
        )
    return key


def fingerprint(method: str, path: str, body: bytes) -> str:
    """What a request is, in 64 characters: two with the same key must have the same."""
    digest = hashlib.sha256(f"{method} {path}\n".encode("utf-8", "surrogateescape"))
    digest.update(body)
    return digest.hexdigest()


def find(tx: Connection, place: Place, seal: Seal) -> Used | None:
    """A query: what is known of a key."""
    row = tx.execute(_FIND, _where(place)).one_or_none()
    if row is None:
        return None
    answer = None
    if row.status is not None:
        try:
            answer = Answer(row.status, seal.open_bytes(row.answer, place.bound))
        except SealError:
            log.warning("idempotency.unreadable")
    return Used(row.fingerprint, row.subject, answer)


def prune(tx: Connection, now_ms: int, limit: int = PRUNED_AT_ONCE) -> int:
    """A work: forget keys that are older than `KEPT_MS`; returns how many, fewer than `limit` when that was all."""
    old = select(_T.merchant_id, _T.live, _T.key).where(_T.begun_at_ms < now_ms - KEPT_MS).limit(limit)
    return tx.execute(delete(idempotency).where(tuple_(_T.merchant_id, _T.live, _T.key).in_(old))).rowcount


class Once:
    """
    One request that is done once. What it does goes through one of these; without a key they add nothing.

    `write`: all of it is one work. `begun`: the caller's own work that makes the subject. `mark`: before something
    that must not be done twice and has no work of its own to join. What is harmless when done twice (cancelling what
    is cancelled) needs none of them: the row is then written with the answer.
    """

    def __init__(self, keys: Keys, place: Place | None, fingerprint: str) -> None:
        self._keys, self._place, self._fingerprint = keys, place, fingerprint
        self.recorded = False
        self.answer: Answer | None = None  # kept in the transaction itself
        self._marked = False

    def begun(self, tx: Connection, subject: str) -> None:
        """In the transaction that records the thing. Raises Taken: then nothing of the transaction is kept."""
        self._insert(tx, subject, None)
        self.recorded = self._place is not None

    async def mark(self, subject: str) -> None:
        """In a transaction of its own, now. A Refusal that comes afterwards takes it away again: nothing was done."""
        if self._place is not None:
            await self._keys.db.write(self._insert, subject, None)
            self.recorded = self._marked = True

    async def write(self, work: Callable[[Connection], Answer], subject: str = "") -> Answer:
        """Do it and keep the answer, in one transaction."""

        def both(tx: Connection) -> Answer:
            answer = work(tx)
            self._insert(tx, subject, answer)
            return answer

        self.answer = await self._keys.db.write(both)
        self.recorded = self._place is not None
        return self.answer

    async def keep(self, answer: Answer) -> None:
        """After the answer is known: write it down, with the row where there is none yet."""
        if self._place is None or self.answer is not None:
            return
        try:
            await self._keys.db.write(self._keep, answer)
        except Taken:
            pass  # the same was done twice, harmlessly, and the first has its answer
        except StorageError as error:
            log.warning("idempotency.not_kept", reason=type(error).__name__)

    async def undo(self) -> None:
        """It was refused after `mark`: the key is free again."""
        if self._marked and self._place is not None:
            where = _where(self._place)
            await self._keys.db.write(lambda tx: tx.execute(_UNDONE, where) and None)

    def _keep(self, tx: Connection, answer: Answer) -> None:
        place = self._place
        assert place is not None
        if not self.recorded:
            self._insert(tx, "", answer)
            return
        sealed = self._keys.seal.seal(answer.body, place.bound)
        tx.execute(_ANSWERED.values(status=answer.status, answer=sealed), _where(place))

    def _insert(self, tx: Connection, subject: str, answer: Answer | None) -> None:
        place = self._place
        if place is None:
            return
        row = {
            "merchant_id": place.merchant_id,
            "live": place.live,
            "key": place.key,
            "fingerprint": self._fingerprint,
            "subject": subject or None,
            "status": answer.status if answer else None,
            "answer": self._keys.seal.seal(answer.body, place.bound) if answer else None,
            "begun_at_ms": self._keys.clock(),
        }
        if not tx.execute(_BEGIN, row).rowcount:
            raise Taken


@dataclass(slots=True)
class _Held:
    """A request with a key, from here on to its answer's commit."""

    fingerprint: str
    answer: Answer | None = None


class Keys:
    """The requests with keys that are under way in this process, and the pruning of old ones. One per application."""

    def __init__(self, db: Database, seal: Seal, clock: Clock) -> None:
        self.db, self.seal, self.clock = db, seal, clock
        self._held: dict[Place, _Held] = {}
        self._keeping: set[asyncio.Task[None]] = set()
        self._prune_at_ms = 0

    async def once(
        self,
        place: Place,
        used: Used | None,
        fingerprint: str,
        does: Callable[[Once], Awaitable[Answer]],
        again: Callable[[str], Awaitable[Answer]] | None = None,
    ) -> tuple[Answer, bool]:
        """
        The answer, and whether it is a replay. `used` is what `find` said a moment ago; `again(subject)` makes the
        answer of something that was done and never answered.

        Raises Refusal: idempotency_key_reused (another request had it), idempotency_in_progress, idempotency_lost.
        """
        if self.clock() >= self._prune_at_ms:
            self._prune_at_ms = self.clock() + PRUNE_EVERY_MS
            self._later(self._prune())
        if held := self._held.get(place):
            _same(held.fingerprint, fingerprint)
            if held.answer is None:
                raise Refusal("idempotency_in_progress", "A request with this Idempotency-Key is being worked on.")
            return held.answer, True
        self._held[place] = held = _Held(fingerprint)
        keeping = False
        try:
            if used is not None and used.answer is None:
                # Its answer may have been written between that look and now; nobody in this process is at it any more.
                used = await self.db.read(find, place, self.seal)
            if used is None:
                once = Once(self, place, fingerprint)
                try:
                    held.answer = await does(once)
                except Taken:
                    used = await self.db.read(find, place, self.seal)
                except Refusal:
                    await once.undo()
                    raise
                else:
                    if once.answer is None:
                        self._keep(place, once, held.answer)
                        keeping = True
                    return held.answer, False
            if used is None:  # pruned in this very moment: it was there for a day
                raise Refusal("idempotency_in_progress", "This Idempotency-Key has just run out.")
            _same(used.fingerprint, fingerprint)
            if used.answer is not None:
                return used.answer, True
            if again is None or used.subject is None:
                raise Refusal(
                    "idempotency_lost",
                    "This may have been done; what was answered is not known. Look, then take a new key.",
                )
            return await again(used.subject), True
        finally:
            if not keeping:
                del self._held[place]

    def _keep(self, place: Place, once: Once, answer: Answer) -> None:
        # The answer goes out meanwhile. Killed before this commit, the subject answers; asked before it, the memory.
        async def keep() -> None:
            try:
                await once.keep(answer)
            finally:
                del self._held[place]

        self._later(keep())

    async def _prune(self) -> None:
        try:
            while await self.db.write(prune, self.clock()) == PRUNED_AT_ONCE:
                pass
        except StorageError as error:
            log.warning("idempotency.not_pruned", reason=type(error).__name__)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="idempotency")
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)

    async def close(self) -> None:
        """Until the answers that went out are written down."""
        if self._keeping:
            await asyncio.wait(self._keeping)


def _same(one: str, other: str) -> None:
    if one != other:
        raise Refusal("idempotency_key_reused", "This Idempotency-Key was used for another request; take a new one.")


def _where(place: Place) -> dict[str, object]:
    return {"of_merchant": place.merchant_id, "of_live": place.live, "of_key": place.key}
