"""Webhooks: signed by Standard Webhooks 1.0.0 (and a plain header beside), sent once, judged by their status."""

from __future__ import annotations

import asyncio
import base64
import binascii
import errno
import hmac
import math
import secrets as randomness
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from time import perf_counter

import aiohttp

from outbox.guard import Forbidden, Guard
from outbox.message import HEAD_BYTES_MAX, Done, Drop, Retry, Trial

ANSWER_BYTES_MAX = 64 * 1024
TOTAL_MS = 10_000
BODY_MS = 1_000
"""How long the rest of an answer is waited for after its status: who drips it must not keep a place for 10 s."""
RETRY_AFTER_MS_MAX = 24 * 3_600_000
PLAIN_HEADER = "X-Caisse-Signature"
GONE = "gone"

_PREFIX = "whsec_"
_KEY_BYTES = range(24, 65)


def new_secret() -> str:
    """A fresh signing secret, `whsec_` and 32 random bytes in base64. Shown once, stored encrypted."""
    return _PREFIX + base64.b64encode(randomness.token_bytes(32)).decode()


def sign(event_id: str, timestamp_s: int, body: bytes, secrets: Sequence[str]) -> dict[str, str]:
    """
    The three headers of Standard Webhooks, one `v1` signature per live secret (space-separated, so both sides of a
    rotation verify). Raises ValueError if there is no secret or one is not `whsec_` and 24 to 64 bytes in base64.
    """
    if not secrets:
        raise ValueError("A webhook without a secret cannot be signed.")
    signed = b"%s.%d.%s" % (event_id.encode(), timestamp_s, body)
    signatures = (base64.b64encode(_mac(_key(secret), signed)).decode() for secret in secrets)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def sign_plain(body: bytes, secret: str) -> str:
    """`sha256=` and the HMAC of the raw body in hex. Its key is the secret as it is written, prefix and all."""
    return "sha256=" + _mac(secret.encode(), body).hex()


def _mac(key: bytes, signed: bytes) -> bytes:
    mac = _keyed(key).copy()
    mac.update(signed)
    return mac.digest()


@lru_cache(maxsize=1024)
def _keyed(key: bytes) -> hmac.HMAC:
    """
    An HMAC that has its key and nothing else yet, to be copied. `hmac.digest` lets go of the interpreter's lock for
    these few microseconds, and under load waits for the writer's thread to give it back.
    """
    return hmac.new(key, digestmod="sha256")


