"""Paystack, asked: the requests as they go out, and what each answer and each break comes to."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.payments.facts import Kind, Reason, Source, Told
from service.providers import paystack, paystack_calls
from service.providers import paystack_wire as wire
from service.providers.base import NotFinal, NotKnown, Unclear
from service.providers.calls import (
    Accepted,
    Approve,
    Broken,
    Call,
    Channel,
    Customer,
    Declined,
    Given,
    Lost,
    NotSent,
    Otp,
    Redirect,
    Refunding,
    RefundRefused,
    Response,
    Wanted,
)
from tests.support.conversations import drive

CALLS = paystack_calls.CALLS
KEYS = {"secret_keys": (" ", "sk_live_new", "sk_live_old")}
HEADERS = {"Authorization": "Bearer sk_live_new", "Accept": "application/json"}
REFERENCE = "cx-01HAT7"
PAGE = "https://checkout.paystack.com/0peioxfhpn"
WANTED = Wanted(
    reference=REFERENCE,
    key="key-1",
    amount_minor=5000,
    currency="XOF",
    method="mobile_money",
    country="CI",
    operator="orange",
    description="Panier 12",
    return_url="https://shop.example/merci",
    callback_url="https://caisse.example/webhooks/paystack",
    payer_phone="+2250700000001",
    customer=Customer("Awa Koffi", "awa@example.com"),
    metadata={"order": "12"},
)
CARD = replace(WANTED, method="card", operator="", payer_phone="")
GIVEN = Given(REFERENCE, (REFERENCE,), 5000, "XOF", "key-2")


def channel(wanted: Wanted) -> Channel:
    found = CALLS.channel(wanted.method, wanted.currency, wanted.country, wanted.operator)
    assert found is not None
    return found


ORANGE, PAGES = channel(WANTED), channel(CARD)


def response(body: object, status: int = 200, date: str = "Sat, 21 Nov 2026 10:00:00 GMT") -> Response:
    return Response(status, {"date": date}, body if isinstance(body, bytes) else json.dumps(body).encode())


def data(http: int = 200, **it: Any) -> Response:
    return response({"status": http == 200, "message": "Charge attempted", "data": it}, http)


def charged(status: str, http: int = 200, **more: Any) -> Response:
    return data(http, **{"reference": REFERENCE, "status": status, **more})


def initialized(**more: Any) -> Response:
    return data(**{"authorization_url": PAGE, "access_code": "0peioxfhpn", "reference": REFERENCE, **more})


def error(status: int, message: str = "No.", **more: Any) -> Response:
    return response({"status": False, "message": message, **more}, status)


def verified(status: str, date: str = "Sat, 21 Nov 2026 10:00:00 GMT", **more: Any) -> Response:
    it = {
        "id": 4_099_260_516, "domain": "live", "status": status, "reference": REFERENCE, "amount": 500_000,
        "requested_amount": 500_000, "currency": "XOF", "channel": "mobile_money", "gateway_response": "Approved",
        "message": None, "created_at": "2026-11-21T09:00:00.000Z", "paid_at": None, "fees": 9750, "metadata": "",
    } | more  # fmt: skip
    return response({"status": True, "message": "Verification successful", "data": it}, date=date)


UNSENT, CUT = Broken("refused", sent=False), Broken("timeout", sent=True)


def create(*heard: Response | Broken, wanted: Wanted = WANTED, by: Channel | None = None) -> Any:
    return drive(CALLS.create(wanted, by or channel(wanted), KEYS), *heard)[1]


def asked(wanted: Wanted = WANTED) -> Call:
    return next(CALLS.create(wanted, channel(wanted), KEYS))


def otp(*heard: Response | Broken, code: str = "123456") -> tuple[list[Call], Any]:
    assert CALLS.otp is not None
    return drive(CALLS.otp(GIVEN, code, KEYS), *heard)


def fetch(*heard: Response | Broken, live: bool = True) -> Any:
    return drive(CALLS.fetch(GIVEN, live, KEYS), *heard)[1]


def refund(*heard: Response | Broken, amount: int = 2000, why: str = "") -> tuple[list[Call], Any]:
    assert CALLS.refund is not None
    return drive(CALLS.refund(GIVEN, amount, why, KEYS), *heard)


def only(said: Any) -> Any:
    told = said if isinstance(said, Told) else said.told
    [fact] = told.facts
    assert fact.source is Source.ANSWER and told.references == (REFERENCE,)
    assert told.reference == REFERENCE and fact.movement == REFERENCE
    return fact


# --- what it can do -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "currency", "country", "operator", "code", "direct"),
    [
        ("mobile_money", "XOF", "CI", "orange", "orange", True),
        ("mobile_money", "XOF", "CI", "wave", "wave", False),
        ("mobile_money", "XOF", "CI", "moov", "", False),  # no documented code: Paystack's page may know it
        ("mobile_money", "GHS", "GH", "airtel", "atl", True),
        ("mobile_money", "KES", "KE", "mpesa", "mpesa", True),
        ("mobile_money", "GHS", "", "", "", False),
        ("card", "NGN", "NG", "", "", False),
    ],
)
def test_the_way_that_fits(method: Any, currency: str, country: str, operator: str, code: str, direct: bool) -> None:
    """The wallet's own code where there is one, Paystack's page otherwise."""
    found = CALLS.channel(method, currency, country, operator)
    assert found is not None and (found.code, found.direct) == (code, direct)


@pytest.mark.parametrize(("currency", "country"), [("XOF", "SN"), ("XAF", "CM"), ("XOF", "")])
def test_there_is_no_wallet_elsewhere(currency: str, country: str) -> None:
    """Said before anything is called."""
    assert CALLS.channel("mobile_money", currency, country, "orange") is None
    assert CALLS.cancel is None and not CALLS.idempotent


# --- what goes out ------------------------------------------------------------------------------------


def test_a_wallet_is_charged_with_these_fields() -> None:
    """The amount a hundredfold, the number as the country writes it."""
    assert asked() == Call(
        "POST",
        "/charge",
        HEADERS,
        json={
            "email": "awa@example.com",
            "amount": 500_000,
            "currency": "XOF",
            "reference": REFERENCE,
            "mobile_money": {"phone": "0700000001", "provider": "orange"},
            "metadata": {"order": "12"},
        },
    )


def test_a_page_is_asked_for_with_these_fields() -> None:
    """By the method that was chosen and no other; leaving it leads back to the shop."""
    assert asked(CARD) == Call(
        "POST",
        "/transaction/initialize",
        HEADERS,
        json={
            "email": "awa@example.com",
            "amount": 500_000,
            "currency": "XOF",
            "reference": REFERENCE,
            "callback_url": "https://shop.example/merci",
            "channels": ["card"],
            "metadata": {"order": "12", "cancel_action": "https://shop.example/merci"},
        },
    )
    hosted: Any = asked(replace(WANTED, operator="", payer_phone="")).json
    assert hosted["channels"] == ["mobile_money"] and "mobile_money" not in hosted


@pytest.mark.parametrize(
    ("number", "country", "written"),
    [
        ("+233551234987", "GH", "0551234987"),
        ("+2250700000001", "CI", "0700000001"),
        ("+254710000000", "KE", "+254710000000"),
        ("+221770000000", "CI", "+221770000000"),
        ("+233551234987", "CI", "+233551234987"),
    ],
)
def test_numbers_are_written_as_their_country_does(number: str, country: str, written: str) -> None:
    """One of another country is left as it is: the provider refuses it, or not."""
    assert wire.phone(number, country) == written


@pytest.mark.parametrize("one", CALLS.channels)
def test_every_channel_asks_in_its_currency(one: Channel) -> None:
    """Least amounts included, and what comes back is what was asked for."""
    wanted = replace(
        WANTED, method=one.method, currency=one.currency, country=one.country or "NG", amount_minor=one.min_minor
    )
    call = next(CALLS.create(wanted, one, KEYS))
    assert call.path == ("/charge" if one.code else "/transaction/initialize")
    body: Any = call.json
    told = paystack.of_charge({"status": "success", "reference": REFERENCE, **body}, Source.ANSWER)
    assert isinstance(told, Told) and told.facts[0].amount_minor == one.min_minor


@given(st.sampled_from([*wire.CARD_CURRENCIES, "KWD", "XAF"]), st.integers(1, 10**12))
def test_an_amount_comes_back_as_it_went(currency: str, amount: int) -> None:
    """What Paystack is told is read back as the same money, or is not sent."""
    units = wire.to_wire(amount, currency)
    if units is None:
        assert currency == "KWD" and amount % 10
        return
    told = paystack.of_charge({"status": "success", "reference": "a", "amount": units, "currency": currency})
    assert isinstance(told, Told) and told.facts[0].amount_minor == amount


@pytest.mark.parametrize(("currency", "minor", "units"), [("XOF", 1000, 100_000), ("NGN", 1050, 1050), ("KWD", 10, 1)])
def test_r1_the_wire_by_hand(currency: str, minor: int, units: int) -> None:
    """A table of amounts that were worked out by a person."""
    assert wire.to_wire(minor, currency) == units


@pytest.mark.parametrize(
    ("wrong", "result"),
    [
        ({"amount_minor": 0}, NotSent("amount")),
        ({"amount_minor": -1}, NotSent("amount")),
        ({"reference": "cx_01"}, NotSent("reference", alert=True)),
        ({"reference": "cx-é"}, NotSent("reference", alert=True)),
        ({"reference": "cx-1\n"}, NotSent("reference", alert=True)),
        ({"reference": ""}, NotSent("reference", alert=True)),
        ({"customer": Customer("Awa")}, NotSent("missing_email")),
        ({"payer_phone": ""}, NotSent("missing_payer_phone")),
    ],
)
def test_what_paystack_would_refuse_is_not_sent(wrong: dict[str, Any], result: object) -> None:
    """No call is made; an underscore is not in the alphabet of references."""
    assert create(wanted=replace(WANTED, **wrong), by=ORANGE) == result


def test_without_a_key_nothing_is_sent() -> None:
    """A person has to look."""
    assert drive(CALLS.create(WANTED, ORANGE, {})) == ([], NotSent("credentials", alert=True))


# --- what create comes to -----------------------------------------------------------------------------


def test_a_page_is_an_address_to_go_to() -> None:
    """The provider has it, nobody has tried to pay."""
    said = create(initialized(), wanted=CARD)
    assert said.action == Redirect(PAGE) and only(said).kind is Kind.CREATED


@pytest.mark.parametrize(
    ("answer", "kind", "action"),
    [
        (charged("send_otp", display_text="Dial *110#\nthen"), Kind.REQUIRES_ACTION, Otp("Dial *110# then")),
        (charged("send_otp"), Kind.REQUIRES_ACTION, Otp("")),
        (charged("send_otp", display_text=5), Kind.REQUIRES_ACTION, Otp("")),
        (charged("pay_offline", display_text="Approve"), Kind.REQUIRES_ACTION, Approve("Approve")),
        (charged("pay_offline", url="https://pay.wave.com/c/1"), Kind.REQUIRES_ACTION, Redirect("https://pay.wave.com/c/1")),
        (charged("pay_offline", qr_code="https://pay.wave.com/q"), Kind.REQUIRES_ACTION, Redirect("https://pay.wave.com/q")),
        (charged("open_url", url="https://standard.paystack.co/x"), Kind.REQUIRES_ACTION,
         Redirect("https://standard.paystack.co/x")),
        (charged("pending"), Kind.PENDING, None),
        (charged("pending", display_text="Wait"), Kind.PENDING, Approve("Wait")),
        (charged("send_pin"), Kind.REQUIRES_ACTION, None),
        (charged("send_birthday", display_text="When?"), Kind.REQUIRES_ACTION, None),
        (charged("queued"), Kind.PENDING, None),
        (charged("abandoned"), Kind.CREATED, None),
        (charged("success", amount=500_000, currency="XOF"), Kind.CAPTURED, None),
    ],
)  # fmt: skip
def test_what_the_payer_has_to_do(answer: Response, kind: Kind, action: object) -> None:
    """In the provider's own words."""
    said = create(answer)
    assert isinstance(said, Accepted) and said.action == action
    assert only(said).kind is kind


