"""
Two ordinary services to compare with, on the same server as caisse: `python -m tests.bench.baselines verify 8101`.

`verify` checks Stripe's signature in a Litestar `@post` handler and answers; it keeps nothing. `session` is how most
services are written: one SQLAlchemy async session a request over aiosqlite, two rows, commit, durable. Neither is
slowed down on purpose: no middleware, no validation beyond the signature, no request logging.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from granian.constants import Interfaces
from granian.server.embed import Server
from litestar import Litestar, Request, Response, post
from sqlalchemy import BigInteger, LargeBinary, Text, event
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from service.application import run
from tests.bench.callbacks import SECRET

TOLERANCE_S = 300


def verified(header: str, body: bytes, now_s: float) -> bool:
    """Stripe's scheme, as its documentation writes it."""
    parts = [part.partition("=") for part in header.split(",")]
    stamp = next((value for name, _, value in parts if name == "t"), "")
    if not stamp.isdigit() or abs(now_s - int(stamp)) > TOLERANCE_S:
        return False
    wanted = hmac.new(SECRET.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return any(hmac.compare_digest(wanted, value) for name, _, value in parts if name == "v1")


class Base(DeclarativeBase):
    """Tables of the ordinary service."""


class Callback(Base):
    """What came in."""

    __tablename__ = "callbacks"
    id: Mapped[str] = mapped_column(Text, primary_key=True)
    account_id: Mapped[str] = mapped_column(Text)
    key: Mapped[str] = mapped_column(Text, unique=True)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    received_at_ms: Mapped[int] = mapped_column(BigInteger)


class Owed(Base):
    """What is to be done about it."""

    __tablename__ = "outbox_messages"
    id: Mapped[str] = mapped_column(Text, primary_key=True)
    topic: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    due_at_ms: Mapped[int] = mapped_column(BigInteger, index=True)


@post("/webhooks/stripe", status_code=200)
async def verify_only(request: Request[Any, Any, Any]) -> Response[dict[str, bool]]:
    """Baseline 1: verify, answer."""
    body = await request.body()
    if not verified(request.headers.get("stripe-signature", ""), body, time.time()):
        return Response({"received": False}, status_code=401)
    return Response({"received": True})


def session_a_request(sessions: async_sessionmaker[Any]) -> Callable[..., Awaitable[Any]]:
    """Baseline 2: verify, one session, two rows, commit, answer."""
    import json

    async def keep(request: Request[Any, Any, Any]) -> Response[dict[str, bool]]:
        body = await request.body()
        if not verified(request.headers.get("stripe-signature", ""), body, time.time()):
            return Response({"received": False}, status_code=401)
        key = json.loads(body)["id"]
        now_ms = time.time_ns() // 1_000_000
        async with sessions() as session:
            session.add(Callback(id=f"cb_{key}", account_id="acc", key=key, body=body, received_at_ms=now_ms))
            session.add(Owed(id=f"callback:{key}", topic="callback", state="pending", due_at_ms=now_ms))
            await session.commit()
        return Response({"received": True})

    return keep


def engine_of(path: str, pool_size: int) -> AsyncEngine:
    """WAL and FULL, as durable as caisse; a busy timeout long enough that no request fails for waiting."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", pool_size=pool_size, max_overflow=0, pool_timeout=60)

    @event.listens_for(engine.sync_engine, "connect")
    def durable(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout = 60000")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()

    return engine


async def application(name: str) -> tuple[Litestar, AsyncEngine | None]:
    if name == "verify":
        return Litestar([verify_only], openapi_config=None), None
    engine = engine_of(os.environ["BENCH_DATABASE"], int(os.environ.get("BENCH_POOL", "5")))
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    handler = session_a_request(async_sessionmaker(engine, expire_on_commit=False))
    return Litestar([post("/webhooks/stripe", status_code=200)(handler)], openapi_config=None), engine


async def serve(name: str, port: int) -> None:
    app, engine = await application(name)
    server = Server(app, address="127.0.0.1", port=port, interface=Interfaces.ASGI, log_enabled=False, backlog=1024)
    loop = asyncio.get_running_loop()
    task = loop.create_task(server.serve())
    await asyncio.sleep(0.2)  # granian sets its own signal handlers when it starts
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.stop)
    await task
    if engine is not None:
        await engine.dispose()


if __name__ == "__main__":
    run(serve(sys.argv[1], int(sys.argv[2])))
