"""eBilling, paying out by SHAP: a token, a payout, the payout found again, and the operator's float."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.providers.base import NotKnown, Unclear
from service.providers.calls import Broken, Call, Lost, NotSent, Response
from service.providers.ebilling import EBILLING
from service.providers.ebilling_payouts import FACTS, PAYOUTS, ask, float_, send
from service.providers.payouts import (
    Payee,
    Paying,
    PayoutChannel,
    PayoutRefused,
    PayoutTold,
    broken_asking,
    broken_payout,
)
from tests.support.conversations import Conversation
from tests.support.corpora import json_texts

KEYS = {"username": ("shop",), "shared_key": ("key",), "shap_id": ("id-1",), "shap_secret": ("secret-1", "secret-0")}
LIVE, LAB = "https://staging.billing-easy.net", "https://test.billing-easy.net"
MERCHANT = "/shap/api/v1/merchant"
TOKEN = "eyJ0.eyJz-_" + "a" * 900 + "="
BEARER = {"Authorization": f"Bearer {TOKEN}", "Accept": "application/json"}
REFERENCE = "caisse-0badcafe-po-9"
NAMES = ("2220000141", "disbursement-LX4-2220000141")
PAYEE = Payee("mobile_money", "XAF", "GA", "airtel", "+24174000011", name="Paul Ondo")
PAYING = Paying(REFERENCE, "key-1", 5000, "XAF", PAYEE, live=True)
UNSENT, CUT = Broken("refused", sent=False), Broken("timeout", sent=True)
CREDENTIALS = NotSent("credentials", alert=True)


def way(payee: Payee = PAYEE) -> PayoutChannel:
    found = PAYOUTS.channel(payee)
    assert found is not None
    return found


def response(body: object, status: int = 200) -> Response:
    return Response(status, {}, body if isinstance(body, bytes) else json.dumps(body).encode())


ENTERED = response({"access_token": TOKEN, "token_type": "Bearer", "expires_in": 7200})


def of(state: str, **more: Any) -> dict[str, Any]:
    return {
        "payout_id": NAMES[0], "transaction_id": NAMES[1], "payment_system_name": "airtelmoney", "amount": 5000,
        "currency": "XAF", "external_reference": REFERENCE, "state": state,
    } | more  # fmt: skip


def taken(state: str = "pending", status: int = 200, **more: Any) -> Response:
    body = {"successful": "transaction_initiated", "success_message": "ok", "response": of(state, **more)}
    return response(body, status)


def found(state: str = "success", status: int = 200, **more: Any) -> Response:
    return response({"payout": of(state, **more)}, status)


def error(status: int, code: object, words: str = "No.") -> Response:
    return response({"error_code": code, "error_description": words}, status)


def ended(conversation: Any, broken: Callable[..., Any], *heard: Response | Broken) -> Any:
    """What these answers come to, as the client would have it."""
    talk = Conversation(conversation)
    for one in heard:
        try:
            talk.hear(one)
        except Broken as caught:
            return broken(caught, len(talk.calls))
    assert talk.result is not None
    return talk.result


def sent(*heard: Response | Broken, paying: Paying = PAYING) -> Any:
    return ended(send(paying, way(paying.payee), KEYS), broken_payout, *heard)


def asked(*heard: Response | Broken, paying: Paying = PAYING) -> Any:
    return ended(ask(paying, KEYS), broken_asking, *heard)


def held(*heard: Response | Broken, payee: Payee = PAYEE) -> Any:
    return ended(float_(payee, True, KEYS), broken_asking, *heard)


# --- what goes out ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("live", "host"), [(True, LIVE), (False, LAB)])
def test_the_two_requests(live: bool, host: str) -> None:
    """At SHAP's own address, which follows live and test, with SHAP's own credentials; the payout is a text in JSON."""
    talk = Conversation(send(replace(PAYING, live=live), way(), KEYS))
    assert talk.call == Call(
        "POST",
        f"{MERCHANT}/auth",
        {"Accept": "application/json"},
        json={"api_id": "id-1", "api_secret": "secret-1"},
        base_url=host,
    )
    call = talk.hear(ENTERED).call
    body: Any = call.json
    assert (call.method, call.path, call.headers, call.base_url) == ("POST", f"{MERCHANT}/payout", BEARER, host)
    assert set(body) == {"payment_system_name", "payout"} and body["payment_system_name"] == "airtelmoney"
    assert json.loads(body["payout"]) == {
        "payee_msisdn": "074000011",
        "amount": 5000,
        "external_reference": REFERENCE,
        "payout_type": "withdrawal",
    }


def test_the_payout_can_be_an_object() -> None:
    """One of three sends it so; a third way there is not, and then nothing is called."""
    facts = dict(FACTS) | {"payout_written": "object", "payout_type": "refund", "dialled": "", "shap_url": LAB}
    call = Conversation(send(PAYING, way(), KEYS, facts)).hear(ENTERED).call
    body: Any = call.json
    assert body["payout"] == {
        "payee_msisdn": "24174000011",
        "amount": 5000,
        "external_reference": REFERENCE,
        "payout_type": "refund",
    }
    assert call.base_url == LAB
    talk = Conversation(send(PAYING, way(), KEYS, dict(FACTS) | {"payout_written": "xml"}))
    assert (talk.calls, talk.result) == ([], NotSent("settings", alert=True))


@pytest.mark.parametrize(
    ("number", "written"),
    [("+24174000011", "074000011"), ("+241074000011", "074000011"), ("+237650000001", "237650000001")],
)
def test_the_number_as_gabon_writes_it(number: str, written: str) -> None:
    """The same in the payout and in the question about it: SHAP finds a payout by both."""
    paying = replace(PAYING, payee=replace(PAYEE, number=number))
    body: Any = Conversation(send(paying, way(), KEYS)).hear(ENTERED).call.json
    assert json.loads(body["payout"])["payee_msisdn"] == written
    assert f"payee_msisdn={written}&" in Conversation(ask(paying, KEYS)).hear(ENTERED).call.path


def test_what_it_can_do() -> None:
    """Two operators of Gabon, a hundred francs and more; asked by our reference, and each operator's float."""
    assert [(one.operator, one.code, one.min_minor) for one in PAYOUTS.channels] == [
        ("airtel", "airtelmoney", 100),
        ("moov", "moovmoney4", 100),
    ]
    assert not PAYOUTS.idempotent and not PAYOUTS.by_name_only and PAYOUTS.finalize is None
    for nobody in (replace(PAYEE, country="CM"), replace(PAYEE, operator=""), replace(PAYEE, currency="XOF")):
        assert PAYOUTS.channel(nobody) is None


