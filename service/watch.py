"""What the outbox and the works in it have done, told to metrics and logs after each commit, and never before."""

from __future__ import annotations

from typing import Any

import structlog

from outbox.dispatcher import Happened
from service.callbacks.process import ASK, UNKNOWN_TYPE, Report
from service.ids import Clock
from service.merchants.events import WEBHOOK
from service.metrics import Metrics
from service.providers import PROVIDERS

log: Any = structlog.get_logger()

_DIED_AS = dict.fromkeys((provider.queue for provider in PROVIDERS.values()), "callback_dead") | {ASK: "never_answered"}


class Watch:
    """Hears the dispatcher. `moved_at_ms`: per topic, when it last claimed or settled anything."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics, self._clock = metrics, clock
        self._reports: dict[tuple[str, str], Report] = {}
        self.started_at_ms = clock()
        self.moved_at_ms: dict[str, int] = {}

    def reported(self, topic: str, key: str, report: Report) -> None:
        """
        Keep what a transaction did until its commit is told (`happened`). A run that was rolled back and run again
        writes over what it had said before.
        """
        self._reports[topic, key] = report

    def happened(self, event: Happened) -> None:
        """After each of the outbox's commits: metrics and logs."""
        match event.what:
            case "claimed":
                self.moved_at_ms[event.topic] = self._clock()
            case "done" | "retried" | "died":
                self.moved_at_ms[event.topic] = self._clock()
                # list(): the writer's thread puts reports in meanwhile.
                for key in [key for key in list(self._reports) if key[0] == event.topic]:
                    self.tell(self._reports.pop(key))
            case "batch_raised" | "work_raised" | "then_raised" | "write_failed" | "stale":
                for key in [key for key in list(self._reports) if key[0] == event.topic]:
                    del self._reports[key]
            case _:
                pass
        if event.what == "died" and event.topic in _DIED_AS:
            for _ in range(event.count):
                self._metrics.attention(_DIED_AS[event.topic])
        if event.topic == WEBHOOK and event.what in ("done", "retried", "died"):
            self._metrics.delivery(event.what, event.count)
        if event.what.endswith(("_raised", "_failed")) or event.what in ("died", "stale"):
            log.error(
                "outbox.trouble",
                what=event.what,
                topic=event.topic,
                count=event.count,
                message_id=list(event.message_ids),
                error=event.error.partition("[SQL")[0],  # not the statement, nor what was bound to it
            )

    def tell(self, report: Report) -> None:
        for callback_id, provider, kind, status, reason in report.finished:
            self._metrics.callback_finished(provider, "unmapped" if reason == UNKNOWN_TYPE else status)
            say = log.warning if status in ("parked", "deferred") else log.debug
            say(
                "callback.finished",
                callback_id=callback_id,
                provider=provider,
                kind=kind,
                status=status,
                reason=reason,
            )
        for reason in report.attention:
            self._metrics.attention(reason)
            log.warning("attention.opened", reason=reason)
        for callback_id, pair in report.illegal:
            self._metrics.illegal_transition("attempt")
            log.info("payment.illegal_transition", callback_id=callback_id, what=pair)
        for moved in report.moved:
            if moved.begun:
                self._metrics.payment_begun(moved.provider)
            if moved.status_changed:
                self._metrics.payment(moved.provider, moved.status)
            if moved.newly_captured_minor > 0:
                self._metrics.payment_amount(moved.currency, moved.newly_captured_minor)
            for problem in moved.problems:
                self._metrics.attention(problem)
            log.info(
                "payment.moved",
                payment_id=moved.payment_id,
                provider=moved.provider,
                status=moved.status,
                amount_minor=moved.amount_minor,
                currency=moved.currency,
            )
