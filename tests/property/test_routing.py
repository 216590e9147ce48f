"""Routing against a plain reading of its rules: the masks, the shares and the explanation agree with it."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from service.errors import Refusal
from service.providers import CALLS
from service.providers.calls import Calls, Channel, Method
from service.routing.draft import read, shown
from service.routing.explain import BYTES_MAX, LISTED_MAX
from service.routing.operators import read_phone
from service.routing.rules import Ask, Gateway, Router, Rule, choose, judge
from service.routing.simulate import Past, Replay
from service.routing.words import sentences

CURRENCIES, COUNTRIES, OPERATORS = ("XOF", "XAF", "GHS"), ("", "CI", "CM"), ("", "mtn", "wave")
METHODS: tuple[Method, ...] = ("card", "mobile_money")
MERCHANTS = ("mer_1", "mer_2")
AMOUNTS = st.sampled_from([0, 1, 99, 100, 101, 5000, 10**15])
NAMES = ("paystack", "fedapay", "moneroo", "acc_1", "acc_2", "acc_9")


def some(*values: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), max_size=2, unique=True).map(tuple)


def never(*_: object) -> Any:
    raise AssertionError("choosing calls nobody")


channels = st.builds(
    Channel,
    method=st.sampled_from(METHODS),
    currency=st.sampled_from(CURRENCIES),
    country=st.sampled_from(COUNTRIES),
    operator=st.sampled_from(OPERATORS),
    direct=st.booleans(),
    embedded=st.sampled_from([False, False, False, True]),
    min_minor=st.sampled_from([1, 1, 100, 5000]),
    max_minor=st.sampled_from([None, None, 100, 5000]),
    step_minor=st.sampled_from([1, 1, 5]),
    needs=st.sampled_from([frozenset(), frozenset(), frozenset({"payer_phone"}), frozenset({"email", "name"})]),
)
calls = st.lists(channels, max_size=6).map(lambda ways: Calls(tuple(ways), create=never, fetch=never))
gateways = st.lists(
    st.builds(
        Gateway,
        account_id=st.sampled_from(["acc_1", "acc_2", "acc_3", "acc_4", "acc_5"]),
        provider=st.sampled_from(["paystack", "fedapay", "moneroo"]),
        live=st.sampled_from([True, True, True, False]),
        calls=st.one_of(calls, calls, calls, st.none()),
        merchant_id=st.sampled_from([None, *MERCHANTS]),
        missing=st.sampled_from([(), (), (), ("secret_key",)]),
        disabled=st.sampled_from([False, False, False, True]),
        circuit_open=st.sampled_from([False, False, False, True]),
    ),
    max_size=5,
    unique_by=lambda one: one.account_id,
)
asks = st.builds(
    Ask,
    amount_minor=AMOUNTS,
    currency=st.sampled_from(CURRENCIES),
    method=st.sampled_from(METHODS),
    merchant_id=st.sampled_from(MERCHANTS),
    live=st.sampled_from([True, True, False]),
    country=st.sampled_from(COUNTRIES),
    operator=st.sampled_from(OPERATORS),
    providers=st.one_of(st.just(()), st.just(()), some(*NAMES)),
    has_phone=st.booleans(),
    has_email=st.booleans(),
    has_name=st.booleans(),
    embedded=st.sampled_from([False, False, False, True]),
)
rules = st.lists(
    st.builds(
        Rule,
        id=st.integers(0, 10**6).map("rt_{:07}".format),
        providers=st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True).map(tuple),
        priority=st.integers(0, 4),
        merchant_id=st.sampled_from([None, None, *MERCHANTS]),
        currency=some(*CURRENCIES),
        country=some("CI", "CM"),
        method=some(*METHODS),
        operator=some("mtn", "wave"),
        min_minor=st.one_of(st.none(), AMOUNTS),
        max_minor=st.one_of(st.none(), AMOUNTS),
        weight=st.integers(1, 5),
        enabled=st.sampled_from([True, True, True, False]),
    ),
    max_size=12,
    unique_by=lambda one: one.id,
)


def matches(rule: Rule, ask: Ask) -> bool:
    """The conditions, as one would say them aloud."""
    return (
        rule.enabled
        and rule.merchant_id in (None, ask.merchant_id)
        and (not rule.currency or ask.currency in rule.currency)
        and (not rule.country or ask.country in rule.country)
        and (not rule.method or ask.method in rule.method)
        and (not rule.operator or ask.operator in rule.operator)
        and (rule.min_minor is None or ask.amount_minor >= rule.min_minor)
        and (rule.max_minor is None or ask.amount_minor <= rule.max_minor)
    )


def usable(ask: Ask, given: list[Gateway]) -> list[Gateway]:
    mine = [one for one in given if one.merchant_id in (None, ask.merchant_id)]
    return sorted((one for one in mine if judge(one, ask).why is None), key=lambda one: one.account_id)


def chain(names: tuple[str, ...], can: list[Gateway]) -> list[str]:
    found = [one.account_id for name in names for one in can if name in (one.provider, one.account_id)]
    return list(dict.fromkeys(found))


@given(asks, rules, gateways, st.text(max_size=5))
def test_the_choice_is_what_a_plain_reading_gives(ask: Ask, all_: list[Rule], given: list[Gateway], seed: str) -> None:
    """Who is named by the request, else the first priority with a rule that matches and can be served, else all."""
    choice = choose(ask, all_, given, seed)
    can = usable(ask, given)
    got = [link.account_id for link in choice.chain]
    if ask.providers:
        assert (choice.decided_by, choice.rule, got) == ("request", None, chain(ask.providers, can))
        return
    matching = sorted((one for one in all_ if matches(one, ask)), key=lambda one: (one.priority, one.id))
    if not matching:
        assert (choice.decided_by, choice.rule) == ("default_order", None)
        assert sorted(got) == [one.account_id for one in can]
        return
    assert choice.decided_by == "rule"
    served = [one for one in matching if chain(one.providers, can)]
    if not served:
        assert (choice.rule, got) == (None, [])
        return
    assert choice.rule in [one for one in served if one.priority == served[0].priority]
    assert choice.rule is not None and got == chain(choice.rule.providers, can)


@given(asks, rules, gateways, st.text(max_size=5))
def test_the_same_question_has_the_same_answer(ask: Ask, all_: list[Rule], given: list[Gateway], seed: str) -> None:
    """However the rules and the accounts are ordered."""
    one = choose(ask, all_, given, seed)
    other = choose(ask, all_[::-1], given[::-1], seed)
    assert (one.chain, one.rule, one.decided_by) == (other.chain, other.rule, other.decided_by)


@given(asks, rules, gateways)
def test_everything_is_explained_once_and_in_plain_words(ask: Ask, all_: list[Rule], given: list[Gateway]) -> None:
    """Each rule and each account of the merchant stands there once, with a reason, and every reason has a sentence."""
    choice = choose(ask, all_, given, "pay_1")
    it = choice.explained()
    assert json.loads(json.dumps(it)) == it and len(json.dumps(it)) <= BYTES_MAX
    mine = [one for one in Router(all_).rules if one.merchant_id in (None, ask.merchant_id)]
    assert [one["id"] for one in it["rules"]] == [one.id for one in mine]
    assert [one["place"] for one in it["rules"]] == list(range(1, len(mine) + 1))
    taken = [one["id"] for one in it["rules"] if one["taken"]]
    assert taken == ([choice.rule.id] if choice.rule else [])
    theirs = {one.account_id for one in given if one.merchant_id in (None, ask.merchant_id)}
    assert sorted(one["account"] for one in it["gateways"]) == sorted(theirs)
    places = {one["place"]: one["account"] for one in it["gateways"] if one["taken"]}
    assert [places[n] for n in sorted(places)] == [link.account_id for link in choice.chain]
    assert all((one["why"] is None) == one["taken"] for one in it["gateways"])
    assert all(line and line[-1] in ".:" for line in sentences(it))
    assert len(sentences(it)) == 1 + len(mine) + len(theirs) + len(it["not_here"])


@given(asks, rules, gateways)
def test_a_reason_is_a_true_one(ask: Ask, all_: list[Rule], given: list[Gateway]) -> None:
    """A rule whose condition is blamed does not match; one that lost to another does."""
    choice = choose(ask, all_, given, "pay_1")
    by_id = {one.id: one for one in all_}
    for told in choice.explained()["rules"]:
        word = told["why"]["word"]
        if word != "named":
            assert matches(by_id[told["id"]], ask) == (word in ("first", "share", "later", "no_gateway")), told


@given(asks, st.lists(st.sampled_from(["", "XAF", "off"]), max_size=400), gateways)
def test_what_is_counted_and_what_is_listed_are_all(ask: Ask, kinds: list[str], given: list[Gateway]) -> None:
    """More than a hundred rules: none is told twice and none is forgotten."""
    all_ = [
        Rule(f"rt_{n:04}", ("paystack",), n, currency=("XAF",) if kind == "XAF" else (), enabled=kind != "off")
        for n, kind in enumerate(kinds)
    ]
    it = choose(ask, all_, given, "pay_1").explained()
    assert len(it["rules"]) + sum(one["count"] for one in it["more_rules"]) == len(all_)
    assert len(it["rules"]) <= LISTED_MAX + 1
    assert sentences(it)


@given(asks)
def test_a_gateway_without_obstacles_is_used_as_its_provider_says(ask: Ask) -> None:
    """The way that is chosen is that of `Calls.channel` wherever its amount and its needs are met."""
    for name, of in CALLS.items():
        verdict = judge(Gateway("acc_1", name, ask.live, of), ask)
        assert ask.method in ("card", "mobile_money")
        method: Method = "card" if ask.method == "card" else "mobile_money"
        best = of.channel(method, ask.currency, ask.country, ask.operator, ask.embedded)
        if best is None:
            assert verdict.why is not None and verdict.why["word"] == "capability"
        elif best.refuses(ask.amount_minor) is None and best.needs <= ask.brings:
            assert verdict.channel == best
        elif verdict.channel is not None:
            assert verdict.channel.refuses(ask.amount_minor) is None and verdict.channel.needs <= ask.brings


@given(st.lists(st.tuples(asks, st.sampled_from(["paystack", "fedapay", "moneroo"])), max_size=20), rules, gateways)
def test_a_replay_counts_what_choosing_says(
    past: list[tuple[Ask, str]], all_: list[Rule], given: list[Gateway]
) -> None:
    """Fed in any pieces: every payment is the same, elsewhere, nowhere or skipped, as `choose` decides."""
    router = Router(all_)
    rows = [
        Past(f"pay_{n}", a.merchant_id, a.live, a.amount_minor, a.currency, a.method, was, a.country, a.operator)
        for n, (a, was) in enumerate(past)
    ]
    whole, pieces = Replay(router, lambda _: given), Replay(router, lambda _: given)
    whole.add(rows)
    for row in rows:
        pieces.add([row])
    assert whole.told() == pieces.told()
    counted: Counter[str] = Counter()
    for row, (ask, was) in zip(rows, past, strict=True):
        plain = Ask(ask.amount_minor, ask.currency, ask.method, ask.merchant_id, ask.live, ask.country, ask.operator)
        would = router.choose(plain, given, row.id).chain
        counted["nowhere" if not would else "same" if would[0].provider == was else "elsewhere"] += 1
    told = whole.told()
    assert {word: told[word] for word in ("nowhere", "same", "elsewhere")} == {
        word: counted[word] for word in ("nowhere", "same", "elsewhere")
    }
    assert sum(move["count"] for move in told["moves"]) == told["elsewhere"] + told["nowhere"]


@given(rules)
def test_a_rule_that_was_printed_reads_as_itself(all_: list[Rule]) -> None:
    """Whatever `read` takes, `shown` gives back."""
    accounts: dict[str, str | None] = {name: None for name in NAMES if name.startswith("acc_")}
    for rule in all_:
        try:
            once = read(shown(rule), accounts)
        except Refusal:
            continue
        assert read(json.loads(json.dumps(shown(once))), accounts) == once


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = (
    "providers",
    "priority",
    "merchant",
    "currency",
    "country",
    "method",
    "operator",
    "min_amount",
    "weight",
    "note",
)


@given(st.one_of(anything, st.dictionaries(st.sampled_from(FIELDS), anything, max_size=4)))
def test_whatever_is_given_is_read_or_refused(given: Any) -> None:
    """Never another exception: a file by hand may hold anything."""
    try:
        read(given, {"acc_1": None})
    except Refusal as refused:
        assert refused.sentence.endswith(".")  # noqa: PT017 - most examples are refused, some are read


@given(
    st.one_of(st.text(max_size=50), st.text("+0123456789 ()-.", max_size=20)),
    st.sampled_from(["", "CI", "BJ", "GA", "SN", "US", "XX"]),
)
def test_whatever_is_typed_as_a_number_is_read_or_refused(text: str, country: str) -> None:
    """What is read is E.164 and reads as itself."""
    try:
        phone = read_phone(text, country)
    except Refusal as refused:
        assert refused.code == "bad_phone"  # noqa: PT017 - as above
        return
    assert phone.e164.startswith("+") and 6 <= len(phone.e164) - 1 <= 15 and phone.e164[1:].isdigit()
    assert read_phone(phone.e164).e164 == phone.e164
