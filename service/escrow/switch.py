"""Switching delayed payout on and off, and changing its terms: what is not said stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Final

from sqlalchemy import Connection, select

from service.errors import Refusal
from service.escrow.terms import NOTICE, Terms, set_terms, terms_of
from service.merchants.audit import By
from service.merchants.tables import accounts, audit
from service.payments.currencies import CURRENCIES

UNDERSTOOD: Final = "escrow.understood"
"""The audit trail's word for: somebody has read the notice. Whoever switches it on again is not asked again."""
_NAMES: Final = frozenset(field.name for field in fields(Terms))


def change_terms(
    tx: Connection, merchant_id: str, changes: Mapping[str, Any], by: By, *, understood: bool = False
) -> Terms:
    """
    A work: change what is given of a merchant's terms, by the names of `Terms`. Of `approve_above` the currencies that
    are given change, and None takes one away. The first time it is switched on needs `understood`: the notice was read.

    Raises Refusal: nothing_to_change, not_understood, and what `set_terms` raises.
    """
    if not changes or not changes.keys() <= _NAMES:
        raise Refusal("nothing_to_change", f"Say what to change: {', '.join(sorted(_NAMES))}.")
    was = terms_of(tx, merchant_id)
    above: dict[str, int | None] = dict(was.approve_above)
    for currency, minor in changes.get("approve_above", {}).items():
        if currency not in CURRENCIES:
            raise Refusal("bad_approve_above", f"approve_above: {str(currency)[:10]!r} is no ISO 4217 code.")
        above[currency] = minor
    kept = {currency: minor for currency, minor in above.items() if minor is not None}
    now = replace(was, **{**changes, "approve_above": kept})
    if now.enabled and not was.enabled and not _was_understood(tx, merchant_id):
        if not understood:
            raise Refusal("not_understood", f"understood: it has to be true the first time. {NOTICE}")
        by.write_down(tx, UNDERSTOOD, merchant_id, NOTICE)
    set_terms(tx, merchant_id, now, by)
    return terms_of(tx, merchant_id)


def has_live_account(tx: Connection, merchant_id: str) -> bool:
    """A query: whether real money moves for this merchant."""
    query = select(accounts.c.id).where(accounts.c.merchant_id == merchant_id, accounts.c.live.is_(True))
    return tx.execute(query.limit(1)).first() is not None


def _was_understood(tx: Connection, merchant_id: str) -> bool:
    query = select(audit.c.id).where(audit.c.subject == merchant_id, audit.c.action == UNDERSTOOD)
    return tx.execute(query.limit(1)).first() is not None