@pytest.mark.parametrize(
    ("wrong", "result"),
    [
        ({"amount_minor": 99}, PayoutRefused("amount")),
        ({"amount_minor": 0}, PayoutRefused("amount")),
        ({"amount_minor": -500}, PayoutRefused("amount")),
        ({"payee": replace(PAYEE, number="")}, PayoutRefused("bad_account")),
        ({"payee": replace(PAYEE, operator="moov")}, PayoutRefused("unsupported")),
        ({"currency": "XOF"}, PayoutRefused("unsupported")),
    ],
)
def test_what_is_not_sent(wrong: dict[str, Any], result: object) -> None:
    """No call is made, not even for a token."""
    talk = Conversation(send(replace(PAYING, **wrong), way(), KEYS))
    assert (talk.calls, talk.result) == ([], result)


def test_limits() -> None:
    """Those of the way, both ends included."""
    narrow = replace(way(), max_minor=1000, step_minor=5)
    for amount, fits in ((100, True), (104, False), (1000, True), (1005, False)):
        talk = Conversation(send(replace(PAYING, amount_minor=amount), narrow, KEYS))
        assert (talk.result is None) is fits
        assert fits or talk.result == PayoutRefused("amount")


@pytest.mark.parametrize("name", ["shap_id", "shap_secret"])
def test_without_shap_s_credentials_nothing_is_called(name: str) -> None:
    """Those that take money in are others."""
    keys = {**KEYS, name: (" ",)}
    assert Conversation(send(PAYING, way(), keys)).result == CREDENTIALS
    assert Conversation(ask(PAYING, keys)).result == Unclear("credentials")
    assert Conversation(float_(PAYEE, True, keys)).result == Unclear("credentials")


