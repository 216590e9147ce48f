"""What holds for every conversation with every provider, and the words of the contract themselves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from service.payments.facts import Told
from service.providers import CALLS, PROVIDERS
from service.providers.base import NotFinal, NotKnown, Unclear
from service.providers.calls import (
    CALLS_MAX,
    Accepted,
    Broken,
    Call,
    Channel,
    Confirm,
    Customer,
    Declined,
    Listed,
    Listing,
    Lost,
    NotCanceled,
    NotSent,
    Refunding,
    RefundRefused,
    Response,
    broken_ask,
    broken_cancel,
    broken_create,
    broken_otp,
    broken_refund,
)
from tests.support import echoes
from tests.support.conversations import Conversation

# --- the words ----------------------------------------------------------------------------------------

WAY = Channel("mobile_money", "XOF", "CI", "mtn", "mtn", direct=True, min_minor=100, max_minor=1000, step_minor=5)


def test_every_provider_calls() -> None:
    """Both halves are there for the same six."""
    assert list(CALLS) == list(PROVIDERS)


def test_a_call_shows_no_secret() -> None:
    """Neither the key in its path, nor a query, nor what it carries."""
    call = Call("POST", "/w/k3y/k3y?a=b", {"Authorization": "s3cret"}, (("otp", "1234"),), None, secrets=("k3y", ""))
    assert call.shown == "POST /w/***/***"
    assert not {"k3y", "s3cret", "1234"} & set(repr(call).replace("'", " ").split())
    assert "k3y" not in repr(call) and "s3cret" not in repr(call) and "1234" not in repr(call)
    assert "pi_secret" not in repr(Confirm("pi_secret"))


@pytest.mark.parametrize(
    ("amount", "refusal"),
    [
        (0, ("below_minimum", 100)), (95, ("below_minimum", 100)), (99, ("below_minimum", 100)), (100, None),
        (101, ("not_a_step", 5)), (1000, None), (1001, ("above_maximum", 1000)), (1005, ("above_maximum", 1000)),
    ],
)  # fmt: skip
def test_a_way_refuses_before_anything_is_sent(amount: int, refusal: object) -> None:
    """Which limit, and how much it is."""
    assert WAY.refuses(amount) == refusal
    assert replace(WAY, max_minor=None).refuses(1005) is None


def test_a_way_says_what_is_lacking() -> None:
    """A prompt needs the wallet's own number, a page takes the customer's."""
    way = replace(WAY, needs=frozenset({"payer_phone", "email", "name"}))
    wish = replace(echoes.wanted(way, 100), payer_phone="", customer=Customer("", " ", "+2250700000001"))
    assert way.lacks(wish) == {"payer_phone", "email", "name"}
    assert replace(way, direct=False).lacks(wish) == {"email", "name"}
    assert way.lacks(echoes.wanted(way, 100)) == frozenset()


def test_embedded_ways_are_asked_for() -> None:
    """Whoever was sent to an address cannot use a secret, and the other way round."""
    page = CALLS["stripe"].channel("card", "EUR", "FR", "")
    own = CALLS["stripe"].channel("card", "EUR", "FR", "", embedded=True)
    assert page and own and (page.embedded, page.code) == (False, "checkout")
    assert (own.embedded, own.direct, own.code) == (True, True, "payment_intent")
    assert CALLS["paystack"].channel("card", "NGN", "NG", "", embedded=True) is None


@pytest.mark.parametrize("made", [1, 2])
@pytest.mark.parametrize("sent", [True, False])
def test_a_break_that_nobody_caught(made: int, sent: bool) -> None:
    """Only a first call of which not one byte left is proof; a question is asked again, a cancel is never proof."""
    broken = Broken("timeout", sent=sent)
    proof = made == 1 and not sent
    for means in (broken_create, broken_otp, broken_refund):
        assert means(broken, made) == (NotSent("timeout") if proof else Lost("timeout"))
    assert broken_ask(broken, made) == Unclear("timeout")
    assert broken_cancel(broken, made) == Lost("timeout")


def test_what_each_can_do() -> None:
    """Declared, so that it is a reason beforehand and never a surprise at call time."""
    can = {
        name: [
            word
            for word in ("find", "otp", "cancel", "refund", "refunds", "list", "idempotent")
            if getattr(calls, word)
        ]
        for name, calls in CALLS.items()
    }
    assert can == {
        "stripe": ["find", "cancel", "refund", "refunds", "list", "idempotent"],
        "paystack": ["find", "otp", "refund", "refunds", "list"],
        "fedapay": ["find", "cancel", "list"],
        "monetbil": [],
        "moneroo": [],
        "ebilling": ["find"],
    }


# --- every conversation -------------------------------------------------------------------------------

ENDS: dict[str, tuple[type, ...]] = {
    "create": (Accepted, NotSent, Declined, Lost),
    "otp": (Accepted, NotSent, Declined, Lost),
    "fetch": (Told, NotFinal, NotKnown, Unclear),
    "find": (Told, NotFinal, NotKnown, Unclear),
    "refunds": (Told, NotFinal, NotKnown, Unclear),
    "refund": (Refunding, RefundRefused, NotSent, Lost),
    "cancel": (Told, NotCanceled, Lost),
    "list": (Listed, Unclear),
}

Starter = Callable[[], Any]


def begun() -> Iterator[tuple[str, str, Starter]]:
    """Each kind of conversation of each provider; `create` with a page and with a prompt."""
    for provider, calls in CALLS.items():
        keys = echoes.KEYS[provider]
        channel = calls.channels[0]
        wish = echoes.wanted(channel, channel.step_minor * 10_000)
        for channel in {(one.direct, one.method, bool(one.code)): one for one in calls.channels}.values():
            wish = echoes.wanted(channel, channel.step_minor * 10_000)
            wish = replace(wish, expires_at_ms=1_795_000_000_000, now_ms=1_794_990_000_000)
            kind = f"create:{channel.method}:{'direct' if channel.direct else 'page'}:{channel.code}"
            yield provider, kind, lambda c=calls, w=wish, ch=channel, k=keys: c.create(w, ch, k)  # type: ignore[misc]
        of = echoes.given(wish, provider, channel)
        if provider == "stripe":
            of = replace(of, references=("pi_1", "cs_1"))
        more: dict[str, tuple[Any, ...]] = {
            "fetch": (of, True, keys),
            "find": (of, True, keys),
            "otp": (of, "1234", keys),
            "cancel": (of, keys),
            "refund": (of, wish.amount_minor, "", keys),
            "refunds": (of, keys),
            "list": (Listing(0, 1_795_000_000_000), keys),
        }
        for kind, given in more.items():
            function = getattr(calls, kind)
            if function:
                yield provider, kind, lambda f=function, g=given: f(*g)  # type: ignore[misc]


BEGUN = list(begun())
BODIES: list[Any] = [
    *({}, [], {"status": True, "data": []}, {"status": True, "data": {}}, {"data": [], "has_more": True}),
    {"data": [{"id": "cs_9"}], "has_more": True},
    {"data": [{"id": "pi_9"}], "has_more": True},
    {"status": True, "data": [{"id": 1}] * 100, "meta": {"page": 1, "pageCount": 10**9}},
    {"entries": [], "total_entries": 10**6, "per_page": 1},
    {"v1/transactions": [], "meta": {"next_page": 2}},
    {"error": {"type": "invalid_request_error", "param": "expires_at"}},
]


@pytest.mark.parametrize(("provider", "kind", "begin"), BEGUN, ids=[f"{one[0]}-{one[1]}" for one in BEGUN])
def test_a_conversation_ends(provider: str, kind: str, begin: Starter) -> None:
    """Within `CALLS_MAX` calls and in a word of its own kind, also where every answer says that there is more."""
    answers = [
        *(Response(status, {}, json.dumps(body).encode()) for body in BODIES for status in (200, 202, 400, 404)),
        *(Response(status, {}, b"") for status in (100, 200, 204, 302, 401, 403, 405, 406, 409, 422, 429, 500, 503)),
        Response(200, {}, b"\xff<html>"),
    ]
    for answer in answers:
        talk = Conversation(begin())
        while talk.result is None:
            assert len(talk.calls) <= CALLS_MAX
            if kind.startswith("create"):
                # One right answer first takes it further than any constant one.
                talk.hear(answer if len(talk.calls) > 1 else echoes.accepts(provider, talk.call, talk.calls[0]))
            else:
                talk.hear(answer)
        assert isinstance(talk.result, ENDS[kind.partition(":")[0]]), (answer, talk.result)


LOSSES: list[Response | Broken] = [
    Broken("timeout", sent=True),
    *(Response(status, {}, body) for status in (500, 503) for body in (b"", b"{}")),
    *(Response(status, {}, body) for status in (200, 202) for body in (b"{", b"[]", b"{}", b"\xff")),
    *(Response(status, {}, b"") for status in (100, 302)),
]  # fmt: skip
CREATES = [one for one in BEGUN if one[1].startswith("create")]


@pytest.mark.parametrize(("provider", "kind", "begin"), CREATES, ids=[f"{one[0]}-{one[1]}" for one in CREATES])
def test_a_lost_answer_is_never_not_sent(provider: str, kind: str, begin: Starter) -> None:
    """
    Time-outs, 5xx, redirects and unreadable 2xx, at every step and whatever comes after them: no other provider may be
    asked, not even where what was made can be deleted afterwards.
    """
    reached = set()
    for loss in LOSSES:
        for after in (401, 404, 422, 429, 200, None):
            for step in range(CALLS_MAX):
                talk = Conversation(begin())
                lost = False
                try:
                    while talk.result is None:
                        if len(talk.calls) - 1 == step:
                            lost = True
                            talk.hear(loss)
                        elif lost and after == 200:
                            talk.hear(echoes.accepts(provider, talk.call, talk.calls[0]))
                        elif lost and after:
                            talk.answer(after)
                        elif lost:
                            talk.breaks(sent=False)
                        else:
                            talk.hear(echoes.accepts(provider, talk.call, talk.calls[0]))
                except Broken as broken:
                    talk.result = broken_create(broken, len(talk.calls))
                if lost:
                    reached.add(step)
                    assert not isinstance(talk.result, NotSent | Declined), (loss, step, talk.result)
                    if step == 0 or isinstance(loss, Broken) or loss.status >= 300:
                        assert isinstance(talk.result, Lost), (loss, step, talk.result)
    assert reached == set(range(max(reached) + 1))


@pytest.mark.parametrize(
    ("provider", "name", "key"),
    [
        ("stripe", "secret_key", "sk_test_1"),
        ("stripe", "secret_key", "rk_test_1"),
        ("paystack", "secret_keys", "sk_test_1"),
        ("fedapay", "secret_key", "sk_sandbox_1"),
        ("moneroo", "secret_key", "pvk_sandbox_1"),
    ],
)
def test_a_live_account_does_not_ask_with_a_test_key(provider: str, name: str, key: str) -> None:
    """Nobody would be charged, and the shop would deliver."""
    channel = CALLS[provider].channels[0]
    for live in (True, False):
        wish = replace(echoes.wanted(channel, channel.step_minor * 10_000), live=live)
        talk = Conversation(CALLS[provider].create(wish, channel, {name: (key,)}))
        assert talk.result == (NotSent("credentials", alert=True) if live else None)


@pytest.mark.parametrize(
    ("provider", "sign"),
    [
        ("stripe", lambda body: body | {"livemode": False}),
        ("paystack", lambda body: body | {"data": body["data"] | {"domain": "test"}}),
        ("moneroo", lambda body: body | {"data": body["data"] | {"environment": "sandbox"}}),
    ],
)
def test_test_money_in_a_live_account_is_lost_and_somebody_has_to_look(provider: str, sign: Any) -> None:
    """What the provider made moves no money; in a test account it is what was wanted."""
    channel = next(one for one in CALLS[provider].channels if one.code or provider != "paystack")
    for live in (True, False):
        wish = replace(echoes.wanted(channel, channel.step_minor * 10_000), live=live)
        talk = Conversation(CALLS[provider].create(wish, channel, echoes.KEYS[provider]))
        body = json.loads(echoes.accepts(provider, talk.call, talk.call).body)
        result = talk.hear(echoes.response(sign(body))).result
        assert (result.reason, result.alert) == ("test_answer_in_live", True) if live else isinstance(result, Accepted)


def test_a_way_takes_its_own_currency_alone() -> None:
    """Also where the amount would fit."""
    for provider, channel in echoes.WAYS:
        wish = replace(echoes.wanted(channel, channel.step_minor * 10_000), currency="AMD")
        assert Conversation(CALLS[provider].create(wish, channel, echoes.KEYS[provider])).result == NotSent(
            "unsupported"
        )


def test_what_is_lacking_is_not_sent() -> None:
    """By its name, so that it can be asked for."""
    for provider, channel in echoes.WAYS:
        if channel.needs:
            wish = replace(echoes.wanted(channel, channel.step_minor * 10_000), payer_phone="", customer=Customer())
            talk = Conversation(CALLS[provider].create(wish, channel, echoes.KEYS[provider]))
            assert talk.result == NotSent(f"missing_{min(channel.needs)}")
