"""Monetbil, Moneroo and eBilling: their callbacks move no money; the provider's answer to our question does (A12)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service.callbacks import replay
from service.callbacks.tables import callbacks, quarantine, waits
from service.errors import Refusal
from service.merchants.accounts import digest_of
from service.payments import ask
from service.payments.tables import attention, facts, payments
from service.sandbox.builder import build
from service.sandbox.desk import Account
from service.sandbox.teller import Sandbox
from service.sandbox.truths import Book, Entry
from service.schema import outbox_tables
from tests.support.service import Till, eventually, till

messages = outbox_tables.messages
KEYS = {
    "monetbil": {"service_key": ["monetbil-service"], "service_secrets": ["monetbil-secret"]},
    "moneroo": {"secret_key": ["pvk_sandbox_of_the_tests"], "webhook_secrets": ["moneroo-secret"]},
    "ebilling": {"username": ["shop"], "shared_key": ["shared"], "callback_tokens": ["token-in-the-address"]},
}
PAID = {"monetbil": "success", "moneroo": "payment.success", "ebilling": "paid"}
CURRENCY = {"monetbil": "XAF", "moneroo": "XOF", "ebilling": "XAF"}
ASKED = sorted(PAID)


@asynccontextmanager
async def asking(directory: Path, **settings: str) -> AsyncIterator[tuple[Till, Sandbox, Book]]:
    """A service whose three weak providers are the sandbox's; the book is what these know."""
    async with Sandbox([Account(name, keys, live=False) for name, keys in KEYS.items()]) as sandbox:
        places = {f"{name}_base_url": sandbox.base_urls[name] for name in KEYS}
        async with till(directory, **(places | settings)) as t:
            yield t, sandbox, Book(sandbox)


async def call_back(t: Till, provider: str, event: str | None = None, **fields: object) -> tuple[int, bytes, str]:
    """One genuine callback; (status, answer, the provider's id of the payment)."""
    entry = t.app.registry.default(provider)
    assert entry is not None
    wanted = {"amount": "5000", "currency": CURRENCY[provider], "live": "false", "reference": "CMD-1"} | fields
    built = build(provider, event or PAID[provider], entry.credentials, t.app.clock(), wanted)
    async with t.client.request(
        built.method, t.url + built.path_suffix, data=built.body, headers=dict(built.headers)
    ) as answer:
        return answer.status, await answer.read(), built.payment


@pytest.mark.parametrize("provider", ASKED)
def test_until_answered_the_payment_is_pending_and_the_answer_decides(tmp_path: Path, provider: str) -> None:
    """The callback says paid; the payment is pending until the provider itself says so, then succeeded."""

    async def run() -> None:
        async with asking(tmp_path) as (t, sandbox, book):
            number = build(provider, PAID[provider], t.app.registry.default(provider).credentials, 1,  # type: ignore[union-attr]
                           {"reference": "CMD-1"}).payment  # fmt: skip
            book.write(provider, number, Entry("succeeded", 5000, CURRENCY[provider], "CMD-1"))
            sandbox.trouble.on(provider, "error_5xx_before", "fetch")
            status, answer, payment = await call_back(t, provider)
            assert (status, payment) == (200, number)
            assert provider != "monetbil" or answer == b"received"
            await eventually(lambda: sum(sandbox.asked.values()) >= 1)
            await t.shop.wait_for(1)
            assert t.shop.types == ["payment.pending"]
            assert [(p.status, p.captured_minor) for p in await t.rows(payments)] == [("pending", 0)]

            sandbox.trouble.off()
            await t.settled()
            (row,) = await t.rows(messages, messages.c.topic == "ask")
            hurry = t.app.queue.destinations.hurry
            assert await t.app.db.write(hurry, "ask", row.destination, t.app.clock(), 10) == 1
            t.app.nudge()
            await t.shop.wait_for(2)
            assert t.shop.types == ["payment.pending", "payment.succeeded"]
            row = (await t.rows(payments))[0]
            assert (row.status, row.captured_minor, row.exceptions) == ("succeeded", 5000, "")
            assert {f.source for f in await t.rows(facts, facts.c.kind == "captured")} == {"answer"}

    asyncio.run(run())


