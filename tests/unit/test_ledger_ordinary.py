"""The quick look of the check: it passes over nothing that the rules would find, whatever column is changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import pytest
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import IntegrityError

from service.escrow.tables import holds
from service.ledger import ordinary, statuses, verify
from service.orders.tables import orders, sessions
from service.payments.facts import Fact, Kind, Reason, Source, Told
from service.payments.tables import attempts, payments
from tests.property.test_book_machine import ACCOUNT
from tests.support.escrow import Market

WORDS: Mapping[str, tuple[str, ...]] = {
    "status": ("failed", "refunded"),
    "exceptions": ("late", "mismatch"),
    "currency": ("EUR",),
    "origin": ("external", "caisse"),
    "state": ("failed", "expired"),
    "payment_status": ("unpaid", "partially_paid"),
    "kind": (Kind.REVERSED, Kind.PENDING, Kind.RECEIVED_PART, "refund", "fee", "float", "escrow"),
    "reason": (Reason.UNKNOWN,),
    "source": (Source.OPERATOR, Source.HINT),
}
"""What a column is changed to; any other text to a word that is nothing's."""
STATES: Mapping[str, tuple[str, ...]] = {
    "orders": ("expired", "awaiting_payment", "paid", "delivered", "refunded"),
    "sessions": ("open", "complete", "expired"),
    "holds": ("held", "release_scheduled", "frozen", "released", "refunded"),
}
LEFT_OUT = ("id", "metadata", "explanation", "wish", "channel", "action", "description", "reference", "key", "actor",
            "created_at_ms", "updated_at_ms", "version", "sequence", "country", "operator", "return_url", "session_id",
            "told_at_ms", "seen_count", "callback_id", "otp_tries", "asked_at_ms", "provider", "late", "restock",
            "expires_at_ms", "buyer", "ending_since_ms", "link_id", "methods", "locale", "secret", "tries_left",
            "ended_by", "product_id", "quantity")  # fmt: skip
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


@pytest.fixture(scope="module")
def states() -> Iterator[Market]:
    """An order that is paid, one that is delivered, one whose time was up; a session that has paid, and an open one."""
    made = Market(payout_on_release=False)
    made.sold()
    delivered, _ = made.sold(8_000)
    made.deliver(delivered)
    made.captured(made.pay(session_id=made.session(amount_minor=5_000, currency="XOF").id))
    made.session(amount_minor=5_000, currency="XOF")
    made.expire(made.order())
    yield made
    made.close()


def _captured(name: str, minor: int, fee: int | None, asked: int | None = None) -> Fact:
    return Fact(Kind.CAPTURED, name, 1_700, minor, asked, "XOF", fee, source=Source.ANSWER)


def changes(tx: Connection, tables: Iterable[str]) -> Iterator[str]:
    """Every column that is read, of every row, with other values, or without; and no row at all."""
    for table in tables:
        columns = tx.exec_driver_sql(f"PRAGMA table_info({table})").all()
        rows = tx.exec_driver_sql(f"SELECT rowid, * FROM {table}").all()
        for row in rows:
            for (_, name, type_, *_), value in zip(columns, row[1:], strict=True):
                if name in LEFT_OUT:
                    continue
                words = STATES.get(table, WORDS["state"]) if name == "state" else WORDS.get(name, ("x",))
                others = words if type_ == "TEXT" else ((value or 0) + 1,)
                for other in {*others} - {value}:
                    said = f"'{other}'" if isinstance(other, str) else other
                    yield f"UPDATE {table} SET {name} = {said} WHERE rowid = {row[0]}"
                if value is not None and table in STATES and name.endswith(("_at_ms", "payment_id")):
                    yield f"UPDATE {table} SET {name} = NULL WHERE rowid = {row[0]}"
            if table not in STATES:  # those the schema keeps from going
                yield f"DELETE FROM {table} WHERE rowid = {row[0]}"


