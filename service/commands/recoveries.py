"""deliveries recover | recoveries | recovery: what endpoints have missed, again, in bulk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select

from service.commands.shape import LIMIT, bounded, by, told
from service.commands.since import since_ms
from service.errors import NotFound, Refusal
from service.merchants import endpoints, merchants
from service.merchants.endpoints import PER_MINUTE_MAX
from service.merchants.events import CATALOGUE, rfc3339
from service.merchants.missed import FIRST, Phase, Scope, look
from service.merchants.recovery import begin, cancel, one, pause, resume
from service.merchants.tables import recoveries
from service.payments.tables import payments

if TYPE_CHECKING:
    from service.application import Application

Progress = Callable[[int, int | None], None]

ENDPOINTS_SHOWN = 500
"""Those with the most; all of them are counted."""
_COUNTED = ("failed", "waiting", "skipped", "disabled")


async def recover(
    app: Application,
    *,
    since: str,
    endpoint: str | None = None,
    type: str | None = None,  # noqa: A002 - the option's name
    payment: str | None = None,
    merchant: str | None = None,
    per_minute: int | None = None,
    reason: str = "",
    dry_run: bool = False,
    actor: str = "cli",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """
    Deliver again what endpoints have missed since a time, as a stored job; `dry_run` only counts.

    `recovery` in the answer is the job, or null: a dry run, or nothing was missed. It is not waited for.
    """
    now_ms = app.clock()
    scope = Scope(since_ms(since, now_ms, app.settings.timezone), now_ms, endpoint, type, payment, merchant)
    if per_minute is not None and not 1 <= per_minute <= PER_MINUTE_MAX:
        raise Refusal("bad_per_minute", f"--per-minute is between 1 and {PER_MINUTE_MAX}.")
    await app.db.read(_check, scope)
    counts: dict[str, Counter[str]] = {what: Counter() for what in _COUNTED}
    phase: Phase | None = FIRST
    cursor, looked = "", 0
    while phase is not None:
        stride = await app.db.read(look, scope, phase, cursor, app.clock())
        counts["failed"].update(to for _, to in stride.failed)
        counts["waiting"].update(to for _, to in stride.waiting)
        counts["skipped"] += stride.skipped
        counts["disabled"] += stride.disabled
        phase, cursor, looked = stride.phase, stride.cursor, looked + stride.looked
        if progress is not None:
            progress(looked, None)
    found: dict[str, Any] = {what: count.total() for what, count in counts.items()}
    shown = await app.db.read(_by_endpoint, counts)
    job = None
    if not dry_run and found["failed"] + found["waiting"]:
        hand = by(app, actor)
        id_ = await app.db.write(lambda tx: begin(tx, app.queue, scope, per_minute, looked, hand, reason))
        app.nudge()
        job = await show(app, recovery=id_)
    return {
        "dry_run": dry_run,
        "since": rfc3339(scope.since_ms),
        "looked": looked,
        "found": found,
        "endpoints": shown,
        "recovery": job,
    }


async def listed(app: Application, *, limit: int = LIMIT) -> list[dict[str, Any]]:
    """Recoveries, the newest first."""
    query = select(recoveries).order_by(recoveries.c.id.desc()).limit(bounded(limit))
    rows = await app.db.read(lambda tx: [dict(row) for row in tx.execute(query).mappings()])
    return [_shown(app, row) for row in rows]


async def show(app: Application, *, recovery: str) -> dict[str, Any]:
    """One recovery: what it is for, and how far it is."""
    return _shown(app, await app.db.read(one, recovery))


async def change(app: Application, *, recovery: str, to: str, actor: str = "cli") -> dict[str, Any]:
    """Pause, resume or cancel a recovery; what it has promised already is delivered all the same."""
    hand = by(app, actor)

    def work(tx: Connection) -> None:
        match to:
            case "pause":
                pause(tx, recovery, hand)
            case "resume":
                resume(tx, app.queue, recovery, hand)
            case "cancel":
                cancel(tx, recovery, hand)
            case _:
                raise Refusal("bad_change", "A recovery can be told to pause, resume or cancel.")

    await app.db.write(work)
    app.nudge()
    return await show(app, recovery=recovery)


def _check(tx: Connection, scope: Scope) -> None:
    if scope.merchant:
        merchants.one(tx, scope.merchant)
    if scope.endpoint:
        whose = endpoints.one(tx, scope.endpoint)["merchant_id"]
        if scope.merchant not in (None, whose):
            raise Refusal("not_theirs", f"The endpoint {scope.endpoint} belongs to {whose}, not to {scope.merchant}.")
    if scope.type is not None and scope.type not in CATALOGUE:
        there = ", ".join(CATALOGUE)
        raise Refusal("unknown_event_type", f"There is no event type {scope.type[:60]!r}; there are {there}.")
    known = select(payments.c.id).where(payments.c.id == scope.payment)
    if scope.payment and tx.execute(known).first() is None:
        raise NotFound("payment", scope.payment, "caisse payments list")


def _by_endpoint(tx: Connection, counts: dict[str, Counter[str]]) -> list[dict[str, Any]]:
    most = Counter[str]()
    for count in counts.values():
        most += count
    rows = []
    for id_, _ in most.most_common(ENDPOINTS_SHOWN):
        row = endpoints.one(tx, id_)
        counted = {what: counts[what][id_] for what in _COUNTED}
        rows.append({"id": id_, "url": row["url"], "status": row["status"], **counted})
    return rows


def _shown(app: Application, row: dict[str, Any]) -> dict[str, Any]:
    shown = told(row, "cursor", "piece", "since_ms")
    shown["since"] = rfc3339(row["since_ms"])
    shown["total"] = row["looked"] if row["status"] == "finished" else max(row["total"], row["looked"])
    shown["served"] = app.dispatcher is not None  # without a running service it waits
    return shown
