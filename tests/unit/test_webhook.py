"""Webhooks: signed so that the public libraries verify them, sent once, judged by their status, never drowned."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import hmac
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Self

import pytest
import standardwebhooks
import svix.webhooks
from aiohttp import web

from outbox import Done, Drop, Retry
from outbox.guard import Guard
from outbox.webhook import (
    RETRY_AFTER_MS_MAX,
    Sender,
    Webhook,
    new_secret,
    open_session,
    retry_after_ms,
    sign,
    sign_plain,
)
from tests.support.clock import Clock

BODY = '{"type":"payment.succeeded","data":{"note":"déjà"}}'.encode()
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

GUARD = Guard()

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def now_s() -> int:
    return int(datetime.now(tz=UTC).timestamp())


# --- signing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("oracle", "failure"),
    [
        (standardwebhooks.Webhook, standardwebhooks.WebhookVerificationError),
        (svix.webhooks.Webhook, svix.webhooks.WebhookVerificationError),
    ],
)
def test_the_public_libraries_verify_what_we_sign(oracle: Any, failure: type[Exception]) -> None:
    """With either secret while rotating, and not with another, nor another body, time or id."""
    old, new = new_secret(), new_secret()
    headers = sign("evt_1", now_s(), BODY, [new, old])
    for secret in (new, old):
        oracle(secret).verify(BODY, headers)
    for secret, body, given in (
        (new_secret(), BODY, headers),
        (new, BODY + b" ", headers),
        (new, BODY, headers | {"webhook-id": "evt_2"}),
        (new, BODY, headers | {"webhook-timestamp": str(now_s() + 1)}),
    ):
        with pytest.raises(failure):
            oracle(secret).verify(body, given)


def test_the_vector_of_the_specification() -> None:
    """The example in Standard Webhooks' own tests, so that both sides cannot be wrong together."""
    headers = sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', [SECRET])
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_plain_signature_is_keyed_by_the_secret_as_written() -> None:
    """For receivers that know nothing of base64: hex HMAC-SHA256 over the raw body."""
    expected = hmac.new(SECRET.encode(), BODY, hashlib.sha256).hexdigest()
    assert sign_plain(BODY, SECRET) == f"sha256={expected}"


@pytest.mark.parametrize(
    "secrets",
    [
        [],
        [""],
        ["whsec_"],
        ["whsec_!!!!"],
        ["whsec_" + base64.b64encode(b"x" * 23).decode()],
        ["whsec_" + base64.b64encode(b"x" * 65).decode()],
        [SECRET, SECRET.removeprefix("whsec_")],
    ],
)
def test_secrets_that_cannot_sign_are_refused(secrets: list[str]) -> None:
    """Never a webhook signed with an empty or a guessable key."""
    with pytest.raises(ValueError):
        sign("evt_1", 1, BODY, secrets)


def test_secrets_are_not_in_the_repr() -> None:
    """A webhook in a log or a traceback shows none."""
    assert SECRET not in repr(Webhook("https://a.example", "evt_1", BODY, [SECRET], SECRET))


# --- sending ------------------------------------------------------------------------------------------


class Shop:
    """A merchant's server on loopback, and a Sender that speaks to it."""

    def __init__(self, answer: Answer, total_ms: int = 10_000) -> None:
        self._answer = answer
        self._total_ms = total_ms
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.clock = Clock()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            self.requests.append(({k.lower(): v for k, v in request.headers.items()}, await request.read()))
            return await self._answer(request)

        runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.05)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        session = await self._stack.enter_async_context(open_session(GUARD))
        self.sender = Sender(session, GUARD, self.clock, "1.2.3", self._total_ms)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def send(self, url: str | None = None, **more: Any) -> Done | Retry | Drop:
        return await self.sender.send(Webhook(url or self.url, "evt_1", BODY, [SECRET], **more))


def served(answer: Answer, test: Callable[[Shop], Awaitable[None]], total_ms: int = 10_000) -> None:
    async def run() -> None:
        async with Shop(answer, total_ms) as shop:
            await test(shop)

    asyncio.run(run())


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=code, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


