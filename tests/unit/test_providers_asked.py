"""The callbacks of the three providers that have to be asked: what makes us ask, and about what."""

from __future__ import annotations

import json
from dataclasses import replace
from urllib.parse import parse_qsl, urlencode

import pytest

from service.payments.facts import Kind, Reason
from service.providers import PROVIDERS, ebilling, fedapay, meaning, moneroo, monetbil, paystack, stripe
from service.providers.base import AboutPayout, Ask, Ignored, Incoming, Parked, Refused, Unmapped, Verified
from tests.conformance.wire import NOW_MS, callback, credentials, plain

MONETBIL, MONEROO, EBILLING = (PROVIDERS[name] for name in ("monetbil", "moneroo", "ebilling"))


# --- Monetbil's signature -----------------------------------------------------------------------------


def monetbil_form(*, sign: str | None = "", method: str = "POST") -> Incoming:
    """A right notification: without `sign` (None), with another one, or as it is (empty)."""
    right = callback(MONETBIL, fields={"method": method})
    raw = right.query if method == "GET" else right.body
    fields = parse_qsl(raw.decode(), keep_blank_values=True)
    if sign is None:
        fields = [pair for pair in fields if pair[0] != "sign"]
    elif sign:
        fields = [(name, sign if name == "sign" else value) for name, value in fields]
    raw = urlencode(fields).encode()
    return replace(right, query=raw) if method == "GET" else replace(right, body=raw)


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_without_sign_monetbil_is_refused_unless_it_is_allowed(method: str) -> None:
    """Allowed, it still only makes us ask; anything but the word `true` allows nothing."""
    bare, live = monetbil_form(sign=None, method=method), credentials(MONETBIL)
    assert MONETBIL.verify(bare, live, NOW_MS) == Refused("no_sign")
    for word in ("", "false", "yes", "1", "TRUE "):
        assert MONETBIL.verify(bare, {**live, "allow_unsigned": (word,)}, NOW_MS) == Refused("no_sign")
    assert MONETBIL.verify(bare, {**live, "allow_unsigned": ("true",)}, NOW_MS) == Verified(strong=False)


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_wrong_sign_is_refused_always(method: str) -> None:
    """Also where unsigned ones are allowed: who signs wrongly is not who does not sign."""
    for sign in ("0" * 32, "é", " "):
        wrong = monetbil_form(sign=sign, method=method)
        allowed = {**credentials(MONETBIL), "allow_unsigned": ("true",)}
        assert MONETBIL.verify(wrong, allowed, NOW_MS) == Refused("bad_signature")


def test_an_empty_sign_is_a_wrong_one() -> None:
    """`sign=` is there."""
    empty = replace(monetbil_form(sign=None), body=monetbil_form(sign=None).body + b"&sign=")
    allowed = {**credentials(MONETBIL), "allow_unsigned": ("true",)}
    assert MONETBIL.verify(empty, allowed, NOW_MS) == Refused("bad_signature")


@pytest.mark.parametrize("field", ["amount", "status", "transaction_id", "payment_ref"])
def test_every_field_of_monetbil_is_signed(field: str) -> None:
    """Another value, and the sign is wrong."""
    right = callback(MONETBIL)
    body = urlencode([(k, v + "1" if k == field else v) for k, v in parse_qsl(right.body.decode(), True)]).encode()
    assert MONETBIL.verify(replace(right, body=body), credentials(MONETBIL), NOW_MS) == Refused("bad_signature")


def test_a_field_twice_is_no_form() -> None:
    """PHP takes the last, others the first: what was signed is not what would be read."""
    right = callback(MONETBIL)
    for more in (b"&amount=1", b"&sign=x", b"&" + b"&".join(b"f%d=" % n for n in range(300))):
        twice = replace(right, body=right.body + more)
        assert MONETBIL.verify(twice, credentials(MONETBIL), NOW_MS) == Refused("not_form")


def test_the_query_signs_nothing_for_a_post() -> None:
    """A right signature in the address does not vouch for the body."""
    right, bare = callback(MONETBIL, fields={"method": "GET"}), monetbil_form(sign=None)
    assert MONETBIL.verify(replace(bare, query=right.query), credentials(MONETBIL), NOW_MS) == Refused("no_sign")


