"""Endpoints that hang, fail, ask for a pause, are disabled and enabled again, through the whole running service."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import tests.support.service as support
from service.application import Application, build
from service.commands import deliveries, endpoints
from service.config import Settings
from service.ids import now_ms
from service.merchants.events import WEBHOOK
from service.merchants.failing import DAY_MS
from service.merchants.tables import audit
from service.merchants.tables import endpoints as endpoint_rows
from service.payments.tables import attention
from service.schema import outbox_tables
from tests.support.service import PATIENCE_S, Shop, Till, eventually, open_shop, stripe_event, stripe_signature, till

messages = outbox_tables.messages.c


class Shifted:
    """The real time, and as much later as a test says."""

    def __init__(self) -> None:
        self.later_ms = 0

    def __call__(self) -> int:
        return now_ms() + self.later_ms


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Shifted:
    """The clock of the services that this test starts."""
    shifted = Shifted()

    def shifted_build(settings: Settings, **_: object) -> Application:
        return build(settings, clock=shifted)

    monkeypatch.setattr(support, "build", shifted_build)
    return shifted


class Street:
    """A running service whose one merchant has two endpoints: `good` works, `bad` does what the test says."""

    def __init__(self, t: Till, good: Shop, bad: Shop, good_id: str, bad_id: str) -> None:
        self.t, self.good, self.bad, self.good_id, self.bad_id = t, good, bad, good_id, bad_id
        self.sent = 0

    async def pay(self, count: int = 1) -> None:
        """So many payments, each with one event for both endpoints."""
        for _ in range(count):
            self.sent += 1
            event = stripe_event("payment_intent.succeeded", f"evt_{self.sent}", intent=f"pi_{self.sent}")
            body = json.dumps(event).encode()
            stamp = stripe_signature(body, at_s=self.t.app.clock() // 1000)
            status, _ = await self.t.post("/webhooks/stripe", body, {"Stripe-Signature": stamp})
            assert status == 200

    async def standing(self) -> Any:
        """How the outbox stands towards the bad one."""
        return await self.t.app.db.read(self.t.app.queue.destinations.standing, WEBHOOK, self.bad_id)

    async def deliveries(self, status: str | None = None) -> list[dict[str, Any]]:
        """What `caisse deliveries list` shows of the bad one."""
        return await deliveries.listed(self.t.app, endpoint=self.bad_id, status=status)

    async def until(self, **wanted: int) -> None:
        """Until so many deliveries to the bad one stand so."""

        async def found() -> dict[str, int]:
            return {status: len(await self.deliveries(status)) for status in wanted}

        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            if await found() == wanted:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"wanted {wanted}, found {await found()}: {await self.standing()}")


@asynccontextmanager
async def street(directory: Path, **settings: str) -> AsyncIterator[Street]:
    async with AsyncExitStack() as stack:
        bad = await stack.enter_async_context(open_shop())
        t = await stack.enter_async_context(till(directory, **settings))
        assert t.merchant is not None and t.merchant.endpoint is not None
        added = await endpoints.add(t.app, merchant=t.merchant.id, url=bad.url)
        yield Street(t, t.shop, bad, t.merchant.endpoint.id, added["id"])


def at_ms(stamp: str) -> int:
    return round(datetime.fromisoformat(stamp).timestamp() * 1000)


def test_one_that_hangs_holds_back_nobody(tmp_path: Path) -> None:
    """It has its four places and no more; the other gets every event meanwhile."""

    async def run() -> None:
        async with street(tmp_path) as s:
            gate = asyncio.Event()

            async def hang(_: Any) -> int:
                await gate.wait()
                return 200

            s.bad.answer = hang
            await s.pay(30)
            await s.good.wait_for(30)
            await eventually(lambda: len(s.bad.got) >= 4)
            assert len(await s.deliveries("processing")) <= 4
            assert len(await s.deliveries("succeeded")) == 0
            gate.set()
            await s.bad.wait_for(30)
            await s.until(succeeded=30)

    asyncio.run(run())


def test_a_failing_endpoint_opens_its_circuit_and_a_success_closes_it(tmp_path: Path, clock: Shifted) -> None:
    """While it is open nothing is sent and no try is spent; the list says until when; then one probe decides."""

    async def run() -> None:
        async with street(tmp_path) as s:
            s.bad.answer = lambda _: 500
            await s.pay(8)
            await s.good.wait_for(8)
            for _ in range(100):
                clock.later_ms += 1_000  # retries of the first seconds
                s.t.app.nudge()
                await asyncio.sleep(0.05)
                if (await s.standing()).opened_ms:
                    break
            await s.t.settled()
            standing = await s.standing()
            assert (standing.circuit(clock()), standing.opened_ms, standing.failures >= 5) == ("open", 30_000, True)
            got = len(s.bad.got)
            await s.pay(1)
            await s.good.wait_for(9)
            shown = await s.deliveries("pending")
            assert len(shown) == 9
            assert min(at_ms(d["next_retry_at"]) for d in shown) == standing.paused_until_ms
            assert sum(d["tries"] for d in shown) == got, "the open circuit spent no try"
            assert len(s.bad.got) == got

            clock.later_ms += 30_000
            s.t.app.nudge()
            await s.bad.wait_for(got + 1)
            await s.t.settled()
            assert ((await s.standing()).opened_ms, len(s.bad.got)) == (60_000, got + 1)

            s.bad.answer = lambda _: 200
            clock.later_ms += 60_000
            s.t.app.nudge()
            await s.until(succeeded=9)
            assert (await s.standing())[:7] == (None, 0, None, None, 0, None, 0)

    asyncio.run(run())


def test_429_with_retry_after_pauses_the_whole_endpoint(tmp_path: Path, clock: Shifted) -> None:
    """Also what was never tried; and only that endpoint."""

    async def run() -> None:
        async with street(tmp_path) as s:
            await endpoints.disable(s.t.app, endpoint=s.good_id)
            asked = asyncio.Event()

            async def slow_down(request: Any) -> Any:
                asked.set()
                return support.web.Response(status=429, headers={"Retry-After": "120"})

            site = support.web.Application()
            site.router.add_post("/", slow_down)
            runner = support.web.AppRunner(site, access_log=None)
            await runner.setup()
            try:
                listening = support.web.TCPSite(runner, "127.0.0.1", 0)
                await listening.start()
                url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
                await s.t.app.db.write(
                    lambda tx: tx.execute(endpoint_rows.update().where(endpoint_rows.c.id == s.bad_id).values(url=url))
                )
                await s.pay(1)
                await asyncio.wait_for(asked.wait(), PATIENCE_S)
                await s.t.settled()
                paused_until_ms = (await s.standing()).paused_until_ms
                assert 110_000 < paused_until_ms - clock() <= 120_000
                await s.pay(3)
                await s.t.settled()
                shown = await s.deliveries("pending")
                assert sorted(d["tries"] for d in shown) == [0, 0, 0, 1]
                assert {at_ms(d["next_retry_at"]) >= paused_until_ms for d in shown} == {True}
            finally:
                await runner.cleanup()

    asyncio.run(run())


@pytest.mark.parametrize("send_held", [True, False])
def test_what_was_held_is_sent_or_given_up_when_it_is_enabled(tmp_path: Path, send_held: bool) -> None:
    """Sent: all of it and at once, those too that wait for a retry in an hour. Given up: failed, and it says why."""

    async def run() -> None:
        async with street(tmp_path) as s:
            s.bad.answer = lambda _: 500
            await s.pay(1)
            await s.bad.wait_for(2)  # so it waits for its second retry
            disabled = await endpoints.disable(s.t.app, endpoint=s.bad_id, reason="rebuilding")
            assert (disabled["status"], disabled["held"]) == ("disabled", 1)
            await s.pay(3)
            await s.good.wait_for(4)
            await s.until(held=4, pending=0)
            shown = await s.deliveries()
            assert {(d["next_retry_at"], d["reason"]) for d in shown} == {(None, "rebuilding")}
            # The retry is made an hour away, so that only an enabling that hurries can bring it.
            later = {"due_at_ms": s.t.app.clock() + 3_600_000}
            await s.t.app.db.write(
                lambda tx: tx.execute(
                    outbox_tables.messages.update().where(messages.tries > 0, messages.state == "pending").values(later)
                )
            )
            s.bad.answer = lambda _: 200
            got = len(s.bad.got)
            enabled = await endpoints.enable(s.t.app, endpoint=s.bad_id, send_held=send_held)
            if send_held:
                assert (enabled["sent"], enabled["given_up"]) == (4, 0)
                await s.until(succeeded=4)
            else:
                assert (enabled["sent"], enabled["given_up"]) == (0, 4)
                await s.until(failed=4)
                assert len(s.bad.got) == got
                assert {d["error"] for d in await s.deliveries()} == {"given_up_when_enabled"}
            await s.pay(1)
            await s.until(succeeded=5 if send_held else 1)

    asyncio.run(run())


def test_410_disables_and_the_merchants_other_endpoint_hears_of_it(tmp_path: Path) -> None:
    """With the reason; what comes afterwards is held, and a person has it on the list."""

    async def run() -> None:
        async with street(tmp_path) as s:
            s.bad.answer = lambda _: 410
            await s.pay(1)
            await s.good.wait_for(2)
            told = next(e for e in s.good.events if e["type"] == "endpoint.disabled")["data"]["endpoint"]
            assert told == {"id": s.bad_id, "url": s.bad.url, "reason": "it answered 410 Gone"}
            await s.pay(2)
            await s.good.wait_for(4)
            await s.until(failed=1, held=2, pending=0)
            assert len(s.bad.got) == 1
            assert [row.action for row in await s.t.rows(audit, audit.c.subject == s.bad_id)][-1] == "endpoint.disabled"
            (row,) = await s.t.rows(attention, attention.c.subject == s.bad_id)
            assert (row.reason, row.closed_at_ms) == ("endpoint_disabled", None)

    asyncio.run(run())


def test_warned_after_one_day_and_four_disabled_after_five(tmp_path: Path, clock: Shifted) -> None:
    """Through the real sender: told to the other endpoint each time; a success before that clears the warning."""

    async def run() -> None:
        async with street(tmp_path) as s:

            async def a_try(status: int, after_ms: int) -> list[str]:
                """One more event after so long, and what the other endpoint was told of the bad one."""
                clock.later_ms += after_ms
                s.t.app.nudge()
                s.bad.answer = lambda _: status
                before, got = len(s.good.types), len(s.bad.got)
                await s.t.app.db.write(s.t.app.queue.destinations.resume, WEBHOOK, [s.bad_id])
                await s.pay(1)
                await s.bad.wait_for(got + 1)
                await s.t.settled()
                return sorted(t for t in s.good.types[before:] if t.startswith("endpoint."))

            assert await a_try(500, 0) == []
            assert await a_try(500, DAY_MS) == ["endpoint.failing"]
            assert (await endpoints.show(s.t.app, endpoint=s.bad_id))["status"] == "enabled"
            assert await a_try(200, 60_000) == []
            (row,) = await s.t.rows(attention, attention.c.subject == s.bad_id)
            assert (row.reason, row.closed_at_ms is None) == ("endpoint_failing", False)

            assert await a_try(500, DAY_MS) == []
            assert await a_try(500, DAY_MS) == ["endpoint.failing"]
            assert await a_try(500, 3 * DAY_MS) == ["endpoint.failing"]
            assert await a_try(500, DAY_MS) == ["endpoint.disabled"]
            assert (await endpoints.show(s.t.app, endpoint=s.bad_id))["status"] == "disabled"
            reasons = {row.reason for row in await s.t.rows(attention, attention.c.closed_at_ms.is_(None))}
            assert reasons == {"endpoint_disabled"}

    asyncio.run(run())
