"""
Stripe's objects as the API and its events show them, made of the bank's charges.

One `Charge` of the bank is a checkout session with its PaymentIntent, or a PaymentIntent alone. The PaymentIntent of a
session is there from the first try on [docs], and every try has a charge (`ch_`) of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from service.payments import money
from service.payments.facts import Reason
from service.sandbox.bank import Charge, Refund
from service.sandbox.desk import Desk

PLACES: Mapping[str, int] = {"UGX": 2, "ISK": 2, "MGA": 0}  # where Stripe's smallest unit is not ISO's

DECLINES: Mapping[Reason, str] = {
    Reason.INSUFFICIENT_FUNDS: "insufficient_funds",
    Reason.LIMIT_REACHED: "card_velocity_exceeded",
    Reason.WRONG_PIN: "incorrect_pin",
    Reason.TIMED_OUT: "try_again_later",
    Reason.DECLINED_BY_USER: "generic_decline",
    Reason.NO_WALLET: "invalid_account",
    Reason.NUMBER_MISMATCH: "invalid_account",
    Reason.PROVIDER_UNAVAILABLE: "issuer_not_available",
    Reason.UNKNOWN: "generic_decline",
}
INTENT_STATUS: Mapping[str, str] = {
    "created": "requires_payment_method",
    "waiting": "requires_action",
    "pending": "processing",
    "succeeded": "succeeded",
    "failed": "requires_payment_method",
    "canceled": "canceled",
    "expired": "canceled",
}
CARD: Final = {"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2030, "country": "FR"}


def places(currency: str) -> int:
    """Decimals of Stripe's smallest unit."""
    return PLACES.get(currency, money.exponent(currency))


def wire(amount_minor: int, currency: str) -> int:
    """Minor units as Stripe counts them."""
    return int(money.to_major(amount_minor, currency).scaleb(places(currency)))


def is_session(charge: Charge) -> bool:
    """Or a PaymentIntent alone."""
    return charge.id.startswith("cs_")


def intent_id(charge: Charge) -> str | None:
    """Of a session: None until the payer's first try."""
    return charge.names.get("intent") if is_session(charge) else charge.id


def tried(desk: Desk, charge: Charge) -> None:
    """A try was made: the PaymentIntent is there, and the try has its charge."""
    if intent_id(charge) is None:
        desk.bank.name(charge, intent=f"pi_{desk.letters()}")
    for one in charge.tries:
        if not one.id:
            one.id = f"ch_{desk.letters()}"
            desk.bank.name(charge, **{f"try_{one.id}": one.id})
    if charge.captured_minor and "paid_by" not in charge.names:
        desk.bank.name(charge, paid_by=f"ch_{desk.letters()}")


def _live(desk: Desk, charge: Charge) -> bool:
    account = desk.account_of(charge)
    return account is not None and account.live


def _amount(charge: Charge) -> int:
    return wire(charge.captured_minor or charge.amount_minor, charge.currency)


def _notes(charge: Charge, *path: str) -> dict[str, str]:
    found: Any = charge.asked
    for name in path:
        found = found.get(name, {}) if isinstance(found, dict) else {}
    return found if isinstance(found, dict) else {}


def _intent_notes(charge: Charge) -> dict[str, str]:
    return _notes(charge, "payment_intent_data", "metadata") if is_session(charge) else _notes(charge, "metadata")


def session(desk: Desk, charge: Charge, expand: Sequence[str] = ()) -> dict[str, Any]:
    """The checkout session; `expand` are paths as `payment_intent.latest_charge`."""
    paid = charge.state == "succeeded"
    over = {"succeeded": "complete", "expired": "expired", "canceled": "expired", "failed": "expired"}
    intent: Any = intent_id(charge)
    if intent and "payment_intent" in [path.partition(".")[0] for path in expand]:
        intent = payment_intent(desk, charge, [path.partition(".")[2] for path in expand])
    return {
        "id": charge.id,
        "object": "checkout.session",
        "amount_subtotal": _amount(charge),
        "amount_total": _amount(charge),
        "cancel_url": charge.cancel_url or None,
        "client_reference_id": charge.reference or None,
        "client_secret": None,
        "created": charge.created_ms // 1000,
        "currency": charge.currency.lower(),
        "customer": None,
        "customer_details": {"email": charge.asked.get("customer_email") or "payer@example.com", "name": "Awa Kone"}
        if paid
        else None,
        "customer_email": charge.asked.get("customer_email"),
        "expires_at": (charge.expires_ms or 0) // 1000,
        "livemode": _live(desk, charge),
        "locale": None,
        "metadata": _notes(charge, "metadata"),
        "mode": "payment",
        "payment_intent": intent,
        "payment_method_types": ["card"],
        "payment_status": "paid" if paid else "unpaid",
        "status": over.get(charge.state, "open"),
        "success_url": charge.return_url,
        "ui_mode": "hosted_page",
        "url": desk.page(charge) if charge.live else None,
    }


