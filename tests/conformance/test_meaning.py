"""What every provider's translate owes: readable or parked, known or unmapped, and never more than it can prove."""

from __future__ import annotations

import json

import pytest

from service.payments.facts import Kind, Source, Told
from service.providers.base import AboutPayout, Ask, Ignored, Meaning, Parked, Provider, Unmapped
from service.sandbox.builder import events
from tests.conformance.wire import ALL, JSON, NOW_MS, STRONG, WEAK, callback, name, plain

each = pytest.mark.parametrize("provider", ALL, ids=name)
each_json = pytest.mark.parametrize("provider", JSON, ids=name)


def kinds(meaning: Meaning) -> set[Kind]:
    match meaning:
        case Told():
            return {fact.kind for fact in meaning.facts}
        case Ask(_, told) if told is not None:
            return {fact.kind for fact in told.facts}
        case _:
            return set()


def paid(provider: Provider) -> bytes:
    return callback(provider).body


DEEP = 100_000
UNREADABLE = {
    "nothing": b"",
    "not UTF-8": b'{"a":"\xff"}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "a list": b"[]",
    "null": b"null",
    "a text": b'"charge.success"',
    "a number": b"1",
    "deep lists": b'{"a":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "never closed": b"[" * DEEP,
    "a key twice": b'{"event":"charge.success","event":"refund.failed"}',
    "a key twice, deep inside": b'{"data":{"object":{"amount":1,"amount":2}}}',
    "NaN": b'{"data":{"amount":NaN}}',
    "Infinity": b'{"data":{"amount":-Infinity}}',
    "NUL": b'{"event":"a\\u0000b"}',
    "half a pair": b'{"event":"\\ud800"}',
    "the other half": b'{"\\udfff":1}',
    "a raw control character": b'{"event":"a\nb"}',
    "a number of ten thousand digits": b'{"a":' + b"9" * 10_000 + b"}",
    "an exponent beyond everything": b'{"a":1e99999999999999999999}',
    "cut off": b'{"event":"charge.succ',
    "two documents": b"{}{}",
    "a trailing comma": b'{"a":1,}',
}


@each_json
@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_body_is_parked(provider: Provider, body: bytes) -> None:
    """Verified but unreadable: kept, with a word that says why, and no exception."""
    found = provider.translate(plain(body), NOW_MS)
    assert isinstance(found, Parked)
    assert found.reason.startswith("unreadable:")
    assert provider.redact(body) == body


UNREADABLE_FORMS = {
    "not UTF-8": b"billingid=1&transaction_id=1&x=%ff",
    "raw bytes": b"billingid=1&transaction_id=1&x=\xff",
    "NUL": b"billingid=1&transaction_id=1&x=%00",
    "twice": b"billingid=1&billingid=2&transaction_id=1&transaction_id=2",
    "twice, encoded": b"billingid=1&billin%67id=2&transaction_id=1&transaction%5Fid=2",
    "too many": b"billingid=1&transaction_id=1&" + b"&".join(b"f%d=1" % n for n in range(200)),
}


@pytest.mark.parametrize("provider", [p for p in ALL if p not in JSON], ids=name)
@pytest.mark.parametrize("body", UNREADABLE_FORMS.values(), ids=UNREADABLE_FORMS)
def test_an_unreadable_form_is_parked(provider: Provider, body: bytes) -> None:
    """A form that two readers read differently is not read."""
    for incoming in (plain(body), plain(b"", query=body, method="GET")):
        if incoming.method in provider.capabilities.methods:
            found = provider.translate(incoming, NOW_MS)
            assert isinstance(found, Parked)
            assert found.reason.startswith("unreadable:")


@pytest.mark.parametrize("provider", [p for p in ALL if p not in JSON], ids=name)
@pytest.mark.parametrize("body", [b"", b"&&&", b"=", b"a", b"%", b"%zz", b"\x00", b"[]", b"{}", b"{"])
def test_a_form_that_names_no_payment_is_parked(provider: Provider, body: bytes) -> None:
    """There is nothing to ask about."""
    assert isinstance(provider.translate(plain(body), NOW_MS), Parked)


