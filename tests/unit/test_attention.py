"""The one list of what needs a person: nothing is missing, nothing is there twice, and what is done closes it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, insert, select, update

from outbox.message import Promise
from service.attention import listing, open_attention, words
from service.attention.words import ACTIONS, MANUAL, WORDS
from service.callbacks.tables import callbacks, quarantine
from service.commands.attention import act, listed
from service.commands.deliveries import again
from service.errors import NotFound, Refusal
from service.merchants.tables import accounts, audit, endpoints, events, merchants
from service.metrics import ATTENTION
from service.orders import orders as order_desk
from service.orders.orders import Draft, Line
from service.orders.owner import Whose
from service.orders.tables import orders
from service.payments.facts import Fact, Kind, Told
from service.payments.refund_rows import FAILED, NOT_OURS, STUCK, UNKNOWN
from service.payments.refund_rows import MANUAL as BY_HAND
from service.payments.rules import Problem
from service.payments.tables import attention, payments
from service.providers import CALLS
from service.schema import outbox_tables
from tests.support.refunds import CURRENCY, Desk, open_desk

AWA = Whose("mer_1", False)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = open_desk(tmp_path)
    yield made
    made.db.close()


def items(desk: Desk, **options: Any) -> list[dict[str, Any]]:
    """What the list says."""
    return asyncio.run(listed(desk, **options))  # type: ignore[arg-type]


def do(desk: Desk, item: str, action: str, reason: str = "looked at it", **more: Any) -> dict[str, Any]:
    """What a person does."""
    return asyncio.run(act(desk, item=item, action=action, reason=reason, **more))  # type: ignore[arg-type]


def code(desk: Desk, item: str, action: str, reason: str = "looked at it", **more: Any) -> str:
    """What is said to a person who may not."""
    with pytest.raises(Refusal) as no:
        do(desk, item, action, reason, **more)
    return no.value.code


def ended(desk: Desk, payment: str) -> None:
    """Its session was over when the money came."""
    with desk.db.engine.begin() as tx:
        tx.execute(update(payments).where(payments.c.id == payment).values(ended_at_ms=desk.clock() - 1))
        book = desk.book(tx, desk.clock())
        with book.undecided(payment):
            pass
        desk.close(tx, book, desk.clock())


def order(desk: Desk, amount: int = 500) -> str:
    """An order that waits for its money."""
    with desk.db.engine.begin() as tx:
        draft = Draft((Line(1, description="pagne", unit_minor=amount),), CURRENCY)
        return order_desk.create(tx, desk.queue, AWA, draft, desk.by)


def callback(desk: Desk, id_: str, status: str, **more: Any) -> None:
    """A callback that rests."""
    row = {"id": id_, "account_id": "acc_stripe", "key": id_, "provider": "stripe", "kind": "charge", "status": status,
           "method": "POST", "query": b"", "body": b"{}", "body_sha256": b"", "received_at_ms": desk.clock(),
           "last_seen_at_ms": desk.clock(), "finished_at_ms": desk.clock()}  # fmt: skip
    with desk.db.engine.begin() as tx:
        tx.execute(insert(callbacks).values(row | more))


def undelivered(desk: Desk, event: str = "evt_1") -> str:
    """A webhook that was given up."""
    with desk.db.engine.begin() as tx:
        tx.execute(insert(endpoints).prefix_with("OR IGNORE"), {
            "id": "ep_1", "merchant_id": "mer_1", "url": "https://shop/", "events": "*", "status": "enabled",
            "created_at_ms": 1})  # fmt: skip
        tx.execute(insert(events), {"id": event, "merchant_id": "mer_1", "type": "payment.failed", "sequence": 1,
                                    "body": b"{}", "created_at_ms": 1, "live": 0})  # fmt: skip
        name = f"webhook:{event}:ep_1:0"
        desk.queue.enqueue(tx, [Promise(name, "webhook", "ep_1", event)], desk.clock())
        m = outbox_tables.messages
        tx.execute(
            update(m)
            .where(m.c.id == name)
            .values(state="dead", finished_at_ms=desk.clock(), last_error="timeout", tries=1, claim=1, settled_claim=1)
        )
    return name


# --- words --------------------------------------------------------------------------------------------


def test_every_reason_has_words_in_both_languages() -> None:
    """A word that the code can open without a sentence would stand before a person as it is."""
    opened = {*Problem, BY_HAND, FAILED, UNKNOWN, STUCK, NOT_OURS, *ATTENTION} - set(listing.SAID_BY_CALLBACKS)
    assert opened <= set(WORDS)
    for reason, said in WORDS.items():
        assert said.en and said.fr and said.en != said.fr, reason
        assert set(said.may) <= set(ACTIONS) - {"ignore"}, reason


def test_who_cannot_refund_by_api_has_words_that_say_what_to_do() -> None:
    """A manual refund at a provider without its own instruction would leave a person alone."""
    assert {name for name, calls in CALLS.items() if calls.refund is None} == set(MANUAL)
    assert "SHAP" in words.sentence(BY_HAND, "ebilling", "fr")


# --- money --------------------------------------------------------------------------------------------


def test_what_is_too_much_goes_back(desk: Desk) -> None:
    """Over by 200 of 700: 200 go back, the item is closed with it, and both are in the audit trail."""
    fact = Fact(Kind.CAPTURED, "pi_1", 1, 700, 500, CURRENCY)
    payment = desk.tell("stripe", Told(("pi_1",), (fact,)))
    (item,) = items(desk)
    assert (item["reason"], item["payment"], item["actions"]) == ("over", payment, ["refund", "ignore"])
    done = do(desk, item["id"], "refund", "the customer asked")
    assert done["refund"]["amount"] == 200
    assert items(desk) == []
    assert [row.action for row in desk.rows(audit)] == ["refund.created", "attention.refund"]
    with pytest.raises(NotFound):
        do(desk, item["id"], "ignore")


def test_of_two_who_act_at_once_one_is_told_that_it_is_done(desk: Desk) -> None:
    """Both saw it open; the money goes back once."""
    desk.tell("stripe", Told(("pi_1",), (Fact(Kind.CAPTURED, "pi_1", 1, 1_000, 500, CURRENCY),)))
    (item,) = items(desk)

    async def both() -> list[Any]:
        acts = (act(desk, item=item["id"], action="refund", reason="x", amount=200) for _ in range(2))  # type: ignore[arg-type]
        return await asyncio.gather(*acts, return_exceptions=True)

    assert sorted(type(one).__name__ for one in asyncio.run(both())) == ["NotFound", "dict"]
    assert [row.amount_minor for row in desk.rows()] == [200]


def test_all_of_what_is_wrong_goes_back(desk: Desk) -> None:
    """A mismatch has nothing of what was asked for: everything goes back, or is said to be for an order."""
    facts = (Fact(Kind.PENDING, "pi_1", 1, None, 500, CURRENCY), Fact(Kind.CAPTURED, "pi_1", 1, 700, None, "EUR"))
    desk.tell("stripe", Told(("pi_1",), facts))
    (item,) = items(desk)
    assert (item["reason"], item["actions"]) == ("mismatch", ["refund", "attach", "ignore"])
    done = do(desk, item["id"], "refund")
    assert (done["refund"]["amount"], done["refund"]["currency"]) == (700, "EUR")


def test_a_refund_that_is_refused_leaves_the_item_open(desk: Desk) -> None:
    """Nothing half done: no row, no audit, and the matter still stands."""
    desk.tell("stripe", Told(("pi_1",), (Fact(Kind.CAPTURED, "pi_1", 1, 700, 500, CURRENCY),)))
    (item,) = items(desk)
    assert code(desk, item["id"], "refund", amount=701) == "above_the_rest"
    assert [one["id"] for one in items(desk)] == [item["id"]]
    assert desk.rows() == desk.rows(audit) == []


def test_late_money_without_an_order_is_attached_to_one(desk: Desk) -> None:
    """A person says what it is for: the order is paid by it, in the transaction that closes the matter."""
    payment = desk.paid()
    ended(desk, payment)
    (item,) = items(desk)
    assert (item["reason"], item["actions"]) == ("late", ["refund", "attach", "ignore"])
    assert code(desk, item["id"], "attach") == "order_needed"
    assert code(desk, item["id"], "attach", order="ord_none") == "not_found"
    wanted = order(desk)
    assert do(desk, item["id"], "attach", order=wanted) == {
        "id": item["id"], "action": "attach", "closed_at": "2026-11-20T09:00:00.000Z", "order": wanted,
        "payment": payment,
    }  # fmt: skip
    (row,) = desk.rows(payments)
    assert row.order_id == wanted
    assert items(desk, reason="late") == []


def test_late_money_revives_its_order(desk: Desk) -> None:
    """The order and the payment say it once, and taking the money ends both."""
    wanted = order(desk)
    payment = desk.paid()
    with desk.db.engine.begin() as tx:
        tx.execute(update(orders).values(state="expired", paid_minor=500))
        tx.execute(update(payments).values(order_id=wanted))
        open_attention(tx, desk.ids, wanted, "late", "ask", desk.clock())
    ended(desk, payment)
    (item,) = items(desk)
    assert (item["subject"], item["order"], item["actions"]) == (payment, wanted, ["revive", "refund", "ignore"])
    assert do(desk, item["id"], "revive")["order"] == wanted
    assert [row.state for row in desk.rows(orders)] == ["paid"]
    assert items(desk) == []
    assert all(row.closed_at_ms for row in desk.rows(attention))


def test_a_failed_refund_is_tried_again_as_a_new_one(desk: Desk) -> None:
    """The provider's no was final: another row, of the same amount and attempt."""
    desk.want(desk.paid(), 100)
    desk.provider = lambda _: httpx.Response(400, json={"error": {"type": "invalid_request_error", "code": "x"}})
    asyncio.run(desk.run())
    (item,) = items(desk)
    assert (item["reason"], item["subject_type"], item["actions"]) == ("refund_failed", "refund", ["refund", "ignore"])
    do(desk, item["id"], "refund")
    assert desk.states() == ["failed", "queued"]
    assert items(desk) == []


