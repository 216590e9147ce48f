"""
eBilling (Digitech Africa, Gabon). Facts marked [SDK] are read in the official WooCommerce plugin, [3p] in others' code.

It signs nothing. The secret token in the address finds the account, and the callback only makes us ask.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from service.payments import money
from service.payments.facts import Fact, Kind, Reason, Source
from service.providers import meaning, signatures, strict
from service.providers.base import (
    AboutPayout,
    Answer,
    Ask,
    Asked,
    Capabilities,
    Credential,
    Credentials,
    Identity,
    Ignored,
    Incoming,
    Meaning,
    NotFinal,
    Parked,
    Provider,
    Refused,
    Request,
    Unclear,
    Verified,
)
from service.providers.calls import Facts

# --- tables -------------------------------------------------------------------------------------------

SHAP: Final = "shap_reference"
"""What only callbacks about payouts have: SHAP's own id; ours is `external_reference` [3p]."""

CURRENCY: Final = "XAF"
"""Bills are in CFA francs of central Africa; callbacks do not name it [SDK]."""

FACTS: Facts = {
    "bills_path": "/api/v1/merchant/e_bills",  # [SDK]
    "push_path": "/api/v1/merchant/e_bills/{bill}/ussd_push",  # [3p, many]; v2 differs [3p]
    "portal_url": "https://www.billing-easy.net",  # [SDK]; most take money at https://staging.billing-easy.net [3p]
    "test_portal_url": "https://test.billing-easy.net",  # LAB's [SDK]
    "page_path": "/checkoutnow?invoice_number={bill}&merchant_redirect_url={return_url}",  # [SDK]
    "card_page_path": "/?invoice={bill}&operator={operator}&redirect=1&redirect_url={return_url}",  # [3p]
    "expiry_unit_minutes": 1,  # `expiry_period` counts minutes [SDK], some say hours (60) or days (1440) [3p]
    "expiry_minutes": 60,  # ours, where the payment has no end of its own
    "description_characters_max": 100,  # [unv]
    "list_per_page": 50,  # [unv]
    "dialled": "241",  # taken from numbers, which eBilling wants as they are dialled in Gabon [3p]; empty: E.164
}
"""What is believed and may be set. The portal's host is another than the API's, and follows live and test."""

BILL: Mapping[str, Kind] = {
    "created": Kind.CREATED,
    "ready": Kind.PENDING,
    "pending": Kind.PENDING,
    "in_progress": Kind.PENDING,
    "scheduled": Kind.PENDING,
    "partially_paid": Kind.RECEIVED_PART,
    "paid": Kind.CAPTURED,
    "processed": Kind.CAPTURED,
    "failed": Kind.FAILED,
    "cancelled": Kind.CANCELED,
    "expired": Kind.EXPIRED,
}
"""`state` of a bill [3p; ready, paid, processed and expired agreed by three]."""

NOT_FINAL = frozenset({Kind.CREATED, Kind.PENDING, Kind.RECEIVED_PART})

METHODS: Mapping[str, str] = {"airtelmoney": "mobile_money", "moovmoney": "mobile_money", "ORABANK": "card"}
"""How `payment_system_name` begins [3p]."""

REASONS: Mapping[str, Reason] = {
    "insufficient": Reason.INSUFFICIENT_FUNDS,
    "limit": Reason.LIMIT_REACHED,
    "wrong pin": Reason.WRONG_PIN,
    "invalid pin": Reason.WRONG_PIN,
    "timeout": Reason.TIMED_OUT,
    "timed out": Reason.TIMED_OUT,
    "rejected": Reason.DECLINED_BY_USER,
    "not registered": Reason.NO_WALLET,
    "mismatch": Reason.NUMBER_MISMATCH,
    "unavailable": Reason.PROVIDER_UNAVAILABLE,
}
"""Parts of `reason`; its texts are documented nowhere."""

# --- callbacks ----------------------------------------------------------------------------------------


def _fields(callback: Incoming) -> Mapping[str, object] | Parked:
    """A form [SDK]; one third party describes JSON, and SHAP's callbacks about payouts are JSON [3p]."""
    if callback.body.lstrip()[:1] == b"{":
        return strict.document(callback.body)
    return strict.form(callback.body)


def verify(callback: Incoming, credentials: Credentials, now_ms: int) -> Verified | Refused:
    """The token in the address was looked up to find the account; here only that there is one."""
    return Verified(strong=False) if signatures.secrets(credentials, "callback_tokens") else Refused("no_secret")


def identify(callback: Incoming) -> Identity:
    """eBilling numbers no events: the bill, the operator's transaction, the state, and the raw body's hash."""
    fields = _fields(callback)
    if isinstance(fields, Parked):
        return Identity(meaning.key(callback.body))
    bill, transaction = fields.get("billingid"), fields.get("transactionid")
    state = strict.word(fields.get("state") or fields.get("status"))
    return Identity(meaning.key(callback.body, bill, transaction, state), state or "notification")


