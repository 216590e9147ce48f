"""Signed Stripe callbacks of about 1.5 kB, each about another payment, made faster than any server takes them."""

from __future__ import annotations

import hashlib
import hmac
import json
import time

SECRET = "whsec_bench_0123456789abcdef0123456789abcdef"

_NUMBER = "@NUMBER@"
_CREATED = 1_795_165_200

_EVENT = {
    "id": f"evt_bench_{_NUMBER}",
    "object": "event",
    "api_version": "2026-06-24.dahlia",
    "created": _CREATED,
    "livemode": False,
    "pending_webhooks": 1,
    "request": {"id": f"req_{_NUMBER}", "idempotency_key": f"8f9b1a04-52e5-4c5c-a4dd-{_NUMBER}"},
    "type": "payment_intent.succeeded",
    "data": {
        "object": {
            "id": f"pi_bench_{_NUMBER}",
            "object": "payment_intent",
            "amount": 5000,
            "amount_capturable": 0,
            "amount_details": {"tip": {}},
            "amount_received": 5000,
            "application": None,
            "application_fee_amount": None,
            "automatic_payment_methods": {"allow_redirects": "always", "enabled": True},
            "canceled_at": None,
            "cancellation_reason": None,
            "capture_method": "automatic_async",
            "client_secret": f"pi_bench_{_NUMBER}_secret_mEFcLRAEqUXA0mKxBSa8yy5fm",
            "confirmation_method": "automatic",
            "created": _CREATED,
            "currency": "xof",
            "customer": f"cus_{_NUMBER}",
            "description": "Two bags of coffee, delivered on Saturday",
            "invoice": None,
            "last_payment_error": None,
            "latest_charge": f"ch_bench_{_NUMBER}",
            "livemode": False,
            "metadata": {"basket": f"B-{_NUMBER}", "shop": "rue-des-jardins"},
            "next_action": None,
            "on_behalf_of": None,
            "payment_method": f"pm_bench_{_NUMBER}",
            "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
            "payment_method_types": ["card", "link"],
            "processing": None,
            "receipt_email": None,
            "review": None,
            "setup_future_usage": None,
            "shipping": None,
            "source": None,
            "statement_descriptor": None,
            "statement_descriptor_suffix": None,
            "status": "succeeded",
            "transfer_data": None,
            "transfer_group": None,
        }
    },
}
_PIECES = json.dumps(_EVENT, separators=(",", ":")).encode().split(_NUMBER.encode())


def event_id(number: int) -> str:
    """Stripe's id of callback `number`: the key that a server keeps."""
    return f"evt_bench_{number:012d}"


def payment_reference(number: int) -> str:
    """Stripe's id of its payment: what the merchant's webhook carries."""
    return f"pi_bench_{number:012d}"


_NUMBERS = 10**12
_SPREAD = 611_953_973_291  # has no factor in common with 10: no two numbers become one


def scattered(number: int) -> int:
    """
    Another number below 10^12, far from its neighbours' and nobody else's: keys in order would all be kept in one
    corner of an index, which is kinder to a large database than providers are.
    """
    return number * _SPREAD % _NUMBERS


def body_of(number: int) -> bytes:
    """The body of callback `number`."""
    return (b"%012d" % number).join(_PIECES)


class Signer:
    """Builds whole HTTP requests; the key's state and the head are prepared once."""

    def __init__(self, host: str, secret: str = SECRET) -> None:
        self._mac = hmac.new(secret.encode(), digestmod=hashlib.sha256)
        self._host = host.encode()
        self._length = len(b"%012d" % 0) * (len(_PIECES) - 1) + sum(map(len, _PIECES))

    def request(self, number: int, path: bytes, now_s: int | None = None) -> bytes:
        """Callback `number` to `path`, signed now."""
        body = body_of(number)
        stamp = b"%d" % (int(time.time()) if now_s is None else now_s)
        mac = self._mac.copy()
        mac.update(stamp + b"." + body)
        return (
            b"POST %b HTTP/1.1\r\nhost: %b\r\ncontent-type: application/json; charset=utf-8\r\n"
            b"user-agent: Stripe/1.0 (+bench)\r\nstripe-signature: t=%b,v1=%b\r\ncontent-length: %d\r\n\r\n%b"
        ) % (path, self._host, stamp, mac.hexdigest().encode(), self._length, body)
