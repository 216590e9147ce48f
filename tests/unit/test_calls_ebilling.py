"""The calls to eBilling: a bill, a prompt or the portal, and the bill found again."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from service.payments.facts import AMOUNT_MINOR_MAX, Kind, Reason, Source, Told
from service.providers import ebilling
from service.providers.base import NotFinal, Unclear
from service.providers.calls import (
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
    NotSent,
    Redirect,
    Wanted,
    broken_create,
)
from service.providers.ebilling_calls import (
    CALLS,
    create,
    fetch,
    find,
    likely_operator,
    msisdn,
)
from tests.support.conversations import Conversation
from tests.support.corpora import json_texts, strings

CREDENTIALS = {"username": ("boutique",), "shared_key": ("clé-1", "clé-0"), "callback_tokens": ("t",)}
BASIC = "Basic " + base64.b64encode("boutique:clé-1".encode()).decode()
HEADERS = {"Authorization": BASIC, "Accept": "application/json"}
NUMBER = "5550093117"
WANTED = Wanted(
    reference="caisse-a1-try_9",
    key="key_9",
    amount_minor=7500,
    currency="XAF",
    method="mobile_money",
    country="GA",
    operator="airtel",
    description="Un panier de manioc",
    return_url="https://shop.example/back?order=9&x=é",
    callback_url="https://pay.example/webhooks/ebilling/token",
    payer_phone="+24174000011",
    live=True,
    customer=Customer("Paul Ondo", "paul@shop.example", "+24166000022"),
    expires_at_ms=1_795_168_800_000,
)
GIVEN = Given(WANTED.reference, (NUMBER,), 7500, "XAF")
PAGE = (
    f"https://www.billing-easy.net/checkoutnow?invoice_number={NUMBER}"
    "&merchant_redirect_url=https%3A%2F%2Fshop.example%2Fback%3Forder%3D9%26x%3D%C3%A9"
)
CARD_PAGE = (
    f"https://www.billing-easy.net/?invoice={NUMBER}&operator=ORABANK_NG&redirect=1"
    "&redirect_url=https%3A%2F%2Fshop.example%2Fback%3Forder%3D9%26x%3D%C3%A9"
)


def bill(**changes: Any) -> dict[str, Any]:
    return {
        "bill_id": NUMBER, "amount": 7500, "currency": "XAF", "state": "ready", "external_reference": WANTED.reference,
        "amount_paid": 0, "created_at": "2026-11-20T09:00:00Z", "updated_at": "2026-11-20T09:00:01Z", "reason": None,
        "payment_system_name": "", **changes,
    }  # fmt: skip


def made(**changes: Any) -> dict[str, Any]:
    """The answer to POST e_bills."""
    return {"client_transaction_id": None, "server_transaction_id": "st_1", "e_bill": bill(**changes)}


def channel(operator: str = "airtel", method: Any = "mobile_money") -> Channel:
    found = CALLS.channel(method, "XAF", "GA", operator)
    assert found is not None
    return found


AIRTEL, MOOV, PORTAL, CARD = channel(), channel("moov"), channel(""), channel("", "card")


def creating(one: Channel = AIRTEL, wanted: Wanted = WANTED, **credentials: tuple[str, ...]) -> Conversation:
    return Conversation(create(wanted, one, {**CREDENTIALS, **credentials}))


def pushing(one: Channel = AIRTEL) -> Conversation:
    """The bill is made; the prompt is the next call."""
    return creating(one).answer(201, made())


# --- channels and what is sent ------------------------------------------------------------------------


def test_the_four_ways() -> None:
    """Two operators on the phone, the portal where none is chosen, cards from anywhere."""
    assert CALLS.channels == (AIRTEL, MOOV, PORTAL, CARD)
    assert [(one.code, one.direct) for one in CALLS.channels] == [
        ("airtelmoney", True),
        ("moovmoney4", True),
        ("portal", False),
        ("ORABANK_NG", False),
    ]
    assert {one.operator for one in CALLS.channels} - {""} <= set(OPERATORS)
    assert CALLS.channel("card", "XAF", "FR", "") == CARD
    assert CALLS.channel("mobile_money", "XAF", "CM", "mtn") is None
    assert CALLS.channel("mobile_money", "XOF", "GA", "airtel") is None
    assert (CALLS.otp, CALLS.cancel, CALLS.refund, CALLS.idempotent) == (None, None, None, False)


@pytest.mark.parametrize("one", CALLS.channels, ids=lambda one: one.code)
def test_the_bill_to_the_byte(one: Channel) -> None:
    """The same bill in every channel; eBilling is to write to nobody."""
    assert creating(one).call == Call(
        "POST",
        "/api/v1/merchant/e_bills",
        HEADERS,
        json={
            "payer_msisdn": "074000011",
            "amount": 7500,
            "short_description": "Un panier de manioc",
            "external_reference": "caisse-a1-try_9",
            "expiry_period": 60,
            "email": False,
            "sms": False,
            "payer_email": "paul@shop.example",
            "payer_name": "Paul Ondo",
        },
    )


@pytest.mark.parametrize(("one", "system"), [(AIRTEL, "airtelmoney"), (MOOV, "moovmoney4")])
def test_the_push_to_the_byte(one: Channel, system: str) -> None:
    """To the bill that was made, for the number that pays."""
    assert pushing(one).call == Call(
        "POST",
        f"/api/v1/merchant/e_bills/{NUMBER}/ussd_push",
        HEADERS,
        json={"payer_msisdn": "074000011", "payment_system_name": system},
    )


@pytest.mark.parametrize(
    ("payer", "customer", "expected"),
    [
        ("+24174000011", "+24166000022", "074000011"),
        ("+241074000011", "", "074000011"),
        ("", "+24166000022", "066000022"),
        ("+237650000001", "", "237650000001"),
        ("+24162", "", None),
        ("", "", None),
        ("74 00 00 11", "", None),
    ],
)
def test_the_number_as_gabon_writes_it(payer: str, customer: str, expected: str | None) -> None:
    """Nine digits; a foreign one as it is; none at all, and there is no bill."""
    wanted = replace(WANTED, payer_phone=payer, customer=Customer(phone=customer))
    assert msisdn(wanted, PORTAL) == expected
    assert msisdn(wanted, AIRTEL) == (expected if payer else None)
    if expected is None:
        assert creating(PORTAL, wanted).result == NotSent("missing_payer_phone")
    if not payer:
        assert creating(AIRTEL, wanted).result == NotSent("missing_payer_phone")


def test_a_prefix_only_warns() -> None:
    """A Moov number through Airtel is asked for all the same."""
    assert [likely_operator(number) for number in ("074000011", "066000022", "011", "")] == ["airtel", "moov", "", ""]
    assert creating(wanted=replace(WANTED, payer_phone="+24166000022")).call.json


def test_what_is_empty_is_not_sent() -> None:
    """Without a description the reference stands on the bill."""
    bare = replace(WANTED, description="", customer=Customer())
    sent = creating(wanted=bare).call.json
    assert isinstance(sent, dict)
    assert sent["short_description"] == WANTED.reference
    assert not {"payer_email", "payer_name"} & set(sent)


def test_amounts_that_cannot_be_asked_for() -> None:
    """Nothing, less than nothing, and another currency."""
    for wanted in (
        replace(WANTED, amount_minor=0),
        replace(WANTED, amount_minor=-1),
    ):
        assert creating(wanted=wanted).result == NotSent("amount")
    other = replace(WANTED, currency="EUR", amount_minor=1000)
    assert creating(wanted=other).result == NotSent("unsupported")


@pytest.mark.parametrize("missing", ["username", "shared_key"])
def test_without_credentials_nothing_is_sent(missing: str) -> None:
    """Half a pair is none."""
    for values in ((), ("",), (" ",)):
        given: dict[str, tuple[str, ...]] = {missing: values}
        assert Conversation(create(WANTED, AIRTEL, {**CREDENTIALS, **given})).result == NotSent(
            "credentials", alert=True
        )


@pytest.mark.parametrize("text", strings())
def test_hostile_words_are_sent_or_left_out(text: str) -> None:
    """Every call can be encoded, and every page is one line."""
    wanted = replace(WANTED, description=text, customer=Customer(text, text, text), return_url=text)
    for one in CALLS.channels:
        talk = creating(one, wanted)
        assert all(not isinstance(value, str) or value.encode() for value in dict(talk.call.json).values())  # type: ignore[call-overload]
        result = talk.answer(201, made())
        if one.direct:
            result.answer(406)
        assert result.result.action.url.isascii() and " " not in result.result.action.url


# --- what comes of the bill ---------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "page"), [(PORTAL, PAGE), (CARD, CARD_PAGE)])
@pytest.mark.parametrize("wrapped", [True, False])
def test_the_portal(one: Channel, page: str, wrapped: bool) -> None:
    """The bill is there, wrapped or not, and the payer goes to its page."""
    result = creating(one).answer(201, made() if wrapped else bill()).result
    assert isinstance(result, Accepted)
    assert result.action == Redirect(page)
    assert (result.told.references, result.told.reference) == ((NUMBER,), WANTED.reference)
    assert [(f.kind, f.asked_minor, f.currency, f.source) for f in result.told.facts] == [
        (Kind.PENDING, 7500, "XAF", Source.ANSWER),
        (Kind.REQUIRES_ACTION, 7500, "XAF", Source.ANSWER),
    ]
    assert len({(f.at_ms, f.movement) for f in result.told.facts}) == 1


def test_the_portal_follows_the_account() -> None:
    """LAB's bills are shown on LAB's portal."""
    live, lab = (creating(PORTAL, replace(WANTED, live=live)).answer(201, made()).result for live in (True, False))
    assert live.action.url.startswith(f"https://www.billing-easy.net/checkoutnow?invoice_number={NUMBER}&")
    assert lab.action.url.startswith(f"https://test.billing-easy.net/checkoutnow?invoice_number={NUMBER}&")


def test_facts_that_are_set() -> None:
    """Another portal, another page, another push, hours, numbers in E.164."""
    facts: dict[str, Any] = dict(ebilling.FACTS) | {
        "portal_url": "https://staging.billing-easy.net/",
        "page_path": "/?invoice={bill}&redirect_url={return_url}",
        "bills_path": "/api/v9/bills",
        "push_path": "/api/v2/bills/{bill}/ussd_push",
        "expiry_unit_minutes": 60,
        "dialled": "",
    }
    talk = Conversation(create(replace(WANTED, now_ms=1, expires_at_ms=100 * 60_000), AIRTEL, CREDENTIALS, facts))
    assert talk.call.path == "/api/v9/bills"
    body = talk.call.json
    assert isinstance(body, dict) and (body["expiry_period"], body["payer_msisdn"]) == (1, "24174000011")
    assert talk.answer(201, made()).call.path == f"/api/v2/bills/{NUMBER}/ussd_push"
    url = talk.answer(406).result.action.url
    assert url.startswith(f"https://staging.billing-easy.net/?invoice={NUMBER}&redirect_url=https%3A%2F%2Fshop.example")
    assert next(fetch(GIVEN, True, CREDENTIALS, facts)).path == f"/api/v9/bills/{NUMBER}"
    assert next(find(GIVEN, True, CREDENTIALS, facts)).path == "/api/v9/bills?page=1&per_page=50"


@pytest.mark.parametrize(
    ("left_min", "period"), [(-5, 30), (29, 30), (30, 30), (59, 30), (60, 60), (500, 360), (9999, 1440)]
)
def test_a_bill_lapses_with_its_payment(left_min: int, period: int) -> None:
    """The longest choice that is not longer than the payment: a bill that outlives it brings late money."""
    now_ms = 1_795_000_000_000
    body = creating(wanted=replace(WANTED, now_ms=now_ms, expires_at_ms=now_ms + left_min * 60_000)).call.json
    assert isinstance(body, dict) and body["expiry_period"] == period


@pytest.mark.parametrize("one", CALLS.channels, ids=lambda one: one.code)
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"bill_id": None}, Lost("missing:id")),
        ({"bill_id": {}}, Lost("missing:id")),
        ({"external_reference": "caisse-a1-try_8"}, Lost("other_payment")),
        ({"amount": 7501}, Lost("other_payment")),
        ({"currency": "XOF"}, Lost("other_payment")),
        ({"state": "quantum"}, Lost("unknown_status", Told((NUMBER,), (), WANTED.reference))),
        ({"state": None}, Lost("unknown_status", Told((NUMBER,), (), WANTED.reference))),
        ({"amount": "1e9"}, Lost("bad_amount", Told((NUMBER,), (), WANTED.reference))),
        ({"currency": "franc"}, Lost("bad_currency", Told((NUMBER,), (), WANTED.reference))),
    ],
)
def test_another_bill_than_ours(one: Channel, changes: Mapping[str, Any], expected: object) -> None:
    """No prompt is asked for; where it is ours and odd, its number is kept so that it can be asked about."""
    talk = creating(one).answer(201, made(**changes))
    assert (talk.result, len(talk.calls)) == (expected, 1)


def test_what_the_bill_does_not_repeat_is_not_another() -> None:
    """Its number is all that has to be there; our reference stands in what is told."""
    body = {name: value for name, value in bill().items() if name in ("bill_id", "state")}
    result = creating(PORTAL).answer(200, body).result
    assert isinstance(result, Accepted)
    assert result.told.reference == WANTED.reference
    assert isinstance(creating(PORTAL).answer(201, made(amount="7500")).result, Accepted)


@pytest.mark.parametrize("one", [AIRTEL, PORTAL], ids=["push", "portal"])
@pytest.mark.parametrize(
    ("state", "reason", "expected"),
    [
        ("failed", "insufficient funds", Reason.INSUFFICIENT_FUNDS),
        ("failed", None, Reason.UNKNOWN),
        ("cancelled", None, Reason.UNKNOWN),
        ("expired", None, Reason.UNKNOWN),
    ],
)
def test_a_bill_that_is_dead_at_once(one: Channel, state: str, reason: str | None, expected: Reason) -> None:
    """The provider's own no."""
    result = creating(one).answer(201, made(state=state, reason=reason)).result
    assert isinstance(result, Declined)
    assert (result.reason, result.soft, result.told.references) == (expected, False, (NUMBER,))


