"""Money goes out in a provider's units and comes back as the same money, or nothing is sent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.payments import money
from service.payments.facts import AMOUNT_MINOR_MAX, Kind, Told
from service.providers import CALLS, stripe
from service.providers import stripe_wire as wire
from service.providers.calls import Accepted, Channel, NotSent, Refunding
from tests.support import echoes
from tests.support.conversations import Conversation, drive

WAYS = st.sampled_from(echoes.WAYS)


@st.composite
def takable(draw: st.DrawFn) -> tuple[str, Channel, int]:
    """A way, and an amount that it takes."""
    provider, channel = draw(WAYS)
    most = channel.max_minor or AMOUNT_MINOR_MAX
    steps = draw(st.integers(-(-channel.min_minor // channel.step_minor), most // channel.step_minor))
    return provider, channel, steps * channel.step_minor


def asked(provider: str, channel: Channel, amount_minor: int) -> Conversation:
    wish = echoes.wanted(channel, amount_minor)
    return Conversation(CALLS[provider].create(wish, channel, echoes.KEYS[provider]))


@given(takable())
def test_what_is_asked_for_is_what_was_paid(one: tuple[str, Channel, int]) -> None:
    """Minor units to the wire, and from the wire what was captured: equal, in every currency of every way."""
    provider, channel, amount_minor = one
    talk = asked(provider, channel, amount_minor)
    first = talk.call
    while talk.result is None:
        talk.hear(echoes.accepts(provider, talk.call, first))
    assert isinstance(talk.result, Accepted), talk.result
    for fact in talk.result.told.facts:
        assert fact.asked_minor in (None, amount_minor) and fact.currency in (None, channel.currency)
    of = echoes.given(echoes.wanted(channel, amount_minor), provider, channel)
    told = drive(CALLS[provider].fetch(of, True, echoes.KEYS[provider]), echoes.paid(provider, first))[1]
    assert isinstance(told, Told), told
    [fact] = [fact for fact in told.facts if fact.kind is Kind.CAPTURED]
    assert (fact.amount_minor, fact.currency) == (amount_minor, channel.currency)


@given(WAYS, st.integers(-5, AMOUNT_MINOR_MAX) | st.integers(-5, 20_000))
def test_what_a_way_refuses_is_not_sent(one: tuple[str, Channel], amount_minor: int) -> None:
    """Below, above or between the steps: no call, and nothing is rounded. Everything else is asked for as it is."""
    provider, channel = one
    talk = asked(provider, channel, amount_minor)
    if channel.refuses(amount_minor):
        assert (talk.calls, talk.result) == ([], NotSent("amount"))
    else:
        assert talk.result is None
        places = {"stripe": stripe.PLACES.get(channel.currency, money.exponent(channel.currency)), "paystack": 2}
        units, _ = echoes.units(talk.call)
        assert money.from_wire(units, places.get(provider, 0), channel.currency) == amount_minor


@pytest.mark.parametrize(("provider", "channel"), [way for way in echoes.WAYS if way[1].step_minor > 1])
def test_between_two_steps_the_adapter_itself_refuses(provider: str, channel: Channel) -> None:
    """Also where the way's step was set to 1 by mistake: no adapter rounds."""
    loose = replace(channel, step_minor=1)
    for amount_minor in (channel.min_minor + 1, channel.min_minor + channel.step_minor - 1):
        talk = asked(provider, loose, amount_minor)
        assert (talk.calls, talk.result) == ([], NotSent("amount"))


@pytest.mark.parametrize(
    ("provider", "currency", "minor", "on_the_wire"),
    [
        ("stripe", "XOF", 1000, "1000"),
        ("stripe", "XAF", 1000, "1000"),
        ("stripe", "EUR", 1050, "1050"),
        ("stripe", "UGX", 1000, "100000"),
        ("stripe", "MGA", 100_000, "1000"),
        ("stripe", "TND", 1550, "1550"),
        ("paystack", "XOF", 1000, "100000"),
        ("paystack", "NGN", 100_050, "100050"),
        ("fedapay", "XOF", 1000, "1000"),
        ("fedapay", "GNF", 15_000, "15000"),
        ("monetbil", "XAF", 1000, "1000"),
        ("monetbil", "CDF", 100_000, "1000"),
        ("moneroo", "XOF", 1000, "1000"),
        ("moneroo", "USD", 500, "5"),
        ("ebilling", "XAF", 1000, "1000"),
    ],
)
def test_the_wire_by_hand(provider: str, currency: str, minor: int, on_the_wire: str) -> None:
    """Worked out by a person from the providers' pages."""
    channel = next(one for one in CALLS[provider].channels if one.currency == currency)
    assert echoes.units(asked(provider, channel, minor).call) == (
        on_the_wire,
        currency.lower() if provider == "stripe" else currency,
    )


