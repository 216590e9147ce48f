"""
Plays the six providers: payment stories as they happen in a shop, sent as signed callbacks to a running caisse.

The `Player` sends the steps of stories as providers do: some twice, some out of order, again and again until caisse
answers with 2xx. What Monetbil, Moneroo and eBilling would answer when asked is written into the sandbox's bank first.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import aiohttp
import yarl

from service.ids import Clock, now_ms
from service.providers import PROVIDERS
from service.providers.base import Credentials, Incoming
from service.sandbox.builder import Built, build
from service.sandbox.stories import Step, Story
from service.sandbox.truths import Book


@dataclass(slots=True)
class Played:
    """What the player did, and what it was answered."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)  # (provider, status; 0: no answer)
    sent: int = 0
    repeats: int = 0
    retries: int = 0
    given_up: int = 0
    owed: int = 0  # not acknowledged when the player was stopped
    stories: int = 0

    @property
    def acknowledged(self) -> int:
        """Answered with 2xx."""
        return sum(count for (_, status), count in self.answers.items() if 200 <= status < 300)

    @property
    def postponed(self) -> int:
        """Answered 5xx or not at all."""
        return sum(count for (_, status), count in self.answers.items() if status == 0 or status >= 500)

    @property
    def refused(self) -> int:
        """Answered with anything else, which a right callback never is."""
        return self.answers.total() - self.acknowledged - self.postponed


@dataclass(slots=True)
class _Due:
    """One callback that is to be sent."""

    provider: str
    step: Step
    built: Built | None = None
    tries: int = 0
    repeat: bool = False


class Player:
    """`await player.run(stop)` sends `rate` callbacks a second until `stop`; then what is on its way may arrive."""

    IN_FLIGHT_MAX = 64
    DUE_MAX = 2_000  # stories wait when so much is to be sent: a slow caisse gets fewer, not a flood
    RETRY_MS = (500, 1_000, 2_000, 4_000, 8_000, 15_000, 30_000)  # providers wait minutes; a spectator does not
    REPEATED = 0.08  # the share that a provider sends twice
    KEYS_MAX = 100_000
    GRACE_S = 5.0

    def __init__(
        self,
        base_url: str,
        credentials: Mapping[str, Credentials],
        stories: Iterator[Story],
        rng: random.Random,
        *,
        rate: float = 5.0,
        book: Book | None = None,
        clock: Clock = now_ms,
    ) -> None:
        self.played = Played()
        self.payers: OrderedDict[str, str] = OrderedDict()  # any name of a payment -> who paid
        self.acknowledged: OrderedDict[tuple[str, str], None] = OrderedDict()  # (provider, key), the newest
        self._base_url, self._credentials, self._stories, self._rng = base_url, credentials, stories, rng
        self._rate, self._book, self._clock = rate, book, clock
        self._due: list[tuple[float, int, _Due]] = []
        self._order = itertools.count()
        self._flying: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Play until `stop`. What was not acknowledged by then is counted as owed, as a provider would still owe it."""
        loop = asyncio.get_running_loop()
        next_story_s = loop.time()
        timeout = aiohttp.ClientTimeout(total=10)
        async with aiohttp.ClientSession(
            timeout=timeout, connector=aiohttp.TCPConnector(limit=self.IN_FLIGHT_MAX), trust_env=False
        ) as session:
            try:
                while not stop.is_set():
                    now_s = loop.time()
                    if now_s >= next_story_s and len(self._due) < self.DUE_MAX:
                        story = next(self._stories)
                        self._begin(story, now_s)
                        pause_s = len(story.steps) * (1 + self.REPEATED) / self._rate * self._rng.uniform(0.5, 1.5)
                        next_story_s = max(next_story_s, now_s - 1) + pause_s
                    while self._due and self._due[0][0] <= now_s and len(self._flying) < self.IN_FLIGHT_MAX:
                        self._send(session, heapq.heappop(self._due)[2])
                    next_due_s = self._due[0][0] if self._due else next_story_s
                    wait_s = min(max(min(next_due_s, next_story_s) - loop.time(), 0.005), 0.1)
                    await _wait(stop, wait_s)
            finally:
                if self._flying:
                    await asyncio.wait(self._flying, timeout=self.GRACE_S)
                for task in list(self._flying):
                    task.cancel()
                await asyncio.gather(*self._flying, return_exceptions=True)
                self.played.owed = sum(1 for _, _, due in self._due if due.tries and not due.repeat)

    def _begin(self, story: Story, now_s: float) -> None:
        self.played.stories += 1
        for name in story.names:
            self.payers[name] = story.payer
        while len(self.payers) > self.KEYS_MAX:
            self.payers.popitem(last=False)
        for step in story.steps:
            self._push(now_s + step.after_ms / 1000, _Due(story.provider, step))

    def _push(self, at_s: float, due: _Due) -> None:
        heapq.heappush(self._due, (at_s, next(self._order), due))

    def _send(self, session: aiohttp.ClientSession, due: _Due) -> None:
        task = asyncio.create_task(self._deliver(session, due))
        self._flying.add(task)
        task.add_done_callback(self._flying.discard)

    async def _deliver(self, session: aiohttp.ClientSession, due: _Due) -> None:
        if due.step.truth and self._book is not None and due.tries == 0 and not due.repeat:
            payment_id, entry = due.step.truth
            self._book.write(due.provider, payment_id, replace(entry))
        if due.built is None:
            due.built = build(
                due.provider, due.step.event, self._credentials[due.provider], self._clock(), due.step.fields
            )
        built, played = due.built, self.played
        played.sent += 1
        played.repeats += due.repeat
        played.retries += due.tries > 0
        due.tries += 1
        status = await self._post(session, built)
        played.answers[due.provider, status] += 1
        now_s = asyncio.get_running_loop().time()
        if 200 <= status < 300:
            self._acknowledge(due.provider, built)
            if not due.repeat and self._rng.random() < self.REPEATED:
                # A provider that heard us, and sends it again all the same.
                again = _Due(due.provider, due.step, built, repeat=True)
                self._push(now_s + self._rng.uniform(0.0, 3.0), again)
        elif status == 0 or status >= 500:
            if due.tries > len(self.RETRY_MS):
                played.given_up += 1
            else:
                self._push(now_s + self.RETRY_MS[due.tries - 1] / 1000 * self._rng.uniform(0.8, 1.2), due)

    async def _post(self, session: aiohttp.ClientSession, built: Built) -> int:
        """The status of the answer, 0 when there was none."""
        # As it is: a query that is "normalised" on its way is another query, with another key.
        url = yarl.URL(self._base_url + built.path_suffix, encoded=True)
        try:
            async with session.request(
                built.method, url, data=built.body or None, headers=dict(built.headers), allow_redirects=False
            ) as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0

    def _acknowledge(self, provider: str, built: Built) -> None:
        key = PROVIDERS[provider].identify(incoming(built)).key
        self.acknowledged[provider, key] = None
        while len(self.acknowledged) > self.KEYS_MAX:
            self.acknowledged.popitem(last=False)


def incoming(built: Built) -> Incoming:
    """The built callback as caisse sees it come in."""
    query = built.path_suffix.partition("?")[2].encode()
    headers = [(name.lower().encode(), value.encode()) for name, value in dict(built.headers).items()]
    return Incoming(built.method, headers, query, built.body)


async def _wait(stop: asyncio.Event, within_s: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), within_s)
    except TimeoutError:
        pass
