"""The sandbox's eBilling against what caisse really sends it, over a real socket; the books are the truth."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

import aiohttp
import pytest

from service.payments.facts import Kind, Reason
from service.providers import ebilling
from service.providers.base import Ask, NotFinal, Unclear
from service.providers.calls import (
    Accepted,
    Approve,
    Customer,
    Given,
    Lost,
    NotSent,
    Redirect,
    Wanted,
    broken_ask,
)
from service.providers.ebilling_calls import CALLS, create, fetch, find
from service.sandbox.bank import PROMPT_MS, Payer
from service.sandbox.desk import Account
from service.sandbox.trouble import AFTER, BEFORE
from tests.support import sandboxed
from tests.support.sandboxed import AFTER_ENDS, BEFORE_ENDS, Play, limit_ms

CREDENTIALS = {"username": ("boutique",), "shared_key": ("partagé",), "callback_tokens": ("a-token",)}
BASIC = ebilling.headers(CREDENTIALS)
BILLS = "/api/v1/merchant/e_bills"
WANTED = Wanted(
    reference="caisse-a1-try_1",
    key="key_1",
    amount_minor=2500,
    currency="XAF",
    method="mobile_money",
    country="GA",
    operator="airtel",
    description="Deux sacs de riz",
    return_url="https://shop.example/back?order=1",
    callback_url="",
    payer_phone="+24177000001",
    customer=Customer("Awa Ndiaye", "awa@shop.example", "+24177000001"),
    live=True,
)


def play(story: Callable[[Play], Awaitable[None]]) -> None:
    sandboxed.play(Account("ebilling", CREDENTIALS, "?"), story)


async def begin(p: Play, limit_ms: int = 15_000, **more: Any) -> Any:
    """What our adapter makes of what it asked for; `credentials` may be others."""
    credentials, portal = CREDENTIALS | more.pop("credentials", {}), {"portal_url": p.base_url}
    wanted = replace(WANTED, **more)
    way = CALLS.channel(wanted.method, wanted.currency, wanted.country, wanted.operator)
    assert way is not None
    return await p.run(create(wanted, way, credentials, {**ebilling.FACTS, **portal}), limit_ms=limit_ms)


async def look(p: Play, number: str, limit_ms: int = 15_000) -> Any:
    """What our adapter hears when it asks."""
    given = Given(WANTED.reference, (number,), WANTED.amount_minor, WANTED.currency)
    return await p.run(fetch(given, True, CREDENTIALS), broken_ask, limit_ms)


async def search(p: Play) -> Any:
    """What our adapter finds by our reference."""
    return await p.run(find(Given(WANTED.reference, (), 2500, "XAF"), True, CREDENTIALS), broken_ask)


async def go(url: str) -> tuple[int, str]:
    """What a browser comes to: the status, and the address after the portal has sent it on."""
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, str(answer.url)


def facts(told: Any) -> list[tuple[Kind, int | None, Reason | None]]:
    return [(fact.kind, fact.amount_minor, fact.reason) for fact in told.facts]


# --- paying -------------------------------------------------------------------------------------------


def test_a_prompt_that_is_approved() -> None:
    """A bill, a push, nothing final before the payer has answered; then the unsigned form, and the bill is paid."""

    async def story(p: Play) -> None:
        made = await begin(p)
        assert isinstance(made, Accepted) and made.action == Approve("")
        (number,) = made.told.references
        assert isinstance(await look(p, number), NotFinal) and not p.sandbox.bank.charged()
        p.clock.advance(4_000)
        await p.sandbox.tick()
        (charge,) = p.sandbox.bank.charged(WANTED.reference)
        assert (charge.captured_minor, charge.operator, charge.phone) == (2500, "airtelmoney", "24177000001")
        told = await look(p, number)
        assert facts(told) == [(Kind.CAPTURED, 2500, None)] and told.reference == WANTED.reference
        assert (told.facts[0].at_ms, told.facts[0].method) == (p.clock(), "mobile_money")
        (callback,) = p.got
        form = dict(parse_qsl(callback.body.decode()))
        assert (form["billingid"], form["reference"], form["amount"]) == (number, WANTED.reference, "2500")
        assert form["payermsisdn"] == "077000001" and not {"sign", "signature", "state"} & set(form)
        meant = ebilling.translate(callback, p.clock())
        assert isinstance(meant, Ask) and meant.reference == number

    play(story)


@pytest.mark.parametrize(("method", "system"), [("mobile_money", None), ("card", "card")])
def test_the_portal(method: str, system: str | None) -> None:
    """The address that our adapter makes sends the browser on to the bill's page, and from there back to the shop."""

    async def story(p: Play) -> None:
        made = await begin(p, operator="", method=method)
        assert isinstance(made, Accepted) and isinstance(made.action, Redirect)
        assert made.action.url.startswith(p.base_url)
        status, page = await go(made.action.url)
        assert status == 200 and page.endswith(f"/pay/{made.told.references[0]}")
        assert p.sandbox.visit(page, "pay") == WANTED.return_url
        told = await look(p, made.told.references[0])
        assert facts(told) == [(Kind.CAPTURED, 2500, None)] and told.facts[0].method == system
        assert await go(made.action.url) == (200, page), "a bill that has ended still has its page"
        assert (await go(p.base_url + "/checkoutnow?invoice_number=5550000000"))[0] == 404

    play(story)


