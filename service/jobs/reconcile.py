"""
The job `reconcile` and its topic: what providers list of the last days is compared with what is known here.

The job finds the accounts whose provider can list, and promises one message for each; every message reads one page,
writes down what it came to, and in the same transaction promises the next, with all that is still to be known. So
whatever dies in between is done again from the page it was at. The last one judges what was not listed, and when it was
the last of its merchant, tells the merchant once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import msgspec
import structlog
from sqlalchemy import Connection, select

from outbox import pruning
from outbox.message import Done, Drop, Message, Outcome, Promise, Retry, Trial
from outbox.policy import Policy
from outbox.queue import Queue
from outbox.topic import Topic
from scheduler import Counters, Tick
from service.attention import close_attention, open_attention
from service.ledger import reconcile as rows
from service.merchants.accounts import Entry
from service.merchants.events import News, tell
from service.merchants.tables import accounts, events
from service.payments.asking import question
from service.payments.client import LIMIT_MS
from service.payments.heard import Account, ours
from service.providers.base import Unclear
from service.providers.calls import Listed, Listing, broken_ask
from service.routing.gateways import missing
from service.schema import outbox_tables

if TYPE_CHECKING:
    from service.application import Application

log: Any = structlog.get_logger()

TOPIC: Final = "reconcile"
SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000
POLICY: Final = Policy(
    TOPIC,
    (MINUTE, 10 * MINUTE, HOUR, 6 * HOUR),
    lease_ms=LIMIT_MS + 15 * SECOND,
    limit_ms=LIMIT_MS + 5 * SECOND,
    in_flight=4,
    per_destination=1,
)
DAYS: Final = 3
DAYS_MAX: Final = 90
GRACE_MS: Final = HOUR
"""What is younger is left to the next run: callbacks may be on their way, and lists may lag."""
PAGES_MAX: Final = 2_000
HELD_AT_MOST: Final = 5_000
"""Payments whose being listed is watched for at a time; for more of them the span is listed once more."""
TOLD_AT_MOST: Final = 50
KEPT_MS: Final = 14 * rows.DAY_MS
UNANSWERED: Final = "reconcile_unanswered"
TOLD: Final = "ledger.reconciled"
LAST: Final = "told"


@dataclass(frozen=True, slots=True)
class Progress:
    """
    How far a comparison is; its JSON is the payload of its next message. `root` is the id of its first message. `left`
    are the attempts that a page must still name, `after` where those of the next `part` begin. `unread` items of the
    list could not be read, so that what is left may be among them. `over`: all pages were read. `tells`: the merchant
    hears of it, by the `last` message.
    """

    root: str
    since_ms: int
    until_ms: int
    day: str
    tells: bool
    part: int = 0
    page: int = 0
    cursor: str | None = None
    left: tuple[str, ...] | None = None
    after: str | None = None
    listed: int = 0
    found: int = 0
    unread: int = 0
    over: bool = False
    last: bool = False

    def promise(self, account_id: str) -> Promise:
        """The message that goes on from here."""
        first = not self.part and not self.page and not self.last
        id_ = self.root if first else f"{self.root}:{LAST if self.last else f'{self.part}:{self.page}'}"
        return Promise(id_, TOPIC, account_id, account_id, msgspec.json.encode(self).decode())


# --- the job ------------------------------------------------------------------------------------------


async def reconcile(app: Application, tick: Tick) -> Counters:
    """
    Promise a comparison for each account. `listed` is how many payments were since the run before, and `differences`
    how many are open.
    """
    day = datetime.fromtimestamp(tick.due_at_ms / 1000, UTC).astimezone(ZoneInfo(app.settings.timezone))
    word = day.strftime("%Y-%m-%d")
    found = listable(app)
    if not tick.dry_run:
        some = [begin(entry, f"{TOPIC}:{entry.id}:{word}", word, tick.now_ms, DAYS, tells=True) for entry in found]
        await app.db.write(_promise, app.queue, some, tick.now_ms)
        app.nudge()
    listed, differ = await app.db.read(_counted, tick.from_ms)
    return {"accounts": len(found), "listed": listed, "differences": differ}


def _promise(tx: Connection, queue: Queue, some: Sequence[Promise], now_ms: int) -> None:
    queue.enqueue(tx, some, now_ms)
    pruning.prune_ended(tx, outbox_tables, f"{TOPIC}:", f"{TOPIC};", now_ms - KEPT_MS)


def listable(app: Application) -> list[Entry]:
    """The accounts whose provider can list what there is, and can be called."""
    return [
        entry
        for entry in app.accounts()
        if entry.merchant_id is not None
        and app.calls[entry.provider].list is not None
        and not missing(entry.provider, entry.credentials)
    ]


def begin(entry: Entry, root: str, day: str, now_ms: int, days: int, *, tells: bool) -> Promise:
    """The first message of a comparison of the last `days`."""
    until_ms = now_ms - GRACE_MS
    return Progress(root, until_ms - days * rows.DAY_MS, until_ms, day, tells).promise(entry.id)


def _counted(tx: Connection, since_ms: int) -> tuple[int, int]:
    m = outbox_tables.messages.c
    ended = select(m.payload).where(
        m.id > f"{TOPIC}:", m.id < f"{TOPIC};", m.state == "done", m.created_at_ms > since_ms
    )
    runs = [msgspec.json.decode(payload, type=Progress) for payload in tx.execute(ended).scalars()]
    return sum(run.listed for run in runs if run.over and not run.last), sum(rows.counts(tx).values())


# --- the topic ----------------------------------------------------------------------------------------


def topic(app: Application) -> Topic:
    """What the outbox needs to know of it."""
    reconciler = Reconciler(app)
    return Topic(POLICY, act=reconciler.act, died=reconciler.died)


class Reconciler:
    """The handler of the topic."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def act(self, message: Message, _: Any) -> Outcome:
        """Read one page, or end. Nothing is concluded from a list that was not read to its end."""
        app, at = self._app, msgspec.json.decode(message.payload, type=Progress)
        entry = app.accounts().get(message.destination)
        if entry is None:
            return Retry("account_gone")
        listing = app.calls[entry.provider].list
        if entry.merchant_id is None or listing is None:
            return Done()
        account = Account(entry.id, entry.provider, entry.merchant_id, entry.live)
        if at.last:
            # Asked of what is committed: of two that end in one transaction neither knows what the other will write.
            if await app.db.read(_others_go_on, account, at.day):
                return Done()
            return Done(then=lambda tx: self._tell(tx, account, at))
        if at.over:
            return Done(then=lambda tx: self._end(tx, account, at))
        if at.page >= PAGES_MAX:
            return Drop("too_many_pages", trial=Trial(error="too_many_pages"))
        if at.left is None:
            span = entry.id, at.since_ms, at.until_ms, at.after or "", HELD_AT_MOST
            wanted = await app.db.read(rows.expected, *span)
            at = replace(at, left=wanted.attempts, after=wanted.after)
        talk = listing(Listing(at.since_ms, at.until_ms, at.cursor), entry.credentials)
        try:
            page = await app.client.run(entry.provider, entry.base_url, talk, broken_ask)
        except Exception as error:  # noqa: BLE001 - a fault of ours; nothing was learnt
            app.syncer.fault("list", error)
            page = Unclear("fault")
        if isinstance(page, Listed) and page.cursor is not None and page.cursor == at.cursor:
            page = Unclear("unreadable")
        if isinstance(page, Unclear):
            return Retry(page.reason, trial=Trial(error=page.reason))
        heard = page
        return Done(then=lambda tx: self._take(tx, account, at, heard))

    def died(self, tx: Connection, messages: Sequence[Message]) -> None:
        """This provider could not be listed for hours; tomorrow it is tried again."""
        for message in messages:
            at = msgspec.json.decode(message.payload, type=Progress)
            open_attention(tx, self._app.ids, message.destination, UNANSWERED, at.day, self._app.clock())
            self._app.queue.enqueue(tx, _last(at, message.destination), self._app.clock())

    # --- inside the transaction that settles

    def _take(self, tx: Connection, account: Account, at: Progress, page: Listed) -> None:
        app, now_ms = self._app, self._app.clock()
        said = rows.take_page(
            tx, account, page.told, ours(app.installation), at.until_ms, app.ids, app.settings.timezone, now_ms
        )
        again = at.part > 0  # a part more lists the same payments
        gone_on = replace(
            at,
            page=at.page + 1,
            cursor=page.cursor,
            left=tuple(id_ for id_ in at.left or () if id_ not in said.listed),
            listed=at.listed if again else at.listed + len(page.told),
            found=at.found if again else at.found + said.found,
            unread=at.unread + page.unread,
            over=page.cursor is None,
        )
        asks = [question(attempt.row, at.root, now_ms) for attempt in said.ask]
        app.queue.enqueue(tx, [gone_on.promise(account.id), *asks], now_ms)

    def _end(self, tx: Connection, account: Account, at: Progress) -> None:
        app, now_ms = self._app, self._app.clock()
        missed = rows.Compared(0, frozenset(), ())
        if at.left and not at.unread:
            missed = rows.take_missing(tx, account, at.left, app.ids, app.settings.timezone, now_ms)
        promises = [question(attempt.row, at.root, now_ms) for attempt in missed.ask]
        if at.after is not None:
            part = replace(at, part=at.part + 1, page=0, cursor=None, left=None, unread=0, over=False)
            app.queue.enqueue(tx, [part.promise(account.id), *promises], now_ms)
            return
        app.queue.enqueue(tx, [*promises, *_last(at, account.id)], now_ms)
        healed = rows.heal(tx, account.id, now_ms)
        close_attention(tx, account.id, UNANSWERED, now_ms)
        log.info(
            "reconcile.ended", account_id=account.id, provider=account.provider, listed=at.listed,
            found=at.found + missed.found, unread=at.unread, healed=healed,
        )  # fmt: skip

    def _tell(self, tx: Connection, account: Account, at: Progress) -> None:
        """Tell the merchant of the day, once, if anything differs."""
        app, sequence = self._app, int(at.day.replace("-", ""))
        e = events.c
        told = select(e.position).where(
            e.merchant_id == account.merchant_id, e.type == TOLD, e.sequence == sequence, e.live == account.live
        )
        if tx.execute(told.limit(1)).first() is not None:
            return
        since_day = datetime.fromtimestamp(at.since_ms / 1000, UTC).strftime("%Y-%m-%d")
        of = rows.Which(account.merchant_id, live=account.live, since_day=since_day)
        counts = rows.counts(tx, of)
        if not counts:
            return
        data: Mapping[str, Any] = {
            "day": at.day,
            "count": sum(counts.values()),
            "counts": counts,
            "differences": rows.listed(tx, of, limit=TOLD_AT_MOST),
        }
        news = News(account.merchant_id, TOLD, sequence, data, live=account.live)
        tell(tx, app.queue, [news], app.ids, app.clock())


def _last(at: Progress, account_id: str) -> list[Promise]:
    return [replace(at, last=True, left=()).promise(account_id)] if at.tells and not at.last else []


def _others_go_on(tx: Connection, account: Account, day: str) -> bool:
    """Whether anything of this merchant's is still being compared; then its own last message comes after."""
    a, m = accounts.c, outbox_tables.messages.c
    mine = select(a.id).where(a.merchant_id == account.merchant_id, a.live == account.live)
    for id_ in tx.execute(mine).scalars().all():
        root = f"{TOPIC}:{id_}:{day}"
        its = (m.id == root) | ((m.id > f"{root}:") & (m.id < f"{root};"))
        goes_on = select(m.id).where(its, m.state == "pending", m.id != f"{root}:{LAST}").limit(1)
        if tx.execute(goes_on).first() is not None:
            return True
    return False
