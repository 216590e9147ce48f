"""callbacks list | show | replay: what providers sent, the quarantined too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select

from service.callbacks.quarantine import kept
from service.callbacks.replay import replay as run_again
from service.callbacks.tables import callbacks, quarantine, waits
from service.commands.shape import LIMIT, bounded, told
from service.errors import NotFound, Refusal
from service.merchants.events import rfc3339
from service.payments.states import Callback
from service.providers import PROVIDERS
from service.schema import outbox_tables
from service.seal import Seal

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
    if callback.startswith("qua_"):
        return await app.db.read(_kept_aside, app.seal, callback)
    return await app.db.read(_kept, callback)


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


def _kept_aside(tx: Connection, seal: Seal, callback_id: str) -> dict[str, Any]:
    aside = kept(tx, seal, callback_id)
    if aside is None:
        raise NotFound("quarantined callback", callback_id, "caisse callbacks list --status quarantined")
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in aside.incoming.headers]
    return {
        "status": QUARANTINED,
        "id": aside.id,
        "account_id": aside.account_id,
        "provider": aside.provider,
        "reason": aside.reason,
        "method": aside.incoming.method,
        "received_at": rfc3339(aside.received_at_ms),
        "headers": [[name, "…" if name.lower() in _SECRET_HEADERS else value] for name, value in headers],
        "query": _text(aside.incoming.query),
        "body": _text(PROVIDERS[aside.provider].redact(aside.incoming.body)),
    }


def _text(value: bytes) -> str:
    return bytes(value).decode("utf-8", "replace")