@pytest.mark.parametrize("url", [None, "", "http://pay.wave.com/x", "intent://pay", 5])
def test_an_address_that_nobody_can_be_sent_to(url: object) -> None:
    """The charge exists, and is asked about."""
    said = create(charged("open_url", url=url))
    assert isinstance(said, Lost) and said.reason == "unreadable" and only(said).kind is Kind.REQUIRES_ACTION
    assert create(initialized(authorization_url=url), wanted=CARD) == Lost("unreadable")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (charged("failed", message="Insufficient funds"), Reason.INSUFFICIENT_FUNDS),
        (charged("failed", gateway_response="Declined by user"), Reason.DECLINED_BY_USER),
        (charged("failed"), Reason.UNKNOWN),
        (charged("timeout"), Reason.TIMED_OUT),
        (charged("failed", 400, message="Low balance"), Reason.INSUFFICIENT_FUNDS),
    ],
)
def test_a_definite_no(answer: Response, reason: Reason) -> None:
    """Never soft: wallets have no declines that another provider could mend."""
    said = create(answer)
    assert isinstance(said, Declined) and (said.reason, said.soft) == (reason, False)
    assert (only(said).kind, only(said).reason) == (Kind.FAILED, reason)


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (error(401, "Invalid key"), NotSent("credentials", alert=True)),
        (error(400, "Invalid key"), NotSent("credentials", alert=True)),
        (error(403), NotSent("credentials", alert=True)),
        (error(404), NotSent("no_route")),
        (error(405), NotSent("no_route")),
        (error(422), NotSent("unsupported")),
        (error(429), NotSent("rate_limited")),
        (error(400, "Currency not supported by merchant", code="unsupported_currency", type="validation_error"),
         NotSent("unsupported")),
        (error(400, "Invalid Amount Sent", type="validation_error", code="invalid_params"), NotSent("invalid_request")),
        (error(400, "Duplicate Transaction Reference", type="validation_error", code="duplicate_reference"),
         Lost("duplicate_reference")),
        (error(400, "Duplicate Transaction Reference"), Lost("duplicate_reference")),
        (error(400, type="api_error"), Lost("refused")),
        (error(400, type="processor_error"), Lost("refused")),
        (error(400), Lost("refused")),
        (response(b"<html>", 400), Lost("refused")),
        (error(402), Lost("refused")),
        (error(500), Lost("provider_error")),
        (response(b"", 503), Lost("provider_error")),
        (response(b"", 302), Lost("provider_error")),
        (response(b""), Lost("unreadable")),
        (response(b"[]"), Lost("unreadable")),
        (response({"status": True, "data": []}), Lost("unreadable")),
        (response({"status": False, "message": "no"}), Lost("unreadable")),
        (UNSENT, NotSent("refused")),
        (CUT, Lost("timeout")),
    ],
)  # fmt: skip
def test_what_proves_that_nothing_was_made(answer: Response | Broken, result: object) -> None:
    """The failover table: only proof lets another provider be tried. A duplicate is the opposite of one."""
    assert create(answer) == result
    assert create(answer, wanted=CARD) == result


