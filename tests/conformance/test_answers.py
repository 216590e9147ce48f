"""Questions and answers of the providers that have to be asked."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from service.payments.facts import Fact, Kind, Reason, Source, Told
from service.providers import PROVIDERS
from service.providers.base import Answer, Asked, NotFinal, NotKnown, Provider, Unclear
from tests.conformance.test_meaning import UNREADABLE
from tests.conformance.wire import ASKED, credentials, name

each = pytest.mark.parametrize("provider", ASKED, ids=name)
NUMBER = "19082420505121417268"
WORDS: dict[str, dict[str, str | None]] = {
    "monetbil": {"captured": "1", "failed": "0", "canceled": "-1", "pending": None},
    "moneroo": {"captured": "success", "failed": "failed", "canceled": "cancelled", "pending": "pending"},
    "ebilling": {"captured": "paid", "failed": "failed", "canceled": "cancelled", "pending": "ready"},
}
LIVE = Asked(live=True)
TEST = Asked(live=False)


def said(provider: Provider, word: str, **more: Any) -> dict[str, Any]:
    """An answer in the provider's shape; `more` sets or replaces fields of the payment."""
    if provider.name == "monetbil":
        transaction = {
            "transaction_UUID": NUMBER, "status": word, "amount": "5000", "fee": "100", "currency": "XAF",
            "message": "payment finish", "testmode": "0", "payment_ref": "CMD-1", "item_ref": "order 1",
            "end_time": "1795165199.8335",
        }  # fmt: skip
        return {"paymentId": NUMBER, "message": "payment finish", "transaction": transaction | more}
    if provider.name == "moneroo":
        payment = {
            "id": NUMBER, "status": word, "amount": 5000, "currency": {"code": "XAF", "decimals": 0},
            "environment": "live", "initiated_at": "2026-11-20T08:59:59.000000Z",
            "metadata": {"reference": "CMD-1"},
            "capture": {"failure_message": None, "method": {"short_code": "mtn_cm"}},
        }  # fmt: skip
        return {"message": "ok", "data": payment | more, "errors": None}
    return {
        "bill_id": NUMBER, "state": word, "amount": 5000, "amount_paid": 5000 if word == "paid" else 0,
        "currency": "XAF", "external_reference": "CMD-1", "payment_system_name": "airtelmoney", "reason": None,
        "created_at": "2026-11-20T08:00:00Z", "updated_at": "2026-11-20T08:59:59Z",
    } | more  # fmt: skip


def ask(provider: Provider, body: object, asked: Asked = LIVE, status: int = 200) -> Answer:
    assert provider.answer is not None
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return provider.answer(NUMBER, status, raw, asked)


def fact(answer: Answer, kind: Kind) -> Fact:
    told = answer.told if isinstance(answer, NotFinal) else answer
    assert isinstance(told, Told), answer
    return next(one for one in told.facts if one.kind is kind)


@each
@pytest.mark.parametrize("kind", [Kind.CAPTURED, Kind.FAILED, Kind.CANCELED])
def test_a_final_answer_is_told(provider: Provider, kind: Kind) -> None:
    """With its amount, in minor units, as the provider's answer."""
    answer = ask(provider, said(provider, WORDS[provider.name][kind] or ""))
    found = fact(answer, kind)
    assert isinstance(answer, Told)
    assert answer.references == (NUMBER,)
    assert answer.reference == "CMD-1"
    assert (found.movement, found.source) == (NUMBER, Source.ANSWER)
    assert (found.asked_minor, found.currency) == (5000, "XAF")
    assert found.amount_minor == (5000 if kind is Kind.CAPTURED else None)
    assert found.method == "mobile_money"
    assert (found.reason is not None) is (kind is Kind.FAILED)


