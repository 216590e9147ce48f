"""What is owed, and what came of a try at it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection

HEAD_BYTES_MAX = 1024
ERROR_CHARACTERS_MAX = 300

Then = Callable[[Connection], object]
"""Runs inside the transaction that settles the message, and only if the fence held."""


@dataclass(frozen=True, slots=True)
class Promise:
    """
    Something we will owe from the commit on. Enqueueing the same `id` again changes nothing, so build it from what
    it promises (`webhook:<event>:<endpoint>:<n>`). `destination` is whom it is owed to, if to somebody: then it shares
    the places fairly with the others, and can be held back. `subject` is what it is about (for listing), `payload` is
    handed to the handler as it is. `due_at_ms` 0 means now.
    """

    id: str
    topic: str
    destination: str
    subject: str
    payload: str = ""
    due_at_ms: int = 0


class Message(NamedTuple):
    """
    A promise as it was claimed. `tries` counts this one, over the whole life of the message. `claim` is the fence:
    only who holds the latest one may settle. `due_at_ms` is when it was due, not when its lease ends.
    """

    id: str
    topic: str
    destination: str
    subject: str
    payload: str
    tries: int
    claim: int
    created_at_ms: int
    due_at_ms: int
    claimed_at_ms: int
    tries_before: int = 0
    """How many of `tries` were made before it was last run again: they do not count against the budget."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What one try looked like from outside; kept as a row. `head`: the first 1,024 bytes of the answer, no more."""

    http_status: int | None = None
    error: str | None = None
    head: bytes = b""
    duration_ms: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    """Paid. A row is kept of the try only if there is a `trial` to show."""

    trial: Trial | None = None
    then: Then | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """
    Not this time: again after the schedule's next delay, but no sooner than `after_ms`; dead when the schedule is
    spent. `delays_ms` is a schedule of the message's own, instead of the topic's. `error` is a fixed word.
    """

    error: str
    after_ms: int | None = None
    delays_ms: Sequence[int] | None = None
    trial: Trial | None = None
    then: Then | None = None


@dataclass(frozen=True, slots=True)
class Drop:
    """Never: dead at once."""

    error: str
    trial: Trial | None = None
    then: Then | None = None


Outcome = Done | Retry | Drop
