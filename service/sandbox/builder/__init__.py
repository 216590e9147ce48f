"""
Builds real signed callbacks of all six providers: for `caisse callback send`, for the demonstration, for tests, and
for merchants who test their own integration.

Nothing here is shared with `service.providers`: who builds with the code that verifies proves only that the code
agrees with itself.

    built = build("stripe", "charge.succeeded", {"webhook_secrets": ["whsec_…"]}, now_ms, {"amount": "1500"})
    built.method, built.path_suffix, built.headers, built.body
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.sandbox.builder import ebilling, fedapay, moneroo, monetbil, paystack, stripe
from service.sandbox.builder.wanted import FIELDS, Built, Credentials, Wanted

__all__ = ["FIELDS", "Built", "build", "events"]

_SIX = {
    "stripe": stripe,
    "paystack": paystack,
    "fedapay": fedapay,
    "monetbil": monetbil,
    "moneroo": moneroo,
    "ebilling": ebilling,
}


def events(provider: str) -> tuple[str, ...]:
    """The events that can be built for a provider."""
    return tuple(_of(provider).EVENTS)


def build(
    provider: str, event: str, credentials: Credentials, now_ms: int, fields: Mapping[str, Any] | None = None
) -> Built:
    """
    One callback, signed now with the newest secret. The same arguments give the same bytes.

    `fields` are the names of `FIELDS`, or paths with points in them that set any place of the body. What is not
    known is a ValueError with a sentence that lists what is.
    """
    module = _of(provider)
    built: Built = module.build(event, credentials, now_ms, Wanted.read(fields or {}, now_ms, module.CURRENCY))
    return built


def _of(provider: str) -> Any:
    if provider not in _SIX:
        raise ValueError(f"There is no provider {provider[:60]!r}; there are {', '.join(_SIX)}.")
    return _SIX[provider]