def inserts() -> Iterator[str]:
    """Facts that there are not."""
    for kind in Kind:
        yield (
            "INSERT INTO facts (attempt_id, kind, movement, at_ms, amount_minor, currency, source, told_at_ms) "
            f"SELECT id, '{kind}', 'other', 5, 900, 'XOF', 'answer', 5 FROM attempts"
        )


def looked(tx: Connection, change: str = "") -> tuple[set[str], set[str]]:
    """What the rules find wrong, as the first words of sentences with the id; and what the quick look hands to them."""
    wrong: set[str] = set()
    handed = {*ordinary.orders_to_look_at(tx, "", LAST), *ordinary.sessions_to_look_at(tx, "", LAST)}
    handed |= {*ordinary.holds_to_look_at(tx, "", LAST)}
    if not change.startswith(("UPDATE sessions", "UPDATE holds")):  # of those payments know nothing
        handed |= {*ordinary.payments_to_look_at(tx, "", LAST)}
        wrong |= _wrong_payments(tx)
    for table, of in ((orders, statuses.of_orders), (sessions, statuses.of_sessions), (holds, statuses.of_holds)):
        for row in statuses.page(tx, table, "", 100):
            try:
                if of(tx, [row]):
                    wrong.add(row["id"])
            except (ValueError, KeyError):
                wrong.add(row["id"])
    return wrong, handed


def _wrong_payments(tx: Connection) -> set[str]:
    ids = tx.execute(select(payments.c.id)).scalars().all()
    whose = {row.id: row.payment_id for row in tx.execute(select(attempts.c.id, attempts.c.payment_id))}
    try:
        said = " ".join(verify._by_the_rules(tx, ids, "all"))
        return {id_ for id_ in ids if id_ in said} | {whose[id_] for id_ in whose if id_ in said}
    except (ValueError, LookupError):  # a word that nobody knows
        return {id_ for id_ in ids if verify._each([id_], lambda few: verify._by_the_rules(tx, few, "all"))}


def tried(tx: Connection, all_: Iterable[str]) -> Iterator[tuple[str, set[str], set[str]]]:
    """Each change by itself, taken back afterwards: with what is wrong then, and what is handed on."""
    tx.exec_driver_sql("PRAGMA ignore_check_constraints=1")
    for change in list(all_):
        tx.exec_driver_sql("SAVEPOINT here")
        try:
            tx.exec_driver_sql(change)
            yield change, *looked(tx, change)
        except IntegrityError:
            pass  # the schema does not let it be
        finally:
            tx.exec_driver_sql("ROLLBACK TO here")
    tx.exec_driver_sql("PRAGMA ignore_check_constraints=0")


def test_the_quick_look_passes_over_nothing_that_the_rules_would_find(market: Market) -> None:
    """Whatever is changed of payments; and without any change only what is not ordinary is handed on."""
    found: list[bool] = []
    with market.engine.connect() as tx:
        assert looked(tx) == (set(), set())
        assert tx.execute(select(func.count()).select_from(payments)).scalar_one() == 4
        money = changes(tx, ("payments", "attempts", "facts", "postings", "ledger_accounts"))
        for change, wrong, handed in tried(tx, [*money, *inserts()]):
            assert {id_ for id_ in wrong if id_.startswith("pay_")} <= handed, (change, wrong - handed)
            # A hold or an order goes by its payments' rows; one that is wrong is found itself.
            assert not wrong or wrong & handed, change
            found.append(bool(wrong))
    assert len(found) > 200 and sum(found) > 100, (len(found), sum(found))


def test_nor_does_it_of_orders_sessions_and_holds(states: Market) -> None:
    """Whatever is changed of them: each that is wrong then is handed on itself."""
    found: list[bool] = []
    with states.engine.connect() as tx:
        assert looked(tx) == (set(), set())
        for change, wrong, handed in tried(tx, changes(tx, STATES)):
            assert wrong <= handed, (change, wrong - handed)
            found.append(bool(wrong))
    assert len(found) > 100 and sum(found) > 50, (len(found), sum(found))