def test_the_body_signs_nothing_for_a_get() -> None:
    """Nor the other way round: what is read is what was signed."""
    bare, right = monetbil_form(sign=None, method="GET"), callback(MONETBIL)
    assert MONETBIL.verify(replace(bare, body=right.body), credentials(MONETBIL), NOW_MS) == Refused("no_sign")


# --- what is asked about ------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["success", "failed", "cancelled", "7", "8", "9", "quantum", ""])
def test_whatever_monetbil_says_it_is_asked(status: str) -> None:
    """7, 8 and 9 are a test's, and the label says so."""
    incoming = callback(MONETBIL, fields={"status": status, "id": "190"})
    found = MONETBIL.translate(incoming, NOW_MS)
    assert isinstance(found, Ask)
    assert found.reference == "190"
    assert (MONETBIL.identify(incoming).live is False) is (status in ("7", "8", "9"))


def test_monetbil_s_reference_is_the_payment_s_else_the_item_s() -> None:
    """`payment_ref` is one payment, `item_ref` what was bought."""
    for fields, expected in (({"form.payment_ref": "p"}, "p"), ({"form.payment_ref": "", "form.item_ref": "i"}, "i")):
        found = MONETBIL.translate(callback(MONETBIL, fields=fields), NOW_MS)
        assert isinstance(found, Ask)
        assert found.told is not None
        assert found.told.reference == expected


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ({"id": "po_1", "metadata": {"reference": "caisse-1-po-9"}}, ("caisse-1-po-9", "po_1")),
        ({"id": 17, "status": "failed"}, ("17",)),
        ({"metadata": {"reference": "po-9"}}, ("po-9",)),
        ({"id": "po-9", "metadata": {"reference": "po-9"}}, ("po-9",)),
        ({"id": [], "metadata": {"reference": 5}}, ()),
        ({}, ()),
        ("text", ()),
    ],
)
def test_moneroo_s_payouts_are_no_payments(data: object, names: tuple[str, ...]) -> None:
    """Ours first, then theirs; without a name there is nothing to ask about."""
    for type_ in ("payout.initiated", "payout.success", "payout.failed"):
        body = json.dumps({"event": type_, "data": data}).encode()
        expected = AboutPayout(names) if names else Ignored("payout")
        assert MONEROO.translate(plain(body), NOW_MS) == expected
    assert MONEROO.translate(plain(b'{"event": "refund.success"}'), NOW_MS) == Unmapped("refund.success")


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_monetbil_s_withdrawals_are_no_payments(method: str) -> None:
    """What has a processing number is about money that went out, also where it has a transaction's number too."""
    for fields, expected in (
        ({"processing_number": "po-9", "transaction_id": "190", "status": "success"}, AboutPayout(("po-9", "190"))),
        ({"processing_number": "", "transaction": "7", "transaction_id": "7"}, AboutPayout(("7",))),
        ({"processing_number": "", "status": "success"}, Ignored("payout")),
    ):
        raw = urlencode(fields).encode()
        query, body = (raw, b"") if method == "GET" else (b"", raw)
        assert MONETBIL.translate(plain(body, query=query, method=method), NOW_MS) == expected
    assert MONETBIL.translate(plain(b"status=success"), NOW_MS) == Parked("missing:transaction_id")


def test_ebilling_may_send_json_too() -> None:
    """One third party's description; and SHAP's payouts come so, which are no payments."""
    body = {"reference": "CMD-1", "amount": "5000", "transactionid": "T1", "billingid": "555"}
    found = EBILLING.translate(plain(json.dumps(body).encode()), NOW_MS)
    assert isinstance(found, Ask)
    assert found == EBILLING.translate(plain(urlencode(body).encode()), NOW_MS)
    payout = {"shap_reference": "2220000141", "external_reference": "PO-1", "status": "success", "billingid": "555"}
    known = AboutPayout(("PO-1", "2220000141"))
    assert EBILLING.translate(plain(json.dumps(payout).encode()), NOW_MS) == known
    assert EBILLING.translate(plain(urlencode(payout).encode()), NOW_MS) == known
    named = payout | {"transaction_id": "disbursement-1", "external_reference": None}
    assert EBILLING.translate(plain(json.dumps(named).encode()), NOW_MS) == AboutPayout(
        ("2220000141", "disbursement-1")
    )
    nameless = {"shap_reference": {}, "external_reference": "", "billingid": "555"}
    assert EBILLING.translate(plain(json.dumps(nameless).encode()), NOW_MS) == Ignored("payout")


