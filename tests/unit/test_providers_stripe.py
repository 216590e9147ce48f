"""What Stripe's events say about money."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.payments.facts import Fact, Kind, Reason, Told, join
from service.providers import PROVIDERS, stripe
from service.providers.base import AboutPayout, Ignored, Parked
from tests.conformance.wire import NOW_MS, callback, plain

STRIPE = PROVIDERS["stripe"]
PI, CH, CS = "pi_order7", "ch_order7", "cs_test_order7"


def told(event: str, **fields: Any) -> Told:
    found = STRIPE.translate(
        callback(STRIPE, event, {"id": PI} | {k.replace("__", "."): v for k, v in fields.items()}), 0
    )
    assert isinstance(found, Told), found
    return found


def only(event: str, **fields: Any) -> Fact:
    facts = told(event, **fields).facts
    assert len(facts) == 1
    return facts[0]


def test_three_events_about_one_payment_are_one_capture() -> None:
    """Session, intent and charge tell of one movement of money, under one list of names."""
    events = ("checkout.session.completed", "payment_intent.succeeded", "charge.succeeded")
    facts = [only(event) for event in events]
    assert {(fact.kind, fact.movement, fact.amount_minor) for fact in facts} == {(Kind.CAPTURED, PI, 5000)}
    assert join(join(facts[0], facts[1]), facts[2]) == join(facts[2], join(facts[1], facts[0]))
    assert told(events[0]).references == (PI, CS)
    assert told(events[1]).references == told(events[2]).references == (PI, CH)


def test_r16_a_completed_session_is_paid_only_when_it_says_so() -> None:
    """Bank debits complete unpaid, and are paid days later or never."""
    assert only("checkout.session.completed", status="unpaid").kind is Kind.PENDING
    assert only("checkout.session.completed", status="paid").kind is Kind.CAPTURED
    free = only("checkout.session.completed", status="no_payment_required", amount="0")
    assert (free.kind, free.amount_minor) == (Kind.CAPTURED, 0)
    assert only("checkout.session.async_payment_succeeded", status="unpaid").kind is Kind.PENDING
    assert only("checkout.session.async_payment_failed").kind is Kind.TRY_FAILED
    for status in ("", "maybe"):
        found = STRIPE.translate(callback(STRIPE, "checkout.session.completed", {"status": status}), 0)
        assert found == Parked(f"unknown_status:{status}")


def test_r16_a_refund_in_part_is_a_refund_in_part() -> None:
    """It says how much went back, and that the rest was paid; nothing is canceled."""
    facts = told("charge.refunded", refunded="2000").facts
    assert [(fact.kind, fact.amount_minor) for fact in facts] == [(Kind.CAPTURED, 5000), (Kind.REFUNDED_TOTAL, 2000)]


@pytest.mark.parametrize(
    "event", ["payment_intent.created", "payment_intent.requires_action", "payment_intent.processing"]
)
@pytest.mark.parametrize(
    "status", ["requires_payment_method", "requires_confirmation", "requires_action", "processing"]
)
def test_r11_a_live_intent_is_never_failed(event: str, status: str) -> None:
    """`requires_payment_method` is where every intent begins, and where a declined one goes on."""
    assert only(event, status=status).kind in (Kind.CREATED, Kind.REQUIRES_ACTION, Kind.PENDING)


def test_a_declined_try_is_no_end() -> None:
    """The payer may try again on the same intent; the reason is kept."""
    fact = only("payment_intent.payment_failed", reason="insufficient_funds")
    assert (fact.kind, fact.reason, fact.movement) == (Kind.TRY_FAILED, Reason.INSUFFICIENT_FUNDS, CH)
    assert only("charge.failed", reason="insufficient_funds").movement == fact.movement


def test_two_declined_tries_are_two_facts() -> None:
    """By their charges, or by their times where the try made no charge."""
    assert only("payment_intent.payment_failed", charge="ch_1") != only("payment_intent.payment_failed", charge="ch_2")
    bare = {"data__object__last_payment_error__charge": None}
    first, second = (only("payment_intent.payment_failed", time_ms=NOW_MS + n, **bare).movement for n in (0, 60_000))
    assert first != second
    assert CH not in (first, second)  # the latest charge is an earlier try's


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("insufficient_funds", Reason.INSUFFICIENT_FUNDS),
        ("card_velocity_exceeded", Reason.LIMIT_REACHED),
        ("withdrawal_count_limit_exceeded", Reason.LIMIT_REACHED),
        ("incorrect_pin", Reason.WRONG_PIN),
        ("pin_try_exceeded", Reason.WRONG_PIN),
        ("payment_intent_payment_attempt_expired", Reason.TIMED_OUT),
        ("issuer_not_available", Reason.PROVIDER_UNAVAILABLE),
        ("processing_error", Reason.PROVIDER_UNAVAILABLE),
        ("stolen_card", Reason.UNKNOWN),
        ("", Reason.UNKNOWN),
    ],
)
def test_reasons_are_of_one_vocabulary(code: str, reason: Reason) -> None:
    """B1b."""
    assert only("payment_intent.payment_failed", reason=code).reason is reason


def test_an_intent_says_what_was_asked_and_what_came() -> None:
    """R4: the two are compared by the rules."""
    fact = only("payment_intent.succeeded", data__object__amount_received=3000)
    assert (fact.amount_minor, fact.asked_minor) == (3000, 5000)
    held = only("payment_intent.amount_capturable_updated")
    assert (held.kind, held.amount_minor) == (Kind.AUTHORIZED, 5000)
    assert only("payment_intent.canceled").kind is Kind.CANCELED
    assert only("payment_intent.canceled", reason="expired").kind is Kind.EXPIRED
    assert only("checkout.session.expired").kind is Kind.EXPIRED


def test_a_charge_that_is_not_captured_moved_nothing() -> None:
    """Authorised; and letting it go is no refund."""
    not_captured = {"data__object__captured": False, "data__object__amount_captured": 0}
    assert only("charge.succeeded", **not_captured).kind is Kind.AUTHORIZED
    assert only("charge.refunded", **not_captured).kind is Kind.CANCELED
    assert only("charge.succeeded", data__object__captured="yes").kind is Kind.AUTHORIZED


def test_a_charge_that_is_captured_in_part_moved_that_part() -> None:
    """R4: what was asked for is told beside it."""
    fact = only("charge.captured", data__object__amount_captured=3000)
    assert (fact.kind, fact.amount_minor, fact.asked_minor) == (Kind.CAPTURED, 3000, 5000)


def test_an_old_charge_without_amount_captured_is_whole() -> None:
    """API versions before 2020."""
    assert only("charge.succeeded", data__object__amount_captured=None).amount_minor == 5000


def test_a_late_word_about_a_charge_does_not_make_its_capture_late() -> None:
    """A refund a month later proves the capture, and not that it happened a month later."""
    month_ms = 30 * 86_400_000
    capture = only("charge.succeeded")
    later = {"time_ms": NOW_MS + month_ms, "data__object__created": NOW_MS // 1000 - 1}
    for event in ("charge.refunded", "charge.updated"):
        proof = told(event, **later).facts[0]
        assert proof.movement == capture.movement
        assert join(capture, proof) == join(proof, capture) == capture


def test_refunds_are_told_one_by_one() -> None:
    """Their id is the movement, the payment's are the names."""
    for event, kind in (
        ("refund.created", Kind.REFUND_PENDING),
        ("refund.updated", Kind.REFUND_SUCCEEDED),
        ("refund.failed", Kind.REFUND_FAILED),
        ("charge.refund.updated", Kind.REFUND_SUCCEEDED),
    ):
        fact = only(event, refund="re_1", refunded="2000")
        assert (fact.kind, fact.movement, fact.amount_minor) == (kind, "re_1", 2000)
        assert fact.asked_minor is None
        assert told(event).references == (PI, CH)
    assert only("refund.updated", status="requires_action").kind is Kind.REFUND_PENDING
    assert only("refund.updated", status="canceled").kind is Kind.REFUND_CANCELED


