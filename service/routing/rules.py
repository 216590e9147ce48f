"""
Which provider takes a payment, and why: pure, with the same answer to the same question.

    Router(rules).choose(ask, gateways, seed)  -> Choice       rules compiled once, used for many payments
    choose(ask, rules, gateways, seed)         -> Choice       the same for one
    Choice.explained()                         -> dict         what is stored with the payment

In this order:

1. Providers that the request names are the chain, in its order; no rule is looked at.
2. Of the rules that match, the first (lowest priority number, then id) with a gateway that can take the payment.
   Several of one priority share payments by weight: a hash of the seed, which is the payment's id, says whose this one
   is, so a repeat and a replay choose the same. A rule none of whose providers can take it is passed over, and said so.
3. No rule matches: every gateway that can take the payment, particular channels (operator, then country) before
   general ones, direct before redirect, then by provider and account.

Rules that match and cannot be served end in an empty chain, not in 3: whoever wrote them has decided.

A provider's name in a chain means each of its accounts, by id. The accounts and the rules of other merchants do not
exist here, not even in the explanation, which merchants read.

Conditions are masks, one bit a rule, so that a thousand rules cost microseconds. The explanation is made from the same
masks when it is asked for.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.providers.calls import Calls, Channel, Need

Words = tuple[str, ...]
Why = dict[str, Any]
"""A fixed `word` and the values that a sentence about it needs."""


@dataclass(frozen=True, slots=True)
class Ask:
    """
    A payment that somebody wants to make. `country` and `operator` are empty where nobody knows; `providers` (names or
    account ids, in order) where the caller has decided. `embedded`: the merchant's own page confirms.
    """

    amount_minor: int
    currency: str
    method: str
    merchant_id: str
    live: bool
    country: str = ""
    operator: str = ""
    providers: Words = ()
    has_phone: bool = True
    has_email: bool = True
    has_name: bool = True
    embedded: bool = False

    @property
    def brings(self) -> frozenset[Need]:
        """What is known of the payer, in the words of `Channel.needs`."""
        known: tuple[tuple[Need, bool], ...] = (
            ("payer_phone", self.has_phone),
            ("email", self.has_email),
            ("name", self.has_name),
        )
        return frozenset(need for need, there in known if there)


@dataclass(frozen=True, slots=True)
class Rule:
    """
    One route. Empty conditions hold for everything; a condition on a country or an operator does not hold where nobody
    knows it. Amounts are minor units, both ends included. The lowest `priority` is looked at first.
    """

    id: str
    providers: Words  # names or account ids: the chain, in order
    priority: int = 0
    merchant_id: str | None = None  # None: everybody's
    currency: Words = ()
    country: Words = ()
    method: Words = ()
    operator: Words = ()
    min_minor: int | None = None
    max_minor: int | None = None
    weight: int = 1
    soft_decline_failover: bool = False  # cards only; see failover.py
    enabled: bool = True
    note: str = ""
    version: int = 1


@dataclass(frozen=True, slots=True)
class Gateway:
    """One provider account as it stands now. `calls` None: this version cannot ask the provider for money."""

    account_id: str
    provider: str
    live: bool
    calls: Calls | None
    merchant_id: str | None = None  # None: anybody's
    missing: Words = ()  # credentials that calling needs
    disabled: bool = False
    circuit_open: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """One place in a chain: who is asked, and by which of its ways."""

    account_id: str
    provider: str
    channel: Channel


@dataclass(frozen=True, slots=True)
class Verdict:
    """A gateway and the best of its ways for this payment, or why there is none."""

    gateway: Gateway
    channel: Channel | None
    why: Why | None


# --- one gateway --------------------------------------------------------------------------------------

_FITS: Final = ("method", "embedded", "currency", "country", "operator")


def judge(gateway: Gateway, ask: Ask) -> Verdict:
    """
    The most particular of its ways that can take this payment, as `Calls.channel` has them, where the first of them
    cannot the next: without a phone number the payer is sent to the provider's page. The obstacle told is the most
    lasting one.
    """
    fitting, lacks = _fitting(gateway.calls, ask)
    if not fitting:
        asked = {"method": ask.method, "currency": ask.currency, "country": ask.country, "operator": ask.operator}
        return Verdict(gateway, None, {"word": "capability", "lacks": lacks, **asked})
    if gateway.live != ask.live:
        return Verdict(gateway, None, {"word": "wrong_mode", "account_live": gateway.live, "payment_live": ask.live})
    if gateway.disabled:
        return Verdict(gateway, None, {"word": "disabled"})
    if gateway.missing:
        return Verdict(gateway, None, {"word": "credentials_missing", "missing": list(gateway.missing)})
    first: Why | None = None
    for channel in fitting:
        why = _obstacle(channel, ask)
        if why is None:
            # Last, because it is the only one that ends by itself.
            return Verdict(gateway, channel, {"word": "circuit_open"} if gateway.circuit_open else None)
        first = first or why
    return Verdict(gateway, None, first)


def _fitting(calls: Calls | None, ask: Ask) -> tuple[list[Channel], str]:
    """Its ways that fit, the most particular first; or none, and the first thing that none of them has."""
    left: list[Channel] = list(calls.channels) if calls is not None else []
    if not left:
        return [], "calls"
    for name in _FITS:
        wanted = getattr(ask, name)
        either = ("", wanted) if name in ("country", "operator") else (wanted,)
        left = [one for one in left if getattr(one, name) in either]
        if not left:
            return [], name
    return sorted(left, key=particular, reverse=True), ""


def particular(channel: Channel) -> tuple[bool, bool, bool]:
    """The order of `Calls.channel`: by operator, by country, without leaving the page."""
    return bool(channel.operator), bool(channel.country), channel.direct


def _obstacle(channel: Channel, ask: Ask) -> Why | None:
    refused = channel.refuses(ask.amount_minor)
    if refused is not None:
        word, limit_minor = refused
        money = {"amount_minor": ask.amount_minor, "limit_minor": limit_minor, "currency": ask.currency}
        return {"word": word, **money, "operator": channel.operator}
    lacking = sorted(channel.needs - ask.brings)
    return {"word": "needs", "needs": lacking} if lacking else None


def _default_order(verdict: Verdict) -> tuple[bool, bool, bool, str, str]:
    assert verdict.channel is not None
    operator, country, direct = particular(verdict.channel)
    return not operator, not country, not direct, verdict.gateway.provider, verdict.gateway.account_id


# --- all rules ----------------------------------------------------------------------------------------

CONDITIONS: Final = ("currency", "country", "method", "operator")


class Router:
    """Rules, compiled. Never changed; holds no more than the rules and a mask for each value they name."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(sorted(rules, key=lambda rule: (rule.priority, rule.id)))
        self._enabled = sum(bit for bit, rule in self._bits() if rule.enabled)
        self._merchant = _Masks(((rule.merchant_id,) if rule.merchant_id else ()) for rule in self.rules)
        self._conditions = {name: _Masks(getattr(rule, name) for rule in self.rules) for name in CONDITIONS}
        self._from = _steps((rule.min_minor or 0, bit) for bit, rule in self._bits())
        self._above = _steps((rule.max_minor + 1, bit) for bit, rule in self._bits() if rule.max_minor is not None)
        self._same: dict[int, int] = {}
        self._named: dict[str, int] = {}
        for bit, rule in self._bits():
            self._same[rule.priority] = self._same.get(rule.priority, 0) | bit
            for name in rule.providers:
                self._named[name] = self._named.get(name, 0) | bit

    def choose(self, ask: Ask, gateways: Iterable[Gateway], seed: str) -> Choice:
        """The chain for this payment. `seed` is its id."""
        verdicts = [judge(one, ask) for one in gateways if one.merchant_id in (None, ask.merchant_id)]
        usable = sorted((one for one in verdicts if one.why is None), key=_default_order)
        named: dict[str, list[Verdict]] = {}
        for verdict in sorted(usable, key=lambda one: one.gateway.account_id):
            for name in {verdict.gateway.provider, verdict.gateway.account_id}:
                named.setdefault(name, []).append(verdict)
        stages = self.stages(ask)
        if ask.providers:
            return Choice(self, ask, verdicts, stages, "request", _chain(ask.providers, named), None, 0, None)
        matching = stages[-1][1]
        if not matching:
            links = tuple(_link(one) for one in usable)
            return Choice(self, ask, verdicts, stages, "default_order", links, None, 0, None)
        served = 0
        for name in named:
            served |= self._named.get(name, 0)
        served &= matching
        if not served:
            return Choice(self, ask, verdicts, stages, "rule", (), None, 0, None)
        first = next(ones(served))
        share, weights = _share(served & self.same_priority(first), self.rules, seed)
        rule = self.rules[share]
        return Choice(self, ask, verdicts, stages, "rule", _chain(rule.providers, named), share, served, weights)

    def stages(self, ask: Ask) -> list[tuple[str, int]]:
        """What is left of the rules after each condition; the first is the merchant's own and everybody's."""
        left = self._merchant.of(ask.merchant_id)
        found = [("merchant", left), ("disabled", left := left & self._enabled)]
        for name, masks in self._conditions.items():
            found.append((name, left := left & masks.of(getattr(ask, name))))
        found.append(("min_amount", left := left & _up_to(self._from, ask.amount_minor)))
        found.append(("max_amount", left & ~_up_to(self._above, ask.amount_minor)))
        return found

    def same_priority(self, index: int) -> int:
        """The rules of this one's priority, as a mask."""
        return self._same[self.rules[index].priority]

    def _bits(self) -> Iterator[tuple[int, Rule]]:
        return ((1 << index, rule) for index, rule in enumerate(self.rules))


