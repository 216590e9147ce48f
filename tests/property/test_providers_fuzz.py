"""No input makes a provider's file raise, and none makes money of nonsense."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.payments.facts import AMOUNT_MINOR_MAX, Kind, Told
from service.providers.base import (
    Answer,
    Ask,
    Asked,
    Identity,
    Incoming,
    Meaning,
    NotFinal,
    Provider,
    Refused,
    Verified,
)
from service.sandbox.builder import build, events
from tests.conformance.wire import ALL, ASKED, HEADED, JSON, NOW_MS, STRONG, callback, credentials, name, plain

HEADER_NAMES = st.sampled_from([p.capabilities.signature_header or b"x" for p in ALL])
SIGNATURES = st.one_of(
    st.binary(max_size=300),
    st.from_regex(rb"(t=[0-9a-z_+.\-]{0,15},?|v1=[0-9a-f]{0,64},?|s=,|=|,){0,12}", fullmatch=True),
)
incomings = st.builds(
    Incoming,
    st.sampled_from(["POST", "GET"]),
    st.lists(st.tuples(HEADER_NAMES, SIGNATURES), max_size=3),
    st.binary(max_size=200),
    st.binary(max_size=400),
)
WORDS = ["paid", "success", "succeeded", "captured", "XOF", "eur", "5000", "-1", "1e9", "\x00", "\ud800"]
TIMES = ["2026-11-20T09:00:00Z", "2026-99-99T00:00:00Z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"]
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=30),
    st.sampled_from(WORDS + TIMES),
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


def everything(provider: Provider, incoming: Incoming) -> tuple[Verified | Refused, Identity, Meaning]:
    """All that is done with a callback, and what must hold of it whatever came."""
    verdict = provider.verify(incoming, credentials(provider), NOW_MS)
    label = provider.identify(incoming)
    meaning = provider.translate(incoming, NOW_MS)
    assert isinstance(verdict, Verified | Refused)
    assert 0 < len(label.key) <= 200
    assert (label.key + label.kind).isprintable()
    assert len(label.kind) <= 100
    assert isinstance(provider.redact(incoming.body), bytes)
    told = meaning.told if isinstance(meaning, Ask) else meaning
    if isinstance(told, Told):
        check(told)
    return verdict, label, meaning


def check(told: Told) -> None:
    """Facts that can be stored, and money that has an amount."""
    assert told.references
    assert told.facts
    for word in (*told.references, *(fact.movement for fact in told.facts), *told.metadata, *told.metadata.values()):
        word.encode()
    for fact in told.facts:
        assert fact.movement
        assert 0 <= fact.at_ms <= 4_102_444_800_000
        assert fact.currency is None or len(fact.currency) == 3
        for amount in (fact.amount_minor, fact.asked_minor, fact.fee_minor):
            assert amount is None or 0 <= amount <= AMOUNT_MINOR_MAX
        if fact.kind in (Kind.CAPTURED, Kind.REFUND_SUCCEEDED, Kind.RECEIVED_PART, Kind.REVERSED):
            assert fact.amount_minor is not None
            assert fact.currency is not None


@pytest.mark.parametrize("provider", ALL, ids=name)
@given(incoming=incomings)
def test_random_bytes_are_refused_and_nothing_raises(provider: Provider, incoming: Incoming) -> None:
    """What strangers can send: any bytes in any place."""
    verdict, _, _ = everything(provider, incoming)
    if provider.capabilities.signed:
        assert isinstance(verdict, Refused)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in inner for found in places(item, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with something else in one place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


BODIES = {
    provider.name: [
        json.loads(build(provider.name, event, credentials(provider), NOW_MS).body) for event in events(provider.name)
    ]
    for provider in JSON
}


@pytest.mark.parametrize("provider", JSON, ids=name)
@given(data=st.data())
def test_a_right_body_with_something_else_in_some_places_never_raises(provider: Provider, data: st.DataObject) -> None:
    """A provider's software changes, or errs; every place in turn may hold anything."""
    body: Any = data.draw(st.sampled_from(BODIES[provider.name]))
    for _ in range(data.draw(st.integers(1, 3))):
        body = replaced(body, data.draw(st.sampled_from(places(body))), data.draw(values))
    everything(provider, plain(json.dumps(body).encode()))