@pytest.mark.loopback  # a real server: what aiohttp really sends and reads is the point
def test_what_a_receiver_sees() -> None:
    """The body byte for byte, the same id and a fresh timestamp every try, and nothing that keeps state."""

    async def test(shop: Shop) -> None:
        for _ in range(2):
            outcome = await shop.send(plain_secret="old", plain_header="X-Shop-Signature")
            assert isinstance(outcome, Done)
            shop.clock.advance(1_000)
        (first, body), (second, _) = shop.requests
        assert body == BODY
        assert first["webhook-id"] == second["webhook-id"] == "evt_1"
        assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) == 1
        assert first["x-shop-signature"] == sign_plain(BODY, "old")
        assert first["content-type"] == "application/json"
        assert first["user-agent"] == "caisse/1.2.3"
        assert first["accept-encoding"] == "identity"
        assert "cookie" not in second
        stamped = int(first["webhook-timestamp"])
        assert first["webhook-signature"] == sign("evt_1", stamped, BODY, [SECRET])["webhook-signature"]

    served(status(204, set_cookie="a=b; Path=/"), test)


@pytest.mark.loopback
@pytest.mark.parametrize(
    ("code", "kind", "error"),
    [
        (200, Done, None),
        (299, Done, None),
        (301, Retry, "redirect"),
        (307, Retry, "redirect"),
        (304, Retry, "redirect"),
        (400, Retry, "http_400"),
        (401, Retry, "http_401"),
        (410, Drop, "gone"),
        (429, Retry, "http_429"),
        (500, Retry, "http_500"),
    ],
)
def test_the_status_is_the_answer(code: int, kind: type, error: str | None) -> None:
    """Only 2xx is success, a redirect is not followed, 410 is never again; the head of the answer is kept."""

    async def test(shop: Shop) -> None:
        outcome = await shop.send(delays_ms=(7,))
        assert type(outcome) is kind
        assert outcome.trial is not None
        assert (outcome.trial.http_status, outcome.trial.error) == (code, error)
        assert outcome.trial.head == (b"" if code == 304 else b"x" * 1024)
        if isinstance(outcome, Retry):
            assert (outcome.error, outcome.delays_ms) == (error, (7,))
        assert len(shop.requests) == 1

    served(status(code, b"x" * 3000, location="http://169.254.169.254/latest/meta-data"), test)


@pytest.mark.loopback
@pytest.mark.parametrize(("code", "expected_ms"), [(429, 120_000), (503, 120_000), (500, None), (200, None)])
def test_retry_after_counts_for_429_and_503(code: int, expected_ms: int | None) -> None:
    """Elsewhere it is nobody's business."""

    async def test(shop: Shop) -> None:
        outcome = await shop.send()
        assert getattr(outcome, "after_ms", None) == expected_ms

    served(status(code, retry_after="120"), test)


def test_retry_after_forms() -> None:
    """Seconds or a date, bounded by a day, and garbage is ignored."""
    now_ms = 1_800_000_000_000
    now = datetime.fromtimestamp(now_ms / 1000, tz=UTC)
    for value, expected_ms in {
        "0": 0,
        "30": 30_000,
        " 30 ": 30_000,
        "99999999999999999999": RETRY_AFTER_MS_MAX,
        format_datetime(now + timedelta(seconds=90), usegmt=True): 90_000,
        format_datetime(now - timedelta(days=1), usegmt=True): 0,
        format_datetime(now + timedelta(days=30), usegmt=True): RETRY_AFTER_MS_MAX,
        "Fri, 31 Dec 9999 23:59:59 GMT": RETRY_AFTER_MS_MAX,
        "": None,
        "-5": None,
        "1.5": None,
        "1_000": None,
        "٣": None,
        "soon": None,
        "Fri, 99 Foo 2026 99:99:99 GMT": None,
        "0" * 5000 + "x": None,
    }.items():
        assert retry_after_ms(value, now_ms) == expected_ms, value


@pytest.mark.loopback
@pytest.mark.parametrize("code", [200, 500])
def test_an_endless_answer_is_left_after_64_kb(code: int) -> None:
    """The status stands; the connection is closed, not drained."""
    sent: list[int] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(status=code)
        await response.prepare(request)
        try:
            for _ in range(2_000):
                await response.write(b"x" * 65_536)
                sent.append(65_536)
        except ConnectionError:
            pass
        return response

    async def test(shop: Shop) -> None:
        outcome = await shop.send()
        assert isinstance(outcome, Done if code == 200 else Retry)
        await asyncio.sleep(0.05)
        assert sum(sent) < 20_000_000  # what fits into the kernel's buffers, of 131 MB

    served(answer, test)


