"""`/v1/payments` over HTTP: asked for, confirmed, cancelled, found again; and what is wrong is named."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from service.api.v1 import reading
from service.payments.tables import payments
from tests.support.api import Answer, Api, another, api_of
from tests.support.paying import Counter, counter
from tests.support.service import PATIENCE_S, till

CARD = {"amount": 5_000, "currency": "XOF", "method": "card", "providers": ["stripe"]}
PHONE: dict[str, Any] = {
    "amount": 5_000,
    "currency": "GHS",
    "method": "mobile_money",
    "country": "GH",
    "operator": "vodafone",
    "payer_phone": "+233 20 123 4567",
    "customer": {"name": "Awa", "email": "awa@example.com"},
    "providers": ["paystack"],
    "reference": "order 7",
    "metadata": {"basket": "12"},
}


async def paid(c: Counter, api: Api, body: dict[str, Any]) -> dict[str, Any]:
    """A payment that was made and paid, as it is then."""
    made = await api("POST", "/payments", body)
    assert made.status == 201, made.said
    await c.pay(made.said["id"])
    shown: dict[str, Any] = (await api("GET", f"/payments/{made.said['id']}")).said
    return shown


def test_mobile_money_from_the_request_to_the_money(tmp_path: Path) -> None:
    """`next_action` asks for the code, the code is submitted, the money comes, and nothing is to be done any more."""

    async def run() -> None:
        async with counter(tmp_path, "paystack") as c:
            api = api_of(c.till)
            made = (await api("POST", "/payments", PHONE)).said
            assert made["next_action"]["type"] == "otp" and made["next_action"]["display_text"]
            assert (made["status"], made["amount"], made["reference"]) == ("requires_action", 5_000, "order 7")
            assert made["metadata"] == {"basket": "12"} and made["warnings"] == []
            confirmed = await api("POST", f"/payments/{made['id']}/otp", {"otp": "123456"})
            assert confirmed.status == 200
            await c.settle()
            shown = (await api("GET", f"/payments/{made['id']}")).said
            assert (shown["status"], shown["amount_captured"], shown["next_action"]) == ("succeeded", 5_000, None)
            assert "warnings" not in shown and "+233" not in str(shown)
            late = await api("POST", f"/payments/{made['id']}/otp", {"otp": "123456"})
            assert (late.status, late.code) == (409, "not_waiting_for_otp")
            late = await api("POST", f"/payments/{made['id']}/cancel")
            assert (late.status, late.code) == (409, "not_cancelable")

    asyncio.run(run())


def test_cards_are_sent_to_the_provider_s_page_or_confirmed_on_the_merchant_s(tmp_path: Path) -> None:
    """A redirect with its address; embedded, the client secret instead."""

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            api = api_of(c.till)
            redirect = (await api("POST", "/payments", CARD | {"return_url": "https://shop.example/"})).said
            assert redirect["next_action"]["type"] == "redirect" and redirect["next_action"]["url"].startswith("http")
            embedded = (await api("POST", "/payments", CARD | {"embedded": True})).said
            assert embedded["next_action"]["type"] == "confirm" and embedded["next_action"]["client_secret"]
            canceled = await api("POST", f"/payments/{redirect['id']}/cancel")
            assert (canceled.status, canceled.said["status"]) == (200, "expired")  # as Stripe calls it
            assert (await api("POST", f"/payments/{redirect['id']}/cancel")).said["status"] == "expired"
            synced = (await api("POST", f"/payments/{embedded['id']}/sync")).said
            assert (synced["asked"], synced["payment"]["id"]) == (True, embedded["id"])
            assert not (await api("POST", f"/payments/{embedded['id']}/sync")).said["asked"]

    asyncio.run(run())


def test_the_story_of_a_payment_is_told(tmp_path: Path) -> None:
    """Timeline and explanation, to whoever may see the payment; refunds, and no more than there is."""

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            api = api_of(c.till)
            payment = await paid(c, api, CARD)
            assert payment["status"] == "succeeded"
            timeline = (await api("GET", f"/payments/{payment['id']}/timeline")).said
            assert {"attempt", "fact", "event"} <= {entry["what"] for entry in timeline["entries"]}
            explained = (await api("GET", f"/payments/{payment['id']}/explain")).said
            assert explained["provider"] == "stripe" and explained["sentences"] and explained["routing"]["gateways"]
            path = f"/payments/{payment['id']}/refunds"
            part = await api("POST", path, {"amount": 2_000, "reason": "one was broken"}, once="r")
            assert (part.status, part.said["amount"], part.said["payment"]) == (201, 2_000, payment["id"])
            assert (await api("POST", path, {"amount": 2_000, "reason": "one was broken"}, once="r")).replayed
            above = await api("POST", path, {"amount": 3_001})
            assert (above.status, above.code) == (422, "above_the_rest") and "3000" in above.said["detail"].replace(
                ",", ""
            )
            rest = await api("POST", path, {})
            assert (rest.status, rest.said["amount"]) == (201, 3_000)
            await c.settle()
            listed = (await api("GET", path)).said["data"]
            assert [one["id"] for one in listed] == [part.said["id"], rest.said["id"]]
            assert (await api("GET", f"/refunds/{rest.said['id']}")).said["status"] == "succeeded"
            assert (await api("GET", f"/payments/{payment['id']}")).said["status"] == "refunded"
            assert len((await api("GET", "/refunds")).said["data"]) == 2

    asyncio.run(run())


WRONG: list[tuple[dict[str, Any], int, str, str]] = [
    ({"amount": 5000.0}, 400, "amount", "amount must be an integer of minor units."),
    ({"amount": 0.5}, 400, "amount", "amount must be an integer of minor units."),
    ({"amount": 1e400}, 400, "", ""),
    ({"amount": "5000"}, 400, "amount", ""),
    ({"amount": True}, 400, "amount", ""),
    ({"amount": 0}, 400, "amount", ""),
    ({"amount": -1}, 400, "amount", ""),
    ({"amount": 10**15 + 1}, 400, "amount", ""),
    ({"amount": 2**70}, 400, "amount", ""),
    ({"amount": None}, 400, "amount", ""),
    ({"currency": "ZZZ"}, 422, "currency", ""),
    ({"currency": "xof"}, 400, "currency", ""),
    ({"currency": "XOF\n"}, 400, "currency", ""),
    ({"method": "cash"}, 400, "method", ""),
    ({"payer_phone": "call me"}, 422, "payer_phone", ""),
    ({"payer_phone": "0201234567", "country": ""}, 422, "payer_phone", ""),
    ({"customer": {"phone": "12"}}, 422, "customer.phone", ""),
    ({"customer": {"fone": "12"}}, 400, "customer.fone", ""),
    ({"customer": []}, 400, "customer", ""),
    ({"operator": "nobody"}, 422, "operator", ""),
    ({"country": "Ghana"}, 400, "country", ""),
    ({"providers": ["nobody"]}, 422, "", ""),
    ({"providers": "paystack"}, 400, "providers", ""),
    ({"return_url": "javascript:alert(1)"}, 422, "return_url", ""),
    ({"metadata": {"a": 1}}, 400, "metadata[...]", ""),
    ({"metadata": {str(n): "a" for n in range(60)}}, 400, "metadata", ""),
    ({"description": "a" * 501}, 400, "description", ""),
    ({"description": "a\u0000b"}, 400, "", ""),
    ({"description": "a\u0007b"}, 400, "description", ""),
    ({"order": "ord_nothing"}, 422, "order", ""),
    ({"referense": "7"}, 400, "referense", "referense: there is no such field."),
]


def test_bad_input_is_named_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Floats, negatives, too large, unknown currencies, what is no phone number: a problem with its field each."""

    async def run() -> None:
        async with counter(tmp_path, "paystack") as c:
            api = api_of(c.till)
            for wrong, status, field, sentence in WRONG:
                refused = await api("POST", "/payments", PHONE | wrong)
                assert (refused.status, refused.said.get("field", "")) == (status, field), (wrong, refused.said)
                assert sentence in refused.said["detail"], (wrong, refused.said)
            for missing in ("amount", "currency", "method"):
                body = {name: value for name, value in PHONE.items() if name != missing}
                assert (await api("POST", "/payments", body)).said["field"] == missing
            assert await c.till.count(payments) == 0 and not c.sandbox.bank.of("paystack")

    asyncio.run(run())


