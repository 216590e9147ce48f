"""
Where payments are asked for. Each thing that is done at a provider is three steps: a short transaction that writes down
what is about to be done, the call with nothing open, a short transaction that writes down what came of it. If the
process dies in between, the attempt is found by the sweep (`sync.py`), which asks the provider what became of it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict, replace
from typing import Any, TypeVar

from sqlalchemy import Connection, insert

from outbox.prepared import Prepared
from service.attention import open_attention
from service.callbacks.process import Report
from service.database import Database
from service.errors import NotFound, Refusal
from service.ids import Clock, Ids
from service.merchants.accounts import Entry, Registry
from service.merchants.audit import By
from service.payments.asking import watch
from service.payments.circuit import Circuits
from service.payments.client import Client
from service.payments.legs import Leg, Surroundings, ask_of, row_of, wanted_of
from service.payments.outcome import (
    NEVER_CAME_THROUGH,
    NEVER_CONNECTED,
    OPERATORS_STEPS,
    Asked,
    asked,
    given_of,
    hear_result,
    live_attempt,
    on_trust,
    refuse_open_prompt,
)
from service.payments.states import State, Step
from service.payments.sync import Syncer
from service.payments.tables import payers
from service.payments.wish import Wish, check
from service.providers.calls import (
    Accepted,
    Calls,
    Channel,
    Declined,
    Lost,
    NotSent,
    Result,
    Wanted,
    broken_create,
    broken_otp,
)
from service.routing.failover import is_blind, may_fail_over
from service.routing.rules import Ask, Choice, Rule
from service.routing.words import sentences

OTP_TRIES_MAX = 5
OTP_CHARACTERS_MAX = 20
TOLD_WITHIN_S = 0.5
TOLD_AFTER_S = 0.005

_INSERT_PAYER = Prepared(insert(payers), payers.c.keys())

T = TypeVar("T")

Router = Callable[[Connection, Ask, str], Choice]
Begun = Callable[[Connection, str], None]


class Desk:
    """
    Creates, confirms, cancels; raises Refusal for what cannot be done. What is in flight is finished by `close`, also
    when whoever wanted it has gone away.
    """

    def __init__(
        self,
        db: Database,
        syncer: Syncer,
        client: Client,
        registry: Callable[[], Registry],
        calls: Mapping[str, Calls],
        route: Router,
        ids: Ids,
        clock: Clock,
        ours: str,
        surroundings: Surroundings,
        circuits: Circuits,
        may_begin: Callable[[Connection, Mapping[str, Any]], bool],
        nudge: Callable[[], None],
    ) -> None:
        self._db, self._syncer, self._client = db, syncer, client
        self._registry, self._calls, self._route = registry, calls, route
        self._ids, self._clock, self._ours = ids, clock, ours
        self._surroundings, self._circuits, self._nudge = surroundings, circuits, nudge
        self._may_begin = may_begin
        self._running: set[asyncio.Task[Any]] = set()
        self._submitting: set[str] = set()  # payments with a code on its way

    async def close(self, limit_s: float) -> None:
        """Wait for what is in flight; what takes longer is left to the sweep of the next start."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=limit_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _finish(self, work: Coroutine[Any, Any, T]) -> T:
        """To its end, whatever becomes of whoever waits: what has been sent must be written down."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    # --- creating

    async def create(self, wish: Wish, begun: Begun | None = None) -> str:
        """
        Ask for a payment; comes back when a provider has answered, or after its time limit (status `unknown`). Returns
        the payment's id. `begun(tx, id)` runs in the transaction that records it, before anything is sent.

        Raises Refusal: bad_… (`wish.check`), no_provider (nobody can take it, and why), prompt_open (the session has
        an attempt that waits for the payer).
        """
        check(wish)
        payment_id = self._ids("pay")
        leg, report = await self._db.write(self._begin, payment_id, wish, begun)
        self._syncer.reported(report)
        await self._finish(self._send(leg))
        return payment_id

    def _begin(self, tx: Connection, payment_id: str, wish: Wish, begun: Begun | None) -> tuple[Leg, Report]:
        now_ms = self._clock()
        if wish.session_id is not None:
            refuse_open_prompt(tx, wish.session_id)
        ask = ask_of(wish)
        choice = self._route(tx, ask, payment_id)
        explanation = choice.explained()
        if not choice.chain:
            why = " ".join(sentences(explanation)[:20])
            raise Refusal("no_provider", f"No provider can take this payment. {why}"[:2_000])
        chain = tuple((link.account_id, link.channel) for link in choice.chain)
        book = self._syncer.book(tx, now_ms)
        wanted = wanted_of(payment_id, wish, self._surroundings.public_url, now_ms)
        leg = self._leg(payment_id, chain, wanted, choice.rule)
        row = row_of(payment_id, wish, choice.chain[0].provider, explanation, now_ms)
        book.begin(row, self._attempt_row(leg))
        # First the payment, which the others speak of.
        report = self._syncer.close(tx, book, now_ms)
        _INSERT_PAYER(tx, [{"payment_id": payment_id, "payer_phone": wish.payer_phone} | asdict(wish.customer)])
        if begun is not None:
            begun(tx, payment_id)
        self._watch(tx, leg, now_ms)
        return leg, report

    def _leg(self, payment_id: str, chain: tuple[tuple[str, Channel], ...], wanted: Wanted, rule: Rule | None) -> Leg:
        """The next attempt, with a reference and a key of its own."""
        (account_id, channel), *rest = chain
        attempt_id = self._ids("try")
        reference = self._ours + attempt_id.removeprefix("try_")  # no underscore: Paystack's alphabet has none
        entry = self._registry().get(account_id)
        callback_url = self._surroundings.called_back_at(entry) if entry else ""
        mine = replace(wanted, reference=reference, key=reference, callback_url=callback_url)
        return Leg(payment_id, attempt_id, account_id, channel, mine, tuple(rest), rule)

    def _attempt_row(self, leg: Leg) -> dict[str, Any]:
        entry = self._registry().get(leg.account_id)
        return {
            "id": leg.attempt_id,
            "account_id": leg.account_id,
            "provider": entry.provider if entry else "",
            "reference": leg.wanted.reference,
            "key": leg.wanted.key,
            "amount_minor": leg.wanted.amount_minor,
            "currency": leg.wanted.currency,
            "channel": json.dumps({"code": leg.channel.code, "operator": leg.channel.operator}),
        }

    def _watch(self, tx: Connection, leg: Leg, now_ms: int) -> None:
        """Whatever happens to us now, somebody asks what became of it."""
        self._syncer.queue.enqueue(tx, [watch(leg.attempt_id, leg.account_id, now_ms)], now_ms)

    async def _send(self, leg: Leg) -> None:
        """Send an attempt, and the next ones as long as there is proof that nothing was sent."""
        # The merchant hears of the beginning together with what came of it, unless that is long in coming: webhooks
        # that go out meanwhile are work in front of whoever waits for this answer.
        soon = asyncio.get_running_loop().call_later(TOLD_WITHIN_S, self._nudge)
        try:
            going: Leg | None = leg
            while going is not None:
                result = await self._submit(going)
                going = await self._record_now(going, result)
        finally:
            soon.cancel()

    async def _submit(self, leg: Leg) -> Result:
        entry = self._registry().get(leg.account_id)
        if entry is None:
            return NotSent("account_gone")
        calls = self._calls[entry.provider]
        talk = calls.create(leg.wanted, leg.channel, entry.credentials)
        try:
            result = await self._client.run(entry.provider, entry.base_url, talk, broken_create)
        except Exception as error:  # noqa: BLE001 - a fault of ours, after which nobody knows what was sent
            self._syncer.fault("create", error)
            return Lost("fault")
        # What the provider has refused in words of its own is the payment's fault, and no reason to leave it alone.
        broke = isinstance(result, Lost | NotSent) and result.reason in NEVER_CAME_THROUGH
        self._circuits.ended(entry.id, well=not broke)
        return result

    async def _record_now(self, leg: Leg, result: Result) -> Leg | None:
        following, report = await self._syncer.keep(self._record, leg, result)
        self._syncer.reported(report)
        asyncio.get_running_loop().call_later(TOLD_AFTER_S, self._nudge)  # whoever asked is answered first
        return following

    def _record(self, tx: Connection, leg: Leg, result: Result) -> tuple[Leg | None, Report]:
        """What came of an attempt; returns the next one where the table lets another provider be asked."""
        now_ms = self._clock()
        book = self._syncer.book(tx, now_ms)
        attempt = book.attempt(leg.payment_id, leg.attempt_id)
        following: Leg | None = None
        with book.undecided(leg.payment_id):
            state = hear_result(book, attempt, result)
            wanted = self._may_begin(tx, book.payment(leg.payment_id).row)
            if leg.rest and wanted and self._may_go_on(leg, result, state):
                following = self._leg(leg.payment_id, leg.rest, replace(leg.wanted, now_ms=now_ms), leg.rule)
                book.another(leg.payment_id, self._attempt_row(following))
        if isinstance(result, NotSent | Lost) and result.alert:
            self._alert(tx, leg.account_id, result.reason, now_ms)
        report = self._syncer.close(tx, book, now_ms)
        if following is not None:
            self._watch(tx, following, now_ms)
        if (
            state is State.UNKNOWN
            and is_blind(self._calls[attempt.row["provider"]])
            and attempt.row["provider_reference"] is None
        ):
            open_attention(tx, self._ids, leg.payment_id, "cannot_be_asked", attempt.row["provider"], now_ms)
        return following, report

    def _may_go_on(self, leg: Leg, result: Result, state: State) -> bool:
        entry = self._registry().get(leg.account_id)
        blind = entry is not None and is_blind(self._calls[entry.provider])
        match result:
            case NotSent(reason):
                answered = reason not in NEVER_CONNECTED
                return state is State.NOT_SENT and may_fail_over("not_sent", blind=blind, answered=answered)
            case Declined(_, _, soft):
                return state is State.FAILED and may_fail_over("failed", soft, leg.rule, leg.wanted.method)
            case Accepted() | Lost():
                return False

    def _alert(self, tx: Connection, account_id: str, reason: str, now_ms: int) -> None:
        open_attention(tx, self._ids, account_id, "provider_refuses_us", reason, now_ms)

    # --- the payer's code

    async def otp(self, payment_id: str, code: str) -> None:
        """
        Submit the code that the payer typed. A wrong one asks again, with the provider's new words.

        Raises Refusal: bad_otp (no code at all), not_waiting_for_otp, too_many_otps, otp_in_progress, otp_not_sent
        (nothing was sent: try again).
        """
        code = code.strip()
        if not code.isascii() or not code.isalnum() or len(code) > OTP_CHARACTERS_MAX:
            raise Refusal("bad_otp", f"otp: 1 to {OTP_CHARACTERS_MAX} letters and digits.")
        if payment_id in self._submitting:
            raise Refusal("otp_in_progress", "Another code for this payment is being submitted at this moment.")
        self._submitting.add(payment_id)
        try:
            await self._submit_otp(payment_id, code)
        finally:
            self._submitting.discard(payment_id)

    async def _submit_otp(self, payment_id: str, code: str) -> None:
        attempt = await self._db.write(self._try_otp, payment_id)
        entry = self._entry(attempt["account_id"])
        calls = self._calls[entry.provider]
        if calls.otp is None:
            raise Refusal("not_waiting_for_otp", f"{entry.provider} takes no code through us.")
        talk = calls.otp(given_of(attempt, entry.live), code, entry.credentials)

        async def submit() -> Result:
            result = await self._client.run(entry.provider, entry.base_url, talk, broken_otp)
            self._syncer.reported(await self._syncer.keep(self._hear, payment_id, attempt["id"], result))
            self._nudge()
            return result

        result = await self._finish(submit())
        if isinstance(result, NotSent):
            raise Refusal("otp_not_sent", "The provider could not be reached, the code was not used; try again.")

    def _try_otp(self, tx: Connection, payment_id: str) -> Asked:
        """The attempt that waits for a code; the try is counted before it is made."""
        book = self._syncer.book(tx, self._clock())
        attempt = live_attempt(book, payment_id)
        action = json.loads(attempt.row["action"] or "null") if attempt else None
        if attempt is None or attempt.row["state"] != State.REQUIRES_ACTION or not action or action["type"] != "otp":
            raise Refusal("not_waiting_for_otp", f"The payment {payment_id} does not wait for a code.")
        if attempt.row["otp_tries"] >= OTP_TRIES_MAX:
            raise Refusal("too_many_otps", f"{OTP_TRIES_MAX} codes were tried; cancel this payment and begin again.")
        attempt.row["otp_tries"] += 1
        attempt.changed = True
        self._syncer.close(tx, book, self._clock())
        return asked(tx, attempt.row)

    def _hear(self, tx: Connection, payment_id: str, attempt_id: str, result: Result) -> Report:
        now_ms = self._clock()
        book = self._syncer.book(tx, now_ms)
        attempt = book.attempt(payment_id, attempt_id)
        if isinstance(result, NotSent):
            attempt.row["otp_tries"] -= 1
            attempt.changed = True
        elif hear_result(book, attempt, result) is State.UNKNOWN:
            promise = watch(attempt_id, attempt.row["account_id"], now_ms)
            self._syncer.queue.enqueue(tx, [promise], now_ms)
        if isinstance(result, NotSent | Lost) and result.alert:
            self._alert(tx, attempt.row["account_id"], result.reason, now_ms)
        return self._syncer.close(tx, book, now_ms)

    # --- cancelling, asking, deciding

    async def cancel(self, payment_id: str, by: By) -> None:
        """
        Cancel at the provider first; `canceled` is written when the provider says so, never because a call failed.

        Raises Refusal not_cancelable: it is over, is being sent, or the provider cannot cancel.
        """
        attempt, report = await self._db.write(self._want_cancel, payment_id, by)
        self._syncer.reported(report)
        self._nudge()
        await self._finish(self._syncer.cancel(attempt))

    def _want_cancel(self, tx: Connection, payment_id: str, by: By) -> tuple[Asked, Report]:
        book = self._syncer.book(tx, self._clock())
        attempt = live_attempt(book, payment_id)
        if attempt is None or attempt.row["state"] in (State.CREATED, State.SUBMITTING):
            raise Refusal("not_cancelable", f"The payment {payment_id} is over, or is being sent at this moment.")
        provider = attempt.row["provider"]
        if attempt.row["reference"] is None:
            raise Refusal("not_cancelable", f"The payment {payment_id} was not started here; cancel it at {provider}.")
        if self._calls[provider].cancel is None:
            raise Refusal("not_cancelable", f"{provider} cannot cancel a payment; it lapses there by itself.")
        if attempt.row["state"] != State.CANCELING:
            book.step(attempt, Step.CANCEL_WANTED, by.actor)
            by.write_down(tx, "payment.cancel_wanted", payment_id)
        report = self._syncer.close(tx, book, self._clock())
        return asked(tx, attempt.row), report

    async def sync(self, payment_id: str, limit_ms: int | None = None) -> bool:
        """Ask about every live attempt now; False when that was done less than 10 s ago, or nothing is live."""
        return await self._finish(self._syncer.now(payment_id, limit_ms))

    async def decide(self, payment_id: str, what: str, reason: str, by: By) -> None:
        """
        A named operator ends an `unknown` attempt, for a reason: succeeded | failed | canceled | not_sent.

        Raises Refusal: not_unknown, bad_decision, reason_needed.
        """
        step = OPERATORS_STEPS.get(what)
        if step is None:
            raise Refusal("bad_decision", f"{what[:40]!r}: one of {', '.join(OPERATORS_STEPS)}.")
        if not reason.strip():
            raise Refusal("reason_needed", "Say why: what did you see at the provider?")

        def work(tx: Connection) -> Report:
            now_ms = self._clock()
            book = self._syncer.book(tx, now_ms)
            open_ = (State.UNKNOWN, State.CANCELING)
            unknown = [one for one in book.payment(payment_id).attempts if one.row["state"] in open_]
            if not unknown:
                raise Refusal("not_unknown", f"Nothing about the payment {payment_id} is unknown.")
            attempt = unknown[-1]
            book.step(attempt, step, by.actor, reason)
            if step is Step.OPERATOR_SUCCEEDED:
                book.answered(attempt, on_trust(attempt, now_ms))
            by.write_down(tx, f"payment.decided.{what}", payment_id, reason)
            return self._syncer.close(tx, book, now_ms)

        try:
            self._syncer.reported(await self._db.write(work))
        except KeyError:
            raise NotFound("payment", payment_id, "caisse payments list") from None
        self._nudge()

    def _entry(self, account_id: str) -> Entry:
        entry = self._registry().get(account_id)
        if entry is None:
            raise Refusal("account_gone", f"The account {account_id} is not configured any more.")
        return entry
