"""Refunds: never more than came, never made twice, and each outcome of a call ends in the state that the table says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from outbox.message import Done, Retry
from service.errors import NotFound, Refusal
from service.merchants.tables import audit
from service.payments.facts import Fact, Kind, Told
from service.payments.refund_rows import listed, public
from service.payments.tables import payments
from service.schema import outbox_tables
from tests.support.refunds import CURRENCY, Desk, open_desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = open_desk(tmp_path)
    yield made
    made.db.close()


def stripe(status: str = "succeeded", amount: int = 100, name: str = "re_1", intent: str = "pi_1") -> httpx.Response:
    """Stripe's refund."""
    body = {"id": name, "object": "refund", "status": status, "amount": amount, "currency": "xof"}
    return httpx.Response(200, json=body | {"payment_intent": intent})


def listing(*refunds: httpx.Response) -> httpx.Response:
    """Stripe's list of them."""
    return httpx.Response(200, json={"object": "list", "data": [one.json() for one in refunds], "has_more": False})


def refused(code: str) -> httpx.Response:
    """Stripe's no."""
    error = {"type": "invalid_request_error", "code": code, "message": "The money is gone."}
    return httpx.Response(400, json={"error": error})


def the_payment(desk: Desk) -> Any:
    (row,) = desk.rows(payments)
    return row


# --- what may be asked for ----------------------------------------------------------------------------


def test_never_more_than_was_captured_goes_back(desk: Desk) -> None:
    """Parts that are queued count: 200 + 200 of 500 leave 100; what failed gives its part back."""
    payment = desk.paid(500)
    first = desk.want(payment, 200)
    desk.want(payment, 200)
    with pytest.raises(Refusal, match="at most 100 minor units of XOF") as no:
        desk.want(payment, 101)
    assert no.value.code == "above_the_rest"
    with desk.db.engine.begin() as tx:
        desk.refunds.give_up(tx, first["id"], "asked twice", desk.by)
    assert desk.want(payment, None)["amount_minor"] == 300
    with pytest.raises(Refusal, match="at most 0"):
        desk.want(payment, None)


@pytest.mark.parametrize("amount", [0, -1, 10**16, 2**63, True, 1.5, "100"])
def test_an_amount_that_is_none_is_refused(desk: Desk, amount: Any) -> None:
    """Floats, signs and sums that no payment has are refused before anything is written."""
    payment = desk.paid()
    with pytest.raises(Refusal) as no:
        desk.want(payment, amount)
    assert no.value.code == "bad_amount"
    assert desk.rows() == []


def test_what_has_no_money_cannot_be_refunded(desk: Desk) -> None:
    """A payment that waits, one that is not there, a reason without an end."""
    waiting = desk.tell("stripe", Told(("pi_9",), (Fact(Kind.PENDING, "pi_9", 1, None, 500, CURRENCY),)))
    with pytest.raises(Refusal) as no:
        desk.want(waiting)
    assert no.value.code == "nothing_captured"
    with pytest.raises(NotFound):
        desk.want("pay_none")
    with pytest.raises(Refusal) as no:
        desk.want(desk.paid(), reason="x" * 501)
    assert no.value.code == "bad_reason"


def test_money_that_was_clawed_back_is_not_given_twice(desk: Desk) -> None:
    """A reversal took 300 of 500 already: 200 are left."""
    payment = desk.paid(500, "paystack", "ref-1")
    desk.back(Kind.REVERSED, "ref-1", 300, "ref-1", "paystack")
    with pytest.raises(Refusal, match="at most 200"):
        desk.want(payment, 300)


def test_a_refund_is_written_down_before_it_is_sent(desk: Desk) -> None:
    """Row, message, audit and event are one commit, and nothing has left."""
    payment = desk.paid()
    row = desk.want(payment, 100, "trop grand")
    assert (row["state"], row["amount_minor"], row["origin"], row["manual"]) == ("queued", 100, "caisse", False)
    (message,) = desk.rows(outbox_tables.messages, outbox_tables.messages.c.topic == "refund")
    assert (message.subject, message.destination) == (row["id"], "acc_stripe")
    assert [(entry.action, entry.reason) for entry in desk.rows(audit)] == [("refund.created", "trop grand")]
    assert desk.told() == ["refund.created"]
    assert desk.sent == []


# --- what becomes of it -------------------------------------------------------------------------------


