"""Asking for payments: failover, codes, cancelling, deaths in between, and what is never done twice."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from service.commands import accounts
from service.database import Busy, StorageFull
from service.errors import Refusal
from service.payments.asking import question
from service.payments.facts import Reason
from service.payments.tables import decisions, payments
from service.sandbox.bank import Payer
from service.schema import outbox_tables
from tests.support.paying import BUYER, SIX, Counter, counter
from tests.support.service import stripe_event, stripe_signature

MINUTE_MS = 60_000
CHAIN = ("paystack", "fedapay")
BY_PHONE = {"currency": "XOF", "country": "CI", "operator": "mtn", "payer_phone": "+2250545000001", "customer": BUYER}


def test_r1_the_second_provider_is_asked_for_the_same_money(tmp_path: Path) -> None:
    """Paystack counts francs ×100, FedaPay in francs: connections refused by the first, and 5,000 F are paid."""

    async def run() -> None:
        async with counter(tmp_path, *CHAIN) as c:
            c.sandbox.trouble.on("paystack", "refuse")
            id_ = await c.till.app.desk.create(c.wish(5_000, providers=CHAIN, **BY_PHONE))
            first, second = await c.attempts(id_)
            assert (first.provider, first.state, first.reason) == ("paystack", "not_sent", "refused")
            await c.pay(id_)
            row = await c.payment(id_)
            assert (row.status, row.provider, row.captured_minor) == ("succeeded", "fedapay", 5_000)
            (charge,) = await c.charged(id_)
            assert (charge.provider, charge.captured_minor, charge.currency) == ("fedapay", 5_000, "XOF")
            assert first.reference != second.reference and first.key != second.key
            assert c.till.shop.types == ["payment.pending", "payment.requires_action", "payment.succeeded"]

    asyncio.run(run())


@pytest.mark.parametrize("kind", ["timeout_after", "reset", "error_5xx_after", "garbage_2xx"])
def test_r2_charged_without_an_answer_is_never_charged_elsewhere(tmp_path: Path, kind: str) -> None:
    """The first provider took it and said nothing: unknown, found by asking, and recorded under who really holds it."""

    async def run() -> None:
        async with counter(tmp_path, *CHAIN) as c:
            c.till.app.client.limit_ms = 500
            c.sandbox.trouble.on("paystack", kind, times=1)
            id_ = await c.till.app.desk.create(c.wish(5_000, providers=CHAIN, **BY_PHONE))
            assert [(a.provider, a.state) for a in await c.attempts(id_)] == [("paystack", "unknown")]
            assert (await c.payment(id_)).status == "unknown"
            await c.settle()
            await c.go_on(MINUTE_MS)
            row = await c.payment(id_)
            assert (row.status, row.provider, row.captured_minor) == ("succeeded", "paystack", 5_000)
            assert len(await c.attempts(id_)) == len(await c.charged(id_)) == 1

    asyncio.run(run())


def test_r2_a_decline_is_not_tried_elsewhere(tmp_path: Path) -> None:
    """The payer has no money: another provider would only ask the same person again."""

    async def run() -> None:
        payer = Payer("declines", Reason.INSUFFICIENT_FUNDS)
        async with counter(tmp_path, *CHAIN, anybody=payer) as c:
            id_ = await c.till.app.desk.create(c.wish(5_000, providers=CHAIN, **BY_PHONE))
            await c.pay(id_)
            await c.go_on(MINUTE_MS)  # Paystack calls nobody back about a decline
            row = await c.payment(id_)
            assert (row.status, row.failure_reason, len(await c.attempts(id_))) == ("failed", "insufficient_funds", 1)
            assert await c.charged(id_) == []

    asyncio.run(run())


def test_r8_a_provider_that_times_out_leaves_a_row_that_a_person_can_see(tmp_path: Path) -> None:
    """Nothing at all comes back and nothing was charged: the row stays, and after the grace time it is known."""

    async def run() -> None:
        async with counter(tmp_path, "paystack") as c:
            c.till.app.client.limit_ms = 300
            c.sandbox.trouble.on("paystack", "timeout_before")
            id_ = await c.till.app.desk.create(c.wish(5_000, providers=("paystack",), **BY_PHONE))
            c.sandbox.trouble.off()
            await c.go_on(MINUTE_MS)
            assert (await c.payment(id_)).status == "unknown", "not before the grace time"
            await c.go_on(10 * MINUTE_MS)
            await c.go_on(60 * MINUTE_MS)
            row = await c.payment(id_)
            assert (row.status, (await c.attempts(id_))[0].state) == ("failed", "not_sent")

    asyncio.run(run())


@pytest.mark.parametrize("canceled", [False, True])
def test_what_fedapay_declined_and_took_after_all_is_found_without_a_callback(tmp_path: Path, canceled: bool) -> None:
    """Declined or cancelled is not the end there: it is asked about for a day."""

    async def run() -> None:
        async with counter(tmp_path, "fedapay") as c:
            c.sandbox.trouble.on("fedapay", "silence")
            id_ = await c.till.app.desk.create(c.usual("fedapay"))
            (charge,) = c.sandbox.bank.of("fedapay")
            assert c.sandbox.bank.cancel(charge) if canceled else c.sandbox.bank.decline(charge)
            await c.go_on(MINUTE_MS)
            assert (await c.payment(id_)).status == ("canceled" if canceled else "failed")
            assert c.sandbox.bank.pay(charge, late=True)
            await c.go_on(60 * MINUTE_MS)
            row = await c.payment(id_)
            assert (row.status, row.captured_minor) == ("succeeded", 5_000)

    asyncio.run(run())


def test_after_a_day_nobody_asks_any_more(tmp_path: Path) -> None:
    """What has ended at FedaPay costs a handful of questions, not one a day for a month."""

    async def run() -> None:
        async with counter(tmp_path, "fedapay") as c:
            c.sandbox.trouble.on("fedapay", "silence")
            await c.till.app.desk.create(c.usual("fedapay"))
            (charge,) = c.sandbox.bank.of("fedapay")
            assert c.sandbox.bank.decline(charge)
            for _ in range(12):
                await c.go_on(12 * 60 * MINUTE_MS)
            rows = await c.till.rows(outbox_tables.messages, outbox_tables.messages.c.topic == "sync")
            assert [row.state for row in rows] == ["done"]
            assert rows[0].tries <= 8

    asyncio.run(run())


# --- the payer's code ---------------------------------------------------------------------------------


def _by_code(c: Counter, **more: object) -> object:
    return c.wish(5_000, providers=("paystack",), currency="GHS", country="GH", operator="vodafone",
                  payer_phone="+233201234567", customer=BUYER, **more)  # fmt: skip


def test_a_wrong_code_is_asked_for_again_and_the_right_one_pays(tmp_path: Path) -> None:
    """The provider's own words are shown each time."""

    async def run() -> None:
        async with counter(tmp_path, "paystack") as c:
            id_ = await c.till.app.desk.create(_by_code(c))
            (attempt,) = await c.attempts(id_)
            action = json.loads(attempt.action)
            assert (action["type"], bool(action["display_text"])) == ("otp", True), action
            c.sandbox.trouble.on("paystack", "otp_wrong", times=1)
            await c.till.app.desk.otp(id_, "123456")
            (attempt,) = await c.attempts(id_)
            assert (attempt.state, attempt.otp_tries) == ("requires_action", 1)
            await c.pay(id_)
            assert (await c.payment(id_)).status == "succeeded"

    asyncio.run(run())


