"""attention list | act: the one list of what needs a person, and what can be done about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, insert, select, update

from service.attention import listing
from service.attention.words import ACTIONS
from service.callbacks.replay import replay, run_again
from service.commands.deliveries import again
from service.commands.shape import LIMIT, bounded, by
from service.errors import NotFound, Refusal
from service.merchants.audit import REASON_CHARACTERS_MAX, By
from service.merchants.events import rfc3339
from service.orders import orders
from service.orders.owner import Whose
from service.payments import refund_rows
from service.payments.asking import SYNC
from service.payments.refunds import REFUND, load, surplus
from service.payments.tables import attempts, attention
from service.schema import outbox_tables

if TYPE_CHECKING:
    from service.application import Application

_ONLY_TOO_MUCH = ("over", "duplicate")
"""Reasons of which only what is too much goes back."""


async def listed(
    app: Application,
    *,
    reason: str | None = None,
    merchant: str | None = None,
    before: str | None = None,
    limit: int = LIMIT,
    lang: str = "en",
) -> list[dict[str, Any]]:
    """What needs a person, the newest first, in plain words (en or fr)."""
    most = bounded(limit)
    return await app.db.read(
        lambda tx: listing.listed(tx, merchant_id=merchant, reason=reason, before=before, limit=most, lang=lang)
    )


async def act(
    app: Application,
    *,
    item: str,
    action: str,
    reason: str,
    order: str | None = None,
    amount: int | None = None,
    merchant: str | None = None,
    live: bool | None = None,
    actor: str = "cli",
) -> dict[str, Any]:
    """
    Do something about one item, with a reason: it is closed in the transaction that does it.

    `order`: what money is attached to. `amount`: how much goes back; otherwise what is too much, or all.
    """
    if action not in ACTIONS:
        raise Refusal("unknown_action", f"There is no action {action[:30]!r}; there are {', '.join(ACTIONS)}.")
    if not reason.strip() or len(reason) > REASON_CHARACTERS_MAX:
        raise Refusal("no_reason", f"Say why, in at most {REASON_CHARACTERS_MAX} characters: it is kept.")
    hand = by(app, actor)
    found = await app.db.read(listing.one, item, merchant, live)
    _offered(found, action)
    if found["subject_type"] == "quarantined" and action == "revive":
        done = await replay(app, found["subject"], reason, actor)  # it leaves the quarantine in its own transaction
        return {"id": item, "action": action, "closed_at": rfc3339(hand.now_ms), "callback": done}

    def work(tx: Connection) -> dict[str, Any]:
        now = listing.one(tx, item, merchant, live)  # somebody may have been quicker
        _offered(now, action)
        made = _do(app, tx, now, action, reason, order, amount, hand)
        _close(tx, now, hand)
        hand.write_down(tx, f"attention.{action}", now["subject"], reason)
        return made

    made = await app.db.write(work)
    app.nudge()
    return {"id": item, "action": action, "closed_at": rfc3339(hand.now_ms), **made}


def _offered(item: dict[str, Any], action: str) -> None:
    if action not in item["actions"]:
        raise Refusal("not_offered", f"{action} does not fit {item['id']}: {', '.join(item['actions'])}.")


def _do(
    app: Application,
    tx: Connection,
    item: dict[str, Any],
    action: str,
    reason: str,
    order: str | None,
    amount: int | None,
    hand: By,
) -> dict[str, Any]:
    match action:
        case "ignore":
            return {}
        case "refund":
            return {"refund": refund_rows.public(_refund(app, tx, item, reason, amount, hand))}
        case "attach":
            if not order:
                raise Refusal("order_needed", "Say which order the money is for.")
            payment_id = listing.payment_of(tx, item)
            assert payment_id is not None  # attach is offered for such alone
            orders.attach(tx, app.queue, _owner(item), order, payment_id, hand, reason)
            return {"order": order, "payment": payment_id}
        case _:
            return _revive(app, tx, item, reason, hand)


def _refund(
    app: Application, tx: Connection, item: dict[str, Any], reason: str, amount: int | None, hand: By
) -> dict[str, Any]:
    payment_id = listing.payment_of(tx, item)
    assert payment_id is not None  # refund is offered for such alone
    attempt_id = None
    if item["subject_type"] == "refund":
        before = refund_rows.one(tx, item["subject"])
        attempt_id, amount = before["attempt_id"], amount or before["amount_minor"]
    elif item["reason"] in _ONLY_TOO_MUCH:
        amount = amount or surplus(load(tx, payment_id)) or None
    made: dict[str, Any] = app.refunds.create(tx, payment_id, amount, reason, hand, attempt_id=attempt_id)
    return made


def _revive(app: Application, tx: Connection, item: dict[str, Any], reason: str, hand: By) -> dict[str, Any]:
    subject = item["subject"]
    match item["subject_type"]:
        case "callback":
            return {"callback": run_again(tx, app.queue, subject, reason, hand.actor, hand.now_ms, hand.ids)}
        case "delivery":
            return {"delivery": again(tx, app.queue, subject, hand, reason)}
        case "refund":
            return {"asked": _run_now(app, tx, REFUND, [subject], reason, hand.now_ms)}
        case "payment" if item["reason"] == "never_answered":
            mine = tx.execute(select(attempts.c.id).where(attempts.c.payment_id == subject)).scalars().all()
            return {"asked": _run_now(app, tx, SYNC, mine, reason, hand.now_ms)}
        case _:
            if item["order"] is None:
                raise NotFound("order", subject, "caisse payments show")
            orders.revive(tx, app.queue, _owner(item), item["order"], hand, reason)
            return {"order": item["order"]}


def _run_now(app: Application, tx: Connection, topic: str, subjects: Any, reason: str, now_ms: int) -> int:
    """Dead messages are run again; those that wait for their next time go at once."""
    m = outbox_tables.messages.c
    rows = tx.execute(select(m.id, m.destination, m.state).where(m.subject.in_(list(subjects)), m.topic == topic)).all()
    count = app.queue.revive(tx, [row.id for row in rows if row.state == "dead"], now_ms, reason)
    waiting = [(row.id, topic, row.destination, now_ms) for row in rows if row.state == "pending"]
    return count + (app.queue.hasten(tx, waiting, now_ms) if waiting else 0)


def _owner(item: dict[str, Any]) -> Whose:
    return Whose(item["merchant"], bool(item["live"]))


def _close(tx: Connection, item: dict[str, Any], hand: By) -> None:
    """The item, and what says the same of its order or its callback; what was derived is remembered as seen."""
    subjects = {item["subject"], item["order"] or item["subject"]}
    reasons = {item["reason"], *(listing.SAID_BY_CALLBACKS if item["subject_type"] == "callback" else ())}
    tx.execute(
        update(attention)
        .where(attention.c.subject.in_(subjects), attention.c.reason.in_(reasons), attention.c.closed_at_ms.is_(None))
        .values(closed_at_ms=hand.now_ms)
    )
    if ":" in item["id"]:
        seen = update(attention).where(attention.c.subject == item["subject"], attention.c.reason == item["reason"])
        if not tx.execute(seen.values(closed_at_ms=hand.now_ms)).rowcount:
            row = {
                "id": hand.ids("att"),
                "subject": item["subject"],
                "reason": item["reason"],
                "detail": item["detail"],
            }
            tx.execute(insert(attention).values(**row, opened_at_ms=hand.now_ms, closed_at_ms=hand.now_ms))
