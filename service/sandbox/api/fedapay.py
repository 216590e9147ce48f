"""
FedaPay's API: a transaction, its token, then the hosted page or a push to the payer's phone; amounts in whole francs.

A transaction alone charges nobody. Nothing is refunded here but in the dashboard, which is `bank.refund`. Who pays is
always the `Payer` of the number: the documented test numbers have no special meaning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote, urlencode

from service.payments import money
from service.payments.facts import Reason
from service.sandbox.bank import Charge, Happening
from service.sandbox.desk import (
    PAGE_MAX,
    Account,
    Api,
    Asked,
    Choice,
    Desk,
    Letter,
    Route,
    Said,
    Turned,
    integer,
    major,
    utc,
)

CURRENCIES: Mapping[str, int] = {"XOF": 1, "GNF": 2}
"""And their ids."""

MODES: Mapping[str, tuple[str, str]] = {
    "mtn_open": ("bj", "XOF"),
    "mtn": ("bj", "XOF"),
    "moov": ("bj", "XOF"),
    "sbin": ("bj", "XOF"),
    "moov_tg": ("tg", "XOF"),
    "togocel": ("tg", "XOF"),
    "mtn_ci": ("ci", "XOF"),
    "airtel_ne": ("ne", "XOF"),
    "free_sn": ("sn", "XOF"),
    "mtn_open_gn": ("gn", "GNF"),
}
"""Modes without redirection, and the country and currency of their payers."""

SANDBOX_KEY, SANDBOX_MODE = "sk_sandbox_", "momo_test"
EXPIRES_MS: Final = 24 * 3_600_000
AMOUNT_MAX: Final = 10_000_000

STATUS: Mapping[str, str] = {
    "created": "pending",
    "waiting": "pending",
    "pending": "pending",
    "succeeded": "approved",
    "failed": "declined",
    "canceled": "canceled",
    "expired": "expired",
}
ERRORS: Mapping[Reason, str] = {
    Reason.INSUFFICIENT_FUNDS: "INSUFFICIENT_FUND_ERROR",
    Reason.LIMIT_REACHED: "LIMIT_REACHED_ERROR",
    Reason.WRONG_PIN: "WRONG_PIN_ERROR",
    Reason.TIMED_OUT: "TIMEOUT_ERROR",
    Reason.DECLINED_BY_USER: "REJECTED_BY_PAYER",
    Reason.NO_WALLET: "PAYER_NOT_FOUND",
    Reason.PROVIDER_UNAVAILABLE: "OPERATOR_UNAVAILABLE",
}
"""`last_error_code`; only the first was ever seen."""

# --- saying -------------------------------------------------------------------------------------------


def error(status: int, words: str, **fields: str) -> Said:
    """`{message, errors: {field: [words]}}`."""
    return Said(status, {"message": words} | ({"errors": {k: [v] for k, v in fields.items()}} if fields else {}))


def wrong(**fields: str) -> Turned:
    """422 with what is wrong with each field."""
    return Turned(error(422, "Erreur de validation", **fields))


def _status(charge: Charge) -> str:
    if "deleted" in charge.notes:
        return "pending"  # as it was when it was deleted; `deleted_at` says the rest
    back = sum(refund.amount_minor for refund in charge.refunds if refund.state == "succeeded")
    if back:
        return "refunded" if back >= charge.captured_minor else "approved_partially_refunded"
    return STATUS[charge.state]


def entity(desk: Desk, charge: Charge, *, include: bool = True) -> dict[str, Any]:
    """The transaction; with `include` the currency in full, else its id alone."""
    status, paid = _status(charge), charge.state == "succeeded"
    at, ended = utc(charge.created_ms), utc(charge.ended_ms)
    deleted = "deleted" in charge.notes
    amount = major(charge.captured_minor or charge.amount_minor, charge.currency)
    currency = {"id": CURRENCIES[charge.currency], "klass": "v1/currency", "iso": charge.currency, "div": 1}
    return {
        "id": int(charge.id),
        "klass": "v1/transaction",
        "transaction_key": charge.names["trx"][-8:],
        "reference": charge.names["trx"],
        "amount": amount,
        "description": charge.asked.get("description"),
        "callback_url": charge.return_url or None,
        "status": status,
        "mode": charge.operator or None,
        "fees": 0,
        "amount_debited": amount if paid else None,
        "amount_transferred": None,
        "commission": "0.018",
        "last_error_code": ERRORS.get(charge.reason, "API_ERROR") if charge.reason else None,
        "last_error_message": None,
        "merchant_reference": charge.reference or None,
        "custom_metadata": charge.asked.get("custom_metadata") or {},
        "metadata": {},
        "created_at": at,
        "updated_at": utc(charge.changed_ms),
        "approved_at": ended if paid else None,
        "declined_at": ended if status == "declined" else None,
        "canceled_at": ended if status == "canceled" else None,
        "expired_at": ended if status == "expired" else None,
        "deleted_at": ended if deleted else None,
        "transferred_at": None,
        "refunded_at": utc(charge.changed_ms) if "refunded" in status else None,
        "refunds": [
            {"amount": major(refund.amount_minor, charge.currency), "status": "approved"}
            for refund in charge.refunds
            if refund.state == "succeeded"
        ],
    } | ({"currency": currency} if include else {"currency_id": currency["id"]})


def _said(desk: Desk, charge: Charge, asked: Asked, status: int = 200) -> Said:
    include = "currency" in (asked.queries().get("include") or str((asked.json() or {}).get("include", "")))
    return Said(status, {"v1/transaction": entity(desk, charge, include=include)})


# --- reading ------------------------------------------------------------------------------------------


def enter(desk: Desk, asked: Asked) -> Account:
    """`Authorization: Bearer sk_…`."""
    account = desk.account("fedapay", "secret_key", asked.bearer())
    if account is None:
        raise Turned(error(401, "Erreur d'authentification"))
    return account


def body_of(asked: Asked) -> dict[str, Any]:
    """The JSON object in the body."""
    found = asked.json()
    if found is None:
        raise Turned(error(400, "Le corps de la requête est invalide"))
    return found


def _known(desk: Desk, account: Account, number: str) -> Charge:
    found = desk.bank.find("fedapay", number) if number.isdigit() else None
    if found is None or found.account != account.name:
        raise Turned(error(404, "Transaction introuvable"))
    return found


def phone_of(said: object, *, national: bool) -> tuple[str, str]:
    """`{number, country}`: the country in small letters, the number with or without its country's code."""
    if not isinstance(said, dict):
        raise wrong(phone_number="doit être un objet")
    number, country = said.get("number"), said.get("country")
    if not isinstance(number, str) or not re.fullmatch(r"[0-9]{8,10}" if national else r"\+?[0-9]{8,15}", number):
        raise wrong(phone_number="n'est pas un numéro valide")
    if not isinstance(country, str) or not re.fullmatch("[a-z]{2}", country):
        raise wrong(phone_number="le pays n'est pas valide")
    return number, country


