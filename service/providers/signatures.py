"""
Checking signatures. Comparisons are over bytes and in constant time, every live secret is tried, and whatever is
wrong with a header is a refusal, never an exception.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from service.providers import strict
from service.providers.base import TOLERANCE_MS, Credentials, Incoming, Refused, Verified

HEADER_BYTES_MAX: Final = 8 * 1024
# Stripe sends one signature a live secret, two while one is rolled. Ten thousand are somebody's try at our processor.
ITEMS_MAX: Final = 32
_SECONDS_DIGITS_MAX: Final = 12


def secrets(credentials: Credentials, name: str) -> list[bytes]:
    """The secrets under a name. An empty one is none: with it anybody could sign."""
    return [secret.encode("utf-8", "surrogatepass") for secret in credentials.get(name, ()) if secret.strip()]


def matches(expected: Iterable[bytes], given: Iterable[bytes]) -> bool:
    """Whether any of these equals any of those. Everything is compared, so that the time tells nothing."""
    candidates = list(given)
    equal = [hmac.compare_digest(right, one) for right in expected for one in candidates]
    return any(equal)


def _mac(secret: bytes, signed: bytes, algorithm: str) -> bytes:
    mac = _keyed(secret, algorithm).copy()
    mac.update(signed)
    return mac.hexdigest().encode()


@lru_cache(maxsize=1024)
def _keyed(secret: bytes, algorithm: str) -> hmac.HMAC:
    """An HMAC with its key and nothing else yet: `hmac.digest` would let go of the interpreter's lock each time."""
    return hmac.new(secret, digestmod=algorithm)


def over_body(
    callback: Incoming, header: bytes, live: list[bytes], algorithm: str, *, strong: bool
) -> Verified | Refused:
    """A header that holds the hex HMAC of the raw body, without a time (Paystack, Moneroo)."""
    if not live:
        return Refused("no_secret")
    given = callback.header(header)
    if given is None:
        return Refused("missing_header")
    if len(given) > HEADER_BYTES_MAX:
        return Refused("bad_header")
    right = [_mac(secret, callback.body, algorithm) for secret in live]
    return Verified(strong) if matches(right, [given]) else Refused("bad_signature")


def over_time_and_body(
    callback: Incoming, header: bytes, scheme: bytes, live: list[bytes], now_ms: int
) -> Verified | Refused:
    """
    A header `t=<seconds>,<scheme>=<hex>[,<scheme>=<hex>…]` over `<seconds>.<raw body>` (Stripe, FedaPay).

    The time is looked at last: `too_old` in the quarantine then says for certain that the clock or the delay is
    wrong and not the secret. FedaPay's and Stripe's own libraries differ on times ahead of ours; both ways are refused.
    """
    if not live:
        return Refused("no_secret")
    given = callback.header(header)
    if given is None:
        return Refused("missing_header")
    parsed = _items(given, scheme)
    if parsed is None:
        return Refused("bad_header")
    written, seconds, candidates = parsed
    signed = written + b"." + callback.body
    if not matches([_mac(secret, signed, "sha256") for secret in live], candidates):
        return Refused("bad_signature")
    age_ms = now_ms - seconds * 1000
    if age_ms > TOLERANCE_MS:
        return Refused("too_old")
    return Refused("too_new") if age_ms < -TOLERANCE_MS else Verified()


def _items(header: bytes, scheme: bytes) -> tuple[bytes, int, list[bytes]] | None:
    """The time as written, the time as a number, and the signatures; other schemes (`v0`) are passed over."""
    if len(header) > HEADER_BYTES_MAX:
        return None
    items = header.split(b",", ITEMS_MAX)
    if len(items) > ITEMS_MAX:
        return None
    pairs = [(name, value) for name, _, value in (item.partition(b"=") for item in items)]
    times = [value for name, value in pairs if name == b"t"]
    candidates = [value for name, value in pairs if name == scheme]
    seconds = strict.digits(times[0], _SECONDS_DIGITS_MAX) if len(times) == 1 else None
    if seconds is None or not candidates:
        return None
    return times[0], seconds, candidates
