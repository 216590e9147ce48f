"""Choosing: which gateway, in which order, by which rule, and every word of the explanation."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, NoReturn

import pytest

from service.providers import CALLS
from service.providers.calls import Calls, Channel, Need
from service.routing.explain import BYTES_MAX, LISTED_MAX
from service.routing.rules import Ask, Choice, Gateway, Router, Rule, choose
from service.routing.simulate import simulate
from service.routing.words import sentences

ASK = Ask(5000, "XOF", "mobile_money", "mer_1", live=True, country="CI", operator="mtn")
CARD = replace(ASK, method="card", operator="")


def never(*_: object) -> NoReturn:
    raise AssertionError("choosing calls nobody")


def calls(*channels: Channel) -> Calls:
    return Calls(channels, create=never, fetch=never)


GENERAL = Channel("mobile_money", "XOF")
WALLET = Channel("mobile_money", "XOF", "CI", "mtn", direct=True)
HOSTED = Channel("mobile_money", "XOF", "CI", "mtn")


def gateway(provider: str, *channels: Channel, account: str = "", **how: Any) -> Gateway:
    return Gateway(account or f"acc_{provider}", provider, how.pop("live", True), calls(*channels), **how)


PAYSTACK, FEDAPAY, MONEROO = (gateway(name, WALLET) for name in ("paystack", "fedapay", "moneroo"))
THREE = [PAYSTACK, FEDAPAY, MONEROO]


def rule(id_: str, *providers: str, **what: Any) -> Rule:
    return Rule(id_, providers or ("paystack",), **what)


def accounts(choice: Choice) -> list[str]:
    return [link.account_id.removeprefix("acc_") for link in choice.chain]


def told(choice: Choice) -> dict[str, Any]:
    """Every rule's and every account's reason."""
    it = choice.explained()
    return {one["id"]: one["why"] for one in it["rules"]} | {one["account"]: one["why"] for one in it["gateways"]}


def said(choice: Choice, of: str) -> str:
    """The sentence about one rule or account."""
    return next(line for line in sentences(choice.explained())[1:] if f"({of})" in line).partition(": ")[2]


# --- the default order --------------------------------------------------------------------------------


def test_without_rules_every_capable_gateway_is_taken_the_particular_first() -> None:
    """Operator before country before neither, direct before redirect, then the provider's name, then the account's."""
    given = [
        gateway("e_general", GENERAL),
        gateway("d_country", Channel("mobile_money", "XOF", "CI", direct=True)),
        gateway("y_operator", Channel("mobile_money", "XOF", "", "mtn")),
        gateway("c_hosted", HOSTED),
        gateway("b_direct", WALLET, account="acc_b_2"),
        gateway("b_direct", WALLET, account="acc_b_1"),
        gateway("a_none", Channel("card", "XOF")),
        gateway("z_direct", WALLET),
    ]
    in_order = ["b_1", "b_2", "z_direct", "c_hosted", "y_operator", "d_country", "e_general"]
    assert accounts(choose(ASK, [], given, "pay_1")) == in_order


def test_the_default_order_is_used_too_when_no_rule_matches() -> None:
    """The first rule that somebody writes, for one country, must not end payments everywhere else."""
    choice = choose(ASK, [rule("rt_1", "moneroo", country=("SN",))], THREE, "pay_1")
    assert choice.decided_by == "default_order" and choice.rule is None
    assert accounts(choice) == ["fedapay", "moneroo", "paystack"]
    assert sentences(choice.explained())[0].startswith("No rule matches; in the default order: FedaPay (acc_fedapay), ")


def test_a_rule_that_matches_and_cannot_be_served_is_not_replaced_by_the_default_order() -> None:
    """Whoever wrote "only Paystack" has decided; the explanation says why there is nobody."""
    choice = choose(ASK, [rule("rt_1")], [FEDAPAY, replace(PAYSTACK, disabled=True)], "pay_1")
    assert choice.chain == () and choice.decided_by == "rule" and choice.rule is None
    assert told(choice)["rt_1"] == {"word": "no_gateway", "providers": ["paystack"]}
    assert told(choice)["acc_fedapay"] == {"word": "not_in_chain"}
    assert sentences(choice.explained())[0] == "Rules match, and none of their providers can take this payment."


# --- rules --------------------------------------------------------------------------------------------

NOT_TAKEN: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"enabled": False}, {"word": "disabled"}, "disabled."),
    (
        {"currency": ("XAF",)},
        {"word": "currency", "is": "XOF", "wants": ["XAF"]},
        "the currency is XOF, the rule wants XAF.",
    ),
    (
        {"country": ("SN", "BJ")},
        {"word": "country", "is": "CI", "wants": ["SN", "BJ"]},
        "the country is CI, the rule wants SN or BJ.",
    ),
    (
        {"method": ("card",)},
        {"word": "method", "is": "mobile_money", "wants": ["card"]},
        "the method is mobile money, the rule wants cards.",
    ),
    (
        {"operator": ("wave",)},
        {"word": "operator", "is": "mtn", "wants": ["wave"]},
        "the operator is MTN MoMo, the rule wants Wave.",
    ),
    (
        {"min_minor": 5001},
        {"word": "min_amount", "is": 5000, "wants": 5001, "currency": "XOF"},
        "the amount is 5,000 XOF, the rule wants at least 5,001 XOF.",
    ),
    (
        {"max_minor": 4999},
        {"word": "max_amount", "is": 5000, "wants": 4999, "currency": "XOF"},
        "the amount is 5,000 XOF, the rule wants at most 4,999 XOF.",
    ),
    (
        {"providers": ("stripe", "acc_gone")},
        {"word": "no_gateway", "providers": ["stripe", "acc_gone"]},
        "matches, but none of its providers can take this payment: stripe, acc_gone.",
    ),
]


@pytest.mark.parametrize(("what", "why", "sentence"), NOT_TAKEN, ids=lambda one: str(one)[:40])
def test_a_rule_that_is_not_taken_says_why(what: dict[str, Any], why: dict[str, Any], sentence: str) -> None:
    """Each condition on its own turns a rule away, with its values; the rule behind it is taken."""
    wanted = replace(rule("rt_1"), **what)
    choice = choose(ASK, [wanted, rule("rt_2", "moneroo", "fedapay", priority=1)], THREE, "pay_1")
    assert accounts(choice) == ["moneroo", "fedapay"]
    assert told(choice)["rt_1"] == why and told(choice)["rt_2"] == {"word": "first"}
    assert said(choice, "rt_1") == sentence


def test_the_first_condition_that_fails_is_told() -> None:
    """A rule with three wrong conditions names one, always the same."""
    wrong = rule("rt_1", currency=("XAF",), country=("CM",), method=("card",))
    assert told(choose(ASK, [wrong], THREE, "pay_1"))["rt_1"]["word"] == "currency"
    country = replace(wrong, currency=())
    assert told(choose(ASK, [country], THREE, "pay_1"))["rt_1"]["word"] == "country"


def test_both_ends_of_an_amount_belong_to_it() -> None:
    """From 100 to 5,000 takes 100 and 5,000, and neither 99 nor 5,001."""
    router = Router([rule("rt_1", "moneroo", min_minor=100, max_minor=5000)])
    taken = {
        amount: router.choose(replace(ASK, amount_minor=amount), THREE, "pay_1").rule is not None
        for amount in (0, 99, 100, 101, 4999, 5000, 5001, 10**15)
    }
    assert [amount for amount, was in taken.items() if was] == [100, 101, 4999, 5000]


def test_what_nobody_knows_meets_no_condition() -> None:
    """A rule for Wave is not meant for a payer of whom nobody knows the operator."""
    unknown = replace(ASK, country="", operator="")
    general = gateway("fedapay", GENERAL)
    choice = choose(unknown, [rule("rt_1", "fedapay", operator=("wave",))], [general], "pay_1")
    assert choice.rule is None
    assert said(choice, "rt_1") == "the operator is not known, the rule wants Wave."


def test_the_lowest_priority_comes_first_and_then_the_id() -> None:
    """The order in which rules are handed over changes nothing."""
    rules = [rule("rt_3", priority=1), rule("rt_2", priority=20), rule("rt_1", priority=20)]
    assert [one.id for one in Router(rules).rules] == ["rt_3", "rt_1", "rt_2"]
    choice = choose(ASK, rules, THREE, "pay_1")
    assert choice.rule is not None and choice.rule.id == "rt_3"
    assert said(choice, "rt_1") == "matches, but rt_3 comes before it."
    assert [one["place"] for one in choice.explained()["rules"]] == [1, 2, 3]


def test_a_rule_without_a_gateway_lets_the_next_one_take_it() -> None:
    """An outage at one rule's only provider is no reason to refuse what the next rule allows."""
    rules = [rule("rt_1", "paystack"), rule("rt_2", "fedapay", priority=5)]
    choice = choose(ASK, rules, [replace(PAYSTACK, circuit_open=True), FEDAPAY], "pay_1")
    assert accounts(choice) == ["fedapay"]
    assert told(choice)["rt_1"]["word"] == "no_gateway" and told(choice)["acc_paystack"] == {"word": "circuit_open"}


