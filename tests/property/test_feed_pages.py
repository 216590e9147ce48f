"""The pages of the feed, put together again, are the table: whatever is in it, however it is asked for."""

from __future__ import annotations

from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, insert

from service import feed
from service.merchants.events import ON_REQUEST
from service.merchants.tables import events
from service.schema import metadata
from tests.support.database import open_engine

TYPES = ("payment.succeeded", "payment.failed", "provider.event")
PAYMENTS = ("pay_1", "pay_2", None)

ROWS = st.lists(
    st.tuples(st.sampled_from(("a", "b")), st.booleans(), st.sampled_from(TYPES), st.sampled_from(PAYMENTS)),
    max_size=40,
)


def put(tx: Connection, rows: list[tuple[str, bool, str, str | None]], first: int) -> None:
    """Rows as they would be told, without what does not matter here."""
    for number, (merchant, live, type_, payment) in enumerate(rows, first):
        tx.execute(
            insert(events).values(
                id=f"evt_{number}",
                merchant_id=merchant,
                live=live,
                type=type_,
                payment_id=payment,
                sequence=1,
                body=str(number).encode(),
                created_at_ms=0,
            )
        )


@given(
    before=ROWS,
    meanwhile=st.lists(ROWS, max_size=4),
    types=st.frozensets(st.sampled_from(TYPES)),
    payment=st.sampled_from(PAYMENTS),
    live=st.booleans(),
    limits=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    scan=st.integers(1, 6),
    page_bytes=st.integers(1, 8),
)
def test_pages_together_are_the_table(
    before: Any,
    meanwhile: list[Any],
    types: frozenset[str],
    payment: str | None,
    live: bool,
    limits: list[int],
    scan: int,
    page_bytes: int,
) -> None:
    """Nothing missing, nothing twice, nothing of others, while more is told between the pages; each step is bounded."""
    engine = open_engine(":memory:")
    wanted = feed.Wanted("a", live, types, payment)
    with (
        engine.connect() as tx,
        mock.patch.object(feed, "SCAN_ROWS", scan),
        mock.patch.object(feed, "PAGE_BYTES", page_bytes),
    ):
        tx.exec_driver_sql("PRAGMA defer_foreign_keys=ON")  # no merchants are needed here
        metadata.create_all(tx, tables=[events.metadata.tables["merchants"], events])
        put(tx, before, 0)
        rows, waves, found = list(before), list(meanwhile), []
        after: str | int = ""
        for turn in range(200):
            page = feed.read(tx, wanted, after, limits[turn % len(limits)])
            assert len(page.bodies) <= limits[turn % len(limits)]
            found += page.bodies
            assert page.next <= page.head
            if waves:
                wave = waves.pop()
                put(tx, wave, len(rows))
                rows += wave
            elif not page.more:
                break
            after = page.next if turn % 2 else feed.cursor(page.next)
        its = [
            str(number).encode()
            for number, (merchant, is_live, type_, about) in enumerate(rows)
            if (merchant, is_live) == ("a", live)
            and (type_ in types if types else type_ not in ON_REQUEST)
            and payment in (None, about)
        ]
        assert found == its
        tx.rollback()
    engine.dispose()
