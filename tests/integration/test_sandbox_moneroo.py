"""The sandbox's Moneroo against what caisse really sends it, over a real socket; the books are the truth."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from service.payments.facts import Kind, Reason
from service.providers import moneroo
from service.providers.base import Ask, NotFinal, NotKnown, Refused, Unclear, Verified
from service.providers.calls import (
    Accepted,
    Channel,
    Customer,
    Given,
    NotSent,
    Redirect,
    Wanted,
    broken_ask,
)
from service.providers.moneroo_calls import CALLS, create, fetch
from service.sandbox.api.moneroo import ABANDONED_MS
from service.sandbox.desk import Account
from service.sandbox.trouble import AFTER, BEFORE
from tests.support import sandboxed
from tests.support.sandboxed import AFTER_ENDS, BEFORE_ENDS, Play, limit_ms

CREDENTIALS = {"secret_key": ("pvk_1",), "webhook_secrets": ("newest", "old")}
BEARER = {"Authorization": "Bearer pvk_1"}
WANTED = Wanted(
    reference="caisse-a1-try_1",
    key="key_1",
    amount_minor=2500,
    currency="XOF",
    method="mobile_money",
    country="SN",
    operator="wave",
    description="Deux sacs de riz",
    return_url="https://shop.example/back?order=1",
    callback_url="",
    customer=Customer("Awa Ndiaye", "awa@shop.example", "+221770000001"),
    metadata={"order": "7"},
    live=True,
)


def play(story: Callable[[Play], Awaitable[None]], live: bool = True) -> None:
    sandboxed.play(Account("moneroo", CREDENTIALS, "?", live=live), story)


async def begin(p: Play, limit_ms: int = 15_000, **more: Any) -> Any:
    """What our adapter makes of what it asked for; `channel` and `credentials` may be others."""
    credentials, way = CREDENTIALS | more.pop("credentials", {}), more.pop("channel", None)
    wanted = replace(WANTED, **more)
    way = way or CALLS.channel(wanted.method, wanted.currency, wanted.country, wanted.operator)
    assert way is not None
    return await p.run(create(wanted, way, credentials), limit_ms=limit_ms)


async def look(p: Play, number: str, live: bool = True, limit_ms: int = 15_000) -> Any:
    """What our adapter hears when it asks."""
    given = Given(WANTED.reference, (number,), WANTED.amount_minor, WANTED.currency)
    return await p.run(fetch(given, live, CREDENTIALS), broken_ask, limit_ms)


def facts(told: Any) -> list[tuple[Kind, int | None, Reason | None]]:
    return [(fact.kind, fact.amount_minor, fact.reason) for fact in told.facts]


def events(p: Play) -> list[str]:
    return [json.loads(callback.body)["event"] for callback in p.got]


# --- paying -------------------------------------------------------------------------------------------


def test_a_payment_on_the_page() -> None:
    """Initialized, told; then paid, told, and the answer to our question has our reference and the time."""

    async def story(p: Play) -> None:
        made = await begin(p)
        assert isinstance(made, Accepted) and isinstance(made.action, Redirect)
        (number,) = made.told.references
        waits = await look(p, number)
        assert isinstance(waits, NotFinal) and waits.told is not None and waits.told.facts[0].kind is Kind.CREATED
        p.clock.advance(4_000)
        back = p.sandbox.visit(made.action.url, "pay")
        assert back == f"https://shop.example/back?order=1&paymentId={number}&paymentStatus=success"
        (charge,) = p.sandbox.bank.charged(WANTED.reference)
        assert (charge.captured_minor, charge.operator, charge.phone) == (2500, "wave_sn", "221770000001")
        told = await look(p, number)
        assert facts(told) == [(Kind.CAPTURED, 2500, None)] and told.facts[0].method == "mobile_money"
        assert (told.reference, dict(told.metadata)) == (
            WANTED.reference,
            {"reference": WANTED.reference, "order": "7"},
        )
        await p.sandbox.tick()
        assert events(p) == ["payment.initiated", "payment.success"]

    play(story)


def test_webhooks_are_signed_hints() -> None:
    """HMAC of the raw bytes with the webhook's secret; as documented without metadata, so our name has to be asked."""

    async def story(p: Play) -> None:
        made = await begin(p)
        await p.sandbox.tick()
        (callback,) = p.got
        assert moneroo.verify(callback, CREDENTIALS, p.clock()) == Verified(strong=False)
        assert moneroo.verify(callback, {"webhook_secrets": ("old",)}, p.clock()) == Refused("bad_signature")
        meant = moneroo.translate(callback, p.clock())
        assert isinstance(meant, Ask) and meant.reference == made.told.references[0]
        assert meant.told is not None and meant.told.reference is None
        assert json.loads(callback.body)["data"]["customer"]["firstName"] == "Awa"

    play(story)


