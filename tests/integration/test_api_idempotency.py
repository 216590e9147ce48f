"""`Idempotency-Key`: done once, answered the same, and when in doubt nothing is done (R9)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, update

from service import idempotency
from service.database import Busy
from service.idempotency import KEPT_MS, Keys, Once
from service.merchants.tables import endpoints
from service.payments.desk import Desk
from service.payments.tables import idempotency as rows
from service.payments.tables import payments
from tests.support.api import Api, another, api_of
from tests.support.paying import counter
from tests.support.service import Till, till

CARD = {"amount": 5_000, "currency": "XOF", "method": "card", "providers": ["stripe"], "reference": "order 7"}
PRODUCT = {"name": "Pagne", "price": 100, "currency": "XOF"}
PHONE = {
    "amount": 5_000,
    "currency": "GHS",
    "method": "mobile_money",
    "country": "GH",
    "operator": "vodafone",
    "payer_phone": "+233201234567",
    "customer": {"email": "awa@example.com"},
    "providers": ["paystack"],
}


async def kept(t: Till) -> list[Any]:
    """The keys' rows, once every answer that went out is written beside its key."""
    assert t.app._site is not None
    await t.app._site._api.close()
    return await t.rows(rows)


def test_the_same_request_is_done_once_and_answered_the_same(tmp_path: Path) -> None:
    """One payment, one charge asked for at the provider, the very same bytes, and the mark of a replay."""

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            api = api_of(c.till)
            first = await api("POST", "/payments", CARD, once="a")
            assert (first.status, first.replayed) == (201, False)
            for _ in range(3):
                again = await api("POST", "/payments", CARD, once="a")
                assert (again.status, again.said, again.replayed) == (201, first.said, True)
            assert await c.till.count(payments) == 1 and len(c.sandbox.bank.of("stripe")) == 1
            other = await api("POST", "/payments", CARD, once="b")
            assert other.said["id"] != first.said["id"] and not other.replayed

    asyncio.run(run())


def test_another_body_is_refused_and_leaves_the_key_as_it_was(tmp_path: Path) -> None:
    """R9: 422 for another body and another address, however often, and the first request is still answered."""

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            api = api_of(c.till)
            first = await api("POST", "/payments", CARD, once="a")
            for _ in range(3):
                for path, body in (("/payments", CARD | {"amount": 5_001}), ("/products", PRODUCT)):
                    refused = await api("POST", path, body, once="a")
                    assert (refused.status, refused.code) == (422, "idempotency_key_reused")
            again = await api("POST", "/payments", CARD, once="a")
            assert (again.said, again.replayed) == (first.said, True)
            assert await c.till.count(payments) == 1 and len(await kept(c.till)) == 1

    asyncio.run(run())


def test_when_the_storage_cannot_say_nothing_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R9: fails closed. 503, no payment, no call to a provider; a request without a key is not held up by it."""

    def broken(*_: object) -> None:
        raise Busy("The test says so.")

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            api = api_of(c.till)
            for what, name in ((idempotency, "find"), (Once, "_insert")):
                with monkeypatch.context() as patched:
                    patched.setattr(what, name, broken)
                    refused = await api("POST", "/payments", CARD, once="a")
                    assert refused.status == 503 and int(refused.headers["Retry-After"]) > 0
            assert await c.till.count(payments) == 0 and not c.sandbox.bank.of("stripe")
            assert (await api("POST", "/payments", CARD, once="a")).status == 201

    asyncio.run(run())


@pytest.mark.parametrize("moment", ["recorded", "answered"])
def test_killed_between_doing_and_answering_it_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """R9: the next process finds what was made and answers with it, and keeps refusing another body."""

    async def lost(*_: object) -> None:
        """Nothing more happens in this process."""

    async def killed(_: object, work: Any) -> None:
        work.close()
        raise RuntimeError("the process ends here")

    async def run() -> None:
        nobody = {"stripe_secret_key": "sk_test_1", "stripe_base_url": "http://127.0.0.1:9"}
        async with till(tmp_path, **nobody) as t:
            with monkeypatch.context() as patched:
                if moment == "recorded":
                    patched.setattr(Desk, "_finish", killed)
                patched.setattr(Once, "keep", lost)
                key = api_of(t).key
                async with t.client.post(
                    f"{t.url}/v1/payments",
                    json=CARD,
                    headers={"Authorization": f"Bearer {key}", "Idempotency-Key": "a"},
                ) as answer:
                    assert answer.status == (500 if moment == "recorded" else 201)
            known = [row.id for row in await t.rows(payments)]
            assert len(known) == 1
            (row,) = await t.rows(rows)
            assert (row.subject, row.status) == (known[0], None)
        async with till(
            tmp_path, merchant=False, stripe_secret_key="sk_test_1", stripe_base_url="http://127.0.0.1:9"
        ) as t:
            api = Api(t, key)
            again = await api("POST", "/payments", CARD, once="a")
            assert (again.status, again.said["id"], again.replayed) == (201, known[0], True)
            other = await api("POST", "/payments", CARD | {"amount": 1}, once="a")
            assert other.code == "idempotency_key_reused"
            assert [row.id for row in await t.rows(payments)] == known

    asyncio.run(run())


def test_of_many_at_the_same_moment_one_is_done(tmp_path: Path) -> None:
    """64 at once: one payment; the others are told to come again, or get its answer, and other bodies are refused."""

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            api = api_of(c.till)
            bodies = [CARD if number % 4 else CARD | {"amount": 9} for number in range(64)]
            answers = await asyncio.gather(*(api("POST", "/payments", body, once="a") for body in bodies))
            assert await c.till.count(payments) == 1 and len(c.sandbox.bank.of("stripe")) == 1
            made = {answer.said["id"] for answer in answers if answer.status == 201}
            assert len(made) == 1
            for answer in answers:
                assert answer.status in (201, 409, 422)
                if answer.status == 409:
                    assert answer.code == "idempotency_in_progress" and int(answer.headers["Retry-After"]) > 0
            assert {answer.status for answer in answers} >= {201, 409, 422}

    asyncio.run(run())


def test_two_processes_that_both_saw_no_key_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What memory cannot see the unique row does: the second transaction is rolled back whole, and replays."""

    async def run() -> None:
        async with till(tmp_path) as t:
            api = api_of(t)
            first = await api("POST", "/products", PRODUCT, once="a")
            find, blind = idempotency.find, [True]

            def once_blind(*args: Any) -> Any:
                return None if blind and blind.pop() else find(*args)

            monkeypatch.setattr(idempotency, "find", once_blind)
            second = await api("POST", "/products", PRODUCT, once="a")
            assert not blind and (second.said, second.replayed) == (first.said, True)
            assert len((await api("GET", "/products")).said["data"]) == 1

    asyncio.run(run())