def test_disputes_are_told_by_their_status() -> None:
    """`charge.dispute.closed` says neither won nor lost by its name."""
    for status, kind in (("lost", Kind.DISPUTE_LOST), ("won", Kind.DISPUTE_WON), ("warning_closed", Kind.DISPUTE_WON)):
        assert only("charge.dispute.closed", status=status, dispute="dp_1").kind is kind
    assert only("charge.dispute.created").kind is Kind.DISPUTE_OPENED


def test_what_is_no_payment_is_ignored() -> None:
    """Cards that are kept, payouts without a name; a subscription's money is told by its invoice's intent."""
    nameless = b'{"object":"event","type":"payout.paid","data":{"object":{"id":null}}}'
    for body in (nameless, nameless.replace(b'{"id":null}', b"7"), nameless.replace(b'{"object":{"id":null}}', b"[]")):
        assert isinstance(STRIPE.translate(plain(body), 0), Ignored)
    for mode in ("setup", "subscription"):
        fields = {"data.object.mode": mode, "data.object.payment_intent": None}
        assert isinstance(STRIPE.translate(callback(STRIPE, "checkout.session.completed", fields), 0), Ignored)


@pytest.mark.parametrize(
    ("event", "what"), [("payout.paid", "payout"), ("payout.failed", "payout"), ("transfer.reversed", "transfer")]
)
def test_payouts_and_transfers_are_about_a_payout(event: str, what: str) -> None:
    """By our reference where it is one of ours, and by Stripe's id, whatever it says of the money."""
    body = {"object": "event", "type": event, "data": {"object": {"id": "po_1", "metadata": {"reference": "ours-1"}}}}
    assert STRIPE.translate(plain(json.dumps(body).encode()), 0) == AboutPayout(("ours-1", "po_1"), what)
    body["data"] = {"object": {"id": "po_1", "metadata": {}}}
    assert STRIPE.translate(plain(json.dumps(body).encode()), 0) == AboutPayout(("po_1",), what)


