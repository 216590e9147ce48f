"""Stripe, asked: the requests as they go out, and what each answer and each break comes to."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stripe._encode import _api_encode

from service.payments.facts import Kind, Reason, Source, Told
from service.providers import stripe, stripe_calls
from service.providers import stripe_wire as wire
from service.providers.base import NotFinal, NotKnown, Unclear
from service.providers.calls import (
    Accepted,
    Broken,
    Call,
    Channel,
    Confirm,
    Customer,
    Given,
    Lost,
    NotCanceled,
    NotSent,
    Redirect,
    Refunding,
    RefundRefused,
    Response,
    Wanted,
)
from tests.support.conversations import drive

CALLS = stripe_calls.CALLS
KEYS = {"secret_key": ("", "sk_live_new", "sk_live_old")}
REFERENCE, CS, PI, CH = "cx-01HAT7", "cs_live_a1Panier", "pi_Panier", "ch_Panier"
PAGE = f"https://checkout.stripe.com/c/pay/{CS}#fid"
SECRET = f"{PI}_secret_zz"
HEADERS = {"Authorization": "Bearer sk_live_new", "Stripe-Version": "2026-06-24.dahlia"}
KEYED = HEADERS | {"Idempotency-Key": "key-1"}
WANTED = Wanted(
    reference=REFERENCE,
    key="key-1",
    amount_minor=5000,
    currency="XOF",
    method="card",
    country="CI",
    operator="",
    description="Panier 12",
    return_url="https://shop.example/merci?s={CHECKOUT_SESSION_ID}",
    callback_url="https://caisse.example/webhooks/stripe",
    customer=Customer("Awa Koffi", "awa@example.com"),
    metadata={"order": "12"},
)
GIVEN = Given(REFERENCE, (REFERENCE, PI, CS), 5000, "XOF", "key-2")
ONLY_INTENT = replace(GIVEN, references=(REFERENCE, PI))


def channel(currency: str = "XOF", code: str = wire.CHECKOUT) -> Channel:
    return next(c for c in (*CALLS.channels, *stripe_calls.INTENTS) if (c.currency, c.code) == (currency, code))


PAGE_CHANNEL, SECRET_CHANNEL = channel(), channel(code=wire.INTENT)


def response(body: object, status: int = 200) -> Response:
    return Response(status, {}, body if isinstance(body, bytes) else json.dumps(body).encode())


def error(status: int, type_: str = "invalid_request_error", code: str | None = None, **more: Any) -> Response:
    return response({"error": {"type": type_, "code": code, "message": "No.", **more}}, status)


def session(**more: Any) -> dict[str, Any]:
    return {
        "id": CS, "object": "checkout.session", "mode": "payment", "status": "open", "payment_status": "unpaid",
        "payment_intent": None, "amount_total": 5000, "currency": "xof", "client_reference_id": REFERENCE,
        "metadata": {"reference": REFERENCE, "order": "12"}, "payment_method_types": ["card"], "url": PAGE,
        "client_secret": None, "livemode": True, "expires_at": 1_795_000_000,
    } | more  # fmt: skip


def intent(**more: Any) -> dict[str, Any]:
    return {
        "id": PI, "object": "payment_intent", "status": "requires_payment_method", "amount": 5000, "currency": "xof",
        "amount_received": 0, "amount_capturable": 0, "client_secret": SECRET, "latest_charge": None,
        "metadata": {"reference": REFERENCE}, "payment_method_types": ["card"], "livemode": True, "canceled_at": None,
    } | more  # fmt: skip


def charge(**more: Any) -> dict[str, Any]:
    return {
        "id": CH, "object": "charge", "status": "succeeded", "captured": True, "amount": 5000, "currency": "xof",
        "amount_captured": 5000, "amount_refunded": 0, "payment_intent": PI, "created": 1_794_000_000,
        "metadata": {}, "payment_method_details": {"type": "card"},
    } | more  # fmt: skip


PAID = charge()
SUCCEEDED = intent(status="succeeded", amount_received=5000, latest_charge=PAID)
UNSENT, CUT = Broken("refused", sent=False), Broken("timeout", sent=True)


def create(*heard: Response | Broken, wanted: Wanted = WANTED, by: Channel = PAGE_CHANNEL) -> Any:
    return drive(CALLS.create(wanted, by, KEYS), *heard)[1]


def asked(wanted: Wanted = WANTED, by: Channel = PAGE_CHANNEL) -> Call:
    return next(CALLS.create(wanted, by, KEYS))


def fetch(*heard: Response | Broken, of: Given = GIVEN, live: bool = True) -> Any:
    return drive(CALLS.fetch(of, live, KEYS), *heard)[1]


def find(*heard: Response | Broken) -> tuple[list[Call], Any]:
    assert CALLS.find is not None
    return drive(CALLS.find(replace(GIVEN, references=(REFERENCE,)), True, KEYS), *heard)


def cancel(*heard: Response | Broken, of: Given = GIVEN) -> tuple[list[Call], Any]:
    assert CALLS.cancel is not None
    return drive(CALLS.cancel(of, KEYS), *heard)


def refund(*heard: Response | Broken, of: Given = GIVEN, amount: int = 2000, why: str = "") -> tuple[list[Call], Any]:
    assert CALLS.refund is not None
    return drive(CALLS.refund(of, amount, why, KEYS), *heard)


def kinds(said: Any) -> set[Kind]:
    told = said if isinstance(said, Told) else said.told
    assert all(fact.source is Source.ANSWER for fact in told.facts)
    return {fact.kind for fact in told.facts}


# --- what goes out ------------------------------------------------------------------------------------


def test_a_session_is_asked_for_with_these_fields() -> None:
    """A form with Stripe's nesting, our reference in three places, and the attempt's key."""
    call = asked(replace(WANTED, expires_at_ms=1_795_000_000_999))
    assert (call.method, call.path, dict(call.headers), call.json) == ("POST", "/v1/checkout/sessions", KEYED, None)
    assert call.form == (
        ("mode", "payment"),
        ("payment_method_types[0]", "card"),
        ("line_items[0][price_data][currency]", "xof"),
        ("line_items[0][price_data][unit_amount]", "5000"),
        ("line_items[0][price_data][product_data][name]", "Panier 12"),
        ("line_items[0][quantity]", "1"),
        ("client_reference_id", REFERENCE),
        ("success_url", "https://shop.example/merci?s={CHECKOUT_SESSION_ID}"),
        ("cancel_url", "https://shop.example/merci?s={CHECKOUT_SESSION_ID}"),
        ("customer_email", "awa@example.com"),
        ("locale", "fr"),
        ("expires_at", "1795000000"),
        ("metadata[reference]", REFERENCE),
        ("metadata[order]", "12"),
        ("payment_intent_data[description]", "Panier 12"),
        ("payment_intent_data[metadata][reference]", REFERENCE),
        ("payment_intent_data[metadata][order]", "12"),
    )


@pytest.mark.parametrize(("locale", "written"), [("fr", "fr"), ("en", "en"), ("wo", "auto"), ("", "auto")])
def test_the_page_is_in_a_language_that_stripe_has(locale: str, written: str) -> None:
    """Another one would be refused; then the payer's browser says."""
    assert ("locale", written) in (asked(replace(WANTED, locale=locale)).form or ())


