"""What an answer to the harmless question means, and what time it says it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import httpx
import pytest

from service.commands.connections import STATES, Tried, ask
from service.commands.doctor import OFFSET_MS_MAX
from service.merchants.accounts import Entry
from service.payments.client import Client
from service.providers import CALLS
from service.providers.base import Credentials
from tests.support.clock import Clock

CLOCK = Clock()
KEYS: dict[str, Credentials] = {
    "stripe": {"secret_key": ("sk_test_abc",)},
    "moneroo": {"secret_key": ("pvk_sandbox_abc",)},
    "fedapay": {"secret_key": ("sk_sandbox_abc",)},
}
Answer = Callable[[httpx.Request], httpx.Response]


def tried(provider: str, answer: Answer, *, live: bool = False, **credentials: tuple[str, ...]) -> Tried:
    """One account asked, with `answer` in the provider's place."""
    entry = Entry(
        f"acc_{provider}", provider, "mer_1", live, "https://provider.example", {**KEYS[provider], **credentials}
    )

    async def run() -> Tried:
        client = Client(transport=httpx.MockTransport(answer))
        try:
            return await ask(client, CALLS[provider], entry, CLOCK)
        finally:
            await client.close()

    return asyncio.run(run())


def says(status: int, body: Any = None, **headers: str) -> Answer:
    """The same answer to everything."""
    raw = json.dumps({} if body is None else body).encode()
    return lambda _: httpx.Response(status, stream=httpx.ByteStream(raw), headers=headers)


@pytest.mark.parametrize(("provider", "status", "body", "word"), [
    ("stripe", 200, {"object": "list", "data": [], "has_more": False}, "works"),
    ("stripe", 401, {"error": {"type": "invalid_request_error", "message": "Invalid API Key"}}, "refused"),
    ("stripe", 403, {"error": {"type": "invalid_request_error", "message": "not permitted"}}, "refused"),
    ("stripe", 404, {"error": "no such page"}, "odd"), ("stripe", 400, {}, "odd"), ("stripe", 302, {}, "odd"),
    ("stripe", 200, {}, "odd"), ("stripe", 429, {}, "limited"), ("stripe", 503, {}, "trouble"),
    ("moneroo", 404, {"message": "Payment not found"}, "works"), ("moneroo", 404, {"message": "no route"}, "odd"),
    ("moneroo", 404, {}, "odd"), ("moneroo", 401, {"message": "Unauthenticated"}, "refused"),
])  # fmt: skip
def test_an_answer_means_what_it_proves_and_no_more(provider: str, status: int, body: Any, word: str) -> None:
    """A page that is not theirs is never "works", whatever its status."""
    found = tried(provider, says(status, body))
    assert (found.word, found.state, found.status) == (word, STATES[word], status)  # type: ignore[index]
    assert "provider.example" in found.sentence and "_abc" not in found.sentence


def test_what_is_not_understood_is_asked_another_way() -> None:
    """A 404 of FedaPay's list, whose address is only believed, says nothing of the key; another question does."""

    def answer(request: httpx.Request) -> httpx.Response:
        listed = request.url.path.endswith("/search")
        return says(404, {"message": "no route" if listed else "Transaction not found"})(request)

    assert tried("fedapay", answer).word == "works"


@pytest.mark.parametrize("ahead_ms", [0, 90_000, -90_000])
def test_the_clocks_are_compared_by_their_date(ahead_ms: int) -> None:
    """Ours minus theirs, by whole seconds; without a Date nothing is said."""
    date = formatdate((CLOCK() - ahead_ms) // 1000, usegmt=True)
    assert tried("stripe", says(401, date=date)).offset_ms == ahead_ms
    assert tried("stripe", says(401)).offset_ms is None
    assert tried("stripe", says(401, date="yesterday")).offset_ms is None
    assert OFFSET_MS_MAX < 90_000


@pytest.mark.parametrize(("live", "key", "word"), [
    (True, "sk_test_x", "test_key"), (True, "sk_live_x", "works"), (False, "sk_live_x", "live_key"),
    (False, "sk_test_x", "works"),
])  # fmt: skip
def test_key_and_money_have_to_fit(live: bool, key: str, word: str) -> None:
    """A test key takes no real money, and a live key in a test would."""
    answer = says(200, {"object": "list", "data": [], "has_more": False})
    assert tried("stripe", answer, live=live, secret_key=(key,)).word == word


def test_without_a_key_nobody_is_called() -> None:
    """An empty one is none."""

    def never(request: httpx.Request) -> httpx.Response:
        raise AssertionError(request.url)

    assert tried("stripe", never, secret_key=(" ",)).word == "no_key"
