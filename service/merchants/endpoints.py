"""
Endpoints: where a merchant wants events, which ones, how often they are tried, and the secrets that sign them.

Rotating a secret leaves the old one live for an overlap. Both sign the Standard Webhooks header; the plain header has
room for one, and carries the oldest live secret until the overlap is over, so that no receiver is surprised.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Connection, bindparam, delete, insert, or_, select, update

from outbox.policy import DELAY_MS_MAX, RETRIES_MAX
from outbox.policy import schedule as delays_of
from outbox.webhook import new_secret
from service.attention import close_attention
from service.errors import NotFound, Refusal
from service.merchants.audit import By
from service.merchants.events import CATALOGUE
from service.merchants.tables import endpoint_secrets, endpoints, merchants
from service.seal import Seal, bound_to

OVERLAP_MS = 24 * 3_600_000
OVERLAP_MS_MAX = 30 * 24 * 3_600_000
ENDPOINTS_MAX = 50
LIVE_SECRETS_MAX = 5
URL_CHARACTERS_MAX = 2_000
PER_MINUTE_MAX = 60_000
ALL = "*"

Hold = Callable[[Connection, str], object]
"""`hold(tx, endpoint_id)`: keep aside what is owed to an endpoint, or let go of it."""

FAILING, DISABLED = "endpoint_failing", "endpoint_disabled"
"""What stands in the attention list about an endpoint."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """The live secrets of an endpoint, newest first, and the one that makes the plain header."""

    live: tuple[str, ...] = field(repr=False)
    plain: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """An endpoint with its secret, this once (`rotate` shows the next one)."""

    id: str
    url: str
    secret: str = field(repr=False)


def add(
    tx: Connection,
    merchant_id: str,
    url: str,
    by: By,
    seal: Seal,
    events: str = ALL,
    schedule: str = "standard",
) -> NewEndpoint:
    """Add an endpoint; what is told from the commit on is promised to it."""
    _refuse_disabled(tx, merchant_id)
    wanted = [checked_url(url), _filter(events), _schedule(schedule)]
    held = tx.execute(select(endpoints.c.id, endpoints.c.url).where(endpoints.c.merchant_id == merchant_id)).all()
    if len(held) >= ENDPOINTS_MAX:
        raise Refusal("too_many_endpoints", f"A merchant has at most {ENDPOINTS_MAX} endpoints.")
    endpoint_id = by.ids("ep")
    tx.execute(
        insert(endpoints).values(
            id=endpoint_id,
            merchant_id=merchant_id,
            url=wanted[0],
            events=wanted[1],
            schedule=wanted[2],
            status="enabled",
            created_at_ms=by.now_ms,
        )
    )
    secret = _add_secret(tx, endpoint_id, by, seal)
    by.write_down(tx, "endpoint.added", endpoint_id, urlsplit(url).hostname or "")
    return NewEndpoint(endpoint_id, url, secret)


def listed(tx: Connection, merchant_id: str | None = None) -> list[dict[str, Any]]:
    """Endpoints without their secrets."""
    query = select(endpoints).order_by(endpoints.c.id)
    if merchant_id:
        query = query.where(endpoints.c.merchant_id == merchant_id)
    return [dict(row._mapping) for row in tx.execute(query)]


def one(tx: Connection, endpoint_id: str) -> dict[str, Any]:
    """One endpoint without its secrets; NotFound says how to list them."""
    row = tx.execute(select(endpoints).where(endpoints.c.id == endpoint_id)).one_or_none()
    if row is None:
        raise NotFound("endpoint", endpoint_id, "caisse endpoint list")
    return dict(row._mapping)


def change(
    tx: Connection,
    endpoint_id: str,
    by: By,
    forgive: Hold,
    url: str | None = None,
    events: str | None = None,
    schedule: str | None = None,
) -> None:
    """
    Change what is given, under the same rules as `add`. What is owed already goes to a new address, and `forgive` lets
    it begin there without the failures of the old one.
    """
    before = one(tx, endpoint_id)
    refuse_disabled(tx, endpoint_id)
    values: dict[str, str] = {}
    if url is not None:
        values["url"] = checked_url(url)
    if events is not None:
        values["events"] = _filter(events)
    if schedule is not None:
        values["schedule"] = _schedule(schedule)
    if values:
        tx.execute(update(endpoints).where(endpoints.c.id == endpoint_id).values(**values))
        if url is not None and before["status"] == "enabled":
            forgive(tx, endpoint_id)
            forget_warnings(tx, endpoint_id, by.now_ms)
        told = values | ({"url": urlsplit(values["url"]).hostname or ""} if url else {})
        by.write_down(tx, "endpoint.changed", endpoint_id, ", ".join(f"{name}: {told[name]}" for name in sorted(told)))


def disable(tx: Connection, endpoint_id: str, reason: str, by: By, hold: Hold) -> bool:
    """Send nothing more there; what is owed is kept aside, nothing is dropped. False: it was disabled already."""
    enabled = bool(one(tx, endpoint_id)["status"] == "enabled")
    if enabled:
        tx.execute(
            update(endpoints)
            .where(endpoints.c.id == endpoint_id)
            .values(status="disabled", disabled_reason=reason[:200] or "by hand")
        )
        forget_warnings(tx, endpoint_id, by.now_ms)
        by.write_down(tx, "endpoint.disabled", endpoint_id, reason)
    hold(tx, endpoint_id)
    return enabled


def enable(tx: Connection, endpoint_id: str, by: By, release: Hold) -> None:
    """Send there again. `release` lets go of what was kept aside."""
    refuse_disabled(tx, endpoint_id)
    if one(tx, endpoint_id)["status"] == "disabled":
        tx.execute(
            update(endpoints).where(endpoints.c.id == endpoint_id).values(status="enabled", disabled_reason=None)
        )
        close_attention(tx, endpoint_id, DISABLED, by.now_ms)
        by.write_down(tx, "endpoint.enabled", endpoint_id)
    forget_warnings(tx, endpoint_id, by.now_ms)
    release(tx, endpoint_id)


def forget_warnings(tx: Connection, endpoint_id: str, now_ms: int) -> None:
    """It works, or begins anew: it was never warned of."""
    tx.execute(
        update(endpoints)
        .where(endpoints.c.id == endpoint_id)
        .values(failing_since_ms=None, warnings=0, warned_at_ms=None)
    )
    close_attention(tx, endpoint_id, FAILING, now_ms)


def refuse_disabled(tx: Connection, endpoint_id: str) -> None:
    """Raises Refusal when the endpoint's merchant is disabled."""
    _refuse_disabled(tx, one(tx, endpoint_id)["merchant_id"])