def test_an_intent_is_asked_for_with_these_fields() -> None:
    """By card only, like the page: the same money by the same methods."""
    call = asked(replace(WANTED, customer=Customer(), description=" "), SECRET_CHANNEL)
    assert (call.method, call.path, dict(call.headers)) == ("POST", "/v1/payment_intents", KEYED)
    assert call.form == (
        ("amount", "5000"),
        ("currency", "xof"),
        ("payment_method_types[0]", "card"),
        ("description", REFERENCE),
        ("metadata[reference]", REFERENCE),
        ("metadata[order]", "12"),
    )


@pytest.mark.parametrize("currency", wire.CURRENCIES)
@pytest.mark.parametrize("code", [wire.CHECKOUT, wire.INTENT])
def test_every_channel_asks_in_its_currency(currency: str, code: str) -> None:
    """The least and the most that a channel names can be asked for, and arrive as what they were."""
    one = channel(currency, code)
    assert one.max_minor is not None and one.max_minor % one.step_minor == 0
    for amount in (one.min_minor, one.max_minor):
        fields = dict(asked(replace(WANTED, currency=currency, amount_minor=amount), one).form or ())
        units = int(fields.get("amount") or fields["line_items[0][price_data][unit_amount]"])
        given_ = {"amount_total": units, "amount": units, "currency": currency.lower()}
        answer = response((session if code == wire.CHECKOUT else intent)(**given_))
        said = create(answer, wanted=replace(WANTED, currency=currency, amount_minor=amount), by=one)
        assert isinstance(said, Accepted) and said.told.facts[0].asked_minor == amount
    assert create(wanted=replace(WANTED, currency=currency, amount_minor=one.max_minor * 1000), by=one) == NotSent(
        "amount"
    )