def test_money_can_come_in_without_shap() -> None:
    """An account that only takes money is whole without its credentials."""
    assert EBILLING.missing({name: KEYS[name] for name in ("username", "shared_key")}) == ("callback_tokens",)
    assert {"shap_id", "shap_secret"} <= {one.name for one in EBILLING.credentials if one.optional}


# --- the token ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heard", "result"),
    [
        (response({}, 401), CREDENTIALS),
        (error(403, "SP0001"), CREDENTIALS),
        (response(b"", 404), NotSent("no_route")),
        (response(b"", 429), NotSent("rate_limited")),
        (error(400, "SP0016"), NotSent("refused")),
        (response(b"", 500), NotSent("provider_error")),
        (response(b"", 302), NotSent("provider_error")),
        (response(b"<html>"), NotSent("unreadable")),
        (response({}), NotSent("unreadable")),
        (response({"access_token": ""}), NotSent("unreadable")),
        (response({"access_token": 5}), NotSent("unreadable")),
        (response({"access_token": "a\r\nX: y"}), NotSent("unreadable")),
        (response({"access_token": "é"}), NotSent("unreadable")),
        (response({"access_token": "a" * 5000}), NotSent("unreadable")),
        (UNSENT, NotSent("refused")),
        (CUT, NotSent("timeout")),
    ],
)
def test_what_breaks_at_the_token_has_paid_nobody(heard: Response | Broken, result: NotSent) -> None:
    """Whatever it is, also a lost answer: a token moves nothing. A question learns nothing by it."""
    assert sent(heard) == result
    assert asked(heard) == held(heard) == Unclear(result.reason)


# --- what send comes to -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heard", "result"),
    [
        (taken(), PayoutTold("in_transit", NAMES)),
        (taken("initiated", 201), PayoutTold("in_transit", NAMES)),
        (taken("processing"), PayoutTold("in_transit", NAMES)),
        (taken("new_word"), PayoutTold("in_transit", NAMES)),
        (taken("success"), PayoutTold("paid", NAMES)),
        (taken("SUCCESS", amount="5000", transaction_id=None), PayoutTold("paid", NAMES[:1])),
        (taken("failed"), PayoutTold("failed", NAMES, reason="refused")),
        (taken("failed", error_code="SP0016", error_description="Solde"),
         PayoutTold("failed", NAMES, reason="insufficient_float", words="Solde")),
        (taken(external_reference="caisse-1-po-8"), Lost("other_payout")),
        (taken("success", amount=4999), Lost("other_payout")),
        (taken("success", currency="XOF"), Lost("other_payout")),
        (taken("success", amount=[]), Lost("bad_amount")),
        (taken(payout_id=None, transaction_id=None), Lost("unreadable")),
        (response({"successful": True}), Lost("unreadable")),
        (response({"response": []}), Lost("unreadable")),
        (response(b""), Lost("unreadable")),
        (response(b"[]"), Lost("unreadable")),
        (taken(status=400), Lost("refused")),
        (taken(status=401), Lost("contradictory")),
        (taken(status=422), Lost("contradictory")),
        (taken(status=500), Lost("provider_error")),
        (error(400, "SP0011"), PayoutRefused("amount", "No.")),
        (error(400, "SP0014"), PayoutRefused("unsupported", "No.")),
        (error(400, "SP0016", "Solde insuffisant"), PayoutRefused("insufficient_float", "Solde insuffisant")),
        (error(406, "sp0016"), PayoutRefused("insufficient_float", "No.")),
        (error(200, "SP0016"), PayoutRefused("insufficient_float", "No.")),
        (error(422, "SP0099", "Invalid MSISDN"), PayoutRefused("bad_account", "Invalid MSISDN")),
        (error(422, "SP0099"), PayoutRefused("refused", "No.")),
        (error(400, "SP0099"), Lost("refused")),
        (error(200, "SP0099"), Lost("refused")),
        (error(400, "SP0030", "Reference already used"), Lost("duplicate_reference")),
        (error(422, "SP0030", "Duplicate reference"), Lost("duplicate_reference")),
        (error(400, None), Lost("refused")),
        (response({"error_code": "SP0016", "response": of("pending")}), Lost("contradictory")),
        (error(401, "SP0001"), CREDENTIALS),
        (error(403, "SP0016"), CREDENTIALS),
        (error(404, "SP0027"), NotSent("no_route")),
        (error(429, "SP0016"), NotSent("rate_limited")),
        (error(500, "SP0016"), Lost("provider_error")),
        (error(302, "SP0016"), Lost("provider_error")),
        (response(b"<html>", 400), Lost("refused")),
        (response(b"<html>", 422), PayoutRefused("unsupported")),
        (response(b"", 503), Lost("provider_error")),
        (CUT, Lost("timeout")),
        (UNSENT, NotSent("refused")),
    ],
)  # fmt: skip
def test_what_send_comes_to(heard: Response | Broken, result: object) -> None:
    """After the token: a code in no table is no definite no, and not one byte sent is proof."""
    assert sent(ENTERED, heard) == result


