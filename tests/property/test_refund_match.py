"""
Refunds against a provider that tells of them in any order, and the machine's rows, pair by pair.

The provider makes refunds, ours and others'; its words reach us shuffled and repeated. Whatever the order, the rows
hold the same refunds in the end, and what they say went back is what the provider paid.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.payments.facts import Fact, Kind
from service.payments.refund_match import NOTHING_WENT, Refund, match
from service.payments.rules import decide_attempt
from service.payments.states import REFUND, REFUND_ORDER, RefundState, RefundStep

S = RefundState

# What the specification's table lists, written down a second time by hand.
LISTED: dict[str, dict[str, str]] = {
    "requested": {"checked": "queued"},
    "queued": {
        "sending": "submitting", "done_by_hand": "succeeded", "given_up": "canceled", "refund_succeeded": "succeeded",
    },
    "submitting": {
        "nothing_sent": "queued", "refused": "failed", "lost": "unknown", "refund_pending": "pending",
        "refund_canceled": "canceled", "refund_succeeded": "succeeded", "refund_failed": "failed",
    },
    "unknown": {
        "operator_succeeded": "succeeded", "operator_failed": "failed", "refund_pending": "pending",
        "refund_canceled": "canceled", "refund_succeeded": "succeeded", "refund_failed": "failed",
    },
    "pending": {
        "refund_pending": "pending", "refund_canceled": "canceled", "refund_succeeded": "succeeded",
        "refund_failed": "failed",
    },
    "succeeded": {"refund_failed": "failed"},
    "failed": {},
    "canceled": {"refund_succeeded": "succeeded"},
}  # fmt: skip


@pytest.mark.parametrize(("state", "what"), list(product(S, [*RefundStep, *REFUND_ORDER])), ids=str)
def test_every_pair_of_a_refunds_machine_is_as_listed(state: str, what: str) -> None:
    """Of every (state, happening) pair the table says exactly what the specification lists, and nothing else."""
    assert REFUND.get((state, what)) == LISTED[state].get(what)


def test_nothing_but_evidence_or_a_person_ends_an_unknown_refund() -> None:
    """A refusal of the same again, or proof that it was not sent just now, says nothing about the first time."""
    leaving = {what for (state, what) in REFUND if state == S.UNKNOWN}
    assert leaving == {*REFUND_ORDER, RefundStep.OPERATOR_SUCCEEDED, RefundStep.OPERATOR_FAILED}


Made = tuple[int, tuple[Kind, ...]]
"""What the provider did: an amount, and the words it says of it one after the other."""
ENDS: tuple[tuple[Kind, ...], ...] = (
    (Kind.REFUND_PENDING,),
    (Kind.REFUND_PENDING, Kind.REFUND_SUCCEEDED),
    (Kind.REFUND_SUCCEEDED,),
    (Kind.REFUND_SUCCEEDED, Kind.REFUND_FAILED),
    (Kind.REFUND_PENDING, Kind.REFUND_FAILED),
    (Kind.REFUND_CANCELED,),
)
MADE = st.lists(st.tuples(st.sampled_from([100, 200, 300]), st.sampled_from(ENDS)), max_size=4)


def facts_of(made: Sequence[Made], totals: bool) -> list[Fact]:
    """Everything the provider says in the end; a total counts what succeeded, also if it failed later."""
    said = [
        Fact(kind, f"re_{number}", amount_minor=amount) for number, (amount, kinds) in enumerate(made) for kind in kinds
    ]
    total = 0
    for amount, kinds in made:
        if totals and Kind.REFUND_SUCCEEDED in kinds:
            total += amount
            said.append(Fact(Kind.REFUNDED_TOTAL, "ch_1", amount_minor=total))
    return said


def hear(facts: Sequence[Fact], rows: list[Refund]) -> list[Refund]:
    """One fact after the other, the rows written each time, as the book does it."""
    known: dict[tuple[str, str], Fact] = {}
    for fact in facts:
        kept = known.get((fact.kind, fact.movement))
        if kept is None or (kept.amount_minor or 0) < (fact.amount_minor or 0):
            known[fact.kind, fact.movement] = fact
        seen = match(rows, known.values())
        rows = [one if one.id else Refund(f"rf_x{at}", *_rest(one)) for at, one in enumerate(seen)]
    return rows


def _rest(one: Refund) -> tuple[S, int, bool, bool, str | None, str | None]:
    return one.state, one.amount_minor, one.made_here, one.manual, one.name, one.currency


def shown(rows: Sequence[Refund]) -> list[tuple[str | None, str, int]]:
    """What counts of them: a nameless rest that was explained since counts for nothing."""
    return sorted(
        (one.name or "", one.state.value, one.amount_minor) for one in rows if one.name or one.state not in NOTHING_WENT
    )


@given(MADE, st.booleans(), st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(made: list[Made], totals: bool, luck: object) -> None:
    """Shuffled and told twice, the same refunds stand in the end, each once, each as the provider has it."""
    said = facts_of(made, totals)
    again = [*said, *said]
    luck.shuffle(again)  # type: ignore[attr-defined]
    assert shown(hear(again, [])) == shown(hear(said, []))
    told = {one.name for one in hear(again, []) if one.name}
    assert told == {f"re_{number}" for number in range(len(made))}


@given(MADE, st.booleans(), st.randoms(use_true_random=False))
def test_the_rows_and_the_sums_say_the_same(made: list[Made], totals: bool, luck: object) -> None:
    """What the payment has had back by the rules is what its refunds' rows say has succeeded."""
    said = facts_of(made, totals)
    luck.shuffle(said)  # type: ignore[attr-defined]
    gone = sum(one.amount_minor for one in hear(said, []) if one.state is S.SUCCEEDED)
    assert gone == decide_attempt(said).refunded_minor


