"""
Asking a provider about a payment, as an act of the outbox: one request, its answer heard in the transaction that
settles the message. What was not answered is asked again on schedule; nothing is ever concluded from silence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from outbox.message import Done, Message, Outcome, Retry, Trial
from service.attention import open_attention
from service.callbacks.process import Processor, Report
from service.ids import Clock, Ids
from service.merchants.accounts import Entry, Registry
from service.payments.client import Client
from service.payments.facts import Told
from service.payments.tables import aliases, attempts
from service.providers import CALLS, PROVIDERS
from service.providers.base import Answer, Asked, NotFinal, NotKnown, Provider, Request, Unclear
from service.providers.called import call
from service.providers.calls import Asking, Calls, Given, broken_ask

SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000
DELAYS_MS = (10 * SECOND, 30 * SECOND, 2 * MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, 24 * HOUR, 24 * HOUR, 24 * HOUR)
LIMIT_MS = 15 * SECOND
LEASE_MS = 30 * SECOND


@dataclass(frozen=True, slots=True)
class Held:
    """What we asked the provider for, under our own reference there; nothing for a payment somebody else started."""

    reference: str | None = None
    amount_minor: int | None = None
    currency: str | None = None


NOTHING_HELD = Held()


class Asker:
    """The handler of the topic `ask`: `load` inside the claim, then the act itself."""

    def __init__(
        self,
        registry: Callable[[], Registry],
        processor: Processor,
        client: Client,
        ids: Ids,
        clock: Clock,
        reported: Callable[[str, str, Report], None],
        asked: Callable[[str, str], None],
        ours: str,
        providers: Mapping[str, Provider] = PROVIDERS,
        calls: Mapping[str, Calls] = CALLS,
    ) -> None:
        self._registry, self._processor, self._client = registry, processor, client
        self._ids, self._clock, self._reported = ids, clock, reported
        self._asked, self._ours, self._providers, self._calls = asked, ours, providers, calls

    def load(self, tx: Connection, messages: Sequence[Message]) -> Mapping[str, Held]:
        """What we hold of each payment, so that the answer can be compared with it."""
        ours = aliases.alias("ours")
        wanted = {message.id: msgspec.json.decode(message.payload)["reference"] for message in messages}
        rows = tx.execute(
            select(aliases.c.account_id, aliases.c.reference, ours.c.reference, attempts.c.amount_minor,
                   attempts.c.currency)
            .join(attempts, attempts.c.id == aliases.c.attempt_id)
            .join(ours, (ours.c.attempt_id == attempts.c.id) & ours.c.reference.startswith(self._ours))
            .where(aliases.c.reference.in_(sorted(set(wanted.values()))))
        ).all()  # fmt: skip
        # Only payments of our own are found: what an adopted one asked for is what a hint claimed, and the answer may
        # correct it.
        found = {(row[0], row[1]): Held(*row[2:]) for row in rows}
        return {m.id: found.get((m.destination, wanted[m.id]), NOTHING_HELD) for m in messages}

    async def act(self, message: Message, held: Any) -> Outcome:
        """Ask once. The outcome says what to do with the message; `then` hears the answer in the settling commit."""
        account = self._registry().get(message.destination)
        if account is None:
            return Retry("account_gone")
        began = time.monotonic()
        talk = self._talk(account, held, **msgspec.json.decode(message.payload))
        answer = await self._client.run(account.provider, account.base_url, talk, broken_ask)
        trial = Trial(None, None, b"", round((time.monotonic() - began) * 1000))
        match answer:
            case Told():
                self._asked(account.provider, "told")
                return Done(trial, then=lambda tx: self._hear(tx, message, answer))
            case NotFinal(told):
                self._asked(account.provider, "not_final")
                later = None if told is None else lambda tx: self._hear(tx, message, told)
                return Retry("not_final", trial=trial, then=later)
            case NotKnown():
                self._asked(account.provider, "not_known")
                return Retry("not_known", trial=trial)
            case Unclear(reason):
                self._asked(account.provider, "unclear")
                return Retry(reason, trial=trial)

    def _talk(self, account: Entry, held: Held, reference: str, names: Sequence[str] = ()) -> Asking:
        provider = self._providers[account.provider]
        if provider.question is None or provider.answer is None:
            # Its callbacks are believed, unless a setting says otherwise: then it is asked as about payments of ours.
            known = tuple(dict.fromkeys((reference, *names)))
            given = Given(held.reference or "", known, held.amount_minor or 0, held.currency or "", live=account.live)
            return self._calls[account.provider].fetch(given, account.live, account.credentials)
        service = next(iter(account.credentials.get("service_key", ())), None)
        asked = Asked(account.live, held.reference, held.amount_minor, held.currency, service)
        return _question(provider.question(reference, account.credentials), reference, provider.answer, asked)

    def _hear(self, tx: Connection, message: Message, told: Told) -> None:
        report = self._processor.hear_answer(tx, message.destination, told, message.subject)
        self._reported(message.topic, message.id, report)

    def died(self, tx: Connection, messages: Sequence[Message]) -> None:
        """Days without an answer: a person has to look. The payment stays what it was."""
        for message in messages:
            open_attention(tx, self._ids, message.subject, "never_answered", message.destination, self._clock())


def _question(
    request: Request, reference: str, answer: Callable[[str, int, bytes, Asked], Answer], asked: Asked
) -> Asking:
    response = yield call(request)
    return answer(reference, response.status, response.body, asked)
