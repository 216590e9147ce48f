"""The demonstration's seller: one sale through a real service and the sandbox's providers, with what is said of it."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest
from rich.console import Console

from service.sandbox import stall as stalls
from service.sandbox.closing import Closing
from service.sandbox.merchant import Counters
from service.sandbox.player import Played
from service.sandbox.screen import step_in_words
from service.sandbox.stall import Sales, Stall
from service.sandbox.summary import Ended, summarise
from tests.support.paying import Counter, counter

PATIENCE_S = 30.0


async def sold(c: Counter) -> Stall:
    """One sale from the order to the seller's wallet; the clock's work is done by hand when the sale waits for it."""
    assert c.till.merchant is not None
    stall, stop = Stall(c.till.url, c.till.merchant.key.key, c.sandbox), asyncio.Event()
    selling = asyncio.create_task(stall.run(stop))
    try:
        async with asyncio.timeout(PATIENCE_S):
            await until(c, stall, 2)
            app = c.till.app
            did = await app.db.write(lambda tx: app.holds.release_due(tx, c.by))
            assert did == {"released": 1, "left": 0}
            await until(c, stall, 4)
    finally:
        stop.set()
        await selling
    return stall


async def until(c: Counter, stall: Stall, steps: int) -> None:
    """Time goes by at the banks, and callbacks come, until the sale has come so far."""
    while len(stall.sale) < steps:
        assert not any("stopped" in step.text for step in stall.sale), stall.sale
        c.clock.ahead_ms += 500
        await c.settle(1)
        await asyncio.sleep(0.01)


def test_a_sale_says_whose_money_it_is_at_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held, delivered, released, paid out: the seller's three balances at each, and one line about it at the end."""
    monkeypatch.setattr(stalls, "DELIVERED_AFTER_S", 0.01)
    monkeypatch.setattr(stalls, "LOOK_EVERY_S", 0.02)

    async def story() -> Stall:
        async with counter(tmp_path, "fedapay") as c:
            return await sold(c)

    stall = asyncio.run(story())
    assert [(step.text.replace("\u00a0", " "), step.available, step.held, step.paid_out) for step in stall.sale] == [
        ("paid 12 000 XOF: held for the seller", 0, 12_000, 0),
        ("delivered: the clock of 12 000 XOF runs", 0, 12_000, 0),
        ("released by the clock: 12 000 XOF", 12_000, 0, 0),
        ("paid out to their wallet: 12 000 XOF", 0, 0, 12_000),
    ]
    assert step_in_words(stall.sale[2]) == (
        "seller: released by the clock: 12 000 XOF | available 12 000 XOF, in escrow 0 XOF, paid out this month 0 XOF"
    )
    assert stall.sales == Sales(1, 12_000, 1, 12_000)
    lines = closing_words(stall.sales)
    assert "Sales      1 sold for the seller (12 000 XOF), 1 paid out to them (12 000 XOF)" in lines
    assert not any(line.startswith("Sales") for line in closing_words(Sales()))


def closing_words(sales: Sales) -> list[str]:
    """What the demonstration says at its end, line by line."""
    console = Console(file=io.StringIO(), width=120)
    summarise(Ended(Closing(), Played(), Counters(), 0, [], sales), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().replace("\u00a0", " ").splitlines()
