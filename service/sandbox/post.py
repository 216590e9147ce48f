"""
The providers' callbacks: signed when they are sent, sent again until they are taken, and given up in the end.

Real providers wait minutes to hours between tries, a spectator does not: the delays here are a simple form of theirs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import aiohttp
import structlog
import yarl

from service.ids import Clock
from service.sandbox.builder import build
from service.sandbox.desk import Account, Letter
from service.sandbox.trouble import Trouble

log: Any = structlog.get_logger()

RETRY_MS: Final = (500, 1_000, 2_000, 4_000, 8_000, 15_000, 30_000)
WAITING_MAX: Final = 20_000
SENT_MAX: Final = 2_000
TRY_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Sent:
    """One try: the status of the answer, 0 where there was none."""

    provider: str
    event: str
    url: str
    status: int


@dataclass(slots=True)
class _Due:
    account: Account
    letter: Letter
    url: str
    at_ms: int
    tries: int = 0
    last_first: bool = False


class Post:
    """`put` keeps a callback, `deliver` sends what is due by the clock; `sent` are the newest tries."""

    def __init__(self, clock: Clock, trouble: Trouble, taken: Mapping[str, Callable[[int], bool]]) -> None:
        self._clock, self._trouble, self._taken = clock, trouble, taken
        self._waiting: list[_Due] = []
        self.sent: deque[Sent] = deque(maxlen=SENT_MAX)
        self.dropped = 0  # given up, or more than WAITING_MAX

    @property
    def waiting(self) -> int:
        """How many callbacks are still to be taken."""
        return len(self._waiting)

    def put(self, account: Account, letter: Letter, url: str) -> None:
        """A callback for this address, as trouble lets it."""
        provider = account.provider
        if not url or self._trouble.take(provider, "callback", "silence"):
            return
        if len(self._waiting) >= WAITING_MAX:
            self.dropped += 1
            return
        late = self._trouble.take(provider, "callback", "late")
        due = _Due(account, letter, url, self._clock() + (late.delay_ms if late else 0))
        due.last_first = self._trouble.take(provider, "callback", "reordered") is not None
        self._waiting.append(due)
        if self._trouble.take(provider, "callback", "duplicate"):
            self._waiting.append(replace(due))

    async def deliver(self, session: aiohttp.ClientSession) -> int:
        """Try each that is due once; how many were taken."""
        now_ms = self._clock()
        due = [one for one in self._waiting if one.at_ms <= now_ms]
        turned = [number for number, one in enumerate(due) if one.last_first]
        for number, one in zip(turned, [due[number] for number in reversed(turned)], strict=True):
            due[number] = one
        count = 0
        for one in due:
            if await self._try(session, one):
                count += 1
                self._drop(one)
            elif one.tries > len(RETRY_MS):
                self.dropped += 1
                self._drop(one)
            else:
                one.at_ms = self._clock() + RETRY_MS[one.tries - 1]
        return count

    def _drop(self, due: _Due) -> None:
        self._waiting = [one for one in self._waiting if one is not due]

    async def _try(self, session: aiohttp.ClientSession, due: _Due) -> bool:
        due.tries += 1
        provider, letter = due.account.provider, due.letter
        try:
            built = build(provider, letter.event, due.account.credentials, self._clock(), letter.fields)
        except ValueError as error:  # no secret to sign with: as a dashboard without an endpoint
            log.warning("sandbox.callback_not_built", provider=provider, callback=letter.event, why=str(error))
            due.tries = len(RETRY_MS) + 1
            return False
        query = built.path_suffix.partition("?")[2]  # Monetbil may notify by GET
        address = due.url + (("&" if "?" in due.url else "?") + query if query else "")
        status = 0
        try:
            async with session.request(
                built.method,
                yarl.URL(address, encoded=True),
                data=built.body or None,
                headers=dict(built.headers),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=TRY_S),
            ) as answer:
                await answer.read()
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            pass  # no answer; it is sent again
        self.sent.append(Sent(provider, letter.event, due.url, status))
        return self._taken[provider](status)
