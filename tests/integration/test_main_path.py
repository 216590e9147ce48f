"""A callback in over real HTTP, a signed webhook out, and every promise on the way."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import threading
import time
from pathlib import Path
from random import Random

import pytest
import standardwebhooks
import stripe
import structlog
import svix
from sqlalchemy import select

from outbox.message import Promise
from outbox.policy import Policy
from service.callbacks import intake, replay
from service.callbacks.tables import callbacks, quarantine
from service.callbacks.take import take
from service.errors import Refusal
from service.merchants.tables import endpoints, events
from service.payments.tables import aliases, attempts, attention, facts, payments
from service.schema import outbox_tables
from service.topics import CALLBACK_RETRIES_MS
from tests.support.service import STRIPE_SECRET, eventually, stripe_event, stripe_signature, till

messages = outbox_tables.messages
PAID = stripe_event("payment_intent.succeeded")


def test_a_callback_signed_by_stripes_own_package_reaches_the_merchant_verifiably(tmp_path: Path) -> None:
    """Signed by `stripe`, answered 200, told once; `standardwebhooks` and `svix` both verify what was received."""

    async def run() -> None:
        async with till(tmp_path) as t:
            body = json.dumps(PAID)
            stamp = int(time.time())
            signed = stripe.WebhookSignature._compute_signature(f"{stamp}.{body}", STRIPE_SECRET)
            status, _ = await t.post("/webhooks/stripe", body.encode(), {"Stripe-Signature": f"t={stamp},v1={signed}"})
            assert status == 200
            await t.shop.wait_for(1)
            headers, received = t.shop.got[0]
            assert t.merchant is not None and t.merchant.endpoint is not None
            secret = t.merchant.endpoint.secret
            for verifier in (standardwebhooks.Webhook(secret), svix.Webhook(secret)):
                verifier.verify(received, {name.lower(): value for name, value in headers.items()})
            event = json.loads(received)
            assert event["type"] == "payment.succeeded" and event["sequence"] == 1
            paid = event["data"]["payment"]
            assert (paid["amount"], paid["currency"], paid["amount_captured"]) == (5000, "XOF", 5000)
            assert (paid["origin"], paid["provider"], paid["provider_reference"]) == ("external", "stripe", "pi_1")
            assert headers["webhook-id"] == event["id"]

    asyncio.run(run())


def test_what_comes_while_a_piece_waits_for_the_writer_is_kept_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer is busy when the first comes, and nineteen more follow: one piece of work keeps all twenty."""
    kept: list[int] = []
    monkeypatch.setattr(
        intake, "take", lambda tx, queue, arrivals: kept.append(len(arrivals)) or take(tx, queue, arrivals)
    )

    async def run() -> None:
        async with till(tmp_path) as t:
            begun, go_on = threading.Event(), threading.Event()

            def hold(_: object) -> None:
                begun.set()
                go_on.wait(20)

            busy = asyncio.create_task(t.app.db.write(hold))
            await asyncio.to_thread(begun.wait, 20)
            first = asyncio.create_task(t.stripe(stripe_event("payment_intent.succeeded", "evt_0", intent="pi_0")))
            await eventually(lambda: t.app.db.stats.waiting == 1)
            more = [
                asyncio.create_task(t.stripe(stripe_event("payment_intent.succeeded", f"evt_{n}", intent=f"pi_{n}")))
                for n in range(1, 20)
            ]
            await eventually(lambda: len(t.app.intake._waiting) == 20)
            go_on.set()
            assert await asyncio.gather(first, *more) == [200] * 20
            await busy
            assert kept == [20]
            await t.settled()
            assert await t.count(callbacks, callbacks.c.status == "processed") == 20

    asyncio.run(run())


def test_64_simultaneous_copies_are_one_row_one_effect_and_64_times_200(tmp_path: Path) -> None:
    """The unique key decides, not who comes first: one callback, one fact, one event, one webhook."""

    async def run() -> None:
        async with till(tmp_path) as t:
            for number in range(3):
                event = stripe_event("payment_intent.succeeded", f"evt_{number}", intent=f"pi_{number}")
                assert await asyncio.gather(*(t.stripe(event) for _ in range(64))) == [200] * 64
            await t.shop.wait_for(3)
            await t.settled()
            rows = await t.rows(callbacks)
            assert [(row.seen_count, row.status) for row in rows] == [(64, "processed")] * 3
            assert await t.count(payments) == await t.count(facts) == await t.count(events) == 3
            assert len(t.shop.got) == 3

    asyncio.run(run())