def test_a_refund_that_is_done_at_once(desk: Desk) -> None:
    """Sent under its own id as the key; the payment's sum is computed from the provider's fact."""
    row = desk.want(desk.paid(), 100, "trop grand")
    desk.provider = lambda _: stripe()
    ((outcome, _),) = asyncio.run(desk.run())
    assert isinstance(outcome, Done)
    (request,) = desk.sent
    assert request.headers["idempotency-key"] == row["id"]
    (kept,) = desk.rows()
    assert (kept.state, kept.provider_reference) == ("succeeded", "re_1")
    assert (the_payment(desk).refunded_minor, the_payment(desk).status) == (100, "partially_refunded")
    assert desk.told() == ["refund.created", "refund.succeeded"]
    assert desk.open_matters() == []


def test_a_refund_that_is_pending_is_asked_about_until_it_is_final(desk: Desk) -> None:
    """Accepted is not done: nothing is counted yet; the list says later that it is, and it was sent once."""
    desk.want(desk.paid(), 100)
    desk.provider = lambda _: stripe("pending")
    ((outcome, _),) = asyncio.run(desk.run())
    assert isinstance(outcome, Retry)
    assert desk.states() == ["pending"]
    assert the_payment(desk).refunded_minor == 0
    desk.provider = lambda _: listing(stripe("succeeded"))
    desk.clock.advance(60_000)
    ((outcome, _),) = asyncio.run(desk.run())
    assert isinstance(outcome, Done)
    assert desk.states() == ["succeeded"]
    assert [request.method for request in desk.sent] == ["POST", "GET"]


def test_a_refusal_is_a_failure_before_a_person(desk: Desk) -> None:
    """The provider's no is final; its words are kept, and the amount can be asked for again."""
    payment = desk.paid()
    row = desk.want(payment, None)
    desk.provider = lambda _: refused("balance_insufficient")
    ((outcome, _),) = asyncio.run(desk.run())
    assert isinstance(outcome, Done)
    (kept,) = desk.rows()
    assert (kept.state, kept.failure_reason) == ("failed", "balance: The money is gone.")
    assert desk.open_matters() == [("refund_failed", row["id"])]
    assert desk.told() == ["refund.created", "refund.failed"]
    assert desk.want(payment, None)["amount_minor"] == 500


def test_proof_that_nothing_was_sent_leaves_it_queued(desk: Desk) -> None:
    """A connection that was refused is no outcome: the same refund goes again under the same key."""

    def down(request: httpx.Request) -> httpx.Response:
        raise httpx.UnsupportedProtocol("nothing left here", request=request)

    row = desk.want(desk.paid(), 100)
    desk.provider = down
    ((outcome, _),) = asyncio.run(desk.run())
    assert isinstance(outcome, Retry)
    assert desk.states() == ["queued"]
    desk.provider = lambda _: stripe()
    desk.clock.advance(60_000)
    asyncio.run(desk.run())
    assert desk.states() == ["succeeded"]
    assert {request.headers["idempotency-key"] for request in desk.sent} == {row["id"]}


@pytest.mark.parametrize("trouble", ["timeout", "500", "unreadable"])
def test_a_lost_answer_is_unknown_and_the_key_asks_again(desk: Desk, trouble: str) -> None:
    """Where the provider takes a key the same request is the question; the payer gets the money once."""

    def lost(request: httpx.Request) -> httpx.Response:
        if trouble == "timeout":
            raise httpx.ReadTimeout("no answer", request=request)
        return httpx.Response(500 if trouble == "500" else 200, content=b"<html>")

    desk.want(desk.paid(), 100)
    desk.provider = lost
    asyncio.run(desk.run())
    assert desk.states() == ["unknown"]
    desk.provider = lambda _: stripe()
    desk.clock.advance(60_000)
    asyncio.run(desk.run())
    assert desk.states() == ["succeeded"]
    first, again = desk.sent
    assert (first.content, first.headers["idempotency-key"]) == (again.content, again.headers["idempotency-key"])


def test_after_a_day_the_key_is_forgotten_and_only_the_list_is_asked(desk: Desk) -> None:
    """A key that the provider has forgotten would make a second refund: then nothing is sent, whatever happens."""

    def lost(_: httpx.Request) -> httpx.Response:
        return httpx.Response(503)

    row = desk.want(desk.paid(), 100)
    desk.provider = lost
    asyncio.run(desk.run())
    desk.clock.advance(25 * 3_600_000)
    desk.provider = lambda _: listing()
    asyncio.run(desk.run())
    assert desk.states() == ["unknown"]  # that it is not there now proves nothing
    assert desk.open_matters() == [("refund_unknown", row["id"])]
    desk.clock.advance(7 * 3_600_000)
    desk.provider = lambda _: listing(stripe())
    asyncio.run(desk.run())
    assert desk.states() == ["succeeded"]
    assert [request.method for request in desk.sent] == ["POST", "GET", "GET"]
    assert desk.open_matters() == []


