"""The sandbox's Paystack against what caisse really sends it, over a real socket; the books are the truth."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from service.payments.facts import Kind, Reason, Told
from service.providers.base import NotFinal, NotKnown
from service.providers.calls import (
    Accepted,
    Approve,
    Declined,
    Listed,
    Lost,
    NotSent,
    Otp,
    Redirect,
    Refunding,
    RefundRefused,
)
from service.sandbox.bank import OTP_TRIES, PROMPT_MS, Payer
from tests.support.sandbox import PHONES, RETURN_URL, WANTED, Trial, trial

REFERENCE = WANTED["paystack"].reference
CHARGE: dict[str, Any] = {
    "email": "awa@shop.example",
    "amount": 150_000,
    "currency": "XOF",
    "reference": "by-hand-1",
    "mobile_money": {"phone": "0700000001", "provider": "mtn"},
}


def play(story: Callable[[Trial], Awaitable[None]], anybody: Payer | None = None) -> None:
    async def run() -> None:
        async with trial(anybody=anybody) as t:
            await story(t)

    asyncio.run(run())


def test_a_phone_is_asked_approves_and_is_charged_once() -> None:
    """pay_offline, then the payer pays: verify and the callback say the same sum, once."""

    async def story(t: Trial) -> None:
        result = await t.create("paystack")
        assert isinstance(result, Accepted) and isinstance(result.action, Approve) and result.action.display_text
        assert isinstance(await t.fetch("paystack", REFERENCE), NotFinal)
        await t.sandbox.tick(3)
        answer = await t.fetch("paystack", REFERENCE)
        assert isinstance(answer, Told)
        fact = answer.facts[0]
        assert (fact.kind, fact.amount_minor, fact.asked_minor, fact.currency) == (Kind.CAPTURED, 1500, 1500, "XOF")
        (told,) = t.told()
        assert told.references == (REFERENCE,) and told.facts[0].amount_minor == 1500
        assert [(one.captured_minor, one.phone) for one in t.sandbox.bank.charged(REFERENCE)] == [(1500, "0700000001")]

    play(story)


def test_a_code_is_wrong_once_then_right() -> None:
    """A wrong code may be typed again and takes nothing; the right one pays in its own answer."""

    async def story(t: Trial) -> None:
        result = await t.create("paystack", operator="orange")
        assert isinstance(result, Accepted) and isinstance(result.action, Otp)
        again = await t.otp("000000")
        assert isinstance(again, Accepted) and isinstance(again.action, Otp)
        assert t.sandbox.bank.charged() == []
        paid = await t.otp("123456")
        assert isinstance(paid, Accepted) and paid.told.facts[0].kind is Kind.CAPTURED
        assert len(t.sandbox.bank.charged(REFERENCE)) == 1

    play(story)


def test_a_code_that_is_wrong_too_often_is_the_end() -> None:
    """After `OTP_TRIES` wrong codes it has failed, and the right one comes too late."""

    async def story(t: Trial) -> None:
        await t.create("paystack", operator="orange")
        for _ in range(OTP_TRIES - 1):
            assert isinstance(await t.otp("000000"), Accepted)
        declined = await t.otp("000000")
        assert isinstance(declined, Declined) and declined.reason is Reason.WRONG_PIN
        assert isinstance(await t.otp("123456"), Lost)  # it is not waiting for one; asked about, it says failed
        answer = await t.fetch("paystack", REFERENCE)
        assert isinstance(answer, Told) and answer.facts[0].kind is Kind.FAILED
        assert t.sandbox.bank.charged() == []

    play(story)


@pytest.mark.parametrize("reason", sorted(set(Reason) - {Reason.UNKNOWN}))
def test_every_reason_of_a_decline_arrives(reason: Reason) -> None:
    """What the payer's bank says reaches the adapter's vocabulary, by verify: Paystack tells no decline."""

    async def story(t: Trial) -> None:
        t.sandbox.bank.set_payer(PHONES["paystack"], Payer("declines", reason))
        await t.create("paystack")
        await t.sandbox.tick()
        answer = await t.fetch("paystack", REFERENCE)
        assert isinstance(answer, Told)
        assert (answer.facts[0].kind, answer.facts[0].reason) == (Kind.FAILED, reason)
        assert t.got == [] and t.sandbox.bank.charged() == []

    play(story)


def test_a_prompt_that_nobody_answers_lapses() -> None:
    """It is pending until its window is over, then failed: timed out."""

    async def story(t: Trial) -> None:
        await t.create("paystack")
        t.clock.advance(PROMPT_MS - 1)
        await t.sandbox.tick()
        assert isinstance(await t.fetch("paystack", REFERENCE), NotFinal)
        t.clock.advance(1)
        await t.sandbox.tick()
        answer = await t.fetch("paystack", REFERENCE)
        assert isinstance(answer, Told) and answer.facts[0].reason is Reason.TIMED_OUT

    play(story, Payer("waits"))


def test_a_page_is_abandoned_at_first_paid_later_and_abandoned_for_good_only_after_an_hour() -> None:
    """verify says `abandoned` from the start, which means nothing until Paystack's own clock says an hour."""

    async def story(t: Trial) -> None:
        for reference in ("a", "b"):
            result = await t.create("paystack", method="card", operator="", country="", reference=reference)
            assert isinstance(result, Accepted) and isinstance(result.action, Redirect)
            if reference == "a":
                assert t.sandbox.visit(result.action.url, "abandon") == RETURN_URL
        assert isinstance(await t.fetch("paystack", "a"), NotFinal)
        t.sandbox.choose(t.sandbox.bank.of("paystack")[0], "pay")
        t.clock.advance(3_600_000)
        paid, left = await t.find("paystack", "b"), await t.find("paystack", "a")
        assert isinstance(paid, Told) and paid.facts[0].kind is Kind.CAPTURED
        assert isinstance(left, Told) and left.facts[0].kind is Kind.CANCELED

    play(story)


