"""Paystack, paying out: the requests as they go out, and what each answer and each break comes to."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from service.providers import paystack_payouts as payouts
from service.providers.base import NotKnown, Unclear
from service.providers.calls import OPERATORS, Broken, Call, Lost, NotSent, Response
from service.providers.payouts import REFUSALS, Payee, Paying, PayoutChannel, PayoutRefused, PayoutTold
from tests.support.conversations import Conversation
from tests.support.corpora import json_texts

PAYOUTS = payouts.PAYOUTS
KEYS = {"secret_keys": (" ", "sk_live_new", "sk_live_old")}
TEST_KEYS = {"secret_keys": ("sk_test_1",)}
HEADERS = {"Authorization": "Bearer sk_live_new", "Accept": "application/json"}
REFERENCE = "caisse-0badcafe-po-9"
PAYEE = Payee("mobile_money", "XOF", "CI", "orange", "+2250700000001", name="Awa Koffi")
BANK = Payee("bank", "NGN", "NG", "", "0123456789", "058", "Abi Bello")
PAYING = Paying(REFERENCE, "key-1", 5000, "XOF", PAYEE, "Ventes de mai", live=True)
KNOWN = replace(PAYING, recipient="RCP_1")
NAMED = replace(KNOWN, names=(REFERENCE, "TRF_1"))
UNSENT, CUT = Broken("refused", sent=False), Broken("timeout", sent=True)


def way(payee: Payee = PAYEE) -> PayoutChannel:
    found = PAYOUTS.channel(payee)
    assert found is not None
    return found


def response(body: object, status: int = 200) -> Response:
    return Response(status, {}, body if isinstance(body, bytes) else json.dumps(body).encode())


def error(status: int, message: str = "No.", **more: Any) -> Response:
    return response({"status": False, "message": message, **more}, status)


def recipient(**more: Any) -> Response:
    it = {"recipient_code": "RCP_1", "domain": "live", "currency": "XOF", "active": True} | more
    return response({"status": True, "message": "Transfer recipient created successfully", "data": it}, 201)


def transfer(status: str = "pending", http: int = 200, **more: Any) -> Response:
    it = {
        "reference": REFERENCE, "domain": "live", "amount": 500_000, "currency": "XOF", "status": status,
        "transfer_code": "TRF_1", "recipient": 56824902, "createdAt": "2026-11-21T09:00:00.000Z",
    } | more  # fmt: skip
    return response({"status": True, "message": "Transfer has been queued", "data": it}, http)


def talk(generator: Any, *heard: Response | Broken) -> Conversation:
    conversation = Conversation(generator)
    for one in heard:
        conversation.hear(one)
    assert len(conversation.calls) == len(heard), "asked more, or less, than was answered"
    return conversation


def send(*heard: Response | Broken, paying: Paying = KNOWN, keys: Any = KEYS) -> Any:
    return talk(PAYOUTS.send(paying, way(paying.payee), keys), *heard).result


def ask(heard: Response, paying: Paying = PAYING) -> Any:
    assert PAYOUTS.ask is not None
    return talk(PAYOUTS.ask(paying, KEYS), heard).result


def finalize(*heard: Response | Broken, paying: Paying = NAMED) -> Conversation:
    assert PAYOUTS.finalize is not None
    return talk(PAYOUTS.finalize(paying, "123456", KEYS), *heard)


def float_(heard: Response, live: bool = True) -> Any:
    assert PAYOUTS.float_ is not None
    return talk(PAYOUTS.float_(PAYEE, live, KEYS), heard).result


# --- what goes out ------------------------------------------------------------------------------------


def test_a_recipient_and_then_a_transfer() -> None:
    """A hundredfold amount, the number as its country writes it, our reference; the recipient is kept."""
    said = talk(PAYOUTS.send(PAYING, way(), KEYS), recipient(), transfer())
    made, sent = said.calls
    assert made == Call(
        "POST",
        "/transferrecipient",
        HEADERS,
        json={
            "type": "mobile_money", "name": "Awa Koffi", "account_number": "0700000001", "bank_code": "OM_CI",
            "currency": "XOF",
        },
    )  # fmt: skip
    assert sent == Call(
        "POST",
        "/transfer",
        HEADERS,
        json={
            "source": "balance", "amount": 500_000, "currency": "XOF", "recipient": "RCP_1", "reference": REFERENCE,
            "reason": "Ventes de mai",
        },
    )  # fmt: skip
    assert said.result == PayoutTold("in_transit", ("TRF_1",), "RCP_1", at_ms=1_795_251_600_000)


def test_a_bank_account_and_a_payee_without_a_name() -> None:
    """The account's number and bank as they are, the kind of recipient by the currency."""
    paying = replace(PAYING, payee=replace(BANK, name=" "), currency="NGN", amount_minor=5050)
    first: Any = next(PAYOUTS.send(paying, way(BANK), KEYS)).json
    assert first == {
        "type": "nuban", "name": REFERENCE, "account_number": "0123456789", "bank_code": "058", "currency": "NGN",
    }  # fmt: skip
    sent: Any = next(PAYOUTS.send(replace(paying, recipient="RCP_2", description=""), way(BANK), KEYS)).json
    assert sent["amount"] == 5050 and "reason" not in sent