def test_a_code_can_be_made_a_definite_no() -> None:
    """Nobody has the list of codes, so the settings can add to it."""
    facts = dict(FACTS) | {"refused_words": ("sp0099",)}
    talk = Conversation(send(PAYING, way(), KEYS, facts)).hear(ENTERED).hear(error(400, "SP0099"))
    assert talk.result == PayoutRefused("refused", "No.")


# --- ask ----------------------------------------------------------------------------------------------


def test_a_payout_is_found_by_number_and_reference() -> None:
    """Both written so that nothing gets out of its place."""
    talk = Conversation(ask(replace(PAYING, reference="po/9&x=é"), KEYS)).hear(ENTERED)
    assert talk.call == Call(
        "GET",
        f"{MERCHANT}/payout?payee_msisdn=074000011&external_reference=po%2F9%26x%3D%C3%A9",
        BEARER,
        base_url=LIVE,
    )
    nobody = Conversation(ask(replace(PAYING, payee=replace(PAYEE, number="")), KEYS))
    assert (nobody.calls, nobody.result) == ([], Unclear("no_number"))


@pytest.mark.parametrize(
    ("heard", "result"),
    [
        (found(), PayoutTold("paid", NAMES)),
        (found("success", updated_at="2026-11-21T09:00:00Z"), PayoutTold("paid", NAMES, at_ms=1_795_251_600_000)),
        (found("pending"), PayoutTold("in_transit", NAMES)),
        (found("initiated", payout_id=None, transaction_id=None), PayoutTold("in_transit")),
        (found("failed"), PayoutTold("failed", NAMES, reason="refused")),
        (found("failed", reason="Wallet full"), PayoutTold("failed", NAMES, reason="refused", words="Wallet full")),
        (found("paid"), Unclear("unknown_status")),
        (found(state=None), Unclear("unknown_status")),
        (found(external_reference="caisse-1-po-8"), Unclear("other_payout")),
        (found(amount=5001), Unclear("other_payout")),
        (found(currency="USD"), Unclear("other_payout")),
        (found(amount="x"), Unclear("bad_amount")),
        (error(404, "SP0027"), NotKnown()),
        (error(400, "sp0027"), NotKnown()),
        (error(200, "SP0027"), NotKnown()),
        (error(404, "SP0099", "SP0027"), Unclear("no_route")),
        (error(500, "SP0027"), Unclear("provider_error")),
        (error(401, "SP0027"), Unclear("credentials")),
        (error(429, "SP0027"), Unclear("rate_limited")),
        (error(404, None), Unclear("no_route")),
        (response(b"<html>SP0027", 404), Unclear("no_route")),
        (response({"payout": of("success"), "error_code": "SP0027"}, 404), Unclear("no_route")),
        (response({"payout": None}), Unclear("unreadable")),
        (response({"payout": [of("success")]}), Unclear("unreadable")),
        (response(b"{}"), Unclear("unreadable")),
        (response(b""), Unclear("unreadable")),
        (CUT, Unclear("timeout")),
        (UNSENT, Unclear("refused")),
    ],
)
def test_what_ask_comes_to(heard: Response | Broken, result: object) -> None:
    """By SHAP's own code alone is a payout not known: that sends it again."""
    assert asked(ENTERED, heard) == result


def test_what_shap_has_named_is_never_not_known() -> None:
    """Then it was taken: the number is written otherwise now, or the account is another."""
    assert asked(ENTERED, error(404, "SP0027"), paying=replace(PAYING, names=NAMES)) == Unclear("not_known")
    assert asked(ENTERED, error(404, "SP0027"), paying=replace(PAYING, names=(REFERENCE,))) == NotKnown()