@given(st.sampled_from([*wire.CURRENCIES, "CLP", "KWD", "CLF"]), st.integers(1, 10**10))
def test_an_amount_comes_back_as_it_went(currency: str, amount: int) -> None:
    """What Stripe is told is read back as the same money, or is not sent."""
    units = wire.to_wire(amount, currency)
    if units is not None:
        told = stripe_calls.read(intent(amount=units, currency=currency.lower()))
        assert isinstance(told, Told) and told.facts[0].asked_minor == amount


@pytest.mark.parametrize(
    ("currency", "minor", "units"),
    [("XOF", 1000, 1000), ("EUR", 1050, 1050), ("UGX", 1000, 100_000), ("MGA", 100_000, 1000), ("TND", 1500, 1500)],
)
def test_r1_the_wire_by_hand(currency: str, minor: int, units: int) -> None:
    """A table of amounts that were worked out by a person."""
    assert wire.to_wire(minor, currency) == units


@pytest.mark.parametrize(("currency", "minor"), [("MGA", 150), ("XOF", 0), ("XOF", -5), ("XOF", 10**8), ("UGX", 10**6)])
def test_what_cannot_be_charged_is_not_sent(currency: str, minor: int) -> None:
    """Nothing is rounded, and no call is made."""
    by = channel(currency)
    assert create(wanted=replace(WANTED, currency=currency, amount_minor=minor), by=by) == NotSent("amount")


Json = st.recursive(
    st.text("ab[]é", min_size=1) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz", min_size=1), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text("xyz", min_size=1), Json, max_size=3))
def test_forms_are_nested_as_the_official_library_does(fields: dict[str, Any]) -> None:
    """The oracle is stripe-python's own encoder."""
    assert wire.form(fields | {"nothing": None}) == tuple((k, str(v)) for k, v in _api_encode(fields))


def test_notes_fit_what_stripe_takes() -> None:
    """Fifty, short names, no brackets; the merchant's own `reference` does not become ours."""
    notes = {"reference": "theirs", "a[b]": "1", "k" * 41: "1", "long": "x" * 501, "empty": ""}
    fields = dict(asked(replace(WANTED, metadata=notes | {f"n{i}": "v" for i in range(80)})).form or ())
    kept = [name for name in fields if name.startswith("metadata[")]
    assert fields["metadata[reference]"] == REFERENCE
    assert len(kept) == 50 and not any(word in name for name in kept for word in ("a[b", "kkk", "long", "empty"))


def test_without_a_key_nothing_is_sent() -> None:
    """A person has to look."""
    assert drive(CALLS.create(WANTED, PAGE_CHANNEL, {"secret_key": (" ",)})) == ([], NotSent("credentials", alert=True))


# --- what create comes to -----------------------------------------------------------------------------


def test_a_session_is_an_address_to_go_to() -> None:
    """The provider has it, nobody has tried to pay."""
    said = create(response(session()))
    assert said.action == Redirect(PAGE) and kinds(said) == {Kind.CREATED}
    assert (said.told.references, said.told.reference) == ((CS,), REFERENCE)
    assert said.told.facts[0].asked_minor == 5000 and said.told.facts[0].currency == "XOF"
    assert create(response(session(payment_intent=PI))).told.references == (PI, CS)


def test_an_intent_is_a_secret() -> None:
    """The merchant's own page uses it; there is no address, and it is in no repr."""
    said = create(response(intent()), by=SECRET_CHANNEL)
    assert said.action == Confirm(SECRET) and said.told.references == (PI,)
    assert SECRET not in repr(said)
    for wrong in (None, "", 5, "pi_Panier", f"{SECRET}\n"):
        said = create(response(intent(client_secret=wrong)), by=SECRET_CHANNEL)
        assert isinstance(said, Lost) and said.told is not None


@pytest.mark.parametrize("url", [None, "", "http://checkout.stripe.com/x", "javascript:alert(1)", "https://a@b.c/", 5])
def test_a_session_without_an_address_is_lost_with_its_name(url: object) -> None:
    """It exists, so its name is kept; nobody is sent anywhere else."""
    said = create(response(session(url=url)))
    assert isinstance(said, Lost) and said.reason == "unreadable"
    assert said.told is not None and said.told.references == (CS,)


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (error(401, code="api_key_expired"), NotSent("credentials", alert=True)),
        (error(403), NotSent("credentials", alert=True)),
        (error(404), NotSent("no_route")),
        (error(405), NotSent("no_route")),
        (error(422), NotSent("unsupported")),
        (error(429, code="lock_timeout"), NotSent("rate_limited")),
        (error(400, code="rate_limit"), NotSent("rate_limited")),
        (error(400, code="amount_too_small"), NotSent("amount")),
        (error(400, code="testmode_charges_only"), NotSent("account_not_activated", alert=True)),
        (error(400, code="parameter_missing"), NotSent("invalid_request")),
        (error(400), NotSent("invalid_request")),
        (error(400, "idempotency_error"), Lost("idempotency_error")),
        (error(400, "api_error"), Lost("refused")),
        (error(400, "card_error", "card_declined"), Lost("refused")),
        (response(b"<html>", 400), Lost("refused")),
        (response({"error": "no"}, 400), Lost("refused")),
        (error(402, "card_error", "card_declined"), Lost("refused")),
        (error(409, "idempotency_error", "idempotency_key_in_use"), Lost("refused")),
        (error(500, "api_error"), Lost("provider_error")),
        (response(b"", 503), Lost("provider_error")),
        (response(b"", 302), Lost("provider_error")),
        (response(b"", 200), Lost("unreadable")),
        (response(b"[]", 200), Lost("unreadable")),
        (response(session(), 500), Lost("provider_error")),
        (UNSENT, NotSent("refused")),
        (CUT, Lost("timeout")),
    ],
)
def test_what_proves_that_nothing_was_made(answer: Response | Broken, result: object) -> None:
    """The failover table: only proof lets another provider be tried."""
    for by in (PAGE_CHANNEL, SECRET_CHANNEL):
        assert create(answer, by=by) == result