def test_who_asks_twice_has_two_bills() -> None:
    """There is no idempotency: the sandbox must not hide a second charge, and looking for ours finds too many."""

    async def story(p: Play) -> None:
        await begin(p)
        await begin(p)
        await p.sandbox.tick()
        assert len(p.sandbox.bank.charged(WANTED.reference)) == 2
        assert await search(p) == Unclear("several_bills")

    play(story)


def test_a_bill_is_found_in_the_list() -> None:
    """At its end too, over pages; what is not there proves nothing."""

    async def story(p: Play) -> None:
        assert isinstance(await search(p), Unclear)
        await begin(p)
        body = {"payer_msisdn": "077000009", "amount": 1, "short_description": "autre"}
        for _ in range(120):
            assert (await p.ask("POST", BILLS, json=body, headers=BASIC))[0] == 201
        await p.sandbox.tick()
        assert facts(await search(p)) == [(Kind.CAPTURED, 2500, None)]
        status, said = await p.ask("GET", f"{BILLS}.json?page=3&per_page=50", headers=BASIC)
        assert (status, said["total_entries"], said["current_page"], len(said["entries"])) == (200, 121, 3, 21)

    play(story)


# --- not paying ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_understood_and_none_is_told(reason: Reason) -> None:
    """What the sandbox writes for people is what our table reads back; only payments are called back."""

    async def story(p: Play) -> None:
        p.sandbox.bank.set_payer("+24177000001", Payer("declines", reason))
        made = await begin(p)
        await p.sandbox.tick()
        assert facts(await look(p, made.told.references[0])) == [(Kind.FAILED, None, reason)]
        assert not p.got and not p.sandbox.bank.charged()

    play(story)


def test_a_prompt_lapses_and_a_bill_expires() -> None:
    """A phone asks for three minutes; a bill on the portal waits as long as its `expiry_period` says."""

    async def story(p: Play) -> None:
        p.sandbox.bank.anybody = Payer("waits")
        pushed, shown = await begin(p), await begin(p, operator="")
        (_, page) = await go(shown.action.url)
        assert p.sandbox.visit(page, "abandon") == WANTED.return_url, "coming back proves nothing"
        p.clock.advance(PROMPT_MS)
        await p.sandbox.tick()
        assert facts(await look(p, pushed.told.references[0])) == [(Kind.FAILED, None, Reason.TIMED_OUT)]
        p.clock.advance(3_600_000 - PROMPT_MS - 1)
        await p.sandbox.tick()
        assert isinstance(await look(p, shown.told.references[0]), NotFinal)
        p.clock.advance(1)
        await p.sandbox.tick()
        assert facts(await look(p, shown.told.references[0])) == [(Kind.EXPIRED, None, None)] and not p.got

    play(story)


def test_a_bill_without_an_end() -> None:
    """`expiry_period` 0 is never."""

    async def story(p: Play) -> None:
        body = {"payer_msisdn": "077000001", "amount": "5", "short_description": "x", "expiry_period": "0"}
        _, said = await p.ask("POST", BILLS, json=body, headers=BASIC)
        p.clock.advance(10**11)
        await p.sandbox.tick()
        status, bill = await p.ask("GET", f"{BILLS}/{said['e_bill']['bill_id']}.json", headers=BASIC)
        assert (status, bill["state"], bill["expire_at"], bill["amount"]) == (200, "ready", None, 5)

    play(story)


