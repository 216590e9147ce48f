"""The sandbox's trouble, callbacks, pages and counter, over real sockets, with what caisse really sends."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import aiohttp
import pytest

from service.payments.facts import Kind, Reason, Told
from service.providers.base import NotFinal, NotKnown, Unclear
from service.providers.calls import Accepted, Lost, NotSent, Redirect, RefundRefused
from service.sandbox.api import APIS
from service.sandbox.bank import Payer
from service.sandbox.desk import Account
from service.sandbox.post import RETRY_MS
from service.sandbox.teller import Sandbox
from tests.support.sandbox import CREDENTIALS, PHONES, RETURN_URL, WANTED, Trial, fetched, trial

THREE = ("stripe", "paystack", "fedapay")
SOON_MS = 1_000
"""How long our client waits where no answer comes: enough for all that comes before, on a busy machine too."""


def play(
    story: Callable[[Trial], Awaitable[None]],
    anybody: Payer | None = None,
    ports: Literal["one", "each"] = "one",
) -> None:
    async def run() -> None:
        async with trial(ports, anybody) as t:
            await story(t)

    asyncio.run(run())


async def pay(t: Trial, result: Any) -> None:
    """The payer does what is to be done."""
    assert isinstance(result, Accepted)
    if isinstance(result.action, Redirect):
        t.sandbox.visit(result.action.url, "pay")
    await t.sandbox.tick()


async def until(there: Callable[[], object]) -> None:
    """Wait for what another task does; the test's own time limit ends it."""
    while not there():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.005)


def limit(kind: str) -> int:
    """ms that our client waits for an answer."""
    return SOON_MS if kind.startswith("timeout") else 15_000


# --- trouble ------------------------------------------------------------------------------------------

BEFORE = {
    "timeout_before": Lost("timeout"),
    "error_5xx_before": Lost("provider_error"),
    "rate_limited": NotSent("rate_limited"),
    "unauthorized": NotSent("credentials", alert=True),
    "maintenance": Lost("provider_error"),
}
AFTER = {
    "timeout_after": Lost("timeout"),
    "reset": Lost("connection_lost"),
    "error_5xx_after": Lost("provider_error"),
    "garbage_2xx": Lost("unreadable"),
}


@pytest.mark.parametrize("provider", THREE)
@pytest.mark.parametrize("kind", BEFORE)
def test_before_means_that_nothing_happened_and_the_next_one_is_well(provider: str, kind: str) -> None:
    """What our adapter concludes, and that the books are empty; counted once, it strikes once."""

    async def story(t: Trial) -> None:
        t.sandbox.trouble.on(provider, kind, times=1)
        assert await t.create(provider, limit_ms=limit(kind)) == BEFORE[kind]
        assert t.sandbox.bank.books() == []
        await pay(t, await t.create(provider))
        assert len(t.sandbox.bank.charged()) == 1

    play(story)


@pytest.mark.parametrize("provider", THREE)
@pytest.mark.parametrize("kind", AFTER)
def test_after_means_that_it_is_done_and_is_found_by_asking(provider: str, kind: str) -> None:
    """The books have it, our adapter knows nothing, and asks by our reference; nobody is charged twice."""

    async def story(t: Trial) -> None:
        t.sandbox.trouble.on(provider, kind, times=1)
        assert await t.create(provider, limit_ms=limit(kind)) == AFTER[kind]
        assert t.charge().reference == WANTED[provider].reference
        assert isinstance(await t.find(provider), NotFinal)
        if provider == "paystack":  # one call, and the phone has rung: the payer pays, whoever got the answer
            await t.sandbox.tick()
            answer = await t.find(provider)
            assert isinstance(answer, Told) and answer.facts[0].kind is Kind.CAPTURED
        assert len(t.sandbox.bank.charged()) == (provider == "paystack")

    play(story)


