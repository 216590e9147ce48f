"""Figures that are not counted but read when Prometheus asks: the storage's, and totals that the database keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.escrow.payout_rows import TALLY


class Storage(Collector):
    """The database's own counters, read when somebody scrapes."""

    _COUNTERS: ClassVar = {
        "commits": "Commits, each for a batch.",
        "pieces": "Pieces of work committed.",
        "reruns": "Batches run again without the work that raised.",
        "unknown": "Pieces whose outcome is unknown.",
        "full": "Pieces refused because the disk was full.",
        "checkpoints": "Checkpoints.",
        "busy_checkpoints": "Checkpoints that a reader held back.",
    }
    _GAUGES: ClassVar = {"wal_bytes": "Size of the write-ahead log.", "waiting": "Pieces that wait for the writer."}

    def __init__(self, look: Callable[[], tuple[object, bool]]) -> None:
        self._look = look

    def collect(self) -> Iterator[Metric]:
        """Called by the registry."""
        stats, writable = self._look()
        for name, text in self._COUNTERS.items():
            counter = CounterMetricFamily(f"storage_{name}", text)
            counter.add_metric([], getattr(stats, name, 0))
            yield counter
        for name, text in {**self._GAUGES, "writable": "1 while the database can be written."}.items():
            gauge = GaugeMetricFamily(f"storage_{name}", text)
            gauge.add_metric([], float(writable) if name == "writable" else getattr(stats, name, 0))
            yield gauge


class Tallies(Collector):
    """Totals that the database keeps, so that they survive a restart; as the last scrape read them."""

    _COUNTERS: ClassVar = {
        "orders_expired": ("payments_expired_total", "Orders that expired unpaid."),
        "payments_canceled": ("payment_intents_canceled_total", "Payments cancelled at their providers for an order."),
        "stock_released": ("stock_released_total", "Pieces of stock that were given back."),
    }

    def __init__(self) -> None:
        self.totals: Mapping[str, int] = {}

    def collect(self) -> Iterator[Metric]:
        """Called by the registry."""
        for name, (metric, text) in self._COUNTERS.items():
            counter = CounterMetricFamily(metric, text)
            counter.add_metric([], self.totals.get(name, 0))
            yield counter
        payouts = CounterMetricFamily("payouts_total", "Payouts that came to a status.", labels=["provider", "status"])
        by_status: dict[str, int] = {}
        for name, value in sorted(self.totals.items()):
            if name.startswith(TALLY):
                provider, _, status = name.removeprefix(TALLY).partition(":")
                payouts.add_metric([provider, status], value)
                by_status[status] = by_status.get(status, 0) + value
        yield payouts
        total = CounterMetricFamily("payouts_by_status_total", "Payouts that came to a status.", labels=["status"])
        for status, value in by_status.items():
            total.add_metric([status], value)
        yield total
