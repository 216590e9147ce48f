"""What a provider could be made to sign: corpora of broken JSON and naughty strings, through all six, in bulk."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from service.callbacks.tables import callbacks
from service.payments.tables import payments
from service.providers.base import BODY_BYTES_MAX
from service.sandbox.builder import build
from service.schema import outbox_tables
from tests.support import corpora
from tests.support.service import SECRETS, Till, till

JSON_PROVIDERS = ("stripe", "paystack", "fedapay", "moneroo")
PAID = {
    "stripe": "payment_intent.succeeded", "paystack": "charge.success", "fedapay": "transaction.approved",
    "moneroo": "payment.success", "monetbil": "success", "ebilling": "paid",
}  # fmt: skip
RESTING = {"processed", "ignored", "unmapped", "parked", "deferred"}
IN_FLIGHT = 32
NOBODY = {f"{provider}_base_url": "http://127.0.0.1:9" for provider in PAID}
"""Where the weak providers are asked: nothing listens there, so their payments stay pending."""

Place = tuple[str | int, ...]


async def send_all(t: Till, waiting: Iterable[tuple[str, bytes]]) -> int:
    """All of (provider, body), signed when they are sent; each is answered 200. How many different ones there were."""
    queue = iter(dict.fromkeys(waiting))
    sent = 0

    async def one_after_another() -> None:
        nonlocal sent
        for provider, body in queue:
            path, headers = corpora.signed(provider, body)
            status, said = await t.post(path, body, headers)
            assert status == 200, (provider, body[:200], said)
            sent += 1

    await asyncio.gather(*(one_after_another() for _ in range(IN_FLIGHT)))
    return sent


async def check_whole(t: Till, sent: int) -> list[Any]:
    """Each callback is there, at rest and owed to nobody; nothing died on it. Returns the rows."""
    await t.settled()
    rows = await t.rows(callbacks)
    assert len(rows) == sent
    assert {row.status for row in rows} <= RESTING, Counter(row.status for row in rows)
    assert await t.count(outbox_tables.messages, outbox_tables.messages.c.state == "dead") == 0
    return rows


def right(provider: str, number: int = 0) -> Any:
    """What the provider would send about a payment that was paid: a JSON object, or the fields of a form."""
    credentials = {name.removeprefix(f"CAISSE_{provider.upper()}_").lower(): [value] for name, value in SECRETS.items()}
    fields = {"reference": f"R-{number}", "live": "false"} | (
        {"event_id": f"evt_{number}"} if provider == "stripe" else {}
    )
    built = build(provider, PAID[provider], credentials, 1_795_200_000_000, fields)
    return json.loads(built.body) if provider in JSON_PROVIDERS else dict(parse_qsl(built.body.decode(), True))


def written(provider: str, body: Any) -> bytes:
    """Its bytes; a form is signed inside where its provider does that. A lone surrogate goes as the byte it hides."""
    if provider in JSON_PROVIDERS:
        return json.dumps(body).encode()
    fields = {name.encode(): value.encode(errors="surrogatepass") for name, value in body.items()}
    return corpora.monetbil_form(fields) if provider == "monetbil" else corpora.form(fields)


def with_text(provider: str, number: int, text: bytes) -> list[bytes]:
    """A text as the whole body, and as one value inside a right one."""
    body = right(provider, number)
    if provider == "monetbil":
        fields = {name.encode(): value.encode() for name, value in body.items()}
        return [corpora.monetbil_form({**fields, b"message": text}), corpora.monetbil_form({b"amount": text})]
    if provider == "ebilling":
        return [text, written(provider, body) + b"&extra=" + text]
    return [text, json.dumps({**body, "extra": "@@"}).encode().replace(b'"@@"', text)]


def places(value: Any, path: Place = ()) -> list[Place]:
    """Where the texts are."""
    if isinstance(value, str):
        return [path]
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in inner for found in places(item, (*path, key))]


def put(value: Any, path: Place, text: str) -> Any:
    """A copy with `text` in one place."""
    if not path:
        return text
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(value[path[0]], path[1:], text)
    return copy


def test_every_json_text_is_kept_and_what_is_no_json_is_parked(tmp_path: Path) -> None:
    """Through all six, as the body and inside one: 200, on disk whole, and `n_` texts never understood."""
    texts = corpora.json_texts()
    waiting = [
        (provider, body)
        for number, text in enumerate(texts.values())
        for provider in PAID
        for body in with_text(provider, number, text)
        if len(body) <= BODY_BYTES_MAX
    ]

    async def run() -> None:
        async with till(tmp_path, **NOBODY) as t:
            rows = await check_whole(t, await send_all(t, waiting))
            broken = {text for name, text in texts.items() if name.startswith("n_")}
            told = {(row.provider, bytes(row.body)): row for row in rows}
            for provider in JSON_PROVIDERS:
                for text in broken:
                    row = told[provider, text]
                    assert (row.status, row.reason[:11]) == ("parked", "unreadable:"), (provider, text[:80], row.reason)

    asyncio.run(run())


def test_every_naughty_string_in_every_field_is_kept_and_told_as_it_is(tmp_path: Path) -> None:
    """Each string through each provider, and each field of an event with many of them: no money is made of any."""
    naughty = corpora.strings()
    waiting = []
    for provider in PAID:
        found = places(right(provider))
        for number in range(max(len(naughty), len(found))):
            text, place = naughty[number % len(naughty)], found[number % len(found)]
            waiting.append((provider, written(provider, put(right(provider, number), place, text))))

    async def run() -> None:
        async with till(tmp_path, **NOBODY) as t:
            await check_whole(t, await send_all(t, waiting))
            events = t.shop.events
            known = {row.id: row for row in await t.rows(payments)}
            assert len(known) > 100
            for event in events:
                payment = event["data"]["payment"]
                assert payment["id"] in known
                assert event["type"] != "payment.succeeded" or payment["amount"] == payment["amount_captured"]

    asyncio.run(run())


def test_the_published_corpora_were_tried() -> None:
    """Says aloud where they are not."""
    corpora.skip_without_corpora()
    assert len(corpora.json_texts()) > 300
    assert len(corpora.strings()) > 500
