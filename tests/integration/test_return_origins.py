"""CAISSE_RETURN_ORIGINS: a payments host sends buyers back to the shop, and to nobody who only asks for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.service import till


def test_only_the_listed_origins_pass(tmp_path: Path) -> None:
    """The shop's address does, one that begins like it does not."""

    async def run() -> None:
        async with till(tmp_path, return_origins="https://shop.example,https://books.example:8443") as t:
            assert t.merchant is not None
            headers = {"Authorization": f"Bearer {t.merchant.key.key}"}
            for url, status in (
                ("https://shop.example/thanks?x=1", 201),
                ("https://books.example:8443/", 201),
                ("https://books.example/", 422),
                ("https://shop.example.evil.example/", 422),
                ("http://shop.example/", 422),
            ):
                body = {"amount": 500, "currency": "XOF", "return_url": url}
                async with t.client.post(t.url + "/v1/sessions", json=body, headers=headers) as answer:
                    assert (answer.status, url) == (status, url), await answer.text()

    asyncio.run(run())