def test_an_unknown_refund_is_asked_about_at_once(desk: Desk) -> None:
    """`revive` does not send it again: it brings the next question forward."""
    desk.want(desk.paid(500, "paystack", "ref-1"), 100)
    asyncio.run(desk.run())
    desk.clock.advance(11 * 60_000)
    asyncio.run(desk.run())
    (item,) = items(desk)
    assert (item["reason"], item["actions"]) == ("refund_unknown", ["revive", "ignore"])
    assert do(desk, item["id"], "revive")["asked"] == 1
    sent = len(desk.sent)
    asyncio.run(desk.run())
    assert [request.method for request in desk.sent[sent:]] == ["GET"]


# --- callbacks and deliveries --------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["parked", "deferred", "dead"])
def test_a_resting_callback_is_in_the_list_and_runs_again(desk: Desk, status: str) -> None:
    """Looked up, not copied: it leaves the list by running."""
    callback(desk, "cb_1", status, reason="unreadable")
    callback(desk, "cb_2", "processed")
    with desk.db.engine.begin() as tx:
        open_attention(tx, desk.ids, "cb_1", "callback_dead", "stripe", desk.clock())
    (item,) = items(desk)
    assert (item["id"], item["reason"], item["detail"]) == ("callback:cb_1", f"callback_{status}", "unreadable")
    assert item["actions"] == ["revive", "ignore"]
    do(desk, item["id"], "revive")
    assert [row.status for row in desk.rows(callbacks, callbacks.c.id == "cb_1")] == ["received"]
    assert items(desk) == []
    assert all(row.closed_at_ms for row in desk.rows(attention))


