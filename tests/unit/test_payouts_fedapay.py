"""FedaPay, paying out: looked for, made, started; and what each answer and each break of these comes to."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from service.payments.facts import Told
from service.providers import fedapay_payouts as payouts
from service.providers.base import NotKnown, Unclear
from service.providers.calls import OPERATORS, Broken, Call, Lost, NotSent, Response
from service.providers.payouts import REFUSALS, Payee, Paying, PayoutChannel, PayoutRefused, PayoutTold
from tests.support.conversations import Conversation
from tests.support.corpora import json_texts

PAYOUTS = payouts.PAYOUTS
KEYS = {"secret_key": (" ", "sk_live_1")}
SANDBOX = {"secret_key": ("sk_sandbox_1",)}
HEADERS = {"Authorization": "Bearer sk_live_1", "Accept": "application/json"}
REFERENCE = "caisse-0badcafe-po-9"
PAYEE = Payee("mobile_money", "XOF", "BJ", "mtn", "+22997000001", name="Awa Koffi Mensah")
MADE_MS = 1_795_251_600_000
PAYING = Paying(
    REFERENCE, "key-1", 5000, "XOF", PAYEE, "Ventes de mai", live=True, since_ms=MADE_MS, now_ms=MADE_MS + 900_000
)
NAMED = replace(PAYING, names=(REFERENCE, "77"))
KEPT = Told(("77",), (), REFERENCE)
UNSENT, CUT = Broken("refused", sent=False), Broken("timeout", sent=True)


def way(payee: Payee = PAYEE) -> PayoutChannel:
    found = PAYOUTS.channel(payee)
    assert found is not None
    return found


def response(body: object, status: int = 200) -> Response:
    return Response(status, {}, body if isinstance(body, bytes) else json.dumps(body).encode())


def error(status: int, message: str = "Non.", **errors: Any) -> Response:
    return response({"message": message, "errors": errors}, status)


def entity(status: str, **more: Any) -> dict[str, Any]:
    return {
        "klass": "v1/payout", "id": 77, "amount": 5000, "status": status, "currency_id": 1, "mode": "mtn_open",
        "merchant_reference": REFERENCE, "created_at": "2026-11-21T09:00:00.000Z",
    } | more  # fmt: skip


def one(status: str = "pending", **more: Any) -> Response:
    return response({"v1/payout": entity(status, **more)})


def started(status: str = "started", **more: Any) -> Response:
    return response({"v1/payouts": [entity(status, **more)]})


NONE, PENDING = error(404, "Dépôt introuvable"), one()


def talk(generator: Any, *heard: Response | Broken) -> Conversation:
    conversation = Conversation(generator)
    for it in heard:
        conversation.hear(it)
    assert len(conversation.calls) == len(heard), "asked more, or less, than was answered"
    return conversation


def sending(*heard: Response | Broken, paying: Paying = PAYING, keys: Any = KEYS) -> Conversation:
    return talk(PAYOUTS.send(paying, way(paying.payee), keys), *heard)


def send(*heard: Response | Broken, paying: Paying = PAYING, keys: Any = KEYS) -> Any:
    return sending(*heard, paying=paying, keys=keys).result


def ask(*heard: Response | Broken, paying: Paying = PAYING) -> Any:
    assert PAYOUTS.ask is not None
    return talk(PAYOUTS.ask(paying, KEYS), *heard).result


def paths(conversation: Conversation) -> list[str]:
    return [call.shown for call in conversation.calls]


LOOK, LOOK_BY_NAME = f"GET /v1/payouts/merchant/{REFERENCE}", "GET /v1/payouts/77"
CREATE, START = "POST /v1/payouts", "PUT /v1/payouts/start"

# --- what goes out ------------------------------------------------------------------------------------


def test_it_is_looked_for_made_and_started() -> None:
    """Whole francs, the operator's mode, and the payee's number again with the start."""
    said = sending(NONE, one(), started())
    look, made, start = said.calls
    assert look == Call("GET", f"/v1/payouts/merchant/{REFERENCE}?include=currency", HEADERS)
    phone = {"number": "+22997000001", "country": "bj"}
    assert made == Call(
        "POST",
        "/v1/payouts",
        HEADERS | {"Idempotency-Key": "key-1"},
        json={
            "amount": 5000, "currency": {"iso": "XOF"}, "mode": "mtn_open", "description": "Ventes de mai",
            "customer": {"firstname": "Awa", "lastname": "Koffi Mensah", "phone_number": phone},
            "merchant_reference": REFERENCE, "custom_metadata": {"reference": REFERENCE}, "include": "currency",
        },
    )  # fmt: skip
    assert start == Call("PUT", "/v1/payouts/start", HEADERS, json={"payouts": [{"id": 77, "phone_number": phone}]})
    assert said.result == PayoutTold("in_transit", ("77",), at_ms=MADE_MS)


def test_the_sandbox_has_one_mode_and_numbers_of_its_own() -> None:
    """By its key, as for payments."""
    paying = replace(PAYING, live=False, payee=replace(PAYEE, number="+22964000001", name=""))
    said = sending(NONE, one(mode="momo_test"), started(mode="momo_test"), paying=paying, keys=SANDBOX)
    body: Any = said.calls[1].json
    assert body["mode"] == "momo_test"
    assert body["customer"] == {"phone_number": {"number": "64000001", "country": "bj"}}
    assert said.result.stage == "in_transit"


@pytest.mark.parametrize(
    ("paying", "keys", "result"),
    [
        (replace(PAYING, amount_minor=0), KEYS, PayoutRefused("amount")),
        (replace(PAYING, currency="XAF"), KEYS, PayoutRefused("unsupported")),
        (replace(PAYING, payee=replace(PAYEE, number="97")), KEYS, PayoutRefused("bad_account")),
        (PAYING, {}, NotSent("credentials", alert=True)),
        (PAYING, SANDBOX, NotSent("credentials", alert=True)),
    ],
)
def test_what_is_refused_before_anything_is_sent(paying: Paying, keys: Any, result: object) -> None:
    """Nothing leaves."""
    assert send(paying=paying, keys=keys) == result


def test_limits_are_the_ways_own() -> None:
    """Both ends and the step, as the settings may have them."""
    narrow = replace(way(), min_minor=500, max_minor=600, step_minor=5)
    for amount, fits in ((495, False), (500, True), (501, False), (600, True), (605, False)):
        first = Conversation(PAYOUTS.send(replace(PAYING, amount_minor=amount), narrow, KEYS))
        assert bool(first.calls) is fits and (fits or first.result == PayoutRefused("amount"))


def test_there_is_no_way_elsewhere() -> None:
    """Said before anything is called; operators are ours."""
    assert PAYOUTS.channel(replace(PAYEE, operator="orange")) is None
    assert PAYOUTS.channel(replace(PAYEE, kind="bank")) is None
    assert {channel.operator for channel in PAYOUTS.channels} <= set(OPERATORS)
    assert not PAYOUTS.idempotent and not PAYOUTS.by_name_only and PAYOUTS.finalize is None


# --- never twice --------------------------------------------------------------------------------------


def test_what_is_there_already_is_not_made_again() -> None:
    """Found pending it is the one that is started; by its name where that is known."""
    assert paths(sending(PENDING, started())) == [LOOK, START]
    assert paths(sending(PENDING, started(), paying=NAMED)) == [LOOK_BY_NAME, START]


@pytest.mark.parametrize("status", ["started", "processing", "sent", "failed"])
def test_what_was_started_is_never_started_again(status: str) -> None:
    """Whatever it is now is only told."""
    said = sending(one(status))
    assert paths(said) == [LOOK] and isinstance(said.result, PayoutTold)
    assert send(one("odd")) == Lost("unknown_status")


@pytest.mark.parametrize(
    ("heard", "result"),
    [
        (UNSENT, NotSent("refused")),
        (CUT, NotSent("timeout")),
        (error(500), NotSent("provider_error")),
        (error(429), NotSent("rate_limited")),
        (error(401), NotSent("credentials", alert=True)),
        (response(b"<html>", 404), NotSent("no_route")),
        (response(b"{"), NotSent("unreadable")),
        (one(amount=4000), Lost("other_payout")),
        (one(merchant_reference="another"), Lost("other_payout")),
        (one(merchant_reference=None), Lost("other_payout")),
        (one(currency={"iso": "GNF"}), Lost("other_payout")),
        (one(mode="momo_test"), Lost("test_answer_in_live", alert=True)),
    ],
)  # fmt: skip
def test_a_look_that_tells_nothing_makes_nothing(heard: Response | Broken, result: object) -> None:
    """It moves nothing, and without it nothing is made."""
    assert send(heard) == result


def test_one_that_was_named_and_is_gone_is_a_persons() -> None:
    """Neither made again, nor not known."""
    assert send(NONE, paying=NAMED) == Lost("not_known")
    assert ask(NONE, paying=NAMED) == Unclear("not_known")
    assert send(one(id=78), paying=NAMED) == Lost("other_payout")


@pytest.mark.parametrize(
    ("heard", "result"),
    [
        (UNSENT, NotSent("refused")),
        (CUT, NotSent("timeout")),
        (error(500), NotSent("provider_error")),
        (error(429), NotSent("rate_limited")),
        (error(403), NotSent("credentials", alert=True)),
        (error(404), NotSent("no_route")),
        (response(b"{"), NotSent("unreadable")),
        (response(b"<html>", 422), NotSent("refused")),
        (one(id=None), NotSent("unreadable")),
        (one(amount=None, currency_id=None, status="odd"), Lost("unknown_status")),
        (one(amount=5001), Lost("other_payout")),
        (one(amount="5000.5"), NotSent("unreadable")),
        (error(422, "Non", customer="Le numéro n'est pas valide"), PayoutRefused("bad_account", "Non")),
        (error(422, "Non", mode="inconnu"), PayoutRefused("unsupported", "Non")),
        (error(400, "Montant trop petit"), PayoutRefused("amount", "Montant trop petit")),
        (error(422, "Solde insuffisant"), PayoutRefused("insufficient_float", "Solde insuffisant")),
        (error(422, "Non"), PayoutRefused("refused", "Non")),
    ],
)  # fmt: skip
def test_making_it_moves_no_money(heard: Response | Broken, result: object) -> None:
    """So that whatever breaks there is proof; nothing is started."""
    assert send(NONE, heard) == result


def test_a_reference_that_is_taken_leads_to_the_one_that_has_it() -> None:
    """A create whose answer was lost, and whose payout was not to be seen yet."""
    taken = error(422, "Non", merchant_reference="La référence est déjà utilisée")
    assert paths(sending(NONE, taken, PENDING, started())) == [LOOK, CREATE, LOOK, START]
    assert send(NONE, taken, one("sent")).stage == "paid"
    assert send(NONE, taken, NONE) == NotSent("reference_taken")
    assert send(NONE, taken, CUT) == NotSent("timeout")


@pytest.mark.parametrize(
    ("heard", "result"),
    [
        (UNSENT, NotSent("refused")),
        (CUT, Lost("timeout", KEPT)),
        (error(500), Lost("provider_error", KEPT)),
        (response(b"{"), Lost("unreadable", KEPT)),
        (response({"v1/payouts": []}), Lost("unreadable", KEPT)),
        (started(id=78), Lost("unreadable", KEPT)),
        (started(amount=1), Lost("other_payout", KEPT)),
        (started(merchant_reference="another"), Lost("other_payout", KEPT)),
        (started(mode="momo_test"), Lost("test_answer_in_live", KEPT, alert=True)),
        (started("pending"), Lost("not_started", KEPT)),
        (started("odd"), Lost("unknown_status", KEPT)),
        (error(401), NotSent("credentials", alert=True)),
        (error(429), NotSent("rate_limited")),
        (response(b"<html>", 404), NotSent("no_route")),
    ],
)  # fmt: skip
def test_the_start_is_what_pays(heard: Response | Broken, result: object) -> None:
    """After it left, whatever goes wrong is lost, with FedaPay's number of it."""
    assert send(PENDING, heard) == result


