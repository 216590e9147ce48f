"""What providers list against what is known here: found, told once, healed, closed; by pages that may fail."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import delete, insert, update

from service import commands
from service.errors import Refusal
from service.jobs.reconcile import TOPIC, UNANSWERED, reconcile
from service.ledger.tables import differences
from service.merchants.tables import events
from service.payments.asking import SYNC
from service.payments.tables import aliases, attempts, attention, facts, payments
from service.providers import stripe_wire
from service.providers.base import Unclear
from service.schema import outbox_tables
from tests.support.paying import Counter, counter

HOUR_MS = 3_600_000
LISTING = ("stripe", "paystack", "fedapay")
MESSAGES = outbox_tables.messages


async def by_the_clock(c: Counter, **more: Any) -> Any:
    """The job's run of this moment, with all that it promises done."""
    now_ms = c.clock()
    tick: Any = SimpleNamespace(due_at_ms=now_ms, from_ms=now_ms - 24 * HOUR_MS, now_ms=now_ms, dry_run=False)
    tick.__dict__.update(more)
    said = await reconcile(c.till.app, tick)
    await c.till.settled()
    return said


async def by_hand(c: Counter, **arguments: Any) -> Any:
    return await commands.run(c.till.app, "reconcile", arguments)


async def paid(c: Counter, provider: str) -> str:
    id_ = str(await c.till.app.desk.create(c.usual(provider)))
    await c.pay(id_)
    assert (await c.payment(id_)).status == "succeeded"
    return id_


async def rows(c: Counter) -> list[tuple[str, str, str | None, bool]]:
    """(kind, provider, payment, open)"""
    found = await c.till.rows(differences)
    return sorted((row.kind, row.provider, row.payment_id, row.closed_at_ms is None) for row in found)


async def matters(c: Counter) -> Sequence[str]:
    found = await c.till.rows(attention, attention.c.reason == "reconcile_differs", attention.c.closed_at_ms.is_(None))
    return sorted(row.subject for row in found)


async def write(c: Counter, *statements: Any) -> None:
    def work(tx: Any) -> None:
        for statement in statements:
            tx.execute(statement)

    await c.till.app.db.write(work)


async def nothing(*_: Any) -> Unclear:
    """Asked alone, the provider says nothing: what differs does not heal meanwhile."""
    return Unclear("timeout")


def test_differences_are_found_told_once_and_closed(tmp_path: Path) -> None:
    """
    One provider says another amount, one does not list a payment, one lists one that is not here: three matters, one
    event for the day; found again they stay as they are, and when all is right again they are gone.
    """

    async def run() -> None:
        async with counter(tmp_path, *LISTING, events="ledger.reconciled") as c:
            less, gone, ours = [await paid(c, provider) for provider in LISTING]
            c.clock.ahead_ms += 2 * HOUR_MS
            said = await by_hand(c)
            assert [(one["provider"], one["state"], one["listed"]) for one in said["accounts"]] == [
                (provider, "done", 1) for provider in sorted(LISTING)
            ]
            assert said["differences"] == [] and not await rows(c)

            c.till.app.syncer._ask = nothing  # type: ignore[method-assign]
            bank = c.sandbox.bank
            (at_stripe,), (at_paystack,) = await c.charged(less), await c.charged(gone)
            at_stripe.captured_minor = 4_000
            del bank._charges["paystack", at_paystack.id]
            (at_fedapay,) = await c.charged(ours)
            past_caisse = replace(at_fedapay, id="777", reference="shop-7", names={"trx": "trx_of_another"})
            bank._charges["fedapay", "777"] = past_caisse

            c.sandbox.trouble.on("paystack", "error_5xx_before", "fetch", times=1)
            assert (await by_the_clock(c))["accounts"] == 3
            assert not await c.till.count(events, events.c.type == "ledger.reconciled"), "one is not through"
            await c.go_on(2 * 60_000)
            three = [
                ("amount", "stripe", less, True),
                ("missing_here", "fedapay", None, True),
                ("missing_there", "paystack", gone, True),
            ]
            assert await rows(c) == three
            (stranger,) = await c.till.rows(differences, differences.c.kind == "missing_here")
            assert await matters(c) == sorted([less, gone, stranger.id])
            assert (stranger.ours_minor, stranger.theirs_minor, stranger.currency) == (0, 5_000, "XOF")
            (told,) = [one for one in c.till.shop.events if one["type"] == "ledger.reconciled"]
            assert told["data"]["counts"] == {"amount": 1, "missing_here": 1, "missing_there": 1}
            assert told["data"]["count"] == len(told["data"]["differences"]) == 3
            asked = await c.till.rows(MESSAGES, MESSAGES.c.topic == SYNC, MESSAGES.c.id.contains(TOPIC))
            assert {row.subject for row in asked} == {(await c.attempts(id_))[0].id for id_ in (less, gone)}

            # The same day again promises nothing, and by hand it finds what is known: no second event or matter.
            before = await c.till.rows(differences)
            await write(c, update(attention).where(attention.c.subject == less).values(closed_at_ms=c.clock()))
            said = await by_the_clock(c)
            assert (said["differences"], said["listed"]) == (3, 6)
            said = await by_hand(c)
            assert (said["open"], await c.till.rows(differences)) == (3, before)
            assert await matters(c) == sorted([gone, stranger.id]), "a person has put that one aside"
            assert await c.till.count(events, events.c.type == "ledger.reconciled") == 1

            at_stripe.captured_minor = 5_000
            bank._charges["paystack", at_paystack.id] = at_paystack
            (attempt,) = await c.attempts(ours)
            name = {"account_id": "acc_fedapay", "reference": stranger.provider_reference, "attempt_id": attempt.id}
            await write(c, insert(aliases).values(name))
            assert (await by_hand(c))["differences"] == []
            assert await rows(c) == [(*row[:3], False) for row in three]
            assert await matters(c) == []

    asyncio.run(run())


