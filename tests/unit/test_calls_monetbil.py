"""The calls to Monetbil: what is sent to the byte, and what each answer comes to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from service.payments.facts import AMOUNT_MINOR_MAX, Kind, Reason, Source, Told
from service.providers import monetbil
from service.providers.base import NotFinal, Unclear
from service.providers.calls import (
    OPERATORS,
    Accepted,
    Approve,
    Broken,
    Channel,
    Customer,
    Declined,
    Given,
    Lost,
    NotSent,
    Redirect,
    Wanted,
    broken_create,
)
from service.providers.monetbil_calls import CALLS, create, fetch
from tests.support.conversations import Conversation
from tests.support.corpora import json_texts, strings

CREDENTIALS = {"service_key": ("shop/key", "old"), "service_secrets": ("new secret", "old secret")}
NUMBER = "26112109301578924510"
WANTED = Wanted(
    reference="caisse-a1-try_1",
    key="key_1",
    amount_minor=2500,
    currency="XAF",
    method="mobile_money",
    country="CM",
    operator="mtn",
    description="Deux sacs de riz",
    return_url="https://shop.example/back?order=1",
    callback_url="https://pay.example/webhooks/monetbil",
    payer_phone="+237650000001",
    customer=Customer("Awa  Ndiaye Sow", "awa@shop.example", "+237690000002"),
)
PLACED = {
    "status": "REQUEST_ACCEPTED", "message": "payment pending", "flow": "FLOW_PIN_USSD", "channel_ussd": "*126*1#",
    "channel_name": "MTN", "channel": "CM_MTNMOBILEMONEY", "paymentId": NUMBER,
}  # fmt: skip
PAGE = "https://www.monetbil.com/pay/v2.1/AbC123"
NAMED = Told((NUMBER,), (), WANTED.reference)
GIVEN = Given(WANTED.reference, (NUMBER,), 2500, "XAF")


def channel(operator: str = "mtn", country: str = "CM", currency: str = "XAF") -> Channel:
    found = CALLS.channel("mobile_money", currency, country, operator)
    assert found is not None
    return found


def placing(wanted: Wanted = WANTED) -> Conversation:
    return Conversation(create(wanted, channel(), CREDENTIALS))


def showing(wanted: Wanted = WANTED) -> Conversation:
    return Conversation(create(wanted, channel(""), CREDENTIALS))


BOTH = pytest.mark.parametrize("begin", [placing, showing], ids=["placePayment", "widget"])


# --- channels -----------------------------------------------------------------------------------------


def test_every_operator_is_one_of_our_words_and_every_code_one_country_s() -> None:
    """A code of another country would send the money elsewhere."""
    direct = [one for one in CALLS.channels if one.direct]
    assert {one.operator for one in direct} <= set(OPERATORS)
    assert all(one.code.startswith(f"{one.country}_") for one in direct)
    assert len({one.code for one in direct}) == len(direct) == 14
    assert all(one.method == "mobile_money" for one in CALLS.channels)


@pytest.mark.parametrize("one", CALLS.channels, ids=lambda one: f"{one.country}-{one.operator or 'widget'}")
def test_each_channel_asks_for_itself(one: Channel) -> None:
    """Its code, its country, its currency; a place is chosen before the widget where the operator is known."""
    assert CALLS.channel("mobile_money", one.currency, one.country, one.operator) == one
    wanted = replace(WANTED, currency=one.currency, country=one.country, amount_minor=100_000)
    call = Conversation(create(wanted, one, CREDENTIALS)).call
    form = dict(call.form or ())
    assert (form["currency"], form["country"]) == (one.currency, one.country)
    assert form["amount"] == ("1000" if one.currency == "CDF" else "100000")
    assert form.get("operator") == (one.code if one.direct else None)
    assert call.path == ("/payment/v1/placePayment" if one.direct else "/widget/v2.1/shop%2Fkey")


def test_what_monetbil_cannot_do() -> None:
    """Said before anything is called."""
    assert CALLS.channel("card", "XAF", "CM", "") is None
    assert CALLS.channel("mobile_money", "XOF", "CI", "orange") is None
    assert CALLS.channel("mobile_money", "EUR", "CM", "mtn") is None
    assert (CALLS.find, CALLS.otp, CALLS.cancel, CALLS.refund, CALLS.idempotent) == (None, None, None, None, False)


# --- what is sent -------------------------------------------------------------------------------------


def test_place_payment_to_the_byte() -> None:
    """Every field in its order; the number without its plus; no key, since Monetbil takes none."""
    call = placing().call
    assert (call.method, call.path, call.headers, call.json) == (
        "POST",
        "/payment/v1/placePayment",
        {"Accept": "application/json"},
        None,
    )
    assert call.form == (
        ("service", "shop/key"),
        ("phonenumber", "237650000001"),
        ("operator", "CM_MTNMOBILEMONEY"),
        ("amount", "2500"),
        ("currency", "XAF"),
        ("country", "CM"),
        ("item_ref", "caisse-a1-try_1"),
        ("payment_ref", "caisse-a1-try_1"),
        ("first_name", "Awa"),
        ("last_name", "Ndiaye Sow"),
        ("email", "awa@shop.example"),
        ("notify_url", "https://pay.example/webhooks/monetbil"),
    )


def test_the_widget_to_the_byte() -> None:
    """The key in the path, no operator, the return address, and `sign` over the values in the order of their names."""
    call = showing().call
    assert (call.method, call.path) == ("POST", "/widget/v2.1/shop%2Fkey")
    fields = (
        ("amount", "2500"),
        ("currency", "XAF"),
        ("country", "CM"),
        ("item_ref", "caisse-a1-try_1"),
        ("payment_ref", "caisse-a1-try_1"),
        ("first_name", "Awa"),
        ("last_name", "Ndiaye Sow"),
        ("email", "awa@shop.example"),
        ("notify_url", "https://pay.example/webhooks/monetbil"),
        ("locale", "fr"),
        ("phone", "237650000001"),
        ("return_url", "https://shop.example/back?order=1"),
    )
    # amount country currency email first_name item_ref last_name locale notify_url payment_ref phone return_url
    by_hand = (
        "new secret2500CMXAFawa@shop.exampleAwacaisse-a1-try_1Ndiaye Sowfrhttps://pay.example/webhooks/monetbil"
        "caisse-a1-try_1237650000001https://shop.example/back?order=1"
    )
    assert call.form == (*fields, ("sign", hashlib.md5(by_hand.encode()).hexdigest()))


def test_the_key_in_the_path_is_not_shown() -> None:
    """Neither in logs nor in a repr; and its host can be another."""
    facts = dict(monetbil.FACTS) | {
        "widget_url": "https://www.monetbil.com",
        "widget_path": "/widget/v9/{service_key}?x=1",
    }
    one = channel("")
    call = Conversation(create(replace(WANTED, operator=""), one, CREDENTIALS, facts)).call
    assert (call.base_url, call.path) == ("https://www.monetbil.com", "/widget/v9/shop%2Fkey?x=1")
    assert call.shown == "POST /widget/v9/***" and "shop" not in repr(call)
    assert showing().call.base_url == "" and showing().call.shown == "POST /widget/v2.1/***"


def test_what_is_empty_is_not_sent() -> None:
    """Neither a name nor an address that nobody gave; the widget asks for the number itself."""
    bare = replace(WANTED, customer=Customer(), payer_phone="")
    form = dict(showing(bare).call.form or ())
    assert set(form) == {
        *("amount", "currency", "country", "locale", "item_ref", "payment_ref", "notify_url", "return_url", "sign"),
    }
    known = replace(bare, customer=Customer(phone="+237690000002"))
    assert dict(showing(known).call.form or ())["phone"] == "237690000002"


@pytest.mark.parametrize("phone", ["", "+", "650 00 00 01", "+0650000001", "+2376٥0000001", "x", "+" + "1" * 16])
def test_without_a_number_no_prompt_is_asked_for(phone: str) -> None:
    """Nothing is sent; the customer's own number is not the wallet's."""
    assert placing(replace(WANTED, payer_phone=phone)).result == NotSent("missing_payer_phone")


def test_amounts_and_currencies_that_cannot_be_written() -> None:
    """Centimes of Congo, nothing at all, and a channel of another currency."""
    cdf = channel("orange", "CD", "CDF")
    for wanted, one in (
        (replace(WANTED, currency="CDF", amount_minor=150), cdf),
        (replace(WANTED, amount_minor=0), channel()),
        (replace(WANTED, amount_minor=-5), channel()),
    ):
        assert Conversation(create(wanted, one, CREDENTIALS)).result == NotSent("amount")
    assert Conversation(create(WANTED, cdf, CREDENTIALS)).result == NotSent("unsupported")
    assert cdf.step_minor == 100


@pytest.mark.parametrize("missing", ["service_key", "service_secrets"])
def test_without_credentials_nothing_is_sent(missing: str) -> None:
    """The widget cannot be signed; an empty secret is none."""
    for values in ((), ("",), (" ",)):
        talk = Conversation(create(WANTED, channel(""), {**CREDENTIALS, missing: values}))
        assert talk.result == NotSent("credentials", alert=True)


@BOTH
@pytest.mark.parametrize("text", strings())
def test_hostile_words_are_sent_or_left_out(begin: Any, text: str) -> None:
    """Whatever a name, a key or an address holds, a call comes of it that can be encoded."""
    wanted = replace(WANTED, description=text, customer=Customer(text, text, text), return_url=text)
    call = begin(wanted).call
    assert all(value and value.encode() and "\x00" not in value for _, value in call.form)
    keyed = Conversation(create(WANTED, channel(""), {**CREDENTIALS, "service_key": (text,)}))
    assert keyed.result == NotSent("credentials", alert=True) if not text.strip() else keyed.call.path.isascii()


# --- what comes of placePayment -----------------------------------------------------------------------


def test_a_prompt_on_the_phone() -> None:
    """Its number is text, and the words are Monetbil's own."""
    result = placing().answer(200, PLACED).result
    assert isinstance(result, Accepted)
    assert result.action == Approve("*126*1#")
    assert (result.told.references, result.told.reference) == ((NUMBER,), WANTED.reference)
    (fact,) = result.told.facts
    assert (fact.kind, fact.movement, fact.source) == (Kind.REQUIRES_ACTION, NUMBER, Source.ANSWER)
    assert (fact.amount_minor, fact.asked_minor) == (None, None)


