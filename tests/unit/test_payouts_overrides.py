"""What the settings file knows better about paying out: the same tables as for payments, bound to the paying halves."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from service.providers import CALLS, PAYOUTS, PROVIDERS, overrides
from service.providers.base import Unclear
from service.providers.calls import OPERATORS
from service.providers.overrides import BadOverride
from service.providers.payouts import PAYEE_KINDS, Payee, Paying, PayoutChannel, Payouts
from tests.support.conversations import Conversation
from tests.support.echoes import KEYS, response


def table(text: str) -> Any:
    return tomllib.loads(text).get("providers", {})


def way(payouts: Payouts, name: str) -> PayoutChannel:
    return next(channel for channel in payouts.channels if overrides.payout_name(channel) == name)


def paying(channel: PayoutChannel, amount_minor: int) -> Paying:
    payee = Payee(channel.kind, channel.currency, channel.country, channel.operator, "+2250700000001", name="Awa Koffi")
    reference = "caisse-0badcafe-po-9"
    return Paying(reference, "key-1", amount_minor, channel.currency, payee, "Ventes", live=True, recipient="RCP_1")


def first(payouts: Payouts, channel: PayoutChannel, amount_minor: int) -> Any:
    return Conversation(payouts.send(paying(channel, amount_minor), channel, KEYS["paystack"])).call.json


# --- what there is ------------------------------------------------------------------------------------


def test_all_six_pay() -> None:
    """Each with ways that are sound and have one name, so that each can be said in the settings."""
    assert list(PAYOUTS) == list(PROVIDERS)
    for provider, payouts in PAYOUTS.items():
        names = [overrides.payout_name(channel) for channel in payouts.channels]
        assert names and len(set(names)) == len(names), provider
        for one in payouts.channels:
            assert one.kind in PAYEE_KINDS and one.operator in ("", *OPERATORS), provider
            assert one.min_minor > 0 and not one.min_minor % one.step_minor, provider
            assert one.max_minor is None or one.min_minor <= one.max_minor, provider
            payee = Payee(one.kind, one.currency, one.country, one.operator)
            assert payouts.channel(payee) == one, provider


def test_the_names_of_ways() -> None:
    """An operator's by its country, others by kind and currency."""
    known = {overrides.payout_name(channel) for payouts in PAYOUTS.values() for channel in payouts.channels}
    assert {"orange-ci", "bank-ngn", "account-eur", "airtel-ga"} <= known
    assert overrides.payout_name(PayoutChannel("mobile_money", "XOF", "CI")) == "wallet-xof-ci"


def test_nothing_said_changes_nothing() -> None:
    """Not one field, and the same functions underneath."""
    assert overrides.apply_payouts(PAYOUTS, {}) == dict(PAYOUTS)
    for provider, payouts in overrides.apply_payouts(PAYOUTS, {name: {} for name in PAYOUTS}).items():
        assert payouts.channels == PAYOUTS[provider].channels and payouts.facts == PAYOUTS[provider].facts


# --- what may be said ---------------------------------------------------------------------------------


def test_codes_limits_and_new_ways() -> None:
    """What is said replaces, what is not said stays; the ways of being paid are others."""
    said = table("""
        [providers.paystack.payout_channels.orange-ci]
        min_minor = 100
        max_minor = 500000
        step_minor = 5
        [providers.paystack.payout_channels.moov-ci]
        currency = "XOF"
        code = "MOOV_CI"
        [providers.paystack.payout_channels.bank-ngn]
        off = true
        [providers.paystack.channels.wave-ci]
        off = true
    """)
    payouts = overrides.apply_payouts(PAYOUTS, said)["paystack"]
    orange, before = way(payouts, "orange-ci"), way(PAYOUTS["paystack"], "orange-ci")
    assert (orange.min_minor, orange.max_minor, orange.step_minor, orange.code) == (100, 500_000, 5, before.code)
    moov = payouts.channel(Payee("mobile_money", "XOF", "CI", "moov"))
    assert moov == PayoutChannel("mobile_money", "XOF", "CI", "moov", "MOOV_CI", 5, None, 5), "in its neighbours' steps"
    assert payouts.channel(Payee("bank", "NGN", "NG")) is None and way(payouts, "wave-ci")
    assert overrides.apply_payouts(PAYOUTS, said)["stripe"] == PAYOUTS["stripe"]
    calls = overrides.apply(CALLS, said)["paystack"]
    assert calls.channel("mobile_money", "XOF", "CI", "moov") == CALLS["paystack"].channel(
        "mobile_money", "XOF", "CI", "moov"
    )


