"""
Schemathesis over our own OpenAPI document, against a real running service: what it describes is what it does.

The examples are few, and the same wherever PYTHONHASHSEED is; `HYPOTHESIS_PROFILE=long` draws many, at random.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from tests.support.service import PATIENCE_S, Till, stripe_event, till

EXAMPLES = min(settings().max_examples * 2, 2_000)

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


def run_all(document: dict[str, Any], url: str, key: str, mode: GenerationMode) -> Counter[int]:
    """Every operation of the document with generated requests; how often each status was answered."""
    schema = schemathesis.openapi.from_dict(document)
    seen: Counter[int] = Counter()
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
            answer = case.call(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=PATIENCE_S)
            seen[answer.status_code] += 1
            case.validate_response(answer, checks=CHECKS, headers={"Authorization": f"Bearer {key}"})

        fuzz()
    return seen


async def document_of(t: Till) -> dict[str, Any]:
    """The document as it is served, to whoever asks."""
    async with t.client.get(t.url + "/v1/openapi.json") as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        return dict(await answer.json())


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.name.lower())
def test_the_service_does_what_its_document_says(tmp_path: Path, mode: GenerationMode) -> None:
    """Good requests and bad ones: no 5xx, no undescribed status, type or shape, no bad value let through."""

    async def run() -> None:
        async with till(tmp_path) as t:
            assert t.merchant is not None
            for number in range(5):
                event = stripe_event("payment_intent.succeeded", f"evt_{number}", intent=f"pi_{number}")
                assert await t.stripe(event) == 200
            await t.settled()
            seen = await asyncio.to_thread(run_all, await document_of(t), t.url, t.merchant.key.key, mode)
            assert seen.total() >= EXAMPLES
            assert seen[200 if mode is GenerationMode.POSITIVE else 400] > EXAMPLES / 4

    asyncio.run(run())


def test_the_document_describes_every_route_and_names_no_host(tmp_path: Path) -> None:
    """The bearer key, problem+json for each 4xx, and nothing that a reader's browser would fetch from elsewhere."""

    async def run() -> None:
        async with till(tmp_path, merchant=False) as t:
            document = await document_of(t)
            assert document["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"
            assert document["security"] == [{"apiKey": []}]
            assert "/v1/events" in document["paths"] and "/metrics" not in document["paths"]
            for path, operations in document["paths"].items():
                assert path.startswith("/v1/")
                for operation in operations.values():
                    assert {"200", "400", "401", "403", "404", "429"} <= set(operation["responses"])
                    for status, answer in operation["responses"].items():
                        if status >= "400":
                            (media,) = answer["content"]
                            assert media == "application/problem+json"
            assert "//" not in json.dumps(document)

    asyncio.run(run())
