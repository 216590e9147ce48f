"""Payment links as a buyer opens them: looking makes nothing, an amount is read strictly, the code leads there."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Awaitable, Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from segno import make

from service.merchants.audit import By
from service.orders import links, products
from service.orders.links import LinkDraft
from service.orders.owner import Whose
from service.orders.tables import sessions
from service.pay import amounts
from service.pay.link import FORMS_MOST
from tests.support.service import Till, till


async def linked(t: Till, **more: Any) -> str:
    """The path of a new link."""
    assert t.merchant is not None
    who, by = Whose(t.merchant.id, False), By("test", t.app.clock(), t.app.ids)
    draft = LinkDraft(**({"currency": "XOF"} | more)) if "product_id" not in more else LinkDraft(**more)
    return f"/l/{await t.app.db.write(links.create, who, draft, by)}"


async def get(t: Till, path: str) -> tuple[int, str]:
    """Status and markup."""
    async with t.client.get(t.url + path, allow_redirects=False) as answer:
        return answer.status, await answer.text()


async def pay(t: Till, path: str, **form: str) -> tuple[int, str, str]:
    """The link's form, sent; status, markup, Location."""
    _, body = await get(t, path)
    token = re.search(r'name="token" value="([^"]+)"', body)
    given = {"token": token[1] if token else "", "do": "open", **form}
    async with t.client.post(t.url + path, data=given, allow_redirects=False) as answer:
        return answer.status, await answer.text(), answer.headers.get("Location", "")


def story(tmp_path: Path, tell: Callable[[Till], Awaitable[None]], **settings: str) -> None:
    """Run it in front of a running service."""

    async def run() -> None:
        async with till(tmp_path, **settings) as t:
            await tell(t)

    asyncio.run(run())


def test_looking_makes_nothing_and_the_form_makes_a_session(tmp_path: Path) -> None:
    """Chat programs look at every link that is sent: only the form makes a session, in the language of the page."""

    async def tell(t: Till) -> None:
        path = await linked(t, amount_minor=5_000, description="Dîner")
        for _ in range(3):
            status, body = await get(t, path)
            assert status == 200 and "Dîner" in body and "5\N{NARROW NO-BREAK SPACE}000" in body
            assert len(body.encode()) < 50_000
        assert await t.count(sessions) == 0
        status, _, where = await pay(t, path + "?lang=en")
        (row,) = await t.rows(sessions)
        assert (status, where, row.locale, row.amount_minor) == (303, f"/pay/{row.id}", "en", 5_000)
        status, body = await get(t, where)
        assert status == 200 and "You are paying" in body
        status, body, _ = await pay(t, path, token="other")
        assert status == 400 and await t.count(sessions) == 1

    story(tmp_path, tell)


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("5000", "XOF", 5_000), (" 5 000 ", "XOF", 5_000), ("5\N{NARROW NO-BREAK SPACE}000", "XOF", 5_000),
        ("1 234 567", "XOF", 1_234_567), ("12,5", "EUR", 1_250), ("12.50", "EUR", 1_250), ("0,05", "EUR", 5),
        ("1 000,5", "EUR", 100_050), ("1,500", "TND", 1_500),
        ("5.000", "XOF", None), ("5,000", "XOF", None), ("5,0", "XOF", None), ("5.000", "EUR", None),
        ("12,345", "EUR", None), ("1,000.50", "EUR", None), ("1.000,50", "EUR", None), ("12,", "EUR", None),
        (",5", "EUR", None), ("50 00", "XOF", None), ("5e3", "XOF", None), ("-5", "XOF", None), ("+5", "XOF", None),
        ("0x10", "XOF", None), ("1_000", "XOF", None), ("٥٠٠", "XOF", None), ("NaN", "EUR", None), ("", "XOF", None),
        ("5 000 F", "XOF", None), ("9" * 17, "XOF", None), ("12,٥", "EUR", None),
    ],
)  # fmt: skip
def test_an_amount_is_read_strictly(text: str, currency: str, minor: int | None) -> None:
    """What a person could mean in two ways is no amount; digits and the currency's own places are."""
    assert amounts.typed(text, currency) == minor


def test_an_open_amount_is_said_by_the_buyer(tmp_path: Path) -> None:
    """Within the link's bounds; else the page again, with the bounds and with what was typed."""

    async def tell(t: Till) -> None:
        path = await linked(t, min_minor=500, max_minor=100_000)
        for wrong in ("499", "100001", "5.000", "", "beaucoup", '"><script>'):
            status, body, _ = await pay(t, path, amount=wrong)
            assert status == 422 and "Écrivez un montant de 500" in unescape(body) and "<script" not in body
        assert await t.count(sessions) == 0
        assert (await pay(t, path, amount="2 500"))[0] == 303
        assert [row.amount_minor for row in await t.rows(sessions)] == [2_500]

    story(tmp_path, tell)


def test_what_cannot_be_paid_any_more_says_so(tmp_path: Path) -> None:
    """Switched off, sold out, unknown, hammered: words, no form, no session."""

    async def tell(t: Till) -> None:
        assert t.merchant is not None
        app, who, by = t.app, Whose(t.merchant.id, False), By("test", t.app.clock(), t.app.ids)
        path = await linked(t, amount_minor=5_000)
        token = re.search(r'name="token" value="([^"]+)"', (await get(t, path))[1])
        await app.db.write(lambda tx: links.change(tx, who, path[3:], by, active=False))
        status, body = await get(t, path)
        assert status == 200 and "plus en service" in body and "<form" not in body
        assert token is not None
        status, body, _ = await pay(t, path, token=token[1])
        assert status == 409 and "plus en service" in body
        make_product = {"name": "Pagne", "price_minor": 2_500, "currency": "XOF", "stock": 0}
        product = await app.db.write(lambda tx: products.create(tx, who, by, **make_product))
        _, body = await get(t, await linked(t, product_id=product, quantity=2))
        assert "Il n’y en a plus" in body and "2 × Pagne" in body and "5\N{NARROW NO-BREAK SPACE}000" in body
        for lost in ("/l/lnk_nobody", "/l/lnk_nobody/print", "/l/lnk_nobody/qr.svg", "/l/%00"):
            assert (await get(t, lost))[0] == 404
        path = await linked(t, amount_minor=5_000)
        came = [(await pay(t, path))[0] for _ in range(FORMS_MOST + 1)]
        assert came == [303] * FORMS_MOST + [429]

    story(tmp_path, tell)


def test_the_code_and_the_poster_lead_to_the_link(tmp_path: Path) -> None:
    """The QR code says the public address, as SVG, as PNG and on the page to print, in both languages."""

    async def tell(t: Till) -> None:
        path = await linked(t, amount_minor=5_000, description="Table 12")
        expected = make(f"https://pay.shop.example{path}", error="m", micro=False)
        drawn = io.BytesIO()
        expected.save(drawn, kind="svg", scale=8, border=4, dark="#000", light="#fff")
        async with t.client.get(t.url + path + "/qr.svg") as answer:
            assert answer.content_type == "image/svg+xml" and await answer.read() == drawn.getvalue()
        async with t.client.get(t.url + path + "/qr.png") as answer:
            assert answer.content_type == "image/png" and (await answer.read()).startswith(b"\x89PNG")
        status, body = await get(t, path + "/print?lang=en")
        assert status == 200 and "Scan to pay" in body and f"https://pay.shop.example{path}" in body
        assert "Table 12" in body and "<svg" in body and " style=" not in body
        assert "Scannez pour payer" in (await get(t, path + "/print"))[1]
        assert len(body.encode()) < 50_000

    story(tmp_path, tell, public_url="https://pay.shop.example")
