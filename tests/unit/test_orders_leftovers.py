"""What is left over when an order or a session is paid or ends: second payments, open prompts, parts of a sum."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, update

from outbox.message import Message
from service.attention import listing
from service.merchants.audit import By
from service.orders import orders as order_steps
from service.orders import sessions as session_steps
from service.orders.expire import MAX_HOLD_MS, WIND_DOWN_POLICY, Expirer
from service.orders.follow import Follow
from service.orders.orders import EXPIRES_MS, Line
from service.orders.settle import EXPIRE, WIND_DOWN
from service.orders.tables import sessions
from service.payments.facts import Fact, Kind, Source, Told
from service.payments.records import Conflict
from service.payments.tables import attempts, payments, refunds
from service.schema import outbox_tables
from tests.property.test_book_machine import ACCOUNT
from tests.property.test_orders_machine import MINE, OURS, Shop, captured, fact
from tests.unit.test_orders_ends import code, open_matters, owed, refunded

PART = (2_000, "XOF")


class Returns:
    """A shop's `give_back` that remembers, and records the refund as one that waits to be sent."""

    def __init__(self) -> None:
        self.given: list[str] = []

    def __call__(self, tx: Connection, payment_id: str, by: By) -> None:
        """All of it."""
        self.given.append(payment_id)
        attempt = tx.execute(select(attempts.c.id).where(attempts.c.payment_id == payment_id)).scalar_one()
        amount = tx.execute(select(payments.c.captured_minor).where(payments.c.id == payment_id)).scalar_one()
        row = {"id": f"rf_{payment_id}", "payment_id": payment_id, "attempt_id": attempt, "origin": "caisse",
               "state": "queued", "amount_minor": amount, "currency": "XOF", "manual": False, "actor": by.actor,
               "created_at_ms": 1, "updated_at_ms": 1}  # fmt: skip
        tx.execute(insert(refunds), row)


@pytest.fixture
def returns() -> Returns:
    """What was given back."""
    return Returns()


@pytest.fixture
def shop(returns: Returns) -> Iterator[Shop]:
    """A shop in memory that gives back what its policies say."""
    made = Shop(returns)
    made.expirer = Expirer(None, None, made.queue, made.ids, made.clock, 0, returns)  # type: ignore[arg-type]
    yield made
    made.close()


def two_tries(shop: Shop, order_id: str | None = None, session_id: str | None = None) -> tuple[str, str]:
    """One that was told as failed, and the next."""
    first = shop.pay(order_id, session_id)
    shop.tell((first, fact(Kind.FAILED, first)))
    return first, shop.pay(order_id, session_id)


def session_over(shop: Shop) -> str:
    """A session of no order."""
    return shop.session(currency="XOF", amount_minor=5_000).id


def destinations(shop: Shop) -> set[tuple[str, str]]:
    """Whom the outbox's cancels are owed to, and about what."""
    m = outbox_tables.messages.c
    with shop.tx() as tx:
        return {(row.subject, row.destination) for row in tx.execute(select(m).where(m.topic == WIND_DOWN))}


# --- paid twice ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("policy", ["ask", "auto"])
def test_a_session_that_is_paid_twice_is_put_before_a_person_or_given_back(
    shop: Shop, returns: Returns, policy: Any, together: bool
) -> None:
    """Declined, tried again, and both were taken: the one that did not complete it can be refunded, and is, once."""
    shop.follow = Follow(returns, policy)
    session_id = session_over(shop)
    first, second = two_tries(shop, session_id=session_id)
    said = [(second, captured(second)), (first, captured(first))]
    for batch in [said] if together else [said[:1], said[1:]]:
        shop.tell(*batch)
    payer = shop.seen_session(session_id)["payment"]
    other = first if payer == second else second
    assert together or payer == second
    assert (open_matters(shop, payer), open_matters(shop, other)) == (set(), {"duplicate"})
    assert returns.given == ([other] if policy == "auto" else [])
    with shop.tx() as tx:
        (item,) = listing.listed(tx)
        assert item["actions"] == ["refund", "attach", "ignore"]
        assert listing.payment_of(tx, item) == other


