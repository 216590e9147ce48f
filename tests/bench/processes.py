"""Starting and stopping what is measured: each in a process of its own, on a fresh database, on a free port."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

START_WITHIN_S = 20.0
STOP_WITHIN_S = 20.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without anybody's own settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CAISSE_")} | more


@contextlib.contextmanager
def fresh(template: Path | None = None) -> Iterator[Path]:
    """A folder for one run, with a copy of what was prepared; nothing of it is left."""
    with tempfile.TemporaryDirectory(prefix="caisse-bench-") as name:
        if template is not None:
            shutil.copytree(template, name, dirs_exist_ok=True)
        yield Path(name)


@contextlib.contextmanager
def running(
    arguments: list[str], port: int, environment: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Start it, wait until the port answers, give it, stop it with SIGTERM. The log is shown when it did not start."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
    try:
        _wait_for(process, port, log)
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Stop it as an operator does; kill it when it does not listen."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + START_WITHIN_S
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            time.sleep(0.3)  # the port is open a moment before the application behind it is
            return
        time.sleep(0.05)
    raise RuntimeError(f"it did not start; its last words:\n{log.read_text(errors='replace')[-2000:]}")