def test_what_a_start_tells() -> None:
    """As an object or a bare array, with or without our reference."""
    assert send(PENDING, started("sent", merchant_reference=None)).stage == "paid"
    assert send(PENDING, response([entity("processing")])).stage == "in_transit"
    failed = send(PENDING, started("failed", last_error_message="Numéro inconnu"))
    assert failed == PayoutTold("failed", ("77",), reason="bad_account", words="Numéro inconnu", at_ms=MADE_MS)


def test_a_refused_start_is_asked_what_it_is() -> None:
    """It may have been refused because it is started: only pending afterwards is a definite no."""
    refused = error(422, "Solde insuffisant")
    assert send(PENDING, refused, PENDING) == PayoutRefused("insufficient_float", "Solde insuffisant")
    assert send(PENDING, error(400, "Non"), PENDING) == PayoutRefused("refused", "Non")
    assert send(PENDING, response(b"<html>", 409), PENDING) == NotSent("refused")
    already = error(422, "Le dépôt a déjà été démarré")
    assert send(PENDING, already, one("sent")).stage == "paid"
    assert send(PENDING, already, one("odd")) == Lost("unknown_status", KEPT)
    assert send(PENDING, already, CUT) == Lost("timeout", KEPT)
    assert send(PENDING, already, NONE) == Lost("not_known", KEPT)
    assert paths(sending(PENDING, already, one("sent"))) == [LOOK, START, LOOK_BY_NAME]