@pytest.mark.parametrize("provider", THREE)
def test_a_refused_connection_is_really_refused_and_others_are_not(provider: str) -> None:
    """The listener is closed, which proves that nothing was sent; then it is open again at the same address."""

    async def story(t: Trial) -> None:
        address = t.sandbox.base_urls[provider]
        t.sandbox.trouble.on(provider, "refuse")
        assert await t.create(provider) == NotSent("refused")
        other = next(name for name in THREE if name != provider)
        assert isinstance(await t.create(other), Accepted)
        t.sandbox.trouble.off(provider)
        assert t.sandbox.base_urls[provider] == address
        assert isinstance(await t.create(provider), Accepted)

    play(story, ports="each")


def test_refusing_drops_connections_that_were_kept() -> None:
    """A pooled connection gets no answer either: refused is refused."""

    async def story(t: Trial) -> None:
        url = t.sandbox.base_urls["paystack"] + "/transaction"
        async with aiohttp.ClientSession() as session:
            async with session.get(url) as answer:
                assert answer.status == 401
            t.sandbox.trouble.on("paystack", "refuse")
            with pytest.raises(aiohttp.ClientError):
                await session.get(url)

    play(story, ports="each")


def test_refuse_needs_a_port_for_each_provider() -> None:
    """With one port for all it is a clear error, and nothing is switched on."""

    async def story(t: Trial) -> None:
        with pytest.raises(ValueError, match="ports"):
            t.sandbox.trouble.on("paystack", "refuse")
        assert t.sandbox.trouble.rules() == ()

    play(story)


@pytest.mark.parametrize("provider", THREE)
def test_trouble_with_asking_leaves_things_unclear(provider: str) -> None:
    """A question that breaks decides nothing, and the next one is answered."""

    async def story(t: Trial) -> None:
        await t.create(provider)
        for kind in ("error_5xx_before", "reset", "garbage_2xx", "rate_limited", "timeout_after"):
            t.sandbox.trouble.on(provider, kind, "fetch")  # aiohttp itself repeats a GET whose connection was dropped
            assert isinstance(await t.find(provider, limit_ms=limit(kind)), Unclear)
            t.sandbox.trouble.off()
        assert isinstance(await t.find(provider), NotFinal)

    play(story)


def test_trouble_with_cancelling_and_refunding() -> None:
    """Done and not answered: the session is dead, the money is on its way, and the books say so."""

    async def story(t: Trial) -> None:
        result = await t.create("stripe")
        t.sandbox.trouble.on("stripe", "timeout_after", "cancel", times=1)
        assert isinstance(await t.cancel("stripe", result.told.references[0], limit_ms=SOON_MS), Lost)
        assert t.charge().state == "expired"
        result = await t.create("paystack")
        await pay(t, result)
        t.sandbox.trouble.on("paystack", "reset", "refund", times=1)
        assert isinstance(await t.refund("paystack", 1500, *result.told.references), Lost)
        (charge,) = t.sandbox.bank.charged()
        assert charge.refunded_minor == 1500
        again = await t.refund("paystack", 1500, *result.told.references)
        assert isinstance(again, RefundRefused) and again.reason == "already_refunded"

    play(story)


@pytest.mark.parametrize(("provider", "minor"), [("stripe", -5), ("stripe", 5), ("paystack", -5), ("fedapay", 5)])
def test_another_amount_is_taken_and_said(provider: str, minor: int) -> None:
    """The books, the answer and the callback agree on what was really taken."""

    async def story(t: Trial) -> None:
        t.sandbox.trouble.on(provider, "wrong_amount", times=1, minor=minor)
        result = await t.create(provider)
        await pay(t, result)
        taken = WANTED[provider].amount_minor + minor
        assert t.charge().captured_minor == taken
        answer = await t.fetch(provider, *result.told.references)
        assert isinstance(answer, Told) and answer.facts[0].amount_minor == taken
        captured = [fact for told in t.told() for fact in told.facts if fact.kind is Kind.CAPTURED]
        assert {fact.amount_minor for fact in captured} == {taken}

    play(story)


