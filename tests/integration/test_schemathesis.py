"""
Schemathesis over our own OpenAPI document, against a real running service: what it describes is what it does.

The examples are few, and the same wherever PYTHONHASHSEED is; `HYPOTHESIS_PROFILE=long` draws many, at random.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from tests.support.api import Api, api_of
from tests.support.service import PATIENCE_S, Till, stripe_event, till

EXAMPLES = min(settings().max_examples // 5, 400)
"""Of each operation, in each mode."""

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.ignored_auth,
    checks.unsupported_method,
]
LINE_CHARACTERS_MAX = 4_000
"""What is longer the HTTP server itself refuses (431), before anybody's document is asked."""
NOWHERE = {
    f"{name}_base_url": "http://127.0.0.1:9" for name in ("stripe", "paystack", "moneroo", "monetbil", "ebilling")
}
"""Providers refuse every connection, so nothing is sent and no example waits for an answer."""


def run_all(document: dict[str, Any], url: str, key: str, ids: dict[str, str], mode: GenerationMode) -> Counter[int]:
    """
    Every operation of the document with generated requests; how often each status was answered. Every other request
    has ids of things that there are.
    """
    schema = schemathesis.openapi.from_dict(document)
    seen: Counter[int] = Counter()
    turns = itertools.count()
    for found in schema.get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=EXAMPLES,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
            deadline=None,
        )
        def fuzz(case: Case) -> None:
            if "wait" in (case.query or {}):
                case.query["wait"] = 0 if case.query["wait"] in range(31) else case.query["wait"]
            if next(turns) % 2 and mode is GenerationMode.POSITIVE:
                case.path_parameters |= {name: ids[name] for name in case.path_parameters or () if name in ids}
            # An empty list in the query is not sent at all, so nothing is wrong with what comes.
            assume(all(value not in ([], {}) for value in (case.query or {}).values()))
            sent = case.as_transport_kwargs(base_url=url)
            assume(len(urlencode(sent["params"] or {}, doseq=True)) < LINE_CHARACTERS_MAX)
            answer = case.call(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=PATIENCE_S)
            seen[answer.status_code] += 1
            # Too large is a refusal as well, which schemathesis does not know.
            wanted = [
                check for check in CHECKS if answer.status_code != 413 or check is not checks.negative_data_rejection
            ]
            case.validate_response(answer, checks=wanted, headers={"Authorization": f"Bearer {key}"})

        fuzz()
    return seen


async def document_of(t: Till) -> dict[str, Any]:
    """The document as it is served, to whoever asks."""
    async with t.client.get(t.url + "/v1/openapi.json") as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        return dict(await answer.json())


async def some_things(t: Till, api: Api) -> dict[str, str]:
    """One of everything, by the name it has in paths."""
    for number in range(3):
        event = stripe_event("payment_intent.succeeded", f"evt_{number}", intent=f"pi_{number}")
        assert await t.stripe(event) == 200
    await t.settled()
    assert t.merchant is not None and t.merchant.endpoint is not None
    product = (await api("POST", "/products", {"name": "Pagne", "price": 100, "currency": "XOF", "stock": 9})).said[
        "id"
    ]
    return {
        "payment": (await api("GET", "/payments")).said["data"][0]["id"],
        "delivery": (await api("GET", "/deliveries")).said["data"][0]["id"],
        "merchant": t.merchant.id,
        "endpoint": t.merchant.endpoint.id,
        "product": product,
        "order": (await api("POST", "/orders", {"lines": [{"product": product}], "currency": "XOF"})).said["id"],
        "session": (await api("POST", "/sessions", {"amount": 100, "currency": "XOF"})).said["id"],
        "link": (await api("POST", "/links", {"amount": 100, "currency": "XOF"})).said["id"],
        "route": (await api("POST", "/routes", {"providers": ["stripe"]})).said["id"],
    }


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.name.lower())
def test_the_service_does_what_its_document_says(tmp_path: Path, mode: GenerationMode) -> None:
    """Good requests and bad ones: no 5xx, no undescribed status, type or shape, no bad value let through."""

    async def run() -> None:
        async with till(tmp_path, **NOWHERE) as t:
            api = api_of(t)
            ids, document = await some_things(t, api), await document_of(t)
            seen = await asyncio.to_thread(run_all, document, t.url, api.key, ids, mode)
            operations = sum(len(methods) for methods in document["paths"].values())
            assert seen.total() >= operations
            good = seen[200] + seen[201] + seen[204]
            assert good > operations if mode is GenerationMode.POSITIVE else seen[400] > operations, seen

    asyncio.run(run())


def test_the_document_describes_every_route_and_names_no_host(tmp_path: Path) -> None:
    """The bearer key, problem+json for each 4xx, and nothing that a reader's browser would fetch from elsewhere."""

    async def run() -> None:
        async with till(tmp_path, merchant=False) as t:
            document = await document_of(t)
            assert document["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"
            assert document["security"] == [{"apiKey": []}]
            assert "/v1/events" in document["paths"] and "/metrics" not in document["paths"]
            ids: list[str] = []
            for path, operations in document["paths"].items():
                assert path.startswith("/v1/")
                for method, operation in operations.items():
                    ids.append(operation["operationId"])
                    assert operation["summary"] and operation["tags"]
                    assert {"400", "401", "403", "404", "429", "503"} <= set(operation["responses"])
                    takes_key = any(one["name"] == "Idempotency-Key" for one in operation.get("parameters", ()))
                    assert takes_key == (method == "post")
                    for status, answer in operation["responses"].items():
                        if status >= "400":
                            (media,) = answer["content"]
                            assert media == "application/problem+json"
            assert len(set(ids)) == len(ids)
            assert "//" not in json.dumps(document)

    asyncio.run(run())
