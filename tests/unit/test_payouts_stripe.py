"""Stripe, paying out: transfers and payouts as they go out, and what each answer and each break comes to."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from service.providers import stripe_payouts as payouts
from service.providers import stripe_wire as wire
from service.providers.base import NotKnown, Unclear
from service.providers.calls import CALLS_MAX, Broken, Call, Lost, NotSent, Response
from service.providers.payouts import REFUSALS, Payee, Paying, PayoutChannel, PayoutRefused, PayoutTold
from tests.support.conversations import Conversation
from tests.support.corpora import json_texts

PAYOUTS = payouts.PAYOUTS
KEYS = {"secret_key": (" ", "sk_live_1")}
TEST_KEYS = {"secret_key": ("rk_test_1",)}
HEADERS = {"Authorization": "Bearer sk_live_1", "Stripe-Version": wire.VERSION}
REFERENCE = "caisse-0badcafe-po-9"
NOW_MS = 1_795_251_600_000  # 2026-11-21 09:00 UTC
NOW_S = NOW_MS // 1000
CONNECTED, BANK = Payee("account", "EUR", number="acct_1Awa"), Payee("account", "EUR", number="ba_1")
PAYING = Paying(REFERENCE, "key-1", 5050, "EUR", CONNECTED, "Ventes de mai", live=True, since_ms=NOW_MS, now_ms=NOW_MS)
OUT = replace(PAYING, payee=BANK)
OLD = replace(PAYING, now_ms=NOW_MS + 82_800_000)
NAMED, OUT_NAMED = replace(PAYING, names=(REFERENCE, "tr_1")), replace(OUT, names=("po_1",))
UNSENT, CUT = Broken("refused", sent=False), Broken("timeout", sent=True)


def way(paying: Paying = PAYING) -> PayoutChannel:
    found = PAYOUTS.channel(replace(paying.payee, currency=paying.currency))
    assert found is not None
    return found


def response(body: object, status: int = 200, date: str = "Sat, 21 Nov 2026 09:00:00 GMT") -> Response:
    return Response(status, {"date": date}, body if isinstance(body, bytes) else json.dumps(body).encode())


def error(status: int, code: str | None = None, type_: str = "invalid_request_error") -> Response:
    return response({"error": {"type": type_, "code": code, "message": "No."}}, status)


def of_transfer(**more: Any) -> dict[str, Any]:
    return {
        "id": "tr_1", "object": "transfer", "amount": 5050, "amount_reversed": 0, "currency": "eur", "livemode": True,
        "destination": "acct_1Awa", "metadata": {"reference": REFERENCE}, "reversed": False, "created": NOW_S,
    } | more  # fmt: skip


def of_payout(status: str = "pending", **more: Any) -> dict[str, Any]:
    return {
        "id": "po_1", "object": "payout", "amount": 5050, "currency": "eur", "livemode": True, "destination": "ba_1",
        "metadata": {"reference": REFERENCE}, "status": status, "created": NOW_S, "arrival_date": NOW_S + 86_400,
    } | more  # fmt: skip


def transfer(**more: Any) -> Response:
    return response(of_transfer(**more))


def payout(status: str = "pending", **more: Any) -> Response:
    return response(of_payout(status, **more))


def listed(*items: object, more: bool = False) -> Response:
    return response({"object": "list", "data": list(items), "has_more": more})


def talk(generator: Any, *heard: Response | Broken) -> Conversation:
    conversation = Conversation(generator)
    for one in heard:
        conversation.hear(one)
    assert len(conversation.calls) == len(heard), "asked more, or less, than was answered"
    return conversation


def send(*heard: Response | Broken, paying: Paying = PAYING, keys: Any = KEYS) -> Any:
    return talk(PAYOUTS.send(paying, way(paying), keys), *heard).result


def asking(*heard: Response | Broken, paying: Paying = PAYING, keys: Any = KEYS) -> Conversation:
    assert PAYOUTS.ask is not None
    return talk(PAYOUTS.ask(paying, keys), *heard)


def ask(*heard: Response | Broken, paying: Paying = PAYING, keys: Any = KEYS) -> Any:
    return asking(*heard, paying=paying, keys=keys).result


def query(call: Call) -> dict[str, str]:
    return {name: value for name, [value] in parse_qs(urlsplit(call.path).query).items()}


# --- what goes out ------------------------------------------------------------------------------------


def test_a_transfer_goes_to_a_connected_account() -> None:
    """Under its key, with our reference where a list can be asked by it."""
    said = talk(PAYOUTS.send(PAYING, way(), KEYS), transfer())
    assert said.calls == [
        Call(
            "POST",
            "/v1/transfers",
            HEADERS | {"Idempotency-Key": "key-1"},
            (
                ("amount", "5050"), ("currency", "eur"), ("destination", "acct_1Awa"),
                ("description", "Ventes de mai"), ("transfer_group", REFERENCE), ("metadata[reference]", REFERENCE),
            ),
        )
    ]  # fmt: skip
    assert said.result == PayoutTold("paid", ("tr_1",), at_ms=NOW_MS) and PAYOUTS.idempotent


@pytest.mark.parametrize("number", ["ba_1", "card_1", ""])
def test_a_payout_goes_to_the_accounts_own_bank(number: str) -> None:
    """To the one that is named, otherwise to its default."""
    paying = replace(OUT, payee=replace(BANK, number=number), description="")
    said = talk(PAYOUTS.send(paying, way(paying), KEYS), payout(destination=number or "ba_default"))
    to = (("destination", number),) if number else ()
    assert said.calls[0].path == "/v1/payouts"
    assert said.calls[0].form == (("amount", "5050"), ("currency", "eur"), *to, ("metadata[reference]", REFERENCE))
    assert said.result == PayoutTold("in_transit", ("po_1",), at_ms=NOW_MS)


@pytest.mark.parametrize(
    ("amount", "currency", "units"),
    [(5000, "XOF", "5000"), (5000, "UGX", "500000"), (5050, "EUR", "5050"), (5010, "TND", "5010"), (500, "MGA", "5")],
)
def test_amounts_go_out_and_come_back(amount: int, currency: str, units: str) -> None:
    """In Stripe's smallest unit; another sum in the answer is another payout."""
    paying = replace(PAYING, amount_minor=amount, currency=currency, payee=replace(CONNECTED, currency=currency))
    said = Conversation(PAYOUTS.send(paying, way(paying), KEYS))
    assert dict(said.calls[0].form or ())["amount"] == units
    said.hear(transfer(amount=int(units), currency=currency.lower()))
    assert said.result.stage == "paid"
    assert send(transfer(amount=int(units) + 10, currency=currency.lower()), paying=paying) in (
        Lost("other_payout"), Lost("unreadable"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("paying", "keys", "result"),
    [
        (replace(PAYING, amount_minor=0), KEYS, PayoutRefused("amount")),
        (replace(PAYING, amount_minor=100_000_000), KEYS, PayoutRefused("amount")),
        (replace(PAYING, payee=replace(CONNECTED, currency="USD")), KEYS, PayoutRefused("unsupported")),
        (replace(PAYING, payee=replace(CONNECTED, number="acct_1/../x")), KEYS, PayoutRefused("bad_account")),
        (replace(PAYING, payee=replace(CONNECTED, number="FR76123")), KEYS, PayoutRefused("bad_account")),
        (PAYING, {}, NotSent("credentials", alert=True)),
        (PAYING, TEST_KEYS, NotSent("credentials", alert=True)),
    ],
)
def test_what_is_refused_before_anything_is_sent(paying: Paying, keys: Any, result: object) -> None:
    """Nothing leaves."""
    assert send(paying=paying, keys=keys) == result


def test_limits_are_the_ways_own() -> None:
    """Both ends and the step; what Stripe cannot write is no amount whatever the settings say."""
    narrow = replace(way(), min_minor=500, max_minor=600, step_minor=5)
    for amount, fits in ((495, False), (500, True), (501, False), (600, True), (605, False)):
        first = Conversation(PAYOUTS.send(replace(PAYING, amount_minor=amount), narrow, KEYS))
        assert bool(first.calls) is fits and (fits or first.result == PayoutRefused("amount"))
    wide = replace(way(), max_minor=None)
    assert Conversation(PAYOUTS.send(replace(PAYING, amount_minor=10**9), wide, KEYS)).calls
    dinar = replace(PAYING, currency="TND", amount_minor=5005, payee=replace(CONNECTED, currency="TND"))
    fine = replace(way(dinar), step_minor=1)
    assert Conversation(PAYOUTS.send(dinar, fine, KEYS)).result == PayoutRefused("amount")
    assert PAYOUTS.channel(replace(CONNECTED, kind="bank")) is None


# --- what comes of it ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heard", "result"),
    [
        (UNSENT, NotSent("refused")),
        (CUT, Lost("timeout")),
        (error(500, type_="api_error"), Lost("provider_error")),
        (error(409, type_="idempotency_error"), Lost("refused")),
        (error(400, type_="idempotency_error"), Lost("idempotency_error")),
        (error(402, "card_declined", type_="card_error"), Lost("refused")),
        (response(b"{"), Lost("unreadable")),
        (response(b"{", 400), Lost("refused")),
        (payout(), Lost("unreadable")),
        (transfer(id="po_1"), Lost("unreadable")),
        (transfer(amount=5000), Lost("other_payout")),
        (transfer(amount=5000, currency=None), Lost("other_payout")),
        (transfer(amount="x"), Lost("unreadable")),
        (transfer(currency="usd"), Lost("other_payout")),
        (transfer(metadata={}), Lost("other_payout")),
        (transfer(metadata={"reference": "another"}), Lost("other_payout")),
        (transfer(destination="acct_2"), Lost("other_payout")),
        (transfer(livemode=False), Lost("test_answer_in_live", alert=True)),
        (error(401, type_="x"), NotSent("credentials", alert=True)),
        (error(403), NotSent("credentials", alert=True)),
        (error(429, "rate_limit"), NotSent("rate_limited")),
        (error(400, "rate_limit"), NotSent("rate_limited")),
        (error(400, "api_key_expired"), NotSent("credentials", alert=True)),
        (error(400, "account_invalid"), NotSent("account_not_activated", alert=True)),
        (response(b"", 404), NotSent("no_route")),
        (response(b"", 422), PayoutRefused("unsupported")),
        (error(400, "balance_insufficient"), PayoutRefused("insufficient_float", "No.")),
        (error(402, "insufficient_funds"), PayoutRefused("insufficient_float", "No.")),
        (error(400, "amount_too_large"), PayoutRefused("amount", "No.")),
        (error(404, "resource_missing"), PayoutRefused("bad_account", "No.")),
        (error(400, "payouts_not_allowed"), PayoutRefused("not_allowed", "No.")),
        (error(400, "email_invalid"), PayoutRefused("refused", "No.")),
        (error(400), PayoutRefused("refused", "No.")),
    ],
)  # fmt: skip
def test_what_a_transfer_may_come_to(heard: Response | Broken, result: object) -> None:
    """Only proof is not sent, only Stripe's own no is refused; everything else is lost, and sent again by its key."""
    assert send(heard) == result