# --- callbacks ----------------------------------------------------------------------------------------


def test_silence_duplicates_and_lateness() -> None:
    """None, two alike, and not before its time."""

    async def story(t: Trial) -> None:
        t.sandbox.trouble.on("paystack", "silence")
        await pay(t, await t.create("paystack", reference="a"))
        assert t.got == [] and len(t.sandbox.bank.charged("a")) == 1
        t.sandbox.trouble.off()
        t.sandbox.trouble.on("paystack", "duplicate", times=1)
        await pay(t, await t.create("paystack", reference="b"))
        assert len(t.got) == 2 and t.got[0][1].body == t.got[1][1].body
        t.got.clear()
        t.sandbox.trouble.on("paystack", "late", times=1, delay_ms=60_000)
        await pay(t, await t.create("paystack", reference="c"))
        t.clock.advance(59_999)
        await t.sandbox.tick()
        assert t.got == []
        t.clock.advance(1)
        await t.sandbox.tick()
        assert [told.reference for told in t.told()] == ["c"]

    play(story)


def test_reordered_callbacks_come_last_first() -> None:
    """Approved is told before created."""

    async def story(t: Trial) -> None:
        t.sandbox.trouble.on("fedapay", "reordered")
        await t.create("fedapay")
        await t.sandbox.tick()
        assert t.kinds() == ["captured", "pending"]

    play(story)


def test_a_callback_is_sent_again_until_it_is_taken() -> None:
    """A 500 and a redirect are no acknowledgement; signed anew each time, the same event."""

    async def story(t: Trial) -> None:
        t.answers += [500, 302]
        result = await t.create("stripe", embedded=True)
        assert isinstance(result, Accepted)
        await t.sandbox.tick(2)
        assert len(t.got) == 1  # not before its time
        for delay in RETRY_MS[:3]:
            t.clock.advance(delay)
            await t.sandbox.tick()
        bodies = {callback.body for _, callback in t.got}
        assert len(t.got) == 3 and len(bodies) == 1 and t.sandbox.post.waiting == 0
        assert [sent.status for sent in t.sandbox.post.sent] == [500, 302, 200]

    play(story)


def test_a_callback_that_nobody_takes_is_given_up() -> None:
    """A bounded number of tries."""

    async def story(t: Trial) -> None:
        t.answers += [500] * 50
        await t.create("stripe", embedded=True)
        for _ in range(20):
            await t.sandbox.tick()
            t.clock.advance(RETRY_MS[-1])
        assert (len(t.got), t.sandbox.post.waiting, t.sandbox.post.dropped) == (len(RETRY_MS) + 1, 0, 1)

    play(story)


# --- pages --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", THREE)
def test_a_person_pays_on_the_page_and_pressing_twice_pays_once(provider: str) -> None:
    """Both languages, the sum, no script; pay leads back to the shop, and a second press takes nothing."""

    async def story(t: Trial) -> None:
        result = await t.create(provider, operator="", payer_phone="", description="<script>alert(1)</script>")
        assert isinstance(result, Accepted) and isinstance(result.action, Redirect)
        status, page = await fetched("GET", result.action.url)
        assert status == 200 and "Payer · Pay" in page and "Abandon" in page
        assert "<script" not in page and WANTED[provider].currency in page
        for _ in range(2):
            status, back = await fetched("POST", result.action.url, data={"choice": "pay"})
            assert status == 303 and back.startswith(RETURN_URL)
        assert len(t.sandbox.bank.charged()) == 1
        status, page = await fetched("GET", result.action.url)
        assert "Payé · Paid" in page and "<button" not in page

    play(story)


