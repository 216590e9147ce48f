"""
FedaPay's payouts: one is created, which moves no money, and then started; amounts in whole francs, a float by mode.

Only `payout.sent` and `payout.failed` were ever seen [3p]. No status is documented for money that came back: here the
payout is `failed` after it was `sent`. How a float that is too small is said is [unv].
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

from service.payments import money
from service.sandbox.api import fedapay
from service.sandbox.desk import PAGE_MAX, Account, Asked, Desk, Letter, Route, Said, Turned, integer, major, utc
from service.sandbox.treasury import Moved, Payout

NAME: Final = "fedapay"
MODES: Mapping[str, str] = {mode: currency for mode, (_, currency) in fedapay.MODES.items()} | {
    fedapay.SANDBOX_MODE: "XOF"
}
"""And the currency of its balance."""

STATUS: Mapping[str, str] = {
    "created": "pending",
    "otp": "pending",
    "queued": "started",
    "in_transit": "processing",
    "paid": "sent",
    "failed": "failed",
    "returned": "failed",
}
EVENTS: Mapping[str, str] = {"paid": "payout.sent", "failed": "payout.failed", "returned": "payout.failed"}
ERRORS: Mapping[str, str] = {"rejected": "PAYEE_NOT_FOUND", "sent_back": "PAYOUT_RETURNED"}  # [unv]


def entity(payout: Payout) -> dict[str, Any]:
    """The payout as answers and callbacks have it."""
    status, number = STATUS[payout.state], list(MODES).index(payout.purse) + 1
    return {
        "id": int(payout.id),
        "klass": "v1/payout",
        "reference": payout.names["number"],
        "amount": major(payout.amount_minor, payout.currency),
        "status": status,
        "customer_id": 1,
        "currency_id": fedapay.CURRENCIES[payout.currency],
        "balance_id": number,
        "mode": payout.purse,
        "merchant_reference": payout.reference or None,
        "custom_metadata": payout.asked.get("custom_metadata") or {},
        "last_error_code": ERRORS.get(payout.reason),
        "last_error_message": None,
        "created_at": utc(payout.created_ms),
        "updated_at": utc(payout.changed_ms),
        "scheduled_at": None,
        "started_at": utc(payout.sent_ms),
        "sent_at": utc(payout.paid_ms),
        "failed_at": utc(payout.ended_ms) if status == "failed" else None,
        "deleted_at": None,
    }


# --- payouts ------------------------------------------------------------------------------------------


def create(desk: Desk, account: Account, asked: Asked) -> Said:
    """`POST /v1/payouts`: it is there, `pending`, and nobody is paid."""
    said = fedapay.body_of(asked)
    mode, currency = said.get("mode"), said.get("currency")
    if mode is None:
        raise Turned(fedapay.error(500, "Une erreur est survenue"))  # so it is, without a mode [3p]
    iso = currency.get("iso") if isinstance(currency, dict) else None
    if not isinstance(mode, str) or mode not in MODES or (mode == fedapay.SANDBOX_MODE and account.live):
        raise fedapay.wrong(mode="n'est pas disponible pour ce compte")
    if not isinstance(iso, str) or iso != MODES[mode]:
        raise fedapay.wrong(currency="n'est pas disponible pour ce mode")
    amount = integer(said.get("amount"))
    minor = None if amount is None else money.from_major(amount, iso)
    if not minor or minor > fedapay.AMOUNT_MAX:
        raise fedapay.wrong(amount=f"doit être un nombre entier entre 1 et {fedapay.AMOUNT_MAX}")
    reference = said.get("merchant_reference")
    if reference is not None and (not isinstance(reference, str) or not 0 < len(reference) <= 255):
        raise fedapay.wrong(merchant_reference="n'est pas valide")
    if reference and desk.treasury.by_reference(NAME, account.name, reference):
        raise fedapay.wrong(merchant_reference="est déjà utilisé(e)")
    if not isinstance(said.get("custom_metadata"), dict | None):
        raise fedapay.wrong(custom_metadata="doit être un objet")
    if said.get("customer") is None:
        raise fedapay.wrong(customer="doit être rempli(e)")
    fedapay.check_customer(said["customer"])
    payout = Payout(
        id=desk.digits(9),
        provider=NAME,
        account=account.name,
        amount_minor=minor,
        currency=iso,
        reference=reference or "",
        key=asked.headers.get("idempotency-key", ""),
        names={"number": desk.digits(13)},
        purse=mode,
        payee=_number(said["customer"].get("phone_number")),
        asked=said,
    )
    desk.treasury.begin(payout)
    customer = {"customer": {"id": 1, "klass": "v1/customer"}}
    return Said(201, {"v1/payout": entity(payout) | customer})


def start(desk: Desk, account: Account, asked: Asked) -> Said:
    """`PUT /v1/payouts/start`, an object [SDK] or a bare list [docs]: all of them are sent, or none."""
    wanted = _listed(asked)
    found: list[Payout] = []
    for one in wanted:
        number = integer(one.get("id")) if isinstance(one, dict) else None
        payout = None if number is None else desk.treasury.find(NAME, str(number))
        if payout is None or payout.account != account.name or payout in found:
            raise Turned(fedapay.error(404, "Dépôt introuvable"))
        if payout.state != "created":
            raise Turned(fedapay.error(422, "Le dépôt a déjà été démarré"))
        if one.get("phone_number") is not None:
            fedapay.phone_of(one["phone_number"], national=False)
            payout.payee = _number(one["phone_number"])
        if not payout.payee:
            raise fedapay.wrong(phone_number="doit être rempli(e)")
        found.append(payout)
    if not all(desk.treasury.enough(payout) for payout in found):
        raise Turned(fedapay.error(422, "Solde insuffisant", balance="est insuffisant"))
    for payout in found:
        desk.treasury.send(payout)
    return Said(200, {"v1/payouts": [entity(payout) for payout in found]})


def _listed(asked: Asked) -> list[Any]:
    try:
        said = json.loads(asked.body)
    except (ValueError, RecursionError):
        said = None
    wanted = said.get("payouts") if isinstance(said, dict) else said
    if not isinstance(wanted, list) or not 0 < len(wanted) <= PAGE_MAX:
        raise fedapay.wrong(payouts="doit être une liste")
    return wanted


def _number(said: object) -> str:
    return str(said["number"]).removeprefix("+") if isinstance(said, dict) and said.get("number") else ""


def fetch(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /v1/payouts/{id}`."""
    found = desk.treasury.find(NAME, asked.parts["number"])
    return _one(account, found if found and found.id == asked.parts["number"] else None)