@pytest.mark.parametrize(
    "other",
    [
        {"client_reference_id": "cx-OTHER"},
        {"client_reference_id": None, "metadata": {}},
        {"amount_total": 5001},
        {"currency": "xaf"},
        {"object": "payment_intent", "status": "requires_payment_method", "amount": 5000},
        {"id": "cs_x", "client_reference_id": "cx-01HAT7 "},
    ],
)
def test_an_answer_about_another_payment_is_lost(other: dict[str, Any]) -> None:
    """Nobody is sent to somebody else's page."""
    assert create(response(session(**other))) == Lost("other_payment")


@pytest.mark.parametrize(
    "other", [{"amount": 500}, {"currency": "eur"}, {"metadata": {"reference": "x"}}, {"metadata": {}}]
)
def test_an_intent_of_another_payment_is_lost(other: dict[str, Any]) -> None:
    """The same for the secret."""
    assert create(response(intent(**other)), by=SECRET_CHANNEL) == Lost("other_payment")


@pytest.mark.parametrize(
    "other", [{"status": "new"}, {"mode": "setup"}, {"amount_total": "1.5"}, {"currency": 7}, {"id": None}]
)
def test_words_in_no_table_are_lost(other: dict[str, Any]) -> None:
    """Never guessed."""
    assert create(response(session(**other))) == Lost("unreadable")


def test_a_repeated_key_may_bring_back_what_is_paid_by_now() -> None:
    """Then nobody has to go anywhere."""
    said = create(response(session(status="complete", payment_status="paid", payment_intent=PI, url=None)))
    assert isinstance(said, Accepted) and said.action is None and kinds(said) == {Kind.CAPTURED}


# --- the lifetime -------------------------------------------------------------------------------------

LASTING = replace(WANTED, expires_at_ms=1_795_000_000_000)
TOO_SOON = error(400, code=None, param="expires_at")


def test_a_lifetime_that_stripe_refuses_is_left_to_stripe() -> None:
    """Less than thirty minutes when it arrives: nothing was made, and the second request has a key of its own."""
    calls, said = drive(CALLS.create(LASTING, PAGE_CHANNEL, KEYS), TOO_SOON, response(session()))
    assert isinstance(said, Accepted)
    assert [dict(call.headers)["Idempotency-Key"] for call in calls] == ["key-1", "key-1-lasting"]
    first, second = (dict(call.form or ()) for call in calls)
    assert first.pop("expires_at") == "1795000000" and first == second
    assert create(TOO_SOON) == NotSent("invalid_request")  # nothing was asked, so nothing is asked again
    assert create(error(400, "idempotency_error", param="expires_at"), wanted=LASTING) == Lost("idempotency_error")


@pytest.mark.parametrize(
    ("second", "result"),
    [(UNSENT, NotSent("refused")), (CUT, Lost("timeout")), (error(500), Lost("provider_error")),
     (TOO_SOON, NotSent("invalid_request"))],
)  # fmt: skip
def test_the_second_request_breaks(second: Response | Broken, result: object) -> None:
    """The first one is proven to have made nothing, so the second one decides alone."""
    assert create(TOO_SOON, second, wanted=LASTING) == result