# --- asking -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "stage"),
    [("started", "in_transit"), ("processing", "in_transit"), ("sent", "paid"), ("failed", "failed")],
)
def test_every_status_has_its_stage(status: str, stage: str) -> None:
    """By our reference or by its name."""
    assert ask(one(status)).stage == ask(one(status), paying=NAMED).stage == stage
    assert ask(one(status)).names == ("77",)


def test_what_was_sent_and_failed_came_back() -> None:
    """No status is documented for it."""
    back = one("failed", sent_at="2026-11-21T09:00:00.000Z", last_error_code="PAYOUT_RETURNED")
    assert ask(back).stage == "returned" and ask(back).words == "PAYOUT_RETURNED"


def test_pending_is_not_known_once_no_start_can_be_on_its_way() -> None:
    """Counted from the last that happened to it, on either clock; and it starts nothing."""
    early = replace(PAYING, now_ms=MADE_MS + 899_999)
    assert ask(PENDING) == NotKnown() and ask(PENDING, paying=NAMED) == NotKnown()
    assert ask(PENDING, paying=early) == Unclear("not_started")
    assert ask(one(updated_at="2026-11-21T09:00:00.001Z")) == Unclear("not_started")
    assert ask(PENDING, paying=replace(early, since_ms=0)) == Unclear("not_started")
    assert ask(PENDING, paying=replace(PAYING, since_ms=MADE_MS + 1)) == Unclear("not_started")
    assert ask(one(created_at=None), paying=replace(PAYING, since_ms=0)) == Unclear("not_started")