@pytest.mark.parametrize(
    "answer",
    [
        charged("send_otp", reference="cx-OTHER"),
        charged("pending", reference=None),
        charged("success", amount=5000, currency="XOF"),
        charged("success", amount=500_000, currency="GHS"),
        charged("pending", amount=500_100, currency="XOF"),
        charged("failed", 400, reference="cx-OTHER"),
    ],
)
def test_an_answer_about_another_payment_is_lost(answer: Response) -> None:
    """Another reference, another amount, another currency."""
    assert create(answer) == Lost("other_payment")


def test_a_page_for_another_payment_is_lost() -> None:
    """Nobody is sent to somebody else's page."""
    assert create(initialized(reference="cx-OTHER"), wanted=CARD) == Lost("other_payment")
    assert create(initialized(reference=None), wanted=CARD) == Lost("other_payment")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (charged("new_word"), "unknown_status"),
        (charged(""), "unknown_status"),
        (charged("success"), "unreadable"),
        (charged("success", amount="1.5", currency="XOF"), "unreadable"),
        (charged("pending", amount=150, currency="XOF"), "unreadable"),
    ],
)
def test_words_in_no_table_are_lost(answer: Response, reason: str) -> None:
    """Never guessed: money without its amount, half a franc, a new status."""
    assert create(answer) == Lost(reason)


