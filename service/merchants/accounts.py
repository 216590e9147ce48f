"""
Accounts at providers: the default ones that the settings make, the stored ones, and the registry that intake reads.

A stored account's credentials are one sealed JSON value, bound to its row. The registry is built from the database and
the settings, held in memory, and replaced as a whole after a change: intake never waits for a query to know a secret.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from sqlalchemy import Connection, insert, select, update

from service.config import Settings
from service.errors import NotFound, Refusal
from service.merchants.audit import By
from service.merchants.tables import accounts, merchants
from service.providers import PROVIDERS, monetbil
from service.providers.base import Credentials, Provider
from service.seal import Seal, SealError, bound_to

log = structlog.get_logger()

SECRETS_MAX = 5
SECRET_CHARACTERS_MAX = 1_000
NAME_CHARACTERS_MAX = 100
_PATH_TOKEN = re.compile(r"[A-Za-z0-9._~-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Entry:
    """One account as intake and the asking know it. Something in `missing` means: refuse its callbacks."""

    id: str
    provider: str
    merchant_id: str | None
    live: bool
    base_url: str
    credentials: Credentials = field(repr=False)
    missing: tuple[str, ...] = ()
    stored: bool = False
    name: str = ""


class Registry:
    """All accounts in memory; built by `load`, never changed."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._by_id = {entry.id: entry for entry in entries}
        self._offered = frozenset(entry.provider for entry in self._by_id.values())
        self._by_token: dict[tuple[str, bytes], tuple[bytes, Entry]] = {}
        for entry in self._by_id.values():
            for token in _tokens(entry):
                digest = digest_of(token)
                self._by_token.setdefault((entry.provider, digest), (digest, entry))

    @classmethod
    def load(cls, tx: Connection, settings: Settings, seal: Seal) -> Registry:
        """A query: the rows, the settings' credentials for default accounts and the opened ones for stored accounts."""
        defaults = {account.id: account for account in settings.default_accounts()}
        entries: list[Entry] = []
        for row in tx.execute(select(accounts).where(accounts.c.status == "active").order_by(accounts.c.id)):
            provider = PROVIDERS.get(row.provider)
            if provider is None:
                continue  # a provider that this version no longer has
            if row.origin == "settings":
                default = defaults.get(row.id)
                if default is None:
                    continue  # configured once, and no more: off
                credentials, base_url = default.credentials, default.base_url
            else:
                credentials, base_url = _opened(row, seal), row.base_url or settings.base_urls[row.provider]
            if row.provider == "monetbil" and row.origin == "settings" and settings.monetbil_allow_unsigned:
                credentials = {**credentials, monetbil.ALLOW_UNSIGNED: ("true",)}
            entries.append(
                Entry(
                    row.id,
                    row.provider,
                    row.merchant_id,
                    row.live,
                    base_url,
                    credentials,
                    provider.missing(credentials),
                    row.origin == "stored",
                    row.name,
                )
            )
        return cls(entries)

    def offers(self, provider: str) -> bool:
        """Whether any account of this provider is configured; if not, its address does not exist."""
        return provider in self._offered

    def default(self, provider: str) -> Entry | None:
        """The account behind `/webhooks/{provider}`; None when the provider is off."""
        return self._by_id.get(f"acc_{provider}")

    def by_id(self, provider: str, account_id: str) -> Entry | None:
        """The account behind `/webhooks/{provider}/{account}`; None when it is another provider's."""
        found = self._by_id.get(account_id)
        return found if found is not None and found.provider == provider else None

    def by_token(self, provider: str, token: str) -> Entry | None:
        """The account whose secret address this is. Only digests are compared, so time tells nothing about a token."""
        return self.by_digest(provider, digest_of(token))

    def by_digest(self, provider: str, digest: bytes) -> Entry | None:
        """The account whose secret token has this digest."""
        found = self._by_token.get((provider, digest))
        return found[1] if found is not None and hmac.compare_digest(found[0], digest) else None

    def get(self, account_id: str) -> Entry | None:
        """By id alone, for work on what is kept already."""
        return self._by_id.get(account_id)

    def half_set(self) -> list[Entry]:
        """The accounts whose callbacks are refused until something is added."""
        return [entry for entry in self._by_id.values() if entry.missing]

    def __iter__(self) -> Any:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)