def find(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /v1/payouts/merchant/{merchant_reference}`."""
    return _one(account, desk.treasury.by_reference(NAME, account.name, unquote(asked.parts["reference"])))


def _one(account: Account, found: Payout | None) -> Said:
    if found is None or found.account != account.name:
        raise Turned(fedapay.error(404, "Dépôt introuvable"))
    return Said(200, {"v1/payout": entity(found)})


def payouts(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /v1/payouts`, the newest first."""
    query = asked.queries()
    size, page = query.get("per_page", "25"), query.get("page", "1")
    if not (size.isdigit() and page.isdigit()) or not 0 < int(size) <= PAGE_MAX or not 0 < int(page) <= 10_000:
        raise fedapay.wrong(page="n'est pas valide")
    found, begin = desk.treasury.of(NAME, account.name), (int(page) - 1) * int(size)
    following = int(page) + 1 if begin + int(size) < len(found) else None
    meta = {"current_page": int(page), "next_page": following, "per_page": int(size), "total_count": len(found)}
    return Said(200, {"v1/payouts": [entity(one) for one in found[begin : begin + int(size)]], "meta": meta})


def balances(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /v1/balances`: one for each mode."""
    found = [
        {
            "id": number,
            "klass": "v1/balance",
            "amount": major(desk.treasury.float_minor(NAME, account.name, currency, mode), currency),
            "mode": mode,
            "currency_id": fedapay.CURRENCIES[currency],
            "created_at": utc(0),
            "updated_at": utc(desk.clock()),
        }
        for number, (mode, currency) in enumerate(MODES.items(), 1)
    ]
    return Said(200, {"v1/balances": found})


# --- callbacks ----------------------------------------------------------------------------------------


def letters(desk: Desk, moved: Moved) -> Sequence[Letter]:
    """`payout.sent` and `payout.failed`."""
    event, payout = EVENTS.get(moved.word), moved.payout
    if event is None:
        return ()
    fields = {"id": payout.id, "reference": payout.reference, "currency": payout.currency}
    return [Letter(event, fields | {f"entity.{name}": value for name, value in entity(payout).items()})]


_NUMBER: Final = r"/v1/payouts/(?P<number>\d{1,20})"

API: Final = fedapay.API.paying(
    (
        Route("prepare", "POST", "/v1/payouts", create),
        Route("payout", "PUT", "/v1/payouts/start", start),
        Route("fetch", "GET", _NUMBER, fetch),
        Route("fetch", "GET", "/v1/payouts/merchant/(?P<reference>[^/]{1,600})", find),
        Route("fetch", "GET", "/v1/payouts", payouts),
        Route("fetch", "GET", "/v1/balances", balances),
    ),
    letters,
)
