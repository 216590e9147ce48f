"""A conversation with a provider, driven by hand: no client, no socket."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

from service.providers.calls import Broken, Call, Response


class Conversation:
    """`call` is what it wants sent now, `result` what it came to; one of them is always None."""

    def __init__(self, generator: Generator[Call, Response, Any]) -> None:
        self._generator = generator
        self.calls: list[Call] = []
        self.result: Any = None
        self._go(lambda: next(generator))

    def _go(self, step: Any) -> None:
        try:
            self.calls.append(step())
        except StopIteration as ended:
            self.result = ended.value

    @property
    def call(self) -> Call:
        """The last call."""
        assert self.result is None, self.result
        return self.calls[-1]

    def answer(self, status: int, body: object = b"", headers: dict[str, str] | None = None) -> Conversation:
        """The provider answers: bytes as they are, anything else as JSON."""
        assert self.result is None, self.result
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._go(lambda: self._generator.send(Response(status, headers or {}, raw)))
        return self

    def breaks(self, *, sent: bool, reason: str = "timeout") -> Conversation:
        """No answer comes. A `Broken` that is not caught comes out of here, as it does at the client."""
        self._go(lambda: self._generator.throw(Broken(reason, sent=sent)))
        return self
