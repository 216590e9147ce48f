"""Refunds of a payment, and payments a page at a time: what is asked, and what makes an answer worth nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from service.payments.facts import Fact, Kind, Source, Told
from service.providers import CALLS
from service.providers.base import NotKnown, Unclear
from service.providers.calls import LISTED_MAX, Given, Listed, Listing
from tests.support import echoes
from tests.support.conversations import Conversation

REFERENCE = echoes.REFERENCE
STRIPE, PAYSTACK = (
    Given(REFERENCE, ("pi_1",), 5000, "XOF", live=True),
    Given(REFERENCE, (REFERENCE,), 5000, "XOF", live=True),
)
SPAN = Listing(1_794_000_000_500, 1_794_086_400_000)


def refunds(provider: str, of: Given) -> Conversation:
    asking = CALLS[provider].refunds
    assert asking is not None
    return Conversation(asking(of, echoes.KEYS[provider]))


def listing(provider: str, span: Listing = SPAN) -> Conversation:
    listed = CALLS[provider].list
    assert listed is not None
    return Conversation(listed(span, echoes.KEYS[provider]))


def fact(kind: Kind, movement: str, amount_minor: int) -> Fact:
    return Fact(kind, movement, amount_minor=amount_minor, currency="XOF", source=Source.ANSWER)


# --- refunds ------------------------------------------------------------------------------------------


def re(id_: str, **more: Any) -> dict[str, Any]:
    it = {"id": id_, "object": "refund", "status": "succeeded", "amount": 2000, "currency": "xof"}
    return it | {"payment_intent": "pi_1", "charge": "ch_1"} | more


def test_refunds_at_stripe() -> None:
    """By the PaymentIntent, each under its own id, those of the dashboard among them."""
    talk = refunds("stripe", STRIPE)
    assert (talk.call.method, talk.call.path) == ("GET", "/v1/refunds?payment_intent=pi_1&limit=100")
    talk.answer(200, {"data": [re("re_1"), re("re_2", status="pending", amount=1000)], "has_more": False})
    two = (fact(Kind.REFUND_SUCCEEDED, "re_1", 2000), fact(Kind.REFUND_PENDING, "re_2", 1000))
    assert talk.result == Told(("pi_1",), two, REFERENCE)
    none = refunds("stripe", STRIPE).answer(200, {"data": [], "has_more": False})
    assert none.result == Told(("pi_1",), (), REFERENCE)


def test_refunds_of_a_session_at_stripe() -> None:
    """It is asked which PaymentIntent it came to; before there is one nothing can have gone back."""
    session = {
        "id": "cs_1", "object": "checkout.session", "mode": "payment", "status": "complete", "payment_status": "paid",
        "amount_total": 5000, "currency": "xof", "client_reference_id": REFERENCE, "payment_intent": "pi_1",
        "livemode": True,
    }  # fmt: skip
    of = Given(REFERENCE, ("cs_1",), 5000, "XOF", live=True)
    talk = refunds("stripe", of)
    assert talk.call.path.startswith("/v1/checkout/sessions/cs_1?")
    assert talk.answer(200, session).call.path == "/v1/refunds?payment_intent=pi_1&limit=100"
    unpaid = session | {"status": "open", "payment_status": "unpaid", "payment_intent": None}
    assert refunds("stripe", of).answer(200, unpaid).result == Told(("cs_1",), (), REFERENCE)
    test = session | {"livemode": False}
    assert refunds("stripe", of).answer(200, test).result == Unclear("test_answer_in_live")
    assert refunds("stripe", of).answer(500).result == Unclear("provider_error")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"data": [re("re_1")], "has_more": True}, "too_many"),
        ({"data": [re("re_1", payment_intent="pi_2", charge="ch_2")], "has_more": False}, "other_payment"),
        ({"data": [re("re_1", status="new")], "has_more": False}, "unreadable"),
        ({"data": [re("re_1", object="charge")], "has_more": False}, "unreadable"),
        ({"data": [re("re_1"), 5], "has_more": False}, "unreadable"),
        ({"data": {}, "has_more": False}, "unreadable"),
        ({"data": []}, "unreadable"),
    ],
)
def test_a_list_of_refunds_that_is_not_whole_says_nothing(body: object, said: str) -> None:
    """A refund that is left out would be made again."""
    assert refunds("stripe", STRIPE).answer(200, body).result == Unclear(said)


VERIFIED = {
    "status": True,
    "data": {"id": 77, "reference": REFERENCE, "status": "success", "amount": 500_000, "currency": "XOF"},
}


def back(number: int, **more: Any) -> dict[str, Any]:
    return {"id": number, "transaction": 77, "status": "processed", "amount": 200_000, "currency": "XOF"} | more


def test_refunds_at_paystack() -> None:
    """By the transaction's number, which verify says; each under the name that callbacks use."""
    talk = refunds("paystack", PAYSTACK)
    assert talk.call.path == f"/transaction/verify/{REFERENCE}"
    assert talk.answer(200, VERIFIED).call.path == "/refund?transaction=77&perPage=100"
    items = [back(1), back(2, status="pending", transaction={"id": 77}), back(3, transaction={"reference": REFERENCE})]
    talk.answer(200, {"status": True, "data": items, "meta": {"page": 1, "pageCount": 1}})
    assert talk.result == Told(
        (REFERENCE,),
        (
            fact(Kind.REFUND_SUCCEEDED, "refund:1", 2000),
            fact(Kind.REFUND_PENDING, "refund:2", 2000),
            fact(Kind.REFUND_SUCCEEDED, "refund:3", 2000),
        ),
        REFERENCE,
    )
    none = refunds("paystack", PAYSTACK).answer(200, VERIFIED).answer(200, {"status": True, "data": []})
    assert none.result == Told((REFERENCE,), (), REFERENCE)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, {"status": True, "data": [back(1, transaction=78)]}, Unclear("other_payment")),
        (200, {"status": True, "data": [back(1, transaction=None)]}, Unclear("other_payment")),
        (200, {"status": True, "data": [back(1)], "meta": {"page": 1, "pageCount": 2}}, Unclear("too_many")),
        (200, {"status": True, "data": [back(1, status="new")]}, Unclear("unreadable")),
        (200, {"status": True, "data": [back(n) for n in range(LISTED_MAX + 1)]}, Unclear("unreadable")),
        (200, {"status": False, "data": []}, Unclear("unreadable")),
        (404, {}, Unclear("refused")),
        (401, {}, Unclear("credentials")),
        (500, {}, Unclear("provider_error")),
    ],
)
def test_what_says_nothing_about_refunds_at_paystack(status: int, body: object, said: object) -> None:
    """A filter that is not heeded, more pages, words in no table."""
    assert refunds("paystack", PAYSTACK).answer(200, VERIFIED).answer(status, body).result == said


