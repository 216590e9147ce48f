"""Moneroo, asked: the two requests as they go out, and what each answer and each break comes to."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.payments import money
from service.payments.facts import Fact, Kind, Reason, Source, Told
from service.providers import moneroo_calls
from service.providers.base import NotFinal, NotKnown, Unclear
from service.providers.calls import (
    METHODS,
    OPERATORS,
    Accepted,
    Broken,
    Call,
    Channel,
    Customer,
    Given,
    Lost,
    NotSent,
    Redirect,
    Response,
    Wanted,
)
from tests.support.conversations import drive

CALLS = moneroo_calls.CALLS
KEYS = {"secret_key": (" ", "pvk_one", "pvk_old")}
AUTHORIZED = {"Authorization": "Bearer pvk_one", "Accept": "application/json"}
REFERENCE, NUMBER = "cx_01HAT7", "k4su1ii7"
PAGE = f"https://checkout.moneroo.io/{NUMBER}"
WANTED = Wanted(
    reference=REFERENCE,
    key="key-1",
    amount_minor=5000,
    currency="XOF",
    method="mobile_money",
    country="CI",
    operator="wave",
    description="Panier 12",
    return_url="https://shop.example/merci",
    callback_url="https://caisse.example/webhooks/moneroo",
    payer_phone="+2250700000001",
    customer=Customer("Awa Koffi Mensah", "awa@example.com", "+2250700000001"),
    metadata={"order": "12"},
)
GIVEN = Given(REFERENCE, (REFERENCE, NUMBER), 5000, "XOF")
WAVE = Channel("mobile_money", "XOF", "CI", "wave", "wave_ci", needs=moneroo_calls.EMAIL)


def response(body: object, status: int = 200) -> Response:
    return Response(status, {}, body if isinstance(body, bytes) else json.dumps(body).encode())


def made(http: int = 201, **more: Any) -> Response:
    data = {"id": NUMBER, "checkout_url": PAGE} | more
    return response({"message": "Transaction initialized successfully", "data": data, "errors": None}, http)


def verified(status: str, **more: Any) -> Response:
    data = {
        "id": NUMBER, "status": status, "amount": 5000, "currency": {"code": "XOF", "decimals": 0},
        "environment": "live", "initiated_at": "2026-11-20T08:59:59.000000Z", "metadata": {"reference": REFERENCE},
        "capture": {"failure_message": None, "method": {"short_code": "wave_ci"}},
    } | more  # fmt: skip
    return response({"message": "ok", "data": data, "errors": None})


UNSENT, CUT = Broken("refused", sent=False), Broken("timeout", sent=True)


def create(*heard: Response | Broken, wanted: Wanted = WANTED, channel: Channel = WAVE) -> Any:
    return drive(CALLS.create(wanted, channel, KEYS), *heard)[1]


def asked(wanted: Wanted = WANTED, channel: Channel = WAVE) -> Call:
    return next(CALLS.create(wanted, channel, KEYS))


def fetch(answer: Response | Broken, live: bool = True) -> Any:
    return drive(CALLS.fetch(GIVEN, live, KEYS), answer)[1]


# --- create: what is sent -----------------------------------------------------------------------------


def test_the_request() -> None:
    """Every field and header; there is no key to repeat it with."""
    call = asked()
    assert (call.method, call.path, call.headers, call.form) == ("POST", "/v1/payments/initialize", AUTHORIZED, None)
    assert call.json == {
        "amount": 5000,
        "currency": "XOF",
        "description": "Panier 12",
        "return_url": "https://shop.example/merci",
        "customer": {
            "email": "awa@example.com",
            "first_name": "Awa",
            "last_name": "Koffi Mensah",
            "phone": "+2250700000001",
        },
        "metadata": {"reference": REFERENCE, "order": "12"},
        "methods": ["wave_ci"],
    }


@pytest.mark.parametrize("channel", CALLS.channels, ids=lambda one: f"{one.currency}-{one.country}-{one.code}")
def test_every_channel(channel: Channel) -> None:
    """One method by its code, or what there is in the country; never both."""
    wanted = replace(
        WANTED, method=channel.method, currency=channel.currency, country=channel.country,
        operator=channel.operator, amount_minor=channel.step_minor * 7,
    )  # fmt: skip
    body: Any = asked(wanted, channel).json
    assert (body["amount"], body["currency"]) == (7, channel.currency)
    assert body.get("methods") == ([channel.code] if channel.code else None)
    assert body.get("restrict_country_code") == (None if channel.code else channel.country)
    assert channel.step_minor == 10 ** money.exponent(channel.currency)
    assert not channel.direct and channel.method in METHODS and channel.operator in {"", *OPERATORS}
    assert create(made(), wanted=wanted, channel=channel).action == Redirect(PAGE)


def test_channels() -> None:
    """The particular one first; what Moneroo cannot do has none, and is declared."""
    assert CALLS.channel("mobile_money", "XOF", "CI", "wave") == WAVE
    assert CALLS.channel("mobile_money", "XOF", "CI", "") == Channel(
        "mobile_money", "XOF", "CI", needs=moneroo_calls.EMAIL
    )
    eu, card = CALLS.channel("mobile_money", "XAF", "CM", "eu"), CALLS.channel("card", "XOF", "CI", "")
    assert eu is not None and eu.code == "eu_mobile_cm"
    assert card is not None and card.code == "card_xof"
    assert CALLS.channel("card", "XOF", "SN", "") is None
    assert CALLS.channel("mobile_money", "XAF", "GA", "airtel") is None
    assert len({(c.method, c.currency, c.country, c.operator) for c in CALLS.channels}) == len(CALLS.channels)
    assert (CALLS.find, CALLS.cancel, CALLS.refund, CALLS.otp, CALLS.idempotent) == (None, None, None, None, False)


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [("", "Client", "Client"), ("  ", "Client", "Client"), ("Awa", "Awa", "Awa"), (" Awa  Koffi ", "Awa", "Koffi")],
)
def test_both_names_are_required(name: str, first: str, last: str) -> None:
    """So something stands there always."""
    body: Any = asked(replace(WANTED, customer=Customer(name, "a@b.co"))).json
    assert body["customer"] == {"email": "a@b.co", "first_name": first, "last_name": last}


def test_what_cannot_be_asked_for_is_not_sent() -> None:
    """No call at all: no e-mail address, no amount, cents where only whole units are taken."""
    assert drive(CALLS.create(replace(WANTED, customer=Customer("Awa")), WAVE, KEYS)) == ([], NotSent("missing_email"))
    for amount, currency in ((0, "XOF"), (-5, "XOF"), (1050, "USD"), (1, "GHS")):
        wanted = replace(WANTED, amount_minor=amount, currency=currency)
        channel = replace(WAVE, currency=currency, step_minor=10 ** money.exponent(currency))
        assert drive(CALLS.create(wanted, channel, KEYS)) == ([], NotSent("amount"))


def test_our_reference_is_in_the_notes_whatever_the_merchant_notes() -> None:
    """First, and not to be replaced: it is how verify is known to be about this payment."""
    notes = {"reference": "mine", **{f"k{n}": "v" for n in range(60)}}
    body: Any = asked(replace(WANTED, metadata=notes, description="")).json
    assert next(iter(body["metadata"].items())) == ("reference", REFERENCE)
    assert len(body["metadata"]) == 50 and body["description"] == REFERENCE


# --- create: what comes of it -------------------------------------------------------------------------


@pytest.mark.parametrize("http", [200, 201, 202])
def test_initialized(http: int) -> None:
    """The payer goes to the page; all that is known is that it is there."""
    told = Told((NUMBER,), (Fact(Kind.CREATED, NUMBER, source=Source.ANSWER),), REFERENCE)
    assert create(made(http)) == Accepted(told, Redirect(PAGE))
    same = made(http, amount=5000.0, currency="XOF", metadata={"reference": REFERENCE})
    assert create(same) == Accepted(told, Redirect(PAGE))


@pytest.mark.parametrize(
    "other",
    [
        *({"amount": 5001}, {"amount": "x"}, {"amount": 500_000}, {"currency": "XAF"}, {"currency": {"code": "USD"}}),
        {"metadata": {"reference": "cx_other"}},
    ],
    ids=str,
)
def test_an_answer_about_another_payment_is_lost(other: dict[str, Any]) -> None:
    """And nothing of it is kept."""
    assert create(made(**other)) == Lost("other_payment")


NOT_SENT = {
    401: NotSent("credentials", alert=True),
    403: NotSent("credentials", alert=True),
    404: NotSent("no_route"),
    405: NotSent("no_route"),
    422: NotSent("unsupported"),
    429: NotSent("rate_limited"),
}


def test_statuses() -> None:
    """Those of the table are proof, every other is lost: the payment could never be found again."""
    body = {"message": "The given data was invalid.", "data": None, "errors": {"methods": ["invalid"]}}
    for status in (*range(100, 200), *range(300, 600)):
        result = create(response(body, status))
        assert result == NOT_SENT[status] if status in NOT_SENT else isinstance(result, Lost) and result.told is None
    for status in range(200, 300):
        assert create(response(body, status)) == Lost("unreadable")


def test_broken() -> None:
    """Not one byte sent is proof, everything else is lost."""
    assert create(UNSENT) == NotSent("refused")
    assert create(CUT) == Lost("timeout")


@pytest.mark.parametrize(
    "url", [None, "", 1, "javascript:alert(1)", "http://checkout.moneroo.io/x", "https://a b/", "//x/", "https://u@x/"]
)
def test_an_address_nobody_can_be_sent_to(url: object) -> None:
    """The payment is there and is told, but nobody can pay it."""
    result = create(made(checkout_url=url))
    assert isinstance(result, Lost) and result.reason == "unreadable"
    assert result.told is not None and result.told.references == (NUMBER,)


HOSTILE = (
    *(b"", b"null", b"[]", b"{", b"\xff\xfe", b"<html>502</html>", b'"x"', b"1e999999999", b"NaN", b"{}"),
    *(
        b"[" * 100_000,
        b'{"a":' * 40_000,
        b'{"data":{"id":"a","id":"b"}}',
        b'{"data":[]}',
        b'{"data":null}',
        b" " * 256_000,
    ),
    *(b'{"data":{"id":"\\ud800","checkout_url":"https://x/"}}', b'{"data":{"id":true}}', b'{"data":{"id":{}}}'),
    *(b'{"data":{"id":"' + b"a" * 200_000 + b'"}}', b'{"data":{"id":"a\\nb","checkout_url":"https://x/"}}'),
)


@pytest.mark.parametrize("body", HOSTILE, ids=lambda body: repr(body[:40]))
def test_a_hostile_body_is_lost_and_never_an_error(body: bytes) -> None:
    """In both calls."""
    assert create(response(body)) == Lost("unreadable")
    assert isinstance(fetch(response(body)), Unclear)


@given(st.integers(1, 10**13), st.sampled_from(sorted({c.currency for c in CALLS.channels})))
def test_amounts_round_trip(units: int, currency: str) -> None:
    """What goes out in major units comes back as what was asked for; one more comes back as another payment."""
    amount_minor = units * 10 ** money.exponent(currency)
    wanted = replace(WANTED, amount_minor=amount_minor, currency=currency)
    one = replace(WAVE, currency=currency)
    body: Any = json.loads(json.dumps(asked(wanted, one).json))
    assert type(body["amount"]) is int
    assert isinstance(create(made(amount=body["amount"], currency=currency), wanted=wanted, channel=one), Accepted)
    assert create(made(amount=body["amount"] + 1), wanted=wanted, channel=one) == Lost("other_payment")
    paid = fetch(verified("success", amount=body["amount"], currency={"code": currency}))
    assert (paid.facts[0].amount_minor, paid.facts[0].currency) == (amount_minor, currency)


# --- fetch --------------------------------------------------------------------------------------------


def test_the_question() -> None:
    """Verify, by their name and never by ours, quoted."""
    assert next(CALLS.fetch(GIVEN, True, KEYS)) == Call("GET", f"/v1/payments/{NUMBER}/verify", AUTHORIZED)
    odd = replace(GIVEN, references=("../x?é",))
    assert next(CALLS.fetch(odd, True, KEYS)).path == "/v1/payments/..%2Fx%3F%C3%A9/verify"
    for names in ((), (REFERENCE,)):
        assert drive(CALLS.fetch(replace(GIVEN, references=names), True, KEYS)) == ([], Unclear("not_named"))


def test_answers() -> None:
    """What verify says, as `moneroo.answer` reads it."""
    (paid,) = fetch(verified("success")).facts
    assert (paid.kind, paid.amount_minor, paid.source) == (Kind.CAPTURED, 5000, Source.ANSWER)
    assert isinstance(fetch(verified("pending")), NotFinal) and isinstance(fetch(verified("initiated")), NotFinal)
    (failed,) = fetch(verified("failed", capture={"failure_message": "Insufficient balance"})).facts
    assert (failed.kind, failed.reason) == (Kind.FAILED, Reason.INSUFFICIENT_FUNDS)
    assert fetch(verified("cancelled")).facts[0].kind is Kind.CANCELED
    assert fetch(verified("quantum")) == Unclear("unknown_status")


def test_what_is_no_answer() -> None:
    """Another payment, test money, refusals and breaks."""
    assert fetch(verified("success", id="other")) == Unclear("other_payment")
    assert fetch(verified("success", metadata={"reference": "cx_other"})) == Unclear("other_payment")
    assert fetch(verified("success", environment="sandbox")) == Unclear("test_answer_in_live")
    assert isinstance(fetch(verified("success", environment="sandbox"), live=False), Told)
    assert fetch(response({"message": "Not found"}, 404)) == NotKnown()
    for body in ({}, {"message": "The route v1/payments could not be found."}, {"message": 1}, b"<html>"):
        assert fetch(response(body, 404)) == Unclear("no_route")
    for status, why in ((401, "credentials"), (429, "rate_limited"), (400, "refused"), (503, "provider_error")):
        assert fetch(response({}, status)) == Unclear(why)
    for broken in (UNSENT, CUT):
        assert fetch(broken) == Unclear(broken.reason)
