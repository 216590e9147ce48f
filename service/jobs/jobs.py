"""The jobs of one application: the timetable, and what each of them does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from scheduler import Counters, Job, Schedule, Tick
from service.jobs.ask_about_stuck_attempts import ask_about_stuck_attempts
from service.jobs.backup import backup
from service.jobs.cleanup_stale_payment_intents import cleanup_stale_payment_intents
from service.jobs.expire_stale_orders import expire_stale_orders
from service.jobs.prune import prune
from service.jobs.reconcile import reconcile
from service.jobs.release_escrow import release_escrow
from service.jobs.rest_failing_endpoints import rest_failing_endpoints
from service.jobs.timetable import LEASE_OVER_LIMIT_MS, TIMETABLE
from service.jobs.verify_ledger import verify_ledger

if TYPE_CHECKING:
    from service.application import Application

_DOES: Final[Mapping[str, Callable[[Application, Tick], Awaitable[Counters]]]] = {
    "expire-stale-orders": expire_stale_orders,
    "cleanup-stale-payment-intents": cleanup_stale_payment_intents,
    "release-escrow": release_escrow,
    "ask-about-stuck-attempts": ask_about_stuck_attempts,
    "verify-ledger": verify_ledger,
    "rest-failing-endpoints": rest_failing_endpoints,
    "prune": prune,
    "reconcile": reconcile,
    "backup": backup,
}


def jobs(app: Application, instead: Mapping[str, str] | None = None, quiet: bool = True) -> list[Job]:
    """
    Every job. For a demonstration: `instead`, other cron expressions than the timetable's, by job, and not `quiet`,
    which begins at once after a start.
    """
    instead = instead or {}
    return [
        Job(
            name,
            Schedule(instead.get(name, row.expression), app.settings.timezone),
            partial(_DOES[name], app),
            row.sentence,
            row.catch_up_ms,
            row.limit_ms,
            row.limit_ms + LEASE_OVER_LIMIT_MS,
            quiet and row.quiet,
        )
        for name, row in TIMETABLE.items()
    ]
