"""What counts as a difference, and what becomes of its row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

import service.orders.tables  # noqa: F401 - the tables of holds refer to it
from service.ledger import reconcile as rows
from service.ledger.compare import Difference, Differs, compare
from service.ledger.tables import differences
from service.payments.facts import Fact, Kind, Source, Told
from service.payments.heard import Account
from service.payments.records import AttemptRecord, FactRecord
from service.payments.tables import attention
from tests.support.refunds import Desk, open_desk

UNTIL_MS = 2_000
STRIPE = Account("acc_stripe", "stripe", "mer_1", False)
K = Kind


def fact(kind: Kind, amount: int | None = 5_000, currency: str = "XOF", movement: str = "pi_1", **more: Any) -> Fact:
    return Fact(kind, movement, **{"at_ms": 1_000, "amount_minor": amount, "currency": currency} | more)


def told(*facts: Fact) -> Told:
    return Told(("pi_1",), facts)


def attempt(state: str, *facts: Fact) -> AttemptRecord:
    kept = {(one.kind.value, one.movement): FactRecord(one, None, 0) for one in facts}
    row = {"id": "try_1", "payment_id": "pay_1", "currency": "XOF", "state": state, "reference": "caisse-here-1"}
    return AttemptRecord(row, kept)


PAID = attempt("succeeded", fact(K.CAPTURED))
WAITS = attempt("pending", fact(K.PENDING, None))
BACK = attempt("succeeded", fact(K.CAPTURED), fact(K.REFUND_SUCCEEDED, movement="re_1"))

TWICE = attempt("succeeded", fact(K.CAPTURED), fact(K.CAPTURED, movement="pi_2"))
ON_TRUST = attempt("succeeded", fact(K.CAPTURED, movement="operator-1", source=Source.OPERATOR))


@pytest.mark.parametrize(
    ("said", "known", "kind", "ours", "theirs"),
    [
        (told(fact(K.CAPTURED)), [PAID], None, 0, 0),
        (told(fact(K.CAPTURED, movement="ch_1")), [PAID], None, 0, 0),  # another name of the same money
        (told(fact(K.CAPTURED, 4_000)), [PAID], Differs.AMOUNT, 5_000, 4_000),
        (told(fact(K.CAPTURED, 5_000, "EUR")), [PAID], Differs.AMOUNT, 0, 5_000),
        (told(fact(K.CAPTURED)), [WAITS], Differs.STATUS, 0, 5_000),
        (told(fact(K.PENDING, None)), [PAID], Differs.STATUS, 5_000, 0),
        (told(fact(K.FAILED, None)), [PAID], Differs.STATUS, 5_000, 0),
        (told(fact(K.FAILED, None)), [WAITS], None, 0, 0),  # no money: it is asked about, and that is all
        (told(fact(K.CAPTURED)), [], Differs.MISSING_HERE, 0, 5_000),
        (told(fact(K.PENDING, None)), [], None, 0, 0),  # nobody paid
        # What went back is not listed as having come.
        (told(fact(K.REFUNDED_TOTAL)), [BACK], None, 0, 0),
        (told(fact(K.CAPTURED), fact(K.REFUNDED_TOTAL, 1_000)), [PAID], Differs.STATUS, 5_000, 5_000),
        (told(fact(K.REVERSED, None)), [PAID], Differs.STATUS, 5_000, 0),
        (told(fact(K.CAPTURED), fact(K.REFUNDED_TOTAL, 0)), [PAID], None, 0, 0),
        # Too young to judge, on either side.
        (told(fact(K.CAPTURED, at_ms=UNTIL_MS)), [WAITS], None, 0, 0),
        (told(fact(K.PENDING, None)), [attempt("succeeded", fact(K.CAPTURED, at_ms=UNTIL_MS))], None, 0, 0),
        (told(fact(K.CAPTURED)), [TWICE], None, 0, 0),  # each is listed by itself
        (told(fact(K.CAPTURED)), [ON_TRUST], None, 0, 0),  # a person's word is under no name of the provider's
    ],
)  # fmt: skip
def test_what_differs(said: Told, known: list[AttemptRecord], kind: Differs | None, ours: int, theirs: int) -> None:
    """Money on one side alone, or other money; and nothing else is a matter for a person."""
    found = compare(said, known, UNTIL_MS)
    assert (found and (found.kind, found.ours_minor, found.theirs_minor)) == (kind and (kind, ours, theirs))


# --- rows ---------------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    found = open_desk(tmp_path)
    yield found
    found.db.close()


def page(desk: Desk, *said: Told) -> rows.Compared:
    until_ms = desk.clock() + 1
    with desk.db.engine.begin() as tx:
        return rows.take_page(tx, STRIPE, said, "caisse-here-", until_ms, desk.ids, "Africa/Abidjan", desk.clock())


def captured(desk: Desk, amount: int, name: str = "pi_1") -> Told:
    return Told((name,), (Fact(K.CAPTURED, name, desk.clock(), amount, amount, "XOF", source=Source.ANSWER),))


def stand(desk: Desk) -> list[tuple[str, str, int, bool]]:
    found = [(r.provider_reference, r.kind, r.theirs_minor, r.closed_at_ms is None) for r in desk.rows(differences)]
    return sorted(found)


def test_a_row_lives_as_long_as_its_difference(desk: Desk) -> None:
    """Found, found again, changed, gone, found anew: one row, and a matter that a person puts aside once."""
    id_ = desk.paid(500)
    assert page(desk, captured(desk, 500)).found == 0
    assert page(desk, captured(desk, 400)).found == 1
    (first,) = desk.rows(differences)
    assert (first.day, first.payment_id) == ("2026-11-20", id_)
    assert desk.open_matters() == [("reconcile_differs", id_)]
    with desk.db.engine.begin() as tx:
        tx.execute(update(attention).values(closed_at_ms=1))
    desk.clock.advance(1_000)
    page(desk, captured(desk, 400))
    assert desk.rows(differences) == [first]
    page(desk, captured(desk, 300))
    assert stand(desk) == [("pi_1", "amount", 300, True)]
    assert desk.open_matters() == []
    page(desk, captured(desk, 500))
    assert stand(desk) == [("pi_1", "amount", 300, False)]
    page(desk, captured(desk, 300))
    assert stand(desk) == [("pi_1", "amount", 300, True)]
    assert desk.open_matters() == [("reconcile_differs", id_)]


def test_one_page_closes_nothing_of_another_payment(desk: Desk) -> None:
    """Two payments on one page, the one right and the other wrong; and a third that is not on it at all."""
    for name in ("pi_1", "pi_2", "pi_3"):
        desk.paid(500, name=name)
    page(desk, *(captured(desk, 400, name) for name in ("pi_1", "pi_2", "pi_3")))
    page(desk, captured(desk, 500, "pi_1"), captured(desk, 400, "pi_2"))
    assert stand(desk) == [
        ("pi_1", "amount", 400, False),
        ("pi_2", "amount", 400, True),
        ("pi_3", "amount", 400, True),
    ]


def test_what_has_become_right_here_is_closed_without_a_list(desk: Desk) -> None:
    """A stranger that a late callback made known, and an amount that the provider has corrected."""
    desk.paid(500, name="pi_1")
    page(desk, captured(desk, 400, "pi_1"), captured(desk, 700, "pi_9"))

    def heal() -> int:
        with desk.db.engine.begin() as tx:
            return rows.heal(tx, STRIPE.id, desk.clock())

    assert heal() == 0
    desk.tell("stripe", captured(desk, 700, "pi_9"))
    assert heal() == 1
    desk.clock.advance(1_000)
    desk.tell("stripe", captured(desk, 400, "pi_1"))
    assert heal() == 1
    assert heal() == 0
    assert desk.open_matters() == []


def test_what_a_list_must_hold(desk: Desk) -> None:
    """Only what was surely begun and paid inside the span: of others' payments nobody knows when they were begun."""
    day = rows.DAY_MS
    now_ms = desk.clock()

    def expected(since_ms: int, until_ms: int, after: str = "", limit: int = 10) -> rows.Expected:
        with desk.db.engine.connect() as tx:
            return rows.expected(tx, STRIPE.id, since_ms, until_ms, after, limit)

    desk.paid(500, name="pi_1")
    desk.paid(500, name="pi_2")
    desk.paid(500, "paystack", name="T1")
    one, two = expected(now_ms - 2 * day, now_ms + 1).attempts
    assert expected(now_ms - day + 1, now_ms + 1).attempts == ()
    assert expected(now_ms - 2 * day, now_ms).attempts == ()
    first = expected(now_ms - 2 * day, now_ms + 1, limit=1)
    assert first == rows.Expected((one,), one)
    assert expected(now_ms - 2 * day, now_ms + 1, one, 1) == rows.Expected((two,), two)
    with desk.db.engine.begin() as tx:
        found = rows.take_missing(tx, STRIPE, [one, two, "try_gone"], desk.ids, "Africa/Abidjan", now_ms)
    assert (found.found, found.ask) == (2, ())
    assert stand(desk) == [("pi_1", "missing_there", 0, True), ("pi_2", "missing_there", 0, True)]
    page(desk, captured(desk, 500, "pi_1"))
    assert [row[3] for row in stand(desk)] == [False, True]


def test_the_list_of_open_ones_is_paged(desk: Desk) -> None:
    """The oldest first, after the last one of the page before; counted by kind; nothing of another merchant's."""
    page(desk, *(captured(desk, 700, f"pi_{number}") for number in range(3)))
    with desk.db.engine.connect() as tx:
        first = rows.listed(tx, limit=2)
        rest = rows.listed(tx, after=first[-1]["id"])
        assert [one["provider_reference"] for one in (*first, *rest)] == ["pi_0", "pi_1", "pi_2"]
        assert rows.counts(tx) == {"missing_here": 3}
        assert rows.counts(tx, rows.Which(merchant_id="mer_2")) == rows.counts(tx, rows.Which(live=True)) == {}
        assert rows.counts(tx, rows.Which("mer_1", "acc_stripe", False, "2026-11-20")) == {"missing_here": 3}
        assert not rows.listed(tx, rows.Which(since_day="2026-11-21"))
        assert len(tx.execute(select(attention)).all()) == 3
    assert isinstance(compare(captured(desk, 1), [], desk.clock() + 1), Difference)
