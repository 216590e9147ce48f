"""FedaPay, asked: every request as it goes out, and what each answer and each break comes to."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.payments.facts import AMOUNT_MINOR_MAX, Kind, Reason, Source, Told
from service.providers import fedapay_calls
from service.providers.base import NotFinal, NotKnown, Unclear
from service.providers.calls import (
    METHODS,
    OPERATORS,
    Accepted,
    Approve,
    Broken,
    Call,
    Channel,
    Customer,
    Declined,
    Given,
    Lost,
    NotCanceled,
    NotSent,
    Redirect,
    Response,
    Wanted,
)
from tests.support.conversations import drive

CALLS = fedapay_calls.CALLS
LIVE, SANDBOX = {"secret_key": ("sk_live_one", "sk_live_old")}, {"secret_key": ("sk_sandbox_one",)}
AUTHORIZED = {"Authorization": "Bearer sk_live_one", "Accept": "application/json"}
REFERENCE, KEY, NUMBER = "cx_01HAT7", "key-1", "8841"
WANTED = Wanted(
    reference=REFERENCE,
    key=KEY,
    amount_minor=5000,
    currency="XOF",
    method="mobile_money",
    country="BJ",
    operator="mtn",
    description="Panier 12",
    return_url="https://shop.example/merci",
    callback_url="https://caisse.example/webhooks/fedapay",
    payer_phone="+22964000001",
    customer=Customer("Awa Koffi Mensah", "awa@example.com", "+22997000001"),
    metadata={"order": "12"},
)
GIVEN = Given(REFERENCE, ("trx_Zk3", NUMBER), 5000, "XOF")
PAGE = "https://process.fedapay.com/eyJ0"
MTN = Channel("mobile_money", "XOF", "BJ", "mtn", "mtn_open", direct=True)
CARD = Channel("card", "XOF")


def entity(**more: Any) -> dict[str, Any]:
    return {
        "id": int(NUMBER), "klass": "v1/transaction", "reference": "trx_Zk3", "amount": 5000, "status": "pending",
        "merchant_reference": REFERENCE, "currency_id": 1, "currency": {"id": 1, "iso": "XOF"}, "mode": None,
        "created_at": "2026-11-20T08:00:00Z", "updated_at": "2026-11-20T08:00:00Z",
    } | more  # fmt: skip


def response(body: object, status: int = 200) -> Response:
    return Response(status, {}, body if isinstance(body, bytes) else json.dumps(body).encode())


def transaction(http: int = 200, **more: Any) -> Response:
    return response({"v1/transaction": entity(**more)}, http)


TOKEN = response({"token": "eyJ0", "url": PAGE})
PUSHED = response({"message": "success"})
GONE = response(b"")
REFUSED, UNSENT, CUT = Broken("refused", sent=False), Broken("unreachable", sent=False), Broken("timeout", sent=True)


def create(*heard: Response | Broken, wanted: Wanted = WANTED, channel: Channel = MTN, keys: Any = LIVE) -> Any:
    return drive(CALLS.create(wanted, channel, keys), *heard)[1]


def asked(*heard: Response | Broken, wanted: Wanted = WANTED, channel: Channel = MTN, keys: Any = LIVE) -> list[Call]:
    return drive(CALLS.create(wanted, channel, keys), *heard)[0]


def told(result: Any) -> Told:
    assert isinstance(result.told, Told)
    assert result.told.references == (NUMBER, "trx_Zk3")
    assert all(fact.source is Source.ANSWER for fact in result.told.facts)
    return result.told


# --- create: what is sent -----------------------------------------------------------------------------


def test_the_requests_of_a_push() -> None:
    """Transaction, token, push: every field and header."""
    first, second, third = asked(transaction(), TOKEN, PUSHED)
    assert (first.method, first.path, first.form) == ("POST", "/v1/transactions", None)
    assert first.headers == AUTHORIZED | {"Idempotency-Key": KEY}
    assert first.json == {
        "description": "Panier 12",
        "amount": 5000,
        "currency": {"iso": "XOF"},
        "callback_url": "https://shop.example/merci",
        "merchant_reference": REFERENCE,
        "custom_metadata": {"order": "12"},
        "include": "currency",
        "customer": {
            "firstname": "Awa",
            "lastname": "Koffi Mensah",
            "email": "awa@example.com",
            "phone_number": {"number": "+22997000001", "country": "bj"},
        },
    }
    assert second == Call("POST", f"/v1/transactions/{NUMBER}/token", AUTHORIZED, json={})
    phone = {"number": "+22964000001", "country": "bj"}
    assert third == Call("POST", "/v1/mtn_open", AUTHORIZED, json={"token": "eyJ0", "phone_number": phone})


def test_what_the_merchant_did_not_say_is_not_sent() -> None:
    """No customer, no telephone of another country, and the reference where there is no description."""
    bare = replace(WANTED, customer=Customer(), description="", metadata={})
    body: Any = asked(transaction(), TOKEN, PUSHED, wanted=bare)[0].json
    assert "customer" not in body and body["description"] == REFERENCE and body["custom_metadata"] == {}
    abroad = replace(WANTED, customer=Customer(phone="+33612345678", email="a@b.co"))
    body = asked(transaction(), TOKEN, PUSHED, wanted=abroad)[0].json
    assert body["customer"] == {"email": "a@b.co"}


PUSHES = [one for one in CALLS.channels if one.direct]


@pytest.mark.parametrize("channel", PUSHES, ids=lambda one: one.code)
def test_every_push_goes_to_its_mode(channel: Channel) -> None:
    """In live by the table; the sandbox has one mode, and numbers without the calling code."""
    dialled = fedapay_calls.DIALLED[channel.country]
    wanted = replace(WANTED, country=channel.country, currency=channel.currency, payer_phone=f"+{dialled}64000001")
    made = transaction(currency={"iso": channel.currency})
    live = asked(made, TOKEN, PUSHED, wanted=wanted, channel=channel)[-1]
    country = channel.country.lower()
    assert live.path == f"/v1/{channel.code}"
    assert live.json == {"token": "eyJ0", "phone_number": {"number": f"+{dialled}64000001", "country": country}}
    test = asked(made, TOKEN, PUSHED, wanted=wanted, channel=channel, keys=SANDBOX)[-1]
    assert test.path == "/v1/momo_test"
    assert test.json == {"token": "eyJ0", "phone_number": {"number": "64000001", "country": country}}


@pytest.mark.parametrize("channel", [one for one in CALLS.channels if not one.direct], ids=str)
def test_every_other_channel_is_the_page(channel: Channel) -> None:
    """Two calls, no mode, and the payer goes to FedaPay."""
    wanted = replace(WANTED, method=channel.method, country=channel.country, operator=channel.operator)
    calls, result = drive(CALLS.create(wanted, channel, LIVE), transaction(), TOKEN)
    assert [one.path for one in calls] == ["/v1/transactions", f"/v1/transactions/{NUMBER}/token"]
    assert result == Accepted(told(result), Redirect(PAGE))


def test_without_the_payer_s_number_a_push_is_the_page() -> None:
    """There the payer types it."""
    assert create(transaction(), TOKEN, wanted=replace(WANTED, payer_phone="")).action == Redirect(PAGE)


def test_channels() -> None:
    """The particular one first; what FedaPay cannot do has none."""
    found = {c: CALLS.channel("mobile_money", "XOF", c, "moov") for c in ("BJ", "TG", "CI", "BF")}
    assert {c: (one.code, one.direct) for c, one in found.items() if one} == {
        "BJ": ("moov", True), "TG": ("moov_tg", True), "CI": ("", False), "BF": ("", False),
    }  # fmt: skip
    assert CALLS.channel("mobile_money", "XOF", "BJ", "mtn") == MTN
    assert CALLS.channel("card", "XOF", "FR", "") == CARD
    assert CALLS.channel("mobile_money", "XOF", "BJ", "") == Channel("mobile_money", "XOF", "BJ")
    for method, currency, country in (
        ("mobile_money", "XAF", "CM"),
        ("mobile_money", "XOF", "GN"),
        ("card", "EUR", ""),
    ):
        assert CALLS.channel(method, currency, country, "") is None  # type: ignore[arg-type]
    assert len({(c.method, c.currency, c.country, c.operator) for c in CALLS.channels}) == len(CALLS.channels)
    for one in CALLS.channels:
        assert one.method in METHODS and one.operator in {"", *OPERATORS} and one.direct is bool(one.code)
    assert CALLS.otp is None and CALLS.refund is None and not CALLS.idempotent


# --- create: what comes of it -------------------------------------------------------------------------


def test_a_push_is_approved_on_the_phone() -> None:
    """`message` or an intent; no instruction is made up."""
    result = create(transaction(201), TOKEN, PUSHED)
    assert result == Accepted(told(result), Approve())
    (fact,) = told(result).facts
    assert (fact.kind, fact.movement, fact.asked_minor, fact.currency) == (Kind.PENDING, NUMBER, 5000, "XOF")
    assert told(result).reference == REFERENCE
    intent = response({"v1/payment_intent": {"reference": "pi_1", "status": "pending"}})
    assert create(transaction(201), TOKEN, intent) == result


@pytest.mark.parametrize("status", ["failed", "declined", "quantum", ""])
def test_a_word_of_a_push_in_no_table_is_lost(status: str) -> None:
    """The transaction is known, so it can be asked about."""
    for said in ({"v1/payment_intent": {"status": status}}, {"message": status}):
        result = create(transaction(), TOKEN, response(said))
        assert result == Lost("unknown_status", told(result))


def test_the_currency_by_its_number() -> None:
    """As the SDK's answers have it; another number says nothing, and the amount is compared all the same."""
    (fact,) = told(create(transaction(currency=None), TOKEN, PUSHED)).facts
    assert (fact.asked_minor, fact.currency) == (5000, "XOF")
    for number in (2, True, 1.0, "x", None, [1]):
        (fact,) = told(create(transaction(currency=None, currency_id=number), TOKEN, PUSHED)).facts
        assert (fact.asked_minor, fact.currency) == (None, None)
        assert create(transaction(currency=None, currency_id=number, amount=50)) == Lost("other_payment")