def test_a_fee_on_top_is_not_another_amount() -> None:
    """`requested_amount` is what was asked for."""
    said = create(charged("success", amount=510_000, requested_amount=500_000, currency="XOF"))
    assert isinstance(said, Accepted) and only(said).amount_minor == 5000


# --- otp ----------------------------------------------------------------------------------------------


def test_a_code_is_submitted() -> None:
    """By our reference, nothing else."""
    calls, said = otp(charged("pending"))
    assert calls == [Call("POST", "/charge/submit_otp", HEADERS, json={"otp": "123456", "reference": REFERENCE})]
    assert isinstance(said, Accepted) and said.action is None and only(said).kind is Kind.PENDING


@pytest.mark.parametrize(
    "answer",
    [
        charged("send_otp", display_text="Incorrect OTP, again"),
        error(400, "Incorrect OTP, again"),
        error(400, "Incorrect OTP, again", type="validation_error", code="invalid_otp"),
    ],
)
def test_a_wrong_code_is_asked_for_again(answer: Response) -> None:
    """In the provider's words; the charge still waits."""
    said = otp(answer)[1]
    assert isinstance(said, Accepted) and said.action == Otp("Incorrect OTP, again")
    assert only(said).kind is Kind.REQUIRES_ACTION


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (charged("success", amount=5000, currency="XOF"), Lost("other_payment")),
        (charged("success", amount=500_000, currency="XOF", reference="x"), Lost("other_payment")),
        (error(400, "Transaction reference is invalid"), Lost("refused")),
        (error(401), NotSent("credentials", alert=True)),
        (error(429), NotSent("rate_limited")),
        (error(500, "Invalid OTP"), Lost("provider_error")),
        (response(b"{}"), Lost("unreadable")),
        (UNSENT, NotSent("refused")),
        (CUT, Lost("timeout")),
    ],
)
def test_what_a_code_comes_to(answer: Response | Broken, said: object) -> None:
    """A connection lost after a code is unknown: the money may be gone."""
    assert otp(answer)[1] == said