def test_r3_two_callbacks_about_one_payment_both_count(tmp_path: Path) -> None:
    """R3: the object's id is no event key: a try that failed and then the success are two callbacks of one payment."""

    async def run() -> None:
        async with till(tmp_path) as t:
            failed = stripe_event("payment_intent.payment_failed", "evt_a")
            await t.stripe(failed)
            await t.settled()
            await t.stripe(stripe_event("payment_intent.succeeded", "evt_b"))
            await t.shop.wait_for(2)
            assert sorted(t.shop.types) == ["payment.requires_action", "payment.succeeded"]
            assert [row.status for row in await t.rows(payments)] == ["succeeded"]

    asyncio.run(run())


def test_three_events_about_one_capture_are_one_payment(tmp_path: Path) -> None:
    """Session, intent and charge: one capture, three names of one payment, told as succeeded once."""
    session = stripe_event(
        "checkout.session.completed", "evt_s", id="cs_1", object="checkout.session", payment_intent="pi_1",
        payment_status="paid", status="complete", amount_total=5000,
    )  # fmt: skip
    charge = stripe_event(
        "charge.succeeded", "evt_c", id="ch_1", object="charge", payment_intent="pi_1", captured=True,
        amount_captured=5000, paid=True, status="succeeded", amount_refunded=0,
    )  # fmt: skip

    async def run() -> None:
        async with till(tmp_path) as t:
            for event in (charge, session, PAID):
                assert await t.stripe(event) == 200
            await t.settled()
            assert await t.count(payments) == 1
            assert await t.count(facts, facts.c.kind == "captured") == 1
            assert {row.reference for row in await t.rows(aliases)} >= {"pi_1", "cs_1", "ch_1"}
            assert t.shop.types == ["payment.succeeded"]
            assert t.shop.events[0]["data"]["payment"]["amount_captured"] == 5000

    asyncio.run(run())


def test_r16_a_completed_session_that_is_not_paid_is_not_paid(tmp_path: Path) -> None:
    """R16: `checkout.session.completed` counts as paid only when `payment_status` says so."""
    unpaid = stripe_event(
        "checkout.session.completed", id="cs_1", object="checkout.session", payment_intent="pi_1",
        payment_status="unpaid", status="complete", amount_total=5000,
    )  # fmt: skip

    async def run() -> None:
        async with till(tmp_path) as t:
            await t.stripe(unpaid)
            await t.shop.wait_for(1)
            assert t.shop.types == ["payment.pending"]
            assert [row.captured_minor for row in await t.rows(payments)] == [0]

    asyncio.run(run())


def test_what_comes_before_the_merchant_waits_for_it(tmp_path: Path) -> None:
    """A callback without a merchant is deferred, and worked on by the transaction that creates the first one."""

    async def run() -> None:
        async with till(tmp_path, merchant=False) as t:
            assert await t.stripe(PAID) == 200
            await t.settled()
            assert [(r.status, r.reason) for r in await t.rows(callbacks)] == [("deferred", "no_merchant")]
            await t.create_merchant(url=t.shop.url)
            await t.shop.wait_for(1)
            assert t.shop.types == ["payment.succeeded"]
            assert [row.status for row in await t.rows(callbacks)] == ["processed"]

    asyncio.run(run())


def test_a_refund_that_overtakes_its_payment_waits_for_it(tmp_path: Path) -> None:
    """The refund comes first: kept, deferred, applied in the transaction that learns of the payment."""
    refund = stripe_event("refund.created", "evt_r", id="re_1", object="refund", charge="ch_1", payment_intent="pi_1",
                          amount=1000, status="succeeded")  # fmt: skip

    async def run() -> None:
        async with till(tmp_path) as t:
            await t.stripe(refund)
            await t.settled()
            assert [row.status for row in await t.rows(callbacks)] == ["deferred"]
            await t.stripe(PAID)
            await t.shop.wait_for(2)
            await t.settled()
            assert {row.status for row in await t.rows(callbacks)} == {"processed"}
            paid = (await t.rows(payments))[0]
            assert (paid.status, paid.refunded_minor) == ("partially_refunded", 1000)
            of_payments = [type_ for type_ in t.shop.types if type_.startswith("payment.")]
            assert sorted(of_payments) == ["payment.partially_refunded", "payment.succeeded"]

    asyncio.run(run())


