"""
One transaction of a topic: work, settle what is finished, claim what is next. All that the dispatcher writes goes
through here (only `give_back` and loading apart do not), so there is one place where a crash has to be thought about.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, NamedTuple, cast

from sqlalchemy import Connection

from outbox.message import Message, Outcome, Retry
from outbox.queue import Claim, Queue, Settled
from outbox.topic import Topic


class Stale(Exception):
    """Work was done on messages that somebody else has claimed since: it must not be committed."""


@dataclass(slots=True)
class Fault:
    """
    Who raised inside a transaction: a handler (then only its message suffers) or, if nothing is noted, the storage.
    The writer may run a step several times; only an exception that is the very one noted here is a handler's.
    """

    kind: str = ""
    error: BaseException | None = None
    ids: frozenset[str] = frozenset()

    @contextlib.contextmanager
    def of(self, kind: str, messages: Iterable[Message]) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.kind, self.error, self.ids = kind, error, frozenset(message.id for message in messages)
            raise

    def of_storage(self, error: Exception) -> bool:
        return self.error is not error


class Stepped(NamedTuple):
    """What one transaction did. `offered`: how many of `finished`, from its front. `limit`: how many it might claim."""

    settled: list[Settled]
    claim: Claim
    loaded: Mapping[str, Any]
    offered: int
    limit: int


def no_room() -> int:
    """For a step that claims nothing."""
    return 0


@dataclass(slots=True)
class Step:
    """
    `working` is worked on here, `finished` was acted on before; both are settled. `room`: how many may be claimed.
    `without` names handlers (died, load) that have raised and are passed over this time.

    The event loop may append to `finished` while we wait for the writer: what has come by then is settled too, and the
    places it leaves are claimed. Under load, half of what a transaction can take comes only while it waits.
    """

    topic: Topic
    working: Sequence[Message] = ()
    finished: Sequence[tuple[Message, Outcome]] = ()
    room: Callable[[], int] = no_room
    without: frozenset[str] = frozenset()
    fault: Fault = field(default_factory=Fault)

    def run(self, tx: Connection, queue: Queue, clock: Callable[[], int], rng: Random) -> Stepped:
        """In the writer's thread, perhaps several times: it changes nothing but `tx` and `fault`."""
        topic, policy, now_ms, fault = self.topic, self.topic.policy, clock(), self.fault
        working, finished = self.working, self.finished[:]
        offered = len(finished)
        if working and topic.work:
            with fault.of("work", working):
                finished = list(zip(working, map(checked, topic.work(tx, working)), strict=True))
        if any(outcome.then for _, outcome in finished):
            finished = [(message, _watched(message, outcome, fault)) for message, outcome in finished]
        settled = queue.settle(tx, finished, policy, now_ms, rng) if finished else []
        if working and len(settled) < len(working):
            missing = {message.id for message in working} - {item.message.id for item in settled}
            with fault.of("stale", (message for message in working if message.id in missing)):
                raise Stale
        claim = Claim([], [], more=False)
        limit = self.room()
        if limit:
            claim = queue.claim(tx, policy, now_ms, rng, limit, alone=topic.work is not None)
        died = claim.died + [item.message for item in settled if item.what == "died"]
        if died and topic.died and "died" not in self.without:
            with fault.of("died", died):
                topic.died(tx, died)
        loaded: Mapping[str, Any] = {}
        if claim.messages and topic.load and "load" not in self.without:
            with fault.of("load", claim.messages):
                loaded = topic.load(tx, claim.messages)
        return Stepped(settled, claim, loaded, offered, limit)


def checked(outcome: Outcome) -> Outcome:
    """The same, if it is one: handlers are not ours."""
    if not isinstance(cast(object, outcome), Outcome):
        raise TypeError(f"A handler returned {type(outcome).__name__}, which is no outcome.")
    return outcome


def _watched(message: Message, outcome: Outcome, fault: Fault) -> Outcome:
    """The same outcome, whose `then` says whose it is when it raises."""
    then = outcome.then
    if then is None:
        return outcome

    def watched(tx: Connection) -> None:
        with fault.of("then", (message,)):
            then(tx)

    return replace(outcome, then=watched)


def instead(outcome: Outcome, error: Exception) -> Retry:
    """What is settled when an outcome's `then` raised: the try is kept, what it led to is not."""
    trial = getattr(outcome, "trial", None)
    return Retry(type(error).__name__, trial=trial)