@pytest.mark.parametrize("way", CALLS.channels, ids=lambda way: f"{way.method}-{way.country}-{way.code}")
def test_every_way_that_we_declare_is_taken(way: Channel) -> None:
    """Every code belongs to its currency, and the sum comes back as it was asked for: 12 dollars are 1,200 cents."""

    async def story(p: Play) -> None:
        amount = 12 * way.step_minor
        made = await begin(p, channel=way, currency=way.currency, amount_minor=amount, method=way.method)
        assert isinstance(made, Accepted), made
        p.sandbox.visit(made.action.url, "pay")  # type: ignore[union-attr]
        told = await look(p, made.told.references[0])
        assert (told.facts[0].amount_minor, told.facts[0].currency) == (amount, way.currency)
        assert not way.code or told.facts[0].method == way.method

    play(story)


def test_who_asks_twice_has_two_payments() -> None:
    """There is no idempotency: the sandbox must not hide a second charge."""

    async def story(p: Play) -> None:
        for made in (await begin(p), await begin(p)):
            p.sandbox.visit(made.action.url, "pay")
        assert len(p.sandbox.bank.charged(WANTED.reference)) == 2

    play(story)


# --- not paying ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.NUMBER_MISMATCH])
def test_every_reason_is_understood(reason: Reason) -> None:
    """What the sandbox writes for people is what our table reads back; for the wrong operator it has no word."""

    async def story(p: Play) -> None:
        made = await begin(p)
        assert "paymentStatus=failed" in p.sandbox.visit(made.action.url, "fail", reason)
        assert facts(await look(p, made.told.references[0])) == [(Kind.FAILED, None, reason)]
        await p.sandbox.tick()
        assert events(p) == ["payment.initiated", "payment.failed"] and not p.sandbox.bank.charged()

    play(story)


def test_the_page_is_left_or_forgotten() -> None:
    """Left: cancelled at once. Forgotten: cancelled by itself after five minutes, and then it takes no money."""

    async def story(p: Play) -> None:
        left, forgotten = await begin(p), await begin(p)
        assert "paymentStatus=cancelled" in p.sandbox.visit(left.action.url, "abandon")
        p.clock.advance(ABANDONED_MS - 1)
        await p.sandbox.tick()
        assert isinstance(await look(p, forgotten.told.references[0]), NotFinal)
        p.clock.advance(1)
        await p.sandbox.tick()
        p.sandbox.visit(forgotten.action.url, "pay")
        for made in (left, forgotten):
            assert facts(await look(p, made.told.references[0])) == [(Kind.CANCELED, None, None)]
        assert events(p).count("payment.cancelled") == 2 and not p.sandbox.bank.charged()

    play(story)


def test_the_sandbox_environment_moves_no_money_for_a_live_account() -> None:
    """`environment` says which it was."""

    async def story(p: Play) -> None:
        made = await begin(p)
        p.sandbox.visit(made.action.url, "pay")
        number = made.told.references[0]
        assert await look(p, number) == Unclear("test_answer_in_live")
        assert facts(await look(p, number, live=False)) == [(Kind.CAPTURED, 2500, None)]

    play(story, live=False)


def test_no_such_payment() -> None:
    """A 404 with a message about the payment says so; one about an address says nothing."""

    async def story(p: Play) -> None:
        assert await look(p, "py_nobody") == NotKnown()
        status, body = await p.ask("GET", "/v1/payments/py_nobody/refunds", headers=BEARER)
        assert (status, set(body)) == (404, {"message", "data", "errors"})

    play(story)