def test_a_thin_event_is_parked() -> None:
    """It has no object in it, and its endpoint is another one."""
    body = callback(STRIPE, "charge.succeeded").body.replace(b'"object": "event"', b'"object": "v2.core.event"')
    assert STRIPE.translate(plain(body), 0) == Parked("thin_event")


def test_ids_may_come_expanded() -> None:
    """An API that expands `payment_intent` sends the object in place of the id."""
    expanded = {"data__object__payment_intent": {"id": PI, "object": "payment_intent"}}
    assert told("charge.succeeded", **expanded).references == (PI, CH)


@pytest.mark.parametrize(
    ("currency", "wire", "minor"),
    [
        ("xof", 1000, 1000),
        ("eur", 1000, 1000),
        ("kwd", 1000, 1000),
        ("ugx", 1000, 10),
        ("isk", 1000, 10),
        ("mga", 10, 1000),
    ],
)
def test_r1_stripe_s_smallest_unit_is_not_always_iso_s(currency: str, wire: int, minor: int) -> None:
    """UGX and ISK have two decimals at Stripe and none in ISO 4217; MGA the other way round."""
    fields = {"data__object__currency": currency, "data__object__amount": wire, "data__object__amount_captured": wire}
    fact = only("charge.succeeded", **fields)
    assert (fact.amount_minor, fact.asked_minor, fact.currency) == (minor, minor, currency.upper())


def test_every_word_of_stripe_has_an_opinion() -> None:
    """The statuses and types that the official library lists (16.1.0)."""
    assert set(stripe.SESSION_PAID) == {"paid", "unpaid", "no_payment_required"}
    assert set(stripe.INTENT) == {
        "requires_payment_method",
        "requires_confirmation",
        "requires_action",
        "processing",
        "requires_capture",
        "canceled",
        "succeeded",
    }
    assert set(stripe.CHARGE) == {"succeeded", "pending", "failed"}
    assert set(stripe.REFUND) == {"pending", "requires_action", "succeeded", "failed", "canceled"}
    assert set(stripe.DISPUTE) == {
        "warning_needs_response",
        "warning_under_review",
        "warning_closed",
        "needs_response",
        "under_review",
        "won",
        "lost",
        "prevented",
    }
    for group, names in {
        "checkout.session": "completed expired async_payment_succeeded async_payment_failed",
        "payment_intent": "created processing requires_action amount_capturable_updated partially_funded succeeded"
        " payment_failed canceled",
        "charge": "succeeded failed pending captured expired updated refunded refund.updated",
        "refund": "created updated failed",
        "charge.dispute": "created updated closed funds_withdrawn funds_reinstated",
    }.items():
        assert {f"{group}.{name}" for name in names.split()} <= set(stripe.EVENTS)
