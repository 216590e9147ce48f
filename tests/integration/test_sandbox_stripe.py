"""The sandbox's Stripe against what caisse really sends it, over a real socket; the books are the truth."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from service.payments.facts import Kind, Reason, Told
from service.providers.base import NotFinal, NotKnown
from service.providers.calls import (
    Accepted,
    Confirm,
    Listed,
    Lost,
    NotCanceled,
    NotSent,
    Redirect,
    Refunding,
    RefundRefused,
)
from service.sandbox.bank import Payer
from tests.support.sandbox import RETURN_URL, WANTED, Trial, trial

REFERENCE = WANTED["stripe"].reference
SESSIONS, INTENTS = "/v1/checkout/sessions", "/v1/payment_intents"
SESSION = {
    "mode": "payment",
    "payment_method_types[0]": "card",
    "line_items[0][price_data][currency]": "eur",
    "line_items[0][price_data][unit_amount]": "1500",
    "line_items[0][price_data][product_data][name]": "Riz",
    "line_items[0][quantity]": "1",
    "client_reference_id": "by-hand-1",
    "success_url": "http://127.0.0.1/merci?s={CHECKOUT_SESSION_ID}",
    "cancel_url": "http://127.0.0.1/panier",
    "metadata[order]": "7",
}


def play(story: Callable[[Trial], Awaitable[None]], anybody: Payer | None = None) -> None:
    async def run() -> None:
        async with trial(anybody=anybody) as t:
            await story(t)

    asyncio.run(run())


async def opened(t: Trial, **more: Any) -> tuple[str, str]:
    """A session; its id and its page."""
    result = await t.create("stripe", **more)
    assert isinstance(result, Accepted) and isinstance(result.action, Redirect), result
    return result.told.references[0], result.action.url


def test_a_session_is_paid_on_its_page_and_charged_once() -> None:
    """Open, then paid: asking by id, by our reference, and three events name one capture."""

    async def story(t: Trial) -> None:
        session, url = await opened(t)
        assert isinstance(await t.fetch("stripe", session), NotFinal)
        assert t.sandbox.visit(url, "pay") == RETURN_URL
        await t.sandbox.tick()
        for answer in (await t.fetch("stripe", session), await t.find("stripe")):
            assert isinstance(answer, Told)
            (fact,) = answer.facts
            assert (fact.kind, fact.amount_minor, fact.currency) == (Kind.CAPTURED, 1500, "EUR")
        told = t.told()
        assert {one.facts[0].movement for one in told} == {answer.references[0]} and len(told) == 3
        assert {one.reference for one in told} == {REFERENCE}
        t.sandbox.visit(url, "pay")
        assert [one.captured_minor for one in t.sandbox.bank.charged(REFERENCE)] == [1500]

    play(story)


def test_a_declined_card_may_be_followed_by_another_on_the_same_page() -> None:
    """A decline is a try of its own; the session stays open, and the next card pays."""

    async def story(t: Trial) -> None:
        session, url = await opened(t)
        t.sandbox.visit(url, "fail", Reason.INSUFFICIENT_FUNDS)
        t.clock.advance(1000)
        t.sandbox.visit(url, "fail", Reason.WRONG_PIN)
        await t.sandbox.tick()
        tries = {one.facts[0].movement: one.facts[0].reason for one in t.told()}
        assert set(t.kinds()) == {"try_failed"}
        assert sorted(filter(None, tries.values())) == [Reason.INSUFFICIENT_FUNDS, Reason.WRONG_PIN] and len(tries) == 2
        assert isinstance(await t.fetch("stripe", session), NotFinal)
        t.sandbox.visit(url, "pay")
        answer = await t.fetch("stripe", session)
        assert isinstance(answer, Told) and answer.facts[0].kind is Kind.CAPTURED
        assert len(t.sandbox.bank.charged()) == 1

    play(story)


def test_an_abandoned_session_lapses_when_its_time_is_up() -> None:
    """Who leaves goes to cancel_url, and may come back until `expires_at`."""

    async def story(t: Trial) -> None:
        session, url = await opened(t, expires_at_ms=t.clock.now_ms + 3_600_000)
        assert t.sandbox.visit(url, "abandon") == RETURN_URL
        t.clock.advance(3_600_000 - 1)
        await t.sandbox.tick()
        assert isinstance(await t.fetch("stripe", session), NotFinal)
        t.clock.advance(1)
        await t.sandbox.tick()
        answer = await t.fetch("stripe", session)
        assert isinstance(answer, Told) and answer.facts[0].kind is Kind.EXPIRED
        t.sandbox.visit(url, "pay")
        assert t.kinds() == ["expired"] and t.sandbox.bank.charged() == []

    play(story)


def test_a_time_that_is_too_near_is_refused_and_asked_for_again_without() -> None:
    """`expires_at` has to be half an hour away; our adapter then takes the day that Stripe gives."""

    async def story(t: Trial) -> None:
        await opened(t, expires_at_ms=t.clock.now_ms + 60_000)
        assert t.charge().expires_ms == t.clock.now_ms + 24 * 3_600_000

    play(story)


def test_a_repeated_key_brings_the_first_answer() -> None:
    """The answer was lost; the same call with its key makes no second session, another sum under it is refused."""

    async def story(t: Trial) -> None:
        t.sandbox.trouble.on("stripe", "reset", times=1)
        assert isinstance(await t.create("stripe"), Lost)
        session, _ = await opened(t)
        assert (t.charge().id, len(t.sandbox.bank.books())) == (session, 1)
        other = await t.create("stripe", amount_minor=1600)
        assert isinstance(other, Lost) and other.reason == "idempotency_error"
        headers = {"Authorization": "Bearer sk_live_stripe", "Idempotency-Key": "k"}
        for _ in range(2):
            status, _ = await t.ask("stripe", "POST", SESSIONS, data=SESSION, headers=headers)
            assert status == 200
        assert len(t.sandbox.bank.books()) == 2

    play(story)


def test_a_stored_500_is_brought_back_too() -> None:
    """Done, answered 500, and kept so under the key for a day: only asking by our reference finds it."""

    async def story(t: Trial) -> None:
        t.sandbox.trouble.on("stripe", "error_5xx_after", times=1)
        assert isinstance(await t.create("stripe"), Lost)
        assert isinstance(await t.create("stripe"), Lost)
        found = await t.find("stripe")
        assert isinstance(found, NotFinal) and found.told is not None and found.told.reference == REFERENCE
        assert len(t.sandbox.bank.books()) == 1

    play(story)


def test_a_500_before_anything_was_begun_is_not_kept() -> None:
    """The same key makes what was not made."""

    async def story(t: Trial) -> None:
        t.sandbox.trouble.on("stripe", "error_5xx_before", times=1)
        assert isinstance(await t.create("stripe"), Lost)
        assert t.sandbox.bank.books() == []
        await opened(t)

    play(story)


def test_an_open_session_is_expired_and_a_paid_one_is_not() -> None:
    """Cancelling is expiring; refused, our adapter asks and hears that it was paid."""

    async def story(t: Trial) -> None:
        session, url = await opened(t)
        gone = await t.cancel("stripe", session)
        assert isinstance(gone, Told) and gone.facts[0].kind is Kind.EXPIRED
        t.sandbox.visit(url, "pay")
        assert t.sandbox.bank.charged() == []
        paid, url = await opened(t, key="key-2", reference="second")
        t.sandbox.visit(url, "pay")
        late = await t.cancel("stripe", paid, reference="second")
        status, body = await t.ask("stripe", "POST", f"{SESSIONS}/{paid}/expire")
        assert (status, body["error"]["type"]) == (400, "invalid_request_error")
        assert isinstance(late, NotCanceled) and late.told is not None and late.told.facts[0].kind is Kind.CAPTURED
        assert len(t.sandbox.bank.charged("second")) == 1

    play(story)


def test_a_payment_intent_is_confirmed_on_the_merchants_own_page() -> None:
    """A secret and no address; paid, or cancelled before it was."""

    async def story(t: Trial) -> None:
        result = await t.create("stripe", embedded=True)
        assert isinstance(result, Accepted) and isinstance(result.action, Confirm)
        assert result.action.client_secret.startswith(result.told.references[0])
        t.sandbox.choose(t.charge(), "pay")
        await t.sandbox.tick()
        answer = await t.find("stripe")
        assert isinstance(answer, Told) and answer.facts[0].amount_minor == 1500
        assert t.kinds() == ["created", "captured", "captured"]
        other = await t.create("stripe", embedded=True, key="key-2", reference="second")
        canceled = await t.cancel("stripe", other.told.references[0], reference="second")
        assert isinstance(canceled, Told) and canceled.facts[0].kind is Kind.CANCELED

    play(story)


def test_money_goes_back_in_parts_and_never_more_than_came() -> None:
    """By the PaymentIntent; a repeated key is one refund; the last is refused."""

    async def story(t: Trial) -> None:
        _, url = await opened(t)
        t.sandbox.visit(url, "pay")
        intent = t.charge().names["intent"]
        first = await t.refund("stripe", 1000, intent)
        again = await t.refund("stripe", 1000, intent)
        assert isinstance(first, Refunding) and first == again
        assert isinstance(await t.refund("stripe", 501, intent, key="re-2"), RefundRefused)
        assert isinstance(await t.refund("stripe", 500, intent, key="re-3"), Refunding)
        over = await t.refund("stripe", 1, intent, key="re-4")
        assert isinstance(over, RefundRefused) and over.reason == "already_refunded"
        told = await t.refunds("stripe", intent)
        assert isinstance(told, Told)
        assert sorted((fact.kind, fact.amount_minor) for fact in told.facts) == [
            (Kind.REFUND_SUCCEEDED, 500),
            (Kind.REFUND_SUCCEEDED, 1000),
        ]
        answer = await t.fetch("stripe", t.charge().id)
        assert isinstance(answer, Told)
        assert {fact.kind: fact.amount_minor for fact in answer.facts}[Kind.REFUNDED_TOTAL] == 1500

    play(story)


def test_a_refund_fails_afterwards() -> None:
    """Succeeded, then sent back by the bank, and told so."""

    async def story(t: Trial) -> None:
        _, url = await opened(t)
        t.sandbox.visit(url, "pay")
        t.sandbox.trouble.on("stripe", "refund_fails_later", times=1)
        await t.refund("stripe", 1500, t.charge().names["intent"])
        await t.sandbox.tick()
        assert t.kinds()[-4:] == ["refund_succeeded", "captured", "refund_failed", "refund_failed"]
        assert t.charge().refunded_minor == 0

    play(story)


def test_lists_go_page_by_page_and_find_reads_them() -> None:
    """Newest first, `starting_after`, `created[…]`; what is in none is not known."""

    async def story(t: Trial) -> None:
        for number in range(45):
            await opened(t, reference=f"r{number}", key=f"k{number}")
        found = await t.find("stripe", "r0")  # on the second page
        assert isinstance(found, NotFinal) and found.told is not None and found.told.reference == "r0"
        assert isinstance(await t.find("stripe", "never-seen"), NotKnown)
        assert (await t.listed("stripe")).told == ()  # nobody has tried to pay: no PaymentIntents
        for charge in t.sandbox.bank.of("stripe"):
            t.sandbox.choose(charge, "pay")
        listed = await t.listed("stripe")
        assert isinstance(listed, Listed) and len(listed.told) == 45 and listed.unread == 0
        t.clock.advance(2 * 3_600_000)
        assert (await t.listed("stripe")).told == ()
        query = {"query": "metadata['reference']:'r7'"}
        status, body = await t.ask("stripe", "GET", f"{INTENTS}/search", params=query)
        assert (status, [one["metadata"]["reference"] for one in body["data"]]) == (200, ["r7"])

    play(story)


@pytest.mark.parametrize(
    ("name", "value", "param"),
    [
        ("mode", None, "mode"),
        ("success_url", None, "success_url"),
        ("success_url", "merci", "success_url"),
        ("line_items[0][price_data][unit_amount]", "15.00", "line_items[0][price_data][unit_amount]"),
        ("line_items[0][price_data][unit_amount]", "0", "line_items[0][price_data][unit_amount]"),
        ("line_items[0][price_data][unit_amount]", "49", "line_items[0][price_data][unit_amount]"),
        ("line_items[0][price_data][unit_amount]", "100000000", "line_items[0][price_data][unit_amount]"),
        ("line_items[0][price_data][unit_amount]", "-5", "line_items[0][price_data][unit_amount]"),
        ("line_items[0][price_data][currency]", "EUR", "line_items[0][price_data][currency]"),
        ("line_items[0][price_data][currency]", "ghs", "line_items[0][price_data][currency]"),
        ("line_items[0][quantity]", None, "line_items[0][quantity]"),
        ("line_items[0][price_data][product_data][name]", None, "line_items[0][price_data][product_data][name]"),
        ("payment_method_types[0]", "wave", "payment_method_types"),
        ("customer_email", "nobody", "customer_email"),
        ("expires_at", "1", "expires_at"),
        ("metadata[order]", "x" * 501, "metadata[order]"),
        ("amount_of_love", "1", "amount_of_love"),
    ],
)
def test_what_the_documentation_refuses_is_refused_in_its_shape(name: str, value: str | None, param: str) -> None:
    """Nothing is made, and the answer is Stripe's: an error with type and param."""

    async def story(t: Trial) -> None:
        form = {key: item for key, item in (SESSION | {name: value}).items() if item is not None}
        status, body = await t.ask("stripe", "POST", SESSIONS, data=form)
        assert (status, body["error"]["type"], body["error"]["param"]) == (400, "invalid_request_error", param)
        assert t.sandbox.bank.books() == []

    play(story)


