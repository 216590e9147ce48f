"""
The shop's neighbours: three more endpoints of the same merchant, each with a manner of its own, and the same webhooks.

`books` is always well, `stock` takes the connection and never answers, `courier` is down for a while every few minutes.
Beside each other they show that nobody waits for somebody else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from service.sandbox.merchant import Shop, Trouble

EVENTS = "payment.succeeded"
"""What they are told: enough to be seen, and the screen stays calm."""


class Hanging(Trouble):
    """Nobody ever gets an answer."""

    def next(self) -> str:
        """Always the same."""
        return "hangs"


@dataclass(frozen=True, slots=True)
class Cycle:
    """Up for `first_s`, then again and again: down for `down_s` of every `every_s` seconds."""

    first_s: float = 20.0
    down_s: float = 50.0  # longer than a circuit is open at first, so that a probe fails too
    every_s: float = 240.0

    def left_s(self, elapsed_s: float) -> float:
        """How much longer it is down; 0 when it is up."""
        since_s = elapsed_s - self.first_s
        return max(0.0, self.down_s - since_s % self.every_s) if since_s >= 0 else 0.0


class Outage(Trouble):
    """Down in a cycle that begins with the first question."""

    def __init__(self, cycle: Cycle, clock_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._cycle, self._clock_s, self._began_s = cycle, clock_s, clock_s()

    @property
    def left_s(self) -> float:
        """How much longer it is down; 0 when it is up."""
        return self._cycle.left_s(self._clock_s() - self._began_s)

    def next(self) -> str:
        """Unavailable while it is down."""
        return "unavailable" if self.left_s else ""


@dataclass(slots=True)
class Listener:
    """
    One endpoint of the demonstration: the shop or a neighbour. `patient`: what it is owed may wait or fail, and nothing
    is wrong with that.
    """

    name: str
    shop: Shop
    schedule: str = "standard"
    patient: bool = False
    endpoint: str = ""  # its id, once caisse knows it

    @property
    def manner(self) -> str:
        """What is the matter with it now, in a word or none."""
        match self.shop.trouble:
            case Hanging():
                return "hangs"
            case Outage() as outage:
                return "down" if outage.left_s else ""
            case _:
                return ""


def neighbours(ports: Mapping[str, int], cycle: Cycle) -> list[Listener]:
    """The three, not started yet."""
    return [
        Listener("books", Shop(port=ports["books"])),
        Listener("stock", Shop(trouble=Hanging(), port=ports["stock"]), patient=True),
        # One retry after a second: while it is down some webhooks are given up, and recovery has something to do.
        Listener("courier", Shop(trouble=Outage(cycle), port=ports["courier"]), schedule="1", patient=True),
    ]
