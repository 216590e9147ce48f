"""
A provider that answers at once, in a process of its own: `python -m tests.bench.provider 8130`.

It makes checkout sessions as Stripe's API does, as far as caisse reads them: open ones to pay on, and of `PAID_MINOR`
one that is paid already. It keeps nothing, so that its own time is as little as a provider can take.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from urllib.parse import parse_qs

PATH = "/v1/checkout/sessions"
PAID_MINOR = 7_001
CURRENCY = "xof"


class Provider(asyncio.Protocol):
    """Just enough HTTP/1.1 for forms with a content-length."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        lower = head.lower()
        at = lower.find(b"content-length:")
        length = int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(body) < length:
            return
        self._buffer = b""
        known = head.startswith(f"POST {PATH} ".encode())
        told = made(body.decode(), time.time_ns()) if known else {"error": {"type": "invalid_request_error"}}
        answer = json.dumps(told).encode()
        status = b"200 OK" if known else b"404 Not Found"
        self._transport.write(
            b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (status, len(answer), answer)
        )


def made(form: str, number: int) -> dict[str, object]:
    """The checkout session that this form asks for. `number` is nobody else's, also not after a restart."""
    asked = {name: values[0] for name, values in parse_qs(form).items()}
    amount_minor = int(asked["line_items[0][price_data][unit_amount]"])
    paid = amount_minor == PAID_MINOR
    return {
        "id": f"cs_test_{number:024}",
        "object": "checkout.session",
        "amount_total": amount_minor,
        "client_reference_id": asked["client_reference_id"],
        "created": int(time.time()),
        "currency": asked["line_items[0][price_data][currency]"],
        "livemode": False,
        "metadata": {},
        "mode": "payment",
        "payment_intent": f"pi_{number:024}" if paid else None,
        "payment_method_types": ["card"],
        "payment_status": "paid" if paid else "unpaid",
        "status": "complete" if paid else "open",
        "url": f"https://checkout.example/c/pay/{number}",
    }


async def main(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Provider, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