@pytest.mark.parametrize(
    ("it", "stage", "reason"),
    [
        (payout("pending"), "in_transit", ""),
        (payout("in_transit"), "in_transit", ""),
        (payout("paid"), "paid", ""),
        (payout("paid", reversed_by="po_2"), "returned", "reversed"),
        (payout("canceled"), "failed", "canceled"),
        (payout("canceled", arrival_date=NOW_S), "failed", "canceled"),
        (payout("failed"), "failed", "refused"),
        (payout("failed", arrival_date=NOW_S + 1, failure_code="account_closed"), "failed", "bad_account"),
        (payout("failed", arrival_date=NOW_S, failure_code="account_closed"), "returned", "bad_account"),
        (payout("failed", arrival_date=None), "failed", "refused"),
        (payout("failed", failure_code="insufficient_funds"), "failed", "insufficient_float"),
    ],
)
def test_what_a_payout_is(it: Response, stage: str, reason: str) -> None:
    """Sent, listed or asked by its name; what fails from the day of its arrival on came back."""
    body = json.loads(it.body)
    for said in (send(it, paying=OUT), ask(it, paying=OUT_NAMED), ask(listed(body), paying=OUT)):
        assert (said.stage, said.reason, said.names) == (stage, reason, ("po_1",))


def test_what_a_transfer_is() -> None:
    """There at once, until all of it is reversed; the destination may have come expanded."""
    assert ask(transfer(destination={"id": "acct_1Awa"}), paying=NAMED).stage == "paid"
    part, back = transfer(amount_reversed=50), transfer(amount_reversed=5050, reversed=True)
    assert (ask(part, paying=NAMED).stage, ask(part, paying=NAMED).reason) == ("paid", "partly_returned")
    assert ask(back, paying=NAMED).stage == "returned"