def rotate(tx: Connection, endpoint_id: str, by: By, seal: Seal, overlap_ms: int = OVERLAP_MS) -> str:
    """A new secret; the old ones stay live for `overlap_ms`, never longer than they had. 0: they leaked, end now."""
    one(tx, endpoint_id)
    if not 0 <= overlap_ms <= OVERLAP_MS_MAX:
        raise Refusal("bad_overlap", "The overlap is between 0 and 30 days.")
    of = endpoint_secrets.c.endpoint_id == endpoint_id
    ends = endpoint_secrets.c.expires_at_ms
    ends_at_ms = by.now_ms + overlap_ms
    tx.execute(
        update(endpoint_secrets).where(of, or_(ends.is_(None), ends > ends_at_ms)).values(expires_at_ms=ends_at_ms)
    )
    tx.execute(delete(endpoint_secrets).where(of, ends <= by.now_ms))
    if len(tx.execute(select(endpoint_secrets.c.id).where(of)).all()) >= LIVE_SECRETS_MAX:
        raise Refusal(
            "too_many_secrets",
            f"{LIVE_SECRETS_MAX} secrets are live already; wait, or end them with --overlap-hours 0.",
        )
    secret = _add_secret(tx, endpoint_id, by, seal)
    by.write_down(tx, "endpoint.secret_rotated", endpoint_id)
    return secret


