"""Moneroo, paying out: the request as it goes out, and what each answer and each break comes to."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.payments import money
from service.payments.facts import Told
from service.providers.base import Unclear
from service.providers.calls import OPERATORS, Broken, Call, Lost, NotSent, Response
from service.providers.moneroo_payouts import FACTS, PAYOUTS, send
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

KEYS = {"secret_key": (" ", "pvk_one", "pvk_old")}
HEADERS = {"Authorization": "Bearer pvk_one", "Accept": "application/json"}
REFERENCE, NUMBER = "caisse-0badcafe-po-9", "k4su1ii7"
PAYEE = Payee("mobile_money", "XOF", "BJ", "mtn", "+22951345020", name="Awa Koffi Mensah")
PAYING = Paying(REFERENCE, "key-1", 5000, "XOF", PAYEE, "Ventes de mai", "https://caisse.example/w", live=True)
ASKED = replace(PAYING, names=(REFERENCE, NUMBER))
KEPT = Told((NUMBER,), (), REFERENCE)


def way(payee: Payee = PAYEE) -> PayoutChannel:
    found = PAYOUTS.channel(payee)
    assert found is not None
    return found


def response(body: object, status: int = 201) -> Response:
    return Response(status, {}, body if isinstance(body, bytes) else json.dumps(body).encode())


def made(http: int = 201, **more: Any) -> Response:
    return response({"success": True, "message": "Payout initialized", "data": {"id": NUMBER} | more}, http)


def error(status: int, message: str = "No.", **more: Any) -> Response:
    return response({"message": message, "data": None, "errors": None} | more, status)


def verified(status: str, **more: Any) -> Response:
    data = {
        "id": NUMBER, "status": status, "amount": 5000, "currency": {"code": "XOF", "decimals": 0},
        "environment": "live", "metadata": {"reference": REFERENCE}, "disburse": {"failure_message": None},
        "failed_at": None, "pending_at": "2026-11-21T09:00:00.000000Z", "success_at": "2026-11-21T09:00:05.000000Z",
    } | more  # fmt: skip
    return response({"message": "ok", "data": data, "errors": None}, 200)


UNSENT, CUT = Broken("refused", sent=False), Broken("timeout", sent=True)


def ended(conversation: Any, heard: Response | Broken, broken: Callable[..., Any]) -> Any:
    """What one answer comes to, as the client would have it."""
    talk = Conversation(conversation)
    try:
        return talk.hear(heard).result
    except Broken as one:
        return broken(one, len(talk.calls))


def sent(heard: Response | Broken, paying: Paying = PAYING) -> Any:
    return ended(send(paying, way(paying.payee), KEYS), heard, broken_payout)


def asked(heard: Response | Broken, paying: Paying = ASKED) -> Any:
    assert PAYOUTS.ask is not None
    return ended(PAYOUTS.ask(paying, KEYS), heard, broken_asking)


# --- what goes out ------------------------------------------------------------------------------------


def test_the_request() -> None:
    """Every field; the number without its plus, our reference where verify gives it back."""
    assert Conversation(send(PAYING, way(), KEYS)).call == Call(
        "POST",
        "/v1/payouts/initialize",
        HEADERS,
        json={
            "amount": 5000,
            "currency": "XOF",
            "description": "Ventes de mai",
            "customer": {
                "email": "beneficiary@caisse.invalid",
                "first_name": "Awa",
                "last_name": "Koffi Mensah",
            },
            "metadata": {"reference": REFERENCE},
            "method": "mtn_bj",
            "recipient": {"msisdn": "22951345020"},
        },
    )


@pytest.mark.parametrize(
    ("name", "first", "last"), [("", "Client", "Client"), (" Awa ", "Awa", "Awa"), ("Awa  Koffi", "Awa", "Koffi")]
)
def test_both_names_are_there(name: str, first: str, last: str) -> None:
    """As in what is asked of payers: one word stands for both, nobody is a client."""
    body: Any = Conversation(send(replace(PAYING, payee=replace(PAYEE, name=name)), way(), KEYS)).call.json
    assert (body["customer"]["first_name"], body["customer"]["last_name"]) == (first, last)


def test_an_e_mail_is_nobody_s_unless_it_is_set() -> None:
    """A payee has none. One that is made up must not be able to reach anybody; a merchant's own can be set."""
    email = str(FACTS["customer_email"])
    assert email.endswith(".invalid")
    facts = dict(FACTS) | {"customer_email": "paie@shop.example", "msisdn_as_number": 1}
    body: Any = Conversation(send(replace(PAYING, description=""), way(), KEYS, facts)).call.json
    assert body["customer"]["email"] == "paie@shop.example" and body["recipient"] == {"msisdn": 22951345020}
    assert body["description"] == REFERENCE