def test_an_answer_that_was_written_a_moment_ago_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that saw the row without its answer is no proof of a crash: the answer is looked for again."""

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            api = api_of(c.till)
            first = await api("POST", "/payments", CARD, once="a")
            await kept(c.till)
            find, early = idempotency.find, [True]

            def too_early(*args: Any) -> Any:
                used = find(*args)
                return replace(used, answer=None) if early and early.pop() else used

            monkeypatch.setattr(idempotency, "find", too_early)
            await c.pay(first.said["id"])
            again = await api("POST", "/payments", CARD, once="a")
            assert not early and (again.said, again.replayed) == (first.said, True)

    asyncio.run(run())


def test_refusals_before_anything_was_recorded_leave_no_key(tmp_path: Path) -> None:
    """A body that is put right may be sent again with the same key; bad keys are named."""

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            api = api_of(c.till)
            for wrong in ({"amount": 5.0}, {"currency": "ZZZ"}, {"providers": ["paystack"]}, {"order": "ord_1"}):
                assert (await api("POST", "/payments", CARD | wrong, once="a")).status in (400, 422)
            assert (await api("POST", "/payments/pay_1/otp", {"otp": "1"}, once="a")).status == 404
            assert await kept(c.till) == []
            made = await api("POST", "/payments", CARD, once="a")
            assert made.status == 201
            refused = await api("POST", f"/payments/{made.said['id']}/otp", {"otp": "123456"}, once="b")
            assert (refused.status, refused.code) == (409, "not_waiting_for_otp")
            assert len(await kept(c.till)) == 1
            for key in ("", "a" * 256, "é", "a\tb"):
                bad = await api("POST", "/payments", CARD, headers={"Idempotency-Key": key})
                assert (bad.status, bad.code) == (400, "bad_idempotency_key") or key == "é", key
            assert (await api("POST", "/payments", CARD, once="a" * 255)).status == 201

    asyncio.run(run())


def test_a_code_is_submitted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The payer's code with a key, twice: the provider hears it once, also when nobody remembers the answer."""

    async def lost(*_: object) -> None:
        """As though killed before it was written."""

    async def run() -> None:
        async with counter(tmp_path, "paystack") as c:
            api = api_of(c.till)
            forgotten = await api("POST", "/payments", PHONE)
            c.sandbox.trouble.on("paystack", "otp_wrong", times=1)
            with monkeypatch.context() as patched:
                patched.setattr(Once, "keep", lost)
                for replayed in (False, True):
                    told = await api("POST", f"/payments/{forgotten.said['id']}/otp", {"otp": "123456"}, once="f")
                    assert (told.said["status"], told.replayed) == ("requires_action", replayed)
            (attempt,) = await c.attempts(forgotten.said["id"])
            assert attempt.otp_tries == 1

            made = await api("POST", "/payments", PHONE)
            assert made.said["next_action"]["type"] == "otp" and made.said["next_action"]["display_text"]
            path = f"/payments/{made.said['id']}/otp"
            first = await api("POST", path, {"otp": "123456"}, once="a")
            assert first.status == 200
            again = await api("POST", path, {"otp": "123456"}, once="a")
            assert (again.said, again.replayed) == (first.said, True)
            (attempt,) = await c.attempts(made.said["id"])
            assert attempt.otp_tries == 1

    asyncio.run(run())


