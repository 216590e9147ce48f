"""Monetbil, paying out: one form, and what its one answer and each break comes to."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.payments import money
from service.payments.facts import Told
from service.providers.calls import OPERATORS, Broken, Call, Lost, NotSent, Response
from service.providers.monetbil_payouts import FACTS, PAYOUTS, send
from service.providers.payouts import Payee, Paying, PayoutChannel, PayoutRefused, PayoutTold, broken_payout
from tests.support.conversations import Conversation
from tests.support.corpora import json_texts

KEYS = {"service_key": ("key/1",), "service_secrets": (" ", "new", "old")}
REFERENCE, NUMBER, THEIRS = "caisse-0badcafe-po-9", "26112109301578924510", "MP261121.0930"
PAYEE = Payee("mobile_money", "XAF", "CM", "mtn", "+237670000001", name="Paul Biya")
PAYING = Paying(REFERENCE, "key-1", 5000, "XAF", PAYEE, callback_url="https://caisse.example/w", live=True)
KEPT = Told((NUMBER,), (), REFERENCE)
UNSENT, CUT = Broken("refused", sent=False), Broken("timeout", sent=True)


def way(payee: Payee = PAYEE) -> PayoutChannel:
    found = PAYOUTS.channel(payee)
    assert found is not None
    return found


def response(body: object, status: int = 200) -> Response:
    return Response(status, {}, body if isinstance(body, bytes) else json.dumps(body).encode())


def yes(status: int = 200, **more: Any) -> Response:
    return response({"success": True, "transaction": NUMBER, "message": "Done"} | more, status)


def no(message: str = "No.", status: int = 200, **more: Any) -> Response:
    return response({"success": False, "message": message} | more, status)


def sent(heard: Response | Broken, paying: Paying = PAYING) -> Any:
    talk = Conversation(send(paying, way(paying.payee), KEYS))
    try:
        return talk.hear(heard).result
    except Broken as broken:
        return broken_payout(broken, len(talk.calls))


# --- what goes out ------------------------------------------------------------------------------------


def test_the_form() -> None:
    """Our reference is the processing number; the newest secret goes along and is never shown."""
    call = Conversation(send(PAYING, way(), KEYS)).call
    assert call == Call(
        "POST",
        "/v1/payouts/withdrawal",
        {"Accept": "application/json"},
        (
            ("service_key", "key/1"),
            ("service_secret", "new"),
            ("phonenumber", "237670000001"),
            ("amount", "5000"),
            ("operator", "CM_MTNMOBILEMONEY"),
            ("processing_number", REFERENCE),
            ("payout_notification_url", "https://caisse.example/w"),
        ),
    )
    assert "new" not in repr(call) + call.shown and "key/1" not in repr(call)


def test_what_is_only_believed_can_be_set() -> None:
    """The newer path and the other name of the service's field; without an address nothing is notified."""
    facts = dict(FACTS) | {"withdrawal_path": "/payment/v1/payouts/withdrawal", "service_field": "service"}
    call = Conversation(send(replace(PAYING, callback_url=""), way(), KEYS, facts)).call
    assert call.path == "/payment/v1/payouts/withdrawal" and call.form is not None
    fields = dict(call.form)
    assert fields["service"] == "key/1" and not {"service_key", "payout_notification_url"} & set(fields)


@pytest.mark.parametrize("one", PAYOUTS.channels, ids=lambda one: one.code)
def test_every_way(one: PayoutChannel) -> None:
    """Whole francs both ways: what goes out comes back as the same money, and a part of one is refused."""
    payee = replace(PAYEE, currency=one.currency, country=one.country, operator=one.operator)
    paying = replace(PAYING, payee=payee, currency=one.currency, amount_minor=one.step_minor * 7)
    assert one.operator in OPERATORS and one.step_minor == 10 ** money.exponent(one.currency)
    form = dict(Conversation(send(paying, way(payee), KEYS)).call.form or ())
    assert (form["amount"], form["operator"]) == ("7", one.code)
    assert sent(yes(amount=form["amount"], currency=one.currency), paying).stage == "paid"
    assert sent(yes(amount=form["amount"] + "00", currency=one.currency), paying) == Lost("other_payout")
    if one.step_minor > 1:
        assert Conversation(send(replace(paying, amount_minor=751), one, KEYS)).result == PayoutRefused("amount")


def test_what_it_can_do() -> None:
    """Nothing but send: it cannot be asked, by no name, and takes no key."""
    assert (PAYOUTS.ask, PAYOUTS.finalize, PAYOUTS.float_) == (None, None, None)
    assert not PAYOUTS.idempotent and not PAYOUTS.by_name_only
    assert PAYOUTS.channel(replace(PAYEE, kind="bank")) is None
    assert PAYOUTS.channel(replace(PAYEE, operator="")) is None


