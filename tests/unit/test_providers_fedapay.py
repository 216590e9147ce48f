"""What FedaPay's events say about money, and what is cut out of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.payments.facts import Fact, Kind, Reason, Told
from service.providers import PROVIDERS, fedapay
from service.providers.base import AboutPayout, Ignored, Incoming, Parked
from tests.conformance.wire import NOW_MS, callback

FEDAPAY = PROVIDERS["fedapay"]
DAY_MS = 86_400_000


def meaning(event: str, **fields: Any) -> Any:
    given = {"id": "113507195"} | {key.replace("__", "."): value for key, value in fields.items()}
    return FEDAPAY.translate(callback(FEDAPAY, event, given), 0)


def told(event: str, **fields: Any) -> tuple[Fact, ...]:
    found = meaning(event, **fields)
    assert isinstance(found, Told), found
    assert found.references[0] == "113507195"
    return found.facts


def test_approved_and_transferred_are_one_capture() -> None:
    """The transaction is the movement; sending the money on to the merchant is no second one."""
    (approved,), (transferred,) = told("transaction.approved"), told("transaction.transferred")
    assert (
        (approved.kind, approved.movement) == (transferred.kind, transferred.movement) == (Kind.CAPTURED, "113507195")
    )


def test_a_transfer_days_later_does_not_make_the_capture_late() -> None:
    """Its time is when it was approved, or at worst when it was created."""
    later = {"time_ms": NOW_MS + 3 * DAY_MS, "entity__approved_at": "2026-11-20T09:00:00.000Z"}
    assert told("transaction.transferred", **later)[0].at_ms == NOW_MS
    unknown = later | {"entity__approved_at": None, "entity__created_at": "2026-11-20T09:00:00.000Z"}
    assert told("transaction.refunded", **unknown)[0].at_ms == NOW_MS


@pytest.mark.parametrize("status", fedapay.TRANSACTION)
def test_the_status_speaks_and_not_the_name(status: str) -> None:
    """Whatever event brings it."""
    for event in ("transaction.created", "transaction.updated", "transaction.approved"):
        assert told(event, status=status)[0].kind is fedapay.TRANSACTION[status][0]


def test_a_deleted_transaction_is_canceled() -> None:
    """Only a pending one can be deleted, and still says pending; one that says more is believed."""
    assert told("transaction.deleted")[0].kind is Kind.CANCELED
    assert told("transaction.deleted", status="approved")[0].kind is Kind.CAPTURED


def test_canceled_for_want_of_money_is_a_failure() -> None:
    """Seen live: the operator refused, the payer did not change their mind."""
    (fact,) = told("transaction.canceled", reason="INSUFFICIENT_FUND_ERROR")
    assert (fact.kind, fact.reason) == (Kind.FAILED, Reason.INSUFFICIENT_FUNDS)
    for reason in ("API_ERROR", "SOMETHING_ELSE"):
        (fact,) = told("transaction.canceled", reason=reason)
        assert (fact.kind, fact.reason) == (Kind.CANCELED, None)
    (fact,) = told("transaction.approved", reason="API_ERROR")
    assert (fact.kind, fact.reason) == (Kind.CAPTURED, None)
    (fact,) = told("transaction.declined", reason="INSUFFICIENT_FUND_ERROR")
    assert (fact.kind, fact.reason) == (Kind.FAILED, Reason.INSUFFICIENT_FUNDS)


def test_the_amount_is_what_was_asked_for_not_what_was_debited() -> None:
    """Fees may be added for the payer."""
    (fact,) = told("transaction.approved", amount="22000", fee="403")
    assert (fact.amount_minor, fact.asked_minor, fact.fee_minor) == (22_000, 22_000, 403)


def test_a_full_refund_is_the_capture_and_all_of_it() -> None:
    """One event proves both."""
    assert [(f.kind, f.amount_minor) for f in told("transaction.refunded")] == [
        (Kind.CAPTURED, 5000),
        (Kind.REFUNDED_TOTAL, 5000),
    ]


@pytest.mark.parametrize("status", ["approved_partially_refunded", "transferred_partially_refunded"])
@pytest.mark.parametrize(
    ("refunds", "total"),
    [
        ([{"amount": 1000}, {"amount": 500, "status": "approved"}], 1500),
        ([{"amount": 1000}, {"amount": 500, "status": "pending"}], 1000),
        ([], None),
        (None, None),
        ("none", None),
        ([{"amount": 1000, "status": "quantum"}], None),
        ([{"amount": "a lot"}], None),
        ([{"amount": 1000, "status": []}], None),
        ([1000], None),
        ([{"amount": 6000}], None),
        ([{"amount": 1}] * 201, None),
    ],
)
def test_a_refund_in_part_is_their_sum_or_unsaid(status: str, refunds: object, total: int | None) -> None:
    """Nobody documents the list: what cannot be read for certain is no number, and still a refund."""
    capture, back = told("transaction.updated", status=status, entity__refunds=refunds)
    assert (capture.kind, capture.amount_minor) == (Kind.CAPTURED, 5000)
    assert (back.kind, back.amount_minor) == (Kind.REFUNDED_TOTAL, total)


def test_without_its_currency_a_capture_is_parked() -> None:
    """XOF is likely, and a guess. What moves no money is told all the same, of a payment that is known."""
    assert meaning("transaction.approved", entity__currency=None) == Parked("missing:currency")
    (fact,) = told("transaction.canceled", entity__currency=None)
    assert (fact.kind, fact.asked_minor, fact.currency) == (Kind.CANCELED, None, None)


def test_names_and_notes() -> None:
    """`merchant_reference` and `custom_metadata` are the merchant's; `metadata` is FedaPay's own."""
    found = meaning("transaction.approved", reference="CMD-1", entity__custom_metadata={"order": "7"})
    assert (found.reference, found.metadata) == ("CMD-1", {"order": "7"})
    assert found.references[1].startswith("trx_")
    assert meaning("transaction.approved", entity__reference="109329828").references == ("113507195",)


@pytest.mark.parametrize("name", ["customer.created", "customer.deleted", "payout.sent", "payout.failed"])
def test_what_is_no_payment_is_ignored(name: str) -> None:
    """Known, and not about a payment."""
    assert isinstance(FEDAPAY.translate(Incoming("POST", (), b"", json.dumps({"name": name}).encode()), 0), Ignored)


@pytest.mark.parametrize("name", ["payout.sent", "payout.failed", "payout.started"])
def test_a_payout_is_about_a_payout(name: str) -> None:
    """By our reference and FedaPay's number, whatever it says of the money."""

    def said(**entity: object) -> object:
        body = json.dumps({"name": name, "entity": {"klass": "v1/payout", "status": "sent"} | entity}).encode()
        return FEDAPAY.translate(Incoming("POST", (), b"", body), 0)

    ours = "caisse-0badcafe-po-9"
    assert said(id=77, merchant_reference=ours, reference="1540316134325") == AboutPayout((ours, "77"))
    assert said(id=77, custom_metadata={"reference": ours}) == AboutPayout((ours, "77"))
    assert said(id=77) == AboutPayout(("77",))
    assert isinstance(said(id=None), Ignored) and isinstance(said(id=True, merchant_reference=[]), Ignored)


