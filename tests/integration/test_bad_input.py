"""Rubbish at the callback door: a clear 4xx for faults of the transport, 401 for what is not genuine, never a 5xx."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path

import pytest

from service.api import callbacks as routes
from service.callbacks.tables import callbacks
from tests.support.service import PATIENCE_S, STRIPE_SECRET, Till, stripe_event, stripe_signature, till

PAID = json.dumps(stripe_event("payment_intent.succeeded")).encode()


async def raw(t: Till, head: bytes, body: bytes = b"", wait_s: float = PATIENCE_S) -> bytes:
    """Bytes as they are, over a socket; the first line of the answer, empty when the connection is just closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", t.app.port)
    try:
        writer.write(head + body)
        async with asyncio.timeout(wait_s):
            return (await reader.readline()).strip()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def problem_of(body: bytes) -> tuple[str, int]:
    """The type and status of a problem+json."""
    said = json.loads(body)
    assert said["detail"].endswith(".") and said["title"]
    return said["type"], said["status"]


def test_faults_of_the_transport_get_their_4xx_with_a_problem(tmp_path: Path) -> None:
    """Unknown provider and account, wrong method, compressed, too large: each says what is wrong."""
    genuine = {"Stripe-Signature": stripe_signature(PAID)}

    async def run() -> None:
        async with till(tmp_path, merchant=False) as t:
            cases = [
                ("/webhooks/nobody", PAID, {}, 404, "urn:caisse:not_found"),
                ("/webhooks/", PAID, {}, 404, "urn:caisse:not_found"),
                ("/webhooks/stripe/acc_other", PAID, genuine, 404, "urn:caisse:not_found"),
                ("/webhooks/stripe", gzip.compress(PAID), {"Content-Encoding": "gzip"}, 415, "urn:caisse:compressed"),
                ("/webhooks/stripe", b"x" * (256 * 1024 + 1), {}, 413, "urn:caisse:too_large"),
                ("/webhooks/stripe", PAID, {f"X-{n}": "a" for n in range(80)}, 431, "urn:caisse:headers_too_large"),
                ("/webhooks/stripe", PAID, {"X-Long": "a" * 14_000}, 431, "urn:caisse:headers_too_large"),
            ]
            for path, body, headers, status, type_ in cases:
                got, said = await t.post(path, body, headers)
                assert (got, *problem_of(said)) == (status, type_, status), path
            async with t.client.get(t.url + "/webhooks/stripe") as answer:
                assert (answer.status, problem_of(await answer.read())[0]) == (405, "urn:caisse:method_not_allowed")
            assert await t.count(callbacks) == 0
            assert await t.stripe(PAID) == 200

    asyncio.run(run())


def test_a_body_of_exactly_the_limit_is_taken(tmp_path: Path) -> None:
    """256 kB is allowed, one byte more is not: with a length and in chunks."""
    event = stripe_event("payment_intent.succeeded", description="")
    room = 256 * 1024 - len(json.dumps(event))
    event["data"]["object"]["description"] = "x" * room
    body = json.dumps(event).encode()

    async def run() -> None:
        async with till(tmp_path, merchant=False) as t:
            assert len(body) == 256 * 1024
            assert await t.stripe(body) == 200

            async def chunks(extra: bytes) -> object:
                yield body
                yield extra

            signed = {"Stripe-Signature": stripe_signature(body)}
            for extra, status in ((b"", 200), (b"x", 413)):
                async with t.client.post(t.url + "/webhooks/stripe", data=chunks(extra), headers=signed) as answer:
                    assert answer.status == status

    asyncio.run(run())


