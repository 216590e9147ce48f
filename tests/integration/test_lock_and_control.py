"""Beside a running service: one holder of the lock, and the door through which others reach it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from service import control
from service.control import CommandError, Progress, Server, call, serve
from service.lock import Held, Lock

HOLDER = """
import sys, time
from pathlib import Path
from service.lock import Lock
lock = Lock.acquire(Path(sys.argv[1]), version="9.9")
lock.publish("127.0.0.1:1234", "secret")
print("held", flush=True)
time.sleep(60)
"""


def hold(path: Path) -> subprocess.Popen[str]:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def kill(holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert holder.stdout is not None
    holder.stdout.close()


def test_a_held_lock_says_who_holds_it_and_kill_9_frees_it(tmp_path: Path) -> None:
    """Another process is refused with pid, address and token; once the holder is killed the lock is simply taken."""
    path = tmp_path / "caisse.db"
    holder = hold(path)
    try:
        with pytest.raises(Held) as caught:
            Lock.acquire(path)
        held = caught.value
        assert (held.pid, held.address, held.token, held.version) == (holder.pid, "127.0.0.1:1234", "secret", "9.9")
        assert "secret" not in str(held)
    finally:
        kill(holder)
    file = tmp_path / "caisse.db.lock.json"
    assert json.loads(file.read_text())["token"] == "secret", "the test must meet what a dead process left"
    lock = Lock.acquire(path, version="1")
    assert json.loads(file.read_text()) == {"pid": os.getpid(), "address": None, "token": None, "version": "1"}
    lock.release()


def test_waiting_for_the_lock(tmp_path: Path) -> None:
    """`wait_ms` waits for a holder that ends, and no longer than it says for one that does not."""
    path = tmp_path / "caisse.db"
    lock = Lock.acquire(path)
    began_s = time.monotonic()
    with pytest.raises(Held):
        Lock.acquire(path, wait_ms=100)
    assert time.monotonic() - began_s >= 0.1
    lock.release()
    lock.release()
    holder = hold(path)
    asyncio.run(_take_from(path, holder))


async def _take_from(path: Path, holder: subprocess.Popen[str]) -> None:
    waiting = asyncio.create_task(asyncio.to_thread(Lock.acquire, path, 10_000))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    kill(holder)
    (await waiting).release()


def test_the_lock_file_is_private_and_one_for_all_names(tmp_path: Path) -> None:
    """Mode 0600 whatever it was before, one lock behind a link to the database, none through a planted link."""
    (tmp_path / "caisse.db").touch()
    (tmp_path / "link.db").symlink_to("caisse.db")
    file = tmp_path / "caisse.db.lock.json"
    file.touch(mode=0o666)
    lock = Lock.acquire(tmp_path / "caisse.db")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(Held):
        Lock.acquire(tmp_path / "link.db")
    lock.publish("127.0.0.1:1", "token")
    lock.release()
    assert file.read_text() == "", "a token that opens nothing any more is not left about"
    (tmp_path / "other.db.lock.json").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match=r"symbolic|Too many levels"):
        Lock.acquire(tmp_path / "other.db")


class Refusal(Exception):
    code = "merchant_unknown"
    sentence = "There is no such merchant."


async def handler(command: str, arguments: dict[str, Any], progress: Progress) -> Any:
    match command:
        case "echo":
            return arguments
        case "count":
            for i in range(3):
                progress(i + 1, 3)
            return "done"
        case "refuse":
            raise Refusal
        case "unserialisable":
            return object()
        case "wait":
            await asyncio.sleep(60)
    raise RuntimeError("a secret inside")


def with_server(scenario: Callable[[Server], Awaitable[None]], request_ms: int = 5_000) -> None:
    async def play() -> None:
        server = await serve(handler, request_ms=request_ms)
        try:
            await scenario(server)
        finally:
            await server.close(grace_ms=50)

    asyncio.run(play())


async def exchange(server: Server, sent: bytes) -> bytes:
    """Send bytes as they are and return all that comes back."""
    host, port = server.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(sent)
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def test_a_command_is_answered_with_its_progress() -> None:
    """Arguments go in, progress and the result come out, also large ones."""

    async def scenario(server: Server) -> None:
        seen: list[tuple[int, int | None]] = []
        assert await call(server.address, server.token, "count", {}, lambda *p: seen.append(p)) == "done"
        assert seen == [(1, 3), (2, 3), (3, 3)]
        large = {"name": "é" * 100_000}
        assert await call(server.address, server.token, "echo", large) == large
        with pytest.raises(CommandError) as caught:
            await call(server.address, server.token, "echo", {"name": "x" * (1 << 20)})
        assert caught.value.code == "too_large"

    with_server(scenario)


def test_refusals_arrive_and_accidents_do_not_tell(caplog: pytest.LogCaptureFixture) -> None:
    """A refusal's code and sentence reach the caller; any other exception is `internal`, and logged."""

    async def scenario(server: Server) -> None:
        with pytest.raises(CommandError) as caught:
            await call(server.address, server.token, "refuse", {})
        assert (caught.value.code, caught.value.sentence) == (Refusal.code, Refusal.sentence)
        for command in ("crash", "unserialisable"):
            with pytest.raises(CommandError) as caught:
                await call(server.address, server.token, command, {})
            assert caught.value.code == "internal"
            assert "secret" not in caught.value.sentence
        assert await call(server.address, server.token, "echo", {}) == {}

    with caplog.at_level(logging.ERROR):
        with_server(scenario)
    assert [record.message for record in caplog.records] == ["control.command_raised"] * 2


