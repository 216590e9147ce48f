"""What the screen shows: one cheap read of the database, the counters of player and shop, one-line sentences."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, Integer, and_, case, cast, exists, func, not_, select

from outbox.destinations import Destinations
from outbox.tables import Tables
from service.application import Application
from service.callbacks.tables import callbacks
from service.database import StorageError
from service.ids import now_ms
from service.merchants.events import WEBHOOK
from service.payments.tables import payments
from service.providers import PROVIDERS
from service.sandbox.figures import money
from service.sandbox.merchant import Receipt
from service.sandbox.neighbours import Listener
from service.sandbox.player import Player
from service.sandbox.rows import Row, news, recovery
from service.sandbox.screen import Inflow, Outflow, Rates, Snapshot, Sums, time_of_day
from service.sandbox.stall import Stall
from service.sandbox.treasury import Treasury
from service.schema import outbox_tables

_PAID = ("succeeded", "partially_refunded", "refunded")
_PENDING = ("pending", "requires_action", "unknown", "authorized")


@dataclass(frozen=True, slots=True)
class Seen:
    """What one read of the database found."""

    callbacks: Mapping[tuple[str, str], tuple[int, int]]  # (provider, status) -> rows, times seen
    payments: Sequence[tuple[str, str, int, int, int, int]]  # status, currency, count, asked, captured, refunded
    disputed: int
    outflow: Outflow
    due: int
    oldest_due_ms: int
    busy: int  # callbacks, questions and webhooks that are due, or in flight: what the end waits for
    rows: Mapping[str, Row]  # by endpoint
    took_ms: int


def see(tx: Connection, tables: Tables, at_ms: int, listeners: Sequence[Listener]) -> Seen:
    """Everything the screen shows of the database, with a row for each of the listeners."""
    began_ms = now_ms()
    found = {
        (row[0], row[1]): (row[2], row[3])
        for row in tx.execute(
            select(callbacks.c.provider, callbacks.c.status, func.count(), func.sum(callbacks.c.seen_count)).group_by(
                callbacks.c.provider, callbacks.c.status
            )
        )
    }
    paid = [
        (row[0], row[1], row[2], row[3] or 0, row[4] or 0, row[5] or 0)
        for row in tx.execute(
            select(
                payments.c.status,
                payments.c.currency,
                func.count(),
                func.sum(payments.c.amount_minor),
                func.sum(payments.c.captured_minor),
                func.sum(payments.c.refunded_minor),
            )
            .where(payments.c.merged_into.is_(None))
            .group_by(payments.c.status, payments.c.currency)
        )
    ]
    disputed = tx.execute(
        select(func.count()).select_from(payments).where(payments.c.exceptions.contains("disputed"))
    ).scalar_one()
    m = tables.messages.c
    tried = case((m.tries > 0, 1), else_=0)
    resting = case((m.claim == m.settled_claim, 1), else_=0)
    # What waits for one who hangs or is down is in his row; it delays nobody.
    counts = m.destination.not_in([listener.endpoint for listener in listeners if listener.patient])
    is_due = cast(and_(m.due_at_ms <= at_ms, counts), Integer)
    pending = {
        row[0]: row
        for row in tx.execute(
            select(
                m.topic,
                func.count(),
                func.sum(tried),
                func.sum(is_due),
                func.min(case((counts, m.due_at_ms))),
                func.min(case((and_(counts, m.tries > 0, m.claim == m.settled_claim), m.due_at_ms))),
                func.sum(case((and_(counts, (is_due == 1) | (resting == 0)), 1), else_=0)),
            )
            .where(m.state == "pending")
            .group_by(m.topic)
        )
    }
    rows = _rows(tx, tables, at_ms, listeners)
    ended = {
        row[0]: row[1]
        for row in tx.execute(
            select(m.state, func.count()).where(m.topic == WEBHOOK, m.state != "pending").group_by(m.state)
        )
    }
    webhook = pending.get(WEBHOOK)
    next_retry_s = None
    if webhook is not None and webhook[5] is not None:
        next_retry_s = max(0.0, (webhook[5] - at_ms) / 1000)
    outflow = Outflow(
        delivered=ended.get("done", 0),
        waiting=webhook[1] - webhook[2] if webhook is not None else 0,
        retrying=webhook[2] if webhook is not None else 0,
        dead=ended.get("dead", 0),
        next_retry_s=next_retry_s,
    )
    due = sum(row[3] for row in pending.values())
    oldest = min((row[4] for row in pending.values() if row[4] is not None), default=at_ms)
    busy = sum(row[6] for topic, row in pending.items() if topic != "deferred")
    return Seen(found, paid, disputed, outflow, due, max(0, at_ms - oldest), busy, rows, now_ms() - began_ms)


def _rows(tx: Connection, tables: Tables, at_ms: int, listeners: Sequence[Listener]) -> dict[str, Row]:
    m, other = tables.messages.c, tables.messages.alias().c
    brought = exists().where(
        other.subject == m.subject, other.destination == m.destination, other.state.in_(("done", "pending"))
    )
    counts: dict[tuple[str, str], int] = {}
    flying: dict[str, int] = {}
    for name, state, number, claimed in tx.execute(
        select(m.destination, m.state, func.count(), func.sum(cast(m.claim > m.settled_claim, Integer)))
        .where(m.topic == WEBHOOK)
        .group_by(m.destination, m.state)
    ):
        counts[name, state] = number
        flying[name] = flying.get(name, 0) + claimed
    missed = {
        row[0]: (row[1], row[2])
        for row in tx.execute(
            select(m.destination, func.count(m.subject.distinct()), func.min(m.created_at_ms))
            .where(m.topic == WEBHOOK, m.state == "dead", not_(brought))
            .group_by(m.destination)
        )
    }
    destinations = Destinations(tables)
    rows: dict[str, Row] = {}
    for listener in listeners:
        name = listener.endpoint
        standing = destinations.standing(tx, WEBHOOK, name)
        missing, since_ms = missed.get(name, (0, 0))
        rows[name] = Row(
            name=listener.name,
            endpoint=name,
            circuit=standing.circuit(at_ms),
            again_s=max(0, standing.paused_until_ms - at_ms) / 1000,
            delivered=counts.get((name, "done"), 0),
            owed=counts.get((name, "pending"), 0),
            failed=counts.get((name, "dead"), 0),
            missing=missing,
            in_flight=flying.get(name, 0),
            since_ms=since_ms,
        )
    return rows


class Look:
    """Makes snapshots: one cheap read at most twice a second, and fewer when the tables have grown large."""

    def __init__(
        self,
        app: Application,
        listeners: Sequence[Listener],
        player: Player,
        told: Callable[[str], str],
        treasury: Treasury | None = None,
        stall: Stall | None = None,
    ) -> None:
        """
        The first listener is the shop; `told` makes of a command what is to be typed in another terminal; `treasury`
        knows who was really paid, `stall` sells for somebody else.
        """
        self._app, self._listeners, self._player, self._command = app, listeners, player, told
        self._shop, self._treasury, self._stall = listeners[0].shop, treasury, stall
        self._rows: list[Row] = []
        self._began_ms = now_ms()
        self._rates = Rates()
        self._seen: Seen | None = None
        self._next_ms = 0
        self._lines: list[tuple[str, str, str]] = []
        self._told = 0

    async def __call__(self) -> Snapshot:
        """Now."""
        at_ms = now_ms()
        if self._seen is None or at_ms >= self._next_ms:
            # A read that the busy database did not answer in time shows the last picture once more.
            with contextlib.suppress(StorageError):
                self._seen = await self._app.db.read(see, outbox_tables, at_ms, self._listeners)
                self._next_ms = at_ms + max(450, 20 * self._seen.took_ms)
        seen = self._seen or Seen({}, (), 0, Outflow(), 0, 0, 0, {}, 0)
        played, stats = self._player.played, self._app.db.stats
        self._tell_changes([self._row(listener, seen, at_ms / 1000) for listener in self._listeners], at_ms / 1000)
        self._tell()
        return Snapshot(
            elapsed_s=(at_ms - self._began_ms) / 1000,
            inflows=[self._inflow(name, seen, at_ms / 1000) for name in PROVIDERS],
            refused=played.refused,
            postponed=played.postponed,
            paid=_sums(seen, _PAID, 4),
            refunded=_sums(seen, _PAID[1:], 5),
            pending=_sums(seen, _PENDING, 3),
            unpaid=_sums(seen, ("failed", "canceled", "expired"), 3),
            disputed=seen.disputed,
            outflow=seen.outflow,
            shop=self._shop.counters,
            due=seen.due,
            oldest_due_s=seen.oldest_due_ms / 1000,
            commits_per_s=self._rates.of("commits", stats.commits, at_ms / 1000),
            wal_bytes=stats.wal_bytes,
            happened=self._lines,
            rows=self._rows,
            hint=next((hint for row in self._rows if (hint := self._hint(row, at_ms))), None),
            paid_out=_paid_out(self._treasury),
            sale=self._stall.sale if self._stall else (),
        )

    def _row(self, listener: Listener, seen: Seen, at_s: float) -> Row:
        row = seen.rows.get(listener.endpoint, Row(listener.name, listener.endpoint))
        return replace(row, manner=listener.manner, took_s=listener.shop.delays.percentiles(at_s))

    def _hint(self, row: Row, at_ms: int) -> tuple[str, str] | None:
        command = recovery(row, at_ms)
        if not command:
            return None
        return f"{row.name} is up again and misses {row.missing}. In another terminal:", self._command(command)

    def _tell_changes(self, rows: list[Row], at_s: float) -> None:
        for before, row in zip(self._rows, rows, strict=False):
            self._lines += [(time_of_day(at_s), *said) for said in news(before, row)]
        self._rows = rows

    def _inflow(self, name: str, seen: Seen, at_s: float) -> Inflow:
        rows = {status: found for (provider, status), found in seen.callbacks.items() if provider == name}
        count = {status: found[0] for status, found in rows.items()}
        received, times = sum(count.values()), sum(found[1] for found in rows.values())
        acknowledged = sum(
            number
            for (provider, status), number in self._player.played.answers.items()
            if provider == name and 200 <= status < 300
        )
        return Inflow(
            title=PROVIDERS[name].title,
            received=received,
            repeated=times - received,
            per_s=self._rates.of(name, acknowledged, at_s),
            processed=count.get("processed", 0),
            ignored=count.get("ignored", 0),
            parked=count.get("parked", 0),
            deferred=count.get("deferred", 0),
            dead=count.get("dead", 0),
            waiting=count.get("received", 0),
        )

    def _tell(self) -> None:
        """One sentence for each thing that the shop has newly heard and that is worth a line."""
        new = self._shop.recorded - self._told
        self._told = self._shop.recorded
        receipts = list(self._shop.receipts)
        for receipt in receipts[len(receipts) - min(new, len(receipts)) :]:
            said = sentence(receipt, self._player.payers)
            if said:
                self._lines.append((time_of_day(receipt.at_s), *said))
        del self._lines[:-60]


def _sums(seen: Seen, statuses: Sequence[str], column: int) -> Sums:
    count, minor = 0, dict[str, int]()
    for row in seen.payments:
        if row[0] in statuses:
            count += row[2]
            minor[row[1]] = minor.get(row[1], 0) + int(row[column])
    return Sums(count, minor)


def _paid_out(treasury: Treasury | None) -> Sums:
    minor, paid = dict[str, int](), treasury.paid_out() if treasury else []
    for one in paid:
        minor[one.currency] = minor.get(one.currency, 0) + one.paid_minor - one.returned_minor
    return Sums(len(paid), minor)


_DELIVERED = {1: "webhook delivered", 2: "delivered on 2nd try", 3: "delivered on 3rd try"}
_TROUBLE = {"unavailable": "shop failed, retrying", "lost": "answer lost, retrying"}
_REASONS = {
    "insufficient_funds": "not enough money",
    "limit_reached": "limit reached",
    "wrong_pin": "wrong PIN",
    "timed_out": "no answer in time",
    "declined_by_user": "declined by the payer",
}


def sentence(receipt: Receipt, payers: Mapping[str, str]) -> tuple[str, str] | None:
    """Style and one line about a webhook that the shop got: "Paystack · 12 500 XOF paid by Orange Money → …"."""
    payment = receipt.payment
    kind = receipt.type.removeprefix("payment.")
    if not payment or kind in ("pending", "requires_action"):
        return None
    amount = money(int(payment.get("amount") or 0), str(payment.get("currency") or ""))
    back = money(int(payment.get("amount_refunded") or 0), str(payment.get("currency") or ""))
    names = (payment.get("provider_reference"), payment.get("reference"))
    payer = next((payers[name] for name in names if isinstance(name, str) and name in payers), "")
    reason = _REASONS.get(str(payment.get("failure_reason")), "")
    what, style = {
        "succeeded": (f"{amount} paid" + (f" by {payer}" if payer else ""), "green"),
        "failed": (f"{amount} not paid" + (f": {reason}" if reason else ""), ""),
        "canceled": (f"{amount} cancelled", ""),
        "expired": (f"{amount} not paid in time", ""),
        "refunded": (f"{amount} given back", ""),
        "partially_refunded": (f"{back} of {amount} given back", ""),
        "disputed": (f"{amount} disputed", "red"),
        "attention": (f"{amount} needs a look", "red"),
    }.get(kind, (f"{amount} {kind}", ""))
    title = PROVIDERS[payment["provider"]].title if payment.get("provider") in PROVIDERS else "?"
    if receipt.trouble in _TROUBLE:
        return "yellow", f"{title} · {what} → {_TROUBLE[receipt.trouble]}"
    delivered = _DELIVERED.get(receipt.tries, f"delivered on {receipt.tries}th try")
    return "bold green" if receipt.tries > 1 else style, f"{title} · {what} → {delivered}"
