"""The check of the ledger: quiet over whatever may happen, and each planted fault is found with its sentence."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from sqlalchemy import Engine, create_engine, event, select
from sqlalchemy.pool import StaticPool

from service.errors import Refusal
from service.ledger import verify as verifying
from service.ledger.settlements import Settlement, record
from service.ledger.soundness import is_sound
from service.ledger.tables import ledger_checks
from service.ledger.verify import Check, Verifier, What
from service.payments.facts import Kind
from service.payments.tables import attention
from tests.property.test_book_machine import ACCOUNT
from tests.support.escrow import Market

T = TypeVar("T")


class Doors:
    """The market's database, asked as the service's is; `between` is done before each read."""

    def __init__(self, market: Market, between: Callable[[], object] = lambda: None) -> None:
        self._market, self._between = market, between

    async def read(self, query: Callable[..., T], *args: Any) -> T:
        """A query."""
        self._between()
        return await self.write(query, *args)

    async def write(self, work: Callable[..., T], *args: Any) -> T:
        """A work."""
        with self._market.tx() as tx:
            return work(tx, *args)


def check(market: Market, what: What = "all", between: Callable[[], object] = lambda: None, **more: Any) -> Check:
    """The whole check, or a part."""
    doors: Any = Doors(market, between)
    return asyncio.run(Verifier(doors, market.queue, market.ids, market.clock).check(market.by, what=what, **more))


def sql(market: Market, statement: str) -> None:
    """A fault, put there behind everybody's back."""
    with market.tx() as tx:
        tx.exec_driver_sql("PRAGMA ignore_check_constraints=1")
        assert tx.exec_driver_sql(statement).rowcount, statement
        tx.exec_driver_sql("PRAGMA ignore_check_constraints=0")


@pytest.fixture(scope="module")
def template() -> tuple[Market, bytes]:
    """A market in which some of everything has happened, and its database: lived once, for it is slow."""
    made = Market(payout_on_release=False)
    lived(made)
    with made.engine.connect() as connection:
        kept: bytes = connection.connection.driver_connection.serialize()  # type: ignore[union-attr]
    made.close()
    return made, kept


