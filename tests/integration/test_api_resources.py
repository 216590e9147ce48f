"""The other resources of `/v1` over HTTP: each is made, read, changed, ended, and is nobody else's."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from service.api.v1 import OPERATIONS
from service.merchants.audit import By
from service.merchants.keys import ALL, SCOPES
from service.merchants.tables import audit
from service.routing import store
from tests.support.api import Api, another, api_of
from tests.support.paying import counter
from tests.support.service import stripe_event, till

PRODUCT = {"name": "Pagne", "price": 2_500, "currency": "XOF", "stock": 3}


async def one(api: Api, path: str, body: Any) -> dict[str, Any]:
    """Made: what came back."""
    made = await api("POST", path, body)
    assert made.status == 201, made.said
    return dict(made.said)


def test_products_and_their_stock(tmp_path: Path) -> None:
    """Made, changed, counted up and down and never below nothing, sold no more; each change is written down."""

    async def run() -> None:
        async with till(tmp_path) as t:
            api = api_of(t)
            made = await one(api, "/products", PRODUCT)
            path = f"/products/{made['id']}"
            assert (await api("GET", path)).said == made
            changed = (await api("PATCH", path, {"price": 3_000})).said
            assert (changed["price"], changed["name"], changed["stock"]) == (3_000, "Pagne", 3)
            assert (await api("POST", f"{path}/stock", {"add": -2})).said["stock"] == 1
            empty = await api("POST", f"{path}/stock", {"add": -2})
            assert (empty.status, empty.code) == (409, "out_of_stock")
            assert (await api("POST", f"{path}/stock", {"set": None})).said["stock"] is None
            for wrong in ({}, {"set": 1, "add": 1}, {"set": -1}, {"add": 1.5}):
                assert (await api("POST", f"{path}/stock", wrong)).status in (400, 422), wrong
            assert (await api("DELETE", path)).status == 204
            assert (await api("GET", path)).said["active"] is False
            assert (await api("GET", "/products?active=true")).said["data"] == []
            written = await t.rows(audit, audit.c.subject == made["id"])
            assert {row.actor for row in written} == {f"api:{t.merchant.key.id}"} and len(written) >= 5  # type: ignore[union-attr]

    asyncio.run(run())


def test_an_order_holds_its_stock_until_it_is_cancelled_or_paid(tmp_path: Path) -> None:
    """Reserved with the order, given back with its end; paid by a payment that names it; delivered."""

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            api = api_of(c.till)
            product = (await one(api, "/products", PRODUCT))["id"]
            body = {"lines": [{"product": product, "quantity": 2}], "currency": "XOF", "reference": "7"}
            first = await one(api, "/orders", body | {"amount": 5_000})
            assert (first["state"], first["amount"], first["lines"][0]["unit_amount"]) == (
                "awaiting_payment",
                5_000,
                2_500,
            )
            assert (await api("POST", "/orders", body)).code == "out_of_stock"
            assert (await api("POST", "/orders", body | {"amount": 4_999})).code == "bad_amount"
            canceled = await api("POST", f"/orders/{first['id']}/cancel", {"reason": "changed their mind"})
            assert canceled.said["state"] == "canceled"
            assert (await api("GET", f"/products/{product}")).said["stock"] == 3
            order = await one(api, "/orders", body)
            early = await api("POST", f"/orders/{order['id']}/deliver")
            assert (early.status, early.code) == (409, "not_paid")
            pay = {"amount": 5_000, "currency": "XOF", "method": "card", "order": order["id"]}
            payment = await one(api, "/payments", pay)
            assert payment["order"] == order["id"]
            twice = await api("POST", "/payments", pay)
            assert (twice.status, twice.code) == (409, "prompt_open")
            await c.pay(payment["id"])
            assert (await api("GET", f"/orders/{order['id']}")).said["state"] == "paid"
            delivered = await api("POST", f"/orders/{order['id']}/deliver")
            assert delivered.said["state"] == "delivered" and delivered.said["delivered_at"]
            assert (await api("POST", f"/orders/{order['id']}/cancel")).status == 409
            assert [one["id"] for one in (await api("GET", "/orders?state=delivered")).said["data"]] == [order["id"]]

    asyncio.run(run())


def test_a_session_is_verified_with_its_own_secret_and_nothing_else(tmp_path: Path) -> None:
    """R18: the secret is shown once, an API key or another secret is no good, and nothing personal is told."""

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            api = api_of(c.till)
            body = {"amount": 900, "currency": "XOF", "customer": {"name": "Awa", "email": "awa@example.com"}}
            made = await one(api, "/sessions", body)
            secret, path = made.pop("client_secret"), f"/sessions/{made['id']}"
            assert made["url"].endswith(f"/pay/{made['id']}") and secret not in str(made)
            assert (await api("GET", path)).said == made
            buyer = Api(c.till, secret)
            verified = await buyer("GET", f"{path}/verify?locale=en")
            assert (verified.status, verified.said["status"], verified.said["state"]) == (200, "pending", "pending")
            assert "awa" not in str(verified.said).lower()
            for wrong in (api.key, secret + "x", secret[:-1]):
                assert (await Api(c.till, wrong)("GET", f"{path}/verify")).status == 404
            async with c.till.client.get(f"{c.till.url}/v1{path}/verify") as answer:
                assert answer.status == 401
            assert (await buyer("GET", path)).status == 401
            ended = await api("POST", f"{path}/expire", {"reason": "no longer"})
            assert (ended.said["state"], ended.said["status"]) == ("expired", "expired")
            assert (await buyer("GET", f"{path}/verify")).said["status"] == "error"
            assert (await api("POST", f"{path}/expire")).said["state"] == "expired"
            assert (await api("POST", f"{path}/cancel")).code == "session_not_open"
            other = await one(api, "/sessions", body)
            assert (await api("POST", f"/sessions/{other['id']}/cancel")).said["status"] == "cancelled"
            assert (await api("POST", f"/sessions/{other['id']}/expire")).status == 409
            bad = await api("POST", "/sessions", body | {"return_url": "ftp://shop.example"})
            assert (bad.status, bad.said["field"]) == (422, "return_url")

    asyncio.run(run())


def test_expiring_a_session_cancels_its_payment_at_the_provider_first(tmp_path: Path) -> None:
    """R14: expiring while an attempt is live; expired once the provider has said so."""

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            api = api_of(c.till)
            made = await one(api, "/sessions", {"amount": 900, "currency": "XOF"})
            payment = await c.till.app.checkout.submit(made["id"], method="card")
            path = f"/sessions/{made['id']}"
            assert (await api("POST", f"{path}/cancel")).code == "payment_under_way"
            assert (await api("POST", f"{path}/expire")).said["state"] in ("expiring", "expired")
            await c.settle()
            assert (await api("GET", path)).said["state"] == "expired"
            assert (await c.payment(payment)).status in ("expired", "canceled")

    asyncio.run(run())


def test_payment_links(tmp_path: Path) -> None:
    """A fixed amount, an open one with bounds, a product; switched off; nonsense refused."""

    async def run() -> None:
        async with till(tmp_path) as t:
            api = api_of(t)
            product = (await one(api, "/products", PRODUCT))["id"]
            fixed = await one(api, "/links", {"amount": 900, "currency": "XOF"})
            await one(api, "/links", {"min_amount": 100, "max_amount": 900, "currency": "XOF", "max_uses": 3})
            await one(api, "/links", {"product": product})
            off = await api("PATCH", f"/links/{fixed['id']}", {"active": False})
            assert off.said["active"] is False
            assert len((await api("GET", "/links?active=true")).said["data"]) == 2
            for wrong in (
                {},
                {"amount": 1},
                {"amount": 1, "min_amount": 1, "currency": "XOF"},
                {"product": product, "amount": 1},
            ):
                assert (await api("POST", "/links", wrong)).status in (400, 422), wrong

    asyncio.run(run())


def test_routes_are_a_merchant_s_own(tmp_path: Path) -> None:
    """Made, ordered, tried on a payment that nobody makes, deleted; another's and everybody's stay as they are."""

    async def run() -> None:
        async with till(tmp_path, stripe_secret_key="sk_test_1") as t:
            api = api_of(t)
            first = await one(api, "/routes", {"providers": ["stripe"], "currency": ["XOF"], "note": "first"})
            second = await one(api, "/routes", {"providers": ["paystack", "stripe"], "method": ["card"]})
            order = await api("POST", "/routes/order", {"order": [[second["id"]], [first["id"]]]})
            assert [route["id"] for route in order.said["data"]] == [second["id"], first["id"]]
            for wrong in ([[first["id"]]], [[first["id"], second["id"], first["id"]]], [[first["id"], "rt_1"]]):
                assert (await api("POST", "/routes/order", {"order": wrong})).code == "bad_order"
            changed = await api(
                "PATCH", f"/routes/{first['id']}", {"enabled": False, "version": order.said["data"][1]["version"]}
            )
            assert changed.said["enabled"] is False
            stale = await api("PATCH", f"/routes/{first['id']}", {"enabled": True, "version": 1})
            assert (stale.status, stale.code) == (409, "changed_meanwhile")
            ask = {"amount": 500, "currency": "XOF", "method": "card"}
            simulated = (await api("POST", "/routes/simulate", ask)).said
            assert simulated["explanation"]["chain"] and simulated["sentences"]
            draft = (await api("POST", "/routes/simulate", ask | {"draft": [{"providers": ["monetbil"]}]})).said
            assert draft["explanation"]["chain"] == [] and draft["draft"]
            assert (await api("POST", "/routes/simulate", {"replay": 10})).said["replay"]["looked"] == 0
            assert (await api("POST", "/routes", {"providers": ["nobody"]})).code == "unknown_provider"
            assert (await api("POST", "/routes", {"providers": []})).said["field"] == "providers"
            stranger = await another(t, merchant=(await t.create_merchant("Other")).id)
            assert (await stranger("GET", "/routes")).said["data"] == []
            for method in ("GET", "PATCH", "DELETE"):
                body = {"note": "mine"} if method == "PATCH" else None
                assert (await stranger(method, f"/routes/{first['id']}", body)).status == 404
            by = By("test", t.app.clock(), t.app.ids)
            everybody = await t.app.db.write(store.create, {"providers": ["stripe"]}, by)
            assert (await api("GET", f"/routes/{everybody.id}")).said["merchant"] is None
            refused = await api("DELETE", f"/routes/{everybody.id}")
            assert (refused.status, refused.code) == (403, "not_yours")
            assert (await api("DELETE", f"/routes/{first['id']}")).status == 204
            assert (await api("GET", f"/routes/{first['id']}")).status == 404

    asyncio.run(run())


def test_endpoints_from_the_first_to_the_last_day(tmp_path: Path) -> None:
    """Added, tried, changed, its secret turned over, disabled and enabled; addresses that are none are refused."""

    async def run() -> None:
        async with till(tmp_path) as t:
            api = api_of(t)
            made = await one(api, "/endpoints", {"url": t.shop.url, "events": ["payment.succeeded"], "per_minute": 60})
            path = f"/endpoints/{made['id']}"
            shown = (await api("GET", path)).said
            assert (shown["events"], shown["per_minute"], shown["status"]) == ("payment.succeeded", 60, "enabled")
            assert "secret" not in shown and not {"merchant_id", "failing_since_ms"} & shown.keys()
            tested = (await api("POST", f"{path}/test")).said
            assert (tested["status"], tested["http_status"]) == ("succeeded", 200)
            assert (await api("PATCH", path, {"per_minute": None})).said["per_minute"] is None
            rotated = (await api("POST", f"{path}/rotate-secret", {"overlap_hours": 1})).said
            assert rotated["secret"] not in (made["secret"], None)
            assert (await api("POST", f"{path}/disable")).said["status"] == "disabled"
            assert (await api("POST", f"{path}/test")).code == "endpoint_disabled"
            assert (await api("POST", f"{path}/enable", {"send_held": False})).said["status"] == "enabled"
            assert len((await api("GET", "/endpoints?limit=1")).said["data"]) == 1
            for wrong in (
                {"url": "gopher://a"},
                {"url": "http://a@b/"},
                {"url": t.shop.url, "events": ["payment.paid"]},
            ):
                assert (await api("POST", "/endpoints", wrong)).status == 422, wrong
            stranger = await another(t, merchant=(await t.create_merchant("Other")).id)
            assert (await stranger("GET", "/endpoints")).said["data"] == []
            for method, tail in (("GET", ""), ("POST", "/test"), ("POST", "/disable"), ("POST", "/rotate-secret")):
                assert (await stranger(method, path + tail)).status == 404

    asyncio.run(run())


def test_deliveries_are_found_and_sent_again(tmp_path: Path) -> None:
    """Listed by endpoint and status, shown try by try, sent once more, recovered; a stranger sees none."""

    async def run() -> None:
        async with till(tmp_path) as t:
            api = api_of(t)
            t.shop.answer = lambda _: 500 if len(t.shop.got) == 1 else 200
            for number in range(3):
                await t.stripe(stripe_event("payment_intent.succeeded", f"evt_{number}", intent=f"pi_{number}"))
            await t.shop.wait_for(3)
            await t.settled()
            found = (await api("GET", "/deliveries?limit=2")).said
            assert len(found["data"]) == 2 and found["more"]
            rest = (await api("GET", f"/deliveries?after={found['next']}")).said
            assert len(rest["data"]) == 1 and not rest["more"]
            done = (await api("GET", "/deliveries?status=succeeded")).said["data"]
            shown = (await api("GET", f"/deliveries/{done[0]['id']}")).said
            assert [one["number"] for one in shown["tried"]] == list(range(1, shown["tries"] + 1))
            again = await api("POST", f"/deliveries/{done[0]['id']}/retry", {"reason": "lost it"}, once="a")
            assert (again.status, again.said["again_of"]) == (201, done[0]["id"])
            assert (await api("POST", f"/deliveries/{done[0]['id']}/retry", {"reason": "lost it"}, once="a")).replayed
            counted = (await api("POST", "/deliveries/recover", {"since": "1h", "dry_run": True})).said
            assert counted["dry_run"] and counted["recovery"] is None
            stranger = await another(t, merchant=(await t.create_merchant("Other")).id)
            assert (await stranger("GET", "/deliveries")).said["data"] == []
            assert (await stranger("GET", f"/deliveries/{done[0]['id']}")).status == 404
            for wrong in ({"since": "1h", "endpoint": done[0]["endpoint"]}, {"since": "1h", "payment": shown["event"]}):
                assert (await stranger("POST", "/deliveries/recover", wrong)).status == 404
            live = await another(t, live=True)
            assert (await live("GET", "/deliveries")).said["data"] == []

    asyncio.run(run())


def test_attention_is_listed_in_words_and_acted_on(tmp_path: Path) -> None:
    """Money that is not what was asked for: said in both languages, acted on with a reason, gone; not a stranger's."""

    async def run() -> None:
        async with till(tmp_path) as t:
            api = api_of(t)
            odd = stripe_event("payment_intent.succeeded", amount_received=4_000)
            assert await t.stripe(odd) == 200
            await t.settled()
            (item,) = (await api("GET", "/attention")).said["data"]
            assert item["words"].endswith(".") and "ignore" in item["actions"]
            french = (await api("GET", "/attention?lang=fr")).said["data"][0]
            assert french["words"] != item["words"]
            path = f"/attention/{item['id']}"
            assert (await api("GET", path)).said["id"] == item["id"]
            stranger = await another(t, merchant=(await t.create_merchant("Other")).id)
            assert (await stranger("GET", "/attention")).said["data"] == []
            assert (await stranger("POST", path, {"action": "ignore", "reason": "mine"})).status == 404
            assert (await api("POST", path, {"action": "ignore"}, once="a")).code == "no_reason"
            done = await api("POST", path, {"action": "ignore", "reason": "agreed with the buyer"}, once="b")
            assert (done.status, done.said["action"]) == (200, "ignore")
            assert (await api("POST", path, {"action": "ignore", "reason": "agreed with the buyer"}, once="b")).replayed
            assert (await api("GET", "/attention")).said["data"] == []
            assert (await api("POST", path, {"action": "revive", "reason": "again"})).status == 404

    asyncio.run(run())