def test_a_chain_keeps_its_order_leaves_out_who_cannot_and_names_nobody_twice() -> None:
    """A provider's name means all its accounts, by id; an account named before is not named again."""
    two = [gateway("fedapay", WALLET, account="acc_f2"), gateway("fedapay", WALLET, account="acc_f1")]
    given = [*two, MONEROO, replace(PAYSTACK, missing=("secret_keys",))]
    choice = choose(ASK, [rule("rt_1", "acc_f2", "paystack", "fedapay", "moneroo")], given, "pay_1")
    assert accounts(choice) == ["f2", "f1", "moneroo"]
    assert said(choice, "acc_paystack") == "it cannot be called without secret_keys."


# --- weights ------------------------------------------------------------------------------------------


def test_rules_of_one_priority_share_by_weight_and_a_payment_stays_with_its_own() -> None:
    """Three to one over 4,000 payments; the same payment always goes the same way, also through a new router."""
    rules = [rule("rt_1", "paystack", weight=3), rule("rt_2", "moneroo", weight=1)]
    router = Router(rules)
    went = {f"pay_{n}": accounts(router.choose(ASK, THREE, f"pay_{n}"))[0] for n in range(4_000)}
    assert 0.72 < sum(name == "paystack" for name in went.values()) / len(went) < 0.78
    again = Router(reversed(rules))
    assert all(accounts(again.choose(ASK, THREE, seed)) == [name] for seed, name in list(went.items())[:200])
    assert all(accounts(simulate(rules, THREE, ASK, seed=seed)) == [name] for seed, name in list(went.items())[:50])