def _key(secret: str) -> bytes:
    if not secret.startswith(_PREFIX):
        raise ValueError("A signing secret begins with 'whsec_'.")
    try:
        key = base64.b64decode(secret[len(_PREFIX) :], validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("A signing secret is base64 after 'whsec_'.") from None
    if len(key) not in _KEY_BYTES:
        raise ValueError(f"A signing secret has 24 to 64 bytes, this one has {len(key)}.")
    return key


@dataclass(frozen=True, slots=True)
class Webhook:
    """
    One request to make. `event_id` is the same over all tries and replays. `secrets` sign by the standard;
    `plain_secret` signs the plain header, which has room for one: the old one while rotating; empty: no such header.
    `delays_ms`: the endpoint's own schedule, None for the topic's.
    """

    url: str
    event_id: str
    body: bytes
    secrets: Sequence[str] = field(repr=False)
    plain_secret: str = field(default="", repr=False)
    plain_header: str = PLAIN_HEADER
    delays_ms: Sequence[int] | None = None


def open_session(guard: Guard, limit: int = 0) -> aiohttp.ClientSession:
    """
    The one session that webhooks leave by: guarded, deaf to proxies and .netrc in the environment, keeping no
    cookies, decompressing nothing (a 1 MB gzip answer would cost 1 GB). Open it on the running loop and close it.
    """
    return aiohttp.ClientSession(
        connector=guard.connector(limit),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        raise_for_status=False,
    )


class Sender:
    """
    Sends webhooks over a session from `open_session`, with the same guard. `clock` gives ms, `version` is ours, for
    the user agent; `total_ms` limits connecting, headers and body together.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        guard: Guard,
        clock: Callable[[], int],
        version: str = "0",
        total_ms: int = TOTAL_MS,
    ) -> None:
        self._session = session
        self._guard = guard
        self._clock = clock
        # The threshold: aiohttp would round limits from 5 s up to whole seconds of its clock, our 10 s to nearly 11.
        self._timeout = aiohttp.ClientTimeout(total=total_ms / 1000, ceil_threshold=math.inf)
        self._fixed = {
            "content-type": "application/json",
            "user-agent": f"caisse/{version}",
            "accept-encoding": "identity",
        }

    async def send(self, webhook: Webhook) -> Done | Retry | Drop:
        """
        One try. 2xx is Done; 410 is Drop("gone"), to which the caller may add a `then` with `dataclasses.replace`;
        everything else is Retry with a fixed word (`http_500`, redirect, timeout, refused, dns, tls, reset,
        unreachable, forbidden_address, …). The status is the answer: a body that drips, breaks off or is too long
        is left after a second, at most 64 kB of it read, and changes nothing. Raises ValueError only for secrets that
        cannot sign.
        """
        # Before the session sees it: that would turn user info into a header, and speak other schemes.
        refused = self._guard.check_url(webhook.url)
        if refused:
            return Retry(refused, None, webhook.delays_ms, Trial(error=refused))
        now_ms = self._clock()
        headers = sign(webhook.event_id, now_ms // 1000, webhook.body, webhook.secrets) | self._fixed
        if webhook.plain_secret:
            headers[webhook.plain_header] = sign_plain(webhook.body, webhook.plain_secret)
        begun = perf_counter()
        status: int | None = None
        error: str | None = None
        after_ms: int | None = None
        head = bytearray()
        try:
            async with self._session.post(
                webhook.url, data=webhook.body, headers=headers, timeout=self._timeout, allow_redirects=False
            ) as answer:
                status = answer.status
                if status in (429, 503):
                    after_ms = retry_after_ms(answer.headers.get("retry-after", ""), now_ms)
                try:
                    async with asyncio.timeout(BODY_MS / 1000):
                        whole = await _read(answer, head)
                except TimeoutError:
                    whole = False
                if not whole:
                    answer.close()  # there is more than we want: the connection is not worth keeping
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as failure:
            if status is None:
                error = _word(failure)
        if status is not None and not 100 <= status <= 999:
            status, error = None, "bad_answer"  # aiohttp takes 000 for a status
        if status is not None and not 200 <= status < 300:
            error = GONE if status == 410 else "redirect" if 300 <= status < 400 else f"http_{status}"
        trial = Trial(status, error, bytes(head), round((perf_counter() - begun) * 1000))
        if error is None:
            return Done(trial)
        if error == GONE:
            return Drop(error, trial)
        return Retry(error, after_ms, webhook.delays_ms, trial)


async def _read(answer: aiohttp.ClientResponse, head: bytearray) -> bool:
    """Reads the answer's raw bytes, keeps the first of them, and says whether that was all of it."""
    left = ANSWER_BYTES_MAX
    while left > 0:
        chunk = await answer.content.read(left)
        if not chunk:
            return True
        left -= len(chunk)
        head += chunk[: HEAD_BYTES_MAX - len(head)]
    return answer.content.at_eof()


def retry_after_ms(value: str, now_ms: int) -> int | None:
    """How long a Retry-After asks us to wait (seconds or a date), 0 to 24 h; None if it is missing or garbage."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(int(value[:9]) * 1000, RETRY_AFTER_MS_MAX)
    try:
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        wait_ms = round(date.timestamp() * 1000) - now_ms
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(wait_ms, 0), RETRY_AFTER_MS_MAX)


_BY_NUMBER = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ENETUNREACH: "unreachable",
    errno.EHOSTUNREACH: "unreachable",
    errno.EADDRNOTAVAIL: "unreachable",
    errno.ETIMEDOUT: "timeout",
}


def _word(failure: BaseException) -> str:
    """A fixed word for what went wrong before there was a status. Never the text: it may hold addresses."""
    cause = getattr(failure, "os_error", None) or failure.__cause__
    for error in (failure, cause):
        if isinstance(error, Forbidden):
            return error.reason
    match failure:
        case TimeoutError():
            return "timeout"
        case aiohttp.ClientConnectorDNSError():
            return "dns"
        case aiohttp.ClientSSLError() | aiohttp.ServerFingerprintMismatch() | ssl.SSLError():
            return "tls"
        case aiohttp.ServerDisconnectedError():
            return "reset"
        case aiohttp.InvalidURL():
            return "bad_url"
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError():
            return "bad_answer"
        case OSError(errno=number):
            return _BY_NUMBER.get(number or 0, "connection")
        case ValueError():
            return "bad_url"
        case _:
            return "connection"