def test_json_a_wrong_key_and_an_unknown_object_are_refused() -> None:
    """Stripe reads forms; a wrong key is 401; what it does not know is `resource_missing`."""

    async def story(t: Trial) -> None:
        assert (await t.ask("stripe", "POST", SESSIONS, json=SESSION))[0] == 400
        assert (await t.ask("stripe", "POST", SESSIONS, data=SESSION, headers={}))[0] == 401
        headers = {"Authorization": "Bearer sk_live_other"}
        status, body = await t.ask("stripe", "POST", SESSIONS, data=SESSION, headers=headers)
        assert (status, body["error"]["type"]) == (401, "invalid_request_error")
        assert isinstance(await t.fetch("stripe", "cs_live_nobody"), NotKnown)
        status, body = await t.ask("stripe", "GET", "/v1/nothing")
        assert (status, body["error"]["type"]) == (404, "invalid_request_error")
        t.sandbox.trouble.on("stripe", "unauthorized", times=1)
        assert await t.create("stripe") == NotSent("credentials", alert=True)
        assert t.sandbox.bank.books() == []

    play(story)


@pytest.mark.parametrize(("currency", "minor", "wire"), [("XOF", 1500, 1500), ("UGX", 1500, 150_000), ("EUR", 50, 50)])
def test_amounts_are_in_stripes_own_smallest_unit(currency: str, minor: int, wire: int) -> None:
    """Zero-decimal currencies as they are, UGX with two decimals all the same."""

    async def story(t: Trial) -> None:
        session, url = await opened(t, currency=currency, amount_minor=minor)
        _, body = await t.ask("stripe", "GET", f"{SESSIONS}/{session}")
        assert (body["amount_total"], body["currency"]) == (wire, currency.lower())
        t.sandbox.visit(url, "pay")
        assert t.charge().captured_minor == minor

    play(story)