def test_a_code_can_be_the_end() -> None:
    """`failed` is definite, whatever the words."""
    for http in (200, 400):
        said = otp(charged("failed", http, message="Invalid OTP"))[1]
        assert isinstance(said, Declined) and said.reason is Reason.UNKNOWN
    paid = otp(charged("success", amount=500_000, currency="XOF"))[1]
    assert isinstance(paid, Accepted) and only(paid).kind is Kind.CAPTURED


# --- fetch and find -----------------------------------------------------------------------------------


def test_verify_is_by_reference() -> None:
    """Their name of it is the reference that we gave them."""
    call = Call("GET", f"/transaction/verify/{REFERENCE}", HEADERS)
    assert CALLS.find is not None
    assert next(CALLS.fetch(GIVEN, True, KEYS)) == next(CALLS.find(GIVEN, True, KEYS)) == call
    adopted = Given("", ("theirs/1?a=",), 5000, "XOF")
    assert next(CALLS.fetch(adopted, True, KEYS)).path == "/transaction/verify/theirs%2F1%3Fa%3D"


@pytest.mark.parametrize(("status", "kind"), [(s, k) for s, k in paystack.CHARGE.items() if s != "abandoned"])
def test_every_status_is_final_or_not(status: str, kind: Kind) -> None:
    """As the table of callbacks has it."""
    said = fetch(verified(status, paid_at="2026-11-21T09:05:00.000Z"))
    assert only(said).kind is kind and only(said).asked_minor == 5000
    assert isinstance(said, Told) is (kind in (Kind.CAPTURED, Kind.FAILED, Kind.REVERSED))
    assert isinstance(said, Told) is not isinstance(said, NotFinal)