def test_wave_opens_a_page() -> None:
    """The operator's own page, and back to us with the reference."""

    async def story(t: Trial) -> None:
        result = await t.create("paystack", operator="wave")
        assert isinstance(result, Accepted) and isinstance(result.action, Redirect)
        t.sandbox.visit(result.action.url, "pay")
        assert len(t.sandbox.bank.charged(REFERENCE)) == 1

    play(story)


def test_a_reference_is_taken_once() -> None:
    """The second create with it is refused as a duplicate, and the first is untouched."""

    async def story(t: Trial) -> None:
        await t.create("paystack")
        again = await t.create("paystack")
        assert isinstance(again, Lost) and again.reason == "duplicate_reference"
        await t.sandbox.tick()
        assert len(t.sandbox.bank.charged(REFERENCE)) == 1
        assert isinstance(await t.find("paystack", "never-seen"), NotKnown)

    play(story)


def test_money_goes_back_in_parts_and_never_more_than_came() -> None:
    """Two refunds are told by id in answers, lists and callbacks alike; a third that is too much is refused."""

    async def story(t: Trial) -> None:
        await t.create("paystack")
        assert isinstance(await t.refund("paystack", 100, REFERENCE), RefundRefused)  # nobody has paid
        await t.sandbox.tick()
        t.got.clear()
        first = await t.refund("paystack", 1000, REFERENCE)
        above = await t.refund("paystack", 501, REFERENCE)
        assert isinstance(above, RefundRefused) and above.reason == "above_the_rest"
        second = await t.refund("paystack", 500, REFERENCE)
        assert isinstance(first, Refunding) and isinstance(second, Refunding)
        over = await t.refund("paystack", 1, REFERENCE)
        assert isinstance(over, RefundRefused) and over.reason == "already_refunded"
        await t.sandbox.tick()
        listed = await t.refunds("paystack", REFERENCE)
        assert isinstance(listed, Told)
        sums = {fact.movement: (fact.kind, fact.amount_minor) for fact in listed.facts}
        done = Kind.REFUND_SUCCEEDED
        assert sums == {first.told.facts[0].movement: (done, 1000), second.told.facts[0].movement: (done, 500)}
        by_callback = {told.facts[0].movement for told in t.told() if told.facts[0].kind is done}
        assert by_callback == set(sums)
        assert t.charge().refunded_minor == 1500

    play(story)