@each
def test_an_answer_that_is_not_final_says_so(provider: Provider) -> None:
    """It is asked again; no money has moved."""
    word = WORDS[provider.name]["pending"]
    body = said(provider, word) if word else {"paymentId": NUMBER, "message": "payment finish"}
    answer = ask(provider, body)
    assert isinstance(answer, NotFinal)
    assert answer.told is None or {one.kind for one in answer.told.facts} == {Kind.PENDING}


@each
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (404, NotKnown()),
        (401, Unclear("credentials")),
        (403, Unclear("credentials")),
        (429, Unclear("rate_limited")),
        (422, Unclear("refused")),
        (500, Unclear("provider_error")),
        (503, Unclear("provider_error")),
        (302, Unclear("provider_error")),
        (0, Unclear("provider_error")),
    ],
)
def test_the_http_status_is_looked_at_first(provider: Provider, status: int, expected: Answer) -> None:
    """A success in the body of a 500 is no success."""
    assert ask(provider, said(provider, WORDS[provider.name]["captured"] or ""), status=status) == expected


@each
@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_answer_is_unclear(provider: Provider, body: bytes) -> None:
    """And nothing raises."""
    assert ask(provider, body) == Unclear("unreadable")


@each
def test_an_answer_about_another_payment_is_unclear(provider: Provider) -> None:
    """R10: neither its id nor our reference in it may be another one's."""
    place = {"monetbil": "transaction_UUID", "moneroo": "id", "ebilling": "bill_id"}[provider.name]
    word = WORDS[provider.name]["captured"] or ""
    assert ask(provider, said(provider, word, **{place: "another"})) == Unclear("other_payment")
    asked = Asked(live=True, reference="caisse-1")
    assert ask(provider, said(provider, word), asked) == Unclear("other_payment")
    assert isinstance(ask(provider, said(provider, word), Asked(live=True, reference="CMD-1")), Told)


def test_monetbil_s_answer_must_name_the_payment() -> None:
    """checkPayment answers anybody about anything."""
    monetbil = PROVIDERS["monetbil"]
    body = said(monetbil, "1")
    assert ask(monetbil, body | {"paymentId": "another"}) == Unclear("other_payment")
    del body["paymentId"], body["transaction"]["transaction_UUID"]
    assert ask(monetbil, body) == Unclear("other_payment")


@pytest.mark.parametrize(
    "named", [{"service_key": "theirs"}, {"service": "theirs"}, {"query_string": '{"service":"theirs"}'}]
)
def test_monetbil_s_answer_about_another_service_is_unclear(named: dict[str, str]) -> None:
    """R10: somebody's own payment at Monetbil, shown to us as ours."""
    monetbil = PROVIDERS["monetbil"]
    body = said(monetbil, "1", **named)
    assert ask(monetbil, body, Asked(live=True, account="ours")) == Unclear("other_account")
    assert isinstance(ask(monetbil, body, Asked(live=True, account="theirs")), Told)
    assert isinstance(ask(monetbil, body, LIVE), Told)


@each
def test_r4_another_amount_or_currency_is_passed_on_as_it_is(provider: Provider) -> None:
    """The rules compare; the adapter must not make it fit."""
    more = {"amount": 300, "currency": "XOF"} | ({"amount_paid": 300} if provider.name == "ebilling" else {})
    asked = Asked(live=True, reference="CMD-1", amount_minor=5000, currency="XAF")
    found = fact(ask(provider, said(provider, WORDS[provider.name]["captured"] or "", **more), asked), Kind.CAPTURED)
    assert (found.amount_minor, found.currency) == (300, "XOF")


@each
@pytest.mark.parametrize("amount", [-1, True, 2**63, 10.5, [1], "5_000", {"a": 1}])
def test_a_senseless_amount_is_unclear(provider: Provider, amount: object) -> None:
    """Asked again rather than believed."""
    place = "amount_paid" if provider.name == "ebilling" else "amount"
    body = said(provider, WORDS[provider.name]["captured"] or "", **{place: amount})
    assert ask(provider, body) == Unclear("bad_amount")