def test_a_person_who_has_seen_a_second_payment_is_not_asked_again(shop: Shop) -> None:
    """Only new money opens the matter: what is told again, and the refund on its way, open nothing."""
    session_id = session_over(shop)
    first, second = two_tries(shop, session_id=session_id)
    shop.captured(second)
    shop.captured(first)
    with shop.tx() as tx:
        tx.execute(update(listing.attention).values(closed_at_ms=shop.clock()))
    shop.captured(first)
    refunded(shop, first, 1_000)
    assert open_matters(shop, first) == set()


def test_a_second_payment_is_given_back_only_while_the_first_ones_money_is_there(shop: Shop, returns: Returns) -> None:
    """The first went back in full: a person decides what the second is for."""
    shop.follow = Follow(returns, "auto")
    session_id = session_over(shop)
    first, second = two_tries(shop, session_id=session_id)
    shop.captured(second)
    refunded(shop, second, 5_000)
    shop.captured(first)
    assert (returns.given, open_matters(shop, first)) == ([], {"duplicate"})


@pytest.mark.parametrize("policy", ["ask", "auto"])
def test_an_orders_second_payment_goes_back_by_the_same_policy(shop: Shop, returns: Returns, policy: Any) -> None:
    """The younger capture, once; the order stays paid when it has gone."""
    shop.follow = Follow(returns, policy)
    order_id = shop.order()
    first, second = two_tries(shop, order_id)
    shop.captured(second)
    shop.captured(first)
    shop.captured(first)
    assert returns.given == ([first] if policy == "auto" else [])
    assert (shop.seen(order_id)["state"], open_matters(shop, order_id)) == ("paid", {"duplicate"})


# --- prompts that are still open ----------------------------------------------------------------------


def test_a_paid_orders_other_prompt_is_called_off(shop: Shop) -> None:
    """The first was told as failed and was taken; the second's prompt would take the money again."""
    order_id = shop.order()
    first, second = two_tries(shop, order_id)
    shop.captured(first)
    assert shop.seen(order_id)["state"] == "paid"
    assert destinations(shop) == {(second, ACCOUNT.id)}


def test_a_paid_sessions_other_prompt_is_called_off(shop: Shop) -> None:
    """The same without an order."""
    session_id = session_over(shop)
    first, second = two_tries(shop, session_id=session_id)
    shop.captured(first)
    assert shop.seen_session(session_id)["status"] == "paid"
    assert destinations(shop) == {(second, ACCOUNT.id)}


def test_a_revived_orders_prompt_is_called_off(shop: Shop) -> None:
    """A person takes too little as it is, while the rest is being asked for."""
    order_id = shop.order()
    shop.captured(shop.pay(order_id, asked=PART), PART)
    rest = shop.pay(order_id, asked=(3_000, "XOF"))
    with shop.tx() as tx:
        order_steps.revive(tx, shop.queue, MINE, order_id, shop.by, "enough")
    assert (shop.seen(order_id)["state"], owed(shop, WIND_DOWN)) == ("paid", [rest])


def test_one_provider_that_hangs_does_not_keep_the_others(shop: Shop) -> None:
    """Places are shared by account: room for several accounts that hang, and nobody takes all."""
    assert WIND_DOWN_POLICY.in_flight >= 4 * WIND_DOWN_POLICY.per_destination
    order_id = shop.order()
    payment_id = shop.pay(order_id)
    shop.cancel(order_id)
    assert destinations(shop) == {(payment_id, ACCOUNT.id)}


def test_an_orders_other_sessions_end_when_it_is_paid(shop: Shop) -> None:
    """Open: at once. With a prompt: when that is dead, and it takes no more tries until then."""
    order_id = shop.order()
    payer, idle, prompted = (shop.session(order_id=order_id).id for _ in range(3))
    first = shop.pay(order_id, payer)
    shop.tell((first, fact(Kind.FAILED, first)))
    prompt = shop.pay(order_id, prompted)
    shop.captured(first)
    states = [shop.seen_session(id_)["status"] for id_ in (payer, idle, prompted)]
    assert states == ["paid", "expired", "processing"]
    shop.tell((prompt, fact(Kind.CANCELED, prompt)))
    assert shop.seen_session(prompted)["status"] == "expired"
    assert shop.told("session.") == ["session.completed", "session.expired", "session.expired"]
    with shop.tx() as tx:
        assert tx.execute(select(sessions.c.ended_by).where(sessions.c.id == idle)).scalar() == "order"


