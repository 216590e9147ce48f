"""When each job runs, for how long it may, and how late it is still run. Data alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

MINUTE, HOUR = 60_000, 3_600_000
DAY = 24 * HOUR


@dataclass(frozen=True, slots=True)
class Planned:
    """
    One row: a cron expression in the zone of `CAISSE_TIMEZONE`, and what the job is for.

    `catch_up_ms`: a run that was missed is made up for so long. `quiet`: not in the first two minutes after a start,
    when what came while we were down is still being worked on.
    """

    expression: str
    sentence: str
    catch_up_ms: int
    limit_ms: int = 5 * MINUTE
    quiet: bool = False


TIMETABLE: Final[Mapping[str, Planned]] = {
    "expire-stale-orders": Planned(
        "*/5 * * * *", "Finds orders and sessions whose time is up and that nothing else ended.", DAY, quiet=True
    ),
    "cleanup-stale-payment-intents": Planned(
        "0 3 * * 0", "Has payments cancelled at their providers that were begun over a day ago, for nothing that "
        "still waits for them.", 6 * DAY, quiet=True,
    ),
    "release-escrow": Planned(
        "* * * * *", "Releases held money whose time has come, and finds what was never delivered.", DAY, quiet=True
    ),
    "ask-about-stuck-attempts": Planned(
        "*/10 * * * *", "Has providers asked again about payments, refunds and payouts that nobody asks about.", DAY
    ),
    "verify-ledger": Planned(
        "15 4 * * *", "Proves that the ledger adds up and that every status follows from its facts.", DAY, 30 * MINUTE
    ),
    "rest-failing-endpoints": Planned(
        "*/15 * * * *", "Warns of endpoints that only fail, and disables them after five days.", DAY, quiet=True
    ),
    "prune": Planned("30 2 * * *", "Forgets what is older than the settings say.", DAY),
    "reconcile": Planned("0 5 * * *", "Compares what providers list with what is kept here.", DAY),
    "backup": Planned("0 1 * * *", "Makes a consistent copy of the database.", DAY, 30 * MINUTE),
}  # fmt: skip
"""Every job. Whoever runs them adds what each one does (`jobs.py`)."""

LEASE_OVER_LIMIT_MS: Final = MINUTE
"""A process that is silent for so long after its job's limit is taken for dead."""