@each
@pytest.mark.parametrize("place", ["amount", "currency"])
def test_a_capture_without_amount_or_currency_is_unclear(provider: Provider, place: str) -> None:
    """eBilling's currency is known without being said; a missing `amount` there leaves `amount_paid`."""
    body = said(provider, WORDS[provider.name]["captured"] or "", **{place: None})
    answer = ask(provider, body)
    if provider.name == "ebilling":
        assert isinstance(answer, Told)
        assert isinstance(ask(provider, said(provider, "paid", amount_paid=None)), Unclear)
    else:
        assert isinstance(answer, Unclear)
        assert answer.reason.startswith("missing:")


@each
def test_an_unknown_word_is_unclear(provider: Provider) -> None:
    """Never guessed."""
    for word in ("quantum", "", "2", "SUCCESS "):
        assert ask(provider, said(provider, word)) == Unclear("unknown_status")


# --- tests and live money -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "more"), [("7", {}), ("8", {}), ("9", {}), ("1", {"testmode": "1"}), ("1", {"testmode": 1})]
)
def test_monetbil_s_test_money_is_never_live_money(word: str, more: dict[str, Any]) -> None:
    """7, 8 and 9 move nothing."""
    monetbil = PROVIDERS["monetbil"]
    assert ask(monetbil, said(monetbil, word, **more)) == Unclear("test_answer_in_live")
    assert isinstance(ask(monetbil, said(monetbil, word, **more), TEST), Told)


def test_moneroo_s_sandbox_is_never_live_money() -> None:
    """One host serves both; the answer says which."""
    moneroo = PROVIDERS["moneroo"]
    sandbox = said(moneroo, "success", environment="sandbox")
    assert ask(moneroo, sandbox) == Unclear("test_answer_in_live")
    assert isinstance(ask(moneroo, sandbox, TEST), Told)
    assert isinstance(ask(moneroo, said(moneroo, "success", environment="production")), Told)


# --- one provider's own -------------------------------------------------------------------------------


def test_monetbil_s_waiting_time_is_an_expiry() -> None:
    """The one message that is documented."""
    monetbil = PROVIDERS["monetbil"]
    assert fact(ask(monetbil, said(monetbil, "0", message="Waiting time expired.")), Kind.EXPIRED).reason is None
    poor = fact(ask(monetbil, said(monetbil, "0", message="Insufficient balance")), Kind.FAILED)
    assert poor.reason is Reason.INSUFFICIENT_FUNDS


def test_monetbil_s_refund_is_a_capture_that_went_back() -> None:
    """-2 alone proves both."""
    monetbil = PROVIDERS["monetbil"]
    answer = ask(monetbil, said(monetbil, "-2"))
    assert fact(answer, Kind.CAPTURED).amount_minor == 5000
    assert fact(answer, Kind.REFUNDED_TOTAL).amount_minor == 5000


def test_monetbil_s_time_is_read_without_floats() -> None:
    """Seconds with a fraction, as text."""
    monetbil = PROVIDERS["monetbil"]
    assert fact(ask(monetbil, said(monetbil, "1")), Kind.CAPTURED).at_ms == 1_795_165_199_833


def test_moneroo_s_success_has_no_time_of_its_own() -> None:
    """`processed_at` is set by the merchant, days later perhaps: it would make the capture late."""
    moneroo = PROVIDERS["moneroo"]
    answer = ask(moneroo, said(moneroo, "success", processed_at="2026-12-24T00:00:00Z"))
    assert fact(answer, Kind.CAPTURED).at_ms == 0


def test_moneroo_s_currency_is_an_object_or_a_word_and_amounts_are_major() -> None:
    """100.00 USD are 10000 cents; 5000 XOF are 5000."""
    moneroo = PROVIDERS["moneroo"]
    body = json.dumps(said(moneroo, "success", currency="USD")).replace("5000", "100.00").encode()
    assert fact(ask(moneroo, body), Kind.CAPTURED).amount_minor == 10_000