def test_the_number_of_another_operator() -> None:
    """406: there is no prompt, and the bill's page is left, where it can be paid."""

    async def story(p: Play) -> None:
        made = await begin(p, operator="moov")
        assert isinstance(made, Accepted) and isinstance(made.action, Redirect)
        await p.sandbox.tick()
        assert not p.sandbox.bank.charged()
        p.sandbox.visit((await go(made.action.url))[1], "pay")
        assert len(p.sandbox.bank.charged(WANTED.reference)) == 1

    play(story)


# --- strictness ---------------------------------------------------------------------------------------

BODY = {"payer_msisdn": "077000001", "amount": 2500, "short_description": "Riz", "external_reference": 7, "sms": False}
REFUSED = {
    "nothing": ({}, "payer_msisdn"),
    "no amount": (BODY | {"amount": None}, "amount"),
    "no description": (BODY | {"short_description": ""}, "short_description"),
    "a short number": (BODY | {"payer_msisdn": "7700"}, "payer_msisdn"),
    "a number with a plus": (BODY | {"payer_msisdn": "+24177000001"}, "payer_msisdn"),
    "a number in a list": (BODY | {"payer_msisdn": ["077000001"]}, "payer_msisdn"),
    "a float": (BODY | {"amount": 2500.0}, "amount"),
    "a fraction": (BODY | {"amount": "25.5"}, "amount"),
    "true": (BODY | {"amount": True}, "amount"),
    "nothing to pay": (BODY | {"amount": 0}, "amount"),
    "less": (BODY | {"amount": -5}, "amount"),
    "too much": (BODY | {"amount": 10**12}, "amount"),
    "another currency": (BODY | {"currency": "XOF"}, "currency"),
    "an odd time": (BODY | {"expiry_period": "an hour"}, "expiry_period"),
    "a word for a yes": (BODY | {"sms": "no"}, "sms"),
    "a long text": (BODY | {"payer_name": "x" * 256}, "payer_name"),
    "a text that is none": (BODY | {"external_reference": {"a": 1}}, "external_reference"),
}


@pytest.mark.parametrize(("body", "complained"), REFUSED.values(), ids=REFUSED.keys())
def test_what_the_documentation_would_refuse(body: Any, complained: str) -> None:
    """422 and the field; nothing is in the books."""

    async def story(p: Play) -> None:
        status, said = await p.ask("POST", BILLS, json=body, headers=BASIC)
        assert (status, list(said["errors"])) == (422, [complained]) and not p.sandbox.bank.books()

    play(story)


def test_a_push_that_is_refused_rings_nowhere() -> None:
    """422 for what is missing or unknown, 404 for no bill, 406 for a bill that has ended."""

    async def story(p: Play) -> None:
        assert (await p.ask("POST", BILLS, data=b"amount=1", headers=BASIC))[0] == 422
        _, said = await p.ask("POST", BILLS, json=BODY, headers=BASIC)
        assert said["e_bill"]["external_reference"] == "7"
        path = f"{BILLS}/{said['e_bill']['bill_id']}"
        push = {"payer_msisdn": "24177000001", "payment_system_name": "airtelmoney"}
        for wrong in ({}, push | {"payer_msisdn": ""}, push | {"payment_system_name": "airtel"}):
            assert (await p.ask("POST", f"{path}/ussd_push", json=wrong, headers=BASIC))[0] == 422
        assert (await p.ask("POST", f"{BILLS}/5559999999/ussd_push", json=push, headers=BASIC))[0] == 404
        await p.sandbox.tick()
        assert not p.sandbox.bank.charged()
        assert (await p.ask("POST", f"{path}/ussd_push", json=push, headers=BASIC))[0] == 202
        await p.sandbox.tick()
        assert (await p.ask("POST", f"{path}/ussd_push", json=push, headers=BASIC))[0] == 406

    play(story)