def test_the_words_are_ours() -> None:
    """Every refusal that the tables know."""
    assert set(payouts.REFUSED.values()) <= set(REFUSALS)


# --- never twice --------------------------------------------------------------------------------------


def test_a_key_that_may_have_lapsed_is_not_trusted() -> None:
    """After a day the same key would pay anew: it is looked for, and sent only when it is not there for certain."""
    said = talk(PAYOUTS.send(OLD, way(), KEYS), listed(), transfer())
    assert [call.method for call in said.calls] == ["GET", "POST"] and said.result.stage == "paid"
    assert send(listed(of_transfer()), paying=OLD).stage == "paid"
    assert send(transfer(), paying=replace(OLD, now_ms=OLD.now_ms - 1)).stage == "paid"
    for unknown in (replace(PAYING, since_ms=0), replace(PAYING, since_ms=0, now_ms=0)):
        assert send(listed(of_transfer()), paying=unknown).stage == "paid"


@pytest.mark.parametrize(
    ("heard", "result"),
    [
        (CUT, NotSent("timeout")),
        (error(500), NotSent("provider_error")),
        (error(401), NotSent("credentials", alert=True)),
        (response(b"{"), NotSent("unreadable")),
        (listed(of_transfer(amount=1)), Lost("other_payout")),
        (listed(of_transfer(livemode=False)), Lost("test_answer_in_live", alert=True)),
    ],
)  # fmt: skip
def test_a_look_that_tells_nothing_sends_nothing(heard: Response | Broken, result: object) -> None:
    """It moves nothing, and is repeated."""
    assert send(heard, paying=OLD) == result


