"""What Paystack's events say about money."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.payments.facts import Fact, Kind, Reason, Told
from service.providers import PROVIDERS, paystack
from service.providers.base import AboutPayout, Ignored, Parked
from tests.conformance.wire import NOW_MS, callback, plain

PAYSTACK = PROVIDERS["paystack"]


def meaning(event: str, **fields: Any) -> Any:
    given = {"reference": "CMD-1"} | {key.replace("__", "."): value for key, value in fields.items()}
    return PAYSTACK.translate(callback(PAYSTACK, event, given), 0)


def only(event: str, **fields: Any) -> Fact:
    found = meaning(event, **fields)
    assert isinstance(found, Told), found
    assert len(found.facts) == 1
    assert found.references == ("CMD-1",)
    return found.facts[0]


@pytest.mark.parametrize(
    ("currency", "wire", "minor"),
    [("XOF", 100_000, 1000), ("XAF", 100, 1), ("NGN", 10_000, 10_000), ("GHS", 150, 150), ("KWD", 100, 1000)],
)
def test_r1_the_wire_is_a_hundredfold_in_every_currency(currency: str, wire: int, minor: int) -> None:
    """1000 F come as 100000; taken as they are they would be a hundredfold charge on failover."""
    fact = only("charge.success", data__amount=wire, data__requested_amount=wire, data__currency=currency)
    assert (fact.amount_minor, fact.asked_minor, fact.currency) == (minor, minor, currency)
    assert fact.movement == "CMD-1"


@pytest.mark.parametrize("wire", [100_050, 1, "99"])
def test_r1_a_part_of_a_franc_is_no_amount(wire: object) -> None:
    """Rounded it would be another amount; it means that the factor is not what we think."""
    assert meaning("charge.success", data__amount=wire, data__currency="XOF") == Parked("bad_amount")


def test_a_fee_on_top_is_no_overpayment() -> None:
    """The merchant lets the payer bear the fee: `amount` is more than what was asked for."""
    fact = only("charge.success", data__amount=102_000, data__requested_amount=100_000, data__fees=1950)
    assert (fact.amount_minor, fact.asked_minor) == (1000, 1000)
    assert fact.fee_minor == 19  # 19.5 F, rounded down


def test_r4_less_than_what_was_asked_stays_less() -> None:
    """`requested_amount` is what is compared with, never what came."""
    fact = only("charge.success", data__amount=40_000, data__requested_amount=100_000)
    assert (fact.amount_minor, fact.asked_minor) == (400, 1000)
    for absent in (None, 0):
        fact = only("charge.success", data__amount=40_000, data__requested_amount=absent)
        assert (fact.amount_minor, fact.asked_minor) == (400, 400)


@pytest.mark.parametrize(("status", "kind"), paystack.CHARGE.items())
def test_a_charge_is_what_its_status_says(status: str, kind: Kind) -> None:
    """`charge.success` is only its name."""
    fact = only("charge.success", status=status)
    assert fact.kind is kind
    assert (fact.amount_minor is not None) is (kind in (Kind.CAPTURED, Kind.REVERSED))
    assert fact.asked_minor == 5000


def test_a_failure_has_its_reason() -> None:
    """From the gateway's words."""
    assert only("charge.success", status="failed", reason="Insufficient Funds").reason is Reason.INSUFFICIENT_FUNDS
    assert only("charge.success", status="failed", reason="Hm").reason is Reason.UNKNOWN
    assert only("charge.success").reason is None


def test_a_refund_that_gets_its_name_later_is_counted_once() -> None:
    """Only the processed one moves money; the pending ones are one movement, not two."""
    pending, processing = only("refund.pending", refunded="2000"), only("refund.processing", refunded="2000")
    processed = only("refund.processed", refunded="2000", refund="TRF_1")
    assert (pending.kind, pending.movement) == (processing.kind, processing.movement)
    assert pending.kind is Kind.REFUND_PENDING
    assert (processed.kind, processed.movement, processed.amount_minor) == (Kind.REFUND_SUCCEEDED, "refund:TRF_1", 2000)
    assert pending.movement != only("refund.pending", refunded="1000").movement
    assert pending.movement != only("refund.pending", reference="CMD-1", refunded="2000", data__id="123456").movement


def test_two_refunds_of_one_amount_are_two() -> None:
    """By their names."""
    first, second = (only("refund.processed", refund=name).movement for name in ("1", "2"))
    assert first != second


@pytest.mark.parametrize("amount", ["500000", 500000])
def test_a_refund_s_amount_is_text_or_a_number(amount: object) -> None:
    """Both are in the documentation's samples."""
    assert only("refund.processed", data__amount=amount).amount_minor == 5000


