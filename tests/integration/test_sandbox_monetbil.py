"""The sandbox's Monetbil against what caisse really sends it, over a real socket; the books are the truth."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from service.payments.facts import Kind, Reason
from service.providers import monetbil
from service.providers.base import Ask, NotFinal, Unclear, Verified
from service.providers.calls import (
    Accepted,
    Approve,
    Channel,
    Customer,
    Declined,
    Given,
    NotSent,
    Redirect,
    Wanted,
    broken_ask,
)
from service.providers.monetbil_calls import CALLS, create, fetch
from service.sandbox.bank import PROMPT_MS, Payer, Refund
from service.sandbox.desk import Account
from service.sandbox.trouble import AFTER, BEFORE
from tests.support import sandboxed
from tests.support.sandboxed import AFTER_ENDS, BEFORE_ENDS, Play, limit_ms

CREDENTIALS = {"service_key": ("the key/1",), "service_secrets": ("newest", "old")}
FACTS = {**monetbil.FACTS, "widget_url": ""}  # the widget stands at the account's address, as all of it does here
WANTED = Wanted(
    reference="caisse-a1-try_1",
    key="key_1",
    amount_minor=2500,
    currency="XAF",
    method="mobile_money",
    country="CM",
    operator="mtn",
    description="Deux sacs de riz",
    return_url="https://shop.example/back?order=1",
    callback_url="https://to.be.replaced/",
    payer_phone="+237650000001",
    customer=Customer("Awa Ndiaye", "awa@shop.example"),
    live=True,
)
BOTH = pytest.mark.parametrize("operator", ["mtn", ""], ids=["placePayment", "widget"])


def play(story: Callable[[Play], Awaitable[None]], live: bool = True) -> None:
    sandboxed.play(Account("monetbil", CREDENTIALS, live=live), story)


def channel(wanted: Wanted = WANTED) -> Channel:
    found = CALLS.channel("mobile_money", wanted.currency, wanted.country, wanted.operator)
    assert found is not None
    return found


async def begin(p: Play, operator: str = "mtn", limit_ms: int = 15_000, **more: Any) -> Any:
    """What our adapter makes of what it asked for; `credentials` may be others."""
    credentials = CREDENTIALS | more.pop("credentials", {})
    wanted = replace(WANTED, operator=operator, callback_url=p.callback_url, **more)
    return await p.run(create(wanted, channel(wanted), credentials, FACTS), limit_ms=limit_ms)


async def look(p: Play, number: str, live: bool = True, limit_ms: int = 15_000) -> Any:
    """What our adapter hears when it asks."""
    given = Given(WANTED.reference, (number,), WANTED.amount_minor, WANTED.currency)
    return await p.run(fetch(given, live, CREDENTIALS, FACTS), broken_ask, limit_ms)


def facts(told: Any) -> list[tuple[Kind, int | None, Reason | None]]:
    return [(fact.kind, fact.amount_minor, fact.reason) for fact in told.facts]


# --- paying -------------------------------------------------------------------------------------------


def test_a_prompt_that_is_approved() -> None:
    """placePayment is accepted, nothing is final before the payer has answered, then the books and the answer agree."""

    async def story(p: Play) -> None:
        made = await begin(p)
        assert isinstance(made, Accepted) and made.action == Approve("*126#")
        (number,) = made.told.references
        assert len(number) == 20
        assert await look(p, number) == NotFinal() and not p.sandbox.bank.charged()
        p.clock.advance(4_000)
        await p.sandbox.tick()
        (charge,) = p.sandbox.bank.charged(WANTED.reference)
        assert (charge.captured_minor, charge.operator, charge.phone) == (2500, "CM_MTNMOBILEMONEY", "237650000001")
        told = await look(p, number)
        assert facts(told) == [(Kind.CAPTURED, 2500, None)] and told.reference == WANTED.reference
        assert told.facts[0].at_ms == charge.ended_ms == p.clock()

    play(story)


def test_the_widget_is_paid_and_only_its_notification_names_the_payment() -> None:
    """The page has no number; the signed notification to the address of the request has it, and asking is true."""

    async def story(p: Play) -> None:
        made = await begin(p, "")
        assert isinstance(made, Accepted) and isinstance(made.action, Redirect) and made.told.references == ()
        back = p.sandbox.visit(made.action.url, "pay")
        fields = dict(parse_qsl(urlsplit(back).query))
        assert back.startswith("https://shop.example/back?order=1&") and fields["status"] == "success"
        sign = fields.pop("sign")
        shown = dict(parse_qsl(urlsplit(back).query, keep_blank_values=True))
        values = "".join(shown[name] for name in sorted(shown) if name not in ("sign", "order"))
        assert sign == hashlib.md5(b"newest" + values.encode()).hexdigest()
        await p.sandbox.tick()
        (callback,) = p.got
        assert monetbil.verify(callback, CREDENTIALS, p.clock()) == Verified(strong=False)
        meant = monetbil.translate(callback, p.clock())
        assert isinstance(meant, Ask) and meant.told is not None and meant.told.reference == WANTED.reference
        assert (meant.told.facts[0].asked_minor, meant.told.facts[0].currency) == (2500, "XAF")
        assert facts(await look(p, meant.reference)) == [(Kind.CAPTURED, 2500, None)]

    play(story)


@pytest.mark.parametrize(
    ("currency", "country", "amount"), [("XOF", "SN", 700), ("GNF", "GN", 10_000), ("CDF", "CD", 5_000)]
)
def test_each_currency_comes_back_as_it_was_asked_for(currency: str, country: str, amount: int) -> None:
    """Whole units on the wire, minor units in both books: 50 Congolese francs are 5,000 of its hundredths."""

    async def story(p: Play) -> None:
        dial = {"SN": "221", "GN": "224", "CD": "243"}[country]
        made = await begin(
            p, "orange", currency=currency, country=country, amount_minor=amount, payer_phone=f"+{dial}770000001"
        )
        await p.sandbox.tick()
        assert [charge.captured_minor for charge in p.sandbox.bank.charged()] == [amount]
        told = await look(p, made.told.references[0])
        assert (told.facts[0].amount_minor, told.facts[0].currency) == (amount, currency)

    play(story)


def test_who_asks_twice_has_two_payments() -> None:
    """There is no idempotency: the sandbox must not hide a second charge."""

    async def story(p: Play) -> None:
        one, two = await begin(p), await begin(p)
        assert one.told.references != two.told.references
        await p.sandbox.tick()
        assert len(p.sandbox.bank.charged(WANTED.reference)) == 2

    play(story)


# --- not paying ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.TIMED_OUT])
def test_every_reason_is_understood(reason: Reason) -> None:
    """What the sandbox writes for people is what our table reads back."""

    async def story(p: Play) -> None:
        p.sandbox.bank.set_payer("+237650000001", Payer("declines", reason))
        made = await begin(p)
        await p.sandbox.tick()
        assert facts(await look(p, made.told.references[0])) == [(Kind.FAILED, None, reason)]
        assert dict(parse_qsl(p.got[0].body.decode()))["status"] == "failed" and not p.sandbox.bank.charged()

    play(story)


def test_a_prompt_that_lapses_has_expired() -> None:
    """Nobody answers: "Waiting time expired." is the one text that is documented."""

    async def story(p: Play) -> None:
        p.sandbox.bank.anybody = Payer("waits")
        made = await begin(p)
        p.clock.advance(PROMPT_MS - 1)
        await p.sandbox.tick()
        assert await look(p, made.told.references[0]) == NotFinal()
        p.clock.advance(1)
        await p.sandbox.tick()
        assert facts(await look(p, made.told.references[0])) == [(Kind.EXPIRED, None, None)]

    play(story)


def test_the_page_is_left() -> None:
    """Cancelled, told, and the browser comes back with it; a page that has ended takes no money any more."""

    async def story(p: Play) -> None:
        made = await begin(p, "")
        assert "status=cancelled" in p.sandbox.visit(made.action.url, "abandon")
        p.sandbox.visit(made.action.url, "pay")
        await p.sandbox.tick()
        meant = monetbil.translate(p.got[0], p.clock())
        assert isinstance(meant, Ask) and len(p.got) == 1 and not p.sandbox.bank.charged()
        assert facts(await look(p, meant.reference)) == [(Kind.CANCELED, None, None)]

    play(story)


def test_given_back_at_the_dashboard() -> None:
    """-2: it was captured, and all of it went back."""

    async def story(p: Play) -> None:
        made = await begin(p)
        await p.sandbox.tick()
        (charge,) = p.sandbox.bank.charged()
        p.sandbox.bank.refund(charge, Refund("r1", 2500))
        told = await look(p, made.told.references[0])
        assert [kind for kind, _, _ in facts(told)] == [Kind.CAPTURED, Kind.REFUNDED_TOTAL]

    play(story)


def test_a_service_in_test_mode_moves_no_money_for_a_live_account() -> None:
    """7 instead of 1, and `testmode`: what is good enough for a test account is nothing for a live one."""

    async def story(p: Play) -> None:
        made = await begin(p)
        await p.sandbox.tick()
        number = made.told.references[0]
        assert await look(p, number) == Unclear("test_answer_in_live")
        assert facts(await look(p, number, live=False)) == [(Kind.CAPTURED, 2500, None)]
        assert monetbil.identify(p.got[0]).live is False
        _, body = await p.ask("POST", CHECK, data={"paymentId": number})
        assert (body["transaction"]["status"], body["transaction"]["testmode"]) == ("7", "1")

    play(story, live=False)


# --- strictness ---------------------------------------------------------------------------------------

PLACE, CHECK, KEY = "/payment/v1/placePayment", "/payment/v1/checkPayment", "/widget/v2.1/the%20key%2F1"
FORM = {"service": "the key/1", "phonenumber": "237650000001", "amount": "2500"}
REFUSED = {
    "nothing": (PLACE, {}, 422, {"service", "phonenumber", "amount"}),
    "no service": (PLACE, {"phonenumber": "237650000001", "amount": "1"}, 422, {"service"}),
    "no number": (PLACE, {"service": "the key/1", "amount": "1"}, 422, {"phonenumber"}),
    "a fraction": (PLACE, FORM | {"amount": "25.5"}, 422, {"amount"}),
    "less than nothing": (PLACE, FORM | {"amount": "-1"}, 422, {"amount"}),
    "nothing to pay": (PLACE, FORM | {"amount": "0"}, 422, {"amount"}),
    "too much": (PLACE, FORM | {"amount": "99999999999"}, 422, {"amount"}),
    "another country's currency": (PLACE, FORM | {"currency": "XOF"}, 422, {"currency"}),
    "no such country": (PLACE, FORM | {"country": "FR"}, 422, {"country"}),
    "an operator of another country": (PLACE, FORM | {"country": "SN", "operator": "CM_EUMM"}, 422, {"country"}),
    "no such operator": (PLACE, FORM | {"operator": "CM_WAVE"}, 422, {"operator"}),
    "a widget for nothing": (KEY, {"currency": "XAF"}, 422, {"amount"}),
    "no paymentId": (CHECK, {}, 422, {"paymentId"}),
}


@pytest.mark.parametrize(("path", "form", "status", "complained"), REFUSED.values(), ids=REFUSED.keys())
def test_what_the_documentation_would_refuse(path: str, form: Any, status: int, complained: set[str]) -> None:
    """422 and a list of sentences for each field; nothing is in the books."""

    async def story(p: Play) -> None:
        got, body = await p.ask("POST", path, data=form)
        assert (got, set(body)) == (status, complained) and not p.sandbox.bank.books()
        assert all(words and words[0].startswith("The ") for words in body.values())
        assert (await p.ask("POST", path, json=form))[0] == status, "JSON is read as strictly"

    play(story)


@pytest.mark.parametrize("amount", [2500.0, True, "2 500"])
def test_an_amount_in_json_that_is_no_whole_number(amount: object) -> None:
    """A float is no amount, however round it is."""

    async def story(p: Play) -> None:
        assert (await p.ask("POST", PLACE, json=FORM | {"amount": amount}))[0] == 422
        assert (await p.ask("POST", PLACE, json=FORM | {"amount": 2500}))[1]["status"] == "REQUEST_ACCEPTED"

    play(story)


@pytest.mark.parametrize("number", ["+237650000001", "65000", "221770000001x", "3312345678901"])
def test_a_number_that_is_none(number: str) -> None:
    """INVALID_MSISDN, which our adapter takes for a definite no."""

    async def story(p: Play) -> None:
        form = FORM | {"phonenumber": number, "operator": "CM_MTNMOBILEMONEY"}
        assert (await p.ask("POST", PLACE, data=form))[1]["status"] == "INVALID_MSISDN"
        made = await begin(p, payer_phone="+33612345678")
        assert isinstance(made, Declined) and made.reason is Reason.NUMBER_MISMATCH and not p.sandbox.bank.books()

    play(story)


@BOTH
def test_a_key_that_nobody_has_is_our_fault(operator: str) -> None:
    """SERVICE_NOT_FOUND: credentials, with an alert."""

    async def story(p: Play) -> None:
        result = await begin(p, operator, credentials={"service_key": ("stranger",)})
        assert result == NotSent("credentials", alert=True) and not p.sandbox.bank.books()

    play(story)


def test_the_widget_wants_a_right_sign() -> None:
    """Signed with the old secret it is taken, with another one refused."""

    async def story(p: Play) -> None:
        for secret, books in (("stranger", 0), ("old", 1)):
            result = await begin(p, "", credentials={"service_secrets": (secret,)})
            assert isinstance(result, Accepted if books else NotSent) and len(p.sandbox.bank.books()) == books

    play(story)


def test_a_payment_that_nobody_knows_proves_nothing() -> None:
    """checkPayment asks for no credential; our adapter concludes nothing from "not found"."""

    async def story(p: Play) -> None:
        assert await look(p, "12345678901234567890") == Unclear("not_known")

    play(story)


# --- trouble ------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(("kind", "end"), [*BEFORE_ENDS.items(), *AFTER_ENDS.items()])
def test_trouble_while_taking_money(operator: str, kind: str, end: object) -> None:
    """Before: nobody is charged. After: the charge is there, is paid, and its notification alone can name it."""

    async def story(p: Play) -> None:
        p.sandbox.trouble.on("monetbil", kind, times=1)
        assert await begin(p, operator, limit_ms=limit_ms(kind)) == end
        assert len(p.sandbox.bank.books()) == (kind in AFTER)
        for charge in p.sandbox.bank.of("monetbil"):
            p.sandbox.choose(charge, "pay")
        await p.sandbox.tick()
        assert len(p.sandbox.bank.charged(WANTED.reference)) == len(p.got) == (kind in AFTER)
        if p.got:
            meant = monetbil.translate(p.got[0], p.clock())
            assert isinstance(meant, Ask) and facts(await look(p, meant.reference)) == [(Kind.CAPTURED, 2500, None)]
        assert isinstance(await begin(p, operator), Accepted), "once, and then it is well"

    play(story)


@pytest.mark.parametrize("kind", [*BEFORE, *AFTER])
def test_trouble_while_asking(kind: str) -> None:
    """Whatever goes wrong with a question, nothing is concluded from it."""

    async def story(p: Play) -> None:
        made = await begin(p)
        await p.sandbox.tick()
        p.sandbox.trouble.on("monetbil", kind, "fetch", times=1)
        assert isinstance(await look(p, made.told.references[0], limit_ms=limit_ms(kind)), Unclear)
        assert facts(await look(p, made.told.references[0])) == [(Kind.CAPTURED, 2500, None)]

    play(story)


@pytest.mark.parametrize("minor", [-1, 500])
def test_another_amount_is_taken(minor: int) -> None:
    """What the answer says was captured is what the books say was taken."""

    async def story(p: Play) -> None:
        p.sandbox.trouble.on("monetbil", "wrong_amount", minor=minor)
        made = await begin(p)
        await p.sandbox.tick()
        (charge,) = p.sandbox.bank.charged()
        assert charge.captured_minor == 2500 + minor
        assert facts(await look(p, made.told.references[0])) == [(Kind.CAPTURED, 2500 + minor, None)]

    play(story)


def test_callbacks_in_trouble() -> None:
    """Silent, twice, late: as it is switched on; and to the dashboard's address where the request names none."""

    async def story(p: Play) -> None:
        for kind, more in (("silence", 0), ("duplicate", 2), ("late", 0)):
            p.sandbox.trouble.on("monetbil", kind, times=1, delay_ms=60_000)
            before = len(p.got)
            await begin(p)
            await p.sandbox.tick(2)
            assert len(p.got) - before == more, kind
        p.clock.advance(60_000)
        await p.sandbox.tick()
        assert len(p.got) == 3 and p.got[0].body == p.got[1].body

    play(story)