@pytest.mark.parametrize(
    ("country", "operator", "currency", "number", "code", "local"),
    [
        ("GH", "mtn", "GHS", "+233551234987", "MTN", "0551234987"),
        ("GH", "vodafone", "GHS", "+233201234987", "VOD", "0201234987"),
        ("KE", "mpesa", "KES", "+254700000000", "MPESA", "0700000000"),
        ("CI", "wave", "XOF", "+33600000000", "WAVE_CI", "+33600000000"),
    ],
)
def test_wallets(country: str, operator: str, currency: str, number: str, code: str, local: str) -> None:
    """The operator's code, and the number without what its own country leaves out."""
    payee = Payee("mobile_money", currency, country, operator, number)
    first: Any = next(PAYOUTS.send(replace(PAYING, payee=payee, currency=currency), way(payee), KEYS)).json
    assert (first["bank_code"], first["account_number"]) == (code, local)


def test_there_is_no_way_elsewhere() -> None:
    """Said before anything is called; operators are ours."""
    assert PAYOUTS.channel(replace(PAYEE, operator="moov")) is None
    assert PAYOUTS.channel(replace(PAYEE, country="SN")) is None
    assert PAYOUTS.channel(Payee("account", "NGN")) is None
    assert {one.operator for one in PAYOUTS.channels} <= {"", *OPERATORS}
    assert not PAYOUTS.idempotent and not PAYOUTS.by_name_only


@pytest.mark.parametrize(
    ("paying", "result"),
    [
        (replace(PAYING, amount_minor=0), PayoutRefused("amount")),
        (replace(PAYING, currency="GHS"), PayoutRefused("unsupported")),
        (replace(PAYING, payee=replace(PAYEE, number="0700")), PayoutRefused("bad_account")),
        (replace(PAYING, payee=replace(BANK, bank_code=""), currency="NGN"), PayoutRefused("bad_account")),
        (replace(PAYING, payee=replace(BANK, number=""), currency="NGN"), PayoutRefused("bad_account")),
        (replace(PAYING, reference="short"), NotSent("reference", alert=True)),
        (replace(PAYING, reference="CAISSE-0badcafe-po-9"), NotSent("reference", alert=True)),
    ],
)
def test_what_is_refused_before_anything_is_sent(paying: Paying, result: object) -> None:
    """Nothing leaves."""
    assert send(paying=paying) == result


def test_limits_are_the_ways_own() -> None:
    """Both ends and the step, as the settings may have them."""
    narrow = replace(way(), min_minor=5000, max_minor=6000, step_minor=5)
    for amount, fits in ((4995, False), (5000, True), (5001, False), (6000, True), (6005, False)):
        first = Conversation(PAYOUTS.send(replace(PAYING, amount_minor=amount), narrow, KEYS))
        assert bool(first.calls) is fits and (fits or first.result == PayoutRefused("amount"))