@pytest.mark.parametrize("wrong", [{"username": ("nobody",)}, {"shared_key": ("partage",)}])
def test_a_key_that_nobody_has(wrong: dict[str, tuple[str, ...]]) -> None:
    """401 before anything is read; to our adapter our own fault, and to a question no answer."""

    async def story(p: Play) -> None:
        assert await begin(p, credentials=wrong) == NotSent("credentials", alert=True)
        made = await begin(p)
        given = Given(WANTED.reference, made.told.references, 2500, "XAF")
        assert await p.run(fetch(given, True, {**CREDENTIALS, **wrong}), broken_ask) == Unclear("credentials")
        assert (await p.ask("GET", BILLS, headers={"Authorization": "Basic ?"}))[0] == 401
        assert len(p.sandbox.bank.books()) == 1

    play(story)


def test_a_bill_that_nobody_knows_proves_nothing() -> None:
    """No 404 is documented for a bill."""

    async def story(p: Play) -> None:
        assert await look(p, "5551234567") == Unclear("not_known")

    play(story)


# --- trouble ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "end"), [*BEFORE_ENDS.items(), *AFTER_ENDS.items()])
def test_trouble_with_the_bill(kind: str, end: object) -> None:
    """Before: there is none. After: it is there, nobody was asked to pay it, and the list has it."""

    async def story(p: Play) -> None:
        p.sandbox.trouble.on("ebilling", kind, times=1)
        assert await begin(p, limit_ms=limit_ms(kind)) == end
        await p.sandbox.tick()
        assert len(p.sandbox.bank.books()) == (kind in AFTER) and not p.sandbox.bank.charged()
        assert isinstance(await search(p), NotFinal if kind in AFTER else Unclear)
        assert isinstance(await begin(p), Accepted), "once, and then it is well"

    play(story)


@pytest.mark.parametrize("kind", [*BEFORE, *AFTER])
def test_trouble_with_the_prompt(kind: str) -> None:
    """The bill's number is kept whatever happens; after the push was heard the payer pays, and asking says so."""

    async def story(p: Play) -> None:
        p.sandbox.trouble.on("ebilling", kind, "otp", times=1)
        made = await begin(p, limit_ms=limit_ms(kind))
        refused = kind in ("rate_limited", "unauthorized")
        assert isinstance(made, Accepted if refused else Lost) and made.told is not None
        await p.sandbox.tick()
        charged = p.sandbox.bank.charged(WANTED.reference)
        assert len(charged) == len(p.got) == (kind in AFTER)
        told = await look(p, made.told.references[0])
        assert facts(told) == [(Kind.CAPTURED, 2500, None)] if charged else isinstance(told, NotFinal)

    play(story)


@pytest.mark.parametrize("kind", [*BEFORE, *AFTER])
def test_trouble_while_asking(kind: str) -> None:
    """Whatever goes wrong with a question, nothing is concluded from it."""

    async def story(p: Play) -> None:
        made = await begin(p)
        await p.sandbox.tick()
        p.sandbox.trouble.on("ebilling", kind, "fetch", times=sandboxed.times(kind))
        assert isinstance(await look(p, made.told.references[0], limit_ms=limit_ms(kind)), Unclear)
        assert facts(await look(p, made.told.references[0])) == [(Kind.CAPTURED, 2500, None)]

    play(story)


@pytest.mark.parametrize("minor", [-1, 500])
def test_another_amount_is_taken(minor: int) -> None:
    """`amount_paid` is what the books say was taken, beside the `amount` that was asked for."""

    async def story(p: Play) -> None:
        p.sandbox.trouble.on("ebilling", "wrong_amount", minor=minor)
        made = await begin(p)
        await p.sandbox.tick()
        (charge,) = p.sandbox.bank.charged()
        told = await look(p, made.told.references[0])
        assert facts(told) == [(Kind.CAPTURED, charge.captured_minor, None)] == [(Kind.CAPTURED, 2500 + minor, None)]
        assert told.facts[0].asked_minor == 2500
        assert dict(parse_qsl(p.got[0].body.decode()))["amount"] == str(2500 + minor)

    play(story)


def test_callbacks_in_trouble() -> None:
    """Silent, twice, late: as it is switched on."""

    async def story(p: Play) -> None:
        for kind, more in (("silence", 0), ("duplicate", 2), ("late", 0)):
            p.sandbox.trouble.on("ebilling", kind, times=1, delay_ms=60_000)
            before = len(p.got)
            await begin(p)
            await p.sandbox.tick(2)
            assert len(p.got) - before == more, kind
        p.clock.advance(60_000)
        await p.sandbox.tick()
        assert len(p.got) == 3 and p.got[0].body == p.got[1].body

    play(story)
