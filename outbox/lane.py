"""What the dispatcher remembers of a topic between two writes: what is in flight, who is full, when to look again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from outbox.message import Message, Outcome
from outbox.topic import Topic

NEVER = float("inf")


@dataclass(slots=True)
class Lane:
    """One topic. `finished` is settled with the next write and holds its place until."""

    topic: Topic
    hungry: bool = True  # something may be due
    known_due_at_ms: float | None = None  # the next due time the database told; None: ask it
    hinted_ms: float = NEVER  # the next due time we heard of since, perhaps before it was committed
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    running: dict[asyncio.Task[Outcome], Message] = field(default_factory=dict)
    finished: list[tuple[Message, Outcome]] = field(default_factory=list)
    working: list[Message] = field(default_factory=list)
    settling: int = 0  # what is being written at this moment
    waiting: bool = False  # something is due for which there is no room until something is settled
    looked_ms: int = 0  # what was due then is claimed or waiting
    failed: bool = False  # the last write did

    @property
    def in_flight(self) -> int:
        """How many are claimed here and not settled yet."""
        return len(self.running) + len(self.finished) + len(self.working) + self.settling

    def hear(self, due_at_ms: int, now_ms: int) -> None:
        """Something was written that is due then."""
        if due_at_ms <= now_ms:
            self.hungry = True
            self.known_due_at_ms = None  # the hint is the earliest of several, of which we know nothing
            self.wake.set()
        elif due_at_ms < self.hinted_ms:
            self.hinted_ms = due_at_ms
            self.wake.set()

    def leased(self, message: Message, now_ms: int) -> bool:
        """Whether it is still ours: a write that failed is offered again for so long."""
        return now_ms < message.claimed_at_ms + self.topic.policy.lease_ms

    def lose(self) -> None:
        """A write failed: whether it was kept is not known, nor what is due."""
        self.failed = self.hungry = True
        self.known_due_at_ms = None
