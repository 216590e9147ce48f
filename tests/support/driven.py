"""A conversation with a provider driven to its end by hand: no client, no socket."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from service.providers.calls import Broken, Call, Response, after_break


def drive(conversation: Generator[Call, Response, Any], *heard: Response | Broken) -> tuple[list[Call], Any]:
    """The calls that were made, and the result. What is heard has to be all that is asked for."""
    calls: list[Call] = []
    left = list(heard)
    try:
        calls.append(next(conversation))
        while True:
            one = left.pop(0)
            calls.append(conversation.throw(one) if isinstance(one, Broken) else conversation.send(one))
    except StopIteration as done:
        assert not left, left
        return calls, done.value
    except Broken as broken:
        assert not left, left
        return calls, after_break(broken, len(calls))