def test_a_key_of_the_wrong_mode_calls_nobody() -> None:
    """Not even a question: "not known" by the test's books would send it twice."""
    assert PAYOUTS.ask and PAYOUTS.finalize and PAYOUTS.float_
    for keys in ({}, TEST_KEYS):
        assert send(keys=keys) == NotSent("credentials", alert=True)
        assert talk(PAYOUTS.ask(PAYING, keys)).result == Unclear("credentials")
        assert talk(PAYOUTS.finalize(NAMED, "1", keys)).result == NotSent("credentials", alert=True)
        assert talk(PAYOUTS.float_(PAYEE, True, keys)).result == Unclear("credentials")
    assert next(PAYOUTS.ask(replace(PAYING, live=False), TEST_KEYS)).path.endswith(REFERENCE)


def test_what_an_answer_does_not_say_is_not_compared() -> None:
    """Neither sum nor currency; an amount alone is one of ours."""
    for unsaid in ({"currency": None}, {"amount": None}, {"amount": None, "currency": None}):
        assert send(transfer("success", **unsaid)).stage == ask(transfer("success", **unsaid)).stage == "paid"


# --- the recipient ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heard", "result"),
    [
        (UNSENT, NotSent("refused")),
        (CUT, NotSent("timeout")),
        (error(500), NotSent("provider_error")),
        (response(b"<html>", 200), NotSent("unreadable")),
        (response({"status": False, "data": {"recipient_code": "RCP_1"}}), NotSent("unreadable")),
        (recipient(recipient_code=None), NotSent("unreadable")),
        (recipient(currency="GHS"), NotSent("other_recipient")),
        (recipient(domain="test"), NotSent("test_answer_in_live", alert=True)),
        (error(401, "Invalid key"), NotSent("credentials", alert=True)),
        (error(400, "Invalid key"), NotSent("credentials", alert=True)),
        (error(403), NotSent("credentials", alert=True)),
        (error(429), NotSent("rate_limited")),
        (response(b"<html>", 404), NotSent("no_route")),
        (error(400, "System malfunction", type="api_error"), NotSent("refused")),
        (error(400, "Account number is invalid"), PayoutRefused("bad_account", "Account number is invalid")),
        (error(422, "Nope", type="validation_error"), PayoutRefused("bad_account", "Nope")),
    ],
)  # fmt: skip
def test_a_recipient_moves_no_money(heard: Response | Broken, result: object) -> None:
    """So that whatever goes wrong with it is proof, or a no about the payee; never lost."""
    assert send(heard, paying=PAYING) == result


# --- the transfer -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "stage"),
    [
        ("pending", "in_transit"), ("received", "in_transit"), ("otp", "otp"), ("success", "paid"),
        ("failed", "failed"), ("rejected", "failed"), ("abandoned", "failed"), ("blocked", "failed"),
        ("reversed", "returned"),
    ],
)  # fmt: skip
def test_every_status_has_its_stage(status: str, stage: str) -> None:
    """The same sent and asked."""
    sent, asked = send(transfer(status)), ask(transfer(status))
    assert (sent.stage, asked.stage, sent.names, sent.recipient) == (stage, stage, ("TRF_1",), "RCP_1")
    assert bool(sent.reason) is (stage == "failed")


