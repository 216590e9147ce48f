"""`endpoint add` and `endpoint test` go through the same guard as every webhook, and say why they are refused."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from service.commands import run
from service.errors import Refusal
from tests.support.service import Till, till


def pointing(till: Till, **names: list[str]) -> None:
    """Names (`_` for `.`) that point to these addresses; everything else is unknown."""

    def look_up(host: str, port: int, *_: Any) -> list[Any]:
        if host.replace(".", "_") not in names:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        found = names[host.replace(".", "_")]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    till.app.guard.look_up = look_up


async def add(till: Till, url: str) -> str:
    assert till.merchant is not None
    return str((await run(till.app, "endpoint.add", {"merchant": till.merchant.id, "url": url}))["id"])


async def told_by_a_test(till: Till, url: str) -> tuple[str | None, int | None]:
    """What `endpoint test` says about a new endpoint: the error, and the status that came."""
    told = await run(till.app, "endpoint.test", {"endpoint": await add(till, url)})
    return told["error"], told["http_status"]


def test_a_test_event_meets_the_guard(tmp_path: Path) -> None:
    """A name is taken when it is entered, and judged when the test event is sent: with a word, and nobody called."""

    async def check() -> None:
        async with till(tmp_path) as running:
            port = urlsplit(running.shop.url).port
            pointing(
                running,
                good_example=["127.0.0.1"],
                metadata_example=["169.254.169.254"],
                mixed_example=["127.0.0.1", "10.0.0.1"],
                public_example=["8.8.8.8"],
            )
            assert await told_by_a_test(running, f"http://good.example:{port}/webhooks") == (None, 200)
            assert running.shop.types == ["endpoint.test"]
            for name, word in {"metadata": "forbidden_address", "mixed": "forbidden_address", "unknown": "dns"}.items():
                assert await told_by_a_test(running, f"http://{name}.example:{port}/webhooks") == (word, None), name
            running.app.guard.https_only = True
            assert await told_by_a_test(running, f"http://public.example:{port}/webhooks") == ("https_required", None)
            running.app.guard.https_only = False
            assert running.shop.types == ["endpoint.test"]

    asyncio.run(check())


def test_our_own_doors_are_not_tested(tmp_path: Path) -> None:
    """Neither the service's port nor the control's, by no name of this machine."""

    async def check() -> None:
        async with till(tmp_path) as running:
            app = running.app
            pointing(running, till_example=["127.0.0.2"], localhost=["127.0.0.1"])
            assert len(app.guard.own_ports) == 2
            for port in app.guard.own_ports:
                for host in ("127.0.0.1", "127.0.0.2", "[::1]"):
                    with pytest.raises(Refusal, match="caisse's own"):
                        await add(running, f"http://{host}:{port}/webhooks/stripe")
                for host in ("0.0.0.0", "[::]", "[::ffff:127.0.0.1]"):
                    with pytest.raises(Refusal):
                        await add(running, f"http://{host}:{port}/webhooks/stripe")
                for name in ("till.example", "localhost"):
                    assert await told_by_a_test(running, f"http://{name}:{port}/webhooks/stripe") == ("own_port", None)

    asyncio.run(check())


REFUSED_AT_ONCE = {  # and what the sentence says about it
    "https://169.254.169.254/latest/meta-data": "CAISSE_ALLOW_PRIVATE_CIDRS",
    "https://[fd00:ec2::254]/": "CAISSE_ALLOW_PRIVATE_CIDRS",
    "https://[::ffff:10.0.0.1]/": "CAISSE_ALLOW_PRIVATE_CIDRS",
    "https://2130706433/": "may not be sent",
    "https://0x7f.1/": "may not be sent",
    "https://127.1/": "may not be sent",
    "http://127.0.0.1:6379/": "port",
    "http://127.0.0.1:22/": "port",
    "http://8.8.8.8/": "https",
    "gopher://shop.example/": "may not be sent",
    "https://user:hunter2@shop.example/": "user name or password",
}


def test_what_can_be_said_at_once_is_said_at_once(tmp_path: Path) -> None:
    """An address that would be refused at every delivery is not taken, and the sentence holds no secret."""

    async def check() -> None:
        async with till(tmp_path, mode="staging", public_url="https://till.example") as running:
            for url, why in REFUSED_AT_ONCE.items():
                with pytest.raises(Refusal, match=why) as refused:
                    await add(running, url)
                assert "hunter2" not in str(refused.value)
            assert len(await run(running.app, "endpoint.list", {})) == 1  # the shop's own

    asyncio.run(check())


def test_a_network_that_is_closed_again_is_closed_for_tests_too(tmp_path: Path) -> None:
    """An endpoint taken while its network was allowed is refused once the setting is gone."""

    async def check() -> None:
        async with till(tmp_path) as running:
            endpoint = await add(running, running.shop.url)
            told = await run(running.app, "endpoint.test", {"endpoint": endpoint})
            assert (told["status"], told["error"]) == ("succeeded", None)
        async with till(tmp_path, allow_private_cidrs="10.9.0.0/16") as running:
            told = await run(running.app, "endpoint.test", {"endpoint": endpoint})
            assert (told["error"], told["http_status"]) == ("forbidden_address", None)
            assert told["status"] != "succeeded"
            shown = await run(running.app, "deliveries.show", {"delivery": told["id"]})
            assert [tried["error"] for tried in shown["tried"]] == ["forbidden_address"]
            assert not running.shop.got

    asyncio.run(check())
