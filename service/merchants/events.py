"""
What merchants are told: the catalogue of types, the one shape of an event, and telling it to the endpoints.

An event is a row and, for every endpoint that wants it, a message in the outbox, all in the transaction that
changed what it speaks of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, insert, select

from outbox.message import Promise
from outbox.prepared import Lookup, Prepared
from outbox.queue import Queue
from service.ids import Ids
from service.merchants.tables import endpoints, events

CATALOGUE: Mapping[str, str] = {
    "payment.pending": "The payment has begun and is not final.",
    "payment.requires_action": "The payer has to do something: enter a code, approve on the phone, follow a redirect.",
    "payment.succeeded": "The money asked for has come, in full and on time. Deliver.",
    "payment.failed": "No attempt can still succeed.",
    "payment.canceled": "The payment was cancelled at the provider.",
    "payment.expired": "The payment ran out of time at the provider.",
    "payment.refunded": "All of the money went back to the payer.",
    "payment.partially_refunded": "Some of the money went back; told again for each further part.",
    "payment.disputed": "A dispute or reversal began or ended; `exceptions` says whether it still stands.",
    "payment.attention": "A person has to look: `exceptions` says why (wrong amount, late, duplicate). Do not deliver.",
    "refund.created": "Money is to go back, or was seen going back at the provider (`origin` says which).",
    "refund.succeeded": "The money of this refund went back.",
    "refund.failed": "This refund did not happen, or the bank has sent it back; `failure_reason` says why.",
    "order.created": "An order was made; its stock is reserved until it expires.",
    "order.paid": "Right money makes up the whole order. Told once for each order: fulfil it.",
    "order.delivered": "Its delivery was recorded.",
    "order.completed": "It is delivered, and nothing is left to do.",
    "order.expired": "It was not paid in time, every attempt is over, and its stock is free again.",
    "order.canceled": "It was cancelled, every attempt is over, and its stock is free again.",
    "order.refunded": "All of its money was given back by you.",
    "order.attention": "A person has to look at the order: money came late, too much, too little or twice.",
    "hold.created": "A paid order's money is held for its beneficiary.",
    "hold.scheduled": "Its delivery was recorded: it is released at `release_at`, unless somebody objects.",
    "hold.frozen": "Something stands against its release: `against` says what. A person has to look.",
    "hold.unfrozen": "Nothing stands against it any more.",
    "hold.released": "Its money is the beneficiary's.",
    "hold.refunded": "All of its money went back to the buyer, or, after its release, some was taken back.",
    "payout.created": "Money is to be paid out; it is reserved.",
    "payout.in_transit": "The provider has it; it is not final.",
    "payout.paid": "The provider says that it has paid.",
    "payout.failed": "It will not be paid; the money is in the balance again. `failure_reason` says why.",
    "payout.returned": "It was paid and came back; the money is in the balance again.",
    "payout.canceled": "It was called off before it was sent.",
    "ledger.reconciled": "A day's comparison with what a provider lists found differences: `differences` has them.",
    "session.completed": "The buyer has paid.",
    "session.expired": "Its time or its tries are over.",
    "session.canceled": "It was cancelled.",
    "provider.event": "A provider's verified callback, passed on as it came. Only on request.",
    "endpoint.failing": "One of your endpoints has done nothing but fail for a day; `disabled_at` says when that ends.",
    "endpoint.disabled": "One of your endpoints gets nothing more until it is enabled; what it is owed is kept.",
    "endpoint.test": "Sent by hand to try an endpoint.",
}

ON_REQUEST = frozenset({"provider.event"})
"""Types that the filter `*` leaves out: an endpoint has to name them."""

WEBHOOK = "webhook"


def rfc3339(at_ms: int | None) -> str | None:
    """Milliseconds UTC as RFC 3339 with milliseconds and Z."""
    if at_ms is None:
        return None
    return f"{_second(at_ms // 1000)}.{at_ms % 1000:03d}Z"


@lru_cache(1024)  # one event names about four times, mostly of this second
def _second(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@dataclass(frozen=True, slots=True)
class News:
    """One thing to tell one merchant. `data` goes into the event as it is."""

    merchant_id: str
    type: str
    sequence: int
    data: Mapping[str, Any]
    payment_id: str | None = None
    callback_id: str | None = None
    live: bool = True  # of the payment or account it is about; test keys see only what is not
    not_to: str | None = None  # the endpoint that it speaks of, when it is bad news


def wants(filter_: str, type_: str) -> bool:
    """Whether an endpoint's filter (comma-separated types, or `*`) lets this type through."""
    return type_ in filter_.split(",") or ("*" in filter_.split(",") and type_ not in ON_REQUEST)


def delivery_id(event_id: str, endpoint_id: str, number: int = 0) -> str:
    """The outbox message that promises an event to an endpoint; `number` > 0 for one sent again by hand."""
    return f"{WEBHOOK}:{event_id}:{endpoint_id}:{number}"


_INSERT = Prepared(insert(events), [column.name for column in events.c if column.name != "position"])
_ENDPOINTS = Lookup(
    select(endpoints.c.id, endpoints.c.merchant_id, endpoints.c.events).where(
        endpoints.c.merchant_id.in_(bindparam("wanted", expanding=True))
    )
)


def tell(tx: Connection, queue: Queue, news: Sequence[News], ids: Ids, now_ms: int) -> list[str]:
    """Write events and promise them to every endpoint that wants them, disabled ones too: it waits. Returns ids."""
    if not news:
        return []
    listening: dict[str, list[tuple[str, str]]] = {}
    merchants = sorted({item.merchant_id for item in news})
    for row in _ENDPOINTS(tx, merchants):
        listening.setdefault(row["merchant_id"], []).append((row["id"], row["events"]))
    rows = [_row(item, ids("evt"), now_ms) for item in news]
    _INSERT(tx, rows)
    promises: list[Promise] = []
    for item, row_ in zip(news, rows, strict=True):
        for endpoint_id, filter_ in listening.get(item.merchant_id, ()):
            if endpoint_id != item.not_to and wants(filter_, item.type):
                promise = delivery_id(row_["id"], endpoint_id)
                promises.append(Promise(promise, WEBHOOK, endpoint_id, row_["id"]))
    queue.enqueue(tx, promises, now_ms)
    return [row_["id"] for row_ in rows]


def _row(item: News, id_: str, now_ms: int) -> dict[str, Any]:
    body = {
        "id": id_,
        "type": item.type,
        "created_at": rfc3339(now_ms),
        "sequence": item.sequence,
        "data": item.data,
    }
    return {
        "id": id_,
        "merchant_id": item.merchant_id,
        "type": item.type,
        "payment_id": item.payment_id,
        "callback_id": item.callback_id,
        "sequence": item.sequence,
        "body": msgspec.json.encode(body),
        "created_at_ms": now_ms,
        "live": int(item.live),
    }


def wanted_on_request(tx: Connection, merchants: Iterable[str], type_: str) -> set[str]:
    """The merchants that have an endpoint which asked for a type by name."""
    rows = _ENDPOINTS(tx, sorted(merchants))
    return {row["merchant_id"] for row in rows if type_ in row["events"].split(",")}