def test_a_page_instead_of_a_code_to_dial() -> None:
    """Where there is only a page, the payer goes there; where there is both, the phone is enough."""
    paged = {**PLACED, "channel_ussd": "", "payment_url": PAGE}
    assert placing().answer(200, paged).result.action == Redirect(PAGE)
    assert placing().answer(200, {**PLACED, "payment_url": PAGE}).result.action == Approve("*126*1#")
    assert placing().answer(200, {**paged, "payment_url": "javascript:alert(1)"}).result.action == Approve("")


def of(**changes: Any) -> Mapping[str, Any]:
    return {**PLACED, **changes}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (of(paymentId=None), Lost("missing:id")),
        (of(paymentId={}), Lost("missing:id")),
        (of(paymentId="x" * 201), Lost("missing:id")),
        (of(payment_ref="caisse-a1-try_2"), Lost("other_payment")),
        (of(payment_ref="caisse-a1-try_2", item_ref="x"), Lost("other_payment")),
        (of(amount="2501"), Lost("other_payment")),
        (of(amount="25.5"), Lost("other_payment")),
        (of(amount="2500", currency="XOF"), Lost("other_payment")),
        (of(status="quantum"), Lost("unknown_status", NAMED)),
        (of(status=None), Lost("unknown_status", NAMED)),
        (of(status="INVALID_MSISDN"), Lost("unknown_status", NAMED)),  # a refusal with a number is no refusal
        (of(status="quantum", payment_ref="caisse-a1-try_2"), Lost("unknown_status")),
        ({"status": "SERVER_ERROR"}, Lost("unknown_status")),
        ({"status": "ORDER_ALREADY_EXISTS"}, Lost("unknown_status")),
        ({}, Lost("unknown_status")),
        ({"status": "SERVICE_NOT_FOUND", "message": "service not found"}, NotSent("credentials", alert=True)),
        ({"status": "MISSING_SERVICE"}, NotSent("credentials", alert=True)),
        ({"status": "MISSING_MSISDN"}, NotSent("unsupported")),
    ],
)
def test_other_answers_of_place_payment(body: Mapping[str, Any], expected: object) -> None:
    """What is in no table proves nothing."""
    assert placing().answer(200, body).result == expected