def test_refunds_of_what_paystack_does_not_know() -> None:
    """As verify says."""
    gone = refunds("paystack", PAYSTACK).answer(404, {"status": False, "message": "Transaction reference not found"})
    assert gone.result == NotKnown()
    nameless = refunds("paystack", PAYSTACK).answer(200, {"status": True, "data": VERIFIED["data"] | {"id": None}})  # type: ignore[operator]
    assert nameless.result == Unclear("unreadable")


# --- lists --------------------------------------------------------------------------------------------


def pi(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"pi_{number}", "object": "payment_intent", "status": "succeeded", "amount": 5000, "currency": "xof",
        "amount_received": 5000, "metadata": {"reference": REFERENCE}, "latest_charge": f"ch_{number}",
    } | more  # fmt: skip


def test_stripes_list() -> None:
    """In whole seconds that hold the span, page by page by the last id."""
    talk = listing("stripe")
    assert talk.call.path == ("/v1/payment_intents?created%5Bgte%5D=1794000000&created%5Blt%5D=1794086400&limit=80")
    talk.answer(200, {"data": [pi(1), pi(2, status="new"), pi(3, metadata={})], "has_more": True})
    assert isinstance(talk.result, Listed)
    assert (talk.result.cursor, talk.result.unread) == ("pi_3", 1)
    assert [(told.references, told.reference) for told in talk.result.told] == [
        (("pi_1", "ch_1"), REFERENCE), (("pi_3", "ch_3"), None),
    ]  # fmt: skip
    assert talk.result.told[0].facts[0].amount_minor == 5000
    again = listing("stripe", Listing(SPAN.since_ms, SPAN.until_ms, "pi_3"))
    assert again.call.path.endswith("&starting_after=pi_3")
    assert again.answer(200, {"data": [], "has_more": False}).result == Listed(())


