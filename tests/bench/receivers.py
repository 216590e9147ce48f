"""
Fifty merchants' endpoints in one process: `python -m tests.bench.receivers 8120`. `/e/<n>` is the n-th endpoint.

Each webhook is answered 204 at once, but at `/hang/<n>` never, and at `/far/<n>` after 100 ms. Which payments it was
about is remembered, and when the first of each came; `GET /report` tells. Times are of `perf_counter`, which all
processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections import Counter

_REFERENCE = re.compile(rb'"provider_reference":\s*"([^"]+)"')
_HANGING = b"/hang/"
_FAR = b"/far/"
FAR_MS = 100
_ANSWER = b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n"


class Report:
    """What arrived, by endpoint and by payment."""

    def __init__(self) -> None:
        self.endpoints: Counter[str] = Counter()
        self.references: Counter[str] = Counter()
        self.types: Counter[str] = Counter()
        self.received_s: dict[str, float] = {}

    def webhook(self, path: bytes, body: bytes, now_s: float) -> None:
        self.endpoints[path.decode()] += 1
        found = _REFERENCE.search(body)
        reference = found[1].decode() if found else ""
        self.references[reference] += 1
        self.received_s.setdefault(reference, now_s)
        at = body.find(b'"type":')
        self.types[body[at + 7 : body.find(b",", at)].strip(b' "').decode()] += 1

    def as_json(self) -> bytes:
        return json.dumps(
            {
                "endpoints": self.endpoints,
                "references": self.references,
                "types": self.types,
                "received_s": self.received_s,
            },
            separators=(",", ":"),
        ).encode()


class Receiver(asyncio.Protocol):
    """Just enough HTTP/1.1 for requests with a content-length."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._buffer = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        now_s = time.perf_counter()
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            lower = head.lower()
            at = lower.find(b"content-length:")
            length = int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            whole = end + 4 + length
            if len(self._buffer) < whole:
                return
            body, self._buffer = self._buffer[end + 4 : whole], self._buffer[whole:]
            method, path, _ = head.split(b" ", 2)
            if method == b"POST":
                self._report.webhook(path, body, now_s)
                if path.startswith(_FAR):
                    asyncio.get_running_loop().call_later(FAR_MS / 1000, self._transport.write, _ANSWER)
                elif not path.startswith(_HANGING):
                    self._transport.write(_ANSWER)
            else:
                told = self._report.as_json()
                self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(told), told))


async def main(port: int) -> None:
    report = Report()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Receiver(report), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