def ensure_defaults(tx: Connection, settings: Settings, now_ms: int) -> None:
    """A row for every configured provider, so that callbacks have an account to belong to. Idempotent."""
    known = {row.id: row for row in tx.execute(select(accounts).where(accounts.c.origin == "settings"))}
    owner = first_merchant(tx)
    for account in settings.default_accounts():
        row = known.get(account.id)
        if row is None:
            tx.execute(
                insert(accounts).values(
                    id=account.id,
                    merchant_id=owner,
                    provider=account.provider,
                    live=account.live,
                    origin="settings",
                    created_at_ms=now_ms,
                )
            )
        elif row.live != account.live or row.merchant_id is None:
            tx.execute(
                update(accounts)
                .where(accounts.c.id == account.id)
                .values(live=account.live, merchant_id=row.merchant_id or owner)
            )


def first_merchant(tx: Connection) -> str | None:
    """Whom the default accounts belong to."""
    return tx.execute(select(merchants.c.id).order_by(merchants.c.created_at_ms, merchants.c.id).limit(1)).scalar()


def add(
    tx: Connection,
    merchant_id: str,
    provider: str,
    credentials: Mapping[str, str | list[str]],
    live: bool,
    by: By,
    seal: Seal,
    name: str = "",
    base_url: str | None = None,
) -> str:
    """Store a merchant's own account. What is required must all be there. Returns its id."""
    if tx.execute(select(merchants.c.id).where(merchants.c.id == merchant_id)).scalar() is None:
        raise NotFound("merchant", merchant_id, "caisse merchant list")
    if len(name) > NAME_CHARACTERS_MAX or not name.isprintable():
        raise Refusal("bad_name", f"An account's name has at most {NAME_CHARACTERS_MAX} printable characters.")
    if base_url is not None and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", base_url):
        raise Refusal("bad_url", "The base URL must look like https://api.provider.example, without a query.")
    whole = _checked(_provider(provider), credentials)
    if lacking := PROVIDERS[provider].missing(whole):
        raise Refusal("missing_credentials", f"{PROVIDERS[provider].title} also needs {', '.join(lacking)}.")
    account_id = by.ids("acc")
    tx.execute(
        insert(accounts).values(
            id=account_id,
            merchant_id=merchant_id,
            provider=provider,
            name=name,
            live=live,
            origin="stored",
            base_url=base_url,
            credentials=_sealed(account_id, whole, seal),
            created_at_ms=by.now_ms,
        )
    )
    by.write_down(tx, "account.added", account_id, provider)
    return account_id


def refuse_taken_tokens(
    tx: Connection,
    settings: Settings,
    seal: Seal,
    provider: str,
    credentials: Mapping[str, str | list[str]],
    besides: str | None = None,
) -> None:
    """
    Where the secret token in the address *is* the account, refuse one that another account has, or that no address
    can hold. Call it in the transaction that stores the token.
    """
    known = PROVIDERS.get(provider)
    if known is None or not known.capabilities.token_in_path:
        return
    held = Registry.load(tx, settings, seal)
    for credential in known.credentials:
        given = credentials.get(credential.name, []) if credential.verifies else []
        for token in [given] if isinstance(given, str) else given:
            if not _PATH_TOKEN.fullmatch(token):
                raise Refusal("bad_token", "The token is part of an address: letters, digits, '-', '_', '.' and '~'.")
            other = held.by_token(provider, token)
            if other is not None and other.id != besides:
                raise Refusal("token_taken", "Another account has this token; the address has to tell them apart.")


