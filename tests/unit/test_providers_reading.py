"""Strict reading of values, money, and the builder's own doors."""

from __future__ import annotations

import time
from decimal import Decimal

import pytest

from service.payments import money
from service.payments.facts import AMOUNT_MINOR_MAX
from service.providers import PROVIDERS, strict
from service.providers.base import Incoming, Parked
from service.sandbox.builder import FIELDS, build, events
from tests.conformance.wire import NOW_MS, credentials

# --- money --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "currency", "minor"),
    [
        (5000, "XOF", 5000), ("5000", "XAF", 5000), (Decimal("5000.0"), "GNF", 5000), ("12000", "RWF", 12_000),
        ("10.50", "EUR", 1050), ("1.234", "KWD", 1234),
        (10, "EUR", 1000), ("10.505", "EUR", None), ("0.5", "XOF", None),
        (0, "XOF", 0), (-1, "XOF", None), ("-1", "XOF", None), (True, "XOF", None), (None, "XOF", None),
        (10.0, "EUR", None), ("1e3", "XOF", None), ("１", "XOF", None), ("", "XOF", None), (" 1", "XOF", None),
        ("1_0", "XOF", None), (Decimal("NaN"), "XOF", None), (Decimal("Infinity"), "XOF", None),
        (Decimal("1e999999"), "XOF", None), (Decimal("1e-999999"), "XOF", None), (10**4000, "XOF", None),
        (AMOUNT_MINOR_MAX, "XOF", AMOUNT_MINOR_MAX), (AMOUNT_MINOR_MAX + 1, "XOF", None), ("9" * 40, "XOF", None),
        (Decimal("-0"), "XOF", None), ([1], "XOF", None),
    ],
)  # fmt: skip
def test_r1_major_units_become_minor_units_exactly(value: object, currency: str, minor: int | None) -> None:
    """B5: no float, no rounding, no guess; what is no amount is None."""
    assert money.from_major(value, currency) == minor


@pytest.mark.parametrize(
    ("value", "places", "currency", "minor"),
    [
        (100_000, 2, "XOF", 1000), (100_001, 2, "XOF", None), ("150", 2, "GHS", 150), (5, 0, "MGA", 500),
        ("1.5", 2, "GHS", None), (Decimal("150.0"), 2, "GHS", 150), (1000, 2, "KWD", 10_000), (False, 2, "XOF", None),
    ],
)  # fmt: skip
def test_r1_a_provider_s_own_units_become_minor_units_exactly(
    value: object, places: int, currency: str, minor: int | None
) -> None:
    """The number of places is the provider's, the result the currency's."""
    assert money.from_wire(value, places, currency) == minor


def test_minor_units_and_back() -> None:
    """Whole currencies, and those with three places."""
    for currency in ("XOF", "XAF", "GNF", "RWF", "EUR", "KWD"):
        assert money.from_major(money.to_major(1234, currency), currency) == 1234
    assert (money.exponent("XOF"), money.exponent("EUR"), money.exponent("TND")) == (0, 2, 3)


# --- values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-11-20T09:00:00Z", NOW_MS), ("2026-11-20T09:00:00.123456Z", NOW_MS + 123),
        ("2026-11-20T10:00:00+01:00", NOW_MS), ("2026-11-20T10:00:00+0100", NOW_MS), ("2026-11-20 09:00:00Z", NOW_MS),
        ("2026-11-20T09:00:00", 0), ("2026-11-20", 0), ("2026-13-20T09:00:00Z", 0), ("9999-12-31T23:59:59-12:00", 0),
        ("0001-01-01T00:00:00+14:00", 0), ("1969-12-31T23:59:59Z", 0), ("２０26-11-20T09:00:00Z", 0), ("", 0),
        (None, 0), (NOW_MS, 0), ("2026-11-20T09:00:00Z" * 10, 0), ("2026-11-20T09:00:00+99:99", 0),
    ],
)  # fmt: skip
def test_times_are_read_with_their_zone_or_not_at_all(text: object, ms: int) -> None:
    """A time without a zone would be hours wrong, and decide what is late."""
    assert strict.time_ms(text) == ms


@pytest.mark.parametrize(
    ("value", "ms"),
    [(1_795_165_200, NOW_MS), ("1795165200.5", NOW_MS + 500), (Decimal("1.5"), 1500), (-1, 0), (10**12, 0), (True, 0),
     (None, 0), ("1e9", 0), (Decimal("1e999999"), 0)],
)  # fmt: skip
def test_seconds_are_bounded(value: object, ms: int) -> None:
    """A time in the year 30000 would outrank every right one."""
    assert strict.seconds_ms(value) == ms


def test_metadata_is_small_text() -> None:
    """Everything else is left out, not cut: half a note is another note."""
    given: dict[str, object] = {"order": "7", "n": 7, "list": [], "none": None, "long": "x" * 501, "k" * 101: "v"}
    assert strict.metadata(given) == {"order": "7"}
    assert len(strict.metadata({str(n): "x" for n in range(1000)})) == strict.METADATA_MAX
    assert strict.metadata(["order"]) == {}


