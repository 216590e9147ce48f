"""
A small stand-in for the three providers that have to be asked: Monetbil, Moneroo, eBilling.

It answers only the question "what became of this payment?", in each provider's own shape, and is as strict as they are
about credentials. What it answers comes from the `Book`, which a test or the player fills; a callback may then say
anything at all, the truth is here.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from aiohttp import web

from service.ids import Clock, now_ms

State = Literal["created", "pending", "succeeded", "failed", "canceled", "expired", "refunded"]

# What each provider calls it. Monetbil says nothing until it is final, and has no word for expired but a message.
_MONETBIL: Mapping[State, tuple[str, str, str]] = {  # status live, status in test mode, message
    "succeeded": ("1", "7", "payment finish"),
    "failed": ("0", "8", "Insufficient balance."),
    "expired": ("0", "8", "Waiting time expired."),
    "canceled": ("-1", "9", "Transaction cancelled."),
    "refunded": ("-2", "-2", "payment refunded"),
}
_MONEROO: Mapping[State, str] = {
    "created": "initiated",
    "pending": "pending",
    "succeeded": "success",
    "failed": "failed",
    "canceled": "cancelled",
    "expired": "cancelled",
    "refunded": "success",  # it has no refunds: what was refunded by hand still reads as paid
}
_EBILLING: Mapping[State, str] = {
    "created": "created",
    "pending": "ready",
    "succeeded": "processed",
    "failed": "failed",
    "canceled": "cancelled",
    "expired": "expired",
    "refunded": "processed",
}


@dataclass(slots=True)
class Entry:
    """
    One payment as the provider knows it. `amount` in major units, as all three write it.

    The next `fail_times` questions get 503, the `pending_times` after them "not yet", then comes `state`.
    """

    state: State
    amount: int
    currency: str
    reference: str = ""
    operator: str = ""
    phone: str = ""
    fee: int = 0
    test: bool = True
    message: str = ""
    transaction: str = ""  # the operator's own number of the transfer
    fail_times: int = 0
    pending_times: int = 0
    at_ms: int = 0

    def next_state(self) -> State | None:
        """What to answer now (None: a 503), counting down."""
        if self.fail_times > 0:
            self.fail_times -= 1
            return None
        if self.pending_times > 0:
            self.pending_times -= 1
            return "pending"
        return self.state


class Book:
    """What the providers know: `book.write("moneroo", "py_1", Entry(…))`."""

    LIMIT = 20_000

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[str, str], Entry] = OrderedDict()

    def write(self, provider: str, payment_id: str, entry: Entry) -> Entry:
        """Write or replace; the oldest are forgotten, as a sandbox does."""
        self._entries[provider, payment_id] = entry
        while len(self._entries) > self.LIMIT:
            self._entries.popitem(last=False)
        return entry

    def read(self, provider: str, payment_id: str) -> Entry | None:
        """None: the provider knows no such payment."""
        return self._entries.get((provider, payment_id))

    def dump(self) -> list[tuple[str, str, dict[str, Any]]]:
        """All of it as plain values: provider, payment, the fields of its entry."""
        return [(provider, payment_id, asdict(entry)) for (provider, payment_id), entry in self._entries.items()]


@dataclass(frozen=True, slots=True)
class Keys:
    """The credentials the stand-in accepts."""

    moneroo_secret_key: str
    ebilling_username: str
    ebilling_shared_key: str
    monetbil_service_key: str = ""


class StandIn:
    """One loopback server, a prefix per provider: `bases = await StandIn(book, keys).start()`."""

    PROVIDERS = ("monetbil", "moneroo", "ebilling")

    def __init__(
        self,
        book: Book,
        keys: Keys,
        clock_ms: Clock = now_ms,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.book = book
        self.keys = keys
        self.asked: Counter[tuple[str, int]] = Counter()  # (provider, status answered)
        self._clock_ms = clock_ms
        self._host, self._port = host, port
        self._runner: web.AppRunner | None = None

    def base_url(self, provider: str) -> str:
        """What stands where the provider's own address would: `CAISSE_<PROVIDER>_BASE_URL`."""
        return f"http://{self._host}:{self._port}/{provider}"

    async def start(self) -> dict[str, str]:
        """Listen; returns the base address of each provider."""
        app = web.Application(client_max_size=16 * 1024)
        app.router.add_post("/monetbil/payment/v1/checkPayment", self._monetbil)
        app.router.add_get("/moneroo/v1/payments/{id}/verify", self._moneroo)
        app.router.add_get("/ebilling/api/v1/merchant/e_bills/{id}", self._ebilling)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        self._port = self._runner.addresses[0][1]
        return {provider: self.base_url(provider) for provider in self.PROVIDERS}

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    def _say(self, provider: str, status: int, answer: object) -> web.Response:
        self.asked[provider, status] += 1
        return web.json_response(answer, status=status)

    # --- Monetbil: no credential at all, a form (or JSON) in, strings out --------------------------------

    async def _monetbil(self, request: web.Request) -> web.Response:
        if request.content_type == "application/json":
            fields: Mapping[str, Any] = _object(await request.read())
        else:
            fields = await request.post()
        payment_id = str(fields.get("paymentId") or "")
        if not payment_id:
            return self._say("monetbil", 422, {"paymentId": ["The payment id field is required."]})
        entry = self.book.read("monetbil", payment_id)
        if entry is None:
            return self._say("monetbil", 404, {"paymentId": payment_id, "message": "payment not found"})
        state = entry.next_state()
        if state is None:
            return self._say("monetbil", 503, {"message": "Service Unavailable"})
        if state not in _MONETBIL:
            return self._say("monetbil", 200, {"paymentId": payment_id, "message": "payment pending"})
        live, test, message = _MONETBIL[state]
        at_s = str((entry.at_ms or self._clock_ms()) // 1000)
        transaction = {
            "transaction_UUID": payment_id,
            "status": test if entry.test else live,
            "message": entry.message or message,
            "testmode": "1" if entry.test else "0",
            "amount": str(entry.amount),
            "fee": str(entry.fee),
            "revenue": str(entry.amount - entry.fee),
            "currency": entry.currency,
            "msisdn": entry.phone,
            "mobile_operator_code": entry.operator,
            "operator_transaction_id": entry.transaction,
            "item_ref": entry.reference,
            "payment_ref": entry.reference,
            "user": "",
            "first_name": "",
            "last_name": "",
            "email": "",
            "service_key": self.keys.monetbil_service_key,
            "start_time": at_s,
            "end_time": at_s,
        }
        return self._say(
            "monetbil", 200, {"paymentId": payment_id, "message": "payment finish", "transaction": transaction}
        )

    # --- Moneroo: Bearer, an envelope with data and errors ------------------------------------------------

    async def _moneroo(self, request: web.Request) -> web.Response:
        if not _same(request.headers.get("Authorization", ""), f"Bearer {self.keys.moneroo_secret_key}"):
            return self._say("moneroo", 401, {"message": "Unauthenticated.", "data": None, "errors": None})
        payment_id = request.match_info["id"]
        entry = self.book.read("moneroo", payment_id)
        if entry is None:
            missing = {"message": "Payment transaction not found.", "data": None, "errors": None}
            return self._say("moneroo", 404, missing)
        state = entry.next_state()
        if state is None:
            return self._say("moneroo", 503, {"message": "Service Unavailable", "data": None, "errors": None})
        at = _utc(entry.at_ms or self._clock_ms(), "%Y-%m-%dT%H:%M:%S.000000Z")
        final = state not in ("created", "pending")
        failed = state == "failed"
        currency = {
            "name": "CFA Franc BCEAO" if entry.currency == "XOF" else entry.currency,
            "symbol": entry.currency,
            "symbol_first": True,
            "decimals": 0,
            "code": entry.currency,
        }
        method = {"name": entry.operator, "short_code": entry.operator} if entry.operator else None
        data = {
            "id": payment_id,
            "status": _MONEROO[state],
            "is_processed": final,
            "processed_at": at if final else None,
            "amount": entry.amount,
            "currency": currency,
            "amount_formatted": f"{entry.currency} {entry.amount}",
            "description": "Commande",
            "return_url": "http://127.0.0.1/merci",
            "environment": "sandbox" if entry.test else "production",
            "initiated_at": at,
            "metadata": {"reference": entry.reference} if entry.reference else None,
            "method": method,
            "capture": {
                "identifier": entry.transaction or None,
                "phone_number": entry.phone or None,
                "failure_message": (entry.message or "Insufficient balance") if failed else None,
                "failure_error_code": "insufficient_balance" if failed else None,
                "failure_error_type": "customer" if failed else None,
                "amount": entry.amount,
                "currency": currency,
                "method": method,
                "gateway": {
                    "short_code": "sandbox",
                    "transaction_id": entry.transaction or None,
                    "transaction_status": _MONEROO[state],
                },
            }
            if final
            else None,
        }
        return self._say(
            "moneroo", 200, {"message": "Payment transaction fetched successfully.", "data": data, "errors": None}
        )

    # --- eBilling: Basic, the bill itself without an envelope ---------------------------------------------

    async def _ebilling(self, request: web.Request) -> web.Response:
        pair = f"{self.keys.ebilling_username}:{self.keys.ebilling_shared_key}".encode()
        if not _same(request.headers.get("Authorization", ""), "Basic " + base64.b64encode(pair).decode()):
            return self._say("ebilling", 401, {"message": "HTTP Basic: Access denied."})
        bill_id = request.match_info["id"].removesuffix(".json")
        entry = self.book.read("ebilling", bill_id)
        if entry is None:
            return self._say("ebilling", 404, {"message": "e_bill not found"})
        state = entry.next_state()
        if state is None:
            return self._say("ebilling", 503, {"message": "Service Unavailable"})
        paid = state in ("succeeded", "refunded")
        at = _utc(entry.at_ms or self._clock_ms(), "%Y-%m-%dT%H:%M:%SZ")
        bill = {
            "bill_id": bill_id,
            "payer_msisdn": entry.phone,
            "payer_email": "",
            "payee_id": "12345678",
            "payee_name": "Boutique de démonstration",
            "amount": entry.amount,
            "currency": entry.currency,
            "state": _EBILLING[state],
            "created_at": at,
            "updated_at": at,
            "expiry_period": "60",
            "short_description": "Commande",
            "external_reference": entry.reference,
            "reason": entry.message,
            "payer_name": "",
            "accept_partial_payment": False,
            "minimum_amount": 0,
            "amount_paid": entry.amount if paid else 0,
            "ps_transaction_id": entry.transaction if paid else None,
            "payment_system_name": entry.operator,
        }
        return self._say("ebilling", 200, bill)


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _utc(at_ms: int, shape: str) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime(shape)
