"""The pull feed over HTTP: who sees what, filters, paging, and what is refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update

from service import feed
from service.merchants import keys
from service.merchants import merchants as merchant_step
from service.merchants.audit import By
from service.merchants.tables import events
from tests.support.feed import all_ids, ask, ids, key_of, new_key, pay, told
from tests.support.service import stripe_event, till


def test_a_shop_that_was_down_reads_what_it_missed_byte_for_byte(tmp_path: Path) -> None:
    """Every event once, in the order of commits, in the very bytes that were signed; and then goes on where it was."""

    async def run() -> None:
        async with till(tmp_path) as t:
            for number in range(12):
                await pay(t, str(number))
            await t.shop.wait_for(12)
            rows = await t.rows(events)
            after, pages = "", []
            while True:
                headers = {"Authorization": f"Bearer {key_of(t)}"}
                async with t.client.get(f"{t.url}/v1/events?limit=5&after={after}", headers=headers) as answer:
                    raw = await answer.read()
                said = json.loads(raw)
                bodies = [row.body for row in rows if row.id in ids(said)]
                assert raw.startswith(b'{"data":[' + b",".join(bodies) + b'],"next":')
                pages.append(said)
                after = said["next"]
                if not said["more"]:
                    break
            assert [len(page["data"]) for page in pages] == [5, 5, 2]
            assert [id_ for page in pages for id_ in ids(page)] == [row.id for row in rows]
            assert {body for _, body in t.shop.got} == {row.body for row in rows}

            _, empty, _ = await ask(t, f"after={after}")
            assert (empty["data"], empty["more"]) == ([], False)
            await pay(t, "later")
            await t.shop.wait_for(13)
            _, said, _ = await ask(t, f"after={empty['next']}")
            assert len(said["data"]) == 1 and said["data"][0] == t.shop.events[-1]
            _, said, _ = await ask(t, f"after={rows[9].id}")
            assert len(said["data"]) == 3

    asyncio.run(run())


def test_without_a_good_key_nobody_learns_anything(tmp_path: Path) -> None:
    """No key, rubbish, revoked, disabled merchant: the same 401; a key without the scope: 403 that names it."""

    async def run() -> None:
        async with till(tmp_path) as t:
            revoked, narrow = await new_key(t), await new_key(t, scopes=("payments:write", "endpoints:read"))
            by = By("test", t.app.clock(), t.app.ids)
            assert (await ask(t, key=revoked.key))[0] == 200
            await t.app.db.write(keys.revoke, revoked.id, by)
            other = await t.create_merchant("Other")
            await t.app.db.write(lambda tx: merchant_step.disable(tx, other.id, "", by, lambda *_: 0))
            wrong = ["", "Bearer", "Bearer ", "Basic abc", "Bearer ck_test_", "Bearer é", "Bearer " + "x" * 5_000]
            wrong += [f"Basic {key_of(t)}", f"Bearer {revoked.key}", f"Bearer {other.key.key}", f"Bearer {key_of(t)}x"]
            for given in wrong:
                status, said, headers = await ask(t, "limit=nonsense", headers={"Authorization": given})
                assert (status, said["type"]) == (401, "urn:caisse:unauthorized"), given
                assert headers["WWW-Authenticate"].startswith("Bearer")
            status, said, _ = await ask(t, key=narrow.key)
            assert status == 403 and "events:read" in said["detail"]
            assert (await ask(t, headers={"Authorization": f"bearer {key_of(t)}"}))[0] == 200
            assert (await ask(t, key=(await new_key(t, scopes=("events:read",))).key))[0] == 200

    asyncio.run(run())


def test_nobody_sees_another_merchants_events_nor_test_keys_live_ones(tmp_path: Path) -> None:
    """Not in pages, not by a filter, not by an event's id as cursor, not by waiting."""

    async def run() -> None:
        async with till(tmp_path) as t:
            other = await t.create_merchant("Other")
            live_key = (await new_key(t, live=True)).key
            mine, live, theirs = await told(t, 3), await told(t, 2, live=True), await told(t, 4, merchant=other.id)
            assert await all_ids(t, "limit=2") == mine
            assert await all_ids(t, "limit=2", key=live_key) == live
            assert await all_ids(t, "limit=2", key=other.key.key) == theirs
            for foreign in (theirs[0], live[0], t.app.ids("evt")):
                status, said, _ = await ask(t, f"after={foreign}")
                assert (status, said["type"]) == (404, "urn:caisse:not_found")
            assert (await ask(t, f"after={mine[0]}", key=live_key))[0] == 404
            # A payment as the real intake tells it: the account of the tests is not live.
            await pay(t, "1")
            await t.shop.wait_for(1)
            payment = t.shop.events[0]["data"]["payment"]["id"]
            assert await all_ids(t, f"payment={payment}") == [t.shop.events[0]["id"]]
            assert await all_ids(t, f"payment={payment}", key=live_key) == []
            assert await all_ids(t, f"payment={payment}", key=other.key.key) == []

    asyncio.run(run())


