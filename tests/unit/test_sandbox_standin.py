"""The stand-in for the three providers that are asked: their shapes, their strictness, their bad days."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from service.sandbox.standin import Book, Entry, Keys, StandIn

# The stand-in is a server; it is asked over loopback.
pytestmark = pytest.mark.loopback

KEYS = Keys(
    moneroo_secret_key="pvk_sandbox_1",
    ebilling_username="boutique",
    ebilling_shared_key="partagé",
    monetbil_service_key="s1",
)
BEARER = {"Authorization": "Bearer pvk_sandbox_1"}


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


BASIC = basic("boutique", "partagé")
Ask = Callable[..., Awaitable[tuple[int, Any]]]


def with_standin(book: Book, play: Callable[[Ask, StandIn], Awaitable[None]]) -> None:
    async def run() -> None:
        standin = StandIn(book, KEYS, clock_ms=lambda: 1_795_165_200_000)
        bases = await standin.start()
        assert set(bases) == {"monetbil", "moneroo", "ebilling"}
        try:
            async with aiohttp.ClientSession() as session:

                async def ask(provider: str, method: str, path: str, **more: Any) -> tuple[int, Any]:
                    async with session.request(method, bases[provider] + path, **more) as answer:
                        return answer.status, await answer.json()

                await play(ask, standin)
        finally:
            await standin.stop()

    asyncio.run(run())


def paid(**more: Any) -> Entry:
    return Entry(**{"state": "succeeded", "amount": 5000, "currency": "XAF", "reference": "CMD-1", **more})


def check(payment_id: str) -> dict[str, Any]:
    return {"method": "POST", "path": "/payment/v1/checkPayment", "data": {"paymentId": payment_id}}


def test_monetbil_says_everything_in_strings_and_nothing_before_the_end() -> None:
    """No `transaction` while it is pending; then one whose values are all strings."""
    book = Book()
    book.write(
        "monetbil", "19082507131258787499", paid(test=False, pending_times=1, operator="CM_ORANGEMONEY", fee=100)
    )

    async def play(ask: Ask, _standin: StandIn) -> None:
        status, body = await ask("monetbil", **check("19082507131258787499"))
        assert (status, "transaction" in body) == (200, False)
        status, body = await ask("monetbil", **check("19082507131258787499"))
        transaction = body["transaction"]
        assert status == 200
        assert all(isinstance(value, str) for value in transaction.values())
        assert (transaction["status"], transaction["testmode"], transaction["amount"]) == ("1", "0", "5000")
        assert (transaction["item_ref"], transaction["revenue"], transaction["service_key"]) == ("CMD-1", "4900", "s1")

    with_standin(book, play)


@pytest.mark.parametrize(
    ("state", "live", "test"),
    [
        ("succeeded", "1", "7"),
        ("failed", "0", "8"),
        ("expired", "0", "8"),
        ("canceled", "-1", "9"),
        ("refunded", "-2", "-2"),
    ],
)
def test_monetbil_numbers_its_states(state: Any, live: str, test: str) -> None:
    """Live and test mode have numbers of their own."""
    book = Book()
    book.write("monetbil", "1", paid(state=state, test=False))
    book.write("monetbil", "2", paid(state=state, test=True))

    async def play(ask: Ask, _standin: StandIn) -> None:
        for payment_id, expected in (("1", live), ("2", test)):
            _, body = await ask("monetbil", **check(payment_id))
            assert body["transaction"]["status"] == expected

    with_standin(book, play)


def test_monetbil_takes_json_too_and_knows_what_it_does_not_know() -> None:
    """A missing field is 422, an unknown payment has no transaction."""
    book = Book()
    book.write("monetbil", "1", paid())

    async def play(ask: Ask, _standin: StandIn) -> None:
        status, _ = await ask("monetbil", "POST", "/payment/v1/checkPayment", json={"paymentId": "1"})
        assert status == 200
        status, _ = await ask("monetbil", "POST", "/payment/v1/checkPayment", data={})
        assert status == 422
        _, body = await ask("monetbil", **check("2"))
        assert "transaction" not in body

    with_standin(book, play)


def test_moneroo_wants_its_key_and_wraps_its_answer() -> None:
    """401 without the key, 404 for what it does not know, `data` with the currency as an object otherwise."""
    book = Book()
    book.write("moneroo", "py_1", paid(state="canceled", currency="XOF"))

    async def play(ask: Ask, _standin: StandIn) -> None:
        assert (await ask("moneroo", "GET", "/v1/payments/py_1/verify"))[0] == 401
        wrong = {"Authorization": "Bearer pvk_sandbox_2"}
        assert (await ask("moneroo", "GET", "/v1/payments/py_1/verify", headers=wrong))[0] == 401
        status, body = await ask("moneroo", "GET", "/v1/payments/py_2/verify", headers=BEARER)
        assert (status, body["data"]) == (404, None)
        status, body = await ask("moneroo", "GET", "/v1/payments/py_1/verify", headers=BEARER)
        assert (status, body["errors"], body["data"]["status"]) == (200, None, "cancelled")
        assert (body["data"]["amount"], body["data"]["currency"]["code"]) == (5000, "XOF")

    with_standin(book, play)


def test_ebilling_wants_its_pair_and_sends_the_bill_bare() -> None:
    """Basic credentials, the bill at the root, money received only when paid."""
    book = Book()
    book.write("ebilling", "5550051928", paid(operator="airtelmoney"))
    book.write("ebilling", "5550051929", paid(state="expired"))

    async def play(ask: Ask, standin: StandIn) -> None:
        path = "/api/v1/merchant/e_bills/"
        assert (await ask("ebilling", "GET", path + "5550051928"))[0] == 401
        wrong = basic("boutique", "autre")
        assert (await ask("ebilling", "GET", path + "5550051928", headers=wrong))[0] == 401
        assert (await ask("ebilling", "GET", path + "1", headers=BASIC))[0] == 404
        status, bill = await ask("ebilling", "GET", path + "5550051928", headers=BASIC)
        assert (status, bill["state"], bill["amount_paid"], bill["external_reference"]) == (
            200,
            "processed",
            5000,
            "CMD-1",
        )
        _, bill = await ask("ebilling", "GET", path + "5550051929", headers=BASIC)
        assert (bill["state"], bill["amount_paid"]) == ("expired", 0)
        assert standin.asked == {("ebilling", 401): 2, ("ebilling", 404): 1, ("ebilling", 200): 2}

    with_standin(book, play)


@pytest.mark.parametrize("provider", StandIn.PROVIDERS)
def test_a_bad_day(provider: str) -> None:
    """Two times 503, once not yet, then the truth, for each of the three."""
    book = Book()
    book.write(provider, "1", paid(fail_times=2, pending_times=1))

    async def play(ask: Ask, _standin: StandIn) -> None:
        how: dict[str, dict[str, Any]] = {
            "monetbil": check("1"),
            "moneroo": {"method": "GET", "path": "/v1/payments/1/verify", "headers": BEARER},
            "ebilling": {"method": "GET", "path": "/api/v1/merchant/e_bills/1", "headers": BASIC},
        }
        answers = [await ask(provider, **how[provider]) for _ in range(4)]
        assert [status for status, _ in answers] == [503, 503, 200, 200]
        assert answers[2] != answers[3]

    with_standin(book, play)


def test_the_book_forgets_the_oldest() -> None:
    """A demonstration left running for a week does not fill the memory."""
    book = Book()
    for number in range(Book.LIMIT + 1):
        book.write("moneroo", str(number), paid())
    assert book.read("moneroo", "0") is None
    assert book.read("moneroo", str(Book.LIMIT)) is not None
