"""
What would happen: one payment that nobody makes, and past payments on other rules. The same `choose` as for real ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.providers.calls import METHODS
from service.routing.rules import Ask, Choice, Gateway, Router, Rule

REPLAY_MAX: Final = 10_000
SAMPLES_MAX: Final = 3
MOVES_MAX: Final = 50
"""Pairs of (where it went, where it would go) that are told; six providers make at most 42."""

SEED: Final = "simulated"


def simulate(
    rules: Sequence[Rule],
    gateways: Sequence[Gateway],
    ask: Ask,
    draft_rules: Sequence[Rule] | None = None,
    seed: str = SEED,
) -> Choice:
    """What would be chosen; with `draft_rules`, if these were the rules. `seed` is a payment's id, for its share."""
    return Router(rules if draft_rules is None else draft_rules).choose(ask, gateways, seed)


@dataclass(frozen=True, slots=True)
class Past:
    """A payment as it was; None or empty where nobody knew."""

    id: str
    merchant_id: str
    live: bool
    amount_minor: int
    currency: str
    method: str | None
    provider: str
    country: str | None = ""
    operator: str | None = ""


class Replay:
    """
    Past payments on these rules: fed in pieces, so that whoever feeds it can let others work in between.

    The gateways are those of today, without their open circuits; the payers are taken to have told all that is needed.
    """

    def __init__(self, router: Router, gateways: Callable[[str], Iterable[Gateway]]) -> None:
        self._router = router
        self._gateways = gateways
        self.looked = self.skipped = self.same = self.nowhere = 0
        self._moves: Counter[tuple[str, str]] = Counter()
        self._samples: dict[tuple[str, str], list[str]] = {}

    def add(self, rows: Iterable[Past]) -> None:
        """Look at these too; what is above `REPLAY_MAX` is not looked at."""
        for row in rows:
            if self.looked == REPLAY_MAX:
                return
            self.looked += 1
            if row.method not in METHODS:
                self.skipped += 1  # adopted, and the provider did not say how it was paid
                continue
            would = self._would(row)
            if would == row.provider:
                self.same += 1
                continue
            self.nowhere += not would
            move = (row.provider, would)
            self._moves[move] += 1
            samples = self._samples.setdefault(move, [])
            if len(samples) < SAMPLES_MAX:
                samples.append(row.id)

    def told(self) -> dict[str, Any]:
        """How many would go elsewhere, from where to where, with some of their ids. `to` is null for nowhere."""
        return {
            "looked": self.looked,
            "skipped": self.skipped,
            "same": self.same,
            "elsewhere": self._moves.total() - self.nowhere,
            "nowhere": self.nowhere,
            "moves": [
                {"from": was, "to": would or None, "count": count, "samples": self._samples[was, would]}
                for (was, would), count in sorted(self._moves.items(), key=lambda one: (-one[1], one[0]))[:MOVES_MAX]
            ],
        }

    def _would(self, row: Past) -> str:
        """The provider that would be asked first; empty: none."""
        ask = Ask(
            amount_minor=row.amount_minor,
            currency=row.currency,
            method=row.method or "",
            merchant_id=row.merchant_id,
            live=row.live,
            country=row.country or "",
            operator=row.operator or "",
        )
        chain = self._router.choose(ask, self._gateways(row.merchant_id), row.id).chain
        return chain[0].provider if chain else ""
