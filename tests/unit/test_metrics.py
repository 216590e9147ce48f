"""Metrics: every family of the mission, and labels that cannot grow."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import create_engine, insert

import service.callbacks.tables
import service.merchants.tables
import service.payments.tables
from outbox.message import Promise
from outbox.queue import Queue
from service.metrics import Metrics, measure
from service.providers import PROVIDERS
from service.schema import metadata, outbox_tables

ROUTES = ("/webhooks/{provider}", "/healthz")
QUEUES = ("stripe", "payments", "webhook")
HOSTILE = ("pay_01JD2Q8Z7C4B9X0V5T6R3N1M2K", "evt_1", "../../etc", "", "x" * 10_000, 'é\n"}')


def made() -> Metrics:
    metrics = Metrics(PROVIDERS, QUEUES, ROUTES)
    metrics.watch_storage(lambda: (SimpleNamespace(commits=3, wal_bytes=4096), True))
    return metrics


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    found = metrics.registry.get_sample_value(name, labels)
    return None if found is None else float(found)


def test_the_families_of_the_mission_are_there() -> None:
    """Dashboards and alert rules find what mission C6 names, from the first scrape."""
    metrics = made()
    metrics.request("GET", "/healthz", 500, 0.1)
    metrics.payment("stripe", "succeeded")
    metrics.payment_begun("stripe")
    metrics.payment_amount("XOF", 5_000)
    metrics.callback("stripe", "kept")
    metrics.delivery("done")
    metrics.try_ended(0.2, "http_503")
    text = metrics.render().decode()
    for name in (
        "http_request_duration_seconds_bucket", "http_requests_total", "http_request_errors_total", "payments_total",
        "payments_by_gateway_total", "payments_by_status_total", "payment_amount_sum", "webhooks_received_total",
        "webhook_deliveries_total", "webhook_delivery_errors_total", "webhook_delivery_duration_seconds_bucket",
        "active_connections", "storage_commits_total", "storage_wal_bytes", "storage_writable",
        "heartbeat_last_success_timestamp_seconds", "illegal_transitions_total", "attention_opened_total",
        "callbacks_quarantined",
    ):  # fmt: skip
        assert re.search(rf"^{name}[ {{]", text, re.MULTILINE), name
    assert 'payments_total{gateway="stripe",status="succeeded"} 1.0' in text
    assert 'webhook_delivery_errors_total{reason="http_5xx"} 1.0' in text
    assert 'http_request_errors_total{method="GET",route="/healthz",status="5xx"} 1.0' in text
    assert 'payment_amount_sum{currency="XOF"} 5000.0' in text


@pytest.mark.parametrize("word", HOSTILE)
def test_no_label_holds_what_it_was_not_built_for(word: str) -> None:
    """Whatever is recorded, the values of every label stay in their closed set: an id becomes `other`."""
    metrics = made()
    for _ in range(3):
        metrics.request(word, word, 200, 0.1)
        metrics.callback(word, word)
        metrics.callback_refused(word, word)
        metrics.callback_finished(word, word)
        metrics.payment(word, word)
        metrics.payment_begun(word)
        metrics.payment_amount(word, 1)
        metrics.asked(word, word)
        metrics.delivery(word)
        metrics.try_ended(0.1, word or "x")
        metrics.illegal_transition(word)
        metrics.attention(word)
        metrics.secrets_missing(word, True)
    labels = {
        label_value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        for label, label_value in sample.labels.items()
    }
    assert word not in labels
    assert "other" in labels
    assert value(metrics, "payments_total", gateway="other", status="other") == 3


def test_strange_words_do_not_grow_the_memory() -> None:
    """Ten thousand different ids are one child."""
    metrics = made()
    before = len(metrics.render())
    metrics.callback("nobody", "nothing")
    once = len(metrics.render())
    for number in range(10_000):
        metrics.callback(f"provider-{number}", f"result-{number}")
    assert len(metrics.render()) - once < 40
    assert once > before
    assert len(metrics._received.children) < 50


def test_each_application_has_its_own_registry() -> None:
    """Two in one process do not count into each other."""
    one, other = made(), made()
    one.callback("stripe", "kept")
    assert value(one, "webhooks_received_total", provider="stripe", result="kept") == 1
    assert value(other, "webhooks_received_total", provider="stripe", result="kept") == 0


def test_what_only_the_database_knows_is_measured(tmp_path: Path) -> None:
    """Queue sizes, the age of the oldest due message, resting callbacks, quarantine, open attention."""
    engine = create_engine(f"sqlite:///{tmp_path / 'a.db'}")
    metadata.create_all(engine)
    queue, metrics = Queue(outbox_tables), made()
    with engine.begin() as tx:
        queue.enqueue(tx, [Promise("a", "stripe", "acc", "cb", due_at_ms=1_000)], 1_000)
        queue.enqueue(tx, [Promise("b", "stripe", "acc", "cb", due_at_ms=90_000)], 1_000)
        row = {
            "provider": "stripe",
            "reason": "bad_signature",
            "method": "POST",
            "headers": "[]",
            "query": b"",
            "body": b"",
        }
        tx.execute(
            insert(service.callbacks.tables.quarantine), {**row, "id": "q", "account_id": "a", "received_at_ms": 1}
        )
        tx.execute(
            insert(service.payments.tables.attention), {"id": "t", "subject": "p", "reason": "late", "opened_at_ms": 1}
        )
        metrics.measured(measure(tx, queue, 11_000))
    engine.dispose()
    assert value(metrics, "queue_size", queue="stripe") == 2
    assert value(metrics, "queue_due", queue="stripe") == 1
    assert value(metrics, "queue_oldest_due_age_seconds", queue="stripe") == 10
    assert value(metrics, "queue_size", queue="webhook") == 0
    assert value(metrics, "callbacks_quarantined") == 1
    assert value(metrics, "attention_open") == 1
    assert value(metrics, "callbacks_resting", status="dead") == 0


def test_routes_and_queues_may_come_later() -> None:
    """They are known only when the rest has been built."""
    metrics = Metrics(PROVIDERS)
    metrics.request("GET", "/readyz", 200, 0.1)
    metrics.know_routes(("/readyz",))
    metrics.request("GET", "/readyz", 200, 0.1)
    assert value(metrics, "http_requests_total", method="GET", route="other", status="2xx") == 1
    assert value(metrics, "http_requests_total", method="GET", route="/readyz", status="2xx") == 1