def test_filters_and_what_is_only_told_on_request(tmp_path: Path) -> None:
    """Types by comma and repeated, a payment, both; provider.event only where it is named."""

    async def run() -> None:
        async with till(tmp_path, events="*,provider.event") as t:
            for name in ("a", "b"):
                failed = stripe_event("payment_intent.payment_failed", f"evt_{name}_f", intent=f"pi_{name}")
                assert await t.stripe(failed) == 200
                await t.settled()
                await pay(t, name)
                await t.settled()
            rows = await t.rows(events)
            assert {row.live for row in rows} == {False}

            def those(*types: str, payment: str | None = None) -> list[str]:
                return [row.id for row in rows if row.type in types and payment in (None, row.payment_id)]

            payment = rows[0].payment_id
            usual = sorted({row.type for row in rows} - {"provider.event"})
            assert len(usual) >= 2 and those("provider.event")
            assert await all_ids(t) == those(*usual)
            assert await all_ids(t, f"types={usual[0]},{usual[1]}") == those(*usual[:2])
            assert await all_ids(t, f"types={usual[0]}&types=provider.event") == those(usual[0], "provider.event")
            assert await all_ids(t, f"payment={payment}") == those(*usual, payment=payment)
            assert await all_ids(t, f"types=payment.succeeded&payment={payment}") == those(
                "payment.succeeded", payment=payment
            )
            assert await all_ids(t, f"payment={t.app.ids('pay')}") == []

    asyncio.run(run())


def test_a_filter_moves_past_what_it_left_out_in_bounded_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request looks at so many rows at most; `next` moves on over empty pages until the rare one is found."""
    monkeypatch.setattr(feed, "SCAN_ROWS", 4)

    async def run() -> None:
        async with till(tmp_path) as t:
            await told(t, 10)
            rare = await told(t, 1, "payment.disputed")
            await told(t, 3)
            after, seen = "", []
            for wait in (30, 30, 30, 0):  # what says `more` answers at once
                _, said, _ = await ask(t, f"types=payment.disputed&after={after}&wait={wait}")
                seen.append((ids(said), said["more"]))
                after = said["next"]
            assert seen == [([], True), ([], True), (rare, True), ([], False)]
            _, said, _ = await ask(t, f"types=payment.refunded&after={after}")
            assert (said["next"], said["more"]) == (after, False)

    asyncio.run(run())


def test_a_page_has_a_limit_of_bytes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends early and says so; one event larger than a page still comes."""
    monkeypatch.setattr(feed, "PAGE_BYTES", 150)

    async def run() -> None:
        async with till(tmp_path) as t:
            known = await told(t, 5)
            await t.app.db.write(
                lambda tx: (
                    tx.execute(update(events).where(events.c.id == known[2]).values(body=b'{"id":"big"}' + b" " * 900))
                    and None
                )
            )
            after, pages = "", []
            while True:
                _, said, _ = await ask(t, f"after={after}")
                pages.append(ids(said))
                after = said["next"]
                if not said["more"]:
                    break
            assert [id_ for page in pages for id_ in page] == [*known[:2], "big", *known[3:]]
            assert [len(page) for page in pages] == [2, 1, 2]

    asyncio.run(run())


