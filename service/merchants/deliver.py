"""Bringing events to endpoints: what the topic `webhook` of the outbox sends, and what an answer changes here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, bindparam, select

from outbox.message import Done, Drop, Message, Outcome
from outbox.prepared import Lookup
from outbox.queue import Queue
from outbox.webhook import GONE, Sender, Webhook
from service.callbacks.process import Report
from service.ids import Clock, Ids
from service.merchants.audit import By
from service.merchants.endpoints import delays_ms, forget_warnings, live_secrets
from service.merchants.events import WEBHOOK
from service.merchants.failing import disabled, failed
from service.merchants.tables import endpoints, events
from service.metrics import Metrics
from service.seal import Seal

_EVENTS = Lookup(select(events.c.id, events.c.body).where(events.c.id.in_(bindparam("wanted", expanding=True))))
_ENDPOINTS = Lookup(select(endpoints).where(endpoints.c.id.in_(bindparam("wanted", expanding=True))))


class Deliverer:
    """The handler of the topic `webhook`."""

    def __init__(
        self,
        sender: Sender,
        queue: Queue,
        seal: Seal,
        header: str,
        ids: Ids,
        clock: Clock,
        metrics: Metrics,
        reported: Callable[[str, str, Report], None],
    ) -> None:
        self._sender, self._queue, self._seal, self._header = sender, queue, seal, header
        self._ids, self._clock, self._metrics, self._reported = ids, clock, metrics, reported

    def load(self, tx: Connection, messages: Sequence[Message]) -> Mapping[str, tuple[Webhook, bool]]:
        """
        Body, address and secrets of each, read in the claim's transaction, and whether the endpoint was warned of. What
        is owed to a disabled endpoint is held, so it is never claimed.
        """
        bodies = {row["id"]: row["body"] for row in _EVENTS(tx, sorted({message.subject for message in messages}))}
        wanted = sorted({message.destination for message in messages})
        rows = {row["id"]: row for row in _ENDPOINTS(tx, wanted)}
        secrets = live_secrets(tx, wanted, self._seal, self._clock())
        loaded: dict[str, tuple[Webhook, bool]] = {}
        for message in messages:
            row = rows[message.destination]
            live = secrets[row["id"]]
            webhook = Webhook(
                url=row["url"],
                event_id=message.subject,
                body=bodies[message.subject],
                secrets=live.live,
                plain_secret=live.plain,
                plain_header=self._header,
                delays_ms=delays_ms(row["schedule"]),
            )
            loaded[message.id] = webhook, row["warnings"] > 0
        return loaded

    async def act(self, message: Message, loaded: Any) -> Outcome:
        """One try. What it says of the endpoint is written in the transaction that records it."""
        webhook, warned = loaded
        outcome = await self._sender.send(webhook)
        error = "" if isinstance(outcome, Done) else outcome.error
        if outcome.trial is not None:
            self._metrics.try_ended(outcome.trial.duration_ms / 1000, error)
        if error:
            gone = isinstance(outcome, Drop) and error == GONE
            return replace(outcome, then=lambda tx: self._failed(tx, message.destination, gone))
        if warned:
            return replace(outcome, then=lambda tx: forget_warnings(tx, message.destination, self._clock()))
        return outcome

    def _failed(self, tx: Connection, endpoint_id: str, gone: bool) -> None:
        by = By("caisse", self._clock(), self._ids)
        if gone:
            opened = disabled(tx, self._queue, endpoint_id, "it answered 410 Gone", by)
        else:
            opened = failed(tx, self._queue, endpoint_id, by)
        self._reported(WEBHOOK, endpoint_id, Report(attention=opened))