def test_codes_are_counted_and_a_lost_one_is_unknown(tmp_path: Path) -> None:
    """After five there is no sixth; a connection lost while one was submitted proves nothing, and is asked about."""

    async def run() -> None:
        async with counter(tmp_path, "paystack") as c:
            desk = c.till.app.desk
            first = await desk.create(_by_code(c))
            c.sandbox.trouble.on("paystack", "otp_wrong")
            for _ in range(5):
                if (await c.payment(first)).status == "requires_action":
                    await desk.otp(first, "999999")
            with pytest.raises(Refusal) as refused:
                await desk.otp(first, "999999")
            assert refused.value.code in ("too_many_otps", "not_waiting_for_otp")
            c.sandbox.trouble.off()
            second = await desk.create(_by_code(c))
            c.till.app.client.limit_ms = 300
            c.sandbox.trouble.on("paystack", "timeout_after", "otp", times=1)
            await desk.otp(second, "123456")
            assert (await c.payment(second)).status == "unknown"
            await c.settle()
            await c.go_on(MINUTE_MS)
            assert (await c.payment(second)).status == "succeeded"
            assert len(await c.charged(second)) == 1

    asyncio.run(run())


def test_a_code_that_never_left_is_not_counted(tmp_path: Path) -> None:
    """Connection refused: the payer is told to try again, and nothing has changed."""

    async def run() -> None:
        async with counter(tmp_path, "paystack") as c:
            id_ = await c.till.app.desk.create(_by_code(c))
            c.sandbox.trouble.on("paystack", "refuse")
            with pytest.raises(Refusal, match="try again"):
                await c.till.app.desk.otp(id_, "123456")
            c.sandbox.trouble.off()
            (attempt,) = await c.attempts(id_)
            assert (attempt.state, attempt.otp_tries) == ("requires_action", 0)
            await c.pay(id_)
            assert (await c.payment(id_)).status == "succeeded"

    asyncio.run(run())