def test_slow_bodies_and_headers_end_at_their_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that does not come is 408, a header that does not end is dropped; neither holds anything up."""
    monkeypatch.setattr(routes, "BODY_DEADLINE_S", 0.3)
    monkeypatch.setattr("service.api.site.HEADER_DEADLINE_MS", 300)

    async def run() -> None:
        async with till(tmp_path, merchant=False) as t:
            head = b"POST /webhooks/stripe HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n"
            slow = [raw(t, head + b"\r\n", b"abc") for _ in range(20)]
            slow += [raw(t, head + b"X-Slow: ") for _ in range(20)]
            answers = asyncio.gather(*slow)
            assert await t.stripe(PAID) == 200
            lines = await answers
            assert lines[:20] == [b"HTTP/1.1 408 Request Timeout"] * 20
            assert set(lines[20:]) <= {b"", b"HTTP/1.1 408 Request Timeout"}

    asyncio.run(run())


def test_broken_http_is_4xx_or_a_closed_connection(tmp_path: Path) -> None:
    """1 MB headers, 10,000 headers, nonsense lengths, NUL in the path: never a 5xx, never a hang."""

    async def run() -> None:
        async with till(tmp_path, merchant=False) as t:
            start = b"POST /webhooks/stripe HTTP/1.1\r\nHost: a\r\n"
            heads = [
                start + b"X: " + b"a" * 1_000_000 + b"\r\n\r\n",
                start + b"".join(b"X-%d: a\r\n" % n for n in range(10_000)) + b"\r\n",
                start + b"Content-Length: -1\r\n\r\n",
                start + b"Content-Length: 99999999999999999999\r\n\r\n",
                start + b"Content-Length: \xd9\xa1\r\n\r\n",
                start + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nzz\r\n",
                b"POST /webhooks/stripe\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
                b"POST /webhooks/%00/%ff%fe HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
                b"POST /webhooks/stripe/../../healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200 + b"\r\n\r\n",
            ]
            for head in heads:
                line = await raw(t, head)
                assert line == b"" or line.split()[1].startswith(b"4"), (head[:80], line)
            assert await t.stripe(PAID) == 200

    asyncio.run(run())


GARBAGE = [
    b"", b"v1=\xc3\xa9", b"t=,v1=", b"t=nan,v1=00", b"t=1_674,v1=00", "t=１２３,v1=00".encode(), b"t=1,v1=" + b"0" * 64,
    b"t=99999999999999999999,v1=00", b"," * 5_000, b"t=1" + b",v1=00" * 1_000,
]  # fmt: skip


def test_garbage_in_the_signature_header_is_401_and_says_nothing(tmp_path: Path) -> None:
    """Every parse failure is a 401 without a body; none is an exception."""

    async def run() -> None:
        async with till(tmp_path, merchant=False) as t:
            for garbage in GARBAGE:
                line = await raw(
                    t,
                    b"POST /webhooks/stripe HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n"
                    b"Stripe-Signature: %s\r\n\r\n" % (len(PAID), garbage),
                    PAID,
                )
                assert line == b"HTTP/1.1 401 Unauthorized", garbage[:40]
            twice = f"Stripe-Signature: {stripe_signature(PAID)}\r\n".encode() * 2
            head = b"POST /webhooks/stripe HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n" % len(PAID)
            assert await raw(t, head + twice + b"\r\n", PAID) == b"HTTP/1.1 401 Unauthorized"

    asyncio.run(run())


def body_with(**fields: object) -> bytes:
    """A signed event whose object holds something odd."""
    return json.dumps(stripe_event("payment_intent.succeeded", **fields)).encode()  # type: ignore[arg-type]


ODD = [
    body_with(amount=2**63), body_with(amount=-1), body_with(amount=1.5), body_with(amount="5000"),
    body_with(amount=None), body_with(amount=True), body_with(currency=7), body_with(currency="xo"),
    body_with(intent=None), body_with(intent={"a": 1}), body_with(metadata=[1]), body_with(created="yesterday"),
    body_with(created=10**30), body_with(metadata={"a": "\u0000"}), body_with(amount_received=2**64),
    b'{"id":"evt_1","type":"payment_intent.succeeded","data":{"object":' + b"[" * 100_000,
    PAID.replace(b'"amount": 5000', b'"amount": 5000, "amount": 1'), PAID.replace(b"5000", b"NaN"),
    PAID.replace(b"5000", b"1e400"), PAID.replace(b'"pi_1"', b'"\xff"'), b'"' * 200_000, b"\x00" * 1_000, PAID[:-1],
]  # fmt: skip


def test_what_is_verified_is_kept_and_answered_200_even_when_it_is_odd(tmp_path: Path) -> None:
    """2^63, floats, wrong types, NUL, duplicate keys, 100,000 levels: 200, on disk, and no payment invented."""

    async def run() -> None:
        async with till(tmp_path) as t:
            for number, odd in enumerate(ODD):
                body = odd.replace(b'"evt_1"', b'"evt_%d"' % number)
                signed = {"Stripe-Signature": stripe_signature(body, STRIPE_SECRET)}
                assert (await t.post("/webhooks/stripe", body, signed))[0] == 200, body[:80]
            await t.settled()
            rows = await t.rows(callbacks)
            assert len(rows) == len(ODD)
            assert {row.status for row in rows} <= {"parked", "ignored", "processed"}
            assert sum(row.status == "parked" for row in rows) >= 18
            for event in t.shop.events:
                told = event["data"]["payment"]
                assert event["type"] != "payment.succeeded" or told["amount"] == told["amount_captured"] == 5000

    asyncio.run(run())
