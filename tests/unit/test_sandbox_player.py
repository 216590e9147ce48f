"""The player: its stories are valid for all six providers, and it sends them as providers do."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from service.providers import PROVIDERS
from service.providers.base import Ask, Parked, Refused, Unmapped, Verified
from service.sandbox.builder import build
from service.sandbox.desk import Account
from service.sandbox.player import Player, incoming
from service.sandbox.stories import Step, Story, Teller, plots
from service.sandbox.teller import Sandbox
from service.sandbox.truths import Book, Entry

NOW_MS = 1_795_165_200_000
CREDENTIALS: dict[str, dict[str, list[str]]] = {
    "stripe": {"webhook_secrets": ["whsec_1"]},
    "paystack": {"secret_keys": ["sk_test_1"]},
    "fedapay": {"secret_key": ["sk_sandbox_1"], "webhook_secrets": ["wh_sandbox_1"]},
    "monetbil": {"service_key": ["s1"], "service_secrets": ["monetbil secret"]},
    "moneroo": {"secret_key": ["pvk_sandbox_1"], "webhook_secrets": ["moneroo secret"]},
    "ebilling": {"username": ["u"], "shared_key": ["k"], "callback_tokens": ["token-of-the-account"]},
}
EVERY = [(provider, plot) for provider in PROVIDERS for plot in plots(provider)]


def teller(seed: int = 1, providers: tuple[str, ...] = tuple(PROVIDERS)) -> Teller:
    return Teller(random.Random(seed), lambda: NOW_MS, providers)


@pytest.mark.parametrize(("provider", "plot"), EVERY)
def test_every_story_is_valid(provider: str, plot: str) -> None:
    """Each callback of each story is verified and understood; who is asked is asked about what the book knows."""
    tell = teller()
    for story in (tell.tell(provider, plot) for _ in range(20)):
        assert story.plot == plot
        assert story.steps
        for step in story.steps:
            built = build(provider, step.event, CREDENTIALS[provider], NOW_MS, step.fields)
            callback = incoming(built)
            verdict = PROVIDERS[provider].verify(callback, CREDENTIALS[provider], NOW_MS)
            assert isinstance(verdict, Verified), verdict
            meaning = PROVIDERS[provider].translate(callback, NOW_MS)
            assert not isinstance(meaning, Parked | Unmapped | Refused), (step.event, meaning)
            assert isinstance(meaning, Ask) == PROVIDERS[provider].capabilities.ask
            if isinstance(meaning, Ask):
                assert step.truth is not None
                assert meaning.reference == step.truth[0]


@pytest.mark.parametrize("provider", ["monetbil", "moneroo", "ebilling"])
def test_what_stories_know_stands_in_the_bank_and_nobody_is_told(provider: str) -> None:
    """The player tells it, once; what a run has dumped is known to the next, and the newest truth is the one."""

    async def run() -> None:
        account = Account(provider, CREDENTIALS[provider], "http://127.0.0.1:9/")
        sandbox, again = Sandbox([account]), Sandbox([account])
        book = Book(sandbox)
        for plot in plots(provider):
            story = teller().tell(provider, plot)
            truths = [step.truth for step in story.steps if step.truth]
            for number, entry in truths:
                book.write(provider, number, entry)
            charge = sandbox.bank.find(provider, truths[-1][0])
            assert charge is not None
            assert (charge.state, charge.reason) == (truths[-1][1].state, truths[-1][1].reason)
            assert charge.captured_minor == (charge.amount_minor if plot == "paid" else 0)
        assert sandbox.post.waiting == 0
        for name, number, fields in json.loads(json.dumps(book.dump())):
            Book(again).write(name, number, Entry(**fields))
        kept = [(one.id, one.state, one.amount_minor, one.reason, one.ended_ms) for one in sandbox.bank.of(provider)]
        assert kept == [
            (one.id, one.state, one.amount_minor, one.reason, one.ended_ms) for one in again.bank.of(provider)
        ]

    asyncio.run(run())


def test_everybody_is_heard_first_once_and_then_by_weight() -> None:
    """The first six stories are of six providers, in some order; then all plots of all six come."""
    stories = list(itertools.islice(teller(), 600))
    assert {story.provider for story in stories[:6]} == set(PROVIDERS)
    often = Counter(story.provider for story in stories)
    assert often["paystack"] > often["ebilling"] > 10
    assert {(story.provider, story.plot) for story in stories} == set(EVERY)


def test_the_same_seed_plays_the_same_and_no_two_payments_share_a_name() -> None:
    """Everything comes from the generator and the clock."""
    one, two = (list(itertools.islice(teller(3), 300)) for _ in range(2))
    assert one == two
    names = [name for story in one for name in story.names]
    assert len(names) == len(set(names))
    amounts = {step.fields["amount"] for story in one for step in story.steps if step.fields["currency"] != "EUR"}
    assert all(500 <= amount <= 75_000 for amount in amounts)


class Door:
    """Stands for caisse: answers what `answer` says, and remembers what came."""

    def __init__(self, answer: Callable[[bytes], int], slow_s: float = 0.0) -> None:
        self.answer, self.slow_s = answer, slow_s
        self.came: list[tuple[str, str, bytes]] = []
        self.at_once = self.most_at_once = 0

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.came.append((request.method, request.raw_path, body))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(self.slow_s)
        self.at_once -= 1
        return web.Response(status=self.answer(request.raw_path.encode() + body))


def play(door: Door, seconds: float, rate: float = 200, **changed: Any) -> Player:
    async def run() -> Player:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", door.take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        stories = changed.pop("stories", None) or iter(teller())
        player = Player(f"http://127.0.0.1:{port}", CREDENTIALS, stories, random.Random(5), rate=rate)
        for name, value in changed.items():
            setattr(player, name, value)
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, stop.set)
        try:
            await player.run(stop)
        finally:
            await runner.cleanup()
        return player

    return asyncio.run(run())


def quick(provider: str) -> Story:
    """A story without pauses."""
    story = teller().tell(provider, plots(provider)[0])
    steps = tuple(Step(0, step.event, step.fields, step.truth) for step in story.steps)
    return Story(provider, story.plot, story.payer, story.names, steps)


@pytest.mark.loopback
def test_what_is_acknowledged_is_remembered_by_its_key() -> None:
    """Each provider's callbacks arrive where they belong; counts and keys agree with what came."""
    door = Door(lambda _: 200)
    player = play(door, 0.6, stories=itertools.chain(map(quick, PROVIDERS), iter(teller())))
    assert player.played.acknowledged == player.played.sent == len(door.came)
    assert {path.split("/")[2].partition("?")[0] for _, path, _ in door.came} == set(PROVIDERS)
    came = {(path, body) for _, path, body in door.came}
    assert len(player.acknowledged) == len(came)
    assert any("?" in path and "%40" in path for path, _ in came), "a GET of Monetbil, as it was signed"
    assert (player.played.refused, player.played.postponed, player.played.owed) == (0, 0, 0)