def test_an_old_cursor_is_fine_and_one_that_was_never_given_is_not(tmp_path: Path) -> None:
    """Pruned events leave no error behind, even when all are gone; rubbish and what is ahead of everything are 400."""

    async def run() -> None:
        async with till(tmp_path) as t:
            known = await told(t, 6)
            _, first, _ = await ask(t, "limit=1")
            _, last, _ = await ask(t)
            await t.app.db.write(lambda tx: tx.execute(delete(events).where(events.c.id.in_(known[:3]))) and None)
            assert await all_ids(t, after=first["next"]) == known[3:]
            erased = update(events).where(events.c.id == known[4]).values(body=b"")
            await t.app.db.write(lambda tx: tx.execute(erased) and None)
            assert await all_ids(t, after=first["next"]) == [known[3], known[5]]
            await t.app.db.write(lambda tx: tx.execute(delete(events)) and None)
            for cursor in (first["next"], last["next"], ""):
                assert await all_ids(t, after=cursor) == []
            new = await told(t, 1)
            assert await all_ids(t, after=last["next"]) == new
            ahead = f"cur_{int(last['next'].removeprefix('cur_'), 16) + 2:x}"
            for bad in (ahead, "cur_", "cur_07", "cur_1G", "cur_" + "f" * 15, "cur_" + "1" * 5_000, "cur_-1", "1",
                        "%00", "%ff%fe", "cur_%D9%A1", "cur_1%0A", "cur_1 ", "'"):  # fmt: skip
                status, said, _ = await ask(t, f"after={bad}")
                assert (status, said["type"]) == (400, "urn:caisse:bad_cursor"), bad
            for gone in (known[0], "evt_", "evt_%00", "evt_" + "x" * 5_000):
                assert (await ask(t, f"after={gone}"))[0] == 404

    asyncio.run(run())


BAD = [
    "limit=0", "limit=201", "limit=x", "limit=", "limit=1&limit=2", "limit=1_0", "limit=%EF%BC%91", "limit=1e400",
    "limit=9999999999999999999999", "limit=NaN", "wait=-1", "wait=31", "wait=1.5", "wait=null", "types=", "types=,",
    "types=payment.paid", "types=payment.failed,", "types=%00", "types=%ff", "payment=", "payment=x", "payment=pay_%ff",
    "payment=" + "pay_" + "0" * 27, "aft=cur_0", "%ff=1", "=1", "a" * 3_000, "after=&after=",
    "&".join(["types=endpoint.test"] * 200),
]  # fmt: skip


def test_whatever_is_wrong_is_named_and_never_our_fault(tmp_path: Path) -> None:
    """Bad values, unknown and doubled names, bodies, methods, paths: problem+json, 4xx."""

    async def run() -> None:
        async with till(tmp_path) as t:
            for query in BAD:
                status, said, _ = await ask(t, query)
                assert status == 400, (query[:80], said)
                name = query.partition("=")[0]
                assert name[:4] in said["detail"] or "%" in name or not name or len(query) > 3_000, (query[:80], said)
            assert (await ask(t, data=b"{}"))[0] == 400
            assert (await ask(t, data=b"\xff" * 300_000))[0] in (400, 413)

            async def drip() -> Any:
                yield b"{"

            assert (await ask(t, data=drip()))[0] == 400
            key = {"Authorization": f"Bearer {key_of(t)}"}
            for method, path, status in (
                ("POST", "/v1/events", 405), ("PUT", "/v1/events", 405), ("DELETE", "/v1/openapi.json", 405),
                ("GET", "/v1/nothing", 404), ("GET", "/v1/events/evt_1", 404), ("GET", "/v1/%ff/%00", 404),
                ("GET", "/v2", 404), ("GET", "/v1/nothing.json", 404),
            ):  # fmt: skip
                async with t.client.request(method, t.url + path, headers=key) as answer:
                    said = await answer.json(content_type="application/problem+json")
                    assert (answer.status, said["status"]) == (status, status), (method, path)

    asyncio.run(run())


def test_requests_are_counted_by_route_and_no_id_is_a_label(tmp_path: Path) -> None:
    """`/v1/events` has its own line, whatever was asked; addresses that do not exist share `other`."""

    async def run() -> None:
        async with till(tmp_path) as t:
            (id_,) = await told(t, 1)
            await ask(t, f"after={id_}")
            async with t.client.get(f"{t.url}/v1/{id_}"):
                pass
            async with t.client.get(f"{t.url}/metrics") as answer:
                text = await answer.text()
            assert 'http_requests_total{method="GET",route="/v1/events",status="2xx"} 1.0' in text
            assert id_ not in text and "{path" not in text

    asyncio.run(run())