@pytest.mark.parametrize(
    "other",
    [
        *({"amount": 5001}, {"amount": 500_000}, {"amount": "a lot"}, {"amount": -5000}, {"amount": 5000.5}),
        *({"merchant_reference": "cx_other"}, {"currency": {"iso": "GNF"}}, {"amount": None}),
    ],
    ids=str,
)
def test_an_answer_about_another_payment_is_lost(other: dict[str, Any]) -> None:
    """And nothing of it is kept, nor asked on."""
    no_amount = other.get("amount", 0) in (None, "a lot", -5000, 5000.5)
    assert create(transaction(**other)) == Lost("unreadable" if no_amount else "other_payment")


def test_what_is_not_pending_was_made_before() -> None:
    """Its facts decide; it is not pushed again."""
    result = create(transaction(status="approved", approved_at="2026-11-20T09:00:00Z"))
    assert isinstance(result, Accepted) and result.action is None
    assert [fact.kind for fact in told(result).facts] == [Kind.CAPTURED]
    result = create(transaction(status="canceled", last_error_code="INSUFFICIENT_FUND_ERROR"))
    assert result == Declined(told(result), Reason.INSUFFICIENT_FUNDS)
    assert create(transaction(status="expired")).reason is Reason.UNKNOWN


NOT_SENT = {
    401: NotSent("credentials", alert=True),
    403: NotSent("credentials", alert=True),
    404: NotSent("no_route"),
    405: NotSent("no_route"),
    422: NotSent("unsupported"),
    429: NotSent("rate_limited"),
}
NOBODY_KNOWS = (500, 502, 503, 504, 520, 400, 402, 408, 409, 410, 418, 300, 302, 100)
SAID_NO = response({"message": "Erreur", "errors": {"mode": ["n'est pas disponible"]}})