@pytest.mark.parametrize("one", [AIRTEL, PORTAL], ids=["push", "portal"])
def test_a_bill_that_is_paid_at_once(one: Channel) -> None:
    """There is nothing left to do: neither prompt nor page."""
    result = creating(one).answer(201, made(state="paid", amount_paid=7500)).result
    assert isinstance(result, Accepted)
    assert result.action is None
    assert [fact.kind for fact in result.told.facts] == [Kind.CAPTURED]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, NotSent("credentials", alert=True)),
        (403, NotSent("credentials", alert=True)),
        (404, NotSent("no_route")),
        (405, NotSent("no_route")),
        (422, NotSent("unsupported")),
        (429, NotSent("rate_limited")),
        *((status, Lost("refused")) for status in (400, 402, 406, 409, 410, 418)),
        *((status, Lost("provider_error")) for status in (100, 302, 500, 502, 503, 504)),
    ],
)
def test_each_status_by_the_table(status: int, expected: object) -> None:
    """When is failover safe."""
    for body in ({"message": "no"}, b"", b"<html>"):
        assert creating().answer(status, body).result == expected


@pytest.mark.parametrize("status", [401, 404, 422, 429, 400, 500])
def test_a_refusal_that_shows_a_bill_is_lost(status: int) -> None:
    """No proof that there is none."""
    assert creating().answer(status, made()).result == Lost("contradictory")