def test_a_reference_of_ours_that_is_not_known_yet_is_deferred_not_failed(tmp_path: Path) -> None:
    """It may overtake our own call's answer (A10); a reference of another installation is adopted like any other."""

    async def run() -> None:
        async with till(tmp_path) as t:
            ours = {"reference": f"caisse-{t.app.installation}-try_1"}
            theirs = {"reference": "caisse-0badf00d-try_1"}
            await t.stripe(stripe_event("payment_intent.succeeded", metadata=ours))
            await t.stripe(stripe_event("payment_intent.succeeded", "evt_2", intent="pi_2", metadata=theirs))
            await t.settled()
            rows = sorted(await t.rows(callbacks), key=lambda row: row.key)
            assert [(r.status, r.reason) for r in rows] == [("deferred", "not_known_yet"), ("processed", None)]
            assert [p.provider_reference for p in await t.rows(payments)] == ["pi_2"]
            timer = await t.rows(messages, messages.c.topic == "deferred")
            assert timer[0].due_at_ms - (await t.rows(callbacks))[0].received_at_ms == 72 * 3_600_000

    asyncio.run(run())


def test_after_72_hours_a_deferred_callback_is_put_before_a_person(tmp_path: Path) -> None:
    """Nothing is given up by age: it stays deferred, and stands in the attention list."""
    lonely = stripe_event("refund.created", id="re_1", object="refund", charge="ch_9", amount=1, status="succeeded")

    async def run() -> None:
        async with till(tmp_path) as t:
            await t.stripe(lonely)
            await t.settled()
            await t.app.db.write(lambda tx: tx.execute(messages.update().where(messages.c.topic == "deferred")
                                                       .values(due_at_ms=1)))  # fmt: skip
            t.app.nudge()
            await t.settled()
            row = (await t.rows(callbacks))[0]
            assert row.status == "deferred"
            assert [(a.subject, a.reason) for a in await t.rows(attention)] == [(row.id, "deferred_too_long")]

    asyncio.run(run())


def test_two_payments_found_to_be_one_are_merged_under_attention(tmp_path: Path) -> None:
    """A session and an intent alone, then a message that names both: one payment is left, a person is told."""
    expired = stripe_event("checkout.session.expired", "evt_x", id="cs_1", object="checkout.session", status="expired",
                           payment_intent=None, payment_status="unpaid", amount_total=5000)  # fmt: skip
    both = stripe_event("checkout.session.completed", "evt_s", id="cs_1", object="checkout.session", status="complete",
                        payment_intent="pi_1", payment_status="paid", amount_total=5000)  # fmt: skip

    async def run() -> None:
        async with till(tmp_path) as t:
            for event in (expired, PAID, both):
                await t.stripe(event)
                await t.settled()
            rows = sorted(await t.rows(payments), key=lambda row: row.id)
            kept = [row for row in rows if row.merged_into is None]
            assert [(row.status, row.captured_minor, row.exceptions) for row in kept] == [("succeeded", 5000, "")]
            assert [row.merged_into for row in rows if row.merged_into] == [kept[0].id]
            assert await t.count(attempts) == 1
            assert (kept[0].id, "merged") in [(a.subject, a.reason) for a in await t.rows(attention)]

    asyncio.run(run())


def test_r4_r11_a_payment_below_what_was_asked_is_attention_and_never_overwritten(tmp_path: Path) -> None:
    """R4, R11: too little money is told as attention; a decline that comes later changes nothing."""
    short = stripe_event("payment_intent.succeeded", "evt_1", amount_received=4999)
    declined = stripe_event("payment_intent.payment_failed", "evt_2")

    async def run() -> None:
        async with till(tmp_path) as t:
            await t.stripe(short)
            await t.settled()
            await t.stripe(declined)
            await t.settled()
            row = (await t.rows(payments))[0]
            assert (row.status, row.exceptions) == ("succeeded", "under")
            assert t.shop.types == ["payment.attention"]
            assert t.shop.events[0]["data"]["payment"]["exceptions"] == ["under"]

    asyncio.run(run())


