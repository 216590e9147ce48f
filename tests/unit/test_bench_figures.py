"""The bench's own arithmetic: what is made of raw numbers, what is judged, and what is kept of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine

from outbox.message import Promise
from outbox.queue import Queue
from service.merchants.events import WEBHOOK
from service.retention import PRUNE
from service.schema import metadata, outbox_tables
from tests.bench import __main__ as command
from tests.bench import memory, page, stores
from tests.bench.bar import Bar
from tests.bench.callbacks import body_of, event_id, payment_reference, scattered
from tests.bench.delivery import latencies_ms
from tests.bench.end_to_end import waiting
from tests.bench.figures import alternating, grows, percentile, spread, times
from tests.bench.memory import family_mb
from tests.bench.parts import PARTS, Part
from tests.bench.sheets import Sheet, judged
from tests.bench.targets import TARGETS, Target, found, missed

# --- figures ------------------------------------------------------------------------------------------


def test_alternating_begins_each_run_with_another() -> None:
    """Nothing is always first on the warm or the cold machine, and all are run as often."""
    assert list(alternating("abc", 3)) == [
        *((0, "a"), (0, "b"), (0, "c")),
        *((1, "b"), (1, "c"), (1, "a")),
        *((2, "c"), (2, "a"), (2, "b")),
    ]


def test_percentiles_are_values_that_were_measured() -> None:
    """The p99 of a hundred is the last but none, of one value that value, of none 0."""
    assert percentile(range(100, 0, -1), 0.99) == 100
    assert percentile(range(1, 101), 0.5) == 51
    assert percentile([7.0], 0.99) == 7.0
    assert percentile([], 0.99) == 0.0


def test_a_ratio_is_of_medians() -> None:
    """One wild run moves neither."""
    assert times(spread([3, 1_000, 2]), spread([1, 2, 0.1])) == 3.0
    assert times(spread([3]), spread([0])) == 0.0


def test_a_queue_that_fills_at_first_does_not_grow() -> None:
    """The first third does not count; a steady rise over the rest does."""
    level = [(float(second), min(second * 500, 4_000)) for second in range(30)]
    assert not grows(level, 1_000)
    assert grows([(float(second), second * 20) for second in range(30)], 1_000)


def test_scattered_numbers_stay_different_and_lie_apart() -> None:
    """Two callbacks with one key would be one callback; neighbours would test one corner of an index."""
    numbers = [scattered(number) for number in range(20_000)]
    assert len(set(numbers)) == len(numbers)
    assert len({event_id(number) for number in numbers}) == len(numbers)
    assert all(0 <= number < 10**12 for number in numbers)
    assert min(abs(one - other) for one, other in pairwise(numbers)) > 10**10
    assert len({scattered(share * 10**11) for share in range(10)}) == 10  # the factor shares none with 10
    assert event_id(numbers[1]).encode() in body_of(numbers[1])


def test_latencies_leave_out_the_first_merchant_and_the_warm_up() -> None:
    """Callback 0 and 50 are the first merchant's, 1 came too early; a receipt before our 200 was read is 0."""
    answered = {0: 1.0, 1: 1.0, 49: 2.0, 50: 2.0, 51: 3.0}
    received = {payment_reference(number): 2.5 for number in answered}
    assert latencies_ms(answered, received, first=2) == [500.0, 0.0]


def test_memory_is_of_the_whole_family(tmp_path: Path) -> None:
    """Children and theirs count, strangers and what has ended do not, and a program may be called `a) b`."""
    for pid, parent, kb in ((10, 1, 1_000), (11, 10, 500), (12, 11, 250), (13, 1, 9_999)):
        folder = tmp_path / str(pid)
        folder.mkdir()
        (folder / "stat").write_text(f"{pid} (a) b) S {parent} 0 0")
        (folder / "smaps_rollup").write_text(f"00-ff ---p [rollup]\nRss: 99999 kB\nPss: {kb} kB\nPss_Anon: 1 kB\n")
    (tmp_path / "self").mkdir()
    (tmp_path / "14").mkdir()
    assert family_mb(10, tmp_path) == pytest.approx(1_750 * 1_024 / 1e6)


def test_what_waits_is_counted_without_the_nightly_work(tmp_path: Path) -> None:
    """First tries and retries, to somebody and to nobody, wait; what is done, and the pruning, do not."""
    engine = create_engine(f"sqlite:///{tmp_path}/q.db")
    queue = Queue(outbox_tables)
    with engine.begin() as tx:
        metadata.create_all(tx)
        promises = [Promise("a", "stripe", "", "s"), Promise("b", WEBHOOK, "ep", "s"), Promise("c", WEBHOOK, "ep", "s")]
        promises += [Promise("f", WEBHOOK, "ep", "s")]
        queue.enqueue(tx, [*promises, Promise("d", PRUNE, "", "s"), Promise("e", "stripe", "", "s")], 1_000)
        tx.exec_driver_sql("UPDATE outbox_messages SET tries = 1, claim = 1 WHERE id = 'c'")
        tx.exec_driver_sql("UPDATE outbox_messages SET state = 'done', finished_at_ms = 1 WHERE id = 'e'")
    engine.dispose()
    with closing(sqlite3.connect(tmp_path / "q.db")) as connection:
        assert waiting(connection) == 4