@pytest.mark.parametrize("token", ["", "wrong", "é", "\ud800", None, 7, ["x"]])
def test_a_wrong_token_runs_nothing(token: Any) -> None:
    """Whatever stands in place of the token, no command runs and the door stays open for others."""

    async def scenario(server: Server) -> None:
        with pytest.raises(CommandError) as caught:
            await call(server.address, token, "echo", {})
        assert caught.value.code == ("wrong_token" if isinstance(token, str) else "bad_request")
        assert await call(server.address, server.token, "echo", {}) == {}

    with_server(scenario)


@pytest.mark.parametrize(
    "sent",
    [
        b"\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"[]\n",
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b'{"token": "x"}\n',
        b"x" * (3 << 20) + b"\n",
    ],
)
def test_nonsense_is_refused(sent: bytes) -> None:
    """Bytes that are no request, or too many of them, get at most a sentence, and the next command is served."""

    async def scenario(server: Server) -> None:
        answer = await exchange(server, sent)
        assert answer == b"" or json.loads(answer)["error"]["code"] == "bad_request"
        assert await call(server.address, server.token, "echo", {}) == {}

    with_server(scenario)


def test_a_giant_request_is_refused_though_it_is_well_formed() -> None:
    """Over 1 MB nothing runs, the right token or not."""

    async def scenario(server: Server) -> None:
        request = {"token": server.token, "command": "echo", "arguments": {"name": "x" * (3 << 20)}}
        answer = await exchange(server, json.dumps(request).encode() + b"\n")
        assert answer == b"" or json.loads(answer)["error"]["code"] == "bad_request"

    with_server(scenario)


def test_a_slow_client_is_dropped_and_holds_up_nobody() -> None:
    """A request that trickles in ends at the deadline, while others are served."""

    async def scenario(server: Server) -> None:
        slow = asyncio.create_task(exchange(server, b'{"token":'))
        await asyncio.sleep(0.05)
        assert await call(server.address, server.token, "echo", {}) == {}
        assert not slow.done()
        assert json.loads(await slow)["error"]["code"] == "timeout"

    with_server(scenario, request_ms=300)


def test_too_many_at_once_are_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections are bounded; one more is told so at once."""
    monkeypatch.setattr(control, "CONNECTIONS", 2)

    async def scenario(server: Server) -> None:
        waiting = [asyncio.create_task(call(server.address, server.token, "wait", {})) for _ in range(2)]
        await asyncio.sleep(0.1)
        with pytest.raises(CommandError) as caught:
            await call(server.address, server.token, "echo", {})
        assert caught.value.code == "busy"
        await server.close(grace_ms=10)
        for answer in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(answer, CommandError)
            assert answer.code == "no_answer"

    with_server(scenario)


def test_nobody_there_is_unreachable() -> None:
    """A process that is gone is told apart from one that ended in the middle."""

    async def scenario(server: Server) -> None:
        await server.close()
        with pytest.raises(CommandError) as caught:
            await call(server.address, server.token, "echo", {})
        assert caught.value.code == "unreachable"

    with_server(scenario)


def test_the_door_is_on_loopback_only() -> None:
    """It listens on 127.0.0.1, whatever else the machine is called."""

    async def scenario(server: Server) -> None:
        assert server.address.startswith("127.0.0.1:")
        assert server._server is not None
        assert [s.family for s in server._server.sockets] == [socket.AF_INET]

    with_server(scenario)
