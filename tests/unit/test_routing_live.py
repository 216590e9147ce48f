"""What is kept between payments: the rules until one changes, the accounts until their registry does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, event

import service.callbacks.tables
import service.orders.tables
import service.payments.tables  # noqa: F401 - the tables have to meet in the one MetaData
from service.ids import Ids
from service.merchants.accounts import Entry, Registry
from service.merchants.audit import By
from service.merchants.tables import accounts, merchants
from service.providers import CALLS
from service.routing import live, store
from service.routing.live import Routes
from service.routing.rules import Ask
from service.schema import metadata
from tests.support.clock import Clock

ASK = Ask(5_000, "XOF", "card", "mer_1", live=False)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A file, so that a reader can have an older snapshot; two merchants, one account of the first."""
    made = create_engine(f"sqlite:///{tmp_path}/r.db")
    event.listen(made, "connect", lambda raw, _: raw.execute("PRAGMA journal_mode=WAL"))
    with made.begin() as tx:
        metadata.create_all(tx)
        for name in ("mer_1", "mer_2"):
            tx.execute(merchants.insert().values(id=name, name=name, status="active", created_at_ms=1))
        add_account(tx, "acc_1")
    yield made
    made.dispose()


def add_account(tx: Connection, id_: str) -> None:
    values = {"merchant_id": "mer_1", "provider": "stripe", "live": False, "origin": "stored", "created_at_ms": 1}
    tx.execute(accounts.insert().values(id=id_, **values))


def registry(*ids: str) -> Registry:
    credentials = {"secret_key": ("sk_test_x",)}
    return Registry([Entry(id_, "stripe", "mer_1", False, "http://x", credentials, (), True, "") for id_ in ids])


def chain(routes: Routes, tx: Connection) -> list[str]:
    return [link.account_id for link in routes.choose(tx, ASK, "pay_1").chain]


def add_rule(tx: Connection, note: str) -> None:
    clock = Clock()
    store.create(tx, {"providers": ["stripe"], "note": note}, By("test", clock(), Ids(clock)))


def test_accounts_are_read_once_and_again_with_a_new_registry(engine: Engine) -> None:
    """An account that was added takes payments as soon as it is loaded, and no payment reads the table for nothing."""
    held = [registry("acc_1")]
    routes = Routes(lambda: held[0], CALLS)
    read: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *args: read.append(args[2]) if "accounts" in args[2] else None)
    with engine.begin() as tx:
        assert chain(routes, tx) == chain(routes, tx) == ["acc_1"]
        assert len(read) == 1
        add_account(tx, "acc_2")
        assert chain(routes, tx) == ["acc_1"]
        held[0] = registry("acc_1", "acc_2")
        assert chain(routes, tx) == ["acc_1", "acc_2"]


def test_a_circuit_opens_and_closes_without_a_new_registry(engine: Engine) -> None:
    """What changes with every failure is not kept."""
    held, opened = registry("acc_1"), {"acc_1"}
    routes = Routes(lambda: held, CALLS, lambda: opened)
    with engine.begin() as tx:
        assert chain(routes, tx) == []
        opened.clear()
        assert chain(routes, tx) == ["acc_1"]
        opened.add("acc_1")
        assert chain(routes, tx) == []


def test_a_reader_with_an_older_snapshot_leaves_nothing_old_to_others(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The buyer's page reads rules too. While it compiles what it sees, a rule is added and a payment is routed by it; the
    next payment must not meet the page's older rules.
    """
    routes = Routes(registry, CALLS)
    real = live.listed

    def notes(tx: Connection) -> list[str]:
        return [rule.note for rule in routes.router(tx, "mer_1").rules]

    with engine.connect() as reader, engine.connect() as writer:
        reader.exec_driver_sql("BEGIN")
        routes.router(reader, "mer_2")
        seen: list[Any] = []

        def listed(tx: Connection, merchant_id: str) -> Any:
            found = real(tx, merchant_id)
            if tx is reader and not seen:
                seen.append(tx)
                add_rule(writer, "new")
                writer.commit()
                assert notes(writer) == ["new"]
            return found

        monkeypatch.setattr(live, "listed", listed)
        assert notes(reader) == []
        assert seen
        assert notes(writer) == ["new"]