@pytest.mark.parametrize("body", [of(payment_ref=WANTED.reference, amount="2500", currency="XAF"), of(amount=2500)])
def test_an_answer_that_repeats_what_was_asked(body: Mapping[str, Any]) -> None:
    """Undocumented, and right."""
    assert isinstance(placing().answer(200, body).result, Accepted)


@pytest.mark.parametrize("status", [200, 400, 422])
def test_a_number_that_is_none_is_declined(status: int) -> None:
    """It was seen with a status in the body, not with which one of HTTP."""
    result = placing().answer(status, {"status": "INVALID_MSISDN", "message": "invalid phonenumber"}).result
    assert isinstance(result, Declined)
    assert (result.reason, result.soft) == (Reason.NUMBER_MISMATCH, False)
    assert (result.told.references, result.told.reference) == ((), WANTED.reference)
    (fact,) = result.told.facts
    assert (fact.kind, fact.reason, fact.source) == (Kind.FAILED, Reason.NUMBER_MISMATCH, Source.ANSWER)


@BOTH
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, NotSent("credentials", alert=True)),
        (403, NotSent("credentials", alert=True)),
        (404, NotSent("no_route")),
        (405, NotSent("no_route")),
        (422, NotSent("unsupported")),
        (429, NotSent("rate_limited")),
        *((status, Lost("refused")) for status in (400, 402, 406, 409, 410, 418, 499)),
        *((status, Lost("provider_error")) for status in (100, 301, 302, 500, 502, 503, 504, 599)),
    ],
)
def test_each_status_by_the_table(begin: Any, status: int, expected: object) -> None:
    """When is failover safe: with a readable body, without one, and with HTML."""
    for body in ({"phonenumber": ["The phonenumber field is required."]}, b"", b"<html>busy</html>"):
        assert begin().answer(status, body).result == expected


