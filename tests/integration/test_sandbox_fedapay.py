"""The sandbox's FedaPay against what caisse really sends it, over a real socket; the books are the truth."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from service.payments.facts import Kind, Reason, Told
from service.providers.base import NotFinal, NotKnown
from service.providers.calls import Accepted, Approve, Listed, Lost, NotCanceled, NotSent, Redirect, broken_create
from service.providers.fedapay_calls import CALLS, create
from service.sandbox.bank import PROMPT_MS, Payer, Refund
from service.sandbox.desk import Account
from tests.support.sandbox import PHONES, RETURN_URL, WANTED, Trial, trial

REFERENCE = WANTED["fedapay"].reference
TRANSACTION: dict[str, Any] = {
    "description": "Deux sacs de riz",
    "amount": 1500,
    "currency": {"iso": "XOF"},
    "callback_url": RETURN_URL,
    "merchant_reference": "by-hand-1",
    "customer": {"email": "awa@shop.example", "phone_number": {"number": "+22997000001", "country": "bj"}},
}


def play(story: Callable[[Trial], Awaitable[None]], anybody: Payer | None = None) -> None:
    async def run() -> None:
        async with trial(anybody=anybody) as t:
            await story(t)

    asyncio.run(run())


async def asked(t: Trial, **more: Any) -> str:
    """A transaction in the books; its number."""
    result = await t.create("fedapay", **more)
    assert isinstance(result, Accepted), result
    return result.told.references[0]


def test_a_phone_is_asked_approves_and_is_charged_once() -> None:
    """Transaction, token, push; then approved, by our reference, by its number and by callback alike."""

    async def story(t: Trial) -> None:
        result = await t.create("fedapay")
        assert isinstance(result, Accepted) and isinstance(result.action, Approve)
        number, trx = result.told.references
        assert isinstance(await t.fetch("fedapay", number), NotFinal)
        await t.sandbox.tick()
        for answer in (await t.fetch("fedapay", number), await t.find("fedapay")):
            assert isinstance(answer, Told) and answer.references == (number, trx)
            fact = answer.facts[0]
            assert (fact.kind, fact.amount_minor, fact.currency) == (Kind.CAPTURED, 1500, "XOF")
        assert t.kinds() == ["pending", "captured"]
        assert [told.reference for told in t.told()] == [REFERENCE, REFERENCE]
        assert [one.captured_minor for one in t.sandbox.bank.charged(REFERENCE)] == [1500]
        assert t.charge().operator == "mtn_open" and t.charge().phone == PHONES["fedapay"]

    play(story)


@pytest.mark.parametrize(
    ("choice", "kind", "word"),
    [("pay", Kind.CAPTURED, "approved"), ("fail", Kind.FAILED, "declined"), ("abandon", Kind.CANCELED, "canceled")],
)
def test_the_page_ends_as_it_was_left(choice: Any, kind: Kind, word: str) -> None:
    """Pay, fail, abandon: the browser goes back with number and status, and asking says the same."""

    async def story(t: Trial) -> None:
        result = await t.create("fedapay", operator="", payer_phone="")
        assert isinstance(result, Accepted) and isinstance(result.action, Redirect)
        number = result.told.references[0]
        assert t.sandbox.visit(result.action.url, choice) == f"{RETURN_URL}?id={number}&status={word}"
        answer = await t.fetch("fedapay", number)
        assert isinstance(answer, Told) and answer.facts[0].kind is kind
        assert len(t.sandbox.bank.charged()) == (choice == "pay")

    play(story)


@pytest.mark.parametrize("reason", sorted(set(Reason) - {Reason.UNKNOWN, Reason.NUMBER_MISMATCH}))
def test_every_reason_of_a_decline_arrives(reason: Reason) -> None:
    """What the payer's bank says reaches the adapter's vocabulary, by callback and by asking."""

    async def story(t: Trial) -> None:
        t.sandbox.bank.set_payer(PHONES["fedapay"], Payer("declines", reason))
        number = await asked(t)
        await t.sandbox.tick()
        answer = await t.fetch("fedapay", number)
        assert isinstance(answer, Told)
        assert (answer.facts[0].reason, t.told()[-1].facts[0].reason) == (reason, reason)
        assert t.sandbox.bank.charged() == []

    play(story)


def test_a_prompt_lapses_and_a_transaction_too() -> None:
    """An unanswered push is declined; a page that nobody pays expires after a day."""

    async def story(t: Trial) -> None:
        pushed = await asked(t)
        paged = await asked(t, operator="", payer_phone="", reference="second")
        t.clock.advance(PROMPT_MS)
        await t.sandbox.tick()
        answer = await t.fetch("fedapay", pushed)
        assert isinstance(answer, Told) and answer.facts[0].reason is Reason.TIMED_OUT
        t.clock.advance(24 * 3_600_000)
        await t.sandbox.tick()
        found = await t.find("fedapay", "second")
        assert isinstance(found, Told) and found.references[0] == paged and found.facts[0].kind is Kind.EXPIRED

    play(story, Payer("waits"))


def test_a_pending_one_can_be_deleted_and_a_paid_one_cannot() -> None:
    """Deleted is dead: nobody can pay it any more; paid stays paid."""

    async def story(t: Trial) -> None:
        number = await asked(t)
        gone = await t.cancel("fedapay", number)
        assert isinstance(gone, Told) and gone.facts[0].kind is Kind.CANCELED
        await t.sandbox.tick()
        answer = await t.fetch("fedapay", number)
        assert isinstance(answer, Told) and answer.facts[0].kind is Kind.CANCELED
        assert t.kinds() == ["pending", "canceled"] and t.sandbox.bank.charged() == []
        paid = await asked(t, reference="paid")
        await t.sandbox.tick()
        assert await t.cancel("fedapay", paid, reference="paid") == NotCanceled()
        assert len(t.sandbox.bank.charged("paid")) == 1

    play(story)


def test_a_reference_is_taken_once() -> None:
    """The second transaction with it is refused, and that proves that the first arrived."""

    async def story(t: Trial) -> None:
        await asked(t)
        again = await t.create("fedapay")
        assert isinstance(again, Lost) and again.reason == "reference_taken"
        await t.sandbox.tick()
        assert len(t.sandbox.bank.charged()) == 1
        assert isinstance(await t.find("fedapay", "never-seen"), NotKnown)

    play(story)


def test_a_refused_push_leaves_nothing_behind() -> None:
    """The token is there and the push refused: our adapter deletes the transaction, and nobody can pay it."""

    async def story(t: Trial) -> None:
        result = await t.create("fedapay", payer_phone="+2250")
        assert isinstance(result, NotSent)
        await t.sandbox.tick()
        assert (t.charge().state, t.sandbox.bank.charged()) == ("canceled", [])

    play(story)


def test_a_later_approval_of_a_declined_one_is_told() -> None:
    """As FedaPay documents: declined, then approved on the same transaction."""

    async def story(t: Trial) -> None:
        t.sandbox.bank.set_payer(PHONES["fedapay"], Payer("declines"))
        number = await asked(t)
        await t.sandbox.tick()
        assert t.sandbox.bank.pay(t.charge(), late=True)
        await t.sandbox.tick()
        assert t.kinds() == ["pending", "failed", "captured"]
        answer = await t.fetch("fedapay", number)
        assert isinstance(answer, Told) and answer.facts[0].kind is Kind.CAPTURED

    play(story)


def test_a_refund_of_the_dashboard_is_seen() -> None:
    """A part, then all of it: told by status and sum, never asked for by us."""

    async def story(t: Trial) -> None:
        number = await asked(t)
        await t.sandbox.tick()
        for amount, total in ((500, 500), (1000, 1500)):
            t.sandbox.bank.refund(t.charge(), Refund(f"dashboard-{amount}", amount))
            await t.sandbox.tick()
            answer = await t.fetch("fedapay", number)
            assert isinstance(answer, Told)
            back = {fact.kind: fact.amount_minor for fact in answer.facts}
            assert back == {Kind.CAPTURED: 1500, Kind.REFUNDED_TOTAL: total}

    play(story)


def test_the_list_has_what_there_is() -> None:
    """Two pages, all references, no more."""

    async def story(t: Trial) -> None:
        for number in range(103):
            t_ = TRANSACTION | {"merchant_reference": f"r{number}"}
            assert (await t.ask("fedapay", "POST", "/v1/transactions", json=t_))[0] == 201
        first = await t.listed("fedapay")
        assert isinstance(first, Listed) and len(first.told) == 100
        rest = await t.listed("fedapay", first.cursor)
        assert len({told.reference for told in (*first.told, *rest.told)}) == 103
        assert rest.cursor is None and rest.unread == 0

    play(story)


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"description": ""}, "description"),
        ({"amount": 1500.5}, "amount"),
        ({"amount": 1500.0}, "amount"),
        ({"amount": "1500"}, "amount"),
        ({"amount": True}, "amount"),
        ({"amount": 0}, "amount"),
        ({"amount": -5}, "amount"),
        ({"amount": 10**12}, "amount"),
        ({"currency": "XOF"}, "currency"),
        ({"currency": {"iso": "EUR"}}, "currency"),
        ({"currency": None}, "currency"),
        ({"callback_url": "merci"}, "callback_url"),
        ({"merchant_reference": 7}, "merchant_reference"),
        ({"customer": {"email": "nobody"}}, "email"),
        ({"customer": {"phone_number": {"number": "+22997000001", "country": "BJ"}}}, "phone_number"),
        ({"custom_metadata": "none"}, "custom_metadata"),
    ],
)
def test_what_the_documentation_refuses_is_refused_in_its_shape(said: dict[str, Any], field: str) -> None:
    """Nothing is made, and the answer is FedaPay's: a message, and errors by field."""

    async def story(t: Trial) -> None:
        status, body = await t.ask("fedapay", "POST", "/v1/transactions", json=TRANSACTION | said)
        assert (status, list(body["errors"])) == (422, [field]) and body["message"]
        assert t.sandbox.bank.books() == []

    play(story)