# --- what comes of the prompt -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (202, {"message": "Accepted"}, ""),
        (202, {"message": "Composez *150*1#"}, "Composez *150*1#"),
        (200, {}, ""),
        (202, b"", ""),
        (202, {"message": {"x": 1}}, ""),
        (202, {"bill_id": NUMBER}, ""),
    ],
)
def test_the_prompt_is_shown(status: int, body: object, words: str) -> None:
    """Its own words, where they are for the payer."""
    result = pushing().answer(status, body).result
    assert isinstance(result, Accepted)
    assert result.action == Approve(words)
    assert result.told.facts[-1].kind is Kind.REQUIRES_ACTION


@pytest.mark.parametrize("status", [401, 403, 404, 405, 406, 422, 429])
@pytest.mark.parametrize("one", [AIRTEL, MOOV])
def test_a_prompt_refused_leaves_the_portal(one: Channel, status: int) -> None:
    """The bill is there and can be paid, so it is not `not_sent`: another provider would make a second one."""
    result = pushing(one).answer(status, {"message": "USSD not enabled"}).result
    assert isinstance(result, Accepted)
    assert result.action == Redirect(PAGE)
    assert result.told.references == (NUMBER,)


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (202, b"<html>", "unreadable"),
        (202, b"[1]", "unreadable"),
        (202, {"bill_id": "1"}, "other_payment"),
        (400, {}, "refused"),
        (409, b"", "refused"),
        (302, b"", "provider_error"),
        (500, {"message": "Accepted"}, "provider_error"),
        (503, b"", "provider_error"),
    ],
)
def test_a_prompt_that_was_perhaps_shown(status: int, body: object, reason: str) -> None:
    """Lost, with the bill's number: it can be asked about."""
    result = pushing().answer(status, body).result
    assert isinstance(result, Lost)
    assert result.reason == reason
    assert result.told is not None
    assert result.told.references == (NUMBER,)
    assert [fact.kind for fact in result.told.facts] == [Kind.PENDING]