BODIES: list[tuple[bytes, str, int, str]] = [
    (b"{", "application/json", 400, "bad_json"),
    (b"[]", "application/json", 400, "bad_json"),
    (b'{"amount":1,"amount":2}', "application/json", 400, "bad_json"),
    (b'{"amount":NaN}', "application/json", 400, "bad_json"),
    (b'{"a":' * 5_000, "application/json", 400, "bad_json"),
    (b"\xff\xfe", "application/json", 400, "bad_json"),
    (b'{"reference":"\\ud800"}', "application/json", 400, "bad_json"),
    (b"amount=1", "application/x-www-form-urlencoded", 415, "bad_content_type"),
    (b"{}", "text/plain", 415, "bad_content_type"),
    (b"{}", "application/json; charset=utf-16", 415, "bad_content_type"),
    (b" " * (64 * 1024 + 1), "application/json", 413, "too_large"),
]


def test_bodies_that_are_none_are_refused_before_they_mean_anything(tmp_path: Path) -> None:
    """Broken JSON, doubled names, other media, too large, compressed, in chunks without an end."""

    async def run() -> None:
        async with till(tmp_path) as t:
            api = api_of(t)
            for body, media, status, code in BODIES:
                refused = await api("POST", "/payments", headers={"Content-Type": media}, data=body)
                assert (refused.status, refused.code) == (status, code), body[:40]

            async def chunks() -> Any:
                for _ in range(70):
                    yield b" " * 1_024

            refused = await api("POST", "/payments", headers={"Content-Type": "application/json"}, data=chunks())
            assert (refused.status, refused.code) == (413, "too_large")
            packed = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
            assert (await api("POST", "/payments", headers=packed, data=b"x")).code == "compressed"
            assert (await api("DELETE", "/products/prod_1", {"a": 1})).code == "bad_body"
            assert (await api("POST", "/payments/pay_1/cancel", {"a": 1})).said["field"] == "a"
            assert await t.count(payments) == 0

    asyncio.run(run())