def trx(number: int, **more: Any) -> dict[str, Any]:
    it = {"id": number, "reference": f"r-{number}", "status": "success", "amount": 500_000, "currency": "XOF"}
    return it | {"created_at": "2026-11-07T09:00:00.000Z"} | more


def test_paystacks_list() -> None:
    """By page; what nobody has finished is no more cancelled here than in verify."""
    talk = listing("paystack")
    assert talk.call.path == (
        "/transaction?from=2026-11-06T21%3A20%3A00Z&to=2026-11-07T21%3A20%3A00Z&perPage=100&page=1"
    )
    items = [trx(1), trx(2, status="abandoned"), trx(3, status="new")]
    talk.answer(200, {"status": True, "data": items, "meta": {"page": 1, "pageCount": 3}})
    assert isinstance(talk.result, Listed) and (talk.result.cursor, talk.result.unread) == ("2", 1)
    assert [told.facts[0].kind for told in talk.result.told] == [Kind.CAPTURED, Kind.CREATED]
    last = listing("paystack", Listing(SPAN.since_ms, SPAN.until_ms, "3"))
    assert last.call.path.endswith("&page=3")
    assert last.answer(200, {"status": True, "data": [], "meta": {"page": 3, "pageCount": 3}}).result == Listed(())


def entity(number: int, **more: Any) -> dict[str, Any]:
    it = {"id": number, "reference": f"trx_{number}", "status": "approved", "amount": 5000, "currency_id": 1}
    return it | {"created_at": "2026-11-07T09:00:00.000Z", "merchant_reference": f"m-{number}"} | more


def test_fedapays_list() -> None:
    """Filters are not documented: what was made outside the span is left out here."""
    talk = listing("fedapay")
    assert talk.call.path == "/v1/transactions/search?per_page=100&page=1&include=currency"
    outside = [entity(2, created_at="2026-11-05T00:00:00.000Z"), entity(3, created_at="2026-11-07T21:20:00.000Z")]
    items = [entity(1), *outside, entity(4, status="new"), entity(5, created_at=None)]
    talk.answer(200, {"v1/transactions": items, "meta": {"next_page": 2}})
    assert isinstance(talk.result, Listed) and (talk.result.cursor, talk.result.unread) == ("2", 1)
    assert [told.reference for told in talk.result.told] == ["m-1", "m-5"]
    assert talk.result.told[0].facts[0].amount_minor == 5000
    full = [entity(n) for n in range(1, LISTED_MAX + 1)]
    bare = listing("fedapay", Listing(SPAN.since_ms, SPAN.until_ms, "7")).answer(200, full).result
    assert isinstance(bare, Listed) and bare.cursor == "8" and len(bare.told) == LISTED_MAX
    assert listing("fedapay").answer(200, full[:5]).result.cursor is None
    assert listing("fedapay").answer(200, {"v1/transactions": full, "meta": {"next_page": None}}).result.cursor is None
    assert listing("fedapay").answer(200, {"v1/transactions": full, "meta": {"next_page": 1}}).result.cursor is None


@pytest.mark.parametrize("provider", ["stripe", "paystack", "fedapay"])
@pytest.mark.parametrize(
    ("status", "said"),
    [(200, "unreadable"), (401, "credentials"), (404, "refused"), (429, "rate_limited"), (500, "provider_error")],
)
def test_a_list_that_did_not_come(provider: str, status: int, said: str) -> None:
    """Nothing is concluded from it."""
    begin: Callable[[], Conversation] = lambda: listing(provider)  # noqa: E731
    assert begin().answer(status, {}).result == Unclear(said)
    assert begin().answer(200, b"<html>").result == Unclear("unreadable")