def choose(ask: Ask, rules: Sequence[Rule], gateways: Iterable[Gateway], seed: str) -> Choice:
    """The same for one payment alone."""
    return Router(rules).choose(ask, gateways, seed)


class _Masks:
    """Which rules a value satisfies: those that name it and those that name none."""

    def __init__(self, wanted: Iterable[Words]) -> None:
        self._any = 0
        self._by_value: dict[str, int] = {}
        for index, values in enumerate(wanted):
            if not values:
                self._any |= 1 << index
            for value in values:
                self._by_value[value] = self._by_value.get(value, 0) | 1 << index

    def of(self, value: str) -> int:
        return self._any | self._by_value.get(value, 0)


_Steps = tuple[list[int], list[int]]


def _steps(points: Iterable[tuple[int, int]]) -> _Steps:
    """(amount, bit) pairs as a staircase: at each amount, the bits of all pairs up to it."""
    amounts: list[int] = []
    masks = [0]
    for amount, bit in sorted(points):
        if amounts and amounts[-1] == amount:
            masks[-1] |= bit
        else:
            amounts.append(amount)
            masks.append(masks[-1] | bit)
    return amounts, masks


def _up_to(steps: _Steps, amount: int) -> int:
    amounts, masks = steps
    return masks[bisect_right(amounts, amount)]