def test_facts_reach_the_conversations() -> None:
    """A bare array to start with, and a mode whose balance is looked for under its new code."""
    said = table("""
        [providers.fedapay.payout_facts]
        payout_find_path = "/v2/payouts/{reference}"
        [providers.fedapay.payout_channels.mtn-bj]
        code = "mtn_v2"
    """)
    payouts = overrides.apply_payouts(PAYOUTS, said)["fedapay"]
    mtn = way(payouts, "mtn-bj")
    call = Conversation(payouts.send(paying(mtn, 1000), mtn, KEYS["fedapay"])).call
    assert call.path.startswith("/v2/payouts/caisse-0badcafe-po-9?")
    assert payouts.float_ and PAYOUTS["fedapay"].float_
    balances = response({"v1/balances": [{"mode": "mtn_v2", "amount": 70}]})
    for half, result in ((payouts, {"XOF": 70}), (PAYOUTS["fedapay"], Unclear("no_balance"))):
        assert half.float_
        asked = Conversation(half.float_(paying(mtn, 1).payee, True, KEYS["fedapay"]))
        assert asked.hear(balances).result == result


def test_both_halves_count_in_the_same_units() -> None:
    """XOF at Paystack without two zeros goes out without them too; `payout_facts` alone may differ."""
    orange = way(PAYOUTS["paystack"], "orange-ci")
    taken = overrides.apply_payouts(PAYOUTS, table("[providers.paystack.facts]\nxof_places = 0"))["paystack"]
    assert (
        first(taken, orange, 1000)["amount"] == 1000 and first(PAYOUTS["paystack"], orange, 1000)["amount"] == 100_000
    )
    both = table("[providers.paystack.facts]\nxof_places = 0\n[providers.paystack.payout_facts]\nxof_places = 2")
    apart = overrides.apply_payouts(PAYOUTS, both)["paystack"]
    assert first(apart, orange, 1000)["amount"] == 100_000
    assert overrides.apply(CALLS, both)["paystack"].facts["xof_places"] == 0


def test_facts_that_only_share_a_name_are_two() -> None:
    """Monetbil's words about its key are others where it pays out."""
    said = table("[providers.monetbil.facts]\ncredentials_words = ['x']")
    assert overrides.apply_payouts(PAYOUTS, said)["monetbil"].facts == PAYOUTS["monetbil"].facts
    assert overrides.apply(CALLS, said)["monetbil"].facts["credentials_words"] == ("x",)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[providers.paystak.payout_facts]", "paystak is nothing that can be set; the nearest one is"),
        ("[providers.paystack.payout_fact]", "payout_fact is nothing that can be set; the nearest one"),
        ("[providers.paystack.payout_facts]\nxof = 1", "paystack.payout_facts.xof is nothing that can be set"),
        ("[providers.paystack.payout_facts]\nxof_places = 5", "has to be a whole number from 0 to 4."),
        ("[providers.paystack.facts]\nxof_places = 'x'", "paystack.facts.xof_places has to be a whole number"),
        ("[providers.fedapay.payout_facts]\npayout_find_path = '/x'", "payout_find_path has to hold {reference}."),
        ("[providers.paystack.payout_channels.orange-ci]\ndirect = true", "direct is nothing that can be set"),
        ("[providers.paystack.payout_channels.orang-ci]\noff = true", "switched off; the nearest one is orange-ci."),
        ("[providers.paystack.payout_channels.moov-ci]\ncode = 'm'", "is new, so it has to say currency and code."),
        ("[providers.stripe.payout_channels.mtn-ci]\ncurrency = 'XOF'\ncode = 'x'", "there are none at this provider"),
        ("[providers.stripe.payout_channels.account-eur]\ncurrency = 'USD'", "currency is EUR there"),
        ("[providers.stripe.payout_channels.account-eur]\nmin_minor = 9\nmax_minor = 8", "max_minor below its min"),
        ("[providers.paystack]\npayout_channels = 5", "providers.paystack.payout_channels has to be a table."),
        ("[providers.paystack]\nfacts = 5", "providers.paystack.facts has to be a table."),
        ("providers = 5", "providers has to be a table."),
    ],
)  # fmt: skip
def test_a_mistake_is_named(text: str, sentence: str) -> None:
    """In one sentence that says where; the half that is not meant passes it over."""
    with pytest.raises(BadOverride) as wrong:
        overrides.apply_payouts(PAYOUTS, table(text))
    assert sentence in str(wrong.value) and str(wrong.value).endswith(".")