@pytest.mark.parametrize(
    ("wrong", "result"),
    [
        ({"amount_minor": 0}, PayoutRefused("amount")),
        ({"amount_minor": -5}, PayoutRefused("amount")),
        ({"payee": replace(PAYEE, number="")}, PayoutRefused("bad_account")),
        ({"payee": replace(PAYEE, number="670 00 00 01")}, PayoutRefused("bad_account")),
        ({"payee": replace(PAYEE, operator="orange")}, PayoutRefused("unsupported")),
        ({"currency": "XOF"}, PayoutRefused("unsupported")),
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


@pytest.mark.parametrize("name", ["service_key", "service_secrets"])
def test_without_both_credentials_nothing_is_sent(name: str) -> None:
    """A person has to look."""
    talk = Conversation(send(PAYING, way(), {**KEYS, name: (" ",)}))
    assert (talk.calls, talk.result) == ([], NotSent("credentials", alert=True))


# --- what send comes to -------------------------------------------------------------------------------

CREDENTIALS = NotSent("credentials", alert=True)


@pytest.mark.parametrize(
    ("heard", "result"),
    [
        (yes(), PayoutTold("paid", (NUMBER,), words="Done")),
        (yes(201, success="true", operator_transaction_id=THEIRS), PayoutTold("paid", (NUMBER, THEIRS), words="Done")),
        (yes(success=1, transaction=None, message="pending"), PayoutTold("paid", (), words="pending")),
        (yes(processing_number=REFERENCE, amount="5000"), PayoutTold("paid", (NUMBER,), words="Done")),
        (yes(processing_number="caisse-1-po-8"), Lost("other_payout")),
        (yes(amount="4999"), Lost("other_payout")),
        (yes(amount="5000", currency="XOF"), Lost("other_payout")),
        (yes(amount="many"), Lost("other_payout")),
        (yes(testmode="1"), Lost("test_answer_in_live", KEPT, alert=True)),
        (yes(success=None), Lost("unknown_status", KEPT)),
        (yes(success="perhaps"), Lost("unknown_status", KEPT)),
        (yes(success=[]), Lost("unknown_status", KEPT)),
        (yes(400), Lost("contradictory", KEPT)),
        (yes(401), Lost("contradictory", KEPT)),
        (yes(422, success=None), Lost("contradictory", KEPT)),
        (no("Insufficient balance"), PayoutRefused("insufficient_float", "Insufficient balance")),
        (no(code="INVALID_MSISDN"), PayoutRefused("bad_account", "No.")),
        (no("Minimum amount is 500", 400), PayoutRefused("amount", "Minimum amount is 500")),
        (no("Operator not found"), PayoutRefused("unsupported", "Operator not found")),
        (no(), PayoutRefused("refused", "No.")),
        (no(message=""), PayoutRefused("refused")),
        (no("Insufficient balance", transaction=NUMBER),
         PayoutTold("failed", (NUMBER,), reason="insufficient_float", words="Insufficient balance")),
        (no(transaction=NUMBER), Lost("unknown_status", KEPT)),
        (no("service_key is wrong", transaction=NUMBER), Lost("unknown_status", KEPT)),
        (no("Transaction pending"), Lost("undecided")),
        (no("Operator timeout", transaction=NUMBER), Lost("undecided", KEPT)),
        (no("Duplicate withdrawal"), Lost("duplicate_reference")),
        (no("Duplicate withdrawal", 422), Lost("duplicate_reference")),
        (no(code="SERVICE_NOT_FOUND"), CREDENTIALS),
        (no("Unauthorized", 400), CREDENTIALS),
        (no("Invalid service key or secret."), CREDENTIALS),
        (response({"service_secret": ["The service secret field is required."]}, 422), CREDENTIALS),
        (response({"phonenumber": ["Wrong."]}, 422), PayoutRefused("bad_account")),
        (response({"amount": ["Wrong."]}, 422), PayoutRefused("amount")),
        (response({"operator": ["Wrong."]}, 422), PayoutRefused("unsupported")),
        (response({"processing_number": ["Taken."]}, 422), Lost("duplicate_reference")),
        (response({"x": ["Wrong."]}, 422), PayoutRefused("refused")),
        (response(b"<html>", 422), PayoutRefused("unsupported")),
        (response({"message": "amount processed"}), Lost("unknown_status")),
        (response({"message": "Wrong"}, 400), Lost("refused")),
        (response({}, 409), Lost("refused")),
        (no("Insufficient balance", 401), CREDENTIALS),
        (no(status=403), CREDENTIALS),
        (no(status=404), NotSent("no_route")),
        (no(status=405), NotSent("no_route")),
        (no(status=429), NotSent("rate_limited")),
        (no("Insufficient balance", 500), Lost("provider_error")),
        (yes(503), Lost("provider_error")),
        (no(status=302), Lost("provider_error")),
        (response(b"", 401), CREDENTIALS),
        (response(b"", 400), Lost("refused")),
        (response(b""), Lost("unreadable")),
        (response(b"[]"), Lost("unreadable")),
        (UNSENT, NotSent("refused")),
        (CUT, Lost("timeout")),
    ],
)  # fmt: skip
def test_what_send_comes_to(heard: Response | Broken, result: object) -> None:
    """Nobody can be asked afterwards, so only clear words end it; everything else is a person's."""
    assert sent(heard) == result


def test_test_money_is_right_in_test() -> None:
    """The flag matters where money does."""
    assert sent(yes(testmode="1"), replace(PAYING, live=False)).stage == "paid"


# --- hostile bodies -----------------------------------------------------------------------------------

FIELDS = (
    "success",
    "transaction",
    "operator_transaction_id",
    "message",
    "code",
    "status",
    "amount",
    "processing_number",
)
ODD = st.recursive(
    st.sampled_from([None, "", 0, -1, 1.5, 10**30, True, False, "\x00", "é" * 300, "true", REFERENCE, "Insufficient"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(FIELDS), inner),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(FIELDS), ODD), st.sampled_from([200, 400, 409]))
def test_nothing_that_comes_back_raises(body: Any, status: int) -> None:
    """It ends in a word of its own; without a `false` there is no definite end on a 2xx but `paid`."""
    result = sent(response(json.dumps(body).encode(), status))
    assert isinstance(result, PayoutTold | PayoutRefused | NotSent | Lost)
    if status == 200 and body.get("success") not in (False, 0, "0", "false"):
        assert isinstance(result, Lost) or (isinstance(result, PayoutTold) and result.stage == "paid")


def test_bytes_that_are_no_answer() -> None:
    """Lost, whatever they are."""
    for name, raw in json_texts().items():
        assert isinstance(sent(Response(200, {}, raw)), Lost), name