def test_a_share_is_explained_on_both_sides() -> None:
    """Who got it says with which weight, who did not says who."""
    choice = choose(ASK, [rule("rt_1", weight=1), rule("rt_2", "moneroo", weight=999)], THREE, "pay_1")
    assert choice.rule is not None and choice.rule.id == "rt_2"
    assert said(choice, "rt_2") == "taken, by its weight: 999 of 1000."
    assert said(choice, "rt_1") == "matches, but rt_2 has the same priority and got this payment."


def test_only_those_that_match_and_can_be_served_share() -> None:
    """A rule of the same priority for another country, or whose provider is down, loses no payment to nowhere."""
    rules = [
        rule("rt_1", "paystack", weight=1),
        rule("rt_2", "moneroo", weight=1000, country=("SN",)),
        rule("rt_3", "stripe", weight=1000),
    ]
    assert {accounts(choose(ASK, rules, THREE, f"pay_{n}"))[0] for n in range(50)} == {"paystack"}


# --- the caller's chain -------------------------------------------------------------------------------


def test_providers_that_the_request_names_beat_every_rule() -> None:
    """In their order; the rules are not looked at and say so, and so do names that nobody has."""
    ask = replace(ASK, providers=("moneroo", "acc_nobody", "acc_paystack"))
    choice = choose(ask, [rule("rt_1", "fedapay")], THREE, "pay_1")
    assert (choice.decided_by, accounts(choice), choice.rule) == ("request", ["moneroo", "paystack"], None)
    it = choice.explained()
    assert said(choice, "rt_1") == "not looked at, the request names its providers."
    assert said(choice, "acc_fedapay") == "it could take this payment, and is not in the chain."
    assert it["not_here"] == ["acc_nobody"]
    assert sentences(it)[-1] == "There is no account or provider 'acc_nobody' for this merchant."