@pytest.mark.parametrize(
    ("heard", "result"),
    [
        (UNSENT, NotSent("refused")),
        (CUT, Lost("timeout")),
        (error(500), Lost("provider_error")),
        (response(b"", 200), Lost("unreadable")),
        (response(b"[]", 200), Lost("unreadable")),
        (response({"status": True, "data": []}), Lost("unreadable")),
        (transfer("queued"), Lost("unknown_status")),
        (transfer(status=None), Lost("unknown_status")),  # type: ignore[arg-type]
        (transfer(reference="another-reference-1"), Lost("other_payout")),
        (transfer(reference=None), Lost("other_payout")),
        (transfer(amount=500_001), Lost("unreadable")),
        (transfer(amount=5000), Lost("other_payout")),
        (transfer(amount=5000, currency=None), Lost("other_payout")),
        (transfer(currency="GHS"), Lost("other_payout")),
        (transfer(amount="x"), Lost("unreadable")),
        (transfer(domain="test"), Lost("test_answer_in_live", alert=True)),
        (error(401), NotSent("credentials", alert=True)),
        (error(403), NotSent("credentials", alert=True)),
        (error(400, "Invalid key"), NotSent("credentials", alert=True)),
        (error(429), NotSent("rate_limited")),
        (response(b"<html>", 404), NotSent("no_route")),
        (response(b"<html>", 400), Lost("refused")),
        (response(b"<html>", 422), PayoutRefused("unsupported")),
        (error(400, "System Malfunction"), Lost("refused")),
        (error(400, "Declined", type="processor_error"), Lost("refused")),
        (error(400, "No", data={"transfer_code": "TRF_1"}), Lost("refused")),
        (error(400, "Please provide a unique reference", type="validation_error"), Lost("duplicate_reference")),
        (error(404, "Duplicate reference(s) found: a", type="api_error"), Lost("duplicate_reference")),
        (error(409, "No", code="duplicate_transfer"), Lost("duplicate_reference")),
        (error(400, "Odd", type="validation_error"), PayoutRefused("refused", "Odd")),
    ],
)  # fmt: skip
def test_what_a_transfer_may_come_to(heard: Response | Broken, result: object) -> None:
    """Only proof is not sent, only Paystack's own no is refused; everything else is lost, and asked about."""
    assert send(heard) == result


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("Your balance is not enough to fulfil this request", "insufficient_float"),
        ("Recipient specified is invalid", "bad_account"),
        ("You cannot initiate third party payouts as a starter business", "not_allowed"),
    ],
)
def test_why_it_was_refused(message: str, reason: str) -> None:
    """In our words, with theirs beside them."""
    assert send(error(400, message, type="validation_error")) == PayoutRefused(reason, message)
    assert send(error(400, message)).reason == reason and reason in REFUSALS


# --- codes --------------------------------------------------------------------------------------------


def test_the_code_goes_to_the_transfer() -> None:
    """By Paystack's own name, not by ours."""
    said = finalize(transfer("success"))
    assert said.calls[0] == Call(
        "POST", "/transfer/finalize_transfer", HEADERS, json={"transfer_code": "TRF_1", "otp": "123456"}
    )
    assert said.result.stage == "paid" and said.result.recipient == "RCP_1"
    assert finalize(paying=replace(NAMED, names=(REFERENCE,))).result == Lost("no_name")


@pytest.mark.parametrize(
    ("heard", "result"),
    [
        (error(400, "Invalid OTP"), PayoutTold("otp", ("TRF_1",), "RCP_1", words="Invalid OTP")),
        (error(400, "Transfer is not currently awaiting OTP", type="validation_error"), Lost("refused")),
        (error(400, "Your balance is not enough to fulfil this request"), Lost("refused")),
        (error(404, "Transfer code is invalid"), Lost("refused")),
        (response(b"", 400), Lost("refused")),
        (error(500), Lost("provider_error")),
        (error(401), NotSent("credentials", alert=True)),
        (error(429), NotSent("rate_limited")),
        (transfer("pending", reference="another-reference-1"), Lost("other_payout")),
    ],
)  # fmt: skip
def test_a_refused_code_ends_nothing(heard: Response, result: object) -> None:
    """The transfer is there: only what it says of itself is its end."""
    assert finalize(heard).result == result


def test_a_break_with_a_code_is_the_clients() -> None:
    """It makes one call, so that what was not sent is proof."""
    for broken in (UNSENT, CUT):
        with pytest.raises(Broken):
            finalize(broken)


# --- asking -------------------------------------------------------------------------------------------


def test_what_verify_tells() -> None:
    """Recipient, fee and time of a paid one; why a failed one failed."""
    more: dict[str, Any] = {
        "recipient": {"recipient_code": "RCP_7"}, "fee_charged": 1950, "transferred_at": "2026-11-21T09:00:01.000Z",
    }  # fmt: skip
    paid = PayoutTold("paid", ("TRF_1",), "RCP_7", 19, at_ms=1_795_251_601_000)
    assert ask(transfer("success", **more)) == paid
    assert ask(transfer("pending", fee_charged=0)).fee_minor is None
    failed = ask(transfer("failed", gateway_response="Cannot resolve account"))
    assert (failed.reason, failed.words) == ("bad_account", "Cannot resolve account")
    assert ask(transfer("failed")).reason == "refused"
    assert ask(transfer("success", transfer_code=None)).names == ()


