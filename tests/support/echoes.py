"""
Six providers that say yes: each answers a call about the payment that the call asks for, in the provider's own words
and with the provider's own amount, taken from the call as it went out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from service.providers import CALLS
from service.providers.base import Credentials
from service.providers.calls import Call, Channel, Customer, Given, Response, Wanted

REFERENCE = "cx-01HAT7"
PAGE = "https://pay.example/page"

KEYS: Mapping[str, Credentials] = {
    "stripe": {"secret_key": ("sk_live_1",)},
    "paystack": {"secret_keys": ("sk_live_1",)},
    "fedapay": {"secret_key": ("sk_live_1",)},
    "monetbil": {"service_key": ("key",), "service_secrets": ("secret",)},
    "moneroo": {"secret_key": ("pvk_1",)},
    "ebilling": {"username": ("shop",), "shared_key": ("key",)},
}
NAMES: Mapping[str, str] = {
    "stripe": "cs_1",
    "paystack": REFERENCE,
    "fedapay": "77",
    "monetbil": "26112109301578924510",
    "moneroo": "py_1",
    "ebilling": "5550093117",
}
WAYS: list[tuple[str, Channel]] = [
    (provider, channel) for provider, calls in CALLS.items() for channel in calls.channels
]


def wanted(channel: Channel, amount_minor: int, **more: Any) -> Wanted:
    """A wish that has all that the way needs."""
    wish = Wanted(
        reference=REFERENCE,
        key="key-1",
        amount_minor=amount_minor,
        currency=channel.currency,
        method=channel.method,
        country=channel.country,
        operator=channel.operator,
        description="Panier 12",
        return_url="https://shop.example/merci",
        callback_url="https://caisse.example/webhooks/x",
        payer_phone="+2250700000001",
        customer=Customer("Awa Koffi", "awa@example.com", "+2250700000001"),
        live=True,
        embedded=channel.embedded,
    )
    return replace(wish, **more)


def given(wish: Wanted, provider: str, channel: Channel) -> Given:
    """The same, asked for."""
    name = "pi_1" if channel.embedded else NAMES[provider]
    return Given(REFERENCE, (name,), wish.amount_minor, wish.currency, "key-2", live=True)


def response(body: object, status: int = 200) -> Response:
    """JSON, at a time of the provider's."""
    return Response(status, {"date": "Sat, 21 Nov 2026 10:00:00 GMT"}, json.dumps(body).encode())


def sent(call: Call) -> dict[str, Any]:
    """The fields of a call, however they were written."""
    if call.form is not None:
        return dict(call.form)
    return dict(call.json) if isinstance(call.json, dict) else {}


def units(call: Call) -> tuple[str, str]:
    """Amount and currency as they stand on the wire."""
    it = sent(call)
    amount = it.get("amount", it.get("line_items[0][price_data][unit_amount]"))
    currency = it.get("currency", it.get("line_items[0][price_data][currency]", "XAF"))
    return str(amount), currency["iso"] if isinstance(currency, dict) else currency


def accepts(provider: str, call: Call, first: Call) -> Response:
    """The answer to one call of `create`; `first` is the call that said how much."""
    amount, currency = units(first)
    match provider:
        case "stripe":
            return response(_stripe(first, int(amount), currency, paid=False))
        case "paystack" if call.path == "/transaction/initialize":
            return response({"status": True, "data": {"authorization_url": PAGE, "reference": REFERENCE}})
        case "paystack":
            it = {"reference": REFERENCE, "status": "pending", "amount": int(amount), "currency": currency}
            return response({"status": True, "data": it})
        case "fedapay" if call.path == "/v1/transactions":
            return response({"v1/transaction": _fedapay(int(amount), currency, "pending")}, 201)
        case "fedapay" if call.path.endswith("/token"):
            return response({"token": "eyJ0", "url": PAGE})
        case "fedapay":
            return response({"message": "success"}) if call.method == "POST" else Response(200, {}, b"")
        case "monetbil" if call.path.startswith("/widget/"):
            return response({"success": True, "payment_url": PAGE})
        case "monetbil":
            return response({"status": "REQUEST_ACCEPTED", "paymentId": NAMES[provider], "channel_ussd": "*126#"})
        case "moneroo":
            return response({"message": "ok", "data": {"id": NAMES[provider], "checkout_url": PAGE}}, 201)
        case _ if call.path.endswith("/ussd_push"):
            return response({"message": "Accepted"}, 202)
        case _:
            return response({"e_bill": _bill(amount, currency, "ready")}, 201)


def paid(provider: str, first: Call) -> Response:
    """What `fetch` is told once it is paid, in full."""
    amount, currency = units(first)
    match provider:
        case "stripe":
            return response(_stripe(first, int(amount), currency, paid=True))
        case "paystack":
            it = {"reference": REFERENCE, "status": "success", "amount": int(amount), "currency": currency}
            return response({"status": True, "data": it | {"domain": "live", "id": 5}})
        case "fedapay":
            return response({"v1/transaction": _fedapay(int(amount), currency, "approved")})
        case "monetbil":
            it = {"status": "1", "amount": amount, "currency": currency, "payment_ref": REFERENCE, "testmode": "0"}
            return response({"paymentId": NAMES[provider], "transaction": it})
        case "moneroo":
            it = {"id": NAMES[provider], "status": "success", "amount": int(amount), "environment": "live"}
            it |= {"currency": {"code": currency}, "metadata": {"reference": REFERENCE}}
            return response({"message": "ok", "data": it})
        case _:
            return response(_bill(amount, currency, "paid") | {"amount_paid": amount})


def _stripe(first: Call, amount: int, currency: str, *, paid: bool) -> dict[str, Any]:
    shared = {
        "currency": currency, "livemode": True, "metadata": {"reference": REFERENCE}, "payment_method_types": ["card"],
    }  # fmt: skip
    if first.path.endswith("/sessions"):
        states = ("complete", "paid") if paid else ("open", "unpaid")
        return shared | {
            "id": "cs_1", "object": "checkout.session", "mode": "payment", "status": states[0], "url": PAGE,
            "payment_status": states[1], "amount_total": amount, "client_reference_id": REFERENCE,
        }  # fmt: skip
    return shared | {
        "id": "pi_1", "object": "payment_intent", "amount": amount, "client_secret": "pi_1_secret_x",
        "status": "succeeded" if paid else "requires_payment_method", "amount_received": amount if paid else 0,
    }  # fmt: skip


def _fedapay(amount: int, currency: str, status: str) -> dict[str, Any]:
    return {
        "id": 77, "klass": "v1/transaction", "reference": "trx_1", "amount": amount, "status": status,
        "currency": {"iso": currency}, "merchant_reference": REFERENCE,
    }  # fmt: skip


def _bill(amount: str, currency: str, state: str) -> dict[str, Any]:
    return {
        "bill_id": NAMES["ebilling"], "amount": amount, "currency": currency, "state": state,
        "external_reference": REFERENCE,
    }  # fmt: skip