def test_the_large_part_is_skipped_visibly_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte below 30 GB nothing is made, and the figures say why; the same where /proc says nothing of memory."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=30 * 2**30 - 1))
    monkeypatch.setattr(stores, "prepared", lambda *_: pytest.fail("it began to fill"))
    assert "GB free" in stores.large(5_000_000, 5, 5.0, 64, Bar("large"))["skipped"]
    monkeypatch.setattr(memory, "PROC", Path("nowhere"))
    assert "Linux" in memory.measure(100_000, 15.0, 5, Bar("memory"))["skipped"]


# --- judging ------------------------------------------------------------------------------------------


def reaching(target: Target, value: float) -> dict[str, Any]:
    """Figures with this value where the target looks."""
    told: Any = value
    for name in reversed(target.path.split(".")):
        told = {name: told}
    return {target.part: {"partial": True} | told}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target.part}.{target.path}")
def test_the_limit_is_reached_and_what_is_beyond_it_is_missed(target: Target) -> None:
    """Each target holds at its limit and not a hundredth beyond, and says the figure and the limit."""
    assert (target.least is None) != (target.most is None)
    limit = target.least if target.least is not None else target.most
    assert limit is not None
    assert missed(reaching(target, limit)) == []
    beyond = limit * (0.98 if target.least is not None else 1.02)
    (sentence,) = missed(reaching(target, beyond))
    assert target.limit in sentence and target.shown(beyond) in sentence


def test_every_target_is_of_a_part_that_there_is() -> None:
    """A misspelt part would never be judged."""
    assert {target.part for target in TARGETS} <= {part.key for part in PARTS}


def test_a_figure_that_should_be_there_is_missed() -> None:
    """A part that lost its figure must not pass for that; one that was not run, skipped or partial is not judged."""
    assert missed({"sql": {"rate": 1_000}}) == [f"sql: no figure for {TARGETS[5].what}"]
    assert missed({"intake": {"partial": True}}) == []
    assert missed({"large": {"skipped": "no room"}}) == []
    assert missed({}) == []


def test_why_a_run_was_not_good_is_said() -> None:
    """A rate that was not sustained counts as none, with its reasons."""
    (sentence,) = missed({"end_to_end": {"sustained_per_second": 0.0, "why_not": ["the queue grew"]}})
    assert sentence.endswith("; the queue grew")


def test_the_sheet_of_targets_marks_what_is_missed() -> None:
    """The page tells it as plainly as the exit status."""
    rows = [row[-1] for row in judged({"sql": {"calls_per_callback": 13}}).rows]
    assert rows.count("**13 SQL calls**, missed") == 1
    assert rows.count("not measured yet") == len(TARGETS) - 1


@pytest.mark.parametrize(("calls", "status"), [(12.0, 0), (12.5, 1)])
def test_a_missed_target_is_exit_status_1(monkeypatch: pytest.MonkeyPatch, calls: float, status: int) -> None:
    """CI reads nothing else. A quick run is not judged, and cannot be saved."""
    sheet = Sheet("sql", ("", "calls"), [("", "12")])
    part = Part("sql", 0, lambda *_: {"calls_per_callback": calls}, lambda _: sheet)
    monkeypatch.setattr(command, "PARTS", (part,))
    run = CliRunner().invoke
    assert run(command.main, ["--part", "sql"]).exit_code == status
    assert run(command.main, ["--part", "sql", "--quick"]).exit_code == 0
    assert run(command.main, ["--part", "sql", "--quick", "--save"]).exit_code == 2


# --- what is kept -------------------------------------------------------------------------------------

MACHINE = {"cores": 2}


def told(machine: dict[str, int] = MACHINE, at: str = "2026-11-22", **parts: dict[str, Any]) -> dict[str, Any]:
    """Figures as a run gives them."""
    return {"measured_at": at, "machine": machine, **parts}


def test_saving_one_part_keeps_the_others_and_their_order() -> None:
    """`--part sql --save` must not throw an hour's figures away."""
    before = told(intake={"a": 1}, sql={"b": 1}, start={"c": 1})
    after = page.merged(before, told(at="2026-11-23", claim={"d": 2}, sql={"b": 2}))
    assert after == told(at="2026-11-23", intake={"a": 1}, sql={"b": 2}, claim={"d": 2}, start={"c": 1})
    assert list(after) == ["measured_at", "machine", "intake", "sql", "claim", "start"]


def test_figures_of_two_machines_are_not_mixed() -> None:
    """Ratios hold on one machine."""
    assert page.merged(told(sql={"b": 1}), told({"cores": 8}, claim={"d": 2})) == told({"cores": 8}, claim={"d": 2})


def test_what_is_skipped_or_partial_replaces_nothing() -> None:
    """A full disk is no figure, and one subject is no comparison."""
    before = told(intake={"a": 1}, large={"b": 1})
    assert page.merged(before, told(intake={"partial": True}, large={"skipped": "no room"})) == before


def test_found_reads_a_path() -> None:
    """A figure within a spread; nothing where there is nothing."""
    target = Target("memory", "rest.megabytes.median", "", "", most=1)
    assert found({"memory": {"rest": {"megabytes": {"median": 88.5}}}}, target) == 88.5
    assert found({"memory": {"rest": {}}}, target) is None
