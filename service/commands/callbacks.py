"""callbacks list | show | replay: what providers sent, the quarantined too."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select

from service.callbacks.replay import replay as run_again
from service.callbacks.tables import callbacks, quarantine, waits
from service.commands.shape import LIMIT, bounded, told
from service.errors import NotFound, Refusal
from service.payments.states import Callback
from service.schema import outbox_tables

if TYPE_CHECKING:
    from service.application import Application

QUARANTINED = "quarantined"
STATUSES = (*(status.value for status in Callback), QUARANTINED)
_HIDDEN = ("query", "body", "body_sha256", "key", "method", "headers")
_SECRET_HEADERS = frozenset(("authorization", "cookie", "proxy-authorization"))


async def listed(
    app: Application,
    *,
    status: str | None = None,
    provider: str | None = None,
    payment: str | None = None,
    limit: int = LIMIT,
) -> list[dict[str, Any]]:
    """Callbacks, the newest first; `quarantined` ones were not verified."""
    if status is not None and status not in STATUSES:
        raise Refusal("unknown_status", f"There is no status {status[:30]!r}; there are {', '.join(STATUSES)}.")
    if status == QUARANTINED:
        held = select(quarantine).order_by(quarantine.c.id.desc()).limit(bounded(limit))
        if provider:
            held = held.where(quarantine.c.provider == provider)
        return await app.db.read(
            lambda tx: [{"status": QUARANTINED, **told(row, *_HIDDEN)} for row in tx.execute(held).mappings()]
        )
    query = select(callbacks).order_by(callbacks.c.id.desc()).limit(bounded(limit))
    if status:
        query = query.where(callbacks.c.status == status)
    if provider:
        query = query.where(callbacks.c.provider == provider)
    if payment:
        query = query.where(callbacks.c.payment_id == payment)
    return await app.db.read(lambda tx: [told(row, *_HIDDEN) for row in tx.execute(query).mappings()])


async def show(app: Application, *, callback: str) -> dict[str, Any]:
    """One callback with its body, what it waits for, and how often it was worked on."""
    return await app.db.read(_kept_aside if callback.startswith("qua_") else _kept, callback)


async def replay(app: Application, *, callback: str, reason: str, actor: str = "cli") -> dict[str, Any]:
    """Run a resting callback again, or check a quarantined one again against the time it came."""
    if not reason.strip():
        raise Refusal("no_reason", "Say why it is run again: --reason '…'.")
    return dict(await run_again(app, callback, reason, actor))


def _kept(tx: Connection, callback_id: str) -> dict[str, Any]:
    row = tx.execute(select(callbacks).where(callbacks.c.id == callback_id)).mappings().one_or_none()
    if row is None:
        raise NotFound("callback", callback_id, "caisse callbacks list")
    shown = told(row, "query", "body", "body_sha256")
    shown["query"], shown["body"] = _text(row["query"]), _text(row["body"])
    references = select(waits.c.reference).where(waits.c.callback_id == callback_id)
    shown["waits_for"] = [reference or "(a merchant)" for reference in tx.execute(references).scalars()]
    messages = outbox_tables.messages
    shown["work"] = [
        told({name: found[name] for name in ("id", "topic", "state", "tries", "last_error", "last_try_at_ms")})
        for found in tx.execute(select(messages).where(messages.c.subject == callback_id)).mappings()
    ]
    return shown


def _kept_aside(tx: Connection, callback_id: str) -> dict[str, Any]:
    row = tx.execute(select(quarantine).where(quarantine.c.id == callback_id)).mappings().one_or_none()
    if row is None:
        raise NotFound("quarantined callback", callback_id, "caisse callbacks list --status quarantined")
    headers = [[name, "…" if name.lower() in _SECRET_HEADERS else value] for name, value in json.loads(row["headers"])]
    return {
        "status": QUARANTINED,
        **told(row, "query", "body", "headers"),
        "headers": headers,
        "query": _text(row["query"]),
        "body": _text(row["body"]),
    }


def _text(value: bytes) -> str:
    return bytes(value).decode("utf-8", "replace")