def rotate(
    tx: Connection, account_id: str, credential: str, value: str, by: By, seal: Seal, drop_old: bool = False
) -> list[str]:
    """
    Put a new secret before the ones there are: it makes calls from now on, the old ones still verify callbacks until
    they are dropped (`drop_old`). Where the provider has room for one, it is replaced. Returns what is still missing.
    """
    row = tx.execute(select(accounts).where(accounts.c.id == account_id)).one_or_none()
    if row is None:
        raise NotFound("account", account_id, "caisse account list")
    if row.origin == "settings":
        setting = f"CAISSE_{row.provider}_{credential}".upper()
        raise Refusal("set_in_settings", f"{account_id} comes from the settings: put the new value first in {setting}.")
    provider = _provider(row.provider)
    known = next((c for c in provider.credentials if c.name == credential), None)
    if known is None:
        raise Refusal("unknown_credential", _which(provider, credential))
    try:
        held = dict(json.loads(seal.open(row.credentials, _bound(account_id))))
    except SealError as error:
        raise Refusal("cannot_open", str(error)) from None
    older = [old for old in held.get(credential, []) if old != value] if known.many and not drop_old else []
    held[credential] = [value, *older][:SECRETS_MAX]
    whole = _checked(provider, held)
    tx.execute(update(accounts).where(accounts.c.id == account_id).values(credentials=_sealed(account_id, whole, seal)))
    by.write_down(tx, "account.rotated", account_id, credential)
    return list(provider.missing(whole))


def listed(tx: Connection, registry: Registry) -> list[dict[str, Any]]:
    """Accounts without their credentials: only which are there and which are missing."""
    shown: list[dict[str, Any]] = []
    for row in tx.execute(select(accounts).order_by(accounts.c.provider, accounts.c.id)):
        entry = registry.get(row.id)
        shown.append(
            {
                "id": row.id,
                "provider": row.provider,
                "name": row.name,
                "merchant_id": row.merchant_id,
                "live": row.live,
                "origin": row.origin,
                "status": row.status if entry else "off",
                "missing": list(entry.missing) if entry else [],
                "credentials": {name: len(values) for name, values in entry.credentials.items()} if entry else {},
            }
        )
    return shown


def _provider(name: str) -> Provider:
    if name not in PROVIDERS:
        raise Refusal("unknown_provider", f"There is no provider {name[:60]!r}; there are {', '.join(PROVIDERS)}.")
    return PROVIDERS[name]


def _which(provider: Provider, credential: str) -> str:
    names = ", ".join(c.name for c in provider.credentials)
    return f"{provider.title} has no credential {credential[:60]!r}; it has {names}."


def _checked(provider: Provider, credentials: Mapping[str, Any]) -> dict[str, list[str]]:
    known = {credential.name for credential in provider.credentials}
    whole: dict[str, list[str]] = {}
    for name, given in credentials.items():
        if name not in known:
            raise Refusal("unknown_credential", _which(provider, name))
        values = [value.strip() for value in ([given] if isinstance(given, str) else given) if value.strip()]
        if len(values) > SECRETS_MAX or any(len(value) > SECRET_CHARACTERS_MAX for value in values):
            raise Refusal(
                "too_much", f"{name} takes at most {SECRETS_MAX} values of {SECRET_CHARACTERS_MAX} characters."
            )
        if any(ord(letter) < 32 or ord(letter) == 127 for value in values for letter in value):
            raise Refusal("bad_credential", f"{name} must not contain control characters.")
        whole[name] = values
    return whole


def _opened(row: Any, seal: Seal) -> dict[str, list[str]]:
    """A stored account that cannot be opened is there, with everything missing: its callbacks are refused, not lost."""
    try:
        return dict(json.loads(seal.open(row.credentials, _bound(row.id))))
    except (SealError, TypeError, ValueError) as error:
        log.error("account.not_opened", account_id=row.id, reason=type(error).__name__)
        return {}


def _sealed(account_id: str, credentials: Mapping[str, list[str]], seal: Seal) -> bytes:
    return seal.seal(json.dumps(credentials, sort_keys=True), _bound(account_id))


def _bound(account_id: str) -> str:
    return bound_to("accounts", account_id, "credentials")


def _tokens(entry: Entry) -> list[str]:
    provider = PROVIDERS[entry.provider]
    if not provider.capabilities.token_in_path:
        return []
    names = [credential.name for credential in provider.credentials if credential.verifies]
    return [token for name in names for token in entry.credentials.get(name, ())]


def digest_of(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