@pytest.mark.parametrize(("status", "expected"), NOT_SENT.items())
def test_a_refusal_of_the_table_is_proof(status: int, expected: NotSent) -> None:
    """Of the first call by itself; of the later ones once the transaction is deleted."""
    no = replace(SAID_NO, status=status)
    assert create(no) == expected
    for before in ((transaction(),), (transaction(), TOKEN)):
        calls, result = drive(CALLS.create(WANTED, MTN, LIVE), *before, no, GONE)
        assert result == expected
        assert calls[-1] == Call("DELETE", f"/v1/transactions/{NUMBER}", AUTHORIZED)


@pytest.mark.parametrize("status", NOBODY_KNOWS)
def test_any_other_status_is_lost(status: int) -> None:
    """Nothing is deleted then: a prompt may be on the phone."""
    for before in ((), (transaction(),), (transaction(), TOKEN)):
        result = create(*before, replace(SAID_NO, status=status))
        assert isinstance(result, Lost) and result.reason in ("provider_error", "refused")
        assert (result.told is None) is (not before)


NOT_GONE = (
    *(replace(SAID_NO, status=status) for status in (400, 401, 404, 422, 429, 500)),
    *(CUT, UNSENT, response(b"<html>"), response({"message": "ok"}), transaction(status="approved")),
    *(transaction(id=1), transaction(merchant_reference="cx_other"), transaction(status="quantum")),
)


