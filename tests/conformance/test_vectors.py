"""Signatures made by others: the collected vectors, and Stripe's own library in both directions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import stripe as official

from service.providers import PROVIDERS
from service.providers.base import Incoming, Refused, Verified
from service.sandbox.builder import build, events
from tests.conformance.wire import NOW_MS, credentials, with_header

SAMPLES = Path(__file__).parents[3] / "shared" / "samples"
VECTORS = SAMPLES / "signature_vectors.json"
NOT_OURS = {"ebilling-v2"}  # a third party's reading of an interface whose key nobody has seen


def vectors() -> list[Any]:
    if not VECTORS.exists():
        return []
    return [v for v in json.loads(VECTORS.read_text(encoding="utf-8")) if v["provider"] not in NOT_OURS]


def test_the_collected_vectors_are_here() -> None:
    """Says aloud where they are not: they lie beside the repository, not in it."""
    if not VECTORS.exists():
        pytest.skip("../shared/samples is not here: the collected signature vectors were not checked")
    assert len(vectors()) >= 9
    assert {v["provider"] for v in vectors()} == {"stripe", "paystack", "fedapay", "monetbil", "moneroo"}


@pytest.mark.parametrize("vector", vectors(), ids=lambda v: f"{v['provider']}: {v['source'][:40]}")
def test_a_collected_vector_is_verified(vector: dict[str, Any]) -> None:
    """Made with the providers' own libraries where there are any; and refused with one letter more in the secret."""
    provider = PROVIDERS[vector["provider"]]
    if "payload_file" in vector:
        body = (SAMPLES / vector["payload_file"]).read_bytes()
    else:
        body = vector.get("form_body", vector.get("payload", "")).encode()
    header = vector.get("header", "")
    seconds = int(header.partition(",")[0].removeprefix("t=")) if header.startswith("t=") else 0
    live = credentials(provider, vector["secret"])
    headers = ((vector["header_name"].lower().encode(), header.encode()),) if header else ()
    incoming = Incoming("POST", headers, b"", body)
    assert isinstance(provider.verify(incoming, live, seconds * 1000), Verified)
    other = credentials(provider, vector["secret"] + "x")
    assert provider.verify(incoming, other, seconds * 1000) == Refused("bad_signature")


# --- Stripe's own library -----------------------------------------------------------------------------

SECRET = "whsec_one"


def test_what_stripe_s_library_signs_is_accepted() -> None:
    """Our verify against their algorithm."""
    stripe = PROVIDERS["stripe"]
    body = b'{"id":"evt_1","object":"event","type":"charge.succeeded","data":{"object":{}}}'
    seconds = NOW_MS // 1000
    signature = official.WebhookSignature._compute_signature(f"{seconds}.{body.decode()}", SECRET)
    incoming = Incoming("POST", ((b"stripe-signature", f"t={seconds},v1={signature}".encode()),), b"", body)
    assert stripe.verify(incoming, {"webhook_secrets": (SECRET,)}, NOW_MS) == Verified()
    changed = with_header(incoming, b"stripe-signature", f"t={seconds},v1={signature[:-1]}x".encode())
    assert stripe.verify(changed, {"webhook_secrets": (SECRET,)}, NOW_MS) == Refused("bad_signature")


@pytest.mark.parametrize("event", events("stripe"))
def test_what_the_builder_signs_is_accepted_by_stripe_s_library(event: str) -> None:
    """Our builder against their verify, and their idea of an event."""
    built = build("stripe", event, {"webhook_secrets": [SECRET]}, NOW_MS)
    read = official.Webhook.construct_event(built.body, built.headers["Stripe-Signature"], SECRET, tolerance=10**9)
    assert read.type == event
    assert read.data.object.id