_LIVE = (
    select(endpoint_secrets)
    .where(
        endpoint_secrets.c.endpoint_id.in_(bindparam("endpoints", expanding=True)),
        or_(endpoint_secrets.c.expires_at_ms.is_(None), endpoint_secrets.c.expires_at_ms > bindparam("now_ms")),
    )
    .order_by(endpoint_secrets.c.created_at_ms.desc(), endpoint_secrets.c.id.desc())
)


def live_secrets(tx: Connection, endpoint_ids: Sequence[str], seal: Seal, now_ms: int) -> dict[str, Secrets]:
    """The secrets that sign now, for several endpoints at once; one that cannot be opened raises SealError."""
    live: dict[str, list[str]] = {}
    for row in tx.execute(_LIVE, {"endpoints": list(endpoint_ids), "now_ms": now_ms}):
        live.setdefault(row.endpoint_id, []).append(seal.open(row.secret, _bound(row.id)))
    return {endpoint_id: Secrets(tuple(values), values[-1]) for endpoint_id, values in live.items()}


def delays_ms(schedule: str) -> tuple[int, ...]:
    """The delays that an endpoint's schedule means."""
    return delays_of(schedule if not schedule[:1].isdigit() else [int(item) * 1000 for item in schedule.split(",")])


def _refuse_disabled(tx: Connection, merchant_id: str) -> None:
    status = tx.execute(select(merchants.c.status).where(merchants.c.id == merchant_id)).scalar()
    if status is None:
        raise NotFound("merchant", merchant_id, "caisse merchant list")
    if status == "disabled":
        raise Refusal("merchant_disabled", f"The merchant {merchant_id} is disabled: nothing is sent to its endpoints.")


def _add_secret(tx: Connection, endpoint_id: str, by: By, seal: Seal) -> str:
    secret = new_secret()
    row_id = by.ids("sec")
    tx.execute(
        insert(endpoint_secrets).values(
            id=row_id, endpoint_id=endpoint_id, secret=seal.seal(secret, _bound(row_id)), created_at_ms=by.now_ms
        )
    )
    return secret


def _bound(row_id: str) -> str:
    return bound_to("endpoint_secrets", row_id, "secret")


def checked_url(url: str) -> str:
    """The shape alone; the guard decides about the address, here and again at every connect."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        fine = False
    if not fine or len(url) > URL_CHARACTERS_MAX or not url.isascii() or any(ord(c) < 33 for c in url):
        raise Refusal("bad_url", "The address must look like https://shop.example/webhooks.")
    if "@" in urlsplit(url).netloc:
        raise Refusal("bad_url", "The address must not hold a user name or password.")
    if urlsplit(url).fragment:
        raise Refusal("bad_url", "The address must not hold a fragment (#…).")
    return url


def _filter(events: str) -> str:
    wanted = list(dict.fromkeys(item.strip() for item in events.split(",") if item.strip())) or [ALL]
    for item in wanted:
        if item != ALL and item not in CATALOGUE:
            near = difflib.get_close_matches(item, CATALOGUE, n=1)
            hint = f"did you mean {near[0]}" if near else f"there are {', '.join(CATALOGUE)}"
            raise Refusal("unknown_event_type", f"There is no event type {item[:60]!r}; {hint}.")
    return ",".join(wanted)


def _schedule(schedule: str) -> str:
    text = schedule.replace(" ", "")
    try:
        delays_ms(text)
    except ValueError:
        raise Refusal(
            "bad_schedule",
            f"The schedule is `standard`, `short`, or at most {RETRIES_MAX} delays in seconds such as 5,60,300, "
            f"each up to {DELAY_MS_MAX // 1000}.",
        ) from None
    return text
