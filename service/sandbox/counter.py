"""
What a person, a script or a test says to a running sandbox over HTTP, under `/_sandbox`.

    GET  /_sandbox/books             every charge          GET /_sandbox/phone/{number}   what a phone shows
    GET  /_sandbox/payouts           what was paid out, and the floats, for people
    GET  /_sandbox/floats            what can be paid out  POST /_sandbox/float           {provider, currency, minor, …}
    GET  /_sandbox/trouble           what is switched on   POST /_sandbox/trouble         {provider, kind, …}: on
    POST /_sandbox/trouble/off       {provider?, kind?}    POST /_sandbox/payer           {phone, does, …}
"""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from service.payments.facts import Reason
from service.sandbox import pages
from service.sandbox.bank import Payer
from service.sandbox.desk import Asked, Said
from service.sandbox.treasury import START_MINOR
from service.sandbox.trouble import KINDS, MINOR_MAX

if TYPE_CHECKING:
    from service.sandbox.teller import Sandbox

_TROUBLE = {"provider": str, "kind": str, "operation": str, "times": int, "delay_ms": int, "minor": int}
_FLOAT = {"provider": str, "account": str, "currency": str, "purse": str, "minor": int}
WHAT_THERE_IS = "books, payouts, floats, float, trouble, trouble/off, payer and phone/{number}"
_PAYER = {"phone": str, "does": str, "reason": str, "otp": str, "wrong_otps": int, "after_ms": int}


def answer(sandbox: Sandbox, asked: Asked) -> Said:
    """One request."""
    try:
        return _answer(sandbox, asked)
    except ValueError as error:
        return Said(400, {"error": str(error)})


def _answer(sandbox: Sandbox, asked: Asked) -> Said:
    match asked.method, asked.path:
        case "GET", "/books":
            books = {"charges": sandbox.bank.books(), "payouts": sandbox.treasury.books()}
            return Said(200, {**books, "floats": sandbox.treasury.floats(), "callbacks_waiting": sandbox.post.waiting})
        case "GET", "/payouts":
            return Said(200, pages.payouts(sandbox.treasury))
        case "GET", "/floats":
            return Said(200, {"floats": sandbox.treasury.floats(), "others_minor": START_MINOR})
        case "POST", "/float":
            _set_float(sandbox, _given(asked, _FLOAT))
            return Said(200, {"floats": sandbox.treasury.floats(), "others_minor": START_MINOR})
        case "GET", "/trouble":
            return _rules(sandbox)
        case "POST", "/trouble":
            given = _given(asked, _TROUBLE)
            provider, kind = given.pop("provider", "*"), given.pop("kind", "")
            sandbox.trouble.on(provider, kind, given.pop("operation", ""), **given)
            return _rules(sandbox)
        case "POST", "/trouble/off":
            sandbox.trouble.off(**_given(asked, {"provider": str, "kind": str}))
            return _rules(sandbox)
        case "POST", "/payer":
            given = _given(asked, _PAYER)
            if given.get("does", "pays") not in ("pays", "declines", "waits"):
                raise ValueError("does is pays, declines or waits.")
            if "reason" in given:
                given["reason"] = Reason(given["reason"])
            sandbox.bank.set_payer(given.pop("phone", ""), Payer(**given))
            return Said(200, {})
        case _, path if path.startswith("/phone/"):
            return _phone(sandbox, unquote(path.removeprefix("/phone/"))[:30], asked)
        case _:
            return Said(404, {"error": f"There is {WHAT_THERE_IS}."})


def _set_float(sandbox: Sandbox, given: dict[str, Any]) -> None:
    if given.get("provider") not in sandbox.base_urls:
        raise ValueError(f"provider is one of {', '.join(sandbox.base_urls)}.")
    if not re.fullmatch("[A-Z]{3}", given.get("currency", "")) or not 0 <= given.get("minor", -1) <= MINOR_MAX:
        raise ValueError("currency is ISO 4217 in capitals, minor is between 0 and 10^12.")
    sandbox.treasury.set_float(**given)


def _rules(sandbox: Sandbox) -> Said:
    kinds = {name: {"operation": operation or "*", "does": does} for name, (operation, does) in KINDS.items()}
    return Said(200, {"on": [asdict(rule) for rule in sandbox.trouble.rules()], "kinds": kinds})


def _given(asked: Asked, fields: dict[str, type]) -> dict[str, Any]:
    found = asked.json() if asked.body else {}
    if found is None:
        raise ValueError("The body is no JSON object.")
    for name, value in found.items():
        if name not in fields:
            raise ValueError(f"{name[:60]!r} is not known; there are {', '.join(fields)}.")
        if not isinstance(value, fields[name]) or isinstance(value, bool):
            raise ValueError(f"{name} is {'text' if fields[name] is str else 'a whole number'}.")
    return found


def _phone(sandbox: Sandbox, number: str, asked: Asked) -> Said:
    bank = sandbox.bank
    if asked.method == "POST":
        form = asked.form() or {}
        charge = bank.find(form.get("provider", ""), form.get("id", ""))
        if charge is not None and charge in bank.waiting(number):
            if form.get("choice") == "pay" and charge.waits == "approval":
                bank.pay(charge)
            elif form.get("choice") == "fail":
                given = form.get("reason", "")
                bank.decline(charge, Reason(given) if given in set(Reason) else Reason.DECLINED_BY_USER)
    return Said(200, pages.phone(number, bank))
