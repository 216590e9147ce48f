"""
API keys: 256 random bits, shown once and kept as their SHA-256.

A fast hash is right here: what is hashed cannot be guessed, and it is looked up on every request.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, bindparam, insert, select, update

from service.errors import NotFound, Refusal
from service.merchants.audit import By
from service.merchants.tables import api_keys, merchants

ALL = "*"
SCOPES = (
    "payments:read", "payments:write", "sessions:read", "sessions:write", "orders:read", "orders:write",
    "products:read", "products:write", "refunds:read", "refunds:write", "routes:read", "routes:write",
    "escrow:read", "escrow:write", "holds:read", "holds:write", "holds:link", "beneficiaries:read",
    "beneficiaries:write", "beneficiaries:approve", "payouts:read", "payouts:write", "payouts:approve",
    "balances:read", "settlements:read", "settlements:write",
    "attention:read", "attention:write", "events:read", "endpoints:read", "endpoints:write",
    "deliveries:read", "deliveries:write", "merchants:read", "jobs:read", "jobs:write",
)  # fmt: skip
"""What a key may do. `*` is everything that is the merchant's own; `write` includes the same resource's `read`."""
OF_THE_INSTALLATION = frozenset({"jobs"})
"""Resources that are every merchant's at once: a key may do something to them only where it was given that by name."""

PREFIXES = {True: "ck_live_", False: "ck_test_"}
KEY_BYTES = 32
HINT_CHARACTERS = 4
NAME_CHARACTERS_MAX = 100


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key, this once."""

    id: str
    key: str = field(repr=False)
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request comes from."""

    key_id: str
    merchant_id: str
    live: bool
    scopes: frozenset[str]

    def may(self, scope: str) -> bool:
        """Whether the key was given this scope."""
        resource, _, verb = scope.partition(":")
        given = {scope} if resource in OF_THE_INSTALLATION else {ALL, scope}
        return bool(self.scopes & given) or (verb == "read" and f"{resource}:write" in self.scopes)


def create(
    tx: Connection, merchant_id: str, live: bool, by: By, name: str = "", scopes: Sequence[str] = (ALL,)
) -> NewKey:
    """Make a key; this is the only time it is seen."""
    wanted = _scopes(scopes)
    found = tx.execute(select(merchants.c.status).where(merchants.c.id == merchant_id)).scalar()
    if found is None:
        raise NotFound("merchant", merchant_id, "caisse merchant list")
    if found != "active":
        raise Refusal("merchant_disabled", f"The merchant {merchant_id} is disabled and gets no new keys.")
    key = PREFIXES[live] + secrets.token_urlsafe(KEY_BYTES)
    made = NewKey(by.ids("key"), key, key[-HINT_CHARACTERS:])
    tx.execute(
        insert(api_keys).values(
            id=made.id,
            merchant_id=merchant_id,
            name=name[:NAME_CHARACTERS_MAX],
            hash=_hash(key),
            hint=PREFIXES[live] + "…" + made.hint,
            scopes=",".join(wanted),
            created_at_ms=by.now_ms,
        )
    )
    by.write_down(tx, "key.created", made.id, ",".join(wanted))
    return made


_VERIFY = (
    select(api_keys.c.id, api_keys.c.merchant_id, api_keys.c.scopes)
    .join(merchants, merchants.c.id == api_keys.c.merchant_id)
    .where(api_keys.c.hash == bindparam("hash"), api_keys.c.revoked_at_ms.is_(None), merchants.c.status == "active")
)


def verify(tx: Connection, key: str) -> Caller | None:
    """Whose key it is; None for a wrong or revoked one, and for a disabled merchant's."""
    prefix = next((prefix for prefix in PREFIXES.values() if key.startswith(prefix)), None)
    if prefix is None or len(key) > 100 or not key.isascii():
        return None
    row = tx.execute(_VERIFY, {"hash": _hash(key)}).one_or_none()
    if row is None:
        return None
    return Caller(row.id, row.merchant_id, prefix == PREFIXES[True], frozenset(row.scopes.split(",")))


def revoke(tx: Connection, key_id: str, by: By, reason: str = "") -> bool:
    """From the commit on the key is refused. False when it was revoked before."""
    changed = tx.execute(
        update(api_keys)
        .where(api_keys.c.id == key_id, api_keys.c.revoked_at_ms.is_(None))
        .values(revoked_at_ms=by.now_ms)
    ).rowcount
    if not changed and tx.execute(select(api_keys.c.id).where(api_keys.c.id == key_id)).scalar() is None:
        raise NotFound("API key", key_id, "caisse keys list")
    if changed:
        by.write_down(tx, "key.revoked", key_id, reason)
    return bool(changed)


def listed(tx: Connection, merchant_id: str | None = None) -> list[dict[str, object]]:
    """Keys by their hints, the revoked ones too."""
    query = select(api_keys).order_by(api_keys.c.id)
    if merchant_id:
        query = query.where(api_keys.c.merchant_id == merchant_id)
    return [
        {
            "id": row.id,
            "merchant_id": row.merchant_id,
            "name": row.name,
            "hint": row.hint,
            "scopes": row.scopes.split(","),
            "created_at_ms": row.created_at_ms,
            "revoked_at_ms": row.revoked_at_ms,
        }
        for row in tx.execute(query)
    ]


def _scopes(scopes: Sequence[str]) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys(scope.strip() for scope in scopes if scope.strip())) or (ALL,)
    for scope in wanted:
        if scope not in (ALL, *SCOPES):
            raise Refusal("unknown_scope", f"There is no scope {scope[:60]!r}; there are {ALL}, {', '.join(SCOPES)}.")
    return wanted


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
