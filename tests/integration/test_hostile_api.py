"""Naughty strings in every field of the API, as text and as raw bytes: a problem that says what is wrong, no 5xx."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import pytest

from service.api.v1.events import LIMIT_MAX
from service.merchants.events import CATALOGUE
from tests.support import corpora
from tests.support.feed import all_ids, ask, key_of, told
from tests.support.service import PATIENCE_S, Till, stripe_event, till

FIELDS = ("after", "types", "payment", "limit", "wait")
BYTES = (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x00", b"\x7f", b"\xf0\x9f", b"a\xe9b", bytes(range(0x80, 0x100)))
"""What is no UTF-8, beside the strings of the corpora."""
ALLOWED = {200, 400, 401, 404, 414, 431}
CLOSED = 0
AT_ONCE = 8


def pieces() -> list[bytes]:
    """Every hostile text as it would come over the wire."""
    return [*(text.encode(errors="surrogatepass") for text in corpora.strings()), *BYTES]


def request(target: bytes, authorization: bytes) -> bytes:
    """A GET whose bytes are ours alone: no client puts them right."""
    head = b"GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: %s\r\n\r\n"
    return head % (target, authorization)


def with_queries(key: bytes) -> Iterable[bytes]:
    """Each text as the value and as the name of each field, percent-encoded and as it is."""
    for piece in pieces():
        safe = quote_from_bytes(piece, safe="").encode()
        for field in (*FIELDS, ""):
            name = field.encode()
            for value in {safe, piece} if field else {safe + b"=1", piece + b"=1"}:
                yield request(b"/v1/events?" + (name + b"=" if name else b"") + value, b"Bearer " + key)
        yield request(b"/v1/events/" + safe, b"Bearer " + key)
        yield request(b"/v1/events?after=" + safe + b"&types=" + safe + b"&payment=" + safe, b"Bearer " + key)


def with_keys(key: bytes) -> Iterable[bytes]:
    """Each text as the key, around it, as the scheme and as the whole header."""
    for piece in pieces():
        for given in (b"Bearer " + piece, b"Bearer " + key + piece, piece + b" " + key, piece):
            yield request(b"/v1/events?limit=1", given)


async def said(t: Till, data: bytes) -> bytes:
    """Everything that comes back until the server closes; nothing when it just closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", t.app.port)
    try:
        writer.write(data)
        async with asyncio.timeout(PATIENCE_S):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def status_of(answer: bytes) -> int:
    """The status; asserts that a refusal is a problem with a sentence, unless it is the HTTP server's own."""
    if not answer:
        return CLOSED
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head[9:12])
    assert status in ALLOWED, answer[:300]
    if status == 200:
        assert json.loads(body).keys() == {"data", "next", "more"}, answer[:300]
    elif b"content-type: application/problem+json" in head.lower():
        problem = json.loads(body)
        assert problem["status"] == status and problem["detail"].endswith("."), body
    else:  # refused before it was a request of anybody's
        assert status in (400, 414, 431) and b"traceback" not in body.lower(), answer[:300]
    return status


def test_every_parameter_of_the_document_is_tried(tmp_path: Path) -> None:
    """A new parameter gets its hostile strings without anybody thinking of it, or this test fails."""

    async def run() -> None:
        async with till(tmp_path, merchant=False) as t, t.client.get(t.url + "/v1/openapi.json") as answer:
            document = await answer.json()
            found = {
                parameter["name"]
                for operation in document["paths"]["/v1/events"].values()
                for parameter in operation.get("parameters", ())
            }
            assert found == set(FIELDS)

    asyncio.run(run())


@pytest.mark.slow
def test_hostile_strings_through_every_field_of_the_api(tmp_path: Path) -> None:
    """Queries, names of fields, paths and keys: refused with a problem, nothing is let in, and the service is well."""

    async def run() -> None:
        async with till(tmp_path) as t:
            known = await told(t, 3)
            key = key_of(t).encode()
            seen: dict[str, Counter[int]] = {}
            for name, heads in (("queries", with_queries(key)), ("keys", with_keys(key))):
                waiting, counted = iter(heads), seen.setdefault(name, Counter())

                async def one_after_another(waiting: Any, counted: Counter[int]) -> None:
                    for head in waiting:
                        counted[status_of(await said(t, head))] += 1

                await asyncio.gather(*(one_after_another(waiting, counted) for _ in range(AT_ONCE)))
            assert seen["queries"][400] > len(pieces()) * len(FIELDS), seen
            # White space around a key, and a cut of the header's end, leave the key what it is.
            assert seen["keys"][401] > 2 * len(pieces()), seen
            assert seen["keys"][200] < len(pieces()) / 4, seen
            assert await all_ids(t) == known
            assert await t.stripe(stripe_event("payment_intent.succeeded")) == 200
            await t.shop.wait_for(1)

    asyncio.run(run())


def test_a_list_has_its_limit(tmp_path: Path) -> None:
    """As many types as there are, by commas or repeated; one more is a mistake."""
    names = list(CATALOGUE)

    async def run() -> None:
        async with till(tmp_path) as t:
            assert (await ask(t, "&".join(f"types={name}" for name in names)))[0] == 200
            status, problem, _ = await ask(t, "&".join(f"types={name}" for name in [*names, names[0]]))
            assert (status, problem["type"]) == (400, "urn:caisse:bad_types")
            assert (await ask(t, f"limit={LIMIT_MAX}"))[0] == 200
            assert (await ask(t, f"limit={LIMIT_MAX + 1}"))[0] == 400

    asyncio.run(run())
