"""A conversation with a provider, driven by hand: no client, no socket."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

from service.providers.calls import Broken, Call, Response, broken_create

Talk = Generator[Call, Response, Any]


class Conversation:
    """`call` is what it wants sent now, `result` what it came to; one of them is always None."""

    def __init__(self, generator: Talk) -> None:
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

    def hear(self, one: Response | Broken) -> Conversation:
        """What comes next. A `Broken` that is not caught comes out of here, as it does at the client."""
        assert self.result is None, self.result
        if isinstance(one, Broken):
            self._go(lambda: self._generator.throw(one))
        else:
            self._go(lambda: self._generator.send(one))
        return self

    def answer(self, status: int, body: object = b"", headers: dict[str, str] | None = None) -> Conversation:
        """The provider answers: bytes as they are, anything else as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.hear(Response(status, headers or {}, raw))

    def breaks(self, *, sent: bool, reason: str = "timeout") -> Conversation:
        """No answer comes."""
        return self.hear(Broken(reason, sent=sent))


def drive(generator: Talk, *heard: Response | Broken) -> tuple[list[Call], Any]:
    """
    The calls that were made, and the result. What is heard has to be all that is asked for; a break that nobody catches
    means what it does in `create`.
    """
    talk, left = Conversation(generator), list(heard)
    while talk.result is None and left:
        one = left.pop(0)
        try:
            talk.hear(one)
        except Broken as broken:
            talk.result = broken_create(broken, len(talk.calls))
    assert talk.result is not None and not left, left
    return talk.calls, talk.result