# --- fetch --------------------------------------------------------------------------------------------


def test_the_session_is_asked_before_its_intent() -> None:
    """With what hangs on it; our own reference is no name of theirs, whatever it begins with."""
    call = next(CALLS.fetch(GIVEN, True, KEYS))
    assert call == Call("GET", f"/v1/checkout/sessions/{CS}?expand%5B%5D=payment_intent.latest_charge", HEADERS)
    call = next(CALLS.fetch(ONLY_INTENT, True, KEYS))
    assert call == Call("GET", f"/v1/payment_intents/{PI}?expand%5B%5D=latest_charge", HEADERS)
    nameless = Given("cs_ours", ("cs_ours", "ch_1"), 5000, "XOF")
    assert fetch(of=nameless) == Unclear("no_name")
    strange = replace(GIVEN, references=("cs_../../v1/payouts?x=",))
    assert next(CALLS.fetch(strange, True, KEYS)).path.startswith(
        "/v1/checkout/sessions/cs_..%2F..%2Fv1%2Fpayouts%3Fx%3D?"
    )


@pytest.mark.parametrize(
    ("it", "said"),
    [
        (session(), {Kind.CREATED}),
        (session(status="complete", payment_intent=intent(status="processing")), {Kind.PENDING}),
        (session(payment_intent=intent(status="requires_action")), {Kind.CREATED, Kind.REQUIRES_ACTION}),
        (session(payment_intent=intent(latest_charge=charge(status="failed", captured=False))),
         {Kind.CREATED, Kind.TRY_FAILED}),
        (session(payment_intent=intent(status="requires_capture", amount_capturable=5000)),
         {Kind.CREATED, Kind.AUTHORIZED}),
    ],
)  # fmt: skip
def test_what_is_not_final(it: dict[str, Any], said: set[Kind]) -> None:
    """Open, tried, waiting: all of it is kept, none of it is an end."""
    found = fetch(response(it))
    assert isinstance(found, NotFinal) and kinds(found) == said


def test_a_decline_on_the_page_is_a_try_with_its_reason() -> None:
    """The same fact as `charge.failed` tells, under the same name."""
    declined = charge(
        status="failed", captured=False, failure_code="card_declined", outcome={"reason": "insufficient_funds"}
    )
    found = fetch(response(session(payment_intent=intent(latest_charge=declined))))
    tried = next(fact for fact in found.told.facts if fact.kind is Kind.TRY_FAILED)
    assert (tried.movement, tried.reason, tried.at_ms) == (CH, Reason.INSUFFICIENT_FUNDS, 1_794_000_000_000)


@pytest.mark.parametrize("it", [session(status="complete", payment_status="paid", payment_intent=SUCCEEDED), SUCCEEDED])
def test_paid_is_one_capture_dated_by_its_charge(it: dict[str, Any]) -> None:
    """Session, intent and charge are one movement, the one that callbacks name."""
    found = fetch(response(it), of=GIVEN if it["object"] == "checkout.session" else ONLY_INTENT)
    assert isinstance(found, Told)
    [paid] = found.facts
    assert (paid.kind, paid.movement, paid.amount_minor, paid.asked_minor) == (Kind.CAPTURED, PI, 5000, 5000)
    assert (paid.at_ms, paid.method, paid.source) == (1_794_000_000_000, "card", Source.ANSWER)
    assert found.references[0] == PI and found.reference == REFERENCE


def test_another_amount_is_a_fact_and_no_error() -> None:
    """The rules find the mismatch: here nobody may swallow money."""
    less = intent(status="succeeded", amount_received=3000, latest_charge=charge(amount_captured=3000))
    found = fetch(response(less), of=ONLY_INTENT)
    assert found.facts[0].amount_minor == 3000 and found.facts[0].asked_minor == 5000


def test_what_went_back_is_told() -> None:
    """As a total, like `charge.refunded`."""
    charged = charge(amount_refunded=2000)
    found = fetch(response(intent(status="succeeded", amount_received=5000, latest_charge=charged)), of=ONLY_INTENT)
    assert {(fact.kind, fact.amount_minor) for fact in found.facts} == {
        (Kind.CAPTURED, 5000),
        (Kind.REFUNDED_TOTAL, 2000),
    }