# --- a part of the money ------------------------------------------------------------------------------


@pytest.mark.parametrize("late", ["ask", "refund"])
@pytest.mark.parametrize("end", ["expires", "canceled", "held"])
def test_an_order_that_ends_with_a_part_of_its_money_is_put_before_a_person(
    shop: Shop, returns: Returns, end: str, late: str
) -> None:
    """Right money, too little of it, and the time is up: `under`, told, and given back where that is the policy."""
    order_id = shop.order(late=late)
    part = shop.pay(order_id, asked=PART)
    if end == "canceled":
        shop.cancel(order_id)
    shop.captured(part, PART)
    if end == "held":
        shop.pay(order_id, asked=(3_000, "XOF"))
    if end != "canceled":
        shop.clock.advance(EXPIRES_MS)
        shop.expire(order_id)
        shop.clock.advance(MAX_HOLD_MS)
        shop.expire(order_id)
    seen = shop.seen(order_id)
    assert (seen["state"], seen["amount_paid"]) == ("canceled" if end == "canceled" else "expired", 2_000)
    assert seen["exceptions"] == (["under", "unresolved"] if end == "held" else ["under"])
    assert open_matters(shop, order_id) == {*seen["exceptions"]}
    assert shop.told()[-1] == "order.attention"
    assert returns.given == ([part] if late == "refund" else [])
    with shop.tx() as tx:
        (item,) = listing.listed(tx, reason="under")
        assert item["actions"] == ["revive", "refund", "ignore"]


def test_a_part_that_has_gone_back_troubles_nobody_any_more(shop: Shop) -> None:
    """The matter closes itself; until then it stays, whatever else is told."""
    order_id = shop.order()
    part = shop.pay(order_id, asked=PART)
    shop.captured(part, PART)
    shop.clock.advance(EXPIRES_MS)
    shop.expire(order_id)
    refunded(shop, part, 500)
    assert (shop.seen(order_id)["exceptions"], open_matters(shop, order_id)) == (["under"], {"under"})
    refunded(shop, part, 1_500)
    assert (shop.seen(order_id)["exceptions"], open_matters(shop, order_id)) == ([], set())


# --- whose refund it was ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "ours"),
    [("requested", False), ("queued", False), ("submitting", True), ("unknown", True), ("pending", True),
     ("succeeded", True), ("failed", False), ("canceled", False)],
)  # fmt: skip
def test_only_a_refund_that_the_provider_may_have_is_ours(shop: Shop, state: str, ours: bool) -> None:
    """One of ours waits to be sent, and the money goes back at the dashboard: the order is not moved by it."""
    product = shop.product(1)
    order_id = shop.order(Line(1, product), restock=True)
    payment_id = shop.pay(order_id)
    shop.captured(payment_id)
    refunded(shop, payment_id, 1)
    with shop.tx() as tx:
        tx.execute(update(refunds).values(state=state, amount_minor=5_000))
    shop.tell((payment_id, Fact(Kind.REFUND_SUCCEEDED, "theirs", 9, 4_999, None, "XOF", source=Source.ANSWER)))
    assert (shop.seen(order_id)["state"], shop.stock(product)) == (("refunded", 1) if ours else ("paid", 0))
    assert ("refunded_elsewhere" in open_matters(shop, order_id)) != ours


# --- steps that others call ---------------------------------------------------------------------------