@pytest.mark.loopback
def test_a_gzip_bomb_stays_a_small_file() -> None:
    """Nothing is decompressed: 50 MB of zeros arrive as 50 kB and are kept as 1 kB."""
    bomb = gzip.compress(bytes(50_000_000))

    async def test(shop: Shop) -> None:
        tracemalloc.start()
        outcome = await shop.send()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert isinstance(outcome, Done)
        assert outcome.trial is not None
        assert outcome.trial.head == bomb[:1024]
        assert peak < 5_000_000

    served(status(200, bomb, content_encoding="gzip"), test)


@pytest.mark.loopback
@pytest.mark.parametrize(("code", "kind"), [(200, Done), (500, Retry)])
def test_a_dripping_body_ends_at_the_deadline(code: int, kind: type) -> None:
    """One time limit over everything. The status was said before, so it stands."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(status=code)
        await response.prepare(request)
        try:
            while True:
                await response.write(b".")
                await asyncio.sleep(0.02)
        except ConnectionError:
            pass
        return response

    async def test(shop: Shop) -> None:
        assert type(await shop.send()) is kind

    served(answer, test, total_ms=200)


@pytest.mark.loopback
def test_silence_is_a_timeout() -> None:
    """Connected, and never an answer."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(5)
        return web.Response()

    async def test(shop: Shop) -> None:
        outcome = await shop.send()
        assert isinstance(outcome, Retry)
        assert outcome.error == "timeout"
        assert outcome.trial is not None
        assert outcome.trial.http_status is None
        assert 150 <= outcome.trial.duration_ms < 1_000

    served(answer, test, total_ms=200)


@pytest.mark.loopback
@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"", "reset"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "bad_answer"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n", "bad_answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "bad_answer"),
    ],
)
def test_what_speaks_no_http(reply: bytes, error: str) -> None:
    """A fixed word for each, never the text of the answer."""

    async def run() -> None:
        async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(BODY)
            writer.write(reply)
            writer.close()

        server = await asyncio.start_server(speak, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, open_session(GUARD) as session:
            outcome = await Sender(session, GUARD, Clock()).send(
                Webhook(f"http://127.0.0.1:{port}", "e", BODY, [SECRET])
            )
            assert isinstance(outcome, Retry)
            assert outcome.error == error

    asyncio.run(run())


@pytest.mark.loopback
def test_a_body_that_breaks_off_changes_nothing() -> None:
    """2xx was said: the merchant has it."""

    async def run() -> None:
        async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(BODY)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
            writer.close()

        server = await asyncio.start_server(speak, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, open_session(GUARD) as session:
            outcome = await Sender(session, GUARD, Clock()).send(
                Webhook(f"http://127.0.0.1:{port}", "e", BODY, [SECRET])
            )
            assert isinstance(outcome, Done)
            assert outcome.trial is not None
            assert outcome.trial.head == b"half"

    asyncio.run(run())


@pytest.mark.loopback
@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("http://127.0.0.1:1", "port"),
        ("http://127.0.0.1:1025", "refused"),
        ("https://127.0.0.1:{port}/", "tls"),
        ("https://nobody.invalid/", "dns"),
        ("http://169.254.169.254/latest/meta-data", "forbidden_address"),
        ("http://user:secret@127.0.0.1:{port}/", "user_info"),
        ("ftp://127.0.0.1:{port}/", "scheme"),
        ("http://[::1", "bad_url"),
        ("no url", "bad_url"),
        ("", "bad_url"),
    ],
)
def test_what_does_not_connect_has_a_word(url: str, error: str) -> None:
    """Nothing of it is an exception: each is one failed try."""

    async def test(shop: Shop) -> None:
        outcome = await shop.send(url.format(port=shop.url.rpartition(":")[2].split("/")[0]) or " ")
        assert isinstance(outcome, Retry)
        assert outcome.error == error
        assert not shop.requests

    served(status(200), test)