@pytest.mark.parametrize(
    ("path", "said", "field"),
    [
        ("/v1/mtn_ci", {}, "mode"),  # another country's
        ("/v1/momo_test", {}, "mode"),  # the sandbox's, with a live key
        ("/v1/mtn_open", {"phone_number": {"number": "12", "country": "bj"}}, "phone_number"),
        ("/v1/mtn_open", {"phone_number": None}, "phone_number"),
        ("/v1/mtn_open", {"token": "another"}, "token"),
    ],
)
def test_a_push_is_refused_where_it_does_not_fit(path: str, said: dict[str, Any], field: str) -> None:
    """Mode, country, token and number are looked at; no phone rings."""

    async def story(t: Trial) -> None:
        _, made = await t.ask("fedapay", "POST", "/v1/transactions", json=TRANSACTION)
        number = made["v1/transaction"]["id"]
        _, given = await t.ask("fedapay", "POST", f"/v1/transactions/{number}/token", json={})
        asked = {"token": given["token"], "phone_number": {"number": "+22997000001", "country": "bj"}}
        status, body = await t.ask("fedapay", "POST", path, json=asked | said)
        assert (status, list(body["errors"])) == (422, [field])
        assert t.sandbox.bank.waiting("22997000001") == []

    play(story)


def test_a_sandbox_key_has_one_mode_and_national_numbers() -> None:
    """`momo_test` and nothing else, the number without its country's code; told as test money."""

    async def story(t: Trial) -> None:
        account = Account("fedapay", {"secret_key": ("sk_sandbox_1",)}, name="test", live=False)
        t.sandbox.desk.accounts = (*t.sandbox.desk.accounts, account)
        wanted = replace(WANTED["fedapay"], live=False)
        channel = CALLS.channel("mobile_money", "XOF", "BJ", "mtn")
        assert channel is not None
        result = await t.run("fedapay", create(wanted, channel, account.credentials), broken_create)
        assert isinstance(result, Accepted) and isinstance(result.action, Approve)
        await t.sandbox.tick()
        (charge,) = t.sandbox.bank.charged(REFERENCE)
        assert (charge.operator, charge.phone) == ("momo_test", "97000001")

    play(story)


def test_a_wrong_key_is_refused() -> None:
    """401, by our adapter an alert."""

    async def story(t: Trial) -> None:
        t.sandbox.trouble.on("fedapay", "unauthorized", times=1)
        assert await t.create("fedapay") == NotSent("credentials", alert=True)
        headers = {"Authorization": "Bearer sk_live_other"}
        status, body = await t.ask("fedapay", "POST", "/v1/transactions", json=TRANSACTION, headers=headers)
        assert status == 401 and body["message"] and t.sandbox.bank.books() == []

    play(story)