def test_the_sandbox_s_own_mode_is_test_money() -> None:
    """Nothing else in the body says so."""
    assert FEDAPAY.identify(callback(FEDAPAY, fields={"live": "false"})).live is False
    assert FEDAPAY.identify(callback(FEDAPAY, fields={"live": "true"})).live is None


# --- redact -------------------------------------------------------------------------------------------

ACCOUNT = b'{"users":[{"email":"a@b.c"}],"k":"}],\\"{"}'


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b'{"account":' + ACCOUNT + b"}", b"{}"),
        (b'{"a":1,"account":' + ACCOUNT + b"}", b'{"a":1}'),
        (b'{"account":' + ACCOUNT + b',"b":2}', b'{"b":2}'),
        (b'{"a":1,"account":' + ACCOUNT + b',"b":2}', b'{"a":1,"b":2}'),
        (b' { "a" : 1.10 ,\n "account" : null , "b" : "\\u0026" } \n', b'{ "a" : 1.10, "b" : "\\u0026"} \n'),
        (b'{"\\u0061ccount":1,"b":1e400}', b'{"b":1e400}'),
        (b'{"entity":{"account":"kept"}}', b'{"entity":{"account":"kept"}}'),
        (b"{}", b"{}"),
    ],
)
def test_account_is_cut_out_and_nothing_else(body: bytes, kept: bytes) -> None:
    """The rest is kept byte for byte: floats, escapes and all."""
    assert FEDAPAY.redact(body) == kept
    assert FEDAPAY.redact(kept) == kept
    assert {k: v for k, v in json.loads(body).items() if k != "account"} == json.loads(kept)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"account":1,"account":2}', b'{"account":', b"\xff", b"[" * 100_000])
def test_what_cannot_be_read_is_stored_as_it_is(body: bytes) -> None:
    """Nobody can say where to cut."""
    assert FEDAPAY.redact(body) == body


def test_no_person_of_the_account_is_kept() -> None:
    """What the real ones carry: users with e-mail addresses, keys, balances."""
    body = callback(FEDAPAY).body
    assert b"owner@example.com" in body
    assert b"owner@example.com" not in FEDAPAY.redact(body)


def test_every_word_of_fedapay_has_an_opinion() -> None:
    """The statuses that the library lists."""
    assert set(fedapay.TRANSACTION) == {
        "pending",
        "approved",
        "declined",
        "canceled",
        "expired",
        "transferred",
        "refunded",
        "approved_partially_refunded",
        "transferred_partially_refunded",
    }
    names = "created approved declined canceled transferred updated deleted refunded expired"
    assert {f"transaction.{name}" for name in names.split(" ")} <= set(fedapay.EVENTS)