def test_test_money_on_a_live_account_is_kept_parked_and_told_to_nobody(tmp_path: Path) -> None:
    """A test callback on a live account must never ship goods."""

    async def run() -> None:
        async with till(tmp_path, mode="production", allow_private_cidrs="127.0.0.0/8") as t:
            assert await t.stripe(stripe_event("payment_intent.succeeded", live=False)) == 200
            assert await t.stripe(stripe_event("payment_intent.succeeded", "evt_2", live=True)) == 200
            await t.shop.wait_for(1)
            await t.settled()
            rows = sorted(await t.rows(callbacks), key=lambda row: row.key)
            assert [(r.status, r.reason) for r in rows] == [
                ("parked", "test_callback_on_live_account"), ("processed", None),
            ]  # fmt: skip
            assert await t.count(events) == 1
            async with t.client.get(t.url + "/metrics") as scraped:
                assert 'callbacks_finished_total{provider="stripe",status="parked"} 1.0' in await scraped.text()
            await replay.replay(t.app, rows[0].id, "all parked ones again", "test")
            await t.settled()
            again = (await t.rows(callbacks, callbacks.c.id == rows[0].id))[0]
            assert (again.status, again.reason, again.runs) == ("parked", "test_callback_on_live_account", 1)
            assert await t.count(events) == 1

    asyncio.run(run())


def test_a8_without_a_secret_callbacks_are_refused_and_the_service_says_so(tmp_path: Path) -> None:
    """Fail closed: half set means 401, quarantined, not ready; nothing set means 404 and no part of readiness."""

    async def run() -> None:
        async with till(
            tmp_path, stripe_webhook_secrets="", stripe_secret_key="sk_test_1", paystack_secret_keys=""
        ) as t:
            assert await t.stripe(PAID) == 401
            assert [(q.reason, q.provider) for q in await t.rows(quarantine)] == [("half_set", "stripe")]
            async with t.client.get(t.url + "/readyz") as answer:
                assert answer.status == 503
                assert "webhook_secrets" in (await answer.json())["problems"][0]
            assert (await t.post("/webhooks/paystack", b"{}"))[0] == 404

    asyncio.run(run())


def test_a9_what_was_refused_under_a_wrong_secret_is_checked_again_against_the_time_it_came(tmp_path: Path) -> None:
    """Quarantined with its headers; once the secret is right, replayed, although its timestamp is old by then."""

    async def run() -> None:
        async with till(tmp_path) as t:
            body = json.dumps(PAID).encode()
            signed = {"Stripe-Signature": stripe_signature(body, "whsec_the_new_one")}
            status, answer = await t.post("/webhooks/stripe", body, signed)
            assert (status, answer) == (401, b"")
            kept = (await t.rows(quarantine))[0]
            with pytest.raises(Refusal, match="bad_signature"):
                await replay.replay(t.app, kept.id, "still wrong", "test")
            entry = t.app.registry.default("stripe")
            assert entry is not None
            entry.credentials["webhook_secrets"] = ("whsec_the_new_one",)  # type: ignore[index]
            t.app.clock = lambda: kept.received_at_ms + 3_600_000
            done = await replay.replay(t.app, kept.id, "the secret was wrong", "test")
            assert done["was"] == kept.id
            await t.shop.wait_for(1)
            assert await t.count(quarantine) == 0
            assert t.shop.types == ["payment.succeeded"]
            assert b"pi_1" not in kept.body, "what was never believed is sealed until it is"

    asyncio.run(run())