def test_money_that_nobody_here_heard_of_is_asked_for(tmp_path: Path) -> None:
    """Captured there, and waiting here since all callbacks and questions were lost: found, asked about, and healed."""

    async def run() -> None:
        async with counter(tmp_path, "fedapay") as c:
            id_ = await paid(c, "fedapay")
            (attempt,) = await c.attempts(id_)
            await write(
                c,
                delete(facts).where(facts.c.attempt_id == attempt.id, facts.c.kind == "captured"),
                update(attempts).where(attempts.c.id == attempt.id).values(state="pending"),
                update(payments).where(payments.c.id == id_).values(status="pending", captured_minor=0),
                delete(MESSAGES).where(MESSAGES.c.topic == SYNC),
            )
            c.clock.ahead_ms += 2 * HOUR_MS
            await by_the_clock(c)
            assert [row[:3] for row in await rows(c)] == [("status", "fedapay", id_)]
            row = await c.payment(id_)
            assert (row.status, row.captured_minor) == ("succeeded", 5_000)
            assert (await by_hand(c))["open"] == 0
            assert await rows(c) == [("status", "fedapay", id_, False)]
            assert await matters(c) == []

    asyncio.run(run())


def test_pages_go_on_where_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A provider that stops answering in the midst of its list: nothing is concluded from half of it, and the rest is read
    later, from the page where it was. Whatever is not in any page is missing then.
    """
    monkeypatch.setattr(stripe_wire, "INTENTS_LIMIT", 1)

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            first, _, _ = [await paid(c, "stripe") for _ in range(3)]
            (gone,) = await c.charged(first)
            del c.sandbox.bank._charges["stripe", gone.id]
            c.clock.ahead_ms += 2 * HOUR_MS
            real, pages = c.till.app.calls["stripe"].list, []

            def listing(span: Any, credentials: Any) -> Any:
                pages.append(span.cursor)
                if len(pages) == 2:
                    c.sandbox.trouble.on("stripe", "error_5xx_before", "fetch", times=1)
                assert real is not None
                return real(span, credentials)

            object.__setattr__(c.till.app.calls["stripe"], "list", listing)
            try:
                said = await by_hand(c)
                (account,) = said["accounts"]
                assert (account["state"], account["error"]) == ("tried again later", "provider_error")
                assert (account["listed"], await rows(c)) == (1, [])
                await c.go_on(2 * 60_000)
                await c.till.settled()
            finally:
                object.__setattr__(c.till.app.calls["stripe"], "list", real)
            assert pages[0] is None and pages[1] == pages[2] is not None
            assert await rows(c) == [("missing_there", "stripe", first, True)]

    asyncio.run(run())


def test_who_cannot_be_listed_is_put_before_a_person(tmp_path: Path) -> None:
    """After hours without an answer a person hears of it, and the next list that is read to its end closes it."""

    async def run() -> None:
        async with counter(tmp_path, "paystack", "moneroo") as c:
            c.sandbox.trouble.on("paystack", "error_5xx_before", "fetch")
            said = await by_the_clock(c)
            assert said["accounts"] == 1, "moneroo has no list"
            for ahead_ms in (2 * 60_000, 15 * 60_000, 2 * HOUR_MS, 8 * HOUR_MS):
                await c.go_on(ahead_ms)
            (message,) = await c.till.rows(MESSAGES, MESSAGES.c.topic == TOPIC, MESSAGES.c.state == "dead")
            assert message.last_error == "provider_error"
            (matter,) = await c.till.rows(attention, attention.c.reason == UNANSWERED)
            assert matter.subject == "acc_paystack" and matter.closed_at_ms is None
            c.sandbox.trouble.off()
            assert (await by_hand(c, account="acc_paystack"))["accounts"][0]["state"] == "done"
            (matter,) = await c.till.rows(attention, attention.c.reason == UNANSWERED)
            assert matter.closed_at_ms is not None
            for arguments, code in (
                ({"account": "acc_moneroo"}, "cannot_list"),
                ({"account": "acc_nobody"}, "not_found"),
                ({"days": 0}, "bad_days"),
                ({"days": 91}, "bad_days"),
            ):
                with pytest.raises(Refusal) as no:
                    await by_hand(c, **arguments)
                assert no.value.code == code

    asyncio.run(run())


def test_a_dry_run_promises_nothing(tmp_path: Path) -> None:
    """It says how many accounts would be listed."""

    async def run() -> None:
        async with counter(tmp_path, *LISTING) as c:
            assert await by_the_clock(c, dry_run=True) == {"accounts": 3, "listed": 0, "differences": 0}
            assert not await c.till.count(MESSAGES, MESSAGES.c.topic == TOPIC)

    asyncio.run(run())