def test_what_has_a_name_is_not_sent_again() -> None:
    """Only what it is now is told."""
    said = talk(PAYOUTS.send(NAMED, way(), KEYS), transfer())
    assert [call.shown for call in said.calls] == ["GET /v1/transfers/tr_1"] and said.result.stage == "paid"
    assert send(error(404, "resource_missing"), paying=NAMED) == Lost("not_known")
    assert send(error(500), paying=NAMED) == Lost("provider_error")


# --- asking -------------------------------------------------------------------------------------------


def test_the_list_is_asked_by_our_reference() -> None:
    """Back to an hour before, page by page; transfers by their group too."""
    others = [of_payout(id=f"po_{n}x", metadata={"reference": "another"}) for n in range(2)]
    said = asking(listed(*others, more=True), listed(of_payout("paid")), paying=OUT)
    first, second = map(query, said.calls)
    assert first == {"limit": "80", "created[gte]": str(NOW_S - 3600)}
    assert second == first | {"starting_after": "po_1x"} and said.result.stage == "paid"
    transfers = asking(listed())
    assert query(transfers.calls[0]) == first | {"transfer_group": REFERENCE} and transfers.result == NotKnown()
    assert "created[gte]" not in query(asking(listed(), paying=replace(OUT, since_ms=0)).calls[0])


def test_not_known_only_when_all_was_read() -> None:
    """A list that does not end says nothing, within the length of a conversation."""
    page = listed(of_payout(id="po_9", metadata={}), more=True)
    assert ask(*[page] * payouts.LIST_PAGES, paying=OUT) == Unclear("too_many")
    assert payouts.LIST_PAGES + 1 <= CALLS_MAX
    assert ask(listed(more=True), paying=OUT) == Unclear("unreadable")


