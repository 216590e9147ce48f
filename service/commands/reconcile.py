"""reconcile: compare now with what providers list, by the same messages as every night."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import Connection, select

from outbox.dispatcher import Dispatcher
from service.errors import NotFound, Refusal
from service.jobs.reconcile import DAYS, DAYS_MAX, TOPIC, Progress, begin, listable, topic
from service.ledger import reconcile as rows
from service.schema import outbox_tables

if TYPE_CHECKING:
    from service.application import Application

Heard = Callable[[int, int | None], None]

WAIT_S: Final = 600.0
LOOK_S: Final = 0.1
SHOWN_AT_MOST: Final = 500
GRACE_MS: Final = 2_000


async def reconcile(
    app: Application, *, account: str | None = None, days: int = DAYS, progress: Heard | None = None
) -> dict[str, Any]:
    """Compare what providers list of the last days with what is known here. Raises Refusal: bad_days, cannot_list."""
    if type(days) is not int or not 1 <= days <= DAYS_MAX:
        raise Refusal("bad_days", f"days: 1 to {DAYS_MAX}.")
    entries = listable(app)
    if account is not None:
        if app.accounts().get(account) is None:
            raise NotFound("account", account, "caisse account list")
        entries = [entry for entry in entries if entry.id == account]
        if not entries:
            sentence = f"The provider of {account} has no list of payments, or its key or merchant is missing."
            raise Refusal("cannot_list", sentence)
    now_ms = app.clock()
    day = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(ZoneInfo(app.settings.timezone)).strftime("%Y-%m-%d")
    # A name of its own: the day's own comparison is done once, and is the one that merchants are told of.
    roots = {entry.id: f"{TOPIC}:{entry.id}:{day}@{app.ids('run')}" for entry in entries}
    some = [begin(entry, roots[entry.id], day, now_ms, days, tells=False) for entry in entries]
    await app.db.write(app.queue.enqueue, some, now_ms)
    async with _worked_on(app):
        until_s = asyncio.get_running_loop().time() + WAIT_S
        while True:
            said = {entry.id: await app.db.read(_standing, roots[entry.id]) for entry in entries}
            if progress is not None:
                progress(sum(one["listed"] for one in said.values()), None)
            if all(one["state"] != "under way" for one in said.values()):
                break
            if asyncio.get_running_loop().time() > until_s:
                break
            await asyncio.sleep(LOOK_S)
    which = rows.Which(account_id=account)
    return {
        "accounts": [{"account": entry.id, "provider": entry.provider, **said[entry.id]} for entry in entries],
        "open": sum((await app.db.read(rows.counts, which)).values()),
        "differences": await app.db.read(rows.listed, which, None, SHOWN_AT_MOST),
    }


@asynccontextmanager
async def _worked_on(app: Application) -> AsyncIterator[None]:
    """By the running service, or else by a dispatcher of this topic alone."""
    if app.dispatcher is not None:
        app.nudge()
        yield
        return
    alone = Dispatcher(app.db, app.queue, [topic(app)], app.clock, Random())  # noqa: S311 - jitter
    alone.start()
    try:
        yield
    finally:
        await alone.stop(GRACE_MS)


def _standing(tx: Connection, root: str) -> dict[str, Any]:
    """How far the messages of one comparison are."""
    m = outbox_tables.messages.c
    its = (m.id == root) | ((m.id > f"{root}:") & (m.id < f"{root};"))
    query = select(m.id, m.state, m.payload, m.last_error, m.claim, m.settled_claim).where(its)
    said: dict[str, Any] = {"state": "done", "listed": 0, "unread": 0, "error": None}
    for row in tx.execute(query):
        at = msgspec.json.decode(row.payload, type=Progress)
        said["listed"], said["unread"] = max(said["listed"], at.listed), max(said["unread"], at.unread)
        if row.state == "dead":
            said |= {"state": "given up", "error": row.last_error}
        elif row.state == "pending":
            tried = row.last_error is not None and row.claim == row.settled_claim
            said |= {"state": "tried again later", "error": row.last_error} if tried else {"state": "under way"}
    return said
