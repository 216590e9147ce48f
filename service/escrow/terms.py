"""What a merchant has decided about delayed payout. It is off until somebody switches it on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, bindparam, insert, select, update

from outbox.prepared import Lookup
from service.errors import Refusal
from service.escrow.tables import escrow_terms
from service.merchants.audit import By
from service.orders.fields import an_amount

RELEASE_HOURS, RELEASE_HOURS_MAX = 48, 24 * 60
UNDELIVERED_DAYS, UNDELIVERED_DAYS_MAX = 14, 365
CURRENCIES_MAX = 20
NOTICE = (
    "Holding other people's money may need a licence where you are. Ask a lawyer or your central bank before you "
    "switch this on for real money."
)
"""Shown to whoever switches it on, and in the documentation."""


@dataclass(frozen=True, slots=True)
class Terms:
    """
    `release_hours` after a recorded delivery money is released by itself. `undelivered_days` after it was paid a person
    looks at what was never delivered. `approve_above`: by currency, the amount above which a person approves a payout,
    in minor units; a currency that is not there: every payout. `timezone` of months; None: the installation's.
    """

    enabled: bool = False
    release_hours: int = RELEASE_HOURS
    undelivered_days: int = UNDELIVERED_DAYS
    payout_on_release: bool = True
    approve_above: Mapping[str, int] = field(default_factory=dict)
    timezone: str | None = None


_TERMS = Lookup(select(escrow_terms).where(escrow_terms.c.merchant_id.in_(bindparam("wanted", expanding=True))))


def terms_of(tx: Connection, merchant_id: str) -> Terms:
    """A query: a merchant's terms, or the defaults."""
    for row in _TERMS(tx, [merchant_id]):
        return Terms(
            bool(row["enabled"]),
            row["release_hours"],
            row["undelivered_days"],
            bool(row["payout_on_release"]),
            json.loads(row["approve_above"]),
            row["timezone"],
        )
    return Terms()


def set_terms(tx: Connection, merchant_id: str, terms: Terms, by: By) -> None:
    """
    A work: from now on. What is held already keeps the hours that it was scheduled with.

    Raises Refusal: bad_release_hours, bad_undelivered_days, bad_approve_above, bad_amount, bad_timezone.
    """
    if not 0 <= terms.release_hours <= RELEASE_HOURS_MAX:
        raise Refusal("bad_release_hours", f"release_hours: 0 to {RELEASE_HOURS_MAX}.")
    if not 1 <= terms.undelivered_days <= UNDELIVERED_DAYS_MAX:
        raise Refusal("bad_undelivered_days", f"undelivered_days: 1 to {UNDELIVERED_DAYS_MAX}.")
    if len(terms.approve_above) > CURRENCIES_MAX:
        raise Refusal("bad_approve_above", f"approve_above: at most {CURRENCIES_MAX} currencies.")
    for currency, minor in terms.approve_above.items():
        if minor:
            an_amount("approve_above", minor, currency)
    if terms.timezone is not None:
        try:
            ZoneInfo(terms.timezone)
        except (KeyError, ValueError, OSError):  # not found is a KeyError
            raise Refusal("bad_timezone", f"timezone: there is no time zone {terms.timezone[:60]!r}.") from None
    row = {
        "enabled": terms.enabled,
        "release_hours": terms.release_hours,
        "undelivered_days": terms.undelivered_days,
        "payout_on_release": terms.payout_on_release,
        "approve_above": json.dumps(dict(sorted(terms.approve_above.items()))),
        "timezone": terms.timezone,
        "updated_at_ms": by.now_ms,
    }
    changed = tx.execute(update(escrow_terms).where(escrow_terms.c.merchant_id == merchant_id).values(row))
    if not changed.rowcount:
        tx.execute(insert(escrow_terms).values(row | {"merchant_id": merchant_id}))
    by.write_down(tx, "escrow.terms", merchant_id, json.dumps(row))


def shown(terms: Terms) -> dict[str, object]:
    """For people and programs."""
    return {
        "enabled": terms.enabled,
        "release_hours": terms.release_hours,
        "undelivered_days": terms.undelivered_days,
        "payout_on_release": terms.payout_on_release,
        "approve_above": dict(terms.approve_above),
        "timezone": terms.timezone,
        "notice": NOTICE,
    }
