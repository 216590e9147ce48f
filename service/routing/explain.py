"""
The explanation of a choice: fixed words and values as plain JSON, from which sentences in any language are made.

    {"version": 1, "ask": {…}, "decided_by": "request" | "rule" | "default_order", "rule": "rt_…" | null,
     "chain": [{"account", "provider", "channel": {…}}],
     "rules": [{"id", "place", "taken", "why": {"word", …}}],             in the order in which they are looked at
     "more_rules": [{"word", "count"}],                                   those not listed one by one
     "gateways": [{"account", "provider", "taken", "place", "why"}], "more_gateways": [{"word", "count"}],
     "not_here": ["…"]}                                                   named in the chain, and no such account

Why a rule was taken: `first`, or `share` (its weight, the sum). Why not: `named` (the request names its providers),
`disabled`, a condition that does not hold (`currency`, `country`, `method`, `operator`, `min_amount`, `max_amount`,
with what `is` and what the rule `wants`: the first that fails, in this order), `no_gateway`, `share` or `later` (which
was taken instead). Why a gateway was not: `capability` (what it `lacks`), `wrong_mode`, `disabled`,
`credentials_missing`, `below_minimum`, `above_maximum`, `not_a_step`, `needs`, `circuit_open`, `not_in_chain`.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec

from service.routing.rules import CONDITIONS, Rule, Why, ones

if TYPE_CHECKING:
    from service.routing.rules import Choice

LISTED_MAX: Final = 100
"""Rules that were not taken are told one by one up to here, then counted by their reason. Gateways: half of it."""
BYTES_MAX: Final = 64 * 1024


def explained(choice: Choice) -> dict[str, Any]:
    """See above. Where long conditions would make it longer than 64 kB, fewer are told one by one."""
    listed = LISTED_MAX
    while True:
        told = _told(choice, listed)
        if listed == 0 or len(msgspec.json.encode(told)) <= BYTES_MAX:
            return told
        listed //= 2


def _told(choice: Choice, listed: int) -> dict[str, Any]:
    ask = choice.ask
    chain = choice.ask.providers or (choice.rule.providers if choice.rule else ())
    known = {name for one in choice.verdicts for name in (one.gateway.provider, one.gateway.account_id)}
    rules, more_rules = _rules(choice, listed)
    gateways, more_gateways = _gateways(choice, listed // 2)
    return {
        "version": 1,
        "ask": {
            "amount_minor": ask.amount_minor,
            "currency": ask.currency,
            "country": ask.country,
            "method": ask.method,
            "operator": ask.operator,
            "live": ask.live,
            "embedded": ask.embedded,
            "providers": list(ask.providers),
        },
        "decided_by": choice.decided_by,
        "rule": choice.rule.id if choice.rule else None,
        "chain": [
            {
                "account": link.account_id,
                "provider": link.provider,
                "channel": {
                    "code": link.channel.code,
                    "country": link.channel.country,
                    "operator": link.channel.operator,
                    "direct": link.channel.direct,
                },
            }
            for link in choice.chain[: max(listed, 1)]
        ],
        "rules": rules,
        "more_rules": more_rules,
        "gateways": gateways,
        "more_gateways": more_gateways,
        "not_here": [name for name in chain if name not in known],
    }


# --- rules --------------------------------------------------------------------------------------------


def _rules(choice: Choice, listed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    mine, rules, reasons = choice.stages[0][1], choice.router.rules, _reasons(choice)
    taken = 0 if choice.index is None else 1 << choice.index
    told = 0
    for index in islice(ones(mine & ~taken), listed):
        told |= 1 << index
    entries = [
        {
            "id": rules[index].id,
            "place": (mine & (1 << index) - 1).bit_count() + 1,
            "taken": index == choice.index,
            "why": _why(choice, index, reasons),
        }
        for index in ones(told | taken)
    ]
    left = mine & ~told
    counted = [(word, (left & mask).bit_count()) for word, mask in reasons.items()]
    return entries, [{"word": word, "count": count} for word, count in counted if count]


def _reasons(choice: Choice) -> dict[str, int]:
    """Every reason with the rules it holds for, as masks; each rule of the merchant that was not taken is in one."""
    mine = choice.stages[0][1]
    if choice.decided_by == "request":
        return {"named": mine}
    reasons: dict[str, int] = {}
    before = mine
    for word, left in choice.stages[1:]:
        reasons[word] = before & ~left
        before = left
    reasons["no_gateway"] = before & ~choice.served
    if choice.rule is not None and choice.index is not None:
        same = choice.router.same_priority(choice.index) & choice.served
        reasons["share"] = same & ~(1 << choice.index)
        reasons["later"] = choice.served & ~same
    return reasons


def _why(choice: Choice, index: int, reasons: dict[str, int]) -> Why:
    rule, ask = choice.router.rules[index], choice.ask
    if index == choice.index:
        if choice.weights is None:
            return {"word": "first"}
        weight, total = choice.weights
        return {"word": "share", "weight": weight, "of": total}
    word = next(word for word, mask in reasons.items() if mask >> index & 1)
    if word in CONDITIONS:
        return {"word": word, "is": getattr(ask, word), "wants": list(getattr(rule, word))}
    if word == "min_amount":
        return {"word": word, "is": ask.amount_minor, "wants": rule.min_minor, "currency": ask.currency}
    if word == "max_amount":
        return {"word": word, "is": ask.amount_minor, "wants": rule.max_minor, "currency": ask.currency}
    if word == "no_gateway":
        return {"word": word, "providers": list(rule.providers)}
    if word in ("share", "later"):
        taken = choice.rule
        assert taken is not None
        return {"word": word, "rule": taken.id}
    return {"word": word}


# --- gateways -----------------------------------------------------------------------------------------


def _gateways(choice: Choice, listed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    places = {link.account_id: place for place, link in enumerate(choice.chain, 1)}
    told: list[dict[str, Any]] = []
    more: Counter[str] = Counter()
    # Those of the chain in its order, then the others as they were given.
    for verdict in sorted(choice.verdicts, key=lambda one: places.get(one.gateway.account_id, len(places) + 1)):
        place = places.get(verdict.gateway.account_id)
        reason: Why | None = None if place else verdict.why or {"word": "not_in_chain"}
        if len(told) >= max(listed, 1):
            more[reason["word"] if reason else "taken"] += 1
            continue
        told.append(
            {
                "account": verdict.gateway.account_id,
                "provider": verdict.gateway.provider,
                "taken": place is not None,
                "place": place,
                "why": reason,
            }
        )
    return told, [{"word": word, "count": count} for word, count in sorted(more.items())]


def conditions(rule: Rule) -> dict[str, Any]:
    """What a rule wants, without what it leaves open."""
    wants: dict[str, Any] = {name: list(getattr(rule, name)) for name in CONDITIONS if getattr(rule, name)}
    limits = {"min_amount": rule.min_minor, "max_amount": rule.max_minor}
    return wants | {name: value for name, value in limits.items() if value is not None}
