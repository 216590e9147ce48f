"""
The one list of what needs a person: stored matters, and what has a table of its own: resting callbacks, the quarantine
and dead deliveries are looked up there, never copied.

What was ignored of the latter is a closed row of the former, with the same subject and reason: when the thing comes to
rest anew, it is in the list again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    and_,
    exists,
    func,
    literal,
    literal_column,
    not_,
    null,
    or_,
    select,
    union_all,
)

from service.attention import words
from service.attention.words import Action
from service.callbacks.tables import callbacks, quarantine
from service.errors import NotFound, Refusal
from service.escrow.tables import beneficiaries, holds, payouts
from service.ledger.tables import differences
from service.merchants.events import WEBHOOK, rfc3339
from service.merchants.tables import accounts, endpoints, events
from service.orders.tables import orders, sessions
from service.payments.tables import attention, payments, refunds
from service.schema import outbox_tables

LISTED_AT_MOST: Final = 500
_OWNED: Final = (holds, payouts, beneficiaries, differences)
"""Tables whose rows may be the subject of a matter, and say themselves whose they are."""
RESTING: Final = ("parked", "deferred", "dead")
SAID_BY_CALLBACKS: Final = ("callback_dead", "deferred_too_long", "answer_not_placed")
"""Stored matters about callbacks that their own rows say as well."""
_TYPES: Final = {
    "pay": "payment", "rf": "refund", "cb": "callback", "qua": "quarantined", "ep": "endpoint", "ord": "order",
    "ses": "session", "acc": "account", "hold": "hold", "po": "payout", "ben": "beneficiary", "dif": "difference",
}  # fmt: skip
_COLUMNS: Final = ("id", "reason", "subject", "detail", "since_ms", "merchant_id", "live", "payment_id", "order_id")


def listed(
    tx: Connection,
    *,
    merchant_id: str | None = None,
    live: bool | None = None,
    reason: str | None = None,
    before: str | None = None,
    limit: int = 50,
    lang: str = "en",
) -> list[dict[str, Any]]:
    """
    A query: what is open, the newest first. `before` is the `cursor` of the last item of the page before.

    Raises Refusal: unknown_reason, bad_cursor.
    """
    if reason is not None and reason not in words.WORDS:
        raise Refusal("unknown_reason", f"There is no reason {reason[:40]!r}; there are {', '.join(words.WORDS)}.")
    where: list[ColumnElement[bool]] = []
    since: ColumnElement[int] = literal_column("since_ms")
    id_: ColumnElement[str] = literal_column("id")
    if before is not None:
        at_ms, last = _cursor(before)
        where.append(or_(since < at_ms, and_(since == at_ms, id_ < last)))
    found: list[Any] = []
    for source in _sources(merchant_id, live, reason):
        query = source.subquery()
        page = select(query).where(*where).order_by(since.desc(), id_.desc()).limit(min(limit, LISTED_AT_MOST))
        found += tx.execute(page).mappings().all()
    found.sort(key=lambda row: (row["since_ms"], row["id"]), reverse=True)
    return [_shown(tx, row, lang) for row in found[: min(limit, LISTED_AT_MOST)]]


def one(
    tx: Connection, item_id: str, merchant_id: str | None = None, live: bool | None = None, lang: str = "en"
) -> dict[str, Any]:
    """A query: one open item. Raises NotFound, also for another merchant's and for what is closed."""
    for source in _sources(merchant_id, live, None):
        query = source.subquery()
        row = tx.execute(select(query).where(query.c.id == item_id)).mappings().first()
        if row is not None:
            return _shown(tx, dict(row), lang)
    raise NotFound("open item", item_id, "caisse attention list")


def counts(tx: Connection) -> dict[str, int]:
    """A query: how many are open, by reason."""
    found = union_all(*_sources(None, None, None)).subquery()
    query = select(found.c.reason, func.count()).group_by(found.c.reason).order_by(found.c.reason)
    return {str(row[0]): int(row[1]) for row in tx.execute(query)}


# --- where they come from -----------------------------------------------------------------------------