@pytest.mark.parametrize("one", PAYOUTS.channels, ids=lambda one: one.code)
def test_every_way(one: PayoutChannel) -> None:
    """Whole major units both ways: what goes out comes back as the same money, and less than one unit is refused."""
    payee = replace(PAYEE, currency=one.currency, country=one.country, operator=one.operator)
    paying = replace(PAYING, payee=payee, currency=one.currency, amount_minor=one.step_minor * 7, names=(NUMBER,))
    assert one.operator in OPERATORS and one.step_minor == 10 ** money.exponent(one.currency)
    body: Any = Conversation(send(paying, way(payee), KEYS)).call.json
    assert (body["amount"], body["currency"], body["method"]) == (7, one.currency, one.code)
    told = asked(verified("success", amount=body["amount"], currency=one.currency), paying)
    assert isinstance(told, PayoutTold) and told.stage == "paid"
    other = asked(verified("success", amount=body["amount"] * 100, currency=one.currency), paying)
    assert other == Unclear("other_payout")
    if one.step_minor > 1:
        assert Conversation(send(replace(paying, amount_minor=751), one, KEYS)).result == PayoutRefused("amount")


def test_what_it_can_do() -> None:
    """Asked by its own id alone, never sent twice, no float to ask for."""
    assert (PAYOUTS.by_name_only, PAYOUTS.idempotent, PAYOUTS.finalize, PAYOUTS.float_) == (True, False, None, None)
    for nobody in (replace(PAYEE, country="BF"), replace(PAYEE, operator="wave"), replace(PAYEE, kind="bank")):
        assert PAYOUTS.channel(nobody) is None


@pytest.mark.parametrize(
    ("wrong", "result"),
    [
        ({"amount_minor": 0}, PayoutRefused("amount")),
        ({"amount_minor": -5}, PayoutRefused("amount")),
        ({"payee": replace(PAYEE, number="")}, PayoutRefused("bad_account")),
        ({"payee": replace(PAYEE, number="+229 51 34")}, PayoutRefused("bad_account")),
        ({"payee": replace(PAYEE, country="CI")}, PayoutRefused("unsupported")),
        ({"payee": replace(PAYEE, kind="bank")}, PayoutRefused("unsupported")),
        ({"currency": "XAF"}, PayoutRefused("unsupported")),
    ],
)
def test_what_is_not_sent(wrong: dict[str, Any], result: object) -> None:
    """No call is made."""
    talk = Conversation(send(replace(PAYING, **wrong), way(), KEYS))
    assert (talk.calls, talk.result) == ([], result)


def test_limits() -> None:
    """Those of the way, both ends included."""
    narrow = replace(way(), min_minor=100, max_minor=1000, step_minor=5)
    for amount, fits in ((99, False), (100, True), (104, False), (1000, True), (1005, False)):
        talk = Conversation(send(replace(PAYING, amount_minor=amount), narrow, KEYS))
        assert (talk.result is None) is fits
        assert fits or talk.result == PayoutRefused("amount")


def test_without_a_right_key_nothing_is_sent() -> None:
    """Nor with a test's key for live money; a test account may use it."""
    wrong = NotSent("credentials", alert=True)
    test = {"secret_key": ("pvk_sandbox_1",)}
    assert Conversation(send(PAYING, way(), {})).result == wrong
    assert Conversation(send(PAYING, way(), test)).result == wrong
    assert Conversation(send(replace(PAYING, live=False), way(), test)).result is None