@pytest.mark.parametrize("answer", NOT_GONE, ids=lambda answer: str(answer)[:40])
def test_without_proof_that_it_is_gone_a_refusal_is_lost(answer: Response | Broken) -> None:
    """Failing over needs FedaPay's own word."""
    for before in ((transaction(),), (transaction(), TOKEN)):
        result = create(*before, replace(SAID_NO, status=429), answer)
        assert result == Lost("rate_limited", told(result))
        result = create(*before, replace(SAID_NO, status=401), answer)
        assert result == Lost("credentials", told(result), alert=True)


def test_a_reference_that_is_taken_is_lost() -> None:
    """An earlier call arrived: the very opposite of nothing sent."""
    for said in (
        {"errors": {"merchant_reference": ["est déjà utilisé"]}},
        {"message": "Merchant Reference has already been taken"},
        {"message": "Échec", "errors": ["Cette référence existe"]},
    ):
        assert create(response(said, 422)) == Lost("reference_taken")
    for body in (b"", b"<html>", b"[]", b'{"a":1,"a":2}'):
        assert create(response(body, 422)) == Lost("unreadable")


@pytest.mark.parametrize("before", [(), (transaction(),), (transaction(), TOKEN)], ids=len)
def test_broken_at_every_call(before: tuple[Response, ...]) -> None:
    """Not one byte sent is proof, of a later call once the transaction is deleted; everything else is lost."""
    assert create(*before, REFUSED, *([GONE] if before else [])) == NotSent("refused")
    result = create(*before, CUT)
    assert isinstance(result, Lost) and result.reason == "timeout"
    assert (result.told is None) is (not before)
    if before:
        for after in (CUT, UNSENT):
            result = create(*before, REFUSED, after)
            assert result == Lost("refused", told(result))


def test_what_cannot_be_asked_for_is_not_sent() -> None:
    """No call at all."""
    for amount in (0, -1):
        assert drive(CALLS.create(replace(WANTED, amount_minor=amount), MTN, LIVE)) == ([], NotSent("amount"))


HOSTILE = (
    *(b"", b"null", b"[]", b"[1]", b"{", b"\xff\xfe", b"<html>502</html>", b'"x"', b"1e999999999", b"NaN", b"{}"),
    *(b"[" * 100_000, b'{"a":' * 40_000, b'{"v1/transaction":{"id":1,"id":2}}', b'{"v1/transaction":[]}'),
    *(b'{"v1/transaction":{"id":true,"status":"pending","amount":5000}}', b'{"v1/transaction":null,"x":"\\ud800"}'),
    *(b'{"v1/transaction":{"id":8841,"status":["pending"]}}', b" " * 256_000, b'{"url":"' + b"a" * 200_000 + b'"}'),
    *(b'{"token":1,"url":{}}', b'{"token":"","url":""}', b'{"token":"a\\nb","url":"javascript:alert(1)"}'),
    *(b'{"url":"https://a b/"}', b'{"url":"//process.fedapay.com/"}', b'{"url":"https://u:p@evil.example/"}'),
)


