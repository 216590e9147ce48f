"""The quick look of the check: it passes over nothing that the rules would find, whatever column is changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import IntegrityError

from service.escrow.tables import holds
from service.ledger import ordinary, statuses, verify
from service.orders.tables import orders
from service.payments.facts import Fact, Kind, Reason, Source, Told
from service.payments.tables import attempts, payments
from tests.property.test_book_machine import ACCOUNT
from tests.support.escrow import Market

WORDS: Mapping[str, tuple[str, ...]] = {
    "status": ("failed", "refunded"),
    "exceptions": ("late", "mismatch"),
    "currency": ("EUR",),
    "origin": ("external", "caisse"),
    "state": ("failed", "expired", "released", "frozen", "awaiting_payment"),
    "payment_status": ("unpaid", "partially_paid"),
    "kind": (Kind.REVERSED, Kind.PENDING, Kind.RECEIVED_PART, "refund", "fee", "float", "escrow"),
    "reason": (Reason.UNKNOWN,),
    "source": (Source.OPERATOR, Source.HINT),
}
"""What a column is changed to; any other text to a word that is nothing's."""
LEFT_OUT = ("id", "metadata", "explanation", "wish", "channel", "action", "description", "reference", "key", "actor",
            "created_at_ms", "updated_at_ms", "version", "sequence", "country", "operator", "return_url", "session_id",
            "told_at_ms", "seen_count", "callback_id", "otp_tries", "asked_at_ms", "provider", "late", "restock",
            "expires_at_ms", "buyer", "release_at_ms", "delivered_at_ms", "against", "overruled")  # fmt: skip
LAST = "~"


@pytest.fixture(scope="module")
def market() -> Iterator[Market]:
    """One ordinary payment of ours with a fee, an adopted one, a sale that is held, another that was released."""
    made = Market(payout_on_release=False)
    payment_id = made.pay()
    made.tell((payment_id, Fact(Kind.PENDING, "m", 1, source=Source.CALLBACK)))
    made.tell((payment_id, _captured("m", 5_000, 50)))
    with made.tx() as tx:
        book = made.book(tx)
        book.hear(ACCOUNT, Told(("pi_9",), (_captured("pi_9", 900, None, 900),)), None)
        book.flush()
    made.sold()
    released, _ = made.sold(7_000)
    made.release(made.hold_of(released)["id"])
    yield made
    made.close()


def _captured(name: str, minor: int, fee: int | None, asked: int | None = None) -> Fact:
    return Fact(Kind.CAPTURED, name, 1_700, minor, asked, "XOF", fee, source=Source.ANSWER)


def changes(tx: Connection) -> Iterator[str]:
    """Every column that is read, of every row, with other values; no row at all; and facts that there are not."""
    for table in ("payments", "attempts", "facts", "postings", "ledger_accounts", "orders", "holds"):
        columns = tx.exec_driver_sql(f"PRAGMA table_info({table})").all()
        rows = tx.exec_driver_sql(f"SELECT rowid, * FROM {table}").all()
        for row in rows:
            for (_, name, type_, *_), value in zip(columns, row[1:], strict=True):
                if name in LEFT_OUT:
                    continue
                others = WORDS.get(name, ("x",)) if type_ == "TEXT" else ((value or 0) + 1,)
                for other in {*others} - {value}:
                    said = f"'{other}'" if isinstance(other, str) else other
                    yield f"UPDATE {table} SET {name} = {said} WHERE rowid = {row[0]}"
            if table not in ("orders", "holds"):  # those the schema keeps from going
                yield f"DELETE FROM {table} WHERE rowid = {row[0]}"
    for kind in Kind:
        yield (
            "INSERT INTO facts (attempt_id, kind, movement, at_ms, amount_minor, currency, source, told_at_ms) "
            f"SELECT id, '{kind}', 'other', 5, 900, 'XOF', 'answer', 5 FROM attempts"
        )


def looked(tx: Connection) -> tuple[set[str], set[str]]:
    """What the rules find wrong, as the first words of sentences with the id; and what the quick look hands to them."""
    wrong: set[str] = set()
    handed = {*ordinary.payments_to_look_at(tx, "", LAST)}
    ids = tx.execute(select(payments.c.id)).scalars().all()
    whose = {row.id: row.payment_id for row in tx.execute(select(attempts.c.id, attempts.c.payment_id))}
    try:
        said = " ".join(verify._by_the_rules(tx, ids, "all"))
        wrong |= {id_ for id_ in ids if id_ in said} | {whose[id_] for id_ in whose if id_ in said}
    except (ValueError, LookupError):  # a word that nobody knows
        wrong |= {id_ for id_ in ids if verify._each([id_], lambda few: verify._by_the_rules(tx, few, "all"))}
    handed |= {*ordinary.orders_to_look_at(tx, "", LAST), *ordinary.holds_to_look_at(tx, "", LAST)}
    for table, of in ((orders, statuses.of_orders), (holds, statuses.of_holds)):
        for row in statuses.page(tx, table, "", 100):
            try:
                if of(tx, [row]):
                    wrong.add(row["id"])
            except (ValueError, KeyError):
                wrong.add(row["id"])
    return wrong, handed


def test_the_quick_look_passes_over_nothing_that_the_rules_would_find(market: Market) -> None:
    """Each change by itself, taken back afterwards; and without any only what is not ordinary is handed on."""
    tried, found = 0, 0
    with market.engine.connect() as tx:
        tx.exec_driver_sql("PRAGMA ignore_check_constraints=1")
        wrong, handed = looked(tx)
        assert (wrong, handed) == (set(), set())
        assert tx.execute(select(func.count()).select_from(payments)).scalar_one() == 4
        for change in list(changes(tx)):
            tx.exec_driver_sql("SAVEPOINT here")
            try:
                tx.exec_driver_sql(change)
                wrong, handed = looked(tx)
                assert {id_ for id_ in wrong if id_.startswith("pay_")} <= handed, (change, wrong - handed)
                # A hold or an order goes by its payments' rows; one that is wrong is found itself.
                assert not wrong or wrong & handed, change
                tried, found = tried + 1, found + bool(wrong)
            except IntegrityError:
                pass  # the schema does not let it be
            finally:
                tx.exec_driver_sql("ROLLBACK TO here")
        tx.exec_driver_sql("PRAGMA ignore_check_constraints=0")
    assert tried > 200 and found > 100, (tried, found)
