"""What the outbox owes, topic by topic, and who pays it: the handlers that `application.py` hands to the dispatcher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import aiohttp
from sqlalchemy import Connection

from outbox.message import Done, Message, Outcome
from outbox.policy import STANDARD_MS, Policy
from outbox.topic import Topic
from outbox.webhook import Sender
from service import __version__
from service.callbacks.process import ASK, DEFERRED
from service.escrow import pay_out
from service.jobs import reconcile
from service.merchants.deliver import Deliverer
from service.merchants.events import WEBHOOK
from service.merchants.recovery import RECOVER, Recoverer
from service.orders.expire import Expirer
from service.payments import ask, refund_send, sync
from service.payments.ask import Asker
from service.payments.heard import ours
from service.retention import PRUNE

if TYPE_CHECKING:
    from service.application import Application

CALLBACK_RETRIES_MS = {
    "stripe": (10_000, 30_000, 60_000),
    "monetbil": (10_000, 30_000, 60_000),
    "payments": (10_000, 30_000, 90_000, 270_000, 810_000),
}
CALLBACK_BATCH = 50
"""Callbacks worked on in one transaction: few enough that intake never waits long behind them."""


def topics(app: Application, http: aiohttp.ClientSession) -> list[Topic]:
    """All of them, for one dispatcher; `http` sends webhooks."""
    deliverer = Deliverer(
        Sender(http, app.guard, app.clock, __version__),
        app.queue,
        app.seal,
        app.settings.signature_header,
        app.ids,
        app.clock,
        app.metrics,
        app.watch.reported,
    )
    asker = Asker(
        app.accounts,
        app.processor,
        app.client,
        app.ids,
        app.clock,
        app.watch.reported,
        app.metrics.asked,
        ours(app.installation),
        app.settings.providers,
        app.calls,
    )
    recoverer = Recoverer(app.queue, app.clock)
    callbacks = [
        Topic(
            Policy(name, delays_ms, lease_ms=70_000, limit_ms=60_000, batch=CALLBACK_BATCH),
            work=_work_on_callbacks(app, name),
            died=app.processor.died,
        )
        for name, delays_ms in CALLBACK_RETRIES_MS.items()
    ]
    return [
        *callbacks,
        Topic(Policy(DEFERRED, (60_000, 600_000), lease_ms=70_000, limit_ms=60_000), work=_put_before_a_person(app)),
        Topic(
            Policy(ASK, ask.DELAYS_MS, ask.LEASE_MS, ask.LIMIT_MS, in_flight=16, per_destination=8),
            act=asker.act,
            load=asker.load,
            died=asker.died,
        ),
        Topic(sync.POLICY, act=app.syncer.act, load=app.syncer.load, died=app.syncer.died),
        Topic(refund_send.POLICY, act=app.refunder.act, died=app.refunder.died),
        Topic(pay_out.POLICY, act=app.payer.act, died=app.payer.died),
        reconcile.topic(app),
        *Expirer(app.db, app.desk, app.queue, app.ids, app.clock, app.clock(), app.give_back).topics(),
        Topic(
            Policy(PRUNE, (60_000, 600_000, 3_600_000), lease_ms=70_000, limit_ms=60_000, batch=1),
            work=app.pruner.work,
        ),
        Topic(
            Policy(WEBHOOK, STANDARD_MS, lease_ms=30_000, limit_ms=12_000, per_destination=4, breaker=True),
            act=deliverer.act,
            load=deliverer.load,
        ),
        # One at a time: a message is a whole transaction's work.
        Topic(
            Policy(RECOVER, (1_000, 10_000, 60_000), lease_ms=70_000, limit_ms=60_000, batch=1),
            work=recoverer.work,
            died=recoverer.died,
        ),
    ]


def _work_on_callbacks(app: Application, topic: str) -> Callable[[Connection, Sequence[Message]], list[Outcome]]:
    def work(tx: Connection, messages: Sequence[Message]) -> list[Outcome]:
        report = app.processor.process(tx, [message.subject for message in messages])
        app.watch.reported(topic, "", report)
        return [Done() for _ in messages]

    return work


def _put_before_a_person(app: Application) -> Callable[[Connection, Sequence[Message]], list[Outcome]]:
    def work(tx: Connection, messages: Sequence[Message]) -> list[Outcome]:
        app.watch.reported(DEFERRED, "", app.processor.overdue(tx, messages))
        return [Done() for _ in messages]

    return work