def test_retrieve_says_the_currency_as_a_word() -> None:
    """The documented difference to verify."""

    async def story(p: Play) -> None:
        made = await begin(p)
        status, body = await p.ask("GET", f"/v1/payments/{made.told.references[0]}", headers=BEARER)
        assert (status, body["data"]["currency"], body["data"]["amount"]) == (200, "XOF", 2500)

    play(story)


# --- strictness ---------------------------------------------------------------------------------------

CUSTOMER = {"email": "awa@shop.example", "first_name": "Awa", "last_name": "Ndiaye"}
BODY = {
    "amount": 2500,
    "currency": "XOF",
    "description": "Riz",
    "return_url": "http://a.example",
    "customer": CUSTOMER,
}
PHONE = {"number": "770000001", "country_code": "SN"}
REFUSED = {
    "nothing": ({}, 400, "amount"),
    "no amount": ({name: value for name, value in BODY.items() if name != "amount"}, 400, "amount"),
    "no description": (BODY | {"description": ""}, 400, "description"),
    "no return address": (BODY | {"return_url": None}, 400, "return_url"),
    "no customer": (BODY | {"customer": {}}, 400, "customer"),
    "a customer that is a word": (BODY | {"customer": "Awa"}, 400, "customer.email"),
    "no last name": (BODY | {"customer": CUSTOMER | {"last_name": ""}}, 400, "customer.last_name"),
    "a float": (BODY | {"amount": 2500.0}, 422, "amount"),
    "a text": (BODY | {"amount": "2500"}, 422, "amount"),
    "true": (BODY | {"amount": True}, 422, "amount"),
    "nothing to pay": (BODY | {"amount": 0}, 422, "amount"),
    "too much": (BODY | {"amount": 10**12}, 422, "amount"),
    "no such currency": (BODY | {"currency": "xof"}, 422, "currency"),
    "a currency in a list": (BODY | {"currency": ["XOF"]}, 422, "currency"),
    "no e-mail": (BODY | {"customer": CUSTOMER | {"email": "awa"}}, 422, "customer.email"),
    "a name that is a number": (BODY | {"customer": CUSTOMER | {"first_name": 7}}, 422, "customer.first_name"),
    "a long text": (BODY | {"description": "x" * 256}, 422, "description"),
    "no address": (BODY | {"return_url": "javascript:1"}, 422, "return_url"),
    "metadata with a number": (BODY | {"metadata": {"order": 7}}, 422, "metadata.order"),
    "metadata in a list": (BODY | {"metadata": ["order"]}, 422, "metadata"),
    "no such method": (BODY | {"methods": ["mtn_cm"]}, 422, "methods.0"),
    "a method in a list": (BODY | {"methods": [["wave_sn"]]}, 422, "methods.0"),
    "no methods": (BODY | {"methods": []}, 422, "methods"),
    "both restrictions": (
        BODY | {"restrict_country_code": "SN", "restricted_phone": PHONE}, 422, "restrict_country_code",
    ),
    "half a phone": (BODY | {"restricted_phone": {"number": "77"}}, 422, "restricted_phone.country_code"),
    "no such country": (BODY | {"restrict_country_code": "Sénégal"}, 422, "restrict_country_code"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "status", "complained"), REFUSED.values(), ids=REFUSED.keys())
def test_what_the_documentation_would_refuse(body: Any, status: int, complained: str) -> None:
    """400 for what is missing, 422 for what is not proper, in its envelope; nothing is in the books."""

    async def story(p: Play) -> None:
        got, said = await p.ask("POST", "/v1/payments/initialize", json=body, headers=BEARER)
        assert (got, said["errors"][0]["field"], said["data"]) == (status, complained, {})
        assert said["message"] and not p.sandbox.bank.books()

    play(story)


def test_what_is_no_json_and_what_is_right() -> None:
    """The controls: bytes are refused, and what all the rows above were made from is taken."""

    async def story(p: Play) -> None:
        path = "/v1/payments/initialize"
        assert (await p.ask("POST", path, data=b"amount=1", headers=BEARER))[0] == 400
        assert (await p.ask("POST", path, json=BODY | {"restricted_phone": PHONE}, headers=BEARER))[0] == 201

    play(story)