def test_no_answer_to_the_bill() -> None:
    """Not caught: the first call alone can prove that nothing was sent."""
    for sent, expected in ((False, NotSent("refused")), (True, Lost("refused"))):
        for one in CALLS.channels:
            with pytest.raises(Broken) as broken:
                creating(one).breaks(sent=sent, reason="refused")
            assert broken_create(broken.value, 1) == expected


def test_no_answer_to_the_prompt() -> None:
    """With proof that no prompt was asked for the portal is left; else nobody knows, and the bill's number is kept."""
    unsent = pushing().breaks(sent=False).result
    assert isinstance(unsent, Accepted)
    assert unsent.action == Redirect(PAGE)
    sent = pushing().breaks(sent=True, reason="timeout").result
    assert isinstance(sent, Lost)
    assert sent.reason == "timeout"
    assert sent.told is not None
    assert sent.told.references == (NUMBER,)


# --- asking -------------------------------------------------------------------------------------------


def fetching(given: Given = GIVEN) -> Conversation:
    return Conversation(fetch(given, True, CREDENTIALS))


def test_fetch() -> None:
    """By the bill's number, never by our reference."""
    assert fetching().call == Call("GET", f"/api/v1/merchant/e_bills/{NUMBER}", HEADERS)
    assert fetching(replace(GIVEN, references=(WANTED.reference, "5/5"))).call.path.endswith("/e_bills/5%2F5")
    for references in ((), (WANTED.reference,)):
        talk = fetching(replace(GIVEN, references=references))
        assert (talk.calls, talk.result) == ([], Unclear("no_number_yet"))


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (404, b"", Unclear("not_known")),
        (404, {"message": "not found"}, Unclear("not_known")),
        (401, b"", Unclear("credentials")),
        (500, bill(state="paid", amount_paid=7500), Unclear("provider_error")),
        (200, b"<html>", Unclear("unreadable")),
        (200, bill(bill_id="1"), Unclear("other_payment")),
        (200, bill(external_reference="caisse-a1-try_8"), Unclear("other_payment")),
        (200, bill(state="quantum"), Unclear("unknown_status")),
        (200, bill(state="paid", amount_paid=None), Unclear("missing:amount")),
    ],
)
def test_answers_that_say_nothing(status: int, body: object, expected: object) -> None:
    """Ask again; a bill of another reference is not ours."""
    assert fetching().answer(status, body).result == expected


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize(
    ("state", "kind"),
    [("paid", Kind.CAPTURED), ("processed", Kind.CAPTURED), ("expired", Kind.EXPIRED), ("failed", Kind.FAILED)],
)
def test_answers_that_end_it(state: str, kind: Kind, wrapped: bool) -> None:
    """The facts come from the answer."""
    paid = 7500 if kind is Kind.CAPTURED else 0
    it = bill(state=state, amount_paid=paid)
    told = fetching().answer(200, {"e_bill": it} if wrapped else it).result
    assert isinstance(told, Told)
    assert [(fact.kind, fact.source) for fact in told.facts] == [(kind, Source.ANSWER)]
    assert told.facts[0].amount_minor == (paid or None)