# --- what send comes to -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heard", "result"),
    [
        (made(), PayoutTold("in_transit", (NUMBER,))),
        (made(200), PayoutTold("in_transit", (NUMBER,))),
        (made(status="initiated", amount=5000, currency="XOF"), PayoutTold("in_transit", (NUMBER,))),
        (made(status="success"), PayoutTold("paid", (NUMBER,))),
        (made(status="new_word"), PayoutTold("in_transit", (NUMBER,))),
        (
            made(status="failed", disburse={"failure_message": "Recipient not found"}),
            PayoutTold("failed", (NUMBER,), reason="bad_account", words="Recipient not found"),
        ),
        (made(environment="sandbox"), Lost("test_answer_in_live", KEPT, alert=True)),
        (made(amount=500_000), Lost("other_payout")),
        (made(amount=5000, currency={"code": "XAF"}), Lost("other_payout")),
        (made(amount="5 000"), Lost("bad_amount", KEPT)),
        (made(currency=[1]), Lost("bad_currency", KEPT)),
        (made(metadata={"reference": "caisse-1-po-8"}), Lost("other_payout")),
        (made(id=None), Lost("unreadable")),
        (response({"success": False, "data": {"id": NUMBER}}), Lost("contradictory", KEPT)),
        (response({"message": "ok"}), Lost("unreadable")),
        (response({"data": []}), Lost("unreadable")),
        (response(b""), Lost("unreadable")),
        (response(b"<html>"), Lost("unreadable")),
        (error(401), NotSent("credentials", alert=True)),
        (error(403), NotSent("credentials", alert=True)),
        (error(404), NotSent("no_route")),
        (error(405), NotSent("no_route")),
        (error(429), NotSent("rate_limited")),
        (error(400, "The amount must be at least 100."),
         PayoutRefused("amount", "The amount must be at least 100.")),
        (error(400, "Bad request"), PayoutRefused("refused", "Bad request")),
        (error(422, "Insufficient balance for this payout method"),
         PayoutRefused("insufficient_float", "Insufficient balance for this payout method")),
        (error(422, "Invalid.", errors=[{"field": "recipient.msisdn", "message": "Invalid."}]),
         PayoutRefused("bad_account", "Invalid.")),
        (error(422, "Invalid.", errors={"method": ["No such one."]}), PayoutRefused("unsupported", "Invalid.")),
        (error(422, "Invalid.", errors=["The currency is wrong."]), PayoutRefused("unsupported", "Invalid.")),
        (error(422, "This payout is already there."), Lost("duplicate_reference")),
        (response(b"<html>", 422), PayoutRefused("refused")),
        (response(b"<html>", 400), Lost("refused")),
        (error(400, ""), Lost("refused")),
        (error(422, data={"id": NUMBER}), Lost("contradictory", KEPT)),
        (error(401, data={"id": NUMBER}), Lost("contradictory", KEPT)),
        (error(409), Lost("refused")),
        (error(402, "Insufficient balance"), Lost("refused")),
        (error(500, "Insufficient balance"), Lost("provider_error")),
        (error(503), Lost("provider_error")),
        (response(b"", 302), Lost("provider_error")),
        (UNSENT, NotSent("refused")),
        (CUT, Lost("timeout")),
    ],
)  # fmt: skip
def test_what_send_comes_to(heard: Response | Broken, result: object) -> None:
    """Not sent and refused are proofs; with anything else somebody may have been paid."""
    assert sent(heard) == result


def test_test_money_is_right_in_test() -> None:
    """The environment matters where money does."""
    told = sent(made(environment="sandbox"), replace(PAYING, live=False))
    assert told == PayoutTold("in_transit", (NUMBER,))


# --- ask ----------------------------------------------------------------------------------------------