def test_a_worker_that_died_while_sending_leaves_it_unknown(desk: Desk) -> None:
    """Between the commit and the answer nobody knows; without a key it is never sent a second time."""

    class Died(BaseException):
        pass

    def die(_: httpx.Request) -> httpx.Response:
        raise Died

    desk.want(desk.paid(500, "paystack", "ref-1"), 100)
    desk.provider = die
    with pytest.raises(Died):
        asyncio.run(desk.run())
    assert desk.states() == ["submitting"]
    desk.provider = lambda _: httpx.Response(500)
    desk.clock.advance(60_000)
    asyncio.run(desk.run())
    assert desk.states() == ["unknown"]
    assert [request.method for request in desk.sent].count("POST") == 1


def test_a_bank_that_rejects_it_later_makes_it_a_failure(desk: Desk) -> None:
    """Succeeded, then failed: the money is back here, and a person has to find another way."""
    row = desk.want(desk.paid(), 100)
    desk.provider = lambda _: stripe()
    asyncio.run(desk.run())
    desk.back(Kind.REFUND_FAILED, "re_1")
    assert desk.states() == ["failed"]
    assert the_payment(desk).refunded_minor == 0
    assert desk.open_matters() == [("refund_failed", row["id"])]
    assert desk.told() == ["refund.created", "refund.succeeded", "refund.failed"]


def test_a_word_that_moves_no_money_moves_the_refund(desk: Desk) -> None:
    """Pending, then failed: the payment is as it was before, and the row is not left waiting for a sweep."""
    row = desk.want(desk.paid(), 100)
    desk.provider = lambda _: stripe("pending")
    asyncio.run(desk.run())
    desk.back(Kind.REFUND_FAILED, "re_1")
    assert desk.states() == ["failed"]
    assert desk.open_matters() == [("refund_failed", row["id"])]
    desk.back(Kind.REFUND_PENDING, "re_9", 50)
    assert desk.states() == ["failed", "pending"]
    assert the_payment(desk).refunded_minor == 0


def test_the_callback_may_be_faster_than_the_answer(desk: Desk) -> None:
    """While ours is on its way the provider tells of a refund: it is that one, and not somebody else's."""
    desk.want(desk.paid(), 100)

    def quick(_: httpx.Request) -> httpx.Response:
        desk.back(Kind.REFUND_SUCCEEDED, "re_1")
        return stripe()

    desk.provider = quick
    asyncio.run(desk.run())
    assert desk.states() == ["succeeded"]
    assert desk.open_matters() == []
    assert desk.told() == ["refund.created", "refund.succeeded"]


# --- somebody else's ----------------------------------------------------------------------------------


def test_a_refund_made_at_the_provider_becomes_a_row_and_a_matter(desk: Desk) -> None:
    """Seen twice, kept once; the payment's sum follows; a person is told."""
    payment = desk.paid()
    for _ in range(2):
        desk.back(Kind.REFUND_SUCCEEDED, "re_77", 200)
    (row,) = desk.rows()
    assert (row.origin, row.state, row.amount_minor, row.provider_reference) == ("external", "succeeded", 200, "re_77")
    assert desk.open_matters() == [("refund_not_ours", row.id)]
    assert the_payment(desk).refunded_minor == 200
    with pytest.raises(Refusal, match="at most 300"):
        desk.want(payment, 301)


def test_a_total_alone_is_a_refund_too(desk: Desk) -> None:
    """FedaPay says only how much went back: what no refund of ours explains is somebody else's."""
    payment = desk.paid(500, "fedapay", "301")
    desk.back(Kind.REFUNDED_TOTAL, "301", 200, "301", "fedapay")
    assert [(row.origin, row.amount_minor) for row in desk.rows()] == [("external", 200)]
    with pytest.raises(Refusal, match="at most 300"):
        desk.want(payment, 301)


def test_a_refund_before_the_capture_waits_for_it(desk: Desk) -> None:
    """Told first, it is a fact; the row comes with the money."""
    desk.tell("stripe", Told(("pi_1",), (Fact(Kind.PENDING, "pi_1", 1, None, 500, CURRENCY),)))
    desk.back(Kind.REFUND_SUCCEEDED, "re_1")
    assert desk.rows() == []
    desk.paid()
    assert desk.states() == ["succeeded"]
    assert the_payment(desk).status == "partially_refunded"


# --- by hand ------------------------------------------------------------------------------------------