@pytest.mark.parametrize("body", HOSTILE, ids=lambda body: repr(body[:40]))
def test_a_hostile_body_is_lost_and_never_an_error(body: bytes) -> None:
    """At every call, under every status that would make us read it."""
    assert create(response(body)) == Lost("unreadable")
    for channel in (MTN, CARD):
        result = create(transaction(), response(body), channel=channel)
        assert result == Lost("unreadable", told(result))
    assert isinstance(create(transaction(), TOKEN, response(body)), Lost)
    for status in (200, 404, 422):
        for ask in (CALLS.fetch, CALLS.find):
            assert ask is not None
            assert isinstance(drive(ask(GIVEN, True, LIVE), response(body, status))[1], Unclear)
    if body.strip():
        assert cancel(response(body)) == Lost("unreadable")


@given(st.integers(1, AMOUNT_MINOR_MAX), st.sampled_from([c.currency for c in CALLS.channels]))
def test_amounts_round_trip(amount_minor: int, currency: str) -> None:
    """What goes out in major units comes back as what was asked for, and one more is another payment."""
    wanted = replace(WANTED, amount_minor=amount_minor, currency=currency)
    conversation = CALLS.create(wanted, replace(MTN, currency=currency), LIVE)
    body: Any = json.loads(json.dumps(next(conversation).json))
    assert type(body["amount"]) is int
    conversation.send(transaction(amount=body["amount"], currency=body["currency"]))
    _, result = drive(
        CALLS.create(wanted, replace(CARD, currency=currency), LIVE),
        transaction(amount=body["amount"], currency=body["currency"]),
        TOKEN,
    )
    assert told(result).facts[0].asked_minor == amount_minor
    if amount_minor < AMOUNT_MINOR_MAX:
        more = transaction(amount=body["amount"] + 1, currency=body["currency"])
        assert drive(CALLS.create(wanted, replace(CARD, currency=currency), LIVE), more)[1] == Lost("other_payment")


# --- fetch and find -----------------------------------------------------------------------------------


def fetch(answer: Response | Broken, given: Given = GIVEN, live: bool = True) -> Any:
    return drive(CALLS.fetch(given, live, LIVE), answer)[1]


def find(answer: Response | Broken, live: bool = True) -> Any:
    assert CALLS.find is not None
    return drive(CALLS.find(GIVEN, live, LIVE), answer)[1]


def test_the_questions() -> None:
    """By its integer id, wherever that stands among the names; by our reference, quoted."""
    assert next(CALLS.fetch(GIVEN, True, LIVE)) == Call(
        "GET", f"/v1/transactions/{NUMBER}?include=currency", AUTHORIZED
    )
    assert CALLS.find is not None
    odd = replace(GIVEN, reference="cx/../?é")
    path = "/v1/transactions/merchant/cx%2F..%2F%3F%C3%A9?include=currency"
    assert next(CALLS.find(odd, True, LIVE)) == Call("GET", path, AUTHORIZED)
    for names in ((), ("trx_Zk3",), (REFERENCE,)):
        assert drive(CALLS.fetch(replace(GIVEN, references=names), True, LIVE)) == ([], Unclear("not_named"))


@pytest.mark.parametrize("ask", [fetch, find])
def test_answers(ask: Any) -> None:
    """What each status means, with the source that weighs more than a callback."""
    found = ask(transaction())
    assert isinstance(found, NotFinal) and found.told is not None and found.told.facts[0].kind is Kind.PENDING
    ends = {"approved": Kind.CAPTURED, "declined": Kind.FAILED, "canceled": Kind.CANCELED, "expired": Kind.EXPIRED}
    for status, kind in ends.items():
        found = ask(transaction(status=status))
        assert isinstance(found, Told) and [(f.kind, f.source) for f in found.facts] == [(kind, Source.ANSWER)]
    found = ask(transaction(status="refunded"))
    assert [(f.kind, f.source) for f in found.facts] == [
        (Kind.CAPTURED, Source.ANSWER),
        (Kind.REFUNDED_TOTAL, Source.ANSWER),
    ]
    found = ask(transaction(deleted_at="2026-11-20T09:00:00Z"))
    assert [f.kind for f in found.facts] == [Kind.CANCELED]
    assert ask(transaction(status="quantum")) == Unclear("unknown_status:quantum")
    assert ask(transaction(status="approved", currency=None, currency_id=None)) == Unclear("missing:currency")
    assert ask(transaction(status="approved", amount=6000)).facts[0].amount_minor == 6000  # the rules find a mismatch


