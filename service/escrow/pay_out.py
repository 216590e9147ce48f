"""
The topic `payout`: one message carries a payout to its end. It is sent once, and asked about from then on.

What is about to be sent is committed before the call, with its reference; whoever dies in between leaves a payout that
is *unknown*, never one that is sent under another reference. The provider is asked by that reference; where it cannot
be, an unknown payout waits for a person. Further messages (`ASK_ONLY`: somebody says that it has moved, or it is some
days since it was paid) only ask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, assert_never

import structlog
from sqlalchemy import Connection, insert, select

from outbox.message import Done, Message, Outcome, Promise, Retry, Trial
from outbox.policy import Policy
from outbox.queue import Queue
from service.attention import open_attention
from service.database import Database
from service.errors import Refusal
from service.escrow.beneficiaries import as_payee, payee_of
from service.escrow.beneficiaries import payee as payee_row
from service.escrow.payout_rows import BALANCE, FLOAT_SHORT, OTP, STUCK, UNKNOWN, Row, move, one
from service.escrow.payouts import ASK_ONLY, PAYOUT, available, hasten, look_again
from service.escrow.refund_payouts import Follows, nothing_follows, still_wanted
from service.escrow.states import OPEN, Payout, PayoutStep
from service.escrow.tables import beneficiaries, recipients
from service.ids import Clock, Ids
from service.ledger.ledger import Kind, balance
from service.ledger.soundness import is_sound
from service.merchants.accounts import Entry, Registry
from service.merchants.audit import By
from service.merchants.events import tell
from service.payments.client import LIMIT_MS, Client
from service.payments.heard import Context
from service.payments.sync import Syncer
from service.providers.base import NotKnown, Unclear
from service.providers.calls import Lost, NotSent
from service.providers.payouts import (
    PaidOut,
    Paying,
    PayoutAnswer,
    PayoutRefused,
    PayoutTold,
    Stage,
    broken_asking,
    broken_payout,
)
from service.providers.payouts import Payouts as Provider

log: Any = structlog.get_logger()

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 24 * 3_600_000
POLICY: Final = Policy(
    PAYOUT,
    # What is not final is asked about after 30 s, 2 and 10 minutes, an hour, six, and daily for a month.
    (30 * SECOND, 2 * MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, *[DAY] * 30),
    lease_ms=70 * SECOND,
    limit_ms=3 * LIMIT_MS + 5 * SECOND,
    in_flight=8,
    per_destination=2,
)
GRACE_MS: Final = 10 * MINUTE
"""That a provider knows no such payout counts after this: it may not have written down yet what it works on."""
KEY_REMEMBERED_MS: Final = 20 * HOUR
"""A provider that takes keys forgets them after 24 h (Stripe's idempotency); after that it is only asked."""
_STEPS: Final[Mapping[Stage, PayoutStep]] = {
    "in_transit": PayoutStep.SAID_IN_TRANSIT,
    "otp": PayoutStep.SAID_OTP,
    "paid": PayoutStep.SAID_PAID,
    "failed": PayoutStep.SAID_FAILED,
    "returned": PayoutStep.SAID_RETURNED,
}


@dataclass(frozen=True, slots=True)
class Todo:
    """What is to be done about a payout now: `send` it, with the key again where that is a question, or ask."""

    row: Row
    paying: Paying
    send: bool
    again: bool = False
    ask_only: bool = False


class Payer:
    """The handler of the topic. `callback_url`: where a provider says what became of it, by account."""

    def __init__(
        self,
        db: Database,
        queue: Queue,
        syncer: Syncer,
        client: Client,
        registry: Callable[[], Registry],
        providers: Mapping[str, Provider],
        ids: Ids,
        clock: Clock,
        callback_url: Callable[[Entry], str],
        follows: Follows = nothing_follows,
    ) -> None:
        self._db, self._queue, self._syncer, self._client = db, queue, syncer, client
        self._registry, self._providers, self._ids, self._clock = registry, providers, ids, clock
        self._callback_url, self._follows = callback_url, follows

    async def act(self, message: Message, _: Any) -> Outcome:
        """One request about one payout. Done when it has come to its end."""
        entry = self._registry().get(message.destination)
        if entry is None:
            return Retry("account_gone")
        ask_only = message.payload == ASK_ONLY
        row = await self._db.read(one, message.subject)
        if row["state"] == Payout.QUEUED and not ask_only:
            short = await self._float_is_short(entry, row)
            if short:
                await self._db.write(self._waits, message.subject, "float", short)
                return Retry(short, trial=Trial(error=short))
        todo = await self._db.write(self._begin, message.subject, entry, ask_only)
        if isinstance(todo, Retry):
            return todo
        if todo is None:
            return Done()
        word = await (self._send(entry, todo) if todo.send else self._ask(entry, todo))
        log.info("payout.tried", payout_id=message.subject, provider=entry.provider, sent=todo.send, word=word)
        state = (await self._db.read(one, message.subject))["state"]
        if ask_only:
            if word == "not_known" and state == Payout.UNKNOWN:
                # Its own message may be sending it once more at this moment, so that alone concludes anything from
                # this answer; but now, and not a day later.
                await self._db.write(hasten, self._queue, "", self._clock(), "", message.subject)
            return Retry(word) if word == "unclear" else Done(Trial())
        if state not in OPEN:
            return Done(Trial())
        if state == Payout.QUEUED and word == "not_known":
            # The provider knows nothing of it, so it is sent now: this message's own schedule may be a day long.
            again = Promise(f"{PAYOUT}:{message.subject}:{self._clock()}", PAYOUT, entry.id, message.subject)
            return Done(Trial(error=word), then=lambda tx: self._queue.enqueue(tx, [again], self._clock()))
        return Retry(word, trial=Trial(error=word))

    def died(self, tx: Connection, messages: Sequence[Message]) -> None:
        """A month without an end: a person has to look. The payout stays what it is."""
        for message in messages:
            state = one(tx, message.subject)["state"]
            if state in OPEN:
                open_attention(tx, self._ids, message.subject, STUCK, state, self._clock())

    # --- before the call

    async def _float_is_short(self, entry: Entry, row: Row) -> str:
        """Why it cannot be sent now: the provider has too little of ours, or does not say. Empty: it can."""
        paying = await self._db.read(self._paying, row, entry)
        ask = self._providers[entry.provider].float_
        if ask is None:
            whose = bool(row["live"]), row["currency"]
            has = await self._db.read(balance, Kind.FLOAT, entry.id, *whose)
            return "" if has >= row["amount_minor"] else "float_short"
        talk = ask(paying.payee, entry.live, entry.credentials)
        try:
            said = await self._client.run(entry.provider, entry.base_url, talk, broken_asking)
        except Exception as error:  # noqa: BLE001 - a fault of ours; nothing was learnt
            self._syncer.fault("float", error)
            return "float_unclear"
        if isinstance(said, Unclear):
            return "float_unclear"
        return "" if said.get(row["currency"], 0) >= row["amount_minor"] else "float_short"

    def _waits(self, tx: Connection, payout_id: str, for_: str, why: str) -> None:
        row = one(tx, payout_id)
        if row["state"] == Payout.QUEUED:
            move(tx, row, None, self._context(), waits_for=for_)
            if why == "float_short":
                open_attention(tx, self._ids, payout_id, FLOAT_SHORT, row["provider"], self._clock())

    def _begin(self, tx: Connection, payout_id: str, entry: Entry, ask_only: bool) -> Todo | Retry | None:
        """What is to be done, written down before it is done; None: nothing any more."""
        row, now_ms = one(tx, payout_id), self._clock()
        state = row["state"]
        if ask_only:
            if state == Payout.SUBMITTING or row["sent_at_ms"] is None:
                return Retry("not_sent_yet") if state in OPEN else None  # whoever sends it is at work, or will be
            return Todo(row, self._paying(tx, row, entry), False, ask_only=True)
        if state == Payout.QUEUED:
            return self._sending(tx, row, entry)
        if state == Payout.SUBMITTING:
            # Whoever was sending it is dead: the lease is longer than a call.
            move(tx, row, PayoutStep.LOST, self._context())
            row = one(tx, payout_id)
        elif state == Payout.UNKNOWN and now_ms - row["updated_at_ms"] >= GRACE_MS:
            open_attention(tx, self._ids, payout_id, UNKNOWN, row["provider"], now_ms)
        if row["state"] not in (Payout.UNKNOWN, Payout.IN_TRANSIT):
            return None
        young = now_ms - (row["sent_at_ms"] or 0) < KEY_REMEMBERED_MS
        again = row["state"] == Payout.UNKNOWN and self._providers[entry.provider].idempotent and young
        return Todo(row, self._paying(tx, row, entry), again, again)

    def _sending(self, tx: Connection, row: Row, entry: Entry) -> Todo | Retry | None:
        now_ms = self._clock()
        if not still_wanted(tx, row) or (row["retry_of"] and one(tx, row["retry_of"])["state"] == Payout.PAID):
            # The refund is over, or what this tries again was paid after all.
            self._move(tx, row, PayoutStep.CANCELED)
            return None
        if row["beneficiary_id"] and row["sent_at_ms"] is None:
            newest = payee_of(tx, row["beneficiary_id"])["id"]
            if newest != row["payee_id"]:  # where they are paid was changed since: never to a payee that is past
                move(tx, row, None, self._context(), payee_id=newest)
                row = one(tx, row["id"])
        payee = payee_row(tx, row["payee_id"])
        to = select(beneficiaries.c.active).where(beneficiaries.c.id == row["beneficiary_id"])
        waits_for = ""
        if not is_sound(tx):
            waits_for = "ledger"
        elif row["source"] != "refund" and not tx.execute(to).scalar():
            waits_for = "beneficiary"
        elif payee["usable_at_ms"] > now_ms:
            waits_for = "payee"
        elif row["source"] != "refund" and available(tx, row) < 0:
            waits_for = "balance"  # what is reserved here was taken back meanwhile
            open_attention(tx, self._ids, row["id"], BALANCE, row["provider"], now_ms)
        if waits_for:
            self._waits(tx, row["id"], waits_for, "")
            wait_ms = max(payee["usable_at_ms"] - now_ms, MINUTE) if waits_for == "payee" else None
            return Retry(f"waits_for_{waits_for}", after_ms=wait_ms)
        move(tx, row, PayoutStep.SENDING, self._context(), sent_at_ms=row["sent_at_ms"] or now_ms)
        return Todo(one(tx, row["id"]), self._paying(tx, row, entry), True)

    def _paying(self, tx: Connection, row: Row, entry: Entry) -> Paying:
        r = recipients.c
        known = select(r.recipient).where(r.payee_id == row["payee_id"], r.account_id == row["account_id"])
        return Paying(
            row["reference"],
            row["reference"],
            row["amount_minor"],
            row["currency"],
            as_payee(payee_row(tx, row["payee_id"])),
            row["description"],
            self._callback_url(entry),
            (row["provider_reference"],) if row["provider_reference"] else (),
            tx.execute(known).scalar() or "",
            entry.live,
            row["sent_at_ms"] or 0,
            self._clock(),
            "refund" if row["source"] == "refund" else "payout",
        )

    # --- the call

    async def _send(self, entry: Entry, todo: Todo) -> str:
        provider = self._providers[entry.provider]
        channel = provider.channel(todo.paying.payee)
        result: PaidOut = NotSent("no_way", alert=True)  # the payee was changed to one that this account cannot pay
        if channel is not None:
            talk = provider.send(todo.paying, channel, entry.credentials)
            try:
                result = await self._client.run(entry.provider, entry.base_url, talk, broken_payout)
            except Exception as error:  # noqa: BLE001 - a fault of ours, and nobody knows how far it came
                self._syncer.fault("payout", error)
                result = Lost("fault")
        return await self._syncer.keep(self._heard, todo, result)

    async def _ask(self, entry: Entry, todo: Todo) -> str:
        provider = self._providers[entry.provider]
        if provider.ask is None or (provider.by_name_only and not todo.paying.names):
            await self._db.write(self._cannot_be_asked, todo.row["id"])
            return "cannot_be_asked"
        talk = provider.ask(todo.paying, entry.credentials)
        try:
            answer = await self._client.run(entry.provider, entry.base_url, talk, broken_asking)
        except Exception as error:  # noqa: BLE001 - a fault of ours; nothing was learnt
            self._syncer.fault("ask_payout", error)
            answer = Unclear("fault")
        return await self._db.write(self._answered, todo, answer)

    # --- after it

    def _heard(self, tx: Connection, todo: Todo, result: PaidOut) -> str:
        """What sending came to. Of one that was sent before, only a yes says something about that one."""
        row = one(tx, todo.row["id"])
        step: PayoutStep | None = None
        more: dict[str, Any] = {}
        match result:
            case PayoutTold():
                self._told(tx, row, result)
                return result.stage
            case PayoutRefused("insufficient_float"):
                word, step, more = "float_short", PayoutStep.NOTHING_SENT, {"waits_for": "float"}
                open_attention(tx, self._ids, row["id"], FLOAT_SHORT, row["provider"], self._clock())
            case PayoutRefused("duplicate_reference"):
                word, step = "duplicate_reference", PayoutStep.LOST  # it is there: ask
            case PayoutRefused(word, words):
                step = PayoutStep.SAID_FAILED
                more = {"failure_reason": (f"{word}: {words}" if words else word)[:300]}
            case NotSent(word, alert):
                step = PayoutStep.NOTHING_SENT
                if alert:
                    open_attention(tx, self._ids, row["id"], STUCK, word, self._clock())
            case Lost(word, told, alert):
                step = PayoutStep.LOST
                if told is not None and told.references:
                    more = {"provider_reference": told.references[0]}  # some can be asked by nothing else
                if alert:
                    open_attention(tx, self._ids, row["id"], STUCK, word, self._clock())
            case _:
                assert_never(result)
        if not todo.again:
            self._move(tx, row, step, **more)
        return word

    def _answered(self, tx: Connection, todo: Todo, answer: PayoutAnswer) -> str:
        row = one(tx, todo.row["id"])
        match answer:
            case PayoutTold():
                self._told(tx, row, answer)
                return answer.stage
            case NotKnown():
                # Counted from when it became unknown: nothing else is written to it meanwhile.
                if self._clock() - row["updated_at_ms"] >= GRACE_MS and not todo.ask_only:
                    self._move(tx, row, PayoutStep.NOT_KNOWN)
                return "not_known"
            case Unclear():
                return "unclear"
            case _:
                assert_never(answer)

    def _told(self, tx: Connection, row: Row, told: PayoutTold) -> None:
        more: dict[str, Any] = {"otp_wanted": told.stage == "otp"}
        if told.names:
            more["provider_reference"] = told.names[0]
        if told.fee_minor is not None:
            more["fee_minor"] = min(max(told.fee_minor, 0), row["amount_minor"])
        if told.stage in ("failed", "returned"):
            more["failure_reason"] = (told.reason or told.words or "provider")[:300]
        if told.stage == "otp" and row["state"] in OPEN:
            open_attention(tx, self._ids, row["id"], OTP, row["provider"], self._clock())
        if told.recipient:
            r = {"payee_id": row["payee_id"], "account_id": row["account_id"], "recipient": told.recipient}
            tx.execute(insert(recipients).prefix_with("OR IGNORE", dialect="sqlite").values(r))
        self._move(tx, row, _STEPS[told.stage], **more)
        if told.stage == "paid" and row["state"] != Payout.PAID:
            self._queue.enqueue(tx, look_again(row, self._clock()), self._clock())

    def _move(self, tx: Connection, row: Row, step: PayoutStep | None, **more: Any) -> None:
        news = move(tx, row, step, self._context(), **more)
        tell(tx, self._queue, news, self._ids, self._clock())
        self._follows(tx, row, self._context())

    def _cannot_be_asked(self, tx: Connection, payout_id: str) -> None:
        row = one(tx, payout_id)
        if row["state"] in (Payout.UNKNOWN, Payout.IN_TRANSIT):
            open_attention(tx, self._ids, payout_id, UNKNOWN, row["provider"], self._clock())

    def _context(self) -> Context:
        return Context(self._queue, self._ids, self._clock())

    # --- a person

    async def finalize(self, payout_id: str, code: str, by: By) -> Row:
        """
        Hand in the code that the provider has sent to the account's owner.

        Raises NotFound, Refusal: no_otp_wanted, otp_refused (the provider's words), provider_unavailable.
        """
        row = await self._db.read(one, payout_id)
        entry = self._registry().get(row["account_id"])
        finalize = self._providers[row["provider"]].finalize
        if row["state"] != Payout.IN_TRANSIT or not row["otp_wanted"] or entry is None or finalize is None:
            raise Refusal("no_otp_wanted", f"The payout {payout_id} is {row['state']}; no code is wanted for it.")
        paying = await self._db.read(self._paying, row, entry)
        talk = finalize(paying, code, entry.credentials)
        result = await self._client.run(entry.provider, entry.base_url, talk, broken_payout)
        if isinstance(result, PayoutRefused):
            raise Refusal("otp_refused", f"The provider does not take this code: {result.words or result.reason}.")
        if isinstance(result, NotSent):
            raise Refusal("provider_unavailable", "The provider could not be reached; try again.")
        if isinstance(result, Lost):  # it has the code or not: asking goes on, and a person may hand it in again
            return row
        await self._syncer.keep(self._finalized, payout_id, result, by)
        return await self._db.read(one, payout_id)

    def _finalized(self, tx: Connection, payout_id: str, told: PayoutTold, by: By) -> None:
        by.write_down(tx, "payout.otp", payout_id)
        self._told(tx, one(tx, payout_id), told)