@BOTH
def test_422_about_the_service_is_ours_to_mend(begin: Any) -> None:
    """Documented: the fields it complains of."""
    assert begin().answer(422, {"service": ["required"], "amount": ["required"]}).result.alert


@BOTH
def test_5xx_is_lost_whatever_it_says(begin: Any) -> None:
    """An error page of a proxy may hold anything."""
    bodies: list[Any] = [{"status": "SERVICE_NOT_FOUND"}, {"status": "INVALID_MSISDN"}, {"service": []}, PLACED]
    for body in bodies:
        assert {begin().answer(status, body).result for status in (500, 502, 599)} == {Lost("provider_error")}


@pytest.mark.parametrize("status", [401, 404, 422, 429, 400])
def test_a_refusal_that_shows_a_payment_is_lost(status: int) -> None:
    """No proof that nothing was sent."""
    assert placing().answer(status, PLACED).result == Lost("contradictory", NAMED)
    assert placing().answer(status, {"paymentId": NUMBER}).result == Lost("contradictory", NAMED)
    assert showing().answer(status, {"success": True, "payment_url": PAGE}).result == Lost("contradictory")


# --- what comes of the widget -------------------------------------------------------------------------


def test_the_page_of_the_widget() -> None:
    """Nobody has a number yet, so our reference is its only name."""
    result = showing().answer(200, {"success": True, "payment_url": PAGE}).result
    assert isinstance(result, Accepted)
    assert result.action == Redirect(PAGE)
    assert (result.told.references, result.told.reference) == ((), WANTED.reference)
    assert [(fact.kind, fact.movement) for fact in result.told.facts] == [(Kind.REQUIRES_ACTION, WANTED.reference)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"success": True}, Lost("bad_url")),
        ({"success": True, "payment_url": "http://www.monetbil.com/pay"}, Lost("bad_url")),
        ({"success": True, "payment_url": "https://a b"}, Lost("bad_url")),
        ({"success": True, "payment_url": "https://user@evil.example/"}, Lost("bad_url")),
        ({"success": True, "payment_url": "https://a.example/" + "a" * 2000}, Lost("bad_url")),
        ({"success": True, "payment_url": 7}, Lost("bad_url")),
        ({"success": "true", "payment_url": PAGE}, Lost("unknown_status")),
        ({"success": 1, "payment_url": PAGE}, Lost("unknown_status")),
        ({"payment_url": PAGE}, Lost("unknown_status")),
        ({"success": True, "payment_url": PAGE, "payment_ref": "other"}, Lost("other_payment")),
        ({"success": True, "payment_url": PAGE, "amount": "9"}, Lost("other_payment")),
    ],
)
def test_other_answers_of_the_widget(body: Mapping[str, Any], expected: object) -> None:
    """A page that the payer cannot be sent to is none, but it may be there."""
    assert showing().answer(200, body).result == expected