@each_json
def test_an_unknown_type_is_unmapped(provider: Provider) -> None:
    """Providers add types every year: counted and ignored, never a failure."""
    place = {"stripe": "type", "fedapay": "name"}.get(provider.name, "event")
    body = json.loads(paid(provider)) | {place: "brand.new_thing"}
    assert provider.translate(plain(json.dumps(body).encode()), NOW_MS) == Unmapped("brand.new_thing")


@each_json
@pytest.mark.parametrize("type_", [None, "", 7, [], {}, True, "a\nb"])
def test_a_missing_or_senseless_type_is_parked(provider: Provider, type_: object) -> None:
    """Whatever stands where a type should."""
    place = {"stripe": "type", "fedapay": "name"}.get(provider.name, "event")
    body = json.loads(paid(provider)) | {place: type_}
    found = provider.translate(plain(json.dumps(body).encode()), NOW_MS)
    assert isinstance(found, Parked if type_ != 7 else Parked | Unmapped)


STATUS = {"stripe": "data.object.status", "paystack": "data.status", "fedapay": "entity.status"}
AMOUNT = {"stripe": "data.object.amount_captured", "paystack": "data.amount", "fedapay": "entity.amount"}
CURRENCY = {"stripe": "data.object.currency", "paystack": "data.currency", "fedapay": "entity.currency.iso"}
each_strong = pytest.mark.parametrize("provider", STRONG, ids=name)


@each_strong
def test_an_unknown_status_of_a_known_type_is_parked(provider: Provider) -> None:
    """Never guessed; a person may run it again when the table knows the word."""
    found = provider.translate(callback(provider, fields={STATUS[provider.name]: "quantum"}), NOW_MS)
    assert found == Parked("unknown_status:quantum")


BAD_AMOUNTS = {
    "negative": -1,
    "2^63": 2**63,
    "more than anybody moves": 10**18,
    "true": True,
    "a float that is none": 10.5,
    "a list": [5000],
    "an object": {"value": 5000},
    "text": "five",
    "a signed text": "+5000",
    "underscores": "5_000",
    "full-width": "５０００",
    "an exponent": "5e3",
    "a space": " 5000",
    "thousands": "5,000",
}


@each_strong
@pytest.mark.parametrize("amount", BAD_AMOUNTS.values(), ids=BAD_AMOUNTS)
def test_a_senseless_amount_is_parked(provider: Provider, amount: object) -> None:
    """Above all it is no capture of some other amount."""
    said = json.dumps(amount) if isinstance(amount, str) else amount  # the builder would make a number of "5e3"
    found = provider.translate(callback(provider, fields={AMOUNT[provider.name]: said}), NOW_MS)
    assert found == Parked("bad_amount")


@each_strong
@pytest.mark.parametrize("currency", ["EURO", "E", "€€€", "12A", 978, True, [], "ｅｕｒ"])
def test_a_senseless_currency_is_parked(provider: Provider, currency: object) -> None:
    """Money without its currency is no money."""
    found = provider.translate(callback(provider, fields={CURRENCY[provider.name]: currency}), NOW_MS)
    assert found == Parked("bad_currency")


@each_strong
@pytest.mark.parametrize("missing", [AMOUNT, CURRENCY], ids=["amount", "currency"])
def test_a_capture_without_amount_or_currency_is_parked(provider: Provider, missing: dict[str, str]) -> None:
    """R4: what was paid has to be compared with what was asked."""
    fields = {missing[provider.name]: None}
    if provider.name == "stripe" and missing is AMOUNT:
        fields["data.object.amount"] = None  # else it is what an old version of the API leaves out
    found = provider.translate(callback(provider, fields=fields), NOW_MS)
    assert isinstance(found, Parked)
    assert found.reason.startswith("missing:")


ID = {"stripe": "data.object.id", "paystack": "data.reference", "fedapay": "entity.id", "moneroo": "data.id"}


@pytest.mark.parametrize("provider", JSON, ids=name)
@pytest.mark.parametrize("value", [None, "", " ", [], {}, True, 1.5, "x" * 201, "a\x1bb"])
def test_a_payment_without_a_proper_name_is_parked(provider: Provider, value: object) -> None:
    """Names become keys of rows and lines on a screen."""
    found = provider.translate(callback(provider, fields={ID[provider.name]: value}), NOW_MS)
    assert isinstance(found, Parked)
    assert found.reason.startswith("missing:")


