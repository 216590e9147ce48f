"""The bench's parts about money: what is filled in is sound, what is counted is of the right time, what is shown."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, text

from outbox.queue import Queue
from service.escrow.terms import Terms, terms_of
from service.ids import Ids, now_ms
from service.ledger.ledger import Entry
from service.ledger.verify import Verifier
from service.merchants.audit import By
from service.merchants.tables import accounts, merchants
from service.schema import metadata, outbox_tables
from tests.bench import filling, stories
from tests.bench.bar import Bar
from tests.bench.caisse import Shop
from tests.bench.figures import spread
from tests.bench.load import Told
from tests.bench.money import AGO_MS, within
from tests.bench.parts import PARTS
from tests.bench.targets import TARGETS, found
from tests.support.database import Database, open_engine

SHOPS = [Shop(f"mer_{number}", "", f"/webhooks/stripe/acc_{number}".encode()) for number in range(2)]
BENEFICIARIES = 3
KINDS = "capture fee refund dispute unallocated hold release hold_refund payout paid_out"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with the tables of the service, two merchants and their accounts."""
    made = tmp_path / "caisse.db"
    engine = open_engine(made)
    with engine.begin() as tx:
        metadata.create_all(tx)
        for shop in SHOPS:
            tx.execute(insert(merchants), {"id": shop.merchant, "name": "A", "status": "active", "created_at_ms": 1})
            row = {"provider": "stripe", "merchant_id": shop.merchant, "live": False, "origin": "settings"}
            tx.execute(insert(accounts), row | {"id": filling.account_id(shop), "created_at_ms": 1})
    engine.dispose()
    return made


def fill(path: Path, told: list[stories.Story], count: int) -> None:
    """So many copies."""
    filling.told_stories(path, SHOPS, told, count, BENEFICIARIES, AGO_MS, Bar("test"))


def test_copied_stories_are_as_sound_as_the_first(path: Path) -> None:
    """A row of one copy with the name, the account or the sum of another is found by the check that they are for."""
    told = stories.history()
    assert sum(story.share for story in told) == 100
    fill(path, told, 100)
    db = Database(path)
    ids = Ids(now_ms)
    check = asyncio.run(Verifier(db, Queue(outbox_tables), ids, now_ms).check(By("test", now_ms(), ids)))  # type: ignore[arg-type]
    db.close()
    assert check.problems == ()
    assert check.looked["postings"] == sum(story.share * story.postings for story in told)
    assert check.looked["payments"] == 103  # three orders were paid at the second try
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        kinds = {kind for (kind,) in connection.execute("SELECT DISTINCT kind FROM postings")}
        (whose,) = connection.execute("SELECT count(DISTINCT beneficiary_id) FROM holds").fetchone()
        (late,) = connection.execute("SELECT count(*) FROM postings WHERE at_ms > ?", (now_ms(),)).fetchone()
    assert (whose, late) == (BENEFICIARIES, 0)
    assert kinds == {Entry(word) for word in KINDS.split()}


def test_what_the_jobs_look_for_is_there(path: Path) -> None:
    """Orders whose time is up, holds that are due: else a job would be done at once."""
    fill(path, stories.unpaid(), 5)
    fill_due = stories.due()
    with closing(sqlite3.connect(path)) as connection:
        due = "SELECT count(*) FROM orders WHERE state = 'awaiting_payment' AND expires_at_ms < ?"
        assert connection.execute(due, (now_ms(),)).fetchone() == (5,)
        for table in (*reversed(stories.TABLES), "payees_personal", "payees", "beneficiaries", "ledger_accounts"):
            connection.execute(f"DELETE FROM {table}")
        connection.commit()
    fill(path, fill_due, 4)
    with closing(sqlite3.connect(path)) as connection:
        due = "SELECT count(*) FROM holds WHERE state = 'release_scheduled' AND release_at_ms < ?"
        assert connection.execute(due, (now_ms(),)).fetchone() == (4,)


def test_terms_are_each_merchants(path: Path) -> None:
    """One that has none would pay out where it should not."""
    filling.terms(path, SHOPS, Terms(enabled=True, payout_on_release=False))
    engine = open_engine(path)
    with engine.connect() as tx:
        assert [terms_of(tx, shop.merchant).payout_on_release for shop in SHOPS] == [False, False]
        assert tx.execute(text("SELECT count(*) FROM escrow_terms")).scalar() == 2
    engine.dispose()


def test_a_deck_has_each_story_as_often_as_its_share() -> None:
    """And so many copies that they make the postings that are asked for."""
    told = [stories.Story("a", 3, (posting(), posting()), 0), stories.Story("b", 1, (), 0)]
    assert sorted(story.name for story in stories.deck(told)) == ["a", "a", "a", "b"]
    assert stories.copies(told, 600) == 400


def posting() -> stories.Row:
    """One row of the ledger."""
    return stories.Row("postings", (), (), (), (), ())


def test_latencies_are_of_the_time_that_is_asked_for() -> None:
    """What came before the job began, or after it was done, is not meanwhile."""
    one = Told(latencies_ms=[1.0, 2.0, 3.0], answered_s={0: 1.0, 1: 2.0, 2: 3.0})
    other = Told(latencies_ms=[4.0, 5.0], answered_s={3: 4.0, 4: 5.0})
    assert within([one, other], 2.0, 4.0) == [2.0, 3.0, 4.0]


def test_what_targets_ask_for_is_in_the_sheets() -> None:
    """A figure under another name would be missed, and a sheet without it says nothing."""
    of_one = {"title": "one", "p50_ms": spread([1.0]), "p99_ms": spread([2.0]), "seconds": spread([7.0])}
    told: dict[str, Any] = {
        "expiring": {"rate": 1, "alone": of_one, "expiring": of_one | {"times_alone": spread([1.25])}},
        "releasing": {"holds": 14, "kept": of_one, "paid_out": of_one},
        "ledger": {
            "postings": 1, "beneficiaries": 1, "beneficiary": of_one, "merchant": of_one,
            "verify": {"all": of_one, "ledger": of_one},
        },
    }  # fmt: skip
    mine = [target for target in TARGETS if target.part in told]
    assert len(mine) == 7 and all(found(told, target) is not None for target in mine)
    sheets = {part.name: part.sheet(told[part.key]) for part in PARTS if part.key in told}
    assert all(len(row) == len(sheet.heads) for sheet in sheets.values() for row in sheet.rows)
    assert sheets["expiring"].rows[1][4:6] == ("1.25", "7")
    assert sheets["releasing"].rows[0][-1] == "2"
    assert [row[0] for row in sheets["ledger"].rows][:3] == ["one, ms", "one, ms", "one, s"]