# --- the float ----------------------------------------------------------------------------------------


def floats(**amounts: Any) -> Response:
    rows = [{"payment_system_name": name, "amount": amount} for name, amount in amounts.items()]
    return response({"data": rows})


def test_the_float_is_the_operator_s() -> None:
    """Each has one of its own; Moov's name ends in a number that is not the same everywhere."""
    talk = Conversation(float_(PAYEE, False, KEYS)).hear(ENTERED)
    assert talk.call == Call("GET", f"{MERCHANT}/balance", BEARER, base_url=LAB)
    assert talk.hear(floats(airtelmoney=50_000, moovmoney4=30)).result == {"XAF": 50_000}
    moov = replace(PAYEE, operator="moov")
    assert held(ENTERED, floats(airtelmoney=50_000, moovmoney1="30"), payee=moov) == {"XAF": 30}
    assert held(ENTERED, floats(moovmoney1=1, moovmoney4=2), payee=moov) == {"XAF": 2}
    assert held(ENTERED, floats(moovmoney1=1, moovmoney2=2), payee=moov) == Unclear("no_float")
    stranger = Conversation(float_(replace(PAYEE, operator=""), True, KEYS))
    assert (stranger.calls, stranger.result) == ([], Unclear("unsupported"))


@pytest.mark.parametrize(
    ("heard", "result"),
    [
        (floats(airtelmoney=0), {"XAF": 0}),
        (floats(airtelmoney=1234.56), {"XAF": 1234}),
        (floats(airtelmoney="1234.99"), {"XAF": 1234}),
        (floats(airtelmoney=-5), Unclear("bad_amount")),
        (floats(airtelmoney=-0.5), Unclear("bad_amount")),
        (floats(airtelmoney=1e300), Unclear("bad_amount")),
        (response(b'{"data":[{"payment_system_name":"airtelmoney","amount":1e-999999}]}'), Unclear("bad_amount")),
        (floats(airtelmoney="many"), Unclear("bad_amount")),
        (floats(airtelmoney=None), Unclear("bad_amount")),
        (floats(moovmoney4=5), Unclear("no_float")),
        (response({"data": []}), Unclear("no_float")),
        (response({"data": [5, {"payment_system_name": []}]}), Unclear("no_float")),
        (response({"data": {}}), Unclear("unreadable")),
        (response(b"<html>"), Unclear("unreadable")),
        (response(b"", 401), Unclear("credentials")),
        (response(b"", 404), Unclear("no_route")),
        (response(b"", 500), Unclear("provider_error")),
        (CUT, Unclear("timeout")),
    ],
)
def test_what_the_float_comes_to(heard: Response | Broken, result: object) -> None:
    """Whole francs, rounded down; what cannot be read is not nothing, it is not known."""
    assert held(ENTERED, heard) == result


# --- hostile bodies -----------------------------------------------------------------------------------

FIELDS = ("response", "payout", "data", "error_code", "payout_id", "state", "amount", "payment_system_name")
ODD = st.recursive(
    st.sampled_from([None, "", 0, -1, 1.5, 10**30, True, "\x00", "é" * 300, "success", REFERENCE, "SP0016"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(FIELDS), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(FIELDS), ODD), st.sampled_from([200, 400, 404]))
def test_nothing_that_comes_back_raises(body: Any, status: int) -> None:
    """Each conversation ends in a word of its own; without a code of SHAP's a 2xx is never proof of nothing."""
    heard = response(json.dumps(body).encode(), status)
    result = sent(ENTERED, heard)
    assert isinstance(result, PayoutTold | PayoutRefused | NotSent | Lost)
    assert not (status == 200 and "error_code" not in body and isinstance(result, NotSent | PayoutRefused))
    assert isinstance(asked(ENTERED, heard), PayoutTold | Unclear)
    assert isinstance(held(ENTERED, heard), dict | Unclear)


def test_bytes_that_are_no_answer() -> None:
    """Lost, whatever they are, and nothing learnt."""
    for name, raw in json_texts().items():
        heard = Response(200, {}, raw)
        assert isinstance(sent(ENTERED, heard), Lost), name
        assert isinstance(asked(ENTERED, heard), Unclear), name
        assert isinstance(held(ENTERED, heard), Unclear), name
