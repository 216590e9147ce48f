"""
Rules as people write them, in a file or a request, read into `Rule`: every field checked, every mistake one sentence.

    {"providers": ["paystack", "fedapay"], "currency": "XOF", "country": ["CI", "SN"], "method": "mobile_money",
     "operator": "mtn", "min_amount": 100, "max_amount": 2000000, "priority": 10, "weight": 1,
     "soft_decline_failover": false, "enabled": true, "note": "", "merchant": null}

Only `providers` must be there. Amounts are minor units of the one currency that the rule then names. What `shown` adds
(version and times) is read and ignored, so that a list that was printed can be edited and given back.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from service.errors import Refusal
from service.payments.facts import AMOUNT_MINOR_MAX
from service.payments.money import exponent
from service.providers import PROVIDERS
from service.providers.calls import METHODS, OPERATORS
from service.routing.rules import Rule, Words

RULES_MAX: Final = 1_000
VALUES_MAX: Final = 20
PROVIDERS_MAX: Final = 10
PRIORITY_MAX: Final = 1_000_000
PRIORITY_STEP: Final = 10
"""Between rules that come one after the other, so that there is room for one more."""
WEIGHT_MAX: Final = 1_000
NOTE_CHARACTERS_MAX: Final = 200

Accounts = Mapping[str, str | None]
"""The accounts there are, with the merchant each belongs to."""

_CHANGEABLE: Final = (
    *("providers", "priority", "merchant", "currency", "country", "method", "operator", "min_amount", "max_amount"),
    *("weight", "soft_decline_failover", "enabled", "note"),
)
_IGNORED: Final = frozenset({"id", "version", "created_at", "updated_at"})
_PLACES: Final = {"currency": (re.compile("[A-Z]{3}"), "XOF"), "country": (re.compile("[A-Z]{2}"), "CI")}
_WORDS: Final[Mapping[str, tuple[str, ...]]] = {"method": METHODS, "operator": tuple(OPERATORS)}

T = TypeVar("T")


def read(given: Any, accounts: Accounts, before: Rule | None = None, where: str = "The rule") -> Rule:
    """
    A rule out of fields; what is not given stays as in `before`, or at its default. `where` names it in sentences.

    Refusals: `bad_route` for its shape, `unknown_provider`, `unknown_account`, and a word for each field that is wrong.
    """
    if not isinstance(given, Mapping):
        raise Refusal("bad_route", f"{where} must be a table of fields.")
    for name in given:
        if name not in _CHANGEABLE and name not in _IGNORED:
            raise Refusal("bad_route", f"{where} has no field {str(name)[:60]!r}{_near(str(name), _CHANGEABLE)}.")
    old = before or Rule("", ())

    def field(name: str, old_value: T) -> Any | T:
        return given.get(name, old_value)

    def switch(name: str, old_value: bool) -> bool:
        value = field(name, old_value)
        if not isinstance(value, bool):
            raise Refusal(f"bad_{name}", f"{where}: {name} is true or false.")
        return value

    merchant = field("merchant", old.merchant_id)
    if merchant is not None and (not isinstance(merchant, str) or not merchant):
        raise Refusal("bad_merchant", f"{where}: the merchant is an id, or null for every merchant.")
    rule = Rule(
        id=old.id,
        providers=_chain(field("providers", old.providers), accounts, merchant, where),
        priority=_number(field("priority", old.priority), "priority", 0, PRIORITY_MAX, where),
        merchant_id=merchant,
        currency=_values(field("currency", old.currency), "currency", where),
        country=_values(field("country", old.country), "country", where),
        method=_values(field("method", old.method), "method", where),
        operator=_values(field("operator", old.operator), "operator", where),
        min_minor=_amount(field("min_amount", old.min_minor), "min_amount", where),
        max_minor=_amount(field("max_amount", old.max_minor), "max_amount", where),
        weight=_number(field("weight", old.weight), "weight", 1, WEIGHT_MAX, where),
        soft_decline_failover=switch("soft_decline_failover", old.soft_decline_failover),
        enabled=switch("enabled", old.enabled),
        note=_note(field("note", old.note), where),
        version=old.version,
    )
    _fits_together(rule, where)
    return rule


def shown(rule: Rule) -> dict[str, Any]:
    """The rule as `read` takes it."""
    return {
        "id": rule.id,
        "merchant": rule.merchant_id,
        "priority": rule.priority,
        "currency": list(rule.currency),
        "country": list(rule.country),
        "method": list(rule.method),
        "operator": list(rule.operator),
        "min_amount": rule.min_minor,
        "max_amount": rule.max_minor,
        "weight": rule.weight,
        "providers": list(rule.providers),
        "soft_decline_failover": rule.soft_decline_failover,
        "enabled": rule.enabled,
        "note": rule.note,
    }


# --- field by field -----------------------------------------------------------------------------------


def _values(value: Any, name: str, where: str) -> Words:
    """A word, several separated by commas, or a list of them; nothing is any."""
    given = value.split(",") if isinstance(value, str) else [] if value is None else value
    if not isinstance(given, list | tuple) or not all(isinstance(one, str) for one in given):
        raise Refusal(f"bad_{name}", f"{where}: {name} is a word or a list of words.")
    words = tuple(dict.fromkeys(word for one in given if (word := one.strip())))
    if len(words) > VALUES_MAX:
        raise Refusal(f"bad_{name}", f"{where}: {name} has at most {VALUES_MAX} values.")
    for word in words:
        if name in _PLACES:
            form, example = _PLACES[name]
            if not form.fullmatch(word):
                raise Refusal(f"bad_{name}", f"{where}: {name} is written like {example}, not {word[:40]!r}.")
        elif word not in _WORDS[name]:
            known = _WORDS[name]
            hint = _near(word, known) or f"; there are {', '.join(known)}"
            raise Refusal(f"bad_{name}", f"{where}: there is no {name} {word[:40]!r}{hint}.")
    return words


def _chain(value: Any, accounts: Accounts, merchant: str | None, where: str) -> Words:
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, list | tuple) or not all(isinstance(one, str) for one in given):
        raise Refusal("bad_providers", f"{where}: providers is a list of providers' names or account ids.")
    names = tuple(name for one in given if (name := one.strip()))
    if not 1 <= len(names) <= PROVIDERS_MAX:
        raise Refusal("bad_providers", f"{where}: it names 1 to {PROVIDERS_MAX} providers, in their order.")
    if len(set(names)) < len(names):
        raise Refusal("bad_providers", f"{where}: providers names one of them twice.")
    for name in names:
        if name in PROVIDERS:
            continue
        if not name.startswith("acc_"):
            hint = _near(name, PROVIDERS) or f"; there are {', '.join(PROVIDERS)}, and account ids"
            raise Refusal("unknown_provider", f"{where}: there is no provider {name[:60]!r}{hint}.")
        # Another merchant's account and none at all are the same to whoever asks.
        if name not in accounts or (merchant is not None and accounts[name] not in (None, merchant)):
            sentence = f"{where}: there is no account {name[:60]!r} for it; `caisse account list` shows them."
            raise Refusal("unknown_account", sentence)
    return names


def _amount(value: Any, name: str, where: str) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= AMOUNT_MINOR_MAX:
        raise Refusal("bad_amount", f"{where}: {name} is a whole number of minor units, 0 to {AMOUNT_MINOR_MAX}.")
    return value


def _number(value: Any, name: str, least: int, most: int, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Refusal(f"bad_{name}", f"{where}: {name} is a whole number from {least} to {most}.")
    return value


def _note(value: Any, where: str) -> str:
    if not isinstance(value, str) or len(value) > NOTE_CHARACTERS_MAX or not value.isprintable():
        raise Refusal("bad_note", f"{where}: the note has at most {NOTE_CHARACTERS_MAX} printable characters.")
    return value


def _fits_together(rule: Rule, where: str) -> None:
    """What could never match, or would match by accident, is a mistake."""
    low, high = rule.min_minor, rule.max_minor
    if (low is not None or high is not None) and len(rule.currency) != 1:
        places = ", ".join(f"{code} has {exponent(code)}" for code in rule.currency[:3])
        why = f" ({places} decimal places)" if places else ""
        raise Refusal("bad_amount", f"{where}: amounts are of one currency, so it has to name exactly one{why}.")
    if low is not None and high is not None and low > high:
        raise Refusal("bad_amount", f"{where}: min_amount {low} is above max_amount {high}, so nothing would match.")
    if rule.operator and rule.method and "mobile_money" not in rule.method:
        raise Refusal("bad_operator", f"{where}: operators are those of mobile_money, so nothing would match.")
    if rule.soft_decline_failover and rule.method and "card" not in rule.method:
        raise Refusal("bad_soft_decline_failover", f"{where}: soft declines fail over for cards only.")


def _near(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word[:60], list(known), n=1)
    return f"; did you mean {near[0]}" if near else ""