@pytest.mark.parametrize(
    ("heard", "result"),
    [
        (error(404, "Transfer not found"), NotKnown()),
        (error(400, "No", code="transfer_not_found"), NotKnown()),
        (error(404, "Transfer not found", data={"transfer_code": "TRF_1"}), Unclear("refused")),
        (error(404, "Not found"), Unclear("refused")),
        (response(b"<html>", 404), Unclear("refused")),
        (error(400, "Invalid key"), Unclear("credentials")),
        (error(401), Unclear("credentials")),
        (error(429), Unclear("rate_limited")),
        (error(502), Unclear("provider_error")),
        (response(b"{", 200), Unclear("unreadable")),
        (response({"status": False, "data": {}}), Unclear("unreadable")),
        (transfer("odd"), Unclear("unknown_status")),
        (transfer("success", amount=400_000), Unclear("other_payout")),
        (transfer("success", reference="another-reference-1"), Unclear("other_payout")),
        (transfer("failed", domain="test"), Unclear("test_answer_in_live")),
    ],
)  # fmt: skip
def test_what_an_answer_may_come_to(heard: Response, result: object) -> None:
    """Not known by Paystack's own words alone: it is what sends a payout again."""
    assert ask(heard) == result


def test_one_that_was_named_is_never_not_known() -> None:
    """It was there once."""
    assert ask(error(404, "Transfer not found"), NAMED) == Unclear("not_known")
    assert ask(error(404, "Transfer not found"), replace(NAMED, names=(REFERENCE,))) == NotKnown()


@pytest.mark.parametrize(
    ("data", "result"),
    [
        ([{"currency": "XOF", "balance": 500_050}, {"currency": "NGN", "balance": 99}], {"XOF": 5000, "NGN": 99}),
        ([{"currency": "XOF", "balance": -100}], {"XOF": 0}),
        ([], {}),
        ([{"currency": "XOF"}], Unclear("unreadable")),
        ([{"currency": "XOF", "balance": 1.5}], Unclear("unreadable")),
        ([{"currency": "XOF", "balance": 1}, {"currency": "xof", "balance": 2}], Unclear("unreadable")),
        ([5], Unclear("unreadable")),
        ({}, Unclear("unreadable")),
    ],
)  # fmt: skip
def test_what_can_be_paid_out(data: object, result: object) -> None:
    """In minor units by currency, rounded down; nothing is made of what cannot be read."""
    assert float_(response({"status": True, "data": data})) == result
    assert float_(error(401)) == Unclear("credentials") and float_(error(404)) == Unclear("refused")


# --- what may be set ----------------------------------------------------------------------------------


def test_units_and_words_may_be_set() -> None:
    """XOF without two zeros, both ways; a status that is not believed to be an end."""
    facts = payouts.FACTS | {"xof_places": 0, "dead_statuses": ()}
    sent = talk(payouts.send(KNOWN, way(), KEYS, facts), transfer("pending", amount=5000))
    first: Any = sent.calls[0].json
    assert first["amount"] == 5000 and sent.result.stage == "in_transit"
    assert talk(payouts.ask(PAYING, KEYS, facts), transfer("blocked", amount=5000)).result == Unclear("unknown_status")


# --- whatever comes -----------------------------------------------------------------------------------

ASKERS: tuple[Callable[[], Any], ...] = (
    lambda: PAYOUTS.send(KNOWN, way(), KEYS),
    lambda: PAYOUTS.send(PAYING, way(), KEYS),
    lambda: payouts.finalize(NAMED, "1", KEYS),
    lambda: payouts.ask(PAYING, KEYS),
    lambda: payouts.float_(PAYEE, True, KEYS),
)


@pytest.mark.parametrize("status", [200, 302, 400, 404, 422, 500, 999])
def test_hostile_bodies_pay_nobody(status: int) -> None:
    """Nothing is raised, and no strange answer is taken for a payout, for a balance, or for "not known"."""
    for body in json_texts().values():
        for begin in ASKERS:
            conversation = Conversation(begin())
            while conversation.result is None:
                conversation.answer(status, body)
            said = conversation.result
            assert isinstance(said, NotSent | Lost | Unclear) or (status, said) == (422, PayoutRefused("unsupported"))