@pytest.mark.parametrize(
    ("it", "kind"),
    [
        (session(status="expired"), Kind.EXPIRED),
        (session(status="expired", payment_intent=intent(status="canceled")), Kind.EXPIRED),
        (intent(status="canceled", canceled_at=1_794_000_001), Kind.CANCELED),
        (intent(status="canceled", cancellation_reason="expired"), Kind.EXPIRED),
    ],
)
def test_ends(it: dict[str, Any], kind: Kind) -> None:
    """The provider's own words."""
    found = fetch(response(it), of=GIVEN if it["object"] == "checkout.session" else ONLY_INTENT)
    assert isinstance(found, Told) and kind in kinds(found)
    if it.get("canceled_at"):
        assert found.facts[0].at_ms == 1_794_000_001_000


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (error(404, code="resource_missing"), NotKnown()),
        (error(404, code="resource_missing", message="a similar object exists in test mode"), Unclear("refused")),
        (error(404), Unclear("refused")),
        (response(b"<html>nginx", 404), Unclear("refused")),
        (error(401), Unclear("credentials")),
        (error(403), Unclear("credentials")),
        (error(429), Unclear("rate_limited")),
        (error(400), Unclear("refused")),
        (error(500), Unclear("provider_error")),
        (response(b"{}"), Unclear("unreadable")),
        (response(b"\xff"), Unclear("unreadable")),
        (response(session(id="cs_other")), Unclear("other_payment")),
        (response(session(client_reference_id="cx-OTHER")), Unclear("other_payment")),
        (response(session(mode="subscription")), Unclear("other_payment")),
        (response(session(livemode=False)), Unclear("test_answer_in_live")),
        (response(session(status="new")), Unclear("unknown_status")),
        (response(session(payment_intent={"object": "setup_intent"})), Unclear("unreadable")),
        (response(session(payment_intent=intent(status="new"))), Unclear("unknown_status")),
    ],
)  # fmt: skip
def test_what_is_asked_again(answer: Response, said: object) -> None:
    """Only Stripe's own word says that there is no such payment."""
    assert fetch(answer) == said


def test_a_test_answer_is_right_in_test() -> None:
    """And an answer without our reference is about the one we named."""
    assert isinstance(fetch(response(session(livemode=False)), live=False), NotFinal)
    assert isinstance(fetch(response(session(client_reference_id=None, metadata={}))), NotFinal)


# --- find ---------------------------------------------------------------------------------------------


def page(*items: dict[str, Any], more: bool = False) -> Response:
    return response({"object": "list", "data": list(items), "has_more": more})


def other(start: str, number: int) -> dict[str, Any]:
    return {"id": f"{start}{number}", "client_reference_id": f"cx-{number}", "metadata": {"reference": f"cx-{number}"}}


def test_a_lost_session_is_found_by_our_reference() -> None:
    """Through the pages of the newest, then asked about by its name."""
    calls, said = find(page(other("cs_", 1), other("cs_", 2), more=True), page(session()), response(session()))
    assert isinstance(said, NotFinal) and said.told is not None and said.told.references == (CS,)
    assert [call.path for call in calls] == [
        "/v1/checkout/sessions?limit=40",
        "/v1/checkout/sessions?limit=40&starting_after=cs_2",
        f"/v1/checkout/sessions/{CS}?expand%5B%5D=payment_intent.latest_charge",
    ]
    assert all(call.method == "GET" and call.headers == HEADERS for call in calls)


def test_a_lost_intent_is_found_too() -> None:
    """Which of the two was asked for is not known here."""
    calls, said = find(page(), page(other("pi_", 1), intent()), response(intent()))
    assert isinstance(said, NotFinal) and calls[1].path == "/v1/payment_intents?limit=40"


def test_not_known_needs_both_lists_to_their_ends() -> None:
    """Further back there may be one: then it is asked again, and never failed over from."""
    assert find(page(other("cs_", 1)), page())[1] == NotKnown()
    full = [page(other("cs_", at), more=True) for at in range(3)]
    assert find(*full, page())[1] == Unclear("not_among_the_newest")
    assert find(page(), *(page(other("pi_", at), more=True) for at in range(3)))[1] == Unclear("not_among_the_newest")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (error(404, code="resource_missing"), Unclear("refused")),
        (error(401), Unclear("credentials")),
        (error(500), Unclear("provider_error")),
        (response(b"{}"), Unclear("unreadable")),
        (response({"data": [], "has_more": "no"}), Unclear("unreadable")),
        (response({"data": [5], "has_more": False}), Unclear("unreadable")),
        (response({"data": [{"id": "po_1"}], "has_more": False}), Unclear("unreadable")),
    ],
)
def test_a_list_that_cannot_be_read_proves_nothing(answer: Response, said: object) -> None:
    """At either list."""
    assert find(answer)[1] == said
    assert find(page(), answer)[1] == said