def translate(callback: Incoming, received_at_ms: int) -> Meaning:
    """Whatever it says about a bill or a payout, ask."""
    fields = _fields(callback)
    if isinstance(fields, Parked):
        return fields
    if SHAP in fields:
        found = (strict.identifier(fields.get(name)) for name in ("external_reference", SHAP, "transaction_id"))
        names = tuple(dict.fromkeys(name for name in found if name))
        return AboutPayout(names) if names else Ignored("payout")
    bill = strict.identifier(fields.get("billingid"))
    if bill is None:
        return Parked("missing:billingid")
    return Ask(bill, meaning.hint(money.from_major, bill, CURRENCY, fields.get("amount"), fields.get("reference")))


# --- asking -------------------------------------------------------------------------------------------


def headers(credentials: Credentials) -> dict[str, str]:
    """Basic `username:SharedKey` [SDK]."""
    pair = ":".join(
        next((value for value in credentials.get(name, ()) if value.strip()), "") for name in ("username", "shared_key")
    )
    basic = base64.b64encode(pair.encode("utf-8", "surrogatepass")).decode()
    return {"Authorization": f"Basic {basic}", "Accept": "application/json"}


def bill_path(reference: str, facts: Facts = FACTS) -> str:
    """Where a bill is."""
    return f"{facts['bills_path']}/{quote(reference, safe='')}"


def question(reference: str, credentials: Credentials, facts: Facts = FACTS) -> Request:
    """`GET /api/v1/merchant/e_bills/{bill_id}` [SDK]."""
    return Request("GET", bill_path(reference, facts), headers(credentials))


def answer(reference: str, status: int, body: bytes, asked: Asked) -> Answer:
    """What the bill says, wrapped in `e_bill` or not [3p]; nothing in it tells a test from live money."""
    turned_away = meaning.turned_away(status)
    if turned_away:
        return turned_away
    said = strict.document(body)
    return Unclear("unreadable") if isinstance(said, Parked) else of_bill(bill(said), reference, asked)


def bill(said: strict.Document) -> Mapping[str, object]:
    """The bill of an answer, wrapped or not."""
    return strict.branch(said, "e_bill") or said


def of_bill(it: Mapping[str, object], reference: str, asked: Asked) -> Answer:
    """What a bill says that has to be the one of this number."""
    ours = strict.identifier(it.get("external_reference"))
    if strict.identifier(it.get("bill_id")) != reference or (asked.reference and ours and asked.reference != ours):
        return Unclear("other_payment")
    kind = BILL.get(strict.word(it.get("state")))
    if kind is None:
        return Unclear("unknown_status")
    read = strict.amounts(money.from_major, it.get("currency") or CURRENCY, it.get("amount"), it.get("amount_paid"))
    if isinstance(read, Parked):
        return Unclear(read.reason)
    currency, (asked_minor, paid) = read
    at_ms = strict.first_ms(it.get("updated_at"), it.get("created_at"))
    system = strict.word(it.get("payment_system_name"))
    method = next((how for prefix, how in METHODS.items() if system.startswith(prefix)), None)
    why = meaning.reason(REASONS, it.get("reason")) if kind is Kind.FAILED else None
    moved = paid if kind in meaning.MONEY_MOVED else None
    facts = [
        Fact(
            kind,
            reference,
            at_ms,
            moved,
            asked_minor,
            currency,
            method=method,
            reason=why,
            source=Source.ANSWER,
        )
    ]
    if paid and moved is None:
        # Something came, and the bill is open or dead all the same: money that must not be lost sight of.
        facts.append(Fact(Kind.RECEIVED_PART, reference, at_ms, paid, asked_minor, currency, source=Source.ANSWER))
    told = meaning.answered(meaning.tell((reference,), facts, ours))
    return NotFinal(told) if kind in NOT_FINAL and not isinstance(told, Unclear) else told


EBILLING = Provider(
    name="ebilling",
    title="eBilling",
    queue="payments",
    base_url="https://www.billing-easy.com",
    credentials=(
        Credential("username", calls=True, where="eBilling: Profile → API → Username."),
        Credential("shared_key", calls=True, where="eBilling: Profile → API → Shared key."),
        Credential(
            "callback_tokens",
            many=True,
            verifies=True,
            where="Made by you: 32 random letters that end the callback address.",
        ),
        Credential("shap_id", optional=True, where="eBilling: given with access to SHAP, for payouts: API id."),
        Credential("shap_secret", optional=True, where="eBilling: given with access to SHAP, for payouts: API secret."),
    ),
    capabilities=Capabilities(signed=False, strong=False, ask=True, token_in_path=True),
    verify=verify,
    identify=identify,
    translate=translate,
    question=question,
    answer=answer,
    paste="eBilling: Profile → Notification URL.",
)