def test_the_merchant_is_the_key_s_own(tmp_path: Path) -> None:
    """One merchant, and no other by its id."""

    async def run() -> None:
        async with till(tmp_path) as t:
            api = api_of(t)
            other = await t.create_merchant("Other")
            (mine,) = (await api("GET", "/merchants")).said["data"]
            assert mine["name"] == "Awa" and mine["scopes"] == ["*"] and mine["live"] is False
            assert (await api("GET", f"/merchants/{mine['id']}")).said == mine
            assert (await api("GET", f"/merchants/{other.id}")).status == 404

    asyncio.run(run())


def test_every_operation_asks_for_its_scope_and_no_other_will_do(tmp_path: Path) -> None:
    """With every scope but the one it names: 403 that names it. Read is part of write, never the other way round."""

    async def run() -> None:
        async with till(tmp_path) as t:
            for op in OPERATIONS:
                if not op.scope:
                    continue
                assert op.scope in SCOPES, op.id
                resource = op.scope.partition(":")[0]
                lacking = [scope for scope in SCOPES if scope not in (op.scope, f"{resource}:write")]
                api = await another(t, scopes=tuple(lacking))
                refused = await api(op.method, re.sub(r"\{\w+\}", "x", op.path))
                assert (refused.status, refused.code) == (403, "missing_scope"), op.id
                assert op.scope in refused.said["detail"]
            assert {op.scope for op in OPERATIONS if op.scope} == set(SCOPES) - {ALL}

    asyncio.run(run())


@pytest.mark.parametrize("path", ["/v1/docs", "/v1/openapi.json"])
def test_the_docs_need_no_key_and_nothing_from_outside(tmp_path: Path, path: str) -> None:
    """One page of at most 100 kB without script, under a policy that lets nothing in; every operation stands in it."""

    async def run() -> None:
        async with till(tmp_path, merchant=False) as t, t.client.get(t.url + path) as answer:
            text = await answer.text()
            assert answer.status == 200
            if path.endswith("json"):
                return
            assert len(text.encode()) <= 100_000 and answer.content_type == "text/html"
            policy = answer.headers["Content-Security-Policy"]
            style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
            assert style is not None
            digest = base64.b64encode(hashlib.sha256(style.group(1).encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policy and "default-src 'none'" in policy and "unsafe" not in policy
            assert not re.search(r"<script|<img|<link|\son\w+=|javascript:|//", text.replace(style.group(1), ""))
            for op in OPERATIONS:
                assert f'id="{op.id}"' in text, op.id
            for target in set(re.findall(r'href="#([^"]+)"', text)):
                assert f'id="{target}"' in text or f"id={target}" in text, target

    asyncio.run(run())