def test_not_yet() -> None:
    """Open, with what it says meanwhile."""
    result = fetching().answer(200, bill()).result
    assert isinstance(result, NotFinal)
    assert result.told is not None
    with pytest.raises(Broken):
        fetching().breaks(sent=True)


# --- finding ------------------------------------------------------------------------------------------

LOST = replace(GIVEN, references=())


def finding(given: Given = LOST) -> Conversation:
    return Conversation(find(given, True, CREDENTIALS))


def page(*entries: object, total: object = 1, per_page: object = 50) -> dict[str, object]:
    return {"current_page": 1, "per_page": per_page, "total_entries": total, "entries": list(entries)}


OTHER = bill(bill_id="1", external_reference="shop-1")


def test_found_in_the_list_and_asked_about() -> None:
    """The list only names it: what counts is the bill's own answer."""
    talk = finding()
    assert talk.call == Call("GET", "/api/v1/merchant/e_bills?page=1&per_page=50", HEADERS)
    talk.answer(200, page(OTHER, {"e_bill": bill(state="failed")}, 7, None, total=3))
    assert talk.call == Call("GET", f"/api/v1/merchant/e_bills/{NUMBER}", HEADERS)
    told = talk.answer(200, bill(state="paid", amount_paid=7500)).result
    assert isinstance(told, Told)
    assert [fact.kind for fact in told.facts] == [Kind.CAPTURED]