# --- cancelling, deciding -----------------------------------------------------------------------------


@pytest.mark.parametrize("provider", ["stripe", "fedapay"])
def test_cancelling_asks_the_provider_first(tmp_path: Path, provider: str) -> None:
    """`canceled` is the provider's word. When the call is lost it stays `canceling` until the provider has answered."""

    async def run() -> None:
        async with counter(tmp_path, provider, anybody=Payer("waits")) as c:
            c.till.app.client.limit_ms = 500
            desk = c.till.app.desk
            plain, lost = [await desk.create(c.usual(provider)) for _ in range(2)]
            await desk.cancel(plain, c.by)
            assert (await c.attempts(plain))[0].state in ("canceled", "expired")
            c.sandbox.trouble.on(provider, "error_5xx_before", "cancel", times=1)
            await desk.cancel(lost, c.by)
            assert (await c.attempts(lost))[0].state == "canceling"
            assert (await c.payment(lost)).status == "pending"
            await c.go_on(MINUTE_MS)
            await c.go_on(10 * MINUTE_MS)
            assert (await c.payment(lost)).status in ("canceled", "expired")
            with pytest.raises(Refusal):
                await desk.cancel(plain, c.by)

    asyncio.run(run())


def test_money_beats_a_wish_to_cancel(tmp_path: Path) -> None:
    """The payer was faster."""

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            id_ = await c.till.app.desk.create(c.usual("stripe"))
            c.sandbox.trouble.on("stripe", "silence")
            c.sandbox.visit(json.loads((await c.attempts(id_))[0].action)["url"], "pay")
            await c.till.app.desk.cancel(id_, c.by)
            await c.go_on(MINUTE_MS)
            assert (await c.payment(id_)).status == "succeeded"

    asyncio.run(run())


def test_only_a_named_operator_ends_what_cannot_be_asked(tmp_path: Path) -> None:
    """Moneroo's create was lost: it cannot be asked by our reference. A person looks there, and says what they saw."""

    async def run() -> None:
        async with counter(tmp_path, "moneroo") as c:
            c.till.app.client.limit_ms = 300
            desk = c.till.app.desk
            c.sandbox.trouble.on("moneroo", "silence")
            c.sandbox.trouble.on("moneroo", "timeout_after", times=2)
            paid, dead = [await desk.create(c.usual("moneroo")) for _ in range(2)]
            await c.go_on(24 * 60 * MINUTE_MS)
            assert (await c.payment(paid)).status == "unknown"
            assert "cannot_be_asked" in await c.reasons(paid)
            with pytest.raises(Refusal, match="why"):
                await desk.decide(paid, "succeeded", " ", c.by)
            await desk.decide(paid, "succeeded", "seen in the dashboard", c.by)
            await desk.decide(dead, "not_sent", "not there", c.by)
            row = await c.payment(paid)
            assert (row.status, row.captured_minor, row.exceptions) == ("succeeded", 5_000, "")
            assert (await c.payment(dead)).status == "failed"
            assert await c.reasons(paid) == set()

    asyncio.run(run())


# --- deaths in between --------------------------------------------------------------------------------


def test_a_worker_that_dies_while_submitting_leaves_an_unknown_that_is_asked_about(tmp_path: Path) -> None:
    """Killed between the call and writing it down, and started again: nothing is sent twice, the truth is found."""

    async def run() -> None:
        async with counter(tmp_path, "paystack") as c:
            app = c.till.app

            async def never(*_: object) -> None:
                await asyncio.sleep(3_600)

            app.desk._record_now = never  # type: ignore[method-assign] # what a kill leaves undone
            task = asyncio.create_task(app.desk.create(c.wish(5_000, providers=("paystack",), **BY_PHONE)))
            while not c.sandbox.bank.of("paystack"):  # noqa: ASYNC110 - what is waited for is on the other side
                await asyncio.sleep(0.01)
            (attempt,) = await app.db.read(lambda tx: tx.execute(select(decisions.c.attempt_id)).all())
            assert attempt
            await c.sandbox.tick()
            c.clock.ahead_ms += MINUTE_MS
            app.nudge()
            await c.till.settled()
            task.cancel()
            rows = await c.till.rows(payments)
            assert [(row.status, row.captured_minor) for row in rows] == [("succeeded", 5_000)]
            assert len(c.sandbox.bank.of("paystack")) == 1

    asyncio.run(run())


