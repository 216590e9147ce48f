"""Stripe's callbacks as its official library's fixtures shape them, signed by the documented algorithm."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from service.payments import money
from service.sandbox.builder.wanted import Built, Credentials, Shape, Wanted, secret_of, shape_of, with_raw

CURRENCY = "EUR"

_PLACES = {"UGX": 2, "ISK": 2, "MGA": 0}  # where Stripe's smallest unit is not ISO's


def _wire(wanted: Wanted, amount_minor: int) -> int:
    return int(money.to_major(amount_minor, wanted.currency).scaleb(
        _PLACES.get(wanted.currency, money.exponent(wanted.currency))
    ))  # fmt: skip


def _names(wanted: Wanted) -> tuple[str, str, str]:
    end = wanted.letters()
    given = wanted.given.get("id", "")
    intent = given if given.startswith("pi_") else f"pi_{end}"
    return intent, wanted.text("charge", f"ch_{end}"), wanted.text("session", f"cs_test_{end}")


def _session(status: str, payment_status: str) -> Shape:
    def shape(wanted: Wanted) -> dict[str, Any]:
        intent, _, session = _names(wanted)
        return {
            "id": session,
            "object": "checkout.session",
            "amount_subtotal": _wire(wanted, wanted.amount),
            "amount_total": _wire(wanted, wanted.amount),
            "client_reference_id": wanted.reference,
            "created": wanted.time_ms // 1000 - 90,
            "currency": wanted.currency.lower(),
            "customer_details": {"email": "payer@example.com", "name": wanted.text("customer", "Awa Kone")},
            "livemode": wanted.live,
            "metadata": {"reference": wanted.reference},
            "mode": "payment",
            "payment_intent": None if status == "expired" else intent,
            "payment_method_types": ["card"],
            "payment_status": wanted.text("status", payment_status),
            "status": status,
        }

    return shape


def _intent(status: str, *, failed: bool = False) -> Shape:
    def shape(wanted: Wanted) -> dict[str, Any]:
        intent, charge, _ = _names(wanted)
        now = wanted.text("status", status)
        total = _wire(wanted, wanted.amount)
        reason = wanted.text("reason", "insufficient_funds")
        return {
            "id": intent,
            "object": "payment_intent",
            "amount": total,
            "amount_capturable": total if now == "requires_capture" else 0,
            "amount_received": total if now == "succeeded" else 0,
            "canceled_at": wanted.time_ms // 1000 if now == "canceled" else None,
            "cancellation_reason": wanted.text("reason", "abandoned") if now == "canceled" else None,
            "capture_method": "automatic",
            "created": wanted.time_ms // 1000 - 60,
            "currency": wanted.currency.lower(),
            "last_payment_error": {
                "type": "card_error", "code": "card_declined", "decline_code": reason, "charge": charge,
                "message": "Your card was declined.",
            } if failed else None,
            "latest_charge": charge if failed or now in ("succeeded", "requires_capture") else None,
            "livemode": wanted.live,
            "metadata": {"reference": wanted.reference},
            "payment_method_types": ["card"],
            "status": now,
        }  # fmt: skip

    return shape


def _charge(status: str, *, back: bool = False) -> Shape:
    def shape(wanted: Wanted) -> dict[str, Any]:
        intent, charge, _ = _names(wanted)
        now = wanted.text("status", status)
        total = _wire(wanted, wanted.amount)
        refunded = _wire(wanted, wanted.number("refunded", wanted.amount)) if back else 0
        return {
            "id": charge,
            "object": "charge",
            "amount": total,
            "amount_captured": total if now == "succeeded" else 0,
            "amount_refunded": refunded,
            "balance_transaction": f"txn_{wanted.letters()}",
            "billing_details": {"name": wanted.text("customer", "Awa Kone"), "phone": wanted.text("phone", "")},
            "captured": now == "succeeded",
            "created": wanted.time_ms // 1000 - 1,
            "currency": wanted.currency.lower(),
            "disputed": False,
            "failure_code": "card_declined" if now == "failed" else None,
            "livemode": wanted.live,
            "metadata": {"reference": wanted.reference},
            "outcome": {"type": "authorized"} if now != "failed" else {
                "type": "issuer_declined", "reason": wanted.text("reason", "insufficient_funds"),
            },
            "paid": now == "succeeded",
            "payment_intent": intent,
            "payment_method_details": {"card": {"brand": wanted.text("operator", "visa")}, "type": "card"},
            "refunded": bool(refunded) and refunded == total,
            "status": now,
        }  # fmt: skip

    return shape


def _refund(status: str) -> Shape:
    def shape(wanted: Wanted) -> dict[str, Any]:
        intent, charge, _ = _names(wanted)
        return {
            "id": wanted.text("refund", f"re_{wanted.letters()}"),
            "object": "refund",
            "amount": _wire(wanted, wanted.number("refunded", wanted.amount)),
            "charge": charge,
            "created": wanted.time_ms // 1000,
            "currency": wanted.currency.lower(),
            "metadata": {},
            "payment_intent": intent,
            "reason": "requested_by_customer",
            "status": wanted.text("status", status),
        }

    return shape


def _dispute(status: str) -> Shape:
    def shape(wanted: Wanted) -> dict[str, Any]:
        intent, charge, _ = _names(wanted)
        return {
            "id": wanted.text("dispute", f"dp_{wanted.letters()}"),
            "object": "dispute",
            "amount": _wire(wanted, wanted.amount),
            "charge": charge,
            "created": wanted.time_ms // 1000,
            "currency": wanted.currency.lower(),
            "livemode": wanted.live,
            "metadata": {},
            "payment_intent": intent,
            "reason": wanted.text("reason", "fraudulent"),
            "status": wanted.text("status", status),
        }

    return shape


def _payout(status: str) -> Shape:
    return lambda wanted: {
        "id": f"po_{wanted.letters()}",
        "object": "payout",
        "amount": _wire(wanted, wanted.amount),
        "created": wanted.time_ms // 1000,
        "currency": wanted.currency.lower(),
        "failure_code": wanted.text("reason", "account_closed") if status == "failed" else None,
        "livemode": wanted.live,
        "metadata": {"reference": wanted.reference},
        "status": wanted.text("status", status),
    }


def _transfer(*, back: bool = False) -> Shape:
    return lambda wanted: {
        "id": f"tr_{wanted.letters()}",
        "object": "transfer",
        "amount": _wire(wanted, wanted.amount),
        "amount_reversed": _wire(wanted, wanted.number("refunded", wanted.amount)) if back else 0,
        "created": wanted.time_ms // 1000,
        "currency": wanted.currency.lower(),
        "destination": "acct_1Caisse",
        "livemode": wanted.live,
        "metadata": {"reference": wanted.reference},
        "reversed": back,
    }


EVENTS: Mapping[str, Shape] = {
    "checkout.session.completed": _session("complete", "paid"),
    "checkout.session.expired": _session("expired", "unpaid"),
    "checkout.session.async_payment_succeeded": _session("complete", "paid"),
    "checkout.session.async_payment_failed": _session("complete", "unpaid"),
    "payment_intent.created": _intent("requires_payment_method"),
    "payment_intent.processing": _intent("processing"),
    "payment_intent.requires_action": _intent("requires_action"),
    "payment_intent.amount_capturable_updated": _intent("requires_capture"),
    "payment_intent.payment_failed": _intent("requires_payment_method", failed=True),
    "payment_intent.succeeded": _intent("succeeded"),
    "payment_intent.canceled": _intent("canceled"),
    "charge.succeeded": _charge("succeeded"),
    "charge.failed": _charge("failed"),
    "charge.captured": _charge("succeeded"),
    "charge.updated": _charge("succeeded"),
    "charge.refunded": _charge("succeeded", back=True),
    "charge.refund.updated": _refund("succeeded"),
    "refund.created": _refund("pending"),
    "refund.updated": _refund("succeeded"),
    "refund.failed": _refund("failed"),
    "charge.dispute.created": _dispute("needs_response"),
    "charge.dispute.closed": _dispute("lost"),
    "payout.created": _payout("pending"),
    "payout.updated": _payout("in_transit"),
    "payout.paid": _payout("paid"),
    "payout.failed": _payout("failed"),
    "payout.canceled": _payout("canceled"),
    "transfer.created": _transfer(),
    "transfer.updated": _transfer(),
    "transfer.reversed": _transfer(back=True),
}


def build(event: str, credentials: Credentials, now_ms: int, wanted: Wanted) -> Built:
    """One delivery of one event."""
    thing = shape_of("stripe", event, EVENTS)(wanted)
    distinct = hashlib.sha256(f"{event}|{thing['id']}|{wanted.time_ms}|{thing}".encode()).hexdigest()[:24]
    envelope = {
        "id": wanted.text("event_id", f"evt_{distinct}"),
        "object": "event",
        "api_version": "2026-06-24.dahlia",
        "created": wanted.time_ms // 1000,
        "data": {"object": thing},
        "livemode": wanted.live,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": event,
    }
    body = json.dumps(with_raw(envelope, wanted.raw), indent=2).encode()  # Stripe sends it for people to read
    secret = secret_of("stripe", credentials, "webhook_secrets")
    seconds = str(now_ms // 1000)
    digest = hmac.new(secret.encode(), f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        "Stripe-Signature": f"t={seconds},v1={digest}",
    }
    payment = str(thing.get("payment_intent") or thing["id"])
    return Built("stripe", event, "POST", "/webhooks/stripe", headers, body, payment)