@pytest.mark.parametrize(
    ("depth", "readable"), [(strict.DEPTH_MAX, True), (strict.DEPTH_MAX + 1, False), (100_000, False)]
)
def test_depth_is_bounded_before_anything_recurses(depth: int, readable: bool) -> None:
    """Counted outside of strings; a text full of brackets is no depth."""
    nested = b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"
    assert isinstance(strict.document(nested), dict) is readable
    text = b'{"a":"' + b"[{" * depth + b'\\"[["}'
    assert isinstance(strict.document(text), dict)
    flat = b'{"a":[' + b",".join([b"{}"] * min(depth * 10, 1000)) + b"]}"
    assert isinstance(strict.document(flat), dict)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":' + b"[" * 250_000, b'{"' + b"\\\\" * 120_000 + b'":[' + b"[" * 70, b'"' * 250_000,
        b"[" * 100 + b'"' + b"a" * 250_000, b'{"a":' + b"9" * 250_000 + b"}", b'{"a":0.' + b"9" * 250_000 + b"}",
        b"{" + b",".join(b'"%d":1' % n for n in range(20_000)) + b"}", b"{" + b'"a":1,' * 35_000 + b'"a":1}',
        b'{"a":"' + b"\\ud83d\\ude00" * 20_000 + b'"}', b"&" * 250_000, b"%41" * 80_000 + b"=1",
    ],
)  # fmt: skip
def test_the_worst_body_of_the_allowed_size_is_read_in_time(body: bytes) -> None:
    """One callback may not hold the process: far below a second for 256 kB of anything."""
    began = time.process_time()
    for provider in PROVIDERS.values():
        incoming = Incoming("POST", (), b"", body)
        provider.identify(incoming)
        provider.translate(incoming, NOW_MS)
        provider.redact(body)
    assert time.process_time() - began < 6


def test_pairs_of_surrogates_are_characters() -> None:
    """An emoji escaped as JSON does is one; `\\\\u0000` is six characters and no NUL."""
    assert strict.document(b'{"a":"\\ud83d\\ude00"}') == {"a": "\U0001f600"}
    assert strict.document(b'{"a":"\\\\u0000"}') == {"a": "\\u0000"}
    assert strict.document(b'{"\\u0000":1}') == Parked("unreadable:bad_character")


def test_digits_are_ascii_digits() -> None:
    """What `int()` is generous about, a signature is not."""
    for value in (b"", b"+1", b"-1", b" 1", b"1 ", b"1_0", "１".encode(), b"nan", b"0x1", b"1" * 13):
        assert strict.digits(value, 12) is None
    assert strict.digits(b"007", 12) == 7


# --- the builder --------------------------------------------------------------------------------------


def test_the_builder_says_what_there_is() -> None:
    """Each mistake is a sentence that lists what is right."""
    with pytest.raises(ValueError, match="There is no provider 'strype'; there are stripe, paystack"):
        build("strype", "x", {}, NOW_MS)
    with pytest.raises(ValueError, match=r"no event 'charge.succeed' here; there are checkout.session.completed,"):
        build("stripe", "charge.succeed", {"webhook_secrets": ["s"]}, NOW_MS)
    with pytest.raises(ValueError, match="amonut is not a field; there are amount, currency,"):
        build("stripe", "charge.succeeded", {"webhook_secrets": ["s"]}, NOW_MS, {"amonut": "1"})
    with pytest.raises(ValueError, match=r"amount is a whole number, not '1.5'"):
        build("stripe", "charge.succeeded", {"webhook_secrets": ["s"]}, NOW_MS, {"amount": "1.5"})
    with pytest.raises(ValueError, match="live is true or false"):
        build("stripe", "charge.succeeded", {"webhook_secrets": ["s"]}, NOW_MS, {"live": "yes"})
    with pytest.raises(ValueError, match="stripe has no webhook_secrets to sign with"):
        build("stripe", "charge.succeeded", {"webhook_secrets": [""]}, NOW_MS)
    with pytest.raises(ValueError, match="method is POST or GET"):
        build("monetbil", "success", {"service_secrets": ["s"]}, NOW_MS, {"method": "PUT"})


def test_the_builder_repeats_itself_and_tells_payments_apart() -> None:
    """The same arguments give the same bytes; another moment another payment, unless it is named."""
    for name in PROVIDERS:
        live = credentials(PROVIDERS[name])
        for event in events(name):
            assert build(name, event, live, NOW_MS) == build(name, event, live, NOW_MS)
        event = events(name)[0]
        assert build(name, event, live, NOW_MS).payment != build(name, event, live, NOW_MS + 1).payment
        fixed = {"reference": "CMD-9"}
        assert build(name, event, live, NOW_MS, fixed).payment == build(name, event, live, NOW_MS + 1, fixed).payment


def test_a_path_sets_any_place() -> None:
    """Text stays text where text was or nothing was; over a number or a boolean it becomes one."""
    fields = {"data.object.metadata.order": "7", "data.object.captured": "false", "data.object.new.deep": "x"}
    body = build("stripe", "charge.succeeded", {"webhook_secrets": ["s"]}, NOW_MS, fields).body
    assert b'"order": "7"' in body
    assert b'"captured": false' in body
    assert b'"deep": "x"' in body
    form = build("ebilling", "paid", {"callback_tokens": ["to/ken"]}, NOW_MS, {"form.state": "paid"})
    assert form.body.endswith(b"&state=paid")
    assert form.path_suffix == "/webhooks/ebilling/to%2Fken"


def test_every_field_is_used_by_somebody() -> None:
    """A field that changes nothing anywhere is a promise not kept."""
    other = {"amount": "7", "currency": "GHS", "live": "false", "time_ms": "1000", "method": "GET", "fee": "5",
             "refunded": "3", "dispute": "9", "status": "failed"}  # fmt: skip
    for field in FIELDS:
        changed = False
        for name in PROVIDERS:
            for event in events(name):
                live = credentials(PROVIDERS[name])
                plain = build(name, event, live, NOW_MS, {"reference": "R"})
                changed |= (
                    build(name, event, live, NOW_MS, {"reference": "R", field: other.get(field, "other")}) != plain
                )
        assert changed, field