@given(MADE, st.randoms(use_true_random=False))
def test_ours_take_the_names_that_nobody_has(made: list[Made], luck: object) -> None:
    """All of it was made by us and every answer was lost: each row ends as one of them, and none is a stranger."""
    rows = [Refund(f"rf_{number}", S.UNKNOWN, amount, made_here=True) for number, (amount, _) in enumerate(made)]
    said = facts_of(made, False)
    luck.shuffle(said)  # type: ignore[attr-defined]
    now = hear(said, rows)
    assert len(now) == len(rows)
    assert all(one.made_here and one.name for one in now)
    assert [one.amount_minor for one in now] == [amount for amount, _ in made]


def test_a_pending_refund_may_get_another_name() -> None:
    """Paystack: pending under one name, processed under another, in either order: one refund, counted once."""
    pending = Fact(Kind.REFUND_PENDING, "refund:1", amount_minor=100)
    done = Fact(Kind.REFUND_SUCCEEDED, "refund:TRF_1", amount_minor=100)
    for order in permutations([pending, done]):
        rows = [Refund("rf_1", S.SUBMITTING, 100, made_here=True)]
        for count in (1, 2):
            rows = match(rows, order[:count], renaming=True)
        assert [(one.id, one.name, one.state) for one in rows] == [("rf_1", "refund:TRF_1", S.SUCCEEDED)]


def test_a_provider_that_never_renames_has_two() -> None:
    """Stripe: one pending, another one succeeded: the second is somebody else's."""
    rows = [Refund("rf_1", S.PENDING, 100, made_here=True, name="re_1")]
    facts = [Fact(Kind.REFUND_PENDING, "re_1", amount_minor=100), Fact(Kind.REFUND_SUCCEEDED, "re_2", amount_minor=100)]
    assert [(one.made_here, one.name) for one in match(rows, facts)] == [(True, "re_1"), (False, "re_2")]


def test_what_is_still_queued_is_nobodys_yet() -> None:
    """A refund that was not sent cannot be the one that the provider tells of; a manual one can."""
    told = [Fact(Kind.REFUND_SUCCEEDED, "re_1", amount_minor=100)]
    waiting = Refund("rf_1", S.QUEUED, 100, made_here=True)
    assert [one.state for one in match([waiting], told)] == [S.QUEUED, S.SUCCEEDED]
    by_hand = Refund("rf_1", S.QUEUED, 100, made_here=True, manual=True)
    assert [(one.state, one.name) for one in match([by_hand], told)] == [(S.SUCCEEDED, "re_1")]
