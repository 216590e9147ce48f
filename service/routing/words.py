"""English sentences for an explanation, a line each; `explain` says which words there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from service.payments.money import to_major
from service.providers import PROVIDERS
from service.providers.calls import OPERATORS

METHODS: Final = {"card": "cards", "mobile_money": "mobile money"}
NEEDS: Final = {"payer_phone": "the payer's phone number", "email": "an e-mail address", "name": "the payer's name"}
CREDENTIALS_SHOWN: Final = 5

Why = Mapping[str, Any]


def sentences(explanation: Mapping[str, Any]) -> list[str]:
    """What was decided, then every gateway (they are few, and a refusal shows the first lines), then every rule."""
    rules = [
        f"Rule {one['place']} ({one['id']}): {rule_reason(one['why'], one['taken'])}" for one in explanation["rules"]
    ]
    gateways = [f"{_gateway(one)}: {gateway_reason(one)}" for one in explanation["gateways"]]
    return [decided(explanation), *gateways, *rules, *more(explanation)]


def more(explanation: Mapping[str, Any]) -> list[str]:
    """What is told by the number, and names of the chain that nobody has."""
    return [
        *(f"{_count(one, 'rule')}: {_COUNTED[one['word']]}." for one in explanation["more_rules"]),
        *(
            f"{_count(one, 'account')}: {_GATEWAYS_COUNTED.get(one['word'], 'cannot take it')}."
            for one in explanation["more_gateways"]
        ),
        *(f"There is no account or provider {name!r} for this merchant." for name in explanation["not_here"]),
    ]


def decided(explanation: Mapping[str, Any]) -> str:
    """The outcome."""
    chain = ", then ".join(_gateway(one) for one in explanation["chain"])
    match explanation["decided_by"], bool(chain):
        case "request", True:
            return f"The request names its providers: {chain}."
        case "request", False:
            return "The request names its providers, and none of them can take this payment."
        case "rule", True:
            return f"The rule {explanation['rule']} was taken: {chain}."
        case "rule", False:
            return "Rules match, and none of their providers can take this payment."
        case _, True:
            return f"No rule matches; in the default order: {chain}."
        case _:
            return "No rule matches, and no gateway can take this payment."


def _count(one: Mapping[str, Any], what: str) -> str:
    return f"{one['count']:,} more {what}{'' if one['count'] == 1 else 's'}"


def _gateway(one: Mapping[str, Any]) -> str:
    provider = PROVIDERS.get(one["provider"])
    return f"{provider.title if provider else one['provider']} ({one['account']})"


# --- rules --------------------------------------------------------------------------------------------

_COUNTED: Final = {
    "named": "the request names its providers",
    "disabled": "disabled",
    "currency": "another currency is wanted",
    "country": "another country is wanted",
    "method": "another method is wanted",
    "operator": "another operator is wanted",
    "min_amount": "a larger amount is wanted",
    "max_amount": "a smaller amount is wanted",
    "no_gateway": "the conditions hold, and none of the providers can take it",
    "share": "the conditions hold, and another of the same priority got this payment",
    "later": "the conditions hold, and the one that was taken comes before",
}


def rule_reason(why: Why, taken: bool = False) -> str:
    """Why a rule was or was not taken."""
    match why["word"]:
        case "first":
            return "taken, the first that matches."
        case "share" if taken:
            return f"taken, by its weight: {why['weight']} of {why['of']}."
        case "share":
            return f"matches, but {why['rule']} has the same priority and got this payment."
        case "later":
            return f"matches, but {why['rule']} comes before it."
        case "named":
            return "not looked at, the request names its providers."
        case "disabled":
            return "disabled."
        case "no_gateway":
            return f"matches, but none of its providers can take this payment: {', '.join(why['providers'])}."
        case "min_amount":
            return f"the amount is {money(why['is'], why['currency'])}, the rule wants at least {_limit(why)}."
        case "max_amount":
            return f"the amount is {money(why['is'], why['currency'])}, the rule wants at most {_limit(why)}."
        case word:
            wants = " or ".join(_value(word, value) for value in why["wants"])
            if not why["is"]:
                return f"the {word} is not known, the rule wants {wants}."
            return f"the {word} is {_value(word, why['is'])}, the rule wants {wants}."


def _limit(why: Why) -> str:
    return money(why["wants"], why["currency"])


def _value(word: str, value: str) -> str:
    if word == "operator":
        return OPERATORS.get(value, value)
    return METHODS.get(value, value) if word == "method" else value


# --- gateways -----------------------------------------------------------------------------------------

_GATEWAYS_COUNTED: Final = {
    "taken": "further down the chain",
    "not_in_chain": "the payment could be taken, and the chain goes elsewhere",
    "disabled": "disabled",
    "circuit_open": "left alone for a while after failures",
    "wrong_mode": "of the other mode",
}


def gateway_reason(one: Mapping[str, Any]) -> str:
    """Why a gateway was or was not taken."""
    why = one["why"]
    if why is None:
        return f"taken, place {one['place']} in the chain."
    match why["word"]:
        case "capability":
            return _lacks(why)
        case "wrong_mode":
            return f"it is a {_mode(why['account_live'])} account, and this is a {_mode(why['payment_live'])} payment."
        case "disabled":
            return "it is disabled."
        case "credentials_missing":
            shown = ", ".join(why["missing"][:CREDENTIALS_SHOWN])
            return f"it cannot be called without {shown}."
        case "below_minimum":
            return f"{money(why['amount_minor'], why['currency'])} is below {_whose(why)} minimum of {_bound(why)}."
        case "above_maximum":
            return f"{money(why['amount_minor'], why['currency'])} is above {_whose(why)} maximum of {_bound(why)}."
        case "not_a_step":
            return f"{money(why['amount_minor'], why['currency'])} is no multiple of {_bound(why)}."
        case "needs":
            return f"it needs {' and '.join(NEEDS.get(need, need) for need in why['needs'])}."
        case "circuit_open":
            return "it failed lately and is left alone for a while."
        case "not_in_chain":
            return "it could take this payment, and is not in the chain."
        case word:
            return f"{word}."


def _lacks(why: Why) -> str:
    method = METHODS.get(why["method"], why["method"])
    match why["lacks"]:
        case "method":
            return f"it does not take {method}."
        case "embedded":
            return f"it takes {method} on its own page only, not on the merchant's."
        case "currency":
            return f"it does not take {method} in {why['currency']}."
        case "country" if not why["country"]:
            return f"it takes {method} in {why['currency']} in some countries only, and the country is not known."
        case "country":
            return f"it does not take {method} in {why['currency']} in {why['country']}."
        case "operator" if not why["operator"]:
            return "it needs to know the operator."
        case "operator":
            where = f" in {why['country']}" if why["country"] else ""
            return f"it does not take {OPERATORS.get(why['operator'], why['operator'])} in {why['currency']}{where}."
        case _:
            return "this version cannot ask it for payments."


def _whose(why: Why) -> str:
    return f"{OPERATORS.get(why['operator'], why['operator'])}'s" if why["operator"] else "the"


def _bound(why: Why) -> str:
    return money(why["limit_minor"], why["currency"])


def _mode(live: bool) -> str:
    return "live" if live else "test"


def money(amount_minor: int, currency: str) -> str:
    """An amount for people: 1050 EUR in minor units is "10.50 EUR"."""
    return f"{to_major(amount_minor, currency):,} {currency}"