@pytest.mark.parametrize(
    ("heard", "result"),
    [
        (NONE, NotKnown()),
        (CUT, Unclear("timeout")),
        (error(404, "No route matches"), Unclear("no_route")),
        (response(b"<html>", 404), Unclear("no_route")),
        (error(401), Unclear("credentials")),
        (error(429), Unclear("rate_limited")),
        (error(500), Unclear("provider_error")),
        (error(400), Unclear("refused")),
        (response({"v1/transaction": entity("sent")}), Unclear("unreadable")),
        (one("odd"), Unclear("unknown_status")),
        (one("sent", amount=4999), Unclear("other_payout")),
        (one("sent", currency={"iso": "XAF"}), Unclear("other_payout")),
        (one("sent", merchant_reference="another"), Unclear("other_payout")),
        (one("failed", mode="momo_test"), Unclear("test_answer_in_live")),
    ],
)  # fmt: skip
def test_what_an_answer_may_come_to(heard: Response | Broken, result: object) -> None:
    """Not known by FedaPay's own words alone: it is what sends a payout again."""
    assert ask(heard) == result


def test_our_reference_may_stand_in_the_notes() -> None:
    """Where an answer has no other place for it."""
    assert ask(one("sent", merchant_reference=None, custom_metadata={"reference": REFERENCE})).stage == "paid"
    assert ask(one("sent", merchant_reference=None), paying=NAMED).stage == "paid"
    assert talk(payouts.ask(PAYING, SANDBOX)).result == Unclear("credentials")