def test_lists_are_pages_with_filters(tmp_path: Path) -> None:
    """Newest first, each once, `more` until there is none; filters; cursors that were never given are refused."""

    async def run() -> None:
        async with till(tmp_path, stripe_secret_key="sk_test_1", stripe_base_url="http://127.0.0.1:9") as t:
            api = api_of(t)
            for number in range(5):  # one more, and the circuit would be open
                await api("POST", "/payments", CARD | {"reference": f"order {number % 2}"})
            found: list[str] = []
            after = ""
            while True:
                said = (await api("GET", f"/payments?limit=2&after={after}")).said
                found += [one["id"] for one in said["data"]]
                after = said["next"]
                if not said["more"]:
                    break
            assert found == sorted(found, reverse=True) and len(set(found)) == 5
            assert (await api("GET", f"/payments?after={after}")).said == {"data": [], "next": after, "more": False}
            assert not (await api("GET", "/payments?limit=5")).said["more"]
            assert (await api("GET", f"/payments?after={found[2]}")).said["data"][0]["id"] == found[3]

            async def count(query: str) -> int:
                answer: Answer = await api("GET", "/payments", params=dict(one.split("=") for one in query.split("&")))
                return len(answer.said["data"])

            assert await count("reference=order 1") == 2
            assert await count("status=failed") == 5 and await count("status=succeeded") == 0
            assert await count("created_from=2020-01-01T00:00:00Z") == 5
            assert await count("created_until=2020-01-01T00:00:00Z") == 0
            for query, field in (
                ("limit=0", "limit"), ("limit=101", "limit"), ("limit=1.5", "limit"), ("limit=x", "limit"),
                ("status=paid", "status"), ("created_from=yesterday", "created_from"), ("state=paid", "state"),
                ("after=cur_%25", "after"), ("after=cur_A", "after"), ("limit=1&limit=2", "limit"),
            ):  # fmt: skip
                refused = await api("GET", f"/payments?{query}")
                assert (refused.status, refused.said["field"]) == (400, field), query

    asyncio.run(run())


