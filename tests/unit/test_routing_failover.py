"""When another provider may be asked: the table of the specification, enumerated."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import NoReturn

import pytest

from service.providers import CALLS
from service.providers.calls import Calls
from service.routing.failover import TABLE, is_blind, may_fail_over
from service.routing.rules import Rule

STRICT, LENIENT = Rule("rt_1", ("stripe",)), Rule("rt_2", ("stripe",), soft_decline_failover=True)
RESULTS = (
    *("not_sent", "failed", "unknown", "requires_action"),
    *("pending", "succeeded", "authorized", "canceled", "expired", "declined", "submitting", ""),
)


def expected(result: str, soft: bool, rule: Rule | None, method: str) -> bool:
    if result == "not_sent":
        return not soft
    return result == "failed" and soft and method == "card" and rule is LENIENT


def test_every_combination_is_as_the_table_says() -> None:
    """Only proof that nothing was sent, or a soft card decline where the rule says so; nothing else, ever."""
    for result, soft, rule, method in itertools.product(
        RESULTS, (False, True), (None, STRICT, LENIENT), ("card", "mobile_money", "")
    ):
        assert may_fail_over(result, soft, rule, method) is expected(result, soft, rule, method), (result, soft, method)


def test_the_table_has_every_row_of_the_specification() -> None:
    """Eight kinds of evidence: three that nothing was sent, one that depends, four that end it here."""
    assert [(row.result, row.soft, row.may) for row in TABLE] == [
        ("not_sent", False, "yes"),
        ("not_sent", False, "yes"),
        ("not_sent", False, "yes"),
        ("failed", True, "if_the_route_says_so"),
        ("failed", False, "no"),
        ("unknown", False, "no"),
        ("requires_action", False, "no"),
        ("unknown", False, "no"),
    ]


@pytest.mark.parametrize("answered", [False, True])
def test_a_gateway_that_can_never_be_asked_lets_go_only_of_what_it_never_heard(answered: bool) -> None:
    """Monetbil's or Moneroo's "no" cannot be checked later; a refused connection needs no checking."""
    assert may_fail_over("not_sent", blind=True, answered=answered) is not answered
    assert not may_fail_over("failed", True, LENIENT, "card", blind=True)
    assert not may_fail_over("unknown", blind=True, answered=answered)


def test_who_can_be_asked_or_repeats_safely_is_not_blind() -> None:
    """Either of the two is enough."""

    def never(*_: object) -> NoReturn:
        raise AssertionError("nobody is called")

    nothing = Calls((), create=never, fetch=never)
    assert is_blind(nothing)
    assert not is_blind(replace(nothing, find=never))
    assert not is_blind(replace(nothing, idempotent=True))


def test_two_of_our_six_are_blind() -> None:
    """As the table's last sentence means it; who gets a way to be asked leaves this list."""
    assert {name for name, calls in CALLS.items() if is_blind(calls)} == {"monetbil", "moneroo"}
