"""A payment's story: where it went and why, in order of time, and nothing of it is ever lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.errors import NotFound
from service.payments.facts import Fact, Kind, Reason, Source, Told
from service.payments.history import explain, timeline
from service.payments.outcome import hear_result
from service.payments.states import State
from service.payments.tables import attempts, payments
from service.providers import CALLS
from service.providers.calls import Accepted, Channel, Declined, Lost, NotSent, Redirect, Result
from service.routing.rules import Ask, Gateway, Router
from tests.support.refunds import CURRENCY, Desk, open_desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = open_desk(tmp_path)
    yield made
    made.db.close()


WAYS = replace(CALLS["paystack"], channels=(Channel("card", CURRENCY),))
CHAIN = ("acc_paystack", "acc_fedapay")


def story(desk: Desk, *results: Result, chain: tuple[str, ...] = CHAIN) -> str:
    """A payment of ours that is sent along a chain, each result a second after it was sent."""
    ask = Ask(500, CURRENCY, "card", "mer_1", False, providers=chain)
    gateways = [Gateway(name, name.removeprefix("acc_"), False, WAYS) for name in chain]
    choice = Router(()).choose(ask, gateways, "pay_1")
    desk.clock.advance(1_000)
    with desk.db.engine.begin() as tx:
        book = desk.book(tx, desk.clock())
        payment = {"id": "pay_1", "merchant_id": "mer_1", "live": False, "provider": "paystack", "amount_minor": 500,
                   "currency": CURRENCY, "method": "card", "explanation": json.dumps(choice.explained()),
                   "created_at_ms": desk.clock()}  # fmt: skip
        attempt = book.begin(payment, row(chain, 0))
        desk.close(tx, book, desk.clock())
    for number, result in enumerate(results):
        desk.clock.advance(1_000)
        with desk.db.engine.begin() as tx:
            book = desk.book(tx, desk.clock())
            hear_result(book, book.attempt("pay_1", f"try_{number}"), result)
            if number + 1 < len(results):
                book.another("pay_1", row(chain, number + 1))
            desk.close(tx, book, desk.clock())
    assert attempt.row["id"] == "try_0"
    return "pay_1"


def row(chain: tuple[str, ...], number: int) -> dict[str, Any]:
    """An attempt that is about to be sent."""
    reference = f"caisse-here-{number}"
    return {"id": f"try_{number}", "account_id": chain[number], "provider": chain[number].removeprefix("acc_"),
            "reference": reference, "key": reference, "amount_minor": 500, "currency": CURRENCY}  # fmt: skip


def has_money(number: int, name: str) -> Accepted:
    """The provider took it at once."""
    fact = Fact(Kind.CAPTURED, name, 1, 500, 500, CURRENCY, source=Source.ANSWER)
    return Accepted(Told((name,), (fact,), f"caisse-here-{number}"))


def why(desk: Desk, payment: str) -> list[str]:
    """The sentences."""
    with desk.db.engine.connect() as tx:
        return list(explain(tx, payment)["sentences"])


def entries(desk: Desk, payment: str, limit: int = 500) -> list[dict[str, Any]]:
    """The timeline."""
    with desk.db.engine.connect() as tx:
        return list(timeline(tx, payment, limit)["entries"])


def test_r2_the_payment_is_recorded_under_the_provider_that_really_holds_it(desk: Desk) -> None:
    """R2: the first refused the connection, the second has the money: the row, the story and the timeline say so."""
    payment = story(desk, NotSent("refused"), has_money(1, "301"))
    (kept,) = desk.rows(payments)
    assert (kept.provider, kept.provider_reference, kept.status) == ("fedapay", "301", "succeeded")
    told = why(desk, payment)
    assert told[0].startswith("The request names its providers: Paystack (acc_paystack), then FedaPay (acc_fedapay)")
    assert told[-7:] == [
        "Attempt 1: Paystack (acc_paystack) was asked for 500 XOF.",
        "Nothing was sent, or nothing can come of it: the connection was refused.",
        "Nobody can be charged by it, so FedaPay was asked.",
        "Attempt 2: FedaPay (acc_fedapay) was asked for 500 XOF.",
        "It has the money.",
        "Nobody else had to be asked.",
        "The payment is recorded under FedaPay and is succeeded.",
    ]
    attempted = [entry["text"] for entry in entries(desk, payment) if entry["what"] == "attempt"]
    assert attempted == ["Paystack asked for 500 XOF", "FedaPay asked for 500 XOF"]


def test_r2_a_decline_and_a_lost_answer_go_nowhere_else(desk: Desk) -> None:
    """R2: the story says that the second in the chain was not asked, and why it must not be."""
    no = Fact(Kind.FAILED, "ref-1", 1, reason=Reason.INSUFFICIENT_FUNDS, source=Source.ANSWER)
    payment = story(desk, Declined(Told(("ref-1",), (no,)), Reason.INSUFFICIENT_FUNDS))
    assert "The provider declined it: not enough money in the account." in why(desk, payment)
    assert why(desk, payment)[-2].startswith("No other provider was asked: a decline is an answer")
    assert len(desk.rows(attempts)) == 1


@pytest.mark.parametrize(
    ("result", "last"),
    [
        (Lost("timeout"), "No other provider may be asked: if this one took the money"),
        (Accepted(Told(("r",), ()), Redirect("https://there/")), "No other provider may be asked while this one can"),
        (NotSent("refused"), "No other provider was asked: what this one did could never be found out"),
    ],
)
def test_why_the_next_one_was_not_asked(desk: Desk, result: Result, last: str) -> None:
    """Each state has its own sentence; none is silent."""
    assert why(desk, story(desk, result))[-2].startswith(last)


def test_a_chain_that_is_spent_says_so(desk: Desk) -> None:
    """Both refused the connection: another could have been asked, and there was none."""
    told = why(desk, story(desk, NotSent("dns"), NotSent("tls")))
    assert told[-2].startswith("Another provider could have been asked, and there was none left")
    assert told[-1] == "The payment is recorded under FedaPay and is failed."


def test_r8_a_payment_whose_answer_was_lost_stays_with_all_that_is_known(desk: Desk) -> None:
    """R8: a timeout deletes nothing: row, attempt and what happened are there, and late money finds them."""
    payment = story(desk, Lost("timeout"))
    (kept,) = desk.rows(payments)
    assert (kept.id, kept.status) == (payment, "unknown")
    assert [one.state for one in desk.rows(attempts)] == [State.UNKNOWN]
    assert "It was sent, and nobody knows what became of it: no answer came in time." in why(desk, payment)
    lost = [entry["text"] for entry in entries(desk, payment) if entry["what"] == "decision"]
    assert lost == ["about to be sent", "the answer was lost (no answer came in time)"]
    fact = Fact(Kind.CAPTURED, "ref-1", 1, 500, 500, CURRENCY)
    assert desk.tell("paystack", Told(("ref-1",), (fact,), "caisse-here-0")) == payment
    assert len(desk.rows(payments)) == 1
    found = "The answer was lost (no answer came in time), and it was found to have the money."
    assert found in why(desk, payment)


def test_the_timeline_is_in_order_and_holds_every_kind(desk: Desk) -> None:
    """What was asked, sent, told, decided and given back, each at its time, causes before what they caused."""
    payment = story(desk, NotSent("refused"), has_money(1, "301"))
    desk.clock.advance(1_000)
    made = desk.want(payment, 100, "trop grand")
    desk.clock.advance(1_000)
    with desk.db.engine.begin() as tx:
        desk.refunder.mark_done(tx, made["id"], "in the dashboard", desk.by)
    told = entries(desk, payment)
    assert [entry["at"] for entry in told] == sorted(entry["at"] for entry in told)
    kinds = [entry["what"] for entry in told]
    assert kinds[0] == "payment"
    assert set(kinds) == {"payment", "attempt", "decision", "fact", "event", "refund", "audit", "attention"}
    texts = [entry["text"] for entry in told]
    assert "100 XOF to go back (by hand, cli)" in texts
    assert "100 XOF: succeeded" in texts
    assert "refund.done by cli: in the dashboard" in texts
    assert texts.index("100 XOF to go back (by hand, cli)") < texts.index("100 XOF: succeeded")
    assert "refund_manual: closed" in texts


@pytest.mark.parametrize("limit", [1, 3, 10_000])
def test_a_timeline_has_an_end(desk: Desk, limit: int) -> None:
    """A payment that was told of for ever does not fill the memory; the oldest stay, and it says that there is more."""
    payment = desk.paid()
    for number in range(20):
        desk.clock.advance(1)
        desk.back(Kind.REFUND_PENDING, f"re_{number}", 1)
    with desk.db.engine.connect() as tx:
        told = timeline(tx, payment, limit)
    assert len(told["entries"]) == min(limit, len(entries(desk, payment)))
    assert told["more"] == (limit < 20)
    assert told["entries"][0]["what"] == "payment"


def test_who_did_not_choose_says_so(desk: Desk) -> None:
    """A payment that somebody else started has no routing, and the story says it instead of nothing."""
    payment = desk.paid()
    with desk.db.engine.connect() as tx:
        told = explain(tx, payment)
        for look in (explain, timeline):
            with pytest.raises(NotFound):
                look(tx, "pay_none")
    assert told["routing"] is None
    assert told["sentences"][0].startswith("Somebody else started this payment")


def test_a_refund_is_told_by_what_became_of_it(desk: Desk) -> None:
    """A failure is in the timeline with the provider's own words."""
    payment = desk.paid()
    desk.want(payment, 100)
    body = {"error": {"type": "invalid_request_error", "code": "balance_insufficient", "message": "Top up."}}
    desk.provider = lambda _: httpx.Response(400, json=body)
    desk.clock.advance(1_000)
    asyncio.run(desk.run())
    assert "100 XOF: failed: balance: Top up." in [entry["text"] for entry in entries(desk, payment)]