@each_json
@pytest.mark.parametrize("value", [None, [], "x", 1, True, [[]], {"object": []}])
def test_a_body_without_its_middle_is_parked(provider: Provider, value: object) -> None:
    """Right type, nothing in it."""
    middle = {"fedapay": "entity"}.get(provider.name, "data")
    body = json.loads(paid(provider)) | {middle: value}
    assert isinstance(provider.translate(plain(json.dumps(body).encode()), NOW_MS), Parked)


@pytest.mark.parametrize("provider", WEAK, ids=name)
def test_a_weak_callback_moves_no_money(provider: Provider) -> None:
    """Whatever the event: a question about a payment or a payout, and at most a pending payment, marked as a hint."""
    for event in events(provider.name):
        found = provider.translate(callback(provider, event), NOW_MS)
        assert isinstance(found, Ask | AboutPayout | Ignored)
        assert kinds(found) <= {Kind.PENDING}
        if isinstance(found, Ask):
            assert found.told is not None
            assert {fact.source for fact in found.told.facts} == {Source.HINT}
            assert {fact.asked_minor for fact in found.told.facts} == {5000}
            assert found.told.references == (found.reference,)


@pytest.mark.parametrize("provider", WEAK, ids=name)
@pytest.mark.parametrize("amount", ["-1", "1e9", "nan", "", "9" * 30, "10.5"])
def test_a_weak_callback_with_a_senseless_amount_still_asks(provider: Provider, amount: str) -> None:
    """The question needs no amount; the hint does."""
    fields = {"data.amount": json.dumps(amount)} if provider.name == "moneroo" else {"form.amount": amount}
    found = provider.translate(callback(provider, fields=fields), NOW_MS)
    assert isinstance(found, Ask)
    assert found.told is None


@pytest.mark.parametrize("provider", STRONG, ids=name)
def test_every_event_that_can_be_built_has_a_meaning(provider: Provider) -> None:
    """Nothing of ours is unmapped or parked."""
    for event in events(provider.name):
        found = provider.translate(callback(provider, event), NOW_MS)
        assert isinstance(found, Told | AboutPayout | Ignored), (event, found)
        if isinstance(found, Told):
            assert all(fact.source is Source.CALLBACK for fact in found.facts)


@each
def test_the_time_of_arrival_changes_nothing(provider: Provider) -> None:
    """Facts are what the provider said, so that a replay a week later says the same."""
    for event in events(provider.name):
        incoming = callback(provider, event)
        assert provider.translate(incoming, NOW_MS) == provider.translate(incoming, NOW_MS + 604_800_000)


@each
def test_what_is_redacted_means_the_same(provider: Provider) -> None:
    """Work is done on the kept body."""
    for event in events(provider.name):
        incoming = callback(provider, event)
        kept = plain(provider.redact(incoming.body), query=incoming.query, method=incoming.method)
        assert provider.translate(kept, NOW_MS) == provider.translate(incoming, NOW_MS)


@pytest.mark.parametrize("provider", STRONG, ids=name)
def test_r1_the_same_money_is_the_same_minor_units_everywhere(provider: Provider) -> None:
    """5000 F are 500000 for Paystack and 5000 for the others; 50.00 EUR are 5000 for all in the end."""
    for currency in ("XOF", "XAF", "GNF", "EUR", "KWD"):
        if (provider.name, currency) == ("paystack", "KWD"):
            continue  # a hundredth is its smallest part there
        found = provider.translate(callback(provider, fields={"amount": "5000", "currency": currency}), NOW_MS)
        assert isinstance(found, Told)
        fact = found.facts[0]
        assert (fact.amount_minor, fact.asked_minor, fact.currency) == (5000, 5000, currency)


@pytest.mark.parametrize("provider", STRONG, ids=name)
def test_the_merchant_s_reference_and_notes_come_along(provider: Provider) -> None:
    """They are how a merchant finds the payment."""
    found = provider.translate(callback(provider, fields={"reference": "CMD-77"}), NOW_MS)
    assert isinstance(found, Told)
    assert found.reference == "CMD-77"
    assert found.metadata == {"reference": "CMD-77"}
