"""Running again what rests, by a person and with a reason: parked, deferred, dead and quarantined callbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, delete, func, select, update

from outbox.message import Promise
from outbox.queue import Queue
from service.callbacks import quarantine
from service.callbacks.intake import NotVerified
from service.callbacks.process import ASK
from service.callbacks.quarantine import UNKNOWN_TOKEN
from service.callbacks.tables import callbacks, waits
from service.callbacks.take import message_id, take
from service.errors import NotFound, Refusal
from service.ids import Ids
from service.merchants.audit import By
from service.merchants.tables import audit
from service.providers import PROVIDERS
from service.schema import outbox_tables

if TYPE_CHECKING:
    from service.application import Application

AGAIN_PER_HOUR = 5
REPLAYED = "callback.replayed"
_RESTING = ("parked", "deferred", "dead")
_LISTED = "caisse callbacks list"


async def replay(app: Application, id_: str, reason: str, actor: str) -> dict[str, Any]:
    """
    Run a callback (`cb_…`) again, or check a quarantined one (`qua_…`) again against the time it came.

    Refuses what is not resting, what still does not verify, and more than five times an hour.
    """
    if id_.startswith("qua_"):
        result = await _recheck(app, id_, reason, actor)
    else:
        result = await app.db.write(run_again, app.queue, id_, reason, actor, app.clock(), app.ids)
    app.nudge()
    return result


def run_again(tx: Connection, queue: Queue, id_: str, reason: str, actor: str, now_ms: int, ids: Ids) -> dict[str, Any]:
    """Back to `received`, with a new message and a fresh budget of retries; the step itself is repeatable."""
    row = tx.execute(select(callbacks).where(callbacks.c.id == id_)).one_or_none()
    if row is None:
        raise NotFound("callback", id_, _LISTED)
    if row.erased_at_ms is not None:
        raise Refusal("erased", f"The body of {id_} was erased; there is nothing left that could be run again.")
    if row.status == "processed" and (asked := _ask_again(tx, queue, id_, now_ms)):
        By(actor, now_ms, ids).write_down(tx, REPLAYED, id_, reason)
        return {"id": id_, "status": "processed", "questions": asked}
    if row.status not in _RESTING:
        raise Refusal("not_resting", f"{id_} is {row.status}; only {', '.join(_RESTING)} callbacks can be run again.")
    times = tx.execute(
        select(func.count()).where(
            audit.c.subject == id_, audit.c.action == REPLAYED, audit.c.at_ms > now_ms - 3_600_000
        )
    ).scalar_one()
    if times >= AGAIN_PER_HOUR:
        raise Refusal(
            "too_often", f"{id_} was run again {times} times in the last hour; wait, or look into its reason."
        )
    By(actor, now_ms, ids).write_down(tx, REPLAYED, id_, reason)
    tx.execute(delete(waits).where(waits.c.callback_id == id_))
    tx.execute(
        update(callbacks)
        .where(callbacks.c.id == id_)
        .values(status="received", reason=None, finished_at_ms=None, deferred_until_ms=None, runs=row.runs + 1)
    )
    promise = Promise(message_id(id_, row.runs + 1), PROVIDERS[row.provider].queue, "", id_)
    queue.enqueue(tx, [promise], now_ms)
    return {"id": id_, "status": "received", "run": row.runs + 1}


def _ask_again(tx: Connection, queue: Queue, id_: str, now_ms: int) -> int:
    """The questions that this callback made us ask, and that nobody answered: asked again, with a fresh budget."""
    messages = outbox_tables.messages
    dead = select(messages.c.id).where(messages.c.subject == id_, messages.c.topic == ASK, messages.c.state == "dead")
    return queue.revive(tx, tx.execute(dead).scalars().all(), now_ms, "asked again by a person")


async def _recheck(app: Application, id_: str, reason: str, actor: str) -> dict[str, Any]:
    found = await app.db.read(quarantine.kept, app.seal, id_)
    if found is None:
        raise NotFound("quarantined callback", id_, "caisse callbacks list --status quarantined")
    if found.account_id.startswith(UNKNOWN_TOKEN):
        account = app.registry.by_digest(found.provider, bytes.fromhex(found.account_id.removeprefix(UNKNOWN_TOKEN)))
    else:
        account = app.registry.by_id(found.provider, found.account_id)
    if account is None:
        raise Refusal("no_account", f"No account that is configured now is the one that {id_} was meant for.")
    # Its signature is as old as it is: what counts is whether it was genuine when it came.
    arrival = app.intake.check(account, found.incoming, found.received_at_ms, found.received_at_ms)
    if isinstance(arrival, NotVerified):
        raise Refusal("not_verified", f"{id_} still does not verify ({arrival.reason}); check the provider's secret.")

    def keep(tx: Connection) -> dict[str, Any]:
        kept = take(tx, app.queue, [arrival])[0]
        quarantine.forget(tx, id_)
        By(actor, app.clock(), app.ids).write_down(tx, REPLAYED, id_, reason)
        status = "parked" if kept.parked else "received"
        return {"id": kept.id, "status": status, "was": id_, "again": kept.again}

    return await app.db.write(keep)
