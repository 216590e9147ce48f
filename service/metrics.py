"""
Metrics for Prometheus: one registry per application, no globals.

No label ever holds an id. Each label's values come from a closed set, named here or handed in when the application is
built; anything else is counted as `other`, so that a hostile or new word cannot grow the registry. Children are bound
once and looked up in a dict, because intake counts at several thousand a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from sqlalchemy import Connection, func, select

from outbox.destinations import Trouble
from outbox.queue import Backlog, Queue
from service.callbacks.tables import callbacks, quarantine
from service.jobs.figures import Times, last_runs
from service.jobs.timetable import TIMETABLE
from service.ledger.soundness import newest
from service.merchants.events import WEBHOOK
from service.orders.stock import tallies_now
from service.payments.rules import STATUSES, Problem
from service.payments.states import MACHINES
from service.payments.tables import attention
from service.totals import Storage, Tallies

CONTENT_TYPE = CONTENT_TYPE_LATEST
OTHER = "other"

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
STATUS_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
CURRENCIES = tuple(
    """XOF XAF EUR USD GBP CHF CAD GHS NGN KES ZAR GNF CDF MAD TND DZD EGP RWF UGX TZS ZMW MGA MUR CVE GMD SLE LRD ETB
    JPY CNY INR BRL AUD NZD SEK NOK DKK PLN CZK AED SAR XPF KMF DJF BIF""".split()  # noqa: SIM905
)
RECEIVED = (
    "kept", "repeated", "refused", "not_found", "method_not_allowed", "incomplete", "too_large", "too_slow",
    "too_many_parts", "no_room", "headers_too_large", "compressed", "not_kept", "failed",
)  # fmt: skip
"""What became of a callback at the door: taken, not verified, a fault of the transport, or not kept (503)."""
REFUSED = ("no_secret", "missing_header", "bad_header", "bad_signature", "too_old", "too_new", "no_sign", "not_form",
           "half_set", "wrong_token")  # fmt: skip
CALLED = ("2xx", "3xx", "4xx", "5xx", "refused", "dns", "tls", "connect_timeout", "timeout", "time_limit",
          "connection_lost", "answer_too_large", "bad_address", "too_many_calls")  # fmt: skip
"""What came of a call to a provider: its answer, or what broke."""
RESTING = ("parked", "deferred", "dead")
FINISHED = ("processed", "ignored", "unmapped", "parked", "deferred", "dead")
DELIVERED = ("done", "retried", "died")
DELIVERY_ERRORS = (
    "timeout", "dns", "tls", "reset", "refused", "unreachable", "connection", "bad_url", "bad_answer", "redirect",
    "gone", "http_3xx", "http_4xx", "http_5xx", "scheme", "user_info", "port", "own_port", "forbidden_address",
    "https_required", "unsettled", "raised", "cannot_open",
)  # fmt: skip
ATTENTION = (
    *Problem, "merged", "deferred_too_long", "callback_dead", "never_answered", "answer_not_placed",
    "endpoint_failing", "endpoint_disabled", "cannot_be_asked", "still_unknown", "provider_refuses_us",
    "provider_disagrees", "name_used_twice",
    "refund_manual", "refund_failed", "refund_unknown", "refund_stuck", "refund_not_ours", "refunded_elsewhere",
    "hold_frozen", "hold_taken_back", "hold_undelivered", "payee_changed",
    "payout_approval", "payout_failed", "payout_returned", "payout_unknown", "payout_otp", "payout_float_short",
    "payout_stuck", "payout_paid_after_all", "payout_balance_short", "payout_not_possible",
    "ledger_unsound", "reconcile_differs", "reconcile_unanswered", "job_failed", "backup_failed",
)  # fmt: skip
RAN = ("done", "failed", "skipped", "abandoned")

_FAST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SLOW_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_JOB_S = (0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0)
_MINOR = (100.0, 500.0, 1_000.0, 5_000.0, 10_000.0, 50_000.0, 100_000.0, 500_000.0, 1_000_000.0, 10_000_000.0)


@dataclass(frozen=True, slots=True)
class Measured:
    """What only the database knows, read at scrape time by `measure`."""

    now_ms: int
    backlog: Mapping[str, Backlog]
    callbacks: Mapping[str, int]
    quarantined: int
    attention: int
    endpoints: Trouble
    checked: Mapping[str, Any] | None = None
    tallies: Mapping[str, int] = field(default_factory=dict)
    jobs: Times = field(default_factory=dict)


def measure(tx: Connection, queue: Queue, now_ms: int) -> Measured:
    """A query for `Database.read`. Each part is answered by a small partial index, whatever the size of the tables."""
    resting = (
        select(callbacks.c.status, func.count()).where(callbacks.c.status.in_(RESTING)).group_by(callbacks.c.status)
    )
    return Measured(
        now_ms,
        queue.backlog(tx, now_ms),
        {row[0]: row[1] for row in tx.execute(resting)},
        tx.execute(select(func.count()).select_from(quarantine)).scalar_one(),
        tx.execute(select(func.count()).select_from(attention).where(attention.c.closed_at_ms.is_(None))).scalar_one(),
        queue.destinations.trouble(tx, WEBHOOK),
        newest(tx),
        tallies_now(tx),
        last_runs(tx),
    )


@dataclass(slots=True)
class _Bound:
    """The children of one metric, by label values; a value outside its closed set becomes `other`."""

    metric: Any
    closed: tuple[frozenset[str], ...]
    children: dict[tuple[str, ...], Any] = field(default_factory=dict)

    def __call__(self, *values: str) -> Any:
        child = self.children.get(values)
        if child is None:
            known = tuple(v if v in allowed else OTHER for v, allowed in zip(values, self.closed, strict=True))
            child = self.metric.labels(*known)
            if known == values:  # what is not known is looked up each time: the dict must stay closed, too
                self.children[values] = child
        return child


class Metrics:
    """Everything counted. `queues` are the outbox's topics, `routes` the application's route templates."""

    def __init__(self, providers: Iterable[str], queues: Iterable[str] = (), routes: Iterable[str] = ()) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        by = tuple(providers)
        self._queues = tuple(queues)
        self._routes = frozenset(routes)
        http = ("method", "route", "status")
        sets = (METHODS, self._routes, STATUS_CLASSES)
        self._requests = self._counter("http_requests_total", "Requests answered.", http, *sets)
        self._request_errors = self._counter("http_request_errors_total", "Requests answered with 5xx.", http, *sets)
        self._request_s = self._histogram("http_request_duration_seconds", "Time to answer.", http, _FAST_S, *sets)
        self._connections = self._plain_gauge("active_connections", "Requests being answered now.")

        payment = ("gateway", "status")
        self._payments = self._counter("payments_total", "Payments that came to a status.", payment, by, STATUSES)
        self._by_gateway = self._counter("payments_by_gateway_total", "Payments begun.", ("gateway",), by)
        self._by_status = self._counter(
            "payments_by_status_total", "Payments that came to a status.", ("status",), STATUSES
        )
        self._amount = self._histogram(
            "payment_amount", "Captured amounts, in minor units.", ("currency",), _MINOR, CURRENCIES
        )

        self._received = self._counter(
            "webhooks_received_total",
            "Callbacks by what became of them at the door.",
            ("provider", "result"),
            by,
            RECEIVED,
        )
        self._refused = self._counter(
            "callbacks_refused_total", "Callbacks that were not verified.", ("provider", "reason"), by, REFUSED
        )
        self._finished = self._counter(
            "callbacks_finished_total", "Callbacks by the status they came to.", ("provider", "status"), by, FINISHED
        )
        self._illegal = self._counter(
            "illegal_transitions_total", "Happenings that no row of the table knows.", ("machine",), tuple(MACHINES)
        )
        self._attention = self._counter(
            "attention_opened_total", "Matters put before a person.", ("reason",), ATTENTION
        )
        self._asked = self._counter(
            "provider_questions_total", "Questions to providers by their answer.", ("provider", "answer"), by,
            ("told", "not_final", "not_known", "unclear"),
        )  # fmt: skip
        self._called = self._counter(
            "provider_calls_total", "Calls to providers by what came of them.", ("provider", "result"), by, CALLED
        )
        self._call_s = self._plain_histogram("provider_call_seconds", "One call to a provider.", _SLOW_S)

        self._deliveries = self._counter(
            "webhook_deliveries_total", "Tries to deliver a webhook by what came of them.", ("result",), DELIVERED
        )
        self._delivery_errors = self._counter(
            "webhook_delivery_errors_total", "Tries that failed.", ("reason",), DELIVERY_ERRORS
        )
        self._delivery_s = self._plain_histogram("webhook_delivery_duration_seconds", "Time a try took.", _SLOW_S)

        self._tallied = Tallies()
        self.registry.register(self._tallied)
        topic = ("queue",)
        self._queue_size = self._gauge("queue_size", "Messages that wait.", topic, self._queues)
        self._queue_due = self._gauge("queue_due", "Messages that wait past their time.", topic, self._queues)
        self._queue_held = self._gauge("queue_held", "Messages kept aside.", topic, self._queues)
        self._queue_dead = self._gauge("queue_dead", "Messages given up.", topic, self._queues)
        self._queue_age = self._gauge(
            "queue_oldest_due_age_seconds", "How long the oldest due message waits.", topic, self._queues
        )
        self._callbacks = self._gauge("callbacks_resting", "Callbacks that rest.", ("status",), RESTING)
        self._quarantined = self._plain_gauge("callbacks_quarantined", "Callbacks in quarantine.")
        self._attention_open = self._plain_gauge("attention_open", "Matters that wait for a person.")
        self._endpoints = self._gauge(
            "webhook_endpoints", "Endpoints that fail, are left alone for a while, or are disabled.", ("state",),
            ("failing", "circuit_open", "disabled"),
        )  # fmt: skip
        self._failing_longest = self._plain_gauge(
            "webhook_endpoint_failing_seconds", "How long the endpoint that fails longest has done nothing else."
        )
        self._heartbeat = self._plain_gauge(
            "heartbeat_last_success_timestamp_seconds", "The last heartbeat that arrived."
        )
        self._ledger_sound = self._plain_gauge("ledger_sound", "0 while the newest check of the ledger found a fault.")
        self._ledger_checked = self._plain_gauge(
            "ledger_checked_timestamp_seconds", "When the ledger was last checked; 0: never."
        )
        job, jobs = ("job",), tuple(TIMETABLE)
        self._job_s = self._histogram("job_execution_seconds", "Time a run of a job took.", job, _JOB_S, jobs)
        self._jobs_ran = self._counter("job_runs_total", "Runs by their end.", ("job", "state"), jobs, RAN)
        self._job_last = self._gauge("job_last_execution_timestamp", "When a job last ended.", job, jobs)
        self._job_well = self._gauge("job_last_success_timestamp", "When a job last ended well.", job, jobs)
        self._secrets = self._gauge("provider_secrets_missing", "1 while a provider is half set.", ("provider",), by)
        self._start()

    # --- recording ----------------------------------------------------------------------------------

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """One answered request. `route` is the template, never the path."""
        labels = (method, route, f"{status // 100}xx")
        self._requests(*labels).inc()
        self._request_s(*labels).observe(seconds)
        if status >= 500:
            self._request_errors(*labels).inc()

    def connections(self, change: int) -> None:
        """+1 when a request begins, -1 when it ends."""
        self._connections.inc(change)

    def callback(self, provider: str, result: str) -> None:
        """At the door; `result` is one of `RECEIVED`."""
        self._received(provider, result).inc()

    def callback_refused(self, provider: str, reason: str) -> None:
        """Why one was not verified."""
        self._refused(provider, reason).inc()

    def callback_finished(self, provider: str, status: str, count: int = 1) -> None:
        """Worked on."""
        self._finished(provider, status).inc(count)

    def payment_begun(self, gateway: str) -> None:
        """A payment that was not there before."""
        self._by_gateway(gateway).inc()

    def payment(self, gateway: str, status: str) -> None:
        """A payment came to a status."""
        self._payments(gateway, status).inc()
        self._by_status(status).inc()

    def payment_amount(self, currency: str, minor: int) -> None:
        """Money came."""
        self._amount(currency).observe(minor)

    def called(self, provider: str, status: int, seconds: float, broken: str) -> None:
        """A provider was called; `status` 0: no answer came."""
        self._called(provider, broken or f"{status // 100}xx").inc()
        self._call_s.observe(seconds)

    def asked(self, provider: str, answer: str) -> None:
        """A provider was asked about a payment."""
        self._asked(provider, answer).inc()

    def delivery(self, result: str, count: int = 1) -> None:
        """What became of tries to deliver, once it is committed."""
        self._deliveries(result).inc(count)

    def try_ended(self, seconds: float, error: str = "") -> None:
        """One try at an endpoint took so long; `error` is the outbox's word when it failed."""
        self._delivery_s.observe(seconds)
        if error:
            self._delivery_errors(_delivery_error(error)).inc()

    def illegal_transition(self, machine: str) -> None:
        """Something happened that the machine's table does not know."""
        self._illegal(machine).inc()

    def attention(self, reason: str) -> None:
        """A matter was put before a person."""
        self._attention(reason).inc()

    def job_ran(self, job: str, state: str, seconds: float) -> None:
        """A run of a job ended; `state` is one of `RAN`."""
        self._jobs_ran(job, state).inc()
        if state != "skipped":
            self._job_s(job).observe(seconds)

    def heartbeat(self, now_ms: int) -> None:
        """The outgoing heartbeat arrived."""
        self._heartbeat.set(now_ms / 1000)

    def secrets_missing(self, provider: str, missing: bool) -> None:
        """A provider is half set (or whole again)."""
        self._secrets(provider).set(int(missing))

    # --- reading ------------------------------------------------------------------------------------

    def know_routes(self, routes: Iterable[str]) -> None:
        """The route templates, once the application has them: they come after the metrics."""
        self._routes |= frozenset(routes)
        for bound in (self._requests, self._request_errors, self._request_s):
            bound.closed = (bound.closed[0], self._routes, bound.closed[2])

    def know_queues(self, queues: Iterable[str]) -> None:
        """The outbox's topics, once they are built. A queue without messages shows 0."""
        self._queues = tuple(dict.fromkeys((*self._queues, *queues)))
        for bound in (self._queue_size, self._queue_due, self._queue_held, self._queue_dead, self._queue_age):
            bound.closed = (frozenset(self._queues),)

    def watch_storage(self, look: Callable[[], tuple[object, bool]]) -> None:
        """`look() -> (Database.stats, writable)`, called at every scrape."""
        self.registry.register(Storage(look))

    def measured(self, found: Measured) -> None:
        """Put what `measure` read into the gauges."""
        for name in self._queues:
            backlog = found.backlog.get(name, Backlog())
            self._queue_size(name).set(backlog.pending)
            self._queue_due(name).set(backlog.due)
            self._queue_held(name).set(backlog.held)
            self._queue_dead(name).set(backlog.dead)
            oldest = backlog.oldest_due_at_ms
            self._queue_age(name).set(0 if oldest is None else max(0, found.now_ms - oldest) / 1000)
        for status in RESTING:
            self._callbacks(status).set(found.callbacks.get(status, 0))
        self._quarantined.set(found.quarantined)
        self._attention_open.set(found.attention)
        check = found.checked
        self._ledger_sound.set(int(check is None or bool(check["sound"])))
        self._ledger_checked.set(0 if check is None else check["ended_at_ms"] / 1000)
        trouble = found.endpoints
        for state, count in zip(("failing", "circuit_open", "disabled"), trouble, strict=False):
            self._endpoints(state).set(count)
        self._tallied.totals = found.tallies
        for job, times_ms in found.jobs.items():
            for gauge, at_ms in zip((self._job_last, self._job_well), times_ms, strict=True):
                if at_ms is not None:
                    gauge(job).set(at_ms / 1000)
        since_ms = trouble.failing_since_ms
        self._failing_longest.set(0 if since_ms is None else max(0, found.now_ms - since_ms) / 1000)

    def render(self) -> bytes:
        """The text that Prometheus reads; its type is `CONTENT_TYPE`."""
        return generate_latest(self.registry)

    # --- building -----------------------------------------------------------------------------------

    def _start(self) -> None:
        """Small families are there from the first scrape, at 0, so that alert rules see them rise."""
        self._ledger_sound.set(1)  # nothing is known against it
        for bound in (self._by_status, self._attention, self._deliveries, self._delivery_errors, self._illegal):
            for value in sorted(bound.closed[0]):
                bound(value)
        for bound in (self._received, self._by_gateway, self._secrets):
            for provider in sorted(bound.closed[0]):
                bound(provider, *("kept",) * (len(bound.closed) - 1))

    def _counter(self, name: str, text: str, labels: tuple[str, ...], *closed: Iterable[str]) -> _Bound:
        return _Bound(Counter(name, text, labels, registry=self.registry), tuple(map(frozenset, closed)))

    def _gauge(self, name: str, text: str, labels: tuple[str, ...], *closed: Iterable[str]) -> _Bound:
        return _Bound(Gauge(name, text, labels, registry=self.registry), tuple(map(frozenset, closed)))

    def _histogram(
        self, name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...], *closed: Iterable[str]
    ) -> _Bound:
        metric = Histogram(name, text, labels, buckets=buckets, registry=self.registry)
        return _Bound(metric, tuple(map(frozenset, closed)))

    def _plain_gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry)

    def _plain_histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, buckets=buckets, registry=self.registry)


def _delivery_error(reason: str) -> str:
    """The outbox's word with its status as a class: `http_503` becomes `http_5xx`."""
    return f"http_{reason[5]}xx" if reason.startswith("http_") and len(reason) == 8 else reason