def test_abandoned_is_believed_after_an_hour_of_paystacks_own_clock() -> None:
    """It is also what a page says that was opened a second ago, and then nobody may charge elsewhere."""
    for date in ("Sat, 21 Nov 2026 09:00:01 GMT", "Sat, 21 Nov 2026 09:59:59 GMT", "", "Sat, 21 Nvo 2026 10:00:00 GMT"):
        said = fetch(verified("abandoned", date))
        assert isinstance(said, NotFinal) and only(said).kind is Kind.CREATED
    assert isinstance(fetch(verified("abandoned", created_at=None)), NotFinal)
    said = fetch(verified("abandoned", "Sat, 21 Nov 2026 10:00:00 GMT"))
    assert isinstance(said, Told) and only(said).kind is Kind.CANCELED
    without = Response(200, {}, verified("abandoned").body)
    assert isinstance(fetch(without), NotFinal)


def test_another_amount_is_a_fact_and_no_error() -> None:
    """The rules find the mismatch: here nobody may swallow money."""
    paid = only(fetch(verified("success", amount=300_000)))
    assert (paid.amount_minor, paid.asked_minor, paid.currency) == (3000, 5000, "XOF")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (error(404, "Transaction reference not found"), NotKnown()),
        (
            error(400, "Transaction reference not found.", type="validation_error", code="transaction_not_found"),
            NotKnown(),
        ),
        (error(400, "No.", code="transaction_not_found"), NotKnown()),
        (error(404), Unclear("refused")),
        (error(404, "Endpoint not found"), Unclear("refused")),
        (response(b"<html>reference not found", 404), Unclear("refused")),
        (error(400, "Invalid key"), Unclear("credentials")),
        (error(401), Unclear("credentials")),
        (error(403), Unclear("credentials")),
        (error(429), Unclear("rate_limited")),
        (error(500, "Transaction reference not found"), Unclear("provider_error")),
        (error(200, "Transaction reference not found"), Unclear("unreadable")),
        (response(b"{}"), Unclear("unreadable")),
        (verified("success", reference="cx-OTHER"), Unclear("other_payment")),
        (verified("success", domain="test"), Unclear("test_answer_in_live")),
        (verified("new_word"), Unclear("unknown_status")),
        (verified("success", amount=None, requested_amount=None), Unclear("missing")),
        (verified("success", amount="abc"), Unclear("bad_amount")),
    ],
)
def test_what_is_asked_again(answer: Response, said: object) -> None:
    """Only Paystack's own words say that there is no such payment."""
    assert fetch(answer) == said


def test_a_test_answer_is_right_in_test() -> None:
    """The domain matters where money does."""
    assert isinstance(fetch(verified("success", domain="test"), live=False), Told)


# --- refund -------------------------------------------------------------------------------------------


def back(**more: Any) -> Response:
    it = {
        "transaction": {"id": 1_004_723_697, "reference": REFERENCE, "amount": 500_000, "currency": "XOF"},
        "status": "pending", "currency": "XOF", "amount": 200_000, "id": 3_018_284,
    } | more  # fmt: skip
    return response({"status": True, "message": "Refund has been queued for processing", "data": it})


def test_a_refund_is_asked_for() -> None:
    """A hundredfold, like everything."""
    calls, said = refund(back(), why="trop grand")
    body = {"transaction": REFERENCE, "amount": 200_000, "currency": "XOF", "merchant_note": "trop grand"}
    assert calls == [Call("POST", "/refund", HEADERS, json=body)]
    assert isinstance(said, Refunding)
    [fact] = said.told.facts
    assert (fact.kind, fact.movement, fact.amount_minor) == (Kind.REFUND_PENDING, "refund:3018284", 2000)
    assert fact.source is Source.ANSWER