def engine(kept: bytes) -> Engine:
    """A database in memory, from what was kept of another."""
    made = create_engine("sqlite://", poolclass=StaticPool, connect_args={"isolation_level": None})
    with made.connect() as connection:
        connection.connection.driver_connection.deserialize(kept)  # type: ignore[union-attr]
    event.listen(made, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return made


@pytest.fixture
def market(template: tuple[Market, bytes]) -> Iterator[Market]:
    """It, as it was."""
    made, kept = template
    made.engine = engine(kept)
    yield made
    made.engine.dispose()


def lived(market: Market) -> None:
    """Some of everything."""
    market.sold()
    released, paid = market.sold(7_000)
    market.release(market.hold_of(released)["id"])
    market.pay_out(2_000)
    market.said(paid, Kind.REFUND_SUCCEEDED, "re_1", 1_000)
    _, disputed = market.sold(6_000)
    market.said(disputed, Kind.DISPUTE_OPENED, "dp_1", 6_000)
    _, back = market.sold(3_000)
    market.refund(back, 1_000)
    market.said(back, Kind.REFUND_SUCCEEDED, "re_2", 1_000)
    over = market.order()
    late = market.pay(over)
    market.cancel(over)
    market.said(late, Kind.CANCELED, "x")
    market.clock.advance(1_000)
    market.captured(late)
    session = market.session(amount_minor=5_000, currency="XOF")
    market.captured(market.pay(session_id=session.id))
    market.pay(session_id=market.session(amount_minor=5_000, currency="XOF").id)
    delivered, _ = market.sold(8_000)
    market.deliver(delivered)
    _, returned = market.sold(4_000)
    market.refund(returned)
    market.said(returned, Kind.REFUND_SUCCEEDED, "re_3", 4_000)
    market.order()
    with market.tx() as tx:
        record(tx, Settlement(ACCOUNT.id, 4_000, "XOF", "S-1", fee_minor=40), market.by)


def test_whatever_has_happened_adds_up(market: Market) -> None:
    """Sales, refunds, disputes, late money, payouts, settlements: nothing to say, and everything was looked at."""
    steps: list[tuple[int, int | None]] = []
    found = check(market, progress=lambda done, total: steps.append((done, total)))
    assert (found.problems, found.sound) == ((), True)
    assert {"payments": 9, "orders": 8, "holds": 6, "payouts": 1, "settlements": 1}.items() <= found.looked.items()
    assert found.looked["sessions"] == 2
    assert found.looked["postings"] > 15 and found.looked["subjects"] >= 12
    assert [done for done, _ in steps] == sorted(done for done, _ in steps) and steps[-1][0] > 0
    with market.tx() as tx:
        row = tx.execute(select(ledger_checks)).one()
    assert (row.id, bool(row.sound), json.loads(row.looked)) == (found.id, True, dict(found.looked))


HOLD = "(SELECT id FROM holds ORDER BY id LIMIT 1)"
FAULTS = {
    "UPDATE postings SET amount_minor = amount_minor + 1 WHERE id = 1": [
        "has debits of 43000, and its postings add up to 43001", "should have posted 5000 as capture",
    ],
    "UPDATE ledger_accounts SET debits_minor = debits_minor + 7 WHERE kind = 'float'": [
        "has debits of", "in XOF are 7 more than their credits",
    ],
    "UPDATE ledger_accounts SET credits_minor = credits_minor - 28000 WHERE kind = 'escrow'": [
        "may not be below 0", "The escrow of ben_",
    ],
    "UPDATE ledger_accounts SET currency = 'EUR' WHERE kind = 'escrow'": ["The posting", "EUR"],
    "UPDATE ledger_accounts SET live = 1 WHERE kind = 'escrow'": ["The posting", "live) and", "test)."],
    "DELETE FROM postings WHERE id = 2": ["should have posted 5000 as hold", "and has posted 0", "add up to 28000"],
    "UPDATE postings SET number = number + 1 WHERE id = 1": ["are numbered 2 to 2, and there are 1"],
    "UPDATE postings SET subject = 'pay_gone' WHERE id = 1": [
        "1 postings are of pay_gone, and there is no such", "and has posted 0",
    ],
    "UPDATE payouts SET state = 'failed'": ["The payout po_", "should have posted 0 as payout", "has posted"],
    "UPDATE settlements SET fee_minor = 41": ["The settlement stl_", "posted 41 as fee", "posted 40."],
    f"UPDATE holds SET refunded_minor = 5 WHERE id = {HOLD}": [
        "has refunded_minor 5, and its facts say 0", "should have posted", "The escrow of ben_",
    ],
    "UPDATE holds SET frozen_minor = 5 WHERE state = 'frozen'": ["has frozen_minor 5, and its facts say 6000"],
    f"UPDATE holds SET state = 'released' WHERE id = {HOLD}": ["has state released, and its facts say held"],
    "UPDATE payments SET status = 'failed' WHERE status = 'succeeded' AND amount_minor = 6000": [
        "has status failed, and its facts say succeeded",
    ],
    "UPDATE payments SET exceptions = '' WHERE exceptions = 'late'": ["has exceptions nothing, and its facts say late"],
    "UPDATE payments SET captured_minor = 1 WHERE amount_minor = 6000": ["captured_minor 1, and its facts say 6000"],
    "UPDATE payments SET refunded_minor = 2 WHERE amount_minor = 7000": ["refunded_minor 2, and its facts say 1000"],
    "UPDATE payments SET fee_minor = 3 WHERE amount_minor = 7000": ["has fee_minor 3, and its facts say nothing"],
    "UPDATE attempts SET state = 'pending' WHERE amount_minor = 6000": ["state pending, and its facts say succeeded"],
    "UPDATE orders SET paid_minor = 1 WHERE amount_minor = 6000": ["has paid_minor 1, and its facts say 6000"],
    "UPDATE orders SET payment_status = 'unpaid' WHERE amount_minor = 6000": ["payment_status unpaid", "say paid"],
    "UPDATE orders SET state = 'awaiting_payment' WHERE amount_minor = 5000 AND state = 'paid'": [
        "has state awaiting_payment, and its facts say paid",
    ],
    "UPDATE refunds SET state = 'failed' WHERE provider_reference = 're_2'": [
        "has state failed, and its facts say succeeded",
    ],
    "UPDATE refunds SET provider_reference = 're_9' WHERE provider_reference = 're_2'": [
        "has state succeeded, and its facts say nothing",
    ],
    "UPDATE facts SET kind = 'paidd' WHERE amount_minor = 6000": ["pay_", "cannot be read", "paidd"],
    "UPDATE sessions SET state = 'open' WHERE state = 'complete'": ["has state open, and its payment pay_"],
    "UPDATE sessions SET state = 'complete', payment_id = NULL, paid_at_ms = 5 WHERE state = 'processing'": [
        "has state complete, and no payment of it has money",
    ],
    "UPDATE sessions SET paid_at_ms = NULL WHERE state = 'complete'": ["has state complete, and paid_at_ms nothing"],
    "UPDATE sessions SET state = 'expired' WHERE state = 'processing'": ["has state expired, and ended_at_ms nothing"],
    # Holds: each would let money go, or keep it, against what is known.
    f"UPDATE holds SET state = 'frozen', frozen_minor = held_minor WHERE id = {HOLD}": [
        "has state frozen, and its facts say held",
    ],
    f"UPDATE holds SET state = 'frozen', frozen_minor = held_minor, against = 'dispute' WHERE id = {HOLD}": [
        "has state frozen, and its facts say held",
    ],
    "UPDATE holds SET state = 'held', release_at_ms = NULL WHERE state = 'release_scheduled'": [
        "has state held, and its facts say release_scheduled", "has state held, delivered_at_ms",
    ],
    f"UPDATE holds SET state = 'refunded', ended_at_ms = 5 WHERE id = {HOLD}": [
        "has state refunded, and its facts say held",
    ],
    f"UPDATE holds SET state = 'release_scheduled', release_at_ms = 5, delivered_at_ms = 5 WHERE id = {HOLD}": [
        "has state release_scheduled, and its facts say held", "has delivered_at_ms 5, and its facts say nothing",
    ],
    "UPDATE holds SET release_at_ms = delivered_at_ms - 1 WHERE state = 'release_scheduled'": [
        "has state release_scheduled, delivered_at_ms",
    ],
    "UPDATE holds SET state = 'held', frozen_minor = 0 WHERE state = 'frozen'": [
        "has state held, and its facts say frozen",
    ],
    "UPDATE holds SET against = 'buyer' WHERE state = 'frozen'": [
        "has against buyer, and its facts say buyer,dispute",
    ],
    f"UPDATE holds SET ended_at_ms = 5 WHERE id = {HOLD}": ["has state held, and ended_at_ms 5"],
    "UPDATE holds SET ended_at_ms = NULL WHERE state = 'released'": ["has state released, and ended_at_ms nothing"],
    "UPDATE orders SET delivered_at_ms = NULL WHERE state = 'delivered'": [
        "has state delivered, and delivered_at_ms nothing", "has state release_scheduled, and its facts say held",
    ],
    # Orders.
    "UPDATE orders SET state = 'refunded' WHERE amount_minor = 6000": [
        "has state refunded, and of what came for it 0 went back by our hand",
    ],
    "UPDATE orders SET state = 'refunded' WHERE amount_minor = 3000": [
        "has state refunded, and of what came for it 1000 went back by our hand",
    ],
    "UPDATE orders SET state = 'paid', fulfilled_at_ms = NULL WHERE state = 'paid' AND amount_minor = 6000": [
        "has state paid, and fulfilled_at_ms nothing",
    ],
    "UPDATE orders SET state = 'paid', fulfilled_at_ms = 5 WHERE state = 'awaiting_payment'": [
        "has state paid, and nothing was ever paid for it",
    ],
    "UPDATE orders SET ended_at_ms = NULL WHERE state = 'canceled'": ["has state canceled, and ended_at_ms nothing"],
    "UPDATE orders SET state = 'sold' WHERE amount_minor = 6000": ["ord_", "cannot be read", "sold"],
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_told_in_a_sentence(fault: str, market: Market) -> None:
    """Each in its own words, with the id and both values, and a person is told."""
    sql(market, fault)
    found = check(market)
    everything = "\n".join(found.problems)
    assert not found.sound and open_matters(market) == 1
    for sentence in FAULTS[fault]:
        assert sentence in everything, everything
    with market.tx() as tx:
        assert not is_sound(tx)


def test_what_is_mended_is_sound_again_and_a_part_proves_nothing_of_the_rest(market: Market) -> None:
    """Only a whole check takes the fault away; one that looks at the other half does not."""
    sql(market, "UPDATE postings SET amount_minor = amount_minor + 1 WHERE id = 1")
    assert not check(market, "ledger").sound
    part = check(market, "statuses")
    assert part.sound and part.id == ""
    assert open_matters(market) == 1
    sql(market, "UPDATE postings SET amount_minor = amount_minor - 1 WHERE id = 1")
    assert check(market, "ledger").sound and open_matters(market) == 1
    assert check(market).sound and open_matters(market) == 0
    with market.tx() as tx:
        assert is_sound(tx)
    with pytest.raises(Refusal, match="all, ledger, statuses"):
        check(market, "sums")  # type: ignore[arg-type]


def test_what_goes_on_meanwhile_is_no_fault(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two reads, of pages of one, somebody buys, and somebody is refunded."""
    for name in ("PAGE", "IDS_PAGE", "POSTINGS_PAGE", "SUBJECTS_PAGE"):
        monkeypatch.setattr(verifying, name, 1)
    sales: list[str] = []
    reads = 0

    def go_on() -> None:
        nonlocal reads
        reads += 1
        if reads % 6 == 0 and len(sales) < 20:
            order_id, payment_id = market.sold(1_000)
            sales.append(order_id)
            if len(sales) % 2:
                market.said(payment_id, Kind.REFUND_SUCCEEDED, f"re_{payment_id}", 400)
            else:
                market.release(market.hold_of(order_id)["id"])

    found = check(market, between=go_on)
    assert found.problems == () and len(sales) > 10


def test_only_the_first_hundred_problems_are_kept(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ruined ledger does not fill the row, and says how many there are."""
    monkeypatch.setattr(verifying, "PROBLEMS_MAX", 3)
    sql(market, "UPDATE postings SET number = number + 100")
    found = check(market)
    assert len(found.problems) == 3 and found.found > 10
    with market.tx() as tx:
        kept = json.loads(tx.execute(select(ledger_checks.c.problems)).scalar_one())
    assert kept[:3] == list(found.problems) and kept[3:] == [f"… and {found.found - 3} more."]


def test_money_that_was_known_when_its_order_ended_is_not_late_by_the_providers_clock(market: Market) -> None:
    """A provider's clock that is ahead of ours says nothing of what we knew already."""
    order_id = market.order()
    market.captured(market.pay(order_id, asked=(2_000, "XOF")), (2_000, "XOF"), at_ms=market.clock() + 10**9)
    market.clock.advance(3 * 3_600_000)
    market.expire(order_id)
    assert market.seen(order_id)["state"] == "expired"
    assert check(market).problems == ()


def open_matters(market: Market) -> int:
    """How often the ledger is before a person."""
    query = select(attention).where(attention.c.subject == "ledger", attention.c.closed_at_ms.is_(None))
    with market.tx() as tx:
        return len(tx.execute(query).all())