def test_both_ends_of_the_list_are_looked_at() -> None:
    """Four pages at most, whichever end the new bills are at."""
    talk = finding()
    for _ in range(4):
        talk.answer(200, page(OTHER, total=1000))
    assert talk.result == Unclear("not_in_list")
    assert [call.path.partition("?page=")[2] for call in talk.calls] == [f"{n}&per_page=50" for n in (1, 20, 2, 19)]


@pytest.mark.parametrize(
    ("total", "per_page", "calls"),
    [(1, 50, 1), (50, 50, 1), (51, 50, 2), (120, 50, 3), ("9", 50, 1), (None, 50, 1), (90, 0, 1), (90, -1, 1),
     (10**12, 50, 1), (True, True, 1), (5, 1, 4)],
)  # fmt: skip
def test_how_many_pages(total: object, per_page: object, calls: int) -> None:
    """As many as it says there are, if that is a number."""
    talk = finding()
    while talk.result is None:
        talk.answer(200, page(OTHER, total=total, per_page=per_page))
    assert (talk.result, len(talk.calls)) == (Unclear("not_in_list"), calls)


def test_finding_proves_no_absence() -> None:
    """Not the empty list, not a 404 of the list, not a bill that is in the list and cannot be fetched."""
    assert finding().answer(200, page(total=0)).result == Unclear("not_in_list")
    for status in (401, 404, 500, 302):
        assert finding().answer(status, page(bill())).result == Unclear("no_list")
    bodies: list[Any] = [b"", b"<html>", b"[]", {}, {"entries": {}}, {"entries": None}]
    for body in bodies:
        assert finding().answer(200, body).result == Unclear("no_list")
    assert finding().answer(200, page(bill())).answer(404).result == Unclear("not_known")
    with pytest.raises(Broken):
        finding().breaks(sent=True)
    with pytest.raises(Broken):
        finding().answer(200, page(bill())).breaks(sent=False)


