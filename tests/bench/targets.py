"""What we hold ourselves to, as a table; and the one place that judges figures by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Target(NamedTuple):
    """
    One figure of one part, by its path in docs/performance.json, and the least or the most that it may be. `what` ends
    a sentence that begins with the figure: "0.9 × intake into an empty database".
    """

    part: str
    path: str
    what: str
    because: str
    least: float | None = None
    most: float | None = None
    unit: str = "×"

    def met(self, value: float) -> bool:
        """Whether this figure reaches the target; the limit itself does."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    @property
    def limit(self) -> str:
        """≥ 0.5 ×"""
        return f"≥ {self.least:,g} {self.unit}" if self.least is not None else f"≤ {self.most:,g} {self.unit}"

    def shown(self, value: float) -> str:
        """0.6 ×"""
        return f"{value:,.0f} {self.unit}" if value >= 1_000 else f"{value:.3g} {self.unit}"


TARGETS = (
    Target(
        "intake", "caisse.times_verify", "a handler that verifies and keeps nothing (intake, 64 clients)",
        "keeping a callback safely must not cost more than all the rest together", least=0.5,
    ),
    Target(
        "intake", "caisse.times_session", "an ordinary service, a durable session a request (intake)",
        "group commit is the reason for our one writer; if it were not worth this, we would write the ordinary service",
        least=8,
    ),
    Target(
        "waiting", "full.times_empty", "intake into an empty database, with 100,000 waiting and nobody working",
        "a worker that stands still must not be felt at the door", least=0.9,
    ),
    Target(
        "large", "full.times_empty", "intake into an empty database, with 5,000,000 stored",
        "a shop that lasts for years must not become slow", least=0.8,
    ),
    Target(
        "end_to_end", "sustained_per_second", "over 50 endpoints for 60 s, all delivered and the queue not growing",
        "a shop's busiest minute, a few hundred times over", least=1_000, unit="callbacks a second",
    ),
    Target(
        "sql", "calls_per_callback", "for each callback, from intake to the recorded delivery (an executemany is one)",
        "batches stay batches", most=12, unit="SQL calls",
    ),
    Target(
        "latency", "p50_ms.median", "from our 200 to the receipt, at 100 a second, p50",
        "the buyer still looks at the page", most=20, unit="ms",
    ),
    Target(
        "latency", "p99_ms.median", "from our 200 to the receipt, at 100 a second, p99",
        "the same, on a bad day", most=150, unit="ms",
    ),
    Target(
        "isolation", "hanging.times_alone", "the others' p99 when all is well, with one endpoint of 50 hanging",
        "one merchant's broken shop is no other's trouble", most=1.5,
    ),
    Target(
        "isolation", "backlog.times_alone", "the others' p99 when all is well, with 100,000 due to one endpoint of 50",
        "nor is what it has missed", most=1.5,
    ),
    Target(
        "claim", "deep.times_few", "the claim with 1,000 pending, with 1,000,000 over 50 destinations",
        "a queue that is slower when it is deep never becomes empty", most=2,
    ),
    Target(
        "claim", "wide.times_few", "the claim with 1,000 pending, with 1,000,000 over 5,000 destinations",
        "nor may many merchants make it slow", most=2,
    ),
    Target(
        "paying", "payment.overhead_ms.median", "for a payment at 50 a second beside the provider's own time, p50",
        "a payer waits for the provider, not for us", most=10, unit="ms",
    ),
    Target(
        "paying", "verify.p50_ms.median", "to say how a session stands, from the database, p50",
        "every page that waits asks it every few seconds", most=3, unit="ms",
    ),
    Target(
        "paying", "routing.p50_ms.median", "to choose among 1,000 routes and to explain it, p50",
        "rules are there to be written, not to be spared", most=1, unit="ms",
    ),
    Target(
        "paying", "payment_with_key.times_without", "our time for a payment without Idempotency-Key, with one",
        "who is careful must not be slower for it", most=1.5,
    ),
    Target(
        "paying", "order_with_key.times_without", "an order without Idempotency-Key, with one",
        "nor where the request itself is cheap", most=1.5,
    ),
    Target(
        "hostile", "times_alone", "the honest p99 alone, beside 500 slow sockets",
        "nobody can close the door by standing in it", most=2,
    ),
    Target(
        "memory", "rest.megabytes.median", "over all processes, at rest",
        "it shares a small machine with a shop", most=160, unit="MB",
    ),
    Target(
        "memory", "waiting.megabytes.median", "over all processes, with 100,000 callbacks waiting",
        "what waits belongs on the disk", most=300, unit="MB",
    ),
    Target(
        "memory", "owed.megabytes.median", "over all processes, with 100,000 webhooks owed to who never answers",
        "the same, while it is being worked on", most=300, unit="MB",
    ),
    Target(
        "expiring", "expiring.seconds.median", "until 10,000 stale orders are expired, while callbacks come in",
        "their stock is wanted by somebody else", most=60, unit="s",
    ),
    Target(
        "expiring", "expiring.times_alone.median", "intake's p99 with nothing else, while 10,000 orders expire",
        "what the clock does must not be felt at the door", most=1.5,
    ),
    Target(
        "releasing", "kept.seconds.median", "until 10,000 due holds are released",
        "sellers look at their balance when the hour is full", most=30, unit="s",
    ),
    Target(
        "releasing", "paid_out.seconds.median", "until they are, with a payout of each that waits for approval",
        "the same, and whoever approves has the evening for it", most=30, unit="s",
    ),
    Target(
        "ledger", "beneficiary.p50_ms.median", "for one of 10,000 beneficiaries' balance over 1,000,000 postings, p50",
        "a page shows it, and pages are looked at again and again", most=5, unit="ms",
    ),
    Target(
        "ledger", "beneficiary.p99_ms.median", "for the same, p99",
        "a balance is never worth waiting for", most=5, unit="ms",
    ),
    Target(
        "ledger", "verify.all.seconds.median", "for caisse verify over 1,000,000 postings, statuses and all",
        "what takes longer is done less often than it should be", most=30, unit="s",
    ),
    Target(
        "start", "full.ready_ms.median", "from the start to ready, with 1,000,000 callbacks stored",
        "a restart is a pause, not an outage", most=3_000, unit="ms",
    ),
)  # fmt: skip


def found(told: Mapping[str, Any], target: Target) -> float | None:
    """The target's figure; None when it was not measured."""
    value: Any = told.get(target.part)
    for name in target.path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return None if value is None else float(value)


def missed(told: Mapping[str, Any]) -> list[str]:
    """
    One sentence for each target that these figures do not reach. A part that was not run, or was skipped, is not
    judged; one that was run and lacks its figure is missed, unless it says that it is `partial`.
    """
    sentences = []
    for target in TARGETS:
        part = told.get(target.part)
        if part is None or "skipped" in part:
            continue
        value = found(told, target)
        if value is None:
            if not part.get("partial"):
                sentences.append(f"{target.part}: no figure for {target.what}")
        elif not target.met(value):
            why = "".join(f"; {reason}" for reason in part.get("why_not", ()))
            sentences.append(f"{target.shown(value)} {target.what}, and it should be {target.limit}{why}")
    return sentences