def test_a_refund_fails_afterwards() -> None:
    """Taken, succeeded, and sent back by the bank: the books have the money again."""

    async def story(t: Trial) -> None:
        t.sandbox.trouble.on("paystack", "refund_fails_later", times=1)
        await t.create("paystack")
        await t.sandbox.tick()
        t.got.clear()
        await t.refund("paystack", 1500, REFERENCE)
        await t.sandbox.tick(3)
        assert t.kinds() == ["refund_pending", "refund_succeeded", "refund_failed"]
        assert t.charge().refunded_minor == 0

    play(story)


def test_the_list_has_what_there_is() -> None:
    """All of the span, a page at a time."""

    async def story(t: Trial) -> None:
        for number in range(103):
            await t.create("paystack", reference=f"r{number}")
        first = await t.listed("paystack")
        assert isinstance(first, Listed) and first.cursor == "2" and len(first.told) == 100
        rest = await t.listed("paystack", first.cursor)
        found = {told.reference for told in (*first.told, *rest.told)}
        assert (len(found), rest.cursor) == (103, None)
        t.clock.advance(2 * 3_600_000)
        assert (await t.listed("paystack")).told == ()

    play(story)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"email": ""}, "email"),
        ({"email": "nobody"}, "Email"),
        ({"amount": 1500.5}, "Amount"),
        ({"amount": 150_000.0}, "Amount"),
        ({"amount": "150000"}, "Amount"),
        ({"amount": True}, "Amount"),
        ({"amount": -100}, "Amount"),
        ({"amount": 0}, "Amount"),
        ({"amount": 150_050}, "Amount"),  # half a franc
        ({"amount": None}, "Amount"),
        ({"currency": "XAF"}, "Currency"),
        ({"reference": "a b"}, "reference"),
        ({"mobile_money": None}, "mobile_money"),
        ({"mobile_money": {"phone": "0700000001"}}, "provider"),
        ({"mobile_money": {"phone": "0700000001", "provider": "moov"}}, "moov"),
        ({"mobile_money": {"phone": "0700000001", "provider": "vod"}}, "vod"),  # Ghana's
        ({"mobile_money": {"phone": "nobody", "provider": "mtn"}}, "phone"),
    ],
)
def test_what_the_documentation_refuses_is_refused_in_its_shape(said: dict[str, Any], words: str) -> None:
    """Nothing is charged, and the answer is Paystack's: status false, a message, type and code."""

    async def story(t: Trial) -> None:
        status, body = await t.ask("paystack", "POST", "/charge", json=CHARGE | said)
        assert (status, body["status"], body["type"]) == (400, False, "validation_error")
        assert words in body["message"] and body["code"]
        assert t.sandbox.bank.books() == []

    play(story)


def test_a_wrong_key_is_refused() -> None:
    """401, by our adapter an alert; and nobody else's transaction can be read."""

    async def story(t: Trial) -> None:
        t.sandbox.trouble.on("paystack", "unauthorized", times=1)
        refused = await t.create("paystack")
        assert refused == NotSent("credentials", alert=True)
        for key in ("", "sk_live_other", "sk_live_paystac"):
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            status, body = await t.ask("paystack", "POST", "/charge", json=CHARGE, headers=headers)
            assert (status, body["status"]) == (401, False)
        assert t.sandbox.bank.books() == []

    play(story)


def test_a_code_is_taken_and_the_answer_lost() -> None:
    """The payment is made; whoever asked knows nothing, and finds out by asking."""

    async def story(t: Trial) -> None:
        await t.create("paystack", operator="orange")
        t.sandbox.trouble.on("paystack", "timeout_after", "otp", times=1)
        assert isinstance(await t.otp("123456", limit_ms=1_000), Lost)
        answer = await t.fetch("paystack", REFERENCE)
        assert isinstance(answer, Told) and answer.facts[0].kind is Kind.CAPTURED
        assert len(t.sandbox.bank.charged(REFERENCE)) == 1

    play(story)


def test_a_right_code_is_called_wrong_when_that_is_the_trouble() -> None:
    """`otp_wrong` strikes as often as it was told to."""

    async def story(t: Trial) -> None:
        t.sandbox.trouble.on("paystack", "otp_wrong", times=1)
        await t.create("paystack", operator="orange")
        again = await t.otp("123456")
        assert isinstance(again.action, Otp)
        assert (await t.otp("123456")).told.facts[0].kind is Kind.CAPTURED

    play(story)
