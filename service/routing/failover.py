"""
Whether another provider may be asked after an attempt at one: the table "When is failover safe?", as data.

It is about creating a payment and nothing else: what submits an OTP, pays out or verifies never goes elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from service.providers.calls import Calls
from service.routing.rules import Rule

Class = Literal["not_sent", "failed", "unknown", "requires_action"]
May = Literal["yes", "if_the_route_says_so", "no"]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what we know, what it is, and whether another provider may be asked."""

    evidence: str
    result: Class
    soft: bool
    may: May


TABLE: Final[tuple[Row, ...]] = (
    Row("refused, connect timeout, DNS, TLS, no free connection", "not_sent", False, "yes"),
    Row("401, 403, 404 route, 405, 422 unsupported, 429, documented maintenance", "not_sent", False, "yes"),
    Row("own circuit open, provider disabled, capability missing", "not_sent", False, "yes"),
    Row("soft decline in the provider's own code table", "failed", True, "if_the_route_says_so"),
    Row("hard decline, insufficient funds, wrong OTP, refused", "failed", False, "no"),
    Row("read or write timeout, connection lost after sending, 5xx, unreadable 2xx", "unknown", False, "no"),
    Row("OTP sent, USSD prompt shown, redirect given", "requires_action", False, "no"),
    Row("a code in no table", "unknown", False, "no"),
)

_MAY: Final[Mapping[tuple[str, bool], May]] = {(row.result, row.soft): row.may for row in TABLE}


def may_fail_over(
    result: str, soft: bool = False, rule: Rule | None = None, method: str = "", *, blind: bool = False,
    answered: bool = True,
) -> bool:  # fmt: skip
    """
    Whether the next in the chain may be asked. What is in no row may not.

    `soft` is meant for a card decline alone, and only a rule allows it: no rule (an explicit chain, the default order)
    does not. `blind`: the gateway can neither be asked by our reference nor takes an idempotency key (`is_blind`), so
    what it did could never be found out: then only a connection that never was (`answered` False) lets go of it, not an
    answer that says so.
    """
    may = _MAY.get((result, soft), "no")
    if may == "no" or (blind and answered):
        return False
    return may == "yes" or (method == "card" and rule is not None and rule.soft_decline_failover)


def is_blind(calls: Calls) -> bool:
    """Whether a lost create at this provider can never be looked up or repeated."""
    return calls.find is None and not calls.idempotent