def test_two_bills_of_one_reference_are_for_a_person() -> None:
    """Which of them the payer sees is not known; the same one twice is one."""
    assert finding().answer(200, page(bill(), bill(bill_id="2"))).result == Unclear("several_bills")
    assert finding().answer(200, page(bill(), bill())).call.path.endswith(NUMBER)


def test_nobody_is_found_by_no_reference() -> None:
    """A bill without a reference is not the payment without one."""
    talk = finding(replace(LOST, reference=""))
    talk.answer(200, page(bill(external_reference=""), bill(external_reference=None)))
    assert talk.result == Unclear("not_in_list")


# --- every amount and every body ----------------------------------------------------------------------


@drawn(amount=st.integers(1, AMOUNT_MINOR_MAX), text=st.booleans())
def test_what_is_asked_for_is_what_is_read(amount: int, text: bool) -> None:
    """Out and back is the same money, as a number and as text."""
    wanted = replace(WANTED, amount_minor=amount)
    talk = creating(PORTAL, wanted)
    sent = talk.call.json
    assert isinstance(sent, dict) and type(sent["amount"]) is int
    written = str(sent["amount"]) if text else sent["amount"]
    result = talk.answer(201, made(amount=written)).result
    assert result.told.facts[0].asked_minor == amount
    paid = bill(amount=written, amount_paid=written, state="paid")
    told = fetching(replace(GIVEN, amount_minor=amount)).answer(200, paid).result
    assert [(f.asked_minor, f.amount_minor, f.currency) for f in told.facts] == [(amount, amount, "XAF")]


@pytest.mark.parametrize("name", json_texts())
def test_no_body_is_too_hostile(name: str) -> None:
    """Lost, unclear, or the one word that the status itself says."""
    body = json_texts()[name]
    assert isinstance(creating().answer(201, body).result, Lost)
    assert isinstance(pushing().answer(202, body).result, Accepted | Lost)
    assert isinstance(fetching().answer(200, body).result, Unclear)
    assert isinstance(finding().answer(200, body).result, Unclear)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from([NUMBER, WANTED.reference, "paid", "XAF"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*bill(), "e_bill"]), inner),
    max_leaves=8,
)


@drawn(changes=st.dictionaries(st.sampled_from([*bill()]), JUNK), status=st.sampled_from([201, 401, 422, 500]))
def test_any_value_in_any_field(changes: dict[str, Any], status: int) -> None:
    """A result always comes of it; a 5xx is never proof, and a list is never an exception."""
    talk = creating().answer(status, made(**changes))
    if talk.result is None:
        talk.answer(202, changes)
    assert isinstance(talk.result, Accepted | NotSent | Declined | Lost)
    assert status < 500 or isinstance(talk.result, Lost)
    found = finding().answer(200, {"entries": [changes, bill(**changes)], **changes})
    assert found.result is None or isinstance(found.result, Unclear)
