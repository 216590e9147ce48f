"""Provider accounts that failed lately are left alone for a while, so that payments go elsewhere without waiting."""

from __future__ import annotations

from service.ids import Clock

BREAKS = 5
OPEN_MS = 30_000


class Circuits:
    """
    After `BREAKS` calls in a row that did not come through, the account's circuit is open for `OPEN_MS`, and again
    after each further one, until one comes through. In memory: after a start all are closed.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._breaks: dict[str, int] = {}
        self._until_ms: dict[str, int] = {}

    def ended(self, account_id: str, well: bool) -> None:
        """A creating call has ended; `well`: the provider answered, whatever it said."""
        if well:
            self._breaks.pop(account_id, None)
            self._until_ms.pop(account_id, None)
            return
        self._breaks[account_id] = self._breaks.get(account_id, 0) + 1
        if self._breaks[account_id] >= BREAKS:
            self._until_ms[account_id] = self._clock() + OPEN_MS

    def opened(self) -> frozenset[str]:
        """Accounts that are left alone now."""
        now_ms = self._clock()
        return frozenset(account_id for account_id, until_ms in list(self._until_ms.items()) if until_ms > now_ms)
