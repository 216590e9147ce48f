"""
Stripe's payouts to the merchant's own bank account or card, transfers to connected accounts, and the balance.

A transfer has no status: it is there, and may be reversed. A payout is `pending`, `in_transit`, `paid`; one that was
paid can still become `failed`. Both are repeated safely under their idempotency key. Who owns an account is not asked:
every `acct_…`, `ba_…` and `card_…` is known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from service.sandbox.api import stripe
from service.sandbox.api import stripe_objects as objects
from service.sandbox.api import stripe_reading as read
from service.sandbox.desk import Account, Asked, Desk, Letter, Route, Said
from service.sandbox.treasury import Moved, Payout

NAME: Final = "stripe"
CURRENCIES: Final = ("EUR", "USD", "XAF", "XOF")
"""The balances that are shown beside those that were set or paid from."""

ARRIVES_MS: Final = 2 * 24 * 3_600_000
PAYOUT_FIELDS: Final = frozenset(
    {"amount", "currency", "destination", "method", "description", "statement_descriptor", "metadata", "source_type"}
)
TRANSFER_FIELDS: Final = frozenset(
    {"amount", "currency", "destination", "description", "metadata", "transfer_group", "source_type"}
)
STATUS: Mapping[str, str] = {
    "created": "pending",
    "otp": "pending",
    "queued": "pending",
    "in_transit": "in_transit",
    "paid": "paid",
    "failed": "failed",
    "returned": "failed",
}
EVENTS: Mapping[str, Mapping[str, str]] = {
    "po_": {
        "created": "payout.created",
        "in_transit": "payout.updated",
        "paid": "payout.paid",
        "failed": "payout.failed",
        "returned": "payout.failed",
    },
    "tr_": {"paid": "transfer.created", "returned": "transfer.reversed"},
}
FAILURES: Mapping[str, tuple[str, str]] = {
    "rejected": ("no_account", "The bank account has been closed or does not exist."),
    "sent_back": ("account_closed", "The bank has returned this payout."),
}

# --- sending ------------------------------------------------------------------------------------------


def create_payout(desk: Desk, account: Account, asked: Asked) -> Said:
    """`POST /v1/payouts`, to the default account where none is named."""
    said = read.form(asked, PAYOUT_FIELDS)
    if said.get("method", "standard") not in ("standard", "instant"):
        raise read.turn("Invalid method: must be one of standard or instant", param="method")
    destination = said.get("destination", "ba_default")
    if not isinstance(destination, str) or not re.fullmatch(r"(ba|card)_[A-Za-z0-9_]{1,200}", destination):
        raise read.turn("No such external account.", code="resource_missing", param="destination")
    payout = _begin(desk, account, asked, said, f"po_{desk.letters()}", destination)
    desk.treasury.send(payout)
    return Said(200, payout_object(account, payout))


def create_transfer(desk: Desk, account: Account, asked: Asked) -> Said:
    """`POST /v1/transfers` to a connected account: there at once."""
    said = read.form(asked, TRANSFER_FIELDS)
    destination = said.get("destination")
    if destination is None:
        raise read.missing("destination")
    if not isinstance(destination, str) or not re.fullmatch(r"acct_[A-Za-z0-9_]{1,200}", destination):
        raise read.turn(f"No such destination: '{str(destination)[:80]}'", code="resource_missing", param="destination")
    payout = _begin(desk, account, asked, said, f"tr_{desk.letters()}", destination)
    desk.treasury.send(payout, at_once=True)
    if payout.state == "failed":
        words = "Your destination account needs to have at least one of the following capabilities enabled: transfers"
        raise read.turn(words, code="insufficient_capabilities_for_transfer")
    return Said(200, transfer_object(account, payout))


def _begin(desk: Desk, account: Account, asked: Asked, said: dict[str, Any], id_: str, destination: str) -> Payout:
    units = read.whole(said.get("amount"), "amount")
    currency = read.currency(said.get("currency"), "currency")
    read.metadata(said.get("metadata"))
    payout = Payout(
        id=id_,
        provider=NAME,
        account=account.name,
        amount_minor=read.amount(units, currency, "amount"),
        currency=currency,
        reference=said.get("metadata", {}).get("reference", "") or str(said.get("transfer_group", "")),
        key=asked.headers.get("idempotency-key", ""),
        payee=destination,
        asked=said,
    )
    if not desk.treasury.enough(payout):
        raise read.turn("You have insufficient available funds in your Stripe account.", code="balance_insufficient")
    return desk.treasury.begin(payout)


# --- reading ------------------------------------------------------------------------------------------


def _known(desk: Desk, account: Account, asked: Asked, prefix: str) -> Payout:
    found = desk.treasury.find(NAME, asked.parts["id"])
    if found is None or found.account != account.name or not found.id.startswith(prefix):
        words = f"No such object: '{asked.parts['id'][:80]}'"
        raise read.turn(words, code="resource_missing", param="id", status=404)
    return found


def get_payout(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /v1/payouts/{id}`."""
    return Said(200, payout_object(account, _known(desk, account, asked, "po_")))