@pytest.mark.loopback
def test_some_are_sent_twice_with_the_same_bytes() -> None:
    """A provider that repeats, repeats exactly."""
    door = Door(lambda _: 200)
    player = play(door, 0.8, REPEATED=1.0, stories=iter([*map(quick, PROVIDERS), *itertools.islice(teller(), 5000)]))
    assert player.played.repeats > 0
    assert Counter(door.came).most_common(1)[0][1] == 2


@pytest.mark.loopback
def test_503_and_silence_are_tried_again_and_nothing_else_is() -> None:
    """The first answer to everything is 503, the second is 200: all is acknowledged in the end."""
    seen: Counter[bytes] = Counter()

    def answer(what: bytes) -> int:
        seen[what] += 1
        return 503 if seen[what] == 1 else 200

    player = play(Door(answer), 1.0, RETRY_MS=(20,), REPEATED=0.0, rate=50)
    assert player.played.postponed > 0
    assert player.played.retries > 0
    assert player.played.given_up == 0
    assert set(seen.values()) <= {1, 2}

    refused = play(Door(lambda _: 401), 0.4)
    assert refused.played.retries == 0
    assert refused.played.refused == refused.played.sent > 0


@pytest.mark.loopback
def test_a_slow_caisse_gets_no_flood() -> None:
    """No more than the limit is in flight, and stopping lets it arrive."""
    door = Door(lambda _: 200, slow_s=0.2)
    player = play(door, 1.0, rate=2000, IN_FLIGHT_MAX=8)
    assert door.most_at_once <= 8
    assert player.played.acknowledged == len(door.came)