def test_an_answer_about_another_payment() -> None:
    """The id where we asked by it, the reference where it is said; found by reference, it has to be said."""
    assert fetch(transaction(id=9)) == Unclear("other_payment")
    assert fetch(transaction(merchant_reference="cx_other")) == Unclear("other_payment")
    assert isinstance(fetch(transaction(merchant_reference=None)), NotFinal)
    assert isinstance(find(transaction(id=9)), NotFinal)
    assert find(transaction(merchant_reference=None)) == find(transaction(merchant_reference="x"))
    assert find(transaction(merchant_reference=None)) == Unclear("other_payment")


@pytest.mark.parametrize("ask", [fetch, find])
def test_not_known_is_fedapay_s_own_word(ask: Any) -> None:
    """A route that moved must not make `not_sent` of a payment that is there."""
    assert ask(response({"message": "Transaction introuvable"}, 404)) == NotKnown()
    for body in ({}, {"status": 404, "error": "Not Found"}, {"message": 1}, {"message": "no Route"}, b"", b"<html>"):
        assert ask(response(body, 404)) == Unclear("no_route")
    for status, why in ((401, "credentials"), (403, "credentials"), (429, "rate_limited"), (503, "provider_error")):
        assert ask(replace(SAID_NO, status=status)) == Unclear(why)
    for broken in (REFUSED, CUT):
        assert ask(broken) == Unclear(broken.reason)


def test_test_money_is_no_answer_in_live() -> None:
    """The sandbox's own mode says so."""
    paid = transaction(status="approved", mode="momo_test")
    assert fetch(paid) == find(paid) == Unclear("test_answer_in_live")
    assert isinstance(fetch(paid, live=False), Told)


# --- cancel -------------------------------------------------------------------------------------------


def cancel(answer: Response | Broken) -> Any:
    assert CALLS.cancel is not None
    return drive(CALLS.cancel(GIVEN, LIVE), answer)[1]


def test_cancelled_by_its_own_word() -> None:
    """An empty answer as the SDK's test has it, or the transaction, which may still say pending."""
    assert CALLS.cancel is not None
    assert next(CALLS.cancel(GIVEN, LIVE)) == Call("DELETE", f"/v1/transactions/{NUMBER}", AUTHORIZED)
    for answer in (
        GONE,
        response(b"", 204),
        transaction(),
        transaction(status="canceled"),
        transaction(status="expired"),
    ):
        found = cancel(answer)
        assert isinstance(found, Told) and found.references[0] == NUMBER and found.reference == REFERENCE
        assert found.facts[0].kind in (Kind.CANCELED, Kind.EXPIRED) and found.facts[0].source is Source.ANSWER


def test_what_could_not_be_cancelled() -> None:
    """Paid meanwhile is told; other refusals make us ask; what is not heard is lost."""
    found = cancel(transaction(status="approved"))
    assert isinstance(found, NotCanceled) and found.told is not None and found.told.facts[0].kind is Kind.CAPTURED
    for status in (400, 404, 409, 422):
        assert cancel(replace(SAID_NO, status=status)) == NotCanceled()
    for status in (301, 401, 403, 405, 429, 500, 503):
        assert isinstance(cancel(replace(SAID_NO, status=status)), Lost)
    assert (cancel(CUT), cancel(REFUSED)) == (Lost("timeout"), Lost("refused"))
    assert cancel(transaction(id=1)) == cancel(transaction(merchant_reference="x")) == Lost("other_payment")
    assert CALLS.cancel is not None
    assert drive(CALLS.cancel(replace(GIVEN, references=()), LIVE)) == ([], Lost("not_named"))