@pytest.mark.parametrize(
    ("currency", "minor"), [("TND", 1555), ("TND", 1501), ("MGA", 150), ("UGX", 1_000_000)], ids=str
)
def test_stripes_special_cases(currency: str, minor: int) -> None:
    """The last of three decimals is 0; five ariary are one step; UGX has eight digits with its two zeros."""
    channel = CALLS["stripe"].channel("card", currency, "FR", "")
    assert channel is not None and asked("stripe", channel, minor).result == NotSent("amount")


@pytest.mark.parametrize("currency", ["UGX", "ISK"])
def test_currencies_without_cents_that_stripe_writes_with_two(currency: str) -> None:
    """1000 are 100000, and always end in 00."""
    for minor in (1, 7, 1000, 999_999):
        assert wire.to_wire(minor, currency) == minor * 100


@given(takable(), st.data())
def test_a_refund_is_written_as_the_payment_was(one: tuple[str, Channel, int], data: st.DataObject) -> None:
    """In whole or in part, where a provider takes one."""
    provider, channel, amount_minor = one
    refund = CALLS[provider].refund
    if refund is None:
        return
    back = data.draw(st.integers(1, amount_minor // channel.step_minor)) * channel.step_minor
    of = echoes.given(echoes.wanted(channel, amount_minor), provider, channel)
    if provider == "stripe":
        of = replace(of, references=("pi_1",))
    talk = Conversation(refund(of, back, "", echoes.KEYS[provider]))
    units = int(echoes.sent(talk.call)["amount"])
    answer: dict[str, Any] = {"id": "re_1", "amount": units, "currency": channel.currency.lower()}
    if provider == "stripe":
        answer |= {"object": "refund", "status": "succeeded", "payment_intent": "pi_1"}
    else:
        answer = {
            "status": True,
            "data": answer | {"status": "pending", "transaction": {"reference": echoes.REFERENCE}},
        }
    result = talk.hear(echoes.response(answer)).result
    assert isinstance(result, Refunding), result
    assert (result.told.facts[0].amount_minor, result.told.facts[0].currency) == (back, channel.currency)


def test_r1_a_failover_from_paystack_to_fedapay_asks_for_the_same_money() -> None:
    """1,000 F are 100000 at Paystack and 1000 at FedaPay: one wish, converted by each adapter from minor units."""
    amount_minor = 1000
    first = CALLS["paystack"].channel("mobile_money", "XOF", "CI", "mtn")
    second = CALLS["fedapay"].channel("mobile_money", "XOF", "CI", "mtn")
    assert first is not None and second is not None
    wish = echoes.wanted(first, amount_minor)

    paystack = Conversation(CALLS["paystack"].create(wish, first, echoes.KEYS["paystack"]))
    assert echoes.units(paystack.call) == ("100000", "XOF")
    assert paystack.answer(429).result == NotSent("rate_limited")

    fedapay = Conversation(CALLS["fedapay"].create(wish, second, echoes.KEYS["fedapay"]))
    asked_for = fedapay.call
    assert echoes.units(asked_for) == ("1000", "XOF")
    while fedapay.result is None:
        fedapay.hear(echoes.accepts("fedapay", fedapay.call, asked_for))
    assert isinstance(fedapay.result, Accepted) and fedapay.result.told.facts[0].asked_minor == amount_minor
    of = echoes.given(wish, "fedapay", second)
    told = drive(CALLS["fedapay"].fetch(of, True, echoes.KEYS["fedapay"]), echoes.paid("fedapay", asked_for))[1]
    assert isinstance(told, Told) and told.facts[0].amount_minor == amount_minor
