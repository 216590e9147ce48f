"""The sample merchant: what it believes, what it drops, and how it misbehaves."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from standardwebhooks.webhooks import Webhook

from service.sandbox.merchant import Delays, Ledger, Shop, Trouble, verify, verify_plain
from service.sandbox.neighbours import Cycle, Hanging, Listener, Outage, neighbours

# The shop is a server; here it is asked over loopback, as caisse asks it.
pytestmark = pytest.mark.loopback

NOW_S = 1_795_165_200.0
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()


def event(sequence: int = 1, status: str = "succeeded", payment: str = "pay_1") -> bytes:
    return json.dumps(
        {
            "id": "evt_1",
            "type": f"payment.{status}",
            "sequence": sequence,
            "data": {"payment": {"id": payment, "status": status, "amount": 5000, "currency": "XOF"}},
        }
    ).encode()


def signed(event_id: str, body: bytes, secret: str = SECRET, at_s: float = NOW_S) -> dict[str, str]:
    """Headers made by the reference library, not by the code that checks them."""
    signature = Webhook(secret).sign(event_id, datetime.fromtimestamp(at_s, UTC), body.decode())
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(int(at_s)),
        "webhook-signature": signature,
        "x-caisse-signature": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(),
    }


def test_the_reference_library_and_the_shop_agree() -> None:
    """A webhook signed by `standardwebhooks` is believed, also beside another signature and while rotating."""
    headers = signed("evt_1", event())
    assert verify(headers, event(), [SECRET], NOW_S) is None
    assert verify(headers, event(), [OTHER, SECRET], NOW_S) is None
    headers["webhook-signature"] = "v1a,xyz v1,AAAA " + headers["webhook-signature"]
    assert verify(headers, event(), [SECRET], NOW_S) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda h: h.update(signed("evt_1", event(), OTHER)), "bad_signature"),
        (lambda h: h.update(signed("evt_1", event(), at_s=NOW_S - 301)), "too_old_or_new"),
        (lambda h: h.update(signed("evt_1", event(), at_s=NOW_S + 301)), "too_old_or_new"),
        (lambda h: h.update({"webhook-id": "evt_2"}), "bad_signature"),
        (lambda h: h.update({"webhook-timestamp": str(int(NOW_S) + 1)}), "bad_signature"),
        (lambda h: h.update({"webhook-timestamp": "９"}), "missing_header"),
        (lambda h: h.update({"webhook-timestamp": "-1"}), "missing_header"),
        (lambda h: h.update({"webhook-signature": "v1,é"}), "bad_signature"),
        (lambda h: h.update({"webhook-signature": ""}), "bad_signature"),
        (lambda h: h.pop("webhook-id"), "missing_header"),
    ],
)
def test_what_is_not_caisses_is_refused(change: Callable[[dict[str, str]], Any], reason: str) -> None:
    """Wrong secret, another time, another id, nonsense: each is refused and none raises."""
    headers = signed("evt_1", event())
    change(headers)
    headers = {name: value for name, value in headers.items() if value is not None}
    assert verify(headers, event(), [SECRET], NOW_S) == reason


def test_every_flipped_byte_is_noticed() -> None:
    """One bit anywhere in the body, and both schemes refuse."""
    headers, body = signed("evt_1", event()), event()
    for at in range(len(body)):
        flipped = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        assert verify(headers, flipped, [SECRET], NOW_S) == "bad_signature"
        assert verify_plain(headers, flipped, [SECRET]) == "bad_signature"
    assert verify_plain(headers, body, [SECRET]) is None
    assert verify_plain({}, body, [SECRET]) == "missing_header"


def test_no_secret_believes_nothing() -> None:
    """An empty list of secrets, or one that is not base64, closes the door."""
    assert verify(signed("evt_1", event()), event(), [], NOW_S) == "bad_signature"
    assert verify(signed("evt_1", event()), event(), ["whsec_%%%"], NOW_S) == "bad_signature"


def test_the_ledger_drops_repeats_and_what_is_older() -> None:
    """The highest sequence number of a payment wins; each payment counts for itself."""
    ledger = Ledger()
    assert ledger.take("evt_2", json.loads(event(2, "succeeded"))) == "new"
    assert ledger.take("evt_2", json.loads(event(2, "succeeded"))) == "repeat"
    assert ledger.take("evt_1", json.loads(event(1, "pending"))) == "older"
    assert ledger.take("evt_3", json.loads(event(1, "pending", "pay_2"))) == "new"
    assert ledger.payments == {"pay_1": (2, "succeeded"), "pay_2": (1, "pending")}


def with_shop(trouble: Trouble, play: Callable[[Shop, Callable[..., Awaitable[int]]], Awaitable[None]]) -> Shop:
    async def run() -> Shop:
        shop = Shop([SECRET], trouble, clock_s=lambda: NOW_S)
        await shop.start()
        try:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:

                async def post(event_id: str, body: bytes, **headers: str) -> int:
                    async with session.post(shop.url, data=body, headers=signed(event_id, body) | headers) as answer:
                        return answer.status

                await play(shop, post)
        finally:
            await shop.stop()
        return shop

    return asyncio.run(run())


def test_the_shop_over_http() -> None:
    """Believed once, dropped as a repeat, refused when forged; all of it counted."""

    async def play(shop: Shop, post: Callable[..., Awaitable[int]]) -> None:
        assert await post("evt_1", event()) == 200
        assert await post("evt_1", event()) == 200
        assert await post("evt_0", event(1)) == 200
        assert await post("evt_9", event(), **{"webhook-signature": "v1,AAAA"}) == 401
        assert await post("evt_9", event(), **{"x-caisse-signature": "sha256=00"}) == 401

    counters = with_shop(Trouble(), play).counters
    assert (counters.received, counters.verified, counters.refused) == (5, 3, 2)
    assert (counters.new, counters.repeat, counters.older, counters.on_purpose) == (1, 1, 1, 0)


class Always(random.Random):
    """Luck that always brings the same trouble."""

    def __init__(self, trouble: str) -> None:
        super().__init__(0)
        self.trouble = trouble

    def random(self) -> float:
        return 0.0

    def choice(self, seq: Any) -> Any:
        assert self.trouble in seq
        return self.trouble


def test_a_refusal_on_purpose_keeps_nothing() -> None:
    """After a 503 the next try is new, and its receipt says that it was the second."""

    async def play(shop: Shop, post: Callable[..., Awaitable[int]]) -> None:
        assert await post("evt_1", event()) == 503
        assert not shop.ledger.payments
        shop.trouble.rate = 0.0
        shop.trouble.rng = random.Random(1)
        assert await post("evt_1", event()) == 200

    shop = with_shop(Trouble(1.0, rng=Always("unavailable")), play)
    assert (shop.counters.unavailable, shop.counters.new, shop.counters.retried) == (1, 1, 1)
    assert [(receipt.tries, receipt.trouble) for receipt in shop.receipts] == [(1, "unavailable"), (2, "")]


def test_an_answer_that_is_lost_makes_a_repeat() -> None:
    """The shop has kept it, the sender never hears, the next try is dropped as a repeat."""

    async def play(shop: Shop, post: Callable[..., Awaitable[int]]) -> None:
        with pytest.raises(aiohttp.ClientError):
            await post("evt_1", event())
        shop.trouble.rate = 0.0
        shop.trouble.rng = random.Random(1)
        assert await post("evt_1", event()) == 200

    shop = with_shop(Trouble(1.0, rng=Always("lost")), play)
    assert (shop.counters.lost, shop.counters.new, shop.counters.repeat) == (1, 1, 1)


def test_a_slow_answer_is_still_an_answer() -> None:
    """Slow is not wrong."""

    async def play(shop: Shop, post: Callable[..., Awaitable[int]]) -> None:
        assert await post("evt_1", event()) == 200

    assert with_shop(Trouble(1.0, slow_s=0.01, rng=Always("slow")), play).counters.slow == 1


def test_the_same_seed_brings_the_same_trouble() -> None:
    """What a demonstration showed can be shown again."""
    one, two = (Trouble(0.3, rng=random.Random(7)) for _ in range(2))
    said = [one.next() for _ in range(200)]
    assert said == [two.next() for _ in range(200)]
    assert set(said) == {"", "unavailable", "lost", "slow"}


def test_one_that_hangs_keeps_nothing_and_lets_go() -> None:
    """Whoever waits gets no answer; when it is let go he gets 503, and nothing was kept."""

    async def play(shop: Shop, post: Callable[..., Awaitable[int]]) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(post("evt_1", event()), 0.2)
        asyncio.get_running_loop().call_later(0.2, shop.let_go)
        assert await post("evt_2", event()) == 503
        assert await post("evt_3", event()) == 503

    shop = with_shop(Hanging(), play)
    assert (shop.counters.hung, shop.counters.new, shop.counters.unavailable) == (3, 0, 0)
    assert not shop.ledger.seen


def test_an_outage_comes_and_goes() -> None:
    """Up at first, down for its time, up again, and the same once more."""
    now_s = 1_000.0
    outage = Outage(Cycle(first_s=20, down_s=50, every_s=240), clock_s=lambda: now_s)
    said = {}
    for elapsed_s in (0, 19.9, 20, 69.9, 70, 259.9, 260, 309.9, 310):
        now_s = 1_000 + elapsed_s
        said[elapsed_s] = outage.next()
    down = [elapsed_s for elapsed_s, word in said.items() if word == "unavailable"]
    assert down == [20, 69.9, 260, 309.9]
    now_s = 1_060.0
    assert outage.left_s == 10


def test_the_neighbours_say_what_is_the_matter() -> None:
    """books is well, stock hangs, courier is down in its time; what the first is owed may not wait."""
    books, stock, courier = neighbours({"books": 0, "stock": 0, "courier": 0}, Cycle(first_s=0))
    assert [(one.name, one.manner, one.patient) for one in (books, stock, courier)] == [
        ("books", "", False),
        ("stock", "hangs", True),
        ("courier", "down", True),
    ]
    assert Listener("shop", Shop()).manner == ""
    assert neighbours({"books": 0, "stock": 0, "courier": 0}, Cycle(first_s=60))[2].manner == ""


def test_delays_are_of_the_last_minute() -> None:
    """Half of them, all but one of a hundred; what is older than a minute is forgotten, and nothing has no time."""
    delays = Delays()
    assert delays.percentiles(0.0) is None
    delays.note(0.0, 500.0)
    for number in range(1, 101):
        delays.note(61.0, number / 1000)
    assert delays.percentiles(61.0) == (0.050, 0.099)
    assert delays.percentiles(122.0) is None
    delays.note(122.0, -0.5)  # two clocks, or one that was set back
    assert delays.percentiles(122.0) == (0.0, 0.0)


def test_the_shop_knows_how_long_a_webhook_took() -> None:
    """From the event's `created_at` to its receipt, once; a repeat has no time of its own."""
    body = json.dumps({**json.loads(event()), "created_at": "2026-11-20T08:59:59.750Z"}).encode()

    async def play(shop: Shop, post: Callable[..., Awaitable[int]]) -> None:
        assert await post("evt_1", body) == 200
        assert await post("evt_1", body) == 200
        assert await post("evt_2", event(2)) == 200  # says nothing of its age

    shop = with_shop(Trouble(), play)
    made_s = datetime.fromisoformat("2026-11-20T08:59:59.750Z").timestamp()
    found = shop.delays.percentiles(NOW_S)
    assert found == (NOW_S - made_s, NOW_S - made_s)


def test_a_full_ledger_believes_it_knows() -> None:
    """What it has forgotten is not called lost."""
    ledger = Ledger()
    ledger.take("evt_1", {})
    assert ledger.knows("evt_1")
    assert not ledger.knows("evt_2")
    ledger.LIMIT = 1
    assert ledger.knows("evt_2")
