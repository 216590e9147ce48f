"""The exactly-once key, and what is on a callback's label."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from service.providers.base import Provider
from service.sandbox.builder import build, events
from tests.conformance.wire import ALL, JSON, NOW_MS, callback, credentials, name, plain

each = pytest.mark.parametrize("provider", ALL, ids=name)
SHA256_CHARACTERS = 64


@each
def test_the_same_callback_has_the_same_key(provider: Provider) -> None:
    """A repeat is recognised, whatever its headers say: a later delivery is signed anew."""
    first, again = callback(provider), callback(provider, fields={"time_ms": str(NOW_MS)}, at_ms=NOW_MS + 60_000)
    assert first.body == again.body
    assert provider.identify(first) == provider.identify(again)


@each
def test_another_body_is_another_key_unless_the_provider_numbers_its_events(provider: Provider) -> None:
    """Where events have no id, only the bytes tell a second event from a repeat of the first."""
    one, other = callback(provider), callback(provider, fields={"amount": "4999", "event_id": "evt_x"})
    numbered = callback(provider, fields={"event_id": "evt_x"})
    assert provider.identify(one).key != provider.identify(other).key
    same = provider.identify(numbered).key == provider.identify(other).key
    assert same is provider.capabilities.event_id


@each
def test_r3_the_id_of_a_payment_is_never_the_key(provider: Provider) -> None:
    """Failed, then success, of one payment: two events, or the success is dropped."""
    keys = set()
    for event in events(provider.name):
        built = build(provider.name, event, credentials(provider), NOW_MS, {"reference": "CMD-1"})
        key = provider.identify(plain(built.body)).key
        assert key not in (built.payment, "CMD-1")
        keys.add(key)
    assert len(keys) == len(events(provider.name))


def test_r3_a_bare_stripe_object_is_not_known_by_its_own_id() -> None:
    """Only an event's id is the key; a PaymentIntent that arrives without its event is known by its bytes."""
    stripe = ALL[0]
    for body in (b'{"id":"pi_1","object":"payment_intent"}', b'{"id":"pi_1"}', b'{"id":7,"object":"event"}'):
        assert stripe.identify(plain(body)).key == "sha256:" + hashlib.sha256(body).hexdigest()


@each
def test_an_unreadable_body_is_known_by_its_hash(provider: Provider) -> None:
    """It is kept like any other, once."""
    # Monetbil's form reader takes nearly anything for a form, so this is unreadable in both forms and JSON.
    body = b"{\xff=%ff&{=1&{=2"
    assert provider.identify(plain(body)).key == "sha256:" + hashlib.sha256(body).hexdigest()


def test_a_callback_by_get_is_known_by_its_query() -> None:
    """Two different notifications with an empty body are two."""
    monetbil = next(p for p in ALL if p.name == "monetbil")
    one = callback(monetbil, fields={"method": "GET"})
    other = callback(monetbil, "failed", {"method": "GET"})
    assert one.body == other.body == b""
    assert monetbil.identify(one).key != monetbil.identify(other).key


@each
def test_a_key_is_never_longer_than_its_column(provider: Provider) -> None:
    """Long ids are hashed, and still told apart."""
    long = "x" * 5000
    where = {
        "stripe": {"id": long},
        "paystack": {"data.reference": "r" * 199, "data.status": "s" * 199},
        "fedapay": {"entity.id": "9" * 199, "entity.updated_at": "u" * 199},
        "monetbil": {"form.transaction_id": "9" * 199, "form.status": "s" * 199},
        "moneroo": {"data.id": "m" * 199, "data.status": "s" * 199},
        "ebilling": {"form.billingid": "9" * 199, "form.transactionid": "t" * 199},
    }[provider.name]
    fields = {"event_id": long} if provider.name == "stripe" else where
    one = provider.identify(callback(provider, fields=fields)).key
    other = provider.identify(callback(provider, fields={**fields, "amount": "77"})).key
    assert len(one) <= 200
    assert one.isprintable()
    assert one != other


@each
def test_live_is_what_the_body_says(provider: Provider) -> None:
    """A test callback on a live account is parked by this; what is not said is None, never a guess."""
    for live in (True, False):
        said = provider.identify(callback(provider, fields={"live": str(live).lower()})).live
        if provider.capabilities.test_flag:
            assert said is live
        else:
            assert said in (None, live)


@pytest.mark.parametrize("provider", JSON, ids=name)
def test_the_label_is_the_provider_s_own_type(provider: Provider) -> None:
    """Cut to what a label holds; nothing that would break a line of the log."""
    event = events(provider.name)[0]
    incoming = callback(provider, event)
    assert provider.identify(incoming).kind == event
    place = {"stripe": "type", "fedapay": "name"}.get(provider.name, "event")
    said = json.loads(incoming.body)
    long = replace(incoming, body=json.dumps(said | {place: "x" * 5000}).encode())
    broken = replace(incoming, body=json.dumps(said | {place: "a\nb"}).encode())
    assert provider.identify(long).kind == "x" * 100
    assert provider.identify(broken).kind == ""


@pytest.mark.parametrize("provider", [p for p in ALL if not p.capabilities.event_id], ids=name)
def test_the_key_ends_with_the_whole_hash(provider: Provider) -> None:
    """Words say to a person what it is about, the hash says which."""
    incoming = callback(provider)
    key = provider.identify(incoming).key
    assert key.endswith("|" + hashlib.sha256(incoming.body).hexdigest())
    assert len(key) > SHA256_CHARACTERS
