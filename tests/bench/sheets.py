"""The figures of each part as one table, for the terminal and for docs/performance.md alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rich.table import Table

from tests.bench.targets import TARGETS, found

Figures = Mapping[str, Any]


class Sheet(NamedTuple):
    """A table; the first columns are words, the others figures. `notes` are sentences below it."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1
    notes: Sequence[str] = ()

    def as_rich(self) -> Table:
        table = Table(title=self.title)
        for number, head in enumerate(self.heads):
            table.add_column(head, justify="left" if number < self.words else "right", no_wrap=True)
        for row in self.rows:
            table.add_row(*row)
        return table

    def as_markdown(self) -> str:
        rule = ["---"] * self.words + ["---:"] * (len(self.heads) - self.words)
        lines = [(self.title, *self.heads[1:]), rule, *self.rows]
        return "\n".join(["| " + " | ".join(line) + " |" for line in lines] + [f"\n{note}" for note in self.notes])


def _number(value: float) -> str:
    """Three digits that mean something, and thousands apart."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _times(figures: Figures, name: str) -> str:
    return f"{figures[name]:.2f}" if name in figures else ""


def _spread(figures: Figures) -> tuple[str, str]:
    return _number(figures["median"]), f"{_number(figures['low'])}–{_number(figures['high'])}"


def _parts(told: Figures) -> Iterable[Figures]:
    """The measured ones among the figures of a part: those with a title."""
    return (one for one in told.values() if isinstance(one, Mapping) and "title" in one)


def _runs(told: Figures, name: str) -> int:
    return next((int(one[name]["runs"]) for one in _parts(told)), 0)


def intake(told: Figures) -> Sheet:
    """Rates and latencies of each subject; for `waiting` and `large` too."""
    ratios = {"times_verify": "× verify", "times_session": "× session", "times_empty": "× empty"}
    shown = {name: head for name, head in ratios.items() if any(name in one for one in _parts(told))}
    rows = [
        (
            one["title"],
            *_spread(one["per_second"]),
            _number(one["p50_ms"]["median"]),
            _number(one["p99_ms"]["median"]),
            *(_times(one, name) for name in shown),
        )
        for one in _parts(told)
    ]
    title = f"intake, {told['clients']} clients, {_runs(told, 'per_second')} runs of {told['seconds']:g} s"
    return Sheet(title, ("", "a second", "low–high", "p50 ms", "p99 ms", *shown.values()), rows)


def end_to_end(told: Figures) -> Sheet:
    """One run."""
    return runs_of([told], f"end to end, 50 merchants, {told['seconds']:g} s")


def highest(told: Figures) -> Sheet:
    """The runs until one was not good."""
    return runs_of(told["runs"], "raising the rate until it is not sustained")


def runs_of(runs: Sequence[Figures], title: str) -> Sheet:
    """Runs end to end."""
    rows = [
        (
            f"{run['rate']:,.0f} a second",
            f"{run['offered_per_second']:,.0f}",
            _number(run["p50_ms"]),
            _number(run["p99_ms"]),
            f"{run['webhooks']:,}",
            f"{run['missing']:,}",
            f"{run['repeats']:,}",
            f"{run['growth_per_second']:+.1f}",
            "never" if run["drained_s"] is None else f"{run['drained_s']:.1f} s",
            "yes" if run["sustained"] else "no",
        )
        for run in runs
    ]
    heads = ("answered", "p50 ms", "p99 ms", "webhooks", "missing", "repeated", "growth/s", "empty after", "good")
    notes = [
        f"{run['rate']:,.0f} a second was not good: {'; '.join(run['why_not'])}." for run in runs if run["why_not"]
    ]
    return Sheet(title, ("", *heads), rows, notes=notes)


def sql(told: Figures) -> Sheet:
    """One figure."""
    row = (f"at {told['rate']:,.0f} a second", f"{told['calls_per_callback']}")
    return Sheet("SQL calls", ("", "for each callback"), [row])


def latency(told: Figures) -> Sheet:
    """From our 200 to the receipt."""
    row = (told["title"], *_spread(told["p50_ms"]), *_spread(told["p99_ms"]))
    title = f"our 200 → receipt, {told['rate']:g} a second, {told['p50_ms']['runs']} runs of {told['seconds']:g} s"
    return Sheet(title, ("", "p50 ms", "low–high", "p99 ms", "low–high"), [row])


def isolation(told: Figures) -> Sheet:
    """The same, of the 49 others."""
    rows = [
        (
            *(one["title"], _number(one["p50_ms"]["median"]), *_spread(one["p99_ms"]), _times(one, "times_alone")),
            _number(one["webhooks_to_the_first"]["median"]),
        )
        for one in _parts(told)
    ]
    title = f"the 49 others, {told['rate']:g} a second, {_runs(told, 'p99_ms')} runs of {told['seconds']:g} s"
    return Sheet(title, ("", "p50 ms", "p99 ms", "low–high", "× all well", "webhooks to that one"), rows)


def claim(told: Figures) -> Sheet:
    """The three calls, for a batch."""
    rows = [
        (
            *(
                one["title"],
                *_spread(one["claim_ms"]),
                _number(one["claim_p99_ms"]["median"]),
                _times(one, "times_few"),
            ),
            *(_number(one[f"{call}_ms"]["median"]) for call in ("settle", "enqueue")),
            " / ".join(f"{one['statements'][call]:g}" for call in ("claim", "settle", "enqueue")),
        )
        for one in _parts(told)
    ]
    title = f"ms for a batch of {told['batch']}, {_runs(told, 'claim_ms')} runs of {told['rounds']} rounds"
    heads = ("claim", "low–high", "p99", "× 1,000", "settle", "enqueue", "statements")
    return Sheet(title, ("", *heads), rows)


def paying(told: Figures) -> Sheet:
    """What a client waits for, and what of it is ours."""
    rows = [
        (
            *(one["title"], *_spread(one["p50_ms"]), _number(one["p99_ms"]["median"])),
            *(_spread(one["overhead_ms"]) if "overhead_ms" in one else ("", "")),
            _times(one, "times_without"),
        )
        for one in _parts(told)
    ]
    title = f"{told['rate']:g} requests a second, {_runs(told, 'p50_ms')} runs of {told['seconds']:g} s"
    heads = ("p50 ms", "low–high", "p99 ms", "of it ours", "low–high", "× without")
    return Sheet(title, ("", *heads), rows)


def memory(told: Figures) -> Sheet:
    """The highest PSS seen."""
    rows = [(one["title"], *_spread(one["megabytes"])) for one in _parts(told)]
    return Sheet(f"all processes together, {_runs(told, 'megabytes')} runs", ("", "MB", "low–high"), rows)


def expiring(told: Figures) -> Sheet:
    """Callbacks with nothing else, and while orders expire; and how long those take."""
    alone, beside = told["alone"], told["expiring"]
    rows = [
        (alone["title"], _number(alone["p50_ms"]["median"]), *_spread(alone["p99_ms"]), "", "", ""),
        (
            *(beside["title"], _number(beside["p50_ms"]["median"]), *_spread(beside["p99_ms"])),
            *(f"{beside['times_alone']['median']:.2f}", *_spread(beside["seconds"])),
        ),
    ]
    title = f"callbacks meanwhile, {told['rate']:g} a second, {_runs(told, 'p99_ms')} runs"
    return Sheet(title, ("", "p50 ms", "p99 ms", "low–high", "× alone", "done after s", "low–high"), rows)


def releasing(told: Figures) -> Sheet:
    """How long the job takes for all that is due."""
    rows = [
        (one["title"], *_spread(one["seconds"]), _number(told["holds"] / one["seconds"]["median"]))
        for one in _parts(told)
    ]
    title = f"{told['holds']:,} holds that are due, {_runs(told, 'seconds')} runs"
    return Sheet(title, ("", "s", "low–high", "a second"), rows)


def ledger(told: Figures) -> Sheet:
    """Balances in milliseconds, proofs in seconds."""
    rows = [(f"{one['title']}, ms", *_spread(one["p50_ms"]), *_spread(one["p99_ms"])) for one in _parts(told)]
    rows += [(f"{one['title']}, s", *_spread(one["seconds"]), "", "") for one in _parts(told["verify"])]
    runs = _runs(told, "p50_ms")
    title = f"{told['postings']:,} postings, {told['beneficiaries']:,} beneficiaries, {runs} runs"
    return Sheet(title, ("", "median", "low–high", "p99", "low–high"), rows)


def start(told: Figures) -> Sheet:
    """From the start of the process to ready."""
    rows = [(one["title"], *_spread(one["ready_ms"])) for one in _parts(told)]
    return Sheet(f"from start to ready, {_runs(told, 'ready_ms')} runs", ("", "ms", "low–high"), rows)


def hostile(told: Figures) -> Sheet:
    """What honest callbacks saw."""
    rows = [
        (one["title"], _number(one["p50_ms"]["median"]), *_spread(one["p99_ms"]), times)
        for one, times in zip(_parts(told), ("", _times(told, "times_alone")), strict=False)
    ]
    title = f"honest callbacks, {told.get('rate', 0):g} a second, {_runs(told, 'p99_ms')} runs"
    return Sheet(title, ("", "p50 ms", "p99 ms", "low–high", "× alone"), rows)


def judged(told: Figures) -> Sheet:
    """Every target, with what was measured."""
    rows = []
    for target in TARGETS:
        value = found(told, target)
        verdict = "not measured yet" if value is None else target.shown(value)
        if value is not None and not target.met(value):
            verdict = f"**{verdict}**, missed"
        rows.append((f"{target.limit} {target.what}", target.because, verdict))
    return Sheet("target", ("", "why this one", "measured"), rows, words=3)