def test_keys_are_apart_by_merchant_and_mode_and_run_out_after_a_day(tmp_path: Path) -> None:
    """The same word is another key to another merchant and in the other mode; `prune` takes the old ones alone."""

    async def run() -> None:
        async with till(tmp_path) as t:
            other = await t.create_merchant("Other")
            apis = [api_of(t), await another(t, live=True), await another(t, merchant=other.id), await another(t)]
            answers = [await api("POST", "/products", PRODUCT, once="a") for api in apis]
            assert [answer.replayed for answer in answers] == [False, False, False, True]
            assert len({answer.said["id"] for answer in answers}) == 3
            now_ms = t.app.clock()
            aged = update(rows).where(rows.c.live).values(begun_at_ms=now_ms - KEPT_MS - 1)
            await t.app.db.write(lambda tx: tx.execute(aged) and None)
            assert await t.app.db.write(idempotency.prune, now_ms) == 1
            assert not (await apis[1]("POST", "/products", PRODUCT, once="a")).replayed
            assert (await apis[0]("POST", "/products", PRODUCT, once="a")).replayed
            await t.app.db.write(lambda tx: tx.execute(aged) and None)
            assert t.app._site is not None
            t.app._site._api._keys._prune_at_ms = 0  # an hour later
            await apis[0]("POST", "/products", PRODUCT, once="b")
            assert not any(row.live for row in await kept(t))

    asyncio.run(run())


def test_a_secret_that_is_shown_once_is_sealed_beside_its_key(tmp_path: Path) -> None:
    """The replay shows it again; the file does not have it; an answer that nobody can open is never made up."""

    async def run() -> None:
        async with till(tmp_path) as t:
            api, body = api_of(t), {"url": t.shop.url}
            first = await api("POST", "/endpoints", body, once="a")
            again = await api("POST", "/endpoints", body, once="a")
            assert first.said["secret"].startswith("whsec_") and again.said == first.said and again.replayed
            (row,) = await t.rows(rows)
            assert first.said["secret"].encode() not in row.answer and b"whsec_" not in row.answer
            broken = update(rows).values(answer=row.answer[:-1] + b"x")
            await t.app.db.write(lambda tx: tx.execute(broken) and None)
            lost = await api("POST", "/endpoints", body, once="a")
            assert (lost.status, lost.code) == (409, "idempotency_lost")
            assert await t.count(endpoints) == 2

    asyncio.run(run())


def test_a_key_costs_one_statement_in_the_same_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No transaction of its own where one work does it all; a payment's answer is written after it went out."""

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            api, db = api_of(c.till), c.till.app.db
            works: list[str] = []
            write = db.write

            async def counted(work: Any, *args: Any, **more: Any) -> Any:
                works.append(getattr(work, "__qualname__", ""))
                return await write(work, *args, **more)

            monkeypatch.setattr(db, "write", counted)

            async def cost(path: str, body: Any, once: str = "") -> int:
                works.clear()
                await api("POST", path, body, once=once)
                await kept(c.till)
                return len([name for name in works if name.startswith(("Once.", "Desk.", "Keys."))])

            assert await cost("/products", PRODUCT, "a") == await cost("/products", PRODUCT) == 1
            assert await cost("/payments", CARD, "b") == await cost("/payments", CARD) + 1

    asyncio.run(run())


def test_a_work_that_runs_twice_keeps_one_row(tmp_path: Path) -> None:
    """The writer may run a work again after a neighbour's failure: the key's row is not in its own way."""

    async def run() -> None:
        async with till(tmp_path) as t:
            api = api_of(t)

            def fails(tx: Connection) -> None:
                raise ValueError("a neighbour")

            made = [api("POST", "/products", PRODUCT, once=f"k{number}") for number in range(8)]
            noise = [t.app.db.write(fails) for _ in range(8)]
            answers = await asyncio.gather(*made, *noise, return_exceptions=True)
            assert [getattr(answer, "status", 0) for answer in answers[:8]] == [201] * 8
            assert await t.count(rows) == 8

    asyncio.run(run())


def test_what_is_kept_in_memory_is_let_go(tmp_path: Path) -> None:
    """After refusals, replays and crashes of handlers nothing is held for ever."""

    async def run() -> None:
        async with till(tmp_path) as t:
            api = api_of(t)
            assert t.app._site is not None
            keys: Keys = t.app._site._api._keys
            for number in range(5):
                await api("POST", "/products", {"name": "Pagne"}, once=f"k{number % 2}")
                await api("POST", "/products", {"name": "P", "price": 1, "currency": "XOF"}, once="k")
                await api("POST", "/payments/pay_1/cancel", once=f"c{number}")
            await keys.close()
            assert keys._held == {}

    asyncio.run(run())