def test_the_quarantine_is_rate_limited_and_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can send rubbish: it is answered 401, and only so much of it is written."""
    monkeypatch.setattr("service.callbacks.quarantine.ROWS_MAX", 20)

    async def run() -> None:
        async with till(tmp_path) as t:
            answers = await asyncio.gather(*(t.post("/webhooks/stripe", b"%d" % n) for n in range(200)))
            assert answers == [(401, b"")] * 200
            # Perhaps one more than the cap: ids of one millisecond are in no order, and the newest is never dropped.
            assert 20 <= await t.count(quarantine) <= 21
            assert t.app.db.stats.commits < 200

    asyncio.run(run())


def test_unknown_types_are_ignored_and_unreadable_bodies_parked_both_with_200(tmp_path: Path) -> None:
    """What is verified is kept and answered 200 even when it cannot be read; a person may run it again."""

    async def run() -> None:
        async with till(tmp_path) as t:
            assert await t.stripe(stripe_event("customer.subscription.paused", "evt_u")) == 200
            for body in (
                b"\xff\xfe",
                b"[" * 100_000,
                b'{"id":"evt_n","type":"a\\u0000b"}',
                b"",
                b"null",
                b'{"a":1,"a":2}',
            ):
                assert await t.stripe(body) == 200
            await t.settled()
            rows = await t.rows(callbacks)
            assert sorted(row.status for row in rows) == ["ignored"] + ["parked"] * 6
            assert all(row.reason.startswith("unreadable") for row in rows if row.status == "parked")
            parked = next(row for row in rows if row.status == "parked")
            await replay.replay(t.app, parked.id, "try it", "test")
            await t.settled()
            assert [r.runs for r in await t.rows(callbacks, callbacks.c.id == parked.id)] == [1]
            for _ in range(4):
                await replay.replay(t.app, parked.id, "again", "test")
                await t.settled()
            with pytest.raises(Refusal, match="5 times in the last hour"):
                await replay.replay(t.app, parked.id, "too often", "test")

    asyncio.run(run())


def test_fedapays_account_is_redacted_before_it_is_stored(tmp_path: Path) -> None:
    """The e-mail addresses of the merchant's users, which FedaPay sends along, are on no disk."""
    body = json.dumps({"name": "transaction.approved", "object": "transaction", "object_id": 7,
                       "account": {"id": 1, "email": "secret@shop.example"},
                       "entity": {"id": 7, "klass": "v1/transaction", "reference": "trx_1", "amount": 1000,
                                  "status": "approved", "currency": {"iso": "XOF"},
                                  "updated_at": "2026-11-20T09:00:00.000Z"}}).encode()  # fmt: skip
    stamp = int(time.time())
    digest = hmac.new(b"wh_sandbox_of_the_tests", f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()

    async def run() -> None:
        async with till(tmp_path) as t:
            status, _ = await t.post("/webhooks/fedapay", body, {"X-FEDAPAY-SIGNATURE": f"t={stamp},s={digest}"})
            assert status == 200
            await t.shop.wait_for(1)
            assert b"secret@shop.example" not in (await t.rows(callbacks))[0].body

    asyncio.run(run())
    for file in tmp_path.iterdir():
        assert b"secret@shop.example" not in file.read_bytes(), file


def test_the_earlier_systems_addresses_are_aliases(tmp_path: Path) -> None:
    """A11: /api/webhooks/{provider} is /webhooks/{provider}: the same callback by both ways is one."""

    async def run() -> None:
        async with till(tmp_path) as t:
            assert await t.stripe(PAID, "/api/webhooks/stripe") == 200
            assert await t.stripe(PAID, "/webhooks/stripe") == 200
            assert await t.stripe(PAID, "/webhooksstripe") == 404
            assert [row.seen_count for row in await t.rows(callbacks)] == [2]

    asyncio.run(run())


def test_provider_events_are_passed_on_only_on_request(tmp_path: Path) -> None:
    """`*` leaves provider.event out; an endpoint that names it gets the verified callback itself."""

    async def run() -> None:
        async with till(tmp_path, events="provider.event,payment.succeeded") as t:
            other = await t.create_merchant("Koffi", t.shop.url)
            await t.stripe(PAID)
            await t.shop.wait_for(2)
            await t.settled()
            assert sorted(t.shop.types) == ["payment.succeeded", "provider.event"]
            passed = next(e for e in t.shop.events if e["type"] == "provider.event")
            assert json.loads(passed["data"]["callback"]["body"]) == PAID
            assert all(row.merchant_id != other.id for row in await t.rows(events))

    asyncio.run(run())


def test_r12_a_delivery_whose_worker_died_is_taken_again_and_told_under_the_same_id(tmp_path: Path) -> None:
    """R12: claimed, and the process gone: no rescuer is needed, the next start delivers it; the timestamp is signed."""

    async def run() -> None:
        async with till(tmp_path) as t:
            assert t.app.dispatcher is not None
            await t.app.dispatcher.stop(1_000)
            await t.stripe(PAID)
            report = await t.app.db.write(
                lambda tx: t.app.processor.process(tx, [row.id for row in tx.execute(select(callbacks.c.id))])
            )
            assert [done[3] for done in report.finished] == ["processed"]
            policy = Policy("webhook", (), lease_ms=30_000, limit_ms=1_000)
            claimed = await t.app.db.write(t.app.queue.claim, policy, t.app.clock(), Random(1))
            assert len(claimed.messages) == 1
            assert not t.shop.got
            url, event_id = t.shop.url, claimed.messages[0].subject
        async with till(tmp_path, merchant=False) as again:
            await again.app.db.write(lambda tx: tx.execute(endpoints.update().values(url=again.shop.url)))
            again.app.nudge()
            await again.shop.wait_for(1)
            headers = again.shop.got[0][0]
            assert headers["webhook-id"] == event_id and int(headers["webhook-timestamp"]) > 0
            assert url != again.shop.url
            row = (await again.rows(messages, messages.c.topic == "webhook"))[0]
            await again.settled()
            row = (await again.rows(messages, messages.c.topic == "webhook"))[0]
            assert row.state == "done" and row.tries >= 2  # the first address of this start was the old shop's

    asyncio.run(run())


def test_c2_the_plain_signatures_header_is_a_setting(tmp_path: Path) -> None:
    """C2: for receivers written for an earlier system the header has the name they know; it is over the body alone."""

    async def run() -> None:
        async with till(tmp_path, signature_header="X-Old-Signature") as t:
            await t.stripe(PAID)
            await t.shop.wait_for(1)
            headers, body = t.shop.got[0]
            assert t.merchant is not None and t.merchant.endpoint is not None
            digest = hmac.new(t.merchant.endpoint.secret.encode(), body, hashlib.sha256).hexdigest()
            assert headers["X-Old-Signature"] == f"sha256={digest}"
            assert "X-Caisse-Signature" not in headers

    asyncio.run(run())


def test_a3_with_100000_waiting_callbacks_are_still_taken(tmp_path: Path) -> None:
    """A3: the queue is 100,000 deep and nobody works on it: the next callbacks are kept and answered."""

    async def run() -> None:
        async with till(tmp_path) as t:
            assert t.app.dispatcher is not None
            await t.app.dispatcher.stop(1_000)
            waiting = [Promise(f"callback:old_{n}:0", "stripe", "acc_stripe", f"old_{n}") for n in range(100_000)]
            for start in range(0, len(waiting), 5_000):
                await t.app.db.write(t.app.queue.enqueue, waiting[start : start + 5_000], 1)
            taken = [stripe_event("payment_intent.succeeded", f"evt_{n}", intent=f"pi_{n}") for n in range(64)]
            assert await asyncio.gather(*(t.stripe(event) for event in taken)) == [200] * 64
            assert await t.count(callbacks) == 64

    asyncio.run(run())


def test_an_unforeseen_fault_at_the_door_is_503_and_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of ours must not lose the callback: the provider is told to send it again, and the log says where."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    async def run() -> None:
        async with till(tmp_path) as t:
            with monkeypatch.context() as patch:
                patch.setattr(type(t.app.intake), "check", broken)
                with structlog.testing.capture_logs() as logs:
                    assert await t.stripe(PAID) == 503
            assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["callback.raised"]
            assert await t.stripe(PAID) == 200

    asyncio.run(run())


def test_when_too_much_waits_for_the_writer_it_is_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue in front of the writer is bounded: behind a stalled disk nobody is left hanging."""
    monkeypatch.setattr("service.callbacks.intake.WAITING_MAX", 4)

    async def run() -> None:
        async with till(tmp_path) as t:
            held = asyncio.create_task(t.app.db.write(lambda tx: time.sleep(0.5)))
            await asyncio.sleep(0.05)
            sent = [stripe_event("payment_intent.succeeded", f"evt_{n}", intent=f"pi_{n}") for n in range(20)]
            answers = await asyncio.gather(*(t.stripe(event) for event in sent))
            await held
            assert set(answers) == {200, 503}
            assert await t.count(callbacks) == answers.count(200)

    asyncio.run(run())


def test_a_failing_endpoint_is_tried_again_with_the_same_id_and_every_try_is_kept(tmp_path: Path) -> None:
    """500, 500, 200: three tries of one event, each a row with its status, and one success."""

    async def run() -> None:
        async with till(tmp_path) as t:
            t.shop.answer = lambda _: 500 if len(t.shop.got) < 3 else 200
            await t.stripe(PAID)
            await t.shop.wait_for(3)
            await t.settled()
            assert len({headers["webhook-id"] for headers, _ in t.shop.got}) == 1
            assert len({headers["webhook-timestamp"] for headers, _ in t.shop.got}) > 1
            row = (await t.rows(messages, messages.c.topic == "webhook"))[0]
            assert (row.state, row.tries, row.last_status) == ("done", 3, 200)
            tries = sorted(await t.rows(outbox_tables.tries), key=lambda one: one.number)
            assert [one.http_status for one in tries] == [500, 500, 200]

    asyncio.run(run())


def test_410_disables_the_endpoint_and_what_comes_afterwards_is_held(tmp_path: Path) -> None:
    """Gone is gone until a person says otherwise: nothing is dropped."""

    async def run() -> None:
        async with till(tmp_path) as t:
            t.shop.answer = lambda _: 410
            await t.stripe(PAID)
            await t.shop.wait_for(1)
            await t.settled()
            assert [(e.status, e.disabled_reason) for e in await t.rows(endpoints)] == [
                ("disabled", "it answered 410 Gone")
            ]
            await t.stripe(stripe_event("payment_intent.succeeded", "evt_2", intent="pi_2"))
            await t.settled()
            states = [row.state for row in await t.rows(messages, messages.c.topic == "webhook")]
            assert sorted(states) == ["dead", "pending"]  # one says that it was disabled
            held = [row.held for row in await t.rows(outbox_tables.destinations)]
            assert held == ["it answered 410 Gone"]
            assert len(t.shop.got) == 1

    asyncio.run(run())


def test_with_the_worker_stopped_callbacks_are_still_taken_and_kept(tmp_path: Path) -> None:
    """A3: taking does not need working; what was kept is worked on later."""

    async def run() -> None:
        async with till(tmp_path) as t:
            assert t.app.dispatcher is not None
            await t.app.dispatcher.stop(1_000)
            taken = [
                t.stripe(stripe_event("payment_intent.succeeded", f"evt_{n}", intent=f"pi_{n}")) for n in range(50)
            ]
            assert await asyncio.gather(*taken) == [200] * 50
            assert await t.count(callbacks, callbacks.c.status == "received") == 50
            assert await t.count(messages, messages.c.topic.in_(CALLBACK_RETRIES_MS)) == 50
        async with till(tmp_path, merchant=False) as again:
            await again.settled()
            assert await again.count(callbacks, callbacks.c.status == "processed") == 50

    asyncio.run(run())


def test_r17_r13_no_transaction_is_open_while_a_webhook_is_on_its_way(tmp_path: Path) -> None:
    """R13, R17: with a shop that hangs, others write at once: nothing is locked over the network."""

    async def run() -> None:
        async with till(tmp_path) as t:
            release = asyncio.Event()

            async def hang() -> int:
                await release.wait()
                return 200

            t.shop.answer = lambda _: hang()
            await t.stripe(PAID)
            await t.shop.wait_for(1)
            began = t.app.db.stats.commits
            for n in range(20):
                assert await t.stripe(stripe_event("payment_intent.succeeded", f"evt_h{n}", intent=f"pi_h{n}")) == 200
            assert t.app.db.stats.commits > began
            t.shop.answer = lambda _: 200
            release.set()
            await t.shop.wait_for(21)

    asyncio.run(run())


def test_r10_a_callback_finds_payments_of_its_own_account_only(tmp_path: Path) -> None:
    """R10: the same provider id under another merchant's account is another payment."""
    from service.merchants import accounts as account_step
    from service.merchants.audit import By

    async def run() -> None:
        async with till(tmp_path) as t:
            other = await t.create_merchant("Koffi")
            app = t.app
            account = await app.db.write(
                lambda tx: account_step.add(tx, other.id, "stripe", {"webhook_secrets": ["whsec_koffi"]}, False,
                                            By("test", app.clock(), app.ids), app.seal)
            )  # fmt: skip
            await app.reload_registry()
            body = json.dumps(PAID).encode()
            path = f"/webhooks/stripe/{account}"
            assert (await t.post(path, body, {"Stripe-Signature": stripe_signature(body)}))[0] == 401
            status, _ = await t.post(path, body, {"Stripe-Signature": stripe_signature(body, "whsec_koffi")})
            assert status == 200
            assert await t.stripe(PAID) == 200
            await t.settled()
            assert t.merchant is not None
            owners = [row.merchant_id for row in await t.rows(payments)]
            assert sorted(owners) == sorted([other.id, t.merchant.id])
            assert await t.count(callbacks) == 2

    asyncio.run(run())


def test_a_full_disk_is_503_not_ready_and_recovers_by_itself(tmp_path: Path) -> None:
    """P4: never 200 for what is not on disk; visible within a second; taken again once there is room."""

    async def run() -> None:
        async with till(tmp_path) as t:
            app = t.app

            def pages(tx: object, limit: int | None) -> None:
                used = tx.exec_driver_sql("PRAGMA page_count").scalar()  # type: ignore[attr-defined]
                tx.exec_driver_sql(f"PRAGMA max_page_count={limit or used}")  # type: ignore[attr-defined]

            await app.db.write(pages, None)
            answers: list[int] = []
            for n in range(400):
                answers.append(await t.stripe(stripe_event("payment_intent.succeeded", f"evt_{n}", intent=f"pi_{n}")))
                if answers[-1] == 503:
                    break
            assert set(answers) == {200, 503}
            # A probe that finds a page of its own may call it writable for a moment; the next callback knows better.
            for n in range(50):
                async with t.client.get(t.url + "/readyz") as ready:
                    if ready.status == 503:
                        assert "cannot be written" in (await ready.text())
                        break
                answers.append(await t.stripe(stripe_event("payment_intent.succeeded", f"evt_f{n}", intent=f"pi_f{n}")))
            else:
                raise AssertionError("a full disk was never told of")
            async with t.client.get(t.url + "/healthz") as alive:
                assert alive.status == 200
            kept = await t.count(callbacks)
            assert kept == answers.count(200)
            await app.db.write(pages, 1_000_000)
            await eventually(lambda: app.db.health.writable)
            assert await t.stripe(stripe_event("payment_intent.succeeded", "evt_after", intent="pi_after")) == 200

    asyncio.run(run())


def test_the_events_of_a_payment_tell_one_story_in_order(tmp_path: Path) -> None:
    """Processing, action, decline, success, refund in any arrival: sequence numbers rise and the last is the truth."""
    story = [
        stripe_event("payment_intent.processing", "e1"),
        stripe_event("payment_intent.requires_action", "e2", status="requires_action"),
        stripe_event("payment_intent.payment_failed", "e3"),
        stripe_event("payment_intent.succeeded", "e4"),
        stripe_event("refund.created", "e5", id="re_1", object="refund", payment_intent="pi_1", charge="ch_1",
                     amount=5000, status="succeeded"),
    ]  # fmt: skip

    async def run() -> None:
        async with till(tmp_path) as t:
            for event in (story[4], story[3], story[0], story[2], story[1], story[3]):
                assert await t.stripe(event) == 200
                await t.settled()
            row = (await t.rows(payments))[0]
            assert (row.status, row.captured_minor, row.refunded_minor) == ("refunded", 5000, 5000)
            told = await t.app.db.read(
                lambda tx: list(
                    tx.execute(
                        select(events.c.sequence)
                        .where(events.c.type.startswith("payment."))
                        .order_by(events.c.position)
                    ).scalars()
                )
            )
            assert told == list(range(1, len(told) + 1))
            await t.settled()
            of_payments = [event for event in t.shop.events if event["type"].startswith("payment.")]
            last = max(of_payments, key=lambda event: event["sequence"])
            assert last["data"]["payment"]["status"] == "refunded"

    asyncio.run(run())