def test_where_there_is_no_api_a_person_makes_it(desk: Desk) -> None:
    """It waits, says so, and what is marked done is a fact of an operator's; the provider's total adds nothing."""
    payment = desk.paid(500, "fedapay", "301")
    row = desk.want(payment, 200)
    assert row["manual"]
    assert desk.open_matters() == [("refund_manual", row["id"])]
    assert asyncio.run(desk.run()) == []
    with desk.db.engine.begin() as tx, pytest.raises(Refusal) as no:
        desk.refunder.mark_done(tx, row["id"], " ", desk.by)
    assert no.value.code == "no_reason"
    with desk.db.engine.begin() as tx:
        done = desk.refunder.mark_done(tx, row["id"], "done in the dashboard", desk.by)
    assert done["state"] == "succeeded"
    assert the_payment(desk).refunded_minor == 200
    assert desk.open_matters() == []
    desk.back(Kind.REFUNDED_TOTAL, "301", 200, "301", "fedapay")
    assert the_payment(desk).refunded_minor == 200
    assert len(desk.rows()) == 1
    with desk.db.engine.begin() as tx, pytest.raises(Refusal) as no:
        desk.refunder.mark_done(tx, row["id"], "again", desk.by)
    assert no.value.code == "not_manual"


def test_a_manual_one_that_the_provider_tells_of_is_done(desk: Desk) -> None:
    """The operator refunds at the dashboard and forgets to say so: the total explains it."""
    desk.want(desk.paid(500, "fedapay", "301"), 200)
    desk.back(Kind.REFUNDED_TOTAL, "301", 200, "301", "fedapay")
    assert desk.states() == ["succeeded"]
    assert desk.open_matters() == []


def test_one_that_nobody_knows_can_be_decided_by_who_looked(desk: Desk) -> None:
    """Seen at the provider: with its id there, so that the provider's own word later is no second refund."""
    payment = desk.paid(500, "paystack", "ref-1")
    row = desk.want(payment, 100)
    asyncio.run(desk.run())
    assert desk.states() == ["unknown"]
    with desk.db.engine.begin() as tx, pytest.raises(Refusal) as no:
        desk.refunder.mark_done(tx, row["id"], "seen there", desk.by)
    assert no.value.code == "no_provider_reference"
    with desk.db.engine.begin() as tx:
        desk.refunder.mark_done(tx, row["id"], "seen there", desk.by, "4711")
    desk.back(Kind.REFUND_SUCCEEDED, "refund:4711", 100, "ref-1", "paystack")
    assert the_payment(desk).refunded_minor == 100
    assert desk.states() == ["succeeded"]
    other = desk.want(payment, 100)
    asyncio.run(desk.run())
    with desk.db.engine.begin() as tx, pytest.raises(Refusal) as no:
        desk.refunder.mark_done(tx, other["id"], "seen there", desk.by, "4711")
    assert no.value.code == "already_known"
    with desk.db.engine.begin() as tx:
        desk.refunds.give_up(tx, other["id"], "it is not there", desk.by)
    assert desk.states() == ["succeeded", "failed"]


# --- money that came twice ----------------------------------------------------------------------------


def pay_again(desk: Desk) -> None:
    """A second capture on the same payment."""
    desk.clock.advance(1_000)
    fact = Fact(Kind.CAPTURED, "pi_1b", desk.clock(), 500, 500, CURRENCY)
    desk.tell("stripe", Told(("pi_1",), (fact,)))


@pytest.mark.parametrize("policy", ["ask", "auto"])
def test_money_that_came_twice_goes_back_by_policy(tmp_path: Path, policy: Any) -> None:
    """`auto` gives the surplus back, once; `ask` leaves it to a person. Both put it before one."""
    desk = open_desk(tmp_path, policy)
    payment = desk.paid()
    pay_again(desk)
    pay_again(desk)
    assert ("duplicate", payment) in desk.open_matters()
    made = [(row.amount_minor, row.reason, row.actor) for row in desk.rows()]
    assert made == ([(500, "duplicate", "policy")] if policy == "auto" else [])
    desk.db.close()


# --- lists --------------------------------------------------------------------------------------------


def test_lists_are_the_merchants_own(desk: Desk) -> None:
    """Newest first, page by page, nobody else's."""
    payment = desk.paid()
    ids = [desk.want(payment, 10)["id"] for _ in range(3)]
    with desk.db.engine.connect() as tx:
        page = listed(tx, merchant_id="mer_1", limit=2)
        assert [row["id"] for row in page] == ids[:0:-1]
        assert [row["id"] for row in listed(tx, before=page[-1]["id"])] == ids[:1]
        assert listed(tx, merchant_id="mer_2") == listed(tx, live=True) == []
        with pytest.raises(Refusal, match="no status 'lost'"):
            listed(tx, status="lost")
        assert public(page[0])["status"] == "queued"