@pytest.mark.parametrize("provider", ASKED)
def test_a_callback_that_says_paid_when_the_provider_says_failed_is_a_failure(tmp_path: Path, provider: str) -> None:
    """Somebody who can forge the weak callback gets nothing by it."""

    async def run() -> None:
        async with asking(tmp_path) as (t, _, book):
            number = (await _number(t, provider)).strip()
            book.write(provider, number, Entry("failed", 5000, CURRENCY[provider], "CMD-1"))
            assert (await call_back(t, provider))[0] == 200
            await t.shop.wait_for(2)
            assert t.shop.types == ["payment.pending", "payment.failed"]
            assert [p.captured_minor for p in await t.rows(payments)] == [0]

    asyncio.run(run())


async def _number(t: Till, provider: str) -> str:
    entry = t.app.registry.default(provider)
    assert entry is not None
    return build(provider, PAID[provider], entry.credentials, 1, {"reference": "CMD-1"}).payment


@pytest.mark.parametrize("provider", ASKED)
def test_the_answer_corrects_the_amount_that_the_callback_claimed(tmp_path: Path, provider: str) -> None:
    """A claim of 5,000 and a truth of 100: the payment asks for and has 100, nothing else is ever told as paid."""

    async def run() -> None:
        async with asking(tmp_path) as (t, _, book):
            book.write(provider, await _number(t, provider), Entry("succeeded", 100, CURRENCY[provider], "CMD-1"))
            await call_back(t, provider)
            await t.shop.wait_for(2)
            await t.settled()
            row = (await t.rows(payments))[0]
            assert row.captured_minor == 100
            told = [e["data"]["payment"] for e in t.shop.events if e["type"] == "payment.succeeded"]
            assert all(p["amount"] == p["amount_captured"] == 100 for p in told)

    asyncio.run(run())


@pytest.mark.parametrize("provider", ASKED)
def test_r8_a_provider_that_does_not_answer_leaves_the_payment_as_it_is(tmp_path: Path, provider: str) -> None:
    """R8: a time-out or a refusal deletes nothing and concludes nothing; it is asked again on schedule."""

    async def run() -> None:
        async with asking(tmp_path, **{f"{provider}_base_url": "http://127.0.0.1:9"}) as (t, _, _book):
            await call_back(t, provider)
            await t.settled()
            assert [p.status for p in await t.rows(payments)] == ["pending"]
            question = (await t.rows(messages, messages.c.topic == "ask"))[0]
            assert (question.state, question.tries, question.last_error) == ("pending", 1, "refused")
            tries = await t.rows(outbox_tables.tries, outbox_tables.tries.c.message_id == question.id)
            assert [one.error for one in tries] == ["refused"]

    asyncio.run(run())


def test_a_question_never_answered_is_put_before_a_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the schedule is spent, the payment stays pending and stands in the attention list."""
    monkeypatch.setattr(ask, "DELAYS_MS", ())

    async def run() -> None:
        async with asking(tmp_path, moneroo_base_url="http://127.0.0.1:9") as (t, _, _book):
            await call_back(t, "moneroo")
            await t.settled()
            assert [p.status for p in await t.rows(payments)] == ["pending"]
            assert [a.reason for a in await t.rows(attention)] == ["never_answered"]
            row = (await t.rows(callbacks))[0]
            again = await replay.replay(t.app, row.id, "the provider is back", "test")
            assert again == {"id": row.id, "status": "processed", "questions": 1}
            await t.settled()
            assert [m.tries for m in await t.rows(messages, messages.c.topic == "ask")] == [2]

    asyncio.run(run())


def test_a_wrong_or_missing_ebilling_token_is_401(tmp_path: Path) -> None:
    """The secret token in the address is the account: without it, nothing is even read."""

    async def run() -> None:
        async with asking(tmp_path) as (t, sandbox, _):
            for path in (
                "/webhooks/ebilling",
                "/webhooks/ebilling/",
                "/webhooks/ebilling/wrong",
                "/webhooks/ebilling/é",
            ):
                assert await t.post(path, b"reference=1&amount=1&billingid=5") == (401, b"")
            assert await t.count(callbacks) == 0 and not sandbox.asked
            aside = await t.rows(quarantine)
            assert {row.reason for row in aside} == {"wrong_token"} and len(aside) == 2
            assert not any("wrong" in row.account_id for row in aside)
            mistyped = next(row for row in aside if row.account_id == f"token:{digest_of('wrong').hex()}")
            with pytest.raises(Refusal, match="No account"):
                await replay.replay(t.app, mistyped.id, "not set yet", "test")
        async with asking(tmp_path, ebilling_callback_tokens="token-in-the-address,wrong") as (t, sandbox, _):
            await replay.replay(t.app, mistyped.id, "the token is set now", "test")
            await eventually(lambda: sum(sandbox.asked.values()) >= 1)

    asyncio.run(run())


def test_any_number_of_unknown_tokens_share_one_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger who tries another token each time cannot fill the disk: the quarantine stays as small as ever."""
    monkeypatch.setattr("service.callbacks.quarantine.ROWS_MAX", 5)

    async def run() -> None:
        async with asking(tmp_path) as (t, _, _book):
            for n in range(30):
                assert (await t.post(f"/webhooks/ebilling/guess{n}", b"billingid=1"))[0] == 401
            assert 5 <= await t.count(quarantine) <= 6

    asyncio.run(run())


