"""What the dispatcher remembers of a topic between two writes: what is in flight, who is full, when to look again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from outbox.message import Message, Outcome
from outbox.topic import Topic


@dataclass(slots=True)
class Lane:
    """One topic. `finished` is settled with the next write and holds its place until."""

    topic: Topic
    hungry: bool = True  # something may be due
    known_due_at_ms: float | None = None  # the next due time we know of; None: ask the database
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    running: dict[asyncio.Task[Outcome], Message] = field(default_factory=dict)
    finished: list[tuple[Message, Outcome]] = field(default_factory=list)
    working: list[Message] = field(default_factory=list)
    settling: int = 0  # what is being written at this moment
    busy: dict[str, int] = field(default_factory=dict)  # in flight per destination
    full: set[str] = field(default_factory=set)  # destinations at their cap
    failed: bool = False  # the last write did

    @property
    def in_flight(self) -> int:
        """How many are claimed here and not settled yet."""
        return len(self.running) + len(self.finished) + len(self.working) + self.settling

    def occupy(self, destination: str) -> None:
        """One more is in flight to it."""
        self.busy[destination] = count = self.busy.get(destination, 0) + 1
        if count >= self.topic.policy.per_destination:
            self.full.add(destination)
            self.hungry = True  # the claim may have passed over others behind this one

    def vacate(self, destination: str) -> None:
        """One less is."""
        count = self.busy.pop(destination) - 1
        if count:
            self.busy[destination] = count
        if destination in self.full:
            self.full.discard(destination)
            self.hungry = True

    def hear(self, due_at_ms: int, now_ms: int) -> None:
        """Something was written that is due then."""
        if due_at_ms <= now_ms:
            self.hungry = True
            self.wake.set()
        elif self.known_due_at_ms is not None and due_at_ms < self.known_due_at_ms:
            self.known_due_at_ms = due_at_ms
            self.wake.set()

    def leased(self, message: Message, now_ms: int) -> bool:
        """Whether it is still ours: a write that failed is offered again for so long."""
        return now_ms < message.claimed_at_ms + self.topic.policy.lease_ms

    def lose(self) -> None:
        """A write failed: whether it was kept is not known, nor what is due."""
        self.failed = self.hungry = True
        self.known_due_at_ms = None