@pytest.mark.parametrize("provider", ALL, ids=name)
@given(cut=st.integers(0, 10_000), put=st.binary(max_size=6), drop=st.integers(0, 6))
def test_a_right_body_with_other_bytes_in_it_never_raises(provider: Provider, cut: int, put: bytes, drop: int) -> None:
    """And is refused where the body is signed, unless nothing was changed."""
    right = callback(provider)
    at = cut % (len(right.body) + 1)
    wrong = Incoming(right.method, right.headers, right.query, right.body[:at] + put + right.body[at + drop :])
    verdict, _, _ = everything(provider, wrong)
    if wrong.body != right.body and provider in HEADED:
        assert verdict == Refused("bad_signature")


ANSWERS: dict[str, Any] = {
    "monetbil": {"paymentId": "1", "message": "", "transaction": {
        "transaction_UUID": "1", "status": "1", "amount": "5", "fee": "0", "currency": "XAF", "testmode": "0",
        "end_time": "1795165199.8", "message": "m", "payment_ref": "r", "query_string": '{"service":"s"}'}},
    "moneroo": {"data": {
        "id": "1", "status": "success", "amount": 5, "currency": {"code": "XOF"}, "environment": "live",
        "initiated_at": "2026-11-20T09:00:00Z", "metadata": {"reference": "r"},
        "capture": {"failure_message": "m", "method": {"short_code": "mtn_ci"}}}},
    "ebilling": {"e_bill": {
        "bill_id": "1", "state": "paid", "amount": 5, "amount_paid": 5, "currency": "XAF", "reason": "m",
        "external_reference": "r", "updated_at": "2026-11-20T09:00:00Z", "payment_system_name": "airtelmoney"}},
}  # fmt: skip


def hold(answer: Answer) -> None:
    told = answer.told if isinstance(answer, NotFinal) else answer
    if isinstance(told, Told):
        assert told.references == ("1",)
        check(told)


@pytest.mark.parametrize("provider", ASKED, ids=name)
@given(data=st.data())
def test_an_answer_with_something_else_in_some_places_never_raises(provider: Provider, data: st.DataObject) -> None:
    """Answers are read as carefully as callbacks."""
    assert provider.answer is not None
    body = ANSWERS[provider.name]
    for _ in range(data.draw(st.integers(0, 3))):
        body = replaced(body, data.draw(st.sampled_from(places(body))), data.draw(values))
    asked = Asked(data.draw(st.booleans()), data.draw(st.sampled_from([None, "r"])), account="s")
    hold(provider.answer("1", data.draw(st.integers(0, 599)), json.dumps(body).encode(), asked))


@pytest.mark.parametrize("provider", ASKED, ids=name)
@given(body=st.binary(max_size=300), status=st.integers(-1, 999))
def test_an_answer_of_random_bytes_never_raises(provider: Provider, body: bytes, status: int) -> None:
    """A proxy's page of HTML, for one."""
    assert provider.answer is not None
    hold(provider.answer("1", status, body, Asked(True)))


@pytest.mark.parametrize("provider", STRONG, ids=name)
@given(seed=st.integers(0, 2**32), amount=st.integers(0, 10**9))
def test_every_event_about_one_payment_names_it_alike(provider: Provider, seed: int, amount: int) -> None:
    """However many events tell of it, there is one capture, of one amount, and one payment."""
    rng = random.Random(seed)
    told = []
    for event in rng.sample(events(provider.name), k=3):
        fields = {"reference": "CMD-1", "amount": str(amount)}
        meaning = provider.translate(callback(provider, event, fields), NOW_MS)
        if isinstance(meaning, Told):
            told.append(meaning)
    captures = {(f.movement, f.amount_minor) for one in told for f in one.facts if f.kind is Kind.CAPTURED}
    assert len(captures) <= 1
    if captures:
        assert captures == {(captures.copy().pop()[0], amount)}