def _sources(merchant_id: str | None, live: bool | None, reason: str | None) -> list[Select[Any]]:
    found = []
    for source, merchant, mode, said in (_stored(), _resting(), _aside(), _undelivered()):
        where: list[ColumnElement[bool]] = []
        if merchant_id is not None:
            where.append(merchant == merchant_id)
        if live is not None:
            where.append(or_(mode.is_(None), mode == live))
        if reason is not None:
            where.append(said == reason)
        found.append(source.where(*where))
    return found


_Source = tuple[Select[Any], ColumnElement[Any], ColumnElement[Any], ColumnElement[Any]]


def _select(*columns: ColumnElement[Any]) -> Select[Any]:
    return select(*(column.label(name) for column, name in zip(columns, _COLUMNS, strict=True)))


def _stored() -> _Source:
    """Rows of the table itself; an order's that one of its payments says too is left to that."""
    a, refunded, paid, told = attention.c, payments.alias("refunded"), payments, callbacks
    both = attention.alias("both")
    its = payments.alias("its")
    merchant = func.coalesce(
        paid.c.merchant_id, refunded.c.merchant_id, orders.c.merchant_id, sessions.c.merchant_id,
        endpoints.c.merchant_id, accounts.c.merchant_id, *(owned.c.merchant_id for owned in _OWNED),
    )  # fmt: skip
    mode = func.coalesce(
        paid.c.live, refunded.c.live, orders.c.live, sessions.c.live, accounts.c.live,
        *(owned.c.live for owned in _OWNED),
    )  # fmt: skip
    twice = exists().where(
        its.c.order_id == a.subject,
        both.c.subject == its.c.id,
        both.c.reason == a.reason,
        both.c.closed_at_ms.is_(None),
    )
    joined: FromClause = attention.outerjoin(paid, paid.c.id == a.subject)
    joined = joined.outerjoin(refunds, refunds.c.id == a.subject).outerjoin(
        refunded, refunded.c.id == refunds.c.payment_id
    )
    joined = joined.outerjoin(orders, orders.c.id == a.subject).outerjoin(sessions, sessions.c.id == a.subject)
    joined = joined.outerjoin(endpoints, endpoints.c.id == a.subject).outerjoin(told, told.c.id == a.subject)
    joined = joined.outerjoin(accounts, accounts.c.id == func.coalesce(told.c.account_id, a.subject))
    for owned in _OWNED:
        joined = joined.outerjoin(owned, owned.c.id == a.subject)
    payment = func.coalesce(paid.c.id, refunds.c.payment_id, told.c.payment_id, differences.c.payment_id)
    order = func.coalesce(paid.c.order_id, orders.c.id, refunded.c.order_id, holds.c.order_id)
    query = _select(a.id, a.reason, a.subject, a.detail, a.opened_at_ms, merchant, mode, payment, order)
    query = query.select_from(joined).where(a.closed_at_ms.is_(None), a.reason.not_in(SAID_BY_CALLBACKS), not_(twice))
    return query, merchant, mode, a.reason


def _ignored(subject: ColumnElement[str], reason: ColumnElement[str], since: ColumnElement[int]) -> ColumnElement[bool]:
    """A person has looked at it since it came to rest."""
    seen = attention.alias("seen")
    return exists().where(seen.c.subject == subject, seen.c.reason == reason, seen.c.closed_at_ms >= since)


def _resting() -> _Source:
    c = callbacks.c
    reason = literal("callback_").op("||")(c.status)
    since = func.coalesce(c.finished_at_ms, c.received_at_ms)
    query = _select(
        literal("callback:").op("||")(c.id), reason, c.id, func.coalesce(c.reason, ""), since,
        accounts.c.merchant_id, accounts.c.live, c.payment_id, null(),
    )  # fmt: skip
    query = query.select_from(callbacks.join(accounts, accounts.c.id == c.account_id))
    query = query.where(
        c.status.in_([literal_column(f"'{status}'") for status in RESTING]), not_(_ignored(c.id, reason, since))
    )
    return query, accounts.c.merchant_id, accounts.c.live, reason


def _aside() -> _Source:
    q = quarantine.c
    reason: ColumnElement[str] = literal("callback_quarantined")
    query = _select(
        literal("quarantined:").op("||")(q.id), reason, q.id, q.reason, q.received_at_ms,
        accounts.c.merchant_id, accounts.c.live, null(), null(),
    )  # fmt: skip
    query = query.select_from(quarantine.outerjoin(accounts, accounts.c.id == q.account_id))
    query = query.where(not_(_ignored(q.id, reason, q.received_at_ms)))
    return query, accounts.c.merchant_id, accounts.c.live, reason


