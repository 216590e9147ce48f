"""Callbacks on the wire, for every test of providers: credentials, a time, and one right callback of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from service.providers import PROVIDERS
from service.providers.base import Credentials, Incoming, Provider
from service.sandbox.builder import build

NOW_MS = 1_795_165_200_000  # 2026-11-20T09:00:00Z

CREDENTIALS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "stripe": {"webhook_secrets": ("whsec_one",)},
    "paystack": {"secret_keys": ("sk_test_one",)},
    "fedapay": {"webhook_secrets": ("wh_sandbox_one",)},
    "monetbil": {"service_key": ("service_one",), "service_secrets": ("monetbil_one",)},
    "moneroo": {"secret_key": ("pvk_one",), "webhook_secrets": ("moneroo_one",)},
    "ebilling": {"username": ("shop",), "shared_key": ("key_one",), "callback_tokens": ("token_one",)},
}
PAID = {
    "stripe": "charge.succeeded",
    "paystack": "charge.success",
    "fedapay": "transaction.approved",
    "monetbil": "success",
    "moneroo": "payment.success",
    "ebilling": "paid",
}
ALL = tuple(PROVIDERS.values())
SIGNED = tuple(p for p in ALL if p.capabilities.signed)
HEADED = tuple(p for p in ALL if p.capabilities.signature_header)
TIMED = tuple(p for p in ALL if p.capabilities.timestamped)
WEAK = tuple(p for p in ALL if not p.capabilities.strong)
STRONG = tuple(p for p in ALL if p.capabilities.strong)
ASKED = tuple(p for p in ALL if p.capabilities.ask)
JSON = tuple(p for p in ALL if p.name not in ("monetbil", "ebilling"))


def name(provider: Provider) -> str:
    """For test ids."""
    return provider.name


def secret_name(provider: Provider) -> str:
    """The credential that verifies."""
    return next(c.name for c in provider.credentials if c.verifies)


def credentials(provider: Provider, *secrets: str) -> Credentials:
    """The usual ones, with these secrets, if any are given, in place of the one that verifies."""
    usual = dict(CREDENTIALS[provider.name])
    return usual | {secret_name(provider): secrets} if secrets else usual


def callback(
    provider: Provider,
    event: str = "",
    fields: Mapping[str, Any] | None = None,
    *,
    at_ms: int = NOW_MS,
    signed_by: Credentials | None = None,
) -> Incoming:
    """A built callback as it comes in."""
    built = build(
        provider.name,
        event or PAID[provider.name],
        signed_by or credentials(provider),
        at_ms,
        {"reference": "CMD-1"} | dict(fields or {}),
    )
    headers = tuple((key.lower().encode(), value.encode()) for key, value in built.headers.items())
    return Incoming(built.method, headers, built.path_suffix.partition("?")[2].encode(), built.body)


def with_header(incoming: Incoming, header: bytes, *values: bytes) -> Incoming:
    """The same callback with this header given so many times."""
    others = tuple((key, value) for key, value in incoming.headers if key != header)
    return replace(incoming, headers=(*others, *((header, value) for value in values)))


def plain(body: bytes, *, query: bytes = b"", method: str = "POST") -> Incoming:
    """A body without any headers, for what comes after verify."""
    return Incoming(method, (), query, body)