# --- whose, and how much ------------------------------------------------------------------------------


def test_r4_less_than_was_asked_for_is_no_success(tmp_path: Path) -> None:
    """The provider took 1,000 less: the merchant hears `payment.attention`, never `payment.succeeded`."""

    async def run() -> None:
        async with counter(tmp_path, "paystack") as c:
            c.sandbox.trouble.on("paystack", "wrong_amount", minor=-1_000)
            id_ = await c.till.app.desk.create(c.wish(5_000, providers=("paystack",), **BY_PHONE))
            await c.pay(id_)
            row = await c.payment(id_)
            assert (row.status, row.exceptions, row.captured_minor) == ("succeeded", "under", 4_000)
            assert "payment.attention" in c.till.shop.types and "payment.succeeded" not in c.till.shop.types
            assert await c.reasons(id_) == {"under"}

    asyncio.run(run())


def test_r10_nobody_else_can_mark_a_payment_paid(tmp_path: Path) -> None:
    """Another merchant's account, its callbacks well signed, says that our payment is paid: it is not about ours."""

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            id_ = await c.till.app.desk.create(c.usual("stripe"))
            (attempt,) = await c.attempts(id_)
            other = await c.till.create_merchant("Koffi")
            credentials = {"secret_key": "sk_test_other", "webhook_secrets": ["whsec_of_the_other"]}
            account = await accounts.add(
                c.till.app, merchant=other.id, provider="stripe", credentials=credentials, live=False
            )
            paid = stripe_event("payment_intent.succeeded", intent=attempt.provider_reference)
            paid["data"]["object"]["metadata"] = {"caisse_reference": attempt.reference, "reference": attempt.reference}
            body = json.dumps(paid).encode()
            headers = {"Stripe-Signature": stripe_signature(body, "whsec_of_the_other")}
            status, _ = await c.till.post(f"/webhooks/stripe/{account['id']}", body, headers)
            await c.till.settled()
            assert status == 200
            row = await c.payment(id_)
            assert (row.status, row.captured_minor) == ("requires_action", 0)

    asyncio.run(run())


def test_r11_waiting_is_not_failing_and_a_success_stays_one(tmp_path: Path) -> None:
    """`requires_payment_method` after a declined try leaves a Stripe payment open, and nothing late takes a success."""

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            id_ = await c.till.app.desk.create(c.usual("stripe"))
            url = json.loads((await c.attempts(id_))[0].action)["url"]
            c.sandbox.visit(url, "fail")
            await c.settle()
            assert (await c.payment(id_)).status == "requires_action"
            c.sandbox.trouble.on("stripe", "reordered", "callback")
            c.sandbox.trouble.on("stripe", "duplicate", "callback")
            c.sandbox.visit(url, "fail")
            c.sandbox.visit(url, "pay")
            await c.settle()
            assert (await c.payment(id_)).status == "succeeded"
            assert c.till.shop.types[-1] == "payment.succeeded"

    asyncio.run(run())


# --- what a question must not do, and what it must ----------------------------------------------------


@pytest.mark.parametrize("provider", SIX)
def test_asking_takes_nothing_from_who_has_yet_to_pay(tmp_path: Path, provider: str) -> None:
    """ "Not yet" leaves the instruction where it is, tells the merchant nothing new, and the payer pays afterwards."""

    async def run() -> None:
        async with counter(tmp_path, provider, anybody=Payer("waits")) as c:
            id_ = await c.till.app.desk.create(c.usual(provider))
            await c.settle(1)
            before = await c.attempts(id_)
            told = list(c.till.shop.types)
            assert before[0].state == "requires_action"
            await c.till.app.desk.sync(id_)
            await c.go_on(MINUTE_MS)
            after = await c.attempts(id_)
            assert (after[0].state, after[0].action) == ("requires_action", before[0].action)
            assert c.till.shop.types == told
            for charge in c.sandbox.bank.of(provider):
                c.sandbox.bank.pay(charge)
            await c.settle()
            await c.go_on(10 * MINUTE_MS)
            assert (await c.payment(id_)).status == "succeeded"

    asyncio.run(run())


