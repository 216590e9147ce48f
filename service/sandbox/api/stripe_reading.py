"""How Stripe reads a request: its keys, forms, amounts and addresses, and the answers it keeps by idempotency key."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from service.payments import money
from service.sandbox.api import stripe_objects as objects
from service.sandbox.bank import Charge
from service.sandbox.desk import FIELDS_MAX, Account, Asked, Desk, Said, Turned

_CURRENCIES = (
    "AED AUD BIF BWP CAD CHF CLP CNY CVE CZK DJF DKK EGP ETB EUR GBP GMD GNF HKD INR ISK JPY KES KMF KRW KWD LRD "
    "LSL MAD MGA MUR MZN NAD NGN NOK NZD PLN PYG RWF SCR SEK SGD SLE SZL TND TZS UGX USD VND VUV XAF XOF XPF ZAR ZMW"
)
CURRENCIES: Final = frozenset(_CURRENCIES.split())
MINIMUM: Mapping[str, int] = {"EUR": 50, "USD": 50, "CAD": 50, "GBP": 30, "CHF": 50}
WIRE_MAX: Final = 99_999_999
KEY_MAX, NOTES_MAX, NOTE_KEY_MAX, NOTE_MAX = 255, 50, 40, 500

# --- saying -------------------------------------------------------------------------------------------


def error(status: int, words: str, *, code: str = "", param: str = "", type_: str = "") -> Said:
    """`{error: {type, code, param, message}}`."""
    kind = type_ or ("api_error" if status >= 500 else "invalid_request_error")
    said = {"type": kind, "message": words}
    if code or status == 429:
        said["code"] = code or "rate_limit"
    if param:
        said["param"] = param
    return Said(status, {"error": said}, {"Request-Id": "req_sandbox"})


def turn(words: str, *, code: str = "", param: str = "", status: int = 400, type_: str = "") -> Turned:
    return Turned(error(status, words, code=code, param=param, type_=type_))


def missing(name: str) -> Turned:
    return turn(f"Missing required param: {name}.", code="parameter_missing", param=name)


# --- reading ------------------------------------------------------------------------------------------


def enter(desk: Desk, asked: Asked) -> Account:
    """`Authorization: Bearer sk_…`; a key is at most 255 characters."""
    account = desk.account("stripe", "secret_key", asked.bearer())
    if account is None:
        words = "Invalid API Key provided." if asked.bearer() else "You did not provide an API key."
        raise turn(words, status=401)
    if len(asked.headers.get("idempotency-key", "")) > KEY_MAX:
        raise turn("Idempotency keys are at most 255 characters.", type_="idempotency_error")
    return account


def form(asked: Asked, known: frozenset[str]) -> dict[str, Any]:
    """The form with its brackets opened: `a[b]` and `a[0]` become objects. Unknown names are refused."""
    if asked.body and "application/x-www-form-urlencoded" not in asked.headers.get("content-type", ""):
        raise turn("Invalid request: the body has to be form-encoded.")
    flat = asked.form()
    if flat is None:
        raise turn("Invalid form.")
    found: dict[str, Any] = {}
    for name, value in flat.items():
        keys = re.fullmatch(r"([a-z_]+)((?:\[[^\[\]]{1,60}\])*)(\[\])?", name)
        if keys is None or keys[1] not in known:
            raise turn(f"Received unknown parameter: {name[:60]}", code="parameter_unknown", param=name[:60])
        at = found
        path = [keys[1], *re.findall(r"\[([^\[\]]+)\]", keys[2])]
        for key in path[:-1]:
            at = at.setdefault(key, {})
            if not isinstance(at, dict):
                raise turn(f"Invalid parameter: {name[:60]}", param=name[:60])
        at[path[-1]] = value
    return found


def whole(value: object, param: str) -> int:
    if value is None:
        raise missing(param)
    if not isinstance(value, str) or not re.fullmatch(r"-?[0-9]{1,12}", value):
        raise turn(f"Invalid integer: {str(value)[:40]}", code="parameter_invalid_integer", param=param)
    return int(value)


def amount(units: int, currency: str, param: str) -> int:
    """Minor units of an amount on the wire."""
    if units > WIRE_MAX:
        raise turn("Amount must be no more than 99999999", code="amount_too_large", param=param)
    minor = money.from_wire(units, objects.places(currency), currency) if units > 0 else None
    if minor is None or (money.exponent(currency) == 3 and units % 10):
        raise turn("This value must be greater than or equal to 1.", code="parameter_invalid_integer", param=param)
    if units < MINIMUM.get(currency, 1):
        raise turn("Amount is below the minimum for this currency.", code="amount_too_small", param=param)
    return minor


def currency(value: object, param: str) -> str:
    if value is None:
        raise missing(param)
    if not isinstance(value, str) or value != value.lower() or value.upper() not in CURRENCIES:
        raise turn(f"Invalid currency: {str(value)[:20]}.", param=param)
    return value.upper()


def metadata(value: object, param: str = "metadata") -> None:
    if value is None:
        return
    if not isinstance(value, dict) or len(value) > NOTES_MAX:
        raise turn("Invalid metadata.", param=param)
    for key, note in value.items():
        if not isinstance(note, str) or len(key) > NOTE_KEY_MAX or len(note) > NOTE_MAX:
            raise turn("Metadata keys have 40 characters at most, values 500.", param=f"{param}[{key[:40]}]")


def address(value: object, param: str, *, needed: bool) -> str:
    if value is None and not needed:
        return ""
    if value is None:
        raise missing(param)
    if not isinstance(value, str) or not re.fullmatch(r"https?://[^\s]{1,2000}", value):
        raise turn("Not a valid URL", code="url_invalid", param=param)
    return value


def email(value: object, param: str) -> None:
    if value is not None and not (isinstance(value, str) and re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", value)):
        raise turn(f"Invalid email address: {str(value)[:60]}", code="email_invalid", param=param)


def expand(asked: Asked) -> list[str]:
    return [value for name, value in parse_qsl(asked.query, max_num_fields=FIELDS_MAX) if name.startswith("expand[")]


def known(desk: Desk, account: Account, id_: str, *prefixes: str) -> Charge:
    found = desk.bank.find("stripe", unquote(id_))
    if found is None or found.account != account.name or not id_.startswith(prefixes):
        raise turn(f"No such object: '{id_[:80]}'", code="resource_missing", param="id", status=404)
    return found


def types(said: Mapping[str, Any]) -> None:
    types = said.get("payment_method_types")
    if types is not None and (not isinstance(types, dict) or list(types.values()) != ["card"]):
        raise turn("The payment method types must be card.", param="payment_method_types")


# --- idempotency --------------------------------------------------------------------------------------


def _print(asked: Asked) -> str:
    """What makes two requests the same: everything but the order of nothing."""
    return hashlib.sha256(f"{asked.method} {asked.path}?{asked.query}\n".encode() + asked.body).hexdigest()


def replay(desk: Desk, account: Account, asked: Asked) -> Said | None:
    """The first answer to this key, word for word; with other parameters it is refused."""
    key = asked.headers.get("idempotency-key", "")
    kept = desk.recall("stripe", f"{account.name} {key}") if key and asked.method == "POST" else None
    if kept is None:
        return None
    before, said = kept
    if before != _print(asked):
        words = "Keys for idempotent requests can only be used with the same parameters they were first used with."
        raise turn(words, type_="idempotency_error")
    return Said(said.status, said.body, {**said.headers, "Idempotent-Replayed": "true"})


def keep(desk: Desk, account: Account, asked: Asked, said: Said) -> None:
    """Answers are kept for what was begun, a 500 as well; a request that was refused as invalid began nothing."""
    key = asked.headers.get("idempotency-key", "")
    if key and asked.method == "POST" and not 400 <= said.status < 500:
        name = f"{account.name} {key}"
        if desk.recall("stripe", name) is None:
            desk.remember("stripe", name, (_print(asked), said))