def payment_intent(desk: Desk, charge: Charge, expand: Sequence[str] = ()) -> dict[str, Any]:
    """The PaymentIntent, of a session or alone."""
    paid, dead = charge.state == "succeeded", charge.state in ("canceled", "expired")
    latest: Any = charge.names.get("paid_by") or next((one.id for one in reversed(charge.tries)), None)
    if latest and "latest_charge" in expand:
        latest = card_charge(desk, charge, latest)
    id_ = intent_id(charge)
    return {
        "id": id_,
        "object": "payment_intent",
        "amount": _amount(charge),
        "amount_capturable": 0,
        "amount_received": _amount(charge) if paid else 0,
        "canceled_at": (charge.ended_ms or 0) // 1000 if dead else None,
        "cancellation_reason": charge.notes.get("cancellation_reason", "automatic") if dead else None,
        "capture_method": "automatic",
        "client_secret": f"{id_}_secret_{charge.notes.get('secret', '')}",
        "confirmation_method": "automatic",
        "created": charge.created_ms // 1000,
        "currency": charge.currency.lower(),
        "customer": None,
        "description": charge.asked.get("description"),
        "last_payment_error": _error(charge) if charge.tries and not paid else None,
        "latest_charge": latest,
        "livemode": _live(desk, charge),
        "metadata": _intent_notes(charge),
        "next_action": None,
        "payment_method": None,
        "payment_method_types": ["card"],
        "receipt_email": charge.asked.get("receipt_email"),
        "status": INTENT_STATUS[charge.state],
    }


def _error(charge: Charge) -> dict[str, Any]:
    last = charge.tries[-1]
    return {
        "type": "card_error",
        "code": "card_declined",
        "decline_code": DECLINES[last.reason],
        "charge": last.id,
        "message": "Your card was declined.",
    }


def card_charge(desk: Desk, charge: Charge, id_: str) -> dict[str, Any]:
    """One try: declined, or the one that took the money."""
    failed = next((one for one in charge.tries if one.id == id_), None)
    back = sum(refund.amount_minor for refund in charge.refunds if refund.state != "failed")
    at_ms = charge.ended_ms if failed is None else failed.at_ms
    return {
        "id": id_,
        "object": "charge",
        "amount": _amount(charge),
        "amount_captured": 0 if failed else _amount(charge),
        "amount_refunded": 0 if failed else wire(back, charge.currency),
        "balance_transaction": None,
        "billing_details": {"name": "Awa Kone", "phone": None},
        "captured": failed is None,
        "created": (at_ms or charge.changed_ms) // 1000,
        "currency": charge.currency.lower(),
        "disputed": False,
        "failure_code": "card_declined" if failed else None,
        "livemode": _live(desk, charge),
        "metadata": _intent_notes(charge),
        "outcome": {"type": "issuer_declined", "reason": DECLINES[failed.reason]}
        if failed
        else {"type": "authorized", "reason": None},
        "paid": failed is None,
        "payment_intent": intent_id(charge),
        "payment_method_details": {"type": "card", "card": CARD},
        "refunded": failed is None and 0 < charge.captured_minor == back,
        "status": "failed" if failed else "succeeded",
    }


def refund(charge: Charge, back: Refund) -> dict[str, Any]:
    """Money that went back, or will."""
    return {
        "id": back.id,
        "object": "refund",
        "amount": wire(back.amount_minor, charge.currency),
        "balance_transaction": None,
        "charge": charge.names.get("paid_by"),
        "created": back.created_ms // 1000,
        "currency": charge.currency.lower(),
        "failure_reason": "expired_or_canceled_card" if back.state == "failed" else None,
        "metadata": dict(back.metadata),
        "payment_intent": intent_id(charge),
        "reason": back.note or None,
        "receipt_number": None,
        "status": back.state,
    }