@pytest.mark.parametrize(
    ("heard", "result"),
    [
        (error(404), Unclear("refused")),
        (error(401), Unclear("credentials")),
        (error(500), Unclear("provider_error")),
        (response(b"["), Unclear("unreadable")),
        (response({"data": [], "has_more": None}), Unclear("unreadable")),
        (listed(*[5] * 101), Unclear("unreadable")),
        (listed(5, {}, None), NotKnown()),
        (listed(of_transfer(amount=1)), Unclear("other_payout")),
        (listed(of_transfer(livemode=False)), Unclear("test_answer_in_live")),
        (listed(of_transfer(id=None)), Unclear("unreadable")),
    ],
)  # fmt: skip
def test_what_a_list_may_come_to(heard: Response, result: object) -> None:
    """Nothing is concluded from what cannot be read."""
    assert ask(heard) == result


@pytest.mark.parametrize(
    ("heard", "result"),
    [
        (error(404, "resource_missing"), Unclear("not_known")),
        (error(429), Unclear("rate_limited")),
        (response(b"{"), Unclear("unreadable")),
        (transfer(id="tr_2"), Unclear("other_payout")),
        (transfer(metadata={}), Unclear("other_payout")),
        (transfer(amount=1), Unclear("other_payout")),
        (transfer(livemode=False), Unclear("test_answer_in_live")),
    ],
)  # fmt: skip
def test_one_that_was_named_is_never_not_known(heard: Response, result: object) -> None:
    """It was there once."""
    assert ask(heard, paying=NAMED) == result
    assert ask(payout("odd"), paying=OUT_NAMED) == Unclear("unknown_status")
    assert ask(keys=TEST_KEYS) == Unclear("credentials")


def balance(heard: Response, keys: Any = KEYS, live: bool = True) -> Any:
    assert PAYOUTS.float_ is not None
    return talk(PAYOUTS.float_(CONNECTED, live, keys), heard).result


def test_what_can_be_paid_out() -> None:
    """What is available alone, in minor units, rounded down; less than nothing is nothing."""
    items = [
        {"amount": 700, "currency": "eur"}, {"amount": 150, "currency": "ugx"}, {"amount": 5, "currency": "mga"},
        {"amount": -9, "currency": "usd"},
    ]  # fmt: skip
    said = {"object": "balance", "livemode": True, "available": items, "pending": [{"amount": 9, "currency": "eur"}]}
    assert balance(response(said)) == {"EUR": 700, "UGX": 1, "MGA": 500, "USD": 0}
    assert balance(response(said | {"livemode": False})) == Unclear("test_answer_in_live")
    assert balance(response(said | {"livemode": False}), live=False)["EUR"] == 700
    for bad in ({"amount": "7", "currency": "eur"}, {"amount": 10**16, "currency": "eur"}, {"amount": 1}, 5):
        assert balance(response(said | {"available": [bad]})) == Unclear("unreadable")
    assert balance(response(said | {"available": [items[0], items[0]]})) == Unclear("unreadable")
    assert balance(response(said | {"object": "x"})) == Unclear("unreadable")
    assert balance(error(401)) == Unclear("credentials") and balance(error(404)) == Unclear("refused")
    assert talk(payouts.float_(CONNECTED, True, TEST_KEYS)).result == Unclear("credentials")


def test_what_may_be_set() -> None:
    """How long a key is trusted."""
    facts = payouts.FACTS | {"key_lives_ms": 0, "payout_description_characters_max": 3}
    said = talk(payouts.send(PAYING, way(), KEYS, facts), listed(), transfer())
    assert dict(said.calls[1].form or ())["description"] == "Ven"


# --- whatever comes -----------------------------------------------------------------------------------

ASKERS: tuple[Callable[[], Any], ...] = (
    lambda: PAYOUTS.send(PAYING, way(), KEYS),
    lambda: PAYOUTS.send(OLD, way(), KEYS),
    lambda: payouts.ask(OUT, KEYS),
    lambda: payouts.ask(NAMED, KEYS),
    lambda: payouts.float_(CONNECTED, True, KEYS),
)


@pytest.mark.parametrize("status", [200, 302, 400, 404, 500, 999])
def test_hostile_bodies_pay_nobody(status: int) -> None:
    """Nothing is raised, and no strange answer is taken for a payout, for a balance, or for "not known"."""
    for body in json_texts().values():
        for begin in ASKERS:
            conversation = Conversation(begin())
            while conversation.result is None:
                conversation.answer(status, body)
            assert isinstance(conversation.result, NotSent | Lost | Unclear)