def test_a_declined_card_is_told_on_the_page_and_may_be_tried_again() -> None:
    """Stripe keeps the page open; its reason is shown."""

    async def story(t: Trial) -> None:
        result = await t.create("stripe")
        form = {"choice": "fail", "reason": "insufficient_funds"}
        status, page = await fetched("POST", result.action.url, data=form)
        assert status == 200 and "Solde insuffisant" in page and "Payer · Pay" in page
        assert t.charge().tries[0].reason is Reason.INSUFFICIENT_FUNDS

    play(story)


def test_odd_pages() -> None:
    """No such page, no such choice, no such place, too much: a small answer, never a 5xx."""

    async def story(t: Trial) -> None:
        result = await t.create("stripe")
        assert (await fetched("GET", t.sandbox.base_urls["stripe"] + "/pay/nobody"))[0] == 404
        assert (await fetched("POST", result.action.url, data={"choice": "rob"}))[0] == 400
        assert (await fetched("GET", t.sandbox.url + "/"))[0] == 404
        assert (await fetched("GET", t.sandbox.url + "/%2e%2e/etc"))[0] == 404
        assert (await t.ask("stripe", "POST", "/v1/refunds", data=b"x" * 300_000))[0] == 413
        with pytest.raises(ValueError):
            t.sandbox.visit("http://127.0.0.1/elsewhere", "pay")

    play(story)


def test_the_phone_shows_what_waits_and_answers_for_its_owner() -> None:
    """A code to read, a prompt to approve, one to decline; another number sees none of it."""

    async def story(t: Trial) -> None:
        phone = f"{t.sandbox.url}/_sandbox/phone/{PHONES['paystack']}"
        t.sandbox.bank.set_payer(PHONES["paystack"], Payer("waits", otp="778899"))
        await t.create("paystack", operator="orange", reference="otp")
        assert "778899" in (await fetched("GET", phone))[1]
        other = f"{t.sandbox.url}/_sandbox/phone/0799999999"
        assert "778899" not in (await fetched("GET", other))[1]
        for reference, choice, kind in (("a", "pay", Kind.CAPTURED), ("b", "fail", Kind.FAILED)):
            await t.create("paystack", reference=reference)
            charge = t.sandbox.bank.of("paystack")[0]
            form = {"provider": "paystack", "id": charge.id, "choice": choice, "reason": "wrong_pin"}
            await fetched("POST", other, data=form)
            assert charge.live  # not that number's
            assert (await fetched("POST", phone, data=form))[0] == 200
            answer = await t.find("paystack", reference)
            assert isinstance(answer, Told) and answer.facts[0].kind is kind
        assert isinstance(await t.find("paystack", "otp"), NotFinal)

    play(story)


# --- the counter --------------------------------------------------------------------------------------


def test_trouble_payers_and_books_over_http() -> None:
    """A script switches trouble on and off, sets a payer, and reads the books."""

    async def story(t: Trial) -> None:
        url = f"{t.sandbox.url}/_sandbox"
        status, said = await fetched(
            "POST", f"{url}/trouble", json={"provider": "paystack", "kind": "reset", "times": 1}
        )
        assert status == 200 and [rule["kind"] for rule in said["on"]] == ["reset"] and "silence" in said["kinds"]
        assert isinstance(await t.create("paystack"), Lost)
        await fetched("POST", f"{url}/trouble", json={"provider": "*", "kind": "silence"})
        _, said = await fetched("POST", f"{url}/trouble/off", json={"provider": "*"})
        assert said["on"] == []
        declines = {"phone": PHONES["paystack"], "does": "declines", "reason": "no_wallet"}
        assert (await fetched("POST", f"{url}/payer", json=declines))[0] == 200
        await t.sandbox.tick()
        _, books = await fetched("GET", f"{url}/books")
        (charge,) = books["charges"]
        assert (charge["state"], charge["reason"], charge["amount_minor"]) == ("failed", "no_wallet", 1500)

    play(story)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("trouble", {"provider": "paypal", "kind": "reset"}),
        ("trouble", {"provider": "stripe", "kind": "rain"}),
        ("trouble", {"provider": "stripe", "kind": "reset", "times": "1"}),
        ("trouble", {"provider": "stripe", "kind": "reset", "times": 0}),
        ("trouble", {"provider": "stripe", "kind": "reset", "colour": "red"}),
        ("trouble", {"provider": "stripe", "kind": "refuse"}),
        ("trouble", ["stripe"]),
        ("trouble/off", {"which": "all"}),
        ("payer", {"phone": "07", "does": "dances"}),
        ("payer", {"phone": "07", "reason": "bored"}),
        ("payer", {"phone": "07", "wrong_otps": True}),
    ],
)
def test_the_counter_names_what_is_wrong(path: str, said: Any) -> None:
    """A sentence and a 400; nothing is switched on."""

    async def story(t: Trial) -> None:
        status, body = await fetched("POST", f"{t.sandbox.url}/_sandbox/{path}", json=said)
        assert status == 400 and body["error"]
        assert t.sandbox.trouble.rules() == ()
        assert (await fetched("GET", f"{t.sandbox.url}/_sandbox/nothing"))[0] == 404

    play(story)


