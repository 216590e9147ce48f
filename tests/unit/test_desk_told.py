"""When a merchant hears that a payment has begun: with what came of it, or soon where that is long in coming."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.payments import desk
from service.payments.desk import Desk


def nudges(monkeypatch: pytest.MonkeyPatch, told_within_s: float) -> list[str]:
    """What happens when a provider answers after 50 ms."""
    monkeypatch.setattr(desk, "TOLD_WITHIN_S", told_within_s)
    seen: list[str] = []

    async def submit(_leg: Any) -> str:
        await asyncio.sleep(0.05)
        seen.append("answered")
        return "result"

    async def record(_leg: Any, _result: Any) -> None:
        seen.append("recorded")

    sending: Any = Desk.__new__(Desk)
    sending._submit, sending._record_now, sending._nudge = submit, record, lambda: seen.append("nudged")

    async def run() -> None:
        await sending._send("leg")
        await asyncio.sleep(0.1)

    asyncio.run(run())
    return seen


def test_a_slow_provider_does_not_keep_the_merchant_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The outbox looks before the answer is there."""
    assert nudges(monkeypatch, 0.0) == ["nudged", "answered", "recorded"]


def test_a_quick_provider_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is recorded nudges by itself; nothing is left behind that fires later."""
    assert nudges(monkeypatch, 0.08) == ["answered", "recorded"]