def test_the_widget_s_no() -> None:
    """There is no page to pay on."""
    result = showing().answer(200, {"success": False, "message": "Invalid msisdn"}).result
    assert isinstance(result, Declined)
    assert result.reason is Reason.NUMBER_MISMATCH
    assert showing().answer(200, {"success": False}).result.reason is Reason.UNKNOWN


# --- no answer ----------------------------------------------------------------------------------------


@BOTH
def test_no_answer_at_all(begin: Any) -> None:
    """It is not caught: the first call alone can prove that nothing was sent."""
    for sent, expected in ((False, NotSent("refused")), (True, Lost("refused"))):
        with pytest.raises(Broken) as broken:
            begin().breaks(sent=sent, reason="refused")
        assert broken_create(broken.value, 1) == expected


# --- asking -------------------------------------------------------------------------------------------


def checked(**changes: Any) -> dict[str, Any]:
    """What checkPayment says of a paid one: text throughout."""
    paid = {
        "transaction_UUID": NUMBER, "status": "1", "amount": "2500", "fee": "50", "currency": "XAF", "testmode": "0",
        "item_ref": WANTED.reference, "payment_ref": WANTED.reference, "end_time": "1795165200.25",
        "message": "", "service_key": "shop/key",
    }  # fmt: skip
    return {"paymentId": NUMBER, "message": "payment finish", "transaction": {**paid, **changes}}


def fetching(live: bool = True) -> Conversation:
    return Conversation(fetch(GIVEN, live, CREDENTIALS))


def test_fetch_to_the_byte() -> None:
    """By the payment's number; no credential."""
    call = fetching().call
    assert (call.method, call.path, call.form) == ("POST", "/payment/v1/checkPayment", (("paymentId", NUMBER),))
    assert call.headers == {"Accept": "application/json"}


def test_a_payment_without_a_number_cannot_be_asked_about() -> None:
    """Our own reference is none of Monetbil's numbers, and is never sent as one."""
    for references in ((), (WANTED.reference,)):
        talk = Conversation(fetch(replace(GIVEN, references=references), True, CREDENTIALS))
        assert (talk.calls, talk.result) == ([], Unclear("no_number_yet"))
    both = Conversation(fetch(replace(GIVEN, references=(WANTED.reference, NUMBER)), True, CREDENTIALS))
    assert both.call.form == (("paymentId", NUMBER),)