def test_a_request_that_names_who_cannot_gets_nobody() -> None:
    """An explicit chain is not filled up with others."""
    choice = choose(replace(ASK, providers=("stripe",)), [], THREE, "pay_1")
    assert choice.chain == ()
    assert sentences(choice.explained())[0].endswith("none of them can take this payment.")


# --- gateways -----------------------------------------------------------------------------------------

OBSTACLES: list[tuple[Gateway, dict[str, Any], str]] = [
    (
        gateway("paystack", Channel("card", "XOF")),
        {"word": "capability", "lacks": "method"},
        "it does not take mobile money.",
    ),
    (
        gateway("paystack", replace(GENERAL, currency="GHS")),
        {"word": "capability", "lacks": "currency"},
        "it does not take mobile money in XOF.",
    ),
    (
        gateway("paystack", replace(GENERAL, country="SN")),
        {"word": "capability", "lacks": "country"},
        "it does not take mobile money in XOF in CI.",
    ),
    (
        gateway("paystack", replace(WALLET, operator="wave")),
        {"word": "capability", "lacks": "operator"},
        "it does not take MTN MoMo in XOF in CI.",
    ),
    (
        gateway("paystack", replace(WALLET, embedded=True)),
        {"word": "capability", "lacks": "embedded"},
        "it takes mobile money on its own page only, not on the merchant's.",
    ),
    (gateway("paystack"), {"word": "capability", "lacks": "calls"}, "this version cannot ask it for payments."),
    (
        gateway("paystack", WALLET, live=False),
        {"word": "wrong_mode", "account_live": False},
        "it is a test account, and this is a live payment.",
    ),
    (gateway("paystack", WALLET, disabled=True), {"word": "disabled"}, "it is disabled."),
    (
        gateway("paystack", WALLET, missing=("key", "secret")),
        {"word": "credentials_missing", "missing": ["key", "secret"]},
        "it cannot be called without key, secret.",
    ),
    (
        gateway("paystack", replace(WALLET, min_minor=5001)),
        {"word": "below_minimum", "limit_minor": 5001, "amount_minor": 5000},
        "5,000 XOF is below MTN MoMo's minimum of 5,001 XOF.",
    ),
    (
        gateway("paystack", replace(GENERAL, max_minor=4999)),
        {"word": "above_maximum", "limit_minor": 4999},
        "5,000 XOF is above the maximum of 4,999 XOF.",
    ),
    (
        gateway("paystack", replace(WALLET, step_minor=7)),
        {"word": "not_a_step", "limit_minor": 7},
        "5,000 XOF is no multiple of 7 XOF.",
    ),
    (
        gateway("paystack", replace(WALLET, needs=frozenset({"payer_phone", "email"}))),
        {"word": "needs", "needs": ["email", "payer_phone"]},
        "it needs an e-mail address and the payer's phone number.",
    ),
    (
        gateway("paystack", WALLET, circuit_open=True),
        {"word": "circuit_open"},
        "it failed lately and is left alone for a while.",
    ),
]