def check_customer(said: object) -> None:
    """Nobody, or somebody who can be told from others."""
    if said is None:
        return
    if not isinstance(said, dict) or not said:
        raise wrong(customer="doit être un objet")
    if not any(said.get(name) for name in ("id", "email", "firstname", "lastname", "phone_number")):
        raise wrong(customer="est vide")
    email = said.get("email")
    if email is not None and not (isinstance(email, str) and re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", email)):
        raise wrong(email="n'est pas valide")
    if said.get("phone_number") is not None:
        phone_of(said["phone_number"], national=False)


# --- transactions -------------------------------------------------------------------------------------


def create(desk: Desk, account: Account, asked: Asked) -> Said:
    """`POST /v1/transactions`."""
    said = body_of(asked)
    description = said.get("description")
    if not isinstance(description, str) or not description.strip():
        raise wrong(description="doit être rempli(e)")
    currency = said.get("currency")
    iso = currency.get("iso") if isinstance(currency, dict) else None
    if not isinstance(iso, str) or iso not in CURRENCIES:
        raise wrong(currency="n'existe pas")
    amount = integer(said.get("amount"))
    minor = None if amount is None else money.from_major(amount, iso)
    if not minor or minor > AMOUNT_MAX:
        raise wrong(amount=f"doit être un nombre entier entre 1 et {AMOUNT_MAX}")
    reference = said.get("merchant_reference")
    if reference is not None and (not isinstance(reference, str) or not 0 < len(reference) <= 255):
        raise wrong(merchant_reference="n'est pas valide")
    if reference and desk.bank.by_reference("fedapay", account.name, reference):
        raise wrong(merchant_reference="est déjà utilisé(e)")
    url = said.get("callback_url")
    if url is not None and not (isinstance(url, str) and re.match(r"https?://[^\s]+\Z", url)):
        raise wrong(callback_url="n'est pas une adresse valide")
    if not isinstance(said.get("custom_metadata"), dict | None):
        raise wrong(custom_metadata="doit être un objet")
    check_customer(said.get("customer"))
    charge = Charge(
        id=desk.digits(9),
        provider="fedapay",
        account=account.name,
        amount_minor=minor,
        currency=iso,
        reference=reference or "",
        key=asked.headers.get("idempotency-key", ""),
        names={"trx": f"trx_{desk.letters(16)}"},
        return_url=url or "",
        left_as="canceled",
        expires_ms=desk.clock() + EXPIRES_MS,
        asked=said,
    )
    return _said(desk, desk.bank.begin(charge), asked, 201)


def token(desk: Desk, account: Account, asked: Asked) -> Said:
    """`POST /v1/transactions/{id}/token`: what a page or a push needs; while it is pending."""
    charge = _known(desk, account, asked.parts["number"])
    if not charge.live:
        raise Turned(error(422, "La transaction n'est plus en attente"))
    if "token" not in charge.names:
        desk.bank.name(charge, token=f"{desk.letters(36)}.{desk.letters(43)}")
    if charge.waits == "":
        desk.bank.ask(charge, "page")
    return Said(200, {"token": charge.names["token"], "url": desk.page(charge)})


def push(desk: Desk, account: Account, asked: Asked) -> Said:
    """`POST /v1/{mode}`: the phone rings."""
    mode, said = asked.parts["mode"], body_of(asked)
    given = said.get("token")
    charge = desk.bank.find("fedapay", given) if isinstance(given, str) else None
    if charge is None or charge.account != account.name or charge.names.get("token") != given:
        raise wrong(token="n'est pas valide")  # noqa: S106 - a sentence
    sandbox = asked.bearer().startswith(SANDBOX_KEY)
    if sandbox != (mode == SANDBOX_MODE):
        raise wrong(mode="n'est pas disponible pour ce compte")
    number, country = phone_of(said.get("phone_number"), national=sandbox)
    if not sandbox and MODES[mode] != (country, charge.currency):
        raise wrong(mode="n'est pas disponible pour ce pays ou cette monnaie")
    if not charge.live or charge.waits == "approval":
        raise Turned(error(422, "La transaction n'est plus en attente"))
    charge.method, charge.operator, charge.country = "mobile_money", mode, country.upper()
    charge.phone = number.removeprefix("+")
    desk.bank.ask(charge, "approval")
    return Said(200, {"message": "success"})


def fetch(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /v1/transactions/{id}`."""
    return _said(desk, _known(desk, account, asked.parts["number"]), asked)


def find(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /v1/transactions/merchant/{merchant_reference}`."""
    charge = desk.bank.by_reference("fedapay", account.name, unquote(asked.parts["reference"]))
    if charge is None:
        raise Turned(error(404, "Transaction introuvable"))
    return _said(desk, charge, asked)


def transactions(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /v1/transactions` and `/search`, the newest first."""
    query = asked.queries()
    size, page = query.get("per_page", "25"), query.get("page", "1")
    if not (size.isdigit() and page.isdigit()) or not 0 < int(size) <= PAGE_MAX or not 0 < int(page) <= 10_000:
        raise wrong(page="n'est pas valide")
    found = desk.bank.of("fedapay", account.name)
    begin = (int(page) - 1) * int(size)
    include = "currency" in query.get("include", "")
    shown = [entity(desk, charge, include=include) for charge in found[begin : begin + int(size)]]
    following = int(page) + 1 if begin + int(size) < len(found) else None
    meta = {"current_page": int(page), "next_page": following, "per_page": int(size), "total_count": len(found)}
    return Said(200, {"v1/transactions": shown, "meta": meta})


def delete(desk: Desk, account: Account, asked: Asked) -> Said:
    """`DELETE /v1/transactions/{id}`, while it is pending."""
    charge = _known(desk, account, asked.parts["number"])
    if not charge.live:
        raise Turned(error(422, "La transaction ne peut pas être supprimée"))
    charge.notes["deleted"] = "by the merchant"
    desk.bank.cancel(charge)
    return Said(204)


# --- callbacks and pages ------------------------------------------------------------------------------

EVENTS: Mapping[str, str] = {
    "begun": "transaction.created",
    "succeeded": "transaction.approved",
    "failed": "transaction.declined",
    "canceled": "transaction.canceled",
    "expired": "transaction.expired",
}


def letters(desk: Desk, happening: Happening) -> Sequence[Letter]:
    """One callback for each change of status."""
    charge = happening.charge
    event = EVENTS.get(happening.word, "")
    if event == "transaction.canceled" and "deleted" in charge.notes:
        event = "transaction.deleted"
    if happening.refund is not None and happening.refund.state == "succeeded":
        event = "transaction.refunded" if _status(charge) == "refunded" else "transaction.updated"
    if not event:
        return ()
    whole = entity(desk, charge)
    fields = {"id": charge.id, "reference": charge.reference, "currency": charge.currency}
    return [Letter(event, fields | {f"entity.{name}": value for name, value in whole.items()})]


def back(desk: Desk, charge: Charge, choice: Choice) -> str:
    """`callback_url?id=…&status=…`, which proves nothing."""
    if not charge.return_url:
        return ""
    query = urlencode({"id": charge.id, "status": _status(charge)})
    return f"{charge.return_url}{'&' if '?' in charge.return_url else '?'}{query}"


_NUMBER: Final = r"/v1/transactions/(?P<number>\d{1,20})"

API = Api(
    name="fedapay",
    routes=(
        Route("create", "POST", "/v1/transactions", create),
        Route("create", "POST", f"{_NUMBER}/token", token),
        Route("create", "POST", f"/v1/(?P<mode>{'|'.join([*MODES, SANDBOX_MODE])})", push),
        Route("fetch", "GET", _NUMBER, fetch),
        Route("fetch", "GET", "/v1/transactions/merchant/(?P<reference>[^/]{1,600})", find),
        Route("fetch", "GET", "/v1/transactions(/search)?", transactions),
        Route("cancel", "DELETE", _NUMBER, delete),
    ),
    enter=enter,
    error=error,
    letters=letters,
    back=back,
)