@pytest.mark.parametrize(("status", "kind"), paystack.REFUND.items())
def test_a_refund_is_what_its_status_says(status: str, kind: Kind) -> None:
    """As callbacks have it."""
    said = refund(back(status=status))[1]
    assert isinstance(said, Refunding) and said.told.facts[0].kind is kind


@pytest.mark.parametrize(
    ("heard", "said"),
    [
        (error(400, "Transaction has been fully reversed"),
         RefundRefused("already_refunded", "Transaction has been fully reversed")),
        (error(400, "Amount cannot be more than x"), RefundRefused("above_the_rest", "Amount cannot be more than x")),
        (error(404, "Transaction not found"), RefundRefused("not_known", "Transaction not found")),
        (error(400, "Hm", type="validation_error"), RefundRefused("refused", "Hm")),
        (error(400, "Hm"), Lost("refused")),
        (error(400, "Hm", type="processor_error"), Lost("refused")),
        (response(b"<html>", 400), Lost("refused")),
        (error(401), NotSent("credentials", alert=True)),
        (error(400, "Invalid key"), NotSent("credentials", alert=True)),
        (error(422), RefundRefused("unsupported")),
        (error(429), NotSent("rate_limited")),
        (error(404, "Endpoint not found"), Lost("refused")),
        (error(500, "insufficient"), Lost("provider_error")),
        (response(b"{}"), Lost("unreadable")),
        (back(status="new"), Lost("unreadable")),
        (back(amount=5), Lost("unreadable")),
        (back(transaction=1641), Lost("unreadable")),
        (back(transaction={"reference": "cx-OTHER"}), Lost("other_payment")),
        (back(amount=200_100), Lost("other_payment")),
        (back(currency="GHS"), Lost("other_payment")),
        (CUT, Lost("timeout")),
        (UNSENT, NotSent("refused")),
    ],
)  # fmt: skip
def test_what_a_refund_comes_to(heard: Response | Broken, said: object) -> None:
    """Without a key a lost one is never said again."""
    assert refund(heard)[1] == said


def test_a_refund_of_nothing_is_not_asked_for() -> None:
    """And no call is made."""
    assert refund(amount=0) == ([], RefundRefused("amount"))


# --- hostile bodies -----------------------------------------------------------------------------------

RIGHT = [json.loads(answer.body) for answer in (charged("send_otp"), initialized(), verified("success"), back())]
ODD = st.recursive(
    st.sampled_from([None, "", 0, -1, 1.5, 10**30, True, "\x00", "é" * 300, "success", REFERENCE]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["status", "reference", "x"]), inner),
    max_leaves=6,
)


def bent(body: Any, draw: st.DataObject) -> Any:
    """A right answer with one thing in it wrong, at any depth."""
    if isinstance(body, dict) and body and draw.draw(st.integers(0, 3)):
        name = draw.draw(st.sampled_from(sorted(body)))
        return body | {name: bent(body[name], draw)}
    return draw.draw(ODD)


@given(st.data(), st.sampled_from([200, 400, 404, 409]))
def test_nothing_that_comes_back_raises(draw: st.DataObject, status: int) -> None:
    """Every conversation ends in a result after one answer, whatever it is told."""
    body = bent(draw.draw(st.sampled_from(RIGHT)), draw)
    raws = [json.dumps(body).encode(), b"\xff\x00", b"[" * 70_000, b'{"a":1,"a":2}', b'{"data":NaN}']
    answer = response(draw.draw(st.sampled_from(raws)), status)
    for conversation in (
        CALLS.create(WANTED, ORANGE, KEYS), CALLS.create(CARD, PAGES, KEYS), CALLS.fetch(GIVEN, True, KEYS),
        paystack_calls.otp(GIVEN, "1", KEYS), paystack_calls.refund(GIVEN, 2000, "", KEYS),
    ):  # fmt: skip
        assert drive(conversation, answer)[1] is not None
