"""Bringing events to endpoints: what the topic `webhook` of the outbox sends, and what an answer changes here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from outbox.message import Done, Drop, Hold, Message, Outcome
from outbox.queue import Queue
from outbox.webhook import Sender, Webhook
from service.ids import Clock, Ids
from service.merchants.audit import By
from service.merchants.endpoints import delays_ms, live_secrets
from service.merchants.events import WEBHOOK
from service.merchants.tables import endpoints, events
from service.metrics import Metrics
from service.seal import Seal

_EVENTS = select(events.c.id, events.c.body).where(events.c.id.in_(bindparam("wanted", expanding=True)))
_ENDPOINTS = select(endpoints).where(endpoints.c.id.in_(bindparam("wanted", expanding=True)))


class Deliverer:
    """The handler of the topic `webhook`."""

    def __init__(
        self, sender: Sender, queue: Queue, seal: Seal, header: str, ids: Ids, clock: Clock, metrics: Metrics
    ) -> None:
        self._sender, self._queue, self._seal, self._header = sender, queue, seal, header
        self._ids, self._clock, self._metrics = ids, clock, metrics

    def load(self, tx: Connection, messages: Sequence[Message]) -> Mapping[str, Webhook | None]:
        """Body, address and secrets of each, read in the claim's transaction. None: its endpoint is not to be used."""
        bodies = {row.id: row.body for row in tx.execute(_EVENTS, {"wanted": sorted({m.subject for m in messages})})}
        wanted = sorted({message.destination for message in messages})
        rows = {row.id: row for row in tx.execute(_ENDPOINTS, {"wanted": wanted})}
        secrets = live_secrets(tx, wanted, self._seal, self._clock())
        loaded: dict[str, Webhook | None] = {}
        for message in messages:
            row = rows.get(message.destination)
            if row is None or row.status != "enabled":
                loaded[message.id] = None
                continue
            live = secrets[row.id]
            loaded[message.id] = Webhook(
                url=row.url,
                event_id=message.subject,
                body=bodies[message.subject],
                secrets=live.live,
                plain_secret=live.plain,
                plain_header=self._header,
                delays_ms=delays_ms(row.schedule),
            )
        return loaded

    async def act(self, message: Message, webhook: Any) -> Outcome:
        """One try. An endpoint that says 410 is disabled in the transaction that records it."""
        if webhook is None:
            return Hold("endpoint_disabled")
        outcome = await self._sender.send(webhook)
        if outcome.trial is not None:
            error = "" if isinstance(outcome, Done) else outcome.error
            self._metrics.try_ended(outcome.trial.duration_ms / 1000, error)
        if isinstance(outcome, Drop) and outcome.error == "gone":
            return replace(outcome, then=lambda tx: self._disable(tx, message.destination))
        return outcome

    def _disable(self, tx: Connection, endpoint_id: str) -> None:
        now_ms = self._clock()
        changed = tx.execute(
            update(endpoints)
            .where(endpoints.c.id == endpoint_id, endpoints.c.status == "enabled")
            .values(status="disabled", disabled_reason="it answered 410 Gone")
        ).rowcount
        if changed:
            self._queue.hold(tx, WEBHOOK, endpoint_id)
            By("caisse", now_ms, self._ids).write_down(tx, "endpoint.disabled", endpoint_id, "it answered 410 Gone")