def test_what_it_says() -> None:
    """The facts of `monetbil.answer`, by the same tables as everywhere."""
    told = fetching().answer(200, checked()).result
    assert isinstance(told, Told)
    assert [(f.kind, f.amount_minor, f.currency, f.source) for f in told.facts] == [
        (Kind.CAPTURED, 2500, "XAF", Source.ANSWER)
    ]
    assert fetching().answer(200, {"paymentId": NUMBER, "message": "payment pending"}).result == NotFinal()
    expired = fetching().answer(200, checked(status="0", message="Waiting time expired.")).result
    assert expired.facts[0].kind is Kind.EXPIRED


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (checked(payment_ref="other", item_ref="other"), Unclear("other_payment")),
        (checked(transaction_UUID="1"), Unclear("other_payment")),
        (checked(service_key="another shop"), Unclear("other_account")),
        (checked(status="7", testmode="1"), Unclear("test_answer_in_live")),
        (checked(status="quantum"), Unclear("unknown_status")),
        (checked(amount="1e9"), Unclear("bad_amount")),
    ],
)
def test_an_answer_about_something_else(body: Mapping[str, Any], expected: object) -> None:
    """Bound to the number, our reference, our service and the mode."""
    assert fetching().answer(200, body).result == expected


def test_test_money_in_a_test_account() -> None:
    """`live` is passed on."""
    assert isinstance(fetching(live=False).answer(200, checked(status="7", testmode="1")).result, Told)


def test_fetch_that_was_turned_away() -> None:
    """Nothing is concluded, and a broken one is the client's."""
    assert fetching().answer(404).result == Unclear("not_known")
    assert fetching().answer(401).result == Unclear("credentials")
    assert fetching().answer(503).result == Unclear("provider_error")
    with pytest.raises(Broken):
        fetching().breaks(sent=True)


# --- every amount and every body ----------------------------------------------------------------------


@drawn(amount=st.integers(1, AMOUNT_MINOR_MAX), one=st.sampled_from(CALLS.channels))
def test_what_is_asked_for_is_what_is_read(amount: int, one: Channel) -> None:
    """Out and back is the same money in every channel; what has a fraction is never sent."""
    wanted = replace(WANTED, amount_minor=amount, currency=one.currency, country=one.country)
    talk = Conversation(create(wanted, one, CREDENTIALS))
    if amount % one.step_minor:
        assert talk.result == NotSent("amount")
        return
    written = dict(talk.call.form or ())["amount"]
    given = Given(wanted.reference, (NUMBER,), amount, one.currency)
    body = checked(amount=written, currency=one.currency)
    told = Conversation(fetch(given, True, CREDENTIALS)).answer(200, body).result
    assert [(f.asked_minor, f.amount_minor, f.currency) for f in told.facts] == [(amount, amount, one.currency)]


@pytest.mark.parametrize("name", json_texts())
def test_no_body_is_too_hostile(name: str) -> None:
    """A creating call that cannot be read is lost, never refused, accepted or an exception."""
    body = json_texts()[name]
    for begin in (placing, showing):
        assert isinstance(begin().answer(200, body).result, Lost)
    assert isinstance(fetching().answer(200, body).result, Unclear | NotFinal)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from([NUMBER, PAGE, "REQUEST_ACCEPTED", "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*PLACED, "success", "x"]), inner),
    max_leaves=8,
)


@drawn(
    changes=st.dictionaries(st.sampled_from([*PLACED, "success", "payment_url", "payment_ref", "amount"]), JUNK),
    status=st.sampled_from([200, 201, 401, 422, 500]),
)
def test_any_value_in_any_field(changes: dict[str, Any], status: int) -> None:
    """A result always comes of it, and a 5xx is never proof."""
    for begin in (placing, showing):
        result = begin().answer(status, {**PLACED, **changes}).result
        assert isinstance(result, Accepted | NotSent | Declined | Lost)
        assert status < 500 or isinstance(result, Lost)


def test_the_sign_is_the_one_that_notifications_are_checked_with() -> None:
    """One rule, one place."""
    form = showing().call.form or ()
    fields = [(name.encode(), value.encode()) for name, value in form]
    assert monetbil.signature(b"new secret", fields) == dict(form)["sign"] != monetbil.signature(b"old secret", fields)