def test_verify_is_by_moneroo_s_own_id() -> None:
    """Ours is not one; nothing from outside gets out of its place in the path."""
    assert PAYOUTS.ask is not None
    assert Conversation(PAYOUTS.ask(ASKED, KEYS)).call == Call("GET", f"/v1/payouts/{NUMBER}/verify", HEADERS)
    odd = Conversation(PAYOUTS.ask(replace(PAYING, names=("../payments/1?a=",)), KEYS)).call
    assert odd.path == "/v1/payouts/..%2Fpayments%2F1%3Fa%3D/verify"
    for names in ((), (REFERENCE,)):
        talk = Conversation(PAYOUTS.ask(replace(PAYING, names=names), KEYS))
        assert (talk.calls, talk.result) == ([], Unclear("not_named"))


@pytest.mark.parametrize(
    ("heard", "result"),
    [
        (verified("success"), PayoutTold("paid", (NUMBER,), at_ms=1_795_251_605_000)),
        (verified("pending"), PayoutTold("in_transit", (NUMBER,), at_ms=1_795_251_600_000)),
        (verified("initiated"), PayoutTold("in_transit", (NUMBER,))),
        (verified("success", amount="5000.00", success_at=None), PayoutTold("paid", (NUMBER,))),
        (verified("success", amount=None, success_at=5), PayoutTold("paid", (NUMBER,))),
        (verified("failed", disburse={"failure_message": "Low balance"}),
         PayoutTold("failed", (NUMBER,), reason="insufficient_float", words="Low balance")),
        (verified("failed", disburse={"failure_message": "Already failed"}),
         PayoutTold("failed", (NUMBER,), reason="refused", words="Already failed")),
        (verified("failed", disburse=[]), PayoutTold("failed", (NUMBER,), reason="refused")),
        (verified("cancelled"), Unclear("unknown_status")),
        (verified(""), Unclear("unknown_status")),
        (verified("success", id="other"), Unclear("other_payout")),
        (verified("success", metadata={"reference": "caisse-1-po-8"}), Unclear("other_payout")),
        (verified("success", amount=5001), Unclear("other_payout")),
        (verified("success", currency="XAF"), Unclear("other_payout")),
        (verified("success", amount=-1), Unclear("bad_amount")),
        (verified("success", environment="sandbox"), Unclear("test_answer_in_live")),
        (error(404, "Payout not found"), Unclear("not_known")),
        (response(b"<html>", 404), Unclear("not_known")),
        (error(401), Unclear("credentials")),
        (error(429), Unclear("rate_limited")),
        (error(400), Unclear("refused")),
        (error(500), Unclear("provider_error")),
        (response(b"{}", 200), Unclear("unreadable")),
        (response(b"[]", 200), Unclear("unreadable")),
        (CUT, Unclear("timeout")),
        (UNSENT, Unclear("refused")),
    ],
)  # fmt: skip
def test_what_verify_comes_to(heard: Response | Broken, result: object) -> None:
    """An id that Moneroo gave us is never "not known": who believed that would pay again."""
    assert asked(heard) == result


# --- hostile bodies -----------------------------------------------------------------------------------

ODD = st.recursive(
    st.sampled_from([None, "", 0, -1, 1.5, 10**30, True, "\x00", "é" * 300, "success", REFERENCE, NUMBER]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "status", "data", "message"]), inner)
    ),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from(["data", "message", "errors", "success"]), ODD), st.sampled_from([201, 400, 422])
)
def test_nothing_that_comes_back_raises(body: Any, status: int) -> None:
    """Each conversation ends in a word of its own; a 2xx is never proof that nothing was paid."""
    heard = response(json.dumps(body).encode(), status)
    result = sent(heard)
    assert isinstance(result, PayoutTold | PayoutRefused | NotSent | Lost)
    assert not (status == 201 and isinstance(result, NotSent | PayoutRefused))
    assert isinstance(asked(heard), PayoutTold | Unclear)


def test_bytes_that_are_no_answer() -> None:
    """Lost, whatever they are, and nothing learnt."""
    for name, raw in json_texts().items():
        assert isinstance(sent(Response(201, {}, raw)), Lost), name
        assert isinstance(asked(Response(200, {}, raw)), Unclear), name