def test_names_of_refunds_and_disputes_are_nobody_s_reference() -> None:
    """They are bare numbers, and a merchant's reference may be the same number."""
    assert only("refund.processed", refund="358950").movement != only("charge.dispute.create").movement
    for event in ("refund.processed", "charge.dispute.create"):
        assert not only(event, refund="358950").movement.isdigit()


@pytest.mark.parametrize(
    ("resolution", "kind"),
    [("merchant-accepted", Kind.DISPUTE_LOST), ("auto-accepted", Kind.DISPUTE_LOST), ("declined", Kind.DISPUTE_WON)],
)
def test_a_resolved_dispute_is_what_its_resolution_says(resolution: str, kind: Kind) -> None:
    """Accepted means that the money goes back."""
    fact = only("charge.dispute.resolve", reason=resolution)
    assert (fact.kind, fact.movement, fact.amount_minor) == (kind, "dispute:358950", 5000)
    assert only("charge.dispute.remind").kind is Kind.DISPUTE_OPENED


def test_a_dispute_resolved_without_a_word_is_parked() -> None:
    """Won or lost is not guessed."""
    assert meaning("charge.dispute.resolve", data__resolution=None) == Parked("unknown_status:resolved/")


@pytest.mark.parametrize("metadata", ["", 0, None, [], "7", "{", "{}", '{"a":1}', '{"a":"1","a":"2"}'])
def test_metadata_may_be_anything(metadata: object) -> None:
    """All of these are in samples or in the wild."""
    said = json.dumps(metadata) if isinstance(metadata, str) else metadata  # a text, not what stands in it
    found = meaning("charge.success", data__metadata=said)
    assert isinstance(found, Told)
    assert found.metadata == {}


def test_metadata_may_be_an_object_as_text() -> None:
    """Some plugins send it so."""
    found = meaning("charge.success", data__metadata=json.dumps('{"order":"7","n":1}'))
    assert found.metadata == {"order": "7"}


def test_the_time_is_when_it_was_paid() -> None:
    """`paid_at`, else `paidAt`, else when it was created."""
    assert only("charge.success").at_ms == NOW_MS
    second = "2026-11-20T09:00:01.000Z"
    assert only("charge.success", data__paid_at=None, data__paidAt=second).at_ms == NOW_MS + 1000
    assert only("charge.success", data__paid_at=None, data__created_at=None).at_ms == 0


@pytest.mark.parametrize(
    "event",
    [
        "transfer.success",  # without a name
        "bank.transfer.rejected",
        "customeridentification.failed",
        "paymentrequest.success",
        "subscription.create",
        "invoice.update",
        "dedicatedaccount.assign.success",
    ],
)
def test_what_is_no_payment_is_ignored(event: str) -> None:
    """Known, and not about a payment."""
    body = json.dumps({"event": event, "data": {}}).encode()
    assert isinstance(PAYSTACK.translate(plain(body), 0), Ignored)


@pytest.mark.parametrize("event", ["transfer.success", "transfer.failed", "transfer.reversed"])
def test_a_transfer_is_about_a_payout(event: str) -> None:
    """By our reference and Paystack's code, whatever it says of the money; a bare number names nothing."""
    data: dict[str, object] = {"id": 860703114, "status": "success", "amount": 100_000}
    named = data | {"reference": "caisse-0badcafe-po-9", "transfer_code": "TRF_1"}
    of = {"named": named, "coded": data | {"reference": None, "transfer_code": "TRF_1"}, "bare": data, "none": None}
    said = {
        how: PAYSTACK.translate(plain(json.dumps({"event": event, "data": it}).encode()), 0) for how, it in of.items()
    }
    assert said["named"] == AboutPayout(("caisse-0badcafe-po-9", "TRF_1"), "transfer")
    assert said["coded"] == AboutPayout(("TRF_1",), "transfer")
    assert isinstance(said["bare"], Ignored) and isinstance(said["none"], Ignored)


def test_every_word_of_paystack_has_an_opinion() -> None:
    """The statuses and events that the documentation lists."""
    assert set(paystack.CHARGE) == {
        "success",
        "reversed",
        "failed",
        "timeout",
        "abandoned",
        "ongoing",
        "pending",
        "processing",
        "queued",
        "send_otp",
        "send_pin",
        "send_phone",
        "send_birthday",
        "send_address",
        "pay_offline",
        "open_url",
    }
    assert set(paystack.REFUND) == {"pending", "processing", "processed", "failed", "needs-attention"}
    assert {"awaiting-merchant-feedback", "awaiting-bank-feedback", "pending"} <= set(paystack.DISPUTE)
    assert {f"refund.{status}" for status in paystack.REFUND} <= set(paystack.EVENTS)
    assert {f"charge.dispute.{name}" for name in ("create", "remind", "resolve")} <= set(paystack.EVENTS)