def test_what_is_another_s_is_not_there(tmp_path: Path) -> None:
    """Another merchant's and the other mode's payments: 404 in every way, and not in the list; scopes are asked for."""

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            t = c.till
            payment = (await api_of(t)("POST", "/payments", CARD)).said["id"]
            other = await t.create_merchant("Other")
            for api in (await another(t, merchant=other.id), await another(t, live=True)):
                assert (await api("GET", "/payments")).said["data"] == []
                for method, path, body in (
                    ("GET", "", None), ("GET", "/timeline", None), ("GET", "/explain", None), ("GET", "/refunds", None),
                    ("POST", "/otp", {"otp": "1"}), ("POST", "/cancel", None), ("POST", "/sync", None),
                    ("POST", "/refunds", {}),
                ):  # fmt: skip
                    refused = await api(method, f"/payments/{payment}{path}", body)
                    assert (refused.status, refused.code) == (404, "not_found"), path
            reader = await another(t, scopes=("payments:read",))
            assert (await reader("GET", f"/payments/{payment}")).status == 200
            for path, scope in (("/payments", "payments:write"), (f"/payments/{payment}/refunds", "refunds:write")):
                refused = await reader("POST", path, CARD)
                assert refused.status == 403 and scope in refused.said["detail"]
            assert (await c.payment(payment)).status == "requires_action"

    asyncio.run(run())


def test_an_odd_number_is_a_warning_and_not_a_refusal(tmp_path: Path) -> None:
    """A number that fits no operator is taken, with a sentence beside it."""

    async def run() -> None:
        async with counter(tmp_path, "fedapay") as c:
            body = {"amount": 5_000, "currency": "XOF", "method": "mobile_money", "country": "BJ", "operator": "mtn"}
            made = await api_of(c.till)("POST", "/payments", body | {"payer_phone": "+22966000001"})
            assert made.status == 201, made.said
            assert made.said["warnings"] and all(text.startswith("payer_phone: ") for text in made.said["warnings"])

    asyncio.run(run())


def test_a_body_that_does_not_come_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """408 with a problem after the deadline, whatever was promised; and before it for whoever has no key: 401."""
    monkeypatch.setattr(reading, "BODY_DEADLINE_S", 0.2)

    async def run() -> None:
        async with till(tmp_path) as t:
            for key, status in ((api_of(t).key, b"408"), ("ck_test_wrong", b"401")):
                reader, writer = await asyncio.open_connection("127.0.0.1", t.app.port)
                head = (
                    "POST /v1/payments HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 99\r\n"
                )
                writer.write(f"{head}Authorization: Bearer {key}\r\n\r\n{{".encode())
                async with asyncio.timeout(PATIENCE_S):
                    assert (await reader.readline()).split()[1] == status
                writer.close()

    asyncio.run(run())


def test_a_code_that_the_provider_never_got_may_be_sent_again(tmp_path: Path) -> None:
    """Connection refused while submitting it: 503, nothing used up, and the same key does it the second time."""

    async def run() -> None:
        async with counter(tmp_path, "paystack") as c:
            api = api_of(c.till)
            payment = (await api("POST", "/payments", PHONE)).said["id"]
            c.sandbox.trouble.on("paystack", "refuse")
            refused = await api("POST", f"/payments/{payment}/otp", {"otp": "123456"}, once="a")
            assert (refused.status, refused.code) == (503, "otp_not_sent")
            c.sandbox.trouble.off()
            done = await api("POST", f"/payments/{payment}/otp", {"otp": "123456"}, once="a")
            assert done.status == 200 and not done.replayed
            await c.settle()
            assert (await c.payment(payment)).status == "succeeded"

    asyncio.run(run())
