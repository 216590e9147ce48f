"""The sandbox pays out: what our adapters really send, at all six providers; its book of payouts is the truth."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from service.providers import PROVIDERS
from service.providers.base import Unclear
from service.providers.calls import Lost, NotSent
from service.providers.payouts import PayoutRefused, PayoutTold
from service.sandbox.treasury import START_MINOR
from service.sandbox.trouble import AFTER, BEFORE
from tests.support.sandbox_payouts import BY_REFERENCE, PAYEES, REFERENCE, Till, play

SIX = tuple(PROVIDERS)
SOON_MS = 1_000
"""How long our client waits where no answer comes: enough for all that comes before, on a busy machine too."""


def limit(kind: str) -> int:
    """ms that our client waits for an answer."""
    return SOON_MS if kind.startswith("timeout") else 15_000


# --- all is well --------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", SIX)
def test_a_payee_is_paid_once_from_the_float_and_it_is_told(provider: str) -> None:
    """Sent, arrived, asked about, told by a signed callback: one sum, which the float holds no more."""

    async def story(t: Till) -> None:
        if provider not in ("moneroo", "monetbil"):
            assert (await t.float_(provider))[PAYEES[provider].currency] == START_MINOR
        sent = await t.send(provider)
        assert isinstance(sent, PayoutTold) and sent.names
        assert sent.stage == ("paid" if provider == "monetbil" else "in_transit")
        await t.sandbox.tick(2)
        answer = await t.ask(provider, names=sent.names)
        assert answer is None if provider == "monetbil" else (answer.stage, answer.names) == ("paid", sent.names)
        if provider in BY_REFERENCE:
            assert (await t.ask(provider)).stage == "paid"
            assert (await t.float_(provider))[PAYEES[provider].currency] == START_MINOR - 1500
        (paid,) = t.paid()
        assert (paid.paid_minor, paid.returned_minor, paid.provider) == (1500, 0, provider)
        assert t.held(provider) == START_MINOR - 1500
        told = t.told()
        assert told and all(REFERENCE in names or sent.names[0] in names for names in told)

    play(story)


def test_a_transfer_of_stripes_is_there_at_once() -> None:
    """To a connected account there is nothing to wait for; reversed it is a return."""

    async def story(t: Till) -> None:
        payee = replace(PAYEES["stripe"], number="acct_1Awa")
        t.sandbox.trouble.on("stripe", "payout_returned_later", delay_ms=1_000, times=1)
        sent = await t.send("stripe", payee=payee)
        assert isinstance(sent, PayoutTold) and sent.stage == "paid"
        t.clock.advance(1_000)
        await t.sandbox.tick()
        assert (await t.ask("stripe", payee=payee)).stage == "returned"
        assert [one.returned_minor for one in t.paid()] == [1500] and len(t.told()) == 2

    play(story)


# --- nobody is paid twice -----------------------------------------------------------------------------


async def all_send(t: Till, limit_ms: int = 15_000) -> dict[str, Any]:
    """All six at once, because a time limit is waited for; what each came to."""
    said = await asyncio.gather(*(t.send(provider, limit_ms) for provider in SIX))
    await t.sandbox.tick(2)
    return dict(zip(SIX, said, strict=True))


@pytest.mark.parametrize("kind", BEFORE)
def test_before_means_that_nobody_was_paid(kind: str) -> None:
    """Whatever our adapters conclude, the book is empty; counted once, it strikes once."""

    async def story(t: Till) -> None:
        for provider in SIX:
            t.sandbox.trouble.on(provider, kind, "payout", times=1)
        want = {"rate_limited": NotSent("rate_limited"), "unauthorized": NotSent("credentials", alert=True)}
        for provider, said in (await all_send(t, limit(kind))).items():
            assert said == want[kind] if kind in want else isinstance(said, Lost), (provider, said)
        assert t.paid() == [] and t.sandbox.treasury.floats() == []
        for provider, said in (await all_send(t)).items():
            assert isinstance(said, PayoutTold) and len(t.paid(provider)) == 1, (provider, said)

    play(story)


@pytest.mark.parametrize("kind", AFTER)
def test_after_means_that_it_was_paid_and_is_found_by_asking(kind: str) -> None:
    """The payee has the money, our adapter does not know, and learns it where the provider can be asked."""

    async def story(t: Till) -> None:
        for provider in SIX:
            t.sandbox.trouble.on(provider, kind, "payout", times=1)
        for provider, said in (await all_send(t, limit(kind))).items():
            # aiohttp repeats a PUT by itself when the connection was dropped: FedaPay refuses the second start.
            repeated = (provider, kind) == ("fedapay", "reset")
            assert isinstance(said, PayoutTold if repeated else Lost), (provider, said)
            assert len(t.paid(provider)) == 1, provider
            answer = await t.ask(provider)
            if provider in BY_REFERENCE:
                assert isinstance(answer, PayoutTold) and answer.stage == "paid", (provider, answer)
            else:
                assert answer in (None, Unclear("not_named"))
        assert len(t.paid()) == len(SIX)
        assert {name for name, _ in t.got} == set(SIX) and t.told()

    play(story)


@pytest.mark.parametrize("provider", ["stripe", "paystack", "fedapay"])
def test_a_reference_pays_once_where_the_provider_says_so(provider: str) -> None:
    """Paystack refuses the second, FedaPay says that it has been started, Stripe repeats its answer to the key."""

    async def story(t: Till) -> None:
        first, second = await t.send(provider), await t.send(provider)
        if provider == "paystack":
            assert second == Lost("duplicate_reference")
        else:
            assert isinstance(second, PayoutTold) and second.names == first.names
        await t.sandbox.tick(2)
        assert len(t.paid()) == 1 and t.held(provider) == START_MINOR - 1500

    play(story)


@pytest.mark.parametrize("provider", ["moneroo", "monetbil", "ebilling"])
def test_where_nothing_says_so_the_second_is_paid_too_and_the_book_shows_it(provider: str) -> None:
    """The harsher belief: whoever sends twice is caught by `paid_out`."""

    async def story(t: Till) -> None:
        await t.send(provider)
        await t.send(provider)
        await t.sandbox.tick(2)
        assert len(t.paid()) == 2 and t.held(provider) == START_MINOR - 3000

    play(story)


@pytest.mark.parametrize("provider", ["paystack", "fedapay", "ebilling"])
@pytest.mark.parametrize("kind", ["error_5xx_before", "error_5xx_after", "garbage_2xx"])
def test_trouble_before_the_call_that_pays_is_no_trouble(provider: str, kind: str) -> None:
    """A recipient, a payout that was not started, a token: lost, begun again, and paid once."""

    async def story(t: Till) -> None:
        t.sandbox.trouble.on(provider, kind, "prepare", times=1)
        assert isinstance(await t.send(provider), NotSent)
        await t.sandbox.tick(2)
        assert t.paid() == []
        assert isinstance(await t.send(provider), PayoutTold)
        await t.sandbox.tick(2)
        assert len(t.paid()) == 1

    play(story)


# --- what becomes of it -------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", SIX)
def test_a_payout_that_fails_pays_nobody_and_the_float_has_it_back(provider: str) -> None:
    """Monetbil says it in its answer, the others later; nobody was paid at any time."""

    async def story(t: Till) -> None:
        t.sandbox.trouble.on(provider, "payout_fails", times=1)
        sent = await t.send(provider)
        await t.sandbox.tick(2)
        if provider == "monetbil":
            assert isinstance(sent, PayoutRefused) and sent.reason == "bad_account"
        else:
            assert (await t.ask(provider, names=sent.names)).stage == "failed"
        assert t.paid() == [] and t.held(provider) == START_MINOR
        assert t.told()

    play(story)


@pytest.mark.parametrize("provider", SIX)
def test_a_payout_comes_back_later(provider: str) -> None:
    """Paid first, by every account; after its time the money is back, which is told again."""

    async def story(t: Till) -> None:
        t.sandbox.trouble.on(provider, "payout_returned_later", delay_ms=60_000, times=1)
        sent = await t.send(provider)
        await t.sandbox.tick(2)
        first = len(t.told())
        if provider != "monetbil":
            assert (await t.ask(provider, names=sent.names)).stage == "paid"
        assert t.held(provider) == START_MINOR - 1500
        t.clock.advance(60_000)
        await t.sandbox.tick(2)
        if provider != "monetbil":
            # The others have no word for it: failed, and perhaps a time at which it had been sent.
            stages = {"returned"} if provider in ("stripe", "paystack") else {"failed", "returned"}
            assert (await t.ask(provider, names=sent.names)).stage in stages
        assert [(one.paid_minor, one.returned_minor) for one in t.paid()] == [(1500, 1500)]
        assert t.held(provider) == START_MINOR and len(t.told()) == first + 1

    play(story)


@pytest.mark.parametrize("provider", [one for one in SIX if one != "monetbil"])
def test_a_slow_payout_is_in_transit_until_its_time(provider: str) -> None:
    """It has left the float, and nobody has it yet."""

    async def story(t: Till) -> None:
        t.sandbox.trouble.on(provider, "payout_slow", delay_ms=60_000, times=1)
        sent = await t.send(provider)
        t.clock.advance(59_999)
        await t.sandbox.tick(3)
        assert (await t.ask(provider, names=sent.names)).stage == "in_transit"
        assert t.paid() == [] and t.held(provider) == START_MINOR - 1500
        t.clock.advance(1)
        await t.sandbox.tick()
        assert (await t.ask(provider, names=sent.names)).stage == "paid" and len(t.paid()) == 1

    play(story)


@pytest.mark.parametrize("provider", SIX)
def test_a_float_that_is_too_small_is_a_no_and_filled_it_pays(provider: str) -> None:
    """By the float itself and by trouble; the same reference pays once there is enough."""

    async def story(t: Till) -> None:
        t.set_float(provider, 1499)
        refused = await t.send(provider)
        assert isinstance(refused, PayoutRefused) and refused.reason == "insufficient_float"
        t.set_float(provider, 1500)
        t.sandbox.trouble.on(provider, "insufficient_float", times=1)
        refused = await t.send(provider)
        assert isinstance(refused, PayoutRefused) and refused.reason == "insufficient_float"
        assert isinstance(await t.send(provider), PayoutTold)
        await t.sandbox.tick(2)
        assert len(t.paid()) == 1 and t.held(provider) == 0

    play(story)