@pytest.mark.parametrize(
    ("one", "why", "sentence"), OBSTACLES, ids=lambda one: "" if isinstance(one, Gateway) else str(one)[:30]
)
def test_a_gateway_that_is_not_taken_says_why(one: Gateway, why: dict[str, Any], sentence: str) -> None:
    """Each obstacle on its own, with its values; nobody is called to find out."""
    ask = replace(ASK, has_phone=False, has_email=False)
    choice = choose(ask, [], [one, gateway("moneroo", GENERAL)], "pay_1")
    assert accounts(choice) == ["moneroo"]
    assert told(choice)["acc_paystack"].items() >= why.items()
    assert said(choice, "acc_paystack") == sentence
    assert said(choice, "acc_moneroo") == "taken, place 1 in the chain."


@pytest.mark.parametrize(
    ("need", "known"), [("payer_phone", "has_phone"), ("email", "has_email"), ("name", "has_name")]
)
def test_each_need_is_met_by_what_it_needs(need: Need, known: str) -> None:
    """An e-mail address is no phone number."""
    given = [gateway("paystack", replace(WALLET, needs=frozenset({need})))]
    nothing: dict[str, Any] = {"has_phone": False, "has_email": False, "has_name": False}
    all_else = {**dict.fromkeys(nothing, True), known: False}
    assert accounts(choose(replace(ASK, **{**nothing, known: True}), [], given, "pay_1")) == ["paystack"]
    assert accounts(choose(replace(ASK, **all_else), [], given, "pay_1")) == []


def test_what_is_not_known_is_told_as_that() -> None:
    """A provider that works by country says that it lacks the country, and not that it has none of that name."""
    choice = choose(replace(ASK, country="", operator=""), [], [gateway("fedapay", WALLET)], "pay_1")
    assert said(choice, "acc_fedapay") == (
        "it takes mobile money in XOF in some countries only, and the country is not known."
    )
    choice = choose(replace(ASK, operator=""), [], [gateway("fedapay", WALLET)], "pay_1")
    assert said(choice, "acc_fedapay") == "it needs to know the operator."


def test_a_way_that_cannot_is_passed_over_for_a_more_general_one_that_can() -> None:
    """No phone number: no prompt on the phone, but the provider's page can ask for it."""
    prompt = replace(WALLET, code="prompt", needs=frozenset({"payer_phone"}))
    page = replace(GENERAL, code="page")
    given = [gateway("monetbil", prompt, page)]
    assert choose(ASK, [], given, "pay_1").chain[0].channel.code == "prompt"
    assert choose(replace(ASK, has_phone=False), [], given, "pay_1").chain[0].channel.code == "page"


def test_an_account_in_the_wrong_mode_is_never_taken_whoever_names_it() -> None:
    """A test payment on a live account moves real money."""
    test = replace(ASK, live=False, providers=("acc_paystack",))
    choice = choose(test, [], THREE, "pay_1")
    assert choice.chain == ()
    assert said(choice, "acc_paystack") == "it is a live account, and this is a test payment."


def test_an_embedded_payment_takes_embedded_ways_alone() -> None:
    """With the real Stripe or whoever declares one: a page of the merchant's has no use for an address."""
    page = replace(CARD, currency="EUR", country="FR")
    real = [Gateway(f"acc_{name}", name, True, of) for name, of in CALLS.items()]
    for embedded in (False, True):
        choice = choose(replace(page, embedded=embedded), [], real, "pay_1")
        assert all(link.channel.embedded == embedded for link in choice.chain)
    assert accounts(choose(page, [], real, "pay_1")) == ["stripe"]


def test_our_six_take_what_they_say_they_take() -> None:
    """MTN in Côte d'Ivoire on the real tables: who prompts on the phone comes before who sends to a page."""
    real = [Gateway(f"acc_{name}", name, True, of) for name, of in CALLS.items()]
    choice = choose(ASK, [], real, "pay_1")
    assert accounts(choice)[:2] == ["fedapay", "paystack"] and choice.chain[0].channel.direct
    assert said(choice, "acc_stripe") == "it does not take mobile money."
    assert said(choice, "acc_ebilling") == "it does not take mobile money in XOF."


