"""caisse as a merchant runs it: set up by its own commands, one process that serves, stopped with SIGTERM."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from service.application import build
from service.commands import accounts, merchants
from service.config import Settings
from tests.bench import processes
from tests.bench.callbacks import SECRET

MASTER_KEY = base64.b64encode(bytes(range(32))).decode()


def environment(folder: Path, port: int, **more: str) -> dict[str, str]:
    """The settings of one measured service."""
    return processes.clean_environment(
        CAISSE_DATABASE_URL=f"sqlite:///{database(folder)}",
        CAISSE_HOST="127.0.0.1",
        CAISSE_PORT=str(port),
        CAISSE_MASTER_KEYS=MASTER_KEY,
        CAISSE_STRIPE_SECRET_KEY="sk_test_bench",
        CAISSE_STRIPE_WEBHOOK_SECRETS=SECRET,
        CAISSE_LOG_LEVEL="warning",
        **more,
    )


@contextlib.contextmanager
def serving(
    port: int, folder: Path, idle: bool = False, count_into: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """The service on `port`; `idle` leaves the work waiting, `count_into` counts SQL calls (tests/bench/serve.py)."""
    more = {"BENCH_IDLE": "1"} if idle else {}
    if count_into is not None:
        more["BENCH_COUNT"] = str(count_into)
    with processes.running(["-m", "tests.bench.serve"], port, environment(folder, port, **more), folder / "log") as one:
        yield one


@dataclass(frozen=True)
class Shop:
    """A merchant with an account at Stripe and an endpoint, and where its callbacks go."""

    merchant: str
    endpoint: str
    path: bytes


async def _set_up(folder: Path, port: int, receivers: str, count: int, trouble: str, troubled: int) -> list[Shop]:
    app = build(Settings.read(environment=environment(folder, port), directory=folder))
    await app.open()
    try:
        shops = []
        for number in range(count):
            url = f"{receivers}/{trouble if number < troubled else 'e'}/{number}"
            shop = await merchants.create(app, name=f"shop {number}", webhook_url=url)
            credentials = {"secret_key": "sk_test_bench", "webhook_secrets": [SECRET]}
            account = await accounts.add(
                app, merchant=shop["id"], provider="stripe", credentials=credentials, live=False, name="bench"
            )
            shops.append(Shop(shop["id"], shop["endpoint"]["id"], f"/webhooks/stripe/{account['id']}".encode()))
        return shops
    finally:
        await app.close()


def set_up(folder: Path, port: int, receivers: str, count: int, trouble: str = "e", troubled: int = 0) -> list[Shop]:
    """
    `count` merchants, each with one endpoint (that of the first `troubled` is at `/<trouble>/<n>`, see receivers.py)
    and one account, by the functions behind the commands. None: a database with its tables, and nothing in them.
    """
    return asyncio.run(_set_up(folder, port, receivers, count, trouble, troubled))


def database(folder: Path) -> Path:
    """The file of the service that was set up there."""
    return folder / "caisse.db"