def test_a_key_that_nobody_has() -> None:
    """401 before anything is read; to our adapter our own fault, and to a question no answer."""

    async def story(p: Play) -> None:
        stranger = {"secret_key": ("pvk_2",)}
        assert await begin(p, credentials=stranger) == NotSent("credentials", alert=True)
        made = await begin(p)
        given = Given(WANTED.reference, made.told.references, 2500, "XOF")
        assert await p.run(fetch(given, True, stranger), broken_ask) == Unclear("credentials")
        assert len(p.sandbox.bank.books()) == 1

    play(story)


# --- trouble ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "end"), [*BEFORE_ENDS.items(), *AFTER_ENDS.items()])
def test_trouble_while_taking_money(kind: str, end: object) -> None:
    """Before: nobody is charged. After: it can be paid, only the webhook names it, and verify says that it is ours."""

    async def story(p: Play) -> None:
        p.sandbox.trouble.on("moneroo", kind, times=1)
        assert await begin(p, limit_ms=limit_ms(kind)) == end
        assert len(p.sandbox.bank.books()) == (kind in AFTER)
        for charge in p.sandbox.bank.of("moneroo"):
            p.sandbox.choose(charge, "pay")
        await p.sandbox.tick()
        assert len(p.sandbox.bank.charged(WANTED.reference)) == (kind in AFTER)
        assert events(p) == (["payment.initiated", "payment.success"] if kind in AFTER else [])
        for callback in p.got[1:]:
            meant = moneroo.translate(callback, p.clock())
            assert isinstance(meant, Ask)
            told = await look(p, meant.reference)
            assert facts(told) == [(Kind.CAPTURED, 2500, None)] and told.reference == WANTED.reference
        assert isinstance(await begin(p), Accepted), "once, and then it is well"

    play(story)


@pytest.mark.parametrize("kind", [*BEFORE, *AFTER])
def test_trouble_while_asking(kind: str) -> None:
    """Whatever goes wrong with a question, nothing is concluded from it."""

    async def story(p: Play) -> None:
        made = await begin(p)
        p.sandbox.visit(made.action.url, "pay")
        p.sandbox.trouble.on("moneroo", kind, "fetch", times=sandboxed.times(kind))
        assert isinstance(await look(p, made.told.references[0], limit_ms=limit_ms(kind)), Unclear)
        assert facts(await look(p, made.told.references[0])) == [(Kind.CAPTURED, 2500, None)]

    play(story)


@pytest.mark.parametrize(("currency", "minor"), [("XOF", -1), ("XOF", 500), ("USD", -1)])
def test_another_amount_is_taken(currency: str, minor: int) -> None:
    """What the answer says was captured is what the books say was taken, to the cent."""

    async def story(p: Play) -> None:
        p.sandbox.trouble.on("moneroo", "wrong_amount", minor=minor)
        way = next(way for way in CALLS.channels if way.currency == currency)
        made = await begin(p, channel=way, currency=currency)
        p.sandbox.visit(made.action.url, "pay")
        (charge,) = p.sandbox.bank.charged()
        assert charge.captured_minor == 2500 + minor
        assert facts(await look(p, made.told.references[0])) == [(Kind.CAPTURED, 2500 + minor, None)]

    play(story)


def test_callbacks_in_trouble() -> None:
    """Silent, twice, late, the last first: as it is switched on."""

    async def story(p: Play) -> None:
        for kind, more in (("silence", 0), ("duplicate", 4), ("late", 0), ("reordered", 2)):
            p.sandbox.trouble.on("moneroo", kind, times=2, delay_ms=60_000)
            before = len(p.got)
            p.sandbox.visit((await begin(p)).action.url, "pay")
            await p.sandbox.tick()
            assert len(p.got) - before == more, kind
        assert events(p)[-2:] == ["payment.success", "payment.initiated"]
        p.clock.advance(60_000)
        await p.sandbox.tick()
        assert events(p)[-2:] == ["payment.initiated", "payment.success"] and len(p.got) == 8

    play(story)