def test_it_stops_while_somebody_waits_for_an_answer_that_never_comes() -> None:
    """A hanging answer holds nobody: stopping drops it."""

    async def run() -> None:
        async with trial() as t:
            t.sandbox.trouble.on("paystack", "timeout_before")
            waiting = asyncio.create_task(t.create("paystack"))
            await until(lambda: t.sandbox.hanging)
            await t.sandbox.stop()
            assert isinstance(await waiting, Lost)

    asyncio.run(run())


def test_it_ticks_by_itself_in_a_demonstration() -> None:
    """With `every_ms` nobody has to tick."""

    async def run() -> None:
        account = Account("paystack", {"secret_keys": ["k"]})
        async with Sandbox([account], every_ms=5) as sandbox:
            said = {
                "email": "a@b.example",
                "amount": 100,
                "currency": "XOF",
                "mobile_money": {"phone": "0700000001", "provider": "mtn"},
            }
            url = sandbox.base_urls["paystack"] + "/charge"
            assert (await fetched("POST", url, json=said, headers={"Authorization": "Bearer k"}))[0] == 200
            await until(sandbox.bank.charged)

    asyncio.run(run())


def test_nobody_reads_what_is_anothers() -> None:
    """Two accounts of one provider: the other's reference is free, the other's payment not known."""

    async def run() -> None:
        async with trial() as t:
            other = Account("paystack", {"secret_keys": ("sk_live_other",)}, name="other")
            t.sandbox.desk.accounts = (*t.sandbox.desk.accounts, other)
            await t.create("paystack")
            headers = {"Authorization": "Bearer sk_live_other"}
            path = f"/transaction/verify/{WANTED['paystack'].reference}"
            assert (await t.ask("paystack", "GET", path, headers=headers))[0] == 400
            assert (await t.ask("paystack", "GET", path))[0] == 200
            assert isinstance(await t.find("paystack", "never-seen"), NotKnown)

    asyncio.run(run())


def test_an_account_without_a_secret_gets_no_callbacks_and_breaks_nothing() -> None:
    """Nothing to sign with: it is dropped, and the others' are sent."""

    async def run() -> None:
        async with trial() as t:
            bare = Account("stripe", {"secret_key": ("sk_bare",)}, t.sandbox.desk.accounts[0].callback_url, "bare")
            t.sandbox.desk.accounts = (*t.sandbox.desk.accounts, bare)
            form = {"amount": "500", "currency": "eur"}
            headers = {"Authorization": "Bearer sk_bare"}
            assert (await t.ask("stripe", "POST", "/v1/payment_intents", data=form, headers=headers))[0] == 200
            await t.create("stripe", embedded=True)
            await t.sandbox.tick()
            assert (len(t.got), t.sandbox.post.dropped, t.sandbox.post.waiting) == (1, 1, 0)

    asyncio.run(run())