def test_how_each_provider_is_answered() -> None:
    """Monetbil expects its word as plain text; each provider has the retries of its queue."""
    assert (MONETBIL.acknowledgement, MONETBIL.acknowledgement_type) == (b"received", b"text/plain")
    assert [provider.queue for provider in PROVIDERS.values()] == [
        "stripe",
        *("payments", "payments", "monetbil", "payments", "payments"),
    ]


# --- every word ---------------------------------------------------------------------------------------


def test_every_word_of_the_asked_has_an_opinion() -> None:
    """The statuses that are documented or were seen."""
    assert set(monetbil.TRANSACTION) == {"1", "0", "-1", "-2", "7", "8", "9"}
    assert {code for code, (_, test) in monetbil.TRANSACTION.items() if test} == {"7", "8", "9"}
    assert set(moneroo.PAYMENT) == {"initiated", "pending", "success", "failed", "cancelled"}
    assert {f"payment.{name}" for name in ("initiated", "success", "failed", "cancelled")} == set(moneroo.EVENTS)
    assert set(ebilling.BILL) == {
        "created",
        "ready",
        "pending",
        "in_progress",
        "scheduled",
        "partially_paid",
        "paid",
        "processed",
        "failed",
        "cancelled",
        "expired",
    }


def test_every_kind_is_said_by_somebody() -> None:
    """A word of the rules that no provider says is one that no test of theirs has ever met."""
    said = {
        *stripe.SESSION_PAID.values(), *stripe.INTENT.values(), *stripe.CHARGE.values(), *stripe.REFUND.values(),
        *stripe.DISPUTE.values(), *stripe.CANCELED_AS.values(), *paystack.CHARGE.values(), *paystack.REFUND.values(),
        *paystack.DISPUTE.values(), *(kind for kind, _ in fedapay.TRANSACTION.values()), *ebilling.BILL.values(),
    }  # fmt: skip
    assert said | {Kind.REFUNDED_TOTAL} == set(Kind)


def test_every_reason_is_said_by_somebody_and_can_be_met() -> None:
    """Each word of each table is found in itself: a capital or an underscore in it would never match."""
    modules = (stripe, paystack, fedapay, monetbil, moneroo, ebilling)
    said = set()
    for module in modules:
        for word, reason in module.REASONS.items():
            assert meaning.reason({word: reason}, word.upper().replace(" ", "_")) is reason
            said.add(reason)
    assert said | {Reason.UNKNOWN} == set(Reason)


def test_settings_are_named_as_the_interface_names_them() -> None:
    """CAISSE_<PROVIDER>_<NAME>."""
    names = {f"{p.name}_{c.name}".upper() for p in PROVIDERS.values() for c in p.credentials}
    assert names == {
        "STRIPE_SECRET_KEY",
        "STRIPE_WEBHOOK_SECRETS",
        "PAYSTACK_SECRET_KEYS",
        "FEDAPAY_SECRET_KEY",
        "FEDAPAY_WEBHOOK_SECRETS",
        "MONETBIL_SERVICE_KEY",
        "MONETBIL_SERVICE_SECRETS",
        "MONEROO_SECRET_KEY",
        "MONEROO_WEBHOOK_SECRETS",
        "EBILLING_USERNAME",
        "EBILLING_SHARED_KEY",
        "EBILLING_CALLBACK_TOKENS",
        "EBILLING_SHAP_ID",
        "EBILLING_SHAP_SECRET",
    }
    assert list(PROVIDERS) == ["stripe", "paystack", "fedapay", "monetbil", "moneroo", "ebilling"]
    for provider in PROVIDERS.values():
        assert all(c.name.endswith("s") for c in provider.credentials if c.many)
        assert all(c.where.endswith(".") for c in provider.credentials)
        assert provider.capabilities.ask is (provider.question is not None) is (provider.answer is not None)