def test_what_has_ended_takes_no_new_attempt(shop: Shop) -> None:
    """Asked before a payment that was let in goes on at another provider: by its session, and by its order."""
    session_id, order_id = session_over(shop), shop.order()

    def over(session: str | None = None, order: str | None = None) -> bool:
        with shop.tx() as tx:
            return session_steps.ended(tx, session, order)

    assert [over(), over(session_id), over(None, order_id), over(session_id, order_id)] == [False] * 4
    shop.pay(None, session_id)
    shop.pay(order_id)
    assert not over(session_id, order_id), "its own attempt is under way"
    shop.cancel(order_id)
    assert (over(None, order_id), over(session_id, order_id), over(session_id)) == (True, True, False)
    shop.clock.advance(EXPIRES_MS)
    shop.expire(session_id)
    assert over(session_id)


def test_a_session_is_ended_by_a_persons_hand(shop: Shop) -> None:
    """As if its time were up: at once, or once its prompt is dead; again changes nothing; paid is refused."""
    idle, prompted, paid = (session_over(shop) for _ in range(3))
    prompt, money = shop.pay(None, prompted), shop.pay(None, paid)
    shop.captured(money)

    def expire(session_id: str) -> str:
        with shop.tx() as tx:
            return session_steps.expire(tx, shop.queue, MINE, session_id, shop.by, "sold out")

    assert [expire(idle), expire(idle), expire(prompted), expire(prompted)] == ["expired"] * 2 + ["expiring"] * 2
    assert owed(shop, WIND_DOWN) == [prompt]
    assert code(shop, session_steps.expire, shop.queue, MINE, paid, shop.by) == "session_not_open"
    shop.tell((prompt, fact(Kind.CANCELED, prompt)))
    assert expire(prompted) == "expired"
    assert shop.told("session.") == ["session.completed", "session.expired", "session.expired"]


# --- rows ---------------------------------------------------------------------------------------------


def test_a_look_that_comes_too_early_promises_another(shop: Shop) -> None:
    """For the same time, and not under the id of the message that runs, which is done with this very transaction."""
    order_id = shop.order()
    m = outbox_tables.messages.c
    with shop.tx() as tx:
        (first,) = tx.execute(select(m.id, m.due_at_ms).where(m.topic == EXPIRE)).all()
    shop.clock.advance(1)
    message = Message(first.id, EXPIRE, "", order_id, "", 1, 1, 0, 0, 0)
    with shop.tx() as tx:
        shop.expirer.work(tx, [message])
    with shop.tx() as tx:
        rows = tx.execute(select(m.id, m.due_at_ms).where(m.topic == EXPIRE, m.id != first.id)).all()
    assert [row.due_at_ms for row in rows] == [first.due_at_ms]


def test_a_payment_that_is_late_from_now_on_has_another_version(shop: Shop) -> None:
    """Who has read it before collides instead of writing over it; told one by one, nothing collides."""
    order_id = shop.order()
    payment_id = shop.pay(order_id)
    shop.clock.advance(EXPIRES_MS)
    shop.expire(order_id)

    def version() -> int:
        with shop.tx() as tx:
            return int(tx.execute(select(payments.c.version).where(payments.c.id == payment_id)).scalar_one())

    def hear(*said: Told) -> None:
        with shop.tx() as tx:
            book = shop.book(tx)
            for one in said:
                book.hear(ACCOUNT, one, None)
            book.flush()

    external = Fact(Kind.PENDING, "m_ext", 1, None, 5_000, "XOF", source=Source.ANSWER)
    hear(Told(("ext",), (external,), None))
    dead = Told((f"ref_{payment_id}",), (fact(Kind.FAILED, payment_id, 5),), OURS + payment_id)
    # It names both, so they were one: what was heard before is written first, and the order ends by it.
    joined = Told((f"ref_{payment_id}", "ext"), (captured(payment_id, at_ms=9),), None)
    before = version()
    with pytest.raises(Conflict):
        hear(dead, joined)
    assert (version(), shop.seen(order_id)["state"]) == (before, "expiring")
    hear(dead)
    assert (version(), shop.seen(order_id)["state"]) == (before + 2, "expired")
    hear(joined)
    assert (shop.seen(order_id)["state"], shop.seen(order_id)["exceptions"]) == ("expired", ["late"])
