"""
The topic `refund`: one message carries a refund to its end. It is sent once, and asked about from then on.

What is about to be sent is committed before the call, and what came of it before the message is settled; so whoever
dies in between leaves a refund that is *unknown*, never one that is sent twice. Where the provider takes a key
(`Calls.idempotent`), and for as long as it remembers it, the same request under the same key is the question.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar, assert_never

import structlog
from sqlalchemy import Connection, select

from outbox.message import Done, Message, Outcome, Retry, Trial
from outbox.policy import Policy
from outbox.queue import Queue
from service.attention import open_attention
from service.callbacks.process import Report
from service.database import Database
from service.errors import Refusal
from service.ids import Clock, Ids
from service.merchants.accounts import Entry, Registry
from service.merchants.audit import By
from service.merchants.events import tell
from service.payments.book import Book
from service.payments.client import LIMIT_MS, Client
from service.payments.facts import Fact, Kind, Source, Told
from service.payments.heard import Context
from service.payments.outcome import asked
from service.payments.refund_match import NOTHING_WENT, WITHOUT_AN_END, step
from service.payments.refund_rows import STUCK, UNKNOWN, move, one
from service.payments.refunds import (
    REFUND,
    Ended,
    PaidOutBy,
    by_none,
    follow_facts,
    nothing_ends,
    refuse_paid_out,
    said_why,
)
from service.payments.states import DISPUTE_ORDER, REFUND_ORDER, RefundState, RefundStep
from service.payments.tables import aliases, attempts, facts, payments, refunds
from service.providers.base import NotFinal
from service.providers.calls import (
    Calls,
    Given,
    Lost,
    NotSent,
    Refunded,
    Refunding,
    RefundRefused,
    broken_ask,
    broken_refund,
)

log: Any = structlog.get_logger()

SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000
POLICY: Final = Policy(
    REFUND,
    # What is not final is asked about after 30 s, 2 and 10 minutes, an hour, six, and daily for a month.
    (30 * SECOND, 2 * MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, *[24 * HOUR] * 30),
    lease_ms=40 * SECOND,
    limit_ms=LIMIT_MS + 5 * SECOND,
    in_flight=8,
    per_destination=2,
)
KEY_REMEMBERED_MS: Final = 20 * HOUR
"""A provider that takes keys forgets them after 24 h (Stripe's idempotency); after that only the list is asked."""
UNKNOWN_FOR_MS: Final = 10 * MINUTE
"""How long a refund may be unknown before a person has to know."""
NAMED: Final = {"paystack": "refund:"}
"""How a provider's file begins the names of refunds, where they would be bare numbers."""


T = TypeVar("T")


class Syncer(Protocol):
    """How anything about payments is changed (`sync.Syncer`)."""

    def book(self, tx: Connection, now_ms: int) -> Book:
        """The book of payments for this transaction."""

    def close(self, tx: Connection, book: Book, now_ms: int) -> Report:
        """Write it, once, at the end."""

    async def keep(self, work: Callable[..., T], *arguments: Any) -> T:
        """Write down what has happened in the world already."""

    def reported(self, report: Report) -> None:
        """For metrics and logs."""


@dataclass(frozen=True, slots=True)
class Todo:
    """What is to be done about a refund now: `send` it, with the key again where that is a question, or ask."""

    row: Mapping[str, Any]
    given: Given
    send: bool
    again: bool = False


class Refunder:
    """The handler of the topic. `paid_out_by`: no person ends a refund while a payout may be making it."""

    def __init__(
        self,
        db: Database,
        queue: Queue,
        syncer: Syncer,
        client: Client,
        registry: Callable[[], Registry],
        calls: Mapping[str, Calls],
        ids: Ids,
        clock: Clock,
        paid_out_by: PaidOutBy = by_none,
        ended: Ended = nothing_ends,
    ) -> None:
        self._db, self._queue, self._syncer, self._client = db, queue, syncer, client
        self._registry, self._calls, self._ids, self._clock = registry, calls, ids, clock
        self._paid_out_by, self._ended = paid_out_by, ended

    async def act(self, message: Message, _: Any) -> Outcome:
        """One request about one refund. Done when it has come to its end."""
        entry = self._registry().get(message.destination)
        if entry is None:
            return Retry("account_gone")
        todo = await self._db.write(self._begin, message.subject, self._calls[entry.provider])
        if todo is None:
            return Done()
        word = await (self._send(entry, todo) if todo.send else self._ask(entry, todo))
        log.info("refund.tried", refund_id=message.subject, provider=entry.provider, sent=todo.send, word=word)
        state = await self._db.read(lambda tx: one(tx, message.subject)["state"])
        if state not in WITHOUT_AN_END:
            return Done(Trial())
        return Retry(word, trial=Trial(error=word))

    def died(self, tx: Connection, messages: Sequence[Message]) -> None:
        """A month without an end: a person has to look. The refund stays what it is."""
        for message in messages:
            state = one(tx, message.subject)["state"]
            if state in WITHOUT_AN_END:
                open_attention(tx, self._ids, message.subject, STUCK, state, self._clock())

    # --- before the call

    def _begin(self, tx: Connection, refund_id: str, calls: Calls) -> Todo | None:
        """What is to be done, written down before it is done; None: nothing any more."""
        row, now_ms = one(tx, refund_id), self._clock()
        state = RefundState(row["state"])
        if state not in WITHOUT_AN_END or row["manual"]:
            return None
        given = _given(tx, row)
        sending = step(state, RefundStep.SENDING)
        if sending != state:
            move(tx, row, sending, self._ids, now_ms)
            return Todo(one(tx, refund_id), given, True)
        if state is RefundState.SUBMITTING:
            # Whoever was sending it is dead: the lease is longer than a call.
            move(tx, row, step(state, RefundStep.LOST), self._ids, now_ms)
            row = one(tx, refund_id)
        elif state is RefundState.UNKNOWN and now_ms - row["updated_at_ms"] >= UNKNOWN_FOR_MS:
            open_attention(tx, self._ids, refund_id, UNKNOWN, row["provider"], now_ms)
        unknown = row["state"] == RefundState.UNKNOWN
        again = unknown and calls.idempotent and now_ms - row["created_at_ms"] < KEY_REMEMBERED_MS
        return Todo(row, given, again, again)

    # --- the call

    async def _send(self, entry: Entry, todo: Todo) -> str:
        refund = self._calls[entry.provider].refund
        assert refund is not None  # one of a provider without is manual
        talk = refund(todo.given, todo.row["amount_minor"], todo.row["reason"], entry.credentials)
        try:
            result = await self._client.run(entry.provider, entry.base_url, talk, broken_refund)
        except Exception as error:
            log.error("refund.fault", refund_id=todo.row["id"], exc_info=error)
            result = Lost("fault")
        word, report = await self._syncer.keep(self._heard, todo, result)
        self._syncer.reported(report)
        return word

    async def _ask(self, entry: Entry, todo: Todo) -> str:
        refunds = self._calls[entry.provider].refunds
        if refunds is None:
            await self._db.write(self._cannot_be_asked, todo.row["id"])
            return "cannot_be_asked"
        try:
            answer = await self._client.run(
                entry.provider, entry.base_url, refunds(todo.given, entry.credentials), broken_ask
            )
        except Exception as error:
            log.error("refund.fault", refund_id=todo.row["id"], exc_info=error)
            return "fault"
        told = answer.told if isinstance(answer, NotFinal) else answer
        if isinstance(told, Told):
            self._syncer.reported(await self._db.write(self._hear, todo.row, told))
            return "not_final"
        return "unclear"

    def _cannot_be_asked(self, tx: Connection, refund_id: str) -> None:
        row = one(tx, refund_id)
        if row["state"] == RefundState.UNKNOWN:
            open_attention(tx, self._ids, refund_id, UNKNOWN, row["provider"], self._clock())

    # --- after it

    def _heard(self, tx: Connection, todo: Todo, result: Refunded) -> tuple[str, Report]:
        """What sending came to. Of one that was sent before, only a yes says something about that one."""
        now_ms = self._clock()
        row = one(tx, todo.row["id"])
        state = RefundState(row["state"])
        told: Told | None = None
        after, failure = state, ""
        match result:
            case Refunding(told):
                word = "not_final"
                self._name(tx, row, told.facts[0].movement, now_ms)
            case RefundRefused(word, words):
                after, failure = step(state, RefundStep.REFUSED), f"{word}: {words}" if words else word
            case NotSent(word, alert):
                after = step(state, RefundStep.NOTHING_SENT)
                if alert:
                    open_attention(tx, self._ids, row["id"], STUCK, word, now_ms)
            case Lost(word, told):
                after = step(state, RefundStep.LOST)
            case _:
                assert_never(result)
        if not todo.again:
            moved = move(tx, one(tx, row["id"]), after, self._ids, now_ms, failure_reason=failure[:300])
            tell(tx, self._queue, moved, self._ids, now_ms)
            if after in NOTHING_WENT:
                self._ended(tx, row["payment_id"], Context(self._queue, self._ids, now_ms))
        return word, self._hear(tx, row, told) if told is not None else Report()

    def _name(self, tx: Connection, row: Mapping[str, Any], name: str, now_ms: int) -> None:
        """Its name at the provider, unless a callback was first and another of the same amount was taken for it."""
        held = select(refunds.c.id).where(
            refunds.c.attempt_id == row["attempt_id"], refunds.c.provider_reference == name
        )
        if tx.execute(held).first() is None:
            move(tx, row, RefundState(row["state"]), self._ids, now_ms, name=name)

    def _hear(self, tx: Connection, row: Mapping[str, Any], told: Told) -> Report:
        """Facts about the payment's refunds, whoever made them."""
        now_ms, report = self._clock(), Report()
        if told.facts:
            book = self._syncer.book(tx, now_ms)
            attempt = book.attempt(row["payment_id"], row["attempt_id"])
            book.answered(attempt, told)
            payment_id = attempt.row["payment_id"]
            report = self._syncer.close(tx, book, now_ms)
            # A refund that is pending moves nothing of the payment, so its followers need not have heard of it.
            news = follow_facts(tx, payment_id, self._ids, now_ms)
            tell(tx, self._queue, news, self._ids, now_ms)
        return report

    # --- a person

    def mark_done(
        self, tx: Connection, refund_id: str, reason: str, by: By, provider_reference: str = ""
    ) -> dict[str, Any]:
        """
        A work: a person has made a manual refund at the provider, or has seen there one whose outcome nobody knew;
        that needs its id there, or it would be counted a second time once the provider tells of it.

        Raises NotFound, and Refusal: not_manual, no_reason, no_provider_reference, already_known, payout_open.
        """
        row = one(tx, refund_id)
        refuse_paid_out(self._paid_out_by(tx, refund_id), refund_id)
        state = RefundState(row["state"])
        by_hand = state is RefundState.QUEUED and row["manual"]
        if not by_hand and state is not RefundState.UNKNOWN:
            raise Refusal("not_manual", f"The refund {refund_id} is {state}; it is not waiting for a person.")
        said_why(reason, "what you did or saw at the provider")
        if not by_hand and not provider_reference:
            raise Refusal("no_provider_reference", f"Say which refund it is at {row['provider']}: its id there.")
        name = provider_reference or refund_id
        if provider_reference and not name.startswith(NAMED.get(row["provider"], "")):
            name = NAMED[row["provider"]] + name
        taken = select(aliases.c.attempt_id).where(
            aliases.c.account_id == row["account_id"], aliases.c.reference == name
        )
        if tx.execute(taken).first() is not None:
            raise Refusal("already_known", f"{name!r} is known already as something else at {row['provider']}.")
        by.write_down(tx, "refund.done", refund_id, reason)
        what = RefundStep.DONE_BY_HAND if by_hand else RefundStep.OPERATOR_SUCCEEDED
        news = move(tx, row, step(state, what), self._ids, by.now_ms, name=name)
        tell(tx, self._queue, news, self._ids, by.now_ms)
        fact = Fact(
            Kind.REFUND_SUCCEEDED, name, by.now_ms, row["amount_minor"], None, row["currency"], source=Source.OPERATOR
        )
        self._hear(tx, row, Told((), (fact,)))
        return one(tx, refund_id)

    # --- a payout

    def paid_out(self, tx: Connection, refund_id: str, name: str, by: By) -> None:
        """
        A work: a manual refund went back as a payout, `name` for ever. The money is gone whatever the refund is by now:
        where that was made in another way meanwhile, this is one more, which nobody has asked for.
        """
        row = one(tx, refund_id)
        by.write_down(tx, "refund.paid_out", refund_id, name)
        state = RefundState(row["state"])
        if row["provider_reference"] is None and state is not RefundState.SUCCEEDED:
            after = step(state, RefundStep.DONE_BY_HAND)
            tell(tx, self._queue, move(tx, row, after, self._ids, by.now_ms, name=name), self._ids, by.now_ms)
        fact = Fact(
            Kind.REFUND_SUCCEEDED, name, by.now_ms, row["amount_minor"], None, row["currency"], source=Source.ANSWER
        )
        self._hear(tx, row, Told((), (fact,)))

    def came_back(self, tx: Connection, account_id: str, name: str, by: By) -> None:
        """A work: what was paid out under that name came back: its refund has failed, and the money is here again."""
        known = aliases.c.account_id == account_id, aliases.c.reference == name
        held_by = select(attempts).join(aliases, aliases.c.attempt_id == attempts.c.id).where(*known)
        attempt = tx.execute(held_by).mappings().one()
        made = (facts.c.attempt_id == attempt["id"], facts.c.movement == name)
        moved = tx.execute(select(facts.c.amount_minor, facts.c.currency).where(*made)).first()
        assert moved is not None  # what came back was paid
        fact = Fact(Kind.REFUND_FAILED, name, by.now_ms, moved.amount_minor, None, moved.currency, source=Source.ANSWER)
        self._hear(tx, {"payment_id": attempt["payment_id"], "attempt_id": attempt["id"]}, Told((), (fact,)))


def _given(tx: Connection, row: Mapping[str, Any]) -> Given:
    """The attempt that is refunded, under the refund's own key; without the names of what happened to it afterwards."""
    attempt = dict(tx.execute(select(attempts).where(attempts.c.id == row["attempt_id"])).mappings().one())
    if attempt["provider_reference"] is None:
        holder = select(payments.c.provider_reference).where(payments.c.id == row["payment_id"])
        attempt["provider_reference"] = tx.execute(holder).scalar()
    moved = select(facts.c.movement).where(
        facts.c.attempt_id == row["attempt_id"], facts.c.kind.in_([*REFUND_ORDER, *DISPUTE_ORDER])
    )
    later = set(tx.execute(moved).scalars())
    names = [name for name in asked(tx, attempt)["names"] if name not in later or name == attempt["provider_reference"]]
    return Given(
        attempt["reference"] or attempt["provider_reference"] or "",
        tuple(names),
        attempt["amount_minor"],
        attempt["currency"],
        row["id"],
        attempt["created_at_ms"],
        bool(row["live"]),
    )