def test_what_was_ignored_comes_back_when_it_rests_anew(desk: Desk) -> None:
    """Ignoring is about what was seen: the same callback, dead once more, is news."""
    callback(desk, "cb_1", "dead")
    desk.clock.advance(1_000)
    do(desk, "callback:cb_1", "ignore", "a test of theirs")
    assert items(desk) == []
    assert [row.reason for row in desk.rows(audit)] == ["a test of theirs"]
    desk.clock.advance(1_000)
    with desk.db.engine.begin() as tx:
        tx.execute(update(callbacks).values(finished_at_ms=desk.clock()))
    assert [item["id"] for item in items(desk)] == ["callback:cb_1"]
    do(desk, "callback:cb_1", "ignore")
    assert items(desk) == []


def test_a_dead_delivery_is_sent_again_as_a_new_one(desk: Desk) -> None:
    """And is out of the list from then on; ignoring another leaves it as it is."""
    name = undelivered(desk)
    (item,) = items(desk)
    assert (item["id"], item["reason"], item["actions"]) == (f"delivery:{name}", "delivery_dead", ["revive", "ignore"])
    assert do(desk, item["id"], "revive")["delivery"]["again_of"] == name
    assert items(desk) == []
    undelivered(desk, "evt_2")
    do(desk, "delivery:webhook:evt_2:ep_1:0", "ignore")
    assert items(desk) == []


def test_a_delivery_that_was_sent_again_elsewhere_is_out_of_the_list(desk: Desk) -> None:
    """By `deliveries retry`, which knows nothing of attention."""
    name = undelivered(desk)
    with desk.db.engine.begin() as tx:
        again(tx, desk.queue, name, desk.by, "by hand")
    assert items(desk) == []


def test_the_quarantine_is_in_the_list(desk: Desk) -> None:
    """What did not verify is a person's, too; who knows it is forged ignores it."""
    with desk.db.engine.begin() as tx:
        row = {"id": "qua_1", "account_id": "acc_stripe", "provider": "stripe", "reason": "bad_signature",
               "method": "POST", "headers": "[]", "query": b"", "body": b"", "received_at_ms": 1}  # fmt: skip
        tx.execute(insert(quarantine).values(row))
    (item,) = items(desk)
    assert (item["subject_type"], item["merchant"], item["detail"]) == ("quarantined", "mer_1", "bad_signature")
    do(desk, item["id"], "ignore")
    assert items(desk) == []