def test_a_code_can_still_be_typed_after_the_sweep_has_asked(tmp_path: Path) -> None:
    """Paystack says `ongoing` while it waits for the code."""

    async def run() -> None:
        async with counter(tmp_path, "paystack") as c:
            id_ = await c.till.app.desk.create(_by_code(c))
            await c.go_on(MINUTE_MS)
            await c.till.app.desk.sync(id_)
            await c.pay(id_)
            assert (await c.payment(id_)).status == "succeeded"

    asyncio.run(run())


def test_cancelling_an_unknown_does_not_hide_it(tmp_path: Path) -> None:
    """The provider goes on failing: a person is told, and can end it."""

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            c.till.app.client.limit_ms = 300
            c.sandbox.trouble.on("stripe", "timeout_before", "*")
            id_ = await c.till.app.desk.create(c.usual("stripe"))
            await c.till.app.desk.cancel(id_, c.by)
            await c.go_on(MINUTE_MS)
            await c.go_on(15 * MINUTE_MS)
            await c.go_on(60 * MINUTE_MS)
            assert (await c.attempts(id_))[0].state == "canceling"
            assert await c.reasons(id_) == {"still_unknown"}
            await c.till.app.desk.decide(id_, "not_sent", "nothing in the dashboard", c.by)
            assert (await c.payment(id_)).status == "failed"
            assert await c.reasons(id_) == set()

    asyncio.run(run())


def test_every_move_of_our_payments_is_counted(tmp_path: Path) -> None:
    """Five found paid by the sweep are five in the metrics."""

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            c.sandbox.trouble.on("stripe", "silence")
            for _ in range(5):
                await c.till.app.desk.create(c.usual("stripe"))
            for charge in c.sandbox.bank.of("stripe"):
                c.sandbox.bank.pay(charge)
            await c.go_on(MINUTE_MS)
            async with c.till.client.get(c.till.url + "/metrics") as scraped:
                text = await scraped.text()
            assert 'payments_total{gateway="stripe",status="succeeded"} 5.0' in text
            assert 'payments_total{gateway="stripe",status="requires_action"} 5.0' in text

    asyncio.run(run())


def test_the_instruction_survives_a_writer_that_has_no_room(tmp_path: Path) -> None:
    """The provider's answer is in no other place: it is written as soon as it can be."""

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            app, refusals = c.till.app, iter((Busy("full"), StorageFull("full")))
            write = app.db.write

            async def busy(work: Any, *arguments: Any, **more: Any) -> Any:
                if work == app.desk._record and (refusal := next(refusals, None)) is not None:
                    raise refusal
                return await write(work, *arguments, **more)

            app.db.write = busy  # type: ignore[method-assign] # what a full queue does
            id_ = await app.desk.create(c.usual("stripe"))
            assert json.loads((await c.attempts(id_))[0].action)["type"] == "redirect"

    asyncio.run(run())


def test_a_provider_that_takes_its_success_back_is_put_before_a_person(tmp_path: Path) -> None:
    """An operator saw the money; the provider, asked again, says it failed: nothing changes, and somebody looks."""

    async def run() -> None:
        async with counter(tmp_path, "paystack") as c:
            c.till.app.client.limit_ms = 300
            c.sandbox.trouble.on("paystack", "timeout_after", times=1)
            c.sandbox.trouble.on("paystack", "silence")
            c.sandbox.bank.anybody = Payer("declines")
            id_ = await c.till.app.desk.create(c.wish(5_000, providers=("paystack",), **BY_PHONE))
            await c.till.app.desk.decide(id_, "succeeded", "the payer showed me", c.by)
            (attempt,) = await c.attempts(id_)
            await c.sandbox.tick(3)
            row = dict(attempt._mapping)
            promise = question(row, "cb_test", c.clock())
            await c.till.app.db.write(c.till.app.queue.enqueue, [promise], c.clock())
            c.till.app.nudge()
            await c.settle()
            assert (await c.payment(id_)).status == "succeeded"
            assert "provider_disagrees" in await c.reasons(id_)

    asyncio.run(run())


def test_a_payment_that_somebody_else_started_is_not_cancelled_here(tmp_path: Path) -> None:
    """Adopted: it is theirs to cancel."""

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            assert await c.till.stripe(stripe_event("payment_intent.processing")) == 200
            await c.till.settled()
            (row,) = await c.till.rows(payments)
            with pytest.raises(Refusal, match="not started here"):
                await c.till.app.desk.cancel(row.id, c.by)

    asyncio.run(run())