# --- other merchants ----------------------------------------------------------------------------------


def test_other_merchants_do_not_exist() -> None:
    """Neither their rules nor their accounts are used, counted or named: merchants read the explanation."""
    rules = [rule("rt_other", "moneroo", merchant_id="mer_2"), rule("rt_all", priority=9)]
    given = [gateway("moneroo", WALLET, merchant_id="mer_2"), gateway("paystack", WALLET, merchant_id="mer_1"), FEDAPAY]
    choice = choose(ASK, rules, given, "pay_1")
    assert accounts(choice) == ["paystack"]
    it = choice.explained()
    assert "rt_other" not in json.dumps(it) and "acc_moneroo" not in json.dumps(it)
    assert [one["place"] for one in it["rules"]] == [1] and it["more_rules"] == []
    explicit = choose(replace(ASK, providers=("acc_moneroo",)), rules, given, "pay_1")
    assert explicit.chain == () and explicit.explained()["not_here"] == ["acc_moneroo"]


# --- the size of an explanation -----------------------------------------------------------------------


def test_a_thousand_rules_are_told_one_by_one_and_then_by_number() -> None:
    """A hundred with their reasons, the taken one wherever it is, the others counted by reason; nobody is forgotten."""
    rules = [rule(f"rt_{n:04}", priority=n, currency=("XAF",)) for n in range(900)]
    rules += [rule(f"rt_{n:04}", priority=n, country=("SN",)) for n in range(900, 990)]
    rules += [rule("rt_taken", "moneroo", priority=990)]
    rules += [rule(f"rt_{n:04}", priority=n) for n in range(991, 1000)]
    choice = choose(ASK, rules, THREE, "pay_1")
    it = choice.explained()
    assert len(it["rules"]) == LISTED_MAX + 1 and it["rules"][-1]["id"] == "rt_taken"
    assert it["rules"][-1]["place"] == 991
    counted = {one["word"]: one["count"] for one in it["more_rules"]}
    assert counted == {"currency": 800, "country": 90, "later": 9}
    assert "800 more rules: another currency is wanted." in sentences(it)
    first = choose(ASK, [rule("rt_taken"), *(replace(one, priority=1) for one in rules)], THREE, "pay_1").explained()
    assert first["rules"][0]["taken"] and len(first["rules"]) == LISTED_MAX + 1


def test_long_conditions_make_no_long_explanation() -> None:
    """Twenty countries in each of a thousand rules, and accounts by the hundred: at most 64 kB all the same."""
    many = tuple(f"{a}{b}" for a in "ABCDE" for b in "WXYZ")
    chain = tuple(f"acc_{'x' * 90}{n}" for n in range(10))
    rules = [rule(f"rt_{n:026}", *chain) for n in range(500)]
    rules += [rule(f"rt_{n:026}", *chain, country=many) for n in range(500, 1000)]
    given = [gateway("paystack", account=f"acc_{n:026}") for n in range(500)]
    it = choose(ASK, rules, given, "pay_1").explained()
    assert len(json.dumps(it, separators=(",", ":"))) <= BYTES_MAX
    assert len(it["rules"]) + sum(one["count"] for one in it["more_rules"]) == 1000
    assert len(it["gateways"]) + sum(one["count"] for one in it["more_gateways"]) == 500


def test_drafts_are_tried_instead_of_the_stored_rules() -> None:
    """The simulator is the same function on other rules; no draft means none, an empty one means no rules at all."""
    stored = [rule("rt_1", "paystack")]
    assert accounts(simulate(stored, THREE, ASK)) == ["paystack"]
    assert accounts(simulate(stored, THREE, ASK, [rule("draft_1", "moneroo")])) == ["moneroo"]
    assert simulate(stored, THREE, ASK, []).decided_by == "default_order"
