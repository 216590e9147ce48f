"""What the book of payments refuses to conclude, and what it does when a row has moved under it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from sqlalchemy import insert, select, update

from outbox.queue import Queue
from service.ids import Ids
from service.merchants.tables import accounts
from service.payments.book import Book
from service.payments.facts import Fact, Kind, Source, Told
from service.payments.heard import Heard, Lacks, Waits
from service.payments.records import Conflict
from service.payments.tables import aliases, payments
from service.schema import outbox_tables
from tests.property.test_book_machine import ACCOUNT, engine
from tests.support.clock import Clock


def told(
    *references: str, kind: Kind = Kind.PENDING, source: Source = Source.CALLBACK, asked: int | None = 500
) -> Told:
    """One fact about one payment."""
    currency = "XOF" if asked is not None else None
    return Told(references, (Fact(kind, references[0], 1, 500, asked, currency, source=source),))


def open_book(tx: object) -> Book:
    """A book over a transaction."""
    numbers = itertools.count()
    return Book(tx, Queue(outbox_tables), Ids(Clock(), lambda: next(numbers)), 1_000, "caisse-here-")  # type: ignore[arg-type]


def test_a_hint_ties_no_names_together_and_merges_nothing() -> None:
    """Somebody who can forge a weak callback cannot make their payment another's: only evidence adds a name."""
    made = engine()
    with made.begin() as tx:
        book = open_book(tx)
        book.hear(ACCOUNT, told("tx_mine"), None)
        book.hear(ACCOUNT, told("tx_yours"), None)
        forged = book.hear(ACCOUNT, told("tx_mine", "tx_yours", "tx_new", source=Source.HINT), None)
        assert isinstance(forged, Heard)
        book.flush()
        assert len(tx.execute(select(payments)).all()) == 2
        assert set(tx.execute(select(aliases.c.reference)).scalars()) == {"tx_mine", "tx_yours"}
        begun = book.hear(ACCOUNT, told("tx_a", "tx_b", source=Source.HINT), None)
        assert isinstance(begun, Heard)
        book.flush()
        assert set(tx.execute(select(aliases.c.reference)).scalars()) == {"tx_mine", "tx_yours", "tx_a"}
        book.hear(ACCOUNT, told("tx_a", "tx_b", source=Source.ANSWER), None)
        book.flush()
        assert "tx_b" in set(tx.execute(select(aliases.c.reference)).scalars())
    made.dispose()


def test_what_names_no_amount_cannot_begin_a_payment() -> None:
    """A pending word without an amount lacks it; a refund waits for its payment; neither leaves a row."""
    made = engine()
    with made.begin() as tx:
        book = open_book(tx)
        assert book.hear(ACCOUNT, told("pi_1", asked=None), None) == Lacks("missing:amount_or_currency")
        assert book.hear(ACCOUNT, told("re_1", kind=Kind.REFUND_SUCCEEDED, asked=None), None) == Waits(("re_1",))
        book.flush()
        assert tx.execute(select(payments)).all() == []
    made.dispose()


def test_r17_a_row_that_somebody_else_has_changed_is_not_overwritten() -> None:
    """R17: compare and set on the version: the work is run again instead of losing the other's update."""
    made = engine()
    with made.begin() as tx:
        first = open_book(tx)
        first.hear(ACCOUNT, told("pi_1"), None)
        first.flush()
        second = open_book(tx)
        second.load(["pi_1"])
        tx.execute(update(payments).values(version=payments.c.version + 1))
        second.hear(ACCOUNT, told("pi_1", kind=Kind.CAPTURED), None)
        with pytest.raises(Conflict):
            second.flush()
    made.dispose()


def test_another_accounts_names_are_not_found() -> None:
    """R10: aliases belong to an account; the same provider id under another is another payment."""
    made = engine()

    with made.begin() as tx:
        tx.execute(insert(accounts), {"id": "acc_2", "provider": "stripe", "merchant_id": "mer_1", "live": False,
                                      "origin": "stored", "created_at_ms": 1})  # fmt: skip
        book = open_book(tx)
        one = book.hear(ACCOUNT, told("pi_1"), None)
        other = book.hear(replace(ACCOUNT, id="acc_2"), told("pi_1"), None)
        book.flush()
        assert isinstance(one, Heard) and isinstance(other, Heard)
        assert one.payment_id != other.payment_id
    made.dispose()