def test_lists_are_read_back_to_when_it_was_asked_for() -> None:
    """With an hour for clocks that are apart; in a busy shop nothing else makes an end of them."""
    assert CALLS.find is not None
    of = replace(GIVEN, references=(), since_ms=1_795_000_000_500)
    calls, said = drive(CALLS.find(of, True, KEYS), page(), page())
    assert said == NotKnown()
    assert [call.path.partition("?")[2] for call in calls] == ["created%5Bgte%5D=1794996400&limit=40"] * 2


def test_an_empty_reference_finds_nothing() -> None:
    """Objects of others without a reference are not ours."""
    assert CALLS.find is not None
    nameless = CALLS.find(Given("", (), 1, "XOF"), True, KEYS)
    assert drive(nameless, page({"id": "cs_1", "client_reference_id": ""}), page())[1] == NotKnown()


# --- cancel -------------------------------------------------------------------------------------------


def test_a_session_is_expired_and_an_intent_canceled() -> None:
    """Their own words that it is dead; without a key, which would bring back yesterday's answer."""
    calls, said = cancel(response(session(status="expired", url=None)))
    assert calls == [Call("POST", f"/v1/checkout/sessions/{CS}/expire", HEADERS, form=())]
    assert isinstance(said, Told) and kinds(said) == {Kind.EXPIRED}
    calls, said = cancel(response(intent(status="canceled", cancellation_reason="abandoned")), of=ONLY_INTENT)
    form = (("cancellation_reason", "abandoned"),)
    assert calls == [Call("POST", f"/v1/payment_intents/{PI}/cancel", HEADERS, form=form)]
    assert isinstance(said, Told) and kinds(said) == {Kind.CANCELED}


@pytest.mark.parametrize(
    ("now", "dead"),
    [
        (session(status="expired"), True),
        (session(status="expired", payment_intent=SUCCEEDED), False),
        (session(status="complete", payment_status="paid", payment_intent=SUCCEEDED), False),
        (session(status="complete", payment_intent=intent(status="processing")), False),
        (session(), False),
    ],
)
def test_refused_it_is_asked_what_it_is(now: dict[str, Any], dead: bool) -> None:
    """Paid in the meantime is not cancelled; already expired is."""
    calls, said = cancel(error(400), response(now))
    assert len(calls) == 2 and calls[1].method == "GET"
    assert isinstance(said, Told) if dead else isinstance(said, NotCanceled) and said.told is not None
    assert cancel(error(400), error(500))[1] == NotCanceled(None)


@pytest.mark.parametrize(
    ("heard", "said"),
    [
        ((error(401),), Lost("credentials", alert=True)),
        ((error(404, code="resource_missing"),), Lost("no_route")),
        ((error(429),), Lost("rate_limited")),
        ((error(500),), Lost("provider_error")),
        ((error(400, "idempotency_error"),), Lost("refused")),
        ((response(b"ok"),), Lost("unreadable")),
        ((response(session(id="cs_other", status="expired")),), Lost("other_payment")),
        ((response(session(client_reference_id="x", status="expired")),), Lost("other_payment")),
        ((CUT,), Lost("timeout")),
        ((UNSENT,), NotSent("refused")),
        ((error(400), CUT), Lost("timeout")),
        ((error(400), UNSENT), Lost("refused")),
    ],
)
def test_a_cancellation_that_says_nothing(heard: tuple[Response | Broken, ...], said: object) -> None:
    """It is asked again; canceled is never written because a call failed."""
    assert cancel(*heard)[1] == said


def test_a_session_that_stays_open_is_not_canceled() -> None:
    """A 200 is not a word."""
    assert isinstance(cancel(response(session()))[1], NotCanceled)
    assert cancel(of=replace(GIVEN, references=(REFERENCE,))) == ([], Lost("no_name"))


# --- refund -------------------------------------------------------------------------------------------


def back(**more: Any) -> Response:
    return response({
        "id": "re_1", "object": "refund", "status": "succeeded", "amount": 2000, "currency": "xof", "charge": CH,
        "payment_intent": PI, "metadata": {"reference": REFERENCE},
    } | more)  # fmt: skip