def _undelivered() -> _Source:
    """Dead, and not sent again by hand since: a later delivery of the same event to the same endpoint."""
    m, later = outbox_tables.messages.c, outbox_tables.messages.alias("later")
    reason: ColumnElement[str] = literal("delivery_dead")
    again = exists().where(
        later.c.subject == m.subject, later.c.destination == m.destination, later.c.topic == WEBHOOK, later.c.id > m.id
    )
    query = _select(
        literal("delivery:").op("||")(m.id), reason, m.id, func.coalesce(m.last_error, ""), m.finished_at_ms,
        endpoints.c.merchant_id, events.c.live, events.c.payment_id, null(),
    )  # fmt: skip
    joined = outbox_tables.messages.join(endpoints, endpoints.c.id == m.destination)
    joined = joined.outerjoin(events, events.c.id == m.subject)
    query = query.select_from(joined).where(
        literal_column("outbox_messages.state = 'dead'"),
        m.topic == WEBHOOK,
        not_(again),
        not_(_ignored(m.id, reason, m.finished_at_ms)),
    )
    return query, endpoints.c.merchant_id, events.c.live, reason


# --- how they are shown -------------------------------------------------------------------------------


def _shown(tx: Connection, row: Mapping[str, Any], lang: str) -> dict[str, Any]:
    kind = str(row["id"]).partition(":")[0]
    prefix = str(row["subject"]).partition("_")[0]
    return {
        "id": row["id"],
        "reason": row["reason"],
        "subject": row["subject"],
        "subject_type": kind if kind in ("callback", "quarantined", "delivery") else _TYPES.get(prefix, "other"),
        "payment": row["payment_id"],
        "order": row["order_id"],
        "merchant": row["merchant_id"],
        "live": None if row["live"] is None else bool(row["live"]),
        "words": words.sentence(row["reason"], row["detail"], lang),
        "detail": row["detail"],
        "since": rfc3339(row["since_ms"]),
        "actions": _fitting(tx, row),
        "cursor": f"{row['since_ms']}.{row['id']}",
    }


def _fitting(tx: Connection, row: Mapping[str, Any]) -> list[Action]:
    """Exactly what can be done about this one."""
    may = words.of(row["reason"]).may
    fits: list[Action] = []
    money = _money(tx, row) if "refund" in may or "attach" in may else None
    for action in may:
        match action:
            case "revive":
                # Money revives an order; everything else is run again.
                if row["reason"] not in ("late", "under", "over") or row["order_id"] is not None:
                    fits.append(action)
            case "refund":
                if money is not None and money.left_minor > 0:
                    fits.append(action)
            case "attach":
                if money is not None and money.order_id is None:
                    fits.append(action)
            case "ignore":
                pass
    return [*fits, "ignore"]


def _money(tx: Connection, row: Mapping[str, Any]) -> Any:
    """The one payment with money that this is about: its own, or its order's; of two the younger came twice."""
    left = (payments.c.captured_minor - payments.c.refunded_minor).label("left_minor")
    query = select(payments.c.id, payments.c.order_id, left).where(payments.c.captured_minor > 0)
    if row["payment_id"] is not None:
        query = query.where(payments.c.id == row["payment_id"])
    elif row["order_id"] is not None:
        query = query.where(payments.c.order_id == row["order_id"], left > 0)
    else:
        return None
    found = tx.execute(query.order_by(payments.c.id.desc()).limit(2)).all()
    return found[0] if len(found) == 1 or (found and row["reason"] == "duplicate") else None


def payment_of(tx: Connection, item: Mapping[str, Any]) -> str | None:
    """The payment whose money an item's action moves."""
    found = _money(tx, {"payment_id": item["payment"], "order_id": item["order"], "reason": item["reason"]})
    return None if found is None else str(found.id)


def _cursor(text: str) -> tuple[int, str]:
    at, _, id_ = text.partition(".")
    if not at.isascii() or not at.isdigit() or len(at) > 15 or not id_:
        raise Refusal("bad_cursor", "That is not the cursor of an item of this list.")
    return int(at), id_