# --- the list itself ----------------------------------------------------------------------------------


def fill(desk: Desk) -> int:
    """Matters of every kind, several at the same moment."""
    for number in range(4):
        desk.clock.advance(number % 2)
        fact = Fact(Kind.CAPTURED, f"pi_{number}", 1, 700, 500, CURRENCY)
        desk.tell("stripe", Told((f"pi_{number}",), (fact,)))
        callback(desk, f"cb_{number}", "parked")
        undelivered(desk, f"evt_{number}")
    return 12


@pytest.mark.parametrize("size", [1, 5, 12, 50])
def test_pages_hold_everything_once(desk: Desk, size: int) -> None:
    """Newest first over all sources, also where times are the same."""
    count = fill(desk)
    seen: list[str] = []
    since: list[str] = []
    before = None
    while page := items(desk, limit=size, before=before):
        seen += [item["id"] for item in page]
        since += [item["since"] for item in page]
        before = page[-1]["cursor"]
    assert len(seen) == len(set(seen)) == count
    assert since == sorted(since, reverse=True)
    with desk.db.engine.connect() as tx:
        assert listing.counts(tx) == {"over": 4, "callback_parked": 4, "delivery_dead": 4}


@pytest.mark.parametrize("before", ["", "x", "1", ".id", "-1.id", "9" * 20 + ".id", "１.id"])
def test_a_cursor_that_is_none_is_refused(desk: Desk, before: str) -> None:
    """And not an error of ours."""
    with pytest.raises(Refusal) as no:
        items(desk, before=before)
    assert no.value.code == "bad_cursor"


def test_nobody_sees_or_moves_anothers(desk: Desk) -> None:
    """Another merchant's items are not there, whatever their table; neither are live ones to test keys."""
    fill(desk)
    with desk.db.engine.begin() as tx:
        tx.execute(insert(merchants), {"id": "mer_2", "name": "Bio", "status": "active", "created_at_ms": 1})
    assert items(desk, merchant="mer_2") == []
    assert len(items(desk, merchant="mer_1")) == 12
    with desk.db.engine.connect() as tx:
        assert listing.listed(tx, live=True) == []
        assert len(listing.listed(tx, merchant_id="mer_1", live=False)) == 12
    for item in items(desk):
        with pytest.raises(NotFound):
            do(desk, item["id"], "ignore", merchant="mer_2")
        with pytest.raises(NotFound):
            do(desk, item["id"], "ignore", merchant="mer_1", live=True)
    assert len(items(desk)) == 12


def test_what_a_person_asks_for_wrongly_is_said(desk: Desk) -> None:
    """No reason, no such action, one that does not fit, no such reason to filter by."""
    desk.paid()
    callback(desk, "cb_1", "dead")
    assert code(desk, "callback:cb_1", "ignore", " ") == "no_reason"
    assert code(desk, "callback:cb_1", "ignore", "x" * 501) == "no_reason"
    assert code(desk, "callback:cb_1", "burn") == "unknown_action"
    assert code(desk, "callback:cb_1", "refund") == "not_offered"
    assert code(desk, "att_none", "ignore") == "not_found"
    with pytest.raises(Refusal, match="no reason 'rain'"):
        items(desk, reason="rain")


def test_a_reason_of_another_version_still_has_a_sentence(desk: Desk) -> None:
    """A row of a reason that no table knows is shown and can be ignored."""
    with desk.db.engine.begin() as tx:
        open_attention(tx, desk.ids, "pay_gone", "from_the_future", "", desk.clock())
    (item,) = items(desk, lang="fr")
    assert item["words"] == "Une personne doit regarder ceci."
    do(desk, item["id"], "ignore")
    assert items(desk) == []


def test_the_account_that_owns_it_may_be_gone(desk: Desk) -> None:
    """A quarantined callback to an address that nobody has: only the operator sees it."""
    with desk.db.engine.begin() as tx:
        tx.execute(delete(accounts).where(accounts.c.id == "acc_paystack"))
        row = {"id": "qua_1", "account_id": "token:00", "provider": "ebilling", "reason": "no_token", "method": "POST",
               "headers": "[]", "query": b"", "body": b"", "received_at_ms": 1}  # fmt: skip
        tx.execute(insert(quarantine).values(row))
        assert tx.execute(select(accounts.c.id)).first() is not None
    assert [item["merchant"] for item in items(desk)] == [None]
    assert items(desk, merchant="mer_1") == []