def test_a_refund_is_asked_for_with_its_key() -> None:
    """Of the intent, in part, with the person's words as a note."""
    calls, said = refund(back(), why="trop grand")
    assert calls == [
        Call(
            "POST",
            "/v1/refunds",
            HEADERS | {"Idempotency-Key": "key-2"},
            form=(
                ("payment_intent", PI),
                ("amount", "2000"),
                ("metadata[reference]", REFERENCE),
                ("metadata[reason]", "trop grand"),
            ),
        )
    ]
    assert isinstance(said, Refunding)
    [fact] = said.told.facts
    assert (fact.kind, fact.movement, fact.amount_minor, fact.source) == (
        Kind.REFUND_SUCCEEDED, "re_1", 2000, Source.ANSWER,
    )  # fmt: skip
    assert ("reason", "duplicate") in (refund(back(), why="duplicate")[0][0].form or ())
    assert ("charge", CH) in (refund(back(), of=replace(GIVEN, references=(CH,)))[0][0].form or ())


@pytest.mark.parametrize(("status", "kind"), stripe.REFUND.items())
def test_a_refund_is_what_its_status_says(status: str, kind: Kind) -> None:
    """A refund that the bank refused at once was taken, and failed."""
    said = refund(back(status=status))[1]
    assert isinstance(said, Refunding) and said.told.facts[0].kind is kind


@pytest.mark.parametrize(
    ("heard", "said"),
    [
        (error(400, code="charge_already_refunded"), RefundRefused("already_refunded", "No.")),
        (error(400), RefundRefused("refused", "No.")),
        (error(404, code="resource_missing"), RefundRefused("not_known", "No.")),
        (error(401), NotSent("credentials", alert=True)),
        (error(422), RefundRefused("unsupported")),
        (error(429), NotSent("rate_limited")),
        (error(400, "idempotency_error"), Lost("refused")),
        (error(402, "card_error"), Lost("refused")),
        (error(409), Lost("refused")),
        (error(500), Lost("provider_error")),
        (response(b"{}"), Lost("unreadable")),
        (back(status="new"), Lost("unreadable")),
        (back(amount=2001), Lost("other_payment")),
        (back(currency="eur"), Lost("other_payment")),
        (back(payment_intent="pi_other"), Lost("other_payment")),
        (CUT, Lost("timeout")),
        (UNSENT, NotSent("refused")),
    ],
)
def test_what_a_refund_comes_to(heard: Response | Broken, said: object) -> None:
    """A definite no is Stripe's own; everything else is repeated with its key."""
    assert refund(heard)[1] == said


def test_a_refund_that_cannot_be_asked_for_is_not() -> None:
    """Without a key it could go back twice."""
    assert refund(of=replace(GIVEN, key="")) == ([], RefundRefused("no_key"))
    assert refund(of=replace(GIVEN, references=(CS,))) == ([], RefundRefused("no_name"))
    assert refund(amount=0) == ([], RefundRefused("amount"))


# --- hostile bodies -----------------------------------------------------------------------------------

RIGHT = [
    session(),
    session(payment_intent=SUCCEEDED),
    intent(),
    json.loads(back().body),
    {"data": [session()], "has_more": False},
]
ODD: st.SearchStrategy[Any] = (
    st.sampled_from([None, "", 0, -1, 1.5, 10**30, True, [], {}, [[]], "\x00", "é" * 300, "cs_1", "open"]) | Json
)


def ended(conversation: Any, answer: Response) -> Any:
    """What it comes to when it hears the same again and again."""
    next(conversation)
    for _ in range(10):
        try:
            conversation.send(answer)
        except StopIteration as done:
            return done.value
    return None


def bent(body: Any, data: st.DataObject) -> Any:
    """A right answer with one thing in it wrong, at any depth."""
    if isinstance(body, dict) and body and data.draw(st.integers(0, 3)):
        name = data.draw(st.sampled_from(sorted(body)))
        return body | {name: bent(body[name], data)}
    return data.draw(ODD)


@given(st.data(), st.sampled_from([200, 201, 400, 404, 409]))
def test_nothing_that_comes_back_raises(data: st.DataObject, status: int) -> None:
    """Every conversation ends in a result of its own kind, whatever it is told."""
    body = bent(data.draw(st.sampled_from(RIGHT)), data)
    raw = data.draw(
        st.sampled_from([json.dumps(body).encode(), b"\xff\x00", b"[" * 70_000, b'{"a":1,"a":2}', b'{"id":NaN}'])
    )
    for conversation in (
        CALLS.create(LASTING, PAGE_CHANNEL, KEYS), CALLS.create(WANTED, SECRET_CHANNEL, KEYS),
        CALLS.fetch(GIVEN, True, KEYS), stripe_calls.find(GIVEN, True, KEYS), stripe_calls.cancel(GIVEN, KEYS),
        stripe_calls.refund(GIVEN, 2000, "", KEYS),
    ):  # fmt: skip
        assert ended(conversation, Response(status, {}, raw)) is not None
