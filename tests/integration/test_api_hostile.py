"""Naughty strings in every text of every body, every filter and every path of `/v1`: a problem or an answer, no 5xx."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from service.api.v1 import OPERATIONS
from service.api.v1.document import document
from service.providers import PROVIDERS
from tests.support import corpora
from tests.support.api import api_of
from tests.support.service import stripe_event, till

AT_ONCE = 4
STRINGS_A_FIELD = 12
"""Of the corpora, another dozen for each field: all of them for each would be half an hour."""
NOWHERE = {f"{name}_base_url": "http://127.0.0.1:9" for name in PROVIDERS}
DOCUMENT = document(OPERATIONS)


def example(schema: dict[str, Any], text: str | None) -> Any:
    """A value of this schema; with `text` wherever a text may stand, without it a plain good one."""
    if "$ref" in schema:
        shape = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return {name: example(one, text) for name, one in shape["properties"].items()}
    if "anyOf" in schema:
        return example(schema["anyOf"][0], text)
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "string":
            return text if text is not None else "XOF"
        case "integer":
            return max(1, schema.get("minimum", 1))
        case "boolean":
            return False
        case "array":
            return [example(schema.get("items", {}), text)]
        case "object":
            return {"a" if text is None else text: text or "a"}
        case _:
            return text


def requests() -> Iterator[tuple[str, str, Any]]:
    """(method, path with query, body): each operation with hostile texts in its path, its filters and its body."""
    strings = corpora.strings()
    turn = 0
    for path, methods in DOCUMENT["paths"].items():
        for method, op in methods.items():
            for _ in range(STRINGS_A_FIELD):
                turn += 1
                text = strings[turn * 37 % len(strings)]
                coded = quote(text.encode(errors="surrogatepass"), safe="") or "x"
                for name in [one["name"] for one in op.get("parameters", ()) if one["in"] == "query"]:
                    yield method, f"{_filled(path, 'x')}?{name}={coded}", None
                if "{" in path:
                    yield method, _filled(path, coded), None
                if "requestBody" in op:
                    schema = op["requestBody"]["content"]["application/json"]["schema"]
                    yield method, _filled(path, "x"), example(schema, text)


def _filled(path: str, text: str) -> str:
    head, brace, tail = path.partition("{")
    return head + text + tail.partition("}")[2] if brace else path


@pytest.mark.slow
def test_hostile_strings_through_everything(tmp_path: Path) -> None:
    """Refused with a problem that says why, or taken as text; nothing crashes, and the service is well afterwards."""

    async def run() -> None:
        async with till(tmp_path, **NOWHERE) as t:
            api, seen = api_of(t), Counter[int]()
            waiting = iter(list(requests()))

            async def one_after_another() -> None:
                for method, path, body in waiting:
                    try:
                        answer = await api(method.upper(), path.removeprefix("/v1"), body)
                    except UnicodeEncodeError:  # half a character: no client can send it
                        continue
                    seen[answer.status] += 1

            await asyncio.gather(*(one_after_another() for _ in range(AT_ONCE)))
            assert set(seen) <= {200, 201, 204, 400, 401, 403, 404, 405, 409, 413, 422, 429}, seen
            assert seen[400] > seen.total() / 4, seen
            assert await t.stripe(stripe_event("payment_intent.succeeded")) == 200
            await t.shop.wait_for(1)

    asyncio.run(run())