def test_the_command_runs_in_the_foreground_until_it_is_told_to_stop() -> None:
    """It prints every address and key, answers, and ends with 0 on SIGTERM."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = "from service.cli.sandbox import sandbox; sandbox()"
    arguments = [sys.executable, "-W", "error", "-c", code, "--port", str(port)]

    async def run() -> None:
        process = await asyncio.create_subprocess_exec(*arguments, stdout=subprocess.PIPE)
        assert process.stdout is not None
        lines: list[str] = []
        while not lines or "Ctrl-C" not in lines[-1]:
            line = (await process.stdout.readline()).decode()
            assert line, lines
            lines.append(line)
        said = "".join(lines)
        for name in ("stripe", "paystack", "fedapay", "monetbil", "moneroo", "ebilling"):
            assert f"CAISSE_{name.upper()}_BASE_URL=http://127.0.0.1:{port}/{name}\n" in said
        status, books = await fetched("GET", f"http://127.0.0.1:{port}/_sandbox/books")
        assert (status, books["charges"]) == (200, [])
        process.terminate()
        rest, _ = await process.communicate()
        assert (process.returncode, rest) == (0, b"Stopped.\n")

    asyncio.run(run())


ODD: tuple[bytes, ...] = (
    b"",
    b"null",
    b"[]",
    b"{}",
    b"{" * 5_000,
    b"\xff\xfe\x00",
    b'{"amount": 1e400, "email": {}, "mobile_money": [], "transaction": {}, "otp": 7, "reference": [], "token": {}}',
    b'{"amount": 100000000000000000000000000000000, "email": "a@b.example", "currency": [], "description": "x"}',
    b'{"email": "a@b.example", "amount": 100, "currency": "XOF", "metadata": {"cancel_action": 7}, "channels": [[]]}',
    b'{"description": "x", "amount": 5, "currency": {"iso": "XOF"}, "customer": {"email": []}, "include": 7}',
    b'{"description": "x", "amount": 5, "currency": {"iso": []}}',
    b"a[b][c]=1&a[b]=2&a=3",
    b"mode=payment&line_items=1",
    b"mode=payment&line_items[0]=1&line_items[0][price_data]=2",
    b"mode=payment&line_items[x][quantity]=1",
    b"amount=5&currency=eur&metadata=1",
    b"amount=500&currency=eur&metadata[reference][x]=1",
    b"amount=%FF&currency=%00",
    b"payment_intent[a]=1",
    b"&".join(b"a%d=1" % number for number in range(2_000)),
)


DOCUMENTED_500 = {("fedapay", "POST", "/v1/payouts")}  # a payout without a mode


@pytest.mark.parametrize("provider", THREE)
def test_odd_requests_get_the_providers_no_and_never_a_5xx(provider: str) -> None:
    """Every address, with bodies and queries that nobody should send."""

    async def story(t: Trial) -> None:
        key = next(iter(CREDENTIALS[provider].values()))[0]
        await t.create(provider)
        for route in APIS[provider].routes:
            path = re.sub(r"\(\?P<mode>[^()]*\)", "mtn_open", route.pattern)
            path = re.sub(r"\(\?P<\w+>[^()]*\)", t.charge().id, path).replace("(/search)?", "/search")
            assert re.fullmatch(route.pattern, path)
            for body in ODD:
                kind = "application/json" if body[:1] in b"{[n\xff" else "application/x-www-form-urlencoded"
                headers = {"Authorization": f"Bearer {key}", "Content-Type": kind}
                query = "" if body else "?limit=x&page=%FF&perPage=-1&expand[]=a&expand[]=a&from=x&query=%27"
                status, _ = await t.ask(provider, route.method, path + query, data=body, headers=headers)
                documented = (provider, route.method, path) in DOCUMENTED_500
                assert status < 500 or documented, (route.method, path, body[:60])

    play(story)
