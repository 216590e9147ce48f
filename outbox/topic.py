"""What a topic is, and what the dispatcher tells the world about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection

from outbox.message import Message, Outcome
from outbox.policy import Policy

Work = Callable[[Connection, Sequence[Message]], Sequence[Outcome]]
Act = Callable[[Message, Any], Awaitable[Outcome]]
Load = Callable[[Connection, Sequence[Message]], Mapping[str, Any]]
Died = Callable[[Connection, Sequence[Message]], object]


@dataclass(frozen=True, slots=True)
class Topic:
    """
    How the messages of one topic are paid: by exactly one of `work` and `act`.

    `work(tx, messages)` needs only the database. It returns one outcome per message, in order, and is settled in its
    own transaction: exactly once. `await act(message, loaded)` talks to the world: at least once, under `limit_ms`;
    `load(tx, messages)` reads what it needs by message id, in the claim's transaction. `died(tx, messages)` runs in
    the transaction in which messages die.
    """

    policy: Policy
    work: Work | None = None
    act: Act | None = None
    load: Load | None = None
    died: Died | None = None

    def __post_init__(self) -> None:
        if (self.work is None) == (self.act is None):
            raise ValueError(f"The topic {self.policy.topic!r} needs either work or act.")
        if self.load is not None and self.act is None:
            raise ValueError(f"The topic {self.policy.topic!r} loads for an act it does not have.")


What = Literal[
    "claimed",
    "done",
    "retried",
    "died",
    "given_back",
    "stale",  # settled too late: somebody else has claimed it, nothing was written
    "batch_raised",  # work raised for a batch: each of its messages is now run by itself
    "work_raised",
    "act_raised",
    "then_raised",
    "settle_raised",  # an outcome has a value that the tables refuse: that one is tried again
    "load_raised",
    "died_raised",  # they are dead all the same
    "loop_raised",  # a fault in here; it goes on after a pause
    "read_failed",  # when the next message is due is not known: the sweep will look
    "write_failed",  # the storage; nothing is lost, it goes on after a pause
]


@dataclass(frozen=True, slots=True)
class Happened:
    """
    What the dispatcher tells the world, after the commit, for metrics and logs. `duration_ms`: of the transaction.
    `oldest_due_age_ms` (claimed): how long the longest waiting one was due. `message_ids` only for what died or raised.
    """

    what: What
    topic: str
    count: int
    duration_ms: float = 0.0
    oldest_due_age_ms: int = 0
    message_ids: tuple[str, ...] = ()
    error: str = ""