def get_transfer(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /v1/transfers/{id}`."""
    return Said(200, transfer_object(account, _known(desk, account, asked, "tr_")))


def list_payouts(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /v1/payouts`, the newest first."""
    found = [payout_object(account, one) for one in desk.treasury.of(NAME, account.name) if one.id.startswith("po_")]
    return stripe.page_of(asked, found, "/v1/payouts")


def list_transfers(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /v1/transfers`, the newest first, of one `transfer_group` or `destination` or all."""
    query = asked.queries()
    wanted = {name: query[name] for name in ("transfer_group", "destination") if name in query}
    of = [one for one in desk.treasury.of(NAME, account.name) if one.id.startswith("tr_") and one.state != "failed"]
    found = [transfer_object(account, one) for one in of]
    return stripe.page_of(
        asked, [one for one in found if all(one[name] == value for name, value in wanted.items())], "/v1/transfers"
    )


def list_reversals(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /v1/transfers/{id}/reversals`."""
    payout = _known(desk, account, asked, "tr_")
    return stripe.page_of(asked, _reversals(payout), f"/v1/transfers/{payout.id}/reversals")


def balance(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /v1/balance`: all of it is available."""
    known = [
        one["currency"] for one in desk.treasury.floats() if (one["provider"], one["account"]) == (NAME, account.name)
    ]
    available = []
    for currency in sorted({*CURRENCIES, *known}):
        units = objects.wire(desk.treasury.float_minor(NAME, account.name, currency), currency)
        available.append({"amount": units, "currency": currency.lower(), "source_types": {"card": units}})
    pending = [one | {"amount": 0, "source_types": {"card": 0}} for one in available]
    return Said(200, {"object": "balance", "available": available, "livemode": account.live, "pending": pending})


# --- objects ------------------------------------------------------------------------------------------


def payout_object(account: Account, payout: Payout) -> dict[str, Any]:
    """The payout as the API and its events show it."""
    code, words = FAILURES.get(payout.reason, (None, None))
    card = payout.payee.startswith("card_")
    return {
        "id": payout.id,
        "object": "payout",
        "amount": objects.wire(payout.amount_minor, payout.currency),
        # When it is expected; one that has failed before that day never arrived.
        "arrival_date": (payout.paid_ms or payout.created_ms + ARRIVES_MS) // 1000,
        "automatic": False,
        "balance_transaction": f"txn_{payout.id[3:]}",
        "created": payout.created_ms // 1000,
        "currency": payout.currency.lower(),
        "description": payout.asked.get("description"),
        "destination": payout.payee,
        "failure_balance_transaction": f"txn_back_{payout.id[3:]}" if code else None,
        "failure_code": code,
        "failure_message": words,
        "livemode": account.live,
        "metadata": payout.asked.get("metadata", {}),
        "method": payout.asked.get("method", "standard"),
        "original_payout": None,
        "reversed_by": None,
        "source_type": "card",
        "statement_descriptor": payout.asked.get("statement_descriptor"),
        "status": STATUS[payout.state],
        "type": "card" if card else "bank_account",
    }


def transfer_object(account: Account, payout: Payout) -> dict[str, Any]:
    """The transfer, with its reversals in it."""
    reversals = _reversals(payout)
    return {
        "id": payout.id,
        "object": "transfer",
        "amount": objects.wire(payout.amount_minor, payout.currency),
        "amount_reversed": objects.wire(payout.returned_minor, payout.currency),
        "balance_transaction": f"txn_{payout.id[3:]}",
        "created": payout.created_ms // 1000,
        "currency": payout.currency.lower(),
        "description": payout.asked.get("description"),
        "destination": payout.payee,
        "destination_payment": f"py_{payout.id[3:]}",
        "livemode": account.live,
        "metadata": payout.asked.get("metadata", {}),
        "reversals": {
            "object": "list",
            "data": reversals,
            "has_more": False,
            "url": f"/v1/transfers/{payout.id}/reversals",
        },
        "reversed": bool(reversals),
        "source_transaction": None,
        "source_type": "card",
        "transfer_group": payout.asked.get("transfer_group"),
    }


def _reversals(payout: Payout) -> list[dict[str, Any]]:
    if not payout.returned_minor:
        return []
    return [
        {
            "id": f"trr_{payout.id[3:]}",
            "object": "transfer_reversal",
            "amount": objects.wire(payout.returned_minor, payout.currency),
            "balance_transaction": None,
            "created": (payout.ended_ms or 0) // 1000,
            "currency": payout.currency.lower(),
            "metadata": {},
            "transfer": payout.id,
        }
    ]


# --- events -------------------------------------------------------------------------------------------


def letters(desk: Desk, moved: Moved) -> Sequence[Letter]:
    """`payout.*` at each step, `transfer.created` and `transfer.reversed`."""
    payout, account = moved.payout, desk.account_of(moved.payout)
    event = EVENTS[payout.id[:3]].get(moved.word)
    if event is None or account is None:
        return ()
    shown = payout_object if payout.id.startswith("po_") else transfer_object
    fields = {
        "event_id": f"evt_{desk.letters()}",
        "id": payout.id,
        "currency": payout.currency,
        "reference": payout.reference or "none",
        "live": "true" if account.live else "false",
        "time_ms": str(moved.at_ms),
        "data.object": shown(account, payout),
    }
    return [Letter(event, fields)]


_ID: Final = r"/(?P<id>[A-Za-z0-9_]{1,200})"

API: Final = stripe.API.paying(
    (
        Route("payout", "POST", "/v1/payouts", create_payout),
        Route("fetch", "GET", "/v1/payouts", list_payouts),
        Route("fetch", "GET", f"/v1/payouts{_ID}", get_payout),
        Route("payout", "POST", "/v1/transfers", create_transfer),
        Route("fetch", "GET", "/v1/transfers", list_transfers),
        Route("fetch", "GET", f"/v1/transfers{_ID}", get_transfer),
        Route("fetch", "GET", f"/v1/transfers{_ID}/reversals", list_reversals),
        Route("fetch", "GET", "/v1/balance", balance),
    ),
    letters,
)