def ones(mask: int) -> Iterator[int]:
    """The numbers of the bits that are set, in order."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def _share(group: int, rules: Sequence[Rule], seed: str) -> tuple[int, tuple[int, int] | None]:
    """Whose of the group this payment is, with its weight and the sum of them; None where there is one alone."""
    members = list(ones(group))
    total = sum(rules[index].weight for index in members)
    if len(members) == 1:
        return members[0], None
    point = int.from_bytes(hashlib.sha256(f"route {seed}".encode()).digest()[:8]) * total >> 64
    for index in members:
        point -= rules[index].weight
        if point < 0:
            return index, (rules[index].weight, total)
    raise AssertionError("a point lies below the sum of the weights, which are positive")


def _link(verdict: Verdict) -> Link:
    assert verdict.channel is not None
    return Link(verdict.gateway.account_id, verdict.gateway.provider, verdict.channel)


def _chain(names: Words, named: dict[str, list[Verdict]]) -> tuple[Link, ...]:
    links = (_link(verdict) for name in names for verdict in named.get(name, ()))
    return tuple({link.account_id: link for link in links}.values())


# --- what came of it ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Choice:
    """
    The chain, and all that it was made of. `decided_by`: request | rule | default_order. Empty chain: nobody can take
    this payment, and the explanation says why not, one by one.
    """

    router: Router
    ask: Ask
    verdicts: list[Verdict]
    stages: list[tuple[str, int]]
    decided_by: str
    chain: tuple[Link, ...]
    index: int | None  # of the rule that was taken
    served: int  # mask of the rules that match and have a gateway
    weights: tuple[int, int] | None  # its weight and the sum of those it shares with

    @property
    def rule(self) -> Rule | None:
        """The rule that was taken, if one was."""
        return None if self.index is None else self.router.rules[self.index]

    def explained(self) -> dict[str, Any]:
        """Every rule and every gateway with why it was or was not taken: plain JSON of at most 64 kB."""
        from service.routing.explain import explained

        return explained(self)
