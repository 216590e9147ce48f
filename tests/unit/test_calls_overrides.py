"""What the settings file knows better: read once, checked, and bound to both halves of a provider."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.payments.facts import Told
from service.providers import CALLS, PROVIDERS, overrides
from service.providers.base import Incoming
from service.providers.calls import Calls, Channel
from service.providers.overrides import BadOverride
from tests.support import echoes


def table(text: str) -> Any:
    return tomllib.loads(text).get("providers", {})


def way(calls: Calls, name: str) -> Channel:
    return next(channel for channel in calls.channels if overrides.name(channel) == name)


def test_every_way_has_one_name() -> None:
    """So that each can be said in the settings."""
    for provider, calls in CALLS.items():
        names = [overrides.name(channel) for channel in calls.channels]
        assert len(set(names)) == len(names), provider
    known = {overrides.name(channel) for _, channel in echoes.WAYS}
    assert {"card-eur", "card-eur-embedded", "orange-ci", "wallet-xof-ci", "card-xof-bj", "wallet-ghs"} <= known


def test_nothing_said_changes_nothing() -> None:
    """Not one field, and the same functions underneath."""
    same = overrides.apply(CALLS, {})
    assert same == dict(CALLS)
    for provider, calls in overrides.apply(CALLS, {name: {} for name in CALLS}).items():
        assert calls.channels == CALLS[provider].channels and calls.facts == CALLS[provider].facts


def test_codes_and_limits() -> None:
    """What is said replaces, what is not said stays."""
    said = table("""
        [providers.paystack.channels.orange-ci]
        code = "orange_money"
        min_minor = 100
        max_minor = 500000
        step_minor = 5
        [providers.stripe.channels.card-eur-embedded]
        min_minor = 100
    """)
    calls = overrides.apply(CALLS, said)
    orange, before = way(calls["paystack"], "orange-ci"), way(CALLS["paystack"], "orange-ci")
    assert (orange.code, orange.min_minor, orange.max_minor, orange.step_minor) == ("orange_money", 100, 500_000, 5)
    assert (orange.direct, orange.needs, orange.currency) == (before.direct, before.needs, "XOF")
    assert orange.refuses(102) == ("not_a_step", 5)
    body: Any = next(calls["paystack"].create(echoes.wanted(orange, 1000), orange, echoes.KEYS["paystack"])).json
    assert body["mobile_money"]["provider"] == "orange_money"
    assert way(calls["stripe"], "card-eur-embedded").min_minor == 100
    assert way(calls["stripe"], "card-eur").min_minor == 50
    assert calls["fedapay"] == CALLS["fedapay"]


def test_a_way_that_there_was_none_for_and_one_that_is_off() -> None:
    """Moov at Paystack, whose code nobody documents; Celtiis, which an account has not."""
    said = table("""
        [providers.paystack.channels.moov-ci]
        currency = "XOF"
        code = "moov"
        direct = true
        [providers.fedapay.channels.celtiis-bj]
        off = true
        [providers.moneroo.channels.airtel-cd]
        code = "airtel_money_cd"
    """)
    calls = overrides.apply(CALLS, said)
    moov = calls["paystack"].channel("mobile_money", "XOF", "CI", "moov")
    assert moov is not None and (moov.code, moov.direct, sorted(moov.needs)) == ("moov", True, ["email", "payer_phone"])
    assert way(CALLS["fedapay"], "celtiis-bj").code == "sbin"
    left = calls["fedapay"].channel("mobile_money", "XOF", "BJ", "celtiis")
    assert left is not None and left.operator == ""
    assert way(calls["moneroo"], "airtel-cd").step_minor == 100


def test_facts_reach_the_conversations() -> None:
    """The portal and the push of eBilling; nothing else changes."""
    said = table("""
        [providers.ebilling.facts]
        test_portal_url = "http://127.0.0.1:9/portal"
        push_path = "/api/v2/merchant/e_bills/{bill}/ussd_push"
        bills_path = "/api/v3/bills"
        [providers.fedapay.facts]
        push_path = "/v1/transactions/{mode}"
        pushed_words = ["ok"]
    """)
    calls = overrides.apply(CALLS, said)
    airtel = way(calls["ebilling"], "airtel-ga")
    talk = calls["ebilling"].create(echoes.wanted(airtel, 1000, live=False), airtel, echoes.KEYS["ebilling"])
    first = next(talk)
    assert first.path == "/api/v3/bills"
    push = talk.send(echoes.accepts("ebilling", first, first))
    assert push.path == f"/api/v2/merchant/e_bills/{echoes.NAMES['ebilling']}/ussd_push"
    with pytest.raises(StopIteration) as ended:
        talk.send(echoes.response({}, 406))
    assert ended.value.value.action.url.startswith("http://127.0.0.1:9/portal/checkoutnow?")
    of = echoes.given(echoes.wanted(airtel, 1000), "ebilling", airtel)
    assert next(calls["ebilling"].fetch(of, True, echoes.KEYS["ebilling"])).path.startswith("/api/v3/bills/")
    assert calls["ebilling"].channels == CALLS["ebilling"].channels
    assert calls["fedapay"].facts["pushed_words"] == ("ok",) and calls["fedapay"].facts["include"] == "currency"


def test_both_halves_count_in_the_same_units() -> None:
    """XOF at Paystack without two zeros: what is asked for, what a callback says and what verify says."""
    calls = overrides.apply(CALLS, table("[providers.paystack.facts]\nxof_places = 0"))
    providers = overrides.listening(PROVIDERS, calls)
    mtn = way(calls["paystack"], "mtn-ci")
    first = next(calls["paystack"].create(echoes.wanted(mtn, 1000), mtn, echoes.KEYS["paystack"]))
    assert echoes.units(first) == ("1000", "XOF")
    raw = b'{"event":"charge.success","data":{"reference":"a","status":"success","amount":1000,"currency":"XOF"}}'
    said = providers["paystack"].translate(Incoming("POST", (), b"", raw), 0)
    assert isinstance(said, Told) and said.facts[0].amount_minor == 1000
    before = PROVIDERS["paystack"].translate(Incoming("POST", (), b"", raw), 0)
    assert isinstance(before, Told) and before.facts[0].amount_minor == 10
    assert providers["stripe"].translate is PROVIDERS["stripe"].translate


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[providers.paystak.facts]", "providers.paystak is nothing that can be set; the nearest one is paystack."),
        ("[providers.paystack.fact]", "providers.paystack.fact is nothing that can be set; the nearest one is facts."),
        ("[providers.paystack.facts]\nxof = 1", "providers.paystack.facts.xof is nothing that can be set"),
        ("[providers.paystack.facts]\nxof_places = '2'", "has to be a whole number from 0 to"),
        ("[providers.paystack.facts]\nxof_places = true", "has to be a whole number from 0 to"),
        ("[providers.paystack.facts]\nxof_places = 5", "has to be a whole number from 0 to 4."),
        ("[providers.paystack.facts]\nxof_places = 0.5", "has to be a whole number from 0 to"),
        ("[providers.paystack.facts]\nwrong_otp_words = 'x'", "has to be a list of at most 50 texts."),
        ("[providers.paystack.facts]\nwrong_otp_words = [1]", "has to be a text of at most 300 characters."),
        ("[providers.paystack.facts]\nwrong_otp_words = ['']", "has to be a text of at most 300 characters."),
        ("[providers.ebilling.facts]\nportal_url = 'http://portal.example'", "portal_url has to be an https address."),
        ("[providers.ebilling.facts]\npush_path = 'x/{bill}'", "has to begin with / and to have no spaces."),
        ("[providers.ebilling.facts]\npush_path = '/push'", "push_path has to hold {bill}."),
        ("[providers.ebilling.facts]\npush_path = '/{bill.x}'", "push_path has to hold {bill}."),
        ("[providers.ebilling.facts]\npush_path = '/{bill!r}'", "can only hold plain names in braces."),
        ("[providers.ebilling.facts]\npush_path = '/{bill'", "has a brace without its other half."),
        ("[providers.ebilling.facts]\nbills_path = '/{bill}'", "bills_path has to hold no {…}."),
        ("[providers.stripe.channels.card-xxx]\nmin_minor = 5", "providers.stripe.channels.card-xxx is no way"),
        ("[providers.stripe.channels.mtn-ci]\ncurrency = 'XOF'\ncode = 'x'", "there are none at this provider"),
        ("[providers.paystack.channels.moov-ci]\ncode = 'moov'", "is new, so it has to say currency and code."),
        ("[providers.paystack.channels.moov-ci]\ncode = 'm'\ncurrency = 'cfa'", "a currency in three capitals"),
        ("[providers.paystack.channels.orange-ci]\ncurrency = 'GHS'", "currency is XOF there, and cannot be changed."),
        ("[providers.paystack.channels.orange-ci]\ncodes = 'x'", "codes is nothing that can be set; the nearest one"),
        ("[providers.paystack.channels.orange-ci]\nmin_minor = 0", "has to be a whole number from 1 to"),
        ("[providers.paystack.channels.orange-ci]\nmin_minor = 9\nmax_minor = 8", "a max_minor below its min_minor."),
        ("[providers.paystack.channels.orange-ci]\ndirect = 1", "direct has to be true or false."),
        ("[providers.paystack.channels.orang-ci]\noff = true", "could be switched off; the nearest one is orange-ci."),
        ("[providers.paystack]\nchannels = 5", "providers.paystack.channels has to be a table."),
        ("[providers]\npaystack = 5", "providers.paystack has to be a table."),
        ("providers = 5", "providers has to be a table."),
    ],
)  # fmt: skip
def test_a_mistake_is_named(text: str, sentence: str) -> None:
    """In one sentence that says where."""
    with pytest.raises(BadOverride) as wrong:
        overrides.apply(CALLS, table(text))
    assert sentence in str(wrong.value) and str(wrong.value).endswith(".")


Odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["/{", "code"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["paystack", "ebilling", "facts", "channels", "orange-ci", "mtn-gh", "code", "off", "currency"]
            )
            | st.sampled_from(["push_path", "portal_url", "xof_places", "wrong_otp_words", "min_minor", "moov-ci"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def refused(said: Any) -> str:
    """Why it was, empty where it was taken."""
    try:
        overrides.apply(CALLS, said)
    except BadOverride as wrong:
        return str(wrong)
    return ""


@given(Odd, st.sampled_from(sorted(CALLS)))
def test_nothing_else_is_ever_raised(said: Any, provider: str) -> None:
    """Whatever stands in the file, at its top or inside a provider's two tables."""
    for one in (said, {provider: {"facts": said}}, {provider: {"channels": said}}):
        sentence = refused(one)
        assert not sentence or sentence.endswith(".")