def test_moneroo_s_failure_has_its_reason() -> None:
    """From the error's code."""
    moneroo = PROVIDERS["moneroo"]
    capture = {"failure_error_code": "insufficient_balance", "failure_message": "no"}
    found = fact(ask(moneroo, said(moneroo, "failed", capture=capture)), Kind.FAILED)
    assert found.reason is Reason.INSUFFICIENT_FUNDS


def test_ebilling_s_bill_may_be_wrapped() -> None:
    """Both were seen."""
    ebilling = PROVIDERS["ebilling"]
    bare = said(ebilling, "processed", amount_paid=5000)
    assert ask(ebilling, bare) == ask(ebilling, {"e_bill": bare})
    assert fact(ask(ebilling, bare), Kind.CAPTURED).amount_minor == 5000


def test_ebilling_s_capture_is_what_was_paid() -> None:
    """R4: less than the bill is found by the rules, because both amounts are told."""
    ebilling = PROVIDERS["ebilling"]
    found = fact(ask(ebilling, said(ebilling, "paid", amount_paid="3000")), Kind.CAPTURED)
    assert (found.amount_minor, found.asked_minor) == (3000, 5000)


def test_ebilling_s_part_payment_is_not_final_and_never_lost() -> None:
    """Open: asked again. Dead: the money that came is told beside the end."""
    ebilling = PROVIDERS["ebilling"]
    part = ask(ebilling, said(ebilling, "partially_paid", amount_paid=2000))
    assert isinstance(part, NotFinal)
    assert fact(part, Kind.RECEIVED_PART).amount_minor == 2000
    dead = ask(ebilling, said(ebilling, "expired", amount_paid=2000))
    assert fact(dead, Kind.EXPIRED).amount_minor is None
    assert fact(dead, Kind.RECEIVED_PART).amount_minor == 2000


# --- questions ----------------------------------------------------------------------------------------


@each
def test_a_question_stays_on_its_path(provider: Provider) -> None:
    """A reference comes from a callback that proves little: it must not choose another address."""
    assert provider.question is not None
    for reference in ("../../payouts", "a/b", "a?b=c", "a#b", "é", "%2e%2e", "a\r\nX: y"):
        request = provider.question(reference, credentials(provider))
        assert request.path.startswith(("/v1/payments/", "/payment/v1/checkPayment", "/api/v1/merchant/e_bills/"))
        assert request.path.count("/") == provider.question("1", credentials(provider)).path.count("/")
        assert request.path.isascii()
        assert not set("?#\r\n ") & set(request.path)
        assert request.form in (None, {"paymentId": reference})


def test_questions_carry_their_credentials() -> None:
    """Bearer for Moneroo, Basic for eBilling with the newest key, none for Monetbil."""
    moneroo, ebilling, monetbil = (PROVIDERS[one] for one in ("moneroo", "ebilling", "monetbil"))
    assert moneroo.question is not None
    assert ebilling.question is not None
    assert monetbil.question is not None
    asked = moneroo.question("py_1", {"secret_key": ("new", "old")})
    assert (asked.method, asked.path) == ("GET", "/v1/payments/py_1/verify")
    assert asked.headers["Authorization"] == "Bearer new"
    asked = ebilling.question("555", {"username": ("shop",), "shared_key": ("", "key_one", "key_old")})
    assert (asked.method, asked.path) == ("GET", "/api/v1/merchant/e_bills/555")
    assert asked.headers["Authorization"] == "Basic " + base64.b64encode(b"shop:key_one").decode()
    asked = monetbil.question("190", credentials(monetbil))
    assert (asked.method, asked.path, asked.form) == ("POST", "/payment/v1/checkPayment", {"paymentId": "190"})
    assert "Authorization" not in asked.headers
    for provider in (moneroo, ebilling, monetbil):
        assert provider.question is not None
        provider.question("1", {})  # half set up: refused by the provider, never an exception here