def balance(heard: Response, payee: Payee = PAYEE, keys: Any = KEYS, live: bool = True) -> Any:
    assert PAYOUTS.float_ is not None
    return talk(PAYOUTS.float_(payee, live, keys), heard).result


def test_what_can_be_paid_out_is_the_operators_own() -> None:
    """A balance for each mode, which do not stand in for each other."""
    items = [{"mode": "mtn_open", "amount": 700}, {"mode": "moov", "amount": "30"}, {"mode": "momo_test", "amount": 5}]
    said = response({"v1/balances": items})
    assert balance(said) == {"XOF": 700} and balance(response(items)) == {"XOF": 700}
    assert balance(said, replace(PAYEE, operator="moov")) == {"XOF": 30}
    assert balance(said, keys=SANDBOX, live=False) == {"XOF": 5}
    assert balance(said, replace(PAYEE, operator="celtiis")) == Unclear("no_balance")
    assert balance(response({"v1/balances": [*items, *items]})) == Unclear("unreadable")
    assert balance(response({"v1/balances": [{"mode": "mtn_open", "amount": -1}]})) == Unclear("unreadable")
    assert balance(error(403)) == Unclear("credentials") and balance(error(404)) == Unclear("refused")
    assert talk(payouts.float_(PAYEE, True, SANDBOX)).result == Unclear("credentials")


# --- what may be set ----------------------------------------------------------------------------------


def test_paths_and_bodies_may_be_set() -> None:
    """A bare array to start with, another path to look at, more patience."""
    facts = payouts.FACTS | {
        "payout_start_field": "", "payout_find_path": "/v1/p?ref={reference}&a=b", "settles_after_ms": 0,
    }  # fmt: skip
    said = talk(payouts.send(PAYING, way(), KEYS, facts), PENDING, started())
    body: Any = said.calls[1].json
    assert body[0]["id"] == 77 and said.calls[0].path.startswith(f"/v1/p?ref={REFERENCE}")
    early = replace(PAYING, now_ms=MADE_MS)
    assert talk(payouts.ask(early, KEYS, facts), PENDING).result == NotKnown()
    assert {why for _, why in payouts.REFUSED} <= set(REFUSALS)


# --- whatever comes -----------------------------------------------------------------------------------

ASKERS: tuple[Callable[[], Conversation], ...] = (
    lambda: Conversation(PAYOUTS.send(PAYING, way(), KEYS)),
    lambda: Conversation(PAYOUTS.send(PAYING, way(), KEYS)).hear(NONE),
    lambda: Conversation(PAYOUTS.send(PAYING, way(), KEYS)).hear(PENDING),
    lambda: Conversation(payouts.ask(PAYING, KEYS)),
    lambda: Conversation(payouts.float_(PAYEE, True, KEYS)),
)


@pytest.mark.parametrize("status", [200, 302, 404, 500, 999])
def test_hostile_bodies_pay_nobody(status: int) -> None:
    """Nothing is raised, and no strange answer is taken for a payout, for a balance, or for "not known"."""
    for body in json_texts().values():
        for begin in ASKERS:
            conversation = begin()
            while conversation.result is None:
                conversation.answer(status, body)
            assert isinstance(conversation.result, NotSent | Lost | Unclear)
