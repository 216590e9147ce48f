"""The machines as data: every pair is looked at, and the documentation's diagrams are printed from the same rows."""

from __future__ import annotations

from itertools import product

import pytest

from service.payments import states
from service.payments.facts import Kind
from service.payments.states import ATTEMPT, ATTEMPT_ROWS, LIVE, MACHINES, Row, State, Step, rank, table

MOVING = [*Step, *(kind for kind in Kind if rank(kind) is not None)]
RESTING = set(State) - LIVE

# What the specification's table lists, written down a second time by hand: state -> what may happen -> where to.
# A row added to or dropped from the code's table has to be argued for here.
LISTED = {
    "created": {"sending": "submitting", "canceled_unsent": "canceled", "captured": "succeeded"},
    "submitting": {
        "found_pending": "pending", "found_waiting": "requires_action",
        "nothing_sent": "not_sent", "lost": "unknown", "created": "pending", "pending": "pending",
        "requires_action": "requires_action", "try_failed": "requires_action", "authorized": "authorized",
        "received_part": "submitting", "failed": "failed", "canceled": "canceled", "expired": "expired",
        "captured": "succeeded",
    },
    "requires_action": {
        "found_pending": "pending", "found_waiting": "requires_action",
        "lost": "unknown", "cancel_wanted": "canceling", "created": "requires_action", "pending": "pending",
        "requires_action": "requires_action", "try_failed": "requires_action", "authorized": "authorized",
        "received_part": "requires_action", "failed": "failed", "canceled": "canceled", "expired": "expired",
        "captured": "succeeded",
    },
    "pending": {
        "found_pending": "pending", "found_waiting": "requires_action",
        "lost": "unknown", "cancel_wanted": "canceling", "created": "pending", "pending": "pending",
        "requires_action": "requires_action", "try_failed": "requires_action", "authorized": "authorized",
        "received_part": "pending", "failed": "failed", "canceled": "canceled", "expired": "expired",
        "captured": "succeeded",
    },
    "authorized": {
        "cancel_wanted": "canceling", "created": "authorized", "pending": "authorized",
        "requires_action": "authorized", "authorized": "authorized", "received_part": "authorized",
        "failed": "failed", "canceled": "canceled", "expired": "expired", "captured": "succeeded",
    },
    "unknown": {
        "found_pending": "pending", "found_waiting": "requires_action",
        "not_known": "not_sent", "cancel_wanted": "canceling", "operator_succeeded": "succeeded",
        "operator_failed": "failed", "operator_canceled": "canceled", "operator_not_sent": "not_sent",
        "created": "pending", "pending": "pending", "requires_action": "requires_action",
        "try_failed": "requires_action", "authorized": "authorized", "received_part": "unknown",
        "failed": "failed", "canceled": "canceled", "expired": "expired", "captured": "succeeded",
    },
    "canceling": {
        "cancel_unclear": "canceling", "not_known": "not_sent", "operator_succeeded": "succeeded",
        "operator_failed": "failed", "operator_canceled": "canceled", "operator_not_sent": "not_sent",
        "created": "canceling", "pending": "canceling",
        "requires_action": "canceling", "authorized": "canceling", "received_part": "canceling",
        "failed": "failed", "canceled": "canceled", "expired": "expired", "captured": "succeeded",
    },
    "succeeded": {"captured": "succeeded", "reversed": "succeeded"},
    **{
        ended: {"failed": "failed", "canceled": "canceled", "expired": "expired", "captured": "succeeded"}
        for ended in ("failed", "canceled", "expired", "not_sent")
    },
}  # fmt: skip


@pytest.mark.parametrize(("state", "what"), list(product(State, MOVING)), ids=str)
def test_every_pair_of_state_and_happening_is_as_listed(state: State, what: str) -> None:
    """Of every (state, fact) pair the table says exactly what the specification lists, and nothing else."""
    assert LISTED[state].get(what) == ATTEMPT.get((state, what))


def test_only_money_and_another_definite_end_leave_a_resting_state() -> None:
    """A payment that ended stays ended, but for money, which always wins, and a later end of the provider's."""
    leaving = {what for (state, what), to in ATTEMPT.items() if state in RESTING - {State.SUCCEEDED} and to != state}
    assert leaving == {Kind.CAPTURED, Kind.FAILED, Kind.CANCELED, Kind.EXPIRED}
    assert all(to == State.SUCCEEDED for (state, _), to in ATTEMPT.items() if state == State.SUCCEEDED)


def test_nothing_but_evidence_or_a_person_leaves_unknown() -> None:
    """Age is not among what can happen: unknown is left by the provider's word, a wish to cancel, or an operator."""
    leaving = {what for (state, what), to in ATTEMPT.items() if state == State.UNKNOWN and to != state}
    ours = {Step.NOT_KNOWN, Step.CANCEL_WANTED, Step.FOUND_PENDING, Step.FOUND_WAITING}  # but for the wish, its word
    operators = {step for step in Step if step.startswith("operator_")}
    assert leaving - ours - operators <= set(Kind)
    assert {Step.NOTHING_SENT, Step.LOST} & leaving == set()


@pytest.mark.parametrize("name", list(MACHINES))
def test_every_state_of_a_machine_is_in_its_table(name: str) -> None:
    """No state is forgotten: each one is left or reached by some row."""
    words = {"attempt": State, "refund": states.RefundState, "dispute": states.DisputeState,
             "callback": states.Callback, "delivery": states.Delivery}[name]  # fmt: skip
    rows = MACHINES[name]
    seen = {state for row in rows for state in row.states} | {row.to for row in rows if row.to}
    assert set(words) == seen


def test_two_rows_for_one_pair_are_refused() -> None:
    """A table that contradicts itself is a mistake that stops the start."""
    with pytest.raises(ValueError, match="two rows for pending"):
        table([Row(("pending",), "captured", "succeeded"), Row(("pending",), "captured", None)])


def test_every_row_moves_by_something_that_has_a_rank() -> None:
    """A happening without a rank would be listed and never read."""
    assert {row.what for row in ATTEMPT_ROWS} == set(MOVING)
