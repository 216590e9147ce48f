"""
A buyer's phone: a real Chromium, 360 pixels wide unless a test says otherwise, without script.

The browser is the system's own (`chromium`, `google-chrome` …), or the one that PLAYWRIGHT_CHROMIUM names. Where there
is none the tests are skipped, and the summary says so.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import ConsoleMessage, Page, async_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WIDTH, HEIGHT = 360, 640
SHOTS = os.environ.get("SCREENSHOTS", "")
"""A directory for pictures of every step, for a person to look at."""


def chromium() -> str | None:
    """Where the browser is."""
    named = os.environ.get("PLAYWRIGHT_CHROMIUM", "")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


needs_chromium = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine (see docs/pay.md)")


@dataclass
class Phone:
    """One tab. `hosts`: everybody it has spoken to; `complaints`: what its console says, refused by policy among it."""

    page: Page
    name: str
    hosts: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)
    shots: int = 0

    async def open(self, url: str) -> str:
        """Go there; the visible text."""
        await self.page.goto(url)
        return await self.text("open")

    async def click(self, words: str) -> None:
        """Press the button or link that says this, wherever that leads."""
        await self.page.locator(f"button:has-text({words!r}), a:has-text({words!r})").first.click()

    async def press(self, words: str) -> str:
        """The same, and the text of the page that comes."""
        await self.click(words)
        await self.page.wait_for_load_state("load")
        return await self.text(words)

    async def fill(self, label: str, value: str) -> None:
        """Type into the field with this label."""
        await self.page.get_by_label(label).fill(value)

    async def text(self, step: str = "") -> str:
        """What can be read on the page; it must fit the screen."""
        await self.fits(step)
        return (await self.page.locator("body").inner_text()).replace("\N{NO-BREAK SPACE}", " ")

    async def fits(self, step: str = "") -> None:
        """Nothing sticks out to the right, and what can be tapped is large enough for a thumb."""
        wide = await self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        if SHOTS:
            self.shots += 1
            place = Path(SHOTS) / f"{self.name}-{self.shots:02}-{''.join(c for c in step if c.isalnum())[:24]}.png"
            await self.page.screenshot(path=place, full_page=True)
        assert wide <= 0, f"{self.page.url} is {wide} pixels too wide"
        if "/pay/ses_" in self.page.url or "/l/lnk_" in self.page.url:
            small = await self.page.evaluate(
                "[...document.querySelectorAll('button,.button,select,input:not([type=hidden]):not([type=radio]),.op')]"
                ".filter(e => e.getBoundingClientRect().height < 44).map(e => e.outerHTML)"
            )
            assert small == []
            broken = await self.page.evaluate(
                "[...document.querySelectorAll('header a')].filter(e =>"
                " e.getBoundingClientRect().height > 3.4 * parseFloat(getComputedStyle(e).fontSize)).length"
            )
            assert not broken, "the word for the other language is broken in two"


@contextlib.asynccontextmanager
async def phone(
    name: str, *, width: int = WIDTH, script: bool = False, zoom: int = 1, language: str = "fr"
) -> AsyncIterator[Phone]:
    """A phone; `zoom` is that of the text alone, as a user sets it."""
    arguments = [f"--blink-settings=defaultFontSize={16 * zoom}"]
    if os.getuid() == 0:
        arguments.append("--no-sandbox")  # it refuses to run as root with one, and opens nothing but our own pages
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=arguments)
        try:
            context: Any = await browser.new_context(
                viewport={"width": width, "height": HEIGHT},
                has_touch=True,
                is_mobile=True,
                java_script_enabled=script,
                locale=language,
            )
            context.set_default_timeout(30_000)
            page = await context.new_page()
            one = Phone(page, name)
            page.on("request", lambda request: one.hosts.add(urlsplit(request.url).hostname or ""))
            page.on("console", lambda said: _complain(one, said))
            yield one
            assert one.complaints == []
            assert one.hosts <= {"127.0.0.1", ""}
        finally:
            await browser.close()


def _complain(one: Phone, said: ConsoleMessage) -> None:
    """What a policy refused, above all; not that an answer was a 404 or 422, which is written there too."""
    if said.type == "error" and "Failed to load resource" not in said.text:
        one.complaints.append(f"{said.text} {said.location}")