def test_a_hints_reference_never_beats_the_providers_own(tmp_path: Path) -> None:
    """Monetbil's weak sign covers values and not names: what a forged hint calls the order is not what is told."""

    async def run() -> None:
        async with asking(tmp_path) as (t, _, book):
            entry = t.app.registry.default("monetbil")
            assert entry is not None
            forged = {"reference": "CMD-1", "amount": "5000", "form.payment_ref": "VICTIM", "form.item_ref": "VICTIM"}
            built = build("monetbil", "success", entry.credentials, t.app.clock(), forged)
            book.write("monetbil", built.payment, Entry("succeeded", 5000, "XAF", "CMD-1"))
            status, _ = await t.post("/webhooks/monetbil", built.body, dict(built.headers))
            assert status == 200
            await t.shop.wait_for(2)
            assert t.shop.types == ["payment.pending", "payment.succeeded"]
            assert [event["data"]["payment"]["reference"] for event in t.shop.events] == [None, "CMD-1"]

    asyncio.run(run())


def test_an_answer_that_has_no_place_waits_for_it(tmp_path: Path) -> None:
    """Captured, under a reference of ours that is not known yet: the callback waits, and can be run again."""

    async def run() -> None:
        async with asking(tmp_path) as (t, sandbox, book):
            ours = f"caisse-{t.app.installation}-try_9"
            number = await _number(t, "moneroo")
            book.write("moneroo", number, Entry("succeeded", 5000, "XOF", ours))
            built = build("moneroo", "payment.success", t.app.registry.default("moneroo").credentials, t.app.clock(),  # type: ignore[union-attr]
                          {"reference": "CMD-1", "data.amount": None, "data.currency": None})  # fmt: skip
            assert (await t.post("/webhooks/moneroo", built.body, dict(built.headers)))[0] == 200
            await t.settled()
            assert await t.count(payments) == 0
            row = (await t.rows(callbacks))[0]
            assert (row.status, row.reason) == ("deferred", "not_known_yet")
            assert ours in {wait.reference for wait in await t.rows(waits)}
            asked = sum(sandbox.asked.values())
            await replay.replay(t.app, row.id, "ask again", "test")
            await eventually(lambda: sum(sandbox.asked.values()) > asked)
            await t.settled()
            assert (await t.rows(callbacks))[0].status == "deferred"

    asyncio.run(run())


def test_monetbil_by_get_and_unsigned_only_where_the_account_allows_it(tmp_path: Path) -> None:
    """Its service may notify by GET; without a sign it is 401, unless allowed, and then it only makes us ask."""

    async def run() -> None:
        async with asking(tmp_path, monetbil_allow_unsigned="true") as (t, sandbox, book):
            number = await _number(t, "monetbil")
            book.write("monetbil", number, Entry("succeeded", 5000, "XAF", "CMD-1"))
            assert (await call_back(t, "monetbil", method="GET"))[:2] == (200, b"received")
            await t.shop.wait_for(2)
            asked = sum(sandbox.asked.values())
            status, _ = await t.post("/webhooks/monetbil", f"transaction_id={number}&status=success&amount=9".encode())
            assert status == 200
            await eventually(lambda: sum(sandbox.asked.values()) > asked)
            await t.settled()
            assert [p.captured_minor for p in await t.rows(payments)] == [5000]
        async with asking(tmp_path / "strict") as (t, sandbox, _):
            status, _ = await t.post("/webhooks/monetbil", b"transaction_id=1&status=success&amount=9")
            assert status == 401 and not sandbox.asked

    (tmp_path / "strict").mkdir()
    asyncio.run(run())
